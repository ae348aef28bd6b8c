//! What all parts of a node's replicator share, and how one asks a peer something: every unary call between regions goes
//! through [`Shared::call`], which is where a cut link is felt.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use antipode_core::ids::{FailoverVersion, NamespaceId, RegionId, Timestamp};
use antipode_env::{Clock, Connector, Entropy};
use antipode_history::{client::Client, namespaces::Namespaces};
use antipode_persistence::{Store, rows::Identity};
use antipode_proto::{
    antipode::link::v1::link_client::LinkClient,
    link::{DownOrigin, HelloRequest, RegionInfo},
};
use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{
    clocks::Skew,
    error::Error,
    forward::ForwardTarget,
    gate::LinkGate,
    handshake,
    metrics::{self, Metrics},
    node::Parts,
    selection::{KnownStates, Vector},
    status::PeerState,
};

/// Metadata key under which a region says who it is: its initial version (R109).
pub(crate) const CALLER: &str = "antipode-region";
/// Messages between regions may carry whole runs.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// States of runs remembered as received.
const STATES_REMEMBERED: usize = 16_384;

/// A peer region and the way to it.
pub(crate) struct Peer {
    pub(crate) name: Arc<str>,
    pub(crate) id: RegionId,
    pub(crate) address: String,
    pub(crate) enabled: bool,
    pub(crate) channel: Channel,
    pub(crate) state: Arc<PeerState>,
}

/// Peers by name.
pub(crate) type PeerMap = BTreeMap<Arc<str>, Arc<Peer>>;

/// Says who calls.
#[derive(Clone)]
pub(crate) struct Caller(MetadataValue<Ascii>);

impl Caller {
    pub(crate) fn new(region: RegionId) -> Self {
        Self(MetadataValue::from(region.0))
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CALLER, self.0.clone());
        Ok(request)
    }
}

/// A client of a peer's link service.
pub(crate) type Link = LinkClient<InterceptedService<Channel, Caller>>;

/// Shared by all parts.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) address: String,
    pub(crate) server_version: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) history: Client,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) gate: Arc<LinkGate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) metrics: Metrics,
    pub(crate) peers: ArcSwap<PeerMap>,
    pub(crate) peers_changed: watch::Sender<u64>,
    pub(crate) forward_target: OnceLock<Arc<dyn ForwardTarget>>,
    pub(crate) stop: CancellationToken,
    /// Regions from which nothing comes now: others relay for them (C7).
    pub(crate) down: watch::Sender<BTreeSet<Arc<str>>>,
    received_states: Mutex<KnownStates>,
    versions_seen: Mutex<BTreeMap<NamespaceId, FailoverVersion>>,
}

impl Shared {
    pub(crate) fn new(parts: Parts, metrics: Metrics) -> Self {
        let identity = parts.store.identity().clone();
        Self {
            gate: Arc::new(LinkGate::new(&identity.region)),
            identity,
            address: parts.address,
            server_version: parts.server_version,
            store: parts.store,
            history: parts.history,
            namespaces: parts.namespaces,
            clock: parts.clock,
            entropy: parts.entropy,
            connector: parts.connector,
            metrics,
            peers: ArcSwap::from_pointee(PeerMap::new()),
            peers_changed: watch::Sender::new(0),
            forward_target: OnceLock::new(),
            stop: CancellationToken::new(),
            down: watch::Sender::default(),
            received_states: Mutex::new(KnownStates::new(STATES_REMEMBERED)),
            versions_seen: Mutex::default(),
        }
    }

    /// Name of this region.
    pub(crate) fn here(&self) -> &str {
        &self.identity.region
    }

    /// Number of this region.
    pub(crate) fn id(&self) -> RegionId {
        RegionId(self.identity.initial)
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now())
    }

    /// What this region says about itself.
    pub(crate) fn info(&self) -> RegionInfo {
        RegionInfo {
            name: self.identity.region.clone(),
            initial_version: self.identity.initial,
            increment: self.identity.increment,
            shard_count: self.identity.shards,
            incarnation: self.identity.incarnation.0,
            fold_version_max: antipode_core::fold::FOLD_VERSION,
            features: handshake::FEATURES,
            clock_unix_nanos: self.clock.now(),
            address: self.address.clone(),
            cluster_id: self.identity.cluster_id.clone(),
            server_version: self.server_version.clone(),
        }
    }

    /// Nothing comes from this region: the others are asked to relay for it (C7).
    pub(crate) fn origin_is_down(&self, region: &Arc<str>) {
        let news = self.down.send_if_modified(|down| down.insert(Arc::clone(region)));
        if news {
            tracing::info!(
                origin = &**region,
                "nothing comes from a region; the others are asked to relay for it"
            );
        }
    }

    /// Its own stream works, or nobody waits for it any more.
    pub(crate) fn origin_is_up(&self, region: &str) {
        if self.down.borrow().contains(region) {
            self.down.send_if_modified(|down| down.remove(region));
        }
    }

    /// Who is down and how far we have its log, as another source is told.
    pub(crate) fn down_origins(&self, source: &str) -> Vec<DownOrigin> {
        let down = self.down.borrow().clone();
        let peers = self.peers.load();
        let origins = down.iter().filter(|name| &***name != source).filter_map(|name| peers.get(name));
        let vectors = origins.map(|peer| {
            let known = peer.state.known();
            Vector::to_wire(peer.id, known.incarnation, &known.proof_of_peer)
        });
        vectors.collect()
    }

    /// Enabled peers other than this one.
    pub(crate) fn others(&self, source: &str) -> Vec<Arc<str>> {
        let peers = self.enabled_peers().into_iter().map(|peer| Arc::clone(&peer.name));
        peers.filter(|name| &**name != source).collect()
    }

    /// States received from other regions.
    pub(crate) fn received_states(&self) -> MutexGuard<'_, KnownStates> {
        self.received_states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry of this version was applied although no region had a record that reached it.
    pub(crate) fn version_overtook(&self, namespace: NamespaceId, version: FailoverVersion) {
        let mut seen = self.versions_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let greatest = seen.entry(namespace).or_default();
        *greatest = version.max(*greatest);
    }

    /// The greatest version of such entries.
    pub(crate) fn version_seen(&self, namespace: NamespaceId) -> FailoverVersion {
        let seen = self.versions_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&namespace).copied().unwrap_or_default()
    }

    /// A peer that may be talked to.
    pub(crate) fn peer(&self, name: &str) -> Result<Arc<Peer>, Error> {
        let peers = self.peers.load();
        let Some(peer) = peers.get(name) else {
            return Err(Error::NotFound(format!("region {name:?} is not known in {}", self.here())));
        };
        if !peer.enabled {
            return Err(Error::FailedPrecondition(format!("the connection to region {name} is disabled")));
        }
        Ok(Arc::clone(peer))
    }

    /// All peers that may be talked to.
    pub(crate) fn enabled_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.load().values().filter(|peer| peer.enabled).cloned().collect()
    }

    /// A client over a channel, saying who calls.
    pub(crate) fn link(&self, channel: Channel) -> Link {
        LinkClient::with_interceptor(channel, Caller::new(self.id()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Asks a peer. A cut towards it stops the call here; a cut from it lets the call act there and loses the answer, also
    /// while the call waits.
    pub(crate) async fn call<T, F>(
        &self,
        peer: &Peer,
        patience: Duration,
        ask: impl FnOnce(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.refuse_cut(&peer.name, self.gate.outward(&peer.name))?;
        let answer = tokio::time::timeout(patience, ask(self.link(peer.channel.clone())));
        let answered = tokio::select! {
            biased;
            answered = answer => answered,
            () = self.inward_cut(&peer.name) => {
                self.refuse_cut(&peer.name, self.gate.inward(&peer.name))?;
                return Err(Error::Unreachable { region: peer.name.to_string(), why: "the answer was cut off".into() });
            }
        };
        self.refuse_cut(&peer.name, self.gate.inward(&peer.name))?;
        match answered {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::of_call(&peer.name, status)),
            Err(_) => {
                let why = format!("no answer within {} ms", patience.as_millis());
                Err(Error::Unreachable { region: peer.name.to_string(), why })
            }
        }
    }

    /// Asks a peer who it is, and measures by the way how far its clock is from ours.
    pub(crate) async fn hello(&self, peer: &Peer, patience: Duration) -> Result<(RegionInfo, Skew), Error> {
        let request = HelloRequest { caller: Some(self.info()) };
        let asked = self.now();
        let response = self.call(peer, patience, |mut link| async move { link.hello(request).await }).await?;
        let answered = self.now();
        let info = response.callee.ok_or(handshake::Mismatch::Anonymous)?;
        let skew = self.measured(peer, &info, asked, answered);
        self.tell_clock(peer).await;
        Ok((info, skew))
    }

    /// A peer told its clock in answer to what was asked of it.
    pub(crate) fn measured(
        &self,
        peer: &Peer,
        info: &RegionInfo,
        asked: Timestamp,
        answered: Timestamp,
    ) -> Skew {
        let skew = Skew::measured(asked, Timestamp(info.clock_unix_nanos), answered);
        let labels = metrics::Peer { peer: peer.name.to_string() };
        self.metrics.clock_skew_millis.get_or_create(&labels).set(skew.ahead.0 / 1_000_000);
        peer.state.change(|known| known.skew = Some(skew));
        skew
    }

    /// Tells our shards how far the clock of this peer may be behind ours, as last measured (H2).
    pub(crate) async fn tell_clock(&self, peer: &Peer) {
        let measured = peer.state.known().skew;
        if let Some(skew) = measured {
            self.history.clock(peer.id, skew.behind()).await;
        }
    }

    /// Counts a cut that was met.
    pub(crate) fn refuse_cut(&self, peer: &str, checked: Result<(), crate::gate::Cut>) -> Result<(), Error> {
        checked.map_err(|cut| {
            Metrics::peer(&self.metrics.cut_refusals, peer, 1);
            Error::Cut(cut)
        })
    }

    /// Waits until what comes from this peer is cut while this call is under way. A cut that is there already is seen when
    /// the answer arrives: the request must reach the peer and act there.
    async fn inward_cut(&self, peer: &str) {
        let mut changes = self.gate.changes();
        let was_cut = !self.gate.lets_in(peer);
        loop {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if !was_cut && !self.gate.lets_in(peer) {
                return;
            }
        }
    }
}
