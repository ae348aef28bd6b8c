//! Regions of pure shards in one thread: the very shard machines, link ends, namespace records, conflict code and stores of
//! production in virtual time (DESIGN section 9, level L1). [`engine`] is the world, [`generate`] lets a seed write what happens
//! in it, [`scenario`] reads it from a file, [`explore`] tries every order of a small program (on the plainer [`world`]).
#![forbid(unsafe_code)]

pub mod campaign;
pub mod cli;
pub mod engine;
pub mod explore;
pub mod generate;
pub mod html;
pub mod oracle;
pub mod random;
pub mod region;
pub mod scenario;
pub mod shrink;
pub mod trace;
pub mod worker;
pub mod world;
