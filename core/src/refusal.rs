//! Why a request is refused: data with the API's words. The frontend maps each kind to a gRPC status in one place.

use crate::ids::{NamespaceId, RunId};

/// Why a shard does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such run or workflow id; the API's words.
    #[error("{0}")]
    NotFound(String),
    /// The run is closed (or a zombie) and the operation needs an open one.
    #[error("workflow execution already completed")]
    AlreadyCompleted,
    /// The task that was brought back does not fit the run as it is now; counted by reason.
    #[error("{message}")]
    TaskNotFound {
        /// The API's words.
        message: String,
        /// Why it does not fit: the label it is counted under.
        reason: &'static str,
    },
    /// Start: the workflow id is taken.
    #[error("{message}")]
    AlreadyStarted {
        /// The API's words.
        message: String,
        /// Request that started it.
        start_request_id: String,
        /// Run that owns the id.
        run: RunId,
        /// First run of its chain.
        first_run: RunId,
    },
    /// Names the field.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not in this state.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The query cannot be served: no workflow task was ever completed, or it keeps failing.
    #[error("{0}")]
    WorkflowNotReady(String),
    /// Another region is active.
    #[error("Namespace: {namespace} is active in cluster: {active}, while current cluster is: {here}.")]
    NamespaceNotActive {
        /// Namespace name.
        namespace: String,
        /// This region.
        here: String,
        /// The active one.
        active: String,
    },
    /// The namespace is being handed over: hold the call and ask again when its record changed.
    #[error("Namespace {0} is being handed over.")]
    Draining(NamespaceId),
    /// Retryable: a commit failed, the shard is moving, a record has not arrived yet.
    #[error("{0}")]
    Unavailable(String),
    /// Limits.
    #[error("{0}")]
    ResourceExhausted(String),
    /// A stored run is quarantined here.
    #[error("{0}")]
    Quarantined(String),
    /// Named and not built.
    #[error("{0} is not implemented")]
    Unimplemented(String),
    /// A law broke; the words say which.
    #[error("{0}")]
    Internal(String),
}
