//! A received entry, checked for shape: which run it is for, and what the owning shard is handed. Pure.

use std::sync::Arc;

use antipode_core::{
    batch::{Batch, Malformed},
    ids::{FailoverVersion, NamespaceId, RunId, RunKey, WorkflowId, WorkflowKey},
    sum,
};
use antipode_history::api::Replicated;
use antipode_proto::{core as wire, link};
use prost::Message;

/// An entry that fits.
#[derive(Clone, Debug)]
pub struct Received {
    /// Run.
    pub key: RunKey,
    /// Version the namespace record must have reached before it may be applied; none for a state (F5, I10).
    pub version: Option<FailoverVersion>,
    /// For the shard.
    pub replicated: Replicated,
}

impl Received {
    /// Unit of order: entries of one workflow id stay in order (B8).
    #[must_use]
    pub fn workflow(&self) -> WorkflowKey {
        self.key.workflow_key()
    }
}

/// An entry that cannot even be read. Its run is as far known as it could be made out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Run; nil ids where they could not be read.
    pub key: RunKey,
    /// In words.
    pub why: String,
    /// Its bytes are not those that were sent, so neither is what they say of the run: it has to be asked for again (G1).
    pub changed: bool,
}

impl Unreadable {
    fn new(key: RunKey, why: impl Into<String>) -> Self {
        Self { key, why: why.into(), changed: false }
    }
}

/// Reads an entry.
///
/// # Errors
/// [`Unreadable`].
pub fn read(entry: &link::Entry) -> Result<Received, Unreadable> {
    match &entry.entry {
        Some(link::entry::Entry::Batch(batch)) => read_batch(batch),
        Some(link::entry::Entry::State(state)) => read_state(state),
        None => Err(Unreadable::new(best_key("", "", ""), "the entry is of a kind not known here")),
    }
}

fn read_batch(batch: &wire::Batch) -> Result<Received, Unreadable> {
    match Batch::from_wire(batch) {
        Ok(batch) => Ok(Received {
            key: batch.envelope.run.clone(),
            version: Some(batch.envelope.version),
            replicated: Replicated::Batch(Arc::new(batch)),
        }),
        Err(malformed) => {
            let envelope = wire::BatchEnvelope::decode(&*batch.envelope).unwrap_or_default();
            let key = best_key(&envelope.namespace_id, &envelope.workflow_id, &envelope.run_id);
            let changed = matches!(malformed, Malformed::Chain { .. });
            Err(Unreadable { key, why: malformed.to_string(), changed })
        }
    }
}

/// What a region answered, if its batches and its state are those that it sent (G1).
///
/// # Errors
/// [`Unreadable`]: the first that is not.
pub fn unchanged(response: &link::FetchRunResponse) -> Result<(), Unreadable> {
    let batches = response.batches.iter().map(read_batch);
    let mut all = batches.chain(response.state.iter().map(read_state));
    let changed = all.find_map(|read| read.err().filter(|one| one.changed));
    changed.map_or(Ok(()), Err)
}

fn read_state(state: &wire::RunState) -> Result<Received, Unreadable> {
    let (namespace, workflow, run) = (&state.namespace_id, &state.workflow_id, &state.run_id);
    if let Err(why) = sum::check(state) {
        let key = best_key(namespace, workflow, run);
        return Err(Unreadable { key, why: why.to_string(), changed: true });
    }
    match key_of(namespace, workflow, run) {
        Some(key) => {
            Ok(Received { key, version: None, replicated: Replicated::State(Box::new(state.clone())) })
        }
        None => Err(Unreadable::new(best_key(namespace, workflow, run), "the state names no run")),
    }
}

/// The run that three texts name.
#[must_use]
pub fn key_of(namespace: &str, workflow: &str, run: &str) -> Option<RunKey> {
    if workflow.is_empty() {
        return None;
    }
    Some(RunKey {
        namespace: namespace.parse().ok()?,
        workflow: WorkflowId::from(workflow),
        run: run.parse().ok()?,
    })
}

fn best_key(namespace: &str, workflow: &str, run: &str) -> RunKey {
    RunKey {
        namespace: namespace.parse().unwrap_or(NamespaceId(Default::default())),
        workflow: WorkflowId::from(workflow),
        run: run.parse().unwrap_or(RunId(Default::default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "6f6e6520-6e61-4d65-8370-616365206964";
    const RUN: &str = "72756e20-6f6e-4520-8f66-206d616e7921";

    fn state(run: &str) -> link::Entry {
        let state = wire::RunState {
            namespace_id: NAMESPACE.into(),
            workflow_id: "w".into(),
            run_id: run.into(),
            ..wire::RunState::default()
        };
        link::Entry { sequence: 1, entry: Some(link::entry::Entry::State(state)) }
    }

    #[test]
    fn a_state_is_for_its_run() {
        let received = read(&state(RUN)).unwrap();
        assert_eq!(received.key.run.to_string(), RUN);
        assert_eq!(received.version, None);
    }

    #[test]
    fn what_cannot_be_read_is_named_as_well_as_possible() {
        let unreadable = read(&state("?")).unwrap_err();
        assert_eq!(unreadable.key.workflow.as_str(), "w");
        assert_eq!(unreadable.key.namespace.to_string(), NAMESPACE);
        let envelope = wire::BatchEnvelope {
            namespace_id: NAMESPACE.into(),
            workflow_id: "w".into(),
            run_id: RUN.into(),
            ..wire::BatchEnvelope::default()
        };
        let batch = wire::Batch { envelope: envelope.encode_to_vec().into(), ..wire::Batch::default() };
        let entry = link::Entry { sequence: 1, entry: Some(link::entry::Entry::Batch(batch)) };
        let unreadable = read(&entry).unwrap_err();
        assert_eq!(unreadable.key.run.to_string(), RUN);
        assert!(unreadable.why.contains("first_run_id"), "{}", unreadable.why);
        assert!(read(&link::Entry::default()).is_err());
    }
}
