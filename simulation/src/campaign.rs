//! Many seeds: run side by side, told one after the other. A campaign fails when a seed fails, when an interesting state was
//! never reached, or when too little happened for its silence to mean anything.

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
    generate::{self, Options, Profile},
    scenario::Outcome,
    trace::Finding,
};

/// What must happen in a hundred seeds, at least, when all faults may come.
pub const MINIMA: [(&str, u64); 3] =
    [("acknowledged calls", 2_000), ("failovers that took effect", 100), ("divergences", 50)];

/// Seeds below which a state that was not reached says nothing.
pub const SEEDS_FOR_COVERAGE: u64 = 100;

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
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stopped.load(Ordering::Relaxed) {
                        return;
                    }
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

    /// What is missing for this campaign to mean something; empty: nothing.
    #[must_use]
    pub fn gaps(&self, options: &Options) -> Vec<String> {
        if options.profile != Profile::All || options.regions < 3 || self.seeds < SEEDS_FOR_COVERAGE {
            return Vec::new();
        }
        let mut gaps: Vec<String> = State::ALL
            .iter()
            .filter(|state| state.is_expected() && self.seen.count(state.name()) == 0)
            .map(|state| format!("never reached: {} ({})", state.name(), state.meaning()))
            .collect();
        let found = [self.acknowledged, self.failovers, self.divergences()];
        for ((what, minimum), found) in MINIMA.iter().zip(found) {
            if found * 100 < minimum * self.seeds {
                gaps.push(format!(
                    "too few {what}: {} per 100 seeds, expected {minimum}",
                    found * 100 / self.seeds.max(1)
                ));
            }
        }
        gaps
    }

    /// Nothing failed and nothing is missing.
    #[must_use]
    pub fn is_good(&self, options: &Options) -> bool {
        self.failed.is_empty() && self.worlds.is_empty() && self.gaps(options).is_empty()
    }
}
