//! What a campaign must have been through before its silence means anything: which interesting states, and how much of what
//! matters, in which profile, with how many regions and seeds. Measured over 3,000 seeds of `all` with 3 regions, 1,000 with 2 and with 5,
//! and 500 of each other profile with 2, 3 and 5: in which share of the seeds a state is reached, less two standard deviations. It is
//! demanded from so many seeds on (100, 300, 1,000, 3,000) that a campaign misses it by chance less than once in a million times, so all of them together
//! less than once in ten thousand.

use crate::{
    engine::seen::State,
    generate::{Options, Profile},
};

/// Seeds below which nothing is expected: a state that so few did not reach says nothing.
pub const SEEDS: u64 = 100;

/// Steps a seed below which nothing is expected.
pub const STEPS: u64 = 2_000;

/// A row: the state, in which profiles it is expected, in the order of [`Profile::ALL`] (all, calm, hand-over, partition, store,
/// clock, restore, retention), and why not in the others. `2` stands for "with two regions or more", `2-3` for "with two or
/// three" (with more it comes too rarely), `2-3/300` for "in 300 seeds or more", `-` for "not expected".
type Row = (State, &'static str, &'static str);

const UNFORCED: &str = "nothing branches where nothing is forced";
const CALM: &str = "where nothing fails nothing is done again";
const STORE: &str = "commits fail in no other profile";
const ALWAYS: &str = "";

/// The table.
const TABLE: &[Row] = &[
    (State::Branched, "2 - - 2 2 2 2 2/300", UNFORCED),
    (State::ThreeBranches, "2 - - 2 2/300 2 2 2-3/1000", UNFORCED),
    (State::Switched, "2 - - 2 2 2 2 2/300", UNFORCED),
    (State::OwnBranchLost, "2 - - 2 2 2 2 2/300", UNFORCED),
    (State::LoserExtended, "2 - - 2 2 2 2 2/300", UNFORCED),
    (
        State::Zombie,
        "2 - - 2 2 2 2 2",
        "where nothing is forced only in passing: a start overtakes the close before it",
    ),
    (State::ZombieRevived, "2 - - 2 2 2 2 2-3/300", UNFORCED),
    (State::TwoRuns, "2 - - 2 2 2 2 2-3", UNFORCED),
    (State::Reapplied, "2 - - 2 2 2 2 2/1000", UNFORCED),
    (State::ReappliedLater, "2 - - 2 2 2 2 2-3", UNFORCED),
    (State::Unclaimed, "2 - - 2 2 2 2 2/1000", UNFORCED),
    (State::NeedEvents, "3 - 3 2/300 3 2/300 3 3", "where nothing is lost or relayed only by a tie"),
    (
        State::SuccessorFirst,
        "3/300 - 3/300 3/300 3/300 3/300 3 3/300",
        "where nothing is lost or relayed only by a tie",
    ),
    (State::Duplicate, "2 3 2 2 2 2 2 2", ALWAYS),
    (State::StreamBroke, "2 - 2 2 2 2 2 2", CALM),
    (State::Corrupted, "2 - 2 2 2 2 2 2", CALM),
    (State::Changed, "2 - 2/300 2 2/300 2 2 2", CALM),
    (State::Quarantined, "2 - 2/300 2 2/300 2 2 2", CALM),
    (State::Replayed, "2 - 2/300 2 2/300 2 2 2", CALM),
    (State::CommitRejected, "1 - 1 - 1 - - 1", STORE),
    (State::UnknownLost, "1 - 1 - 1 - - 1", STORE),
    (State::UnknownWritten, "1 - 1 - 1 - - 1", STORE),
    (State::CrashInCommit, "1 - 1 - 1 - 1 1", "no region dies in the other profiles"),
    (State::TornTail, "1-3 - 1/300 - 1 - 1/1000 1-3", "no region dies in the other profiles"),
    (State::Upgraded, "1 - 1 - 1 - 1 1/300", "no region starts again in the other profiles"),
    (
        State::CrashDraining,
        "2/1000 - 2/300 - 2/1000 - 2-3/1000 2/1000",
        "no region dies in the other profiles",
    ),
    (State::SplitBrain, "2 - - 2 2 2 2 2", "two are active only when one is forced"),
    (State::NobodyActive, "2 2 2 2 2 2 2 2", ALWAYS),
    (
        State::DrainUndone,
        "2/1000 - 2 - 2-3/1000 2-3/300 2-3/10000 2/1000",
        "a hand-over without faults comes to its end; with forces it is overtaken",
    ),
    (State::HandedOver, "2 2 2 2 2/300 2 2 2", ALWAYS),
    (State::SkewRefused, "2 - - - - 2 - -", "clocks are off in no other profile"),
    (State::SkewWarned, "2/300 - - - - 2 - -", "clocks are off in no other profile"),
    (
        State::ReleasedAndForced,
        "2-3/3000 - - 2-3/1000 - 2-3/1000 - 2-3/10000",
        "it needs a force within milliseconds of a release: elsewhere too rare",
    ),
    (State::ForcedBlind, "2 - - 2 2 2 2 2", "nothing is forced"),
    (
        State::Failback,
        "1 2 - 1 1/300 1 1/300 1-3/300",
        "hand-overs under faults take longer than ten seconds",
    ),
    (State::TwoForces, "2 - - 2 2 2 2 2/1000", "nothing is forced"),
    (
        State::RecordOvertaken,
        "2/300 - - 2 3/1000 2/300 2/300 2-3/1000",
        "a hand-over waits for its record to arrive",
    ),
    (State::HeldCall, "2 2 2 2 2/300 2 2/300 2/300", ALWAYS),
    (State::ForwardedCall, "2 2 2 2 2 2 2 2", ALWAYS),
    (State::Retried, "1 - 1 1 1 1 1 1", CALM),
    (State::RetriedElsewhere, "2 2 2 2 2 2 2 2", ALWAYS),
    (State::GaveUp, "1 - 1 - 1 - 1/300 1", "in the other profiles somebody always answers in the end"),
    (State::StaleTask, "1 1 1 1 1 1 1 1/300", ALWAYS),
    (State::TransientTask, "1/300 - 1/300 1/300 1/300 1 1/300 1-3", CALM),
    (State::StickyBroken, "1 1 1 1 1 1 1 1", ALWAYS),
    (State::ActivityRetried, "1 1 1 1 1 1 1 1", ALWAYS),
    (State::Continued, "1 1 1 1 1 1 1 1", ALWAYS),
    (State::ClockJumped, "1 - - - - 1 - 1", "clocks jump in no other profile"),
    (
        State::Restored,
        "- - - - - - 1 -",
        "stores come back from a backup in no other profile; in `all` in one seed of twenty",
    ),
    (
        State::Relayed,
        "3 - 3 3-3/1000 3 3-3/300 3 3",
        "without faults each region hears everything from whoever wrote it",
    ),
    (
        State::MembersChanged,
        "- - - - - - - -",
        "members do not change at random: a region that joins needs a seed (C9), which is not built; scenarios reach it",
    ),
    (State::RetentionWaited, "2/1000 - - - - - - 2", "retention lasts for days in the other profiles"),
    (State::RetentionDeleted, "1/300 - - - - - - 1", "retention lasts for days in the other profiles"),
    (State::OutlivedRetention, "2-3/300 - - - - - - 2", "retention lasts for days in the other profiles"),
    (
        State::LateDuplicate,
        "- - - - - - - 2/1000",
        "retention lasts for days in the other profiles, in `all` in one seed of ten",
    ),
    (
        State::Resurrected,
        "- - - - - - - -",
        "it needs a region that forks a run after all others deleted it: once in a thousand seeds; a scenario reaches it",
    ),
];

/// Acknowledged calls, failovers that took effect and divergences, at least, in a hundred seeds: about half of what the fewest of
/// the measured hundreds had, of two regions or more; one region alone has nobody to fail over to or to diverge from.
fn minima_of(profile: Profile) -> [u64; 3] {
    match profile {
        Profile::All => [2_000, 150, 500],
        // Nothing is forced, so nothing diverges.
        Profile::Calm => [2_000, 100, 0],
        Profile::HandOver => [2_000, 25, 0],
        Profile::Partition => [2_000, 250, 1_000],
        Profile::Store => [2_000, 100, 300],
        Profile::Clock => [2_000, 150, 800],
        Profile::Restore => [2_000, 100, 800],
        Profile::Retention => [600, 75, 50],
    }
}

/// What is counted against [`minima`].
pub const COUNTED: [&str; 3] = ["acknowledged calls", "failovers that took effect", "divergences"];

/// The least of each of [`COUNTED`] in a hundred seeds.
#[must_use]
pub fn minima(options: &Options) -> [u64; 3] {
    let [acknowledged, failovers, divergences] = minima_of(options.profile);
    if options.regions < 2 { [acknowledged, 0, 0] } else { [acknowledged, failovers, divergences] }
}

/// Why nothing can be expected of so few seeds or steps; none: something can.
#[must_use]
pub fn too_little(options: &Options, seeds: u64) -> Option<String> {
    if seeds < SEEDS {
        return Some(format!(
            "{seeds} seeds are fewer than {SEEDS}: that they did not reach a state says nothing"
        ));
    }
    (options.steps < STEPS).then(|| {
        format!(
            "{} steps a seed are fewer than {STEPS}: that they did not reach a state says nothing",
            options.steps
        )
    })
}

/// Must so many seeds reach a state?
#[must_use]
pub fn is_expected(state: State, options: &Options, seeds: u64) -> bool {
    cell(state, options.profile)
        .is_some_and(|cell| options.regions >= cell.from && options.regions <= cell.to && seeds >= cell.seeds)
}

/// Why a state is not expected in some profiles.
#[must_use]
pub fn why_not(state: State) -> &'static str {
    TABLE.iter().find(|(of, _, _)| *of == state).map_or("", |(_, _, why)| why)
}

/// Where a state is expected in one profile.
struct Cell {
    from: usize,
    to: usize,
    seeds: u64,
}

fn cell(state: State, profile: Profile) -> Option<Cell> {
    let (_, cells, _) = TABLE.iter().find(|(of, _, _)| *of == state)?;
    let column = Profile::ALL.iter().position(|of| *of == profile)?;
    parse(cells.split_whitespace().nth(column)?).ok().flatten()
}

/// A cell of the table; an error is a word that is none.
fn parse(text: &str) -> Result<Option<Cell>, std::num::ParseIntError> {
    if text == "-" {
        return Ok(None);
    }
    let (regions, seeds) =
        text.split_once('/').map_or((text, None), |(regions, seeds)| (regions, Some(seeds)));
    let (from, to) = regions.split_once('-').map_or((regions, None), |(from, to)| (from, Some(to)));
    Ok(Some(Cell {
        from: from.parse()?,
        to: to.map_or(Ok(usize::MAX), str::parse)?,
        seeds: seeds.map_or(Ok(SEEDS), str::parse)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(profile: Profile, regions: usize) -> Options {
        Options { regions, profile, ..Options::default() }
    }

    /// Each state has one row, with a cell for each profile; where one is empty the row says why.
    #[test]
    fn the_table_is_whole() {
        for state in State::ALL {
            let rows: Vec<_> = TABLE.iter().filter(|(of, _, _)| of == state).collect();
            assert_eq!(rows.len(), 1, "{}", state.name());
            let cells: Vec<_> = rows[0].1.split_whitespace().collect();
            assert_eq!(cells.len(), Profile::ALL.len(), "{}", state.name());
            for cell in &cells {
                let parsed = parse(cell);
                assert!(parsed.is_ok(), "{}: {cell}", state.name());
                let Ok(Some(parsed)) = parsed else { continue };
                assert!(
                    (1..=5).contains(&parsed.from) && parsed.from <= parsed.to && parsed.seeds >= SEEDS,
                    "{}: {cell}",
                    state.name()
                );
            }
            assert_eq!(cells.contains(&"-"), !why_not(*state).is_empty(), "{}", state.name());
        }
    }

    #[test]
    fn what_is_expected_depends_on_profile_regions_and_seeds() {
        for (state, profile, regions, seeds, expected) in [
            (State::Branched, Profile::All, 1, 100, false),
            (State::Branched, Profile::All, 2, 100, true),
            (State::Branched, Profile::Partition, 5, 100, true),
            (State::Branched, Profile::Calm, 3, 2_000, false),
            (State::Relayed, Profile::Partition, 3, 1_000, true),
            (State::Relayed, Profile::Partition, 5, 100, false),
            (State::ReleasedAndForced, Profile::All, 3, 100, false),
            (State::ReleasedAndForced, Profile::All, 3, 3_000, true),
            (State::DrainUndone, Profile::All, 3, 100, false),
            (State::DrainUndone, Profile::All, 3, 1_000, true),
            (State::DrainUndone, Profile::HandOver, 3, 100, true),
            (State::Restored, Profile::Restore, 1, 100, true),
            (State::Restored, Profile::All, 3, 2_000, false),
            (State::MembersChanged, Profile::All, 3, 2_000, false),
        ] {
            let found = is_expected(state, &options(profile, regions), seeds);
            assert_eq!(found, expected, "{} {} {regions} {seeds}", state.name(), profile.name());
        }
    }

    #[test]
    fn one_region_has_nobody_to_diverge_from() {
        assert_eq!(minima(&options(Profile::All, 1)), [2_000, 0, 0]);
        assert_eq!(minima(&options(Profile::HandOver, 3)), [2_000, 25, 0]);
    }
}
