//! What each act of a step must say: whom it asks, about which workflow, how long. What it lacks would be found only when the
//! step runs, without a place in the file; what is out of bounds would do nothing, or never end.

use super::places::Wrong;
use crate::engine::{
    program::Act,
    script::{CallStep, HoldStep, LinkStep, NamespaceStep, Script, StartStep, Step, WorkerStep},
    span::Span,
};

/// No length of time in a scenario, nor all its waits together, is longer: a year and a bit runs in no time, an age does not.
pub(super) const LONGEST: Span = Span::seconds(400 * 86_400);

/// Commits that can be told to fail at once.
const MOST_FAILURES: u32 = 10_000;

/// The first act of a step that lacks something or is out of bounds.
pub(super) fn act_wrong(step: &Step, known: &[&str]) -> Option<Wrong> {
    region_wrong(step, known)
        .or_else(|| workflow_wrong(step))
        .or_else(|| spans_wrong(step))
        .or_else(|| program_wrong(step))
        .or_else(|| links_wrong("cut", step.cut.as_ref()?))
        .or_else(|| links_wrong("heal", step.heal.as_ref()?))
        .or_else(|| namespace_wrong(step.namespace.as_ref()?))
        .or_else(|| workers_wrong(step.workers.as_ref()?))
        .or_else(|| counts_wrong(step))
}

fn starts(step: &Step) -> impl Iterator<Item = (&'static str, &StartStep)> {
    let start = step.start.iter().map(|start| ("start", start));
    start.chain(step.signal_with_start.iter().map(|start| ("signal_with_start", start)))
}

fn calls(step: &Step) -> impl Iterator<Item = (&'static str, &CallStep)> {
    let acts = [("signal", &step.signal), ("cancel", &step.cancel), ("terminate", &step.terminate)];
    acts.into_iter().filter_map(|(act, call)| Some((act, call.as_ref()?)))
}

/// An act that names no region, where it must name one.
fn region_wrong(step: &Step, known: &[&str]) -> Option<Wrong> {
    let mut named: Vec<(&[&str], &str)> = Vec::new();
    for (act, start) in starts(step) {
        named.push((
            if act == "start" { &["start", "in"] } else { &["signal_with_start", "in"] },
            &start.region,
        ));
    }
    let call = |field: &'static [&'static str], call: &'_ Option<CallStep>| {
        call.as_ref().map(|call| (field, call.region.clone()))
    };
    let called = [
        call(&["signal", "in"], &step.signal),
        call(&["cancel", "in"], &step.cancel),
        call(&["terminate", "in"], &step.terminate),
    ];
    let plain: [(&[&str], &Option<String>); 7] = [
        (&["force"], &step.force),
        (&["undo"], &step.undo),
        (&["backup"], &step.backup),
        (&["restore"], &step.restore),
        (&["redeliver"], &step.redeliver),
        (&["evict"], &step.evict),
        (&["replay"], &step.replay),
    ];
    named.extend(called.iter().flatten().map(|(path, region)| (*path, region.as_str())));
    named.extend(plain.iter().filter_map(|(path, region)| Some((*path, region.as_deref()?))));
    named.extend(step.hand_over.iter().map(|step| (&["hand_over", "to"][..], step.to.as_str())));
    named.extend(step.namespace.iter().map(|step| (&["namespace", "in"][..], step.region.as_str())));
    named.extend(step.crash.iter().map(|step| (&["crash", "region"][..], step.region.as_str())));
    named.extend(step.fail.iter().map(|step| (&["fail", "in"][..], step.region.as_str())));
    named.extend(step.slow.iter().map(|step| (&["slow", "in"][..], step.region.as_str())));
    named.extend(step.skew.iter().map(|step| (&["skew", "in"][..], step.region.as_str())));
    named.extend(step.hold.iter().map(|step| (&["hold", "from"][..], step.from.as_str())));
    named.extend(step.workers.iter().map(|step| (&["workers", "in"][..], step.region.as_str())));
    let (path, _) = named.into_iter().find(|(_, region)| region.is_empty())?;
    let known = known.join(", ");
    let why = match path {
        [act, field] => format!("`{act}` has no `{field}`: expected a region, one of {known}"),
        _ => format!("`{}` names no region: expected one of {known}", path.join(".")),
    };
    Some(Wrong::key(path, why))
}

fn workflow_wrong(step: &Step) -> Option<Wrong> {
    let of_starts = starts(step).map(|(act, start)| (act, start.workflow.as_str()));
    let of_calls = calls(step).map(|(act, call)| (act, call.workflow.as_str()));
    let held = |hold: &&HoldStep| !hold.release && hold.run_of.is_empty();
    let of_holds = step.hold.iter().filter(held).map(|hold| ("hold", hold.workflow.as_str()));
    let (act, _) = of_starts.chain(of_calls).chain(of_holds).find(|(_, workflow)| workflow.is_empty())?;
    Some(Wrong::key(&[act, "workflow"], format!("`{act}` has no `workflow`: expected the id of a workflow")))
}

/// Lengths of time that are no length, or longer than a scenario may take.
fn spans_wrong(step: &Step) -> Option<Wrong> {
    let mut spans: Vec<(&[&str], Option<Span>)> = vec![
        (&["at"], step.at),
        (&["after"], step.after),
        (&["wait"], step.wait),
        (&["hand_over", "deadline"], step.hand_over.as_ref().and_then(|step| step.deadline)),
        (&["crash", "down"], step.crash.as_ref().and_then(|step| step.down)),
        (&["slow", "commit"], step.slow.as_ref().map(|step| step.commit)),
        (&["namespace", "retention"], step.namespace.as_ref().and_then(|step| step.retention)),
        (&["expect", "retention"], step.expect.as_ref().and_then(|step| step.retention)),
        (&["start", "run_timeout"], step.start.as_ref().and_then(|start| start.run_timeout)),
        (&["start", "delay"], step.start.as_ref().and_then(|start| start.delay)),
    ];
    let with_signal = step.signal_with_start.as_ref();
    spans.push((&["signal_with_start", "run_timeout"], with_signal.and_then(|start| start.run_timeout)));
    spans.push((&["signal_with_start", "delay"], with_signal.and_then(|start| start.delay)));
    let negative = spans.into_iter().find_map(|(path, span)| Some((path, span_wrong(path.last()?, span?)?)));
    if let Some((path, why)) = negative {
        return Some(Wrong::key(path, why));
    }
    let skew = step.skew.as_ref().filter(|skew| skew.by.0.unsigned_abs() > LONGEST.0.unsigned_abs())?;
    Some(Wrong::key(
        &["skew", "by"],
        format!("`by: {}`: expected at most {LONGEST}, forward or back", skew.by),
    ))
}

/// What is wrong with a length of time.
pub(super) fn span_wrong(field: &str, span: Span) -> Option<String> {
    if !(0..=LONGEST.0).contains(&span.0) {
        return Some(format!("`{field}: {span}`: expected 0s to {LONGEST}"));
    }
    // The record keeps seconds: what is less would be nothing, which is for ever.
    let whole = field != "retention" || span.0 % Span::seconds(1).0 == 0;
    (!whole).then(|| format!("`{field}: {span}`: expected whole seconds; 0s is for ever"))
}

fn program_wrong(step: &Step) -> Option<Wrong> {
    starts(step).find_map(|(act, start)| {
        start.program.iter().find_map(|word| {
            let why = match Act::parse(word) {
                Err(why) => Some(why),
                Ok(parsed) => timer_wrong(&parsed),
            };
            why.map(|why| Wrong::word(&[act, "program"], word, why))
        })
    })
}

fn timer_wrong(act: &Act) -> Option<String> {
    match act {
        Act::Timer(span) => span_wrong("timer", *span),
        Act::All(acts) => acts.iter().find_map(timer_wrong),
        _ => None,
    }
}

fn links_wrong(act: &str, step: &LinkStep) -> Option<Wrong> {
    if !step.from.is_empty() && step.from == step.to {
        let why = format!("there is no link from {0} to {0}: expected two regions", step.from);
        return Some(Wrong::key(&[act, "to"], why));
    }
    let one_way = !step.from.is_empty() || !step.to.is_empty();
    if one_way && !step.between.is_empty() {
        let why =
            "`between` is both directions, `from` and `to` are one: expected one or the other".to_string();
        return Some(Wrong::key(&[act, "between"], why));
    }
    let twice = twice(&step.between)?;
    Some(Wrong::key(&[act, "between"], format!("`{twice}` stands there twice: expected each region once")))
}

/// The first word that was there already.
pub(super) fn twice<S: AsRef<str>>(words: &[S]) -> Option<&str> {
    let mut seen = std::collections::BTreeSet::new();
    words.iter().map(AsRef::as_ref).find(|word| !seen.insert(*word))
}

fn namespace_wrong(step: &NamespaceStep) -> Option<Wrong> {
    let nothing =
        step.description.is_none() && step.retention.is_none() && step.members.is_empty() && !step.promote;
    if nothing {
        let why =
            "`namespace` changes nothing: expected description, retention, members or promote".to_string();
        return Some(Wrong::key(&["namespace"], why));
    }
    let twice = twice(&step.members)?;
    Some(Wrong::key(
        &["namespace", "members"],
        format!("`{twice}` stands there twice: expected each region once"),
    ))
}

fn workers_wrong(step: &WorkerStep) -> Option<Wrong> {
    if step.stop && step.start {
        return Some(Wrong::key(&["workers"], "they stop and start: expected one or the other".to_string()));
    }
    if !(step.stop || step.start || step.crash) && step.lose.is_none() && step.fail.is_none() {
        let why = "`workers` does nothing: expected stop, start, crash, lose or fail".to_string();
        return Some(Wrong::key(&["workers"], why));
    }
    let shares = [("lose", step.lose), ("fail", step.fail)];
    let (field, share) = shares.into_iter().find(|(_, share)| share.is_some_and(|share| share > 1_000))?;
    let why = format!("`{field}: {}`: expected 0 to 1000, of a thousand", share.unwrap_or_default());
    Some(Wrong::key(&["workers", field], why))
}

fn counts_wrong(step: &Step) -> Option<Wrong> {
    if let Some(fail) = step.fail.as_ref().filter(|fail| !(1..=MOST_FAILURES).contains(&fail.times)) {
        let why = format!("`times: {}`: expected 1 to {MOST_FAILURES}", fail.times);
        return Some(Wrong::key(&["fail", "times"], why));
    }
    let (act, attempts) =
        starts(step).find_map(|(act, start)| Some((act, start.attempts.filter(|n| *n < 0)?)))?;
    let why = format!("`attempts: {attempts}`: expected 1 or more, or 0 for as many as it takes");
    Some(Wrong::key(&[act, "attempts"], why))
}

/// What is wrong between steps: the number of the step, and what.
pub(super) fn order_wrong(script: &Script) -> Option<(usize, Wrong)> {
    backups_wrong(script).or_else(|| ids_wrong(script)).or_else(|| length_wrong(script))
}

/// A region can only come back from a backup that was made of it, and from each once.
fn backups_wrong(script: &Script) -> Option<(usize, Wrong)> {
    let mut backups = std::collections::BTreeSet::new();
    for (index, step) in script.steps.iter().enumerate() {
        if let Some(region) = &step.backup {
            backups.insert(region.as_str());
        }
        if let Some(region) = &step.restore
            && !backups.remove(region.as_str())
        {
            let why = format!(
                "{region} has no backup: expected a step `backup: {region}` before, one for each restore"
            );
            return Some((index, Wrong::key(&["restore"], why)));
        }
    }
    None
}

/// A request id that comes again is a retry: the same call, perhaps in another region.
fn ids_wrong(script: &Script) -> Option<(usize, Wrong)> {
    let mut known = std::collections::BTreeMap::new();
    for (index, step) in script.steps.iter().enumerate() {
        let of_starts = starts(step).map(|(act, start)| {
            let asked = StartStep { region: String::new(), once: false, ..start.clone() };
            (act, start.id.as_str(), format!("{asked:?}"))
        });
        let of_calls = calls(step).map(|(act, call)| {
            let asked = CallStep { region: String::new(), once: false, ..call.clone() };
            (act, call.id.as_str(), format!("{asked:?}"))
        });
        for (act, id, asked) in of_starts.chain(of_calls).filter(|(_, id, _)| !id.is_empty()) {
            let first = known.entry(id).or_insert((index, act, asked.clone()));
            if first.1 != act || first.2 != asked {
                let why = format!(
                    "the request id `{id}` is that of another call, of step {}: expected one of its own, or the very same call again",
                    first.0 + 1
                );
                return Some((index, Wrong::word(&[act], id, why)));
            }
        }
    }
    None
}

fn length_wrong(script: &Script) -> Option<(usize, Wrong)> {
    let mut whole: i64 = 0;
    for (index, step) in script.steps.iter().enumerate() {
        let spans = [("after", step.after), ("wait", step.wait)];
        for (field, span) in spans.into_iter().filter_map(|(field, span)| Some((field, span?))) {
            whole = whole.saturating_add(span.0);
            if whole > LONGEST.0 {
                let why = format!("with this the scenario waits longer than {LONGEST}: expected less in all");
                return Some((index, Wrong::key(&[field], why)));
            }
        }
    }
    None
}
