//! Namespaces, peers, positions and quarantine.

use antipode_core::ids::{Incarnation, NamespaceId, RunKey, Sequence, ShardId, Timestamp};
use antipode_proto::core as wire;
use async_trait::async_trait;
use prost::Message;
use rusqlite::{OptionalExtension, Row, params};

use super::{
    SqliteStore,
    columns::{bytes, run_key, signed, unsigned, uuid},
};
use crate::{
    Error,
    rows::{Identity, NamespaceRow, PositionRow, QuarantineRow, RegionRow},
    store::{NamespaceStore, RegionStore, namespace_id},
};

impl SqliteStore {
    /// All rows of a statement without parameters.
    async fn all<T: Send + 'static>(
        &self,
        sql: &'static str,
        read: fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read(row)?);
            }
            Ok(found)
        })
        .await
    }
}

fn namespace_row(row: &Row<'_>) -> Result<NamespaceRow, Error> {
    let id = NamespaceId(uuid(row, 0)?);
    let record = wire::NamespaceRecord::decode(bytes(row, 2)?)
        .map_err(|error| Error::Damaged(format!("record of namespace {id}: {error}")))?;
    Ok(NamespaceRow { id, record, notification: unsigned(row, 1)? })
}

fn region_row(row: &Row<'_>) -> Result<RegionRow, Error> {
    Ok(RegionRow {
        name: row.get(0)?,
        initial: row.get(1)?,
        address: row.get(2)?,
        enabled: row.get(3)?,
        retired: row.get(4)?,
    })
}

fn position_row(row: &Row<'_>) -> Result<PositionRow, Error> {
    Ok(PositionRow {
        source: row.get(0)?,
        incarnation: Incarnation(row.get::<_, i64>(1)?.cast_unsigned()),
        shard: ShardId(row.get(2)?),
        sequence: Sequence(unsigned(row, 3)?),
    })
}

fn quarantine_row(row: &Row<'_>) -> Result<QuarantineRow, Error> {
    Ok(QuarantineRow {
        key: run_key(row, 0)?,
        source: row.get(3)?,
        reason: row.get(4)?,
        entry: bytes(row, 5)?,
        since: Timestamp(row.get(6)?),
        behind: unsigned(row, 7)?,
    })
}

#[async_trait]
impl NamespaceStore for SqliteStore {
    async fn namespace_all(&self) -> Result<Vec<NamespaceRow>, Error> {
        self.all("SELECT id, notification, record FROM namespaces ORDER BY id", namespace_row).await
    }

    async fn namespace_put(
        &self,
        expected: u64,
        record: &wire::NamespaceRecord,
    ) -> Result<Option<u64>, Error> {
        let id = namespace_id(record)?;
        let expected = signed(expected)?;
        let record = record.encode_to_vec();
        self.write(move |connection| {
            let stored: Option<i64> = connection
                .prepare_cached("SELECT notification FROM namespaces WHERE id = ?1")?
                .query_row([id.0.as_bytes()], |row| row.get(0))
                .optional()?;
            if stored.unwrap_or(0) != expected {
                return Ok(None);
            }
            let last: i64 = connection
                .prepare_cached("SELECT coalesce(max(notification), 0) FROM namespaces")?
                .query_row([], |row| row.get(0))?;
            connection
                .prepare_cached(
                    "INSERT INTO namespaces (id, notification, record) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET notification = excluded.notification, record = excluded.record",
                )?
                .execute((id.0.as_bytes(), last + 1, &record))?;
            Ok(u64::try_from(last + 1).ok())
        })
        .await
    }
}

#[async_trait]
impl RegionStore for SqliteStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn region_all(&self) -> Result<Vec<RegionRow>, Error> {
        self.all("SELECT name, initial, address, enabled, retired FROM regions ORDER BY name", region_row)
            .await
    }

    async fn region_put(&self, row: RegionRow) -> Result<(), Error> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO regions (name, initial, address, enabled, retired)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((&row.name, row.initial, &row.address, row.enabled, row.retired))?;
            Ok(())
        })
        .await
    }

    async fn position_all(&self) -> Result<Vec<PositionRow>, Error> {
        self.all(
            "SELECT source, incarnation, shard, sequence FROM positions ORDER BY source, incarnation, shard",
            position_row,
        )
        .await
    }

    async fn position_put(&self, rows: Vec<PositionRow>) -> Result<(), Error> {
        self.write(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO positions (source, incarnation, shard, sequence) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (source, incarnation, shard) DO UPDATE SET sequence = excluded.sequence
                 WHERE excluded.sequence > sequence",
            )?;
            for row in &rows {
                let incarnation = row.incarnation.0.cast_signed();
                statement.execute((row.source, incarnation, row.shard.0, signed(row.sequence.0)?))?;
            }
            Ok(())
        })
        .await
    }

    async fn quarantine_all(&self) -> Result<Vec<QuarantineRow>, Error> {
        self.all(
            "SELECT namespace, workflow, run, source, reason, entry, since, behind FROM quarantine
             ORDER BY namespace, workflow, run, source",
            quarantine_row,
        )
        .await
    }

    async fn quarantine_put(&self, row: QuarantineRow) -> Result<(), Error> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO quarantine
                         (namespace, workflow, run, source, reason, entry, since, behind)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    row.key.namespace.0.as_bytes(),
                    row.key.workflow.as_str(),
                    row.key.run.0.as_bytes(),
                    row.source,
                    row.reason,
                    row.entry.as_ref(),
                    row.since.0,
                    signed(row.behind)?,
                ])?;
            Ok(())
        })
        .await
    }

    async fn quarantine_remove(&self, key: &RunKey, source: u32) -> Result<(), Error> {
        let key = key.clone();
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "DELETE FROM quarantine WHERE namespace = ?1 AND workflow = ?2 AND run = ?3 AND source = ?4",
                )?
                .execute((key.namespace.0.as_bytes(), key.workflow.as_str(), key.run.0.as_bytes(), source))?;
            Ok(())
        })
        .await
    }
}
