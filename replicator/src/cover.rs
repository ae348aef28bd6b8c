//! Whether a region has everything that another one has (F2, V18). A region's own log is not the whole of it: what came from a
//! third region is in its store, but not in what it sends, because that region speaks for itself. A hand-over to a region
//! that has not yet heard the third one would leave acknowledged writes behind. Pure.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::ids::{Incarnation, RegionId, Sequence, ShardId};
use antipode_proto::link::NamespaceViewResponse;

use crate::inbox::Positions;

/// How far a region has the log of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Life of that region's store.
    pub incarnation: Option<Incarnation>,
    /// By its shards.
    pub proved: Positions,
    /// Where its log ended at the first stream since this process started; none: there was no stream yet.
    pub ended: Option<Positions>,
}

impl Held {
    /// Whether `proved` is all that is here. Positions are stored behind the data they stand for: after a crash there may be
    /// more, until as much as the origin had when it could be asked has been proved again.
    fn is_known(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| reaches(&self.proved, ended))
    }
}

/// Third regions of which the target lacks something that we have. `ours`: what we have of each; `barriers`: how far our own
/// log must have been relayed where the target hears nothing from such a region itself (C7).
#[must_use]
pub fn lacking(
    view: &NamespaceViewResponse,
    ours: &BTreeMap<RegionId, Held>,
    barriers: &Positions,
) -> BTreeSet<RegionId> {
    let lacks = |(origin, held): (&RegionId, &Held)| {
        let heard = view.proved.iter().find(|proved| proved.region == origin.0);
        let hears = heard.is_some_and(|heard| {
            let same_life = held.incarnation.is_none_or(|life| life.0 == heard.incarnation);
            let theirs = heard.proved.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
            same_life && reaches(&theirs, &held.proved)
        });
        let relayed: Positions = view
            .relayed
            .iter()
            .filter(|relayed| relayed.origin == origin.0)
            .map(|relayed| (ShardId(relayed.shard), Sequence(relayed.proof)))
            .collect();
        let has_nothing = held.proved.values().all(|at| at.0 == 0);
        let has_heard = held.is_known() && (has_nothing || hears);
        (!has_heard && !reaches(&relayed, barriers)).then_some(*origin)
    };
    ours.iter().filter_map(lacks).collect()
}

fn reaches(theirs: &Positions, wanted: &Positions) -> bool {
    wanted.iter().all(|(shard, at)| at.0 == 0 || theirs.get(shard).is_some_and(|proved| proved >= at))
}

#[cfg(test)]
mod tests {
    use antipode_proto::link::{DownOrigin, Position, Relayed};

    use super::*;

    const NORTH: RegionId = RegionId(3);

    fn ours(at: u64) -> BTreeMap<RegionId, Held> {
        let proved = BTreeMap::from([(ShardId(1), Sequence(at))]);
        let ended = Some(BTreeMap::from([(ShardId(1), Sequence(at))]));
        BTreeMap::from([(NORTH, Held { incarnation: Some(Incarnation(3)), proved, ended })])
    }

    fn view(proved: Option<(u64, u64)>, relayed: Option<u64>) -> NamespaceViewResponse {
        let proved = proved.map(|(incarnation, sequence)| DownOrigin {
            region: NORTH.0,
            incarnation,
            proved: vec![Position { shard: 1, sequence }],
        });
        let relayed = relayed.map(|proof| Relayed { origin: NORTH.0, shard: 2, flow: 0, proof });
        NamespaceViewResponse {
            proved: proved.into_iter().collect(),
            relayed: relayed.into_iter().collect(),
            ..NamespaceViewResponse::default()
        }
    }

    #[test]
    fn what_a_third_region_wrote_must_have_arrived_itself_or_by_relay() {
        let barriers = BTreeMap::from([(ShardId(2), Sequence(40))]);
        let none = BTreeSet::new();
        let north = BTreeSet::from([NORTH]);
        assert_eq!(lacking(&view(Some((3, 7)), None), &ours(7), &barriers), none);
        assert_eq!(lacking(&view(Some((3, 6)), None), &ours(7), &barriers), north);
        assert_eq!(
            lacking(&view(Some((4, 7)), None), &ours(7), &barriers),
            north,
            "another life of its store"
        );
        assert_eq!(lacking(&view(None, None), &ours(7), &barriers), north);
        assert_eq!(lacking(&view(None, None), &ours(0), &barriers), none, "we have nothing of it either");
        assert_eq!(lacking(&view(Some((3, 6)), Some(40)), &ours(7), &barriers), none);
        assert_eq!(lacking(&view(Some((3, 6)), Some(39)), &ours(7), &barriers), north);
    }

    #[test]
    fn what_a_restart_forgot_must_have_been_relayed() {
        let barriers = BTreeMap::from([(ShardId(2), Sequence(40))]);
        let north = BTreeSet::from([NORTH]);
        let restarted = |ended: Option<u64>| {
            let mut ours = ours(7);
            for held in ours.values_mut() {
                held.ended = ended.map(|at| BTreeMap::from([(ShardId(1), Sequence(at))]));
            }
            ours
        };
        let heard = view(Some((3, 7)), None);
        assert_eq!(lacking(&heard, &restarted(None), &barriers), north, "there may be more than was stored");
        assert_eq!(lacking(&heard, &restarted(Some(9)), &barriers), north, "not all came again");
        assert_eq!(lacking(&heard, &restarted(Some(6)), &barriers), BTreeSet::new());
        assert_eq!(lacking(&heard, &restarted(Some(0)), &barriers), BTreeSet::new());
        assert_eq!(lacking(&view(None, Some(40)), &restarted(None), &barriers), BTreeSet::new());
    }
}
