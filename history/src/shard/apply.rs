//! Replicated entries: the verdict is the conflict code's, the host executes it and decides nothing (DESIGN section 4).
//! Arrival of a branch, loss of a branch and the lead of another run derive work in the active region (B1). What is told is the
//! verdict that holds in the end, once: work that must be loaded for first comes here again.

use std::{collections::BTreeSet, sync::Arc};

use antipode_conflict::{
    Judgement,
    ask::Ask,
    decide::{Decision, Verdict, decide},
    explain::{Explanation, Reason},
    rollback::LostValue,
};
use antipode_core::{
    batch::Batch,
    ids::{EventId, FailoverVersion, RunKey, Sequence},
    run::{Pushed, Run},
    version_history::{Item, VersionHistory},
};
use antipode_proto::core as wire;

use super::{Event, Load, Output, Shard, Stop, Token};
use crate::api::{Applied, Refusal, Replicated};

impl<T: Token> Shard<T> {
    /// Applies an entry, or says what must be read first. With the position that the answer waits for.
    pub(super) fn try_apply(&mut self, entry: &Replicated) -> Result<(Applied, Sequence), Load> {
        let applied = match entry {
            Replicated::Batch(batch) => self.apply_batch(batch, false),
            Replicated::Last(batch) => self.apply_batch(batch, true),
            Replicated::State(state) => self.apply_state(state),
        };
        let key = match entry {
            Replicated::Batch(batch) | Replicated::Last(batch) => Some(batch.envelope.run.workflow_key()),
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

    fn apply_batch(&mut self, batch: &Arc<Batch>, is_last: bool) -> Result<Applied, Stop> {
        let key = batch.envelope.run.clone();
        let stored = self.need_run(&key)?;
        self.need_owner(&key)?;
        if !stored && let Some(applied) = self.late_batch(batch) {
            return Ok(applied);
        }
        let tree = if stored { self.cached(&key)?.run.tree.as_ref() } else { None };
        let Decision { verdict, explanation } = decide(tree, &batch.envelope, batch.chain);
        // What does not decode no owner wrote: it broke where it was kept, and nobody is accused of two contents (G2).
        if explanation.fork()
            && let Err(malformed) = batch.decode_events()
        {
            return Ok(self.poisoned(&key, explanation, Reason::Undecodable, malformed.to_string()));
        }
        match verdict {
            Verdict::Duplicate => {
                self.tell(&key, explanation);
                Ok(Applied::Duplicate)
            }
            Verdict::NeedEvents { known } => {
                self.tell(&key, explanation);
                Ok(Applied::NeedEvents { key, known, until: Some(batch.envelope.previous) })
            }
            Verdict::Poison { why } => {
                self.tell(&key, explanation);
                Ok(Applied::Poison(why.to_string()))
            }
            Verdict::Create | Verdict::Append { .. } => {
                self.store_batch(&key, batch, (stored, false, is_last), explanation)
            }
            Verdict::Extend { .. } | Verdict::NewBranch { .. } => {
                self.store_batch(&key, batch, (stored, true, is_last), explanation)
            }
        }
    }

    /// The batch fits, on a branch `beside` the current one or on that. It may have to wait all the same, or turn out to be broken.
    /// `is_last`: nobody has the run that continues it.
    fn store_batch(
        &mut self,
        key: &RunKey,
        batch: &Arc<Batch>,
        (stored, beside, is_last): (bool, bool, bool),
        explanation: Explanation,
    ) -> Result<Applied, Stop> {
        // B8: a closing entry is not applied before its successor's first batch is stored.
        if let Some(successor) = batch.envelope.successor.filter(|_| !is_last) {
            let next = RunKey { run: successor, ..key.clone() };
            if !self.need_run(&next)? && self.grave(&next).is_none() {
                self.tell(key, explanation.waits_for(successor));
                return Ok(Applied::NeedEvents { key: next, known: VersionHistory::default(), until: None });
            }
        }
        // Bytes that do not decode poison this run only; nothing is changed yet.
        let events = match batch.decode_events() {
            Ok(events) => events,
            Err(malformed) => {
                return Ok(self.poisoned(key, explanation, Reason::Undecodable, malformed.to_string()));
            }
        };
        self.need_relatives(key, batch, &events)?;
        self.need_resting(batch, beside)?;
        if !stored {
            self.insert_run(Run::new(key.clone(), batch.envelope.first_run));
        }
        let pushed = match self.cached_mut(key)?.run.push_decoded(batch, &events) {
            Ok(pushed) => pushed,
            Err(error) => {
                // The run in memory is unusable now, the stored one is not: it is read again when it is asked for.
                self.drop_run(key);
                return Ok(self.poisoned(key, explanation, Reason::Unfoldable, error.to_string()));
            }
        };
        self.tell(key, explanation);
        match pushed {
            Pushed::Grew => {}
            Pushed::Switched => self.outputs.push(Output::Count(Event::BranchSwitched)),
            Pushed::Aside => self.outputs.push(Output::Count(Event::BranchLost)),
        }
        let at = self.sequence.next();
        self.gather_batch(batch, at);
        self.after_merge(key, at)?;
        Ok(Applied::Applied(at))
    }

    /// Tells a verdict; what one owner wrote twice is an alarm too.
    pub(super) fn tell(&mut self, key: &RunKey, explanation: Explanation) {
        if explanation.fork() {
            self.alarm(key, explanation.words());
        }
        self.judged(key, Judgement::Entry(explanation));
    }

    pub(super) fn judged(&mut self, key: &RunKey, judgement: Judgement) {
        self.outputs.push(Output::Judged(key.clone(), Box::new(judgement)));
    }

    fn poisoned(&mut self, key: &RunKey, fits: Explanation, reason: Reason, why: String) -> Applied {
        self.tell(key, fits.poisoned(reason, why.clone()));
        Applied::Poison(why)
    }

    /// What is stored of the run that an entry is for cannot be read.
    pub(super) fn tell_damaged(&mut self, entry: &Replicated, why: &str) {
        let (verdict, reason) = ("Poison", Reason::Damaged);
        let (key, explanation) = match entry {
            Replicated::Batch(batch) | Replicated::Last(batch) => {
                let explanation = Explanation::of_batch(&batch.envelope, batch.chain, verdict, reason);
                (Some(batch.envelope.run.clone()), explanation)
            }
            Replicated::State(state) => (run_key(state), Explanation::of_state(state, None, verdict, reason)),
        };
        // Without a run there is nothing to tell it of; the answer names what is wrong.
        if let Some(key) = key {
            self.tell(&key, explanation.poisoned(reason, why.to_string()));
        }
    }

    /// The run that owns the id must be at hand: this batch may take the id from it (R621).
    pub(super) fn need_owner(&mut self, key: &RunKey) -> Result<(), Stop> {
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
        if let Some(head) = &state.tombstone {
            return self.told_deleted(&key, state, head);
        }
        let until = antipode_core::chain::ChainValue::from_bytes(&state.tip_chain);
        if !self.need_run(&key)? {
            if let Some(applied) = self.late_state(&key, state) {
                return Ok(applied);
            }
            let explanation = Explanation::of_state(state, None, "NeedEvents", Reason::StateOfNoRun);
            self.tell(&key, explanation.asking(Ask::run(key.run, until)));
            return Ok(Applied::NeedEvents { key, known: VersionHistory::default(), until });
        }
        self.need_owner(&key)?;
        self.need_bases(&key, state)?;
        let run = &mut self.cached_mut(&key)?.run;
        if run.missing_anchor(state) || run.missing_basis(state) {
            let explanation = anchor_missing(state, run);
            self.tell(&key, explanation);
            // The branch that holds the anchor may have lost where the state comes from: the whole run is needed (A1, W13).
            return Ok(Applied::NeedEvents { key, known: VersionHistory::default(), until: None });
        }
        if run.lacks_branch(state) {
            let explanation = Explanation::of_state(state, Some(run), "NeedEvents", Reason::BranchMissing);
            self.tell(&key, explanation.asking(Ask::run(key.run, None)));
            return Ok(Applied::NeedEvents { key, known: VersionHistory::default(), until: None });
        }
        let lost = run.lost.clone();
        if !run.merge(state) {
            let explanation = Explanation::of_state(state, Some(run), "Duplicate", Reason::StateKnown);
            self.tell(&key, explanation);
            return Ok(Applied::Duplicate);
        }
        let explanation = Explanation::of_state(state, Some(run), "Merge", Reason::StateNew);
        let notes = self.tell_lost(&key, &lost)?;
        self.tell(&key, Explanation { notes, ..explanation });
        let at = self.sequence.next();
        self.after_merge(&key, at)?;
        Ok(Applied::Applied(at))
    }

    /// A6, G2: values that lost with this state are counted, and one owner's two values for one place raise the alarm. In words.
    fn tell_lost(&mut self, key: &RunKey, before: &[wire::LostValue]) -> Result<Vec<String>, Refusal> {
        let now = &self.cached(key)?.run.lost;
        let new: Vec<_> = now.iter().filter(|lost| !before.contains(lost)).cloned().collect();
        let mut notes = Vec::new();
        for lost in new {
            self.outputs.push(Output::Count(Event::ValueLost));
            let words = LostValue::of(&lost)
                .map_or_else(|| "a value that cannot be read".to_string(), |lost| lost.words());
            if lost.fork {
                self.alarm(key, words.clone());
            }
            notes.push(words);
        }
        Ok(notes)
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
        self.judge_again(&key.workflow_key())?;
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

/// W13: which events the registers of a state wait for, and that all of the run is asked for.
fn anchor_missing(state: &wire::RunState, run: &Run) -> Explanation {
    let anchor = |register: &wire::Register| {
        Item::new(EventId(register.anchor_event_id), FailoverVersion(register.anchor_version))
    };
    let missing = state.registers.iter().filter(|register| !run.holds_anchor(register));
    let anchors: BTreeSet<_> = missing.map(anchor).collect();
    let mut notes: Vec<_> =
        anchors.iter().map(|anchor| format!("no stored branch has event {anchor}")).collect();
    if run.missing_basis(state) {
        notes.push("no stored branch has the batch that a verdict rests on".to_string());
    }
    let explanation = Explanation::of_state(state, Some(run), "NeedEvents", Reason::AnchorMissing);
    Explanation { notes, ..explanation.asking(Ask::run(run.key.run, None)) }
}

fn run_key(state: &wire::RunState) -> Option<RunKey> {
    Some(RunKey {
        namespace: state.namespace_id.parse().ok()?,
        workflow: state.workflow_id.as_str().into(),
        run: state.run_id.parse().ok()?,
    })
}
