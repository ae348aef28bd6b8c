//! How far the clocks of other regions may be behind ours (H2). Deadlines count from the clock of who wrote what starts them; where
//! that one is behind, they pass here before their time, and the active region gives what is under way so much longer. A clock that
//! is ahead needs nothing: what it started passes later here, not earlier.

use std::collections::BTreeMap;

use crate::{
    ids::{FailoverVersion, Nanos, RegionId},
    version::Increment,
};

/// Bounds by region, as links measured them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    increment: Increment,
    behind: BTreeMap<RegionId, Nanos>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self::new(Increment::DEFAULT)
    }
}

impl Clocks {
    /// Nothing is measured yet.
    #[must_use]
    pub fn new(increment: Increment) -> Self {
        Self { increment, behind: BTreeMap::new() }
    }

    /// The clock of this region is behind ours by at most so much. The newest word counts.
    pub fn measured(&mut self, region: RegionId, behind: Nanos) {
        if behind.0 > 0 {
            self.behind.insert(region, behind);
        } else {
            self.behind.remove(&region);
        }
    }

    /// By how much the clock under which something of this version was written may be behind ours; 0 for our own, for one that is
    /// not behind, and for one that nobody measured.
    #[must_use]
    pub fn behind(&self, wrote: FailoverVersion) -> Nanos {
        let region = self.increment.class(wrote);
        region.and_then(|region| self.behind.get(&region)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_of_the_region_that_wrote() {
        let mut clocks = Clocks::new(Increment::DEFAULT);
        let behind = |clocks: &Clocks| [0, 1, 2, 11, 21, 12, 10].map(|v| clocks.behind(FailoverVersion(v)).0);
        assert_eq!(behind(&clocks), [0; 7]);
        clocks.measured(RegionId(1), Nanos(5));
        assert_eq!(behind(&clocks), [0, 5, 0, 5, 5, 0, 0]);
        clocks.measured(RegionId(1), Nanos(3));
        clocks.measured(RegionId(2), Nanos(7));
        assert_eq!(behind(&clocks), [0, 3, 7, 3, 3, 7, 0]);
        clocks.measured(RegionId(1), Nanos(0));
        assert_eq!(behind(&clocks), [0, 0, 7, 0, 0, 7, 0]);
        clocks.measured(RegionId(2), Nanos(-1));
        assert_eq!(clocks, Clocks::default(), "nothing is kept of a clock that is not behind");
        // The class is that of the set-up.
        let mut clocks = Clocks::new(Increment::new(4).unwrap());
        clocks.measured(RegionId(1), Nanos(5));
        assert_eq!([5, 9, 11].map(|version| clocks.behind(FailoverVersion(version)).0), [5, 5, 0]);
    }
}
