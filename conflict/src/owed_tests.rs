//! B1–B4, A3, I33, V10, V11.

use std::collections::BTreeMap;

use antipode_core::{batch::Batch, ids::EventId};

use super::*;
use crate::testing::{batch, run, signals, tree};

fn lost(kind: ExternalKind, key: &str, named_run: bool, chain_of: u8) -> Lost {
    Lost {
        identity: EventIdentity {
            event: EventId(11),
            identity: Identity::client(kind, key),
            named_run,
            reapplied_from: None,
        },
        run: run(chain_of),
        first_run: run(chain_of),
        version: FailoverVersion(1),
        batch: ChainValue([1; 16]),
    }
}

fn target(chain: u8, open: bool) -> Option<Target> {
    Some(Target { run: run(9), first_run: run(chain), open })
}

fn fates(lost: &[Lost], target: Option<Target>) -> Vec<Fate> {
    let none = BTreeSet::new();
    owed(lost, target, &none, &none).into_iter().map(|owed| owed.fate).collect()
}

#[test]
fn a_losing_signal_is_owed_once_and_in_order() {
    // EX14: s1 on the losing branch, s2 on the winner.
    let base = batch(None, 2, 1, 0);
    let ours = signals(&base, 1, 1, &["s1", "s3"]);
    let more = signals(&ours, 1, 2, &["s4"]);
    let winner = signals(&base, 2, 3, &["s2", "s3"]);
    let stored = tree(&[&base, &ours, &more, &winner]);
    let by_chain: BTreeMap<ChainValue, &Batch> =
        [&base, &ours, &more, &winner].map(|batch| (batch.chain, batch)).into();
    let envelope = |chain| by_chain.get(&chain).map(|batch| &batch.envelope);
    let lost = lost_on_branches(&stored, envelope).unwrap();
    let applied = applied_on_current(&stored, envelope).unwrap();
    let verdicts = BTreeSet::new();
    let result = owed(&lost, target(7, true), &applied, &verdicts);
    let keys: Vec<_> = result.iter().map(|owed| owed.lost.identity.identity.clone()).collect();
    // I33: original order; s3 is applied already, under its own identity (B3).
    let signal = |key| Identity::client(ExternalKind::Signal, key);
    assert_eq!(keys, [signal("s1"), signal("s4")]);
    assert!(result.iter().all(|owed| owed.fate == Fate::Reapply));
    assert_eq!(result[0].lost.batch, ours.chain);
    // V11: once re-applied, on whatever branch or run of the chain, nothing is owed.
    let mut after = applied;
    after.extend(keys);
    assert!(owed(&lost, target(7, true), &after, &verdicts).is_empty());
    assert_eq!(lost_on_branches(&stored, |_| None), Err(Missing(ours.chain)));
    // A zombie owes all of its events.
    assert_eq!(lost_on_run(&stored, envelope).unwrap().len(), 5);
}

#[test]
fn the_chain_before_counts_as_applied() {
    // B2: the successor inherits the applied set in its first batch.
    let mut first = crate::testing::envelope(None, 2, 1, 0);
    first.inherited = vec![Identity::client(ExternalKind::Signal, "r")];
    let first = Batch::seal(first, &[]);
    let applied = applied_on_current(&tree(&[&first]), |_| Some(&first.envelope)).unwrap();
    let lost = [lost(ExternalKind::Signal, "r", false, 7)];
    assert!(owed(&lost, target(7, true), &applied, &BTreeSet::new()).is_empty());
}

#[test]
fn a_request_that_named_a_run_never_hits_a_stranger() {
    // B4: Terminate(run of chain 1), while the user started chain 2.
    let terminate = [lost(ExternalKind::Terminate, "t", true, 1)];
    assert_eq!(fates(&terminate, target(2, true)), [Fate::Unclaimed(NAMED_RUN_ENDED)]);
    assert_eq!(fates(&terminate, target(1, true)), [Fate::Reapply]);
    let unnamed = [lost(ExternalKind::Signal, "s", false, 1)];
    assert_eq!(fates(&unnamed, target(2, true)), [Fate::Reapply]);
}

#[test]
fn what_cannot_be_applied_is_recorded_once() {
    // I03, V10
    let signal = [lost(ExternalKind::Signal, "s", false, 1)];
    assert_eq!(fates(&signal, None), [Fate::Unclaimed(NO_TARGET)]);
    assert_eq!(fates(&signal, target(1, false)), [Fate::Unclaimed(TARGET_CLOSED)]);
    let verdicts = [signal[0].identity.identity.clone()].into();
    assert!(owed(&signal, target(1, false), &BTreeSet::new(), &verdicts).is_empty());
}

#[test]
fn after_a_termination_the_target_is_closed() {
    // R503
    let events = [
        lost(ExternalKind::Signal, "a", false, 1),
        lost(ExternalKind::Terminate, "t", false, 1),
        lost(ExternalKind::Signal, "b", false, 1),
        lost(ExternalKind::Signal, "a", false, 1),
    ];
    assert_eq!(
        fates(&events, target(1, true)),
        [Fate::Reapply, Fate::Reapply, Fate::Unclaimed(TARGET_CLOSED)]
    );
}

#[test]
fn progress_of_a_losing_branch_is_not_owed() {
    // R007
    for kind in [ExternalKind::ActivityOutcome, ExternalKind::Start] {
        assert!(fates(&[lost(kind, "x", false, 1)], target(1, true)).is_empty());
    }
}
