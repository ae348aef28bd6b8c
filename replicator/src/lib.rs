//! Links between regions: what one region commits, the others apply, and an ack is a proof (DESIGN 7). The sender reads the
//! log of its shards in commit order ([`source`], [`cursor`], [`selection`]); the receiver owns its positions, applies
//! through its own shards and proves ranges ([`receiver`], [`intake`], [`lane`], [`mend`], [`proof`]); namespaces move by
//! hand-over or by force ([`failover`], [`handover`], [`force`], [`keeper`]). Everything between regions passes the
//! [`gate`]. The pure parts are `cursor`, `entry`, `handshake`, `proof` and `selection`.
//!
//! Not built: relaying for an origin whose link is down (C7), seeding of a region that joins a namespace (C9), anti-entropy
//! (G3), a ring of live entries in memory.

pub mod cursor;
pub mod entry;
mod error;
mod failover;
mod fetch;
mod force;
mod forward;
mod gate;
mod handover;
pub mod handshake;
pub mod inbox;
mod intake;
mod keeper;
mod lane;
pub mod mending;
mod metrics;
mod node;
pub mod outbox;
mod pace;
mod peers;
pub mod proof;
mod receiver;
pub mod records;
pub mod selection;
mod server;
mod shared;
mod source;
mod status;
#[cfg(test)]
mod testing;

pub use error::Error;
pub use forward::{ForwardTarget, Forwarder};
pub use gate::{Cut, Direction, LinkGate};
pub use handshake::Mismatch;
pub use node::{Parts, Replicator};
pub use peers::RegionView;
pub use server::LinkService;
