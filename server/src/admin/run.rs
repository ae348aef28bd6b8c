//! A run, for the operator: everything that `run inspect` and `run branches` show, from this region's own copy.

use antipode_core::{
    ids::{RunId, WorkflowId, WorkflowKey},
    refusal::Refusal,
};
use antipode_history::api::{Operation, Reply, Request};
use antipode_proto::admin::{InspectRunReply, InspectRunRequest};
use tonic::Status;

use super::{Service, namespace};

/// Runs of one workflow id that are loaded for one answer.
const COMPLETED_MAX: usize = 100;

pub(super) async fn inspect(
    service: &Service,
    request: InspectRunRequest,
) -> Result<InspectRunReply, Status> {
    let found = service.namespaces.by_name(&request.namespace);
    let entry = found.ok_or_else(|| namespace::unknown(service, &request.namespace))?;
    if request.workflow_id.is_empty() {
        return Err(Status::invalid_argument("workflow_id: must not be empty"));
    }
    let run = match request.run_id.as_str() {
        "" => None,
        text => {
            let parsed = text.parse();
            Some(parsed.map_err(|_| Status::invalid_argument(format!("run_id: {text:?} is not a UUID")))?)
        }
    };
    let workflow =
        WorkflowKey { namespace: entry.id(), workflow: WorkflowId::from(request.workflow_id.as_str()) };
    let mut reply = ask(service, &workflow, run).await?;
    complete(service, &workflow, &mut reply).await?;
    Ok(reply)
}

async fn ask(
    service: &Service,
    workflow: &WorkflowKey,
    run: Option<RunId>,
) -> Result<InspectRunReply, Status> {
    let request = Request { workflow: workflow.clone(), run, operation: Operation::Inspect };
    match service.history.call(request).await {
        Ok(Reply::Inspect(reply)) => Ok(*reply),
        Ok(_) => Err(Status::internal("the shard answered another question")),
        Err(refusal) => Err(status(service, workflow.workflow.as_str(), refusal)),
    }
}

/// The shard lists the other runs of the workflow id as they are stored; of those that it has not loaded it does not tell
/// the state. Asked for by name it loads them.
async fn complete(
    service: &Service,
    workflow: &WorkflowKey,
    reply: &mut InspectRunReply,
) -> Result<(), Status> {
    for summary in reply.runs.iter_mut().filter(|summary| summary.state.is_empty()).take(COMPLETED_MAX) {
        let Ok(run) = summary.run_id.parse() else { continue };
        let told = ask(service, workflow, Some(run)).await?;
        summary.state = told.state;
        summary.status = told.status;
    }
    Ok(())
}

fn status(service: &Service, workflow_id: &str, refusal: Refusal) -> Status {
    let words = refusal.to_string();
    match refusal {
        Refusal::NotFound(_) => Status::not_found(format!(
            "workflow {workflow_id:?} is not known in region {}: {words}",
            service.region
        )),
        Refusal::InvalidArgument(_) => Status::invalid_argument(words),
        Refusal::Unavailable(_) | Refusal::Draining(_) => Status::unavailable(words),
        Refusal::Unimplemented(_) => Status::unimplemented(words),
        Refusal::Internal(_) => Status::internal(words),
        _ => Status::failed_precondition(words),
    }
}
