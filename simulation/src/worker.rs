//! Clients and workers of the simulator: they speak the messages of the public API to a region's shards.

use antipode_core::ids::{RunId, WorkflowKey};
use antipode_history::{
    api::{
        ActivityRef, HistoryRequest, Offer, Operation, PollInfo, Refusal, Reply, Request, TaskKind, TaskToken,
    },
    token,
};
use antipode_proto::api::{
    command::v1::{self as command, Command, command::Attributes},
    common::v1::{ActivityType, Payload, Payloads, WorkflowType},
    enums::v1::{CommandType, WorkflowIdConflictPolicy as Conflict, WorkflowTaskFailedCause},
    failure::v1::Failure as ApiFailure,
    history::v1::{History, HistoryEvent},
    taskqueue::v1::TaskQueue,
    workflowservice::v1 as ws,
};
use prost::Message;

use crate::world::{Failure, World};

/// A task in a worker's hand.
#[derive(Clone, Debug)]
pub struct Held {
    /// Token.
    pub token: TaskToken,
    /// Events that came with it, for workflow tasks.
    pub events: Vec<HistoryEvent>,
}

/// What a worker decides.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Nothing now.
    Wait,
    /// An activity with this id.
    Activity(String),
    /// A timer with this id, of so many seconds.
    Timer(String, i64),
    /// Complete the workflow.
    Complete,
    /// Continue as new.
    ContinueAsNew,
}

type Answer = Option<Result<Reply, Refusal>>;

fn queue() -> Option<TaskQueue> {
    Some(TaskQueue { name: "queue".to_string(), kind: 1, normal_name: String::new() })
}

fn text(text: &str) -> Option<Payloads> {
    let data = bytes::Bytes::copy_from_slice(text.as_bytes());
    Some(Payloads { payloads: vec![Payload { data, ..Default::default() }] })
}

/// A start.
#[must_use]
pub fn start_operation(workflow: &str, request_id: &str, conflict: Conflict) -> Operation {
    Operation::Start(Box::new(ws::StartWorkflowExecutionRequest {
        namespace: "default".to_string(),
        workflow_id: workflow.to_string(),
        workflow_type: Some(WorkflowType { name: "type".to_string() }),
        task_queue: queue(),
        request_id: request_id.to_string(),
        workflow_id_conflict_policy: conflict as i32,
        ..Default::default()
    }))
}

/// A signal.
#[must_use]
pub fn signal_operation(name: &str, request_id: &str) -> Operation {
    Operation::Signal(Box::new(ws::SignalWorkflowExecutionRequest {
        signal_name: name.to_string(),
        input: text(name),
        request_id: request_id.to_string(),
        ..Default::default()
    }))
}

/// A termination.
#[must_use]
pub fn terminate_operation() -> Operation {
    Operation::Terminate(Box::new(ws::TerminateWorkflowExecutionRequest {
        reason: "told to".to_string(),
        ..Default::default()
    }))
}

/// A request to cancel.
#[must_use]
pub fn cancel_operation(request_id: &str) -> Operation {
    Operation::RequestCancel(Box::new(ws::RequestCancelWorkflowExecutionRequest {
        reason: "told to".to_string(),
        request_id: request_id.to_string(),
        ..Default::default()
    }))
}

/// Takes an offered task.
#[must_use]
pub fn take_request(offer: &Offer) -> Request {
    let poll = PollInfo { identity: "worker".to_string(), queue: offer.queue.clone(), ..Default::default() };
    let (workflow, run) = (offer.key.workflow_key(), Some(offer.key.run));
    let task = offer.task.clone();
    let operation = match offer.kind {
        TaskKind::Workflow => Operation::WorkflowTaskStart { task, poll },
        TaskKind::Activity => Operation::ActivityTaskStart { task, poll },
    };
    Request { workflow, run, operation }
}

/// What a worker holds after its poll was answered.
#[must_use]
pub fn held(reply: &Reply) -> Option<Held> {
    match reply {
        Reply::WorkflowTask(task, history) => {
            let events = History::decode(&**history).map(|history| history.events).unwrap_or_default();
            token::decode(&task.task_token).ok().map(|token| Held { token, events })
        }
        Reply::ActivityTask(task) => {
            token::decode(&task.task_token).ok().map(|token| Held { token, events: Vec::new() })
        }
        _ => None,
    }
}

fn request_of(held: &Held, operation: Operation) -> Request {
    Request { workflow: held.token.key.workflow_key(), run: Some(held.token.key.run), operation }
}

/// A workflow task completed.
#[must_use]
pub fn complete_task_request(held: &Held, decision: &Decision) -> Request {
    let completed = ws::RespondWorkflowTaskCompletedRequest {
        commands: commands(decision),
        identity: "worker".to_string(),
        ..Default::default()
    };
    request_of(held, Operation::WorkflowTaskCompleted(held.token.clone(), Box::new(completed)))
}

/// A workflow task failed.
#[must_use]
pub fn fail_task_request(held: &Held) -> Request {
    let failed = ws::RespondWorkflowTaskFailedRequest {
        cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure as i32,
        identity: "worker".to_string(),
        ..Default::default()
    };
    request_of(held, Operation::WorkflowTaskFailed(held.token.clone(), Box::new(failed)))
}

/// An activity task completed, or failed retryably.
#[must_use]
pub fn end_activity_request(held: &Held, well: bool) -> Request {
    let named = ActivityRef::Token(held.token.clone());
    let operation = if well {
        let done = ws::RespondActivityTaskCompletedRequest { result: text("done"), ..Default::default() };
        Operation::ActivityCompleted(named, Box::new(done))
    } else {
        let failure = Some(ApiFailure { message: "no".to_string(), ..Default::default() });
        let failed = ws::RespondActivityTaskFailedRequest { failure, ..Default::default() };
        Operation::ActivityFailed(named, Box::new(failed))
    };
    request_of(held, operation)
}

/// An activity's heartbeat.
#[must_use]
pub fn beat_request(held: &Held, details: &str) -> Request {
    let beat = ws::RecordActivityTaskHeartbeatRequest { details: text(details), ..Default::default() };
    let named = ActivityRef::Token(held.token.clone());
    request_of(held, Operation::ActivityHeartbeat(named, Box::new(beat)))
}

impl World {
    /// Starts a workflow.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn start(&mut self, region: usize, workflow: &str, request_id: &str) -> Result<Answer, Failure> {
        let operation = start_operation(workflow, request_id, Conflict::Unspecified);
        let key = self.key(workflow);
        self.ask(region, Request { workflow: key, run: None, operation })
    }

    /// Signals a workflow.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn signal(
        &mut self,
        region: usize,
        workflow: &str,
        name: &str,
        request_id: &str,
    ) -> Result<Answer, Failure> {
        let operation = signal_operation(name, request_id);
        let key = self.key(workflow);
        self.ask(region, Request { workflow: key, run: None, operation })
    }

    /// Terminates a workflow.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn terminate(
        &mut self,
        region: usize,
        workflow: &str,
        run: Option<RunId>,
    ) -> Result<Answer, Failure> {
        let key = self.key(workflow);
        self.ask(region, Request { workflow: key, run, operation: terminate_operation() })
    }

    /// Takes the oldest offered task of a kind, as a poller would. None: there is none, or it was stale.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn poll(&mut self, region: usize, kind: TaskKind) -> Result<Option<Held>, Failure> {
        let offers = &mut self.regions[region].offers;
        let Some(index) = offers.iter().position(|offer| offer.kind == kind) else { return Ok(None) };
        let Some(offer) = offers.remove(index) else { return Ok(None) };
        self.take(region, offer)
    }

    /// Takes this offered task.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn take(&mut self, region: usize, offer: Offer) -> Result<Option<Held>, Failure> {
        Ok(match self.ask(region, take_request(&offer))? {
            Some(Ok(reply)) => held(&reply),
            _ => None,
        })
    }

    /// Completes a workflow task.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn complete_task(
        &mut self,
        region: usize,
        held: &Held,
        decision: &Decision,
    ) -> Result<Answer, Failure> {
        self.ask(region, complete_task_request(held, decision))
    }

    /// Completes an activity task, or fails it retryably.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn complete_activity(&mut self, region: usize, held: &Held, well: bool) -> Result<Answer, Failure> {
        self.ask(region, end_activity_request(held, well))
    }

    /// Events of a run's current branch.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn history(
        &mut self,
        region: usize,
        workflow: &str,
        run: Option<RunId>,
    ) -> Result<Vec<HistoryEvent>, Failure> {
        let key: WorkflowKey = self.key(workflow);
        let wanted = HistoryRequest { page_size: 1_000_000, ..Default::default() };
        let request = Request { workflow: key, run, operation: Operation::History(wanted) };
        Ok(match self.ask(region, request)? {
            Some(Ok(Reply::History(page))) => {
                History::decode(&*page.events).map(|history| history.events).unwrap_or_default()
            }
            _ => Vec::new(),
        })
    }

    /// The operator's view of a run.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn inspect(
        &mut self,
        region: usize,
        workflow: &str,
        run: Option<RunId>,
    ) -> Result<Option<antipode_proto::admin::InspectRunReply>, Failure> {
        let request = Request { workflow: self.key(workflow), run, operation: Operation::Inspect };
        Ok(match self.ask(region, request)? {
            Some(Ok(Reply::Inspect(inspect))) => Some(*inspect),
            _ => None,
        })
    }
}

fn commands(decision: &Decision) -> Vec<Command> {
    let command = |kind: CommandType, attributes: Attributes| {
        vec![Command {
            command_type: kind as i32,
            user_metadata: None,
            attributes: Some(attributes),
            ..Default::default()
        }]
    };
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    match decision {
        Decision::Wait => Vec::new(),
        Decision::Activity(id) => command(
            CommandType::ScheduleActivityTask,
            Attributes::ScheduleActivityTaskCommandAttributes(
                command::ScheduleActivityTaskCommandAttributes {
                    activity_id: id.clone(),
                    activity_type: Some(ActivityType { name: "activity".to_string() }),
                    task_queue: queue(),
                    start_to_close_timeout: seconds(60),
                    ..Default::default()
                },
            ),
        ),
        Decision::Timer(id, length) => command(
            CommandType::StartTimer,
            Attributes::StartTimerCommandAttributes(command::StartTimerCommandAttributes {
                timer_id: id.clone(),
                start_to_fire_timeout: seconds(*length),
            }),
        ),
        Decision::Complete => command(
            CommandType::CompleteWorkflowExecution,
            Attributes::CompleteWorkflowExecutionCommandAttributes(
                command::CompleteWorkflowExecutionCommandAttributes { result: text("result") },
            ),
        ),
        Decision::ContinueAsNew => command(
            CommandType::ContinueAsNewWorkflowExecution,
            Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(
                command::ContinueAsNewWorkflowExecutionCommandAttributes::default(),
            ),
        ),
    }
}
