//! A run, for the operator: everything that `run inspect` and `run branches` show, from this region's own copy.

use antipode_conflict::{RunFacts, owner::owner};
use antipode_core::{
    ids::{FailoverVersion, Place, RunId, RunOrder, WorkflowId, WorkflowKey},
    refusal::Refusal,
};
use antipode_history::api::{Operation, Reply, Request};
use antipode_proto::admin::{Explained, InspectRunReply, InspectRunRequest, RunSummary};
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
    reply.owner = explain_owner(&reply.runs);
    Ok(())
}

/// Which run owns the workflow id and why (B6, B7), of those whose state is told.
fn explain_owner(runs: &[RunSummary]) -> Option<Explained> {
    let facts: Vec<_> = runs.iter().filter_map(facts).collect();
    let report = owner(&facts);
    report.owner.is_some().then(|| Explained { words: report.words(), json: report.json() })
}

fn facts(summary: &RunSummary) -> Option<RunFacts> {
    let place = Place { epoch: summary.place_epoch, sequence: summary.place_sequence };
    Some(RunFacts {
        run: summary.run_id.parse().ok()?,
        order: RunOrder { version: FailoverVersion(summary.version), place },
        open: match summary.state.as_str() {
            "" => return None,
            state => !matches!(state, "Completed" | "Deleted"),
        },
    })
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

#[cfg(test)]
mod tests {
    use super::{RunSummary, explain_owner};

    fn summary(run: &str, state: &str, version: i64) -> RunSummary {
        RunSummary {
            run_id: run.to_string(),
            state: state.to_string(),
            version,
            place_epoch: 1,
            place_sequence: 7,
            ..RunSummary::default()
        }
    }

    #[test]
    fn the_owner_is_told_with_what_decided() {
        let (first, second) =
            ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002");
        let runs = [summary(first, "Running", 2), summary(second, "Zombie", 1), summary("?", "", 9)];
        let told = explain_owner(&runs).unwrap();
        assert!(
            told.words.starts_with(&format!("run {first} (open) owns the workflow id")),
            "{}",
            told.words
        );
        assert!(told.words.contains(&format!("run {second} (zombie) is superseded by")), "{}", told.words);
        let json: serde_json::Value = serde_json::from_str(&told.json).unwrap();
        assert_eq!(json["owner"]["run"], first);
        assert_eq!(json["others"][0]["version"], "@1", "{json}");
        assert!(explain_owner(&[]).is_none());
    }
}
