//! Task queues from outside: who polls them, and workers that go away.

use antipode_core::ids::{NamespaceId, Nanos};
use antipode_history::api::TaskKind;
use antipode_proto::api::{
    enums::v1::{DescribeTaskQueueMode, TaskQueueType},
    taskqueue::v1::{PollerInfo, TaskQueueStats, TaskQueueStatus, TaskQueueTypeInfo, TaskQueueVersionInfo},
    workflowservice::v1 as ws,
};
use tonic::Status;

use crate::{call::Call, context::Context, errors, validate};

/// DescribeTaskQueue: what this region's queue holds in memory and who polled it in the last five minutes. A queue that nobody
/// has used is empty, not missing. The command line asks in the older "enhanced" mode, by version; there is none but the
/// unversioned one, whose key is the empty text.
#[allow(deprecated)]
pub(crate) async fn describe_task_queue(
    context: &Context,
    _call: &Call,
    request: ws::DescribeTaskQueueRequest,
) -> Result<ws::DescribeTaskQueueResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let queue = validate::task_queue(request.task_queue.as_ref())?;
    let look = |kind| Seen::look(context, namespace.id, &queue.name, kind);
    if request.api_mode == DescribeTaskQueueMode::Enhanced as i32 {
        let types_info = enhanced_types(&request)?.into_iter().map(|kind| {
            let seen = look(kind);
            let stats = request.report_stats.then(|| seen.stats());
            let pollers = if request.report_pollers { seen.pollers } else { Vec::new() };
            (type_of(kind) as i32, TaskQueueTypeInfo { pollers, stats })
        });
        let unversioned = TaskQueueVersionInfo { types_info: types_info.collect(), task_reachability: 0 };
        return Ok(ws::DescribeTaskQueueResponse {
            versions_info: [(String::new(), unversioned)].into(),
            ..ws::DescribeTaskQueueResponse::default()
        });
    }
    let seen = look(kind_of(request.task_queue_type)?);
    Ok(ws::DescribeTaskQueueResponse {
        stats: request.report_stats.then(|| seen.stats()),
        task_queue_status: request
            .include_task_queue_status
            .then(|| TaskQueueStatus { backlog_count_hint: seen.backlog, ..TaskQueueStatus::default() }),
        pollers: seen.pollers,
        ..ws::DescribeTaskQueueResponse::default()
    })
}

/// What is known of a queue of one kind.
struct Seen {
    pollers: Vec<PollerInfo>,
    backlog: i64,
    age: Nanos,
}

impl Seen {
    fn look(context: &Context, namespace: NamespaceId, queue: &str, kind: TaskKind) -> Self {
        let found = context.matching.describe(namespace, queue, kind);
        let age = found.oldest.map_or(0, |oldest| context.now().0.saturating_sub(oldest.0).max(0));
        let backlog = i64::try_from(found.backlog).unwrap_or(i64::MAX);
        Self { pollers: found.pollers, backlog, age: Nanos(age) }
    }

    fn stats(&self) -> TaskQueueStats {
        TaskQueueStats {
            approximate_backlog_count: self.backlog,
            approximate_backlog_age: Some(self.age.to_proto()),
            ..TaskQueueStats::default()
        }
    }
}

fn kind_of(number: i32) -> Result<TaskKind, Status> {
    match TaskQueueType::try_from(number) {
        Ok(TaskQueueType::Unspecified | TaskQueueType::Workflow) => Ok(TaskKind::Workflow),
        Ok(TaskQueueType::Activity) => Ok(TaskKind::Activity),
        Ok(TaskQueueType::Nexus) => {
            Err(Status::unimplemented("DescribeTaskQueue of Nexus queues is not implemented"))
        }
        Err(_) => Err(errors::invalid("Invalid TaskQueueType.")),
    }
}

fn type_of(kind: TaskKind) -> TaskQueueType {
    match kind {
        TaskKind::Workflow => TaskQueueType::Workflow,
        TaskKind::Activity => TaskQueueType::Activity,
    }
}

/// The kinds asked for; none named: both. A queue of Nexus tasks has nothing to show.
#[allow(deprecated)]
fn enhanced_types(request: &ws::DescribeTaskQueueRequest) -> Result<Vec<TaskKind>, Status> {
    if request.task_queue_types.is_empty() {
        return Ok(vec![TaskKind::Workflow, TaskKind::Activity]);
    }
    let named = request.task_queue_types.iter().filter(|number| **number != TaskQueueType::Nexus as i32);
    named.map(|number| kind_of(*number)).collect()
}

/// ShutdownWorker: what waits for the worker's sticky queue goes to the normal one at once.
pub(crate) async fn shutdown_worker(
    context: &Context,
    _call: &Call,
    request: ws::ShutdownWorkerRequest,
) -> Result<ws::ShutdownWorkerResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    if !request.sticky_task_queue.is_empty() {
        context.matching.unload_sticky(namespace.id, &request.sticky_task_queue);
    }
    Ok(ws::ShutdownWorkerResponse::default())
}
