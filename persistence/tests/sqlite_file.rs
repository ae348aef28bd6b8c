//! What only a file can show: restarts, crashes, other people's files, damage. Each refusal is one clear line, and the
//! folder is as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use antipode_core::ids::{Incarnation, Sequence, ShardId, Timestamp};
use antipode_env::StoreExecutor;
use antipode_persistence::{
    CommitError, Error, SqliteStore,
    conformance::fixture::{Owner, identity, key, visible},
    rows::{Identity, QuarantineRow},
    sqlite::{Location, Options, SCHEMA_VERSION, inspect},
    store::{IndexStore, RegionStore, RunStore, ShardStore, VisibilityStore},
};

fn open_as(path: &Path, identity: Identity) -> Result<SqliteStore, Error> {
    let location = Location::File(path.to_path_buf());
    SqliteStore::open(Options { location, identity, executor: StoreExecutor::Threaded })
}

fn open(path: &Path) -> Result<SqliteStore, Error> {
    open_as(path, identity())
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("east.db");
    (folder, path)
}

/// All files of a folder and their bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Opens what must not open: one line, the folder untouched.
fn refusal(path: &Path) -> String {
    refusal_as(path, identity())
}

fn refusal_as(path: &Path, identity: Identity) -> String {
    let before = contents(path.parent().unwrap());
    let error = match open_as(path, identity) {
        Ok(_) => panic!("{} opened", path.display()),
        Err(error) => error.to_string(),
    };
    assert!(!error.contains('\n'), "one line: {error}");
    assert!(error.contains(&path.display().to_string()), "names the file: {error}");
    let after = contents(path.parent().unwrap());
    assert!(before == after, "touched: {:?} became {:?}", before.keys(), after.keys());
    error
}

async fn fill(store: &SqliteStore, rounds: u128) -> Owner {
    let mut owner = Owner::acquire(store, 1).await.unwrap();
    for round in 0..rounds {
        let keys = [key("w", round * 2 + 1), key("v", round * 2 + 2)];
        let mut group = owner.started(&keys).unwrap();
        group.visibility.push(visible(&keys[0], 1, None, 1));
        store.shard_commit(group).await.unwrap();
    }
    owner
}

async fn is_filled(store: &SqliteStore, rounds: u128) {
    let expected = Sequence(u64::try_from(rounds).unwrap() * 2);
    assert_eq!(store.shard_positions().await.unwrap(), [(ShardId(1), expected)]);
    for round in 0..rounds {
        for key in [key("w", round * 2 + 1), key("v", round * 2 + 2)] {
            let run = store.run_load(ShardId(1), &key).await.unwrap().unwrap();
            assert_eq!(run.batches.len(), 1, "{key}");
        }
        assert!(store.visibility_get(&key("w", round * 2 + 1)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_restart_finds_everything_and_a_clean_end_leaves_one_file() {
    let (folder, path) = folder();
    let store = open(&path).unwrap();
    fill(&store, 50).await;
    drop(store);
    let left: Vec<_> = contents(folder.path()).into_keys().collect();
    assert_eq!(left, [path.clone(), folder.path().join("east.db.lock")], "the log is in the file");
    is_filled(&open(&path).unwrap(), 50).await;
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    // A copy of the files while the store is open is what a killed process leaves.
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    fill(&store, 50).await;
    let crashed = tempfile::tempdir().unwrap();
    let copy = crashed.path().join("east.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    let again = open(&copy).unwrap();
    is_filled(&again, 50).await;
    // And it goes on from there.
    let mut owner = Owner::acquire(&again, 1).await.unwrap();
    again.shard_commit(owner.started(&[key("after", 999)]).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_crash_while_the_log_is_moved_into_the_file_is_no_damage() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    fill(&store, 50).await;
    let crashed = tempfile::tempdir().unwrap();
    let copy = crashed.path().join("east.db");
    fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    // The first page is moved first: it tells of more pages than have arrived.
    let mut bytes = fs::read(&path).unwrap();
    let pages = u32::try_from(bytes.len() / 4096).unwrap() + 7;
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    bytes.copy_within(24..28, 92);
    fs::write(&copy, bytes).unwrap();
    assert_eq!(inspect(&copy).unwrap().map(|found| found.region), Some(identity().region));
    is_filled(&open(&copy).unwrap(), 50).await;
}

#[tokio::test]
async fn a_torn_log_loses_only_what_was_not_acknowledged() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let mut owner = fill(&store, 10).await;
    let whole = fs::metadata(path.with_extension("db-wal")).unwrap().len();
    store.shard_commit(owner.started(&[key("late", 999)]).unwrap()).await.unwrap();
    let log = fs::read(path.with_extension("db-wal")).unwrap();
    let whole = usize::try_from(whole).unwrap();
    assert!(log.len() > whole, "the last commit is in the log");
    // The last commit was being written when the machine died: cut anywhere, or a sector of it never reached the disk.
    let mut tails = vec![log[..log.len() - 10].to_vec(), log[..whole + 1].to_vec()];
    tails.push(log[..(whole + log.len()) / 2].to_vec());
    for at in [whole + 100, log.len() - 100] {
        let mut tail = log.clone();
        tail[at] ^= 0x40;
        tails.push(tail);
    }
    for tail in tails {
        let crashed = tempfile::tempdir().unwrap();
        let copy = crashed.path().join("east.db");
        fs::copy(&path, &copy).unwrap();
        fs::write(copy.with_extension("db-wal"), tail).unwrap();
        let again = open(&copy).unwrap();
        is_filled(&again, 10).await;
        assert!(again.run_load(ShardId(1), &key("late", 999)).await.unwrap().is_none());
        // And it goes on from there.
        let mut next = Owner::acquire(&again, 1).await.unwrap();
        again.shard_commit(next.started(&[key("later", 1_000)]).unwrap()).await.unwrap();
        assert!(again.run_load(ShardId(1), &key("later", 1_000)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_owner_from_before_the_restart_is_fenced() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let mut stale = fill(&store, 1).await;
    drop(store);
    let store = open(&path).unwrap();
    let owner = Owner::acquire(&store, 1).await.unwrap();
    assert!(owner.range > stale.range);
    let late = store.shard_commit(stale.started(&[key("late", 9)]).unwrap()).await;
    assert!(matches!(late, Err(CommitError::Fenced { .. })), "{late:?}");
}

#[tokio::test]
async fn cluster_id_and_incarnation_are_the_files_own() {
    let (_folder, path) = folder();
    drop(open(&path).unwrap());
    let later =
        Identity { cluster_id: "minted later".to_string(), incarnation: Incarnation(1), ..identity() };
    assert_eq!(*open_as(&path, later).unwrap().identity(), identity());
    assert_eq!(inspect(&path).unwrap(), Some(identity()));
}

#[tokio::test]
async fn looking_leaves_no_trace() {
    let (folder, path) = folder();
    assert_eq!(inspect(&path).unwrap(), None);
    assert!(contents(folder.path()).is_empty());
    drop(open(&path).unwrap());
    let before = contents(folder.path());
    assert_eq!(inspect(&path).unwrap(), Some(identity()));
    assert!(before == contents(folder.path()));
}

#[tokio::test]
async fn the_file_of_another_region_is_refused() {
    let (_folder, path) = folder();
    drop(open(&path).unwrap());
    for (wanted, word) in [
        (Identity { region: "west".to_string(), initial: 2, ..identity() }, "region west (initial version 2"),
        (Identity { increment: 100, ..identity() }, "increment 100"),
        (Identity { shards: 8, ..identity() }, "8 shards"),
    ] {
        let why = refusal_as(&path, wanted);
        assert!(why.contains("belongs to region east (initial version 1") && why.contains(word), "{why}");
    }
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    fill(&store, 1).await;
    let second = open(&path).err().map(|error| error.to_string());
    assert_eq!(second, Some(format!("{} is in use by another process", path.display())));
    assert!(inspect(&path).is_err());
    // The first goes on, and whoever comes after it may open.
    is_filled(&store, 1).await;
    drop(store);
    is_filled(&open(&path).unwrap(), 1).await;
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused() {
    let (_folder, path) = folder();
    for (content, word) in [
        (b"hello".to_vec(), "too short"),
        (Vec::new(), "too short"),
        (vec![b'x'; 10_000], "not an SQLite file"),
    ] {
        fs::write(&path, content).unwrap();
        let why = refusal(&path);
        assert!(why.contains("is not an Antipode database") && why.contains(word), "{why}");
    }
    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    drop(other);
    assert!(refusal(&path).contains("another application"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refusal(&path).contains("a folder"));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (_folder, path) = folder();
    drop(open(&path).unwrap());
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    drop(newer);
    let why = refusal(&path);
    assert!(why.contains(&format!("schema version {}", SCHEMA_VERSION + 1)), "{why}");
    assert!(why.contains("newer binary"), "{why}");
}

/// A copy of the folder that the version of an issue wrote.
fn earlier(issue: u32) -> (tempfile::TempDir, PathBuf) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../tests/fixtures/store-issue-{issue}/data/east.db"));
    let (folder, path) = folder();
    fs::copy(fixture, &path).unwrap();
    (folder, path)
}

#[tokio::test]
async fn runs_that_closed_under_an_earlier_schema_come_due() {
    let (_folder, path) = earlier(2);
    let identity = inspect(&path).unwrap().unwrap();
    let all_due = async |store: &SqliteStore| {
        let mut found = Vec::new();
        for shard in 1..=identity.shards {
            found.extend(store.obligation_due(ShardId(shard), Timestamp(i64::MAX), 999).await.unwrap());
        }
        found
    };
    let store = open_as(&path, identity.clone()).unwrap();
    let due = all_due(&store).await;
    assert!(!due.is_empty(), "the folder has closed runs");
    for (at, key) in &due {
        assert_eq!(*at, Timestamp(0), "marked as closed before the upgrade");
        assert!(store.visibility_get(key).await.unwrap().unwrap().close.is_some(), "{key} is closed");
    }
    drop(store);
    // The migrations run once; done again by a file that lost its number, they change nothing.
    set_schema(&path, 1);
    assert_eq!(all_due(&open_as(&path, identity.clone()).unwrap()).await, due);
}

/// What a file says its schema is.
fn set_schema(path: &Path, number: u32) {
    let file = rusqlite::Connection::open(path).unwrap();
    file.pragma_update(None, "user_version", number).unwrap();
}

#[tokio::test]
async fn what_an_earlier_schema_set_aside_stays_aside() {
    let (_folder, path) = earlier(3);
    let identity = inspect(&path).unwrap().unwrap();
    let store = open_as(&path, identity.clone()).unwrap();
    let first = store.quarantine_all().await.unwrap();
    let [row] = &first[..] else { panic!("one run was set aside: {first:?}") };
    assert_eq!((row.key.workflow.as_str(), row.source, row.behind), ("aside", 2, 0));
    assert!(row.reason.contains("does not decode") && !row.entry.is_empty(), "{row:?}");
    // Under the schema before, the second region's row took the first one's place (E1).
    let other = QuarantineRow { source: 3, ..row.clone() };
    store.quarantine_put(other.clone()).await.unwrap();
    let both = [row.clone(), other];
    assert_eq!(store.quarantine_all().await.unwrap(), both);
    drop(store);
    set_schema(&path, 2);
    let again = open_as(&path, identity).unwrap();
    assert_eq!(again.quarantine_all().await.unwrap(), both, "done again, the migration changes nothing");
}

#[tokio::test]
async fn a_crash_brings_no_deleted_run_back() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let mut owner = fill(&store, 3).await;
    let mut group = owner.group(1);
    group.deletes = vec![key("w", 1), key("v", 4)];
    store.shard_commit(group).await.unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let copy = crashed.path().join("east.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    let again = open(&copy).unwrap();
    for (key, there) in [(key("w", 1), false), (key("v", 2), true), (key("w", 3), true), (key("v", 4), false)]
    {
        assert_eq!(again.run_load(ShardId(1), &key).await.unwrap().is_some(), there, "{key}");
    }
    let log = again.log_read(ShardId(1), Sequence(0), usize::MAX).await.unwrap();
    assert_eq!((log.entries.len(), log.through), (8, Sequence(7)), "four runs and their batches");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    fill(&store, 100).await;
    drop(store);
    let whole = fs::read(&path).unwrap();
    // Cut off in the middle.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(refusal(&path).contains("damaged"), "cut off");
    // The pages of the schema and of the identity overwritten.
    let mut overwritten = whole.clone();
    overwritten[100..8192].fill(0xff);
    fs::write(&path, &overwritten).unwrap();
    assert!(refusal(&path).contains("damaged"), "overwritten");
    fs::write(&path, &whole).unwrap();
    is_filled(&open(&path).unwrap(), 100).await;
}

#[tokio::test]
async fn the_log_of_a_file_that_is_gone_is_not_mixed_into_a_new_one() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    fill(&store, 3).await;
    let log = fs::read(path.with_extension("db-wal")).unwrap();
    drop(store);
    fs::remove_file(&path).unwrap();
    fs::write(path.with_extension("db-wal"), log).unwrap();
    assert!(refusal(&path).contains("left over"));
}

#[tokio::test]
async fn a_crash_while_the_file_is_made_leaves_none() {
    let (folder, path) = folder();
    fs::write(folder.path().join("east.db.new"), b"half a database").unwrap();
    fill(&open(&path).unwrap(), 1).await;
    assert!(!folder.path().join("east.db.new").exists());
}

#[tokio::test]
async fn a_long_log_is_moved_into_the_file_while_commits_go_on() {
    let (_folder, path) = folder();
    let store = Arc::new(open(&path).unwrap());
    let mut owner = Owner::acquire(&*store, 1).await.unwrap();
    let log = path.with_extension("db-wal");
    let mut longest = 0;
    // Far more pages than the log may have.
    for round in 0..200_u128 {
        let mut group = owner.group(1);
        let mut row =
            antipode_persistence::conformance::fixture::run(&key("w", round + 1), group.through, None);
        row.head = bytes::Bytes::from(vec![7; 1 << 20]);
        group.runs.push(row);
        store.shard_commit(group).await.unwrap();
        longest = longest.max(fs::metadata(&log).unwrap().len());
    }
    assert!(longest > 16_000 * 4096, "it was long: {longest}");
    assert!(longest < 40_000 * 4096, "and started over: {longest}");
    let moved = fs::metadata(&path).unwrap().len();
    assert!(moved > 100 << 20, "most is in the file: {moved}");
}
