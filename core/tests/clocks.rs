//! H1, H2: the time of events never falls on a branch, and what is started after an event of a clock that was ahead does not
//! wait for it. Deadlines count from the clock of who wrote what starts them, which the header of the batch keeps, so every
//! region folds the same deadlines. East is a year ahead for one event; everything else is west's, whose clock is right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::{Batch, Envelope},
    decide::{activity, due},
    ids::{FailoverVersion, Timestamp},
    run::Run,
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
    let now = Timestamp(author.now);
    let wake = due::wake_at(&author.run, Some(FailoverVersion(author.version)), now)?;
    Some((wake.0 - author.now) / SECOND)
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
