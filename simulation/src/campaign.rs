//! Many seeds: run side by side, told one after the other. A campaign fails when a seed fails, when an interesting state was
//! never reached, or when too little happened for its silence to mean anything.

pub mod expected;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use serde::Serialize;

use crate::{
    engine::seen::{Seen, State},
    generate::{self, Options},
    scenario::Outcome,
    trace::Finding,
};

/// A seed that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// What is broken first.
    pub finding: Finding,
}

/// What came of a campaign.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Those that failed, by seed.
    pub failed: Vec<Failed>,
    /// Seeds whose world could not be made or run.
    pub worlds: Vec<(u64, String)>,
    /// Steps of the scheduler.
    pub steps: u64,
    /// Committed changes of runs.
    pub transitions: u64,
    /// Committed events.
    pub events: u64,
    /// Virtual nanoseconds.
    pub virtual_nanos: i64,
    /// Calls.
    pub calls: u64,
    /// Acknowledged calls.
    pub acknowledged: u64,
    /// Failovers that took effect.
    pub failovers: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Interesting states.
    pub seen: Seen,
    /// Hash over the hashes of all seeds, in order.
    pub hash: String,
}

/// Runs seeds, so many at a time; with `stop` only until one fails. `told` hears of every seed when it is done: how many are, and whether it failed.
pub fn run(
    seeds: Range<u64>,
    options: &Options,
    jobs: usize,
    stop: bool,
    told: &(dyn Fn(u64, u64, Option<&Failed>) + Sync),
) -> Summary {
    let total = seeds.end.saturating_sub(seeds.start);
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let stopped = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(send);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    // The last seed may be the last number there is: no counting beyond the end.
                    let seed = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seed| {
                        (seed < seeds.end).then(|| seed.saturating_add(1))
                    });
                    let Some(seed) = seed.ok().filter(|_| !stopped.load(Ordering::Relaxed)) else { return };
                    let result = generate::run(seed, options, false).map(|(outcome, _)| outcome);
                    let failed = result.as_ref().ok().and_then(|outcome| {
                        outcome.findings.first().map(|finding| Failed { seed, finding: finding.clone() })
                    });
                    if stop && failed.is_some() {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    told(done.fetch_add(1, Ordering::Relaxed) + 1, total, failed.as_ref());
                    let send = send.lock().unwrap_or_else(PoisonError::into_inner);
                    // The receiver outlives the scope.
                    let _ = send.send((seed, result.map_err(|error| error.to_string())));
                }
            });
        }
    });
    drop(send);
    let results: BTreeMap<u64, Result<Outcome, String>> = receive.into_iter().collect();
    Summary::of(results)
}

impl Summary {
    fn of(results: BTreeMap<u64, Result<Outcome, String>>) -> Self {
        let mut summary = Self::default();
        let mut hasher = blake3::Hasher::new();
        for (seed, result) in results {
            summary.seeds += 1;
            match result {
                Ok(outcome) => {
                    hasher.update(outcome.hash.as_bytes());
                    summary.add(seed, &outcome);
                }
                Err(why) => summary.worlds.push((seed, why)),
            }
        }
        summary.hash = hasher.finalize().to_hex().chars().take(16).collect();
        summary
    }

    fn add(&mut self, seed: u64, outcome: &Outcome) {
        if let Some(finding) = outcome.findings.first() {
            self.failed.push(Failed { seed, finding: finding.clone() });
        }
        self.steps += outcome.steps;
        self.transitions += outcome.transitions;
        self.events += outcome.events;
        self.virtual_nanos += outcome.virtual_nanos;
        self.calls += outcome.calls;
        self.acknowledged += outcome.acknowledged;
        self.failovers += outcome.failovers;
        self.seen.add(&outcome.seen);
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }

    /// Runs that two regions went on with differently.
    #[must_use]
    pub fn divergences(&self) -> u64 {
        self.seen.count(State::Branched.name()) + self.seen.count(State::TwoRuns.name())
    }

    /// Why the campaign is not judged by what it reached; none: it is.
    #[must_use]
    pub fn not_judged(&self, options: &Options) -> Option<String> {
        expected::too_little(options, self.seeds)
    }

    /// What is missing for this campaign to mean something; empty: nothing, or it is not judged.
    #[must_use]
    pub fn gaps(&self, options: &Options) -> Vec<String> {
        if self.not_judged(options).is_some() {
            return Vec::new();
        }
        let mut gaps: Vec<String> = State::ALL
            .iter()
            .filter(|state| expected::is_expected(**state, options, self.seeds))
            .filter(|state| self.seen.count(state.name()) == 0)
            .map(|state| format!("never reached: {} ({})", state.name(), state.meaning()))
            .collect();
        gaps.extend(self.minima(options).into_iter().filter(|minimum| !minimum.is_met()).map(|minimum| {
            format!(
                "too few {}: {} per 100 seeds, expected {}",
                minimum.what, minimum.per_hundred_seeds, minimum.expected
            )
        }));
        gaps
    }

    /// How much happened, and how much must.
    #[must_use]
    pub fn minima(&self, options: &Options) -> Vec<Minimum> {
        let found = [self.acknowledged, self.failovers, self.divergences()];
        let expected = expected::minima(options);
        let all = expected::COUNTED.into_iter().zip(found).zip(expected);
        all.map(|((what, found), expected)| Minimum {
            what,
            per_hundred_seeds: found.saturating_mul(100) / self.seeds.max(1),
            expected,
        })
        .collect()
    }

    /// Nothing failed and nothing is missing.
    #[must_use]
    pub fn is_good(&self, options: &Options) -> bool {
        self.failed.is_empty() && self.worlds.is_empty() && self.gaps(options).is_empty()
    }

    /// With all that decides whether it is good, for whoever reads JSON.
    #[must_use]
    pub fn report(&self, options: &Options) -> Report<'_> {
        Report {
            profile: options.profile.name(),
            regions: options.regions,
            steps_each: options.steps,
            good: self.is_good(options),
            not_judged: self.not_judged(options),
            gaps: self.gaps(options),
            minima: self.minima(options),
            divergences: self.divergences(),
            states: State::ALL
                .iter()
                .map(|state| Reached {
                    state: state.name(),
                    count: self.seen.count(state.name()),
                    expected: self.not_judged(options).is_none()
                        && expected::is_expected(*state, options, self.seeds),
                })
                .collect(),
            summary: self,
        }
    }
}

/// How much of something happened, and how much must.
#[derive(Clone, Debug, Serialize)]
pub struct Minimum {
    /// What is counted.
    pub what: &'static str,
    /// How often it happened in a hundred seeds.
    pub per_hundred_seeds: u64,
    /// How often it must.
    pub expected: u64,
}

impl Minimum {
    /// Did enough happen?
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.per_hundred_seeds >= self.expected
    }
}

/// An interesting state, reached or not.
#[derive(Clone, Debug, Serialize)]
pub struct Reached {
    /// Its name.
    pub state: &'static str,
    /// How often.
    pub count: u64,
    /// Whether this campaign fails without it.
    pub expected: bool,
}

/// A summary, and why it is good or not.
#[derive(Clone, Debug, Serialize)]
pub struct Report<'a> {
    /// The faults that might come.
    pub profile: &'static str,
    /// Regions.
    pub regions: usize,
    /// Steps of a seed before everything heals.
    pub steps_each: u64,
    /// Nothing failed and nothing is missing: exit code 0.
    pub good: bool,
    /// Why states and minima are not judged; none: they are.
    pub not_judged: Option<String>,
    /// What is missing.
    pub gaps: Vec<String>,
    /// How much happened, and how much must.
    pub minima: Vec<Minimum>,
    /// Runs that two regions went on with differently.
    pub divergences: u64,
    /// All interesting states, also those that were not reached.
    pub states: Vec<Reached>,
    /// The counts.
    #[serde(flatten)]
    pub summary: &'a Summary,
}
