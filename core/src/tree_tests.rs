//! The branch tree: EX8, EX11–EX13 with real batches, G1, G2, and convergence over orders of arrival.

use proptest::prelude::*;

use super::*;
use crate::{
    batch::{Batch, Origin},
    ids::{Incarnation, NamespaceId, RegionId, RunId, RunKey, Sequence, ShardId, WorkflowId},
};

/// A batch after `parent`; `salt` tells two batches with the same header numbers apart.
fn batch(parent: Option<&Batch>, events: i64, version: i64, salt: u64) -> Batch {
    let last = parent.map_or(0, |parent| parent.envelope.last_event.0);
    let tip = Item::new(EventId(last + events), FailoverVersion(version));
    let items = parent.map(|parent| parent.envelope.items.clone()).unwrap_or_default();
    let run = RunId::from_random([7; 16]);
    let envelope = Envelope {
        run: RunKey {
            namespace: NamespaceId::from_random([1; 16]),
            workflow: WorkflowId::from("order"),
            run,
        },
        first_run: run,
        first_event: EventId(last + 1),
        last_event: tip.event,
        version: tip.version,
        previous: parent.map_or(ChainValue::NONE, |parent| parent.chain),
        items: items.with(tip).unwrap(),
        origin: Origin {
            region: RegionId(1),
            incarnation: Incarnation(1),
            shard: ShardId(1),
            sequence: Sequence(salt),
        },
        place: Place { epoch: 1, sequence: salt },
        causal: salt,
        identities: Vec::new(),
        successor: None,
        inherited: Vec::new(),
        recent: Vec::new(),
        fold_version: 1,
        clock: None,
    };
    Batch::seal(envelope, &[])
}

fn tree(batches: &[&Batch]) -> Tree {
    Tree::from_batches(batches.iter().map(|batch| (&batch.envelope, batch.chain))).unwrap()
}

fn put(tree: &mut Tree, batch: &Batch) -> Result<Inserted, Error> {
    tree.insert(&batch.envelope, batch.chain)
}

#[test]
fn a_leaf_grows_and_a_duplicate_changes_nothing() {
    let a = batch(None, 2, 1, 0);
    let b = batch(Some(&a), 1, 1, 1);
    let mut tree = Tree::root(&a.envelope, a.chain).unwrap();
    assert_eq!(put(&mut tree, &b), Ok(Inserted::Leaf { branch: 0, switched: false }));
    assert_eq!(put(&mut tree, &a), Ok(Inserted::Known));
    assert_eq!(tree.branches().len(), 1);
    assert_eq!(tree.current().items.to_string(), "[1..3@1]");
    assert_eq!(tree.path(b.chain), [a.chain, b.chain]);
    assert_eq!(tree.path_after(a.chain, b.chain), [b.chain]);
    assert_eq!(tree.batch_with(b.chain, EventId(2)), Some(a.chain));
    assert_eq!(tree.batch_with(b.chain, EventId(3)), Some(b.chain));
    assert_eq!(tree.batch_with(b.chain, EventId(4)), None);
}

#[test]
fn the_greatest_last_version_is_current_in_any_order() {
    // EX8: B adds 4@2, C adds 4@3. EX11: the order of arrival does not matter.
    let r = batch(None, 2, 1, 0);
    let base = batch(Some(&r), 1, 2, 1);
    let b = batch(Some(&base), 1, 2, 2);
    let c = batch(Some(&base), 1, 3, 3);
    let mut on_b = tree(&[&r, &base, &b]);
    assert_eq!(put(&mut on_b, &c), Ok(Inserted::Leaf { branch: 1, switched: true }));
    let mut on_c = tree(&[&r, &base, &c]);
    assert_eq!(put(&mut on_c, &b), Ok(Inserted::Leaf { branch: 0, switched: false }));
    assert_eq!(on_b, on_c);
    assert_eq!(on_b.current().items.to_string(), "[1..2@1 3@2 4@3]");
    assert_eq!(on_b.fork_point(b.chain, c.chain), base.chain);
    let item = on_b.fork_item(&on_b.branches()[0], on_b.current());
    assert_eq!(item, Some(Item::new(EventId(3), FailoverVersion(2))));
    assert_eq!(on_b.losing(), [b.chain]);
    assert!(on_b.is_prefix(base.chain) && on_b.is_prefix(c.chain) && !on_b.is_prefix(b.chain));
    let unknown = ChainValue([9; 16]);
    assert!(on_b.is_prefix(ChainValue::NONE) && !on_b.is_prefix(unknown));
    // To itself every stored batch leads; one that is not stored leads nowhere, and only what is before all leads to it.
    assert!(on_b.leads_to(c.chain, c.chain) && !on_b.leads_to(unknown, unknown));
    assert!(on_b.leads_to(ChainValue::NONE, c.chain) && on_b.leads_to(ChainValue::NONE, unknown));
}

#[test]
fn a_losing_branch_that_grows_may_win_or_stay() {
    // EX13: 15..16@22 arrives after 15@33.
    let base = batch(None, 14, 22, 0);
    let winner = batch(Some(&base), 1, 33, 1);
    let late = batch(Some(&base), 2, 22, 2);
    let mut tree = tree(&[&base, &winner, &late]);
    assert_eq!(tree.current().items.to_string(), "[1..14@22 15@33]");
    let back = batch(Some(&late), 1, 42, 3);
    assert_eq!(put(&mut tree, &back), Ok(Inserted::Leaf { branch: 1, switched: true }));
    assert_eq!(tree.branches().len(), 2);
    assert_eq!(tree.losing(), [winner.chain]);
}

#[test]
fn equal_lists_with_different_content_are_two_branches() {
    // G2, W27: one owner, restored, wrote 11@2 twice.
    let base = batch(None, 10, 1, 0);
    let one = batch(Some(&base), 1, 2, 1);
    let two = batch(Some(&base), 1, 2, 2);
    assert_eq!(one.envelope.items, two.envelope.items);
    let (a, b) = (tree(&[&base, &one, &two]), tree(&[&base, &two, &one]));
    assert_eq!(a, b);
    assert_eq!(a.current().chain, one.chain.max(two.chain));
    assert_eq!(a.fork_point(one.chain, two.chain), base.chain);
    // The lists alone would call them equal.
    assert!(one.envelope.items.same_branch(&two.envelope.items));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let base = batch(None, 3, 2, 0);
    let tree = tree(&[&base]);
    let stranger = batch(Some(&batch(Some(&base), 1, 2, 1)), 1, 2, 2);
    let refused = |envelope: &Envelope| tree.clone().insert(envelope, ChainValue([1; 16]));
    assert_eq!(refused(&stranger.envelope), Err(Error::ParentMissing(stranger.envelope.previous)));
    let next = batch(Some(&base), 1, 2, 1).envelope;
    let gap = Envelope { first_event: EventId(5), last_event: EventId(5), ..next.clone() };
    assert_eq!(refused(&gap), Err(Error::Gap { expected: EventId(4), found: EventId(5) }));
    let fell = Envelope { version: FailoverVersion(1), ..next.clone() };
    assert!(matches!(refused(&fell), Err(Error::VersionFell { .. })));
    let items = Envelope { items: VersionHistory::default(), ..next };
    assert!(matches!(refused(&items), Err(Error::Items { .. })));
    let other = batch(None, 1, 12, 5).envelope;
    assert!(matches!(refused(&other), Err(Error::OtherStart { .. })));
    assert!(Tree::root(&stranger.envelope, stranger.chain).is_err());
    assert!(Tree::from_batches([]).is_err());
}

#[test]
fn the_stored_head_is_checked_against_the_batches() {
    let base = batch(None, 3, 2, 0);
    let tree_of = tree(&[&base, &batch(Some(&base), 1, 2, 1), &batch(Some(&base), 1, 3, 2)]);
    let mut head = wire::RunHead::default();
    assert!(tree_of.check_head(&head).is_err());
    tree_of.head_wire(&mut head);
    assert_eq!(tree_of.check_head(&head), Ok(()));
    head.current = 0;
    assert_eq!(tree_of.check_head(&head), Err(Error::Head("current branch")));
}

/// A cheap description of a batch: its parent by index, events, and how far its version rises.
fn any_batches() -> impl Strategy<Value = Vec<Batch>> {
    let action = (any::<prop::sample::Index>(), 1i64..3, 0i64..3);
    prop::collection::vec(action, 1..14).prop_map(|actions| {
        let mut batches: Vec<Batch> = vec![batch(None, 2, 1, 0)];
        for (salt, (parent, events, rise)) in (1..).zip(actions) {
            let parent = parent.get(&batches).clone();
            batches.push(batch(Some(&parent), events, parent.envelope.version.0 + rise, salt));
        }
        batches
    })
}

/// Delivers what fits, again and again, as a receiver that fetches missing parts does.
fn deliver(batches: &[Batch]) -> Tree {
    let mut waiting: Vec<&Batch> = batches.iter().collect();
    let first = waiting.iter().position(|batch| batch.envelope.first_event.0 == 1).unwrap();
    let first = waiting.remove(first);
    let mut tree = Tree::root(&first.envelope, first.chain).unwrap();
    while !waiting.is_empty() {
        waiting.retain(|batch| match put(&mut tree, batch) {
            Ok(_) => false,
            Err(Error::ParentMissing(_)) => true,
            Err(error) => panic!("{error}"),
        });
    }
    tree
}

proptest! {
    #[test]
    fn any_order_of_arrival_gives_the_same_tree(
        batches in any_batches().prop_flat_map(|batches| {
            (Just(batches.clone()), Just(batches).prop_shuffle())
        })
    ) {
        let (in_order, shuffled) = batches;
        let (a, b) = (deliver(&in_order), deliver(&shuffled));
        prop_assert_eq!(&a, &b);
        // V04: nothing is greater than the current branch.
        let greatest = a.branches().iter().all(|branch| branch.cmp_order(a.current()).is_le());
        prop_assert!(greatest);
        // Every batch is on the current branch or lost, once.
        let mut all = a.path(a.current().chain);
        all.extend(a.losing());
        all.sort_unstable();
        let mut expected: Vec<_> = in_order.iter().map(|batch| batch.chain).collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
    }

    #[test]
    fn lists_and_chain_values_agree_where_no_owner_forked(batches in any_batches()) {
        let tree = deliver(&batches);
        for a in tree.branches() {
            for b in tree.branches() {
                let by_chain = tree.fork_item(a, b).unwrap();
                let by_lists = a.items.common_ancestor(&b.items).unwrap();
                // R307 finds the chain's ancestor or, where one version has two contents, something later (G2).
                prop_assert!(by_lists.event >= by_chain.event);
                prop_assert!(a.items.contains(by_chain.event, by_chain.version));
            }
        }
    }
}
