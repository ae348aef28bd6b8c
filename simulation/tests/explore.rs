//! The exploration of small programs: their numbers of states are known, twice the same, and a way to a failure is a shortest
//! one. The larger programs are explored by `antipode sim explore --all`, in an optimised build; here with `--ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use antipode_core::{batch::EventIdentity, identity::Key};
use antipode_simulation::explore::{
    Action, Free, Limits, Program, explore, explore_with, programs,
    state::{State, Told},
};

fn program(name: &str) -> &'static Program {
    programs().iter().find(|program| program.name == name).expect("a program of this name")
}

fn well(program: &'static Program) {
    let outcome = explore(program, Limits::default());
    assert!(outcome.is_well(), "{outcome}");
}

#[test]
fn the_small_programs_hold_and_have_their_numbers_of_states() {
    let small: Vec<_> = programs().iter().filter(|program| program.small).collect();
    assert!(small.len() >= 2);
    for program in small {
        well(program);
    }
}

#[test]
#[ignore = "minutes in a debug build"]
fn the_large_programs_hold_and_have_their_numbers_of_states() {
    for program in programs().iter().filter(|program| !program.small) {
        well(program);
    }
}

static TWO_CLIENTS: Program = Program {
    name: "two_clients",
    about: "two clients signal while a worker works",
    regions: 2,
    setup: &[Action::Start { at: 0, workflow: "w", request: "start", terminate: false }, Action::Deliver],
    actors: &[
        &[
            Action::Signal { at: 0, workflow: "w", request: "a" },
            Action::Signal { at: 0, workflow: "w", request: "b" },
            Action::Signal { at: 0, workflow: "w", request: "c" },
        ],
        &[Action::Signal { at: 0, workflow: "w", request: "d" }],
    ],
    free: Free::PLAIN,
    symmetric: &[],
    states: 0,
    small: true,
};

/// Everything that the two clients and the deliveries can do, counted by hand: the first client is at 0..=3 and the second at
/// 0..=1; which signal was `d` among the last is a matter of order (1, 2, 3 or 4 places); of `n` written batches 0..=n are
/// delivered.
fn ways() -> u64 {
    let mut states = 0;
    for first in 0..=3_u64 {
        states += first + 1;
        states += (first + 1) * (first + 2);
    }
    states
}

#[test]
fn states_are_counted_up_to_renaming_only() {
    let outcome = explore(&TWO_CLIENTS, Limits::default());
    assert!(outcome.failure.is_none(), "{outcome}");
    assert_eq!(outcome.states, ways(), "{outcome}");
    // The last one is that everything was done and delivered, in four orders.
    assert_eq!(outcome.ends, 4, "{outcome}");
    assert_eq!(outcome.depth, 8, "four signals and four deliveries");
}

/// A toy invariant: `b` is never delivered before `d` is acknowledged.
fn toy(state: &State) -> Result<(), String> {
    let acknowledged = |request| state.told.contains(&Told::Event("w", 1, request));
    let run = state.nodes[1].snap.runs.values().next().expect("the run is there");
    let is_b = |entry: &EventIdentity| entry.identity.key == Key::Client("b".to_string());
    let arrived = run.batches.iter().any(|batch| batch.envelope.identities.iter().any(is_b));
    if arrived && !acknowledged("d") { Err("b arrived before d was asked for".to_string()) } else { Ok(()) }
}

#[test]
fn the_way_to_a_failure_is_a_shortest_one() {
    let outcome = explore_with(&TWO_CLIENTS, Limits::default(), &mut toy);
    let failure = outcome.failure.expect("the toy invariant is broken");
    // a, b, deliver a, deliver b: nothing shorter leads there.
    assert_eq!(failure.steps, 4, "{failure:?}");
    assert_eq!(failure.finding, "b arrived before d was asked for");
    let steps: Vec<_> = failure.path.iter().filter(|line| !line.starts_with("      ")).collect();
    assert_eq!(steps.len(), 1 + 4, "a line for the setup and one a step: {steps:#?}");
    let told = failure.path.join("\n");
    assert!(told.contains("client in east: signal b to w"), "{told}");
    assert!(told.contains("west has run a") && told.contains("WORKFLOW_EXECUTION_SIGNALED"), "{told}");
    assert!(!told.contains("signal c") && !told.contains("signal d"), "no detour: {told}");
}

#[test]
fn a_count_is_the_same_twice_and_a_limit_cuts_short() {
    let some = Limits { states: 700 };
    let one = explore(program("transient_task"), some);
    let two = explore(program("transient_task"), some);
    assert_eq!((one.states, one.transitions, one.reached), (two.states, two.transitions, two.reached));
    let cut = explore(program("hand_over_with_crash"), Limits { states: 50 });
    assert!(cut.cut_short && !cut.is_well() && cut.states >= 50, "{cut}");
    assert!(cut.to_string().contains("cut short"), "{cut}");
}

/// What a region may not do is found in the first state that shows it: a program that cannot work says so.
#[test]
fn a_setup_that_is_refused_is_told() {
    static PASSIVE: Program = Program {
        setup: &[Action::Start { at: 1, workflow: "w", request: "start", terminate: false }],
        ..TWO_CLIENTS
    };
    let outcome = explore(&PASSIVE, Limits::default());
    let failure = outcome.failure.expect("west is passive");
    assert!(failure.finding.starts_with("setup:"), "{failure:?}");
}
