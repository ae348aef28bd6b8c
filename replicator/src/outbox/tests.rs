//! Outboxes against inboxes, and alone.

use antipode_persistence::rows::{LogEntry, RunRow};
use antipode_proto::core as wire;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::testing::{World, key};

fn two() -> World {
    let mut world = World::new(2);
    world.open(0, 1);
    world.open(1, 0);
    world
}

fn three() -> World {
    let mut world = World::new(3);
    for source in 0..3 {
        for receiver in (0..3).filter(|receiver| *receiver != source) {
            world.open(source, receiver);
        }
    }
    world
}

/// Cuts everything to and from a region.
fn isolate(world: &mut World, region: usize) {
    for other in (0..3).filter(|other| *other != region) {
        world.close(region, other);
        world.close(other, region);
    }
}

#[test]
fn survivor_relay() {
    // C7: A's entry reached C, not B; A dies; B gets it from C.
    let (a, b, c) = (0, 1, 2);
    let mut world = three();
    let run = key("w", 1);
    world.regions[a].append(&run, 1, None);
    world.settle();
    world.close(a, b);
    world.regions[a].append(&run, 1, None);
    world.regions[a].heartbeat(&run, 9);
    world.settle();
    assert_eq!(world.runs(c), world.runs(a));
    isolate(&mut world, a);
    world.settle();
    assert_ne!(world.runs(b), world.runs(c), "nobody relays before it is asked to");
    world.say_down(b, a, true);
    world.settle();
    assert_eq!(world.runs(b), world.runs(c));
    let relayed: Vec<_> = world.link(c, b).ends.as_ref().unwrap().0.down().keys().copied().collect();
    assert_eq!(relayed, [RegionId(1)]);
    // What B had already was not sent again: only what is beyond its vector.
    assert_eq!(world.link(c, b).entries_sent, 2);
    // A is back: its own link brings the same, nothing changes, and the relay ends.
    let before = world.regions[b].tip;
    world.open(a, b);
    world.say_down(b, a, false);
    world.settle();
    assert_eq!(world.regions[b].tip, before);
    assert_eq!(world.link(c, b).ends.as_ref().unwrap().0.down().len(), 0);
    assert_eq!(world.runs(b), world.runs(a));
}

#[test]
fn a_relay_gives_its_credit_back_and_goes_on_live() {
    // C7: C hears more from A while B cannot; each reaches B through C, and the relay's acks free what it took.
    let (a, b, c) = (0, 1, 2);
    let mut world = three();
    world.close(a, b);
    world.say_down(b, a, true);
    for number in 0..20 {
        world.regions[a].append(&key(&format!("w{}", number % 4), number % 4), 1, None);
        world.settle();
        assert_eq!(world.runs(b), world.runs(a));
    }
    let outbox = &world.link(c, b).ends.as_ref().unwrap().0;
    assert_eq!(outbox.credit, CREDIT_BYTES);
    assert_eq!(world.link(c, b).ends.as_ref().unwrap().1.outstanding(), (0, 0));
}

#[test]
fn a_relay_is_taken_up_again_where_it_was() {
    let (a, b, c) = (0, 1, 2);
    let mut world = three();
    let run = key("w", 1);
    world.close(a, b);
    for _ in 0..2 {
        world.say_down(b, a, true);
        world.regions[a].append(&run, 1, None);
        world.settle();
        assert_eq!(world.runs(b), world.runs(a));
        world.say_down(b, a, false);
        world.settle();
    }
    assert_eq!(world.link(c, b).entries_sent, 2, "each once");
}

#[test]
fn a_relay_that_is_asked_for_when_the_stream_opens() {
    let (a, b, c) = (0, 1, 2);
    let mut world = three();
    world.close(a, b);
    world.close(c, b);
    world.say_down(b, a, true);
    world.regions[a].append(&key("w", 1), 1, None);
    world.settle();
    world.open(c, b);
    world.settle();
    assert_eq!(world.runs(b), world.runs(a));
}

#[test]
fn records_go_ahead_of_what_was_written_under_them() {
    // I10
    let mut world = two();
    world.settle();
    let act = antipode_core::namespace::Act {
        regions: &crate::testing::regions(),
        here: "east",
        now: world.now,
        who: "",
        why: "",
    };
    let renamed =
        world.regions[0].table.get(crate::testing::namespace()).unwrap().rename(&act, "bills").unwrap();
    world.regions[0].table.put(renamed);
    world.regions[0].append(&key("w", 1), 1, None);
    let tip = world.regions[0].tip;
    let page = world.regions[0].page(Sequence(0), 9);
    let mut sent = Vec::new();
    world.with_outbox(0, |outbox, cx| {
        outbox.tip(cx, ShardId(1), tip);
        outbox.take_outputs();
        outbox.page(cx, Feed::own(ShardId(1)), &page).unwrap();
        sent = outbox.take_outputs();
    });
    assert!(
        matches!(
            sent[..],
            [
                Output::Send(replicate_response::Message::Namespaces(_)),
                Output::Send(replicate_response::Message::Entries(_))
            ]
        ),
        "{sent:?}"
    );
}

#[test]
fn empty_ranges_wait_for_their_turn_and_a_barrier_does_not() {
    // F2
    let mut world = two();
    world.settle();
    let acks = world.link(0, 1).acks_sent;
    // A commit that holds nothing for the peer.
    world.regions[0].tip = Sequence(5);
    let at = world.now;
    world.tick(1);
    let outbox = &mut world.link(0, 1).ends.as_mut().unwrap().0;
    assert!(outbox.next_wake().unwrap() > at.plus(antipode_core::ids::Nanos::millis(200)));
    world.with_outbox(0, |outbox, cx| outbox.want(cx, &BTreeMap::from([(ShardId(1), Sequence(5))])));
    world.tick(0);
    world.deliver(0, true);
    world.deliver(0, false);
    assert_eq!(world.link(0, 1).ends.as_ref().unwrap().0.proof()[&ShardId(1)], Sequence(5));
    assert!(world.link(0, 1).acks_sent > acks);
}

#[test]
fn a_held_run_is_withheld_until_it_is_let_go() {
    let mut world = two();
    let (held, other) = (key("w", 1), key("v", 2));
    world.regions[0].held.insert(held.run);
    world.regions[0].append(&held, 1, None);
    world.regions[0].append(&other, 1, None);
    world.settle();
    assert_eq!(world.runs(1).keys().collect::<Vec<_>>(), [&other]);
    // It outlives the stream: the range is proved without it.
    world.close(0, 1);
    world.open(0, 1);
    world.regions[0].append(&held, 1, None);
    world.settle();
    assert!(!world.runs(1).contains_key(&held));
    world.regions[0].held.clear();
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
}

#[test]
fn what_is_let_go_goes_again_when_the_stream_breaks_and_claims_nothing() {
    // E1, V15: the range of the held run's entry was announced and proved; the other entry of it comes anew.
    let mut world = two();
    let (held, other) = (key("w", 1), key("v", 2));
    world.regions[0].held.insert(held.run);
    world.settle();
    world.regions[0].append(&held, 1, None);
    world.settle();
    world.regions[0].held.clear();
    world.tick(1);
    assert_eq!(world.link(0, 1).to_receiver.len(), 1, "it is on its way");
    world.close(0, 1);
    assert_eq!(world.link(0, 1).withheld.len(), 1, "and not proved");
    world.open(0, 1);
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    assert!(world.link(0, 1).withheld.is_empty(), "proved, with nothing else to be told");
    // A range of two: the other entry is under way when the stream breaks, the held one is let go on the next one.
    world.regions[0].held.insert(held.run);
    world.regions[0].append(&held, 1, None);
    world.regions[0].append(&other, 1, None);
    world.tick(1);
    world.close(0, 1);
    world.regions[0].held.clear();
    world.open(0, 1);
    // The opening, and the late entry; the rest is lost again.
    world.deliver(0, true);
    world.deliver(0, true);
    world.close(0, 1);
    assert_eq!(world.link(0, 1).positions[&ShardId(1)], Sequence(1), "nobody proves the other one");
    world.open(0, 1);
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
}

#[test]
fn what_comes_while_a_run_is_let_go_follows_it() {
    let mut world = two();
    let held = key("w", 1);
    world.regions[0].held.insert(held.run);
    world.regions[0].append(&held, 1, None);
    world.settle();
    world.regions[0].held.clear();
    world.tick(1);
    world.regions[0].append(&held, 1, None);
    world.tick(1);
    assert_eq!(world.link(0, 1).to_receiver.len(), 2, "nothing waits that may go");
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    assert!(world.link(0, 1).withheld.is_empty());
}

#[test]
fn credit_bounds_what_is_under_way_and_an_oversize_entry_goes_alone() {
    let mut world = two();
    world.settle();
    world.with_outbox(0, |outbox, _| outbox.credit = 100);
    for number in 0..20 {
        world.regions[0].append(&key("w", number), 1, None);
    }
    world.tick(1);
    assert_eq!(world.link(0, 1).entries_sent, 0, "a page costs more than there is");
    world.with_outbox(0, |outbox, cx| {
        outbox.credit = CREDIT_BYTES;
        outbox.wake(cx);
    });
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    assert_eq!(world.link(0, 1).ends.as_ref().unwrap().0.credit, CREDIT_BYTES);
}

#[test]
fn a_log_that_is_shorter_than_its_tip_ends_the_stream() {
    let mut world = two();
    world.settle();
    world.with_outbox(0, |outbox, cx| {
        outbox.tip(cx, ShardId(1), Sequence(9));
        let page = LogPage { through: Sequence(0), entries: Vec::<LogEntry>::new() };
        let broken = outbox.page(cx, Feed::own(ShardId(1)), &page).unwrap_err();
        assert_eq!(broken.to_string(), "log of s1 ends at =0, but =9 is committed");
    });
}

#[test]
fn a_receiver_that_is_ahead_gets_all_again() {
    // E2: a restore that kept the incarnation.
    let mut world = two();
    world.regions[0].append(&key("w", 1), 1, None);
    world.settle();
    world.close(0, 1);
    world.regions[0].tip = Sequence(0);
    world.regions[0].log.clear();
    let setup = Setup {
        info: world.regions[0].info(),
        peer: "west".into(),
        peer_id: RegionId(2),
        ends: BTreeMap::new(),
    };
    let open = Open {
        source_incarnation: world.regions[0].incarnation.0,
        positions: vec![link::Position { shard: 1, sequence: 1 }],
        ..Open::default()
    };
    let region = &world.regions[0];
    let mut cx = Cx {
        now: world.now,
        records: &region.table,
        linked: &region.linked,
        received: &region.received,
        held: &region.held,
        withheld: &mut Withheld::new(),
    };
    let mut outbox = Outbox::new(setup, &open, &mut cx);
    let outputs = outbox.take_outputs();
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Ahead { named: Sequence(1), end: Sequence(0), .. })),
        "{outputs:?}"
    );
    assert_eq!(outbox.proof()[&ShardId(1)], Sequence(0));
}

/// C6, E2: a tombstone in the log is told; a peer of the previous version would take it for the state of a run that it lacks.
#[test]
fn a_tombstone_goes_to_a_peer_that_knows_of_them() {
    for (features, sent) in [(handshake::FEATURES, 1), (handshake::FEATURES & !handshake::TOMBSTONES, 0)] {
        let mut world = two();
        let region = &mut world.regions[0];
        let setup = Setup {
            info: region.info(),
            peer: "west".into(),
            peer_id: RegionId(2),
            ends: BTreeMap::from([(ShardId(1), Sequence(1))]),
        };
        let receiver = link::RegionInfo { features, ..region.info() };
        let open = Open { receiver: Some(receiver), ..Open::default() };
        let mut cx = Cx {
            now: world.now,
            records: &region.table,
            linked: &region.linked,
            received: &region.received,
            held: &region.held,
            withheld: &mut Withheld::new(),
        };
        let mut outbox = Outbox::new(setup, &open, &mut cx);
        let head = wire::RunHead { deleted: Some(wire::Deleted::default()), ..wire::RunHead::default() };
        let row = RunRow {
            key: key("w", 1),
            changed_at: Sequence(1),
            wake_at: None,
            head: head.encode_to_vec().into(),
        };
        let page = LogPage { through: Sequence(1), entries: vec![LogEntry::Run(row)] };
        outbox.page(&mut cx, Feed::own(ShardId(1)), &page).unwrap();
        assert_eq!(outbox.take_counts().entries, sent, "{features:b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Goal: three regions write, links break and come back, down origins are said and unsaid at any time; after all is up
    /// again everybody holds everything, and before that, whoever can reach a survivor holds what the survivor holds of an
    /// origin that is down for it (C7).
    #[test]
    fn relays_converge_whatever_breaks(
        steps in prop::collection::vec((0u8..8, 0usize..6, any::<bool>()), 1..60),
    ) {
        let (a, b, c) = (0, 1, 2);
        let mut world = three();
        for (what, number, flag) in steps {
            let run = key(&format!("w{}", number % 3), u8::try_from(number % 3).unwrap());
            match what {
                0..=2 => { world.regions[a].append(&run, 1, None); }
                3 => {
                    if flag { world.close(a, b); } else { world.open_if_closed(a, b); }
                }
                4 => world.say_down(b, a, flag),
                5 => { world.close(c, b); world.open(c, b); }
                6 => world.tick(50),
                _ => { world.deliver(number, flag); }
            }
        }
        world.close(a, b);
        world.settle();
        world.say_down(b, a, true);
        world.settle();
        prop_assert_eq!(world.runs(b), world.runs(c));
        prop_assert_eq!(world.runs(c), world.runs(a));
        world.open(a, b);
        world.say_down(b, a, false);
        world.settle();
        prop_assert_eq!(world.runs(b), world.runs(a));
        let order: Vec<(RunId, i64)> = world.regions[b].order.clone();
        let mut once = order.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(order.len(), once.len(), "a batch was stored twice");
    }
}
