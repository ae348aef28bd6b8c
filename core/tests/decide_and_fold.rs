//! Decisions and the fold agree: after any sequence of requests, the run in memory is what its stored batches, registers and
//! pending events fold to (DESIGN section 3). The fold is the only writer of mutable state, so a run that was decided step by
//! step, one that was replicated batch by batch, and one that is rebuilt from the store are the same run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    decide::{activity, due},
    digest::digest,
    fold::FoldError,
    ids::{EventId, FailoverVersion, Timestamp},
    refusal::Refusal,
    run::{Pushed, Run},
    state::State,
};
use antipode_proto::api::{
    command::v1::{Command, command::Attributes},
    common::v1::RetryPolicy,
    enums::v1::{CommandType, TimeoutType},
    failure::v1::Failure,
    history::v1::{self as history, HistoryEvent, history_event},
    workflowservice::v1 as ws,
};
use proptest::prelude::*;
use support::*;

/// What happens next; indexes choose among what is possible, so that cases shrink.
#[derive(Clone, Debug)]
enum Action {
    Signal(u8),
    SignalWithoutKey,
    Cancel,
    Terminate,
    StartTask,
    CompleteTask(Vec<Wish>, bool),
    FailTask,
    StartActivity(usize),
    EndActivity(usize, u8),
    Heartbeat(usize),
    Pass(u8),
    /// The clock falls (H2): another machine, or one that was ahead.
    Fall(u8),
    /// The namespace moves away and back: the version grows.
    Move,
    /// Another region went on from here for a while, lost, and its branch arrives.
    Diverge(u8),
}

/// One command of a worker: every kind that is built.
#[derive(Clone, Debug)]
enum Wish {
    Activity(u8),
    CancelActivity(usize),
    Timer(u8, u8),
    CancelTimer(u8),
    Marker,
    SearchAttribute(u8, bool),
    Memo(u8, bool),
    Complete,
    Canceled,
    Fail,
    ContinueAsNew,
}

/// Kinds of commands that are built. Every other one is refused with its name; see `a_command_that_is_not_built_says_so`.
const BUILT: [CommandType; 11] = [
    CommandType::ScheduleActivityTask,
    CommandType::RequestCancelActivityTask,
    CommandType::StartTimer,
    CommandType::CancelTimer,
    CommandType::RecordMarker,
    CommandType::UpsertWorkflowSearchAttributes,
    CommandType::ModifyWorkflowProperties,
    CommandType::CompleteWorkflowExecution,
    CommandType::CancelWorkflowExecution,
    CommandType::FailWorkflowExecution,
    CommandType::ContinueAsNewWorkflowExecution,
];

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        8 => (0..6u8).prop_map(Wish::Activity),
        8 => (0..4usize).prop_map(Wish::CancelActivity),
        8 => (0..4u8, 1..20u8).prop_map(|(id, length)| Wish::Timer(id, length)),
        8 => (0..4u8).prop_map(Wish::CancelTimer),
        2 => Just(Wish::Marker),
        3 => (0..3u8, any::<bool>()).prop_map(|(key, set)| Wish::SearchAttribute(key, set)),
        3 => (0..3u8, any::<bool>()).prop_map(|(key, set)| Wish::Memo(key, set)),
        1 => Just(Wish::Complete),
        1 => Just(Wish::Canceled),
        1 => Just(Wish::Fail),
        2 => Just(Wish::ContinueAsNew),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..12u8).prop_map(Action::Signal),
        2 => Just(Action::SignalWithoutKey),
        2 => Just(Action::Cancel),
        1 => Just(Action::Terminate),
        12 => Just(Action::StartTask),
        12 => (proptest::collection::vec(wish(), 0..4), any::<bool>())
            .prop_map(|(wishes, more)| Action::CompleteTask(wishes, more)),
        2 => Just(Action::FailTask),
        8 => (0..4usize).prop_map(Action::StartActivity),
        8 => (0..4usize, 0..4u8).prop_map(|(index, how)| Action::EndActivity(index, how)),
        2 => (0..4usize).prop_map(Action::Heartbeat),
        8 => (1..40u8).prop_map(Action::Pass),
        2 => (1..200u8).prop_map(Action::Fall),
        2 => Just(Action::Move),
        2 => (0..4u8).prop_map(Action::Diverge),
    ]
}

/// A run with a retry policy and a run timeout, so that chains go on by every way.
fn begin() -> Author {
    let request = ws::StartWorkflowExecutionRequest {
        workflow_run_timeout: seconds(300),
        retry_policy: Some(RetryPolicy { initial_interval: seconds(1), ..Default::default() }),
        ..start_request()
    };
    Author::begin_with(&request, 2)
}

fn open_activity(author: &Author, index: usize, started: bool) -> Option<String> {
    let open: Vec<_> = author
        .run
        .state
        .activity_ids
        .iter()
        .filter(|(_, scheduled)| {
            let view = author.run.activity(**scheduled).unwrap();
            view.attempt.started == started && !view.decided
        })
        .map(|(id, _)| id.clone())
        .collect();
    (!open.is_empty()).then(|| open[index % open.len()].clone())
}

fn act(author: &mut Author, action: &Action) {
    if !author.run.state.is_open() {
        return;
    }
    match action {
        Action::Signal(name) => author.signal(&format!("s{name}")),
        Action::SignalWithoutKey => author.signal_as("bare", "", false),
        Action::Cancel => author.cancel(""),
        Action::Terminate => author.terminate(),
        Action::StartTask => drop(author.start_task()),
        Action::CompleteTask(wishes, more) => complete_task(author, wishes, *more),
        Action::FailTask if author.held_task().is_some() => author.fail_task(),
        Action::FailTask => {}
        Action::StartActivity(index) => {
            if let Some(id) = open_activity(author, *index, false) {
                author.start_activity(&id);
            }
        }
        Action::EndActivity(index, how) => {
            if let Some(id) = open_activity(author, *index, true) {
                author.end_activity(&id, end(*how));
            }
        }
        Action::Heartbeat(index) => {
            if let Some(id) = open_activity(author, *index, true) {
                author.heartbeat(&id, "beat");
            }
        }
        Action::Pass(length) => {
            author.pass(i64::from(*length));
            settled(author);
        }
        Action::Fall(seconds) => author.now -= i64::from(*seconds) * SECOND,
        Action::Move => {
            author.version += 10;
            author.settle();
            settled(author);
        }
        Action::Diverge(signals) => diverge(author, *signals),
    }
    if author.successor.is_some() {
        check(author);
        author.follow();
    }
}

fn end(how: u8) -> activity::End {
    let failure = Failure { message: "no".to_string(), ..Default::default() };
    match how {
        0 => activity::End::Completed(Some(payloads("done"))),
        1 => activity::End::Failed(failure),
        2 => activity::End::Canceled(None),
        _ => activity::End::TimedOut(TimeoutType::StartToClose),
    }
}

/// What was due is done: the next wake-up lies ahead.
fn settled(author: &Author) {
    let (version, now) = (FailoverVersion(author.version), Timestamp(author.now));
    let wake = due::wake_at(&author.run, Some(version), now);
    assert!(wake.is_none_or(|wake| wake > now), "still due at {wake:?}, now {now:?}");
}

/// A second region writes under a version of its own; this one, made active above it, gets that branch and takes over what
/// clients gave it.
fn diverge(author: &mut Author, signals: u8) {
    let mut other = author.elsewhere(2, author.version / 10 * 10 + 2);
    author.version += 10;
    author.settle();
    if !author.run.state.is_open() {
        return;
    }
    author.signal_as("here", "", false);
    for number in 0..signals {
        other.signal_as("there", "", number % 2 == 0);
    }
    other.cancel("");
    author.receive(&other);
    author.merge(&other);
    author.settle();
}

fn complete_task(author: &mut Author, wishes: &[Wish], more: bool) {
    let Some(presented) = author.held_task() else { return };
    let commands: Vec<_> = wishes.iter().filter_map(|wish| command(author, wish)).collect();
    let request = ws::RespondWorkflowTaskCompletedRequest {
        commands,
        force_create_new_workflow_task: more,
        ..Default::default()
    };
    // Commands that cannot be done fail the task by an event, which is folded like any other.
    let _ = author.complete_request(&presented, &request).unwrap();
}

fn command(author: &Author, wish: &Wish) -> Option<Command> {
    let text = |set: bool| if set { "1" } else { "" };
    Some(match wish {
        Wish::Activity(id) => activity(&format!("a{id}")),
        Wish::CancelActivity(index) => {
            let open: Vec<_> = author.run.state.activities.keys().collect();
            cancel_activity(**open.get(index % open.len().max(1))?)
        }
        Wish::Timer(id, length) => timer(&format!("t{id}"), i64::from(*length)),
        Wish::CancelTimer(id) => cancel_timer(&format!("t{id}")),
        Wish::Marker => marker("version"),
        Wish::SearchAttribute(key, set) => search_attribute(&format!("k{key}"), text(*set)),
        Wish::Memo(key, set) => memo(&format!("m{key}"), text(*set)),
        Wish::Complete => complete(),
        Wish::Canceled => canceled(),
        Wish::Fail => fail(),
        Wish::ContinueAsNew => continue_as_new(),
    })
}

/// The run as the store would give it back, and as a peer that got every batch has it.
fn check(author: &Author) {
    let run = &author.run;
    let stored = Run::restore(run.key.clone(), &run.head(), author.batches.iter().cloned()).unwrap();
    assert_eq!(stored.state, run.state);
    assert_eq!(stored.head(), run.head());
    assert_eq!(digest(&stored), digest(run));
    assert_eq!(stored.task(), run.task());
    let mut peer = Run::new(run.key.clone(), run.first_run);
    for batch in &author.batches {
        let received = Batch::open(batch.envelope_bytes.clone(), batch.events.clone()).unwrap();
        assert_eq!(received.chain, batch.chain);
        let pushed = peer.push(&Arc::new(received)).unwrap();
        assert!(run.branches().len() > 1 || pushed == Pushed::Grew, "{pushed:?}");
    }
    peer.merge(&run.state_wire());
    assert!(!peer.merge(&run.state_wire()), "a second merge changes nothing (V19)");
    assert_eq!(peer.state, run.state);
    assert_eq!(digest(&peer), digest(run));
    assert_eq!(shared_bytes(&peer), shared_bytes(run));
    // V01: ids 1..n without gap; V03: one version a batch, strictly increasing by item.
    let events = events(run);
    assert!(events.iter().zip(1..).all(|(event, id)| event.event_id == id));
    assert!(events.windows(2).all(|pair| pair[0].version <= pair[1].version));
    // H2: time never goes back.
    let times: Vec<_> =
        events.iter().map(|event| event.event_time.map(|at| (at.seconds, at.nanos))).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn decided_stored_and_replicated_runs_are_the_same(actions in proptest::collection::vec(action(), 1..60)) {
        let mut author = begin();
        for action in &actions {
            act(&mut author, action);
            check(&author);
        }
    }
}

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

#[test]
fn an_event_for_something_that_is_not_open_is_refused() {
    let mut state = State::default();
    state.apply_event(&started(), None).unwrap();
    let fired = HistoryEvent {
        event_id: 2,
        attributes: Some(history_event::Attributes::TimerFiredEventAttributes(
            history::TimerFiredEventAttributes { timer_id: "t".to_string(), started_event_id: 1 },
        )),
        ..Default::default()
    };
    let refused = state.apply_event(&fired, None);
    assert!(matches!(refused, Err(FoldError::Unknown { kind: "TimerFired", .. })), "{refused:?}");
}

#[test]
fn nothing_follows_the_closing_event() {
    let mut state = State::default();
    state.apply_event(&started(), None).unwrap();
    let terminated = |event_id| HistoryEvent {
        event_id,
        attributes: Some(history_event::Attributes::WorkflowExecutionTerminatedEventAttributes(
            history::WorkflowExecutionTerminatedEventAttributes::default(),
        )),
        ..Default::default()
    };
    state.apply_event(&terminated(2), None).unwrap();
    assert!(!state.is_open());
    assert!(matches!(state.apply_event(&terminated(3), None), Err(FoldError::Invalid { .. })));
}
