//! A seed writes a script while it runs: what happens next is drawn with an eye on the world (whom to ask, what is cut), and
//! every act is written down with its moment, so that the same script runs again without the seed.

use std::collections::BTreeSet;

use crate::{
    engine::{
        Engine, Failure,
        script::{
            CallStep, CrashStep, FailStep, Failing, HandOverStep, LinkStep, NamespaceStep, NetSetup,
            RegionSetup, Script, Setup, SkewStep, SlowStep, StartStep, Step, WorkerStep, Written,
        },
        span::Span,
    },
    random::Random,
    scenario::Outcome,
};

/// Which faults a seed may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Everything, in proportions that each seed draws anew.
    All,
    /// No fault but distance: graceful hand-overs only.
    Calm,
    /// Graceful hand-overs under crashes, losses and failing commits; nothing is ever forced.
    HandOver,
    /// Partitions and forced failovers.
    Partition,
    /// Commits that fail, are slow, or end unknown; crashes in the middle.
    Store,
    /// Clocks that are off and jump.
    Clock,
    /// Stores that come back from a backup.
    Restore,
    /// A retention of seconds, and regions that are away for longer.
    Retention,
}

impl Profile {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::All,
        Self::Calm,
        Self::HandOver,
        Self::Partition,
        Self::Store,
        Self::Clock,
        Self::Restore,
        Self::Retention,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Calm => "calm",
            Self::HandOver => "hand-over",
            Self::Partition => "partition",
            Self::Store => "store",
            Self::Clock => "clock",
            Self::Restore => "restore",
            Self::Retention => "retention",
        }
    }

    /// By name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name() == name)
    }
}

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Regions, 1 to 5.
    pub regions: usize,
    /// Faults.
    pub profile: Profile,
    /// Steps of the scheduler before everything heals.
    pub steps: u64,
    /// Longest wait between two acts; none: each seed draws its own.
    pub pace: Option<Span>,
}

impl Default for Options {
    fn default() -> Self {
        Self { regions: 3, profile: Profile::All, steps: 2_000, pace: None }
    }
}

/// How likely each kind of act is, in parts of all.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    start: u32,
    signal: u32,
    signal_with_start: u32,
    cancel: u32,
    terminate: u32,
    cut: u32,
    heal: u32,
    force: u32,
    hand_over: u32,
    undo: u32,
    crash: u32,
    fail: u32,
    slow: u32,
    skew: u32,
    backup: u32,
    restore: u32,
    redeliver: u32,
    evict: u32,
    workers: u32,
    net: u32,
    namespace: u32,
}

const NAMES: [&str; 5] = ["east", "west", "north", "south", "central"];

/// Does this seed of the profile `all` also know restores? One in twenty, with a retention of seconds: there the oracles must
/// excuse more than elsewhere.
fn restores(seed: u64, profile: Profile) -> bool {
    profile == Profile::All && seed.is_multiple_of(20)
}

fn weights(profile: Profile, restores: bool, random: &mut Random) -> Weights {
    let clients = Weights {
        start: 14,
        signal: 40,
        signal_with_start: 8,
        cancel: 3,
        terminate: 3,
        ..Weights::default()
    };
    let worn = Weights { redeliver: 2, evict: 4, workers: 4, net: 4, namespace: 2, ..clients };
    match profile {
        Profile::Calm => Weights { hand_over: 6, namespace: 2, ..clients },
        Profile::HandOver => {
            Weights { hand_over: 10, undo: 3, crash: 3, fail: 4, slow: 1, cut: 3, heal: 4, ..worn }
        }
        Profile::Partition => Weights { cut: 6, heal: 5, force: 6, hand_over: 2, ..worn },
        Profile::Store => {
            Weights { crash: 4, fail: 10, slow: 3, force: 2, hand_over: 2, cut: 1, heal: 2, ..worn }
        }
        Profile::Clock => Weights { skew: 8, force: 3, hand_over: 6, cut: 2, heal: 3, ..worn },
        Profile::Restore => {
            Weights { backup: 6, restore: 3, crash: 2, force: 2, cut: 2, heal: 3, hand_over: 1, ..worn }
        }
        Profile::Retention => {
            Weights { cut: 4, heal: 3, force: 3, hand_over: 3, crash: 4, skew: 1, fail: 2, ..worn }
        }
        Profile::All => {
            // A swarm: each seed draws which faults it knows, and how often they come.
            let mut some = |usual: u32| match random.below(4) {
                0 => 0,
                1 => usual * 3,
                _ => usual,
            };
            Weights {
                cut: some(4),
                heal: 4,
                force: some(4),
                hand_over: some(3),
                undo: some(1),
                crash: some(2),
                fail: some(4),
                slow: some(1),
                skew: some(1),
                redeliver: some(1),
                evict: some(3),
                workers: some(3),
                net: some(3),
                namespace: some(2),
                backup: if restores { 6 } else { 0 },
                restore: if restores { 3 } else { 0 },
                ..clients
            }
        }
    }
}

/// Draws one kind of act.
type Draw = fn(&mut Author) -> Step;

/// A seed at work.
struct Author {
    random: Random,
    weights: Weights,
    engine: Engine,
    steps: Vec<Step>,
    /// Regions with a backup to come back from.
    backups: BTreeSet<String>,
    count: u64,
    workflows: usize,
    pace: [Span; 2],
    /// Closed runs are deleted after seconds.
    short: bool,
    /// What comes next, after so many steps of the world: a fault in the middle of something.
    follow: Option<(usize, Step)>,
}

/// The world of a seed.
#[must_use]
pub fn setup(seed: u64, options: &Options) -> Setup {
    let mut random = Random::new(seed).fork("setup");
    let calm = options.profile == Profile::Calm;
    let regions = NAMES.iter().take(options.regions.clamp(1, NAMES.len())).map(|name| {
        let shards = 1 + u32::try_from(random.below(4)).unwrap_or(0);
        let skewed = matches!(options.profile, Profile::Clock)
            || (options.profile == Profile::All && random.percent(30));
        let skew = if skewed {
            Span::millis(i64::try_from(random.below(120_000)).unwrap_or(0) - 60_000)
        } else {
            Span(0)
        };
        // The previous version tells no tombstones: a restored region would keep for ever what only such a one deleted (C6).
        let previous = random.percent(10) && !calm && !restores(seed, options.profile);
        RegionSetup { name: (*name).to_string(), shards, skew, workers: true, previous }
    });
    let regions: Vec<_> = regions.collect();
    let forever = Setup::default().retention;
    // Longer than it takes to notice that nothing comes from a region, as in production.
    let mut short = || Span::seconds(10 + i64::try_from(random.below(40)).unwrap_or(0));
    let retention = match options.profile {
        Profile::Retention => short(),
        Profile::All if seed.is_multiple_of(10) => short(),
        _ => forever,
    };
    let mut far = |from: i64, to: usize| Span::millis(from + i64::try_from(random.below(to)).unwrap_or(0));
    Setup {
        active: regions.first().map(|region| region.name.clone()).unwrap_or_default(),
        regions,
        retention,
        seed,
        net: NetSetup { delay: [far(1, 5), far(6, 60)], ..NetSetup::default() },
        commit: [Span::micros(200), far(1, 4)],
        think: [far(1, 3), far(4, 40)],
        ..Setup::default()
    }
}

/// Runs a seed and says what came of it, with the script that it wrote.
///
/// # Errors
/// [`Failure`].
pub fn run(seed: u64, options: &Options, recorded: bool) -> Result<(Outcome, Script), Failure> {
    let setup = setup(seed, options);
    let mut random = Random::new(seed).fork("script");
    let weights = weights(options.profile, restores(seed, options.profile), &mut random);
    let title = format!("seed {seed}");
    let engine = Engine::new(&setup, recorded.then_some(title.as_str()))?;
    let workflows = 2 + random.below(4);
    // Where closed runs are deleted minutes pass, and regions are away for as long.
    let short = setup.retention < Setup::default().retention;
    let longest = if short { 800 } else { 10 + i64::try_from(random.below(60)).unwrap_or(0) };
    let pace = [Span::millis(1), options.pace.unwrap_or(Span::millis(longest))];
    let mut author = Author {
        random,
        weights,
        engine,
        steps: Vec::new(),
        backups: BTreeSet::new(),
        count: 0,
        workflows,
        pace,
        short,
        follow: None,
    };
    while author.engine.steps() < options.steps && author.engine.findings.is_empty() {
        author.go_on()?;
    }
    let mut engine = author.engine;
    if engine.findings.is_empty() {
        engine.rest()?;
    }
    let script = Script {
        name: format!("seed_{seed}"),
        about: format!(
            "what seed {seed} wrote for {} regions with the faults `{}`",
            options.regions,
            options.profile.name()
        ),
        cites: Vec::new(),
        pending: None,
        world: setup,
        steps: author.steps,
        end: Default::default(),
    };
    Ok((Outcome::of(engine), script))
}

impl Author {
    fn go_on(&mut self) -> Result<(), Failure> {
        if let Some((steps, step)) = self.follow.take() {
            for _ in 0..steps {
                self.engine.step()?;
            }
            return self.happens(step, 0);
        }
        let step = self.draw();
        if let Some(crash) = &step.crash
            && self.random.percent(50)
        {
            // In the middle of a commit, or of two.
            let commits = if crash.commit == Some(Written::Torn) { 2 } else { 1 };
            let site = self.engine.site(&crash.region)?;
            let mut patience = 300;
            while patience > 0 && self.engine.commits_in_flight(site) < commits {
                self.engine.step()?;
                patience -= 1;
            }
            return self.happens(step, 0);
        }
        let (from, to) = (self.pace[0].0 / 1_000, self.pace[1].0 / 1_000);
        let wait =
            from + i64::try_from(self.random.below(usize::try_from(to - from).unwrap_or(1))).unwrap_or(0);
        self.happens(step, wait)
    }

    /// After so many microseconds.
    fn happens(&mut self, mut step: Step, wait: i64) -> Result<(), Failure> {
        if !self.engine.findings.is_empty() {
            return Ok(());
        }
        if self.is_idle(&step) {
            step = Step { wait: Some(Span(0)), ..Step::default() };
        }
        step.at = Some(Span::micros(self.engine.elapsed().0 / 1_000 + wait));
        self.engine.perform(&step)?;
        self.steps.push(step);
        Ok(())
    }

    /// Drawn, and does nothing: a cut from a region to itself, a restore without a backup. A scenario may not say so.
    fn is_idle(&mut self, step: &Step) -> bool {
        self.backups.extend(step.backup.clone());
        let cut = step.cut.as_ref().is_some_and(|cut| match cut.between.as_slice() {
            [a, b] => a == b,
            _ => !cut.from.is_empty() && cut.from == cut.to,
        });
        cut || step.restore.as_ref().is_some_and(|region| !self.backups.remove(region))
    }

    fn region(&mut self) -> String {
        let count = self.engine.regions();
        self.engine.region_name(self.random.below(count))
    }

    /// Mostly a region that believes to be active.
    fn asked(&mut self) -> String {
        let active = self.engine.active_regions();
        if active.is_empty() || self.random.percent(12) {
            return self.region();
        }
        active[self.random.below(active.len())].clone()
    }

    fn workflow(&mut self) -> String {
        format!("w{}", self.random.below(self.workflows))
    }

    fn id(&mut self, word: &str) -> String {
        self.count += 1;
        format!("{word}{}", self.count)
    }

    fn span(&mut self, from: i64, to: i64) -> Span {
        Span::millis(
            from + i64::try_from(self.random.below(usize::try_from(to - from).unwrap_or(1))).unwrap_or(0),
        )
    }

    fn draw(&mut self) -> Step {
        let w = self.weights;
        let table: [(u32, Draw); 21] = [
            (w.start, Self::start),
            (w.signal, Self::signal),
            (w.signal_with_start, Self::signal_with_start),
            (w.cancel, Self::cancel),
            (w.terminate, Self::terminate),
            (w.cut, Self::cut),
            (w.heal, |_| Step { heal: Some(LinkStep::default()), ..Step::default() }),
            (w.force, |author| Step { force: Some(author.region()), ..Step::default() }),
            (w.hand_over, Self::hand_over),
            (w.undo, |author| Step { undo: Some(author.asked()), ..Step::default() }),
            (w.crash, Self::crash),
            (w.fail, Self::fail),
            (w.slow, Self::slow),
            (w.skew, Self::skew),
            (w.backup, |author| Step { backup: Some(author.region()), ..Step::default() }),
            (w.restore, |author| Step { restore: Some(author.region()), ..Step::default() }),
            (w.redeliver, |author| Step { redeliver: Some(author.region()), ..Step::default() }),
            (w.evict, |author| Step { evict: Some(author.region()), ..Step::default() }),
            (w.workers, Self::workers),
            (w.net, Self::net),
            (w.namespace, Self::namespace),
        ];
        let total: u32 = table.iter().map(|(weight, _)| weight).sum();
        let mut at = u32::try_from(self.random.below(usize::try_from(total).unwrap_or(1))).unwrap_or(0);
        for (weight, make) in table {
            if at < weight {
                return make(self);
            }
            at -= weight;
        }
        Step { wait: Some(Span::millis(1)), ..Step::default() }
    }

    fn program(&mut self) -> Vec<String> {
        let mut program = Vec::new();
        for _ in 0..=self.random.below(3) {
            let step = match self.random.below(14) {
                0..=2 => "activity well".to_string(),
                3 => format!("activity fails {}", 1 + self.random.below(2)),
                4 => "activity heartbeat".to_string(),
                5 => "activity silent".to_string(),
                6 | 7 => format!("timer {}", self.span(100, 4_000)),
                8 | 9 => format!("signals {}", 1 + self.random.below(3)),
                10 => "all activity well & timer 1s".to_string(),
                11 => "marker".to_string(),
                12 => "memo".to_string(),
                _ => "cancel-timer".to_string(),
            };
            program.push(step);
        }
        match self.random.below(10) {
            0 | 1 => {
                // Mostly once. What a chain took must be known two and three runs later as well (B2).
                let times = if self.random.percent(35) { 2 + self.random.below(3) } else { 1 };
                for _ in 0..times {
                    program.push("continue-as-new".to_string());
                    let between = if self.random.percent(70) { "signals 1" } else { "activity well" };
                    program.push(between.to_string());
                }
                program.push("complete".to_string());
            }
            2..=4 => program.push("complete".to_string()),
            5 => program.push("fail".to_string()),
            6 => program.extend(["await-cancel".to_string(), "cancelled".to_string()]),
            _ => {}
        }
        program
    }

    fn start_step(&mut self, word: &str) -> StartStep {
        let conflict = match self.random.below(12) {
            0 => Some("use-existing".to_string()),
            1 => Some("terminate-existing".to_string()),
            _ => None,
        };
        StartStep {
            workflow: self.workflow(),
            region: self.asked(),
            program: self.program(),
            id: self.id(word),
            conflict,
            run_timeout: self.random.percent(5).then(|| Span::seconds(20)),
            attempts: self.random.percent(10).then_some(2),
            ..StartStep::default()
        }
    }

    fn start(&mut self) -> Step {
        Step { start: Some(self.start_step("start")), ..Step::default() }
    }

    fn signal_with_start(&mut self) -> Step {
        let start = self.start_step("sws");
        Step { signal_with_start: Some(StartStep { conflict: None, ..start }), ..Step::default() }
    }

    fn about(&mut self, word: &str) -> CallStep {
        CallStep { workflow: self.workflow(), region: self.asked(), id: self.id(word), ..CallStep::default() }
    }

    fn signal(&mut self) -> Step {
        Step { signal: Some(self.about("signal")), ..Step::default() }
    }

    fn cancel(&mut self) -> Step {
        Step { cancel: Some(self.about("cancel")), ..Step::default() }
    }

    fn terminate(&mut self) -> Step {
        Step { terminate: Some(self.about("terminate")), ..Step::default() }
    }

    fn cut(&mut self) -> Step {
        let (a, b) = (self.region(), self.region());
        let cut = match self.random.below(10) {
            0..3 => LinkStep { from: a, to: b, ..LinkStep::default() },
            3..5 => LinkStep { between: vec![a], ..LinkStep::default() },
            _ => LinkStep { between: vec![a, b], ..LinkStep::default() },
        };
        Step { cut: Some(cut), ..Step::default() }
    }

    fn hand_over(&mut self) -> Step {
        let deadline = Some(self.span(200, 6_000));
        let to = self.region();
        if self.random.percent(40) {
            let abort = self.abort(&to);
            self.follow = Some((self.random.below(60), abort));
        }
        Step { hand_over: Some(HandOverStep { to, deadline }), ..Step::default() }
    }

    /// Something that meets a hand-over at any of its steps; of what this seed knows.
    fn abort(&mut self, to: &str) -> Step {
        let from = self.asked();
        let down = Some(self.span(10, 8_000));
        let commit = Some([Written::Lost, Written::Written][self.random.below(2)]);
        let dies = |region: String| CrashStep { region, down, commit, previous: None };
        match self.random.below(7) {
            0 if self.weights.crash > 0 => Step { crash: Some(dies(from)), ..Step::default() },
            1 if self.weights.crash > 0 => Step { crash: Some(dies(to.to_string())), ..Step::default() },
            2 if self.weights.cut > 0 => {
                let between = vec![from, to.to_string()];
                Step { cut: Some(LinkStep { between, ..LinkStep::default() }), ..Step::default() }
            }
            3..=5 if self.weights.force > 0 => Step { force: Some(self.region()), ..Step::default() },
            _ if self.weights.undo > 0 => Step { undo: Some(from), ..Step::default() },
            _ => Step { evict: Some(from), ..Step::default() },
        }
    }

    fn crash(&mut self) -> Step {
        let commit = [Written::Lost, Written::Written, Written::Torn][self.random.below(3)];
        let longest = if self.short { 120_000 } else { 4_000 };
        let down = Some(self.span(10, longest));
        // Some come back upgraded, and a few with what they ran before.
        let previous = match self.random.below(10) {
            0 | 1 => Some(false),
            2 if !(self.short && self.weights.backup > 0) => Some(true),
            _ => None,
        };
        let crash = CrashStep { region: self.region(), down, commit: Some(commit), previous };
        Step { crash: Some(crash), ..Step::default() }
    }

    fn fail(&mut self) -> Step {
        let how = [Failing::Reject, Failing::UnknownLost, Failing::UnknownWritten][self.random.below(3)];
        let times = 1 + u32::try_from(self.random.below(3)).unwrap_or(0);
        Step { fail: Some(FailStep { region: self.region(), how, times }), ..Step::default() }
    }

    fn slow(&mut self) -> Step {
        let commit = if self.random.percent(50) { Span::millis(1) } else { self.span(20, 400) };
        Step { slow: Some(SlowStep { region: self.region(), commit }), ..Step::default() }
    }

    fn skew(&mut self) -> Step {
        // Mostly so little that namespaces are still handed over (H2).
        let (most, both_ways) = if self.random.percent(80) { (15_000, 30_000) } else { (300_000, 600_000) };
        let by = Span::millis(i64::try_from(self.random.below(both_ways)).unwrap_or(0) - most);
        Step { skew: Some(SkewStep { region: self.region(), by }), ..Step::default() }
    }

    fn workers(&mut self) -> Step {
        let region = self.region();
        let (stop, start, crash) = match self.random.below(5) {
            0 => (true, false, false),
            1 | 2 => (false, true, false),
            _ => (false, false, true),
        };
        let mut some = |usual: usize| {
            self.random.percent(25).then(|| u32::try_from(self.random.below(usual)).unwrap_or(0))
        };
        let (lose, fail) = (some(100), some(150));
        Step { workers: Some(WorkerStep { region, stop, start, crash, lose, fail }), ..Step::default() }
    }

    fn net(&mut self) -> Step {
        let mut some = |usual: usize| {
            u32::try_from(if self.random.percent(50) { 0 } else { self.random.below(usual) }).unwrap_or(0)
        };
        let (drop, duplicate, reorder, corrupt) = (some(60), some(100), some(100), some(30));
        let (flip, answers) = (some(30), some(100));
        let delay = [self.span(1, 5), self.span(6, 200)];
        Step {
            net: Some(NetSetup { delay, drop, duplicate, reorder, corrupt, flip, answers }),
            ..Step::default()
        }
    }

    fn namespace(&mut self) -> Step {
        let mut change = NamespaceStep { region: self.region(), ..NamespaceStep::default() };
        if self.short && self.random.percent(50) {
            change.retention = Some(Span::seconds(self.span(10_000, 60_000).0 / 1_000_000_000));
        } else {
            change.description = Some(format!("text {}", self.count));
        }
        Step { namespace: Some(change), ..Step::default() }
    }
}
