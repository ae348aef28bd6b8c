//! The laws of the core that need no shard, each under the interleaving that breaks a system without it. East has versions
//! 1, 11, …; west 2, 12, …; north 3, 13, ….
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    decide::{activity, reapply},
    digest::digest,
    identity::ExternalKind,
    ids::{FailoverVersion, Timestamp},
    inheritance::RECENT,
    owed::Owing,
    refusal::Refusal,
    register::Kind,
    run::{Pushed, Run},
    task::Presented,
    verdict::{CLOSED, CLOSED_BEFORE},
};
use antipode_proto::core as wire;
use proptest::prelude::*;
use support::*;

/// What may reach a region, in any order: a batch, or the state of a run as of some moment.
#[derive(Clone)]
enum Entry {
    Batch(Arc<Batch>),
    State(wire::RunState),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Batch(batch) => write!(f, "batch {}", batch.envelope.items),
            Self::State(state) => {
                write!(f, "{} registers, {} pending", state.registers.len(), state.pending.len())
            }
        }
    }
}

/// A region that gets these entries in this order; what needs something first waits for it, as after a fetch.
fn deliver(order: &[Entry]) -> Run {
    let mut run = Run::new(run_key(2), run_id(2));
    let mut waiting: Vec<Entry> = order.to_vec();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|entry| match entry {
            Entry::Batch(batch) => {
                let previous = batch.envelope.previous;
                let first = previous == ChainValue::NONE;
                if !first && !run.batches.contains_key(&previous) {
                    return true;
                }
                if !run.batches.contains_key(&batch.chain) {
                    run.push(batch).unwrap();
                }
                false
            }
            Entry::State(state) => {
                if run.tree.is_none() || run.missing_anchor(state) {
                    return true;
                }
                run.merge(state);
                false
            }
        });
        assert!(waiting.len() < before, "an entry never finds its place");
    }
    run
}

/// Every permutation of a few entries.
fn permutations(entries: &[Entry]) -> Vec<Vec<Entry>> {
    if entries.len() <= 1 {
        return vec![entries.to_vec()];
    }
    let mut all = Vec::new();
    for index in 0..entries.len() {
        let mut rest = entries.to_vec();
        let first = rest.remove(index);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

fn attempt_of(run: &Run, id: &str) -> i32 {
    run.activity(run.state.activity_ids[id]).unwrap().attempt.attempt
}

fn again(author: &mut Author, id: &str) {
    author.start_activity(id);
    let failure = antipode_proto::api::failure::v1::Failure { message: "again".into(), ..Default::default() };
    author.end_activity(id, activity::End::Failed(failure));
    author.now += 5 * SECOND;
}

/// A1: east schedules an activity and retries it (attempt 3). West, made active, writes on another branch. East, unaware,
/// fails back to itself under a higher version and writes on its own branch. The register of the activity must be live in
/// every region at the end, whichever of the entries came first.
#[test]
fn drop_by_anchor() {
    let mut east = Author::begin();
    let shared = east.batches.clone();
    let mut west = east.elsewhere(2, 2);
    east.step(vec![activity("a")]);
    again(&mut east, "a");
    again(&mut east, "a");
    assert_eq!(attempt_of(&east.run, "a"), 3);
    let register = east.run.state_wire();
    let x: Vec<_> = east.batches[1..].to_vec();
    west.signal("west");
    let y = west.last();
    east.version = 11;
    east.signal("east");
    let z = east.last();

    let mut entries = vec![Entry::State(register), Entry::Batch(y.clone()), Entry::Batch(z)];
    entries.extend(x.iter().cloned().map(Entry::Batch));
    let mut seen = Vec::new();
    for mut order in permutations(&entries) {
        order.insert(0, Entry::Batch(Arc::clone(&shared[0])));
        let run = deliver(&order);
        assert_eq!(
            attempt_of(&run, "a"),
            3,
            "the register was dropped when its anchor was not on the branch"
        );
        seen.push((shared_bytes(&run), digest(&run)));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "orders of arrival gave different bytes");
    // While west's branch is current the register is dormant, not gone.
    let mut away = shared.into_iter().map(Entry::Batch).collect::<Vec<_>>();
    away.extend(x.into_iter().map(Entry::Batch));
    away.push(Entry::State(east.run.state_wire()));
    away.push(Entry::Batch(y));
    let run = deliver(&away);
    assert!(run.state.activities.is_empty());
    assert_eq!(run.registers.len(), 1);
}

/// G2, A1: two lives of one store schedule two activities as one event of one version, and workers have both. The first one's attempt,
/// outcome and token are not the second one's, whichever of the entries came first.
#[test]
fn outcome_of_another_life() {
    let begun = Author::begin();
    let (mut first, mut second) = (begun.clone(), begun.clone());
    first.step(vec![activity("a")]);
    again(&mut first, "a");
    first.start_activity("a");
    let late = first.held_activity("a");
    first.signal("x");
    first.start_task();
    first.end_activity("a", activity::End::Completed(None));
    assert!(first.run.activity(first.activity("a")).unwrap().decided);
    second.step(vec![activity("b")]);
    assert_eq!(first.activity("a"), second.activity("b"), "one event of one version");
    again(&mut second, "b");
    second.start_activity("b");
    let held = second.held_activity("b");
    assert_eq!((&late.task, late.start_version), (&held.task, held.start_version));
    second.signal("y");
    second.signal("z");
    second.signal("its branch is longer");
    let states = [first.run.state_wire(), second.run.state_wire()];
    assert!(
        second.run.missing_anchor(&states[0]),
        "it has an event with this id and version, and not this one"
    );

    let batch = |batch: &Arc<Batch>| Entry::Batch(Arc::clone(batch));
    let shared = begun.batches.len();
    let [firsts, seconds] = [&first.batches[shared..], &second.batches[shared..]];
    let mut seen = Vec::new();
    let mut entries: Vec<_> = states.iter().cloned().map(Entry::State).collect();
    entries.extend([&firsts[1], seconds.last().unwrap()].map(batch));
    for order in permutations(&entries) {
        let before = begun.batches.iter().chain(&firsts[..1]).chain(&seconds[..seconds.len() - 1]);
        let mut all: Vec<_> = before.map(batch).collect();
        all.extend(order);
        all.extend(firsts.iter().map(batch));
        let run = deliver(&all);
        let view = run.activity(run.state.activity_ids["b"]).unwrap();
        assert_eq!((view.attempt.attempt, view.attempt.started, view.decided), (2, true, false));
        assert!(!run.has_pending_live(), "the outcome waits for an activity of a branch that lost");
        assert!(activity::check(&run, &held).is_ok());
        let refused = activity::check(&run, &late);
        assert!(matches!(refused, Err(Refusal::TaskNotFound { reason: "other_life", .. })), "{refused:?}");
        // A token of an older version names no batch.
        let old = Presented { anchor: ChainValue::NONE, ..late.clone() };
        assert!(activity::check(&run, &old).is_ok());
        seen.push((shared_bytes(&run), digest(&run)));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "orders of arrival gave different bytes");
}

/// What an older version wrote or sent names an event by the pair alone: it counts for the activity that is there.
#[test]
fn anchors_of_an_older_version_count() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    again(&mut east, "a");
    east.start_activity("a");
    east.signal("x");
    east.start_task();
    let mut other = Author { batches: east.batches.clone(), ..east.clone() };
    east.end_activity("a", activity::End::Completed(None));
    let mut state = east.run.state_wire();
    for register in &mut state.registers {
        assert_eq!(register.anchor_chain.len(), 16);
        register.anchor_chain.clear();
    }
    let waits = &mut state.pending[0];
    assert_eq!(waits.anchor_chain.len(), 16);
    waits.anchor_chain.clear();
    let key = format!("{}/{}/1", run_id(2), east.activity("a").0);
    let identity = antipode_core::identity::Identity::client(ExternalKind::ActivityOutcome, key);
    waits.identity = Some(identity.to_wire());
    other.run.registers = antipode_core::register::RegisterSet::default();
    assert!(!other.run.missing_anchor(&state));
    assert!(other.run.merge(&state));
    let view = other.run.activity(other.activity("a")).unwrap();
    assert_eq!((view.attempt.attempt, view.attempt.started, view.decided), (2, true, true));
    assert_eq!(
        digest(&Run { pending: Default::default(), ..other.run.clone() }),
        digest(&Run { pending: Default::default(), ..east.run.clone() }),
        "regions of both versions agree"
    );
    // Both versions took the outcome: it is written once.
    other.run.merge(&east.run.state_wire());
    other.complete(vec![]);
    assert!(other.run.state.activities.is_empty() && !other.run.has_pending_live());
}

/// A2: east has a workflow task in a worker's hand and takes signals X and Z, which wait. West, made active, takes Y, which
/// waits there. A register of the last writer would keep {Y}. All three stand once at the end.
#[test]
fn lww_buffer() {
    let mut east = Author::begin();
    east.start_task();
    let mut west = east.elsewhere(2, 2);
    east.signal("X");
    east.signal("Z");
    west.signal("Y");
    assert_eq!((east.run.pending.len(), west.run.pending.len()), (2, 1));
    east.meet(&mut west);
    assert_eq!((east.run.pending.len(), west.run.pending.len()), (3, 3));
    assert_eq!(shared_bytes(&east.run), shared_bytes(&west.run));
    // West is active: the task of east is failed under west's version, and what waited is written in order of acceptance.
    west.settle();
    assert_eq!(west.signals(), ["X 5@2", "Z 6@2", "Y 7@2"]);
    assert!(west.run.pending.is_empty());
    east.meet(&mut west);
    assert_eq!(shared_bytes(&east.run), shared_bytes(&west.run));
    assert_eq!(digest(&east.run), digest(&west.run));
}

/// A2, the other way: east wrote X as an event, west has the event and still the waiting X. Nothing is delivered twice.
#[test]
fn a_signal_that_was_written_does_not_wait_any_more() {
    let mut east = Author::begin();
    east.start_task();
    east.signal("X");
    let waiting = east.run.state_wire();
    let west = east.elsewhere(2, 2);
    east.complete(vec![]);
    assert_eq!(east.signals(), ["X 5@1"]);
    for state_first in [true, false] {
        let mut region = west.clone();
        if state_first {
            region.run.merge(&waiting);
        }
        region.receive(&east);
        region.run.merge(&waiting);
        assert!(region.run.pending.is_empty());
        region.settle();
        assert_eq!(region.signals(), ["X 5@1"]);
    }
}

/// A1 and A2 together: whether the waiting signal came before or after its event, and before or after that event's branch
/// lost, the run has equal bytes.
#[test]
fn the_pending_set_is_the_same_in_any_order_of_arrival() {
    let mut east = Author::begin();
    east.start_task();
    east.signal("X");
    let waiting = east.run.state_wire();
    let mut west = east.elsewhere(2, 2);
    west.run.pending.clear();
    east.complete(vec![]);
    west.terminate();
    let first = Entry::Batch(Arc::clone(&east.batches[0]));
    let entries: Vec<_> = [first]
        .into_iter()
        .chain(east.batches[1..].iter().cloned().map(Entry::Batch))
        .chain([Entry::Batch(west.last()), Entry::State(waiting)])
        .collect();
    let runs: Vec<_> = permutations(&entries).iter().map(|order| deliver(order)).collect();
    let distinct: std::collections::BTreeSet<_> = runs.iter().map(shared_bytes).collect();
    assert_eq!(distinct.len(), 1);
    assert!(runs[0].pending.is_empty() && runs[0].owed().len() == 1, "X is found on the branch that lost");
}

/// Two regions accept one request (the client asked again elsewhere): one event, the same one in both.
#[test]
fn one_request_accepted_twice_waits_once() {
    let mut east = Author::begin();
    east.start_task();
    let mut west = east.elsewhere(2, 2);
    east.signal_as("from east", "r", false);
    west.signal_as("from west", "r", false);
    east.meet(&mut west);
    assert_eq!((east.run.pending.len(), west.run.pending.len()), (1, 1));
    assert_eq!(shared_bytes(&east.run), shared_bytes(&west.run));
    assert_eq!(east.run.pending_live()[0].1.accepted.0, FailoverVersion(2));
}

/// An outcome that was accepted under the present version waits on although a branch that lost carries another outcome of
/// that activity: internal progress of a loser is not applied, so it can make nothing needless.
#[test]
fn an_accepted_outcome_outlives_one_of_a_losing_branch() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    east.start_activity("a");
    let mut west = east.elsewhere(2, 2);
    east.end_activity("a", activity::End::Completed(None));
    west.signal("go");
    west.start_task();
    west.end_activity("a", activity::End::Completed(Some(payloads("west"))));
    assert_eq!(west.run.pending.len(), 1);
    west.receive(&east);
    assert_eq!(west.run.pending.len(), 1);
    west.complete(vec![]);
    assert!(west.run.state.activities.is_empty());
    assert!(west.outline().contains(&"11@2 ActivityTaskCompleted".to_string()), "{:?}", west.outline());
}

/// A3: west re-applies X. North, which had not seen that, wins with a branch of its own. A mark "X is done" would follow the
/// run into north's branch; an identity does not.
#[test]
fn mark_never_branches() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    east.signal("X");
    west.signal("Y");
    west.receive(&east);
    west.settle();
    assert_eq!(west.signals(), ["Y 5@2", "X 7@2"]);
    north.signal("Z");
    north.receive(&west);
    north.settle();
    // Once each, although X stands on two branches that lost.
    assert_eq!(north.signals(), ["Z 5@3", "X 7@3", "Y 8@3"]);
    let x = north.run.line.last().unwrap();
    let entry = x.envelope.identities.iter().find(|entry| entry.event.0 == 7).unwrap();
    assert_eq!(entry.identity, signal_identity("X"));
    assert_eq!(entry.reapplied_from, Some((run_id(2), FailoverVersion(1))), "its first writing");
    north.settle();
    assert_eq!(north.signals().len(), 3, "V11");
}

/// A4: a workflow task without events is in a worker's hand when a late batch of another region extends the branch. The
/// worker did not see the signal: its completion is void, and the attempt waits for a worker again at once.
#[test]
fn transient_wft_append() {
    let mut east = Author::begin();
    east.start_task();
    east.fail_task();
    let mut west = east.elsewhere(2, 2);
    east.signal("late");
    // Only the signal, as its own batch, without the task that followed it.
    west.start_task();
    let held = west.held_task().unwrap();
    assert!(west.run.in_flight());
    assert_eq!(west.receive(&east), [Pushed::Grew]);
    assert!(!west.run.in_flight(), "the start is void");
    let refused = west.complete_held(&held, vec![complete()]).unwrap_err();
    assert!(matches!(refused, Refusal::TaskNotFound { .. }), "{refused:?}");
    assert!(west.start_task(), "a new task waits");
    west.complete(vec![]);
    let outline = west.outline();
    let at = |name: &str| outline.iter().position(|line| line.ends_with(name)).unwrap();
    assert!(at("WorkflowExecutionSignaled") < at("WorkflowTaskCompleted"), "{outline:?}");
}

/// A4: the same when the append brings no task of its own, and when another branch with the same anchor becomes current.
#[test]
fn a_transient_start_is_void_after_any_change_of_the_branch() {
    let mut east = Author::begin();
    east.step(vec![timer("t", 60)]);
    east.pass(61);
    east.start_task();
    east.fail_task();
    let mut west = east.elsewhere(2, 2);
    west.start_task();
    let held = west.held_task().unwrap();
    let before = west.run.task().unwrap();
    assert!(before.transient && before.started.is_some() && before.attempt == 2);
    // Its own pending events do not void it: they are not on the branch.
    west.signal("waits");
    assert!(west.run.in_flight());
    // A batch that only a worker without need for a task writes: here the request to cancel, cut off from its task.
    east.cancel("c");
    west.receive(&east);
    assert_eq!(west.run.task().unwrap().started, None);
    assert!(west.complete_held(&held, vec![]).is_err());
}

/// A5: an activity starts under 1, the namespace moves, a heartbeat is taken under 2: the completion with the token of
/// version 1 still fits, because `order` is no part of the check.
#[test]
fn a_heartbeat_elsewhere_does_not_void_the_token() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    east.start_activity("a");
    let held = east.held_activity("a");
    let mut west = east.elsewhere(2, 2);
    assert!(!west.heartbeat("a", "half"));
    let anchor = west.run.anchored(west.run.state.activities[&west.activity("a")].anchor());
    let beat = west.run.registers.get(anchor, Kind::ActivityHeartbeat).unwrap();
    assert_eq!((beat.order.version.0, beat.order.count), (2, 1));
    assert!(activity::check(&west.run, &held).is_ok());
    west.end_activity("a", activity::End::Completed(None));
    assert!(west.run.state.activities.is_empty());
}

/// A6: attempt 3 of east and attempt 2 of west meet: west's value wins, its attempt is 3, and east's value, which west had
/// not seen, is listed. A value that the winner knew is not.
#[test]
fn a_value_that_lost_unseen_is_listed() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    again(&mut east, "a");
    let mut west = east.elsewhere(2, 2);
    again(&mut east, "a");
    west.start_activity("a");
    let listed = |author: &Author| author.run.lost.clone();
    east.meet(&mut west);
    for region in [&east, &west] {
        assert_eq!(attempt_of(&region.run, "a"), 3);
        let lost = listed(region);
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].winner_version, lost[0].winner_count, lost[0].fork), (2, 1, false));
        let register = lost[0].register.as_ref().unwrap();
        assert_eq!((register.order_version, register.order_count), (1, 4));
    }
    assert_eq!(shared_bytes(&east.run), shared_bytes(&west.run));
    // V19: the same again changes nothing, and a restart keeps the list.
    assert!(!east.merge(&west) && !west.merge(&east));
    let stored = Run::restore(east.run.key.clone(), &east.run.head(), east.batches.iter().cloned()).unwrap();
    assert_eq!(stored.lost, east.run.lost);
    // Back under 11 with everything seen: what it replaces is no loss anywhere.
    let mut back = west.elsewhere(1, 11);
    back.heartbeat("a", "x");
    back.end_activity("a", activity::End::Completed(None));
    let mut calm = east.elsewhere(3, 3);
    calm.run.lost.clear();
    calm.receive(&back);
    calm.merge(&back);
    assert_eq!(calm.run.lost, []);
}

/// A6: of two values of one version that lost, the newer one is listed, whichever arrives first; one that arrives late changes
/// nothing, so that the run is not written for it.
#[test]
fn of_two_lost_values_the_newer_stays_listed() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    again(&mut east, "a");
    let mut west = east.elsewhere(2, 2);
    west.start_activity("a");
    east.start_activity("a");
    let earlier = east.clone();
    east.heartbeat("a", "x");
    east.end_activity("a", activity::End::Failed(Default::default()));
    let attempts = |author: &Author| -> Vec<u64> {
        let attempts = author.run.lost.iter().filter_map(|lost| lost.register.as_ref());
        attempts
            .filter(|register| register.kind == Kind::ActivityAttempt as u32)
            .map(|it| it.order_count)
            .collect()
    };
    let mut in_order = west.clone();
    assert!(in_order.merge(&earlier));
    assert_eq!(attempts(&in_order), [3]);
    assert!(in_order.merge(&east));
    assert_eq!(attempts(&in_order), [4]);
    let mut late = west.clone();
    assert!(late.merge(&east));
    assert_eq!(attempts(&late), [4]);
    assert!(!late.merge(&earlier), "what is listed already is newer");
    assert_eq!(attempts(&late), [4]);
    assert_eq!(in_order.run.lost, late.run.lost);
}

/// A7: a transient attempt hangs on "workflow task failed". A late register for that anchor does not override the task that
/// was scheduled since.
#[test]
fn a_late_attempt_does_not_override_a_real_task() {
    let mut east = Author::begin();
    east.start_task();
    east.fail_task();
    let mut late = east.elsewhere(2, 2);
    late.start_task();
    late.fail_task();
    late.start_task();
    late.fail_task();
    let late = late.run.state_wire();
    east.signal("go");
    let task = east.run.task().unwrap();
    assert!(!task.transient && task.attempt == 1);
    assert!(east.run.merge(&late));
    assert_eq!(east.run.task().unwrap(), task);
    // After it completed nothing waits, although the register says attempt 4.
    east.step(vec![]);
    assert_eq!(east.run.task(), None);
}

/// A8: the sticky binding holds only while what the worker has in its cache is the current branch, under one version.
#[test]
fn a_sticky_binding_ends_with_its_branch_and_with_its_version() {
    use antipode_proto::api::{taskqueue::v1 as queue, workflowservice::v1 as ws};
    let mut east = Author::begin();
    let west = east.elsewhere(2, 2);
    east.start_task();
    let attributes = queue::StickyExecutionAttributes {
        worker_task_queue: Some(queue::TaskQueue { name: "sticky".into(), ..Default::default() }),
        schedule_to_start_timeout: seconds(5),
    };
    let request =
        ws::RespondWorkflowTaskCompletedRequest { sticky_attributes: Some(attributes), ..Default::default() };
    let held = east.held_task().unwrap();
    east.complete_request(&held, &request).unwrap();
    let (one, eleven) = (FailoverVersion(1), FailoverVersion(11));
    assert_eq!(east.run.sticky(one).unwrap().queue, "sticky");
    assert_eq!(east.run.sticky(eleven), None, "another version");
    east.signal("more");
    assert!(east.run.sticky(one).is_some(), "an append keeps it");
    assert!(east.run.task().unwrap().sticky);
    let mut other = west;
    other.signal("west");
    assert_eq!(east.receive(&other), [Pushed::Switched]);
    assert_eq!(east.run.sticky(one), None, "the branch lost");
}

/// B1: west takes Y under 2. North wins without ever having seen it. West rebuilds; north dies; west becomes active again
/// under 12. Y's batch never arrives anywhere again and was west's own: it is owed all the same.
#[test]
fn own_losing_signal() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    west.signal("Y");
    north.signal("N");
    assert_eq!(west.receive(&north), [Pushed::Switched]);
    assert_eq!(west.signals(), ["N 5@3"]);
    assert_eq!(west.run.owed().len(), 1);
    west.version = 12;
    west.settle();
    assert_eq!(west.signals(), ["N 5@3", "Y 7@12"]);
}

/// B1, V10: what is owed keeps a worker from closing the run over it, like what waits; and it stands before any other end.
#[test]
fn a_run_does_not_close_over_what_is_owed() {
    let owing = || {
        let request = antipode_proto::api::workflowservice::v1::StartWorkflowExecutionRequest {
            workflow_run_timeout: seconds(300),
            ..start_request()
        };
        let mut east = Author::begin_with(&request, 2);
        let mut west = east.elsewhere(2, 2);
        east.signal("X");
        west.start_task();
        west.receive(&east);
        assert_eq!(west.run.owed().len(), 1);
        west
    };
    let mut west = owing();
    let refused = west.complete(vec![complete()]);
    assert_eq!(refused, Some(Refusal::InvalidArgument("UnhandledCommand".to_string())));
    west.settle();
    assert_eq!(west.signals(), ["X 5@2"]);
    west.step(vec![complete()]);
    assert!(!west.run.state.is_open());
    for end in [|run: &mut Author| run.pass(301), Author::terminate] {
        let mut west = owing();
        end(&mut west);
        assert!(!west.run.state.is_open());
        assert_eq!(west.signals().len(), 1);
        assert!(west.run.owed().is_empty() && west.run.unclaimed().is_empty());
    }
}

/// B1: a verdict that rested on a branch falls with it. West filed X because its branch had closed the run; north's branch,
/// on which the run is open, wins: X is owed again.
#[test]
fn a_verdict_falls_with_its_branch() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    east.signal("X");
    west.terminate();
    west.receive(&east);
    assert!(reapply::file_unclaimed(&mut west.run, Timestamp(1)));
    assert_eq!(west.run.unclaimed().len(), 1);
    assert_eq!(west.run.unclaimed()[0].verdict, CLOSED);
    assert_eq!((west.run.unclaimed()[0].event_id, west.run.unclaimed()[0].version), (5, 1));
    assert!(!reapply::file_unclaimed(&mut west.run, Timestamp(2)), "filed once");
    north.signal("N");
    assert_eq!(west.receive(&north), [Pushed::Switched]);
    assert!(west.run.unclaimed().is_empty());
    west.version = 12;
    west.settle();
    // The termination was a client's as well: it is owed after X, in branch order.
    let names: Vec<_> = west.outline()[4..].to_vec();
    assert!(names.contains(&"7@12 WorkflowExecutionSignaled".to_string()), "{names:?}");
    assert!(names.last().unwrap().ends_with("WorkflowExecutionTerminated"), "{names:?}");
}

/// What waits when the run closes is filed once, and no region takes it from the set.
#[test]
fn what_waited_for_a_closed_run_is_filed_and_kept() {
    let mut east = Author::begin();
    east.start_task();
    east.signal("X");
    let mut west = east.elsewhere(2, 2);
    west.run.pending.clear();
    west.terminate();
    let waiting = east.run.state_wire();
    west.run.merge(&waiting);
    assert!(reapply::file_unclaimed(&mut west.run, Timestamp(1)));
    assert_eq!(west.run.unclaimed()[0].verdict, CLOSED_BEFORE);
    assert_eq!(west.run.unclaimed()[0].version, 1);
    assert!(!reapply::file_unclaimed(&mut west.run, Timestamp(2)));
    assert_eq!(west.run.pending.len(), 1);
    assert!(!west.run.may_owe(), "nothing is left to do");
    assert!(!west.run.merge(&waiting), "and the set of the peer changes nothing");
}

/// An open run files nothing.
#[test]
fn an_open_run_has_no_verdicts() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal("X");
    west.signal("Y");
    west.receive(&east);
    assert!(!reapply::file_unclaimed(&mut west.run, Timestamp(1)));
    assert!(west.run.unclaimed().is_empty());
}

/// B2: the chain's applied set goes with it: X was re-applied to run 2, run 2 continued as run 3, and the losing branch of
/// run 2 is delivered to a region that has only the chain.
#[test]
fn double_reapply_over_can() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal("X");
    west.signal("Y");
    west.receive(&east);
    west.settle();
    assert_eq!(west.signals().len(), 2);
    west.step(vec![continue_as_new()]);
    let old = west.clone();
    west.follow();
    assert_eq!(west.run.first_run, run_id(2));
    for name in ["X", "Y"] {
        assert!(west.run.knows(&signal_identity(name)), "{name}");
    }
    let owing = old.run.owed_to(&west.run, false);
    assert!(owing.hand_over.is_empty() && owing.file.is_empty());
    assert!(!old.run.may_owe());
    // The client asks again: the chain knows the request.
    west.signal("X");
    assert_eq!(west.signals(), Vec::<String>::new());
}

/// B2 at size: over five runs with 10,000 signals each the inherited set stays bounded. The newest requests are known to the
/// next run; what was applied again or came from elsewhere is known to every later run.
#[test]
fn ten_thousand_signals_are_inherited_in_bounds() {
    let known = |author: &Author, name: &str| author.run.knows(&signal_identity(name));
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal("again");
    west.signal("first");
    west.receive(&east);
    west.settle();
    assert_eq!(west.signals(), ["first 5@2", "again 7@2"]);
    west.start_task();
    for round in 0..5 {
        for number in 0..10_000 {
            west.signal(&format!("{round}-{number}"));
        }
        assert_eq!(west.run.pending.len(), 10_000);
        west.complete(vec![]);
        west.step(vec![continue_as_new()]);
        west.follow();
        west.now += 2 * SECOND;
        let first = &west.batches[0].envelope;
        assert_eq!((first.inherited.len(), first.recent.len()), (1, RECENT));
        assert!(west.batches[0].envelope_bytes.len() < 100 * RECENT);
        assert!(known(&west, "again"), "what was applied again is known for ever");
        assert!(known(&west, &format!("{round}-9999")) && known(&west, &format!("{round}-8000")));
        assert!(!known(&west, &format!("{round}-7999")) && !known(&west, "first"));
        west.settle();
        west.start_task();
    }
    // The chain's memory is its first batch: a region that has only that knows the same.
    let batches = west.batches[..1].iter().cloned();
    let stored = Run::restore(west.run.key.clone(), &west.run.head(), west.batches.iter().cloned()).unwrap();
    assert_eq!(stored.state.applied, west.run.state.applied);
    assert_eq!(batches.len(), 1);
}

/// B2: what was handed over from another run is kept like what was applied again, and says where it came from.
#[test]
fn what_came_from_another_run_is_kept() {
    let (mut old, mut new) = two_chains();
    old.signal("handed");
    new.run.pending.extend(old.run.owed_to(&new.run, false).hand_over);
    new.signal("own");
    new.settle();
    let entries: Vec<_> = new.run.line.iter().flat_map(|batch| batch.envelope.identities.clone()).collect();
    let of = |name: &str| entries.iter().find(|entry| entry.identity == signal_identity(name)).unwrap();
    assert_eq!(of("handed").reapplied_from, Some((run_id(2), FailoverVersion(1))));
    assert_eq!(of("own").reapplied_from, None);
    new.step(vec![continue_as_new()]);
    new.follow();
    let first = &new.batches[0].envelope;
    assert_eq!(first.inherited, [signal_identity("handed")]);
    assert_eq!(first.recent, [signal_identity("own")]);
    // It waits on, with its origin, when the state travels.
    let (mut old, mut new) = two_chains();
    old.signal("handed");
    new.start_task();
    new.run.pending.extend(old.run.owed_to(&new.run, false).hand_over);
    let mut peer = Author { run: new.run.clone(), ..new.clone() };
    peer.run.pending.clear();
    peer.merge(&new);
    assert_eq!(peer.run.pending, new.run.pending);
    assert_eq!(peer.run.pending.values().next().unwrap().origin, Some(run_id(2)));
}

/// B3: the client's request id is the identity, so its retry in another region is the same event.
#[test]
fn a_retry_elsewhere_is_the_same_event() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    east.signal_as("X", "r", false);
    west.signal_as("X", "r", false);
    west.receive(&east);
    assert_eq!(west.run.owed(), []);
    west.settle();
    assert_eq!(west.signals(), ["X 5@2"]);
    // Without a request id the two are two requests.
    east.signal_as("W", "", false);
    west.signal_as("W", "", false);
    west.receive(&east);
    west.settle();
    assert_eq!(west.signals().len(), 3, "{:?}", west.signals());
}

/// B4: a request that named a run does not reach a stranger that has its workflow id now.
#[test]
fn terminate_stranger() {
    let (mut old, new) = two_chains();
    old.signal_as("named", "r1", true);
    old.signal_as("anybody", "r2", false);
    old.cancel("r3");
    let owing = old.run.owed_to(&new.run, false);
    let handed: Vec<_> = owing.hand_over.values().map(|pending| pending.events.len()).collect();
    assert_eq!(handed, [1]);
    assert!(
        owing.hand_over.contains_key(&antipode_core::identity::Identity::client(ExternalKind::Signal, "r2"))
    );
    let verdicts: Vec<_> =
        owing.file.iter().map(|record| (record.event_id, record.verdict.as_str())).collect();
    assert_eq!(
        verdicts,
        [
            (5, "the run it named was superseded by another chain"),
            (8, "only signals are handed to another chain"),
            (1, "the start was accepted, and another run owns the workflow id"),
        ]
    );
    assert!(owing.file.iter().all(|record| record.run_id == run_id(2).to_string()));
    // Either of the two is something.
    let Owing { hand_over, file } = old.run.owed_to(&new.run, false);
    assert!(!Owing { hand_over, file: Vec::new() }.is_empty());
    assert!(!Owing { file, ..Owing::default() }.is_empty() && Owing::default().is_empty());
    // What another run took and is over is owed no more; a start is listed whoever took it (B5).
    let all: std::collections::BTreeSet<_> = owing
        .file
        .iter()
        .filter_map(|record| antipode_core::identity::Identity::from_wire(record.identity.as_ref()?))
        .chain(owing.hand_over.keys().cloned())
        .collect();
    assert_eq!(all.len(), 4);
    let left = old.run.owed_to(&new.run, false).without(&all);
    assert_eq!((left.hand_over.len(), left.file.len(), left.file[0].event_id), (0, 1, 1));
    // The event that is handed over is bare: its place on the old branch is no part of it.
    let event = &owing.hand_over.values().next().unwrap().events[0];
    assert_eq!((event.event_id, event.version, event.task_id), (0, 0, 0));
    assert_eq!(event.event_time, None);
}

/// B4: to a successor of the same chain a named signal goes.
#[test]
fn a_named_signal_follows_its_chain() {
    let mut east = Author::begin();
    east.step(vec![]);
    let mut west = east.elsewhere(2, 2);
    west.signal("go");
    west.step(vec![continue_as_new()]);
    east.signal_as("named", "r1", true);
    let mut old = west.clone();
    old.receive(&east);
    west.follow();
    assert!(old.run.may_owe());
    let owing = old.run.owed_to(&west.run, false);
    assert_eq!(owing.hand_over.len(), 1);
    assert_eq!(owing.file, []);
    west.run.pending.extend(owing.hand_over);
    west.settle();
    assert_eq!(west.signals(), ["named 2@2"]);
    let owing = old.run.owed_to(&west.run, false);
    assert!(owing.hand_over.is_empty() && owing.file.is_empty(), "once");
}

/// B4: so do a cancel request and a termination: the chain is what the client meant to stop.
#[test]
fn a_named_cancel_or_termination_follows_its_chain() {
    for terminates in [false, true] {
        let mut east = Author::begin();
        east.step(vec![]);
        let mut west = east.elsewhere(2, 2);
        west.signal("go");
        west.step(vec![continue_as_new()]);
        if terminates {
            east.terminate();
        } else {
            east.cancel("c");
        }
        let mut old = west.clone();
        old.receive(&east);
        west.follow();
        let owing = old.run.owed_to(&west.run, false);
        assert_eq!(owing.file, []);
        west.run.pending.extend(owing.hand_over);
        // A worker has the task: what was handed over waits, and the region changes hands meanwhile.
        west.pass(1);
        let mut busy = west.clone();
        west.settle();
        busy.version = 12;
        busy.settle();
        for region in [&west, &busy] {
            assert_eq!(region.run.state.is_open(), !terminates);
            assert_eq!(region.run.state.cancel_requested, !terminates);
        }
    }
}

/// A termination that waits closes the run wherever waiting events are written, and nothing is written after it.
#[test]
fn a_waiting_termination_closes_the_run() {
    let terminated = || {
        antipode_core::run::Pending {
        events: vec![antipode_proto::api::history::v1::HistoryEvent {
            attributes: Some(
                antipode_proto::api::history::v1::history_event::Attributes::WorkflowExecutionTerminatedEventAttributes(
                    Default::default(),
                ),
            ),
            ..Default::default()
        }],
        named_run: true,
        anchor: None,
        accepted: (FailoverVersion(1), antipode_core::ids::Place { epoch: 1, sequence: 9_000 }),
        region: antipode_core::ids::RegionId(1),
 origin: None,
    }
    };
    let identity = antipode_core::identity::Identity::client(ExternalKind::Terminate, "t");
    type Way = (&'static str, fn(&mut Author));
    let ways: [Way; 6] = [
        ("the task completes", |run| drop(run.complete(vec![]))),
        ("the task fails", Author::fail_task),
        ("the task times out", |run| run.pass(11)),
        ("another version takes over", |run| {
            run.version = 11;
            run.settle();
        }),
        ("the run times out", |run| run.pass(301)),
        ("a client terminates", Author::terminate),
    ];
    for (way, act) in ways {
        let request = antipode_proto::api::workflowservice::v1::StartWorkflowExecutionRequest {
            workflow_run_timeout: seconds(300),
            ..start_request()
        };
        let mut run = Author::begin_with(&request, 2);
        run.start_task();
        run.signal("before");
        run.run.pending.insert(identity.clone(), terminated());
        act(&mut run);
        assert!(!run.run.state.is_open(), "{way}");
        let outline = run.outline();
        assert!(outline.last().unwrap().ends_with("WorkflowExecutionTerminated"), "{way}: {outline:?}");
        assert_eq!(run.signals().len(), 1, "{way}: what came before it stands");
        assert!(run.run.pending.is_empty(), "{way}");
    }
}

/// B5: a start that was acknowledged and lost its workflow id is listed, once, whether the owner is open, closed or gone.
#[test]
fn an_acknowledged_start_that_lost_is_listed() {
    let (mut old, mut new) = two_chains();
    assert!(old.run.may_owe());
    let listed =
        |owing: &Owing| owing.file.iter().map(|record| (record.event_id, record.version)).collect::<Vec<_>>();
    let owing = old.run.owed_to(&new.run, false);
    assert_eq!(listed(&owing), [(1, 1)]);
    new.terminate();
    assert_eq!(listed(&old.run.owed_to(&new.run, false)), [(1, 1)]);
    assert_eq!(old.run.owed_to_nobody(false).len(), 1);
    for record in &owing.file {
        old.run.verdicts.add(record);
    }
    assert_eq!(listed(&old.run.owed_to(&new.run, false)), []);
    assert!(!old.run.may_owe(), "and then nothing is left to do");
    // A predecessor whose end has not arrived yet lost nothing: its chain goes on.
    let mut first = Author::begin();
    let before = first.clone();
    first.step(vec![continue_as_new()]);
    first.follow();
    assert_eq!(before.run.owed_to(&first.run, false).file, []);
    // Nor did a run that ended by itself.
    let (mut done, new) = two_chains();
    done.terminate();
    assert!(!listed(&done.run.owed_to(&new.run, false)).contains(&(1, 1)));
}

/// B7: in one commit the successor is stamped after its predecessor, so that it is the greater run.
#[test]
fn a_successor_is_the_greater_run() {
    let mut east = Author::begin();
    east.step(vec![continue_as_new()]);
    let closed = east.run.order();
    let batch = east.last();
    east.follow();
    assert!(east.run.order() > closed);
    assert_eq!(east.run.order().version, closed.version);
    // B8: and its first batch stands before the closing one in the log.
    assert!(east.last().envelope.origin.sequence < batch.envelope.origin.sequence);
    assert_eq!(batch.envelope.successor, Some(east.run.key.run));
}

/// F5: what registers say counts as well: a region that has not heard of version 11 must not write under 2.
#[test]
fn registers_may_be_ahead_of_the_namespace_record() {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    let mut west = east.elsewhere(2, 2);
    assert_eq!(east.run.newest_version(), FailoverVersion(1));
    east.version = 11;
    east.start_activity("a");
    west.merge(&east);
    assert_eq!(west.run.state.last_version, FailoverVersion(1));
    assert_eq!(west.run.newest_version(), FailoverVersion(11));
}

/// H2: the time of events never falls along a branch, although west's clock is behind.
#[test]
fn time_does_not_fall_at_a_failover() {
    let mut east = Author::begin();
    east.now += 60 * SECOND;
    east.signal("late");
    let mut west = east.elsewhere(2, 2);
    west.now -= 50 * SECOND;
    west.signal("slow clock");
    let times: Vec<_> = events(&west.run).iter().map(|event| event.event_time.unwrap().seconds).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    assert_eq!(times.last(), Some(&160));
}

/// G3: digests tell two runs apart by each of their parts.
#[test]
fn a_digest_tells_every_difference() {
    let mut base = Author::begin();
    base.step(vec![activity("a"), timer("t", 60)]);
    let digests = |change: &dyn Fn(&mut Author)| {
        let mut other = base.clone();
        change(&mut other);
        digest(&other.run)
    };
    let all = [
        digest(&base.run),
        digests(&|author| author.signal("x")),
        digests(&|author| author.signal("y")),
        digests(&|author| author.start_activity("a")),
        digests(&|author| {
            author.heartbeat("a", "1");
        }),
        digests(&|author| author.terminate()),
        digests(&|author| {
            author.start_task();
            let events = Vec::new();
            let pending = antipode_core::run::Pending {
                events,
                named_run: false,
                anchor: None,
                accepted: Default::default(),
                region: antipode_core::ids::RegionId(1),
                origin: None,
            };
            author.run.pending.insert(signal_identity("p"), pending);
        }),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert!(all.iter().all(|digest| digest.len() == 32));
}

/// Cheap actions of three regions over one run; each region may see another's work at any time.
#[derive(Clone, Copy, Debug)]
enum Action {
    Signal(usize, u8),
    Cancel(usize),
    StartTask(usize),
    Complete(usize, bool),
    FailTask(usize),
    Activity(usize),
    Retry(usize),
    Beat(usize),
    Settle(usize),
    Move(usize),
    Hear(usize, usize),
    Tell(usize, usize),
}

fn any_action() -> impl Strategy<Value = Action> {
    let region = || 0..3usize;
    prop_oneof![
        4 => (region(), 0..6u8).prop_map(|(region, name)| Action::Signal(region, name)),
        1 => region().prop_map(Action::Cancel),
        4 => region().prop_map(Action::StartTask),
        4 => (region(), any::<bool>()).prop_map(|(region, more)| Action::Complete(region, more)),
        2 => region().prop_map(Action::FailTask),
        2 => region().prop_map(Action::Activity),
        2 => region().prop_map(Action::Retry),
        1 => region().prop_map(Action::Beat),
        2 => region().prop_map(Action::Settle),
        2 => region().prop_map(Action::Move),
        2 => (region(), region()).prop_map(|(to, from)| Action::Hear(to, from)),
        2 => (region(), region()).prop_map(|(to, from)| Action::Tell(to, from)),
    ]
}

/// What was ever sent: every batch, and the state of the run after every step.
fn act(actions: &[Action]) -> Vec<Entry> {
    let begun = Author::begin();
    let mut regions = [begun.clone(), begun.elsewhere(2, 2), begun.elsewhere(3, 3)];
    let mut sent: Vec<Entry> = begun.batches.into_iter().map(Entry::Batch).collect();
    for action in actions {
        let here = match *action {
            Action::Signal(here, _)
            | Action::Cancel(here)
            | Action::StartTask(here)
            | Action::Complete(here, _)
            | Action::FailTask(here)
            | Action::Activity(here)
            | Action::Retry(here)
            | Action::Beat(here)
            | Action::Settle(here)
            | Action::Move(here)
            | Action::Hear(here, _)
            | Action::Tell(here, _) => here,
        };
        let other = match *action {
            Action::Hear(_, from) | Action::Tell(_, from) => Some(regions[from].clone()),
            _ => None,
        };
        let author = &mut regions[here];
        let before = author.batches.len();
        perform(author, action, other.as_ref());
        let fresh = author.batches[before..].iter().cloned().map(Entry::Batch);
        sent.extend(fresh.chain([Entry::State(author.run.state_wire())]));
    }
    sent
}

fn perform(author: &mut Author, action: &Action, other: Option<&Author>) {
    let writes = author.run.newest_version().0 <= author.version && author.run.state.is_open();
    let activity_waits = author.run.state.activity_ids.contains_key("a");
    match (*action, other) {
        (Action::Hear(..), Some(other)) => {
            author.receive(other);
        }
        (Action::Tell(..), Some(other)) if !author.run.missing_anchor(&other.run.state_wire()) => {
            author.merge(other);
        }
        (Action::Tell(..), _) => {}
        (Action::Move(_), _) => {
            author.version = (author.run.newest_version().0 / 10 + 1) * 10 + i64::from(author.region);
        }
        _ if !writes => {}
        (Action::Signal(_, name), _) => author.signal(&name.to_string()),
        (Action::Cancel(_), _) => author.cancel(&format!("cancel-{}", author.region)),
        (Action::StartTask(_), _) => {
            author.settle();
            author.start_task();
        }
        (Action::Complete(_, more), _) => {
            author.settle();
            if author.held_task().is_some() {
                let more = more && !activity_waits;
                author.complete(if more { vec![activity("a")] } else { vec![] });
            }
        }
        (Action::FailTask(_), _) => {
            author.settle();
            if author.held_task().is_some() {
                author.fail_task();
            }
        }
        (Action::Activity(_), _) if activity_waits => {
            let view = author.run.activity(author.activity("a")).unwrap();
            match (view.decided, view.attempt.started) {
                (true, _) => {}
                (false, false) => author.start_activity("a"),
                (false, true) => author.end_activity("a", activity::End::Completed(None)),
            }
        }
        (Action::Retry(_), _) if activity_waits => {
            let view = author.run.activity(author.activity("a")).unwrap();
            if view.attempt.started && !view.decided {
                let failure = antipode_proto::api::failure::v1::Failure::default();
                author.end_activity("a", activity::End::Failed(failure));
            }
        }
        (Action::Beat(_), _) if activity_waits => {
            author.heartbeat("a", "beat");
        }
        (Action::Settle(_), _) => author.pass(1),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// A1: batches, registers and pending events of three regions, in any order of arrival, give equal bytes.
    #[test]
    fn any_order_of_arrival_gives_equal_bytes(
        (sent, shuffled) in prop::collection::vec(any_action(), 1..24)
            .prop_map(|actions| act(&actions))
            .prop_flat_map(|sent| {
                let indexes: Vec<usize> = (0..sent.len()).collect();
                (Just(sent), Just(indexes).prop_shuffle())
            })
    ) {
        let order: Vec<Entry> = shuffled.iter().map(|index| sent[*index].clone()).collect();
        let (mut a, b) = (deliver(&sent), deliver(&order));
        prop_assert_eq!(shared_bytes(&a), shared_bytes(&b));
        prop_assert_eq!(digest(&a), digest(&b));
        prop_assert_eq!(a.task(), b.task());
        // V19: everything once more changes nothing.
        let before = a.head();
        for entry in &order {
            if let Entry::State(state) = entry {
                a.merge(state);
            }
        }
        prop_assert_eq!(shared_bytes(&a), shared_bytes(&b));
        prop_assert_eq!(a.head(), before);
        // V04, V05: a restart folds the same branch to the same state.
        let stored = Run::restore(a.key.clone(), &a.head(), batches_in_order(&a)).unwrap();
        prop_assert_eq!(&stored.state, &a.state);
        prop_assert_eq!(stored.head(), a.head());
    }
}

/// The batches of a run, parents first.
fn batches_in_order(run: &Run) -> Vec<Arc<Batch>> {
    let mut batches: Vec<_> = run.batches.values().cloned().collect();
    batches.sort_by_key(|batch| batch.envelope.first_event);
    batches
}

/// C6, E2: the state of a run that came back names the tips of its losing branches, and whoever lacks one of them knows it.
#[test]
fn a_run_that_came_back_names_what_lost() {
    let mut east = Author::begin();
    let mut west = east.elsewhere(2, 2);
    let mut north = east.elsewhere(3, 3);
    east.signal("e");
    west.signal("w");
    north.signal("n");
    let (mut lost, whole) = (vec![east.run.tip().to_bytes(), west.run.tip().to_bytes()], north.run.clone());
    north.receive(&west);
    north.receive(&east);
    assert!(north.run.state_wire().lost_tips.is_empty(), "it never went away");
    north.run.came_back = true;
    let state = north.run.state_wire();
    lost.sort_unstable();
    assert_eq!(state.lost_tips, lost);
    assert_eq!(antipode_core::run::lost_tips(&north.run.head()), lost);
    assert!(!north.run.lacks_branch(&state) && whole.lacks_branch(&state));
    assert!(west.run.lacks_branch(&state), "it has one of the two");
    west.receive(&east);
    assert!(!west.run.lacks_branch(&state));
}
