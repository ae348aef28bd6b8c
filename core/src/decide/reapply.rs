//! Re-application: external events of losing branches that the current chain lacks are written again under the present
//! version, with their original identity, exactly once (A3, B1, B3; R500–R502). Internal progress is forgotten (R007).

use antipode_proto::api::history::v1::history_event::Attributes;

use super::Draft;
use crate::{
    batch::EventIdentity,
    ids::{EventId, FailoverVersion, RunOrder, Timestamp},
    refusal::Refusal,
    run::Run,
    verdict::{Basis, CLOSED, CLOSED_BEFORE, Verdict},
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
            file(draft, &entry, batch.envelope.version, "the event does not decode", Basis::Nothing);
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
                    let basis = Basis::tip_of(draft.run);
                    let words = "a cancel request stands in the winner";
                    file(draft, &entry, batch.envelope.version, words, basis);
                    continue;
                }
                let event = draft.event_with(attributes, None, links)?;
                draft.identify(event, entry.identity.clone(), entry.named_run, Some(origin));
                written = true;
            }
            _ => {
                let words = "this kind of event is not re-applied yet";
                file(draft, &entry, batch.envelope.version, words, Basis::Nothing);
            }
        }
    }
    Ok(written)
}

fn file(draft: &mut Draft<'_>, entry: &EventIdentity, version: FailoverVersion, words: &str, basis: Basis) {
    let order = RunOrder::default();
    let verdict = Verdict { identity: &entry.identity, event: entry.event, version, words, basis, order };
    draft.run.file(&verdict, draft.context.now);
}

/// Files what a closed run can never be given (I03): no external event is dropped without a record. True when something
/// was filed.
pub fn file_unclaimed(run: &mut Run, now: Timestamp) -> bool {
    if run.state.is_open() {
        return false;
    }
    // It rests on a branch of the run itself, which says how far it is.
    let (mut filed, basis, order) = (false, Basis::tip_of(run), RunOrder::default());
    for (batch, entry) in run.owed() {
        let (event, version) = (entry.event, batch.envelope.version);
        let verdict = Verdict { identity: &entry.identity, event, version, words: CLOSED, basis, order };
        filed |= run.file(&verdict, now);
    }
    // What waits goes on waiting, filed once: no region takes from the set what the others keep (A2).
    for (identity, pending) in run.pending_live() {
        if pending.anchor.is_none() && !run.is_filed(&identity) {
            let (event, version) = (EventId(0), pending.accepted.0);
            let verdict = Verdict { identity: &identity, event, version, words: CLOSED_BEFORE, basis, order };
            filed |= run.file(&verdict, now);
        }
    }
    filed
}
