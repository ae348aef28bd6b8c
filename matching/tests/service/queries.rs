//! Queries that need a worker and no workflow task.

use std::time::Duration;

use antipode_core::ids::EventId;
use antipode_history::api::{QueryReady, Refusal};
use antipode_matching::{QueryAnswer, QueryFailure, QueryToken, WorkflowTask};
use antipode_proto::api::{
    common::v1::{Payload, Payloads},
    enums::v1::{QueryResultType, TaskQueueKind},
    query::v1::WorkflowQuery,
    workflowservice::v1::RespondQueryTaskCompletedRequest,
};
use bytes::Bytes;
use tokio::{task::JoinHandle, time::Instant};

use crate::fake::{QUEUE, STICKY, World, namespace, offer, poll_request, run, settle};

fn ready(sticky: bool) -> QueryReady {
    QueryReady {
        key: run(1),
        workflow_type: "Order".to_string(),
        queue: QUEUE.to_string(),
        sticky: sticky.then(|| STICKY.to_string()),
        history: Bytes::from_static(b"all of it"),
        previous_started: EventId(3),
        rejected: None,
    }
}

type Answer = Result<QueryAnswer, QueryFailure>;

fn query(world: &World, sticky: bool, seconds: u64) -> JoinHandle<Answer> {
    let matching = world.matching.clone();
    let query = WorkflowQuery { query_type: "status".to_string(), ..WorkflowQuery::default() };
    tokio::spawn(async move { matching.query(ready(sticky), query, Duration::from_secs(seconds)).await })
}

fn poll(world: &World, kind: TaskQueueKind) -> JoinHandle<Option<WorkflowTask>> {
    let matching = world.matching.clone();
    let request = poll_request(if kind == TaskQueueKind::Sticky { STICKY } else { QUEUE }, kind);
    tokio::spawn(async move {
        matching.poll_workflow_task(namespace(), &request, Duration::from_secs(60)).await.unwrap()
    })
}

fn answered(text: &'static str) -> RespondQueryTaskCompletedRequest {
    let payload = Payload { data: Bytes::from_static(text.as_bytes()), ..Payload::default() };
    RespondQueryTaskCompletedRequest {
        completed_type: QueryResultType::Answered as i32,
        query_result: Some(Payloads { payloads: vec![payload] }),
        ..RespondQueryTaskCompletedRequest::default()
    }
}

fn text(answer: Answer) -> String {
    let payloads = answer.unwrap().result.unwrap().payloads;
    String::from_utf8(payloads[0].data.to_vec()).unwrap()
}

fn token(task: &WorkflowTask) -> QueryToken {
    QueryToken::decode(&task.0.task_token).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_query_is_answered_once() {
    let world = World::new();
    let asked = query(&world, false, 30);
    settle().await;
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    let (response, history) = &task;
    assert_eq!(response.query.as_ref().unwrap().query_type, "status");
    assert_eq!(response.workflow_execution.as_ref().unwrap().workflow_id, "w-1");
    assert_eq!(response.workflow_type.as_ref().unwrap().name, "Order");
    assert_eq!((response.previous_started_event_id, response.started_event_id), (3, 0));
    assert_eq!(response.workflow_execution_task_queue.as_ref().unwrap().name, QUEUE);
    assert_eq!(&history[..], b"all of it");
    assert!(world.shards.calls().is_empty(), "nothing is started for it");

    assert_eq!(world.matching.respond_query(&token(&task), answered("packed")), Ok(()));
    assert_eq!(text(asked.await.unwrap()), "packed");
    let late = world.matching.respond_query(&token(&task), answered("again"));
    assert!(matches!(late, Err(Refusal::NotFound(_))));
    assert_eq!(world.metric("matching_queries_total{outcome=\"answered\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_failed_carries_the_workers_words() {
    let world = World::new();
    let asked = query(&world, false, 30);
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    let untyped = RespondQueryTaskCompletedRequest::default();
    let refused = world.matching.respond_query(&token(&task), untyped);
    assert!(matches!(refused, Err(Refusal::InvalidArgument(_))), "and the token is still good");
    let failed = RespondQueryTaskCompletedRequest {
        completed_type: QueryResultType::Failed as i32,
        error_message: "unknown query".to_string(),
        ..RespondQueryTaskCompletedRequest::default()
    };
    world.matching.respond_query(&token(&task), failed).unwrap();
    let failure = QueryFailure::Failed { message: "unknown query".to_string(), failure: None, cause: 0 };
    assert_eq!(asked.await.unwrap(), Err(failure));
}

#[tokio::test(start_paused = true)]
async fn a_sticky_worker_is_asked_first_and_needs_no_history() {
    let world = World::new();
    let (sticky, normal) = (poll(&world, TaskQueueKind::Sticky), poll(&world, TaskQueueKind::Normal));
    settle().await;
    let asked = query(&world, true, 30);
    let task = sticky.await.unwrap().unwrap();
    assert!(task.1.is_empty());
    world.matching.respond_query(&token(&task), answered("cached")).unwrap();
    assert_eq!(text(asked.await.unwrap()), "cached");
    assert!(!normal.is_finished(), "the normal queue was not asked");
    normal.abort();
}

#[tokio::test(start_paused = true)]
async fn without_a_sticky_poller_the_normal_queue_is_asked_at_once() {
    let world = World::new();
    let begin = Instant::now();
    let asked = query(&world, true, 30);
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "paused time");
    world.matching.respond_query(&token(&task), answered("replayed")).unwrap();
    assert_eq!(text(asked.await.unwrap()), "replayed");
}

#[tokio::test(start_paused = true)]
async fn a_silent_sticky_worker_is_passed_over_after_ten_seconds() {
    let world = World::new();
    let sticky = poll(&world, TaskQueueKind::Sticky);
    settle().await;
    let begin = Instant::now();
    let asked = query(&world, true, 30);
    let first = sticky.await.unwrap().unwrap();
    let second = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&begin.elapsed()), "paused time");
    assert_eq!(&second.1[..], b"all of it");
    // Either answer is good; the first counts.
    world.matching.respond_query(&token(&first), answered("late but first")).unwrap();
    assert_eq!(text(asked.await.unwrap()), "late but first");
    assert!(world.matching.respond_query(&token(&second), answered("second")).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_query_waits_in_one_queue_only() {
    let world = World::new();
    let gone = poll(&world, TaskQueueKind::Sticky);
    settle().await;
    gone.abort();
    let _ = gone.await;
    let asked = query(&world, true, 30);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(world.poll_sticky(1).await, None, "it has moved to the normal queue");
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    world.matching.respond_query(&token(&task), answered("replayed")).unwrap();
    assert_eq!(text(asked.await.unwrap()), "replayed");
}

#[tokio::test(start_paused = true)]
async fn a_sticky_worker_that_shuts_down_hands_its_queries_on() {
    let world = World::new();
    let sticky = poll(&world, TaskQueueKind::Sticky);
    settle().await;
    sticky.abort();
    let _ = sticky.await;
    let begin = Instant::now();
    let asked = query(&world, true, 30);
    settle().await;
    world.matching.unload_sticky(namespace(), STICKY);
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "paused time");
    world.matching.respond_query(&token(&task), answered("replayed")).unwrap();
    assert_eq!(text(asked.await.unwrap()), "replayed");
}

#[tokio::test(start_paused = true)]
async fn a_query_that_nobody_answers_says_whether_there_are_workers() {
    let world = World::new();
    let begin = Instant::now();
    assert_eq!(query(&world, true, 4).await.unwrap(), Err(QueryFailure::NoPoller));
    assert!(begin.elapsed() >= Duration::from_secs(4), "not before its deadline");
    assert_eq!(world.poll(1).await, None, "a query that was given up is not handed out");
    assert_eq!(query(&world, true, 4).await.unwrap(), Err(QueryFailure::DeadlineExceeded), "polled lately");
    assert_eq!(query(&world, true, 17).await.unwrap(), Err(QueryFailure::NoPoller), "20 seconds have passed");
    assert_eq!(
        QueryFailure::NoPoller.to_string(),
        "no poller seen for task queue recently, worker may be down"
    );
}

#[tokio::test(start_paused = true)]
async fn a_query_whose_client_went_away_is_not_handed_out() {
    let world = World::new();
    let asked = query(&world, false, 30);
    settle().await;
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    let other = query(&world, false, 30);
    settle().await;
    asked.abort();
    other.abort();
    settle().await;
    assert!(matches!(world.matching.respond_query(&token(&task), answered("x")), Err(Refusal::NotFound(_))));
    world.offer(offer(2));
    assert_eq!(world.poll(1).await.as_deref(), Some("w-2"), "the poll passes over the dropped query");
    assert_eq!(world.poll(1).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_was_given_up_between_its_match_and_its_wake_ends_no_poll() {
    let world = World::new();
    let waits = poll(&world, TaskQueueKind::Normal);
    settle().await;
    let asked = world.matching.query(ready(false), WorkflowQuery::default(), Duration::from_secs(30));
    // Asked once and dropped: it has met the poll, which has not run since.
    tokio::select! { biased; _ = asked => {}, () = std::future::ready(()) => {} }
    settle().await;
    assert!(!waits.is_finished(), "the poll waits on");
    world.offer(offer(2));
    assert_eq!(waits.await.unwrap().unwrap().0.query, None);
}

#[tokio::test(start_paused = true)]
async fn queries_end_when_the_node_stops() {
    let world = World::new();
    let asked = query(&world, false, 30);
    settle().await;
    world.matching.shutdown();
    assert_eq!(asked.await.unwrap(), Err(QueryFailure::Unavailable));
    assert_eq!(query(&world, false, 30).await.unwrap(), Err(QueryFailure::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_query_tasks_are_told_from_others() {
    let world = World::new();
    let _asked = query(&world, false, 30);
    let task = poll(&world, TaskQueueKind::Normal).await.unwrap().unwrap();
    let bytes = task.0.task_token.clone();
    let read = token(&task);
    assert_eq!(read.encode(), bytes);
    assert_eq!(read.namespace, namespace());
    assert_eq!(
        antipode_history::token::decode(&bytes),
        Err(antipode_history::token::Error::Malformed),
        "not a task of a run"
    );
    let mut task_token = bytes.to_vec();
    task_token[0] = antipode_history::token::TASK;
    assert_eq!(QueryToken::decode(&task_token), None);
    for cut in 0..bytes.len() {
        assert_eq!(QueryToken::decode(&bytes[..cut]), None);
    }
    let elsewhere = {
        let mut token = read;
        token.namespace = antipode_core::ids::NamespaceId::from_random([9; 16]);
        token
    };
    assert!(world.matching.respond_query(&elsewhere, answered("x")).is_err(), "another namespace's token");
    assert!(world.matching.respond_query(&read, answered("x")).is_ok());
}
