//! Burial (C6, E2): a region that was restored to a time before a deletion has a copy of a run that all others deleted since. The
//! copy would stay for ever: nobody sends its end any more, and what it took would be given to a later start of the workflow
//! id. A peer whose log the region reads again tells its tombstones. The copy is judged as if the deletion had come first and
//! the copy's batches late: what goes on under a higher version stays and brings the run back at the peers; else an open copy
//! goes, what clients gave it that the tombstone does not know is filed (I03), and the tombstone stands here too. A closed copy has a
//! retention of its own.

use std::sync::Arc;

use antipode_conflict::explain::{Explanation, Reason};
use antipode_core::{
    batch::Batch,
    ids::{RunKey, RunOrder},
    run::Run,
};
use antipode_persistence::rows::CurrentRow;
use antipode_proto::core as wire;

use super::{
    Event, Output, Shard, Stop, Token,
    retention::{Tombstone, filed, of_batch, unclaimed},
};
use crate::api::{Applied, Refusal};

impl<T: Token> Shard<T> {
    /// A peer tells that it deleted this run, with the head of its tombstone.
    pub(super) fn told_deleted(
        &mut self,
        key: &RunKey,
        state: &wire::RunState,
        head: &wire::RunHead,
    ) -> Result<Applied, Stop> {
        if !self.need_run(key)? {
            self.tell(key, Explanation::of_state(state, None, "Duplicate", Reason::DeletedWith));
            return Ok(Applied::Duplicate);
        }
        self.need_owner(key)?;
        let cached = self.cached(key)?;
        let Some(mut tombstone) = Tombstone::told(head, cached.changed_at, self.now) else {
            return Ok(Applied::Poison("the tombstone does not say that the run was deleted".to_string()));
        };
        let (run, version) = (&cached.run, tombstone.version());
        let above = |batch: &Arc<Batch>| batch.envelope.version > version && !tombstone.knows(batch);
        let stays = match run.state.is_open() {
            true => run.batches.values().any(above).then_some(Reason::DeletedThereBefore),
            false => Some(Reason::DeletedThereFirst),
        };
        if let Some(reason) = stays {
            let told = Explanation::of_state(state, Some(run), "Duplicate", reason);
            self.tell(key, told);
            return Ok(Applied::Duplicate);
        }
        let told = Explanation::of_state(state, Some(run), "Bury", Reason::DeletedThere);
        let (known, new) = what_it_took(run, &tombstone);
        for record in known {
            tombstone.file(record);
        }
        let mut notes = Vec::new();
        for record in new {
            if tombstone.file(wire::Unclaimed { recorded_unix_nanos: self.now.0, ..record.clone() }) {
                notes.push(filed(&record));
            }
        }
        self.answer_waiters(key)?;
        if self.is_busy(key) {
            return Ok(Applied::Retry("a change of the run is not durable yet".to_string()));
        }
        for _ in &notes {
            self.outputs.push(Output::Count(Event::Unclaimed));
        }
        self.tell(key, Explanation { notes, ..told });
        self.bury(key, tombstone)?;
        Ok(Applied::Applied(self.sequence))
    }

    fn bury(&mut self, key: &RunKey, tombstone: Tombstone) -> Result<(), Refusal> {
        let first_run = self.cached(key)?.run.first_run.to_string();
        let order = tombstone.order();
        self.take_out(key);
        self.leave(key, tombstone);
        self.close_record(key, order, first_run)?;
        self.account(&key.workflow_key());
        self.outputs.push(Output::Count(Event::RunBuried));
        Ok(())
    }

    /// The record says what it said where the run was deleted: closed, and of this run if it was the greatest (B6).
    fn close_record(&mut self, key: &RunKey, order: RunOrder, first_run: String) -> Result<(), Refusal> {
        let workflow_key = key.workflow_key();
        let Some(workflow) = self.workflows.get_mut(&workflow_key) else { return Ok(()) };
        let (before, known) = (workflow.owner(), workflow.current_order());
        if workflow.current_run() != Some(key.run) && order <= known {
            return Ok(());
        }
        let order = order.max(known);
        let record = wire::CurrentRecord {
            run_id: key.run.to_string(),
            version: order.version.0,
            place: Some(wire::Place { epoch: order.place.epoch, sequence: order.place.sequence }),
            open: false,
            first_run_id: first_run,
            ..wire::CurrentRecord::default()
        };
        workflow.current = Some(record.clone());
        self.gather.forgets.remove(&workflow_key);
        self.gather.currents.insert(workflow_key.clone(), CurrentRow { key: workflow_key.clone(), record });
        let superseded =
            before.filter(|before| before.run != key.run).map(|before| workflow_key.run(before.run));
        if let Some(superseded) = superseded
            && self.cached(&superseded).is_ok()
        {
            self.derive(&superseded)?;
            self.judge_again(&workflow_key)?;
        }
        Ok(())
    }

    /// Nobody who waits for a change of this run will see one.
    fn answer_waiters(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let cached = self.cached_mut(key)?;
        let readers = std::mem::take(&mut cached.readers).into_iter().map(|(token, _)| token);
        let queries = std::mem::take(&mut cached.queries).into_iter().map(|(token, _)| token);
        let waiters: Vec<_> = readers.chain(queries).filter(|token| !token.is_abandoned()).collect();
        let after = self.changed(&key.workflow_key());
        for token in waiters {
            let words = format!("run {key} was deleted after its retention");
            self.hold(after, Output::Answer(token, Err(Refusal::NotFound(words))));
        }
        Ok(())
    }
}

/// What clients gave a copy: its own records, and what the tombstone does not know.
fn what_it_took(run: &Run, tombstone: &Tombstone) -> (Vec<wire::Unclaimed>, Vec<wire::Unclaimed>) {
    let unknown = run.batches.values().filter(|batch| !tombstone.knows(batch));
    let mut new: Vec<_> = unknown.flat_map(|batch| of_batch(batch)).collect();
    let waiting = run.pending.iter().filter(|(_, pending)| pending.anchor.is_none());
    new.extend(waiting.map(|(identity, pending)| unclaimed(&run.key, identity, 0, pending.accepted.0.0)));
    (run.head().unclaimed, new)
}
