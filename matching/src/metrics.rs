//! What matching counts. Queues have no label: their number is the users' to choose, and `DescribeTaskQueue` shows each.

use antipode_history::api::TaskKind;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::queue::Offered;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The counters of one class of queues, looked up once.
#[derive(Debug)]
pub(crate) struct ClassMetrics {
    class: &'static str,
    handed: Counter,
    queued: Counter,
    known: Counter,
    no_credit: Counter,
    sticky_unavailable: Counter,
    /// Delivered to a poller that was waiting when the task was offered.
    pub(crate) sync: Counter,
    /// Delivered from the backlog.
    pub(crate) backlog_delivered: Counter,
    /// Polls that ended empty.
    pub(crate) empty: Counter,
    /// Requests for a refill.
    pub(crate) refills: Counter,
    /// Tasks in backlogs.
    pub(crate) backlog: Gauge,
    /// Polls in progress.
    pub(crate) polls: Gauge,
    /// Queues.
    pub(crate) queues: Gauge,
    stale: Family<Labels<2>, Counter>,
    dropped: Family<Labels<2>, Counter>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Metrics {
    workflow: ClassMetrics,
    sticky: ClassMetrics,
    activity: ClassMetrics,
    queries: Family<Labels<1>, Counter>,
}

impl Metrics {
    /// Registers everything under `matching_`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("matching");
        let families = Families::new(registry);
        let queries = Family::default();
        registry.register("queries", "Queries through matching, by how they ended", queries.clone());
        Self {
            workflow: families.class("workflow"),
            sticky: families.class("workflow_sticky"),
            activity: families.class("activity"),
            queries,
        }
    }

    pub(crate) const fn class(&self, kind: TaskKind, sticky: bool) -> &ClassMetrics {
        match (kind, sticky) {
            (TaskKind::Workflow, false) => &self.workflow,
            (TaskKind::Workflow, true) => &self.sticky,
            (TaskKind::Activity, _) => &self.activity,
        }
    }

    /// A query ended.
    pub(crate) fn query(&self, outcome: &'static str) {
        self.queries.get_or_create(&[("outcome", outcome)]).inc();
    }
}

impl ClassMetrics {
    /// A task was offered.
    pub(crate) fn offered(&self, answer: Offered) {
        match answer {
            Offered::Handed => &self.handed,
            Offered::Queued => &self.queued,
            Offered::Known => &self.known,
            Offered::NoCredit => &self.no_credit,
            Offered::StickyUnavailable => &self.sticky_unavailable,
        }
        .inc();
    }

    /// A task no longer fitted its run.
    pub(crate) fn stale(&self, reason: &'static str) {
        self.stale.get_or_create(&[("queue", self.class), ("reason", reason)]).inc();
    }

    /// Tasks were let go; their shards derive them again.
    pub(crate) fn dropped(&self, reason: &'static str, tasks: usize) {
        if tasks > 0 {
            let tasks = u64::try_from(tasks).unwrap_or(u64::MAX);
            self.dropped.get_or_create(&[("queue", self.class), ("reason", reason)]).inc_by(tasks);
        }
    }
}

struct Families {
    offered: Family<Labels<2>, Counter>,
    dispatched: Family<Labels<2>, Counter>,
    stale: Family<Labels<2>, Counter>,
    dropped: Family<Labels<2>, Counter>,
    empty: Family<Labels<1>, Counter>,
    refills: Family<Labels<1>, Counter>,
    backlog: Family<Labels<1>, Gauge>,
    polls: Family<Labels<1>, Gauge>,
    queues: Family<Labels<1>, Gauge>,
}

impl Families {
    fn new(registry: &mut Registry) -> Self {
        let families = Self {
            offered: Family::default(),
            dispatched: Family::default(),
            stale: Family::default(),
            dropped: Family::default(),
            empty: Family::default(),
            refills: Family::default(),
            backlog: Family::default(),
            polls: Family::default(),
            queues: Family::default(),
        };
        registry.register("tasks_offered", "Tasks offered by shards, by answer", families.offered.clone());
        registry.register(
            "tasks_dispatched",
            "Tasks delivered to pollers: sync to one that waited, backlog to one that came later",
            families.dispatched.clone(),
        );
        registry.register(
            "tasks_stale",
            "Tasks that no longer fitted their run when a poller was there for them, by reason",
            families.stale.clone(),
        );
        registry.register(
            "tasks_dropped",
            "Tasks let go undelivered and derived again by their shard, by reason",
            families.dropped.clone(),
        );
        registry.register("polls_empty", "Polls that ended without work", families.empty.clone());
        registry.register("refills", "Requests to shards to offer again", families.refills.clone());
        registry.register("backlog", "Tasks in backlogs", families.backlog.clone());
        registry.register("polls", "Polls in progress", families.polls.clone());
        registry.register("queues", "Task queues in memory", families.queues.clone());
        families
    }

    fn class(&self, class: &'static str) -> ClassMetrics {
        let offered = |answer| self.offered.get_or_create(&[("queue", class), ("answer", answer)]).clone();
        let dispatched = |how| self.dispatched.get_or_create(&[("queue", class), ("match", how)]).clone();
        let only = [("queue", class)];
        ClassMetrics {
            class,
            handed: offered("handed"),
            queued: offered("queued"),
            known: offered("known"),
            no_credit: offered("no_credit"),
            sticky_unavailable: offered("sticky_unavailable"),
            sync: dispatched("sync"),
            backlog_delivered: dispatched("backlog"),
            empty: self.empty.get_or_create(&only).clone(),
            refills: self.refills.get_or_create(&only).clone(),
            backlog: self.backlog.get_or_create(&only).clone(),
            polls: self.polls.get_or_create(&only).clone(),
            queues: self.queues.get_or_create(&only).clone(),
            stale: self.stale.clone(),
            dropped: self.dropped.clone(),
        }
    }
}
