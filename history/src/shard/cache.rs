//! The runs a shard holds in memory: per workflow id the current record and the runs in use, with what was stored of them
//! and who waits on them. Least recently used ones leave when the bytes run out, once they are durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_conflict::RunFacts;
use antipode_core::{
    batch::Batch,
    ids::{Place, RunId, RunKey, RunOrder, Sequence, Timestamp, WorkflowKey},
    run::Run,
};
use antipode_persistence::rows::{RunRow, StoredRun, TaskKind};
use antipode_proto::core as wire;
use prost::Message;

use super::{Load, Loaded, Output, Shard, Stop, Token, retention::Tombstone};
use crate::api::{HistoryRequest, Offer, Refusal, TaskRef};

/// A workflow id in memory.
#[derive(Clone)]
pub(super) struct Workflow<T> {
    /// The current record; none: no run was ever stored.
    pub(super) current: Option<wire::CurrentRecord>,
    /// Runs in memory. Boxed: a map's node has room for eleven, and a workflow id mostly has one.
    pub(super) runs: BTreeMap<RunId, Box<Cached<T>>>,
    /// Runs known not to be stored.
    pub(super) absent: BTreeSet<RunId>,
    /// Deleted runs of which a tombstone is stored.
    pub(super) deleted: BTreeMap<RunId, Tombstone>,
    /// All stored runs of the id, once asked for.
    pub(super) listed: Option<Vec<RunRow>>,
    /// They were listed while a change was in flight: those in memory complete the list as long as it is.
    pub(super) listed_early: bool,
    /// Newest state of any of its runs: what answers about it wait for.
    pub(super) changed: Sequence,
    used: u64,
    bytes: usize,
}

/// A run in memory.
#[derive(Clone)]
pub(super) struct Cached<T> {
    /// The run.
    pub(super) run: Run,
    /// Position of its last change (C1).
    pub(super) changed_at: Sequence,
    /// Wake-up as stored.
    pub(super) stored_wake: Option<Timestamp>,
    /// When a closed run is to be looked at for deletion, as stored (C6).
    pub(super) retire_at: Option<Timestamp>,
    /// Wake-up in the shard's memory.
    pub(super) wake: Option<Timestamp>,
    /// Rows of the dispatch index as stored.
    pub(super) rows: BTreeSet<(String, TaskKind)>,
    /// Tasks that matching was offered and has not refused.
    pub(super) offers: BTreeSet<(TaskKind, TaskRef)>,
    /// A superseded run whose clients' events were handed over since its last change (B1).
    pub(super) handed_over: bool,
    /// Whether its verdicts that rest on other runs were judged since it was loaded (B1).
    pub(super) judged: bool,
    /// Only a losing branch of its predecessor continued into it: what it took is owed although it closed (B1).
    pub(super) lost: bool,
    /// What visibility shows, to see a change: status, superseded, memo and attributes as they were.
    pub(super) shown: Option<Shown>,
    /// Long polls for history.
    pub(super) readers: Vec<(T, HistoryRequest)>,
    /// Queries that wait for the workflow task to end.
    pub(super) queries: Vec<(T, i32)>,
}

/// What of a run visibility shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) status: i32,
    pub(super) superseded: bool,
    pub(super) memo: Option<antipode_proto::api::common::v1::Memo>,
    pub(super) search_attributes: Option<antipode_proto::api::common::v1::SearchAttributes>,
}

impl<T> Workflow<T> {
    fn new(current: Option<wire::CurrentRecord>) -> Self {
        Self {
            current,
            runs: BTreeMap::new(),
            absent: BTreeSet::new(),
            deleted: BTreeMap::new(),
            listed: None,
            listed_early: false,
            changed: Sequence(0),
            used: 0,
            bytes: 0,
        }
    }

    /// The run that owns the id.
    pub(super) fn current_run(&self) -> Option<RunId> {
        self.current.as_ref().and_then(|record| record.run_id.parse().ok())
    }

    /// The run that owns the id, as it is compared with others.
    pub(super) fn owner(&self) -> Option<RunFacts> {
        let open = self.current.as_ref().is_some_and(|record| record.open);
        self.current_run().map(|run| RunFacts { run, order: self.current_order(), open })
    }

    /// Order of the run that owns the id.
    pub(super) fn current_order(&self) -> RunOrder {
        self.current.as_ref().map_or_else(RunOrder::default, |record| RunOrder {
            version: antipode_core::ids::FailoverVersion(record.version),
            place: record
                .place
                .as_ref()
                .map_or_else(Place::default, |place| Place { epoch: place.epoch, sequence: place.sequence }),
        })
    }

    /// Whether this run owns the id. One that was deleted and comes back, event by event, owns it again when it has
    /// grown past its record: before that it is open only because its end is still on its way.
    fn is_owned_by(&self, run: &Run) -> bool {
        let comes_back = run.state.is_open()
            && self.current.as_ref().is_some_and(|record| !record.open)
            && run.order() < self.current_order();
        self.current_run() == Some(run.key.run) && !comes_back
    }

    pub(super) fn forget_offers(&mut self) {
        for cached in self.runs.values_mut() {
            cached.offers.clear();
        }
    }

    pub(super) fn forget_offer(&mut self, offer: &Offer) {
        if let Some(cached) = self.runs.get_mut(&offer.key.run) {
            cached.offers.remove(&(offer.kind, offer.task.clone()));
        }
    }

    pub(super) fn take_waiters(&mut self) -> Vec<T> {
        let mut waiters = Vec::new();
        for cached in self.runs.values_mut() {
            waiters.extend(std::mem::take(&mut cached.readers).into_iter().map(|(token, _)| token));
            waiters.extend(std::mem::take(&mut cached.queries).into_iter().map(|(token, _)| token));
        }
        waiters
    }

    fn has_waiters(&self) -> bool {
        self.runs.values().any(|cached| !cached.readers.is_empty() || !cached.queries.is_empty())
    }
}

impl<T> Cached<T> {
    /// A run that begins here.
    pub(super) fn begun(run: Run) -> Self {
        Self {
            run,
            changed_at: Sequence(0),
            stored_wake: None,
            retire_at: None,
            wake: None,
            rows: BTreeSet::new(),
            offers: BTreeSet::new(),
            handed_over: false,
            judged: true,
            lost: false,
            shown: None,
            readers: Vec::new(),
            queries: Vec::new(),
        }
    }

    fn size(&self) -> usize {
        let state = &self.run.state;
        let history = usize::try_from(state.history_bytes).unwrap_or(0);
        1_024
            + history
            + self.run.batches.len() * 512
            + state.activities.len() * 512
            + self.run.registers.len() * 128
    }
}

impl<T: Token> Shard<T> {
    /// Sees that the workflow id is in memory.
    pub(super) fn need_workflow(&mut self, key: &WorkflowKey) -> Result<(), Stop> {
        if !self.workflows.contains_key(key) {
            return Err(Stop::Load(Load::Workflow(key.clone())));
        }
        self.touch(key);
        Ok(())
    }

    /// Sees that the run is in memory, and judged. False: it is not stored.
    pub(super) fn need_run(&mut self, key: &RunKey) -> Result<bool, Stop> {
        let stored = self.need_alone(key)?;
        if stored && !self.cached(key)?.judged {
            self.need_judged(key)?;
        }
        Ok(stored)
    }

    /// Sees that the run is in memory; its verdicts may rest on runs that are not.
    pub(super) fn need_alone(&mut self, key: &RunKey) -> Result<bool, Stop> {
        let workflow_key = key.workflow_key();
        self.need_workflow(&workflow_key)?;
        let Some(workflow) = self.workflows.get(&workflow_key) else { return Ok(false) };
        if workflow.runs.contains_key(&key.run) {
            return Ok(true);
        }
        if workflow.absent.contains(&key.run) || workflow.deleted.contains_key(&key.run) {
            return Ok(false);
        }
        Err(Stop::Load(Load::Run(key.clone())))
    }

    fn touch(&mut self, key: &WorkflowKey) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(workflow) = self.workflows.get_mut(key) {
            self.used.remove(&workflow.used);
            workflow.used = clock;
            self.used.insert(clock, key.clone());
        }
    }

    pub(super) fn take_loaded(
        &mut self,
        key: &WorkflowKey,
        load: &Load,
        loaded: Loaded,
    ) -> Result<(), String> {
        match (load, loaded) {
            (Load::Workflow(_), Loaded::Workflow(current, stored)) => {
                self.workflows
                    .entry(key.clone())
                    .or_insert_with(|| Workflow::new(current.map(|row| row.record)));
                self.touch(key);
                if let Some(stored) = stored {
                    self.restore(key, stored)?;
                }
            }
            (Load::Run(run), Loaded::Run(stored)) => match stored {
                Some(stored) => self.restore(key, stored)?,
                None => {
                    if let Some(workflow) = self.workflows.get_mut(key) {
                        workflow.absent.insert(run.run);
                    }
                }
            },
            (Load::Runs(_), Loaded::Runs(rows)) => {
                let early = self.changed(key) > self.durable;
                if let Some(workflow) = self.workflows.get_mut(key) {
                    workflow.listed = Some(rows);
                    workflow.listed_early = early;
                }
            }
            _ => return Err("a read brought something else than was asked for".to_string()),
        }
        self.account(key);
        Ok(())
    }

    fn restore(&mut self, key: &WorkflowKey, stored: StoredRun) -> Result<(), String> {
        let head = wire::RunHead::decode(&*stored.row.head).map_err(|error| format!("head: {error}"))?;
        let run_id = stored.row.key.run;
        if let Some(tombstone) = Tombstone::of(&stored.row, &head) {
            if let Some(workflow) = self.workflows.get_mut(key) {
                workflow.deleted.insert(run_id, tombstone);
            }
            return Ok(());
        }
        let batches = stored.batches.iter().map(|row| Arc::clone(&row.batch));
        let run = Run::restore(stored.row.key.clone(), &head, batches).map_err(|error| error.to_string())?;
        let Some(workflow) = self.workflows.get_mut(key) else { return Ok(()) };
        if workflow.runs.contains_key(&run_id) {
            return Ok(()); // It came by another way meanwhile, and is newer.
        }
        let mut cached = Cached::begun(run);
        cached.judged = cached.run.rests_on().is_empty();
        cached.changed_at = stored.row.changed_at;
        cached.stored_wake = stored.row.wake_at;
        cached.retire_at = super::retention::due(&cached.run, self.namespaces.get(&key.namespace));
        let current = workflow.is_owned_by(&cached.run);
        cached.rows = super::derive::rows(&cached.run, current);
        cached.shown = Some(super::derive::shown(&cached.run, current));
        workflow.runs.insert(run_id, Box::new(cached));
        self.rearm(key, run_id);
        Ok(())
    }

    /// A run that begins or arrives here for the first time.
    pub(super) fn insert_run(&mut self, run: Run) {
        let key = run.key.workflow_key();
        let workflow = self.workflows.entry(key).or_insert_with(|| Workflow::new(None));
        workflow.absent.remove(&run.key.run);
        let tombstone = workflow.deleted.remove(&run.key.run);
        workflow.listed = None;
        let mut cached = Cached::begun(run);
        // C6: it comes back with what was filed on it.
        if let Some(tombstone) = tombstone {
            cached.run.come_back(&tombstone.head().unclaimed);
            cached.run.came_back = true;
        }
        workflow.runs.insert(cached.run.key.run, Box::new(cached));
    }

    pub(super) fn cached(&self, key: &RunKey) -> Result<&Cached<T>, Refusal> {
        self.workflows
            .get(&key.workflow_key())
            .and_then(|workflow| workflow.runs.get(&key.run))
            .map(Box::as_ref)
            .ok_or_else(|| Refusal::Internal(format!("run {key} left the cache while in use")))
    }

    pub(super) fn cached_mut(&mut self, key: &RunKey) -> Result<&mut Cached<T>, Refusal> {
        self.workflows
            .get_mut(&key.workflow_key())
            .and_then(|workflow| workflow.runs.get_mut(&key.run))
            .map(Box::as_mut)
            .ok_or_else(|| Refusal::Internal(format!("run {key} left the cache while in use")))
    }

    /// Whether this run owns its workflow id.
    pub(super) fn is_current(&self, key: &RunKey) -> bool {
        let Some(workflow) = self.workflows.get(&key.workflow_key()) else { return false };
        match workflow.runs.get(&key.run) {
            Some(cached) => workflow.is_owned_by(&cached.run),
            None => workflow.current_run() == Some(key.run),
        }
    }

    /// Newest state of the workflow id: what an answer about it waits for.
    pub(super) fn changed(&self, key: &WorkflowKey) -> Sequence {
        self.workflows.get(key).map_or(Sequence(0), |workflow| workflow.changed)
    }

    pub(super) fn account(&mut self, key: &WorkflowKey) {
        if let Some(workflow) = self.workflows.get_mut(key) {
            let bytes = 256
                + workflow.deleted.len() * 256
                + workflow.runs.values().map(|cached| cached.size()).sum::<usize>();
            self.cached_bytes = (self.cached_bytes + bytes).saturating_sub(workflow.bytes);
            workflow.bytes = bytes;
        }
    }

    /// Drops the least recently used workflow ids until the rest fits.
    pub(super) fn evict(&mut self) {
        if self.cached_bytes <= self.setting.cache_bytes {
            return;
        }
        let candidates: Vec<_> = self.used.iter().take(64).map(|(used, key)| (*used, key.clone())).collect();
        for (used, key) in candidates {
            if self.cached_bytes <= self.setting.cache_bytes {
                return;
            }
            let Some(workflow) = self.workflows.get(&key) else {
                self.used.remove(&used);
                continue;
            };
            let busy =
                workflow.changed > self.durable || workflow.has_waiters() || self.parked.contains_key(&key);
            if busy {
                self.touch(&key);
                continue;
            }
            self.cached_bytes = self.cached_bytes.saturating_sub(workflow.bytes);
            self.workflows.remove(&key);
            self.used.remove(&used);
        }
    }

    /// Forgets waiters whose caller is gone.
    pub(super) fn drop_abandoned(&mut self) {
        for cached in self.workflows.values_mut().flat_map(|workflow| workflow.runs.values_mut()) {
            cached.readers.retain(|(token, _)| !token.is_abandoned());
            cached.queries.retain(|(token, _)| !token.is_abandoned());
        }
    }

    /// Adds a batch to the group that gathers.
    pub(super) fn gather_batch(&mut self, batch: &Arc<Batch>, at: Sequence) {
        let row = antipode_persistence::rows::BatchRow { sequence: at, batch: Arc::clone(batch) };
        self.gather.batches.push(row);
        self.sequence = self.sequence.max(at);
    }

    /// Offers the task of a refused sticky offer to the normal queue.
    pub(super) fn offer_normal(&mut self, offer: &Offer) {
        let Ok(cached) = self.cached(&offer.key) else { return };
        let still = cached.run.task().is_some_and(|task| {
            task.started.is_none() && antipode_core::decide::workflow_task::task_ref(&task) == offer.task
        });
        let queue = cached.run.state.start.as_ref().map(|start| start.queue().to_string());
        if let (true, Some(queue)) = (still, queue) {
            let offer = Offer { queue, sticky: false, ..offer.clone() };
            self.outputs.push(Output::Offer(offer));
        }
    }
}
