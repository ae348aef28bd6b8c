//! What a region asks for when an entry cannot be judged yet: which events of which run, after what it has of them (R411, R413,
//! B8). The host sends the question; here it is told.

use antipode_core::{
    batch::Envelope,
    chain::ChainValue,
    ids::{EventId, RunId},
    version_history::{Item, VersionHistory},
};
use serde::Serialize;

/// A question to a peer, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The run; it may be the successor of the one whose entry waits (B8).
    pub run: RunId,
    /// The stored branch that the answer continues. Empty: none, everything from the first event is wanted.
    pub known: VersionHistory,
    /// First event that is wanted.
    pub from: EventId,
    /// Last event that is wanted, where it is known.
    pub to: Option<Item>,
    /// Chain value at the end of what is wanted; none: the whole run.
    pub until: Option<ChainValue>,
}

/// A question, ready for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AskReport {
    /// Run id.
    pub run: String,
    /// Version history of the stored branch that the answer continues.
    pub known: Option<String>,
    /// First event that is wanted.
    pub from: i64,
    /// Last event that is wanted; none: not known here.
    pub to: Option<String>,
    /// Chain value at the end of what is wanted, hexadecimal; none: the whole run.
    pub until: Option<String>,
    /// The question in words.
    pub words: String,
}

impl Ask {
    /// What lies between the stored branch and a batch whose parent is missing.
    #[must_use]
    pub fn before(incoming: &Envelope, known: &VersionHistory) -> Self {
        let shared = incoming.items.common_ancestor(known).map_or(0, |shared| shared.event.0);
        let last = EventId(incoming.first_event.0 - 1);
        Self {
            run: incoming.run.run,
            known: known.clone(),
            from: EventId(shared + 1),
            to: incoming.items.version_of(last).map(|version| Item::new(last, version)),
            until: Some(incoming.previous),
        }
    }

    /// A run from its first event: up to this chain value, or all of it.
    #[must_use]
    pub fn run(run: RunId, until: Option<ChainValue>) -> Self {
        Self { run, known: VersionHistory::default(), from: EventId(1), to: None, until }
    }

    /// The question in words.
    #[must_use]
    pub fn words(&self) -> String {
        let (run, from) = (self.run, self.from.0);
        let mut words = match (self.to, self.until) {
            (Some(to), _) if to.event.0 == from => format!("event {to} of run {run}"),
            (Some(to), _) => format!("events {from}..{to} of run {run}"),
            (None, Some(until)) => {
                format!("run {run} from event {from} to the batch with chain value {until}")
            }
            (None, None) => format!("run {run} from event {from}, all of its branches"),
        };
        if !self.known.is_empty() {
            words.push_str(&format!(", after the stored {}", self.known));
        }
        words
    }

    /// The question, ready for JSON.
    #[must_use]
    pub fn report(&self) -> AskReport {
        AskReport {
            run: self.run.to_string(),
            known: (!self.known.is_empty()).then(|| self.known.to_string()),
            from: self.from.0,
            to: self.to.map(|to| to.to_string()),
            until: self.until.map(|until| until.to_string()),
            words: self.words(),
        }
    }
}
