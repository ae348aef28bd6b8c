//! The services as a client meets them, through HTTP: tokens, polls, queries, forwarded calls, and what is not built.

use std::time::Duration;

use antipode_core::ids::{NamespaceId, RunId};
use antipode_history::api::{Operation, QueryReady, Reply, TaskKind, TaskRef, TaskToken};
use antipode_history::token;
use antipode_matching::QueryFailure;
use antipode_proto::{
    api::{
        common::v1::WorkflowExecution, failure::v1::Failure, query::v1::WorkflowQuery,
        taskqueue::v1::TaskQueue,
    },
    temporal::api::workflowservice::v1::{
        workflow_service_client::WorkflowServiceClient, workflow_service_server::WorkflowServiceServer,
    },
};
use tonic::{Code, Request, codec::CompressionEncoding::Gzip, service::Routes};

use super::*;
use crate::{fakes::Node, observe::Observed, router};

async fn client(node: &Node) -> WorkflowServiceClient<Routes> {
    let (routes, _health) = router(node.frontend.clone()).await;
    WorkflowServiceClient::new(routes)
}

fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn task_token(namespace: NamespaceId, kind: TaskKind) -> Bytes {
    let token = TaskToken {
        key: antipode_core::ids::RunKey { namespace, workflow: "w".into(), run: RunId::from_random([2; 16]) },
        task: TaskRef {
            scheduled: antipode_core::ids::EventId(2),
            version: antipode_core::ids::FailoverVersion(1),
            attempt: 1,
            stamp: 0,
        },
        started: antipode_core::ids::EventId(3),
        start_version: antipode_core::ids::FailoverVersion(1),
        tip: antipode_core::chain::ChainValue([3; 16]),
        kind,
        activity_id: String::new(),
        anchor: antipode_core::chain::ChainValue::NONE,
    };
    Bytes::from(token::encode(&token))
}

#[tokio::test]
async fn an_rpc_that_is_not_built_answers_with_its_name() {
    let node = Node::new("east");
    let status = client(&node)
        .await
        .create_schedule(ws::CreateScheduleRequest::default())
        .await
        .expect_err("not built");
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "CreateSchedule is not implemented"));
}

#[tokio::test]
async fn compressed_messages_are_understood_and_sent() {
    let node = Node::new("east");
    let mut client = client(&node).await.send_compressed(Gzip).accept_compressed(Gzip);
    let info = client.get_system_info(ws::GetSystemInfoRequest::default()).await.expect("gzip both ways");
    assert_eq!(info.metadata().get("grpc-encoding").expect("compressed"), "gzip");
    assert_eq!(info.into_inner().server_version, "1.32.0");
}

/// The library's words would be retried for ever; SDKs know these (api-surface 3.10).
#[tokio::test]
async fn a_message_that_is_too_large_is_final() {
    let node = Node::new("east");
    let small = WorkflowServiceServer::new(node.frontend.clone()).max_decoding_message_size(64);
    let routes = Routes::new(Observed::new(small, node.context().metrics.clone()));
    let request = ws::DescribeNamespaceRequest { namespace: "n".repeat(100), ..Default::default() };
    let status = WorkflowServiceClient::new(routes).describe_namespace(request).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max");
}

#[tokio::test]
async fn executions_in_the_apis_words() {
    let node = Node::new("east");
    let mut client = client(&node).await;
    let named = |workflow: &str, run: &str| {
        Some(WorkflowExecution { workflow_id: workflow.to_string(), run_id: run.to_string() })
    };
    let describe = |execution| ws::DescribeWorkflowExecutionRequest { namespace: "orders".into(), execution };
    let table = [
        (describe(None), Code::InvalidArgument, "Execution is not set on request."),
        (describe(named("w", "no-uuid")), Code::InvalidArgument, "Invalid RunId."),
        (describe(named("w", "")), Code::NotFound, "workflow not found for ID: w"),
    ];
    for (request, code, words) in table {
        let status = client.describe_workflow_execution(request).await.expect_err(words);
        assert_eq!((status.code(), status.message()), (code, words));
    }
    let signal = ws::SignalWorkflowExecutionRequest {
        namespace: "orders".into(),
        workflow_execution: named("w", ""),
        ..Default::default()
    };
    let status = client.signal_workflow_execution(signal).await.expect_err("no name");
    assert_eq!(status.message(), "SignalName is not set on request.");
    let cancel = ws::RequestCancelWorkflowExecutionRequest {
        namespace: "orders".into(),
        workflow_execution: named("w", ""),
        first_execution_run_id: "no-uuid".into(),
        ..Default::default()
    };
    let status = client.request_cancel_workflow_execution(cancel).await.expect_err("no run id");
    assert_eq!(status.message(), "Invalid FirstExecutionRunId.");
    let terminate = ws::TerminateWorkflowExecutionRequest {
        namespace: "orders".into(),
        workflow_execution: named("w", ""),
        ..Default::default()
    };
    let status = client.terminate_workflow_execution(terminate).await.expect_err("no such workflow");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "workflow not found for ID: w"));
}

#[tokio::test]
async fn activities_by_id_reach_the_run_that_is_named() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::Done));
    let run = RunId::from_random([8; 16]);
    let mut request = ws::RespondActivityTaskCompletedByIdRequest {
        namespace: "orders".into(),
        workflow_id: "w".into(),
        run_id: run.to_string(),
        activity_id: "a".into(),
        ..Default::default()
    };
    let mut client = client(&node).await;
    client.respond_activity_task_completed_by_id(request.clone()).await.expect("whole");
    let asked = node.history.last();
    assert_eq!(asked.run, Some(run));
    let Operation::ActivityCompleted(activity, _) = asked.operation else { panic!("a completion") };
    assert_eq!(activity, antipode_history::api::ActivityRef::ById("a".into()));
    request.activity_id.clear();
    let status = client.respond_activity_task_completed_by_id(request).await.expect_err("no activity");
    assert_eq!(status.message(), "ActivityId is not set on request.");
}

#[tokio::test]
async fn a_client_for_another_server_is_told() {
    let node = Node::new("east");
    let mut request = Request::new(ws::ListNamespacesRequest::default());
    request.metadata_mut().insert("supported-server-versions", ">=9.0.0".parse().expect("ascii"));
    let status = client(&node).await.list_namespaces(request).await.expect_err("another server");
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn bad_tokens_in_the_apis_words() {
    let node = Node::new("east");
    let orders = node.context().namespace("orders").expect("known").id;
    let answer = |namespace: &str, task_token: Bytes| ws::RespondWorkflowTaskCompletedRequest {
        namespace: namespace.to_string(),
        task_token,
        ..Default::default()
    };
    let table = [
        (answer("orders", Bytes::new()), "Task token not set on request."),
        (answer("orders", Bytes::from_static(b"bad")), "Error deserializing task token."),
        (
            answer("notes", task_token(orders, TaskKind::Workflow)),
            "Operation requested with a token from a different namespace.",
        ),
        (answer("orders", task_token(orders, TaskKind::Activity)), "Error deserializing task token."),
    ];
    let mut client = client(&node).await;
    for (request, words) in table {
        let status = client.respond_workflow_task_completed(request).await.expect_err(words);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, words));
    }
    let query = ws::RespondQueryTaskCompletedRequest {
        namespace: "orders".to_string(),
        task_token: task_token(orders, TaskKind::Workflow),
        ..Default::default()
    };
    let status = client.respond_query_task_completed(query).await.expect_err("not a query's token");
    assert_eq!(status.message(), "Error deserializing task token.");
    assert_eq!(node.history.asked_count(), 0);
}

#[tokio::test]
async fn a_task_is_completed_in_its_run() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::WorkflowTaskCompleted(Box::default())));
    let orders = node.context().namespace("orders").expect("known").id;
    let request = ws::RespondWorkflowTaskCompletedRequest {
        task_token: task_token(orders, TaskKind::Workflow),
        ..Default::default()
    };
    client(&node).await.respond_workflow_task_completed(request).await.expect("the token names all");
    let asked = node.history.last();
    assert_eq!((asked.workflow.namespace, asked.run), (orders, Some(RunId::from_random([2; 16]))));
    assert!(matches!(asked.operation, Operation::WorkflowTaskCompleted(..)));
}

#[tokio::test(start_paused = true)]
async fn an_empty_poll_is_an_empty_message() {
    let node = Node::new("west");
    let request = ws::PollActivityTaskQueueRequest {
        namespace: "orders".to_string(),
        task_queue: Some(TaskQueue { name: "q".to_string(), ..Default::default() }),
        ..Default::default()
    };
    let polled = client(&node).await.poll_activity_task_queue(within(request, Duration::from_secs(4))).await;
    assert_eq!(
        polled.expect("empty, not an error").into_inner(),
        ws::PollActivityTaskQueueResponse::default()
    );
    let waits = node.matching.waits.lock().unwrap();
    assert!(waits[0] > Duration::from_millis(2900) && waits[0] <= Duration::from_secs(3), "{waits:?}");
}

#[tokio::test]
async fn polls_in_the_apis_words() {
    let node = Node::new("east");
    let mut client = client(&node).await;
    let poll = |namespace: &str, queue: &str| ws::PollWorkflowTaskQueueRequest {
        namespace: namespace.to_string(),
        task_queue: Some(TaskQueue { name: queue.to_string(), ..Default::default() }),
        ..Default::default()
    };
    let table = [
        (poll("orders", ""), 10, Code::InvalidArgument, "taskQueue is not set"),
        (poll("no-1", "q"), 10, Code::NotFound, "Namespace no-1 is not found."),
        (poll("orders", "q"), 1, Code::FailedPrecondition, "Context timeout is too short."),
    ];
    for (request, seconds, code, words) in table {
        let request = within(request, Duration::from_secs(seconds));
        let status = client.poll_workflow_task_queue(request).await.expect_err(words);
        assert_eq!((status.code(), status.message()), (code, words));
    }
}

fn ready(rejected: Option<i32>) -> Reply {
    Reply::Query(Box::new(QueryReady {
        key: antipode_core::ids::RunKey {
            namespace: NamespaceId::from_random([6; 16]),
            workflow: "w".into(),
            run: RunId::from_random([2; 16]),
        },
        workflow_type: "T".to_string(),
        queue: "q".to_string(),
        sticky: None,
        history: Bytes::new(),
        previous_started: antipode_core::ids::EventId(3),
        rejected,
    }))
}

fn query() -> ws::QueryWorkflowRequest {
    ws::QueryWorkflowRequest {
        namespace: "orders".to_string(),
        execution: Some(WorkflowExecution { workflow_id: "w".to_string(), run_id: String::new() }),
        query: Some(WorkflowQuery { query_type: "state".to_string(), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn queries() {
    let node = Node::new("east");
    let mut client = client(&node).await;

    node.history.answers(|_| Ok(ready(Some(5))));
    let answer = client.query_workflow(query()).await.expect("an answer").into_inner();
    assert_eq!(answer.query_rejected.expect("rejected").status, 5);

    node.history.answers(|_| Ok(ready(None)));
    let failure = Failure { message: "boom".to_string(), ..Default::default() };
    *node.matching.query.lock().unwrap() =
        Some(Err(QueryFailure::Failed { message: "boom".to_string(), failure: Some(failure), cause: 0 }));
    let status = client.query_workflow(query()).await.expect_err("its handler failed");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "boom"));
    assert!(!status.details().is_empty());

    // No worker: the reason arrives before the deadline does.
    let status = client.query_workflow(within(query(), Duration::from_secs(4))).await.expect_err("no worker");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "no poller seen for task queue recently, worker may be down");
}

#[tokio::test]
async fn only_what_is_in_the_table_is_served_for_another_region() {
    let node = Node::new("east");
    for method in
        ["/temporal.api.workflowservice.v1.WorkflowService/DescribeNamespace", "/other.Service/Signal"]
    {
        let request = ForwardRequest { method: method.to_string(), ..Default::default() };
        let response = node.frontend.serve_forwarded(request).await;
        assert_eq!(Code::from(response.code), Code::Unimplemented, "{method}");
    }
    let damaged = ForwardRequest {
        method: "/temporal.api.workflowservice.v1.WorkflowService/SignalWorkflowExecution".to_string(),
        message: Bytes::from_static(&[0xff]),
        ..Default::default()
    };
    assert_eq!(Code::from(node.frontend.serve_forwarded(damaged).await.code), Code::InvalidArgument);
}

#[tokio::test]
async fn a_worker_that_goes_away_frees_its_sticky_queue() {
    let node = Node::new("east");
    let request = ws::ShutdownWorkerRequest {
        namespace: "orders".to_string(),
        sticky_task_queue: "sticky-1".to_string(),
        ..Default::default()
    };
    client(&node).await.shutdown_worker(request).await.expect("freed");
    assert_eq!(*node.matching.unloaded.lock().unwrap(), ["sticky-1"]);
}

#[tokio::test]
async fn lists_take_the_query_language_and_the_older_filters() {
    let node = Node::new("east");
    let mut client = client(&node).await;
    let bad = ws::ListWorkflowExecutionsRequest {
        namespace: "orders".to_string(),
        query: "Nope = 'x'".to_string(),
        ..Default::default()
    };
    let status = client.list_workflow_executions(bad).await.expect_err("no such attribute");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "invalid query: invalid search attribute: Nope")
    );
    let open =
        ws::ListOpenWorkflowExecutionsRequest { namespace: "orders".to_string(), ..Default::default() };
    client.list_open_workflow_executions(open).await.expect("a page");
    let asked = node.visibility.asked.lock().unwrap().pop().expect("asked");
    assert_eq!(asked.filter.expect("open ones only").to_string(), "ExecutionStatus = 1");
    assert_eq!(asked.page_size, 1000);

    let count = ws::CountWorkflowExecutionsRequest {
        namespace: "orders".to_string(),
        query: "GROUP BY ExecutionStatus".to_string(),
    };
    let counted = client.count_workflow_executions(count).await.expect("a count").into_inner();
    let groups: Vec<_> =
        counted.groups.iter().map(|group| (group.group_values[0].data.clone(), group.count)).collect();
    assert_eq!(groups, [(Bytes::from("\"Running\""), 2), (Bytes::from("\"Completed\""), 1)]);
}

#[tokio::test]
async fn every_call_is_counted_by_name_and_code() {
    let node = Node::new("east");
    let mut client = client(&node).await;
    client.get_cluster_info(ws::GetClusterInfoRequest::default()).await.expect("static");
    let _ = client.describe_namespace(ws::DescribeNamespaceRequest::default()).await;
    let count = |method: &str, code: &'static str| {
        let ended = crate::metrics::Ended { method: method.to_string(), code };
        node.context().metrics.requests.get_or_create(&ended).get()
    };
    assert_eq!(count("GetClusterInfo", "OK"), 1);
    assert_eq!(count("DescribeNamespace", "INVALID_ARGUMENT"), 1);
}

#[tokio::test]
#[allow(deprecated)]
async fn queues_as_the_command_line_asks_for_them() {
    let node = Node::new("east");
    let mut request = ws::DescribeTaskQueueRequest {
        namespace: "orders".into(),
        task_queue: Some(TaskQueue { name: "q".into(), ..Default::default() }),
        report_stats: true,
        report_pollers: true,
        ..Default::default()
    };
    let mut client = client(&node).await;
    let plain = client.describe_task_queue(request.clone()).await.expect("empty, not missing").into_inner();
    assert_eq!((plain.pollers.len(), plain.versions_info.len()), (1, 0));
    assert_eq!(plain.stats.expect("asked for").approximate_backlog_count, 7);
    request.api_mode = 1;
    request.task_queue_types = vec![2];
    let enhanced = client.describe_task_queue(request).await.expect("the older mode").into_inner();
    let unversioned = &enhanced.versions_info[""];
    assert_eq!(unversioned.types_info.keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(unversioned.types_info[&2].pollers[0].identity, "worker");
}
