//! The runs around one in its chain, as far as they decide what counts of it (B1, B7): a branch that lost takes with it whatever it
//! continued into, however many runs later.

use std::collections::BTreeSet;

use antipode_core::{
    batch::Batch,
    ids::{RunId, RunKey},
    run::Run,
};
use antipode_proto::api::history::v1::{HistoryEvent, history_event::Attributes};

use super::{Shard, Stop, Token};
use crate::api::Refusal;

/// So many runs of a chain are followed, up and down. Of a branch that lost longer ago than this the end of the chain does not
/// know.
const HOPS: usize = 100;

impl<T: Token> Shard<T> {
    /// Those whose standing this batch may change, or that decide its run's: the run before it in the chain, and those that any
    /// of its branches continues into; all of the chain, when the batch is older than the run that owns the id.
    pub(super) fn need_relatives(
        &mut self,
        key: &RunKey,
        batch: &Batch,
        events: &[HistoryEvent],
    ) -> Result<(), Stop> {
        let (before, mut after) = match self.cached(key) {
            Ok(cached) => (cached.run.predecessor(), cached.run.successors()),
            Err(_) => (started_from(events), BTreeSet::new()),
        };
        after.extend(batch.envelope.successor);
        self.need_near(key, before, &after)?;
        let owner = self.workflows.get(&key.workflow_key()).and_then(super::cache::Workflow::current_run);
        let owner = owner.and_then(|run| self.cached(&RunKey { run, ..key.clone() }).ok());
        // What is written last is nobody's loss.
        if owner.is_some_and(|owner| owner.run.newest_version() > batch.envelope.version) {
            self.need_far(key, before, after)?;
        }
        Ok(())
    }

    /// The same for a run that is stored and does not own its workflow id.
    pub(super) fn need_descent(&mut self, key: &RunKey) -> Result<(), Stop> {
        let run = &self.cached(key)?.run;
        let (before, after) = (run.predecessor(), run.successors());
        self.need_near(key, before, &after)?;
        self.need_far(key, before, after)
    }

    fn need_near(
        &mut self,
        key: &RunKey,
        before: Option<RunId>,
        after: &BTreeSet<RunId>,
    ) -> Result<(), Stop> {
        for run in before.iter().chain(after) {
            self.need_with_successors(key, *run)?;
        }
        Ok(())
    }

    fn need_far(&mut self, key: &RunKey, before: Option<RunId>, after: BTreeSet<RunId>) -> Result<(), Stop> {
        let mut up = before;
        for _ in 0..HOPS {
            let Some(run) = up else { break };
            if !self.need_with_successors(key, run)? {
                break;
            }
            up = self.cached(&RunKey { run, ..key.clone() })?.run.predecessor();
        }
        let (mut down, mut seen) = (after, BTreeSet::new());
        while let Some(run) = down.pop_first() {
            if seen.len() < HOPS && seen.insert(run) && self.need_with_successors(key, run)? {
                let next = self.cached(&RunKey { run, ..key.clone() })?.run.successors();
                down.extend(next.into_iter().filter(|run| !seen.contains(run)));
            }
        }
        Ok(())
    }

    /// Whether that run is stored; those that it continues into are at hand as well.
    fn need_with_successors(&mut self, key: &RunKey, run: RunId) -> Result<bool, Stop> {
        let relative = RunKey { run, ..key.clone() };
        if !self.need_run(&relative)? {
            return Ok(false);
        }
        for run in self.cached(&relative)?.run.successors() {
            self.need_run(&RunKey { run, ..key.clone() })?;
        }
        Ok(true)
    }

    /// Whether a run's current branch is no part of what counts (B1): it goes back to a branch that lost, or another run that
    /// one before it or a losing branch of its own continued into outranks it.
    pub(super) fn is_lost(&self, key: &RunKey) -> bool {
        let other = |id| self.cached(&RunKey { run: id, ..key.clone() }).ok().map(|cached| &cached.run);
        let Some(run) = other(key.run) else { return false };
        let order = run.order();
        if run.successors().into_iter().filter_map(other).any(|next| run.overtaken_by(next)) {
            return true;
        }
        let mut at: &Run = run;
        for _ in 0..HOPS {
            let Some(id) = at.predecessor() else { return false };
            let Some(before) = other(id) else {
                // A successor outranks the run before it, also when that one is deleted; what does not comes from a branch that
                // lost, or was never known here.
                let deleted = self.tombstone(&RunKey { run: id, ..key.clone() });
                return deleted.is_some_and(|deleted| order < deleted.order());
            };
            let beside = before.successors().into_iter().filter(|id| *id != at.key.run).filter_map(other);
            if before.lost_with_branch(at, order) || beside.into_iter().any(|other| other.order() > order) {
                return true;
            }
            at = before;
        }
        false
    }

    /// A branch that lost, or won, decides about the runs around it in the chain.
    pub(super) fn judge_relatives(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let mut down = self.cached(key)?.run.successors();
        if let Some(run) = self.cached(key)?.run.predecessor() {
            down.insert(run);
            if let Ok(before) = self.cached(&RunKey { run, ..key.clone() }) {
                down.extend(before.run.successors());
            }
        }
        down.remove(&key.run);
        let mut seen = BTreeSet::from([key.run]);
        while let Some(run) = down.pop_first() {
            let next = RunKey { run, ..key.clone() };
            if seen.len() > HOPS || !seen.insert(run) {
                continue;
            }
            let lost = self.is_lost(&next);
            let Ok(cached) = self.cached_mut(&next) else { continue };
            if cached.lost != lost {
                cached.lost = lost;
                down.extend(cached.run.successors());
                let at = self.sequence.next();
                self.changed_run(&next, at)?;
            }
        }
        Ok(())
    }
}

/// The run that a first batch says it continues.
fn started_from(events: &[HistoryEvent]) -> Option<RunId> {
    match &events.first()?.attributes {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
            started.continued_execution_run_id.parse().ok()
        }
        _ => None,
    }
}
