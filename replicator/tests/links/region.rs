//! A region in this process: real links over loopback gRPC, a memory store, and the test's shards.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use antipode_core::{
    ids::{Incarnation, NamespaceId, RunId, RunKey, WorkflowId},
    namespace::{Config, Info},
};
use antipode_env::{Clock, Listener, SeededEntropy, SystemClock, TcpConnector, TcpListener, grpc};
use antipode_history::namespaces::{Entry, Namespaces, NewNamespace};
use antipode_persistence::{
    memory::MemoryStore,
    rows::{Identity, RegionRow},
};
use antipode_proto::link::{ForwardRequest, ForwardResponse};
use antipode_replicator::{ForwardTarget, Parts, Replicator};
use async_trait::async_trait;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::shard::Shards;

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) shards: Shards,
    pub(crate) replicator: Replicator,
    ahead: Arc<Ahead>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

/// A place for a region: what survives its restart.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) initial: u32,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) address: String,
    pub(crate) ahead: Arc<Ahead>,
}

/// The system's clock, set wrong by so many nanoseconds.
#[derive(Default)]
pub(crate) struct Ahead(pub(crate) AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> i64 {
        SystemClock.now() + self.0.load(Ordering::SeqCst)
    }
}

/// Answers forwarded calls with its own name.
struct Echo(&'static str);

#[async_trait]
impl ForwardTarget for Echo {
    async fn serve(&self, request: ForwardRequest) -> ForwardResponse {
        let message = format!("{} {} from {}", self.0, request.method, request.caller_region);
        ForwardResponse { message: message.into_bytes().into(), ..ForwardResponse::default() }
    }
}

/// Places for regions of these names and shard counts, each with a port of its own.
pub(crate) async fn places(regions: &[(&'static str, u32)]) -> (Vec<Place>, Vec<Arc<dyn Listener>>) {
    let (mut places, mut listeners) = (Vec::new(), Vec::new());
    for (index, (name, shards)) in regions.iter().enumerate() {
        let listener = Arc::new(TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap());
        let initial = u32::try_from(index + 1).unwrap();
        places.push(Place {
            name,
            initial,
            ahead: Arc::default(),
            store: Arc::new(MemoryStore::new(Identity {
                region: (*name).to_string(),
                initial,
                increment: 10,
                shards: *shards,
                cluster_id: format!("cluster of {name}"),
                incarnation: Incarnation(u64::from(initial) * 100),
            })),
            address: listener.local_addr().unwrap().to_string(),
        });
        listeners.push(listener as Arc<dyn Listener>);
    }
    (places, listeners)
}

impl Region {
    pub(crate) async fn start(place: &Place, peers: &[Place], listener: Arc<dyn Listener>) -> Self {
        let store = Arc::clone(&place.store);
        let entropy = Arc::new(SeededEntropy::new(u64::from(place.initial)));
        let clock = Arc::clone(&place.ahead);
        let rows = peers.iter().filter(|peer| peer.name != place.name).map(|peer| RegionRow {
            name: peer.name.to_string(),
            initial: peer.initial,
            address: peer.address.clone(),
            enabled: true,
            retired: false,
        });
        let namespaces =
            Arc::new(Namespaces::load(store.clone(), clock.clone(), entropy.clone()).await.unwrap());
        let shards = Shards::start(&store, &namespaces).await;
        let parts = Parts {
            address: place.address.clone(),
            server_version: "test".to_string(),
            peers: rows.collect(),
            store: store.clone(),
            history: shards.client.clone(),
            namespaces: Arc::clone(&namespaces),
            clock,
            entropy,
            connector: Arc::new(TcpConnector),
        };
        let replicator = Replicator::start(parts, &mut Registry::default()).await.unwrap();
        replicator.serve_forwarded(Arc::new(Echo(place.name)));
        let stop = CancellationToken::new();
        let server = grpc::server().add_service(replicator.service());
        let incoming = grpc::incoming(listener);
        let stopping = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            server.serve_with_incoming_shutdown(incoming, stopping).await.unwrap();
        });
        let ahead = Arc::clone(&place.ahead);
        Self { name: place.name, store, namespaces, shards, replicator, ahead, stop, serving }
    }

    /// Sets this region's clock wrong.
    pub(crate) fn set_ahead(&self, millis: i64) {
        self.ahead.0.store(millis * 1_000_000, Ordering::SeqCst);
    }

    /// Stops; what is left is the store.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.replicator.stop().await;
        self.shards.client.stop(PATIENCE).await;
        self.serving.abort();
    }

    /// A global namespace, active here.
    pub(crate) async fn namespace(&self, name: &str, regions: &[&str]) -> Arc<Entry> {
        let new = NewNamespace {
            name: name.to_string(),
            info: Info::default(),
            config: Config::default(),
            global: true,
            active: self.name.to_string(),
            regions: regions.iter().map(ToString::to_string).collect(),
        };
        self.namespaces.create(new).await.unwrap()
    }

    /// Waits until this region knows the namespace in such a form.
    pub(crate) async fn sees(&self, id: NamespaceId, what: &str, is: impl Fn(&Entry) -> bool) -> Arc<Entry> {
        let mut changes = self.namespaces.changes();
        within(&format!("{} sees that {what}", self.name), async {
            loop {
                changes.borrow_and_update();
                if let Some(entry) = self.namespaces.by_id(id)
                    && is(&entry)
                {
                    return entry;
                }
                changes.changed().await.unwrap();
            }
        })
        .await
    }

    /// Waits until this region holds the run exactly as the other does.
    pub(crate) async fn holds_what(&self, other: &Self, key: &RunKey) {
        eventually(&format!("{} holds {key} as {} does", self.name, other.name), || {
            let there = other.shards.run(key);
            there.is_some() && self.shards.run(key) == there
        })
        .await;
    }
}

/// Starts regions that all know each other.
pub(crate) async fn start(regions: &[(&'static str, u32)]) -> Vec<Region> {
    let (places, listeners) = places(regions).await;
    let mut started = Vec::new();
    for (place, listener) in places.iter().zip(listeners) {
        started.push(Region::start(place, &places, listener).await);
    }
    started
}

/// A run of a workflow in a namespace.
pub(crate) fn run(namespace: NamespaceId, workflow: &str, run: u8) -> RunKey {
    RunKey { namespace, workflow: WorkflowId::from(workflow), run: RunId::from_random([run; 16]) }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Waits for a condition that nothing announces.
pub(crate) async fn eventually(what: &str, is: impl Fn() -> bool) {
    within(what, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
