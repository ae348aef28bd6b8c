//! Verdicts on what clients gave a run and no current branch carries (I03, B1): filed as unclaimed, or taken by another run, which
//! may be deleted since. They travel with the run's state, as a set that only grows, so that the next active region decides nothing
//! anew. Each says what it rests on, and whether it holds is derived from that: no region takes a verdict back, it falls with
//! the branch it rested on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use antipode_proto::core as wire;

use crate::{
    chain::ChainValue,
    identity::Identity,
    ids::{EventId, FailoverVersion, Place, RunId, RunOrder, Timestamp},
    run::Run,
};

/// Verdict on an event of a losing branch of a run that is closed on its current one.
pub const CLOSED: &str = "the run is closed on the winning branch";
/// Verdict on an event that was never written because the run closed.
pub const CLOSED_BEFORE: &str = "accepted, and the run closed before it could be written";
/// Verdict on what the run that owned the workflow id took and wrote: not unclaimed.
pub const DELIVERED: &str = "the run that owned the workflow id took it";
/// Verdict on what was listed when the run was deleted, and the run came back (C6).
pub const CAME_BACK: &str = "it was listed when the run was deleted, and the run came back without it";
/// Verdicts that rest on the run being closed. Those of earlier versions do not name the branch.
const CLOSED_VERDICTS: [&str; 2] = [CLOSED, CLOSED_BEFORE];

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Nothing that can change.
    Nothing,
    /// This branch of this run, by the batch at its tip when the verdict was given.
    Branch {
        /// The run, or the one that owned the workflow id.
        run: RunId,
        /// Its tip.
        chain: ChainValue,
    },
    /// A run of another chain owning the workflow id: this one, when the verdict was given.
    Owner(RunId),
    /// This run having taken the event before it closed, as long as the holder does not own the id itself.
    Taken(RunId),
}

impl Basis {
    /// The branch that is current in this run now.
    #[must_use]
    pub fn tip_of(run: &Run) -> Self {
        Self::Branch { run: run.key.run, chain: run.tip() }
    }

    fn of(record: &wire::Unclaimed) -> Self {
        match (record.basis_run_id.parse(), ChainValue::from_bytes(&record.basis_chain)) {
            (Ok(run), _) if record.delivered => Self::Taken(run),
            (Ok(run), Some(ChainValue::NONE)) => Self::Owner(run),
            (Ok(run), Some(chain)) => Self::Branch { run, chain },
            _ => Self::Nothing,
        }
    }

    fn run(self) -> Option<RunId> {
        match self {
            Self::Nothing => None,
            Self::Branch { run, .. } | Self::Owner(run) | Self::Taken(run) => Some(run),
        }
    }
}

/// Verdicts of a run that hold no more: of which event, and what they rested on.
pub type Fallen = BTreeSet<(Identity, Basis)>;

/// One event, and why it is not applied.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// Of the event.
    pub identity: &'a Identity,
    /// The event; zero for one that never was written.
    pub event: EventId,
    /// Version under which it was taken.
    pub version: FailoverVersion,
    /// In words.
    pub words: &'a str,
    /// What it rests on.
    pub basis: Basis,
    /// How far the run that it rests on was; nothing of interest where it rests on none.
    pub order: RunOrder,
}

impl Verdict<'_> {
    /// As it is stored and sent, in this run.
    #[must_use]
    pub fn record(&self, run: RunId, now: Timestamp) -> wire::Unclaimed {
        let (basis_run, basis_chain) = match self.basis {
            Basis::Nothing => (None, ChainValue::NONE),
            Basis::Branch { run, chain } => (Some(run), chain),
            Basis::Owner(run) | Basis::Taken(run) => (Some(run), ChainValue::NONE),
        };
        wire::Unclaimed {
            identity: Some(self.identity.to_wire()),
            event_id: self.event.0,
            version: self.version.0,
            run_id: run.to_string(),
            verdict: self.words.to_string(),
            recorded_unix_nanos: now.0,
            basis_run_id: basis_run.map(|run| run.to_string()).unwrap_or_default(),
            basis_chain: basis_chain.to_bytes(),
            delivered: matches!(self.basis, Basis::Taken(_)),
            basis_version: self.order.version.0,
            basis_place: (self.order != RunOrder::default()).then_some(wire::Place {
                epoch: self.order.place.epoch,
                sequence: self.order.place.sequence,
            }),
        }
    }
}

/// The verdicts of a run, by identity and basis. A merge is a union; of two for one place the least stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    records: BTreeMap<Identity, BTreeMap<Basis, wire::Unclaimed>>,
    /// Of what other runs are the basis of: those that fell. Derived, see [`Run::fallen`].
    fallen: Fallen,
}

impl Verdicts {
    /// Adds one. True when something changed.
    pub fn add(&mut self, record: &wire::Unclaimed) -> bool {
        let Some(identity) = record.identity.as_ref().and_then(Identity::from_wire) else { return false };
        let place = self.records.entry(identity).or_default();
        let known = place.get(&Basis::of(record));
        if known.is_some_and(|known| rank(known) <= rank(record)) {
            return false;
        }
        place.insert(Basis::of(record), record.clone());
        true
    }

    /// As stored and sent, in order.
    #[must_use]
    pub fn to_wire(&self) -> Vec<wire::Unclaimed> {
        self.records.values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// How many there are, whether they hold or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn bases(&self) -> impl Iterator<Item = Basis> {
        self.records.values().flat_map(BTreeMap::keys).copied()
    }
}

/// A total order of what is not in the key, the same everywhere: what was given latest in the life of its basis comes first, and
/// of equals the first that was given.
fn rank(record: &wire::Unclaimed) -> impl Ord {
    let wire::Unclaimed { recorded_unix_nanos: at, verdict, event_id, version, run_id, delivered, .. } =
        record;
    (Reverse(order_of(record)), *at, verdict, *event_id, *version, run_id, *delivered)
}

/// How far the run that a verdict rests on was.
fn order_of(record: &wire::Unclaimed) -> RunOrder {
    let place = record.basis_place.unwrap_or_default();
    let place = Place { epoch: place.epoch, sequence: place.sequence };
    RunOrder { version: FailoverVersion(record.basis_version), place }
}

/// Runs other than `holder` that verdicts of a state or a stored head rest on.
#[must_use]
pub fn others(holder: RunId, records: &[wire::Unclaimed]) -> BTreeSet<RunId> {
    records.iter().filter_map(|record| Basis::of(record).run()).filter(|run| *run != holder).collect()
}

/// Of a run that took something, by its chain and its order, or that of its tombstone: the greatest of its chain among `runs`, when
/// that is greater. The chain went on, maybe without what the run took (B7).
pub fn heir<'a>(first_run: RunId, was: RunOrder, runs: impl Iterator<Item = &'a Run>) -> Option<&'a Run> {
    let chain = runs.filter(|run| run.first_run == first_run && run.order() > was);
    chain.max_by_key(|run| run.order())
}

/// Chain and order of a deleted run, by the head of its tombstone.
#[must_use]
pub fn place_of(deleted: &wire::RunHead) -> Option<(RunId, RunOrder)> {
    Some((deleted.first_run_id.parse().ok()?, order_of_head(deleted)))
}

/// Order among the runs of the workflow id of a stored head: of all its branches, as [`Run::order`] (B7).
#[must_use]
pub fn order_of_head(head: &wire::RunHead) -> RunOrder {
    let order = |branch: &wire::Branch| {
        let place = branch.place.unwrap_or_default();
        let version = FailoverVersion(branch.items.last()?.version);
        Some(RunOrder { version, place: Place { epoch: place.epoch, sequence: place.sequence } })
    };
    head.branches.iter().filter_map(order).max().unwrap_or_default()
}

impl Run {
    /// Files a verdict on an event of this run. True when it is new.
    pub fn file(&mut self, verdict: &Verdict<'_>, now: Timestamp) -> bool {
        let record = verdict.record(self.key.run, now);
        self.verdicts.add(&record)
    }

    /// Takes what was listed on the tombstone of this run, which comes back: the branches that these verdicts rested on may be gone.
    pub fn come_back(&mut self, listed: &[wire::Unclaimed]) {
        for record in listed {
            self.verdicts.add(&wire::Unclaimed {
                verdict: CAME_BACK.to_string(),
                basis_run_id: String::new(),
                basis_chain: ChainValue::NONE.to_bytes(),
                basis_version: 0,
                basis_place: None,
                ..record.clone()
            });
        }
    }

    /// Whether a verdict on this event holds.
    #[must_use]
    pub fn is_filed(&self, identity: &Identity) -> bool {
        self.standing(identity).is_some()
    }

    /// The verdict on this event that holds; that it was taken says more than why it would not have been, unless the run that took
    /// it came back without it and ended so (E2).
    #[must_use]
    pub fn standing(&self, identity: &Identity) -> Option<&wire::Unclaimed> {
        let records = self.verdicts.records.get(identity)?;
        let standing = || records.iter().filter(|(basis, record)| self.holds(identity, **basis, record));
        let overturned = |taker: RunId, taken: &wire::Unclaimed| {
            standing().any(|(basis, record)| {
                matches!(basis, Basis::Branch { run, .. } if *run == taker)
                    && order_of(record) > order_of(taken)
            })
        };
        let counts = |(basis, record): &(&Basis, &wire::Unclaimed)| match basis {
            Basis::Taken(taker) => !overturned(*taker, record),
            Basis::Nothing | Basis::Branch { .. } | Basis::Owner(_) => true,
        };
        standing().filter(counts).map(|(_, record)| record).max_by_key(|record| record.delivered)
    }

    /// The events that are unclaimed: filed with a verdict that holds, and taken by nobody; one verdict each.
    #[must_use]
    pub fn unclaimed(&self) -> Vec<&wire::Unclaimed> {
        let standing = self.verdicts.records.keys().filter_map(|identity| self.standing(identity));
        standing.filter(|record| !record.delivered).collect()
    }

    fn holds(&self, identity: &Identity, basis: Basis, record: &wire::Unclaimed) -> bool {
        match basis {
            // As an earlier version wrote it.
            Basis::Nothing if record.verdict == CAME_BACK => !self.state.applied.contains(identity),
            Basis::Nothing => {
                let closed = CLOSED_VERDICTS.contains(&record.verdict.as_str());
                !closed || record.run_id != self.key.run.to_string() || !self.state.is_open()
            }
            Basis::Branch { run, chain } if run == self.key.run => self.is_on_current(chain),
            Basis::Branch { .. } | Basis::Owner(_) | Basis::Taken(_) => {
                !self.verdicts.fallen.contains(&(identity.clone(), basis))
            }
        }
    }

    /// Other runs that verdicts of this one rest on.
    #[must_use]
    pub fn rests_on(&self) -> BTreeSet<RunId> {
        let runs = self.verdicts.bases().filter_map(Basis::run);
        runs.filter(|run| *run != self.key.run).collect()
    }

    /// Whether a verdict of that state rests on a batch of this run that is not here: it cannot be judged before (W13).
    #[must_use]
    pub fn missing_basis(&self, state: &wire::RunState) -> bool {
        let stored = |chain| self.tree.as_ref().is_some_and(|tree| tree.node(chain).is_some());
        state.verdicts.iter().any(|record| match Basis::of(record) {
            Basis::Branch { run, chain } => run == self.key.run && !stored(chain),
            Basis::Nothing | Basis::Owner(_) | Basis::Taken(_) => false,
        })
    }

    /// The verdicts of this run that hold no more, as far as other runs decide it: they rested on a branch that lost, or on another
    /// run, or chain, owning the workflow id (`owner` says which does), or on a run having taken what it has not. A run that is
    /// not stored any more, or a batch that has not arrived, undoes nothing. What a run took counts no more when its chain went on
    /// without it (`went_on`).
    #[must_use]
    pub fn fallen<'a>(
        &self,
        owner: Option<&wire::CurrentRecord>,
        other: impl Fn(RunId) -> Option<&'a Self>,
        went_on: impl Fn(RunId, &Identity) -> bool,
    ) -> Fallen {
        let id = |text: &str| text.parse::<RunId>().ok();
        let owns = owner.and_then(|owner| id(&owner.run_id)) == Some(self.key.run);
        let chain = owner.and_then(|owner| id(&owner.first_run_id));
        let fell = |identity: &Identity, basis: Basis| match basis {
            Basis::Branch { run, chain } if run != self.key.run => {
                let lost = |run: &Self| {
                    let stored = run.tree.as_ref().is_some_and(|tree| tree.node(chain).is_some());
                    stored && !run.is_on_current(chain)
                };
                owns || other(run).is_some_and(lost)
            }
            Basis::Owner(_) => chain == Some(self.first_run),
            Basis::Taken(run) => {
                owns || match other(run) {
                    Some(taker) => !taker.answers_for(identity) || went_on(run, identity),
                    None => went_on(run, identity),
                }
            }
            Basis::Branch { .. } | Basis::Nothing => false,
        };
        let records = self.verdicts.records.iter();
        let each = records.flat_map(|(identity, at)| at.keys().map(move |basis| (identity, *basis)));
        each.filter(|(identity, basis)| fell(identity, *basis))
            .map(|(identity, basis)| (identity.clone(), basis))
            .collect()
    }

    /// Whether this run is over and has this event.
    fn answers_for(&self, identity: &Identity) -> bool {
        !self.state.is_open() && self.state.applied.contains(identity)
    }

    /// Takes what [`Run::fallen`] said. True when it said something else before.
    pub fn judge_verdicts(&mut self, fallen: Fallen) -> bool {
        let changed = self.verdicts.fallen != fallen;
        self.verdicts.fallen = fallen;
        changed
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
