//! Properties of the house that a machine can check, and for each check a bad example that it must find.

mod architecture;
mod compatibility;
mod documents;
mod mutants;
mod replication;

use xtask::Finding;

/// Fails with every finding on a line of its own.
fn none(found: &[Finding]) {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}
