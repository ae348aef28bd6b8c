//! The async shell with shards that a test scripts, in paused time: waiting costs nothing and nothing depends on wall time.

mod fake;
mod polls;
mod queries;
