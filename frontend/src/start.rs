//! StartWorkflowExecution and SignalWithStartWorkflowExecution: checked, completed with the API's defaults, and given to the shard
//! of the workflow id where the namespace is active. The shard finds every field filled that the API has a default for.

use antipode_history::api::{Operation, Reply, Request};
use antipode_proto::api::{
    enums::v1::{TaskQueueKind, WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse},
    taskqueue::v1::TaskQueue,
    workflowservice::v1 as ws,
};
use prost_types::Duration;
use tonic::Status;

use crate::{call::Call, context::Context, errors, limits, ports, reply::expect_reply, validate};

/// StartWorkflowExecution.
pub(crate) async fn start_workflow_execution(
    context: &Context,
    call: &Call,
    mut request: ws::StartWorkflowExecutionRequest,
) -> Result<ws::StartWorkflowExecutionResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    check_start(&request)?;
    fill_start(&mut request);
    if request.request_id.is_empty() {
        request.request_id = context.mint_id();
    }
    let workflow = ports::workflow_key(namespace.id, &request.workflow_id);
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::Start(Box::new(request.clone()));
            let asked = Request { workflow: workflow.clone(), run: None, operation };
            expect_reply!(context.history.call(asked).await?, Reply::Start(reply) => *reply)
        })
        .await
}

/// SignalWithStartWorkflowExecution.
pub(crate) async fn signal_with_start_workflow_execution(
    context: &Context,
    call: &Call,
    mut request: ws::SignalWithStartWorkflowExecutionRequest,
) -> Result<ws::SignalWithStartWorkflowExecutionResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    check_signal_with_start(&request)?;
    fill_signal_with_start(&mut request);
    if request.request_id.is_empty() {
        request.request_id = context.mint_id();
    }
    let workflow = ports::workflow_key(namespace.id, &request.workflow_id);
    context
        .at_active(call, &namespace, &request, || async {
            let operation = Operation::SignalWithStart(Box::new(request.clone()));
            let asked = Request { workflow: workflow.clone(), run: None, operation };
            expect_reply!(context.history.call(asked).await?, Reply::SignalWithStart(reply) => *reply)
        })
        .await
}

fn check_start(request: &ws::StartWorkflowExecutionRequest) -> Result<(), Status> {
    validate::required("WorkflowId", &request.workflow_id)?;
    validate::retry_policy(request.retry_policy.as_ref())?;
    check_delay(request.workflow_start_delay.as_ref(), &request.cron_schedule)?;
    validate::workflow_type(request.workflow_type.as_ref())?;
    validate::task_queue(request.task_queue.as_ref())?;
    check_timeouts(
        request.workflow_execution_timeout.as_ref(),
        request.workflow_run_timeout.as_ref(),
        request.workflow_task_timeout.as_ref(),
    )?;
    validate::bounded("RequestId", &request.request_id)?;
    validate::cron(&request.cron_schedule)?;
    check_policies(request.workflow_id_reuse_policy, request.workflow_id_conflict_policy)?;
    validate::search_attributes(&request.namespace, request.search_attributes.as_ref())?;
    validate::payloads(request.input.as_ref())?;
    validate::payloads(request.last_completion_result.as_ref())?;
    validate::blob(request.continued_failure.as_ref())?;
    validate::memo(request.memo.as_ref())?;
    let attach = request.on_conflict_options.as_ref().is_some_and(|options| {
        options.attach_request_id || options.attach_completion_callbacks || options.attach_links
    });
    // What the shard would have to drop is refused by name instead. A request for eager execution may be declined.
    not_built(&[
        ("cron_schedule", !request.cron_schedule.is_empty()),
        ("completion_callbacks", !request.completion_callbacks.is_empty()),
        ("versioning_override", request.versioning_override.is_some()),
        ("on_conflict_options", attach),
        ("time_skipping_config", request.time_skipping_config.is_some()),
        ("links", !request.links.is_empty()),
    ])
}

fn check_signal_with_start(request: &ws::SignalWithStartWorkflowExecutionRequest) -> Result<(), Status> {
    validate::required("WorkflowId", &request.workflow_id)?;
    validate::required("SignalName", &request.signal_name)?;
    validate::workflow_type(request.workflow_type.as_ref())?;
    validate::task_queue(request.task_queue.as_ref())?;
    validate::bounded("RequestId", &request.request_id)?;
    check_timeouts(
        request.workflow_execution_timeout.as_ref(),
        request.workflow_run_timeout.as_ref(),
        request.workflow_task_timeout.as_ref(),
    )?;
    validate::retry_policy(request.retry_policy.as_ref())?;
    check_delay(request.workflow_start_delay.as_ref(), &request.cron_schedule)?;
    validate::cron(&request.cron_schedule)?;
    if request.workflow_id_conflict_policy == Conflict::Fail as i32 {
        let name = Conflict::Fail.as_str_name();
        return Err(errors::invalid(format!(
            "Invalid WorkflowIDConflictPolicy: {name} is not supported for this operation."
        )));
    }
    check_policies(request.workflow_id_reuse_policy, request.workflow_id_conflict_policy)?;
    validate::search_attributes(&request.namespace, request.search_attributes.as_ref())?;
    validate::payloads(request.input.as_ref())?;
    validate::payloads(request.signal_input.as_ref())?;
    validate::memo(request.memo.as_ref())?;
    not_built(&[
        ("cron_schedule", !request.cron_schedule.is_empty()),
        ("versioning_override", request.versioning_override.is_some()),
        ("time_skipping_config", request.time_skipping_config.is_some()),
        ("links", !request.links.is_empty()),
    ])
}

fn check_delay(delay: Option<&Duration>, cron: &str) -> Result<(), Status> {
    validate::duration("WorkflowStartDelay", delay)?;
    if validate::is_set(delay) && !cron.is_empty() {
        return Err(errors::invalid("CronSchedule and WorkflowStartDelay may not be used together."));
    }
    Ok(())
}

fn check_timeouts(
    execution: Option<&Duration>,
    run: Option<&Duration>,
    task: Option<&Duration>,
) -> Result<(), Status> {
    validate::duration("WorkflowExecutionTimeoutSeconds", execution)?;
    validate::duration("WorkflowRunTimeoutSeconds", run)?;
    validate::duration("WorkflowTaskTimeoutSeconds", task)
}

/// Policies for a workflow id that is taken (api-surface 4.8).
fn check_policies(reuse: i32, conflict: i32) -> Result<(), Status> {
    let unknown = |field: &str| errors::invalid(format!("Invalid {field}: unknown value."));
    let reuse = Reuse::try_from(reuse).map_err(|_| unknown("WorkflowIDReusePolicy"))?;
    let conflict = Conflict::try_from(conflict).map_err(|_| unknown("WorkflowIDConflictPolicy"))?;
    if conflict != Conflict::Unspecified && is_terminate_if_running(reuse) {
        return Err(errors::invalid(format!(
            "Invalid WorkflowIDReusePolicy: {} cannot be used together with a WorkflowIDConflictPolicy",
            reuse.as_str_name()
        )));
    }
    if conflict == Conflict::TerminateExisting && reuse == Reuse::RejectDuplicate {
        return Err(errors::invalid(format!(
            "Invalid WorkflowIDReusePolicy: {} cannot be used together with WorkflowIdConflictPolicy {}",
            reuse.as_str_name(),
            conflict.as_str_name()
        )));
    }
    Ok(())
}

#[allow(deprecated)]
fn is_terminate_if_running(reuse: Reuse) -> bool {
    reuse == Reuse::TerminateIfRunning
}

fn not_built(fields: &[(&str, bool)]) -> Result<(), Status> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Status::unimplemented(format!("{field} is not implemented"))),
        None => Ok(()),
    }
}

fn fill_start(request: &mut ws::StartWorkflowExecutionRequest) {
    fill_queue(&mut request.task_queue);
    fill_timeouts(
        &mut request.workflow_execution_timeout,
        &mut request.workflow_run_timeout,
        &mut request.workflow_task_timeout,
    );
    let policies = (&mut request.workflow_id_reuse_policy, &mut request.workflow_id_conflict_policy);
    fill_policies(policies, Conflict::Fail);
}

fn fill_signal_with_start(request: &mut ws::SignalWithStartWorkflowExecutionRequest) {
    fill_queue(&mut request.task_queue);
    fill_timeouts(
        &mut request.workflow_execution_timeout,
        &mut request.workflow_run_timeout,
        &mut request.workflow_task_timeout,
    );
    let policies = (&mut request.workflow_id_reuse_policy, &mut request.workflow_id_conflict_policy);
    fill_policies(policies, Conflict::UseExisting);
}

fn fill_queue(queue: &mut Option<TaskQueue>) {
    if let Some(queue) = queue {
        queue.kind = TaskQueueKind::Normal as i32;
        queue.normal_name.clear();
    }
}

/// Zero means no timeout, for the execution and the run; a run never outlasts its execution; a workflow task always ends.
fn fill_timeouts(execution: &mut Option<Duration>, run: &mut Option<Duration>, task: &mut Option<Duration>) {
    let order = |duration: &Duration| (duration.seconds, duration.nanos);
    let whole = execution.unwrap_or_default();
    let mut part = run.unwrap_or_default();
    if validate::is_set(Some(&whole)) && (!validate::is_set(Some(&part)) || order(&part) > order(&whole)) {
        part = whole;
    }
    *execution = Some(whole);
    *run = Some(part);
    let longest = Duration { seconds: limits::TASK_TIMEOUT_MAX_SECONDS, nanos: 0 };
    let wanted = task.filter(|task| validate::is_set(Some(task)));
    let wanted = wanted.unwrap_or(Duration { seconds: limits::TASK_TIMEOUT_DEFAULT_SECONDS, nanos: 0 });
    *task = Some(if order(&wanted) > order(&longest) { longest } else { wanted });
}

/// Names the policies that apply, so that the shard meets none that is unspecified or deprecated.
fn fill_policies((reuse, conflict): (&mut i32, &mut i32), default: Conflict) {
    let named = Reuse::try_from(*reuse).unwrap_or_default();
    if is_terminate_if_running(named) {
        *reuse = Reuse::AllowDuplicate as i32;
        *conflict = Conflict::TerminateExisting as i32;
        return;
    }
    if named == Reuse::Unspecified {
        *reuse = Reuse::AllowDuplicate as i32;
    }
    if *conflict == Conflict::Unspecified as i32 {
        *conflict = default as i32;
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
