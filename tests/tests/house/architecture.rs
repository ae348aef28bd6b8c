//! Dependencies point to the left, pure code is pure, seams are the only way out, files say what they are.

use std::collections::BTreeSet;

use xtask::{source, tidy, workspace};

use crate::none;

#[test]
fn every_crate_uses_crates_to_its_left_only() {
    let edges = workspace::edges(&source::root()).unwrap();
    let users: BTreeSet<&str> = edges.iter().filter(|e| e.ours).map(|e| e.from.as_str()).collect();
    assert!(users.contains("server") && users.contains("core"), "the edges were read: {users:?}");
    none(&workspace::direction(&edges));
}

#[test]
fn an_edge_to_the_right_is_found() {
    let edge = |from: &str, to: &str, ours: bool, features: &[&str]| workspace::Edge {
        from: from.into(),
        to: to.into(),
        ours,
        kind: "normal".into(),
        features: features.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(workspace::direction(&[edge("matching", "history", true, &[])]), []);
    assert_eq!(workspace::direction(&[edge("history", "matching", true, &[])]).len(), 1);
    assert_eq!(workspace::direction(&[edge("server", "tests", true, &[])]).len(), 1);
    assert_eq!(workspace::direction(&[edge("attic", "core", true, &[])]).len(), 1);
    assert_eq!(workspace::direction(&[edge("core", "tokio", false, &[])]).len(), 1);
    assert_eq!(workspace::direction(&[edge("core", "proto", true, &["grpc"])]).len(), 1);
    assert_eq!(workspace::direction(&[edge("frontend", "tokio", false, &[])]), []);
}

#[test]
fn pure_code_is_pure() {
    none(&workspace::purity(&source::root()).unwrap());
}

#[test]
fn impure_names_are_found_in_code_and_not_in_words() {
    let text = "//! No HashMap here.\nuse std::collections::HashMap;\nfn f() { let _ = std::time::SystemTime::now(); }\n";
    let found = workspace::impurities("core/src/x.rs", text);
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 3]);
    assert!(workspace::says_pure("//! Pure: the shard as a machine.\n"));
    assert!(!workspace::says_pure("//! The host of the pure machine.\n"));
}

/// Each impurity, put into a file of each pure place, is found; in a shell it is not looked for.
#[test]
fn every_impurity_is_found_in_every_pure_place() {
    for (line, name) in [
        ("use std::collections::HashMap;", "HashMap"),
        ("let set: HashSet<u8> = HashSet::default();", "HashSet"),
        ("let state = RandomState::new();", "RandomState"),
        ("let now = SystemTime::now();", "SystemTime"),
        ("let now = std::time::Instant::now();", "Instant"),
        ("std::thread::spawn(run);", "thread"),
        ("use std::{env, fmt};", "env"),
        ("let home = std::env::var(HOME);", "env"),
        ("let text = fs::read_to_string(path);", "fs"),
        ("use std::net::TcpStream;", "net"),
        ("std::process::exit(1);", "process"),
        ("let number: u8 = rand::random();", "rand"),
        ("let id = Uuid::new_v4();", "new_v4"),
        ("async fn wait() {}", "async"),
        ("answer.await", "await"),
        ("tokio::spawn(task)", "tokio"),
        ("use std::collections::hash_map::Entry;", "hash_map"),
        ("use std::time::*;", "::*"),
        ("thread_local! { static X: u8 = 0; }", "thread_local"),
        ("static COUNT: AtomicU64 = AtomicU64::new(0);", "AtomicU64"),
        ("let length = base.powi(3);", "powi"),
    ] {
        let text = format!("//! A file.\nfn f() {{\n    {line}\n}}\n");
        let found = workspace::impurities("core/src/x.rs", &text);
        assert!(
            found.iter().any(|finding| finding.line == 3 && finding.what.starts_with(&format!("`{name}`"))),
            "{line}: {found:?}"
        );
    }
    let spread =
        "//! A file.\nuse std::{\n    collections::BTreeMap,\n    thread as t,\n};\nfn f(thread: u8) {}\n";
    let found = workspace::impurities("core/src/x.rs", spread);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [4], "{found:?}");
    let harmless = "let net = setup.net.clone(); let processed = environment(thread_of(rand_like));";
    assert_eq!(workspace::impurities("core/src/x.rs", harmless), []);
    for pure in [
        "core/src/fold.rs",
        "conflict/src/decide.rs",
        "history/src/shard/mod.rs",
        "history/src/token.rs",
        "replicator/src/proof.rs",
        "replicator/src/cover.rs",
        "history/src/api.rs",
        "replicator/src/inbox/entries.rs",
        "simulation/src/world.rs",
        "simulation/src/engine/links.rs",
    ] {
        assert!(workspace::is_pure_place(pure), "{pure}");
    }
    for shell in
        ["history/src/host.rs", "replicator/src/node.rs", "server/src/node.rs", "simulation/src/scenario.rs"]
    {
        assert!(!workspace::is_pure_place(shell), "{shell}");
    }
}

/// The pure places are there: a renamed file must not slip out of the check.
#[test]
fn the_pure_places_exist() {
    let root = source::root();
    for place in workspace::PURE_PARTS.iter().chain(&workspace::SIMULATION_SHELL) {
        assert!(root.join(place).exists(), "{place} is named in the check of purity and does not exist");
    }
}

/// The fold is the only writer of mutable state: its fields are private to the fold (see the example in `core/src/fold.rs`
/// that must not compile), and nobody but the run puts another state in the place of a run's.
#[test]
fn only_the_run_replaces_its_state() {
    let mut found = Vec::new();
    for path in source::files(&source::root(), ".rs").unwrap() {
        let shown = source::shown(&source::root(), &path);
        let ours = [
            "core/src/",
            "conflict/src/",
            "history/src/",
            "replicator/src/",
            "simulation/src/",
            "server/src/",
        ];
        if !ours.iter().any(|place| shown.starts_with(place)) || source::is_test_file(&shown) {
            continue;
        }
        found.extend(replaced_states(&shown, &std::fs::read_to_string(&path).unwrap()));
    }
    assert_eq!(
        found,
        ["core/src/run.rs: self.state = State::default();"],
        "`Run::rebuild` folds anew; nobody else may"
    );
}

/// Lines that put another state into a run, or fold outside the run.
fn replaced_states(shown: &str, text: &str) -> Vec<String> {
    let suspicious = |line: &str| {
        let squeezed: String = line.split_whitespace().collect();
        ["run.state=", "self.state=State", "&mutrun.state", "&mutself.run.state", "swap(&mutrun.state"]
            .iter()
            .any(|pattern| squeezed.contains(pattern) && !squeezed.contains("run.state=="))
    };
    source::shipped(text)
        .iter()
        .filter(|line| suspicious(line))
        .map(|line| format!("{shown}: {}", line.trim()))
        .collect()
}

#[test]
fn a_replaced_state_is_found() {
    let text = "//! x\nfn f(run: &mut Run) {\n    run.state = State::default();\n    let s = &mut run.state;\n    if run.state == other {}\n}\n";
    assert_eq!(
        replaced_states("history/src/x.rs", text),
        ["history/src/x.rs: run.state = State::default();", "history/src/x.rs: let s = &mut run.state;"]
    );
}

#[test]
fn files_have_heads_and_calls_go_through_the_seams() {
    none(&tidy::check(&source::root()).unwrap().broken);
}

#[test]
fn a_headless_file_and_a_call_past_a_seam_are_found() {
    assert!(!tidy::has_head("use std::fs;\n//! Late.\n"));
    let text = "fn f() { let _ = Instant::now(); }\n// tidy: allow, because the operator sees it\nfn g() { Instant::now(); }\n";
    let lines: Vec<usize> = tidy::banned_calls("frontend/src/x.rs", text).iter().map(|f| f.line).collect();
    assert_eq!(lines, [1]);
    assert_eq!(tidy::banned_calls("env/src/clock.rs", text), []);
}
