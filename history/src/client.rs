//! The handle through which everybody else in a node talks to its shards. Cheap to clone. Stub of signatures: the host
//! fills the bodies.

use std::{sync::Arc, time::Duration};

use antipode_core::ids::{NamespaceId, Nanos, RegionId, Sequence, ShardId, WorkflowKey};
use antipode_persistence::rows::TaskKind;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    api::{Applied, Refusal, Replicated, Reply, Request},
    host::Command,
    shard::Proof,
};

/// Handle to all shards of this node.
#[derive(Clone)]
pub struct Client {
    shards: Arc<[ShardHandle]>,
}

/// Handle to one shard.
#[derive(Clone)]
pub struct ShardHandle {
    /// Where its commands go.
    pub commands: mpsc::Sender<Command>,
    /// Last durably committed position (C1): moves with every commit; what replication senders wait on.
    pub committed: watch::Receiver<Sequence>,
}

/// The shard of a workflow id among so many: farmhash fingerprint of "<namespace id>_<workflow id>", as the incumbent has it.
#[must_use]
pub fn shard_of(key: &WorkflowKey, shards: u32) -> ShardId {
    let text = format!("{}_{}", key.namespace, key.workflow);
    ShardId(farmhash::fingerprint32(text.as_bytes()) % shards.max(1) + 1)
}

fn stopped() -> Refusal {
    Refusal::Unavailable("the shard is stopping".to_string())
}

impl Client {
    /// Over these shards, in order of id from 1.
    #[must_use]
    pub fn new(shards: Vec<ShardHandle>) -> Self {
        Self { shards: shards.into() }
    }

    /// Number of shards.
    #[must_use]
    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    /// The shard of a workflow id.
    #[must_use]
    pub fn shard_of(&self, key: &WorkflowKey) -> ShardId {
        shard_of(key, self.shard_count())
    }

    fn handle(&self, shard: ShardId) -> Option<&ShardHandle> {
        self.shards.get(usize::try_from(shard.0).ok()?.checked_sub(1)?)
    }

    /// Asks the owning shard. The answer rests on durable state (D1).
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn call(&self, request: Request) -> Result<Reply, Refusal> {
        let shard = self.handle(self.shard_of(&request.workflow)).ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        shard.commands.send(Command::Request { request, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Applies replicated entries of one local shard, in order; answers come in the same order, each once durable.
    ///
    /// # Errors
    /// When the shard is stopping.
    pub async fn apply(&self, shard: ShardId, entries: Vec<Replicated>) -> Result<Vec<Applied>, Refusal> {
        let handle = self.handle(shard).ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        handle.commands.send(Command::Apply { entries, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }

    /// Like [`Client::apply`], but returns once the entries are queued: a caller keeps several groups in flight, in order.
    ///
    /// # Errors
    /// When the shard is stopping.
    pub async fn apply_queued(
        &self,
        shard: ShardId,
        entries: Vec<Replicated>,
    ) -> Result<oneshot::Receiver<Vec<Applied>>, Refusal> {
        let handle = self.handle(shard).ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        handle.commands.send(Command::Apply { entries, answer }).await.map_err(|_| stopped())?;
        Ok(answered)
    }

    /// Position of durable commits of a shard.
    #[must_use]
    pub fn committed(&self, shard: ShardId) -> Option<watch::Receiver<Sequence>> {
        self.handle(shard).map(|handle| handle.committed.clone())
    }

    /// Commits a barrier for a namespace that is draining: after it nothing of that namespace is written under this
    /// ownership until its record says so (F2). Returns the last position before the freeze ended all writes.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the shard has no owner or the record is not draining.
    pub async fn barrier(&self, shard: ShardId, namespace: NamespaceId) -> Result<Sequence, Refusal> {
        let handle = self.handle(shard).ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        handle.commands.send(Command::Barrier { namespace, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Asks all shards to offer again what is in the dispatch index for this queue: matching has credit (C2). False when a
    /// shard was too busy to take the request, or is gone: then it is to be asked again.
    #[must_use]
    pub fn refill(&self, namespace: NamespaceId, queue: &str, kind: TaskKind) -> bool {
        let command = || Command::Refill { namespace, queue: queue.to_string(), kind };
        // Each shard is asked, also after one that could not take it.
        // Every shard is told, also after one that was too busy.
        let told = self.shards.iter().filter(|shard| shard.commands.try_send(command()).is_ok()).count();
        told == self.shards.len()
    }

    /// Tells all shards that a namespace record changed (D6) and waits until each has taken it.
    pub async fn namespace_changed(&self, namespace: NamespaceId) {
        for shard in self.shards.iter() {
            let (answer, answered) = oneshot::channel();
            if shard.commands.send(Command::NamespaceChanged { namespace, answer }).await.is_ok() {
                let _ = answered.await;
            }
        }
    }

    /// Tells a shard what a peer, by its region's name, has proved of its log: closed runs wait for it (C6). The newest
    /// replaces the one before; without one a peer has proved nothing.
    pub async fn proof(&self, shard: ShardId, peer: &str, proof: Proof) {
        if let Some(handle) = self.handle(shard) {
            // A shard that is stopping deletes nothing any more.
            let _ = handle.commands.send(Command::Proof { peer: peer.to_string(), proof }).await;
        }
    }

    /// Tells all shards that the clock of a region may be behind this one by at most so much (H2).
    pub async fn clock(&self, region: RegionId, behind: Nanos) {
        for shard in self.shards.iter() {
            // A shard that is stopping times nothing out any more.
            let _ = shard.commands.send(Command::Clock { region, behind }).await;
        }
    }

    /// Stops all shards after their commit in flight.
    pub async fn stop(&self, patience: Duration) {
        for shard in self.shards.iter() {
            let _ = shard.commands.send(Command::Stop).await;
        }
        for shard in self.shards.iter() {
            let _ = tokio::time::timeout(patience, shard.commands.closed()).await;
        }
    }
}
