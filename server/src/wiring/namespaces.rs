//! The registry of namespaces as the frontend wants it. Every call of the public API looks a namespace up, so what the
//! frontend reads is made once per change of a record and shared.

use std::{collections::BTreeMap, sync::Arc};

use antipode_core::{
    ids::NamespaceId,
    namespace::{Act, Config, Info, Record, Refusal},
};
use antipode_frontend::{
    namespace::Namespace,
    ports::{self, NamespaceChange, NewNamespace},
};
use antipode_history::namespaces::{self as registry, Entry, Error, Namespaces};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::watch;
use tonic::Status;

type Shown = BTreeMap<NamespaceId, (Arc<Entry>, Arc<Namespace>)>;

/// The registry, and what was made of its entries.
pub(crate) struct Registry {
    namespaces: Arc<Namespaces>,
    shown: ArcSwap<Shown>,
}

impl Registry {
    pub(crate) fn new(namespaces: Arc<Namespaces>) -> Self {
        Self { namespaces, shown: ArcSwap::default() }
    }

    fn show(&self, entry: &Arc<Entry>) -> Arc<Namespace> {
        if let Some((known, namespace)) = self.shown.load().get(&entry.id())
            && Arc::ptr_eq(known, entry)
        {
            return Arc::clone(namespace);
        }
        let namespace = Arc::new(self.make(entry));
        self.shown.rcu(|shown| {
            let mut shown = Shown::clone(shown);
            shown.insert(entry.id(), (Arc::clone(entry), Arc::clone(&namespace)));
            shown
        });
        namespace
    }

    fn make(&self, entry: &Entry) -> Namespace {
        Namespace {
            id: entry.id(),
            name: entry.name().to_string(),
            regions: regions(&self.namespaces, &entry.record),
            record: entry.to_wire(),
        }
    }
}

/// The regions of a namespace by their number, which is the order in which they were set up; unknown ones last.
pub(crate) fn regions(namespaces: &Namespaces, record: &Record) -> Vec<String> {
    let members = record.members();
    let known = namespaces.regions();
    let mut names: Vec<String> =
        known.all().map(|region| region.name.clone()).filter(|name| members.contains(name)).collect();
    let unknown = members.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>();
    names.extend(unknown);
    names
}

#[async_trait]
impl ports::Namespaces for Registry {
    fn by_name(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.by_name(name).map(|entry| self.show(&entry))
    }

    fn by_id(&self, id: NamespaceId) -> Option<Arc<Namespace>> {
        self.namespaces.by_id(id).map(|entry| self.show(&entry))
    }

    fn all(&self) -> Vec<Arc<Namespace>> {
        let mut all: Vec<_> = self.namespaces.all().iter().map(|entry| self.show(entry)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.namespaces.changes()
    }

    async fn register(&self, new: NewNamespace) -> Result<Arc<Namespace>, Status> {
        let new = registry::NewNamespace {
            name: new.name,
            info: Info { description: new.description, owner_email: new.owner_email, data: new.data },
            config: Config { retention_seconds: new.retention_seconds },
            global: new.global,
            active: new.active,
            regions: new.regions,
        };
        let entry = self.namespaces.create(new).await.map_err(|error| status(&error))?;
        Ok(self.show(&entry))
    }

    async fn change(&self, id: NamespaceId, change: NamespaceChange) -> Result<Arc<Namespace>, Status> {
        let regions = self.namespaces.regions();
        let act = self.namespaces.act(&regions, "", "");
        let changed = self.namespaces.update::<Error>(id, |record| Ok(changed(record, &act, &change)?)).await;
        changed.map(|entry| self.show(&entry)).map_err(|error| status(&error))
    }
}

/// A record after a change; what the change leaves unset stays as it is.
fn changed(record: &Record, act: &Act<'_>, change: &NamespaceChange) -> Result<Record, Refusal> {
    let mut record = record.clone();
    if change.promote {
        record = record.promote(act)?;
    }
    let mut info = record.info().clone();
    if let Some(description) = &change.description {
        info.description.clone_from(description);
    }
    if let Some(owner_email) = &change.owner_email {
        info.owner_email.clone_from(owner_email);
    }
    info.data.extend(change.data.clone());
    if info != *record.info() {
        record = record.update_info(act, info)?;
    }
    if let Some(retention_seconds) = change.retention_seconds {
        let config = Config { retention_seconds };
        if config != record.config() {
            record = record.update_config(act, config)?;
        }
    }
    if let Some(regions) = &change.regions {
        record = record.set_members(act, regions.iter().map(String::as_str))?;
    }
    Ok(record)
}

/// What the registry refuses, as gRPC has it.
pub(crate) fn status(error: &Error) -> Status {
    let words = error.to_string();
    match error {
        Error::NotFound(_) => Status::not_found(words),
        Error::NameTaken(_) => Status::already_exists(words),
        Error::Regions(_) | Error::Malformed(_) => Status::invalid_argument(words),
        Error::Refused(refusal) => match refusal {
            Refusal::EmptyName | Refusal::Region(_) | Refusal::NotMember(_) => {
                Status::invalid_argument(words)
            }
            _ => Status::failed_precondition(words),
        },
        Error::Store(_) => Status::unavailable(words),
        Error::Identity(_) => Status::internal(words),
    }
}
