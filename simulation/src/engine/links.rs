//! Links of the simulated world: production's own ends ([`Inbox`], [`Outbox`]) with a net between them that delays, loses,
//! doubles, overtakes and breaks off. A stream ends when one of its ends says so or when its silence is noticed; then it is
//! dialled again from what is stored. Unary calls (fetch, records) are answered or fail, as over gRPC.

mod hold;
mod net;
mod proofs;
mod unary;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_core::{
    chain::ChainValue,
    ids::{Incarnation, RegionId, RunId, RunKey, Sequence, ShardId, Timestamp},
    namespace::Record,
    version_history::VersionHistory,
};
use antipode_history::api::{Applied, Operation, Refusal, Reply, Request};
use antipode_history::shard::{Down, Proof, Reach};
use antipode_persistence::{rows::PositionRow, store::RegionStore};
use antipode_proto::{
    core as wire,
    link::{
        DownOrigin, FetchRunRequest, FetchRunResponse, NamespaceViewResponse, RegionInfo, Relayed,
        replicate_request, replicate_response,
    },
};
use antipode_replicator::{
    cover::{self, Held},
    handshake,
    inbox::{self, Call, Inbox},
    outbox::{self, Outbox, Withheld},
    proof::Exceptions,
    selection::Vector,
};
use futures::FutureExt;
use prost::Message as _;

use super::{Due, Engine, Failure, script::HoldStep, seen::State, site::Asker, span::Span};
use crate::trace::{Fate, Kind, Message};

/// How long silence lasts before a stream is given up.
const PATIENCE: Span = Span::seconds(1);
/// How long until a stream that ended is dialled again.
const REDIAL: [Span; 2] = [Span::millis(50), Span::millis(300)];
/// After so long without a stream its origin counts as down (C7).
const DOWN_AFTER: Span = Span::seconds(3);

/// How often a peer is asked what it has of third regions (C6).
const ASK_EVERY: Span = Span::seconds(30);

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// Receiver to source.
    ToSource(replicate_request::Message),
    /// Source to receiver.
    ToReceiver(replicate_response::Message),
    FetchAsk {
        call: Call,
        request: FetchRunRequest,
    },
    FetchAnswer {
        call: Call,
        answer: Result<FetchRunResponse, String>,
    },
    RecordAsk {
        call: Call,
    },
    RecordAnswer {
        call: Call,
        record: Option<Box<wire::NamespaceRecord>>,
    },
    /// Nobody was heard on a stream for too long.
    Silence,
    /// Nobody could be reached for too long.
    Unreached,
}

/// A message on its way. `from` and `to` are the link's source and receiver; `sender` and `target` who sends it where.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    number: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    sender: usize,
    target: usize,
    stream: u64,
    payload: Payload,
}

/// A stream of entries from one region to another.
struct Stream {
    number: u64,
    inbox: Inbox,
    outbox: Option<Outbox>,
    opened: bool,
    doomed: bool,
    /// Something of what the receiver said was lost: nothing that follows on this connection arrives.
    mute: bool,
    wake: Option<Timestamp>,
    /// When the last message of each direction arrives: what follows does not overtake it.
    last: [Timestamp; 2],
}

/// What the previous version neither says nor hears: fields that came with relaying (C7).
fn forget_relays(message: &mut replicate_request::Message) {
    match message {
        replicate_request::Message::Open(open) => open.down.clear(),
        replicate_request::Message::Ack(ack) => {
            ack.down.clear();
            ack.down_complete = false;
            ack.relayed.clear();
        }
    }
}

/// What a peer said when it was asked what it has of third regions (C6).
struct Told {
    vectors: BTreeMap<usize, Down>,
    lacked: BTreeSet<RunKey>,
}

enum Todo {
    Inbox(inbox::Output),
    Outbox(outbox::Output),
}

/// All links.
pub(crate) struct Links {
    cut: BTreeSet<(usize, usize)>,
    streams: BTreeMap<(usize, usize), Stream>,
    dialling: BTreeSet<(usize, usize)>,
    unreached: BTreeMap<(usize, usize), Timestamp>,
    pub(crate) down: BTreeSet<(usize, usize)>,
    todo: VecDeque<(usize, usize, u64, Todo)>,
    numbers: u64,
    messages: u64,
    held: BTreeMap<usize, BTreeSet<RunId>>,
    held_workflows: BTreeMap<usize, BTreeSet<String>>,
    /// Runs of held workflows that are not held: they began before.
    let_pass: BTreeMap<usize, BTreeSet<RunId>>,
    /// Runs that were held back and may be on their way still.
    let_go: BTreeMap<usize, BTreeSet<RunId>>,
    /// Regions that give what they hold back to whoever asks for it.
    fetchable: BTreeSet<usize>,
    withheld: BTreeMap<(usize, usize), Withheld>,
    proofs: BTreeMap<(usize, usize), BTreeMap<ShardId, Sequence>>,
    exceptions: BTreeMap<(usize, usize), BTreeMap<RunKey, String>>,
    /// By who asked and who answered, on the stream between them that is open.
    told: BTreeMap<(usize, usize), Told>,
    /// Regions that are about to ask.
    pub(crate) asking: BTreeSet<usize>,
    /// What a receiver has proved of a source, as it knows in memory: what is stored lags behind.
    heard: BTreeMap<(usize, usize), BTreeMap<ShardId, Sequence>>,
    /// Where a source's log ended when the first stream opened since the receiver started, by the life of the source's store.
    ends: BTreeMap<(usize, usize), (u64, BTreeMap<ShardId, Sequence>)>,
    /// What a receiver has proved of what a source relays, by origin.
    relayed: BTreeMap<(usize, usize), BTreeMap<RegionId, BTreeMap<ShardId, Sequence>>>,
    tips: BTreeMap<(usize, usize), BTreeMap<ShardId, Sequence>>,
    settling: bool,
}

impl Links {
    pub(crate) fn new() -> Self {
        Self {
            cut: BTreeSet::new(),
            streams: BTreeMap::new(),
            dialling: BTreeSet::new(),
            unreached: BTreeMap::new(),
            down: BTreeSet::new(),
            todo: VecDeque::new(),
            numbers: 0,
            messages: 0,
            held: BTreeMap::new(),
            held_workflows: BTreeMap::new(),
            let_pass: BTreeMap::new(),
            let_go: BTreeMap::new(),
            fetchable: BTreeSet::new(),
            withheld: BTreeMap::new(),
            proofs: BTreeMap::new(),
            exceptions: BTreeMap::new(),
            told: BTreeMap::new(),
            asking: BTreeSet::new(),
            heard: BTreeMap::new(),
            ends: BTreeMap::new(),
            relayed: BTreeMap::new(),
            tips: BTreeMap::new(),
            settling: false,
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Whether that is new.
    pub(crate) fn cut(&mut self, from: usize, to: usize) -> bool {
        self.cut.insert((from, to))
    }

    /// Whether it was cut.
    pub(crate) fn heal(&mut self, from: usize, to: usize) -> bool {
        self.cut.remove(&(from, to))
    }
}

impl Engine {
    fn info(&self, site: usize) -> RegionInfo {
        let here = &self.sites[site];
        let fold = antipode_core::fold::FOLD_VERSION;
        RegionInfo {
            name: here.region.name.clone(),
            initial_version: here.region.id.0,
            increment: self.setup.increment,
            shard_count: here.shards,
            incarnation: here.region.store.identity().incarnation.0,
            fold_version_max: if here.previous { fold.saturating_sub(1) } else { fold },
            // The previous version knows only what is required.
            features: if here.previous { handshake::REQUIRED } else { handshake::FEATURES },
            clock_unix_nanos: self.local(site).0,
            ..RegionInfo::default()
        }
    }

    /// Dials every link that has no stream and may have one.
    pub(crate) fn dial_all(&mut self) -> Result<(), Failure> {
        for from in 0..self.sites.len() {
            for to in 0..self.sites.len() {
                if from != to {
                    self.dial_later(from, to);
                }
            }
        }
        self.settle_links()
    }

    fn dial_later(&mut self, from: usize, to: usize) {
        if self.links.streams.contains_key(&(from, to)) || !self.links.dialling.insert((from, to)) {
            return;
        }
        let span = self.between(REDIAL);
        self.after(span, Due::Link { from, to });
    }

    /// Starts a stream: the receiver dials and names what it has (E2).
    fn dial(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        if !self.sites[to].up {
            return Ok(());
        }
        if !self.sites[from].up || self.links.is_cut(from, to) || self.links.is_cut(to, from) {
            return self.not_reached(from, to);
        }
        let source_id = self.sites[from].region.id;
        let (incarnation, mut positions) = self.stored_positions(to, source_id);
        if self.sites[to].resend.remove(&from) {
            positions.clear();
        }
        let others = (0..self.sites.len())
            .filter(|site| *site != from && *site != to)
            .map(|site| Arc::from(self.name(site)))
            .collect();
        let setup = inbox::Setup {
            info: self.info(to),
            source: Arc::from(self.name(from)),
            source_id,
            incarnation,
            positions,
            exceptions: self.stored_exceptions(to, source_id),
            others,
            // The previous version does not say for whom others should relay.
            down: if self.sites[to].previous { Vec::new() } else { self.down_origins(to) },
        };
        let inbox = Inbox::new(setup);
        self.links.numbers += 1;
        let number = self.links.numbers;
        let open = inbox.open();
        let last = [self.now, self.now];
        let stream = Stream {
            number,
            inbox,
            outbox: None,
            opened: false,
            doomed: false,
            mute: false,
            wake: None,
            last,
        };
        self.links.streams.insert((from, to), stream);
        self.post(from, to, number, Payload::ToSource(replicate_request::Message::Open(open)));
        Ok(())
    }

    /// Nobody answers there: after a while its origin counts as down here (C7).
    fn not_reached(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        let since = *self.links.unreached.entry((from, to)).or_insert(self.now);
        if since == self.now {
            let envelope = self.envelope(from, to, 0, Payload::Unreached);
            self.after(DOWN_AFTER, Due::Arrive(Box::new(envelope)));
        }
        Ok(())
    }

    /// A message arrives.
    pub(crate) fn arrive(&mut self, envelope: Envelope) -> Result<(), Failure> {
        self.trace.hash_number(envelope.number);
        let Envelope { number, from, to, sender, target, stream, payload } = envelope;
        let met_cut = sender != target && self.links.is_cut(sender, target);
        let reached = !met_cut && self.sites[target].up;
        match payload {
            Payload::Silence => {
                if self.stream_is(from, to, stream) {
                    self.break_stream(from, to, "nothing was heard for too long")?;
                }
            }
            Payload::Unreached => {
                let waited = self.links.unreached.get(&(from, to)).map(|since| self.now.0 - since.0);
                if waited.is_some_and(|waited| waited >= DOWN_AFTER.0)
                    && !self.links.streams.contains_key(&(from, to))
                {
                    self.set_down(from, to, true)?;
                }
            }
            Payload::ToSource(_) | Payload::ToReceiver(_) if !reached => {
                self.message_ended(number, Fate::Cut);
                self.doom(from, to, stream, sender == to);
            }
            Payload::ToSource(_) | Payload::ToReceiver(_) if !self.stream_is(from, to, stream) => {
                self.message_ended(number, Fate::Stale);
            }
            Payload::ToSource(message) => {
                self.message_ended(number, Fate::Delivered);
                self.source_hears(from, to, message)?;
            }
            Payload::ToReceiver(message) => {
                self.message_ended(number, Fate::Delivered);
                self.receiver_hears(from, to, message)?;
            }
            other => {
                self.message_ended(number, if reached { Fate::Delivered } else { Fate::Cut });
                self.unary(from, to, target, stream, other, reached)?;
            }
        }
        self.settle_links()
    }

    fn stream_is(&self, from: usize, to: usize, number: u64) -> bool {
        self.links.streams.get(&(from, to)).is_some_and(|stream| stream.number == number)
    }

    fn source_hears(
        &mut self,
        from: usize,
        to: usize,
        mut message: replicate_request::Message,
    ) -> Result<(), Failure> {
        // For whom it needs others concerns retention as well, which is no part of what the previous version lacks (C6).
        let needs = matches!(&message, replicate_request::Message::Ack(ack) if !ack.down.is_empty());
        if self.sites[from].previous {
            forget_relays(&mut message);
        }
        match message {
            replicate_request::Message::Open(open) => {
                let opened_before =
                    self.links.streams.get(&(from, to)).is_some_and(|stream| stream.outbox.is_some());
                if opened_before {
                    return Ok(());
                }
                let checked =
                    open.receiver.as_ref().ok_or(handshake::Mismatch::Anonymous).and_then(|info| {
                        handshake::check(&self.sites[from].region.name, &self.members, info)
                    });
                if let Err(mismatch) = checked {
                    return self.break_stream(from, to, &mismatch.to_string());
                }
                let setup = outbox::Setup {
                    info: self.info(from),
                    peer: Arc::from(self.name(to)),
                    peer_id: self.sites[to].region.id,
                    ends: self.tips(from)?,
                };
                let linked = self.linked(from);
                let now = self.local(from);
                let held = self.links.held.get(&from).cloned().unwrap_or_default();
                let here = &self.sites[from];
                let mut cx = outbox::Cx {
                    now,
                    records: &here.table,
                    linked: &linked,
                    received: &here.received,
                    held: &held,
                    withheld: self.links.withheld.entry((from, to)).or_default(),
                };
                let outbox = Outbox::new(setup, &open, &mut cx);
                if let Some(stream) = self.links.streams.get_mut(&(from, to)) {
                    stream.outbox = Some(outbox);
                }
                self.collect(from, to);
                Ok(())
            }
            replicate_request::Message::Ack(ack) => {
                self.with_outbox(from, to, |outbox, cx| outbox.ack(cx, ack));
                if needs { self.feed_proofs(from) } else { Ok(()) }
            }
        }
    }

    fn receiver_hears(
        &mut self,
        from: usize,
        to: usize,
        message: replicate_response::Message,
    ) -> Result<(), Failure> {
        if let replicate_response::Message::Opened(opened) = &message
            && !self.links.streams.get(&(from, to)).is_some_and(|stream| stream.opened)
        {
            let info = opened.source.clone().unwrap_or_default();
            if let Err(mismatch) = handshake::check(&self.sites[to].region.name, &self.members, &info) {
                return self.break_stream(from, to, &mismatch.to_string());
            }
            if let Some(stream) = self.links.streams.get_mut(&(from, to)) {
                stream.opened = true;
            }
            let ends = opened.ends.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
            let life = info.incarnation;
            let known = self.links.ends.entry((from, to)).or_insert((life, ends));
            if known.0 != life {
                *known =
                    (life, opened.ends.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect());
            }
            self.links.unreached.remove(&(from, to));
            self.trace.line(Kind::Link, Some(to), None, || format!("hears {}", &info.name));
            self.with_inbox(from, to, |inbox, cx| inbox.opened(cx, &info));
            self.measure_clock(to, from);
            return self.set_down(from, to, false);
        }
        let mut broken = None;
        self.with_inbox(from, to, |inbox, cx| broken = inbox.message(cx, message).err());
        match broken {
            Some(broken) => {
                self.note(State::StreamBroke);
                if let inbox::Broken::Changed { .. } = broken {
                    self.note(State::Changed);
                }
                self.break_stream(from, to, &broken.to_string())
            }
            None => Ok(()),
        }
    }

    fn linked(&self, site: usize) -> BTreeSet<RegionId> {
        let others = self.sites.iter().enumerate().filter(|(other, _)| *other != site);
        others.map(|(_, other)| other.region.id).collect()
    }

    /// Gives something to the receiving end, and takes what it wants done.
    fn with_inbox(&mut self, from: usize, to: usize, give: impl FnOnce(&mut Inbox, &mut inbox::Cx<'_>)) {
        let now = self.local(to);
        let Some(stream) = self.links.streams.get_mut(&(from, to)) else { return };
        let here = &mut self.sites[to];
        let mut cx = inbox::Cx { now, records: &here.table, received: &mut here.received };
        give(&mut stream.inbox, &mut cx);
        self.collect(from, to);
    }

    fn with_outbox(&mut self, from: usize, to: usize, give: impl FnOnce(&mut Outbox, &mut outbox::Cx<'_>)) {
        let linked = self.linked(from);
        let now = self.local(from);
        let links = &mut self.links;
        let held = links.held.entry(from).or_default();
        let Some(outbox) = links.streams.get_mut(&(from, to)).and_then(|stream| stream.outbox.as_mut())
        else {
            return;
        };
        let here = &self.sites[from];
        let mut cx = outbox::Cx {
            now,
            records: &here.table,
            linked: &linked,
            received: &here.received,
            held,
            withheld: links.withheld.entry((from, to)).or_default(),
        };
        give(outbox, &mut cx);
        self.collect(from, to);
    }

    /// Puts what both ends want done behind what waits already.
    fn collect(&mut self, from: usize, to: usize) {
        let links = &mut self.links;
        let Some(stream) = links.streams.get_mut(&(from, to)) else { return };
        let number = stream.number;
        for output in stream.inbox.take_outputs() {
            links.todo.push_back((from, to, number, Todo::Inbox(output)));
        }
        if let Some(outbox) = &mut stream.outbox {
            for output in outbox.take_outputs() {
                links.todo.push_back((from, to, number, Todo::Outbox(output)));
            }
        }
        let skews = [self.sites[to].skew.0, self.sites[from].skew.0];
        let wakes = [stream.inbox.next_wake(), stream.outbox.as_ref().and_then(Outbox::next_wake)];
        let next = wakes
            .iter()
            .zip(skews)
            .filter_map(|(wake, skew)| wake.map(|at| Timestamp(at.0.saturating_sub(skew))))
            .min()
            .map(|at| at.max(self.now));
        if let Some(at) = next
            && stream.wake.is_none_or(|known| at < known)
        {
            stream.wake = Some(at);
            self.at(at, Due::Link { from, to });
        }
    }

    /// Does what the ends of streams want done, in order.
    pub(crate) fn settle_links(&mut self) -> Result<(), Failure> {
        if self.links.settling {
            return Ok(());
        }
        self.links.settling = true;
        while let Some((from, to, number, todo)) = self.links.todo.pop_front() {
            if !self.stream_is(from, to, number) {
                continue;
            }
            match todo {
                Todo::Inbox(output) => self.inbox_wants(from, to, number, output)?,
                Todo::Outbox(output) => self.outbox_wants(from, to, number, output)?,
            }
        }
        self.links.settling = false;
        Ok(())
    }

    fn inbox_wants(
        &mut self,
        from: usize,
        to: usize,
        stream: u64,
        output: inbox::Output,
    ) -> Result<(), Failure> {
        match output {
            inbox::Output::Send(mut message) => {
                if self.sites[to].previous {
                    forget_relays(&mut message);
                }
                if let replicate_request::Message::Ack(ack) = &message {
                    self.check_ack(from, to, ack);
                }
                self.post(from, to, stream, Payload::ToSource(message));
            }
            inbox::Output::Merge(records) => {
                for record in &records {
                    self.merge_record(to, record)?;
                }
            }
            inbox::Output::Apply { call, shard, entries } => {
                let now = self.local(to);
                let ticket = self.sites[to].region.apply_to(now, shard, entries);
                self.sites[to].waiting.insert(ticket, Asker::Apply { from, stream, token: call.0 });
                self.tend(to)?;
            }
            inbox::Output::Fetch { call, peer, request } => {
                let peer = self.site(&peer)?;
                self.post_between(from, to, to, peer, stream, Payload::FetchAsk { call, request });
            }
            inbox::Output::AskRecord { call, peer, .. } => {
                self.note(State::RecordOvertaken);
                let peer = self.site(&peer)?;
                self.post_between(from, to, to, peer, stream, Payload::RecordAsk { call });
            }
            inbox::Output::Quarantine(row) => {
                self.note(State::Quarantined);
                let key = row.key.clone();
                self.trace.line(Kind::Link, Some(to), Some(key.workflow.as_str()), || {
                    format!("quarantines run {}: {}", super::short(&key.run), row.reason)
                });
                let _ = self.sites[to].region.store.quarantine_put(row).now_or_never();
                self.with_inbox(from, to, |inbox, cx| inbox.quarantined(cx, &key));
            }
            inbox::Output::MarkBehind { .. } => {}
            inbox::Output::Unquarantine(key, _) => {
                self.note(State::Replayed);
                self.trace.line(Kind::Link, Some(to), Some(key.workflow.as_str()), || {
                    format!("lets run {} out of quarantine", super::short(&key.run))
                });
                let source = self.sites[from].region.id.0;
                let _ = self.sites[to].region.store.quarantine_remove(&key, source).now_or_never();
                self.with_inbox(from, to, |inbox, cx| inbox.unquarantined(cx));
            }
            inbox::Output::Proved(proved) => {
                for (feed, at) in proved {
                    if feed.relay_of.is_none() {
                        self.links.heard.entry((from, to)).or_default().insert(feed.shard, at);
                    }
                    if let Some(origin) = feed.relay_of {
                        self.note(State::Relayed);
                        let relayed = self.links.relayed.entry((from, to)).or_default();
                        relayed.entry(origin).or_default().insert(feed.shard, at);
                    }
                }
            }
            inbox::Output::StorePositions(rows) => {
                let _ = self.sites[to].region.store.position_put(rows).now_or_never();
            }
            inbox::Output::Overtaken(_, version) => self.watch.saw(to, version),
            inbox::Output::Changed(changed) => {
                self.note(State::Changed);
                let text = format!("asks again for run {}: {}", super::short(&changed.key.run), changed.why);
                self.trace.line(Kind::Link, Some(to), None, || text);
            }
        }
        Ok(())
    }

    fn outbox_wants(
        &mut self,
        from: usize,
        to: usize,
        stream: u64,
        output: outbox::Output,
    ) -> Result<(), Failure> {
        match output {
            outbox::Output::Send(message) => {
                self.post(from, to, stream, Payload::ToReceiver(message));
            }
            outbox::Output::Read { feed, after, bytes } => {
                let page = self.sites[from].region.log_page(feed.shard, after, bytes)?;
                self.hold_in_page(from, &page);
                let mut broken = None;
                self.with_outbox(from, to, |outbox, cx| broken = outbox.page(cx, feed, &page).err());
                if let Some(broken) = broken {
                    self.find("link", format!("{}: {broken}", self.name(from)));
                    return self.break_stream(from, to, &broken.to_string());
                }
            }
            outbox::Output::Proved(proved) => {
                self.links.proofs.entry((from, to)).or_default().extend(proved);
                self.hand_over_looks(from);
                self.feed_proofs(from)?;
            }
            outbox::Output::Exceptions(runs) => {
                self.links.exceptions.insert((from, to), runs);
                self.hand_over_looks(from);
                self.feed_proofs(from)?;
            }
            outbox::Output::Damaged(damaged) => self.find("link", format!("{}: {damaged}", self.name(from))),
            outbox::Output::Ahead { shard, named, end } => {
                if self.watch.restores == 0 {
                    let (a, b) = (self.name(from).to_string(), self.name(to).to_string());
                    self.find("E2", format!("{b} names {named} of {shard} of {a}, which ends at {end}"));
                }
            }
        }
        Ok(())
    }

    fn hand_over_looks(&mut self, site: usize) {
        if self.sites[site].hand_over.is_some() {
            let life = self.sites[site].region.life();
            self.after(Span(0), Due::HandOver { site, life });
        }
    }

    /// A shard answered for entries.
    pub(crate) fn entries_applied(
        &mut self,
        site: usize,
        from: usize,
        stream: u64,
        token: u64,
        applied: Vec<Applied>,
    ) -> Result<(), Failure> {
        if self.stream_is(from, site, stream) {
            self.with_inbox(from, site, |inbox, cx| inbox.applied(cx, Call(token), Ok(applied)));
        }
        self.settle_links()
    }

    /// A shard of this region has committed: its links hear of it.
    pub(crate) fn tips_moved(&mut self, site: usize) -> Result<(), Failure> {
        let tips = self.tips(site)?;
        for to in 0..self.sites.len() {
            if to == site {
                continue;
            }
            let known = self.links.tips.entry((site, to)).or_default();
            let moved: Vec<_> = tips
                .iter()
                .filter(|(shard, at)| known.get(shard) != Some(at))
                .map(|(s, a)| (*s, *a))
                .collect();
            known.clone_from(&tips);
            for (shard, at) in moved {
                self.with_outbox(site, to, |outbox, cx| outbox.tip(cx, shard, at));
            }
        }
        self.settle_links()
    }

    pub(crate) fn records_moved(&mut self, site: usize) -> Result<(), Failure> {
        let record = self.sites[site].region.record.clone();
        self.sites[site].table.put(record);
        for to in 0..self.sites.len() {
            self.with_outbox(site, to, |outbox, cx| outbox.records_changed(cx));
        }
        self.settle_links()
    }

    /// A link looks: its ends wake, or it is dialled.
    pub(crate) fn tend_link(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        if self.links.dialling.remove(&(from, to)) && !self.links.streams.contains_key(&(from, to)) {
            self.dial(from, to)?;
            return self.settle_links();
        }
        let Some(stream) = self.links.streams.get_mut(&(from, to)) else { return Ok(()) };
        if stream.wake.is_some_and(|at| at <= self.now) {
            stream.wake = None;
            self.with_inbox(from, to, |inbox, cx| inbox.wake(cx));
            self.with_outbox(from, to, |outbox, cx| outbox.wake(cx));
        }
        self.settle_links()
    }

    /// A stream ends: what was proved is stored, everything else is sent again.
    fn break_stream(&mut self, from: usize, to: usize, why: &str) -> Result<(), Failure> {
        let Some(stream) = self.links.streams.remove(&(from, to)) else { return Ok(()) };
        let (a, b) = (self.name(from).to_string(), self.name(to).to_string());
        self.trace.line(Kind::Link, Some(to), None, || format!("stream from {a} to {b} ends: {why}"));
        if self.sites[to].up {
            let _ = self.sites[to].region.store.position_put(stream.inbox.positions()).now_or_never();
        }
        self.links.tips.remove(&(from, to));
        self.links.told.remove(&(from, to));
        self.links.relayed.remove(&(from, to));
        self.dial_later(from, to);
        self.feed_proofs(from)
    }

    /// A region died: its streams die with it.
    pub(crate) fn link_ends_of(&mut self, site: usize) {
        // The log of its next life may be another one (a restore): nothing is known of it.
        self.links.tips.retain(|(from, _), _| *from != site);
        let keys: Vec<_> =
            self.links.streams.keys().filter(|(from, to)| *from == site || *to == site).copied().collect();
        for (from, to) in keys {
            if let Some(stream) = self.links.streams.remove(&(from, to)) {
                // What the other side proved of the dead region stays proved.
                if to != site {
                    let _ = self.sites[to].region.store.position_put(stream.inbox.positions()).now_or_never();
                }
            }
            self.links.tips.remove(&(from, to));
            self.links.told.remove(&(from, to));
            self.links.relayed.remove(&(from, to));
            self.dial_later(from, to);
        }
        self.links.ends.retain(|(_, to), _| *to != site);
        self.links.heard.retain(|(from, to), _| *from != site && *to != site);
        self.sites[site].fetching.clear();
        self.sites[site].received = antipode_replicator::selection::KnownStates::new(16_384);
        self.links.held.remove(&site);
        self.links.withheld.retain(|(from, _), _| *from != site);
    }

    /// Streams to a region end and begin anew: quarantined runs are tried once more.
    pub(crate) fn stream_anew(&mut self, to: usize) -> Result<(), Failure> {
        for from in 0..self.sites.len() {
            if from != to {
                self.break_stream(from, to, "quarantined runs are tried again")?;
            }
        }
        self.settle_links()
    }

    /// A region asks for everything again, once (V19).
    pub(crate) fn redeliver(&mut self, site: usize) -> Result<(), Failure> {
        self.fault("redelivery");
        for from in 0..self.sites.len() {
            if from != site {
                self.break_stream(from, site, "positions are forgotten")?;
            }
        }
        self.sites[site].resend = (0..self.sites.len()).filter(|from| *from != site).collect();
        self.watch.forget_checked(site);
        Ok(())
    }
}
