//! One region: shards over a store in memory. Commits are carried out when the scheduler says so, so that shards compute
//! on state that is not durable yet (D1), and crash with it (D2).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_conflict::{Judgement, stale::Discard};
use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    clocks::Clocks,
    ids::{Incarnation, Nanos, RegionId, RunId, RunKey, Sequence, ShardId, Timestamp, WorkflowKey},
    namespace::{Record, Standing},
    run::Run,
    verdict::{self, Fallen},
    version::Increment,
};
use antipode_history::{
    api::{Applied, Offer, Refusal, Replicated, Reply, Request, Taken, TaskKind},
    shard::{
        BACKLOG_PAGE, Event, Load, Loaded, NamespaceView, OBLIGATION_PAGE, Output, Setting, Shard, Token,
    },
};
use antipode_persistence::{
    memory::{Fault, MemoryStore},
    rows::{BatchRow, Group, Identity, LogPage, StoredRun},
    store::{IndexStore, RegionStore, RunStore, ShardStore},
};
use antipode_proto::{api::history::v1::HistoryEvent, core as wire};
use bytes::Bytes;
use futures::FutureExt;
use prost::Message;

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

/// A stored run, folded anew.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The run.
    pub run: Run,
    /// Its batches of all branches, in order of storing.
    pub batches: Vec<Arc<Batch>>,
    head: Bytes,
}

impl Kept {
    /// Folds a stored run.
    ///
    /// # Errors
    /// [`Error::Store`] when what is stored is no run.
    pub fn fold(stored: StoredRun) -> Result<Self, Error> {
        let broken = |error: &dyn std::fmt::Display| Error::Store(error.to_string());
        let head = wire::RunHead::decode(&*stored.row.head).map_err(|error| broken(&error))?;
        let batches: Vec<_> = stored.batches.into_iter().map(|row| row.batch).collect();
        let run =
            Run::restore(stored.row.key, &head, batches.iter().cloned()).map_err(|error| broken(&error))?;
        Ok(Self { run, batches, head: stored.row.head })
    }

    /// Whether folding that would give this again: the fold is a function of the key, the head and the batches in their order,
    /// and all of them are equal.
    #[must_use]
    pub fn is_fold_of(&self, stored: &StoredRun) -> bool {
        let equal = |(mine, row): (&Arc<Batch>, &BatchRow)| {
            Arc::ptr_eq(mine, &row.batch) || mine.as_ref() == row.batch.as_ref()
        };
        self.run.key == stored.row.key
            && self.head == stored.row.head
            && self.batches.len() == stored.batches.len()
            && self.batches.iter().zip(&stored.batches).all(equal)
    }

    /// Events of the branch that ends with this chain value.
    #[must_use]
    pub fn events(&self, tip: ChainValue) -> Vec<HistoryEvent> {
        let by_chain: BTreeMap<ChainValue, &Arc<Batch>> =
            self.batches.iter().map(|batch| (batch.chain, batch)).collect();
        let mut path = Vec::new();
        let mut at = tip;
        while let Some(batch) = by_chain.get(&at) {
            path.push(*batch);
            at = batch.envelope.previous;
        }
        path.iter().rev().filter_map(|batch| batch.decode_events().ok()).flatten().collect()
    }
}

/// What survives of the commits that are in flight when a region dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Lost,
    /// Everything.
    Written,
    /// The first so many, in the order in which they began.
    First(usize),
}

/// One region. Cloned only to explore what else could have happened.
#[derive(Clone)]
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
    /// Verdicts on replicated entries and on runs since somebody took them, when [`Region::observed`].
    pub judged: Vec<(RunKey, Box<Judgement>)>,
    /// Why tasks were discarded, since somebody took it.
    pub stale: Vec<(RunKey, Discard)>,
    /// Where one owner wrote twice (G2), since somebody took it.
    pub alarms: Vec<(RunKey, String)>,
    /// Somebody takes verdicts.
    pub observed: bool,
    /// Runs that a worker with a sticky queue has in its cache.
    pub sticky: BTreeSet<RunId>,
    /// Barriers that were answered.
    pub barriers: BTreeMap<Ticket, Result<Sequence, Refusal>>,
    /// How far the clocks of others may be behind, as measured in this life (H2).
    clocks: Arc<Clocks>,
    shards: Vec<Shard<Ticket>>,
    commits: BTreeMap<ShardId, Group>,
    /// Shards in the order in which their commits began.
    begun: Vec<ShardId>,
    tickets: u64,
    lives: u64,
    entropy: u64,
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
        Self::with_entropy(name, id, shards, record, now, 0)
    }

    /// A region that starts for the first time and mints its ids from this.
    ///
    /// # Errors
    /// [`Error`].
    pub fn with_entropy(
        name: &str,
        id: u32,
        shards: u32,
        record: Record,
        now: Timestamp,
        entropy: u64,
    ) -> Result<Self, Error> {
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
            judged: Vec::new(),
            stale: Vec::new(),
            alarms: Vec::new(),
            observed: false,
            sticky: BTreeSet::new(),
            barriers: BTreeMap::new(),
            clocks: Arc::default(),
            shards: Vec::new(),
            commits: BTreeMap::new(),
            begun: Vec::new(),
            tickets: 0,
            lives: 0,
            entropy,
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
        self.sticky.clear();
        self.clocks = Arc::default();
        for shard in 1..=shards {
            let acquired = self.acquire(ShardId(shard), now)?;
            self.shards.push(acquired);
        }
        Ok(())
    }

    fn acquire(&mut self, shard: ShardId, now: Timestamp) -> Result<Shard<Ticket>, Error> {
        let acquired = ready(self.store.shard_acquire(shard, &self.name))?
            .map_err(|error| Error::Store(error.to_string()))?;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.lives.to_le_bytes());
        seed[8..12].copy_from_slice(&self.id.0.to_le_bytes());
        seed[12..16].copy_from_slice(&shard.0.to_le_bytes());
        seed[16..24].copy_from_slice(&self.entropy.to_le_bytes());
        seed[24..].copy_from_slice(&acquired.range.0.to_le_bytes());
        let setting = Setting {
            shard,
            region: self.id,
            region_name: self.name.clone(),
            incarnation: self.store.identity().incarnation,
            cache_bytes: 1 << 20,
            seed,
        };
        let mut machine = Shard::new(setting, acquired, vec![self.view()], now);
        machine.clocks(now, Arc::clone(&self.clocks));
        Ok(machine)
    }

    /// Takes a shard over anew: what its last owner had in flight is fenced (D2).
    ///
    /// # Errors
    /// [`Error`].
    pub fn reacquire(&mut self, shard: ShardId, now: Timestamp) -> Result<(), Error> {
        let index = usize::try_from(shard.0).unwrap_or(1) - 1;
        let acquired = self.acquire(shard, now)?;
        if let Some(slot) = self.shards.get_mut(index) {
            *slot = acquired;
        }
        Ok(())
    }

    /// How often it has started.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.lives
    }

    /// Loses everything that is not in the store. What was being written is lost, or was written just in time, all of it or
    /// its first commits.
    ///
    /// # Errors
    /// [`Error`].
    pub fn kill(&mut self, tail: Tail) -> Result<Vec<Group>, Error> {
        let mut groups = Vec::new();
        let mut commits = std::mem::take(&mut self.commits);
        let survivors = match tail {
            Tail::Lost => 0,
            Tail::Written => usize::MAX,
            Tail::First(count) => count,
        };
        let begun: Vec<Group> =
            std::mem::take(&mut self.begun).iter().filter_map(|shard| commits.remove(shard)).collect();
        for group in begun.into_iter().take(survivors) {
            if ready(self.store.shard_commit(group.clone()))?.is_ok() {
                groups.push(group);
            }
        }
        self.shards.clear();
        self.offers.clear();
        self.answers.clear();
        self.applied.clear();
        self.barriers.clear();
        self.sticky.clear();
        Ok(groups)
    }

    /// Starts again, after [`Region::kill`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn start(&mut self, shards: u32, now: Timestamp) -> Result<(), Error> {
        self.restart(shards, now)
    }

    /// Drops what shards have in memory, as if somebody else had owned them for a moment.
    ///
    /// # Errors
    /// [`Error`].
    pub fn evict(&mut self, now: Timestamp) -> Result<(), Error> {
        for shard in (1..=self.shard_count()).map(ShardId) {
            if !self.commits.contains_key(&shard) {
                self.fail_shard(shard, now, "the shard moves")?;
            }
        }
        Ok(())
    }

    /// The ownership breaks: callers are refused retryably, and the shard is acquired anew (D2).
    ///
    /// # Errors
    /// [`Error`].
    pub fn fail_shard(&mut self, shard: ShardId, now: Timestamp, why: &str) -> Result<(), Error> {
        let index = usize::try_from(shard.0).unwrap_or(1) - 1;
        self.commits.remove(&shard);
        if let Some(machine) = self.shards.get_mut(index) {
            machine.commit_failed(why);
        }
        let expected = self.broken.len();
        self.pump(now)?;
        // The words of a failure that was asked for are no finding.
        self.broken.truncate(expected);
        self.reacquire(shard, now)?;
        self.pump(now)
    }

    /// Lets the group in flight end: durable, or failed as told. The group, if it was written.
    ///
    /// # Errors
    /// [`Error`].
    pub fn finish_commit(
        &mut self,
        now: Timestamp,
        shard: ShardId,
        fault: Option<Fault>,
    ) -> Result<Option<Group>, Error> {
        let Some(group) = self.commits.remove(&shard) else { return Ok(None) };
        let index = usize::try_from(shard.0).unwrap_or(1) - 1;
        if let Some(fault) = fault {
            self.store.fail_next(fault);
        }
        match ready(self.store.shard_commit(group.clone()))? {
            Ok(()) => {
                self.shards[index].committed(now);
                self.pump(now)?;
                Ok(Some(group))
            }
            Err(error) if fault.is_some() => {
                self.fail_shard(shard, now, &error.to_string())?;
                Ok((fault == Some(Fault::UnknownWritten)).then_some(group))
            }
            Err(error) => Err(Error::Broken { region: self.name.clone(), why: error.to_string() }),
        }
    }

    /// Asks a shard for its barrier; the answer appears in `barriers`.
    pub fn barrier(&mut self, now: Timestamp, shard: ShardId) -> Ticket {
        let ticket = self.ticket();
        let id = self.record.id();
        if let Some(machine) = self.shards.get_mut(usize::try_from(shard.0).unwrap_or(1) - 1) {
            machine.barrier(now, ticket, id);
        }
        ticket
    }

    /// Sends replicated entries to this shard.
    pub fn apply_to(&mut self, now: Timestamp, shard: ShardId, entries: Vec<Replicated>) -> Ticket {
        let ticket = self.ticket();
        if let Some(machine) = self.shards.get_mut(usize::try_from(shard.0).unwrap_or(1) - 1) {
            machine.apply(now, ticket, entries);
        }
        ticket
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
            retention: Nanos::seconds(self.record.config().retention_seconds),
            others: self.record.members().into_iter().filter(|name| *name != self.name).collect(),
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

    /// The shard of a workflow id: production's.
    #[must_use]
    pub fn shard_of(&self, key: &WorkflowKey) -> usize {
        let shards = u32::try_from(self.shards.len()).unwrap_or(1);
        usize::try_from(antipode_history::client::shard_of(key, shards).0 - 1).unwrap_or(0)
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
                self.begun.retain(|other| *other != shard);
                self.begun.push(shard);
                self.commits.insert(shard, group);
            }
            Output::Answer(ticket, answer) => {
                self.answers.insert(ticket, answer);
            }
            Output::Applied(ticket, applied) => {
                self.applied.insert(ticket, applied);
            }
            Output::Barrier(ticket, answer) => {
                self.barriers.insert(ticket, answer);
            }
            Output::Offer(offer) if offer.sticky && !self.sticky.contains(&offer.key.run) => {
                self.shards[index].offered(now, &offer, Taken::StickyUnavailable);
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
            Output::Discarded { kind, reason, told } => {
                *self.discards.entry((kind, reason)).or_default() += 1;
                self.stale.extend(told.map(|told| *told));
            }
            Output::Count(event) => *self.events.entry(event).or_default() += 1,
            Output::Judged(run, judgement) => {
                if self.observed {
                    self.judged.push((run, judgement));
                }
            }
            Output::Alarm(run, words) => self.alarms.push((run, words)),
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
            Load::Obligations { until } => {
                ready(store.obligation_due(shard, *until, OBLIGATION_PAGE))?.map(Loaded::Obligations)
            }
            Load::Backlog { namespaces, queue, after } => {
                let queue = queue.as_ref().map(|(name, kind)| (name.as_str(), *kind));
                ready(store.dispatch_backlog(shard, namespaces, queue, *after, BACKLOG_PAGE))?
                    .map(Loaded::Backlog)
            }
        };
        loaded.map_err(|error| Error::Store(error.to_string()))
    }

    /// Groups that are being written.
    pub fn groups_in_flight(&self) -> impl Iterator<Item = &Group> {
        self.commits.values()
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

    /// A page of the log of a shard after a position.
    ///
    /// # Errors
    /// [`Error`].
    pub fn log_page(&self, shard: ShardId, after: Sequence, bytes: usize) -> Result<LogPage, Error> {
        ready(self.store.log_read(shard, after, bytes))?.map_err(|error| Error::Store(error.to_string()))
    }

    /// What each shard has committed.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ends(&self) -> Result<Vec<(ShardId, Sequence)>, Error> {
        ready(self.store.shard_positions())?.map_err(|error| Error::Store(error.to_string()))
    }

    /// Runs of a workflow id as stored, each folded anew from its batches.
    ///
    /// # Errors
    /// [`Error`].
    pub fn stored_runs(&self, key: &WorkflowKey) -> Result<BTreeMap<RunId, Kept>, Error> {
        let rows = self.stored_rows(key)?.into_iter();
        let mut runs = rows
            .map(|stored| Ok((stored.row.key.run, Kept::fold(stored)?)))
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        let all = runs.iter().map(|(id, kept)| (*id, &kept.run)).collect();
        for (run, fallen) in self.fallen(key, &all)? {
            if let Some(kept) = runs.get_mut(&run) {
                kept.run.judge_verdicts(fallen);
            }
        }
        Ok(runs)
    }

    /// Which verdicts of these stored runs fell, as far as other runs decide it (B1); of runs with such verdicts only.
    ///
    /// # Errors
    /// [`Error`].
    pub fn fallen(
        &self,
        key: &WorkflowKey,
        runs: &BTreeMap<RunId, &Run>,
    ) -> Result<Vec<(RunId, Fallen)>, Error> {
        if runs.values().all(|run| run.rests_on().is_empty()) {
            return Ok(Vec::new());
        }
        let shard = antipode_history::client::shard_of(key, self.store.identity().shards);
        let current =
            ready(self.store.current_load(shard, key))?.map_err(|error| Error::Store(error.to_string()))?;
        let owner = current.as_ref().map(|row| &row.record);
        let other = |run| runs.get(&run).copied();
        let resting = || runs.iter().filter(|(_, run)| !run.rests_on().is_empty());
        let gone = resting().any(|(_, run)| run.rests_on().iter().any(|basis| !runs.contains_key(basis)));
        let stones = if gone { self.tombstones(key)? } else { BTreeMap::new() };
        let went_on = |run, identity: &antipode_core::identity::Identity| {
            let stored = runs.get(&run).map(|run| (run.first_run, run.order()));
            let place = stored.or_else(|| verdict::place_of(stones.get(&run)?));
            let heir = place.and_then(|(first, was)| verdict::heir(first, was, runs.values().copied()));
            heir.is_some_and(|heir| !heir.state.applied.contains(identity))
        };
        Ok(resting().map(|(id, run)| (*id, run.fallen(owner, other, went_on))).collect())
    }

    /// Runs of a workflow id as stored.
    ///
    /// # Errors
    /// [`Error`].
    pub fn stored_rows(&self, key: &WorkflowKey) -> Result<Vec<StoredRun>, Error> {
        let shards = self.store.identity().shards;
        let shard = antipode_history::client::shard_of(key, shards);
        let broken = |error: antipode_persistence::Error| Error::Store(error.to_string());
        let mut stored = Vec::new();
        for row in ready(self.store.run_list(shard, key))?.map_err(broken)? {
            if !antipode_history::shard::is_tombstone(&row) {
                stored.extend(ready(self.store.run_load(shard, &row.key))?.map_err(broken)?);
            }
        }
        Ok(stored)
    }

    /// Digest of a run as its shard remembers it; none: it is not in memory.
    #[must_use]
    pub fn remembered(&self, key: &RunKey) -> Option<String> {
        self.shards.get(self.shard_of(&key.workflow_key()))?.remembered(key)
    }

    /// The tombstones of a workflow id.
    fn tombstones(&self, key: &WorkflowKey) -> Result<BTreeMap<RunId, wire::RunHead>, Error> {
        let shard = antipode_history::client::shard_of(key, self.store.identity().shards);
        let rows =
            ready(self.store.run_list(shard, key))?.map_err(|error| Error::Store(error.to_string()))?;
        let stones = rows.iter().filter(|row| antipode_history::shard::is_tombstone(row));
        let heads = stones.filter_map(|row| Some((row.key.run, wire::RunHead::decode(&*row.head).ok()?)));
        Ok(heads.collect())
    }

    /// What clients gave to runs of a workflow id after these were deleted: filed on what is left of them (I03).
    ///
    /// # Errors
    /// [`Error`].
    pub fn filed_late(&self, key: &WorkflowKey) -> Result<Vec<wire::Unclaimed>, Error> {
        let heads = self.tombstones(key)?.into_values();
        Ok(heads.flat_map(|head| head.unclaimed).filter(|record| !record.delivered).collect())
    }

    /// The run that owns a workflow id, as stored.
    ///
    /// # Errors
    /// [`Error`].
    pub fn stored_owner(&self, key: &WorkflowKey) -> Result<Option<RunId>, Error> {
        let shard = antipode_history::client::shard_of(key, self.store.identity().shards);
        let current =
            ready(self.store.current_load(shard, key))?.map_err(|error| Error::Store(error.to_string()))?;
        Ok(current.and_then(|row| row.record.run_id.parse().ok()))
    }

    /// Tells a shard what a peer has proved of it (C6).
    pub fn proof(
        &mut self,
        now: Timestamp,
        shard: ShardId,
        peer: &str,
        proof: antipode_history::shard::Proof,
    ) {
        if let Some(machine) = self.shards.get_mut(usize::try_from(shard.0).unwrap_or(1) - 1) {
            machine.proof(now, peer, proof);
        }
    }

    /// Tells all shards how far the clock of another region may be behind (H2).
    pub fn clock(&mut self, now: Timestamp, increment: Increment, other: RegionId, behind: Nanos) {
        let clocks = Arc::make_mut(&mut self.clocks);
        if *clocks == Clocks::default() {
            *clocks = Clocks::new(increment);
        }
        clocks.measured(other, behind);
        for machine in &mut self.shards {
            machine.clocks(now, Arc::clone(&self.clocks));
        }
    }

    /// How many shards it has.
    #[must_use]
    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(0)
    }
}
