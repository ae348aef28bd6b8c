//! The way of one entry through an inbox: to its shard, aside, into quarantine; proved in the end.

use std::collections::BTreeMap;

use antipode_core::ids::{Sequence, ShardId, Timestamp, WorkflowKey};
use antipode_history::{
    api::{Applied, Replicated},
    client::shard_of,
};
use antipode_persistence::rows::QuarantineRow;
use antipode_proto::link::replicate_response::Entries;
use prost::Message;

use super::{
    Asked, Inbox,
    aside::Item,
    io::{Broken, Cx, Output},
    progress::Feed,
};
use crate::{
    entry::{self, Received, Unreadable},
    mending::{Mended, Poisoned},
    records::covers,
    selection::{StateHash, holds_own},
};

impl Inbox {
    pub(super) fn take(&mut self, cx: &mut Cx<'_>, entries: Entries) -> Result<(), Broken> {
        let feed = Feed::of_wire(entries.shard, entries.relay_of);
        let (after, through) = (Sequence(entries.after), Sequence(entries.through));
        let count = entries.entries.len();
        let range = self.progress.announce(feed, after, through, count, entries.sent_unix_nanos)?;
        if feed.relay_of.is_some() {
            self.counts.relayed += count as u64;
        }
        let mut groups: BTreeMap<ShardId, (Vec<Item>, Vec<Replicated>)> = BTreeMap::new();
        for entry in entries.entries {
            self.counts.bytes += entry.encoded_len() as u64;
            match entry::read(&entry) {
                Ok(received) => {
                    let item = Item { feed, range, key: received.key.clone(), entry, holds_credit: true };
                    if let Some((item, replicated)) = self.sort_in(cx, item, received) {
                        let shard = shard_of(&item.key.workflow_key(), self.shards);
                        let (items, group) = groups.entry(shard).or_default();
                        items.push(item);
                        group.push(replicated);
                    }
                }
                Err(Unreadable { key, why, changed: true }) => {
                    self.counts.changed += 1;
                    let sequence = Sequence(entry.sequence);
                    return Err(Broken::Changed { shard: feed.shard, sequence, key, why });
                }
                Err(Unreadable { key, why, changed: false }) => {
                    self.quarantine(cx.now, Item { feed, range, key, entry, holds_credit: true }, why);
                }
            }
        }
        for (shard, (items, entries)) in groups {
            let call = self.call(Asked::Items(items));
            self.outputs.push(Output::Apply { call, shard, entries });
        }
        Ok(())
    }

    /// What goes to its shard at once; anything else is put aside or behind its run's quarantine.
    fn sort_in(&mut self, cx: &mut Cx<'_>, item: Item, received: Received) -> Option<(Item, Replicated)> {
        // What this region itself wrote came back from a peer because a restore lost it: nobody else sends it on (E2).
        if let Replicated::State(state) = &received.replicated
            && !holds_own(state, &self.setup.info)
        {
            cx.received.remember(received.key.run, StateHash::of(state));
        }
        if self.setup.exceptions.get(&item.key).is_some() {
            self.quarantine(cx.now, item, String::new());
            return None;
        }
        // The record goes ahead of what was written under it (I10); what overtook it asks for it (F5).
        let covered = covers(cx.records, item.key.namespace, received.version);
        if !covered || self.aside.has(&item.key.workflow_key()) {
            self.put_aside(item, None);
            return None;
        }
        Some((item, received.replicated))
    }

    pub(super) fn judge(&mut self, item: Item, verdict: Applied) {
        match verdict {
            Applied::Applied(_) => {
                self.counts.applied += 1;
                self.progress.prove(item.feed, item.range, item.holds_credit);
            }
            Applied::Duplicate => {
                self.counts.duplicate += 1;
                self.progress.prove(item.feed, item.range, item.holds_credit);
            }
            verdict => {
                match verdict {
                    Applied::NeedEvents { .. } => self.counts.need_events += 1,
                    Applied::Retry(_) => self.counts.retry += 1,
                    _ => {}
                }
                self.put_aside(item, Some(verdict));
            }
        }
    }

    fn put_aside(&mut self, mut item: Item, verdict: Option<Applied>) {
        if self.aside.has_room(&item) {
            item.holds_credit = false;
            self.progress.put_aside(item.feed, item.range);
        }
        let workflow = item.key.workflow_key();
        if self.aside.push(item, verdict) {
            self.mend_first(workflow);
        }
    }

    /// The first waiting entry of a workflow stands, or never will.
    pub(super) fn first_done(
        &mut self,
        now: Timestamp,
        workflow: WorkflowKey,
        result: Result<Mended, Poisoned>,
    ) {
        if let Some(item) = self.aside.pop(&workflow) {
            match result {
                Err(Poisoned(why)) => self.quarantine(now, item, why),
                Ok(mended) => {
                    match mended {
                        Mended::Applied => self.counts.applied += 1,
                        Mended::Known => self.counts.duplicate += 1,
                        Mended::NotOurs | Mended::Gone => self.counts.not_ours += 1,
                    }
                    self.progress.prove(item.feed, item.range, item.holds_credit);
                }
            }
        }
        while let Some((next, _)) = self.aside.first(&workflow) {
            if self.setup.exceptions.get(&next.key).is_none() {
                return self.mend_first(workflow);
            }
            if let Some(item) = self.aside.pop(&workflow) {
                self.quarantine(now, item, String::new());
            }
        }
    }

    /// Sets a run aside for good: its first failing entry with the reason, later ones only as a number (E1). The entry counts
    /// as proved when that is durable, the run as an exception; at the cap it does not, and the watermark stops.
    fn quarantine(&mut self, now: Timestamp, item: Item, reason: String) {
        match self.setup.exceptions.add(&item.key, &reason, 0) {
            Err(_) => self.counts.refused += 1,
            Ok(true) => {
                self.counts.quarantined += 1;
                self.exceptions_said = false;
                self.outputs.push(Output::Quarantine(QuarantineRow {
                    key: item.key.clone(),
                    source: self.setup.source_id.0,
                    reason,
                    entry: item.entry.encode_to_vec().into(),
                    since: now,
                    behind: 0,
                }));
                self.quarantining.insert(item.key.clone(), vec![item]);
            }
            Ok(false) => {
                self.counts.behind += 1;
                let behind = self.setup.exceptions.get(&item.key).map_or(0, |exception| exception.behind);
                // At each doubling: a run that keeps changing must not cost a commit each.
                if behind.is_power_of_two() {
                    self.outputs.push(Output::MarkBehind { key: item.key.clone(), behind });
                }
                match self.quarantining.get_mut(&item.key) {
                    Some(items) => items.push(item),
                    None => self.progress.prove(item.feed, item.range, item.holds_credit),
                }
            }
        }
    }
}
