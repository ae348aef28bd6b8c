//! Inboxes against outboxes, message by message, over regions whose shards know only chains and registers.

use antipode_core::ids::{Incarnation, RunId, Sequence, ShardId};
use antipode_proto::link::{
    self,
    replicate_response::{Message, Namespaces},
};
use proptest::prelude::*;

use super::*;
use crate::{
    mending::Hole,
    records::Table,
    selection::KnownStates,
    testing::{World, key, namespace, record, regions, version_of},
};

fn two() -> World {
    let mut world = World::new(2);
    world.open(0, 1);
    world.open(1, 0);
    world
}

#[test]
fn what_one_region_commits_the_other_proves() {
    let mut world = two();
    for number in 0..10 {
        let key = key(&format!("w{number}"), number);
        world.regions[0].append(&key, 1, None);
        world.regions[0].append(&key, 1, None);
        world.regions[0].heartbeat(&key, 7);
    }
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    let tip = world.regions[0].tip;
    let proof = world.link(0, 1).ends.as_ref().unwrap().0.proof().clone();
    assert_eq!(proof, Positions::from([(ShardId(1), tip)]), "E1: all is proved");
    assert_eq!(world.regions[0].offered, 0, "what the first region wrote came back to it");
}

#[test]
fn a_lost_stream_is_sent_again_from_the_proof() {
    // E2, E3, V19
    let mut world = two();
    let key = key("w", 1);
    world.regions[0].append(&key, 1, None);
    world.settle();
    world.regions[0].append(&key, 1, None);
    world.tick(1);
    world.close(0, 1);
    assert_ne!(world.runs(0), world.runs(1));
    world.open(0, 1);
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    assert_eq!(world.regions[1].offered, 2, "nothing that was proved is offered again");
}

#[test]
fn a_batch_that_changed_on_the_way_ends_its_stream() {
    // G1: whichever bit it is, of the ids too: nothing is applied, set aside or proved, and it is sent again.
    let mut region = crate::testing::Region::new(0);
    let batch = region.append(&key("w", 1), 1, None).to_wire();
    let bits = (batch.envelope.len() + batch.events.len()) * 8;
    assert!(bits > 800, "{bits}");
    for bit in 0..bits {
        let mut changed = batch.clone();
        let at = bit / 8;
        let (part, at) = match at.checked_sub(batch.envelope.len()) {
            None => (&mut changed.envelope, at),
            Some(at) => (&mut changed.events, at),
        };
        let mut bytes = part.to_vec();
        bytes[at] ^= 1 << (bit % 8);
        *part = bytes.into();
        let message = |batch: &antipode_proto::core::Batch| {
            let body = link::entry::Entry::Batch(batch.clone());
            let entries = vec![link::Entry { sequence: 1, entry: Some(body) }];
            let (after, through) = (0, 1);
            Message::Entries(replicate_response::Entries {
                shard: 1,
                after,
                through,
                entries,
                ..Default::default()
            })
        };
        let (mut inbox, table, mut states) = alone();
        let mut cx = Cx { now: Timestamp(0), records: &table, received: &mut states };
        inbox.take_outputs();
        let broken = inbox.message(&mut cx, message(&changed)).unwrap_err();
        assert!(matches!(broken, Broken::Changed { sequence: Sequence(1), .. }), "{broken}");
        assert!(inbox.take_outputs().is_empty() && inbox.exceptions().is_empty());
        assert_eq!(inbox.take_counts().changed, 1);
        // A peer of the previous version sends no chain value.
        let old = antipode_proto::core::Batch { chain: Default::default(), ..batch.clone() };
        let (mut inbox, ..) = alone();
        assert_eq!(inbox.message(&mut cx, message(&old)), Ok(()));
    }
}

#[test]
fn a_state_that_changed_on_the_way_ends_its_stream() {
    // G1: a register with a wrong order would win over every true one.
    let key = key("w", 1);
    let register = antipode_proto::core::Register {
        anchor_event_id: 2,
        anchor_version: 1,
        kind: 1,
        order_version: 1,
        order_count: 3,
        ..Default::default()
    };
    let sent = antipode_core::sum::sealed(antipode_proto::core::RunState {
        namespace_id: key.namespace.to_string(),
        workflow_id: key.workflow.to_string(),
        run_id: key.run.to_string(),
        registers: vec![register],
        ..Default::default()
    });
    let take = |state: antipode_proto::core::RunState| {
        let entries = vec![link::Entry { sequence: 1, entry: Some(link::entry::Entry::State(state)) }];
        let message = replicate_response::Entries { shard: 1, through: 1, entries, ..Default::default() };
        let (mut inbox, table, mut states) = alone();
        let mut cx = Cx { now: Timestamp(0), records: &table, received: &mut states };
        inbox.message(&mut cx, Message::Entries(message))
    };
    let mut changed = sent.clone();
    changed.registers[0].order_count ^= 1 << 40;
    let broken = take(changed.clone()).unwrap_err();
    assert!(matches!(broken, Broken::Changed { sequence: Sequence(1), .. }), "{broken}");
    assert_eq!(take(sent), Ok(()));
    // A peer of the previous version sends no sum.
    assert_eq!(
        take(antipode_proto::core::RunState { sum: Default::default(), sum_form: 0, ..changed }),
        Ok(())
    );
}

#[test]
fn another_life_of_the_source_starts_from_nothing() {
    // E2: positions of a life that is over mean nothing in the next.
    let mut world = two();
    world.regions[0].append(&key("w", 1), 1, None);
    world.settle();
    world.close(0, 1);
    world.regions[0].incarnation = Incarnation(101);
    world.open(0, 1);
    world.settle();
    assert_eq!(world.regions[1].offered, 2);
    let link = world.link(0, 1);
    let inbox = &link.ends.as_ref().unwrap().1;
    assert_eq!(inbox.incarnation(), Some(Incarnation(101)));
    assert_eq!(inbox.positions()[0].incarnation, Incarnation(101));
}

#[test]
fn restore_source() {
    // E2: the source is restored from a backup without its last entries; what it writes then stands at positions that the
    // receiver had proved in the life before.
    let mut world = two();
    let (old, new) = (key("w", 1), key("v", 2));
    world.regions[0].append(&old, 1, None);
    world.settle();
    world.close(1, 0);
    let positions = world.link(1, 0).positions.clone();
    world.open(1, 0);
    for _ in 0..2 {
        world.regions[0].append(&old, 1, None);
    }
    world.settle();
    world.close(0, 1);
    let source = &mut world.regions[0];
    source.incarnation = Incarnation(101);
    source.log.truncate(1);
    source.tip = Sequence(1);
    source.runs.get_mut(&old).unwrap().batches.truncate(1);
    source.append(&new, 11, None);
    world.open(0, 1);
    world.settle();
    let inbox = &world.link(0, 1).ends.as_ref().unwrap().1;
    assert_eq!(
        inbox.positions()[0].sequence,
        Sequence(2),
        "a position of the life that is over says nothing"
    );
    assert!(world.runs(1).contains_key(&new));
    // What the source lost comes back to it; its positions are those of the backup too.
    world.close(1, 0);
    world.link(1, 0).positions = positions;
    world.open(1, 0);
    world.settle();
    assert_eq!(world.runs(0)[&old].batches.len(), 3);
}

#[test]
fn restore_peer() {
    // E2: west is restored from a backup, data and positions together. What it had proved since comes again, and so does
    // what it had written itself and lost, from whoever has it.
    let mut world = two();
    let (theirs, own) = (key("w", 1), key("v", 2));
    world.regions[0].append(&theirs, 1, None);
    world.regions[1].append(&own, 2, None);
    world.settle();
    for (source, receiver) in [(0, 1), (1, 0)] {
        world.close(source, receiver);
    }
    let (runs, log, tip) = (world.runs(1).clone(), world.regions[1].log.clone(), world.regions[1].tip);
    let positions = world.link(0, 1).positions.clone();
    for (source, receiver) in [(0, 1), (1, 0)] {
        world.open(source, receiver);
    }
    world.regions[0].append(&theirs, 1, None);
    world.regions[1].append(&own, 2, None);
    world.regions[1].heartbeat(&own, 7);
    world.settle();
    for (source, receiver) in [(0, 1), (1, 0)] {
        world.close(source, receiver);
    }
    let before = world.runs(0).clone();
    let west = &mut world.regions[1];
    (west.runs, west.log, west.tip) = (runs, log, tip);
    west.incarnation = Incarnation(201);
    west.received = KnownStates::new(9);
    world.link(0, 1).positions = positions;
    for (source, receiver) in [(0, 1), (1, 0)] {
        world.open(source, receiver);
    }
    world.settle();
    assert_eq!(*world.runs(0), before, "nothing is lost where it was");
    assert_eq!(*world.runs(1), before, "and all is back where it was lost");
}

#[test]
fn a_hole_is_fetched_and_the_entry_offered_again() {
    // R830: west forgets the run, as if its entries had never been sent.
    let mut world = two();
    let key = key("w", 1);
    world.regions[0].append(&key, 1, None);
    world.settle();
    world.regions[1].runs.clear();
    world.regions[0].append(&key, 1, None);
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
}

#[test]
fn a_hole_that_nobody_fills_ends_in_quarantine_and_its_neighbours_go_on() {
    // E1: the entry counts as proved, the run as an exception that the source is told of.
    let mut world = two();
    let (lost, other) = (key("lost", 1), key("other", 2));
    world.regions[0].append(&lost, 1, None);
    world.regions[0].append(&lost, 1, None);
    world.regions[0].log.remove(0);
    world.regions[0].runs.remove(&lost);
    world.regions[0].append(&other, 1, None);
    world.settle();
    assert!(world.runs(1).contains_key(&other));
    let row = &world.regions[1].quarantine[&lost];
    assert!(row.reason.contains("no region has the events before it"), "{}", row.reason);
    assert_eq!(world.link(0, 1).exceptions_there.keys().collect::<Vec<_>>(), [&lost]);
    let tip = world.regions[0].tip;
    assert_eq!(world.link(0, 1).ends.as_ref().unwrap().0.proof()[&ShardId(1)], tip);
}

#[test]
fn entries_of_one_workflow_keep_their_order_while_the_first_is_mended() {
    // B8: the run that refuses holds the other run of its workflow id, and nobody else.
    let mut world = two();
    let (first, second, stranger) = (key("w", 1), key("w", 2), key("v", 3));
    world.regions[1].retries.insert(first.run, 4);
    world.regions[0].append(&first, 1, None);
    world.tick(1);
    world.regions[0].append(&second, 1, None);
    world.regions[0].append(&stranger, 1, None);
    world.settle();
    let order: Vec<RunId> = world.regions[1].order.iter().map(|(run, _)| *run).collect();
    let at = |run: &RunKey| order.iter().position(|other| *other == run.run).unwrap();
    assert!(at(&first) < at(&second), "{order:?}");
    assert!(at(&stranger) < at(&first), "{order:?}");
}

#[test]
fn a_close_waits_for_its_successors_first_batch() {
    // B8: the close comes alone; the successor is fetched, its first batch only.
    let mut world = two();
    let (first, second) = (key("w", 1), key("w", 2));
    world.page = 1;
    world.regions[0].append(&first, 1, None);
    world.regions[0].append(&second, 1, None);
    world.regions[0].append(&second, 1, None);
    // The log as a page of one would have it: the close stands before the successor's first batch.
    world.regions[0].append(&first, 1, Some(second.run));
    world.regions[0].log.swap(1, 3);
    for (position, entry) in (1..).zip(&mut world.regions[0].log) {
        let antipode_persistence::rows::LogEntry::Batch(row) = entry else { panic!("a run row") };
        row.sequence = Sequence(position);
    }
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    let order = &world.regions[1].order;
    assert_eq!(order[..3], [(first.run, 1), (second.run, 1), (first.run, 2)]);
}

#[test]
fn a_quarantined_run_is_counted_behind_and_mended_by_the_next_stream() {
    // E1
    let mut world = two();
    let key = key("w", 1);
    world.regions[1].broken.insert(key.run);
    for _ in 0..5 {
        world.regions[0].append(&key, 1, None);
    }
    world.settle();
    let row = &world.regions[1].quarantine[&key];
    assert_eq!((row.reason.as_str(), row.behind), ("broken on purpose", 4));
    world.regions[1].broken.clear();
    world.close(0, 1);
    world.open(0, 1);
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    assert!(world.regions[1].quarantine.is_empty());
    assert!(world.link(0, 1).exceptions_there.is_empty(), "the source knows that it is mended");
}

#[test]
fn at_the_cap_of_exceptions_the_watermark_stops() {
    // E1: the test's links have room for three.
    let mut world = two();
    for number in 1..=5 {
        let key = key(&format!("w{number}"), number);
        world.regions[1].broken.insert(key.run);
        world.regions[0].append(&key, 1, None);
    }
    world.settle();
    assert_eq!(world.regions[1].quarantine.len(), 3);
    let link = world.link(0, 1);
    assert!(link.ends.as_ref().unwrap().0.proof()[&ShardId(1)] < Sequence(5));
}

#[test]
fn an_entry_of_a_newer_version_asks_for_the_record_first() {
    // F5, I10: the push is lost, as a stream that broke would lose it.
    let mut world = World::new(2);
    world.open(0, 1);
    world.settle();
    let regions = regions();
    let act =
        antipode_core::namespace::Act { regions: &regions, here: "east", now: world.now, who: "", why: "" };
    let forced = antipode_core::namespace::Forced {
        seen_max: antipode_core::ids::FailoverVersion(1),
        not_asked: Default::default(),
        predicted_loss_runs: None,
    };
    let moved = record().force(&act, forced).unwrap();
    assert!(moved.version() > record().version());
    let old = std::mem::take(&mut world.regions[0].table);
    let version = moved.version();
    let mut new = Table::default();
    new.put(moved);
    world.regions[0].append(&key("w", 1), version.0, None);
    world.regions[0].table = old;
    world.tick(1);
    world.regions[0].table = new;
    world.settle();
    assert_eq!(world.runs(0), world.runs(1));
    assert_eq!(version_of(&world.regions[1].table), Some(version));
}

/// An inbox alone, opened, and what it looks at.
fn alone() -> (Inbox, Table, KnownStates) {
    let world = World::new(2);
    let mut inbox = Inbox::new(Setup {
        info: world.regions[1].info(),
        source: "east".into(),
        source_id: antipode_core::ids::RegionId(1),
        incarnation: None,
        positions: Positions::new(),
        exceptions: Exceptions::new(3),
        others: Vec::new(),
        down: Vec::new(),
    });
    let (table, mut received) = (Table::default(), KnownStates::new(9));
    let mut cx = Cx { now: Timestamp(0), records: &table, received: &mut received };
    inbox.opened(&mut cx, &world.regions[0].info());
    inbox.take_outputs();
    (inbox, table, received)
}

#[test]
fn a_hole_between_ranges_and_a_second_opening_break_the_stream() {
    let (mut inbox, table, mut received) = alone();
    let mut cx = Cx { now: Timestamp(0), records: &table, received: &mut received };
    let range = |after, through| {
        let entries = replicate_response::Entries { shard: 1, after, through, ..Default::default() };
        Message::Entries(entries)
    };
    assert_eq!(inbox.message(&mut cx, range(0, 3)), Ok(()));
    assert!(matches!(inbox.message(&mut cx, range(4, 5)), Err(Broken::Gap(_))));
    let opened = Message::Opened(Default::default());
    assert_eq!(inbox.message(&mut cx, opened), Err(Broken::OpenedTwice));
}

#[test]
fn records_are_merged_before_anything_else_and_acks_wait_behind_a_cut() {
    let (mut inbox, table, mut received) = alone();
    let mut cx = Cx { now: Timestamp(0), records: &table, received: &mut received };
    inbox.message(&mut cx, Message::Namespaces(Namespaces { records: vec![record().to_wire()] })).unwrap();
    assert!(matches!(inbox.take_outputs()[..], [Output::Merge(_)]));
    inbox.pause_acks(&mut cx, true);
    let entries = replicate_response::Entries { shard: 1, through: 4, ..Default::default() };
    inbox.message(&mut cx, Message::Entries(entries)).unwrap();
    assert!(matches!(inbox.take_outputs()[..], [Output::Proved(_)]));
    inbox.pause_acks(&mut cx, false);
    assert!(matches!(inbox.take_outputs()[..], [Output::Send(_)]));
    // E2: the position is stored behind, at its time.
    let at = inbox.next_wake().unwrap();
    assert!(at > cx.now);
    cx.now = at;
    inbox.wake(&mut cx);
    assert!(matches!(inbox.take_outputs()[..], [Output::StorePositions(_)]));
    assert_eq!(inbox.next_wake(), None);
}

#[test]
fn entries_during_a_replay_make_it_replay_again() {
    // E1: what comes while a quarantined run is fetched is only counted, and the answer under way may be older than it.
    let mut world = two();
    let key = key("w", 1);
    world.regions[0].append(&key, 1, None);
    let whole = world.regions[0].fetch(&Hole::whole(&key).request());
    let mut exceptions = Exceptions::new(3);
    exceptions.add(&key, "broken on purpose", 0).unwrap();
    let mut inbox = Inbox::new(Setup {
        info: world.regions[1].info(),
        source: "east".into(),
        source_id: antipode_core::ids::RegionId(1),
        incarnation: None,
        positions: Positions::new(),
        exceptions,
        others: Vec::new(),
        down: Vec::new(),
    });
    let (table, mut received) = (Table::default(), KnownStates::new(9));
    let mut cx = Cx { now: Timestamp(0), records: &table, received: &mut received };
    let asked = |outputs: Vec<Output>| {
        outputs.into_iter().find_map(|output| match output {
            Output::Fetch { call, .. } => Some(call),
            _ => None,
        })
    };
    let answer = || FetchRunResponse { found: true, ..FetchRunResponse::default() };
    inbox.opened(&mut cx, &world.regions[0].info());
    let first = asked(inbox.take_outputs()).unwrap();
    let body = link::entry::Entry::Batch(whole.batches[0].clone());
    let entries = vec![link::Entry { sequence: 1, entry: Some(body) }];
    let entries =
        replicate_response::Entries { shard: 1, after: 0, through: 1, entries, ..Default::default() };
    inbox.message(&mut cx, Message::Entries(entries)).unwrap();
    inbox.take_outputs();
    inbox.fetched(&mut cx, first, Ok(answer()));
    let second = asked(inbox.take_outputs()).expect("it is fetched again");
    assert!(inbox.exceptions().get(&key).is_some());
    inbox.fetched(&mut cx, second, Ok(answer()));
    assert!(
        inbox
            .take_outputs()
            .iter()
            .any(|output| matches!(output, Output::Unquarantine(run, _) if *run == key))
    );
    assert!(inbox.exceptions().get(&key).is_none());
}

#[test]
fn a_namespace_that_nobody_shares_with_us_is_counted_and_proved() {
    let mut world = two();
    world.regions[1].table = Table::default();
    world.regions[0].append(&key("w", 1), 1, None);
    world.settle();
    // The record came with the stream, so it is known: I10.
    assert_eq!(world.runs(0), world.runs(1));
    assert!(world.regions[1].table.get(namespace()).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Goal: whatever the order of writes, deliveries, breaks and time, what was proved is held, and all is held in the end
    /// (E1, E3, V19).
    #[test]
    fn any_schedule_converges_and_no_proof_lies(
        steps in prop::collection::vec((0u8..10, 0u8..4, any::<bool>()), 1..120),
        page in 1usize..4,
    ) {
        let mut world = two();
        world.page = page;
        for (what, number, flag) in steps {
            let key = key(&format!("w{}", number % 3), number);
            match what {
                0..=2 => { world.regions[0].append(&key, 1, None); }
                3 if world.runs(0).contains_key(&key) => {
                    let count = world.regions[0].tip.0;
                    world.regions[0].heartbeat(&key, count);
                }
                4 => { world.regions[1].retries.insert(key.run, u32::from(number)); }
                5 if flag => { world.close(0, 1); world.open(0, 1); }
                6 => world.tick(i64::from(number) * 7),
                _ => { world.deliver(usize::from(number) % 2, flag); }
            }
            let (from, to) = (world.regions[0].log.clone(), world.runs(1).clone());
            let proved = world.link(0, 1).ends.as_ref().and_then(|(outbox, _)| outbox.proof().get(&ShardId(1)).copied());
            for entry in from.iter().filter(|entry| entry.sequence() <= proved.unwrap_or_default()) {
                if let antipode_persistence::rows::LogEntry::Batch(row) = entry {
                    let held = to.get(&row.batch.envelope.run).is_some_and(|run| {
                        run.batches.iter().any(|batch| batch.chain == row.batch.chain)
                    });
                    prop_assert!(held, "{} is proved and not held", row.sequence.0);
                }
            }
        }
        world.settle();
        prop_assert_eq!(world.runs(0), world.runs(1));
    }
}
