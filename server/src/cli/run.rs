//! `antipode run inspect|branches`: one question to the node, told in two ways.

use std::io::Write;

use antipode_proto::{
    admin::{self, BranchInfo, InspectRunReply},
    core as wire,
};
use serde_json::{Value, json};

use super::{Error, Output, RunCommand, RunSelector, Target, connect::Connected, output, tree, words};

pub(super) async fn run(command: RunCommand, out: &mut dyn Write) -> Result<(), Error> {
    match command {
        RunCommand::Inspect { run, target } => {
            let reply = ask(run, &target).await?;
            match target.output {
                Output::Json => output::json(out, &json_reply(&reply))?,
                Output::Human => inspect(out, &reply)?,
            }
        }
        RunCommand::Branches { run, target } => {
            let reply = ask(run, &target).await?;
            match target.output {
                Output::Json => output::json(out, &json_reply(&reply))?,
                Output::Human => tree::draw(out, &reply)?,
            }
        }
    }
    Ok(())
}

async fn ask(run: RunSelector, target: &Target) -> Result<InspectRunReply, Error> {
    let node = Connected::to(target).await?;
    let request = admin::InspectRunRequest {
        namespace: run.namespace,
        workflow_id: run.workflow_id,
        run_id: run.run_id.unwrap_or_default(),
    };
    node.answer(node.client().inspect_run(request)).await
}

/// The current branch, when the answer has it.
pub(super) fn current(reply: &InspectRunReply) -> Option<&BranchInfo> {
    usize::try_from(reply.current).ok().and_then(|index| reply.branches.get(index))
}

fn inspect(out: &mut dyn Write, reply: &InspectRunReply) -> std::io::Result<()> {
    let branch = current(reply);
    let tip = branch.and_then(|branch| branch.items.last().map(|item| (item, &branch.chain)));
    let tip = tip.map_or(String::new(), |(item, chain)| {
        format!("event #{} version {} chain {chain}", item.event_id, item.version)
    });
    let owns = match reply.current_run_id == reply.run_id {
        true => "this run".to_string(),
        false => reply.current_run_id.clone(),
    };
    let fields = [
        ("workflow id", reply.workflow_id.clone()),
        ("run id", reply.run_id.clone()),
        ("first run of its chain", reply.first_run_id.clone()),
        ("owns the workflow id", owns),
        ("state", reply.state.clone()),
        ("status", reply.status.clone()),
        ("tip", tip),
        ("branches", reply.branches.len().to_string()),
        ("digest", reply.digest.clone()),
    ];
    output::fields(out, &fields)?;
    section(out, "registers", &reply.registers)?;
    section(out, "pending events", &reply.pending)?;
    let unclaimed: Vec<String> = reply.unclaimed.iter().map(unclaimed_words).collect();
    section(out, "unclaimed events (accepted, not applied)", &unclaimed)?;
    if reply.branches.len() > 1 || !reply.unclaimed.is_empty() {
        section(out, "rollback report", &lines(reply.rollback.as_ref()))?;
    }
    if reply.runs.len() > 1 {
        section(out, "why this run owns the workflow id, or why not", &lines(reply.owner.as_ref()))?;
    }
    if reply.runs.len() > 1 {
        writeln!(out, "\nruns of this workflow id")?;
        let rows: Vec<Vec<String>> = reply.runs.iter().map(run_row).collect();
        output::table(out, &["RUN", "STATE", "STATUS", "VERSION", "PLACE", ""], &rows)?;
    }
    Ok(())
}

fn lines(explained: Option<&admin::Explained>) -> Vec<String> {
    explained.iter().flat_map(|explained| explained.words.lines()).map(str::to_string).collect()
}

/// A report with its own JSON inside, and the words beside it.
fn explained_json(explained: Option<&admin::Explained>) -> Value {
    let Some(explained) = explained else { return Value::Null };
    let report: Value = serde_json::from_str(&explained.json).unwrap_or_default();
    json!({ "words": explained.words, "report": report })
}

fn section(out: &mut dyn Write, title: &str, lines: &[String]) -> std::io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn unclaimed_words(entry: &wire::Unclaimed) -> String {
    let when = words::time(entry.recorded_unix_nanos);
    format!(
        "#{} version {} of run {}: {} ({when})",
        entry.event_id, entry.version, entry.run_id, entry.verdict
    )
}

fn run_row(run: &admin::RunSummary) -> Vec<String> {
    let owns = if run.current { "owns the workflow id" } else { "" };
    vec![
        run.run_id.clone(),
        run.state.clone(),
        run.status.clone(),
        run.version.to_string(),
        format!("{}.{}", run.place_epoch, run.place_sequence),
        owns.to_string(),
    ]
}

/// The answer with the names of the operator protocol; both commands give the same object.
fn json_reply(reply: &InspectRunReply) -> Value {
    let tip = current(reply).and_then(|branch| {
        let item = branch.items.last()?;
        Some(json!({ "event_id": item.event_id, "version": item.version, "chain": branch.chain }))
    });
    let branches: Vec<Value> =
        reply.branches.iter().enumerate().map(|(index, branch)| branch_json(reply, index, branch)).collect();
    json!({
        "namespace_id": reply.namespace_id,
        "workflow_id": reply.workflow_id,
        "run_id": reply.run_id,
        "first_run_id": reply.first_run_id,
        "current_run_id": reply.current_run_id,
        "state": reply.state,
        "status": reply.status,
        "digest": reply.digest,
        "tip": tip,
        "current": reply.current,
        "why": reply.why,
        "branches": branches,
        "registers": reply.registers,
        "pending": reply.pending,
        "unclaimed": reply.unclaimed.iter().map(unclaimed_json).collect::<Vec<_>>(),
        "runs": reply.runs.iter().map(run_json).collect::<Vec<_>>(),
        "rollback": explained_json(reply.rollback.as_ref()),
        "owner": explained_json(reply.owner.as_ref()),
    })
}

fn branch_json(reply: &InspectRunReply, index: usize, branch: &BranchInfo) -> Value {
    let is_current = u32::try_from(index) == Ok(reply.current);
    let items: Vec<Value> = branch
        .items
        .iter()
        .map(|item| json!({ "event_id": item.event_id, "version": item.version }))
        .collect();
    let fork =
        (!is_current).then(|| json!({ "event_id": branch.fork_event_id, "version": branch.fork_version }));
    json!({
        "items": items,
        "chain": branch.chain,
        "current": is_current,
        "fork": fork,
        "batches": branch.batches,
        "events": branch.events,
    })
}

fn unclaimed_json(entry: &wire::Unclaimed) -> Value {
    json!({
        "event_id": entry.event_id,
        "version": entry.version,
        "run_id": entry.run_id,
        "verdict": entry.verdict,
        "recorded_unix_nanos": entry.recorded_unix_nanos,
    })
}

fn run_json(run: &admin::RunSummary) -> Value {
    json!({
        "run_id": run.run_id,
        "state": run.state,
        "status": run.status,
        "version": run.version,
        "place": { "epoch": run.place_epoch, "sequence": run.place_sequence },
        "current": run.current,
    })
}
