//! What this node knows of one peer: how far each has proved the other's log, which runs are exceptions, what was withheld.
//! Soft state: the receiver's stored positions are the truth (E2), and each new stream begins by naming them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use antipode_core::ids::{Incarnation, NamespaceId, RegionId, RunKey, Sequence, ShardId};
use antipode_proto::link::RegionInfo;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{clocks::Skew, inbox::Positions, outbox::Withheld, proof::Exceptions};

/// Quarantined runs of one source before its watermark stops (E1).
pub(crate) const EXCEPTIONS_MAX: usize = 10_000;

/// Everything known of one peer.
#[derive(Debug)]
pub(crate) struct Known {
    /// What it said at its last handshake.
    pub(crate) info: Option<RegionInfo>,
    /// How far its clock was from ours when that was last measured; for display: a hand-over measures afresh.
    pub(crate) skew: Option<Skew>,
    /// Streams of ours to it that are open: one, or for a moment two when it dialled again.
    pub(crate) senders: usize,
    /// A stream of its entries to us is open.
    pub(crate) receiving: bool,
    /// Our shards, as far as it has proved them.
    pub(crate) proof_by_peer: BTreeMap<ShardId, Sequence>,
    /// Life of its store under which `proof_of_peer` holds.
    pub(crate) incarnation: Option<Incarnation>,
    /// Its shards, as far as we have proved them.
    pub(crate) proof_of_peer: BTreeMap<ShardId, Sequence>,
    /// Where its log ended when the first stream since our start opened, in its present life.
    pub(crate) ended: Option<BTreeMap<ShardId, Sequence>>,
    /// What it relayed on its open stream for origins that are down, as far as we have proved it, by its shard (C7).
    pub(crate) relayed: BTreeMap<RegionId, Positions>,
    /// Runs of ours that it could not apply.
    pub(crate) exceptions_there: BTreeMap<RunKey, String>,
    /// Its runs that we could not apply.
    pub(crate) exceptions_here: Exceptions,
    /// Entries of held runs, by run.
    pub(crate) withheld: Withheld,
    /// Why the last stream ended, or did not open.
    pub(crate) last_error: String,
}

/// [`Known`], shared by the tasks of a peer.
#[derive(Debug)]
pub(crate) struct PeerState {
    known: Mutex<Known>,
    changed: watch::Sender<u64>,
    /// Positions of our shards that somebody waits for the peer to prove.
    wanted: watch::Sender<BTreeMap<ShardId, Sequence>>,
    /// Ends the stream to the peer that is open; a new one replaces it.
    stream: Mutex<CancellationToken>,
}

impl PeerState {
    pub(crate) fn new() -> Self {
        let known = Known {
            info: None,
            skew: None,
            senders: 0,
            receiving: false,
            proof_by_peer: BTreeMap::new(),
            incarnation: None,
            proof_of_peer: BTreeMap::new(),
            ended: None,
            relayed: BTreeMap::new(),
            exceptions_there: BTreeMap::new(),
            exceptions_here: Exceptions::new(EXCEPTIONS_MAX),
            withheld: Withheld::new(),
            last_error: String::new(),
        };
        Self {
            known: Mutex::new(known),
            changed: watch::Sender::new(0),
            wanted: watch::Sender::default(),
            stream: Mutex::default(),
        }
    }

    /// To read.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change: whoever waits looks again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let result = change(&mut self.known());
        self.touch();
        result
    }

    /// Whoever waits looks again.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Somebody waits for the peer to prove these positions of our shards: they are announced without delay.
    pub(crate) fn want(&self, positions: &BTreeMap<ShardId, Sequence>) {
        self.wanted.send_modify(|wanted| {
            for (shard, position) in positions {
                let known = wanted.entry(*shard).or_default();
                *known = (*known).max(*position);
            }
        });
    }

    /// See [`PeerState::want`].
    pub(crate) fn wanted(&self) -> watch::Receiver<BTreeMap<ShardId, Sequence>> {
        self.wanted.subscribe()
    }

    /// Ends the stream that was open before this one.
    pub(crate) fn replace_stream(&self, stream: CancellationToken) {
        let mut open = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *open, stream).cancel();
    }

    /// Moves with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Known {
    /// Shards whose barrier the peer has not proved yet (E1, F2).
    pub(crate) fn behind(&self, barriers: &BTreeMap<ShardId, Sequence>) -> BTreeSet<ShardId> {
        let proved = |shard| self.proof_by_peer.get(shard).copied().unwrap_or_default();
        barriers
            .iter()
            .filter(|(shard, barrier)| proved(shard) < **barrier)
            .map(|(shard, _)| *shard)
            .collect()
    }

    /// Runs of a namespace that the peer lacks although its proof has passed them: quarantined there, or withheld here.
    pub(crate) fn exceptions_of(&self, namespace: NamespaceId) -> BTreeMap<RunKey, String> {
        let there = self.exceptions_there.iter().map(|(run, why)| (run.clone(), why.clone()));
        let held =
            self.withheld.values().flatten().map(|entry| (entry.run.clone(), "held back here".to_string()));
        held.chain(there).filter(|(run, _)| run.namespace == namespace).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use antipode_core::ids::{RunId, WorkflowId};
    use antipode_proto::link;

    use super::*;
    use crate::{inbox::Feed, outbox::WithheldEntry};

    #[test]
    fn a_barrier_is_proved_by_every_shard_or_not_at_all() {
        let state = PeerState::new();
        let shard = ShardId;
        state.change(|known| {
            known.proof_by_peer = BTreeMap::from([(shard(1), Sequence(9)), (shard(2), Sequence(3))]);
        });
        let barriers =
            BTreeMap::from([(shard(1), Sequence(9)), (shard(2), Sequence(4)), (shard(3), Sequence(1))]);
        assert_eq!(state.known().behind(&barriers), BTreeSet::from([shard(2), shard(3)]));
    }

    #[test]
    fn exceptions_are_told_apart_by_namespace() {
        let key = |namespace: u8, run: u8| RunKey {
            namespace: NamespaceId::from_random([namespace; 16]),
            workflow: WorkflowId::from("w"),
            run: RunId::from_random([run; 16]),
        };
        let state = PeerState::new();
        state.change(|known| {
            known.exceptions_there.insert(key(1, 1), "broken".to_string());
            known.exceptions_there.insert(key(2, 2), "broken".to_string());
            let feed = Feed::own(ShardId(1));
            let held = WithheldEntry { feed, run: key(1, 3), entry: link::Entry::default(), sent: false };
            known.withheld.insert(key(1, 3).run, VecDeque::from([held]));
        });
        let exceptions = state.known().exceptions_of(key(1, 0).namespace);
        assert_eq!(exceptions.into_keys().collect::<Vec<_>>(), [key(1, 1), key(1, 3)]);
    }
}
