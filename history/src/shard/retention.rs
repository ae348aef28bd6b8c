//! Retention (C6, R943). A closed run owes its own deletion: the obligation index says when it is to be looked at, in every
//! region for its own copy, whoever is active. What decides then is the run, the clock and what the peers have proved: a run
//! goes only when every region that the namespace lists has proof of its last change, and nothing it took from a client is
//! unsettled. A run that may not go yet is looked at again later, at growing distances, and counted by reason.
//!
//! What stays of a replicated run is a tombstone, a head without batches, for as long again and [`LATE`]: by its branches
//! a batch that comes late is told from a new one. The current record goes with the last row of its workflow id, not before:
//! so no deletion makes an older run current (B6).

use std::{collections::BTreeSet, sync::Arc};

use antipode_conflict::{
    ask::Ask,
    explain::{Explanation, Reason},
};
use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    identity::Identity,
    ids::{EventId, FailoverVersion, Nanos, RunKey, RunOrder, Sequence, Timestamp},
    run::Run,
    verdict::{Basis, Verdict, order_of_head},
    version_history::VersionHistory,
};
use antipode_persistence::rows::{ObligationChange, RunRow};
use antipode_proto::core as wire;
use bytes::Bytes;
use prost::Message;

use super::{Event, Load, NamespaceView, Output, Proof, SCAN_EVERY, Shard, Stop, Token, Work};
use crate::api::{Applied, Refusal};

/// Closed runs that a read brings at most.
pub const OBLIGATION_PAGE: usize = 256;
/// How soon the next page is read when one was full.
const NEXT_PAGE: Nanos = Nanos::seconds(1);
/// A run that may not go yet is looked at again after this at the earliest,
const AGAIN_FIRST: Nanos = Nanos::seconds(60);
/// and after this at the latest.
const AGAIN_LAST: Nanos = Nanos::seconds(3_600);
/// How long a run that closed before its store was upgraded stays untouched: the operator's time to lengthen a retention.
const UPGRADED: Nanos = Nanos::seconds(3_600);
/// How much longer than the retention a tombstone stays: late batches older than this are taken for new ones.
const LATE: Nanos = Nanos::seconds(7 * 24 * 3_600);
/// Verdict on a client's event that comes after its run was deleted (I03).
const VERDICT: &str = "it came after the run was deleted at the end of its retention";

/// What is left of a deleted run.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    head: wire::RunHead,
    changed_at: Sequence,
}

impl Tombstone {
    /// From a stored row, when it is one.
    pub(super) fn of(row: &RunRow, head: &wire::RunHead) -> Option<Self> {
        head.deleted.as_ref()?;
        Some(Self { head: head.clone(), changed_at: row.changed_at })
    }

    /// As a peer tells it, of a run that stands here at this position.
    pub(super) fn told(head: &wire::RunHead, changed_at: Sequence, now: Timestamp) -> Option<Self> {
        let deleted = wire::Deleted { at_unix_nanos: now.0, ..head.deleted.clone()? };
        let bare = wire::RunHead { registers: Vec::new(), pending: Vec::new(), ..head.clone() };
        Some(Self { head: wire::RunHead { deleted: Some(deleted), ..bare }, changed_at })
    }

    /// Whether the batch was deleted with the run. What another life of its store wrote under the same ids and version was
    /// not (G2).
    pub(super) fn knows(&self, batch: &Batch) -> bool {
        let (event, version) = (batch.envelope.last_event, batch.envelope.version);
        let life = wire::Life { version: version.0, incarnation: batch.envelope.origin.incarnation.0 };
        let lives = self.head.deleted.as_ref().map(|deleted| deleted.lives.as_slice()).unwrap_or_default();
        self.head.branches.iter().enumerate().any(|(branch, stored)| {
            let wrote = lives.get(branch).is_none_or(|wrote| wrote.lives.contains(&life));
            let items = VersionHistory::from_wire(&stored.items);
            wrote && items.is_ok_and(|items| items.contains(event, version))
        })
    }

    /// Whether its run comes back.
    fn is_revived(&self) -> bool {
        self.head.deleted.as_ref().is_some_and(|deleted| deleted.revived)
    }

    pub(super) fn head(&self) -> &wire::RunHead {
        &self.head
    }

    fn current(&self) -> Option<&wire::Branch> {
        usize::try_from(self.head.current).ok().and_then(|index| self.head.branches.get(index))
    }

    /// Last write version of the run when it was deleted.
    pub(super) fn version(&self) -> FailoverVersion {
        let last = self.current().and_then(|branch| branch.items.last());
        last.map_or(FailoverVersion::LOCAL, |item| FailoverVersion(item.version))
    }

    /// The branch that was current when the run was deleted.
    fn items(&self) -> Option<VersionHistory> {
        self.current().and_then(|branch| VersionHistory::from_wire(&branch.items).ok())
    }

    /// Its order among the runs of the workflow id when it was deleted (B7).
    pub(super) fn order(&self) -> RunOrder {
        order_of_head(&self.head)
    }

    /// Files a client's event. False: it is filed already.
    pub(super) fn file(&mut self, record: wire::Unclaimed) -> bool {
        let known = self.head.unclaimed.iter().any(|known| known.identity == record.identity);
        if !known {
            self.head.unclaimed.push(record);
        }
        !known
    }
}

/// Why a run stays, and until when.
enum Keep {
    /// It is open, or the namespace keeps closed runs for ever.
    ForEver,
    /// It is not due yet.
    Until(Timestamp),
    /// It was due at this time, and something is in the way.
    Waits(Timestamp, Event),
}

/// When a closed run may go by the namespace's retention. As long as the retention is not known here the answer is too early,
/// never too late (C5).
pub(super) fn due(run: &Run, view: Option<&NamespaceView>) -> Option<Timestamp> {
    let closed = run.state.close.as_ref()?.clock;
    match view.map(|view| view.retention) {
        Some(retention) if retention.0 <= 0 => None,
        Some(retention) => Some(closed.plus(retention)),
        None => Some(closed),
    }
}

impl<T: Token> Shard<T> {
    /// Takes what a peer, by its region's name, has proved of this shard's log.
    pub fn proof(&mut self, now: Timestamp, peer: &str, proof: Proof) {
        self.now = now;
        self.proofs.insert(peer.to_string(), proof);
    }

    /// Reads closed runs that are due, when it is time to.
    pub(super) fn scan_closed(&mut self) {
        if self.now < self.next_closed {
            return;
        }
        self.next_closed = self.now.plus(SCAN_EVERY);
        if self.namespaces.values().any(|view| view.retention.0 > 0) {
            self.outputs.push(Output::Load(Load::Obligations { until: self.now }));
        }
    }

    /// Closed runs that are due came back.
    pub(super) fn closed_due(&mut self, due: Vec<(Timestamp, RunKey)>) {
        if due.len() >= OBLIGATION_PAGE {
            self.next_closed = self.now.plus(NEXT_PAGE);
        }
        for (at, key) in due {
            if at == Timestamp(0) {
                self.look_again(&key, self.now.plus(UPGRADED));
            } else {
                self.work(Work::Retire(key));
            }
        }
    }

    pub(super) fn look_again(&mut self, key: &RunKey, due: Timestamp) {
        self.gather.obligations.insert(key.clone(), ObligationChange::Put { key: key.clone(), due });
    }

    /// Looks at a run again as late as possible.
    pub(super) fn put_off(&mut self, key: &RunKey) {
        self.look_again(key, self.now.plus(AGAIN_LAST));
    }

    /// The row of the obligation index that a run implies.
    pub(super) fn derive_retention(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let wanted = due(&self.cached(key)?.run, self.namespaces.get(&key.namespace));
        let cached = self.cached_mut(key)?;
        if cached.retire_at == wanted {
            return Ok(());
        }
        cached.retire_at = wanted;
        let change = match wanted {
            Some(due) => ObligationChange::Put { key: key.clone(), due },
            None => ObligationChange::Remove { key: key.clone() },
        };
        self.gather.obligations.insert(key.clone(), change);
        Ok(())
    }

    /// A closed run is due, or a tombstone: deletes it, or says when to look again.
    pub(super) fn try_retire(&mut self, key: &RunKey) -> Result<(), Stop> {
        let stored = self.need_run(key)?;
        if self.is_busy(key) {
            return Ok(()); // Its row stays and brings it again.
        }
        if !stored {
            return self.expire(key);
        }
        match self.keep(key)? {
            None => {
                self.tell_delivered(key)?;
                self.delete(key)
            }
            Some(Keep::ForEver) => {
                self.cached_mut(key)?.retire_at = None;
                self.gather.obligations.insert(key.clone(), ObligationChange::Remove { key: key.clone() });
                Ok(())
            }
            Some(Keep::Until(due)) => {
                self.cached_mut(key)?.retire_at = Some(due);
                self.look_again(key, due);
                Ok(())
            }
            Some(Keep::Waits(due, reason)) => {
                self.outputs.push(Output::Count(reason));
                if reason == Event::RetentionOwed {
                    // Whoever took what it held may be gone since it was looked at (B1).
                    self.cached_mut(key)?.handed_over = false;
                    self.derive(key)?;
                }
                let waited = Nanos((self.now.0 - due.0).clamp(AGAIN_FIRST.0, AGAIN_LAST.0));
                self.look_again(key, self.now.plus(waited));
                Ok(())
            }
        }
    }

    /// Its last change is not durable yet, or somebody waits on it.
    pub(super) fn is_busy(&self, key: &RunKey) -> bool {
        let busy = self.cached(key).is_ok_and(|run| {
            !run.readers.is_empty() || !run.queries.is_empty() || run.changed_at > self.durable
        });
        busy || self.gather.runs.contains_key(key)
    }

    /// Why a run may not go; none: it may.
    fn keep(&mut self, key: &RunKey) -> Result<Option<Keep>, Stop> {
        let Some(view) = self.namespaces.get(&key.namespace) else {
            return Ok(Some(Keep::Until(self.now.plus(AGAIN_LAST))));
        };
        let cached = self.cached(key)?;
        let Some(due) = due(&cached.run, Some(view)) else { return Ok(Some(Keep::ForEver)) };
        if due > self.now {
            return Ok(Some(Keep::Until(due)));
        }
        let here = self.setting.region;
        for peer in &view.others {
            let proof = self.proofs.get(peer);
            if proof.is_some_and(|proof| proof.exceptions.contains(key)) {
                return Ok(Some(Keep::Waits(due, Event::RetentionHeld)));
            }
            let has = |proof: &Proof| proof.through >= cached.changed_at && !proof.lacks(here, &cached.run);
            if !proof.is_some_and(has) {
                return Ok(Some(Keep::Waits(due, Event::RetentionUnproved)));
            }
        }
        Ok(self.is_unsettled(key)?.then_some(Keep::Waits(due, Event::RetentionOwed)))
    }

    /// Whether clients' events of this run are neither applied nor filed (B1). Settling them is for the active region; a run
    /// with such events waits for it.
    fn is_unsettled(&mut self, key: &RunKey) -> Result<bool, Stop> {
        if !self.cached(key)?.run.may_owe() {
            return Ok(false);
        }
        let owner = self.workflows.get(&key.workflow_key()).and_then(super::cache::Workflow::current_run);
        let Some(owner) = owner.map(|run| RunKey { run, ..key.clone() }).filter(|owner| owner != key) else {
            return Ok(true);
        };
        if !self.need_run(&owner)? {
            self.need_descent(key)?;
            return Ok(!self.owing_to_nobody(key)?.is_empty());
        }
        Ok(!self.owing(key, &owner)?.is_empty())
    }

    /// Takes a position for a change of the stored rows that no peer is told of. What is answered from now on waits until
    /// it is durable (D1).
    pub(super) fn take_position(&mut self, key: &RunKey) {
        let at = self.sequence.next();
        self.sequence = at;
        if let Some(workflow) = self.workflows.get_mut(&key.workflow_key()) {
            workflow.changed = workflow.changed.max(at);
            if let Some(listed) = &mut workflow.listed {
                listed.retain(|row| row.key != *key);
            }
        }
    }

    fn delete(&mut self, key: &RunKey) -> Result<(), Stop> {
        let shared = self.namespaces.get(&key.namespace).is_some_and(|view| !view.others.is_empty());
        let last = if shared { Some(false) } else { self.is_last(key)? };
        let Some(last) = last else { return Ok(()) };
        let workflow_key = key.workflow_key();
        let tombstone = {
            let cached = self.cached(key)?;
            let lost = self.is_lost(key); // It may have been read anew since that was last looked at.
            Tombstone { head: head_of(&cached.run, lost, self.now), changed_at: cached.changed_at }
        };
        self.take_out(key);
        if shared {
            self.leave(key, tombstone);
        } else {
            self.gone(key, last);
        }
        self.account(&workflow_key);
        self.outputs.push(Output::Count(Event::RunDeleted));
        Ok(())
    }

    /// A run goes, from the store and from memory.
    pub(super) fn take_out(&mut self, key: &RunKey) {
        self.take_position(key);
        self.gather.deletes.insert(key.clone());
        self.gather.obligations.remove(key);
        if let Some(workflow) = self.workflows.get_mut(&key.workflow_key())
            && let Some(cached) = workflow.runs.remove(&key.run)
            && let Some(wake) = cached.wake
        {
            self.wakes.remove(&(wake, key.clone()));
        }
    }

    /// A tombstone takes its place, for its time.
    pub(super) fn leave(&mut self, key: &RunKey, tombstone: Tombstone) {
        let retention = self.namespaces.get(&key.namespace).map(|view| view.retention).unwrap_or_default();
        self.write_tombstone(key, tombstone);
        self.look_again(key, self.now.plus(retention).plus(LATE));
    }

    /// Nothing of a run is left; with the last one of its workflow id the record goes too.
    fn gone(&mut self, key: &RunKey, last: bool) {
        let workflow_key = key.workflow_key();
        let Some(workflow) = self.workflows.get_mut(&workflow_key) else { return };
        workflow.deleted.remove(&key.run);
        workflow.absent.insert(key.run);
        if last {
            workflow.current = None;
            self.gather.currents.remove(&workflow_key);
            self.gather.forgets.insert(workflow_key);
        }
    }

    /// Whether no other row of this workflow id is stored, of a run or a tombstone; none: not known before what is in flight
    /// is durable.
    fn is_last(&self, key: &RunKey) -> Result<Option<bool>, Stop> {
        let workflow_key = key.workflow_key();
        let Some(workflow) = self.workflows.get(&workflow_key) else { return Ok(None) };
        if workflow.runs.keys().chain(workflow.deleted.keys()).any(|run| *run != key.run) {
            return Ok(Some(false));
        }
        match workflow.listed.as_ref().filter(|_| !workflow.listed_early) {
            Some(rows) => Ok(Some(rows.iter().all(|row| row.key == *key))),
            None if workflow.changed > self.durable => Ok(None),
            None => Err(Stop::Load(Load::Runs(workflow_key))),
        }
    }

    /// A tombstone has stood long enough.
    fn expire(&mut self, key: &RunKey) -> Result<(), Stop> {
        let tombstone = self.tombstone(key).and_then(|tombstone| tombstone.head.deleted.as_ref());
        let Some(at) = tombstone.map(|deleted| Timestamp(deleted.at_unix_nanos)) else { return Ok(()) };
        let retention = self.namespaces.get(&key.namespace).map(|view| view.retention).unwrap_or_default();
        let until = at.plus(retention).plus(LATE);
        if until > self.now {
            self.look_again(key, until);
            return Ok(());
        }
        let Some(last) = self.is_last(key)? else { return Ok(()) };
        self.take_position(key);
        self.gather.deletes.insert(key.clone());
        self.gather.obligations.remove(key);
        self.gone(key, last);
        self.outputs.push(Output::Count(Event::TombstoneExpired));
        Ok(())
    }

    pub(super) fn tombstone(&self, key: &RunKey) -> Option<&Tombstone> {
        self.workflows.get(&key.workflow_key())?.deleted.get(&key.run)
    }

    /// The row keeps its position: peers see nothing of it.
    pub(super) fn write_tombstone(&mut self, key: &RunKey, tombstone: Tombstone) {
        let row = RunRow {
            key: key.clone(),
            changed_at: tombstone.changed_at,
            wake_at: None,
            head: Bytes::from(tombstone.head.encode_to_vec()),
        };
        self.gather.runs.insert(key.clone(), row);
        if let Some(workflow) = self.workflows.get_mut(&key.workflow_key()) {
            workflow.listed = None;
            workflow.deleted.insert(key.run, tombstone);
        }
    }

    /// The tombstone of a run that does not come back.
    pub(super) fn grave(&self, key: &RunKey) -> Option<&Tombstone> {
        self.tombstone(key).filter(|tombstone| !tombstone.is_revived())
    }

    /// A replicated batch of a run that is not stored: what becomes of it when the run was deleted; none: it is like any
    /// other. What was deleted is known. A version above the tombstone's wins: the run comes back whole (C6). A branch that
    /// lost comes too late to be kept; what clients gave it is filed (I03).
    pub(super) fn late_batch(&mut self, batch: &Batch) -> Option<Applied> {
        let key = &batch.envelope.run;
        let tombstone = self.grave(key)?;
        let compared = tombstone.items();
        let told = |verdict, reason| Explanation {
            compared: compared.clone(),
            ..Explanation::of_batch(&batch.envelope, batch.chain, verdict, reason)
        };
        if tombstone.knows(batch) {
            self.tell(key, told("Duplicate", Reason::DeletedWith));
            self.outputs.push(Output::Count(Event::LateDuplicate));
            return Some(Applied::Duplicate);
        }
        if batch.envelope.version > tombstone.version() {
            self.tell(key, told("Resurrect", Reason::DeletedBefore).asking(Ask::run(key.run, None)));
            self.resurrect(key);
            // Whole: of the branches that lost nothing would come again by itself.
            return Some(Applied::NeedEvents {
                key: key.clone(),
                known: VersionHistory::default(),
                until: None,
            });
        }
        Some(self.file_late(key, of_batch(batch), told("Unclaimed", Reason::DeletedAfter)))
    }

    /// The same for the state of a run: its registers are of no use any more, events that waited are filed.
    pub(super) fn late_state(&mut self, key: &RunKey, state: &wire::RunState) -> Option<Applied> {
        let compared = self.grave(key)?.items();
        let waiting = state.pending.iter().filter(|pending| pending.anchor_event_id == 0);
        let records: Vec<_> = waiting
            .filter_map(|pending| {
                let identity = Identity::from_wire(pending.identity.as_ref()?)?;
                Some(unclaimed(key, &identity, 0, pending.accepted_version))
            })
            .collect();
        let told = Explanation::of_state(state, None, "Unclaimed", Reason::DeletedAfter);
        Some(self.file_late(key, records, Explanation { compared, ..told }))
    }

    /// Files what is not filed yet, and tells it; when all of it is, the entry is known.
    fn file_late(&mut self, key: &RunKey, records: Vec<wire::Unclaimed>, told: Explanation) -> Applied {
        let now = self.now.0;
        let Some(mut tombstone) = self.tombstone(key).cloned() else { return Applied::Duplicate };
        let mut notes = Vec::new();
        for record in records {
            if tombstone.file(wire::Unclaimed { recorded_unix_nanos: now, ..record.clone() }) {
                notes.push(filed(&record));
            }
        }
        if notes.is_empty() {
            let notes = vec!["it has no event of a client that is not filed".to_string()];
            self.tell(key, Explanation { verdict: "Duplicate", notes, ..told });
            self.outputs.push(Output::Count(Event::LateDuplicate));
            return Applied::Duplicate;
        }
        self.tell(key, Explanation { notes, ..told });
        self.outputs.push(Output::Count(Event::Unclaimed));
        self.take_position(key);
        self.write_tombstone(key, tombstone);
        Applied::Applied(self.sequence)
    }

    /// The tombstone is none any more, and the run may come back. Until it has grown past its record it owns nothing. What was
    /// filed on it waits for it.
    fn resurrect(&mut self, key: &RunKey) {
        let Some(mut tombstone) = self.tombstone(key).cloned() else { return };
        if let Some(deleted) = &mut tombstone.head.deleted {
            deleted.revived = true;
        }
        self.take_position(key);
        self.gather.deletes.insert(key.clone());
        self.write_tombstone(key, tombstone);
        self.outputs.push(Output::Count(Event::RunResurrected));
    }
}

/// Whether a stored row is what is left of a deleted run: it has no batches, and is no run for anybody who reads the store.
#[must_use]
pub fn is_tombstone(row: &RunRow) -> bool {
    wire::RunHead::decode(&*row.head).is_ok_and(|head| head.deleted.is_some())
}

/// What is kept of a run. `lost`: it followed a branch that lost, so that what it took does not count (B1).
fn head_of(run: &Run, lost: bool, now: Timestamp) -> wire::RunHead {
    let took = if lost { Vec::new() } else { run.took_from_others() };
    let took = took.iter().map(Identity::to_wire).collect();
    wire::RunHead {
        registers: Vec::new(),
        pending: Vec::new(),
        batch_bytes: 0,
        unclaimed: run.unclaimed().into_iter().cloned().collect(),
        open: false,
        deleted: Some(wire::Deleted { at_unix_nanos: now.0, lives: lives_of(run), took, revived: false }),
        ..run.head()
    }
}

/// Which lives of stores wrote each branch, in branch order.
fn lives_of(run: &Run) -> Vec<wire::Lives> {
    let life = |batch: &Arc<Batch>| (batch.envelope.version.0, batch.envelope.origin.incarnation.0);
    let lives = |tip: ChainValue| {
        let way = run.tree.iter().flat_map(|tree| tree.walk(tip));
        let lives: BTreeSet<_> = way.filter_map(|(chain, _)| run.batches.get(&chain).map(life)).collect();
        let lives = lives.into_iter().map(|(version, incarnation)| wire::Life { version, incarnation });
        wire::Lives { lives: lives.collect() }
    };
    run.branches().iter().map(|branch| lives(branch.chain)).collect()
}

/// What a client gave to a batch that comes after its run was deleted.
pub(super) fn of_batch(batch: &Batch) -> Vec<wire::Unclaimed> {
    let (key, version) = (&batch.envelope.run, batch.envelope.version);
    let external = batch.envelope.identities.iter().filter(|entry| entry.identity.kind.is_reapplied());
    external.map(|entry| unclaimed(key, &entry.identity, entry.event.0, version.0)).collect()
}

/// In words: what of a late entry is filed.
pub(super) fn filed(record: &wire::Unclaimed) -> String {
    let identity = record.identity.as_ref().and_then(Identity::from_wire);
    let what = identity.map_or_else(|| "an event".to_string(), |identity| identity.to_string());
    match record.event_id {
        0 => format!("filed as unclaimed: {what}, accepted under @{}", record.version),
        event => format!("filed as unclaimed: {what}, event {event}@{}", record.version),
    }
}

pub(super) fn unclaimed(key: &RunKey, identity: &Identity, event: i64, version: i64) -> wire::Unclaimed {
    let (event, version) = (EventId(event), FailoverVersion(version));
    let order = RunOrder::default();
    let verdict = Verdict { identity, event, version, words: VERDICT, basis: Basis::Nothing, order };
    verdict.record(key.run, Timestamp(0))
}
