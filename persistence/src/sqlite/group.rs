//! Writes one group. The fence is the first statement: when it changes no row, nothing else is run (D3).

use std::collections::BTreeMap;

use antipode_core::ids::{RunKey, ShardId};
use prost::Message;
use rusqlite::{CachedStatement, Connection, params};

use super::columns::signed;
use crate::{
    CommitError, Error, check,
    rows::{BatchRow, CurrentRow, DispatchChange, Group, ObligationChange, RunRow, VisibilityRow},
    visibility::Place,
};

const FENCE: &str = "UPDATE shards SET sequence = ?1 WHERE shard = ?2 AND range_id = ?3 AND sequence = ?4";
const RUN_FIND: &str = "SELECT id, wake_at, changed_at FROM runs WHERE namespace = ?1 AND workflow = ?2 AND run = ?3 AND shard = ?4";
/// Everything of a run, by the id that other tables call it; its batches through their index by run.
const RUN_DELETE: [&str; 5] = [
    "DELETE FROM batches WHERE run = ?1",
    "DELETE FROM dispatch WHERE run = ?1",
    "DELETE FROM obligations WHERE run = ?1",
    "DELETE FROM visibility WHERE id = ?1",
    "DELETE FROM runs WHERE id = ?1",
];
const CURRENT_FORGET: &str = "DELETE FROM currents WHERE namespace = ?1 AND workflow = ?2 AND shard = ?3";
const RUN_INSERT: &str = "INSERT INTO runs (shard, namespace, workflow, run, changed_at, wake_at, head)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const RUN_UPDATE: &str = "UPDATE runs SET changed_at = ?1, head = ?2 WHERE id = ?3";
const RUN_UPDATE_WAKE: &str = "UPDATE runs SET changed_at = ?1, head = ?2, wake_at = ?4 WHERE id = ?3";
const RUN_UPDATE_IN_PLACE: &str = "UPDATE runs SET head = ?1, wake_at = ?2 WHERE id = ?3";
const BATCH: &str = "INSERT INTO batches (shard, sequence, run, first_event, version, envelope, events)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
/// Never lowered (B6): a smaller order changes no row, which fails the group.
const CURRENT: &str = "INSERT INTO currents (namespace, workflow, shard, version, epoch, sequence, record)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
     ON CONFLICT (namespace, workflow) DO UPDATE SET
         version = excluded.version, epoch = excluded.epoch, sequence = excluded.sequence, record = excluded.record
     WHERE (excluded.version, excluded.epoch, excluded.sequence) >= (version, epoch, sequence)";
const DISPATCH_PUT: &str =
    "INSERT INTO dispatch (run, queue, kind, shard, namespace, ord) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
     ON CONFLICT (run, queue, kind) DO UPDATE SET ord = excluded.ord";
const DISPATCH_REMOVE: &str = "DELETE FROM dispatch WHERE run = ?1 AND queue = ?2 AND kind = ?3";
const OBLIGATION_PUT: &str = "INSERT INTO obligations (run, shard, due) VALUES (?1, ?2, ?3)
     ON CONFLICT (run) DO UPDATE SET due = excluded.due";
const OBLIGATION_REMOVE: &str = "DELETE FROM obligations WHERE run = ?1";
const VISIBILITY: &str = "INSERT INTO visibility (id, namespace, workflow, run, workflow_type, task_queue, status, start,
         execution, close, closes, history_length, history_size, transitions, superseded, first_run, memo,
         search_attributes)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
     ON CONFLICT (id) DO UPDATE SET
         workflow_type = excluded.workflow_type, task_queue = excluded.task_queue, status = excluded.status,
         start = excluded.start, execution = excluded.execution, close = excluded.close, closes = excluded.closes,
         history_length = excluded.history_length, history_size = excluded.history_size,
         transitions = excluded.transitions, superseded = excluded.superseded, first_run = excluded.first_run,
         memo = excluded.memo, search_attributes = excluded.search_attributes";

/// One of the statements above.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Sql {
    Fence,
    RunFind,
    RunInsert,
    RunUpdate,
    RunUpdateWake,
    RunUpdateInPlace,
    Batch,
    Current,
    DispatchPut,
    DispatchRemove,
    ObligationPut,
    ObligationRemove,
    Visibility,
    DeleteBatches,
    DeleteDispatch,
    DeleteObligation,
    DeleteVisibility,
    DeleteRun,
    CurrentForget,
}

const TEXTS: [&str; 19] = [
    FENCE,
    RUN_FIND,
    RUN_INSERT,
    RUN_UPDATE,
    RUN_UPDATE_WAKE,
    RUN_UPDATE_IN_PLACE,
    BATCH,
    CURRENT,
    DISPATCH_PUT,
    DISPATCH_REMOVE,
    OBLIGATION_PUT,
    OBLIGATION_REMOVE,
    VISIBILITY,
    RUN_DELETE[0],
    RUN_DELETE[1],
    RUN_DELETE[2],
    RUN_DELETE[3],
    RUN_DELETE[4],
    CURRENT_FORGET,
];

/// The statements of one transaction, each looked up once and not once a row.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    prepared: [Option<CachedStatement<'c>>; TEXTS.len()],
}

impl<'c> Statements<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, prepared: Default::default() }
    }

    fn get(&mut self, sql: Sql) -> Result<&mut CachedStatement<'c>, Error> {
        let index = sql as usize;
        let slot = &mut self.prepared[index];
        match slot {
            Some(statement) => Ok(statement),
            None => Ok(slot.insert(self.connection.prepare_cached(TEXTS[index])?)),
        }
    }
}

/// A run of the group: what other tables call it.
type Ids<'g> = BTreeMap<&'g RunKey, i64>;

/// Writes a group; what was written of it stays in the transaction when it fails, for the caller to roll back.
pub(super) fn write(statements: &mut Statements<'_>, group: &Group) -> Result<(), CommitError> {
    let rejected = |error: Error| CommitError::Rejected(error.to_string());
    if !fence(statements, group).map_err(rejected)? {
        return Err(CommitError::Fenced { shard: group.shard, range: group.range, after: group.after });
    }
    delete(statements, group).map_err(rejected)?;
    let mut ids = Ids::new();
    for row in &group.runs {
        let id = write_run(statements, group.shard, row).map_err(rejected)?;
        ids.insert(&row.key, id);
    }
    for row in &group.currents {
        if !write_current(statements, group.shard, row).map_err(rejected)? {
            return Err(check::lowered(row));
        }
    }
    write_rest(statements, group, &mut ids).map_err(rejected)
}

fn write_rest<'g>(statements: &mut Statements<'_>, group: &'g Group, ids: &mut Ids<'g>) -> Result<(), Error> {
    for row in &group.batches {
        let id = id_of(statements, ids, group.shard, &row.batch.envelope.run)?;
        write_batch(statements, group.shard, id, row)?;
    }
    for change in &group.dispatch {
        write_dispatch(statements, ids, group.shard, change)?;
    }
    for change in &group.obligations {
        write_obligation(statements, ids, group.shard, change)?;
    }
    for row in &group.visibility {
        let id = id_of(statements, ids, group.shard, &row.key)?;
        write_visibility(statements, id, row)?;
    }
    Ok(())
}

/// What leaves goes before anything is written: a row of the same run may take its place.
fn delete(statements: &mut Statements<'_>, group: &Group) -> Result<(), Error> {
    for key in &group.deletes {
        let Some(found) = find(statements, group.shard, key)? else { continue };
        for sql in [
            Sql::DeleteBatches,
            Sql::DeleteDispatch,
            Sql::DeleteObligation,
            Sql::DeleteVisibility,
            Sql::DeleteRun,
        ] {
            statements.get(sql)?.execute([found.id])?;
        }
    }
    for key in &group.forgets {
        let key = (key.namespace.0.as_bytes(), key.workflow.as_str(), group.shard.0);
        statements.get(Sql::CurrentForget)?.execute(key)?;
    }
    Ok(())
}

/// False when the shard is not as the group believes.
fn fence(statements: &mut Statements<'_>, group: &Group) -> Result<bool, Error> {
    let (after, through) = (signed(group.after.0)?, signed(group.through.0)?);
    let changed =
        statements.get(Sql::Fence)?.execute((through, group.shard.0, signed(group.range.0)?, after))?;
    Ok(changed == 1)
}

/// A run as the store has it, without its head.
struct Found {
    id: i64,
    wake_at: Option<i64>,
    changed_at: i64,
}

fn find(statements: &mut Statements<'_>, shard: ShardId, key: &RunKey) -> Result<Option<Found>, Error> {
    let statement = statements.get(Sql::RunFind)?;
    let parameters = (key.namespace.0.as_bytes(), key.workflow.as_str(), key.run.0.as_bytes(), shard.0);
    let mut rows = statement.query(parameters)?;
    Ok(match rows.next()? {
        Some(row) => Some(Found { id: row.get(0)?, wake_at: row.get(1)?, changed_at: row.get(2)? }),
        None => None,
    })
}

/// The id of a run of the group or of the store.
fn id_of<'g>(
    statements: &mut Statements<'_>,
    ids: &mut Ids<'g>,
    shard: ShardId,
    key: &'g RunKey,
) -> Result<i64, Error> {
    if let Some(id) = ids.get(key) {
        return Ok(*id);
    }
    let Some(Found { id, .. }) = find(statements, shard, key)? else {
        return Err(Error::Invalid(format!("run {key} has rows but is not stored")));
    };
    ids.insert(key, id);
    Ok(id)
}

/// For removals: a run that is not stored has nothing to remove.
fn id_if_stored(
    statements: &mut Statements<'_>,
    ids: &Ids<'_>,
    shard: ShardId,
    key: &RunKey,
) -> Result<Option<i64>, Error> {
    match ids.get(key) {
        Some(id) => Ok(Some(*id)),
        None => Ok(find(statements, shard, key)?.map(|found| found.id)),
    }
}

fn write_run(statements: &mut Statements<'_>, shard: ShardId, row: &RunRow) -> Result<i64, Error> {
    let changed_at = signed(row.changed_at.0)?;
    let wake_at = row.wake_at.map(|at| at.0);
    let head = row.head.as_ref();
    let Some(stored) = find(statements, shard, &row.key)? else {
        let key = &row.key;
        let insert = statements.get(Sql::RunInsert)?;
        return Ok(insert.insert((
            shard.0,
            key.namespace.0.as_bytes(),
            key.workflow.as_str(),
            key.run.0.as_bytes(),
            changed_at,
            wake_at,
            head,
        ))?);
    };
    if changed_at < stored.changed_at {
        return Err(Error::Invalid(check::moved_back(row)));
    }
    // A column that a statement sets has its indexes rewritten, also when the value stays (C5).
    if changed_at == stored.changed_at {
        statements.get(Sql::RunUpdateInPlace)?.execute((head, wake_at, stored.id))?;
    } else if wake_at == stored.wake_at {
        statements.get(Sql::RunUpdate)?.execute((changed_at, head, stored.id))?;
    } else {
        statements.get(Sql::RunUpdateWake)?.execute((changed_at, head, stored.id, wake_at))?;
    }
    Ok(stored.id)
}

fn write_batch(
    statements: &mut Statements<'_>,
    shard: ShardId,
    run: i64,
    row: &BatchRow,
) -> Result<(), Error> {
    let batch = &row.batch;
    statements.get(Sql::Batch)?.execute((
        shard.0,
        signed(row.sequence.0)?,
        run,
        batch.envelope.first_event.0,
        batch.envelope.version.0,
        batch.envelope_bytes.as_ref(),
        batch.events.as_ref(),
    ))?;
    Ok(())
}

/// False when the stored record is greater.
fn write_current(statements: &mut Statements<'_>, shard: ShardId, row: &CurrentRow) -> Result<bool, Error> {
    let (version, epoch, sequence) = check::order(row);
    let changed = statements.get(Sql::Current)?.execute((
        row.key.namespace.0.as_bytes(),
        row.key.workflow.as_str(),
        shard.0,
        version,
        signed(epoch)?,
        signed(sequence)?,
        row.record.encode_to_vec(),
    ))?;
    Ok(changed == 1)
}

fn write_dispatch<'g>(
    statements: &mut Statements<'_>,
    ids: &mut Ids<'g>,
    shard: ShardId,
    change: &'g DispatchChange,
) -> Result<(), Error> {
    match change {
        DispatchChange::Put(row) => {
            let id = id_of(statements, ids, shard, &row.key)?;
            let namespace = row.key.namespace.0.as_bytes();
            let order = signed(row.order.0)?;
            let put = statements.get(Sql::DispatchPut)?;
            put.execute((id, row.queue.as_str(), row.kind as u8, shard.0, namespace, order))?;
        }
        DispatchChange::Remove { key, queue, kind } => {
            if let Some(id) = id_if_stored(statements, ids, shard, key)? {
                statements.get(Sql::DispatchRemove)?.execute((id, queue.as_str(), *kind as u8))?;
            }
        }
    }
    Ok(())
}

fn write_obligation<'g>(
    statements: &mut Statements<'_>,
    ids: &mut Ids<'g>,
    shard: ShardId,
    change: &'g ObligationChange,
) -> Result<(), Error> {
    match change {
        ObligationChange::Put { key, due } => {
            let id = id_of(statements, ids, shard, key)?;
            statements.get(Sql::ObligationPut)?.execute((id, shard.0, due.0))?;
        }
        ObligationChange::Remove { key } => {
            if let Some(id) = id_if_stored(statements, ids, shard, key)? {
                statements.get(Sql::ObligationRemove)?.execute([id])?;
            }
        }
    }
    Ok(())
}

fn write_visibility(statements: &mut Statements<'_>, id: i64, row: &VisibilityRow) -> Result<(), Error> {
    statements.get(Sql::Visibility)?.execute(params![
        id,
        row.key.namespace.0.as_bytes(),
        row.key.workflow.as_str(),
        row.key.run.0.as_bytes(),
        row.workflow_type,
        row.task_queue,
        row.status,
        row.start.0,
        row.execution.0,
        row.close.map(|close| close.0),
        Place::of_row(row, id).close,
        row.history_length,
        row.history_size,
        row.transitions,
        row.superseded,
        row.first_run,
        row.memo.as_ref(),
        row.search_attributes.as_ref(),
    ])?;
    Ok(())
}
