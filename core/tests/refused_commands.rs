//! Commands that cannot be done, and events that do not fit: each is refused with its reason, and nothing else is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod agree;
mod support;

use agree::{BUILT, begin, check};
use antipode_core::{fold::FoldError, ids::EventId, refusal::Refusal, state::State};
use antipode_proto::api::{
    command::v1::{Command, command::Attributes},
    enums::v1::{CommandType, WorkflowExecutionStatus as Status},
    history::v1::{HistoryEvent, history_event},
};
use support::*;

/// A command of a kind that is not built fails the workflow task with the command's name; a built one never does.
#[test]
fn a_command_that_is_not_built_says_so() {
    for number in 1..=64 {
        let Ok(kind) = CommandType::try_from(number) else { continue };
        let Some(attributes) = attributes_of(kind) else { continue };
        let mut author = begin();
        author.start_task();
        let command = Command { command_type: number, attributes: Some(attributes), ..Default::default() };
        let refused = author.complete(vec![command]).map(|refusal| refusal.to_string());
        let name = kind.as_str_name();
        let unbuilt = refused == Some(format!("{name} is not implemented"));
        assert_eq!(unbuilt, !BUILT.contains(&kind), "{name}: {refused:?}");
        if unbuilt {
            let outline = author.outline();
            assert_eq!(outline.last().unwrap(), "4@1 WorkflowTaskFailed", "{outline:?}");
            check(&author);
        }
    }
}

/// Empty attributes of a kind of command.
fn attributes_of(kind: CommandType) -> Option<Attributes> {
    Some(match kind {
        CommandType::Unspecified => return None,
        CommandType::ScheduleActivityTask => {
            Attributes::ScheduleActivityTaskCommandAttributes(Default::default())
        }
        CommandType::RequestCancelActivityTask => {
            Attributes::RequestCancelActivityTaskCommandAttributes(Default::default())
        }
        CommandType::StartTimer => Attributes::StartTimerCommandAttributes(Default::default()),
        CommandType::CompleteWorkflowExecution => {
            Attributes::CompleteWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::FailWorkflowExecution => {
            Attributes::FailWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::CancelTimer => Attributes::CancelTimerCommandAttributes(Default::default()),
        CommandType::CancelWorkflowExecution => {
            Attributes::CancelWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::RequestCancelExternalWorkflowExecution => {
            Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::RecordMarker => Attributes::RecordMarkerCommandAttributes(Default::default()),
        CommandType::ContinueAsNewWorkflowExecution => {
            Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::StartChildWorkflowExecution => {
            Attributes::StartChildWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::SignalExternalWorkflowExecution => {
            Attributes::SignalExternalWorkflowExecutionCommandAttributes(Default::default())
        }
        CommandType::UpsertWorkflowSearchAttributes => {
            Attributes::UpsertWorkflowSearchAttributesCommandAttributes(Default::default())
        }
        CommandType::ProtocolMessage => Attributes::ProtocolMessageCommandAttributes(Default::default()),
        CommandType::ModifyWorkflowProperties => {
            Attributes::ModifyWorkflowPropertiesCommandAttributes(Default::default())
        }
        CommandType::ScheduleNexusOperation => {
            Attributes::ScheduleNexusOperationCommandAttributes(Default::default())
        }
        CommandType::RequestCancelNexusOperation => {
            Attributes::RequestCancelNexusOperationCommandAttributes(Default::default())
        }
    })
}

/// Commands that cannot be done fail the task by an event: the cause is told, and nothing else is written.
#[test]
fn commands_that_cannot_be_done_write_nothing_but_the_failure() {
    let long = timer("t", 60);
    for (commands, words) in [
        (vec![activity("a"), activity("a")], "ScheduleActivityDuplicateId: activity id \"a\" is in use"),
        (vec![long.clone(), long.clone()], "StartTimerDuplicateId: timer id \"t\" is in use"),
        (vec![cancel_timer("t")], "BadCancelTimerAttributes: timer \"t\" is not open"),
        (
            vec![long.clone(), cancel_timer("t"), cancel_timer("t")],
            "BadCancelTimerAttributes: timer \"t\" is not open",
        ),
        (vec![cancel_activity(EventId(2))], "BadRequestCancelActivityAttributes: activity #2 is not open"),
        (vec![timer("", 1)], "BadStartTimerAttributes: TimerId is not set on StartTimerCommand."),
        (
            vec![timer("t", 0)],
            "BadStartTimerAttributes: A valid StartToFireTimeout is not set on StartTimerCommand.",
        ),
        (vec![marker("")], "BadRecordMarkerAttributes: MarkerName is not set on RecordMarkerCommand."),
        (
            vec![activity("")],
            "BadScheduleActivityAttributes: ActivityId is not set on ScheduleActivityTaskCommand.",
        ),
    ] {
        let mut author = begin();
        author.start_task();
        let refused = author.complete(commands);
        assert_eq!(refused, Some(Refusal::InvalidArgument(words.to_string())));
        assert_eq!(author.outline().last().unwrap(), "4@1 WorkflowTaskFailed");
        assert!(author.run.state.timers.is_empty() && author.run.state.activities.is_empty());
        assert_eq!(author.run.task().unwrap().attempt, 2);
        check(&author);
    }
    // A timer that was cancelled may be started again by the same task, and an activity scheduled by it may be cancelled.
    let mut author = begin();
    author.start_task();
    let again = vec![long.clone(), cancel_timer("t"), long, activity("a"), cancel_activity(EventId(8))];
    assert_eq!(author.complete(again), None);
    assert!(author.run.state.timers.contains_key("t") && author.run.state.activities.is_empty());
    check(&author);
}

/// What a worker has not seen keeps it from closing the run (UNHANDLED_COMMAND); after a closing command nothing is written.
#[test]
fn a_run_does_not_close_over_what_the_worker_has_not_seen() {
    let mut author = begin();
    author.start_task();
    author.signal("new");
    let refused = author.complete(vec![complete()]);
    assert_eq!(refused, Some(Refusal::InvalidArgument("UnhandledCommand".to_string())));
    assert!(author.run.state.is_open());
    author.step(vec![complete(), timer("t", 1)]);
    assert!(author.outline().last().unwrap().ends_with("WorkflowExecutionCompleted"));
    check(&author);
}

/// What waits stands before the timeout that closes the run (V10).
#[test]
fn a_run_timeout_writes_what_waits_first() {
    let mut author = begin();
    author.start_task();
    author.signal("waits");
    author.pass(301);
    let outline = author.outline();
    assert_eq!(outline[3..], ["4@1 WorkflowExecutionSignaled", "5@1 WorkflowExecutionTimedOut"]);
    assert!(author.run.pending.is_empty());
    check(&author);
}

fn started() -> HistoryEvent {
    HistoryEvent {
        event_id: 1,
        attributes: Some(history_event::Attributes::WorkflowExecutionStartedEventAttributes(Box::default())),
        ..Default::default()
    }
}

#[test]
fn a_gap_is_refused() {
    let mut state = State::default();
    state.apply_event(&started(), None).unwrap();
    let again = state.apply_event(&started(), None);
    assert_eq!(again, Err(FoldError::Gap { expected: EventId(2), found: EventId(1) }));
}

#[test]
fn an_event_without_attributes_is_refused() {
    let refused = State::default().apply_event(&HistoryEvent { event_id: 1, ..Default::default() }, None);
    assert!(matches!(refused, Err(FoldError::Invalid { .. })), "{refused:?}");
}

/// An event that follows the start.
fn second(attributes: history_event::Attributes) -> HistoryEvent {
    HistoryEvent { event_id: 2, attributes: Some(attributes), ..Default::default() }
}

#[test]
fn an_event_for_something_that_is_not_open_is_refused() {
    use history_event::Attributes as A;
    let mut state = State::default();
    state.apply_event(&started(), None).unwrap();
    for (attributes, kind, what) in [
        (
            A::WorkflowTaskStartedEventAttributes(Default::default()),
            "WorkflowTaskStarted",
            "workflow task #0",
        ),
        (A::ActivityTaskStartedEventAttributes(Default::default()), "ActivityTaskStarted", "activity #0"),
        (
            A::ActivityTaskCancelRequestedEventAttributes(Default::default()),
            "ActivityTaskCancelRequested",
            "activity #0",
        ),
        (A::ActivityTaskCompletedEventAttributes(Default::default()), "ActivityTaskCompleted", "activity #0"),
        (A::ActivityTaskFailedEventAttributes(Default::default()), "ActivityTaskFailed", "activity #0"),
        (A::ActivityTaskTimedOutEventAttributes(Default::default()), "ActivityTaskTimedOut", "activity #0"),
        (A::ActivityTaskCanceledEventAttributes(Default::default()), "ActivityTaskCanceled", "activity #0"),
        (A::TimerFiredEventAttributes(Default::default()), "TimerFired", "timer \"\""),
        (A::TimerCanceledEventAttributes(Default::default()), "TimerCanceled", "timer \"\""),
    ] {
        let refused = state.clone().apply_event(&second(attributes), None);
        let unknown = FoldError::Unknown { event: EventId(2), kind, what: what.to_owned() };
        assert_eq!(refused, Err(unknown));
    }
}

/// Each closing event closes the run with its status, and nothing follows it.
#[test]
fn nothing_follows_the_closing_event() {
    use history_event::Attributes as A;
    for (attributes, status) in [
        (A::WorkflowExecutionCompletedEventAttributes(Default::default()), Status::Completed),
        (A::WorkflowExecutionFailedEventAttributes(Default::default()), Status::Failed),
        (A::WorkflowExecutionTimedOutEventAttributes(Default::default()), Status::TimedOut),
        (A::WorkflowExecutionCanceledEventAttributes(Default::default()), Status::Canceled),
        (A::WorkflowExecutionTerminatedEventAttributes(Default::default()), Status::Terminated),
        (A::WorkflowExecutionContinuedAsNewEventAttributes(Default::default()), Status::ContinuedAsNew),
    ] {
        let mut state = State::default();
        state.apply_event(&started(), None).unwrap();
        assert!(state.is_open());
        state.apply_event(&second(attributes.clone()), None).unwrap();
        assert!(!state.is_open());
        assert_eq!(state.status, status);
        assert_eq!(state.close.as_ref().unwrap().event, EventId(2));
        let again = HistoryEvent { event_id: 3, ..second(attributes) };
        assert!(matches!(state.apply_event(&again, None), Err(FoldError::Invalid { .. })));
    }
}
