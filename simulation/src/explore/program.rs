//! What is explored: a small program of a few regions. Its actors do their actions each in order; how they interleave with
//! each other, with deliveries and with exchanges of the namespace record is the explorer's to try out, all of it.

use antipode_persistence::memory::Fault;

use crate::worker::Decision;

/// Index of a region.
pub type At = usize;

/// A program. All its parts are plain data, so that it can be read beside what it is meant to catch.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// How many regions; the namespace is active in the first.
    pub regions: usize,
    /// Done first, in order, before anything interleaves.
    pub setup: &'static [Action],
    /// Lists of actions, each done in order.
    pub actors: &'static [&'static [Action]],
    /// What may happen beside.
    pub free: Free,
    /// Pairs of regions that the program cannot tell apart: states that differ by their exchange are one.
    pub symmetric: &'static [(At, At)],
    /// Number of states, known since it was first explored. A change of it is a visible change of behaviour.
    pub states: u64,
    /// Small enough for a debug build.
    pub small: bool,
}

/// What may happen beside the actors, and how the world is set up.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    /// How often a region may crash: (region, how often in all).
    pub crashes: &'static [(At, u8)],
    /// Regions whose commits end when the explorer chooses. Elsewhere each is durable at once.
    pub held: &'static [At],
    /// Entries may arrive ahead of the namespace record of their version. Else the record is asked for first (I10).
    pub ahead: bool,
    /// A sender reads its log when the explorer chooses, so that registers and pending events travel as they are then (C1).
    /// Elsewhere it reads after each commit.
    pub reads: bool,
    /// Entries of different runs of one workflow id may overtake each other. Else their order is kept (B8).
    pub overtake: bool,
    /// Clients try in every region all the time, also where they must be refused.
    pub insistent: bool,
    /// Nobody forces: there must be one branch, one writer, and nothing lost (V18).
    pub graceful: bool,
    /// Everything that was delivered before is delivered once more, whenever something is delivered: it must change
    /// nothing (V19).
    pub redeliver: bool,
}

impl Free {
    /// Deliveries and exchanges only.
    pub const PLAIN: Self = Self {
        crashes: &[],
        held: &[],
        ahead: false,
        reads: false,
        overtake: false,
        insistent: false,
        graceful: false,
        redeliver: false,
    };
}

/// One action of an actor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// A client starts a workflow.
    Start {
        /// Region asked.
        at: At,
        /// Workflow id.
        workflow: &'static str,
        /// Request id.
        request: &'static str,
        /// An open run is terminated for it.
        terminate: bool,
    },
    /// A client signals the current run.
    Signal {
        /// Region asked.
        at: At,
        /// Workflow id.
        workflow: &'static str,
        /// Request id, and name of the signal.
        request: &'static str,
    },
    /// A client asks to cancel the current run.
    Cancel {
        /// Region asked.
        at: At,
        /// Workflow id.
        workflow: &'static str,
        /// Request id.
        request: &'static str,
    },
    /// A client terminates the current run.
    Terminate {
        /// Region asked.
        at: At,
        /// Workflow id.
        workflow: &'static str,
    },
    /// A worker takes a workflow task that is offered.
    Poll {
        /// Region polled.
        at: At,
    },
    /// A worker completes the workflow task in its hand.
    Complete {
        /// Region asked.
        at: At,
        /// What it decides.
        does: Does,
    },
    /// A worker fails the workflow task in its hand.
    Fail {
        /// Region asked.
        at: At,
    },
    /// A worker takes an activity that is offered.
    PollActivity {
        /// Region polled.
        at: At,
    },
    /// A worker's activity tells that it lives.
    Beat {
        /// Region asked.
        at: At,
        /// Details.
        details: &'static str,
    },
    /// A worker's activity ends well, or fails and may be tried again.
    End {
        /// Region asked.
        at: At,
        /// Well.
        well: bool,
    },
    /// An operator forces the namespace to a region, which can ask only these others.
    Force {
        /// Target.
        to: At,
        /// Reachable regions.
        asks: &'static [At],
    },
    /// Hand-over: the active region begins to drain.
    Drain {
        /// Active region.
        at: At,
        /// Target.
        to: At,
    },
    /// Hand-over: the draining region's shards commit their barriers.
    Barrier {
        /// Draining region.
        at: At,
    },
    /// Hand-over: the draining region releases, once the target has proof of the barriers.
    Release {
        /// Draining region.
        at: At,
        /// Target.
        to: At,
    },
    /// Hand-over: the draining region takes it back.
    Undo {
        /// Draining region.
        at: At,
    },
    /// Hand-over: the target activates, as soon as it knows of the release.
    Activate {
        /// Target.
        at: At,
    },
    /// The commit in flight fails.
    FailCommit {
        /// Region.
        at: At,
        /// How.
        how: Fault,
    },
    /// Time passes everywhere.
    Advance {
        /// So many seconds.
        seconds: i64,
    },
    /// Only in the setup: everything is delivered, all records are exchanged.
    Deliver,
}

/// What a worker decides. Like [`Decision`], but constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Nothing now.
    Wait,
    /// An activity with this id.
    Activity(&'static str),
    /// A timer with this id, of so many seconds.
    Timer(&'static str, i64),
    /// Complete the workflow.
    Complete,
    /// Continue as new.
    ContinueAsNew,
}

impl Does {
    /// As the worker sends it.
    #[must_use]
    pub fn decision(self) -> Decision {
        match self {
            Self::Wait => Decision::Wait,
            Self::Activity(id) => Decision::Activity(id.to_string()),
            Self::Timer(id, seconds) => Decision::Timer(id.to_string(), seconds),
            Self::Complete => Decision::Complete,
            Self::ContinueAsNew => Decision::ContinueAsNew,
        }
    }
}

impl Program {
    /// Workflow ids that its actions name.
    #[must_use]
    pub fn workflows(&self) -> Vec<&'static str> {
        let named = |action: &Action| match action {
            Action::Start { workflow, .. }
            | Action::Signal { workflow, .. }
            | Action::Cancel { workflow, .. }
            | Action::Terminate { workflow, .. } => Some(*workflow),
            _ => None,
        };
        let all = self.setup.iter().chain(self.actors.iter().flat_map(|actor| actor.iter()));
        let names: std::collections::BTreeSet<_> = all.filter_map(named).collect();
        names.into_iter().collect()
    }
}
