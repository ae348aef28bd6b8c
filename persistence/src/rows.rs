//! What a commit carries and what reads return: plain rows in our nouns, the same for every backend.

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    ids::{Incarnation, NamespaceId, RangeId, RunKey, Sequence, ShardId, Timestamp, WorkflowKey},
};
use antipode_proto::core as wire;
use bytes::Bytes;

/// A shard as its new owner finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// Fencing token of this ownership; larger than every earlier one.
    pub range: RangeId,
    /// Last committed position of the shard's log (C1).
    pub sequence: Sequence,
}

/// What one shard commits at once: all or nothing, under its fence (D3, D4). At most one final value a row.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Shard.
    pub shard: ShardId,
    /// Fencing token of the owner.
    pub range: RangeId,
    /// Position the group builds on; any other stored value rejects the group.
    pub after: Sequence,
    /// Position after the group.
    pub through: Sequence,
    /// Runs that leave the store with everything of theirs: row, batches, index entries, visibility. They go before anything
    /// of the group is written: a row for the same run in `runs` is what stays in its place (C6).
    pub deletes: Vec<RunKey>,
    /// Workflow ids whose current record leaves the store: the only way in which one is ever lowered (B6).
    pub forgets: Vec<WorkflowKey>,
    /// History batches with their positions, each in (after, through].
    pub batches: Vec<BatchRow>,
    /// Runs as they are after the group.
    pub runs: Vec<RunRow>,
    /// Current records as they are after the group.
    pub currents: Vec<CurrentRow>,
    /// Changes of the dispatch index (C2).
    pub dispatch: Vec<DispatchChange>,
    /// Changes of the obligation index (C3).
    pub obligations: Vec<ObligationChange>,
    /// Visibility as it is after the group (C8).
    pub visibility: Vec<VisibilityRow>,
}

/// One history batch in the shard's log.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// Position in this store's log of the shard (not the origin's).
    pub sequence: Sequence,
    /// The batch.
    pub batch: Arc<Batch>,
}

/// The small row of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Run.
    pub key: RunKey,
    /// Position of its last change (C1): moved to the tip by every change.
    pub changed_at: Sequence,
    /// Earliest timer or timeout; may be too early, never too late (C5).
    pub wake_at: Option<Timestamp>,
    /// Encoded [`wire::RunHead`].
    pub head: Bytes,
}

/// Which run owns a workflow id (B6).
#[derive(Clone, Debug, PartialEq)]
pub struct CurrentRow {
    /// Namespace and workflow id.
    pub key: WorkflowKey,
    /// The record.
    pub record: wire::CurrentRecord,
}

/// Kind of task in the dispatch index and of task queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TaskKind {
    /// Workflow tasks.
    Workflow = 1,
    /// Activity tasks.
    Activity = 2,
}

/// Row of the dispatch index: this run has work for this queue; what exactly is read from the run (C2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DispatchRow {
    /// Namespace and run.
    pub key: RunKey,
    /// Task queue (the normal one: sticky bindings are memory only).
    pub queue: String,
    /// Kind.
    pub kind: TaskKind,
    /// Position of the transition that made it: order of dispatch within a queue.
    pub order: Sequence,
}

/// Change of the dispatch index; the key is (run, queue, kind).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DispatchChange {
    /// Insert or replace.
    Put(DispatchRow),
    /// Remove, if there.
    Remove {
        /// Run.
        key: RunKey,
        /// Queue.
        queue: String,
        /// Kind.
        kind: TaskKind,
    },
}

/// Change of the obligation index (C3); at most one row a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObligationChange {
    /// Insert or replace.
    Put {
        /// Run that owes.
        key: RunKey,
        /// Next attempt.
        due: Timestamp,
    },
    /// Remove, if there.
    Remove {
        /// Run.
        key: RunKey,
    },
}

/// A run as built-in visibility shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct VisibilityRow {
    /// Run.
    pub key: RunKey,
    /// Workflow type.
    pub workflow_type: String,
    /// Task queue.
    pub task_queue: String,
    /// `temporal.api.enums.v1.WorkflowExecutionStatus`.
    pub status: i32,
    /// Start.
    pub start: Timestamp,
    /// Start plus first workflow task back-off.
    pub execution: Timestamp,
    /// Close, when closed.
    pub close: Option<Timestamp>,
    /// Events, when closed.
    pub history_length: i64,
    /// Bytes, when closed.
    pub history_size: i64,
    /// State transitions, when closed.
    pub transitions: i64,
    /// Encoded `temporal.api.common.v1.Memo`.
    pub memo: Bytes,
    /// Encoded `temporal.api.common.v1.SearchAttributes`.
    pub search_attributes: Bytes,
    /// First run of the chain.
    pub first_run: String,
    /// A zombie or superseded run: not listed unless asked for by run id (A9).
    pub superseded: bool,
}

/// A run as loaded: its row and the batches of all its branches in commit order of this store.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// Row.
    pub row: RunRow,
    /// Batches with their positions.
    pub batches: Vec<BatchRow>,
}

/// One entry of a shard's log from a position: batches by position, and runs whose registers changed (C1).
#[derive(Clone, Debug)]
pub enum LogEntry {
    /// A history batch.
    Batch(BatchRow),
    /// A run that changed at this position: its head carries the registers and pending events as of now.
    Run(RunRow),
}

impl LogEntry {
    /// Position.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        match self {
            Self::Batch(row) => row.sequence,
            Self::Run(row) => row.changed_at,
        }
    }
}

/// Part of a shard's log: everything in (after, through], in order of position (C1).
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// End of the range the entries are complete for.
    pub through: Sequence,
    /// Entries; batches before the run row of the same position.
    pub entries: Vec<LogEntry>,
}

/// A namespace record with the local order of its last change (D6).
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceRow {
    /// Id.
    pub id: NamespaceId,
    /// Record.
    pub record: wire::NamespaceRecord,
    /// Local notification version (R124): grows with each write in this store, never compared between regions.
    pub notification: u64,
}

/// A peer region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRow {
    /// Name.
    pub name: String,
    /// Initial version (R109).
    pub initial: u32,
    /// Address of its gRPC listener.
    pub address: String,
    /// Connection enabled.
    pub enabled: bool,
    /// Removed; its residue is never given away again (I29).
    pub retired: bool,
}

/// How far this store has durably applied one shard of a source (E2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PositionRow {
    /// Source region.
    pub source: u32,
    /// Life of the source's store.
    pub incarnation: Incarnation,
    /// Shard there.
    pub shard: ShardId,
    /// Proved position.
    pub sequence: Sequence,
}

/// A run that could not be applied (E1): the first failing entry of one source; its later ones only mark it behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Run.
    pub key: RunKey,
    /// Source region.
    pub source: u32,
    /// Why.
    pub reason: String,
    /// Encoded `antipode.link.v1.Entry`.
    pub entry: Bytes,
    /// Since.
    pub since: Timestamp,
    /// Entries that came after.
    pub behind: u64,
}

/// Who a store belongs to; written once, checked at every opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Region name.
    pub region: String,
    /// Initial version.
    pub initial: u32,
    /// Version increment.
    pub increment: u32,
    /// Number of shards.
    pub shards: u32,
    /// Cluster id shown by the API.
    pub cluster_id: String,
    /// Life of the store (E2).
    pub incarnation: Incarnation,
}
