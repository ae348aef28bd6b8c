//! The activity side of the worker's loop: poll, and answers by token. Answers of a passive region's workers go to the active
//! one: a completion whose token still fits is accepted there (I15, R931).

use antipode_history::api::{ActivityRef, Operation, Reply, TaskKind};
use antipode_proto::api::workflowservice::v1 as ws;
use tonic::Status;

use crate::{
    call::Call,
    context::Context,
    errors,
    reply::expect_reply,
    validate,
    workflow_task::{task_of, to_run},
};

/// PollActivityTaskQueue.
pub(crate) async fn poll_activity_task_queue(
    context: &Context,
    call: &Call,
    request: ws::PollActivityTaskQueueRequest,
) -> Result<ws::PollActivityTaskQueueResponse, Status> {
    let wait = call.poll_wait()?;
    let namespace = context.namespace(&request.namespace)?;
    validate::task_queue(request.task_queue.as_ref())?;
    validate::bounded("identity", &request.identity)?;
    let polled = context.matching.poll_activity_task(namespace.id, &request, wait).await;
    Ok(polled.map_err(|refusal| errors::status_of(&refusal))?.unwrap_or_default())
}

/// RespondActivityTaskCompleted.
pub(crate) async fn respond_activity_task_completed(
    context: &Context,
    call: &Call,
    request: ws::RespondActivityTaskCompletedRequest,
) -> Result<ws::RespondActivityTaskCompletedResponse, Status> {
    let (namespace, token) = task_of(context, &request.namespace, &request.task_token, TaskKind::Activity)?;
    validate::payloads(request.result.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let activity = ActivityRef::Token(token.clone());
            let operation = Operation::ActivityCompleted(activity, Box::new(request.clone()));
            let reply = context.history.call(to_run(&token, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondActivityTaskCompletedResponse::default())
        })
        .await
}

/// RespondActivityTaskFailed.
pub(crate) async fn respond_activity_task_failed(
    context: &Context,
    call: &Call,
    request: ws::RespondActivityTaskFailedRequest,
) -> Result<ws::RespondActivityTaskFailedResponse, Status> {
    let (namespace, token) = task_of(context, &request.namespace, &request.task_token, TaskKind::Activity)?;
    validate::blob(request.failure.as_ref())?;
    validate::payloads(request.last_heartbeat_details.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let activity = ActivityRef::Token(token.clone());
            let operation = Operation::ActivityFailed(activity, Box::new(request.clone()));
            let reply = context.history.call(to_run(&token, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondActivityTaskFailedResponse::default())
        })
        .await
}

/// RespondActivityTaskCanceled.
pub(crate) async fn respond_activity_task_canceled(
    context: &Context,
    call: &Call,
    request: ws::RespondActivityTaskCanceledRequest,
) -> Result<ws::RespondActivityTaskCanceledResponse, Status> {
    let (namespace, token) = task_of(context, &request.namespace, &request.task_token, TaskKind::Activity)?;
    validate::payloads(request.details.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let activity = ActivityRef::Token(token.clone());
            let operation = Operation::ActivityCanceled(activity, Box::new(request.clone()));
            let reply = context.history.call(to_run(&token, operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondActivityTaskCanceledResponse::default())
        })
        .await
}

/// RecordActivityTaskHeartbeat.
pub(crate) async fn record_activity_task_heartbeat(
    context: &Context,
    call: &Call,
    request: ws::RecordActivityTaskHeartbeatRequest,
) -> Result<ws::RecordActivityTaskHeartbeatResponse, Status> {
    let (namespace, token) = task_of(context, &request.namespace, &request.task_token, TaskKind::Activity)?;
    validate::payloads(request.details.as_ref())?;
    context
        .at_active(call, &namespace, &request, || async {
            let activity = ActivityRef::Token(token.clone());
            let operation = Operation::ActivityHeartbeat(activity, Box::new(request.clone()));
            let reply = context.history.call(to_run(&token, operation)).await?;
            expect_reply!(reply, Reply::Heartbeat(reply) => *reply)
        })
        .await
}
