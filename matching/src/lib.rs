//! Task queues in memory: what shards offer meets who polls. Keeps nothing durable and can die at any time: a task that is
//! lost here is offered again by its shard, a task that came twice is refused by its shard when it is started (C2, A5).
//!
//! - [`queue`](self): the pure machine of one queue, with its laws; `cell` puts it behind a lock, `queues` finds it by name.
//! - `poll`: the long polls of workers. `query`: queries without a workflow task. `matching`: everything else.
//! - [`History`]: the calls that matching makes; `antipode_history::client::Client` is the real one.

mod cell;
mod history;
mod matching;
mod metrics;
mod poll;
mod query;
mod queue;
#[cfg(test)]
mod queue_tests;
mod queues;

pub use history::{History, WorkflowTask};
pub use matching::{Matching, QueueDescription, Settings};
pub use query::{QueryAnswer, QueryFailure, QueryToken};
