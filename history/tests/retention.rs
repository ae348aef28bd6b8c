//! Deletion at the end of retention, driven at the shard over a store in memory: what goes, what waits, what stays in its
//! place, and what comes too late. Each test is named after its interleaving or its promise (B6, C6).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_core::{
    batch::Batch,
    ids::{Incarnation, Nanos, RegionId, Sequence, Timestamp},
};
use antipode_history::{
    api::{Applied, Refusal, Replicated},
    shard::{Down, Event, NamespaceView, OBLIGATION_PAGE, Proof, Reach},
};
use antipode_persistence::{
    rows::ObligationChange,
    store::{IndexStore, RunStore, ShardStore},
};
use antipode_proto::{api::enums::v1::WorkflowIdReusePolicy as Reuse, core as wire};
use prost::Message;
use support::*;

#[test]
fn without_peers_a_run_goes_whole_and_its_record_with_the_last() {
    let mut region = Region::new(1, view(0, true, &[]));
    let first = region.start();
    region.terminate();
    region.pass(HOUR / 2);
    let second = region.start();
    region.terminate();
    region.pass(HOUR / 2 - 1);
    assert!(region.describe(Some(first)).is_ok(), "not due yet");
    region.pass(HOUR / 10);
    assert!(region.describe(Some(first)).is_err(), "its retention is over");
    assert_eq!((region.stored(first), region.current()), (None, Some(second)));
    region.pass(HOUR);
    assert!(matches!(region.describe(None), Err(Refusal::NotFound(_))));
    assert_eq!(
        (region.stored(second), region.current()),
        (None, None),
        "the last one takes the record along"
    );
    assert_eq!(region.counted(Event::RunDeleted), 2);
    let log = now(region.store.log_read(SHARD, Sequence(0), usize::MAX)).unwrap();
    assert_eq!((log.entries.len(), log.through), (0, region.tip()), "the log is announced to its end");
    assert_eq!(now(region.store.obligation_due(SHARD, Timestamp(i64::MAX), 9)).unwrap(), []);
    // And the id begins anew.
    let third = region.start();
    assert_eq!(region.current(), Some(third));
}

#[test]
fn an_open_run_stays() {
    let mut region = Region::new(1, view(0, true, &[]));
    let run = region.start();
    region.pass(30 * DAY);
    assert!(region.describe(Some(run)).is_ok());
}

/// C6, T#4348: a peer is away for longer than the retention. What it has not got waits for it, and goes when it has.
#[test]
fn retention_waits_for_proof() {
    let mut region = Region::new(1, view(1, true, &["west", "north"]));
    let run = region.start();
    region.terminate();
    let last = region.tip();
    region.prove_all("north");
    region.pass(4 * DAY);
    assert_eq!(region.stored(run).unwrap().1, 2, "nobody knows what west has");
    assert!(region.counted(Event::RetentionUnproved) < 120, "looked at again at growing distances");
    region.prove("west", Proof { through: Sequence(last.0 - 1), ..Proof::default() });
    region.pass(DAY);
    assert_eq!(region.stored(run).unwrap().1, 2, "west lacks the end");

    let exceptions = BTreeSet::from([workflow().run(run)]);
    region.prove("west", Proof { through: last, exceptions, ..Proof::default() });
    region.pass(DAY);
    assert_eq!(region.stored(run).unwrap().1, 2, "west could not apply it (E1)");
    assert!(region.counted(Event::RetentionHeld) > 0);

    // C7: west gets nothing from this run's origin, and lacks its end.
    let proved = BTreeMap::from([(SHARD, Sequence(last.0 - 1))]);
    let down = BTreeMap::from([(RegionId(1), Down { incarnation: Incarnation(1), proved })]);
    region.prove("west", Proof { through: last, down, ..Proof::default() });
    region.pass(DAY);
    assert_eq!(region.stored(run).unwrap().1, 2, "it may have to be relayed");

    // The same for a run of a third region that sends its log to west itself: until west says that it has the end, it may not.
    let west_has = |life: u64, said: Option<(u64, u64)>| {
        let said = said.map(|(life, at)| Down {
            incarnation: Incarnation(life),
            proved: BTreeMap::from([(SHARD, Sequence(at))]),
        });
        let reach = Reach { said, life: Some(Incarnation(life)) };
        Proof { through: last, others: BTreeMap::from([(RegionId(1), reach)]), ..Proof::default() }
    };
    for (proof, why) in [
        (west_has(1, None), "it was not asked"),
        (west_has(1, Some((1, last.0 - 1))), "it lacks the end"),
        (west_has(1, Some((7, last.0))), "it knows another life of the origin than this region does"),
    ] {
        region.prove("west", proof);
        region.pass(DAY);
        assert_eq!(region.stored(run).unwrap().1, 2, "{why}");
    }

    region.prove("west", west_has(1, Some((1, last.0))));
    region.pass(2 * HOUR);
    assert!(region.is_tombstone(run));
    assert_eq!(region.current(), Some(run), "the record stays (B6)");
    assert!(matches!(region.describe(Some(run)), Err(Refusal::NotFound(_))));
}

/// C6, C7: what another region wrote may have to be relayed to a peer that has not said whom it hears.
#[test]
fn a_copy_waits_for_a_peer_that_does_not_say_whom_it_hears() {
    let (mut east, mut west) = pair();
    let run = east.start();
    east.terminate();
    west.take_all(east.log(0));
    west.prove("east", Proof { through: west.tip(), silent: true, ..Proof::default() });
    west.pass(2 * HOUR);
    assert_eq!(west.stored(run).unwrap().1, 2, "nobody knows what the peer has of the run's origin");
    west.prove_all("east");
    west.pass(3 * HOUR);
    assert!(west.is_tombstone(run));
    // What this region wrote itself the peer has when it has this region's log.
    east.prove("west", Proof { through: east.tip(), silent: true, ..Proof::default() });
    east.pass(3 * HOUR);
    assert!(east.is_tombstone(run));
}

/// A change after the proof, also one of a passive copy, needs proof of its own; a restored peer's smaller proof counts.
#[test]
fn a_proof_that_goes_back_holds_again() {
    let (mut east, mut west) = pair();
    let run = east.start();
    east.terminate();
    west.take_all(east.log(0));
    west.prove_all("east");
    west.prove("east", Proof { through: Sequence(1), ..Proof::default() });
    west.pass(2 * HOUR);
    assert_eq!(west.stored(run).unwrap().1, 2, "east was restored from a backup (E2)");
    west.prove_all("east");
    west.pass(3 * HOUR);
    assert!(west.is_tombstone(run), "each region deletes its own copy, also a passive one");
}

#[test]
fn a_released_peer_holds_nothing() {
    let (mut east, _) = pair();
    let run = east.start();
    east.terminate();
    east.prove("west", Proof::released());
    east.pass(2 * HOUR);
    assert!(east.is_tombstone(run));
}

/// B6: the closed owner of the id is deleted, an older run is still open. It must never own the id, whatever arrives for it,
/// before a crash and after, with the tombstone and without; what clients gave it is filed.
#[test]
fn retention_revives_zombie() {
    let (mut east, mut west) = pair();
    let zombie = east.start();
    // Forced: west had not seen the run.
    west.set(view(2, true, &["east"]));
    let owner = west.start();
    west.terminate();
    west.take_all(east.log(0));
    assert_eq!(west.counted(Event::Zombie), 0, "it never owned the id here");
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(owner));

    for (round, name) in ["before a crash", "after it", "without the tombstone"].into_iter().enumerate() {
        let seen = east.tip().0;
        east.signal(name);
        west.take_all(east.log(seen));
        west.pass(60_000_000_000);
        assert_eq!(west.current(), Some(owner), "{name}");
        assert!(
            west.offered.is_empty() || !west.offered.contains(&zombie),
            "{name}: no work of it is given out"
        );
        assert!(matches!(west.describe(None), Err(Refusal::NotFound(_))), "{name}");
        let filed = west.stored(zombie).unwrap().0.unclaimed;
        let signals = filed.iter().filter(|record| record.event_id > 1).count();
        assert_eq!(signals, round + 1, "{name}: {filed:?}");
        west.crash();
        west.prove_all("east");
        if round == 1 {
            west.pass(10 * DAY);
            assert_eq!(west.stored(owner), None, "the tombstone went");
        }
    }
    // A new run owns the id, and the zombie stays one.
    let new = west.start();
    let seen = east.tip().0;
    east.signal("last");
    west.take_all(east.log(seen));
    assert_eq!(west.current(), Some(new));
}

/// Entries of a deleted run come again, to a region that is active and has another run of the id open: they are known. Taken
/// for new ones they would make the run open again up to its last event, and give its signals to the other run.
#[test]
fn late_duplicate_of_deleted_run() {
    let (east, mut west, first, second) = two_runs();
    west.set(view(2, true, &["east"]));
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(first));
    let again: Vec<_> = east.log(0).into_iter().filter(|entry| key_of(entry).run == first).collect();
    assert_eq!(again.len(), 4, "start, two signals, end");
    let before = west.tip();
    for crashed in [false, true] {
        for entry in again.clone() {
            assert_eq!(west.apply(vec![entry]), [Applied::Duplicate], "crashed: {crashed}");
        }
        let state = wire::RunState {
            namespace_id: namespace().to_string(),
            workflow_id: "order".to_string(),
            run_id: first.to_string(),
            ..Default::default()
        };
        assert_eq!(west.apply(vec![Replicated::State(Box::new(state))]), [Applied::Duplicate]);
        west.crash();
    }
    assert_eq!(west.tip(), before, "nothing was written");
    assert_eq!(west.counted(Event::LateDuplicate), 10);
    assert_eq!(west.counted(Event::Unclaimed), 0);
    assert!(west.is_tombstone(first));
    assert_eq!(west.signals(second), Vec::<String>::new());
}

/// A branch that lost comes after its run was deleted: the run stays deleted, what a client gave that branch is filed once.
#[test]
fn a_lost_branch_after_deletion_is_filed() {
    let (mut east, mut west) = pair();
    let run = east.start();
    west.take_all(east.log(0));
    west.set(view(2, true, &["east"]));
    west.terminate();
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(run));
    let seen = east.tip().0;
    east.signal("x");
    let late = east.log(seen);
    assert!(matches!(west.apply(late.clone())[..], [Applied::Applied(_)]));
    assert_eq!(west.apply(late.clone()), [Applied::Duplicate], "once");
    west.crash();
    assert_eq!(west.apply(late), [Applied::Duplicate], "also after a crash");
    assert!(west.is_tombstone(run));
    let filed = west.stored(run).unwrap().0.unclaimed;
    assert_eq!(filed.len(), 1);
    assert!(filed[0].verdict.contains("after the run was deleted"), "{filed:?}");
    assert_eq!(west.counted(Event::Unclaimed), 1);
}

/// G2: two lives of a store minted one version and wrote two things under one id. A tombstone of one knows the other's for new;
/// one that an earlier version wrote tells them apart by nothing.
#[test]
fn what_another_life_wrote_is_not_known_by_a_tombstone() {
    let (mut east, mut west) = pair();
    let run = east.start();
    let seen = east.tip().0;
    east.signal("x");
    let other = east.log(seen).into_iter().map(|entry| match entry {
        Replicated::Batch(batch) => {
            let mut envelope = batch.envelope.clone();
            envelope.origin.incarnation = Incarnation(77);
            Replicated::Batch(Arc::new(Batch::seal(envelope, &batch.decode_events().unwrap())))
        }
        other => other,
    });
    let other: Vec<_> = other.collect();
    east.terminate();
    east.prove_all("west");
    west.take_all(east.log(0));
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(run));
    assert_eq!(west.apply(east.log(seen)), [Applied::Duplicate, Applied::Duplicate]);

    let acquired = now(west.store.shard_acquire(SHARD, "previous version")).unwrap();
    let mut row = now(west.store.run_load(SHARD, &workflow().run(run))).unwrap().unwrap().row;
    let told = row.clone();
    let mut head = wire::RunHead::decode(&*row.head).unwrap();
    head.deleted.as_mut().unwrap().lives.clear();
    row.head = head.encode_to_vec().into();
    let group = antipode_persistence::rows::Group {
        shard: SHARD,
        range: acquired.range,
        after: acquired.sequence,
        through: acquired.sequence,
        runs: vec![row],
        ..Default::default()
    };
    now(west.store.shard_commit(group.clone())).unwrap();
    west.crash();
    assert_eq!(west.apply(other.clone()), [Applied::Duplicate], "by ids and versions");

    let acquired = now(west.store.shard_acquire(SHARD, "this version")).unwrap();
    let group = antipode_persistence::rows::Group { range: acquired.range, runs: vec![told], ..group };
    now(west.store.shard_commit(group)).unwrap();
    west.crash();
    assert!(matches!(west.apply(other)[..], [Applied::Applied(_)]));
    let filed = west.stored(run).unwrap().0.unclaimed;
    assert_eq!(filed.len(), 1, "{filed:?}");
}

/// What a region tells of a run that it deleted.
fn tombstone_of(region: &Region, run: antipode_core::ids::RunId) -> Vec<Replicated> {
    let state = wire::RunState {
        namespace_id: namespace().to_string(),
        workflow_id: "order".to_string(),
        run_id: run.to_string(),
        tombstone: Some(region.stored(run).unwrap().0),
        ..Default::default()
    };
    vec![Replicated::State(Box::new(state))]
}

/// C6, E2: west is restored to a time when the run was open; east has deleted it since, and tells so.
#[test]
fn a_copy_from_before_a_deletion_is_buried() {
    let (mut east, mut west) = pair();
    let run = east.start();
    east.signal("x");
    west.take_all(east.log(0));
    east.terminate();
    east.prove_all("west");
    east.pass(2 * HOUR);
    let told = tombstone_of(&east, run);
    assert!(matches!(west.apply(told.clone())[..], [Applied::Applied(_)]));
    assert!(west.is_tombstone(run));
    assert_eq!((west.current(), west.counted(Event::RunBuried)), (Some(run), 1));
    assert!(matches!(west.describe(None), Err(Refusal::NotFound(_))));
    for _ in 0..2 {
        assert_eq!(west.apply(told.clone()), [Applied::Duplicate]);
        west.crash();
    }
    assert_eq!(west.stored(run).unwrap().0.unclaimed, [], "it took nothing that east did not know");
    // The record is not open, and as high as where the run was deleted (B6).
    west.set(view(2, true, &["east"]));
    let next = west.start();
    assert_eq!(west.signals(next), Vec::<String>::new());
    west.terminate();
    west.prove_all("east");
    west.pass(9 * DAY);
    assert_eq!(west.stored(run), None, "the tombstone goes in its time");
}

#[test]
fn a_copy_that_goes_on_or_is_closed_stays() {
    for closed in [false, true] {
        let (mut east, mut west) = pair();
        let run = east.start();
        west.take_all(east.log(0));
        east.terminate();
        east.prove_all("west");
        east.pass(2 * HOUR);
        if closed {
            west.take_all(east.log(0));
            west.set(view(1, true, &["east"]));
            west.terminate();
        } else {
            west.set(view(2, true, &["east"]));
            west.signal("y");
        }
        if !closed {
            // From now on its state says that it came back.
            assert!(matches!(west.apply(tombstone_of(&east, run))[..], [Applied::Applied(_)]));
        }
        assert_eq!(west.apply(tombstone_of(&east, run)), [Applied::Duplicate], "closed: {closed}");
        assert!(west.describe(Some(run)).is_ok(), "closed: {closed}");
        assert_eq!(west.counted(Event::RunBuried), 0);
    }
}

/// I03: the copy has a branch that the others never had. They would file it when it comes late, and so does who has it.
#[test]
fn what_only_a_buried_copy_took_is_filed() {
    let (mut east, mut west) = pair();
    let run = east.start();
    west.take_all(east.log(0));
    west.set(view(1, true, &["east"]));
    west.signal("only here");
    west.set(view(1, false, &["east"]));
    east.signal("x");
    east.terminate();
    east.prove_all("west");
    east.pass(2 * HOUR);
    assert!(matches!(west.apply(tombstone_of(&east, run))[..], [Applied::Applied(_)]));
    assert!(west.is_tombstone(run));
    let filed = west.stored(run).unwrap().0.unclaimed;
    assert_eq!(filed.len(), 1, "{filed:?}");
    assert!(filed[0].recorded_unix_nanos > 0 && filed[0].event_id > 1);
    assert_eq!(west.counted(Event::Unclaimed), 1);
}

/// T#9717, T#11411: the run goes on under a higher version elsewhere. It comes back whole, and owns the id when it has grown past
/// its record, not while only its beginning is here.
#[test]
fn a_higher_version_brings_a_deleted_run_back() {
    let (mut east, mut west) = pair();
    let run = east.start();
    west.take_all(east.log(0));
    west.set(view(2, true, &["east"]));
    west.terminate();
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(run));
    // East was made active again by force and has not seen the end.
    east.set(view(11, true, &["west"]));
    let seen = east.tip().0;
    east.signal("x");
    let late = east.log(seen);
    let needs = west.apply(late);
    assert!(matches!(&needs[..], [Applied::NeedEvents { known, .. }] if known.is_empty()), "{needs:?}");
    west.crash();
    west.offered.clear();
    let mut whole = east.log(0);
    let end = whole.pop().unwrap();
    west.take_all(whole);
    assert!(west.offered.is_empty(), "no work of a beginning");
    assert!(west.current() == Some(run) && west.stored(run).is_some(), "and no other owner");
    west.take_all(vec![end]);
    assert_eq!(west.counted(Event::RunResurrected), 1);
    assert_eq!(west.signals(run), ["x"]);
    assert!(west.offered.contains(&run), "west is active and it is open");
    assert!(west.describe(None).is_ok());
}

/// After deletion the id may be used again under any reuse policy, and the new run's order is above the tombstone's.
#[test]
fn start_after_deletion() {
    for (reuse, crash) in [(Reuse::RejectDuplicate, false), (Reuse::AllowDuplicateFailedOnly, true)] {
        let (mut east, mut west) = pair();
        let first = east.start();
        east.terminate();
        west.take_all(east.log(0));
        west.set(view(2, true, &["east"]));
        west.prove_all("east");
        assert!(west.try_start(Reuse::RejectDuplicate).is_err(), "while it is there");
        west.pass(2 * HOUR);
        assert!(west.is_tombstone(first));
        if crash {
            west.crash();
        }
        let second = west.try_start(reuse).unwrap();
        assert_eq!(west.current(), Some(second));
        assert!(west.offered.contains(&second));
        // F5: under an older version the start would lose to the record at once.
        west.terminate();
        west.prove_all("east");
        west.pass(2 * HOUR);
        west.set(view(1, true, &["east"]));
        let stale = west.try_start(reuse);
        assert!(matches!(stale, Err(Refusal::Unavailable(_))), "{stale:?}");
    }
}

/// What a client gave a branch that lost is settled by the active region; until then the run stays.
#[test]
fn a_run_that_owes_stays() {
    let (mut east, mut west) = pair();
    let run = east.start();
    west.take_all(east.log(0));
    let seen = east.tip().0;
    east.signal("x");
    west.set(view(2, true, &["east"]));
    west.terminate();
    west.set(view(2, false, &["east"]));
    west.take_all(east.log(seen));
    west.prove_all("east");
    west.pass(DAY);
    assert!(west.counted(Event::RetentionOwed) > 0);
    assert_eq!(west.stored(run).unwrap().1, 3, "the signal is nowhere else");
    west.set(view(2, true, &["east"]));
    west.pass(1);
    assert_eq!(west.stored(run).unwrap().0.unclaimed.len(), 1, "active: it is filed");
    west.prove_all("east");
    west.pass(3 * HOUR);
    assert!(west.is_tombstone(run));
    assert_eq!(west.stored(run).unwrap().0.unclaimed.len(), 1, "and stays listed as long as the tombstone");
}

/// B8: the end of a continued run does not wait for the first batch of a successor that was here and is deleted.
#[test]
fn the_end_of_a_chain_comes_after_its_successor_is_deleted() {
    let (mut east, mut west) = pair();
    let first = east.start();
    west.take_all(east.log(0));
    let seen = east.tip().0;
    let second = east.continue_as_new();
    east.terminate();
    let (of_first, of_second): (Vec<_>, Vec<_>) =
        east.log(seen).into_iter().partition(|entry| key_of(entry).run == first);
    west.take_all(of_second);
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(second));
    west.take_all(of_first);
    let (head, _) = west.stored(first).unwrap();
    assert_eq!((head.branches.len(), west.current()), (1, Some(second)));
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(first), "closed, it goes too");
}

/// A tombstone goes a week and a retention after the run, and the last row of the id takes the record along.
#[test]
fn a_tombstone_goes_in_time() {
    let (mut east, _) = pair();
    let run = east.start();
    east.terminate();
    east.prove_all("west");
    east.pass(2 * HOUR);
    assert!(east.is_tombstone(run));
    east.set(NamespaceView { retention: Nanos(3 * DAY), ..view(1, true, &["west"]) });
    east.pass(10 * DAY - 3 * HOUR);
    assert!(east.is_tombstone(run), "a longer retention counts for it too");
    east.crash();
    east.pass(6 * HOUR);
    assert_eq!((east.stored(run), east.current()), (None, None));
    assert_eq!(east.counted(Event::TombstoneExpired), 1);
}

#[test]
fn a_longer_retention_counts_for_all_and_none_keeps() {
    let mut region = Region::new(1, view(0, true, &[]));
    let run = region.start();
    region.terminate();
    region.set(NamespaceView { retention: Nanos(2 * DAY), ..view(0, true, &[]) });
    region.pass(2 * DAY - HOUR);
    assert!(region.stored(run).is_some());
    region.set(NamespaceView { retention: Nanos(0), ..view(0, true, &[]) });
    region.pass(10 * DAY);
    assert!(region.stored(run).is_some(), "0 keeps for ever");
}

/// A store that an earlier version wrote has its closed runs marked with 0: nothing goes in the first hour.
#[test]
fn an_upgraded_store_deletes_nothing_at_once() {
    let mut region = Region::new(1, view(0, true, &[]));
    let run = region.start();
    region.terminate();
    region.now = region.now.plus(Nanos(30 * DAY));
    let acquired = now(region.store.shard_acquire(SHARD, "migration")).unwrap();
    let key = workflow().run(run);
    let group = antipode_persistence::rows::Group {
        shard: SHARD,
        range: acquired.range,
        after: acquired.sequence,
        through: acquired.sequence,
        obligations: vec![ObligationChange::Put { key, due: Timestamp(0) }],
        ..Default::default()
    };
    now(region.store.shard_commit(group)).unwrap();
    region.crash();
    region.pass(HOUR / 2);
    assert!(region.stored(run).is_some());
    region.pass(HOUR);
    assert_eq!(region.stored(run), None);
}

/// A stored run that cannot be read is never deleted, and does not come back with every page.
#[test]
fn a_damaged_run_stays() {
    let mut region = Region::new(1, view(0, true, &[]));
    let run = region.start();
    region.terminate();
    let acquired = now(region.store.shard_acquire(SHARD, "damage")).unwrap();
    let mut row = now(region.store.run_load(SHARD, &workflow().run(run))).unwrap().unwrap().row;
    row.head = bytes::Bytes::from_static(b"no head");
    let group = antipode_persistence::rows::Group {
        shard: SHARD,
        range: acquired.range,
        after: acquired.sequence,
        through: acquired.sequence,
        runs: vec![row],
        ..Default::default()
    };
    now(region.store.shard_commit(group)).unwrap();
    region.may_break = true;
    region.crash();
    region.pass(HOUR * 3 / 2);
    assert!(now(region.store.run_load(SHARD, &workflow().run(run))).unwrap().is_some());
    let due = now(region.store.obligation_due(SHARD, Timestamp(i64::MAX), 9)).unwrap();
    assert!(due.len() == 1 && due[0].0 > region.now, "put off: {due:?}");
}

/// More closed runs than a page: the next ones are read soon, and none is forgotten.
#[test]
fn many_closed_runs_all_go() {
    let mut region = Region::new(1, view(0, true, &[]));
    for _ in 0..(2 * OBLIGATION_PAGE + 7) {
        region.start();
        region.terminate();
    }
    region.pass(HOUR + 120_000_000_000);
    assert_eq!(region.counted(Event::RunDeleted), 2 * OBLIGATION_PAGE as u64 + 7);
    assert_eq!(region.current(), None);
}
