//! Explanations name both lists, the ancestor, the arithmetic and the winner.

use super::*;
use crate::{
    decide::decide,
    testing::{batch, list, tree},
};

#[test]
fn the_arithmetic_is_shown_step_by_step() {
    // EX8
    assert_eq!(
        arithmetic(&list(&[(2, 1), (4, 2)]), &list(&[(2, 1), (3, 2), (4, 3)])),
        [
            "stored @2 < incoming @3: step back in the incoming list",
            "both have @2: min(4, 3) = 3, ancestor 3@2",
        ]
    );
    assert_eq!(
        arithmetic(&list(&[(3, 2)]), &list(&[(3, 1)])),
        ["stored @2 > incoming @1: step back in the stored list", "a list is exhausted: no joint point",]
    );
}

#[test]
fn a_new_branch_explains_itself_in_words_and_json() {
    let start = batch(None, 2, 1, 0);
    let base = batch(Some(&start), 1, 2, 1);
    let (on_b, on_c) = (batch(Some(&base), 1, 2, 2), batch(Some(&base), 1, 3, 3));
    let at_b = decide(Some(&tree(&[&start, &base, &on_b])), &on_c.envelope, on_c.chain);
    assert_eq!(
        at_b.explanation.words(),
        "NewBranch: the batch before has another successor on a stored branch. Incoming [1..2@1 3@2 4@3], \
         stored [1..2@1 3..4@2], follows 3@2. Current: [1..2@1 3@2 4@3], because its last version @3 is higher than @2."
    );
    let json = serde_json::to_value(at_b.explanation.report()).unwrap();
    assert_eq!(json["ancestor"], "3@2");
    assert_eq!(json["rebuild"], true);
    assert_eq!(json["fork"], false);
    assert_eq!(json["arithmetic"].as_array().unwrap().len(), 2);
    // The other region keeps its branch, and says so.
    let at_c = decide(Some(&tree(&[&start, &base, &on_c])), &on_b.envelope, on_b.chain);
    let report = at_c.explanation.report();
    assert_eq!(report.winner.as_deref(), Some("[1..2@1 3@2 4@3]"));
    assert_eq!(report.why.as_deref(), Some("its last version @3 is higher than @2"));
    assert!(!report.rebuild);
}

#[test]
fn the_branches_of_a_run_say_why_they_lost() {
    let base = batch(None, 14, 22, 0);
    let winner = batch(Some(&base), 1, 33, 1);
    let late = batch(Some(&base), 1, 22, 2);
    let later = batch(Some(&late), 1, 22, 3);
    let reports = branches(&tree(&[&base, &winner, &late, &later]));
    assert_eq!(reports.len(), 2);
    assert!(reports[0].current && reports[0].fork.is_none());
    assert_eq!((reports[0].batches, reports[1].batches), (2, 2));
    assert_eq!(reports[0].why, "its last version @33 is higher than @22");
    assert_eq!(reports[1].fork.as_deref(), Some("14@22"));
    assert_eq!(reports[1].why, "lost to [1..14@22 15@33]: its last version @33 is higher than @22");
    assert_eq!(why_current(&tree(&[&base])), "it is the only branch");
}
