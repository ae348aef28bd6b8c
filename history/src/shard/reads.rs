//! Requests that read: describe, history (with waiting), queries (which wait for the workflow task to end), fetches of a
//! peer; and the messages that tasks travel in.

use antipode_core::{
    chain::ChainValue,
    decide::{activity, workflow_task},
    ids::{EventId, FailoverVersion, RunKey, Timestamp},
    run::Run,
    task::{PollInfo, TaskRef},
    version_history::VersionHistory,
};
use antipode_persistence::rows::TaskKind;
use antipode_proto::api::{
    common::v1::{Payloads, WorkflowExecution, WorkflowType},
    enums::v1::{
        PendingActivityState, PendingWorkflowTaskState, QueryRejectCondition, TaskQueueKind,
        WorkflowExecutionStatus as Status,
    },
    history::v1 as history,
    taskqueue::v1::TaskQueue,
    workflow::v1 as workflow,
    workflowservice::v1 as ws,
};
use bytes::Bytes;
use prost::Message;

use super::{Load, Output, Shard, Stop, Token, cache::Cached};
use crate::{
    api::{HistoryPage, HistoryRequest, Operation, QueryReady, Refusal, Reply, Request, TaskToken},
    token,
};

/// A request that must wait for a read comes back with its token.
type Waiting<T> = (Load, T, Request);

impl<T: Token> Shard<T> {
    /// History reads and queries: answered now, or parked on the run.
    pub(super) fn try_parking(&mut self, token: T, request: Request) -> Result<(), Waiting<T>> {
        let key = match self.resolve(&request) {
            Ok(key) => key,
            Err(Stop::Load(load)) => return Err((load, token, request)),
            Err(Stop::Refused(refusal)) => {
                self.refuse(token, &request, refusal);
                return Ok(());
            }
        };
        let current = self.is_current(&key);
        let answer = match (self.cached_mut(&key), &request.operation) {
            (Ok(cached), Operation::History(wanted)) => match read_history(&cached.run, wanted) {
                Some(answer) => answer.map(Reply::History),
                None => {
                    cached.readers.push((token, wanted.clone()));
                    return Ok(());
                }
            },
            (Ok(cached), Operation::PrepareQuery { reject_condition }) => {
                match prepare_query(&cached.run, current, *reject_condition) {
                    Some(answer) => answer,
                    None => {
                        cached.queries.push((token, *reject_condition));
                        return Ok(());
                    }
                }
            }
            (Err(refusal), _) => Err(refusal),
            _ => Err(Refusal::Internal("not a parking read".to_string())),
        };
        let after = self.changed(&request.workflow);
        self.hold(after, Output::Answer(token, answer));
        Ok(())
    }

    /// After a change of a run: answers those who waited for it.
    pub(super) fn wake_readers(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let current = self.is_current(key);
        let cached = self.cached_mut(key)?;
        if cached.readers.is_empty() && cached.queries.is_empty() {
            return Ok(());
        }
        let mut answers = Vec::new();
        let Cached { run, readers, queries, .. } = cached;
        for (token, wanted) in std::mem::take(readers) {
            match read_history(run, &wanted) {
                _ if token.is_abandoned() => {}
                Some(answer) => answers.push((token, answer.map(Reply::History))),
                None => readers.push((token, wanted)),
            }
        }
        for (token, condition) in std::mem::take(queries) {
            match prepare_query(run, current, condition) {
                _ if token.is_abandoned() => {}
                Some(answer) => answers.push((token, answer)),
                None => queries.push((token, condition)),
            }
        }
        let after = self.sequence;
        for (token, answer) in answers {
            self.hold(after, Output::Answer(token, answer));
        }
        Ok(())
    }

    /// The message in which a workflow task travels, and its history beside it.
    pub(super) fn workflow_task_reply(
        &mut self,
        key: &RunKey,
        poll: &PollInfo,
        version: FailoverVersion,
    ) -> Result<Reply, Refusal> {
        let run = &self.cached(key)?.run;
        let view =
            run.task().ok_or_else(|| Refusal::Internal("a task that was started is gone".to_string()))?;
        let started = view
            .started
            .as_ref()
            .ok_or_else(|| Refusal::Internal("a task that was started is not".to_string()))?;
        let start = run.state.start.as_ref();
        let from = if poll.sticky { run.state.previous_started.next() } else { EventId(1) };
        let mut bytes = Vec::with_capacity(usize::try_from(run.state.history_bytes).unwrap_or(0) + 256);
        events_from(run, from, &mut bytes)?;
        let transient = workflow_task::transient_events(run, version.0);
        if !transient.is_empty() {
            bytes.extend(history::History { events: transient }.encode_to_vec());
        }
        let token = TaskToken {
            key: key.clone(),
            task: workflow_task::task_ref(&view),
            started: started.event,
            start_version: started.version,
            tip: run.tip(),
            anchor: ChainValue::NONE,
            kind: TaskKind::Workflow,
            activity_id: String::new(),
        };
        let reply = ws::PollWorkflowTaskQueueResponse {
            task_token: Bytes::from(token::encode(&token)),
            workflow_execution: Some(execution(key)),
            workflow_type: start.and_then(|start| start.attributes.workflow_type.clone()),
            previous_started_event_id: run.state.previous_started.0,
            started_event_id: started.event.0,
            attempt: view.attempt,
            scheduled_time: Some(view.scheduled_at.to_proto()),
            started_time: Some(started.at.to_proto()),
            workflow_execution_task_queue: start.map(|start| TaskQueue {
                name: start.queue().to_string(),
                kind: TaskQueueKind::Normal as i32,
                normal_name: String::new(),
            }),
            ..Default::default()
        };
        Ok(Reply::WorkflowTask(Box::new(reply), Bytes::from(bytes)))
    }

    /// The message in which an activity task travels.
    pub(super) fn activity_task_reply(&mut self, key: &RunKey, task: &TaskRef) -> Result<Reply, Refusal> {
        let namespace = self.namespaces.get(&key.namespace).map(|view| view.name.clone()).unwrap_or_default();
        let run = &self.cached(key)?.run;
        let view = run
            .activity(task.scheduled)
            .ok_or_else(|| Refusal::Internal("an activity that was started is gone".to_string()))?;
        let attributes = &view.activity.attributes;
        let token = TaskToken {
            key: key.clone(),
            task: activity::task_ref(&view),
            started: EventId(0),
            start_version: FailoverVersion(view.attempt.start_version),
            tip: run.tip(),
            anchor: run.anchored(view.activity.anchor()).chain,
            kind: TaskKind::Activity,
            activity_id: attributes.activity_id.clone(),
        };
        let details = view.heartbeat.as_ref().and_then(|beat| Payloads::decode(&*beat.details).ok());
        let reply = ws::PollActivityTaskQueueResponse {
            task_token: Bytes::from(token::encode(&token)),
            workflow_namespace: namespace,
            workflow_type: run.state.start.as_ref().and_then(|start| start.attributes.workflow_type.clone()),
            workflow_execution: Some(execution(key)),
            activity_type: attributes.activity_type.clone(),
            activity_id: attributes.activity_id.clone(),
            header: attributes.header.clone(),
            input: attributes.input.clone(),
            heartbeat_details: details.filter(|details| !details.payloads.is_empty()),
            scheduled_time: Some(view.activity.scheduled_at.to_proto()),
            current_attempt_scheduled_time: Some(Timestamp(view.attempt.scheduled_unix_nanos).to_proto()),
            started_time: Some(Timestamp(view.attempt.started_unix_nanos).to_proto()),
            attempt: view.attempt.attempt,
            schedule_to_close_timeout: attributes.schedule_to_close_timeout,
            start_to_close_timeout: attributes.start_to_close_timeout,
            heartbeat_timeout: attributes.heartbeat_timeout,
            retry_policy: attributes.retry_policy.clone(),
            priority: attributes.priority.clone(),
            ..Default::default()
        };
        Ok(Reply::ActivityTask(Box::new(reply)))
    }

    pub(super) fn describe(&mut self, request: &Request) -> Result<Reply, Stop> {
        let key = self.resolve(request)?;
        let current = self.is_current(&key);
        let run = &self.cached(&key)?.run;
        let start =
            run.state.start.as_ref().ok_or_else(|| Refusal::Internal(format!("run {key} has no start")))?;
        let attributes = &start.attributes;
        let queue = TaskQueue {
            name: start.queue().to_string(),
            kind: TaskQueueKind::Normal as i32,
            normal_name: String::new(),
        };
        let config = workflow::WorkflowExecutionConfig {
            task_queue: Some(queue),
            workflow_execution_timeout: attributes.workflow_execution_timeout,
            workflow_run_timeout: attributes.workflow_run_timeout,
            default_workflow_task_timeout: Some(start.task_timeout().to_proto()),
            user_metadata: start.user_metadata.clone(),
        };
        let extended = workflow::WorkflowExecutionExtendedInfo {
            execution_expiration_time: attributes.workflow_execution_expiration_time,
            run_expiration_time: start.expires_at().map(Timestamp::to_proto),
            cancel_requested: run.state.cancel_requested,
            original_start_time: Some(start.at.to_proto()),
            ..Default::default()
        };
        let reply = ws::DescribeWorkflowExecutionResponse {
            execution_config: Some(config),
            workflow_execution_info: Some(execution_info(run, current)),
            pending_activities: pending_activities(run),
            pending_workflow_task: pending_task(run),
            workflow_extended_info: Some(extended),
            ..Default::default()
        };
        Ok(Reply::Describe(Box::new(reply)))
    }

    /// Batches of one branch after what the peer has; or of all branches.
    pub(super) fn fetch(
        &mut self,
        request: &Request,
        known: &VersionHistory,
        until: Option<ChainValue>,
    ) -> Result<Reply, Stop> {
        let key = self.resolve(request)?;
        let run = &self.cached(&key)?.run;
        let Some(tree) = &run.tree else {
            return Err(Stop::Refused(Refusal::NotFound(format!("run {key} has no history"))));
        };
        let named = until.filter(|chain| *chain != ChainValue::NONE);
        let path = match named {
            Some(tip) if tree.node(tip).is_none() => {
                return Err(Stop::Refused(Refusal::NotFound(format!("run {key} has no batch {tip}"))));
            }
            Some(tip) => tree.path(tip),
            // Who has nothing and names no branch gets the whole run: a register may hang on a branch that lost (A1).
            None if known.is_empty() => whole(tree),
            None => tree.path(tree.current().chain),
        };
        // What ends within the list the peer named it has; the rest of the branch it lacks. Batches are whole (G1).
        let lacks = |batch: &std::sync::Arc<antipode_core::batch::Batch>| {
            !known.contains(batch.envelope.last_event, batch.envelope.version)
        };
        let batches =
            path.iter().filter_map(|chain| run.batches.get(chain)).filter(|b| lacks(b)).cloned().collect();
        Ok(Reply::Fetched { batches, state: Box::new(run.state_wire()) })
    }
}

/// Batches of all branches, each behind the one before it.
fn whole(tree: &antipode_core::tree::Tree) -> Vec<ChainValue> {
    let mut known = std::collections::BTreeSet::new();
    let all = tree.branches().iter().flat_map(|branch| tree.path(branch.chain));
    all.filter(|chain| known.insert(*chain)).collect()
}

fn execution(key: &RunKey) -> WorkflowExecution {
    WorkflowExecution { workflow_id: key.workflow.to_string(), run_id: key.run.to_string() }
}

/// Encoded events of the current branch from this id on.
fn events_from(run: &Run, from: EventId, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
    let begin = run.line.partition_point(|batch| batch.envelope.last_event < from);
    for batch in &run.line[begin..] {
        if batch.envelope.first_event >= from {
            bytes.extend_from_slice(&batch.events);
            continue;
        }
        let events = batch.decode_events().map_err(|error| Refusal::Internal(error.to_string()))?;
        let events = events.into_iter().filter(|event| event.event_id >= from.0).collect();
        history::History { events }.encode(bytes).map_err(|error| Refusal::Internal(error.to_string()))?;
    }
    Ok(())
}

/// The page that a read asks for; none: it has to wait.
fn read_history(run: &Run, wanted: &HistoryRequest) -> Option<Result<HistoryPage, Refusal>> {
    let open = run.state.is_open();
    let last = run.state.last_event();
    let branch = run.tip();
    let rewritten = wanted.branch.is_some_and(|branch| !run.is_on_current(branch));
    if rewritten && !wanted.close_event_only {
        let words = "the history was rewritten by conflict resolution: read it again from the start";
        return Some(Err(Refusal::FailedPrecondition(words.to_string())));
    }
    if wanted.close_event_only {
        if open {
            let page = HistoryPage { run: run.key.run, events: Bytes::new(), next: Some(last), open, branch };
            return if wanted.wait { None } else { Some(Ok(page)) };
        }
        return Some(page(run, last, last, false).map(|events| HistoryPage {
            run: run.key.run,
            events,
            next: None,
            open,
            branch,
        }));
    }
    let size = i64::try_from(wanted.page_size.max(1)).unwrap_or(i64::MAX);
    if wanted.reverse {
        let to = if wanted.from.0 == 0 { last } else { wanted.from.min(last) };
        let from = EventId((to.0 - size + 1).max(1));
        let next = (from.0 > 1).then(|| EventId(from.0 - 1));
        return Some(page(run, from, to, true).map(|events| HistoryPage {
            run: run.key.run,
            events,
            next,
            open,
            branch,
        }));
    }
    let from = EventId(wanted.from.0.max(1));
    if from > last {
        let nothing =
            HistoryPage { run: run.key.run, events: Bytes::new(), next: open.then_some(from), open, branch };
        return if wanted.wait && open { None } else { Some(Ok(nothing)) };
    }
    let to = EventId((from.0 + size - 1).min(last.0));
    let more = to < last || (open && wanted.wait);
    Some(page(run, from, to, false).map(|events| HistoryPage {
        run: run.key.run,
        events,
        next: more.then(|| to.next()),
        open,
        branch,
    }))
}

/// Encoded events of a span, both ends inclusive.
fn page(run: &Run, from: EventId, to: EventId, reverse: bool) -> Result<Bytes, Refusal> {
    let begin = run.line.partition_point(|batch| batch.envelope.last_event < from);
    let spanned = run.line[begin..].iter().take_while(|batch| batch.envelope.first_event <= to);
    let mut bytes = Vec::new();
    let mut reversed = Vec::new();
    for batch in spanned {
        let whole = batch.envelope.first_event >= from && batch.envelope.last_event <= to;
        if whole && !reverse {
            bytes.extend_from_slice(&batch.events);
            continue;
        }
        let events = batch.decode_events().map_err(|error| Refusal::Internal(error.to_string()))?;
        let events: Vec<_> =
            events.into_iter().filter(|event| (from.0..=to.0).contains(&event.event_id)).collect();
        if reverse {
            reversed.extend(events);
        } else {
            bytes.extend(history::History { events }.encode_to_vec());
        }
    }
    if reverse {
        reversed.reverse();
        bytes = history::History { events: reversed }.encode_to_vec();
    }
    Ok(Bytes::from(bytes))
}

/// What a query task carries, once no workflow task is pending: then the worker answers with everything that was
/// acknowledged (api-surface 3.2a). None: wait.
fn prepare_query(run: &Run, current: bool, condition: i32) -> Option<Result<Reply, Refusal>> {
    let condition = QueryRejectCondition::try_from(condition).unwrap_or_default();
    let open = run.state.is_open() && current;
    let status = if run.state.is_open() && !current { Status::Terminated } else { run.state.status };
    let rejected = match condition {
        QueryRejectCondition::NotOpen => !open,
        QueryRejectCondition::NotCompletedCleanly => {
            !matches!(status, Status::Running | Status::Completed | Status::ContinuedAsNew)
        }
        QueryRejectCondition::None | QueryRejectCondition::Unspecified => false,
    };
    if !rejected {
        let never = run.state.last_completed.0 == 0;
        if never && !open {
            let words = "Workflow execution closed before WorkflowTaskStarted event";
            return Some(Err(Refusal::WorkflowNotReady(words.to_string())));
        }
        match run.task().filter(|_| open) {
            Some(task) if task.attempt >= 3 => {
                let words = "Cannot query workflow due to Workflow Task in failed state.";
                return Some(Err(Refusal::WorkflowNotReady(words.to_string())));
            }
            Some(_) => return None,
            None if never => return None,
            None => {}
        }
    }
    let start = run.state.start.as_ref();
    let mut bytes = Vec::new();
    if let Err(refusal) = events_from(run, EventId(1), &mut bytes) {
        return Some(Err(refusal));
    }
    Some(Ok(Reply::Query(Box::new(QueryReady {
        key: run.key.clone(),
        workflow_type: start.map(|start| start.workflow_type().to_string()).unwrap_or_default(),
        queue: start.map(|start| start.queue().to_string()).unwrap_or_default(),
        sticky: run.sticky(run.state.last_version).map(|sticky| sticky.queue.clone()),
        history: Bytes::from(bytes),
        previous_started: run.state.previous_started,
        rejected: rejected.then_some(status as i32),
    }))))
}

fn execution_info(run: &Run, current: bool) -> workflow::WorkflowExecutionInfo {
    let start = run.state.start.as_ref();
    let close = run.state.close.as_ref();
    let superseded = run.state.is_open() && !current;
    let status = if superseded { Status::Terminated } else { run.state.status };
    let duration = close.zip(start).map(|(close, start)| {
        antipode_core::ids::Nanos(close.at.0.saturating_sub(start.first_task_at().0).max(0)).to_proto()
    });
    workflow::WorkflowExecutionInfo {
        execution: Some(execution(&run.key)),
        r#type: start.map(|start| WorkflowType { name: start.workflow_type().to_string() }),
        start_time: start.map(|start| start.at.to_proto()),
        execution_time: start.map(|start| start.first_task_at().to_proto()),
        close_time: close.map(|close| close.at.to_proto()),
        status: status as i32,
        history_length: run.state.last_event().0,
        history_size_bytes: run.state.history_bytes,
        state_transition_count: run.state.transitions,
        memo: run.state.memo.clone(),
        search_attributes: run.state.search_attributes.clone(),
        task_queue: start.map(|start| start.queue().to_string()).unwrap_or_default(),
        execution_duration: duration,
        first_run_id: run.first_run.to_string(),
        root_execution: Some(execution(&run.key)),
        priority: start.and_then(|start| start.attributes.priority.clone()),
        ..Default::default()
    }
}

fn pending_task(run: &Run) -> Option<workflow::PendingWorkflowTaskInfo> {
    let task = run.task()?;
    let state = match task.started {
        Some(_) => PendingWorkflowTaskState::Started,
        None => PendingWorkflowTaskState::Scheduled,
    };
    Some(workflow::PendingWorkflowTaskInfo {
        state: state as i32,
        scheduled_time: Some(task.scheduled_at.to_proto()),
        original_scheduled_time: Some(task.scheduled_at.to_proto()),
        started_time: task.started.as_ref().map(|started| started.at.to_proto()),
        attempt: task.attempt,
    })
}

fn pending_activities(run: &Run) -> Vec<workflow::PendingActivityInfo> {
    let views = run.state.activities.keys().filter_map(|scheduled| run.activity(*scheduled));
    views.filter(|view| !view.decided).map(|view| pending_activity(&view)).collect()
}

fn pending_activity(view: &antipode_core::view::ActivityView<'_>) -> workflow::PendingActivityInfo {
    let attributes = &view.activity.attributes;
    let attempt = &view.attempt;
    let state = match (attempt.started, view.activity.cancel_requested) {
        (true, Some(_)) => PendingActivityState::CancelRequested,
        (true, None) => PendingActivityState::Started,
        (false, _) => PendingActivityState::Scheduled,
    };
    let details = view.heartbeat.as_ref().and_then(|beat| Payloads::decode(&*beat.details).ok());
    let expiration = view.activity.expires_at();
    workflow::PendingActivityInfo {
        activity_id: attributes.activity_id.clone(),
        activity_type: attributes.activity_type.clone(),
        state: state as i32,
        heartbeat_details: details.filter(|details| !details.payloads.is_empty()),
        last_heartbeat_time: view
            .heartbeat
            .as_ref()
            .map(|beat| Timestamp(beat.recorded_unix_nanos).to_proto()),
        last_started_time: attempt.started.then(|| Timestamp(attempt.started_unix_nanos).to_proto()),
        attempt: attempt.attempt,
        maximum_attempts: attributes.retry_policy.as_ref().map_or(0, |policy| policy.maximum_attempts),
        scheduled_time: Some(Timestamp(attempt.scheduled_unix_nanos).to_proto()),
        expiration_time: expiration.map(Timestamp::to_proto),
        last_failure: activity::decode_failure(&attempt.last_failure),
        last_worker_identity: attempt.last_worker_identity.clone(),
        next_attempt_schedule_time: (!attempt.started && attempt.attempt > 1)
            .then(|| Timestamp(attempt.scheduled_unix_nanos).to_proto()),
        priority: attributes.priority.clone(),
        ..Default::default()
    }
}
