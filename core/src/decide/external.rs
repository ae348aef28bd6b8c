//! What clients do to an open run: signal, request cancel, terminate. Accepted while a workflow task is in a worker's hand
//! they wait in the pending set (A2); each carries an identity for ever (B3).

use std::sync::Arc;

use antipode_proto::api::{
    history::v1::{self as history, HistoryEvent, history_event::Attributes},
    workflowservice::v1 as ws,
};

use super::{Context, Draft, Outcome, Seat, draft::event_type, workflow_task};
use crate::{
    batch::Batch,
    identity::{ExternalKind, Identity, Key},
    refusal::Refusal,
    run::{Pending, Run},
};

/// One external event to accept.
#[derive(Clone, Debug)]
pub struct External {
    /// The event.
    pub attributes: Attributes,
    /// Its identity, when the client gave a key; else one is minted.
    pub identity: Option<Identity>,
    /// Scope of a minted identity.
    pub kind: ExternalKind,
    /// The request named a run (B4).
    pub named_run: bool,
    /// Links of the request.
    pub links: Vec<antipode_proto::api::common::v1::Link>,
}

/// A signal as an event.
#[must_use]
pub fn signal(request: &ws::SignalWorkflowExecutionRequest) -> External {
    let named_run = request.workflow_execution.as_ref().is_some_and(|execution| !execution.run_id.is_empty());
    External {
        attributes: Attributes::WorkflowExecutionSignaledEventAttributes(
            history::WorkflowExecutionSignaledEventAttributes {
                signal_name: request.signal_name.clone(),
                input: request.input.clone(),
                identity: request.identity.clone(),
                header: request.header.clone(),
                request_id: request.request_id.clone(),
                ..Default::default()
            },
        ),
        identity: client_identity(ExternalKind::Signal, &request.request_id),
        kind: ExternalKind::Signal,
        named_run,
        links: request.links.clone(),
    }
}

/// A cancel request as an event.
#[must_use]
pub fn request_cancel(request: &ws::RequestCancelWorkflowExecutionRequest) -> External {
    let named_run = request.workflow_execution.as_ref().is_some_and(|execution| !execution.run_id.is_empty());
    External {
        attributes: Attributes::WorkflowExecutionCancelRequestedEventAttributes(
            history::WorkflowExecutionCancelRequestedEventAttributes {
                cause: request.reason.clone(),
                identity: request.identity.clone(),
                ..Default::default()
            },
        ),
        identity: client_identity(ExternalKind::Cancel, &request.request_id),
        kind: ExternalKind::Cancel,
        named_run,
        links: request.links.clone(),
    }
}

/// The client's key as an identity.
#[must_use]
pub fn client_identity(kind: ExternalKind, key: &str) -> Option<Identity> {
    (!key.is_empty()).then(|| Identity::client(kind, key))
}

/// Accepts an external event: written at once, or pending while a workflow task is in flight. A known identity, or a
/// second cancel request, is success that adds nothing.
///
/// # Errors
/// [`Refusal::Internal`] only: the caller has checked that the run is open and current.
pub fn accept(run: &mut Run, external: External, context: Context, seat: Seat) -> Result<Outcome, Refusal> {
    let identity = external.identity.clone().unwrap_or_else(|| mint(run, external.kind, &context, seat, 0));
    let repeated_cancel = external.kind == ExternalKind::Cancel
        && (run.state.cancel_requested || run.pending.keys().any(|known| known.kind == ExternalKind::Cancel));
    if run.knows(&identity) || repeated_cancel {
        return Ok(Outcome::default());
    }
    if run.in_flight() {
        let event = HistoryEvent {
            event_type: event_type(&external.attributes) as i32,
            attributes: Some(external.attributes),
            links: external.links,
            ..HistoryEvent::default()
        };
        let pending = Pending {
            events: vec![event],
            named_run: external.named_run,
            anchor: None,
            accepted: (context.version, seat.place),
            region: context.region,
            origin: None,
        };
        run.pending.insert(identity, pending);
        return Ok(Outcome::default());
    }
    let mut draft = Draft::new(run, context, seat);
    let event = draft.event_with(external.attributes, None, external.links)?;
    draft.identify(event, identity, external.named_run, None);
    workflow_task::need(&mut draft)?;
    Ok(Outcome::of(draft.seal()?))
}

/// An identity made here (B3): unique by region, run, epoch and sequence.
fn mint(run: &Run, kind: ExternalKind, context: &Context, seat: Seat, ordinal: u32) -> Identity {
    let key = Key::Minted {
        region: context.region,
        run: run.key.run,
        epoch: seat.place.epoch,
        sequence: seat.place.sequence,
        ordinal,
    };
    Identity { kind, key }
}

/// Terminates the run at once, whatever is in flight.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub fn terminate(
    run: &mut Run,
    attributes: history::WorkflowExecutionTerminatedEventAttributes,
    identity: Option<Identity>,
    named_run: bool,
    context: Context,
    seat: Seat,
) -> Result<Option<Arc<Batch>>, Refusal> {
    // B5: a termination caused by a start of the same id is not an external event: it has no identity.
    let mut draft = Draft::new(run, context, seat);
    workflow_task::write_pending(&mut draft)?;
    super::reapply::write_owed(&mut draft)?;
    if !draft.run.state.is_open() {
        return draft.seal(); // Another termination waited, or was owed.
    }
    let event = draft.event(Attributes::WorkflowExecutionTerminatedEventAttributes(attributes))?;
    if let Some(identity) = identity {
        draft.identify(event, identity, named_run, None);
    }
    draft.seal()
}

/// Identity of a client's termination.
#[must_use]
pub fn terminate_identity(run: &Run, context: &Context, seat: Seat) -> Identity {
    mint(run, ExternalKind::Terminate, context, seat, 0)
}
