//! Expectations of a scenario: what must be so in a region at this moment.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::{
    chain::ChainValue, digest::digest, identity::Key, ids::RunId, run::Run, version_history::VersionHistory,
};
use antipode_proto::api::enums::v1::WorkflowExecutionStatus as Status;

use super::{
    Engine, Failure, accounts::client_key, failovers::phase_name, program::event_name, rest::outline,
    script::Expect, short, span::Span,
};
use crate::region::Kept;

impl Engine {
    /// Checks what a step expects; what is not so is a finding.
    pub(crate) fn expect(&mut self, expect: &Expect) -> Result<(), Failure> {
        if !expect.call.is_empty() {
            self.expect_call(expect)?;
        }
        if let Some(name) = &expect.seen {
            let count = self.seen.count(name) + self.faults.get(name.as_str()).copied().unwrap_or(0);
            if expect.never && count > 0 {
                self.find("expect", format!("{name} happened {count} times and should not have"));
            }
            if !expect.never && count < expect.times.unwrap_or(1) {
                self.find(
                    "expect",
                    format!("{name} happened {count} times, expected {}", expect.times.unwrap_or(1)),
                );
            }
        }
        let sites: Vec<usize> = if expect.region.is_empty() || expect.region == "all" {
            (0..self.sites.len()).filter(|site| self.sites[*site].up).collect()
        } else {
            vec![self.site(&expect.region)?]
        };
        if sites.is_empty() {
            self.find("expect", "no region is up of which this could be expected".to_string());
        }
        if expect.agree {
            self.expect_agreement(&expect.workflow, &sites)?;
        }
        for site in sites {
            self.expect_record(site, expect);
            if !expect.workflow.is_empty() {
                self.expect_workflow(site, expect)?;
            }
            if let Some(wanted) = expect.quarantined {
                let found = self.quarantined(site);
                self.differs(site, "quarantined runs", &wanted, &found);
            }
        }
        Ok(())
    }

    /// The same runs in all of these regions.
    fn expect_agreement(&mut self, workflow: &str, sites: &[usize]) -> Result<(), Failure> {
        let key = self.key(workflow);
        let mut digests = Vec::new();
        for site in sites {
            let runs = self.sites[*site].region.stored_runs(&key)?;
            let found: BTreeMap<RunId, (String, ChainValue)> =
                runs.iter().map(|(id, kept)| (*id, (digest(&kept.run), kept.run.tip()))).collect();
            digests.push((*site, found));
        }
        let Some(((first, wanted), others)) = digests.split_first() else { return Ok(()) };
        for (site, found) in others {
            if found != wanted {
                let (a, b) = (self.name(*first).to_string(), self.name(*site).to_string());
                self.find("expect", format!("{a} and {b} do not agree about {workflow}"));
            }
        }
        Ok(())
    }

    fn differs<T: PartialEq + std::fmt::Debug>(&mut self, site: usize, what: &str, wanted: &T, found: &T) {
        if wanted != found {
            let name = self.name(site).to_string();
            self.find("expect", format!("{name}: {what}: expected {wanted:?}, found {found:?}"));
        }
    }

    fn expect_call(&mut self, expect: &Expect) -> Result<(), Failure> {
        let Some(call) = self.calls.by_id(&expect.call) else {
            return Err(Failure::Script(format!("there is no call with the request id `{}`", expect.call)));
        };
        let found = call.outcome.words();
        if let Some(wanted) = &expect.is
            && !found.starts_with(wanted.as_str())
        {
            self.find("expect", format!("call {}: expected {wanted}, found {found}", expect.call));
        }
        Ok(())
    }

    fn expect_record(&mut self, site: usize, expect: &Expect) {
        let region = &self.sites[site].region;
        let record = &region.record;
        let version = record.version().0;
        let active = record.active().to_string();
        let phase = phase_name(record.phase()).to_string();
        let writable = record.writable(&region.name).is_some();
        let description = record.info().description.clone();
        let members: Vec<String> = record.members().into_iter().collect();
        if let Some(wanted) = expect.version {
            self.differs(site, "version", &wanted, &version);
        }
        if let Some(wanted) = &expect.active {
            self.differs(site, "active region", wanted, &active);
        }
        if let Some(wanted) = &expect.phase {
            self.differs(site, "phase", wanted, &phase);
        }
        if let Some(wanted) = expect.writable {
            self.differs(site, "writable", &wanted, &writable);
        }
        if let Some(wanted) = &expect.description {
            self.differs(site, "description", wanted, &description);
        }
        if let Some(wanted) = expect.retention {
            let found = Span::seconds(self.sites[site].region.record.config().retention_seconds);
            self.differs(site, "retention", &wanted, &found);
        }
        if let Some(wanted) = &expect.members {
            let mut wanted = wanted.clone();
            wanted.sort();
            self.differs(site, "regions of the namespace", &wanted, &members);
        }
    }

    fn expect_workflow(&mut self, site: usize, expect: &Expect) -> Result<(), Failure> {
        let key = self.key(&expect.workflow);
        let runs = self.sites[site].region.stored_runs(&key)?;
        let owner = self.sites[site].region.stored_owner(&key)?;
        self.expect_runs(site, expect, &runs, owner)?;
        let run = if expect.run_of.is_empty() { owner } else { Some(self.run_of(&expect.run_of)?) };
        let kept = run.and_then(|run| runs.get(&run));
        let superseded = kept.is_some_and(|kept| kept.run.state.is_open()) && run != owner;
        if let Some(wanted) = &expect.status {
            let found = match kept {
                None => "none",
                Some(_) if superseded => "superseded",
                Some(kept) => status(kept.run.state.status),
            };
            self.differs(site, &format!("status of {}", expect.workflow), wanted, &found.to_string());
        }
        let Some(kept) = kept else {
            if looks_at_a_run(expect) {
                let name = self.name(site).to_string();
                self.find("expect", format!("{name} has no such run of {}", expect.workflow));
            }
            return Ok(());
        };
        self.expect_run(site, expect, kept);
        Ok(())
    }

    fn expect_runs(
        &mut self,
        site: usize,
        expect: &Expect,
        runs: &BTreeMap<RunId, Kept>,
        owner: Option<RunId>,
    ) -> Result<(), Failure> {
        if let Some(wanted) = expect.runs {
            self.differs(site, &format!("runs of {}", expect.workflow), &wanted, &runs.len());
        }
        if let Some(wanted) = expect.superseded {
            let found =
                runs.iter().filter(|(id, kept)| kept.run.state.is_open() && owner != Some(**id)).count();
            self.differs(site, &format!("superseded runs of {}", expect.workflow), &wanted, &found);
        }
        if let Some(start) = &expect.owner {
            let wanted = self.run_of(start)?;
            let words = |run: Option<RunId>| run.as_ref().map_or("nobody".to_string(), short);
            self.differs(site, &format!("owner of {}", expect.workflow), &words(Some(wanted)), &words(owner));
        }
        if let Some(wanted) = &expect.unclaimed {
            let mut found = BTreeSet::new();
            for other in &self.sites {
                for kept in other.region.stored_runs(&self.key(&expect.workflow))?.values() {
                    found.extend(kept.run.unclaimed().into_iter().filter_map(client_key));
                }
            }
            let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
            self.differs(site, &format!("unclaimed events of {}", expect.workflow), &wanted, &found);
        }
        Ok(())
    }

    fn expect_run(&mut self, site: usize, expect: &Expect, kept: &Kept) {
        let events = kept.events(kept.run.tip());
        if !expect.history.is_empty() {
            let found: Vec<String> = events
                .iter()
                .map(|event| format!("{}@{} {}", event.event_id, event.version, event_name(event)))
                .collect();
            if !matches(&expect.history, &found) {
                let name = self.name(site).to_string();
                self.find(
                    "expect",
                    format!(
                        "{name}: history of {}: expected {:?}, found {}",
                        expect.workflow,
                        expect.history,
                        outline(&events)
                    ),
                );
            }
        }
        if let Some(wanted) = &expect.signals {
            self.differs(
                site,
                &format!("signals of {}", expect.workflow),
                wanted,
                &crate::oracle::signals(&events),
            );
        }
        if let Some(wanted) = &expect.attempts {
            let found = attempts(&kept.run);
            self.differs(site, &format!("attempts of activities of {}", expect.workflow), wanted, &found);
        }
        if let Some(wanted) = &expect.task_attempt {
            let found = kept.run.task().map_or(0, |task| task.attempt);
            self.differs(
                site,
                &format!("attempt of the workflow task of {}", expect.workflow),
                wanted,
                &found,
            );
        }
        if let Some(wanted) = &expect.waiting {
            let live = kept.run.pending_live();
            let found: BTreeSet<String> = live
                .into_iter()
                .filter_map(|(identity, _)| match identity.key {
                    Key::Client(key) => Some(key),
                    _ => None,
                })
                .collect();
            let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
            self.differs(site, &format!("events of {} that wait", expect.workflow), &wanted, &found);
        }
        if let Some(wanted) = &expect.current {
            self.differs(
                site,
                &format!("current branch of {}", expect.workflow),
                &plain(wanted),
                &listed(&kept.run.items()),
            );
        }
        if !expect.branches.is_empty() {
            let wanted: BTreeSet<String> = expect.branches.iter().map(|branch| plain(branch)).collect();
            let found: BTreeSet<String> =
                kept.run.branches().iter().map(|branch| listed(&branch.items)).collect();
            self.differs(site, &format!("branches of {}", expect.workflow), &wanted, &found);
        }
    }
}

/// Whether it looks at more of a run than whether there is one.
fn looks_at_a_run(expect: &Expect) -> bool {
    !expect.history.is_empty()
        || !expect.branches.is_empty()
        || expect.current.is_some()
        || expect.signals.is_some()
        || expect.attempts.is_some()
        || expect.task_attempt.is_some()
        || expect.waiting.is_some()
}

/// Attempts of a run's pending activities, in the order in which they were scheduled.
pub(crate) fn attempts(run: &Run) -> Vec<i32> {
    let scheduled = run.state.activities.keys();
    scheduled.filter_map(|event| run.activity(*event)).map(|view| view.attempt.attempt).collect()
}

/// A version history as the examples write it: `[(3,1),(5,2)]`.
fn listed(history: &VersionHistory) -> String {
    let items: Vec<_> =
        history.items().iter().map(|item| format!("({},{})", item.event.0, item.version.0)).collect();
    format!("[{}]", items.join(","))
}

/// A version history without spaces.
fn plain(items: &str) -> String {
    items.chars().filter(|c| !c.is_whitespace()).collect()
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Canceled => "canceled",
        Status::Terminated => "terminated",
        Status::ContinuedAsNew => "continued-as-new",
        Status::TimedOut => "timed-out",
        _ => "running",
    }
}

/// `…` stands for any events, an entry for the event that begins with it or has its name.
fn matches(wanted: &[String], found: &[String]) -> bool {
    match wanted.split_first() {
        None => found.is_empty(),
        Some((word, rest)) if word == "…" || word == "..." => {
            (0..=found.len()).any(|skip| matches(rest, &found[skip..]))
        }
        Some((word, rest)) => found.split_first().is_some_and(|(event, later)| {
            let named = event.split_once(' ').is_some_and(|(_, name)| name == word);
            (event == word || named || event.split_once(' ').is_some_and(|(id, _)| id == word))
                && matches(rest, later)
        }),
    }
}
