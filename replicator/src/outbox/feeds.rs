//! The feeds of an outbox: where each is in its shard's log, what it has read and not announced, and whose turn it is when
//! credit comes back.

use antipode_core::ids::{Nanos, RegionId, RunId, RunKey, Sequence, Timestamp};
use antipode_persistence::rows::LogPage;

use super::{
    Outbox,
    io::{Broken, Cx, Output},
};
use crate::{
    cursor::Cursor,
    inbox::Feed,
    selection::{self, Audience, KnownStates, Selected, StateHash},
};

/// Bytes of log that one read asks for.
const PAGE_BYTES: usize = 256 << 10;
/// How long the announcement of a range without entries for the peer waits for one that has some, when nobody wants it.
const EMPTY_DELAY: Nanos = Nanos::millis(250);
/// What an announcement costs in credit beside its entries.
const ANNOUNCEMENT_BYTES: usize = 64;

/// One feed as it goes out.
#[derive(Debug)]
pub(super) struct Sending {
    cursor: Cursor,
    reading: bool,
    /// Read, and waiting for credit.
    ready: Option<Vec<Selected>>,
    /// When what was read and holds nothing for the peer is announced at the latest.
    due: Option<Timestamp>,
}

impl Sending {
    pub(super) fn new(at: Sequence) -> Self {
        Self { cursor: Cursor::new(at), reading: false, ready: None, due: None }
    }

    pub(super) fn position(&self) -> Sequence {
        self.cursor.position()
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due.filter(|_| self.ready.is_none() && !self.reading)
    }

    /// What all that is ready costs. An entry larger than all credit goes alone.
    fn cost(&self) -> usize {
        let bytes: usize = self.ready.iter().flatten().map(|selected| selected.size).sum();
        (bytes + ANNOUNCEMENT_BYTES).min(super::CREDIT_BYTES)
    }
}

impl Outbox {
    /// Goes on with every feed that can.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        let feeds: Vec<Feed> = self.feeds.keys().copied().collect();
        for feed in feeds {
            self.advance(cx.now, feed);
        }
        self.announce_waiting(cx);
    }

    fn advance(&mut self, now: Timestamp, feed: Feed) {
        let is_relayed = feed.relay_of.is_none_or(|origin| self.down.contains_key(&origin));
        let tip = self.tips.get(&feed.shard).copied().unwrap_or_default();
        let wanted = self.wanted.get(&feed.shard).copied().unwrap_or_default();
        let Some(sending) = self.feeds.get_mut(&feed) else { return };
        if sending.reading || sending.ready.is_some() {
            return;
        }
        if tip > sending.cursor.position() && is_relayed {
            sending.reading = true;
            let after = sending.cursor.position();
            self.outputs.push(Output::Read { feed, after, bytes: PAGE_BYTES });
            return;
        }
        if !sending.cursor.owes() {
            sending.due = None;
            return;
        }
        // Nothing for the peer in what was read: its announcement may wait, but not a barrier's (F2).
        let due = *sending.due.get_or_insert(now.plus(EMPTY_DELAY));
        if due <= now || sending.cursor.is_late_for(wanted) {
            sending.ready = Some(Vec::new());
            self.waiting.push_back(feed);
        }
    }

    pub(super) fn take_page(&mut self, cx: &Cx<'_>, feed: Feed, page: &LogPage) -> Result<(), Broken> {
        let tip = self.tips.get(&feed.shard).copied().unwrap_or_default();
        let selected = self.select(cx, feed, page);
        let Some(sending) = self.feeds.get_mut(&feed) else { return Ok(()) };
        if page.through <= sending.cursor.position() {
            return Err(Broken::Short { shard: feed.shard, through: page.through, tip });
        }
        sending.reading = false;
        sending.cursor.page(page.through);
        if !selected.is_empty() {
            sending.ready = Some(selected);
            self.waiting.push_back(feed);
        }
        Ok(())
    }

    fn select(&mut self, cx: &Cx<'_>, feed: Feed, page: &LogPage) -> Vec<Selected> {
        let mut sent = std::mem::replace(&mut self.sent_states, KnownStates::new(0));
        let main = Audience {
            here: RegionId(self.setup.info.initial_version),
            peer: self.setup.peer_id,
            life: self.life,
            linked: cx.linked.clone(),
        };
        let travels = |run: &RunKey| self.travels(cx, run);
        let (mut selected, damaged) = match feed.relay_of {
            None => {
                // What stood in the log when the stream opened is sent also if it was received: the peer may have lost it (E2).
                let end = self.setup.ends.get(&feed.shard).copied().unwrap_or_default();
                let is_new = page.through > end;
                let knows = |run: RunId, state: StateHash| {
                    (is_new && cx.received.is(run, state)) || sent.knows(run, state)
                };
                selection::select(page, |batch| main.wants(batch), travels, knows)
            }
            Some(origin) => {
                let lacks = self.down.get(&origin);
                let relayed =
                    |batch: &_| !main.wants(batch) && lacks.is_some_and(|vector| vector.lacks(origin, batch));
                // Also states that were received: the receiver may not have got them from the origin (A2).
                selection::select(page, relayed, travels, |run, state| sent.knows(run, state))
            }
        };
        if !self.reads_tombstones || feed.relay_of.is_some() {
            selected.retain(|selected| !selected.is_tombstone());
        }
        self.sent_states = sent;
        self.outputs.extend(damaged.into_iter().map(Output::Damaged));
        selected
    }

    /// The receiver has read a feed up to here.
    pub(super) fn give_back(&mut self, feed: Feed, flow: Sequence) {
        if let Some(sending) = self.feeds.get_mut(&feed) {
            self.credit += sending.cursor.acknowledge(flow);
        }
    }

    /// Announces what waits, in order of arrival, while there is credit. What is announced makes room for the next page.
    fn announce_waiting(&mut self, cx: &mut Cx<'_>) {
        while let Some(&feed) = self.waiting.front() {
            let Some(sending) = self.feeds.get_mut(&feed) else { break };
            let cost = sending.cost();
            if cost > self.credit {
                break;
            }
            self.waiting.pop_front();
            self.credit -= cost;
            let selected = sending.ready.take().unwrap_or_default();
            sending.due = None;
            let range = sending.cursor.announce(cost);
            self.counts.bytes += selected.iter().map(|selected| selected.size as u64).sum::<u64>();
            let entries = self.withhold(cx, feed, selected);
            self.send_entries(cx.now, feed, range, entries);
            self.advance(cx.now, feed);
        }
    }
}
