//! What the frontend needs of the rest of a node, as traits: shards, matching, peers, and the operator's verbs. The server
//! wires them; tests put fakes in their place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antipode_core::ids::{NamespaceId, WorkflowKey};
use antipode_history::api::{QueryReady, Refusal, Reply, Request, TaskKind};
use antipode_matching::{QueryAnswer, QueryFailure, QueryToken, QueueDescription};
use antipode_proto::{
    admin,
    api::{query::v1::WorkflowQuery, workflowservice::v1 as ws},
    link::{ForwardRequest, ForwardResponse},
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tonic::Status;

use crate::namespace::Namespace;

/// The shards of this region.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Asks the shard that owns the workflow id.
    async fn call(&self, request: Request) -> Result<Reply, Refusal>;
    /// Number of shards.
    fn shard_count(&self) -> u32;
}

/// A workflow or query task for a worker: the message without history, and the encoded history beside it.
pub type WorkflowTask = (ws::PollWorkflowTaskQueueResponse, Bytes);

/// The task queues of this region.
#[async_trait]
pub trait Matching: Send + Sync + 'static {
    /// Waits for a workflow or query task; none when nothing came in time.
    async fn poll_workflow_task(
        &self,
        namespace: NamespaceId,
        request: &ws::PollWorkflowTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<WorkflowTask>, Refusal>;
    /// Waits for an activity task; none when nothing came in time.
    async fn poll_activity_task(
        &self,
        namespace: NamespaceId,
        request: &ws::PollActivityTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<ws::PollActivityTaskQueueResponse>, Refusal>;
    /// Brings a query to a worker and waits for the answer.
    async fn query(
        &self,
        ready: QueryReady,
        query: WorkflowQuery,
        wait: Duration,
    ) -> Result<QueryAnswer, QueryFailure>;
    /// Takes the answer of a worker to a query task.
    fn respond_query(
        &self,
        token: &QueryToken,
        answer: ws::RespondQueryTaskCompletedRequest,
    ) -> Result<(), Refusal>;
    /// What is known of a queue.
    fn describe(&self, namespace: NamespaceId, queue: &str, kind: TaskKind) -> QueueDescription;
    /// A worker goes away: what waits for its sticky queue goes to the normal one.
    fn unload_sticky(&self, namespace: NamespaceId, queue: &str);
}

/// The other regions.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Sends a call to a region: one hop. An error is one of reaching it; what the call ends with there is in the answer.
    async fn forward(&self, region: &str, request: ForwardRequest) -> Result<ForwardResponse, Status>;
}

/// A region as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionView {
    /// Name.
    pub name: String,
    /// Cluster id.
    pub cluster_id: String,
    /// Address of its gRPC listener.
    pub address: String,
    /// Initial version (R109).
    pub initial: u32,
    /// Number of shards; 0 while it was never reached.
    pub shards: u32,
    /// Whether this region talks to it.
    pub enabled: bool,
}

/// What the operator's calls do beyond one namespace record.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Moves a namespace: hands over or, when told so, forces.
    async fn failover(&self, request: admin::FailoverRequest) -> Result<admin::FailoverReply, Status>;
    /// Whether a region answers now, within a bound.
    async fn reachable(&self, region: &str, patience: Duration) -> bool;
    /// All regions this one knows, itself first.
    fn regions(&self) -> Vec<RegionView>;
    /// Dials an address, learns who is there, and remembers it.
    async fn region_upsert(&self, address: &str, enabled: bool) -> Result<(), Status>;
    /// Forgets a region; its versions are never given away (I29).
    async fn region_remove(&self, name: &str) -> Result<(), Status>;
}

/// A namespace to be registered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewNamespace {
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Owner.
    pub owner_email: String,
    /// The user's own data.
    pub data: BTreeMap<String, String>,
    /// Retention of closed runs.
    pub retention_seconds: i64,
    /// Global.
    pub global: bool,
    /// Active region.
    pub active: String,
    /// Regions in its list.
    pub regions: Vec<String>,
}

/// A change of a namespace that is not a failover. Unset fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceChange {
    /// Description.
    pub description: Option<String>,
    /// Owner.
    pub owner_email: Option<String>,
    /// Data to merge in.
    pub data: BTreeMap<String, String>,
    /// Retention of closed runs.
    pub retention_seconds: Option<i64>,
    /// New list of regions.
    pub regions: Option<Vec<String>>,
    /// Make it global.
    pub promote: bool,
}

impl NamespaceChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The namespaces that this region knows.
#[async_trait]
pub trait Namespaces: Send + Sync + 'static {
    /// By its current name.
    fn by_name(&self, name: &str) -> Option<Arc<Namespace>>;
    /// By id.
    fn by_id(&self, id: NamespaceId) -> Option<Arc<Namespace>>;
    /// All, in order of name.
    fn all(&self) -> Vec<Arc<Namespace>>;
    /// Moves with every change of any record.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Mints and stores a new one.
    async fn register(&self, namespace: NewNamespace) -> Result<Arc<Namespace>, Status>;
    /// Changes one durably and returns it as it is then.
    async fn change(&self, id: NamespaceId, change: NamespaceChange) -> Result<Arc<Namespace>, Status>;
}

/// The shard's request for one workflow id.
pub(crate) fn workflow_key(namespace: NamespaceId, workflow: &str) -> WorkflowKey {
    WorkflowKey { namespace, workflow: workflow.into() }
}
