//! `antipode dev`: one to five regions in one process, linked to each other by real gRPC on loopback. Everything that can
//! be refused is refused before anything is written.

mod banner;
pub mod folder;
mod namespace;
pub mod ports;

use antipode_config::{Dev, Log, LogFormat, Node as Config, Store};

use crate::{
    cli::{DevArguments, FormatArgument},
    logging,
    process::{self, Bound, Region},
};

/// Why `dev` does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option.
    #[error(transparent)]
    Config(#[from] antipode_config::Error),
    /// `--log`.
    #[error(transparent)]
    Log(#[from] logging::BadFilter),
    /// `--data-dir`.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// A port.
    #[error(transparent)]
    Port(#[from] ports::Error),
    /// `--namespace`.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// A region.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A region's file is damaged, or belongs to another set-up; the words name it.
    #[error("--data-dir: {0}")]
    Store(String),
    /// Standard output, signals, threads.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`Error`], one line.
pub fn run(arguments: DevArguments) -> Result<(), Error> {
    let filter = logging::filter(&arguments.log)?;
    let format = match arguments.log_format {
        FormatArgument::Human => LogFormat::Human,
        FormatArgument::Json => LogFormat::Json,
    };
    namespace::check_name(&arguments.namespace)?;
    let dev = Dev {
        regions: arguments.regions,
        data_dir: arguments.data_dir,
        in_memory: arguments.in_memory,
        base_port: arguments.base_port,
        log: Log { filter: arguments.log, format },
    };
    let nodes = dev.nodes()?;
    let bound = ports::take(&nodes)?;
    let held = if dev.in_memory { None } else { Some(hold(&dev, &nodes)?) };
    logging::install(filter, format, nodes.iter().map(|node| node.region.name.clone()).collect());
    process::coordinator()?.block_on(serve(nodes, bound, held, &arguments.namespace))
}

/// Looks at the folder and at every region's file in it, and then makes it ours.
fn hold(dev: &Dev, nodes: &[Config]) -> Result<folder::Held, Error> {
    let checked = folder::Checked::look(&dev.data_dir)?;
    for node in nodes.iter().filter(|node| checked.regions().contains(&node.region.name)) {
        check_identity(node)?;
    }
    Ok(checked.hold()?)
}

/// A file that was made for another region, or another arithmetic of versions, is refused before any file is touched.
fn check_identity(node: &Config) -> Result<(), Error> {
    let Store::Sqlite { path } = &node.store else { return Ok(()) };
    match antipode_persistence::sqlite::inspect(path).map_err(|error| Error::Store(error.to_string()))? {
        Some(identity) => crate::node::check_identity(node, path, &identity).map_err(Error::Store),
        None => Ok(()),
    }
}

async fn serve(
    nodes: Vec<Config>,
    bound: Vec<Bound>,
    held: Option<folder::Held>,
    name: &str,
) -> Result<(), Error> {
    let signals = process::Signals::take()?;
    let preparing: Vec<_> = nodes
        .iter()
        .zip(bound)
        .map(|(node, bound)| tokio::spawn(Region::prepare(node.clone(), bound)))
        .collect();
    let mut regions = Vec::with_capacity(nodes.len());
    let mut failed = None;
    // All are waited for, also after one has failed: what was opened must be closed.
    for (node, region) in nodes.iter().zip(preparing) {
        match region.await {
            Ok(Ok(region)) => regions.push(region),
            Ok(Err(error)) => failed = failed.or(Some(error)),
            Err(_broken) => failed = failed.or(Some(process::Error::Broken(node.region.name.clone()))),
        }
    }
    if let Some(error) = failed {
        stop(regions).await;
        return Err(error.into());
    }
    let served = settle(&nodes, &regions, held, name, signals).await;
    stop(regions).await;
    served
}

/// The folder stays ours until this returns.
async fn settle(
    nodes: &[Config],
    regions: &[Region],
    mut held: Option<folder::Held>,
    name: &str,
    signals: process::Signals,
) -> Result<(), Error> {
    if let Some(held) = &mut held {
        held.remember(nodes.iter().map(|node| node.region.name.as_str()))?;
    }
    // Before anybody is answered: a region that joins must be in the list before its peers send it their logs.
    let active = namespace::ensure(nodes, regions, name).await?;
    for region in regions {
        region.serve().await?;
    }
    let program = std::env::args().next().unwrap_or_else(|| "antipode".to_string());
    banner::print(&mut std::io::stdout(), nodes, name, &active, &program)?;
    signals.asked_to_stop().await;
    tracing::info!("stopping");
    Ok(())
}

/// Stops all regions at once: none waits for another's links.
async fn stop(regions: Vec<Region>) {
    let stopping: Vec<_> = regions.into_iter().map(|region| tokio::spawn(region.stop())).collect();
    for region in stopping {
        match region.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a region did not stop cleanly"),
            Err(error) => tracing::error!(%error, "a region did not stop cleanly"),
        }
    }
}
