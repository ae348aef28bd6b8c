//! A shard that knows only what links need: it appends batches along their chain, merges registers by their order, commits
//! through the real store under its fence, and answers as the real one does. Tests give it work and look at what it holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use antipode_core::{
    batch::{Batch, Envelope, Origin},
    chain::ChainValue,
    ids::{
        EventId, FailoverVersion, Incarnation, Place, RangeId, RegionId, RunId, RunKey, Sequence, ShardId,
    },
    refusal::Refusal,
    version_history::{Item, VersionHistory},
};
use antipode_history::{
    api::{Applied, Operation, Replicated, Reply, Request},
    client::{Client, ShardHandle},
    host::Command,
    namespaces::Namespaces,
    shard::Proof,
};
use antipode_persistence::{
    memory::MemoryStore,
    rows::{BatchRow, Group, RunRow},
    store::{RegionStore, ShardStore},
};
use antipode_proto::{api::history::v1::HistoryEvent, core as wire};
use prost::Message;
use tokio::sync::{mpsc, watch};

/// What a run holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Run {
    /// Chain values of its batches, in order of event id.
    pub(crate) chains: Vec<ChainValue>,
    batches: Vec<Arc<Batch>>,
    registers: BTreeMap<(i64, i64, u32), wire::Register>,
}

impl Run {
    /// Registers as (anchor, order version, order count).
    pub(crate) fn registers(&self) -> Vec<(i64, i64, u64)> {
        let values = self.registers.values();
        values.map(|value| (value.anchor_event_id, value.order_version, value.order_count)).collect()
    }

    fn tip(&self) -> VersionHistory {
        self.batches.last().map(|batch| batch.envelope.items.clone()).unwrap_or_default()
    }
}

/// What all shards of a node hold, for the tests' eyes.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) runs: BTreeMap<RunKey, Run>,
    /// Batches in the order in which they were applied here.
    pub(crate) order: Vec<(RunId, i64)>,
    /// Runs whose entries are refused so many times with `Retry`.
    pub(crate) retries: BTreeMap<RunId, u32>,
    /// Verdicts other than success, by name.
    pub(crate) verdicts: BTreeMap<&'static str, u32>,
    /// Runs that count as broken: every entry is poison.
    pub(crate) broken: BTreeSet<RunId>,
    /// What each shard was told of a peer's proof (C6).
    pub(crate) proofs: BTreeMap<(ShardId, String), Proof>,
    /// Entries offered, also repeated ones.
    pub(crate) offered: u32,
}

/// The shards of one node.
#[derive(Clone)]
pub(crate) struct Shards {
    pub(crate) held: Arc<Mutex<Held>>,
    writers: Vec<mpsc::Sender<Write>>,
    pub(crate) client: Client,
}

enum Write {
    Events {
        key: RunKey,
        count: i64,
        successor: Option<RunId>,
        done: tokio::sync::oneshot::Sender<Result<(), Refusal>>,
    },
    Register {
        key: RunKey,
        count: u64,
        done: tokio::sync::oneshot::Sender<Result<(), Refusal>>,
    },
}

struct Shard {
    id: ShardId,
    store: Arc<MemoryStore>,
    namespaces: Arc<Namespaces>,
    held: Arc<Mutex<Held>>,
    range: RangeId,
    sequence: Sequence,
    committed: watch::Sender<Sequence>,
}

impl Shards {
    pub(crate) async fn start(store: &Arc<MemoryStore>, namespaces: &Arc<Namespaces>) -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let (mut handles, mut writers) = (Vec::new(), Vec::new());
        for id in (1..=store.identity().shards).map(ShardId) {
            let acquired = store.shard_acquire(id, "test").await.unwrap();
            let (committed, watch) = watch::channel(acquired.sequence);
            let (commands, inbox) = mpsc::channel(64);
            let (writer, writes) = mpsc::channel(64);
            let shard = Shard {
                id,
                store: Arc::clone(store),
                namespaces: Arc::clone(namespaces),
                held: Arc::clone(&held),
                range: acquired.range,
                sequence: acquired.sequence,
                committed,
            };
            tokio::spawn(shard.run(inbox, writes));
            handles.push(ShardHandle { commands, committed: watch });
            writers.push(writer);
        }
        let client = Client::new(handles);
        let told = client.clone();
        namespaces.attach(move |id| {
            let client = told.clone();
            async move { client.namespace_changed(id).await }
        });
        Self { held, writers, client }
    }

    async fn ask(
        &self,
        key: &RunKey,
        write: impl FnOnce(tokio::sync::oneshot::Sender<Result<(), Refusal>>) -> Write,
    ) -> Result<(), Refusal> {
        let shard = self.client.shard_of(&key.workflow_key());
        let (done, answered) = tokio::sync::oneshot::channel();
        let writer = &self.writers[usize::try_from(shard.0 - 1).unwrap()];
        writer.send(write(done)).await.map_err(|_| Refusal::Unavailable("stopped".into()))?;
        answered.await.unwrap()
    }

    /// Appends a batch of so many events to a run, as its active region does.
    pub(crate) async fn append(&self, key: &RunKey, count: i64) -> Result<(), Refusal> {
        self.ask(key, |done| Write::Events { key: key.clone(), count, successor: None, done }).await
    }

    /// Closes a run and starts its successor in one transition.
    pub(crate) async fn continue_as_new(&self, key: &RunKey, successor: RunId) -> Result<(), Refusal> {
        self.ask(key, |done| Write::Events { key: key.clone(), count: 1, successor: Some(successor), done })
            .await
    }

    /// Sets the register of a run's first event.
    pub(crate) async fn heartbeat(&self, key: &RunKey, count: u64) -> Result<(), Refusal> {
        self.ask(key, |done| Write::Register { key: key.clone(), count, done }).await
    }

    pub(crate) fn run(&self, key: &RunKey) -> Option<Run> {
        self.held.lock().unwrap().runs.get(key).cloned()
    }

    pub(crate) fn offered(&self) -> u32 {
        self.held.lock().unwrap().offered
    }
}

impl Shard {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, mut writes: mpsc::Receiver<Write>) {
        loop {
            tokio::select! {
                Some(write) = writes.recv() => match write {
                    Write::Events { key, count, successor, done } => {
                        let _ = done.send(self.write_events(&key, count, successor).await);
                    }
                    Write::Register { key, count, done } => {
                        let _ = done.send(self.write_register(&key, count).await);
                    }
                },
                command = inbox.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.step(command).await,
                },
            }
        }
    }

    async fn step(&mut self, command: Command) {
        match command {
            Command::Apply { entries, answer } => {
                let mut answers = Vec::new();
                for entry in entries {
                    answers.push(self.apply(entry).await);
                }
                let _ = answer.send(answers);
            }
            Command::Barrier { namespace, answer } => {
                let frozen =
                    self.namespaces.by_id(namespace).is_some_and(|entry| entry.writable_version().is_none());
                let _ = answer.send(match frozen {
                    true => {
                        self.commit(Vec::new(), Vec::new()).await;
                        Ok(self.sequence)
                    }
                    false => Err(Refusal::Unavailable("not draining".into())),
                });
            }
            Command::NamespaceChanged { answer, .. } => {
                let _ = answer.send(());
            }
            Command::Proof { peer, proof } => {
                self.held.lock().unwrap().proofs.insert((self.id, peer), proof);
            }
            Command::Request { request, answer } => {
                let _ = answer.send(self.answer(&request));
            }
            _ => {}
        }
    }

    fn answer(&self, request: &Request) -> Result<Reply, Refusal> {
        let Operation::Fetch { known, .. } = &request.operation else {
            return Err(Refusal::Unimplemented("this".into()));
        };
        let key = request.workflow.run(request.run.unwrap());
        let held = self.held.lock().unwrap();
        let run = held.runs.get(&key).ok_or_else(|| Refusal::NotFound("no such run".into()))?;
        let after = known.last().map_or(0, |item| item.event.0);
        let batches = run.batches.iter().filter(|batch| batch.envelope.first_event.0 > after).cloned();
        Ok(Reply::Fetched { batches: batches.collect(), state: Box::new(state(&key, run)) })
    }

    fn version(&self, key: &RunKey) -> Result<FailoverVersion, Refusal> {
        let entry = self.namespaces.by_id(key.namespace);
        entry.and_then(|entry| entry.writable_version()).ok_or(Refusal::Draining(key.namespace))
    }

    async fn write_events(
        &mut self,
        key: &RunKey,
        count: i64,
        successor: Option<RunId>,
    ) -> Result<(), Refusal> {
        let version = self.version(key)?;
        let sequence = self.sequence.next();
        let run = self.held.lock().unwrap().runs.get(key).cloned().unwrap_or_default();
        let mut batches = vec![Arc::new(self.seal(key, &run, count, version, sequence, successor))];
        if let Some(successor) = successor {
            let next = RunKey { run: successor, ..key.clone() };
            batches.push(Arc::new(self.seal(&next, &Run::default(), 1, version, sequence.next(), None)));
        }
        self.store_batches(batches, Vec::new()).await;
        Ok(())
    }

    fn seal(
        &self,
        key: &RunKey,
        run: &Run,
        count: i64,
        version: FailoverVersion,
        sequence: Sequence,
        successor: Option<RunId>,
    ) -> Batch {
        let tip = run.tip();
        let first = tip.last().map_or(1, |item| item.event.0 + 1);
        let last = first + count - 1;
        let item = Item { event: EventId(last), version };
        let events: Vec<_> = (first..=last)
            .map(|event_id| HistoryEvent { event_id, version: version.0, ..HistoryEvent::default() })
            .collect();
        let identity = self.store.identity();
        Batch::seal(
            Envelope {
                run: key.clone(),
                first_run: key.run,
                first_event: EventId(first),
                last_event: EventId(last),
                version,
                previous: run.chains.last().copied().unwrap_or(ChainValue::NONE),
                items: tip.with(item).unwrap(),
                origin: Origin {
                    region: RegionId(identity.initial),
                    incarnation: Incarnation(identity.incarnation.0),
                    shard: self.id,
                    sequence,
                },
                place: Place { epoch: self.range.0, sequence: sequence.0 },
                causal: sequence.0,
                identities: vec![],
                successor,
                inherited: vec![],
                recent: vec![],
                fold_version: 1,
                clock: None,
            },
            &events,
        )
    }

    async fn write_register(&mut self, key: &RunKey, count: u64) -> Result<(), Refusal> {
        let version = self.version(key)?;
        let register = wire::Register {
            anchor_event_id: 1,
            anchor_version: 1,
            kind: 1,
            order_version: version.0,
            order_count: count,
            ..wire::Register::default()
        };
        self.store_batches(Vec::new(), vec![(key.clone(), vec![register])]).await;
        Ok(())
    }

    async fn apply(&mut self, entry: Replicated) -> Applied {
        let verdict = self.judge(entry).await;
        let name = match &verdict {
            Applied::Applied(_) => "applied",
            Applied::Duplicate => "duplicate",
            Applied::NeedEvents { .. } => "need_events",
            Applied::Poison(_) => "poison",
            Applied::Retry(_) => "retry",
        };
        *self.held.lock().unwrap().verdicts.entry(name).or_default() += 1;
        verdict
    }

    async fn judge(&mut self, entry: Replicated) -> Applied {
        let key = match &entry {
            Replicated::Batch(batch) | Replicated::Last(batch) => batch.envelope.run.clone(),
            Replicated::State(state) => RunKey {
                namespace: state.namespace_id.parse().unwrap(),
                workflow: state.workflow_id.as_str().into(),
                run: state.run_id.parse().unwrap(),
            },
        };
        let run = {
            let mut held = self.held.lock().unwrap();
            held.offered += 1;
            if let Some(left) = held.retries.get_mut(&key.run)
                && *left > 0
            {
                *left -= 1;
                return Applied::Retry("not now".into());
            }
            if held.broken.contains(&key.run) {
                return Applied::Poison("broken on purpose".into());
            }
            held.runs.get(&key).cloned().unwrap_or_default()
        };
        match entry {
            Replicated::Batch(batch) | Replicated::Last(batch) => {
                if run.chains.contains(&batch.chain) {
                    return Applied::Duplicate;
                }
                if batch.envelope.previous != run.chains.last().copied().unwrap_or(ChainValue::NONE) {
                    return Applied::NeedEvents {
                        key,
                        known: run.tip(),
                        until: Some(batch.envelope.previous),
                    };
                }
                if let Some(successor) = batch.envelope.successor {
                    let next = RunKey { run: successor, ..key.clone() };
                    if !self.held.lock().unwrap().runs.contains_key(&next) {
                        return Applied::NeedEvents {
                            key: next,
                            known: VersionHistory::default(),
                            until: None,
                        };
                    }
                }
                self.store_batches(vec![batch], Vec::new()).await;
            }
            Replicated::State(state) => {
                if run.chains.is_empty() {
                    return Applied::NeedEvents { key, known: VersionHistory::default(), until: None };
                }
                let news = state
                    .registers
                    .into_iter()
                    .filter(|register| is_news(&run, register))
                    .collect::<Vec<_>>();
                if news.is_empty() {
                    return Applied::Duplicate;
                }
                self.store_batches(Vec::new(), vec![(key, news)]).await;
            }
        }
        Applied::Applied(self.sequence)
    }

    async fn store_batches(
        &mut self,
        batches: Vec<Arc<Batch>>,
        registers: Vec<(RunKey, Vec<wire::Register>)>,
    ) {
        let mut keys: Vec<RunKey> = registers.iter().map(|(key, _)| key.clone()).collect();
        {
            let mut held = self.held.lock().unwrap();
            for batch in &batches {
                let key = &batch.envelope.run;
                held.order.push((key.run, batch.envelope.first_event.0));
                let run = held.runs.entry(key.clone()).or_default();
                run.chains.push(batch.chain);
                run.batches.push(Arc::clone(batch));
                keys.push(key.clone());
            }
            for (key, registers) in registers {
                let run = held.runs.entry(key).or_default();
                for register in registers {
                    let slot = (register.anchor_event_id, register.anchor_version, register.kind);
                    run.registers.insert(slot, register);
                }
            }
        }
        keys.sort();
        keys.dedup();
        self.commit(batches, keys).await;
    }

    async fn commit(&mut self, batches: Vec<Arc<Batch>>, keys: Vec<RunKey>) {
        let after = self.sequence;
        let mut through = after;
        let mut rows = Vec::new();
        for batch in batches {
            through = through.next();
            rows.push(BatchRow { sequence: through, batch });
        }
        if rows.is_empty() {
            through = through.next();
        }
        let runs = keys.iter().map(|key| {
            let run = self.held.lock().unwrap().runs.get(key).cloned().unwrap_or_default();
            let head = wire::RunHead {
                branches: vec![wire::Branch { items: run.tip().to_wire(), ..wire::Branch::default() }],
                registers: run.registers.values().cloned().collect(),
                ..wire::RunHead::default()
            };
            RunRow { key: key.clone(), changed_at: through, wake_at: None, head: head.encode_to_vec().into() }
        });
        let group = Group {
            shard: self.id,
            range: self.range,
            after,
            through,
            batches: rows,
            runs: runs.collect(),
            ..Group::default()
        };
        self.store.shard_commit(group).await.unwrap();
        self.sequence = through;
        self.committed.send_replace(through);
    }
}

fn is_news(run: &Run, register: &wire::Register) -> bool {
    let slot = (register.anchor_event_id, register.anchor_version, register.kind);
    run.registers.get(&slot).is_none_or(|known| {
        (register.order_version, register.order_count) > (known.order_version, known.order_count)
    })
}

fn state(key: &RunKey, run: &Run) -> wire::RunState {
    wire::RunState {
        namespace_id: key.namespace.to_string(),
        workflow_id: key.workflow.to_string(),
        run_id: key.run.to_string(),
        registers: run.registers.values().cloned().collect(),
        ..wire::RunState::default()
    }
}
