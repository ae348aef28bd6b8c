//! Views of a run: what is live of registers and pending events on the current branch (A1, A2, A7, A8). Pure functions of
//! (current branch, registers, pending set), never of arrival order.

use antipode_proto::core as wire;
use prost::Message;

use crate::{
    identity::Identity,
    ids::{EventId, FailoverVersion, Timestamp},
    register::{Anchor, Kind},
    run::{Pending, Run, Sticky, outcome_identity},
    state::Activity,
};

/// The workflow task that is pending, with or without events of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// Scheduled event, or the id it would have.
    pub scheduled: EventId,
    /// Version of that event, or of the attempt.
    pub version: FailoverVersion,
    /// Attempt, from 1.
    pub attempt: i32,
    /// Time of that event; an attempt without events is not dispatched before.
    pub scheduled_at: Timestamp,
    /// Clock of who scheduled it (H2).
    pub clock: Timestamp,
    /// Once started.
    pub started: Option<crate::state::TaskStarted>,
    /// It has no events of its own (A4).
    pub transient: bool,
    /// Scheduled for a sticky queue.
    pub sticky: bool,
}

/// An open activity with its live registers.
#[derive(Clone, Debug)]
pub struct ActivityView<'a> {
    /// From its events.
    pub activity: &'a Activity,
    /// Attempt register, or what holds before there is one.
    pub attempt: wire::ActivityAttempt,
    /// Last heartbeat.
    pub heartbeat: Option<wire::ActivityHeartbeat>,
    /// Version under which it was taken: whose clock it has (H2).
    pub heartbeat_version: FailoverVersion,
    /// An outcome was accepted and waits for the workflow task to end.
    pub decided: bool,
}

impl Run {
    /// The workflow task that is pending.
    #[must_use]
    pub fn task(&self) -> Option<TaskView> {
        if let Some(task) = &self.state.task {
            return Some(TaskView {
                scheduled: task.scheduled,
                version: task.version,
                attempt: task.attempt,
                scheduled_at: task.scheduled_at,
                clock: task.clock,
                started: task.started.clone(),
                transient: false,
                sticky: task.sticky,
            });
        }
        if !self.state.is_open() {
            return None;
        }
        if self.registers.is_empty() {
            return None;
        }
        // A7: live only while its anchor is the last workflow-task event.
        let register = self.registers.at(self.anchored(self.state.task_anchor), Kind::WorkflowTaskAttempt)?;
        let attempt = wire::WorkflowTaskAttempt::decode(&*register.value).ok()?;
        if attempt.attempt <= 0 {
            return None;
        }
        let scheduled = self.state.next_event;
        // A4: whatever was appended since the start is unknown to the worker. The start is void and the attempt waits again.
        let whole = attempt.started_tip.is_empty() || attempt.started_tip == self.tip().to_bytes();
        let started = (attempt.started && whole).then(|| crate::state::TaskStarted {
            event: scheduled.next(),
            version: FailoverVersion(attempt.start_version),
            at: Timestamp(attempt.started_unix_nanos),
            clock: Timestamp(attempt.started_unix_nanos),
            request_id: attempt.started_request_id,
            identity: attempt.started_identity,
        });
        Some(TaskView {
            scheduled,
            version: register.order.version,
            attempt: attempt.attempt,
            scheduled_at: Timestamp(attempt.scheduled_unix_nanos),
            clock: Timestamp(attempt.scheduled_unix_nanos),
            started,
            transient: true,
            sticky: false,
        })
    }

    /// A workflow task is in a worker's hand: events wait for its end.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.task().is_some_and(|task| task.started.is_some())
    }

    /// A8: the sticky binding while it holds.
    #[must_use]
    pub fn sticky(&self, version: FailoverVersion) -> Option<&Sticky> {
        self.sticky.as_ref().filter(|sticky| sticky.version == version && self.is_on_current(sticky.tip))
    }

    /// An open activity with its live registers.
    #[must_use]
    pub fn activity(&self, scheduled: EventId) -> Option<ActivityView<'_>> {
        let activity = self.state.activities.get(&scheduled)?;
        let anchor = self.anchored(activity.anchor());
        let attempt = self
            .registers
            .at(anchor, Kind::ActivityAttempt)
            .and_then(|register| wire::ActivityAttempt::decode(&*register.value).ok())
            .unwrap_or_else(|| wire::ActivityAttempt {
                attempt: 1,
                scheduled_unix_nanos: activity.clock.0,
                ..Default::default()
            });
        let beat = self.registers.at(anchor, Kind::ActivityHeartbeat);
        let heartbeat_version = beat.as_ref().map(|register| register.order.version).unwrap_or_default();
        let heartbeat = beat.and_then(|register| wire::ActivityHeartbeat::decode(&*register.value).ok());
        let waits = |anchor| self.pending.contains_key(&outcome_identity(anchor, self.key.run));
        // An older version accepted it under the pair alone.
        let decided = !self.pending.is_empty() && (waits(anchor) || waits(anchor.bare()));
        Some(ActivityView { activity, attempt, heartbeat, heartbeat_version, decided })
    }

    /// Pending events that are to be written on the current branch, in order of acceptance (A2).
    #[must_use]
    pub fn pending_live(&self) -> Vec<(Identity, Pending)> {
        let mut live: Vec<_> = self
            .pending
            .iter()
            .filter(|(identity, pending)| !self.state.applied.contains(identity) && self.is_live(pending))
            .map(|(identity, pending)| (identity.clone(), pending.clone()))
            .collect();
        live.sort_by(|(a_id, a), (b_id, b)| (a.accepted, a_id).cmp(&(b.accepted, b_id)));
        live
    }

    /// Whether there is a pending event to write.
    #[must_use]
    pub fn has_pending_live(&self) -> bool {
        self.pending
            .iter()
            .any(|(identity, pending)| !self.state.applied.contains(identity) && self.is_live(pending))
    }

    fn is_live(&self, pending: &Pending) -> bool {
        pending.anchor.is_none_or(|anchor| self.is_open_at(anchor))
    }

    /// Whether the activity that an outcome is for is open on the current branch: this very one, not another that another life
    /// of the store scheduled under the same id and version (G2).
    pub(crate) fn is_open_at(&self, anchor: Anchor) -> bool {
        self.state.activities.get(&anchor.event).is_some_and(|activity| {
            let here = self.anchored(activity.anchor());
            here == anchor || here.bare() == anchor
        })
    }
}
