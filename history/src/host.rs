//! The tokio side of the shards.

use antipode_core::ids::{NamespaceId, Sequence};
use tokio::sync::oneshot;

use crate::api::{Applied, Refusal, Replicated, Reply, Request, TaskKind};

/// What a shard's host takes in, in order.
#[derive(Debug)]
pub enum Command {
    /// A request and where its answer goes.
    Request {
        /// The request.
        request: Request,
        /// Its answer, once durable.
        answer: oneshot::Sender<Result<Reply, Refusal>>,
    },
    /// Replicated entries, in order.
    Apply {
        /// The entries.
        entries: Vec<Replicated>,
        /// What became of each.
        answer: oneshot::Sender<Vec<Applied>>,
    },
    /// Commit a barrier for a draining namespace (F2).
    Barrier {
        /// The namespace.
        namespace: NamespaceId,
        /// Position of the barrier.
        answer: oneshot::Sender<Result<Sequence, Refusal>>,
    },
    /// Matching has credit for this queue again (C2).
    Refill {
        /// The namespace.
        namespace: NamespaceId,
        /// The queue.
        queue: String,
        /// Its kind.
        kind: TaskKind,
    },
    /// A namespace record changed (D6).
    NamespaceChanged {
        /// The namespace.
        namespace: NamespaceId,
        /// When taken.
        answer: oneshot::Sender<()>,
    },
    /// Stop after the commit in flight.
    Stop,
}
