//! What travels between regions: entries of logs, one at a time, what they lack, and namespace records.

use std::sync::Arc;

use antipode_core::{
    ids::{RunId, WorkflowKey},
    namespace::Record,
};
use antipode_history::api::{Applied, Operation, Replicated, Reply, Request};
use antipode_persistence::store::RegionStore;
use antipode_replicator::{
    entry,
    selection::{self, Audience, StateHash},
};

use super::{
    canon::SHARD,
    program::At,
    state::{Flight, State, Unread},
    step::{Finding, Machine, broken},
};
use crate::world::NAMES;

/// How deep a fetch may lead to another.
const DEPTH_MAX: usize = 8;

impl Machine<'_> {
    /// Puts what is committed and not yet read on its way to every peer.
    pub(super) fn send(&mut self, state: &mut State, from: At) -> Result<(), Finding> {
        let regions: Vec<_> = state.nodes.iter().map(|node| node.region.id).collect();
        for to in (0..regions.len()).filter(|to| *to != from) {
            let node = Arc::clone(&state.nodes[from]);
            let page = node.region.log(SHARD, state.link(from, to).read).map_err(broken)?;
            let link = state.link(from, to);
            if page.through == link.read && link.unread.is_none() {
                continue;
            }
            let linked = regions.iter().copied().filter(|id| *id != regions[from]).collect();
            let life = state.nodes[to].region.store.identity().incarnation;
            let audience = Audience { here: regions[from], peer: regions[to], life, linked };
            let link = state.link_mut(from, to);
            let mut sent = link.sent.clone();
            let knows = |run: RunId, hash: StateHash| {
                if node.received.get(&run) == Some(&hash) || sent.get(&run) == Some(&hash) {
                    return true;
                }
                sent.insert(run, hash);
                false
            };
            let (selected, damaged) =
                selection::select(&page, |envelope| audience.wants(envelope), |_| true, knows);
            if let Some(damaged) = damaged.first() {
                return Err(broken(damaged));
            }
            let mut flights = Vec::new();
            for selected in selected {
                let sequence = antipode_core::ids::Sequence(selected.entry.sequence);
                let received = entry::read(&selected.entry).map_err(|error| Finding(error.why))?;
                let (run, version, item) = (received.key, received.version, received.replicated);
                flights.push(Flight { sequence, run, version, item });
            }
            link.unread = None;
            if self.program.free.reads && !self.resting && !flights.is_empty() {
                link.unread = Some(Unread { flights, through: page.through, sent });
            } else {
                link.queue.extend(flights);
                link.read = page.through;
                link.sent = sent;
            }
        }
        Ok(())
    }

    pub(super) fn deliver(
        &mut self,
        state: &mut State,
        from: At,
        to: At,
        slot: usize,
    ) -> Result<(), Finding> {
        let flight = state.link_mut(from, to).queue.remove(slot);
        if self.offer(state, from, to, &flight)? {
            state.link_mut(from, to).done.push(flight);
            if self.program.free.redeliver {
                self.redeliver(state, from, to)?;
            }
        } else {
            state.link_mut(from, to).queue.insert(slot, flight);
        }
        self.send(state, to)
    }

    /// Offers an entry to its receiver. False: it has to come again later.
    pub(super) fn offer(
        &mut self,
        state: &mut State,
        from: At,
        to: At,
        flight: &Flight,
    ) -> Result<bool, Finding> {
        let version = state.nodes[to].region.record.version();
        if !self.program.free.ahead && flight.version.is_some_and(|needed| needed > version) {
            self.hear(state, from, to)?;
        }
        if let Replicated::State(run) = &flight.item {
            let hash = StateHash::of(run);
            state.node_mut(to).received.insert(flight.run.run, hash);
        }
        self.apply(state, from, to, &flight.run.workflow_key(), &flight.item, 0)
    }

    pub(super) fn apply(
        &mut self,
        state: &mut State,
        from: At,
        to: At,
        key: &WorkflowKey,
        entry: &Replicated,
        depth: usize,
    ) -> Result<bool, Finding> {
        if depth > DEPTH_MAX {
            return Err(Finding(format!("{} needs events again and again", key.workflow)));
        }
        for _ in 0..DEPTH_MAX {
            match self.apply_once(state, to, key, entry)? {
                Applied::Applied(_) | Applied::Duplicate => return Ok(true),
                Applied::Poison(why) => {
                    let name = &state.nodes[to].region.name;
                    return Err(Finding(format!("{name} would quarantine a run of {}: {why}", key.workflow)));
                }
                Applied::Retry(_) => return Ok(false),
                Applied::NeedEvents { key: run, known, until } => {
                    let operation = Operation::Fetch { known, until };
                    let request = Request { workflow: run.workflow_key(), run: Some(run.run), operation };
                    let Some(fetched) = self.fetch(state, from, request)? else { return Ok(false) };
                    for entry in fetched {
                        if !self.apply(state, from, to, &run.workflow_key(), &entry, depth + 1)? {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        Err(Finding(format!("an entry of {} finds a hole again and again", key.workflow)))
    }

    pub(super) fn apply_once(
        &mut self,
        state: &mut State,
        to: At,
        key: &WorkflowKey,
        entry: &Replicated,
    ) -> Result<Applied, Finding> {
        let now = state.now;
        let ticket = state.node_mut(to).region.apply(now, key, vec![entry.clone()]);
        self.run(state, to, true)?;
        let applied = state.node_mut(to).region.applied.remove(&ticket);
        let applied = applied.and_then(|mut applied| applied.pop());
        applied.ok_or_else(|| Finding("an apply was not answered".to_string()))
    }

    pub(super) fn fetch(
        &mut self,
        state: &mut State,
        from: At,
        request: Request,
    ) -> Result<Option<Vec<Replicated>>, Finding> {
        let now = state.now;
        let ticket = state.node_mut(from).region.request(now, request);
        self.run(state, from, !self.held(from))?;
        // Unanswered while what it would tell is not durable there (D1).
        Ok(match state.node_mut(from).region.answers.remove(&ticket) {
            Some(Ok(Reply::Fetched { batches, state })) => {
                let batches = batches.into_iter().map(Replicated::Batch);
                Some(batches.chain([Replicated::State(state)]).collect())
            }
            _ => None,
        })
    }

    /// V19: what was delivered before changes nothing when it comes again.
    pub(super) fn redeliver(&mut self, state: &State, from: At, to: At) -> Result<(), Finding> {
        let mut probe = state.clone();
        for flight in &state.link(from, to).done {
            let key = flight.run.workflow_key();
            match self.apply_once(&mut probe, to, &key, &flight.item)? {
                Applied::Duplicate | Applied::NeedEvents { .. } => {}
                other => {
                    let name = &probe.nodes[to].region.name;
                    let what = match &flight.item {
                        Replicated::Batch(batch) | Replicated::Last(batch) => {
                            format!(
                                "events {}..{}",
                                batch.envelope.first_event.0, batch.envelope.last_event.0
                            )
                        }
                        Replicated::State(_) => "registers and pending events".to_string(),
                    };
                    return Err(Finding(format!(
                        "V19: {what} of {} delivered to {name} once more: {other:?}",
                        key.workflow
                    )));
                }
            }
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, state: &mut State, from: At, to: At) -> Result<(), Finding> {
        let theirs = state.nodes[from].region.record.clone();
        let mut ours = state.nodes[to].region.record.clone();
        if ours.merge(&theirs) {
            self.set_record(state, to, ours)?;
        }
        Ok(())
    }

    pub(super) fn set_record(&mut self, state: &mut State, at: At, record: Record) -> Result<(), Finding> {
        let now = state.now;
        state.node_mut(at).region.set_record(record, now);
        self.touch(state, at)
    }

    /// Sends everything everywhere until all is quiet.
    pub(super) fn deliver_all(&mut self, state: &mut State) -> Result<(), Finding> {
        for at in 0..state.nodes.len() {
            self.send(state, at)?;
        }
        for _ in 0..256 {
            let mut moved = false;
            for (from, to) in state.pairs() {
                let before = state.nodes[to].region.record.clone();
                self.hear(state, from, to)?;
                moved |= before != state.nodes[to].region.record;
                while let Some(flight) = state.link(from, to).queue.first().cloned() {
                    if !self.offer(state, from, to, &flight)? {
                        break;
                    }
                    state.link_mut(from, to).queue.remove(0);
                    self.send(state, to)?;
                    moved = true;
                }
            }
            if !moved {
                return match state.pairs().iter().find(|(from, to)| !state.link(*from, *to).queue.is_empty())
                {
                    Some((from, to)) => Err(Finding(format!(
                        "{} has an entry for {} that never arrives",
                        NAMES[*from], NAMES[*to]
                    ))),
                    None => Ok(()),
                };
            }
        }
        Err(Finding("replication does not come to rest".to_string()))
    }

    /// Everything is delivered, and time passes so that nobody waits for a lost worker any more.
    ///
    /// # Errors
    /// [`Finding`] when it does not come to rest.
    pub fn rest(&mut self, before: &State) -> Result<State, Finding> {
        let mut state = before.clone();
        self.resting = true;
        let rested = self.rest_in(&mut state);
        self.resting = false;
        rested?;
        self.seal(&mut state, None)?;
        Ok(state)
    }

    pub(super) fn rest_in(&mut self, state: &mut State) -> Result<(), Finding> {
        self.deliver_all(state)?;
        for _ in 0..3 {
            self.advance(state, 11)?;
            self.deliver_all(state)?;
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, state: &mut State, seconds: i64) -> Result<(), Finding> {
        state.now = state.now.plus(antipode_core::ids::Nanos::seconds(seconds));
        for at in 0..state.nodes.len() {
            let now = state.now;
            state.node_mut(at).region.tick(now);
            self.touch(state, at)?;
        }
        Ok(())
    }
}
