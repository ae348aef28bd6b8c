//! What Antipode means by versions, regions, namespaces, batches and runs: pure functions over plain data. No I/O, async,
//! clock, randomness or hash order; time and identifiers come in as arguments, and the same inputs give the same bytes.
#![forbid(unsafe_code)]

pub mod batch;
pub mod chain;
pub mod clocks;
pub mod decide;
pub mod digest;
pub mod fold;
pub mod identity;
pub mod ids;
pub mod inheritance;
pub mod law;
pub mod namespace;
pub mod owed;
pub mod refusal;
pub mod region;
pub mod register;
pub mod retry;
pub mod run;
pub mod state;
pub mod sum;
pub mod task;
pub mod tree;
pub mod verdict;
pub mod version;
pub mod version_history;
pub mod view;
