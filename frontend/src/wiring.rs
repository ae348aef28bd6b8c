//! The real shards and queues behind the traits of `ports`.

use std::time::Duration;

use antipode_core::ids::NamespaceId;
use antipode_history::{
    api::{QueryReady, Refusal, Reply, Request, TaskKind},
    client::Client,
};
use antipode_matching as matching;
use antipode_proto::api::{query::v1::WorkflowQuery, workflowservice::v1 as ws};
use async_trait::async_trait;

use crate::ports::{History, Matching, WorkflowTask};

#[async_trait]
impl History for Client {
    async fn call(&self, request: Request) -> Result<Reply, Refusal> {
        Self::call(self, request).await
    }

    fn shard_count(&self) -> u32 {
        Self::shard_count(self)
    }
}

#[async_trait]
impl<H: matching::History> Matching for matching::Matching<H> {
    async fn poll_workflow_task(
        &self,
        namespace: NamespaceId,
        request: &ws::PollWorkflowTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<WorkflowTask>, Refusal> {
        Self::poll_workflow_task(self, namespace, request, wait).await
    }

    async fn poll_activity_task(
        &self,
        namespace: NamespaceId,
        request: &ws::PollActivityTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<ws::PollActivityTaskQueueResponse>, Refusal> {
        Self::poll_activity_task(self, namespace, request, wait).await
    }

    async fn query(
        &self,
        ready: QueryReady,
        query: WorkflowQuery,
        wait: Duration,
    ) -> Result<matching::QueryAnswer, matching::QueryFailure> {
        Self::query(self, ready, query, wait).await
    }

    fn respond_query(
        &self,
        token: &matching::QueryToken,
        answer: ws::RespondQueryTaskCompletedRequest,
    ) -> Result<(), Refusal> {
        Self::respond_query(self, token, answer)
    }

    fn describe(&self, namespace: NamespaceId, queue: &str, kind: TaskKind) -> matching::QueueDescription {
        Self::describe(self, namespace, queue, kind)
    }

    fn unload_sticky(&self, namespace: NamespaceId, queue: &str) {
        Self::unload_sticky(self, namespace, queue);
    }
}
