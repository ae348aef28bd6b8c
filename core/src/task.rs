//! Names of dispatched tasks and of the pollers they go to (A5).

use crate::{
    chain::ChainValue,
    ids::{EventId, FailoverVersion},
};

/// Names a dispatched task (A5): checked against the run as it is when somebody brings it back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskRef {
    /// Scheduled event (for a transient workflow task: the id it will have).
    pub scheduled: EventId,
    /// Version of that event (for a transient workflow task: of the attempt).
    pub version: FailoverVersion,
    /// Attempt, from 1.
    pub attempt: i32,
    /// Temporal's stamp; grows only when options, pause or reset invalidate dispatched tasks.
    pub stamp: u32,
}

/// The poller that a task goes to.
#[derive(Clone, Debug, Default)]
pub struct PollInfo {
    /// Worker identity.
    pub identity: String,
    /// Unique id of the poll: the same request returns the same task.
    pub request_id: String,
    /// Task queue polled, as the worker named it (sticky or normal).
    pub queue: String,
    /// Whether that queue is sticky.
    pub sticky: bool,
    /// From the poll request, recorded in the started event.
    pub build_id: String,
}

/// A task as a worker brings it back: checked against the run as it is now (A4, A5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// Which task.
    pub task: TaskRef,
    /// Started event, for workflow tasks.
    pub started: EventId,
    /// Version under which the attempt was started.
    pub start_version: FailoverVersion,
    /// Branch tip at the start.
    pub tip: ChainValue,
    /// Of an activity: chain value of the batch that scheduled it (G2). [`ChainValue::NONE`]: not told.
    pub anchor: ChainValue,
}
