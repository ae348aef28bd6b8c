//! What retention deleted (C6): remembered as it was, so that the oracles can say that it might go, that it does not come back,
//! and that what clients were told stood in it. A region knows less than this: it has a tombstone, and what peers proved.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_core::{
    chain::ChainValue,
    ids::{Nanos, RunId, RunKey, ShardId},
};
use antipode_persistence::rows::Group;

use super::{Engine, Failure, folded::Runs, seen::State, short};
use crate::region::Kept;

/// A deleted run.
#[derive(Debug)]
struct Grave {
    workflow: String,
    kept: Arc<Kept>,
    /// Its tombstone stands: nothing of it may be stored again.
    stands: bool,
    /// The region was restored to a time before the deletion.
    undone: bool,
}

/// All of them, by region.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    graves: BTreeMap<(usize, RunId), Grave>,
    /// What a region had before it was restored from a backup.
    past: BTreeMap<usize, BTreeSet<ChainValue>>,
    /// The shortest retention that the namespace ever had, in seconds.
    retention_min: Option<i64>,
}

impl Graves {
    /// Runs that a region has deleted, and whether their tombstones stand: part of a backup.
    pub(crate) fn state_of(&self, site: usize) -> BTreeMap<RunId, bool> {
        let here = self.here(site).filter(|(_, grave)| !grave.undone);
        here.map(|((_, run), grave)| (*run, grave.stands)).collect()
    }

    /// A region lost what it stored, and knows of its deletions only what its backup knew.
    pub(crate) fn lost(&mut self, site: usize, chains: &BTreeSet<ChainValue>, knew: &BTreeMap<RunId, bool>) {
        self.past.entry(site).or_default().extend(chains);
        for ((_, run), grave) in self.graves.iter_mut().filter(|((other, _), _)| *other == site) {
            let known = knew.get(run);
            (grave.stands, grave.undone) = (known == Some(&true), known.is_none());
        }
    }

    fn here(&self, site: usize) -> impl Iterator<Item = (&(usize, RunId), &Grave)> {
        let from = (site, RunId(uuid::Uuid::nil()));
        self.graves.range(from..).take_while(move |((other, _), _)| *other == site)
    }

    /// The namespace has this retention in some region.
    pub(crate) fn retention(&mut self, seconds: i64) {
        self.retention_min = Some(self.retention_min.map_or(seconds, |known| known.min(seconds)));
    }

    /// Did this region delete it, as far as it can know?
    pub(crate) fn has(&self, site: usize, run: &RunId) -> bool {
        self.graves.get(&(site, *run)).is_some_and(|grave| !grave.undone)
    }

    /// Did this region delete this batch of it?
    pub(crate) fn holds(&self, site: usize, run: &RunId, chain: &ChainValue) -> bool {
        let grave = self.graves.get(&(site, *run));
        grave.is_some_and(|grave| {
            !grave.undone && grave.kept.batches.iter().any(|batch| batch.chain == *chain)
        })
    }

    /// The run as another region deleted it, if that had all that this copy has, or what it lacks lost to it.
    fn deleted_elsewhere(&self, site: usize, run: &RunId, copy: &Kept) -> Option<Arc<Kept>> {
        let others = self.graves.iter().filter(|((other, id), _)| *other != site && id == run);
        let covers = |kept: &Kept| {
            let last = kept.run.state.last_version;
            copy.batches.iter().all(|batch| {
                batch.envelope.version <= last || kept.batches.iter().any(|known| known.chain == batch.chain)
            })
        };
        others.map(|(_, grave)| &grave.kept).find(|kept| covers(kept)).cloned()
    }

    /// A tombstone stands here of a run that this region never deleted.
    fn told(&mut self, site: usize, run: &RunKey) {
        let known = self.graves.get(&(site, run.run)).is_some_and(|grave| !grave.undone);
        let mut others = self.graves.iter().filter(|((other, id), _)| *other != site && *id == run.run);
        let Some(kept) = others.find_map(|(_, grave)| (!known).then(|| Arc::clone(&grave.kept))) else {
            return;
        };
        let grave = Grave { workflow: run.workflow.to_string(), kept, stands: true, undone: false };
        self.graves.insert((site, run.run), grave);
    }

    /// Did any?
    pub(crate) fn anywhere(&self, run: &RunId) -> bool {
        self.graves.keys().any(|(_, other)| other == run)
    }

    /// Runs of a workflow id that a region deleted, as they were.
    pub(crate) fn of(&self, site: usize, workflow: &str) -> Runs {
        let here = self.here(site);
        here.filter(|(_, grave)| grave.workflow == workflow && !grave.undone)
            .map(|((_, run), grave)| (*run, Arc::clone(&grave.kept)))
            .collect()
    }
}

impl Engine {
    /// Runs that commits in flight are about to delete, as they are stored now.
    pub(crate) fn dying(&self, site: usize, shard: Option<ShardId>) -> Result<Vec<(RunKey, Kept)>, Failure> {
        let mut dying = Vec::new();
        let region = &self.sites[site].region;
        for group in region.groups_in_flight().filter(|group| shard.is_none_or(|shard| group.shard == shard))
        {
            for key in &group.deletes {
                if let Some(kept) = region.stored_runs(&key.workflow_key())?.remove(&key.run) {
                    dying.push((key.clone(), kept));
                }
            }
        }
        Ok(dying)
    }

    /// A group is durable: what it deleted might go, and what it stored was not deleted before (C6).
    pub(crate) fn bury(&mut self, site: usize, group: &Group, dying: Vec<(RunKey, Kept)>) {
        for key in &group.deletes {
            // No run is left there: its tombstone goes, at the end of its time or because the run comes back.
            if let Some(grave) = self.watch.graves.graves.get_mut(&(site, key.run)) {
                grave.stands = false;
            }
        }
        for (key, kept) in dying {
            let elsewhere = self.watch.graves.deleted_elsewhere(site, &key.run, &kept);
            let kept = match elsewhere.filter(|_| kept.run.state.close.is_none()) {
                // E2: a copy from before the others' deletion.
                Some(there) => there,
                None => {
                    self.check_deletion(site, &key, &kept);
                    Arc::new(kept)
                }
            };
            let workflow = key.workflow.to_string();
            let grave = Grave { workflow, kept, stands: true, undone: false };
            self.watch.graves.graves.insert((site, key.run), grave);
        }
        for row in group.runs.iter().filter(|row| antipode_history::shard::is_tombstone(row)) {
            // Told by another region of a run that never came: it is deleted here as it was there.
            self.watch.graves.told(site, &row.key);
        }
        for row in &group.batches {
            let run = row.batch.envelope.run.run;
            if self.watch.graves.graves.get(&(site, run)).is_some_and(|grave| grave.stands) {
                let text = format!(
                    "{} stored a batch of {}/{}, which retention had deleted there",
                    self.name(site),
                    row.batch.envelope.run.workflow,
                    short(&run)
                );
                self.find("C6", text);
            }
        }
    }

    /// Retention deletes a closed run when its time is over and every region of the namespace has all of it (C6).
    fn check_deletion(&mut self, site: usize, key: &RunKey, kept: &Kept) {
        let name = self.name(site).to_string();
        let what = format!("{name} deleted {}/{}", key.workflow, short(&key.run));
        let Some(close) = kept.run.state.close.as_ref().map(|close| close.clock) else {
            return self.find("C6", format!("{what}, which is open"));
        };
        let retention = Nanos::seconds(self.watch.graves.retention_min.unwrap_or_default());
        if close.plus(retention) > self.local(site) && !self.faults.contains_key("clock jump") {
            self.find("C6", format!("{what} before its retention was over"));
        }
        // Whoever joined later was not addressed.
        if self.seen.count(State::MembersChanged.name()) > 0 {
            return;
        }
        for other in (0..self.sites.len()).filter(|other| *other != site) {
            let there = self.name(other).to_string();
            if !self.sites[site].region.record.has_member(&there) || self.watch.graves.has(other, &key.run) {
                continue;
            }
            let past = self.watch.graves.past.get(&other);
            let had =
                |chain| self.watch.has_chain(other, chain) || past.is_some_and(|past| past.contains(chain));
            let lacks = kept.batches.iter().find(|batch| !had(&batch.chain));
            if let Some(batch) = lacks {
                let event = format!("{}@{}", batch.envelope.last_event, batch.envelope.version);
                self.find("C6", format!("{what}, and {there} never had its event {event}"));
            }
        }
    }
}
