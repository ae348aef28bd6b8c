//! After every change of a run: the rows that follow from it. Nothing here is kept in step by hand: current record,
//! dispatch index, wake-up, visibility, offers and answers to those who wait are derived from the run as it is now (C1–C5).

use std::collections::BTreeSet;

use antipode_conflict::{
    Judgement, RunFacts,
    standing::{Change, Standing},
};
use antipode_core::{
    decide::{activity, due, workflow_task},
    ids::{RegionId, RunKey, RunOrder, Sequence, Timestamp},
    run::Run,
};
use antipode_persistence::rows::{CurrentRow, DispatchChange, DispatchRow, RunRow, TaskKind, VisibilityRow};
use antipode_proto::{api::enums::v1::WorkflowExecutionStatus as Status, core as wire};
use bytes::Bytes;
use prost::Message;

use super::{Event, Output, Shard, Token, cache::Shown};
use crate::api::{Offer, Refusal};

/// Rows of the dispatch index that a run implies: its pending workflow task, started or not (so that a new owner finds
/// it), and its activities that wait for a worker (C2).
pub(super) fn rows(run: &Run, current: bool) -> BTreeSet<(String, TaskKind)> {
    let mut rows = BTreeSet::new();
    if !current || !run.state.is_open() {
        return rows;
    }
    if let (Some(_), Some(start)) = (run.task(), &run.state.start) {
        rows.insert((start.queue().to_string(), TaskKind::Workflow));
    }
    for scheduled in run.state.activities.keys() {
        let Some(view) = run.activity(*scheduled) else { continue };
        if !view.attempt.started && !view.decided {
            rows.insert((view.activity.queue().to_string(), TaskKind::Activity));
        }
    }
    rows
}

/// What visibility shows of a run.
pub(super) fn shown(run: &Run, current: bool) -> Shown {
    let superseded = run.state.is_open() && !current;
    let status = if superseded { Status::Terminated } else { run.state.status };
    Shown {
        status: status as i32,
        superseded,
        memo: run.state.memo.clone(),
        search_attributes: run.state.search_attributes.clone(),
    }
}

impl<T: Token> Shard<T> {
    /// Makes the current record name the greatest run (B6, B7: never lowered). Gives the run that owned the id before, when
    /// it is another one.
    pub(super) fn arbitrate(&mut self, key: &RunKey) -> Result<Option<RunFacts>, Refusal> {
        let order = self.cached(key)?.run.order();
        let workflow_key = key.workflow_key();
        let Some(workflow) = self.workflows.get(&workflow_key) else { return Ok(None) };
        let before = workflow.owner();
        // Never lowered, also by a run that comes back event by event after it was deleted (B6).
        if order < workflow.current_order() {
            return Ok(None);
        }
        // Equal ones are of an owner that wrote twice (G2): the greater id everywhere, whichever came first.
        if order == workflow.current_order() && before.is_some_and(|before| before.run > key.run) {
            return Ok(None);
        }
        let record = current_record(&self.cached(key)?.run, order);
        let Some(workflow) = self.workflows.get_mut(&workflow_key) else { return Ok(None) };
        if workflow.current.as_ref() == Some(&record) {
            return Ok(None);
        }
        workflow.current = Some(record.clone());
        self.gather.forgets.remove(&workflow_key);
        self.gather.currents.insert(workflow_key.clone(), CurrentRow { key: workflow_key.clone(), record });
        Ok(before.filter(|before| before.run != key.run))
    }

    /// Writes what follows from a change of this run at this position.
    pub(super) fn changed_run(&mut self, key: &RunKey, at: Sequence) -> Result<(), Refusal> {
        self.sequence = self.sequence.max(at);
        let workflow_key = key.workflow_key();
        let before = self.arbitrate(key)?;
        {
            let cached = self.cached_mut(key)?;
            cached.changed_at = at;
            cached.handed_over = false;
            if let Some(workflow) = self.workflows.get_mut(&workflow_key) {
                workflow.changed = workflow.changed.max(at);
                workflow.listed = None;
            }
        }
        if let Some(before) = before {
            self.tell_revived(key, before);
        }
        self.derive(key)?;
        if let Some(suppressed) = before.map(|before| workflow_key.run(before.run))
            && self.cached(&suppressed).is_ok()
        {
            // R621: an open run that lost its id becomes a zombie: its work is taken off the indexes.
            if self.cached(&suppressed)?.run.state.is_open() {
                self.outputs.push(Output::Count(Event::Zombie));
            }
            self.derive(&suppressed)?;
        }
        self.account(&workflow_key);
        Ok(())
    }

    /// A run took the id from this one: when it was superseded before, it is told that it is revived (R634).
    fn tell_revived(&mut self, key: &RunKey, before: RunFacts) {
        let Ok(cached) = self.cached(key) else { return };
        if cached.run.state.is_open() && cached.shown.as_ref().is_some_and(|shown| shown.superseded) {
            let standing = Standing { change: Change::Revived, owner: facts(&cached.run), other: before };
            self.judged(key, Judgement::Standing(standing));
        }
    }

    /// An open run does not own its id from now on, or from its first batch on: it is told who does (R621, N5).
    fn tell_superseded(&mut self, key: &RunKey) {
        let owner = self.workflows.get(&key.workflow_key()).and_then(super::cache::Workflow::owner);
        let Some(owner) = owner.filter(|owner| owner.run != key.run) else { return };
        if let Ok(cached) = self.cached(key) {
            let standing = Standing { change: Change::Zombie, owner, other: facts(&cached.run) };
            self.judged(key, Judgement::Standing(standing));
        }
    }

    /// Recomputes the derived rows of a run and writes those that differ.
    pub(super) fn derive(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let current = self.is_current(key);
        let at = self.sequence;
        self.derive_dispatch(key, current, at)?;
        self.derive_wake(key, current)?;
        self.derive_visibility(key, current)?;
        self.derive_retention(key)?;
        let cached = self.cached(key)?;
        let row = RunRow {
            key: key.clone(),
            changed_at: cached.changed_at,
            wake_at: cached.stored_wake,
            head: Bytes::from(cached.run.head().encode_to_vec()),
        };
        self.gather.runs.insert(key.clone(), row);
        self.offer_work(key)?;
        self.wake_readers(key)
    }

    fn derive_dispatch(&mut self, key: &RunKey, current: bool, at: Sequence) -> Result<(), Refusal> {
        let cached = self.cached_mut(key)?;
        let wanted = rows(&cached.run, current);
        let stored = std::mem::replace(&mut cached.rows, wanted.clone());
        for (queue, kind) in wanted.difference(&stored) {
            let row = DispatchRow { key: key.clone(), queue: queue.clone(), kind: *kind, order: at };
            self.gather.dispatch.insert((key.clone(), queue.clone(), *kind), DispatchChange::Put(row));
        }
        for (queue, kind) in stored.difference(&wanted) {
            let change = DispatchChange::Remove { key: key.clone(), queue: queue.clone(), kind: *kind };
            self.gather.dispatch.insert((key.clone(), queue.clone(), *kind), change);
        }
        Ok(())
    }

    /// C5: the stored wake-up may be too early, never too late; it moves later only when it is rewritten anyway because it
    /// has passed. A started workflow task needs none: its dispatch row leads a new owner to it.
    fn derive_wake(&mut self, key: &RunKey, current: bool) -> Result<(), Refusal> {
        let (here, now) = (self.setting.region, self.now);
        let version = self.namespaces.get(&key.namespace).and_then(|view| view.writable);
        let cached = self.cached_mut(key)?;
        let wake = wanted_wake(cached, current, version, here, now);
        let durable = match wake {
            Some(_) if cached.run.in_flight() && wake != Some(Timestamp(0)) => {
                cached.run.state.start.as_ref().and_then(antipode_core::state::Start::expires_at)
            }
            wake => wake,
        };
        let keep = cached.stored_wake.filter(|stored| {
            current
                && cached.run.state.is_open()
                && *stored > now
                && durable.is_none_or(|durable| durable >= *stored)
        });
        cached.stored_wake = keep.or(durable);
        self.rearm_at(key, wake);
        Ok(())
    }

    /// Arms the wake-up in memory for a run that was loaded.
    pub(super) fn rearm(
        &mut self,
        workflow: &antipode_core::ids::WorkflowKey,
        run: antipode_core::ids::RunId,
    ) {
        let key = workflow.run(run);
        let version = self.namespaces.get(&key.namespace).and_then(|view| view.writable);
        let (current, now) = (self.is_current(&key), self.now);
        let Ok(cached) = self.cached(&key) else { return };
        let wake = wanted_wake(cached, current, version, self.setting.region, now);
        self.rearm_at(&key, wake);
    }

    fn rearm_at(&mut self, key: &RunKey, wake: Option<Timestamp>) {
        let Ok(cached) = self.cached_mut(key) else { return };
        let before = std::mem::replace(&mut cached.wake, wake);
        if let Some(before) = before.filter(|before| Some(*before) != wake) {
            self.wakes.remove(&(before, key.clone()));
        }
        // What no stored wake-up leads to is kept in memory however far ahead it is (C5).
        let unstored = self.cached(key).is_ok_and(|cached| {
            cached.stored_wake.is_none_or(|stored| wake.is_some_and(|wake| wake < stored))
        });
        let active = self.namespaces.get(&key.namespace).is_some_and(|view| view.writable.is_some());
        if let Some(at) = wake
            && active
            && (unstored || at <= self.now.plus(super::HORIZON))
        {
            self.wakes.insert((at, key.clone()));
        }
    }

    fn derive_visibility(&mut self, key: &RunKey, current: bool) -> Result<(), Refusal> {
        let cached = self.cached_mut(key)?;
        let now_shown = shown(&cached.run, current);
        if cached.shown.as_ref() == Some(&now_shown) {
            return Ok(());
        }
        let row = visibility_row(&cached.run, &now_shown);
        let superseded = now_shown.superseded && cached.shown.as_ref().is_none_or(|shown| !shown.superseded);
        cached.shown = Some(now_shown);
        if let Some(row) = row {
            self.gather.visibility.insert(key.clone(), row);
        }
        if superseded {
            self.tell_superseded(key);
        }
        Ok(())
    }

    /// Offers what waits for a worker, once the state is durable: only where the namespace is active (V17).
    pub(super) fn offer_work(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let Some(version) = self.namespaces.get(&key.namespace).and_then(|view| view.writable) else {
            return Ok(());
        };
        let current = self.is_current(key);
        let now = self.now;
        let cached = self.cached_mut(key)?;
        let due = if current && cached.run.state.is_open() {
            offers(&cached.run, version, now)
        } else {
            Vec::new()
        };
        let wanted: BTreeSet<_> = due.iter().map(|offer| (offer.kind, offer.task.clone())).collect();
        cached.offers.retain(|offer| wanted.contains(offer));
        let fresh: Vec<_> =
            due.into_iter().filter(|offer| cached.offers.insert((offer.kind, offer.task.clone()))).collect();
        let after = self.changed(&key.workflow_key());
        for offer in fresh {
            self.hold(after, Output::Offer(offer));
        }
        Ok(())
    }
}

/// A run as it is compared with others of its workflow id.
fn facts(run: &Run) -> RunFacts {
    RunFacts { run: run.key.run, order: run.order(), open: run.state.is_open() }
}

/// When the run has something to do: by time, or at once when it is closed or superseded and holds clients' events (B1).
fn wanted_wake<T>(
    cached: &super::cache::Cached<T>,
    current: bool,
    version: Option<antipode_core::ids::FailoverVersion>,
    here: RegionId,
    now: Timestamp,
) -> Option<Timestamp> {
    if current && cached.run.state.is_open() {
        return due::wake_at(&cached.run, version, here, now);
    }
    let owes = !cached.handed_over && (cached.lost || cached.run.may_owe());
    owes.then_some(Timestamp(0))
}

/// Tasks of a run that wait for a worker now.
fn offers(run: &Run, version: antipode_core::ids::FailoverVersion, now: Timestamp) -> Vec<Offer> {
    let mut offers = Vec::new();
    let Some(start) = &run.state.start else { return offers };
    // Only a retry waits for its moment: an event's time may be ahead of this clock (H2).
    let ready = |task: &antipode_core::view::TaskView| {
        task.started.is_none() && (!task.transient || task.scheduled_at <= now)
    };
    if let Some(task) = run.task().filter(ready) {
        let sticky = if task.sticky { run.sticky(version) } else { None };
        offers.push(Offer {
            key: run.key.clone(),
            queue: sticky.map_or_else(|| start.queue().to_string(), |sticky| sticky.queue.clone()),
            kind: TaskKind::Workflow,
            task: workflow_task::task_ref(&task),
            sticky: sticky.is_some(),
            scheduled_at: task.scheduled_at,
        });
    }
    for scheduled in run.state.activities.keys() {
        let Some(view) = run.activity(*scheduled) else { continue };
        let at = Timestamp(view.attempt.scheduled_unix_nanos);
        if view.attempt.started || view.decided || (view.attempt.attempt > 1 && at > now) {
            continue;
        }
        offers.push(Offer {
            key: run.key.clone(),
            queue: view.activity.queue().to_string(),
            kind: TaskKind::Activity,
            task: activity::task_ref(&view),
            sticky: false,
            scheduled_at: at,
        });
    }
    offers
}

fn current_record(run: &Run, order: RunOrder) -> wire::CurrentRecord {
    wire::CurrentRecord {
        run_id: run.key.run.to_string(),
        version: order.version.0,
        place: Some(wire::Place { epoch: order.place.epoch, sequence: order.place.sequence }),
        open: run.state.is_open(),
        first_run_id: run.first_run.to_string(),
        start_request_id: String::new(),
        status: u32::try_from(run.state.status as i32).unwrap_or(0),
    }
}

fn visibility_row(run: &Run, shown: &Shown) -> Option<VisibilityRow> {
    let start = run.state.start.as_ref()?;
    let closed = run.state.close.as_ref();
    Some(VisibilityRow {
        key: run.key.clone(),
        workflow_type: start.workflow_type().to_string(),
        task_queue: start.queue().to_string(),
        status: shown.status,
        start: start.at,
        execution: start.first_task_at(),
        close: closed.map(|close| close.at),
        history_length: closed.map_or(0, |close| close.event.0),
        history_size: if closed.is_some() { run.state.history_bytes } else { 0 },
        transitions: if closed.is_some() { run.state.transitions } else { 0 },
        memo: shown.memo.as_ref().map(|memo| Bytes::from(memo.encode_to_vec())).unwrap_or_default(),
        search_attributes: shown
            .search_attributes
            .as_ref()
            .map(|attributes| Bytes::from(attributes.encode_to_vec()))
            .unwrap_or_default(),
        first_run: run.first_run.to_string(),
        superseded: shown.superseded,
    })
}
