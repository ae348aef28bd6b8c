//! Failover-version arithmetic (R100–R112). A version says which region wrote, and in which turn: its residue modulo the
//! increment is the region's initial version. Versions order everything between regions; wall clocks order nothing.

use crate::ids::{FailoverVersion, RegionId};

/// The shared distance between two versions of one region (R103). At least 2, at most 2^31-1 (R115).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Increment(u32);

/// Why no version can be minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Versions start at 0 (R100).
    #[error("failover version {0} is negative")]
    Negative(FailoverVersion),
    /// No larger number of this residue class exists.
    #[error("failover versions of region {0} are used up")]
    Exhausted(RegionId),
    /// The initial version must lie between 0 and the increment (R103).
    #[error("region {0} has no residue class: its initial version is not between 0 and the increment")]
    NoClass(RegionId),
}

impl Increment {
    /// The usual increment; also the most regions a set-up can ever have, plus one.
    pub const DEFAULT: Self = Self(10);

    /// An increment, unless out of range (R115).
    #[must_use]
    pub fn new(value: u32) -> Option<Self> {
        (value >= 2 && i32::try_from(value).is_ok()).then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Is there a residue class for this region (R103)?
    #[must_use]
    pub fn has_class(self, region: RegionId) -> bool {
        region.0 > 0 && region.0 < self.0
    }

    /// The smallest version ≥ `current` of the region's class. Equality keeps it: a failover to the region that is already
    /// active changes nothing (R104).
    ///
    /// # Errors
    /// [`MintError`] when there is no such number.
    pub fn next(self, region: RegionId, current: FailoverVersion) -> Result<FailoverVersion, MintError> {
        if current.0 < 0 {
            return Err(MintError::Negative(current));
        }
        if !self.has_class(region) {
            return Err(MintError::NoClass(region));
        }
        let (increment, initial) = (i64::from(self.0), i64::from(region.0));
        let turn = current.0 - current.0 % increment;
        let candidate = turn.checked_add(initial).ok_or(MintError::Exhausted(region))?;
        let version = if candidate < current.0 {
            candidate.checked_add(increment).ok_or(MintError::Exhausted(region))?
        } else {
            candidate
        };
        Ok(FailoverVersion(version))
    }

    /// The smallest version of the region's class that exceeds `seen_max`: what force and a restored store mint (F3, E2).
    ///
    /// # Errors
    /// [`MintError`] when there is no such number.
    pub fn next_above(
        self,
        region: RegionId,
        seen_max: FailoverVersion,
    ) -> Result<FailoverVersion, MintError> {
        let above = seen_max.0.checked_add(1).ok_or(MintError::Exhausted(region))?;
        self.next(region, FailoverVersion(above))
    }

    /// The class of a version; none for 0, negative numbers and multiples of the increment, which nobody owns (R105, R106).
    #[must_use]
    pub fn class(self, version: FailoverVersion) -> Option<RegionId> {
        if version.0 <= 0 {
            return None;
        }
        let residue = u32::try_from(version.0 % i64::from(self.0)).ok()?;
        (residue != 0).then_some(RegionId(residue))
    }

    /// Were both versions minted by one region (R107)?
    #[must_use]
    pub fn same_region(self, a: FailoverVersion, b: FailoverVersion) -> bool {
        // The difference of two extreme values may not fit; remainders always do.
        let increment = i64::from(self.0);
        a.0.rem_euclid(increment) == b.0.rem_euclid(increment)
    }
}

impl FailoverVersion {
    /// "Local, nobody's" (R100, R101).
    pub const LOCAL: Self = Self(0);

    /// Written in a local namespace, or before its promotion.
    #[must_use]
    pub fn is_local(self) -> bool {
        self == Self::LOCAL
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: RegionId = RegionId(1);
    const B: RegionId = RegionId(2);
    const C: RegionId = RegionId(3);

    fn next(region: RegionId, current: i64) -> i64 {
        Increment::DEFAULT.next(region, FailoverVersion(current)).unwrap().0
    }

    #[test]
    fn minting_follows_the_documented_examples() {
        // R104; EX1: namespaces alpha and beta; EX2: two regions mint from 3; EX3: promotion.
        for (region, current, expected) in [
            (A, 0, 1),
            (B, 0, 2),
            (B, 1, 2),
            (A, 2, 11),
            (B, 2, 2),
            (B, 11, 12),
            (A, 12, 21),
            (A, 3, 11),
            (B, 3, 12),
            (C, 3, 3),
            (C, 4, 13),
            (A, 9, 11),
            (A, 10, 11),
            (A, 11, 11),
            (RegionId(9), 9, 9),
            (RegionId(9), 10, 19),
        ] {
            assert_eq!(next(region, current), expected, "next({region}, {current})");
        }
    }

    #[test]
    fn three_regions_and_other_increments() {
        // R104: A -> B -> A -> C -> A.
        let mut version = next(A, 0);
        let mut seen = vec![version];
        for region in [B, A, C, A] {
            version = next(region, version);
            seen.push(version);
        }
        assert_eq!(seen, [1, 2, 11, 13, 21]);
        // Increment 100, as EX11 counts.
        let hundred = Increment::new(100).unwrap();
        assert_eq!(hundred.next(B, FailoverVersion(102)), Ok(FailoverVersion(102)));
        assert_eq!(hundred.next(B, FailoverVersion(103)), Ok(FailoverVersion(202)));
    }

    #[test]
    fn force_never_keeps_a_version() {
        // F3: the record is really 21@A while B still knows 2@B.
        let force = |region, seen| Increment::DEFAULT.next_above(region, FailoverVersion(seen));
        assert_eq!(force(B, 2), Ok(FailoverVersion(12)));
        assert_eq!(force(B, 21), Ok(FailoverVersion(22)));
        assert_eq!(force(B, 12), Ok(FailoverVersion(22)));
    }

    #[test]
    fn bad_input_is_an_error_and_not_a_panic() {
        let ten = Increment::DEFAULT;
        assert_eq!(ten.next(A, FailoverVersion(-1)), Err(MintError::Negative(FailoverVersion(-1))));
        for region in [RegionId(0), RegionId(10), RegionId(11)] {
            assert_eq!(ten.next(region, FailoverVersion(1)), Err(MintError::NoClass(region)));
        }
        assert_eq!(ten.next(A, FailoverVersion(i64::MAX)), Err(MintError::Exhausted(A)));
        assert_eq!(ten.next_above(A, FailoverVersion(i64::MAX)), Err(MintError::Exhausted(A)));
        assert_eq!(Increment::new(0), None);
        assert_eq!(Increment::new(1), None);
        assert_eq!(Increment::new(1 << 31), None);
        assert!(Increment::new((1 << 31) - 1).is_some());
    }

    #[test]
    fn classes_and_sameness() {
        // R105-R107
        let class = |version| Increment::DEFAULT.class(FailoverVersion(version));
        assert_eq!(class(0), None);
        assert_eq!(class(10), None);
        assert_eq!(class(-9), None);
        assert_eq!(class(1), Some(A));
        assert_eq!(class(22), Some(B));
        assert_eq!(class(7), Some(RegionId(7)));
        let same = |a, b| Increment::DEFAULT.same_region(FailoverVersion(a), FailoverVersion(b));
        assert!(same(1, 21) && same(22, 2) && same(5, 5));
        assert!(!same(1, 2) && !same(11, 12) && !same(i64::MAX, -1));
    }

    proptest! {
        #[test]
        fn next_is_the_smallest_of_its_class(
            increment in 2u32..1000, initial in 1u32..1000, current in 0i64..1_000_000,
        ) {
            prop_assume!(initial < increment);
            let (increment, region) = (Increment::new(increment).unwrap(), RegionId(initial));
            let current = FailoverVersion(current);
            let version = increment.next(region, current).unwrap();
            prop_assert!(version >= current);
            prop_assert!(version.0 - current.0 < i64::from(increment.get()));
            prop_assert_eq!(increment.class(version), Some(region));
            prop_assert_eq!(increment.next(region, version), Ok(version));
            prop_assert!(increment.next_above(region, current).unwrap() > current);
        }
    }
}
