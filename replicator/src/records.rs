//! The namespace records of a region as the two ends of a link need them: which version a record has reached, with whom a
//! namespace is shared, and what has to be pushed. A read-only view that is handed in with each input, so that the machines
//! keep no copy that could be old.

use std::collections::BTreeMap;

use antipode_core::{
    ids::{FailoverVersion, NamespaceId},
    namespace::Record,
};
use antipode_history::namespaces::Namespaces;
use antipode_proto::core as wire;

/// A record that replicates, with the local order of its last change.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Namespace.
    pub id: NamespaceId,
    /// Grows with each local write of the record (R124).
    pub notification: u64,
    /// As it travels.
    pub record: wire::NamespaceRecord,
}

/// What a region's records say now.
pub trait Records {
    /// The version that the record here has reached; none: there is no such record here.
    fn version(&self, namespace: NamespaceId) -> Option<FailoverVersion>;
    /// Whether the namespace replicates and lists this region.
    fn shared_with(&self, namespace: NamespaceId, region: &str) -> bool;
    /// Moves with every change.
    fn revision(&self) -> u64;
    /// All records that replicate.
    fn global(&self) -> Vec<Pushed>;
}

/// Whether the record here has reached the version of an entry; a state has none, for it the record need only exist
/// (F5, I10).
#[must_use]
pub fn covers(records: &dyn Records, namespace: NamespaceId, version: Option<FailoverVersion>) -> bool {
    records.version(namespace).is_some_and(|known| version.is_none_or(|version| known >= version))
}

impl Records for Namespaces {
    fn version(&self, namespace: NamespaceId) -> Option<FailoverVersion> {
        self.by_id(namespace).map(|entry| entry.version())
    }

    fn shared_with(&self, namespace: NamespaceId, region: &str) -> bool {
        self.by_id(namespace).is_some_and(|entry| entry.is_global() && entry.lists(region))
    }

    fn revision(&self) -> u64 {
        self.revision()
    }

    fn global(&self) -> Vec<Pushed> {
        let global = self.all().into_iter().filter(|entry| entry.is_global());
        let pushed = global.map(|entry| Pushed {
            id: entry.id(),
            notification: entry.notification,
            record: entry.to_wire(),
        });
        pushed.collect()
    }
}

/// Records in a plain table, for whoever has no registry: the simulator and the tests.
#[derive(Clone, Debug, Default)]
pub struct Table {
    records: BTreeMap<NamespaceId, (Record, u64)>,
    revision: u64,
}

impl Table {
    /// Puts a record in place of the one that is there; an equal one changes nothing.
    pub fn put(&mut self, record: Record) {
        if self.records.get(&record.id()).is_some_and(|(known, _)| *known == record) {
            return;
        }
        self.revision += 1;
        self.records.insert(record.id(), (record, self.revision));
    }

    /// The record of a namespace.
    #[must_use]
    pub fn get(&self, namespace: NamespaceId) -> Option<&Record> {
        self.records.get(&namespace).map(|(record, _)| record)
    }
}

impl Records for Table {
    fn version(&self, namespace: NamespaceId) -> Option<FailoverVersion> {
        self.get(namespace).map(Record::version)
    }

    fn shared_with(&self, namespace: NamespaceId, region: &str) -> bool {
        self.get(namespace).is_some_and(|record| record.is_global() && record.has_member(region))
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn global(&self) -> Vec<Pushed> {
        let global = self.records.iter().filter(|(_, (record, _))| record.is_global());
        let pushed = global.map(|(id, (record, notification))| Pushed {
            id: *id,
            notification: *notification,
            record: record.to_wire(),
        });
        pushed.collect()
    }
}
