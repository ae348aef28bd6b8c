//! The one writer. It takes everything that was queued while the last commit ran and makes one transaction of it: groups of
//! different shards and single writes share a sync. When one of them fails, all are rolled back and the others are written
//! again without it: they are independent, and failing is rare, so the common case needs no savepoints (D4). Callers are
//! answered after COMMIT; when COMMIT itself fails with an I/O error, the outcome is unknown (D2).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use antipode_core::ids::{RangeId, Sequence, ShardId};

use super::{
    SqliteStore,
    checkpoint::{Handle, LOG_PAGES_MAX, passive},
    columns::{signed, unsigned},
    group::{self, Statements},
};
use crate::{
    CommitError, Error, check,
    rows::{Acquired, Group},
    store::ShardStore,
};

/// Most writes of one transaction: bounds the answer time of the first.
const WRITES_MAX: usize = 512;

/// Something to write and whoever waits for it.
enum Pending {
    Group { group: Box<Group>, answer: oneshot::Sender<Result<(), CommitError>> },
    Other(Box<dyn Other>),
}

/// A write that is not a group; may run again when its transaction is rolled back because of another.
trait Other: Send {
    /// Runs; false when it failed and wants nothing written.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers: with its result, or with why the transaction failed.
    fn answer(self: Box<Self>, failure: Option<&str>);
}

struct Job<T, F> {
    job: F,
    result: Option<Result<T, Error>>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: FnMut(&Connection) -> Result<T, Error> + Send> Other for Job<T, F> {
    fn run(&mut self, connection: &Connection) -> bool {
        let result = (self.job)(connection);
        let good = result.is_ok();
        self.result = Some(result);
        good
    }

    fn answer(self: Box<Self>, failure: Option<&str>) {
        let result = match (self.result, failure) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (_, why) => Err(Error::Database(why.unwrap_or("not run").to_string())),
        };
        // A caller that went away does not need its answer.
        let _ = self.answer.send(result);
    }
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    writes: Vec<Pending>,
    /// The writer will look.
    scheduled: bool,
}

impl Queue {
    /// True when the writer must be started.
    fn push(&self, pending: Pending) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.writes.push(pending);
        !std::mem::replace(&mut waiting.scheduled, true)
    }

    fn take(&self) -> Vec<Pending> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.writes.len() > WRITES_MAX {
            return waiting.writes.drain(..WRITES_MAX).collect();
        }
        waiting.scheduled = !waiting.writes.is_empty();
        std::mem::take(&mut waiting.writes)
    }
}

/// The writer's connection.
pub(super) struct Writer {
    connection: Connection,
    log_pages: Arc<AtomicUsize>,
    checkpointer: Option<Handle>,
    /// Set when the disk failed to sync: nothing that is written after that can be trusted.
    broken: Option<String>,
}

/// How a transaction ended.
enum Outcome {
    Committed,
    Rejected(String),
    Unknown(String),
}

impl Writer {
    pub(super) fn new(mut connection: Connection, checkpointer: Option<Handle>) -> Result<Self, Error> {
        let log_pages = Arc::new(AtomicUsize::new(0));
        let pages = Arc::clone(&log_pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(usize::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { connection, log_pages, checkpointer, broken: None })
    }

    fn drain(&mut self, queue: &Queue) {
        loop {
            let writes = queue.take();
            if writes.is_empty() {
                return;
            }
            self.write(writes);
            self.after_commit();
        }
    }

    fn write(&mut self, mut writes: Vec<Pending>) {
        while !writes.is_empty() {
            if let Some(why) = &self.broken {
                return writes.into_iter().for_each(|write| write.answer(&Outcome::Rejected(why.clone())));
            }
            match self.attempt(&mut writes) {
                Attempt::Ended(outcome) => {
                    return writes.into_iter().for_each(|write| write.answer(&outcome));
                }
                Attempt::Failed { index, error } => {
                    let failed = writes.remove(index);
                    match (failed, error) {
                        (Pending::Group { answer, .. }, Some(error)) => {
                            let _ = answer.send(Err(error));
                        }
                        (failed, _) => failed.answer(&Outcome::Rejected("rolled back".to_string())),
                    }
                }
            }
        }
    }

    fn attempt(&mut self, writes: &mut [Pending]) -> Attempt {
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            return Attempt::Ended(Outcome::Rejected(error.to_string()));
        }
        let failed = run_all(&self.connection, writes);
        if let Some((index, error)) = failed {
            self.roll_back();
            return Attempt::Failed { index, error };
        }
        let Err(error) = self.connection.execute_batch("COMMIT") else {
            return Attempt::Ended(Outcome::Committed);
        };
        self.roll_back();
        if sync_failed(&error) {
            self.broken = Some(format!("the disk failed to sync ({error}): restart the node"));
        }
        Attempt::Ended(commit_failure(&error))
    }

    fn roll_back(&self) {
        // SQLite itself rolls back after some errors.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back");
        }
    }

    fn after_commit(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        let now = match &self.checkpointer {
            Some(handle) => handle.committed(pages),
            None => pages >= LOG_PAGES_MAX,
        };
        if now && let Err(error) = passive(&self.connection) {
            tracing::warn!(%error, "cannot move the write-ahead log into the file");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A clean end leaves an empty log.
        let done = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(%error, "cannot empty the write-ahead log at the end; the next start reads it");
        }
    }
}

enum Attempt {
    /// All share this outcome.
    Ended(Outcome),
    /// One failed; everything is rolled back.
    Failed { index: usize, error: Option<CommitError> },
}

/// Runs all writes; the first that fails.
fn run_all(connection: &Connection, writes: &mut [Pending]) -> Option<(usize, Option<CommitError>)> {
    let mut statements = Statements::new(connection);
    for (index, write) in writes.iter_mut().enumerate() {
        match write {
            Pending::Group { group, .. } => {
                if let Err(error) = group::write(&mut statements, group) {
                    return Some((index, Some(error)));
                }
            }
            Pending::Other(other) => {
                if !other.run(connection) {
                    return Some((index, None));
                }
            }
        }
    }
    None
}

impl Pending {
    fn answer(self, outcome: &Outcome) {
        match self {
            Self::Group { answer, .. } => {
                let _ = answer.send(match outcome {
                    Outcome::Committed => Ok(()),
                    Outcome::Rejected(why) => Err(CommitError::Rejected(why.clone())),
                    Outcome::Unknown(why) => Err(CommitError::Unknown(why.clone())),
                });
            }
            Self::Other(other) => other.answer(match outcome {
                Outcome::Committed => None,
                Outcome::Rejected(why) | Outcome::Unknown(why) => Some(why),
            }),
        }
    }
}

/// What a failed COMMIT means. A constraint or a lock fails before the log is touched; anything else may have left a whole
/// commit in it.
fn commit_failure(error: &rusqlite::Error) -> Outcome {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Outcome::Rejected(error.to_string())
        }
        _ => Outcome::Unknown(error.to_string()),
    }
}

/// After a failed sync the system may have dropped dirty pages and report success the next time.
fn sync_failed(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(
            error.extended_code,
            rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC
        )
    })
}

impl SqliteStore {
    fn enqueue(&self, pending: Pending) {
        if self.queue.push(pending) {
            let queue = Arc::clone(&self.queue);
            self.writer.start(move |writer| writer.drain(&queue));
        }
    }

    /// Runs a write in the next transaction. It may run more than once; only the last run counts.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(Pending::Other(Box::new(Job { job, result: None, answer })));
        answered.await.map_err(|_| Error::Database("the store is closed".to_string()))?
    }
}

#[async_trait]
impl ShardStore for SqliteStore {
    async fn shard_acquire(&self, shard: ShardId, owner: &str) -> Result<Acquired, Error> {
        let owner = owner.to_string();
        self.write(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO shards (shard, range_id, sequence, owner) VALUES (?1, 1, 0, ?2)
                 ON CONFLICT (shard) DO UPDATE SET range_id = range_id + 1, owner = excluded.owner
                 RETURNING range_id, sequence",
            )?;
            let mut rows = statement.query((shard.0, &owner))?;
            let row = rows.next()?.ok_or_else(|| Error::Database("the shard row is gone".to_string()))?;
            let acquired =
                Acquired { range: RangeId(unsigned(row, 0)?), sequence: Sequence(unsigned(row, 1)?) };
            // The statement is complete only when it was stepped to its end.
            while rows.next()?.is_some() {}
            Ok(acquired)
        })
        .await
    }

    async fn shard_commit(&self, group: Group) -> Result<(), CommitError> {
        check::group(&group)?;
        let too_large = |error: Error| CommitError::Rejected(error.to_string());
        signed(group.through.0).map_err(too_large)?;
        let (answer, answered) = oneshot::channel();
        self.enqueue(Pending::Group { group: Box::new(group), answer });
        // The writer's thread ended without an answer: it may have committed before.
        answered.await.unwrap_or_else(|_| Err(CommitError::Unknown("the store is closed".to_string())))
    }

    async fn shard_positions(&self) -> Result<Vec<(ShardId, Sequence)>, Error> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT shard, sequence FROM shards ORDER BY shard")?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((ShardId(row.get(0)?), Sequence(unsigned(row, 1)?)));
            }
            Ok(found)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(extended_code), None)
    }

    #[test]
    fn a_commit_that_failed_in_the_disk_is_unknown_and_a_refused_one_is_not() {
        for code in [rusqlite::ffi::SQLITE_IOERR_FSYNC, rusqlite::ffi::SQLITE_IOERR_WRITE] {
            assert!(matches!(commit_failure(&failure(code)), Outcome::Unknown(_)));
        }
        for code in [rusqlite::ffi::SQLITE_CONSTRAINT_COMMITHOOK, rusqlite::ffi::SQLITE_BUSY] {
            assert!(matches!(commit_failure(&failure(code)), Outcome::Rejected(_)));
        }
        assert!(sync_failed(&failure(rusqlite::ffi::SQLITE_IOERR_FSYNC)));
        assert!(!sync_failed(&failure(rusqlite::ffi::SQLITE_FULL)));
    }
}
