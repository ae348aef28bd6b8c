//! A load generator that speaks only the public gRPC API, playing client and worker, and the benchmarks made with it.
//! It measures any server of that API and checks that everything which was acknowledged is there exactly once: figures
//! of a run that lost or doubled something are not printed.

pub mod api;
pub mod case;
pub mod clock;
pub mod cold;
pub mod compare;
pub mod disk;
pub mod error;
pub mod errors;
pub mod faults;
pub mod lanes;
pub mod launch;
pub mod ledger;
pub mod load;
pub mod outcome;
pub mod pair;
pub mod probe;
pub mod process;
pub mod pure;
pub mod replication;
pub mod requests;
pub mod stub;
pub mod table;
pub mod verify;
pub mod worker;

pub use error::{Error, Result};
