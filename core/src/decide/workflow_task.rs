//! The life of a workflow task: scheduled, started, failed, timed out. One is pending at a time; after a failure the next
//! attempts are transient: they have no events until one of them completes (api-surface 4.3).

use antipode_proto::{
    api::{
        enums::v1::{TaskQueueKind, TimeoutType, WorkflowTaskFailedCause as Cause},
        failure::v1::Failure,
        history::v1::{self as history, history_event::Attributes},
        taskqueue::v1::TaskQueue,
    },
    core as wire,
};

use super::{Context, Draft, Outcome, Seat, broken};
use crate::{
    ids::{EventId, Nanos, Timestamp},
    refusal::Refusal,
    run::Run,
    task::{PollInfo, Presented, TaskRef},
    view::TaskView,
};

/// History length from which a workflow task suggests continue-as-new.
const SUGGEST_EVENTS: i64 = 4096;
/// History size from which a workflow task suggests continue-as-new.
const SUGGEST_BYTES: i64 = 4 << 20;

/// What matching is told of a task.
#[must_use]
pub fn task_ref(task: &TaskView) -> TaskRef {
    TaskRef { scheduled: task.scheduled, version: task.version, attempt: task.attempt, stamp: 0 }
}

/// Schedules a workflow task unless one is pending. Called after every event that a worker must see.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn need(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    let Some(start) = &draft.run.state.start else { return Ok(()) };
    let waits = draft.run.state.previous_started.0 == 0
        && draft.run.state.task_anchor.event.0 == 0
        && start.first_task_at() > draft.context.now;
    if !draft.run.state.is_open() || draft.run.state.task.is_some() || waits {
        return Ok(());
    }
    // A transient task that is in a worker's hand keeps the slot; one that only waits is replaced by a real one, so
    // that its events come after the new one (A4).
    if draft.is_empty() && draft.run.in_flight() {
        return Ok(());
    }
    schedule(draft)
}

/// Writes the scheduled event.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn schedule(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    schedule_attempt(draft, 1).map(|_| ())
}

fn schedule_attempt(draft: &mut Draft<'_>, attempt: i32) -> Result<EventId, Refusal> {
    let start = draft.run.state.start.as_ref().ok_or_else(|| broken("a run without a start"))?;
    let normal = start.queue().to_string();
    let timeout = start.task_timeout();
    let task_queue = match draft.run.sticky(draft.context.version) {
        Some(sticky) => {
            TaskQueue { name: sticky.queue.clone(), kind: TaskQueueKind::Sticky as i32, normal_name: normal }
        }
        None => TaskQueue { name: normal, kind: TaskQueueKind::Normal as i32, normal_name: String::new() },
    };
    draft.event(Attributes::WorkflowTaskScheduledEventAttributes(
        history::WorkflowTaskScheduledEventAttributes {
            task_queue: Some(task_queue),
            start_to_close_timeout: Some(timeout.to_proto()),
            attempt,
        },
    ))
}

fn started_attributes(
    run: &Run,
    scheduled: EventId,
    identity: &str,
    request_id: &str,
) -> history::WorkflowTaskStartedEventAttributes {
    let bytes = run.state.history_bytes;
    history::WorkflowTaskStartedEventAttributes {
        scheduled_event_id: scheduled.0,
        identity: identity.to_string(),
        request_id: request_id.to_string(),
        suggest_continue_as_new: scheduled.0 > SUGGEST_EVENTS || bytes > SUGGEST_BYTES,
        history_size_bytes: bytes,
        ..Default::default()
    }
}

fn stale(reason: &'static str) -> Refusal {
    Refusal::TaskNotFound { message: "Workflow task not found.".to_string(), reason }
}

/// Checks a dispatched task against the run as it is now (R707–R709). A started task fits the poll that started it.
///
/// # Errors
/// [`Refusal::TaskNotFound`] with the reason it is counted under.
pub fn check_dispatched(run: &Run, task: &TaskRef, poll: &str) -> Result<TaskView, Refusal> {
    if !run.state.is_open() {
        return Err(stale("run_closed"));
    }
    let view = run.task().ok_or_else(|| stale("no_task"))?;
    if view.scheduled != task.scheduled {
        return Err(stale("scheduled_event"));
    }
    if view.version != task.version {
        return Err(stale("version"));
    }
    if view.attempt != task.attempt {
        return Err(stale("attempt"));
    }
    match &view.started {
        Some(started) if poll.is_empty() || started.request_id != poll => Err(stale("already_started")),
        _ => Ok(view),
    }
}

/// Hands the task to a poller.
///
/// # Errors
/// [`Refusal::TaskNotFound`] when the dispatched task does not fit the run any more (R709).
pub fn start(
    run: &mut Run,
    task: &TaskRef,
    poll: &PollInfo,
    context: Context,
    seat: Seat,
) -> Result<Outcome, Refusal> {
    let view = check_dispatched(run, task, &poll.request_id)?;
    if view.started.is_some() {
        return Ok(Outcome::default()); // The same poll asks again: the same task is its answer.
    }
    if view.transient {
        let attempt = wire::WorkflowTaskAttempt {
            attempt: view.attempt,
            scheduled_unix_nanos: view.scheduled_at.0,
            started: true,
            started_unix_nanos: context.now.0,
            start_version: context.version.0,
            started_identity: poll.identity.clone(),
            started_request_id: poll.request_id.clone(),
            started_tip: run.tip().to_bytes(),
        };
        run.set_task_attempt(context.version, Some(attempt));
        return Ok(Outcome::default());
    }
    let mut draft = Draft::new(run, context, seat);
    let attributes = started_attributes(draft.run, view.scheduled, &poll.identity, &poll.request_id);
    draft.event(Attributes::WorkflowTaskStartedEventAttributes(attributes))?;
    Ok(Outcome::of(draft.seal()?))
}

/// The events that a transient task shows its worker and does not store: scheduled and started.
#[must_use]
pub fn transient_events(run: &Run, context_version: i64) -> Vec<history::HistoryEvent> {
    let Some(view) = run.task().filter(|task| task.transient) else { return Vec::new() };
    let Some(started) = &view.started else { return Vec::new() };
    let Some(start) = &run.state.start else { return Vec::new() };
    let scheduled =
        Attributes::WorkflowTaskScheduledEventAttributes(history::WorkflowTaskScheduledEventAttributes {
            task_queue: Some(TaskQueue {
                name: start.queue().to_string(),
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            start_to_close_timeout: Some(start.task_timeout().to_proto()),
            attempt: view.attempt,
        });
    let begun = Attributes::WorkflowTaskStartedEventAttributes(started_attributes(
        run,
        view.scheduled,
        &started.identity,
        &started.request_id,
    ));
    let event = |id: EventId, at: Timestamp, attributes: Attributes| history::HistoryEvent {
        event_id: id.0,
        // H2: what a worker sees never goes back.
        event_time: Some(at.max(run.state.last_time).to_proto()),
        event_type: super::draft::event_type(&attributes) as i32,
        version: context_version,
        attributes: Some(attributes),
        ..Default::default()
    };
    vec![event(view.scheduled, view.scheduled_at, scheduled), event(started.event, started.at, begun)]
}

/// Checks a task that a worker brings back against the run as it is now (A4, A5).
///
/// # Errors
/// [`Refusal::TaskNotFound`] with the reason it is counted under.
pub fn check(run: &Run, presented: &Presented) -> Result<TaskView, Refusal> {
    if !run.state.is_open() {
        return Err(stale("run_closed"));
    }
    // A4: the branch on which the task was started must be a prefix of the current one. Asked first: a task of a losing
    // branch is counted as that, whatever else differs.
    if !run.is_on_current(presented.tip) {
        return Err(stale("branch_lost"));
    }
    let view = run.task().ok_or_else(|| stale("no_task"))?;
    if view.scheduled != presented.task.scheduled {
        return Err(stale("scheduled_event"));
    }
    if view.attempt != presented.task.attempt {
        return Err(stale("attempt"));
    }
    let started = view.started.as_ref().ok_or_else(|| stale("not_started"))?;
    if started.event != presented.started || started.version != presented.start_version {
        return Err(stale("start_version"));
    }
    if !view.transient && view.version != presented.task.version {
        return Err(stale("version"));
    }
    // A4: a transient task is void once anything was appended.
    if view.transient && run.tip() != presented.tip {
        return Err(stale("voided"));
    }
    Ok(view)
}

/// Gives a task the events it lacks before it can end: a transient one gets its scheduled and started events now.
pub(super) fn realise(draft: &mut Draft<'_>, view: &TaskView) -> Result<(EventId, EventId), Refusal> {
    let started = view.started.as_ref().ok_or_else(|| broken("a task that is not started ends"))?;
    if !view.transient {
        return Ok((view.scheduled, started.event));
    }
    let scheduled = schedule_attempt(draft, view.attempt)?;
    let attributes = started_attributes(draft.run, scheduled, &started.identity, &started.request_id);
    let begun = draft.event(Attributes::WorkflowTaskStartedEventAttributes(attributes))?;
    Ok((scheduled, begun))
}

/// Writes the pending events (A2). True when there was one.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn write_pending(draft: &mut Draft<'_>) -> Result<bool, Refusal> {
    let live = draft.run.pending_live();
    let mut written = false;
    for (identity, pending) in live {
        if !draft.run.state.is_open() {
            break; // A termination was among them; what is left is filed with its verdict.
        }
        if let Some(anchor) = pending.anchor {
            written |= super::activity::write_outcome(draft, anchor, pending.events, identity)?;
            continue;
        }
        for event in pending.events {
            let Some(attributes) = event.attributes else { continue };
            let id = draft.event_with(attributes, None, event.links)?;
            let origin = pending.origin.map(|run| (run, pending.accepted.0));
            draft.identify(id, identity.clone(), pending.named_run, origin);
            written = true;
        }
    }
    Ok(written)
}

/// How a started task ends without completing.
pub struct Failed {
    /// Cause of the failed event.
    pub cause: Cause,
    /// Failure of the failed event.
    pub failure: Option<Failure>,
    /// Worker.
    pub identity: String,
}

/// Ends the started task as failed, writes what waited for it, and schedules the next.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn fail(draft: &mut Draft<'_>, view: &TaskView, failed: Failed) -> Result<(), Refusal> {
    draft.run.sticky = None;
    if !view.transient {
        let started = view.started.as_ref().map_or(EventId(0), |started| started.event);
        draft.event(Attributes::WorkflowTaskFailedEventAttributes(
            history::WorkflowTaskFailedEventAttributes {
                scheduled_event_id: view.scheduled.0,
                started_event_id: started.0,
                cause: failed.cause as i32,
                failure: failed.failure,
                identity: failed.identity,
                ..Default::default()
            },
        ))?;
    }
    again(draft, view.attempt, view.transient)
}

/// After a failed or timed-out attempt: what waited is written and a fresh task follows it, or the next attempt is
/// transient (it has no events until it completes).
fn again(draft: &mut Draft<'_>, attempt: i32, was_transient: bool) -> Result<(), Refusal> {
    let version = draft.context.version;
    if was_transient {
        // The register hangs on the last workflow-task event; writing anything makes it dormant only with a new task.
        draft.run.set_task_attempt(version, None);
    }
    if write_pending(draft)? {
        return if draft.run.state.is_open() { schedule(draft) } else { Ok(()) };
    }
    let next = attempt + 1;
    let next_attempt = wire::WorkflowTaskAttempt {
        attempt: next,
        scheduled_unix_nanos: draft.context.now.plus(backoff(next)).0,
        ..Default::default()
    };
    draft.run.set_task_attempt(version, Some(next_attempt));
    Ok(())
}

/// Attempts 1 to 3 follow at once, then 5 s doubling up to 10 min (api-surface 4.3).
fn backoff(attempt: i32) -> Nanos {
    if attempt <= 3 {
        return Nanos(0);
    }
    let doublings = u32::try_from(attempt - 4).unwrap_or(0).min(7);
    Nanos::seconds((5_i64 << doublings).min(600))
}

/// RespondWorkflowTaskFailed.
///
/// # Errors
/// [`Refusal::TaskNotFound`].
pub fn respond_failed(
    run: &mut Run,
    presented: &Presented,
    failed: Failed,
    context: Context,
    seat: Seat,
) -> Result<Outcome, Refusal> {
    let view = check(run, presented)?;
    let mut draft = Draft::new(run, context, seat);
    fail(&mut draft, &view, failed)?;
    Ok(Outcome::of(draft.seal()?))
}

/// When the pending task's timeout passes: start-to-close once started, schedule-to-start on a sticky queue.
#[must_use]
pub fn timeout_at(run: &Run, view: &TaskView) -> Option<Timestamp> {
    let start = run.state.start.as_ref()?;
    match &view.started {
        Some(started) => Some(started.clock.plus(start.task_timeout())),
        None if view.sticky => {
            let timeout = run.sticky.as_ref().map_or(Nanos(0), |sticky| sticky.timeout);
            Some(view.clock.plus(timeout))
        }
        None => None,
    }
}

/// The timeout passed.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn time_out(draft: &mut Draft<'_>, view: &TaskView) -> Result<(), Refusal> {
    draft.run.sticky = None;
    let started = view.started.as_ref().map_or(EventId(0), |started| started.event);
    if !view.transient {
        let kind = match view.started {
            Some(_) => TimeoutType::StartToClose,
            None => TimeoutType::ScheduleToStart,
        };
        draft.event(Attributes::WorkflowTaskTimedOutEventAttributes(
            history::WorkflowTaskTimedOutEventAttributes {
                scheduled_event_id: view.scheduled.0,
                started_event_id: started.0,
                timeout_type: kind as i32,
            },
        ))?;
    }
    match view.started {
        Some(_) => again(draft, view.attempt, view.transient),
        // A sticky queue that nobody polls: the same attempt on the normal queue.
        None => schedule_attempt(draft, view.attempt).map(|_| ()),
    }
}

/// R440: a task that was started under another version does not span two versions; it is failed under the present one
/// and a fresh one follows. True when there was one.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn take_over(draft: &mut Draft<'_>) -> Result<bool, Refusal> {
    let Some(view) = draft.run.task() else { return Ok(false) };
    let Some(started) = &view.started else { return Ok(false) };
    if started.version == draft.context.version {
        return Ok(false);
    }
    draft.run.sticky = None;
    if view.transient {
        draft.run.set_task_attempt(draft.context.version, None);
        write_pending(draft)?;
        if draft.run.state.is_open() {
            schedule(draft)?;
        }
        return Ok(true);
    }
    draft.event(Attributes::WorkflowTaskFailedEventAttributes(
        history::WorkflowTaskFailedEventAttributes {
            scheduled_event_id: view.scheduled.0,
            started_event_id: started.event.0,
            cause: Cause::FailoverCloseCommand as i32,
            identity: "history-service".to_string(),
            ..Default::default()
        },
    ))?;
    write_pending(draft)?;
    if draft.run.state.is_open() {
        schedule(draft)?;
    }
    Ok(true)
}
