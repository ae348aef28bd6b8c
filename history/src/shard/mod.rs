//! The shard machine: `input -> outputs`, no I/O (DESIGN section 1.4). It computes on state that is not yet durable, and
//! holds every output, also errors, duplicates and reads, until the state that it read is (D1). Commits go out in groups:
//! one in flight, the next gathers (section 5). What it lacks it asks for with [`Output::Load`]; work for that workflow id
//! waits in order meanwhile.
//!
//! Driver contract: after each input call, drain [`Shard::take_outputs`]; call [`Shard::flush`] when there is no more input.

mod apply;
mod burial;
mod cache;
mod derive;
mod descent;
mod inspect;
mod io;
mod owing;
mod proof;
mod reads;
mod requests;
mod retention;
mod starts;
mod tasks;
mod verdicts;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_core::{
    clocks::Clocks,
    decide::{Context, Seat},
    ids::{FailoverVersion, NamespaceId, Place, RangeId, RunId, RunKey, Sequence, Timestamp, WorkflowKey},
};
use antipode_persistence::rows::{
    Acquired, BatchRow, CurrentRow, DispatchChange, DispatchRow, Group, ObligationChange, RunRow, TaskKind,
    VisibilityRow,
};

use crate::api::{Applied, Offer, Refusal, Replicated, Request, Taken};
use cache::Workflow;
pub use io::{Event, Load, Loaded, NamespaceView, Output, Setting, Token};
pub use proof::{Down, Proof, Reach};
pub use retention::{OBLIGATION_PAGE, is_tombstone};

/// Work on one workflow id, in order.
#[derive(Clone)]
enum Work<T> {
    Request(T, Request),
    Apply { call: u64, index: usize, entry: Replicated },
    Wake(RunKey),
    Retire(RunKey),
}

impl<T> Work<T> {
    fn key(&self) -> Option<WorkflowKey> {
        match self {
            Self::Request(_, request) => Some(request.workflow.clone()),
            Self::Apply { entry, .. } => match entry {
                Replicated::Batch(batch) | Replicated::Last(batch) => Some(batch.envelope.run.workflow_key()),
                Replicated::State(state) => Some(WorkflowKey {
                    namespace: state.namespace_id.parse().ok()?,
                    workflow: state.workflow_id.as_str().into(),
                }),
            },
            Self::Wake(key) | Self::Retire(key) => Some(key.workflow_key()),
        }
    }
}

/// An apply call whose entries are being worked on.
#[derive(Clone)]
struct Call<T> {
    token: T,
    results: Vec<Option<Applied>>,
    missing: usize,
    after: Sequence,
}

/// One final value a row of the group that gathers (D3).
#[derive(Clone, Default)]
struct Gather {
    batches: Vec<BatchRow>,
    runs: BTreeMap<RunKey, RunRow>,
    currents: BTreeMap<WorkflowKey, CurrentRow>,
    dispatch: BTreeMap<(RunKey, String, TaskKind), DispatchChange>,
    visibility: BTreeMap<RunKey, VisibilityRow>,
    obligations: BTreeMap<RunKey, ObligationChange>,
    deletes: BTreeSet<RunKey>,
    forgets: BTreeSet<WorkflowKey>,
    barrier: bool,
}

impl Gather {
    fn is_empty(&self) -> bool {
        !self.barrier
            && self.runs.is_empty()
            && self.batches.is_empty()
            && self.currents.is_empty()
            && self.dispatch.is_empty()
            && self.visibility.is_empty()
            && self.obligations.is_empty()
            && self.deletes.is_empty()
            && self.forgets.is_empty()
    }
}

/// Why work cannot go on now.
enum Stop {
    /// This must be read first.
    Load(Load),
    /// Refused.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A shard under one ownership. Cloned only to explore what else could have happened.
#[derive(Clone)]
pub struct Shard<T> {
    setting: Setting,
    range: RangeId,
    /// Last position given out.
    sequence: Sequence,
    /// Last durable position.
    durable: Sequence,
    flying: Option<Sequence>,
    gather: Gather,
    workflows: BTreeMap<WorkflowKey, Workflow<T>>,
    used: BTreeMap<u64, WorkflowKey>,
    clock: u64,
    cached_bytes: usize,
    parked: BTreeMap<WorkflowKey, VecDeque<Work<T>>>,
    calls: BTreeMap<u64, Call<T>>,
    next_call: u64,
    wakes: BTreeSet<(Timestamp, RunKey)>,
    next_scan: Timestamp,
    next_closed: Timestamp,
    proofs: BTreeMap<String, Proof>,
    clocks: Arc<Clocks>,
    namespaces: BTreeMap<NamespaceId, NamespaceView>,
    backlogged: BTreeSet<(NamespaceId, String, TaskKind)>,
    ids_made: u64,
    held: BTreeMap<Sequence, Vec<Output<T>>>,
    outputs: Vec<Output<T>>,
    broken: bool,
    now: Timestamp,
}

/// How far ahead wake-ups are kept in memory.
const HORIZON: antipode_core::ids::Nanos = antipode_core::ids::Nanos::seconds(120);
/// How often the index is read again.
const SCAN_EVERY: antipode_core::ids::Nanos = antipode_core::ids::Nanos::seconds(60);

impl<T: Token> Shard<T> {
    /// A shard that was just acquired.
    #[must_use]
    pub fn new(setting: Setting, acquired: Acquired, namespaces: Vec<NamespaceView>, now: Timestamp) -> Self {
        let mut shard = Self {
            setting,
            range: acquired.range,
            sequence: acquired.sequence,
            durable: acquired.sequence,
            flying: None,
            gather: Gather::default(),
            workflows: BTreeMap::new(),
            used: BTreeMap::new(),
            clock: 0,
            cached_bytes: 0,
            parked: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            wakes: BTreeSet::new(),
            next_scan: now.plus(SCAN_EVERY),
            next_closed: now.plus(SCAN_EVERY),
            proofs: BTreeMap::new(),
            clocks: Arc::default(),
            namespaces: BTreeMap::new(),
            backlogged: BTreeSet::new(),
            ids_made: 0,
            held: BTreeMap::new(),
            outputs: Vec::new(),
            broken: false,
            now,
        };
        for view in namespaces {
            shard.namespace(view, now);
        }
        shard
    }

    /// Last durable position.
    #[must_use]
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// Takes a request.
    pub fn request(&mut self, now: Timestamp, token: T, request: Request) {
        self.now = now;
        self.work(Work::Request(token, request));
    }

    /// Takes replicated entries; answered together, once all are durable.
    pub fn apply(&mut self, now: Timestamp, token: T, entries: Vec<Replicated>) {
        self.now = now;
        if entries.is_empty() {
            self.outputs.push(Output::Applied(token, Vec::new()));
            return;
        }
        let call = self.next_call;
        self.next_call += 1;
        let results = vec![None; entries.len()];
        let missing = entries.len();
        self.calls.insert(call, Call { token, results, missing, after: self.durable });
        for (index, entry) in entries.into_iter().enumerate() {
            self.work(Work::Apply { call, index, entry });
        }
    }

    /// Takes a namespace record's change (D6).
    pub fn namespace(&mut self, view: NamespaceView, now: Timestamp) {
        self.now = now;
        let id = view.id;
        let before = self.namespaces.insert(id, view.clone());
        let was = before.and_then(|view| view.writable);
        if view.writable == was {
            return;
        }
        for (key, workflow) in &mut self.workflows {
            if key.namespace == id {
                workflow.forget_offers();
            }
        }
        if view.writable.is_some() {
            // Active here from now on: what is due and what waits is derived again (C5, V16). The index does not know yet what is
            // being written, memory does.
            let cached: Vec<_> = self
                .workflows
                .iter()
                .filter(|(key, _)| key.namespace == id)
                .flat_map(|(key, workflow)| workflow.runs.keys().map(|run| (key.clone(), *run)))
                .collect();
            for (workflow, run) in cached {
                self.rearm(&workflow, run);
                // A task has no time at which it wakes.
                let key = workflow.run(run);
                if self.cached(&key).is_ok_and(|cached| cached.changed_at > self.durable) {
                    self.wakes.insert((self.now, key));
                }
            }
            self.scan(vec![id]);
        }
    }

    fn scan(&mut self, namespaces: Vec<NamespaceId>) {
        let until = self.now.plus(HORIZON);
        self.outputs.push(Output::Load(Load::Due { namespaces: namespaces.clone(), until }));
        self.outputs.push(Output::Load(Load::Backlog { namespaces, queue: None, after: Sequence(0) }));
    }

    /// Matching has credit for this queue.
    pub fn refill(&mut self, now: Timestamp, namespace: NamespaceId, queue: String, kind: TaskKind) {
        self.now = now;
        let active = self.namespaces.get(&namespace).is_some_and(|view| view.writable.is_some());
        if active {
            self.backlogged.remove(&(namespace, queue.clone(), kind));
            // Matching may have forgotten what it took (it can die at any time): it is offered again, and told apart there.
            for (key, workflow) in &mut self.workflows {
                if key.namespace == namespace {
                    workflow.forget_offers();
                }
            }
            self.outputs.push(Output::Load(Load::Backlog {
                namespaces: vec![namespace],
                queue: Some((queue, kind)),
                after: Sequence(0),
            }));
        }
    }

    /// Takes how far the clocks of other regions may be behind this one (H2). An ordered input; it wakes nothing: what it gives longer
    /// is looked at when it is due.
    pub fn clocks(&mut self, now: Timestamp, clocks: Arc<Clocks>) {
        self.now = now;
        self.clocks = clocks;
    }

    /// Commits a barrier for a draining namespace (F2): the answer comes when every earlier position is durable.
    pub fn barrier(&mut self, now: Timestamp, token: T, namespace: NamespaceId) {
        self.now = now;
        let frozen =
            self.namespaces.get(&namespace).is_some_and(|view| view.draining && view.writable.is_none());
        if !frozen {
            let refusal =
                Refusal::Unavailable("the namespace is not draining in this shard's view".to_string());
            self.outputs.push(Output::Barrier(token, Err(refusal)));
            return;
        }
        self.sequence = self.sequence.next();
        self.gather.barrier = true;
        let at = self.sequence;
        self.hold(at, Output::Barrier(token, Ok(at)));
    }

    /// Time has passed: wakes what is due.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = now;
        while let Some((at, _)) = self.wakes.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.wakes.pop_first() {
                self.work(Work::Wake(key));
            }
        }
        if now >= self.next_scan {
            self.next_scan = now.plus(SCAN_EVERY);
            let active: Vec<_> =
                self.namespaces.values().filter(|view| view.writable.is_some()).map(|view| view.id).collect();
            if !active.is_empty() {
                let until = now.plus(HORIZON);
                self.outputs.push(Output::Load(Load::Due { namespaces: active, until }));
            }
            self.drop_abandoned();
        }
        self.scan_closed();
    }

    /// When to call [`Shard::tick`] next.
    #[must_use]
    pub fn wake_at(&self) -> Timestamp {
        let scan = self.next_scan.min(self.next_closed);
        self.wakes.first().map_or(scan, |(at, _)| (*at).min(scan))
    }

    /// Matching's word on an offer.
    pub fn offered(&mut self, now: Timestamp, offer: &Offer, taken: Taken) {
        self.now = now;
        match taken {
            Taken::Yes => {}
            Taken::NoCredit => {
                let Some(workflow) = self.workflows.get_mut(&offer.key.workflow_key()) else { return };
                workflow.forget_offer(offer);
                self.backlogged.insert((offer.key.namespace, offer.queue.clone(), offer.kind));
            }
            // The same task goes to the normal queue, with full history.
            Taken::StickyUnavailable => self.offer_normal(offer),
        }
    }

    /// A read came back.
    pub fn loaded(&mut self, now: Timestamp, load: &Load, loaded: Loaded) {
        self.now = now;
        match (load, loaded) {
            (Load::Due { .. }, Loaded::Due(due)) => self.wakes.extend(due),
            (Load::Backlog { namespaces, queue, .. }, Loaded::Backlog(rows)) => {
                self.backlog(namespaces.clone(), queue.clone(), rows);
            }
            (Load::Obligations { .. }, Loaded::Obligations(due)) => self.closed_due(due),
            (Load::Due { .. } | Load::Backlog { .. }, _) => self.next_scan = now,
            // Read again at the next scan: nothing of it is urgent.
            (Load::Obligations { .. }, _) => {}
            (Load::Workflow(key) | Load::Runs(key), loaded) => self.loaded_for(&key.clone(), load, loaded),
            (Load::Run(run), loaded) => self.loaded_for(&run.workflow_key(), load, loaded),
        }
    }

    fn backlog(
        &mut self,
        namespaces: Vec<NamespaceId>,
        queue: Option<(String, TaskKind)>,
        rows: Vec<DispatchRow>,
    ) {
        let full = rows.len() >= BACKLOG_PAGE;
        let last = rows.last().map(|row| row.order);
        for row in rows {
            let stuck = self.backlogged.contains(&(row.key.namespace, row.queue.clone(), row.kind));
            if !stuck {
                self.work(Work::Wake(row.key));
            }
        }
        if let (true, Some(after)) = (full, last) {
            self.outputs.push(Output::Load(Load::Backlog { namespaces, queue, after }));
        }
    }

    fn loaded_for(&mut self, key: &WorkflowKey, load: &Load, loaded: Loaded) {
        let mut waiting = self.parked.remove(key).unwrap_or_default();
        if let Loaded::Failed(why) = loaded {
            for work in waiting {
                self.give_up(work, &why);
            }
            return;
        }
        if let Err(why) = self.take_loaded(key, load, loaded) {
            self.quarantine(key, &why);
            for work in waiting {
                self.give_up_damaged(work, &why);
            }
            return;
        }
        while let Some(work) = waiting.pop_front() {
            if let Some(work) = self.attempt(work) {
                // It needs something else: everything behind it goes on waiting, in order.
                waiting.push_front(work);
                self.parked.insert(key.clone(), waiting);
                return;
            }
        }
    }

    fn work(&mut self, work: Work<T>) {
        if self.broken {
            self.give_up(work, "the shard is being acquired anew");
            return;
        }
        let Some(key) = work.key() else {
            self.give_up_damaged(work, "the entry names no run");
            return;
        };
        if let Some(waiting) = self.parked.get_mut(&key) {
            waiting.push_back(work);
            return;
        }
        if let Some(work) = self.attempt(work) {
            self.parked.insert(key, VecDeque::from([work]));
        }
    }

    /// Does the work, or gives it back when something must be loaded first.
    fn attempt(&mut self, work: Work<T>) -> Option<Work<T>> {
        match work {
            Work::Request(token, request) => {
                if token.is_abandoned() {
                    return None;
                }
                match self.try_request(token, request) {
                    Ok(()) => None,
                    Err((load, token, request)) => {
                        self.outputs.push(Output::Load(load));
                        Some(Work::Request(token, request))
                    }
                }
            }
            Work::Apply { call, index, entry } => match self.try_apply(&entry) {
                Ok((applied, after)) => {
                    self.apply_done(call, index, applied, after);
                    None
                }
                Err(load) => {
                    self.outputs.push(Output::Load(load));
                    Some(Work::Apply { call, index, entry })
                }
            },
            Work::Wake(key) => match self.try_wake(&key) {
                Ok(()) => None,
                Err(Stop::Load(load)) => {
                    self.outputs.push(Output::Load(load));
                    Some(Work::Wake(key))
                }
                Err(Stop::Refused(Refusal::Internal(why))) => {
                    self.break_down(why);
                    None
                }
                Err(Stop::Refused(_)) => None,
            },
            Work::Retire(key) => match self.try_retire(&key) {
                Ok(()) => None,
                Err(Stop::Load(load)) => {
                    self.outputs.push(Output::Load(load));
                    Some(Work::Retire(key))
                }
                Err(Stop::Refused(refusal)) => {
                    self.break_down(refusal.to_string());
                    None
                }
            },
        }
    }

    fn apply_done(&mut self, call: u64, index: usize, applied: Applied, after: Sequence) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        if let Some(slot) = entry.results.get_mut(index)
            && slot.is_none()
        {
            *slot = Some(applied);
            entry.missing -= 1;
            entry.after = entry.after.max(after);
        }
        if entry.missing == 0
            && let Some(entry) = self.calls.remove(&call)
        {
            let results = entry.results.into_iter().flatten().collect();
            self.hold(entry.after, Output::Applied(entry.token, results));
        }
    }

    fn give_up(&mut self, work: Work<T>, why: &str) {
        match work {
            Work::Request(token, _) => {
                let refusal = Refusal::Unavailable(why.to_string());
                self.outputs.push(Output::Answer(token, Err(refusal)));
            }
            Work::Apply { call, index, .. } => {
                self.apply_done(call, index, Applied::Retry(why.to_string()), Sequence(0));
            }
            Work::Wake(_) | Work::Retire(_) => {}
        }
    }

    fn give_up_damaged(&mut self, work: Work<T>, why: &str) {
        match work {
            Work::Request(token, _) => {
                let refusal = Refusal::Quarantined(format!("the stored run is damaged: {why}"));
                self.outputs.push(Output::Answer(token, Err(refusal)));
            }
            Work::Apply { call, index, entry } => {
                self.tell_damaged(&entry, why);
                self.apply_done(call, index, Applied::Poison(why.to_string()), Sequence(0));
            }
            // Out of the way of others that are due: a damaged run is never deleted.
            Work::Retire(key) => self.put_off(&key),
            Work::Wake(_) => {}
        }
    }

    fn quarantine(&mut self, key: &WorkflowKey, why: &str) {
        self.outputs.push(Output::Broken(format!("workflow {}: {why}", key.workflow)));
    }

    /// Holds an output until this position is durable (D1).
    fn hold(&mut self, after: Sequence, output: Output<T>) {
        if after <= self.durable {
            self.outputs.push(output);
        } else {
            self.held.entry(after).or_default().push(output);
        }
    }

    /// The group in flight is durable.
    pub fn committed(&mut self, now: Timestamp) {
        self.now = now;
        let Some(through) = self.flying.take() else { return };
        self.durable = through;
        let later = self.held.split_off(&through.next());
        for outputs in std::mem::replace(&mut self.held, later).into_values() {
            self.outputs.extend(outputs);
        }
        self.evict();
    }

    /// The group in flight was rejected, or its outcome is unknown (D2): everything built on it is dropped and refused
    /// retryably. The driver acquires the shard anew.
    pub fn commit_failed(&mut self, why: &str) {
        self.flying = None;
        self.break_down(why.to_string());
    }

    fn break_down(&mut self, why: String) {
        self.broken = true;
        self.gather = Gather::default();
        let unavailable = || Refusal::Unavailable(format!("the write did not become durable: {why}"));
        for output in std::mem::take(&mut self.held).into_values().flatten() {
            match output {
                Output::Answer(token, _) => self.outputs.push(Output::Answer(token, Err(unavailable()))),
                Output::Barrier(token, _) => self.outputs.push(Output::Barrier(token, Err(unavailable()))),
                Output::Applied(token, results) => {
                    let retry = vec![Applied::Retry(why.clone()); results.len()];
                    self.outputs.push(Output::Applied(token, retry));
                }
                // Offers and counts of what did not happen.
                _ => {}
            }
        }
        for waiter in self.workflows.values_mut().flat_map(Workflow::take_waiters) {
            self.outputs.push(Output::Answer(waiter, Err(unavailable())));
        }
        for work in std::mem::take(&mut self.parked).into_values().flatten() {
            self.give_up(work, &why);
        }
        self.workflows.clear();
        self.outputs.push(Output::Broken(why));
    }

    /// Whether the shard must be acquired anew.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends the group that gathered, unless one is in flight.
    pub fn flush(&mut self) {
        if self.flying.is_some() || self.gather.is_empty() || self.broken {
            return;
        }
        let gather = std::mem::take(&mut self.gather);
        let group = Group {
            shard: self.setting.shard,
            range: self.range,
            after: self.durable,
            through: self.sequence,
            deletes: gather.deletes.into_iter().collect(),
            forgets: gather.forgets.into_iter().collect(),
            batches: gather.batches,
            runs: gather.runs.into_values().collect(),
            currents: gather.currents.into_values().collect(),
            dispatch: gather.dispatch.into_values().collect(),
            obligations: gather.obligations.into_values().collect(),
            visibility: gather.visibility.into_values().collect(),
        };
        self.flying = Some(self.sequence);
        self.outputs.push(Output::Commit(group));
    }

    /// What there is to do, in order.
    pub fn take_outputs(&mut self) -> Vec<Output<T>> {
        std::mem::take(&mut self.outputs)
    }

    /// The version to write under here, or why not (A9, F1, F5).
    fn writable(&self, namespace: NamespaceId) -> Result<FailoverVersion, Refusal> {
        let Some(view) = self.namespaces.get(&namespace) else {
            return Err(Refusal::Unavailable(format!("namespace {namespace} is not known here yet")));
        };
        match view.writable {
            Some(version) => Ok(version),
            None if view.draining => Err(Refusal::Draining(namespace)),
            None => Err(Refusal::NamespaceNotActive {
                namespace: view.name.clone(),
                here: self.setting.region_name.clone(),
                active: view.active.clone(),
            }),
        }
    }

    fn context(&mut self, version: FailoverVersion) -> Context {
        let mut seed = [0; 16];
        seed.copy_from_slice(&self.make_id().0.as_bytes()[..]);
        let clocks = Arc::clone(&self.clocks);
        Context { now: self.now, version, region: self.setting.region, seed, clocks }
    }

    /// A new run id: unique by the seed of this ownership and a count.
    fn make_id(&mut self) -> RunId {
        self.ids_made += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.setting.seed);
        hasher.update(&self.ids_made.to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        RunId::from_random(bytes)
    }

    fn seat(&self, log: u64, place: u64) -> Seat {
        Seat {
            shard: self.setting.shard,
            incarnation: self.setting.incarnation,
            log: Sequence(log),
            place: Place { epoch: self.range.0, sequence: place },
            causal: self.sequence.0 + 1,
        }
    }

    /// Seats of a transition of one run: the next position.
    fn seat_one(&self) -> Seat {
        self.seat(self.sequence.0 + 1, self.sequence.0 + 1)
    }

    /// Seats of a transition that may continue the chain: the successor's first batch comes before the closing batch in
    /// the log (B8) and after it in place (B7). Without a successor one position stays empty.
    fn seats_two(&self) -> [Seat; 2] {
        let next = self.sequence.0 + 1;
        [self.seat(next + 1, next), self.seat(next, next + 1)]
    }
}

/// Rows of the dispatch index a read brings at most.
pub const BACKLOG_PAGE: usize = 1_000;
