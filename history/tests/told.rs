//! What a shard tells of replicated entries, driven over a store in memory: the verdict that held, once, and what a run became
//! among the runs of its workflow id. How each is worded is `antipode_conflict`'s own test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    identity::{ExternalKind, Identity},
    ids::RunId,
};
use antipode_history::api::{Applied, Replicated};
use antipode_proto::core as wire;
use bytes::Bytes;
use serde_json::Value;
use support::*;

/// What was told since the last look: of which run, which verdict, and the report.
fn told(region: &mut Region) -> Vec<(RunId, &'static str, Value)> {
    let told = std::mem::take(&mut region.told);
    told.into_iter()
        .map(|(key, judgement)| {
            let words = judgement.words();
            assert!(words.starts_with(judgement.verdict()) && words.ends_with('.'), "{words}");
            (key.run, judgement.verdict(), judgement.json())
        })
        .collect()
}

fn names(region: &mut Region) -> Vec<(RunId, &'static str)> {
    told(region).into_iter().map(|(run, verdict, _)| (run, verdict)).collect()
}

fn batch(entry: &Replicated) -> Arc<Batch> {
    match entry {
        Replicated::Batch(batch) | Replicated::Last(batch) => Arc::clone(batch),
        Replicated::State(_) => panic!("a state"),
    }
}

fn state(run: RunId) -> wire::RunState {
    wire::RunState {
        namespace_id: namespace().to_string(),
        workflow_id: "order".to_string(),
        run_id: run.to_string(),
        ..Default::default()
    }
}

fn apply_state(region: &mut Region, state: wire::RunState) -> Applied {
    region.apply(vec![Replicated::State(Box::new(state))]).pop().unwrap()
}

/// B8: the end of a run waits for the run that continues it, as often as it comes, and is told as waiting; stored it is told
/// once, also when its runs have to be read first.
#[test]
fn a_batch_that_waits_for_its_successor_is_not_told_as_stored() {
    let (mut east, mut west) = pair();
    let first = east.start();
    west.take_all(east.log(0));
    assert_eq!(names(&mut west), [(first, "Create")]);
    let seen = east.tip().0;
    let second = east.continue_as_new();
    let (of_first, of_second): (Vec<_>, Vec<_>) =
        east.log(seen).into_iter().partition(|entry| key_of(entry).run == first);
    let end = of_first.last().unwrap().clone();
    west.take_all(of_first[..of_first.len() - 1].to_vec());
    west.told.clear();
    for crashed in [false, true] {
        let needs = west.apply(vec![end.clone()]);
        assert!(matches!(&needs[..], [Applied::NeedEvents { key, .. }] if key.run == second), "{needs:?}");
        let told = told(&mut west);
        let [(run, "NeedEvents", report)] = &told[..] else { panic!("crashed: {crashed}: {told:?}") };
        assert_eq!((*run, &report["asks"]["run"]), (first, &second.to_string().into()));
        west.crash();
    }
    west.take_all(of_second);
    west.crash();
    west.told.clear();
    west.take_all(vec![end]);
    assert_eq!(names(&mut west), [(first, "Append")]);
}

/// A branch that cannot be stored is told as poison, with why, not as the branch that it would have become.
#[test]
fn a_batch_that_breaks_is_told_as_poison() {
    let (mut east, mut west) = pair();
    let run = east.start();
    west.take_all(east.log(0));
    let seen = east.tip().0;
    east.signal("x");
    let late = batch(&east.log(seen)[0]);
    west.set(view(2, true, &["east"]));
    west.signal("y");
    let broken = Batch { events: Bytes::from_static(&[0xff, 0xff]), ..(*late).clone() };
    // The bytes are those of another batch: they decode, and do not continue the run.
    let begun = batch(&east.log(0)[0]);
    let stranger = Batch { events: begun.events.clone(), ..(*late).clone() };
    west.told.clear();
    for broken in [broken, stranger] {
        let [Applied::Poison(why)] = &west.apply(vec![Replicated::Batch(Arc::new(broken))])[..] else {
            panic!("applied")
        };
        let told = told(&mut west);
        let [(of, "Poison", report)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*of, report["problem"].as_str()), (run, Some(why.as_str())));
        assert_eq!((&report["rebuild"], &report["winner"]), (&false.into(), &"[1..2@1 3@2]".into()));
    }
    west.take_all(vec![Replicated::Batch(late)]);
    assert_eq!(names(&mut west)[0], (run, "NewBranch"));
}

/// Entries without events: the run is not here, an anchor is not here (W13), nothing is new, something is.
#[test]
fn states_are_told() {
    let (mut east, mut west) = pair();
    let run = east.start();
    assert!(matches!(apply_state(&mut west, state(run)), Applied::NeedEvents { .. }));
    west.take_all(east.log(0));
    west.told.clear();
    let anchored = wire::Register { anchor_event_id: 9, anchor_version: 11, ..wire::Register::default() };
    let unknown = wire::RunState { registers: vec![anchored], ..state(run) };
    assert!(matches!(apply_state(&mut west, unknown), Applied::NeedEvents { .. }));
    let told_of = told(&mut west);
    let [(_, "NeedEvents", report)] = &told_of[..] else { panic!("{told_of:?}") };
    assert_eq!(report["notes"][0], "no stored branch has event 9@11");
    assert_eq!(report["asks"]["run"], run.to_string());
    let signal = Identity::client(ExternalKind::Signal, "x");
    let waiting = wire::PendingEvent {
        identity: Some(signal.to_wire()),
        accepted_version: 1,
        accepted_region: 1,
        ..wire::PendingEvent::default()
    };
    let newer = wire::RunState { pending: vec![waiting], ..state(run) };
    assert!(matches!(apply_state(&mut west, newer.clone()), Applied::Applied(_)));
    assert_eq!(apply_state(&mut west, newer), Applied::Duplicate);
    assert_eq!(names(&mut west), [(run, "Merge"), (run, "Duplicate")]);
    // No entry names such a run.
    let nameless = wire::RunState { run_id: String::new(), ..state(run) };
    assert!(matches!(apply_state(&mut west, nameless), Applied::Poison(_)));
    assert_eq!(names(&mut west), []);
}

/// Entries of a deleted run: known with it, filed, filed before, or the run comes back (C6, I03).
#[test]
fn answers_of_a_tombstone_are_told() {
    let (mut east, mut west) = pair();
    let run = east.start();
    west.take_all(east.log(0));
    west.set(view(2, true, &["east"]));
    west.terminate();
    west.prove_all("east");
    west.pass(2 * HOUR);
    assert!(west.is_tombstone(run));
    west.told.clear();
    west.take_all(east.log(0));
    let known = names(&mut west);
    assert!(!known.is_empty() && known.iter().all(|told| *told == (run, "Duplicate")), "{known:?}");
    let seen = east.tip().0;
    east.signal("x");
    let late = east.log(seen);
    for (verdict, note) in [
        ("Unclaimed", "filed as unclaimed: Signal \"x\", event 3@1"),
        ("Duplicate", "it has no event of a client that is not filed"),
    ] {
        west.take_all(late.clone());
        let told = told(&mut west);
        let [(_, name, report)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*name, &report["notes"][0]), (verdict, &note.into()));
    }
    assert_eq!(apply_state(&mut west, state(run)), Applied::Duplicate);
    assert_eq!(names(&mut west), [(run, "Duplicate")]);
    east.set(view(11, true, &["west"]));
    let seen = east.tip().0;
    east.signal("y");
    assert!(matches!(west.apply(east.log(seen))[..], [Applied::NeedEvents { .. }]));
    let told = told(&mut west);
    let [(_, "Resurrect", report)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&report["asks"]["from"], &report["asks"]["until"]), (&1.into(), &Value::Null));
}

/// Two regions start a run each: who owns the id is told where the other run comes too late, where one loses the id, and where
/// one gets it back (R621, R634, N5).
#[test]
fn changes_of_the_owner_are_told() {
    let (mut east, mut west) = pair();
    let older = east.start();
    west.set(view(2, true, &["east"]));
    let newer = west.start();
    east.take_all(west.log(0));
    west.take_all(east.log(0));
    // Lost in the east, at once a zombie in the west: the same two runs, the same numbers.
    for region in [&mut east, &mut west] {
        let told = told(region);
        let standing: Vec<_> = told.iter().filter(|(_, verdict, _)| *verdict == "Zombie").collect();
        let [(run, _, report)] = &standing[..] else { panic!("{told:?}") };
        assert_eq!((*run, &report["owner"]), (older, &newer.to_string().into()));
        assert_eq!((&report["owner_state"], &report["other_state"]), (&"open".into(), &"zombie".into()));
        assert_eq!(report["why"], "last write version @2 is higher than @1");
    }
    // A third region, which knows the older run alone, goes on with it under a higher version.
    let mut south = Region::new(3, view(13, true, &["east", "west"]));
    south.view.writable = None;
    south.set(view(1, false, &["east", "west"]));
    let begun: Vec<_> = east.log(0).into_iter().filter(|entry| key_of(entry).run == older).collect();
    south.take_all(begun);
    south.set(view(13, true, &["east", "west"]));
    let seen = south.tip().0;
    south.signal("x");
    west.take_all(south.log(seen));
    let told = told(&mut west);
    let standing: Vec<_> = told
        .iter()
        .filter(|(_, verdict, _)| !matches!(*verdict, "Append"))
        .map(|told| (told.0, told.1))
        .collect();
    assert_eq!(standing, [(older, "Revived"), (newer, "Zombie")], "{told:?}");
    assert_eq!(told.last().unwrap().2["why"], "last write version @13 is higher than @2");
}
