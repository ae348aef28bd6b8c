//! Oracles: what must hold, seen from outside (Appendix B of the reference, as amended by the laws).

use std::collections::{BTreeMap, BTreeSet};

use antipode_conflict::{RunFacts, arbitrate};
use antipode_core::{
    digest::digest,
    ids::{RunId, RunKey},
    run::Run,
};
use antipode_history::api::{Operation, Reply, Request};
use antipode_persistence::store::RunStore;
use antipode_proto::{
    api::{
        enums::v1::EventType,
        history::v1::{HistoryEvent, history_event::Attributes},
    },
    core as wire,
};
use futures::FutureExt;
use prost::Message;

use crate::world::{Failure, World};

/// A broken law, in words.
pub type Finding = String;

impl World {
    /// Runs of a workflow id as stored in a region: each folded anew from its batches.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn stored_runs(&self, region: usize, workflow: &str) -> Result<BTreeMap<RunId, Run>, Failure> {
        let key = self.key(workflow);
        let region = &self.regions[region];
        let shard = antipode_core::ids::ShardId(u32::try_from(region.shard_of(&key)).unwrap_or(0) + 1);
        let restless = |why: String| Failure::Restless(why);
        let rows = region.store.run_list(shard, &key).now_or_never().transpose();
        let rows = rows.map_err(|error| restless(error.to_string()))?.unwrap_or_default();
        let mut runs = BTreeMap::new();
        for row in rows {
            let loaded = region.store.run_load(shard, &row.key).now_or_never().transpose();
            let Some(Some(stored)) = loaded.map_err(|error| restless(error.to_string()))? else { continue };
            let head =
                wire::RunHead::decode(&*stored.row.head).map_err(|error| restless(error.to_string()))?;
            let batches = stored.batches.iter().map(|row| row.batch.clone());
            let run =
                Run::restore(row.key.clone(), &head, batches).map_err(|error| restless(error.to_string()))?;
            runs.insert(row.key.run, run);
        }
        Ok(runs)
    }

    /// V09: at rest all regions hold the same runs, branches, registers, pending sets and current record; V05: memory is
    /// the fold of what is stored.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn check_converged(&mut self, workflows: &BTreeSet<String>) -> Result<Vec<Finding>, Failure> {
        let mut findings = Vec::new();
        for workflow in workflows {
            let first = self.stored_runs(0, workflow)?;
            for region in 0..self.regions.len() {
                let runs = self.stored_runs(region, workflow)?;
                let name = self.regions[region].name.clone();
                if runs.keys().collect::<Vec<_>>() != first.keys().collect::<Vec<_>>() {
                    findings.push(format!(
                        "V09 {workflow}: {name} holds {:?}, east {:?}",
                        runs.keys(),
                        first.keys()
                    ));
                    continue;
                }
                for (id, run) in &runs {
                    let (here, there) = (digest(run), digest(&first[id]));
                    if here != there {
                        findings.push(format!(
                            "V09 {workflow}/{id}: {name} {here} east {there}\n  {name}: {}\n  east: {}",
                            portrait(run),
                            portrait(&first[id])
                        ));
                    }
                    if let Some(inspect) = self.inspect(region, workflow, Some(*id))?
                        && inspect.digest != here
                    {
                        findings.push(format!(
                            "V05 {workflow}/{id}: {name} remembers {} and stores {here}",
                            inspect.digest
                        ));
                    }
                }
                let (mine, easts) = (self.owner(region, workflow)?, self.owner(0, workflow)?);
                if mine != easts {
                    findings.push(format!("V07 {workflow}: {name} says {mine:?} owns it, east {easts:?}"));
                }
            }
            findings.extend(self.check_owner(workflow, &first)?);
        }
        Ok(findings)
    }

    /// V07: the current record names the greatest run.
    fn check_owner(
        &mut self,
        workflow: &str,
        runs: &BTreeMap<RunId, Run>,
    ) -> Result<Option<Finding>, Failure> {
        let facts: Vec<_> = runs
            .iter()
            .map(|(id, run)| RunFacts { run: *id, order: run.order(), open: run.state.is_open() })
            .collect();
        let greatest = arbitrate(&facts).current.map(|facts| facts.run);
        let owner = self.owner(0, workflow)?;
        Ok((owner != greatest)
            .then(|| format!("V07 {workflow}: {owner:?} owns it, {greatest:?} is greatest")))
    }

    fn owner(&mut self, region: usize, workflow: &str) -> Result<Option<RunId>, Failure> {
        let inspect = self.inspect(region, workflow, None)?;
        Ok(inspect.and_then(|inspect| inspect.current_run_id.parse().ok()))
    }

    /// V06: at most one run of a workflow id is open to the API in a region.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn open_runs(&mut self, region: usize, workflow: &str) -> Result<Vec<RunKey>, Failure> {
        let key = self.key(workflow);
        let mut open = Vec::new();
        for run in self.stored_runs(region, workflow)?.into_keys() {
            let request = Request { workflow: key.clone(), run: Some(run), operation: Operation::Describe };
            if let Some(Ok(Reply::Describe(reply))) = self.ask(region, request)?
                && reply.workflow_execution_info.is_some_and(|info| info.status == 1)
            {
                open.push(key.run(run));
            }
        }
        Ok(open)
    }
}

/// What a run is made of, for a finding.
fn portrait(run: &Run) -> String {
    let branches: Vec<_> =
        run.branches().iter().map(|branch| format!("{}…{}", branch.items, branch.chain)).collect();
    format!(
        "branches {branches:?} registers {:?} pending {:?} applied {} task {:?}",
        run.registers.iter().map(|register| format!("{register:?}")).collect::<Vec<_>>(),
        run.pending.keys().collect::<Vec<_>>(),
        run.state.applied.len(),
        run.task()
    )
}

/// Request ids of the signals in a history, in order.
#[must_use]
pub fn signals(events: &[HistoryEvent]) -> Vec<String> {
    let signal = |event: &HistoryEvent| match &event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => Some(a.request_id.clone()),
        _ => None,
    };
    events.iter().filter_map(signal).collect()
}

/// Names of the event types of a history with versions, compact.
#[must_use]
pub fn outline(events: &[HistoryEvent]) -> String {
    let name = |event: &HistoryEvent| {
        let kind = EventType::try_from(event.event_type).unwrap_or_default();
        format!(
            "{}@{}:{}",
            event.event_id,
            event.version,
            kind.as_str_name().trim_start_matches("EVENT_TYPE_")
        )
    };
    events.iter().map(name).collect::<Vec<_>>().join(" ")
}
