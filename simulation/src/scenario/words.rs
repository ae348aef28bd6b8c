//! Words and names of a scenario that can only be one of a few: policies, states of runs and records, workflows and calls that
//! some step makes. A word that is none of them would make a step do less than it says, or an expectation hold for nothing.

use std::collections::BTreeSet;

use crate::engine::script::{CallStep, Script, StartStep, Step};

const CONFLICT: [&str; 3] = ["fail", "use-existing", "terminate-existing"];
const REUSE: [&str; 4] =
    ["allow-duplicate", "allow-duplicate-failed-only", "reject-duplicate", "terminate-if-running"];
const STATUS: [&str; 9] = [
    "running",
    "completed",
    "failed",
    "canceled",
    "terminated",
    "continued-as-new",
    "timed-out",
    "superseded",
    "none",
];
const PHASE: [&str; 3] = ["active", "draining", "released"];
const HOLDS: [&str; 2] = ["workflow-task", "activity"];
const OUTCOME: [&str; 4] = ["ok", "refused", "given-up", "waiting"];

/// What all steps of a scenario name.
pub(super) struct Names<'a> {
    workflows: BTreeSet<&'a str>,
    calls: BTreeSet<&'a str>,
    starts: BTreeSet<&'a str>,
    signals: BTreeSet<&'a str>,
}

fn starts(step: &Step) -> impl Iterator<Item = &StartStep> {
    step.start.iter().chain(&step.signal_with_start)
}

fn calls(step: &Step) -> impl Iterator<Item = &CallStep> {
    step.signal.iter().chain(&step.cancel).chain(&step.terminate)
}

impl<'a> Names<'a> {
    /// Of a scenario.
    pub(super) fn of(script: &'a Script) -> Self {
        let mut names = Self {
            workflows: BTreeSet::new(),
            calls: BTreeSet::new(),
            starts: BTreeSet::new(),
            signals: BTreeSet::new(),
        };
        for step in &script.steps {
            names.signals.extend(step.signal.iter().map(|call| call.id.as_str()));
            names.signals.extend(step.signal_with_start.iter().map(|start| start.id.as_str()));
            for start in starts(step) {
                names.workflows.insert(&start.workflow);
                names.calls.insert(&start.id);
                names.starts.insert(&start.id);
            }
            for call in calls(step) {
                names.workflows.insert(&call.workflow);
                names.calls.insert(&call.id);
            }
        }
        names
    }

    /// The first word of a step that stands for nothing: the word, and what is wrong with it.
    pub(super) fn wrong(&self, step: &'a Step) -> Option<(&'a str, String)> {
        policies(step)
            .or_else(|| self.moment(step))
            .or_else(|| self.names(step))
            .or_else(|| self.expected(step))
    }

    fn moment(&self, step: &'a Step) -> Option<(&'a str, String)> {
        let on = step.on.as_ref()?;
        one_of("phase", on.phase.as_deref(), &PHASE)
            .or_else(|| one_of("holds", on.holds.as_deref(), &HOLDS))
            .or_else(|| known("call with the request id", on.answered.as_deref()?, &self.calls))
            .or_else(|| known("workflow", &on.workflow, &self.workflows))
    }

    fn names(&self, step: &'a Step) -> Option<(&'a str, String)> {
        let runs = calls(step).map(|call| call.run_of.as_str());
        let held = step.hold.iter().map(|hold| hold.run_of.as_str());
        let expected = step.expect.iter().map(|expect| expect.run_of.as_str());
        let owner = step.expect.iter().filter_map(|expect| expect.owner.as_deref());
        runs.chain(held)
            .chain(expected)
            .chain(owner)
            .find_map(|start| known("start with the request id", start, &self.starts))
            .or_else(|| {
                let hold = step.hold.as_ref().filter(|hold| !hold.release)?;
                known("workflow", &hold.workflow, &self.workflows)
            })
    }

    fn expected(&self, step: &'a Step) -> Option<(&'a str, String)> {
        let expect = step.expect.as_ref()?;
        one_of("status", expect.status.as_deref(), &STATUS)
            .or_else(|| one_of("phase", expect.phase.as_deref(), &PHASE))
            .or_else(|| {
                let is = expect.is.as_deref()?;
                // `refused: why` says more than the outcome.
                let outcome = is.split(':').next().unwrap_or(is);
                one_of("is", Some(outcome), &OUTCOME).map(|(_, why)| (is, why))
            })
            .or_else(|| known("call with the request id", &expect.call, &self.calls))
            .or_else(|| known("workflow", &expect.workflow, &self.workflows))
            .or_else(|| all_known("signal with the request id", expect.signals.as_deref(), &self.signals))
            .or_else(|| {
                all_known("call with the request id", expect.unclaimed.as_deref(), &self.calls)
                    .or_else(|| all_known("call with the request id", expect.waiting.as_deref(), &self.calls))
            })
    }
}

fn all_known<'a>(
    what: &str,
    words: Option<&'a [String]>,
    names: &BTreeSet<&str>,
) -> Option<(&'a str, String)> {
    words.unwrap_or_default().iter().find_map(|word| known(what, word, names))
}

fn policies(step: &Step) -> Option<(&str, String)> {
    starts(step).find_map(|start| {
        one_of("conflict", start.conflict.as_deref(), &CONFLICT)
            .or_else(|| one_of("reuse", start.reuse.as_deref(), &REUSE))
    })
}

fn one_of<'a>(field: &str, word: Option<&'a str>, words: &[&str]) -> Option<(&'a str, String)> {
    let word = word.filter(|word| !words.contains(word))?;
    Some((word, format!("`{field}: {word}`: expected one of {}", words.join(", "))))
}

fn known<'a>(what: &str, name: &'a str, names: &BTreeSet<&str>) -> Option<(&'a str, String)> {
    if name.is_empty() || names.contains(name) {
        return None;
    }
    let names: Vec<_> = names.iter().filter(|name| !name.is_empty()).copied().collect();
    let expected = if names.is_empty() {
        "there is none".to_string()
    } else {
        format!("expected one of {}", names.join(", "))
    };
    Some((name, format!("no step makes a {what} `{name}`: {expected}")))
}
