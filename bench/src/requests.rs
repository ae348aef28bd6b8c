//! The requests of the generator, built from numbers: pure, so that a retry builds the same bytes again.

use antipode_proto::api::{
    command::v1::{
        Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes, command,
    },
    common::v1::{ActivityType, Payload, Payloads, WorkflowType},
    enums::v1::{CommandType, TaskQueueKind},
    taskqueue::v1::{StickyExecutionAttributes, TaskQueue},
    workflowservice::v1::{
        PollActivityTaskQueueRequest, PollWorkflowTaskQueueRequest, SignalWorkflowExecutionRequest,
        StartWorkflowExecutionRequest,
    },
};
use bytes::Bytes;

use crate::api::execution;

/// Signal that is counted.
pub const SIGNAL: &str = "load";
/// Signal that ends the workflow; it may be sent more than once.
pub const FINISH: &str = "finish";
/// Identity of client and worker.
pub const IDENTITY: &str = "antipode-bench";

/// Names that all requests of a run share.
#[derive(Clone, Debug)]
pub struct Names {
    /// Of the run; no other run uses it.
    pub prefix: String,
    /// Namespace.
    pub namespace: String,
    /// Task queue of the workflows and activities.
    pub queue: String,
    /// Queue on which the worker gets workflows that it has cached.
    pub sticky_queue: String,
    /// Bytes of each payload's data.
    pub payload_bytes: usize,
}

/// A whole number of seconds.
#[must_use]
pub fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

impl Names {
    /// Names for a run.
    #[must_use]
    pub fn new(prefix: &str, namespace: &str, payload_bytes: usize) -> Self {
        Self {
            prefix: prefix.to_string(),
            namespace: namespace.to_string(),
            queue: format!("{prefix}-queue"),
            sticky_queue: format!("{prefix}-sticky"),
            payload_bytes,
        }
    }

    /// Id of the nth workflow.
    #[must_use]
    pub fn workflow_id(&self, number: usize) -> String {
        format!("{}-w{number}", self.prefix)
    }

    /// Id of the nth workflow that takes signals.
    #[must_use]
    pub fn lane_id(&self, number: usize) -> String {
        format!("{}-l{number}", self.prefix)
    }

    /// A payload that no other operation of the run has: its number, then filler.
    #[must_use]
    pub fn payload(&self, number: usize) -> Payloads {
        let mut data = format!("{number:020}").into_bytes();
        data.resize(self.payload_bytes.max(data.len()), b'.');
        let metadata = [("encoding".to_string(), Bytes::from_static(b"binary/plain"))].into();
        Payloads { payloads: vec![Payload { metadata, data: data.into(), ..Payload::default() }] }
    }

    /// The ordinary queue.
    #[must_use]
    pub fn task_queue(&self) -> TaskQueue {
        TaskQueue { name: self.queue.clone(), ..TaskQueue::default() }
    }

    fn sticky_task_queue(&self) -> TaskQueue {
        TaskQueue {
            name: self.sticky_queue.clone(),
            kind: TaskQueueKind::Sticky.into(),
            normal_name: self.queue.clone(),
        }
    }

    /// StartWorkflowExecution.
    #[must_use]
    pub fn start(&self, workflow_id: String, number: usize) -> StartWorkflowExecutionRequest {
        StartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            request_id: format!("{workflow_id}-start"),
            workflow_id,
            workflow_type: Some(WorkflowType { name: "bench".to_string() }),
            task_queue: Some(self.task_queue()),
            input: Some(self.payload(number)),
            workflow_task_timeout: Some(seconds(10)),
            identity: IDENTITY.to_string(),
            ..StartWorkflowExecutionRequest::default()
        }
    }

    /// SignalWorkflowExecution with the nth payload.
    #[must_use]
    pub fn signal(&self, workflow_id: &str, name: &str, number: usize) -> SignalWorkflowExecutionRequest {
        SignalWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Some(execution(workflow_id, "")),
            signal_name: name.to_string(),
            input: Some(self.payload(number)),
            identity: IDENTITY.to_string(),
            request_id: format!("{workflow_id}-{name}-{number}"),
            ..SignalWorkflowExecutionRequest::default()
        }
    }

    /// PollWorkflowTaskQueue.
    #[must_use]
    pub fn poll_workflow(&self, sticky: bool) -> PollWorkflowTaskQueueRequest {
        PollWorkflowTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(if sticky { self.sticky_task_queue() } else { self.task_queue() }),
            identity: IDENTITY.to_string(),
            ..PollWorkflowTaskQueueRequest::default()
        }
    }

    /// PollActivityTaskQueue.
    #[must_use]
    pub fn poll_activity(&self) -> PollActivityTaskQueueRequest {
        PollActivityTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(self.task_queue()),
            identity: IDENTITY.to_string(),
            ..PollActivityTaskQueueRequest::default()
        }
    }

    /// What a caching worker says with each completion.
    #[must_use]
    pub fn sticky_attributes(&self) -> StickyExecutionAttributes {
        StickyExecutionAttributes {
            worker_task_queue: Some(self.sticky_task_queue()),
            schedule_to_start_timeout: Some(seconds(10)),
        }
    }

    /// Command: run the activity with this input.
    #[must_use]
    pub fn schedule_activity(&self, input: Option<Payloads>) -> Command {
        let attributes = ScheduleActivityTaskCommandAttributes {
            activity_id: "1".to_string(),
            activity_type: Some(ActivityType { name: "bench".to_string() }),
            task_queue: Some(self.task_queue()),
            input,
            schedule_to_close_timeout: Some(seconds(60)),
            start_to_close_timeout: Some(seconds(30)),
            ..ScheduleActivityTaskCommandAttributes::default()
        };
        Command {
            command_type: CommandType::ScheduleActivityTask.into(),
            attributes: Some(command::Attributes::ScheduleActivityTaskCommandAttributes(attributes)),
            ..Command::default()
        }
    }
}

/// Command: end the workflow with this result.
#[must_use]
pub fn complete_workflow(result: Option<Payloads>) -> Command {
    let attributes = CompleteWorkflowExecutionCommandAttributes { result };
    Command {
        command_type: CommandType::CompleteWorkflowExecution.into(),
        attributes: Some(command::Attributes::CompleteWorkflowExecutionCommandAttributes(attributes)),
        ..Command::default()
    }
}

/// The number in a payload made by [`Names::payload`].
#[must_use]
pub fn number_in(payloads: Option<&Payloads>) -> Option<usize> {
    let data = &payloads?.payloads.first()?.data;
    std::str::from_utf8(data.get(..20)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_asked_size_and_gives_its_number_back() {
        let names = Names::new("p", "default", 100);
        let payload = names.payload(4711);
        assert_eq!(payload.payloads[0].data.len(), 100);
        assert_eq!(number_in(Some(&payload)), Some(4711));
        assert_eq!(number_in(Some(&Payloads::default())), None);
        assert_eq!(number_in(None), None);
    }

    #[test]
    fn a_retry_is_the_same_request() {
        let names = Names::new("p", "default", 100);
        assert_eq!(names.start(names.workflow_id(3), 3), names.start(names.workflow_id(3), 3));
        assert_ne!(names.start(names.workflow_id(3), 3), names.start(names.workflow_id(4), 4));
    }
}
