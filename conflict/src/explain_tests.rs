//! Explanations name both lists, the ancestor, the arithmetic and the winner.

use antipode_core::batch::Batch;
use serde_json::Value;

use super::*;
use crate::{
    Judgement,
    decide::decide,
    testing::{batch, list, run, tree},
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

/// The numbers that decide between two branches, in the order in which they are asked (G2).
#[test]
fn what_decides_between_two_branches_is_said() {
    let chain = |byte| ChainValue([byte; 16]);
    let words =
        |a: &[(i64, i64)], x, b: &[(i64, i64)], y| comparison((&list(a), chain(x)), (&list(b), chain(y)));
    assert_eq!(words(&[(5, 2)], 1, &[(9, 1)], 2), "its last version @2 is higher than @1");
    assert_eq!(
        words(&[(2, 1), (5, 2)], 1, &[(2, 1), (4, 2)], 2),
        "the last versions are both @2 and its last event #5 is later than #4"
    );
    assert_eq!(
        words(&[(5, 2)], 2, &[(5, 2)], 1),
        format!(
            "version @2 and event #5 are equal and its chain value {} is greater than {}",
            chain(2),
            chain(1)
        )
    );
}

/// A fork is compared with the branch that it forks from, not with the current one.
#[test]
fn a_fork_of_a_losing_branch_is_compared_with_that() {
    let start = batch(None, 2, 1, 0);
    let (first, current) = (batch(Some(&start), 1, 2, 1), batch(Some(&start), 1, 3, 2));
    let (second, incoming) = (batch(Some(&first), 1, 2, 3), batch(Some(&first), 1, 12, 4));
    let decided =
        decide(Some(&tree(&[&start, &first, &second, &current])), &incoming.envelope, incoming.chain);
    assert_eq!(decided.explanation.verdict, "NewBranch");
    assert_eq!(decided.explanation.compared, Some(second.envelope.items));
    assert_eq!(decided.explanation.ancestor, first.envelope.items.last());
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

/// A stored run of 1..5@1, for what is compared with it.
fn five() -> Batch {
    batch(None, 5, 1, 0)
}

/// Each verdict on a batch, in words, and what of its JSON tells it from the others.
#[test]
fn verdicts_on_batches_explain_themselves() {
    let five = five();
    let stored = tree(&[&five]);
    let seven = batch(Some(&five), 2, 1, 1);
    let nine = batch(Some(&seven), 2, 1, 2);
    let eight = batch(Some(&batch(Some(&five), 1, 1, 3)), 1, 1, 4);
    let of = |stored: Option<&Tree>, incoming: &Batch| {
        decide(stored, &incoming.envelope, incoming.chain).explanation
    };
    let (run, other) = (run(7), run(8));
    for (explanation, words, field, value) in [
        (
            of(None, &five),
            "Create: the run is not stored here and this is its first batch. Incoming [1..5@1]. Current: [1..5@1], \
             because it is the only branch."
                .to_owned(),
            "/asks",
            Value::Null,
        ),
        (
            of(Some(&stored), &five),
            "Duplicate: a batch with this chain value is stored already. Incoming [1..5@1], stored [1..5@1]. Current: \
             [1..5@1], because the entry changes nothing."
                .to_owned(),
            "/winner",
            "[1..5@1]".into(),
        ),
        (
            of(Some(&stored), &nine),
            format!(
                "NeedEvents: the batch before is not stored here. Incoming [1..9@1], stored [1..5@1]. Missing and asked \
                 for: events 6..7@1 of run {run}, after the stored [1..5@1]. Current: [1..5@1], because the entry waits \
                 until that is stored."
            ),
            "/asks/from",
            6.into(),
        ),
        (
            of(Some(&stored), &eight),
            format!(
                "NeedEvents: the batch before is not stored here. Incoming [1..7@1], stored [1..5@1]. Missing and asked \
                 for: event 6@1 of run {run}, after the stored [1..5@1]. Current: [1..5@1], because the entry waits \
                 until that is stored."
            ),
            "/asks/to",
            "6@1".into(),
        ),
        (
            of(None, &nine),
            format!(
                "NeedEvents: the run is not stored here and this is not its first batch. Incoming [1..9@1]. Missing and \
                 asked for: events 1..7@1 of run {run}."
            ),
            "/asks/known",
            Value::Null,
        ),
        // B8: it fits, and its successor is missing.
        (
            of(Some(&stored), &seven).waits_for(other),
            format!(
                "NeedEvents: the batch closes its run, and the run that continues it is not stored here. Incoming \
                 [1..7@1], stored [1..5@1], follows 5@1. Missing and asked for: run {other} from event 1, all of its \
                 branches. Current: [1..5@1], because the entry waits until that is stored."
            ),
            "/asks/run",
            other.to_string().into(),
        ),
        (
            of(Some(&stored), &seven).poisoned(Reason::Undecodable, "a byte is wrong".to_owned()),
            "Poison: the bytes of its events cannot be read: a byte is wrong. Incoming [1..7@1], stored [1..5@1], follows \
             5@1. Current: [1..5@1], because the entry is set aside."
                .to_owned(),
            "/problem",
            "a byte is wrong".into(),
        ),
    ] {
        assert_eq!(explanation.words(), words);
        let json = Judgement::Entry(explanation.clone()).json();
        assert_eq!(json.pointer(field), Some(&value), "{words}");
        assert_eq!((&json["verdict"], &json["state"]), (&explanation.verdict.into(), &Value::Null));
        assert!(json["incoming"].is_string() && json["rebuild"] == false);
    }
    // A switch that does not happen is none.
    let (on_b, on_c) = (batch(Some(&five), 1, 2, 5), batch(Some(&five), 1, 3, 6));
    let switch = of(Some(&tree(&[&five, &on_b])), &on_c);
    assert!(switch.switches && !switch.waits_for(other).switches);
}

/// Verdicts on the states of runs, and those that a deleted run leaves.
#[test]
fn verdicts_on_states_explain_themselves() {
    let register = wire::Register { anchor_event_id: 9, anchor_version: 11, ..wire::Register::default() };
    let state = wire::RunState {
        registers: vec![register.clone(), register],
        pending: vec![wire::PendingEvent::default()],
        verdicts: vec![wire::Unclaimed::default(); 3],
        tip_chain: vec![1; 16].into(),
        ..wire::RunState::default()
    };
    let tip = ChainValue([1; 16]);
    let (run, first) = (run(7), five());
    let of = |verdict, reason| Explanation::of_state(&state, None, verdict, reason);
    let noted = |explanation, note: &str| Explanation { notes: vec![note.to_owned()], ..explanation };
    let carries = "Incoming state with 2 registers, 1 waiting event and 3 verdicts";
    for (explanation, words) in [
        (
            of("NeedEvents", Reason::StateOfNoRun).asking(Ask::run(run, Some(tip))),
            format!(
                "NeedEvents: the run is not stored here. {carries}. Missing and asked for: run {run} from event 1 to the \
                 batch with chain value {tip}."
            ),
        ),
        (
            noted(of("NeedEvents", Reason::AnchorMissing), "no stored branch has event 9@11")
                .asking(Ask::run(run, None)),
            format!(
                "NeedEvents: no stored branch has what a register or a verdict of it belongs to. {carries}. Note: no stored \
                 branch has event 9@11. Missing and asked for: run {run} from event 1, all of its branches."
            ),
        ),
        (
            of("Duplicate", Reason::StateKnown),
            format!("Duplicate: every register, waiting event and verdict in it is known here. {carries}."),
        ),
        (
            of("Merge", Reason::StateNew),
            format!(
                "Merge: it has registers, waiting events or verdicts that are not stored here. {carries}."
            ),
        ),
        (
            Explanation {
                compared: Some(first.envelope.items.clone()),
                ..noted(of("Unclaimed", Reason::DeletedAfter), "filed as unclaimed: Signal \"x\"")
            },
            format!(
                "Unclaimed: the run was deleted at the end of its retention, and this does not go on under a higher \
                 version. {carries}, stored [1..5@1]. Note: filed as unclaimed: Signal \"x\"."
            ),
        ),
    ] {
        let (verdict, routine) = (explanation.verdict, explanation.verdict == "Merge");
        let judgement = Judgement::Entry(explanation);
        assert_eq!(judgement.words(), words);
        assert_eq!((judgement.verdict(), judgement.is_routine()), (verdict, routine));
        let json = judgement.json();
        assert_eq!(json["state"], "2 registers, 1 waiting event and 3 verdicts");
        assert_eq!((&json["incoming"], &json["incoming_chain"]), (&Value::Null, &tip.to_string().into()));
        assert_eq!(json["arithmetic"], serde_json::json!([]));
    }
    // Of a deleted run's batch the version that it is compared with is told.
    let late = batch(Some(&first), 1, 12, 1);
    let told = Explanation {
        compared: Some(first.envelope.items),
        ..Explanation::of_batch(&late.envelope, late.chain, "Resurrect", Reason::DeletedBefore)
    };
    assert_eq!(
        told.words(),
        "Resurrect: the run was deleted at the end of its retention, and goes on under a higher version: it comes back. \
         Incoming [1..5@1 6@12], stored [1..5@1]."
    );
}
