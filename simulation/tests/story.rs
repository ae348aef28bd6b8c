//! The story of the walking skeleton in the simulator: work, replication, failover, divergence, zombies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use antipode_history::{
    api::{Refusal, Reply, TaskKind},
    shard::Event,
};
use antipode_simulation::{
    oracle::{outline, signals},
    worker::{Decision, Held},
    world::World,
};

fn run_id(answer: Option<Result<Reply, Refusal>>) -> antipode_core::ids::RunId {
    match answer {
        Some(Ok(Reply::Start(start))) => start.run_id.parse().unwrap(),
        other => panic!("start: {other:?}"),
    }
}

fn done(answer: Option<Result<Reply, Refusal>>) {
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
}

fn gone(answer: Option<Result<Reply, Refusal>>) {
    assert!(matches!(answer, Some(Err(Refusal::TaskNotFound { .. }))), "{answer:?}");
}

fn task(world: &mut World, region: usize) -> Held {
    world.poll(region, TaskKind::Workflow).unwrap().expect("a workflow task waits")
}

fn activity(world: &mut World, region: usize) -> Held {
    world.poll(region, TaskKind::Activity).unwrap().expect("an activity waits")
}

fn converged(world: &mut World, workflows: &[&str]) {
    let workflows: BTreeSet<String> = workflows.iter().map(ToString::to_string).collect();
    let findings = world.check_converged(&workflows).unwrap();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    for region in &world.regions {
        assert!(region.broken.is_empty(), "{}: {:?}", region.name, region.broken);
    }
    assert!(world.poisoned.is_empty(), "{:?}", world.poisoned);
}

#[test]
fn one_task_workflow() {
    let mut world = World::new(&[1]).unwrap();
    run_id(world.start(0, "w", "r1").unwrap());
    let held = task(&mut world, 0);
    assert_eq!(held.events.len(), 3);
    done(world.complete_task(0, &held, &Decision::Complete).unwrap());
    let history = world.history(0, "w", None).unwrap();
    assert_eq!(
        outline(&history),
        "1@1:WORKFLOW_EXECUTION_STARTED 2@1:WORKFLOW_TASK_SCHEDULED 3@1:WORKFLOW_TASK_STARTED \
         4@1:WORKFLOW_TASK_COMPLETED 5@1:WORKFLOW_EXECUTION_COMPLETED"
    );
    gone(world.complete_task(0, &held, &Decision::Complete).unwrap());
    let told: Vec<_> = world.regions[0].stale.iter().map(|(run, discard)| (run, discard.words())).collect();
    let words = "workflow task of event 2@1, attempt 1 is discarded (run_closed): the run closed with event 5@1. The run is [1..5@1].";
    assert_eq!(told, [(&held.token.key, words.to_string())]);
    converged(&mut world, &["w"]);
}

#[test]
fn a_repeated_start_is_the_same_run_and_another_is_refused() {
    let mut world = World::new(&[1]).unwrap();
    let first = run_id(world.start(0, "w", "r1").unwrap());
    assert_eq!(run_id(world.start(0, "w", "r1").unwrap()), first);
    let refused = world.start(0, "w", "r2").unwrap();
    assert!(matches!(refused, Some(Err(Refusal::AlreadyStarted { run, .. })) if run == first), "{refused:?}");
}

#[test]
fn activity_is_retried_then_completed() {
    let mut world = World::new(&[1]).unwrap();
    world.start(0, "w", "r1").unwrap();
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::Activity("a".to_string())).unwrap());
    for _ in 0..2 {
        let attempt = activity(&mut world, 0);
        done(world.complete_activity(0, &attempt, false).unwrap());
        assert!(world.poll(0, TaskKind::Activity).unwrap().is_none(), "the back-off holds it");
        world.advance(5_000_000_000).unwrap();
    }
    let attempt = activity(&mut world, 0);
    assert_eq!(attempt.token.task.attempt, 3);
    done(world.complete_activity(0, &attempt, true).unwrap());
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::Complete).unwrap());
    converged(&mut world, &["w"]);
}

#[test]
fn what_arrives_during_a_task_waits_and_is_written_after_it() {
    let mut world = World::new(&[1]).unwrap();
    world.start(0, "w", "r1").unwrap();
    let held = task(&mut world, 0);
    done(world.signal(0, "w", "s", "s1").unwrap());
    done(world.signal(0, "w", "s", "s1").unwrap());
    assert!(signals(&world.history(0, "w", None).unwrap()).is_empty());
    // It cannot close over what it has not seen.
    let refused = world.complete_task(0, &held, &Decision::Complete).unwrap();
    assert!(matches!(refused, Some(Err(Refusal::InvalidArgument(_)))), "{refused:?}");
    let held = task(&mut world, 0);
    assert_eq!(signals(&held.events), ["s1"]);
    done(world.complete_task(0, &held, &Decision::Complete).unwrap());
    converged(&mut world, &["w"]);
}

#[test]
fn acknowledged_work_survives_a_crash() {
    let mut world = World::new(&[2]).unwrap();
    world.start(0, "w", "r1").unwrap();
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::Timer("t".to_string(), 60)).unwrap());
    done(world.signal(0, "w", "s", "s1").unwrap());
    let now = world.now;
    world.regions[0].crash(now).unwrap();
    world.settle().unwrap();
    let held = task(&mut world, 0);
    assert_eq!(signals(&held.events), ["s1"]);
    done(world.complete_task(0, &held, &Decision::Wait).unwrap());
    world.regions[0].crash(now).unwrap();
    world.advance(61_000_000_000).unwrap();
    let held = task(&mut world, 0);
    assert!(outline(&held.events).contains("TIMER_FIRED"), "{}", outline(&held.events));
    converged(&mut world, &["w"]);
}

#[test]
fn the_other_region_follows_and_takes_over() {
    let mut world = World::new(&[2, 3]).unwrap();
    world.start(0, "w", "r1").unwrap();
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::Activity("a".to_string())).unwrap());
    let started = activity(&mut world, 0);
    world.replicate().unwrap();
    converged(&mut world, &["w"]);
    assert!(world.regions[1].offers.is_empty(), "a passive region dispatches nothing (V17)");
    assert_eq!(world.force(1).unwrap().0, 2);
    world.replicate().unwrap();
    let refused = world.complete_activity(0, &started, true).unwrap();
    assert!(matches!(refused, Some(Err(Refusal::NamespaceNotActive { .. }))), "{refused:?}");
    // West knows the start: it does not dispatch again, and accepts the completion (R931).
    assert!(world.poll(1, TaskKind::Activity).unwrap().is_none());
    done(world.complete_activity(1, &started, true).unwrap());
    let held = task(&mut world, 1);
    done(world.complete_task(1, &held, &Decision::Complete).unwrap());
    world.replicate().unwrap();
    converged(&mut world, &["w"]);
    assert!(outline(&world.history(0, "w", None).unwrap()).ends_with("@2:WORKFLOW_EXECUTION_COMPLETED"));
}

#[test]
fn a_start_that_was_not_replicated_is_dispatched_again() {
    let mut world = World::new(&[1, 1]).unwrap();
    world.start(0, "w", "r1").unwrap();
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::Activity("a".to_string())).unwrap());
    world.replicate().unwrap();
    world.cut_both(0, 1);
    let lost = activity(&mut world, 0);
    world.force(1).unwrap();
    let again = activity(&mut world, 1);
    done(world.complete_activity(1, &again, true).unwrap());
    world.heal();
    world.replicate().unwrap();
    gone(world.complete_activity(1, &lost, true).unwrap());
    converged(&mut world, &["w"]);
}

/// What an operator is shown of a divergence: the fate of every signal of the branch that lost, in words and as JSON (I16).
/// The third one still waited when its branch lost, so no branch has it.
fn reported(rollback: &antipode_proto::admin::Explained) {
    let again = rollback.words.lines().filter(|line| line.contains("written again as")).count();
    assert_eq!(again, 2, "{}", rollback.words);
    let json: serde_json::Value = serde_json::from_str(&rollback.json).unwrap();
    assert_eq!(json["totals"]["reapplied"], 2, "{json}");
    let branches = json["branches"].as_array().unwrap();
    assert_eq!(branches.len(), 1, "{json}");
    assert!(rollback.words.contains(branches[0]["why"].as_str().unwrap()), "{}", rollback.words);
}

/// A6: attempts that failed on both sides of a cut. The value that loses is counted where it is seen; no owner wrote twice.
#[test]
fn a_value_that_loses_unseen_is_counted() {
    let mut world = World::new(&[1, 1]).unwrap();
    world.start(0, "w", "r1").unwrap();
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::Activity("a".to_string())).unwrap());
    world.replicate().unwrap();
    world.cut_both(0, 1);
    world.force(1).unwrap();
    for region in 0..2 {
        let attempt = activity(&mut world, region);
        done(world.complete_activity(region, &attempt, false).unwrap());
    }
    world.heal();
    world.replicate().unwrap();
    converged(&mut world, &["w"]);
    for region in &world.regions {
        assert_eq!(region.events.get(&Event::ValueLost), Some(&1), "{}: {:?}", region.name, region.events);
        assert!(!region.events.contains_key(&Event::Fork) && region.alarms.is_empty(), "{:?}", region.alarms);
    }
    let rollback = world.inspect(0, "w", None).unwrap().unwrap().rollback.unwrap();
    assert!(rollback.words.contains("written under @1 lost to @2"), "{}", rollback.words);
}

/// EX14, and the story: both sides take signals and make progress, then agree.
#[test]
fn divergence_heals_and_every_signal_stands_once() {
    for order in 0..3 {
        let mut world = World::new(&[2, 3]).unwrap();
        world.start(0, "w", "r1").unwrap();
        let held = task(&mut world, 0);
        done(world.complete_task(0, &held, &Decision::Wait).unwrap());
        world.replicate().unwrap();
        world.cut_both(0, 1);
        assert_eq!(world.force(1).unwrap().0, 2);
        done(world.signal(0, "w", "east", "e1").unwrap());
        done(world.signal(1, "w", "west", "w1").unwrap());
        let east_task = task(&mut world, 0);
        done(world.complete_task(0, &east_task, &Decision::Activity("lost".to_string())).unwrap());
        let lost_activity = activity(&mut world, 0);
        done(world.signal(0, "w", "east", "e2").unwrap());
        let lost_task = task(&mut world, 0);
        done(world.signal(0, "w", "east", "e3").unwrap());
        let west_task = task(&mut world, 1);
        done(world.complete_task(1, &west_task, &Decision::Timer("t".to_string(), 3_600)).unwrap());
        if order == 1 {
            let now = world.now;
            world.regions[0].crash(now).unwrap();
            world.regions[1].crash(now).unwrap();
        }
        world.heal();
        world.replicate().unwrap();
        if order == 2 {
            for region in &mut world.regions {
                region.positions.clear();
            }
            world.replicate().unwrap();
        }
        converged(&mut world, &["w"]);
        let history = world.history(0, "w", None).unwrap();
        let mut found = signals(&history);
        found.sort();
        assert_eq!(found, ["e1", "e2", "e3", "w1"], "{}", outline(&history));
        let inspect = world.inspect(0, "w", None).unwrap().unwrap();
        assert_eq!(inspect.branches.len(), 2, "{inspect:?}");
        reported(&inspect.rollback.unwrap());
        gone(world.complete_task(1, &lost_task, &Decision::Complete).unwrap());
        gone(world.complete_activity(1, &lost_activity, true).unwrap());
        let discards: Vec<_> = world.regions[1].discards.values().copied().collect();
        assert_eq!(discards, [1, 1], "{:?}", world.regions[1].discards);
        let counted: BTreeSet<_> = world.regions[1].discards.keys().map(|(_, reason)| *reason).collect();
        let told: BTreeSet<_> = world.regions[1].stale.iter().map(|(_, why)| why.reason.as_str()).collect();
        assert_eq!(told, counted, "every discarded task is explained");
        let held = task(&mut world, 1);
        done(world.complete_task(1, &held, &Decision::Complete).unwrap());
        world.replicate().unwrap();
        converged(&mut world, &["w"]);
        // Fail back: the loser's branch stays what it is.
        assert_eq!(world.force(0).unwrap().0, 11);
        world.replicate().unwrap();
        converged(&mut world, &["w"]);
    }
}

/// B8 broken on purpose: the successor arrives first, and the predecessor is a zombie until it is complete.
#[test]
fn a_delayed_predecessor_is_a_zombie() {
    let mut world = World::new(&[1, 2]).unwrap();
    let first = run_id(world.start(0, "w", "r1").unwrap());
    world.replicate().unwrap();
    world.held.insert(first);
    let held = task(&mut world, 0);
    done(world.complete_task(0, &held, &Decision::ContinueAsNew).unwrap());
    world.replicate().unwrap();
    let inspect = world.inspect(1, "w", Some(first)).unwrap().unwrap();
    assert_eq!(inspect.state, "Zombie");
    assert_ne!(inspect.current_run_id, first.to_string());
    assert_eq!(world.open_runs(1, "w").unwrap().len(), 1);
    let refused = world.terminate(1, "w", Some(first)).unwrap();
    assert!(matches!(refused, Some(Err(Refusal::NamespaceNotActive { .. }))), "{refused:?}");
    world.force(1).unwrap();
    let refused = world.terminate(1, "w", Some(first)).unwrap();
    assert!(matches!(refused, Some(Err(Refusal::AlreadyCompleted))), "{refused:?}");
    world.held.clear();
    world.replicate().unwrap();
    converged(&mut world, &["w"]);
    let inspect = world.inspect(1, "w", Some(first)).unwrap().unwrap();
    assert_eq!((inspect.state.as_str(), inspect.status.as_str()), ("Completed", "CONTINUED_AS_NEW"));
}
