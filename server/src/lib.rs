//! The product: assembly of a node out of the crates below, the development set-up of several regions in one process,
//! the operator service, metrics, and the command line.

pub mod cli;
pub mod dev;
pub mod logging;
pub mod metrics;
