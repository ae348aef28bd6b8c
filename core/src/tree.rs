//! The branch tree of one run, built from the headers of its batches. A batch names its parent by chain value, so that equal
//! ids with different content are two branches and never one (G1, G2). The same set of batches gives the same tree in any
//! order of arrival, and the greatest leaf is current everywhere (R005, V04).

use std::{cmp::Ordering, collections::BTreeMap};

use antipode_proto::core as wire;

use crate::{
    batch::Envelope,
    chain::ChainValue,
    ids::{EventId, FailoverVersion, Place},
    version_history::{Item, VersionHistory},
};

/// One stored batch, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Chain value of the batch before; [`ChainValue::NONE`] for a first batch.
    pub previous: ChainValue,
    /// First event.
    pub first_event: EventId,
    /// Last event.
    pub last_event: EventId,
    /// Version of all its events (V03).
    pub version: FailoverVersion,
    /// Place of the run after it (B7).
    pub place: Place,
    /// Version history of the branch through it.
    pub items: VersionHistory,
}

impl Node {
    /// Last event and version.
    #[must_use]
    pub fn tip(&self) -> Item {
        Item::new(self.last_event, self.version)
    }
}

/// A leaf of the tree and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Version history.
    pub items: VersionHistory,
    /// Chain value at the tip: names the branch.
    pub chain: ChainValue,
    /// Place of the tip's batch.
    pub place: Place,
}

impl Branch {
    /// Last event and version.
    #[must_use]
    pub fn tip(&self) -> Item {
        // A branch has at least one batch, and a batch at least one event; both are checked where they come in.
        self.items.last().unwrap_or(Item::new(EventId(0), FailoverVersion::LOCAL))
    }

    /// Which branch is newer: last version, last id, chain value. Total, so that regions converge (G2, R311).
    #[must_use]
    pub fn cmp_order(&self, other: &Self) -> Ordering {
        self.items.compare(&other.items).then(self.chain.cmp(&other.chain))
    }

    fn to_wire(&self) -> wire::Branch {
        wire::Branch {
            items: self.items.to_wire(),
            chain: self.chain.to_bytes(),
            place: Some(wire::Place { epoch: self.place.epoch, sequence: self.place.sequence }),
        }
    }
}

/// Why a batch does not fit into a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its predecessor is not stored.
    #[error("the batch before, with chain value {0}, is not stored")]
    ParentMissing(ChainValue),
    /// Its first event does not follow the last of its predecessor (V01, G1).
    #[error("the batch starts at event {found} where its predecessor leads to {expected}")]
    Gap {
        /// Event after the predecessor.
        expected: EventId,
        /// First event of the batch.
        found: EventId,
    },
    /// Versions never fall along a branch (R303).
    #[error("the batch has version {found} after version {parent}")]
    VersionFell {
        /// Version of the predecessor.
        parent: FailoverVersion,
        /// Version of the batch.
        found: FailoverVersion,
    },
    /// Its version history is not the predecessor's plus the batch (R304).
    #[error("the batch carries the version history {found} where its predecessor leads to {expected}")]
    Items {
        /// Predecessor's list and the batch.
        expected: VersionHistory,
        /// What it carries.
        found: VersionHistory,
    },
    /// A first batch under another version than the run's first batch (R302).
    #[error("a first batch has version {found}, but the run began with version {known}")]
    OtherStart {
        /// Version of the stored first batch.
        known: FailoverVersion,
        /// Version of this one.
        found: FailoverVersion,
    },
    /// The stored head does not list the leaves of the stored batches.
    #[error("the stored head and the stored batches differ: {0}")]
    Head(&'static str),
}

/// Where an inserted batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was there.
    Known,
    /// Index of the branch that it now ends.
    Leaf {
        /// Index after the insertion.
        branch: usize,
        /// Another branch was current before: the run must be rebuilt (R414).
        switched: bool,
    },
}

/// All batches of a run. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Leaves in branch order: the last one is current. Sorted, so that equal sets of batches are equal trees.
    branches: Vec<Branch>,
    nodes: BTreeMap<ChainValue, Node>,
}

impl Tree {
    /// The tree of a run's first batch.
    ///
    /// # Errors
    /// [`Error`] when it is not a first batch.
    pub fn root(envelope: &Envelope, chain: ChainValue) -> Result<Self, Error> {
        let mut tree = Self { branches: Vec::new(), nodes: BTreeMap::new() };
        tree.insert(envelope, chain)?;
        Ok(tree)
    }

    /// The tree of a stored run, from its batches in order of commit: predecessors come first.
    ///
    /// # Errors
    /// [`Error`] when the batches do not form a tree, or there are none.
    pub fn from_batches<'a>(
        batches: impl IntoIterator<Item = (&'a Envelope, ChainValue)>,
    ) -> Result<Self, Error> {
        let mut tree = Self { branches: Vec::new(), nodes: BTreeMap::new() };
        for (envelope, chain) in batches {
            tree.insert(envelope, chain)?;
        }
        if tree.branches.is_empty() {
            return Err(Error::Head("there are no batches"));
        }
        Ok(tree)
    }

    /// Does the stored head say what the batches say?
    ///
    /// # Errors
    /// [`Error::Head`] says which part differs.
    pub fn check_head(&self, head: &wire::RunHead) -> Result<(), Error> {
        if head.branches != self.branches_wire() {
            return Err(Error::Head("branches"));
        }
        if usize::try_from(head.current) != Ok(self.current_index()) {
            return Err(Error::Head("current branch"));
        }
        Ok(())
    }

    /// Does this batch fit here, and onto what? No change is made.
    ///
    /// # Errors
    /// [`Error`] says how it does not.
    pub fn check(&self, envelope: &Envelope) -> Result<(), Error> {
        let tip = Item::new(envelope.last_event, envelope.version);
        if envelope.previous == ChainValue::NONE {
            return self.check_first(envelope, tip);
        }
        let parent = self.node(envelope.previous).ok_or(Error::ParentMissing(envelope.previous))?;
        let expected = parent.last_event.next();
        if envelope.first_event != expected || envelope.last_event < expected {
            return Err(Error::Gap { expected, found: envelope.first_event });
        }
        if envelope.version < parent.version {
            return Err(Error::VersionFell { parent: parent.version, found: envelope.version });
        }
        same_items(&parent.items, tip, envelope)
    }

    fn check_first(&self, envelope: &Envelope, tip: Item) -> Result<(), Error> {
        let first = EventId(1);
        if envelope.first_event != first || envelope.last_event < first {
            return Err(Error::Gap { expected: first, found: envelope.first_event });
        }
        if let Some(known) = self.branches.first().and_then(|branch| branch.items.items().first())
            && known.version != envelope.version
        {
            return Err(Error::OtherStart { known: known.version, found: envelope.version });
        }
        same_items(&VersionHistory::default(), tip, envelope)
    }

    /// Adds a batch by its header. A leaf that it extends becomes a longer leaf; else a new branch begins (R318).
    ///
    /// # Errors
    /// [`Error`] when it does not fit; nothing is changed then.
    pub fn insert(&mut self, envelope: &Envelope, chain: ChainValue) -> Result<Inserted, Error> {
        if self.nodes.contains_key(&chain) {
            return Ok(Inserted::Known);
        }
        self.check(envelope)?;
        let node = Node {
            previous: envelope.previous,
            first_event: envelope.first_event,
            last_event: envelope.last_event,
            version: envelope.version,
            place: envelope.place,
            items: envelope.items.clone(),
        };
        let current = self.branches.last().map(|branch| branch.chain);
        let leaf = Branch { items: node.items.clone(), chain, place: node.place };
        self.nodes.insert(chain, node);
        self.branches.retain(|branch| branch.chain != envelope.previous);
        let branch = self.branches.partition_point(|known| known.cmp_order(&leaf).is_lt());
        self.branches.insert(branch, leaf);
        let became_current = branch + 1 == self.branches.len();
        let switched = became_current && current.is_some_and(|current| current != envelope.previous);
        Ok(Inserted::Leaf { branch, switched })
    }

    /// All branches in branch order; the last one is current.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Index of the current branch.
    #[must_use]
    pub fn current_index(&self) -> usize {
        self.branches.len() - 1
    }

    /// The current branch: the greatest.
    #[must_use]
    pub fn current(&self) -> &Branch {
        &self.branches[self.current_index()]
    }

    /// The branch whose tip this is.
    #[must_use]
    pub fn branch_of_tip(&self, chain: ChainValue) -> Option<usize> {
        self.branches.iter().position(|branch| branch.chain == chain)
    }

    /// A stored batch.
    #[must_use]
    pub fn node(&self, chain: ChainValue) -> Option<&Node> {
        self.nodes.get(&chain)
    }

    /// All stored batches by chain value.
    pub fn nodes(&self) -> impl Iterator<Item = (ChainValue, &Node)> {
        self.nodes.iter().map(|(chain, node)| (*chain, node))
    }

    /// Number of stored batches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never true; a run has at least its first batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The batches from `tip` back to the first, newest first.
    pub fn walk(&self, tip: ChainValue) -> impl Iterator<Item = (ChainValue, &Node)> {
        let step = |chain: ChainValue| self.nodes.get(&chain).map(|node| (chain, node));
        std::iter::successors(step(tip), move |(_, node)| step(node.previous))
    }

    /// Chain values of the batches that lead to `tip`, oldest first.
    #[must_use]
    pub fn path(&self, tip: ChainValue) -> Vec<ChainValue> {
        let mut path: Vec<_> = self.walk(tip).map(|(chain, _)| chain).collect();
        path.reverse();
        path
    }

    /// Chain values of the batches of `tip` after `ancestor`, oldest first; the whole path when `ancestor` is not on it.
    #[must_use]
    pub fn path_after(&self, ancestor: ChainValue, tip: ChainValue) -> Vec<ChainValue> {
        let mut path: Vec<_> =
            self.walk(tip).map(|(chain, _)| chain).take_while(|&chain| chain != ancestor).collect();
        path.reverse();
        path
    }

    /// The batch of the way to `tip` that holds this event.
    #[must_use]
    pub fn batch_with(&self, tip: ChainValue, event: EventId) -> Option<ChainValue> {
        let (chain, node) = self.walk(tip).find(|(_, node)| node.first_event <= event)?;
        (event.0 > 0 && event <= node.last_event).then_some(chain)
    }

    /// Is this chain value on the way to `tip`? The value before the first batch is on every way.
    #[must_use]
    pub fn leads_to(&self, chain: ChainValue, tip: ChainValue) -> bool {
        if chain == ChainValue::NONE || chain == tip {
            return chain == ChainValue::NONE || self.nodes.contains_key(&tip);
        }
        let Some(wanted) = self.nodes.get(&chain) else { return false };
        self.walk(tip)
            .take_while(|(_, node)| node.last_event >= wanted.last_event)
            .any(|(found, _)| found == chain)
    }

    /// Is this chain value on the current branch (A4, A8)?
    #[must_use]
    pub fn is_prefix(&self, chain: ChainValue) -> bool {
        self.leads_to(chain, self.current().chain)
    }

    /// Last batch that two tips share; [`ChainValue::NONE`] when they share none. Exact also where one owner forked, which
    /// lists of (id, version) cannot see (G2).
    #[must_use]
    pub fn fork_point(&self, a: ChainValue, b: ChainValue) -> ChainValue {
        let (mut a, mut b) = (a, b);
        while a != b {
            let (Some(x), Some(y)) = (self.nodes.get(&a), self.nodes.get(&b)) else {
                return ChainValue::NONE;
            };
            // Step back whichever reaches further; two different batches with equal ends step back together.
            match x.last_event.cmp(&y.last_event) {
                Ordering::Greater => a = x.previous,
                Ordering::Less => b = y.previous,
                Ordering::Equal => (a, b) = (x.previous, y.previous),
            }
        }
        a
    }

    /// Last event that two branches share; none when they share no batch.
    #[must_use]
    pub fn fork_item(&self, a: &Branch, b: &Branch) -> Option<Item> {
        self.nodes.get(&self.fork_point(a.chain, b.chain)).map(Node::tip)
    }

    /// Batches that are not on the current branch, branch by branch in branch order and oldest first within each, every
    /// batch once: what lost (I33).
    #[must_use]
    pub fn losing(&self) -> Vec<ChainValue> {
        let current = self.current().chain;
        let (mut seen, mut losing) = (std::collections::BTreeSet::new(), Vec::new());
        for branch in &self.branches[..self.current_index()] {
            let fork = self.fork_point(branch.chain, current);
            let way = self.walk(branch.chain).map(|(chain, _)| chain);
            let before = losing.len();
            losing.extend(way.take_while(|chain| *chain != fork && seen.insert(*chain)));
            losing[before..].reverse();
        }
        losing
    }

    /// Branches as the run's head stores them, in branch order.
    #[must_use]
    pub fn branches_wire(&self) -> Vec<wire::Branch> {
        self.branches.iter().map(Branch::to_wire).collect()
    }

    /// Writes branches and current index into the run's head.
    pub fn head_wire(&self, head: &mut wire::RunHead) {
        head.branches = self.branches_wire();
        head.current = u32::try_from(self.current_index()).unwrap_or(u32::MAX);
    }

    /// Chain values of all tips, sorted: a part of the run's digest (G3).
    #[must_use]
    pub fn tips_sorted(&self) -> Vec<ChainValue> {
        let mut tips: Vec<_> = self.branches.iter().map(|branch| branch.chain).collect();
        tips.sort_unstable();
        tips
    }
}

fn same_items(before: &VersionHistory, tip: Item, envelope: &Envelope) -> Result<(), Error> {
    if envelope.items.is_after(before, tip) {
        return Ok(());
    }
    // That cannot fail: ids grow and the version does not fall.
    let expected = before.with(tip).unwrap_or_default();
    Err(Error::Items { expected, found: envelope.items.clone() })
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
