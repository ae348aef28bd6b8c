//! QueryWorkflow and the answers of workers to query tasks. The query runs where the namespace is active, so that it sees
//! what was acknowledged; the answer goes back to the process that asked, because a query lives in its memory only.

use antipode_history::{
    api::{Operation, Refusal, Reply, Request},
    token,
};
use antipode_matching::{QueryFailure, QueryToken};
use antipode_proto::api::{query::v1::QueryRejected, workflowservice::v1 as ws};
use std::time::Duration;
use tonic::Status;

use crate::{call::Call, context::Context, errors, namespace::Namespace, ports, route::Failure, validate};

/// How long a query without deadline waits for a worker.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The reason for a missing answer reaches the caller before its deadline does.
const WAIT_MARGIN: Duration = Duration::from_millis(50);

/// QueryWorkflow.
pub(crate) async fn query_workflow(
    context: &Context,
    call: &Call,
    request: ws::QueryWorkflowRequest,
) -> Result<ws::QueryWorkflowResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    validate::execution(request.execution.as_ref())?;
    let query =
        request.query.as_ref().ok_or_else(|| errors::invalid("WorkflowQuery is not set on request."))?;
    validate::required("QueryType", &query.query_type)?;
    validate::payloads(query.query_args.as_ref())?;
    context.at_active(call, &namespace, &request, || ask(context, call, &namespace, &request)).await
}

async fn ask(
    context: &Context,
    call: &Call,
    namespace: &Namespace,
    request: &ws::QueryWorkflowRequest,
) -> Result<ws::QueryWorkflowResponse, Failure> {
    let (workflow, run) = validate::execution(request.execution.as_ref())?;
    let operation = Operation::PrepareQuery { reject_condition: request.query_reject_condition };
    let asked = Request { workflow: ports::workflow_key(namespace.id, workflow), run, operation };
    let ready = match context.history.call(asked).await? {
        Reply::Query(ready) => *ready,
        _ => return Err(errors::unexpected("PrepareQuery").into()),
    };
    if let Some(status) = ready.rejected {
        return Ok(ws::QueryWorkflowResponse {
            query_rejected: Some(QueryRejected { status }),
            ..ws::QueryWorkflowResponse::default()
        });
    }
    let query = request.query.clone().unwrap_or_default();
    let answered = context.matching.query(ready, query, wait(call)).await.map_err(status_of)?;
    Ok(ws::QueryWorkflowResponse { query_result: answered.result, ..ws::QueryWorkflowResponse::default() })
}

fn wait(call: &Call) -> Duration {
    call.left().map_or(WAIT_DEFAULT, |left| left.saturating_sub(WAIT_MARGIN.min(left / 4)))
}

fn status_of(failure: QueryFailure) -> Status {
    let words = failure.to_string();
    match failure {
        QueryFailure::Failed { message, failure, .. } => errors::query_failed(message, failure),
        QueryFailure::NoPoller => Status::failed_precondition(words),
        QueryFailure::DeadlineExceeded => errors::deadline_exceeded(),
        QueryFailure::Unavailable => Status::unavailable(words),
    }
}

/// RespondQueryTaskCompleted.
pub(crate) async fn respond_query_task_completed(
    context: &Context,
    _call: &Call,
    request: ws::RespondQueryTaskCompletedRequest,
) -> Result<ws::RespondQueryTaskCompletedResponse, Status> {
    if request.task_token.is_empty() {
        return Err(errors::invalid(token::Error::NotSet.to_string()));
    }
    let token = QueryToken::decode(&request.task_token)
        .ok_or_else(|| errors::invalid(token::Error::Malformed.to_string()))?;
    if !request.namespace.is_empty() && context.namespace(&request.namespace)?.id != token.namespace {
        return Err(errors::invalid(token::Error::OtherNamespace.to_string()));
    }
    let taken: Result<(), Refusal> = context.matching.respond_query(&token, request);
    taken.map_err(|refusal| errors::status_of(&refusal))?;
    Ok(ws::RespondQueryTaskCompletedResponse::default())
}
