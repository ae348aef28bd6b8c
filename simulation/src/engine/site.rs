//! A region of the simulated world: the region's machines, its clock, its workers, and who waits for which answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_conflict::{
    Judgement,
    explain::{Explanation, Reason},
};
use antipode_core::{
    ids::{Incarnation, RunId, RunKey, ShardId, Timestamp},
    namespace::Record,
    task::TaskRef,
};
use antipode_history::{
    api::{Applied, Refusal, Reply, TaskKind},
    token,
};
use antipode_persistence::memory::{Fault, MemoryStore};
use antipode_proto::api::history::v1::HistoryEvent;
use antipode_replicator::{inbox::Call, records::Table, selection::KnownStates};

use super::{
    Due, Engine, Failure,
    failovers::HandOver,
    script::{RegionSetup, Setup},
    seen::State,
    span::Span,
    workers::{Task, Trouble},
};
use crate::{
    region::{Kept, Region, Ticket},
    trace::{Kind, Line, TreeBranch, TreeEvent, TreeView},
};

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// A client's call.
    Call(usize),
    /// A worker that takes an offered task, and whether the region may write when it asks.
    Take { writable: bool, offered: TaskRef },
    /// A worker that brings a task back.
    Bring { worker: usize, task: u64 },
    /// A link's receiver: entries of its stream.
    Apply { from: usize, stream: u64, token: u64 },
    /// A peer that fetches.
    Fetch { token: u64 },
    /// A hand-over's barrier.
    Barrier(ShardId),
}

/// A store as it was.
pub(crate) struct Backup {
    pub(crate) store: MemoryStore,
    pub(crate) record: Record,
    pub(crate) stored: super::watch::Stored,
    /// Runs that retention had deleted, and whether their tombstones stood.
    pub(crate) deleted: BTreeMap<RunId, bool>,
}

/// A region and what is around it.
pub(crate) struct Site {
    pub(crate) region: Region,
    pub(crate) up: bool,
    pub(crate) shards: u32,
    pub(crate) skew: Span,
    pub(crate) previous: bool,
    pub(crate) workers: bool,
    pub(crate) trouble: Trouble,
    pub(crate) waiting: BTreeMap<Ticket, Asker>,
    pub(crate) committing: BTreeSet<ShardId>,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) polling: bool,
    pub(crate) held: BTreeMap<u64, Task>,
    pub(crate) tasks: u64,
    pub(crate) cache: BTreeMap<RunId, Arc<Vec<HistoryEvent>>>,
    pub(crate) failing: VecDeque<Fault>,
    pub(crate) commit_span: [Span; 2],
    pub(crate) backup: Option<Backup>,
    pub(crate) hand_over: Option<HandOver>,
    pub(crate) incarnations: u64,
    pub(crate) table: Table,
    pub(crate) received: KnownStates,
    /// Fetches under way: link, stream and call.
    pub(crate) fetching: BTreeMap<u64, (usize, usize, u64, Call)>,
    /// Regions from which everything is asked for again, once.
    pub(crate) resend: BTreeSet<usize>,
    pub(crate) counted: BTreeMap<antipode_history::shard::Event, u64>,
    pub(crate) stale_counted: u64,
}

impl Site {
    pub(crate) fn new(setup: &RegionSetup, id: u32, record: &Record, world: &Setup) -> Result<Self, Failure> {
        let now = Timestamp(super::BEGIN.0 + setup.skew.0);
        let region = Region::with_entropy(&setup.name, id, setup.shards, record.clone(), now, world.seed)?;
        let mut table = Table::default();
        table.put(record.clone());
        Ok(Self {
            region,
            up: true,
            shards: setup.shards,
            skew: setup.skew,
            previous: setup.previous,
            workers: setup.workers,
            trouble: Trouble::default(),
            waiting: BTreeMap::new(),
            committing: BTreeSet::new(),
            wake_at: None,
            polling: false,
            held: BTreeMap::new(),
            tasks: 0,
            cache: BTreeMap::new(),
            failing: VecDeque::new(),
            commit_span: world.commit,
            backup: None,
            hand_over: None,
            incarnations: u64::from(id),
            table,
            received: KnownStates::new(16_384),
            fetching: BTreeMap::new(),
            resend: BTreeSet::new(),
            counted: BTreeMap::new(),
            stale_counted: 0,
        })
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnations)
    }
}

impl Engine {
    /// Carries out what a region's shards say, until they say nothing more.
    pub(crate) fn tend(&mut self, site: usize) -> Result<(), Failure> {
        if !self.sites[site].up {
            return Ok(());
        }
        let now = self.local(site);
        loop {
            self.sites[site].region.pump(now)?;
            self.take_judged(site);
            let mut moved = false;
            while let Some((ticket, answer)) = self.sites[site].region.answers.pop_first() {
                moved = true;
                self.answered(site, ticket, answer)?;
            }
            while let Some((ticket, applied)) = self.sites[site].region.applied.pop_first() {
                moved = true;
                self.applied(site, ticket, applied)?;
            }
            while let Some((ticket, answer)) = self.sites[site].region.barriers.pop_first() {
                moved = true;
                self.barrier_answered(site, ticket, answer)?;
            }
            if !moved {
                break;
            }
        }
        self.schedule_commits(site);
        self.schedule_poll(site);
        self.schedule_wake(site);
        self.count_events(site);
        if let Some(why) = self.sites[site].region.broken.pop() {
            let name = self.name(site).to_string();
            self.find("broken", format!("{name}: {why}"));
        }
        Ok(())
    }

    fn schedule_commits(&mut self, site: usize) {
        let life = self.sites[site].region.life();
        for shard in self.sites[site].region.commits_in_flight() {
            if self.sites[site].committing.insert(shard) {
                let span = self.between(self.sites[site].commit_span);
                self.after(span, Due::Commit { site, life, shard });
            }
        }
    }

    fn schedule_poll(&mut self, site: usize) {
        let here = &mut self.sites[site];
        if here.workers && !here.polling && !here.region.offers.is_empty() {
            here.polling = true;
            let life = here.region.life();
            let span = self.between([Span::micros(500), Span::millis(3)]);
            self.after(span, Due::Poll { site, life });
        }
    }

    fn schedule_wake(&mut self, site: usize) {
        let here = &self.sites[site];
        let Some(local) = here.region.wake_at() else { return };
        let at = Timestamp(local.0.saturating_sub(here.skew.0)).max(self.now);
        if here.wake_at.is_none_or(|known| at < known) {
            let life = here.region.life();
            self.sites[site].wake_at = Some(at);
            self.at(at, Due::Wake { site, life });
        }
    }

    pub(crate) fn wake(&mut self, site: usize, life: u64) -> Result<(), Failure> {
        let here = &mut self.sites[site];
        if !here.up || here.region.life() != life || here.wake_at != Some(self.now) {
            return Ok(());
        }
        here.wake_at = None;
        let now = self.local(site);
        self.sites[site].region.tick(now);
        self.tend(site)
    }

    pub(crate) fn commit_ends(&mut self, site: usize, life: u64, shard: ShardId) -> Result<(), Failure> {
        if !self.sites[site].up
            || self.sites[site].region.life() != life
            || !self.sites[site].committing.remove(&shard)
        {
            return Ok(());
        }
        let now = self.local(site);
        let fault = self.sites[site].failing.pop_front();
        if let Some(fault) = fault {
            let (kind, state) = match fault {
                Fault::Reject => ("commit rejected", State::CommitRejected),
                Fault::UnknownLost => ("commit unknown, lost", State::UnknownLost),
                Fault::UnknownWritten => ("commit unknown, written", State::UnknownWritten),
            };
            self.fault(kind);
            self.note(state);
            self.trace.line(Kind::Fault, Some(site), None, || format!("{shard}: {kind}"));
        }
        let dying = self.dying(site, Some(shard))?;
        match self.sites[site].region.finish_commit(now, shard, fault) {
            Ok(Some(group)) => {
                self.bury(site, &group, dying);
                self.committed(site, &group);
            }
            Ok(None) => {}
            Err(crate::region::Error::Broken { region, why }) => {
                self.find("broken", format!("{region}: a commit failed under a valid fence: {why}"));
                self.sites[site].region.fail_shard(shard, now, &why)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.tend(site)?;
        self.tips_moved(site)
    }

    fn answered(
        &mut self,
        site: usize,
        ticket: Ticket,
        answer: Result<Reply, Refusal>,
    ) -> Result<(), Failure> {
        match self.sites[site].waiting.remove(&ticket) {
            Some(Asker::Call(call)) => self.call_answered(site, call, answer),
            Some(Asker::Take { writable, offered }) => {
                self.check_handed_out(site, writable, &offered, &answer);
                self.task_taken(site, answer)
            }
            Some(Asker::Bring { worker, task }) => self.task_brought(worker, site, task, answer),
            Some(Asker::Fetch { token }) => self.fetched(site, token, answer),
            _ => Ok(()),
        }
    }

    /// A passive region hands out no task (V17), and a task that was offered is started for the event that it was offered for:
    /// on another branch the id may name another event, of another task queue (A5). A transient workflow task has no event; it
    /// takes the version under which it is started.
    fn check_handed_out(
        &mut self,
        site: usize,
        writable: bool,
        offered: &TaskRef,
        answer: &Result<Reply, Refusal>,
    ) {
        let token = match answer {
            Ok(Reply::WorkflowTask(task, _)) => &task.task_token,
            Ok(Reply::ActivityTask(task)) => &task.task_token,
            _ => return,
        };
        let name = self.name(site).to_string();
        if !writable {
            self.find("V17", format!("{name} hands out a task though the namespace is active elsewhere"));
        }
        let Ok(token) = token::decode(token) else { return };
        let mut started = token.task;
        if token.kind == TaskKind::Workflow && started.attempt > 1 {
            started.version = offered.version;
        }
        if started != *offered {
            let workflow = &token.key.workflow;
            self.find("A5", format!("{workflow}: {name} offered task {offered:?} and started {started:?}"));
        }
    }

    fn applied(&mut self, site: usize, ticket: Ticket, applied: Vec<Applied>) -> Result<(), Failure> {
        match self.sites[site].waiting.remove(&ticket) {
            Some(Asker::Apply { from, stream, token }) => {
                self.entries_applied(site, from, stream, token, applied)
            }
            _ => Ok(()),
        }
    }

    /// Verdicts become lines, and states worth counting.
    fn take_judged(&mut self, site: usize) {
        for (run, judgement) in std::mem::take(&mut self.sites[site].region.judged) {
            if let Judgement::Entry(explanation) = &*judgement {
                self.count_verdict(site, explanation);
            }
            self.told(site, &run, || judgement.words(), || Some(judgement.json()));
        }
        for (run, discard) in std::mem::take(&mut self.sites[site].region.stale) {
            self.told(site, &run, || discard.words(), || Some(discard.json()));
        }
        for (run, words) in std::mem::take(&mut self.sites[site].region.alarms) {
            // G2: only a region that was set back in time writes a place again.
            if self.watch.restores == 0 {
                let name = self.name(site).to_string();
                self.find("G2", format!("{name}, {run}: one owner wrote the same place twice: {words}"));
            }
            self.told(
                site,
                &run,
                || format!("alarm: one owner wrote the same place twice: {words}"),
                || None,
            );
        }
    }

    /// A verdict becomes a line.
    fn told(
        &mut self,
        site: usize,
        run: &RunKey,
        words: impl FnOnce() -> String,
        json: impl FnOnce() -> Option<serde_json::Value>,
    ) {
        if !self.trace.recorded() {
            return;
        }
        let (step, at) = (self.trace.step, self.trace.at());
        let line = Line {
            step,
            at,
            kind: Kind::Verdict,
            region: Some(site),
            workflow: Some(run.workflow.to_string()),
            run: Some(super::short(&run.run)),
            text: words(),
            detail: json(),
        };
        if let Some(recording) = &mut self.trace.recording {
            recording.lines.push(line);
        }
    }

    /// Verdicts on batches are states worth counting: what was stored counts, and what waits counts by what it waits for.
    fn count_verdict(&mut self, site: usize, explanation: &Explanation) {
        match (explanation.verdict, explanation.reason) {
            ("Duplicate", Reason::Stored) => self.note(State::Duplicate),
            ("NewBranch", _) => self.note(State::Branched),
            ("Extend", _) if !explanation.switches => self.note(State::LoserExtended),
            ("NeedEvents", Reason::SuccessorMissing) => self.note(State::SuccessorFirst),
            ("NeedEvents", Reason::RunMissing | Reason::ParentMissing | Reason::OwnerForked) => {
                self.note(State::NeedEvents);
            }
            _ => {}
        }
        if explanation.switches {
            self.note(State::Switched);
            let own = explanation.current.as_ref().and_then(|(items, _)| items.last());
            if own.is_some_and(|item| self.members.owns(&self.sites[site].region.name, item.version)) {
                self.note(State::OwnBranchLost);
            }
        }
    }

    /// Closed runs wait: their region asks its peers within a moment.
    fn ask_soon(&mut self, site: usize) {
        if self.sites.len() > 2 && self.links.asking.insert(site) {
            self.after(Span::seconds(1), Due::Ask { site });
        }
    }

    /// What shards counted since the last look becomes states and lines.
    fn count_events(&mut self, site: usize) {
        use antipode_history::shard::Event;
        let discards: u64 = self.sites[site].region.discards.values().sum();
        for _ in self.sites[site].stale_counted..discards {
            self.note(State::StaleTask);
        }
        self.sites[site].stale_counted = discards;
        if self.sites[site].region.events == self.sites[site].counted {
            return;
        }
        let events = self.sites[site].region.events.clone();
        for (event, count) in &events {
            let before = self.sites[site].counted.get(event).copied().unwrap_or(0);
            for _ in before..*count {
                match event {
                    Event::Reapplied => self.note(State::Reapplied),
                    Event::Unclaimed => self.note(State::Unclaimed),
                    Event::Zombie => self.note(State::Zombie),
                    Event::ActivityRetried => self.note(State::ActivityRetried),
                    Event::RunDeleted => self.note(State::RetentionDeleted),
                    Event::RetentionUnproved => {
                        self.note(State::RetentionWaited);
                        self.ask_soon(site);
                    }
                    Event::RetentionHeld => self.ask_soon(site),
                    Event::LateDuplicate => self.note(State::LateDuplicate),
                    Event::RunResurrected => self.note(State::Resurrected),
                    _ => {}
                }
                self.trace.line(Kind::Shard, Some(site), None, || format!("{event:?}"));
            }
        }
        self.sites[site].counted = events;
    }

    /// The branches of every run that a group changed, for the reader.
    pub(crate) fn record_trees(&mut self, site: usize, group: &antipode_persistence::rows::Group) {
        if !self.trace.recorded() {
            return;
        }
        let mut views = Vec::new();
        for row in &group.runs {
            let key = row.key.workflow_key();
            let region = &self.sites[site].region;
            let (Ok(runs), Ok(owner)) = (region.stored_runs(&key), region.stored_owner(&key)) else {
                continue;
            };
            if let Some(kept) = runs.get(&row.key.run) {
                views.push(self.tree_view(site, &row.key, kept, owner));
            }
        }
        if let Some(recording) = &mut self.trace.recording {
            recording.trees.extend(views);
        }
    }

    fn tree_view(&self, site: usize, key: &RunKey, kept: &Kept, owner: Option<RunId>) -> TreeView {
        let reports = kept.run.tree.as_ref().map(antipode_conflict::explain::branches).unwrap_or_default();
        let by_chain: BTreeMap<String, _> =
            kept.run.branches().iter().map(|branch| (branch.chain.to_string(), branch.chain)).collect();
        let branches = reports.into_iter().map(|report| {
            let mut events = by_chain.get(&report.chain).map(|chain| kept.events(*chain)).unwrap_or_default();
            if !report.current {
                let fork = report
                    .fork
                    .as_deref()
                    .and_then(|fork| fork.split('@').next())
                    .and_then(|id| id.parse().ok());
                let shared: i64 = fork.unwrap_or(0);
                events.retain(|event| event.event_id > shared);
            }
            TreeBranch {
                items: report.items,
                chain: report.chain,
                current: report.current,
                fork: report.fork,
                why: report.why,
                events: events
                    .iter()
                    .map(|event| TreeEvent {
                        id: event.event_id,
                        version: event.version,
                        kind: super::program::event_name(event),
                    })
                    .collect(),
            }
        });
        let open = kept.run.state.is_open();
        TreeView {
            at: self.trace.at(),
            step: self.trace.step,
            region: site,
            workflow: key.workflow.to_string(),
            run: super::short(&key.run),
            state: match (open, owner == Some(key.run)) {
                (false, _) => "closed",
                (true, true) => "open",
                (true, false) => "superseded",
            },
            current_run: owner == Some(key.run),
            branches: branches.collect(),
        }
    }
}
