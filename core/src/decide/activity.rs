//! Activities: scheduled, handed out, heartbeating, completed, failed, retried, cancelled, timed out. Attempts have no
//! events; the started event is written with the closing one, so that it names the attempt that counted (api-surface 4.2).

use antipode_proto::{
    api::{
        command::v1::ScheduleActivityTaskCommandAttributes,
        common::v1::Payloads,
        enums::v1::{RetryState, TimeoutType},
        failure::v1::{Failure, TimeoutFailureInfo, failure::FailureInfo},
        history::v1::{self as history, HistoryEvent, history_event::Attributes},
        taskqueue::v1::TaskQueue,
    },
    core as wire,
};
use bytes::Bytes;
use prost::Message;

use super::{Context, Draft, Outcome, Seat, draft::event_type, workflow_task};
use crate::{
    chain::ChainValue,
    identity::Identity,
    ids::{EventId, FailoverVersion, Nanos, RegionId, Timestamp},
    refusal::Refusal,
    register::Anchor,
    retry,
    run::{Pending, Run, outcome_identity},
    state::{self, Activity},
    task::{PollInfo, Presented, TaskRef},
    view::ActivityView,
};

/// What the API says of an activity that is not there any more.
pub const GONE: &str = "invalid activityID or activity already timed out or invoking workflow is completed";

fn stale(reason: &'static str) -> Refusal {
    Refusal::TaskNotFound { message: GONE.to_string(), reason }
}

fn length(duration: Option<&prost_types::Duration>) -> Nanos {
    duration.map(Nanos::from_proto).unwrap_or_default()
}

/// The scheduled event of a command, with the defaults of the server filled in (api-surface 4.1, 4.4).
#[must_use]
pub fn scheduled_attributes(
    run: &Run,
    command: &ScheduleActivityTaskCommandAttributes,
    completed: EventId,
) -> history::ActivityTaskScheduledEventAttributes {
    let start = run.state.start.as_ref();
    let run_timeout = length(start.and_then(|start| start.attributes.workflow_run_timeout.as_ref()));
    let cap = |value: Nanos, cap: Nanos| if cap.0 > 0 && (value.0 <= 0 || value > cap) { cap } else { value };
    let to_close = cap(length(command.schedule_to_close_timeout.as_ref()), run_timeout);
    let given = length(command.start_to_close_timeout.as_ref());
    let start_to_close = cap(given, to_close);
    let to_start = cap(length(command.schedule_to_start_timeout.as_ref()), to_close);
    let beat = length(command.heartbeat_timeout.as_ref());
    let beat = if beat.0 > 0 { cap(beat, start_to_close) } else { beat };
    let queue = command.task_queue.clone().filter(|queue| !queue.name.is_empty());
    let queue = queue.unwrap_or_else(|| TaskQueue {
        name: start.map(|start| start.queue().to_string()).unwrap_or_default(),
        ..Default::default()
    });
    history::ActivityTaskScheduledEventAttributes {
        activity_id: command.activity_id.clone(),
        activity_type: command.activity_type.clone(),
        task_queue: Some(TaskQueue { kind: 1, ..queue }),
        header: command.header.clone(),
        input: command.input.clone(),
        schedule_to_close_timeout: Some(to_close.to_proto()),
        schedule_to_start_timeout: Some(to_start.to_proto()),
        start_to_close_timeout: Some(start_to_close.to_proto()),
        heartbeat_timeout: Some(beat.to_proto()),
        workflow_task_completed_event_id: completed.0,
        retry_policy: Some(retry::with_defaults(command.retry_policy.as_ref())),
        priority: command
            .priority
            .clone()
            .or_else(|| start.and_then(|start| start.attributes.priority.clone())),
        ..Default::default()
    }
}

/// A worker asks to cancel an activity: one that has not started is cancelled at once.
pub(super) fn request_cancel(
    draft: &mut Draft<'_>,
    scheduled: EventId,
    completed: EventId,
) -> Result<(), Refusal> {
    let Some(view) = draft.run.activity(scheduled) else { return Ok(()) };
    let started = view.attempt.started || view.decided;
    if view.activity.cancel_requested.is_some() {
        return Ok(());
    }
    let requested = draft.event(Attributes::ActivityTaskCancelRequestedEventAttributes(
        history::ActivityTaskCancelRequestedEventAttributes {
            scheduled_event_id: scheduled.0,
            workflow_task_completed_event_id: completed.0,
        },
    ))?;
    if !started {
        draft.event(Attributes::ActivityTaskCanceledEventAttributes(
            history::ActivityTaskCanceledEventAttributes {
                latest_cancel_requested_event_id: requested.0,
                scheduled_event_id: scheduled.0,
                ..Default::default()
            },
        ))?;
    }
    Ok(())
}

/// What matching is told of an activity.
#[must_use]
pub fn task_ref(view: &ActivityView<'_>) -> TaskRef {
    TaskRef {
        scheduled: view.activity.scheduled,
        version: view.activity.version,
        attempt: view.attempt.attempt,
        stamp: view.attempt.stamp,
    }
}

/// Checks a dispatched activity task against the run as it is now (R707–R709). A started attempt fits the poll that
/// started it.
///
/// # Errors
/// [`Refusal::TaskNotFound`] with the reason it is counted under.
pub fn check_dispatched<'a>(run: &'a Run, task: &TaskRef, poll: &str) -> Result<ActivityView<'a>, Refusal> {
    if !run.state.is_open() {
        return Err(stale("run_closed"));
    }
    let view = run.activity(task.scheduled).ok_or_else(|| stale("no_activity"))?;
    if view.activity.version != task.version {
        return Err(stale("version"));
    }
    if view.attempt.stamp != task.stamp {
        return Err(stale("stamp"));
    }
    if view.attempt.attempt != task.attempt {
        return Err(stale("attempt"));
    }
    if view.decided {
        return Err(stale("decided"));
    }
    if view.attempt.started && (poll.is_empty() || view.attempt.started_request_id != poll) {
        return Err(stale("already_started"));
    }
    Ok(view)
}

/// Hands an attempt to a poller: a register, no event.
///
/// # Errors
/// [`Refusal::TaskNotFound`] when the dispatched task does not fit the run any more (R709).
pub fn start(run: &mut Run, task: &TaskRef, poll: &PollInfo, context: Context) -> Result<(), Refusal> {
    let view = check_dispatched(run, task, &poll.request_id)?;
    if view.attempt.started {
        return Ok(()); // The same poll asks again: the same task is its answer.
    }
    let anchor = view.activity.anchor();
    let attempt = wire::ActivityAttempt {
        started: true,
        started_unix_nanos: context.now.0,
        start_version: context.version.0,
        started_identity: poll.identity.clone(),
        started_request_id: poll.request_id.clone(),
        last_worker_identity: poll.identity.clone(),
        ..view.attempt
    };
    run.set_activity_attempt(anchor, context.version, &attempt);
    Ok(())
}

/// Checks an activity task that a worker brings back (A5, R931).
///
/// # Errors
/// [`Refusal::TaskNotFound`] with the reason it is counted under.
pub fn check<'a>(run: &'a Run, presented: &Presented) -> Result<ActivityView<'a>, Refusal> {
    if !run.state.is_open() {
        return Err(stale("run_closed"));
    }
    let view = run.activity(presented.task.scheduled).ok_or_else(|| {
        // Not open on this branch: it ended, or it was scheduled on a branch that lost.
        stale(if run.is_on_current(presented.tip) { "no_activity" } else { "branch_lost" })
    })?;
    if view.activity.version != presented.task.version {
        return Err(stale("version"));
    }
    if view.attempt.attempt != presented.task.attempt {
        return Err(stale("attempt"));
    }
    if view.attempt.stamp != presented.task.stamp {
        return Err(stale("stamp"));
    }
    if view.decided {
        return Err(stale("decided"));
    }
    if !view.attempt.started {
        return Err(stale("not_started"));
    }
    if FailoverVersion(view.attempt.start_version) != presented.start_version {
        return Err(stale("start_version"));
    }
    // A token of an older version does not name it.
    let anchor = run.anchored(view.activity.anchor());
    if presented.anchor != ChainValue::NONE && presented.anchor != anchor.chain {
        return Err(stale("other_life"));
    }
    Ok(view)
}

/// An activity by its id, for the ById calls.
///
/// # Errors
/// [`Refusal::NotFound`] in the API's words.
pub fn by_id<'a>(run: &'a Run, id: &str) -> Result<ActivityView<'a>, Refusal> {
    let scheduled = run.state.activity_ids.get(id);
    let view = scheduled.and_then(|scheduled| run.activity(*scheduled)).filter(|view| !view.decided);
    view.ok_or_else(|| {
        Refusal::NotFound(format!(
            "cannot find pending activity with ActivityID {id}, check workflow execution history for more details"
        ))
    })
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With a result.
    Completed(Option<Payloads>),
    /// With a failure that the retry policy judges.
    Failed(Failure),
    /// Cancelled, as was asked.
    Canceled(Option<Payloads>),
    /// A timeout passed.
    TimedOut(TimeoutType),
}

/// Ends the running attempt of an activity: another attempt (a register), or closing events, which wait while a workflow
/// task is in flight (A2).
///
/// # Errors
/// [`Refusal::Internal`] only; the caller has checked the task.
pub fn end(
    run: &mut Run,
    scheduled: EventId,
    end: End,
    identity: &str,
    context: Context,
    seat: Seat,
) -> Result<Outcome, Refusal> {
    let Some(ended) = judge(run, scheduled, end, identity, &context) else { return Ok(Outcome::default()) };
    let (anchor, events) = (run.anchored(ended.0), ended.1);
    let identity = outcome_identity(anchor, run.key.run);
    if run.in_flight() {
        let pending = Pending {
            events,
            named_run: true,
            anchor: Some(anchor),
            accepted: (context.version, seat.place),
            region: context.region,
            origin: None,
        };
        run.pending.insert(identity, pending);
        return Ok(Outcome::default());
    }
    let mut draft = Draft::new(run, context, seat);
    write_outcome(&mut draft, anchor, events, identity)?;
    workflow_task::need(&mut draft)?;
    Ok(Outcome::of(draft.seal()?))
}

/// Decides between retry (register written, none returned) and the closing events.
pub(super) fn judge(
    run: &mut Run,
    scheduled: EventId,
    end: End,
    identity: &str,
    context: &Context,
) -> Option<(state::Anchor, Vec<HistoryEvent>)> {
    let view = run.activity(scheduled)?;
    let anchor = view.activity.anchor();
    let attempt = view.attempt.clone();
    let more = extension(&view, context).unwrap_or_else(|| given(&view, context.region));
    let (closing, failure) = match end {
        End::Completed(result) => (completed(scheduled, result, identity), None),
        End::Canceled(details) => (canceled(view.activity, details, identity), None),
        End::Failed(failure) => match try_again(&view, more, &failure, context.now) {
            Ok(at) => {
                retry_attempt(run, anchor, attempt, more, failure, at, context.version);
                return None;
            }
            Err(state) => (failed(scheduled, failure.clone(), state, identity), Some(failure)),
        },
        End::TimedOut(kind) => {
            let failure = timeout_failure(&view, kind);
            match try_again(&view, more, &failure, context.now) {
                Ok(at) => {
                    retry_attempt(run, anchor, attempt, more, failure, at, context.version);
                    return None;
                }
                Err(state) => (timed_out(scheduled, failure, state), None),
            }
        }
    };
    let _ = failure;
    let mut events = Vec::with_capacity(2);
    if attempt.started {
        events.push(unnumbered(Attributes::ActivityTaskStartedEventAttributes(started(scheduled, &attempt))));
    }
    events.push(unnumbered(closing));
    Some((anchor, events))
}

fn unnumbered(attributes: Attributes) -> HistoryEvent {
    HistoryEvent {
        event_type: event_type(&attributes) as i32,
        attributes: Some(attributes),
        ..HistoryEvent::default()
    }
}

fn started(
    scheduled: EventId,
    attempt: &wire::ActivityAttempt,
) -> history::ActivityTaskStartedEventAttributes {
    history::ActivityTaskStartedEventAttributes {
        scheduled_event_id: scheduled.0,
        identity: attempt.started_identity.clone(),
        request_id: attempt.started_request_id.clone(),
        attempt: attempt.attempt,
        last_failure: decode_failure(&attempt.last_failure),
        ..Default::default()
    }
}

/// The stored failure of the attempt before.
#[must_use]
pub fn decode_failure(bytes: &Bytes) -> Option<Failure> {
    if bytes.is_empty() { None } else { Failure::decode(&**bytes).ok() }
}

fn completed(scheduled: EventId, result: Option<Payloads>, identity: &str) -> Attributes {
    Attributes::ActivityTaskCompletedEventAttributes(history::ActivityTaskCompletedEventAttributes {
        result,
        scheduled_event_id: scheduled.0,
        identity: identity.to_string(),
        ..Default::default()
    })
}

fn canceled(activity: &Activity, details: Option<Payloads>, identity: &str) -> Attributes {
    Attributes::ActivityTaskCanceledEventAttributes(history::ActivityTaskCanceledEventAttributes {
        details,
        latest_cancel_requested_event_id: activity.cancel_requested.map_or(0, |event| event.0),
        scheduled_event_id: activity.scheduled.0,
        identity: identity.to_string(),
        ..Default::default()
    })
}

fn failed(scheduled: EventId, failure: Failure, state: RetryState, identity: &str) -> Attributes {
    Attributes::ActivityTaskFailedEventAttributes(history::ActivityTaskFailedEventAttributes {
        failure: Some(failure),
        scheduled_event_id: scheduled.0,
        identity: identity.to_string(),
        retry_state: state as i32,
        ..Default::default()
    })
}

fn timed_out(scheduled: EventId, failure: Failure, state: RetryState) -> Attributes {
    Attributes::ActivityTaskTimedOutEventAttributes(history::ActivityTaskTimedOutEventAttributes {
        failure: Some(failure),
        scheduled_event_id: scheduled.0,
        retry_state: state as i32,
        ..Default::default()
    })
}

fn timeout_failure(view: &ActivityView<'_>, kind: TimeoutType) -> Failure {
    let name = match kind {
        TimeoutType::ScheduleToStart => "ScheduleToStart",
        TimeoutType::ScheduleToClose => "ScheduleToClose",
        TimeoutType::Heartbeat => "Heartbeat",
        TimeoutType::StartToClose | TimeoutType::Unspecified => "StartToClose",
    };
    let details = view.heartbeat.as_ref().and_then(|beat| Payloads::decode(&*beat.details).ok());
    Failure {
        message: format!("activity {name} timeout"),
        source: "Server".to_string(),
        cause: decode_failure(&view.attempt.last_failure).map(Box::new),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: kind as i32,
            last_heartbeat_details: details.filter(|details| !details.payloads.is_empty()),
        })),
        ..Default::default()
    }
}

fn try_again(
    view: &ActivityView<'_>,
    more: wire::Extension,
    failure: &Failure,
    now: Timestamp,
) -> Result<Timestamp, RetryState> {
    if view.activity.cancel_requested.is_some() {
        return Err(RetryState::CancelRequested);
    }
    let policy = view.activity.attributes.retry_policy.as_ref().ok_or(RetryState::RetryPolicyNotSet)?;
    retry::next_attempt(policy, view.attempt.attempt, failure, now, expires_at(view.activity, more))
}

fn retry_attempt(
    run: &mut Run,
    anchor: state::Anchor,
    attempt: wire::ActivityAttempt,
    more: wire::Extension,
    failure: Failure,
    at: Timestamp,
    version: FailoverVersion,
) {
    let next = wire::ActivityAttempt {
        attempt: attempt.attempt + 1,
        scheduled_unix_nanos: at.0,
        last_failure: Bytes::from(failure.encode_to_vec()),
        last_worker_identity: attempt.started_identity,
        stamp: attempt.stamp,
        // The next attempt starts by our own clock; when the activity was scheduled stays as it is.
        extended: (more.scheduled_nanos > 0).then_some(wire::Extension {
            started_nanos: 0,
            heartbeat_nanos: 0,
            ..more
        }),
        ..Default::default()
    };
    run.set_activity_attempt(anchor, version, &next);
}

/// Writes the closing events of an activity that is still open. True when something was written.
pub(super) fn write_outcome(
    draft: &mut Draft<'_>,
    anchor: Anchor,
    events: Vec<HistoryEvent>,
    identity: Identity,
) -> Result<bool, Refusal> {
    if !draft.run.is_open_at(anchor) {
        return Ok(false);
    }
    let mut begun = 0;
    let mut last = EventId(0);
    for event in events {
        let Some(mut attributes) = event.attributes else { continue };
        match &mut attributes {
            Attributes::ActivityTaskCompletedEventAttributes(a) => a.started_event_id = begun,
            Attributes::ActivityTaskFailedEventAttributes(a) => a.started_event_id = begun,
            Attributes::ActivityTaskTimedOutEventAttributes(a) => a.started_event_id = begun,
            Attributes::ActivityTaskCanceledEventAttributes(a) => a.started_event_id = begun,
            _ => {}
        }
        last = draft.event(attributes)?;
        if begun == 0 {
            begun = last.0;
        }
    }
    draft.identify(last, identity, true, None);
    Ok(true)
}

/// RecordActivityTaskHeartbeat: a register (A6: its own).
pub fn heartbeat(run: &mut Run, scheduled: EventId, details: Option<&Payloads>, context: Context) -> bool {
    let Some(view) = run.activity(scheduled) else { return false };
    let anchor = view.activity.anchor();
    let cancel = view.activity.cancel_requested.is_some();
    let beat = wire::ActivityHeartbeat {
        recorded_unix_nanos: context.now.0,
        details: details.map(|details| Bytes::from(details.encode_to_vec())).unwrap_or_default(),
    };
    run.set_activity_heartbeat(anchor, context.version, &beat);
    cancel
}

/// What this region gave to an activity (H2). What another one gave is by that one's clock.
fn given(view: &ActivityView<'_>, here: RegionId) -> wire::Extension {
    view.attempt.extended.filter(|extended| extended.region == here.0).unwrap_or_default()
}

/// H2: what a started attempt is given, once a version, where the clocks that its deadlines count from may be behind ours.
fn extension(view: &ActivityView<'_>, context: &Context) -> Option<wire::Extension> {
    let attempt = &view.attempt;
    if !attempt.started || attempt.extended.is_some_and(|extended| extended.version == context.version.0) {
        return None;
    }
    let behind = |wrote| context.clocks.behind(wrote).0;
    let more = wire::Extension {
        version: context.version.0,
        region: context.region.0,
        scheduled_nanos: behind(view.activity.version),
        started_nanos: behind(FailoverVersion(attempt.start_version)),
        heartbeat_nanos: behind(view.heartbeat_version),
    };
    (more.scheduled_nanos > 0 || more.started_nanos > 0 || more.heartbeat_nanos > 0).then_some(more)
}

/// A deadline of an activity has passed by our clock. When it has not by the clock that it counts from, as far as that is known, the
/// activity gets so much longer (H2): a register, so that the next owner and the other regions know it. True when it did.
///
/// It is written only where the attempt would time out: a register of an attempt that goes on would hide what its own region wrote
/// of it and has not come yet.
pub(super) fn extend(draft: &mut Draft<'_>, scheduled: EventId) -> bool {
    let Some(view) = draft.run.activity(scheduled) else { return false };
    let Some(more) = extension(&view, &draft.context) else { return false };
    let attempt = wire::ActivityAttempt { extended: Some(more), ..view.attempt.clone() };
    let longer = ActivityView { attempt, ..view };
    let (version, here) = (draft.context.version, draft.context.region);
    if timeout(&longer, here).is_some_and(|(at, _)| at <= draft.context.now) {
        return false;
    }
    let (anchor, attempt) = (longer.activity.anchor(), longer.attempt);
    draft.run.set_activity_attempt(anchor, version, &attempt);
    true
}

/// When an activity times out however far it is.
fn expires_at(activity: &Activity, more: wire::Extension) -> Option<Timestamp> {
    activity.expires_at().map(|at| at.plus(Nanos(more.scheduled_nanos)))
}

/// The earliest timeout of an open activity that is not decided yet, by the clock of this region.
#[must_use]
pub fn timeout(view: &ActivityView<'_>, here: RegionId) -> Option<(Timestamp, TimeoutType)> {
    let activity = view.activity;
    let more = given(view, here);
    let mut earliest: Option<(Timestamp, TimeoutType)> = None;
    let mut at = |time: Option<Timestamp>, kind: TimeoutType| {
        if let Some(time) = time
            && earliest.is_none_or(|(known, _)| time < known)
        {
            earliest = Some((time, kind));
        }
    };
    at(expires_at(activity, more), TimeoutType::ScheduleToClose);
    let due = Timestamp(view.attempt.scheduled_unix_nanos);
    if view.attempt.started {
        let begun = Timestamp(view.attempt.started_unix_nanos).plus(Nanos(more.started_nanos));
        at(activity.start_to_close().map(|limit| begun.plus(limit)), TimeoutType::StartToClose);
        // A heartbeat that came here since then has our own clock.
        let before = view.heartbeat_version.0 < more.version;
        let later = Nanos(if before { more.heartbeat_nanos } else { 0 });
        let recorded = |beat: &wire::ActivityHeartbeat| Timestamp(beat.recorded_unix_nanos).plus(later);
        let beat = view.heartbeat.as_ref().map_or(begun, |beat| recorded(beat).max(begun));
        at(activity.heartbeat().map(|limit| beat.plus(limit)), TimeoutType::Heartbeat);
    } else {
        at(activity.schedule_to_start().map(|limit| due.plus(limit)), TimeoutType::ScheduleToStart);
    }
    earliest
}
