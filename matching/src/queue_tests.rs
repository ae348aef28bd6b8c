//! The machine of one queue against a model that knows only what was promised: cheap abstract actions, which shrink, are
//! mapped to inputs, and after each the laws of `queue` are held against the model's sets.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::ids::{EventId, FailoverVersion, NamespaceId, Nanos, RunId, Timestamp, WorkflowKey};
use antipode_history::api::{Offer, TaskKind, TaskRef};
use proptest::{prelude::*, sample::Index};

use crate::queue::{
    Given, Offered, Outcome, Outputs, POLLER_SHOWN, PollerId, QueryId, Queue, STICKY_PATIENCE, Ticket, Work,
};

const CREDIT: usize = 4;

fn offer(number: u8) -> Offer {
    let workflow = WorkflowKey { namespace: NamespaceId::from_random([7; 16]), workflow: "w".into() };
    Offer {
        key: workflow.run(RunId::from_random([number; 16])),
        queue: "queue".to_string(),
        kind: TaskKind::Workflow,
        task: TaskRef { scheduled: EventId(2), version: FailoverVersion(1), attempt: 1, stamp: 0 },
        sticky: false,
        scheduled_at: Timestamp(i64::from(number)),
    }
}

/// The number of an offer, back from the task it became.
fn number(work: &Work) -> Option<u8> {
    match work {
        Work::Task { task, .. } => u8::try_from(task.scheduled_at.0).ok(),
        Work::Query(_) => None,
    }
}

#[derive(Clone, Debug)]
enum Action {
    Offer(u8),
    Arrive,
    Take(Index),
    Settle(Index, usize),
    Leave(Index),
    Unpark(Index),
    Ask,
    Withdraw(Index),
    EndPolls,
    DropTasks,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0..12_u8).prop_map(Action::Offer),
        4 => Just(Action::Arrive),
        6 => any::<Index>().prop_map(Action::Take),
        6 => (any::<Index>(), 0..3_usize).prop_map(|(poller, outcome)| Action::Settle(poller, outcome)),
        4 => any::<Index>().prop_map(Action::Leave),
        2 => any::<Index>().prop_map(Action::Unpark),
        2 => Just(Action::Ask),
        1 => any::<Index>().prop_map(Action::Withdraw),
        1 => Just(Action::EndPolls),
        1 => Just(Action::DropTasks),
    ];
    proptest::collection::vec(action, 1..120)
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Polls {
    #[default]
    Idle,
    Waiting,
    Holding(Work),
}

/// What was promised.
#[derive(Debug, Default)]
struct Model {
    /// Accepted and neither delivered nor refused; and its order.
    live: BTreeMap<u8, u64>,
    offers: u64,
    parked: BTreeMap<u8, Ticket>,
    /// Most tasks that were held at once.
    most_held: usize,
    again: BTreeSet<u8>,
    pollers: BTreeMap<PollerId, Polls>,
    ended: BTreeSet<PollerId>,
    queries: BTreeSet<QueryId>,
    asked: u64,
    starved: bool,
    polled: bool,
    first_poll: bool,
}

impl Model {
    fn held(&self) -> BTreeSet<u8> {
        self.pollers
            .values()
            .filter_map(|poll| if let Polls::Holding(work) = poll { number(work) } else { None })
            .collect()
    }

    fn backlog(&self) -> BTreeMap<u64, u8> {
        let held = self.held();
        let lies = |number: &u8| !held.contains(number) && !self.parked.contains_key(number);
        self.live.iter().filter(|(number, _)| lies(number)).map(|(number, order)| (*order, *number)).collect()
    }

    fn queued(&self) -> usize {
        self.live.len() - self.held().len()
    }

    fn waiting(&self) -> Option<PollerId> {
        self.pollers.iter().find(|(_, poll)| **poll == Polls::Waiting).map(|(id, _)| *id)
    }

    fn accept(&mut self, number: u8) {
        self.offers += 1;
        self.live.insert(number, self.offers);
    }

    /// A poller got work: it must be the first of the backlog (M3), or a query.
    fn give(&mut self, id: PollerId, work: Work) {
        if let Some(number) = number(&work) {
            let first = self.backlog().first_key_value().map(|(_, number)| *number);
            assert_eq!(Some(number), first, "M3 in the order of offers");
        } else if let Work::Query(query) = &work {
            assert!(self.queries.remove(query), "a query is given once and not after its withdrawal");
        }
        self.pollers.insert(id, Polls::Holding(work));
        self.most_held = self.most_held.max(self.held().len());
    }

    /// Checks what the machine put out, and lets the woken pollers look.
    fn outputs(&mut self, queue: &mut Queue) {
        let Outputs { wake, refill } = queue.outputs();
        for id in wake {
            let before = self.pollers.get(&id).cloned();
            assert_eq!(before, Some(Polls::Waiting), "only those who wait are woken");
            if self.ended.contains(&id) {
                assert_eq!(queue.take(id), Given::Ended);
                self.pollers.insert(id, Polls::Idle);
            } else {
                assert_eq!(Some(id), self.waiting(), "the one who waited longest is woken first");
                let Given::Work(work) = queue.take(id) else { panic!("a woken poller has work") };
                self.give(id, work);
            }
        }
        let fell = self.starved && self.queued() * 2 < CREDIT;
        assert_eq!(refill, fell || std::mem::take(&mut self.first_poll), "refill when it fell below half");
        self.starved &= !fell;
        assert_eq!(queue.queued(), self.queued(), "M1 the queue holds what was accepted");
        assert!(self.queued() <= CREDIT + self.most_held, "M4 credit, and what was brought back");
        let idle = self.waiting().is_none() || (self.backlog().is_empty() && self.queries.is_empty());
        assert!(idle, "M2 nobody waits while there is work");
    }

    fn pick(&self, index: Index) -> Option<PollerId> {
        (!self.pollers.is_empty()).then(|| *index.get(&self.pollers.keys().copied().collect::<Vec<_>>()))
    }
}

fn apply(model: &mut Model, queue: &mut Queue, action: Action, now: Timestamp) {
    match action {
        Action::Offer(number) => offered(model, queue, number, now),
        Action::Arrive => {
            let id = queue.arrive("worker", now);
            model.pollers.insert(id, Polls::Idle);
            model.first_poll = !std::mem::replace(&mut model.polled, true);
        }
        Action::Take(index) => {
            if let Some(id) = model.pick(index) {
                took(model, queue, id);
            }
        }
        Action::Settle(index, outcome) => {
            if let Some(id) = model.pick(index) {
                settled(model, queue, id, [Outcome::Delivered, Outcome::Refused, Outcome::Delayed][outcome]);
            }
        }
        Action::Leave(index) => {
            if let Some(id) = model.pick(index) {
                left(model, queue, id, now);
            }
        }
        Action::Unpark(index) => {
            let parked: Vec<_> = model.parked.iter().map(|(number, ticket)| (*number, *ticket)).collect();
            if !parked.is_empty() {
                let (number, ticket) = *index.get(&parked);
                unparked(model, queue, number, ticket);
            }
        }
        Action::Ask => {
            model.asked += 1;
            model.queries.insert(QueryId(model.asked));
            queue.ask(QueryId(model.asked), now);
        }
        Action::Withdraw(index) => {
            let waiting: Vec<_> = model.queries.iter().copied().collect();
            if !waiting.is_empty() {
                let query = *index.get(&waiting);
                model.queries.remove(&query);
                queue.withdraw(query);
            }
        }
        Action::EndPolls => {
            queue.end_polls();
            model.ended = model.pollers.keys().copied().collect();
        }
        Action::DropTasks => {
            assert_eq!(queue.drop_tasks(), model.queued());
            let held = model.held();
            model.live.retain(|number, _| held.contains(number));
            model.parked.clear();
            model.again.clear();
            model.starved = false;
            model.polled = false;
        }
    }
    model.outputs(queue);
}

fn offered(model: &mut Model, queue: &mut Queue, number: u8, now: Timestamp) {
    let answer = queue.offer(offer(number), now);
    let expected = if model.live.contains_key(&number) {
        if model.held().contains(&number) {
            model.again.insert(number);
        }
        Offered::Known
    } else if model.waiting().is_some() {
        model.accept(number);
        Offered::Handed
    } else if model.queued() >= CREDIT {
        model.starved = true;
        Offered::NoCredit
    } else {
        model.accept(number);
        Offered::Queued
    };
    assert_eq!(answer, expected);
}

fn took(model: &mut Model, queue: &mut Queue, id: PollerId) {
    let given = queue.take(id);
    match (&model.pollers[&id], given) {
        (Polls::Holding(work), given) => {
            assert_eq!(given, Given::Work(work.clone()), "asking again changes nothing");
        }
        (Polls::Idle | Polls::Waiting, Given::Ended) => assert!(model.ended.contains(&id)),
        (Polls::Idle | Polls::Waiting, given) => {
            assert!(!model.ended.contains(&id), "an ended poll gets nothing");
            match given {
                Given::Work(work) => model.give(id, work),
                Given::Wait => drop(model.pollers.insert(id, Polls::Waiting)),
                Given::Ended => {}
            }
        }
    }
}

fn settled(model: &mut Model, queue: &mut Queue, id: PollerId, outcome: Outcome) {
    let parked = queue.settle(id, outcome);
    let Polls::Holding(work) = model.pollers[&id].clone() else {
        assert_eq!(parked, None);
        return;
    };
    model.pollers.insert(id, Polls::Idle);
    let Work::Task { task, .. } = &work else {
        assert_eq!(parked, None);
        return;
    };
    let Some(number) = number(&work) else { return };
    assert_eq!(parked, (outcome == Outcome::Delayed).then_some(task.ticket));
    let again = model.again.remove(&number);
    match outcome {
        Outcome::Delayed => drop(model.parked.insert(number, task.ticket)),
        Outcome::Refused if again => model.accept(number),
        Outcome::Refused | Outcome::Delivered => {
            assert!(model.live.remove(&number).is_some(), "M1 a task leaves once");
        }
    }
}

fn left(model: &mut Model, queue: &mut Queue, id: PollerId, now: Timestamp) {
    queue.leave(id, now);
    match model.pollers.remove(&id) {
        Some(Polls::Holding(Work::Query(query))) => drop(model.queries.insert(query)),
        // An offer that came while it was held is answered by its return.
        Some(Polls::Holding(work)) => drop(number(&work).map(|number| model.again.remove(&number))),
        Some(Polls::Idle | Polls::Waiting) | None => {}
    }
}

fn unparked(model: &mut Model, queue: &mut Queue, number: u8, ticket: Ticket) {
    model.parked.remove(&number);
    queue.unpark(ticket);
}

/// Everybody leaves, and one last poller takes all there is: nothing may be missing.
fn drain(model: &mut Model, queue: &mut Queue, now: Timestamp) {
    while let Some((number, ticket)) =
        model.parked.first_key_value().map(|(number, ticket)| (*number, *ticket))
    {
        unparked(model, queue, number, ticket);
        model.outputs(queue);
    }
    while let Some(id) = model.pollers.keys().next().copied() {
        left(model, queue, id, now);
        model.outputs(queue);
    }
    apply(model, queue, Action::Arrive, now);
    let last = *model.pollers.keys().next().unwrap();
    loop {
        took(model, queue, last);
        model.outputs(queue);
        if model.pollers[&last] == Polls::Waiting {
            break;
        }
        settled(model, queue, last, Outcome::Delivered);
        model.outputs(queue);
    }
    assert!(model.live.is_empty(), "lost: {:?}", model.live);
    assert!(model.queries.is_empty(), "lost: {:?}", model.queries);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No task is lost or given twice, in order, within the credit, whoever comes and goes.
    #[test]
    fn every_accepted_task_leaves_once(actions in actions()) {
        let now = Timestamp(0);
        let mut queue = Queue::new(false, CREDIT, now);
        let mut model = Model::default();
        for action in actions {
            apply(&mut model, &mut queue, action, now);
        }
        drain(&mut model, &mut queue, now);
    }
}

#[test]
fn a_task_that_came_back_takes_its_old_place() {
    let now = Timestamp(0);
    let mut queue = Queue::new(false, 10, now);
    for number in 1..=3 {
        assert_eq!(queue.offer(offer(number), now), Offered::Queued);
    }
    let taken = |queue: &mut Queue, id| match queue.take(id) {
        Given::Work(work) => number(&work).unwrap(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (queue.arrive("a", now), queue.arrive("b", now));
    assert_eq!(taken(&mut queue, first), 1);
    assert_eq!(taken(&mut queue, second), 2);
    // Both clients go away, the later one first.
    queue.leave(second, now);
    queue.leave(first, now);
    let third = queue.arrive("c", now);
    for expected in 1..=3 {
        assert_eq!(taken(&mut queue, third), expected);
        queue.settle(third, Outcome::Delivered);
    }
    assert_eq!(queue.take(third), Given::Wait);
}

#[test]
fn queries_and_tasks_alternate() {
    let now = Timestamp(0);
    let mut queue = Queue::new(false, 10, now);
    for number in 1..=2 {
        queue.offer(offer(number), now);
        queue.ask(QueryId(u64::from(number)), now);
    }
    let poller = queue.arrive("a", now);
    let mut order = Vec::new();
    while let Given::Work(work) = queue.take(poller) {
        order.push(number(&work));
        queue.settle(poller, Outcome::Delivered);
    }
    assert_eq!(order, [None, Some(1), None, Some(2)]);
}

#[test]
fn a_sticky_queue_takes_tasks_while_its_worker_polls() {
    let mut now = Timestamp(0);
    let mut queue = Queue::new(true, 10, now);
    assert_eq!(queue.offer(offer(1), now), Offered::StickyUnavailable, "never polled");
    let poller = queue.arrive("a", now);
    assert!(!queue.outputs().refill, "sticky queues have no rows to refill from");
    assert_eq!(queue.take(poller), Given::Wait);
    now = now.plus(Nanos::seconds(60));
    assert_eq!(queue.offer(offer(1), now), Offered::Handed, "a poll is in progress, however old");
    queue.settle(poller, Outcome::Delivered);
    queue.leave(poller, now);
    now = now.plus(STICKY_PATIENCE);
    assert_eq!(queue.offer(offer(2), now), Offered::Queued, "polled within the last seconds");
    now = now.plus(Nanos(1));
    assert_eq!(queue.offer(offer(3), now), Offered::StickyUnavailable, "polled too long ago");
}

#[test]
fn a_full_sticky_queue_sends_tasks_to_the_normal_one() {
    let now = Timestamp(0);
    let mut queue = Queue::new(true, 2, now);
    let poller = queue.arrive("a", now);
    for number in 1..=2 {
        assert_eq!(queue.offer(offer(number), now), Offered::Queued);
    }
    assert_eq!(queue.offer(offer(3), now), Offered::StickyUnavailable);
    for _ in 1..=2 {
        queue.take(poller);
        queue.settle(poller, Outcome::Delivered);
        assert!(!queue.outputs().refill, "there is nothing to refill it from");
    }
}

#[test]
fn an_unloaded_sticky_queue_refuses_at_once() {
    let now = Timestamp(0);
    let mut queue = Queue::new(true, 10, now);
    let (busy, waits) = (queue.arrive("a", now), queue.arrive("a", now));
    queue.offer(offer(1), now);
    queue.offer(offer(2), now);
    assert!(matches!(queue.take(busy), Given::Work(_)));
    queue.ask(QueryId(1), now);
    queue.ask(QueryId(2), now);
    assert!(matches!(queue.take(waits), Given::Work(Work::Query(QueryId(1)))));
    assert_eq!(queue.unload(), (1, vec![QueryId(2)]));
    queue.settle(waits, Outcome::Delivered);
    assert_eq!(queue.take(waits), Given::Ended);
    queue.leave(waits, now);
    queue.leave(busy, now);
    assert_eq!(queue.offer(offer(3), now), Offered::StickyUnavailable);
}

#[test]
fn pollers_are_shown_for_five_minutes() {
    let mut now = Timestamp(0);
    let mut queue = Queue::new(false, 10, now);
    let first = queue.arrive("first", now);
    queue.leave(first, now);
    now = now.plus(POLLER_SHOWN);
    queue.offer(offer(9), now);
    let second = queue.arrive("second", now);
    let names = |queue: &Queue, now| -> Vec<String> {
        queue.show(now).pollers.iter().map(|(identity, _)| identity.to_string()).collect()
    };
    assert_eq!(names(&queue, now), ["first", "second"]);
    now = now.plus(Nanos(1));
    assert_eq!(names(&queue, now), ["second"]);
    assert_eq!(queue.show(now).backlog, 1);
    assert_eq!(queue.show(now).oldest, Some(Timestamp(9)));
    assert!(!queue.is_idle(now.plus(POLLER_SHOWN).plus(POLLER_SHOWN)), "somebody polls");
    queue.take(second);
    queue.settle(second, Outcome::Delivered);
    queue.leave(second, now);
    assert!(!queue.is_idle(now.plus(POLLER_SHOWN)));
    assert!(queue.is_idle(now.plus(POLLER_SHOWN).plus(Nanos(1))));
}

#[test]
fn a_queue_that_turned_tasks_away_asks_for_them_when_half_empty() {
    let now = Timestamp(0);
    let mut queue = Queue::new(false, CREDIT, now);
    for number in 0..4 {
        queue.offer(offer(number), now);
    }
    let poller = queue.arrive("a", now);
    assert!(queue.outputs().refill, "the first poll of a new incarnation");
    let mut asked = Vec::new();
    queue.offer(offer(8), now);
    for _ in 0..4 {
        queue.take(poller);
        queue.settle(poller, Outcome::Delivered);
        asked.push(queue.outputs().refill);
    }
    // After the third of four, one is left: below half. Once, not at each poll.
    assert_eq!(asked, [false, false, true, false]);
}
