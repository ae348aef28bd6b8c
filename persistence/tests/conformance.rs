//! The conformance suite for every backend.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use antipode_env::StoreExecutor;
use antipode_persistence::{
    MemoryStore, SqliteStore,
    conformance::fixture::identity,
    sqlite::{Location, Options},
};

fn open(location: Location, executor: StoreExecutor) -> SqliteStore {
    SqliteStore::open(Options { location, identity: identity(), executor }).unwrap()
}

fn open_in_folder(executor: StoreExecutor) -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open(Location::File(folder.path().join("store.db")), executor), folder)
}

mod memory {
    use super::*;
    antipode_persistence::conformance_suite!((MemoryStore::new(identity()), ()));
}

mod sqlite_file {
    use super::*;
    antipode_persistence::conformance_suite!(open_in_folder(StoreExecutor::Threaded));
}

mod sqlite_file_inline {
    use super::*;
    antipode_persistence::conformance_suite!(open_in_folder(StoreExecutor::Inline));
}

mod sqlite_in_memory {
    use super::*;
    antipode_persistence::conformance_suite!((open(Location::Memory, StoreExecutor::Threaded), ()));
}

mod sqlite_in_memory_inline {
    use super::*;
    antipode_persistence::conformance_suite!((open(Location::Memory, StoreExecutor::Inline), ()));
}
