//! `docs/compatibility.md` speaks about every RPC of the public API, and about nothing else.

use std::{collections::BTreeSet, fs};

use antipode_tests::rpcs::{OPERATOR_SERVICE, WORKFLOW_SERVICE};
use xtask::{documents, source};

use crate::none;

const DOCUMENT: &str = "docs/compatibility.md";

#[test]
fn the_public_api_has_123_and_12_rpcs() {
    assert_eq!(WORKFLOW_SERVICE.len(), 123);
    assert_eq!(OPERATOR_SERVICE.len(), 12);
    let names: BTreeSet<&str> = WORKFLOW_SERVICE.into_iter().chain(OPERATOR_SERVICE).collect();
    assert_eq!(names.len(), 135, "no name stands in both services");
}

#[test]
fn every_rpc_has_one_row_with_a_known_mark() {
    let text = fs::read_to_string(source::root().join(DOCUMENT)).unwrap();
    let rpcs: Vec<&str> = WORKFLOW_SERVICE.into_iter().chain(OPERATOR_SERVICE).collect();
    none(&documents::compatibility(DOCUMENT, &text, &rpcs));
}

#[test]
fn the_counts_at_the_top_are_those_of_the_rows() {
    let text = fs::read_to_string(source::root().join(DOCUMENT)).unwrap();
    let (rows, _) = documents::marks(DOCUMENT, &text);
    for (service, rpcs) in
        [("WorkflowService", &WORKFLOW_SERVICE[..]), ("OperatorService", &OPERATOR_SERVICE[..])]
    {
        let count = |mark: &str| rpcs.iter().filter(|rpc| rows.get(**rpc).is_some_and(|m| m == mark)).count();
        let [works, partly, unimplemented] = documents::MARKS.map(count);
        let row = format!("| {service} ({}) | {works} | {partly} | {unimplemented} |", rpcs.len());
        assert!(text.contains(&row), "the table at the top lacks `{row}`");
    }
}

#[test]
fn missing_doubled_strange_and_unmarked_rows_are_found() {
    let text = "| RPC | mark |\n|---|---|\n| `StartWorkflow` | works | |\n| StartWorkflow | partly |\n| Hop | works |\n| Wait | soon |\n";
    let found = documents::compatibility("x.md", text, &["StartWorkflow", "Wait", "Gone"]);
    let said: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "x.md:4: `StartWorkflow` has two rows",
            "x.md:6: `Wait` has the unknown mark `soon`",
            "x.md: `Wait` has no row",
            "x.md: `Gone` has no row",
            "x.md: `Hop` is no RPC of the public API",
        ]
    );
}
