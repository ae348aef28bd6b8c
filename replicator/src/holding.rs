//! What our shards are told of a peer, so that closed runs wait for it (C6, E1): how far it has proved each shard's log, which
//! runs it lacks although its proof has passed them, for which origins it may need us to relay (C7), and how far it has what
//! third regions wrote. The last is asked for from time to time: no stream of ours carries it, and a copy of ours may be the
//! only one left when the third region is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use antipode_core::ids::{Incarnation, RegionId, RunKey, ShardId};
use antipode_history::{
    client::shard_of,
    shard::{Down, Proof, Reach},
};
use antipode_proto::link::{NamespaceViewRequest, NamespaceViewResponse};

use crate::{
    entry, handshake,
    selection::Vector,
    shared::{Link, Peer, Shared},
    status::Known,
};

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a peer said of third regions, all of one moment or earlier than its word on runs: a run that it could not apply is
/// named by the same round that says it has the log beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How far it has their logs; none: it was not asked yet.
    vectors: Option<BTreeMap<RegionId, Vector>>,
    /// Runs that it could not apply, whoever sent them, and those that it holds back: a third region's word on its log says
    /// nothing of them.
    lacked: BTreeSet<RunKey>,
}

impl Heard {
    /// Takes the next answer of a round. False: the peer does not know the namespace, so nothing can be concluded.
    fn take(&mut self, view: &NamespaceViewResponse) -> bool {
        let vectors = || view.proved.iter().map(|origin| (RegionId(origin.region), Vector::of_wire(origin)));
        self.vectors.get_or_insert_with(|| vectors().collect());
        let key = |run: &antipode_proto::link::QuarantinedRun| {
            entry::key_of(&run.namespace_id, &run.workflow_id, &run.run_id)
        };
        self.lacked.extend(view.quarantined.iter().chain(&view.withheld).filter_map(key));
        view.found
    }
}

/// Third regions that are linked here, by the life of their stores as known here.
pub(crate) fn others(shared: &Shared, peer: RegionId) -> BTreeMap<RegionId, Option<Incarnation>> {
    let others = shared.enabled_peers().into_iter().filter(|other| other.id != peer);
    others.map(|other| (other.id, other.state.known().incarnation)).collect()
}

/// Asks a peer what it has of third regions, once for each namespace whose runs may wait for it; none: not all was answered.
pub(crate) async fn ask(shared: &Shared, peer: &Peer) -> Option<Heard> {
    let mut heard = Heard::default();
    let shared_with = shared.namespaces.all().into_iter().filter(|entry| {
        entry.is_global() && entry.lists(&peer.name) && entry.record.config().retention_seconds > 0
    });
    for entry in shared_with {
        let request = NamespaceViewRequest { namespace_id: entry.id().to_string(), name: String::new() };
        let asked = |mut link: Link| async move { link.namespace_view(request).await };
        match shared.call(peer, PATIENCE, asked).await {
            Ok(view) if heard.take(&view) => {}
            Ok(_) => return None,
            Err(error) => {
                tracing::debug!(peer = &*peer.name, %error, "closed runs of third regions wait: it does not say what it has");
                return None;
            }
        }
    }
    Some(heard)
}

/// One proof a shard, all as of now. `others`: third regions, see [`others`].
pub(crate) fn proofs(
    known: &Known,
    down: &BTreeMap<RegionId, Vector>,
    heard: &Heard,
    others: &BTreeMap<RegionId, Option<Incarnation>>,
    silent: bool,
    shards: u32,
) -> BTreeMap<ShardId, Proof> {
    let of = |vector: &Vector| Down { incarnation: vector.incarnation(), proved: vector.proved().clone() };
    let down: BTreeMap<RegionId, Down> = down.iter().map(|(region, vector)| (*region, of(vector))).collect();
    let reach = |(region, life): (&RegionId, &Option<Incarnation>)| {
        let said = heard.vectors.as_ref().and_then(|vectors| vectors.get(region)).map(of);
        (*region, Reach { said, life: *life })
    };
    let others: BTreeMap<RegionId, Reach> = others.iter().map(reach).collect();
    // A peer of the previous version never says for whom it needs us.
    let mute = known.info.as_ref().is_some_and(|info| info.features & handshake::RELAYS == 0);
    let silent = silent || mute;
    let proof = |shard: ShardId| Proof {
        through: known.proof_by_peer.get(&shard).copied().unwrap_or_default(),
        exceptions: BTreeSet::new(),
        down: down.clone(),
        others: others.clone(),
        silent,
    };
    let mut proofs: BTreeMap<ShardId, Proof> =
        (1..=shards).map(ShardId).map(|shard| (shard, proof(shard))).collect();
    let withheld = known.withheld.values().flatten().map(|entry| &entry.run);
    // What of a run could not be applied here may bring branches that its deletion would forget.
    let here = known.exceptions_here.iter().map(|(run, _)| run);
    for run in known.exceptions_there.keys().chain(withheld).chain(&heard.lacked).chain(here) {
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
        let refused = key("v", 2);
        state.change(|known| {
            known.proof_by_peer = BTreeMap::from([(ShardId(1), Sequence(4)), (ShardId(2), Sequence(9))]);
            known.exceptions_there.insert(lacked.clone(), "broken".to_string());
            known.exceptions_here.add(&refused, "broken", 1).unwrap();
        });
        let positions = BTreeMap::from([(ShardId(3), Sequence(7))]);
        let vector = Vector::of_wire(&Vector::to_wire(RegionId(3), Some(Incarnation(8)), &positions));
        let down = BTreeMap::from([(RegionId(3), vector)]);
        let none = (Heard::default(), BTreeMap::new());
        let proofs = proofs(&state.known(), &down, &none.0, &none.1, false, 3);
        assert_eq!(proofs.values().map(|proof| proof.through.0).collect::<Vec<_>>(), [4, 9, 0]);
        let owner = shard_of(&lacked.workflow_key(), 3);
        for (shard, proof) in &proofs {
            assert_eq!(proof.exceptions.contains(&lacked), *shard == owner);
            // Neither here: the rest of the run may still come.
            let owner = shard_of(&refused.workflow_key(), 3);
            assert_eq!(proof.exceptions.contains(&refused), *shard == owner);
            assert!(!proof.silent);
            assert_eq!(proof.down[&RegionId(3)].proved, positions);
            assert_eq!(proof.down[&RegionId(3)].incarnation, Incarnation(8));
        }
    }

    #[test]
    fn a_peer_that_does_not_say_for_whom_it_needs_us_is_silent() {
        // C6, C7
        let state = PeerState::new();
        let none = (Heard::default(), BTreeMap::new());
        let told = |silent| {
            proofs(&state.known(), &BTreeMap::new(), &none.0, &none.1, silent, 1)[&ShardId(1)].silent
        };
        let info = |features| Some(antipode_proto::link::RegionInfo { features, ..Default::default() });
        state.change(|known| known.info = info(handshake::FEATURES));
        assert!(!told(false));
        assert!(told(true), "its stream ended");
        state.change(|known| known.info = info(handshake::REQUIRED));
        assert!(told(false), "it runs the previous version");
    }

    #[test]
    fn of_a_third_region_a_peer_has_what_it_says_and_a_run_that_it_could_not_apply_is_no_part_of_it() {
        // C6, E1
        let state = PeerState::new();
        let lives = BTreeMap::from([(RegionId(3), Some(Incarnation(8)))]);
        let told = |heard: &Heard| {
            let told = proofs(&state.known(), &BTreeMap::new(), heard, &lives, false, 1);
            told[&ShardId(1)].clone()
        };
        let before = told(&Heard::default());
        assert_eq!(before.others[&RegionId(3)], Reach { said: None, life: Some(Incarnation(8)) });

        let positions = BTreeMap::from([(ShardId(3), Sequence(7))]);
        let later = BTreeMap::from([(ShardId(3), Sequence(9))]);
        let lacked = key("w", 1);
        let named = |run: &RunKey| antipode_proto::link::QuarantinedRun {
            namespace_id: run.namespace.to_string(),
            workflow_id: run.workflow.to_string(),
            run_id: run.run.to_string(),
            reason: "broken".to_string(),
        };
        let view = |found, positions, quarantined: &[RunKey]| NamespaceViewResponse {
            found,
            proved: vec![Vector::to_wire(RegionId(3), Some(Incarnation(8)), positions)],
            quarantined: quarantined.iter().map(named).collect(),
            ..NamespaceViewResponse::default()
        };
        let mut heard = Heard::default();
        assert!(heard.take(&view(true, &positions, &[])));
        assert!(heard.take(&view(true, &later, std::slice::from_ref(&lacked))));
        let after = told(&heard);
        let said = after.others[&RegionId(3)].said.as_ref().map(|down| (down.incarnation, &down.proved));
        assert_eq!(said, Some((Incarnation(8), &positions)), "not later than its word on runs");
        assert!(after.exceptions.contains(&lacked));
        let held = key("v", 1);
        assert!(
            heard.take(&NamespaceViewResponse { withheld: vec![named(&held)], ..view(true, &later, &[]) })
        );
        assert!(told(&heard).exceptions.contains(&held), "what it holds back, no third region has from it");
        assert!(!heard.take(&view(false, &later, &[])), "it does not know the namespace");
    }
}
