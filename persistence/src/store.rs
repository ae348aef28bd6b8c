//! The traits of a store, split by noun. Every condition of a commit raises inside the database (D3); a commit ends
//! committed, rejected or unknown (D2). `conformance` is the suite that every backend passes.

use antipode_core::ids::{NamespaceId, RangeId, RunKey, Sequence, ShardId, Timestamp, WorkflowKey};
use async_trait::async_trait;

use crate::{
    Error,
    rows::{
        Acquired, CurrentRow, DispatchRow, Group, Identity, LogPage, NamespaceRow, PositionRow,
        QuarantineRow, RegionRow, StoredRun, TaskKind, VisibilityRow,
    },
    visibility::{Count, Page, Query},
};

/// How a commit failed (D2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The fence did not hold: another owner, or another position. Nothing was written.
    #[error("commit of {shard} rejected: it is no longer held under {range:?} at {after:?}")]
    Fenced {
        /// Shard.
        shard: ShardId,
        /// Fencing token of the group.
        range: RangeId,
        /// Position the group built on.
        after: Sequence,
    },
    /// Nothing was written.
    #[error("commit failed: {0}")]
    Rejected(String),
    /// It may or may not have been written: the owner must acquire the shard anew before it steps again (D2).
    #[error("commit outcome unknown: {0}")]
    Unknown(String),
}

/// Ownership and commits of shards.
#[async_trait]
pub trait ShardStore: Send + Sync {
    /// Takes the shard over: raises its range id in a durable commit of its own and returns it with the last position.
    async fn shard_acquire(&self, shard: ShardId, owner: &str) -> Result<Acquired, Error>;

    /// Commits a group durably, all or nothing, under its fence.
    async fn shard_commit(&self, group: Group) -> Result<(), CommitError>;

    /// Last committed position of each shard, in order of shard.
    async fn shard_positions(&self) -> Result<Vec<(ShardId, Sequence)>, Error>;
}

/// Runs and their history.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// A run with all its batches; none when it is not stored.
    async fn run_load(&self, shard: ShardId, key: &RunKey) -> Result<Option<StoredRun>, Error>;

    /// Ids of all stored runs of a workflow id, with their heads, in no particular order.
    async fn run_list(&self, shard: ShardId, key: &WorkflowKey) -> Result<Vec<crate::rows::RunRow>, Error>;

    /// Which run owns the workflow id.
    async fn current_load(&self, shard: ShardId, key: &WorkflowKey) -> Result<Option<CurrentRow>, Error>;

    /// The shard's log after a position, about `bytes_max` bytes of it, at least one entry when there is one (C1).
    async fn log_read(&self, shard: ShardId, after: Sequence, bytes_max: usize) -> Result<LogPage, Error>;
}

/// Derived indexes over runs.
#[async_trait]
pub trait IndexStore: Send + Sync {
    /// Runs of these namespaces that are due to wake before `until`, earliest first (C5).
    async fn wake_due(
        &self,
        shard: ShardId,
        namespaces: &[NamespaceId],
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RunKey)>, Error>;

    /// Dispatch backlog of these namespaces in order, optionally of one queue (C2). Rows of one position come together,
    /// also when that exceeds `limit`, so that the last row's position is where the next page starts.
    async fn dispatch_backlog(
        &self,
        shard: ShardId,
        namespaces: &[NamespaceId],
        queue: Option<(&str, TaskKind)>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DispatchRow>, Error>;

    /// Runs that owe something to others and are due before `until`, earliest first (C3).
    async fn obligation_due(
        &self,
        shard: ShardId,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RunKey)>, Error>;
}

/// Built-in visibility (C8).
#[async_trait]
pub trait VisibilityStore: Send + Sync {
    /// Runs that match, in the order of the API: close time descending with open runs first, then start time descending.
    async fn visibility_list(&self, query: &Query) -> Result<Page, Error>;

    /// How many match, with groups when asked.
    async fn visibility_count(&self, query: &Query) -> Result<Count, Error>;

    /// One run's row.
    async fn visibility_get(&self, key: &RunKey) -> Result<Option<VisibilityRow>, Error>;
}

/// Namespace records.
#[async_trait]
pub trait NamespaceStore: Send + Sync {
    /// All records.
    async fn namespace_all(&self) -> Result<Vec<NamespaceRow>, Error>;

    /// Writes a record durably if its stored notification is `expected` (0: not stored yet); returns the new notification,
    /// or none when another write came first.
    async fn namespace_put(
        &self,
        expected: u64,
        record: &antipode_proto::core::NamespaceRecord,
    ) -> Result<Option<u64>, Error>;
}

/// Peers, positions, quarantine, identity.
#[async_trait]
pub trait RegionStore: Send + Sync {
    /// Who this store belongs to.
    fn identity(&self) -> &Identity;

    /// Peers.
    async fn region_all(&self) -> Result<Vec<RegionRow>, Error>;

    /// Inserts or replaces a peer.
    async fn region_put(&self, row: RegionRow) -> Result<(), Error>;

    /// Positions of all sources.
    async fn position_all(&self) -> Result<Vec<PositionRow>, Error>;

    /// Moves positions forward; durable data must be ahead of them (E2).
    async fn position_put(&self, rows: Vec<PositionRow>) -> Result<(), Error>;

    /// Quarantined runs, by run and source: entries of two regions may set the same run aside (E1).
    async fn quarantine_all(&self) -> Result<Vec<QuarantineRow>, Error>;

    /// Inserts or replaces one.
    async fn quarantine_put(&self, row: QuarantineRow) -> Result<(), Error>;

    /// Removes what the entries of one source set aside; another source's stays.
    async fn quarantine_remove(&self, key: &RunKey, source: u32) -> Result<(), Error>;
}

/// Everything a node needs of its database.
pub trait Store: ShardStore + RunStore + IndexStore + VisibilityStore + NamespaceStore + RegionStore {}

impl<T> Store for T where
    T: ShardStore + RunStore + IndexStore + VisibilityStore + NamespaceStore + RegionStore
{
}

/// The id of a namespace record.
pub(crate) fn namespace_id(record: &antipode_proto::core::NamespaceRecord) -> Result<NamespaceId, Error> {
    record.id.parse().map_err(|_| Error::Invalid(format!("namespace id {:?} is not a UUID", record.id)))
}
