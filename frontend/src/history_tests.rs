//! Pages of history: when a token is set, what pins it, and what a wait that ends in nothing answers.

use std::time::Duration as Patience;

use antipode_proto::api::{common::v1::WorkflowExecution, history::v1::HistoryEvent};
use proptest::prelude::*;
use tonic::Code;

use super::*;
use crate::fakes::{Node, call};

fn events(ids: std::ops::RangeInclusive<i64>) -> Bytes {
    let event = |event_id| HistoryEvent { event_id, ..HistoryEvent::default() };
    Bytes::from(History { events: ids.map(event).collect() }.encode_to_vec())
}

fn run() -> RunId {
    RunId::from_random([3; 16])
}

fn page(events: Bytes, next: Option<i64>, open: bool) -> HistoryPage {
    HistoryPage { run: run(), events, next: next.map(EventId), open, branch: ChainValue([9; 16]) }
}

fn request() -> ws::GetWorkflowExecutionHistoryRequest {
    ws::GetWorkflowExecutionHistoryRequest {
        namespace: "orders".to_string(),
        execution: Some(WorkflowExecution { workflow_id: "w".to_string(), run_id: String::new() }),
        ..Default::default()
    }
}

async fn get(
    node: &Node,
    request: ws::GetWorkflowExecutionHistoryRequest,
) -> Result<ws::GetWorkflowExecutionHistoryResponse, Status> {
    let call = call("GetWorkflowExecutionHistory", Patience::from_secs(60));
    call.bounded(get_workflow_execution_history(node.context(), &call, request)).await
}

fn ids(answer: &ws::GetWorkflowExecutionHistoryResponse) -> Vec<i64> {
    answer.history.as_ref().expect("never missing").events.iter().map(|event| event.event_id).collect()
}

fn asked(node: &Node) -> (Option<RunId>, HistoryRequest) {
    let request = node.history.last();
    let Operation::History(read) = request.operation else { panic!("a read") };
    (request.run, read)
}

#[tokio::test]
async fn without_wait_the_token_ends_with_what_there_is() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::History(page(events(1..=5), None, true))));
    let answer = get(&node, request()).await.expect("a page");
    assert_eq!(ids(&answer), [1, 2, 3, 4, 5]);
    assert!(answer.next_page_token.is_empty());
    assert_eq!(asked(&node).1.page_size, 256);
}

#[tokio::test]
async fn a_token_pins_run_and_branch() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::History(page(events(1..=2), Some(3), true))));
    let first =
        get(&node, ws::GetWorkflowExecutionHistoryRequest { maximum_page_size: 2, ..request() }).await;
    let token = first.expect("a page").next_page_token;
    let second = ws::GetWorkflowExecutionHistoryRequest { next_page_token: token.clone(), ..request() };
    get(&node, second).await.expect("a page");
    let (asked_run, read) = asked(&node);
    assert_eq!(asked_run, Some(run()));
    assert_eq!((read.from, read.branch), (EventId(3), Some(ChainValue([9; 16]))));

    // Of another run, or in the other direction, it is refused.
    let mut other = ws::GetWorkflowExecutionHistoryRequest { next_page_token: token.clone(), ..request() };
    other.execution.as_mut().expect("given").run_id = RunId::from_random([4; 16]).to_string();
    let status = get(&node, other).await.expect_err("another run");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "Invalid NextPageToken."));
    let call = call("GetWorkflowExecutionHistoryReverse", Patience::from_secs(5));
    let reverse = ws::GetWorkflowExecutionHistoryReverseRequest {
        namespace: "orders".to_string(),
        execution: request().execution,
        next_page_token: token,
        ..Default::default()
    };
    let status = get_workflow_execution_history_reverse(node.context(), &call, reverse)
        .await
        .expect_err("forward token");
    assert_eq!(status.message(), "Invalid NextPageToken.");
}

#[tokio::test]
async fn foreign_tokens() {
    let node = Node::new("east");
    for bad in [&b"bad"[..], &[0xff; 40]] {
        let request = ws::GetWorkflowExecutionHistoryRequest {
            next_page_token: Bytes::copy_from_slice(bad),
            ..request()
        };
        assert_eq!(get(&node, request).await.expect_err("foreign").message(), "Invalid NextPageToken.");
    }
    assert_eq!(node.history.asked_count(), 0);
}

/// An open run, a reader that waits: the first page has what there is and a token behind it.
#[tokio::test]
async fn while_open_a_waiting_reader_always_gets_a_token() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::History(page(events(1..=5), None, true))));
    let answer =
        get(&node, ws::GetWorkflowExecutionHistoryRequest { wait_new_event: true, ..request() }).await;
    let answer = answer.expect("a page");
    let place = Place::decode(&answer.next_page_token, false, None).expect("ours").expect("set");
    assert_eq!((place.run, place.from), (run(), EventId(6)));
    assert!(!asked(&node).1.wait, "there is something already");
}

#[tokio::test]
async fn after_the_last_event_of_a_closed_run_there_is_no_token() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::History(page(events(1..=5), None, false))));
    let answer =
        get(&node, ws::GetWorkflowExecutionHistoryRequest { wait_new_event: true, ..request() }).await;
    assert!(answer.expect("a page").next_page_token.is_empty());
}

/// 20 s of nothing: an empty page and the same place again (api-surface 3.2).
#[tokio::test(start_paused = true)]
async fn a_wait_ends_softly() {
    let node = Node::new("east");
    *node.history.never.lock().unwrap() = true;
    let place = Place { run: run(), from: EventId(6), branch: ChainValue([9; 16]) };
    let started = tokio::time::Instant::now();
    let waiting = ws::GetWorkflowExecutionHistoryRequest {
        wait_new_event: true,
        next_page_token: place.encode(false),
        ..request()
    };
    let answer = get(&node, waiting).await.expect("empty, not an error");
    assert_eq!(started.elapsed().as_secs(), 20);
    assert!(ids(&answer).is_empty());
    assert_eq!(Place::decode(&answer.next_page_token, false, None).expect("ours"), Some(place));
}

/// CLOSE_EVENT: nothing while the run is open, its last event when it closes.
#[tokio::test(start_paused = true)]
async fn the_close_event_alone() {
    let node = Node::new("east");
    node.history.answers(|request| {
        let Operation::History(read) = &request.operation else { panic!("a read") };
        assert!(read.close_event_only);
        let answer =
            if read.wait { page(events(9..=9), None, false) } else { page(Bytes::new(), None, true) };
        Ok(Reply::History(answer))
    });
    let close = ws::GetWorkflowExecutionHistoryRequest {
        history_event_filter_type: HistoryEventFilterType::CloseEvent as i32,
        wait_new_event: true,
        ..request()
    };
    let answer = get(&node, close.clone()).await.expect("closed meanwhile");
    assert_eq!(ids(&answer), [9]);
    assert!(answer.next_page_token.is_empty());

    *node.history.never.lock().unwrap() = true;
    let answer = get(&node, close).await.expect("still open");
    assert!(ids(&answer).is_empty());
    assert!(!answer.next_page_token.is_empty());
}

/// Not closed yet and not willing to wait: nothing, and nothing to come back with.
#[tokio::test]
async fn the_close_event_without_wait() {
    let node = Node::new("east");
    node.history.answers(|_| Ok(Reply::History(page(Bytes::new(), Some(5), true))));
    let filter = HistoryEventFilterType::CloseEvent as i32;
    let answer =
        get(&node, ws::GetWorkflowExecutionHistoryRequest { history_event_filter_type: filter, ..request() });
    let answer = answer.await.expect("nothing");
    assert!(ids(&answer).is_empty() && answer.next_page_token.is_empty());
}

#[tokio::test]
async fn page_sizes() {
    for (asked, size) in [(0, 256), (-1, 256), (10, 10), (100_000, 256)] {
        assert_eq!(page_size(asked), size);
    }
}

proptest! {
    #[test]
    fn tokens_round_trip(run in any::<[u8; 16]>(), from in 1..i64::MAX, branch in any::<[u8; 16]>(), reverse in any::<bool>()) {
        let place = Place { run: RunId::from_random(run), from: EventId(from), branch: ChainValue(branch) };
        prop_assert_eq!(Place::decode(&place.encode(reverse), reverse, None).ok().flatten(), Some(place));
        prop_assert!(Place::decode(&place.encode(reverse), !reverse, None).is_err());
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
        let _ = Place::decode(&bytes, false, None);
    }
}
