//! Verdicts on what clients gave a run and no current branch carries (I03, B1): which hold, what undoes them, and which of several
//! for one event counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;

use antipode_core::{
    chain::ChainValue,
    decide::reapply,
    identity::Identity,
    ids::{EventId, FailoverVersion, Place, RunId, RunOrder, Timestamp},
    run::{Pushed, Run},
    verdict::{self, Basis, CAME_BACK, CLOSED, CLOSED_BEFORE, DELIVERED, Verdict},
};
use antipode_proto::core as wire;
use support::*;

/// How far a run is: version and sequence of its place.
fn at(version: i64, sequence: u64) -> RunOrder {
    RunOrder { version: FailoverVersion(version), place: Place { epoch: 1, sequence } }
}

/// Files a verdict on the signal X, which rests on this. True when it is new.
fn file(run: &mut Run, words: &str, basis: Basis, order: RunOrder) -> bool {
    let identity = signal_identity("X");
    let verdict =
        Verdict { identity: &identity, event: EventId(3), version: FailoverVersion(1), words, basis, order };
    run.file(&verdict, Timestamp(7))
}

fn owner_of(run: RunId, first_run: RunId) -> wire::CurrentRecord {
    wire::CurrentRecord {
        run_id: run.to_string(),
        first_run_id: first_run.to_string(),
        ..wire::CurrentRecord::default()
    }
}

/// What a verdict rests on, and how far that was.
type Filed = (Basis, RunOrder);

/// E2: that a run took an event counts, until a later life of that run ended without it. Nothing else overturns it.
#[test]
fn of_several_verdicts_the_one_of_the_later_life_counts() {
    let (old, new) = two_chains();
    let (taken, branch) = (Basis::Taken(new.run.key.run), Basis::tip_of(&new.run));
    let of_another = Basis::Branch { run: run_id(9), chain: new.run.tip() };
    let owner = Basis::Owner(new.run.key.run);
    let expected: [(&[Filed], &[Basis], Option<Basis>); 11] = [
        (&[], &[], None),
        (&[(taken, at(2, 1))], &[], Some(taken)),
        (&[(taken, at(2, 1)), (branch, at(2, 1))], &[], Some(taken)),
        (&[(taken, at(2, 2)), (branch, at(2, 1))], &[], Some(taken)),
        (&[(taken, at(2, 1)), (branch, at(2, 2))], &[], Some(branch)),
        (&[(taken, at(2, 5)), (branch, at(12, 1))], &[], Some(branch)),
        (&[(taken, at(2, 1)), (of_another, at(2, 2))], &[], Some(taken)),
        (&[(taken, at(2, 1)), (owner, at(2, 2))], &[], Some(taken)),
        (&[(taken, at(2, 1)), (branch, at(2, 2))], &[branch], Some(taken)),
        (&[(taken, at(2, 2)), (branch, at(2, 1))], &[taken], Some(branch)),
        (&[(taken, at(2, 1))], &[taken], None),
    ];
    let x = signal_identity("X");
    for (filed, fallen, counts) in expected {
        let mut run = old.run.clone();
        for (basis, order) in filed {
            let words =
                if *basis == taken { DELIVERED } else { "the run that owns the workflow id is closed" };
            assert!(file(&mut run, words, *basis, *order));
            assert!(!file(&mut run, words, *basis, *order), "a set");
        }
        assert!(run.verdicts.len() == filed.len() && run.verdicts.is_empty() == filed.is_empty());
        run.judge_verdicts(fallen.iter().map(|basis| (x.clone(), *basis)).collect());
        let record = |basis: Basis| {
            let (_, order) = filed.iter().find(|(other, _)| *other == basis).unwrap();
            (basis == taken, order.version.0, order.place.sequence)
        };
        let standing = run.standing(&x);
        let told = standing.map(|record| {
            (record.delivered, record.basis_version, record.basis_place.unwrap_or_default().sequence)
        });
        assert_eq!(told, counts.map(record), "{filed:?} without {fallen:?}");
        assert_eq!(run.is_filed(&x), counts.is_some());
        let unclaimed = counts.is_some_and(|basis| basis != taken);
        assert_eq!(run.unclaimed().len(), usize::from(unclaimed), "{filed:?} without {fallen:?}");
        assert!(!run.is_filed(&signal_identity("Y")));
    }
}

/// B1, C6: what other runs decide of verdicts, by what each rests on. A run or a batch that is not here undoes nothing.
#[test]
fn what_other_runs_undo() {
    let (mut old, mut new) = two_chains();
    let mut west = new.elsewhere(3, 13);
    new.signal("lost");
    let lost = new.run.tip();
    west.signal("won");
    assert_eq!(new.receive(&west), [Pushed::Switched]);
    let other_run = |number: u128, takes: bool, ends: bool| {
        let mut author = Author::begin_with(&start_request(), number);
        if takes {
            author.signal("X");
        }
        if ends {
            author.terminate();
        }
        author.run
    };
    let here =
        [new.run.clone(), other_run(7, true, true), other_run(8, true, false), other_run(9, false, true)];
    let unknown = ChainValue([9; 16]);
    let of_new = |chain: ChainValue| Basis::Branch { run: run_id(5), chain };
    let bases = [
        ("nothing", Basis::Nothing),
        ("own branch", Basis::Branch { run: run_id(2), chain: unknown }),
        ("current branch", of_new(new.run.tip())),
        ("lost branch", of_new(lost)),
        ("unknown branch", of_new(unknown)),
        ("branch of a deleted run", Basis::Branch { run: run_id(6), chain: lost }),
        ("owner", Basis::Owner(run_id(5))),
        ("taken", Basis::Taken(run_id(7))),
        ("taken, open", Basis::Taken(run_id(8))),
        ("taken, not by it", Basis::Taken(run_id(9))),
        ("taken, deleted", Basis::Taken(run_id(6))),
    ];
    for (words, basis) in bases {
        assert!(file(&mut old.run, words, basis, at(2, 1)));
    }
    let stranger = owner_of(run_id(5), run_id(5));
    let own = owner_of(run_id(2), run_id(2));
    let later = owner_of(run_id(3), run_id(2));
    let others = ["lost branch", "taken, open", "taken, not by it"];
    let chain = ["lost branch", "owner", "taken, open", "taken, not by it"];
    let expected: [(Option<&wire::CurrentRecord>, &[u128], Vec<&str>); 6] = [
        (None, &[], others.to_vec()),
        (Some(&stranger), &[], others.to_vec()),
        (Some(&later), &[], chain.to_vec()),
        (Some(&own), &[], bases.iter().skip(2).map(|(name, _)| *name).collect()),
        (Some(&stranger), &[7], vec!["lost branch", "taken", "taken, open", "taken, not by it"]),
        (Some(&stranger), &[6], vec!["lost branch", "taken, open", "taken, not by it", "taken, deleted"]),
    ];
    let x = signal_identity("X");
    for (owner, on, names) in expected {
        let other = |run: RunId| here.iter().find(|other| other.key.run == run);
        let went_on = |run: RunId, identity: &Identity| {
            assert_eq!(*identity, x);
            on.iter().any(|number| run_id(*number) == run)
        };
        let fallen = old.run.fallen(owner, other, went_on);
        let fell = bases.iter().filter(|(_, basis)| fallen.contains(&(x.clone(), *basis)));
        assert_eq!(fell.map(|(name, _)| *name).collect::<Vec<_>>(), names, "{owner:?}, {on:?}");
        assert_eq!(fallen.len(), names.len());
        assert!(old.run.judge_verdicts(fallen.clone()) || on.is_empty());
        assert!(!old.run.judge_verdicts(fallen), "the same again is no change");
    }
    let runs = |numbers: &[u128]| numbers.iter().map(|number| run_id(*number)).collect::<BTreeSet<_>>();
    assert_eq!(old.run.rests_on(), runs(&[5, 6, 7, 8, 9]));
    let state = old.run.state_wire();
    assert_eq!(verdict::others(run_id(2), &state.verdicts), runs(&[5, 6, 7, 8, 9]));
    assert_eq!(verdict::others(run_id(5), &state.verdicts), runs(&[2, 6, 7, 8, 9]));
    assert!(old.run.missing_basis(&state), "the own branch that nobody has");
    assert!(!new.run.missing_basis(&wire::RunState {
        verdicts:
            state.verdicts.iter().filter(|record| record.verdict != "unknown branch").cloned().collect(),
        ..state
    }));
}

/// B7: the heir of a run is the greatest of its chain, when that is greater than the run was.
#[test]
fn an_heir_is_of_the_chain_and_greater() {
    let (old, new) = two_chains();
    let of = |number: u128, first_run: u128, version: i64| {
        let mut author = Author::begin_with(&start_request(), number);
        author.version = version;
        author.signal("s");
        author.run.first_run = run_id(first_run);
        author.run
    };
    let runs = [of(6, 2, 12), of(7, 2, 22), of(8, 2, 2), of(9, 5, 32)];
    let heir = |was: RunOrder| verdict::heir(old.run.first_run, was, runs.iter()).map(|run| run.key.run);
    assert_eq!(heir(old.run.order()), Some(run_id(7)));
    assert_eq!(heir(at(22, 1)), Some(run_id(7)), "a later place");
    assert_eq!(heir(runs[1].order()), None, "not greater than itself");
    assert_eq!(heir(at(32, 1)), None);
    assert!(verdict::heir(new.run.first_run, at(32, 9), runs.iter()).is_none());
}

/// B7, C6: a stored head, and so a tombstone, tells chain and order of its run; its branches may stand in any order.
#[test]
fn a_head_tells_chain_and_order() {
    let (_, mut new) = two_chains();
    let mut west = new.elsewhere(3, 13);
    new.signal("a");
    new.signal("b");
    west.signal("c");
    new.receive(&west);
    let mut head = new.run.head();
    assert_eq!(head.branches.len(), 2);
    assert_eq!(new.run.order().version, FailoverVersion(13));
    for _ in 0..2 {
        assert_eq!(verdict::order_of_head(&head), new.run.order());
        assert_eq!(verdict::place_of(&head), Some((run_id(5), new.run.order())));
        head.branches.reverse();
    }
    for branch in &mut head.branches {
        branch.place = None;
    }
    let nowhere = RunOrder { version: FailoverVersion(13), place: Place::default() };
    assert_eq!(verdict::order_of_head(&head), nowhere);
    assert_eq!(verdict::order_of_head(&wire::RunHead::default()), RunOrder::default());
    assert_eq!(verdict::place_of(&wire::RunHead::default()), None, "it names no chain");
}

/// C6: what a tombstone lists comes back with its run and rests on nothing there; it holds until the run has the event.
#[test]
fn what_was_listed_comes_back() {
    let (old, new) = two_chains();
    let mut deleted = old.run.clone();
    assert!(file(&mut deleted, CLOSED, Basis::tip_of(&old.run), at(1, 4)));
    assert!(file(&mut deleted, DELIVERED, Basis::Taken(new.run.key.run), at(2, 4)));
    for (listed, unclaimed) in [(&deleted.verdicts.to_wire()[..1], 1), (&deleted.verdicts.to_wire()[1..], 0)]
    {
        let mut back = old.clone();
        back.run.come_back(listed);
        assert_eq!(back.run.unclaimed().len(), unclaimed);
        let record = back.run.standing(&signal_identity("X")).unwrap().clone();
        let bare = wire::Unclaimed {
            verdict: CAME_BACK.into(),
            basis_run_id: String::new(),
            basis_chain: ChainValue::NONE.to_bytes(),
            basis_version: 0,
            basis_place: None,
            ..listed[0].clone()
        };
        assert_eq!(record, bare);
        assert!(back.run.rests_on().is_empty());
        back.signal("X");
        assert!(!back.run.is_filed(&signal_identity("X")), "the run has it");
    }
}

/// A verdict is written with what it rests on, and how far that was; without either it says so by absence.
#[test]
fn a_record_says_what_it_rests_on() {
    let x = signal_identity("X");
    let chain = ChainValue([9; 16]);
    let write = |basis: Basis, order: RunOrder| {
        let verdict = Verdict {
            identity: &x,
            event: EventId(3),
            version: FailoverVersion(11),
            words: "why",
            basis,
            order,
        };
        verdict.record(run_id(2), Timestamp(7))
    };
    let nothing = write(Basis::Nothing, RunOrder::default());
    let expected = wire::Unclaimed {
        identity: Some(x.to_wire()),
        event_id: 3,
        version: 11,
        run_id: run_id(2).to_string(),
        verdict: "why".into(),
        recorded_unix_nanos: 7,
        basis_run_id: String::new(),
        basis_chain: ChainValue::NONE.to_bytes(),
        delivered: false,
        basis_version: 0,
        basis_place: None,
    };
    assert_eq!(nothing, expected);
    let resting = |basis_chain: ChainValue, delivered: bool| wire::Unclaimed {
        basis_run_id: run_id(5).to_string(),
        basis_chain: basis_chain.to_bytes(),
        delivered,
        basis_version: 2,
        basis_place: Some(wire::Place { epoch: 1, sequence: 4 }),
        ..expected.clone()
    };
    assert_eq!(write(Basis::Branch { run: run_id(5), chain }, at(2, 4)), resting(chain, false));
    assert_eq!(write(Basis::Owner(run_id(5)), at(2, 4)), resting(ChainValue::NONE, false));
    assert_eq!(write(Basis::Taken(run_id(5)), at(2, 4)), resting(ChainValue::NONE, true));
}

/// Verdicts that rest on nothing: "closed", as an earlier version filed it, falls when its run is open; all others stay.
#[test]
fn a_verdict_without_basis_asks_whether_the_run_is_open() {
    let (open, _) = two_chains();
    let mut closed = open.clone();
    closed.terminate();
    for (words, of, holds_open) in [
        (CLOSED, 2, false),
        (CLOSED_BEFORE, 2, false),
        (CLOSED, 5, true),
        (CLOSED_BEFORE, 5, true),
        ("only signals are handed to another chain", 2, true),
    ] {
        let x = signal_identity("X");
        let verdict = Verdict {
            identity: &x,
            event: EventId(3),
            version: FailoverVersion(1),
            words,
            basis: Basis::Nothing,
            order: RunOrder::default(),
        };
        for (author, holds) in [(&open, holds_open), (&closed, true)] {
            let mut run = author.run.clone();
            assert!(run.verdicts.add(&verdict.record(run_id(of), Timestamp(1))));
            assert_eq!(run.is_filed(&x), holds, "{words}, of run {of}");
        }
    }
    let mut run = open.run;
    assert!(!run.verdicts.add(&wire::Unclaimed { verdict: CLOSED.into(), ..Default::default() }));
    assert!(run.verdicts.is_empty(), "of no event");
}

/// B1: a verdict goes with the state of its run. Whoever lacks the batch that it rests on asks for it; then it holds, in whatever
/// region is active next, and falls with the branch.
#[test]
fn a_verdict_holds_where_it_was_not_given() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    let mut south = east.elsewhere(4, 4);
    east.signal("X");
    west.terminate();
    west.receive(&east);
    assert!(reapply::file_unclaimed(&mut west.run, Timestamp(1)));
    let told = west.run.state_wire();
    north.receive(&east);
    assert!(north.run.missing_basis(&told) && !west.run.missing_basis(&told));
    north.receive(&west);
    assert!(!north.run.missing_basis(&told));
    assert_eq!(north.run.owed().len(), 1, "not known yet");
    assert!(north.run.merge(&told) && !north.run.merge(&told));
    assert_eq!(north.run.owed().len(), 0);
    assert_eq!(north.run.unclaimed(), west.run.unclaimed());
    south.signal("S");
    for region in [&mut north, &mut west] {
        assert_eq!(region.receive(&south), [Pushed::Switched]);
        assert!(region.run.unclaimed().is_empty());
        assert_eq!(region.run.verdicts.len(), 1, "it stays and holds no more");
        assert_eq!(region.run.owed().len(), 2, "the signal and the termination");
    }
}

/// B1: what an earlier version filed does not say what it rests on. "The run is closed" falls when the run is open; the rest stays.
#[test]
fn a_verdict_of_an_earlier_version_is_read() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    east.signal("X");
    west.terminate();
    west.receive(&east);
    assert!(reapply::file_unclaimed(&mut west.run, Timestamp(1)));
    let mut head = west.run.head();
    for record in &mut head.unclaimed {
        record.basis_run_id.clear();
        record.basis_chain.clear();
    }
    head.unclaimed.push(wire::Unclaimed {
        identity: Some(signal_identity("other").to_wire()),
        verdict: "the run it named was superseded by another chain".into(),
        ..head.unclaimed[0].clone()
    });
    let mut batches: Vec<_> = west.run.batches.values().cloned().collect();
    batches.sort_by_key(|batch| batch.envelope.first_event);
    west.run = Run::restore(west.run.key.clone(), &head, batches).unwrap();
    assert_eq!(west.run.unclaimed().len(), 2);
    north.signal("N");
    west.receive(&north);
    assert_eq!(west.run.unclaimed().len(), 1);
    assert!(west.run.is_filed(&signal_identity("other")));
}

/// B1, B3: the owner of the id took the signal from its client itself, and closed. Whoever is told so owes it to nobody, until it owns
/// the id itself, or that close is gone: then the signal of its losing branch is its own again.
#[test]
fn who_took_it_answers_for_it() {
    let (mut old, mut new) = two_chains();
    let mut later = old.elsewhere(4, 14);
    let mut west = old.elsewhere(3, 13);
    old.signal_as("X", "r1", false);
    new.signal_as("X", "r1", false);
    let open = new.run.clone();
    new.terminate();
    assert!(old.run.owed_to(&new.run, false).hand_over.is_empty());
    let told = old.run.delivered_to(&new.run, false);
    assert_eq!(told.len(), 1);
    assert!(old.run.owed_to_nobody(false).iter().any(|record| record.event_id > 1), "not told yet");
    old.run.verdicts.add(&told[0]);
    assert!(old.run.delivered_to(&new.run, false).is_empty(), "once");
    assert!(
        old.run.owed_to_nobody(false).iter().all(|record| record.event_id == 1),
        "also when that is deleted"
    );
    assert!(old.run.unclaimed().is_empty(), "it is not unclaimed");
    // A branch without it wins.
    west.signal("Y");
    old.receive(&west);
    assert_eq!(old.run.owed().len(), 0, "who took it answers for it");
    let judge = |run: &mut Run, owner: &wire::CurrentRecord, other: Option<&Run>| {
        let fallen = run.fallen(Some(owner), |_| other, |_, _| false);
        run.judge_verdicts(fallen)
    };
    let of = |run: &Run| owner_of(run.key.run, run.first_run);
    let (stranger, own) = (of(&new.run), of(&old.run));
    assert!(!judge(&mut old.run, &stranger, Some(&new.run)));
    assert!(judge(&mut old.run, &stranger, Some(&open)), "it is open again");
    assert_eq!(old.run.owed().len(), 1);
    assert!(judge(&mut old.run, &stranger, None), "it is deleted");
    assert_eq!(old.run.owed().len(), 0);
    later.signal("Z");
    old.receive(&later);
    assert!(judge(&mut old.run, &own, Some(&new.run)));
    assert_eq!(old.run.owed().len(), 2);
}

/// B1: what a run took before it closed counts, unless only a losing branch continued into it; what an open one took that lost its
/// workflow id does not.
#[test]
fn what_a_closed_run_took_counts() {
    let x = signal_identity("X");
    for (closes, lost, owed) in
        [(true, false, false), (true, true, true), (false, false, true), (false, true, true)]
    {
        let (mut old, mut new) = two_chains();
        old.signal("X");
        if closes {
            old.terminate();
        }
        let handed = old.run.owed_to(&new.run, lost).hand_over;
        assert_eq!(handed.contains_key(&x), owed, "closes {closes}, lost {lost}");
        let nobody = old.run.owed_to_nobody(lost);
        let filed = nobody.iter().any(|record| record.identity == Some(x.to_wire()));
        assert_eq!(filed, owed, "closes {closes}, lost {lost}");
        // Whoever has it needs nothing; who took it and is deleted tells those whose own does not count.
        new.signal("X");
        assert!(!old.run.owed_to(&new.run, lost).hand_over.contains_key(&x));
        assert_eq!(
            old.run.delivered_to(&new.run, lost).len(),
            usize::from(owed),
            "closes {closes}, lost {lost}"
        );
    }
}
