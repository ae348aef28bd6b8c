//! Where a sender is in the log of one of its own shards, for one peer. Pure. Reading and announcing are two positions:
//! a page may hold nothing for this peer, and then the announcement waits for something to carry it, or for its turn.

use std::collections::VecDeque;

use antipode_core::ids::Sequence;

/// A range to announce: everything of the shard in (after, through] that is meant for the peer has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Exclusive start.
    pub after: Sequence,
    /// Inclusive end.
    pub through: Sequence,
}

/// The sender's place in one shard's log.
#[derive(Clone, Debug)]
pub struct Cursor {
    read: Sequence,
    announced: Sequence,
    /// Announced ends and the credit each took, oldest first.
    unacked: VecDeque<(Sequence, usize)>,
}

impl Cursor {
    /// At the position the receiver named (E2).
    #[must_use]
    pub fn new(at: Sequence) -> Self {
        Self { read: at, announced: at, unacked: VecDeque::new() }
    }

    /// Where to read from.
    #[must_use]
    pub fn position(&self) -> Sequence {
        self.read
    }

    /// A page through here was read.
    pub fn page(&mut self, through: Sequence) {
        self.read = self.read.max(through);
    }

    /// Whether something was read and is not announced.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.read > self.announced
    }

    /// Whether the peer should have heard of this position by now and has not.
    #[must_use]
    pub fn is_late_for(&self, wanted: Sequence) -> bool {
        self.owes() && self.announced < wanted
    }

    /// Announces all that was read, at this cost in credit.
    pub fn announce(&mut self, cost: usize) -> Announcement {
        let announcement = Announcement { after: self.announced, through: self.read };
        self.announced = self.read;
        self.unacked.push_back((self.announced, cost));
        announcement
    }

    /// The receiver has read through here; how much credit comes back.
    pub fn acknowledge(&mut self, flow: Sequence) -> usize {
        let mut freed = 0;
        while let Some(&(through, cost)) = self.unacked.front()
            && through <= flow
        {
            freed += cost;
            self.unacked.pop_front();
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seq(number: u64) -> Sequence {
        Sequence(number)
    }

    #[test]
    fn empty_pages_are_announced_with_the_next_full_one() {
        let mut cursor = Cursor::new(seq(4));
        cursor.page(seq(6));
        assert!(cursor.owes());
        assert!(cursor.is_late_for(seq(5)) && !cursor.is_late_for(seq(4)));
        cursor.page(seq(9));
        assert_eq!(cursor.announce(100), Announcement { after: seq(4), through: seq(9) });
        assert!(!cursor.owes());
        assert_eq!(cursor.acknowledge(seq(8)), 0);
        assert_eq!(cursor.acknowledge(seq(9)), 100);
        assert_eq!(cursor.acknowledge(seq(9)), 0);
    }

    proptest! {
        /// Goal: announcements tile the log without hole or overlap, and all credit comes back.
        #[test]
        fn announcements_tile_the_log(steps in prop::collection::vec((0u64..5, any::<bool>(), 0usize..100), 1..50)) {
            let mut cursor = Cursor::new(seq(0));
            let (mut end, mut spent, mut freed) = (0, 0, 0);
            for (length, announce, cost) in steps {
                cursor.page(seq(cursor.position().0 + length));
                if announce {
                    let range = cursor.announce(cost);
                    prop_assert_eq!(range.after, seq(end));
                    end = range.through.0;
                    spent += cost;
                }
                freed += cursor.acknowledge(seq(end / 2));
                prop_assert!(freed <= spent);
            }
            freed += cursor.acknowledge(seq(end));
            prop_assert_eq!(freed, spent);
        }
    }
}
