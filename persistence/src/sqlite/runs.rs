//! Runs, their history and the log of a shard.

use antipode_core::ids::{RunKey, Sequence, ShardId, WorkflowKey};
use antipode_proto::core as wire;
use async_trait::async_trait;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Rows};

use super::{
    SqliteStore,
    columns::{RUN_COLUMNS, batch_row, run_row, signed, unsigned},
};
use crate::{
    Error,
    rows::{BatchRow, CurrentRow, LogEntry, LogPage, RunRow, StoredRun},
    store::RunStore,
};

#[async_trait]
impl RunStore for SqliteStore {
    async fn run_load(&self, shard: ShardId, key: &RunKey) -> Result<Option<StoredRun>, Error> {
        let key = key.clone();
        self.read(move |connection| run_load(connection, shard, &key)).await
    }

    async fn run_list(&self, shard: ShardId, key: &WorkflowKey) -> Result<Vec<RunRow>, Error> {
        let key = key.clone();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {RUN_COLUMNS} FROM runs WHERE namespace = ?1 AND workflow = ?2 AND shard = ?3"
            ))?;
            let mut rows = statement.query((key.namespace.0.as_bytes(), key.workflow.as_str(), shard.0))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(run_row(row)?);
            }
            Ok(found)
        })
        .await
    }

    async fn current_load(&self, shard: ShardId, key: &WorkflowKey) -> Result<Option<CurrentRow>, Error> {
        let key = key.clone();
        self.read(move |connection| {
            let record: Option<Vec<u8>> = connection
                .prepare_cached(
                    "SELECT record FROM currents WHERE namespace = ?1 AND workflow = ?2 AND shard = ?3",
                )?
                .query_row((key.namespace.0.as_bytes(), key.workflow.as_str(), shard.0), |row| row.get(0))
                .optional()?;
            let Some(record) = record else { return Ok(None) };
            let record = wire::CurrentRecord::decode(&*record)
                .map_err(|error| Error::Damaged(format!("current record of {}: {error}", key.workflow)))?;
            Ok(Some(CurrentRow { key: key.clone(), record }))
        })
        .await
    }

    async fn log_read(&self, shard: ShardId, after: Sequence, bytes_max: usize) -> Result<LogPage, Error> {
        self.read(move |connection| log_read(connection, shard, after, bytes_max)).await
    }
}

fn run_load(connection: &Connection, shard: ShardId, key: &RunKey) -> Result<Option<StoredRun>, Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {RUN_COLUMNS}, id FROM runs WHERE namespace = ?1 AND workflow = ?2 AND run = ?3 AND shard = ?4"
    ))?;
    let mut rows = statement.query((
        key.namespace.0.as_bytes(),
        key.workflow.as_str(),
        key.run.0.as_bytes(),
        shard.0,
    ))?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let (row, id): (_, i64) = (run_row(found)?, found.get(6)?);
    let mut statement = connection
        .prepare_cached("SELECT sequence, envelope, events FROM batches WHERE run = ?1 ORDER BY id")?;
    let mut rows = statement.query([id])?;
    let mut batches = Vec::new();
    while let Some(found) = rows.next()? {
        batches.push(batch_row(found)?);
    }
    Ok(Some(StoredRun { row, batches }))
}

/// Both halves of the log in one order of position, as far as the bytes go.
fn log_read(
    connection: &Connection,
    shard: ShardId,
    after: Sequence,
    bytes_max: usize,
) -> Result<LogPage, Error> {
    let tip = connection
        .prepare_cached("SELECT sequence FROM shards WHERE shard = ?1")?
        .query_row([shard.0], |row| Ok(unsigned(row, 0)))
        .optional()?
        .transpose()?
        .map_or(Sequence(0), Sequence);
    if after >= tip {
        return Ok(LogPage { through: after, entries: Vec::new() });
    }
    let mut batches = connection.prepare_cached(
        "SELECT sequence, envelope, events FROM batches WHERE shard = ?1 AND sequence > ?2 ORDER BY sequence",
    )?;
    let mut runs = connection.prepare_cached(&format!(
        "SELECT {RUN_COLUMNS} FROM runs WHERE shard = ?1 AND changed_at > ?2 ORDER BY changed_at"
    ))?;
    let mut batches = batches.query((shard.0, signed(after.0)?))?;
    let mut runs = runs.query((shard.0, signed(after.0)?))?;
    merge(&mut batches, &mut runs, after, tip, bytes_max)
}

fn merge(
    batches: &mut Rows<'_>,
    runs: &mut Rows<'_>,
    after: Sequence,
    tip: Sequence,
    bytes_max: usize,
) -> Result<LogPage, Error> {
    let mut page = LogPage { through: tip, entries: Vec::new() };
    let mut next_batch = next(batches, batch_row)?;
    let mut next_run = next(runs, run_row)?;
    let (mut bytes, mut last) = (0, after);
    loop {
        let batch_at = next_batch.as_ref().map(|row: &BatchRow| row.sequence);
        let run_at = next_run.as_ref().map(|row: &RunRow| row.changed_at);
        let Some(at) = batch_at.into_iter().chain(run_at).min() else { return Ok(page) };
        // A position is never split: everything up to the page's end is in it.
        if bytes >= bytes_max && at > last && !page.entries.is_empty() {
            page.through = last;
            return Ok(page);
        }
        last = at;
        if batch_at == Some(at) {
            if let Some(row) = next_batch.take() {
                bytes += row.batch.size();
                page.entries.push(LogEntry::Batch(row));
            }
            next_batch = next(batches, batch_row)?;
        } else {
            if let Some(row) = next_run.take() {
                bytes += row.head.len();
                page.entries.push(LogEntry::Run(row));
            }
            next_run = next(runs, run_row)?;
        }
    }
}

fn next<T>(
    rows: &mut Rows<'_>,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    rows.next()?.map(read).transpose()
}
