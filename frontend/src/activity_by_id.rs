//! The same answers to activities, given by somebody who knows the activity's id instead of its token.

use std::sync::Arc;

use antipode_core::ids::RunId;
use antipode_history::api::{ActivityRef, Operation, Reply, Request};
use antipode_proto::api::workflowservice::v1 as ws;
use tonic::Status;

use crate::{
    call::Call, context::Context, errors, namespace::Namespace, ports, reply::expect_reply, validate,
};

/// An activity as such a request names it.
struct Named {
    namespace: Arc<Namespace>,
    workflow: String,
    run: Option<RunId>,
    activity: String,
}

impl Named {
    fn new(
        context: &Context,
        namespace: &str,
        workflow: &str,
        run: &str,
        activity: &str,
    ) -> Result<Self, Status> {
        let namespace = context.namespace(namespace)?;
        if workflow.is_empty() {
            // Without a workflow id it names an activity that stands alone.
            return Err(errors::invalid("WorkflowId is not set on request."));
        }
        validate::required("WorkflowId", workflow)?;
        validate::required("ActivityId", activity)?;
        Ok(Self {
            namespace,
            workflow: workflow.to_string(),
            run: validate::run_id(run)?,
            activity: activity.to_string(),
        })
    }

    fn activity(&self) -> ActivityRef {
        ActivityRef::ById(self.activity.clone())
    }

    fn ask(&self, operation: Operation) -> Request {
        Request { workflow: ports::workflow_key(self.namespace.id, &self.workflow), run: self.run, operation }
    }
}

/// RespondActivityTaskCompletedById.
pub(crate) async fn respond_activity_task_completed_by_id(
    context: &Context,
    call: &Call,
    request: ws::RespondActivityTaskCompletedByIdRequest,
) -> Result<ws::RespondActivityTaskCompletedByIdResponse, Status> {
    let by = &request;
    let named = Named::new(context, &by.namespace, &by.workflow_id, &by.run_id, &by.activity_id)?;
    validate::payloads(request.result.as_ref())?;
    let by_token = ws::RespondActivityTaskCompletedRequest {
        result: request.result.clone(),
        identity: request.identity.clone(),
        namespace: request.namespace.clone(),
        resource_id: request.resource_id.clone(),
        ..Default::default()
    };
    context
        .at_active(call, &named.namespace, &request, || async {
            let operation = Operation::ActivityCompleted(named.activity(), Box::new(by_token.clone()));
            let reply = context.history.call(named.ask(operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondActivityTaskCompletedByIdResponse::default())
        })
        .await
}

/// RespondActivityTaskFailedById.
pub(crate) async fn respond_activity_task_failed_by_id(
    context: &Context,
    call: &Call,
    request: ws::RespondActivityTaskFailedByIdRequest,
) -> Result<ws::RespondActivityTaskFailedByIdResponse, Status> {
    let by = &request;
    let named = Named::new(context, &by.namespace, &by.workflow_id, &by.run_id, &by.activity_id)?;
    validate::blob(request.failure.as_ref())?;
    validate::payloads(request.last_heartbeat_details.as_ref())?;
    let by_token = ws::RespondActivityTaskFailedRequest {
        failure: request.failure.clone(),
        identity: request.identity.clone(),
        namespace: request.namespace.clone(),
        resource_id: request.resource_id.clone(),
        last_heartbeat_details: request.last_heartbeat_details.clone(),
        cause: request.cause,
        ..Default::default()
    };
    context
        .at_active(call, &named.namespace, &request, || async {
            let operation = Operation::ActivityFailed(named.activity(), Box::new(by_token.clone()));
            let reply = context.history.call(named.ask(operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondActivityTaskFailedByIdResponse::default())
        })
        .await
}

/// RespondActivityTaskCanceledById.
pub(crate) async fn respond_activity_task_canceled_by_id(
    context: &Context,
    call: &Call,
    request: ws::RespondActivityTaskCanceledByIdRequest,
) -> Result<ws::RespondActivityTaskCanceledByIdResponse, Status> {
    let by = &request;
    let named = Named::new(context, &by.namespace, &by.workflow_id, &by.run_id, &by.activity_id)?;
    validate::payloads(request.details.as_ref())?;
    let by_token = ws::RespondActivityTaskCanceledRequest {
        details: request.details.clone(),
        identity: request.identity.clone(),
        namespace: request.namespace.clone(),
        resource_id: request.resource_id.clone(),
        deployment_options: request.deployment_options.clone(),
        ..Default::default()
    };
    context
        .at_active(call, &named.namespace, &request, || async {
            let operation = Operation::ActivityCanceled(named.activity(), Box::new(by_token.clone()));
            let reply = context.history.call(named.ask(operation)).await?;
            expect_reply!(reply, Reply::Done => ws::RespondActivityTaskCanceledByIdResponse::default())
        })
        .await
}

/// RecordActivityTaskHeartbeatById.
pub(crate) async fn record_activity_task_heartbeat_by_id(
    context: &Context,
    call: &Call,
    request: ws::RecordActivityTaskHeartbeatByIdRequest,
) -> Result<ws::RecordActivityTaskHeartbeatByIdResponse, Status> {
    let by = &request;
    let named = Named::new(context, &by.namespace, &by.workflow_id, &by.run_id, &by.activity_id)?;
    validate::payloads(request.details.as_ref())?;
    let by_token = ws::RecordActivityTaskHeartbeatRequest {
        details: request.details.clone(),
        identity: request.identity.clone(),
        namespace: request.namespace.clone(),
        resource_id: request.resource_id.clone(),
        ..Default::default()
    };
    context
        .at_active(call, &named.namespace, &request, || async {
            let operation = Operation::ActivityHeartbeat(named.activity(), Box::new(by_token.clone()));
            let reply = context.history.call(named.ask(operation)).await?;
            expect_reply!(reply, Reply::Heartbeat(beat) => ws::RecordActivityTaskHeartbeatByIdResponse {
                cancel_requested: beat.cancel_requested,
                activity_paused: beat.activity_paused,
                activity_reset: beat.activity_reset,
            })
        })
        .await
}
