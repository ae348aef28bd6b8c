//! The command line: what may be asked, and who answers. Every command that asks a running node takes its address from
//! `--address` or `TEMPORAL_ADDRESS`, so that the variable which steers the `temporal` command line steers ours too.

mod arguments;
mod connect;
mod duration;
mod failover;
mod link;
mod namespace;
mod output;
mod run;
mod tree;
mod words;

pub(crate) use output::table;

pub use arguments::{
    Arguments, Command, DevArguments, FailoverArguments, FormatArgument, LinkCommand, NamespaceCommand,
    Output, RunCommand, RunSelector, StartArguments, Target, parse,
};

/// Why a command ends with an exit code other than 0: one line for the person who gave it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(
        "no node answers at {address} ({why}); start one with `antipode dev`, or name another with --address"
    )]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// The transport's words.
        why: String,
    },
    /// What was given as an address is none.
    #[error("--address: {0:?} is not host:port")]
    Address(String),
    /// The node refused.
    #[error("{0}")]
    Refused(String),
    /// The node's answer lacks what it must have: another version, perhaps.
    #[error("the node's answer lacks {0}; is it of the same version as this command?")]
    Incomplete(&'static str),
    /// Standard output is gone.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs a command that asks a node.
///
/// # Errors
/// [`Error`], one line.
pub async fn ask(command: Command, out: &mut dyn std::io::Write) -> Result<(), Error> {
    match command {
        Command::Namespace(command) => namespace::run(command, out).await,
        Command::Failover(arguments) => failover::run(arguments, out).await,
        Command::Link(command) => link::run(command, out).await,
        Command::Run(command) => run::run(command, out).await,
        // These ask no node; `main` runs them.
        Command::Dev(_) | Command::Start(_) | Command::Sim(_) => Ok(()),
    }
}
