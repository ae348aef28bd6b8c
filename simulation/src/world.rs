//! All regions, virtual time, links that can be cut, failovers.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::{
    ids::{FailoverVersion, NamespaceId, RegionId, RunId, Sequence, ShardId, Timestamp, WorkflowKey},
    namespace::{Act, Config, Forced, Info, Record, Start},
    region::{Region as Member, Regions},
    version::Increment,
};
use antipode_history::api::{Applied, Operation, Refusal, Replicated, Reply, Request};
use antipode_persistence::rows::LogEntry;
use antipode_proto::core as wire;
use prost::Message;

use crate::region::{Error, Region, Ticket};

/// Names of the regions, in order of their initial versions.
pub const NAMES: [&str; 5] = ["east", "west", "north", "south", "central"];

/// The world.
pub struct World {
    /// Virtual time.
    pub now: Timestamp,
    /// Regions.
    pub regions: Vec<Region>,
    /// The arithmetic's view of them.
    pub members: Regions,
    /// Directions that are cut, by index.
    pub cut: BTreeSet<(usize, usize)>,
    /// Runs whose entries are withheld from a direction.
    pub held: BTreeSet<RunId>,
    /// Runs quarantined on arrival, with the reason.
    pub poisoned: BTreeMap<RunId, String>,
}

/// Why a world cannot be made or a step not taken.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The world itself.
    #[error(transparent)]
    World(#[from] Error),
    /// A record's refusal.
    #[error("namespace: {0}")]
    Namespace(String),
    /// An entry is asked for again and again.
    #[error("replication does not come to rest: {0}")]
    Restless(String),
}

impl World {
    /// So many regions with so many shards each; the namespace is active in the first.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn new(shards: &[u32]) -> Result<Self, Failure> {
        let names = &NAMES[..shards.len().min(NAMES.len())];
        let members = names.iter().zip(1..).map(|(name, id)| Member::new(*name, id));
        let members = Regions::new(Increment::DEFAULT, members)
            .map_err(|error| Failure::Namespace(error.to_string()))?;
        let start = Start {
            id: NamespaceId(uuid::Uuid::from_u128(7)),
            name: "default".to_string(),
            info: Info::default(),
            config: Config::default(),
            fold_version: 1,
            by: RegionId(1),
        };
        let record = Record::new_global(start, names[0], names.iter().copied(), &members)
            .map_err(|error| Failure::Namespace(error.to_string()))?;
        let now = Timestamp(1_700_000_000_000_000_000);
        let mut regions = Vec::new();
        for ((name, id), shards) in names.iter().zip(1..).zip(shards) {
            regions.push(Region::new(name, id, *shards, record.clone(), now)?);
        }
        let mut world = Self {
            now,
            regions,
            members,
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            poisoned: BTreeMap::new(),
        };
        world.settle()?;
        Ok(world)
    }

    /// Namespace id.
    #[must_use]
    pub fn namespace(&self) -> NamespaceId {
        self.regions[0].record.id()
    }

    /// Key of a workflow id.
    #[must_use]
    pub fn key(&self, workflow: &str) -> WorkflowKey {
        WorkflowKey { namespace: self.namespace(), workflow: workflow.into() }
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn advance(&mut self, nanos: i64) -> Result<(), Failure> {
        self.now = Timestamp(self.now.0 + nanos);
        for region in &mut self.regions {
            region.tick(self.now);
        }
        self.settle()
    }

    /// Carries out everything that can be done within each region.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn settle(&mut self) -> Result<(), Failure> {
        let now = self.now;
        for region in &mut self.regions {
            region.settle(now)?;
            // Work that is due at once.
            region.tick(now);
            region.settle(now)?;
        }
        Ok(())
    }

    /// Asks a region and carries everything out.
    ///
    /// # Errors
    /// The region's refusal, or none when the answer waits.
    pub fn ask(
        &mut self,
        region: usize,
        request: Request,
    ) -> Result<Option<Result<Reply, Refusal>>, Failure> {
        let now = self.now;
        let ticket = self.regions[region].request(now, request);
        self.regions[region].settle(now)?;
        Ok(self.regions[region].answers.remove(&ticket))
    }

    /// Cuts both directions between two regions.
    pub fn cut_both(&mut self, a: usize, b: usize) {
        self.cut.extend([(a, b), (b, a)]);
    }

    /// Heals everything.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Forced failover, executed by the target (F3).
    ///
    /// # Errors
    /// [`Failure`].
    pub fn force(&mut self, to: usize) -> Result<FailoverVersion, Failure> {
        let reachable = |other: usize| {
            other == to || (!self.cut.contains(&(other, to)) && !self.cut.contains(&(to, other)))
        };
        let mut record = self.regions[to].record.clone();
        for (index, region) in self.regions.iter().enumerate() {
            if reachable(index) {
                record.merge(&region.record);
            }
        }
        let seen_max = record.version();
        let members = self.members.clone();
        let name = self.regions[to].name.clone();
        let act = Act { regions: &members, here: &name, now: self.now, who: "operator", why: "simulated" };
        let forced = Forced { seen_max, predicted_loss_runs: None, not_asked: BTreeSet::new() };
        let record = record.force(&act, forced).map_err(|error| Failure::Namespace(error.to_string()))?;
        let version = record.version();
        self.regions[to].set_record(record, self.now);
        self.settle()?;
        Ok(version)
    }

    /// Exchanges namespace records over links that are not cut.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn exchange_records(&mut self) -> Result<(), Failure> {
        for from in 0..self.regions.len() {
            for to in 0..self.regions.len() {
                if from == to || self.cut.contains(&(from, to)) {
                    continue;
                }
                let mut record = self.regions[to].record.clone();
                if record.merge(&self.regions[from].record) {
                    self.regions[to].set_record(record, self.now);
                }
            }
        }
        self.settle()
    }

    /// Sends everything over every link that is not cut, records first, until all is quiet.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn replicate(&mut self) -> Result<(), Failure> {
        self.exchange_records()?;
        for _ in 0..64 {
            let mut moved = false;
            for from in 0..self.regions.len() {
                for to in 0..self.regions.len() {
                    if from != to && !self.cut.contains(&(from, to)) {
                        moved |= self.replicate_link(from, to)?;
                    }
                }
            }
            if !moved {
                return Ok(());
            }
        }
        Err(Failure::Restless("64 rounds".to_string()))
    }

    /// Sends what one region has for another. True when something was applied.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn replicate_link(&mut self, from: usize, to: usize) -> Result<bool, Failure> {
        let mut moved = false;
        let source = self.regions[from].name.clone();
        for shard in 1..=self.regions[from].shard_count() {
            let place = (source.clone(), ShardId(shard));
            let after = self.regions[to].positions.get(&place).copied().unwrap_or(Sequence(0));
            let page = self.regions[from].log(ShardId(shard), after)?;
            for entry in &page.entries {
                if let Some((key, replicated)) = self.sent(entry) {
                    moved |= self.deliver(from, to, &key, replicated, 0)?;
                }
            }
            if self.held.is_empty() {
                self.regions[to].positions.insert(place, page.through);
            }
        }
        Ok(moved)
    }

    fn sent(&self, entry: &LogEntry) -> Option<(WorkflowKey, Replicated)> {
        let (run, replicated) = match entry {
            LogEntry::Batch(row) => (row.batch.envelope.run.clone(), Replicated::Batch(row.batch.clone())),
            LogEntry::Run(row) => {
                let head = wire::RunHead::decode(&*row.head).ok()?;
                let tip =
                    usize::try_from(head.current).ok().and_then(|index| head.branches.get(index).cloned());
                let state = wire::RunState {
                    namespace_id: row.key.namespace.to_string(),
                    workflow_id: row.key.workflow.to_string(),
                    run_id: row.key.run.to_string(),
                    registers: head.registers,
                    pending: head.pending,
                    verdicts: head.unclaimed,
                    tip_chain: tip.map(|branch| branch.chain).unwrap_or_default(),
                    ..wire::RunState::default()
                };
                (row.key.clone(), Replicated::State(Box::new(state)))
            }
        };
        (!self.held.contains(&run.run)).then(|| (run.workflow_key(), replicated))
    }

    /// Hands one entry to a region, fetching what it lacks. True when it changed something.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn deliver(
        &mut self,
        from: usize,
        to: usize,
        key: &WorkflowKey,
        entry: Replicated,
        depth: usize,
    ) -> Result<bool, Failure> {
        if depth > 8 {
            return Err(Failure::Restless(format!("{} needs events again and again", key.workflow)));
        }
        let applied = self.apply_one(to, key, entry.clone())?;
        match applied {
            Applied::Applied(_) => Ok(true),
            Applied::Duplicate => Ok(false),
            Applied::NeedEvents { key: run, known, until } => {
                let fetched = self.fetch(from, run.workflow_key(), run.run, known, until)?;
                let mut moved = false;
                for entry in fetched {
                    moved |= self.deliver(from, to, &run.workflow_key(), entry, depth + 1)?;
                }
                Ok(self.deliver(from, to, key, entry, depth + 1)? || moved)
            }
            Applied::Poison(why) => {
                if let Replicated::Batch(batch) = &entry {
                    self.poisoned.insert(batch.envelope.run.run, why);
                }
                Ok(false)
            }
            Applied::Retry(why) => Err(Failure::Restless(why)),
        }
    }

    fn apply_one(&mut self, to: usize, key: &WorkflowKey, entry: Replicated) -> Result<Applied, Failure> {
        let now = self.now;
        let region = &mut self.regions[to];
        let ticket: Ticket = region.apply(now, key, vec![entry]);
        region.settle(now)?;
        let applied = region.applied.remove(&ticket).and_then(|mut applied| applied.pop());
        applied.ok_or_else(|| Failure::Restless("an apply was not answered".to_string()))
    }

    fn fetch(
        &mut self,
        from: usize,
        workflow: WorkflowKey,
        run: RunId,
        known: antipode_core::version_history::VersionHistory,
        until: Option<antipode_core::chain::ChainValue>,
    ) -> Result<Vec<Replicated>, Failure> {
        let operation = Operation::Fetch { known, until };
        match self.ask(from, Request { workflow, run: Some(run), operation })? {
            Some(Ok(Reply::Fetched { batches, state })) => {
                let batches = batches.into_iter().map(Replicated::Batch);
                Ok(batches.chain([Replicated::State(state)]).collect())
            }
            Some(Err(refusal)) => Err(Failure::Restless(format!("fetch: {refusal}"))),
            _ => Err(Failure::Restless("a fetch was not answered".to_string())),
        }
    }
}
