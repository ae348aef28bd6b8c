//! Calls about one workflow execution: signal, cancel, terminate, describe, and clearing its sticky queue.

use antipode_core::ids::RunId;
use antipode_history::api::{Operation, Reply, Request};
use antipode_proto::api::workflowservice::v1 as ws;
use tonic::Status;

use crate::{
    call::Call, context::Context, errors, namespace::Namespace, ports, reply::expect_reply, validate,
};

/// A request to the shard of a workflow id.
fn to_shard(namespace: &Namespace, workflow: &str, run: Option<RunId>, operation: Operation) -> Request {
    Request { workflow: ports::workflow_key(namespace.id, workflow), run, operation }
}

/// SignalWorkflowExecution.
pub(crate) async fn signal_workflow_execution(
    context: &Context,
    call: &Call,
    request: ws::SignalWorkflowExecutionRequest,
) -> Result<ws::SignalWorkflowExecutionResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.workflow_execution.as_ref())?;
    validate::required("SignalName", &request.signal_name)?;
    validate::bounded("RequestId", &request.request_id)?;
    validate::payloads(request.input.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::Signal(Box::new(request.clone()));
            let reply = context.history.call(to_shard(&namespace, workflow, run, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::SignalWorkflowExecutionResponse::default())
        })
        .await
}

/// RequestCancelWorkflowExecution.
pub(crate) async fn request_cancel_workflow_execution(
    context: &Context,
    call: &Call,
    request: ws::RequestCancelWorkflowExecutionRequest,
) -> Result<ws::RequestCancelWorkflowExecutionResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.workflow_execution.as_ref())?;
    validate::bounded("RequestId", &request.request_id)?;
    first_run(&request.first_execution_run_id)?;
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::RequestCancel(Box::new(request.clone()));
            let reply = context.history.call(to_shard(&namespace, workflow, run, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RequestCancelWorkflowExecutionResponse::default())
        })
        .await
}

/// TerminateWorkflowExecution.
pub(crate) async fn terminate_workflow_execution(
    context: &Context,
    call: &Call,
    request: ws::TerminateWorkflowExecutionRequest,
) -> Result<ws::TerminateWorkflowExecutionResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.workflow_execution.as_ref())?;
    first_run(&request.first_execution_run_id)?;
    validate::payloads(request.details.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::Terminate(Box::new(request.clone()));
            let reply = context.history.call(to_shard(&namespace, workflow, run, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::TerminateWorkflowExecutionResponse::default())
        })
        .await
}

fn first_run(text: &str) -> Result<(), Status> {
    validate::run_id(text).map(|_| ()).map_err(|_| errors::invalid("Invalid FirstExecutionRunId."))
}

/// DescribeWorkflowExecution: always answered here (R911).
pub(crate) async fn describe_workflow_execution(
    context: &Context,
    _call: &Call,
    request: ws::DescribeWorkflowExecutionRequest,
) -> Result<ws::DescribeWorkflowExecutionResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.execution.as_ref())?;
    let asked = to_shard(&namespace, workflow, run, Operation::Describe);
    match context.history.call(asked).await {
        Ok(Reply::Describe(reply)) => Ok(*reply),
        Ok(_) => Err(errors::unexpected("Describe")),
        Err(refusal) => Err(errors::status_of(&refusal)),
    }
}

/// ResetStickyTaskQueue: stickiness is local (A8), so it is cleared where the call arrives.
pub(crate) async fn reset_sticky_task_queue(
    context: &Context,
    _call: &Call,
    request: ws::ResetStickyTaskQueueRequest,
) -> Result<ws::ResetStickyTaskQueueResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.execution.as_ref())?;
    let asked = to_shard(&namespace, workflow, run, Operation::ResetSticky);
    match context.history.call(asked).await {
        Ok(Reply::Done) => Ok(ws::ResetStickyTaskQueueResponse::default()),
        Ok(_) => Err(errors::unexpected("ResetSticky")),
        Err(refusal) => Err(errors::status_of(&refusal)),
    }
}
