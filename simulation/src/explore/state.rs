//! A state of the exploration: the regions with their stores and shards, what is on its way between them, how far each actor
//! is, and what clients were told. Parts are shared between states and copied when they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_core::ids::{FailoverVersion, RunId, RunKey, Sequence, Timestamp};
use antipode_history::api::Replicated;
use antipode_replicator::selection::StateHash;

use super::{
    canon::{Name, Names, Sink, Snap},
    program::{At, Program},
};
use crate::{
    region::{Region, Ticket},
    worker::Held,
};

/// One region.
#[derive(Clone)]
pub struct Node {
    /// The region.
    pub region: Region,
    /// Last states of runs that came from peers: they are not sent on.
    pub received: BTreeMap<RunId, StateHash>,
    /// Who waits for an answer that is not durable yet, and whether it could be written when it was asked.
    pub waiting: Vec<Waiting>,
    /// What is stored now.
    pub snap: Arc<Snap>,
}

/// A call that was not answered yet.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its answer appears under this.
    pub ticket: Ticket,
    /// Who asked.
    pub actor: usize,
    /// Whether the region was to write then.
    pub writable: bool,
}

/// An entry on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Position in the sender's log.
    pub sequence: Sequence,
    /// Run.
    pub run: RunKey,
    /// Version that the receiver's namespace record must have reached.
    pub version: Option<FailoverVersion>,
    /// What is sent.
    pub item: Replicated,
}

/// One direction between two regions.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The sender has read its log up to here.
    pub read: Sequence,
    /// Sent and not delivered.
    pub queue: Vec<Flight>,
    /// Delivered.
    pub done: Vec<Flight>,
    /// Last states sent.
    pub sent: BTreeMap<RunId, StateHash>,
    /// What the sender would send if it read its log now, where reading is a step of its own.
    pub unread: Option<Unread>,
    /// Its name.
    pub name: Name,
}

/// Part of a log that was not read for a link.
#[derive(Clone, Debug)]
pub struct Unread {
    /// Entries for the receiver.
    pub flights: Vec<Flight>,
    /// Where the part ends.
    pub through: Sequence,
    /// Last states sent, once it is read.
    pub sent: BTreeMap<RunId, StateHash>,
}

impl Link {
    /// The receiver has everything up to here (E2).
    #[must_use]
    pub fn position(&self) -> Sequence {
        let first = self.queue.iter().map(|flight| flight.sequence).min();
        first.map_or(self.read, |first| Sequence(first.0.saturating_sub(1)))
    }

    /// Entries that may be delivered next: the first of each run, or of each workflow id.
    #[must_use]
    pub fn heads(&self, overtake: bool) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let mut heads = Vec::new();
        for (slot, flight) in self.queue.iter().enumerate() {
            let run = overtake.then_some(flight.run.run);
            if seen.insert((flight.run.workflow.clone(), run)) {
                heads.push(slot);
            }
        }
        heads
    }

    /// Gives it its name. `resend`: what was delivered out of order may be sent again after a crash.
    pub fn rename(&mut self, names: &Names, resend: bool) {
        let mut sink = Sink::new("link");
        for flight in &self.queue {
            names.entry(&mut sink, &flight.item);
        }
        if let Some(unread) = &self.unread {
            sink.num(-2);
            for flight in &unread.flights {
                names.entry(&mut sink, &flight.item);
            }
        }
        if resend {
            let position = self.position();
            sink.num(-1);
            for flight in self.done.iter().filter(|flight| flight.sequence > position) {
                names.entry(&mut sink, &flight.item);
            }
        }
        self.name = sink.name();
    }
}

/// How far an actor is.
#[derive(Clone, Debug, Default)]
pub struct Hand {
    /// Its next action.
    pub next: usize,
    /// It waits for an answer.
    pub waits: bool,
    /// Task in its hand.
    pub held: Option<Arc<Held>>,
    /// Barrier that it was told.
    pub barrier: Option<Sequence>,
}

/// What a client was told is saved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// An external event: workflow id, kind, request id.
    Event(&'static str, i32, &'static str),
    /// A run was started: workflow id, run.
    Started(&'static str, RunId),
    /// A run was terminated: workflow id, run.
    Terminated(&'static str, RunId),
}

/// One state.
#[derive(Clone)]
pub struct State {
    /// Virtual time.
    pub now: Timestamp,
    /// Regions.
    pub nodes: Vec<Arc<Node>>,
    /// Links, sender by sender.
    pub links: Vec<Arc<Link>>,
    /// Actors.
    pub hands: Vec<Hand>,
    /// What clients were told.
    pub told: Arc<BTreeSet<Told>>,
    /// Crashes that may still happen, in the order of the program's list.
    pub crashes: Vec<u8>,
}

impl State {
    /// Index of a link.
    #[must_use]
    pub fn link_index(&self, from: At, to: At) -> usize {
        from * self.nodes.len() + to
    }

    /// A link.
    #[must_use]
    pub fn link(&self, from: At, to: At) -> &Link {
        &self.links[self.link_index(from, to)]
    }

    /// A link, to change it.
    pub fn link_mut(&mut self, from: At, to: At) -> &mut Link {
        let index = self.link_index(from, to);
        Arc::make_mut(&mut self.links[index])
    }

    /// A region, to change it.
    pub fn node_mut(&mut self, at: At) -> &mut Node {
        Arc::make_mut(&mut self.nodes[at])
    }

    /// Pairs of different regions.
    #[must_use]
    pub fn pairs(&self) -> Vec<(At, At)> {
        let count = self.nodes.len();
        let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to).collect()
    }

    /// Name of the state: the same for states that differ only by a symmetry of the program.
    #[must_use]
    pub fn name(&self, program: &Program, names: &Names) -> Name {
        let straight: Vec<At> = (0..self.nodes.len()).collect();
        let mut least = self.name_as(names, &straight);
        for (a, b) in program.symmetric {
            let mut swapped = straight.clone();
            swapped.swap(*a, *b);
            least = least.min(self.name_as(names, &swapped));
        }
        least
    }

    fn name_as(&self, names: &Names, order: &[At]) -> Name {
        let mut sink = Sink::new("state");
        sink.num(self.now.0);
        for at in order {
            sink.put(&self.nodes[*at].snap.block);
        }
        for from in order {
            for to in order {
                sink.put(&self.link(*from, *to).name);
            }
        }
        for hand in &self.hands {
            sink.num(i64::try_from(hand.next).unwrap_or(-1));
            sink.flag(hand.waits);
            if let Some(held) = &hand.held {
                names.held(&mut sink, held);
            }
            sink.flag(hand.barrier.is_some());
        }
        for told in self.told.iter() {
            match told {
                Told::Event(workflow, kind, request) => {
                    sink.put(workflow.as_bytes());
                    sink.num(i64::from(*kind));
                    sink.put(request.as_bytes());
                }
                Told::Started(_, run) | Told::Terminated(_, run) => sink.put(&names.run(*run)),
            }
        }
        for left in &self.crashes {
            sink.num(i64::from(*left));
        }
        sink.name()
    }
}
