//! What must hold in every state: what can be seen of stores, records and offers (V01–V04, V06, V08, V12, V13, V17, V20, A1,
//! A6, B6–B8, F1). What must hold at rest stands in `settled`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antipode_core::{
    batch::Batch,
    chain::ChainValue,
    ids::{EventId, FailoverVersion, Place, RunId, RunOrder},
    namespace::Phase,
    register::Kind,
};
use antipode_proto::{
    api::{enums::v1::EventType, history::v1::HistoryEvent},
    core as wire,
};
use prost::Message;

use super::{
    canon::RunView,
    state::{Node, State},
    step::{Finding, Machine},
};

pub(super) type Checked = Result<(), Finding>;

pub(super) fn fail<T>(words: String) -> Result<T, Finding> {
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
            (other.anchor_event_id, other.anchor_version, &other.anchor_chain, other.kind)
                == (register.anchor_event_id, register.anchor_version, &register.anchor_chain, register.kind)
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
