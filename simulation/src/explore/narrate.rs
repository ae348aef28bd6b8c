//! The way to a failure in readable lines: what was done, and what each region wrote because of it.

use std::{collections::BTreeMap, sync::Arc};

use antipode_core::{batch::Batch, ids::RunId, namespace::Phase};
use antipode_history::api::Replicated;

use super::{
    check::current_line,
    program::{Action, Program},
    state::{Flight, Node, State},
    step::Step,
};
use crate::{oracle::outline, world::NAMES};

/// Tells; runs are named `a`, `b`, … as they come.
#[derive(Default)]
pub(super) struct Teller {
    runs: BTreeMap<RunId, String>,
    told: usize,
}

/// What is worth counting in a state.
pub(super) fn interesting(state: &State) -> Vec<&'static str> {
    let mut found = Vec::new();
    let runs = || state.nodes.iter().flat_map(|node| node.snap.runs.values());
    if runs().any(|run| run.head.branches.len() == 2) {
        found.push("two branches");
    }
    if runs().any(|run| run.head.branches.len() > 2) {
        found.push("three branches");
    }
    if runs().any(|run| !run.head.pending.is_empty()) {
        found.push("pending events");
    }
    if runs().any(|run| !run.head.registers.is_empty()) {
        found.push("registers");
    }
    if runs().any(|run| !run.head.unclaimed.is_empty()) {
        found.push("unclaimed events");
    }
    let reapplied = |batch: &Arc<Batch>| batch.envelope.identities.iter().any(|e| e.reapplied_from.is_some());
    if runs().any(|run| run.batches.iter().any(reapplied)) {
        found.push("re-applied events");
    }
    if state.nodes.iter().any(|node| node.snap.runs.len() > node.snap.currents.len()) {
        found.push("several runs of an id");
    }
    let writers = state.nodes.iter().filter(|node| node.region.record.writable(&node.region.name).is_some());
    match writers.count() {
        0 => found.push("nobody writes"),
        1 => {}
        _ => found.push("several write"),
    }
    if state.nodes.iter().any(|node| node.region.groups_in_flight().next().is_some()) {
        found.push("commits in flight");
    }
    found
}

impl Teller {
    fn run(&mut self, run: RunId) -> String {
        let next = self.runs.len();
        let letter = char::from(b'a' + u8::try_from(next % 26).unwrap_or(0));
        self.runs.entry(run).or_insert_with(|| format!("run {letter}")).clone()
    }

    /// Where the way begins.
    pub(super) fn setup(&mut self, program: &Program, state: &State) -> Vec<String> {
        let mut lines = vec!["   the setup:".to_string()];
        lines.extend(program.setup.iter().map(|action| format!("      {}", said(action))));
        for node in &state.nodes {
            for run in node.snap.runs.values() {
                let name = self.run(run.key.run);
                let items = current_line(run).last().map(|tip| tip.envelope.items.to_string());
                let (region, workflow) = (&node.region.name, &run.key.workflow);
                lines.push(format!("      {region} has {name} of {workflow}: {}", items.unwrap_or_default()));
            }
        }
        lines
    }

    /// One step and what came of it.
    pub(super) fn step(
        &mut self,
        program: &Program,
        before: &State,
        step: Step,
        after: Option<&State>,
    ) -> Vec<String> {
        self.told += 1;
        let headline = self.headline(program, before, step);
        let mut lines = vec![format!("{:>2} {headline}", self.told)];
        if let Some(after) = after {
            lines.extend(self.changes(before, after));
            for told in after.told.difference(&before.told) {
                lines.push(format!("      acknowledged: {told:?}"));
            }
            if let Step::Act(actor) = step
                && after.hands[actor].next == before.hands[actor].next
            {
                let words = if after.hands[actor].waits { "waits for the commit" } else { "refused" };
                lines.push(format!("      {words}"));
            }
        }
        lines
    }

    fn headline(&mut self, program: &Program, before: &State, step: Step) -> String {
        match step {
            Step::Act(actor) => {
                let action = program.actors[actor].get(before.hands[actor].next);
                action.map(said).unwrap_or_default()
            }
            Step::Deliver(from, to, slot) => {
                let flight = before.link(from, to).queue.get(slot);
                let what = flight.map(|flight| self.flight(flight)).unwrap_or_default();
                format!("{} → {}: {what}", NAMES[from], NAMES[to])
            }
            Step::Read(from, to) => format!("{} reads its log for {}", NAMES[from], NAMES[to]),
            Step::Record(from, to) => {
                format!("{} → {}: namespace record ({})", NAMES[from], NAMES[to], record(&before.nodes[from]))
            }
            Step::Commit(at) => format!("{}: the commit in flight is durable", NAMES[at]),
            Step::Crash(index, written) => {
                let at = program.free.crashes[index].0;
                let flying = before.nodes[at].region.groups_in_flight().next().is_some();
                let fate = match (flying, written) {
                    (false, _) => "",
                    (true, true) => "; its commit in flight was written",
                    (true, false) => "; its commit in flight is lost",
                };
                format!("{} crashes and starts again{fate}", NAMES[at])
            }
        }
    }

    fn flight(&mut self, flight: &Flight) -> String {
        let (run, workflow) = (self.run(flight.run.run), &flight.run.workflow);
        match &flight.item {
            Replicated::Batch(batch) | Replicated::Last(batch) => {
                format!("{run} of {workflow}, {}", events(batch))
            }
            Replicated::State(state) => format!(
                "{run} of {workflow}, {} registers and {} pending events",
                state.registers.len(),
                state.pending.len()
            ),
        }
    }

    /// What a region has now and had not before.
    pub(super) fn changes(&mut self, before: &State, after: &State) -> Vec<String> {
        let mut lines = Vec::new();
        for (old, new) in before.nodes.iter().zip(&after.nodes) {
            if !Arc::ptr_eq(old, new) {
                lines.extend(self.region(old, new));
            }
        }
        lines
    }

    fn region(&mut self, old: &Node, new: &Node) -> Vec<String> {
        let name = &new.region.name;
        let mut lines = Vec::new();
        if old.region.record != new.region.record {
            lines.push(format!("      {name}: record is {}", record(new)));
        }
        for (id, run) in &new.snap.runs {
            let letter = self.run(*id);
            let known = old.snap.runs.get(id);
            let line = current_line(run);
            let fresh = run.batches.iter().filter(|batch| {
                known.is_none_or(|known| !known.batches.iter().any(|other| other.chain == batch.chain))
            });
            for batch in fresh {
                let aside = if line.iter().any(|on| on.chain == batch.chain) { "" } else { " (aside)" };
                lines.push(format!("      {name} has {letter} {}{aside}", events(batch)));
            }
            let (was, is) = (known.map(|known| &known.head), &run.head);
            if was.is_none_or(|was| was.registers != is.registers) && !is.registers.is_empty() {
                let registers = is.registers.iter().map(|r| {
                    format!(
                        "kind {} of {}@{} order {}.{}",
                        r.kind, r.anchor_event_id, r.anchor_version, r.order_version, r.order_count
                    )
                });
                let registers: Vec<_> = registers.collect();
                lines.push(format!("      {name} has {letter} registers: {}", registers.join("; ")));
            }
            if was.is_none_or(|was| was.pending.len() != is.pending.len()) && was.is_some() {
                lines.push(format!("      {name} has {letter} pending events: {}", is.pending.len()));
            }
            if was.is_none_or(|was| was.unclaimed.len() != is.unclaimed.len()) && !is.unclaimed.is_empty() {
                let verdicts: Vec<_> = is.unclaimed.iter().map(|record| record.verdict.as_str()).collect();
                lines.push(format!("      {name} has {letter} unclaimed: {}", verdicts.join("; ")));
            }
        }
        for (workflow, owner) in &new.snap.currents {
            let was = old.snap.currents.get(workflow).map(|record| &record.run_id);
            if was != Some(&owner.run_id)
                && let Ok(run) = owner.run_id.parse()
            {
                lines.push(format!("      {name}: {} owns {workflow}", self.run(run)));
            }
        }
        lines
    }
}

fn events(batch: &Batch) -> String {
    outline(&batch.decode_events().unwrap_or_default())
}

fn record(node: &Node) -> String {
    let record = &node.region.record;
    let phase = match record.phase() {
        Phase::Active => String::new(),
        Phase::Draining { target, .. } => format!(", draining to {target}"),
        Phase::Released { target, target_version, .. } => {
            format!(", released to {target} for {target_version}")
        }
    };
    format!("{} @{}{phase}", record.active(), record.version())
}

/// An action in words.
fn said(action: &Action) -> String {
    match *action {
        Action::Start { at, workflow, request, terminate } => {
            let how = if terminate { ", terminating an open run" } else { "" };
            format!("client in {}: start {workflow} ({request}){how}", NAMES[at])
        }
        Action::Signal { at, workflow, request } => {
            format!("client in {}: signal {request} to {workflow}", NAMES[at])
        }
        Action::Cancel { at, workflow, request } => {
            format!("client in {}: cancel {workflow} ({request})", NAMES[at])
        }
        Action::Terminate { at, workflow } => format!("client in {}: terminate {workflow}", NAMES[at]),
        Action::Poll { at } => format!("worker in {}: takes a workflow task", NAMES[at]),
        Action::Complete { at, does } => {
            format!("worker in {}: completes the workflow task: {does:?}", NAMES[at])
        }
        Action::Fail { at } => format!("worker in {}: fails the workflow task", NAMES[at]),
        Action::PollActivity { at } => format!("worker in {}: takes an activity", NAMES[at]),
        Action::Beat { at, details } => format!("worker in {}: heartbeat {details}", NAMES[at]),
        Action::End { at, well: true } => format!("worker in {}: completes the activity", NAMES[at]),
        Action::End { at, well: false } => format!("worker in {}: fails the activity", NAMES[at]),
        Action::Force { to, asks } => {
            let asks: Vec<_> = asks.iter().map(|at| NAMES[*at]).collect();
            let asks = if asks.is_empty() { "nobody".to_string() } else { asks.join(", ") };
            format!("operator: forces the namespace to {}, which asks {asks}", NAMES[to])
        }
        Action::Drain { at, to } => format!("operator: {} begins to drain, for {}", NAMES[at], NAMES[to]),
        Action::Barrier { at } => format!("operator: {} commits its barrier", NAMES[at]),
        Action::Release { at, to } => format!("operator: {} releases to {}", NAMES[at], NAMES[to]),
        Action::Undo { at } => format!("operator: {} takes its draining back", NAMES[at]),
        Action::Activate { at } => format!("operator: {} activates what was released to it", NAMES[at]),
        Action::FailCommit { at, how } => format!("the commit in flight of {} fails: {how:?}", NAMES[at]),
        Action::Advance { seconds } => format!("{seconds} s pass"),
        Action::Deliver => "everything is delivered".to_string(),
    }
}
