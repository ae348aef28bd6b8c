//! What the shape of a scenario does not say by itself: each step has one act, regions and states that it names exist, and
//! workflows do what a workflow can do. A name that is wrong is said with its line and column, and with what could stand there;
//! so an expectation cannot hold only because nothing has its name.

use super::{
    acts::{LONGEST, act_wrong, order_wrong, span_wrong, twice},
    expectation::{expect_wrong, moment_wrong, silent_wrong},
    places::{Places, Wrong},
    words::Names,
};
use crate::engine::{
    script::{Expect, LinkStep, NetSetup, RegionSetup, Script, Setup, StartStep, Step},
    seen::State,
    span::Span,
};

/// What [`Expect::seen`] can count besides states: faults, by kind.
const FAULTS: [&str; 24] = [
    "answer lost",
    "bit flipped",
    "clock jump",
    "commit rejected",
    "commit unknown, lost",
    "commit unknown, written",
    "crash",
    "delay changed",
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
    let places = Places::of(text);
    if let Some(why) = places.unsaid() {
        return Some(why);
    }
    if script.name.is_empty() {
        let why = "`name` is empty: expected the name of the scenario".to_string();
        return Some(Wrong::key(&["name"], why).told(&places));
    }
    if let Some(why) = script.pending.as_deref().filter(|why| !is_reason(why)) {
        let why = format!(
            "`pending: {why}` is no reason: expected what it waits for, as in `updates: UpdateWorkflowExecution is not built`"
        );
        return Some(Wrong::key(&["pending"], why).told(&places));
    }
    if let Some(wrong) = world_wrong(&script.world) {
        return Some(wrong.below(&["world"]).told(&places));
    }
    if script.steps.is_empty() {
        let why = "a scenario without `steps` shows nothing: expected at least one step".to_string();
        return Some(Wrong::key(&["name"], why).told(&places));
    }
    let known: Vec<&str> = script.world.regions.iter().map(|region| region.name.as_str()).collect();
    let names = Names::of(script);
    // What waits for a feature may name what only that feature makes: a child.
    let names = script.pending.is_none().then_some(names);
    let told = |index: usize, wrong: Wrong| wrong.below(&["steps", &index.to_string()]).told(&places);
    script
        .steps
        .iter()
        .enumerate()
        .find_map(|(index, step)| {
            silent_wrong(&places, &index.to_string())
                .or_else(|| step_wrong(step, index, &known, names.as_ref()))
                .map(|wrong| told(index, wrong))
        })
        .or_else(|| order_wrong(script).map(|(index, wrong)| told(index, wrong)))
}

/// Does it name a feature? `true` or nothing at all does not.
fn is_reason(why: &str) -> bool {
    let says = |text: &str| text.chars().any(char::is_alphabetic);
    why.contains("not built")
        || why.split_once(':').is_some_and(|(feature, rest)| says(feature) && says(rest))
}

/// What no world can be: the field, and what was expected.
fn world_wrong(world: &Setup) -> Option<Wrong> {
    let count = world.regions.len();
    if !(1..=5).contains(&count) {
        return Some(Wrong::key(&["regions"], format!("`regions` has {count}: expected 1 to 5")));
    }
    let found = world.regions.iter().enumerate().find_map(|(index, region)| {
        region_wrong(world, index, region).map(|wrong| wrong.below(&["regions", &index.to_string()]))
    });
    let key = |field: &str, why: String| Wrong::key(&[field], why);
    found
        .or_else(|| members_wrong(world))
        .or_else(|| {
            // Versions are 1, 2, 3, … and more of the increment; the next class begins after the last region's.
            let (least, most) = (u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1).max(2), i32::MAX);
            let fits = world.increment >= least && i32::try_from(world.increment).is_ok();
            let why = format!(
                "`increment: {}`: expected {least} to {most}, more than there are regions",
                world.increment
            );
            (!fits).then(|| key("increment", why))
        })
        .or_else(|| span_wrong("retention", world.retention).map(|why| key("retention", why)))
        .or_else(|| backwards("commit", world.commit))
        .or_else(|| backwards("think", world.think))
        .or_else(|| net_wrong(&world.net).map(|wrong| wrong.below(&["net"])))
}

fn region_wrong(world: &Setup, index: usize, region: &RegionSetup) -> Option<Wrong> {
    if region.name.is_empty() || region.name == "all" {
        let why =
            format!("`name: {}`: expected a name, and not `all`, which stands for every region", region.name);
        return Some(Wrong::key(&["name"], why));
    }
    if world.regions.iter().take(index).any(|other| other.name == region.name) {
        let why = format!("`name: {}`: expected a name that no other region has", region.name);
        return Some(Wrong::key(&["name"], why));
    }
    if !(1..=1_024).contains(&region.shards) {
        return Some(Wrong::key(&["shards"], format!("`shards: {}`: expected 1 to 1024", region.shards)));
    }
    let far = region.skew.0.unsigned_abs() > LONGEST.0.unsigned_abs();
    far.then(|| {
        Wrong::key(&["skew"], format!("`skew: {}`: expected at most {LONGEST}, forward or back", region.skew))
    })
}

fn members_wrong(world: &Setup) -> Option<Wrong> {
    let known: Vec<&str> = world.regions.iter().map(|region| region.name.as_str()).collect();
    if let Some(name) = world.members.iter().find(|name| !known.contains(&name.as_str())) {
        return Some(Wrong::word(&["members"], name, no_region(name, &known)));
    }
    if let Some(name) = twice(&world.members) {
        return Some(Wrong::key(
            &["members"],
            format!("`{name}` stands there twice: expected each region once"),
        ));
    }
    let active = if world.active.is_empty() { known.first().copied()? } else { &world.active };
    if !known.contains(&active) {
        return Some(Wrong::word(&["active"], active, no_region(active, &known)));
    }
    let member = world.members.is_empty() || world.members.iter().any(|name| name == active);
    let why = || format!("`{active}` is active and is not among them: expected a list with it");
    (!member).then(|| Wrong::key(&["members"], why()))
}

fn net_wrong(net: &NetSetup) -> Option<Wrong> {
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
        .map(|(field, share)| {
            Wrong::key(&[field], format!("`{field}: {share}`: expected 0 to 1000, of a thousand"))
        })
        .or_else(|| backwards("delay", net.delay))
}

/// A span of lengths that begins with the longer one, or is out of bounds.
fn backwards(field: &'static str, [from, to]: [Span; 2]) -> Option<Wrong> {
    (from.0 < 0 || from > to || to > LONGEST).then(|| {
        let why = format!(
            "`{field}: [{from}, {to}]`: expected the shortest and the longest, from 0s on and up to {LONGEST}"
        );
        Wrong::key(&[field], why)
    })
}

fn step_wrong(step: &Step, index: usize, known: &[&str], names: Option<&Names<'_>>) -> Option<Wrong> {
    let acts = step.acts();
    if acts != 1 {
        let why = format!(
            "step {} has {acts} acts: expected exactly one of start, signal, signal_with_start, cancel, terminate, cut, heal, \
             net, force, hand_over, undo, namespace, crash, fail, slow, skew, backup, restore, hold, redeliver, workers, evict, \
             replay, wait, settle or expect",
            index + 1
        );
        return Some(Wrong::key(&[], why));
    }
    if step.at.is_some() && step.after.is_some() {
        let why = "`at` and `after` say different moments: expected one of them".to_string();
        return Some(Wrong::key(&["after"], why));
    }
    unknown_region(step, known)
        .or_else(|| act_wrong(step, known))
        .or_else(|| moment_wrong(step.on.as_ref()?))
        .or_else(|| unknown_state(step))
        .or_else(|| expect_wrong(step.expect.as_ref()?, known.len()))
        .or_else(|| names?.wrong(step).map(|(word, why)| Wrong::word(&[], word, why)))
        .or_else(|| net_wrong(step.net.as_ref()?).map(|wrong| wrong.below(&["net"])))
}

fn unknown_region(step: &Step, known: &[&str]) -> Option<Wrong> {
    let mut regions = Vec::new();
    regions_of(step, &mut regions);
    let every = step.expect.as_ref().is_some_and(|expect| expect.region == "all");
    let name = regions.into_iter().find(|name| {
        let all = *name == "all" && every;
        !name.is_empty() && !all && !known.contains(name)
    })?;
    let why = if name == "all" {
        format!("`all` can only be expected of: expected one region of {}", known.join(", "))
    } else {
        no_region(name, known)
    };
    Some(Wrong::word(&[], name, why))
}

fn unknown_state(step: &Step) -> Option<Wrong> {
    let known = |name: &&str| FAULTS.contains(name) || State::ALL.iter().any(|state| state.name() == *name);
    let name = states_of(step).into_iter().find(|name| !known(name))?;
    let states: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
    let why =
        format!("nothing is called `{name}`: expected one of {}, {}", states.join(", "), FAULTS.join(", "));
    Some(Wrong::word(&[], name, why))
}

fn no_region(name: &str, known: &[&str]) -> String {
    format!("there is no region `{name}`: expected one of {}", known.join(", "))
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
