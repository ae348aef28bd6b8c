//! The async shell with shards that a test scripts, in paused time: waiting costs nothing and nothing depends on wall time.

// Helpers of tests are not tests to the lint, but fail as loudly.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fake;
mod polls;
mod queries;
