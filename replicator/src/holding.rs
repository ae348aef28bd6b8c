//! What our shards are told of a peer, so that closed runs wait for it (C6, E1): how far it has proved each shard's log, which
//! runs it lacks although its proof has passed them, and for which origins it may need us to relay (C7).

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::ids::{RegionId, ShardId};
use antipode_history::{
    client::shard_of,
    shard::{Down, Proof},
};

use crate::{handshake, selection::Vector, status::Known};

/// One proof a shard, all as of now.
pub(crate) fn proofs(
    known: &Known,
    down: &BTreeMap<RegionId, Vector>,
    silent: bool,
    shards: u32,
) -> BTreeMap<ShardId, Proof> {
    let origin = |(region, vector): (&RegionId, &Vector)| {
        (*region, Down { incarnation: vector.incarnation(), proved: vector.proved().clone() })
    };
    let down: BTreeMap<RegionId, Down> = down.iter().map(origin).collect();
    // A peer of the previous version never says for whom it needs us.
    let mute = known.info.as_ref().is_some_and(|info| info.features & handshake::RELAYS == 0);
    let silent = silent || mute;
    let proof = |shard: ShardId| Proof {
        through: known.proof_by_peer.get(&shard).copied().unwrap_or_default(),
        exceptions: BTreeSet::new(),
        down: down.clone(),
        silent,
    };
    let mut proofs: BTreeMap<ShardId, Proof> =
        (1..=shards).map(ShardId).map(|shard| (shard, proof(shard))).collect();
    let withheld = known.withheld.values().flatten().map(|entry| &entry.run);
    for run in known.exceptions_there.keys().chain(withheld) {
        if let Some(proof) = proofs.get_mut(&shard_of(&run.workflow_key(), shards)) {
            proof.exceptions.insert(run.clone());
        }
    }
    proofs
}

#[cfg(test)]
mod tests {
    use antipode_core::ids::{Incarnation, Sequence};

    use super::*;
    use crate::{status::PeerState, testing::key};

    #[test]
    fn a_shard_is_told_of_its_own_runs_and_of_every_origin_that_is_down() {
        // E1, C6, C7
        let state = PeerState::new();
        let lacked = key("w", 1);
        state.change(|known| {
            known.proof_by_peer = BTreeMap::from([(ShardId(1), Sequence(4)), (ShardId(2), Sequence(9))]);
            known.exceptions_there.insert(lacked.clone(), "broken".to_string());
        });
        let positions = BTreeMap::from([(ShardId(3), Sequence(7))]);
        let vector = Vector::of_wire(&Vector::to_wire(RegionId(3), Some(Incarnation(8)), &positions));
        let down = BTreeMap::from([(RegionId(3), vector)]);
        let proofs = proofs(&state.known(), &down, false, 3);
        assert_eq!(proofs.values().map(|proof| proof.through.0).collect::<Vec<_>>(), [4, 9, 0]);
        let owner = shard_of(&lacked.workflow_key(), 3);
        for (shard, proof) in &proofs {
            assert_eq!(proof.exceptions.contains(&lacked), *shard == owner);
            assert!(!proof.silent);
            assert_eq!(proof.down[&RegionId(3)].proved, positions);
            assert_eq!(proof.down[&RegionId(3)].incarnation, Incarnation(8));
        }
    }

    #[test]
    fn a_peer_that_does_not_say_for_whom_it_needs_us_is_silent() {
        // C6, C7
        let state = PeerState::new();
        let told = |silent| proofs(&state.known(), &BTreeMap::new(), silent, 1)[&ShardId(1)].silent;
        let info = |features| Some(antipode_proto::link::RegionInfo { features, ..Default::default() });
        state.change(|known| known.info = info(handshake::FEATURES));
        assert!(!told(false));
        assert!(told(true), "its stream ended");
        state.change(|known| known.info = info(handshake::REQUIRED));
        assert!(told(false), "it runs the previous version");
    }
}
