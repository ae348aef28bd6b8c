//! The public API of a region: Temporal's gRPC services, unchanged on the wire. Requests are checked, completed with the API's
//! defaults and routed; what they do to a run is decided in its shard. One file a family of RPCs:
//!
//! - `start`, `execution`, `query`, `history`, `visibility`: what clients do with executions.
//! - `workflow_task`, `activity_task`, `activity_by_id`, `task_queue`: what workers do.
//! - `system`, `namespaces`, `operator`: what they and operators ask about the region.
//!
//! Beside them: `service` (the table of RPCs), `route` (active, passive, handed over), `call` (deadlines), `errors` (codes and
//! details), `validate` (shapes and words), `observe` (the layer that counts), [`ports`] (what the rest of a node provides).
#![forbid(unsafe_code)]

pub mod call;
pub mod context;
pub mod limits;
pub mod metrics;
pub mod namespace;
pub mod ports;
pub mod router;
pub mod service;

mod activity_by_id;
mod activity_task;
mod clients;
mod errors;
mod execution;
#[cfg(test)]
mod fakes;
mod history;
mod namespaces;
mod observe;
mod operator;
mod query;
mod reply;
mod route;
mod start;
mod system;
mod task_queue;
mod validate;
mod visibility;
mod wiring;
mod workflow_task;

pub use clients::SERVER_VERSION;
pub use context::{Context, Region};
pub use metrics::Metrics;
pub use router::router;
pub use service::Frontend;
