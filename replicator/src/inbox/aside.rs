//! Entries that wait for the first of their workflow to be mended (B8): later entries of a workflow id never overtake an
//! earlier one. What waits gives the sender's credit back, up to a number of bytes. Pure.

use std::collections::{BTreeMap, VecDeque};

use antipode_core::ids::{RunKey, WorkflowKey};
use antipode_history::api::Applied;
use antipode_proto::link;
use prost::Message;

use super::progress::Feed;
use crate::proof::RangeNumber;

/// Entries put aside beyond this many bytes keep the sender's credit, so that it stops.
const BYTES_MAX: usize = 16 << 20;

/// A received entry on its way.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Where it came from, and the range it was announced in.
    pub(super) feed: Feed,
    pub(super) range: RangeNumber,
    pub(super) key: RunKey,
    /// As received: for quarantine, and to offer it again.
    pub(super) entry: link::Entry,
    /// It still holds the sender's credit.
    pub(super) holds_credit: bool,
}

/// What waits, by workflow.
#[derive(Debug, Default)]
pub(super) struct Aside {
    waiting: BTreeMap<WorkflowKey, VecDeque<(Item, Option<Applied>)>>,
    bytes: usize,
}

impl Aside {
    pub(super) fn has(&self, workflow: &WorkflowKey) -> bool {
        self.waiting.contains_key(workflow)
    }

    /// Whether an entry of this size may give its credit back.
    pub(super) fn has_room(&self, item: &Item) -> bool {
        self.bytes + item.entry.encoded_len() <= BYTES_MAX
    }

    /// Adds an entry behind those of its workflow; whether it is the first.
    pub(super) fn push(&mut self, item: Item, verdict: Option<Applied>) -> bool {
        self.bytes += item.entry.encoded_len();
        let waiting = self.waiting.entry(item.key.workflow_key()).or_default();
        waiting.push_back((item, verdict));
        waiting.len() == 1
    }

    /// The first of a workflow, which stays until it is popped: that keeps later ones behind.
    pub(super) fn first(&self, workflow: &WorkflowKey) -> Option<&(Item, Option<Applied>)> {
        self.waiting.get(workflow).and_then(VecDeque::front)
    }

    /// Takes the first of a workflow out.
    pub(super) fn pop(&mut self, workflow: &WorkflowKey) -> Option<Item> {
        let waiting = self.waiting.get_mut(workflow)?;
        let (item, _) = waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.entry.encoded_len());
        if waiting.is_empty() {
            self.waiting.remove(workflow);
        }
        Some(item)
    }

    /// How many entries wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}
