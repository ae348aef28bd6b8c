//! How a run closes: by a command, by its timeout; and whether its chain goes on (continue-as-new, retry).

use antipode_proto::api::{
    command::v1::{
        ContinueAsNewWorkflowExecutionCommandAttributes as ContinueAsNew, command::Attributes as C,
    },
    enums::v1::{ContinueAsNewInitiator, RetryState, TimeoutType},
    failure::v1::{Failure, TimeoutFailureInfo, failure::FailureInfo},
    history::v1::{self as history, history_event::Attributes},
};

use super::{Draft, broken, start};
use crate::{
    ids::{EventId, Nanos, RunId, Timestamp},
    refusal::Refusal,
    retry,
    run::Run,
};

/// Writes a closing command. The next run of the chain, when there is one.
pub(super) fn by_command(
    draft: &mut Draft<'_>,
    command: &C,
    completed: EventId,
    next_run: RunId,
) -> Result<Option<start::NewRun>, Refusal> {
    match command {
        C::CompleteWorkflowExecutionCommandAttributes(a) => {
            draft.event(Attributes::WorkflowExecutionCompletedEventAttributes(
                history::WorkflowExecutionCompletedEventAttributes {
                    result: a.result.clone(),
                    workflow_task_completed_event_id: completed.0,
                    new_execution_run_id: String::new(),
                },
            ))?;
            Ok(None)
        }
        C::CancelWorkflowExecutionCommandAttributes(a) => {
            draft.event(Attributes::WorkflowExecutionCanceledEventAttributes(
                history::WorkflowExecutionCanceledEventAttributes {
                    workflow_task_completed_event_id: completed.0,
                    details: a.details.clone(),
                },
            ))?;
            Ok(None)
        }
        C::FailWorkflowExecutionCommandAttributes(a) => fail(draft, a.failure.clone(), completed, next_run),
        C::ContinueAsNewWorkflowExecutionCommandAttributes(a) => {
            continue_as_new(draft, a, completed, next_run).map(Some)
        }
        // The check refused every other command before anything was written.
        _ => Err(broken("an unchecked command was written")),
    }
}

/// Whether the run's retry policy gives it another attempt, and when.
fn retry_at(run: &Run, failure: &Failure, now: Timestamp) -> Result<Timestamp, RetryState> {
    let start = run.state.start.as_ref().ok_or(RetryState::InternalServerError)?;
    let policy = start.attributes.retry_policy.as_ref().ok_or(RetryState::RetryPolicyNotSet)?;
    let expires = start.attributes.workflow_execution_expiration_time.as_ref().map(Timestamp::from_proto);
    retry::next_attempt(policy, start.attributes.attempt.max(1), failure, now, expires)
}

fn fail(
    draft: &mut Draft<'_>,
    failure: Option<Failure>,
    completed: EventId,
    next_run: RunId,
) -> Result<Option<start::NewRun>, Refusal> {
    let now = draft.context.now;
    let verdict = retry_at(draft.run, &failure.clone().unwrap_or_default(), now);
    let new = match verdict {
        Ok(at) => start::from_retry(draft.run, draft.inheritance(), next_run, failure.clone(), at, now),
        Err(_) => None,
    };
    let state = verdict.err().unwrap_or(RetryState::InProgress);
    draft.successor = new.as_ref().map(|_| next_run);
    draft.event(Attributes::WorkflowExecutionFailedEventAttributes(
        history::WorkflowExecutionFailedEventAttributes {
            failure,
            retry_state: state as i32,
            workflow_task_completed_event_id: completed.0,
            new_execution_run_id: new.as_ref().map(|_| next_run.to_string()).unwrap_or_default(),
        },
    ))?;
    Ok(new)
}

/// The run's time is over (api-surface 4.4). The next run of the chain, when its retry policy gives one.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn time_out(draft: &mut Draft<'_>, next_run: RunId) -> Result<Option<start::NewRun>, Refusal> {
    let failure = Failure {
        message: "workflow timeout".to_string(),
        source: "Server".to_string(),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: TimeoutType::StartToClose as i32,
            ..Default::default()
        })),
        ..Default::default()
    };
    let now = draft.context.now;
    let verdict = retry_at(draft.run, &failure, now);
    let new = match verdict {
        Ok(at) => start::from_retry(draft.run, draft.inheritance(), next_run, Some(failure), at, now),
        Err(_) => None,
    };
    draft.successor = new.as_ref().map(|_| next_run);
    let state = verdict.err().unwrap_or(RetryState::InProgress);
    draft.event(Attributes::WorkflowExecutionTimedOutEventAttributes(
        history::WorkflowExecutionTimedOutEventAttributes {
            retry_state: state as i32,
            new_execution_run_id: new.as_ref().map(|_| next_run.to_string()).unwrap_or_default(),
        },
    ))?;
    Ok(new)
}

/// Least time between the starts of two runs of a chain.
const RUN_MINIMUM: Nanos = Nanos::seconds(1);

fn continue_as_new(
    draft: &mut Draft<'_>,
    command: &ContinueAsNew,
    completed: EventId,
    next_run: RunId,
) -> Result<start::NewRun, Refusal> {
    let start = draft.run.state.start.clone().ok_or_else(|| broken("a run without a start"))?;
    let old = &start.attributes;
    let lived = draft.context.now.0.saturating_sub(start.clock.0).max(0);
    let wanted = command.backoff_start_interval.as_ref().map(Nanos::from_proto).unwrap_or_default();
    let backoff = Nanos(wanted.0.max(RUN_MINIMUM.0.saturating_sub(lived)).max(0));
    let backoff = (backoff.0 > 0).then(|| backoff.to_proto());
    let initiator = match command.initiator {
        0 => ContinueAsNewInitiator::Workflow as i32,
        initiator => initiator,
    };
    let workflow_type = command.workflow_type.clone().filter(|kind| !kind.name.is_empty());
    let workflow_type = workflow_type.or_else(|| old.workflow_type.clone());
    let task_queue = command.task_queue.clone().filter(|queue| !queue.name.is_empty());
    let task_queue = task_queue.or_else(|| old.task_queue.clone());
    let memo = command.memo.clone().or_else(|| draft.run.state.memo.clone());
    let search_attributes =
        command.search_attributes.clone().or_else(|| draft.run.state.search_attributes.clone());
    let run_timeout = command.workflow_run_timeout.or(old.workflow_run_timeout);
    let task_timeout = command.workflow_task_timeout.or(old.workflow_task_timeout);

    let attributes = history::WorkflowExecutionStartedEventAttributes {
        workflow_type: workflow_type.clone(),
        task_queue: task_queue.clone(),
        input: command.input.clone(),
        workflow_execution_timeout: old.workflow_execution_timeout,
        workflow_run_timeout: run_timeout,
        workflow_task_timeout: task_timeout,
        continued_execution_run_id: draft.run.key.run.to_string(),
        initiator,
        continued_failure: command.failure.clone(),
        last_completion_result: command.last_completion_result.clone(),
        original_execution_run_id: next_run.to_string(),
        identity: old.identity.clone(),
        first_execution_run_id: draft.run.first_run.to_string(),
        retry_policy: command.retry_policy.clone().or_else(|| old.retry_policy.clone()),
        attempt: 1,
        workflow_execution_expiration_time: old.workflow_execution_expiration_time,
        first_workflow_task_backoff: backoff,
        memo: memo.clone(),
        search_attributes: search_attributes.clone(),
        header: command.header.clone().or_else(|| old.header.clone()),
        workflow_id: old.workflow_id.clone(),
        priority: old.priority.clone(),
        ..Default::default()
    };
    // B2: the successor inherits the applied set of the chain.
    let new = start::NewRun {
        attributes,
        user_metadata: start.user_metadata.clone(),
        first_run: draft.run.first_run,
        inherited: draft.inheritance(),
        request_id: String::new(),
        signal: None,
    };
    draft.successor = Some(next_run);
    #[allow(deprecated, reason = "the field stands in the public event")]
    draft.event(Attributes::WorkflowExecutionContinuedAsNewEventAttributes(Box::new(
        history::WorkflowExecutionContinuedAsNewEventAttributes {
            new_execution_run_id: next_run.to_string(),
            workflow_type,
            task_queue,
            input: command.input.clone(),
            workflow_run_timeout: run_timeout,
            workflow_task_timeout: task_timeout,
            workflow_task_completed_event_id: completed.0,
            backoff_start_interval: backoff,
            initiator,
            failure: command.failure.clone(),
            last_completion_result: command.last_completion_result.clone(),
            header: command.header.clone(),
            memo,
            search_attributes,
            inherit_build_id: command.inherit_build_id,
            ..Default::default()
        },
    )))?;
    Ok(new)
}
