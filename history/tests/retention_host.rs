//! Retention through the tokio host: a namespace of one region needs nobody, a shared one the word of its links, which
//! outlives an ownership.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{sync::Arc, time::Duration};

use antipode_core::{
    ids::{Incarnation, RunKey, ShardId, WorkflowKey},
    namespace::Config,
};
use antipode_env::{Clock, SeededEntropy};
use antipode_history::{
    api::{Dispatcher, Offer, Operation, Refusal, Reply, Request, Taken},
    client::Client,
    host::{self, Parts},
    metrics::Metrics,
    namespaces::{Namespaces, NewNamespace},
    shard::Proof,
};
use antipode_persistence::{
    MemoryStore,
    memory::Fault,
    rows::{Identity, RegionRow},
    store::{RegionStore, VisibilityStore},
};
use antipode_proto::api::{common::v1::WorkflowType, taskqueue::v1::TaskQueue, workflowservice::v1 as ws};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3_600);

/// Wall time that passes as the runtime's paused time does.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> i64 {
        1_000_000_000_000_000_000 + i64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

struct NoMatching;

impl Dispatcher for NoMatching {
    fn offer(&self, _: Offer) -> Taken {
        Taken::NoCredit
    }
}

struct Node {
    store: Arc<MemoryStore>,
    client: Client,
    workflow: WorkflowKey,
}

impl Node {
    async fn start(regions: &[&str]) -> Self {
        let store = Arc::new(MemoryStore::new(Identity {
            region: "east".to_string(),
            initial: 1,
            increment: 10,
            shards: 1,
            cluster_id: String::new(),
            incarnation: Incarnation(1),
        }));
        let west = RegionRow {
            name: "west".to_string(),
            initial: 2,
            address: String::new(),
            enabled: true,
            retired: false,
        };
        store.region_put(west).await.unwrap();
        let clock = Arc::new(RuntimeClock(Instant::now()));
        let entropy = Arc::new(SeededEntropy::new(1));
        let (of_store, of_clock, of_entropy) = (Arc::clone(&store), Arc::clone(&clock), Arc::clone(&entropy));
        let namespaces = Arc::new(Namespaces::load(of_store, of_clock, of_entropy).await.unwrap());
        let new = NewNamespace {
            name: "orders".to_string(),
            config: Config { retention_seconds: 3_600 },
            global: !regions.is_empty(),
            regions: regions.iter().map(ToString::to_string).collect(),
            ..NewNamespace::default()
        };
        let namespace = namespaces.create(new).await.unwrap().id();
        let client = host::start(&Parts {
            store: Arc::<MemoryStore>::clone(&store),
            namespaces,
            dispatcher: Arc::new(NoMatching),
            clock,
            entropy,
            metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
            cache_bytes: 1 << 20,
        });
        Self { store, client, workflow: WorkflowKey { namespace, workflow: "order".into() } }
    }

    async fn ask(&self, operation: Operation) -> Result<Reply, Refusal> {
        self.client.call(Request { workflow: self.workflow.clone(), run: None, operation }).await
    }

    /// A run that starts and ends.
    async fn run(&self) -> RunKey {
        let start = ws::StartWorkflowExecutionRequest {
            workflow_type: Some(WorkflowType { name: "Order".to_string() }),
            task_queue: Some(TaskQueue { name: "orders".to_string(), ..Default::default() }),
            ..Default::default()
        };
        let Reply::Start(started) = self.ask(Operation::Start(Box::new(start))).await.unwrap() else {
            panic!("no start")
        };
        self.ask(Operation::Terminate(Box::default())).await.unwrap();
        self.workflow.run(started.run_id.parse().unwrap())
    }

    async fn is_there(&self, run: &RunKey) -> bool {
        let described = self.ask(Operation::Describe).await;
        let there = described.is_ok();
        assert!(there || matches!(described, Err(Refusal::NotFound(_))), "{described:?}");
        assert_eq!(self.store.visibility_get(run).await.unwrap().is_some(), there, "visibility agrees");
        there
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_of_one_region_deletes_by_itself() {
    let node = Node::start(&[]).await;
    let run = node.run().await;
    tokio::time::sleep(HOUR / 2).await;
    assert!(node.is_there(&run).await);
    tokio::time::sleep(HOUR).await;
    assert!(!node.is_there(&run).await);
}

#[tokio::test(start_paused = true)]
async fn a_shared_namespace_waits_for_the_word_of_its_links() {
    let node = Node::start(&["east", "west"]).await;
    let run = node.run().await;
    tokio::time::sleep(HOUR * 5).await;
    assert!(node.is_there(&run).await, "nobody spoke for west");
    node.client.proof(ShardId(1), "west", Proof::released()).await;
    // The shard is acquired anew: what the links said holds on.
    node.store.fail_next(Fault::Reject);
    let start = ws::StartWorkflowExecutionRequest { workflow_id: "order".to_string(), ..Default::default() };
    let failed = node.ask(Operation::Start(Box::new(start))).await;
    assert!(matches!(failed, Err(Refusal::Unavailable(_))), "{failed:?}");
    tokio::time::sleep(HOUR * 5).await;
    assert!(!node.is_there(&run).await);
}
