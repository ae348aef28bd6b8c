//! Wire contracts, generated: the public Temporal API (from the descriptor set that `temporalio-protos` exports) and
//! Antipode's own region-to-region, operator and storage messages. Maps are ordered and byte fields are [`bytes::Bytes`],
//! so equal messages encode to equal bytes. The feature `grpc` adds service traits, servers and clients; the pure crates
//! build without it.

#[allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub use generated::{antipode, google, temporal};

/// The messages of the public API by their short module names: `api::common::v1::Payload`.
pub use generated::temporal::api;

/// Operator protocol.
pub use generated::antipode::admin::v1 as admin;
/// Storage and wire messages of runs and namespaces.
pub use generated::antipode::core::v1 as core;
/// Region-to-region protocol.
pub use generated::antipode::link::v1 as link;
