//! `cargo xtask tidy|docs|ci`: the commands that help us.

use std::{
    env,
    process::{Command, ExitCode},
};

use xtask::{Finding, documents, source, tidy, workspace};

const USAGE: &str = "usage: cargo xtask <command>

  tidy   head comments, calls that must go through a seam, dependency direction, purity; file sizes as hints
  docs   relative links of all documents
  ci     everything that continuous integration runs (.ci/run)";

fn main() -> ExitCode {
    let command = env::args().nth(1).unwrap_or_default();
    let outcome = match command.as_str() {
        "tidy" => tidy_command(),
        "docs" => documents::dead_links(&source::root()).map(|found| printed(&found)),
        "ci" => ci(),
        _ => Err(USAGE.to_string()),
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Prints findings; how many there were.
fn printed(found: &[Finding]) -> usize {
    for finding in found {
        println!("{finding}");
    }
    println!("{} findings", found.len());
    found.len()
}

fn tidy_command() -> Result<usize, String> {
    let root = source::root();
    let mut report = tidy::check(&root)?;
    report.broken.extend(workspace::direction(&workspace::edges(&root)?));
    report.broken.extend(workspace::purity(&root)?);
    for hint in &report.hints {
        println!("hint: {hint}");
    }
    Ok(printed(&report.broken))
}

fn ci() -> Result<usize, String> {
    let status = Command::new("bash")
        .arg(".ci/run")
        .current_dir(source::root())
        .status()
        .map_err(|e| format!("bash .ci/run: {e}"))?;
    Ok(usize::from(!status.success()))
}
