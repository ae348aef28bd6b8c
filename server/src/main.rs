//! The product's one binary. A command ends with 0, or with one line on standard error and 1; bad options with 2.

use std::{io::Write, process::ExitCode};

use antipode::cli::{self, Command};

/// Many small messages are made and dropped on several threads: docs/performance.md has what it brings.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err((text, 0)) => {
            // Help that nobody reads any more is no failure.
            let _ = write!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err((text, code)) => {
            eprintln!("{text}");
            return ExitCode::from(code);
        }
    };
    let ended = match arguments.command {
        Command::Dev(arguments) => antipode::dev::run(arguments).map_err(|error| error.to_string()),
        Command::Start(arguments) => antipode::start::run(&arguments).map_err(|error| error.to_string()),
        Command::Sim(command) => return antipode_simulation::cli::run(command, &mut std::io::stdout()),
        command => ask(command),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("error: {line}");
            ExitCode::FAILURE
        }
    }
}

fn ask(command: Command) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(cli::ask(command, &mut std::io::stdout())).map_err(|error| error.to_string())
}
