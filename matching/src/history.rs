//! The calls that matching makes: so few that tests can stand in for the shards.

use std::future::Future;

use antipode_core::ids::{NamespaceId, RunKey, WorkflowKey};
use antipode_history::{
    api::{Operation, PollInfo, Refusal, Reply, Request, TaskKind, TaskRef},
    client::Client,
};
use antipode_proto::api::workflowservice::v1::{
    PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse,
};
use bytes::Bytes;

/// A workflow task for a poller, and beside it the encoded `History` that belongs into it.
pub type WorkflowTask = (PollWorkflowTaskQueueResponse, Bytes);

/// The shards, as matching sees them. A start is answered when it is durable (D1); one that is repeated with the same
/// request id is answered with the same task.
pub trait History: Send + Sync + 'static {
    /// Starts a workflow task for a poller.
    fn start_workflow_task(
        &self,
        key: RunKey,
        task: TaskRef,
        poll: PollInfo,
    ) -> impl Future<Output = Result<WorkflowTask, Refusal>> + Send;

    /// Starts an activity task for a poller.
    fn start_activity_task(
        &self,
        key: RunKey,
        task: TaskRef,
        poll: PollInfo,
    ) -> impl Future<Output = Result<PollActivityTaskQueueResponse, Refusal>> + Send;

    /// Asks all shards to offer again what they have for a queue. False when not all of them have taken the request: then
    /// it must be asked again.
    fn refill(&self, namespace: NamespaceId, queue: &str, kind: TaskKind) -> bool;
}

fn request(key: RunKey, operation: Operation) -> Request {
    let RunKey { namespace, workflow, run } = key;
    Request { workflow: WorkflowKey { namespace, workflow }, run: Some(run), operation }
}

fn misanswered(operation: &str) -> Refusal {
    Refusal::Internal(format!("the shard gave {operation} the answer of another operation"))
}

impl History for Client {
    async fn start_workflow_task(
        &self,
        key: RunKey,
        task: TaskRef,
        poll: PollInfo,
    ) -> Result<WorkflowTask, Refusal> {
        match self.call(request(key, Operation::WorkflowTaskStart { task, poll })).await? {
            Reply::WorkflowTask(response, history) => Ok((*response, history)),
            _ => Err(misanswered("WorkflowTaskStart")),
        }
    }

    async fn start_activity_task(
        &self,
        key: RunKey,
        task: TaskRef,
        poll: PollInfo,
    ) -> Result<PollActivityTaskQueueResponse, Refusal> {
        match self.call(request(key, Operation::ActivityTaskStart { task, poll })).await? {
            Reply::ActivityTask(response) => Ok(*response),
            _ => Err(misanswered("ActivityTaskStart")),
        }
    }

    fn refill(&self, namespace: NamespaceId, queue: &str, kind: TaskKind) -> bool {
        Self::refill(self, namespace, queue, kind)
    }
}
