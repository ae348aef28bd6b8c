//! Regions as parts of a process: each on a runtime of its own whose threads carry its name, so that logs tell regions
//! apart and one region's load does not starve another's; and the signals that end a process.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use antipode_config::Node as Config;
use antipode_env::net;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use crate::node::{self, Listeners, Node, Seams};

/// How long what is left of a region may take after it was stopped.
const LEFTOVERS: Duration = Duration::from_secs(3);

/// Why a process does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system has no threads or no signals to give.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A node does not start.
    #[error("region {region}: {error}")]
    Node {
        /// Which.
        region: String,
        /// Why.
        error: node::Error,
    },
    /// A node's start broke off.
    #[error("region {0}: its start broke off; the log says more")]
    Broken(String),
}

/// The listeners of one node, bound and not yet accepting.
#[derive(Debug)]
pub struct Bound {
    /// API, operator service, links, health.
    pub grpc: TcpListener,
    /// Metrics, when the node has them.
    pub metrics: Option<TcpListener>,
}

/// A region, prepared or running.
pub struct Region {
    name: String,
    runtime: Runtime,
    node: Arc<Node>,
}

impl Region {
    /// Prepares a node on a runtime of its own.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn prepare(config: Config, bound: Bound) -> Result<Self, Error> {
        let name = config.region.name.clone();
        let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name(&name).enable_all().build()?;
        let starting = runtime.spawn(async move {
            let listeners =
                Listeners { grpc: listener(bound.grpc)?, metrics: bound.metrics.map(listener).transpose()? };
            Node::prepare(config, listeners, Seams::of_the_system()?).await
        });
        let started = match starting.await {
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => Err(Error::Node { region: name.clone(), error }),
            Err(_broken) => Err(Error::Broken(name.clone())),
        };
        match started {
            Ok(node) => Ok(Self { name, runtime, node: Arc::new(node) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// It broke off.
    pub async fn serve(&self) -> Result<(), Error> {
        let node = Arc::clone(&self.node);
        self.on(async move { node.serve() }).await
    }

    /// Runs something on the region's own threads.
    ///
    /// # Errors
    /// It broke off.
    pub async fn on<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.runtime.spawn(work).await.map_err(|_| Error::Broken(self.name.clone()))
    }

    /// Stops the node and its runtime.
    ///
    /// # Errors
    /// Its stop broke off.
    pub async fn stop(self) -> Result<(), Error> {
        let node = Arc::clone(&self.node);
        let stopped = self.on(async move { node.stop().await }).await;
        drop(self.node);
        // Ends what is left, and with it the last use of the store, which is closed then. It blocks.
        let runtime = self.runtime;
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LEFTOVERS)).await;
        stopped.and(ended.map_err(|_| Error::Broken(self.name)))
    }
}

fn listener(bound: TcpListener) -> io::Result<Arc<dyn net::Listener>> {
    Ok(Arc::new(net::TcpListener::from_std(bound)?))
}

/// Ctrl-C and SIGTERM. Taken over before anything is started: from then on a signal is never lost, and never ends the
/// process in the middle.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits until the process is asked to stop; asked a second time it ends at once.
    pub async fn asked_to_stop(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            eprintln!("stopped at once; nothing that was acknowledged is lost");
            std::process::exit(130);
        });
    }
}

/// A runtime for what coordinates a process.
///
/// # Errors
/// The system refuses.
pub fn coordinator() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The system's words without the number of its error, which helps nobody who reads one line.
#[must_use]
pub(crate) fn plain(text: &str) -> &str {
    text.split(" (os error").next().unwrap_or(text)
}
