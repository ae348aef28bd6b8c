//! Mendings, answered by hand.

use antipode_core::ids::Sequence;

use super::*;
use crate::{
    records::Table,
    testing::{Region, key, record},
};

const NOW: Timestamp = Timestamp(0);

fn peers() -> [Arc<str>; 2] {
    ["east".into(), "north".into()]
}

/// East with two batches of a run, and the entry of the second.
fn east() -> (Region, link::Entry) {
    let mut east = Region::new(0);
    east.append(&key("w", 1), 1, None);
    let second = east.append(&key("w", 1), 1, None);
    let body = link::entry::Entry::Batch(second.to_wire());
    (east, link::Entry { sequence: 2, entry: Some(body) })
}

fn known() -> Table {
    let mut table = Table::default();
    table.put(record());
    table
}

struct Driver {
    mending: Mending,
    table: Table,
    peers: Vec<Arc<str>>,
}

impl Driver {
    fn new(mending: Mending) -> Self {
        Self { mending, table: known(), peers: peers().to_vec() }
    }

    fn step(&mut self, event: Event) -> Step {
        let around = Around { now: NOW, records: &self.table, peers: &self.peers };
        self.mending.advance(event, around)
    }
}

fn need(hole: &Hole) -> Event {
    let Hole { key, known, until } = hole.clone();
    Event::Offered(Applied::NeedEvents { key, known, until })
}

#[test]
fn a_hole_is_asked_for_at_the_source_then_elsewhere_and_filled_before_the_entry() {
    // R830–R834
    let (east, entry) = east();
    let hole = Hole::whole(&key("w", 1));
    let Event::Offered(verdict) = need(&hole) else { panic!("not a verdict") };
    let mut driver = Driver::new(Mending::entry(&entry, Some(verdict)).unwrap());
    let Step::Fetch(first, asked) = driver.step(Event::Begin) else { panic!("no fetch") };
    assert_eq!((&*first, &asked), ("east", &hole));
    let Step::Fetch(second, _) = driver.step(Event::Fetched(Err("cut".to_string()))) else {
        panic!("no fetch")
    };
    assert_eq!(&*second, "north");
    let answer = east.fetch(&hole.request());
    // Batches, then the state, then the entry itself.
    for expected in 0..3 {
        let event = if expected == 0 {
            Event::Fetched(Ok(answer.clone()))
        } else {
            Event::Offered(Applied::Applied(Sequence(1)))
        };
        let Step::Offer(offered, _) = driver.step(event) else { panic!("no offer {expected}") };
        assert_eq!(offered, key("w", 1));
    }
    assert!(matches!(driver.step(Event::Offered(Applied::Duplicate)), Step::Offer(..)));
    assert!(matches!(driver.step(Event::Offered(Applied::Duplicate)), Step::Done(Ok(Mended::Known))));
}

#[test]
fn an_answer_that_changed_on_the_way_is_asked_for_again() {
    // G1: not a byte of it is applied, and somebody else is asked when that goes on.
    let (east, entry) = east();
    let hole = Hole::whole(&key("w", 1));
    let Event::Offered(verdict) = need(&hole) else { panic!("not a verdict") };
    let mut driver = Driver::new(Mending::entry(&entry, Some(verdict)).unwrap());
    driver.step(Event::Begin);
    let whole = east.fetch(&hole.request());
    let mut answer = whole.clone();
    let mut events = answer.batches[1].events.to_vec();
    *events.last_mut().unwrap() ^= 1;
    answer.batches[1].events = events.into();
    for peer in ["east", "east", "north"] {
        let Step::Fetch(asked, _) = driver.step(Event::Fetched(Ok(answer.clone()))) else {
            panic!("no fetch")
        };
        assert_eq!(&*asked, peer);
    }
    assert!(matches!(driver.step(Event::Fetched(Ok(whole))), Step::Offer(..)));
    let changed = driver.mending.take_changed();
    assert_eq!(changed.len(), 3);
    assert_eq!(changed[0].key, key("w", 1));
}

#[test]
fn what_nobody_has_is_poison_after_some_tries_and_what_is_unreachable_is_waited_for() {
    // E1
    let (_, entry) = east();
    let hole = Hole::whole(&key("w", 1));
    for (answer, poisoned) in [(Ok(FetchRunResponse::default()), true), (Err("cut".to_string()), false)] {
        let mut driver = Driver::new(Mending::entry(&entry, None).unwrap());
        let mut step = driver.step(Event::Begin);
        let mut waits = 0;
        for _ in 0..200 {
            step = match step {
                Step::Offer(..) => driver.step(need(&hole)),
                Step::Fetch(..) => driver.step(Event::Fetched(answer.clone())),
                Step::Wait(at) => {
                    assert!(at > NOW && at <= NOW.plus(BACKOFF_MAX));
                    waits += 1;
                    driver.step(Event::Woken)
                }
                other => {
                    step = other;
                    break;
                }
            };
        }
        match poisoned {
            true => assert!(
                matches!(&step, Step::Done(Err(Poisoned(why))) if why.contains("no region has")),
                "{step:?}"
            ),
            false => assert!(waits > 40, "{waits}"),
        }
    }
}

#[test]
fn holes_do_not_nest_for_ever() {
    // Each fetched batch needs something itself.
    let (east, entry) = east();
    let hole = Hole::whole(&key("w", 1));
    let mut driver = Driver::new(Mending::entry(&entry, None).unwrap());
    let mut step = driver.step(Event::Begin);
    let mut fetches = 0;
    let end = loop {
        step = match step {
            Step::Offer(..) => driver.step(need(&hole)),
            Step::Fetch(..) => {
                fetches += 1;
                driver.step(Event::Fetched(Ok(east.fetch(&hole.request()))))
            }
            Step::Done(result) => break result,
            other => panic!("{other:?}"),
        };
    };
    assert!(end.unwrap_err().0.contains("could not be filled"));
    assert_eq!(fetches, DEPTH_MAX);
}

#[test]
fn a_record_is_asked_for_everywhere_and_an_overtaken_one_is_told() {
    // F5: the entry is offered in the end, and its version is known.
    let mut east = Region::new(0);
    let batch = east.append(&key("w", 1), 31, None);
    let entry = link::Entry { sequence: 1, entry: Some(link::entry::Entry::Batch(batch.to_wire())) };
    let mut driver = Driver::new(Mending::entry(&entry, None).unwrap());
    let mut step = driver.step(Event::Begin);
    let mut asked = Vec::new();
    loop {
        step = match step {
            Step::AskRecord(peer, _) => {
                asked.push(peer);
                driver.step(Event::RecordAsked(true))
            }
            Step::Wait(_) => driver.step(Event::Woken),
            Step::Offer(..) => break,
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(asked.len(), 2 * usize::try_from(RECORDS_MAX).unwrap());
    assert_eq!(driver.mending.take_overtaken(), [(key("w", 1).namespace, FailoverVersion(31))]);
}

#[test]
fn a_namespace_that_does_not_exist_where_it_was_asked_is_not_ours() {
    let (_, entry) = east();
    let mut driver = Driver::new(Mending::entry(&entry, None).unwrap());
    driver.table = Table::default();
    let mut step = driver.step(Event::Begin);
    while let Step::AskRecord(..) = step {
        step = driver.step(Event::RecordAsked(true));
    }
    assert!(matches!(step, Step::Done(Ok(Mended::NotOurs))), "{step:?}");
    // Nobody answered: that says nothing, so it waits.
    let (_, entry) = east();
    let mut driver = Driver::new(Mending::entry(&entry, None).unwrap());
    driver.table = Table::default();
    let mut step = driver.step(Event::Begin);
    while let Step::AskRecord(..) = step {
        step = driver.step(Event::RecordAsked(false));
    }
    assert!(matches!(step, Step::Wait(_)), "{step:?}");
}

#[test]
fn a_replay_goes_on_until_the_last_piece() {
    // E1: a run that does not fit into one answer is fetched piece by piece; only the last has the state.
    let (east, _) = east();
    let hole = Hole::whole(&key("w", 1));
    let mut driver = Driver::new(Mending::replay(&hole.key));
    let mut piece = east.fetch(&hole.request());
    let rest = piece.batches.split_off(1);
    let state = piece.state.take();
    let Step::Fetch(_, asked) = driver.step(Event::Begin) else { panic!("no fetch") };
    assert_eq!(asked, hole);
    assert!(matches!(driver.step(Event::Fetched(Ok(piece))), Step::Offer(..)));
    let Step::Fetch(_, asked) = driver.step(Event::Offered(Applied::Duplicate)) else {
        panic!("no second piece")
    };
    assert_eq!(asked.known.last().unwrap().event.0, 1);
    let piece = FetchRunResponse { found: true, batches: rest, state };
    assert!(matches!(driver.step(Event::Fetched(Ok(piece))), Step::Offer(..)));
    assert!(matches!(driver.step(Event::Offered(Applied::Applied(Sequence(9)))), Step::Offer(..)));
    assert!(matches!(driver.step(Event::Offered(Applied::Duplicate)), Step::Done(Ok(Mended::Applied))));
}

#[test]
fn quarantine_replay_asks_the_source_only() {
    // E1: entries behind the failing one were only counted; a region that lacks them too must not pass for a mending.
    let mut driver = Driver::new(Mending::replay(&key("w", 1)));
    let Step::Fetch(peer, _) = driver.step(Event::Begin) else { panic!("no fetch") };
    assert_eq!(&*peer, "east");
    let unreachable = Event::Fetched(Err("the link is cut".to_string()));
    let Step::Done(Err(Poisoned(why))) = driver.step(unreachable) else { panic!("somebody else was asked") };
    assert_eq!(why, "the link is cut");
}

#[test]
fn a_replay_ends_when_the_source_has_the_run_no_more() {
    // E2: the source was restored to a time before the run. There is nothing left to wait for.
    let mut driver = Driver::new(Mending::replay(&key("w", 1)));
    assert!(matches!(driver.step(Event::Begin), Step::Fetch(..)));
    let nothing = Event::Fetched(Ok(FetchRunResponse::default()));
    assert!(matches!(driver.step(nothing), Step::Done(Ok(Mended::Gone))));
}

#[test]
fn an_answer_about_another_run_is_poison() {
    let (mut east, entry) = east();
    east.append(&key("v", 2), 1, None);
    let hole = Hole::whole(&key("w", 1));
    let Event::Offered(verdict) = need(&hole) else { panic!("not a verdict") };
    let mut driver = Driver::new(Mending::entry(&entry, Some(verdict)).unwrap());
    driver.step(Event::Begin);
    let wrong = east.fetch(&Hole::whole(&key("v", 2)).request());
    let Step::Done(Err(Poisoned(why))) = driver.step(Event::Fetched(Ok(wrong))) else {
        panic!("not poisoned")
    };
    assert!(why.starts_with("asked for"), "{why}");
}
