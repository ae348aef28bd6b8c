//! The database file: whose it is, that nobody else has it open, and how connections to it are set up. A file that is not
//! ours, not whole or in use is found out before anything is written; a new one is made whole beside its place and moved
//! there, so that a crash leaves either no file or a good one.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{damaged, schema};
use crate::{Error, rows::Identity};

const HEADER_MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
const USER_VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;
const PAGE_BYTES: u32 = 4096;

/// Exclusive use of the database, held through a file beside it. The database file itself is never opened except by SQLite:
/// closing any descriptor of it would drop SQLite's own locks.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lives as long as the descriptor")] File);

/// Reads who a file belongs to without writing anything; none when there is no file.
///
/// # Errors
/// As [`super::SqliteStore::open`], except for the identity, which the caller compares.
pub fn inspect(path: &Path) -> Result<Option<Identity>, Error> {
    let held = lock_existing(path)?;
    let identity = check_header(path).and_then(|there| there.then(|| read_identity(path)).transpose());
    drop(held);
    identity
}

/// Checks or makes the file and takes the lock.
pub(super) fn prepare(path: &Path, wanted: &Identity) -> Result<Lock, Error> {
    // Whoever works with the file has made the lock file, so a file without one is looked at first and a stranger's
    // folder stays as it is.
    let held = lock_existing(path)?;
    if check_header(path)? {
        schema::check_identity(&read_identity(path)?, wanted, path)?;
        return held.map_or_else(|| lock(path), Ok);
    }
    for leftover in ["-wal", "-shm", "-journal"].map(|suffix| beside(path, suffix)) {
        if leftover.exists() {
            return Err(Error::Foreign(format!(
                "{} is left over from a database that is gone: put {} back or remove it",
                leftover.display(),
                path.display()
            )));
        }
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
    }
    let held = held.map_or_else(|| lock(path), Ok)?;
    create(path, wanted)?;
    Ok(held)
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Database(format!("cannot {what} {}: {error}", path.display()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

fn lock_existing(path: &Path) -> Result<Option<Lock>, Error> {
    let name = beside(path, ".lock");
    match File::options().write(true).open(&name) {
        Ok(file) => lock_file(path, &name, file).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("open", &name, &error)),
    }
}

fn lock(path: &Path) -> Result<Lock, Error> {
    let name = beside(path, ".lock");
    let file = File::options().write(true).create(true).truncate(false).open(&name);
    lock_file(path, &name, file.map_err(|error| cannot("make", &name, &error))?)
}

fn lock_file(path: &Path, name: &Path, file: File) -> Result<Lock, Error> {
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            Err(Error::Foreign(format!("{} is in use by another process", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(cannot("lock", name, &error)),
    }
}

/// Whether there is a database of ours; an error when there is something else.
fn check_header(path: &Path) -> Result<bool, Error> {
    let foreign =
        |why: &str| Err(Error::Foreign(format!("{} is not an Antipode database: {why}", path.display())));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(cannot("open", path, &error)),
        Err(error) => return Err(cannot("open", path, &error)),
    };
    let about = file.metadata().map_err(|error| cannot("read", path, &error))?;
    if about.is_dir() {
        return foreign("it is a folder");
    }
    let mut header = [0; HEADER_BYTES];
    if let Err(error) = file.read_exact(&mut header) {
        return match error.kind() {
            ErrorKind::UnexpectedEof => foreign("it is too short"),
            _ => Err(cannot("read", path, &error)),
        };
    }
    if !header.starts_with(HEADER_MAGIC) {
        return foreign("it is not an SQLite file");
    }
    let number =
        |at: usize| header[at..at + 4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    if number(APPLICATION_ID_AT) != schema::APPLICATION_ID.cast_unsigned() {
        return foreign("it is the SQLite file of another application");
    }
    schema::check_version(number(USER_VERSION_AT), path)?;
    Ok(true)
}

/// Leaves no trace beside a file without log. With one, the process that wrote it was killed, perhaps while it moved the log
/// into the file: then the main file alone may look damaged, and is whole only together with the log.
fn read_identity(path: &Path) -> Result<Identity, Error> {
    let text = path.to_str().ok_or_else(|| Error::Foreign(format!("{} is not UTF-8", path.display())))?;
    let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let killed = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let how = if killed { "mode=ro" } else { "immutable=1" };
    let connection = Connection::open_with_flags(format!("file:{escaped}?{how}"), flags)
        .map_err(|error| damaged(path, &error))?;
    schema::identity_read(&connection).map_err(|error| damaged(path, &error))
}

fn create(path: &Path, identity: &Identity) -> Result<(), Error> {
    let draft = beside(path, ".new");
    let failed = |error: &dyn std::fmt::Display| cannot("make", path, error);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    let connection = Connection::open(&draft)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    // The draft is thrown away after a crash: it needs no journal.
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    schema::create(&connection, identity)?;
    // Only marks the header: connections to the file find it in this mode.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| Error::from(error))?;
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(&draft).map_err(|error| failed(&error))?;
    fs::rename(&draft, path).map_err(|error| failed(&error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(folder).map_err(|error| failed(&error))
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The one connection that writes.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|error| damaged(path, &error))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::Database(format!("{} does not take a write-ahead log", path.display())));
    }
    tune(&connection)?;
    Ok(connection)
}

/// Settings of the writer. Every commit is synced before it is answered.
pub(super) fn tune(connection: &Connection) -> Result<(), Error> {
    for (name, value) in [
        ("synchronous", "FULL"),
        ("wal_autocheckpoint", "0"),
        ("cache_size", "-65536"),
        ("temp_store", "MEMORY"),
        ("foreign_keys", "OFF"),
        // More than the log gets: writing over it costs less than making it grow.
        ("journal_size_limit", "268435456"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// A connection that sees snapshots and cannot write.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "cache_size", "-8192")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// A connection that moves the log into the file.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", "0")?;
    Ok(connection)
}
