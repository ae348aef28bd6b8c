//! The stub's memory: runs, queues, and the few transitions that the generator's workflows need.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
};

use antipode_proto::api::{
    command::v1::{Command, command},
    common::v1::Payloads,
    enums::v1::EventType,
    history::v1::{
        ActivityTaskCompletedEventAttributes, ActivityTaskScheduledEventAttributes, HistoryEvent,
        WorkflowExecutionCompletedEventAttributes, WorkflowExecutionSignaledEventAttributes,
        WorkflowExecutionStartedEventAttributes, history_event::Attributes,
    },
    workflowservice::v1::{SignalWorkflowExecutionRequest, StartWorkflowExecutionRequest},
};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::Mischief;

/// Where the workflow task of a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Slot {
    #[default]
    Idle,
    Scheduled,
    Started(i64),
}

#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) workflow_id: String,
    pub(super) run_id: String,
    pub(super) events: Vec<HistoryEvent>,
    pub(super) closed: bool,
    pub(super) forgotten: bool,
    queue: String,
    sticky: Option<String>,
    delivered: usize,
    slot: Slot,
    buffered: Vec<Attributes>,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<usize>,
    pollers: VecDeque<oneshot::Sender<usize>>,
}

impl Queue {
    fn offer(&mut self, mut task: usize) {
        while let Some(poller) = self.pollers.pop_front() {
            match poller.send(task) {
                Ok(()) => return,
                // That poller hung up.
                Err(back) => task = back,
            }
        }
        self.tasks.push_back(task);
    }

    fn poll(&mut self) -> Result<usize, oneshot::Receiver<usize>> {
        self.tasks.pop_front().ok_or_else(|| {
            let (sender, receiver) = oneshot::channel();
            self.pollers.push_back(sender);
            receiver
        })
    }
}

/// Which kind of queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Workflow,
    Activity,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) runs: Vec<Run>,
    by_id: HashMap<String, usize>,
    queues: BTreeMap<(Kind, String), Queue>,
    mischief: Mischief,
    signals: u64,
    starts: u64,
    workflow_tasks: u64,
    activity_tasks: u64,
    completions: u64,
    closes: u64,
}

fn event_type(attributes: &Attributes) -> EventType {
    match attributes {
        Attributes::WorkflowExecutionStartedEventAttributes(_) => EventType::WorkflowExecutionStarted,
        Attributes::WorkflowExecutionCompletedEventAttributes(_) => EventType::WorkflowExecutionCompleted,
        Attributes::WorkflowExecutionSignaledEventAttributes(_) => EventType::WorkflowExecutionSignaled,
        Attributes::WorkflowTaskScheduledEventAttributes(_) => EventType::WorkflowTaskScheduled,
        Attributes::WorkflowTaskStartedEventAttributes(_) => EventType::WorkflowTaskStarted,
        Attributes::WorkflowTaskCompletedEventAttributes(_) => EventType::WorkflowTaskCompleted,
        Attributes::WorkflowTaskFailedEventAttributes(_) => EventType::WorkflowTaskFailed,
        Attributes::ActivityTaskScheduledEventAttributes(_) => EventType::ActivityTaskScheduled,
        Attributes::ActivityTaskStartedEventAttributes(_) => EventType::ActivityTaskStarted,
        Attributes::ActivityTaskCompletedEventAttributes(_) => EventType::ActivityTaskCompleted,
        _ => EventType::Unspecified,
    }
}

impl Run {
    fn push(&mut self, attributes: Attributes) -> i64 {
        let event_id = self.events.len() as i64 + 1;
        let kind = event_type(&attributes).into();
        self.events.push(HistoryEvent {
            event_id,
            event_type: kind,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        });
        event_id
    }

    /// The input of the activity, for the poller.
    pub(super) fn activity_input(&self) -> Option<Payloads> {
        self.events.iter().find_map(|event| match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => scheduled.input.clone(),
            _ => None,
        })
    }
}

impl State {
    pub(super) fn new(mischief: Mischief) -> Self {
        Self { mischief, ..Self::default() }
    }

    pub(super) fn find(&self, workflow_id: &str) -> Option<usize> {
        self.by_id.get(workflow_id).copied().filter(|&run| !self.runs[run].forgotten)
    }

    fn queue(&mut self, kind: Kind, name: &str) -> &mut Queue {
        self.queues.entry((kind, name.to_string())).or_default()
    }

    /// A task, or where it will arrive.
    pub(super) fn poll(&mut self, kind: Kind, queue: &str) -> Result<usize, oneshot::Receiver<usize>> {
        self.queue(kind, queue).poll()
    }

    pub(super) fn start(&mut self, request: StartWorkflowExecutionRequest) -> String {
        if let Some(&known) = self.by_id.get(&request.workflow_id) {
            return self.runs[known].run_id.clone();
        }
        let number = self.runs.len();
        let run_id = format!("00000000-0000-4000-8000-{number:012}");
        self.by_id.insert(request.workflow_id.clone(), number);
        let queue = request.task_queue.unwrap_or_default().name;
        self.runs.push(Run {
            workflow_id: request.workflow_id,
            run_id: run_id.clone(),
            queue,
            ..Run::default()
        });
        let started = WorkflowExecutionStartedEventAttributes { input: request.input, ..Default::default() };
        self.runs[number].push(Attributes::WorkflowExecutionStartedEventAttributes(Box::new(started)));
        self.starts += 1;
        self.schedule(number, self.mischief != Mischief::LoseStart(self.starts));
        run_id
    }

    fn schedule(&mut self, number: usize, offered: bool) {
        let run = &mut self.runs[number];
        run.push(Attributes::WorkflowTaskScheduledEventAttributes(Default::default()));
        run.slot = Slot::Scheduled;
        if offered {
            let queue = run.sticky.clone().unwrap_or_else(|| run.queue.clone());
            self.queue(Kind::Workflow, &queue).offer(number);
        }
    }

    /// The poller has it: token and the place from which events are shown.
    pub(super) fn start_workflow_task(&mut self, number: usize) -> (Bytes, usize) {
        self.workflow_tasks += 1;
        if self.mischief == Mischief::DoubleWorkflowTask(self.workflow_tasks) {
            let queue = self.runs[number].queue.clone();
            self.queue(Kind::Workflow, &queue).offer(number);
        }
        let run = &mut self.runs[number];
        let from = if run.sticky.is_some() { run.delivered } else { 0 };
        let started = run.push(Attributes::WorkflowTaskStartedEventAttributes(Default::default()));
        run.slot = Slot::Started(started);
        run.delivered = run.events.len();
        (token(number, started), from)
    }

    /// False: the token is stale.
    pub(super) fn complete_workflow_task(
        &mut self,
        token: &[u8],
        commands: Vec<Command>,
        sticky: Option<String>,
    ) -> bool {
        let Some((number, started)) = parse(token) else { return false };
        if self.runs.get(number).is_none_or(|run| run.slot != Slot::Started(started)) {
            return false;
        }
        self.completions += 1;
        let forgets = self.mischief == Mischief::LoseCommands(self.completions);
        let run = &mut self.runs[number];
        run.sticky = sticky;
        run.slot = Slot::Idle;
        let buffered = mem::take(&mut run.buffered);
        let closes = commands.iter().any(|command| {
            matches!(
                command.attributes,
                Some(command::Attributes::CompleteWorkflowExecutionCommandAttributes(_))
            )
        });
        if closes && !buffered.is_empty() {
            run.push(Attributes::WorkflowTaskFailedEventAttributes(Default::default()));
        } else {
            run.push(Attributes::WorkflowTaskCompletedEventAttributes(Default::default()));
            for command in commands.into_iter().filter(|_| !forgets) {
                self.command(number, command);
            }
        }
        if !buffered.is_empty() {
            for attributes in buffered {
                self.runs[number].push(attributes);
            }
            self.schedule(number, true);
            return !closes;
        }
        true
    }

    fn command(&mut self, number: usize, command: Command) {
        match command.attributes {
            Some(command::Attributes::CompleteWorkflowExecutionCommandAttributes(complete)) => {
                self.closes += 1;
                let wrong = self.mischief == Mischief::WrongResult(self.closes);
                let run = &mut self.runs[number];
                let completed = WorkflowExecutionCompletedEventAttributes {
                    result: if wrong { Some(Payloads::default()) } else { complete.result },
                    ..Default::default()
                };
                run.push(Attributes::WorkflowExecutionCompletedEventAttributes(completed));
                run.closed = true;
                run.forgotten = self.mischief == Mischief::ForgetHistory(self.closes);
            }
            Some(command::Attributes::ScheduleActivityTaskCommandAttributes(schedule)) => {
                let queue = schedule.task_queue.unwrap_or_default().name;
                let scheduled =
                    ActivityTaskScheduledEventAttributes { input: schedule.input, ..Default::default() };
                self.runs[number].push(Attributes::ActivityTaskScheduledEventAttributes(scheduled));
                self.activity_tasks += 1;
                let twice = self.mischief == Mischief::DoubleActivityTask(self.activity_tasks);
                self.queue(Kind::Activity, &queue).offer(number);
                if twice {
                    self.queue(Kind::Activity, &queue).offer(number);
                }
            }
            _ => {}
        }
    }

    /// False: stale.
    pub(super) fn complete_activity(&mut self, token: &[u8], result: Option<Payloads>) -> bool {
        let Some((number, _)) = parse(token) else { return false };
        let Some(run) = self.runs.get_mut(number).filter(|run| !run.closed) else { return false };
        run.push(Attributes::ActivityTaskStartedEventAttributes(Default::default()));
        let completed = ActivityTaskCompletedEventAttributes { result, ..Default::default() };
        run.push(Attributes::ActivityTaskCompletedEventAttributes(completed));
        if run.slot == Slot::Idle {
            self.schedule(number, true);
        }
        true
    }

    /// False: no such open workflow.
    pub(super) fn signal(&mut self, request: SignalWorkflowExecutionRequest) -> bool {
        let id = request.workflow_execution.unwrap_or_default().workflow_id;
        let Some(number) = self.find(&id).filter(|&number| !self.runs[number].closed) else { return false };
        self.signals += 1;
        let times = match self.mischief {
            Mischief::LoseSignal(n) if n == self.signals => 0,
            Mischief::DoubleSignal(n) if n == self.signals => 2,
            _ => 1,
        };
        for _ in 0..times {
            let signaled = WorkflowExecutionSignaledEventAttributes {
                signal_name: request.signal_name.clone(),
                input: request.input.clone(),
                ..Default::default()
            };
            let attributes = Attributes::WorkflowExecutionSignaledEventAttributes(signaled);
            let run = &mut self.runs[number];
            match run.slot {
                Slot::Started(_) => run.buffered.push(attributes),
                Slot::Scheduled => {
                    run.push(attributes);
                }
                Slot::Idle => {
                    run.push(attributes);
                    self.schedule(number, true);
                }
            }
        }
        true
    }
}

/// A token names the run and the started event.
pub(super) fn token(number: usize, started: i64) -> Bytes {
    format!("{number}/{started}").into_bytes().into()
}

fn parse(token: &[u8]) -> Option<(usize, i64)> {
    let (number, started) = std::str::from_utf8(token).ok()?.split_once('/')?;
    Some((number.parse().ok()?, started.parse().ok()?))
}
