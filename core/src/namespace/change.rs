//! Changes of a namespace record that do not move it: promotion, list of regions, texts, settings, deletion (R203–R214).
//! Any region of the list may make them; the last stamp wins.

use std::collections::BTreeSet;

use super::{Config, Durability, Entry, Info, Lww, Phase, Record};
use crate::{
    ids::{RegionId, Timestamp},
    region::{self, Regions},
};

/// Who changes a record, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// All regions known here.
    pub regions: &'a Regions,
    /// The region that makes the change.
    pub here: &'a str,
    /// Wall time here; for people and for the deadline of this region's own draining.
    pub now: Timestamp,
    /// Who asked.
    pub who: &'a str,
    /// And why.
    pub why: &'a str,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A name is needed.
    #[error("namespace name is empty")]
    EmptyName,
    /// A region is unknown, or no version is left.
    #[error(transparent)]
    Region(#[from] region::Error),
    /// Deleted is for ever.
    #[error("the namespace is deleted")]
    Deleted,
    /// Only global namespaces move and have a list of regions.
    #[error("the namespace is local to region {0}; promote it first")]
    Local(String),
    /// A local namespace is changed where it lives.
    #[error("the namespace is local to region {home}, this is {here}")]
    NotHome {
        /// Where it lives.
        home: String,
        /// Where the change was asked for.
        here: String,
    },
    /// Promotion has no way back and no second time (R206).
    #[error("the namespace is global already")]
    AlreadyGlobal,
    /// The region is not one of the namespace's (R203).
    #[error("region {0:?} is not in the namespace's list of regions")]
    NotMember(String),
    /// The active region stays in the list (R207), and so does the target of a hand-over under way.
    #[error("region {region:?} cannot leave the list of regions: {why}")]
    CannotLeave {
        /// Region.
        region: String,
        /// Why.
        why: &'static str,
    },
    /// It is there already: nothing to do, and no new version (R104).
    #[error("the namespace is active in region {0:?} already")]
    AlreadyActive(String),
    /// Only the owner of the present version may do this (F1).
    #[error("region {active:?} owns the namespace, this is {here:?}")]
    NotOwner {
        /// Owner.
        active: String,
        /// Where it was asked for.
        here: String,
    },
    /// Another hand-over is under way.
    #[error("hand-over {operation} to region {target:?} is under way")]
    Busy {
        /// Its name.
        operation: String,
        /// Where it leads.
        target: String,
    },
    /// There is no such hand-over to go on with or to undo.
    #[error("hand-over {0} is not under way")]
    NotDraining(String),
    /// Released is irrevocable (F1).
    #[error(
        "hand-over {operation} is released to region {target:?} and cannot be undone; force it to take the namespace back"
    )]
    Released {
        /// Its name.
        operation: String,
        /// Where it leads.
        target: String,
    },
    /// The target may activate only with the owner's release (F1).
    #[error("the namespace is not released to region {0:?}")]
    NotReleased(String),
}

impl Record {
    /// Makes a local namespace global: version 0 becomes the first of its region (R205, EX3). Runs keep their events.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn promote(&self, act: &Act<'_>) -> Result<Self, Refusal> {
        let by = self.may_change(act)?;
        if self.global {
            return Err(Refusal::AlreadyGlobal);
        }
        let mut record = self.clone();
        record.members.add(act.here, record.next_stamp(by));
        record.global = true;
        record.failover.version = act.regions.next(act.here, self.failover.version)?;
        let entry = Entry {
            stamp: record.next_stamp(by),
            to: act.here.to_owned(),
            who: act.who.to_owned(),
            why: act.why.to_owned(),
            at: act.now,
            predicted_loss_runs: Some(0),
            ..Entry::default()
        };
        record.history.insert(record.failover.version, entry);
        Ok(record)
    }

    /// Sets the list of regions (R207). A new region has none of the past until it is seeded (C9).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn set_members<'a>(
        &self,
        act: &Act<'_>,
        members: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Refusal> {
        let by = self.may_change(act)?;
        self.require_global()?;
        let wanted: BTreeSet<&str> = members.into_iter().collect();
        let leaves = |region: &str, why| Refusal::CannotLeave { region: region.to_owned(), why };
        if !wanted.contains(self.active()) {
            return Err(leaves(self.active(), "it is the active one"));
        }
        if let Some(target) = self.phase().target().filter(|target| !wanted.contains(target)) {
            return Err(leaves(target, "the namespace is being handed over to it"));
        }
        let mut record = self.clone();
        for region in &wanted {
            if !record.members.contains(region) {
                act.regions.require(region)?;
                record.members.add(region, record.next_stamp(by));
            }
        }
        for region in record.members.names() {
            if !wanted.contains(region.as_str()) {
                record.members.remove(&region);
            }
        }
        Ok(record)
    }

    /// Replaces the texts.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn update_info(&self, act: &Act<'_>, info: Info) -> Result<Self, Refusal> {
        let stamp = self.next_stamp(self.may_change(act)?);
        Ok(Self { info: Lww::new(info, stamp), ..self.clone() })
    }

    /// Replaces the settings.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn update_config(&self, act: &Act<'_>, config: Config) -> Result<Self, Refusal> {
        let stamp = self.next_stamp(self.may_change(act)?);
        Ok(Self { config: Lww::new(config, stamp), ..self.clone() })
    }

    /// Sets when a write counts as saved (E4).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn update_durability(&self, act: &Act<'_>, durability: Durability) -> Result<Self, Refusal> {
        let stamp = self.next_stamp(self.may_change(act)?);
        Ok(Self { durability: Lww::new(durability, stamp), ..self.clone() })
    }

    /// Gives it another name, also after a conflict of names (F4).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn rename(&self, act: &Act<'_>, name: &str) -> Result<Self, Refusal> {
        if name.is_empty() {
            return Err(Refusal::EmptyName);
        }
        let stamp = self.next_stamp(self.may_change(act)?);
        Ok(Self { name: Lww::new(name.to_owned(), stamp), ..self.clone() })
    }

    /// Deletes it, for ever (F4). Only its active region may (R214).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn delete(&self, act: &Act<'_>) -> Result<Self, Refusal> {
        self.may_change(act)?;
        self.require_owner(act)?;
        self.require_settled()?;
        Ok(Self { deleted: true, ..self.clone() })
    }

    /// May this region change the record at all? Its id, for stamps.
    pub(super) fn may_change(&self, act: &Act<'_>) -> Result<RegionId, Refusal> {
        let here = act.regions.require(act.here)?;
        if self.deleted {
            return Err(Refusal::Deleted);
        }
        if !self.global && self.home != act.here {
            let (home, here) = (self.home.clone(), act.here.to_owned());
            return Err(Refusal::NotHome { home, here });
        }
        if !self.has_member(act.here) {
            return Err(Refusal::NotMember(act.here.to_owned()));
        }
        Ok(here.id)
    }

    pub(super) fn require_global(&self) -> Result<(), Refusal> {
        if self.global { Ok(()) } else { Err(Refusal::Local(self.home.clone())) }
    }

    pub(super) fn require_owner(&self, act: &Act<'_>) -> Result<(), Refusal> {
        if self.active() == act.here {
            return Ok(());
        }
        let (active, here) = (self.active().to_owned(), act.here.to_owned());
        Err(Refusal::NotOwner { active, here })
    }

    pub(super) fn require_settled(&self) -> Result<(), Refusal> {
        match self.phase() {
            Phase::Active => Ok(()),
            Phase::Draining { target, operation, .. } => {
                Err(Refusal::Busy { operation: operation.clone(), target: target.clone() })
            }
            Phase::Released { target, operation, .. } => {
                Err(Refusal::Released { operation: operation.clone(), target: target.clone() })
            }
        }
    }
}
