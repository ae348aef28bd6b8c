//! `antipode sim` without the rest of the product: builds fast, for mutants and optimised runs.

use std::process::ExitCode;

use antipode_simulation::cli::{self, SimCommand};
use clap::Parser;

/// The product's. With the system's a quarter of the simulator's time is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The deterministic simulator: regions of this very code in virtual time.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: SimCommand,
}

fn main() -> ExitCode {
    cli::run(Arguments::parse().command, &mut std::io::stdout())
}
