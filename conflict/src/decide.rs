//! Where an incoming batch belongs: one verdict, as data, with its reason. The parent is found by chain value; the version
//! lists are cross-checked and say what to fetch when the parent is missing (R410–R414, G1, G2). The host executes the
//! verdict and decides nothing.

use antipode_core::{
    batch::Envelope,
    chain::ChainValue,
    ids::{EventId, FailoverVersion},
    tree::{self, Branch, Tree},
    version_history::{Item, NoJointPoint, VersionHistory},
};

use crate::{
    ask::Ask,
    explain::{Entry, Explanation, Reason},
};

/// What to do with an incoming batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// First batch of a run that is not stored: create the run (R410).
    Create,
    /// Stored already: nothing to do (V19).
    Duplicate,
    /// Follows the tip of the current branch.
    Append {
        /// Index of the branch.
        branch: usize,
    },
    /// Follows the tip of a losing branch.
    Extend {
        /// Index of the branch.
        branch: usize,
        /// That branch is the greatest with it: rebuild (R414).
        becomes_current: bool,
    },
    /// Follows an inner batch: a new branch begins (R318).
    NewBranch {
        /// Last shared event; `0@0` when not even the first batch is shared (G2).
        ancestor: Item,
        /// The new branch is the greatest: rebuild (R414).
        becomes_current: bool,
    },
    /// The batch before is not stored: fetch what is missing, then offer the batch again (R411, R413).
    NeedEvents {
        /// The local branch to continue from. Empty: fetch from the first event, because the run is not stored or because
        /// lists cannot find the ancestor (G2).
        known: VersionHistory,
    },
    /// No sane owner writes this: quarantine the run (E1).
    Poison {
        /// What is wrong.
        why: Poison,
    },
}

/// Why a batch can never be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// It does not continue the batch that it names.
    #[error(transparent)]
    Misfit(#[from] tree::Error),
    /// Its version history shares no event with the stored branches (R302, R307).
    #[error("it belongs to another history: {0}")]
    OtherHistory(#[from] NoJointPoint),
    /// Its version history gives its own events another version (V03).
    #[error("its version history does not give event {event} version {version}")]
    OwnVersion {
        /// First event of the batch.
        event: EventId,
        /// Version of the batch.
        version: FailoverVersion,
    },
}

/// A verdict and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub explanation: Explanation,
}

impl Verdict {
    /// Its name, for counters and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Duplicate => "Duplicate",
            Self::Append { .. } => "Append",
            Self::Extend { .. } => "Extend",
            Self::NewBranch { .. } => "NewBranch",
            Self::NeedEvents { .. } => "NeedEvents",
            Self::Poison { .. } => "Poison",
        }
    }

    /// The run must be rebuilt from another branch (R414).
    #[must_use]
    pub fn switches(&self) -> bool {
        matches!(
            self,
            Self::Extend { becomes_current: true, .. } | Self::NewBranch { becomes_current: true, .. }
        )
    }

    /// The batch is to be stored.
    #[must_use]
    pub fn stores(&self) -> bool {
        matches!(self, Self::Create | Self::Append { .. } | Self::Extend { .. } | Self::NewBranch { .. })
    }
}

/// Decides what to do with a batch, given the branches of its run, if the run is stored.
#[must_use]
pub fn decide(tree: Option<&Tree>, incoming: &Envelope, chain: ChainValue) -> Decision {
    let Some(tree) = tree else { return decide_unstored(incoming, chain) };
    if tree.node(chain).is_some() {
        return decision(Some(tree), incoming, chain, Verdict::Duplicate, Reason::Stored);
    }
    match tree.check(incoming) {
        Ok(()) => decide_placed(tree, incoming, chain),
        Err(tree::Error::ParentMissing(_)) => decide_missing(tree, incoming, chain),
        Err(misfit) => poison(Some(tree), incoming, chain, misfit.into()),
    }
}

fn decide_unstored(incoming: &Envelope, chain: ChainValue) -> Decision {
    match Tree::root(incoming, chain) {
        Ok(_) => decision(None, incoming, chain, Verdict::Create, Reason::FirstBatch),
        Err(tree::Error::ParentMissing(_)) => {
            let verdict = Verdict::NeedEvents { known: VersionHistory::default() };
            decision(None, incoming, chain, verdict, Reason::RunMissing)
        }
        Err(misfit) => poison(None, incoming, chain, misfit.into()),
    }
}

/// The parent is stored and the batch continues it.
fn decide_placed(tree: &Tree, incoming: &Envelope, chain: ChainValue) -> Decision {
    let leaf = Branch { items: incoming.items.clone(), chain, place: incoming.place };
    let becomes_current = leaf.cmp_order(tree.current()).is_gt();
    if let Some(branch) = tree.branch_of_tip(incoming.previous) {
        let verdict = if branch == tree.current_index() {
            Verdict::Append { branch }
        } else {
            Verdict::Extend { branch, becomes_current }
        };
        return decision(Some(tree), incoming, chain, verdict, Reason::FollowsTip);
    }
    let start = Item::new(EventId(0), FailoverVersion::LOCAL);
    let ancestor = tree.node(incoming.previous).map_or(start, tree::Node::tip);
    // Common ancestors lie on batch ends (G1), so lists that share more than the parent chain does were written twice by one
    // owner (G2).
    let fork = best(tree, incoming).is_ok_and(|(shared, _)| shared.event > ancestor.event);
    let reason = if fork { Reason::OwnerForked } else { Reason::FollowsInner };
    let verdict = Verdict::NewBranch { ancestor, becomes_current };
    decision(Some(tree), incoming, chain, verdict, reason)
}

/// The parent is not stored: what does the source have to send?
fn decide_missing(tree: &Tree, incoming: &Envelope, chain: ChainValue) -> Decision {
    let (event, version) = (incoming.first_event, incoming.version);
    if !incoming.items.contains(event, version) {
        return poison(Some(tree), incoming, chain, Poison::OwnVersion { event, version });
    }
    let branch = match best(tree, incoming) {
        Ok((_, branch)) => branch,
        Err(error) => return poison(Some(tree), incoming, chain, error.into()),
    };
    let before = EventId(event.0 - 1);
    let listed = incoming
        .items
        .version_of(before)
        .is_some_and(|version| tree.branches().iter().any(|branch| branch.items.contains(before, version)));
    if listed {
        // The lists say that the event before is here, the chain says it is another one: G2. Only the chain can find the
        // ancestor, so the whole branch is needed.
        let verdict = Verdict::NeedEvents { known: VersionHistory::default() };
        return decision(Some(tree), incoming, chain, verdict, Reason::OwnerForked);
    }
    let verdict = Verdict::NeedEvents { known: tree.branches()[branch].items.clone() };
    decision(Some(tree), incoming, chain, verdict, Reason::ParentMissing)
}

/// The stored branch that shares most with the batch, by lists (R308).
fn best(tree: &Tree, incoming: &Envelope) -> Result<(Item, usize), NoJointPoint> {
    incoming.items.best_common_ancestor(tree.branches().iter().map(|branch| &branch.items))
}

fn poison(tree: Option<&Tree>, incoming: &Envelope, chain: ChainValue, why: Poison) -> Decision {
    decision(tree, incoming, chain, Verdict::Poison { why }, Reason::Misfit)
}

fn decision(
    tree: Option<&Tree>,
    incoming: &Envelope,
    chain: ChainValue,
    verdict: Verdict,
    reason: Reason,
) -> Decision {
    let tip = |branch: &Branch| (branch.items.clone(), branch.chain);
    let current = tree.map(|tree| tip(tree.current()));
    // An append compares with the branch that it follows; only a fork of the tree needs the search.
    let compared = match (&verdict, tree) {
        (Verdict::NewBranch { .. } | Verdict::NeedEvents { .. }, Some(tree)) => {
            best(tree, incoming).ok().map(|(_, branch)| tree.branches()[branch].items.clone())
        }
        (Verdict::Extend { branch, .. }, Some(tree)) => {
            tree.branches().get(*branch).map(|branch| branch.items.clone())
        }
        _ => current.as_ref().map(|(items, _)| items.clone()),
    };
    let ancestor = match &verdict {
        Verdict::NewBranch { ancestor, .. } => Some(*ancestor),
        _ => tree.and_then(|tree| tree.node(incoming.previous)).map(tree::Node::tip),
    };
    let explanation = Explanation {
        verdict: verdict.name(),
        reason,
        entry: Entry::Batch(incoming.items.clone()),
        chain,
        compared,
        ancestor,
        current,
        switches: verdict.switches(),
        stores: verdict.stores(),
        problem: match &verdict {
            Verdict::Poison { why } => Some(why.to_string()),
            _ => None,
        },
        asks: match &verdict {
            Verdict::NeedEvents { known } => Some(Ask::before(incoming, known)),
            _ => None,
        },
        notes: Vec::new(),
    };
    Decision { verdict, explanation }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
