//! What clients gave a run and nobody has applied yet: on losing branches, waiting, or in a run that lost its workflow id.
//! Derived from identities, never marked (A3, B1–B4): the active region computes it whenever a branch arrives, a branch or a
//! run loses, or it becomes active.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_proto::{api::history::v1::HistoryEvent, core as wire};

use crate::{
    batch::{Batch, EventIdentity},
    identity::{ExternalKind, Identity},
    ids::{EventId, FailoverVersion, RunId, Timestamp},
    run::{Pending, Run},
    verdict::{Basis, DELIVERED, Verdict},
};

/// What a run owes when another one owns its workflow id.
#[derive(Debug, Default)]
pub struct Owing {
    /// Events that the owner takes as pending ones.
    pub hand_over: BTreeMap<Identity, Pending>,
    /// Events that nobody takes, with the verdict.
    pub file: Vec<wire::Unclaimed>,
}

impl Owing {
    /// Nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hand_over.is_empty() && self.file.is_empty()
    }

    /// Without the events that another run of the workflow id took and is over: it owned the id before, and a later start is no
    /// reason to apply them once more (B1, V11). A start is listed however.
    #[must_use]
    pub fn without(mut self, taken: &BTreeSet<Identity>) -> Self {
        self.hand_over.retain(|identity, _| !taken.contains(identity));
        self.file.retain(|record| {
            let identity = record.identity.as_ref().and_then(Identity::from_wire);
            identity.is_none_or(|identity| identity.kind == ExternalKind::Start || !taken.contains(&identity))
        });
        self
    }
}

impl Run {
    /// External events of losing branches that the current chain lacks and no record explains, in branch order (B1, I33).
    #[must_use]
    pub fn owed(&self) -> Vec<(Arc<Batch>, EventIdentity)> {
        let mut owed: Vec<(Arc<Batch>, EventIdentity)> = Vec::new();
        let Some(tree) = self.tree.as_ref().filter(|tree| tree.branches().len() > 1) else { return owed };
        for chain in tree.losing() {
            let Some(batch) = self.batches.get(&chain) else { continue };
            for entry in &batch.envelope.identities {
                let once = !owed.iter().any(|(_, other)| other.identity == entry.identity);
                if once && self.is_owed(entry) {
                    owed.push((Arc::clone(batch), entry.clone()));
                }
            }
        }
        owed
    }

    /// Whether [`Run::owed`] has anything.
    #[must_use]
    pub fn owes(&self) -> bool {
        let Some(tree) = self.tree.as_ref().filter(|tree| tree.branches().len() > 1) else { return false };
        let losing = tree.losing();
        let batches = losing.iter().filter_map(|chain| self.batches.get(chain));
        batches.flat_map(|batch| &batch.envelope.identities).any(|entry| self.is_owed(entry))
    }

    fn is_owed(&self, entry: &EventIdentity) -> bool {
        entry.identity.kind.is_reapplied() && !self.knows(&entry.identity) && !self.is_filed(&entry.identity)
    }

    /// Whether this run holds clients' events that may be owed to another run, or to nobody: everything it took while it is
    /// open and does not own the workflow id; once closed, what stands on losing branches or still waits (B1).
    #[must_use]
    pub fn may_owe(&self) -> bool {
        let waits = self
            .pending
            .iter()
            .any(|(identity, pending)| pending.anchor.is_none() && !self.is_filed(identity));
        if waits || self.owes() {
            return true;
        }
        let external = |entry: &EventIdentity| entry.identity.kind.is_reapplied();
        self.state.is_open()
            && (self.batches.values().any(|batch| batch.envelope.identities.iter().any(external))
                || !self.is_filed(&self.start_identity()))
    }

    /// Identity of the request that started the run; one made of the run's id when the client gave none.
    fn start_identity(&self) -> Identity {
        let first = self.line.first().map(|batch| batch.envelope.identities.as_slice()).unwrap_or_default();
        let start = first.iter().find(|entry| entry.identity.kind == ExternalKind::Start);
        let made = || Identity::client(ExternalKind::Start, self.key.run.to_string());
        start.map_or_else(made, |entry| entry.identity.clone())
    }

    /// B1, B4: clients' events that this superseded run took and the run that owns the workflow id now lacks: those to hand
    /// over, as pending events of the owner, and those to file with a verdict. `lost`: only a losing branch of its predecessor
    /// continued into this run, so that what it took does not count even though it closed.
    #[must_use]
    pub fn owed_to(&self, owner: &Self, lost: bool) -> Owing {
        self.owing(Some(owner), lost)
    }

    /// The same when the run that owns the workflow id was deleted after its retention: nobody is left to take anything.
    #[must_use]
    pub fn owed_to_nobody(&self, lost: bool) -> Vec<wire::Unclaimed> {
        self.owing(None, lost).file
    }

    /// The run that continued into this one.
    #[must_use]
    pub fn predecessor(&self) -> Option<RunId> {
        let start = self.state.start.as_ref()?;
        start.attributes.continued_execution_run_id.parse().ok()
    }

    /// Runs that any branch of this one continues into.
    #[must_use]
    pub fn successors(&self) -> BTreeSet<RunId> {
        self.batches.values().filter_map(|batch| batch.envelope.successor).collect()
    }

    /// What that run, which owned the workflow id and is about to be deleted after its retention, took of what this one holds: with
    /// it goes the last who knows, so this one is to be told (B1, C6).
    #[must_use]
    pub fn delivered_to(&self, owner: &Self, lost: bool) -> Vec<wire::Unclaimed> {
        let given = |identity: &Identity| {
            let counted = !lost && !self.state.is_open() && self.state.applied.contains(identity);
            owner.state.applied.contains(identity) && !counted && !self.is_filed(identity)
        };
        let waiting = self.pending.iter().filter(|(_, pending)| pending.anchor.is_none());
        let mut taken: BTreeMap<Identity, (EventId, FailoverVersion)> =
            waiting.map(|(identity, pending)| (identity.clone(), (EventId(0), pending.accepted.0))).collect();
        for batch in self.batches.values() {
            let entries = batch.envelope.identities.iter().filter(|entry| entry.identity.kind.is_reapplied());
            taken
                .extend(entries.map(|entry| (entry.identity.clone(), (entry.event, batch.envelope.version))));
        }
        taken.retain(|identity, _| given(identity));
        let basis = Basis::Taken(owner.key.run);
        let record = |(identity, (event, version)): (&Identity, &(EventId, FailoverVersion))| {
            let order = owner.order();
            let verdict =
                Verdict { identity, event: *event, version: *version, words: DELIVERED, basis, order };
            verdict.record(self.key.run, Timestamp(0))
        };
        taken.iter().map(record).collect()
    }

    /// What this run took from other runs and has on its current branch.
    #[must_use]
    pub fn took_from_others(&self) -> Vec<Identity> {
        let entries = self.line.iter().flat_map(|batch| &batch.envelope.identities);
        let taken = entries.filter(|entry| entry.reapplied_from.is_some_and(|(run, _)| run != self.key.run));
        taken.map(|entry| entry.identity.clone()).collect()
    }

    fn owing(&self, owner: Option<&Self>, lost: bool) -> Owing {
        let mut over: BTreeMap<Identity, Pending> = BTreeMap::new();
        let mut filed: BTreeMap<Identity, wire::Unclaimed> = BTreeMap::new();
        let owner_knows = |identity: &Identity| owner.is_some_and(|owner| owner.knows(identity));
        let verdict = |kind: ExternalKind, named_run: bool| {
            let Some(owner) = owner else {
                return Some((
                    "the run that owns the workflow id was deleted after its retention",
                    Basis::Nothing,
                ));
            };
            if !owner.state.is_open() {
                Some(("the run that owns the workflow id is closed", Basis::tip_of(owner)))
            } else if named_run && owner.first_run != self.first_run {
                Some(("the run it named was superseded by another chain", Basis::Owner(owner.key.run)))
            } else if kind != ExternalKind::Signal && owner.first_run != self.first_run {
                Some(("only signals are handed to another chain", Basis::Owner(owner.key.run)))
            } else {
                None
            }
        };
        // Whoever files it says when.
        let order = owner.map(Self::order).unwrap_or_default();
        let record = |event, version, (words, basis): (&str, Basis), identity: &Identity| {
            Verdict { identity, event, version, words, basis, order }.record(self.key.run, Timestamp(0))
        };
        for batch in self.batches.values() {
            for entry in &batch.envelope.identities {
                let counted = !lost && !self.state.is_open() && self.state.applied.contains(&entry.identity);
                let settled = counted || owner_knows(&entry.identity) || self.is_filed(&entry.identity);
                if !entry.identity.kind.is_reapplied() || settled {
                    continue;
                }
                if let Some(verdict) = verdict(entry.identity.kind, entry.named_run) {
                    let record = record(entry.event, batch.envelope.version, verdict, &entry.identity);
                    filed.insert(entry.identity.clone(), record);
                    continue;
                }
                let events = batch.decode_events().unwrap_or_default();
                let event = events.into_iter().find(|event| event.event_id == entry.event.0);
                let pending = Pending {
                    events: event.into_iter().map(unnumbered).collect(),
                    named_run: entry.named_run,
                    anchor: None,
                    accepted: (batch.envelope.version, batch.envelope.place),
                    region: batch.envelope.origin.region,
                    origin: Some(entry.reapplied_from.map_or(self.key.run, |(run, _)| run)),
                };
                over.insert(entry.identity.clone(), pending);
            }
        }
        for (identity, pending) in &self.pending {
            let settled =
                owner_knows(identity) || self.is_filed(identity) || self.state.applied.contains(identity);
            if pending.anchor.is_some() || settled {
                continue;
            }
            match verdict(identity.kind, pending.named_run) {
                Some(verdict) => {
                    let record = record(EventId(0), pending.accepted.0, verdict, identity);
                    filed.insert(identity.clone(), record);
                }
                None => {
                    let origin = Some(pending.origin.unwrap_or(self.key.run));
                    over.insert(identity.clone(), Pending { origin, ..pending.clone() });
                }
            }
        }
        // B5: somebody was told that this run was started. It is not adopted; it is listed, whatever becomes of the owner. A request
        // that was made again where the owner began was answered by that (B3).
        let start = self.start_identity();
        let stranger = owner.is_none_or(|owner| owner.first_run != self.first_run);
        if self.state.is_open() && stranger && !owner_knows(&start) && !self.is_filed(&start) {
            let version = self.state.start.as_ref().map_or(FailoverVersion::LOCAL, |start| start.version);
            let words = "the start was accepted, and another run owns the workflow id";
            let basis = owner.map_or(Basis::Nothing, |owner| Basis::Owner(owner.key.run));
            filed.insert(start.clone(), record(EventId(1), version, (words, basis), &start));
        }
        Owing { hand_over: over, file: filed.into_values().collect() }
    }
}

/// An event without what its place on a branch gave it.
fn unnumbered(event: HistoryEvent) -> HistoryEvent {
    HistoryEvent { event_id: 0, event_time: None, version: 0, task_id: 0, ..event }
}
