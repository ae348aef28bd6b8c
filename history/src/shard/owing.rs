//! What a run that does not own its workflow id owes to the one that does (B1), seen beside all other runs of the id: what one
//! of them took before it closed was delivered, and a later start of the same id is no reason to deliver it again (V11).

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::{
    identity::Identity,
    ids::{RunId, RunKey, WorkflowKey},
    owed::Owing,
};
use antipode_persistence::rows::RunRow;
use antipode_proto::core as wire;
use prost::Message;

use super::{Load, Shard, Stop, Token};

/// Version and place of the tip of a run's current branch, as its row has them.
pub(super) type Order = (i64, u64, u64);

impl<T: Token> Shard<T> {
    /// What this run owes now. Both runs and those around them in their chain are in memory.
    pub(super) fn owing(&mut self, key: &RunKey, owner: &RunKey) -> Result<Owing, Stop> {
        let lost = self.is_lost(key);
        let owing = self.cached(key)?.run.owed_to(&self.cached(owner)?.run, lost);
        if owing.is_empty() {
            return Ok(owing);
        }
        let taken = self.taken(key, Some(owner))?;
        Ok(owing.without(&taken))
    }

    /// The same when the run that owns the id was deleted after its retention.
    pub(super) fn owing_to_nobody(&mut self, key: &RunKey) -> Result<Owing, Stop> {
        let lost = self.is_lost(key);
        let owing = Owing { file: self.cached(key)?.run.owed_to_nobody(lost), ..Owing::default() };
        if owing.is_empty() {
            return Ok(owing);
        }
        let taken = self.taken(key, None)?;
        Ok(owing.without(&taken))
    }

    /// Identities that runs of the workflow id took which are over: of each chain the last such run is asked, because it knows
    /// what those before it took (B2). And what deleted ones took from others, unless their chain goes on without it, and what is
    /// filed on another run.
    fn taken(&mut self, key: &RunKey, owner: Option<&RunKey>) -> Result<BTreeSet<Identity>, Stop> {
        let workflow_key = key.workflow_key();
        let (mut chains, mut taken, mut filed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut graves = BTreeMap::new();
        for row in self.need_list(&workflow_key)? {
            let Ok(head) = wire::RunHead::decode(&*row.head) else { continue };
            match &head.deleted {
                Some(_) => {
                    graves.insert(row.key.run, head.clone());
                }
                None if !head.unclaimed.is_empty() => {
                    filed.insert(row.key.run);
                }
                None => {}
            }
            if let Some((first, order, run)) = place(row) {
                later(&mut chains, first, order, run);
            }
        }
        let Some(workflow) = self.workflows.get(&workflow_key) else { return Ok(taken) };
        graves.extend(workflow.deleted.iter().map(|(run, deleted)| (*run, deleted.head().clone())));
        filed.extend(
            workflow.runs.iter().filter(|(_, other)| !other.run.verdicts.is_empty()).map(|(id, _)| *id),
        );
        // What is not durable yet is in memory.
        for (id, cached) in &workflow.runs {
            let order = cached.run.order();
            let order = (order.version.0, order.place.epoch, order.place.sequence);
            later(&mut chains, cached.run.first_run.to_string(), order, *id);
        }
        for run in filed.into_iter().filter(|run| *run != key.run) {
            let other = RunKey { run, ..key.clone() };
            if self.need_run(&other)? {
                taken.extend(identities(self.cached(&other)?.run.unclaimed().into_iter()));
            }
        }
        let owner = owner.map(|owner| owner.run);
        for chain in chains.values() {
            for (_, run) in chain.iter().rev().take_while(|(_, run)| Some(*run) != owner) {
                let other = RunKey { run: *run, ..key.clone() };
                if *run == key.run || !self.need_run(&other)? {
                    continue;
                }
                self.need_descent(&other)?;
                let state = &self.cached(&other)?.run.state;
                if !state.is_open() && !self.is_lost(&other) {
                    taken.extend(state.applied.iter().cloned());
                    break;
                }
            }
        }
        for head in graves.values() {
            taken.extend(identities(head.unclaimed.iter().filter(|record| !record.delivered)));
            let took = took_by(head);
            // What is greater in its chain is stored: it knows what was taken on the way to it (B2).
            let after = chains.get(&head.first_run_id).and_then(BTreeSet::last).copied();
            let Some((_, run)) = after.filter(|(order, _)| Some(*order) > order_of(head)) else {
                taken.extend(took);
                continue;
            };
            let other = RunKey { run, ..key.clone() };
            if self.need_run(&other)? {
                let applied = &self.cached(&other)?.run.state.applied;
                taken.extend(took.filter(|identity| applied.contains(identity)));
            }
        }
        Ok(taken)
    }
}

impl<T: Token> Shard<T> {
    /// The stored rows of a workflow id; what is not durable yet is in memory and newer.
    pub(super) fn need_list(&self, key: &WorkflowKey) -> Result<&[RunRow], Stop> {
        let Some(workflow) = self.workflows.get(key) else { return Ok(&[]) };
        let in_flight = workflow.changed > self.durable;
        let listed = workflow.listed.as_ref().filter(|_| in_flight || !workflow.listed_early);
        listed.map(Vec::as_slice).ok_or_else(|| Stop::Load(Load::Runs(key.clone())))
    }
}

/// Of what records are.
fn identities<'a>(records: impl Iterator<Item = &'a wire::Unclaimed>) -> impl Iterator<Item = Identity> {
    records.filter_map(|record| record.identity.as_ref()).filter_map(Identity::from_wire)
}

/// What a deleted run took from others; nothing, when it comes back.
fn took_by(head: &wire::RunHead) -> impl Iterator<Item = Identity> {
    let deleted = head.deleted.iter().filter(|deleted| !deleted.revived);
    deleted.flat_map(|deleted| &deleted.took).filter_map(Identity::from_wire)
}

/// The runs of each chain, in their order. What is in memory is newer than what was listed of it.
fn later(chains: &mut BTreeMap<String, BTreeSet<(Order, RunId)>>, first: String, order: Order, run: RunId) {
    let chain = chains.entry(first).or_default();
    chain.retain(|(_, other)| *other != run);
    chain.insert((order, run));
}

/// Version and place of the tip of the branch that is current in a head.
fn order_of(head: &wire::RunHead) -> Option<Order> {
    let current = head.branches.get(usize::try_from(head.current).ok()?)?;
    let place = current.place?;
    Some((current.items.last()?.version, place.epoch, place.sequence))
}

/// First run of its chain, order and id of a stored run; none of a deleted one.
pub(super) fn place(row: &RunRow) -> Option<(String, Order, RunId)> {
    let head = wire::RunHead::decode(&*row.head).ok().filter(|head| head.deleted.is_none())?;
    let order = order_of(&head)?;
    Some((head.first_run_id, order, row.key.run))
}
