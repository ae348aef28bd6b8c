//! A run, for the operator: everything that `run inspect` and `run branches` show, from this region's own copy.

use antipode_core::{
    ids::{WorkflowId, WorkflowKey},
    refusal::Refusal,
};
use antipode_history::api::{Operation, Reply, Request};
use antipode_proto::admin::{InspectRunReply, InspectRunRequest};
use tonic::Status;

use super::{Service, namespace};

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
    match service.history.call(Request { workflow, run, operation: Operation::Inspect }).await {
        Ok(Reply::Inspect(reply)) => Ok(*reply),
        Ok(_) => Err(Status::internal("the shard answered another question")),
        Err(refusal) => Err(status(service, &request.workflow_id, refusal)),
    }
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
