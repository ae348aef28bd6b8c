//! Conflict resolution, pure: where an incoming batch belongs ([`decide`]), which run owns a workflow id ([`arbitrate`]),
//! which external events are owed to whom ([`owed`]), and why ([`explain`]). Verdicts are data; the host carries them out.
#![forbid(unsafe_code)]

pub mod arbitrate;
pub mod decide;
pub mod explain;
pub mod owed;

pub use arbitrate::{Arbitration, RunFacts, arbitrate};
pub use decide::{Decision, Poison, Verdict, decide};
pub use explain::{Explanation, Report};
pub use owed::{Fate, Lost, Owed, Target, owed};

#[cfg(test)]
mod testing;
