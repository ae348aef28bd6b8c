//! The named programs. Each is small enough to be seen whole and has in it the interleavings that break a system without one or
//! more of the laws. Their numbers of states are known: another number is another behaviour.

use super::program::{Action, Does, Free, Program};

const EAST: usize = 0;
const WEST: usize = 1;
const NORTH: usize = 2;

const START: Action = Action::Start { at: EAST, workflow: "w", request: "start", terminate: false };

const fn signal(at: usize, request: &'static str) -> Action {
    Action::Signal { at, workflow: "w", request }
}

const fn force(to: usize) -> Action {
    Action::Force { to, asks: &[] }
}

const fn complete(at: usize, does: Does) -> Action {
    Action::Complete { at, does }
}

/// All programs, the smallest first.
#[must_use]
pub fn programs() -> &'static [Program] {
    &PROGRAMS
}

static PROGRAMS: [Program; 10] = [
    Program {
        name: "hand_over_with_crash",
        about: "F1, F2: a hand-over step by step, taken back or not, with crashes, commits in flight and calls all the time",
        regions: 2,
        setup: &[START, Action::Deliver],
        actors: &[
            &[
                Action::Drain { at: EAST, to: WEST },
                Action::Barrier { at: EAST },
                Action::Release { at: EAST, to: WEST },
            ],
            &[Action::Undo { at: EAST }],
            &[Action::Activate { at: WEST }],
            &[signal(EAST, "s1")],
            &[signal(EAST, "s1"), signal(WEST, "s2")],
        ],
        free: Free {
            crashes: &[(EAST, 1), (WEST, 1)],
            held: &[EAST, WEST],
            insistent: true,
            graceful: true,
            ..Free::PLAIN
        },
        symmetric: &[],
        states: 1_866,
        small: true,
    },
    Program {
        name: "transient_task",
        about: "A4: a batch of the lost version arrives under a worker's transient workflow task",
        regions: 2,
        setup: &[START, Action::Poll { at: EAST }, Action::Fail { at: EAST }, Action::Deliver],
        actors: &[
            &[signal(EAST, "s1")],
            &[force(WEST), Action::Poll { at: WEST }, complete(WEST, Does::Timer("t", 60))],
            &[Action::Poll { at: EAST }, complete(EAST, Does::Wait)],
        ],
        free: Free { ahead: true, redeliver: true, ..Free::PLAIN },
        symmetric: &[],
        states: 2_565,
        small: false,
    },
    Program {
        name: "split_brain_signals",
        about: "EX14, B1: both sides of a partition take signals, one of them twice, and the first side takes over again",
        regions: 2,
        setup: &[START, Action::Deliver],
        actors: &[
            &[signal(EAST, "s1"), force(EAST)],
            &[force(WEST), signal(WEST, "s2"), signal(WEST, "s1")],
            &[Action::Poll { at: WEST }, complete(WEST, Does::Wait)],
        ],
        free: Free { ahead: true, redeliver: true, ..Free::PLAIN },
        symmetric: &[],
        states: 8_682,
        small: false,
    },
    Program {
        name: "two_starts",
        about: "B5: both sides start a run of one workflow id in place of the one that is open; the loser is listed",
        regions: 2,
        setup: &[START, Action::Deliver],
        actors: &[
            &[
                Action::Start { at: EAST, workflow: "w", request: "here", terminate: true },
                signal(EAST, "s1"),
            ],
            &[force(WEST), Action::Start { at: WEST, workflow: "w", request: "there", terminate: true }],
        ],
        free: Free { ahead: true, overtake: true, redeliver: true, ..Free::PLAIN },
        symmetric: &[],
        states: 1_939,
        small: true,
    },
    Program {
        name: "two_runs_one_id",
        about: "B5-B8: runs of one workflow id on both sides, continued, terminated and started anew",
        regions: 2,
        setup: &[START, Action::Deliver],
        actors: &[
            &[Action::Poll { at: EAST }, complete(EAST, Does::ContinueAsNew), signal(EAST, "s1")],
            &[
                force(WEST),
                Action::Start { at: WEST, workflow: "w", request: "again", terminate: true },
                signal(WEST, "s2"),
            ],
        ],
        free: Free { overtake: true, redeliver: true, ..Free::PLAIN },
        symmetric: &[],
        states: 7_965,
        small: false,
    },
    Program {
        name: "attempts_on_both_sides",
        about: "A5, A6: both sides of a partition hand out one activity; attempts never fall",
        regions: 2,
        setup: &[START, Action::Poll { at: EAST }, complete(EAST, Does::Activity("a")), Action::Deliver],
        actors: &[
            &[
                Action::PollActivity { at: EAST },
                Action::Beat { at: EAST, details: "half" },
                Action::End { at: EAST, well: false },
            ],
            &[force(WEST), Action::PollActivity { at: WEST }, Action::End { at: WEST, well: true }],
        ],
        free: Free { ahead: true, reads: true, redeliver: true, ..Free::PLAIN },
        symmetric: &[],
        states: 1_915,
        small: true,
    },
    Program {
        name: "register_and_branch",
        about: "A1: registers of an activity against branches that win and lose, in every order of arrival",
        regions: 2,
        setup: &[START, Action::Deliver, Action::Poll { at: EAST }, complete(EAST, Does::Activity("a"))],
        actors: &[
            &[Action::PollActivity { at: EAST }, Action::End { at: EAST, well: false }],
            &[force(WEST), signal(WEST, "s1")],
            &[force(EAST), signal(EAST, "s2")],
        ],
        free: Free::PLAIN,
        symmetric: &[],
        states: 16_550,
        small: false,
    },
    Program {
        name: "two_observers",
        about: "B2, B7, B8, V19: two regions follow a chain of runs that takes signals, in every order of arrival",
        regions: 3,
        setup: &[START, Action::Deliver],
        actors: &[
            &[
                signal(EAST, "s1"),
                Action::Poll { at: EAST },
                complete(EAST, Does::ContinueAsNew),
                signal(EAST, "s1"),
            ],
            &[signal(EAST, "s2")],
        ],
        free: Free { overtake: true, reads: true, redeliver: true, graceful: true, ..Free::PLAIN },
        symmetric: &[(WEST, NORTH)],
        states: 2_563,
        small: false,
    },
    Program {
        name: "buffered_signals",
        about: "A2: signals that wait for a workflow task survive a failover, and none is written twice",
        regions: 2,
        setup: &[START, Action::Deliver],
        actors: &[
            &[Action::Poll { at: EAST }, complete(EAST, Does::Wait)],
            &[signal(EAST, "s1")],
            &[force(WEST), signal(WEST, "s2")],
            &[Action::Poll { at: WEST }, complete(WEST, Does::Complete)],
        ],
        free: Free { reads: true, redeliver: true, ..Free::PLAIN },
        symmetric: &[],
        states: 18_605,
        small: false,
    },
    Program {
        name: "two_failovers",
        about: "S600: three regions, two of them forced at once, an append in each, all orders of delivery",
        regions: 3,
        setup: &[START, Action::Deliver],
        actors: &[
            &[signal(EAST, "s1")],
            &[force(WEST), signal(WEST, "s2")],
            &[force(NORTH), signal(NORTH, "s3")],
        ],
        free: Free::PLAIN,
        symmetric: &[],
        states: 13_243,
        small: false,
    },
];
