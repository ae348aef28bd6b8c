//! Which entries of this region's log travel to a peer, and in which order within a page. Pure.
//!
//! A batch travels from the region that first committed it (its origin). What arrived from another region is not sent on,
//! as long as that region is linked here and so speaks for itself; batches of regions that are gone are sent by everybody
//! who has them, because resending is always safe (V19). A region that was restored from a backup gets back what it wrote in
//! an earlier life and lost (E2). A peer that gets nothing from an origin now says so, with what it
//! has of it; the rest is relayed from here (C7).
//!
//! Of a run that was deleted after its retention its tombstone is told. The row has kept its place in the log, so that only a peer
//! that reads the log again comes by it: one that was restored to a time when the run was there (C6, E2).
//!
//! Registers and pending events travel as the state of a run as of now (C1). A state that is byte-equal to one received
//! from another region is not sent on, for the same reason, unless it holds what this region wrote itself: a restored one
//! is told its own past by one peer and tells the others. A state that a merge changed is sent to all. Merging is
//! idempotent, so the exchange ends when all regions hold the union (A1, A2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antipode_core::{
    batch::{Batch, Envelope},
    ids::{FailoverVersion, Incarnation, RegionId, RunId, RunKey, Sequence, ShardId},
    run::lost_tips,
    sum,
    version::Increment,
};
use antipode_persistence::rows::{LogEntry, LogPage, RunRow};
use antipode_proto::{core as wire, link};
use prost::Message;

/// What a stored run row could not tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored head of run {run} does not decode: {why}")]
pub struct Damaged {
    /// Run.
    pub run: RunKey,
    /// The decoder's words.
    pub why: String,
}

/// The peer that a selection is for.
#[derive(Clone, Debug)]
pub struct Audience {
    /// The sending region.
    pub here: RegionId,
    /// The receiving region.
    pub peer: RegionId,
    /// The present life of its store. What it wrote in another life comes back to it: it may be restored from a backup that
    /// lacks it (E2).
    pub life: Incarnation,
    /// Regions that are linked to this one and send what is theirs.
    pub linked: BTreeSet<RegionId>,
}

impl Audience {
    /// Does this region send a batch to that peer?
    #[must_use]
    pub fn wants(&self, envelope: &Envelope) -> bool {
        let origin = envelope.origin.region;
        if origin == self.peer {
            return envelope.origin.incarnation != self.life;
        }
        origin == self.here || !self.linked.contains(&origin)
    }
}

/// What a receiver has of one origin's log (C7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector {
    incarnation: Incarnation,
    proved: BTreeMap<ShardId, Sequence>,
}

impl Vector {
    /// As the receiver says it.
    #[must_use]
    pub fn of_wire(origin: &link::DownOrigin) -> Self {
        let position = |at: &link::Position| (ShardId(at.shard), Sequence(at.sequence));
        Self {
            incarnation: Incarnation(origin.incarnation),
            proved: origin.proved.iter().map(position).collect(),
        }
    }

    /// As it is told to those who may relay.
    #[must_use]
    pub fn to_wire(
        region: RegionId,
        incarnation: Option<Incarnation>,
        proved: &BTreeMap<ShardId, Sequence>,
    ) -> link::DownOrigin {
        let position = |(shard, at): (&ShardId, &Sequence)| link::Position { shard: shard.0, sequence: at.0 };
        link::DownOrigin {
            region: region.0,
            incarnation: incarnation.unwrap_or_default().0,
            proved: proved.iter().map(position).collect(),
        }
    }

    /// Life of the origin's store.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Positions, by shard of the origin.
    #[must_use]
    pub fn proved(&self) -> &BTreeMap<ShardId, Sequence> {
        &self.proved
    }

    /// Whether the receiver may lack a batch: it is of this origin, and beyond what is proved of it there.
    #[must_use]
    pub fn lacks(&self, origin: RegionId, batch: &Envelope) -> bool {
        let from = &batch.origin;
        let proved = self.proved.get(&from.shard).copied().unwrap_or_default();
        from.region == origin && (from.incarnation != self.incarnation || from.sequence > proved)
    }
}

/// Registers and pending events of a run, compared by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateHash([u8; 16]);

impl StateHash {
    /// Of a state; the order of its elements does not count, and neither does the branch it was sent from.
    #[must_use]
    pub fn of(state: &wire::RunState) -> Self {
        let registers = state.registers.iter().map(|register| (1_u8, register.encode_to_vec()));
        let pending = state.pending.iter().map(|event| (2_u8, event.encode_to_vec()));
        let verdicts = state.verdicts.iter().map(|verdict| (3_u8, verdict.encode_to_vec()));
        let tombstone = state.tombstone.iter().map(|head| (4_u8, head.encode_to_vec()));
        let back = state.came_back.then(|| (5_u8, state.lost_tips.concat()));
        let mut elements: Vec<_> =
            registers.chain(pending).chain(verdicts).chain(tombstone).chain(back).collect();
        elements.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for (kind, bytes) in &elements {
            hasher.update(&[*kind]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(hash)
    }
}

/// The last known states of some runs. Bounded: forgetting one costs a needless send, nothing else.
#[derive(Debug)]
pub struct KnownStates {
    states: BTreeMap<RunId, StateHash>,
    order: VecDeque<RunId>,
    limit: usize,
}

impl KnownStates {
    /// With room for so many runs.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { states: BTreeMap::new(), order: VecDeque::new(), limit }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.states.clear();
        self.order.clear();
    }

    /// Whether this is the last state known of the run.
    #[must_use]
    pub fn is(&self, run: RunId, state: StateHash) -> bool {
        self.states.get(&run) == Some(&state)
    }

    /// Whether this is the last state known of the run; if not, it is from now on.
    pub fn knows(&mut self, run: RunId, state: StateHash) -> bool {
        let is = self.is(run, state);
        if !is {
            self.remember(run, state);
        }
        is
    }

    /// Remembers it.
    pub fn remember(&mut self, run: RunId, state: StateHash) {
        if self.states.insert(run, state).is_none() {
            self.order.push_back(run);
            if self.order.len() > self.limit
                && let Some(oldest) = self.order.pop_front()
            {
                self.states.remove(&oldest);
            }
        }
    }
}

/// Whether a received state holds something that this region wrote, or may have. After a restore its own word comes back to it from one
/// peer, and it is the only one that tells the others (E2).
#[must_use]
pub fn holds_own(state: &wire::RunState, here: &link::RegionInfo) -> bool {
    let class = |version| Increment::new(here.increment)?.class(FailoverVersion(version));
    let own = |version: i64| class(version) == Some(RegionId(here.initial_version));
    state.registers.iter().any(|register| own(register.order_version))
        || state.pending.iter().any(|event| event.accepted_region == here.initial_version)
        // Who gave a verdict is not known.
        || !state.verdicts.is_empty()
}

/// The state of a run as it travels; none when it has neither registers nor pending events nor verdicts, and never was deleted
/// anywhere. A deleted run's is its tombstone.
///
/// # Errors
/// [`Damaged`].
pub fn state_of(row: &RunRow) -> Result<Option<wire::RunState>, Damaged> {
    let head = wire::RunHead::decode(&*row.head)
        .map_err(|error| Damaged { run: row.key.clone(), why: error.to_string() })?;
    let empty = head.registers.is_empty() && head.pending.is_empty() && head.unclaimed.is_empty();
    if empty && head.deleted.is_none() && !head.came_back {
        return Ok(None);
    }
    let current = usize::try_from(head.current).ok().and_then(|index| head.branches.get(index));
    let mut state = wire::RunState {
        namespace_id: row.key.namespace.to_string(),
        workflow_id: row.key.workflow.to_string(),
        run_id: row.key.run.to_string(),
        tip_chain: current.map(|branch| branch.chain.clone()).unwrap_or_default(),
        ..wire::RunState::default()
    };
    if head.deleted.is_some() {
        state.tombstone = Some(head);
    } else {
        if head.came_back {
            (state.came_back, state.lost_tips) = (true, lost_tips(&head));
        }
        (state.registers, state.pending, state.verdicts) = (head.registers, head.pending, head.unclaimed);
    }
    Ok(Some(sum::sealed(state)))
}

/// An entry that travels, with the run it belongs to.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Run.
    pub run: RunKey,
    /// As it goes out.
    pub entry: link::Entry,
    /// Bytes, about.
    pub size: usize,
}

impl Selected {
    /// It tells that its run was deleted.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        match &self.entry.entry {
            Some(link::entry::Entry::State(state)) => state.tombstone.is_some(),
            _ => false,
        }
    }
}

/// Entries of a page for one peer, in the order in which they are sent. `wants` says which batches are sent, `travels`
/// whether a run's namespace is shared with the peer; `knows` are the states that the peer does not need again, and learns
/// those that are selected; damaged rows are returned beside, to be counted and logged.
pub fn select(
    page: &LogPage,
    wants: impl Fn(&Envelope) -> bool,
    mut travels: impl FnMut(&RunKey) -> bool,
    mut knows: impl FnMut(RunId, StateHash) -> bool,
) -> (Vec<Selected>, Vec<Damaged>) {
    let (mut selected, mut damaged) = (Vec::new(), Vec::new());
    let mut batches: BTreeMap<usize, &Batch> = BTreeMap::new();
    for entry in &page.entries {
        let sequence = entry.sequence().0;
        match entry {
            LogEntry::Batch(row) => {
                let envelope = &row.batch.envelope;
                if wants(envelope) && travels(&envelope.run) {
                    batches.insert(selected.len(), &row.batch);
                    let wire = link::entry::Entry::Batch(row.batch.to_wire());
                    selected.push(Selected {
                        run: envelope.run.clone(),
                        entry: link::Entry { sequence, entry: Some(wire) },
                        size: row.batch.size(),
                    });
                }
            }
            LogEntry::Run(row) => match travels(&row.key).then(|| state_of(row)) {
                None | Some(Ok(None)) => {}
                Some(Ok(Some(state))) => {
                    if !knows(row.key.run, StateHash::of(&state)) {
                        selected.push(Selected {
                            run: row.key.clone(),
                            size: state.encoded_len(),
                            entry: link::Entry { sequence, entry: Some(link::entry::Entry::State(state)) },
                        });
                    }
                }
                Some(Err(error)) => damaged.push(error),
            },
        }
    }
    let order = successors_first(selected.len(), &batches);
    let mut slots: Vec<Option<Selected>> = selected.into_iter().map(Some).collect();
    let selected =
        order.into_iter().filter_map(|index| slots.get_mut(index).and_then(Option::take)).collect();
    (selected, damaged)
}

/// Order in which a successor's first batch stands before the batch that closes its predecessor, where a page has both:
/// the receiver then needs no fetch to keep B8.
fn successors_first(count: usize, batches: &BTreeMap<usize, &Batch>) -> Vec<usize> {
    let firsts: BTreeMap<RunId, usize> = batches
        .iter()
        .filter(|(_, batch)| batch.envelope.first_event.0 == 1)
        .map(|(index, batch)| (batch.envelope.run.run, *index))
        .collect();
    let mut moved: BTreeSet<usize> = BTreeSet::new();
    let mut order = Vec::with_capacity(count);
    for index in 0..count {
        if moved.contains(&index) {
            continue;
        }
        let successor = batches.get(&index).and_then(|batch| batch.envelope.successor);
        if let Some(first) = successor.and_then(|run| firsts.get(&run))
            && *first > index
        {
            moved.insert(*first);
            order.push(*first);
        }
        order.push(index);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use antipode_core::{
        batch::Origin,
        chain::ChainValue,
        ids::{EventId, FailoverVersion, NamespaceId, Place, WorkflowId},
        version_history::VersionHistory,
    };
    use antipode_persistence::rows::BatchRow;
    use bytes::Bytes;

    use super::*;

    const EAST: RegionId = RegionId(1);
    const WEST: RegionId = RegionId(2);
    const NORTH: RegionId = RegionId(3);

    fn key(run: u8) -> RunKey {
        RunKey {
            namespace: NamespaceId::from_random([1; 16]),
            workflow: WorkflowId::from("w"),
            run: RunId::from_random([run; 16]),
        }
    }

    fn batch(sequence: u64, run: u8, origin: RegionId, first: i64, successor: Option<u8>) -> LogEntry {
        let envelope = Envelope {
            run: key(run),
            first_run: key(run).run,
            first_event: EventId(first),
            last_event: EventId(first),
            version: FailoverVersion(1),
            previous: ChainValue::NONE,
            items: VersionHistory::default(),
            origin: Origin {
                region: origin,
                incarnation: Incarnation(1),
                shard: ShardId(1),
                sequence: Sequence(sequence),
            },
            place: Place { epoch: 1, sequence },
            causal: 0,
            identities: vec![],
            successor: successor.map(|run| key(run).run),
            inherited: vec![],
            recent: vec![],
            fold_version: 1,
            clock: None,
        };
        let batch = Batch {
            envelope,
            envelope_bytes: Bytes::from_static(b"e"),
            events: Bytes::from_static(b"h"),
            chain: ChainValue::NONE,
        };
        LogEntry::Batch(BatchRow { sequence: Sequence(sequence), batch: Arc::new(batch) })
    }

    fn run(sequence: u64, run: u8, registers: Vec<wire::Register>) -> LogEntry {
        let head = wire::RunHead { registers, ..wire::RunHead::default() };
        LogEntry::Run(RunRow {
            key: key(run),
            changed_at: Sequence(sequence),
            wake_at: None,
            head: head.encode_to_vec().into(),
        })
    }

    fn register(count: u64) -> wire::Register {
        wire::Register { anchor_event_id: 5, kind: 1, order_count: count, ..wire::Register::default() }
    }

    fn audience() -> Audience {
        Audience { here: EAST, peer: WEST, life: Incarnation(1), linked: BTreeSet::from([WEST, NORTH]) }
    }

    fn sequences(entries: Vec<LogEntry>, known: &mut KnownStates) -> Vec<u64> {
        let page = LogPage { through: Sequence(99), entries };
        let (selected, damaged) = select(
            &page,
            |batch| audience().wants(batch),
            |_| true,
            |run, state| {
                let is = known.is(run, state);
                known.remember(run, state);
                is
            },
        );
        assert!(damaged.is_empty());
        selected.iter().map(|selected| selected.entry.sequence).collect()
    }

    #[test]
    fn a_batch_travels_from_its_origin_only() {
        let entries = vec![
            batch(1, 1, EAST, 1, None),
            batch(2, 1, WEST, 2, None),
            batch(3, 1, NORTH, 3, None),
            batch(4, 1, RegionId(7), 4, None),
        ];
        // 7 is linked to nobody: whoever has its batches sends them.
        assert_eq!(sequences(entries, &mut KnownStates::new(9)), [1, 4]);
    }

    #[test]
    fn what_a_peer_wrote_in_another_life_comes_back_to_it() {
        // E2
        let page = LogPage { through: Sequence(9), entries: vec![batch(1, 1, WEST, 1, None)] };
        let restored = Audience { life: Incarnation(2), ..audience() };
        let (selected, _) = select(&page, |batch| restored.wants(batch), |_| true, |_, _| false);
        assert_eq!(selected.len(), 1);
    }

    #[test]
    fn namespaces_that_are_not_shared_do_not_travel() {
        let page = LogPage {
            through: Sequence(9),
            entries: vec![batch(1, 1, EAST, 1, None), run(2, 1, vec![register(1)])],
        };
        let (selected, _) = select(&page, |batch| audience().wants(batch), |_| false, |_, _| false);
        assert!(selected.is_empty());
    }

    #[test]
    fn a_state_travels_when_it_changed_and_has_content() {
        let mut known = KnownStates::new(9);
        assert_eq!(sequences(vec![run(1, 1, vec![])], &mut known), [0; 0]);
        assert_eq!(sequences(vec![run(2, 1, vec![register(1)])], &mut known), [2]);
        assert_eq!(sequences(vec![run(3, 1, vec![register(1)])], &mut known), [0; 0]);
        assert_eq!(sequences(vec![run(4, 1, vec![register(2)])], &mut known), [4]);
    }

    #[test]
    fn a_tombstone_is_told_to_who_reads_it() {
        let head = wire::RunHead {
            first_run_id: key(1).run.to_string(),
            deleted: Some(wire::Deleted { at_unix_nanos: 7, ..wire::Deleted::default() }),
            ..wire::RunHead::default()
        };
        let row =
            RunRow { key: key(1), changed_at: Sequence(3), wake_at: None, head: head.encode_to_vec().into() };
        let page = LogPage { through: Sequence(9), entries: vec![LogEntry::Run(row.clone())] };
        let (selected, _) = select(&page, |_| true, |_| true, |_, _| false);
        assert!(selected.len() == 1 && selected[0].is_tombstone());
        let state = state_of(&row).unwrap().unwrap();
        assert_eq!((state.tombstone.as_ref(), sum::check(&state)), (Some(&head), Ok(())));
        assert_ne!(StateHash::of(&state), StateHash::of(&wire::RunState::default()));
    }

    #[test]
    fn the_hash_of_a_state_ignores_order_and_branch() {
        let state = |registers, tip: &'static [u8]| wire::RunState {
            registers,
            tip_chain: Bytes::from_static(tip),
            ..wire::RunState::default()
        };
        let one = StateHash::of(&state(vec![register(1), register(2)], b"a"));
        assert_eq!(one, StateHash::of(&state(vec![register(2), register(1)], b"b")));
        assert_ne!(one, StateHash::of(&state(vec![register(2)], b"a")));
    }

    #[test]
    fn what_a_region_wrote_itself_is_known_when_it_comes_back() {
        let here = link::RegionInfo { initial_version: 3, increment: 10, ..link::RegionInfo::default() };
        let written = |version| wire::Register { order_version: version, ..register(1) };
        let state = |registers, pending| wire::RunState { registers, pending, ..wire::RunState::default() };
        assert!(holds_own(&state(vec![written(31), written(23)], vec![]), &here), "23 is of region 3");
        assert!(!holds_own(&state(vec![written(31), written(12), written(0)], vec![]), &here));
        let taken = |region| wire::PendingEvent { accepted_region: region, ..wire::PendingEvent::default() };
        assert!(holds_own(&state(vec![], vec![taken(3)]), &here));
        assert!(!holds_own(&state(vec![], vec![taken(1)]), &here));
    }

    #[test]
    fn forgetting_is_bounded() {
        let mut known = KnownStates::new(2);
        let hash = StateHash([0; 16]);
        for run in 1..=3 {
            known.remember(key(run).run, hash);
        }
        assert!(!known.is(key(1).run, hash));
        assert!(known.is(key(2).run, hash) && known.is(key(3).run, hash));
    }

    #[test]
    fn a_successors_first_batch_goes_before_the_close() {
        // B8: run 1 closes at 3 and names run 2, whose first batch is at 5; run 2 closes at 7 and names run 3, not here.
        let entries = vec![
            batch(2, 1, EAST, 4, None),
            batch(3, 1, EAST, 5, Some(2)),
            batch(4, 9, EAST, 1, None),
            batch(5, 2, EAST, 1, None),
            batch(6, 2, EAST, 2, None),
            batch(7, 2, EAST, 3, Some(3)),
        ];
        assert_eq!(sequences(entries, &mut KnownStates::new(9)), [2, 5, 3, 4, 6, 7]);
    }

    #[test]
    fn a_damaged_row_is_reported_and_its_neighbours_go_on() {
        let broken = LogEntry::Run(RunRow {
            key: key(1),
            changed_at: Sequence(1),
            wake_at: None,
            head: Bytes::from_static(&[0xff, 0xff, 0xff]),
        });
        let page = LogPage { through: Sequence(9), entries: vec![broken, batch(2, 1, EAST, 1, None)] };
        let (selected, damaged) = select(&page, |batch| audience().wants(batch), |_| true, |_, _| false);
        assert_eq!((selected.len(), damaged.len()), (1, 1));
    }
}
