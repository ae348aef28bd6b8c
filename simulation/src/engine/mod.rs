//! The engine: regions of production's own machines (shards, links, records, stores) in one thread and virtual time. Every
//! delay and every fault is drawn from one seed; everything that can happen waits in one queue, and one thing happens at a
//! time. After each of them the oracles look.

mod accounts;
mod calls;
mod expect;
mod failovers;
mod faults;
mod folded;
mod graves;
mod lineage;
mod links;
mod perform;
pub mod program;
mod rest;
pub mod script;
pub mod seen;
mod site;
pub mod span;
mod watch;
mod workers;

use std::collections::BTreeMap;

use antipode_core::{
    ids::{Incarnation, NamespaceId, RegionId, RunId, ShardId, Timestamp, WorkflowKey},
    namespace::{Config, Info, Record, Start},
    region::{Region as Member, Regions},
    version::Increment,
};

use self::{
    calls::Calls,
    folded::Folded,
    links::{Envelope, Links},
    script::Setup,
    seen::{Seen, State},
    site::Site,
    span::Span,
    watch::Watch,
};
use crate::{
    random::Random,
    region::Error,
    trace::{Finding, Kind, Lane, Recording, Trace},
};

/// The namespace's name.
pub const NAMESPACE: &str = "default";
/// So many things do not happen at one moment.
const STANDSTILL: u64 = 50_000;
/// Where virtual time begins.
const BEGIN: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// Something that waits for its time.
#[derive(Debug)]
pub(crate) enum Due {
    /// A message arrives.
    Arrive(Box<Envelope>),
    /// A commit ends.
    Commit { site: usize, life: u64, shard: ShardId },
    /// A shard or a process of a region wants to look.
    Wake { site: usize, life: u64 },
    /// A link wants to look.
    Link { from: usize, to: usize },
    /// A client asks (again).
    Call(usize),
    /// A worker polls.
    Poll { site: usize, life: u64 },
    /// A worker is done thinking.
    Finish { site: usize, task: u64 },
    /// A region starts again.
    Restart { site: usize },
    /// A forced failover comes to its minting.
    Mint { site: usize, blind: bool },
    /// A hand-over looks at itself.
    HandOver { site: usize, life: u64 },
    /// A region asks its peers what they have of third regions.
    Ask { site: usize },
}

/// Why a world cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The world itself.
    #[error(transparent)]
    World(#[from] Error),
    /// A setup or step that names something that is not there.
    #[error("{0}")]
    Script(String),
    /// The same things happen again and again at one moment.
    #[error("time stands still: {0} things happened since it was {1}")]
    Standstill(u64, Span),
}

/// The simulated world.
pub struct Engine {
    /// Virtual time.
    pub now: Timestamp,
    /// The step at which it moved last.
    moment: u64,
    /// Hash and recording.
    pub trace: Trace,
    /// Interesting states.
    pub seen: Seen,
    /// Broken laws.
    pub findings: Vec<Finding>,
    /// Injected faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Committed changes of runs.
    pub transitions: u64,
    /// Committed events.
    pub events: u64,
    pub(crate) setup: Setup,
    pub(crate) random: Random,
    pub(crate) sites: Vec<Site>,
    pub(crate) members: Regions,
    pub(crate) links: Links,
    pub(crate) calls: Calls,
    pub(crate) watch: Watch,
    folded: Folded,
    queue: BTreeMap<(Timestamp, u64), Due>,
    ties: u64,
}

impl Engine {
    /// The world that a setup describes. `recording`: somebody wants to read it, under this title.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn new(setup: &Setup, recording: Option<&str>) -> Result<Self, Failure> {
        let script = |error: &dyn std::fmt::Display| Failure::Script(error.to_string());
        let increment = Increment::new(setup.increment).ok_or_else(|| {
            Failure::Script(format!("`increment: {}`: expected 2 or more", setup.increment))
        })?;
        let named = setup.regions.iter().zip(1..).map(|(region, id)| Member::new(region.name.as_str(), id));
        let members = Regions::new(increment, named).map_err(|error| script(&error))?;
        let record = first_record(setup, &members).map_err(|error| script(&error))?;
        let random = Random::new(setup.seed);
        let mut sites = Vec::new();
        for (region, id) in setup.regions.iter().zip(1..) {
            sites.push(Site::new(region, id, &record, setup)?);
        }
        let recording = recording.map(|title| Recording {
            title: title.to_string(),
            seed: setup.seed,
            lanes: setup
                .regions
                .iter()
                .zip(1..)
                .map(|(region, initial)| Lane { name: region.name.clone(), initial, shards: region.shards })
                .collect(),
            ..Recording::default()
        });
        let mut engine = Self {
            now: BEGIN,
            moment: 0,
            trace: Trace::new(BEGIN, recording),
            seen: Seen::default(),
            findings: Vec::new(),
            faults: BTreeMap::new(),
            transitions: 0,
            events: 0,
            setup: setup.clone(),
            random: random.fork("world"),
            links: Links::new(),
            calls: Calls::default(),
            watch: Watch::default(),
            folded: Folded::default(),
            sites,
            members,
            queue: BTreeMap::new(),
            ties: 0,
        };
        engine.watch.graves.retention(setup.retention.0 / 1_000_000_000);
        for site in 0..engine.sites.len() {
            engine.sites[site].region.observed = true;
            engine.believe(site);
            engine.tend(site)?;
            engine.ask_again(site);
        }
        engine.dial_all()?;
        Ok(engine)
    }

    /// Index of a region by name.
    ///
    /// # Errors
    /// [`Failure::Script`].
    pub fn site(&self, name: &str) -> Result<usize, Failure> {
        self.sites.iter().position(|site| site.region.name == name).ok_or_else(|| {
            let known: Vec<_> = self.sites.iter().map(|site| site.region.name.as_str()).collect();
            Failure::Script(format!("there is no region `{name}`: expected one of {}", known.join(", ")))
        })
    }

    /// Name of a region.
    pub(crate) fn name(&self, site: usize) -> &str {
        &self.sites[site].region.name
    }

    pub(crate) fn namespace(&self) -> NamespaceId {
        self.sites[0].region.record.id()
    }

    pub(crate) fn key(&self, workflow: &str) -> WorkflowKey {
        WorkflowKey { namespace: self.namespace(), workflow: workflow.into() }
    }

    /// A region's own clock.
    pub(crate) fn local(&self, site: usize) -> Timestamp {
        Timestamp(self.now.0 + self.sites[site].skew.0)
    }

    /// Puts something into the queue.
    pub(crate) fn at(&mut self, at: Timestamp, due: Due) {
        self.ties += 1;
        self.queue.insert((at.max(self.now), self.ties), due);
    }

    /// Puts something into the queue, so long from now.
    pub(crate) fn after(&mut self, span: Span, due: Due) {
        self.at(Timestamp(self.now.0 + span.0), due);
    }

    /// A length of time between two.
    pub(crate) fn between(&mut self, [from, to]: [Span; 2]) -> Span {
        let width = usize::try_from((to.0 - from.0).max(0) / 1_000).unwrap_or(0);
        Span(from.0 + i64::try_from(self.random.below(width + 1)).unwrap_or(0) * 1_000)
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Span {
        Span(self.now.0 - BEGIN.0)
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.trace.step
    }

    /// Lets time pass until this moment, with nothing more than what happens by itself.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_until(&mut self, until: Timestamp) -> Result<(), Failure> {
        while self.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        self.now = self.now.max(until);
        self.trace.now = self.now;
        Ok(())
    }

    /// Lets the next thing happen. False: nothing is left to happen.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn step(&mut self) -> Result<bool, Failure> {
        let Some(((at, _), due)) = self.queue.pop_first() else { return Ok(false) };
        if at > self.now {
            self.moment = self.trace.step;
        }
        self.now = self.now.max(at);
        self.trace.now = self.now;
        self.trace.step += 1;
        if self.trace.step - self.moment > STANDSTILL {
            return Err(Failure::Standstill(STANDSTILL, self.elapsed()));
        }
        match due {
            Due::Arrive(envelope) => self.arrive(*envelope)?,
            Due::Commit { site, life, shard } => self.commit_ends(site, life, shard)?,
            Due::Wake { site, life } => self.wake(site, life)?,
            Due::Link { from, to } => self.tend_link(from, to)?,
            Due::Call(call) => self.call(call)?,
            Due::Poll { site, life } => self.poll(site, life)?,
            Due::Finish { site, task } => self.finish(site, task)?,
            Due::Restart { site } => self.restart(site)?,
            Due::Mint { site, blind } => self.mint(site, blind)?,
            Due::HandOver { site, life } => self.tend_hand_over(site, life)?,
            Due::Ask { site } => self.ask_peers(site)?,
        }
        self.look();
        Ok(true)
    }

    /// How many regions there are.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.sites.len()
    }

    /// Name of a region, by index.
    #[must_use]
    pub fn region_name(&self, site: usize) -> String {
        self.sites.get(site).map(|site| site.region.name.clone()).unwrap_or_default()
    }

    /// Names of the regions that believe to be active.
    #[must_use]
    pub fn active_regions(&self) -> Vec<String> {
        (0..self.sites.len())
            .filter(|site| self.believes_writable(*site))
            .map(|site| self.region_name(site))
            .collect()
    }

    /// Commits that a region has begun and not ended.
    #[must_use]
    pub fn commits_in_flight(&self, site: usize) -> usize {
        self.sites.get(site).map_or(0, |site| site.committing.len())
    }

    /// Runs of a workflow id as a region stores them.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn stored(
        &self,
        site: usize,
        workflow: &str,
    ) -> Result<BTreeMap<RunId, crate::region::Kept>, Failure> {
        let here =
            self.sites.get(site).ok_or_else(|| Failure::Script(format!("there is no region {site}")))?;
        Ok(here.region.stored_runs(&self.key(workflow))?)
    }

    /// Calls that clients made.
    #[must_use]
    pub fn calls_made(&self) -> u64 {
        self.calls.all.len() as u64
    }

    /// Calls that were acknowledged.
    #[must_use]
    pub fn calls_acknowledged(&self) -> u64 {
        self.calls.acknowledged()
    }

    /// Failovers that took effect.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        self.watch.failovers
    }

    /// Something is broken.
    pub(crate) fn find(&mut self, oracle: &str, text: String) {
        let finding =
            Finding { oracle: oracle.to_string(), at: self.trace.at(), step: self.trace.step, text };
        self.trace.line(Kind::Finding, None, None, || finding.to_string());
        if let Some(recording) = &mut self.trace.recording {
            recording.findings.push(finding.clone());
        }
        // One is enough to fail, and the first says most.
        if self.findings.len() < 20 {
            self.findings.push(finding);
        }
    }

    pub(crate) fn note(&mut self, state: State) {
        self.seen.note(state);
    }

    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }
}

/// First eight digits of a run id.
pub(crate) fn short(run: &RunId) -> String {
    run.to_string().chars().take(8).collect()
}

fn first_record(setup: &Setup, members: &Regions) -> Result<Record, antipode_core::namespace::Refusal> {
    let names: Vec<&str> = setup.regions.iter().map(|region| region.name.as_str()).collect();
    let home = names.first().copied().unwrap_or_default();
    let active = if setup.active.is_empty() { home } else { &setup.active };
    let listed: Vec<&str> = if setup.members.is_empty() {
        names.clone()
    } else {
        setup.members.iter().map(String::as_str).collect()
    };
    let start = Start {
        id: NamespaceId(uuid::Uuid::from_u128(7)),
        name: NAMESPACE.to_string(),
        info: Info::default(),
        config: Config { retention_seconds: setup.retention.0 / 1_000_000_000 },
        fold_version: antipode_core::fold::FOLD_VERSION,
        by: members.by_name(active).map_or(RegionId(1), |member| member.id),
    };
    if setup.local {
        return Record::new_local(start, active);
    }
    let life = names.iter().zip(1..).find(|(name, _)| **name == active).map_or(0, |(_, id)| id);
    Ok(Record::new_global(start, active, listed, members)?.minted_in(Incarnation(life)))
}
