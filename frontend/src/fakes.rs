//! Stand-ins for the rest of a node: a shard that answers as the test says and remembers what it was asked, namespaces that
//! the test moves, a peer that records what reached it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use antipode_core::ids::NamespaceId;
use antipode_env::{ManualClock, SeededEntropy};
use antipode_history::api::{QueryReady, Refusal, Reply, Request, TaskKind};
use antipode_matching::{QueryAnswer, QueryFailure, QueryToken, QueueDescription};
use antipode_persistence::{
    Error,
    rows::VisibilityRow,
    store::VisibilityStore,
    visibility::{Count, Page, Query},
};
use antipode_proto::{
    admin,
    api::{query::v1::WorkflowQuery, taskqueue::v1::PollerInfo, workflowservice::v1 as ws},
    core::{ConfigRegister, FailoverPhase, FailoverRegister, NamespaceRecord},
    link::{ForwardRequest, ForwardResponse},
};
use async_trait::async_trait;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    call::Call,
    context::{Context, Region},
    metrics::Metrics,
    namespace::Namespace,
    ports::{
        History, Matching, NamespaceChange, Namespaces, NewNamespace, Operations, Peers, RegionView,
        WorkflowTask,
    },
    service::Frontend,
};

type Answer = Box<dyn FnMut(&Request) -> Result<Reply, Refusal> + Send>;

/// Shards that answer with a function of the test.
pub(crate) struct FakeHistory {
    answer: Mutex<Answer>,
    pub(crate) asked: Mutex<Vec<Request>>,
    /// Requests that wait never come back.
    pub(crate) never: Mutex<bool>,
}

impl FakeHistory {
    pub(crate) fn answers(&self, answer: impl FnMut(&Request) -> Result<Reply, Refusal> + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    pub(crate) fn asked_count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Request {
        self.asked.lock().unwrap().last().cloned().expect("the shard was asked")
    }
}

#[async_trait]
impl History for FakeHistory {
    async fn call(&self, request: Request) -> Result<Reply, Refusal> {
        self.asked.lock().unwrap().push(request.clone());
        let waits =
            matches!(&request.operation, antipode_history::api::Operation::History(read) if read.wait);
        if waits && *self.never.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        (self.answer.lock().unwrap())(&request)
    }

    fn shard_count(&self) -> u32 {
        4
    }
}

/// Queues that never have a task.
#[derive(Default)]
pub(crate) struct FakeMatching {
    pub(crate) waits: Mutex<Vec<Duration>>,
    pub(crate) unloaded: Mutex<Vec<String>>,
    pub(crate) query: Mutex<Option<Result<QueryAnswer, QueryFailure>>>,
}

#[async_trait]
impl Matching for FakeMatching {
    async fn poll_workflow_task(
        &self,
        _namespace: NamespaceId,
        _request: &ws::PollWorkflowTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<WorkflowTask>, Refusal> {
        self.waits.lock().unwrap().push(wait);
        tokio::time::sleep(wait).await;
        Ok(None)
    }

    async fn poll_activity_task(
        &self,
        _namespace: NamespaceId,
        _request: &ws::PollActivityTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<ws::PollActivityTaskQueueResponse>, Refusal> {
        self.waits.lock().unwrap().push(wait);
        tokio::time::sleep(wait).await;
        Ok(None)
    }

    async fn query(
        &self,
        _ready: QueryReady,
        _query: WorkflowQuery,
        wait: Duration,
    ) -> Result<QueryAnswer, QueryFailure> {
        let answer = self.query.lock().unwrap().take();
        match answer {
            Some(answer) => answer,
            None => {
                tokio::time::sleep(wait).await;
                Err(QueryFailure::NoPoller)
            }
        }
    }

    fn respond_query(
        &self,
        _token: &QueryToken,
        _answer: ws::RespondQueryTaskCompletedRequest,
    ) -> Result<(), Refusal> {
        Err(Refusal::NotFound("query task not found, or already expired".to_string()))
    }

    fn describe(&self, _namespace: NamespaceId, _queue: &str, _kind: TaskKind) -> QueueDescription {
        let poller = PollerInfo { identity: "worker".to_string(), ..PollerInfo::default() };
        QueueDescription { pollers: vec![poller], backlog: 7, oldest: None }
    }

    fn unload_sticky(&self, _namespace: NamespaceId, queue: &str) {
        self.unloaded.lock().unwrap().push(queue.to_string());
    }
}

/// Namespaces in memory.
pub(crate) struct FakeNamespaces {
    all: Mutex<BTreeMap<NamespaceId, Arc<Namespace>>>,
    changed: watch::Sender<u64>,
    pub(crate) changes_made: Mutex<Vec<NamespaceChange>>,
    pub(crate) registered: Mutex<Vec<NewNamespace>>,
}

impl FakeNamespaces {
    pub(crate) fn put(&self, namespace: Namespace) {
        self.all.lock().unwrap().insert(namespace.id, Arc::new(namespace));
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn move_to(&self, name: &str, phase: FailoverPhase, active: &str) {
        let mut namespace = (*self.by_name(name).expect("known")).clone();
        let failover = namespace.record.failover.get_or_insert_default();
        failover.phase = phase as i32;
        failover.active = active.to_string();
        failover.version += 1;
        self.put(namespace);
    }
}

#[async_trait]
impl Namespaces for FakeNamespaces {
    fn by_name(&self, name: &str) -> Option<Arc<Namespace>> {
        self.all.lock().unwrap().values().find(|namespace| namespace.name == name).cloned()
    }

    fn by_id(&self, id: NamespaceId) -> Option<Arc<Namespace>> {
        self.all.lock().unwrap().get(&id).cloned()
    }

    fn all(&self) -> Vec<Arc<Namespace>> {
        self.all.lock().unwrap().values().cloned().collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn register(&self, namespace: NewNamespace) -> Result<Arc<Namespace>, Status> {
        self.registered.lock().unwrap().push(namespace);
        Ok(Arc::new(global_namespace("registered", "east")))
    }

    async fn change(&self, id: NamespaceId, change: NamespaceChange) -> Result<Arc<Namespace>, Status> {
        self.changes_made.lock().unwrap().push(change);
        Ok(self.by_id(id).expect("known"))
    }
}

/// The other region.
#[derive(Default)]
pub(crate) struct FakePeers {
    pub(crate) sent: Mutex<Vec<(String, ForwardRequest)>>,
    /// Its frontend, when it has one.
    pub(crate) frontend: Mutex<Option<Frontend>>,
}

#[async_trait]
impl Peers for FakePeers {
    async fn forward(&self, region: &str, request: ForwardRequest) -> Result<ForwardResponse, Status> {
        self.sent.lock().unwrap().push((region.to_string(), request.clone()));
        let frontend = self.frontend.lock().unwrap().clone();
        match frontend {
            Some(frontend) => Ok(frontend.serve_forwarded(request).await),
            None => Err(Status::unavailable(format!("region {region} cannot be reached"))),
        }
    }
}

/// Operator's verbs that only record.
pub(crate) struct FakeOperations {
    pub(crate) failovers: Mutex<Vec<admin::FailoverRequest>>,
    pub(crate) reachable: Mutex<bool>,
}

#[async_trait]
impl Operations for FakeOperations {
    async fn failover(&self, request: admin::FailoverRequest) -> Result<admin::FailoverReply, Status> {
        self.failovers.lock().unwrap().push(request);
        Ok(admin::FailoverReply::default())
    }

    async fn reachable(&self, _region: &str, _patience: Duration) -> bool {
        *self.reachable.lock().unwrap()
    }

    fn regions(&self) -> Vec<RegionView> {
        let region = |name: &str, initial, enabled| RegionView {
            name: name.to_string(),
            cluster_id: format!("id-{name}"),
            address: format!("127.0.0.1:{}", 7000 + initial),
            initial,
            shards: 4,
            enabled,
        };
        vec![region("east", 1, true), region("west", 2, true), region("north", 3, false)]
    }

    async fn region_upsert(&self, _address: &str, _enabled: bool) -> Result<(), Status> {
        Ok(())
    }

    async fn region_remove(&self, name: &str) -> Result<(), Status> {
        if name == "west" { Ok(()) } else { Err(Status::not_found(format!("region {name} is not known"))) }
    }
}

/// Visibility without rows, which remembers what it was asked.
#[derive(Default)]
pub(crate) struct FakeVisibility {
    pub(crate) asked: Mutex<Vec<Query>>,
}

#[async_trait]
impl VisibilityStore for FakeVisibility {
    async fn visibility_list(&self, query: &Query) -> Result<Page, Error> {
        self.asked.lock().unwrap().push(query.clone());
        Ok(Page::default())
    }

    async fn visibility_count(&self, query: &Query) -> Result<Count, Error> {
        self.asked.lock().unwrap().push(query.clone());
        Ok(Count { total: 3, groups: vec![(1, 2), (2, 1)] })
    }

    async fn visibility_get(
        &self,
        _key: &antipode_core::ids::RunKey,
    ) -> Result<Option<VisibilityRow>, Error> {
        Ok(None)
    }
}

/// A frontend and everything behind it.
pub(crate) struct Node {
    pub(crate) frontend: Frontend,
    pub(crate) history: Arc<FakeHistory>,
    pub(crate) matching: Arc<FakeMatching>,
    pub(crate) namespaces: Arc<FakeNamespaces>,
    pub(crate) peers: Arc<FakePeers>,
    pub(crate) operations: Arc<FakeOperations>,
    pub(crate) visibility: Arc<FakeVisibility>,
}

impl Node {
    /// A region that knows the global namespace `orders`, active in east, and the local one `notes`.
    pub(crate) fn new(region: &str) -> Self {
        let nothing = |request: &Request| -> Result<Reply, Refusal> {
            Err(Refusal::NotFound(format!("workflow not found for ID: {}", request.workflow.workflow)))
        };
        let history = Arc::new(FakeHistory {
            answer: Mutex::new(Box::new(nothing)),
            asked: Mutex::default(),
            never: Mutex::default(),
        });
        let matching = Arc::new(FakeMatching::default());
        let namespaces = Arc::new(FakeNamespaces {
            all: Mutex::default(),
            changed: watch::Sender::new(0),
            changes_made: Mutex::default(),
            registered: Mutex::default(),
        });
        namespaces.put(global_namespace("orders", "east"));
        namespaces.put(local_namespace("notes", region));
        let peers = Arc::new(FakePeers::default());
        let operations =
            Arc::new(FakeOperations { failovers: Mutex::default(), reachable: Mutex::new(true) });
        let visibility = Arc::new(FakeVisibility::default());
        let context = Context {
            clock: Arc::new(ManualClock::new(1_000_000_000)),
            entropy: Arc::new(SeededEntropy::new(1)),
            history: history.clone(),
            matching: matching.clone(),
            namespaces: namespaces.clone(),
            visibility: visibility.clone(),
            peers: peers.clone(),
            operations: operations.clone(),
            region: Region {
                name: region.to_string(),
                initial: if region == "east" { 1 } else { 2 },
                increment: 10,
                cluster_id: format!("id-{region}"),
                store: "memory".to_string(),
            },
            metrics: Metrics::default(),
            held: AtomicUsize::new(0),
        };
        let frontend = Frontend::new(Arc::new(context));
        Self { frontend, history, matching, namespaces, peers, operations, visibility }
    }

    pub(crate) fn context(&self) -> &Context {
        self.frontend.context()
    }
}

/// Active as said, in east and west.
pub(crate) fn global_namespace(name: &str, active: &str) -> Namespace {
    Namespace {
        id: NamespaceId::from_random([name.len() as u8; 16]),
        name: name.to_string(),
        regions: vec!["east".to_string(), "west".to_string()],
        record: NamespaceRecord {
            global: true,
            config: Some(ConfigRegister { retention_seconds: 3 * 24 * 3600, ..ConfigRegister::default() }),
            failover: Some(FailoverRegister {
                version: 1,
                phase: FailoverPhase::Active as i32,
                active: active.to_string(),
                ..FailoverRegister::default()
            }),
            ..NamespaceRecord::default()
        },
    }
}

/// At home in one region.
pub(crate) fn local_namespace(name: &str, home: &str) -> Namespace {
    Namespace {
        id: NamespaceId::from_random([100 + name.len() as u8; 16]),
        name: name.to_string(),
        regions: vec![home.to_string()],
        record: NamespaceRecord { home: home.to_string(), ..NamespaceRecord::default() },
    }
}

/// A call of a client that waits so long.
pub(crate) fn call(method: &'static str, timeout: Duration) -> Call {
    let nanos = i64::try_from(timeout.as_nanos()).expect("short");
    let path = format!("/temporal.api.workflowservice.v1.WorkflowService/{method}");
    // Leaked: a test's paths are few.
    Call { forwarded: false, ..Call::from_peer(method, path.leak(), nanos, BTreeMap::new()) }
}
