//! The parts of a namespace record, each a small lattice: registers that the last stamp wins, a set of regions with observed
//! removal, the failover register and the union of failovers (F1, F4). Every merge is a maximum or a union, so any order of
//! delivery of any set of updates ends in the same value (I08).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::ids::{FailoverVersion, Incarnation, RegionId, Timestamp};

/// Lamport stamp of a change: no wall clock decides between regions (F4, H1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// One more than the greatest that the writer had seen.
    pub counter: u64,
    /// The writer; makes equal counters distinct.
    pub region: RegionId,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.counter, self.region)
    }
}

/// A register that the last stamp wins. Equal stamps with different values, which only a restored store writes, are settled
/// by the values themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lww<T> {
    /// When it was written. First, because the derived order compares it first.
    pub stamp: Stamp,
    /// What.
    pub value: T,
}

impl<T: Ord + Clone> Lww<T> {
    /// A value written at `stamp`.
    pub fn new(value: T, stamp: Stamp) -> Self {
        Self { stamp, value }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other > self {
            *self = other.clone();
        }
    }
}

/// What people say about a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Info {
    /// For readers.
    pub description: String,
    /// Whom to ask.
    pub owner_email: String,
    /// The user's own pairs.
    pub data: BTreeMap<String, String>,
}

/// Settings of a namespace that replicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Config {
    /// How long closed runs are kept, in seconds.
    pub retention_seconds: i64,
}

/// How many peers must have proof of a write before it is acknowledged (E4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durability {
    /// 0 is `local`.
    pub peers: u32,
    /// With too few peers: acknowledge anyway and alarm, instead of failing.
    pub degrade: bool,
}

/// Observed-remove set of regions: one is in while one of its additions is not removed (F4).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Members {
    /// Additions that are not removed, each with a stamp of its own.
    pub(super) added: BTreeSet<(String, Stamp)>,
    /// Stamps of removed additions.
    pub(super) removed: BTreeSet<Stamp>,
}

impl Members {
    pub(super) fn add(&mut self, region: &str, stamp: Stamp) {
        self.added.insert((region.to_owned(), stamp));
    }

    pub(super) fn remove(&mut self, region: &str) {
        self.removed.extend(self.added.iter().filter(|(name, _)| name == region).map(|(_, stamp)| *stamp));
        self.settle();
    }

    /// Drops what is removed, so that equal sets are equal values.
    pub(super) fn settle(&mut self) {
        let removed = &self.removed;
        self.added.retain(|(_, stamp)| !removed.contains(stamp));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.added.extend(other.added.iter().cloned());
        self.removed.extend(other.removed.iter().copied());
        self.settle();
    }

    pub(super) fn contains(&self, region: &str) -> bool {
        self.added.iter().any(|(name, _)| name == region)
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.added.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Where a namespace stands on its way from one region to another (F1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The active region writes.
    Active,
    /// The active region is closing its shards; it may still undo this.
    Draining {
        /// Next active region.
        target: String,
        /// Names the hand-over.
        operation: String,
        /// When the active region gives up, on its own clock.
        deadline: Timestamp,
    },
    /// Irrevocable: nobody writes until the target activates under the version given here, or somebody forces.
    Released {
        /// Next active region.
        target: String,
        /// The version it activates under.
        target_version: FailoverVersion,
        /// Names the hand-over.
        operation: String,
    },
}

impl Phase {
    /// Region that a hand-over under way leads to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Active => None,
            Self::Draining { target, .. } | Self::Released { target, .. } => Some(target),
        }
    }

    /// Name of the hand-over under way.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        match self {
            Self::Active => None,
            Self::Draining { operation, .. } | Self::Released { operation, .. } => Some(operation),
        }
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining { .. } => "draining",
            Self::Released { .. } => "released",
        }
    }
}

/// In place of the life that minted a version: two did. No life is that one, so the owner mints again (G2).
const MINTED_TWICE: Incarnation = Incarnation(u64::MAX);

/// Which life minted one version, of two accounts.
fn joined(one: Incarnation, other: Incarnation) -> Incarnation {
    let unknown = Incarnation::default();
    match (one, other) {
        _ if one == other || other == unknown => one,
        _ if one == unknown => other,
        _ => MINTED_TWICE,
    }
}

/// Who is active, under which version. Ordered by (version, step); only the owner of a version writes steps under it (F1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failover {
    /// Failover version; 0 for a local namespace.
    pub version: FailoverVersion,
    /// Counts the owner's changes under this version.
    pub step: u64,
    /// Owner of the version.
    pub active: String,
    /// Hand-over under way.
    pub phase: Phase,
    /// Life of the owner's store in which the version was minted; 0: not known (E2). A store that is restored to a time before may
    /// mint a version again: who hears of both keeps neither.
    pub life: Incarnation,
}

impl Failover {
    pub(super) fn merge(&mut self, other: &Self) {
        let same = self.version == other.version;
        let life = joined(self.life, other.life);
        if other > self {
            *self = other.clone();
        }
        if same {
            self.life = life;
        }
    }
}

/// One change of the active region. First what two accounts of one version are compared by: the smaller stamp supplies the
/// texts (F4).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When, in the order of changes.
    pub stamp: Stamp,
    /// Active region before; empty at promotion.
    pub from: String,
    /// Active region after.
    pub to: String,
    /// Who asked.
    pub who: String,
    /// And why.
    pub why: String,
    /// Wall time at the region that wrote this; for people.
    pub at: Timestamp,
    /// Without the old region's release.
    pub forced: bool,
    /// How long nobody could write, if known.
    pub unavailable_millis: i64,
    /// Runs that may have lost progress; none: not measured.
    pub predicted_loss_runs: Option<u64>,
    /// Regions that could not be asked for the newest version (F3).
    pub not_asked: BTreeSet<String>,
}

/// Failovers by version: a union.
pub type History = BTreeMap<FailoverVersion, Entry>;

pub(super) fn merge_history(history: &mut History, other: &History) {
    for (version, entry) in other {
        match history.get_mut(version) {
            Some(known) if entry < known => *known = entry.clone(),
            Some(_) => {}
            None => {
                history.insert(*version, entry.clone());
            }
        }
    }
}
