//! A node's replicator, put together: what the server makes, starts, serves and stops.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antipode_core::ids::{Incarnation, RegionId, Sequence, ShardId};
use antipode_env::{Clock, Connector, Entropy};
use antipode_history::{client::Client, namespaces::Namespaces};
use antipode_persistence::{
    Store,
    rows::{PositionRow, RegionRow},
};
use antipode_proto::{
    admin::{FailoverReply, FailoverRequest, LinkStatusReply, link_status_reply},
    antipode::link::v1::link_server::LinkServer,
};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    failover::Failover,
    forward::{ForwardTarget, Forwarder},
    gate::LinkGate,
    keeper,
    metrics::Metrics,
    peers::{self, RegionView},
    receiver,
    server::{self, LinkService},
    shared::{Peer, Shared},
};

/// What a replicator is made of.
pub struct Parts {
    /// Address that other regions dial.
    pub address: String,
    /// Version of the server, for the peers' eyes.
    pub server_version: String,
    /// Peers of the configuration; stored ones need not be named.
    pub peers: Vec<RegionRow>,
    /// Store of this region.
    pub store: Arc<dyn Store>,
    /// Shards of this region.
    pub history: Client,
    /// Namespaces of this region.
    pub namespaces: Arc<Namespaces>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// Entropy.
    pub entropy: Arc<dyn Entropy>,
    /// How connections to peers are made.
    pub connector: Arc<dyn Connector>,
}

/// The links of one node. Cheap to clone.
#[derive(Clone)]
pub struct Replicator {
    shared: Arc<Shared>,
    failover: Arc<Failover>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Replicator {
    /// Reads peers, positions and quarantine from the store, dials the peers and goes on with unfinished hand-overs.
    ///
    /// # Errors
    /// [`Error`]: the store fails, or a configured peer does not fit what is stored.
    pub async fn start(mut parts: Parts, registry: &mut Registry) -> Result<Self, Error> {
        let configured = std::mem::take(&mut parts.peers);
        let shared = Arc::new(Shared::new(parts, Metrics::new(registry)));
        peers::load(&shared, configured).await?;
        remember(&shared).await?;
        let failover = Arc::new(Failover::new(Arc::clone(&shared)));
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(Arc::clone(&shared)));
        tasks.spawn(keeper::run(Arc::clone(&failover)));
        Ok(Self { shared, failover, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// Ends all streams and tasks.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }

    /// The gRPC service that other regions call.
    #[must_use]
    pub fn service(&self) -> LinkServer<LinkService> {
        server::service(Arc::clone(&self.shared), Arc::clone(&self.failover))
    }

    /// Who answers forwarded calls; set once, before the service is served.
    pub fn serve_forwarded(&self, target: Arc<dyn ForwardTarget>) {
        if self.shared.forward_target.set(target).is_err() {
            tracing::error!(
                "the link service has its target of forwarded calls already; the second is not used"
            );
        }
    }

    /// Cuts, heals and holds.
    #[must_use]
    pub fn gate(&self) -> Arc<LinkGate> {
        Arc::clone(&self.shared.gate)
    }

    /// Sends calls to other regions.
    #[must_use]
    pub fn forwarder(&self) -> Forwarder {
        Forwarder::new(Arc::clone(&self.shared))
    }

    /// Moves a namespace: hands over or, with `force`, takes it. The same from any region.
    ///
    /// # Errors
    /// [`Error`], with advice where there is some.
    pub async fn failover(&self, request: FailoverRequest) -> Result<FailoverReply, Error> {
        self.failover.run(request).await
    }

    /// What `UpdateNamespace` with an active cluster does: hands over when the active region answers within two seconds,
    /// else forces at the target. The reply says which.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update_active_cluster(
        &self,
        namespace: &str,
        to: &str,
        who: &str,
    ) -> Result<FailoverReply, Error> {
        self.failover.update_active_cluster(namespace, to, who).await
    }

    /// Whether a region answers within this time.
    pub async fn reachable(&self, region: &str, patience: Duration) -> bool {
        self.failover.reachable(region, patience).await
    }

    /// All regions, this one first.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionView> {
        peers::view(&self.shared)
    }

    /// Adds the region at an address, or changes the one known there (R120, R122).
    ///
    /// # Errors
    /// [`Error`] names what does not fit.
    pub async fn region_upsert(&self, address: &str, enabled: bool) -> Result<(), Error> {
        peers::add_or_update(&self.shared, address, enabled).await
    }

    /// Removes a region (R121); its versions are never given away (I29).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn region_remove(&self, name: &str) -> Result<(), Error> {
        peers::remove(&self.shared, name).await
    }

    /// The links as they are.
    #[must_use]
    pub fn status(&self) -> LinkStatusReply {
        let peers = self.shared.peers.load_full();
        LinkStatusReply { peers: peers.values().map(|peer| status(&self.shared, peer)).collect() }
    }
}

fn status(shared: &Shared, peer: &Peer) -> link_status_reply::Peer {
    let known = peer.state.known();
    let own = (1..=shared.history.shard_count()).map(ShardId);
    let theirs = known.proof_of_peer.keys().copied();
    let ids: std::collections::BTreeSet<ShardId> = own.chain(theirs).collect();
    let mut lag_entries = 0;
    let mut shards = Vec::new();
    for shard in ids {
        let committed = shared.history.committed(shard).map(|position| position.borrow().0);
        let proof = known.proof_by_peer.get(&shard).copied().unwrap_or_default().0;
        lag_entries += committed.unwrap_or_default().saturating_sub(proof);
        shards.push(link_status_reply::ShardPosition {
            shard: shard.0,
            committed: committed.unwrap_or_default(),
            proof_by_peer: proof,
            proof_of_peer: known.proof_of_peer.get(&shard).copied().unwrap_or_default().0,
        });
    }
    link_status_reply::Peer {
        region: peer.name.to_string(),
        address: peer.address.clone(),
        sending: known.senders > 0,
        receiving: known.receiving,
        cut_out: !shared.gate.lets_out(&peer.name),
        cut_in: !shared.gate.lets_in(&peer.name),
        lag_entries,
        shards,
        last_error: known.last_error.clone(),
        quarantined: known.exceptions_here.len() as u64,
        clock_skew_millis: known.skew.map(|skew| skew.ahead.0 / 1_000_000),
    }
}

/// Positions and exceptions of the peers, as stored.
async fn remember(shared: &Shared) -> Result<(), Error> {
    let mut lives: BTreeMap<(RegionId, Incarnation), BTreeMap<ShardId, Sequence>> = BTreeMap::new();
    for PositionRow { source, incarnation, shard, sequence } in shared.store.position_all().await? {
        lives.entry((RegionId(source), incarnation)).or_default().insert(shard, sequence);
    }
    let quarantined = shared.store.quarantine_all().await?;
    for peer in shared.peers.load().values() {
        // Of several lives of its store, the one we know most of; if it is not the present one, all is sent again.
        let of_peer = lives.iter().filter(|((source, _), _)| *source == peer.id);
        let last = of_peer.max_by_key(|(_, positions)| positions.values().map(|at| at.0).sum::<u64>());
        peer.state.change(|known| {
            if let Some(((_, incarnation), positions)) = last {
                known.incarnation = Some(*incarnation);
                known.proof_of_peer.clone_from(positions);
            }
            for row in quarantined.iter().filter(|row| row.source == peer.id.0) {
                if let Err(full) = known.exceptions_here.add(&row.key, &row.reason, row.behind) {
                    tracing::error!(run = %row.key, %full, "a stored quarantine row is beyond the cap");
                }
            }
        });
    }
    Ok(())
}

/// A running receiver.
struct Receiving {
    address: String,
    cancel: CancellationToken,
}

/// Keeps one receiver for each enabled peer.
async fn supervise(shared: Arc<Shared>) {
    let mut changes = shared.peers_changed.subscribe();
    let mut receiving: BTreeMap<Arc<str>, Receiving> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        changes.borrow_and_update();
        let peers = shared.enabled_peers();
        receiving.retain(|name, running| {
            let stays = peers.iter().any(|peer| peer.name == *name && peer.address == running.address);
            if !stays {
                running.cancel.cancel();
            }
            stays
        });
        for peer in peers {
            if !receiving.contains_key(&peer.name) {
                let cancel = shared.stop.child_token();
                let running = Receiving { address: peer.address.clone(), cancel: cancel.clone() };
                receiving.insert(Arc::clone(&peer.name), running);
                tasks.spawn(receiver::run(Arc::clone(&shared), peer, cancel));
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            _ = changes.changed() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}
