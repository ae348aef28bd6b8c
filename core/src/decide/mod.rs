//! Decisions: what a command, a request or a passed deadline turns into. Each is a function of a run, the request and a
//! context; it writes events only through [`Draft`], which folds every event as it is written, so the state after a
//! decision *is* the fold of what was decided. Nothing is drafted before everything that can be refused was checked.

pub mod activity;
pub mod close;
pub mod commands;
mod draft;
pub mod due;
pub mod external;
pub mod reapply;
pub mod start;
pub mod workflow_task;

use std::sync::Arc;

pub use draft::{Draft, Seat};

use crate::{
    batch::Batch,
    clocks::Clocks,
    ids::{FailoverVersion, RegionId, Timestamp},
    refusal::Refusal,
    run::Run,
};

/// What a decision may know besides the run and the request.
#[derive(Clone, Debug)]
pub struct Context {
    /// Wall clock of the shard.
    pub now: Timestamp,
    /// Version of the namespace record: the only version written under (A9, F5).
    pub version: FailoverVersion,
    /// This region.
    pub region: RegionId,
    /// Entropy for ids made by this decision.
    pub seed: [u8; 16],
    /// How far the clocks of other regions may be behind this one (H2).
    pub clocks: Arc<Clocks>,
}

/// What a decision made, besides the changed run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The run's new batch; none when only registers or pending events changed, or nothing.
    pub batch: Option<Arc<Batch>>,
    /// The next run of the chain with its first batch.
    pub successor: Option<Box<(Run, Arc<Batch>)>>,
    /// The decision was written, yet the caller is refused (a workflow task that failed by its commands).
    pub refused: Option<Refusal>,
}

impl Outcome {
    /// An outcome with this batch only.
    #[must_use]
    pub fn of(batch: Option<Arc<Batch>>) -> Self {
        Self { batch, ..Self::default() }
    }
}

/// A law broke inside a decision: the run must be dropped and loaded again.
pub(crate) fn broken(why: impl std::fmt::Display) -> Refusal {
    Refusal::Internal(format!("decision and fold disagree: {why}"))
}
