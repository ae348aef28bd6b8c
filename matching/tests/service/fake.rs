//! Shards as matching sees them: a start is remembered by its request id, as the contract says, and may be scripted to be
//! refused or to hang.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use antipode_core::ids::{EventId, FailoverVersion, NamespaceId, RunId, RunKey, Timestamp, WorkflowKey};
use antipode_env::{Clock, SeededEntropy};
use antipode_history::api::{Dispatcher, Offer, PollInfo, Refusal, Taken, TaskKind, TaskRef};
use antipode_matching::{History, Matching, Settings, WorkflowTask};
use antipode_proto::api::{
    common::v1::WorkflowExecution,
    enums::v1::TaskQueueKind,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, PollWorkflowTaskQueueRequest,
        PollWorkflowTaskQueueResponse,
    },
};
use bytes::Bytes;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::Instant;

pub(crate) const QUEUE: &str = "orders";
pub(crate) const STICKY: &str = "worker-1:sticky";

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::from_random([1; 16])
}

pub(crate) fn run(number: u16) -> RunKey {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    let workflow = WorkflowKey { namespace: namespace(), workflow: format!("w-{number}").into() };
    workflow.run(RunId::from_random(id))
}

pub(crate) fn offer(number: u16) -> Offer {
    Offer {
        key: run(number),
        queue: QUEUE.to_string(),
        kind: TaskKind::Workflow,
        task: TaskRef { scheduled: EventId(2), version: FailoverVersion(1), attempt: 1, stamp: 0 },
        sticky: false,
        scheduled_at: Timestamp(0),
    }
}

pub(crate) fn sticky_offer(number: u16) -> Offer {
    Offer { queue: STICKY.to_string(), sticky: true, ..offer(number) }
}

/// One start that reached the shards.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) workflow: String,
    pub(crate) poll: PollInfo,
}

#[derive(Default)]
pub(crate) struct Script {
    /// Refusals for the next starts of a workflow id.
    pub(crate) refusals: BTreeMap<String, Vec<Refusal>>,
    /// What happens before the next start of a workflow id is answered with its refusal.
    pub(crate) meanwhile: BTreeMap<String, Box<dyn FnOnce() + Send>>,
    /// Request id of the start of a workflow id.
    pub(crate) started: BTreeMap<String, String>,
    /// All calls.
    pub(crate) calls: Vec<Start>,
    /// A start is written at once and answered after this.
    pub(crate) answer_after: Duration,
}

/// The shards.
#[derive(Clone, Default)]
pub(crate) struct Shards {
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) refills: Arc<AtomicUsize>,
    /// So many refills find a busy shard.
    pub(crate) busy: Arc<AtomicI64>,
}

impl Shards {
    pub(crate) fn refuse(&self, number: u16, refusals: &[Refusal]) {
        self.script.lock().unwrap().refusals.insert(format!("w-{number}"), refusals.to_vec());
    }

    pub(crate) fn calls(&self) -> Vec<Start> {
        self.script.lock().unwrap().calls.clone()
    }

    pub(crate) fn refills(&self) -> usize {
        self.refills.load(Ordering::SeqCst)
    }

    async fn start(&self, key: &RunKey, poll: PollInfo) -> Result<(), Refusal> {
        let name = key.workflow.to_string();
        let (answer, meanwhile, pause) = {
            let mut script = self.script.lock().unwrap();
            let request_id = poll.request_id.clone();
            script.calls.push(Start { workflow: name.clone(), poll });
            let refusals = script.refusals.get_mut(&name).filter(|refusals| !refusals.is_empty());
            let answer = match refusals.map(|refusals| refusals.remove(0)) {
                Some(refusal) => Err(refusal),
                None if *script.started.entry(name.clone()).or_insert(request_id.clone()) == request_id => {
                    Ok(())
                }
                None => Err(stale("already_started")),
            };
            (answer, script.meanwhile.remove(&name), script.answer_after)
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        answer
    }
}

pub(crate) fn stale(reason: &'static str) -> Refusal {
    Refusal::TaskNotFound { message: "Workflow task not found.".to_string(), reason }
}

impl History for Shards {
    async fn start_workflow_task(
        &self,
        key: RunKey,
        _task: TaskRef,
        poll: PollInfo,
    ) -> Result<WorkflowTask, Refusal> {
        self.start(&key, poll).await?;
        let response = PollWorkflowTaskQueueResponse {
            task_token: Bytes::from_static(b"\x01token"),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: key.workflow.to_string(),
                run_id: key.run.to_string(),
            }),
            ..PollWorkflowTaskQueueResponse::default()
        };
        Ok((response, Bytes::from_static(b"history")))
    }

    async fn start_activity_task(
        &self,
        key: RunKey,
        _task: TaskRef,
        poll: PollInfo,
    ) -> Result<PollActivityTaskQueueResponse, Refusal> {
        self.start(&key, poll).await?;
        Ok(PollActivityTaskQueueResponse { activity_id: key.workflow.to_string(), ..Default::default() })
    }

    fn refill(&self, _: NamespaceId, queue: &str, _: TaskKind) -> bool {
        assert_ne!(queue, STICKY, "sticky queues have no rows");
        self.refills.fetch_add(1, Ordering::SeqCst);
        self.busy.fetch_sub(1, Ordering::SeqCst) <= 0
    }
}

/// Wall time that moves with the runtime's.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> i64 {
        1_700_000_000_000_000_000 + i64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

/// Matching with its scripted shards.
pub(crate) struct World {
    pub(crate) matching: Matching<Shards>,
    pub(crate) shards: Shards,
    registry: Registry,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_credit(Settings::default().credit)
    }

    pub(crate) fn with_credit(credit: usize) -> Self {
        let world = Self::unconnected(credit);
        world.matching.connect(world.shards.clone());
        world
    }

    pub(crate) fn unconnected(credit: usize) -> Self {
        let mut registry = Registry::default();
        let clock = Arc::new(RuntimeClock(Instant::now()));
        let matching = Matching::new(Settings { credit }, clock, &SeededEntropy::new(1), &mut registry);
        Self { matching, shards: Shards::default(), registry }
    }

    pub(crate) fn offer(&self, offer: Offer) -> Taken {
        self.matching.offer(offer)
    }

    /// Polls the normal queue; the workflow id of the task.
    pub(crate) fn poll(&self, seconds: u64) -> impl Future<Output = Option<String>> + Send + 'static {
        self.poll_queue(QUEUE, TaskQueueKind::Normal, seconds)
    }

    pub(crate) fn poll_sticky(&self, seconds: u64) -> impl Future<Output = Option<String>> + Send + 'static {
        self.poll_queue(STICKY, TaskQueueKind::Sticky, seconds)
    }

    fn poll_queue(
        &self,
        queue: &str,
        kind: TaskQueueKind,
        seconds: u64,
    ) -> impl Future<Output = Option<String>> + Send + 'static {
        let matching = self.matching.clone();
        let request = poll_request(queue, kind);
        async move {
            let wait = Duration::from_secs(seconds);
            let task = matching.poll_workflow_task(namespace(), &request, wait).await.unwrap();
            task.map(|(response, _)| response.workflow_execution.unwrap().workflow_id)
        }
    }

    pub(crate) async fn poll_activity(&self, seconds: u64) -> Option<String> {
        let request = PollActivityTaskQueueRequest {
            task_queue: Some(TaskQueue { name: QUEUE.to_string(), ..TaskQueue::default() }),
            ..PollActivityTaskQueueRequest::default()
        };
        let wait = Duration::from_secs(seconds);
        let task = self.matching.poll_activity_task(namespace(), &request, wait).await.unwrap();
        task.map(|task| task.activity_id)
    }

    /// A metric's value as it is exported; zero when it is not.
    pub(crate) fn metric(&self, line: &str) -> i64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().unwrap())
    }
}

pub(crate) fn poll_request(queue: &str, kind: TaskQueueKind) -> PollWorkflowTaskQueueRequest {
    let normal_name = if kind == TaskQueueKind::Sticky { QUEUE.to_string() } else { String::new() };
    PollWorkflowTaskQueueRequest {
        task_queue: Some(TaskQueue { name: queue.to_string(), kind: kind as i32, normal_name }),
        identity: "worker-1".to_string(),
        ..PollWorkflowTaskQueueRequest::default()
    }
}

/// Lets everything that can run, run.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}
