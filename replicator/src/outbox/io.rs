//! What goes into an outbox and comes out of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use antipode_core::ids::{Incarnation, RegionId, RunId, RunKey, Sequence, ShardId, Timestamp};
use antipode_proto::link::{self, RegionInfo, replicate_response};

use crate::{
    inbox::Feed,
    records::Records,
    selection::{Damaged, KnownStates},
};

/// What a source knows when a receiver has dialled.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who it is, as it says to the receiver.
    pub info: RegionInfo,
    /// The receiver.
    pub peer: Arc<str>,
    /// Its number.
    pub peer_id: RegionId,
    /// Ends of the logs of this region's shards, as stored; a shard that is not named is empty.
    pub ends: BTreeMap<ShardId, Sequence>,
}

/// What an outbox looks at: handed in with each input.
pub struct Cx<'a> {
    /// Now.
    pub now: Timestamp,
    /// Namespace records here.
    pub records: &'a dyn Records,
    /// Regions that are linked to this one and send what is theirs.
    pub linked: &'a BTreeSet<RegionId>,
    /// States that this region received, which are not echoed.
    pub received: &'a KnownStates,
    /// Runs that are held back.
    pub held: &'a BTreeSet<RunId>,
    /// What is withheld from this peer; it outlives the stream, because its ranges are announced and nothing else would bring
    /// it again.
    pub withheld: &'a mut Withheld,
}

/// An entry of a held run.
#[derive(Clone, Debug)]
pub struct WithheldEntry {
    /// Where it was announced.
    pub feed: Feed,
    /// Run.
    pub run: RunKey,
    /// As it goes out.
    pub entry: link::Entry,
    /// It was let go and is on its way on this stream, not yet proved.
    pub sent: bool,
}

/// Entries of held runs, by run. They stay until the receiver has proved them: a stream may break after they are sent. While
/// one waits to be sent, later ones of its run queue up behind.
#[derive(Clone, Debug, Default)]
pub struct Withheld {
    runs: BTreeMap<RunId, VecDeque<WithheldEntry>>,
    /// Life of the receiver's store that was last seen.
    life: Incarnation,
    /// The first entry of each shard that ever was withheld: a receiver that is put back in time may have passed it without having it.
    first: BTreeMap<ShardId, Sequence>,
}

impl Withheld {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry of a shard's own log is withheld.
    pub(super) fn note(&mut self, shard: ShardId, sequence: Sequence) {
        let first = self.first.entry(shard).or_insert(sequence);
        *first = sequence.min(*first);
    }

    /// The receiver dials in this life. Where its log is read from again, by shard, at the latest: what was let go may have gone to
    /// an earlier life of it (E1, E2).
    pub(super) fn dialled(&mut self, life: Incarnation) -> BTreeMap<ShardId, Sequence> {
        let before = std::mem::replace(&mut self.life, life);
        if before == life {
            return BTreeMap::new();
        }
        self.first.iter().map(|(shard, first)| (*shard, Sequence(first.0.saturating_sub(1)))).collect()
    }
}

impl Deref for Withheld {
    type Target = BTreeMap<RunId, VecDeque<WithheldEntry>>;

    fn deref(&self) -> &Self::Target {
        &self.runs
    }
}

impl DerefMut for Withheld {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.runs
    }
}

/// What an outbox wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this to the receiver.
    Send(replicate_response::Message),
    /// Read a page of a shard's log after this position; answer with [`Outbox::page`](super::Outbox::page).
    Read {
        /// For the answer.
        feed: Feed,
        /// Exclusive start.
        after: Sequence,
        /// Bytes to ask for.
        bytes: usize,
    },
    /// The receiver has proved these positions (E1).
    Proved(Vec<(ShardId, Sequence)>),
    /// These are the runs that the receiver could not apply, all of them (E1).
    Exceptions(BTreeMap<RunKey, String>),
    /// A stored row cannot be sent; its neighbours go on.
    Damaged(Damaged),
    /// The receiver has more of this shard than there is: was this store restored without a new incarnation (E2)? All of the
    /// shard is sent again.
    Ahead {
        /// Shard.
        shard: ShardId,
        /// What the receiver has proved.
        named: Sequence,
        /// Where it ends.
        end: Sequence,
    },
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The log is shorter than what was committed.
    #[error("log of {shard} ends at {through}, but {tip} is committed")]
    Short {
        /// Shard.
        shard: ShardId,
        /// Where reading ended.
        through: Sequence,
        /// What is committed.
        tip: Sequence,
    },
    /// The receiver opened twice.
    #[error("it opened an open stream")]
    OpenedTwice,
}

/// What happened, counted since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries sent.
    pub entries: u64,
    /// Bytes of entries sent.
    pub bytes: u64,
    /// Entries of held runs that were withheld.
    pub withheld: u64,
    /// Of the entries sent, those relayed for an origin that is down (C7).
    pub relayed: u64,
}
