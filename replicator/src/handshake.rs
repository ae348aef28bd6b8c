//! What two regions must agree on before anything flows between them, and the words of each refusal (R115, R120, I31).
//! Pure. Shard counts may differ in any way (I06); clocks are no part of it (H1; what they mean for a hand-over: `clocks`).

use antipode_core::{ids::RegionId, region::Regions};
use antipode_proto::link::RegionInfo;

/// Features of the protocol that this build speaks; a peer must speak those that `REQUIRED` names.
pub const FEATURES: u64 = 0b1 | RELAYS | LATE | TOMBSTONES;
/// Bit 3: a state may tell that its run was deleted (C6).
pub const TOMBSTONES: u64 = 0b1000;
/// Bit 2: acks say how many late entries are proved: those that belong to no range that is announced now.
pub const LATE: u64 = 0b100;
/// Bit 1: the peer relays for origins that the receiver names as down (C7). Nobody needs it to link up.
pub const RELAYS: u64 = 0b10;
/// Bit 0: entries announce ranges, acks carry flow, proof and exceptions.
pub const REQUIRED: u64 = 0b1;

/// Why two regions do not link up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The peer did not say who it is.
    #[error("the peer sent no region info")]
    Anonymous,
    /// A node was given its own address, or a second node has its name.
    #[error("the peer's name {0:?} is this region's own name")]
    OwnName(String),
    /// The peer has no name.
    #[error("the peer's name is empty")]
    Unnamed,
    /// R103: the increment is shared by all regions.
    #[error("version increments differ: {ours} here, {theirs} in {peer}")]
    Increment {
        /// Here.
        ours: u32,
        /// There.
        theirs: u32,
        /// Peer.
        peer: String,
    },
    /// R115.
    #[error("initial version {initial} of {peer} is not between 1 and {}", .increment - 1)]
    Initial {
        /// Its initial version.
        initial: u32,
        /// The shared increment.
        increment: u32,
        /// Peer.
        peer: String,
    },
    /// R115, R108: a residue class has one owner for ever.
    #[error("initial version {initial} of {peer} belongs to {owner}")]
    Taken {
        /// Its initial version.
        initial: u32,
        /// Peer.
        peer: String,
        /// Who has it.
        owner: String,
    },
    /// I29: a region keeps its class.
    #[error("{peer} is known with initial version {known}, and says {initial}")]
    Changed {
        /// Peer.
        peer: String,
        /// As known here.
        known: RegionId,
        /// As it says.
        initial: u32,
    },
    /// R120.
    #[error("{0} says it has no shards")]
    NoShards(String),
    /// I31.
    #[error("{peer} does not speak the features {missing:#b} of the link protocol")]
    Features {
        /// Peer.
        peer: String,
        /// Bits it lacks.
        missing: u64,
    },
    /// The node at the address is another one than expected.
    #[error("expected {expected} at {address}, but {found} answers there")]
    Stranger {
        /// Who should be there.
        expected: String,
        /// Where.
        address: String,
        /// Who is there.
        found: String,
    },
}

/// Checks a peer's words against the regions known here.
///
/// # Errors
/// [`Mismatch`].
pub fn check(here: &str, regions: &Regions, peer: &RegionInfo) -> Result<(), Mismatch> {
    let name = || peer.name.clone();
    if peer.name.is_empty() {
        return Err(Mismatch::Unnamed);
    }
    if peer.name == here {
        return Err(Mismatch::OwnName(name()));
    }
    let increment = regions.increment().get();
    if peer.increment != increment {
        return Err(Mismatch::Increment { ours: increment, theirs: peer.increment, peer: name() });
    }
    let id = RegionId(peer.initial_version);
    if !regions.increment().has_class(id) {
        return Err(Mismatch::Initial { initial: id.0, increment, peer: name() });
    }
    if let Some(owner) = regions.by_id(id)
        && owner.name != peer.name
    {
        return Err(Mismatch::Taken { initial: id.0, peer: name(), owner: owner.name.clone() });
    }
    if let Some(known) = regions.by_name(&peer.name)
        && known.id != id
    {
        return Err(Mismatch::Changed { peer: name(), known: known.id, initial: id.0 });
    }
    if peer.shard_count == 0 {
        return Err(Mismatch::NoShards(name()));
    }
    let missing = REQUIRED & !peer.features;
    if missing != 0 {
        return Err(Mismatch::Features { peer: name(), missing });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use antipode_core::{region::Region, version::Increment};

    use super::*;

    fn regions() -> Regions {
        let known = [
            Region::new("east", 1),
            Region { retired: true, ..Region::new("gone", 3) },
            Region::new("north", 4),
        ];
        Regions::new(Increment::DEFAULT, known).unwrap()
    }

    fn peer(name: &str, initial_version: u32) -> RegionInfo {
        RegionInfo {
            name: name.into(),
            initial_version,
            increment: 10,
            shard_count: 7,
            features: FEATURES,
            ..RegionInfo::default()
        }
    }

    fn refused(peer: &RegionInfo) -> String {
        check("east", &regions(), peer).unwrap_err().to_string()
    }

    #[test]
    fn a_fitting_peer_is_welcome() {
        assert_eq!(check("east", &regions(), &peer("west", 2)), Ok(()));
        assert_eq!(check("east", &regions(), &peer("north", 4)), Ok(()));
        // I06: its shard count is its own affair.
        assert_eq!(check("east", &regions(), &RegionInfo { shard_count: 1, ..peer("west", 2) }), Ok(()));
    }

    #[test]
    fn each_refusal_names_its_reason() {
        assert_eq!(refused(&peer("east", 1)), "the peer's name \"east\" is this region's own name");
        assert_eq!(refused(&peer("", 2)), "the peer's name is empty");
        let other_increment = RegionInfo { increment: 100, ..peer("west", 2) };
        assert_eq!(refused(&other_increment), "version increments differ: 10 here, 100 in west");
        assert_eq!(refused(&peer("west", 10)), "initial version 10 of west is not between 1 and 9");
        assert_eq!(refused(&peer("west", 1)), "initial version 1 of west belongs to east");
        assert_eq!(refused(&peer("west", 3)), "initial version 3 of west belongs to gone");
        assert_eq!(refused(&peer("north", 5)), "north is known with initial version r4, and says 5");
        assert_eq!(refused(&RegionInfo { shard_count: 0, ..peer("west", 2) }), "west says it has no shards");
        let old = RegionInfo { features: 0, ..peer("west", 2) };
        assert_eq!(refused(&old), "west does not speak the features 0b1 of the link protocol");
    }
}
