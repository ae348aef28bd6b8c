//! What can go wrong between regions, in the operator's words, and the one place where it becomes a gRPC status.

use tonic::{Code, Status};

use crate::{gate::Cut, handshake::Mismatch};

/// A failure of the replicator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of a request is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// No such namespace, region or run.
    #[error("{0}")]
    NotFound(String),
    /// Not in this state; says what to do instead.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Time is up; says what to do instead.
    #[error("{0}")]
    Deadline(String),
    /// Another change came between; try again.
    #[error("{0}")]
    Aborted(String),
    /// A direction of the link is cut.
    #[error(transparent)]
    Cut(#[from] Cut),
    /// A region does not answer.
    #[error("region {region} does not answer: {why}")]
    Unreachable {
        /// Region.
        region: String,
        /// In words.
        why: String,
    },
    /// A region answered with an error.
    #[error("region {region} answers: {}", .status.message())]
    Remote {
        /// Region.
        region: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// Two regions don't fit together.
    #[error("the regions do not fit together: {0}")]
    Mismatch(#[from] Mismatch),
    /// What arrived breaks the protocol; the stream starts again.
    #[error("{from} broke the protocol: {why}")]
    Protocol {
        /// Region.
        from: String,
        /// In words.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] antipode_persistence::Error),
    /// A shard.
    #[error("{0}")]
    Shard(#[from] antipode_core::refusal::Refusal),
    /// This node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl Error {
    /// A peer's answer, told apart from not reaching it.
    pub(crate) fn of_call(region: &str, status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::Unreachable { region: region.to_string(), why: status.message().to_string() }
            }
            _ => Self::Remote { region: region.to_string(), status: Box::new(status) },
        }
    }

    pub(crate) fn protocol(from: &str, why: impl Into<String>) -> Self {
        Self::Protocol { from: from.to_string(), why: why.into() }
    }

    /// Whether the region could not be reached at all, so that the request was perhaps never seen there.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Unreachable { .. })
    }

    fn code(&self) -> Code {
        match self {
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::FailedPrecondition(_) | Self::Mismatch(_) => Code::FailedPrecondition,
            Self::Deadline(_) => Code::DeadlineExceeded,
            Self::Aborted(_) => Code::Aborted,
            Self::Cut(_) | Self::Unreachable { .. } | Self::Store(_) | Self::Shard(_) | Self::Stopping => {
                Code::Unavailable
            }
            Self::Remote { status, .. } => status.code(),
            Self::Protocol { .. } => Code::Internal,
        }
    }
}

impl From<antipode_history::namespaces::Error> for Error {
    fn from(error: antipode_history::namespaces::Error) -> Self {
        use antipode_history::namespaces::Error as Registry;
        match error {
            Registry::Store(error) => Self::Store(error),
            Registry::NotFound(_) => Self::NotFound(error.to_string()),
            Registry::NameTaken(_) | Registry::Refused(_) | Registry::Identity(_) => {
                Self::FailedPrecondition(error.to_string())
            }
            Registry::Regions(_) | Registry::Malformed(_) => Self::InvalidArgument(error.to_string()),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            // The answer of the region that acts, as it gave it.
            Error::Remote { status, .. } => *status,
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Direction;

    #[test]
    fn a_cut_is_unavailable_and_says_which() {
        let status = Status::from(Error::from(Cut(Direction::new("east", "west"))));
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the link east->west is cut"));
    }

    #[test]
    fn an_answer_passes_through_and_silence_does_not() {
        let refused = Error::of_call("west", Status::failed_precondition("held"));
        assert!(!refused.is_unreachable());
        assert_eq!(Status::from(refused).message(), "held");
        assert!(Error::of_call("west", Status::unavailable("connection refused")).is_unreachable());
    }
}
