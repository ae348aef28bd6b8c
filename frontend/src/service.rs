//! The public services: one table of RPCs, from which come the gRPC methods and what another region may forward here. An RPC
//! that is not in the table answers UNIMPLEMENTED with its name (see `observe`).

use std::sync::Arc;

use antipode_proto::{
    api::{operatorservice::v1 as os, workflowservice::v1 as ws},
    link::{ForwardRequest, ForwardResponse},
    temporal::api::{
        operatorservice::v1::operator_service_server::OperatorService,
        workflowservice::v1::workflow_service_server::WorkflowService,
    },
};
use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::{
    activity_by_id, activity_task, call::Call, clients, context::Context, execution, history, metrics::Rpc,
    namespaces, operator, query, start, system, task_queue, visibility, workflow_task,
};

/// The public API of one region. Cheap to clone.
#[derive(Clone)]
pub struct Frontend {
    context: Arc<Context>,
}

impl Frontend {
    /// Over what it is given.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// What it was given.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Serves a call that another region sent on: the same checks, the same shard, no second hop (R905).
    pub async fn serve_forwarded(&self, request: ForwardRequest) -> ForwardResponse {
        match self.dispatch_forwarded(request).await {
            Ok(message) => ForwardResponse { message, ..ForwardResponse::default() },
            Err(status) => ForwardResponse {
                code: status.code() as i32,
                error: status.message().to_string(),
                details: Bytes::copy_from_slice(status.details()),
                message: Bytes::new(),
            },
        }
    }

    async fn dispatch_forwarded(&self, request: ForwardRequest) -> Result<Bytes, Status> {
        let Some(name) = request.method.strip_prefix(WORKFLOW_PREFIX) else {
            return Err(Status::unimplemented(format!("{} is not forwarded", request.method)));
        };
        forwarded(self, name, &request).await
    }
}

const WORKFLOW_PREFIX: &str = "/temporal.api.workflowservice.v1.WorkflowService/";

fn decode<M: Message + Default>(request: &ForwardRequest) -> Result<M, Status> {
    M::decode(request.message.clone())
        .map_err(|error| Status::new(Code::InvalidArgument, format!("{}: {error}", request.method)))
}

/// The RPCs of a service: method, short name, request, response, function.
macro_rules! service {
    (
        $service:ident, $prefix:literal, $messages:ident;
        $( $method:ident, $name:literal, $request:ident => $response:ident, $function:path; )*
    ) => {
        #[tonic::async_trait]
        impl $service for Frontend {
            $(
                async fn $method(
                    &self,
                    request: tonic::Request<$messages::$request>,
                ) -> Result<tonic::Response<$messages::$response>, Status> {
                    clients::check(request.metadata())?;
                    let call = Call::from_metadata($name, concat!($prefix, $name), request.metadata());
                    let answer = call.bounded($function(&self.context, &call, request.into_inner())).await;
                    answer.map(tonic::Response::new)
                }
            )*
        }
    };
}

/// What another region may send on: decodes, serves, encodes.
macro_rules! forwardable {
    ( $prefix:literal, $messages:ident; $( $name:literal, $request:ident, $function:path; )* ) => {
        async fn forwarded(frontend: &Frontend, name: &str, request: &ForwardRequest) -> Result<Bytes, Status> {
            match name {
                $(
                    $name => {
                        let metadata = request.metadata.clone();
                        let call = Call::from_peer($name, concat!($prefix, $name), request.timeout_nanos, metadata);
                        let served = &frontend.context.metrics.served_forwarded;
                        served.get_or_create(&Rpc { method: $name.to_string() }).inc();
                        let message: $messages::$request = decode(request)?;
                        // Boxed: otherwise every arm's future would lie inside this one.
                        let answer = Box::pin(call.bounded($function(&frontend.context, &call, message))).await?;
                        Ok(Bytes::from(answer.encode_to_vec()))
                    }
                )*
                _ => Err(Status::unimplemented(format!("{name} is not forwarded"))),
            }
        }
    };
}

service! {
    WorkflowService, "/temporal.api.workflowservice.v1.WorkflowService/", ws;
    get_system_info, "GetSystemInfo", GetSystemInfoRequest => GetSystemInfoResponse, system::get_system_info;
    get_cluster_info, "GetClusterInfo", GetClusterInfoRequest => GetClusterInfoResponse, system::get_cluster_info;
    register_namespace, "RegisterNamespace", RegisterNamespaceRequest => RegisterNamespaceResponse, namespaces::register_namespace;
    describe_namespace, "DescribeNamespace", DescribeNamespaceRequest => DescribeNamespaceResponse, namespaces::describe_namespace;
    list_namespaces, "ListNamespaces", ListNamespacesRequest => ListNamespacesResponse, namespaces::list_namespaces;
    update_namespace, "UpdateNamespace", UpdateNamespaceRequest => UpdateNamespaceResponse, namespaces::update_namespace;
    start_workflow_execution, "StartWorkflowExecution", StartWorkflowExecutionRequest => StartWorkflowExecutionResponse, start::start_workflow_execution;
    signal_with_start_workflow_execution, "SignalWithStartWorkflowExecution", SignalWithStartWorkflowExecutionRequest => SignalWithStartWorkflowExecutionResponse, start::signal_with_start_workflow_execution;
    signal_workflow_execution, "SignalWorkflowExecution", SignalWorkflowExecutionRequest => SignalWorkflowExecutionResponse, execution::signal_workflow_execution;
    request_cancel_workflow_execution, "RequestCancelWorkflowExecution", RequestCancelWorkflowExecutionRequest => RequestCancelWorkflowExecutionResponse, execution::request_cancel_workflow_execution;
    terminate_workflow_execution, "TerminateWorkflowExecution", TerminateWorkflowExecutionRequest => TerminateWorkflowExecutionResponse, execution::terminate_workflow_execution;
    describe_workflow_execution, "DescribeWorkflowExecution", DescribeWorkflowExecutionRequest => DescribeWorkflowExecutionResponse, execution::describe_workflow_execution;
    get_workflow_execution_history, "GetWorkflowExecutionHistory", GetWorkflowExecutionHistoryRequest => GetWorkflowExecutionHistoryResponse, history::get_workflow_execution_history;
    get_workflow_execution_history_reverse, "GetWorkflowExecutionHistoryReverse", GetWorkflowExecutionHistoryReverseRequest => GetWorkflowExecutionHistoryReverseResponse, history::get_workflow_execution_history_reverse;
    list_workflow_executions, "ListWorkflowExecutions", ListWorkflowExecutionsRequest => ListWorkflowExecutionsResponse, visibility::list_workflow_executions;
    scan_workflow_executions, "ScanWorkflowExecutions", ScanWorkflowExecutionsRequest => ScanWorkflowExecutionsResponse, visibility::scan_workflow_executions;
    count_workflow_executions, "CountWorkflowExecutions", CountWorkflowExecutionsRequest => CountWorkflowExecutionsResponse, visibility::count_workflow_executions;
    list_open_workflow_executions, "ListOpenWorkflowExecutions", ListOpenWorkflowExecutionsRequest => ListOpenWorkflowExecutionsResponse, visibility::list_open_workflow_executions;
    list_closed_workflow_executions, "ListClosedWorkflowExecutions", ListClosedWorkflowExecutionsRequest => ListClosedWorkflowExecutionsResponse, visibility::list_closed_workflow_executions;
    get_search_attributes, "GetSearchAttributes", GetSearchAttributesRequest => GetSearchAttributesResponse, visibility::get_search_attributes;
    poll_workflow_task_queue, "PollWorkflowTaskQueue", PollWorkflowTaskQueueRequest => PollWorkflowTaskQueueResponse, workflow_task::poll_workflow_task_queue;
    respond_workflow_task_completed, "RespondWorkflowTaskCompleted", RespondWorkflowTaskCompletedRequest => RespondWorkflowTaskCompletedResponse, workflow_task::respond_workflow_task_completed;
    respond_workflow_task_failed, "RespondWorkflowTaskFailed", RespondWorkflowTaskFailedRequest => RespondWorkflowTaskFailedResponse, workflow_task::respond_workflow_task_failed;
    poll_activity_task_queue, "PollActivityTaskQueue", PollActivityTaskQueueRequest => PollActivityTaskQueueResponse, activity_task::poll_activity_task_queue;
    respond_activity_task_completed, "RespondActivityTaskCompleted", RespondActivityTaskCompletedRequest => RespondActivityTaskCompletedResponse, activity_task::respond_activity_task_completed;
    respond_activity_task_failed, "RespondActivityTaskFailed", RespondActivityTaskFailedRequest => RespondActivityTaskFailedResponse, activity_task::respond_activity_task_failed;
    respond_activity_task_canceled, "RespondActivityTaskCanceled", RespondActivityTaskCanceledRequest => RespondActivityTaskCanceledResponse, activity_task::respond_activity_task_canceled;
    record_activity_task_heartbeat, "RecordActivityTaskHeartbeat", RecordActivityTaskHeartbeatRequest => RecordActivityTaskHeartbeatResponse, activity_task::record_activity_task_heartbeat;
    respond_activity_task_completed_by_id, "RespondActivityTaskCompletedById", RespondActivityTaskCompletedByIdRequest => RespondActivityTaskCompletedByIdResponse, activity_by_id::respond_activity_task_completed_by_id;
    respond_activity_task_failed_by_id, "RespondActivityTaskFailedById", RespondActivityTaskFailedByIdRequest => RespondActivityTaskFailedByIdResponse, activity_by_id::respond_activity_task_failed_by_id;
    respond_activity_task_canceled_by_id, "RespondActivityTaskCanceledById", RespondActivityTaskCanceledByIdRequest => RespondActivityTaskCanceledByIdResponse, activity_by_id::respond_activity_task_canceled_by_id;
    record_activity_task_heartbeat_by_id, "RecordActivityTaskHeartbeatById", RecordActivityTaskHeartbeatByIdRequest => RecordActivityTaskHeartbeatByIdResponse, activity_by_id::record_activity_task_heartbeat_by_id;
    query_workflow, "QueryWorkflow", QueryWorkflowRequest => QueryWorkflowResponse, query::query_workflow;
    respond_query_task_completed, "RespondQueryTaskCompleted", RespondQueryTaskCompletedRequest => RespondQueryTaskCompletedResponse, query::respond_query_task_completed;
    reset_sticky_task_queue, "ResetStickyTaskQueue", ResetStickyTaskQueueRequest => ResetStickyTaskQueueResponse, execution::reset_sticky_task_queue;
    shutdown_worker, "ShutdownWorker", ShutdownWorkerRequest => ShutdownWorkerResponse, task_queue::shutdown_worker;
    describe_task_queue, "DescribeTaskQueue", DescribeTaskQueueRequest => DescribeTaskQueueResponse, task_queue::describe_task_queue;
}

service! {
    OperatorService, "/temporal.api.operatorservice.v1.OperatorService/", os;
    list_clusters, "ListClusters", ListClustersRequest => ListClustersResponse, operator::list_clusters;
    add_or_update_remote_cluster, "AddOrUpdateRemoteCluster", AddOrUpdateRemoteClusterRequest => AddOrUpdateRemoteClusterResponse, operator::add_or_update_remote_cluster;
    remove_remote_cluster, "RemoveRemoteCluster", RemoveRemoteClusterRequest => RemoveRemoteClusterResponse, operator::remove_remote_cluster;
    list_search_attributes, "ListSearchAttributes", ListSearchAttributesRequest => ListSearchAttributesResponse, operator::list_search_attributes;
}

forwardable! {
    "/temporal.api.workflowservice.v1.WorkflowService/", ws;
    "StartWorkflowExecution", StartWorkflowExecutionRequest, start::start_workflow_execution;
    "SignalWithStartWorkflowExecution", SignalWithStartWorkflowExecutionRequest, start::signal_with_start_workflow_execution;
    "SignalWorkflowExecution", SignalWorkflowExecutionRequest, execution::signal_workflow_execution;
    "RequestCancelWorkflowExecution", RequestCancelWorkflowExecutionRequest, execution::request_cancel_workflow_execution;
    "TerminateWorkflowExecution", TerminateWorkflowExecutionRequest, execution::terminate_workflow_execution;
    "QueryWorkflow", QueryWorkflowRequest, query::query_workflow;
    "RespondWorkflowTaskCompleted", RespondWorkflowTaskCompletedRequest, workflow_task::respond_workflow_task_completed;
    "RespondWorkflowTaskFailed", RespondWorkflowTaskFailedRequest, workflow_task::respond_workflow_task_failed;
    "RespondActivityTaskCompleted", RespondActivityTaskCompletedRequest, activity_task::respond_activity_task_completed;
    "RespondActivityTaskFailed", RespondActivityTaskFailedRequest, activity_task::respond_activity_task_failed;
    "RespondActivityTaskCanceled", RespondActivityTaskCanceledRequest, activity_task::respond_activity_task_canceled;
    "RecordActivityTaskHeartbeat", RecordActivityTaskHeartbeatRequest, activity_task::record_activity_task_heartbeat;
    "RespondActivityTaskCompletedById", RespondActivityTaskCompletedByIdRequest, activity_by_id::respond_activity_task_completed_by_id;
    "RespondActivityTaskFailedById", RespondActivityTaskFailedByIdRequest, activity_by_id::respond_activity_task_failed_by_id;
    "RespondActivityTaskCanceledById", RespondActivityTaskCanceledByIdRequest, activity_by_id::respond_activity_task_canceled_by_id;
    "RecordActivityTaskHeartbeatById", RecordActivityTaskHeartbeatByIdRequest, activity_by_id::record_activity_task_heartbeat_by_id;
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
