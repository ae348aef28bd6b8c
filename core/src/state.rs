//! Mutable state: what the fold of a branch's events says about a run. Only `fold` writes it (DESIGN section 3): [`State`]
//! gives these facts to everybody to read, and its field to nobody. What has no event (attempts, heartbeats, pending events)
//! is beside it in `run` and selected by the views there (A1).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_proto::api::{
    common::v1 as common, enums::v1::WorkflowExecutionStatus as Status, history::v1 as history,
};

pub use crate::fold::State;
use crate::{
    identity::Identity,
    ids::{EventId, FailoverVersion, Nanos, RunId, Timestamp},
};

/// An event of the current branch by id and version. What hangs on it also names its batch: [`crate::run::Run::anchored`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Anchor {
    /// Event.
    pub event: EventId,
    /// Its version.
    pub version: FailoverVersion,
}

/// What the current branch of a run tells about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Id of the next event.
    pub next_event: EventId,
    /// Version of the last event.
    pub last_version: FailoverVersion,
    /// Time of the last event.
    pub last_time: Timestamp,
    /// The start; none before the first event.
    pub start: Option<Start>,
    /// Status by events; a zombie is running here.
    pub status: Status,
    /// The closing event.
    pub close: Option<Close>,
    /// The workflow task that has events of its own.
    pub task: Option<Task>,
    /// Last workflow-task event: the slot's anchor (A7).
    pub task_anchor: Anchor,
    /// Attempt of the workflow task that failed or timed out last; 0 when the last one completed.
    pub task_failed_attempt: i32,
    /// Started event of the last completed workflow task; 0 before.
    pub previous_started: EventId,
    /// Completed event of the last completed workflow task; 0 before.
    pub last_completed: EventId,
    /// Open activities by scheduled event.
    pub activities: BTreeMap<EventId, Activity>,
    /// Scheduled events of open activities by activity id.
    pub activity_ids: BTreeMap<String, EventId>,
    /// Open timers by timer id.
    pub timers: BTreeMap<String, Timer>,
    /// A cancel request was recorded.
    pub cancel_requested: bool,
    /// Signals recorded.
    pub signals: u64,
    /// Current memo.
    pub memo: Option<common::Memo>,
    /// Current search attributes.
    pub search_attributes: Option<common::SearchAttributes>,
    /// Identities on the current branch and inherited from the chain (A3, B2).
    pub applied: BTreeSet<Identity>,
    /// Bytes of events.
    pub history_bytes: i64,
    /// Batches.
    pub transitions: i64,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            next_event: EventId(1),
            last_version: FailoverVersion(0),
            last_time: Timestamp(0),
            start: None,
            status: Status::Running,
            close: None,
            task: None,
            task_anchor: Anchor::default(),
            task_failed_attempt: 0,
            previous_started: EventId(0),
            last_completed: EventId(0),
            activities: BTreeMap::new(),
            activity_ids: BTreeMap::new(),
            timers: BTreeMap::new(),
            cancel_requested: false,
            signals: 0,
            memo: None,
            search_attributes: None,
            applied: BTreeSet::new(),
            history_bytes: 0,
            transitions: 0,
        }
    }
}

/// How the run started.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Attributes of the started event.
    pub attributes: Arc<history::WorkflowExecutionStartedEventAttributes>,
    /// Time of the started event.
    pub at: Timestamp,
    /// The writer's clock: deadlines count from here (H2).
    pub clock: Timestamp,
    /// Version of the started event.
    pub version: FailoverVersion,
    /// Metadata of the started event.
    pub user_metadata: Option<antipode_proto::api::sdk::v1::UserMetadata>,
}

impl Start {
    /// Normal task queue of the run.
    #[must_use]
    pub fn queue(&self) -> &str {
        self.attributes.task_queue.as_ref().map_or("", |queue| queue.name.as_str())
    }

    /// Workflow type.
    #[must_use]
    pub fn workflow_type(&self) -> &str {
        self.attributes.workflow_type.as_ref().map_or("", |kind| kind.name.as_str())
    }

    /// Start-to-close timeout of workflow tasks; 10 s when the event has none.
    #[must_use]
    pub fn task_timeout(&self) -> Nanos {
        match self.attributes.workflow_task_timeout.as_ref().map(Nanos::from_proto) {
            Some(timeout) if timeout.0 > 0 => timeout,
            _ => Nanos::seconds(10),
        }
    }

    /// When the first workflow task may be scheduled.
    #[must_use]
    pub fn first_task_at(&self) -> Timestamp {
        let backoff = self.attributes.first_workflow_task_backoff.as_ref().map(Nanos::from_proto);
        self.clock.plus(backoff.unwrap_or_default())
    }

    /// When the run times out; none: never. The earlier of run and execution expiration.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let run = self.attributes.workflow_run_timeout.as_ref().map(Nanos::from_proto);
        let run = run.filter(|timeout| timeout.0 > 0).map(|timeout| self.first_task_at().plus(timeout));
        let execution =
            self.attributes.workflow_execution_expiration_time.as_ref().map(Timestamp::from_proto);
        let execution = execution.filter(|time| time.0 > 0);
        match (run, execution) {
            (Some(run), Some(execution)) => Some(run.min(execution)),
            (run, execution) => run.or(execution),
        }
    }
}

/// How the run closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Closing event.
    pub event: EventId,
    /// Its time.
    pub at: Timestamp,
    /// The writer's clock: the retention counts from here (H2).
    pub clock: Timestamp,
    /// Its version.
    pub version: FailoverVersion,
    /// Next run of the chain.
    pub successor: Option<RunId>,
}

/// A workflow task with events of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Scheduled event.
    pub scheduled: EventId,
    /// Version of the scheduled event.
    pub version: FailoverVersion,
    /// Time of the scheduled event.
    pub scheduled_at: Timestamp,
    /// The writer's clock: deadlines count from here (H2).
    pub clock: Timestamp,
    /// Attempt, from 1.
    pub attempt: i32,
    /// Queue of the scheduled event.
    pub queue: String,
    /// That queue is a sticky one.
    pub sticky: bool,
    /// Started event, once started.
    pub started: Option<TaskStarted>,
}

/// Start of a workflow task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStarted {
    /// Started event.
    pub event: EventId,
    /// Its version.
    pub version: FailoverVersion,
    /// Its time.
    pub at: Timestamp,
    /// The writer's clock: deadlines count from here (H2).
    pub clock: Timestamp,
    /// Poll request that got it.
    pub request_id: String,
    /// Worker.
    pub identity: String,
}

/// An open activity.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    /// Scheduled event.
    pub scheduled: EventId,
    /// Version of the scheduled event.
    pub version: FailoverVersion,
    /// Time of the scheduled event.
    pub scheduled_at: Timestamp,
    /// The writer's clock: deadlines count from here (H2).
    pub clock: Timestamp,
    /// Attributes of the scheduled event.
    pub attributes: Arc<history::ActivityTaskScheduledEventAttributes>,
    /// Cancel-requested event.
    pub cancel_requested: Option<EventId>,
}

impl Activity {
    /// Anchor of its registers.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor { event: self.scheduled, version: self.version }
    }

    /// Task queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        self.attributes.task_queue.as_ref().map_or("", |queue| queue.name.as_str())
    }

    fn timeout(duration: Option<&prost_types::Duration>) -> Option<Nanos> {
        duration.map(Nanos::from_proto).filter(|timeout| timeout.0 > 0)
    }

    /// When it times out however far it is; none: never.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.schedule_to_close().map(|limit| self.clock.plus(limit))
    }

    /// Schedule-to-close timeout, when set.
    #[must_use]
    pub fn schedule_to_close(&self) -> Option<Nanos> {
        Self::timeout(self.attributes.schedule_to_close_timeout.as_ref())
    }

    /// Schedule-to-start timeout, when set.
    #[must_use]
    pub fn schedule_to_start(&self) -> Option<Nanos> {
        Self::timeout(self.attributes.schedule_to_start_timeout.as_ref())
    }

    /// Start-to-close timeout, when set.
    #[must_use]
    pub fn start_to_close(&self) -> Option<Nanos> {
        Self::timeout(self.attributes.start_to_close_timeout.as_ref())
    }

    /// Heartbeat timeout, when set.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Nanos> {
        Self::timeout(self.attributes.heartbeat_timeout.as_ref())
    }
}

/// An open timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Started event.
    pub started: EventId,
    /// Its version.
    pub version: FailoverVersion,
    /// When it is due: the clock of who started it, plus its length (H2).
    pub due: Timestamp,
    /// Time of its event, plus its length: what digests say.
    pub shown: Timestamp,
}

impl Facts {
    /// Whether the run is open by its events.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.close.is_none()
    }

    /// Last event.
    #[must_use]
    pub fn last_event(&self) -> EventId {
        EventId(self.next_event.0 - 1)
    }
}
