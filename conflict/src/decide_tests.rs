//! EX7–EX13 as batches, G1, G2, and: any order of arrival gives the same tree.

use antipode_core::batch::Batch;
use proptest::prelude::*;

use super::*;
use crate::testing::{batch, item, list, tree};

fn verdict(tree: &Tree, incoming: &Batch) -> Verdict {
    decide(Some(tree), &incoming.envelope, incoming.chain).verdict
}

#[test]
fn without_conflict_batches_append() {
    // EX7: 1..3@1, failover, 4@2, 5@2.
    let first = batch(None, 3, 1, 0);
    let second = batch(Some(&first), 1, 2, 1);
    let third = batch(Some(&second), 1, 2, 2);
    let created = decide(None, &first.envelope, first.chain);
    assert_eq!(created.verdict, Verdict::Create);
    assert!(created.verdict.stores() && !created.verdict.switches());
    assert_eq!(verdict(&tree(&[&first]), &second), Verdict::Append { branch: 0 });
    let stored = tree(&[&first, &second]);
    assert_eq!(verdict(&stored, &third), Verdict::Append { branch: 0 });
    assert_eq!(verdict(&stored, &second), Verdict::Duplicate);
}

#[test]
fn a_conflict_makes_a_branch_on_both_sides() {
    // EX8: both have [(2,1),(3,2)]; B adds 4@2, C adds 4@3.
    let start = batch(None, 2, 1, 0);
    let base = batch(Some(&start), 1, 2, 1);
    let on_b = batch(Some(&base), 1, 2, 2);
    let on_c = batch(Some(&base), 1, 3, 3);
    assert_eq!(on_b.envelope.items, list(&[(2, 1), (4, 2)]));
    assert_eq!(on_c.envelope.items, list(&[(2, 1), (3, 2), (4, 3)]));
    let ancestor = item(3, 2);
    let at_b = verdict(&tree(&[&start, &base, &on_b]), &on_c);
    assert_eq!(at_b, Verdict::NewBranch { ancestor, becomes_current: true });
    assert!(at_b.switches());
    let at_c = verdict(&tree(&[&start, &base, &on_c]), &on_b);
    assert_eq!(at_c, Verdict::NewBranch { ancestor, becomes_current: false });
}

#[test]
fn a_duplicate_is_known_by_its_chain_value() {
    // EX9: local 1..10@1, incoming 4..5@1.
    let first = batch(None, 3, 1, 0);
    let second = batch(Some(&first), 2, 1, 1);
    let third = batch(Some(&second), 5, 1, 2);
    assert_eq!(verdict(&tree(&[&first, &second, &third]), &second), Verdict::Duplicate);
}

#[test]
fn a_gap_asks_for_what_is_missing() {
    // EX10: local 1..5@1, incoming 8..9@1.
    let first = batch(None, 5, 1, 0);
    let missing = batch(Some(&first), 2, 1, 1);
    let incoming = batch(Some(&missing), 2, 1, 2);
    let needed = verdict(&tree(&[&first]), &incoming);
    assert_eq!(needed, Verdict::NeedEvents { known: list(&[(5, 1)]) });
    // The run is not stored at all (R411).
    let unstored = decide(None, &incoming.envelope, incoming.chain).verdict;
    assert_eq!(unstored, Verdict::NeedEvents { known: VersionHistory::default() });
}

#[test]
fn a_gap_names_the_branch_that_shares_most() {
    // R308 over two local branches.
    let base = batch(None, 10, 1, 0);
    let short = batch(Some(&base), 1, 2, 1);
    let long = batch(Some(&base), 2, 12, 2);
    let missing = batch(Some(&long), 1, 21, 3);
    let incoming = batch(Some(&missing), 1, 21, 4);
    let needed = verdict(&tree(&[&base, &short, &long]), &incoming);
    assert_eq!(needed, Verdict::NeedEvents { known: list(&[(10, 1), (12, 12)]) });
}

#[test]
fn three_branches_arrive_in_either_order() {
    // EX11, with 202 and 302 of increment 100.
    let base = batch(None, 10, 102, 0);
    let x = batch(Some(&base), 2, 202, 1);
    let y = batch(Some(&base), 5, 302, 2);
    let ancestor = item(10, 102);
    assert_eq!(verdict(&tree(&[&base, &y]), &x), Verdict::NewBranch { ancestor, becomes_current: false });
    assert_eq!(verdict(&tree(&[&base, &x]), &y), Verdict::NewBranch { ancestor, becomes_current: true });
    assert_eq!(tree(&[&base, &x, &y]), tree(&[&base, &y, &x]));
}

#[test]
fn a_falling_version_is_poison() {
    // EX11, impossible half: 11..12@2 after 10@102 (R303).
    let base = batch(None, 10, 102, 0);
    let mut envelope = batch(Some(&base), 2, 102, 1).envelope;
    envelope.version = FailoverVersion(2);
    let decision = decide(Some(&tree(&[&base])), &envelope, ChainValue([1; 16]));
    let Verdict::Poison { why } = &decision.verdict else { panic!("{decision:?}") };
    assert_eq!(why.to_string(), "the batch has version @2 after version @102");
    assert!(decision.explanation.words().contains("the batch has version @2 after version @102"));
}

#[test]
fn one_owner_that_wrote_twice_is_a_fork_and_converges() {
    // EX12, W27, G2: lists take 11@2 for a known event; the chain tells.
    let base = batch(None, 10, 1, 0);
    let known = batch(Some(&base), 2, 2, 1);
    let other = batch(Some(&base), 1, 2, 2);
    let stored = tree(&[&base, &known]);
    let decision = decide(Some(&stored), &other.envelope, other.chain);
    let expected = Verdict::NewBranch { ancestor: item(10, 1), becomes_current: false };
    assert_eq!(decision.verdict, expected);
    assert!(decision.explanation.fork());
    // A batch on top of the unknown twin: the ancestor cannot be found by lists.
    let later = batch(Some(&other), 3, 2, 3);
    let decision = decide(Some(&stored), &later.envelope, later.chain);
    assert_eq!(decision.verdict, Verdict::NeedEvents { known: VersionHistory::default() });
    assert!(decision.explanation.fork());
    // Two regions can also begin twice.
    let twin = batch(None, 10, 1, 9);
    let at_start = verdict(&stored, &twin);
    assert!(matches!(at_start, Verdict::NewBranch { ancestor, .. } if ancestor == item(0, 0)));
}

#[test]
fn a_late_batch_goes_to_the_losing_branch() {
    // EX13: local 1..14@22, 15@33; later 15..16@22, then 17@22 on top of that.
    let base = batch(None, 14, 22, 0);
    let winner = batch(Some(&base), 1, 33, 1);
    let late = batch(Some(&base), 2, 22, 2);
    let stored = tree(&[&base, &winner]);
    assert_eq!(
        verdict(&stored, &late),
        Verdict::NewBranch { ancestor: item(14, 22), becomes_current: false }
    );
    let stored = tree(&[&base, &winner, &late]);
    let more = batch(Some(&late), 1, 22, 3);
    assert_eq!(verdict(&stored, &more), Verdict::Extend { branch: 0, becomes_current: false });
    let back = batch(Some(&late), 1, 42, 4);
    assert_eq!(verdict(&stored, &back), Verdict::Extend { branch: 0, becomes_current: true });
}

#[test]
fn strangers_are_poison() {
    // R302: another first version. V03: the list gives the batch's own events another version.
    let base = batch(None, 3, 2, 0);
    let stored = tree(&[&base]);
    let other = batch(Some(&batch(None, 3, 1, 1)), 1, 1, 2);
    assert!(matches!(verdict(&stored, &other), Verdict::Poison { why: Poison::OtherHistory(_) }));
    let mut mixed = batch(Some(&batch(Some(&base), 1, 2, 3)), 3, 12, 4).envelope;
    mixed.items = list(&[(6, 2), (7, 12)]);
    let decision = decide(Some(&stored), &mixed, ChainValue([1; 16]));
    assert!(matches!(decision.verdict, Verdict::Poison { why: Poison::OwnVersion { .. } }));
    let mut gap = batch(Some(&base), 1, 2, 5).envelope;
    gap.first_event = EventId(6);
    gap.last_event = EventId(6);
    assert!(matches!(
        decide(Some(&stored), &gap, ChainValue([1; 16])).verdict,
        Verdict::Poison { why: Poison::Misfit(_) }
    ));
}

/// Batches of three regions (increment 10, initial versions 1..3): each action lets a region that sees some batch write after
/// it under a version of its own, kept or minted as its namespace would (R104).
fn any_batches() -> impl Strategy<Value = Vec<Batch>> {
    let action = (any::<prop::sample::Index>(), 1i64..4, 1i64..3, any::<bool>());
    prop::collection::vec(action, 1..16).prop_map(|actions| {
        let mut batches = vec![batch(None, 2, 1, 0)];
        for (salt, (parent, region, events, raise)) in (1..).zip(actions) {
            let parent = parent.get(&batches).clone();
            let current = parent.envelope.version.0 + i64::from(raise);
            let version = current + (region - current).rem_euclid(10);
            batches.push(batch(Some(&parent), events, version, salt));
        }
        batches
    })
}

/// A region receives the batches in this order; what lacks a parent waits for it, as after a fetch.
fn receive(order: &[Batch]) -> Tree {
    let mut tree: Option<Tree> = None;
    let mut waiting: Vec<&Batch> = order.iter().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|batch| {
            let decision = decide(tree.as_ref(), &batch.envelope, batch.chain);
            match decision.verdict {
                Verdict::NeedEvents { .. } => return true,
                Verdict::Poison { why } => panic!("{why}"),
                _ => {}
            }
            assert!(!decision.explanation.words().is_empty());
            let old = tree.as_ref().map(|tree| tree.current().chain);
            let stored = match &mut tree {
                Some(tree) => tree,
                none => none.insert(Tree::root(&batch.envelope, batch.chain).unwrap()),
            };
            stored.insert(&batch.envelope, batch.chain).unwrap();
            // The verdict foretold whether the current branch is another one.
            let new = stored.current().chain;
            let moved = old.is_some_and(|old| new != old && batch.envelope.previous != old);
            assert_eq!(decision.verdict.switches(), moved);
            false
        });
        assert!(waiting.len() < before, "no batch fits");
    }
    tree.unwrap()
}

proptest! {
    #[test]
    fn any_order_of_arrival_gives_the_same_tree_and_winner(
        orders in any_batches().prop_flat_map(|batches| {
            (Just(batches.clone()), Just(batches).prop_shuffle())
        })
    ) {
        let (a, b) = (receive(&orders.0), receive(&orders.1));
        prop_assert_eq!(&a, &b);
        let greatest = orders.0.iter().map(|batch| batch.envelope.version).max();
        prop_assert_eq!(greatest, a.current().items.last().map(|item| item.version));
        // V19: everything again, in the other order, changes nothing.
        for batch in &orders.1 {
            prop_assert_eq!(verdict(&a, batch), Verdict::Duplicate);
        }
    }
}
