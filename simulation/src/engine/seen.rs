//! Interesting states: what a simulation must have been through before its silence means anything. Each is counted; a run
//! over many seeds that never reaches one of them fails (Antithesis calls these "sometimes" assertions).

use std::collections::BTreeMap;

use serde::Serialize;

macro_rules! states {
    ($($id:ident $name:literal $meaning:literal)+) => {
        /// A state worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum State {
            $(#[doc = $meaning] $id,)+
        }

        impl State {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$id),+];

            /// Its name, as summaries and scenarios write it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)+
                }
            }

            /// What it means.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$id => $meaning,)+
                }
            }
        }
    };
}

states! {
    Branched "branched" "a run got a second branch"
    ThreeBranches "three-branches" "a run has three branches or more"
    Switched "switched" "another branch became current and the run was rebuilt"
    OwnBranchLost "own-branch-lost" "a branch that the region itself wrote lost"
    LoserExtended "loser-extended" "a losing branch grew"
    Zombie "zombie" "an open run lost its workflow id to another run"
    ZombieRevived "zombie-revived" "a superseded open run became the current run again"
    TwoRuns "two-runs" "two runs were started under one workflow id in two regions"
    Reapplied "reapplied" "an external event of a losing branch was written again"
    ReappliedLater "reapplied-later" "an external event was written again in a later run of its chain"
    Unclaimed "unclaimed" "an external event was filed as unclaimed"
    NeedEvents "need-events" "a batch arrived before its parent, and the hole was fetched"
    SuccessorFirst "successor-first" "a closing batch waited for its successor's first batch"
    Duplicate "duplicate" "an entry arrived that was known already"
    StreamBroke "stream-broke" "a stream lost a message and began again from the stored positions"
    Corrupted "corrupted" "a message arrived broken off"
    Changed "changed" "a batch changed on its way and was asked for again"
    Quarantined "quarantined" "a run was quarantined"
    Replayed "replayed" "a quarantined run was replayed and let go"
    CommitRejected "commit-rejected" "a commit was rejected and everything built on it dropped"
    UnknownLost "unknown-lost" "the outcome of a commit was unknown, and nothing was written"
    UnknownWritten "unknown-written" "the outcome of a commit was unknown, and all was written"
    CrashInCommit "crash-in-commit" "a region died with a commit in flight"
    TornTail "torn-tail" "a region died, and of several commits in flight only the first were written"
    Upgraded "upgraded" "a region came back with another version of the software"
    CrashDraining "crash-draining" "the active region died while it handed over"
    SplitBrain "split-brain" "two regions believed to be active"
    NobodyActive "nobody-active" "no region could write"
    DrainUndone "drain-undone" "a draining was taken back"
    HandedOver "handed-over" "a hand-over came to its end"
    SkewRefused "skew-refused" "a hand-over was refused because the clocks were too far apart"
    SkewWarned "skew-warned" "a hand-over was begun between clocks that were apart, and said so"
    ReleasedAndForced "released-and-forced" "a region was forced active while a release was under way"
    ForcedBlind "forced-blind" "a forced failover could not ask every region"
    Failback "failback" "the namespace came back within ten seconds"
    TwoForces "two-forces" "two regions were forced active within a second"
    RecordOvertaken "record-overtaken" "an entry arrived before the namespace record it was written under"
    HeldCall "held-call" "a call met a draining namespace"
    ForwardedCall "forwarded-call" "a call met a passive region"
    Retried "retried" "a client's retry was recognised by its request id"
    RetriedElsewhere "retried-elsewhere" "a client's retry went to another region than its first try"
    GaveUp "gave-up" "a client never learned what became of its call"
    StaleTask "stale-task" "a worker's answer came for a task that does not fit any more"
    TransientTask "transient-task" "a workflow task was tried again without an event"
    StickyBroken "sticky-broken" "a sticky binding did not hold, and full history was sent"
    ActivityRetried "activity-retried" "an activity's attempt failed and another followed"
    Continued "continued" "a run continued as new"
    ClockJumped "clock-jumped" "a region's clock jumped"
    Restored "restored" "a region came back from a backup as a new incarnation"
    Relayed "relayed" "a batch arrived from a region that did not write it"
    MembersChanged "members-changed" "a region left or joined the namespace"
    RetentionWaited "retention-waited" "a closed run was kept because a peer had not proved it"
    RetentionDeleted "retention-deleted" "a closed run was deleted by retention"
    OutlivedRetention "outlived-retention" "a peer came back after a closed run's retention had ended, and was sent it"
    LateDuplicate "late-duplicate" "an entry arrived for a run that retention had deleted, and changed nothing"
    Resurrected "resurrected" "a deleted run came back, because its events went on under a higher version"
}

/// How often each was reached, and other counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    counts: BTreeMap<&'static str, u64>,
}

impl Seen {
    /// Counts a state.
    pub fn note(&mut self, state: State) {
        *self.counts.entry(state.name()).or_default() += 1;
    }

    /// How often it was reached.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(name, count)| (*name, *count))
    }
}
