//! Our ids as columns and back.

use antipode_core::{
    batch::Batch,
    ids::{NamespaceId, RunId, RunKey, Sequence, Timestamp},
};
use bytes::Bytes;
use rusqlite::Row;
use uuid::Uuid;

use crate::{
    Error,
    rows::{BatchRow, RunRow},
};

/// Columns of `runs` in the order that [`run_row`] reads them.
pub(super) const RUN_COLUMNS: &str = "namespace, workflow, run, changed_at, wake_at, head";

/// A number that orders: it must fit, because a wrapped one would order wrongly.
pub(super) fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Invalid(format!("number {number} is too large to store")))
}

/// And back.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> Result<u64, Error> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("a negative number {number} in the store")))
}

pub(super) fn bytes(row: &Row<'_>, index: usize) -> Result<Bytes, Error> {
    Ok(Bytes::copy_from_slice(row.get_ref(index)?.as_blob().map_err(rusqlite::Error::from)?))
}

pub(super) fn uuid(row: &Row<'_>, index: usize) -> Result<Uuid, Error> {
    Ok(Uuid::from_bytes(row.get(index)?))
}

/// Reads a key from three neighbouring columns.
pub(super) fn run_key(row: &Row<'_>, first: usize) -> Result<RunKey, Error> {
    let workflow = row.get_ref(first + 1)?.as_str().map_err(rusqlite::Error::from)?.into();
    Ok(RunKey { namespace: NamespaceId(uuid(row, first)?), workflow, run: RunId(uuid(row, first + 2)?) })
}

/// Reads a row of [`RUN_COLUMNS`].
pub(super) fn run_row(row: &Row<'_>) -> Result<RunRow, Error> {
    let wake_at: Option<i64> = row.get(4)?;
    Ok(RunRow {
        key: run_key(row, 0)?,
        changed_at: Sequence(unsigned(row, 3)?),
        wake_at: wake_at.map(Timestamp),
        head: bytes(row, 5)?,
    })
}

/// Reads a batch from the columns sequence, envelope, events.
pub(super) fn batch_row(row: &Row<'_>) -> Result<BatchRow, Error> {
    let sequence = Sequence(unsigned(row, 0)?);
    let batch = Batch::open(bytes(row, 1)?, bytes(row, 2)?)
        .map_err(|error| Error::Damaged(format!("batch at {sequence}: {error}")))?;
    Ok(BatchRow { sequence, batch: batch.into() })
}
