//! H1, H2: the time of events never falls on a branch, and what is started after an event of a clock that was ahead does not
//! wait for it. Deadlines count from the clock of who wrote what starts them, which the header of the batch keeps, so every
//! region folds the same deadlines. East is a year ahead for one event; everything else is west's, whose clock is right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::{Batch, Envelope},
    clocks::Clocks,
    decide::activity,
    ids::{Nanos, RegionId, Timestamp},
    run::Run,
    version::Increment,
};
use antipode_proto::{
    api::{
        command::v1::{Command, command::Attributes},
        common::v1::RetryPolicy,
        failure::v1::Failure,
        history::v1::history_event,
        workflowservice::v1 as ws,
    },
    core as wire,
};
use prost::Message;
use support::*;

const YEAR: i64 = 365 * 86_400 * SECOND;

/// A run of this request, with a signal from a year ahead, in west's hands. Its workflow task waits.
fn west(request: &ws::StartWorkflowExecutionRequest) -> Author {
    let mut east = Author::begin_with(request, 2);
    let now = east.now;
    east.now += YEAR;
    east.signal("ahead");
    let mut west = east.elsewhere(2, 2);
    west.now = now + SECOND;
    west
}

/// Seconds from now until west has to look at the run.
fn wakes_in(author: &Author) -> Option<i64> {
    Some((author.wake()?.0 - author.now) / SECOND)
}

/// The run as another region has it that got every batch over a link, and as the store gives it back.
fn elsewhere_too(author: &Author) {
    let run = &author.run;
    let restored = Run::restore(run.key.clone(), &run.head(), author.batches.iter().cloned()).unwrap();
    let mut peer = Run::new(run.key.clone(), run.first_run);
    for batch in &author.batches {
        peer.push(&Arc::new(Batch::from_wire(&batch.to_wire()).unwrap())).unwrap();
    }
    assert_eq!((&restored.state, &peer.state), (&run.state, &run.state));
}

#[test]
fn a_timer_fires_after_its_length() {
    let mut west = west(&start_request());
    west.step(vec![timer("t", 60)]);
    assert_eq!(wakes_in(&west), Some(60));
    elsewhere_too(&west);
    west.pass(60);
    assert!(west.run.state.timers.is_empty(), "{:?}", west.run.state.timers);
    // What is shown does not fall.
    let times: Vec<_> = events(&west.run).iter().map(|event| event.event_time.unwrap().seconds).collect();
    assert!(times.is_sorted() && times.last() > Some(&(YEAR / SECOND)), "{times:?}");
}

#[test]
fn a_lost_workflow_task_times_out_and_is_tried_again() {
    let mut west = west(&start_request());
    for (attempt, back_off) in [(2, 0), (3, 0), (4, 5)] {
        assert!(west.start_task());
        assert_eq!(wakes_in(&west), Some(10), "attempt {}", attempt - 1);
        elsewhere_too(&west);
        west.pass(10);
        let task = west.run.task().unwrap();
        assert_eq!((task.attempt, task.transient), (attempt, true));
        assert_eq!(task.scheduled_at.0, west.now + back_off * SECOND, "attempt {attempt} is offered");
    }
}

#[test]
fn an_activity_times_out_and_is_tried_again() {
    let mut wanted = activity("a");
    let Some(Attributes::ScheduleActivityTaskCommandAttributes(attributes)) = &mut wanted.attributes else {
        panic!()
    };
    attributes.schedule_to_close_timeout = seconds(40);
    attributes.schedule_to_start_timeout = seconds(30);
    attributes.heartbeat_timeout = None;
    attributes.retry_policy = Some(RetryPolicy { initial_interval: seconds(3), ..Default::default() });
    let wanted: Command = wanted;
    let mut west = west(&start_request());
    west.step(vec![wanted]);
    assert_eq!(wakes_in(&west), Some(30), "schedule-to-start");
    elsewhere_too(&west);
    west.start_activity("a");
    assert_eq!(wakes_in(&west), Some(15), "start-to-close");
    west.end_activity("a", activity::End::Failed(Failure::default()));
    let attempt = west.run.activity(west.activity("a")).unwrap().attempt;
    assert_eq!((attempt.attempt, attempt.scheduled_unix_nanos), (2, west.now + 3 * SECOND));
    west.pass(10);
    assert_eq!(wakes_in(&west), Some(23), "schedule-to-start of the second attempt");
    west.start_activity("a");
    west.pass(15);
    west.start_activity("a");
    assert_eq!(wakes_in(&west), Some(15), "schedule-to-close");
    west.pass(15);
    assert!(west.run.state.activities.is_empty(), "the activity is over after 40 seconds");
}

#[test]
fn a_run_that_fails_is_tried_again_within_its_time() {
    let request = ws::StartWorkflowExecutionRequest {
        workflow_execution_timeout: seconds(500),
        retry_policy: Some(RetryPolicy { initial_interval: seconds(3), ..Default::default() }),
        ..start_request()
    };
    let mut west = west(&request);
    west.step(vec![fail()]);
    west.follow();
    let started = west.run.state.start.clone().unwrap();
    assert_eq!(started.attributes.first_workflow_task_backoff, seconds(3));
    assert_eq!(wakes_in(&west), Some(3));
    assert_eq!(west.batches[0].envelope.clock, None, "a new run's events have west's time");
}

#[test]
fn the_header_names_the_clock_only_where_it_differs() {
    let mut west = west(&start_request());
    assert!(west.batches.iter().all(|batch| batch.envelope.clock.is_none()));
    west.signal("late");
    assert_eq!(west.last().envelope.clock, Some(Timestamp(west.now)));
    // Without it, as an older version wrote, deadlines count from the events (A10: the same bytes fold to the same state).
    west.step(vec![timer("t", 60)]);
    let old = |batch: &Arc<Batch>| {
        let header = wire::BatchEnvelope::decode(&*batch.envelope_bytes).unwrap();
        let header = wire::BatchEnvelope { clock_unix_nanos: 0, ..header };
        let header = Envelope::from_wire(&header).unwrap();
        (header, batch.decode_events().unwrap())
    };
    let mut state = antipode_core::state::State::default();
    for batch in &west.batches {
        let (header, events) = old(batch);
        state.apply_batch(&header, &events).unwrap();
    }
    let last = events(&west.run).pop().unwrap();
    assert!(matches!(last.attributes, Some(history_event::Attributes::TimerStartedEventAttributes(_))));
    let time = Timestamp::from_proto(last.event_time.as_ref().unwrap());
    assert_eq!(state.timers["t"].due.0, time.0 + 60 * SECOND);
    assert_eq!(west.run.state.timers["t"].due.0, west.now + 60 * SECOND);
}

/// In this region the clock of another one is behind by so many seconds.
fn measure(author: &mut Author, region: u32, behind: i64) {
    let mut clocks = Clocks::new(Increment::DEFAULT);
    clocks.measured(RegionId(region), Nanos::seconds(behind));
    author.clocks = Arc::new(clocks);
}

/// An activity with these limits, in seconds; 0: without.
fn limited(start_to_close: i64, heartbeat: i64, schedule_to_close: i64) -> Command {
    let limit = |length: i64| if length > 0 { seconds(length) } else { None };
    let mut command = activity("a");
    let Some(Attributes::ScheduleActivityTaskCommandAttributes(attributes)) = &mut command.attributes else {
        panic!()
    };
    attributes.start_to_close_timeout = limit(start_to_close);
    attributes.heartbeat_timeout = limit(heartbeat);
    attributes.schedule_to_close_timeout = limit(schedule_to_close);
    attributes.retry_policy = Some(RetryPolicy { initial_interval: seconds(1), ..Default::default() });
    command
}

/// East hands an activity to a worker. A second later west takes over, whose clock is five minutes ahead.
fn taken_over(wanted: Command) -> Author {
    let mut east = Author::begin();
    east.step(vec![wanted]);
    east.start_activity("a");
    let mut west = east.elsewhere(2, 2);
    west.now += 301 * SECOND;
    measure(&mut west, 1, 300);
    west
}

/// Attempt, whether it is with a worker, and what it was given in seconds: of the schedule, of the start, of heartbeats.
fn attempt(author: &Author) -> (i32, bool, Option<[i64; 3]>) {
    let attempt = author.run.activity(author.activity("a")).unwrap().attempt;
    let given = attempt.extended.map(|more| {
        assert_eq!((more.version, more.region), (author.version, author.region));
        [more.scheduled_nanos, more.started_nanos, more.heartbeat_nanos].map(|nanos| nanos / SECOND)
    });
    (attempt.attempt, attempt.started, given)
}

#[test]
fn what_a_slow_clock_started_has_its_time() {
    let mut west = taken_over(limited(15, 0, 0));
    assert_eq!(wakes_in(&west), Some(-286), "by the start alone");
    west.settle();
    assert_eq!(attempt(&west), (1, true, Some([300, 300, 0])));
    assert_eq!(wakes_in(&west), Some(14), "fifteen seconds after the start, whichever clock");
    elsewhere_too(&west);
    let restored =
        Run::restore(west.run.key.clone(), &west.run.head(), west.batches.iter().cloned()).unwrap();
    assert_eq!(restored.head(), west.run.head());
    west.pass(13);
    assert_eq!(attempt(&west), (1, true, Some([300, 300, 0])));
    west.pass(1);
    assert_eq!(attempt(&west), (2, false, Some([300, 0, 0])), "its time is over");
    // The next one starts by west's own clock.
    west.pass(1);
    west.start_activity("a");
    assert_eq!(wakes_in(&west), Some(15));
    west.pass(15);
    assert_eq!(attempt(&west).0, 3);
}

#[test]
fn nothing_is_given_for_a_clock_that_is_not_behind_or_not_measured() {
    for region in [2, 3] {
        let mut west = taken_over(limited(15, 0, 0));
        measure(&mut west, region, 300);
        west.settle();
        assert_eq!(attempt(&west), (2, false, None), "measured: region {region}");
    }
    // Too little: it is over by east's clock, too.
    let mut west = taken_over(limited(15, 0, 0));
    measure(&mut west, 1, 286);
    west.settle();
    assert_eq!(attempt(&west).0, 2);
    let mut west = taken_over(limited(15, 0, 0));
    measure(&mut west, 1, 287);
    west.settle();
    assert_eq!((attempt(&west).0, wakes_in(&west)), (1, Some(1)));
}

#[test]
fn heartbeats_count_by_the_clock_that_took_them() {
    let mut west = taken_over(limited(60, 10, 0));
    west.settle();
    assert_eq!((attempt(&west).2, wakes_in(&west)), (Some([300, 300, 0]), Some(9)));
    west.pass(5);
    west.heartbeat("a", "here");
    assert_eq!(wakes_in(&west), Some(10), "the first that came to west");
    // One that east took before.
    let mut east = Author::begin();
    east.step(vec![limited(60, 10, 0)]);
    east.start_activity("a");
    east.now += 8 * SECOND;
    east.heartbeat("a", "there");
    let mut west = east.elsewhere(2, 2);
    west.now += 301 * SECOND;
    measure(&mut west, 1, 300);
    west.settle();
    assert_eq!((attempt(&west).2, wakes_in(&west)), (Some([300, 300, 300]), Some(9)));
    west.heartbeat("a", "here");
    assert_eq!(wakes_in(&west), Some(10));
    west.pass(10);
    assert_eq!(attempt(&west).0, 2);
}

/// Each of the three counts alone: here only the start is by a clock that is behind.
#[test]
fn only_what_a_slow_clock_wrote_is_given_time() {
    let mut west = Author { region: 2, version: 2, ..Author::begin() };
    west.step(vec![limited(15, 0, 0)]);
    let mut east = west.elsewhere(1, 11);
    east.start_activity("a");
    let mut west = east.elsewhere(2, 12);
    west.now += 301 * SECOND;
    measure(&mut west, 1, 300);
    west.settle();
    assert_eq!((attempt(&west), wakes_in(&west)), ((1, true, Some([0, 300, 0])), Some(14)));
    west.pass(14);
    assert_eq!(attempt(&west), (2, false, None));
}

#[test]
fn an_activity_that_fails_is_tried_again_within_its_time() {
    let mut west = taken_over(limited(15, 0, 40));
    west.end_activity("a", activity::End::Failed(Failure::default()));
    assert_eq!(attempt(&west), (2, false, Some([300, 0, 0])), "forty seconds are not over by east's clock");
    west.pass(1);
    assert_eq!(wakes_in(&west), Some(38), "schedule-to-close");
    west.pass(37);
    assert_eq!(attempt(&west).0, 2);
    west.pass(1);
    assert!(west.run.state.activities.is_empty(), "{:?}", west.run.state.activities);
}

#[test]
fn time_is_given_once_a_version_and_counts_where_it_was_given() {
    let mut west = taken_over(limited(15, 0, 0));
    west.settle();
    measure(&mut west, 1, 600);
    // East goes on by its own clock, five seconds after it handed the attempt out.
    let mut east = west.elsewhere(1, 11);
    east.clocks = Arc::default();
    east.now -= 296 * SECOND;
    assert_eq!(wakes_in(&east), Some(10));
    east.pass(10);
    assert_eq!(east.run.activity(east.activity("a")).unwrap().attempt.attempt, 2);
    // West has the namespace again: what it gave holds, and when that is over it is given what is known now.
    let mut again = west.elsewhere(2, 12);
    assert_eq!(wakes_in(&again), Some(14));
    again.pass(14);
    assert_eq!((attempt(&again), wakes_in(&again)), ((1, true, Some([600, 600, 0])), Some(300)));
    again.pass(300);
    assert_eq!(attempt(&again).0, 2);
    // Under the same version it is not given more.
    west.pass(14);
    assert_eq!(attempt(&west).0, 2);
}
