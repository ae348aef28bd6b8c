//! One region: shards over a store in memory. Commits are carried out when the scheduler says so, so that shards compute
//! on state that is not durable yet (D1), and crash with it (D2).

use std::collections::{BTreeMap, VecDeque};

use antipode_core::{
    ids::{Incarnation, RegionId, RunId, Sequence, ShardId, Timestamp, WorkflowKey},
    namespace::{Record, Standing},
};
use antipode_history::{
    api::{Applied, Offer, Refusal, Replicated, Reply, Request, Taken, TaskKind},
    shard::{BACKLOG_PAGE, Event, Load, Loaded, NamespaceView, Output, Setting, Shard, Token},
};
use antipode_persistence::{
    memory::MemoryStore,
    rows::{Group, Identity, LogPage},
    store::{IndexStore, RunStore, ShardStore},
};
use futures::FutureExt;

/// A token of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Token for Ticket {}

/// The world itself is broken: not a finding about the code under test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store in memory did not answer at once, or refused a read.
    #[error("store: {0}")]
    Store(String),
    /// A shard reported a broken law.
    #[error("{region}: {why}")]
    Broken {
        /// Region.
        region: String,
        /// The shard's words.
        why: String,
    },
}

/// One region.
pub struct Region {
    /// Name.
    pub name: String,
    /// Number.
    pub id: RegionId,
    /// Its store: survives crashes.
    pub store: MemoryStore,
    /// Its view of the one namespace.
    pub record: Record,
    /// Tasks offered to matching and not handed out.
    pub offers: VecDeque<Offer>,
    /// Answers by ticket.
    pub answers: BTreeMap<Ticket, Result<Reply, Refusal>>,
    /// Answers of apply calls.
    pub applied: BTreeMap<Ticket, Vec<Applied>>,
    /// Discarded tasks by kind and reason.
    pub discards: BTreeMap<(TaskKind, &'static str), u64>,
    /// Counted events.
    pub events: BTreeMap<Event, u64>,
    /// Own position in each source's shards (E2).
    pub positions: BTreeMap<(String, ShardId), Sequence>,
    /// What shards said was broken.
    pub broken: Vec<String>,
    shards: Vec<Shard<Ticket>>,
    commits: BTreeMap<ShardId, Group>,
    tickets: u64,
    lives: u64,
}

fn ready<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    future.now_or_never().ok_or_else(|| Error::Store("a store in memory waits".to_string()))
}

impl Region {
    /// A region that starts for the first time.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(name: &str, id: u32, shards: u32, record: Record, now: Timestamp) -> Result<Self, Error> {
        let identity = Identity {
            region: name.to_string(),
            initial: id,
            increment: 10,
            shards,
            cluster_id: name.to_string(),
            incarnation: Incarnation(u64::from(id)),
        };
        let mut region = Self {
            name: name.to_string(),
            id: RegionId(id),
            store: MemoryStore::new(identity),
            record,
            offers: VecDeque::new(),
            answers: BTreeMap::new(),
            applied: BTreeMap::new(),
            discards: BTreeMap::new(),
            events: BTreeMap::new(),
            positions: BTreeMap::new(),
            broken: Vec::new(),
            shards: Vec::new(),
            commits: BTreeMap::new(),
            tickets: 0,
            lives: 0,
        };
        region.restart(shards, now)?;
        Ok(region)
    }

    /// Loses everything that is not in the store, and starts again.
    ///
    /// # Errors
    /// [`Error`].
    pub fn crash(&mut self, now: Timestamp) -> Result<(), Error> {
        let shards = u32::try_from(self.shards.len()).unwrap_or(1);
        self.restart(shards, now)
    }

    fn restart(&mut self, shards: u32, now: Timestamp) -> Result<(), Error> {
        self.lives += 1;
        self.shards.clear();
        self.commits.clear();
        self.offers.clear();
        for shard in 1..=shards {
            let acquired = ready(self.store.shard_acquire(ShardId(shard), &self.name))?
                .map_err(|error| Error::Store(error.to_string()))?;
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&self.lives.to_le_bytes());
            seed[8..12].copy_from_slice(&self.id.0.to_le_bytes());
            seed[12..16].copy_from_slice(&shard.to_le_bytes());
            let setting = Setting {
                shard: ShardId(shard),
                region: self.id,
                region_name: self.name.clone(),
                incarnation: Incarnation(u64::from(self.id.0)),
                cache_bytes: 1 << 20,
                seed,
            };
            self.shards.push(Shard::new(setting, acquired, vec![self.view()], now));
        }
        Ok(())
    }

    fn view(&self) -> NamespaceView {
        let standing = self.record.standing(&self.name);
        NamespaceView {
            id: self.record.id(),
            name: self.record.name().to_string(),
            writable: self.record.writable(&self.name),
            version: self.record.version(),
            draining: matches!(standing, Standing::HandingOver { .. } | Standing::MayActivate { .. }),
            active: self.record.active().to_string(),
        }
    }

    /// Takes a record into use in every shard (D6).
    pub fn set_record(&mut self, record: Record, now: Timestamp) {
        self.record = record;
        let view = self.view();
        for shard in &mut self.shards {
            shard.namespace(view.clone(), now);
        }
    }

    /// The shard of a workflow id: any stable choice will do here.
    #[must_use]
    pub fn shard_of(&self, key: &WorkflowKey) -> usize {
        let sum: usize = key.workflow.as_str().bytes().map(usize::from).sum();
        sum % self.shards.len().max(1)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Sends a request; the answer appears under the ticket once it is durable.
    pub fn request(&mut self, now: Timestamp, request: Request) -> Ticket {
        let ticket = self.ticket();
        let shard = self.shard_of(&request.workflow);
        self.shards[shard].request(now, ticket, request);
        ticket
    }

    /// Sends replicated entries of one workflow id.
    pub fn apply(&mut self, now: Timestamp, key: &WorkflowKey, entries: Vec<Replicated>) -> Ticket {
        let ticket = self.ticket();
        let shard = self.shard_of(key);
        self.shards[shard].apply(now, ticket, entries);
        ticket
    }

    /// Lets time act.
    pub fn tick(&mut self, now: Timestamp) {
        for shard in &mut self.shards {
            shard.tick(now);
        }
    }

    /// Earliest wake-up of any shard.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.shards.iter().map(Shard::wake_at).min()
    }

    /// Carries out reads and offers; commits wait for [`Region::commit_one`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn pump(&mut self, now: Timestamp) -> Result<(), Error> {
        for index in 0..self.shards.len() {
            loop {
                self.shards[index].flush();
                let outputs = self.shards[index].take_outputs();
                if outputs.is_empty() {
                    break;
                }
                for output in outputs {
                    self.carry_out(index, now, output)?;
                }
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, index: usize, now: Timestamp, output: Output<Ticket>) -> Result<(), Error> {
        let shard = ShardId(u32::try_from(index).unwrap_or(0) + 1);
        match output {
            Output::Load(load) => {
                let loaded = self.read(shard, &load)?;
                self.shards[index].loaded(now, &load, loaded);
            }
            Output::Commit(group) => {
                self.commits.insert(shard, group);
            }
            Output::Answer(ticket, answer) => {
                self.answers.insert(ticket, answer);
            }
            Output::Applied(ticket, applied) => {
                self.applied.insert(ticket, applied);
            }
            Output::Barrier(ticket, _) => {
                self.answers.insert(ticket, Ok(Reply::Done));
            }
            Output::Offer(offer) => {
                let known = |other: &Offer| {
                    other.key == offer.key && other.kind == offer.kind && other.task == offer.task
                };
                if !self.offers.iter().any(known) {
                    self.offers.push_back(offer.clone());
                }
                self.shards[index].offered(now, &offer, Taken::Yes);
            }
            Output::Discarded { kind, reason } => *self.discards.entry((kind, reason)).or_default() += 1,
            Output::Count(event) => *self.events.entry(event).or_default() += 1,
            Output::Broken(why) => self.broken.push(why),
        }
        Ok(())
    }

    fn read(&self, shard: ShardId, load: &Load) -> Result<Loaded, Error> {
        let store = &self.store;
        let loaded = match load {
            Load::Workflow(key) => {
                let current = ready(store.current_load(shard, key))?
                    .map_err(|error| Error::Store(error.to_string()))?;
                let run: Option<RunId> = current.as_ref().and_then(|row| row.record.run_id.parse().ok());
                let stored = match run {
                    Some(run) => ready(store.run_load(shard, &key.run(run)))?
                        .map_err(|error| Error::Store(error.to_string()))?,
                    None => None,
                };
                Ok(Loaded::Workflow(current, stored))
            }
            Load::Run(key) => ready(store.run_load(shard, key))?.map(Loaded::Run),
            Load::Runs(key) => ready(store.run_list(shard, key))?.map(Loaded::Runs),
            Load::Due { namespaces, until } => {
                ready(store.wake_due(shard, namespaces, *until, 1_000))?.map(Loaded::Due)
            }
            Load::Backlog { namespaces, queue, after } => {
                let queue = queue.as_ref().map(|(name, kind)| (name.as_str(), *kind));
                ready(store.dispatch_backlog(shard, namespaces, queue, *after, BACKLOG_PAGE))?
                    .map(Loaded::Backlog)
            }
        };
        loaded.map_err(|error| Error::Store(error.to_string()))
    }

    /// Shards with a commit in flight.
    #[must_use]
    pub fn commits_in_flight(&self) -> Vec<ShardId> {
        self.commits.keys().copied().collect()
    }

    /// Makes one group in flight durable.
    ///
    /// # Errors
    /// [`Error`].
    pub fn commit_one(&mut self, now: Timestamp, shard: ShardId) -> Result<(), Error> {
        let Some(group) = self.commits.remove(&shard) else { return Ok(()) };
        let index = usize::try_from(shard.0).unwrap_or(1) - 1;
        match ready(self.store.shard_commit(group))? {
            Ok(()) => self.shards[index].committed(now),
            Err(error) => return Err(Error::Broken { region: self.name.clone(), why: error.to_string() }),
        }
        self.pump(now)
    }

    /// Pumps and commits until nothing is left to do at this moment.
    ///
    /// # Errors
    /// [`Error`].
    pub fn settle(&mut self, now: Timestamp) -> Result<(), Error> {
        self.pump(now)?;
        while let Some((&shard, _)) = self.commits.first_key_value() {
            self.commit_one(now, shard)?;
        }
        Ok(())
    }

    /// The log of a shard after a position.
    ///
    /// # Errors
    /// [`Error`].
    pub fn log(&self, shard: ShardId, after: Sequence) -> Result<LogPage, Error> {
        ready(self.store.log_read(shard, after, 1 << 20))?.map_err(|error| Error::Store(error.to_string()))
    }

    /// How many shards it has.
    #[must_use]
    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(0)
    }
}
