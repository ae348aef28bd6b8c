//! Verdicts that rest on other runs of the workflow id (B1): they are judged when a run is read, and again whenever a branch loses
//! or another chain takes the id. What falls is owed again. And what a run took from others is told to those before it is
//! deleted, so that nobody gives it to a later run (C6).

use std::collections::BTreeSet;

use antipode_core::{
    batch::Batch,
    identity::Identity,
    ids::{RunId, RunKey, RunOrder, WorkflowKey},
    verdict,
};
use antipode_persistence::rows::RunRow;
use antipode_proto::core as wire;
use prost::Message;

use super::{Event, Output, Shard, Stop, Token};
use crate::api::Refusal;

impl<T: Token> Shard<T> {
    /// Judges the verdicts of a run that is in memory; those that they rest on are read.
    pub(super) fn need_judged(&mut self, key: &RunKey) -> Result<(), Stop> {
        for run in self.cached(key)?.run.rests_on() {
            self.need_basis(&RunKey { run, ..key.clone() })?;
        }
        self.judge(key)?;
        Ok(())
    }

    /// A run that a verdict rests on, and the greatest of its chain that is stored: it may have gone on without it.
    fn need_basis(&mut self, key: &RunKey) -> Result<(), Stop> {
        let first = if self.need_alone(key)? {
            self.cached(key)?.run.first_run.to_string()
        } else {
            let Some(tombstone) = self.tombstone(key) else { return Ok(()) };
            tombstone.head().first_run_id.clone()
        };
        let rows = self.need_list(&key.workflow_key())?.iter().filter_map(super::owing::place);
        let heir = rows.filter(|(other, ..)| *other == first).max_by_key(|(_, order, _)| *order);
        if let Some((_, _, run)) = heir {
            self.need_alone(&RunKey { run, ..key.clone() })?;
        }
        Ok(())
    }

    /// Judges with what is in memory. True when a verdict fell, or stands again.
    fn judge(&mut self, key: &RunKey) -> Result<bool, Refusal> {
        let workflow = self.workflows.get(&key.workflow_key());
        let owner = workflow.and_then(|workflow| workflow.current.as_ref());
        let other = |run| Some(&workflow?.runs.get(&run)?.run);
        let went_on = |run, identity: &Identity| {
            let heir = workflow.and_then(|workflow| {
                let stored = workflow.runs.get(&run).map(|cached| (cached.run.first_run, cached.run.order()));
                let deleted = || verdict::place_of(workflow.deleted.get(&run)?.head());
                let (first, was) = stored.or_else(deleted)?;
                verdict::heir(first, was, workflow.runs.values().map(|cached| &cached.run))
            });
            heir.is_some_and(|heir| !heir.state.applied.contains(identity))
        };
        let fallen = self.cached(key)?.run.fallen(owner, other, went_on);
        let cached = self.cached_mut(key)?;
        cached.judged = true;
        Ok(cached.run.judge_verdicts(fallen))
    }

    /// The runs that a state's verdicts rest on are read, so that it can be judged when it is merged.
    pub(super) fn need_bases(&mut self, key: &RunKey, state: &wire::RunState) -> Result<(), Stop> {
        for run in verdict::others(key.run, &state.verdicts) {
            self.need_basis(&RunKey { run, ..key.clone() })?;
        }
        Ok(())
    }

    /// Before a batch that may make another branch current, or give the id to another chain: the runs with verdicts that rest on
    /// other runs are read, because what falls is to be written together with it.
    pub(super) fn need_resting(&mut self, batch: &Batch, beside: bool) -> Result<(), Stop> {
        let key = &batch.envelope.run;
        let workflow_key = key.workflow_key();
        if !beside && !self.takes_over(batch) {
            return Ok(());
        }
        let resting = |row: &RunRow| {
            let head = wire::RunHead::decode(&*row.head).ok().filter(|head| head.deleted.is_none())?;
            (!verdict::others(row.key.run, &head.unclaimed).is_empty()).then_some(row.key.run)
        };
        let runs: BTreeSet<RunId> = self.need_list(&workflow_key)?.iter().filter_map(resting).collect();
        for run in runs {
            self.need_run(&RunKey { run, ..key.clone() })?;
        }
        Ok(())
    }

    /// Whether an older chain takes the workflow id from another one with this batch (R634).
    fn takes_over(&self, batch: &Batch) -> bool {
        let envelope = &batch.envelope;
        let Some(workflow) = self.workflows.get(&envelope.run.workflow_key()) else { return false };
        let owner = workflow.current.as_ref().and_then(|record| record.first_run_id.parse().ok());
        let order = RunOrder { version: envelope.version, place: envelope.place };
        owner.is_some_and(|owner: RunId| owner != envelope.first_run) && order >= workflow.current_order()
    }

    /// Judges the runs of a workflow id that are in memory anew, after a branch lost or the id changed hands. What fell is owed
    /// again.
    pub(super) fn judge_again(&mut self, key: &WorkflowKey) -> Result<(), Refusal> {
        let Some(workflow) = self.workflows.get(key) else { return Ok(()) };
        // Those that were not judged yet are when they are asked for.
        let resting =
            workflow.runs.iter().filter(|(_, cached)| cached.judged && !cached.run.rests_on().is_empty());
        for run in resting.map(|(run, _)| key.run(*run)).collect::<Vec<_>>() {
            if self.judge(&run)? {
                self.cached_mut(&run)?.handed_over = false;
                self.derive(&run)?;
            }
        }
        Ok(())
    }

    /// Adds verdicts to a run that is in memory, with the present time.
    pub(super) fn record(&mut self, key: &RunKey, records: Vec<wire::Unclaimed>) -> Result<(), Refusal> {
        let now = self.now.0;
        let verdicts = &mut self.cached_mut(key)?.run.verdicts;
        for record in records {
            verdicts.add(&wire::Unclaimed { recorded_unix_nanos: now, ..record });
        }
        Ok(())
    }

    /// Other runs that hold what this one took from them, and do not know it, are told before it is deleted. It is a fact, whoever is
    /// active: each region tells it for its own copy.
    pub(super) fn tell_delivered(&mut self, key: &RunKey) -> Result<(), Stop> {
        self.need_descent(key)?;
        if self.is_lost(key) {
            return Ok(()); // What it took does not count, and was settled elsewhere.
        }
        let all = !self.cached(key)?.run.took_from_others().is_empty();
        let workflow_key = key.workflow_key();
        let may_hold = |row: &RunRow| {
            let head = wire::RunHead::decode(&*row.head).ok().filter(|head| head.deleted.is_none())?;
            let beside = head.open || head.branches.len() > 1 || !head.pending.is_empty();
            (all || beside).then_some(row.key.run)
        };
        let mut others: BTreeSet<RunId> =
            self.need_list(&workflow_key)?.iter().filter_map(may_hold).collect();
        // What is not durable yet is in memory.
        others
            .extend(self.workflows.get(&workflow_key).into_iter().flat_map(|workflow| workflow.runs.keys()));
        others.remove(&key.run);
        let mut untold = Vec::new();
        for run in others {
            let other = RunKey { run, ..key.clone() };
            if !self.need_run(&other)? {
                continue;
            }
            self.need_descent(&other)?;
            let lost = self.is_lost(&other);
            let records = self.cached(&other)?.run.delivered_to(&self.cached(key)?.run, lost);
            if !records.is_empty() {
                untold.push((other, records));
            }
        }
        for (other, records) in untold {
            self.record(&other, records)?;
            self.outputs.push(Output::Count(Event::Delivered));
            let at = self.sequence.next();
            self.changed_run(&other, at)?;
        }
        Ok(())
    }
}
