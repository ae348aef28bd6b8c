//! For tests of the pure parts: regions whose one shard knows only chains and registers, and links between them that carry
//! the messages of an inbox and an outbox one by one, so that a test can stop anywhere.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_core::{
    batch::{Batch, Envelope, Origin},
    chain::ChainValue,
    ids::{
        EventId, FailoverVersion, Incarnation, NamespaceId, Nanos, Place, RegionId, RunId, RunKey, Sequence,
        ShardId, Timestamp, WorkflowId,
    },
    namespace::{Config, Info, Record, Start},
    region::{Region as RegionName, Regions},
    version::Increment,
    version_history::{Item, VersionHistory},
};
use antipode_history::api::{Applied, Replicated};
use antipode_persistence::rows::{BatchRow, LogEntry, LogPage, QuarantineRow, RunRow};
use antipode_proto::{
    api::history::v1::HistoryEvent,
    core as wire,
    link::{self, DownOrigin, FetchRunResponse, RegionInfo, replicate_request, replicate_response},
};
use prost::Message;

use crate::{
    entry,
    inbox::{self, Inbox, Positions},
    outbox::{self, Outbox},
    proof::Exceptions,
    records::{Records, Table},
    selection::{KnownStates, Vector},
};

pub(crate) const NAMES: [&str; 3] = ["east", "west", "north"];

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::from_random([1; 16])
}

pub(crate) fn key(workflow: &str, run: u8) -> RunKey {
    RunKey {
        namespace: namespace(),
        workflow: WorkflowId::from(workflow),
        run: RunId::from_random([run; 16]),
    }
}

pub(crate) fn regions() -> Regions {
    let named = (1..).zip(NAMES).map(|(id, name)| RegionName::new(name, id));
    Regions::new(Increment::new(10).unwrap(), named).unwrap()
}

/// A record of all three regions, active in the first, at version 1.
pub(crate) fn record() -> Record {
    let start = Start {
        id: namespace(),
        name: "orders".to_string(),
        info: Info::default(),
        config: Config::default(),
        fold_version: 1,
        by: RegionId(1),
    };
    Record::new_global(start, NAMES[0], NAMES, &regions()).unwrap()
}

/// What one run holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Run {
    pub(crate) batches: Vec<Arc<Batch>>,
    pub(crate) registers: BTreeMap<(i64, i64, u32), wire::Register>,
}

impl Run {
    fn tip(&self) -> VersionHistory {
        self.batches.last().map(|batch| batch.envelope.items.clone()).unwrap_or_default()
    }

    fn chain(&self) -> ChainValue {
        self.batches.last().map_or(ChainValue::NONE, |batch| batch.chain)
    }
}

/// A region with one shard.
pub(crate) struct Region {
    pub(crate) name: Arc<str>,
    pub(crate) id: RegionId,
    pub(crate) incarnation: Incarnation,
    pub(crate) table: Table,
    pub(crate) runs: BTreeMap<RunKey, Run>,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) tip: Sequence,
    pub(crate) received: KnownStates,
    pub(crate) linked: BTreeSet<RegionId>,
    pub(crate) held: BTreeSet<RunId>,
    /// Runs whose entries are poison here.
    pub(crate) broken: BTreeSet<RunId>,
    /// Runs whose entries are refused so many times with `Retry`.
    pub(crate) retries: BTreeMap<RunId, u32>,
    pub(crate) quarantine: BTreeMap<RunKey, QuarantineRow>,
    /// Runs in the order in which their batches were applied.
    pub(crate) order: Vec<(RunId, i64)>,
    pub(crate) offered: usize,
}

impl Region {
    pub(crate) fn new(index: usize) -> Self {
        let ids = || (1..).map(RegionId).take(NAMES.len());
        let id = ids().nth(index).unwrap();
        let mut table = Table::default();
        table.put(record());
        Self {
            name: Arc::from(NAMES[index]),
            id,
            incarnation: Incarnation(u64::from(id.0) * 100),
            table,
            runs: BTreeMap::new(),
            log: Vec::new(),
            tip: Sequence(0),
            received: KnownStates::new(99),
            linked: ids().filter(|other| *other != id).collect(),
            held: BTreeSet::new(),
            broken: BTreeSet::new(),
            retries: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            order: Vec::new(),
            offered: 0,
        }
    }

    pub(crate) fn info(&self) -> RegionInfo {
        RegionInfo {
            name: self.name.to_string(),
            initial_version: self.id.0,
            increment: 10,
            shard_count: 1,
            incarnation: self.incarnation.0,
            ..RegionInfo::default()
        }
    }

    /// Writes a batch of one event under this version.
    pub(crate) fn append(&mut self, key: &RunKey, version: i64, successor: Option<RunId>) -> Arc<Batch> {
        let run = self.runs.get(key).cloned().unwrap_or_default();
        let event = EventId(run.tip().last().map_or(1, |item| item.event.0 + 1));
        let version = FailoverVersion(version);
        let sequence = self.tip.next();
        let envelope = Envelope {
            run: key.clone(),
            first_run: key.run,
            first_event: event,
            last_event: event,
            version,
            previous: run.chain(),
            items: run.tip().with(Item { event, version }).unwrap(),
            origin: Origin { region: self.id, incarnation: self.incarnation, shard: ShardId(1), sequence },
            place: Place { epoch: 1, sequence: sequence.0 },
            causal: 0,
            identities: vec![],
            successor,
            inherited: vec![],
            fold_version: 1,
        };
        let event = HistoryEvent { event_id: event.0, version: version.0, ..HistoryEvent::default() };
        let batch = Arc::new(Batch::seal(envelope, &[event]));
        self.store(Arc::clone(&batch));
        batch
    }

    fn store(&mut self, batch: Arc<Batch>) {
        self.tip = self.tip.next();
        let key = batch.envelope.run.clone();
        self.order.push((key.run, batch.envelope.first_event.0));
        self.runs.entry(key).or_default().batches.push(Arc::clone(&batch));
        self.log.push(LogEntry::Batch(BatchRow { sequence: self.tip, batch }));
    }

    /// Writes a register; the greater count wins.
    pub(crate) fn heartbeat(&mut self, key: &RunKey, count: u64) {
        let register =
            wire::Register { anchor_event_id: 1, kind: 1, order_count: count, ..wire::Register::default() };
        self.store_registers(key, vec![register]);
    }

    fn store_registers(&mut self, key: &RunKey, registers: Vec<wire::Register>) {
        self.tip = self.tip.next();
        let run = self.runs.entry(key.clone()).or_default();
        for register in registers {
            run.registers.insert((register.anchor_event_id, 0, register.kind), register);
        }
        let head =
            wire::RunHead { registers: run.registers.values().cloned().collect(), ..Default::default() };
        self.log.retain(|entry| !matches!(entry, LogEntry::Run(row) if row.key == *key));
        self.log.push(LogEntry::Run(RunRow {
            key: key.clone(),
            changed_at: self.tip,
            wake_at: None,
            head: head.encode_to_vec().into(),
        }));
    }

    pub(crate) fn page(&self, after: Sequence, count: usize) -> LogPage {
        let entries: Vec<_> =
            self.log.iter().filter(|entry| entry.sequence() > after).take(count).cloned().collect();
        let through = match entries.last() {
            Some(last) if entries.len() == count => last.sequence(),
            _ => self.tip,
        };
        LogPage { through, entries }
    }

    pub(crate) fn apply(&mut self, replicated: &Replicated) -> Applied {
        self.offered += 1;
        let key = match replicated {
            Replicated::Batch(batch) => batch.envelope.run.clone(),
            Replicated::State(state) => {
                entry::key_of(&state.namespace_id, &state.workflow_id, &state.run_id).unwrap()
            }
        };
        if let Some(left) = self.retries.get_mut(&key.run)
            && *left > 0
        {
            *left -= 1;
            return Applied::Retry("not now".to_string());
        }
        if self.broken.contains(&key.run) {
            return Applied::Poison("broken on purpose".to_string());
        }
        let run = self.runs.get(&key).cloned().unwrap_or_default();
        let need = |key: &RunKey, run: &Run, until| Applied::NeedEvents {
            key: key.clone(),
            known: run.tip(),
            until,
        };
        match replicated {
            Replicated::Batch(batch) => {
                if run.batches.iter().any(|known| known.chain == batch.chain) {
                    return Applied::Duplicate;
                }
                if batch.envelope.previous != run.chain() {
                    return need(&key, &run, Some(batch.envelope.previous));
                }
                let successor = batch.envelope.successor.map(|run| RunKey { run, ..key.clone() });
                if let Some(next) = successor
                    && !self.runs.contains_key(&next)
                {
                    return need(&next, &Run::default(), None);
                }
                self.store(Arc::clone(batch));
            }
            Replicated::State(state) => {
                if run.batches.is_empty() {
                    return need(&key, &run, None);
                }
                let is_news = |new: &wire::Register| {
                    let known = run.registers.get(&(new.anchor_event_id, 0, new.kind));
                    known.is_none_or(|known| new.order_count > known.order_count)
                };
                let news: Vec<_> = state.registers.iter().filter(|new| is_news(new)).cloned().collect();
                if news.is_empty() {
                    return Applied::Duplicate;
                }
                self.store_registers(&key, news);
            }
        }
        Applied::Applied(self.tip)
    }

    pub(crate) fn fetch(&self, request: &link::FetchRunRequest) -> FetchRunResponse {
        let key = entry::key_of(&request.namespace_id, &request.workflow_id, &request.run_id).unwrap();
        let Some(run) = self.runs.get(&key) else { return FetchRunResponse::default() };
        let after = request.known.iter().map(|item| item.event_id).max().unwrap_or_default();
        let batches = run.batches.iter().filter(|batch| batch.envelope.first_event.0 > after);
        FetchRunResponse {
            found: true,
            batches: batches.map(|batch| batch.to_wire()).collect(),
            state: Some(wire::RunState {
                namespace_id: request.namespace_id.clone(),
                workflow_id: request.workflow_id.clone(),
                run_id: request.run_id.clone(),
                registers: run.registers.values().cloned().collect(),
                ..wire::RunState::default()
            }),
        }
    }
}

/// One stream from a source to a receiver, and what survives it.
pub(crate) struct Link {
    pub(crate) source: usize,
    pub(crate) receiver: usize,
    pub(crate) ends: Option<(Outbox, Inbox)>,
    to_receiver: VecDeque<replicate_response::Message>,
    to_source: VecDeque<replicate_request::Message>,
    pub(crate) withheld: outbox::Withheld,
    pub(crate) positions: Positions,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) exceptions: Exceptions,
    /// What the source was told, as it would see it.
    pub(crate) exceptions_there: BTreeMap<RunKey, String>,
    pub(crate) down: Vec<DownOrigin>,
    pub(crate) entries_sent: usize,
    pub(crate) acks_sent: usize,
}

/// Regions, the links between them, and time.
pub(crate) struct World {
    pub(crate) regions: Vec<Region>,
    pub(crate) links: Vec<Link>,
    pub(crate) now: Timestamp,
    /// Entries of a page of the log.
    pub(crate) page: usize,
}

macro_rules! outbox_cx {
    ($world:expr, $link:expr, $region:expr) => {
        outbox::Cx {
            now: $world.now,
            records: &$region.table,
            linked: &$region.linked,
            received: &$region.received,
            held: &$region.held,
            withheld: &mut $link.withheld,
        }
    };
}

macro_rules! inbox_cx {
    ($world:expr, $region:expr) => {{
        let region: &mut Region = &mut $region;
        inbox::Cx { now: $world.now, records: &region.table, received: &mut region.received }
    }};
}

impl World {
    /// So many regions, no link open.
    pub(crate) fn new(count: usize) -> Self {
        let pairs = (0..count).flat_map(|source| (0..count).map(move |receiver| (source, receiver)));
        let links = pairs.filter(|(source, receiver)| source != receiver).map(|(source, receiver)| Link {
            source,
            receiver,
            ends: None,
            to_receiver: VecDeque::new(),
            to_source: VecDeque::new(),
            withheld: outbox::Withheld::new(),
            positions: Positions::new(),
            incarnation: None,
            exceptions: Exceptions::new(3),
            exceptions_there: BTreeMap::new(),
            down: Vec::new(),
            entries_sent: 0,
            acks_sent: 0,
        });
        Self {
            regions: (0..count).map(Region::new).collect(),
            links: links.collect(),
            now: Timestamp(1_000_000_000_000),
            page: 3,
        }
    }

    pub(crate) fn link(&mut self, source: usize, receiver: usize) -> &mut Link {
        self.links.iter_mut().find(|link| (link.source, link.receiver) == (source, receiver)).unwrap()
    }

    /// The receiver dials.
    pub(crate) fn open(&mut self, source: usize, receiver: usize) {
        let index = self.index(source, receiver);
        let (info, peer) = (self.regions[source].info(), &self.regions[receiver]);
        let others = (0..self.regions.len()).filter(|other| *other != source && *other != receiver);
        let others = others.map(|other| Arc::clone(&self.regions[other].name)).collect();
        let link = &mut self.links[index];
        let inbox = Inbox::new(inbox::Setup {
            info: peer.info(),
            source: Arc::from(info.name.as_str()),
            source_id: RegionId(info.initial_version),
            incarnation: link.incarnation,
            positions: link.positions.clone(),
            exceptions: link.exceptions.clone(),
            others,
            down: link.down.clone(),
        });
        let setup = outbox::Setup {
            info,
            peer: Arc::clone(&peer.name),
            peer_id: peer.id,
            ends: BTreeMap::from([(ShardId(1), self.regions[source].tip)]),
        };
        let region = &self.regions[source];
        let outbox = Outbox::new(setup, &inbox.open(), &mut outbox_cx!(self, link, region));
        link.ends = Some((outbox, inbox));
        self.drain(index);
    }

    /// The receiver dials, unless the stream is there.
    pub(crate) fn open_if_closed(&mut self, source: usize, receiver: usize) {
        if self.link(source, receiver).ends.is_none() {
            self.open(source, receiver);
        }
    }

    /// The stream breaks; what was under way is lost.
    pub(crate) fn close(&mut self, source: usize, receiver: usize) {
        let link = self.link(source, receiver);
        if let Some((_, inbox)) = link.ends.take() {
            link.positions = inbox.positions().into_iter().map(|row| (row.shard, row.sequence)).collect();
            link.incarnation = inbox.incarnation();
            link.exceptions = inbox.exceptions().clone();
        }
        link.to_receiver.clear();
        link.to_source.clear();
    }

    fn index(&self, source: usize, receiver: usize) -> usize {
        self.links.iter().position(|link| (link.source, link.receiver) == (source, receiver)).unwrap()
    }

    /// The receiver says on all its streams that it gets nothing from this origin, or that it does again.
    pub(crate) fn say_down(&mut self, receiver: usize, origin: usize, is_down: bool) {
        let of_origin = self.index(origin, receiver);
        let link = &self.links[of_origin];
        let region = self.regions[origin].id;
        let vector = Vector::to_wire(region, link.incarnation, &link.positions);
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if link.receiver != receiver || link.source == origin {
                continue;
            }
            link.down.retain(|down| down.region != region.0);
            if is_down {
                link.down.push(vector.clone());
            }
            let down = link.down.clone();
            if let Some((_, inbox)) = &mut link.ends {
                inbox.set_down(&mut inbox_cx!(self, self.regions[receiver]), down);
            }
            self.drain(index);
        }
    }

    /// Carries out what both ends of a link want; messages wait in their queues.
    fn drain(&mut self, index: usize) {
        loop {
            let link = &mut self.links[index];
            let Some((outbox, inbox)) = &mut link.ends else { return };
            let (out, taken) = (outbox.take_outputs(), inbox.take_outputs());
            if out.is_empty() && taken.is_empty() {
                return;
            }
            for output in out {
                let link = &mut self.links[index];
                match output {
                    outbox::Output::Send(message) => {
                        if let replicate_response::Message::Entries(entries) = &message {
                            link.entries_sent += entries.entries.len();
                        }
                        link.to_receiver.push_back(message);
                    }
                    outbox::Output::Read { feed, after, .. } => {
                        let region = &self.regions[link.source];
                        let page = region.page(after, self.page);
                        if let Some((outbox, _)) = &mut link.ends {
                            outbox.page(&mut outbox_cx!(self, link, region), feed, &page).unwrap();
                        }
                    }
                    outbox::Output::Exceptions(runs) => link.exceptions_there = runs,
                    outbox::Output::Proved(_) => {}
                    outbox::Output::Damaged(_) | outbox::Output::Ahead { .. } => panic!("{output:?}"),
                }
            }
            for output in taken {
                self.receive(index, output);
            }
        }
    }

    fn receive(&mut self, index: usize, output: inbox::Output) {
        let receiver = self.links[index].receiver;
        let source_of = |peer: &str| NAMES.iter().position(|name| *name == peer).unwrap();
        match output {
            inbox::Output::Send(message) => {
                self.links[index].acks_sent += 1;
                self.links[index].to_source.push_back(message);
            }
            inbox::Output::Merge(records) => {
                for record in records {
                    let record = Record::from_wire(&record).unwrap();
                    let table = &mut self.regions[receiver].table;
                    let merged = table.get(record.id()).map_or(record.clone(), |known| {
                        let mut merged = known.clone();
                        merged.merge(&record);
                        merged
                    });
                    table.put(merged);
                }
            }
            inbox::Output::Apply { call, entries, .. } => {
                let answers = entries.iter().map(|entry| self.regions[receiver].apply(entry)).collect();
                self.with_inbox(index, |inbox, cx| inbox.applied(cx, call, Ok(answers)));
            }
            inbox::Output::Fetch { call, peer, request } => {
                let from = source_of(&peer);
                let link = self.index(from, receiver);
                let answer = match self.links[link].ends.is_some() {
                    true => Ok(self.regions[from].fetch(&request)),
                    false => Err("cut".to_string()),
                };
                self.with_inbox(index, |inbox, cx| inbox.fetched(cx, call, answer));
            }
            inbox::Output::AskRecord { call, peer, request } => {
                let from = source_of(&peer);
                let id = request.namespace_id.parse().unwrap();
                if let Some(record) = self.regions[from].table.get(id).cloned() {
                    self.regions[receiver].table.put(record);
                }
                self.with_inbox(index, |inbox, cx| inbox.record_asked(cx, call, true));
            }
            inbox::Output::Quarantine(row) => {
                let key = row.key.clone();
                self.regions[receiver].quarantine.insert(key.clone(), row);
                self.with_inbox(index, |inbox, cx| inbox.quarantined(cx, &key));
            }
            inbox::Output::MarkBehind { key, behind } => {
                self.regions[receiver].quarantine.get_mut(&key).unwrap().behind = behind;
            }
            inbox::Output::Unquarantine(key) => {
                self.regions[receiver].quarantine.remove(&key);
                self.with_inbox(index, |inbox, cx| inbox.unquarantined(cx, &key));
            }
            inbox::Output::Proved(_) | inbox::Output::StorePositions(_) | inbox::Output::Overtaken(..) => {}
        }
    }

    pub(crate) fn with_inbox(&mut self, index: usize, act: impl FnOnce(&mut Inbox, &mut inbox::Cx<'_>)) {
        let link = &mut self.links[index];
        if let Some((_, inbox)) = &mut link.ends {
            act(inbox, &mut inbox_cx!(self, self.regions[link.receiver]));
        }
    }

    pub(crate) fn with_outbox(&mut self, index: usize, act: impl FnOnce(&mut Outbox, &mut outbox::Cx<'_>)) {
        let link = &mut self.links[index];
        if let Some((outbox, _)) = &mut link.ends {
            let region = &self.regions[link.source];
            act(outbox, &mut outbox_cx!(self, link, region));
        }
    }

    /// Delivers the oldest message of a link, to the receiver or to the source; whether there was one.
    pub(crate) fn deliver(&mut self, index: usize, to_receiver: bool) -> bool {
        let (link, regions) = (&mut self.links[index], &mut self.regions);
        let Some((outbox, inbox)) = &mut link.ends else { return false };
        if to_receiver {
            let Some(message) = link.to_receiver.pop_front() else { return false };
            let cx = &mut inbox_cx!(self, regions[link.receiver]);
            match message {
                replicate_response::Message::Opened(opened) => inbox.opened(cx, &opened.source.unwrap()),
                message => inbox.message(cx, message).unwrap(),
            }
        } else {
            let Some(message) = link.to_source.pop_front() else { return false };
            let region = &regions[link.source];
            match message {
                replicate_request::Message::Ack(ack) => outbox.ack(&mut outbox_cx!(self, link, region), ack),
                replicate_request::Message::Open(_) => panic!("a second opening"),
            }
        }
        self.drain(index);
        true
    }

    /// Tells all ends what happened meanwhile, and lets time act on them.
    pub(crate) fn tick(&mut self, millis: i64) {
        self.now = self.now.plus(Nanos::millis(millis));
        for index in 0..self.links.len() {
            let tip = self.regions[self.links[index].source].tip;
            self.with_outbox(index, |outbox, cx| {
                outbox.records_changed(cx);
                outbox.held_changed(cx);
                outbox.tip(cx, ShardId(1), tip);
                outbox.wake(cx);
            });
            self.with_inbox(index, |inbox, cx| inbox.wake(cx));
            self.drain(index);
        }
    }

    /// Delivers everything, and lets time pass, until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            self.tick(100);
            let mut any = true;
            while any {
                any = false;
                for index in 0..self.links.len() {
                    any |= self.deliver(index, true);
                    any |= self.deliver(index, false);
                }
            }
        }
    }

    pub(crate) fn runs(&self, region: usize) -> &BTreeMap<RunKey, Run> {
        &self.regions[region].runs
    }
}

/// Keeps the trait in scope for tests that look at a table.
pub(crate) fn version_of(table: &Table) -> Option<FailoverVersion> {
    table.version(namespace())
}
