//! A region that writes one run through the decisions of the core, for tests: each call is what a shard would do for a
//! request. Two authors of one run are two regions; `receive` is what a link does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;

use antipode_core::{
    batch::{Batch, Envelope, Origin},
    chain::ChainValue,
    clocks::Clocks,
    decide::{
        Context, Outcome, Seat, activity, commands, due,
        external::{self, External},
        start, workflow_task,
    },
    identity::{ExternalKind, Identity},
    ids::{
        EventId, FailoverVersion, Incarnation, NamespaceId, Place, RegionId, RunId, RunKey, Sequence,
        ShardId, Timestamp,
    },
    refusal::Refusal,
    run::{Pushed, Run},
    task::{PollInfo, Presented},
    tree::Tree,
    version_history::{Item, VersionHistory},
};
use antipode_proto::{
    api::{
        command::v1::{self as command, Command, command::Attributes},
        common::v1::{ActivityType, Payload, Payloads, WorkflowType},
        enums::v1::{CommandType, EventType, WorkflowTaskFailedCause},
        failure::v1::Failure,
        history::v1::{self as history, HistoryEvent, history_event},
        taskqueue::v1::TaskQueue,
        workflowservice::v1 as ws,
    },
    core as wire,
};

/// Nanoseconds of a second.
pub const SECOND: i64 = 1_000_000_000;

/// A run id by number.
pub fn run_id(number: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(number))
}

/// The key of a run by number.
pub fn run_key(number: u128) -> RunKey {
    RunKey { namespace: NamespaceId(uuid::Uuid::from_u128(1)), workflow: "w".into(), run: run_id(number) }
}

/// A request to start the workflow.
pub fn start_request() -> ws::StartWorkflowExecutionRequest {
    ws::StartWorkflowExecutionRequest {
        workflow_id: "w".to_string(),
        workflow_type: Some(WorkflowType { name: "type".to_string() }),
        task_queue: Some(TaskQueue { name: "queue".to_string(), kind: 1, normal_name: String::new() }),
        request_id: "start".to_string(),
        ..Default::default()
    }
}

/// Seconds as the API has them.
pub fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// One payload with this text.
pub fn payloads(text: &str) -> Payloads {
    let payload = Payload { data: text.as_bytes().to_vec().into(), ..Default::default() };
    Payloads { payloads: vec![payload] }
}

/// A region that writes one run.
#[derive(Clone)]
pub struct Author {
    /// The run here.
    pub run: Run,
    /// Its batches in the order in which they came.
    pub batches: Vec<Arc<Batch>>,
    /// The run that the last completion began.
    pub successor: Option<Box<(Run, Arc<Batch>)>>,
    /// This region's number.
    pub region: u32,
    /// Clock.
    pub now: i64,
    /// Version of the namespace record here.
    pub version: i64,
    /// Log position.
    pub sequence: u64,
    /// How far the clocks of other regions are behind.
    pub clocks: Arc<Clocks>,
}

impl Author {
    /// Starts run 2 in region 1 under version 1. Two events: started and the first workflow task.
    pub fn begin() -> Self {
        Self::begin_with(&start_request(), 2)
    }

    /// Starts a run by this request.
    pub fn begin_with(request: &ws::StartWorkflowExecutionRequest, number: u128) -> Self {
        let key = run_key(number);
        let mut author = Self {
            run: Run::new(key.clone(), key.run),
            batches: Vec::new(),
            successor: None,
            region: 1,
            now: 100 * SECOND,
            version: 1,
            sequence: 0,
            clocks: Arc::default(),
        };
        let (context, seat) = (author.context(), author.seat());
        let new = start::from_request(request, key.run, context.now);
        let (run, batch) = start::start(key, new, context, seat).unwrap();
        author.run = run;
        author.batches.push(batch);
        author
    }

    /// Another region that has what this one has, and owns the namespace under this version.
    pub fn elsewhere(&self, region: u32, version: i64) -> Self {
        let mut other = Self { region, version, sequence: 1_000 * u64::from(region), ..self.clone() };
        other.run.sticky = None;
        other
    }

    /// Context of the next decision.
    pub fn context(&self) -> Context {
        Context {
            now: Timestamp(self.now),
            version: FailoverVersion(self.version),
            region: RegionId(self.region),
            seed: [7; 16],
            clocks: Arc::clone(&self.clocks),
        }
    }

    /// Seat of the next batch.
    pub fn seat(&mut self) -> Seat {
        self.sequence += 1;
        Seat {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            log: Sequence(self.sequence),
            place: Place { epoch: 1, sequence: self.sequence },
            causal: self.sequence,
        }
    }

    fn wrote(&mut self, outcome: Outcome) -> Option<Refusal> {
        self.batches.extend(outcome.batch);
        self.successor = outcome.successor;
        outcome.refused
    }

    /// A signal with this name, under the request id `request-NAME`.
    pub fn signal(&mut self, name: &str) {
        self.signal_as(name, &format!("request-{name}"), false);
    }

    /// A signal with its request id; `named_run`: the request named the run.
    pub fn signal_as(&mut self, name: &str, request: &str, named_run: bool) {
        self.signal_full(name, request, named_run, None);
    }

    /// A signal with an input.
    pub fn signal_with(&mut self, name: &str, input: &str) {
        self.signal_full(name, &format!("request-{name}"), false, Some(payloads(input)));
    }

    fn signal_full(&mut self, name: &str, request: &str, named_run: bool, input: Option<Payloads>) {
        let attributes = history_event::Attributes::WorkflowExecutionSignaledEventAttributes(
            history::WorkflowExecutionSignaledEventAttributes {
                signal_name: name.to_string(),
                input,
                ..Default::default()
            },
        );
        let external = External {
            attributes,
            identity: external::client_identity(ExternalKind::Signal, request),
            kind: ExternalKind::Signal,
            named_run,
            links: Vec::new(),
        };
        self.accept(external);
    }

    /// A cancel request with this request id.
    pub fn cancel(&mut self, request: &str) {
        let cancel = ws::RequestCancelWorkflowExecutionRequest {
            request_id: request.to_string(),
            ..Default::default()
        };
        self.accept(external::request_cancel(&cancel));
    }

    fn accept(&mut self, external: External) {
        let (context, seat) = (self.context(), self.seat());
        let outcome = external::accept(&mut self.run, external, context, seat).unwrap();
        assert_eq!(self.wrote(outcome), None);
    }

    /// A client's termination.
    pub fn terminate(&mut self) {
        let (context, seat) = (self.context(), self.seat());
        let identity = external::terminate_identity(&self.run, &context, seat);
        let attributes = history::WorkflowExecutionTerminatedEventAttributes::default();
        let batch = external::terminate(&mut self.run, attributes, Some(identity), true, context, seat);
        self.batches.extend(batch.unwrap());
    }

    /// Hands the pending workflow task to a worker, when there is one that waits. True when there was.
    pub fn start_task(&mut self) -> bool {
        let Some(task) = self.run.task().filter(|task| task.started.is_none()) else { return false };
        let (context, seat) = (self.context(), self.seat());
        let task = workflow_task::task_ref(&task);
        let outcome =
            workflow_task::start(&mut self.run, &task, &PollInfo::default(), context, seat).unwrap();
        assert_eq!(self.wrote(outcome), None);
        true
    }

    /// The task that a worker holds now.
    pub fn held_task(&self) -> Option<Presented> {
        let task = self.run.task()?;
        let started = task.started.clone()?;
        Some(Presented {
            task: workflow_task::task_ref(&task),
            started: started.event,
            start_version: started.version,
            tip: self.run.tip(),
            anchor: ChainValue::NONE,
        })
    }

    /// The activity task that a worker holds now.
    pub fn held_activity(&self, id: &str) -> Presented {
        let view = self.run.activity(self.activity(id)).unwrap();
        Presented {
            task: activity::task_ref(&view),
            started: EventId(0),
            start_version: FailoverVersion(view.attempt.start_version),
            tip: self.run.tip(),
            anchor: self.run.anchored(view.activity.anchor()).chain,
        }
    }

    /// The worker completes its task with these commands; the refusal that answers it, if any.
    pub fn complete(&mut self, wanted: Vec<Command>) -> Option<Refusal> {
        let presented = self.held_task().unwrap();
        self.complete_held(&presented, wanted).unwrap()
    }

    /// A worker completes the task that it holds.
    pub fn complete_held(
        &mut self,
        presented: &Presented,
        wanted: Vec<Command>,
    ) -> Result<Option<Refusal>, Refusal> {
        let request = ws::RespondWorkflowTaskCompletedRequest { commands: wanted, ..Default::default() };
        self.complete_request(presented, &request)
    }

    /// A worker completes the task that it holds with this request.
    pub fn complete_request(
        &mut self,
        presented: &Presented,
        request: &ws::RespondWorkflowTaskCompletedRequest,
    ) -> Result<Option<Refusal>, Refusal> {
        let (context, seats) = (self.context(), self.seats());
        let next = self.next_run();
        let outcome = commands::complete(&mut self.run, presented, request, context, seats, next)?;
        Ok(self.wrote(outcome))
    }

    /// Starts and completes a workflow task.
    pub fn step(&mut self, wanted: Vec<Command>) {
        assert!(self.start_task(), "no workflow task waits");
        assert_eq!(self.complete(wanted), None);
    }

    /// The worker fails its task.
    pub fn fail_task(&mut self) {
        let presented = self.held_task().unwrap();
        let (context, seat) = (self.context(), self.seat());
        let failed = workflow_task::Failed {
            cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure,
            failure: None,
            identity: "worker".to_string(),
        };
        let outcome = workflow_task::respond_failed(&mut self.run, &presented, failed, context, seat);
        assert_eq!(self.wrote(outcome.unwrap()), None);
    }

    /// Scheduled event of an open activity.
    pub fn activity(&self, id: &str) -> EventId {
        self.run.state.activity_ids[id]
    }

    /// Hands an activity to a worker.
    pub fn start_activity(&mut self, id: &str) {
        let task = activity::task_ref(&self.run.activity(self.activity(id)).unwrap());
        let poll = PollInfo { identity: format!("worker-{}", self.region), ..PollInfo::default() };
        let context = self.context();
        activity::start(&mut self.run, &task, &poll, context).unwrap();
    }

    /// The worker ends the activity's attempt.
    pub fn end_activity(&mut self, id: &str, end: activity::End) {
        let (context, seat) = (self.context(), self.seat());
        let scheduled = self.activity(id);
        let outcome = activity::end(&mut self.run, scheduled, end, "worker", context, seat);
        assert_eq!(self.wrote(outcome.unwrap()), None);
    }

    /// The worker's heartbeat; whether it is asked to stop.
    pub fn heartbeat(&mut self, id: &str, details: &str) -> bool {
        let (context, scheduled) = (self.context(), self.activity(id));
        activity::heartbeat(&mut self.run, scheduled, Some(&payloads(details)), context)
    }

    /// Lets time pass and does what is due.
    pub fn pass(&mut self, seconds: i64) {
        self.now += seconds * SECOND;
        self.settle();
    }

    /// When there is something to do again.
    pub fn wake(&self) -> Option<Timestamp> {
        let version = Some(FailoverVersion(self.version));
        due::wake_at(&self.run, version, RegionId(self.region), Timestamp(self.now))
    }

    /// Does what is due now.
    pub fn settle(&mut self) {
        let (context, seats) = (self.context(), self.seats());
        let next = self.next_run();
        let outcome = due::settle(&mut self.run, context, seats, next).unwrap();
        assert_eq!(self.wrote(outcome), None);
    }

    fn seats(&mut self) -> [Seat; 2] {
        let (first, second) = (self.seat(), self.seat());
        // B8: the successor comes first in the log; B7: and last in place.
        [Seat { log: second.log, ..first }, Seat { log: first.log, ..second }]
    }

    fn next_run(&self) -> RunId {
        RunId(uuid::Uuid::from_u128(self.run.key.run.0.as_u128() + 1))
    }

    /// Goes on with the run that the last completion began.
    pub fn follow(&mut self) {
        let (run, batch) = *self.successor.take().expect("the chain goes on");
        self.run = run;
        self.batches = vec![batch];
    }

    /// Takes every batch of another region that is not here, parents first. What each did.
    pub fn receive(&mut self, other: &Self) -> Vec<Pushed> {
        self.take(&other.batches)
    }

    /// Takes these batches, parents first.
    pub fn take(&mut self, batches: &[Arc<Batch>]) -> Vec<Pushed> {
        let mut pushed = Vec::new();
        for batch in batches {
            if self.run.batches.contains_key(&batch.chain) {
                continue;
            }
            let received = Arc::new(Batch::open(batch.envelope_bytes.clone(), batch.events.clone()).unwrap());
            pushed.push(self.run.push(&received).unwrap());
            self.batches.push(received);
        }
        pushed
    }

    /// Takes registers and pending events of another region.
    pub fn merge(&mut self, other: &Self) -> bool {
        self.run.merge(&other.run.state_wire())
    }

    /// Both regions tell each other everything.
    pub fn meet(&mut self, other: &mut Self) {
        self.receive(other);
        other.receive(self);
        let (mine, theirs) = (self.run.state_wire(), other.run.state_wire());
        self.run.merge(&theirs);
        other.run.merge(&mine);
    }

    /// The last batch of the current branch.
    pub fn last(&self) -> Arc<Batch> {
        Arc::clone(self.run.line.last().unwrap())
    }

    /// Events of the current branch: `3@1 WorkflowTaskStarted`.
    pub fn outline(&self) -> Vec<String> {
        outline(&self.run)
    }

    /// Signals of the current branch: `s1 3@1`.
    pub fn signals(&self) -> Vec<String> {
        let signal = |event: HistoryEvent| match event.attributes {
            Some(history_event::Attributes::WorkflowExecutionSignaledEventAttributes(a)) => {
                Some(format!("{} {}@{}", a.signal_name, event.event_id, event.version))
            }
            _ => None,
        };
        events(&self.run).into_iter().filter_map(signal).collect()
    }
}

/// Runs of two chains: east's run 2, and run 5 that somebody started later.
pub fn two_chains() -> (Author, Author) {
    let mut old = Author::begin();
    old.step(vec![]);
    let request = start_request();
    let mut new =
        Author::begin_with(&ws::StartWorkflowExecutionRequest { request_id: "second".into(), ..request }, 5);
    new.version = 2;
    new.region = 2;
    (old, new)
}

/// A batch of `count` events after `parent`, header only; `salt` tells batches with equal numbers apart.
pub fn bare(parent: Option<&Batch>, count: i64, version: i64, salt: u64) -> Batch {
    let last = parent.map_or(0, |parent| parent.envelope.last_event.0);
    let tip = item(last + count, version);
    let items = parent.map(|parent| parent.envelope.items.clone()).unwrap_or_default();
    let envelope = Envelope {
        run: run_key(2),
        first_run: run_id(2),
        first_event: EventId(last + 1),
        last_event: tip.event,
        version: tip.version,
        previous: parent.map_or(ChainValue::NONE, |parent| parent.chain),
        items: items.with(tip).unwrap(),
        origin: Origin {
            region: RegionId(1),
            incarnation: Incarnation(1),
            shard: ShardId(1),
            sequence: Sequence(salt),
        },
        place: Place { epoch: 1, sequence: salt },
        causal: salt,
        identities: Vec::new(),
        successor: None,
        inherited: Vec::new(),
        recent: Vec::new(),
        fold_version: 1,
        clock: None,
    };
    Batch::seal(envelope, &[])
}

/// The tree of these batches, parents first.
pub fn tree(batches: &[&Batch]) -> Tree {
    Tree::from_batches(batches.iter().map(|batch| (&batch.envelope, batch.chain))).unwrap()
}

/// An item of a version history.
pub fn item(event: i64, version: i64) -> Item {
    Item::new(EventId(event), FailoverVersion(version))
}

/// A version history.
pub fn list(items: &[(i64, i64)]) -> VersionHistory {
    VersionHistory::new(items.iter().map(|&(e, v)| item(e, v)).collect::<Vec<_>>()).unwrap()
}

/// Events of a run's current branch.
pub fn events(run: &Run) -> Vec<HistoryEvent> {
    run.line.iter().flat_map(|batch| batch.decode_events().unwrap()).collect()
}

/// Events of a run's current branch: `3@1 WorkflowTaskStarted`.
pub fn outline(run: &Run) -> Vec<String> {
    let line = |event: HistoryEvent| {
        let kind = EventType::try_from(event.event_type).unwrap();
        let words = kind.as_str_name().trim_start_matches("EVENT_TYPE_").split('_');
        let name: String = words.map(|word| word[..1].to_string() + &word[1..].to_lowercase()).collect();
        format!("{}@{} {name}", event.event_id, event.version)
    };
    events(run).into_iter().map(line).collect()
}

/// What all regions must agree on of a run, as bytes: everything but what is kept where it happened.
pub fn shared_bytes(run: &Run) -> Vec<u8> {
    use prost::Message;
    wire::RunHead { lost: Vec::new(), ..run.head() }.encode_to_vec()
}

/// An identity of a client's signal.
pub fn signal_identity(name: &str) -> Identity {
    Identity::client(ExternalKind::Signal, format!("request-{name}"))
}

fn wanted(kind: CommandType, attributes: Attributes) -> Command {
    Command { command_type: kind as i32, attributes: Some(attributes), ..Default::default() }
}

/// Schedules an activity.
pub fn activity(id: &str) -> Command {
    wanted(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(command::ScheduleActivityTaskCommandAttributes {
            activity_id: id.to_string(),
            activity_type: Some(ActivityType { name: "charge".to_string() }),
            start_to_close_timeout: seconds(15),
            heartbeat_timeout: seconds(10),
            ..Default::default()
        }),
    )
}

/// Asks to cancel the activity that was scheduled by this event.
pub fn cancel_activity(scheduled: EventId) -> Command {
    wanted(
        CommandType::RequestCancelActivityTask,
        Attributes::RequestCancelActivityTaskCommandAttributes(
            command::RequestCancelActivityTaskCommandAttributes { scheduled_event_id: scheduled.0 },
        ),
    )
}

/// Starts a timer.
pub fn timer(id: &str, length: i64) -> Command {
    wanted(
        CommandType::StartTimer,
        Attributes::StartTimerCommandAttributes(command::StartTimerCommandAttributes {
            timer_id: id.to_string(),
            start_to_fire_timeout: seconds(length),
        }),
    )
}

/// Cancels a timer.
pub fn cancel_timer(id: &str) -> Command {
    wanted(
        CommandType::CancelTimer,
        Attributes::CancelTimerCommandAttributes(command::CancelTimerCommandAttributes {
            timer_id: id.to_string(),
        }),
    )
}

/// Records a marker.
pub fn marker(name: &str) -> Command {
    wanted(
        CommandType::RecordMarker,
        Attributes::RecordMarkerCommandAttributes(command::RecordMarkerCommandAttributes {
            marker_name: name.to_string(),
            ..Default::default()
        }),
    )
}

/// Sets a search attribute; an empty text removes it.
pub fn search_attribute(key: &str, text: &str) -> Command {
    let indexed_fields = [(key.to_string(), field(text))].into();
    let attributes = antipode_proto::api::common::v1::SearchAttributes { indexed_fields };
    wanted(
        CommandType::UpsertWorkflowSearchAttributes,
        Attributes::UpsertWorkflowSearchAttributesCommandAttributes(
            command::UpsertWorkflowSearchAttributesCommandAttributes { search_attributes: Some(attributes) },
        ),
    )
}

/// Sets a field of the memo; an empty text removes it.
pub fn memo(key: &str, text: &str) -> Command {
    let memo = antipode_proto::api::common::v1::Memo { fields: [(key.to_string(), field(text))].into() };
    wanted(
        CommandType::ModifyWorkflowProperties,
        Attributes::ModifyWorkflowPropertiesCommandAttributes(
            command::ModifyWorkflowPropertiesCommandAttributes { upserted_memo: Some(memo) },
        ),
    )
}

fn field(text: &str) -> Payload {
    let encoding = if text.is_empty() { "binary/null" } else { "json/plain" };
    let metadata = [("encoding".to_string(), encoding.as_bytes().to_vec().into())].into();
    Payload { metadata, data: text.as_bytes().to_vec().into(), ..Default::default() }
}

/// Completes the run.
pub fn complete() -> Command {
    wanted(
        CommandType::CompleteWorkflowExecution,
        Attributes::CompleteWorkflowExecutionCommandAttributes(Default::default()),
    )
}

/// Ends the run as cancelled.
pub fn canceled() -> Command {
    wanted(
        CommandType::CancelWorkflowExecution,
        Attributes::CancelWorkflowExecutionCommandAttributes(Default::default()),
    )
}

/// Fails the run.
pub fn fail() -> Command {
    wanted(
        CommandType::FailWorkflowExecution,
        Attributes::FailWorkflowExecutionCommandAttributes(command::FailWorkflowExecutionCommandAttributes {
            failure: Some(Failure { message: "no".to_string(), ..Default::default() }),
        }),
    )
}

/// Continues as new.
pub fn continue_as_new() -> Command {
    wanted(
        CommandType::ContinueAsNewWorkflowExecution,
        Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default()),
    )
}
