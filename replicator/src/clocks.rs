//! Whether the clocks of two regions agree well enough for a hand-over (H2). Nothing between regions is decided by a clock, and
//! still the runs of a namespace carry deadlines: a target whose clock is ahead by minutes times out what is under way, one that is
//! behind lets it hang. A graceful hand-over can wait until somebody sets the clock; a forced failover cannot, and asks none. Pure.

use std::fmt;

use antipode_core::ids::{Nanos, Timestamp};

/// Clocks that differ by more are told with the answer of a hand-over.
pub const WARN_ABOVE: Nanos = Nanos::seconds(1);
/// Between clocks that differ by more no namespace is handed over.
pub const REFUSE_ABOVE: Nanos = Nanos::seconds(30);

/// How far the clock of another region is from ours, as one question and its answer measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// How far the other's clock is ahead of ours; negative: behind.
    pub ahead: Nanos,
    /// The true value may lie so far to either side: half of the time between question and answer.
    pub within: Nanos,
}

/// What a skew means for a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Agree,
    /// It goes on, and says so.
    Warn,
    /// It is not begun.
    Refuse,
}

impl Skew {
    /// We asked, the other read its clock, and we had the answer. Of the way there and the way back only the sum is known: what the
    /// other read is held against the middle.
    #[must_use]
    pub fn measured(asked: Timestamp, theirs: Timestamp, answered: Timestamp) -> Self {
        // A clock that was set back meanwhile says nothing about how long it took.
        let half = answered.0.saturating_sub(asked.0).max(0) / 2;
        let ours = asked.0.saturating_add(half);
        Self { ahead: Nanos(theirs.0.saturating_sub(ours)), within: Nanos(half) }
    }

    /// H2: above a second it is told, above thirty the hand-over is refused, whichever of the two is ahead.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self.ahead.0.unsigned_abs() {
            off if off > REFUSE_ABOVE.0.unsigned_abs() => Verdict::Refuse,
            off if off > WARN_ABOVE.0.unsigned_abs() => Verdict::Warn,
            _ => Verdict::Agree,
        }
    }

    /// The other's clock is behind ours by at most so much, so that what it started passes here so much too early; 0: it is not behind.
    #[must_use]
    pub fn behind(self) -> Nanos {
        Nanos(self.within.0.saturating_sub(self.ahead.0).max(0))
    }

    /// In words, for these two regions.
    #[must_use]
    pub fn between<'a>(self, here: &'a str, other: &'a str) -> Words<'a> {
        Words { skew: self, here, other }
    }
}

/// A skew between two named regions, in words.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    skew: Skew,
    here: &'a str,
    other: &'a str,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { skew, here, other } = self;
        let way = if skew.ahead.0 < 0 { "behind" } else { "ahead of" };
        let off = Nanos(skew.ahead.0.saturating_abs());
        write!(f, "the clock of {other} is {} s {way} that of {here}", Seconds(off))?;
        write!(f, " (clock skew, measured to {} s)", Seconds(skew.within))
    }
}

/// Seconds with three digits, rounded up: what is above a limit shows as above it.
struct Seconds(Nanos);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.0.unsigned_abs().div_ceil(1_000_000);
        write!(f, "{}.{:03}", millis / 1_000, millis % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skew(nanos: i64) -> Skew {
        Skew { ahead: Nanos(nanos), within: Nanos(0) }
    }

    /// (how far the other's clock is ahead in nanoseconds, what follows)
    #[test]
    fn the_limits_are_exact_and_count_both_ways() {
        const SECOND: i64 = 1_000_000_000;
        let table = [
            (0, Verdict::Agree),
            (SECOND - 1, Verdict::Agree),
            (SECOND, Verdict::Agree),
            (SECOND + 1, Verdict::Warn),
            (30 * SECOND - 1, Verdict::Warn),
            (30 * SECOND, Verdict::Warn),
            (30 * SECOND + 1, Verdict::Refuse),
            (365 * 86_400 * SECOND, Verdict::Refuse),
            (i64::MAX, Verdict::Refuse),
        ];
        for (nanos, verdict) in table {
            assert_eq!(skew(nanos).verdict(), verdict, "{nanos} ahead");
            assert_eq!(skew(-nanos).verdict(), verdict, "{nanos} behind");
        }
        assert_eq!(skew(i64::MIN).verdict(), Verdict::Refuse);
    }

    #[test]
    fn what_is_not_certain_counts_as_behind() {
        for (ahead, within, behind) in [
            (0, 0, 0),
            (-5, 0, 5),
            (5, 0, 0),
            (-5, 2, 7),
            (5, 2, 0),
            (1, 2, 1),
            (i64::MIN, 1, i64::MAX),
            (i64::MAX, i64::MAX, 0),
        ] {
            let skew = Skew { ahead: Nanos(ahead), within: Nanos(within) };
            assert_eq!(skew.behind(), Nanos(behind), "{skew:?}");
        }
    }

    /// (asked, theirs, answered, ahead, within)
    #[test]
    fn what_the_other_read_is_held_against_the_middle() {
        for (asked, theirs, answered, ahead, within) in [
            (100, 100, 100, 0, 0),
            (100, 150, 200, 0, 50),
            (100, 100, 200, -50, 50),
            (100, 200, 200, 50, 50),
            (100, 70, 101, -30, 0),
            // Our clock was set back while the answer was on its way.
            (100, 120, 40, 20, 0),
            (i64::MIN, i64::MAX, i64::MAX, 0, i64::MAX / 2),
        ] {
            let measured = Skew::measured(Timestamp(asked), Timestamp(theirs), Timestamp(answered));
            if asked == i64::MIN {
                // No overflow; what it says of such clocks does not matter.
                assert_eq!(measured.verdict(), Verdict::Refuse);
            } else {
                let expected = Skew { ahead: Nanos(ahead), within: Nanos(within) };
                assert_eq!(measured, expected, "{asked} {theirs} {answered}");
            }
        }
    }

    #[test]
    fn words_name_the_regions_the_figure_and_how_sure_it_is() {
        let words = |ahead, within| {
            Skew { ahead: Nanos(ahead), within: Nanos(within) }.between("east", "west").to_string()
        };
        assert_eq!(
            words(-40_000_000_000, 1_500_000),
            "the clock of west is 40.000 s behind that of east (clock skew, measured to 0.002 s)"
        );
        assert_eq!(
            words(30_000_000_001, 0),
            "the clock of west is 30.001 s ahead of that of east (clock skew, measured to 0.000 s)"
        );
    }
}
