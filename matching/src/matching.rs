//! The service: what shards, the frontend and operators call.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use antipode_core::ids::{NamespaceId, Timestamp};
use antipode_env::{Clock, Entropy};
use antipode_history::{
    api::{Dispatcher, Offer, Taken, TaskKind},
    client::Client,
};
use antipode_proto::api::taskqueue::v1::PollerInfo;
use prometheus_client::registry::Registry;

use crate::{
    cell::Cell,
    history::History,
    metrics::Metrics,
    query::Queries,
    queue::{Offered, Queue, Shown, Ticket},
    queues::Queues,
};

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tasks that one queue keeps in memory; beyond them shards keep theirs on disk (C2).
    pub credit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { credit: 2_000 }
    }
}

/// All task queues of a node. Cheap to clone. Keeps nothing durable and can die at any time (C2).
pub struct Matching<H = Client> {
    pub(crate) shared: Arc<Shared<H>>,
}

impl<H> Clone for Matching<H> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(crate) struct Shared<H> {
    pub(crate) queues: Queues,
    pub(crate) queries: Queries,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    /// This life of matching: makes the request ids of its starts its own.
    pub(crate) incarnation: u64,
    /// Set once: shards and matching each need the other.
    history: OnceLock<H>,
}

/// What operators see of a queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueDescription {
    /// Who polled in the last five minutes.
    pub pollers: Vec<PollerInfo>,
    /// Tasks in memory; those that found no credit are not among them.
    pub backlog: usize,
    /// When the oldest of them was scheduled.
    pub oldest: Option<Timestamp>,
}

impl<H: History> Matching<H> {
    /// Without queues. Takes offers at once; hands tasks out when it is connected.
    #[must_use]
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(registry));
        let incarnation = entropy.u64();
        let shared = Shared {
            queues: Queues::new(settings.credit, metrics.clone()),
            queries: Queries::new(incarnation),
            metrics,
            clock,
            incarnation,
            history: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says where the shards are. The first call counts.
    pub fn connect(&self, history: H) {
        if self.shared.history.set(history).is_err() {
            tracing::warn!("matching was connected twice; the first connection stays");
        }
    }

    /// Who polls a queue and how much waits in it. A queue that nobody has used is empty, not missing.
    #[must_use]
    pub fn describe(&self, namespace: NamespaceId, queue: &str, kind: TaskKind) -> QueueDescription {
        let now = self.shared.now();
        let shown = |sticky| {
            let cell = self.shared.queues.find(namespace, queue, kind, sticky)?;
            Some(cell.look(|queue| queue.show(now)))
        };
        // A sticky queue is asked for by its name alone.
        let Shown { pollers, backlog, oldest } = shown(false).or_else(|| shown(true)).unwrap_or_default();
        let pollers = pollers.into_iter().map(|(identity, seen)| PollerInfo {
            identity: identity.to_string(),
            last_access_time: Some(seen.to_proto()),
            ..PollerInfo::default()
        });
        QueueDescription { pollers: pollers.collect(), backlog, oldest }
    }

    /// The namespace is no longer active here: its tasks belong to another region now. Polls stay, see
    /// [`Matching::cancel_polls`].
    pub fn namespace_passive(&self, namespace: NamespaceId) {
        for cell in self.shared.queues.all(Some(namespace)) {
            let dropped = self.shared.with(&cell, Queue::drop_tasks);
            cell.metrics().dropped("passive", dropped);
        }
    }

    /// Outstanding polls of a namespace return empty, so that workers poll again and are refused or redirected (R232).
    pub fn cancel_polls(&self, namespace: NamespaceId) {
        for cell in self.shared.queues.all(Some(namespace)) {
            self.shared.with(&cell, Queue::end_polls);
        }
    }

    /// The worker of this sticky queue shuts down: its polls return empty, and tasks and queries go to the normal queue
    /// from now on. Tasks that waited here are moved by their schedule-to-start timeout.
    pub fn unload_sticky(&self, namespace: NamespaceId, queue: &str) {
        let Some(cell) = self.shared.queues.find(namespace, queue, TaskKind::Workflow, true) else { return };
        let (dropped, queries) = self.shared.with(&cell, Queue::unload);
        cell.metrics().dropped("unloaded", dropped);
        for query in queries {
            self.shared.queries.fall_back(query);
        }
    }

    /// All polls return empty and queries fail as unavailable, now and later.
    pub fn shutdown(&self) {
        self.shared.queues.close();
        self.shared.queries.close();
    }
}

impl<H: History> Dispatcher for Matching<H> {
    fn offer(&self, offer: Offer) -> Taken {
        let shared = &self.shared;
        let now = shared.now();
        let cell = shared.queues.open(offer.key.namespace, &offer.queue, offer.kind, offer.sticky, now);
        let answer = shared.with(&cell, |queue| queue.offer(offer, now));
        cell.metrics().offered(answer);
        match answer {
            Offered::Handed | Offered::Queued | Offered::Known => Taken::Yes,
            Offered::NoCredit => Taken::NoCredit,
            Offered::StickyUnavailable => Taken::StickyUnavailable,
        }
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MOST: Duration = Duration::from_secs(1);

impl<H: History> Shared<H> {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now())
    }

    pub(crate) fn history(&self) -> Option<&H> {
        self.history.get()
    }

    /// Gives a queue an input and does what comes of it.
    pub(crate) fn with<R>(self: &Arc<Self>, cell: &Arc<Cell>, input: impl FnOnce(&mut Queue) -> R) -> R {
        let (answer, refill) = cell.with(input);
        if refill {
            self.refill(cell);
        }
        answer
    }

    /// Asks the shards to offer again what they have for a queue, until each has taken the request: rows without credit
    /// have no other way back (C2).
    pub(crate) fn refill(self: &Arc<Self>, cell: &Arc<Cell>) {
        cell.metrics().refills.inc();
        if self.ask_refill(cell) {
            return;
        }
        let (shared, cell) = (Arc::downgrade(self), cell.clone());
        spawn(async move {
            let mut pause = RETRY_FIRST;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MOST);
                match shared.upgrade() {
                    Some(shared) if !shared.queues.is_closed() && !shared.ask_refill(&cell) => {}
                    Some(_) | None => return,
                }
            }
        });
    }

    fn ask_refill(&self, cell: &Cell) -> bool {
        let name = &cell.name;
        self.history().is_some_and(|history| history.refill(name.namespace, &name.name, name.kind))
    }

    /// Brings a parked task back after a pause that grows with its failures.
    pub(crate) fn unpark_later(self: &Arc<Self>, cell: &Arc<Cell>, ticket: Ticket, delays: u32) {
        let pause = RETRY_FIRST.saturating_mul(1 << delays.min(7)).min(RETRY_MOST);
        let (shared, cell) = (Arc::downgrade(self), cell.clone());
        spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(shared) = shared.upgrade() {
                shared.with(&cell, |queue| queue.unpark(ticket));
            }
        });
    }
}

/// Off the path of the caller, who may be a shard's loop or a future being dropped. Without a runtime, which is so only
/// while the process ends, nobody needs it any more.
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}
