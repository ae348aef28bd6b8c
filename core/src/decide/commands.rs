//! RespondWorkflowTaskCompleted: the commands of a worker become events, all or none. Everything is checked against the
//! run and the commands before it, first; then it is written in order: completed event, command events, what waited,
//! the next task (api-surface 4.1, 4.2).

use std::collections::{BTreeMap, BTreeSet};

use antipode_proto::api::{
    command::v1::{Command, command::Attributes as C},
    enums::v1::{CommandType, WorkflowTaskFailedCause as Cause},
    failure::v1::{ApplicationFailureInfo, Failure, failure::FailureInfo},
    history::v1::{self as history, history_event::Attributes},
    workflowservice::v1 as ws,
};

use super::{
    Context, Draft, Outcome, Seat, activity, close,
    workflow_task::{self, Failed},
};
use crate::{
    ids::{EventId, Nanos, RunId},
    refusal::Refusal,
    run::{Run, Sticky},
    task::Presented,
};

/// A command that cannot be done: the cause recorded and the words of the answer.
struct Bad {
    cause: Cause,
    message: String,
}

fn bad(cause: Cause, message: impl Into<String>) -> Bad {
    Bad { cause, message: message.into() }
}

/// What the commands before this one did, as far as later ones must know.
struct Overlay<'a> {
    run: &'a Run,
    activity_ids: BTreeSet<String>,
    timers: BTreeMap<String, bool>,
    closing: bool,
}

/// Completes the started workflow task.
///
/// `next_run` is the id of the next run, should the commands continue the chain; `seats` are the seats of this run's and
/// of that run's batch.
///
/// # Errors
/// [`Refusal::TaskNotFound`] when the task does not fit the run. Commands that cannot be done are not an error here: the
/// task fails by an event, and `Outcome::refused` holds the answer.
pub fn complete(
    run: &mut Run,
    presented: &Presented,
    request: &ws::RespondWorkflowTaskCompletedRequest,
    context: Context,
    seats: [Seat; 2],
    next_run: RunId,
) -> Result<Outcome, Refusal> {
    let view = workflow_task::check(run, presented)?;
    let mut overlay = Overlay { run, activity_ids: BTreeSet::new(), timers: BTreeMap::new(), closing: false };
    let checked = request.commands.iter().try_for_each(|command| overlay.check(command));
    let closing = overlay.closing;
    let failed = match checked {
        Err(bad) => Some(bad),
        Ok(()) if closing && (run.has_pending_live() || !run.owed().is_empty()) => {
            // Something was accepted that the worker has not seen: it decides again (UNHANDLED_COMMAND).
            Some(bad(Cause::UnhandledCommand, "UnhandledCommand"))
        }
        Ok(()) => None,
    };
    if let Some(bad) = failed {
        return refuse(run, &view, bad, &request.identity, context, seats[0]);
    }

    let mut draft = Draft::new(run, context.clone(), seats[0]);
    let (scheduled, started) = workflow_task::realise(&mut draft, &view)?;
    let completed = draft.event(Attributes::WorkflowTaskCompletedEventAttributes(completed_attributes(
        scheduled, started, request,
    )))?;
    bind_sticky(&mut draft, request);
    let mut successor = None;
    for command in &request.commands {
        if !draft.run.state.is_open() {
            break; // The first closing command wins.
        }
        if let Some(new) = write(&mut draft, command, completed, next_run)? {
            successor = Some(new);
        }
    }
    if draft.run.state.is_open() {
        let written = workflow_task::write_pending(&mut draft)?;
        let due = super::due::fire(&mut draft)?;
        if written || due || request.force_create_new_workflow_task || draft.cancelled_activity() {
            workflow_task::need(&mut draft)?;
        }
    }
    let batch = draft.seal()?;
    if let Some(sticky) = &mut run.sticky {
        sticky.tip = batch.as_ref().map_or(sticky.tip, |batch| batch.chain);
    }
    let successor = match successor {
        Some(new) => {
            let key = crate::ids::RunKey { run: next_run, ..run.key.clone() };
            Some(Box::new(super::start::start(key, new, context, seats[1])?))
        }
        None => None,
    };
    Ok(Outcome { batch, successor, refused: None })
}

fn completed_attributes(
    scheduled: EventId,
    started: EventId,
    request: &ws::RespondWorkflowTaskCompletedRequest,
) -> history::WorkflowTaskCompletedEventAttributes {
    #[allow(deprecated, reason = "older SDKs send these and expect them back in the event")]
    history::WorkflowTaskCompletedEventAttributes {
        scheduled_event_id: scheduled.0,
        started_event_id: started.0,
        identity: request.identity.clone(),
        binary_checksum: request.binary_checksum.clone(),
        worker_version: request.worker_version_stamp.clone(),
        sdk_metadata: request.sdk_metadata.clone(),
        metering_metadata: request.metering_metadata,
        ..Default::default()
    }
}

/// Sets or clears the sticky binding: each completion says (A8).
fn bind_sticky(draft: &mut Draft<'_>, request: &ws::RespondWorkflowTaskCompletedRequest) {
    let attributes = request.sticky_attributes.as_ref();
    let queue = attributes.and_then(|a| a.worker_task_queue.as_ref()).filter(|queue| !queue.name.is_empty());
    draft.run.sticky = queue.map(|queue| Sticky {
        queue: queue.name.clone(),
        timeout: attributes
            .and_then(|a| a.schedule_to_start_timeout.as_ref())
            .map_or(Nanos::seconds(5), Nanos::from_proto),
        tip: draft.run.tip(),
        version: draft.context.version,
    });
}

fn refuse(
    run: &mut Run,
    view: &crate::view::TaskView,
    bad: Bad,
    identity: &str,
    context: Context,
    seat: Seat,
) -> Result<Outcome, Refusal> {
    let mut draft = Draft::new(run, context, seat);
    let failure = Failure {
        message: bad.message.clone(),
        source: "Server".to_string(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: bad.cause.as_str_name().to_string(),
            non_retryable: true,
            ..Default::default()
        })),
        ..Default::default()
    };
    let failed = Failed { cause: bad.cause, failure: Some(failure), identity: identity.to_string() };
    workflow_task::fail(&mut draft, view, failed)?;
    let batch = draft.seal()?;
    Ok(Outcome { batch, successor: None, refused: Some(Refusal::InvalidArgument(bad.message)) })
}

impl Overlay<'_> {
    fn check(&mut self, command: &Command) -> Result<(), Bad> {
        if self.closing {
            return Ok(()); // Ignored when written.
        }
        let missing = || {
            bad(Cause::UnhandledCommand, format!("command type {} has no attributes", command.command_type))
        };
        match command.attributes.as_ref().ok_or_else(missing)? {
            C::ScheduleActivityTaskCommandAttributes(a) => self.check_activity(a),
            C::RequestCancelActivityTaskCommandAttributes(a) => {
                self.check_cancel_activity(a.scheduled_event_id)
            }
            C::StartTimerCommandAttributes(a) => self.check_start_timer(a),
            C::CancelTimerCommandAttributes(a) => self.check_cancel_timer(&a.timer_id),
            C::RecordMarkerCommandAttributes(a) => {
                if a.marker_name.is_empty() {
                    let message = "BadRecordMarkerAttributes: MarkerName is not set on RecordMarkerCommand.";
                    return Err(bad(Cause::BadRecordMarkerAttributes, message));
                }
                Ok(())
            }
            C::UpsertWorkflowSearchAttributesCommandAttributes(_)
            | C::ModifyWorkflowPropertiesCommandAttributes(_) => Ok(()),
            C::CompleteWorkflowExecutionCommandAttributes(_)
            | C::CancelWorkflowExecutionCommandAttributes(_) => self.close(),
            C::FailWorkflowExecutionCommandAttributes(a) => {
                if a.failure.is_none() {
                    let message = "BadFailWorkflowExecutionAttributes: Failure is not set on FailWorkflowExecutionCommand.";
                    return Err(bad(Cause::BadFailWorkflowExecutionAttributes, message));
                }
                self.close()
            }
            C::ContinueAsNewWorkflowExecutionCommandAttributes(_) => self.close(),
            _ => {
                let kind =
                    CommandType::try_from(command.command_type).map_or("unknown", |kind| kind.as_str_name());
                Err(bad(Cause::UnhandledCommand, format!("{kind} is not implemented")))
            }
        }
    }

    fn close(&mut self) -> Result<(), Bad> {
        self.closing = true;
        Ok(())
    }

    fn check_activity(
        &mut self,
        a: &antipode_proto::api::command::v1::ScheduleActivityTaskCommandAttributes,
    ) -> Result<(), Bad> {
        let cause = Cause::BadScheduleActivityAttributes;
        let say = |message: &str| bad(cause, format!("BadScheduleActivityAttributes: {message}"));
        if a.activity_id.is_empty() {
            return Err(say("ActivityId is not set on ScheduleActivityTaskCommand."));
        }
        if a.activity_type.as_ref().is_none_or(|kind| kind.name.is_empty()) {
            return Err(say("ActivityType is not set on ScheduleActivityTaskCommand."));
        }
        let lengths = [
            ("ScheduleToCloseTimeout", &a.schedule_to_close_timeout),
            ("ScheduleToStartTimeout", &a.schedule_to_start_timeout),
            ("StartToCloseTimeout", &a.start_to_close_timeout),
            ("HeartbeatTimeout", &a.heartbeat_timeout),
        ];
        for (field, length) in lengths {
            if length.as_ref().is_some_and(|length| Nanos::from_proto(length).0 < 0) {
                return Err(say(&format!("{field} is negative on ScheduleActivityTaskCommand.")));
            }
        }
        let set = |length: &Option<prost_types::Duration>| {
            length.as_ref().is_some_and(|length| Nanos::from_proto(length).0 > 0)
        };
        if !set(&a.schedule_to_close_timeout) && !set(&a.start_to_close_timeout) {
            return Err(say(
                "A valid StartToClose or ScheduleToCloseTimeout is not set on ScheduleActivityTaskCommand.",
            ));
        }
        let open = self.run.state.activity_ids.contains_key(&a.activity_id);
        if open || !self.activity_ids.insert(a.activity_id.clone()) {
            let message = format!("ScheduleActivityDuplicateId: activity id {:?} is in use", a.activity_id);
            return Err(bad(Cause::ScheduleActivityDuplicateId, message));
        }
        Ok(())
    }

    fn check_cancel_activity(&self, scheduled: i64) -> Result<(), Bad> {
        // An activity scheduled by this very task has an id that the worker computed: it lies after the open history.
        let later = scheduled >= self.run.state.next_event.0;
        if later || self.run.state.activities.contains_key(&EventId(scheduled)) {
            return Ok(());
        }
        let message = format!("BadRequestCancelActivityAttributes: activity #{scheduled} is not open");
        Err(bad(Cause::BadRequestCancelActivityAttributes, message))
    }

    fn check_start_timer(
        &mut self,
        a: &antipode_proto::api::command::v1::StartTimerCommandAttributes,
    ) -> Result<(), Bad> {
        if a.timer_id.is_empty() {
            let message = "BadStartTimerAttributes: TimerId is not set on StartTimerCommand.";
            return Err(bad(Cause::BadStartTimerAttributes, message));
        }
        if a.start_to_fire_timeout.as_ref().is_none_or(|length| Nanos::from_proto(length).0 <= 0) {
            let message =
                "BadStartTimerAttributes: A valid StartToFireTimeout is not set on StartTimerCommand.";
            return Err(bad(Cause::BadStartTimerAttributes, message));
        }
        if self.timer_open(&a.timer_id) {
            let message = format!("StartTimerDuplicateId: timer id {:?} is in use", a.timer_id);
            return Err(bad(Cause::StartTimerDuplicateId, message));
        }
        self.timers.insert(a.timer_id.clone(), true);
        Ok(())
    }

    fn timer_open(&self, id: &str) -> bool {
        self.timers.get(id).copied().unwrap_or_else(|| self.run.state.timers.contains_key(id))
    }

    fn check_cancel_timer(&mut self, id: &str) -> Result<(), Bad> {
        if !self.timer_open(id) {
            let message = format!("BadCancelTimerAttributes: timer {id:?} is not open");
            return Err(bad(Cause::BadCancelTimerAttributes, message));
        }
        self.timers.insert(id.to_string(), false);
        Ok(())
    }
}

/// Writes one checked command. The next run of the chain, when it closes with one.
fn write(
    draft: &mut Draft<'_>,
    command: &Command,
    completed: EventId,
    next_run: RunId,
) -> Result<Option<super::start::NewRun>, Refusal> {
    let Some(attributes) = &command.attributes else { return Ok(None) };
    let metadata = command.user_metadata.clone();
    match attributes {
        C::ScheduleActivityTaskCommandAttributes(a) => {
            let event = activity::scheduled_attributes(draft.run, a, completed);
            draft.event_with(
                Attributes::ActivityTaskScheduledEventAttributes(event),
                metadata,
                Vec::new(),
            )?;
        }
        C::RequestCancelActivityTaskCommandAttributes(a) => {
            activity::request_cancel(draft, EventId(a.scheduled_event_id), completed)?;
        }
        C::StartTimerCommandAttributes(a) => {
            let event = history::TimerStartedEventAttributes {
                timer_id: a.timer_id.clone(),
                start_to_fire_timeout: a.start_to_fire_timeout,
                workflow_task_completed_event_id: completed.0,
            };
            draft.event_with(Attributes::TimerStartedEventAttributes(event), metadata, Vec::new())?;
        }
        C::CancelTimerCommandAttributes(a) => write_cancel_timer(draft, &a.timer_id, completed)?,
        C::RecordMarkerCommandAttributes(a) => {
            let event = history::MarkerRecordedEventAttributes {
                marker_name: a.marker_name.clone(),
                details: a.details.clone(),
                workflow_task_completed_event_id: completed.0,
                header: a.header.clone(),
                failure: a.failure.clone(),
            };
            draft.event_with(Attributes::MarkerRecordedEventAttributes(event), metadata, Vec::new())?;
        }
        C::UpsertWorkflowSearchAttributesCommandAttributes(a) => {
            let event = history::UpsertWorkflowSearchAttributesEventAttributes {
                workflow_task_completed_event_id: completed.0,
                search_attributes: a.search_attributes.clone(),
            };
            draft.event(Attributes::UpsertWorkflowSearchAttributesEventAttributes(event))?;
        }
        C::ModifyWorkflowPropertiesCommandAttributes(a) => {
            let event = history::WorkflowPropertiesModifiedEventAttributes {
                workflow_task_completed_event_id: completed.0,
                upserted_memo: a.upserted_memo.clone(),
            };
            draft.event(Attributes::WorkflowPropertiesModifiedEventAttributes(event))?;
        }
        _ => return close::by_command(draft, attributes, completed, next_run),
    }
    Ok(None)
}

fn write_cancel_timer(draft: &mut Draft<'_>, id: &str, completed: EventId) -> Result<(), Refusal> {
    let Some(timer) = draft.run.state.timers.get(id) else { return Ok(()) };
    let event = history::TimerCanceledEventAttributes {
        timer_id: id.to_string(),
        started_event_id: timer.started.0,
        workflow_task_completed_event_id: completed.0,
        identity: String::new(),
    };
    draft.event(Attributes::TimerCanceledEventAttributes(event)).map(|_| ())
}
