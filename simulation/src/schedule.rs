//! Random schedules: clients, workers, failovers, partitions, crashes and redelivery in an order that a seed chooses; then
//! everything heals and the oracles look.

use std::collections::{BTreeMap, BTreeSet};

use antipode_history::api::{Reply, TaskKind};

use crate::{
    oracle::{outline, signals},
    random::Random,
    worker::{Decision, Held},
    world::{Failure, World},
};

/// What a schedule did and found.
#[derive(Debug, Default)]
pub struct Report {
    /// Broken laws.
    pub findings: Vec<String>,
    /// How often each kind of step was effective.
    pub steps: BTreeMap<&'static str, u64>,
    /// Readable trace, one line a step.
    pub trace: Vec<String>,
}

struct Walk {
    world: World,
    random: Random,
    report: Report,
    workflows: BTreeSet<String>,
    acknowledged: BTreeMap<String, BTreeSet<String>>,
    tasks: Vec<(usize, Held)>,
    activities: Vec<(usize, Held)>,
    count: u64,
}

/// Runs the schedule of a seed.
///
/// # Errors
/// [`Failure`] when the world itself breaks.
pub fn run(seed: u64, regions: usize, steps: usize) -> Result<Report, Failure> {
    let mut random = Random::new(seed).fork("schedule");
    let shards: Vec<u32> = (0..regions).map(|_| 1 + u32::try_from(random.below(3)).unwrap_or(0)).collect();
    let mut walk = Walk {
        world: World::new(&shards)?,
        random,
        report: Report::default(),
        workflows: BTreeSet::new(),
        acknowledged: BTreeMap::new(),
        tasks: Vec::new(),
        activities: Vec::new(),
        count: 0,
    };
    for _ in 0..steps {
        walk.step()?;
        walk.look()?;
        if !walk.report.findings.is_empty() {
            return Ok(walk.report);
        }
    }
    walk.rest()?;
    Ok(walk.report)
}

impl Walk {
    fn did(&mut self, what: &'static str, line: String) {
        *self.report.steps.entry(what).or_default() += 1;
        self.report.trace.push(format!("{what} {line}"));
    }

    fn region(&mut self) -> usize {
        self.random.below(self.world.regions.len())
    }

    /// The region that thinks it is active; when several do, any of them.
    fn active(&mut self) -> usize {
        let writable = |index: &usize| {
            let region = &self.world.regions[*index];
            region.record.writable(&region.name).is_some()
        };
        let active: Vec<_> = (0..self.world.regions.len()).filter(writable).collect();
        active.get(self.random.below(active.len())).copied().unwrap_or(0)
    }

    fn workflow(&mut self) -> String {
        format!("w{}", self.random.below(3))
    }

    fn step(&mut self) -> Result<(), Failure> {
        match self.random.below(100) {
            0..10 => self.start(),
            10..30 => self.signal(),
            30..45 => self.poll(),
            45..62 => self.complete_task(),
            62..72 => self.complete_activity(),
            72..80 => self.replicate_some(),
            80..84 => self.partition(),
            84..88 => self.heal(),
            88..92 => self.force(),
            92..94 => self.crash(),
            94..97 => {
                let seconds = 1 + i64::try_from(self.random.below(30)).unwrap_or(0);
                self.did("advance", format!("{seconds}s"));
                self.world.advance(seconds * 1_000_000_000)
            }
            _ => {
                let region = self.region();
                self.world.regions[region].positions.clear();
                self.did("redeliver", self.world.regions[region].name.clone());
                Ok(())
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let (region, workflow) = (self.active(), self.workflow());
        self.count += 1;
        let answer = self.world.start(region, &workflow, &format!("start-{}", self.count))?;
        if let Some(Ok(Reply::Start(_))) = answer {
            self.did("start", format!("{workflow} in {}", self.world.regions[region].name));
            self.workflows.insert(workflow);
        }
        Ok(())
    }

    fn signal(&mut self) -> Result<(), Failure> {
        let (region, workflow) = (self.active(), self.workflow());
        self.count += 1;
        let id = format!("signal-{}", self.count);
        if let Some(Ok(_)) = self.world.signal(region, &workflow, "s", &id)? {
            self.did("signal", format!("{workflow} {id} in {}", self.world.regions[region].name));
            self.acknowledged.entry(workflow).or_default().insert(id);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let region = self.active();
        let kind = if self.random.percent(60) { TaskKind::Workflow } else { TaskKind::Activity };
        if let Some(held) = self.world.poll(region, kind)? {
            let line = format!(
                "{} {:?} in {}",
                held.token.key.workflow, held.token.task, self.world.regions[region].name
            );
            match kind {
                TaskKind::Workflow => {
                    self.did("task started", line);
                    self.tasks.push((region, held));
                }
                TaskKind::Activity => {
                    self.did("activity started", line);
                    self.activities.push((region, held));
                }
            }
        }
        Ok(())
    }

    /// A worker answers where it polled, or, forwarded, where the namespace is active now.
    fn answer_at(&mut self, polled: usize) -> usize {
        if self.random.percent(70) { polled } else { self.active() }
    }

    fn complete_task(&mut self) -> Result<(), Failure> {
        let index = self.random.below(self.tasks.len());
        if index >= self.tasks.len() {
            return self.poll();
        }
        let (polled, held) = self.tasks.swap_remove(index);
        let region = self.answer_at(polled);
        let decision = match self.random.below(12) {
            0..5 => Decision::Wait,
            5..8 => {
                self.count += 1;
                Decision::Activity(format!("a{}", self.count))
            }
            8..10 => {
                self.count += 1;
                Decision::Timer(format!("t{}", self.count), 5)
            }
            10 => Decision::ContinueAsNew,
            _ => Decision::Complete,
        };
        let answer = self.world.complete_task(region, &held, &decision)?;
        let fate = match answer {
            Some(Ok(_)) => "task completed",
            _ => "task refused",
        };
        self.did(
            fate,
            format!("{} {decision:?} in {}", held.token.key.workflow, self.world.regions[region].name),
        );
        Ok(())
    }

    fn complete_activity(&mut self) -> Result<(), Failure> {
        let index = self.random.below(self.activities.len());
        if index >= self.activities.len() {
            return self.poll();
        }
        let (polled, held) = self.activities.swap_remove(index);
        let region = self.answer_at(polled);
        let well = self.random.percent(60);
        let answer = self.world.complete_activity(region, &held, well)?;
        let fate = match answer {
            Some(Ok(_)) => "activity completed",
            _ => "activity refused",
        };
        self.did(
            fate,
            format!("{} well {well} in {}", held.token.key.workflow, self.world.regions[region].name),
        );
        Ok(())
    }

    fn replicate_some(&mut self) -> Result<(), Failure> {
        let (from, to) = (self.region(), self.region());
        if from == to || self.world.cut.contains(&(from, to)) {
            return Ok(());
        }
        self.did(
            "replicate",
            format!("{} to {}", self.world.regions[from].name, self.world.regions[to].name),
        );
        self.world.exchange_records()?;
        self.world.replicate_link(from, to).map(|_| ())
    }

    fn partition(&mut self) -> Result<(), Failure> {
        let (a, b) = (self.region(), self.region());
        if a != b {
            self.did("cut", format!("{} {}", self.world.regions[a].name, self.world.regions[b].name));
            if self.random.percent(70) {
                self.world.cut_both(a, b);
            } else {
                self.world.cut.insert((a, b));
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Failure> {
        self.did("heal", String::new());
        self.world.heal();
        self.world.exchange_records()
    }

    fn force(&mut self) -> Result<(), Failure> {
        let to = self.region();
        let version = self.world.force(to)?;
        self.did("force", format!("{} {version}", self.world.regions[to].name));
        self.world.exchange_records()
    }

    fn crash(&mut self) -> Result<(), Failure> {
        let (region, now) = (self.region(), self.world.now);
        self.did("crash", self.world.regions[region].name.clone());
        self.world.regions[region].crash(now)?;
        self.world.settle()
    }

    /// After every step: at most one open run a workflow id, nothing broken (V06).
    fn look(&mut self) -> Result<(), Failure> {
        for region in 0..self.world.regions.len() {
            let name = self.world.regions[region].name.clone();
            if let Some(why) = self.world.regions[region].broken.first() {
                self.report.findings.push(format!("{name} broke: {why}"));
            }
            for workflow in self.workflows.clone() {
                let open = self.world.open_runs(region, &workflow)?;
                if open.len() > 1 {
                    self.report.findings.push(format!("V06 {workflow}: {name} has {} open runs", open.len()));
                }
            }
        }
        if let Some((run, why)) = self.world.poisoned.first_key_value() {
            self.report.findings.push(format!("run {run} was quarantined: {why}"));
        }
        Ok(())
    }

    /// Everything heals; then all must agree and nothing acknowledged may be missing (V09–V11).
    fn rest(&mut self) -> Result<(), Failure> {
        self.world.heal();
        self.did("rest", String::new());
        self.world.replicate()?;
        // What the active region owes it does now, or when the tasks that nobody completes any more have timed out.
        for _ in 0..3 {
            self.world.advance(11_000_000_000)?;
            self.world.replicate()?;
        }
        self.look()?;
        let workflows = self.workflows.clone();
        let findings = self.world.check_converged(&workflows)?;
        self.report.findings.extend(findings);
        for (workflow, ids) in self.acknowledged.clone() {
            self.check_acknowledged(&workflow, &ids)?;
        }
        Ok(())
    }

    /// Verdicts are records of the region that gave them.
    fn unclaimed_everywhere(
        &mut self,
        workflow: &str,
        run: antipode_core::ids::RunId,
    ) -> Result<Vec<antipode_proto::core::Unclaimed>, Failure> {
        let mut records = Vec::new();
        for region in 0..self.world.regions.len() {
            let runs = self.world.stored_runs(region, workflow)?;
            records.extend(runs.get(&run).map(|run| run.unclaimed.clone()).unwrap_or_default());
        }
        Ok(records)
    }

    /// V10, V11: each acknowledged signal stands exactly once in a history that counts, or is listed.
    fn check_acknowledged(&mut self, workflow: &str, ids: &BTreeSet<String>) -> Result<(), Failure> {
        // By chain: a superseded run that gave its events to another chain may win again later, and then both hold them.
        let mut found: BTreeMap<String, BTreeMap<antipode_core::ids::RunId, u64>> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        let mut outlines = Vec::new();
        let open: BTreeSet<_> = self.world.open_runs(0, workflow)?.into_iter().map(|key| key.run).collect();
        for (id, run) in self.world.stored_runs(0, workflow)? {
            let superseded = run.state.is_open() && !open.contains(&id);
            let history = self.world.history(0, workflow, Some(id))?;
            // A superseded run's history does not count: what it took is owed to the owner of the id, or listed.
            for signal in signals(&history).into_iter().filter(|_| !superseded) {
                *found.entry(signal).or_default().entry(run.first_run).or_default() += 1;
            }
            // What the chain took before this run is known to it, wherever the branch that took it went (B2).
            for identity in run.state.applied.iter().filter(|_| open.contains(&id)) {
                if let antipode_core::identity::Key::Client(key) = &identity.key {
                    listed.insert(key.clone());
                }
            }
            let records = self.unclaimed_everywhere(workflow, id)?;
            for record in &records {
                if let Some(antipode_proto::core::identity::Key::Client(key)) =
                    record.identity.as_ref().and_then(|identity| identity.key.as_ref())
                {
                    listed.insert(key.clone());
                }
            }
            outlines.push(format!("{id}: {}", outline(&history)));
        }
        for id in ids {
            match found.get(id).and_then(|chains| chains.values().max()).copied().unwrap_or(0) {
                1 => {}
                0 if listed.contains(id) => {}
                0 => self
                    .report
                    .findings
                    .push(format!("V10 {workflow}: {id} is lost\n  {}", outlines.join("\n  "))),
                times => self.report.findings.push(format!("V11 {workflow}: {id} stands {times} times")),
            }
        }
        Ok(())
    }
}
