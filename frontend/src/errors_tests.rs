//! What an SDK decodes from a status is what was meant: code, words, type URL and fields of the detail.

use antipode_core::ids::NamespaceId;

use super::*;

/// Decodes the trailer as clients do.
fn detail<D: Name + Default>(status: &Status) -> D {
    let decoded = google::rpc::Status::decode(status.details()).expect("a google.rpc.Status");
    assert_eq!(decoded.code, status.code() as i32);
    assert_eq!(decoded.message, status.message());
    let [any] = decoded.details.as_slice() else { panic!("one detail, found {}", decoded.details.len()) };
    assert_eq!(any.type_url, format!("type.googleapis.com/{}", D::full_name()));
    D::decode(&*any.value).expect("the detail's message")
}

#[test]
fn namespace_that_is_not_there() {
    let status = namespace_not_found("no-1");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "Namespace no-1 is not found.");
    assert_eq!(detail::<details::NamespaceNotFoundFailure>(&status).namespace, "no-1");
    let type_url = "type.googleapis.com/temporal.api.errordetails.v1.NamespaceNotFoundFailure";
    let decoded = google::rpc::Status::decode(status.details()).expect("a google.rpc.Status");
    assert_eq!(decoded.details[0].type_url, type_url);
}

#[test]
fn workflow_id_that_is_taken() {
    let run = RunId::from_random([1; 16]);
    let first_run = RunId::from_random([2; 16]);
    let message = format!("Workflow execution is already running. WorkflowId: w, RunId: {run}.");
    let refusal = Refusal::AlreadyStarted {
        message: message.clone(),
        start_request_id: "request".to_string(),
        run,
        first_run,
    };
    let status = status_of(&refusal);
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.message(), message);
    let decoded = detail::<details::WorkflowExecutionAlreadyStartedFailure>(&status);
    assert_eq!(decoded.run_id, run.to_string());
    assert_eq!(decoded.first_execution_run_id, first_run.to_string());
    assert_eq!(decoded.start_request_id, "request");
}

#[test]
fn namespace_that_is_active_elsewhere() {
    let status = namespace_not_active("orders", "west", "east");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let decoded = detail::<details::NamespaceNotActiveFailure>(&status);
    assert_eq!(
        (decoded.namespace.as_str(), decoded.current_cluster.as_str(), decoded.active_cluster.as_str()),
        ("orders", "west", "east")
    );
}

/// The code of each kind, and whether a detail goes with it (api-surface 3.10).
#[test]
fn codes_of_refusals() {
    let text = || "words".to_string();
    let table = [
        (Refusal::NotFound(text()), Code::NotFound, true),
        (Refusal::AlreadyCompleted, Code::NotFound, true),
        (Refusal::TaskNotFound { message: text(), reason: "stale" }, Code::NotFound, true),
        (Refusal::InvalidArgument(text()), Code::InvalidArgument, false),
        (Refusal::FailedPrecondition(text()), Code::FailedPrecondition, false),
        (Refusal::WorkflowNotReady(text()), Code::FailedPrecondition, true),
        (Refusal::Draining(NamespaceId::from_random([0; 16])), Code::Unavailable, true),
        (Refusal::Unavailable(text()), Code::Unavailable, false),
        (Refusal::ResourceExhausted(text()), Code::ResourceExhausted, true),
        (Refusal::Quarantined(text()), Code::FailedPrecondition, false),
        (Refusal::Unimplemented(text()), Code::Unimplemented, false),
        (Refusal::Internal(text()), Code::Internal, false),
    ];
    for (refusal, code, has_detail) in table {
        let status = status_of(&refusal);
        assert_eq!(status.code(), code, "{refusal:?}");
        assert_eq!(!status.details().is_empty(), has_detail, "{refusal:?}");
    }
    let completed = status_of(&Refusal::AlreadyCompleted);
    assert_eq!(completed.message(), "workflow execution already completed");
}

#[test]
fn query_that_failed() {
    let failure = Failure { message: "boom".to_string(), ..Failure::default() };
    let status = query_failed("boom", Some(failure.clone()));
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(detail::<details::QueryFailedFailure>(&status).failure, Some(failure));
}
