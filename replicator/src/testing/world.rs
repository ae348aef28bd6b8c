//! Regions, the links between them, and time: a test delivers the messages one by one, and can stop anywhere.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use antipode_core::{
    ids::{Incarnation, Nanos, RegionId, RunKey, ShardId, Timestamp},
    namespace::Record,
};
use antipode_proto::link::{DownOrigin, replicate_request, replicate_response};

use super::region::{NAMES, Region, Run};
use crate::{
    inbox::{self, Inbox, Positions},
    outbox::{self, Outbox},
    proof::Exceptions,
    selection::Vector,
};

/// One stream from a source to a receiver, and what survives it.
pub(crate) struct Link {
    pub(crate) source: usize,
    pub(crate) receiver: usize,
    pub(crate) ends: Option<(Outbox, Inbox)>,
    pub(crate) to_receiver: VecDeque<replicate_response::Message>,
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
            inbox::Output::Unquarantine(key, _) => {
                self.regions[receiver].quarantine.remove(&key);
                self.with_inbox(index, |inbox, cx| inbox.unquarantined(cx));
            }
            inbox::Output::Proved(_) | inbox::Output::StorePositions(_) => {}
            inbox::Output::Overtaken(..) | inbox::Output::Changed(_) => {}
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
