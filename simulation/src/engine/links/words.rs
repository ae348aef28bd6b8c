//! A message in words, for the reader of a recording.

use super::*;

/// Kind, words and workflow ids of a message.
pub(super) fn describe(payload: &Payload) -> (&'static str, String, Vec<String>) {
    match payload {
        Payload::ToSource(replicate_request::Message::Open(open)) => {
            ("open", format!("from {} positions", open.positions.len()), Vec::new())
        }
        Payload::ToSource(replicate_request::Message::Ack(ack)) => {
            let proof: Vec<_> = ack.proof.iter().map(|at| format!("{}:{}", at.shard, at.sequence)).collect();
            let proof = if proof.is_empty() { "nothing new".to_string() } else { proof.join(" ") };
            ("ack", format!("proved {proof}"), Vec::new())
        }
        Payload::ToReceiver(replicate_response::Message::Opened(_)) => {
            ("opened", "the stream".to_string(), Vec::new())
        }
        Payload::ToReceiver(replicate_response::Message::Namespaces(records)) => {
            let words: Vec<_> = records
                .records
                .iter()
                .filter_map(|record| Record::from_wire(record).ok())
                .map(|record| {
                    format!(
                        "{} version {} {} in {}",
                        record.name(),
                        record.version(),
                        super::super::failovers::phase_name(record.phase()),
                        record.active()
                    )
                })
                .collect();
            ("records", words.join("; "), Vec::new())
        }
        Payload::ToReceiver(replicate_response::Message::Entries(entries)) => describe_entries(entries),
        Payload::FetchAsk { request, .. } => {
            ("fetch", format!("run {}", request.run_id), vec![request.workflow_id.clone()])
        }
        Payload::FetchAnswer { answer, .. } => match answer {
            Ok(found) => ("fetched", format!("{} batches", found.batches.len()), Vec::new()),
            Err(why) => ("fetched", why.clone(), Vec::new()),
        },
        Payload::RecordAsk { .. } => ("ask-record", "asks for the record".to_string(), Vec::new()),
        Payload::RecordAnswer { .. } => ("record", "the record".to_string(), Vec::new()),
        Payload::Silence | Payload::Unreached => ("silence", String::new(), Vec::new()),
    }
}

pub(super) fn describe_entries(entries: &replicate_response::Entries) -> (&'static str, String, Vec<String>) {
    use antipode_proto::link::entry::Entry;
    let mut workflows = BTreeSet::new();
    let mut words = Vec::new();
    for entry in &entries.entries {
        match &entry.entry {
            Some(Entry::Batch(batch)) => {
                if let Ok(envelope) = wire::BatchEnvelope::decode(&*batch.envelope) {
                    words.push(format!("{} events from {}", envelope.workflow_id, envelope.first_event_id));
                    workflows.insert(envelope.workflow_id);
                }
            }
            Some(Entry::State(state)) => {
                words.push(format!("state of {}", state.workflow_id));
                workflows.insert(state.workflow_id.clone());
            }
            None => {}
        }
    }
    let range = format!("shard {} ({}, {}]", entries.shard, entries.after, entries.through);
    let text = if words.is_empty() { range } else { format!("{range}: {}", words.join(", ")) };
    ("entries", text, workflows.into_iter().collect())
}
