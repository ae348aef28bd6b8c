//! Where calls are served: here, one hop away, or held until a hand-over ends.

use std::{sync::Mutex, time::Duration};

use antipode_history::api::{Operation, Reply};
use antipode_proto::{
    api::{common::v1::WorkflowExecution, workflowservice::v1 as ws},
    core::FailoverPhase,
};

use super::*;
use crate::{
    execution::signal_workflow_execution,
    fakes::{Node, call},
    ports::Namespaces,
};

fn signal() -> ws::SignalWorkflowExecutionRequest {
    ws::SignalWorkflowExecutionRequest {
        namespace: "orders".to_string(),
        workflow_execution: Some(WorkflowExecution { workflow_id: "w".to_string(), run_id: String::new() }),
        signal_name: "s".to_string(),
        ..Default::default()
    }
}

async fn send(node: &Node, seconds: u64) -> Result<ws::SignalWorkflowExecutionResponse, Status> {
    let call = call("SignalWorkflowExecution", Duration::from_secs(seconds));
    call.bounded(signal_workflow_execution(node.context(), &call, signal())).await
}

/// West forwards to east, whose shard takes the signal; the answer comes back.
#[tokio::test]
async fn a_passive_region_forwards_one_hop() {
    let (east, west) = (Node::new("east"), Node::new("west"));
    east.history.answers(|_| Ok(Reply::Done));
    *west.peers.frontend.lock().unwrap() = Some(east.frontend.clone());
    send(&west, 5).await.expect("served in east");
    assert_eq!(west.history.asked_count(), 0);
    assert!(matches!(east.history.last().operation, Operation::Signal(_)));
    let sent = west.peers.sent.lock().unwrap();
    let (region, request) = &sent[0];
    assert_eq!(region, "east");
    assert_eq!(request.method, "/temporal.api.workflowservice.v1.WorkflowService/SignalWorkflowExecution");
    assert_eq!(request.metadata[FORWARDED], "1");
    assert!(request.timeout_nanos > 0 && request.timeout_nanos <= 5_000_000_000);
}

/// What the active region refuses is refused in the same words, with the same detail.
#[tokio::test]
async fn refusals_come_back_whole() {
    let (east, west) = (Node::new("east"), Node::new("west"));
    *west.peers.frontend.lock().unwrap() = Some(east.frontend.clone());
    let status = send(&west, 5).await.expect_err("no such workflow");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "workflow not found for ID: w"));
    assert!(!status.details().is_empty());
}

/// Both sides believe that the other one is active: no second hop, and an end.
#[tokio::test(start_paused = true)]
async fn a_forwarded_call_makes_no_second_hop() {
    let (east, west) = (Node::new("east"), Node::new("west"));
    east.namespaces.move_to("orders", FailoverPhase::Active, "west");
    *west.peers.frontend.lock().unwrap() = Some(east.frontend.clone());
    let status = send(&west, 30).await.expect_err("nobody is active");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "Namespace: orders is active in cluster: west, while current cluster is: east."
    );
    assert!(east.peers.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unreachable_region_is_unavailable() {
    let west = Node::new("west");
    let status = send(&west, 5).await.expect_err("no peer");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_local_namespace_stays_here() {
    let west = Node::new("west");
    west.history.answers(|_| Ok(Reply::Done));
    let call = call("SignalWorkflowExecution", Duration::from_secs(5));
    let request = ws::SignalWorkflowExecutionRequest { namespace: "notes".to_string(), ..signal() };
    signal_workflow_execution(west.context(), &call, request).await.expect("served here");
}

/// A shard that drains refuses; the call waits, and goes on in the other region when the record says so (F2).
#[tokio::test(start_paused = true)]
async fn a_call_is_held_while_the_namespace_is_handed_over() {
    let (east, west) = (Node::new("east"), Node::new("west"));
    let id = east.namespaces.by_name("orders").expect("known").id;
    east.history.answers(move |_| Err(Refusal::Draining(id)));
    west.history.answers(|_| Ok(Reply::Done));
    west.namespaces.move_to("orders", FailoverPhase::Active, "west");
    *east.peers.frontend.lock().unwrap() = Some(west.frontend.clone());

    let namespaces = east.namespaces.clone();
    let metrics = east.context().metrics.clone();
    let hand_over = async move {
        while metrics.held.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        namespaces.move_to("orders", FailoverPhase::Released, "east");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(metrics.held.get(), 1, "held also while released");
        namespaces.move_to("orders", FailoverPhase::Active, "west");
    };
    let (sent, ()) = tokio::join!(send(&east, 10), hand_over);
    sent.expect("served in west");
    assert_eq!(west.history.asked_count(), 1, "exactly once");
    assert_eq!(east.history.asked_count(), 1);
    assert_eq!(east.context().metrics.held.get(), 0);
    assert_eq!(east.context().held.load(Ordering::SeqCst), 0, "its place is free again");
    assert_eq!(east.context().metrics.held_total.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_held_call_ends_at_its_deadline() {
    let east = Node::new("east");
    east.namespaces.move_to("orders", FailoverPhase::Draining, "east");
    let status = send(&east, 3).await.expect_err("the hand-over never ends");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable), "{status:?}");
    assert_eq!(east.history.asked_count(), 0);
    assert_eq!(east.context().metrics.held.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn held_calls_are_bounded() {
    let east = Node::new("east");
    east.namespaces.move_to("orders", FailoverPhase::Draining, "east");
    east.context().held.store(limits::HELD_MAX, Ordering::SeqCst);
    let status = send(&east, 3).await.expect_err("too many");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("too many calls"), "{}", status.message());
    assert_eq!(east.context().held.load(Ordering::SeqCst), limits::HELD_MAX);
}

/// The registry was read before a failover, the shard is ahead of it: looked at again, the call is forwarded.
#[tokio::test(start_paused = true)]
async fn a_race_with_a_failover_is_looked_at_again() {
    let (east, west) = (Node::new("east"), Node::new("west"));
    west.history.answers(|_| Ok(Reply::Done));
    west.namespaces.move_to("orders", FailoverPhase::Active, "west");
    *east.peers.frontend.lock().unwrap() = Some(west.frontend.clone());
    let namespaces = Mutex::new(Some(east.namespaces.clone()));
    east.history.answers(move |_| {
        let moved = namespaces.lock().unwrap().take().expect("asked once");
        moved.move_to("orders", FailoverPhase::Active, "west");
        Err(Refusal::NamespaceNotActive {
            namespace: "orders".to_string(),
            here: "east".to_string(),
            active: "west".to_string(),
        })
    });
    send(&east, 5).await.expect("served in west");
    assert_eq!((east.history.asked_count(), west.history.asked_count()), (1, 1));
}

/// The registry is ahead and the shard has not taken the record yet (D6).
#[tokio::test(start_paused = true)]
async fn a_shard_that_lags_is_asked_again() {
    let east = Node::new("east");
    let mut asked = 0;
    east.history.answers(move |_| {
        asked += 1;
        if asked == 3 {
            return Ok(Reply::Done);
        }
        Err(Refusal::NamespaceNotActive {
            namespace: "orders".to_string(),
            here: "east".to_string(),
            active: "west".to_string(),
        })
    });
    send(&east, 5).await.expect("the shard caught up");
    assert_eq!(east.history.asked_count(), 3);
}

/// The shard still says that it drains when the record is settled again: no further change would wake the call.
#[tokio::test(start_paused = true)]
async fn a_shard_that_drains_a_moment_longer_is_asked_again() {
    let east = Node::new("east");
    let id = east.namespaces.by_name("orders").expect("known").id;
    let mut asked = 0;
    east.history.answers(move |_| {
        asked += 1;
        if asked == 3 { Ok(Reply::Done) } else { Err(Refusal::Draining(id)) }
    });
    let started = Instant::now();
    send(&east, 30).await.expect("the shard caught up");
    assert_eq!(east.history.asked_count(), 3);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(east.context().metrics.held_total.get(), 1, "one call, however often it looks");
}

/// Without a deadline of its caller a held call ends too.
#[tokio::test(start_paused = true)]
async fn a_held_call_without_deadline_ends() {
    let east = Node::new("east");
    let id = east.namespaces.by_name("orders").expect("known").id;
    east.history.answers(move |_| Err(Refusal::Draining(id)));
    let mut call = call("SignalWorkflowExecution", Duration::from_secs(1));
    call.deadline = None;
    let status =
        signal_workflow_execution(east.context(), &call, signal()).await.expect_err("it drains for ever");
    assert_eq!(status.code(), Code::Unavailable);
}
