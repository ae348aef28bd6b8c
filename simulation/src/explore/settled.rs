//! What must hold at rest, when everything is delivered: regions agree, and nothing that clients were told is saved is gone
//! (V05–V07, V09–V11, V16, V18, B5).

use std::collections::{BTreeMap, BTreeSet};

use antipode_conflict::{RunFacts, arbitrate};
use antipode_core::{
    digest::digest,
    identity::{Identity, Key},
    ids::{RunId, WorkflowKey},
    run::Run,
    verdict,
    view::TaskView,
};
use antipode_history::api::{Operation, Reply, Request, TaskKind};
use antipode_proto::api::enums::v1::EventType;

use super::{
    canon::Snap,
    check::{Checked, current_events, fail},
    program::At,
    state::{Node, State, Told},
    step::{Finding, Machine},
};

/// What must hold when everything is delivered and nobody waits for anybody.
///
/// # Errors
/// [`Finding`].
pub fn rest(machine: &Machine<'_>, state: &mut State) -> Checked {
    agree(state)?;
    let mut runs = Vec::new();
    for node in &state.nodes {
        runs.push(folded(node)?);
    }
    for (id, run) in &runs[0] {
        for (other, node) in runs.iter().zip(&state.nodes).skip(1) {
            // The digest names the branches; which of them is current follows, by the same rule everywhere (R311, G2).
            let portrait = |run: &Run| (digest(run), run.tip());
            if other.get(id).map(portrait) != Some(portrait(run)) {
                let words = format!(
                    "V09: {} and {}: they hold different runs of {}",
                    NAMES0, node.region.name, run.key.workflow
                );
                return fail(words);
            }
        }
    }
    for workflow in &machine.workflows {
        owner(state, workflow, &runs[0])?;
        remembered(state, workflow, &runs)?;
        stuck(state, workflow, &runs)?;
    }
    accounted(state, &runs)?;
    if machine.program.free.graceful
        && let Some(node) = state.nodes.iter().find(|node| has_unclaimed(&node.snap))
    {
        return fail(format!("V18: {} has unclaimed events, and nobody forced anything", node.region.name));
    }
    Ok(())
}

const NAMES0: &str = crate::world::NAMES[0];

fn has_unclaimed(snap: &Snap) -> bool {
    snap.runs.values().flat_map(|run| &run.head.unclaimed).any(|record| !record.delivered)
}

/// V09: the same runs, branches, registers, pending sets, owners and record everywhere.
fn agree(state: &State) -> Checked {
    let first = &state.nodes[0];
    for node in &state.nodes[1..] {
        if node.region.record != first.region.record {
            return fail(format!(
                "V09: {} and {} have different records",
                first.region.name, node.region.name
            ));
        }
        if node.snap.shared != first.snap.shared {
            return fail(format!(
                "V09: {} and {} hold different runs\n{}\n{}",
                first.region.name,
                node.region.name,
                portrait(first),
                portrait(node)
            ));
        }
    }
    Ok(())
}

fn portrait(node: &Node) -> String {
    let mut lines = Vec::new();
    for (workflow, record) in &node.snap.currents {
        lines.push(format!(
            "  {}: {workflow} is owned by {} @{} open {}",
            node.region.name, record.run_id, record.version, record.open
        ));
    }
    for (id, run) in &node.snap.runs {
        let branches = run.head.branches.iter().map(|branch| {
            let items = branch.items.iter().map(|item| format!("{}@{}", item.event_id, item.version));
            items.collect::<Vec<_>>().join(",")
        });
        let registers = run.head.registers.iter().map(|r| {
            format!(
                "{} of {}@{} {}.{}",
                r.kind, r.anchor_event_id, r.anchor_version, r.order_version, r.order_count
            )
        });
        let pending = run.head.pending.iter().map(|event| {
            let identity = event.identity.as_ref().and_then(Identity::from_wire);
            format!("{identity:?}")
        });
        lines.push(format!(
            "  {}: {id} branches [{}] registers [{}] pending [{}] unclaimed {}",
            node.region.name,
            branches.collect::<Vec<_>>().join(" | "),
            registers.collect::<Vec<_>>().join("; "),
            pending.collect::<Vec<_>>().join("; "),
            run.head.unclaimed.len()
        ));
    }
    lines.join("\n")
}

/// Runs folded anew from what is stored.
fn folded(node: &Node) -> Result<BTreeMap<RunId, Run>, Finding> {
    let mut runs = BTreeMap::new();
    for (id, view) in &node.snap.runs {
        let run = Run::restore(view.key.clone(), &view.head, view.batches.iter().cloned());
        let run = run.map_err(|error| Finding(format!("V05: {}: {error}", node.region.name)))?;
        runs.insert(*id, run);
    }
    for (id, view) in &node.snap.runs {
        let current = node.snap.currents.get(view.key.workflow.as_str());
        let went_on = |run, identity: &Identity| {
            let taker: Option<&Run> = runs.get(&run);
            let heir = taker.and_then(|taker| verdict::heir(taker.first_run, taker.order(), runs.values()));
            heir.is_some_and(|heir| !heir.state.applied.contains(identity))
        };
        let fallen = runs.get(id).map(|run| run.fallen(current, |other| runs.get(&other), went_on));
        if let (Some(run), Some(fallen)) = (runs.get_mut(id), fallen) {
            run.judge_verdicts(fallen);
        }
    }
    Ok(runs)
}

/// V07: the record names the greatest run; V06: it is the only one that is open to the API.
fn owner(state: &mut State, workflow: &'static str, runs: &BTreeMap<RunId, Run>) -> Checked {
    let of_id = || runs.values().filter(|run| run.key.workflow.as_str() == workflow);
    let facts: Vec<_> = of_id()
        .map(|run| RunFacts { run: run.key.run, order: run.order(), open: run.state.is_open() })
        .collect();
    let greatest = arbitrate(&facts).current.map(|facts| facts.run);
    let named = state.nodes[0].snap.currents.get(workflow).and_then(|record| record.run_id.parse().ok());
    if greatest != named {
        return fail(format!(
            "V07: {workflow}: the record names {named:?}, the greatest run is {greatest:?}"
        ));
    }
    for at in 0..state.nodes.len() {
        let mut open = Vec::new();
        for run in of_id() {
            let operation = Operation::Describe;
            let reply = ask(state, at, run.key.workflow_key(), Some(run.key.run), operation);
            if let Some(Reply::Describe(reply)) = reply
                && reply.workflow_execution_info.is_some_and(|info| info.status == 1)
            {
                open.push(run.key.run);
            }
        }
        if open.len() > 1 || open.iter().any(|open| Some(*open) != named) {
            let name = &state.nodes[at].region.name;
            return fail(format!("V06: {workflow}: in {name} these are open: {open:?}, {named:?} owns it"));
        }
    }
    Ok(())
}

fn ask(
    state: &mut State,
    at: At,
    workflow: WorkflowKey,
    run: Option<RunId>,
    operation: Operation,
) -> Option<Reply> {
    let now = state.now;
    let region = &mut state.node_mut(at).region;
    let ticket = region.request(now, Request { workflow, run, operation });
    region.settle(now).ok()?;
    region.answers.remove(&ticket)?.ok()
}

/// V05: what a shard has in memory is the fold of what it stores.
fn remembered(state: &mut State, workflow: &str, runs: &[BTreeMap<RunId, Run>]) -> Checked {
    for (at, runs) in runs.iter().enumerate() {
        for run in runs.values().filter(|run| run.key.workflow.as_str() == workflow) {
            let operation = Operation::Inspect;
            let reply = ask(state, at, run.key.workflow_key(), Some(run.key.run), operation);
            let Some(Reply::Inspect(inspect)) = reply else {
                return fail(format!("V05: {} cannot show a run of {workflow}", state.nodes[at].region.name));
            };
            if inspect.digest != digest(run) {
                let name = &state.nodes[at].region.name;
                return fail(format!("V05: {name} remembers another {workflow} than it stores"));
            }
        }
    }
    Ok(())
}

/// V16: the active region has done what it owes, and a run that has something to see has a task.
fn stuck(state: &State, workflow: &str, runs: &[BTreeMap<RunId, Run>]) -> Checked {
    let active = state.nodes.iter().position(|node| node.region.record.writable(&node.region.name).is_some());
    let Some(at) = active else { return Ok(()) };
    let node = &state.nodes[at];
    let Some(record) = node.snap.currents.get(workflow) else { return Ok(()) };
    let Some(run) = record.run_id.parse().ok().and_then(|run: RunId| runs[at].get(&run)) else {
        return Ok(());
    };
    let name = &node.region.name;
    if !run.state.is_open() {
        return Ok(());
    }
    if !run.in_flight() && (run.has_pending_live() || !run.owed().is_empty()) {
        return fail(format!("V16: {name} owes {workflow} events that nothing will write"));
    }
    if run.task().is_none() && sees_something_new(&node.snap, run) {
        return fail(format!("V16: {workflow} is stuck in {name}: it has news and no workflow task"));
    }
    let indexed = node.snap.dispatch.iter().any(|row| row.key.run == run.key.run);
    let offers = |task: &TaskView| {
        task.started.is_some()
            || task.scheduled_at > state.now
            || node
                .region
                .offers
                .iter()
                .any(|offer| offer.key.run == run.key.run && offer.kind == TaskKind::Workflow)
    };
    if run.task().is_some_and(|task| !indexed || !offers(&task)) {
        return fail(format!("V16: {workflow} is stuck in {name}: its workflow task is offered to nobody"));
    }
    Ok(())
}

fn sees_something_new(snap: &Snap, run: &Run) -> bool {
    let Some(view) = snap.runs.get(&run.key.run) else { return false };
    let events = current_events(view);
    let last =
        |wanted: &dyn Fn(EventType) -> bool| events.iter().rposition(|event| wanted(event.event_type()));
    let task =
        last(&|kind| matches!(kind, EventType::WorkflowTaskScheduled | EventType::WorkflowTaskStarted));
    let news = last(&|kind| {
        matches!(
            kind,
            EventType::WorkflowExecutionStarted
                | EventType::WorkflowExecutionSignaled
                | EventType::WorkflowExecutionCancelRequested
                | EventType::ActivityTaskCompleted
                | EventType::ActivityTaskFailed
                | EventType::ActivityTaskTimedOut
                | EventType::TimerFired
                | EventType::WorkflowTaskFailed
                | EventType::WorkflowTaskTimedOut
        )
    });
    news > task
}

/// V10, V11: what clients were told is saved stands once in a history that counts, or is listed with a verdict.
fn accounted(state: &State, runs: &[BTreeMap<RunId, Run>]) -> Checked {
    let listed: BTreeSet<Identity> = runs
        .iter()
        .flat_map(|runs| runs.values())
        .flat_map(Run::unclaimed)
        .filter_map(|record| record.identity.as_ref().and_then(Identity::from_wire))
        .collect();
    for told in state.told.iter() {
        match told {
            Told::Event(workflow, kind, request) => {
                event_accounted(state, workflow, (*kind, request), &runs[0], &listed)?;
            }
            Told::Started(workflow, run) => {
                if let Some(at) = runs.iter().position(|runs| !runs.contains_key(run)) {
                    let name = &state.nodes[at].region.name;
                    return fail(format!("V10: a started run of {workflow} is not in {name}"));
                }
                start_accounted(state, workflow, &runs[0], run, &listed)?;
            }
            Told::Terminated(workflow, run) => {
                let stored = runs[0].get(run);
                let closed = stored.is_some_and(|run| !run.state.is_open());
                let current = state.nodes[0].snap.currents.get(workflow);
                let superseded = current.is_some_and(|record| record.run_id != run.to_string());
                let filed = listed
                    .iter()
                    .any(|identity| matches!(&identity.key, Key::Minted { run: of, .. } if of == run));
                if !closed && !superseded && !filed {
                    return fail(format!("V10: {workflow} was terminated, and its run is open"));
                }
            }
        }
    }
    Ok(())
}

/// B5: a run that a client started, and that lost its workflow id to another chain while it was open, is listed.
fn start_accounted(
    state: &State,
    workflow: &str,
    runs: &BTreeMap<RunId, Run>,
    started: &RunId,
    listed: &BTreeSet<Identity>,
) -> Checked {
    let owner = state.nodes[0].snap.currents.get(workflow);
    let owner = owner.and_then(|record| record.run_id.parse().ok()).and_then(|id: RunId| runs.get(&id));
    let (Some(owner), Some(run)) = (owner, runs.get(started)) else { return Ok(()) };
    let first = run.line.first().map(|batch| batch.envelope.identities.as_slice()).unwrap_or_default();
    let filed = first.iter().any(|entry| listed.contains(&entry.identity));
    if run.state.is_open() && run.first_run != owner.first_run && !filed {
        return fail(format!(
            "B5: a started run of {workflow} lost the id to another chain and is not listed"
        ));
    }
    Ok(())
}

fn event_accounted(
    state: &State,
    workflow: &str,
    (kind, request): (i32, &str),
    runs: &BTreeMap<RunId, Run>,
    listed: &BTreeSet<Identity>,
) -> Checked {
    let is_it = |identity: &Identity| {
        identity.kind as i32 == kind && matches!(&identity.key, Key::Client(key) if key == request)
    };
    let current = state.nodes[0].snap.currents.get(workflow).map(|record| record.run_id.clone());
    let mut stands: BTreeMap<RunId, usize> = BTreeMap::new();
    let mut known = false;
    for run in runs.values().filter(|run| run.key.workflow.as_str() == workflow) {
        let owns = current.as_deref() == Some(run.key.run.to_string().as_str());
        if run.state.is_open() && !owns {
            continue; // Superseded: what it took is owed to the owner, or listed.
        }
        let entries = run.line.iter().flat_map(|batch| &batch.envelope.identities);
        *stands.entry(run.first_run).or_default() += entries.filter(|entry| is_it(&entry.identity)).count();
        known |= run.state.applied.iter().any(is_it);
    }
    let most = stands.values().copied().max().unwrap_or(0);
    // A cancel request may be answered by the one that stands already.
    let cancelled = kind == 2 && runs.values().any(|run| run.state.cancel_requested || !run.state.is_open());
    if most > 1 {
        return fail(format!("V11: {request} of {workflow} stands {most} times"));
    }
    if most == 0 && !known && !cancelled && !listed.iter().any(is_it) {
        return fail(format!("V10: {request} of {workflow} was acknowledged and is nowhere"));
    }
    Ok(())
}
