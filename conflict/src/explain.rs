//! Every verdict explains itself: the two version lists, the ancestor and the arithmetic that found it, who won and why. A
//! verdict carries data that is cheap to copy; words and a JSON-able report are made when somebody asks (I16). A verdict is on a
//! batch or on the state of a run.

use std::cmp::Ordering;

use antipode_core::{
    batch::Envelope,
    chain::ChainValue,
    ids::RunId,
    run::Run,
    tree::{Branch, Tree},
    version_history::{Item, VersionHistory},
};
use antipode_proto::core as wire;
use serde::Serialize;

use crate::ask::{Ask, AskReport};

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
    /// The batch closes its run, and the run that continues it is not stored (B8).
    SuccessorMissing,
    /// The bytes of its events cannot be read.
    Undecodable,
    /// Its events cannot be folded into the run.
    Unfoldable,
    /// What is stored of the run cannot be read.
    Damaged,
    /// The state of a run that is not stored.
    StateOfNoRun,
    /// A register's anchor is on no stored branch (A1, W13).
    AnchorMissing,
    /// A run that came back after its deletion has a branch at the sender that is not stored here.
    BranchMissing,
    /// Nothing in the state is new.
    StateKnown,
    /// Something in the state is new.
    StateNew,
    /// The run was deleted, with this entry (C6).
    DeletedWith,
    /// The run was deleted, and its last version is at least as high: the entry comes too late (I03).
    DeletedAfter,
    /// The run was deleted under a lower version: it comes back (C6).
    DeletedBefore,
    /// A peer deleted the run, and this copy is from before that (C6, E2).
    DeletedThere,
    /// A peer deleted the run, and this copy is closed: its own retention ends it (C6).
    DeletedThereFirst,
    /// A peer deleted the run, and this copy goes on under a higher version (C6).
    DeletedThereBefore,
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
            Self::SuccessorMissing => {
                "the batch closes its run, and the run that continues it is not stored here"
            }
            Self::Undecodable => "the bytes of its events cannot be read",
            Self::Unfoldable => "its events do not continue the run's state",
            Self::Damaged => "what is stored of the run cannot be read",
            Self::StateOfNoRun => "the run is not stored here",
            Self::BranchMissing => {
                "the run came back after its deletion, and a branch of it at the sender is not stored here"
            }
            Self::AnchorMissing => "no stored branch has what a register or a verdict of it belongs to",
            Self::StateKnown => "every register, waiting event and verdict in it is known here",
            Self::StateNew => "it has registers, waiting events or verdicts that are not stored here",
            Self::DeletedWith => "the run was deleted at the end of its retention, and this with it",
            Self::DeletedAfter => {
                "the run was deleted at the end of its retention, and this does not go on under a higher version"
            }
            Self::DeletedBefore => {
                "the run was deleted at the end of its retention, and goes on under a higher version: it comes back"
            }
            Self::DeletedThere => {
                "its sender deleted the run at the end of its retention; the copy here is from before, as after a restore"
            }
            Self::DeletedThereFirst => {
                "its sender deleted the run at the end of its retention, and the copy here is closed and goes by its own"
            }
            Self::DeletedThereBefore => {
                "its sender deleted the run at the end of its retention, and the copy here goes on under a higher version"
            }
        }
    }
}

/// What was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A batch, by its version history.
    Batch(VersionHistory),
    /// The state of a run.
    State {
        /// How many registers it has.
        registers: usize,
        /// How many events that wait.
        waiting: usize,
        /// How many verdicts on events that are not applied.
        verdicts: usize,
    },
}

/// How a verdict came about, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Name of the verdict.
    pub verdict: &'static str,
    /// What decided.
    pub reason: Reason,
    /// What came.
    pub entry: Entry,
    /// Chain value of the batch; for a state: at the tip of the run's current branch where it comes from.
    pub chain: ChainValue,
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
    /// What is asked for, so that it can be judged.
    pub asks: Option<Ask>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// An explanation for operators, ready for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the verdict.
    pub verdict: String,
    /// What decided, in words.
    pub reason: String,
    /// Version history of the incoming batch; none: a state came.
    pub incoming: Option<String>,
    /// What the incoming state carries; none: a batch came.
    pub state: Option<String>,
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
    /// What is wrong with the entry.
    pub problem: Option<String>,
    /// What is asked for, so that it can be judged.
    pub asks: Option<AskReport>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl Explanation {
    fn new(verdict: &'static str, reason: Reason, entry: Entry, chain: ChainValue) -> Self {
        Self {
            verdict,
            reason,
            entry,
            chain,
            compared: None,
            ancestor: None,
            current: None,
            switches: false,
            stores: false,
            problem: None,
            asks: None,
            notes: Vec::new(),
        }
    }

    /// Of a batch of a run that cannot be compared.
    #[must_use]
    pub fn of_batch(batch: &Envelope, chain: ChainValue, verdict: &'static str, reason: Reason) -> Self {
        Self::new(verdict, reason, Entry::Batch(batch.items.clone()), chain)
    }

    /// Of the state of a run, which may be stored.
    #[must_use]
    pub fn of_state(
        state: &wire::RunState,
        run: Option<&Run>,
        verdict: &'static str,
        reason: Reason,
    ) -> Self {
        let (registers, waiting) = (state.registers.len(), state.pending.len());
        let entry = Entry::State { registers, waiting, verdicts: state.verdicts.len() };
        let chain = ChainValue::from_bytes(&state.tip_chain).unwrap_or(ChainValue::NONE);
        let current = run.map(|run| (run.items(), run.tip()));
        Self { current, ..Self::new(verdict, reason, entry, chain) }
    }

    /// B8: the batch fits, and waits for the first batch of the run that continues its own.
    #[must_use]
    pub fn waits_for(self, successor: RunId) -> Self {
        self.stored_not("NeedEvents", Reason::SuccessorMissing).asking(Ask::run(successor, None))
    }

    /// The batch fits, and cannot be applied all the same.
    #[must_use]
    pub fn poisoned(self, reason: Reason, problem: String) -> Self {
        Self { problem: Some(problem), ..self.stored_not("Poison", reason) }
    }

    /// With what is asked for.
    #[must_use]
    pub fn asking(self, asks: Ask) -> Self {
        Self { asks: Some(asks), ..self }
    }

    fn stored_not(self, verdict: &'static str, reason: Reason) -> Self {
        Self { verdict, reason, switches: false, stores: false, ..self }
    }

    /// One owner wrote equal (id, version) twice: alarm (G2).
    #[must_use]
    pub fn fork(&self) -> bool {
        self.reason == Reason::OwnerForked
    }

    /// The whole story, ready for JSON.
    #[must_use]
    pub fn report(&self) -> Report {
        let winner = self.winner();
        let (incoming, state) = match &self.entry {
            Entry::Batch(items) => (Some(items), None),
            Entry::State { registers, waiting, verdicts } => {
                let (registers, waiting) =
                    (counted(*registers, "register"), counted(*waiting, "waiting event"));
                (None, Some(format!("{registers}, {waiting} and {}", counted(*verdicts, "verdict"))))
            }
        };
        let compared = self.compared.as_ref().zip(incoming);
        Report {
            verdict: self.verdict.to_owned(),
            reason: self.reason.words().to_owned(),
            incoming: incoming.map(VersionHistory::to_string),
            state,
            incoming_chain: self.chain.to_string(),
            local: self.compared.as_ref().map(VersionHistory::to_string),
            ancestor: self.ancestor.map(|item| item.to_string()),
            arithmetic: compared.map(|(local, incoming)| arithmetic(local, incoming)).unwrap_or_default(),
            winner: winner.as_ref().map(|(items, _)| items.to_string()),
            why: winner.map(|(_, why)| why),
            rebuild: self.switches,
            fork: self.fork(),
            problem: self.problem.clone(),
            asks: self.asks.as_ref().map(Ask::report),
            notes: self.notes.clone(),
        }
    }

    /// The branch that is current afterwards, and why.
    fn winner(&self) -> Option<(VersionHistory, String)> {
        let incoming = match (&self.entry, &self.current) {
            (Entry::Batch(incoming), _) if self.stores => incoming,
            (_, None) => return None,
            (_, Some((current, _))) => return Some((current.clone(), self.why_unmoved().to_owned())),
        };
        let Some((current, current_chain)) = &self.current else {
            return Some((incoming.clone(), "it is the only branch".to_owned()));
        };
        if self.verdict == "Append" {
            return Some((incoming.clone(), "it extends the current branch".to_owned()));
        }
        let (a, b) = ((incoming, self.chain), (current, *current_chain));
        if self.switches {
            Some((incoming.clone(), comparison(a, b)))
        } else {
            Some((current.clone(), comparison(b, a)))
        }
    }

    /// Why an entry that adds no events leaves the branches as they are.
    fn why_unmoved(&self) -> &'static str {
        match self.verdict {
            "NeedEvents" => "the entry waits until that is stored",
            "Poison" => "the entry is set aside",
            "Merge" => "registers, waiting events and verdicts move no branch",
            _ => "the entry changes nothing",
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
        words.push_str(match self.entry {
            Entry::Batch(_) => ". Incoming ",
            Entry::State { .. } => ". Incoming state with ",
        });
        words.push_str(report.incoming.as_ref().or(report.state.as_ref()).map_or("", String::as_str));
        if let Some(local) = &report.local {
            words.push_str(", stored ");
            words.push_str(local);
        }
        if let Some(ancestor) = &report.ancestor {
            words.push_str(", follows ");
            words.push_str(ancestor);
        }
        words.push('.');
        for note in &report.notes {
            words.push_str(&format!(" Note: {note}."));
        }
        if let Some(asks) = &report.asks {
            words.push_str(&format!(" Missing and asked for: {}.", asks.words));
        }
        if let (Some(winner), Some(why)) = (&report.winner, &report.why) {
            words.push_str(&format!(" Current: {winner}, because {why}."));
        }
        words
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
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
