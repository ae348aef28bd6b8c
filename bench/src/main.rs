//! The command line of the benchmarks. One thread: what it costs is subtracted from what the server has, so it must be
//! cheap and easy to see.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use antipode_bench::{
    Error, Result,
    case::Case,
    cold, compare, disk,
    launch::{Durability, Program, fresh_folder},
    load::{self, Settings, Target},
    replication, stub,
};
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;

/// The product's: what the simulator and the fold do in this process they do with the allocator they have there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load generator and benchmarks over the public gRPC API.
#[derive(Debug, Parser)]
#[command(name = "antipode-bench", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures cases against one server, running or launched.
    Run(Run),
    /// Measures cases against Antipode and Temporal in alternation and prints tables.
    Compare(Compare),
    /// Measures the lag between two regions and what the second one costs.
    Replication(Replication),
    /// Measures the time to the first answer, and memory and processor at rest.
    Cold(Compare),
    /// Measures the bare commit of this disk.
    Disk {
        /// Folder on the disk.
        #[arg(long, default_value = "./target/bench-data")]
        folder: PathBuf,
        /// Seconds of each figure.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// Measures the fold alone, on one core.
    Fold {
        /// Seconds.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// Measures the simulator on one core, with all oracles.
    Simulate {
        /// Seeds of each profile.
        #[arg(long, default_value_t = 50)]
        seeds: u64,
    },
    /// Serves the generator's own stub, in memory.
    Stub {
        /// Port on loopback.
        #[arg(long)]
        port: u16,
    },
}

#[derive(Debug, Args)]
struct Shared {
    /// Seconds of the figures.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Idle seconds before each server is started, for whoever shares the machine.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Seconds before the figures count.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Runs of each case.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Connections.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Workflow-task pollers.
    #[arg(long, default_value_t = 8)]
    workflow_pollers: usize,
    /// Activity-task pollers.
    #[arg(long, default_value_t = 8)]
    activity_pollers: usize,
    /// Pollers of the worker's own queue; 0: the worker caches nothing.
    #[arg(long, default_value_t = 8)]
    sticky_pollers: usize,
    /// Histories read back after each case; 0: all.
    #[arg(long, default_value_t = 500)]
    verify: usize,
    /// Namespace; the server must have it.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Data folders go here; choose the disk that counts.
    #[arg(long, default_value = "./target/bench-data")]
    folder: PathBuf,
    /// Append each outcome to this file as a line of JSON.
    #[arg(long)]
    record: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Run {
    /// Cases: start, echo, activity, signal, fanin, each with -cN or -rateN.
    #[arg(long, value_delimiter = ',', default_value = "echo")]
    cases: Vec<Case>,
    /// A running server, host:port.
    #[arg(long, conflicts_with = "launch", required_unless_present = "launch")]
    address: Option<String>,
    /// Its process, for processor time and memory.
    #[arg(long, requires = "address")]
    pid: Option<u32>,
    /// antipode:PATH, temporal:PATH or stub, launched afresh for each case.
    #[arg(long)]
    launch: Option<Program>,
    /// Whether acknowledged writes are on disk.
    #[arg(long, value_enum, default_value_t)]
    mode: Durability,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Args)]
struct Compare {
    /// Our binary.
    #[arg(long)]
    antipode: Option<PathBuf>,
    /// The peer's `temporal` command.
    #[arg(long)]
    temporal: Option<PathBuf>,
    /// Cases.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "start,echo,echo-c1,echo-rate20,activity,activity-c1,signal,signal-c1,fanin"
    )]
    cases: Vec<Case>,
    /// Whether acknowledged writes are on disk.
    #[arg(long, value_enum, default_value_t)]
    mode: Durability,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Args)]
struct Replication {
    /// Our binary.
    #[arg(long)]
    antipode: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

impl Shared {
    fn settings(&self) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            pause: Duration::from_secs(self.pause),
            warm_up: Duration::from_secs(self.warm_up),
            measure: Duration::from_secs(self.seconds.max(1)),
            connections: self.connections,
            workflow_pollers: self.workflow_pollers,
            activity_pollers: self.activity_pollers,
            sticky_pollers: self.sticky_pollers,
            payload_bytes: self.payload,
            sample: (self.verify > 0).then_some(self.verify),
            ..Settings::default()
        }
    }
}

/// Servers run in folders of their own, so paths must not depend on where we are.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(Error::file(path))
}

fn resolved(program: Program) -> Result<Program> {
    Ok(match program {
        Program::Antipode(path) => Program::Antipode(absolute(path)?),
        Program::Temporal(path) => Program::Temporal(absolute(path)?),
        Program::Stub => Program::Stub,
    })
}

fn plan(
    programs: Vec<Program>,
    cases: Vec<Case>,
    mode: Durability,
    shared: &Shared,
) -> Result<compare::Plan> {
    Ok(compare::Plan {
        programs: programs.into_iter().map(resolved).collect::<Result<_>>()?,
        cases,
        runs: shared.runs.max(1),
        durability: mode,
        folder: absolute(shared.folder.clone())?,
        record: shared.record.clone(),
        settings: shared.settings(),
    })
}

impl Compare {
    fn plan(self) -> Result<compare::Plan> {
        let ours = self.antipode.map(Program::Antipode);
        let programs: Vec<Program> = ours.into_iter().chain(self.temporal.map(Program::Temporal)).collect();
        if programs.is_empty() {
            return Err(Error::Program { name: String::new(), why: "needs --antipode or --temporal" });
        }
        plan(programs, self.cases, self.mode, &self.shared)
    }
}

async fn run(arguments: Run) -> Result<()> {
    let settings = arguments.shared.settings();
    if let Some(address) = arguments.address {
        for _ in 0..arguments.shared.runs.max(1) {
            for &case in &arguments.cases {
                let target = Target {
                    server: address.clone(),
                    address: format!("http://{}", address.trim_start_matches("http://")),
                    pid: arguments.pid,
                    beside: None,
                };
                let outcome = load::measure(&target, case, &settings).await?;
                compare::record(arguments.shared.record.as_deref(), &outcome)?;
                println!("{}", compare::line(&outcome));
                outcome.sound()?;
            }
        }
        return Ok(());
    }
    let programs = arguments.launch.into_iter().collect();
    let plan = plan(programs, arguments.cases, arguments.mode, &arguments.shared)?;
    for _ in 0..plan.runs {
        for &case in &plan.cases {
            for program in &plan.programs {
                println!("{}", compare::line(&compare::once(&plan, program, case).await?));
            }
        }
    }
    Ok(())
}

async fn versions(plan: &compare::Plan) {
    for program in &plan.programs {
        println!("- {program}: {}", program.version().await.replace('\n', "; "));
    }
    let (settings, runs) = (&plan.settings, plan.runs);
    println!(
        "- {runs} runs of {} s, median (min–max); {:?}; {} connections, {} workflow-task pollers, {} activity-task pollers, \
         payloads of {} bytes\n",
        settings.measure.as_secs(),
        plan.durability,
        settings.connections,
        settings.workflow_pollers,
        settings.activity_pollers,
        settings.payload_bytes
    );
}

async fn carry_out(command: Command) -> Result<bool> {
    match command {
        Command::Run(arguments) => run(arguments).await.map(|()| true),
        Command::Compare(arguments) => {
            let plan = arguments.plan()?;
            versions(&plan).await;
            let measured = compare::run(&plan).await?;
            println!("{}", measured.report(&plan));
            Ok(measured.failures.is_empty())
        }
        Command::Cold(arguments) => {
            let plan = arguments.plan()?;
            versions(&plan).await;
            println!("{}", cold::run(&plan).await?);
            Ok(true)
        }
        Command::Replication(Replication { antipode, shared }) => {
            let plan = replication::Plan {
                binary: absolute(antipode)?,
                runs: shared.runs.max(1),
                folder: absolute(shared.folder.clone())?,
                record: shared.record.clone(),
                settings: shared.settings(),
            };
            println!("{}", replication::run(&plan).await?);
            Ok(true)
        }
        Command::Fold { seconds } => antipode_bench::pure::fold(seconds.max(1)).map(|()| true),
        Command::Simulate { seeds } => antipode_bench::pure::simulate(seeds.max(1)).map(|()| true),
        Command::Disk { folder, seconds } => {
            let folder = fresh_folder(&folder)?;
            let bare = disk::measure(folder.path(), Duration::from_secs(seconds.max(1)))?;
            println!(
                "fdatasync of 4 KiB appended: {:.0}/s; SQLite, WAL, FULL, one insert: {:.0}/s",
                bare.fdatasync_per_second, bare.sqlite_per_second
            );
            Ok(true)
        }
        Command::Stub { port } => {
            let address = format!("127.0.0.1:{port}");
            let listener = TcpListener::bind(&address).await.map_err(Error::file(&address))?;
            let served = stub::serve(listener, stub::Mischief::None).await;
            served.map(|()| true).map_err(|source| Error::Connect { address, source })
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match carry_out(Arguments::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("antipode-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
