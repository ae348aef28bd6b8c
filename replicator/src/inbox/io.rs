//! What goes into an inbox and comes out of it.

use std::sync::Arc;

use antipode_core::ids::{
    FailoverVersion, Incarnation, NamespaceId, Nanos, RegionId, RunKey, Sequence, ShardId, Timestamp,
};
use antipode_history::api::Replicated;
use antipode_persistence::rows::{PositionRow, QuarantineRow};
use antipode_proto::{
    core as wire,
    link::{DownOrigin, FetchRunRequest, NamespaceViewRequest, RegionInfo, replicate_request},
};

use super::progress::{Feed, Positions};
use crate::{
    entry::Unreadable,
    mending::Mended,
    proof::{Exceptions, Gap},
    records::Records,
    selection::KnownStates,
};

/// What a receiver knows before it dials.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who it is, as it says to the source.
    pub info: RegionInfo,
    /// The source.
    pub source: Arc<str>,
    /// Its number.
    pub source_id: RegionId,
    /// Life of the source's store under which `positions` hold.
    pub incarnation: Option<Incarnation>,
    /// What is proved of the source, as stored.
    pub positions: Positions,
    /// Its quarantined runs, as stored.
    pub exceptions: Exceptions,
    /// Other regions that may have what is missing, in the order in which they are asked.
    pub others: Vec<Arc<str>>,
    /// Origins that are down (C7).
    pub down: Vec<DownOrigin>,
}

/// What an inbox looks at: handed in with each input.
pub struct Cx<'a> {
    /// Now.
    pub now: Timestamp,
    /// Namespace records here.
    pub records: &'a dyn Records,
    /// States of runs that this region received, from any peer; the outboxes do not echo them.
    pub received: &'a mut KnownStates,
}

/// Names something that was asked for; its answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(pub u64);

/// What an inbox wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this to the source.
    Send(replicate_request::Message),
    /// Merge these namespace records, before the next message goes in (I10).
    Merge(Vec<wire::NamespaceRecord>),
    /// Apply these on a local shard, in order, behind earlier ones for the same shard; answer with [`Inbox::applied`].
    Apply {
        /// For the answer.
        call: Call,
        /// Local shard.
        shard: ShardId,
        /// In order.
        entries: Vec<Replicated>,
    },
    /// Ask a region for what is missing; answer with [`Inbox::fetched`].
    Fetch {
        /// For the answer.
        call: Call,
        /// Region.
        peer: Arc<str>,
        /// Question.
        request: FetchRunRequest,
    },
    /// Ask a region for its record of a namespace, merge it, then tell [`Inbox::record_asked`].
    AskRecord {
        /// For the answer.
        call: Call,
        /// Region.
        peer: Arc<str>,
        /// Question.
        request: NamespaceViewRequest,
    },
    /// Store this durably, then tell [`Inbox::quarantined`].
    Quarantine(QuarantineRow),
    /// Store that so many entries of a quarantined run came after its first.
    MarkBehind {
        /// Run.
        key: RunKey,
        /// Entries.
        behind: u64,
    },
    /// The run is mended: take it out of the quarantine table, then tell [`Inbox::unquarantined`].
    Unquarantine(RunKey, Mended),
    /// These are proved now.
    Proved(Vec<(Feed, Sequence)>),
    /// Store these positions; if that fails tell [`Inbox::positions_not_stored`].
    StorePositions(Vec<PositionRow>),
    /// An entry of this version was offered although no region had a record that reached it (F5): a forced failover mints
    /// above it (F3).
    Overtaken(NamespaceId, FailoverVersion),
    /// A region's answer to a fetch changed on its way, and is asked for again (G1): to be logged.
    Changed(Unreadable),
}

/// What arrived breaks the protocol: the stream starts again from the proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Something is missing.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// It opened an open stream.
    #[error("it opened twice")]
    OpenedTwice,
    /// It sent something before it said who it is.
    #[error("it did not open the stream with its info")]
    NotOpened,
    /// A batch or a state changed on its way. Also its ids may be wrong, so it cannot be set aside: it is sent again (G1).
    #[error(
        "entry {sequence} of shard {shard}, of run {key} as far as it can be read, changed on its way: {why}"
    )]
    Changed {
        /// The source's shard.
        shard: ShardId,
        /// Position there.
        sequence: Sequence,
        /// As it says.
        key: RunKey,
        /// In words.
        why: String,
    },
}

/// What happened, counted since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of entries.
    pub bytes: u64,
    /// Entries that were new.
    pub applied: u64,
    /// Entries that were known.
    pub duplicate: u64,
    /// Entries before which something was missing.
    pub need_events: u64,
    /// Entries that the shard could not take at once.
    pub retry: u64,
    /// Runs that were set aside for good.
    pub quarantined: u64,
    /// Entries of such runs.
    pub behind: u64,
    /// Batches and states that changed on their way (G1).
    pub changed: u64,
    /// Entries that found no room among the exceptions: the watermark stops (E1).
    pub refused: u64,
    /// Entries of namespaces that do not list this region.
    pub not_ours: u64,
    /// Runs that were mended out of quarantine.
    pub mended: u64,
    /// Entries that another region relayed (C7).
    pub relayed: u64,
    /// How long ranges took from their sender to their proof.
    pub took: Vec<Nanos>,
}
