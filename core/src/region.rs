//! The regions of a set-up: who owns which residue class of the failover versions (R103–R109, R115). Classes of removed
//! regions are remembered and never given away again, because histories name them for ever (R108).

use std::{collections::BTreeMap, fmt};

use crate::{
    ids::{FailoverVersion, RegionId},
    version::{Increment, MintError},
};

/// A region that takes part, or took part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// Name, unique.
    pub name: String,
    /// Initial version, and number everywhere in storage and transport (R109).
    pub id: RegionId,
    /// Removed: may not be written to or failed over to; still owns its versions (R108).
    pub retired: bool,
}

impl Region {
    /// A region in service.
    #[must_use]
    pub fn new(name: impl Into<String>, id: u32) -> Self {
        Self { name: name.into(), id: RegionId(id), retired: false }
    }
}

/// Why a set of regions is refused (R115), or a question about it has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No region in service.
    #[error("regions: at least one region is needed")]
    Empty,
    /// A region without name.
    #[error("regions: region {0} has an empty name")]
    Unnamed(RegionId),
    /// Initial version out of range.
    #[error("regions.{name}: initial version {} is not between 1 and {}", .id.0, .increment - 1)]
    Initial {
        /// Region.
        name: String,
        /// Its initial version.
        id: RegionId,
        /// The increment.
        increment: u32,
    },
    /// One residue class twice, also when one of the two is retired (R108).
    #[error("regions.{second}: initial version {} belongs to {first}", .id.0)]
    SameInitial {
        /// The class.
        id: RegionId,
        /// Its owner.
        first: String,
        /// The other.
        second: String,
    },
    /// One name twice.
    #[error("regions.{0}: the name is used twice")]
    SameName(String),
    /// Not a region in service.
    #[error("region {0:?} is not known here")]
    Unknown(String),
    /// A region that was removed.
    #[error("region {0:?} was removed and cannot become active")]
    Retired(String),
    /// No version to mint.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Who owns a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Version 0: the run's local era, nobody's (R106).
    Local,
    /// A region, perhaps a retired one.
    Region(&'a Region),
    /// No region has this residue; what it was, in words (R105).
    Unknown(FailoverVersion),
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Region(region) => f.write_str(&region.name),
            Self::Unknown(version) => write!(f, "unknown owner of {version}"),
        }
    }
}

/// All regions and their shared increment. Immutable: a change is a new value, swapped whole (R116).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    increment: Increment,
    by_id: BTreeMap<RegionId, Region>,
    by_name: BTreeMap<String, RegionId>,
}

impl Regions {
    /// Checks and indexes a set of regions (R115).
    ///
    /// # Errors
    /// [`Error`] names the region and the field.
    pub fn new(increment: Increment, regions: impl IntoIterator<Item = Region>) -> Result<Self, Error> {
        let mut known = Self { increment, by_id: BTreeMap::new(), by_name: BTreeMap::new() };
        for region in regions {
            known.add(region)?;
        }
        if known.members().next().is_none() {
            return Err(Error::Empty);
        }
        Ok(known)
    }

    fn add(&mut self, region: Region) -> Result<(), Error> {
        let id = region.id;
        if region.name.is_empty() {
            return Err(Error::Unnamed(id));
        }
        if !self.increment.has_class(id) {
            let increment = self.increment.get();
            return Err(Error::Initial { name: region.name, id, increment });
        }
        if let Some(first) = self.by_id.get(&id) {
            return Err(Error::SameInitial { id, first: first.name.clone(), second: region.name });
        }
        if self.by_name.insert(region.name.clone(), id).is_some() {
            return Err(Error::SameName(region.name));
        }
        self.by_id.insert(id, region);
        Ok(())
    }

    /// With one more region (R120).
    ///
    /// # Errors
    /// [`Error`] when its name or class is taken, also by a retired region.
    pub fn with(&self, region: Region) -> Result<Self, Error> {
        let mut more = self.clone();
        more.add(region)?;
        Ok(more)
    }

    /// Without a region, whose class stays reserved (R108, R121).
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Empty`] when it is the last one.
    pub fn without(&self, name: &str) -> Result<Self, Error> {
        let id = self.require(name)?.id;
        let mut fewer = self.clone();
        if let Some(region) = fewer.by_id.get_mut(&id) {
            region.retired = true;
        }
        if fewer.members().next().is_none() {
            return Err(Error::Empty);
        }
        Ok(fewer)
    }

    /// The shared increment.
    #[must_use]
    pub fn increment(&self) -> Increment {
        self.increment
    }

    /// Regions in service, by id.
    pub fn members(&self) -> impl Iterator<Item = &Region> {
        self.by_id.values().filter(|region| !region.retired)
    }

    /// All regions, also retired ones, by id.
    pub fn all(&self) -> impl Iterator<Item = &Region> {
        self.by_id.values()
    }

    /// A region by name, also a retired one.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Region> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id))
    }

    /// A region by id, also a retired one.
    #[must_use]
    pub fn by_id(&self, id: RegionId) -> Option<&Region> {
        self.by_id.get(&id)
    }

    /// A region in service.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::Retired`].
    pub fn require(&self, name: &str) -> Result<&Region, Error> {
        match self.by_name(name) {
            Some(region) if region.retired => Err(Error::Retired(name.to_owned())),
            Some(region) => Ok(region),
            None => Err(Error::Unknown(name.to_owned())),
        }
    }

    /// The version under which `region` becomes, or stays, active after `current` (R104).
    ///
    /// # Errors
    /// [`Error`] when the region is not in service or no version is left.
    pub fn next(&self, region: &str, current: FailoverVersion) -> Result<FailoverVersion, Error> {
        let region = self.require(region)?;
        Ok(self.increment.next(region.id, current)?)
    }

    /// The version of a forced failover: above everything seen, never kept (F3).
    ///
    /// # Errors
    /// As [`Regions::next`].
    pub fn next_forced(&self, region: &str, seen_max: FailoverVersion) -> Result<FailoverVersion, Error> {
        let region = self.require(region)?;
        Ok(self.increment.next_above(region.id, seen_max)?)
    }

    /// Who minted a version (R105, R106).
    #[must_use]
    pub fn owner(&self, version: FailoverVersion) -> Owner<'_> {
        if version.is_local() {
            return Owner::Local;
        }
        match self.increment.class(version).and_then(|id| self.by_id.get(&id)) {
            Some(region) => Owner::Region(region),
            None => Owner::Unknown(version),
        }
    }

    /// Did `region` mint this version?
    #[must_use]
    pub fn owns(&self, region: &str, version: FailoverVersion) -> bool {
        matches!(self.owner(version), Owner::Region(owner) if owner.name == region)
    }

    /// Were both versions minted by one region (R107)?
    #[must_use]
    pub fn same_region(&self, a: FailoverVersion, b: FailoverVersion) -> bool {
        self.increment.same_region(a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> Regions {
        let members = [Region::new("east", 1), Region::new("west", 2), Region::new("north", 3)];
        Regions::new(Increment::DEFAULT, members).unwrap()
    }

    fn refused(members: &[(&str, u32)]) -> Error {
        let members = members.iter().map(|&(name, id)| Region::new(name, id));
        Regions::new(Increment::DEFAULT, members).unwrap_err()
    }

    #[test]
    fn bad_sets_are_refused_with_the_field() {
        // R115
        assert_eq!(refused(&[]), Error::Empty);
        assert_eq!(refused(&[("", 1)]), Error::Unnamed(RegionId(1)));
        assert_eq!(
            refused(&[("east", 0)]).to_string(),
            "regions.east: initial version 0 is not between 1 and 9"
        );
        assert!(matches!(refused(&[("east", 10)]), Error::Initial { .. }));
        assert_eq!(
            refused(&[("east", 1), ("west", 1)]).to_string(),
            "regions.west: initial version 1 belongs to east"
        );
        assert_eq!(refused(&[("east", 1), ("east", 2)]), Error::SameName("east".into()));
    }

    #[test]
    fn versions_are_minted_by_name() {
        // R104, F3
        let regions = regions();
        assert_eq!(regions.next("east", FailoverVersion(2)), Ok(FailoverVersion(11)));
        assert_eq!(regions.next("west", FailoverVersion(2)), Ok(FailoverVersion(2)));
        assert_eq!(regions.next_forced("west", FailoverVersion(2)), Ok(FailoverVersion(12)));
        assert_eq!(regions.next("south", FailoverVersion(2)), Err(Error::Unknown("south".into())));
    }

    #[test]
    fn owners_of_versions() {
        // R105-R107
        let regions = regions();
        for (version, owner) in [
            (0, "local"),
            (1, "east"),
            (12, "west"),
            (23, "north"),
            (10, "unknown owner of @10"),
            (24, "unknown owner of @24"),
        ] {
            assert_eq!(regions.owner(FailoverVersion(version)).to_string(), owner);
        }
        assert!(regions.owns("west", FailoverVersion(22)));
        assert!(!regions.owns("west", FailoverVersion(21)));
        assert!(!regions.owns("west", FailoverVersion(0)));
        assert!(regions.same_region(FailoverVersion(3), FailoverVersion(33)));
    }

    #[test]
    fn the_class_of_a_removed_region_is_never_given_away() {
        // R108
        let regions = regions().without("west").unwrap();
        let names =
            |of: &mut dyn Iterator<Item = &Region>| of.map(|region| region.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&mut regions.members()), ["east", "north"]);
        assert_eq!(names(&mut regions.all()), ["east", "west", "north"]);
        assert_eq!(regions.owner(FailoverVersion(12)).to_string(), "west");
        assert_eq!(regions.next("west", FailoverVersion(1)), Err(Error::Retired("west".into())));
        assert!(matches!(regions.with(Region::new("south", 2)), Err(Error::SameInitial { .. })));
        assert!(regions.with(Region::new("south", 4)).is_ok());
        assert!(regions.without("east").unwrap().without("north").is_err());
    }
}
