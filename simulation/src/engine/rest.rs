//! The end of a simulation: everything heals, comes to rest, and then must agree (V05–V11, V16), and what clients were told
//! must be there, or listed for a cause that this oracle finds by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_conflict::{RunFacts, arbitrate};
use antipode_core::{
    digest::digest,
    ids::{Nanos, RunId, Timestamp},
};
use antipode_history::api::{Operation, Reply, Request};
use antipode_persistence::store::RegionStore;
use antipode_proto::api::history::v1::HistoryEvent;
use futures::FutureExt;

use super::{
    Engine, Failure, folded::Runs, program::replay, script::LinkStep, short, site::Asker, span::Span,
};
use crate::region::Kept;

/// Within so much virtual time after everything healed, every open run has gone as far as it can (V16).
const PATIENCE: Span = Span::seconds(600);
/// A retention below this is waited for at the end.
pub(super) const SHORT: Span = Span::seconds(3_600);
/// Closed runs whose retention is over and that all have are gone after this.
const DELETED_WITHIN: Span = Span::seconds(180);
/// Timers are waited for that fire at least so long before patience ends.
const SLACK: Nanos = Nanos::seconds(60);

impl Engine {
    /// Everything that was broken is whole again, and nothing more breaks.
    pub fn heal_all(&mut self) -> Result<(), Failure> {
        self.setup.net.drop = 0;
        self.setup.net.duplicate = 0;
        self.setup.net.reorder = 0;
        self.setup.net.corrupt = 0;
        self.setup.net.flip = 0;
        self.setup.net.answers = 0;
        for site in 0..self.sites.len() {
            let commit = self.setup.commit;
            let here = &mut self.sites[site];
            here.failing.clear();
            here.commit_span = commit;
            here.workers = true;
            here.trouble = Default::default();
            here.skew = Span(0);
            here.wake_at = None;
            self.restart(site)?;
            for number in self.sites[site].held.keys().copied().collect::<Vec<_>>() {
                self.after(Span::millis(1), super::Due::Finish { site, task: number });
            }
            self.tend(site)?;
        }
        self.release_all()?;
        self.heal(&LinkStep::default())
    }

    /// Heals everything, waits until nothing moves any more, and lets all oracles look.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn rest(&mut self) -> Result<(), Failure> {
        self.heal_all()?;
        self.settle(true)?;
        if self.findings.is_empty() {
            self.check_rest()?;
        }
        if self.findings.is_empty() && self.setup.retention < SHORT {
            // Once more when what is over has gone.
            self.run_until(Timestamp(self.now.0 + self.setup.retention.0 + DELETED_WITHIN.0))?;
            self.settle(true)?;
            self.check_rest()?;
        }
        Ok(())
    }

    /// Waits until nothing moves any more; with `whole` also until every open run has gone as far as it can.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn settle(&mut self, whole: bool) -> Result<(), Failure> {
        let end = Timestamp(self.now.0 + PATIENCE.0);
        // Quarantined runs are tried again when a stream begins.
        let mut replays = 0;
        while self.now < end {
            self.run_until(Timestamp(self.now.0 + Span::seconds(1).0))?;
            if !self.findings.is_empty() {
                return Ok(());
            }
            if !self.still()? {
                continue;
            }
            if whole && self.quarantined_anywhere() > 0 && replays < 3 {
                replays += 1;
                self.replay_all()?;
                continue;
            }
            if !whole {
                return Ok(());
            }
            let busy = self.busy_runs(Timestamp(end.0 - SLACK.0))?;
            if busy.is_empty() {
                return Ok(());
            }
            if self.now.0 + Span::seconds(5).0 >= end.0 {
                self.find("V16", format!("{} later these do not go on: {}", PATIENCE, busy.join("; ")));
                return Ok(());
            }
        }
        if whole {
            let why = self.unrest()?;
            self.find("V16", format!("{PATIENCE} after everything healed it is not at rest: {why}"));
        }
        Ok(())
    }

    fn still(&self) -> Result<bool, Failure> {
        Ok(self.unrest()?.is_empty())
    }

    /// Why it is not at rest.
    fn unrest(&self) -> Result<String, Failure> {
        if self.calls.waiting() > 0 {
            return Ok(format!("{} calls wait", self.calls.waiting()));
        }
        for site in self.sites.iter().filter(|site| site.up) {
            let name = &site.region.name;
            let waiting = site.waiting.values().filter(|asker| !matches!(asker, Asker::Call(_))).count();
            if waiting > 0 || !site.committing.is_empty() {
                return Ok(format!("{name} is at work"));
            }
            if site.workers && !site.region.offers.is_empty() {
                return Ok(format!("{name} offers tasks"));
            }
            if site.workers && !site.held.is_empty() {
                return Ok(format!("a worker of {name} holds a task"));
            }
            if !matches!(site.region.record.phase(), antipode_core::namespace::Phase::Active) {
                return Ok(format!("{name} believes in a hand-over"));
            }
        }
        if let Some(why) = self.links_unrest()? {
            return Ok(why);
        }
        Ok(String::new())
    }

    fn quarantined_anywhere(&self) -> usize {
        (0..self.sites.len()).map(|site| self.quarantined(site)).sum()
    }

    /// Runs quarantined in a region.
    pub(crate) fn quarantined(&self, site: usize) -> usize {
        let rows = self.sites[site].region.store.quarantine_all().now_or_never().and_then(Result::ok);
        rows.map_or(0, |rows| rows.len())
    }

    /// Streams begin anew, and with them quarantined runs are tried once more.
    pub(crate) fn replay_all(&mut self) -> Result<(), Failure> {
        for to in 0..self.sites.len() {
            if self.quarantined(to) > 0 {
                self.stream_anew(to)?;
            }
        }
        Ok(())
    }

    /// Regions that the namespace lists and that are up.
    pub(crate) fn listed(&self) -> Vec<usize> {
        let all = 0..self.sites.len();
        all.filter(|site| {
            let site = &self.sites[*site];
            site.up && site.region.record.has_member(&site.region.name)
        })
        .collect()
    }

    /// Open runs that have something to do, in the region that is active.
    fn busy_runs(&mut self, soon: Timestamp) -> Result<Vec<String>, Failure> {
        let mut busy = Vec::new();
        let active: Vec<_> = (0..self.sites.len()).filter(|site| self.believes_writable(*site)).collect();
        for site in active {
            for workflow in &self.watch.workflows.clone() {
                let key = self.key(workflow);
                let Some(owner) = self.sites[site].region.stored_owner(&key)? else { continue };
                let runs = self.runs_at(site, &key)?;
                let Some(kept) = runs.get(&owner) else { continue };
                let run = &kept.run;
                if !run.state.is_open() {
                    continue;
                }
                let timers = run.state.timers.values().filter(|timer| timer.due < soon).count();
                let mut words = Vec::new();
                if run.task().is_some() {
                    words.push("a workflow task".to_string());
                }
                if !run.state.activities.is_empty() {
                    words.push(format!("{} activities", run.state.activities.len()));
                }
                if timers > 0 {
                    words.push(format!("{timers} timers"));
                }
                let first = run.state.start.as_ref().map(antipode_core::state::Start::first_task_at);
                if run.state.task_anchor.event.0 == 0 && first.is_some_and(|first| first < soon) {
                    words.push("its first workflow task to come".to_string());
                }
                if run.has_pending_live() {
                    words.push("pending events".to_string());
                }
                if !words.is_empty() {
                    busy.push(format!("{workflow}/{} has {}", short(&owner), words.join(", ")));
                }
            }
        }
        Ok(busy)
    }

    /// All oracles that need rest.
    fn check_rest(&mut self) -> Result<(), Failure> {
        self.check_records();
        self.check_nothing_gone()?;
        for workflow in self.watch.workflows.clone() {
            self.check_workflow(&workflow)?;
        }
        self.check_calls()?;
        self.check_lists()
    }

    /// V09: all regions have the same record.
    fn check_records(&mut self) {
        let listed = self.listed();
        let Some(first) = listed.first().copied() else { return };
        let bytes = self.sites[first].region.record.to_bytes();
        for site in listed {
            if self.sites[site].region.record.to_bytes() != bytes {
                let (a, b) = (self.name(first).to_string(), self.name(site).to_string());
                self.find("V09", format!("{a} and {b} have different namespace records"));
            }
        }
    }

    fn check_workflow(&mut self, workflow: &str) -> Result<(), Failure> {
        let key = self.key(workflow);
        let listed = self.listed();
        let Some(first) = listed.first().copied() else { return Ok(()) };
        let firsts = self.runs_at(first, &key)?;
        let digests: BTreeMap<RunId, String> =
            firsts.iter().map(|(id, kept)| (*id, digest(&kept.run))).collect();
        let owner = self.sites[first].region.stored_owner(&key)?;
        self.check_owner(workflow, &firsts, owner);
        for (id, kept) in &firsts {
            self.check_run(workflow, id, kept);
        }
        for site in listed {
            let runs = self.runs_at(site, &key)?;
            let name = self.name(site).to_string();
            // A region restored to a time before a run need not know the tombstone that others keep of it (B6).
            let here = self.sites[site].region.stored_owner(&key)?;
            let forgotten = self.watch.restores > 0 && runs.is_empty() && firsts.is_empty();
            if here != owner && !forgotten {
                self.find(
                    "V07",
                    format!("{workflow}: {name} and {} disagree about the current run", self.name(first)),
                );
            }
            let here: BTreeSet<_> = runs.keys().collect();
            let there: BTreeSet<_> = firsts.keys().collect();
            // Retention runs in each region by itself.
            let lacks = |run: &RunId| if here.contains(run) { first } else { site };
            let differs: Vec<_> =
                here.symmetric_difference(&there).filter(|run| !self.is_deleted(lacks(run), run)).collect();
            if let Some(run) = differs.first() {
                self.find(
                    "V09",
                    format!(
                        "{workflow}: {name} has {} runs and {} has {}; they differ in {}",
                        here.len(),
                        self.name(first),
                        there.len(),
                        short(run)
                    ),
                );
                continue;
            }
            for (id, kept) in &runs {
                let (Some(other), Some(theirs)) = (firsts.get(id), digests.get(id)) else { continue };
                let mine = if Arc::ptr_eq(kept, other) { theirs.clone() } else { digest(&kept.run) };
                // The digest names the branches; which of them is current follows, by the same rule everywhere (R311, G2).
                if mine != *theirs || kept.run.tip() != other.run.tip() {
                    self.find(
                        "V09",
                        format!(
                            "{workflow}/{}: {name} and {} differ\n  {name}: {}\n  {}: {}",
                            short(id),
                            self.name(first),
                            portrait(kept),
                            self.name(first),
                            portrait(other)
                        ),
                    );
                }
                let verdicts = |kept: &Kept| kept.run.verdicts.to_wire();
                if verdicts(kept) != verdicts(other) {
                    self.find(
                        "V09",
                        format!(
                            "{workflow}/{}: {name} and {} know different verdicts: {:?} and {:?}",
                            short(id),
                            self.name(first),
                            verdicts(kept),
                            verdicts(other)
                        ),
                    );
                }
                self.check_memory(site, workflow, *id, &mine)?;
            }
        }
        Ok(())
    }

    /// Retention took it from there, or from others before this region was restored to a time without it.
    fn is_deleted(&self, site: usize, run: &RunId) -> bool {
        self.watch.graves.has(site, run) || (self.watch.restores > 0 && self.watch.graves.anywhere(run))
    }

    /// V20: what a region has stored of a run is still there, on whatever branch it stands.
    fn check_nothing_gone(&mut self) -> Result<(), Failure> {
        for site in self.listed() {
            let mut chains = self.watch.chains_of(site);
            for workflow in &self.watch.workflows {
                for stored in self.sites[site].region.stored_rows(&self.key(workflow))? {
                    if let Some(had) = chains.get_mut(&stored.row.key.run) {
                        for row in &stored.batches {
                            had.remove(&row.batch.chain);
                        }
                    }
                }
            }
            chains.retain(|run, had| !had.is_empty() && !self.watch.graves.has(site, run));
            if let Some((run, had)) = chains.first_key_value() {
                let name = self.name(site).to_string();
                self.find("V20", format!("{name} lost {} batches of {run} that it had stored", had.len()));
            }
        }
        Ok(())
    }

    /// V05: what a shard remembers is the fold of what is stored.
    fn check_memory(&mut self, site: usize, workflow: &str, run: RunId, stored: &str) -> Result<(), Failure> {
        let key = self.key(workflow);
        let mut remembered = self.sites[site].region.remembered(&key.run(run));
        if remembered.is_none() {
            // It is read and folded by the shard itself then.
            let request = Request { workflow: key, run: Some(run), operation: Operation::Inspect };
            if let Some(Ok(Reply::Inspect(inspect))) = self.ask_now(site, request)? {
                remembered = Some(inspect.digest);
            }
        }
        if let Some(digest) = remembered.filter(|digest| digest != stored) {
            let name = self.name(site).to_string();
            self.find(
                "V05",
                format!("{workflow}/{}: {name} remembers {digest} and stores {stored}", short(&run)),
            );
        }
        Ok(())
    }

    /// Asks at rest: the answer is there at once.
    pub(crate) fn ask_now(
        &mut self,
        site: usize,
        request: Request,
    ) -> Result<Option<Result<Reply, antipode_history::api::Refusal>>, Failure> {
        let now = self.local(site);
        let ticket = self.sites[site].region.request(now, request);
        self.sites[site].region.pump(now)?;
        Ok(self.sites[site].region.answers.remove(&ticket))
    }

    /// V07 by B6 and B7: the current record names the greatest run.
    fn check_owner(&mut self, workflow: &str, runs: &Runs, owner: Option<RunId>) {
        let facts: Vec<_> = runs
            .iter()
            .map(|(id, kept)| RunFacts { run: *id, order: kept.run.order(), open: kept.run.state.is_open() })
            .collect();
        let greatest = arbitrate(&facts).current.map(|facts| facts.run);
        // What retention deleted keeps the id (B6).
        if owner != greatest && owner.is_none_or(|owner| runs.contains_key(&owner)) {
            self.find(
                "V07",
                format!(
                    "{workflow}: the record names {}, the greatest run is {}",
                    owner.as_ref().map_or("nobody".to_string(), short),
                    greatest.as_ref().map_or("none".to_string(), short)
                ),
            );
        }
    }

    /// V01, V03, V04 and the replay of what workers wrote.
    fn check_run(&mut self, workflow: &str, id: &RunId, kept: &Kept) {
        let branches = kept.run.branches();
        if branches.len() > 2 {
            self.note(super::seen::State::ThreeBranches);
        }
        let current = kept.run.tip();
        if branches.last().is_some_and(|last| last.chain != current) {
            self.find("V04", format!("{workflow}/{}: the current branch is not the greatest", short(id)));
        }
        let mut events_of_current = None;
        for branch in branches {
            let events = kept.events(branch.chain);
            if let Some(why) = malformed(&events) {
                self.find("V01", format!("{workflow}/{} branch {}: {why}", short(id), branch.items));
            }
            if branch.chain == current {
                events_of_current = Some(events);
            }
        }
        let events = events_of_current.unwrap_or_else(|| kept.events(current));
        if let Some(why) = replay(&events) {
            self.find("replay", format!("{workflow}/{}: {why}\n  {}", short(id), outline(&events)));
        }
    }

    /// Without a cause nothing is unclaimed, and after a replay nothing is quarantined.
    fn check_lists(&mut self) -> Result<(), Failure> {
        for site in 0..self.sites.len() {
            let quarantined = self.quarantined(site);
            if quarantined > 0 {
                let name = self.name(site).to_string();
                self.find("quarantine", format!("{name} still has {quarantined} quarantined runs"));
            }
        }
        if self.watch.lossy() {
            return Ok(());
        }
        for workflow in self.watch.workflows.clone() {
            let key = self.key(&workflow);
            for site in self.listed() {
                let runs = self.runs_at(site, &key)?;
                let unclaimed: usize = runs.values().map(|kept| kept.run.unclaimed().len()).sum();
                let branched = runs.values().any(|kept| kept.run.branches().len() > 1);
                if unclaimed > 0 {
                    self.find(
                        "V10",
                        format!("{workflow}: {unclaimed} events are unclaimed, though nothing was forced"),
                    );
                }
                if branched {
                    self.find(
                        "V18",
                        format!("{workflow}: a run has two branches, though nothing was forced"),
                    );
                }
            }
        }
        Ok(())
    }
}

/// Ids without gap, versions that do not fall (V01).
fn malformed(events: &[HistoryEvent]) -> Option<String> {
    let mut version = 0;
    for (event, id) in events.iter().zip(1..) {
        if event.event_id != id {
            return Some(format!("event {} stands where {id} should", event.event_id));
        }
        if event.version < version {
            return Some(format!("event {id} has version {} after {version}", event.version));
        }
        version = event.version;
    }
    None
}

/// Events by id, version and name.
pub(crate) fn outline(events: &[HistoryEvent]) -> String {
    let words: Vec<_> = events
        .iter()
        .map(|event| format!("{}@{} {}", event.event_id, event.version, super::program::event_name(event)))
        .collect();
    words.join(", ")
}

/// What a run is made of, for a finding.
fn portrait(kept: &Kept) -> String {
    let run = &kept.run;
    let branches: Vec<_> =
        run.branches().iter().map(|branch| format!("{}…{}", branch.items, branch.chain)).collect();
    format!(
        "branches {branches:?} registers {:?} pending {:?} applied {}",
        run.registers.iter().map(|register| format!("{register:?}")).collect::<Vec<_>>(),
        run.pending.keys().collect::<Vec<_>>(),
        run.state.applied.len(),
    )
}
