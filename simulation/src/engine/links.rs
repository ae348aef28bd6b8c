//! Links of the simulated world: production's own ends ([`Inbox`], [`Outbox`]) with a net between them that delays, loses,
//! doubles, overtakes and breaks off. A stream ends when one of its ends says so or when its silence is noticed; then it is
//! dialled again from what is stored. Unary calls (fetch, records) are answered or fail, as over gRPC.

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
use antipode_history::shard::{Down, Proof};
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
    /// What a receiver has proved of a source, as it knows in memory: what is stored lags behind.
    heard: BTreeMap<(usize, usize), BTreeMap<ShardId, Sequence>>,
    /// What a receiver has proved of what a source relays, by origin.
    relayed: BTreeMap<(usize, usize), BTreeMap<RegionId, BTreeMap<ShardId, Sequence>>>,
    tips: BTreeMap<(usize, usize), BTreeMap<ShardId, Sequence>>,
    settling: bool,
}

impl Links {
    pub(crate) fn new(_sites: usize) -> Self {
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
            heard: BTreeMap::new(),
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
            down: self.down_origins(to),
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

    fn envelope(&mut self, from: usize, to: usize, stream: u64, payload: Payload) -> Envelope {
        self.links.messages += 1;
        let number = self.links.messages;
        Envelope { number, from, to, sender: to, target: to, stream, payload }
    }

    fn stored_positions(
        &self,
        site: usize,
        source: RegionId,
    ) -> (Option<Incarnation>, BTreeMap<ShardId, Sequence>) {
        let rows: Vec<PositionRow> = self.sites[site]
            .region
            .store
            .position_all()
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default();
        let of_source = || rows.iter().filter(|row| row.source == source.0);
        // The latest life of the source that we know of.
        let incarnation = of_source().map(|row| row.incarnation).max();
        let positions = of_source()
            .filter(|row| Some(row.incarnation) == incarnation)
            .map(|row| (row.shard, row.sequence));
        (incarnation, positions.collect())
    }

    fn stored_exceptions(&self, site: usize, source: RegionId) -> Exceptions {
        let mut exceptions = Exceptions::new(10_000);
        let rows = self.sites[site]
            .region
            .store
            .quarantine_all()
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default();
        for row in rows.iter().filter(|row| row.source == source.0) {
            // The table is never fuller than the limit under which it was filled.
            let _ = exceptions.add(&row.key, &row.reason, row.behind);
        }
        exceptions
    }

    fn down_origins(&self, site: usize) -> Vec<DownOrigin> {
        let down = self.links.down.iter().filter(|(_, to)| *to == site);
        down.map(|(from, _)| {
            let source = self.sites[*from].region.id;
            let (incarnation, positions) = self.stored_positions(site, source);
            Vector::to_wire(source, incarnation, &positions)
        })
        .collect()
    }

    /// An origin went down for a region, or came back.
    fn set_down(&mut self, from: usize, to: usize, is_down: bool) -> Result<(), Failure> {
        let changed =
            if is_down { self.links.down.insert((from, to)) } else { self.links.down.remove(&(from, to)) };
        if !changed {
            return Ok(());
        }
        let down = self.down_origins(to);
        for other in 0..self.sites.len() {
            self.with_inbox(other, to, |inbox, cx| inbox.set_down(cx, down.clone()));
        }
        Ok(())
    }

    /// Sends over a link: to its source or its receiver, by kind.
    fn post(&mut self, from: usize, to: usize, stream: u64, payload: Payload) {
        let (sender, target) = match payload {
            Payload::ToSource(_) => (to, from),
            _ => (from, to),
        };
        self.post_between(from, to, sender, target, stream, payload);
    }

    fn post_between(
        &mut self,
        from: usize,
        to: usize,
        sender: usize,
        target: usize,
        stream: u64,
        payload: Payload,
    ) {
        self.links.messages += 1;
        let number = self.links.messages;
        let net = self.setup.net.clone();
        let draw =
            |engine: &mut Self, chance: u32| chance > 0 && engine.random.number() % 1_000 < u64::from(chance);
        let streamed = matches!(payload, Payload::ToSource(_) | Payload::ToReceiver(_));
        let delay = self.between(net.delay);
        let mut at = Timestamp(self.now.0 + delay.0);
        let mut payload = payload;
        let (mut dropped, mut copied, mut overtakes) = (false, false, false);
        if streamed {
            // What a receiver says is small and whole: of its acknowledgements only the last can be missing, as on a connection
            // that dies. What a source sends is thrown about, to see that the receiver notices.
            let acks = matches!(payload, Payload::ToSource(_));
            let mute = acks && self.links.streams.get(&(from, to)).is_some_and(|stream| stream.mute);
            dropped = draw(self, net.drop) || mute;
            copied = !acks && draw(self, net.duplicate);
            overtakes = !acks && draw(self, net.reorder);
            // One sender only: the quarantine table has a row a run, so a run that two regions' entries put there is let out by
            // the first of them (a known fault: scenario quarantined_from_two_sources).
            if sender == 0 && draw(self, net.corrupt) && break_off(&mut payload) {
                self.fault("message corrupted");
                self.note(State::Corrupted);
            }
            let direction = usize::from(sender == to);
            if let Some(stream) = self.links.streams.get_mut(&(from, to))
                && !overtakes
            {
                at = at.max(stream.last[direction]);
                stream.last[direction] = at;
            }
        }
        self.record_message(number, sender, target, at, &payload, dropped, false);
        let envelope = Envelope { number, from, to, sender, target, stream, payload };
        if overtakes {
            self.fault("message overtaken");
        }
        if copied {
            self.fault("message doubled");
            let mut copy = envelope.clone();
            self.links.messages += 1;
            copy.number = self.links.messages;
            let later = self.between([Span(0), Span(net.delay[1].0 * 2)]);
            let copy_at = Timestamp(at.0 + later.0);
            self.record_message(copy.number, sender, target, copy_at, &copy.payload, false, true);
            self.at(copy_at, Due::Arrive(Box::new(copy)));
        }
        if dropped {
            self.fault("message lost");
            self.doom(from, to, stream, sender == to);
        } else {
            self.at(at, Due::Arrive(Box::new(envelope)));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one fact each, made in one place")]
    fn record_message(
        &mut self,
        id: u64,
        from: usize,
        to: usize,
        at: Timestamp,
        payload: &Payload,
        dropped: bool,
        copy: bool,
    ) {
        let (sent, arrived) = (self.trace.at(), self.trace.since_begin(at));
        let Some(recording) = &mut self.trace.recording else { return };
        let (kind, text, workflows) = describe(payload);
        let fate = if dropped { Fate::Dropped } else { Fate::Travelling };
        recording.messages.push(Message { id, from, to, kind, sent, arrived, fate, copy, workflows, text });
    }

    fn message_ended(&mut self, number: u64, fate: Fate) {
        if let Some(recording) = &mut self.trace.recording
            && let Some(message) = recording.messages.iter_mut().rev().find(|message| message.id == number)
        {
            message.fate = fate;
        }
    }

    /// A stream lost something: it notices after a while, unless it notices before.
    fn doom(&mut self, from: usize, to: usize, number: u64, mute: bool) {
        if let Some(stream) = self.links.streams.get_mut(&(from, to))
            && stream.number == number
        {
            stream.mute |= mute;
        }
        if let Some(stream) = self.links.streams.get_mut(&(from, to))
            && stream.number == number
            && !stream.doomed
        {
            stream.doomed = true;
            let envelope = self.envelope(from, to, number, Payload::Silence);
            self.after(PATIENCE, Due::Arrive(Box::new(envelope)));
        }
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
        message: replicate_request::Message,
    ) -> Result<(), Failure> {
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
                Ok(())
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
            self.links.unreached.remove(&(from, to));
            self.trace.line(Kind::Link, Some(to), None, || format!("hears {}", &info.name));
            self.with_inbox(from, to, |inbox, cx| inbox.opened(cx, &info));
            return self.set_down(from, to, false);
        }
        let mut broken = None;
        self.with_inbox(from, to, |inbox, cx| broken = inbox.message(cx, message).err());
        match broken {
            Some(broken) => {
                self.note(State::StreamBroke);
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
            inbox::Output::Send(message) => {
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
            inbox::Output::Unquarantine(key) => {
                self.note(State::Replayed);
                self.trace.line(Kind::Link, Some(to), Some(key.workflow.as_str()), || {
                    format!("lets run {} out of quarantine", super::short(&key.run))
                });
                let _ = self.sites[to].region.store.quarantine_remove(&key).now_or_never();
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
        }
        Ok(())
    }

    /// What a receiver says is proved must be there (V15, E1). Looked at when it is said, not when it arrives.
    fn check_ack(&mut self, from: usize, to: usize, ack: &replicate_request::Ack) {
        let Some(stream) = self.links.streams.get(&(from, to)) else { return };
        let mut excepted: BTreeSet<RunId> =
            stream.inbox.exceptions().iter().map(|(key, _)| key.run).collect();
        // A scenario holds these back: they were announced and wait at the source.
        excepted.extend(self.links.withheld.get(&(from, to)).into_iter().flat_map(BTreeMap::keys));
        excepted.extend(self.links.let_go.get(&from).into_iter().flatten());
        let proofs: Vec<_> = ack.proof.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
        for (shard, proof) in proofs {
            self.watch_proof(from, to, shard, proof, &excepted);
        }
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

    fn merge_record(&mut self, site: usize, record: &wire::NamespaceRecord) -> Result<(), Failure> {
        match Record::from_wire(record) {
            Ok(theirs) => {
                let mut merged = self.sites[site].region.record.clone();
                if merged.merge(&theirs) { self.set_record(site, merged) } else { Ok(()) }
            }
            Err(malformed) => {
                self.find("link", format!("a record does not decode: {malformed}"));
                Ok(())
            }
        }
    }

    /// Fetches and records: asked, answered, or failed.
    fn unary(
        &mut self,
        from: usize,
        to: usize,
        target: usize,
        stream: u64,
        payload: Payload,
        reached: bool,
    ) -> Result<(), Failure> {
        let why = || "the region was not reached".to_string();
        match payload {
            Payload::FetchAsk { call, request } if reached => {
                self.answer_fetch(from, to, target, stream, call, &request)
            }
            Payload::FetchAsk { call, .. } => {
                let answer = Payload::FetchAnswer { call, answer: Err(why()) };
                self.post_between(from, to, to, to, stream, answer);
                Ok(())
            }
            Payload::FetchAnswer { call, answer } => {
                let answer = if reached { answer } else { Err(why()) };
                if self.stream_is(from, to, stream) {
                    self.with_inbox(from, to, |inbox, cx| inbox.fetched(cx, call, answer));
                }
                Ok(())
            }
            Payload::RecordAsk { call } => {
                let record = reached.then(|| Box::new(self.sites[target].region.record.to_wire()));
                // An answer that nobody gave comes from nowhere.
                let sender = if reached { target } else { to };
                self.post_between(from, to, sender, to, stream, Payload::RecordAnswer { call, record });
                Ok(())
            }
            Payload::RecordAnswer { call, record } => {
                let record = record.filter(|_| reached);
                if let Some(record) = &record {
                    self.merge_record(to, record)?;
                }
                if self.stream_is(from, to, stream) {
                    self.with_inbox(from, to, |inbox, cx| inbox.record_asked(cx, call, record.is_some()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answer_fetch(
        &mut self,
        from: usize,
        to: usize,
        peer: usize,
        stream: u64,
        call: Call,
        request: &FetchRunRequest,
    ) -> Result<(), Failure> {
        let key =
            antipode_replicator::entry::key_of(&request.namespace_id, &request.workflow_id, &request.run_id);
        let known = VersionHistory::from_wire(&request.known).ok();
        let until = ChainValue::from_bytes(&request.until_chain);
        let (Some(key), Some(known)) = (key, known) else {
            self.find("link", format!("a fetch is malformed: {request:?}"));
            return Ok(());
        };
        let held = self.links.held.get(&peer).is_some_and(|held| held.contains(&key.run));
        if held && !self.links.fetchable.contains(&peer) {
            let answer = Payload::FetchAnswer { call, answer: Err("the run is held back".to_string()) };
            self.post_between(from, to, peer, to, stream, answer);
            return Ok(());
        }
        let until = until.filter(|until| *until != ChainValue::NONE);
        let fetch = Request {
            workflow: key.workflow_key(),
            run: Some(key.run),
            operation: Operation::Fetch { known, until },
        };
        let now = self.local(peer);
        let ticket = self.sites[peer].region.request(now, fetch);
        self.links.numbers += 1;
        let token = self.links.numbers;
        self.sites[peer].fetching.insert(token, (from, to, stream, call));
        self.sites[peer].waiting.insert(ticket, Asker::Fetch { token });
        self.tend(peer)
    }

    /// A shard answered a fetch.
    pub(crate) fn fetched(
        &mut self,
        peer: usize,
        token: u64,
        answer: Result<Reply, Refusal>,
    ) -> Result<(), Failure> {
        let Some((from, to, stream, call)) = self.sites[peer].fetching.remove(&token) else { return Ok(()) };
        let answer = match answer {
            Ok(Reply::Fetched { batches, state }) => Ok(FetchRunResponse {
                found: true,
                batches: batches.iter().map(|batch| batch.to_wire()).collect(),
                state: Some(*state),
            }),
            Err(Refusal::NotFound(_)) => Ok(FetchRunResponse::default()),
            Ok(_) => Err("the shard answered with something else".to_string()),
            Err(refusal) => Err(refusal.to_string()),
        };
        self.post_between(from, to, peer, to, stream, Payload::FetchAnswer { call, answer });
        Ok(())
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
        // B8: of a hole before a batch the end is known, of a successor nothing is.
        let successors = applied.iter().filter(|one| matches!(one, Applied::NeedEvents { until: None, .. }));
        for _ in 0..successors.count() {
            self.note(State::SuccessorFirst);
        }
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

    /// What each shard of a region has committed.
    pub(crate) fn tips(&self, site: usize) -> Result<BTreeMap<ShardId, Sequence>, Failure> {
        Ok(self.sites[site].region.ends()?.into_iter().collect())
    }

    pub(crate) fn records_moved(&mut self, site: usize) -> Result<(), Failure> {
        let record = self.sites[site].region.record.clone();
        self.sites[site].table.put(record);
        for to in 0..self.sites.len() {
            self.with_outbox(site, to, |outbox, cx| outbox.records_changed(cx));
        }
        self.settle_links()
    }

    pub(crate) fn want(
        &mut self,
        site: usize,
        target: usize,
        positions: &BTreeMap<ShardId, Sequence>,
    ) -> Result<(), Failure> {
        self.with_outbox(site, target, |outbox, cx| outbox.want(cx, positions));
        self.settle_links()
    }

    /// Has the target proved these positions of the source?
    pub(crate) fn proved(&self, from: usize, to: usize, positions: &BTreeMap<ShardId, Sequence>) -> bool {
        let proofs = self.links.proofs.get(&(from, to));
        positions.iter().all(|(shard, at)| {
            at.0 == 0 || proofs.and_then(|proofs| proofs.get(shard)).is_some_and(|proof| proof >= at)
        })
    }

    /// Has the target what third regions wrote and the source has (V18)? And is nothing quarantined there (E1)?
    pub(crate) fn covers_others(
        &self,
        site: usize,
        target: usize,
        barriers: &BTreeMap<ShardId, Sequence>,
    ) -> bool {
        let others = || (0..self.sites.len()).filter(|other| *other != site && *other != target);
        let held = |at: usize, origin: usize| {
            let id = self.sites[origin].region.id;
            let (incarnation, mut proved) = self.stored_positions(at, id);
            for (shard, heard) in self.links.heard.get(&(origin, at)).into_iter().flatten() {
                let known = proved.entry(*shard).or_default();
                *known = (*known).max(*heard);
            }
            (id, Held { incarnation, proved })
        };
        let ours: BTreeMap<RegionId, Held> = others().map(|origin| held(site, origin)).collect();
        let relayed =
            self.links.relayed.get(&(site, target)).into_iter().flatten().flat_map(|(origin, positions)| {
                positions.iter().map(|(shard, at)| Relayed {
                    origin: origin.0,
                    shard: shard.0,
                    flow: at.0,
                    proof: at.0,
                })
            });
        let view = NamespaceViewResponse {
            proved: others()
                .map(|origin| held(target, origin))
                .map(|(id, held)| Vector::to_wire(id, held.incarnation, &held.proved))
                .collect(),
            relayed: relayed.collect(),
            ..NamespaceViewResponse::default()
        };
        cover::lacking(&view, &ours, barriers).is_empty() && self.quarantined(target) == 0
    }

    /// A region came back in another life: nothing of its log is proved.
    pub(crate) fn forget_proofs(&mut self, from: usize) {
        self.links.proofs.retain(|(source, _), _| *source != from);
    }

    pub(crate) fn has_exceptions(&self, from: usize, to: usize) -> bool {
        self.links.exceptions.get(&(from, to)).is_some_and(|runs| !runs.is_empty())
    }

    /// Tells the shards of a region what every peer has proved of them (C6).
    pub(crate) fn feed_proofs(&mut self, site: usize) -> Result<(), Failure> {
        if !self.sites[site].up {
            return Ok(());
        }
        let now = self.local(site);
        for to in (0..self.sites.len()).filter(|to| *to != site) {
            let proofs = self.links.proofs.get(&(site, to)).cloned().unwrap_or_default();
            let excepted = self.links.exceptions.get(&(site, to)).cloned().unwrap_or_default();
            let down = self.links.down.iter().filter(|(_, at)| *at == to).map(|(origin, _)| {
                let origin = self.sites[*origin].region.id;
                let (incarnation, proved) = self.stored_positions(to, origin);
                (origin, Down { incarnation: incarnation.unwrap_or_default(), proved })
            });
            let down: BTreeMap<_, _> = down.collect();
            let peer = self.name(to).to_string();
            for shard in (1..=self.sites[site].shards).map(ShardId) {
                let through = proofs.get(&shard).copied().unwrap_or_default();
                let exceptions = excepted.keys().cloned().collect();
                let proof = Proof { through, exceptions, down: down.clone() };
                self.sites[site].region.proof(now, shard, &peer, proof);
            }
        }
        self.tend(site)
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
        self.links.relayed.remove(&(from, to));
        self.dial_later(from, to);
        Ok(())
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
            self.links.relayed.remove(&(from, to));
            self.dial_later(from, to);
        }
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

    /// Entries of a workflow are held back, or let go.
    pub(crate) fn hold(&mut self, step: &HoldStep) -> Result<(), Failure> {
        let from = self.site(&step.from)?;
        let run = if step.run_of.is_empty() { None } else { Some(self.run_of(&step.run_of)?) };
        if step.fetchable {
            self.links.fetchable.insert(from);
        } else {
            self.links.fetchable.remove(&from);
        }
        let held = self.links.held.entry(from).or_default();
        if step.release {
            self.links.let_go.entry(from).or_default().extend(held.iter());
            match run {
                Some(run) => drop(held.remove(&run)),
                None => held.clear(),
            }
            if let Some(workflows) = self.links.held_workflows.get_mut(&from) {
                workflows.clear();
            }
        } else {
            match run {
                Some(run) => drop(held.insert(run)),
                None => {
                    let known = self.watch.runs_of(&step.workflow);
                    if step.later {
                        self.links.let_pass.entry(from).or_default().extend(known);
                    } else {
                        held.extend(known);
                    }
                    self.links.held_workflows.entry(from).or_default().insert(step.workflow.clone());
                }
            }
        }
        for to in 0..self.sites.len() {
            self.with_outbox(from, to, |outbox, cx| outbox.held_changed(cx));
        }
        self.settle_links()
    }

    /// Later runs of a held workflow are held as well.
    fn hold_in_page(&mut self, from: usize, page: &antipode_persistence::rows::LogPage) {
        let Some(workflows) = self.links.held_workflows.get(&from) else { return };
        let mut runs = Vec::new();
        for entry in &page.entries {
            if let antipode_persistence::rows::LogEntry::Batch(row) = entry {
                let key = &row.batch.envelope.run;
                let passes = self.links.let_pass.get(&from).is_some_and(|runs| runs.contains(&key.run));
                if workflows.contains(key.workflow.as_str()) && !passes {
                    runs.push(key.run);
                }
            }
        }
        self.links.held.entry(from).or_default().extend(runs);
    }

    /// Lets everything go that is held back anywhere.
    pub(crate) fn release_all(&mut self) -> Result<(), Failure> {
        self.links.held_workflows.clear();
        for from in 0..self.sites.len() {
            let held = self.links.held.insert(from, BTreeSet::new());
            self.links.let_go.entry(from).or_default().extend(held.into_iter().flatten());
            for to in 0..self.sites.len() {
                self.with_outbox(from, to, |outbox, cx| outbox.held_changed(cx));
            }
        }
        self.settle_links()
    }

    /// Everything that a live region has for a live one was sent and proved, and nothing is on its way.
    /// Else: what a link still has to do.
    pub(crate) fn links_unrest(&self) -> Result<Option<String>, Failure> {
        for from in 0..self.sites.len() {
            let tips = self.tips(from)?;
            for to in 0..self.sites.len() {
                if from == to || !self.sites[from].up || !self.sites[to].up {
                    continue;
                }
                if self.links.is_cut(from, to) || self.links.is_cut(to, from) {
                    continue;
                }
                if let Some(why) = self.link_unrest(from, to, &tips) {
                    return Ok(Some(format!("{} to {}: {why}", self.name(from), self.name(to))));
                }
            }
        }
        Ok(None)
    }

    fn link_unrest(&self, from: usize, to: usize, tips: &BTreeMap<ShardId, Sequence>) -> Option<String> {
        let Some(stream) = self.links.streams.get(&(from, to)) else { return Some("no stream".to_string()) };
        let Some(outbox) = stream.outbox.as_ref().filter(|_| stream.opened) else {
            return Some("its stream is not open".to_string());
        };
        if stream.doomed {
            return Some("its stream lost something".to_string());
        }
        tips.iter().find_map(|(shard, tip)| {
            let proof = outbox.proof().get(shard).copied().unwrap_or_default();
            (proof < *tip).then(|| format!("{shard} is at {tip} and proved through {proof}"))
        })
    }
}

/// Breaks off the events of a batch that travels: they do not decode. False: there is none in it.
fn break_off(payload: &mut Payload) -> bool {
    let Payload::ToReceiver(replicate_response::Message::Entries(entries)) = payload else { return false };
    for entry in &mut entries.entries {
        if let Some(antipode_proto::link::entry::Entry::Batch(batch)) = &mut entry.entry
            && !batch.events.is_empty()
        {
            batch.events.truncate(batch.events.len() - 1);
            return true;
        }
    }
    false
}

/// Kind, words and workflow ids of a message.
fn describe(payload: &Payload) -> (&'static str, String, Vec<String>) {
    match payload {
        Payload::ToSource(replicate_request::Message::Open(open)) => {
            ("open", format!("open from {} positions", open.positions.len()), Vec::new())
        }
        Payload::ToSource(replicate_request::Message::Ack(ack)) => {
            let proof: Vec<_> = ack.proof.iter().map(|at| format!("{}:{}", at.shard, at.sequence)).collect();
            ("ack", format!("proved {}", proof.join(" ")), Vec::new())
        }
        Payload::ToReceiver(replicate_response::Message::Opened(_)) => {
            ("opened", "opened".to_string(), Vec::new())
        }
        Payload::ToReceiver(replicate_response::Message::Namespaces(records)) => {
            let words: Vec<_> = records
                .records
                .iter()
                .filter_map(|record| Record::from_wire(record).ok())
                .map(|record| {
                    format!(
                        "{} version {} {} in {}",
                        record.name(),
                        record.version(),
                        super::failovers::phase_name(record.phase()),
                        record.active()
                    )
                })
                .collect();
            ("records", words.join("; "), Vec::new())
        }
        Payload::ToReceiver(replicate_response::Message::Entries(entries)) => describe_entries(entries),
        Payload::FetchAsk { request, .. } => {
            ("fetch", format!("fetch run {}", request.run_id), vec![request.workflow_id.clone()])
        }
        Payload::FetchAnswer { answer, .. } => match answer {
            Ok(found) => ("fetched", format!("{} batches", found.batches.len()), Vec::new()),
            Err(why) => ("fetched", why.clone(), Vec::new()),
        },
        Payload::RecordAsk { .. } => ("ask-record", "asks for the record".to_string(), Vec::new()),
        Payload::RecordAnswer { .. } => ("record", "the record".to_string(), Vec::new()),
        Payload::Silence | Payload::Unreached => ("silence", String::new(), Vec::new()),
    }
}

fn describe_entries(entries: &replicate_response::Entries) -> (&'static str, String, Vec<String>) {
    use antipode_proto::link::entry::Entry;
    let mut workflows = BTreeSet::new();
    let mut words = Vec::new();
    for entry in &entries.entries {
        match &entry.entry {
            Some(Entry::Batch(batch)) => {
                if let Ok(envelope) = wire::BatchEnvelope::decode(&*batch.envelope) {
                    words.push(format!("{} events from {}", envelope.workflow_id, envelope.first_event_id));
                    workflows.insert(envelope.workflow_id);
                }
            }
            Some(Entry::State(state)) => {
                words.push(format!("state of {}", state.workflow_id));
                workflows.insert(state.workflow_id.clone());
            }
            None => {}
        }
    }
    let range = format!("shard {} ({}, {}]", entries.shard, entries.after, entries.through);
    let text = if words.is_empty() { range } else { format!("{range}: {}", words.join(", ")) };
    ("entries", text, workflows.into_iter().collect())
}
