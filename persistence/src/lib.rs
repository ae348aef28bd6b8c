//! Storage: the traits every backend implements, in terms of our nouns, and the backends. No workflow semantics here.

mod check;
pub mod conformance;
pub mod memory;
pub mod query;
pub mod rows;
pub mod sqlite;
pub mod store;
pub mod visibility;

pub use memory::MemoryStore;
pub use sqlite::SqliteStore;
pub use store::{CommitError, Store};

/// A failed read or write outside of a shard's commit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or broke.
    #[error("storage: {0}")]
    Database(String),
    /// Stored bytes are not what they should be.
    #[error("storage holds damaged data: {0}")]
    Damaged(String),
    /// The file belongs to somebody else or to another version.
    #[error("{0}")]
    Foreign(String),
    /// Bad argument from outside (a page token, say).
    #[error("{0}")]
    Invalid(String),
}
