//! A against B: the same cases in alternation, each on a fresh process and a fresh folder, with the bare commit of the
//! same minute beside them.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    case::Case,
    disk::{self, Bare},
    error::{Error, Result},
    launch::{Durability, Program, Server, fresh_folder},
    load::{self, Settings, Target},
    outcome::Outcome,
    table::{Spread, cell, markdown, ratio, spread},
};

/// How long each bare commit is measured, before each pair.
const BARE: Duration = Duration::from_secs(1);
/// Rest between start and measurement, so that "at rest" is.
const REST: Duration = Duration::from_secs(2);

/// What is compared.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers; the first one is ours in the ratios.
    pub programs: Vec<Program>,
    /// The cases.
    pub cases: Vec<Case>,
    /// Runs of each.
    pub runs: usize,
    /// Whether acknowledged writes are on disk.
    pub durability: Durability,
    /// Data folders go here.
    pub folder: PathBuf,
    /// Each outcome is appended here as a line of JSON.
    pub record: Option<PathBuf>,
    /// What all cases share.
    pub settings: Settings,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Measured {
    outcomes: Vec<(usize, Case, Outcome)>,
    bare: Vec<(Case, Bare)>,
    /// Why figures are missing.
    pub failures: Vec<String>,
}

/// One case against a fresh server.
///
/// # Errors
/// When the server cannot be started or measured, or broke a promise.
pub async fn once(plan: &Plan, program: &Program, case: Case) -> Result<Outcome> {
    tokio::time::sleep(plan.settings.pause).await;
    let folder = fresh_folder(&plan.folder)?;
    let mut server = Server::launch(program, folder.path(), plan.durability)?;
    server.ready(&plan.settings.namespace).await?;
    tokio::time::sleep(REST).await;
    let target =
        Target { server: program.to_string(), address: server.address(), pid: server.pid(), beside: None };
    let outcome =
        load::measure(&target, case, &plan.settings).await.map_err(|error| server.obituary(error))?;
    record(plan.record.as_deref(), &outcome)?;
    server.stop().await?;
    outcome.sound()
}

/// Appends a line of JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn record(path: Option<&Path>, value: &impl serde::Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let line = serde_json::to_string(value).map_err(std::io::Error::other).map_err(Error::file(path))?;
    let mut file = File::options().create(true).append(true).open(path).map_err(Error::file(path))?;
    writeln!(file, "{line}").map_err(Error::file(path))
}

/// Runs the whole plan. A run that fails is named and leaves the others standing.
///
/// # Errors
/// When not even the bare commit can be measured.
pub async fn run(plan: &Plan) -> Result<Measured> {
    let mut measured = Measured::default();
    for run in 0..plan.runs {
        for &case in &plan.cases {
            tokio::time::sleep(plan.settings.pause).await;
            let folder = fresh_folder(&plan.folder)?;
            let bare = disk::measure(folder.path(), BARE)?;
            measured.bare.push((case, bare));
            record(plan.record.as_deref(), &bare)?;
            // Whoever goes first finds another machine than whoever goes second, so they take turns.
            let mut order: Vec<usize> = (0..plan.programs.len()).collect();
            if run % 2 == 1 {
                order.reverse();
            }
            for which in order {
                let program = &plan.programs[which];
                match once(plan, program, case).await {
                    Ok(outcome) => {
                        eprintln!("{}", line(&outcome));
                        measured.outcomes.push((which, case, outcome));
                    }
                    Err(error) => {
                        let failure = format!("{case} against {program}, run {}: {error}", run + 1);
                        eprintln!("FAILED {failure}");
                        measured.failures.push(failure);
                    }
                }
            }
        }
    }
    Ok(measured)
}

/// One outcome for the eye.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let optional = |figure: Option<f64>| cell(spread(figure));
    let mut text = format!(
        "{} {}: {}/s, p50 {} ms, p99 {} ms, server {} CPU s per 1,000 and {} cores, generator {} CPU s per 1,000 and {} cores, \
         resident {} → {} MB; {} done, {} verified",
        outcome.server,
        outcome.case,
        cell(spread([outcome.per_second])),
        cell(spread([outcome.p50_ms])),
        cell(spread([outcome.p99_ms])),
        optional(outcome.server_cpu_s_per_1000),
        optional(outcome.server_cores),
        cell(spread([outcome.generator_cpu_s_per_1000])),
        cell(spread([outcome.generator_cores])),
        optional(outcome.resident_mb_rest),
        optional(outcome.resident_mb_after),
        outcome.operations,
        outcome.verified,
    );
    if let Some(drained) = outcome.drained_per_second {
        let _infallible = write!(text, "; backlog drained at {}/s", cell(spread([drained])));
    }
    for (error, count) in &outcome.errors {
        let _infallible = write!(text, "; {count} × {error}");
    }
    text
}

impl Measured {
    fn figures(&self, which: usize, case: Case, figure: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        let matching = self.outcomes.iter().filter(|(program, of, _)| *program == which && *of == case);
        spread(matching.filter_map(|(_, _, outcome)| figure(outcome)))
    }

    fn bare(&self, case: Case, figure: impl Fn(&Bare) -> f64) -> Option<Spread> {
        spread(self.bare.iter().filter(|(of, _)| *of == case).map(|(_, bare)| figure(bare)))
    }

    /// Markdown: throughput, latency, cost.
    #[must_use]
    pub fn report(&self, plan: &Plan) -> String {
        let names: Vec<String> = plan.programs.iter().map(ToString::to_string).collect();
        let mut text = String::new();
        for (title, table) in [
            ("Throughput per second", self.throughput(plan, &names)),
            ("Latency p50 / p99, ms", self.latency(plan, &names)),
            ("Server processor seconds per 1,000", self.cost(plan, &names)),
            ("Resident memory, MB, at rest → after", self.memory(plan, &names)),
        ] {
            let _infallible = write!(text, "### {title}\n\n{table}\n");
        }
        for failure in &self.failures {
            let _infallible = writeln!(text, "- no figures: {failure}");
        }
        text
    }

    fn head<'a>(names: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
        let mut head = vec!["case"];
        head.extend(names.iter().map(String::as_str));
        head.extend(more);
        head
    }

    fn compared(
        &self,
        plan: &Plan,
        case: Case,
        figure: impl Fn(&Outcome) -> Option<f64> + Copy,
    ) -> Vec<String> {
        let mut row = vec![case.to_string()];
        let spreads: Vec<_> =
            (0..plan.programs.len()).map(|which| self.figures(which, case, figure)).collect();
        row.extend(spreads.iter().map(|spread| cell(*spread)));
        if let [first, second] = spreads[..] {
            row.push(ratio(first, second));
        }
        row
    }

    fn throughput(&self, plan: &Plan, names: &[String]) -> String {
        let two = if names.len() == 2 { &["ratio"][..] } else { &[] };
        let more = [two, &["bare fdatasync/s", "bare SQLite commits/s", "cores of the generator"]].concat();
        let rows = plan.cases.iter().map(|&case| {
            let mut row = self.compared(plan, case, |outcome| Some(outcome.per_second));
            row.push(cell(self.bare(case, |bare| bare.fdatasync_per_second)));
            row.push(cell(self.bare(case, |bare| bare.sqlite_per_second)));
            let cores = (0..names.len())
                .map(|which| cell(self.figures(which, case, |outcome| Some(outcome.generator_cores))));
            row.push(cores.collect::<Vec<_>>().join(" / "));
            row
        });
        markdown(&Self::head(names, &more), &rows.collect::<Vec<_>>())
    }

    fn latency(&self, plan: &Plan, names: &[String]) -> String {
        let two = if names.len() == 2 { &["ratio of p50"][..] } else { &[] };
        let rows = plan.cases.iter().map(|&case| {
            let mut row = vec![case.to_string()];
            for which in 0..names.len() {
                let p50 = cell(self.figures(which, case, |outcome| Some(outcome.p50_ms)));
                let p99 = cell(self.figures(which, case, |outcome| Some(outcome.p99_ms)));
                row.push(format!("{p50} / {p99}"));
            }
            if names.len() == 2 {
                let p50 = |which| self.figures(which, case, |outcome| Some(outcome.p50_ms));
                row.push(ratio(p50(0), p50(1)));
            }
            row
        });
        markdown(&Self::head(names, two), &rows.collect::<Vec<_>>())
    }

    fn cost(&self, plan: &Plan, names: &[String]) -> String {
        let two = if names.len() == 2 { &["ratio"][..] } else { &[] };
        let more = [two, &["cores of the server", "generator CPU s per 1,000"]].concat();
        let rows = plan.cases.iter().map(|&case| {
            let mut row = self.compared(plan, case, |outcome| outcome.server_cpu_s_per_1000);
            let cores =
                (0..names.len()).map(|which| cell(self.figures(which, case, |outcome| outcome.server_cores)));
            row.push(cores.collect::<Vec<_>>().join(" / "));
            let own = (0..names.len()).map(|which| {
                cell(self.figures(which, case, |outcome| Some(outcome.generator_cpu_s_per_1000)))
            });
            row.push(own.collect::<Vec<_>>().join(" / "));
            row
        });
        markdown(&Self::head(names, &more), &rows.collect::<Vec<_>>())
    }

    fn memory(&self, plan: &Plan, names: &[String]) -> String {
        let rows = plan.cases.iter().map(|&case| {
            let mut row = vec![case.to_string()];
            for which in 0..names.len() {
                let rest = cell(self.figures(which, case, |outcome| outcome.resident_mb_rest));
                let after = cell(self.figures(which, case, |outcome| outcome.resident_mb_after));
                let done = self.figures(which, case, |outcome| Some(outcome.operations as f64));
                let done = done.map_or(0.0, |done| done.median);
                row.push(format!("{rest} → {after} ({done:.0} done)"));
            }
            row
        });
        markdown(&Self::head(names, &[]), &rows.collect::<Vec<_>>())
    }
}
