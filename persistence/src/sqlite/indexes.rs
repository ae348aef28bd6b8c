//! Derived indexes: due wake-ups, the dispatch backlog, due obligations.

use antipode_core::ids::{NamespaceId, RunKey, Sequence, ShardId, Timestamp};
use async_trait::async_trait;
use rusqlite::Connection;

use super::{
    SqliteStore,
    columns::{run_key, signed, unsigned},
};
use crate::{
    Error,
    memory::cut,
    rows::{DispatchRow, TaskKind},
    store::IndexStore,
};

const WAKE_DUE: &str = "SELECT wake_at, namespace, workflow, run FROM runs
     WHERE shard = ?1 AND namespace = ?2 AND wake_at IS NOT NULL AND wake_at < ?3 ORDER BY wake_at LIMIT ?4";
const OBLIGATION_DUE: &str = "SELECT o.due, r.namespace, r.workflow, r.run
     FROM obligations AS o CROSS JOIN runs AS r ON r.id = o.run
     WHERE o.shard = ?1 AND o.due < ?2 ORDER BY o.due LIMIT ?3";
const QUEUE_NEXT: &str = "SELECT queue, kind FROM dispatch
     WHERE shard = ?1 AND namespace = ?2 AND (queue, kind) > (?3, ?4) ORDER BY queue, kind LIMIT 1";
/// Read row by row and left when enough is there: a LIMIT would cut between rows of one position.
const BACKLOG: &str = "SELECT d.ord, r.namespace, r.workflow, r.run
     FROM dispatch AS d CROSS JOIN runs AS r ON r.id = d.run
     WHERE d.shard = ?1 AND d.namespace = ?2 AND d.queue = ?3 AND d.kind = ?4 AND d.ord > ?5 ORDER BY d.ord";

#[async_trait]
impl IndexStore for SqliteStore {
    async fn wake_due(
        &self,
        shard: ShardId,
        namespaces: &[NamespaceId],
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RunKey)>, Error> {
        let namespaces = namespaces.to_vec();
        self.read(move |connection| {
            let mut found = Vec::new();
            let mut statement = connection.prepare_cached(WAKE_DUE)?;
            for namespace in &namespaces {
                let mut rows =
                    statement.query((shard.0, namespace.0.as_bytes(), until.0, rows_max(limit)))?;
                while let Some(row) = rows.next()? {
                    found.push((Timestamp(row.get(0)?), run_key(row, 1)?));
                }
            }
            found.sort_by_key(|(at, _)| *at);
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    async fn dispatch_backlog(
        &self,
        shard: ShardId,
        namespaces: &[NamespaceId],
        queue: Option<(&str, TaskKind)>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DispatchRow>, Error> {
        let namespaces = namespaces.to_vec();
        let wanted = queue.map(|(name, kind)| (name.to_string(), kind));
        self.read(move |connection| {
            let mut found = Vec::new();
            for namespace in &namespaces {
                let queues = match &wanted {
                    Some(queue) => vec![queue.clone()],
                    None => queues_of(connection, shard, *namespace)?,
                };
                for (queue, kind) in queues {
                    backlog_of(connection, shard, *namespace, (&queue, kind), after, limit, &mut found)?;
                }
            }
            found.sort_by_key(|row| row.order);
            cut(&mut found, limit);
            Ok(found)
        })
        .await
    }

    async fn obligation_due(
        &self,
        shard: ShardId,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RunKey)>, Error> {
        self.read(move |connection| {
            let mut found = Vec::new();
            let mut statement = connection.prepare_cached(OBLIGATION_DUE)?;
            let mut rows = statement.query((shard.0, until.0, rows_max(limit)))?;
            while let Some(row) = rows.next()? {
                found.push((Timestamp(row.get(0)?), run_key(row, 1)?));
            }
            Ok(found)
        })
        .await
    }
}

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn kind(number: u8) -> Result<TaskKind, Error> {
    match number {
        1 => Ok(TaskKind::Workflow),
        2 => Ok(TaskKind::Activity),
        _ => Err(Error::Damaged(format!("task kind {number} in the dispatch index"))),
    }
}

/// Queues with a backlog: one step of the index a queue, however long each is.
fn queues_of(
    connection: &Connection,
    shard: ShardId,
    namespace: NamespaceId,
) -> Result<Vec<(String, TaskKind)>, Error> {
    let mut statement = connection.prepare_cached(QUEUE_NEXT)?;
    let mut last = (String::new(), 0_u8);
    let mut found = Vec::new();
    loop {
        let mut rows = statement.query((shard.0, namespace.0.as_bytes(), &last.0, last.1))?;
        let Some(row) = rows.next()? else { return Ok(found) };
        last = (row.get(0)?, row.get(1)?);
        found.push((last.0.clone(), kind(last.1)?));
    }
}

fn backlog_of(
    connection: &Connection,
    shard: ShardId,
    namespace: NamespaceId,
    (queue, kind): (&str, TaskKind),
    after: Sequence,
    limit: usize,
    found: &mut Vec<DispatchRow>,
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(BACKLOG)?;
    let mut rows = statement.query((shard.0, namespace.0.as_bytes(), queue, kind as u8, signed(after.0)?))?;
    let (mut count, mut last) = (0, after);
    while let Some(row) = rows.next()? {
        let order = Sequence(unsigned(row, 0)?);
        if count >= limit && order > last {
            break;
        }
        (count, last) = (count + 1, order);
        found.push(DispatchRow { key: run_key(row, 1)?, queue: queue.to_string(), kind, order });
    }
    Ok(())
}
