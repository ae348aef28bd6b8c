//! The workflow side of the worker's loop: poll, complete, fail. Polls wait where the worker is, also in a passive region,
//! where nothing comes (R921); answers go to the active region (I15).

use antipode_history::{
    api::{Operation, Reply, Request, TaskKind, TaskToken},
    token,
};
use antipode_proto::api::workflowservice::v1 as ws;
use bytes::Bytes;
use std::sync::Arc;
use tonic::Status;

use crate::{
    call::Call, context::Context, errors, history, namespace::Namespace, reply::expect_reply, validate,
};

/// PollWorkflowTaskQueue.
pub(crate) async fn poll_workflow_task_queue(
    context: &Context,
    call: &Call,
    request: ws::PollWorkflowTaskQueueRequest,
) -> Result<ws::PollWorkflowTaskQueueResponse, Status> {
    let wait = call.poll_wait()?;
    let namespace = context.namespace(&request.namespace)?;
    validate::task_queue(request.task_queue.as_ref())?;
    validate::bounded("identity", &request.identity)?;
    let polled = context.matching.poll_workflow_task(namespace.id, &request, wait).await;
    match polled.map_err(|refusal| errors::status_of(&refusal))? {
        Some((mut task, events)) => {
            task.history = Some(history::decode(&events)?);
            Ok(task)
        }
        // An empty message, never an error: workers poll again at once.
        None => Ok(ws::PollWorkflowTaskQueueResponse::default()),
    }
}

/// The task that a token names, and its namespace. The token decides; a name beside it must agree.
pub(crate) fn task_of(
    context: &Context,
    namespace: &str,
    bytes: &Bytes,
    kind: TaskKind,
) -> Result<(Arc<Namespace>, TaskToken), Status> {
    let token = token::decode(bytes).map_err(|error| errors::invalid(error.to_string()))?;
    let named = if namespace.is_empty() {
        context.namespace_by_id(token.key.namespace)?
    } else {
        context.namespace(namespace)?
    };
    if named.id != token.key.namespace {
        return Err(errors::invalid(token::Error::OtherNamespace.to_string()));
    }
    if token.kind != kind {
        return Err(errors::invalid(token::Error::Malformed.to_string()));
    }
    Ok((named, token))
}

/// The shard's request for the run of a token.
pub(crate) fn to_run(token: &TaskToken, operation: Operation) -> Request {
    Request { workflow: token.key.workflow_key(), run: Some(token.key.run), operation }
}

/// RespondWorkflowTaskCompleted.
pub(crate) async fn respond_workflow_task_completed(
    context: &Context,
    call: &Call,
    request: ws::RespondWorkflowTaskCompletedRequest,
) -> Result<ws::RespondWorkflowTaskCompletedResponse, Status> {
    let (namespace, token) = task_of(context, &request.namespace, &request.task_token, TaskKind::Workflow)?;
    validate::bounded("identity", &request.identity)?;
    if request.intermediate_page || request.page_number > 0 {
        return Err(Status::unimplemented("RespondWorkflowTaskCompleted in pages is not implemented"));
    }
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::WorkflowTaskCompleted(token.clone(), Box::new(request.clone()));
            let reply = context.history.call(to_run(&token, operation)).await?;
            expect_reply!(reply, Reply::WorkflowTaskCompleted(reply) => *reply)
        })
        .await
}

/// RespondWorkflowTaskFailed.
pub(crate) async fn respond_workflow_task_failed(
    context: &Context,
    call: &Call,
    request: ws::RespondWorkflowTaskFailedRequest,
) -> Result<ws::RespondWorkflowTaskFailedResponse, Status> {
    let (namespace, token) = task_of(context, &request.namespace, &request.task_token, TaskKind::Workflow)?;
    validate::bounded("identity", &request.identity)?;
    validate::blob(request.failure.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::WorkflowTaskFailed(token.clone(), Box::new(request.clone()));
            let reply = context.history.call(to_run(&token, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondWorkflowTaskFailedResponse::default())
        })
        .await
}
