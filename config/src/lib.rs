//! Typed configuration of a node: what a region is called, where it listens, where it stores, whom it is linked to. One
//! shape for every way to start a node (a file, the `dev` command, a test), validated once, before anything is opened.

mod dev;
mod file;
mod node;
mod validate;

use std::path::PathBuf;

pub use dev::{Dev, METRICS_PORT_OFFSET, PORT_STEP, REGION_NAMES};
pub use file::{from_yaml, load};
pub use node::{Listen, Log, LogFormat, Node, Peer, Region, Store};
pub use validate::Problem;

/// Why a configuration is not used. Nothing was opened or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The text is not what the shape allows; the words name line and column.
    #[error("{source_name}: {why}")]
    Malformed {
        /// File, or what stands for it.
        source_name: String,
        /// Parser's words, one line.
        why: String,
    },
    /// `${NAME}` names a variable that is not set and has no default.
    #[error(
        "{source_name}: line {line}: the environment variable {variable} is not set (write ${{{variable}:-default}} for a default)"
    )]
    Unset {
        /// File, or what stands for it.
        source_name: String,
        /// Line, from 1.
        line: usize,
        /// Variable.
        variable: String,
    },
    /// Values that don't fit; all of them, each with its path.
    #[error("{}", validate::joined(.0))]
    Invalid(Vec<Problem>),
}
