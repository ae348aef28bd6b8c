//! What must hold. In every state: what can be seen of stores, records and offers (V01–V04, V06, V08, V12, V13, V17, B6, F1).
//! At rest, when everything is delivered: that regions agree and nothing that clients were told is saved is gone (V05,
//! V07, V09–V11, V16).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_conflict::{RunFacts, arbitrate};
use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    digest::digest,
    identity::{Identity, Key},
    ids::{EventId, FailoverVersion, Place, RunId, RunOrder, WorkflowKey},
    namespace::Phase,
    register::Kind,
    run::Run,
    view::TaskView,
};
use antipode_history::api::{Operation, Reply, Request, TaskKind};
use antipode_proto::{
    api::{enums::v1::EventType, history::v1::HistoryEvent},
    core as wire,
};
use prost::Message;

use super::{
    canon::{RunView, Snap},
    program::At,
    state::{Node, State, Told},
    step::{Finding, Machine},
};

type Checked = Result<(), Finding>;

fn fail<T>(words: String) -> Result<T, Finding> {
    Err(Finding(words))
}

/// Batches of the current branch, oldest first.
#[must_use]
pub fn current_line(run: &RunView) -> Vec<&Arc<Batch>> {
    let index = usize::try_from(run.head.current).unwrap_or(usize::MAX);
    let tip = run.head.branches.get(index).and_then(|branch| ChainValue::from_bytes(&branch.chain));
    let mut line = Vec::new();
    let mut next = tip;
    while let Some(batch) = next.and_then(|chain| run.batches.iter().find(|batch| batch.chain == chain)) {
        line.push(batch);
        next = Some(batch.envelope.previous);
    }
    line.reverse();
    line
}

/// Events of the current branch.
#[must_use]
pub fn current_events(run: &RunView) -> Vec<HistoryEvent> {
    current_line(run).into_iter().flat_map(|batch| batch.decode_events().unwrap_or_default()).collect()
}

fn is_open(run: &RunView) -> bool {
    let last = current_line(run).pop().map(|batch| batch.decode_events().unwrap_or_default());
    let kind = last.and_then(|events| events.last().map(HistoryEvent::event_type));
    !matches!(
        kind,
        Some(
            EventType::WorkflowExecutionCompleted
                | EventType::WorkflowExecutionFailed
                | EventType::WorkflowExecutionTimedOut
                | EventType::WorkflowExecutionTerminated
                | EventType::WorkflowExecutionCanceled
                | EventType::WorkflowExecutionContinuedAsNew
        )
    )
}

fn order(record: &wire::CurrentRecord) -> RunOrder {
    let place = record.place.as_ref();
    RunOrder {
        version: FailoverVersion(record.version),
        place: place.map_or_else(Place::default, |p| Place { epoch: p.epoch, sequence: p.sequence }),
    }
}

/// Batches that were looked at by themselves: they never change.
#[derive(Debug, Default)]
pub struct Seen(BTreeSet<ChainValue>);

/// What must hold in every state, and of the step that led to it.
///
/// # Errors
/// [`Finding`].
pub fn state(machine: &Machine<'_>, seen: &mut Seen, before: Option<&State>, after: &State) -> Checked {
    for (at, node) in after.nodes.iter().enumerate() {
        let old = before.map(|before| &before.nodes[at]);
        if old.is_some_and(|old| Arc::ptr_eq(old, node)) {
            continue;
        }
        let name = &node.region.name;
        if let Some(why) = node.region.broken.first() {
            return fail(format!("a shard of {name} broke: {why}"));
        }
        stored(machine, seen, node)?;
        offers(node)?;
        if let Some(old) = old {
            step(machine, old, node)?;
        }
    }
    contents(after)?;
    writers(machine, after)
}

/// V01, V03, V04, V12 of what a region stores.
fn stored(machine: &Machine<'_>, seen: &mut Seen, node: &Node) -> Checked {
    let name = &node.region.name;
    for run in node.snap.runs.values() {
        for batch in &run.batches {
            if !seen.0.contains(&batch.chain) {
                batch_alone(machine, run, batch)?;
                seen.0.insert(batch.chain);
            }
        }
        // V04, by a comparison of its own: the greatest leaf by (last version, last event, chain value).
        let leaves = run
            .batches
            .iter()
            .filter(|batch| !run.batches.iter().any(|other| other.envelope.previous == batch.chain));
        let greatest =
            leaves.max_by_key(|leaf| (leaf.envelope.version, leaf.envelope.last_event, leaf.chain.0));
        let line = current_line(run);
        let tip = line.last();
        if greatest.map(|leaf| leaf.chain) != tip.map(|tip| tip.chain) {
            return fail(format!(
                "V04: in {name} the current branch of {} ends at {:?}, the greatest at {:?}",
                run.key.workflow,
                tip.map(|tip| tip.envelope.items.to_string()),
                greatest.map(|leaf| leaf.envelope.items.to_string()),
            ));
        }
        succession(node, &line)?;
        let starts = line.first().is_some_and(|first| first.envelope.first_event == EventId(1));
        if !starts {
            return fail(format!(
                "V01: in {name} the current branch of {} has no first event",
                run.key.workflow
            ));
        }
    }
    Ok(())
}

/// B7, B8: a run that another one continues is closed only where the other one is stored, and ranks below it.
fn succession(node: &Node, line: &[&Arc<Batch>]) -> Checked {
    let Some((close, successor)) = line.last().and_then(|tip| Some((tip, tip.envelope.successor?))) else {
        return Ok(());
    };
    let (name, workflow) = (&node.region.name, &close.envelope.run.workflow);
    let first = node
        .snap
        .runs
        .get(&successor)
        .and_then(|run| run.batches.iter().find(|batch| batch.envelope.first_event == EventId(1)));
    let Some(first) = first else {
        return fail(format!("B8: {name} closed a run of {workflow} without the run that continues it"));
    };
    let rank = |batch: &Batch| (batch.envelope.version, batch.envelope.place);
    if rank(first) <= rank(close) {
        return fail(format!("B7: in {name} the run that continues {workflow} ranks below its predecessor"));
    }
    Ok(())
}

/// V01, V03, V12 of a batch and its predecessor.
fn batch_alone(machine: &Machine<'_>, run: &RunView, batch: &Batch) -> Checked {
    let envelope = &batch.envelope;
    let what = format!("{}: events {}..{}", run.key.workflow, envelope.first_event.0, envelope.last_event.0);
    let events = match batch.decode_events() {
        Ok(events) => events,
        Err(error) => return fail(format!("V03: {what} of one batch: {error}")),
    };
    if envelope.first_event.0 > 1 {
        let parent = run.batches.iter().find(|other| other.chain == envelope.previous);
        let Some(parent) = parent else {
            return fail(format!("V01: {what} stand on a batch that is not stored"));
        };
        if parent.envelope.last_event.next() != envelope.first_event
            || parent.envelope.version > envelope.version
        {
            return fail(format!("V01: {what} do not follow {}", parent.envelope.items));
        }
    }
    if !machine.owns(envelope.origin.region, envelope.version) {
        return fail(format!(
            "V12: {what} were written by {} under {}",
            envelope.origin.region, envelope.version
        ));
    }
    // B3: an identity stands for one event.
    for entry in &envelope.identities {
        if !events.iter().any(|event| event.event_id == entry.event.0) {
            return fail(format!("B3: {what} have no event {} that an identity names", entry.event.0));
        }
    }
    Ok(())
}

/// V06, V08: only the run that owns the workflow id has work.
fn offers(node: &Node) -> Checked {
    let owner = |run: &antipode_core::ids::RunKey| {
        let record = node.snap.currents.get(run.workflow.as_str());
        record.is_some_and(|record| record.run_id == run.run.to_string() && record.open)
    };
    if let Some(row) = node.snap.dispatch.iter().find(|row| !owner(&row.key)) {
        return fail(format!(
            "V08: {} has work for a run of {} that does not own it or is closed",
            node.region.name, row.key.workflow
        ));
    }
    for (workflow, record) in &node.snap.currents {
        let run = record.run_id.parse().ok().and_then(|run: RunId| node.snap.runs.get(&run));
        match run {
            Some(run) if is_open(run) == record.open => {}
            Some(_) => {
                return fail(format!(
                    "V08: {}: the record of {workflow} has open {}",
                    node.region.name, record.open
                ));
            }
            None => {
                return fail(format!(
                    "V08: {}: the record of {workflow} names no stored run",
                    node.region.name
                ));
            }
        }
    }
    Ok(())
}

/// What a step must not do in a region: B6, V13, V17, V20.
fn step(machine: &Machine<'_>, old: &Node, new: &Node) -> Checked {
    let name = &new.region.name;
    let (before, after) = (&old.region.record, &new.region.record);
    if after.version() < before.version() {
        return fail(format!(
            "V13: {name} went back from version {} to {}",
            before.version(),
            after.version()
        ));
    }
    for (workflow, record) in &old.snap.currents {
        let Some(now) = new.snap.currents.get(workflow) else {
            return fail(format!("B6: {name} forgot who owns {workflow}"));
        };
        if order(now) < order(record) {
            return fail(format!("B6: {name} lowered the record of {workflow}"));
        }
    }
    for (id, run) in &old.snap.runs {
        let Some(now) = new.snap.runs.get(id) else {
            return fail(format!("V20: {name} lost a run of {}", run.key.workflow));
        };
        if now.batches.len() < run.batches.len() {
            return fail(format!("V20: {name} lost events of {}", run.key.workflow));
        }
        lost_registers(name, run, now)?;
    }
    let passive = before.writable(name).is_none() && after.writable(name).is_none();
    let settled = old.region.groups_in_flight().next().is_none();
    if passive && settled && new.region.offers.len() > old.region.offers.len() {
        return fail(format!("V17: {name} offers work though it is passive"));
    }
    if machine.program.free.graceful && new.snap.runs.values().any(|run| run.head.branches.len() > 1) {
        return fail(format!("V18: a branch in {name}, and nobody forced anything"));
    }
    Ok(())
}

/// A1: registers merge, they are never removed, and never fall.
fn lost_registers(name: &str, old: &RunView, new: &RunView) -> Checked {
    for register in &old.head.registers {
        let same = |other: &&wire::Register| {
            (other.anchor_event_id, other.anchor_version, other.kind)
                == (register.anchor_event_id, register.anchor_version, register.kind)
        };
        let what = || {
            let (event, version) = (register.anchor_event_id, register.anchor_version);
            format!("a register of event {event}@{version} of {}", old.key.workflow)
        };
        let Some(now) = new.head.registers.iter().find(same) else {
            return fail(format!("A1: {name} dropped {}", what()));
        };
        if (now.order_version, now.order_count) < (register.order_version, register.order_count) {
            return fail(format!("A1: {name} lowered {}", what()));
        }
        let attempt = |register: &wire::Register| wire::ActivityAttempt::decode(&*register.value).ok();
        if register.kind == Kind::ActivityAttempt as u32
            && let (Some(before), Some(after)) = (attempt(register), attempt(now))
            && before.stamp == after.stamp
            && before.attempt > after.attempt
        {
            let (before, after) = (before.attempt, after.attempt);
            return fail(format!("A6: {name} took attempt {before} back to {after} in {}", what()));
        }
    }
    Ok(())
}

/// V02: an event has one content everywhere.
fn contents(state: &State) -> Checked {
    let mut spans: BTreeMap<(RunId, FailoverVersion), Vec<&Arc<Batch>>> = BTreeMap::new();
    for batch in state.nodes.iter().flat_map(|node| node.snap.runs.values()).flat_map(|run| &run.batches) {
        let known = spans.entry((batch.envelope.run.run, batch.envelope.version)).or_default();
        if known.iter().any(|other| other.chain == batch.chain) {
            continue;
        }
        let clash = known.iter().find(|other| {
            other.envelope.first_event <= batch.envelope.last_event
                && batch.envelope.first_event <= other.envelope.last_event
        });
        if clash.is_some() {
            return fail(format!(
                "V02: events {}..{}@{} of {} have two contents",
                batch.envelope.first_event.0,
                batch.envelope.last_event.0,
                batch.envelope.version,
                batch.envelope.run.workflow
            ));
        }
        known.push(batch);
    }
    Ok(())
}

/// F1, V13: a version has one owner, and without force there is one writer at most.
fn writers(machine: &Machine<'_>, state: &State) -> Checked {
    let mut active: BTreeMap<FailoverVersion, &str> = BTreeMap::new();
    let mut writing = Vec::new();
    for node in &state.nodes {
        let record = &node.region.record;
        let owner = active.entry(record.version()).or_insert(record.active());
        if *owner != record.active() {
            return fail(format!("V13: version {} is {owner}'s and {}'s", record.version(), record.active()));
        }
        if let Some(version) = record.writable(&node.region.name) {
            writing.push(version);
            if !machine.owns(node.region.id, version) {
                return fail(format!("V12: {} writes under {version}", node.region.name));
            }
        }
        // Released is irrevocable: whoever gave it away stays passive under that version.
        if let Phase::Released { target_version, .. } = record.phase()
            && state.nodes.iter().any(|other| {
                other.region.record.version() == record.version()
                    && other.region.record.writable(&other.region.name).is_some()
            })
        {
            return fail(format!(
                "F1: released for version {target_version}, and version {} writes",
                record.version()
            ));
        }
    }
    if machine.program.free.graceful && writing.len() > 1 {
        return fail(format!("F1: {} regions write at once: versions {writing:?}", writing.len()));
    }
    Ok(())
}

// ---- at rest ----

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
            let there = other.get(id).map(digest).unwrap_or_default();
            if digest(run) != there {
                let words = format!(
                    "V09: {} and {}: digests of {} differ",
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
    snap.runs.values().any(|run| !run.head.unclaimed.is_empty())
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
        .flat_map(|run| run.unclaimed.iter())
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

/// B5: a run that was started and lost its workflow id to another chain while it was open is listed.
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
            "B5: a run of {workflow} was started, lost the id to another chain, and is not listed"
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
