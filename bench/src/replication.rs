//! What it costs to have a second region, and how far it is behind: the same load on one region alone and on two that
//! are linked, in alternation; then the lag at rest and at half of what two regions took.

use std::{fmt::Write as _, path::PathBuf, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use serde::Serialize;

use crate::{
    api::Api,
    case::{Case, Pace, Shape},
    clock,
    compare::{line, record},
    error::{Error, Result},
    load::{self, Bench, Settings, Target},
    outcome::Outcome,
    pair::Regions,
    probe::{self, Lags},
    table::{cell, markdown, ratio, spread},
    worker,
};

/// Histories compared between the regions.
const COMPARED: usize = 200;
/// How long west may take to show a history after the load has ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Our binary.
    pub binary: PathBuf,
    /// Runs of everything.
    pub runs: usize,
    /// Data folders go here.
    pub folder: PathBuf,
    /// Each outcome is appended here as a line of JSON.
    pub record: Option<PathBuf>,
    /// What all cases share.
    pub settings: Settings,
}

/// Lag of one measurement.
#[derive(Clone, Debug, Serialize)]
struct Lag {
    load_per_second: f64,
    probes: u64,
    ahead: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Lag {
    fn of(lags: &Lags, load_per_second: f64) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        Self {
            load_per_second,
            probes: lags.lag.len(),
            ahead: lags.ahead,
            p50_ms: millis(lags.lag.value_at_quantile(0.5)),
            p99_ms: millis(lags.lag.value_at_quantile(0.99)),
            max_ms: millis(lags.lag.max()),
        }
    }
}

const ECHO: Case = Case { shape: Shape::Echo, pace: Pace::Slots(crate::case::DEFAULT_SLOTS) };

/// Saturated load on east; with a west, its histories must be east's in the end.
async fn saturated(plan: &Plan, regions: usize) -> Result<Outcome> {
    let settings = &plan.settings;
    tokio::time::sleep(settings.pause).await;
    let running = Regions::start(&plan.binary, &plan.folder, regions, &settings.namespace).await?;
    let east = Api::connect(&running.east(), &settings.namespace, settings.connections).await?;
    let bench = Bench::new(east.clone(), ECHO, settings);
    let target = Target {
        server: if regions == 1 { "one region" } else { "two regions, east" }.to_string(),
        address: running.east(),
        pid: running.servers[0].pid(),
        beside: running.servers.get(1).and_then(|west| west.pid()),
    };
    let outcome = load::measure_run(&bench, &target).await?;
    record(plan.record.as_deref(), &outcome)?;
    eprintln!("{}", line(&outcome));
    if regions > 1 {
        let west = Api::connect(&running.west(), &settings.namespace, 1).await?;
        equal_histories(&bench, &east, &west).await?;
    }
    running.stop().await?;
    outcome.sound()
}

/// A sample of the run's histories, read in both regions.
async fn equal_histories(bench: &Bench, east: &Api, west: &Api) -> Result<()> {
    let accepted = bench.ledger.accepted_numbers();
    let step = accepted.len().div_ceil(COMPARED).max(1);
    // The last ones are the likeliest to be missing.
    let chosen: Vec<usize> = accepted.iter().rev().step_by(step).copied().collect();
    let deadline = clock::now() + PATIENCE;
    let looks = stream::iter(chosen).map(|number| async move {
        let id = bench.names.workflow_id(number);
        let behind = |why: String| Error::Behind { what: id.clone(), region: "west".to_string(), why };
        let expected = east.history(&id, "").await.map_err(|status| behind(format!("east: {status}")))?;
        loop {
            let seen = west.history(&id, "").await;
            if seen.as_ref().is_ok_and(|seen| *seen == expected) {
                return Ok(());
            }
            if clock::now() > deadline {
                let seen = seen.map_or_else(
                    |status| status.to_string(),
                    |seen| format!("{} events instead of {}, or others", seen.len(), expected.len()),
                );
                return Err(behind(seen));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    looks.buffer_unordered(8).collect::<Vec<Result<()>>>().await.into_iter().collect()
}

/// Lag of a linked pair while east takes so much load; zero is rest.
async fn lag(plan: &Plan, per_second: u32) -> Result<Lag> {
    let settings = &plan.settings;
    tokio::time::sleep(settings.pause).await;
    let running = Regions::start(&plan.binary, &plan.folder, 2, &settings.namespace).await?;
    let east = Api::connect(&running.east(), &settings.namespace, settings.connections).await?;
    let west = Api::connect(&running.west(), &settings.namespace, 1).await?;
    let lag = if per_second == 0 {
        Lag::of(&probe::run(&east, &west, settings.measure).await?, 0.0)
    } else {
        let case = Case { shape: Shape::Echo, pace: Pace::Rate(per_second) };
        let bench = Bench::new(east.clone(), case, settings);
        let pollers = worker::spawn(&bench);
        load::phase(&bench, settings.warm_up).await?;
        let background = {
            let (bench, length): (Arc<Bench>, _) = (bench.clone(), settings.measure + Duration::from_secs(1));
            tokio::spawn(async move { load::phase(&bench, length).await })
        };
        let lags = probe::run(&east, &west, settings.measure).await?;
        let reading =
            background.await.map_err(std::io::Error::other).map_err(Error::file("background load"))??;
        drop(pollers);
        equal_histories(&bench, &east, &west).await?;
        Lag::of(&lags, reading.inside as f64 / reading.seconds)
    };
    record(plan.record.as_deref(), &lag)?;
    eprintln!("lag {lag:?}");
    running.stop().await?;
    Ok(lag)
}

/// Everything, as Markdown.
///
/// # Errors
/// When a region fails, loses something or never catches up.
pub async fn run(plan: &Plan) -> Result<String> {
    let (mut alone, mut linked) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        if run % 2 == 0 {
            alone.push(saturated(plan, 1).await?);
            linked.push(saturated(plan, 2).await?);
        } else {
            linked.push(saturated(plan, 2).await?);
            alone.push(saturated(plan, 1).await?);
        }
    }
    let full = spread(linked.iter().map(|outcome| outcome.per_second)).map_or(0.0, |spread| spread.median);
    let half = (full / 2.0).round().max(1.0) as u32;
    let (mut rest, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        rest.push(lag(plan, 0).await?);
        loaded.push(lag(plan, half).await?);
    }
    let mut text = String::new();
    let _infallible = write!(text, "### Replication lag\n\n{}\n", lags(&rest, &loaded));
    let _infallible = write!(text, "### What a second region costs\n\n{}", costs(&alone, &linked));
    Ok(text)
}

fn lags(rest: &[Lag], loaded: &[Lag]) -> String {
    let row = |name: &str, lags: &[Lag]| {
        let of = |figure: fn(&Lag) -> f64| cell(spread(lags.iter().map(figure)));
        let share = |lag: &Lag| lag.ahead as f64 * 100.0 / lag.probes.max(1) as f64;
        vec![
            name.to_string(),
            of(|lag| lag.load_per_second),
            of(|lag| lag.p50_ms),
            of(|lag| lag.p99_ms),
            of(|lag| lag.max_ms),
            lags.iter().map(|lag| lag.probes).sum::<u64>().to_string(),
            cell(spread(lags.iter().map(share))),
        ]
    };
    let head = [
        "",
        "one-task workflows/s beside it",
        "p50, ms",
        "p99, ms",
        "max, ms",
        "probes",
        "% in west before the acknowledgement",
    ];
    markdown(&head, &[row("at rest", rest), row("at half load", loaded)])
}

fn costs(alone: &[Outcome], linked: &[Outcome]) -> String {
    let row = |name: &str, figure: fn(&Outcome) -> Option<f64>| {
        let of = |outcomes: &[Outcome]| spread(outcomes.iter().filter_map(figure));
        let (one, two) = (of(alone), of(linked));
        vec![name.to_string(), cell(one), cell(two), ratio(two, one)]
    };
    let rows = [
        row("one-task workflows/s", |outcome| Some(outcome.per_second)),
        row("p50, ms", |outcome| Some(outcome.p50_ms)),
        row("p99, ms", |outcome| Some(outcome.p99_ms)),
        row("CPU s of east per 1,000", |outcome| outcome.server_cpu_s_per_1000),
        row("CPU s of west per 1,000", |outcome| outcome.beside_cpu_s_per_1000),
        row("cores of east", |outcome| outcome.server_cores),
        row("MB of east after", |outcome| outcome.resident_mb_after),
    ];
    markdown(&["", "one region", "two regions, linked", "ratio"], &rows)
}
