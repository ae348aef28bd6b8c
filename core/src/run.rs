//! A run: its branch tree, the fold of the current branch, and what has no event beside it (A1, A2). Views select what is
//! live; they are pure functions of (current branch, registers, pending set), never of arrival order.

use std::{collections::BTreeMap, sync::Arc};

use antipode_proto::{api::history::v1::HistoryEvent, core as wire};
use bytes::Bytes;
use prost::Message;

use crate::{
    batch::{Batch, Malformed},
    chain::ChainValue,
    fold::{FOLD_VERSION, FoldError},
    identity::{ExternalKind, Identity},
    ids::{EventId, FailoverVersion, Nanos, Place, RegionId, RunId, RunKey, RunOrder},
    law,
    law::LawId,
    register::{Anchor, Kind, Order, Register, RegisterSet},
    state::{self, State},
    tree::{Branch, Inserted, Tree},
    verdict::Verdicts,
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
    /// The run that took it, when it was handed over from there (B1).
    pub origin: Option<RunId>,
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
    /// What was decided of external events that are not applied (I03).
    pub verdicts: Verdicts,
    /// Register values that lost to a write that had not seen them (A6). Kept where it happened.
    pub lost: Vec<wire::LostValue>,
    /// Sticky binding.
    pub sticky: Option<Sticky>,
    /// Some region deleted it and it goes on all the same: regions tell each other the branches that lost (C6, E2).
    pub came_back: bool,
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
            verdicts: Verdicts::default(),
            lost: Vec::new(),
            came_back: false,
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
        run.forget_written();
        for record in &head.unclaimed {
            run.verdicts.add(record);
        }
        run.lost.clone_from(&head.lost);
        run.came_back = head.came_back;
        Ok(run)
    }

    /// The small row: everything but the batches.
    #[must_use]
    pub fn head(&self) -> wire::RunHead {
        wire::RunHead {
            first_run_id: self.first_run.to_string(),
            branches: self.tree.as_ref().map(Tree::branches_wire).unwrap_or_default(),
            current: self
                .tree
                .as_ref()
                .map_or(0, |tree| u32::try_from(tree.current_index()).unwrap_or(u32::MAX)),
            registers: self.registers.to_wire(),
            pending: self.pending.iter().map(|(identity, pending)| pending.to_wire(identity)).collect(),
            unclaimed: self.verdicts.to_wire(),
            lost: self.lost.clone(),
            fold_version: FOLD_VERSION,
            batch_bytes: self.state.history_bytes,
            deleted: None,
            open: self.state.is_open(),
            came_back: self.came_back,
        }
    }

    /// Registers, pending events and verdicts for a peer (C1).
    #[must_use]
    pub fn state_wire(&self) -> wire::RunState {
        crate::sum::sealed(wire::RunState {
            namespace_id: self.key.namespace.to_string(),
            workflow_id: self.key.workflow.to_string(),
            run_id: self.key.run.to_string(),
            registers: self.registers.to_wire(),
            pending: self.pending.iter().map(|(identity, pending)| pending.to_wire(identity)).collect(),
            tip_chain: self.tip().to_bytes(),
            verdicts: self.verdicts.to_wire(),
            came_back: self.came_back,
            lost_tips: if self.came_back { self.lost_tips() } else { Vec::new() },
            ..wire::RunState::default()
        })
    }

    fn lost_tips(&self) -> Vec<Bytes> {
        lost_tips(&self.head())
    }

    /// Whether a state names a branch, of a run that came back, that is not stored here (C6).
    #[must_use]
    pub fn lacks_branch(&self, state: &wire::RunState) -> bool {
        let stored = |chain| self.tree.as_ref().is_some_and(|tree| tree.node(chain).is_some());
        state.lost_tips.iter().filter_map(|tip| ChainValue::from_bytes(tip)).any(|chain| !stored(chain))
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

    /// Order among the runs of the workflow id (B7): of all its branches, so that it only grows. The current one has the greatest,
    /// unless its owner wrote a version twice (G2).
    #[must_use]
    pub fn order(&self) -> RunOrder {
        let order = |branch: &Branch| {
            let last = branch.items.last()?;
            Some(RunOrder { version: last.version, place: branch.place })
        };
        self.branches().iter().filter_map(order).max().unwrap_or_default()
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
        self.registers.sealed(batch.envelope.first_event, batch.chain);
        self.state.apply_envelope(&batch.envelope);
        self.forget_written();
        let tip = self.branches().last().map(|branch| branch.chain);
        let greatest = tip == Some(batch.chain) && batch.envelope.previous == before;
        if !law!(LawId::V04, greatest, "own batch {} on {before} of {}", batch.chain, self.key) {
            return Err(RunError::Tree(
                "an own batch did not become the tip of the current branch".to_string(),
            ));
        }
        self.is_folded()
    }

    /// V05: mutable state ends where the current branch ends.
    fn is_folded(&self) -> Result<(), RunError> {
        let (tip, state) = (self.last_item(), &self.state);
        let folded =
            tip.is_none_or(|tip| (tip.event, tip.version) == (state.last_event(), state.last_version));
        if !law!(LawId::V05, folded, "state at {} of {}, branch at {tip:?}", state.last_event(), self.key) {
            return Err(RunError::Tree("mutable state is not the fold of the current branch".to_string()));
        }
        Ok(())
    }

    /// Takes a replicated batch whose predecessor is here.
    ///
    /// # Errors
    /// [`RunError`]; after a fold error the run is unusable and must be loaded again.
    pub fn push(&mut self, batch: &Arc<Batch>) -> Result<Pushed, RunError> {
        self.push_decoded(batch, &batch.decode_events()?)
    }

    /// The same, of which the caller has the events, as [`Batch::decode_events`] gave them.
    ///
    /// # Errors
    /// As [`Run::push`].
    pub fn push_decoded(&mut self, batch: &Arc<Batch>, events: &[HistoryEvent]) -> Result<Pushed, RunError> {
        let before = self.tip();
        self.insert(batch)?;
        self.batches.insert(batch.chain, Arc::clone(batch));
        if self.branches().last().is_none_or(|branch| branch.chain != batch.chain) {
            self.forget_written();
            return Ok(Pushed::Aside);
        }
        if batch.envelope.previous == before {
            self.state.apply_batch(&batch.envelope, events)?;
            self.line.push(Arc::clone(batch));
            self.forget_written();
            self.is_folded()?;
            return Ok(Pushed::Grew);
        }
        self.rebuild()?;
        self.is_folded()?;
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
        self.forget_written();
        Ok(())
    }

    /// A pending event that a stored batch carries needs no place of its own: should that branch lose, the event is found
    /// on it (B1). What is left is a function of the batches and the set, never of the order in which they came (A1).
    fn forget_written(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|identity, pending| !self.is_written(identity, pending));
        self.pending = pending;
    }

    /// Whether a batch of any branch carries this event. An activity's outcome is not re-applied when its branch loses, so
    /// only a batch of the version that accepted it, or of a later one, makes the waiting outcome needless.
    fn is_written(&self, identity: &Identity, pending: &Pending) -> bool {
        let least = if pending.anchor.is_some() { pending.accepted.0 } else { FailoverVersion::LOCAL };
        let carries = |batch: &Batch| {
            batch.envelope.version >= least
                && batch.envelope.identities.iter().any(|entry| &entry.identity == identity)
        };
        if self.state.applied.contains(identity)
            && (pending.anchor.is_none() || self.line.iter().rev().any(|batch| carries(batch)))
        {
            return true;
        }
        let Some(tree) = self.tree.as_ref().filter(|tree| tree.branches().len() > 1) else { return false };
        tree.losing().iter().filter_map(|chain| self.batches.get(chain)).any(|batch| carries(batch))
    }

    /// Merges registers, pending events and verdicts of a peer. True when something changed.
    pub fn merge(&mut self, state: &wire::RunState) -> bool {
        let mut changed = false;
        for stored in &state.registers {
            if let Ok(register) = Register::from_wire(stored) {
                changed |= self.merge_register(register);
            }
        }
        for stored in &state.pending {
            if let Some((identity, pending)) = Pending::from_wire(stored) {
                changed |= self.add_pending(identity, pending);
            }
        }
        for record in &state.verdicts {
            changed |= self.verdicts.add(record);
        }
        changed |= state.came_back && !self.came_back;
        self.came_back |= state.came_back;
        changed
    }

    fn merge_register(&mut self, register: Register) -> bool {
        let (anchor, kind) = (register.anchor, register.kind);
        let merged = self.registers.merge(register);
        let winner = self.registers.get(anchor, kind).map(|register| register.order).unwrap_or_default();
        let noted = merged.lost.is_some_and(|lost| self.note_lost(&lost, winner, merged.fork));
        merged.changed || noted
    }

    /// A6: lists a value that lost unseen. One entry for an anchor, kind and version: the newest. True when it is new.
    fn note_lost(&mut self, lost: &Register, winner: Order, fork: bool) -> bool {
        let entry = wire::LostValue {
            register: Some(lost.to_wire()),
            winner_version: winner.version.0,
            winner_count: winner.count,
            fork,
        };
        let key = |entry: &wire::LostValue| {
            let register = entry.register.clone().unwrap_or_default();
            let anchor = (register.anchor_event_id, register.anchor_version, register.anchor_chain);
            ((anchor, register.kind, register.order_version), register.order_count)
        };
        let (at, count) = key(&entry);
        let known = self.lost.iter_mut().find(|known| key(known).0 == at);
        match known {
            Some(known) if key(known).1 >= count => false,
            Some(known) => {
                *known = entry;
                true
            }
            None => {
                self.lost.push(entry);
                true
            }
        }
    }

    /// Adds one event to the pending set: a union (A2). Two acceptances of one identity are one event; the later one is kept,
    /// in every region the same. True when something changed.
    pub fn add_pending(&mut self, identity: Identity, pending: Pending) -> bool {
        let known = self.pending.get(&identity);
        if known.is_some_and(|known| known.rank() >= pending.rank()) || self.is_written(&identity, &pending) {
            return false;
        }
        self.pending.insert(identity, pending);
        true
    }

    /// The newest version under which anything of the run was written, events or registers: it is not writable under a
    /// lower one (F5).
    #[must_use]
    pub fn newest_version(&self) -> FailoverVersion {
        let registers = self.registers.iter().map(|register| register.order.version);
        registers.fold(self.state.last_version, FailoverVersion::max)
    }

    /// Anchors of a peer's registers that no stored batch holds: the registers must wait for their events (A1).
    #[must_use]
    pub fn missing_anchor(&self, state: &wire::RunState) -> bool {
        state.registers.iter().any(|register| !self.holds_anchor(register))
    }

    /// Whether a stored batch holds the event that a peer's register hangs on: this very event, when the peer names its batch (G2).
    #[must_use]
    pub fn holds_anchor(&self, register: &wire::Register) -> bool {
        let (event, version) = (EventId(register.anchor_event_id), FailoverVersion(register.anchor_version));
        match ChainValue::from_bytes(&register.anchor_chain) {
            Some(ChainValue::NONE) | None => {
                event.0 == 0 || self.branches().iter().any(|branch| branch.items.contains(event, version))
            }
            Some(chain) => self.batches.contains_key(&chain),
        }
    }

    /// An event of the current branch as registers and waiting outcomes name it: with the chain value of its batch (G2).
    #[must_use]
    pub fn anchored(&self, at: state::Anchor) -> Anchor {
        Anchor { event: at.event, version: at.version, chain: self.chain_of(at.event) }
    }

    /// Chain value of the batch of the current branch that holds this event.
    fn chain_of(&self, event: EventId) -> ChainValue {
        let at = self.line.partition_point(|batch| batch.envelope.last_event < event);
        match self.line.get(at) {
            Some(batch) if batch.envelope.first_event <= event => batch.chain,
            Some(_) => ChainValue::NONE,
            None => Anchor::DRAFTED,
        }
    }

    /// Whether an identity is applied on this chain or waits to be.
    #[must_use]
    pub fn knows(&self, identity: &Identity) -> bool {
        self.state.applied.contains(identity) || self.pending.contains_key(identity)
    }

    fn set_register(&mut self, at: state::Anchor, kind: Kind, version: FailoverVersion, value: Bytes) {
        let anchor = self.anchored(at);
        let known = self.registers.at(anchor, kind);
        let before = known.as_ref().map(|register| register.order).unwrap_or_default();
        let base = match known {
            Some(known) if known.order.version == version => known.base,
            _ => before,
        };
        let order = before.next(version);
        self.registers.merge(Register { anchor, kind, order, base, value });
    }

    /// Writes the register of the transient workflow task; `None` voids it.
    pub fn set_task_attempt(&mut self, version: FailoverVersion, attempt: Option<wire::WorkflowTaskAttempt>) {
        let value = attempt.unwrap_or_default().encode_to_vec();
        self.set_register(self.state.task_anchor, Kind::WorkflowTaskAttempt, version, Bytes::from(value));
    }

    /// Writes an activity's attempt register.
    pub fn set_activity_attempt(
        &mut self,
        anchor: state::Anchor,
        version: FailoverVersion,
        attempt: &wire::ActivityAttempt,
    ) {
        self.set_register(anchor, Kind::ActivityAttempt, version, Bytes::from(attempt.encode_to_vec()));
    }

    /// Writes an activity's heartbeat register.
    pub fn set_activity_heartbeat(
        &mut self,
        anchor: state::Anchor,
        version: FailoverVersion,
        heartbeat: &wire::ActivityHeartbeat,
    ) {
        self.set_register(anchor, Kind::ActivityHeartbeat, version, Bytes::from(heartbeat.encode_to_vec()));
    }

    /// Bytes it occupies in a cache, about.
    #[must_use]
    pub fn size(&self) -> usize {
        512 + self.batches.values().map(|batch| batch.size() + 256).sum::<usize>()
            + self.registers.len() * 128
            + self.pending.len() * 256
    }
}

/// Identity under which the outcome of an activity waits: one an activity. Of the chain value eight bytes are enough to tell
/// the lives of a store apart (G2).
#[must_use]
pub fn outcome_identity(anchor: Anchor, run: RunId) -> Identity {
    let mut key = format!("{run}/{}/{}", anchor.event.0, anchor.version.0);
    if anchor != anchor.bare() {
        let chain = anchor.chain.to_string();
        key.push('/');
        key.push_str(chain.get(..16).unwrap_or(&chain));
    }
    Identity::client(ExternalKind::ActivityOutcome, key)
}

impl Pending {
    /// Which of two acceptances of one identity is kept: the later one; then any total order, the same everywhere.
    fn rank(&self) -> (FailoverVersion, Place, RegionId, Option<RunId>, Bytes) {
        let history = antipode_proto::api::history::v1::History { events: self.events.clone() };
        let events = Bytes::from(history.encode_to_vec());
        (self.accepted.0, self.accepted.1, self.region, self.origin, events)
    }

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
            origin_run_id: self.origin.map(|run| run.to_string()).unwrap_or_default(),
            anchor_chain: anchor.chain.to_bytes(),
        }
    }

    fn from_wire(stored: &wire::PendingEvent) -> Option<(Identity, Self)> {
        let identity = Identity::from_wire(stored.identity.as_ref()?)?;
        let events = antipode_proto::api::history::v1::History::decode(&*stored.events).ok()?.events;
        let anchor = (stored.anchor_event_id != 0).then_some(Anchor {
            event: EventId(stored.anchor_event_id),
            version: FailoverVersion(stored.anchor_version),
            chain: ChainValue::from_bytes(&stored.anchor_chain)?,
        });
        let place = stored
            .accepted
            .as_ref()
            .map_or_else(Place::default, |place| Place { epoch: place.epoch, sequence: place.sequence });
        let pending = Self {
            events,
            named_run: stored.named_run,
            anchor,
            accepted: (FailoverVersion(stored.accepted_version), place),
            region: RegionId(stored.accepted_region),
            origin: stored.origin_run_id.parse().ok(),
        };
        Some((identity, pending))
    }
}
/// The tips of the branches that lost, of a stored head, sorted: what the state of a run that came back names (C6).
#[must_use]
pub fn lost_tips(head: &wire::RunHead) -> Vec<Bytes> {
    let current = usize::try_from(head.current).ok();
    let lost = head.branches.iter().enumerate().filter(|(index, _)| Some(*index) != current);
    let mut tips: Vec<_> = lost.map(|(_, branch)| branch.chain.clone()).collect();
    tips.sort_unstable();
    tips
}
