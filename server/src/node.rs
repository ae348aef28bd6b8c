//! A node: one region's store, namespaces, shards, task queues, links, public API and operator service, put together. Used
//! by `dev`, by `start` and by tests; it takes its listeners and every seam from whoever starts it.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use antipode_config::{Node as Config, Store as Storage};
use antipode_core::ids::{Incarnation, NamespaceId};
use antipode_env::{
    Clock, Connector, Entropy, Listener, OsEntropy, StoreExecutor, SystemClock, TcpConnector,
};
use antipode_frontend::{Context, Frontend, Metrics as FrontendMetrics};
use antipode_history::{client::Client, host, metrics::Metrics as HistoryMetrics, namespaces::Namespaces};
use antipode_matching::{Matching, Settings};
use antipode_persistence::{
    MemoryStore, Store,
    rows::{Identity, RegionRow},
    sqlite::{Location, Options, SqliteStore},
};
use antipode_replicator::Replicator;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{admin, metrics, wiring};

/// Bytes of runs that a region keeps in memory, about.
const CACHE_BYTES: usize = 64 << 20;
/// How long calls that were taken in may go on after a stop.
const CALLS_PATIENCE: Duration = Duration::from_secs(3);
/// How long a shard's commit in flight may take.
const SHARDS_PATIENCE: Duration = Duration::from_secs(10);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] antipode_persistence::Error),
    /// The namespaces in the store.
    #[error("namespaces: {0}")]
    Namespaces(#[from] antipode_history::namespaces::Error),
    /// The links.
    #[error("links: {0}")]
    Links(#[from] antipode_replicator::Error),
    /// Sockets, threads, entropy.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// The world a node runs in.
#[derive(Clone)]
pub struct Seams {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// The way out.
    pub connector: Arc<dyn Connector>,
    /// How blocking store calls are run.
    pub executor: StoreExecutor,
}

impl Seams {
    /// The system's own.
    ///
    /// # Errors
    /// The system has no entropy to give.
    pub fn of_the_system() -> std::io::Result<Self> {
        Ok(Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy::new()?),
            connector: Arc::new(TcpConnector),
            executor: StoreExecutor::Threaded,
        })
    }
}

/// Where a node is reached.
#[derive(Clone)]
pub struct Listeners {
    /// Public API, operator service, links and health.
    pub grpc: Arc<dyn Listener>,
    /// Metrics.
    pub metrics: Option<Arc<dyn Listener>>,
}

/// What a prepared node needs to serve.
struct Ready {
    routes: Routes,
    registry: Registry,
    listeners: Listeners,
}

/// A node, prepared or running.
pub struct Node {
    namespaces: Arc<Namespaces>,
    history: Client,
    matching: Matching,
    replicator: Replicator,
    health: HealthReporter,
    stop: CancellationToken,
    ready: Mutex<Option<Ready>>,
    serving: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Opens the store and starts the shards and links, and serves. When this returns the node answers.
    ///
    /// # Errors
    /// As [`Node::prepare`].
    pub async fn start(config: Config, listeners: Listeners, seams: Seams) -> Result<Self, Error> {
        let node = Self::prepare(config, listeners, seams).await?;
        node.serve();
        Ok(node)
    }

    /// Opens the store and starts the shards and links. Nobody is answered before [`Node::serve`]: what must be true before
    /// the first call, of a client or of a peer, is made true in between.
    ///
    /// # Errors
    /// [`Error`]; what was started ends.
    pub async fn prepare(config: Config, listeners: Listeners, seams: Seams) -> Result<Self, Error> {
        let store = open(&config, &seams)?;
        let mut registry = metrics::registry(&config.region);
        let namespaces = Arc::new(
            Namespaces::load(Arc::clone(&store), Arc::clone(&seams.clock), Arc::clone(&seams.entropy))
                .await?,
        );
        let matching = matching(&seams, &mut registry);
        let history = shards(&store, &namespaces, &matching, &seams, &mut registry);
        matching.connect(history.clone());
        tell_of_changes(&namespaces, &history, &matching);
        let replicator = links(&config, &store, &namespaces, &history, &seams, &mut registry).await?;
        let frontend =
            frontend(&config, &store, &namespaces, &matching, &history, &replicator, &seams, &mut registry);
        replicator.serve_forwarded(Arc::new(wiring::forwarded::Target::new(&frontend)));
        let (routes, health) = antipode_frontend::router(frontend).await;
        let operator = admin::Service {
            region: Arc::from(config.region.name.as_str()),
            namespaces: Arc::clone(&namespaces),
            history: history.clone(),
            replicator: replicator.clone(),
        };
        let routes = routes.add_service(replicator.service()).add_service(operator.into_server());
        let stop = CancellationToken::new();
        let ready = Mutex::new(Some(Ready { routes, registry, listeners }));
        Ok(Self { namespaces, history, matching, replicator, health, stop, ready, serving: Mutex::default() })
    }

    /// Begins to answer; a second call does nothing.
    pub fn serve(&self) {
        let Some(Ready { routes, registry, listeners }) = lock(&self.ready).take() else { return };
        let mut serving = lock(&self.serving);
        serving.push(tokio::spawn(serve(routes, listeners.grpc, self.stop.clone())));
        if let Some(listener) = listeners.metrics {
            serving.push(tokio::spawn(metrics::serve(listener, Arc::new(registry), self.stop.clone())));
        }
    }

    /// The namespaces of this region.
    #[must_use]
    pub fn namespaces(&self) -> &Arc<Namespaces> {
        &self.namespaces
    }

    /// Its shards.
    #[must_use]
    pub fn history(&self) -> &Client {
        &self.history
    }

    /// Its links.
    #[must_use]
    pub fn replicator(&self) -> &Replicator {
        &self.replicator
    }

    /// Stops: no new calls, polls return empty, links close, commits in flight finish.
    pub async fn stop(&self) {
        for name in antipode_frontend::router::services() {
            self.health.set_service_status(name, ServingStatus::NotServing).await;
        }
        self.stop.cancel();
        self.matching.shutdown();
        self.replicator.stop().await;
        lock(&self.ready).take();
        let serving = std::mem::take(&mut *lock(&self.serving));
        for mut task in serving {
            if tokio::time::timeout(CALLS_PATIENCE, &mut task).await.is_err() {
                // Long polls whose callers wait longer than a stop may take: they ask again elsewhere.
                task.abort();
            }
        }
        self.history.stop(SHARDS_PATIENCE).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a store belongs to the node that wants to open it: the name and version class of a region are for ever.
///
/// # Errors
/// Both sides, in words.
pub fn check_identity(config: &Config, path: &Path, stored: &Identity) -> Result<(), String> {
    let words = |region: &str, initial: u32, increment: u32, shards: u32| {
        format!("region {region} (initial version {initial}, increment {increment}, {shards} shards)")
    };
    let Config { region, shards, .. } = config;
    let wanted = words(&region.name, region.initial_version, region.increment, *shards);
    let found = words(&stored.region, stored.initial, stored.increment, stored.shards);
    if wanted == found {
        Ok(())
    } else {
        Err(format!("{} belongs to {found}, not to {wanted}", path.display()))
    }
}

/// Opens or makes the store.
fn open(config: &Config, seams: &Seams) -> Result<Arc<dyn Store>, Error> {
    // A store that exists keeps its own cluster id and incarnation.
    let identity = Identity {
        region: config.region.name.clone(),
        initial: config.region.initial_version,
        increment: config.region.increment,
        shards: config.shards,
        cluster_id: NamespaceId::from_random(seams.entropy.bytes16()).to_string(),
        incarnation: Incarnation(seams.entropy.u64()),
    };
    Ok(match &config.store {
        Storage::Memory {} => Arc::new(MemoryStore::new(identity)),
        Storage::Sqlite { path } => {
            let location = Location::File(path.clone());
            Arc::new(SqliteStore::open(Options { location, identity, executor: seams.executor })?)
        }
    })
}

/// Counters of the crates that name theirs without the product's name.
fn product(registry: &mut Registry) -> &mut Registry {
    registry.sub_registry_with_prefix("antipode")
}

fn matching(seams: &Seams, registry: &mut Registry) -> Matching {
    Matching::new(Settings::default(), Arc::clone(&seams.clock), &*seams.entropy, product(registry))
}

fn shards(
    store: &Arc<dyn Store>,
    namespaces: &Arc<Namespaces>,
    matching: &Matching,
    seams: &Seams,
    registry: &mut Registry,
) -> Client {
    host::start(&host::Parts {
        store: Arc::clone(store),
        namespaces: Arc::clone(namespaces),
        dispatcher: Arc::new(matching.clone()),
        clock: Arc::clone(&seams.clock),
        entropy: Arc::clone(&seams.entropy),
        metrics: HistoryMetrics::new(registry),
        cache_bytes: CACHE_BYTES,
    })
}

/// Every change of a record reaches every shard as an ordered input (D6), and then the task queues: what they hold of a
/// namespace that moved away is worthless.
fn tell_of_changes(namespaces: &Arc<Namespaces>, history: &Client, matching: &Matching) {
    let (history, matching) = (history.clone(), matching.clone());
    let registry = Arc::downgrade(namespaces);
    namespaces.attach(move |id| {
        let (history, matching, registry) = (history.clone(), matching.clone(), registry.clone());
        async move {
            history.namespace_changed(id).await;
            let moved_away = registry
                .upgrade()
                .and_then(|namespaces| namespaces.by_id(id))
                .is_some_and(|entry| !entry.active_here());
            if moved_away {
                matching.namespace_passive(id);
            }
        }
    });
}

async fn links(
    config: &Config,
    store: &Arc<dyn Store>,
    namespaces: &Arc<Namespaces>,
    history: &Client,
    seams: &Seams,
    registry: &mut Registry,
) -> Result<Replicator, Error> {
    let peers = config.peers.iter().map(|peer| RegionRow {
        name: peer.name.clone(),
        initial: peer.initial_version,
        address: peer.address.clone(),
        enabled: true,
        retired: false,
    });
    let parts = antipode_replicator::Parts {
        address: config.address(),
        peers: peers.collect(),
        server_version: env!("CARGO_PKG_VERSION").to_string(),
        store: Arc::clone(store),
        history: history.clone(),
        namespaces: Arc::clone(namespaces),
        clock: Arc::clone(&seams.clock),
        entropy: Arc::clone(&seams.entropy),
        connector: Arc::clone(&seams.connector),
    };
    Ok(Replicator::start(parts, product(registry)).await?)
}

#[expect(clippy::too_many_arguments, reason = "one call, which names everything a frontend stands on")]
fn frontend(
    config: &Config,
    store: &Arc<dyn Store>,
    namespaces: &Arc<Namespaces>,
    matching: &Matching,
    history: &Client,
    replicator: &Replicator,
    seams: &Seams,
    registry: &mut Registry,
) -> Frontend {
    let kind = match &config.store {
        Storage::Sqlite { .. } => "sqlite",
        Storage::Memory {} => "memory",
    };
    Frontend::new(Arc::new(Context {
        clock: Arc::clone(&seams.clock),
        entropy: Arc::clone(&seams.entropy),
        history: Arc::new(history.clone()),
        matching: Arc::new(matching.clone()),
        namespaces: Arc::new(wiring::namespaces::Registry::new(Arc::clone(namespaces))),
        visibility: Arc::clone(store) as Arc<_>,
        peers: Arc::new(wiring::peers::Links(replicator.clone())),
        operations: Arc::new(wiring::operations::Verbs(replicator.clone())),
        region: antipode_frontend::Region {
            name: config.region.name.clone(),
            initial: config.region.initial_version,
            increment: config.region.increment,
            cluster_id: store.identity().cluster_id.clone(),
            store: kind.to_string(),
        },
        metrics: FrontendMetrics::register(product(registry)),
        held: AtomicUsize::new(0),
    }))
}

async fn serve(routes: Routes, listener: Arc<dyn Listener>, stop: CancellationToken) {
    let server = antipode_env::grpc::server().add_routes(routes);
    let incoming = antipode_env::grpc::incoming(listener);
    let served: Result<(), transport::Error> =
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}
