//! Task queues from outside: who polls them, and workers that go away.

use antipode_core::ids::Nanos;
use antipode_history::api::TaskKind;
use antipode_proto::api::{
    enums::v1::TaskQueueType,
    taskqueue::v1::{TaskQueueStats, TaskQueueStatus},
    workflowservice::v1 as ws,
};
use tonic::Status;

use crate::{call::Call, context::Context, errors, validate};

/// DescribeTaskQueue: what this region's queue holds in memory and who polled it in the last five minutes. A queue that nobody
/// has used is empty, not missing.
#[allow(deprecated)]
pub(crate) async fn describe_task_queue(
    context: &Context,
    _call: &Call,
    request: ws::DescribeTaskQueueRequest,
) -> Result<ws::DescribeTaskQueueResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let queue = validate::task_queue(request.task_queue.as_ref())?;
    let kind = match TaskQueueType::try_from(request.task_queue_type) {
        Ok(TaskQueueType::Unspecified | TaskQueueType::Workflow) => TaskKind::Workflow,
        Ok(TaskQueueType::Activity) => TaskKind::Activity,
        Ok(TaskQueueType::Nexus) => {
            return Err(Status::unimplemented("DescribeTaskQueue of Nexus queues is not implemented"));
        }
        Err(_) => return Err(errors::invalid("Invalid TaskQueueType.")),
    };
    let found = context.matching.describe(namespace.id, &queue.name, kind);
    let backlog = i64::try_from(found.backlog).unwrap_or(i64::MAX);
    let age = found.oldest.map(|oldest| Nanos(context.now().0.saturating_sub(oldest.0).max(0)).to_proto());
    let stats = request.report_stats.then(|| TaskQueueStats {
        approximate_backlog_count: backlog,
        approximate_backlog_age: Some(age.unwrap_or_default()),
        ..TaskQueueStats::default()
    });
    let status = request
        .include_task_queue_status
        .then(|| TaskQueueStatus { backlog_count_hint: backlog, ..TaskQueueStatus::default() });
    Ok(ws::DescribeTaskQueueResponse {
        pollers: found.pollers,
        stats,
        task_queue_status: status,
        ..ws::DescribeTaskQueueResponse::default()
    })
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
