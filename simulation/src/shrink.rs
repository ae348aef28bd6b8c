//! Makes a failing script small: acts are left out, in ever smaller pieces, as long as the same oracle still finds the same
//! kind of fault (delta debugging); then workflows do less, and the world gets simpler.

use crate::{
    engine::{program::Program, script::Script},
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

/// Workflows do less; shards, skews and the net's faults go.
fn simplify(
    best: &mut Script,
    outcome: &mut Outcome,
    accept: &mut dyn FnMut(Script, &mut Script, &mut Outcome) -> bool,
) {
    for index in 0..best.steps.len() {
        loop {
            let mut candidate = best.clone();
            let step = &mut candidate.steps[index];
            let start = step.start.as_mut().or(step.signal_with_start.as_mut());
            let Some(start) = start.filter(|start| !start.program.is_empty()) else { break };
            start.program.pop();
            if Program::parse(start.program.iter().map(String::as_str)).is_err()
                || !accept(candidate, best, outcome)
            {
                break;
            }
        }
    }
    for index in 0..best.world.regions.len() {
        let mut candidate = best.clone();
        candidate.world.regions[index].shards = 1;
        candidate.world.regions[index].skew = Default::default();
        candidate.world.regions[index].previous = false;
        accept(candidate, best, outcome);
    }
    while best.world.regions.len() > 2 {
        let mut candidate = best.clone();
        let gone = candidate.world.regions.pop();
        let name = gone.map(|region| region.name).unwrap_or_default();
        if format!("{:?}", candidate.steps).contains(&format!("{name:?}"))
            || !accept(candidate, best, outcome)
        {
            break;
        }
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
    if let Ok(world) = serde_json::to_value(&script.world) {
        out.push_str("world:\n");
        if let serde_json::Value::Object(fields) = world {
            for (key, value) in fields {
                out.push_str(&format!("  {key}: {}\n", plain(value)));
            }
        }
    }
    out.push_str("steps:\n");
    for step in &script.steps {
        if let Ok(value) = serde_json::to_value(step) {
            out.push_str(&format!("  - {}\n", plain(value)));
        }
    }
    out
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
