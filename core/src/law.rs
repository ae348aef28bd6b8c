//! The laws in one catalogue, one sentence each. The same predicate is checked by production, tests and the simulator through
//! [`law!`](crate::law!): a debug build stops at a broken law, a release build answers `false`, which the caller counts and
//! turns into an error.

use std::fmt;

macro_rules! catalogue {
    ($($id:ident $sentence:literal)+) => {
        /// Id of a law of the core (A1–H2) or of an invariant (V01–V20).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LawId {
            $(#[doc = $sentence] $id,)+
        }

        impl LawId {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$id),+];

            /// The law in one sentence.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$id => $sentence,)+
                }
            }

            /// The id as text.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$id => stringify!($id),)+
                }
            }
        }
    };
}

catalogue! {
    A1 "mutable state is a pure function of current branch, registers and pending set, never of the order of arrival"
    A2 "buffered external events are a set keyed by identity: adding is a union and no merge removes one"
    A3 "an external event counts as applied only when its identity is on the current branch or its chain"
    A4 "whatever a workflow task without a started event did not see voids it"
    A5 "order, stamp and start version are three numbers, and tasks are checked without order"
    A6 "facts with different owners have registers of their own, and an attempt never falls within a stamp generation"
    A7 "a register is live only while its anchor is the latest event of its entity on the current branch"
    A8 "a sticky binding holds only while its event is on the current branch and the version is the same"
    A9 "a region writes events only under the namespace's present version and only while it owns it"
    A10 "a run is replayed by the version of the fold that wrote it"
    B1 "what is owed is computed from branches and identities, with no exception for one's own events"
    B2 "the applied set belongs to the chain of runs and is inherited by every successor"
    B3 "the identity of an external event is the client's key where it has one"
    B4 "a request that named a run is applied only to that run or its successors"
    B5 "events that one commit wrote for several runs are judged together"
    B6 "the current record is never lowered, not even by deletion"
    B7 "runs of one workflow id are ordered by last write version, then place"
    B8 "a closing batch with a successor is applied only after the successor's first batch is stored"
    B9 "an update outcome that the winner contradicts is recorded"
    C1 "a log position is assigned by the owner and everything up to an announced position was sent"
    C2 "the dispatch index has at most one row for a run, queue and kind"
    C3 "outbound work is implied by state, delivered at least once and told apart by a derived request id"
    C4 "the truth of an obligation is in the run that waits for it"
    C5 "a wake-up may be too early, never too late"
    C6 "retention deletes a run only after every listed peer has proof of its last change"
    C7 "every batch keeps its first origin and position"
    C8 "a consumer outside the store's transaction reads the log with a position of its own"
    C9 "a region that was added is no copy before it is seeded"
    D1 "no output leaves before the state it rests on is durable"
    D2 "after an unknown commit the owner fences, reloads and only then goes on"
    D3 "a commit whose fence fails writes nothing"
    D4 "a group commits whole or not at all"
    D5 "a read that claims freshness is checked against the fence"
    D6 "a transition commits under the namespace record it was computed with"
    E1 "a position is proved only when every entry up to it is durably applied, known or a reported exception"
    E2 "the receiver owns its position, and a store has an identity for each of its lives"
    E3 "a position of a source shard moves only after all owners reported"
    E4 "the server says which promise of durability is in force"
    F1 "a hand-over is decided by the active region's own durable record, and a release is irrevocable"
    F2 "a shard is frozen when its owner committed the barrier"
    F3 "a forced failover mints a version above every version seen"
    F4 "any order of delivery of namespace updates gives equal bytes"
    F5 "a run beyond the namespace's version is not writable here"
    G1 "a batch is immutable and common ancestors lie on batch ends"
    G2 "equal ids with different chain values are a fork, and branch order is total"
    G3 "equal runs have equal digests in all regions"
    H1 "nothing that decides depends on wall time between regions"
    H2 "event times never fall along a branch"
    V01 "on every branch ids run from 1 without gap and versions never fall"
    V02 "an event of a run, id and version has one content everywhere"
    V03 "all events of a batch share one version"
    V04 "the current branch is the greatest branch"
    V05 "mutable state is the fold of the current branch in every region"
    V06 "at most one run of a workflow id is open, and it holds the id"
    V07 "the current record names the greatest run"
    V08 "a zombie never holds the workflow id"
    V09 "with links up and queues empty all regions agree"
    V10 "every acknowledged external event survives in the current chain or in a record that says why not"
    V11 "no re-applied event appears twice"
    V12 "a region never writes under a version of another region"
    V13 "failover versions of a namespace never fall, and equal versions mean one active region"
    V14 "a committed write is in the log that peers read"
    V15 "an acknowledged position has every entry before it applied, known or recorded"
    V16 "after a failover everything that is due makes progress by itself"
    V17 "a passive region has no effects outside"
    V18 "a graceful hand-over loses nothing"
    V19 "an entry applied twice, or late, changes nothing"
    V20 "a losing branch is readable and changes only by its own remaining events"
}

impl fmt::Display for LawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.sentence())
    }
}

/// Does a law hold here? `law!(LawId::V08, condition, "details {}", value)` is `condition`; a debug build stops when it is
/// false. The caller counts a `false` by law and refuses to go on.
#[macro_export]
macro_rules! law {
    ($law:expr, $condition:expr, $($details:tt)+) => {{
        let holds: bool = $condition;
        ::core::debug_assert!(
            holds,
            "law broken: {}: {}",
            $law,
            ::core::format_args!($($details)+)
        );
        $crate::law::holds(holds)
    }};
}

/// Passes an answer on; exists so that nobody drops it.
#[must_use]
pub fn holds(holds: bool) -> bool {
    holds
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_catalogue_is_complete_and_every_sentence_is_its_own() {
        let sentences: BTreeSet<_> = LawId::ALL.iter().map(|law| law.sentence()).collect();
        assert_eq!(sentences.len(), LawId::ALL.len());
        let count = |letter: char| LawId::ALL.iter().filter(|law| law.name().starts_with(letter)).count();
        let expected =
            [('A', 10), ('B', 9), ('C', 9), ('D', 6), ('E', 4), ('F', 5), ('G', 3), ('H', 2), ('V', 20)];
        for (letter, number) in expected {
            assert_eq!(count(letter), number, "{letter}");
        }
        assert_eq!(LawId::V08.to_string(), "V08 a zombie never holds the workflow id");
    }

    #[test]
    fn a_law_that_holds_is_true() {
        assert!(law!(LawId::V01, 1 + 1 == 2, "of {}", 2));
        assert!(!holds(false));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "law broken: V01 on every branch")]
    fn a_broken_law_stops_a_debug_build() {
        let _ = law!(LawId::V01, LawId::ALL.is_empty(), "details");
    }
}
