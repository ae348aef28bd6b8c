//! How far a receiver is: per source shard the contiguous position below which everything is durably applied, already
//! known, or a named exception (E1, E3). Pure. Entries finish in any order; the watermark moves over whole ranges only,
//! because a range is what the sender announced: "everything in (after, through] is here" (C1).

use std::collections::{BTreeMap, VecDeque};

use antipode_core::ids::{RunKey, Sequence};

/// The sender announced a range that does not follow what it announced before: something is missing between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entries after {after} announced, but everything is known only through {known}")]
pub struct Gap {
    /// Start of the range.
    pub after: Sequence,
    /// End of what was announced before.
    pub known: Sequence,
}

/// One announced range.
#[derive(Clone, Debug)]
struct Range {
    through: Sequence,
    /// Entries that still take part in the fast path: they hold the sender's credit.
    unread: usize,
    /// Entries not yet durable, known or excepted.
    unproved: usize,
    /// Entries of a late message.
    late: u64,
}

/// Names a range of one tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeNumber(u64);

/// Progress of one source shard.
#[derive(Clone, Debug)]
pub struct Tracker {
    proof: Sequence,
    flow: Sequence,
    announced: Sequence,
    first: u64,
    ranges: VecDeque<Range>,
    outstanding: usize,
    late: u64,
}

impl Tracker {
    /// From the position that is already proved.
    #[must_use]
    pub fn new(proof: Sequence) -> Self {
        let ranges = VecDeque::new();
        Self { proof, flow: proof, announced: proof, first: 0, ranges, outstanding: 0, late: 0 }
    }

    /// Takes in an announced range with so many entries. A range below the position (a resend, or entries that were
    /// withheld) is tracked like any other and moves nothing back.
    ///
    /// # Errors
    /// [`Gap`]: the stream must start again from the proof.
    pub fn announce(
        &mut self,
        after: Sequence,
        through: Sequence,
        entries: usize,
    ) -> Result<RangeNumber, Gap> {
        if after > self.announced {
            return Err(Gap { after, known: self.announced });
        }
        self.announced = self.announced.max(through);
        let number = RangeNumber(self.first + self.ranges.len() as u64);
        // A late range ends with what was announced before it: proving it claims nothing new.
        let late = if through == Sequence(0) { entries as u64 } else { 0 };
        self.ranges.push_back(Range { through: self.announced, unread: entries, unproved: entries, late });
        self.outstanding += entries;
        self.settle();
        Ok(number)
    }

    fn range(&mut self, number: RangeNumber) -> Option<&mut Range> {
        let index = usize::try_from(number.0.checked_sub(self.first)?).ok()?;
        self.ranges.get_mut(index)
    }

    /// One entry of the range is durably applied, already known, or a named exception.
    pub fn prove(&mut self, number: RangeNumber) {
        if let Some(range) = self.range(number) {
            range.unread = range.unread.saturating_sub(1);
            range.unproved = range.unproved.saturating_sub(1);
            self.outstanding = self.outstanding.saturating_sub(1);
            self.settle();
        }
    }

    /// One entry of the range was put aside: it no longer holds the sender's credit, and is not proved.
    pub fn put_aside(&mut self, number: RangeNumber) {
        if let Some(range) = self.range(number) {
            range.unread = range.unread.saturating_sub(1);
            self.settle();
        }
    }

    /// An entry that was put aside is proved.
    pub fn prove_aside(&mut self, number: RangeNumber) {
        if let Some(range) = self.range(number) {
            range.unproved = range.unproved.saturating_sub(1);
            self.outstanding = self.outstanding.saturating_sub(1);
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(range) = self.ranges.front()
            && range.unproved == 0
        {
            self.proof = self.proof.max(range.through);
            self.late += range.late;
            self.ranges.pop_front();
            self.first += 1;
        }
        self.flow = self.flow.max(self.proof);
        for range in self.ranges.iter().take_while(|range| range.unread == 0) {
            self.flow = self.flow.max(range.through);
        }
    }

    /// Everything up to here is durable, known or excepted (E1).
    #[must_use]
    pub fn proof(&self) -> Sequence {
        self.proof
    }

    /// Everything up to here has been read and gives its credit back.
    #[must_use]
    pub fn flow(&self) -> Sequence {
        self.flow
    }

    /// Late entries that are proved: such an entry is in no range that is announced now, so the proof says nothing of it.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Entries that are not proved.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }
}

/// Why a run is an exception, and how many entries came after the first that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// In words.
    pub reason: String,
    /// Entries that were not kept: a replay fetches them.
    pub behind: u64,
}

/// Runs that could not be applied: they count as loss until they are mended (E1).
#[derive(Clone, Debug)]
pub struct Exceptions {
    runs: BTreeMap<RunKey, Exception>,
    limit: usize,
}

/// Too many exceptions: the watermark must stop here (E1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} runs are quarantined; nothing more is acknowledged until some are mended")]
pub struct Full(pub usize);

impl Exceptions {
    /// With room for so many runs.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { runs: BTreeMap::new(), limit }
    }

    /// Adds a run, or marks one that is there as further behind; whether it is new.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(&mut self, key: &RunKey, reason: &str, behind: u64) -> Result<bool, Full> {
        if let Some(known) = self.runs.get_mut(key) {
            known.behind += 1;
            return Ok(false);
        }
        if self.runs.len() >= self.limit {
            return Err(Full(self.limit));
        }
        self.runs.insert(key.clone(), Exception { reason: reason.to_string(), behind });
        Ok(true)
    }

    /// Takes a mended run out.
    pub fn remove(&mut self, key: &RunKey) -> bool {
        self.runs.remove(key).is_some()
    }

    /// Whether this run is one.
    #[must_use]
    pub fn get(&self, key: &RunKey) -> Option<&Exception> {
        self.runs.get(key)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&RunKey, &Exception)> {
        self.runs.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use antipode_core::ids::{NamespaceId, RunId, WorkflowId};
    use proptest::prelude::*;

    use super::*;

    fn seq(number: u64) -> Sequence {
        Sequence(number)
    }

    #[test]
    fn the_watermark_waits_for_the_oldest_range() {
        let mut tracker = Tracker::new(seq(10));
        let first = tracker.announce(seq(10), seq(14), 2).unwrap();
        let second = tracker.announce(seq(14), seq(20), 1).unwrap();
        tracker.prove(second);
        assert_eq!((tracker.proof(), tracker.flow()), (seq(10), seq(10)));
        tracker.prove(first);
        assert_eq!(tracker.proof(), seq(10));
        tracker.prove(first);
        assert_eq!((tracker.proof(), tracker.flow()), (seq(20), seq(20)));
        assert_eq!(tracker.outstanding(), 0);
    }

    #[test]
    fn an_entry_put_aside_gives_credit_back_and_holds_the_proof() {
        let mut tracker = Tracker::new(seq(0));
        let range = tracker.announce(seq(0), seq(5), 2).unwrap();
        tracker.prove(range);
        tracker.put_aside(range);
        assert_eq!((tracker.proof(), tracker.flow()), (seq(0), seq(5)));
        tracker.prove_aside(range);
        assert_eq!(tracker.proof(), seq(5));
    }

    #[test]
    fn a_hole_between_ranges_is_refused() {
        let mut tracker = Tracker::new(seq(5));
        assert_eq!(tracker.announce(seq(6), seq(9), 0), Err(Gap { after: seq(6), known: seq(5) }));
        assert!(tracker.announce(seq(2), seq(7), 0).is_ok());
        assert_eq!(tracker.proof(), seq(7));
    }

    #[test]
    fn a_late_range_moves_nothing_back_or_forward() {
        let mut tracker = Tracker::new(seq(0));
        tracker.announce(seq(0), seq(9), 0).unwrap();
        let late = tracker.announce(seq(3), seq(4), 1).unwrap();
        assert_eq!(tracker.proof(), seq(9));
        tracker.prove(late);
        assert_eq!(tracker.proof(), seq(9));
    }

    #[test]
    fn exceptions_are_capped() {
        let key = |number| RunKey {
            namespace: NamespaceId::from_random([1; 16]),
            workflow: WorkflowId::from("w"),
            run: RunId::from_random([number; 16]),
        };
        let mut exceptions = Exceptions::new(1);
        assert_eq!(exceptions.add(&key(1), "broken", 0), Ok(true));
        assert_eq!(exceptions.add(&key(1), "broken", 0), Ok(false));
        assert_eq!(exceptions.get(&key(1)).map(|exception| exception.behind), Some(1));
        assert_eq!(exceptions.add(&key(2), "broken", 0), Err(Full(1)));
        assert!(exceptions.remove(&key(1)));
        assert_eq!(exceptions.add(&key(2), "broken", 0), Ok(true));
    }

    /// What a test does to a tracker; selectors shrink well.
    #[derive(Clone, Debug)]
    enum Action {
        Announce { length: u64, back: u64, entries: usize },
        Prove(prop::sample::Index),
        PutAside(prop::sample::Index),
        ProveAside(prop::sample::Index),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (0u64..5, 0u64..4, 0usize..4).prop_map(|(length, back, entries)| Action::Announce {
                length,
                back,
                entries
            }),
            any::<prop::sample::Index>().prop_map(Action::Prove),
            any::<prop::sample::Index>().prop_map(Action::PutAside),
            any::<prop::sample::Index>().prop_map(Action::ProveAside),
        ]
    }

    /// An entry as the model knows it: its range, how far the announcements reached before that, and its state.
    struct Entry {
        range: RangeNumber,
        before: u64,
        proved: bool,
        aside: bool,
    }

    proptest! {
        /// Goal: the proof never passes an entry that is not proved, never goes back, and reaches the end when all are.
        #[test]
        fn the_proof_never_passes_an_unproved_entry(actions in prop::collection::vec(action(), 1..60)) {
            let mut tracker = Tracker::new(seq(0));
            let mut entries: Vec<Entry> = Vec::new();
            let mut end = 0_u64;
            let mut last = seq(0);
            for action in actions {
                match action {
                    Action::Announce { length, back, entries: count } => {
                        let after = end.saturating_sub(back);
                        let through = after + length;
                        let before = end;
                        end = end.max(through);
                        let range = tracker.announce(seq(after), seq(through), count).unwrap();
                        entries.extend((0..count).map(|_| Entry { range, before, proved: false, aside: false }));
                    }
                    Action::Prove(index) => {
                        let open: Vec<_> = entries.iter_mut().filter(|e| !e.proved && !e.aside).collect();
                        if !open.is_empty() {
                            let chosen = index.index(open.len());
                            let entry = open.into_iter().nth(chosen).unwrap();
                            entry.proved = true;
                            tracker.prove(entry.range);
                        }
                    }
                    Action::PutAside(index) => {
                        let open: Vec<_> = entries.iter_mut().filter(|e| !e.proved && !e.aside).collect();
                        if !open.is_empty() {
                            let chosen = index.index(open.len());
                            let entry = open.into_iter().nth(chosen).unwrap();
                            entry.aside = true;
                            tracker.put_aside(entry.range);
                        }
                    }
                    Action::ProveAside(index) => {
                        let open: Vec<_> = entries.iter_mut().filter(|e| !e.proved && e.aside).collect();
                        if !open.is_empty() {
                            let chosen = index.index(open.len());
                            let entry = open.into_iter().nth(chosen).unwrap();
                            entry.proved = true;
                            tracker.prove_aside(entry.range);
                        }
                    }
                }
                prop_assert!(tracker.proof() >= last, "the proof went back");
                prop_assert!(tracker.flow() >= tracker.proof());
                prop_assert!(tracker.proof() <= seq(end));
                last = tracker.proof();
                prop_assert_eq!(tracker.outstanding(), entries.iter().filter(|e| !e.proved).count());
                for entry in entries.iter().filter(|e| !e.proved) {
                    prop_assert!(tracker.proof() <= seq(entry.before), "the proof passed an unproved entry");
                }
            }
            for entry in &entries {
                match (entry.proved, entry.aside) {
                    (true, _) => {}
                    (false, true) => tracker.prove_aside(entry.range),
                    (false, false) => tracker.prove(entry.range),
                }
            }
            prop_assert_eq!(tracker.proof(), seq(end));
            prop_assert_eq!(tracker.flow(), seq(end));
        }
    }
}
