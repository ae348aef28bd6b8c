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
    ids::{RunKey, RunOrder, Sequence},
    run::{Pending, Run},
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
        let stored = self.need_run(key)?;
        self.need_owner(key)?;
        if !stored {
            return self.told_of_a_stranger(key, state, head);
        }
        let cached = self.cached(key)?;
        let Some(mut tombstone) = Tombstone::told(head, cached.changed_at, self.now) else {
            return Ok(Applied::Poison("the tombstone does not say that the run was deleted".to_string()));
        };
        let (run, version) = (&cached.run, tombstone.version());
        let above = |batch: &Arc<Batch>| batch.envelope.version > version && !tombstone.knows(batch);
        // What clients were told is saved may be no event yet.
        let waits = |pending: &Pending| pending.anchor.is_none() && pending.accepted.0 > version;
        let goes_on = run.batches.values().any(above) || run.pending.values().any(waits);
        let stays = match run.state.is_open() {
            true => goes_on.then_some(Reason::DeletedThereBefore),
            false => Some(Reason::DeletedThereFirst),
        };
        if let Some(reason) = stays {
            let told = Explanation::of_state(state, Some(run), "Duplicate", reason);
            let (first_run, order) = (run.first_run.to_string(), tombstone.order());
            let lower = reason == Reason::DeletedThereFirst && order > self.known_order(key);
            self.tell(key, told);
            if reason == Reason::DeletedThereBefore && !self.cached(key)?.run.came_back {
                // The sender will have it again, and branches that lost may be left in one region only.
                self.cached_mut(key)?.run.came_back = true;
                let at = self.sequence.next();
                self.changed_run(key, at)?;
                return Ok(Applied::Applied(at));
            }
            if !lower {
                return Ok(Applied::Duplicate);
            }
            // The copy is of an earlier time, and goes by its own; whose the id is does not wait for that (B6).
            self.take_position(key);
            self.close_record(key, order, first_run)?;
            return Ok(Applied::Applied(self.sequence));
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

    /// Of a run that is not stored here: it was deleted here too, or never came. Then its batches may come late, and whose the
    /// workflow id was is known from the tombstone only (B6).
    fn told_of_a_stranger(
        &mut self,
        key: &RunKey,
        state: &wire::RunState,
        head: &wire::RunHead,
    ) -> Result<Applied, Stop> {
        let Some(tombstone) = Tombstone::told(head, Sequence(0), self.now) else {
            return Ok(Applied::Poison("the tombstone does not say that the run was deleted".to_string()));
        };
        if self.tombstone(key).is_some() {
            self.tell(key, Explanation::of_state(state, None, "Duplicate", Reason::DeletedWith));
            return Ok(Applied::Duplicate);
        }
        self.tell(key, Explanation::of_state(state, None, "Bury", Reason::DeletedThere));
        self.take_position(key);
        let (order, first_run) = (tombstone.order(), tombstone.head().first_run_id.clone());
        if let Some(workflow) = self.workflows.get_mut(&key.workflow_key()) {
            workflow.absent.remove(&key.run);
        }
        self.leave(key, tombstone);
        self.close_record(key, order, first_run)?;
        self.account(&key.workflow_key());
        Ok(Applied::Applied(self.sequence))
    }

    /// The order of the greatest run of the workflow id, as the record has it.
    fn known_order(&self, key: &RunKey) -> RunOrder {
        let workflow = self.workflows.get(&key.workflow_key());
        workflow.map(super::cache::Workflow::current_order).unwrap_or_default()
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
