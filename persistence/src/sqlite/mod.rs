//! SQLite: the embedded default. One file a region, write-ahead log with full sync, one writer that commits what has
//! gathered meanwhile as one transaction, two readers on snapshots of their own.

mod checkpoint;
mod columns;
mod file;
mod group;
mod indexes;
mod records;
mod render;
mod runs;
mod schema;
mod visibility;
mod writer;

use std::{path::PathBuf, sync::Arc};

use antipode_env::{StoreExecutor, StorePool};
use rusqlite::Connection;

use crate::{Error, rows::Identity};
use checkpoint::Checkpointer;
use file::Lock;
use writer::{Queue, Writer};

pub use file::inspect;
pub use schema::VERSION as SCHEMA_VERSION;

/// Where the data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In this file; made when it is not there.
    File(PathBuf),
    /// In memory; forgotten when the store is dropped.
    Memory,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub location: Location,
    /// Who the store belongs to. Cluster id and incarnation are taken for a new file only; an old one keeps its own.
    pub identity: Identity,
    /// How blocking calls are run.
    pub executor: StoreExecutor,
}

/// Connections that only read, beside the writer.
const READERS: usize = 2;

/// See the module.
pub struct SqliteStore {
    identity: Identity,
    // Dropped in this order: whoever may still use the file first, the lock on it last.
    readers: Option<StorePool<Connection>>,
    checkpointer: Option<Checkpointer>,
    queue: Arc<Queue>,
    writer: StorePool<Writer>,
    _lock: Option<Lock>,
}

impl SqliteStore {
    /// Opens or makes a store; blocks.
    ///
    /// # Errors
    /// [`Error::Foreign`] when the file is not ours, belongs to another region, comes from a newer version or is in use;
    /// [`Error::Damaged`] when it is not whole. Nothing is written then.
    pub fn open(options: Options) -> Result<Self, Error> {
        match options.location {
            Location::File(path) => Self::open_file(path, options.identity, options.executor),
            Location::Memory => Self::open_memory(&options.identity, options.executor),
        }
    }

    fn open_file(path: PathBuf, wanted: Identity, executor: StoreExecutor) -> Result<Self, Error> {
        let lock = file::prepare(&path, &wanted)?;
        let connection = file::open_writer(&path)?;
        schema::migrate(&connection, &path)?;
        let identity = schema::identity_read(&connection).map_err(|error| damaged(&path, &error))?;
        let readers =
            (0..READERS).map(|_| file::open_reader(&path)).collect::<Result<Vec<_>, _>>()?.into_iter();
        let reader = |connection: Option<Connection>| {
            connection.ok_or_else(|| Error::Database("no reader connection".to_string()))
        };
        let mut readers = readers;
        let first = reader(readers.next())?;
        // Threads carry the region's name: logs tell regions apart by it.
        let region = identity.region.clone();
        let thread = |what: &str| format!("{region}/{what}");
        let checkpointer = match executor {
            StoreExecutor::Threaded => {
                let connection = file::open_checkpointer(&path)?;
                Some(Checkpointer::start(&thread("store-checkpoint"), connection)?)
            }
            StoreExecutor::Inline => None,
        };
        let writer = Writer::new(connection, checkpointer.as_ref().map(Checkpointer::handle))?;
        Ok(Self {
            identity,
            readers: Some(executor.pool(&thread("store-read"), first, readers.collect()).map_err(no_thread)?),
            checkpointer,
            queue: Arc::default(),
            writer: executor.pool(&thread("store-write"), writer, Vec::new()).map_err(no_thread)?,
            _lock: Some(lock),
        })
    }

    fn open_memory(wanted: &Identity, executor: StoreExecutor) -> Result<Self, Error> {
        let connection = Connection::open_in_memory()?;
        file::tune(&connection)?;
        schema::create(&connection, wanted)?;
        let writer = Writer::new(connection, None)?;
        Ok(Self {
            identity: wanted.clone(),
            readers: None,
            checkpointer: None,
            queue: Arc::default(),
            writer: executor.pool("store-write", writer, Vec::new()).map_err(no_thread)?,
            _lock: None,
        })
    }

    /// Runs a read on a snapshot. In memory there is one connection, and reads queue with the writes.
    async fn read<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(readers) = &self.readers else { return self.write(job).await };
        let stopped = |_| Error::Database("the store is closed".to_string());
        readers
            .call(move |connection| {
                // One transaction, so that all statements of the read see the same state.
                let snapshot = connection.unchecked_transaction()?;
                let result = job(&snapshot);
                snapshot.commit()?;
                result
            })
            .await
            .map_err(stopped)?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer's last checkpoint empties the log only when nobody reads it.
        self.readers = None;
        self.checkpointer = None;
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::Database(format!("no thread for the store: {error}"))
}

/// An error of a file that should be ours and whole.
fn damaged(path: &std::path::Path, error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    // The words of an error that is one of damage already are not said twice.
    let why = text.strip_prefix("storage holds damaged data: ").unwrap_or(&text);
    Error::Damaged(format!("{}: {why}", path.display()))
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Damaged(error.to_string()),
                other => Self::Database(other.to_string()),
            },
        }
    }
}
