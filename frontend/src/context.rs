//! What every RPC may use: the region's own seams and stores, handed in; nothing is global, because several regions live in
//! one process.

use std::sync::{Arc, atomic::AtomicUsize};

use antipode_core::ids::{NamespaceId, RunId, Timestamp};
use antipode_env::{Clock, Entropy};
use antipode_persistence::store::VisibilityStore;
use tonic::Status;

use crate::{
    errors,
    metrics::Metrics,
    namespace::Namespace,
    ports::{History, Matching, Namespaces, Operations, Peers},
};

/// The region that this frontend stands in.
#[derive(Clone, Debug)]
pub struct Region {
    /// Name.
    pub name: String,
    /// Initial version (R109).
    pub initial: u32,
    /// Distance between two versions of one region.
    pub increment: u32,
    /// Cluster id.
    pub cluster_id: String,
    /// Name of the store's kind, as `GetClusterInfo` shows it.
    pub store: String,
}

/// Everything a frontend is given.
pub struct Context {
    /// Wall clock, for what users see.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub entropy: Arc<dyn Entropy>,
    /// Shards.
    pub history: Arc<dyn History>,
    /// Task queues.
    pub matching: Arc<dyn Matching>,
    /// Namespaces.
    pub namespaces: Arc<dyn Namespaces>,
    /// Built-in visibility.
    pub visibility: Arc<dyn VisibilityStore>,
    /// Other regions.
    pub peers: Arc<dyn Peers>,
    /// Operator's verbs.
    pub operations: Arc<dyn Operations>,
    /// This region.
    pub region: Region,
    /// Counters.
    pub metrics: Metrics,
    /// Calls that wait for a hand-over, now.
    pub held: AtomicUsize,
}

impl Context {
    /// The namespace that a request names.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it names none, NOT_FOUND when there is none of that name, FAILED_PRECONDITION when it was deleted.
    pub(crate) fn namespace(&self, name: &str) -> Result<Arc<Namespace>, Status> {
        if name.is_empty() {
            return Err(errors::invalid("Namespace is empty."));
        }
        let found = self.namespaces.by_name(name).ok_or_else(|| errors::namespace_not_found(name))?;
        if found.is_deleted() { Err(errors::namespace_deleted(name)) } else { Ok(found) }
    }

    /// The namespace with this id, as it is now.
    pub(crate) fn namespace_by_id(&self, id: NamespaceId) -> Result<Arc<Namespace>, Status> {
        self.namespaces.by_id(id).ok_or_else(|| errors::namespace_not_found(&id.to_string()))
    }

    /// A new id for a request that has none, so that a retry inside the server is recognised.
    pub(crate) fn mint_id(&self) -> String {
        RunId::from_random(self.entropy.bytes16()).to_string()
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now())
    }
}
