//! For tests of the pure parts: regions whose one shard knows only chains and registers, and links between them that carry
//! the messages of an inbox and an outbox one by one.

mod region;
mod world;

pub(crate) use region::{Region, key, namespace, record, regions, version_of};
pub(crate) use world::World;
