//! Long polls: who gets which task, and that none is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use antipode_history::api::{Dispatcher, Offer, Refusal, Taken, TaskKind};
use antipode_proto::api::{
    deployment::v1::WorkerDeploymentOptions, enums::v1::TaskQueueKind,
    workflowservice::v1::PollWorkflowTaskQueueRequest,
};
use proptest::prelude::*;
use tokio::time::{Instant, timeout};

use crate::fake::{QUEUE, STICKY, World, namespace, offer, poll_request, run, settle, stale, sticky_offer};

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test(start_paused = true)]
async fn an_offer_meets_a_waiting_poll() {
    let world = World::new();
    let poll = tokio::spawn(is_send(world.poll(60)));
    settle().await;
    assert_eq!(world.offer(offer(1)), Taken::Yes);
    assert_eq!(poll.await.unwrap().as_deref(), Some("w-1"));
    let start = &world.shards.calls()[0];
    assert_eq!((start.workflow.as_str(), start.poll.identity.as_str()), ("w-1", "worker-1"));
    assert_eq!((start.poll.queue.as_str(), start.poll.sticky), (QUEUE, false));
    assert_eq!(world.metric("matching_tasks_dispatched_total{queue=\"workflow\",match=\"sync\"}"), 1);
    assert_eq!(world.metric("matching_polls{queue=\"workflow\"}"), 0, "the poll is over");
}

#[tokio::test(start_paused = true)]
async fn a_poll_takes_from_the_backlog_in_order() {
    let world = World::new();
    for number in 1..=3 {
        assert_eq!(world.offer(offer(number)), Taken::Yes);
    }
    assert_eq!(world.offer(offer(2)), Taken::Yes, "a duplicate is taken and ignored");
    assert_eq!(world.metric("matching_backlog{queue=\"workflow\"}"), 3);
    let request = poll_request(QUEUE, TaskQueueKind::Normal);
    let wait = Duration::from_secs(1);
    let (response, history) =
        world.matching.poll_workflow_task(namespace(), &request, wait).await.unwrap().unwrap();
    assert_eq!(response.workflow_execution.unwrap().workflow_id, "w-1");
    assert_eq!(response.backlog_count_hint, 2);
    assert_eq!(&history[..], b"history");
    assert_eq!(world.poll(1).await.as_deref(), Some("w-2"));
    assert_eq!(world.poll(1).await.as_deref(), Some("w-3"));
    assert_eq!(world.poll(1).await, None);
    assert_eq!(world.metric("matching_backlog{queue=\"workflow\"}"), 0);
    assert_eq!(world.metric("matching_tasks_dispatched_total{queue=\"workflow\",match=\"backlog\"}"), 3);
    assert_eq!(world.metric("matching_tasks_offered_total{queue=\"workflow\",answer=\"known\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_poll_ends_empty_at_its_deadline_and_not_before() {
    let world = World::new();
    let begin = Instant::now();
    assert_eq!(world.poll(59).await, None);
    // Paused time: this is what was waited for, not what it took.
    assert!((Duration::from_secs(59)..Duration::from_secs(60)).contains(&begin.elapsed()));
    assert_eq!(world.metric("matching_polls_empty_total{queue=\"workflow\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn kinds_and_namespaces_do_not_mix() {
    let world = World::new();
    world.offer(Offer { kind: TaskKind::Activity, ..offer(1) });
    let mut elsewhere = offer(2);
    elsewhere.key.namespace = antipode_core::ids::NamespaceId::from_random([2; 16]);
    world.offer(elsewhere);
    assert_eq!(world.poll(1).await, None);
    assert_eq!(world.poll_activity(1).await.as_deref(), Some("w-1"));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_queue_is_refused() {
    let world = World::new();
    let request = PollWorkflowTaskQueueRequest::default();
    let refused = world.matching.poll_workflow_task(namespace(), &request, Duration::from_secs(1)).await;
    assert_eq!(refused, Err(Refusal::InvalidArgument("taskQueue is not set".to_string())));
}

#[tokio::test(start_paused = true)]
async fn the_build_of_a_worker_is_passed_on() {
    let world = World::new();
    world.offer(offer(1));
    let options =
        WorkerDeploymentOptions { build_id: "v7".to_string(), ..WorkerDeploymentOptions::default() };
    let mut request = poll_request(QUEUE, TaskQueueKind::Normal);
    request.deployment_options = Some(options);
    world.matching.poll_workflow_task(namespace(), &request, Duration::from_secs(1)).await.unwrap();
    assert_eq!(world.shards.calls()[0].poll.build_id, "v7");
}

#[tokio::test(start_paused = true)]
async fn stale_tasks_are_counted_by_reason_and_the_same_poll_gets_the_next() {
    let world = World::new();
    world.shards.refuse(1, &[stale("branch")]);
    world.shards.refuse(2, &[Refusal::AlreadyCompleted]);
    world.shards.refuse(3, &[Refusal::NotFound("gone".to_string())]);
    for number in 1..=4 {
        world.offer(offer(number));
    }
    assert_eq!(world.poll(1).await.as_deref(), Some("w-4"));
    for reason in ["branch", "already_completed", "not_found"] {
        let line = format!("matching_tasks_stale_total{{queue=\"workflow\",reason=\"{reason}\"}}");
        assert_eq!(world.metric(&line), 1, "{reason}");
    }
    assert_eq!(world.poll(1).await, None, "stale tasks do not come again");
}

#[tokio::test(start_paused = true)]
async fn tasks_of_a_namespace_that_is_not_active_are_let_go() {
    let world = World::new();
    let elsewhere = Refusal::NamespaceNotActive {
        namespace: "default".to_string(),
        here: "west".to_string(),
        active: "east".to_string(),
    };
    world.shards.refuse(1, &[Refusal::Draining(namespace())]);
    world.shards.refuse(2, &[elsewhere]);
    world.offer(offer(1));
    world.offer(offer(2));
    let poll = tokio::spawn(world.poll(60));
    settle().await;
    assert!(!poll.is_finished(), "the poll waits on");
    assert_eq!(world.metric("matching_tasks_dropped_total{queue=\"workflow\",reason=\"draining\"}"), 1);
    assert_eq!(world.metric("matching_tasks_dropped_total{queue=\"workflow\",reason=\"not_active\"}"), 1);
    // The shard derives it again.
    world.offer(offer(1));
    assert_eq!(poll.await.unwrap().as_deref(), Some("w-1"));
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_overtakes_a_refusal_is_not_forgotten() {
    let world = World::new();
    world.shards.refuse(1, &[Refusal::Draining(namespace())]);
    let matching = world.matching.clone();
    let again: Box<dyn FnOnce() + Send> = Box::new(move || {
        assert_eq!(matching.offer(offer(1)), Taken::Yes);
    });
    world.shards.script.lock().unwrap().meanwhile.insert("w-1".to_string(), again);
    world.offer(offer(1));
    assert_eq!(world.poll(5).await.as_deref(), Some("w-1"));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_asked_is_asked_again_with_the_same_request() {
    let world = World::new();
    let unavailable = Refusal::Unavailable("a commit failed".to_string());
    world.shards.refuse(1, &[unavailable.clone(), unavailable]);
    world.offer(offer(1));
    world.offer(offer(2));
    assert_eq!(world.poll(5).await.as_deref(), Some("w-2"), "others are not held up");
    assert_eq!(world.poll(5).await.as_deref(), Some("w-1"));
    let calls = world.shards.calls();
    let requests: BTreeSet<_> = calls
        .iter()
        .filter(|start| start.workflow == "w-1")
        .map(|start| start.poll.request_id.clone())
        .collect();
    assert_eq!(calls.len(), 4);
    assert_eq!(requests.len(), 1, "the outcome of a failed start is unknown: {requests:?}");
}

#[tokio::test(start_paused = true)]
async fn polls_before_the_shards_are_connected_wait() {
    let world = World::unconnected(10);
    world.offer(offer(1));
    let poll = tokio::spawn(world.poll(60));
    settle().await;
    assert!(!poll.is_finished());
    world.matching.connect(world.shards.clone());
    assert_eq!(poll.await.unwrap().as_deref(), Some("w-1"));
    settle().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.shards.refills(), 1, "and the refill that nobody took is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_poll_dropped_while_it_waits_takes_nothing_with_it() {
    let world = World::new();
    let gone = tokio::spawn(world.poll(60));
    settle().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    world.offer(offer(1));
    assert_eq!(world.metric("matching_backlog{queue=\"workflow\"}"), 1, "nobody was there");
    assert_eq!(world.poll(1).await.as_deref(), Some("w-1"));
}

#[tokio::test(start_paused = true)]
async fn a_poll_dropped_between_its_match_and_its_wake_gives_the_task_back() {
    let world = World::new();
    let (gone, next) = (tokio::spawn(world.poll(60)), tokio::spawn(world.poll(60)));
    settle().await;
    world.offer(offer(1));
    // The runtime has one thread and this test holds it: the woken poll has not run yet.
    gone.abort();
    assert_eq!(next.await.unwrap().as_deref(), Some("w-1"));
    assert_eq!(world.shards.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_poll_dropped_during_its_start_gives_the_started_task_to_the_next() {
    let world = World::new();
    world.shards.script.lock().unwrap().answer_after = Duration::from_millis(5);
    world.offer(offer(1));
    let first = world.poll(60);
    assert!(timeout(Duration::from_millis(1), first).await.is_err(), "its client went away");
    assert_eq!(world.shards.calls().len(), 1, "the start was written");
    assert_eq!(world.poll(1).await.as_deref(), Some("w-1"), "the same start, for another worker");
    assert_eq!(world.metric("matching_tasks_stale_total{queue=\"workflow\",reason=\"already_started\"}"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_poll_does_not_cut_a_start_short() {
    let world = World::new();
    world.shards.script.lock().unwrap().answer_after = Duration::from_secs(3);
    world.offer(offer(1));
    assert_eq!(world.poll(1).await.as_deref(), Some("w-1"));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_turns_tasks_away_and_asks_for_them_later() {
    let world = World::with_credit(4);
    for number in 1..=4 {
        assert_eq!(world.offer(offer(number)), Taken::Yes);
    }
    assert_eq!(world.offer(offer(5)), Taken::NoCredit);
    let mut refills = Vec::new();
    for _ in 0..4 {
        world.poll(1).await.unwrap();
        refills.push(world.shards.refills());
    }
    // One for the first poll of a new incarnation, one when it fell below half.
    assert_eq!(refills, [1, 1, 2, 2]);
    assert_eq!(world.offer(offer(5)), Taken::Yes);
}

#[tokio::test(start_paused = true)]
async fn a_refill_that_a_busy_shard_did_not_take_is_asked_again() {
    let world = World::new();
    world.shards.busy.store(2, Ordering::SeqCst);
    let poll = tokio::spawn(world.poll(60));
    settle().await;
    assert_eq!(world.shards.refills(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.shards.refills(), 3, "until it is taken, and no more");
    poll.abort();
}

#[tokio::test(start_paused = true)]
async fn sticky_tasks_need_a_sticky_poller() {
    let world = World::new();
    assert_eq!(world.offer(sticky_offer(1)), Taken::StickyUnavailable);
    let poll = tokio::spawn(world.poll_sticky(60));
    settle().await;
    assert_eq!(world.offer(sticky_offer(1)), Taken::Yes);
    assert_eq!(poll.await.unwrap().as_deref(), Some("w-1"));
    assert!(world.shards.calls()[0].poll.sticky);
    assert_eq!(world.shards.calls()[0].poll.queue, STICKY);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(world.offer(sticky_offer(2)), Taken::StickyUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_leaves_its_sticky_queue() {
    let world = World::new();
    let poll = tokio::spawn(world.poll_sticky(60));
    settle().await;
    world.matching.unload_sticky(namespace(), STICKY);
    assert_eq!(poll.await.unwrap(), None);
    assert_eq!(world.offer(sticky_offer(1)), Taken::StickyUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_passive_namespace_has_no_tasks_and_its_polls_end() {
    let world = World::new();
    world.offer(offer(1));
    world.offer(Offer { kind: TaskKind::Activity, ..offer(2) });
    let mut elsewhere = offer(3);
    elsewhere.key.namespace = antipode_core::ids::NamespaceId::from_random([2; 16]);
    world.offer(elsewhere);
    world.matching.namespace_passive(namespace());
    assert_eq!(world.metric("matching_tasks_dropped_total{queue=\"workflow\",reason=\"passive\"}"), 1);
    assert_eq!(world.metric("matching_tasks_dropped_total{queue=\"activity\",reason=\"passive\"}"), 1);
    assert_eq!(world.metric("matching_backlog{queue=\"workflow\"}"), 1, "the other namespace keeps its task");
    let poll = tokio::spawn(world.poll(60));
    settle().await;
    assert!(!poll.is_finished());
    world.matching.cancel_polls(namespace());
    assert_eq!(poll.await.unwrap(), None);
    // Workers poll again at once, and find what comes after a failback.
    let poll = tokio::spawn(world.poll(60));
    settle().await;
    world.offer(offer(4));
    assert_eq!(poll.await.unwrap().as_deref(), Some("w-4"));
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_every_poll_is_empty() {
    let world = World::new();
    let poll = tokio::spawn(world.poll(60));
    settle().await;
    world.matching.shutdown();
    assert_eq!(poll.await.unwrap(), None);
    world.offer(offer(1));
    assert_eq!(timeout(Duration::from_secs(1), world.poll(60)).await, Ok(None), "a known queue");
    assert_eq!(timeout(Duration::from_secs(1), world.poll_activity(60)).await, Ok(None), "a new queue");
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_described() {
    let world = World::new();
    let unknown = world.matching.describe(namespace(), "unknown", TaskKind::Workflow);
    assert_eq!((unknown.pollers.len(), unknown.backlog), (0, 0));
    assert_eq!(world.poll(1).await, None);
    world.offer(offer(1));
    let known = world.matching.describe(namespace(), QUEUE, TaskKind::Workflow);
    assert_eq!(known.backlog, 1);
    assert_eq!(known.pollers.len(), 1);
    assert_eq!(known.pollers[0].identity, "worker-1");
    assert_eq!(known.pollers[0].last_access_time.unwrap().seconds, 1_700_000_001);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert!(world.matching.describe(namespace(), QUEUE, TaskKind::Workflow).pollers.is_empty());
}

/// Polls that come, wait, are matched, start slowly and are cut off at any moment, among offers of which many are repeated.
async fn crowd(cuts: Vec<(u64, u64)>, offers: Vec<(u16, u64)>) {
    let world = World::with_credit(8);
    world.shards.script.lock().unwrap().answer_after = Duration::from_millis(2);
    let delivered = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let mut polls = Vec::new();
    for (begin, patience) in cuts {
        let (poll, delivered) = (world.poll(60), delivered.clone());
        polls.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(begin)).await;
            if let Ok(Some(task)) = timeout(Duration::from_millis(patience), poll).await {
                *delivered.lock().unwrap().entry(task).or_default() += 1;
            }
        }));
    }
    let mut accepted = BTreeSet::new();
    for (number, pause) in offers {
        if world.offer(offer(number)) == Taken::Yes {
            accepted.insert(run(number).workflow.to_string());
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    for poll in polls {
        poll.await.unwrap();
    }
    while let Some(task) = world.poll(1).await {
        *delivered.lock().unwrap().entry(task).or_default() += 1;
    }
    let delivered = delivered.lock().unwrap();
    assert_eq!(delivered.keys().cloned().collect::<BTreeSet<_>>(), accepted, "no accepted task is lost");
    assert!(delivered.values().all(|times| *times == 1), "none is delivered twice: {delivered:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_task_is_lost_or_delivered_twice(
        cuts in proptest::collection::vec((0..40_u64, 0..12_u64), 0..40),
        offers in proptest::collection::vec((0..20_u16, 0..4_u64), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(crowd(cuts, offers));
    }
}

/// The same with real threads: the locks, not the order of one thread, keep the tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_lose_no_task() {
    const TASKS: u16 = 4_000;
    let world = World::with_credit(usize::from(TASKS));
    let delivered = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let workers: Vec<_> = (0..8_u64)
        .map(|worker| {
            let (world, delivered) = (world.matching.clone(), delivered.clone());
            tokio::spawn(async move {
                let request = poll_request(QUEUE, TaskQueueKind::Normal);
                for turn in 0_u64.. {
                    let poll = world.poll_workflow_task(namespace(), &request, Duration::from_millis(200));
                    // Every third poll is cut off after its first turn, matched or not.
                    let task = if (turn + worker).is_multiple_of(3) {
                        tokio::select! { biased; task = poll => task, () = tokio::task::yield_now() => continue }
                    } else {
                        poll.await
                    };
                    let Some((task, _)) = task.unwrap() else { return };
                    let workflow = task.workflow_execution.unwrap().workflow_id;
                    *delivered.lock().unwrap().entry(workflow).or_default() += 1;
                }
            })
        })
        .collect();
    let shards: Vec<_> = (0..2_u16)
        .map(|shard| {
            let matching = world.matching.clone();
            tokio::spawn(async move {
                for number in (shard..TASKS).step_by(2) {
                    assert_eq!(matching.offer(offer(number)), Taken::Yes);
                    if number % 64 < 2 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for task in shards.into_iter().chain(workers) {
        task.await.unwrap();
    }
    while let Some(task) = world.poll(0).await {
        *delivered.lock().unwrap().entry(task).or_default() += 1;
    }
    let delivered = delivered.lock().unwrap();
    assert_eq!(delivered.len(), usize::from(TASKS));
    assert!(delivered.values().all(|times| *times == 1));
    assert_eq!(world.metric("matching_backlog{queue=\"workflow\"}"), 0);
    assert_eq!(world.metric("matching_polls{queue=\"workflow\"}"), 0);
}
