//! What a machine can check about the house, as functions: `cargo xtask` prints their findings, `tests/` fails on them.
//! One text per rule, so that the command and the test never disagree.

pub mod documents;
pub mod finding;
pub mod source;
pub mod tidy;
pub mod workspace;

pub use finding::Finding;
