//! From which version each version of the namespace was minted, and whether its owner was asked. What a client was told under a
//! version must stand as long as that version was only handed on. A forced step leaves behind what stood before it; what stands
//! beside the way to the last version lost to it, and outranks what was written on that way under lower versions (B1, B7).
//! Derived from the mints alone, not from what a region says of them.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::ids::FailoverVersion;

/// A version came into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mint {
    /// The version that the region believed in.
    from: FailoverVersion,
    /// Without asking the owner of that one.
    forced: bool,
}

/// The mints of the namespace. A store that was put back in time may mint a version a second time, from another one (G2).
#[derive(Debug, Default)]
pub(super) struct Lineage(BTreeMap<FailoverVersion, BTreeSet<Mint>>);

impl Lineage {
    /// A region mints a version while it believes in another one.
    pub(super) fn minted(&mut self, version: FailoverVersion, from: FailoverVersion, forced: bool) {
        self.0.entry(version).or_default().insert(Mint { from, forced });
    }

    /// May what was taken under a version have lost by force, now that `last` is the version that holds? A forced step stands after
    /// it on the way to `last`, or it is beside that way, or a version beside the way outranks it: two versions are minted from
    /// one only when somebody was not asked.
    pub(super) fn lost(&self, version: FailoverVersion, last: FailoverVersion) -> bool {
        let beside = || !self.back(last, |mint| !mint.forced).contains(&version);
        self.knows(version) && (beside() || self.outranked(version, last) || self.minted_again(version))
    }

    /// Was this version or a greater one minted again, by a store that was put back in time and knew of nothing after this one, or less (G2)? What
    /// it wrote may outrank this one too.
    fn minted_again(&self, version: FailoverVersion) -> bool {
        let before = self.back(version, |_| true);
        let again = self.0.iter().filter(|(other, mints)| **other >= version && mints.len() > 1);
        again.flat_map(|(_, mints)| mints).any(|mint| mint.forced && before.contains(&mint.from))
    }

    /// Is there a greater version beside the way to the last one?
    fn outranked(&self, version: FailoverVersion, last: FailoverVersion) -> bool {
        let way = self.back(last, |_| true);
        self.0.keys().any(|other| *other > version && !way.contains(other))
    }

    fn knows(&self, version: FailoverVersion) -> bool {
        self.0.contains_key(&version) || self.0.values().flatten().any(|mint| mint.from == version)
    }

    /// A version and what it was minted from, step by step, by such mints.
    fn back(&self, last: FailoverVersion, by: impl Fn(&Mint) -> bool) -> BTreeSet<FailoverVersion> {
        let mut found = BTreeSet::new();
        let mut next = vec![last];
        while let Some(version) = next.pop() {
            let mints = self.0.get(&version).into_iter().flatten();
            if found.insert(version) {
                next.extend(mints.filter(|mint| by(mint)).map(|mint| mint.from));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minted, from, forced.
    fn lineage(mints: &[(i64, i64, bool)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (version, from, forced) in mints {
            lineage.minted(FailoverVersion(*version), FailoverVersion(*from), *forced);
        }
        lineage
    }

    /// Which of these versions are lost when the greatest one holds.
    fn lost(mints: &[(i64, i64, bool)], of: &[i64]) -> Vec<i64> {
        let last = mints.iter().map(|mint| mint.0).max().unwrap_or(1);
        let lineage = lineage(mints);
        let lost = |version: &i64| lineage.lost(FailoverVersion(*version), FailoverVersion(last));
        of.iter().copied().filter(lost).collect()
    }

    const NONE: [i64; 0] = [];

    #[test]
    fn what_was_handed_on_is_not_lost() {
        assert_eq!(lost(&[], &[1]), NONE, "nothing was ever minted");
        assert_eq!(lost(&[(2, 1, false), (11, 2, false), (13, 11, false)], &[1, 2, 11, 13]), NONE);
        assert_eq!(lost(&[(1, 0, false), (2, 1, false)], &[0, 1, 2]), NONE, "promoted");
    }

    #[test]
    fn a_forced_step_loses_what_stood_before_it_and_nothing_after() {
        let mints = [(2, 1, false), (11, 2, true), (13, 11, false), (21, 13, false)];
        assert_eq!(lost(&mints, &[1, 2, 11, 13, 21]), [1, 2]);
        assert_eq!(lost(&[(11, 1, true)], &[1, 11]), [1], "the forced version itself holds");
    }

    #[test]
    fn what_is_beside_the_way_to_the_last_version_is_lost_though_nothing_was_forced_after_it() {
        // West is forced blind at 12 after the release to north, which mints 13 from 1; 12 outranks what was written under 1.
        let mints = [(12, 1, true), (13, 1, false), (21, 13, false)];
        assert_eq!(lost(&mints, &[1, 12, 13, 21]), [1, 12]);
        // East is forced at 11, north at 3, and north hands over to west, at 12; 11 outranks what was written under 3.
        let mints = [(11, 1, true), (3, 1, true), (12, 3, false), (21, 12, false)];
        assert_eq!(lost(&mints, &[1, 3, 11, 12, 21]), [1, 3, 11]);
    }

    #[test]
    fn a_forced_version_beside_the_way_loses_nothing_above_it() {
        let mints = [(11, 1, false), (3, 1, true), (12, 11, false)];
        assert_eq!(lost(&mints, &[1, 3, 11, 12]), [1, 3], "3 was forced by a region that knew nothing of 11");
        // What went on beside the way counts as well: 3 was handed on there, as 22.
        let mints = [(11, 1, false), (3, 1, true), (22, 3, false), (31, 11, false)];
        assert_eq!(lost(&mints, &[1, 3, 11, 22, 31]), [1, 3, 11, 22]);
    }

    #[test]
    fn a_version_that_nobody_minted_is_no_excuse() {
        assert_eq!(lost(&[(11, 1, true)], &[5, 7]), NONE);
    }

    #[test]
    fn a_version_minted_twice_loses_what_either_mint_leaves_behind() {
        // It was handed on as 11 and 12, and a store from the time of version 1 mints 11 once more.
        let mints = [(2, 1, false), (11, 1, true), (11, 2, false), (12, 11, false)];
        assert_eq!(lost(&mints, &[1, 2, 11, 12]), [1, 2, 11], "of 11 there are two");
        assert_eq!(lost(&[(11, 1, true), (11, 2, true), (2, 1, false)], &[1, 2, 11]), [1, 2, 11]);
    }
}
