//! Replicated entries: the verdict is the conflict code's, the host executes it and decides nothing (DESIGN section 4).
//! Arrival of a branch, loss of a branch and the lead of another run derive work in the active region (B1).

use std::sync::Arc;

use antipode_conflict::{
    decide::{Decision, Verdict, decide},
    rollback::LostValue,
};
use antipode_core::{
    batch::Batch,
    ids::{RunKey, Sequence},
    run::{Pushed, Run},
    version_history::VersionHistory,
};
use antipode_proto::core as wire;

use super::{Event, Load, Output, Shard, Stop, Token};
use crate::api::{Applied, Refusal, Replicated};

impl<T: Token> Shard<T> {
    /// Applies an entry, or says what must be read first. With the position that the answer waits for.
    pub(super) fn try_apply(&mut self, entry: &Replicated) -> Result<(Applied, Sequence), Load> {
        let applied = match entry {
            Replicated::Batch(batch) => self.apply_batch(batch),
            Replicated::State(state) => self.apply_state(state),
        };
        let key = match entry {
            Replicated::Batch(batch) => Some(batch.envelope.run.workflow_key()),
            Replicated::State(state) => run_key(state).map(|key| key.workflow_key()),
        };
        let after = key.map_or(Sequence(0), |key| self.changed(&key));
        match applied {
            Ok(applied) => Ok((applied, after)),
            Err(Stop::Load(load)) => Err(load),
            Err(Stop::Refused(Refusal::Internal(why))) => {
                self.break_down(why.clone());
                Ok((Applied::Retry(why), Sequence(0)))
            }
            Err(Stop::Refused(refusal)) => Ok((Applied::Retry(refusal.to_string()), after)),
        }
    }

    fn apply_batch(&mut self, batch: &Arc<Batch>) -> Result<Applied, Stop> {
        let key = batch.envelope.run.clone();
        let stored = self.need_run(&key)?;
        self.need_owner(&key)?;
        if !stored && let Some(applied) = self.late_batch(batch) {
            return Ok(applied);
        }
        let tree = if stored { self.cached(&key)?.run.tree.as_ref() } else { None };
        let Decision { verdict, explanation } = decide(tree, &batch.envelope, batch.chain);
        if explanation.fork() {
            // What does not decode no owner wrote: it broke where it was kept, and nobody is accused of two contents (G2).
            if let Err(malformed) = batch.decode_events() {
                return Ok(Applied::Poison(malformed.to_string()));
            }
            self.alarm(&key, explanation.words());
        }
        self.outputs.push(Output::Judged(key.clone(), Box::new(explanation)));
        match verdict {
            Verdict::Duplicate => return Ok(Applied::Duplicate),
            Verdict::NeedEvents { known } => {
                return Ok(Applied::NeedEvents { key, known, until: Some(batch.envelope.previous) });
            }
            Verdict::Poison { why } => return Ok(Applied::Poison(why.to_string())),
            Verdict::Create | Verdict::Append { .. } | Verdict::Extend { .. } | Verdict::NewBranch { .. } => {
            }
        }
        // B8: a closing entry is not applied before its successor's first batch is stored.
        if let Some(successor) = batch.envelope.successor {
            let next = RunKey { run: successor, ..key.clone() };
            if !self.need_run(&next)? && self.tombstone(&next).is_none() {
                return Ok(Applied::NeedEvents { key: next, known: VersionHistory::default(), until: None });
            }
        }
        // Bytes that do not decode poison this run only; nothing is changed yet.
        let events = match batch.decode_events() {
            Ok(events) => events,
            Err(malformed) => return Ok(Applied::Poison(malformed.to_string())),
        };
        self.need_relatives(&key, batch, &events)?;
        if !stored {
            self.insert_run(Run::new(key.clone(), batch.envelope.first_run));
        }
        let pushed = match self.cached_mut(&key)?.run.push_decoded(batch, &events) {
            Ok(pushed) => pushed,
            Err(error) => {
                // The run in memory is unusable now, the stored one is not: it is read again when it is asked for.
                self.drop_run(&key);
                return Ok(Applied::Poison(error.to_string()));
            }
        };
        match pushed {
            Pushed::Grew => {}
            Pushed::Switched => self.outputs.push(Output::Count(Event::BranchSwitched)),
            Pushed::Aside => self.outputs.push(Output::Count(Event::BranchLost)),
        }
        let at = self.sequence.next();
        self.gather_batch(batch, at);
        self.after_merge(&key, at)?;
        Ok(Applied::Applied(at))
    }

    /// The run that owns the id must be at hand: this batch may take the id from it (R621).
    fn need_owner(&mut self, key: &RunKey) -> Result<(), Stop> {
        let workflow = self.workflows.get(&key.workflow_key());
        let owner = workflow.and_then(super::cache::Workflow::current_run);
        match owner {
            Some(owner) if owner != key.run => {
                self.need_run(&RunKey { run: owner, ..key.clone() }).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn apply_state(&mut self, state: &wire::RunState) -> Result<Applied, Stop> {
        let Some(key) = run_key(state) else {
            return Ok(Applied::Poison("the run state names no run".to_string()));
        };
        let until = antipode_core::chain::ChainValue::from_bytes(&state.tip_chain);
        if !self.need_run(&key)? {
            if let Some(applied) = self.late_state(&key, state) {
                return Ok(applied);
            }
            return Ok(Applied::NeedEvents { key, known: VersionHistory::default(), until });
        }
        self.need_owner(&key)?;
        let run = &mut self.cached_mut(&key)?.run;
        if run.missing_anchor(state) {
            // The branch that holds the anchor may have lost where the state comes from: the whole run is needed (A1, W13).
            return Ok(Applied::NeedEvents { key, known: VersionHistory::default(), until: None });
        }
        let lost = run.lost.clone();
        if !run.merge(state) {
            return Ok(Applied::Duplicate);
        }
        self.tell_lost(&key, &lost)?;
        let at = self.sequence.next();
        self.after_merge(&key, at)?;
        Ok(Applied::Applied(at))
    }

    /// A6, G2: values that lost with this state are counted, and one owner's two values for one place raise the alarm.
    fn tell_lost(&mut self, key: &RunKey, before: &[wire::LostValue]) -> Result<(), Refusal> {
        let now = &self.cached(key)?.run.lost;
        let new: Vec<_> = now.iter().filter(|lost| !before.contains(lost)).cloned().collect();
        for lost in new {
            self.outputs.push(Output::Count(Event::ValueLost));
            if lost.fork {
                let words = LostValue::of(&lost)
                    .map_or_else(|| "a value that cannot be read".to_string(), |lost| lost.words());
                self.alarm(key, words);
            }
        }
        Ok(())
    }

    fn alarm(&mut self, key: &RunKey, words: String) {
        self.outputs.push(Output::Count(Event::Fork));
        self.outputs.push(Output::Alarm(key.clone(), words));
    }

    /// Derives what follows from a merge, and in the active region does at once what it owes.
    fn after_merge(&mut self, key: &RunKey, at: Sequence) -> Result<(), Refusal> {
        let writable = self.writable(key.namespace).ok();
        let lost = self.is_lost(key);
        self.cached_mut(key)?.lost = lost;
        self.changed_run(key, at)?;
        self.judge_relatives(key)?;
        match writable {
            Some(version) if self.is_current(key) => self.settle(key, version),
            _ => Ok(()),
        }
    }

    fn drop_run(&mut self, key: &RunKey) {
        if let Some(workflow) = self.workflows.get_mut(&key.workflow_key()) {
            workflow.runs.remove(&key.run);
        }
        // State that was computed on it and is not durable yet must not be lost silently.
        if self.changed(&key.workflow_key()) > self.durable {
            self.break_down(format!("run {key} became unusable while a write of it was in flight"));
        }
    }
}

fn run_key(state: &wire::RunState) -> Option<RunKey> {
    Some(RunKey {
        namespace: state.namespace_id.parse().ok()?,
        workflow: state.workflow_id.as_str().into(),
        run: state.run_id.parse().ok()?,
    })
}
