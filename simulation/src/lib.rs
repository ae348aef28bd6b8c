//! Regions of pure shards in one thread: the very shard machines, conflict code and stores of production, driven by a
//! seeded scheduler in virtual time (DESIGN section 9, level L1). Here stands the world and its clients; scenarios and random
//! schedules are tests of this crate.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod cli;
pub mod engine;
pub mod explore;
pub mod generate;
pub mod html;
pub mod oracle;
pub mod random;
pub mod region;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod trace;
pub mod worker;
pub mod world;
