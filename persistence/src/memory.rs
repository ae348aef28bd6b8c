//! A store in memory: deterministic, ordered, forgotten when dropped. Tests use it and the simulator will; it can be told to
//! fail its next commit in each of the ways a database can (D2).

mod indexes;
mod records;

pub(crate) use indexes::cut;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use antipode_core::ids::{NamespaceId, RangeId, RunKey, Sequence, ShardId, Timestamp, WorkflowKey};
use async_trait::async_trait;

use crate::{
    CommitError, Error, check,
    rows::{
        Acquired, BatchRow, CurrentRow, DispatchChange, Group, Identity, LogEntry, LogPage, NamespaceRow,
        ObligationChange, PositionRow, QuarantineRow, RegionRow, RunRow, StoredRun, TaskKind, VisibilityRow,
    },
    store::{RunStore, ShardStore},
};

/// How a commit is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Rejected: nothing is written.
    Reject,
    /// Unknown, and nothing was written.
    UnknownLost,
    /// Unknown, and everything was written.
    UnknownWritten,
}

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    identity: Identity,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, Shard>,
    runs: BTreeMap<RunKey, Run>,
    runs_stored: i64,
    log: BTreeMap<(ShardId, Sequence), BatchRow>,
    changed: BTreeSet<(ShardId, Sequence, RunKey)>,
    currents: BTreeMap<WorkflowKey, (ShardId, CurrentRow)>,
    wakes: BTreeSet<(ShardId, NamespaceId, Timestamp, RunKey)>,
    dispatch: BTreeMap<(RunKey, String, TaskKind), (ShardId, Sequence)>,
    obligations: BTreeMap<RunKey, (ShardId, Timestamp)>,
    visibility: BTreeMap<RunKey, (i64, VisibilityRow)>,
    namespaces: BTreeMap<NamespaceId, NamespaceRow>,
    regions: BTreeMap<String, RegionRow>,
    positions: BTreeMap<(u32, u64, ShardId), PositionRow>,
    /// By run and source.
    quarantine: BTreeMap<(RunKey, u32), QuarantineRow>,
    faults: VecDeque<Fault>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    range: RangeId,
    sequence: Sequence,
}

#[derive(Clone, Debug)]
struct Run {
    /// Order of first storing: the last tie-breaker of a visibility list.
    id: i64,
    shard: ShardId,
    row: RunRow,
    batches: Vec<BatchRow>,
}

/// A copy with a life of its own: what would a store have become on another way?
impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { identity: self.identity.clone(), state: Mutex::new(self.state().clone()) }
    }
}

impl MemoryStore {
    /// Empty, for this region.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity, state: Mutex::new(State::default()) }
    }

    /// The same content under another identity: a backup, or a store that is restored from one (E2).
    #[must_use]
    pub fn copy(&self, identity: Identity) -> Self {
        Self { identity, state: Mutex::new(self.state().clone()) }
    }

    /// Makes a commit fail; calls queue up.
    pub fn fail_next(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everything that can refuse the group, before anything is written.
    fn admit(&self, group: &Group) -> Result<(), CommitError> {
        let shard = self.shards.get(&group.shard).copied().unwrap_or_default();
        if shard.range != group.range || shard.sequence != group.after || shard.range == RangeId(0) {
            return Err(CommitError::Fenced { shard: group.shard, range: group.range, after: group.after });
        }
        check::group(group)?;
        let written: BTreeSet<_> = group.runs.iter().map(|row| &row.key).collect();
        let deleted: BTreeSet<_> = group.deletes.iter().collect();
        let stays = |key: &RunKey| !deleted.contains(key) && self.runs.contains_key(key);
        let known = |key: &RunKey| written.contains(key) || stays(key);
        let needed = group
            .batches
            .iter()
            .map(|row| &row.batch.envelope.run)
            .chain(group.visibility.iter().map(|row| &row.key))
            .chain(group.dispatch.iter().filter_map(|change| match change {
                DispatchChange::Put(row) => Some(&row.key),
                DispatchChange::Remove { .. } => None,
            }))
            .chain(group.obligations.iter().filter_map(|change| match change {
                ObligationChange::Put { key, .. } => Some(key),
                ObligationChange::Remove { .. } => None,
            }));
        if let Some(key) = needed.into_iter().find(|key| !known(key)) {
            return Err(CommitError::Rejected(format!("run {key} has rows but is not stored")));
        }
        let moved_back = |row: &RunRow| {
            let stored = self.runs.get(&row.key).filter(|_| !deleted.contains(&row.key));
            stored.is_some_and(|stored| row.changed_at < stored.row.changed_at)
        };
        if let Some(row) = group.runs.iter().find(|row| moved_back(row)) {
            return Err(CommitError::Rejected(check::moved_back(row)));
        }
        let lowered = group.currents.iter().find(|row| {
            let stored = self.currents.get(&row.key).filter(|_| !group.forgets.contains(&row.key));
            stored.is_some_and(|(_, stored)| check::order(row) < check::order(stored))
        });
        lowered.map_or(Ok(()), |row| Err(check::lowered(row)))
    }

    fn write(&mut self, group: Group) {
        let shard = group.shard;
        if let Some(owned) = self.shards.get_mut(&shard) {
            owned.sequence = group.through;
        }
        for key in &group.deletes {
            self.delete_run(shard, key);
        }
        for key in &group.forgets {
            self.currents.remove(key);
        }
        for row in group.runs {
            self.write_run(shard, row);
        }
        for row in group.batches {
            if let Some(run) = self.runs.get_mut(&row.batch.envelope.run) {
                run.batches.push(row.clone());
            }
            self.log.insert((shard, row.sequence), row);
        }
        for row in group.currents {
            self.currents.insert(row.key.clone(), (shard, row));
        }
        for change in group.dispatch {
            match change {
                DispatchChange::Put(row) => {
                    self.dispatch.insert((row.key, row.queue, row.kind), (shard, row.order));
                }
                DispatchChange::Remove { key, queue, kind } => {
                    self.dispatch.remove(&(key, queue, kind));
                }
            }
        }
        for change in group.obligations {
            match change {
                ObligationChange::Put { key, due } => self.obligations.insert(key, (shard, due)),
                ObligationChange::Remove { key } => self.obligations.remove(&key),
            };
        }
        for row in group.visibility {
            let id = self.runs.get(&row.key).map_or(0, |run| run.id);
            self.visibility.insert(row.key.clone(), (id, row));
        }
    }

    fn write_run(&mut self, shard: ShardId, row: RunRow) {
        let wake = |row: &RunRow| row.wake_at.map(|at| (shard, row.key.namespace, at, row.key.clone()));
        self.changed.insert((shard, row.changed_at, row.key.clone()));
        if let Some(entry) = wake(&row) {
            self.wakes.insert(entry);
        }
        if let Some(run) = self.runs.get_mut(&row.key) {
            let old = std::mem::replace(&mut run.row, row);
            let moved = run.row.changed_at != old.changed_at;
            if moved {
                self.changed.remove(&(shard, old.changed_at, old.key.clone()));
            }
            if run.row.wake_at != old.wake_at
                && let Some(entry) = wake(&old)
            {
                self.wakes.remove(&entry);
            }
        } else {
            self.runs_stored += 1;
            let run = Run { id: self.runs_stored, shard, row, batches: Vec::new() };
            self.runs.insert(run.row.key.clone(), run);
        }
    }

    fn delete_run(&mut self, shard: ShardId, key: &RunKey) {
        let Some(run) = self.runs.remove(key) else { return };
        for row in &run.batches {
            self.log.remove(&(shard, row.sequence));
        }
        self.changed.remove(&(shard, run.row.changed_at, key.clone()));
        if let Some(at) = run.row.wake_at {
            self.wakes.remove(&(shard, key.namespace, at, key.clone()));
        }
        let first = (key.clone(), String::new(), TaskKind::Workflow);
        let rows = self.dispatch.range(first..).map(|(row, _)| row).take_while(|(of, ..)| of == key);
        for row in rows.cloned().collect::<Vec<_>>() {
            self.dispatch.remove(&row);
        }
        self.obligations.remove(key);
        self.visibility.remove(key);
    }

    fn runs_of(&self, shard: ShardId, key: &WorkflowKey) -> impl Iterator<Item = &Run> {
        let first = key.run(antipode_core::ids::RunId(uuid::Uuid::nil()));
        let key = key.clone();
        self.runs
            .range(first..)
            .map(|(_, run)| run)
            .take_while(move |run| {
                run.row.key.namespace == key.namespace && run.row.key.workflow == key.workflow
            })
            .filter(move |run| run.shard == shard)
    }
}

#[async_trait]
impl ShardStore for MemoryStore {
    async fn shard_acquire(&self, shard: ShardId, _owner: &str) -> Result<Acquired, Error> {
        let mut state = self.state();
        let owned = state.shards.entry(shard).or_default();
        owned.range = RangeId(owned.range.0 + 1);
        Ok(Acquired { range: owned.range, sequence: owned.sequence })
    }

    async fn shard_commit(&self, group: Group) -> Result<(), CommitError> {
        let mut state = self.state();
        let fault = state.faults.pop_front();
        if fault == Some(Fault::Reject) {
            return Err(CommitError::Rejected("made to fail".to_string()));
        }
        state.admit(&group)?;
        let unknown = Err(CommitError::Unknown("made to fail".to_string()));
        if fault == Some(Fault::UnknownLost) {
            return unknown;
        }
        state.write(group);
        if fault == Some(Fault::UnknownWritten) { unknown } else { Ok(()) }
    }

    async fn shard_positions(&self) -> Result<Vec<(ShardId, Sequence)>, Error> {
        Ok(self.state().shards.iter().map(|(shard, owned)| (*shard, owned.sequence)).collect())
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn run_load(&self, shard: ShardId, key: &RunKey) -> Result<Option<StoredRun>, Error> {
        let state = self.state();
        let run = state.runs.get(key).filter(|run| run.shard == shard);
        Ok(run.map(|run| StoredRun { row: run.row.clone(), batches: run.batches.clone() }))
    }

    async fn run_list(&self, shard: ShardId, key: &WorkflowKey) -> Result<Vec<RunRow>, Error> {
        Ok(self.state().runs_of(shard, key).map(|run| run.row.clone()).collect())
    }

    async fn current_load(&self, shard: ShardId, key: &WorkflowKey) -> Result<Option<CurrentRow>, Error> {
        let state = self.state();
        let found = state.currents.get(key).filter(|(stored, _)| *stored == shard);
        Ok(found.map(|(_, row)| row.clone()))
    }

    async fn log_read(&self, shard: ShardId, after: Sequence, bytes_max: usize) -> Result<LogPage, Error> {
        let state = self.state();
        let tip = state.shards.get(&shard).map_or(Sequence(0), |owned| owned.sequence);
        if after >= tip {
            return Ok(LogPage { through: after, entries: Vec::new() });
        }
        let batches = state.log.range((shard, after.next())..=(shard, tip)).map(|(_, row)| row);
        let mut batches = batches.peekable();
        let nobody = RunKey {
            namespace: NamespaceId(uuid::Uuid::nil()),
            workflow: "".into(),
            run: antipode_core::ids::RunId(uuid::Uuid::nil()),
        };
        let mut runs = state
            .changed
            .range((shard, after.next(), nobody)..)
            .take_while(|(of, ..)| *of == shard)
            .filter_map(|(.., key)| state.runs.get(key))
            .peekable();
        let mut page = LogPage { through: tip, entries: Vec::new() };
        let (mut bytes, mut last) = (0, after);
        loop {
            let batch_at = batches.peek().map(|row| row.sequence);
            let run_at = runs.peek().map(|run| run.row.changed_at);
            let Some(next) = batch_at.into_iter().chain(run_at).min() else { return Ok(page) };
            if bytes >= bytes_max && next > last && !page.entries.is_empty() {
                page.through = last;
                return Ok(page);
            }
            last = next;
            if batch_at == Some(next) {
                if let Some(row) = batches.next() {
                    bytes += row.batch.size();
                    page.entries.push(LogEntry::Batch(row.clone()));
                }
            } else if let Some(run) = runs.next() {
                bytes += run.row.head.len();
                page.entries.push(LogEntry::Run(run.row.clone()));
            }
        }
    }
}
