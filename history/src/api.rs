//! What may be asked of a shard, and what it answers. Requests carry the public API's own messages, already validated
//! for shape by the frontend; the namespace is resolved to its id. One request, one run (or workflow id), one shard.

use antipode_core::{
    batch::Batch,
    ids::{EventId, FailoverVersion, RunId, RunKey, Sequence, Timestamp, WorkflowKey},
};
use antipode_proto::{api::workflowservice::v1 as ws, core as wire};
use bytes::Bytes;
use std::sync::Arc;

/// A request to the shard that owns the workflow id.
#[derive(Clone, Debug)]
pub struct Request {
    /// Namespace and workflow id.
    pub workflow: WorkflowKey,
    /// Run asked for; none: the current one.
    pub run: Option<RunId>,
    /// What is asked.
    pub operation: Operation,
}

/// Operations of a shard. `// W` writes, `// R` reads.
#[derive(Clone, Debug)]
pub enum Operation {
    /// W StartWorkflowExecution -> [`Reply::Start`].
    Start(Box<ws::StartWorkflowExecutionRequest>),
    /// W SignalWorkflowExecution -> [`Reply::Done`].
    Signal(Box<ws::SignalWorkflowExecutionRequest>),
    /// W SignalWithStartWorkflowExecution -> [`Reply::SignalWithStart`].
    SignalWithStart(Box<ws::SignalWithStartWorkflowExecutionRequest>),
    /// W RequestCancelWorkflowExecution -> [`Reply::Done`].
    RequestCancel(Box<ws::RequestCancelWorkflowExecutionRequest>),
    /// W TerminateWorkflowExecution -> [`Reply::Done`].
    Terminate(Box<ws::TerminateWorkflowExecutionRequest>),
    /// R DescribeWorkflowExecution -> [`Reply::Describe`].
    Describe,
    /// R GetWorkflowExecutionHistory and its reverse -> [`Reply::History`].
    History(HistoryRequest),
    /// W Matching hands a workflow task to a poller -> [`Reply::WorkflowTask`]. Refused with `TaskNotFound` when stale.
    WorkflowTaskStart {
        /// The dispatched task.
        task: TaskRef,
        /// The poller.
        poll: PollInfo,
    },
    /// W Matching hands an activity task to a poller -> [`Reply::ActivityTask`]. Refused with `TaskNotFound` when stale.
    ActivityTaskStart {
        /// The dispatched task.
        task: TaskRef,
        /// The poller.
        poll: PollInfo,
    },
    /// W RespondWorkflowTaskCompleted -> [`Reply::WorkflowTaskCompleted`].
    WorkflowTaskCompleted(TaskToken, Box<ws::RespondWorkflowTaskCompletedRequest>),
    /// W RespondWorkflowTaskFailed -> [`Reply::Done`].
    WorkflowTaskFailed(TaskToken, Box<ws::RespondWorkflowTaskFailedRequest>),
    /// W RespondActivityTaskCompleted (and ById, see [`ActivityRef`]) -> [`Reply::Done`].
    ActivityCompleted(ActivityRef, Box<ws::RespondActivityTaskCompletedRequest>),
    /// W RespondActivityTaskFailed -> [`Reply::Done`].
    ActivityFailed(ActivityRef, Box<ws::RespondActivityTaskFailedRequest>),
    /// W RespondActivityTaskCanceled -> [`Reply::Done`].
    ActivityCanceled(ActivityRef, Box<ws::RespondActivityTaskCanceledRequest>),
    /// W RecordActivityTaskHeartbeat -> [`Reply::Heartbeat`].
    ActivityHeartbeat(ActivityRef, Box<ws::RecordActivityTaskHeartbeatRequest>),
    /// R Waits until no workflow task is pending, then answers with what a query task needs -> [`Reply::Query`].
    PrepareQuery {
        /// `temporal.api.enums.v1.QueryRejectCondition`.
        reject_condition: i32,
    },
    /// W ResetStickyTaskQueue -> [`Reply::Done`].
    ResetSticky,
    /// R Everything the operator's `run inspect` and `run branches` show -> [`Reply::Inspect`].
    Inspect,
    /// R Batches of one branch for a peer -> [`Reply::Fetched`].
    Fetch {
        /// A branch the peer has; empty: from the first event.
        known: antipode_core::version_history::VersionHistory,
        /// The branch that ends with this chain value; none: the current one, or, when nothing is known, all of them.
        until: Option<antipode_core::chain::ChainValue>,
    },
}

/// Read of a run's history.
#[derive(Clone, Debug, Default)]
pub struct HistoryRequest {
    /// First event wanted (forward) or last (reverse); 0: from the start (or end).
    pub from: EventId,
    /// Events a page.
    pub page_size: usize,
    /// Wait until there is an event at or after `from`, or the run closes. The caller bounds the wait and treats its own
    /// timeout as "nothing new".
    pub wait: bool,
    /// Only the closing event, once closed.
    pub close_event_only: bool,
    /// Newest first.
    pub reverse: bool,
    /// Chain value of the branch the reader started on; a switch of branch ends the read with `HistoryRewritten`.
    pub branch: Option<antipode_core::chain::ChainValue>,
}

/// Page of history.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The run that was read.
    pub run: RunId,
    /// An encoded `temporal.api.history.v1.History`.
    pub events: Bytes,
    /// Event to continue from; none: the end of a closed run, or of what there is now when the caller does not wait.
    pub next: Option<EventId>,
    /// Whether the run is open.
    pub open: bool,
    /// Chain value at the tip of the branch that was read: the next page asks for it.
    pub branch: antipode_core::chain::ChainValue,
}

pub use antipode_core::task::{PollInfo, TaskRef};

/// A task offered to matching. It may wait there, or die with it: the shard derives it again.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Run.
    pub key: RunKey,
    /// Queue; for a sticky offer the sticky queue's name.
    pub queue: String,
    /// Kind.
    pub kind: TaskKind,
    /// Which task.
    pub task: TaskRef,
    /// The queue is a sticky one: without a recent poller the offer is refused.
    pub sticky: bool,
    /// When it was scheduled.
    pub scheduled_at: Timestamp,
}

pub use antipode_persistence::rows::TaskKind;

/// What matching says to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Handed over or queued.
    Yes,
    /// No credit: the row stays in the dispatch index; matching asks for it again with `refill`.
    NoCredit,
    /// Nobody has polled this sticky queue lately.
    StickyUnavailable,
}

/// The side of matching that shards see. Called only with offers whose state is durable.
pub trait Dispatcher: Send + Sync + 'static {
    /// Offers a task. Never blocks.
    fn offer(&self, offer: Offer) -> Taken;
}

/// A task token of a workflow or activity task, decoded. Opaque to clients. Encoded by `token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskToken {
    /// Run.
    pub key: RunKey,
    /// Which task.
    pub task: TaskRef,
    /// Started event, when it has one (workflow tasks).
    pub started: EventId,
    /// Version under which the attempt was started (A5).
    pub start_version: FailoverVersion,
    /// Branch tip at the start: completion requires it to be a prefix of the current branch (A4).
    pub tip: antipode_core::chain::ChainValue,
    /// Of an activity: chain value of the batch that scheduled it (G2). [`antipode_core::chain::ChainValue::NONE`]: not told.
    pub anchor: antipode_core::chain::ChainValue,
    /// Kind.
    pub kind: TaskKind,
    /// Activity id, for messages.
    pub activity_id: String,
}

/// How a worker names an activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivityRef {
    /// By task token.
    Token(TaskToken),
    /// By activity id: the run is the request's.
    ById(String),
}

/// Answers, by operation.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Nothing but success.
    Done,
    /// Start.
    Start(Box<ws::StartWorkflowExecutionResponse>),
    /// Signal with start.
    SignalWithStart(Box<ws::SignalWithStartWorkflowExecutionResponse>),
    /// Describe.
    Describe(Box<ws::DescribeWorkflowExecutionResponse>),
    /// History.
    History(HistoryPage),
    /// Workflow task for a poller. `history` is unset in the message: beside it stands the encoded `History`, so that
    /// the shard does not decode what it only passes on.
    WorkflowTask(Box<ws::PollWorkflowTaskQueueResponse>, Bytes),
    /// Activity task for a poller.
    ActivityTask(Box<ws::PollActivityTaskQueueResponse>),
    /// Workflow task completed.
    WorkflowTaskCompleted(Box<ws::RespondWorkflowTaskCompletedResponse>),
    /// Heartbeat.
    Heartbeat(Box<ws::RecordActivityTaskHeartbeatResponse>),
    /// Ready for a query.
    Query(Box<QueryReady>),
    /// Inspect.
    Inspect(Box<antipode_proto::admin::InspectRunReply>),
    /// Fetch.
    Fetched {
        /// Batches in order of event id.
        batches: Vec<Arc<Batch>>,
        /// Registers and pending events.
        state: Box<wire::RunState>,
    },
}

/// What a query task carries.
#[derive(Clone, Debug)]
pub struct QueryReady {
    /// Run.
    pub key: RunKey,
    /// Workflow type.
    pub workflow_type: String,
    /// Normal queue.
    pub queue: String,
    /// Sticky queue, while bound.
    pub sticky: Option<String>,
    /// Full history, an encoded `History`.
    pub history: Bytes,
    /// Last completed workflow task's started event.
    pub previous_started: EventId,
    /// Set when the reject condition holds: the run's status.
    pub rejected: Option<i32>,
}

pub use antipode_core::refusal::Refusal;

/// A replicated entry for one run, as the receiver hands it to the owning shard.
#[derive(Clone, Debug)]
pub enum Replicated {
    /// History.
    Batch(Arc<Batch>),
    /// History that closes its run, and no region has the run that continues it: it was deleted after its retention (C6), and who
    /// gets the batch late, after a restore, does not wait for it (B8).
    Last(Arc<Batch>),
    /// Registers and pending events.
    State(Box<wire::RunState>),
}

/// What became of a replicated entry. Given only when the state it rests on is durable (D1, E1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Durably applied at this position.
    Applied(Sequence),
    /// Already known.
    Duplicate,
    /// A hole: fetch this run (from a branch known here, up to the given chain value), apply, and offer it again.
    NeedEvents {
        /// Run to fetch (it may be a successor: B8).
        key: RunKey,
        /// Best known branch; empty when the run is not stored.
        known: antipode_core::version_history::VersionHistory,
        /// Branch wanted.
        until: Option<antipode_core::chain::ChainValue>,
    },
    /// Cannot be applied: quarantine it (E1).
    Poison(String),
    /// Try again: a commit failed or the shard is moving.
    Retry(String),
}
