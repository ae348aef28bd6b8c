//! What exists, read from the sources: the functions of the core that write a run, the requests of a shard that do, and the events
//! that a decision can write. A test that holds its own list against these misses what is added later.

use std::{collections::BTreeSet, fs};

/// The folder of the decisions.
const DECIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/decide");
/// The requests of a shard; each says whether it writes.
const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../history/src/api.rs");

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Functions of the decisions that write a run, `module::name`: public, and given a run to change, or making one.
pub fn entry_points() -> Vec<String> {
    let files = fs::read_dir(DECIDE).unwrap().map(|file| file.unwrap().path());
    let mut found: Vec<String> = files
        .flat_map(|path| {
            let module = path.file_stem().unwrap().to_str().unwrap().to_string();
            entry_points_of(&module, &read(path.to_str().unwrap()))
        })
        .collect();
    found.sort();
    found
}

fn entry_points_of(module: &str, source: &str) -> Vec<String> {
    let functions = source.split("\npub fn ").skip(1);
    let signatures =
        functions.filter_map(|function| function.split_once(" {\n").map(|(signature, _)| signature));
    let writes = |signature: &&str| {
        let given = signature.replace("crate::run::", "");
        given.contains("&mut Run") || given.contains("Result<(Run,")
    };
    let name = |signature: &str| signature.split(['(', '<']).next().map(|name| format!("{module}::{name}"));
    signatures.filter(writes).filter_map(name).collect()
}

/// Requests of a shard that write, by the name of the operation.
pub fn writing_requests() -> Vec<String> {
    let api = read(API);
    let operations = api.split("pub enum Operation {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let name = |operation: &str| {
        let line = operation.lines().find(|line| line.starts_with("    ") && !line.contains("///")).unwrap();
        line.trim().split(['(', ' ', ',']).next().unwrap().to_string()
    };
    operations.split("    /// W ").skip(1).map(name).collect()
}

/// Events that a decision can write, as an outline names them.
pub fn written_events() -> BTreeSet<String> {
    let draft = read(&format!("{DECIDE}/draft.rs"));
    let name =
        |line: &str| line.split_once("=> EventType::")?.1.split_once(',').map(|(name, _)| name.to_string());
    draft.lines().filter_map(name).filter(|name| name != "Unspecified").collect()
}
