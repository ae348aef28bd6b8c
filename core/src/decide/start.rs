//! StartWorkflowExecution and the next run of a chain: the started event, an optional signal, the first workflow task.

use std::sync::Arc;

use antipode_proto::api::{
    enums::v1::ContinueAsNewInitiator,
    failure::v1::Failure,
    history::v1::{self as history, history_event::Attributes},
    sdk::v1::UserMetadata,
    workflowservice::v1 as ws,
};

use super::{Context, Draft, Seat, broken, workflow_task};
use crate::{
    batch::Batch,
    identity::{ExternalKind, Identity},
    ids::{Nanos, RunId, RunKey, Timestamp},
    inheritance::Inheritance,
    refusal::Refusal,
    run::Run,
};

/// What a new run starts with.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Attributes of the started event.
    pub attributes: history::WorkflowExecutionStartedEventAttributes,
    /// Metadata of the started event.
    pub user_metadata: Option<UserMetadata>,
    /// First run of the chain.
    pub first_run: RunId,
    /// Applied set of the chain so far (B2).
    pub inherited: Inheritance,
    /// Request that starts it; empty for a successor.
    pub request_id: String,
    /// A signal that comes with the start.
    pub signal: Option<(history::WorkflowExecutionSignaledEventAttributes, Identity)>,
}

/// A run from a client's request.
#[must_use]
pub fn from_request(request: &ws::StartWorkflowExecutionRequest, run: RunId, now: Timestamp) -> NewRun {
    let run_id = run.to_string();
    let backoff = request.workflow_start_delay.filter(|delay| Nanos::from_proto(delay).0 > 0);
    let execution = request.workflow_execution_timeout.as_ref().map(Nanos::from_proto);
    let expiration = execution.filter(|timeout| timeout.0 > 0).map(|timeout| {
        let delay = backoff.as_ref().map(Nanos::from_proto).unwrap_or_default();
        now.plus(delay).plus(timeout).to_proto()
    });
    let attributes = history::WorkflowExecutionStartedEventAttributes {
        workflow_type: request.workflow_type.clone(),
        task_queue: request.task_queue.clone(),
        input: request.input.clone(),
        workflow_execution_timeout: request.workflow_execution_timeout,
        workflow_run_timeout: request.workflow_run_timeout,
        workflow_task_timeout: request.workflow_task_timeout,
        original_execution_run_id: run_id.clone(),
        first_execution_run_id: run_id,
        identity: request.identity.clone(),
        retry_policy: request.retry_policy.as_ref().map(|policy| crate::retry::with_defaults(Some(policy))),
        attempt: 1,
        workflow_execution_expiration_time: expiration,
        first_workflow_task_backoff: backoff,
        memo: request.memo.clone(),
        search_attributes: request.search_attributes.clone(),
        header: request.header.clone(),
        workflow_id: request.workflow_id.clone(),
        priority: request.priority.clone(),
        continued_failure: request.continued_failure.clone(),
        last_completion_result: request.last_completion_result.clone(),
        ..Default::default()
    };
    NewRun {
        attributes,
        user_metadata: request.user_metadata.clone(),
        first_run: run,
        inherited: Inheritance::default(),
        request_id: request.request_id.clone(),
        signal: None,
    }
}

/// The next attempt of a run whose retry policy says so: the same start, one attempt later.
#[must_use]
pub fn from_retry(
    run: &Run,
    inherited: Inheritance,
    next: RunId,
    failure: Option<Failure>,
    at: Timestamp,
    now: Timestamp,
) -> Option<NewRun> {
    let start = run.state.start.as_ref()?;
    let mut attributes = (*start.attributes).clone();
    attributes.continued_execution_run_id = run.key.run.to_string();
    attributes.original_execution_run_id = next.to_string();
    attributes.initiator = ContinueAsNewInitiator::Retry as i32;
    attributes.continued_failure = failure;
    attributes.attempt += 1;
    attributes.first_workflow_task_backoff = Some(Nanos(at.0.saturating_sub(now.0).max(0)).to_proto());
    attributes.memo = run.state.memo.clone();
    attributes.search_attributes = run.state.search_attributes.clone();
    Some(NewRun {
        attributes,
        user_metadata: start.user_metadata.clone(),
        first_run: run.first_run,
        inherited,
        request_id: String::new(),
        signal: None,
    })
}

/// Writes the first batch of a run.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn start(key: RunKey, new: NewRun, context: Context, seat: Seat) -> Result<(Run, Arc<Batch>), Refusal> {
    let mut run = Run::new(key, new.first_run);
    let mut draft = Draft::new(&mut run, context, seat);
    draft.inherit(new.inherited);
    let started = draft.event_with(
        Attributes::WorkflowExecutionStartedEventAttributes(Box::new(new.attributes)),
        new.user_metadata,
        Vec::new(),
    )?;
    if let Some(identity) = super::external::client_identity(ExternalKind::Start, &new.request_id) {
        draft.identify(started, identity, false, None);
    }
    if let Some((signal, identity)) = new.signal {
        let event = draft.event(Attributes::WorkflowExecutionSignaledEventAttributes(signal))?;
        draft.identify(event, identity, false, None);
    }
    let first = draft.run.state.start.as_ref().map(crate::state::Start::first_task_at);
    if first.is_none_or(|first| first <= draft.context.now) {
        workflow_task::schedule(&mut draft)?;
    }
    let batch = draft.seal()?.ok_or_else(|| broken("a start wrote no event"))?;
    Ok((run, batch))
}
