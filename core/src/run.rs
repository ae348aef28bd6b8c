//! A run: its branch tree, the fold of the current branch, and what has no event beside it (A1, A2). Views select what is
//! live; they are pure functions of (current branch, registers, pending set), never of arrival order.

use std::{
    collections::BTreeMap,
    sync::Arc,
};

use antipode_proto::{
    api::history::v1::HistoryEvent,
    core as wire,
};
use bytes::Bytes;
use prost::Message;

use crate::{
    batch::{Batch, EventIdentity, Malformed},
    chain::ChainValue,
    fold::{FOLD_VERSION, FoldError},
    identity::{ExternalKind, Identity},
    ids::{EventId, FailoverVersion, Nanos, Place, RegionId, RunId, RunKey, RunOrder, Timestamp},
    register::{Kind, Order, Register, RegisterSet},
    state::{Activity, Anchor, State},
    tree::{Branch, Inserted, Tree},
    version_history::{Item, VersionHistory},
};

/// A run cannot be built from what is stored or received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A batch or the head does not decode.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The events do not fold.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The batches do not form the tree that the head names.
    #[error("branch tree: {0}")]
    Tree(String),
}

/// An accepted event that waits for a workflow task to end (A2).
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Events to write, without ids, times and versions.
    pub events: Vec<HistoryEvent>,
    /// The request named a run (B4).
    pub named_run: bool,
    /// Entity that must be open for it to be live (activity outcomes).
    pub anchor: Option<Anchor>,
    /// Version and place of acceptance: the order in which pending events are written.
    pub accepted: (FailoverVersion, Place),
    /// Accepting region.
    pub region: RegionId,
}

/// Sticky binding: local, memory only (A8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Sticky queue.
    pub queue: String,
    /// Schedule-to-start timeout there.
    pub timeout: Nanos,
    /// Chain value of the last completed workflow task's batch.
    pub tip: ChainValue,
    /// Version it was completed under.
    pub version: FailoverVersion,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Key.
    pub key: RunKey,
    /// First run of the chain.
    pub first_run: RunId,
    /// Branches; none before the first batch.
    pub tree: Option<Tree>,
    /// All batches by chain value.
    pub batches: BTreeMap<ChainValue, Arc<Batch>>,
    /// Batches of the current branch in order.
    pub line: Vec<Arc<Batch>>,
    /// Fold of the current branch.
    pub state: State,
    /// Live and dormant registers.
    pub registers: RegisterSet,
    /// Pending set.
    pub pending: BTreeMap<Identity, Pending>,
    /// External events that will not be applied, with the reason (I03).
    pub unclaimed: Vec<wire::Unclaimed>,
    /// Sticky binding.
    pub sticky: Option<Sticky>,
}

/// The workflow task that is pending, with or without events of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// Scheduled event, or the id it would have.
    pub scheduled: EventId,
    /// Version of that event, or of the attempt.
    pub version: FailoverVersion,
    /// Attempt, from 1.
    pub attempt: i32,
    /// Not dispatched before.
    pub scheduled_at: Timestamp,
    /// Once started.
    pub started: Option<crate::state::TaskStarted>,
    /// It has no events of its own (A4).
    pub transient: bool,
    /// Scheduled for a sticky queue.
    pub sticky: bool,
}

/// An open activity with its live registers.
#[derive(Clone, Debug)]
pub struct ActivityView<'a> {
    /// From its events.
    pub activity: &'a Activity,
    /// Attempt register, or what holds before there is one.
    pub attempt: wire::ActivityAttempt,
    /// Last heartbeat.
    pub heartbeat: Option<wire::ActivityHeartbeat>,
    /// An outcome was accepted and waits for the workflow task to end.
    pub decided: bool,
}

/// What a batch did to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The current branch grew.
    Grew,
    /// Another branch became current; mutable state was rebuilt.
    Switched,
    /// A branch that is not current grew or began.
    Aside,
}

impl Run {
    /// Before its first batch.
    #[must_use]
    pub fn new(key: RunKey, first_run: RunId) -> Self {
        Self {
            key,
            first_run,
            tree: None,
            batches: BTreeMap::new(),
            line: Vec::new(),
            state: State::default(),
            registers: RegisterSet::default(),
            pending: BTreeMap::new(),
            unclaimed: Vec::new(),
            sticky: None,
        }
    }

    /// From its head and all its batches.
    ///
    /// # Errors
    /// [`RunError`] when they do not fit together.
    pub fn restore(
        key: RunKey,
        head: &wire::RunHead,
        batches: impl IntoIterator<Item = Arc<Batch>>,
    ) -> Result<Self, RunError> {
        let first_run = head
            .first_run_id
            .parse()
            .map_err(|_| Malformed::Field { field: "first_run_id", why: "is not a UUID" })?;
        let mut run = Self::new(key, first_run);
        for batch in batches {
            run.insert(&batch)?;
            run.batches.insert(batch.chain, batch);
        }
        run.rebuild()?;
        for stored in &head.registers {
            let register = Register::from_wire(stored).map_err(|error| RunError::Tree(error.to_string()))?;
            run.registers.merge(register);
        }
        for stored in &head.pending {
            if let Some((identity, pending)) = Pending::from_wire(stored) {
                run.pending.insert(identity, pending);
            }
        }
        run.unclaimed.clone_from(&head.unclaimed);
        Ok(run)
    }

    /// The small row: everything but the batches.
    #[must_use]
    pub fn head(&self) -> wire::RunHead {
        wire::RunHead {
            first_run_id: self.first_run.to_string(),
            branches: self.tree.as_ref().map(Tree::branches_wire).unwrap_or_default(),
            current: self.tree.as_ref().map_or(0, |tree| u32::try_from(tree.current_index()).unwrap_or(u32::MAX)),
            registers: self.registers.to_wire(),
            pending: self.pending.iter().map(|(identity, pending)| pending.to_wire(identity)).collect(),
            unclaimed: self.unclaimed.clone(),
            fold_version: FOLD_VERSION,
            batch_bytes: self.state.history_bytes,
        }
    }

    /// Registers and pending events for a peer (C1).
    #[must_use]
    pub fn state_wire(&self) -> wire::RunState {
        wire::RunState {
            namespace_id: self.key.namespace.to_string(),
            workflow_id: self.key.workflow.to_string(),
            run_id: self.key.run.to_string(),
            registers: self.registers.to_wire(),
            pending: self.pending.iter().map(|(identity, pending)| pending.to_wire(identity)).collect(),
            tip_chain: self.tip().to_bytes(),
        }
    }

    /// Version history of the current branch.
    #[must_use]
    pub fn items(&self) -> VersionHistory {
        self.line.last().map(|batch| batch.envelope.items.clone()).unwrap_or_default()
    }

    /// Chain value at the tip of the current branch.
    #[must_use]
    pub fn tip(&self) -> ChainValue {
        self.line.last().map_or(ChainValue::NONE, |batch| batch.chain)
    }

    /// Last item of the current branch.
    #[must_use]
    pub fn last_item(&self) -> Option<Item> {
        self.line.last().and_then(|batch| batch.envelope.items.last())
    }

    /// Order among the runs of the workflow id (B7).
    #[must_use]
    pub fn order(&self) -> RunOrder {
        self.line.last().map_or_else(RunOrder::default, |batch| RunOrder {
            version: batch.envelope.version,
            place: batch.envelope.place,
        })
    }

    fn insert(&mut self, batch: &Arc<Batch>) -> Result<Inserted, RunError> {
        let broken = |error: crate::tree::Error| RunError::Tree(error.to_string());
        match &mut self.tree {
            Some(tree) => tree.insert(&batch.envelope, batch.chain).map_err(broken),
            None => {
                self.tree = Some(Tree::root(&batch.envelope, batch.chain).map_err(broken)?);
                Ok(Inserted::Leaf { branch: 0, switched: false })
            }
        }
    }

    /// Branches in branch order; the last one is current.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        self.tree.as_ref().map_or(&[], Tree::branches)
    }

    /// Whether this chain value is on the current branch (A4, A8).
    #[must_use]
    pub fn is_on_current(&self, chain: ChainValue) -> bool {
        chain == self.tip() || self.tree.as_ref().is_some_and(|tree| tree.is_prefix(chain))
    }

    /// Takes a batch that a draft folded already.
    pub(crate) fn sealed(&mut self, batch: &Arc<Batch>) -> Result<(), RunError> {
        let before = self.tip();
        self.insert(batch)?;
        self.batches.insert(batch.chain, Arc::clone(batch));
        self.line.push(Arc::clone(batch));
        self.state.apply_envelope(&batch.envelope);
        self.forget_applied();
        let tip = self.branches().last().map(|branch| branch.chain);
        if tip != Some(batch.chain) || batch.envelope.previous != before {
            return Err(RunError::Tree("an own batch did not become the tip of the current branch".to_string()));
        }
        Ok(())
    }

    /// Takes a replicated batch whose predecessor is here.
    ///
    /// # Errors
    /// [`RunError`]; after a fold error the run is unusable and must be loaded again.
    pub fn push(&mut self, batch: &Arc<Batch>) -> Result<Pushed, RunError> {
        let events = batch.decode_events()?;
        let before = self.tip();
        self.insert(batch)?;
        self.batches.insert(batch.chain, Arc::clone(batch));
        if self.branches().last().is_none_or(|branch| branch.chain != batch.chain) {
            return Ok(Pushed::Aside);
        }
        if batch.envelope.previous == before {
            self.state.apply_batch(&batch.envelope, &events)?;
            self.line.push(Arc::clone(batch));
            self.forget_applied();
            return Ok(Pushed::Grew);
        }
        self.rebuild()?;
        Ok(Pushed::Switched)
    }

    /// Folds the current branch from its first event (R414: the choice of branch is the tree's).
    ///
    /// # Errors
    /// [`RunError`].
    pub fn rebuild(&mut self) -> Result<(), RunError> {
        self.state = State::default();
        self.line.clear();
        let path = self.tree.as_ref().map(|tree| tree.path(tree.current().chain)).unwrap_or_default();
        for chain in path {
            let batch = self
                .batches
                .get(&chain)
                .cloned()
                .ok_or_else(|| RunError::Tree(format!("batch {chain} is named and not stored")))?;
            self.state.apply_batch(&batch.envelope, &batch.decode_events()?)?;
            self.line.push(batch);
        }
        self.forget_applied();
        Ok(())
    }

    /// Pending events that stand on the current branch need no place of their own: were the branch to lose, they would be
    /// found on it (B1).
    fn forget_applied(&mut self) {
        if !self.pending.is_empty() {
            let applied = &self.state.applied;
            self.pending.retain(|identity, _| !applied.contains(identity));
        }
    }

    /// Merges registers and pending events of a peer. True when something changed.
    pub fn merge(&mut self, state: &wire::RunState) -> bool {
        let mut changed = false;
        for stored in &state.registers {
            if let Ok(register) = Register::from_wire(stored) {
                changed |= self.registers.merge(register).changed;
            }
        }
        for stored in &state.pending {
            if let Some((identity, pending)) = Pending::from_wire(stored)
                && !self.state.applied.contains(&identity)
                && !self.pending.contains_key(&identity)
            {
                self.pending.insert(identity, pending);
                changed = true;
            }
        }
        changed
    }

    /// Anchors of a peer's registers that no stored batch holds: the registers must wait for their events (A1).
    #[must_use]
    pub fn missing_anchor(&self, state: &wire::RunState) -> bool {
        let known = |event: i64, version: i64| {
            event == 0
                || self.branches()
                    .iter()
                    .any(|branch| branch.items.contains(EventId(event), FailoverVersion(version)))
        };
        state.registers.iter().any(|register| !known(register.anchor_event_id, register.anchor_version))
    }

    /// Whether an identity is applied on this chain or waits to be.
    #[must_use]
    pub fn knows(&self, identity: &Identity) -> bool {
        self.state.applied.contains(identity) || self.pending.contains_key(identity)
    }

    /// The workflow task that is pending.
    #[must_use]
    pub fn task(&self) -> Option<TaskView> {
        if let Some(task) = &self.state.task {
            return Some(TaskView {
                scheduled: task.scheduled,
                version: task.version,
                attempt: task.attempt,
                scheduled_at: task.scheduled_at,
                started: task.started.clone(),
                transient: false,
                sticky: task.sticky,
            });
        }
        if !self.state.is_open() {
            return None;
        }
        // A7: live only while its anchor is the last workflow-task event.
        let register = self.registers.get(self.state.task_anchor.pair(), Kind::WorkflowTaskAttempt)?;
        let attempt = wire::WorkflowTaskAttempt::decode(&*register.value).ok()?;
        if attempt.attempt <= 0 {
            return None;
        }
        let scheduled = self.state.next_event;
        let started = attempt.started.then(|| crate::state::TaskStarted {
            event: scheduled.next(),
            version: FailoverVersion(attempt.start_version),
            at: Timestamp(attempt.started_unix_nanos),
            request_id: attempt.started_request_id,
            identity: attempt.started_identity,
        });
        Some(TaskView {
            scheduled,
            version: register.order.version,
            attempt: attempt.attempt,
            scheduled_at: Timestamp(attempt.scheduled_unix_nanos),
            started,
            transient: true,
            sticky: false,
        })
    }

    /// A workflow task is in a worker's hand: events wait for its end.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.task().is_some_and(|task| task.started.is_some())
    }

    fn set_register(&mut self, anchor: Anchor, kind: Kind, version: FailoverVersion, value: Bytes) {
        let known = self.registers.get(anchor.pair(), kind).map(|register| register.order);
        let order = known.unwrap_or_else(Order::default).next(version);
        self.registers.merge(Register { anchor: anchor.pair(), kind, order, value });
    }

    /// Writes the register of the transient workflow task; `None` voids it.
    pub fn set_task_attempt(&mut self, version: FailoverVersion, attempt: Option<wire::WorkflowTaskAttempt>) {
        let value = attempt.unwrap_or_default().encode_to_vec();
        self.set_register(self.state.task_anchor, Kind::WorkflowTaskAttempt, version, Bytes::from(value));
    }

    /// A8: the sticky binding while it holds.
    #[must_use]
    pub fn sticky(&self, version: FailoverVersion) -> Option<&Sticky> {
        self.sticky
            .as_ref()
            .filter(|sticky| sticky.version == version && self.is_on_current(sticky.tip))
    }

    /// An open activity with its live registers.
    #[must_use]
    pub fn activity(&self, scheduled: EventId) -> Option<ActivityView<'_>> {
        let activity = self.state.activities.get(&scheduled)?;
        let attempt = self
            .registers
            .get(activity.anchor().pair(), Kind::ActivityAttempt)
            .and_then(|register| wire::ActivityAttempt::decode(&*register.value).ok())
            .unwrap_or_else(|| wire::ActivityAttempt {
                attempt: 1,
                scheduled_unix_nanos: activity.scheduled_at.0,
                ..Default::default()
            });
        let heartbeat = self
            .registers
            .get(activity.anchor().pair(), Kind::ActivityHeartbeat)
            .and_then(|register| wire::ActivityHeartbeat::decode(&*register.value).ok());
        let decided = self.pending.contains_key(&outcome_identity(activity.anchor(), self.key.run));
        Some(ActivityView { activity, attempt, heartbeat, decided })
    }

    /// Writes an activity's attempt register.
    pub fn set_activity_attempt(&mut self, anchor: Anchor, version: FailoverVersion, attempt: &wire::ActivityAttempt) {
        self.set_register(anchor, Kind::ActivityAttempt, version, Bytes::from(attempt.encode_to_vec()));
    }

    /// Writes an activity's heartbeat register.
    pub fn set_activity_heartbeat(
        &mut self,
        anchor: Anchor,
        version: FailoverVersion,
        heartbeat: &wire::ActivityHeartbeat,
    ) {
        self.set_register(anchor, Kind::ActivityHeartbeat, version, Bytes::from(heartbeat.encode_to_vec()));
    }

    /// Pending events that are to be written on the current branch, in order of acceptance (A2).
    #[must_use]
    pub fn pending_live(&self) -> Vec<(Identity, Pending)> {
        let mut live: Vec<_> = self
            .pending
            .iter()
            .filter(|(identity, pending)| !self.state.applied.contains(identity) && self.is_live(pending))
            .map(|(identity, pending)| (identity.clone(), pending.clone()))
            .collect();
        live.sort_by(|(a_id, a), (b_id, b)| (a.accepted, a_id).cmp(&(b.accepted, b_id)));
        live
    }

    /// Whether there is a pending event to write.
    #[must_use]
    pub fn has_pending_live(&self) -> bool {
        self.pending
            .iter()
            .any(|(identity, pending)| !self.state.applied.contains(identity) && self.is_live(pending))
    }

    fn is_live(&self, pending: &Pending) -> bool {
        pending.anchor.is_none_or(|anchor| {
            self.state.activities.get(&anchor.event).is_some_and(|activity| activity.version == anchor.version)
        })
    }

    /// External events of losing branches that the current chain lacks and no record explains, in branch order (B1, I33).
    #[must_use]
    pub fn owed(&self) -> Vec<(Arc<Batch>, EventIdentity)> {
        let mut owed: Vec<(Arc<Batch>, EventIdentity)> = Vec::new();
        let Some(tree) = self.tree.as_ref().filter(|tree| tree.branches().len() > 1) else { return owed };
        for chain in tree.losing() {
            let Some(batch) = self.batches.get(&chain) else { continue };
            for entry in &batch.envelope.identities {
                let once = !owed.iter().any(|(_, other)| other.identity == entry.identity);
                if once && self.is_owed(entry) {
                    owed.push((Arc::clone(batch), entry.clone()));
                }
            }
        }
        owed
    }

    fn is_owed(&self, entry: &EventIdentity) -> bool {
        entry.identity.kind.is_reapplied()
            && !self.knows(&entry.identity)
            && (self.unclaimed.is_empty() || !self.is_filed(&entry.identity))
    }

    /// Whether this run holds clients' events that may be owed to another run, or to nobody: everything it took while it is
    /// open and does not own the workflow id; once closed, what stands on losing branches or still waits (B1).
    #[must_use]
    pub fn may_owe(&self) -> bool {
        let waits = self.pending.iter().any(|(identity, pending)| pending.anchor.is_none() && !self.is_filed(identity));
        if waits || !self.owed().is_empty() {
            return true;
        }
        self.state.is_open()
            && self.batches.values().any(|batch| {
                batch.envelope.identities.iter().any(|entry| entry.identity.kind.is_reapplied())
            })
    }

    /// B1, B4: clients' events that this superseded run took and the run that owns the workflow id now lacks: those to hand
    /// over, as pending events of the owner, and those to file with a verdict.
    #[must_use]
    pub fn owed_to(&self, owner: &Self) -> (Vec<(Identity, Pending)>, Vec<(wire::Unclaimed, Identity)>) {
        let mut over: BTreeMap<Identity, Pending> = BTreeMap::new();
        let mut filed: BTreeMap<Identity, wire::Unclaimed> = BTreeMap::new();
        let verdict = |kind: ExternalKind, named_run: bool| {
            if !owner.state.is_open() {
                Some("the run that owns the workflow id is closed")
            } else if named_run && owner.first_run != self.first_run {
                Some("the run it named was superseded by another chain")
            } else if kind != ExternalKind::Signal {
                Some("only signals are handed to another run")
            } else {
                None
            }
        };
        let record = |event: EventId, version: FailoverVersion, verdict: &str, identity: &Identity| wire::Unclaimed {
            identity: Some(identity.to_wire()),
            event_id: event.0,
            version: version.0,
            run_id: self.key.run.to_string(),
            verdict: verdict.to_string(),
            recorded_unix_nanos: 0,
        };
        for batch in self.batches.values() {
            for entry in &batch.envelope.identities {
                let counted = !self.state.is_open() && self.state.applied.contains(&entry.identity);
                let settled = counted || owner.knows(&entry.identity) || self.is_filed(&entry.identity);
                if !entry.identity.kind.is_reapplied() || settled {
                    continue;
                }
                if let Some(verdict) = verdict(entry.identity.kind, entry.named_run) {
                    let record = record(entry.event, batch.envelope.version, verdict, &entry.identity);
                    filed.insert(entry.identity.clone(), record);
                    continue;
                }
                let events = batch.decode_events().unwrap_or_default();
                let event = events.into_iter().find(|event| event.event_id == entry.event.0);
                let pending = Pending {
                    events: event.into_iter().map(unnumbered).collect(),
                    named_run: entry.named_run,
                    anchor: None,
                    accepted: (batch.envelope.version, batch.envelope.place),
                    region: batch.envelope.origin.region,
                };
                over.insert(entry.identity.clone(), pending);
            }
        }
        for (identity, pending) in &self.pending {
            let settled = owner.knows(identity) || self.is_filed(identity) || self.state.applied.contains(identity);
            if pending.anchor.is_some() || settled {
                continue;
            }
            match verdict(identity.kind, pending.named_run) {
                Some(verdict) => {
                    let record = record(EventId(0), pending.accepted.0, verdict, identity);
                    filed.insert(identity.clone(), record);
                }
                None => drop(over.insert(identity.clone(), pending.clone())),
            }
        }
        (over.into_iter().collect(), filed.into_iter().map(|(identity, record)| (record, identity)).collect())
    }

    fn is_filed(&self, identity: &Identity) -> bool {
        let wire = Some(identity.to_wire());
        self.unclaimed.iter().any(|record| record.identity == wire)
    }

    /// Bytes it occupies in a cache, about.
    #[must_use]
    pub fn size(&self) -> usize {
        512 + self.batches.values().map(|batch| batch.size() + 256).sum::<usize>()
            + self.registers.len() * 128
            + self.pending.len() * 256
    }
}

/// An event without what its place on a branch gave it.
fn unnumbered(event: HistoryEvent) -> HistoryEvent {
    HistoryEvent { event_id: 0, event_time: None, version: 0, task_id: 0, ..event }
}

/// Identity under which the outcome of an activity waits: one an activity.
#[must_use]
pub fn outcome_identity(anchor: Anchor, run: RunId) -> Identity {
    let key = format!("{run}/{}/{}", anchor.event.0, anchor.version.0);
    Identity::client(ExternalKind::ActivityOutcome, key)
}

impl Pending {
    fn to_wire(&self, identity: &Identity) -> wire::PendingEvent {
        let history = antipode_proto::api::history::v1::History { events: self.events.clone() };
        let anchor = self.anchor.unwrap_or_default();
        wire::PendingEvent {
            identity: Some(identity.to_wire()),
            events: Bytes::from(history.encode_to_vec()),
            named_run: self.named_run,
            anchor_event_id: anchor.event.0,
            anchor_version: anchor.version.0,
            accepted: Some(wire::Place { epoch: self.accepted.1.epoch, sequence: self.accepted.1.sequence }),
            accepted_version: self.accepted.0.0,
            accepted_region: self.region.0,
        }
    }

    fn from_wire(stored: &wire::PendingEvent) -> Option<(Identity, Self)> {
        let identity = Identity::from_wire(stored.identity.as_ref()?)?;
        let events = antipode_proto::api::history::v1::History::decode(&*stored.events).ok()?.events;
        let anchor = (stored.anchor_event_id != 0).then_some(Anchor {
            event: EventId(stored.anchor_event_id),
            version: FailoverVersion(stored.anchor_version),
        });
        let place = stored.accepted.as_ref().map_or_else(Place::default, |place| Place {
            epoch: place.epoch,
            sequence: place.sequence,
        });
        let pending = Self {
            events,
            named_run: stored.named_run,
            anchor,
            accepted: (FailoverVersion(stored.accepted_version), place),
            region: RegionId(stored.accepted_region),
        };
        Some((identity, pending))
    }
}
