//! Re-application: external events of losing branches that the current chain lacks are written again under the present
//! version, with their original identity, exactly once (A3, B1, B3; R500–R502). Internal progress is forgotten (R007).

use antipode_proto::{api::history::v1::history_event::Attributes, core as wire};

use super::Draft;
use crate::{
    batch::EventIdentity,
    ids::FailoverVersion,
    refusal::Refusal,
    run::{CLOSED, CLOSED_BEFORE},
};

/// Writes what is owed. True when an event was written.
///
/// # Errors
/// [`Refusal::Internal`] only.
pub(super) fn write_owed(draft: &mut Draft<'_>) -> Result<bool, Refusal> {
    let mut written = false;
    for (batch, entry) in draft.run.owed() {
        if !draft.run.state.is_open() {
            break; // Stays owed; filed as unclaimed by `file_unclaimed` once the run is closed.
        }
        let event = batch
            .decode_events()
            .ok()
            .and_then(|events| events.into_iter().find(|event| event.event_id == entry.event.0));
        let Some((attributes, links)) = event.and_then(|event| event.attributes.map(|a| (a, event.links)))
        else {
            file(draft, &entry, batch.envelope.version, "the event does not decode");
            continue;
        };
        let run = draft.run.key.run;
        let origin = entry.reapplied_from.unwrap_or((run, batch.envelope.version));
        match attributes {
            Attributes::WorkflowExecutionSignaledEventAttributes(_)
            | Attributes::WorkflowExecutionTerminatedEventAttributes(_) => {
                let event = draft.event_with(attributes, None, links)?;
                draft.identify(event, entry.identity.clone(), entry.named_run, Some(origin));
                written = true;
            }
            Attributes::WorkflowExecutionCancelRequestedEventAttributes(_) => {
                if draft.run.state.cancel_requested {
                    file(draft, &entry, batch.envelope.version, "a cancel request stands in the winner");
                    continue;
                }
                let event = draft.event_with(attributes, None, links)?;
                draft.identify(event, entry.identity.clone(), entry.named_run, Some(origin));
                written = true;
            }
            _ => file(draft, &entry, batch.envelope.version, "this kind of event is not re-applied yet"),
        }
    }
    Ok(written)
}

fn file(draft: &mut Draft<'_>, entry: &EventIdentity, version: FailoverVersion, verdict: &str) {
    let record = wire::Unclaimed {
        identity: Some(entry.identity.to_wire()),
        event_id: entry.event.0,
        version: version.0,
        run_id: draft.run.key.run.to_string(),
        verdict: verdict.to_string(),
        recorded_unix_nanos: draft.context.now.0,
    };
    draft.run.unclaimed.push(record);
}

/// Files what a closed run can never be given (I03): no external event is dropped without a record. True when something
/// was filed.
pub fn file_unclaimed(run: &mut crate::run::Run, now: crate::ids::Timestamp) -> bool {
    if run.state.is_open() {
        return false;
    }
    let owed = run.owed();
    let mut filed = !owed.is_empty();
    for (batch, entry) in owed {
        run.unclaimed.push(wire::Unclaimed {
            identity: Some(entry.identity.to_wire()),
            event_id: entry.event.0,
            version: batch.envelope.version.0,
            run_id: run.key.run.to_string(),
            verdict: CLOSED.to_string(),
            recorded_unix_nanos: now.0,
        });
    }
    // What waits goes on waiting, filed once: no region takes from the set what the others keep (A2).
    for (identity, pending) in run.pending_live() {
        if pending.anchor.is_none() && !run.is_filed(&identity) {
            run.unclaimed.push(wire::Unclaimed {
                identity: Some(identity.to_wire()),
                version: pending.accepted.0.0,
                run_id: run.key.run.to_string(),
                verdict: CLOSED_BEFORE.to_string(),
                recorded_unix_nanos: now.0,
                ..Default::default()
            });
            filed = true;
        }
    }
    filed
}
