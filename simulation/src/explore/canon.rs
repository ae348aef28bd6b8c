//! Canonical bytes of a region's state: everything that decides what can happen next, under names that do not depend on
//! the way by which it came about. Run ids, chain values and positions in a log are such accidents: a run is named by its first
//! batch, a batch by its content and its predecessor, and of positions only the order counts.

use std::{collections::BTreeMap, sync::Arc};

use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    identity::{ExternalKind, Identity, Key},
    ids::{NamespaceId, RunId, RunKey, Sequence, ShardId, Timestamp, WorkflowKey},
    register::Kind,
};
use antipode_history::api::{Replicated, TaskKind};
use antipode_persistence::{
    rows::{DispatchRow, Group},
    store::{IndexStore, RunStore},
};
use antipode_proto::core as wire;
use antipode_replicator::selection::StateHash;
use futures::FutureExt;
use prost::Message;

use crate::{region::Region, worker::Held};

/// A name that is the same on every way.
pub type Name = [u8; 16];

/// The one shard of a region that is explored.
pub const SHARD: ShardId = ShardId(1);

/// A run as a region stores it.
#[derive(Clone, Debug)]
pub struct RunView {
    /// Key.
    pub key: RunKey,
    /// Its small row.
    pub head: wire::RunHead,
    /// Its batches in order of commit.
    pub batches: Vec<Arc<Batch>>,
    /// Stored wake-up.
    pub wake: Option<Timestamp>,
}

/// What a region's store holds.
#[derive(Clone, Debug, Default)]
pub struct Snap {
    /// Runs.
    pub runs: BTreeMap<RunId, RunView>,
    /// Current records by workflow id.
    pub currents: BTreeMap<&'static str, wire::CurrentRecord>,
    /// Dispatch index.
    pub dispatch: Vec<DispatchRow>,
    /// Name of the whole region as it is now.
    pub block: Name,
    /// Name of what must be the same in all regions at rest.
    pub shared: Name,
}

/// Reads what a region stores of these workflow ids. None: a store in memory waited or refused a read.
pub fn read(region: &Region, namespace: NamespaceId, workflows: &[&'static str]) -> Option<Snap> {
    let mut snap = Snap::default();
    for workflow in workflows {
        let key = WorkflowKey { namespace, workflow: (*workflow).into() };
        for row in region.store.run_list(SHARD, &key).now_or_never()?.ok()? {
            let stored = region.store.run_load(SHARD, &row.key).now_or_never()?.ok()??;
            let view = RunView {
                head: wire::RunHead::decode(&*stored.row.head).ok()?,
                batches: stored.batches.iter().map(|row| Arc::clone(&row.batch)).collect(),
                wake: stored.row.wake_at,
                key: row.key,
            };
            snap.runs.insert(view.key.run, view);
        }
        if let Some(row) = region.store.current_load(SHARD, &key).now_or_never()?.ok()? {
            snap.currents.insert(workflow, row.record);
        }
    }
    let namespaces = [namespace];
    let backlog = region.store.dispatch_backlog(SHARD, &namespaces, None, Sequence(0), 1_000);
    snap.dispatch = backlog.now_or_never()?.ok()?;
    Some(snap)
}

/// Bytes that are being named.
pub struct Sink(blake3::Hasher);

impl Sink {
    /// Nothing yet.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut sink = Self(blake3::Hasher::new());
        sink.put(kind.as_bytes());
        sink
    }

    /// Bytes, with their length.
    pub fn put(&mut self, bytes: &[u8]) {
        self.num(bytes.len() as i64);
        self.0.update(bytes);
    }

    /// A number.
    pub fn num(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    /// A flag.
    pub fn flag(&mut self, flag: bool) {
        self.0.update(&[u8::from(flag)]);
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> Name {
        let mut name = [0; 16];
        name.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        name
    }
}

/// Names that were given. Every run and batch is named when it is first seen; its name never changes.
#[derive(Debug, Default)]
pub struct Names {
    runs: BTreeMap<RunId, Name>,
    chains: BTreeMap<ChainValue, Name>,
}

impl Names {
    /// Name of a run.
    #[must_use]
    pub fn run(&self, run: RunId) -> Name {
        // One that was never seen keeps its id: two states are then held apart that need not be.
        self.runs.get(&run).copied().unwrap_or(*run.0.as_bytes())
    }

    /// Name of the branch that ends with this chain value.
    #[must_use]
    pub fn chain(&self, chain: ChainValue) -> Name {
        self.chains.get(&chain).copied().unwrap_or(chain.0)
    }

    /// Names what a region stores and what it is writing.
    pub fn learn(&mut self, snap: &Snap, flying: &[&Group]) {
        let stored = || snap.runs.values().flat_map(|run| run.batches.iter());
        let written = || flying.iter().flat_map(|group| group.batches.iter().map(|row| &row.batch));
        for batch in stored().chain(written()) {
            let envelope = &batch.envelope;
            if envelope.first_event.0 == 1 && !self.runs.contains_key(&envelope.run.run) {
                let mut sink = Sink::new("run");
                sink.put(envelope.run.workflow.as_str().as_bytes());
                sink.num(envelope.version.0);
                sink.put(&self.mask(envelope.run.run, &batch.events));
                self.runs.insert(envelope.run.run, sink.name());
            }
        }
        for batch in stored().chain(written()) {
            if !self.chains.contains_key(&batch.chain) {
                let name = self.batch(batch);
                self.chains.insert(batch.chain, name);
            }
        }
    }

    fn batch(&self, batch: &Batch) -> Name {
        let envelope = &batch.envelope;
        let mut sink = Sink::new("batch");
        sink.put(&self.run(envelope.run.run));
        sink.put(&self.chain(envelope.previous));
        sink.num(envelope.first_event.0);
        sink.num(envelope.version.0);
        sink.put(&self.mask(envelope.run.run, &batch.events));
        for entry in &envelope.identities {
            sink.num(entry.event.0);
            self.identity(&mut sink, &entry.identity);
            sink.flag(entry.named_run);
            if let Some((run, version)) = entry.reapplied_from {
                sink.put(&self.run(run));
                sink.num(version.0);
            }
        }
        sink.put(&envelope.successor.map(|run| self.run(run)).unwrap_or_default());
        for identity in envelope.inherited.iter().chain(&envelope.recent) {
            self.identity(&mut sink, identity);
        }
        sink.name()
    }

    fn identity(&self, sink: &mut Sink, identity: &Identity) {
        sink.num(identity.kind as i64);
        match &identity.key {
            Key::Client(key) if identity.kind == ExternalKind::ActivityOutcome => {
                let (at, chain) = key.rsplit_once('/').unwrap_or((key, ""));
                sink.put(&self.mask(RunId(uuid::Uuid::nil()), at.as_bytes()));
                sink.put(&self.chain_of(chain));
            }
            Key::Client(key) => sink.put(&self.mask(RunId(uuid::Uuid::nil()), key.as_bytes())),
            // A program takes at most one keyless request a run and region, so that no more is needed to tell them apart.
            Key::Minted { region, run, ordinal, .. } => {
                sink.num(i64::from(region.0));
                sink.put(&self.run(*run));
                sink.num(i64::from(*ordinal));
            }
        }
    }

    /// Name of the branch whose chain value begins with this; what begins none stays.
    fn chain_of(&self, prefix: &str) -> Vec<u8> {
        let known = self.chains.iter().find(|(chain, _)| chain.to_string().starts_with(prefix));
        known.filter(|_| prefix.len() == 16).map_or_else(|| prefix.into(), |(_, name)| name.to_vec())
    }

    fn anchor_chain(&self, stored: &bytes::Bytes) -> bytes::Bytes {
        let name = ChainValue::from_bytes(stored).map(|chain| self.chain(chain)).unwrap_or_default();
        bytes::Bytes::copy_from_slice(&name)
    }

    fn identity_wire(&self, sink: &mut Sink, identity: Option<&wire::Identity>) {
        if let Some(identity) = identity.and_then(Identity::from_wire) {
            self.identity(sink, &identity);
        }
    }

    /// Replaces run ids, which stand as text in events, by names.
    fn mask(&self, own: RunId, bytes: &[u8]) -> Vec<u8> {
        let mut masked = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            match rest.get(..36).and_then(run_id) {
                Some(run) if run == own => {
                    masked.extend([0; 16]);
                    rest = &rest[36..];
                }
                Some(run) => {
                    masked.extend(self.run(run));
                    rest = &rest[36..];
                }
                None => {
                    masked.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        masked
    }

    fn register(&self, sink: &mut Sink, register: &wire::Register) {
        sink.num(register.anchor_event_id);
        sink.num(register.anchor_version);
        sink.num(i64::from(register.kind));
        let mut rest = wire::Register {
            value: bytes::Bytes::new(),
            anchor_chain: self.anchor_chain(&register.anchor_chain),
            ..register.clone()
        };
        if Kind::from_number(register.kind) == Some(Kind::WorkflowTaskAttempt)
            && let Ok(mut attempt) = wire::WorkflowTaskAttempt::decode(&*register.value)
        {
            if let Some(tip) = ChainValue::from_bytes(&attempt.started_tip) {
                attempt.started_tip = bytes::Bytes::copy_from_slice(&self.chain(tip));
            }
            rest.value = attempt.encode_to_vec().into();
        } else {
            rest.value = register.value.clone();
        }
        sink.put(&self.mask(RunId(uuid::Uuid::nil()), &rest.encode_to_vec()));
    }

    /// Pending events in the order in which they will be written.
    fn pending(&self, sink: &mut Sink, pending: &[wire::PendingEvent]) {
        let place = |event: &wire::PendingEvent| {
            event.accepted.as_ref().map_or((0, 0), |place| (place.epoch, place.sequence))
        };
        let mut pending: Vec<_> = pending.iter().collect();
        pending.sort_by_key(|event| (event.accepted_version, place(event)));
        for event in pending {
            self.identity_wire(sink, event.identity.as_ref());
            sink.put(&self.mask(RunId(uuid::Uuid::nil()), &event.events));
            sink.flag(event.named_run);
            sink.num(event.anchor_event_id);
            sink.num(event.anchor_version);
            sink.put(&self.anchor_chain(&event.anchor_chain));
            sink.num(event.accepted_version);
            sink.num(i64::from(event.accepted_region));
        }
    }

    /// What of a run must be the same everywhere at rest.
    fn run_shared(&self, sink: &mut Sink, run: &RunView) {
        sink.put(&self.run(run.key.run));
        sink.put(&run.head.first_run_id.parse().map(|first| self.run(first)).unwrap_or_default());
        let tips = run.head.branches.iter().filter_map(|branch| ChainValue::from_bytes(&branch.chain));
        let mut tips: Vec<_> = tips.map(|tip| self.chain(tip)).collect();
        tips.sort_unstable();
        for tip in tips {
            sink.put(&tip);
        }
        for register in &run.head.registers {
            self.register(sink, register);
        }
        self.pending(sink, &run.head.pending);
        self.verdicts(sink, &run.head.unclaimed);
    }

    /// Verdicts, whenever they were given.
    fn verdicts(&self, sink: &mut Sink, verdicts: &[wire::Unclaimed]) {
        let mut names: Vec<_> = verdicts
            .iter()
            .map(|record| {
                let mut sink = Sink::new("verdict");
                self.identity_wire(&mut sink, record.identity.as_ref());
                sink.num(record.version);
                sink.put(record.verdict.as_bytes());
                sink.put(&record.basis_run_id.parse().map(|run| self.run(run)).unwrap_or_default());
                let chain = ChainValue::from_bytes(&record.basis_chain);
                sink.put(&chain.map(|chain| self.chain(chain)).unwrap_or_default());
                sink.name()
            })
            .collect();
        names.sort_unstable();
        for name in names {
            sink.put(&name);
        }
    }

    fn sorted<'a>(&self, snap: &'a Snap) -> Vec<&'a RunView> {
        let mut runs: Vec<_> = snap.runs.values().collect();
        runs.sort_by_key(|run| self.run(run.key.run));
        runs
    }

    /// Name of what must be the same in all regions at rest: runs, branches, registers, pending sets, owners.
    #[must_use]
    pub fn shared(&self, snap: &Snap) -> Name {
        let mut sink = Sink::new("shared");
        for run in self.sorted(snap) {
            self.run_shared(&mut sink, run);
        }
        for (workflow, record) in &snap.currents {
            sink.put(workflow.as_bytes());
            self.current(&mut sink, record);
        }
        sink.name()
    }

    fn current(&self, sink: &mut Sink, record: &wire::CurrentRecord) {
        sink.put(&record.run_id.parse().map(|run| self.run(run)).unwrap_or_default());
        sink.num(record.version);
        sink.flag(record.open);
        sink.num(i64::from(record.status));
    }

    /// Name of a region as it is now: record, store, offers, what is being written, and what it has heard.
    #[must_use]
    pub fn block(
        &self,
        region: &Region,
        snap: &Snap,
        received: &BTreeMap<RunId, StateHash>,
        waiting: &[usize],
    ) -> Name {
        let mut sink = Sink::new("region");
        sink.put(&region.record.to_wire().encode_to_vec());
        for run in self.sorted(snap) {
            self.run_shared(&mut sink, run);
            sink.num(run.wake.map_or(-1, |wake| wake.0));
            sink.flag(received.get(&run.key.run).is_some_and(|hash| *hash == state_hash(run)));
        }
        self.places(&mut sink, snap.runs.values().flat_map(|run| run.batches.iter()));
        for (workflow, record) in &snap.currents {
            sink.put(workflow.as_bytes());
            self.current(&mut sink, record);
        }
        for row in &snap.dispatch {
            sink.put(&self.run(row.key.run));
            sink.num(row.kind as i64);
        }
        for offer in &region.offers {
            sink.put(&self.run(offer.key.run));
            sink.flag(offer.kind == TaskKind::Workflow);
            for number in [offer.task.scheduled.0, offer.task.version.0, i64::from(offer.task.attempt)] {
                sink.num(number);
            }
            sink.flag(offer.sticky);
        }
        for group in region.groups_in_flight() {
            for row in &group.batches {
                sink.put(&self.chain(row.batch.chain));
            }
            for row in &group.runs {
                if let Ok(head) = wire::RunHead::decode(&*row.head) {
                    let batches = Vec::new();
                    let view = RunView { key: row.key.clone(), head, batches, wake: row.wake_at };
                    self.run_shared(&mut sink, &view);
                }
            }
        }
        // Who waits for an answer, in the order of asking: what gathers behind the commit in flight follows from it.
        for actor in waiting {
            sink.num(i64::try_from(*actor).unwrap_or(-1));
        }
        sink.name()
    }

    /// The order of writing decides between runs of one version (B7): order, not the numbers.
    fn places<'a>(&self, sink: &mut Sink, batches: impl Iterator<Item = &'a Arc<Batch>>) {
        let mut places: Vec<_> = batches
            .map(|batch| (batch.envelope.version, batch.envelope.place, self.chain(batch.chain)))
            .collect();
        places.sort_unstable();
        for (_, _, chain) in places {
            sink.put(&chain);
        }
    }

    /// An entry on its way.
    pub fn entry(&self, sink: &mut Sink, entry: &Replicated) {
        match entry {
            Replicated::Batch(batch) | Replicated::Last(batch) => sink.put(&self.chain(batch.chain)),
            Replicated::State(state) => {
                sink.put(&state.run_id.parse().map(|run| self.run(run)).unwrap_or_default());
                for register in &state.registers {
                    self.register(sink, register);
                }
                self.pending(sink, &state.pending);
                self.verdicts(sink, &state.verdicts);
                let tip = ChainValue::from_bytes(&state.tip_chain);
                sink.put(&tip.map(|tip| self.chain(tip)).unwrap_or_default());
            }
        }
    }

    /// A task in a worker's hand.
    pub fn held(&self, sink: &mut Sink, held: &Held) {
        let token = &held.token;
        sink.put(&self.run(token.key.run));
        let task = &token.task;
        for number in [
            task.scheduled.0,
            task.version.0,
            i64::from(task.attempt),
            i64::from(task.stamp),
            token.started.0,
            token.start_version.0,
            held.events.len() as i64,
        ] {
            sink.num(number);
        }
        sink.put(&self.chain(token.tip));
    }
}

/// Registers, pending events and verdicts of a stored run, as the links compare them.
#[must_use]
pub fn state_hash(run: &RunView) -> StateHash {
    StateHash::of(&wire::RunState {
        registers: run.head.registers.clone(),
        pending: run.head.pending.clone(),
        verdicts: run.head.unclaimed.clone(),
        came_back: run.head.came_back,
        ..wire::RunState::default()
    })
}

fn run_id(text: &[u8]) -> Option<RunId> {
    let dashes = [8, 13, 18, 23].iter().all(|at| text.get(*at) == Some(&b'-'));
    if !dashes {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
