//! The sending end of one stream, as a machine (DESIGN 1.4): a receiver has dialled and named its positions; each of our
//! shards reads its log from there and sends what is meant for the receiver, as soon as it is committed. The receiver owns
//! the positions (E2); its acks give credit back (flow) and say what is durable there (proof, E1). Namespace records go
//! ahead of the entries that were written under them (I10). For an origin that the receiver says is down, what it lacks of
//! that origin is relayed from our log, as feeds of their own (C7). Pure: time, records and log pages are handed in.
//!
//! Driver contract: [`Outbox::new`] takes the receiver's first message; after it and after each input drain
//! [`Outbox::take_outputs`]. Tell [`Outbox::tip`] whenever a shard has committed, answer each [`Output::Read`] with
//! [`Outbox::page`], and call [`Outbox::wake`] when [`Outbox::next_wake`] has come.
//!
//! There is no ring of recent entries in memory: each page is one indexed read, and a busy shard's next page holds all
//! that was committed while the last one was on its way.

mod feeds;
mod io;

use std::collections::{BTreeMap, VecDeque};

use antipode_core::ids::{Incarnation, NamespaceId, RegionId, RunId, RunKey, Sequence, ShardId, Timestamp};
use antipode_persistence::rows::LogPage;
use antipode_proto::link::{
    self, DownOrigin,
    replicate_request::{Ack, Open},
    replicate_response::{self, Entries, Opened},
};

use crate::{
    cursor::Announcement,
    entry, handshake,
    inbox::Feed,
    selection::{KnownStates, Selected, Vector},
};
use feeds::Sending;
pub use io::{Broken, Counts, Cx, Output, Setup, Withheld, WithheldEntry};

/// Bytes sent to a peer and not yet read there.
const CREDIT_BYTES: usize = 4 << 20;
/// States of runs that a stream remembers as sent.
const STATES_REMEMBERED: usize = 16_384;

/// What a stream has sent of the namespace records.
#[derive(Default)]
struct Pushed {
    /// Revision of the records; none: nothing was sent.
    revision: Option<u64>,
    /// Notification of each record.
    records: BTreeMap<NamespaceId, u64>,
}

/// The sending end of one stream.
pub struct Outbox {
    setup: Setup,
    feeds: BTreeMap<Feed, Sending>,
    /// Feeds that have something to announce and wait for credit, oldest first.
    waiting: VecDeque<Feed>,
    credit: usize,
    tips: BTreeMap<ShardId, Sequence>,
    proof: BTreeMap<ShardId, Sequence>,
    /// Positions that somebody waits for the receiver to prove.
    wanted: BTreeMap<ShardId, Sequence>,
    /// Life of the receiver's store.
    life: Incarnation,
    /// Origins that are down for the receiver, and what it has of each (C7).
    down: BTreeMap<RegionId, Vector>,
    /// Runs of the late entries that are on their way, in the order in which they were sent, and how many were proved before.
    late: BTreeMap<ShardId, (VecDeque<RunId>, u64)>,
    /// The receiver says when late entries are proved.
    tells_late: bool,
    /// Both regions know of states that tell a deletion (C6).
    reads_tombstones: bool,
    sent_states: KnownStates,
    pushed: Pushed,
    counts: Counts,
    outputs: Vec<Output>,
}

impl Outbox {
    /// A receiver has dialled with this message; who it is was checked.
    #[must_use]
    pub fn new(setup: Setup, open: &Open, cx: &mut Cx<'_>) -> Self {
        let named: BTreeMap<ShardId, Sequence> =
            open.positions.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
        // Positions of another life of our store mean nothing in this one: from the start (E2, V19).
        let same_life = open.source_incarnation == setup.info.incarnation;
        let end = |shard: ShardId| setup.ends.get(&shard).copied().unwrap_or_default();
        let ends = (1..=setup.info.shard_count).map(ShardId);
        let ends = ends.map(|shard| link::Position { shard: shard.0, sequence: end(shard).0 }).collect();
        let opened = Opened { source: Some(setup.info.clone()), ends };
        let mut outputs = vec![Output::Send(replicate_response::Message::Opened(opened))];
        let mut feeds = BTreeMap::new();
        let life = open.receiver.as_ref().map(|info| Incarnation(info.incarnation)).unwrap_or_default();
        let again = cx.withheld.dialled(life);
        for shard in (1..=setup.info.shard_count).map(ShardId) {
            let mut at = named.get(&shard).copied().filter(|_| same_life).unwrap_or_default();
            let end = setup.ends.get(&shard).copied().unwrap_or_default();
            if at > end {
                outputs.push(Output::Ahead { shard, named: at, end });
                at = Sequence(0);
            }
            at = again.get(&shard).copied().map_or(at, |again| at.min(again));
            feeds.insert(Feed::own(shard), Sending::new(at));
        }
        let mut outbox = Self {
            proof: feeds
                .iter()
                .map(|(feed, sending): (&Feed, &Sending)| (feed.shard, sending.position()))
                .collect(),
            tips: setup.ends.clone(),
            life,
            late: BTreeMap::new(),
            tells_late: open.receiver.as_ref().is_some_and(|info| info.features & handshake::LATE != 0),
            reads_tombstones: open
                .receiver
                .as_ref()
                .is_some_and(|info| info.features & setup.info.features & handshake::TOMBSTONES != 0),
            setup,
            feeds,
            waiting: VecDeque::new(),
            credit: CREDIT_BYTES,
            wanted: BTreeMap::new(),
            down: BTreeMap::new(),
            sent_states: KnownStates::new(STATES_REMEMBERED),
            pushed: Pushed::default(),
            counts: Counts::default(),
            outputs,
        };
        outbox.outputs.push(Output::Proved(outbox.proof.clone().into_iter().collect()));
        outbox.push_records(cx);
        outbox.set_down(&open.down);
        // What the last stream had under way when it broke is let go once more.
        cx.withheld.values_mut().flatten().for_each(|next| next.sent = false);
        outbox.send_released(cx);
        outbox.go_on(cx);
        outbox
    }

    /// A shard has committed up to here.
    pub fn tip(&mut self, cx: &mut Cx<'_>, shard: ShardId, tip: Sequence) {
        let known = self.tips.entry(shard).or_default();
        *known = tip.max(*known);
        self.go_on(cx);
    }

    /// A page of a shard's log.
    ///
    /// # Errors
    /// [`Broken`]: the stream has to end.
    pub fn page(&mut self, cx: &mut Cx<'_>, feed: Feed, page: &LogPage) -> Result<(), Broken> {
        // A record is durable before anything is written under it: what this page rests on is visible now (I10).
        self.push_records(cx);
        self.take_page(cx, feed, page)?;
        self.go_on(cx);
        Ok(())
    }

    /// The records changed.
    pub fn records_changed(&mut self, cx: &mut Cx<'_>) {
        self.push_records(cx);
    }

    /// The set of held runs changed: those that are let go are sent.
    pub fn held_changed(&mut self, cx: &mut Cx<'_>) {
        self.send_released(cx);
    }

    /// Somebody waits for the receiver to prove these positions: they are announced without delay (F2).
    pub fn want(&mut self, cx: &mut Cx<'_>, positions: &BTreeMap<ShardId, Sequence>) {
        for (shard, position) in positions {
            let known = self.wanted.entry(*shard).or_default();
            *known = (*known).max(*position);
        }
        self.go_on(cx);
    }

    /// The receiver's words.
    pub fn ack(&mut self, cx: &mut Cx<'_>, ack: Ack) {
        for at in &ack.flow {
            self.give_back(Feed::own(ShardId(at.shard)), Sequence(at.sequence));
        }
        for at in &ack.relayed {
            self.give_back(Feed::of_wire(at.shard, at.origin), Sequence(at.flow));
        }
        let mut proved = Vec::new();
        for at in &ack.proof {
            let proof = self.proof.entry(ShardId(at.shard)).or_default();
            *proof = (*proof).max(Sequence(at.sequence));
            proved.push((ShardId(at.shard), *proof));
        }
        for at in &ack.late {
            self.proved_late(cx, ShardId(at.shard), at.sequence);
        }
        if !proved.is_empty() {
            self.outputs.push(Output::Proved(proved));
        }
        if ack.quarantined_complete {
            let runs = ack.quarantined.into_iter().filter_map(|run| {
                let key = entry::key_of(&run.namespace_id, &run.workflow_id, &run.run_id)?;
                Some((key, run.reason))
            });
            self.outputs.push(Output::Exceptions(runs.collect()));
        }
        if ack.down_complete {
            self.set_down(&ack.down);
        }
        self.go_on(cx);
    }

    /// The time is there.
    pub fn wake(&mut self, cx: &mut Cx<'_>) {
        self.go_on(cx);
    }

    /// When to call [`Outbox::wake`].
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.feeds.values().filter_map(Sending::due).min()
    }

    /// What is to be done, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// What happened since this was last asked.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// What the receiver has proved of our shards.
    #[must_use]
    pub fn proof(&self) -> &BTreeMap<ShardId, Sequence> {
        &self.proof
    }

    /// Origins that are down for the receiver, with what it has of each: what it lacks is relayed, and runs that hold it are
    /// kept (C6, C7).
    #[must_use]
    pub fn down(&self) -> &BTreeMap<RegionId, Vector> {
        &self.down
    }

    /// Sends the records that changed since they were last sent on this stream. All global records travel: the peer keeps
    /// those that list it, and those that took it off their list tell it so.
    fn push_records(&mut self, cx: &Cx<'_>) {
        let revision = cx.records.revision();
        if self.pushed.revision.replace(revision) == Some(revision) {
            return;
        }
        let mut records = Vec::new();
        for pushed in cx.records.global() {
            let before = self.pushed.records.insert(pushed.id, pushed.notification);
            if before != Some(pushed.notification) {
                records.push(pushed.record);
            }
        }
        if !records.is_empty() {
            let message = replicate_response::Namespaces { records };
            self.outputs.push(Output::Send(replicate_response::Message::Namespaces(message)));
        }
    }

    /// Takes up and lays down relays. A feed of a stream is never told twice: one that is taken up again goes on where it was.
    fn set_down(&mut self, down: &[DownOrigin]) {
        let vectors = down.iter().map(|origin| (RegionId(origin.region), Vector::of_wire(origin)));
        let strangers = |(region, _): &(RegionId, Vector)| {
            region.0 != self.setup.info.initial_version && *region != self.setup.peer_id
        };
        self.down = vectors.filter(strangers).collect();
        for origin in self.down.keys() {
            for shard in (1..=self.setup.info.shard_count).map(ShardId) {
                let feed = Feed { shard, relay_of: Some(*origin) };
                self.feeds.entry(feed).or_insert_with(|| Sending::new(Sequence(0)));
            }
        }
    }

    fn send_entries(&mut self, now: Timestamp, feed: Feed, range: Announcement, entries: Vec<link::Entry>) {
        self.counts.entries += entries.len() as u64;
        if feed.relay_of.is_some() {
            self.counts.relayed += entries.len() as u64;
        }
        self.outputs.push(Output::Send(replicate_response::Message::Entries(Entries {
            shard: feed.shard.0,
            after: range.after.0,
            through: range.through.0,
            entries,
            sent_unix_nanos: now.0,
            relay_of: feed.relay_to_wire(),
        })));
    }

    /// Sends what was withheld of runs that are no longer held. The range of such an entry was announced long ago, maybe on
    /// another stream, where its other entries may be lost: it goes with an empty one, which claims nothing (E1).
    fn send_released(&mut self, cx: &mut Cx<'_>) {
        let range = Announcement { after: Sequence(0), through: Sequence(0) };
        let released: Vec<_> = cx.withheld.keys().filter(|run| !cx.held.contains(run)).copied().collect();
        for run in released {
            let Some(entries) = cx.withheld.get_mut(&run) else { continue };
            let waiting = entries.iter_mut().filter(|next| !next.sent);
            let (shards, waiting): (Vec<_>, Vec<_>) = waiting
                .map(|next| {
                    next.sent = true;
                    (next.feed.shard, next.entry.clone())
                })
                .unzip();
            if !self.tells_late {
                // A peer of the previous version does not say when it has them.
                cx.withheld.remove(&run);
            }
            for (shard, entry) in shards.into_iter().zip(waiting) {
                if self.tells_late {
                    self.late.entry(shard).or_default().0.push_back(run);
                }
                self.send_entries(cx.now, Feed::own(shard), range, vec![entry]);
            }
        }
    }

    /// The receiver has proved so many late entries of a shard on this stream, in the order in which they were sent.
    fn proved_late(&mut self, cx: &mut Cx<'_>, shard: ShardId, count: u64) {
        let Some((sent, before)) = self.late.get_mut(&shard) else { return };
        while *before < count
            && let Some(run) = sent.pop_front()
        {
            *before += 1;
            let Some(entries) = cx.withheld.get_mut(&run) else { continue };
            if let Some(at) = entries.iter().position(|next| next.sent && next.feed.shard == shard) {
                entries.remove(at);
            }
            if entries.is_empty() {
                cx.withheld.remove(&run);
            }
        }
    }

    /// Takes the entries of held runs out: the range is announced without them, which breaks its promise on purpose.
    fn withhold(&mut self, cx: &mut Cx<'_>, feed: Feed, selected: Vec<Selected>) -> Vec<link::Entry> {
        let mut entries = Vec::with_capacity(selected.len());
        for Selected { run, entry, .. } in selected {
            let waits = cx.withheld.get(&run.run).is_some_and(|behind| behind.iter().any(|next| !next.sent));
            if !cx.held.contains(&run.run) && !waits {
                entries.push(entry);
                continue;
            }
            let behind = cx.withheld.entry(run.run).or_default();
            if !behind.iter().any(|other| other.feed == feed && is_same(&other.entry, &entry)) {
                self.counts.withheld += 1;
                let at = Sequence(entry.sequence);
                behind.push_back(WithheldEntry { feed, run, entry, sent: false });
                if feed.relay_of.is_none() {
                    cx.withheld.note(feed.shard, at);
                }
            }
        }
        entries
    }

    /// Whether a run's namespace is shared with the receiver.
    fn travels(&self, cx: &Cx<'_>, run: &RunKey) -> bool {
        cx.records.shared_with(run.namespace, &self.setup.peer)
    }
}

/// The same entry, sent again: of one position and kind.
fn is_same(one: &link::Entry, other: &link::Entry) -> bool {
    let kind = |entry: &link::Entry| entry.entry.as_ref().map(std::mem::discriminant);
    one.sequence == other.sequence && kind(one) == kind(other)
}

#[cfg(test)]
mod tests;
