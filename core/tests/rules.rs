//! Rules of the reference that a run alone shows, each test named after its rule. The index of all rules is
//! `docs/replication-differences.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::{Batch, EventIdentity, Malformed},
    chain::ChainValue,
    decide::{activity, due, external, reapply, workflow_task},
    identity::{ExternalKind, Identity, Key},
    ids::{EventId, FailoverVersion, RegionId, Timestamp},
    register::Kind,
    run::{Pushed, Run, RunError},
};
use antipode_proto::{
    api::{
        common::v1::RetryPolicy,
        enums::v1::{EventType, TimeoutType, WorkflowTaskFailedCause},
        failure::v1::{ApplicationFailureInfo, Failure, failure::FailureInfo},
        history::v1::{self as history, history_event::Attributes},
        workflowservice::v1 as ws,
    },
    core as wire,
};
use prost::Message;
use support::*;

/// R401: what no origin writes is refused with the name of the field.
#[test]
fn r401_malformed_envelopes_name_their_field() {
    let mut east = Author::begin();
    east.signal("x");
    let good = east.last().envelope.to_wire();
    assert_eq!(Batch::open(good.encode_to_vec().into(), east.last().events.clone()).unwrap(), *east.last());
    type Change = (&'static str, fn(&mut wire::BatchEnvelope));
    let changes: [Change; 19] = [
        ("namespace_id is not a UUID", |e| e.namespace_id = "x".into()),
        ("run_id is not a UUID", |e| e.run_id = String::new()),
        ("workflow_id is empty", |e| e.workflow_id = String::new()),
        ("first_run_id is not a UUID", |e| e.first_run_id = "x".into()),
        ("first_event_id is less than 1", |e| e.first_event_id = 0),
        ("last_event_id is less than first_event_id", |e| e.last_event_id = e.first_event_id - 1),
        ("version is negative", |e| e.version = -1),
        ("previous_chain has neither 0 nor 16 bytes", |e| e.previous_chain = vec![1; 15].into()),
        ("previous_chain is empty exactly for the first batch", |e| e.previous_chain = Default::default()),
        ("items do not strictly increase", |e| e.items.push(wire::VersionItem { event_id: 1, version: 1 })),
        ("items are empty", |e| e.items.clear()),
        ("items do not end with the last event", |e| e.last_event_id += 1),
        ("items do not end with the last event", |e| e.version += 10),
        ("origin is missing", |e| e.origin = None),
        ("place is missing", |e| e.place = None),
        ("identities have an unknown kind or key", |e| e.identities[0].identity = None),
        ("identities have an unknown kind or key", |e| e.identities[0].origin_run_id = "x".into()),
        ("successor_run_id is not a UUID", |e| e.successor_run_id = "x".into()),
        ("inherited have an unknown kind or key", |e| {
            e.inherited.push(wire::Identity { kind: 77, key: None });
        }),
    ];
    for (words, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let refused = Batch::open(bad.encode_to_vec().into(), east.last().events.clone()).unwrap_err();
        assert_eq!(refused.to_string(), format!("envelope field {words}"));
    }
    let garbage = Batch::open(vec![0xff].into(), Default::default()).unwrap_err();
    assert!(matches!(garbage, Malformed::Decode { what: "envelope", .. }), "{garbage:?}");
    // A local namespace has version 0 (R101).
    let mut local = east.batches[0].envelope.to_wire();
    local.version = 0;
    local.items = vec![wire::VersionItem { event_id: local.last_event_id, version: 0 }];
    assert!(Batch::open(local.encode_to_vec().into(), Default::default()).is_ok());
    // The first batch has no predecessor.
    let mut first = east.batches[0].envelope.to_wire();
    first.previous_chain = vec![1; 16].into();
    assert!(Batch::open(first.encode_to_vec().into(), Default::default()).is_err());
}

/// R401, R404, V03: the events of a batch are those of its header: consecutive ids, one version, none missing.
#[test]
fn r404_events_fit_their_header() {
    let mut east = Author::begin();
    east.step(vec![timer("t", 5)]);
    let batch = east.last();
    let events = batch.decode_events().unwrap();
    let with = |events: &[history::HistoryEvent]| {
        let history = history::History { events: events.to_vec() };
        let bytes = history.encode_to_vec().into();
        Batch::open(batch.envelope_bytes.clone(), bytes).unwrap().decode_events().map(|events| events.len())
    };
    assert_eq!(with(&events), Ok(2));
    let differs = |field| Err(Malformed::Field { field, why: "differs from the events of the batch" });
    assert_eq!(with(&events[..1]), differs("last_event_id"));
    assert_eq!(with(&[]), differs("last_event_id"));
    assert_eq!(with(&events[1..]), differs("first_event_id"));
    let mut other = events.clone();
    other[1].version = 2;
    assert_eq!(with(&other), differs("first_event_id"));
    let mut gap = events;
    gap[1].event_id += 1;
    assert_eq!(with(&gap), differs("first_event_id"));
    // G1: other bytes, another batch.
    let bytes = history::History { events: other }.encode_to_vec().into();
    let changed = Batch::open(batch.envelope_bytes.clone(), bytes).unwrap();
    assert_ne!(changed.chain, batch.chain);
    // A run refuses it, and keeps what it has.
    let mut run = Run::new(run_key(2), run_id(2));
    run.push(&east.batches[0]).unwrap();
    let refused = run.push(&Arc::new(changed));
    assert!(matches!(refused, Err(RunError::Malformed(_))), "{refused:?}");
    assert_eq!(run.batches.len(), 1);
}

/// R302, R411: what does not continue the run is refused, also by the run itself.
#[test]
fn r302_a_batch_without_its_predecessor_is_refused() {
    let mut east = Author::begin();
    east.signal("x");
    let mut run = Run::new(run_key(2), run_id(2));
    let refused = run.push(&east.last()).unwrap_err();
    assert!(matches!(&refused, RunError::Tree(why) if why.contains("is not stored")), "{refused:?}");
    assert!(run.tree.is_none() && run.batches.is_empty());
    let damaged = Run::restore(run_key(2), &east.run.head(), [Arc::clone(&east.batches[1])]);
    assert!(damaged.is_err());
    let head = wire::RunHead { first_run_id: "x".into(), ..east.run.head() };
    let damaged = Run::restore(run_key(2), &head, east.batches.iter().cloned()).unwrap_err();
    assert_eq!(damaged.to_string(), "envelope field first_run_id is not a UUID");
}

/// R414: (version of the incoming batch, on the current branch?) → what becomes of mutable state.
#[test]
fn r414_the_higher_version_is_current() {
    for (current, incoming, follows_tip, expected) in [
        (2, 1, false, Pushed::Aside),
        (2, 12, false, Pushed::Switched),
        (2, 2, true, Pushed::Grew),
        (2, 11, true, Pushed::Grew),
    ] {
        let mut east = Author::begin();
        let mut west = east.elsewhere(2, current);
        west.signal("y");
        if follows_tip {
            east.receive(&west);
        }
        east.version = incoming;
        let before = east.batches.len();
        east.signal("x");
        let pushed = west.take(&east.batches[before..]);
        assert_eq!(pushed, [expected], "{incoming} after {current}");
        let greatest = current.max(incoming);
        assert_eq!(west.run.state.last_version, FailoverVersion(greatest));
    }
}

/// R440, R441: a started workflow task does not span two versions. Whoever owns the present version fails it under that version
/// (A9), writes what waited, and schedules a fresh one. Nothing is written under a version that was left.
#[test]
fn r440_a_started_task_is_taken_over() {
    for (case, from, to) in
        [("passive to active", 1, 2), ("active, away and back", 1, 11), ("promoted", 0, 1)]
    {
        let mut east = Author::begin();
        if from == 0 {
            east = local();
        }
        east.start_task();
        east.signal("waits");
        let mut other = east.elsewhere(u32::try_from(to % 10).unwrap(), to);
        let version = Some(FailoverVersion(to));
        assert_eq!(
            due::wake_at(&other.run, version, RegionId(other.region), Timestamp(other.now)),
            Some(Timestamp(0)),
            "{case}"
        );
        other.settle();
        let outline = other.outline();
        let expected = [
            format!("4@{to} WorkflowTaskFailed"),
            format!("5@{to} WorkflowExecutionSignaled"),
            format!("6@{to} WorkflowTaskScheduled"),
        ];
        assert_eq!(outline[3..], expected, "{case}");
        let failed = events(&other.run)[3].attributes.clone();
        let Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(failed.cause, WorkflowTaskFailedCause::FailoverCloseCommand as i32);
        assert_eq!((failed.scheduled_event_id, failed.started_event_id), (2, 3));
        assert_eq!(other.run.task().unwrap().attempt, 1);
        // Once: the next look changes nothing.
        other.settle();
        assert_eq!(other.outline().len(), 6, "{case}");
    }
    // The same version, or a task that nobody started: nothing to take over.
    let mut east = Author::begin();
    let mut idle = east.elsewhere(2, 2);
    idle.settle();
    assert_eq!(idle.outline().len(), 2);
    east.start_task();
    east.settle();
    assert_eq!(east.outline().len(), 3);
}

/// A run of a local namespace: version 0.
fn local() -> Author {
    let mut author = Author::begin();
    let key = run_key(2);
    author.version = 0;
    let (context, seat) = (author.context(), author.seat());
    let new = antipode_core::decide::start::from_request(&start_request(), key.run, context.now);
    let (run, batch) = antipode_core::decide::start::start(key, new, context, seat).unwrap();
    Author { run, batches: vec![batch], ..author }
}

/// R440 for a task without events: the attempt is void and a real task follows.
#[test]
fn r440_a_transient_task_is_taken_over() {
    let mut east = Author::begin();
    east.start_task();
    east.fail_task();
    east.start_task();
    east.signal("waits");
    let mut west = east.elsewhere(2, 2);
    west.settle();
    assert_eq!(west.outline()[4..], ["5@2 WorkflowExecutionSignaled", "6@2 WorkflowTaskScheduled"]);
    let task = west.run.task().unwrap();
    assert!(!task.transient && task.attempt == 1 && task.started.is_none());
}

/// One event with this identity, written by a region whose branch will lose.
fn losing(attributes: Attributes, kind: ExternalKind) -> (Author, Author) {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    west.signal("Y");
    let external = external::External {
        attributes,
        identity: Some(Identity::client(kind, "key")),
        kind,
        named_run: false,
        links: Vec::new(),
    };
    let (context, seat) = (east.context(), east.seat());
    let outcome = external::accept(&mut east.run, external, context, seat).unwrap();
    east.batches.extend(outcome.batch);
    west.receive(&east);
    (east, west)
}

/// R500, R501: (event of the losing branch, what the winner gets for it).
#[test]
fn r501_what_is_applied_again_by_kind() {
    let signaled = Attributes::WorkflowExecutionSignaledEventAttributes(
        history::WorkflowExecutionSignaledEventAttributes { signal_name: "X".into(), ..Default::default() },
    );
    let cancel = Attributes::WorkflowExecutionCancelRequestedEventAttributes(
        history::WorkflowExecutionCancelRequestedEventAttributes {
            cause: "why".into(),
            ..Default::default()
        },
    );
    let terminated = Attributes::WorkflowExecutionTerminatedEventAttributes(
        history::WorkflowExecutionTerminatedEventAttributes { reason: "why".into(), ..Default::default() },
    );
    for (attributes, kind) in [
        (signaled, ExternalKind::Signal),
        (cancel, ExternalKind::Cancel),
        (terminated, ExternalKind::Terminate),
    ] {
        let (_, mut west) = losing(attributes.clone(), kind);
        assert!(kind.is_reapplied());
        let before = west.outline().len();
        west.settle();
        let written = &events(&west.run)[before..];
        assert_eq!(written[0].attributes, Some(attributes), "the event comes back as it was");
        assert_eq!(written[0].version, 2);
        let entry = &west.last().envelope.identities[0];
        assert_eq!(entry.identity, Identity::client(kind, "key"));
        assert_eq!(entry.reapplied_from, Some((run_id(2), FailoverVersion(1))));
        assert!(west.run.unclaimed().is_empty());
        west.settle();
        assert_eq!(west.outline().len(), before + written.len(), "once");
    }
    for kind in [ExternalKind::Start, ExternalKind::ActivityOutcome] {
        assert!(!kind.is_reapplied(), "{kind:?}");
    }
}

/// R501: a second cancel request adds nothing, and is listed; a kind that is not built is listed with that reason.
#[test]
fn r501_what_is_not_applied_is_listed() {
    let cancel = Attributes::WorkflowExecutionCancelRequestedEventAttributes(Default::default());
    let (_, mut west) = losing(cancel, ExternalKind::Cancel);
    west.cancel("another");
    west.settle();
    let cancels = west.outline().iter().filter(|line| line.ends_with("CancelRequested")).count();
    assert_eq!(cancels, 1);
    assert_eq!(west.run.unclaimed().len(), 1);
    let record = &west.run.unclaimed()[0];
    assert_eq!(record.verdict, "a cancel request stands in the winner");
    assert_eq!((record.event_id, record.version), (5, 1));
    assert_eq!(record.run_id, run_id(2).to_string());
    assert_eq!(record.recorded_unix_nanos, west.now);
    west.settle();
    assert_eq!(west.run.unclaimed().len(), 1, "once");

    let marker = Attributes::MarkerRecordedEventAttributes(Default::default());
    let (_, mut west) = losing(marker, ExternalKind::Update);
    west.settle();
    assert_eq!(west.run.unclaimed()[0].verdict, "this kind of event is not re-applied yet");
}

/// R502: after a re-application the worker is told, unless it will be anyway.
#[test]
fn r502_a_workflow_task_follows_a_reapplication() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal("X");
    west.signal("Y");
    west.step(vec![]);
    west.receive(&east);
    assert_eq!(west.run.task(), None);
    west.settle();
    assert_eq!(west.outline()[8..], ["9@2 WorkflowExecutionSignaled", "10@2 WorkflowTaskScheduled"]);
    // While a task waits, none is added.
    let mut late = east.elsewhere(3, 3);
    late.run = Run::new(run_key(2), run_id(2));
    late.batches.clear();
    late.take(&east.batches[..3]);
    late.signal("Z");
    late.receive(&east);
    late.settle();
    let tasks = late.outline().iter().filter(|line| line.ends_with("WorkflowTaskScheduled")).count();
    assert_eq!(tasks, 2, "{:?}", late.outline());
    // While a worker has one, the event waits for its end.
    let mut busy = east.elsewhere(3, 13);
    busy.start_task();
    assert!(
        due::wake_at(&busy.run, Some(FailoverVersion(13)), RegionId(busy.region), Timestamp(busy.now))
            .is_some()
    );
}

/// R503: a termination that is applied again closes the run; what was owed after it is filed, not lost.
#[test]
fn r503_a_termination_ends_the_list() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    west.terminate();
    north.signal("N");
    north.receive(&west);
    let mut late = east.elsewhere(1, 11);
    late.signal("late");
    north.version = 13;
    north.signal("N2");
    north.receive(&late);
    north.settle();
    assert!(!north.run.state.is_open());
    assert_eq!(north.run.owed().len(), 1, "the signal of the greater branch comes after the termination");
    assert!(reapply::file_unclaimed(&mut north.run, Timestamp(5)));
    assert_eq!(north.run.unclaimed().len(), 1);
    assert_eq!(north.run.unclaimed()[0].recorded_unix_nanos, 5);
}

/// R522, I33: the signals of one losing branch come in their order and together.
#[test]
fn r522_a_losers_signals_keep_their_order() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    for name in ["a", "b", "c"] {
        east.signal(name);
    }
    west.signal("Y");
    west.receive(&east);
    west.settle();
    assert_eq!(west.signals(), ["Y 5@2", "a 7@2", "b 8@2", "c 9@2"]);
}

/// R521, B3: what a client repeats is known by its key: on the branch, while it waits, and for a cancel request in any form.
#[test]
fn r521_a_repeated_request_adds_nothing() {
    let mut east = Author::begin();
    east.signal("x");
    let before = east.outline();
    east.signal("x");
    assert_eq!(east.outline(), before);
    east.start_task();
    east.signal("y");
    east.signal("y");
    assert_eq!(east.run.pending.len(), 1);
    east.cancel("one");
    east.cancel("two");
    assert_eq!(east.run.pending.len(), 2, "one cancel request waits");
    east.complete(vec![]);
    east.cancel("three");
    let cancels = east.outline().iter().filter(|line| line.ends_with("CancelRequested")).count();
    assert_eq!(cancels, 1);
    assert!(east.run.state.cancel_requested);
}

/// B3: an identity without a client's key is unique by region, run, epoch and sequence.
#[test]
fn minted_identities_differ() {
    let mut east = Author::begin();
    east.signal_as("a", "", false);
    east.signal_as("b", "", false);
    let identities: Vec<_> =
        east.batches.iter().flat_map(|batch| batch.envelope.identities.clone()).skip(1).collect();
    let [a, b] = &identities[..] else { panic!("{identities:?}") };
    assert_ne!(a.identity, b.identity);
    let Key::Minted { region, run, epoch, sequence, ordinal } = &a.identity.key else { panic!("{a:?}") };
    assert_eq!((*region, *run, *epoch, *ordinal), (RegionId(1), run_id(2), 1, 0));
    assert_eq!(*sequence, east.batches[1].envelope.place.sequence);
    for entry in [a, b] {
        assert_eq!(Identity::from_wire(&entry.identity.to_wire()).as_ref(), Some(&entry.identity));
    }
    assert_eq!(Identity::client(ExternalKind::Signal, "r").to_string(), "Signal \"r\"");
    assert!(a.identity.to_string().starts_with("Signal of "), "{}", a.identity);
    assert_eq!(Identity::from_wire(&wire::Identity { kind: 1, key: None }), None);
    let numbers: Vec<u32> = (0..200).filter(|n| ExternalKind::from_number(*n).is_some()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 100]);
    for number in numbers {
        assert_eq!(ExternalKind::from_number(number).map(|kind| kind as u32), Some(number));
    }
}

/// R416: a chain value names the batch: from stored bytes it comes back, and nothing else does.
#[test]
fn chain_values_round_trip() {
    let value = Author::begin().run.tip();
    assert_eq!(ChainValue::from_bytes(&value.to_bytes()), Some(value));
    assert_eq!(ChainValue::from_bytes(&[]), Some(ChainValue::NONE));
    assert!(ChainValue::NONE.to_bytes().is_empty());
    assert_eq!(ChainValue::from_bytes(&[1; 15]), None);
    assert_eq!(ChainValue([0xab; 16]).to_string(), "ab".repeat(16));
    // The length of the envelope is part of it: moving a byte between the parts changes the value.
    assert_ne!(ChainValue::of_batch(b"ab", b"c"), ChainValue::of_batch(b"a", b"bc"));
}

/// V16: when a run has something to do, by kind of work; never later than it is due (C5).
#[test]
fn wake_ups_are_never_late() {
    let wake = |author: &Author| {
        let wake = author.wake();
        wake.map(|at| (at.0 - author.now) / SECOND)
    };
    let mut run = Author::begin();
    assert_eq!(wake(&run), None, "a task that waits for a worker");
    run.start_task();
    assert_eq!(wake(&run), Some(10), "its start-to-close timeout");
    run.complete(vec![timer("t", 30), activity("a")]);
    assert_eq!(
        wake(&run),
        Some(30),
        "the timer; the activity waits for a worker without a timeout of its own"
    );
    run.start_activity("a");
    assert_eq!(wake(&run), Some(10), "the heartbeat timeout");
    run.now += 4 * SECOND;
    run.heartbeat("a", "alive");
    assert_eq!(wake(&run), Some(10), "counted from the last heartbeat");
    run.now += 4 * SECOND;
    run.heartbeat("a", "alive");
    assert_eq!(wake(&run), Some(7), "start-to-close");
    run.pass(7);
    assert_eq!(run.run.activity(run.activity("a")).unwrap().attempt.attempt, 2, "timed out and retried");
    assert_eq!(wake(&run), Some(1), "the retry's wait");
    run.pass(1);
    assert_eq!(wake(&run), Some(14), "the timer again");
    run.pass(14);
    assert!(run.run.state.timers.is_empty());
    assert_eq!(wake(&run), None);
    // A sticky queue that nobody polls, a run timeout, a delayed start.
    let request = ws::StartWorkflowExecutionRequest {
        workflow_start_delay: seconds(20),
        workflow_run_timeout: seconds(50),
        ..start_request()
    };
    let mut delayed = Author::begin_with(&request, 2);
    assert_eq!(delayed.outline().len(), 1);
    assert_eq!(wake(&delayed), Some(20));
    delayed.pass(19);
    assert_eq!(delayed.outline().len(), 1);
    delayed.pass(1);
    assert_eq!(delayed.outline()[1..], ["2@1 WorkflowTaskScheduled"]);
    assert_eq!(wake(&delayed), Some(50), "the run timeout counts from the first task");
    delayed.pass(50);
    assert_eq!(delayed.outline()[2..], ["3@1 WorkflowExecutionTimedOut"]);
    assert_eq!(wake(&delayed), None);
}

/// A failed workflow task is tried again at once, then after 5, 10, 20, … seconds, at most 10 minutes.
#[test]
fn a_failing_workflow_task_backs_off() {
    let mut run = Author::begin();
    let mut waits = Vec::new();
    for attempt in 1..=12 {
        assert!(run.start_task());
        assert_eq!(run.run.task().unwrap().attempt, attempt);
        let at = run.now;
        run.fail_task();
        let next = run.run.task().unwrap();
        assert!(next.transient && next.started.is_none());
        waits.push((next.scheduled_at.0 - at) / SECOND);
        run.now = next.scheduled_at.0;
    }
    assert_eq!(waits, [0, 0, 5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
    // Only the first failure is an event.
    assert_eq!(run.outline().len(), 4);
    // It succeeds: its events are written now, with its attempt.
    run.start_task();
    run.complete(vec![]);
    assert_eq!(
        run.outline()[4..],
        ["5@1 WorkflowTaskScheduled", "6@1 WorkflowTaskStarted", "7@1 WorkflowTaskCompleted"]
    );
    let scheduled = events(&run.run)[4].attributes.clone();
    let Some(Attributes::WorkflowTaskScheduledEventAttributes(scheduled)) = scheduled else { panic!() };
    assert_eq!(scheduled.attempt, 13);
}

/// The worker is shown the events of a transient task although they are not stored.
#[test]
fn a_transient_task_shows_its_events() {
    let mut run = Author::begin();
    run.start_task();
    assert!(workflow_task::transient_events(&run.run, 1).is_empty());
    run.fail_task();
    assert!(workflow_task::transient_events(&run.run, 1).is_empty(), "not started");
    run.start_task();
    let shown = workflow_task::transient_events(&run.run, 1);
    let kinds: Vec<_> = shown.iter().map(|event| event.event_type()).collect();
    assert_eq!(kinds, [EventType::WorkflowTaskScheduled, EventType::WorkflowTaskStarted]);
    let ids: Vec<_> = shown.iter().map(|event| (event.event_id, event.version)).collect();
    assert_eq!(ids, [(5, 1), (6, 1)]);
    assert!(
        matches!(&shown[0].attributes, Some(Attributes::WorkflowTaskScheduledEventAttributes(a)) if a.attempt == 2)
    );
    assert!(
        matches!(&shown[1].attributes, Some(Attributes::WorkflowTaskStartedEventAttributes(a)) if a.scheduled_event_id == 5)
    );
}

fn failure(kind: &str, final_one: bool) -> Failure {
    let info = ApplicationFailureInfo { r#type: kind.into(), non_retryable: final_one, ..Default::default() };
    Failure { failure_info: Some(FailureInfo::ApplicationFailureInfo(info)), ..Default::default() }
}

/// An activity is retried by its policy: at most so often, not for listed failures, never past its schedule-to-close timeout.
#[test]
fn activities_are_retried_by_their_policy() {
    let policy = |maximum_attempts| RetryPolicy {
        initial_interval: seconds(1),
        backoff_coefficient: 3.0,
        maximum_interval: seconds(5),
        maximum_attempts,
        non_retryable_error_types: vec!["Final".into()],
    };
    let scheduled = |maximum: i32, to_close: i64| {
        let mut run = Author::begin();
        let mut command = activity("a");
        if let Some(
            antipode_proto::api::command::v1::command::Attributes::ScheduleActivityTaskCommandAttributes(a),
        ) = &mut command.attributes
        {
            a.retry_policy = Some(policy(maximum));
            a.schedule_to_close_timeout = seconds(to_close);
        }
        run.step(vec![command]);
        run
    };
    let fail = |run: &mut Author, failure: Failure| {
        run.start_activity("a");
        run.end_activity("a", activity::End::Failed(failure));
    };
    let state = |run: &Author| {
        events(&run.run).into_iter().rev().find_map(|event| match event.attributes {
            Some(Attributes::ActivityTaskFailedEventAttributes(a)) => {
                Some(a.retry_state().as_str_name().to_owned())
            }
            _ => None,
        })
    };
    // Waits of 1, 3, 5, 5 seconds; the fifth attempt is the last.
    let mut run = scheduled(5, 0);
    let mut waits = Vec::new();
    for _ in 1..5 {
        let at = run.now;
        fail(&mut run, failure("Again", false));
        let next = run.run.activity(run.activity("a")).unwrap().attempt.scheduled_unix_nanos;
        waits.push((next - at) / SECOND);
        run.now = next;
    }
    assert_eq!(waits, [1, 3, 5, 5]);
    let attempt = run.run.activity(run.activity("a")).unwrap().attempt;
    assert_eq!(attempt.attempt, 5);
    assert_eq!(activity::decode_failure(&attempt.last_failure), Some(failure("Again", false)));
    assert_eq!(attempt.last_worker_identity, "worker-1");
    fail(&mut run, failure("Again", false));
    assert_eq!(state(&run).as_deref(), Some("RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED"));
    // Started is written with the end, and names the attempt that counted.
    let started = events(&run.run).into_iter().find_map(|event| match event.attributes {
        Some(Attributes::ActivityTaskStartedEventAttributes(a)) => Some(a.attempt),
        _ => None,
    });
    assert_eq!(started, Some(5));
    for (failure, told) in [
        (failure("Final", false), "RETRY_STATE_NON_RETRYABLE_FAILURE"),
        (failure("Again", true), "RETRY_STATE_NON_RETRYABLE_FAILURE"),
    ] {
        let mut run = scheduled(0, 0);
        fail(&mut run, failure);
        assert_eq!(state(&run).as_deref(), Some(told));
    }
    // The next attempt would start at or after the schedule-to-close timeout.
    let mut run = scheduled(0, 4);
    fail(&mut run, failure("Again", false));
    assert_eq!(state(&run), None);
    run.now += SECOND;
    fail(&mut run, failure("Again", false));
    assert_eq!(state(&run).as_deref(), Some("RETRY_STATE_TIMEOUT"));
    // A cancelled activity is not tried again.
    let mut run = scheduled(0, 0);
    run.start_activity("a");
    run.signal("go");
    let scheduled = run.activity("a");
    run.step(vec![cancel_activity(scheduled)]);
    assert!(run.heartbeat("a", ""), "the worker is told");
    run.end_activity("a", activity::End::Failed(failure("Again", false)));
    assert_eq!(state(&run).as_deref(), Some("RETRY_STATE_CANCEL_REQUESTED"));
}

/// Timeouts of an activity, the earliest first; a heartbeat's details come with its timeout.
#[test]
fn activity_timeouts_by_kind() {
    let mut run = Author::begin();
    run.step(vec![activity("a")]);
    let timeout = |run: &Author| {
        let view = run.run.activity(run.activity("a")).unwrap();
        activity::timeout(&view, RegionId(run.region)).map(|(at, kind)| ((at.0 - run.now) / SECOND, kind))
    };
    assert_eq!(timeout(&run), None, "start-to-close counts from the start");
    run.start_activity("a");
    assert_eq!(timeout(&run), Some((10, TimeoutType::Heartbeat)));
    run.heartbeat("a", "page 7");
    run.now += 9 * SECOND;
    run.heartbeat("a", "page 8");
    assert_eq!(timeout(&run), Some((6, TimeoutType::StartToClose)));
    let scheduled = run.activity("a");
    let anchor = run.run.anchored(run.run.state.activities[&scheduled].anchor());
    let beat: wire::ActivityHeartbeat =
        run.run.registers.get(anchor, Kind::ActivityHeartbeat).unwrap().decode().unwrap();
    assert_eq!(beat.recorded_unix_nanos, run.now);
    run.pass(6);
    let attempt = run.run.activity(scheduled).unwrap().attempt;
    let failure = activity::decode_failure(&attempt.last_failure).unwrap();
    assert_eq!(failure.message, "activity StartToClose timeout");
    let Some(FailureInfo::TimeoutFailureInfo(info)) = failure.failure_info else { panic!() };
    assert_eq!(info.last_heartbeat_details, Some(payloads("page 8")));
    assert_eq!(activity::decode_failure(&Default::default()), None);
}

/// An activity that a worker asks to cancel: one that has not started ends at once, one that has is told.
#[test]
fn activities_are_cancelled() {
    let mut run = Author::begin();
    run.step(vec![activity("idle"), activity("busy")]);
    let (idle, busy) = (run.activity("idle"), run.activity("busy"));
    run.start_activity("busy");
    run.signal("go");
    run.start_task();
    assert_eq!(run.complete(vec![cancel_activity(idle), cancel_activity(busy)]), None);
    let outline = run.outline();
    assert_eq!(
        outline[10..],
        [
            "11@1 ActivityTaskCancelRequested",
            "12@1 ActivityTaskCanceled",
            "13@1 ActivityTaskCancelRequested",
            "14@1 WorkflowTaskScheduled"
        ],
        "{outline:?}"
    );
    assert!(!run.run.state.activity_ids.contains_key("idle"));
    assert_eq!(run.run.state.activities[&busy].cancel_requested, Some(EventId(13)));
    // Asked again: nothing.
    run.start_task();
    assert_eq!(run.complete(vec![cancel_activity(busy)]), None);
    assert_eq!(run.outline().len(), 16);
    run.end_activity("busy", activity::End::Canceled(Some(payloads("stopped"))));
    let canceled = events(&run.run).into_iter().rev().find_map(|event| match event.attributes {
        Some(Attributes::ActivityTaskCanceledEventAttributes(a)) => Some(a),
        _ => None,
    });
    let canceled = canceled.unwrap();
    assert_eq!((canceled.scheduled_event_id, canceled.started_event_id), (busy.0, 17));
    assert_eq!(canceled.latest_cancel_requested_event_id, 13);
}

/// The server fills in what a schedule command leaves out, and cuts what is longer than the run may live.
#[test]
fn scheduled_activities_have_all_their_timeouts() {
    let request = ws::StartWorkflowExecutionRequest { workflow_run_timeout: seconds(60), ..start_request() };
    let run = Author::begin_with(&request, 2);
    let command = |to_close, start_to_close, to_start, beat| {
        antipode_proto::api::command::v1::ScheduleActivityTaskCommandAttributes {
            schedule_to_close_timeout: to_close,
            start_to_close_timeout: start_to_close,
            schedule_to_start_timeout: to_start,
            heartbeat_timeout: beat,
            ..Default::default()
        }
    };
    let filled = |command| {
        let a = activity::scheduled_attributes(&run.run, &command, EventId(4));
        let length = |duration: Option<prost_types::Duration>| duration.unwrap().seconds;
        assert_eq!(a.workflow_task_completed_event_id, 4);
        assert_eq!(a.task_queue.as_ref().unwrap().name, "queue");
        [
            length(a.schedule_to_close_timeout),
            length(a.start_to_close_timeout),
            length(a.schedule_to_start_timeout),
            length(a.heartbeat_timeout),
        ]
    };
    assert_eq!(filled(command(None, seconds(5), None, None)), [60, 5, 60, 0]);
    assert_eq!(filled(command(seconds(90), seconds(70), seconds(80), seconds(99))), [60, 60, 60, 60]);
    assert_eq!(filled(command(seconds(30), None, seconds(5), seconds(3))), [30, 30, 5, 3]);
}

/// The next run of a chain: what it inherits and what is its own.
#[test]
fn continued_and_retried_runs() {
    let request = ws::StartWorkflowExecutionRequest {
        workflow_execution_timeout: seconds(500),
        retry_policy: Some(RetryPolicy {
            initial_interval: seconds(3),
            maximum_attempts: 2,
            ..Default::default()
        }),
        ..start_request()
    };
    let started = |author: &Author| author.run.state.start.as_ref().unwrap().attributes.clone();
    let mut run = Author::begin_with(&request, 2);
    run.step(vec![memo("m", "1"), search_attribute("k", "1"), fail()]);
    let closing = run.last();
    assert_eq!(closing.envelope.successor, Some(run_id(3)));
    assert_eq!(run.run.state.close.as_ref().unwrap().successor, Some(run_id(3)));
    run.follow();
    let next = started(&run);
    assert_eq!((next.attempt, next.initiator), (2, 2));
    assert_eq!(next.continued_execution_run_id, run_id(2).to_string());
    assert_eq!(next.first_execution_run_id, run_id(2).to_string());
    assert_eq!(next.original_execution_run_id, run_id(3).to_string());
    assert_eq!(next.first_workflow_task_backoff, seconds(3));
    assert!(run.run.state.memo.as_ref().unwrap().fields.contains_key("m"));
    assert!(run.run.state.search_attributes.as_ref().unwrap().indexed_fields.contains_key("k"));
    assert_eq!(next.workflow_execution_expiration_time, Some(Timestamp(600 * SECOND).to_proto()));
    assert_eq!(run.outline().len(), 1, "the first task waits for the back-off");
    run.pass(3);
    run.step(vec![fail()]);
    assert!(run.successor.is_none(), "the second attempt is the last");
    let closed = events(&run.run).pop().unwrap().attributes;
    let Some(Attributes::WorkflowExecutionFailedEventAttributes(closed)) = closed else { panic!() };
    assert_eq!(closed.retry_state().as_str_name(), "RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED");
    assert_eq!(closed.new_execution_run_id, "");

    let mut run = Author::begin();
    run.now += 10 * SECOND;
    run.step(vec![continue_as_new()]);
    run.follow();
    let next = started(&run);
    assert_eq!((next.attempt, next.initiator), (1, 1));
    assert_eq!(next.first_workflow_task_backoff, None, "the first run lived longer than a second");
    assert_eq!(run.outline().len(), 2);
    assert_eq!(run.run.first_run, run_id(2));
}

/// A value that removes a search attribute or a field of the memo removes it.
#[test]
fn null_values_remove_their_key() {
    let mut run = Author::begin();
    run.step(vec![search_attribute("k", "1"), memo("m", "1"), search_attribute("kept", "1")]);
    run.signal("go");
    run.step(vec![search_attribute("k", ""), memo("m", "")]);
    let keys: Vec<_> =
        run.run.state.search_attributes.as_ref().unwrap().indexed_fields.keys().cloned().collect();
    assert_eq!(keys, ["kept"]);
    assert!(run.run.state.memo.as_ref().unwrap().fields.is_empty());
    run.signal("again");
    run.step(vec![search_attribute("kept", "null")]);
    assert!(run.run.state.search_attributes.as_ref().unwrap().indexed_fields.is_empty());
}

/// What a batch says about an event's identity survives the wire.
#[test]
fn identities_of_events_round_trip() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal_as("X", "r", true);
    west.signal("Y");
    west.receive(&east);
    west.settle();
    let batch = west.last();
    let read = Batch::open(batch.envelope_bytes.clone(), batch.events.clone()).unwrap();
    assert_eq!(read.envelope.identities, batch.envelope.identities);
    let entry: &EventIdentity = &read.envelope.identities[0];
    assert!(entry.named_run);
    assert_eq!(entry.reapplied_from, Some((run_id(2), FailoverVersion(1))));
    assert_eq!(batch.size(), batch.envelope_bytes.len() + batch.events.len());
}
