//! The direction of dependencies (a crate may use crates to its left only) and the purity of the pure crates. The order is
//! the ground plan of the house; the README of ARCHITECTURE.md tells it in words.

use std::{env, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{Finding, source};

/// Every crate of the house by its folder, ground floor first. Each may use crates that stand before it.
pub const ORDER: [&str; 13] = [
    "proto",
    "env",
    "core",
    "conflict",
    "config",
    "persistence",
    "history",
    "matching",
    "replicator",
    "frontend",
    "worker",
    "simulation",
    "server",
];

/// Crates above the house: they may use any of it, and none of it may use them.
pub const ABOVE: [&str; 3] = ["tests", "bench", "xtask"];

/// Crates that are pure as a whole: no runtime, clock, randomness, I/O.
pub const PURE: [&str; 2] = ["core", "conflict"];

/// Outside crates that a pure crate may use: they compute, and nothing else.
const PURE_MAY_USE: [&str; 8] =
    ["blake3", "bytes", "prost", "prost-types", "serde", "serde_json", "thiserror", "uuid"];

/// And the simulator, for its command line, its files, and stores whose traits are asynchronous.
const SIMULATION_MAY_USE: [&str; 3] = ["clap", "futures", "serde-saphyr"];

/// Pure parts of crates that also have a shell: what the simulator runs instead of a model. A folder ends with a slash.
pub const PURE_PARTS: [&str; 15] = [
    "history/src/api.rs",
    "history/src/shard/",
    "history/src/token.rs",
    "persistence/src/rows.rs",
    "replicator/src/cover.rs",
    "replicator/src/cursor.rs",
    "replicator/src/entry.rs",
    "replicator/src/handshake.rs",
    "replicator/src/inbox.rs",
    "replicator/src/inbox/",
    "replicator/src/mending.rs",
    "replicator/src/outbox.rs",
    "replicator/src/outbox/",
    "replicator/src/proof.rs",
    "replicator/src/selection.rs",
];

/// The simulator is pure but for the files that read scenarios, write reports, or run seeds side by side for its command line.
pub const SIMULATION: &str = "simulation/src/";

/// Those files.
pub const SIMULATION_SHELL: [&str; 3] =
    ["simulation/src/campaign.rs", "simulation/src/cli.rs", "simulation/src/scenario.rs"];

/// Names that must not appear in pure code, with the reason.
pub const IMPURE_NAMES: [(&str, &str); 24] = [
    ("SystemTime", "time comes in as an argument"),
    ("Instant", "time comes in as an argument"),
    ("HashMap", "its order differs from process to process: use BTreeMap"),
    ("HashSet", "its order differs from process to process: use BTreeSet"),
    ("RandomState", "its hashes differ from process to process"),
    ("DefaultHasher", "its hashes are not ours to promise"),
    ("thread_rng", "randomness comes in as an argument"),
    ("getrandom", "randomness comes in as an argument"),
    ("new_v4", "ids come in as arguments"),
    ("now_v7", "ids come in as arguments"),
    ("tokio", "pure code has no runtime"),
    ("async", "pure code is synchronous"),
    ("await", "pure code is synchronous"),
    ("hash_map", "its order differs from process to process: use BTreeMap"),
    ("hash_set", "its order differs from process to process: use BTreeSet"),
    ("thread_local", "pure code has no threads"),
    ("AtomicBool", "pure code shares nothing"),
    ("AtomicU64", "pure code shares nothing"),
    ("AtomicUsize", "pure code shares nothing"),
    ("OnceLock", "pure code shares nothing"),
    ("LazyLock", "pure code shares nothing"),
    ("powi", "its last digits differ from build to build"),
    ("powf", "its last digits differ from build to build"),
    ("exp", "its last digits differ from build to build"),
];

/// Modules that must not be named in a path of pure code (`fs::read`, `use std::env;`), with the reason.
pub const IMPURE_MODULES: [(&str, &str); 6] = [
    ("thread", "pure code has no threads"),
    ("fs", "pure code does no input or output"),
    ("net", "pure code does no input or output"),
    ("env", "pure code does not look at its surroundings"),
    ("process", "pure code does not look at its surroundings"),
    ("rand", "randomness comes in as an argument"),
];

/// One dependency edge of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Folder of the crate that uses.
    pub from: String,
    /// Folder of the crate that is used (ours), or the name of an outside crate.
    pub to: String,
    /// Whether `to` is one of ours.
    pub ours: bool,
    /// `normal`, `dev` or `build`.
    pub kind: String,
    /// Features asked for.
    pub features: Vec<String>,
}

/// Reads the edges of the workspace with `cargo metadata`, which knows every way a manifest can say them.
pub fn edges(root: &Path) -> Result<Vec<Edge>, String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let mut edges = Vec::new();
    for package in list(&metadata["packages"]) {
        let manifest = text(&package["manifest_path"]);
        let from = folder(root, Path::new(&manifest).parent());
        for dependency in list(&package["dependencies"]) {
            let path = dependency["path"].as_str();
            let kind = dependency["kind"].as_str().unwrap_or("normal").to_string();
            edges.push(Edge {
                from: from.clone(),
                to: path.map_or_else(|| text(&dependency["name"]), |p| folder(root, Some(Path::new(p)))),
                ours: path.is_some(),
                kind,
                features: list(&dependency["features"]).iter().map(text).collect(),
            });
        }
    }
    Ok(edges)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn folder(root: &Path, path: Option<&Path>) -> String {
    path.map(|p| source::shown(root, p)).unwrap_or_default()
}

/// Edges that point the wrong way, crates nobody placed, and impure crates below pure ones.
pub fn direction(edges: &[Edge]) -> Vec<Finding> {
    let mut found = Vec::new();
    for edge in edges {
        let manifest = format!("{}/Cargo.toml", edge.from);
        let place = |name: &str| ORDER.iter().position(|o| *o == name);
        if ABOVE.contains(&edge.from.as_str()) {
            continue;
        }
        let Some(from) = place(&edge.from) else {
            found.push(Finding::at(manifest, 0, format!("crate `{}` has no place in the order", edge.from)));
            continue;
        };
        let pure = PURE.contains(&edge.from.as_str()) && edge.kind != "dev";
        if edge.ours {
            match place(&edge.to) {
                Some(to) if to < from => {}
                _ => found.push(Finding::at(
                    &manifest,
                    0,
                    format!(
                        "`{}` must not use `{}`: a crate uses crates to its left only",
                        edge.from, edge.to
                    ),
                )),
            }
            if pure && edge.to == "proto" && edge.features.iter().any(|f| f == "grpc") {
                found.push(Finding::at(
                    &manifest,
                    0,
                    "pure crates see messages only, not the feature `grpc`",
                ));
            }
        } else if edge.kind != "dev" && !may_use(&edge.from, &edge.to) {
            found.push(Finding::at(
                &manifest,
                0,
                format!("pure crate `{}` must not use `{}`", edge.from, edge.to),
            ));
        }
    }
    found
}

/// Whether a crate may use one from outside: pure ones only what is listed.
fn may_use(from: &str, to: &str) -> bool {
    let simulation = from == "simulation";
    let listed = PURE_MAY_USE.contains(&to) || (simulation && SIMULATION_MAY_USE.contains(&to));
    listed || !(simulation || PURE.contains(&from))
}

/// Impure names in the code of a pure file.
pub fn impurities(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    // A list of `use std::{` may go over several lines.
    let mut listed = false;
    for (index, line) in source::shipped(text).iter().enumerate() {
        listed |= line.trim_start().starts_with("use std::{");
        if line.contains("std::") && line.contains("::*") {
            found.push(Finding::at(path, index + 1, "`::*` in pure code: it hides what comes from `std`"));
        }
        for word in line.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            if let Some((name, why)) = IMPURE_NAMES.iter().find(|(name, _)| *name == word) {
                found.push(Finding::at(path, index + 1, format!("`{name}` in pure code: {why}")));
            }
        }
        for (module, why) in IMPURE_MODULES {
            if names_module(line, module, listed) {
                found.push(Finding::at(path, index + 1, format!("`{module}` in pure code: {why}")));
            }
        }
        listed &= !line.contains("};");
    }
    found
}

/// Whether the word stands in the line as a part of a path.
fn names_module(line: &str, module: &str, listed: bool) -> bool {
    line.match_indices(module).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + module.len()..]);
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let whole = !before.ends_with(is_name) && !after.starts_with(is_name);
        // Within braces of a `use` it is a part of a path too.
        whole && (before.ends_with("std::") || after.starts_with("::") || listed)
    })
}

/// Whether a file is pure by its place: a pure crate, a pure part of another, or the simulator but for its shell.
pub fn is_pure_place(path: &str) -> bool {
    let below = |place: &&str| if place.ends_with('/') { path.starts_with(*place) } else { path == *place };
    PURE.iter().any(|name| path.starts_with(&format!("{name}/src/")))
        || PURE_PARTS.iter().any(below)
        || (path.starts_with(SIMULATION) && !SIMULATION_SHELL.iter().any(below))
}

/// Whether a file of a mixed crate says of itself that it is pure: its head comment opens with "Pure".
pub fn says_pure(text: &str) -> bool {
    text.lines().take_while(|l| l.starts_with("//!")).any(|l| {
        let words = l.trim_start_matches("//!").trim().to_lowercase();
        words.starts_with("pure:") || words.starts_with("pure ") || words.contains("(pure)")
    })
}

/// Impure names in all pure crates, and in the modules of other crates that call themselves pure.
pub fn purity(root: &Path) -> Result<Vec<Finding>, String> {
    let mut found = Vec::new();
    for path in source::files(root, ".rs").map_err(|e| e.to_string())? {
        let shown = source::shown(root, &path);
        let text = fs::read_to_string(&path).map_err(|e| format!("{shown}: {e}"))?;
        if !source::is_test_file(&shown) && (is_pure_place(&shown) || says_pure(&text)) {
            found.extend(impurities(&shown, &text));
        }
    }
    Ok(found)
}
