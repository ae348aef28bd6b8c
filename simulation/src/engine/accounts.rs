//! What clients were told: every acknowledged call stands once in a history that counts, or is listed for a cause that is
//! found here and not taken from the code that listed it (V10, V11).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_core::{
    batch::Envelope,
    chain::ChainValue,
    identity::{ExternalKind, Key},
    ids::{FailoverVersion, RunId},
};
use antipode_proto::{
    api::history::v1::{HistoryEvent, history_event::Attributes},
    core as wire,
};

use super::{
    Engine, Failure,
    calls::{Acked, Call, Outcome, What},
    folded::Runs,
    rest::outline,
    short,
    span::Span,
    watch::Watch,
};
use crate::region::Kept;

impl Engine {
    /// V10, V11: what was acknowledged stands exactly once in a history that counts, or is listed.
    pub(super) fn check_calls(&mut self) -> Result<(), Failure> {
        let Some(site) = self.listed().first().copied() else { return Ok(()) };
        for workflow in self.watch.workflows.clone() {
            let key = self.key(&workflow);
            let everywhere = self.runs_everywhere(&key)?;
            // What retention deleted stood as it was deleted. A region that was put back in time knows of no deletion that came after.
            let mut runs = Runs::new();
            for other in (0..self.sites.len()).filter(|other| *other != site).chain([site]) {
                runs.extend(self.watch.graves.of(other, &workflow));
            }
            runs.extend(everywhere[site].clone());
            let mut late = Vec::new();
            for site in &self.sites {
                late.extend(site.region.filed_late(&key)?);
            }
            let owner = self.sites[site].region.stored_owner(&key)?;
            let facts = Facts::of(&runs, owner, &everywhere, &late, &self.watch);
            let calls: Vec<Call> =
                self.calls.all.iter().filter(|call| call.workflow == workflow).cloned().collect();
            for call in &calls {
                if let (Some(acked), Outcome::Ok(run)) = (call.acked, &call.outcome) {
                    self.check_call(call, acked, *run, &facts, &runs);
                }
            }
            for (id, times) in &facts.twice {
                self.find("V11", format!("{workflow}: {id} stands {times} times in one chain"));
            }
        }
        Ok(())
    }

    fn check_call(&mut self, call: &Call, acked: Acked, told: Option<RunId>, facts: &Facts, runs: &Runs) {
        let listed = facts.lists(call);
        let there = match &call.what {
            // A retry may have been told a run that another start began.
            What::Start(_) => told.is_some_and(|run| runs.contains_key(&run)),
            What::Signal(_) | What::SignalWithStart(_) => facts.signals.contains(&call.id),
            // A second cancellation changes nothing: the first one's event is what there is.
            What::Cancel => facts.cancels > 0 || facts.closed,
            What::Terminate => facts.closed,
        };
        if there || self.watch.gone_with_restore(call, acked) {
            return;
        }
        // What was taken under a version may be listed only if that version lost by force. The call may have been answered later
        // than it was carried out.
        let taken =
            self.watch.taken.iter().filter(|((_, key), _)| *key == call.id).map(|(_, version)| *version);
        let version = taken.chain(listed).chain([acked.version]).min().unwrap_or(acked.version);
        if listed.is_some() && self.lost_by_force(version) {
            return;
        }
        if listed.is_some() && self.ended_late(&call.workflow) {
            return;
        }
        let listed =
            if listed.is_some() { "only listed, though its version did not lose by force" } else { "lost" };
        let at = Span(acked.at.0 - super::BEGIN.0);
        let name = self.name(acked.site).to_string();
        let runs: Vec<_> = runs
            .iter()
            .map(|(id, kept)| format!("{}: {}", short(id), outline(&kept.events(kept.run.tip()))))
            .collect();
        self.find(
            "V10",
            format!(
                "{}: {} {} was acknowledged by {name} at {at} under version {} and is {listed}\n  {}",
                call.workflow,
                call.what.word(),
                call.id,
                acked.version,
                runs.join("\n  ")
            ),
        );
    }
}

impl Engine {
    /// May what was taken under this version have lost by force?
    fn lost_by_force(&self, version: FailoverVersion) -> bool {
        let last = self.sites.iter().map(|site| site.region.record.version()).max().unwrap_or_default();
        self.watch.lineage.lost(version, last)
    }

    /// Was a termination of this workflow id acknowledged under a version that lost by force, or before a store was put back in
    /// time, or was an earlier try of it perhaps carried out under one? It is carried out late, and ends what went on since.
    fn ended_late(&self, workflow: &str) -> bool {
        let restored = |acked: Acked| self.watch.restored_at.is_some_and(|at| acked.at <= at);
        let lost = |acked: Acked| self.lost_by_force(acked.version) || restored(acked);
        let terminations = self.calls.all.iter().filter(|call| matches!(call.what, What::Terminate));
        terminations
            .filter(|call| call.workflow == workflow)
            .any(|call| call.unsure || call.acked.is_some_and(lost))
    }
}

impl Watch {
    /// A batch is stored: its events were taken by its chain.
    pub(super) fn takes(&mut self, first_run: RunId, envelope: &Envelope) {
        for entry in &envelope.identities {
            if let Key::Client(key) = &entry.identity.key {
                let version = self.taken.entry((first_run, key.clone())).or_insert(envelope.version);
                *version = envelope.version.min(*version);
            }
        }
    }

    fn was_taken(&self, first_run: RunId, key: &str) -> bool {
        self.taken.contains_key(&(first_run, key.to_string()))
    }

    /// Was it acknowledged before a restore after which no store had it?
    fn gone_with_restore(&self, call: &Call, acked: Acked) -> bool {
        match call.what {
            // It has no key to be found by.
            What::Terminate => self.restored_at.is_some_and(|at| acked.at <= at),
            _ => self.excused.contains(&(call.workflow.clone(), call.id.clone())),
        }
    }
}

impl Engine {
    /// A store was just put back in time: what was acknowledged and stands in no store now reached nobody, and the operator was
    /// told (E2). Everything else must come back.
    pub(crate) fn excuse_what_is_gone(&mut self) -> Result<(), Failure> {
        for workflow in self.watch.workflows.clone() {
            let everywhere = self.runs_everywhere(&self.key(&workflow))?;
            let mut keys = BTreeSet::new();
            let mut runs = BTreeSet::new();
            for (id, kept) in everywhere.iter().flatten() {
                runs.insert(*id);
                let written = kept.batches.iter().flat_map(|batch| &batch.envelope.identities);
                let all = written.map(|entry| &entry.identity).chain(kept.run.pending.keys());
                keys.extend(all.filter_map(|identity| match &identity.key {
                    Key::Client(key) => Some(key.clone()),
                    Key::Minted { .. } => None,
                }));
            }
            for call in self.calls.all.iter().filter(|call| call.workflow == workflow) {
                let Outcome::Ok(told) = &call.outcome else { continue };
                let stands = match &call.what {
                    What::Start(_) => told.is_some_and(|run| runs.contains(&run)),
                    _ => keys.contains(&call.id),
                };
                if !stands {
                    self.watch.excused.insert((workflow.clone(), call.id.clone()));
                }
            }
        }
        self.watch.restored_at = Some(self.now);
        Ok(())
    }
}

/// What the histories of a workflow id say to its clients.
struct Facts {
    signals: BTreeSet<String>,
    /// Verdicts of all regions: kind, key, if it has the client's, and the version under which it was taken.
    listed: BTreeSet<(u32, Option<String>, FailoverVersion)>,
    twice: BTreeMap<String, u64>,
    cancels: usize,
    closed: bool,
}

impl Facts {
    fn of(
        runs: &Runs,
        owner: Option<RunId>,
        everywhere: &[Runs],
        late: &[wire::Unclaimed],
        watch: &Watch,
    ) -> Self {
        let mut chains: BTreeMap<String, BTreeMap<RunId, u64>> = BTreeMap::new();
        let mut facts = Self {
            signals: BTreeSet::new(),
            listed: BTreeSet::new(),
            twice: BTreeMap::new(),
            cancels: 0,
            closed: false,
        };
        let ways = ways(runs);
        for (id, kept) in runs {
            let run = &kept.run;
            // The history of a superseded run, or of one beside the way, does not count: what it took is owed to the owner of the
            // id, or listed.
            let way = ways.get(id).copied();
            let open = way.is_none_or(|tip| tip == run.tip()) && run.state.is_open();
            let superseded = open && owner != Some(*id);
            if let Some(tip) = way.filter(|_| !superseded) {
                let events = kept.events(tip);
                for signal in crate::oracle::signals(&events) {
                    *chains.entry(signal).or_default().entry(run.first_run).or_default() += 1;
                }
                facts.cancels += events.iter().filter(|event| is_cancel(event)).count();
                facts.closed |= !run.state.is_open();
            }
            // What the chain took before this run is known to it, wherever the branch that took it went (B2).
            if owner == Some(*id) || (!run.state.is_open() && way.is_some()) {
                for identity in &run.state.applied {
                    // Seen in a batch of the chain; what a region only says that it applied does not count.
                    if let Key::Client(key) = &identity.key
                        && watch.was_taken(run.first_run, key)
                    {
                        facts.signals.insert(key.clone());
                    }
                }
            }
        }
        for (signal, by_chain) in &chains {
            facts.signals.insert(signal.clone());
            if let Some(times) = by_chain.values().max().filter(|times| **times > 1) {
                facts.twice.insert(signal.clone(), *times);
            }
        }
        for kept in everywhere.iter().flat_map(BTreeMap::values) {
            facts.listed.extend(kept.run.unclaimed().into_iter().map(verdict));
        }
        facts.listed.extend(late.iter().map(verdict));
        facts
    }

    /// Is there a verdict on what this call gave? Then the version under which it was taken. A termination has no key of its client's;
    /// a cancellation changes nothing after another one, or after the run's end, so it may have none of its own.
    fn lists(&self, call: &Call) -> Option<FailoverVersion> {
        let own = |key: &Option<String>| key.as_deref() == Some(&*call.id);
        let all = self.listed.iter();
        match &call.what {
            What::Start(_) => None,
            What::Signal(_) | What::SignalWithStart(_) => {
                all.filter(|(_, key, _)| own(key)).map(|one| one.2).min()
            }
            What::Cancel => all.map(|one| one.2).min(),
            What::Terminate => {
                all.filter(|one| one.0 == ExternalKind::Terminate as u32).map(|one| one.2).min()
            }
        }
    }
}

/// What counts of each chain of runs: the way from its first run to its greatest one. By run, the tip of the branch that leads
/// on; what is beside the way is lost with the branch it followed (B1, B7).
fn ways(runs: &Runs) -> BTreeMap<RunId, ChainValue> {
    let mut greatest: BTreeMap<RunId, (&RunId, &Arc<Kept>)> = BTreeMap::new();
    for (id, kept) in runs {
        let best = greatest.entry(kept.run.first_run).or_insert((id, kept));
        if kept.run.order() > best.1.run.order() {
            *best = (id, kept);
        }
    }
    let mut ways = BTreeMap::new();
    for (id, kept) in greatest.into_values() {
        ways.insert(*id, kept.run.tip());
        let mut at = (id, kept);
        while let Some((before, earlier)) = at.1.run.predecessor().and_then(|run| runs.get_key_value(&run)) {
            let leads = earlier.batches.iter().find(|batch| batch.envelope.successor == Some(*at.0));
            if ways.insert(*before, leads.map_or(earlier.run.tip(), |batch| batch.chain)).is_some() {
                break;
            }
            at = (before, earlier);
        }
    }
    ways
}

fn verdict(record: &wire::Unclaimed) -> (u32, Option<String>, FailoverVersion) {
    let kind = record.identity.as_ref().map_or(0, |identity| identity.kind);
    (kind, client_key(record), FailoverVersion(record.version))
}

/// The client's key of an unclaimed event.
pub(crate) fn client_key(record: &wire::Unclaimed) -> Option<String> {
    match record.identity.as_ref()?.key.as_ref()? {
        wire::identity::Key::Client(key) => Some(key.clone()),
        _ => None,
    }
}

fn is_cancel(event: &HistoryEvent) -> bool {
    matches!(event.attributes, Some(Attributes::WorkflowExecutionCancelRequestedEventAttributes(_)))
}
