//! The namespaces that a node knows: every change is durable before it is visible, and every shard has taken it as an
//! ordered input before the call that made it returns (D6). Reads are lock-free looks at a snapshot. Beside them stands the
//! set of regions, because a record is read with it: who owns a version, who may be failed over to.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    sync::OnceLock,
};

use antipode_core::{
    fold::FOLD_VERSION,
    ids::{FailoverVersion, Incarnation, NamespaceId, RegionId, Timestamp},
    namespace::{Act, Config, Info, Malformed, Record, Refusal, Standing, Start, resolve_names},
    region::{self, Region, Regions},
    version::Increment,
};
use antipode_env::{Clock, Entropy};
use antipode_persistence::{Store, rows::Identity};
use antipode_proto::core as wire;
use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

/// A namespace, as of one version of its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Local order of its last change (R124): grows with each write in this store, never compared between regions.
    pub notification: u64,
    name: String,
    here: Arc<str>,
    life: Incarnation,
}

impl Entry {
    /// Id.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.record.id()
    }

    /// The name it is found under: the registered one, unless an older namespace has that (F4).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this region owns its present version.
    #[must_use]
    pub fn active_here(&self) -> bool {
        self.record.active() == &*self.here && !self.record.is_deleted()
    }

    /// The version under which events may be written here now, if they may (A9, F5).
    #[must_use]
    pub fn writable_version(&self) -> Option<FailoverVersion> {
        match self.standing() {
            Standing::Writable(version) => Some(version),
            _ => None,
        }
    }

    /// What this region may do with it now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.record.standing_in(&self.here, self.life)
    }

    /// Whether this region owns it under a version of another life of its store: it has to mint a new one before it writes (E2).
    #[must_use]
    pub fn is_of_another_life(&self) -> bool {
        self.record.is_of_another_life(&self.here, self.life)
    }

    /// Present failover version.
    #[must_use]
    pub fn version(&self) -> FailoverVersion {
        self.record.version()
    }

    /// Whether it replicates.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.record.is_global()
    }

    /// Whether it was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.record.is_deleted()
    }

    /// Whether a region is in its list.
    #[must_use]
    pub fn lists(&self, region: &str) -> bool {
        self.record.has_member(region)
    }

    /// Its other regions: all of its list but this one.
    #[must_use]
    pub fn others(&self) -> BTreeSet<String> {
        let mut others = self.record.members();
        others.remove(&*self.here);
        others
    }

    /// As stored and sent.
    #[must_use]
    pub fn to_wire(&self) -> wire::NamespaceRecord {
        self.record.to_wire()
    }
}

/// Why a namespace is not made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] antipode_persistence::Error),
    /// No such id.
    #[error("namespace {0} is not known in this region")]
    NotFound(NamespaceId),
    /// The name is in use.
    #[error("namespace {0:?} already exists")]
    NameTaken(String),
    /// The record does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The regions don't allow it.
    #[error(transparent)]
    Regions(#[from] region::Error),
    /// A received record is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The identity in the store cannot be used.
    #[error("{0}")]
    Identity(String),
}

/// What a received record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Something; it is durable and visible.
    Changed,
    /// Nothing: all of it was known.
    Known,
    /// It is not known here and does not list this region (R223).
    NotOurs,
}

/// What a new namespace starts with.
#[derive(Clone, Debug, Default)]
pub struct NewNamespace {
    /// Name.
    pub name: String,
    /// What people say about it.
    pub info: Info,
    /// Settings.
    pub config: Config,
    /// Of several regions.
    pub global: bool,
    /// Active region; empty: this one.
    pub active: String,
    /// Its regions; the active one is added.
    pub regions: Vec<String>,
}

#[derive(Default)]
struct Snapshot {
    by_id: BTreeMap<NamespaceId, Arc<Entry>>,
    by_name: BTreeMap<String, NamespaceId>,
}

type Told = Pin<Box<dyn Future<Output = ()> + Send>>;
type Hook = Box<dyn Fn(NamespaceId) -> Told + Send + Sync>;

/// The registry of one node.
pub struct Namespaces {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    here: Arc<str>,
    here_id: RegionId,
    life: Incarnation,
    regions: ArcSwap<Regions>,
    snapshot: ArcSwap<Snapshot>,
    writing: Mutex<()>,
    changed: watch::Sender<u64>,
    hook: OnceLock<Hook>,
}

impl Namespaces {
    /// Reads all records and regions of the store. The node's own region is the store's.
    ///
    /// # Errors
    /// [`Error`] when the store fails or holds what cannot be.
    pub async fn load(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let identity = store.identity().clone();
        let regions = regions_of(&*store, &identity).await?;
        let registry = Self {
            store,
            clock,
            entropy,
            here: Arc::from(identity.region.as_str()),
            here_id: RegionId(identity.initial),
            life: identity.incarnation,
            regions: ArcSwap::from_pointee(regions),
            snapshot: ArcSwap::default(),
            writing: Mutex::new(()),
            changed: watch::Sender::new(0),
            hook: OnceLock::new(),
        };
        registry.reload().await?;
        Ok(registry)
    }

    /// What is awaited after every change, with the namespace's id: the shards. Attached once, before the node serves.
    pub fn attach<F, Fut>(&self, hook: F)
    where
        F: Fn(NamespaceId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let hook: Hook = Box::new(move |id| Box::pin(hook(id)));
        if self.hook.set(hook).is_err() {
            tracing::error!("the namespace registry has its hook already; the second is not used");
        }
    }

    /// This region.
    #[must_use]
    pub fn here(&self) -> &str {
        &self.here
    }

    /// All regions known here, this one among them.
    #[must_use]
    pub fn regions(&self) -> Arc<Regions> {
        self.regions.load_full()
    }

    /// Takes a changed set of regions into use.
    pub async fn set_regions(&self, regions: Regions) {
        let _writing = self.writing.lock().await;
        self.regions.store(Arc::new(regions));
        let snapshot = self.snapshot.load_full();
        let records = snapshot.by_id.values().map(|entry| (entry.record.clone(), entry.notification));
        self.publish(records.collect());
    }

    /// Who changes a record here and now, for the pure transitions.
    #[must_use]
    pub fn act<'a>(&'a self, regions: &'a Regions, who: &'a str, why: &'a str) -> Act<'a> {
        Act { regions, here: &self.here, now: Timestamp(self.clock.now()), who, why }
    }

    /// By id.
    #[must_use]
    pub fn by_id(&self, id: NamespaceId) -> Option<Arc<Entry>> {
        self.snapshot.load().by_id.get(&id).cloned()
    }

    /// By the name it is shown under.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Entry>> {
        let snapshot = self.snapshot.load();
        snapshot.by_name.get(name).and_then(|id| snapshot.by_id.get(id)).cloned()
    }

    /// All, also deleted ones, in order of id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.snapshot.load().by_id.values().cloned().collect()
    }

    /// Moves with every change that is visible.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Counts visible changes: equal numbers mean that nothing changed between.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Mints a namespace.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::Refused`], [`Error::Store`].
    pub async fn create(&self, new: NewNamespace) -> Result<Arc<Entry>, Error> {
        let writing = self.writing.lock().await;
        if self.by_name(&new.name).is_some() {
            return Err(Error::NameTaken(new.name));
        }
        let start = Start {
            id: NamespaceId::from_random(self.entropy.bytes16()),
            name: new.name,
            info: new.info,
            config: new.config,
            fold_version: FOLD_VERSION,
            by: self.here_id,
        };
        let record = if new.global {
            let active = if new.active.is_empty() { &self.here } else { new.active.as_str() };
            let members = new.regions.iter().map(String::as_str);
            self.minted(
                FailoverVersion::LOCAL,
                Record::new_global(start, active, members, &self.regions.load())?,
            )
        } else {
            Record::new_local(start, &self.here)?
        };
        let id = record.id();
        self.put(0, record).await?;
        drop(writing);
        self.tell(id).await;
        self.by_id(id).ok_or(Error::NotFound(id))
    }

    /// Changes a record: computed from the newest stored one, durable, then visible, then taken by every shard. Computed
    /// again when another write came first. A change to an equal record writes nothing.
    ///
    /// # Errors
    /// What `change` refuses with, or an [`Error`] as its error type has it.
    pub async fn update<E: From<Error>>(
        &self,
        id: NamespaceId,
        change: impl Fn(&Record) -> Result<Record, E>,
    ) -> Result<Arc<Entry>, E> {
        let writing = self.writing.lock().await;
        loop {
            let entry = self.by_id(id).ok_or_else(|| E::from(Error::NotFound(id)))?;
            let record = self.minted(entry.version(), change(&entry.record)?);
            if record == entry.record {
                return Ok(entry);
            }
            if self.put(entry.notification, record).await? {
                break;
            }
        }
        drop(writing);
        self.tell(id).await;
        self.by_id(id).ok_or_else(|| E::from(Error::NotFound(id)))
    }

    /// A version that this region minted names the life of the store that did (E2).
    fn minted(&self, before: FailoverVersion, record: Record) -> Record {
        match record.version() != before && record.active() == &*self.here {
            true => record.minted_in(self.life),
            false => record,
        }
    }

    /// Joins a record of another region (F4). Durable when this returns.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Store`].
    pub async fn merge(&self, received: &wire::NamespaceRecord) -> Result<Merge, Error> {
        let received = Record::from_wire(received)?;
        let id = received.id();
        let writing = self.writing.lock().await;
        loop {
            let (expected, record) = match self.by_id(id) {
                Some(entry) => {
                    let mut record = entry.record.clone();
                    if !record.merge(&received) {
                        return Ok(Merge::Known);
                    }
                    (entry.notification, record)
                }
                None if !received.is_global() || !received.has_member(&self.here) => {
                    return Ok(Merge::NotOurs);
                }
                None => (0, received.clone()),
            };
            if self.put(expected, record).await? {
                break;
            }
        }
        drop(writing);
        self.tell(id).await;
        Ok(Merge::Changed)
    }

    /// Stores a record over the notification it was computed from; otherwise reads what is stored. Whether it was stored.
    async fn put(&self, expected: u64, record: Record) -> Result<bool, Error> {
        match self.store.namespace_put(expected, &record.to_wire()).await? {
            Some(notification) => {
                let snapshot = self.snapshot.load_full();
                let others = snapshot.by_id.values().filter(|entry| entry.id() != record.id());
                let mut records: Vec<_> =
                    others.map(|entry| (entry.record.clone(), entry.notification)).collect();
                records.push((record, notification));
                self.publish(records);
                Ok(true)
            }
            None => {
                self.reload().await?;
                Ok(false)
            }
        }
    }

    async fn reload(&self) -> Result<(), Error> {
        let mut records = Vec::new();
        for row in self.store.namespace_all().await? {
            records.push((Record::from_wire(&row.record)?, row.notification));
        }
        self.publish(records);
        Ok(())
    }

    fn publish(&self, records: Vec<(Record, u64)>) {
        let mut names = resolve_names(records.iter().map(|(record, _)| record), &self.regions.load());
        let mut snapshot = Snapshot::default();
        for (record, notification) in records {
            let id = record.id();
            let name = match names.remove(&id) {
                Some(name) => {
                    snapshot.by_name.insert(name.clone(), id);
                    name
                }
                // A deleted namespace keeps its words and gives its name back.
                None => record.name().to_string(),
            };
            let entry = Entry { record, notification, name, here: Arc::clone(&self.here), life: self.life };
            snapshot.by_id.insert(id, Arc::new(entry));
        }
        self.snapshot.store(Arc::new(snapshot));
        self.changed.send_modify(|count| *count += 1);
    }

    async fn tell(&self, id: NamespaceId) {
        if let Some(hook) = self.hook.get() {
            hook(id).await;
        }
    }
}

/// The store's own region and its stored peers, also removed ones: their classes stay reserved (R108).
async fn regions_of(store: &dyn Store, identity: &Identity) -> Result<Regions, Error> {
    let increment = Increment::new(identity.increment).ok_or_else(|| {
        Error::Identity(format!("the store's version increment {} is out of range", identity.increment))
    })?;
    let rows = store.region_all().await?;
    let others = rows.into_iter().filter(|row| row.name != identity.region).map(|row| Region {
        name: row.name,
        id: RegionId(row.initial),
        retired: row.retired,
    });
    let own = Region::new(identity.region.clone(), identity.initial);
    Ok(Regions::new(increment, std::iter::once(own).chain(others))?)
}

#[cfg(test)]
mod tests {
    use antipode_core::namespace::Phase;
    use antipode_env::{ManualClock, SeededEntropy};
    use antipode_persistence::{
        memory::MemoryStore,
        rows::RegionRow,
        store::{NamespaceStore, RegionStore},
    };
    use std::sync::Mutex as StdMutex;

    use super::*;

    fn store(region: &str, initial: u32) -> Arc<MemoryStore> {
        Arc::new(MemoryStore::new(Identity {
            region: region.into(),
            initial,
            increment: 10,
            shards: 1,
            cluster_id: String::new(),
            incarnation: Incarnation(1),
        }))
    }

    async fn registry(store: Arc<MemoryStore>, peer: &str, initial: u32) -> Namespaces {
        let row =
            RegionRow { name: peer.into(), initial, address: "-".into(), enabled: true, retired: false };
        store.region_put(row).await.unwrap();
        let seed = u64::from(store.identity().initial);
        Namespaces::load(store, Arc::new(ManualClock::new(7)), Arc::new(SeededEntropy::new(seed)))
            .await
            .unwrap()
    }

    fn orders(global: bool) -> NewNamespace {
        let regions = vec!["east".to_string(), "west".to_string()];
        NewNamespace { name: "orders".into(), global, regions, ..NewNamespace::default() }
    }

    #[tokio::test]
    async fn a_namespace_is_durable_before_it_is_visible_and_told_after() {
        let store = store("east", 1);
        let registry = registry(Arc::clone(&store), "west", 2).await;
        let told = Arc::new(StdMutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        let behind = Arc::clone(&store);
        registry.attach(move |id| {
            let (seen, behind) = (Arc::clone(&seen), Arc::clone(&behind));
            async move {
                let stored = behind.namespace_all().await.unwrap().iter().any(|row| row.id == id);
                seen.lock().unwrap().push((id, stored));
            }
        });
        let changes = registry.changes();
        let before = *changes.borrow();
        let entry = registry.create(orders(true)).await.unwrap();
        assert_eq!(*told.lock().unwrap(), [(entry.id(), true)]);
        assert!(*changes.borrow() > before);
        assert_eq!(entry.writable_version(), Some(FailoverVersion(1)));
        assert_eq!(registry.by_name("orders").map(|entry| entry.id()), Some(entry.id()));
        assert!(matches!(registry.create(orders(true)).await, Err(Error::NameTaken(_))));
    }

    #[tokio::test]
    async fn a_restart_finds_what_was_written() {
        let store = store("east", 1);
        let first = registry(Arc::clone(&store), "west", 2).await;
        let made = first.create(orders(true)).await.unwrap();
        let again = registry(store, "west", 2).await;
        assert_eq!(again.by_id(made.id()), Some(made));
    }

    #[tokio::test]
    async fn a_record_travels_and_its_changes_follow() {
        let east = registry(store("east", 1), "west", 2).await;
        let west = registry(store("west", 2), "east", 1).await;
        let made = east.create(orders(true)).await.unwrap();
        assert_eq!(west.merge(&made.to_wire()).await.unwrap(), Merge::Changed);
        assert_eq!(west.merge(&made.to_wire()).await.unwrap(), Merge::Known);
        let there = west.by_name("orders").unwrap();
        assert!(!there.active_here() && there.lists("west"));
        assert_eq!(there.writable_version(), None);
        let regions = east.regions();
        let draining = east
            .update::<Error>(made.id(), |record| {
                let act = east.act(&regions, "operator", "test");
                Ok(record.begin_drain(&act, "west", "op-1", Timestamp(99))?)
            })
            .await
            .unwrap();
        assert_eq!(draining.writable_version(), None);
        assert!(draining.active_here());
        assert_eq!(west.merge(&draining.to_wire()).await.unwrap(), Merge::Changed);
        assert!(matches!(west.by_id(made.id()).unwrap().record.phase(), Phase::Draining { .. }));
    }

    #[tokio::test]
    async fn a_namespace_that_does_not_list_this_region_is_not_kept() {
        let east = registry(store("east", 1), "west", 2).await;
        let west = registry(store("west", 2), "east", 1).await;
        let alone = NewNamespace { regions: vec![], ..orders(true) };
        let alone = east.create(alone).await.unwrap();
        assert_eq!(west.merge(&alone.to_wire()).await.unwrap(), Merge::NotOurs);
        let local = NewNamespace { name: "local".into(), ..orders(false) };
        let local = east.create(local).await.unwrap();
        assert_eq!(west.merge(&local.to_wire()).await.unwrap(), Merge::NotOurs);
        assert!(west.all().is_empty());
    }

    #[tokio::test]
    async fn a_write_that_came_first_is_seen_and_kept() {
        // Two registries over one store: the second has an old snapshot and must compute its change again.
        let store = store("east", 1);
        let one = registry(Arc::clone(&store), "west", 2).await;
        let made = one.create(orders(true)).await.unwrap();
        let two = registry(store, "west", 2).await;
        let regions = one.regions();
        one.update::<Error>(made.id(), |record| Ok(record.rename(&one.act(&regions, "a", ""), "renamed")?))
            .await
            .unwrap();
        let config = Config { retention_seconds: 5 };
        let both = two
            .update::<Error>(made.id(), |record| {
                Ok(record.update_config(&two.act(&regions, "b", ""), config)?)
            })
            .await
            .unwrap();
        assert_eq!((both.name(), both.record.config()), ("renamed", config));
    }

    #[tokio::test]
    async fn two_namespaces_of_one_name_are_both_found() {
        let east = registry(store("east", 1), "west", 2).await;
        let west = registry(store("west", 2), "east", 1).await;
        let ours = east.create(orders(true)).await.unwrap();
        let theirs = west.create(orders(true)).await.unwrap();
        east.merge(&theirs.to_wire()).await.unwrap();
        assert_eq!(east.by_name("orders").map(|entry| entry.id()), Some(ours.id()));
        assert_eq!(east.by_name("orders.conflict-west").map(|entry| entry.id()), Some(theirs.id()));
    }

    #[tokio::test]
    async fn a_refused_change_changes_nothing() {
        let registry = registry(store("east", 1), "west", 2).await;
        let made = registry.create(orders(false)).await.unwrap();
        let regions = registry.regions();
        let refused = registry
            .update::<Error>(made.id(), |record| {
                Ok(record.begin_drain(&registry.act(&regions, "", ""), "west", "op", Timestamp(0))?)
            })
            .await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::Local(_)))));
        assert_eq!(registry.by_id(made.id()), Some(made));
    }
}
