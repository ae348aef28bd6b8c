//! Tables of fields and the words for each mistake, as the incumbent answers (api-surface 3.11).

use super::*;

fn words(result: Result<impl std::fmt::Debug, Status>) -> String {
    let status = result.expect_err("a mistake");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    status.message().to_string()
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

#[test]
fn executions() {
    assert_eq!(words(execution(None)), "Execution is not set on request.");
    let named = |workflow: &str, run: &str| WorkflowExecution {
        workflow_id: workflow.to_string(),
        run_id: run.to_string(),
    };
    assert_eq!(words(execution(Some(&named("", "")))), "WorkflowId is not set on request.");
    assert_eq!(words(execution(Some(&named("w", "no-uuid")))), "Invalid RunId.");
    let long = "w".repeat(1001);
    assert_eq!(
        words(execution(Some(&named(&long, "")))),
        "WorkflowId exceeds maximum allowed length (1001/1000)"
    );
    let run = RunId::from_random([5; 16]);
    let whole = named("w", &run.to_string());
    assert_eq!(execution(Some(&whole)).expect("whole"), ("w", Some(run)));
    assert_eq!(execution(Some(&named("w", ""))).expect("current run").1, None);
}

#[test]
fn task_queues() {
    assert_eq!(words(task_queue(None)), "taskQueue is not set");
    assert_eq!(words(task_queue(Some(&TaskQueue::default()))), "taskQueue is not set");
    let queue = |name: &str| TaskQueue { name: name.to_string(), ..TaskQueue::default() };
    assert_eq!(
        words(task_queue(Some(&queue("/_sys/x")))),
        "task queue name cannot start with reserved prefix /_sys/"
    );
    assert!(task_queue(Some(&queue("orders"))).is_ok());
}

#[test]
fn retry_policies() {
    let policy = |change: fn(&mut RetryPolicy)| {
        let mut policy = RetryPolicy {
            initial_interval: seconds(1),
            backoff_coefficient: 2.0,
            maximum_interval: seconds(10),
            ..RetryPolicy::default()
        };
        change(&mut policy);
        retry_policy(Some(&policy))
    };
    assert!(policy(|_| {}).is_ok());
    assert!(retry_policy(Some(&RetryPolicy::default())).is_ok());
    assert!(policy(|policy| policy.backoff_coefficient = 0.0).is_ok());
    type Change = fn(&mut RetryPolicy);
    let table: [(Change, &str); 5] = [
        (
            |policy| policy.initial_interval = seconds(-1),
            "InitialInterval cannot be negative on retry policy.",
        ),
        (
            |policy| policy.backoff_coefficient = 0.5,
            "BackoffCoefficient cannot be less than 1 on retry policy.",
        ),
        (
            |policy| policy.maximum_interval = seconds(-1),
            "MaximumInterval cannot be negative on retry policy.",
        ),
        (
            |policy| policy.initial_interval = seconds(11),
            "MaximumInterval cannot be less than InitialInterval on retry policy.",
        ),
        (|policy| policy.maximum_attempts = -1, "MaximumAttempts cannot be negative on retry policy."),
    ];
    for (change, expected) in table {
        assert_eq!(words(policy(change)), expected);
    }
}

#[test]
fn cron_schedules() {
    for good in [
        "",
        "* * * * *",
        "*/5 0-3 1,15 * ?",
        "@daily",
        "@every 10s",
        "CRON_TZ=Europe/Berlin 0 12 * * MON-FRI",
    ] {
        assert!(cron(good).is_ok(), "{good}");
    }
    for bad in ["* * * *", "every day", "nonsense", "61 & * * *"] {
        assert_eq!(words(cron(bad)), "invalid CronSchedule.", "{bad}");
    }
}

#[test]
fn sizes() {
    let payloads_of = |bytes: usize| Payloads {
        payloads: vec![Payload { data: vec![0; bytes].into(), ..Payload::default() }],
    };
    assert!(payloads(Some(&payloads_of(2 << 20 >> 1))).is_ok());
    assert_eq!(words(payloads(Some(&payloads_of(2 << 20)))), "Blob data size exceeds limit.");
    assert!(payloads(None).is_ok());
}

#[test]
fn unknown_search_attribute() {
    let attributes =
        SearchAttributes { indexed_fields: [("NopeAttr".to_string(), Payload::default())].into() };
    assert_eq!(
        words(search_attributes("default", Some(&attributes))),
        "Namespace default has no mapping defined for search attribute NopeAttr"
    );
}

#[test]
fn durations() {
    assert!(duration("WorkflowRunTimeoutSeconds", None).is_ok());
    assert!(duration("WorkflowRunTimeoutSeconds", seconds(0).as_ref()).is_ok());
    assert_eq!(
        words(duration("WorkflowRunTimeoutSeconds", seconds(-1).as_ref())),
        "An invalid WorkflowRunTimeoutSeconds is set on request."
    );
}
