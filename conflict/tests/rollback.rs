//! The rollback report tells every event of a losing branch what became of it, and a discarded task why, with the numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../../core/tests/support/mod.rs"]
mod support;

use antipode_conflict::{
    rollback::{Fate, Rollback, rollback},
    stale::{self, Kind},
};
use antipode_core::{
    decide::{activity as activities, reapply, workflow_task},
    ids::{FailoverVersion, Timestamp},
    refusal::Refusal,
    task::{Presented, TaskRef},
};
use antipode_proto::api::{enums::v1::TimeoutType, failure::v1::Failure, history::v1 as history};
use support::*;

fn report(author: &Author) -> Rollback {
    rollback(&author.run).unwrap()
}

/// `event kind: what became of it`, for all events of all losing branches.
fn fates(author: &Author) -> Vec<String> {
    let report = report(author);
    let events = report.branches.iter().flat_map(|branch| &branch.events);
    events.map(|event| format!("{} {}: {}", event.event, event.kind, event.fate.words())).collect()
}

#[test]
fn a_run_without_losses_says_so() {
    let mut east = Author::begin();
    assert!(rollback(&antipode_core::run::Run::new(run_key(2), run_id(2))).is_none());
    east.step(vec![timer("t", 5)]);
    let report = report(&east);
    assert!(report.is_empty());
    let words = format!(
        "run {}: [1..5@1] is current, because it is the only branch\nnothing was rolled back",
        run_id(2)
    );
    assert_eq!(report.words(), words);
}

/// One of each: a signal that was written again, one whose request came to both, an activity that both ran, a timer, a marker.
#[test]
fn every_event_has_a_fate() {
    let mut east = Author::begin();
    east.step(vec![activity("both")]);
    let mut west = east.elsewhere(2, 2);
    east.signal("X");
    east.signal_as("twice", "same request", false);
    east.start_task();
    east.complete(vec![activity("idle"), activity("there"), timer("t", 60), marker("m")]);
    east.start_activity("there");
    east.start_activity("both");
    east.end_activity("both", activities::End::Completed(None));
    west.signal_as("twice", "same request", false);
    west.receive(&east);
    west.merge(&east);
    west.settle();
    let got = report(&west);
    assert_eq!(
        got.words(),
        format!(
            "run {}: [1..5@1 6..8@2] is current, because its last version @2 is higher than @1\n\
             lost [1..17@1] after 5@1: lost to [1..5@1 6..8@2]: its last version @2 is higher than @1\n\
             \u{20} 6@1 WorkflowExecutionSignaled, signal \"X\": written again as 8@2\n\
             \u{20} 7@1 WorkflowTaskScheduled: nothing is lost with it\n\
             \u{20} 8@1 WorkflowExecutionSignaled, signal \"twice\": the same request stands as 6@2\n\
             \u{20} 9@1 WorkflowTaskStarted: nothing is lost with it\n\
             \u{20} 10@1 WorkflowTaskCompleted: progress lost: a workflow task was completed\n\
             \u{20} 11@1 ActivityTaskScheduled, activity \"idle\": progress lost: activity \"idle\" was scheduled\n\
             \u{20} 12@1 ActivityTaskScheduled, activity \"there\": may have run twice: a worker had it, and the current branch knows nothing of \"there\"\n\
             \u{20} 13@1 TimerStarted, timer \"t\": progress lost: timer \"t\" was started\n\
             \u{20} 14@1 MarkerRecorded, marker \"m\": progress lost: marker \"m\"\n\
             \u{20} 15@1 ActivityTaskStarted: nothing is lost with it\n\
             \u{20} 16@1 ActivityTaskCompleted: may have run twice: on the current branch the activity of event 5 is open and runs again\n\
             \u{20} 17@1 WorkflowTaskScheduled: nothing is lost with it",
            run_id(2)
        )
    );
    let json = serde_json::to_value(&got).unwrap();
    assert_eq!(json["branches"][0]["events"][0]["fate"]["is"], "reapplied");
    assert_eq!(json["branches"][0]["events"][0]["fate"]["event"], "8@2");
    assert_eq!(json["branches"][0]["events"][6]["fate"]["is"], "may_run_twice");
    assert_eq!(json["branches"][0]["fork"], "5@1");
    assert_eq!(json["totals"]["lost"], 4);
    assert_eq!(json["totals"]["may_run_twice"], 2);
    assert_eq!(json["totals"]["nothing"], 4);
    // The passive region, which has the same run, says the same.
    east.receive(&west);
    assert_eq!(report(&east), got);
    // The winner runs the same activities: now each is known to have run twice.
    west.start_task();
    west.complete(vec![activity("there")]);
    // West knows from the register that east's worker had it; the completion reaches west once more.
    west.end_activity("both", activities::End::Completed(None));
    let fates = fates(&west);
    assert!(
        fates[6].ends_with("a worker had it, and the current branch scheduled \"there\" as 11@2"),
        "{fates:?}"
    );
    assert!(
        fates[10].ends_with("the activity of event 5 ended on the current branch too, as 13@2"),
        "{fates:?}"
    );
}

/// Owed and unclaimed are two answers.
#[test]
fn what_is_not_there_says_why() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal("X");
    west.signal("Y");
    west.start_task();
    west.receive(&east);
    let first = |author: &Author| report(author).branches[0].events[0].fate.clone();
    assert_eq!(first(&west), Fate::Owed);
    // Its branch comes after the end of the run.
    let mut west = east.elsewhere(2, 2);
    west.run = antipode_core::run::Run::new(run_key(2), run_id(2));
    west.take(&east.batches[..3]);
    west.terminate();
    west.receive(&east);
    assert!(reapply::file_unclaimed(&mut west.run, Timestamp(1)));
    let verdict = antipode_core::verdict::CLOSED.to_owned();
    assert_eq!(first(&west), Fate::Unclaimed { verdict });
    assert_eq!(report(&west).filed, [], "it stands with its event");
    assert_eq!(
        fates(&west)[0],
        "5@1 WorkflowExecutionSignaled: not applied: the run is closed on the winning branch"
    );
}

/// A filed event that no branch holds stands at the end.
#[test]
fn filed_events_without_a_branch() {
    let mut late = Author::begin();
    late.start_task();
    late.signal("waits");
    let mut closed = late.elsewhere(2, 2);
    closed.run.pending.clear();
    closed.terminate();
    closed.merge(&late);
    assert!(reapply::file_unclaimed(&mut closed.run, Timestamp(1)));
    let report = report(&closed);
    assert!(!report.is_empty());
    assert_eq!(report.filed.len(), 1);
    assert_eq!(
        report.words().lines().last().unwrap(),
        "Signal \"request-waits\" @1: not applied: accepted, and the run closed before it could be written"
    );
}

/// How a run ended on a losing branch is progress lost, in words of its own.
#[test]
fn closings_on_a_losing_branch() {
    for (closing, words) in [
        (complete(), "progress lost: the run was completed there"),
        (fail(), "progress lost: the run had failed there"),
        (canceled(), "progress lost: the run was cancelled there"),
        (continue_as_new(), "progress lost: the run was continued there as "),
    ] {
        let mut east = Author::begin();
        let mut west = east.elsewhere(2, 2);
        east.step(vec![closing]);
        west.signal("Y");
        west.receive(&east);
        let fates = fates(&west);
        assert!(fates.last().unwrap().contains(words), "{fates:?}");
    }
    // A client's termination is an external event: it is owed.
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    east.terminate();
    west.signal("Y");
    west.receive(&east);
    assert_eq!(fates(&west), ["3@1 WorkflowExecutionTerminated: owed: the active region writes it again"]);
}

/// Timers, cancellations and upserts of a losing branch, one by one.
#[test]
fn internal_progress_by_kind() {
    let mut east = Author::begin();
    east.step(vec![timer("a", 5), timer("b", 5), activity("x"), activity("y")]);
    let mut west = east.elsewhere(2, 2);
    east.pass(6);
    let scheduled = east.activity("x");
    east.start_activity("x");
    east.start_task();
    east.complete(vec![
        timer("c", 60),
        cancel_timer("c"),
        cancel_activity(scheduled),
        search_attribute("k", "1"),
        memo("m", "1"),
    ]);
    east.start_activity("y");
    let failure = Failure { message: "no".into(), failure_info: None, ..Default::default() };
    east.end_activity("y", activities::End::Failed(failure));
    east.end_activity("x", activities::End::Canceled(None));
    west.signal("Y");
    west.receive(&east);
    let told = fates(&west);
    for words in [
        "TimerFired: progress lost: timer \"a\" fired",
        "TimerFired: progress lost: timer \"b\" fired",
        "TimerStarted: progress lost: timer \"c\" was started",
        "TimerCanceled: progress lost: timer \"c\" was cancelled",
        "ActivityTaskCancelRequested: progress lost: the cancellation of the activity of event 7 was asked for",
        "UpsertWorkflowSearchAttributes: progress lost: search attributes were changed",
        "WorkflowPropertiesModified: progress lost: the memo was changed",
        "ActivityTaskCanceled: may have run twice: on the current branch the activity of event 7 is open and runs again",
    ] {
        assert!(told.iter().any(|line| line.ends_with(words)), "{words}: {told:#?}");
    }
    assert!(
        report(&west).words().contains("TimerFired, timer \"a\": progress lost"),
        "each says what it was about"
    );
}

/// An activity whose first attempt failed there: a worker had it, although nobody has it now.
#[test]
fn a_failed_attempt_of_a_losing_branch_ran() {
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    east.step(vec![activity("z")]);
    let idle = east.clone();
    east.start_activity("z");
    east.end_activity("z", activities::End::Failed(Failure::default()));
    west.signal("Y");
    for (author, words) in
        [(&idle, "progress lost: activity"), (&east, "may have run twice: a worker had it")]
    {
        let mut west = west.clone();
        west.receive(author);
        west.merge(author);
        let told = fates(&west);
        assert!(told.iter().any(|line| line.contains("Scheduled: ") && line.contains(words)), "{told:#?}");
    }
}

/// An activity that began and ended on the losing branch: its outcome is lost under its own name.
#[test]
fn an_activity_that_only_the_losing_branch_knew() {
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    east.step(vec![activity("z")]);
    east.start_activity("z");
    east.end_activity("z", activities::End::Completed(None));
    west.signal("Y");
    west.receive(&east);
    let told = fates(&west);
    let of = |kind: &str| told.iter().find(|line| line.contains(kind)).unwrap().split_once(": ").unwrap().1;
    assert_eq!(
        of("ActivityTaskScheduled"),
        "may have run twice: a worker had it, and the current branch knows nothing of \"z\""
    );
    assert_eq!(of("ActivityTaskCompleted"), "progress lost: the outcome of activity \"z\"");
}

/// An activity that timed out on the branch that lost ended there, whatever it did.
#[test]
fn a_lost_timeout_is_an_outcome() {
    let mut east = Author::begin();
    east.step(vec![activity("x")]);
    let mut west = east.elsewhere(2, 2);
    east.start_activity("x");
    east.end_activity("x", activities::End::TimedOut(TimeoutType::ScheduleToClose));
    west.signal("Y");
    west.receive(&east);
    let told = fates(&west);
    assert!(
        told.iter()
            .any(|line| line.contains("ActivityTaskTimedOut: may have run twice: on the current branch")),
        "{told:#?}"
    );
}

/// Two losing branches: each event is told once, under the greater one.
#[test]
fn three_branches() {
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    east.signal("e");
    let mut both = east.elsewhere(3, 3);
    east.signal("e2");
    both.signal("n");
    west.version = 12;
    west.signal("w");
    west.receive(&east);
    west.receive(&both);
    let report = report(&west);
    assert_eq!(report.branches.len(), 2);
    assert_eq!(report.branches[0].items, "[1..3@1 4@3]");
    assert_eq!(report.branches[1].items, "[1..4@1]");
    let events: Vec<_> = report
        .branches
        .iter()
        .map(|branch| branch.events.iter().map(|event| event.event.as_str()).collect::<Vec<_>>())
        .collect();
    assert_eq!(events, [vec!["3@1", "4@3"], vec!["4@1"]]);
    assert_eq!(report.totals["owed"], 3);
}

/// A6: values that lost unseen are in the report.
#[test]
fn values_that_lost() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    let mut west = east.elsewhere(2, 2);
    east.start_activity("a");
    east.heartbeat("a", "half");
    west.start_activity("a");
    west.heartbeat("a", "third");
    west.merge(&east);
    let report = report(&west);
    assert!(!report.is_empty() && report.branches.is_empty());
    let words: Vec<_> = report.words().lines().skip(1).map(ToOwned::to_owned).collect();
    assert_eq!(
        words,
        [
            "ActivityAttempt of 5@1: attempt 1, started by \"worker-1\" written under @1 lost to @2",
            "ActivityHeartbeat of 5@1: a heartbeat written under @1 lost to @2",
        ]
    );
    // A transient workflow task, and a fork of one owner.
    let mut east = Author::begin();
    east.start_task();
    east.fail_task();
    let mut twin = east.clone();
    let mut west = east.elsewhere(2, 2);
    east.start_task();
    west.start_task();
    west.merge(&east);
    let lost = rollback(&west.run).unwrap().values;
    assert_eq!(lost[0].value, "attempt 2 of a workflow task");
    assert!(!lost[0].fork);
    twin.now += SECOND;
    twin.start_task();
    twin.merge(&east);
    let lost = rollback(&twin.run).unwrap();
    assert!(lost.values[0].fork);
    assert!(lost.words().ends_with("written under @1 lost to @1; one owner wrote both"), "{}", lost.words());
}

fn why(run: &Author, kind: Kind, held: &Presented) -> (String, String) {
    let discard = stale::presented(&run.run, kind, held).unwrap();
    (discard.reason, discard.why)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    match result {
        Err(Refusal::TaskNotFound { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// R707–R709, A4, A5: every reason for which a workflow task is discarded, with its numbers.
#[test]
fn stale_workflow_tasks() {
    let mut east = Author::begin();
    east.start_task();
    let held = east.held_task().unwrap();
    assert_eq!(stale::presented(&east.run, Kind::Workflow, &held), None);
    let changed = |change: &dyn Fn(&mut Presented)| {
        let mut other = held.clone();
        change(&mut other);
        let (reason, words) = why(&east, Kind::Workflow, &other);
        assert_eq!(refused(workflow_task::check(&east.run, &other)), reason);
        (reason, words)
    };
    for (told, reason, words) in [
        (
            changed(&|held| held.task.scheduled.0 = 9),
            "scheduled_event",
            "it names event 9, the pending one is event 2",
        ),
        (changed(&|held| held.task.attempt = 3), "attempt", "it is attempt 3, the pending one is attempt 1"),
        (
            changed(&|held| held.task.version = FailoverVersion(2)),
            "version",
            "it names event 2@2, the event has @1 now",
        ),
        (
            changed(&|held| held.start_version = FailoverVersion(2)),
            "start_version",
            "its attempt was started under @2, the pending one under @1",
        ),
        (
            changed(&|held| held.started.0 = 7),
            "start_version",
            "its attempt was started under @1, the pending one under @1",
        ),
        (
            changed(&|held| held.tip = antipode_core::chain::ChainValue([9; 16])),
            "branch_lost",
            "it was started on a branch that is not current any more",
        ),
    ] {
        assert_eq!(told, (reason.to_owned(), words.to_owned()));
    }
    let mut done = east.clone();
    done.complete(vec![]);
    let none = ("no_task".to_owned(), "no workflow task is pending".to_owned());
    assert_eq!(why(&done, Kind::Workflow, &held), none);
    let mut closed = east.clone();
    closed.terminate();
    let told = ("run_closed".to_owned(), "the run closed with event 4@1".to_owned());
    assert_eq!(why(&closed, Kind::Workflow, &held), told);
    let mut waits = Author::begin();
    let told = why(&waits, Kind::Workflow, &held);
    assert_eq!(told.0, "branch_lost", "the branch does not reach so far");
    waits.start_task();
    waits.fail_task();
    assert_eq!(waits.held_task(), None);
    waits.start_task();
    let held = waits.held_task().unwrap();
    let voided = waits.clone();
    let behind = Presented { tip: voided.batches[0].chain, ..voided.held_task().unwrap() };
    let told = why(&voided, Kind::Workflow, &behind);
    assert_eq!(told, ("voided".to_owned(), "events were appended that its worker has not seen".to_owned()));
    assert_eq!(refused(workflow_task::check(&voided.run, &behind)), "voided");
    waits.pass(11);
    assert_eq!(why(&waits, Kind::Workflow, &held).0, "attempt", "it timed out");
}

/// Every reason for which a dispatched task is not handed out.
#[test]
fn stale_dispatches() {
    let mut east = Author::begin();
    let task = workflow_task::task_ref(&east.run.task().unwrap());
    let poll = |east: &Author, task: &TaskRef, request: &str| {
        workflow_task::check_dispatched(&east.run, task, request).map(|_| ())
    };
    assert_eq!(poll(&east, &task, "p"), Ok(()));
    let other = TaskRef { version: FailoverVersion(2), ..task.clone() };
    assert_eq!(refused(poll(&east, &other, "p")), "version");
    let other = TaskRef { attempt: 2, ..task.clone() };
    assert_eq!(refused(poll(&east, &other, "p")), "attempt");
    let other = TaskRef { scheduled: antipode_core::ids::EventId(4), ..task.clone() };
    assert_eq!(refused(poll(&east, &other, "p")), "scheduled_event");
    let (context, seat) = (east.context(), east.seat());
    let by = antipode_core::task::PollInfo { request_id: "p".into(), ..Default::default() };
    workflow_task::start(&mut east.run, &task, &by, context, seat).unwrap();
    assert_eq!(poll(&east, &task, "p"), Ok(()), "the same poll asks again");
    assert_eq!(refused(poll(&east, &task, "q")), "already_started");
    assert_eq!(refused(poll(&east, &task, "")), "already_started");
    let told = stale::dispatched(&east.run, Kind::Workflow, &task).unwrap();
    assert_eq!((told.reason.as_str(), told.why.as_str()), ("already_started", "another poll has it"));
    // The same task again is the same answer and writes nothing.
    let before = east.run.tip();
    let (context, seat) = (east.context(), east.seat());
    let again = workflow_task::start(&mut east.run, &task, &by, context, seat).unwrap();
    assert!(again.batch.is_none() && east.run.tip() == before);
    east.terminate();
    assert_eq!(refused(poll(&east, &task, "p")), "run_closed");
}

/// R709, A5, R931: every reason for which an activity task is discarded, with its numbers.
#[test]
fn stale_activity_tasks() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    let dispatched = activities::task_ref(&east.run.activity(east.activity("a")).unwrap());
    let check = |east: &Author, task: &TaskRef, request: &str| {
        activities::check_dispatched(&east.run, task, request).map(|_| ())
    };
    assert_eq!(check(&east, &dispatched, ""), Ok(()));
    let early = east.held_activity("a");
    assert_eq!(why(&east, Kind::Activity, &early).0, "not_started");
    east.start_activity("a");
    assert_eq!(refused(check(&east, &dispatched, "")), "already_started");
    let held = east.held_activity("a");
    assert_eq!(stale::presented(&east.run, Kind::Activity, &held), None);
    let changed = |change: &dyn Fn(&mut Presented)| {
        let mut other = held.clone();
        change(&mut other);
        let dispatched = refused_or_ok(&east, &other.task);
        (why(&east, Kind::Activity, &other), dispatched)
    };
    for (told, reason, words, dispatched) in [
        (
            changed(&|held| held.task.version = FailoverVersion(2)),
            "version",
            "it names event 5@2, the event has @1 now",
            "version",
        ),
        (
            changed(&|held| held.task.attempt = 2),
            "attempt",
            "it is attempt 2, the pending one is attempt 1",
            "attempt",
        ),
        (changed(&|held| held.task.stamp = 1), "stamp", "it has stamp 1, the activity has stamp 0", "stamp"),
        (
            changed(&|held| held.start_version = FailoverVersion(2)),
            "start_version",
            "its attempt was started under @2, the pending one under @1",
            "already_started",
        ),
        (
            changed(&|held| held.task.scheduled.0 = 4),
            "no_activity",
            "the activity of event 4 is not open; the event has @1 now",
            "no_activity",
        ),
        (
            changed(&|held| held.task.scheduled.0 = 40),
            "no_activity",
            "the activity of event 40 is not open, and the branch has no such event",
            "no_activity",
        ),
    ] {
        assert_eq!(told.0, (reason.to_owned(), words.to_owned()));
        assert_eq!(told.1, dispatched);
    }
    let lost = Presented { tip: antipode_core::chain::ChainValue([9; 16]), ..held.clone() };
    let gone = Presented {
        task: TaskRef { scheduled: antipode_core::ids::EventId(4), ..held.task.clone() },
        ..lost
    };
    assert_eq!(why(&east, Kind::Activity, &gone).0, "branch_lost");
    // Its outcome waits for the workflow task to end.
    let mut decided = east.clone();
    decided.signal("go");
    decided.start_task();
    decided.end_activity("a", activities::End::Completed(None));
    let told = why(&decided, Kind::Activity, &held);
    assert_eq!(told, ("decided".to_owned(), "an outcome of this activity was accepted before".to_owned()));
    assert_eq!(refused(check(&decided, &held.task, "")), "decided");
    // Retried: the attempt before is stale, the new one waits.
    let mut retried = east.clone();
    retried.end_activity("a", activities::End::Failed(Failure::default()));
    assert_eq!(why(&retried, Kind::Activity, &held).1, "it is attempt 1, the pending one is attempt 2");
    let waits = Presented { task: TaskRef { attempt: 2, ..held.task.clone() }, ..held.clone() };
    let told = why(&retried, Kind::Activity, &waits);
    assert_eq!(told, ("not_started".to_owned(), "its attempt waits for a worker".to_owned()));
    let mut closed = east.clone();
    closed.terminate();
    assert_eq!(why(&closed, Kind::Activity, &held).0, "run_closed");
    assert_eq!(refused(check(&closed, &held.task, "")), "run_closed");
    let words = stale::presented(&closed.run, Kind::Activity, &held).unwrap().words();
    assert_eq!(
        words,
        "activity task of event 5@1, attempt 1 is discarded (run_closed): the run closed with event 6@1. The run is [1..6@1]."
    );
}

fn refused_or_ok(east: &Author, task: &TaskRef) -> &'static str {
    refused(activities::check_dispatched(&east.run, task, ""))
}

/// A termination by the start of another run is no external event (B5).
#[test]
fn a_termination_by_a_start_is_progress_lost() {
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    let (context, seat) = (east.context(), east.seat());
    let attributes = history::WorkflowExecutionTerminatedEventAttributes::default();
    let batch =
        antipode_core::decide::external::terminate(&mut east.run, attributes, None, false, context, seat);
    east.batches.extend(batch.unwrap());
    west.signal("Y");
    west.receive(&east);
    assert_eq!(
        fates(&west),
        [
            "3@1 WorkflowExecutionTerminated: progress lost: the run was terminated there to make place for another"
        ]
    );
    assert!(west.run.owed().is_empty());
}
