//! One task queue as a pure machine: what is offered, who polls, who gets what. No clock, no locks, no tasks of a runtime;
//! time comes in as an argument, and after every input the driver drains [`Queue::outputs`] before the next one.
//!
//! Laws, checked by [`Queue::check`] in debug builds and by the property tests:
//! - M1 an accepted task is in exactly one place: backlog, parked, or held by one poller; it leaves once.
//! - M2 nobody waits while there is work.
//! - M3 tasks are handed out in the order of their offers; one that came back takes its old place.
//! - M4 backlog and parked together never exceed the credit by more than what pollers brought back.
//!
//! Nothing here is durable (C2): what is lost with it is derived again by the shards.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_core::ids::{Nanos, RunId, RunKey, Timestamp};
use antipode_history::api::{Offer, TaskRef};
use smallvec::SmallVec;

/// A sticky queue that nobody has polled for so long refuses tasks, and queries go round it (api-surface 4.3).
pub(crate) const STICKY_PATIENCE: Nanos = Nanos::seconds(10);
/// How long a poller is shown after its last poll.
pub(crate) const POLLER_SHOWN: Nanos = Nanos::seconds(300);

/// One poll, from its arrival to its end. Grows with each arrival, so that the smallest has waited longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PollerId(pub(crate) u64);

/// Place of a task in its queue: the order of its offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// A query that waits for a poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueryId(pub(crate) u64);

/// A task in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its place.
    pub(crate) ticket: Ticket,
    /// Run.
    pub(crate) key: RunKey,
    /// Which task of the run.
    pub(crate) task: TaskRef,
    /// When it was scheduled.
    pub(crate) scheduled_at: Timestamp,
    /// How often its shard could not be asked.
    pub(crate) delays: u32,
}

impl Task {
    fn name(&self) -> Name {
        (self.key.run, self.task.clone())
    }
}

/// What a poller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A task; `sync` when it met a waiting poller instead of lying in the backlog.
    Task {
        /// The task.
        task: Task,
        /// Met a waiting poller.
        sync: bool,
    },
    /// A query.
    Query(QueryId),
}

/// Answer to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// A waiting poller has it.
    Handed,
    /// It lies in the backlog.
    Queued,
    /// It was here already.
    Known,
    /// The backlog is full; the queue will ask for a refill.
    NoCredit,
    /// Nobody polls this sticky queue, or its worker cannot keep up.
    StickyUnavailable,
}

/// Answer to a poller that asks for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// This; the poller holds it until it settles or leaves.
    Work(Work),
    /// Nothing yet: the poller waits and will be woken.
    Wait,
    /// The poll ends empty.
    Ended,
}

/// What became of the work that a poller held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The worker gets it.
    Delivered,
    /// Its shard refused it for good.
    Refused,
    /// Its shard could not be asked: again later.
    Delayed,
}

/// What the driver does next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// Pollers to wake: each holds work, or has ended.
    pub(crate) wake: SmallVec<[PollerId; 2]>,
    /// Ask the shards to offer again what they have for this queue.
    pub(crate) refill: bool,
}

/// What operators see of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Identity and last access, in order of identity.
    pub(crate) pollers: Vec<(Arc<str>, Timestamp)>,
    /// Tasks not handed out.
    pub(crate) backlog: usize,
    /// When the first of them was scheduled.
    pub(crate) oldest: Option<Timestamp>,
}

type Name = (RunId, TaskRef);

/// Where a known task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    Held(PollerId),
}

#[derive(Debug)]
enum Held {
    /// `again`: offered again while the shard was being asked. If the shard refuses, that offer may be younger than the
    /// refusal (a drain that ended, a commit that failed), so that the task is asked for once more instead of forgotten.
    Task {
        task: Task,
        sync: bool,
        again: bool,
    },
    Query(QueryId),
}

#[derive(Debug)]
struct Poller {
    identity: Arc<str>,
    held: Option<Held>,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    sticky: bool,
    credit: usize,
    next_ticket: u64,
    next_poller: u64,
    backlog: BTreeMap<Ticket, Task>,
    /// Tasks whose shard could not be asked, until the driver's timer brings them back.
    parked: BTreeMap<Ticket, Task>,
    known: BTreeMap<Name, Place>,
    queries: VecDeque<QueryId>,
    /// The last work was a query: a task is next, so that neither starves the other.
    query_last: bool,
    pollers: BTreeMap<PollerId, Poller>,
    waiting: BTreeSet<PollerId>,
    /// Polls older than this end empty.
    ended_before: PollerId,
    closed: bool,
    identities: BTreeMap<Arc<str>, Timestamp>,
    last_poll: Option<Timestamp>,
    touched: Timestamp,
    /// An offer was turned away since the last refill.
    starved: bool,
    /// Somebody has polled since the queue knows nothing.
    polled: bool,
    outputs: Outputs,
}

impl Queue {
    /// Empty.
    pub(crate) fn new(sticky: bool, credit: usize, now: Timestamp) -> Self {
        Self {
            sticky,
            credit,
            next_ticket: 0,
            next_poller: 0,
            backlog: BTreeMap::new(),
            parked: BTreeMap::new(),
            known: BTreeMap::new(),
            queries: VecDeque::new(),
            query_last: false,
            pollers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            ended_before: PollerId(0),
            closed: false,
            identities: BTreeMap::new(),
            last_poll: None,
            touched: now,
            starved: false,
            polled: false,
            outputs: Outputs::default(),
        }
    }

    /// What the driver does now. Drained after every input.
    pub(crate) fn outputs(&mut self) -> Outputs {
        // Half empty, and not at the first free place: a refill costs the shards a scan (C2).
        if self.starved && self.queued() * 2 < self.credit {
            self.starved = false;
            self.outputs.refill = true;
        }
        self.check();
        std::mem::take(&mut self.outputs)
    }

    /// Tasks not handed out.
    pub(crate) fn queued(&self) -> usize {
        self.backlog.len() + self.parked.len()
    }

    /// Polls in progress.
    pub(crate) fn polls(&self) -> usize {
        self.pollers.len()
    }

    /// A poll is in progress, or was within `window`.
    pub(crate) fn has_poller(&self, now: Timestamp, window: Nanos) -> bool {
        self.pollers.range(self.ended_before..).next().is_some()
            || self.last_poll.is_some_and(|seen| within(seen, now, window))
    }

    /// A shard offers a task.
    pub(crate) fn offer(&mut self, offer: Offer, now: Timestamp) -> Offered {
        self.touched = now;
        let name = (offer.key.run, offer.task);
        match self.known.get(&name) {
            Some(Place::Queued) => return Offered::Known,
            Some(Place::Held(poller)) => {
                if let Some(Poller { held: Some(Held::Task { again, .. }), .. }) =
                    self.pollers.get_mut(poller)
                {
                    *again = true;
                }
                return Offered::Known;
            }
            None => {}
        }
        let full = self.waiting.is_empty() && self.queued() >= self.credit;
        // A full sticky queue has a worker that cannot keep up: the normal queue has others. Nor could it be refilled, for
        // the rows on disk name the normal queue.
        if self.sticky && (full || !self.has_poller(now, STICKY_PATIENCE)) {
            return Offered::StickyUnavailable;
        }
        if full {
            self.starved = true;
            return Offered::NoCredit;
        }
        let (_, task) = name;
        let ticket = self.ticket();
        self.enqueue(Task { ticket, key: offer.key, task, scheduled_at: offer.scheduled_at, delays: 0 });
        self.feed(true);
        if self.backlog.contains_key(&ticket) { Offered::Queued } else { Offered::Handed }
    }

    /// A poll begins. It asks for work with [`Queue::take`] and ends with [`Queue::leave`], whatever happens between.
    pub(crate) fn arrive(&mut self, identity: &str, now: Timestamp) -> PollerId {
        let id = PollerId(self.next_poller);
        self.next_poller += 1;
        let identity = match self.identities.get_key_value(identity) {
            Some((known, _)) => known.clone(),
            None => {
                self.identities.retain(|_, seen| within(*seen, now, POLLER_SHOWN));
                Arc::from(identity)
            }
        };
        self.seen(&identity, now);
        self.pollers.insert(id, Poller { identity, held: None });
        if !self.polled {
            self.polled = true;
            // A new incarnation knows nothing, and whoever polls is what the shards' rows wait for (C2). Sticky queues
            // have no rows.
            self.outputs.refill |= !self.sticky;
        }
        id
    }

    /// A poller asks for work: what it already holds, or the next, or it waits.
    pub(crate) fn take(&mut self, id: PollerId) -> Given {
        let ended = self.closed || id < self.ended_before;
        let Some(poller) = self.pollers.get(&id) else { return Given::Ended };
        if let Some(held) = &poller.held {
            return Given::Work(held.work());
        }
        if ended {
            return Given::Ended;
        }
        let Some(held) = self.next(false) else {
            self.waiting.insert(id);
            return Given::Wait;
        };
        let work = held.work();
        self.waiting.remove(&id);
        self.hold(id, held);
        Given::Work(work)
    }

    /// What became of the work that a poller held. A delayed task is parked: its ticket is returned, and the driver
    /// brings it back with [`Queue::unpark`].
    pub(crate) fn settle(&mut self, id: PollerId, outcome: Outcome) -> Option<Ticket> {
        let Some(Held::Task { mut task, again, .. }) =
            self.pollers.get_mut(&id).and_then(|poller| poller.held.take())
        else {
            return None;
        };
        match outcome {
            Outcome::Delayed => {
                task.delays = task.delays.saturating_add(1);
                let ticket = task.ticket;
                self.known.insert(task.name(), Place::Queued);
                self.parked.insert(ticket, task);
                return Some(ticket);
            }
            Outcome::Refused if again => {
                let ticket = self.ticket();
                self.enqueue(Task { ticket, delays: 0, ..task });
                self.feed(false);
            }
            Outcome::Refused | Outcome::Delivered => {
                self.known.remove(&task.name());
            }
        }
        None
    }

    /// A poll is over, whether it got something or its client went away. What it still holds goes back to its place.
    pub(crate) fn leave(&mut self, id: PollerId, now: Timestamp) {
        self.waiting.remove(&id);
        let Some(poller) = self.pollers.remove(&id) else { return };
        if id >= self.ended_before {
            self.seen(&poller.identity, now);
        }
        match poller.held {
            Some(Held::Task { task, .. }) => self.enqueue(task),
            Some(Held::Query(query)) => self.queries.push_front(query),
            None => return,
        }
        self.feed(false);
    }

    /// A parked task may be tried again.
    pub(crate) fn unpark(&mut self, ticket: Ticket) {
        if let Some(task) = self.parked.remove(&ticket) {
            self.backlog.insert(ticket, task);
            self.feed(false);
        }
    }

    /// A query wants a poller.
    pub(crate) fn ask(&mut self, query: QueryId, now: Timestamp) {
        self.touched = now;
        self.queries.push_back(query);
        self.feed(true);
    }

    /// A query no longer wants one.
    pub(crate) fn withdraw(&mut self, query: QueryId) {
        self.queries.retain(|waiting| *waiting != query);
    }

    /// All polls in progress end empty (R232); one whose task is being started still delivers it.
    pub(crate) fn end_polls(&mut self) {
        self.ended_before = PollerId(self.next_poller);
        self.outputs.wake.extend(std::mem::take(&mut self.waiting));
    }

    /// All polls end empty, now and later.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.end_polls();
    }

    /// Forgets all tasks that are not being started; how many.
    pub(crate) fn drop_tasks(&mut self) -> usize {
        let dropped = self.queued();
        self.backlog.clear();
        self.parked.clear();
        self.known.retain(|_, place| matches!(place, Place::Held(_)));
        for poller in self.pollers.values_mut() {
            if let Some(Held::Task { again, .. }) = &mut poller.held {
                *again = false;
            }
        }
        // It knows nothing again, as after its creation.
        self.starved = false;
        self.polled = false;
        dropped
    }

    /// The worker of a sticky queue shuts down: nothing more comes here, what waits goes elsewhere. Returns the number of
    /// dropped tasks and the queries that need another queue.
    pub(crate) fn unload(&mut self) -> (usize, Vec<QueryId>) {
        self.end_polls();
        self.last_poll = None;
        (self.drop_tasks(), std::mem::take(&mut self.queries).into())
    }

    /// Whether it can be removed: nothing in it, nobody at it for as long as pollers are shown. The tasks of an abandoned
    /// sticky queue do not keep it: their schedule-to-start timeout has moved them long ago.
    pub(crate) fn is_idle(&self, now: Timestamp) -> bool {
        self.pollers.is_empty()
            && self.queries.is_empty()
            && (self.sticky || self.queued() == 0)
            && !within(self.touched, now, POLLER_SHOWN)
    }

    /// For operators.
    pub(crate) fn show(&self, now: Timestamp) -> Shown {
        let recent = self.identities.iter().filter(|(_, seen)| within(**seen, now, POLLER_SHOWN));
        Shown {
            pollers: recent.map(|(identity, seen)| (identity.clone(), *seen)).collect(),
            backlog: self.queued(),
            oldest: self.backlog.values().chain(self.parked.values()).map(|task| task.scheduled_at).min(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn seen(&mut self, identity: &Arc<str>, now: Timestamp) {
        self.touched = now;
        self.last_poll = Some(now);
        self.identities.insert(identity.clone(), now);
    }

    fn enqueue(&mut self, task: Task) {
        self.known.insert(task.name(), Place::Queued);
        self.backlog.insert(task.ticket, task);
    }

    fn hold(&mut self, id: PollerId, held: Held) {
        if let Held::Task { task, .. } = &held {
            self.known.insert(task.name(), Place::Held(id));
        }
        if let Some(poller) = self.pollers.get_mut(&id) {
            poller.held = Some(held);
        }
    }

    /// The next work, taken out. Queries are before the backlog, since somebody waits for each, but alternate with it.
    fn next(&mut self, sync: bool) -> Option<Held> {
        let query_first = self.backlog.is_empty() || !self.query_last;
        if query_first && let Some(query) = self.queries.pop_front() {
            self.query_last = true;
            return Some(Held::Query(query));
        }
        let (_, task) = self.backlog.pop_first()?;
        self.query_last = false;
        Some(Held::Task { task, sync, again: false })
    }

    /// M2: gives work to those who wait, longest first.
    fn feed(&mut self, sync: bool) {
        while let Some(id) = self.waiting.first().copied() {
            let Some(held) = self.next(sync) else { return };
            self.waiting.remove(&id);
            self.hold(id, held);
            self.outputs.wake.push(id);
        }
    }

    /// The laws of the head comment.
    fn check(&self) {
        debug_assert!(
            self.waiting.is_empty() || (self.backlog.is_empty() && self.queries.is_empty()),
            "M2 nobody waits while there is work"
        );
        if cfg!(test) {
            self.check_places();
        }
    }

    fn check_places(&self) {
        let queued =
            self.backlog.values().chain(self.parked.values()).map(|task| (task.name(), Place::Queued));
        let held = self.pollers.iter().filter_map(|(id, poller)| match &poller.held {
            Some(Held::Task { task, .. }) => Some((task.name(), Place::Held(*id))),
            Some(Held::Query(_)) | None => None,
        });
        let places: Vec<_> = queued.chain(held).collect();
        assert_eq!(places.len(), self.known.len(), "M1 every known task is in one place");
        for (name, place) in &places {
            assert_eq!(self.known.get(name), Some(place), "M1 a task is where it is known to be");
        }
    }
}

impl Held {
    fn work(&self) -> Work {
        match self {
            Self::Task { task, sync, .. } => Work::Task { task: task.clone(), sync: *sync },
            Self::Query(query) => Work::Query(*query),
        }
    }
}

/// A clock that went back makes things look recent, never old.
fn within(seen: Timestamp, now: Timestamp, window: Nanos) -> bool {
    now.0.saturating_sub(seen.0) <= window.0
}
