//! Long polls. A poll is woken once when a task meets it, asks the task's shard for it in its own future, and answers:
//! no other task of the runtime stands between. A future that is dropped at any point gives back what it held.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use antipode_core::ids::{NamespaceId, RunKey};
use antipode_history::api::{PollInfo, Refusal, TaskKind, TaskRef};
use antipode_proto::api::{
    deployment::v1::WorkerDeploymentOptions,
    enums::v1::TaskQueueKind,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, PollWorkflowTaskQueueRequest,
    },
};
use tokio::time::Sleep;

use crate::{
    cell::Cell,
    history::{History, WorkflowTask},
    matching::{Matching, Shared},
    queue::{Outcome, PollerId, QueryId, Queue, Task, Work},
};

/// What a poll ended with.
enum Served<R> {
    Started(R),
    Query(QueryId),
}

impl<H: History> Matching<H> {
    /// A worker polls for workflow tasks, for at most `wait`. None: nothing came. Beside the message stands the encoded
    /// `History` that belongs into it.
    ///
    /// # Errors
    /// The request names no queue.
    pub async fn poll_workflow_task(
        &self,
        namespace: NamespaceId,
        request: &PollWorkflowTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<WorkflowTask>, Refusal> {
        let (queue, sticky) = queue_of(request.task_queue.as_ref())?;
        let build_id = workflow_build(request);
        let worker = Worker { identity: &request.identity, build_id };
        let poll = Poll::begin(&self.shared, namespace, queue, TaskKind::Workflow, sticky, worker);
        let mut deadline = pin!(tokio::time::sleep(wait));
        loop {
            match poll.serve(deadline.as_mut(), H::start_workflow_task).await {
                Some(Served::Started((mut response, history))) => {
                    response.backlog_count_hint = poll.backlog();
                    return Ok(Some((response, history)));
                }
                Some(Served::Query(query)) => {
                    // Answered or given up meanwhile: the poll goes on.
                    if let Some(task) = self.shared.queries.task(query, sticky) {
                        return Ok(Some(task));
                    }
                }
                None => return poll.empty(),
            }
        }
    }

    /// A worker polls for activity tasks, for at most `wait`. None: nothing came.
    ///
    /// # Errors
    /// The request names no queue.
    pub async fn poll_activity_task(
        &self,
        namespace: NamespaceId,
        request: &PollActivityTaskQueueRequest,
        wait: Duration,
    ) -> Result<Option<PollActivityTaskQueueResponse>, Refusal> {
        let (queue, _) = queue_of(request.task_queue.as_ref())?;
        let build_id = activity_build(request);
        let worker = Worker { identity: &request.identity, build_id };
        let poll = Poll::begin(&self.shared, namespace, queue, TaskKind::Activity, false, worker);
        let mut deadline = pin!(tokio::time::sleep(wait));
        loop {
            match poll.serve(deadline.as_mut(), H::start_activity_task).await {
                Some(Served::Started(response)) => return Ok(Some(response)),
                // Queries are never asked of activity queues.
                Some(Served::Query(_)) => {}
                None => return poll.empty(),
            }
        }
    }
}

fn queue_of(queue: Option<&TaskQueue>) -> Result<(&str, bool), Refusal> {
    match queue {
        Some(queue) if !queue.name.is_empty() => {
            Ok((&queue.name, queue.kind == TaskQueueKind::Sticky as i32))
        }
        Some(_) | None => Err(Refusal::InvalidArgument("taskQueue is not set".to_string())),
    }
}

// Three generations of SDKs name their build in three places.
#[allow(deprecated)]
fn workflow_build(request: &PollWorkflowTaskQueueRequest) -> &str {
    let capabilities = request.worker_version_capabilities.as_ref().map(|worker| worker.build_id.as_str());
    build_id(request.deployment_options.as_ref(), capabilities).unwrap_or(&request.binary_checksum)
}

#[allow(deprecated)]
fn activity_build(request: &PollActivityTaskQueueRequest) -> &str {
    let capabilities = request.worker_version_capabilities.as_ref().map(|worker| worker.build_id.as_str());
    build_id(request.deployment_options.as_ref(), capabilities).unwrap_or_default()
}

fn build_id<'a>(
    deployment: Option<&'a WorkerDeploymentOptions>,
    capabilities: Option<&'a str>,
) -> Option<&'a str> {
    let deployed = deployment.map(|options| options.build_id.as_str());
    [deployed, capabilities].into_iter().flatten().find(|id| !id.is_empty())
}

struct Worker<'a> {
    identity: &'a str,
    build_id: &'a str,
}

/// A poll at its queue. Dropping it ends the poll: what it holds goes back to its place in the queue.
struct Poll<'a, H: History> {
    shared: &'a Arc<Shared<H>>,
    cell: Arc<Cell>,
    id: PollerId,
    worker: Worker<'a>,
}

impl<H: History> Drop for Poll<'_, H> {
    fn drop(&mut self) {
        if self.cell.leave(self.id, self.shared.now()) {
            self.shared.refill(&self.cell);
        }
    }
}

impl<'a, H: History> Poll<'a, H> {
    fn begin(
        shared: &'a Arc<Shared<H>>,
        namespace: NamespaceId,
        queue: &str,
        kind: TaskKind,
        sticky: bool,
        worker: Worker<'a>,
    ) -> Self {
        let now = shared.now();
        let cell = shared.queues.open(namespace, queue, kind, sticky, now);
        let id = shared.with(&cell, |queue| queue.arrive(worker.identity, now));
        Self { shared, cell, id, worker }
    }

    /// Waits for work that can be delivered. None: the poll is to end empty. The deadline bounds the wait and not the start:
    /// a start that is under way may be written already, and then belongs to this worker.
    async fn serve<R, F>(
        &self,
        mut deadline: Pin<&mut Sleep>,
        start: impl Fn(&'a H, RunKey, TaskRef, PollInfo) -> F,
    ) -> Option<Served<R>>
    where
        F: Future<Output = Result<R, Refusal>>,
    {
        loop {
            let work = tokio::select! {
                biased;
                work = self.work() => work?,
                () = deadline.as_mut() => return None,
            };
            let (task, sync) = match work {
                Work::Query(query) => {
                    self.settle(Outcome::Delivered);
                    return Some(Served::Query(query));
                }
                Work::Task { task, sync } => (task, sync),
            };
            let started = match self.shared.history() {
                Some(history) => start(history, task.key.clone(), task.task.clone(), self.info(&task)).await,
                None => Err(Refusal::Unavailable("the shards are not connected yet".to_string())),
            };
            match started {
                Ok(response) => {
                    self.settle(Outcome::Delivered);
                    let metrics = self.cell.metrics();
                    if sync { &metrics.sync } else { &metrics.backlog_delivered }.inc();
                    return Some(Served::Started(response));
                }
                Err(refusal) => self.refused(&task, &refusal),
            }
        }
    }

    async fn work(&self) -> Option<Work> {
        std::future::poll_fn(|context| {
            let (work, refill) = self.cell.poll_work(self.id, context);
            if refill {
                self.shared.refill(&self.cell);
            }
            work
        })
        .await
    }

    fn settle(&self, outcome: Outcome) {
        let parked = self.shared.with(&self.cell, |queue| queue.settle(self.id, outcome));
        debug_assert!(parked.is_none(), "only a delayed task is parked");
    }

    /// The shard did not start the task.
    fn refused(&self, task: &Task, refusal: &Refusal) {
        let metrics = self.cell.metrics();
        match refusal {
            Refusal::TaskNotFound { reason, .. } => metrics.stale(reason),
            Refusal::NotFound(_) => metrics.stale("not_found"),
            Refusal::AlreadyCompleted => metrics.stale("already_completed"),
            // The shard derives these again when the namespace is active and writes again.
            Refusal::Draining(_) => metrics.dropped("draining", 1),
            Refusal::NamespaceNotActive { .. } => metrics.dropped("not_active", 1),
            // Whether it was started is unknown (D2): it is asked for again, with the same request id.
            Refusal::Unavailable(_) | Refusal::ResourceExhausted(_) => return self.delay(task),
            Refusal::Quarantined(_) => metrics.dropped("quarantined", 1),
            other => {
                metrics.dropped("refused", 1);
                tracing::warn!(run = %task.key, queue = %self.cell.name.name, refusal = %other, "a shard refused to start a task");
            }
        }
        self.settle(Outcome::Refused);
    }

    fn delay(&self, task: &Task) {
        if let Some(ticket) = self.shared.with(&self.cell, |queue| queue.settle(self.id, Outcome::Delayed)) {
            self.shared.unpark_later(&self.cell, ticket, task.delays);
        }
    }

    /// The request id belongs to the task's place in the queue, not to the poll: whoever gets a task that came back asks
    /// for the same start, and the shard answers with the one it may have written already.
    fn info(&self, task: &Task) -> PollInfo {
        PollInfo {
            identity: self.worker.identity.to_string(),
            request_id: format!(
                "{:016x}-{:x}-{:x}",
                self.shared.incarnation, self.cell.number, task.ticket.0
            ),
            queue: self.cell.name.name.to_string(),
            sticky: self.cell.name.sticky,
            build_id: self.worker.build_id.to_string(),
        }
    }

    fn backlog(&self) -> i64 {
        i64::try_from(self.cell.look(Queue::queued)).unwrap_or(i64::MAX)
    }

    fn empty<R>(self) -> Result<Option<R>, Refusal> {
        self.cell.metrics().empty.inc();
        Ok(None)
    }
}
