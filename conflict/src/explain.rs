//! Every verdict explains itself: the two version lists, the ancestor and the arithmetic that found it, who won and why. A
//! verdict carries data that is cheap to copy; words and a JSON-able report are made when somebody asks (I16).

use std::cmp::Ordering;

use antipode_core::{
    chain::ChainValue,
    ids::EventId,
    tree::{Branch, Tree},
    version_history::{Item, VersionHistory},
};
use serde::Serialize;

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The run is not stored and this is its first batch.
    FirstBatch,
    /// The run is not stored and this is a later batch.
    RunMissing,
    /// The chain value is stored.
    Stored,
    /// The parent is the tip of a branch.
    FollowsTip,
    /// The parent is an inner batch of a branch.
    FollowsInner,
    /// The parent is not stored, and neither is the event before by the lists.
    ParentMissing,
    /// Equal (id, version), different content: one owner wrote twice (G2). Alarm.
    OwnerForked,
    /// The batch contradicts itself or its parent.
    Misfit,
}

impl Reason {
    fn words(self) -> &'static str {
        match self {
            Self::FirstBatch => "the run is not stored here and this is its first batch",
            Self::RunMissing => "the run is not stored here and this is not its first batch",
            Self::Stored => "a batch with this chain value is stored already",
            Self::FollowsTip => "the batch before is the tip of a stored branch",
            Self::FollowsInner => "the batch before has another successor on a stored branch",
            Self::ParentMissing => "the batch before is not stored here",
            Self::OwnerForked => {
                "equal event ids and versions carry different content: one owner wrote them twice, as after a restore"
            }
            Self::Misfit => "no owner writes such a batch",
        }
    }
}

/// How a verdict came about, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Name of the verdict.
    pub verdict: &'static str,
    /// What decided.
    pub reason: Reason,
    /// Version history and chain value of the incoming batch.
    pub incoming: (VersionHistory, ChainValue),
    /// First event of the incoming batch.
    pub first_event: EventId,
    /// The stored branch it was compared with.
    pub compared: Option<VersionHistory>,
    /// Last event before the batch that is stored, by chain value.
    pub ancestor: Option<Item>,
    /// Version history and chain value of the branch that was current.
    pub current: Option<(VersionHistory, ChainValue)>,
    /// The current branch changes.
    pub switches: bool,
    /// The batch is stored.
    pub stores: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// An explanation for operators, ready for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the verdict.
    pub verdict: String,
    /// What decided, in words.
    pub reason: String,
    /// Version history of the incoming batch.
    pub incoming: String,
    /// Its chain value, hexadecimal.
    pub incoming_chain: String,
    /// Version history of the stored branch it was compared with.
    pub local: Option<String>,
    /// Last shared event by chain value.
    pub ancestor: Option<String>,
    /// How the lists find their common ancestor (R307).
    pub arithmetic: Vec<String>,
    /// Version history of the branch that is current afterwards.
    pub winner: Option<String>,
    /// Why it is.
    pub why: Option<String>,
    /// The current branch changes: the run is rebuilt.
    pub rebuild: bool,
    /// One owner wrote twice: alarm.
    pub fork: bool,
    /// What is wrong with the batch.
    pub problem: Option<String>,
}

impl Explanation {
    /// One owner wrote equal (id, version) twice: alarm (G2).
    #[must_use]
    pub fn fork(&self) -> bool {
        self.reason == Reason::OwnerForked
    }

    /// The whole story, ready for JSON.
    #[must_use]
    pub fn report(&self) -> Report {
        let (incoming, chain) = &self.incoming;
        let winner = self.winner();
        Report {
            verdict: self.verdict.to_owned(),
            reason: self.reason.words().to_owned(),
            incoming: incoming.to_string(),
            incoming_chain: chain.to_string(),
            local: self.compared.as_ref().map(VersionHistory::to_string),
            ancestor: self.ancestor.map(|item| item.to_string()),
            arithmetic: self.compared.as_ref().map(|local| arithmetic(local, incoming)).unwrap_or_default(),
            winner: winner.as_ref().map(|(items, _)| items.to_string()),
            why: winner.map(|(_, why)| why),
            rebuild: self.switches,
            fork: self.fork(),
            problem: self.problem.clone(),
        }
    }

    fn winner(&self) -> Option<(VersionHistory, String)> {
        let (incoming, chain) = &self.incoming;
        let Some((current, current_chain)) = &self.current else {
            return self.stores.then(|| (incoming.clone(), "it is the only branch".to_owned()));
        };
        if !self.stores {
            return Some((current.clone(), "nothing was stored".to_owned()));
        }
        if self.verdict == "Append" {
            return Some((incoming.clone(), "it extends the current branch".to_owned()));
        }
        let (a, b) = ((incoming, *chain), (current, *current_chain));
        if self.switches {
            Some((incoming.clone(), comparison(a, b)))
        } else {
            Some((current.clone(), comparison(b, a)))
        }
    }

    /// The story in one paragraph.
    #[must_use]
    pub fn words(&self) -> String {
        let report = self.report();
        let mut words = format!("{}: {}", report.verdict, report.reason);
        if let Some(problem) = &report.problem {
            words.push_str(": ");
            words.push_str(problem);
        }
        words.push_str(". Incoming ");
        words.push_str(&report.incoming);
        if let Some(local) = &report.local {
            words.push_str(", stored ");
            words.push_str(local);
        }
        if let Some(ancestor) = &report.ancestor {
            words.push_str(", follows ");
            words.push_str(ancestor);
        }
        words.push('.');
        if let (Some(winner), Some(why)) = (&report.winner, &report.why) {
            words.push_str(&format!(" Current: {winner}, because {why}."));
        }
        words
    }
}

/// The steps by which two lists find their common ancestor (R307).
#[must_use]
pub fn arithmetic(local: &VersionHistory, incoming: &VersionHistory) -> Vec<String> {
    let (mut left, mut right) = (local.items().iter().rev(), incoming.items().iter().rev());
    let (mut a, mut b) = (left.next(), right.next());
    let mut steps = Vec::new();
    while let (Some(x), Some(y)) = (a, b) {
        let (v, w) = (x.version, y.version);
        match v.cmp(&w) {
            Ordering::Equal => {
                let shared = Item::new(x.event.min(y.event), v);
                let (e, f, event) = (x.event.0, y.event.0, shared.event.0);
                steps.push(format!("both have {v}: min({e}, {f}) = {event}, ancestor {shared}"));
                return steps;
            }
            Ordering::Greater => {
                steps.push(format!("stored {v} > incoming {w}: step back in the stored list"));
                a = left.next();
            }
            Ordering::Less => {
                steps.push(format!("stored {v} < incoming {w}: step back in the incoming list"));
                b = right.next();
            }
        }
    }
    steps.push("a list is exhausted: no joint point".to_owned());
    steps
}

/// Why the first branch is greater than the second, or what would make it so (G2's order).
fn comparison(a: (&VersionHistory, ChainValue), b: (&VersionHistory, ChainValue)) -> String {
    let (Some(x), Some(y)) = (a.0.last(), b.0.last()) else {
        return "the other has no events".to_owned();
    };
    if x.version != y.version {
        return format!("its last version {} is higher than {}", x.version, y.version);
    }
    if x.event != y.event {
        let (version, e, f) = (x.version, x.event, y.event);
        return format!("the last versions are both {version} and its last event {e} is later than {f}");
    }
    format!(
        "version {} and event {} are equal and its chain value {} is greater than {}",
        x.version, x.event, a.1, b.1
    )
}

/// One branch of a run, ready for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BranchReport {
    /// Version history.
    pub items: String,
    /// Chain value at the tip, hexadecimal.
    pub chain: String,
    /// It is the current one.
    pub current: bool,
    /// Last event that it shares with the current branch; none for the current one itself.
    pub fork: Option<String>,
    /// Batches of its own: all of them for the current branch.
    pub batches: usize,
    /// Why it lost, or won.
    pub why: String,
}

/// All branches of a run, the current one first, then by falling order.
#[must_use]
pub fn branches(tree: &Tree) -> Vec<BranchReport> {
    let current = tree.current();
    let reports = tree.branches().iter().rev().map(|branch| {
        let is_current = branch.chain == current.chain;
        let shared = tree.fork_point(current.chain, branch.chain);
        let batches = if is_current {
            tree.path(branch.chain).len()
        } else {
            tree.path_after(shared, branch.chain).len()
        };
        BranchReport {
            items: branch.items.to_string(),
            chain: branch.chain.to_string(),
            current: is_current,
            fork: (!is_current)
                .then(|| tree.node(shared).map_or("nothing".to_owned(), |node| node.tip().to_string())),
            batches,
            why: if is_current { why_current(tree) } else { why_lost(current, branch) },
        }
    });
    reports.collect()
}

/// Why a branch lost to the current one, in words.
#[must_use]
pub fn why_lost(current: &Branch, branch: &Branch) -> String {
    let why = comparison((&current.items, current.chain), (&branch.items, branch.chain));
    format!("lost to {}: {why}", current.items)
}

/// Why the current branch of a run is current, in words.
#[must_use]
pub fn why_current(tree: &Tree) -> String {
    let current = tree.current();
    match tree.branches().iter().rev().nth(1) {
        None => "it is the only branch".to_owned(),
        Some(second) => comparison((&current.items, current.chain), (&second.items, second.chain)),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
