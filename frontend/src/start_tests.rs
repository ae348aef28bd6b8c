//! Starts: the API's words for each mistake, in the incumbent's order, and what the shard finds filled in.

use std::time::Duration as Patience;

use antipode_proto::api::common::v1::{Memo, Payload, Payloads, RetryPolicy, SearchAttributes, WorkflowType};

use super::*;
use crate::fakes::{Node, call};

fn whole() -> ws::StartWorkflowExecutionRequest {
    ws::StartWorkflowExecutionRequest {
        namespace: "orders".to_string(),
        workflow_id: "w".to_string(),
        workflow_type: Some(WorkflowType { name: "T".to_string() }),
        task_queue: Some(TaskQueue { name: "q".to_string(), ..TaskQueue::default() }),
        ..Default::default()
    }
}

async fn refused(node: &Node, request: ws::StartWorkflowExecutionRequest) -> Status {
    let call = call("StartWorkflowExecution", Patience::from_secs(5));
    start_workflow_execution(node.context(), &call, request).await.expect_err("a mistake")
}

type Change = fn(&mut ws::StartWorkflowExecutionRequest);

#[tokio::test]
async fn mistakes_in_the_apis_words() {
    let node = Node::new("east");
    let table: [(Change, tonic::Code, &str); 17] = [
        (|r| r.namespace = "no-1".into(), tonic::Code::NotFound, "Namespace no-1 is not found."),
        (|r| r.namespace.clear(), tonic::Code::InvalidArgument, "Namespace is empty."),
        (|r| r.workflow_id.clear(), tonic::Code::InvalidArgument, "WorkflowId is not set on request."),
        (
            |r| r.workflow_id = "w".repeat(1001),
            tonic::Code::InvalidArgument,
            "WorkflowId exceeds maximum allowed length (1001/1000)",
        ),
        (|r| r.workflow_type = None, tonic::Code::InvalidArgument, "WorkflowType is not set on request."),
        (|r| r.task_queue = None, tonic::Code::InvalidArgument, "taskQueue is not set"),
        (|r| r.cron_schedule = "bad".into(), tonic::Code::InvalidArgument, "invalid CronSchedule."),
        (
            |r| r.retry_policy = Some(RetryPolicy { backoff_coefficient: 0.5, ..RetryPolicy::default() }),
            tonic::Code::InvalidArgument,
            "BackoffCoefficient cannot be less than 1 on retry policy.",
        ),
        (
            |r| {
                let fields = [("NopeAttr".to_string(), Payload::default())];
                r.search_attributes = Some(SearchAttributes { indexed_fields: fields.into() });
            },
            tonic::Code::InvalidArgument,
            "Namespace orders has no mapping defined for search attribute NopeAttr",
        ),
        (
            |r| {
                let payload = Payload { data: vec![0; 3 << 20].into(), ..Payload::default() };
                r.input = Some(Payloads { payloads: vec![payload] });
            },
            tonic::Code::InvalidArgument,
            "Blob data size exceeds limit.",
        ),
        (
            |r| {
                let payload = Payload { data: vec![0; 3 << 20].into(), ..Payload::default() };
                r.memo = Some(Memo { fields: [("m".to_string(), payload)].into() });
            },
            tonic::Code::InvalidArgument,
            "Blob data size exceeds limit.",
        ),
        (
            #[allow(deprecated)]
            |r| {
                r.workflow_id_reuse_policy = Reuse::TerminateIfRunning as i32;
                r.workflow_id_conflict_policy = Conflict::UseExisting as i32;
            },
            tonic::Code::InvalidArgument,
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING cannot be used together with a WorkflowIDConflictPolicy",
        ),
        (
            |r| {
                r.workflow_id_reuse_policy = Reuse::RejectDuplicate as i32;
                r.workflow_id_conflict_policy = Conflict::TerminateExisting as i32;
            },
            tonic::Code::InvalidArgument,
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be used together with WorkflowIdConflictPolicy WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING",
        ),
        (
            |r| r.workflow_run_timeout = Some(Duration { seconds: -1, nanos: 0 }),
            tonic::Code::InvalidArgument,
            "An invalid WorkflowRunTimeoutSeconds is set on request.",
        ),
        (
            |r| {
                r.cron_schedule = "* * * * *".into();
                r.workflow_start_delay = Some(Duration { seconds: 1, nanos: 0 });
            },
            tonic::Code::InvalidArgument,
            "CronSchedule and WorkflowStartDelay may not be used together.",
        ),
        (
            |r| r.cron_schedule = "* * * * *".into(),
            tonic::Code::Unimplemented,
            "cron_schedule is not implemented",
        ),
        (|r| r.links = vec![Default::default()], tonic::Code::Unimplemented, "links is not implemented"),
    ];
    for (change, code, words) in table {
        let mut request = whole();
        change(&mut request);
        let status = refused(&node, request).await;
        assert_eq!((status.code(), status.message()), (code, words));
    }
    assert_eq!(node.history.asked_count(), 0, "no shard is asked for what is malformed");
}

#[tokio::test]
async fn the_shard_finds_defaults_filled() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::Start(Box::default())));
    let mut request = whole();
    request.workflow_execution_timeout = Some(Duration { seconds: 60, nanos: 0 });
    request.workflow_run_timeout = Some(Duration { seconds: 90, nanos: 0 });
    let call = call("StartWorkflowExecution", Patience::from_secs(5));
    start_workflow_execution(node.context(), &call, request).await.expect("a whole request");
    let asked = node.history.last();
    assert_eq!(asked.workflow.workflow.as_str(), "w");
    let Operation::Start(start) = asked.operation else { panic!("a start, found {:?}", asked.operation) };
    assert_eq!(start.request_id.len(), 36, "a minted id");
    assert_eq!(start.workflow_run_timeout.expect("filled").seconds, 60, "a run ends with its execution");
    assert_eq!(start.workflow_task_timeout.expect("filled").seconds, 10);
    assert_eq!(start.task_queue.expect("given").kind, TaskQueueKind::Normal as i32);
    assert_eq!(start.workflow_id_reuse_policy, Reuse::AllowDuplicate as i32);
    assert_eq!(start.workflow_id_conflict_policy, Conflict::Fail as i32);
}

#[test]
fn timeouts() {
    let seconds = |seconds| Some(Duration { seconds, nanos: 0 });
    let filled = |execution, run, task| {
        let (mut execution, mut run, mut task) = (execution, run, task);
        fill_timeouts(&mut execution, &mut run, &mut task);
        [execution, run, task].map(|timeout| timeout.expect("filled").seconds)
    };
    assert_eq!(filled(None, None, None), [0, 0, 10]);
    assert_eq!(filled(seconds(60), None, None), [60, 60, 10]);
    assert_eq!(filled(None, seconds(30), seconds(5)), [0, 30, 5]);
    assert_eq!(filled(seconds(60), seconds(30), seconds(500)), [60, 30, 120]);
}

#[test]
#[allow(deprecated)]
fn policies() {
    let filled = |reuse: Reuse, conflict: Conflict, default| {
        let (mut reuse, mut conflict) = (reuse as i32, conflict as i32);
        fill_policies((&mut reuse, &mut conflict), default);
        (Reuse::try_from(reuse).expect("known"), Conflict::try_from(conflict).expect("known"))
    };
    let unset = (Reuse::Unspecified, Conflict::Unspecified);
    assert_eq!(filled(unset.0, unset.1, Conflict::Fail), (Reuse::AllowDuplicate, Conflict::Fail));
    assert_eq!(
        filled(unset.0, unset.1, Conflict::UseExisting),
        (Reuse::AllowDuplicate, Conflict::UseExisting)
    );
    assert_eq!(
        filled(Reuse::TerminateIfRunning, unset.1, Conflict::Fail),
        (Reuse::AllowDuplicate, Conflict::TerminateExisting)
    );
    assert_eq!(
        filled(Reuse::RejectDuplicate, Conflict::UseExisting, Conflict::Fail),
        (Reuse::RejectDuplicate, Conflict::UseExisting)
    );
}

#[tokio::test]
async fn signal_with_start_never_fails_on_a_running_workflow() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::SignalWithStart(Box::default())));
    let request = ws::SignalWithStartWorkflowExecutionRequest {
        namespace: "orders".to_string(),
        workflow_id: "w".to_string(),
        signal_name: "s".to_string(),
        workflow_type: Some(WorkflowType { name: "T".to_string() }),
        task_queue: Some(TaskQueue { name: "q".to_string(), ..TaskQueue::default() }),
        ..Default::default()
    };
    let call = call("SignalWithStartWorkflowExecution", Patience::from_secs(5));
    let ask = |request| signal_with_start_workflow_execution(node.context(), &call, request);
    ask(request.clone()).await.expect("a whole request");
    let Operation::SignalWithStart(asked) = node.history.last().operation else {
        panic!("a signal with start")
    };
    assert_eq!(asked.workflow_id_conflict_policy, Conflict::UseExisting as i32);

    let mut failing = request.clone();
    failing.workflow_id_conflict_policy = Conflict::Fail as i32;
    assert_eq!(
        ask(failing).await.expect_err("not for this operation").message(),
        "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported for this operation."
    );
    let mut unnamed = request;
    unnamed.signal_name.clear();
    assert_eq!(ask(unnamed).await.expect_err("no name").message(), "SignalName is not set on request.");
}
