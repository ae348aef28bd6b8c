//! Which run owns a workflow id (R610–R638, B6, B7): the maximum by (last write version, place), the same everywhere. An open
//! run that is not the maximum is a zombie: it exists, receives replicated events, and nothing else may touch it (R602,
//! V08). Being one is derived from order, never written (A9).

use antipode_core::ids::{RunId, RunOrder};

/// What arbitration needs to know of a run. The tombstone of a deleted run takes part as a closed run, so that the maximum
/// never falls (B6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Run.
    pub run: RunId,
    /// Its order now.
    pub order: RunOrder,
    /// No closing event on its current branch.
    pub open: bool,
}

/// Who owns the workflow id and who does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arbitration {
    /// The owner; none when there is no run.
    pub current: Option<RunFacts>,
    /// Open runs that are not the owner, by falling order.
    pub zombies: Vec<RunId>,
}

impl Arbitration {
    /// Is this run a zombie?
    #[must_use]
    pub fn is_zombie(&self, run: RunId) -> bool {
        self.zombies.contains(&run)
    }

    /// Does this run own the id?
    #[must_use]
    pub fn is_current(&self, run: RunId) -> bool {
        self.current.is_some_and(|current| current.run == run)
    }

    /// Zombies that were not before: their tasks and timers are void from now on (R633, A9).
    #[must_use]
    pub fn suppressed_since(&self, before: &Self) -> Vec<RunId> {
        self.zombies.iter().copied().filter(|&run| !before.is_zombie(run)).collect()
    }

    /// The open owner, when it was a zombie before: its work is derived again (R634).
    #[must_use]
    pub fn revived_since(&self, before: &Self) -> Option<RunId> {
        let current = self.current?;
        (current.open && before.is_zombie(current.run)).then_some(current.run)
    }

    /// Why the owner owns the id, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let Some(current) = self.current else { return "there is no run".to_owned() };
        let (state, order) = (if current.open { "open" } else { "closed" }, current.order);
        let mut words = format!(
            "run {} ({state}) is current: it has the greatest last write version {} and place {}",
            current.run, order.version, order.place
        );
        for zombie in &self.zombies {
            words.push_str(&format!("; run {zombie} is open and older: a zombie"));
        }
        words
    }
}

/// Chooses the owner among all runs of a workflow id.
#[must_use]
pub fn arbitrate(runs: &[RunFacts]) -> Arbitration {
    // Orders of two runs are never equal, unless an owner forked; then the run id decides, so that regions agree.
    let key = |facts: &RunFacts| (facts.order, facts.run);
    let current = runs.iter().copied().max_by_key(key);
    let mut zombies: Vec<_> = runs
        .iter()
        .filter(|facts| facts.open && Some(facts.run) != current.map(|current| current.run))
        .collect();
    zombies.sort_by_key(|facts| std::cmp::Reverse(key(facts)));
    Arbitration { current, zombies: zombies.into_iter().map(|facts| facts.run).collect() }
}

#[cfg(test)]
mod tests {
    use antipode_core::ids::{FailoverVersion, Place};
    use proptest::prelude::*;

    use super::*;

    fn run(number: u8) -> RunId {
        RunId::from_random([number; 16])
    }

    fn facts(number: u8, version: i64, sequence: u64, open: bool) -> RunFacts {
        let order = RunOrder { version: FailoverVersion(version), place: Place { epoch: 1, sequence } };
        RunFacts { run: run(number), order, open }
    }

    #[test]
    fn the_greatest_order_owns_the_id() {
        // R610: version first, then the writer's order; start times are not compared.
        for (runs, current, zombies) in [
            (vec![], None, vec![]),
            (vec![facts(1, 1, 5, true)], Some(1), vec![]),
            // N4: a newer run suppresses the open one.
            (vec![facts(1, 1, 9, true), facts(2, 2, 1, true)], Some(2), vec![1]),
            // N5: an older one arrives and is a zombie at once.
            (vec![facts(2, 2, 1, true), facts(1, 1, 9, true)], Some(2), vec![1]),
            // N3: a closed run gives way to a newer one; a closed older one is no zombie.
            (vec![facts(1, 1, 4, false), facts(2, 1, 5, true)], Some(2), vec![]),
            // A closed run may be the owner while an older one is still open (B5).
            (vec![facts(1, 1, 9, true), facts(2, 2, 1, false)], Some(2), vec![1]),
            (vec![facts(1, 1, 1, true), facts(2, 12, 1, true), facts(3, 11, 7, true)], Some(2), vec![3, 1]),
        ] {
            let result = arbitrate(&runs);
            assert_eq!(result.current.map(|facts| facts.run), current.map(run), "{runs:?}");
            assert_eq!(result.zombies, zombies.into_iter().map(run).collect::<Vec<_>>());
        }
    }

    #[test]
    fn deletion_of_the_maximum_revives_nobody() {
        // B6: the tombstone of run 3 stays in the comparison.
        let zombie = facts(1, 1, 3, true);
        let tombstone = facts(3, 2, 9, false);
        let result = arbitrate(&[zombie, tombstone]);
        assert!(result.is_current(run(3)) && result.is_zombie(run(1)));
    }

    #[test]
    fn a_zombie_revives_by_an_event_that_raises_it() {
        // R636 (i): run 1's branch goes on under version 12 elsewhere.
        let before = arbitrate(&[facts(1, 1, 3, true), facts(2, 2, 9, true)]);
        let after = arbitrate(&[facts(1, 12, 1, true), facts(2, 2, 9, true)]);
        assert_eq!(after.revived_since(&before), Some(run(1)));
        assert_eq!(after.suppressed_since(&before), [run(2)]);
        assert_eq!(after.revived_since(&after), None);
        // It closed instead: nothing to revive (R600).
        let closed = arbitrate(&[facts(1, 12, 1, false), facts(2, 2, 9, true)]);
        assert_eq!(closed.revived_since(&before), None);
    }

    #[test]
    fn successor_arrives_first() {
        // S-zombie of the story: run 2 was stamped after run 1 in the same commit (B7), and run 1 is still open here.
        let result = arbitrate(&[facts(2, 1, 21, true), facts(1, 1, 17, true)]);
        assert!(result.is_current(run(2)) && result.is_zombie(run(1)));
        let complete = arbitrate(&[facts(2, 1, 21, true), facts(1, 1, 20, false)]);
        assert!(complete.is_current(run(2)) && complete.zombies.is_empty());
        assert!(result.words().contains("a zombie"));
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_one_owner(
            facts_of in prop::collection::btree_map(0u8..6, (1i64..4, 1u64..5, any::<bool>()), 1..6)
                .prop_map(|runs| runs.into_iter()
                    .map(|(n, (version, sequence, open))| facts(n, version, sequence, open))
                    .collect::<Vec<_>>())
                .prop_flat_map(|runs| (Just(runs.clone()), Just(runs).prop_shuffle()))
        ) {
            let (a, b) = (arbitrate(&facts_of.0), arbitrate(&facts_of.1));
            prop_assert_eq!(&a, &b);
            // V06, V08: a zombie never holds the id, and every other open run is one.
            let current = a.current.unwrap();
            prop_assert!(!a.is_zombie(current.run));
            for facts in &facts_of.0 {
                prop_assert_eq!(facts.open && facts.run != current.run, a.is_zombie(facts.run));
                prop_assert!(facts.order <= current.order);
            }
        }
    }
}
