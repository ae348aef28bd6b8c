//! Oracles that look while the world runs: at every commit, every record, every acknowledgement. They know all regions at
//! once, which no region does, and they are cheap, because each looks only at what is new.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    ids::{FailoverVersion, Incarnation, Place, RegionId, RunId, RunOrder, Sequence, ShardId, Timestamp},
    namespace::{Phase, Record, Standing},
};
use antipode_persistence::rows::Group;
use antipode_proto::core as wire;
use prost::Message;

use super::{Engine, graves::Graves, lineage::Lineage, seen::State};

/// Of a history only the times of its events.
#[derive(Clone, PartialEq, Message)]
struct Times {
    #[prost(message, repeated, tag = "1")]
    events: Vec<TimeOf>,
}

/// Of an event only its time.
#[derive(Clone, PartialEq, Message)]
struct TimeOf {
    #[prost(message, optional, tag = "2")]
    event_time: Option<prost_types::Timestamp>,
}

/// What a region has had in its store, and what it wrote itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    chains: BTreeSet<ChainValue>,
    own: BTreeMap<ChainValue, (FailoverVersion, RunId)>,
    log: BTreeMap<(ShardId, Sequence), (RunId, ChainValue, RegionId)>,
    version: FailoverVersion,
}

#[derive(Clone, Debug)]
struct RunSeen {
    origin: RegionId,
    first: ChainValue,
    first_run: RunId,
}

/// What the oracles remember.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) workflows: BTreeSet<String>,
    pub(crate) graves: Graves,
    stored: BTreeMap<usize, Stored>,
    frozen: BTreeMap<(usize, ShardId), Sequence>,
    /// Content of (run, first event, version, batch before).
    content: BTreeMap<(RunId, i64, FailoverVersion, ChainValue), ChainValue>,
    /// Time of the last event of each batch.
    times: BTreeMap<ChainValue, i64>,
    runs: BTreeMap<String, BTreeMap<RunId, RunSeen>>,
    checked: BTreeMap<(usize, usize, ShardId), Sequence>,
    /// Entries of a region that were not addressed to another: the list did not have it when they were written.
    unaddressed: BTreeSet<(usize, usize, ShardId, Sequence)>,
    /// When each became active, by force or by hand-over.
    actives: Vec<(Timestamp, usize, bool)>,
    /// A region was restored: one owner may have written twice (G2).
    pub(crate) restores: u32,
    /// Failovers whose version took effect.
    pub(crate) failovers: u64,
    pub(crate) forced: u64,
    splits: bool,
    nobody: bool,
    /// Who owns each workflow id in a region, and whether that run is open.
    owners: BTreeMap<(usize, String), (RunId, bool)>,
    losers: BTreeSet<(usize, RunId)>,
    /// Keys of clients in batches that some region stored, by chain, with the lowest version that wrote them.
    pub(super) taken: BTreeMap<(RunId, String), FailoverVersion>,
    /// Calls, by workflow id and request id, that no store had after a restore.
    pub(super) excused: BTreeSet<(String, String)>,
    pub(super) restored_at: Option<Timestamp>,
    /// What each version was minted from.
    pub(super) lineage: Lineage,
    /// Lives of stores that may have written under a version.
    minted: BTreeMap<FailoverVersion, BTreeSet<Incarnation>>,
    /// Order of the current record, by region and workflow id (B6).
    orders: BTreeMap<(usize, String), RunOrder>,
}

impl Watch {
    fn of(&mut self, site: usize) -> &mut Stored {
        self.stored.entry(site).or_default()
    }

    pub(crate) fn stored_of(&self, site: usize) -> Stored {
        self.stored.get(&site).cloned().unwrap_or_default()
    }

    pub(crate) fn version_seen(&self, site: usize) -> FailoverVersion {
        self.stored.get(&site).map(|stored| stored.version).unwrap_or_default()
    }

    pub(crate) fn restored(&mut self, site: usize, stored: Stored, deleted: &BTreeMap<RunId, bool>) {
        self.restores += 1;
        self.thaw(site);
        self.orders.retain(|(other, _), _| *other != site);
        if let Some(before) = self.stored.insert(site, stored) {
            self.graves.lost(site, &before.chains, deleted);
        }
        self.checked.retain(|(from, to, _), _| *from != site && *to != site);
    }

    /// A version was seen in an entry that no record covers (F5).
    pub(crate) fn saw(&mut self, site: usize, version: FailoverVersion) {
        let stored = self.of(site);
        stored.version = stored.version.max(version);
    }

    /// Has this region had a batch in its store, in its present life?
    pub(crate) fn has_chain(&self, site: usize, chain: &ChainValue) -> bool {
        self.stored.get(&site).is_some_and(|stored| stored.chains.contains(chain))
    }

    /// Batches of a run that a region has had in its store and retention did not delete.
    pub(crate) fn chains_of(&self, site: usize) -> BTreeMap<RunId, BTreeSet<ChainValue>> {
        let mut chains: BTreeMap<RunId, BTreeSet<ChainValue>> = BTreeMap::new();
        for (run, chain, _) in self.stored.get(&site).into_iter().flat_map(|stored| stored.log.values()) {
            chains.entry(*run).or_default().insert(*chain);
        }
        chains
    }

    /// Positions of a region were forgotten: proofs are checked from the start.
    pub(crate) fn forget_checked(&mut self, to: usize) {
        self.checked.retain(|(_, other, _), _| *other != to);
    }

    /// Runs of a workflow id that any region ever started.
    pub(crate) fn runs_of(&self, workflow: &str) -> Vec<RunId> {
        self.runs.get(workflow).map(|runs| runs.keys().copied().collect()).unwrap_or_default()
    }

    /// A shard committed its barrier.
    pub(crate) fn freeze(&mut self, site: usize, shard: ShardId, at: Sequence) {
        self.frozen.insert((site, shard), at);
    }

    /// A draining was taken back, or its owner died.
    pub(crate) fn thaw(&mut self, site: usize) {
        self.frozen.retain(|(other, _), _| *other != site);
    }

    /// Every acknowledged divergence has a cause of which some are outside the code: was there one?
    pub(crate) fn lossy(&self) -> bool {
        self.forced > 0 || self.restores > 0
    }
}

impl Engine {
    /// A group is durable.
    pub(crate) fn committed(&mut self, site: usize, group: &Group) {
        self.trace.hash_group(site, group);
        self.record_trees(site, group);
        self.note_owners(site, group);
        self.transitions += group.runs.len() as u64;
        if !group.deletes.is_empty() {
            // What retention deleted is nobody's any more: a restored peer may prove positions that are empty now.
            let log = &mut self.watch.of(site).log;
            log.retain(|_, (run, _, _)| !group.deletes.iter().any(|key| key.run == *run));
        }
        let here = self.sites[site].region.id;
        for row in &group.batches {
            let envelope = &row.batch.envelope;
            let chain = row.batch.chain;
            let own = envelope.origin.region == here;
            self.events += u64::try_from(envelope.last_event.0 - envelope.first_event.0 + 1).unwrap_or(0);
            for other in 0..self.sites.len() {
                if !self.sites[site].region.record.has_member(&self.sites[other].region.name) {
                    self.watch.unaddressed.insert((site, other, group.shard, row.sequence));
                }
            }
            let stored = self.watch.of(site);
            stored.chains.insert(chain);
            stored.version = stored.version.max(envelope.version);
            stored.log.insert((group.shard, row.sequence), (envelope.run.run, chain, envelope.origin.region));
            if own {
                stored.own.insert(chain, (envelope.version, envelope.run.run));
            }
            self.check_batch(site, group.shard, row.sequence, &row.batch.envelope, chain, own);
            self.check_times(site, &row.batch);
            if own && envelope.successor.is_some() {
                self.note(State::Continued);
            }
            let later = envelope
                .identities
                .iter()
                .any(|event| event.reapplied_from.is_some_and(|(run, _)| run != envelope.run.run));
            if own && later {
                self.note(State::ReappliedLater);
            }
            if envelope.first_event.0 == 1 {
                self.note_start(site, envelope, chain, own);
            }
            let of_workflow = self.watch.runs.get(envelope.run.workflow.as_str());
            if let Some(first_run) =
                of_workflow.and_then(|runs| runs.get(&envelope.run.run)).map(|seen| seen.first_run)
            {
                self.watch.takes(first_run, envelope);
            }
        }
    }

    /// A workflow id may change hands: who lost it, and who gets it back.
    fn note_owners(&mut self, site: usize, group: &Group) {
        for row in &group.currents {
            self.check_order(site, row.key.workflow.as_str(), &row.record);
            let Ok(run) = row.record.run_id.parse::<RunId>() else { continue };
            let before =
                self.watch.owners.insert((site, row.key.workflow.to_string()), (run, row.record.open));
            if let Some((other, true)) = before.filter(|(other, _)| *other != run) {
                self.watch.losers.insert((site, other));
            }
            if row.record.open && self.watch.losers.remove(&(site, run)) {
                self.note(State::ZombieRevived);
            }
        }
        for key in &group.forgets {
            self.watch.orders.remove(&(site, key.workflow.to_string()));
        }
        for row in group.batches.iter().filter(|row| row.batch.envelope.first_event.0 == 1) {
            // A run that arrives and does not get the id is superseded from the start.
            let key = (site, row.batch.envelope.run.workflow.to_string());
            let run = row.batch.envelope.run.run;
            if self.watch.owners.get(&key).is_some_and(|(owner, _)| *owner != run) {
                self.watch.losers.insert((site, run));
            }
        }
    }

    /// B6: the current record is never lowered, whatever is deleted.
    fn check_order(&mut self, site: usize, workflow: &str, record: &wire::CurrentRecord) {
        let place = record.place.as_ref();
        let order = RunOrder {
            version: FailoverVersion(record.version),
            place: place.map_or_else(Place::default, |at| Place { epoch: at.epoch, sequence: at.sequence }),
        };
        let before = self.watch.orders.insert((site, workflow.to_string()), order);
        if let Some(before) = before.filter(|before| order < *before) {
            let name = self.name(site).to_string();
            self.find("B6", format!("{name} lowered the record of {workflow} from {before:?} to {order:?}"));
        }
    }

    fn check_batch(
        &mut self,
        site: usize,
        shard: ShardId,
        at: Sequence,
        envelope: &antipode_core::batch::Envelope,
        chain: ChainValue,
        own: bool,
    ) {
        let name = self.name(site).to_string();
        let run = envelope.run.run;
        if own && envelope.version.0 != 0 && !self.members.owns(&name, envelope.version) {
            self.find(
                "V12",
                format!("{name} wrote {run} under version {}, which is not its own", envelope.version),
            );
        }
        // What a restored region wrote in an earlier life comes back to it like anybody's, also where both minted one version.
        let now = own
            && envelope.origin.incarnation == self.sites[site].incarnation()
            && envelope.version == self.sites[site].region.record.version();
        if now
            && let Some(barrier) = self.watch.frozen.get(&(site, shard))
            && at > *barrier
        {
            self.find("F2", format!("{name} wrote {run} at {at} of {shard}, after its barrier at {barrier}"));
        }
        if envelope
            .items
            .last()
            .is_none_or(|item| item.event != envelope.last_event || item.version != envelope.version)
        {
            self.find(
                "V01",
                format!(
                    "{name}: a batch of {run} ends with {} but its history with {}",
                    envelope.last_event, envelope.items
                ),
            );
        }
        let key = (run, envelope.first_event.0, envelope.version, envelope.previous);
        let known = *self.watch.content.entry(key).or_insert(chain);
        // A store that was put back in time may mint a version that it minted before (G2).
        let minted_twice = self.watch.minted.get(&envelope.version).is_some_and(|lives| lives.len() > 1);
        if known != chain && !minted_twice {
            self.find(
                "V02",
                format!(
                    "{name}: event {}@{} of {run} has two contents after the same batch",
                    envelope.first_event, envelope.version
                ),
            );
        }
    }

    /// H2: the time of events never falls along a branch, whatever the clocks say. One content for one chain value, so whoever
    /// stores a batch first shows it for all.
    fn check_times(&mut self, site: usize, batch: &Batch) {
        if let Some(written) = self.watch.times.get(&batch.chain) {
            let age = self.now.0.saturating_sub(*written);
            if age > self.sites[site].region.record.config().retention_seconds * 1_000_000_000 {
                self.note(State::OutlivedRetention);
            }
            return;
        }
        let mut last = self.watch.times.get(&batch.envelope.previous).copied().unwrap_or(i64::MIN);
        let Ok(events) = Times::decode(&*batch.events) else { return };
        for time in events.events.into_iter().filter_map(|event| event.event_time) {
            let at = time.seconds * 1_000_000_000 + i64::from(time.nanos);
            if at < last {
                let name = self.name(site).to_string();
                let (run, first) = (batch.envelope.run.run, batch.envelope.first_event);
                self.find(
                    "H2",
                    format!(
                        "{name}: in the batch from event {first}@{} of {run} time falls by {}",
                        batch.envelope.version,
                        super::span::Span(last - at)
                    ),
                );
            }
            last = last.max(at);
        }
        self.watch.times.insert(batch.chain, last);
    }

    fn note_start(
        &mut self,
        site: usize,
        envelope: &antipode_core::batch::Envelope,
        chain: ChainValue,
        own: bool,
    ) {
        let runs = self.watch.runs.entry(envelope.run.workflow.to_string()).or_default();
        let strangers: Vec<ChainValue> = runs
            .values()
            .filter(|other| other.first_run != envelope.first_run && other.origin != envelope.origin.region)
            .map(|other| other.first)
            .collect();
        runs.entry(envelope.run.run).or_insert(RunSeen {
            origin: envelope.origin.region,
            first: chain,
            first_run: envelope.first_run,
        });
        let stored = self.watch.stored_of_ref(site);
        if own && strangers.iter().any(|first| !stored.is_some_and(|stored| stored.chains.contains(first))) {
            self.note(State::TwoRuns);
        }
    }

    /// A region takes a record into use: versions never fall, and equal ones mean the same owner (V13).
    pub(crate) fn watch_record(&mut self, site: usize, before: &Record, after: &Record) {
        let name = self.name(site).to_string();
        if after.version() < before.version() {
            self.find(
                "V13",
                format!("{name}: the version fell from {} to {}", before.version(), after.version()),
            );
        }
        if after.version() == before.version() && after.active() != before.active() {
            self.find(
                "V13",
                format!(
                    "{name}: version {} belongs to {} and to {}",
                    after.version(),
                    before.active(),
                    after.active()
                ),
            );
        }
        let released = |record: &Record| matches!(record.phase(), Phase::Released { .. });
        if after.version() == before.version() && released(before) && !released(after) {
            self.find("F1", format!("{name} takes its release of version {} back", before.version()));
        }
        let life = self.sites[site].incarnation();
        if let Standing::Writable(version) = after.standing_in(&name, life) {
            self.watch.minted.entry(version).or_default().insert(life);
        }
        let stored = self.watch.of(site);
        stored.version = stored.version.max(after.version());
        if after.version() > before.version() {
            self.watch.thaw(site);
        }
    }

    /// Who believes to be active now?
    pub(crate) fn watch_activity(&mut self) {
        let active: Vec<usize> = (0..self.sites.len()).filter(|site| self.believes_writable(*site)).collect();
        let versions: BTreeSet<_> =
            active.iter().map(|site| self.sites[*site].region.record.version()).collect();
        if active.len() > versions.len() {
            let names: Vec<_> = active.iter().map(|site| self.name(*site).to_string()).collect();
            self.find("V12", format!("{} may write under the same version", names.join(" and ")));
        }
        if active.len() > 1 && !self.watch.splits {
            self.note(State::SplitBrain);
        }
        if active.is_empty() && !self.watch.nobody {
            self.note(State::NobodyActive);
        }
        (self.watch.splits, self.watch.nobody) = (active.len() > 1, active.is_empty());
    }

    fn became_active(&mut self, site: usize, forced: bool) {
        self.watch.failovers += 1;
        let now = self.now;
        if let Some((at, other, _)) = self.watch.actives.iter().rev().nth(1)
            && *other == site
            && now.0 - at.0 < 10_000_000_000
        {
            self.note(State::Failback);
        }
        if let Some((at, other, true)) = self.watch.actives.last()
            && forced
            && *other != site
            && now.0 - at.0 < 1_000_000_000
        {
            self.note(State::TwoForces);
        }
        self.watch.actives.push((now, site, forced));
    }

    pub(crate) fn watch_forced(&mut self, site: usize) {
        self.watch.forced += 1;
        self.became_active(site, true);
    }

    /// H2: a namespace is frozen for a target. Between clocks further apart than half a minute that is not begun; a clock that is
    /// set wrong later changes nothing.
    pub(crate) fn watch_frozen(&mut self, site: usize, target: usize) {
        let apart = self.sites[site].skew.0.abs_diff(self.sites[target].skew.0);
        if apart > 30_000_000_000 {
            let (a, b) = (self.name(site).to_string(), self.name(target).to_string());
            let millis = apart / 1_000_000;
            self.find("H2", format!("{a} hands over to {b} although their clocks are {millis} ms apart"));
        }
    }

    /// A release: from now on the old region's writes are final, and the target has them; what retention deleted in either
    /// need not be there (C6).
    pub(crate) fn watch_release(&mut self, site: usize, target: usize) {
        let old = self.sites[site].region.id;
        let version = self.sites[site].region.record.version();
        let missing: Vec<ChainValue> = {
            let there = self.watch.stored_of_ref(target);
            let here = self.watch.stored_of_ref(site);
            let lacks = |chain: &ChainValue| !there.is_some_and(|there| there.chains.contains(chain));
            let graves = &self.watch.graves;
            let deleted =
                |chain: &ChainValue, run: &RunId| graves.has(target, run) || graves.holds(site, run, chain);
            here.map(|here| {
                here.own
                    .iter()
                    .filter(|(chain, (v, run))| *v == version && lacks(chain) && !deleted(chain, run))
                    .map(|(chain, _)| *chain)
                    .collect()
            })
            .unwrap_or_default()
        };
        if let Some(chain) = missing.first() {
            let (a, b) = (self.name(site).to_string(), self.name(target).to_string());
            self.find("V18", format!(
                "{a} (region {old:?}) released version {version} to {b}, which lacks {} of its batches, for example {chain}", missing.len()
            ));
        }
    }

    pub(crate) fn watch_handed_over(&mut self, site: usize) {
        self.became_active(site, false);
    }

    /// V15 as amended by E1: what a receiver has proved is in its store, or a named exception. What comes for a run that
    /// retention deleted there is answered by the tombstone and not stored (C6); V10 asks for what clients gave it.
    pub(crate) fn watch_proof(
        &mut self,
        from: usize,
        to: usize,
        shard: ShardId,
        proof: Sequence,
        excepted: &BTreeSet<RunId>,
    ) {
        let id = self.sites[from].region.id;
        let after = self.watch.checked.get(&(from, to, shard)).copied().unwrap_or_default();
        if proof <= after {
            return;
        }
        let missing = {
            let Some(there) = self.watch.stored_of_ref(to) else { return };
            let Some(here) = self.watch.stored_of_ref(from) else { return };
            here.log
                .range((shard, after.next())..=(shard, proof))
                .find(|((_, at), (run, chain, origin))| {
                    *origin == id
                        && !there.chains.contains(chain)
                        && !excepted.contains(run)
                        && !self.watch.graves.has(to, run)
                        && !self.watch.unaddressed.contains(&(from, to, shard, *at))
                })
                .map(|((_, at), (run, _, _))| (*at, *run))
        };
        self.watch.checked.insert((from, to, shard), proof);
        if let Some((at, run)) = missing {
            let (a, b) = (self.name(from).to_string(), self.name(to).to_string());
            self.find("V15", format!("{b} proved {shard} of {a} through {proof}, but lacks {run} at {at}"));
        }
    }

    /// After each step.
    pub(crate) fn look(&mut self) {}
}

impl Watch {
    fn stored_of_ref(&self, site: usize) -> Option<&Stored> {
        self.stored.get(&site)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use antipode_core::ids::{Sequence, ShardId};

    use super::Engine;
    use crate::scenario;

    #[test]
    fn what_comes_back_of_an_earlier_life_is_not_written_after_a_barrier() {
        // F2, E2: both lives minted the version under which the region writes.
        let text = "name: t\nabout: One run.\nworld:\n  regions: [{name: east, shards: 1, workers: false}]\n\
                    steps:\n  - start: {workflow: w, in: east, id: s0}\n  - settle: cut\n";
        let script = scenario::parse("t.yaml", text).unwrap();
        let mut engine = Engine::new(&script.world, None).unwrap();
        for step in &script.steps {
            engine.perform(step).unwrap();
        }
        engine.settle(false).unwrap();
        let rows = engine.sites[0].region.stored_rows(&engine.key("w")).unwrap();
        let batch = rows[0].batches[0].batch.clone();
        engine.watch.freeze(0, ShardId(1), Sequence(0));
        let look = |engine: &mut Engine| {
            engine.check_batch(0, ShardId(1), Sequence(9), &batch.envelope, batch.chain, true);
            engine.findings.drain(..).map(|finding| finding.oracle).collect::<Vec<_>>()
        };
        assert_eq!(look(&mut engine), ["F2"]);
        engine.sites[0].incarnations += 100;
        assert_eq!(look(&mut engine), [""; 0]);
    }
}
