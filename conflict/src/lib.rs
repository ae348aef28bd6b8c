//! Conflict resolution, pure: where an incoming batch belongs ([`decide`]), which run owns a workflow id ([`arbitrate`]), and
//! why: of a verdict ([`explain`]) and what it asks for ([`ask`]), of an owner ([`owner`]) and of its change ([`standing`]), which
//! are told in one form ([`judgement`]), of a discarded task ([`stale`]), and what a run lost with its losing branches
//! ([`rollback`]). Verdicts are data; the host carries them out. What a losing branch is owed is a view of the run itself and
//! stands in `antipode_core::owed`, because decisions write it.
#![forbid(unsafe_code)]

pub mod arbitrate;
pub mod ask;
pub mod decide;
pub mod explain;
pub mod judgement;
pub mod owner;
pub mod rollback;
pub mod stale;
pub mod standing;

pub use arbitrate::{Arbitration, RunFacts, arbitrate};
pub use decide::{Decision, Poison, Verdict, decide};
pub use explain::{Explanation, Report};
pub use judgement::Judgement;

#[cfg(test)]
mod testing;
