//! The tokio side of the shards: one task a shard. It only waits, chooses and carries out: everything that decides is in
//! the machine (STYLE 7). A shard is acquired, driven until its ownership breaks, and acquired anew (D2).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use antipode_core::{
    clocks::Clocks,
    ids::{NamespaceId, Nanos, RegionId, Sequence, ShardId, Timestamp},
    namespace::Standing,
};
use antipode_env::{Clock, Entropy};
use antipode_persistence::{CommitError, Store};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    api::{Applied, Dispatcher, Refusal, Replicated, Reply, Request, TaskKind},
    client::{Client, ShardHandle},
    metrics::Metrics,
    namespaces::{Entry, Namespaces},
    shard::{
        BACKLOG_PAGE, Load, Loaded, NamespaceView, OBLIGATION_PAGE, Output, Proof, Setting, Shard, Token,
    },
};

/// What a shard's host takes in, in order.
#[derive(Debug)]
pub enum Command {
    /// A request and where its answer goes.
    Request {
        /// The request.
        request: Request,
        /// Its answer, once durable.
        answer: oneshot::Sender<Result<Reply, Refusal>>,
    },
    /// Replicated entries, in order.
    Apply {
        /// The entries.
        entries: Vec<Replicated>,
        /// What became of each.
        answer: oneshot::Sender<Vec<Applied>>,
    },
    /// Commit a barrier for a draining namespace (F2).
    Barrier {
        /// The namespace.
        namespace: NamespaceId,
        /// Position of the barrier.
        answer: oneshot::Sender<Result<Sequence, Refusal>>,
    },
    /// Matching has credit for this queue again (C2).
    Refill {
        /// The namespace.
        namespace: NamespaceId,
        /// The queue.
        queue: String,
        /// Its kind.
        kind: TaskKind,
    },
    /// A namespace record changed (D6).
    NamespaceChanged {
        /// The namespace.
        namespace: NamespaceId,
        /// When taken.
        answer: oneshot::Sender<()>,
    },
    /// What a peer has proved of this shard's log: closed runs wait for it (C6).
    Proof {
        /// Region.
        peer: String,
        /// What it has.
        proof: Proof,
    },
    /// How far the clock of another region may be behind ours (H2).
    Clock {
        /// Region.
        region: RegionId,
        /// At most so much.
        behind: Nanos,
    },
    /// Stop after the commit in flight.
    Stop,
}

/// What shards are driven with.
#[derive(Clone)]
pub struct Parts {
    /// The node's store.
    pub store: Arc<dyn Store>,
    /// The node's namespaces.
    pub namespaces: Arc<Namespaces>,
    /// Matching.
    pub dispatcher: Arc<dyn Dispatcher>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// Entropy.
    pub entropy: Arc<dyn Entropy>,
    /// Counters.
    pub metrics: Metrics,
    /// Bytes of runs kept in memory by all shards together, about.
    pub cache_bytes: usize,
}

/// Commands taken in before outputs are carried out: bounds the size of a group, and the wait of the first in it.
const BURST: usize = 256;
/// Commands that wait for a shard before senders wait too.
const QUEUE: usize = 4_096;
/// Wake-ups read at a time.
const DUE_PAGE: usize = 10_000;

/// Starts a task for each shard of the store. The handle reaches them all.
#[must_use]
pub fn start(parts: &Parts) -> Client {
    let count = parts.store.identity().shards.max(1);
    let handles = (1..=count).map(|shard| {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (committed, positions) = watch::channel(Sequence(0));
        let host = Host {
            shard: ShardId(shard),
            parts: Parts { cache_bytes: parts.cache_bytes / count as usize, ..parts.clone() },
            inbox,
            committed,
            proofs: BTreeMap::new(),
            clocks: Clocks::new(parts.namespaces.regions().increment()),
        };
        tokio::spawn(host.run());
        ShardHandle { commands, committed: positions }
    });
    Client::new(handles.collect())
}

/// Where answers go.
enum Answer {
    Request(oneshot::Sender<Result<Reply, Refusal>>),
    Apply(oneshot::Sender<Vec<Applied>>),
    Barrier(oneshot::Sender<Result<Sequence, Refusal>>),
}

impl Token for Answer {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Request(answer) => answer.is_closed(),
            Self::Apply(answer) => answer.is_closed(),
            Self::Barrier(answer) => answer.is_closed(),
        }
    }
}

struct Host {
    shard: ShardId,
    parts: Parts,
    inbox: mpsc::Receiver<Command>,
    committed: watch::Sender<Sequence>,
    /// Kept for the next ownership.
    proofs: BTreeMap<String, Proof>,
    /// So are these.
    clocks: Clocks,
}

/// What one round of waiting brought.
enum Action {
    Command(Option<Command>),
    Committed(Result<(), CommitError>),
    Loaded(Load, Loaded),
    Tick,
}

/// How driving a shard ended.
enum Ended {
    Stopped,
    Lost,
}

/// What is under way for one ownership.
struct Driving {
    machine: Shard<Answer>,
    commit: Option<BoxFuture<'static, Result<(), CommitError>>>,
    loads: FuturesUnordered<BoxFuture<'static, (Load, Loaded)>>,
    commit_began: i64,
    stopping: bool,
}

impl Host {
    async fn run(mut self) {
        loop {
            let Some(driving) = self.acquire().await else { return };
            match self.drive(driving).await {
                Ended::Stopped => return,
                Ended::Lost => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.parts.clock.now())
    }

    /// Takes the shard over; tries again until it works. None: the node stops.
    async fn acquire(&mut self) -> Option<Driving> {
        let mut wait = Duration::from_millis(50);
        let region = self.parts.store.identity().clone();
        loop {
            if self.inbox.is_closed() && self.inbox.is_empty() {
                return None;
            }
            match self.parts.store.shard_acquire(self.shard, &region.region).await {
                Ok(acquired) => {
                    let mut seed = [0; 32];
                    seed[..16].copy_from_slice(&self.parts.entropy.bytes16());
                    seed[16..].copy_from_slice(&self.parts.entropy.bytes16());
                    let setting = Setting {
                        shard: self.shard,
                        region: RegionId(region.initial),
                        region_name: region.region.clone(),
                        incarnation: region.incarnation,
                        cache_bytes: self.parts.cache_bytes,
                        seed,
                    };
                    // F2: a new owner reads the records at acquisition.
                    let views = self.parts.namespaces.all().iter().map(|entry| view(entry)).collect();
                    let mut machine = Shard::new(setting, acquired, views, self.now());
                    for (peer, proof) in &self.proofs {
                        machine.proof(self.now(), peer, proof.clone());
                    }
                    machine.clocks(self.now(), Arc::new(self.clocks.clone()));
                    self.committed.send_replace(acquired.sequence);
                    tracing::debug!(shard = %self.shard, range = %acquired.range, sequence = %acquired.sequence, "shard acquired");
                    return Some(Driving {
                        machine,
                        commit: None,
                        loads: FuturesUnordered::new(),
                        commit_began: 0,
                        stopping: false,
                    });
                }
                Err(error) => {
                    tracing::warn!(shard = %self.shard, %error, "shard not acquired, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    async fn drive(&mut self, mut driving: Driving) -> Ended {
        loop {
            self.carry_out(&mut driving);
            if driving.machine.is_broken() {
                return self.let_go(driving).await;
            }
            if driving.stopping && driving.commit.is_none() {
                return Ended::Stopped;
            }
            let action = self.select(&mut driving).await;
            self.take(&mut driving, action);
            // Whatever else is ready joins the same group.
            for _ in 0..BURST {
                if driving.machine.is_broken() {
                    break;
                }
                match self.inbox.try_recv() {
                    Ok(command) => self.take(&mut driving, Action::Command(Some(command))),
                    Err(_) => break,
                }
            }
        }
    }

    /// Only waits and chooses.
    async fn select(&mut self, driving: &mut Driving) -> Action {
        let wake = driving.machine.wake_at();
        let wait = Duration::from_nanos(u64::try_from(wake.0.saturating_sub(self.now().0)).unwrap_or(0));
        let commit = async {
            match &mut driving.commit {
                Some(commit) => commit.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = commit => Action::Committed(outcome),
            Some((load, loaded)) = driving.loads.next() => Action::Loaded(load, loaded),
            command = self.inbox.recv(), if !driving.stopping => Action::Command(command),
            () = tokio::time::sleep(wait), if !driving.stopping => Action::Tick,
        }
    }

    fn take(&mut self, driving: &mut Driving, action: Action) {
        let now = self.now();
        let machine = &mut driving.machine;
        match action {
            Action::Committed(outcome) => {
                driving.commit = None;
                let took = now.0.saturating_sub(driving.commit_began);
                #[expect(clippy::cast_precision_loss, reason = "nanoseconds to seconds, for a histogram")]
                self.parts.metrics.commit_seconds.observe(took as f64 / 1e9);
                match outcome {
                    Ok(()) => {
                        machine.committed(now);
                        self.parts.metrics.commits.inc();
                        self.committed.send_replace(machine.durable());
                    }
                    Err(error) => {
                        self.parts.metrics.commits_failed.inc();
                        machine.commit_failed(&error.to_string());
                    }
                }
            }
            Action::Loaded(load, loaded) => machine.loaded(now, &load, loaded),
            Action::Tick => machine.tick(now),
            Action::Command(Some(Command::Request { request, answer })) => {
                machine.request(now, Answer::Request(answer), request);
            }
            Action::Command(Some(Command::Apply { entries, answer })) => {
                machine.apply(now, Answer::Apply(answer), entries);
            }
            Action::Command(Some(Command::Barrier { namespace, answer })) => {
                machine.barrier(now, Answer::Barrier(answer), namespace);
            }
            Action::Command(Some(Command::Refill { namespace, queue, kind })) => {
                machine.refill(now, namespace, queue, kind);
            }
            Action::Command(Some(Command::NamespaceChanged { namespace, answer })) => {
                if let Some(entry) = self.parts.namespaces.by_id(namespace) {
                    machine.namespace(view(&entry), now);
                }
                // The change waits until every shard took it; nobody listening is no error.
                let _ = answer.send(());
            }
            Action::Command(Some(Command::Proof { peer, proof })) => {
                machine.proof(now, &peer, proof.clone());
                self.proofs.insert(peer, proof);
            }
            Action::Command(Some(Command::Clock { region, behind })) => {
                self.clocks.measured(region, behind);
                machine.clocks(now, Arc::new(self.clocks.clone()));
            }
            Action::Command(Some(Command::Stop) | None) => driving.stopping = true,
        }
    }

    /// Carries out what the machine says, until it says nothing more.
    fn carry_out(&self, driving: &mut Driving) {
        loop {
            if driving.commit.is_none() {
                driving.machine.flush();
            }
            let outputs = driving.machine.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.carry_out_one(driving, output);
            }
        }
    }

    fn carry_out_one(&self, driving: &mut Driving, output: Output<Answer>) {
        match output {
            // A caller that went away needs no answer.
            Output::Answer(Answer::Request(answer), reply) => drop(answer.send(reply)),
            Output::Applied(Answer::Apply(answer), results) => drop(answer.send(results)),
            Output::Barrier(Answer::Barrier(answer), result) => drop(answer.send(result)),
            Output::Answer(..) | Output::Applied(..) | Output::Barrier(..) => {
                tracing::error!(shard = %self.shard, "an answer does not fit its question");
            }
            Output::Load(load) => driving.loads.push(read(Arc::clone(&self.parts.store), self.shard, load)),
            Output::Commit(group) => {
                self.parts.metrics.batches.inc_by(group.batches.len() as u64);
                driving.commit_began = self.parts.clock.now();
                let store = Arc::clone(&self.parts.store);
                let mut commit = async move { store.shard_commit(group).await }.boxed();
                // Polled once here, so that the write begins before anything else is done.
                match (&mut commit).now_or_never() {
                    Some(outcome) => driving.commit = Some(std::future::ready(outcome).boxed()),
                    None => driving.commit = Some(commit),
                }
            }
            Output::Offer(offer) => {
                let taken = self.parts.dispatcher.offer(offer.clone());
                driving.machine.offered(self.now(), &offer, taken);
            }
            Output::Discarded { kind, reason, told } => {
                self.parts.metrics.discard(kind, reason);
                if let Some((run, discard)) = told.as_deref() {
                    crate::telling::discarded(self.shard, run, discard);
                }
            }
            Output::Alarm(run, why) => {
                tracing::error!(shard = %self.shard, %run, %why, "one owner wrote the same place twice: was a store restored?");
            }
            Output::Count(event) => self.parts.metrics.event(event),
            Output::Judged(run, judgement) => crate::telling::judged(self.shard, &run, &judgement),
            Output::Broken(why) => tracing::error!(shard = %self.shard, %why, "shard state dropped"),
        }
    }

    /// The ownership broke: what is in flight is waited for (its outcome does not matter any more), then the shard is
    /// acquired anew under a higher range id, which fences it (D2).
    async fn let_go(&mut self, driving: Driving) -> Ended {
        if let Some(commit) = driving.commit {
            let _ = commit.await;
        }
        let mut kept = VecDeque::new();
        while let Ok(command) = self.inbox.try_recv() {
            kept.push_back(command);
        }
        for command in kept {
            match command {
                Command::Stop => return Ended::Stopped,
                Command::Request { answer, .. } => drop(answer.send(Err(moving()))),
                Command::Barrier { answer, .. } => drop(answer.send(Err(moving()))),
                Command::Apply { entries, answer } => {
                    drop(answer.send(vec![Applied::Retry("the shard is moving".to_string()); entries.len()]));
                }
                // The new ownership reads the records and the dispatch index itself.
                Command::NamespaceChanged { answer, .. } => drop(answer.send(())),
                Command::Refill { .. } => {}
                Command::Proof { peer, proof } => drop(self.proofs.insert(peer, proof)),
                Command::Clock { region, behind } => self.clocks.measured(region, behind),
            }
        }
        Ended::Lost
    }
}

fn moving() -> Refusal {
    Refusal::Unavailable("the shard is being acquired anew".to_string())
}

/// A namespace record as shards need it.
fn view(entry: &Entry) -> NamespaceView {
    let standing = entry.standing();
    NamespaceView {
        id: entry.id(),
        name: entry.name().to_string(),
        writable: entry.writable_version(),
        version: entry.version(),
        draining: matches!(standing, Standing::HandingOver { .. } | Standing::MayActivate { .. }),
        active: entry.record.active().to_string(),
        retention: Nanos::seconds(entry.record.config().retention_seconds),
        others: entry.others(),
    }
}

/// Reads what a shard asked for.
fn read(store: Arc<dyn Store>, shard: ShardId, load: Load) -> BoxFuture<'static, (Load, Loaded)> {
    async move {
        let loaded = match &load {
            Load::Workflow(key) => read_workflow(&*store, shard, key).await,
            Load::Run(key) => store.run_load(shard, key).await.map(Loaded::Run),
            Load::Runs(key) => store.run_list(shard, key).await.map(Loaded::Runs),
            Load::Due { namespaces, until } => {
                store.wake_due(shard, namespaces, *until, DUE_PAGE).await.map(Loaded::Due)
            }
            Load::Obligations { until } => {
                store.obligation_due(shard, *until, OBLIGATION_PAGE).await.map(Loaded::Obligations)
            }
            Load::Backlog { namespaces, queue, after } => {
                let queue = queue.as_ref().map(|(name, kind)| (name.as_str(), *kind));
                store
                    .dispatch_backlog(shard, namespaces, queue, *after, BACKLOG_PAGE)
                    .await
                    .map(Loaded::Backlog)
            }
        };
        let loaded = loaded.unwrap_or_else(|error| Loaded::Failed(error.to_string()));
        (load, loaded)
    }
    .boxed()
}

async fn read_workflow(
    store: &dyn Store,
    shard: ShardId,
    key: &antipode_core::ids::WorkflowKey,
) -> Result<Loaded, antipode_persistence::Error> {
    let current = store.current_load(shard, key).await?;
    let run = match current.as_ref().and_then(|row| row.record.run_id.parse().ok()) {
        Some(run) => store.run_load(shard, &key.run(run)).await?,
        None => None,
    };
    Ok(Loaded::Workflow(current, run))
}
