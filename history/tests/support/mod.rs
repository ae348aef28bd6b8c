//! Regions of one shard over a store in memory, driven by hand; every group is durable at once.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use antipode_conflict::Judgement;
use std::collections::{BTreeMap, BTreeSet};

use antipode_core::ids::{
    FailoverVersion, Incarnation, NamespaceId, Nanos, RegionId, RunId, RunKey, Sequence, ShardId, Timestamp,
    WorkflowKey,
};
use antipode_history::{
    api::{Applied, HistoryRequest, Offer, Operation, PollInfo, Refusal, Replicated, Reply, Request, Taken},
    shard::{
        BACKLOG_PAGE, Event, Load, Loaded, NamespaceView, OBLIGATION_PAGE, Output, Proof, Setting, Shard,
        Token,
    },
    token,
};
use antipode_persistence::{
    MemoryStore,
    rows::{Identity, LogEntry},
    store::{IndexStore, RunStore, ShardStore, VisibilityStore},
};
use antipode_proto::{
    api::{
        command::v1::{self as command, command::Attributes},
        common::v1::WorkflowType,
        enums::v1::{CommandType, WorkflowIdReusePolicy as Reuse},
        history::v1 as history,
        taskqueue::v1::TaskQueue,
        workflowservice::v1 as ws,
    },
    core as wire,
};
use futures::FutureExt;
use prost::Message;

pub(crate) const SHARD: ShardId = ShardId(1);
pub(crate) const HOUR: i64 = 3_600_000_000_000;
pub(crate) const DAY: i64 = 24 * HOUR;

#[derive(Clone, Copy)]
pub(crate) struct Ticket;

impl Token for Ticket {}

pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::from_random([7; 16])
}

pub(crate) fn workflow() -> WorkflowKey {
    WorkflowKey { namespace: namespace(), workflow: "order".into() }
}

/// The namespace as a region sees it: writable under a version or not, with these other regions; closed runs are kept an hour.
pub(crate) fn view(version: i64, writable: bool, others: &[&str]) -> NamespaceView {
    NamespaceView {
        id: namespace(),
        name: "orders".to_string(),
        writable: writable.then_some(FailoverVersion(version)),
        version: FailoverVersion(version),
        draining: false,
        active: String::new(),
        retention: Nanos(HOUR),
        others: others.iter().map(ToString::to_string).collect(),
    }
}

/// One region with one shard; every group is durable at once.
pub(crate) struct Region {
    pub(crate) id: u32,
    pub(crate) store: MemoryStore,
    pub(crate) shard: Shard<Ticket>,
    pub(crate) view: NamespaceView,
    pub(crate) now: Timestamp,
    pub(crate) answers: Vec<Result<Reply, Refusal>>,
    pub(crate) applied: Vec<Applied>,
    pub(crate) events: BTreeMap<Event, u64>,
    pub(crate) offered: BTreeSet<RunId>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) may_break: bool,
    pub(crate) told: Vec<(RunKey, Judgement)>,
}

impl Region {
    pub(crate) fn new(id: u32, view: NamespaceView) -> Self {
        let store = MemoryStore::new(Identity {
            region: format!("region-{id}"),
            initial: id,
            increment: 10,
            shards: 1,
            cluster_id: String::new(),
            incarnation: Incarnation(u64::from(id)),
        });
        let now = Timestamp(1_000 * DAY);
        let shard = acquire(&store, id, &view, now);
        Self {
            id,
            store,
            shard,
            view,
            now,
            answers: Vec::new(),
            applied: Vec::new(),
            told: Vec::new(),
            events: BTreeMap::new(),
            offered: BTreeSet::new(),
            offers: Vec::new(),
            may_break: false,
        }
    }

    /// Loses its memory.
    pub(crate) fn crash(&mut self) {
        self.shard = acquire(&self.store, self.id, &self.view, self.now);
    }

    pub(crate) fn set(&mut self, view: NamespaceView) {
        self.view = view;
        self.shard.namespace(self.view.clone(), self.now);
        self.pump();
    }

    pub(crate) fn pump(&mut self) {
        loop {
            self.shard.flush();
            let outputs = self.shard.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Load(load) => {
                        let loaded = read(&self.store, &load);
                        self.shard.loaded(self.now, &load, loaded);
                    }
                    Output::Commit(group) => {
                        now(self.store.shard_commit(group)).unwrap();
                        self.shard.committed(self.now);
                    }
                    Output::Answer(_, answer) => self.answers.push(answer),
                    Output::Applied(_, applied) => self.applied.extend(applied),
                    Output::Offer(offer) => {
                        self.offered.insert(offer.key.run);
                        self.shard.offered(self.now, &offer, Taken::Yes);
                        self.offers.push(offer);
                    }
                    Output::Count(event) => *self.events.entry(event).or_default() += 1,
                    Output::Broken(why) => assert!(self.may_break, "{why}"),
                    Output::Judged(run, judgement) => self.told.push((run, *judgement)),
                    Output::Barrier(..) | Output::Discarded { .. } | Output::Alarm(..) => {}
                }
            }
        }
    }

    /// Lets time pass, with every tick the shard asks for.
    pub(crate) fn pass(&mut self, nanos: i64) {
        let end = self.now.plus(Nanos(nanos));
        while self.shard.wake_at() <= end {
            self.now = self.now.max(self.shard.wake_at());
            self.shard.tick(self.now);
            self.pump();
        }
        self.now = end;
    }

    pub(crate) fn ask(&mut self, run: Option<RunId>, operation: Operation) -> Result<Reply, Refusal> {
        self.shard.request(self.now, Ticket, Request { workflow: workflow(), run, operation });
        self.pump();
        self.answers.pop().unwrap()
    }

    pub(crate) fn try_start(&mut self, reuse: Reuse) -> Result<RunId, Refusal> {
        let start = ws::StartWorkflowExecutionRequest {
            workflow_id: "order".to_string(),
            workflow_type: Some(WorkflowType { name: "Order".to_string() }),
            task_queue: Some(TaskQueue { name: "orders".to_string(), ..Default::default() }),
            workflow_id_reuse_policy: reuse as i32,
            ..Default::default()
        };
        match self.ask(None, Operation::Start(Box::new(start)))? {
            Reply::Start(reply) => Ok(reply.run_id.parse().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self) -> RunId {
        self.try_start(Reuse::Unspecified).unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        let signal = ws::SignalWorkflowExecutionRequest {
            signal_name: name.to_string(),
            request_id: name.to_string(),
            ..Default::default()
        };
        self.ask(None, Operation::Signal(Box::new(signal))).unwrap();
    }

    pub(crate) fn terminate(&mut self) {
        self.ask(None, Operation::Terminate(Box::default())).unwrap();
    }

    /// A worker takes the task that was offered last and continues the run as a new one, which is given.
    pub(crate) fn continue_as_new(&mut self) -> RunId {
        let offer = self.offers.pop().unwrap();
        let poll = PollInfo { request_id: "poll".to_string(), ..PollInfo::default() };
        let begin = Operation::WorkflowTaskStart { task: offer.task, poll };
        let Reply::WorkflowTask(task, _) = self.ask(Some(offer.key.run), begin).unwrap() else {
            panic!("no task")
        };
        let token = token::decode(&task.task_token).unwrap();
        let attributes = command::ContinueAsNewWorkflowExecutionCommandAttributes {
            workflow_type: Some(WorkflowType { name: "Order".to_string() }),
            ..Default::default()
        };
        let completed = ws::RespondWorkflowTaskCompletedRequest {
            commands: vec![command::Command {
                command_type: CommandType::ContinueAsNewWorkflowExecution as i32,
                attributes: Some(Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(attributes)),
                ..Default::default()
            }],
            ..Default::default()
        };
        let complete = Operation::WorkflowTaskCompleted(token, Box::new(completed));
        self.ask(Some(offer.key.run), complete).unwrap();
        self.current().unwrap()
    }

    pub(crate) fn describe(&mut self, run: Option<RunId>) -> Result<(), Refusal> {
        self.ask(run, Operation::Describe).map(drop)
    }

    /// Names of the signals in a run's history.
    pub(crate) fn signals(&mut self, run: RunId) -> Vec<String> {
        let wanted = HistoryRequest { page_size: 1_000, ..Default::default() };
        let Reply::History(page) = self.ask(Some(run), Operation::History(wanted)).unwrap() else {
            panic!("no history")
        };
        let events = history::History::decode(&*page.events).unwrap().events;
        let name = |event: history::HistoryEvent| match event.attributes {
            Some(history::history_event::Attributes::WorkflowExecutionSignaledEventAttributes(signal)) => {
                Some(signal.signal_name)
            }
            _ => None,
        };
        events.into_iter().filter_map(name).collect()
    }

    pub(crate) fn apply(&mut self, entries: Vec<Replicated>) -> Vec<Applied> {
        self.shard.apply(self.now, Ticket, entries);
        self.pump();
        std::mem::take(&mut self.applied)
    }

    /// Takes everything in, one entry at a time.
    pub(crate) fn take_all(&mut self, entries: Vec<Replicated>) {
        for entry in entries {
            let applied = self.apply(vec![entry]);
            assert!(matches!(applied[..], [Applied::Applied(_) | Applied::Duplicate]), "{applied:?}");
        }
    }

    /// What the region's log holds after a position.
    pub(crate) fn log(&self, after: u64) -> Vec<Replicated> {
        let page = now(self.store.log_read(SHARD, Sequence(after), usize::MAX)).unwrap();
        let batch = |entry| match entry {
            LogEntry::Batch(row) => Some(Replicated::Batch(row.batch)),
            LogEntry::Run(_) => None,
        };
        page.entries.into_iter().filter_map(batch).collect()
    }

    pub(crate) fn tip(&self) -> Sequence {
        self.shard.durable()
    }

    pub(crate) fn prove(&mut self, peer: &str, proof: Proof) {
        self.shard.proof(self.now, peer, proof);
    }

    /// A peer proves everything.
    pub(crate) fn prove_all(&mut self, peer: &str) {
        let through = self.tip();
        self.prove(peer, Proof { through, ..Proof::default() });
    }

    pub(crate) fn counted(&self, event: Event) -> u64 {
        self.events.get(&event).copied().unwrap_or(0)
    }

    /// The stored head of a run, and how many batches are stored.
    pub(crate) fn stored(&self, run: RunId) -> Option<(wire::RunHead, usize)> {
        let stored = now(self.store.run_load(SHARD, &workflow().run(run))).unwrap()?;
        Some((wire::RunHead::decode(&*stored.row.head).unwrap(), stored.batches.len()))
    }

    /// Nothing but a tombstone is stored.
    pub(crate) fn is_tombstone(&self, run: RunId) -> bool {
        let key = workflow().run(run);
        let visible = now(self.store.visibility_get(&key)).unwrap().is_some();
        self.stored(run).is_some_and(|(head, batches)| head.deleted.is_some() && batches == 0) && !visible
    }

    pub(crate) fn current(&self) -> Option<RunId> {
        let row = now(self.store.current_load(SHARD, &workflow())).unwrap()?;
        Some(row.record.run_id.parse().unwrap())
    }
}

pub(crate) fn acquire(store: &MemoryStore, id: u32, view: &NamespaceView, at: Timestamp) -> Shard<Ticket> {
    let acquired = now(store.shard_acquire(SHARD, "test")).unwrap();
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&id.to_le_bytes());
    seed[4..12].copy_from_slice(&acquired.range.0.to_le_bytes());
    let setting = Setting {
        shard: SHARD,
        region: RegionId(id),
        region_name: format!("region-{id}"),
        incarnation: Incarnation(u64::from(id)),
        cache_bytes: 1 << 20,
        seed,
    };
    Shard::new(setting, acquired, vec![view.clone()], at)
}

pub(crate) fn read(store: &MemoryStore, load: &Load) -> Loaded {
    match load {
        Load::Workflow(key) => {
            let current = now(store.current_load(SHARD, key)).unwrap();
            let run = current.as_ref().map(|row| row.record.run_id.parse().unwrap());
            Loaded::Workflow(current, run.and_then(|run| now(store.run_load(SHARD, &key.run(run))).unwrap()))
        }
        Load::Run(key) => Loaded::Run(now(store.run_load(SHARD, key)).unwrap()),
        Load::Runs(key) => Loaded::Runs(now(store.run_list(SHARD, key)).unwrap()),
        Load::Due { namespaces, until } => {
            Loaded::Due(now(store.wake_due(SHARD, namespaces, *until, 1_000)).unwrap())
        }
        Load::Obligations { until } => {
            Loaded::Obligations(now(store.obligation_due(SHARD, *until, OBLIGATION_PAGE)).unwrap())
        }
        Load::Backlog { namespaces, queue, after } => {
            let queue = queue.as_ref().map(|(name, kind)| (name.as_str(), *kind));
            let rows = store.dispatch_backlog(SHARD, namespaces, queue, *after, BACKLOG_PAGE);
            Loaded::Backlog(now(rows).unwrap())
        }
    }
}

pub(crate) fn key_of(entry: &Replicated) -> RunKey {
    match entry {
        Replicated::Batch(batch) | Replicated::Last(batch) => batch.envelope.run.clone(),
        Replicated::State(_) => panic!("a state"),
    }
}

/// East, active under 1, with a run of two signals that has ended and one that goes on; west has all of it.
pub(crate) fn two_runs() -> (Region, Region, RunId, RunId) {
    let (mut east, mut west) = pair();
    let first = east.start();
    east.signal("x");
    east.signal("y");
    east.terminate();
    let second = east.start();
    west.take_all(east.log(0));
    (east, west, first, second)
}

pub(crate) fn pair() -> (Region, Region) {
    (Region::new(1, view(1, true, &["west"])), Region::new(2, view(1, false, &["east"])))
}
