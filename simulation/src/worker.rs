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
    enums::v1::CommandType,
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

impl World {
    /// Starts a workflow.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn start(&mut self, region: usize, workflow: &str, request_id: &str) -> Result<Answer, Failure> {
        let start = ws::StartWorkflowExecutionRequest {
            namespace: "default".to_string(),
            workflow_id: workflow.to_string(),
            workflow_type: Some(WorkflowType { name: "type".to_string() }),
            task_queue: queue(),
            request_id: request_id.to_string(),
            ..Default::default()
        };
        let key = self.key(workflow);
        self.ask(region, Request { workflow: key, run: None, operation: Operation::Start(Box::new(start)) })
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
        let signal = ws::SignalWorkflowExecutionRequest {
            signal_name: name.to_string(),
            input: text(name),
            request_id: request_id.to_string(),
            ..Default::default()
        };
        let key = self.key(workflow);
        self.ask(region, Request { workflow: key, run: None, operation: Operation::Signal(Box::new(signal)) })
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
        let terminate =
            ws::TerminateWorkflowExecutionRequest { reason: "told to".to_string(), ..Default::default() };
        let key = self.key(workflow);
        self.ask(region, Request { workflow: key, run, operation: Operation::Terminate(Box::new(terminate)) })
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
        let poll =
            PollInfo { identity: "worker".to_string(), queue: offer.queue.clone(), ..Default::default() };
        let (workflow, run) = (offer.key.workflow_key(), Some(offer.key.run));
        let operation = match offer.kind {
            TaskKind::Workflow => Operation::WorkflowTaskStart { task: offer.task, poll },
            TaskKind::Activity => Operation::ActivityTaskStart { task: offer.task, poll },
        };
        Ok(match self.ask(region, Request { workflow, run, operation })? {
            Some(Ok(Reply::WorkflowTask(task, history))) => {
                let events = History::decode(&*history).map(|history| history.events).unwrap_or_default();
                token::decode(&task.task_token).ok().map(|token| Held { token, events })
            }
            Some(Ok(Reply::ActivityTask(task))) => {
                token::decode(&task.task_token).ok().map(|token| Held { token, events: Vec::new() })
            }
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
        let completed = ws::RespondWorkflowTaskCompletedRequest {
            commands: commands(decision),
            identity: "worker".to_string(),
            ..Default::default()
        };
        let (workflow, run) = (held.token.key.workflow_key(), Some(held.token.key.run));
        let operation = Operation::WorkflowTaskCompleted(held.token.clone(), Box::new(completed));
        self.ask(region, Request { workflow, run, operation })
    }

    /// Completes an activity task, or fails it retryably.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn complete_activity(&mut self, region: usize, held: &Held, well: bool) -> Result<Answer, Failure> {
        let (workflow, run) = (held.token.key.workflow_key(), Some(held.token.key.run));
        let named = ActivityRef::Token(held.token.clone());
        let operation = if well {
            let done = ws::RespondActivityTaskCompletedRequest { result: text("done"), ..Default::default() };
            Operation::ActivityCompleted(named, Box::new(done))
        } else {
            let failure = Some(ApiFailure { message: "no".to_string(), ..Default::default() });
            let failed = ws::RespondActivityTaskFailedRequest { failure, ..Default::default() };
            Operation::ActivityFailed(named, Box::new(failed))
        };
        self.ask(region, Request { workflow, run, operation })
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
