//! The one error of this crate. What a server answers during a measurement is not an error of the benchmark: it is
//! counted in [`crate::errors::Errors`] and printed beside the figures. Here stands what makes a figure impossible.

use std::{io, path::PathBuf};

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pure code could not be measured.
    #[error("{0}")]
    Pure(String),
    /// A case's name that means nothing.
    #[error("case `{name}`: {why}")]
    Case {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A program's name that means nothing.
    #[error("program `{name}`: {why}")]
    Program {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No connection.
    #[error("cannot reach {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// A call that the measurement cannot do without.
    #[error("{method} on {address}: {status}")]
    Call {
        /// The RPC.
        method: &'static str,
        /// Who was asked.
        address: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// A server that could not be started.
    #[error("cannot start {program}: {source}")]
    Launch {
        /// The command.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A server that was started and never became usable.
    #[error("{program} did not answer: {last}; its last words:\n{words}")]
    NotReady {
        /// The command.
        program: String,
        /// The last refusal.
        last: String,
        /// The end of its log.
        words: String,
    },
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The bare commit through SQLite.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Figures of a process.
    #[error("no figures of process {pid}: {why}")]
    Process {
        /// Which.
        pid: u32,
        /// What is missing.
        why: String,
    },
    /// A histogram that cannot be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// A run whose figures must not be used.
    #[error("{case} against {server}: {faults}")]
    Unsound {
        /// The case.
        case: String,
        /// The server.
        server: String,
        /// What was lost, doubled or wrong.
        faults: String,
    },
    /// A replication that never caught up.
    #[error("{what} in {region}: {why}")]
    Behind {
        /// What was awaited.
        what: String,
        /// Where.
        region: String,
        /// What was seen instead.
        why: String,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failed file operation at a path.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
