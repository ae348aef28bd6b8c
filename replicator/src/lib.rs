//! Links between regions: what one region commits, the others apply, and an ack is a proof (DESIGN 7). The two ends of a
//! stream are pure machines, which the simulator drives exactly as the node does: an [`outbox`] reads the log of its shards in
//! commit order ([`cursor`], [`selection`]), an [`inbox`] owns its positions, hands entries to its own shards ([`entry`]),
//! mends what cannot be applied at once ([`mending`]) and proves ranges ([`proof`]). Around them are tasks that only carry:
//! `source`, `receiver`, `intake`, `lane`, `fetch`. Namespaces move by hand-over or by force (`failover`, `handover`, `force`,
//! `keeper`), unless the clocks disagree ([`clocks`]). Everything between regions passes the `gate`.
//!
//! Not built: seeding of a region that joins a namespace (C9), anti-entropy (G3), a ring of live entries in memory, an
//! index by origin, so that a relay (C7) need not read the log from its beginning.

pub mod clocks;
pub mod cover;
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
mod holding;
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
