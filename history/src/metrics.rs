//! What shards count: every discarded task by reason, every lost branch, every re-application. Nothing silent.

use antipode_persistence::rows::TaskKind;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::shard::Event;

/// Labels of a discarded task.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Discard {
    /// `workflow` or `activity`.
    pub kind: &'static str,
    /// Why it did not fit.
    pub reason: &'static str,
}

/// Labels of an event of a shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Kind {
    /// Which.
    pub event: &'static str,
}

/// Counters of the shards of one node.
#[derive(Clone, Debug)]
pub struct Metrics {
    discarded: Family<Discard, Counter>,
    events: Family<Kind, Counter>,
    /// Groups committed.
    pub commits: Counter,
    /// Rows of history committed.
    pub batches: Counter,
    /// Commits that failed.
    pub commits_failed: Counter,
    /// Seconds from a group's submission to its durability.
    pub commit_seconds: Histogram,
}

impl Metrics {
    /// Registers the counters.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            discarded: Family::default(),
            events: Family::default(),
            commits: Counter::default(),
            batches: Counter::default(),
            commits_failed: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
        };
        let m = metrics.clone();
        registry.register(
            "antipode_tasks_discarded",
            "Tasks brought back that did not fit their run",
            m.discarded,
        );
        registry.register("antipode_history_events", "What happened to runs beside their history", m.events);
        registry.register("antipode_commits", "Groups committed", m.commits);
        registry.register("antipode_batches", "History batches committed", m.batches);
        registry.register("antipode_commits_failed", "Groups that failed to commit", m.commits_failed);
        registry.register("antipode_commit_seconds", "Time of a group commit", m.commit_seconds);
        metrics
    }

    /// A task was discarded.
    pub fn discard(&self, kind: TaskKind, reason: &'static str) {
        let kind = match kind {
            TaskKind::Workflow => "workflow",
            TaskKind::Activity => "activity",
        };
        self.discarded.get_or_create(&Discard { kind, reason }).inc();
    }

    /// Something happened to a run.
    pub fn event(&self, event: Event) {
        let event = match event {
            Event::BranchSwitched => "branch_switched",
            Event::BranchLost => "branch_lost",
            Event::ValueLost => "value_lost",
            Event::Fork => "fork",
            Event::Reapplied => "reapplied",
            Event::Unclaimed => "unclaimed",
            Event::Delivered => "delivered",
            Event::Zombie => "zombie",
            Event::ActivityRetried => "activity_retried",
            Event::RunDeleted => "run_deleted",
            Event::RetentionUnproved => "retention_unproved",
            Event::RetentionHeld => "retention_held",
            Event::RetentionOwed => "retention_owed",
            Event::RunBuried => "run_buried",
            Event::TombstoneExpired => "tombstone_expired",
            Event::LateDuplicate => "late_duplicate",
            Event::RunResurrected => "run_resurrected",
        };
        self.events.get_or_create(&Kind { event }).inc();
    }
}
