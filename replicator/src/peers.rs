//! Which regions this one is linked to: stored rows, the channel to each, and the operator's add, disable and remove
//! (R115–R122). A removed region's class of versions stays reserved for ever (I29), because histories name it.

use std::{sync::Arc, time::Duration};

use antipode_core::{
    ids::RegionId,
    region::{Region, Regions},
};
use antipode_env::grpc;
use antipode_persistence::rows::RegionRow;
use antipode_proto::link::{HelloRequest, RegionInfo};

use crate::{
    error::Error,
    handshake::{self, Mismatch},
    shared::{Peer, PeerMap, Shared},
    status::PeerState,
};

/// How long an address may take to say who is there.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// A region as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionView {
    /// Name.
    pub name: String,
    /// Cluster id; empty while it was never reached.
    pub cluster_id: String,
    /// Address of its gRPC listener.
    pub address: String,
    /// Initial version (R109).
    pub initial: u32,
    /// Version increment.
    pub increment: u32,
    /// Number of shards; 0 while it was never reached.
    pub shards: u32,
    /// Whether this region talks to it.
    pub enabled: bool,
}

/// Reads the stored peers and makes a channel to each. Regions of the configuration that are not stored yet are stored; a
/// changed address is taken over; a removed region stays removed.
pub(crate) async fn load(shared: &Shared, configured: Vec<RegionRow>) -> Result<(), Error> {
    let stored = shared.store.region_all().await?;
    for row in configured {
        let known = stored.iter().find(|known| known.name == row.name);
        match known {
            Some(known) if known.initial != row.initial => {
                let mismatch = Mismatch::Changed {
                    peer: row.name,
                    known: RegionId(known.initial),
                    initial: row.initial,
                };
                return Err(mismatch.into());
            }
            Some(known) if known.retired => {
                tracing::warn!(
                    region = row.name,
                    "configured as a peer, but it was removed; it stays removed"
                );
            }
            Some(known) if known.address == row.address => {}
            Some(known) => {
                let moved = RegionRow { address: row.address, ..known.clone() };
                shared.store.region_put(moved).await?;
            }
            None => shared.store.region_put(row).await?,
        }
    }
    refresh(shared).await
}

/// Takes the stored peers into use: the set of regions first, because versions are read with it.
async fn refresh(shared: &Shared) -> Result<(), Error> {
    let rows = shared.store.region_all().await?;
    let regions = regions(shared, &rows)?;
    let old = shared.peers.load_full();
    let mut peers = PeerMap::new();
    for row in rows.into_iter().filter(|row| !row.retired && row.name != shared.here()) {
        let name: Arc<str> = Arc::from(row.name.as_str());
        let before = old.get(&name);
        let channel = match before {
            Some(peer) if peer.address == row.address => peer.channel.clone(),
            _ => lazy_channel(shared, &row.address)?,
        };
        let peer = Peer {
            name: Arc::clone(&name),
            id: RegionId(row.initial),
            address: row.address,
            enabled: row.enabled,
            channel,
            state: before.map_or_else(|| Arc::new(PeerState::new()), |peer| Arc::clone(&peer.state)),
        };
        peers.insert(name, Arc::new(peer));
    }
    shared.namespaces.set_regions(regions).await;
    shared.peers.store(Arc::new(peers));
    shared.peers_changed.send_modify(|count| *count += 1);
    Ok(())
}

/// This region and all that are stored, also the removed ones.
fn regions(shared: &Shared, rows: &[RegionRow]) -> Result<Regions, Error> {
    let own = Region::new(shared.here(), shared.identity.initial);
    let others = rows.iter().filter(|row| row.name != shared.here()).map(|row| Region {
        name: row.name.clone(),
        id: RegionId(row.initial),
        retired: row.retired,
    });
    let increment = shared.namespaces.regions().increment();
    Regions::new(increment, std::iter::once(own).chain(others))
        .map_err(|error| Error::FailedPrecondition(error.to_string()))
}

fn lazy_channel(shared: &Shared, address: &str) -> Result<tonic::transport::Channel, Error> {
    grpc::channel_lazy(address, Arc::clone(&shared.connector))
        .map_err(|error| Error::InvalidArgument(format!("{address:?} is not an address: {error}")))
}

/// Asks an address who is there.
async fn hello(shared: &Shared, address: &str) -> Result<RegionInfo, Error> {
    let mut link = shared.link(lazy_channel(shared, address)?);
    let request = HelloRequest { caller: Some(shared.info()) };
    let unreachable = |why: String| Error::Unreachable { region: address.to_string(), why };
    let answered = tokio::time::timeout(HELLO_PATIENCE, link.hello(request)).await;
    let response = answered
        .map_err(|_| unreachable("no answer in time".to_string()))?
        .map_err(|status| Error::of_call(address, status))?;
    response.into_inner().callee.ok_or_else(|| Mismatch::Anonymous.into())
}

/// Adds the region at an address, or changes the one that is known there (R120, R122).
pub(crate) async fn add_or_update(shared: &Shared, address: &str, enabled: bool) -> Result<(), Error> {
    let info = match hello(shared, address).await {
        Ok(info) => info,
        Err(error) if !enabled && error.is_unreachable() => {
            // A region that is gone can still be disabled: by the address it is known under.
            return disable(shared, address, error).await;
        }
        Err(error) => return Err(error),
    };
    shared.refuse_cut(&info.name, shared.gate.outward(&info.name))?;
    shared.refuse_cut(&info.name, shared.gate.inward(&info.name))?;
    handshake::check(shared.here(), &shared.namespaces.regions(), &info)?;
    let stored = shared.store.region_all().await?;
    if stored.iter().any(|row| row.name == info.name && row.retired) {
        tracing::info!(region = info.name, "a removed region is added again, with its own class");
    }
    let row = RegionRow {
        name: info.name.clone(),
        initial: info.initial_version,
        address: address.to_string(),
        enabled,
        retired: false,
    };
    shared.store.region_put(row).await?;
    refresh(shared).await?;
    if let Some(peer) = shared.peers.load().get(info.name.as_str()) {
        peer.state.change(|known| known.info = Some(info));
    }
    Ok(())
}

async fn disable(shared: &Shared, address: &str, unreachable: Error) -> Result<(), Error> {
    let stored = shared.store.region_all().await?;
    let Some(row) = stored.into_iter().find(|row| row.address == address && !row.retired) else {
        return Err(unreachable);
    };
    shared.store.region_put(RegionRow { enabled: false, ..row }).await?;
    refresh(shared).await
}

/// Removes a region, unless a namespace is shared with it (R121).
pub(crate) async fn remove(shared: &Shared, name: &str) -> Result<(), Error> {
    if name == shared.here() {
        return Err(Error::InvalidArgument(format!("{name} is this region itself")));
    }
    let stored = shared.store.region_all().await?;
    let Some(row) = stored.into_iter().find(|row| row.name == name && !row.retired) else {
        return Err(Error::NotFound(format!("region {name:?} is not known in {}", shared.here())));
    };
    let shares = |entry: &&Arc<antipode_history::namespaces::Entry>| {
        entry.is_global() && !entry.is_deleted() && entry.lists(name) && entry.lists(shared.here())
    };
    if let Some(entry) = shared.namespaces.all().iter().find(shares) {
        let why =
            format!("namespace {} is shared with region {name}; take it off its list first", entry.name());
        return Err(Error::FailedPrecondition(why));
    }
    shared.store.region_put(RegionRow { enabled: false, retired: true, ..row }).await?;
    refresh(shared).await
}

/// All regions, this one first.
pub(crate) fn view(shared: &Shared) -> Vec<RegionView> {
    let own = shared.info();
    let own = RegionView {
        name: own.name,
        cluster_id: own.cluster_id,
        address: own.address,
        initial: own.initial_version,
        increment: own.increment,
        shards: own.shard_count,
        enabled: true,
    };
    let peers = shared.peers.load_full();
    let others = peers.values().map(|peer| {
        let info = peer.state.known().info.clone().unwrap_or_default();
        RegionView {
            name: peer.name.to_string(),
            cluster_id: info.cluster_id,
            address: peer.address.clone(),
            initial: peer.id.0,
            increment: shared.identity.increment,
            shards: info.shard_count,
            enabled: peer.enabled,
        }
    });
    std::iter::once(own).chain(others).collect()
}
