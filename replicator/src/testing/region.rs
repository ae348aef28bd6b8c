//! A region with one shard that knows only chains and registers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_core::{
    batch::{Batch, Envelope, Origin},
    chain::ChainValue,
    ids::{
        EventId, FailoverVersion, Incarnation, NamespaceId, Place, RegionId, RunId, RunKey, Sequence,
        ShardId, WorkflowId,
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
    link::{self, FetchRunResponse, RegionInfo},
};
use prost::Message;

use crate::{
    entry,
    records::{Records, Table},
    selection::KnownStates,
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
            features: crate::handshake::FEATURES,
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
            recent: vec![],
            fold_version: 1,
            clock: None,
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
            Replicated::Batch(batch) | Replicated::Last(batch) => batch.envelope.run.clone(),
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
            Replicated::Batch(batch) | Replicated::Last(batch) => {
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

/// Keeps the trait in scope for tests that look at a table.
pub(crate) fn version_of(table: &Table) -> Option<FailoverVersion> {
    table.version(namespace())
}
