//! What an expectation and a moment must say: an expectation that looks at nothing would hold whatever happens, and a moment
//! that waits for nothing would be over at once.

use super::places::{Places, Wrong};
use crate::engine::script::{Expect, Moment};

/// Why one of the fields that are set says nothing.
pub(super) fn expect_wrong(expect: &Expect, regions: usize) -> Option<Wrong> {
    let of_run = fields_of_run(expect);
    let of_workflow = fields_of_workflow(expect);
    let of_region = fields_of_region(expect);
    let key = |field: &str, why: String| Some(Wrong::key(&["expect", field], why));
    if let Some(field) = of_run.iter().chain(&of_workflow).next()
        && expect.workflow.is_empty()
    {
        return key(
            field,
            format!("`{field}` without `workflow`: expected the id of the workflow it is about"),
        );
    }
    if !expect.run_of.is_empty() && of_run.is_empty() {
        return key(
            "run_of",
            format!(
                "`run_of` says of which run, and nothing is expected of it: expected one of {}",
                RUN.join(", ")
            ),
        );
    }
    if !expect.workflow.is_empty() && of_run.is_empty() && of_workflow.is_empty() {
        return key(
            "workflow",
            format!(
                "nothing is expected of workflow `{}`: expected one of {}, {}",
                expect.workflow,
                RUN.join(", "),
                WORKFLOW.join(", ")
            ),
        );
    }
    if let Some(wrong) = counted_wrong(expect) {
        return Some(wrong);
    }
    let local = !of_run.is_empty() || !of_workflow.is_empty() || !of_region.is_empty();
    let counted = expect.seen.is_some() || !expect.call.is_empty();
    if !local && !counted {
        return Some(Wrong::key(
            &["expect"],
            format!(
                "`expect` expects nothing: expected at least one of {}, seen, or, with `workflow`, {}, {}, or, with `call`, is",
                REGION.join(", "),
                RUN.join(", "),
                WORKFLOW.join(", ")
            ),
        ));
    }
    if !local && !expect.region.is_empty() {
        return key(
            "in",
            "`in` says nothing here: calls and interesting states are those of all regions".to_string(),
        );
    }
    if expect.agree && (regions < 2 || !matches!(expect.region.as_str(), "" | "all")) {
        return key(
            "agree",
            "`agree` compares regions: expected `in: all`, and a world of two or more".to_string(),
        );
    }
    let any = |entry: &String| entry == "…" || entry == "...";
    if !expect.history.is_empty() && expect.history.iter().all(any) {
        return key(
            "history",
            "every history is so: expected at least one event, as `3@1` or its name".to_string(),
        );
    }
    versions_wrong(expect)
}

const RUN: [&str; 8] =
    ["status", "history", "branches", "current", "signals", "attempts", "task_attempt", "waiting"];
const WORKFLOW: [&str; 5] = ["unclaimed", "runs", "superseded", "owner", "agree"];
const REGION: [&str; 8] =
    ["version", "active", "phase", "writable", "description", "members", "retention", "quarantined"];

fn set(names: &[&'static str], are: &[bool]) -> Vec<&'static str> {
    names.iter().zip(are).filter(|(_, is)| **is).map(|(name, _)| *name).collect()
}

fn fields_of_run(expect: &Expect) -> Vec<&'static str> {
    set(
        &RUN,
        &[
            expect.status.is_some(),
            !expect.history.is_empty(),
            !expect.branches.is_empty(),
            expect.current.is_some(),
            expect.signals.is_some(),
            expect.attempts.is_some(),
            expect.task_attempt.is_some(),
            expect.waiting.is_some(),
        ],
    )
}

fn fields_of_workflow(expect: &Expect) -> Vec<&'static str> {
    set(
        &WORKFLOW,
        &[
            expect.unclaimed.is_some(),
            expect.runs.is_some(),
            expect.superseded.is_some(),
            expect.owner.is_some(),
            expect.agree,
        ],
    )
}

fn fields_of_region(expect: &Expect) -> Vec<&'static str> {
    set(
        &REGION,
        &[
            expect.version.is_some(),
            expect.active.is_some(),
            expect.phase.is_some(),
            expect.writable.is_some(),
            expect.description.is_some(),
            expect.members.is_some(),
            expect.retention.is_some(),
            expect.quarantined.is_some(),
        ],
    )
}

/// Calls, and what is counted.
fn counted_wrong(expect: &Expect) -> Option<Wrong> {
    let key = |field: &str, why: &str| Some(Wrong::key(&["expect", field], why.to_string()));
    if expect.call.is_empty() && expect.is.is_some() {
        return key("is", "`is` without `call`: expected the request id of the call that ended so");
    }
    if !expect.call.is_empty() && expect.is.is_none() {
        return key(
            "call",
            "nothing is expected of this call: expected `is` with ok, refused, given-up or waiting",
        );
    }
    if expect.seen.is_none() && (expect.times.is_some() || expect.never) {
        let field = if expect.never { "never" } else { "times" };
        return key(field, "this needs `seen`: expected the name of an interesting state or a fault");
    }
    if expect.never && expect.times.is_some() {
        return key("times", "`never` and `times` say different things: expected one of them");
    }
    // At least none is always so.
    if expect.times == Some(0) {
        return key("times", "`times: 0` holds whatever happens: expected 1 or more, or `never: true`");
    }
    None
}

fn versions_wrong(expect: &Expect) -> Option<Wrong> {
    let histories = expect.current.iter().map(|word| ("current", word));
    let (field, word) = histories
        .chain(expect.branches.iter().map(|word| ("branches", word)))
        .find(|(_, word)| !is_version_history(word))?;
    Some(Wrong::word(
        &["expect", field],
        word,
        format!("`{word}` is no version history: expected events and versions as in `[(3,1),(5,2)]`"),
    ))
}

/// `[(3,1),(5,2)]`, with spaces anywhere.
fn is_version_history(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let Some(items) = plain.strip_prefix("[(").and_then(|rest| rest.strip_suffix(")]")) else { return false };
    items.split("),(").all(|item| {
        item.split_once(',')
            .is_some_and(|(event, version)| event.parse::<i64>().is_ok() && version.parse::<i64>().is_ok())
    })
}

/// What the file says and the shape of a scenario cannot tell from what it does not say.
pub(super) fn silent_wrong(places: &Places, step: &str) -> Option<Wrong> {
    for field in ["agree", "never"] {
        if places.says(&["steps", step, "expect", field]) == Some("false") {
            return Some(Wrong::key(
                &["expect", field],
                format!("`{field}: false` expects nothing: expected true, or not to say it"),
            ));
        }
    }
    let lists = [
        ["expect", "history"],
        ["expect", "branches"],
        ["cut", "between"],
        ["heal", "between"],
        ["namespace", "members"],
    ];
    let [act, field] =
        lists.into_iter().find(|[act, field]| places.lists_nothing(&["steps", step, act, field]))?;
    Some(Wrong::key(&[act, field], format!("`{field}: []` says nothing: expected at least one entry")))
}

/// Why a moment is none.
pub(super) fn moment_wrong(on: &Moment) -> Option<Wrong> {
    let key = |field: &str, why: String| Some(Wrong::key(&["on", field], why));
    let of_workflow =
        set(&["event", "holds", "attempt"], &[on.event.is_some(), on.holds.is_some(), on.attempt.is_some()]);
    let of_region =
        set(&["phase", "version", "committing"], &[on.phase.is_some(), on.version.is_some(), on.committing]);
    let anywhere = set(&["answered", "seen"], &[on.answered.is_some(), on.seen.is_some()]);
    if let Some(field) = of_workflow.first()
        && on.workflow.is_empty()
    {
        return key(
            field,
            format!("`{field}` without `workflow`: expected the id of the workflow it is about"),
        );
    }
    if let Some(field) = of_workflow.iter().chain(&of_region).next()
        && on.region.is_empty()
    {
        return key(field, format!("`{field}` without `in`: expected the region in which it comes to be so"));
    }
    if of_workflow.is_empty() && !on.workflow.is_empty() {
        let why = format!("workflow `{}` is not waited for: expected event, holds or attempt", on.workflow);
        return key("workflow", why);
    }
    if of_workflow.is_empty() && of_region.is_empty() && !on.region.is_empty() {
        return key(
            "in",
            format!(
                "nothing is waited for in {}: expected event, holds or attempt (with `workflow`), phase, version or committing",
                on.region
            ),
        );
    }
    if of_workflow.is_empty() && of_region.is_empty() && anywhere.is_empty() {
        return Some(Wrong::key(
            &["on"],
            "`on` waits for nothing: expected one of event, phase, version, holds, answered, committing, attempt or seen"
                .to_string(),
        ));
    }
    if on.times.is_some() && (on.seen.is_none() || on.times == Some(0)) {
        return key("times", "expected 1 or more, and `seen` with what is counted".to_string());
    }
    let event = on.event.as_deref().filter(|event| !is_event(event))?;
    Some(Wrong::word(&["on"], event, format!("`event: {event}`: expected an event as in `12@1`")))
}

fn is_event(text: &str) -> bool {
    text.split_once('@')
        .is_some_and(|(id, version)| id.parse::<i64>().is_ok() && version.parse::<i64>().is_ok())
}
