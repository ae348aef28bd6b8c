//! Decisions and the fold agree: after any sequence of requests, the run in memory is what its stored batches, registers and
//! pending events fold to (DESIGN section 3). The fold is the only writer of mutable state, so a run that was decided step by
//! step, one that was replicated batch by batch, and one that is rebuilt from the store are the same run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    decide::{
        Context, Outcome, Seat, activity, commands, due,
        external::{self, External},
        start, workflow_task,
    },
    digest::digest,
    fold::FoldError,
    identity::{ExternalKind, Identity},
    ids::{
        EventId, FailoverVersion, Incarnation, NamespaceId, Place, RegionId, RunId, RunKey, Sequence,
        ShardId, Timestamp,
    },
    run::{Pushed, Run},
    state::State,
    task::{PollInfo, Presented},
};
use antipode_proto::api::{
    command::v1::{self as command, Command, command::Attributes},
    common::v1::{ActivityType, WorkflowType},
    enums::v1::{CommandType, WorkflowTaskFailedCause},
    failure::v1::Failure,
    history::v1::{self as history, HistoryEvent, history_event},
    taskqueue::v1::TaskQueue,
    workflowservice::v1 as ws,
};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;

/// What happens next; indexes choose among what is possible, so that cases shrink.
#[derive(Clone, Debug)]
enum Action {
    Signal(u8),
    Cancel,
    StartTask,
    CompleteTask(Vec<Wish>),
    FailTask,
    StartActivity(usize),
    EndActivity(usize, bool),
    Heartbeat(usize),
    Pass(u8),
    /// The namespace moves away and back: the version grows.
    Fail,
}

#[derive(Clone, Debug)]
enum Wish {
    Activity(u8),
    CancelActivity(usize),
    Timer(u8, u8),
    CancelTimer(u8),
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        (0..6u8).prop_map(Wish::Activity),
        (0..4usize).prop_map(Wish::CancelActivity),
        (0..4u8, 1..20u8).prop_map(|(id, length)| Wish::Timer(id, length)),
        (0..4u8).prop_map(Wish::CancelTimer),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..12u8).prop_map(Action::Signal),
        1 => Just(Action::Cancel),
        6 => Just(Action::StartTask),
        6 => proptest::collection::vec(wish(), 0..4).prop_map(Action::CompleteTask),
        1 => Just(Action::FailTask),
        4 => (0..4usize).prop_map(Action::StartActivity),
        4 => (0..4usize, any::<bool>()).prop_map(|(index, well)| Action::EndActivity(index, well)),
        1 => (0..4usize).prop_map(Action::Heartbeat),
        4 => (1..40u8).prop_map(Action::Pass),
        1 => Just(Action::Fail),
    ]
}

/// A run and its writer.
struct Writer {
    run: Run,
    batches: Vec<Arc<Batch>>,
    now: i64,
    version: i64,
    sequence: u64,
}

impl Writer {
    fn context(&self) -> Context {
        Context {
            now: Timestamp(self.now),
            version: FailoverVersion(self.version),
            region: RegionId(1),
            seed: [7; 16],
        }
    }

    fn seat(&mut self) -> Seat {
        self.sequence += 1;
        Seat {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            log: Sequence(self.sequence),
            place: Place { epoch: 1, sequence: self.sequence },
            causal: self.sequence,
        }
    }

    fn begin() -> Self {
        let run = RunId(uuid::Uuid::from_u128(2));
        let key = RunKey { namespace: NamespaceId(uuid::Uuid::from_u128(1)), workflow: "w".into(), run };
        let request = ws::StartWorkflowExecutionRequest {
            workflow_id: "w".to_string(),
            workflow_type: Some(WorkflowType { name: "type".to_string() }),
            task_queue: Some(TaskQueue { name: "queue".to_string(), kind: 1, normal_name: String::new() }),
            request_id: "start".to_string(),
            ..Default::default()
        };
        let mut writer = Self {
            run: Run::new(key.clone(), run),
            batches: Vec::new(),
            now: 100 * SECOND,
            version: 1,
            sequence: 0,
        };
        let (context, seat) = (writer.context(), writer.seat());
        let (run, batch) =
            start::start(key, start::from_request(&request, run, context.now), context, seat).unwrap();
        writer.run = run;
        writer.batches.push(batch);
        writer
    }

    fn wrote(&mut self, outcome: Outcome) {
        self.batches.extend(outcome.batch);
    }

    fn act(&mut self, action: &Action) {
        let (context, seat) = (self.context(), self.seat());
        match action {
            Action::Signal(name) => self.signal(*name, context, seat),
            Action::Cancel => {
                let cancel = ws::RequestCancelWorkflowExecutionRequest::default();
                let outcome =
                    external::accept(&mut self.run, external::request_cancel(&cancel), context, seat);
                self.wrote(outcome.unwrap());
            }
            Action::StartTask => {
                let Some(task) = self.run.task().filter(|task| task.started.is_none()) else { return };
                let task = workflow_task::task_ref(&task);
                let outcome = workflow_task::start(&mut self.run, &task, &PollInfo::default(), context, seat);
                self.wrote(outcome.unwrap());
            }
            Action::CompleteTask(wishes) => self.complete(wishes, context, seat),
            Action::FailTask => {
                let Some(presented) = self.presented() else { return };
                let failed = workflow_task::Failed {
                    cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure,
                    failure: None,
                    identity: "worker".to_string(),
                };
                let outcome = workflow_task::respond_failed(&mut self.run, &presented, failed, context, seat);
                self.wrote(outcome.unwrap());
            }
            Action::StartActivity(index) => {
                let Some(scheduled) = self.open_activity(*index, false) else { return };
                let task = activity::task_ref(&self.run.activity(scheduled).unwrap());
                activity::start(&mut self.run, &task, &PollInfo::default(), context).unwrap();
            }
            Action::EndActivity(index, well) => {
                let Some(scheduled) = self.open_activity(*index, true) else { return };
                let end = if *well {
                    activity::End::Completed(None)
                } else {
                    activity::End::Failed(Failure { message: "no".to_string(), ..Default::default() })
                };
                let outcome = activity::end(&mut self.run, scheduled, end, "worker", context, seat);
                self.wrote(outcome.unwrap());
            }
            Action::Heartbeat(index) => {
                let Some(scheduled) = self.open_activity(*index, true) else { return };
                activity::heartbeat(&mut self.run, scheduled, None, context);
            }
            Action::Pass(seconds) => {
                self.now += i64::from(*seconds) * SECOND;
                self.settle();
            }
            Action::Fail => {
                self.version += 10;
                self.settle();
            }
        }
    }

    fn settle(&mut self) {
        let (context, seats) = (self.context(), [self.seat(), self.seat()]);
        let next = RunId(uuid::Uuid::from_u128(3));
        let outcome = due::settle(&mut self.run, context, seats, next).unwrap();
        self.wrote(outcome);
        // What was due is done: the next wake-up lies ahead.
        let wake = due::wake_at(&self.run, Some(context.version), context.now);
        assert!(wake.is_none_or(|wake| wake > context.now), "still due at {wake:?}, now {:?}", context.now);
    }

    fn signal(&mut self, name: u8, context: Context, seat: Seat) {
        let attributes = history_event::Attributes::WorkflowExecutionSignaledEventAttributes(
            history::WorkflowExecutionSignaledEventAttributes {
                signal_name: format!("s{name}"),
                ..Default::default()
            },
        );
        let identity = Identity::client(ExternalKind::Signal, format!("request-{name}"));
        let external = External {
            attributes,
            identity: Some(identity),
            kind: ExternalKind::Signal,
            named_run: false,
            links: Vec::new(),
        };
        let outcome = external::accept(&mut self.run, external, context, seat);
        self.wrote(outcome.unwrap());
    }

    fn presented(&self) -> Option<Presented> {
        let task = self.run.task()?;
        let started = task.started.clone()?;
        Some(Presented {
            task: workflow_task::task_ref(&task),
            started: started.event,
            start_version: started.version,
            tip: self.run.tip(),
        })
    }

    fn open_activity(&self, index: usize, started: bool) -> Option<EventId> {
        let open: Vec<_> = self
            .run
            .state
            .activities
            .keys()
            .filter(|scheduled| {
                let view = self.run.activity(**scheduled).unwrap();
                view.attempt.started == started && !view.decided
            })
            .copied()
            .collect();
        (!open.is_empty()).then(|| open[index % open.len()])
    }

    fn complete(&mut self, wishes: &[Wish], context: Context, seat: Seat) {
        let Some(presented) = self.presented() else { return };
        let commands = wishes.iter().filter_map(|wish| self.command(wish)).collect();
        let request = ws::RespondWorkflowTaskCompletedRequest { commands, ..Default::default() };
        let seats = [self.seat(), seat];
        let next = RunId(uuid::Uuid::from_u128(3));
        let outcome = commands::complete(&mut self.run, &presented, &request, context, seats, next).unwrap();
        self.wrote(outcome);
    }

    fn command(&self, wish: &Wish) -> Option<Command> {
        let seconds = |seconds: i64| Some(prost_types::Duration { seconds, nanos: 0 });
        let (kind, attributes) = match wish {
            Wish::Activity(id) => (
                CommandType::ScheduleActivityTask,
                Attributes::ScheduleActivityTaskCommandAttributes(
                    command::ScheduleActivityTaskCommandAttributes {
                        activity_id: format!("a{id}"),
                        activity_type: Some(ActivityType { name: "activity".to_string() }),
                        start_to_close_timeout: seconds(15),
                        ..Default::default()
                    },
                ),
            ),
            Wish::CancelActivity(index) => {
                let open: Vec<_> = self.run.state.activities.keys().collect();
                let scheduled = open.get(index % open.len().max(1))?;
                (
                    CommandType::RequestCancelActivityTask,
                    Attributes::RequestCancelActivityTaskCommandAttributes(
                        command::RequestCancelActivityTaskCommandAttributes {
                            scheduled_event_id: scheduled.0,
                        },
                    ),
                )
            }
            Wish::Timer(id, length) => (
                CommandType::StartTimer,
                Attributes::StartTimerCommandAttributes(command::StartTimerCommandAttributes {
                    timer_id: format!("t{id}"),
                    start_to_fire_timeout: seconds(i64::from(*length)),
                }),
            ),
            Wish::CancelTimer(id) => (
                CommandType::CancelTimer,
                Attributes::CancelTimerCommandAttributes(command::CancelTimerCommandAttributes {
                    timer_id: format!("t{id}"),
                }),
            ),
        };
        Some(Command { command_type: kind as i32, attributes: Some(attributes), ..Default::default() })
    }

    /// The run as the store would give it back, and as a peer that got every batch has it.
    fn check(&self) {
        let stored =
            Run::restore(self.run.key.clone(), &self.run.head(), self.batches.iter().cloned()).unwrap();
        assert_eq!(stored.state, self.run.state);
        assert_eq!(stored.head(), self.run.head());
        assert_eq!(digest(&stored), digest(&self.run));
        let mut peer = Run::new(self.run.key.clone(), self.run.first_run);
        for batch in &self.batches {
            let received = Batch::open(batch.envelope_bytes.clone(), batch.events.clone()).unwrap();
            assert_eq!(received.chain, batch.chain);
            assert_eq!(peer.push(&Arc::new(received)).unwrap(), Pushed::Grew);
        }
        peer.merge(&self.run.state_wire());
        assert!(!peer.merge(&self.run.state_wire()), "a second merge changes nothing (V19)");
        assert_eq!(peer.state, self.run.state);
        assert_eq!(digest(&peer), digest(&self.run));
        // V01: ids 1..n without gap; V03: one version a batch, strictly increasing by item.
        let events: Vec<HistoryEvent> =
            self.batches.iter().flat_map(|batch| batch.decode_events().unwrap()).collect();
        assert!(events.iter().zip(1..).all(|(event, id)| event.event_id == id));
        assert!(events.windows(2).all(|pair| pair[0].version <= pair[1].version));
        // H2: time never goes back.
        let times: Vec<_> =
            events.iter().map(|event| event.event_time.map(|at| (at.seconds, at.nanos))).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn decided_stored_and_replicated_runs_are_the_same(actions in proptest::collection::vec(action(), 1..60)) {
        let mut writer = Writer::begin();
        for action in &actions {
            writer.act(action);
            writer.check();
        }
    }
}

fn started() -> HistoryEvent {
    HistoryEvent {
        event_id: 1,
        attributes: Some(history_event::Attributes::WorkflowExecutionStartedEventAttributes(
            history::WorkflowExecutionStartedEventAttributes::default(),
        )),
        ..Default::default()
    }
}

#[test]
fn a_gap_is_refused() {
    let mut state = State::default();
    state.apply_event(&started()).unwrap();
    let again = state.apply_event(&started());
    assert_eq!(again, Err(FoldError::Gap { expected: EventId(2), found: EventId(1) }));
}

#[test]
fn an_event_without_attributes_is_refused() {
    let refused = State::default().apply_event(&HistoryEvent { event_id: 1, ..Default::default() });
    assert!(matches!(refused, Err(FoldError::Invalid { .. })), "{refused:?}");
}

#[test]
fn an_event_for_something_that_is_not_open_is_refused() {
    let mut state = State::default();
    state.apply_event(&started()).unwrap();
    let fired = HistoryEvent {
        event_id: 2,
        attributes: Some(history_event::Attributes::TimerFiredEventAttributes(
            history::TimerFiredEventAttributes { timer_id: "t".to_string(), started_event_id: 1 },
        )),
        ..Default::default()
    };
    let refused = state.apply_event(&fired);
    assert!(matches!(refused, Err(FoldError::Unknown { kind: "TimerFired", .. })), "{refused:?}");
}

#[test]
fn nothing_follows_the_closing_event() {
    let mut state = State::default();
    state.apply_event(&started()).unwrap();
    let terminated = |event_id| HistoryEvent {
        event_id,
        attributes: Some(history_event::Attributes::WorkflowExecutionTerminatedEventAttributes(
            history::WorkflowExecutionTerminatedEventAttributes::default(),
        )),
        ..Default::default()
    };
    state.apply_event(&terminated(2)).unwrap();
    assert!(!state.is_open());
    assert!(matches!(state.apply_event(&terminated(3)), Err(FoldError::Invalid { .. })));
}
