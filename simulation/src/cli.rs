//! `antipode sim`: run seeds, replay one, shrink one, run scenarios, explore programs. Everything goes to standard output but
//! the progress bar; a failure is exit code 1, a misuse 2.

use std::{
    io::{IsTerminal, Write},
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
};

use antipode_env::{Clock, SystemClock};
use clap::{Args, Subcommand};

use crate::{
    campaign::{self, Failed, Summary},
    engine::{script::Script, seen::State, span::Span},
    explore,
    generate::{self, Options, Profile},
    html, scenario, shrink,
    trace::Recording,
};

/// The deterministic simulator: regions of this very code in virtual time.
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Runs seeds: random clients, workers, failovers and faults; the oracles look at every step.
    Run(RunArguments),
    /// Runs one seed or scenario again and tells what happens, as lines or as one HTML file.
    Replay(ReplayArguments),
    /// Makes a failing seed small: a scenario file and a test that still fail.
    Shrink(ShrinkArguments),
    /// Runs a scenario file, or all files of a folder.
    Scenario(ScenarioArguments),
    /// Explores every interleaving of a small program.
    Explore(ExploreArguments),
}

/// What a seed simulates.
#[derive(Clone, Debug, Args)]
pub struct WorldArguments {
    /// Regions, 1 to 5.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub regions: u8,
    /// Faults that may come: all, calm, hand-over, partition, store, clock, restore or retention.
    #[arg(long, default_value = "all", value_name = "PROFILE", value_parser = profile)]
    pub faults: Profile,
    /// Steps of the scheduler a seed takes before everything heals.
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
}

impl WorldArguments {
    fn options(&self) -> Options {
        Options { regions: usize::from(self.regions), profile: self.faults, steps: self.steps, pace: None }
    }
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::parse(name).ok_or_else(|| {
        let known: Vec<_> = Profile::ALL.iter().map(|profile| profile.name()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// Options of `sim run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Seeds from A up to, not including, B.
    #[arg(long, default_value = "1..101", value_name = "A..B", value_parser = seeds)]
    pub seeds: Range<u64>,
    #[command(flatten)]
    pub world: WorldArguments,
    /// Seeds that run side by side.
    #[arg(long, default_value_t = 2, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Tell the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Stop at the first seed that fails, and tell only that.
    #[arg(long)]
    pub stop: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || "expected two numbers as in 1..101".to_string();
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let (from, to): (u64, u64) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if from < to { Ok(from..to) } else { Err("the range is empty".to_string()) }
}

/// Options of `sim replay`.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// A seed, or a scenario file.
    #[arg(value_name = "SEED|FILE")]
    pub what: String,
    #[command(flatten)]
    pub world: WorldArguments,
    /// Also tell every message and every verdict's report.
    #[arg(long)]
    pub verbose: bool,
    /// Write one self-contained HTML file instead of lines.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Options of `sim shrink`.
#[derive(Debug, Args)]
pub struct ShrinkArguments {
    /// The failing seed.
    #[arg(value_name = "SEED")]
    pub seed: u64,
    #[command(flatten)]
    pub world: WorldArguments,
    /// Folder for the scenario file and the test.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub out: PathBuf,
}

/// Options of `sim scenario`.
#[derive(Debug, Args)]
pub struct ScenarioArguments {
    /// A scenario file, or a folder with such.
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Name every scenario, not only those that fail or are pending.
    #[arg(long)]
    pub verbose: bool,
}

/// Options of `sim explore`.
#[derive(Debug, Args)]
pub struct ExploreArguments {
    /// A program by name; without it and without --all they are listed.
    #[arg(value_name = "PROGRAM")]
    pub program: Option<String>,
    /// All programs.
    #[arg(long, conflicts_with = "program")]
    pub all: bool,
    /// Stop at the first program that fails.
    #[arg(long)]
    pub stop: bool,
    /// Only those that explore fewer states than this.
    #[arg(long, value_name = "N", conflicts_with = "program")]
    pub below: Option<u64>,
}

const GOOD: ExitCode = ExitCode::SUCCESS;
const BAD: ExitCode = ExitCode::FAILURE;

/// Runs a command.
pub fn run(command: SimCommand, out: &mut dyn Write) -> ExitCode {
    let done = match command {
        SimCommand::Run(arguments) => run_seeds(&arguments, out),
        SimCommand::Replay(arguments) => replay(&arguments, out),
        SimCommand::Shrink(arguments) => shrink_seed(&arguments, out),
        SimCommand::Scenario(arguments) => scenarios(&arguments, out),
        SimCommand::Explore(arguments) => explore_programs(&arguments, out),
    };
    match done {
        Ok(code) => code,
        // A reader that went away needs no more words.
        Err(Trouble::Gone) => GOOD,
        Err(Trouble::Said(why)) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

enum Trouble {
    Gone,
    Said(String),
}

impl From<std::io::Error> for Trouble {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

fn said(why: &dyn std::fmt::Display) -> Trouble {
    Trouble::Said(why.to_string())
}

type Done = Result<ExitCode, Trouble>;

fn run_seeds(arguments: &RunArguments, out: &mut dyn Write) -> Done {
    let options = arguments.world.options();
    let bar = std::io::stderr().is_terminal();
    let clock = SystemClock;
    let began = clock.now();
    let told = |done: u64, total: u64, failed: Option<&Failed>| {
        // Without a terminal the summary tells them, once.
        if let Some(failed) = failed.filter(|_| bar) {
            eprintln!("\r\x1b[Kseed {}: {}", failed.seed, first_line(&failed.finding.to_string()));
        }
        if bar {
            let filled = usize::try_from(done * 40 / total.max(1)).unwrap_or(0);
            eprint!("\r[{}{}] {done}/{total} seeds", "█".repeat(filled), "·".repeat(40 - filled));
        }
    };
    let summary =
        campaign::run(arguments.seeds.clone(), &options, usize::from(arguments.jobs), arguments.stop, &told);
    if bar {
        eprint!("\r\x1b[K");
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds to seconds, for a rate")]
    let seconds = (clock.now() - began).max(1) as f64 / 1e9;
    if let (true, Some(failed)) = (arguments.stop, summary.failed.first()) {
        let (seed, finding) = (failed.seed, failed.finding.to_string());
        writeln!(out, "stopped after {} seeds: seed {seed}: {}", summary.seeds, first_line(&finding))?;
        return Ok(BAD);
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&summary.report(&options)).map_err(|error| said(&error))?;
        writeln!(out, "{text}")?;
    } else {
        tell_summary(&summary, &options, seconds, bar && std::io::stdout().is_terminal(), out)?;
    }
    Ok(if summary.is_good(&options) { GOOD } else { BAD })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts, for rates")]
fn tell_summary(
    summary: &Summary,
    options: &Options,
    seconds: f64,
    heard: bool,
    out: &mut dyn Write,
) -> Result<(), Trouble> {
    // Whoever watches the terminal was told each failing seed while it ran.
    let unheard = summary.failed.iter().filter(|_| !heard);
    for failed in unheard {
        writeln!(out, "seed {}: {}", failed.seed, first_line(&failed.finding.to_string()))?;
    }
    for (seed, why) in &summary.worlds {
        writeln!(out, "seed {seed}: the world broke: {why}")?;
    }
    let virtual_seconds = summary.virtual_nanos as f64 / 1e9;
    writeln!(
        out,
        "{} seeds, {} regions, faults {}, {} steps each and the rest: {} failed",
        summary.seeds,
        options.regions,
        options.profile.name(),
        options.steps,
        summary.failed.len() + summary.worlds.len()
    )?;
    writeln!(
        out,
        "virtual time {} s in {seconds:.1} s: {:.0} times; {} steps ({:.0}/s), {} transitions ({:.0}/s, {:.0} a virtual second), {} events",
        virtual_seconds.round(),
        virtual_seconds / seconds,
        summary.steps,
        summary.steps as f64 / seconds,
        summary.transitions,
        summary.transitions as f64 / seconds,
        summary.transitions as f64 / virtual_seconds.max(1e-9),
        summary.events
    )?;
    writeln!(
        out,
        "calls {}, acknowledged {}, failovers that took effect {}, divergences {}",
        summary.calls,
        summary.acknowledged,
        summary.failovers,
        summary.divergences()
    )?;
    writeln!(out, "faults injected:")?;
    for (kind, count) in &summary.faults {
        writeln!(out, "  {kind:<28} {count:>9}")?;
    }
    writeln!(out, "interesting states:")?;
    for state in State::ALL {
        writeln!(out, "  {:<28} {:>9}  {}", state.name(), summary.seen.count(state.name()), state.meaning())?;
    }
    let judged = summary.not_judged(options).is_none();
    writeln!(out, "in a hundred seeds, and at least:")?;
    for minimum in summary.minima(options) {
        let verdict = if judged && !minimum.is_met() { "  missed" } else { "" };
        writeln!(
            out,
            "  {:<28} {:>9} / {}{verdict}",
            minimum.what, minimum.per_hundred_seeds, minimum.expected
        )?;
    }
    for gap in summary.gaps(options) {
        writeln!(out, "{gap}")?;
    }
    if let Some(why) = summary.not_judged(options) {
        writeln!(out, "not judged: {why}")?;
    }
    writeln!(out, "trace hash {}", summary.hash)?;
    Ok(())
}

fn replay(arguments: &ReplayArguments, out: &mut dyn Write) -> Done {
    let options = arguments.world.options();
    if !arguments.what.is_empty() && arguments.what.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits alone are a seed, also when there are too many of them.
        arguments.what.parse::<u64>().map_err(|error| said(&format!("seed {}: {error}", arguments.what)))?;
    }
    let outcome = match arguments.what.parse::<u64>() {
        Ok(seed) => generate::run(seed, &options, true).map_err(|error| said(&error))?.0,
        Err(_) => {
            let path = Path::new(&arguments.what);
            if !path.exists() {
                return Err(Trouble::Said(format!(
                    "`{}` is neither a seed nor a file: expected a number, or the path of a scenario",
                    arguments.what
                )));
            }
            let script = read(path)?;
            if let Some(why) = &script.pending {
                writeln!(out, "{} is pending: {why}", script.name)?;
                return Ok(GOOD);
            }
            scenario::run(&script, true).map_err(|error| said(&format!("{}: {error}", arguments.what)))?
        }
    };
    let Some(recording) = &outcome.recording else { return Ok(BAD) };
    match &arguments.html {
        Some(path) => {
            std::fs::write(path, html::render(recording))
                .map_err(|error| said(&format!("{} cannot be written: {error}", path.display())))?;
            writeln!(
                out,
                "{} written: {} lines, {} messages",
                path.display(),
                recording.lines.len(),
                recording.messages.len()
            )?;
        }
        None => tell_recording(recording, arguments.verbose, out)?,
    }
    for finding in &outcome.findings {
        writeln!(out, "{finding}")?;
    }
    writeln!(
        out,
        "{} steps, {} transitions, trace hash {}",
        outcome.steps, outcome.transitions, outcome.hash
    )?;
    Ok(if outcome.findings.is_empty() { GOOD } else { BAD })
}

/// One readable line an event, in order of time.
fn tell_recording(recording: &Recording, verbose: bool, out: &mut dyn Write) -> Result<(), Trouble> {
    let name = |region: usize| recording.lanes.get(region).map_or("", |lane| lane.name.as_str());
    let mut messages = recording.messages.iter().filter(|_| verbose).peekable();
    for line in &recording.lines {
        while let Some(message) = messages.next_if(|message| message.sent <= line.at) {
            writeln!(
                out,
                "{:>12}  {:<8} {:<8} {} to {}: {} {} ({:?} at {})",
                moment(message.sent),
                name(message.from),
                "message",
                name(message.from),
                name(message.to),
                message.kind,
                message.text,
                message.fate,
                moment(message.arrived)
            )?;
        }
        let run = line.run.as_ref().map(|run| format!("/{run}")).unwrap_or_default();
        let workflow = line.workflow.as_ref().map(|id| format!("{id}{run}: ")).unwrap_or_default();
        writeln!(
            out,
            "{:>12}  {:<8} {:<8} {workflow}{}",
            moment(line.at),
            line.region.map_or("", name),
            line.kind.word(),
            line.text
        )?;
        if let Some(detail) = line.detail.as_ref().filter(|_| verbose) {
            writeln!(out, "{:>12}  {:<8} {:<8} {detail}", "", "", "")?;
        }
    }
    Ok(())
}

fn moment(nanos: i64) -> String {
    format!("{}.{:06}s", nanos / 1_000_000_000, nanos % 1_000_000_000 / 1_000)
}

fn read(path: &Path) -> Result<Script, Trouble> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| said(&format!("{file} cannot be read: {error}")))?;
    scenario::parse_bytes(&file, &bytes).map_err(|error| said(&error))
}

fn shrink_seed(arguments: &ShrinkArguments, out: &mut dyn Write) -> Done {
    let options = arguments.world.options();
    let (outcome, script) = generate::run(arguments.seed, &options, false).map_err(|error| said(&error))?;
    let Some(finding) = outcome.findings.first() else {
        writeln!(out, "seed {} does not fail", arguments.seed)?;
        return Ok(GOOD);
    };
    writeln!(out, "seed {}: {}", arguments.seed, first_line(&finding.to_string()))?;
    let bar = std::io::stderr().is_terminal();
    let told = |left: usize| {
        if bar {
            eprint!("\r\x1b[K{left} acts left");
        }
    };
    let Some(shrunk) = shrink::shrink(&script, &told) else {
        return Err(Trouble::Said(
            "the script that the seed wrote does not fail when it runs again: this is a fault of the simulator".to_string(),
        ));
    };
    if bar {
        eprint!("\r\x1b[K");
    }
    let file = format!("{}.yaml", shrunk.script.name);
    let path = arguments.out.join(&file);
    std::fs::write(&path, shrink::to_yaml(&shrunk.script))
        .map_err(|error| said(&format!("{} cannot be written: {error}", path.display())))?;
    writeln!(
        out,
        "{} acts of {} are left after {} tries: {}",
        shrunk.script.steps.len(),
        script.steps.len(),
        shrunk.tried,
        path.display()
    )?;
    if let Some(finding) = shrunk.outcome.findings.first() {
        writeln!(out, "{finding}")?;
    }
    writeln!(out, "\n{}", shrink::to_test(&shrunk.script, &file))?;
    Ok(BAD)
}

fn scenarios(arguments: &ScenarioArguments, out: &mut dyn Write) -> Done {
    let files = scenario::files(&arguments.path)
        .map_err(|error| said(&format!("{} cannot be read: {error}", arguments.path.display())))?;
    if files.is_empty() {
        return Err(Trouble::Said(format!("there is no .yaml file in {}", arguments.path.display())));
    }
    let clock = SystemClock;
    let began = clock.now();
    let (mut passed, mut failed, mut pending) = (0, 0, 0);
    for file in &files {
        let script = match read(file) {
            Ok(script) => script,
            Err(Trouble::Said(why)) => {
                failed += 1;
                writeln!(out, "MALFORMED {why}")?;
                continue;
            }
            Err(gone) => return Err(gone),
        };
        if let Some(why) = &script.pending {
            if let Some(wrong) = scenario::holds_already(&script) {
                failed += 1;
                writeln!(out, "FAILED  {}: {wrong}", script.name)?;
                continue;
            }
            pending += 1;
            writeln!(out, "pending {}: {why}", script.name)?;
            continue;
        }
        match scenario::run(&script, false) {
            Ok(outcome) if outcome.findings.is_empty() => {
                passed += 1;
                if arguments.verbose {
                    writeln!(out, "ok      {}: {}", script.name, script.about)?;
                }
            }
            Ok(outcome) => {
                failed += 1;
                for finding in &outcome.findings {
                    writeln!(out, "FAILED  {}: {finding}", script.name)?;
                }
            }
            Err(error) => {
                failed += 1;
                writeln!(out, "FAILED  {}: {error}", script.name)?;
            }
        }
    }
    writeln!(
        out,
        "{} scenarios: {passed} passed, {failed} failed, {pending} pending, in {}",
        files.len(),
        Span::micros((clock.now() - began) / 1_000_000 * 1_000)
    )?;
    Ok(if failed == 0 { GOOD } else { BAD })
}

fn explore_programs(arguments: &ExploreArguments, out: &mut dyn Write) -> Done {
    let programs = explore::programs();
    let chosen: Vec<&explore::Program> = match &arguments.program {
        Some(name) => {
            let found = programs.iter().find(|program| program.name == name);
            let known: Vec<_> = programs.iter().map(|program| program.name).collect();
            vec![found.ok_or_else(|| {
                Trouble::Said(format!("there is no program `{name}`: expected one of {}", known.join(", ")))
            })?]
        }
        None if arguments.all || arguments.below.is_some() => {
            let wanted =
                |program: &&explore::Program| arguments.below.is_none_or(|below| program.states < below);
            let chosen: Vec<_> = programs.iter().filter(wanted).collect();
            if let (true, Some(below)) = (chosen.is_empty(), arguments.below) {
                let least = programs.iter().map(|program| program.states).min().unwrap_or_default();
                return Err(Trouble::Said(format!(
                    "--below {below}: no program explores fewer than {below} states: expected more than {least}"
                )));
            }
            chosen
        }
        None => {
            for program in programs {
                writeln!(out, "{:<24} {:>9} states  {}", program.name, program.states, program.about)?;
            }
            return Ok(GOOD);
        }
    };
    let mut good = true;
    for program in chosen {
        let outcome = explore::explore(program, explore::Limits::default());
        good &= outcome.is_well();
        writeln!(out, "{outcome}")?;
        if arguments.stop && !good {
            break;
        }
    }
    Ok(if good { GOOD } else { BAD })
}
