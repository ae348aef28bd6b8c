//! Makes a failing script small: acts are left out, in ever smaller pieces, as long as the same oracle still finds the same
//! kind of fault (delta debugging); then workflows do less, and the world gets simpler.

use crate::{
    engine::{
        program::Program,
        script::{NetSetup, RegionSetup, Script, Setup, Step},
        span::Span,
    },
    scenario::{self, Outcome},
};

/// What shrinking came to.
#[derive(Debug)]
pub struct Shrunk {
    /// The smallest script that still fails.
    pub script: Script,
    /// How it fails.
    pub outcome: Outcome,
    /// Scripts that were tried.
    pub tried: usize,
}

/// Does a script fail as wanted?
fn fails(script: &Script, oracle: &str) -> Option<Outcome> {
    let outcome = scenario::run(script, false).ok()?;
    outcome.findings.first().is_some_and(|finding| finding.oracle == oracle).then_some(outcome)
}

/// The smallest script found that fails by the same oracle. None: the script does not fail.
///
/// `told` hears how many acts are left.
pub fn shrink(script: &Script, told: &dyn Fn(usize)) -> Option<Shrunk> {
    let first = scenario::run(script, false).ok()?;
    let oracle = first.findings.first()?.oracle.clone();
    let mut best = script.clone();
    let mut outcome = first;
    let mut tried = 0;
    let mut accept = |candidate: Script, best: &mut Script, outcome: &mut Outcome| {
        tried += 1;
        match fails(&candidate, &oracle) {
            Some(found) => {
                (*best, *outcome) = (candidate, found);
                told(best.steps.len());
                true
            }
            None => false,
        }
    };
    // What comes after the fault is not needed.
    let end = outcome.findings.first().map_or(i64::MAX, |finding| finding.at);
    let mut early = best.clone();
    early.steps.retain(|step| step.at.is_none_or(|at| at.0 <= end));
    accept(early, &mut best, &mut outcome);
    loop {
        let before = best.steps.len();
        let mut piece = (best.steps.len() / 2).max(1);
        loop {
            let mut start = 0;
            while start < best.steps.len() {
                let mut candidate = best.clone();
                let stop = (start + piece).min(candidate.steps.len());
                candidate.steps.drain(start..stop);
                if !accept(candidate, &mut best, &mut outcome) {
                    start += piece;
                }
            }
            if piece == 1 {
                break;
            }
            piece /= 2;
        }
        simplify(&mut best, &mut outcome, &mut accept);
        if best.steps.len() >= before {
            break;
        }
    }
    Some(Shrunk { script: best, outcome, tried })
}

/// Takes a candidate if it still fails.
type Accept<'a> = dyn FnMut(Script, &mut Script, &mut Outcome) -> bool + 'a;

/// Workflows do less, everything is early, and the world gets simpler.
fn simplify(best: &mut Script, outcome: &mut Outcome, accept: &mut Accept<'_>) {
    for index in 0..best.steps.len() {
        leave_words_out(index, best, outcome, accept);
    }
    for index in 0..best.steps.len() {
        calm_net(index, best, outcome, accept);
    }
    move_back(best, outcome, accept);
    for index in (0..best.world.regions.len()).rev() {
        leave_region_out(index, best, outcome, accept);
    }
    for index in 0..best.world.regions.len() {
        let plain: [fn(&mut RegionSetup); 3] = [
            |region| region.shards = 1,
            |region| region.skew = Span::default(),
            |region| region.previous = false,
        ];
        for change in plain {
            change_world(best, outcome, accept, |world| {
                world.regions.iter_mut().skip(index).take(1).for_each(change);
            });
        }
    }
    let plain: [fn(&mut Setup); 8] = [
        |world| world.active = String::new(),
        |world| world.members = Vec::new(),
        |world| world.increment = Setup::default().increment,
        |world| world.retention = Setup::default().retention,
        |world| world.net = NetSetup::default(),
        |world| world.commit = Setup::default().commit,
        |world| world.think = Setup::default().think,
        |world| world.seed = Setup::default().seed,
    ];
    for change in plain {
        change_world(best, outcome, accept, change);
    }
}

/// Each word of a workflow's program, the last one first.
fn leave_words_out(index: usize, best: &mut Script, outcome: &mut Outcome, accept: &mut Accept<'_>) {
    let words =
        |step: &Step| step.start.as_ref().or(step.signal_with_start.as_ref()).map_or(0, |s| s.program.len());
    for word in (0..words(&best.steps[index])).rev() {
        let mut candidate = best.clone();
        let step = &mut candidate.steps[index];
        let Some(start) = step.start.as_mut().or(step.signal_with_start.as_mut()) else { return };
        start.program.remove(word);
        if Program::parse(start.program.iter().map(String::as_str)).is_ok() {
            accept(candidate, best, outcome);
        }
    }
}

/// The net does less from some moment on.
fn calm_net(index: usize, best: &mut Script, outcome: &mut Outcome, accept: &mut Accept<'_>) {
    let plain: [fn(&mut NetSetup); 7] = [
        |net| net.drop = 0,
        |net| net.duplicate = 0,
        |net| net.reorder = 0,
        |net| net.corrupt = 0,
        |net| net.flip = 0,
        |net| net.answers = 0,
        |net| net.delay = NetSetup::default().delay,
    ];
    for change in plain {
        let mut candidate = best.clone();
        let Some(net) = &mut candidate.steps[index].net else { return };
        change(net);
        if candidate.steps[index].net != best.steps[index].net {
            accept(candidate, best, outcome);
        }
    }
}

/// All moments are earlier by as much, the first one as near to the beginning as it can be.
fn move_back(best: &mut Script, outcome: &mut Outcome, accept: &mut Accept<'_>) {
    for near in [Span::default(), Span::millis(50), Span::millis(500), Span::seconds(5)] {
        let first = best.steps.iter().filter_map(|step| step.at).min().unwrap_or_default();
        if first <= near {
            return;
        }
        let mut candidate = best.clone();
        for at in candidate.steps.iter_mut().filter_map(|step| step.at.as_mut()) {
            at.0 -= first.0 - near.0;
        }
        if accept(candidate, best, outcome) {
            return;
        }
    }
}

/// A region that no step names. Those after it get its version and those of each other, so it is tried like everything else.
fn leave_region_out(index: usize, best: &mut Script, outcome: &mut Outcome, accept: &mut Accept<'_>) {
    let mut candidate = best.clone();
    let gone = candidate.world.regions.remove(index).name;
    let named = format!("{:?}", candidate.steps).contains(&format!("{gone:?}"));
    candidate.world.members.retain(|member| *member != gone);
    if !named && candidate.world.active != gone && !candidate.world.regions.is_empty() {
        accept(candidate, best, outcome);
    }
}

/// The world is changed, unless it is so already.
fn change_world(
    best: &mut Script,
    outcome: &mut Outcome,
    accept: &mut Accept<'_>,
    change: impl Fn(&mut Setup),
) {
    let mut candidate = best.clone();
    change(&mut candidate.world);
    if format!("{:?}", candidate.world) != format!("{:?}", best.world) {
        accept(candidate, best, outcome);
    }
}

/// The scenario file of a script, as YAML: one line a step.
#[must_use]
pub fn to_yaml(script: &Script) -> String {
    let plain = |value: serde_json::Value| flow(&value);
    let mut out = String::new();
    out.push_str(&format!("name: {}\n", script.name));
    if !script.about.is_empty() {
        out.push_str(&format!("about: {}\n", serde_json::Value::from(script.about.clone())));
    }
    if let (Ok(mut world), Ok(default)) =
        (serde_json::to_value(&script.world), serde_json::to_value(Setup::default()))
    {
        leave_default_out(&mut world, &default);
        if let serde_json::Value::Object(fields) = world
            && !fields.is_empty()
        {
            out.push_str("world:\n");
            for (key, value) in fields {
                out.push_str(&format!("  {key}: {}\n", plain(value)));
            }
        }
    }
    out.push_str("steps:\n");
    for step in &script.steps {
        if let (Ok(mut value), Ok(net)) =
            (serde_json::to_value(step), serde_json::to_value(NetSetup::default()))
        {
            // Of a net that is as at the beginning its delays are said: an act says something.
            if let Some(fields) = value.get_mut("net") {
                let delay = fields["delay"].clone();
                leave_default_out(fields, &net);
                fields["delay"] = delay;
            }
            out.push_str(&format!("  - {}\n", plain(value)));
        }
    }
    out
}

/// What is as it would be anyway is not written; of a region neither.
fn leave_default_out(world: &mut serde_json::Value, default: &serde_json::Value) {
    use serde_json::Value;
    let (Value::Object(fields), Value::Object(defaults)) = (world, default) else { return };
    fields.retain(|key, value| defaults.get(key) != Some(value));
    if let (Some(net), Some(plain)) = (fields.get_mut("net"), defaults.get("net")) {
        leave_default_out(net, plain);
    }
    for region in fields.get_mut("regions").and_then(Value::as_array_mut).into_iter().flatten() {
        let plain = serde_json::json!({"shards": 1, "workers": true});
        leave_default_out(region, &plain);
    }
}

/// YAML's flow style, with quotes only where they are needed.
fn flow(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            let simple = !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_. ".contains(c))
                && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
                && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text.as_str())
                && !text.ends_with(' ');
            if simple { text.clone() } else { value.to_string() }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// The test that runs a scenario file.
#[must_use]
pub fn to_test(script: &Script, file: &str) -> String {
    format!(
        "#[test]\nfn {name}() {{\n    let text = include_str!(\"{file}\");\n    let script = \
         antipode_simulation::scenario::parse(\"{file}\", text).unwrap();\n    let outcome = \
         antipode_simulation::scenario::run(&script, false).unwrap();\n    assert!(outcome.findings.is_empty(), \"{{:#?}}\", \
         outcome.findings);\n}}\n",
        name = script.name
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    /// East completes w, which the expectation denies. Everything else is in the way: words of the program, two regions, another
    /// workflow, late moments, and a world that is not the plain one.
    const FAILS: &str = "name: t\nabout: A failure.\nworld:\n  regions: [{name: north}, {name: east, shards: 4, previous: true}, \
        {name: west}]\n  active: east\n  seed: 7\n  retention: 5d\n  increment: 20\n  net: {drop: 10}\nsteps:\n  \
        - {at: 400s, start: {workflow: v, in: east, program: [timer 1s, complete]}}\n  \
        - {at: 401s, start: {workflow: w, in: east, id: s0, program: [activity well, timer 1s, marker, complete]}}\n  \
        - {at: 402s, signal: {workflow: v, in: east}}\n  - settle: cut\n  \
        - after: 5m\n    expect: {in: east, workflow: w, status: running, call: s0, is: ok}\n";

    #[test]
    fn what_is_not_needed_is_left_out() {
        let script = scenario::parse("t.yaml", FAILS).unwrap();
        let shrunk = shrink(&script, &|_| ()).unwrap();
        assert_eq!(
            to_yaml(&shrunk.script),
            "name: t\nabout: \"A failure.\"\nworld:\n  regions: [{name: east}]\nsteps:\n  \
             - {at: \"0s\", start: {id: s0, in: east, program: [complete], workflow: w}}\n  \
             - {after: \"5m\", expect: {call: s0, in: east, is: ok, status: running, workflow: w}}\n"
        );
        let again =
            scenario::run(&scenario::parse("t.yaml", &to_yaml(&shrunk.script)).unwrap(), false).unwrap();
        assert_eq!((again.findings.len(), again.hash), (1, shrunk.outcome.hash));
        assert_eq!(
            shrink(&script, &|_| ()).unwrap().tried,
            shrunk.tried,
            "shrinking is a function of the script"
        );
    }
}
