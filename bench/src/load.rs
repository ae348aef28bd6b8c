//! One measurement of one case against one server: warm up, measure, settle, finish what is open, look whether
//! everything is there exactly once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    api::{Api, CALL_DEADLINE, Client, within},
    case::{Case, Pace, Shape},
    clock,
    error::Result,
    errors::{Errors, persistent},
    faults::Faults,
    lanes::Lanes,
    ledger::{Ledger, Meter, Reading},
    outcome::Outcome,
    process::{self, Usage},
    requests::{Names, SIGNAL},
    verify, worker,
};

/// Timers of the runtime wake late by up to this much; what is later than that is the server's doing.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What all cases share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of every call.
    pub namespace: String,
    /// Idle seconds before each server is started, for whoever shares the machine.
    pub pause: Duration,
    /// Seconds before the figures count.
    pub warm_up: Duration,
    /// Seconds of the figures.
    pub measure: Duration,
    /// Seconds after it in which the server's processor time still counts.
    pub settle: Duration,
    /// How long a slot waits for its workflow before it goes on without it (the ledger keeps the debt), and how long
    /// the rest may make no progress before it counts as lost.
    pub patience: Duration,
    /// Connections.
    pub connections: usize,
    /// Workflow-task pollers.
    pub workflow_pollers: usize,
    /// Activity-task pollers.
    pub activity_pollers: usize,
    /// Pollers of the sticky queue; none: the worker caches nothing.
    pub sticky_pollers: usize,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Histories read afterwards; none: all of them.
    pub sample: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: "default".to_string(),
            pause: Duration::ZERO,
            warm_up: Duration::from_secs(2),
            measure: Duration::from_secs(10),
            settle: Duration::from_secs(2),
            patience: Duration::from_secs(30),
            connections: 2,
            workflow_pollers: 8,
            activity_pollers: 8,
            sticky_pollers: 8,
            payload_bytes: 100,
            sample: Some(500),
        }
    }
}

/// Everything the tasks of one measurement share.
#[derive(Debug)]
pub struct Bench {
    /// The server.
    pub api: Api,
    /// What is measured.
    pub case: Case,
    /// How.
    pub settings: Settings,
    /// Names of this run.
    pub names: Names,
    /// Workflows and signals, by number.
    pub ledger: Ledger,
    /// Workflows that take signals.
    pub lanes: Lanes,
    /// Refusals.
    pub errors: Errors,
    foreign: Mutex<Vec<String>>,
}

impl Bench {
    /// A new run against a server.
    #[must_use]
    pub fn new(api: Api, case: Case, settings: &Settings) -> Arc<Self> {
        let names = Names::new(&clock::prefix(), &settings.namespace, settings.payload_bytes);
        Arc::new(Self {
            api,
            case,
            names,
            settings: settings.clone(),
            ledger: Ledger::default(),
            lanes: Lanes::new(case.shape.lanes()),
            errors: Errors::default(),
            foreign: Mutex::default(),
        })
    }

    /// Whether the worker caches workflows: a workflow of one task has nothing to cache.
    #[must_use]
    pub fn sticky(&self) -> bool {
        let cached = matches!(self.case.shape, Shape::Activity | Shape::Signal | Shape::Fanin);
        cached && self.settings.sticky_pollers > 0
    }

    /// A task arrived that this run never asked for.
    pub fn foreign(&self, what: &str) {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_string());
    }

    fn foreign_faults(&self) -> Faults {
        let mut faults = Faults::default();
        for what in self.foreign.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            faults.wrong(format!("a task arrived for `{what}`"));
        }
        faults
    }

    async fn start(&self, client: &Client, number: usize) -> bool {
        let start = || {
            let mut client = client.clone();
            let request = self.names.start(self.names.workflow_id(number), number);
            async move { client.start_workflow_execution(within(CALL_DEADLINE, request)).await }
        };
        let accepted = persistent(&self.errors, "StartWorkflowExecution", start).await.is_ok();
        if accepted {
            self.ledger.accepted(number);
        }
        accepted
    }

    async fn signal(&self, client: &Client, number: usize) -> bool {
        let Ok(lane) = self.lanes.target(number, &self.names, client, &self.errors).await else {
            return false;
        };
        let signal = || {
            let mut client = client.clone();
            let request = self.names.signal(&self.names.lane_id(lane), SIGNAL, number);
            async move { client.signal_workflow_execution(within(CALL_DEADLINE, request)).await }
        };
        let accepted = persistent(&self.errors, "SignalWorkflowExecution", signal).await.is_ok();
        if accepted {
            self.ledger.accepted(number);
        }
        accepted
    }

    /// One operation from begin to end.
    async fn operation(&self, client: &Client, begin: Instant, meter: &Meter) {
        let (number, closed) = self.ledger.begin();
        let end = match self.case.shape {
            Shape::Start => self.start(client, number).await.then(clock::now),
            Shape::Signal | Shape::Fanin => self.signal(client, number).await.then(clock::now),
            Shape::Echo | Shape::Activity => {
                if self.start(client, number).await {
                    tokio::time::timeout(self.settings.patience, closed).await.ok().and_then(Result::ok)
                } else {
                    None
                }
            }
        };
        if let Some(end) = end {
            meter.record(begin, end);
        }
    }
}

/// Begins operations at the case's pace for a while; returns when all of them ended.
///
/// # Errors
/// When the histogram cannot be made.
pub async fn phase(bench: &Arc<Bench>, length: Duration) -> Result<Reading> {
    let meter = Arc::new(Meter::new(clock::now() + length)?);
    let mut tasks = JoinSet::new();
    match bench.case.pace {
        Pace::Slots(slots) => {
            for slot in 0..slots as usize {
                let (bench, meter) = (bench.clone(), meter.clone());
                tasks.spawn(async move {
                    let client = bench.api.client(slot);
                    while clock::now() < meter.until() {
                        bench.operation(&client, clock::now(), &meter).await;
                    }
                });
            }
        }
        Pace::Rate(rate) => {
            let step = Duration::from_secs(1) / rate;
            let mut due = clock::now();
            let mut user = 0;
            while due < meter.until() {
                clock::sleep_until(due).await;
                let woken = clock::now();
                let begin = if woken.saturating_duration_since(due) < TIMER_GRAIN { woken } else { due };
                let (bench, meter) = (bench.clone(), meter.clone());
                let client = bench.api.client(user);
                tasks.spawn(async move { bench.operation(&client, begin, &meter).await });
                while tasks.try_join_next().is_some() {}
                due += step;
                user += 1;
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(meter.read())
}

/// Waits until every acknowledged workflow is closed, or nothing moves any more. Answers how many a second were closed.
async fn drain(bench: &Bench) -> Option<f64> {
    let (begin, first) = (clock::now(), bench.ledger.open());
    let (mut open, mut moved) = (first, begin);
    while open > 0 && moved.elapsed() < bench.settings.patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let left = bench.ledger.open();
        if left != open {
            (open, moved) = (left, clock::now());
        }
    }
    let seconds = moved.duration_since(begin).as_secs_f64();
    (first > open && seconds > 0.0).then(|| (first - open) as f64 / seconds)
}

/// Who is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name in reports.
    pub server: String,
    /// `http://host:port`.
    pub address: String,
    /// Its process, if known.
    pub pid: Option<u32>,
    /// Another process that works because of it, such as the other region's.
    pub beside: Option<u32>,
}

/// Measures one case.
///
/// # Errors
/// When the server cannot be reached or its process cannot be read. Lost and doubled work is in the outcome.
pub async fn measure(target: &Target, case: Case, settings: &Settings) -> Result<Outcome> {
    let api = Api::connect(&target.address, &settings.namespace, settings.connections).await?;
    measure_run(&Bench::new(api, case, settings), target).await
}

/// Measures with a run's own books, which stay with the caller.
///
/// # Errors
/// When a process cannot be read.
pub async fn measure_run(bench: &Arc<Bench>, target: &Target) -> Result<Outcome> {
    let (case, settings) = (bench.case, &bench.settings);
    let usage = || target.pid.map(process::usage).transpose();
    let beside = || target.beside.map(process::usage).transpose();
    let resting = usage()?;
    let polled = case.shape != Shape::Start;
    let mut pollers = if polled { worker::spawn(bench) } else { JoinSet::new() };

    if !settings.warm_up.is_zero() {
        phase(bench, settings.warm_up).await?;
    }
    let (before, beside_before) = (usage()?, beside()?);
    let (own_before, begin) = (process::own()?, clock::now());
    let reading = phase(bench, settings.measure).await?;
    let (busy, own_after, took) = (usage()?, process::own()?, begin.elapsed());
    tokio::time::sleep(settings.settle).await;
    let (after, beside_after) = (usage()?, beside()?);

    if !polled {
        pollers = worker::spawn(bench);
    }
    let drained = match case.shape {
        Shape::Start | Shape::Echo | Shape::Activity => drain(bench).await,
        Shape::Signal | Shape::Fanin => {
            bench.lanes.finish(&bench.names, &bench.api.client(0), &bench.errors).await;
            None
        }
    };
    let (mut faults, verified) = verify::verify(bench).await;
    faults.add(bench.foreign_faults());
    drop(pollers);

    let mut errors: BTreeMap<String, u64> = bench.errors.snapshot();
    if bench.ledger.retried_tasks() > 0 {
        errors.insert("tasks with an attempt above 1".to_string(), bench.ledger.retried_tasks());
    }
    let spent = |from: Option<Usage>, to: Option<Usage>| Some((to?.cpu - from?.cpu).as_secs_f64());
    let per_thousand = |seconds: f64| seconds * 1000.0 / reading.operations.max(1) as f64;
    let own = (own_after.cpu - own_before.cpu).as_secs_f64();
    let quantile = |q: f64| reading.latency.value_at_quantile(q) as f64 / 1000.0;
    Ok(Outcome {
        server: target.server.clone(),
        case: case.to_string(),
        unit: case.shape.unit().to_string(),
        operations: reading.operations,
        per_second: reading.inside as f64 / reading.seconds,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        max_ms: reading.latency.max() as f64 / 1000.0,
        server_cpu_s_per_1000: spent(before, after).map(per_thousand),
        beside_cpu_s_per_1000: spent(beside_before, beside_after).map(per_thousand),
        server_cores: spent(before, busy).map(|seconds| seconds / took.as_secs_f64()),
        generator_cpu_s_per_1000: per_thousand(own),
        generator_cores: own / took.as_secs_f64(),
        resident_mb_rest: resting.map(|usage| usage.resident_mb),
        resident_mb_after: after.map(|usage| usage.resident_mb),
        drained_per_second: drained.filter(|_| case.shape == Shape::Start),
        lost: faults.lost,
        doubled: faults.doubled,
        wrong: faults.wrong,
        faults: (!faults.none()).then(|| faults.to_string()),
        verified,
        errors,
    })
}
