//! The namespace of `antipode dev`: minted once, in the first region, with all regions in its list. The other regions are
//! handed the very record, by the same merge that a link uses, so that they know it before anybody can ask; nothing can
//! diverge, because merges give the same bytes in any order. After a restart with more regions the list grows, in every
//! region before it answers its peers: entries of a namespace are sent to the regions of its list only.

use std::{collections::BTreeSet, sync::Arc};

use antipode_config::Node as Config;
use antipode_core::namespace::{Config as Settings, Info};
use antipode_history::namespaces::{Entry, Namespaces, NewNamespace};
use antipode_proto::core::NamespaceRecord;

use crate::process::{self, Region};

/// How long closed runs are kept.
const RETENTION_SECONDS: i64 = 72 * 3600;

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--namespace`.
    #[error("--{0}")]
    Name(String),
    /// The registry.
    #[error("namespace {name:?}: {why}")]
    Registry {
        /// Name.
        name: String,
        /// Its words.
        why: String,
    },
    /// A region broke off.
    #[error(transparent)]
    Process(#[from] process::Error),
}

/// Checks `--namespace`.
///
/// # Errors
/// [`Error::Name`].
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    crate::names::check(name).map_err(Error::Name)
}

/// Mints the namespace or finds it, and sees to it that every started region knows it; where it is active.
///
/// # Errors
/// [`Error`].
pub(super) async fn ensure(nodes: &[Config], regions: &[Region], name: &str) -> Result<String, Error> {
    let started: Vec<String> = nodes.iter().map(|node| node.region.name.clone()).collect();
    // Where it is known already it is not minted again, whichever region that is.
    let holder = regions.iter().find(|region| find(region, name).is_some()).or_else(|| regions.first());
    let Some(holder) = holder else { return Ok(String::new()) };
    for known in regions.iter().filter_map(|region| find(region, name)) {
        hand_over(holder, known.to_wire(), name).await?;
    }
    let namespaces = Arc::clone(holder.node().namespaces());
    let wanted = name.to_string();
    let made = holder.on(async move { settle(&namespaces, &wanted, started).await }).await?;
    let (record, active) = made.map_err(|why| Error::Registry { name: name.to_string(), why })?;
    for region in regions {
        hand_over(region, record.clone(), name).await?;
    }
    Ok(active)
}

fn find(region: &Region, name: &str) -> Option<Arc<Entry>> {
    region.node().namespaces().by_name(name)
}

/// In one region: the namespace with all started regions in its list.
async fn settle(
    namespaces: &Namespaces,
    name: &str,
    started: Vec<String>,
) -> Result<(NamespaceRecord, String), String> {
    let entry = match namespaces.by_name(name) {
        Some(entry) if entry.is_global() => add_members(namespaces, &entry, &started).await?,
        Some(entry) => entry,
        None => {
            let new = NewNamespace {
                name: name.to_string(),
                info: Info::default(),
                config: Settings { retention_seconds: RETENTION_SECONDS },
                global: true,
                active: String::new(),
                regions: started,
            };
            namespaces.create(new).await.map_err(|error| error.to_string())?
        }
    };
    Ok((entry.to_wire(), entry.record.active().to_string()))
}

async fn add_members(
    namespaces: &Namespaces,
    entry: &Arc<Entry>,
    started: &[String],
) -> Result<Arc<Entry>, String> {
    if started.iter().all(|region| entry.lists(region)) {
        return Ok(Arc::clone(entry));
    }
    let regions = namespaces.regions();
    let act = namespaces.act(&regions, "", "");
    let grown = namespaces.update::<antipode_history::namespaces::Error>(entry.id(), |record| {
        let mut members: BTreeSet<String> = record.members();
        members.extend(started.iter().cloned());
        Ok(record.set_members(&act, members.iter().map(String::as_str))?)
    });
    grown.await.map_err(|error| error.to_string())
}

/// Joins a record into what a region knows.
async fn hand_over(region: &Region, record: NamespaceRecord, name: &str) -> Result<(), Error> {
    let namespaces = Arc::clone(region.node().namespaces());
    let merged = region.on(async move { namespaces.merge(&record).await.map(drop) }).await?;
    merged.map_err(|error| Error::Registry { name: name.to_string(), why: error.to_string() })
}
