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

/// The runs of a chain, as far as they are in memory.
#[derive(Default)]
struct Chain {
    members: BTreeSet<RunId>,
    /// The way back from the greatest, and of it the runs whose current branch leads on: what is beside the way is lost with the
    /// branch that it followed, however late that one lost (B1, B7). What stands before a run that is deleted, or too far back, is
    /// not known to be on the way and counts as beside it: the greatest knows what was taken on its way (B2), and is not given it
    /// twice.
    counted: BTreeSet<RunId>,
}

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
        let owned = owner.and_then(|run| self.cached(&RunKey { run, ..key.clone() }).ok());
        let older = owned.is_some_and(|owned| owned.run.newest_version() > batch.envelope.version);
        // What is written last is nobody's loss, but all that stood beside it may be its.
        let goes_on = owner.is_none_or(|owner| owner == key.run || before == Some(owner));
        if older || !goes_on {
            self.need_far(key, before, after)?;
            self.need_way(key, batch.envelope.first_run)?;
        }
        Ok(())
    }

    /// The same for a run that is stored and does not own its workflow id.
    pub(super) fn need_descent(&mut self, key: &RunKey) -> Result<(), Stop> {
        let run = &self.cached(key)?.run;
        let (before, after, first) = (run.predecessor(), run.successors(), run.first_run);
        self.need_near(key, before, &after)?;
        self.need_far(key, before, after)?;
        self.need_way(key, first)
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

    /// All of the chain: what stands beside the run hangs on one before it, and what outranks it may be any that descends from there.
    fn need_far(&mut self, key: &RunKey, before: Option<RunId>, after: BTreeSet<RunId>) -> Result<(), Stop> {
        let (mut up, mut down) = (before, after);
        let mut seen = BTreeSet::from([key.run]);
        for _ in 0..HOPS {
            let Some(run) = up.filter(|run| seen.insert(*run)) else { break };
            if !self.need_with_successors(key, run)? {
                break;
            }
            let before = &self.cached(&RunKey { run, ..key.clone() })?.run;
            up = before.predecessor();
            down.extend(before.successors());
        }
        let most = seen.len() + HOPS;
        while let Some(run) = down.pop_first() {
            if seen.len() < most && seen.insert(run) && self.need_with_successors(key, run)? {
                down.extend(self.cached(&RunKey { run, ..key.clone() })?.run.successors());
            }
        }
        Ok(())
    }

    /// The greatest run of the chain and those before it: what lies between may be deleted, so that no way leads there from this one.
    fn need_way(&mut self, key: &RunKey, first: RunId) -> Result<(), Stop> {
        let first = first.to_string();
        let rows = self.need_list(&key.workflow_key())?.iter().filter_map(super::owing::place);
        let mut up =
            rows.filter(|(other, ..)| *other == first).max_by_key(|(_, order, _)| *order).map(|at| at.2);
        for _ in 0..HOPS {
            let Some(run) = up.map(|run| RunKey { run, ..key.clone() }) else { break };
            if !self.need_run(&run)? {
                break;
            }
            up = self.cached(&run)?.run.predecessor();
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

    /// Whether a run's current branch is no part of what counts (B1): the greatest run of its chain goes back to another one, or to
    /// a branch of this one that lost.
    pub(super) fn is_lost(&self, key: &RunKey) -> bool {
        let chain = self.chain(key);
        chain.members.contains(&key.run) && !chain.counted.contains(&key.run)
    }

    fn chain(&self, key: &RunKey) -> Chain {
        let Some(workflow) = self.workflows.get(&key.workflow_key()) else { return Chain::default() };
        let other = |id: RunId| workflow.runs.get(&id).map(|cached| &cached.run);
        let Some(first) = other(key.run).map(|run| run.first_run) else { return Chain::default() };
        let members: Vec<&Run> = workflow.runs.values().map(|cached| &cached.run).collect();
        let members = members.into_iter().filter(|run| run.first_run == first);
        let mut chain =
            Chain { members: members.clone().map(|run| run.key.run).collect(), ..Chain::default() };
        let (mut at, mut next) = (members.max_by_key(|run| run.order()), None);
        let greatest = at.map(Run::order);
        // The first batch of a run comes before the one that closes the run before it (B8): until then that one counts.
        for _ in 0..chain.members.len() {
            let Some(run) = at else { break };
            if next.is_none_or(|next| leads_to(run) == Some(next) || !run.successors().contains(&next)) {
                chain.counted.insert(run.key.run);
            }
            next = Some(run.key.run);
            let Some(before) = run.predecessor() else { break };
            at = other(before);
            // A successor outranks the run before it, also when that one is deleted; what does not comes from a branch that lost.
            let deleted =
                self.tombstone(&RunKey { run: before, ..key.clone() }).map(|deleted| deleted.order());
            if at.is_none() && deleted > greatest {
                chain.counted.clear();
            }
        }
        chain
    }

    /// A branch that lost, or won, decides about the runs around it in the chain.
    pub(super) fn judge_relatives(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let chain = self.chain(key);
        for run in chain.members.iter().filter(|run| **run != key.run) {
            let next = RunKey { run: *run, ..key.clone() };
            let lost = !chain.counted.contains(run);
            if self.cached(&next)?.lost != lost {
                self.cached_mut(&next)?.lost = lost;
                let at = self.sequence.next();
                self.changed_run(&next, at)?;
            }
        }
        Ok(())
    }
}

/// The run that the current branch of this one continues into; a branch that lost may continue into another.
fn leads_to(run: &Run) -> Option<RunId> {
    run.batches.get(&run.tip()).and_then(|batch| batch.envelope.successor)
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
