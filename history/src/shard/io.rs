//! What goes into a shard and what comes out: the whole of its contract with a driver, beside the calls of [`super::Shard`].

use std::collections::BTreeSet;

use antipode_core::ids::{
    FailoverVersion, Incarnation, NamespaceId, Nanos, RegionId, RunKey, Sequence, ShardId, Timestamp,
    WorkflowKey,
};
use antipode_persistence::rows::{CurrentRow, DispatchRow, Group, RunRow, StoredRun, TaskKind};

use crate::api::{Applied, Offer, Refusal, Reply};

/// Where an answer goes. The driver's own: a channel in production, a number in the simulator.
pub trait Token: Send + 'static {
    /// Nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        false
    }
}

/// What never changes while a shard is owned.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Shard.
    pub shard: ShardId,
    /// Region.
    pub region: RegionId,
    /// Its name.
    pub region_name: String,
    /// Life of the store.
    pub incarnation: Incarnation,
    /// Bytes of runs kept in memory, about.
    pub cache_bytes: usize,
    /// Entropy for the ids this ownership makes.
    pub seed: [u8; 32],
}

/// A namespace as a shard needs it: an ordered input (D6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    /// Id.
    pub id: NamespaceId,
    /// Name.
    pub name: String,
    /// Version that is written under here; none while another region is active or nobody is.
    pub writable: Option<FailoverVersion>,
    /// Version of the record.
    pub version: FailoverVersion,
    /// Being handed over: calls are held, not refused (F2).
    pub draining: bool,
    /// Active region, by name.
    pub active: String,
    /// How long closed runs are kept; 0: for ever.
    pub retention: Nanos,
    /// Its other regions, by name: a closed run waits for the proof of each (C6).
    pub others: BTreeSet<String>,
}

/// What a shard asks its driver to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// The current record and the run it names.
    Workflow(WorkflowKey),
    /// One run.
    Run(RunKey),
    /// All stored runs of a workflow id: for the operator's view.
    Runs(WorkflowKey),
    /// Runs that are due to wake, of these namespaces.
    Due {
        /// Namespaces active here.
        namespaces: Vec<NamespaceId>,
        /// Horizon.
        until: Timestamp,
    },
    /// Closed runs and tombstones that are due, of all namespaces, at most [`super::OBLIGATION_PAGE`].
    Obligations {
        /// Horizon.
        until: Timestamp,
    },
    /// Dispatch backlog.
    Backlog {
        /// Namespaces active here.
        namespaces: Vec<NamespaceId>,
        /// One queue only.
        queue: Option<(String, TaskKind)>,
        /// After this position.
        after: Sequence,
    },
}

/// What a read brought.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// For [`Load::Workflow`].
    Workflow(Option<CurrentRow>, Option<StoredRun>),
    /// For [`Load::Run`].
    Run(Option<StoredRun>),
    /// For [`Load::Runs`].
    Runs(Vec<RunRow>),
    /// For [`Load::Due`].
    Due(Vec<(Timestamp, RunKey)>),
    /// For [`Load::Obligations`].
    Obligations(Vec<(Timestamp, RunKey)>),
    /// For [`Load::Backlog`].
    Backlog(Vec<DispatchRow>),
    /// The read failed: what waited for it is refused as unavailable.
    Failed(String),
}

/// What a shard gives its driver.
#[derive(Clone, Debug)]
pub enum Output<T> {
    /// Read this and hand it to [`Shard::loaded`].
    Load(Load),
    /// Commit this and report with [`Shard::committed`] or [`Shard::commit_failed`].
    Commit(Group),
    /// Answer a request.
    Answer(T, Result<Reply, Refusal>),
    /// Answer an apply.
    Applied(T, Vec<Applied>),
    /// Answer a barrier.
    Barrier(T, Result<Sequence, Refusal>),
    /// Offer a task to matching and report with [`Shard::offered`].
    Offer(Offer),
    /// A task was discarded: count it by reason (nothing silent).
    Discarded {
        /// Kind.
        kind: TaskKind,
        /// Reason.
        reason: &'static str,
        /// The run and what differs, where the run is here.
        told: Option<Box<(RunKey, antipode_conflict::stale::Discard)>>,
    },
    /// One owner wrote twice (G2): an operator must hear of it.
    Alarm(RunKey, String),
    /// Count something else.
    Count(Event),
    /// What was said to a replicated entry, or what a run became among those of its workflow id, and why.
    Judged(RunKey, Box<antipode_conflict::Judgement>),
    /// A law broke; the words say which. The driver logs it and acquires the shard anew.
    Broken(String),
}

/// Things worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Another branch became current.
    BranchSwitched,
    /// A batch went to a branch that is not current.
    BranchLost,
    /// A register's value lost to one whose writer had not seen it (A6).
    ValueLost,
    /// One owner wrote the same place twice (G2).
    Fork,
    /// External events were written again.
    Reapplied,
    /// External events were filed as unclaimed.
    Unclaimed,
    /// A run was told what another one took from it, before that was deleted.
    Delivered,
    /// A run became a zombie.
    Zombie,
    /// An activity attempt failed and another follows.
    ActivityRetried,
    /// A closed run was deleted at the end of its retention.
    RunDeleted,
    /// A closed run is due, and a peer has no proof of its last change (C6).
    RetentionUnproved,
    /// A closed run is due, and it is quarantined or held back on a link (E1).
    RetentionHeld,
    /// A closed run is due, and clients' events of it are not settled (B1).
    RetentionOwed,
    /// A copy that a restore brought back of a run that a peer had deleted was deleted (C6, E2).
    RunBuried,
    /// What is left of a deleted run went too.
    TombstoneExpired,
    /// An entry came of a run that was deleted; all of it was known.
    LateDuplicate,
    /// A branch of a higher version brought a deleted run back.
    RunResurrected,
}
