//! What the operator's `run inspect` and `run branches` show: the tree, the winner and why, the digest, what waits, what
//! was dropped with a reason, and the runs of the workflow id (I16).

use antipode_conflict::{explain::why_current, rollback::rollback};
use antipode_core::{
    chain::ChainValue,
    digest::digest,
    ids::{EventId, RunKey},
    run::Run,
    tree::{Branch, Tree},
};
use antipode_persistence::rows::RunRow;
use antipode_proto::{admin, api::enums::v1::EventType, core as wire};
use prost::Message;

use super::{Load, Shard, Stop, Token};
use crate::api::{Reply, Request};

impl<T: Token> Shard<T> {
    /// Digest of a run as it is remembered here; none: it is not in memory.
    #[must_use]
    pub fn remembered(&self, key: &RunKey) -> Option<String> {
        self.cached(key).ok().map(|cached| digest(&cached.run))
    }

    pub(super) fn inspect(&mut self, request: &Request) -> Result<Reply, Stop> {
        let key = self.resolve(request)?;
        let workflow = self.workflows.get(&request.workflow).filter(|workflow| !workflow.listed_early);
        let listed = workflow.and_then(|workflow| workflow.listed.clone());
        // The list of runs is read from the store; what is in memory is newer and replaces its rows.
        let durable = self.changed(&request.workflow) <= self.durable;
        let listed = match listed {
            Some(listed) => listed,
            None if durable => return Err(Stop::Load(Load::Runs(request.workflow.clone()))),
            None => Vec::new(),
        };
        let run = &self.cached(&key)?.run;
        let current = self.is_current(&key);
        let owner = self.workflows.get(&request.workflow).and_then(super::cache::Workflow::current_run);
        let reply = admin::InspectRunReply {
            namespace_id: key.namespace.to_string(),
            workflow_id: key.workflow.to_string(),
            run_id: key.run.to_string(),
            first_run_id: run.first_run.to_string(),
            state: state_name(run, current).to_string(),
            status: run
                .state
                .status
                .as_str_name()
                .trim_start_matches("WORKFLOW_EXECUTION_STATUS_")
                .to_string(),
            branches: branches(run),
            current: u32::try_from(run.branches().len().saturating_sub(1)).unwrap_or(0),
            digest: digest(run),
            why: run.tree.as_ref().map(why_current).unwrap_or_default(),
            registers: run.registers.iter().map(|register| format!("{register:?}")).collect(),
            pending: run.pending.keys().map(|identity| format!("{identity:?}")).collect(),
            unclaimed: run.unclaimed().into_iter().cloned().collect(),
            current_run_id: owner.map(|run| run.to_string()).unwrap_or_default(),
            runs: self.summaries(&key, &listed),
            rollback: rollback(run)
                .map(|report| admin::Explained { words: report.words(), json: report.json() }),
            // Told by who knows the state of every run (`complete` of the operator service).
            owner: None,
        };
        Ok(Reply::Inspect(Box::new(reply)))
    }

    fn summaries(&self, key: &RunKey, listed: &[RunRow]) -> Vec<admin::RunSummary> {
        let workflow = self.workflows.get(&key.workflow_key());
        let owner = workflow.and_then(super::cache::Workflow::current_run);
        let mut summaries = std::collections::BTreeMap::new();
        for row in listed {
            let Ok(head) = wire::RunHead::decode(&*row.head) else { continue };
            let tip = usize::try_from(head.current).ok().and_then(|index| head.branches.get(index));
            let version = tip.and_then(|branch| branch.items.last()).map_or(0, |item| item.version);
            let place = tip.and_then(|branch| branch.place).unwrap_or_default();
            let current = owner == Some(row.key.run);
            summaries.insert(
                row.key.run,
                admin::RunSummary {
                    run_id: row.key.run.to_string(),
                    state: if head.deleted.is_some() { "Deleted".to_string() } else { String::new() },
                    status: String::new(),
                    version,
                    place_epoch: place.epoch,
                    place_sequence: place.sequence,
                    current,
                },
            );
        }
        for (id, cached) in workflow.iter().flat_map(|workflow| &workflow.runs) {
            let (run, order) = (&cached.run, cached.run.order());
            let current = owner == Some(*id);
            summaries.insert(
                *id,
                admin::RunSummary {
                    run_id: id.to_string(),
                    state: state_name(run, current).to_string(),
                    status: run
                        .state
                        .status
                        .as_str_name()
                        .trim_start_matches("WORKFLOW_EXECUTION_STATUS_")
                        .to_string(),
                    version: order.version.0,
                    place_epoch: order.place.epoch,
                    place_sequence: order.place.sequence,
                    current,
                },
            );
        }
        summaries.into_values().collect()
    }
}

/// R600: state of a run, derived.
fn state_name(run: &Run, current: bool) -> &'static str {
    match (run.state.is_open(), current) {
        (false, _) => "Completed",
        (true, false) => "Zombie",
        (true, true) if run.state.task_anchor.event.0 == 0 => "Created",
        (true, true) => "Running",
    }
}

fn branches(run: &Run) -> Vec<admin::BranchInfo> {
    let Some(tree) = &run.tree else { return Vec::new() };
    let current = tree.current();
    tree.branches().iter().map(|branch| branch_info(run, tree, current, branch)).collect()
}

fn branch_info(run: &Run, tree: &Tree, current: &Branch, branch: &Branch) -> admin::BranchInfo {
    let is_current = branch.chain == current.chain;
    let fork = if is_current { ChainValue::NONE } else { tree.fork_point(branch.chain, current.chain) };
    let item = tree.node(fork).map(antipode_core::tree::Node::tip);
    let own = tree.path_after(fork, branch.chain);
    let mut events = Vec::new();
    for batch in own.iter().filter_map(|chain| run.batches.get(chain)) {
        let Ok(decoded) = batch.decode_events() else { continue };
        for event in decoded {
            let kind = EventType::try_from(event.event_type).unwrap_or_default();
            let name = pascal(kind.as_str_name().trim_start_matches("EVENT_TYPE_"));
            let identity =
                batch.envelope.identities.iter().find(|entry| entry.event == EventId(event.event_id));
            let again = match identity.and_then(|entry| entry.reapplied_from) {
                Some((_, version)) => format!(" (re-applied, first written {version})"),
                None => String::new(),
            };
            events.push(format!("#{}@{} {name}{again}", event.event_id, event.version));
        }
    }
    admin::BranchInfo {
        items: branch.items.to_wire(),
        chain: branch.chain.to_string(),
        fork_event_id: item.map_or(0, |item| item.event.0),
        fork_version: item.map_or(0, |item| item.version.0),
        batches: u32::try_from(own.len()).unwrap_or(u32::MAX),
        events,
    }
}

fn pascal(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect::<String>()
    };
    name.split('_').map(word).collect()
}
