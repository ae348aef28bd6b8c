//! `antipode start --config FILE`: one region in this process.

use antipode_config::Store;
use antipode_env::net::reserve;

use crate::{
    cli::StartArguments,
    logging,
    process::{self, Bound, Region},
};

/// Why `start` does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error(transparent)]
    Config(#[from] antipode_config::Error),
    /// `log.filter`.
    #[error(transparent)]
    Log(#[from] logging::BadFilter),
    /// `listen`.
    #[error("{path}: cannot listen on {address}: {}", process::plain(&why.to_string()))]
    Port {
        /// Key.
        path: &'static str,
        /// Address.
        address: std::net::SocketAddr,
        /// The system's words.
        why: std::io::Error,
    },
    /// `store`.
    #[error("store.sqlite.path: {0}")]
    Store(String),
    /// The region.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Signals, threads.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`Error`], one line.
pub fn run(arguments: &StartArguments) -> Result<(), Error> {
    let node = antipode_config::load(&arguments.config, |name| std::env::var(name).ok())?;
    let filter = logging::filter(&node.log.filter)?;
    let bound = bind(&node)?;
    if let Store::Sqlite { path } = &node.store {
        let stored =
            antipode_persistence::sqlite::inspect(path).map_err(|error| Error::Store(error.to_string()))?;
        if let Some(identity) = stored {
            crate::node::check_identity(&node, path, &identity).map_err(Error::Store)?;
        }
    }
    logging::install(filter, node.log.format, vec![node.region.name.clone()]);
    process::coordinator()?.block_on(async {
        let signals = process::Signals::take()?;
        let (name, address) = (node.region.name.clone(), node.listen.grpc);
        let region = Region::prepare(node, bound).await?;
        region.serve().await?;
        tracing::info!(region = name, %address, "serving");
        signals.asked_to_stop().await;
        tracing::info!("stopping");
        Ok(region.stop().await?)
    })
}

fn bind(node: &antipode_config::Node) -> Result<Bound, Error> {
    let listen = |path, address| reserve(address).map_err(|why| Error::Port { path, address, why });
    let grpc = listen("listen.grpc", node.listen.grpc)?;
    let metrics = node.listen.metrics.map(|address| listen("listen.metrics", address)).transpose()?;
    Ok(Bound { grpc, metrics })
}
