//! The worked examples that need batches and runs: EX7–EX14 of the reference and "with conflict", "zombie" and "stale task" of
//! the incumbent's public documentation, with their exact numbers. Each case carries the name of its example. EX15 (updates)
//! waits: see `docs/replication-differences.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../../core/tests/support/mod.rs"]
mod support;

use antipode_conflict::{
    Poison, RunFacts, Verdict, arbitrate, decide,
    owner::owner,
    stale::{self, Kind},
};
use antipode_core::{
    batch::Batch,
    decide::workflow_task,
    ids::{FailoverVersion, Place, RunOrder},
    run::Pushed,
};
use antipode_proto::api::workflowservice::v1 as ws;
use support::*;

fn verdict(stored: &[&Batch], incoming: &Batch) -> Verdict {
    let stored = (!stored.is_empty()).then(|| tree(stored));
    decide(stored.as_ref(), &incoming.envelope, incoming.chain).verdict
}

fn branch(event: i64, version: i64, becomes_current: bool) -> Verdict {
    Verdict::NewBranch { ancestor: item(event, version), becomes_current }
}

/// EX7: 1..3@1, then under 2 the events 4 and 5.
#[test]
fn ex7_no_conflict() {
    let first = bare(None, 3, 1, 0);
    let fourth = bare(Some(&first), 1, 2, 1);
    let fifth = bare(Some(&fourth), 1, 2, 2);
    for (case, stored, incoming, expected, lists) in [
        ("EX7, 1..3@1", &[][..], &first, Verdict::Create, list(&[(3, 1)])),
        ("EX7, 4@2", &[&first], &fourth, Verdict::Append { branch: 0 }, list(&[(3, 1), (4, 2)])),
        ("EX7, 5@2", &[&first, &fourth], &fifth, Verdict::Append { branch: 0 }, list(&[(3, 1), (5, 2)])),
    ] {
        assert_eq!(verdict(stored, incoming), expected, "{case}");
        assert_eq!(incoming.envelope.items, lists, "{case}");
    }
}

/// EX8–EX13: (case, what is stored, what arrives, the verdict).
#[test]
fn verdicts() {
    // EX8: both have 1..2@1 3@2.
    let start = bare(None, 2, 1, 0);
    let base = bare(Some(&start), 1, 2, 1);
    let (on_b, on_c) = (bare(Some(&base), 1, 2, 2), bare(Some(&base), 1, 3, 3));
    // EX9: 1..3, 4..5, 6..10, all @1.
    let one = bare(None, 3, 1, 0);
    let two = bare(Some(&one), 2, 1, 1);
    let three = bare(Some(&two), 5, 1, 2);
    // EX10: 1..5, 6..7, 8..9, all @1.
    let five = bare(None, 5, 1, 0);
    let missing = bare(Some(&five), 2, 1, 1);
    let nine = bare(Some(&missing), 2, 1, 2);
    // EX11: 1..10@102, X = 11..12@202, Y = 11..15@302.
    let ten = bare(None, 10, 102, 0);
    let (x, y) = (bare(Some(&ten), 2, 202, 1), bare(Some(&ten), 5, 302, 2));
    // EX12: 1..10@1 and two different 11@2.
    let tenth = bare(None, 10, 1, 0);
    let (known, other) = (bare(Some(&tenth), 2, 2, 1), bare(Some(&tenth), 1, 2, 2));
    // EX13: 1..14@22, 15@33; late 15..16@22.
    let fourteen = bare(None, 14, 22, 0);
    let (winner, late) = (bare(Some(&fourteen), 1, 33, 1), bare(Some(&fourteen), 2, 22, 2));

    let ask = |items| Verdict::NeedEvents { known: list(items) };
    for (case, stored, incoming, expected) in [
        ("EX8, on B", &[&start, &base, &on_b][..], &on_c, branch(3, 2, true)),
        ("EX8, on C", &[&start, &base, &on_c], &on_b, branch(3, 2, false)),
        ("EX9", &[&one, &two, &three], &two, Verdict::Duplicate),
        ("EX10", &[&five], &nine, ask(&[(5, 1)])),
        ("EX10, the run is not here", &[], &nine, ask(&[])),
        ("EX10, filled", &[&five, &missing], &nine, Verdict::Append { branch: 0 }),
        ("EX11, Y then X", &[&ten, &y], &x, branch(10, 102, false)),
        ("EX11, X then Y", &[&ten, &x], &y, branch(10, 102, true)),
        ("EX12", &[&tenth, &known], &other, branch(10, 1, false)),
        ("EX13", &[&fourteen, &winner], &late, branch(14, 22, false)),
    ] {
        assert_eq!(verdict(stored, incoming), expected, "{case}");
    }
    // EX11, any order ends in one tree; EX12, the two contents are told apart, not merged.
    assert_eq!(tree(&[&ten, &x, &y]), tree(&[&ten, &y, &x]));
    let forked = decide(Some(&tree(&[&tenth, &known])), &other.envelope, other.chain);
    assert!(forked.explanation.fork(), "EX12");
}

/// EX11, the impossible half: a version does not fall along a branch.
#[test]
fn ex11_a_falling_version_is_poison() {
    let ten = bare(None, 10, 102, 0);
    let mut envelope = bare(Some(&ten), 2, 202, 1).envelope;
    envelope.version = FailoverVersion(2);
    let judged = decide(Some(&tree(&[&ten])), &envelope, Batch::seal(envelope.clone(), &[]).chain);
    let Verdict::Poison { why: Poison::Misfit(why) } = judged.verdict else { panic!("{judged:?}") };
    assert_eq!(why.to_string(), "the batch has version @2 after version @102");
}

fn facts(run: u128, version: i64, sequence: u64, open: bool) -> RunFacts {
    let order = RunOrder { version: FailoverVersion(version), place: Place { epoch: 1, sequence } };
    RunFacts { run: run_id(run), order, open }
}

/// EX13: the losing batch continues as new: the run that it begins has 22 and the current run 33, so it is a zombie, and its
/// first batch is stored before the closing one (B8).
#[test]
fn ex13_the_new_run_of_a_losing_branch_is_a_zombie() {
    let (current, begun) = (facts(2, 33, 1, true), facts(3, 22, 3, true));
    let before = arbitrate(&[current]);
    let after = arbitrate(&[current, begun]);
    assert!(after.is_current(run_id(2)) && after.is_zombie(run_id(3)));
    assert_eq!(after.suppressed_since(&before), [run_id(3)]);
    let mut author = Author::begin();
    author.step(vec![continue_as_new()]);
    let closing = author.last();
    author.follow();
    assert_eq!(closing.envelope.successor, Some(author.run.key.run));
    assert!(author.last().envelope.origin.sequence < closing.envelope.origin.sequence);
}

/// EX14: A writes 1@1, 2@1 and the signal s1 = 3@1, which does not travel. B, made active under 2, writes s2 = 3@2. Connected,
/// both have 1..2@1 3..4@2 with s2 and then s1, and A keeps its branch 1..3@1.
#[test]
fn ex14_split_brain() {
    let mut a = Author::begin();
    assert_eq!(a.run.items(), list(&[(2, 1)]));
    let mut b = a.elsewhere(2, 2);
    a.signal("s1");
    b.signal("s2");
    let s1 = a.last();
    assert_eq!((s1.envelope.first_event.0, s1.envelope.version.0), (3, 1));
    // On B: 3@1 arrives, the ancestor is 2@1, and 1 < 2.
    let tree_of = |author: &Author| author.run.tree.clone().unwrap();
    let judged = decide(Some(&tree_of(&b)), &s1.envelope, s1.chain);
    assert_eq!(judged.verdict, branch(2, 1, false));
    assert_eq!(b.receive(&a), [Pushed::Aside]);
    b.settle();
    assert_eq!(b.signals(), ["s2 3@2", "s1 4@2"]);
    // On A: 3@2 arrives, the ancestor is 2@1, and 2 > 1: rebuild. A is passive and re-applies nothing; then 4@2 comes.
    let s2 = b.batches.iter().find(|batch| batch.envelope.version.0 == 2).unwrap();
    let judged = decide(Some(&tree_of(&a)), &s2.envelope, s2.chain);
    assert_eq!(judged.verdict, branch(2, 1, true));
    assert_eq!(a.receive(&b), [Pushed::Switched, Pushed::Grew]);
    for region in [&a, &b] {
        assert_eq!(region.run.items(), list(&[(2, 1), (4, 2)]));
        assert_eq!(region.signals(), ["s2 3@2", "s1 4@2"]);
        assert_eq!(region.run.branches()[0].items, list(&[(3, 1)]), "A's own branch stays");
    }
    assert_eq!(shared_bytes(&a.run), shared_bytes(&b.run));
}

/// "Version history with conflict" of the documentation, T=2: the tree on B and on C, after each got the other's event.
#[test]
fn with_conflict() {
    let start = bare(None, 2, 1, 0);
    let base = bare(Some(&start), 1, 2, 1);
    let (on_b, on_c) = (bare(Some(&base), 1, 2, 2), bare(Some(&base), 1, 3, 3));
    for (case, order) in [
        ("with conflict, T=2 on B", [&start, &base, &on_b, &on_c]),
        ("with conflict, T=2 on C", [&start, &base, &on_c, &on_b]),
    ] {
        let tree = tree(&order);
        let lists: Vec<_> = tree.branches().iter().map(|branch| branch.items.clone()).collect();
        assert_eq!(lists, [list(&[(2, 1), (4, 2)]), list(&[(2, 1), (3, 2), (4, 3)])], "{case}");
        assert_eq!(tree.current().chain, on_c.chain, "{case}: the highest version is current");
        assert_eq!(tree.fork_point(on_b.chain, on_c.chain), base.chain, "{case}");
    }
}

/// "Zombie" of the documentation: runs 1 and 2 of one workflow id were started in this order in A and reach B in the other.
/// Run 1 is a zombie until its end arrives.
#[test]
fn zombie() {
    let steps = [
        ("zombie, run 2 arrives", vec![facts(2, 1, 21, true)], vec![]),
        ("zombie, run 1 arrives", vec![facts(2, 1, 21, true), facts(1, 1, 17, true)], vec![1]),
        ("zombie, the end of run 1 arrives", vec![facts(2, 1, 21, true), facts(1, 1, 20, false)], vec![]),
    ];
    for (case, runs, zombies) in steps {
        let result = arbitrate(&runs);
        assert_eq!(result.current.map(|facts| facts.run), Some(run_id(2)), "{case}");
        assert_eq!(result.zombies, zombies.into_iter().map(run_id).collect::<Vec<_>>(), "{case}");
    }
}

/// "Stale task" of the documentation: task A belongs to event 4@2. Conflict resolution puts 4@3 in its place. Task A is loaded
/// and discarded, because event id and version do not fit.
#[test]
fn stale_task() {
    let request = ws::StartWorkflowExecutionRequest { workflow_start_delay: seconds(10), ..start_request() };
    let mut a = Author::begin_with(&request, 2);
    a.signal("two");
    let mut b = a.elsewhere(2, 2);
    b.signal("three");
    let mut c = b.elsewhere(3, 3);
    assert_eq!(b.run.items(), list(&[(2, 1), (3, 2)]));
    // T=0: task A is made for 4@2.
    b.pass(10);
    let task = workflow_task::task_ref(&b.run.task().unwrap());
    assert_eq!((task.scheduled.0, task.version.0), (4, 2));
    assert_eq!(stale::dispatched(&b.run, Kind::Workflow, &task), None, "it fits");
    // T=1: C wrote 4@3, and B resolves the conflict.
    c.pass(10);
    assert_eq!(b.receive(&c), [Pushed::Switched]);
    assert_eq!(b.run.items(), list(&[(2, 1), (3, 2), (4, 3)]));
    // T=2: task A is loaded.
    let discard = stale::dispatched(&b.run, Kind::Workflow, &task).unwrap();
    assert_eq!(discard.reason, "version");
    assert_eq!(
        discard.words(),
        "workflow task of event 4@2, attempt 1 is discarded (version): it names event 4@2, the event has @3 now. \
         The run is [1..2@1 3@2 4@3]."
    );
    let mine = workflow_task::task_ref(&b.run.task().unwrap());
    assert_eq!((mine.scheduled.0, mine.version.0), (4, 3));
}

/// The owner of a workflow id explains itself, in words and in JSON.
#[test]
fn owners_explain_themselves() {
    assert_eq!(owner(&[]).words(), "there is no run");
    let (one, two, three) = (run_id(1), run_id(2), run_id(3));
    assert_eq!(
        owner(&[facts(1, 1, 5, true)]).words(),
        format!("run {one} (open) owns the workflow id: it is the only run")
    );
    let runs = [facts(1, 1, 17, true), facts(2, 2, 3, true), facts(3, 1, 20, false)];
    assert_eq!(
        owner(&runs).words(),
        format!(
            "run {two} (open) owns the workflow id: last write version @2 is higher than @1; \
             run {three} (closed) is older than run {two}: last write version @2 is higher than @1; \
             run {one} (zombie) is superseded by run {two}: last write version @2 is higher than @1"
        )
    );
    // B7: in one version the place decides.
    let runs = [facts(1, 1, 17, true), facts(3, 1, 20, false)];
    let json = serde_json::to_value(owner(&runs)).unwrap();
    assert_eq!(json["owner"]["run"], three.to_string());
    assert_eq!(json["owner"]["state"], "closed");
    assert_eq!(json["others"][0]["state"], "zombie");
    assert_eq!(json["owner"]["why"], "both were last written under @1, and place 1.20 is later than 1.17");
    // A fork of one owner: the run id decides, everywhere the same.
    let report = owner(&[facts(1, 1, 5, true), facts(2, 1, 5, true)]);
    let why = format!("version @1 and place 1.5 are equal, and run id {two} is greater than {one}");
    assert_eq!(report.owner.unwrap().why, why);
}
