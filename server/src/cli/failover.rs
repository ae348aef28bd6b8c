//! `antipode failover`: one verb, the same from any region. What happened is told step by step.

use std::{io::Write, time::Duration};

use antipode_proto::admin;
use serde_json::json;

use super::{Error, FailoverArguments, Output, connect::Connected, output};

/// The node has its own deadline; this much later its silence is one.
const GRACE: Duration = Duration::from_secs(20);

pub(super) async fn run(arguments: FailoverArguments, out: &mut dyn Write) -> Result<(), Error> {
    let node = Connected::to(&arguments.target).await?;
    let request = admin::FailoverRequest {
        namespace: arguments.namespace.clone(),
        to: arguments.to,
        force: arguments.force,
        deadline_millis: i64::try_from(arguments.deadline.as_millis()).unwrap_or(i64::MAX),
        who: who(),
        why: arguments.why,
    };
    let patience = arguments.deadline.saturating_add(GRACE);
    let reply = node.answer_within(patience, node.client().failover(request)).await?;
    match arguments.target.output {
        Output::Json => json_reply(out, &reply)?,
        Output::Human => human(out, &arguments.namespace, &reply)?,
    }
    Ok(())
}

/// The person at the terminal, for the failover history.
fn who() -> String {
    let named = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    named("SUDO_USER").or_else(|| named("USER")).or_else(|| named("LOGNAME")).unwrap_or_default()
}

fn json_reply(out: &mut dyn Write, reply: &admin::FailoverReply) -> std::io::Result<()> {
    let value = json!({
        "from": reply.from,
        "to": reply.to,
        "version_before": reply.version_before,
        "version": reply.version,
        "forced": reply.forced,
        "already_active": reply.already_active,
        "unavailable_millis": reply.unavailable_millis,
        "predicted_loss_runs": reply.predicted_loss_runs,
        "not_asked": reply.not_asked,
        "steps": reply.steps,
        "warnings": reply.warnings,
    });
    output::json(out, &value)
}

fn human(out: &mut dyn Write, namespace: &str, reply: &admin::FailoverReply) -> std::io::Result<()> {
    if reply.already_active {
        return writeln!(out, "{namespace} is already active in {} (version {})", reply.to, reply.version);
    }
    for step in &reply.steps {
        writeln!(out, "  {step}")?;
    }
    let how = if reply.forced { "forced" } else { "graceful" };
    writeln!(
        out,
        "{namespace} moved from {} to {} ({how}): version {} -> {}, {} ms without an active region",
        reply.from, reply.to, reply.version_before, reply.version, reply.unavailable_millis
    )?;
    for warning in &reply.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if reply.forced && !reply.not_asked.is_empty() {
        let names = reply.not_asked.join(", ");
        writeln!(
            out,
            "not asked, because not reachable: {names}. What only they hold comes back as losing branches."
        )?;
    }
    if reply.predicted_loss_runs > 0 {
        writeln!(out, "runs with writes that {} had not proved: {}", reply.to, reply.predicted_loss_runs)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reply: &admin::FailoverReply) -> String {
        let mut out = Vec::new();
        human(&mut out, "orders", reply).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_forced_move_names_the_regions_that_were_not_asked() {
        let reply = admin::FailoverReply {
            from: "east".into(),
            to: "west".into(),
            version_before: 1,
            version: 2,
            forced: true,
            not_asked: vec!["east".into()],
            ..Default::default()
        };
        let text = told(&reply);
        assert!(text.starts_with("orders moved from east to west (forced): version 1 -> 2"), "{text}");
        assert!(text.contains("not asked, because not reachable: east."), "{text}");
    }

    /// H2.
    #[test]
    fn a_warning_is_told_after_the_move() {
        let reply = admin::FailoverReply {
            from: "east".into(),
            to: "west".into(),
            warnings: vec!["the clock of west is 2.000 s ahead of that of east".into()],
            ..Default::default()
        };
        let text = told(&reply);
        assert!(text.ends_with("\nwarning: the clock of west is 2.000 s ahead of that of east\n"), "{text}");
    }

    #[test]
    fn a_move_that_was_none_says_so() {
        let reply = admin::FailoverReply {
            to: "west".into(),
            version: 2,
            already_active: true,
            ..Default::default()
        };
        assert_eq!(told(&reply), "orders is already active in west (version 2)\n");
    }
}
