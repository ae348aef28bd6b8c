//! What the shape of a scenario does not say by itself: each step has one act, regions and states that it names exist, and
//! workflows do what a workflow can do. A name that is wrong is said with its line and column, and with what could stand there;
//! so an expectation cannot hold only because nothing has its name.

use super::words::Names;
use crate::engine::{
    program::Act,
    script::{Expect, LinkStep, NetSetup, Script, Setup, StartStep, Step},
    seen::State,
    span::Span,
};

/// What [`Expect::seen`] can count besides states: faults, by kind.
const FAULTS: [&str; 23] = [
    "answer lost",
    "bit flipped",
    "clock jump",
    "commit rejected",
    "commit unknown, lost",
    "commit unknown, written",
    "crash",
    "direction cut",
    "downgrade",
    "forced failover",
    "message corrupted",
    "message doubled",
    "message lost",
    "message overtaken",
    "redelivery",
    "restore",
    "shard moved",
    "slow store",
    "task failed",
    "task lost",
    "torn tail",
    "upgrade",
    "workers crashed",
];

/// The first thing that is wrong, with line and column.
pub(super) fn wrong(script: &Script, text: &str) -> Option<String> {
    let count = script.world.regions.len();
    if !(1..=5).contains(&count) {
        return Some(format!("`regions` has {count}: expected 1 to 5"));
    }
    let known: Vec<&str> = script.world.regions.iter().map(|region| region.name.as_str()).collect();
    let world = script.world.members.iter().chain(std::iter::once(&script.world.active));
    if let Some(name) = world.filter(|name| !name.is_empty()).find(|name| !known.contains(&name.as_str())) {
        return Some(format!("{}{}", at(text, 0, name), no_region(name, &known)));
    }
    if let Some((word, why)) = world_wrong(&script.world) {
        return Some(format!("{}{why}", at(text, 0, word)));
    }
    let names = Names::of(script);
    // What waits for a feature may name what only that feature makes: a child.
    let names = script.pending.is_none().then_some(names);
    script
        .steps
        .iter()
        .enumerate()
        .find_map(|(index, step)| step_wrong(step, text, index, &known, names.as_ref()))
}

/// What no world can be: the field, and what was expected.
fn world_wrong(world: &Setup) -> Option<(&'static str, String)> {
    if let Some(region) = world.regions.iter().find(|region| !(1..=1_024).contains(&region.shards)) {
        return Some(("shards", format!("`shards: {}`: expected 1 to 1024", region.shards)));
    }
    if world.retention.0 < 0 {
        return Some((
            "retention",
            format!("`retention: {}`: expected 0s, for ever, or more", world.retention),
        ));
    }
    backwards("commit", world.commit)
        .or_else(|| backwards("think", world.think))
        .or_else(|| net_wrong(&world.net))
}

fn net_wrong(net: &NetSetup) -> Option<(&'static str, String)> {
    let shares = [
        ("drop", net.drop),
        ("duplicate", net.duplicate),
        ("reorder", net.reorder),
        ("corrupt", net.corrupt),
        ("flip", net.flip),
        ("answers", net.answers),
    ];
    let share = shares.into_iter().find(|(_, share)| *share > 1_000);
    share
        .map(|(field, share)| (field, format!("`{field}: {share}`: expected 0 to 1000, of a thousand")))
        .or_else(|| backwards("delay", net.delay))
}

/// A span of lengths that begins with the longer one.
fn backwards(field: &'static str, [from, to]: [Span; 2]) -> Option<(&'static str, String)> {
    (from.0 < 0 || from > to).then(|| {
        (field, format!("`{field}: [{from}, {to}]`: expected the shortest and the longest, from 0s on"))
    })
}

fn step_wrong(
    step: &Step,
    text: &str,
    index: usize,
    known: &[&str],
    names: Option<&Names<'_>>,
) -> Option<String> {
    let line = step_line(text, index);
    let acts = step.acts();
    if acts != 1 {
        let place = line.map_or(String::new(), |line| format!("line {line}, column 3: "));
        return Some(format!(
            "{place}step {} has {acts} acts: expected exactly one of start, signal, signal_with_start, cancel, terminate, cut, heal, \
             net, force, hand_over, undo, namespace, crash, fail, slow, skew, backup, restore, hold, redeliver, workers, evict, \
             replay, wait, settle or expect",
            index + 1
        ));
    }
    let from = line.unwrap_or(1) - 1;
    let mut regions = Vec::new();
    regions_of(step, &mut regions);
    let unknown = |name: &&&str| !name.is_empty() && **name != "all" && !known.contains(*name);
    if let Some(name) = regions.iter().find(unknown) {
        return Some(format!("{}{}", at(text, from, name), no_region(name, known)));
    }
    for name in states_of(step) {
        if !FAULTS.contains(&name) && !State::ALL.iter().any(|state| state.name() == name) {
            let states: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
            return Some(format!(
                "{}nothing is called `{name}`: expected one of {}, {}",
                at(text, from, name),
                states.join(", "),
                FAULTS.join(", ")
            ));
        }
    }
    if let Some((word, why)) = names.and_then(|names| names.wrong(step)) {
        return Some(format!("{}{why}", at(text, from, word)));
    }
    if let Some((field, why)) = step.net.as_ref().and_then(net_wrong) {
        return Some(format!("{}{why}", at(text, from, field)));
    }
    let words = programs(step).into_iter().flat_map(|start| start.program.iter());
    words.filter_map(|word| Act::parse(word).err().map(|why| format!("{}{why}", at(text, from, word)))).next()
}

fn no_region(name: &str, known: &[&str]) -> String {
    format!("there is no region `{name}`: expected one of {}", known.join(", "))
}

/// Where a word stands, from a line on.
fn at(text: &str, from: usize, word: &str) -> String {
    let found = text
        .lines()
        .enumerate()
        .skip(from)
        .find_map(|(number, line)| column(line, word).map(|at| (number, at)));
    found.map_or(String::new(), |(number, column)| format!("line {}, column {column}: ", number + 1))
}

/// The column of a whole word.
fn column(line: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    line.match_indices(word)
        .find(|(start, _)| {
            let before = line[..*start].chars().next_back();
            let after = line[start + word.len()..].chars().next();
            !before.is_some_and(part) && !after.is_some_and(part)
        })
        .map(|(start, _)| line[..start].chars().count() + 1)
}

fn programs(step: &Step) -> Vec<&StartStep> {
    step.start.iter().chain(&step.signal_with_start).collect()
}

fn states_of(step: &Step) -> Vec<&str> {
    let expected = step.expect.iter().filter_map(|expect| expect.seen.as_deref());
    expected.chain(step.on.iter().filter_map(|on| on.seen.as_deref())).collect()
}

/// Every region that a step names.
fn regions_of<'a>(step: &'a Step, names: &mut Vec<&'a str>) {
    names.extend(step.on.iter().map(|on| on.region.as_str()));
    names.extend(programs(step).into_iter().map(|start| start.region.as_str()));
    for call in [&step.signal, &step.cancel, &step.terminate].into_iter().flatten() {
        names.push(&call.region);
    }
    for LinkStep { from, to, between } in [&step.cut, &step.heal].into_iter().flatten() {
        names.extend([from.as_str(), to.as_str()]);
        names.extend(between.iter().map(String::as_str));
    }
    let plain =
        [&step.force, &step.undo, &step.backup, &step.restore, &step.redeliver, &step.evict, &step.replay];
    names.extend(plain.into_iter().flatten().map(String::as_str));
    names.extend(step.hand_over.iter().map(|step| step.to.as_str()));
    names.extend(step.crash.iter().map(|step| step.region.as_str()));
    names.extend(step.fail.iter().map(|step| step.region.as_str()));
    names.extend(step.slow.iter().map(|step| step.region.as_str()));
    names.extend(step.skew.iter().map(|step| step.region.as_str()));
    names.extend(step.hold.iter().map(|step| step.from.as_str()));
    names.extend(step.workers.iter().map(|step| step.region.as_str()));
    if let Some(change) = &step.namespace {
        names.push(&change.region);
        names.extend(change.members.iter().map(String::as_str));
    }
    if let Some(Expect { region, active, members, .. }) = &step.expect {
        names.push(region);
        names.extend(active.iter().map(String::as_str));
        names.extend(members.iter().flatten().map(String::as_str));
    }
}

/// The line on which a step begins.
fn step_line(text: &str, index: usize) -> Option<usize> {
    let mut in_steps = false;
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("steps:") {
            in_steps = true;
        } else if in_steps && line.trim_start().starts_with("- ") && line.len() - line.trim_start().len() <= 2
        {
            if count == index {
                return Some(number + 1);
            }
            count += 1;
        }
    }
    None
}
