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
