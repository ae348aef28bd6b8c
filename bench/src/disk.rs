//! The bare commit of the same minute: what the disk under the servers' data folders does without any server. A figure
//! of a durable server means little without it, because virtual disks differ by a factor of ten.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    clock,
    error::{Error, Result},
};

/// Bytes of one append.
const APPEND: usize = 4096;
/// Bytes of one inserted row.
const ROW: usize = 500;

/// Commits a second, one after another.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Bare {
    /// 4 KiB appended to a file, then fdatasync.
    pub fdatasync_per_second: f64,
    /// One row of 500 bytes inserted per transaction, journal_mode WAL, synchronous FULL.
    pub sqlite_per_second: f64,
}

/// Measures both, each for that long, in a folder.
///
/// # Errors
/// When the folder cannot be written.
pub fn measure(folder: &Path, length: Duration) -> Result<Bare> {
    Ok(Bare { fdatasync_per_second: fdatasync(folder, length)?, sqlite_per_second: sqlite(folder, length)? })
}

fn rate(begin: Instant, commits: u32) -> f64 {
    f64::from(commits) / begin.elapsed().as_secs_f64()
}

fn fdatasync(folder: &Path, length: Duration) -> Result<f64> {
    let path = folder.join("bare.log");
    let mut file = File::create(&path).map_err(Error::file(&path))?;
    let block = [7_u8; APPEND];
    let (begin, mut commits) = (clock::now(), 0);
    while begin.elapsed() < length {
        file.write_all(&block).and_then(|()| file.sync_data()).map_err(Error::file(&path))?;
        commits += 1;
    }
    Ok(rate(begin, commits))
}

fn sqlite(folder: &Path, length: Duration) -> Result<f64> {
    let connection = rusqlite::Connection::open(folder.join("bare.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let mut insert = connection.prepare("INSERT INTO row (body) VALUES (?1)")?;
    let body = [7_u8; ROW];
    let (begin, mut commits) = (clock::now(), 0);
    while begin.elapsed() < length {
        insert.execute([&body[..]])?;
        commits += 1;
    }
    Ok(rate(begin, commits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bare_commits_leave_what_they_wrote() {
        let folder = crate::launch::fresh_folder(&std::env::temp_dir()).unwrap();
        let bare = measure(folder.path(), Duration::from_millis(30)).unwrap();
        assert!(bare.fdatasync_per_second > 0.0 && bare.sqlite_per_second > 0.0);
        let appended = std::fs::metadata(folder.path().join("bare.log")).unwrap().len();
        assert!(appended >= APPEND as u64 && appended.is_multiple_of(APPEND as u64));
        let connection = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
        let rows: i64 = connection.query_row("SELECT count(*) FROM row", [], |row| row.get(0)).unwrap();
        assert!(rows > 0);
    }
}
