//! Which external events are owed to whom (R500–R522, B1–B4, I03, I33): identities on losing branches, zombies and superseded
//! runs, minus those on the current chain, minus recorded verdicts. Derived work: the active region computes it whenever a
//! branch arrives, a branch loses or it becomes active; there is no "ours" exception and there are no marks (A3, B1).

use std::collections::BTreeSet;

use antipode_core::{
    batch::{Envelope, EventIdentity},
    chain::ChainValue,
    identity::{ExternalKind, Identity},
    ids::{FailoverVersion, RunId},
    tree::Tree,
};
use serde::Serialize;

/// An external event that stands where it does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The event and its identity.
    pub identity: EventIdentity,
    /// Run that holds it.
    pub run: RunId,
    /// First run of that run's chain (B2).
    pub first_run: RunId,
    /// Version under which this copy was written.
    pub version: FailoverVersion,
    /// The batch that holds it: where its bytes are found.
    pub batch: ChainValue,
}

/// The run that would receive it: the current run of the workflow id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Run.
    pub run: RunId,
    /// First run of its chain.
    pub first_run: RunId,
    /// It is open.
    pub open: bool,
}

/// What is to be done with an owed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fate {
    /// Write it again to the target, with the same identity.
    Reapply,
    /// Record that it will not be applied, and why (I03).
    Unclaimed(&'static str),
}

/// Nobody is there to receive it.
pub const NO_TARGET: &str = "no current run";
/// The run it would go to is closed.
pub const TARGET_CLOSED: &str = "target finished";
/// The request named a run whose chain has ended (B4).
pub const NAMED_RUN_ENDED: &str = "named run finished";

/// An owed event and what to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The event.
    pub lost: Lost,
    /// What to do.
    pub fate: Fate,
}

/// What is owed to `target`, in the order of `lost` (I33). `applied` are the identities on the current branch of the target
/// and its chain, `verdicts` those that are recorded as unclaimed. After the fates are carried out the same question has an
/// empty answer (V11).
#[must_use]
pub fn owed(
    lost: &[Lost],
    target: Option<Target>,
    applied: &BTreeSet<Identity>,
    verdicts: &BTreeSet<Identity>,
) -> Vec<Owed> {
    let mut open = target.is_some_and(|target| target.open);
    let mut taken = BTreeSet::new();
    let mut owed = Vec::new();
    for lost in lost {
        let identity = &lost.identity.identity;
        let settled = applied.contains(identity) || verdicts.contains(identity);
        // One identity on two losing branches is one event; what is not re-applied is a branch's own progress (R007).
        if !identity.kind.is_reapplied() || settled || !taken.insert(identity) {
            continue;
        }
        let fate = fate(lost, target, open);
        if fate == Fate::Reapply && identity.kind == ExternalKind::Terminate {
            // R503: what follows a termination would hit a closed run.
            open = false;
        }
        owed.push(Owed { lost: lost.clone(), fate });
    }
    owed
}

fn fate(lost: &Lost, target: Option<Target>, open: bool) -> Fate {
    match target {
        None => Fate::Unclaimed(NO_TARGET),
        // B4: a request that named a run goes to that run or its successors, never to a stranger.
        Some(target) if lost.identity.named_run && target.first_run != lost.first_run => {
            Fate::Unclaimed(NAMED_RUN_ENDED)
        }
        Some(_) if !open => Fate::Unclaimed(TARGET_CLOSED),
        Some(_) => Fate::Reapply,
    }
}

/// The tree names a batch whose header the caller does not have: the run must be loaded whole first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch with chain value {0} is not at hand")]
pub struct Missing(pub ChainValue);

/// External events of a run's losing branches, branch by branch and in order within each (I33).
///
/// # Errors
/// [`Missing`].
pub fn lost_on_branches<'a>(
    tree: &Tree,
    envelope: impl Fn(ChainValue) -> Option<&'a Envelope>,
) -> Result<Vec<Lost>, Missing> {
    lost_in(tree.losing(), envelope)
}

/// External events of all branches of a zombie or superseded run, the current branch first.
///
/// # Errors
/// [`Missing`].
pub fn lost_on_run<'a>(
    tree: &Tree,
    envelope: impl Fn(ChainValue) -> Option<&'a Envelope>,
) -> Result<Vec<Lost>, Missing> {
    let mut batches = tree.path(tree.current().chain);
    batches.extend(tree.losing());
    lost_in(batches, envelope)
}

fn lost_in<'a>(
    batches: Vec<ChainValue>,
    envelope: impl Fn(ChainValue) -> Option<&'a Envelope>,
) -> Result<Vec<Lost>, Missing> {
    let mut lost = Vec::new();
    for batch in batches {
        let envelope = envelope(batch).ok_or(Missing(batch))?;
        lost.extend(envelope.identities.iter().map(|identity| Lost {
            identity: identity.clone(),
            run: envelope.run.run,
            first_run: envelope.first_run,
            version: envelope.version,
            batch,
        }));
    }
    Ok(lost)
}

/// Identities on the current branch of a run and, through its first batch, on the chain before it (A3, B2).
///
/// # Errors
/// [`Missing`].
pub fn applied_on_current<'a>(
    tree: &Tree,
    envelope: impl Fn(ChainValue) -> Option<&'a Envelope>,
) -> Result<BTreeSet<Identity>, Missing> {
    let mut applied = BTreeSet::new();
    for (chain, _) in tree.walk(tree.current().chain) {
        let envelope = envelope(chain).ok_or(Missing(chain))?;
        applied.extend(envelope.inherited.iter().cloned());
        applied.extend(envelope.identities.iter().map(|event| event.identity.clone()));
    }
    Ok(applied)
}

#[cfg(test)]
#[path = "owed_tests.rs"]
mod tests;
