//! Every form the language has, every refusal with the incumbent's words, and the logic of nulls.

use antipode_core::ids::{NamespaceId, Nanos, RunId, RunKey, Timestamp, WorkflowId};
use bytes::Bytes;
use uuid::Uuid;

use super::*;

fn list(text: &str) -> Result<Option<Expression>, String> {
    parse(text, Purpose::List).map(|parsed| parsed.filter).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    list(text).unwrap_err()
}

fn row(workflow: &str, status: i32, close: Option<i64>) -> VisibilityRow {
    VisibilityRow {
        key: RunKey {
            namespace: NamespaceId(Uuid::from_u128(1)),
            workflow: WorkflowId::from(workflow),
            run: RunId(Uuid::from_u128(0xabc)),
        },
        workflow_type: "Order".to_string(),
        task_queue: "orders".to_string(),
        status,
        start: Timestamp(1_000),
        execution: Timestamp(2_000),
        close: close.map(Timestamp),
        history_length: 11,
        history_size: 2_222,
        transitions: 7,
        memo: Bytes::new(),
        search_attributes: Bytes::new(),
        first_run: String::new(),
        superseded: false,
    }
}

fn matches(text: &str, row: &VisibilityRow) -> bool {
    list(text).unwrap().unwrap().matches(row)
}

#[test]
fn the_incumbents_refusals() {
    // The golden answers, and their neighbours.
    for (text, why) in [
        ("WorkflowType =", "malformed SQL query: syntax error at position 41"),
        ("WorkflowType = = 'x'", "malformed SQL query: syntax error at position 43"),
        ("WorkflowType is what", "malformed SQL query: syntax error at position 47 near 'what'"),
        ("Nope = 'x'", "invalid search attribute: Nope"),
        ("Nope = 'x' AND", "malformed SQL query: syntax error at position 41"),
        ("ExecutionStatus = 'Nope'", "invalid expression: invalid ExecutionStatus value 'Nope'"),
        ("ExecutionStatus = 99", "invalid expression: invalid ExecutionStatus value '99'"),
        ("WorkflowType = 'x' ORDER BY StartTime DESC", "operation is not supported: 'ORDER BY' clause"),
        ("ORDER BY StartTime", "operation is not supported: 'ORDER BY' clause"),
        (
            "WorkflowType LIKE 'x%'",
            "operation is not supported: operator 'LIKE' not supported for Keyword type search attribute 'WorkflowType'",
        ),
        ("WorkflowType", "invalid expression: incomplete expression"),
        ("GROUP BY ExecutionStatus", "operation is not supported: 'GROUP BY' clause"),
        (
            "StartTime STARTS_WITH '2026'",
            "operation is not supported: operator 'STARTS_WITH' not supported for Datetime type search attribute 'StartTime'",
        ),
        (
            "ExecutionStatus > 'Running'",
            "operation is not supported: operator '>' not supported for Keyword type search attribute 'ExecutionStatus'",
        ),
        (
            "StartTime > 'yesterday'",
            "invalid expression: invalid value for search attribute StartTime of type Datetime: 'yesterday'",
        ),
        (
            "WorkflowId = 5",
            "invalid expression: invalid value for search attribute WorkflowId of type Keyword: '5'",
        ),
        ("WorkflowId IN ()", "malformed SQL query: syntax error at position 43"),
        ("(WorkflowId = 'a'", "malformed SQL query: syntax error at position 44"),
        ("WorkflowId = 'a' ; DROP", "malformed SQL query: syntax error at position 45 near ';'"),
    ] {
        assert_eq!(refusal(text), format!("invalid query: {why}"), "{text}");
    }
}

#[test]
fn grouping_is_for_counts_by_status() {
    let count = |text| parse(text, Purpose::Count).map_err(|error| error.to_string());
    assert!(count("GROUP BY ExecutionStatus").unwrap().group_by_status);
    let both = count("WorkflowType = 'x' group by ExecutionStatus").unwrap();
    assert!(both.group_by_status && both.filter.is_some());
    assert_eq!(
        count("GROUP BY WorkflowType").unwrap_err(),
        "invalid query: operation is not supported: 'GROUP BY' clause is not supported for search attribute WorkflowType"
    );
    assert!(count("GROUP BY ExecutionStatus, WorkflowType").is_err());
    assert!(!count("").unwrap().group_by_status);
}

#[test]
fn every_form_of_a_test() {
    let open = row("order-1", 1, None);
    let closed = row("order-2", 2, Some(3_602_000_002_000));
    for (text, of_open, of_closed) in [
        ("WorkflowId = 'order-1'", true, false),
        ("WorkflowId = \"order-1\"", true, false),
        ("`WorkflowId` = 'order-1'", true, false),
        ("WorkflowId != 'order-1'", false, true),
        ("WorkflowId <> 'order-1'", false, true),
        ("WorkflowId > 'order-1'", false, true),
        ("WorkflowId IN ('order-1', 'order-9')", true, false),
        ("WorkflowId not in ('order-1', 'order-9')", false, true),
        ("WorkflowId STARTS_WITH 'order-'", true, true),
        ("WorkflowId NOT STARTS_WITH 'order-1'", false, true),
        ("WorkflowId BETWEEN 'order-0' AND 'order-1'", true, false),
        ("WorkflowId NOT BETWEEN 'order-0' AND 'order-1'", false, true),
        ("RunId = '00000000-0000-0000-0000-000000000abc'", true, true),
        ("ExecutionStatus = 'Running'", true, false),
        ("ExecutionStatus = 1", true, false),
        ("ExecutionStatus = 'WORKFLOW_EXECUTION_STATUS_COMPLETED'", false, true),
        ("ExecutionStatus IN ('Running', 2)", true, true),
        ("ExecutionStatus != 'Completed'", true, false),
        ("CloseTime IS NULL", true, false),
        ("CloseTime is not null", false, true),
        ("ExecutionDuration >= '1h0m'", false, true),
        ("ExecutionDuration BETWEEN '01:00:02' AND '01:00:02'", false, true),
        ("ExecutionDuration = 3602000000000", false, true),
        ("HistoryLength > 10 AND HistoryLength < 12", false, true),
        ("HistorySizeBytes = 2222 OR StateTransitionCount = 0", false, true),
        ("StartTime = '1970-01-01T00:00:00.000001Z'", true, true),
        ("StartTime < 1000", false, false),
        ("TaskQueue = 'orders' AND WorkflowType = 'Order'", true, true),
    ] {
        assert_eq!(matches(text, &open), of_open, "{text} of the open run");
        assert_eq!(matches(text, &closed), of_closed, "{text} of the closed run");
    }
}

#[test]
fn a_test_of_something_null_is_neither_true_nor_false() {
    let open = row("w", 1, None);
    assert!(!matches("CloseTime > 0", &open));
    assert!(!matches("NOT CloseTime > 0", &open));
    assert!(!matches("HistoryLength NOT IN (5)", &open));
    assert!(matches("CloseTime > 0 OR WorkflowId = 'w'", &open));
    assert!(!matches("NOT (CloseTime > 0 OR WorkflowId = 'v')", &open));
    assert!(matches("NOT (CloseTime > 0 AND WorkflowId = 'v')", &open));
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    let shape = |text: &str| list(text).unwrap().unwrap().to_string();
    let (a, b, c) = ("WorkflowId = 'a'", "WorkflowId = 'b'", "WorkflowId = 'c'");
    assert_eq!(shape(&format!("{a} OR {b} AND {c}")), format!("({a} OR ({b} AND {c}))"));
    assert_eq!(shape(&format!("{a} AND {b} OR {c}")), format!("(({a} AND {b}) OR {c})"));
    assert_eq!(shape(&format!("NOT {a} AND {b}")), format!("((NOT {a}) AND {b})"));
    assert_eq!(shape(&format!("NOT ({a} AND {b})")), format!("(NOT ({a} AND {b}))"));
    assert_eq!(shape(&format!("{a} AND {b} AND {c}")), format!("({a} AND {b} AND {c})"));
}

#[test]
fn quotes_inside_strings() {
    assert!(matches("WorkflowId = 'it''s'", &row("it's", 1, None)));
    assert!(matches(r"WorkflowId = 'it\'s'", &row("it's", 1, None)));
    assert!(matches(r#"WorkflowId = "say ""hi""""#, &row(r#"say "hi""#, 1, None)));
    assert!(matches("WorkflowId = 'Ωμέγα'", &row("Ωμέγα", 1, None)));
    assert!(refusal("WorkflowId = 'open").contains("syntax error"));
}

#[test]
fn hostile_sizes_are_refused_and_not_followed() {
    let deep = format!("{}WorkflowId = 'a'{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(refusal(&deep).contains("nested"));
    assert!(refusal(&"NOT ".repeat(100_000)).contains("nested"));
    let wide = vec!["WorkflowId = 'a'"; CONDITIONS_MAX + 1].join(" OR ");
    assert!(refusal(&wide).contains("conditions"));
    let many = format!("WorkflowId IN ({})", vec!["'a'"; VALUES_MAX + 1].join(","));
    assert!(refusal(&many).contains("values"));
}

#[test]
fn times_in_their_forms() {
    for (text, nanos) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:34:56.789+01:30", 951_822_296_789_000_000),
        ("2026-11-21T22:02:05.123456789Z", 1_795_298_525_123_456_789),
        ("1969-12-31T23:59:59-00:00", -1_000_000_000),
        ("1234", 1234),
    ] {
        assert_eq!(time_parse(text), Some(Timestamp(nanos)), "{text}");
    }
    for text in ["2001-02-29T00:00:00Z", "2026-11-21", "2026-11-21T25:00:00Z", "2026-1-1T00:00:00Z", ""] {
        assert_eq!(time_parse(text), None, "{text}");
    }
    for nanos in [0, 951_822_296_789_000_000, -1, 1_795_298_525_123_456_789, 4_107_542_399_999_999_999] {
        assert_eq!(time_parse(&time_format(Timestamp(nanos))), Some(Timestamp(nanos)), "{nanos}");
    }
}

#[test]
fn durations_in_their_forms() {
    for (text, nanos) in [
        ("1h30m", 5_400_000_000_000),
        ("300ms", 300_000_000),
        ("-1.5s", -1_500_000_000),
        ("00:01:30", 90_000_000_000),
        ("100:00:00", 360_000_000_000_000),
        ("42", 42),
    ] {
        assert_eq!(duration_parse(text), Some(Nanos(nanos)), "{text}");
    }
    for text in ["", "h", "1x", "1:2:3", "-", "1.s2"] {
        assert_eq!(duration_parse(text), None, "{text}");
    }
}
