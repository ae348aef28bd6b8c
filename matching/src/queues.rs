//! All queues of a node, found by name. Striped, so that offers and polls of different queues rarely meet; a look-up takes
//! a read lock and allocates nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use antipode_core::ids::{NamespaceId, Timestamp};
use antipode_history::api::TaskKind;

use crate::{
    cell::{Cell, QueueName},
    metrics::Metrics,
    queue::Queue,
};

const STRIPES: usize = 16;
/// Queues in a stripe before idle ones are looked for.
const SWEEP_FIRST: usize = 64;

/// Queues of one namespace, kind and stickiness.
type Scope = (NamespaceId, TaskKind, bool);

#[derive(Default)]
struct Stripe {
    scopes: BTreeMap<Scope, BTreeMap<Arc<str>, Arc<Cell>>>,
    queues: usize,
    /// Idle queues are looked for when there are so many: twice what the last search left.
    sweep_at: usize,
}

/// All queues.
pub(crate) struct Queues {
    stripes: [RwLock<Stripe>; STRIPES],
    credit: usize,
    next_number: AtomicU64,
    closed: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Queues {
    pub(crate) fn new(credit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            stripes: std::array::from_fn(|_| RwLock::default()),
            credit,
            next_number: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            metrics,
        }
    }

    /// The queue of this name, if it is in memory.
    pub(crate) fn find(
        &self,
        namespace: NamespaceId,
        name: &str,
        kind: TaskKind,
        sticky: bool,
    ) -> Option<Arc<Cell>> {
        let stripe = self.stripe(name).read().unwrap_or_else(PoisonError::into_inner);
        stripe.scopes.get(&(namespace, kind, sticky))?.get(name).cloned()
    }

    /// The queue of this name.
    pub(crate) fn open(
        &self,
        namespace: NamespaceId,
        name: &str,
        kind: TaskKind,
        sticky: bool,
        now: Timestamp,
    ) -> Arc<Cell> {
        if let Some(cell) = self.find(namespace, name, kind, sticky) {
            return cell;
        }
        let mut stripe = self.write(self.stripe(name));
        if stripe.queues >= stripe.sweep_at.max(SWEEP_FIRST) {
            stripe.sweep(now);
        }
        let scope = stripe.scopes.entry((namespace, kind, sticky)).or_default();
        if let Some(cell) = scope.get(name) {
            return cell.clone();
        }
        let mut queue = Queue::new(sticky, self.credit, now);
        // Read under the stripe's lock, which `close` takes after it has set the flag: no queue slips through.
        if self.closed.load(Ordering::SeqCst) {
            queue.close();
        }
        let name = QueueName { namespace, name: Arc::from(name), kind, sticky };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let cell = Arc::new(Cell::new(name.clone(), number, queue, self.metrics.clone()));
        scope.insert(name.name, cell.clone());
        stripe.queues += 1;
        cell
    }

    /// All queues there are, of one namespace or of all.
    pub(crate) fn all(&self, namespace: Option<NamespaceId>) -> Vec<Arc<Cell>> {
        let mut found = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.read().unwrap_or_else(PoisonError::into_inner);
            let scopes =
                stripe.scopes.iter().filter(|((owner, ..), _)| namespace.is_none_or(|id| id == *owner));
            found.extend(scopes.flat_map(|(_, queues)| queues.values().cloned()));
        }
        found
    }

    /// Ends all polls, now and later.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for stripe in &self.stripes {
            let cells: Vec<_> =
                self.write(stripe).scopes.values().flat_map(|queues| queues.values().cloned()).collect();
            for cell in cells {
                cell.with(Queue::close);
            }
        }
    }

    /// Whether [`Queues::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn write<'a>(&self, stripe: &'a RwLock<Stripe>) -> RwLockWriteGuard<'a, Stripe> {
        stripe.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe(&self, name: &str) -> &RwLock<Stripe> {
        // FNV-1a, and one round more: names differ in a few characters, often the last, which reaches few bits alone.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.stripes[(mixed >> 60) as usize % STRIPES]
    }
}

impl Stripe {
    /// Removes idle queues. Whoever holds a queue's `Arc` is about to use it, and nobody can get one meanwhile.
    fn sweep(&mut self, now: Timestamp) {
        self.scopes.retain(|_, queues| {
            queues.retain(|_, cell| Arc::strong_count(cell) > 1 || !cell.look(|queue| queue.is_idle(now)));
            !queues.is_empty()
        });
        self.queues = self.scopes.values().map(BTreeMap::len).sum();
        self.sweep_at = self.queues * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antipode_core::ids::Nanos;
    use prometheus_client::registry::Registry;

    fn open(queues: &Queues, name: &str, now: Timestamp) -> Arc<Cell> {
        queues.open(NamespaceId::from_random([1; 16]), name, TaskKind::Workflow, false, now)
    }

    #[test]
    fn idle_queues_go_and_used_ones_stay() {
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let queues = Queues::new(10, metrics.clone());
        let start = Timestamp(0);
        let polled = open(&queues, "polled", start);
        let (poller, _) = polled.with(|queue| queue.arrive("worker", start));
        drop(polled);
        for number in 0..STRIPES * SWEEP_FIRST * 2 {
            open(&queues, &format!("idle-{number}"), start);
        }
        let many = queues.all(None).len();
        assert_eq!(many, STRIPES * SWEEP_FIRST * 2 + 1);
        let later = start.plus(Nanos::seconds(301));
        for number in 0..STRIPES * SWEEP_FIRST * 4 {
            open(&queues, &format!("later-{number}"), later);
        }
        let left = queues.all(None);
        assert!(left.iter().all(|cell| !cell.name.name.starts_with("idle-")), "idle queues went");
        let kept = open(&queues, "polled", later);
        assert_eq!(kept.look(Queue::polls), 1, "the polled queue is the one it was");
        kept.leave(poller, later);
        let gauge = metrics.class(TaskKind::Workflow, false).queues.get();
        assert_eq!(gauge, i64::try_from(left.len()).unwrap());
    }
}
