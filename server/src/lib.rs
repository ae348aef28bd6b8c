//! The product: assembly of a node out of the crates below, the development set-up of several regions in one process,
//! the operator service, metrics, and the command line.

mod admin;
pub mod cli;
pub mod dev;
pub mod logging;
pub mod metrics;
mod names;
pub mod node;
pub mod process;
pub mod start;
mod wiring;
