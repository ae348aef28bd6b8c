//! Does the generator notice? A stub that keeps every promise must pass each case; a stub that breaks one promise once
//! must be caught by the case that can see it. Nothing here looks at the clock: cases run on operations, not on speed.

#![allow(clippy::unwrap_used, reason = "a test file's helpers are tests too")]

use std::time::Duration;

use antipode_bench::{
    case::Case,
    load::{self, Settings, Target},
    outcome::Outcome,
    stub::{self, Mischief},
};
use tokio::net::TcpListener;

/// Short phases; what is counted does not depend on their length, as long as something happens in them.
fn settings() -> Settings {
    Settings {
        warm_up: Duration::ZERO,
        measure: Duration::from_millis(100),
        settle: Duration::ZERO,
        patience: Duration::from_secs(1),
        sample: None,
        ..Settings::default()
    }
}

async fn outcome(case: &str, mischief: Mischief) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(stub::serve(listener, mischief));
    let target = Target { server: "stub".to_string(), address, pid: None, beside: None };
    let outcome = load::measure(&target, case.parse::<Case>().unwrap(), &settings()).await.unwrap();
    server.abort();
    outcome
}

#[tokio::test]
async fn an_honest_server_passes_every_case() {
    let cases = [
        "start",
        "echo",
        "echo-c1",
        "echo-rate50",
        "activity",
        "activity-c1",
        "signal",
        "signal-c1",
        "fanin",
    ];
    for case in cases {
        let outcome = outcome(case, Mischief::None).await;
        assert_eq!(outcome.faults, None, "{case}");
        assert!(outcome.operations > 0 && outcome.verified > 0, "{case}: {outcome:?}");
        assert!(outcome.sound().is_ok());
    }
}

async fn caught(case: &str, mischief: Mischief, counts: (u64, u64, u64)) {
    let outcome = outcome(case, mischief).await;
    let found = (outcome.lost, outcome.doubled, outcome.wrong);
    assert_eq!(found, counts, "{case} with {mischief:?}: {:?}", outcome.faults);
    let error = outcome.sound().unwrap_err().to_string();
    assert!(error.contains(" lost, "), "{error}");
}

#[tokio::test]
async fn a_signal_that_is_acknowledged_and_forgotten_is_lost() {
    caught("signal", Mischief::LoseSignal(5), (1, 0, 0)).await;
    caught("fanin", Mischief::LoseSignal(5), (1, 0, 0)).await;
}

#[tokio::test]
async fn a_signal_that_is_written_twice_is_doubled() {
    caught("signal", Mischief::DoubleSignal(3), (0, 1, 0)).await;
    caught("fanin-c1", Mischief::DoubleSignal(3), (0, 1, 0)).await;
}

#[tokio::test]
async fn a_workflow_task_that_is_handed_out_twice_is_doubled() {
    let outcome = outcome("echo", Mischief::DoubleWorkflowTask(2)).await;
    assert!(outcome.doubled >= 1, "{:?}", outcome.faults);
}

#[tokio::test]
async fn an_activity_that_is_handed_out_twice_is_doubled() {
    let outcome = outcome("activity", Mischief::DoubleActivityTask(2)).await;
    assert!(outcome.doubled >= 1, "{:?}", outcome.faults);
}

#[tokio::test]
async fn a_workflow_that_is_acknowledged_and_never_runs_is_lost() {
    for case in ["start", "echo", "activity"] {
        let outcome = outcome(case, Mischief::LoseStart(3)).await;
        // By the books, by its history and by its description.
        assert_eq!((outcome.lost, outcome.doubled, outcome.wrong), (1, 0, 2), "{case}: {:?}", outcome.faults);
    }
}

#[tokio::test]
async fn another_result_is_wrong() {
    caught("echo", Mischief::WrongResult(2), (0, 0, 1)).await;
}

#[tokio::test]
async fn a_completion_that_is_acknowledged_and_forgotten_is_wrong_in_the_history() {
    let outcome = outcome("echo", Mischief::LoseCommands(2)).await;
    // The history lacks the close, and the description has another status.
    assert_eq!((outcome.lost, outcome.doubled, outcome.wrong), (0, 0, 2), "{:?}", outcome.faults);
}

#[tokio::test]
async fn a_history_that_is_gone_is_lost() {
    let outcome = outcome("echo", Mischief::ForgetHistory(2)).await;
    assert_eq!((outcome.lost, outcome.doubled, outcome.wrong), (1, 0, 0), "{:?}", outcome.faults);
}
