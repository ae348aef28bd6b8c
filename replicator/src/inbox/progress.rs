//! How far a receiver is with one source, and what of that it has said: trackers, acks, positions to store. Pure.

use std::collections::{BTreeMap, VecDeque};

use antipode_core::ids::{Nanos, RegionId, Sequence, ShardId, Timestamp};
use antipode_proto::link::{Position, Relayed, replicate_request::Ack};

use crate::proof::{Gap, RangeNumber, Tracker};

/// While entries are under way, acks go at most this often.
const ACK_DELAY: Nanos = Nanos::millis(5);
/// Positions are stored at most this often: a resend costs less than a commit (E3).
const STORE_DELAY: Nanos = Nanos::millis(200);

/// What is proved of a source, by its shard.
pub type Positions = BTreeMap<ShardId, Sequence>;

/// One log as one stream tells it: a shard of the source, either all of it that is meant for the receiver, or the part that
/// the source relays for another origin (C7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feed {
    /// Shard of the source.
    pub shard: ShardId,
    /// The origin that is relayed for; none: the source's own part.
    pub relay_of: Option<RegionId>,
}

impl Feed {
    /// The source's own part.
    #[must_use]
    pub fn own(shard: ShardId) -> Self {
        Self { shard, relay_of: None }
    }

    /// As on the wire, where 0 is the own part.
    #[must_use]
    pub fn of_wire(shard: u32, relay_of: u32) -> Self {
        Self { shard: ShardId(shard), relay_of: (relay_of != 0).then_some(RegionId(relay_of)) }
    }

    /// See [`Feed::of_wire`].
    #[must_use]
    pub fn relay_to_wire(self) -> u32 {
        self.relay_of.map_or(0, |region| region.0)
    }
}

/// Flow and proof of one feed, and how many late entries are proved.
type Said = (Sequence, Sequence, u64);

/// Progress of all feeds of one stream.
#[derive(Debug, Default)]
pub(super) struct Progress {
    trackers: BTreeMap<Feed, Tracker>,
    acked: BTreeMap<Feed, Said>,
    published: BTreeMap<Feed, Sequence>,
    stored: Positions,
    /// When ranges were sent, by their end.
    sent: BTreeMap<Feed, VecDeque<(Sequence, i64)>>,
    ack_last: Option<Timestamp>,
    ack_due: Option<Timestamp>,
    store_due: Option<Timestamp>,
}

impl Progress {
    pub(super) fn new(positions: &Positions) -> Self {
        let trackers = positions.iter().map(|(shard, at)| (Feed::own(*shard), Tracker::new(*at)));
        let published = positions.iter().map(|(shard, at)| (Feed::own(*shard), *at));
        Self {
            trackers: trackers.collect(),
            published: published.collect(),
            stored: positions.clone(),
            ..Self::default()
        }
    }

    pub(super) fn announce(
        &mut self,
        feed: Feed,
        after: Sequence,
        through: Sequence,
        entries: usize,
        sent_at: i64,
    ) -> Result<RangeNumber, Gap> {
        let tracker = self.trackers.entry(feed).or_insert_with(|| Tracker::new(Sequence(0)));
        let range = tracker.announce(after, through, entries)?;
        self.sent.entry(feed).or_default().push_back((through, sent_at));
        Ok(range)
    }

    pub(super) fn prove(&mut self, feed: Feed, range: RangeNumber, holds_credit: bool) {
        if let Some(tracker) = self.trackers.get_mut(&feed) {
            if holds_credit {
                tracker.prove(range);
            } else {
                tracker.prove_aside(range);
            }
        }
    }

    pub(super) fn put_aside(&mut self, feed: Feed, range: RangeNumber) {
        if let Some(tracker) = self.trackers.get_mut(&feed) {
            tracker.put_aside(range);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.trackers.values().all(|tracker| tracker.outstanding() == 0)
    }

    /// Entries that are not proved.
    pub(super) fn outstanding(&self) -> usize {
        self.trackers.values().map(Tracker::outstanding).sum()
    }

    /// Everything proved of the source's own part.
    pub(super) fn positions(&self) -> Positions {
        let own = self.trackers.iter().filter(|(feed, _)| feed.relay_of.is_none());
        own.map(|(feed, tracker)| (feed.shard, tracker.proof())).collect()
    }

    fn has_moved(&self) -> bool {
        self.trackers.iter().any(|(feed, tracker)| self.acked.get(feed) != Some(&said(tracker)))
    }

    fn has_proved(&self) -> bool {
        self.trackers
            .iter()
            .any(|(feed, tracker)| self.published.get(feed).copied().unwrap_or_default() != tracker.proof())
    }

    /// Whether it is time to say something: at once when nothing is under way or `urgent` news wait, else by the clock.
    pub(super) fn is_due(&mut self, now: Timestamp, urgent: bool, paused: bool) -> bool {
        let news = self.has_proved() || (!paused && (urgent || self.has_moved()));
        if !news {
            self.ack_due = None;
            return false;
        }
        if self.is_idle() || (urgent && !paused) {
            return true;
        }
        let due = self.ack_last.map_or(now, |last| last.plus(ACK_DELAY));
        self.ack_due = Some(due);
        due <= now
    }

    /// What moved since the last ack, as positions and relayed positions; counts as said.
    pub(super) fn say(&mut self, ack: &mut Ack) {
        for (feed, tracker) in &self.trackers {
            let (flow, proof, late) = said(tracker);
            let before = self.acked.insert(*feed, (flow, proof, late));
            if before == Some((flow, proof, late)) {
                continue;
            }
            if let Some(origin) = feed.relay_of {
                let relayed = Relayed { origin: origin.0, shard: feed.shard.0, flow: flow.0, proof: proof.0 };
                ack.relayed.push(relayed);
                continue;
            }
            if before.is_none_or(|before| before.0 != flow) {
                ack.flow.push(Position { shard: feed.shard.0, sequence: flow.0 });
            }
            if before.is_none_or(|before| before.1 != proof) {
                ack.proof.push(Position { shard: feed.shard.0, sequence: proof.0 });
            }
            if late != before.map_or(0, |before| before.2) {
                ack.late.push(Position { shard: feed.shard.0, sequence: late });
            }
        }
    }

    /// Proofs that moved since this was asked last, and how long each range took from its sender to here.
    pub(super) fn publish(&mut self, now: Timestamp) -> (Vec<(Feed, Sequence)>, Vec<Nanos>) {
        self.ack_last = Some(now);
        self.ack_due = None;
        let (mut moved, mut took) = (Vec::new(), Vec::new());
        for (feed, tracker) in &self.trackers {
            let proof = tracker.proof();
            if self.published.insert(*feed, proof).unwrap_or_default() == proof {
                continue;
            }
            moved.push((*feed, proof));
            let Some(sent) = self.sent.get_mut(feed) else { continue };
            while let Some(&(through, at)) = sent.front()
                && through <= proof
            {
                took.push(Nanos(now.0.saturating_sub(at).max(0)));
                sent.pop_front();
            }
        }
        if self.store_due.is_none() && moved.iter().any(|(feed, _)| feed.relay_of.is_none()) {
            self.store_due = Some(now.plus(STORE_DELAY));
        }
        (moved, took)
    }

    /// Positions to store, when it is time: behind the data they stand for, in the same database (E2).
    pub(super) fn take_due_positions(&mut self, now: Timestamp) -> Positions {
        if self.store_due.is_none_or(|due| due > now) {
            return Positions::new();
        }
        self.store_due = None;
        let positions = self.positions();
        let moved = positions.into_iter().filter(|(shard, at)| self.stored.get(shard) != Some(at));
        let moved: Positions = moved.collect();
        self.stored.extend(moved.iter().map(|(shard, at)| (*shard, *at)));
        moved
    }

    /// The last positions were not stored: all are to be stored again.
    pub(super) fn not_stored(&mut self, now: Timestamp) {
        self.stored.clear();
        self.store_due = Some(now.plus(STORE_DELAY));
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.ack_due.into_iter().chain(self.store_due).min()
    }
}

fn said(tracker: &Tracker) -> Said {
    (tracker.flow(), tracker.proof(), tracker.late())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_proved_aside_frees_no_credit_but_its_own() {
        // E1: of two entries of a range one was put aside and is proved; the other still holds the sender's credit.
        let feed = Feed::own(ShardId(1));
        let mut progress = Progress::new(&Positions::new());
        let range = progress.announce(feed, Sequence(0), Sequence(5), 2, 0).unwrap();
        progress.put_aside(feed, range);
        progress.prove(feed, range, false);
        assert_eq!(said(&progress.trackers[&feed]), (Sequence(0), Sequence(0), 0));
        progress.prove(feed, range, true);
        assert_eq!(said(&progress.trackers[&feed]), (Sequence(5), Sequence(5), 0));
    }

    #[test]
    fn acks_are_held_together_while_entries_are_under_way() {
        let feed = Feed::own(ShardId(1));
        let mut progress = Progress::new(&Positions::new());
        let now = Timestamp(0);
        let range = progress.announce(feed, Sequence(0), Sequence(5), 1, 0).unwrap();
        let other = progress.announce(feed, Sequence(5), Sequence(6), 1, 0).unwrap();
        progress.publish(now);
        progress.prove(feed, range, true);
        assert!(!progress.is_due(now, false, false), "the last one was just now");
        assert_eq!(progress.next_wake(), Some(now.plus(ACK_DELAY)));
        assert!(progress.is_due(now.plus(ACK_DELAY), false, false));
        assert!(progress.is_due(now, true, false), "urgent news do not wait");
        progress.prove(feed, other, true);
        assert!(progress.is_due(now, false, false), "nothing is under way any more");
    }
}
