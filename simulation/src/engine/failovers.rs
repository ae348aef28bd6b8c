//! Failovers of the simulated world: the steps of a hand-over as the active region takes them (F1, F2) and the forced flip as
//! its target executes it (F3, C7), made of the very transitions of the namespace's record. What may come between the steps
//! comes: crashes, cuts, deadlines, another failover.

use std::collections::BTreeMap;

use antipode_core::{
    ids::{FailoverVersion, Sequence, ShardId, Timestamp},
    namespace::{Act, Forced, Phase, Record, Refusal, Standing},
};
use antipode_history::api::Refusal as ShardRefusal;
use antipode_replicator::clocks::{Skew, Verdict};

use super::{
    Due, Engine, Failure,
    script::{HandOverStep, NamespaceStep},
    seen::State,
    site::Asker,
    span::Span,
};
use crate::{
    region::Ticket,
    trace::{Belief, Kind},
};

/// A hand-over that runs in the memory of the active region.
#[derive(Clone, Debug)]
pub(crate) struct HandOver {
    operation: String,
    target: usize,
    barriers: BTreeMap<ShardId, Sequence>,
    /// Committed when the hand-over began: proved before anything is frozen.
    tips: BTreeMap<ShardId, Sequence>,
    frozen: bool,
    until: Timestamp,
}

/// How long a hand-over may take, unless told otherwise.
const DEADLINE: Span = Span::seconds(5);
/// How often an unfinished hand-over is looked at when nothing changes.
const LOOK_AGAIN: Span = Span::millis(500);

impl Engine {
    /// A region takes a record into use.
    pub(crate) fn set_record(&mut self, site: usize, record: Record) -> Result<(), Failure> {
        let before = self.sites[site].region.record.clone();
        if before == record {
            return Ok(());
        }
        let believed = record.version();
        let record = self.renewed(site, record);
        if record.version() != believed {
            self.watch.lineage.minted(record.version(), believed, true);
        }
        self.watch_record(site, &before, &record);
        // A hand-over ends with the version it began under: one thing at a time moves a namespace in a region.
        if record.version() != before.version() {
            self.sites[site].hand_over = None;
        }
        self.trace.hash(&record.to_bytes());
        let now = self.local(site);
        self.sites[site].region.set_record(record, now);
        self.believe(site);
        self.watch_activity();
        self.tend(site)?;
        self.records_moved(site)?;
        let standing = self.sites[site].region.record.standing(&self.sites[site].region.name);
        if matches!(standing, Standing::MayActivate { .. } | Standing::HandingOver { .. }) {
            let life = self.sites[site].region.life();
            self.after(Span::millis(1), Due::HandOver { site, life });
        }
        Ok(())
    }

    /// What another life of this region's store minted is no licence to write: it takes a new version first, above all that
    /// it can learn of (E2).
    fn renewed(&self, site: usize, record: Record) -> Record {
        let (here, life) = (self.name(site), self.sites[site].incarnation());
        if !record.is_of_another_life(here, life) {
            return record;
        }
        let others = (0..self.sites.len()).filter(|other| *other == site || self.reachable(site, *other));
        let seen_max = others.map(|other| self.watch.version_seen(other)).max().unwrap_or_default();
        let now = self.local(site);
        let why = "a new incarnation writes under a new version";
        let act = Act { regions: &self.members, here, now, who: "restore", why };
        let forced = Forced { seen_max: seen_max.max(record.version()), ..Forced::default() };
        record.force(&act, forced).map_or(record, |forced| forced.minted_in(life))
    }

    /// Tells the recording what a region believes.
    pub(crate) fn believe(&mut self, site: usize) {
        let at = self.trace.at();
        let region = &self.sites[site].region;
        let record = &region.record;
        let belief = Belief {
            at,
            region: site,
            namespace: record.name().to_string(),
            version: record.version().0,
            active: record.active().to_string(),
            phase: phase_name(record.phase()),
            writable: record.writable(&region.name).is_some(),
        };
        self.trace.hash_number(belief.version.unsigned_abs());
        self.trace.line(Kind::Failover, Some(site), None, || {
            format!("believes: version {}, {} in {}", belief.version, belief.phase, belief.active)
        });
        if let Some(recording) = &mut self.trace.recording {
            recording.beliefs.push(belief);
        }
    }

    /// A change of the record, made by a region.
    fn change(
        &mut self,
        site: usize,
        change: impl FnOnce(&Record, &Act<'_>) -> Result<Record, Refusal>,
    ) -> Result<Result<(), Refusal>, Failure> {
        let members = self.members.clone();
        let here = self.sites[site].region.name.clone();
        let now = self.local(site);
        let act = Act { regions: &members, here: &here, now, who: "operator", why: "simulated" };
        let before = self.sites[site].region.record.version();
        match change(&self.sites[site].region.record, &act) {
            Ok(record) if record.version() != before && record.active() == here => {
                let forced = record.history().get(&record.version()).is_some_and(|entry| entry.forced);
                self.watch.lineage.minted(record.version(), before, forced);
                let life = self.sites[site].incarnation();
                self.set_record(site, record.minted_in(life)).map(Ok)
            }
            Ok(record) => self.set_record(site, record).map(Ok),
            Err(refusal) => {
                self.trace.line(Kind::Failover, Some(site), None, || format!("refused: {refusal}"));
                Ok(Err(refusal))
            }
        }
    }

    pub(crate) fn namespace_step(&mut self, step: &NamespaceStep) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        if !self.sites[site].up {
            return Ok(());
        }
        if let Some(description) = &step.description {
            let _ = self.change(site, |record, act| {
                record.update_info(
                    act,
                    antipode_core::namespace::Info {
                        description: description.clone(),
                        ..record.info().clone()
                    },
                )
            })?;
        }
        if let Some(retention) = step.retention {
            self.watch.graves.retention(retention.0 / 1_000_000_000);
            let _ = self.change(site, |record, act| {
                let config =
                    antipode_core::namespace::Config { retention_seconds: retention.0 / 1_000_000_000 };
                record.update_config(act, config)
            })?;
        }
        if step.promote {
            let _ = self.change(site, Record::promote)?;
        }
        if !step.members.is_empty() {
            self.note(State::MembersChanged);
            let _ = self.change(site, |record, act| {
                record.set_members(act, step.members.iter().map(String::as_str))
            })?;
        }
        Ok(())
    }

    /// Starts a hand-over in the region that believes to be active.
    pub(crate) fn hand_over(&mut self, step: &HandOverStep) -> Result<(), Failure> {
        let target = self.site(&step.to)?;
        let active = (0..self.sites.len()).find(|site| self.believes_writable(*site));
        let Some(site) = active else { return Ok(()) };
        if site == target || self.sites[site].hand_over.is_some() {
            return Ok(());
        }
        let until = Timestamp(self.local(site).0 + step.deadline.unwrap_or(DEADLINE).0);
        let operation = format!("hand-over {}", self.trace.step);
        self.trace.line(Kind::Failover, Some(site), None, || format!("hand-over to {} begins", step.to));
        let tips = self.tips(site)?;
        // A barrier that was asked for an earlier hand-over says nothing about this one.
        self.sites[site].waiting.retain(|_, asker| !matches!(asker, Asker::Barrier(_)));
        self.sites[site].hand_over =
            Some(HandOver { operation, target, barriers: BTreeMap::new(), tips, frozen: false, until });
        let life = self.sites[site].region.life();
        self.tend_hand_over(site, life)
    }

    /// The operator takes a draining back.
    pub(crate) fn undo(&mut self, site: usize) -> Result<(), Failure> {
        // Too late once it is released: the record says so itself (F1).
        let operation = self.sites[site].region.record.phase().operation().map(str::to_string);
        if let Some(operation) = operation
            && self.sites[site].up
            && self.change(site, |record, act| record.undo_drain(act, &operation))?.is_ok()
        {
            self.note(State::DrainUndone);
            self.watch.thaw(site);
        }
        self.sites[site].waiting.retain(|_, asker| !matches!(asker, Asker::Barrier(_)));
        self.sites[site].hand_over = None;
        Ok(())
    }

    pub(crate) fn believes_writable(&self, site: usize) -> bool {
        let region = &self.sites[site].region;
        self.sites[site].up && region.record.writable(&region.name).is_some()
    }

    /// Goes on with whatever hand-over this region has a part in.
    pub(crate) fn tend_hand_over(&mut self, site: usize, life: u64) -> Result<(), Failure> {
        if !self.sites[site].up || self.sites[site].region.life() != life {
            return Ok(());
        }
        let here = self.sites[site].region.name.clone();
        let now = self.local(site);
        let phase = self.sites[site].region.record.phase().clone();
        match self.sites[site].region.record.standing(&here) {
            Standing::Writable(_) => self.before_freeze(site),
            Standing::HandingOver { deadline: Some(deadline), .. } => {
                if now >= deadline {
                    self.trace.line(Kind::Failover, Some(site), None, || "the deadline passed".to_string());
                    return self.undo(site);
                }
                self.look_again(site, life, Span(deadline.0 - now.0).min(LOOK_AGAIN));
                match phase {
                    Phase::Draining { operation, .. } => self.while_frozen(site, &operation),
                    _ => Ok(()),
                }
            }
            // Released: it is told to the target until that is active.
            Standing::HandingOver { deadline: None, .. } => {
                self.sites[site].hand_over = None;
                self.records_moved(site)
            }
            Standing::MayActivate { .. } => {
                let done = self.change(site, |record, act| record.activate_released(act, 0))?;
                if done.is_ok() {
                    self.note(State::HandedOver);
                    self.watch_handed_over(site);
                }
                Ok(())
            }
            Standing::Passive { .. } | Standing::Deleted => {
                self.sites[site].hand_over = None;
                Ok(())
            }
        }
    }

    fn look_again(&mut self, site: usize, life: u64, span: Span) {
        self.after(Span(span.0.max(1_000_000)), Due::HandOver { site, life });
    }

    /// Everything committed so far is proved before anything is frozen.
    fn before_freeze(&mut self, site: usize) -> Result<(), Failure> {
        let Some(hand_over) = self.sites[site].hand_over.clone() else { return Ok(()) };
        if self.local(site) >= hand_over.until {
            self.sites[site].hand_over = None;
            return Ok(());
        }
        let clocks = self.compare_clocks(site, hand_over.target);
        if clocks == Some(Verdict::Refuse) {
            self.note(State::SkewRefused);
            self.sites[site].hand_over = None;
            return Ok(());
        }
        self.want(site, hand_over.target, &hand_over.tips)?;
        if !self.proved(site, hand_over.target, &hand_over.tips)
            || !self.covers_others(site, hand_over.target, &hand_over.tips)
        {
            let life = self.sites[site].region.life();
            self.look_again(site, life, LOOK_AGAIN);
            return Ok(());
        }
        let target = self.name(hand_over.target).to_string();
        let (operation, until) = (hand_over.operation.clone(), hand_over.until);
        let begun = match clocks {
            // Nobody freezes for a target that cannot say what time it is.
            None => false,
            Some(_) => {
                self.change(site, |record, act| record.begin_drain(act, &target, &operation, until))?.is_ok()
            }
        };
        if !begun {
            self.sites[site].hand_over = None;
            return Ok(());
        }
        if clocks == Some(Verdict::Warn) {
            self.note(State::SkewWarned);
        }
        self.watch_frozen(site, hand_over.target);
        if let Some(hand_over) = &mut self.sites[site].hand_over {
            hand_over.frozen = true;
        }
        self.ask_barriers(site)
    }

    /// H2: what the target's clock says in answer to a question; none: it does not answer.
    fn compare_clocks(&mut self, site: usize, target: usize) -> Option<Verdict> {
        if !self.reachable(site, target) {
            return None;
        }
        let skew = self.measure_clock(site, target);
        let verdict = skew.verdict();
        if verdict == Verdict::Refuse {
            let (here, other) = (self.name(site).to_string(), self.name(target).to_string());
            self.trace.line(Kind::Failover, Some(site), None, || {
                format!("refused: {}", skew.between(&here, &other))
            });
        }
        Some(verdict)
    }

    /// H2: a region hears what another's clock says, and its shards know how far that one is behind from now on.
    pub(super) fn measure_clock(&mut self, site: usize, other: usize) -> Skew {
        let (ours, theirs) = (self.local(site), self.local(other));
        let skew = Skew::measured(ours, theirs, ours);
        let id = self.sites[other].region.id;
        self.sites[site].region.clock(ours, self.members.increment(), id, skew.behind());
        skew
    }

    fn ask_barriers(&mut self, site: usize) -> Result<(), Failure> {
        let now = self.local(site);
        for shard in (1..=self.sites[site].shards).map(ShardId) {
            let known = self.sites[site].hand_over.as_ref().is_some_and(|h| h.barriers.contains_key(&shard));
            let asked = self.sites[site]
                .waiting
                .values()
                .any(|asker| matches!(asker, Asker::Barrier(other) if *other == shard));
            if !known && !asked {
                let ticket = self.sites[site].region.barrier(now, shard);
                self.sites[site].waiting.insert(ticket, Asker::Barrier(shard));
            }
        }
        self.tend(site)
    }

    pub(crate) fn barrier_answered(
        &mut self,
        site: usize,
        ticket: Ticket,
        answer: Result<Sequence, ShardRefusal>,
    ) -> Result<(), Failure> {
        let Some(Asker::Barrier(shard)) = self.sites[site].waiting.remove(&ticket) else { return Ok(()) };
        if let (Ok(sequence), Some(hand_over)) = (&answer, &mut self.sites[site].hand_over) {
            hand_over.barriers.insert(shard, *sequence);
            self.watch.freeze(site, shard, *sequence);
        }
        let life = self.sites[site].region.life();
        // A barrier that a failed commit took with it is asked for again.
        let span = if answer.is_ok() { Span(0) } else { Span::millis(20) };
        self.after(span, Due::HandOver { site, life });
        Ok(())
    }

    /// Frozen: released once every shard's barrier is proved by the target, without exceptions (F2, E1).
    fn while_frozen(&mut self, site: usize, operation: &str) -> Result<(), Failure> {
        let Some(hand_over) = self.sites[site].hand_over.clone() else {
            // Nobody runs it any more: its deadline takes it back.
            return Ok(());
        };
        if usize::try_from(self.sites[site].shards).unwrap_or(0) > hand_over.barriers.len() {
            return self.ask_barriers(site);
        }
        self.want(site, hand_over.target, &hand_over.barriers)?;
        if !self.proved(site, hand_over.target, &hand_over.barriers)
            || self.has_exceptions(site, hand_over.target)
        {
            return Ok(());
        }
        let released = self.change(site, |record, act| record.release(act, operation))?;
        if released.is_ok() {
            self.watch_release(site, hand_over.target);
        }
        self.sites[site].hand_over = None;
        Ok(())
    }

    /// A forced failover begins: the target gathers what it can reach, and mints a moment later.
    pub(crate) fn force(&mut self, target: usize) -> Result<(), Failure> {
        if !self.sites[target].up {
            return Ok(());
        }
        let blind = self.gather(target)?;
        self.trace.line(Kind::Failover, Some(target), None, || {
            format!("forced failover begins{}", if blind { ", some regions do not answer" } else { "" })
        });
        let span = self.between([Span::millis(1), Span::millis(20)]);
        self.after(span, Due::Mint { site: target, blind });
        Ok(())
    }

    /// Asks every reachable region for its record and its greatest version; whether some did not answer (F3).
    fn gather(&mut self, target: usize) -> Result<bool, Failure> {
        let mut blind = false;
        for other in 0..self.sites.len() {
            if other == target {
                continue;
            }
            if !self.reachable(target, other) {
                blind = true;
                continue;
            }
            let theirs = self.sites[other].region.record.clone();
            let mut record = self.sites[target].region.record.clone();
            if record.merge(&theirs) {
                self.set_record(target, record)?;
            }
        }
        Ok(blind)
    }

    /// The target mints (F3): above everything it has seen.
    pub(crate) fn mint(&mut self, target: usize, blind: bool) -> Result<(), Failure> {
        if !self.sites[target].up {
            return Ok(());
        }
        let blind = self.gather(target)? || blind;
        let reachable: Vec<usize> = (0..self.sites.len())
            .filter(|other| *other == target || self.reachable(target, *other))
            .collect();
        let seen_max = reachable
            .iter()
            .map(|site| self.watch.version_seen(*site).max(self.sites[*site].region.record.version()))
            .max()
            .unwrap_or(FailoverVersion(0));
        let not_asked = (0..self.sites.len())
            .filter(|site| !reachable.contains(site))
            .map(|site| self.name(site).to_string());
        let forced = Forced { seen_max, predicted_loss_runs: None, not_asked: not_asked.collect() };
        if matches!(self.sites[target].region.record.phase(), Phase::Released { .. }) {
            self.note(State::ReleasedAndForced);
        }
        let done = self.change(target, |record, act| record.force(act, forced))?;
        if done.is_ok() {
            let minted = self.sites[target].region.record.version();
            if minted <= seen_max {
                let name = self.name(target).to_string();
                self.find(
                    "F3",
                    format!("{name} was forced active under {minted}, and {seen_max} had been seen"),
                );
            }
            self.fault("forced failover");
            if blind {
                self.note(State::ForcedBlind);
            }
            self.watch_forced(target);
        }
        Ok(())
    }

    /// Both directions are open and the other is up.
    pub(crate) fn reachable(&self, here: usize, other: usize) -> bool {
        self.sites[other].up && !self.links.is_cut(here, other) && !self.links.is_cut(other, here)
    }
}

/// The word for a phase.
pub(crate) fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Active => "active",
        Phase::Draining { .. } => "draining",
        Phase::Released { .. } => "released",
    }
}
