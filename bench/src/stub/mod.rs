//! A server that does nothing but answer: in memory, one process, no checks. It shows what the generator itself can do
//! (`run --launch stub`), and, told to break a promise, whether the generator notices (`tests/honesty.rs`).

mod service;
mod state;

pub use service::serve;

/// The promise that a stub breaks, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mischief {
    /// None.
    #[default]
    None,
    /// Acknowledges the nth signal and forgets it.
    LoseSignal(u64),
    /// Writes the nth signal twice.
    DoubleSignal(u64),
    /// Acknowledges the nth start and never hands out its task.
    LoseStart(u64),
    /// Hands out the nth workflow task twice.
    DoubleWorkflowTask(u64),
    /// Hands out the nth activity task twice.
    DoubleActivityTask(u64),
    /// Acknowledges the nth workflow task's completion and forgets its commands.
    LoseCommands(u64),
    /// Writes another result for the nth workflow that completes.
    WrongResult(u64),
    /// Acknowledges the nth completion of a workflow and forgets the workflow's history.
    ForgetHistory(u64),
}
