//! Queries that need a worker and no workflow task (api-surface 3.2a): a task that carries the query alone goes to a poller,
//! first of the sticky queue, where the run is cached, and the worker answers with the task's token. Memory only: a query
//! that dies with the process is asked again by its client.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antipode_core::ids::{NamespaceId, Nanos};
use antipode_history::{
    api::{QueryReady, Refusal, TaskKind},
    token::QUERY,
};
use antipode_proto::api::{
    common::v1::{Payloads, WorkflowExecution, WorkflowType},
    enums::v1::{QueryResultType, TaskQueueKind},
    failure::v1::Failure,
    query::v1::WorkflowQuery,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{PollWorkflowTaskQueueResponse, RespondQueryTaskCompletedRequest},
};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    cell::Cell,
    history::{History, WorkflowTask},
    matching::{Matching, Shared},
    queue::{QueryId, STICKY_PATIENCE},
};

/// How long a sticky worker has for its answer before the normal queue is asked.
const STICKY_ANSWER: Duration = Duration::from_secs(10);
/// A queue that nobody has polled for so long has no worker.
const POLLER_RECENT: Nanos = Nanos::seconds(20);

/// Names a query task to the worker that answers it. Opaque to clients; told from tokens of other tasks by its first byte.
/// Good for one answer, in this life of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryToken {
    /// Namespace of the query: the frontend holds it against the request's.
    pub namespace: NamespaceId,
    incarnation: u64,
    query: u64,
}

impl QueryToken {
    /// The token as a worker gets it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(33);
        bytes.push(QUERY);
        bytes.extend_from_slice(self.namespace.0.as_bytes());
        bytes.extend_from_slice(&self.incarnation.to_be_bytes());
        bytes.extend_from_slice(&self.query.to_be_bytes());
        bytes.into()
    }

    /// Reads a token that a worker brought back. None: it is not the token of a query task.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (lead, rest) = bytes.split_first()?;
        let (namespace, rest) = rest.split_first_chunk::<16>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let query = rest.try_into().ok()?;
        (*lead == QUERY).then(|| Self {
            namespace: NamespaceId(uuid::Uuid::from_bytes(*namespace)),
            incarnation: u64::from_be_bytes(*incarnation),
            query: u64::from_be_bytes(query),
        })
    }
}

/// A worker's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryAnswer {
    /// What the query's handler returned.
    pub result: Option<Payloads>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryFailure {
    /// The worker says that the query failed: INVALID_ARGUMENT with the detail `QueryFailedFailure`.
    #[error("{message}")]
    Failed {
        /// Its words.
        message: String,
        /// Its failure.
        failure: Option<Failure>,
        /// `temporal.api.enums.v1.WorkflowTaskFailedCause`, when the worker could not even replay.
        cause: i32,
    },
    /// FAILED_PRECONDITION: time is over and nobody has polled lately.
    #[error("no poller seen for task queue recently, worker may be down")]
    NoPoller,
    /// DEADLINE_EXCEEDED: time is over.
    #[error("no worker answered the query in time")]
    DeadlineExceeded,
    /// UNAVAILABLE: this node stops.
    #[error("the node is stopping")]
    Unavailable,
}

/// What the one who waits for a query hears.
#[derive(Debug)]
enum Signal {
    Answer(Result<QueryAnswer, QueryFailure>),
    /// The sticky queue is gone.
    FallBack,
}

struct Pending {
    ready: Arc<QueryReady>,
    query: WorkflowQuery,
    signals: mpsc::UnboundedSender<Signal>,
}

/// All queries that wait for an answer.
pub(crate) struct Queries {
    incarnation: u64,
    next: AtomicU64,
    /// None: no more queries are taken.
    pending: Mutex<Option<BTreeMap<QueryId, Pending>>>,
}

impl Queries {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { incarnation, next: AtomicU64::new(1), pending: Mutex::new(Some(BTreeMap::new())) }
    }

    fn locked<R>(&self, change: impl FnOnce(&mut Option<BTreeMap<QueryId, Pending>>) -> R) -> R {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// None: this node stops.
    fn register(&self, pending: Pending) -> Option<QueryId> {
        let id = QueryId(self.next.fetch_add(1, Ordering::Relaxed));
        self.locked(|all| all.as_mut().map(|all| all.insert(id, pending)))?;
        Some(id)
    }

    fn remove(&self, id: QueryId) -> Option<Pending> {
        self.locked(|all| all.as_mut()?.remove(&id))
    }

    /// The query that a token names, for its one answer. A token whose namespace is not the query's names nothing.
    fn claim(&self, token: &QueryToken) -> Option<Pending> {
        let id = QueryId(token.query);
        self.locked(|all| {
            let all = all.as_mut()?;
            let owner = all.get(&id)?.ready.key.namespace;
            (token.incarnation == self.incarnation && token.namespace == owner).then(|| all.remove(&id))?
        })
    }

    /// The task of a query for a poller of its sticky or normal queue. None: nobody waits for it any more.
    pub(crate) fn task(&self, id: QueryId, sticky: bool) -> Option<WorkflowTask> {
        let (ready, query) =
            self.locked(|all| all.as_ref()?.get(&id).map(|one| (one.ready.clone(), one.query.clone())))?;
        let namespace = ready.key.namespace;
        let token = QueryToken { namespace, incarnation: self.incarnation, query: id.0 };
        let response = PollWorkflowTaskQueueResponse {
            task_token: token.encode(),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: ready.key.workflow.to_string(),
                run_id: ready.key.run.to_string(),
            }),
            workflow_type: Some(WorkflowType { name: ready.workflow_type.clone() }),
            previous_started_event_id: ready.previous_started.0,
            query: Some(query),
            workflow_execution_task_queue: Some(TaskQueue {
                name: ready.queue.clone(),
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            ..PollWorkflowTaskQueueResponse::default()
        };
        // A sticky worker has the history in its cache. Empty bytes are an empty, but present, `History`.
        Some((response, if sticky { Bytes::new() } else { ready.history.clone() }))
    }

    /// The sticky queue that a query waits in is gone.
    pub(crate) fn fall_back(&self, id: QueryId) {
        self.locked(|all| {
            if let Some(one) = all.as_ref().and_then(|all| all.get(&id)) {
                // Whoever waited may have given up this moment.
                let _ = one.signals.send(Signal::FallBack);
            }
        });
    }

    /// No more queries; those that wait fail.
    pub(crate) fn close(&self) {
        for (_, one) in self.locked(Option::take).into_iter().flatten() {
            let _ = one.signals.send(Signal::Answer(Err(QueryFailure::Unavailable)));
        }
    }
}

/// A query being asked. Dropping it, also because its client went away, takes it out of everywhere.
struct Asked<'a, H: History> {
    shared: &'a Arc<Shared<H>>,
    id: QueryId,
    at: Option<Arc<Cell>>,
}

impl<H: History> Drop for Asked<'_, H> {
    fn drop(&mut self) {
        self.shared.queries.remove(self.id);
        self.withdraw();
    }
}

impl<H: History> Asked<'_, H> {
    /// Asks this queue instead of the one before. A task that is out already may still be answered: whichever worker is
    /// first.
    fn ask(&mut self, cell: Arc<Cell>) {
        self.withdraw();
        let now = self.shared.now();
        self.shared.with(&cell, |queue| queue.ask(self.id, now));
        self.at = Some(cell);
    }

    fn withdraw(&mut self) {
        if let Some(cell) = self.at.take() {
            self.shared.with(&cell, |queue| queue.withdraw(self.id));
        }
    }
}

impl<H: History> Matching<H> {
    /// Lets a worker answer a query about a run, within `wait`.
    ///
    /// # Errors
    /// [`QueryFailure`].
    pub async fn query(
        &self,
        ready: QueryReady,
        query: WorkflowQuery,
        wait: Duration,
    ) -> Result<QueryAnswer, QueryFailure> {
        let answer = self.ask(Arc::new(ready), query, wait).await;
        self.shared.metrics.query(match &answer {
            Ok(_) => "answered",
            Err(QueryFailure::Failed { .. }) => "failed",
            Err(QueryFailure::NoPoller) => "no_poller",
            Err(QueryFailure::DeadlineExceeded) => "deadline_exceeded",
            Err(QueryFailure::Unavailable) => "unavailable",
        });
        answer
    }

    async fn ask(
        &self,
        ready: Arc<QueryReady>,
        query: WorkflowQuery,
        wait: Duration,
    ) -> Result<QueryAnswer, QueryFailure> {
        let shared = &self.shared;
        let namespace = ready.key.namespace;
        let mut deadline = pin!(tokio::time::sleep(wait));
        let (signals, mut heard) = mpsc::unbounded_channel();
        let pending = Pending { ready: ready.clone(), query, signals };
        let id = shared.queries.register(pending).ok_or(QueryFailure::Unavailable)?;
        let mut asked = Asked { shared, id, at: None };

        let sticky = ready.sticky.as_deref().and_then(|name| {
            let cell = shared.queues.find(namespace, name, TaskKind::Workflow, true)?;
            let now = shared.now();
            cell.look(|queue| queue.has_poller(now, STICKY_PATIENCE)).then_some(cell)
        });
        if let Some(cell) = sticky {
            asked.ask(cell);
            tokio::select! {
                biased;
                signal = heard.recv() => if let Some(Signal::Answer(answer)) = signal { return answer },
                () = deadline.as_mut() => return Err(self.missed(&ready)),
                () = tokio::time::sleep(STICKY_ANSWER) => {}
            }
        }
        asked.ask(shared.queues.open(namespace, &ready.queue, TaskKind::Workflow, false, shared.now()));
        loop {
            tokio::select! {
                biased;
                signal = heard.recv() => match signal {
                    Some(Signal::Answer(answer)) => return answer,
                    Some(Signal::FallBack) => {}
                    None => return Err(QueryFailure::Unavailable),
                },
                () = deadline.as_mut() => return Err(self.missed(&ready)),
            }
        }
    }

    /// Time is over: is it the worker, or are there none?
    fn missed(&self, ready: &QueryReady) -> QueryFailure {
        let now = self.shared.now();
        let polled = |name: &str, sticky| {
            self.shared
                .queues
                .find(ready.key.namespace, name, TaskKind::Workflow, sticky)
                .is_some_and(|cell| cell.look(|queue| queue.has_poller(now, POLLER_RECENT)))
        };
        let seen =
            polled(&ready.queue, false) || ready.sticky.as_deref().is_some_and(|name| polled(name, true));
        if seen { QueryFailure::DeadlineExceeded } else { QueryFailure::NoPoller }
    }

    /// A worker's answer to a query task. The first one counts.
    ///
    /// # Errors
    /// `NotFound` when nobody waits for it (any more); `InvalidArgument` without a type of answer.
    pub fn respond_query(
        &self,
        token: &QueryToken,
        request: RespondQueryTaskCompletedRequest,
    ) -> Result<(), Refusal> {
        let answer = match QueryResultType::try_from(request.completed_type) {
            Ok(QueryResultType::Answered) => Ok(QueryAnswer { result: request.query_result }),
            Ok(QueryResultType::Failed) => Err(QueryFailure::Failed {
                message: request.error_message,
                failure: request.failure,
                cause: request.cause,
            }),
            Ok(QueryResultType::Unspecified) | Err(_) => {
                return Err(Refusal::InvalidArgument("completedType is not set on request.".to_string()));
            }
        };
        match self.shared.queries.claim(token) {
            Some(one) if one.signals.send(Signal::Answer(answer)).is_ok() => Ok(()),
            Some(_) | None => Err(Refusal::NotFound("query task not found, or already expired".to_string())),
        }
    }
}
