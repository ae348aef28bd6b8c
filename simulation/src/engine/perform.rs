//! Steps of a script become acts.

use std::fmt;

use super::{
    Engine, Failure,
    calls::What,
    script::{LinkStep, Moment, Settle, Step},
    span::Span,
};
use antipode_core::ids::Timestamp;
use antipode_history::api::TaskKind;

/// A moment that does not come within this is a finding.
const MOMENT_PATIENCE: Span = Span::seconds(3_600);

impl Step {
    /// How many acts it names: a step has exactly one.
    #[must_use]
    pub fn acts(&self) -> usize {
        [
            self.start.is_some(),
            self.signal.is_some(),
            self.signal_with_start.is_some(),
            self.cancel.is_some(),
            self.terminate.is_some(),
            self.cut.is_some(),
            self.heal.is_some(),
            self.net.is_some(),
            self.force.is_some(),
            self.hand_over.is_some(),
            self.undo.is_some(),
            self.namespace.is_some(),
            self.crash.is_some(),
            self.fail.is_some(),
            self.slow.is_some(),
            self.skew.is_some(),
            self.backup.is_some(),
            self.restore.is_some(),
            self.hold.is_some(),
            self.redeliver.is_some(),
            self.workers.is_some(),
            self.evict.is_some(),
            self.replay.is_some(),
            self.wait.is_some(),
            self.settle.is_some(),
            self.expect.is_some(),
        ]
        .into_iter()
        .filter(|set| *set)
        .count()
    }
}

/// As a scenario writes it.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}: {value}"));
        let some = |name: &str, value: &Option<String>| word(name, value.as_deref().unwrap_or_default());
        let fields = [
            word("in", &self.region),
            word("workflow", &self.workflow),
            some("event", &self.event),
            some("phase", &self.phase),
            self.version.map(|version| format!("version: {version}")),
            some("holds", &self.holds),
            some("answered", &self.answered),
            self.committing.then(|| "committing: true".to_string()),
            self.attempt.map(|attempt| format!("attempt: {attempt}")),
            some("seen", &self.seen),
            self.times.map(|times| format!("times: {times}")),
        ];
        write!(f, "{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Engine {
    /// Waits for a step's moment and does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn perform(&mut self, step: &Step) -> Result<(), Failure> {
        if let Some(at) = step.at {
            self.run_until(Timestamp(super::BEGIN.0 + at.0))?;
        }
        if let Some(after) = step.after {
            self.run_until(Timestamp(self.now.0 + after.0))?;
        }
        if let Some(on) = &step.on {
            self.run_until_moment(on)?;
        }
        if !self.findings.is_empty() {
            return Ok(());
        }
        self.act(step)?;
        self.settle_links()
    }

    fn act(&mut self, step: &Step) -> Result<(), Failure> {
        if let Some(start) = &step.start {
            self.call_start(start, false)?;
        }
        if let Some(start) = &step.signal_with_start {
            self.call_start(start, true)?;
        }
        if let Some(call) = &step.signal {
            self.call_about(call, What::Signal(call.name.clone()))?;
        }
        if let Some(call) = &step.cancel {
            self.call_about(call, What::Cancel)?;
        }
        if let Some(call) = &step.terminate {
            self.call_about(call, What::Terminate)?;
        }
        if let Some(link) = &step.cut {
            self.cut(link)?;
        }
        if let Some(link) = &step.heal {
            self.heal(link)?;
        }
        if let Some(net) = &step.net {
            self.net(net);
        }
        if let Some(region) = &step.force {
            let site = self.site(region)?;
            self.force(site)?;
        }
        if let Some(hand_over) = &step.hand_over {
            self.hand_over(hand_over)?;
        }
        if let Some(region) = &step.undo {
            let site = self.site(region)?;
            self.undo(site)?;
        }
        if let Some(change) = &step.namespace {
            self.namespace_step(change)?;
        }
        self.act_fault(step)?;
        if let Some(span) = step.wait {
            self.run_until(Timestamp(self.now.0 + span.0))?;
        }
        match step.settle {
            Some(Settle::Cut) => self.settle(false)?,
            Some(Settle::Heal) => {
                self.heal_all()?;
                self.settle(true)?;
            }
            None => {}
        }
        if let Some(expect) = &step.expect {
            self.expect(expect)?;
        }
        Ok(())
    }

    fn act_fault(&mut self, step: &Step) -> Result<(), Failure> {
        if let Some(crash) = &step.crash {
            self.crash(crash)?;
        }
        if let Some(fail) = &step.fail {
            self.fail(fail)?;
        }
        if let Some(slow) = &step.slow {
            self.slow(slow)?;
        }
        if let Some(skew) = &step.skew {
            self.skew(skew)?;
        }
        if let Some(region) = &step.backup {
            let site = self.site(region)?;
            self.backup(site);
        }
        if let Some(region) = &step.restore {
            let site = self.site(region)?;
            self.restore(site)?;
        }
        if let Some(hold) = &step.hold {
            self.hold(hold)?;
        }
        if let Some(region) = &step.redeliver {
            let site = self.site(region)?;
            self.redeliver(site)?;
        }
        if let Some(workers) = &step.workers {
            self.workers_step(workers)?;
        }
        if let Some(region) = &step.evict {
            let site = self.site(region)?;
            self.evict(site)?;
        }
        if let Some(region) = &step.replay {
            let site = self.site(region)?;
            self.stream_anew(site)?;
        }
        Ok(())
    }

    fn run_until_moment(&mut self, moment: &Moment) -> Result<(), Failure> {
        let end = Timestamp(self.now.0 + MOMENT_PATIENCE.0);
        while !self.is_moment(moment)? {
            let nothing_left = self.next_at().is_none_or(|at| at > end);
            if nothing_left || !self.findings.is_empty() {
                self.find(
                    "expect",
                    format!("this moment never came, nor within {MOMENT_PATIENCE}: `on: {moment}`"),
                );
                return Ok(());
            }
            self.step()?;
        }
        Ok(())
    }

    fn is_moment(&self, moment: &Moment) -> Result<bool, Failure> {
        let mut so = true;
        if let Some(call) = &moment.answered {
            so &= self.calls.by_id(call).is_some_and(|call| call.outcome != super::calls::Outcome::Waiting);
        }
        if let Some(name) = &moment.seen {
            let count = self.seen.count(name) + self.faults.get(name.as_str()).copied().unwrap_or(0);
            so &= count >= moment.times.unwrap_or(1);
        }
        if moment.region.is_empty() {
            return Ok(so);
        }
        let site = self.site(&moment.region)?;
        let here = &self.sites[site];
        if let Some(phase) = &moment.phase {
            so &= super::failovers::phase_name(here.region.record.phase()) == phase;
        }
        if let Some(version) = moment.version {
            so &= here.region.record.version().0 >= version;
        }
        if moment.committing {
            so &= !here.committing.is_empty();
        }
        if let Some(kind) = &moment.holds {
            let wanted = match kind.as_str() {
                "workflow-task" => TaskKind::Workflow,
                "activity" => TaskKind::Activity,
                other => {
                    return Err(Failure::Script(format!(
                        "`holds: {other}`: expected workflow-task or activity"
                    )));
                }
            };
            so &= here.held.values().any(|task| task.kind() == wanted && task.workflow() == moment.workflow);
        }
        if let Some(attempt) = moment.attempt
            && so
        {
            so &= self.current_run(site, &moment.workflow)?.is_some_and(|kept| {
                super::expect::attempts(&kept.run).into_iter().any(|reached| reached >= attempt)
            });
        }
        if let Some(event) = &moment.event
            && so
        {
            so &= self.has_event(site, &moment.workflow, event)?;
        }
        Ok(so)
    }

    fn has_event(&self, site: usize, workflow: &str, event: &str) -> Result<bool, Failure> {
        let wrong = || Failure::Script(format!("`event: {event}`: expected an event as in `12@1`"));
        let (id, version) = event.split_once('@').ok_or_else(wrong)?;
        let (id, version): (i64, i64) =
            (id.parse().map_err(|_| wrong())?, version.parse().map_err(|_| wrong())?);
        let runs = self.sites[site].region.stored_runs(&self.key(workflow))?;
        Ok(runs.values().any(|kept| {
            let item = (antipode_core::ids::EventId(id), antipode_core::ids::FailoverVersion(version));
            kept.run.items().contains(item.0, item.1)
        }))
    }

    /// The run that owns a workflow id, as a region stores it.
    fn current_run(&self, site: usize, workflow: &str) -> Result<Option<crate::region::Kept>, Failure> {
        let key = self.key(workflow);
        let Some(owner) = self.sites[site].region.stored_owner(&key)? else { return Ok(None) };
        Ok(self.sites[site].region.stored_runs(&key)?.remove(&owner))
    }

    fn evict(&mut self, site: usize) -> Result<(), Failure> {
        self.fault("shard moved");
        let now = self.local(site);
        if self.sites[site].up {
            self.sites[site].region.evict(now)?;
            // Whoever has the shard now is told again what the peers proved.
            self.feed_proofs(site)?;
            self.tend(site)?;
        }
        Ok(())
    }

    /// Heals links that a step names none of: all.
    pub fn heal_links(&mut self) -> Result<(), Failure> {
        self.heal(&LinkStep::default())
    }
}
