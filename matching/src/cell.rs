//! One queue and those who sleep at it, behind a lock that is held for a few map operations and never across an await.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use antipode_core::ids::{NamespaceId, Timestamp};
use antipode_history::api::TaskKind;
use smallvec::SmallVec;

use crate::{
    metrics::{ClassMetrics, Metrics},
    queue::{Given, PollerId, Queue, Work},
};

/// Names a queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueName {
    /// Namespace.
    pub(crate) namespace: NamespaceId,
    /// Name.
    pub(crate) name: Arc<str>,
    /// Kind.
    pub(crate) kind: TaskKind,
    /// A worker's own queue.
    pub(crate) sticky: bool,
}

/// A queue in use.
pub(crate) struct Cell {
    /// Its name.
    pub(crate) name: QueueName,
    /// Distinguishes it from all queues of this process, also earlier ones of the same name.
    pub(crate) number: u64,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
}

struct Inner {
    queue: Queue,
    /// Those who wait. A waker is set in the same critical section in which its poller begins to wait.
    wakers: BTreeMap<PollerId, Waker>,
}

impl Cell {
    pub(crate) fn new(name: QueueName, number: u64, queue: Queue, metrics: Arc<Metrics>) -> Self {
        metrics.class(name.kind, name.sticky).queues.inc();
        Self { name, number, metrics, inner: Mutex::new(Inner { queue, wakers: BTreeMap::new() }) }
    }

    /// Counters of its class.
    pub(crate) fn metrics(&self) -> &ClassMetrics {
        self.metrics.class(self.name.kind, self.name.sticky)
    }

    /// Gives the machine an input and does what it says. True: ask the shards for a refill.
    pub(crate) fn with<R>(&self, input: impl FnOnce(&mut Queue) -> R) -> (R, bool) {
        self.locked(|inner| input(&mut inner.queue))
    }

    /// The machine as it is.
    pub(crate) fn look<R>(&self, read: impl FnOnce(&Queue) -> R) -> R {
        read(&self.inner.lock().unwrap_or_else(PoisonError::into_inner).queue)
    }

    /// A poller asks for work, or for being woken. Ready with nothing: its poll ends. The flag is as in [`Cell::with`].
    pub(crate) fn poll_work(&self, id: PollerId, context: &Context<'_>) -> (Poll<Option<Work>>, bool) {
        self.locked(|inner| match inner.queue.take(id) {
            Given::Work(work) => Poll::Ready(Some(work)),
            Given::Ended => Poll::Ready(None),
            Given::Wait => {
                inner.wakers.insert(id, context.waker().clone());
                Poll::Pending
            }
        })
    }

    /// A poll is over. The flag is as in [`Cell::with`].
    pub(crate) fn leave(&self, id: PollerId, now: Timestamp) -> bool {
        let ((), refill) = self.locked(|inner| {
            inner.wakers.remove(&id);
            inner.queue.leave(id, now);
        });
        refill
    }

    fn locked<R>(&self, input: impl FnOnce(&mut Inner) -> R) -> (R, bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sizes(&inner.queue);
        let answer = input(&mut inner);
        let outputs = inner.queue.outputs();
        let woken: SmallVec<[Waker; 2]> =
            outputs.wake.iter().filter_map(|id| inner.wakers.remove(id)).collect();
        let after = sizes(&inner.queue);
        drop(inner);
        // Outside the lock: a woken poller takes it at once on another thread.
        for waker in woken {
            waker.wake();
        }
        self.count(before, after);
        (answer, outputs.refill)
    }

    fn count(&self, before: (i64, i64), after: (i64, i64)) {
        let metrics = self.metrics();
        if before.0 != after.0 {
            metrics.backlog.inc_by(after.0 - before.0);
        }
        if before.1 != after.1 {
            metrics.polls.inc_by(after.1 - before.1);
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let left = inner.queue.queued();
        let (backlog, polls) = sizes(&inner.queue);
        let metrics = self.metrics();
        metrics.dropped("abandoned", left);
        metrics.queues.dec();
        self.count((backlog, polls), (0, 0));
    }
}

/// Backlog and polls.
fn sizes(queue: &Queue) -> (i64, i64) {
    let size = |count| i64::try_from(count).unwrap_or(i64::MAX);
    (size(queue.queued()), size(queue.polls()))
}
