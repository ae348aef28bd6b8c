//! `antipode namespace create|describe|list`.

use std::{io::Write, time::Duration};

use antipode_proto::{admin, core as wire};
use serde_json::{Value, json};

use super::{Error, NamespaceCommand, Output, connect::Connected, duration, output, words};

pub(super) async fn run(command: NamespaceCommand, out: &mut dyn Write) -> Result<(), Error> {
    match command {
        NamespaceCommand::Create { name, active, regions, retention, description, target } => {
            let node = Connected::to(&target).await?;
            let request = create_request(name, active, regions, retention, description);
            let reply = node.answer(node.client().create_namespace(request)).await?;
            show(out, &reply, target.output)
        }
        NamespaceCommand::Describe { name, target } => {
            let node = Connected::to(&target).await?;
            let request = admin::DescribeNamespaceRequest { name, id: String::new() };
            let reply = node.answer(node.client().describe_namespace(request)).await?;
            show(out, &reply, target.output)
        }
        NamespaceCommand::List { target } => {
            let node = Connected::to(&target).await?;
            let reply = node.answer(node.client().list_namespaces(admin::ListNamespacesRequest {})).await?;
            list(out, &reply.namespaces, target.output)
        }
    }
}

fn create_request(
    name: String,
    active: Option<String>,
    regions: Vec<String>,
    retention: Duration,
    description: String,
) -> admin::CreateNamespaceRequest {
    admin::CreateNamespaceRequest {
        name,
        active: active.unwrap_or_default(),
        regions,
        retention_seconds: i64::try_from(retention.as_secs()).unwrap_or(i64::MAX),
        description,
        global: true,
    }
}

fn list(out: &mut dyn Write, found: &[admin::NamespaceReply], form: Output) -> Result<(), Error> {
    let views = found.iter().map(View::of).collect::<Result<Vec<_>, _>>()?;
    if form == Output::Json {
        let values: Vec<Value> = views.iter().map(View::json).collect();
        return Ok(output::json(out, &Value::Array(values))?);
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let failover = view.failover();
            vec![
                view.name().to_string(),
                view.place(),
                failover.version.to_string(),
                view.reply.regions.join(", "),
                duration::words(view.retention()),
                view.record.id.clone(),
            ]
        })
        .collect();
    Ok(output::table(out, &["NAMESPACE", "ACTIVE IN", "VERSION", "REGIONS", "RETENTION", "ID"], &rows)?)
}

fn show(out: &mut dyn Write, reply: &admin::NamespaceReply, form: Output) -> Result<(), Error> {
    let view = View::of(reply)?;
    match form {
        Output::Json => output::json(out, &view.json())?,
        Output::Human => view.human(out)?,
    }
    Ok(())
}

/// A namespace as a node told it.
struct View<'a> {
    reply: &'a admin::NamespaceReply,
    record: &'a wire::NamespaceRecord,
}

impl<'a> View<'a> {
    fn of(reply: &'a admin::NamespaceReply) -> Result<Self, Error> {
        let record = reply.record.as_ref().ok_or(Error::Incomplete("the namespace's record"))?;
        Ok(Self { reply, record })
    }

    fn name(&self) -> &str {
        self.record.name.as_ref().map_or("", |register| &register.name)
    }

    fn description(&self) -> &str {
        self.record.info.as_ref().map_or("", |register| &register.description)
    }

    fn retention(&self) -> i64 {
        self.record.config.as_ref().map_or(0, |register| register.retention_seconds)
    }

    fn failover(&self) -> wire::FailoverRegister {
        self.record.failover.clone().unwrap_or_default()
    }

    /// Where it is active, or between which regions it is on its way.
    fn place(&self) -> String {
        let failover = self.failover();
        match failover.phase() {
            wire::FailoverPhase::Draining => format!("{} (draining to {})", failover.active, failover.target),
            wire::FailoverPhase::Released => format!("nobody (released to {})", failover.target),
            wire::FailoverPhase::Active | wire::FailoverPhase::Unspecified => match self.record.global {
                true => failover.active,
                false => format!("{} (local)", self.record.home),
            },
        }
    }

    fn json(&self) -> Value {
        let failover = self.failover();
        let phase = match failover.phase() {
            wire::FailoverPhase::Draining => "Draining",
            wire::FailoverPhase::Released => "Released",
            wire::FailoverPhase::Active | wire::FailoverPhase::Unspecified => "Active",
        };
        let history: Vec<Value> = self.record.history.iter().map(entry).collect();
        json!({
            "name": self.name(),
            "id": self.record.id,
            "global": self.record.global,
            "active": failover.active,
            "active_here": self.reply.active_here,
            "phase": phase,
            "target": failover.target,
            "failover_version": failover.version,
            "regions": self.reply.regions,
            "retention_seconds": self.retention(),
            "description": self.description(),
            "deleted": self.record.deleted,
            "region": self.reply.region,
            "failover_history": history,
        })
    }

    fn human(&self, out: &mut dyn Write) -> Result<(), Error> {
        let failover = self.failover();
        let asked = match self.reply.active_here {
            true => format!("{} (active here)", self.reply.region),
            false => format!("{} (passive here)", self.reply.region),
        };
        let kind = if self.record.global { "global" } else { "local" };
        let fields = [
            ("namespace", self.name().to_string()),
            ("id", self.record.id.clone()),
            ("kind", kind.to_string()),
            ("active in", self.place()),
            ("failover version", failover.version.to_string()),
            ("regions", self.reply.regions.join(", ")),
            ("retention", duration::words(self.retention())),
            ("description", self.description().to_string()),
            ("asked", asked),
        ];
        let told: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        output::fields(out, &told)?;
        if !self.record.history.is_empty() {
            writeln!(out, "\nfailover history")?;
            let rows: Vec<Vec<String>> = self.record.history.iter().map(row).collect();
            output::table(out, &["VERSION", "WHEN", "FROM", "TO", "HOW", "WHO", "WHY"], &rows)?;
        }
        Ok(())
    }
}

fn row(entry: &wire::FailoverEntry) -> Vec<String> {
    let how = match (entry.forced, entry.from.is_empty()) {
        (_, true) => "created".to_string(),
        (true, _) => "forced".to_string(),
        (false, _) => format!("graceful, {} ms", entry.unavailable_millis),
    };
    let (version, when) = (entry.version.to_string(), words::time(entry.at_unix_nanos));
    vec![version, when, entry.from.clone(), entry.to.clone(), how, entry.who.clone(), entry.why.clone()]
}

fn entry(entry: &wire::FailoverEntry) -> Value {
    json!({
        "version": entry.version,
        "from": entry.from,
        "to": entry.to,
        "who": entry.who,
        "why": entry.why,
        "at_unix_nanos": entry.at_unix_nanos,
        "forced": entry.forced,
        "unavailable_millis": entry.unavailable_millis,
        "predicted_loss_runs": entry.predicted_loss_runs,
        "not_asked": entry.not_asked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(phase: wire::FailoverPhase) -> admin::NamespaceReply {
        let failover = wire::FailoverRegister {
            version: 11,
            phase: phase.into(),
            active: "east".into(),
            target: "west".into(),
            ..Default::default()
        };
        let name = wire::NameRegister { name: "orders".into(), stamp: None };
        let record = wire::NamespaceRecord {
            id: "id".into(),
            name: Some(name),
            global: true,
            failover: Some(failover),
            config: Some(wire::ConfigRegister { retention_seconds: 259_200, stamp: None }),
            ..Default::default()
        };
        admin::NamespaceReply {
            record: Some(record),
            regions: vec!["east".into(), "west".into()],
            active_here: true,
            region: "east".into(),
        }
    }

    fn listed(reply: admin::NamespaceReply) -> String {
        let mut out = Vec::new();
        list(&mut out, &[reply], Output::Human).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_says_where_a_namespace_is_or_where_it_goes() {
        let text = listed(reply(wire::FailoverPhase::Active));
        assert_eq!(
            text,
            "NAMESPACE  ACTIVE IN  VERSION  REGIONS     RETENTION  ID\n\
             orders     east       11       east, west  3d         id\n"
        );
        assert!(listed(reply(wire::FailoverPhase::Draining)).contains("east (draining to west)"));
        assert!(listed(reply(wire::FailoverPhase::Released)).contains("nobody (released to west)"));
    }

    #[test]
    fn an_answer_without_record_is_an_error_not_an_empty_line() {
        let mut out = Vec::new();
        let empty = admin::NamespaceReply::default();
        assert!(matches!(show(&mut out, &empty, Output::Json), Err(Error::Incomplete(_))));
    }
}
