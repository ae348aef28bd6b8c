//! The history service: the shard machine (pure) and its host (tokio).

pub mod api;
pub mod client;
pub mod host;
pub mod metrics;
pub mod namespaces;
pub mod shard;
mod telling;
pub mod token;
