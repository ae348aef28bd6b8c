//! What time does to a run: timers fire, timeouts pass, back-offs end; and what else a run owes itself whenever it is
//! looked at in its active region: the take-over of a task from another version, pending events, re-applications.

use antipode_proto::api::history::v1::{self as history, history_event::Attributes};

use super::{Context, Draft, Outcome, Seat, activity, broken, close, reapply, workflow_task};
use crate::{
    ids::{FailoverVersion, RegionId, RunId, RunKey, Timestamp},
    refusal::Refusal,
    run::Run,
};

/// The time at which `settle` would do something, or a task may be offered that may not be yet; none: never by time alone.
/// May be too early, never too late (C5). [`Timestamp`] 0: now. A task whose back-off is over waits for a worker, not for time.
#[must_use]
pub fn wake_at(
    run: &Run,
    version: Option<FailoverVersion>,
    here: RegionId,
    now: Timestamp,
) -> Option<Timestamp> {
    if !run.state.is_open() {
        return None;
    }
    let expires = run.state.start.as_ref().and_then(crate::state::Start::expires_at);
    let task = run.task();
    if let Some(task) = &task
        && let Some(started) = &task.started
    {
        // What is due waits for the task to end; a task of another version is taken over at once (R440).
        if version.is_some_and(|version| version != started.version) {
            return Some(Timestamp(0));
        }
        return earlier(workflow_task::timeout_at(run, task), expires);
    }
    if run.has_pending_live() || run.owes() {
        return Some(Timestamp(0));
    }
    let mut wake = expires;
    match &task {
        Some(task) => {
            wake = earlier(wake, workflow_task::timeout_at(run, task));
            if task.transient && task.scheduled_at > now {
                wake = earlier(wake, Some(task.scheduled_at));
            }
        }
        None => {
            let first = run.state.start.as_ref().map(crate::state::Start::first_task_at);
            if run.state.task_anchor.event.0 == 0 {
                wake = earlier(wake, first);
            }
        }
    }
    for timer in run.state.timers.values() {
        wake = earlier(wake, Some(timer.due));
    }
    for scheduled in run.state.activities.keys() {
        let Some(view) = run.activity(*scheduled) else { continue };
        wake = earlier(wake, activity::timeout(&view, here).map(|(at, _)| at));
        let again = Timestamp(view.attempt.scheduled_unix_nanos);
        if !view.attempt.started && again > now {
            wake = earlier(wake, Some(again));
        }
    }
    wake
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Does everything that is due now, in one batch.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn settle(
    run: &mut Run,
    context: Context,
    seats: [Seat; 2],
    next_run: RunId,
) -> Result<Outcome, Refusal> {
    let mut draft = Draft::new(run, context.clone(), seats[0]);
    workflow_task::take_over(&mut draft)?;
    let expires = draft.run.state.start.as_ref().and_then(crate::state::Start::expires_at);
    if expires.is_some_and(|expires| expires <= draft.context.now) && draft.run.state.is_open() {
        // What clients were told is saved stands before the closing event (V10).
        workflow_task::write_pending(&mut draft)?;
        reapply::write_owed(&mut draft)?;
        let open = draft.run.state.is_open();
        let new = if open { close::time_out(&mut draft, next_run)? } else { None };
        let batch = draft.seal()?;
        let successor = match new {
            Some(new) => {
                let key = RunKey { run: next_run, ..run.key.clone() };
                Some(Box::new(super::start::start(key, new, context, seats[1])?))
            }
            None => None,
        };
        return Ok(Outcome { batch, successor, refused: None });
    }
    time_out_task(&mut draft)?;
    if draft.run.state.is_open() && !draft.run.in_flight() {
        let mut seen = workflow_task::write_pending(&mut draft)?;
        seen |= reapply::write_owed(&mut draft)?;
        if draft.run.state.is_open() {
            seen |= fire(&mut draft)?;
            if seen || first_task_due(&draft) {
                workflow_task::need(&mut draft)?;
            }
        }
    }
    Ok(Outcome::of(draft.seal()?))
}

fn first_task_due(draft: &Draft<'_>) -> bool {
    let first = draft.run.state.start.as_ref().map(crate::state::Start::first_task_at);
    draft.run.state.task_anchor.event.0 == 0 && first.is_some_and(|first| first <= draft.context.now)
}

fn time_out_task(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    let Some(task) = draft.run.task() else { return Ok(()) };
    match workflow_task::timeout_at(draft.run, &task) {
        Some(at) if at <= draft.context.now => workflow_task::time_out(draft, &task),
        _ => Ok(()),
    }
}

/// Fires due timers and activity timeouts. True when an event was written.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub(super) fn fire(draft: &mut Draft<'_>) -> Result<bool, Refusal> {
    let context = draft.context.clone();
    let now = context.now;
    let mut due: Vec<_> = draft
        .run
        .state
        .timers
        .iter()
        .filter(|(_, timer)| timer.due <= now)
        .map(|(id, timer)| (timer.due, timer.started, id.clone()))
        .collect();
    due.sort();
    let mut written = !due.is_empty();
    for (_, started, timer_id) in due {
        draft.event(Attributes::TimerFiredEventAttributes(history::TimerFiredEventAttributes {
            timer_id,
            started_event_id: started.0,
        }))?;
    }
    let scheduled: Vec<_> = draft.run.state.activities.keys().copied().collect();
    for scheduled in scheduled {
        let view = draft.run.activity(scheduled).ok_or_else(|| broken("an open activity vanished"))?;
        let timeout = activity::timeout(&view, context.region);
        let Some((at, kind)) = timeout.filter(|_| !view.decided) else { continue };
        if at > now || activity::extend(draft, scheduled) {
            continue;
        }
        if let Some((anchor, events)) =
            activity::judge(draft.run, scheduled, activity::End::TimedOut(kind), "", &context)
        {
            let anchor = draft.run.anchored(anchor);
            let identity = crate::run::outcome_identity(anchor, draft.run.key.run);
            written |= activity::write_outcome(draft, anchor, events, identity)?;
        }
    }
    Ok(written)
}
