//! What a run passes on to the next one of its chain (B2): the applied set, bounded. An event that was applied again, or came
//! from another run, may be delivered once more for as long as its origin is stored, so its identity is kept. A request that
//! the chain took itself comes again only when its client asks again (B3): the newest of those are kept, in order.

use crate::{
    batch::{Envelope, EventIdentity},
    identity::Identity,
    run::Run,
};

/// How many of the chain's own requests are remembered beyond the run that took them.
pub const RECENT: usize = 2_000;

/// What the first batch of a successor carries of the applied set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// Applied again, or from another run.
    pub kept: Vec<Identity>,
    /// The newest own requests, oldest first.
    pub recent: Vec<Identity>,
}

impl Inheritance {
    /// Of a run and the events that are being written on top of it.
    #[must_use]
    pub(crate) fn of(run: &Run, writing: &[EventIdentity]) -> Self {
        let first: Option<&Envelope> = run.line.first().map(|batch| &batch.envelope);
        let mut passed = Self {
            kept: first.map(|first| first.inherited.clone()).unwrap_or_default(),
            recent: first.map(|first| first.recent.clone()).unwrap_or_default(),
        };
        let written = run.line.iter().flat_map(|batch| &batch.envelope.identities).chain(writing);
        for entry in written.filter(|entry| entry.identity.kind.is_reapplied()) {
            let set = if entry.reapplied_from.is_some() { &mut passed.kept } else { &mut passed.recent };
            set.push(entry.identity.clone());
        }
        let old = passed.recent.len().saturating_sub(RECENT);
        passed.recent.drain(..old);
        passed
    }
}
