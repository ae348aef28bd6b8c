//! The worker's half of the generator: long polls, and what a worker of these workflows would answer. What to answer is
//! decided by a pure function over the events of the task.

use std::{sync::Arc, time::Duration};

use antipode_proto::api::{
    command::v1::Command,
    common::v1::Payloads,
    history::v1::{HistoryEvent, history_event::Attributes},
    workflowservice::v1::{
        PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse, RespondActivityTaskCompletedRequest,
        RespondWorkflowTaskCompletedRequest,
    },
};
use tokio::task::JoinSet;

use crate::{
    api::{CALL_DEADLINE, Client, within},
    case::Shape,
    clock,
    errors::persistent,
    load::Bench,
    requests::{FINISH, IDENTITY, complete_workflow, number_in},
};

/// Deadline of a poll, as the SDKs set it.
const POLL_DEADLINE: Duration = Duration::from_secs(70);
/// Pause after a refused poll.
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// Which workflow a task belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The nth operation.
    Workflow(usize),
    /// The nth workflow that takes signals.
    Lane(usize),
}

impl Subject {
    fn of(prefix: &str, workflow_id: &str) -> Option<Self> {
        let rest = workflow_id.strip_prefix(prefix)?.strip_prefix('-')?;
        let number = rest.get(1..)?.parse().ok()?;
        match rest.as_bytes().first()? {
            b'w' => Some(Self::Workflow(number)),
            b'l' => Some(Self::Lane(number)),
            _ => None,
        }
    }
}

/// What a worker answers to a workflow task.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Nothing to do yet.
    Wait,
    /// Run the activity with this input.
    Activity(Option<Payloads>),
    /// End the workflow with this result.
    Complete(Option<Payloads>),
}

/// Pure: events seen, answer given.
fn decide(shape: Shape, events: &[HistoryEvent]) -> Decision {
    let attributes = || events.iter().filter_map(|event| event.attributes.as_ref());
    let input = attributes().find_map(|attributes| match attributes {
        Attributes::WorkflowExecutionStartedEventAttributes(started) => Some(started.input.clone()),
        _ => None,
    });
    match shape {
        Shape::Start | Shape::Echo => input.map_or(Decision::Wait, Decision::Complete),
        Shape::Activity => {
            let result = attributes().find_map(|attributes| match attributes {
                Attributes::ActivityTaskCompletedEventAttributes(completed) => Some(completed.result.clone()),
                _ => None,
            });
            match (result, input) {
                (Some(result), _) => Decision::Complete(result),
                (None, Some(input)) => Decision::Activity(input),
                (None, None) => Decision::Wait,
            }
        }
        Shape::Signal | Shape::Fanin => {
            let finished = attributes().any(|attributes| match attributes {
                Attributes::WorkflowExecutionSignaledEventAttributes(signal) => signal.signal_name == FINISH,
                _ => false,
            });
            if finished { Decision::Complete(None) } else { Decision::Wait }
        }
    }
}

/// Starts the pollers. They end when the set is dropped.
#[must_use]
pub fn spawn(bench: &Arc<Bench>) -> JoinSet<()> {
    let mut pollers = JoinSet::new();
    let settings = &bench.settings;
    for user in 0..settings.workflow_pollers {
        pollers.spawn(poll_workflows(bench.clone(), user, false));
    }
    if bench.sticky() {
        for user in 0..settings.sticky_pollers {
            pollers.spawn(poll_workflows(bench.clone(), user, true));
        }
    }
    if bench.case.shape.activity_tasks() > 0 {
        for user in 0..settings.activity_pollers {
            pollers.spawn(poll_activities(bench.clone(), user));
        }
    }
    pollers
}

async fn poll_workflows(bench: Arc<Bench>, user: usize, sticky: bool) {
    let mut client = bench.api.client(user);
    let request = bench.names.poll_workflow(sticky);
    loop {
        match client.poll_workflow_task_queue(within(POLL_DEADLINE, request.clone())).await {
            Ok(task) if task.get_ref().task_token.is_empty() => {}
            Ok(task) => {
                tokio::spawn(answer_workflow_task(bench.clone(), client.clone(), task.into_inner()));
            }
            Err(status) => {
                bench.errors.count("PollWorkflowTaskQueue", &status);
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
    }
}

async fn answer_workflow_task(bench: Arc<Bench>, client: Client, task: PollWorkflowTaskQueueResponse) {
    let workflow_id = task.workflow_execution.as_ref().map_or("", |run| run.workflow_id.as_str());
    let Some(subject) = Subject::of(&bench.names.prefix, workflow_id) else {
        bench.foreign(workflow_id);
        return;
    };
    let events = task.history.as_ref().map_or(&[][..], |history| &history.events);
    let mut decision = decide(bench.case.shape, events);
    match subject {
        Subject::Workflow(number) => bench.ledger.workflow_task(number, task.attempt),
        Subject::Lane(lane) if bench.lanes.finishing(lane) => decision = Decision::Complete(None),
        Subject::Lane(_) => {}
    }
    let closes = matches!(decision, Decision::Complete(_));
    let commands: Vec<Command> = match decision {
        Decision::Wait => Vec::new(),
        Decision::Activity(input) => vec![bench.names.schedule_activity(input)],
        Decision::Complete(result) => vec![complete_workflow(result)],
    };
    let request = RespondWorkflowTaskCompletedRequest {
        namespace: bench.names.namespace.clone(),
        task_token: task.task_token,
        commands,
        identity: IDENTITY.to_string(),
        sticky_attributes: bench.sticky().then(|| bench.names.sticky_attributes()),
        ..RespondWorkflowTaskCompletedRequest::default()
    };
    let respond = || {
        let mut client = client.clone();
        let request = within(CALL_DEADLINE, request.clone());
        async move { client.respond_workflow_task_completed(request).await }
    };
    let answered = persistent(&bench.errors, "RespondWorkflowTaskCompleted", respond).await.is_ok();
    if answered && closes {
        match subject {
            Subject::Workflow(number) => bench.ledger.closed(number, clock::now()),
            Subject::Lane(lane) => bench.lanes.closed(lane),
        }
    }
}

async fn poll_activities(bench: Arc<Bench>, user: usize) {
    let mut client = bench.api.client(user);
    let request = bench.names.poll_activity();
    loop {
        match client.poll_activity_task_queue(within(POLL_DEADLINE, request.clone())).await {
            Ok(task) if task.get_ref().task_token.is_empty() => {}
            Ok(task) => {
                tokio::spawn(answer_activity_task(bench.clone(), client.clone(), task.into_inner()));
            }
            Err(status) => {
                bench.errors.count("PollActivityTaskQueue", &status);
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
    }
}

async fn answer_activity_task(bench: Arc<Bench>, client: Client, task: PollActivityTaskQueueResponse) {
    match number_in(task.input.as_ref()) {
        Some(number) => bench.ledger.activity_task(number, task.attempt),
        None => bench.foreign("an activity whose input has no number"),
    }
    let request = RespondActivityTaskCompletedRequest {
        namespace: bench.names.namespace.clone(),
        task_token: task.task_token,
        result: task.input,
        identity: IDENTITY.to_string(),
        ..RespondActivityTaskCompletedRequest::default()
    };
    let respond = || {
        let mut client = client.clone();
        let request = within(CALL_DEADLINE, request.clone());
        async move { client.respond_activity_task_completed(request).await }
    };
    // A refusal is counted; whether the workflow suffered is for the ledger to say.
    let _refused = persistent(&bench.errors, "RespondActivityTaskCompleted", respond).await;
}

#[cfg(test)]
mod tests {
    use antipode_proto::api::history::v1::{
        ActivityTaskCompletedEventAttributes, WorkflowExecutionSignaledEventAttributes,
        WorkflowExecutionStartedEventAttributes,
    };

    use super::*;
    use crate::requests::Names;

    fn event(attributes: Attributes) -> HistoryEvent {
        HistoryEvent { attributes: Some(attributes), ..HistoryEvent::default() }
    }

    #[test]
    fn a_workflow_id_tells_its_operation_and_nothing_else_does() {
        assert_eq!(Subject::of("p", "p-w12"), Some(Subject::Workflow(12)));
        assert_eq!(Subject::of("p", "p-l0"), Some(Subject::Lane(0)));
        for foreign in ["", "p", "p-", "p-w", "p-x1", "q-w1", "p1-w1", "p-w-1"] {
            assert_eq!(Subject::of("p", foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_activity_is_scheduled_once_and_its_result_ends_the_workflow() {
        let payload = Some(Names::new("p", "n", 100).payload(7));
        let started =
            WorkflowExecutionStartedEventAttributes { input: payload.clone(), ..Default::default() };
        let started = event(Attributes::WorkflowExecutionStartedEventAttributes(Box::new(started)));
        let completed =
            event(Attributes::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
                result: payload.clone(),
                ..Default::default()
            }));
        let first = std::slice::from_ref(&started);
        assert_eq!(decide(Shape::Activity, first), Decision::Activity(payload.clone()));
        let partial = std::slice::from_ref(&completed);
        assert_eq!(decide(Shape::Activity, partial), Decision::Complete(payload.clone()));
        assert_eq!(decide(Shape::Activity, &[started, completed]), Decision::Complete(payload));
        assert_eq!(decide(Shape::Activity, &[]), Decision::Wait);
    }

    #[test]
    fn only_the_finishing_signal_ends_a_workflow_that_takes_signals() {
        let signal = |name: &str| {
            let attributes = WorkflowExecutionSignaledEventAttributes {
                signal_name: name.to_string(),
                ..Default::default()
            };
            event(Attributes::WorkflowExecutionSignaledEventAttributes(attributes))
        };
        assert_eq!(decide(Shape::Signal, &[signal("load")]), Decision::Wait);
        assert_eq!(decide(Shape::Signal, &[signal("load"), signal(FINISH)]), Decision::Complete(None));
    }
}
