//! Namespaces, peers, positions and quarantine, in memory.

use antipode_core::ids::RunKey;
use antipode_proto::core as wire;
use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    Error,
    rows::{Identity, NamespaceRow, PositionRow, QuarantineRow, RegionRow},
    store::{NamespaceStore, RegionStore, namespace_id},
};

#[async_trait]
impl NamespaceStore for MemoryStore {
    async fn namespace_all(&self) -> Result<Vec<NamespaceRow>, Error> {
        Ok(self.state().namespaces.values().cloned().collect())
    }

    async fn namespace_put(
        &self,
        expected: u64,
        record: &wire::NamespaceRecord,
    ) -> Result<Option<u64>, Error> {
        let id = namespace_id(record)?;
        let mut state = self.state();
        let stored = state.namespaces.get(&id).map_or(0, |row| row.notification);
        if stored != expected {
            return Ok(None);
        }
        let last = state.namespaces.values().map(|row| row.notification).max().unwrap_or(0);
        let row = NamespaceRow { id, record: record.clone(), notification: last + 1 };
        state.namespaces.insert(id, row);
        Ok(Some(last + 1))
    }
}

#[async_trait]
impl RegionStore for MemoryStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn region_all(&self) -> Result<Vec<RegionRow>, Error> {
        Ok(self.state().regions.values().cloned().collect())
    }

    async fn region_put(&self, row: RegionRow) -> Result<(), Error> {
        self.state().regions.insert(row.name.clone(), row);
        Ok(())
    }

    async fn position_all(&self) -> Result<Vec<PositionRow>, Error> {
        Ok(self.state().positions.values().copied().collect())
    }

    async fn position_put(&self, rows: Vec<PositionRow>) -> Result<(), Error> {
        let mut state = self.state();
        for row in rows {
            let stored = state.positions.entry((row.source, row.incarnation.0, row.shard)).or_insert(row);
            stored.sequence = stored.sequence.max(row.sequence);
        }
        Ok(())
    }

    async fn quarantine_all(&self) -> Result<Vec<QuarantineRow>, Error> {
        Ok(self.state().quarantine.values().cloned().collect())
    }

    async fn quarantine_put(&self, row: QuarantineRow) -> Result<(), Error> {
        self.state().quarantine.insert((row.key.clone(), row.source), row);
        Ok(())
    }

    async fn quarantine_remove(&self, key: &RunKey, source: u32) -> Result<(), Error> {
        self.state().quarantine.remove(&(key.clone(), source));
        Ok(())
    }
}
