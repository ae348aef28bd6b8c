//! The replicated record of a namespace (R200–R228, F1, F3, F4, I08). Each part merges by itself; the whole is a value whose
//! equality is equality of bytes. Changes are pure functions that return a new record or a named refusal.

mod change;
mod handover;
mod names;
mod registers;
mod wire_form;

use std::collections::BTreeSet;

pub use change::{Act, Refusal};
pub use handover::Forced;
pub use names::resolve_names;
pub use registers::{Config, Durability, Entry, Failover, History, Info, Lww, Members, Phase, Stamp};
pub use wire_form::Malformed;

use crate::{
    ids::{FailoverVersion, Incarnation, NamespaceId, RegionId, Timestamp},
    region::Regions,
};

/// A namespace as its regions agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    id: NamespaceId,
    name: Lww<String>,
    info: Lww<Info>,
    config: Lww<Config>,
    fold: Lww<u32>,
    durability: Lww<Durability>,
    global: bool,
    deleted: bool,
    home: String,
    members: Members,
    failover: Failover,
    history: History,
}

/// What a region may do with a namespace now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Events may be written here, under exactly this version (F5, R111).
    Writable(FailoverVersion),
    /// This region is handing over: calls wait for the outcome (F2).
    HandingOver {
        /// Where to.
        target: String,
        /// When this region gives up; none once released.
        deadline: Option<Timestamp>,
    },
    /// The hand-over to this region is released: it may activate.
    MayActivate {
        /// Under this version.
        version: FailoverVersion,
    },
    /// Another region decides.
    Passive {
        /// Which.
        active: String,
    },
    /// Deleted.
    Deleted,
}

/// What a new namespace starts with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Fresh id, minted once for all regions.
    pub id: NamespaceId,
    /// Name.
    pub name: String,
    /// What people say about it.
    pub info: Info,
    /// Settings.
    pub config: Config,
    /// Version of the fold that all its regions offer (A10).
    pub fold_version: u32,
    /// The region that registers it.
    pub by: RegionId,
}

impl Record {
    /// A namespace of several regions. `members` are its regions, to which `active` is added (R201, EX1).
    ///
    /// # Errors
    /// [`Refusal`] for an empty name or a region that is not in service.
    pub fn new_global<'a>(
        start: Start,
        active: &str,
        members: impl IntoIterator<Item = &'a str>,
        regions: &Regions,
    ) -> Result<Self, Refusal> {
        let version = regions.next(active, FailoverVersion::LOCAL)?;
        let mut record = Self::begin(start, active)?;
        let mut names: BTreeSet<&str> = members.into_iter().collect();
        names.insert(active);
        for name in names {
            regions.require(name)?;
            let stamp = record.next_stamp(record.name.stamp.region);
            record.members.add(name, stamp);
        }
        record.global = true;
        record.home = String::new();
        record.failover.version = version;
        Ok(record)
    }

    /// A namespace of one region, under version 0 (R200).
    ///
    /// # Errors
    /// [`Refusal`] for an empty name.
    pub fn new_local(start: Start, home: &str) -> Result<Self, Refusal> {
        Self::begin(start, home)
    }

    fn begin(start: Start, active: &str) -> Result<Self, Refusal> {
        if start.name.is_empty() {
            return Err(Refusal::EmptyName);
        }
        let stamp = Stamp { counter: 1, region: start.by };
        Ok(Self {
            id: start.id,
            name: Lww::new(start.name, stamp),
            info: Lww::new(start.info, stamp),
            config: Lww::new(start.config, stamp),
            fold: Lww::new(start.fold_version, stamp),
            durability: Lww::new(Durability::default(), stamp),
            global: false,
            deleted: false,
            home: active.to_owned(),
            members: Members::default(),
            failover: Failover {
                version: FailoverVersion::LOCAL,
                step: 0,
                active: active.to_owned(),
                phase: Phase::Active,
                life: Incarnation::default(),
            },
            history: History::new(),
        })
    }

    /// Joins what another region knows. Commutative, associative, idempotent; says whether anything changed. A record of
    /// another namespace changes nothing.
    pub fn merge(&mut self, other: &Self) -> bool {
        if self.id != other.id {
            return false;
        }
        let before = self.clone();
        self.name.merge(&other.name);
        self.info.merge(&other.info);
        self.config.merge(&other.config);
        self.fold.merge(&other.fold);
        self.durability.merge(&other.durability);
        self.global |= other.global;
        self.deleted |= other.deleted;
        if other.home > self.home {
            self.home.clone_from(&other.home);
        }
        self.members.merge(&other.members);
        self.failover.merge(&other.failover);
        registers::merge_history(&mut self.history, &other.history);
        *self != before
    }

    /// Id.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Name as registered; see [`resolve_names`] for the one that is shown.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name.value
    }

    /// What people say about it.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info.value
    }

    /// Settings.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config.value
    }

    /// Version of the fold (A10).
    #[must_use]
    pub fn fold_version(&self) -> u32 {
        self.fold.value
    }

    /// When a write counts as saved (E4).
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability.value
    }

    /// Of several regions, or promotable to that.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.global
    }

    /// Deleted, for ever (F4).
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Its regions: always with the active one, whatever the list says (F4, W25).
    #[must_use]
    pub fn members(&self) -> BTreeSet<String> {
        let mut names = self.members.names();
        names.insert(self.failover.active.clone());
        names
    }

    /// Is this one of its regions?
    #[must_use]
    pub fn has_member(&self, region: &str) -> bool {
        self.failover.active == region || self.members.contains(region)
    }

    /// The region that owns the present version.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.failover.active
    }

    /// Failover version: 0 while local (R101).
    #[must_use]
    pub fn version(&self) -> FailoverVersion {
        self.failover.version
    }

    /// Where a hand-over stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.failover.phase
    }

    /// The whole failover register.
    #[must_use]
    pub fn failover(&self) -> &Failover {
        &self.failover
    }

    /// Failovers by version, all of them.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What `here` may do now (R111, F1).
    #[must_use]
    pub fn standing(&self, here: &str) -> Standing {
        let Failover { version, active, phase, .. } = &self.failover;
        match phase {
            _ if self.deleted => Standing::Deleted,
            Phase::Active if active == here => Standing::Writable(*version),
            Phase::Draining { target, deadline, .. } if active == here => {
                Standing::HandingOver { target: target.clone(), deadline: Some(*deadline) }
            }
            Phase::Released { target, target_version, .. } if target == here => {
                Standing::MayActivate { version: *target_version }
            }
            Phase::Released { target, .. } if active == here => {
                Standing::HandingOver { target: target.clone(), deadline: None }
            }
            _ => Standing::Passive { active: active.clone() },
        }
    }

    /// The same, its version minted by this life of the owner's store (E2).
    #[must_use]
    pub fn minted_in(mut self, life: Incarnation) -> Self {
        self.failover.life = life;
        self
    }

    /// Whether `here` owns the namespace under a version that another life of its store minted: this life may have lost what
    /// was written under it, and would write other content under equal ids. It mints a new version first (E2, G2).
    #[must_use]
    pub fn is_of_another_life(&self, here: &str, life: Incarnation) -> bool {
        let Failover { active, phase, life: known, .. } = &self.failover;
        // What was released is the target's (F1); a drain is undone first.
        let owns = self.global && !self.deleted && active == here && *phase == Phase::Active;
        owns && *known != Incarnation::default() && *known != life
    }

    /// What `here` may do now in this life of its store: what another life owned waits for a new version, like a hand-over
    /// to itself (E2).
    #[must_use]
    pub fn standing_in(&self, here: &str, life: Incarnation) -> Standing {
        match self.standing(here) {
            Standing::Writable(_) if self.is_of_another_life(here, life) => {
                Standing::HandingOver { target: here.to_owned(), deadline: None }
            }
            standing => standing,
        }
    }

    /// The version under which `here` may write events, if it may (A9, F5).
    #[must_use]
    pub fn writable(&self, here: &str) -> Option<FailoverVersion> {
        match self.standing(here) {
            Standing::Writable(version) => Some(version),
            _ => None,
        }
    }

    /// The stamp of the next change that `region` makes: above all in the record.
    #[must_use]
    pub fn next_stamp(&self, region: RegionId) -> Stamp {
        let registers =
            [self.name.stamp, self.info.stamp, self.config.stamp, self.fold.stamp, self.durability.stamp];
        let stamps = registers
            .into_iter()
            .chain(self.members.added.iter().map(|(_, stamp)| *stamp))
            .chain(self.members.removed.iter().copied())
            .chain(self.history.values().map(|entry| entry.stamp));
        let counter = stamps.map(|stamp| stamp.counter).max().unwrap_or(0).saturating_add(1);
        Stamp { counter, region }
    }
}

#[cfg(test)]
mod tests;
