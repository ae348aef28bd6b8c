//! What a request or a command says stands in its event, field by field (api-surface 4), and retries follow their policy
//! (api-surface 4.5, 4.6).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use antipode_core::{
    decide::{
        activity::{self, End},
        external,
    },
    ids::{EventId, FailoverVersion, Nanos, Timestamp},
    retry,
    task::PollInfo,
};
use antipode_proto::api::{
    command::v1::{self as command, command::Attributes as Wanted},
    common::v1::{Header, Link, Memo, Payload, Priority, RetryPolicy, SearchAttributes, link},
    enums::v1::{RetryState, TimeoutType},
    failure::v1::{
        ApplicationFailureInfo, CanceledFailureInfo, Failure, ServerFailureInfo, TerminatedFailureInfo,
        TimeoutFailureInfo, failure::FailureInfo,
    },
    history::v1::{self as history, history_event::Attributes},
    sdk::v1::UserMetadata,
    taskqueue::v1::TaskQueue,
    workflowservice::v1 as ws,
};
use antipode_proto::core as wire;
use support::*;

fn payload(text: &str) -> Payload {
    Payload { data: text.as_bytes().to_vec().into(), ..Default::default() }
}

fn header(text: &str) -> Header {
    Header { fields: [("h".to_string(), payload(text))].into() }
}

fn priority(key: i32) -> Priority {
    Priority { priority_key: key, ..Default::default() }
}

/// A request with every field that a run keeps.
fn full_request() -> ws::StartWorkflowExecutionRequest {
    ws::StartWorkflowExecutionRequest {
        workflow_execution_timeout: seconds(5_000),
        workflow_run_timeout: seconds(3_000),
        workflow_task_timeout: seconds(7),
        identity: "client".to_string(),
        retry_policy: Some(RetryPolicy { maximum_attempts: 3, ..Default::default() }),
        memo: Some(Memo { fields: [("m".to_string(), payload("memo"))].into() }),
        search_attributes: Some(SearchAttributes {
            indexed_fields: [("s".to_string(), payload("search"))].into(),
        }),
        header: Some(header("start")),
        user_metadata: Some(UserMetadata { summary: Some(payload("summary")), details: None }),
        priority: Some(priority(3)),
        ..start_request()
    }
}

fn started(author: &Author) -> history::WorkflowExecutionStartedEventAttributes {
    match events(&author.run).remove(0).attributes {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) => *a,
        other => panic!("{other:?}"),
    }
}

/// A task's timeout is that of the request, 10 s when it names none or zero; an activity without a queue is for the run's own.
#[test]
fn timeout_and_queue_have_defaults() {
    for (asked, told) in [(seconds(7), 7), (seconds(0), 10), (None, 10)] {
        let request = ws::StartWorkflowExecutionRequest { workflow_task_timeout: asked, ..start_request() };
        let run = Author::begin_with(&request, 2).run;
        assert_eq!(run.state.start.as_ref().unwrap().task_timeout(), Nanos::seconds(told), "{asked:?}");
    }
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    assert_eq!(east.run.activity(east.activity("a")).unwrap().activity.queue(), "queue");
}

/// What a run occupies in a cache grows with its batches, registers and what waits.
#[test]
fn the_size_of_a_run_grows_with_what_it_holds() {
    let mut east = Author::begin();
    let batch = |author: &Author| author.last().envelope_bytes.len() + author.last().events.len();
    let empty = antipode_core::run::Run::new(run_key(2), run_id(2)).size();
    let begun = east.run.size();
    assert!(begun >= empty + batch(&east));
    east.step(vec![activity("a"), activity("b")]);
    let scheduled = east.run.size();
    assert!(scheduled >= begun + batch(&east));
    east.start_activity("a");
    let one = east.run.size();
    east.start_activity("b");
    assert!(one > scheduled, "a register");
    assert_eq!(east.run.size() - one, one - scheduled, "and another");
    east.signal("now");
    assert!(east.start_task());
    let nothing_waits = east.run.size();
    east.signal("waits");
    let waits = east.run.size();
    east.signal("waits too");
    assert!(waits > nothing_waits && east.run.pending.len() == 2);
    assert_eq!(east.run.size() - waits, waits - nothing_waits);
}

/// R701, B2: a continued run keeps what its predecessor was started with, and names it.
#[test]
fn a_continued_run_keeps_what_it_was_started_with() {
    let mut east = Author::begin_with(&full_request(), 2);
    let old = started(&east);
    let failure = Failure { message: "before".into(), ..Default::default() };
    let mut wanted = continue_as_new();
    wanted.attributes = Some(Wanted::ContinueAsNewWorkflowExecutionCommandAttributes(
        command::ContinueAsNewWorkflowExecutionCommandAttributes {
            input: Some(payloads("next")),
            failure: Some(failure.clone()),
            last_completion_result: Some(payloads("result")),
            ..Default::default()
        },
    ));
    let first = east.run.key.run.to_string();
    east.step(vec![wanted]);
    let Some(Attributes::WorkflowExecutionContinuedAsNewEventAttributes(closing)) =
        events(&east.run).pop().unwrap().attributes
    else {
        panic!("the run goes on")
    };
    assert_eq!(closing.workflow_task_completed_event_id, 4);
    assert_eq!(closing.memo, old.memo);
    assert_eq!(closing.workflow_task_timeout, seconds(7));
    #[allow(deprecated, reason = "the field stands in the public event")]
    {
        assert_eq!(closing.failure, Some(failure.clone()));
    }
    east.follow();
    let new = started(&east);
    assert_eq!(closing.new_execution_run_id, east.run.key.run.to_string());
    assert_eq!(new.input, Some(payloads("next")));
    assert_eq!(new.workflow_execution_timeout, seconds(5_000));
    assert_eq!(new.workflow_run_timeout, seconds(3_000));
    assert_eq!(new.workflow_task_timeout, seconds(7));
    assert_eq!(new.continued_execution_run_id, first);
    assert_eq!(new.original_execution_run_id, east.run.key.run.to_string());
    assert_eq!(new.first_execution_run_id, first);
    assert!(old.workflow_execution_expiration_time.is_some());
    assert_eq!(new.workflow_execution_expiration_time, old.workflow_execution_expiration_time);
    assert_eq!((new.attempt, new.identity.as_str()), (1, "client"));
    assert_eq!(new.continued_failure, Some(failure));
    assert_eq!(new.last_completion_result, Some(payloads("result")));
    assert_eq!((new.memo, new.header), (old.memo, old.header));
    assert_eq!((new.retry_policy, new.search_attributes), (old.retry_policy, old.search_attributes));
    assert_eq!((new.priority, new.task_queue), (Some(priority(3)), old.task_queue));
    assert_eq!(new.workflow_type, old.workflow_type);
    assert_eq!(east.run.predecessor().map(|run| run.to_string()), Some(first));
    let start = east.run.state.start.as_ref().unwrap();
    assert_eq!((start.workflow_type(), start.queue()), ("type", "queue"));
    assert_eq!(start.user_metadata, full_request().user_metadata);
}

/// The earlier of the two timeouts ends a run; one of zero is none.
#[test]
fn a_run_expires_with_the_earlier_timeout() {
    let expires = |run: i64, execution: i64| {
        let request = ws::StartWorkflowExecutionRequest {
            workflow_run_timeout: seconds(run),
            workflow_execution_timeout: seconds(execution),
            ..start_request()
        };
        let author = Author::begin_with(&request, 2);
        let at = author.run.state.start.as_ref().unwrap().expires_at();
        at.map(|at| (at.0 - author.now) / SECOND)
    };
    assert_eq!(expires(0, 0), None);
    assert_eq!(expires(30, 0), Some(30));
    assert_eq!(expires(0, 40), Some(40));
    assert_eq!(expires(30, 40), Some(30));
}

#[test]
fn a_signal_stands_in_its_event_whole() {
    let request = ws::SignalWorkflowExecutionRequest {
        signal_name: "go".into(),
        input: Some(payloads("in")),
        identity: "client".into(),
        header: Some(header("signal")),
        request_id: "r".into(),
        ..Default::default()
    };
    let Attributes::WorkflowExecutionSignaledEventAttributes(event) = external::signal(&request).attributes
    else {
        panic!("a signal")
    };
    assert_eq!((event.signal_name.as_str(), event.identity.as_str()), ("go", "client"));
    assert_eq!((event.input, event.header), (request.input, request.header));
    assert_eq!(event.request_id, "r");
}

#[test]
fn an_activity_stands_in_its_event_whole() {
    let author = Author::begin_with(&full_request(), 2);
    let command = command::ScheduleActivityTaskCommandAttributes {
        activity_id: "a".into(),
        header: Some(header("activity")),
        input: Some(payloads("in")),
        task_queue: Some(TaskQueue { name: "other".into(), ..Default::default() }),
        priority: Some(priority(1)),
        ..Default::default()
    };
    let event = activity::scheduled_attributes(&author.run, &command, EventId(4));
    assert_eq!((event.activity_id.as_str(), event.workflow_task_completed_event_id), ("a", 4));
    assert_eq!((event.header, event.input), (command.header.clone(), command.input.clone()));
    assert_eq!(event.task_queue.unwrap().name, "other");
    assert_eq!(event.priority, Some(priority(1)));
    // What it does not say comes from the run.
    let silent = command::ScheduleActivityTaskCommandAttributes {
        task_queue: Some(TaskQueue::default()),
        priority: None,
        ..command
    };
    let event = activity::scheduled_attributes(&author.run, &silent, EventId(4));
    assert_eq!((event.task_queue.unwrap().name.as_str(), event.priority), ("queue", Some(priority(3))));
}

#[test]
fn workers_stand_in_the_events_they_cause() {
    let mut east = Author::begin();
    east.start_task();
    east.fail_task();
    let Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) =
        events(&east.run).pop().unwrap().attributes
    else {
        panic!("a failed workflow task")
    };
    assert_eq!(failed.identity, "worker");
    let mut once = activity("a");
    let Some(Wanted::ScheduleActivityTaskCommandAttributes(wanted)) = &mut once.attributes else {
        panic!("an activity")
    };
    wanted.retry_policy = Some(RetryPolicy { maximum_attempts: 1, ..Default::default() });
    once.user_metadata = Some(UserMetadata { summary: Some(payload("why")), details: None });
    east.step(vec![once]);
    let scheduled = events(&east.run).pop().unwrap();
    assert_eq!(scheduled.user_metadata.unwrap().summary, Some(payload("why")));
    // It ends while a workflow task is in flight: its outcome waits, and wakes the workflow afterwards (A2).
    east.signal("go");
    east.start_task();
    east.start_activity("a");
    assert!(!east.run.has_pending_live());
    east.end_activity("a", End::Failed(Failure::default()));
    assert!(east.run.has_pending_live());
    assert_eq!(east.complete(vec![]), None);
    assert!(!east.run.has_pending_live());
    let failed = events(&east.run).into_iter().find_map(|event| match event.attributes {
        Some(Attributes::ActivityTaskFailedEventAttributes(a)) => Some(a),
        _ => None,
    });
    let failed = failed.expect("the outcome was written");
    assert_eq!(
        (failed.identity.as_str(), failed.retry_state()),
        ("worker", RetryState::MaximumAttemptsReached)
    );
    let begun = events(&east.run)
        .into_iter()
        .find(|event| matches!(event.attributes, Some(Attributes::ActivityTaskStartedEventAttributes(_))));
    assert_eq!(failed.started_event_id, begun.unwrap().event_id);
    assert!(east.run.task().is_some(), "the workflow is told");
    assert_eq!(east.run.state.transitions, i64::try_from(east.run.line.len()).unwrap());
}

/// An outcome that waits for an activity of another branch is not written on this one (A2).
#[test]
fn an_outcome_waits_for_its_own_branch_only() {
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    east.step(vec![activity("a")]);
    east.signal("go");
    east.start_task();
    east.start_activity("a");
    east.end_activity("a", End::Completed(None));
    assert!(east.run.has_pending_live());
    west.step(vec![activity("b")]);
    east.receive(&west);
    assert!(east.run.state.activity_ids.contains_key("b"), "the branch of west is current");
    assert!(!east.run.has_pending_live());
    assert_eq!(east.run.pending_live(), []);
}

/// Continue-as-new is suggested above 4,096 events and above 4 MB, not at them.
#[test]
fn continue_as_new_is_suggested_for_long_histories() {
    let suggested = |author: &mut Author| {
        assert!(author.start_task());
        match events(&author.run).pop().unwrap().attributes {
            Some(Attributes::WorkflowTaskStartedEventAttributes(a)) => a.suggest_continue_as_new,
            other => panic!("{other:?}"),
        }
    };
    let mut author = Author::begin();
    assert!(!suggested(&mut author));
    author.complete(vec![]);
    let mut wide = author.clone();
    wide.signal_with("big", &"x".repeat(5 << 20));
    assert!(suggested(&mut wide), "too many bytes");
    // Signal and task, then so many signals that the scheduled event of the next but one task is the 4,096th.
    for number in 0..=4_086 {
        author.signal(&format!("s{number}"));
    }
    let mut longer = author.clone();
    longer.signal("one more");
    for (mut author, scheduled, expected) in [(author, 4_096, false), (longer, 4_097, true)] {
        assert!(!suggested(&mut author), "its task was scheduled early");
        author.complete(vec![]);
        author.signal("last");
        assert_eq!(author.run.task().unwrap().scheduled, EventId(scheduled));
        assert_eq!(suggested(&mut author), expected, "{scheduled}");
    }
}

#[test]
fn retries_follow_their_policy() {
    let policy = retry::with_defaults(Some(&RetryPolicy {
        maximum_attempts: 20,
        non_retryable_error_types: vec!["Fatal".into(), "TemporalTimeout:Heartbeat".into()],
        ..Default::default()
    }));
    let now = Timestamp(1_000 * SECOND);
    let failure = |info: FailureInfo| Failure { failure_info: Some(info), ..Default::default() };
    let app = |kind: &str, non_retryable: bool, delay: Option<i64>| {
        failure(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: kind.into(),
            non_retryable,
            next_retry_delay: delay.and_then(seconds),
            ..Default::default()
        }))
    };
    let timeout = |kind: TimeoutType| {
        failure(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: kind as i32,
            ..Default::default()
        }))
    };
    let server = |non_retryable| failure(FailureInfo::ServerFailureInfo(ServerFailureInfo { non_retryable }));
    // Seconds until the next attempt, or why there is none.
    let next = |attempt: i32, failure: &Failure, expires: Option<i64>| {
        let expires = expires.map(|seconds| now.plus(Nanos::seconds(seconds)));
        retry::next_attempt(&policy, attempt, failure, now, expires).map(|at| (at.0 - now.0) / SECOND)
    };
    let plain = Failure::default();
    for (attempt, wait) in [(1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (19, 100)] {
        assert_eq!(next(attempt, &plain, None), Ok(wait), "{attempt}");
    }
    assert_eq!(next(20, &plain, None), Err(RetryState::MaximumAttemptsReached));
    assert_eq!(next(1, &plain, Some(2)), Ok(1));
    assert_eq!(next(1, &plain, Some(1)), Err(RetryState::Timeout));
    let never = Err(RetryState::NonRetryableFailure);
    for (failure, expected) in [
        (failure(FailureInfo::TerminatedFailureInfo(TerminatedFailureInfo::default())), never),
        (failure(FailureInfo::CanceledFailureInfo(CanceledFailureInfo::default())), never),
        (app("Any", true, None), never),
        (app("Fatal", false, None), never),
        (app("Any", false, None), Ok(1)),
        (app("Any", false, Some(7)), Ok(7)),
        (app("Any", false, Some(0)), Ok(0)),
        (server(true), never),
        (server(false), Ok(1)),
        (timeout(TimeoutType::StartToClose), Ok(1)),
        (timeout(TimeoutType::Heartbeat), never),
        (timeout(TimeoutType::ScheduleToClose), never),
        (timeout(TimeoutType::ScheduleToStart), never),
    ] {
        assert_eq!(next(1, &failure, None), expected, "{failure:?}");
    }
}

/// The start keeps what its request said, and so does a signal that waits for a workflow task to end.
#[test]
fn a_request_stands_in_its_event_whole() {
    let before = Failure { message: "before".into(), ..Default::default() };
    let request = ws::StartWorkflowExecutionRequest {
        last_completion_result: Some(payloads("result")),
        continued_failure: Some(before.clone()),
        input: Some(payloads("in")),
        ..full_request()
    };
    let mut east = Author::begin_with(&request, 2);
    let event = started(&east);
    assert_eq!((event.search_attributes, event.memo), (request.search_attributes, request.memo));
    assert_eq!((event.header, event.priority), (request.header, request.priority));
    assert_eq!((event.last_completion_result, event.input), (Some(payloads("result")), Some(payloads("in"))));
    assert_eq!(event.continued_failure, Some(before));
    let link = Link { variant: Some(link::Variant::BatchJob(link::BatchJob { job_id: "job".into() })) };
    let signal = |key: &str| {
        external::signal(&ws::SignalWorkflowExecutionRequest {
            signal_name: key.into(),
            request_id: key.into(),
            links: vec![link.clone()],
            ..Default::default()
        })
    };
    for key in ["at once", "waits"] {
        if key == "waits" {
            assert!(east.start_task());
        }
        let (context, seat) = (east.context(), east.seat());
        external::accept(&mut east.run, signal(key), context, seat).unwrap();
    }
    assert_eq!(east.run.pending.len(), 1);
    east.complete(vec![]);
    let written = events(&east.run).into_iter().filter_map(|event| match event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => Some((a.signal_name, event.links)),
        _ => None,
    });
    let expected = ["at once", "waits"].map(|key| (key.to_owned(), vec![link.clone()]));
    assert_eq!(written.collect::<Vec<_>>(), expected);
}

/// Who has an attempt, and what became of the one before, stand in the register and then in the events (A5).
#[test]
fn attempts_stand_in_registers_and_events() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    let poll = |id: &str| PollInfo { identity: "w".into(), request_id: id.into(), ..PollInfo::default() };
    let attempt = |east: &Author| east.run.activity(east.activity("a")).unwrap().attempt;
    let start = |east: &mut Author, id: &str| {
        let task = activity::task_ref(&east.run.activity(east.activity("a")).unwrap());
        let context = east.context();
        activity::start(&mut east.run, &task, &poll(id), context)
    };
    let anchor = east.run.activity(east.activity("a")).unwrap().activity.anchor();
    let stamped = wire::ActivityAttempt { stamp: 2, ..attempt(&east) };
    east.run.set_activity_attempt(anchor, FailoverVersion(1), &stamped);
    start(&mut east, "poll 1").unwrap();
    assert_eq!(attempt(&east).started_request_id, "poll 1");
    start(&mut east, "poll 1").unwrap();
    assert!(start(&mut east, "poll 2").is_err(), "another poll has it");
    let failure = Failure { message: "first".into(), ..Default::default() };
    east.end_activity("a", End::Failed(failure.clone()));
    let second = attempt(&east);
    assert_eq!((second.attempt, second.stamp, second.started), (2, 2, false));
    east.pass(1);
    start(&mut east, "poll 3").unwrap();
    // The schedule says when it ends: one event for both, and the workflow is told.
    east.end_activity("a", End::TimedOut(TimeoutType::ScheduleToClose));
    let all = events(&east.run);
    let begun = all.iter().find_map(|event| match &event.attributes {
        Some(Attributes::ActivityTaskStartedEventAttributes(a)) => Some((event.event_id, a.clone())),
        _ => None,
    });
    let (id, begun) = begun.unwrap();
    assert_eq!((begun.attempt, begun.request_id.as_str()), (2, "poll 3"));
    assert_eq!(begun.last_failure, Some(failure));
    let ended = all.iter().find_map(|event| match &event.attributes {
        Some(Attributes::ActivityTaskTimedOutEventAttributes(a)) => Some(a.started_event_id),
        _ => None,
    });
    assert_eq!(ended, Some(id));
}

/// An activity that times out for good wakes its workflow, also when no timer fires with it.
#[test]
fn the_last_timeout_of_an_activity_wakes_the_workflow() {
    let mut once = activity("a");
    let Some(Wanted::ScheduleActivityTaskCommandAttributes(wanted)) = &mut once.attributes else {
        panic!("an activity")
    };
    wanted.retry_policy = Some(RetryPolicy { maximum_attempts: 1, ..Default::default() });
    let mut east = Author::begin();
    east.step(vec![once]);
    east.start_activity("a");
    assert!(east.run.task().is_none());
    east.pass(20);
    assert!(east.run.state.activities.is_empty() && east.run.task().is_some());
    let ended = events(&east.run).into_iter().find_map(|event| match event.attributes {
        Some(Attributes::ActivityTaskTimedOutEventAttributes(a)) => Some(a),
        _ => None,
    });
    let ended = ended.unwrap();
    assert_eq!((ended.retry_state(), ended.scheduled_event_id), (RetryState::MaximumAttemptsReached, 5));
    assert!(ended.failure.is_some());
}

/// A command that cannot be done fails its task, and the failure says why.
#[test]
fn a_refused_command_says_why_in_its_event() {
    let mut east = Author::begin();
    east.start_task();
    let refused = east.complete(vec![timer("", 5)]).expect("a timer without an id").to_string();
    let Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) =
        events(&east.run).pop().unwrap().attributes
    else {
        panic!("a failed workflow task")
    };
    let message = failed.failure.unwrap().message;
    assert!(!message.is_empty() && refused.contains(&message), "{message:?}, {refused:?}");
}
