//! Refusals as gRPC statuses: code, the API's words, and the typed detail that SDKs decode from `grpc-status-details-bin`
//! (a `google.rpc.Status` with one `Any` of `temporal.api.errordetails.v1`). The only place where codes are chosen.

use antipode_core::{ids::RunId, refusal::Refusal};
use antipode_proto::{
    api::{
        enums::v1::{NamespaceState, ResourceExhaustedCause, ResourceExhaustedScope},
        errordetails::v1 as details,
        failure::v1::Failure,
    },
    google,
};
use bytes::Bytes;
use prost::{Message, Name};
use tonic::{Code, Status};

/// Type URLs of the API have this prefix.
const TYPE_URL: &str = "type.googleapis.com/";

/// A status with one typed detail.
fn detailed<D: Name>(code: Code, message: impl Into<String>, detail: &D) -> Status {
    let message = message.into();
    let any =
        prost_types::Any { type_url: format!("{TYPE_URL}{}", D::full_name()), value: detail.encode_to_vec() };
    let status = google::rpc::Status { code: code as i32, message: message.clone(), details: vec![any] };
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

/// INVALID_ARGUMENT; carries no detail.
pub(crate) fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// NOT_FOUND with `NotFoundFailure`.
pub(crate) fn not_found(message: impl Into<String>) -> Status {
    detailed(Code::NotFound, message, &details::NotFoundFailure::default())
}

/// NOT_FOUND with `NamespaceNotFoundFailure`.
pub(crate) fn namespace_not_found(namespace: &str) -> Status {
    detailed(
        Code::NotFound,
        format!("Namespace {namespace} is not found."),
        &details::NamespaceNotFoundFailure { namespace: namespace.to_string() },
    )
}

/// ALREADY_EXISTS with `NamespaceAlreadyExistsFailure`.
pub(crate) fn namespace_already_exists(namespace: &str) -> Status {
    detailed(
        Code::AlreadyExists,
        format!("Namespace \"{namespace}\" already exists"),
        &details::NamespaceAlreadyExistsFailure {},
    )
}

/// FAILED_PRECONDITION with `NamespaceInvalidStateFailure`: the namespace is deleted.
pub(crate) fn namespace_deleted(namespace: &str) -> Status {
    detailed(
        Code::FailedPrecondition,
        format!("Namespace has invalid state: Deleted. Must be Registered or Deprecated: {namespace}."),
        &details::NamespaceInvalidStateFailure {
            namespace: namespace.to_string(),
            state: NamespaceState::Deleted as i32,
            allowed_states: vec![NamespaceState::Registered as i32, NamespaceState::Deprecated as i32],
        },
    )
}

/// FAILED_PRECONDITION with `NamespaceNotActiveFailure` (R905).
pub(crate) fn namespace_not_active(namespace: &str, here: &str, active: &str) -> Status {
    let refusal = Refusal::NamespaceNotActive {
        namespace: namespace.to_string(),
        here: here.to_string(),
        active: active.to_string(),
    };
    status_of(&refusal)
}

/// UNAVAILABLE with `NamespaceUnavailableFailure`: it is being handed over and the call cannot wait longer.
pub(crate) fn namespace_unavailable(namespace: &str, why: &str) -> Status {
    detailed(
        Code::Unavailable,
        format!("Namespace unavailable: \"{namespace}\": {why}."),
        &details::NamespaceUnavailableFailure { namespace: namespace.to_string() },
    )
}

/// INVALID_ARGUMENT with `QueryFailedFailure`: the workflow's query handler failed.
pub(crate) fn query_failed(message: impl Into<String>, failure: Option<Failure>) -> Status {
    detailed(Code::InvalidArgument, message, &details::QueryFailedFailure { failure })
}

/// FAILED_PRECONDITION with `ServerVersionNotSupportedFailure`.
pub(crate) fn server_version_not_supported(server: &str, wanted: &str) -> Status {
    detailed(
        Code::FailedPrecondition,
        format!("Server version {server} is not supported. Client supports server versions: {wanted}"),
        &details::ServerVersionNotSupportedFailure {
            server_version: server.to_string(),
            client_supported_server_versions: wanted.to_string(),
        },
    )
}

/// RESOURCE_EXHAUSTED with its cause.
pub(crate) fn exhausted(message: impl Into<String>, cause: ResourceExhaustedCause) -> Status {
    let detail = details::ResourceExhaustedFailure {
        cause: cause as i32,
        scope: ResourceExhaustedScope::Namespace as i32,
    };
    detailed(Code::ResourceExhausted, message, &detail)
}

/// DEADLINE_EXCEEDED. Every call that waits ends with it at the latest, never with a hang.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("Deadline Exceeded")
}

/// INTERNAL: the other side answered with something that its contract excludes.
pub(crate) fn unexpected(what: &str) -> Status {
    tracing::error!(what, "an answer of an unexpected kind");
    Status::internal(format!("unexpected answer to {what}"))
}

fn already_started(message: &str, start_request_id: &str, run: RunId, first_run: RunId) -> Status {
    detailed(
        Code::AlreadyExists,
        message,
        &details::WorkflowExecutionAlreadyStartedFailure {
            start_request_id: start_request_id.to_string(),
            run_id: run.to_string(),
            first_execution_run_id: first_run.to_string(),
        },
    )
}

/// The status of a refusal of a shard (or of matching).
pub(crate) fn status_of(refusal: &Refusal) -> Status {
    let words = refusal.to_string();
    match refusal {
        Refusal::NotFound(_) | Refusal::AlreadyCompleted | Refusal::TaskNotFound { .. } => not_found(words),
        Refusal::AlreadyStarted { message, start_request_id, run, first_run } => {
            already_started(message, start_request_id, *run, *first_run)
        }
        Refusal::InvalidArgument(_) => invalid(words),
        Refusal::FailedPrecondition(_) | Refusal::Quarantined(_) => Status::failed_precondition(words),
        Refusal::WorkflowNotReady(_) => {
            detailed(Code::FailedPrecondition, words, &details::WorkflowNotReadyFailure {})
        }
        Refusal::NamespaceNotActive { namespace, here, active } => detailed(
            Code::FailedPrecondition,
            words,
            &details::NamespaceNotActiveFailure {
                namespace: namespace.clone(),
                current_cluster: here.clone(),
                active_cluster: active.clone(),
            },
        ),
        Refusal::Draining(namespace) => {
            namespace_unavailable(&namespace.to_string(), "it is being handed over")
        }
        Refusal::Unavailable(_) => Status::unavailable(words),
        Refusal::ResourceExhausted(_) => exhausted(words, ResourceExhaustedCause::BusyWorkflow),
        Refusal::Unimplemented(_) => Status::unimplemented(words),
        Refusal::Internal(_) => {
            tracing::error!(refusal = %words, "a law broke");
            Status::internal(words)
        }
    }
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;
