//! The stub's gRPC surface: the calls of the generator, nothing else; the others answer UNIMPLEMENTED.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use antipode_proto::api::{
    enums::v1::WorkflowExecutionStatus,
    history::v1::History,
    workflow::v1::WorkflowExecutionInfo,
    workflowservice::v1::{
        DescribeNamespaceRequest, DescribeNamespaceResponse, DescribeWorkflowExecutionRequest,
        DescribeWorkflowExecutionResponse, GetSystemInfoRequest, GetSystemInfoResponse,
        GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse,
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, PollWorkflowTaskQueueRequest,
        PollWorkflowTaskQueueResponse, RespondActivityTaskCompletedRequest,
        RespondActivityTaskCompletedResponse, RespondWorkflowTaskCompletedRequest,
        RespondWorkflowTaskCompletedResponse, SignalWorkflowExecutionRequest,
        SignalWorkflowExecutionResponse, StartWorkflowExecutionRequest, StartWorkflowExecutionResponse,
        workflow_service_server::{WorkflowService, WorkflowServiceServer},
    },
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{
    Mischief,
    state::{Kind, State, token},
};
use crate::api::execution;

/// Events of a page, as the real server has it.
const PAGE: usize = 256;
/// Longest wait of a poll.
const POLL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Stub {
    state: Arc<Mutex<State>>,
}

/// Serves until the task is dropped.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, mischief: Mischief) -> Result<(), tonic::transport::Error> {
    let stub = Stub { state: Arc::new(Mutex::new(State::new(mischief))) };
    // Without it, small answers wait for the client's delayed acknowledgement: 40 ms. The builder's own setting does not
    // reach sockets that are handed in.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(WorkflowServiceServer::new(stub)).serve_with_incoming(incoming).await
}

impl Stub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn task(&self, kind: Kind, queue: &str) -> Option<usize> {
        let polled = self.lock().poll(kind, queue);
        match polled {
            Ok(task) => Some(task),
            Err(receiver) => tokio::time::timeout(POLL, receiver).await.ok().and_then(Result::ok),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkflowService for Stub {
    async fn get_system_info(&self, _: Request<GetSystemInfoRequest>) -> Answer<GetSystemInfoResponse> {
        let server_version = "stub".to_string();
        Ok(Response::new(GetSystemInfoResponse { server_version, ..Default::default() }))
    }

    async fn describe_namespace(
        &self,
        _: Request<DescribeNamespaceRequest>,
    ) -> Answer<DescribeNamespaceResponse> {
        Ok(Response::new(DescribeNamespaceResponse::default()))
    }

    async fn start_workflow_execution(
        &self,
        request: Request<StartWorkflowExecutionRequest>,
    ) -> Answer<StartWorkflowExecutionResponse> {
        let run_id = self.lock().start(request.into_inner());
        Ok(Response::new(StartWorkflowExecutionResponse { run_id, started: true, ..Default::default() }))
    }

    async fn signal_workflow_execution(
        &self,
        request: Request<SignalWorkflowExecutionRequest>,
    ) -> Answer<SignalWorkflowExecutionResponse> {
        if self.lock().signal(request.into_inner()) {
            Ok(Response::new(SignalWorkflowExecutionResponse::default()))
        } else {
            Err(Status::not_found("workflow not found"))
        }
    }

    async fn poll_workflow_task_queue(
        &self,
        request: Request<PollWorkflowTaskQueueRequest>,
    ) -> Answer<PollWorkflowTaskQueueResponse> {
        let queue = request.into_inner().task_queue.unwrap_or_default().name;
        let Some(number) = self.task(Kind::Workflow, &queue).await else {
            return Ok(Response::new(PollWorkflowTaskQueueResponse::default()));
        };
        let mut state = self.lock();
        let (task_token, from) = state.start_workflow_task(number);
        let run = &state.runs[number];
        let until = run.events.len().min(from + PAGE);
        Ok(Response::new(PollWorkflowTaskQueueResponse {
            task_token,
            workflow_execution: Some(execution(&run.workflow_id, &run.run_id)),
            attempt: 1,
            history: Some(History { events: run.events[from..until].to_vec() }),
            ..Default::default()
        }))
    }

    async fn respond_workflow_task_completed(
        &self,
        request: Request<RespondWorkflowTaskCompletedRequest>,
    ) -> Answer<RespondWorkflowTaskCompletedResponse> {
        let request = request.into_inner();
        let sticky =
            request.sticky_attributes.and_then(|sticky| sticky.worker_task_queue).map(|queue| queue.name);
        if self.lock().complete_workflow_task(&request.task_token, request.commands, sticky) {
            Ok(Response::new(RespondWorkflowTaskCompletedResponse::default()))
        } else {
            Err(Status::not_found("Workflow task not found."))
        }
    }

    async fn poll_activity_task_queue(
        &self,
        request: Request<PollActivityTaskQueueRequest>,
    ) -> Answer<PollActivityTaskQueueResponse> {
        let queue = request.into_inner().task_queue.unwrap_or_default().name;
        let Some(number) = self.task(Kind::Activity, &queue).await else {
            return Ok(Response::new(PollActivityTaskQueueResponse::default()));
        };
        let state = self.lock();
        let run = &state.runs[number];
        Ok(Response::new(PollActivityTaskQueueResponse {
            task_token: token(number, 0),
            workflow_execution: Some(execution(&run.workflow_id, &run.run_id)),
            attempt: 1,
            input: run.activity_input(),
            ..Default::default()
        }))
    }

    async fn respond_activity_task_completed(
        &self,
        request: Request<RespondActivityTaskCompletedRequest>,
    ) -> Answer<RespondActivityTaskCompletedResponse> {
        let request = request.into_inner();
        if self.lock().complete_activity(&request.task_token, request.result) {
            Ok(Response::new(RespondActivityTaskCompletedResponse::default()))
        } else {
            Err(Status::not_found("invalid activityID or activity already timed out"))
        }
    }

    async fn get_workflow_execution_history(
        &self,
        request: Request<GetWorkflowExecutionHistoryRequest>,
    ) -> Answer<GetWorkflowExecutionHistoryResponse> {
        let request = request.into_inner();
        let id = request.execution.unwrap_or_default().workflow_id;
        let from: usize = std::str::from_utf8(&request.next_page_token)
            .ok()
            .and_then(|from| from.parse().ok())
            .unwrap_or(0);
        let state = self.lock();
        let number = state.find(&id).ok_or_else(|| Status::not_found("workflow not found"))?;
        let events = &state.runs[number].events;
        let until = events.len().min(from + PAGE);
        let more = if until < events.len() { until.to_string() } else { String::new() };
        Ok(Response::new(GetWorkflowExecutionHistoryResponse {
            history: Some(History { events: events[from.min(until)..until].to_vec() }),
            next_page_token: more.into_bytes().into(),
            ..Default::default()
        }))
    }

    async fn describe_workflow_execution(
        &self,
        request: Request<DescribeWorkflowExecutionRequest>,
    ) -> Answer<DescribeWorkflowExecutionResponse> {
        let id = request.into_inner().execution.unwrap_or_default().workflow_id;
        let state = self.lock();
        let number = state.find(&id).ok_or_else(|| Status::not_found("workflow not found"))?;
        let run = &state.runs[number];
        let status =
            if run.closed { WorkflowExecutionStatus::Completed } else { WorkflowExecutionStatus::Running };
        let info = WorkflowExecutionInfo {
            status: status.into(),
            history_length: run.events.len() as i64,
            ..WorkflowExecutionInfo::default()
        };
        Ok(Response::new(DescribeWorkflowExecutionResponse {
            workflow_execution_info: Some(info),
            ..Default::default()
        }))
    }
}
