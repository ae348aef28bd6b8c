//! Exhaustive exploration of a small program: every order of its actors' actions, of deliveries, of exchanges of the namespace
//! record, of commits and crashes, up to renaming and symmetry. Breadth first, so that the way to a failure is a shortest
//! one. What runs is production code: shards, conflict code, stores, selection of log entries, namespace records.

mod act;
pub mod canon;
pub mod check;
mod deliver;
mod narrate;
pub mod program;
mod programs;
pub mod settled;
pub mod state;
pub mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use program::{Action, Does, Free, Program};
pub use programs::programs;

use self::{
    canon::Name,
    check::Seen,
    state::State,
    step::{Finding, Machine, Step},
};

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many states at most.
    pub states: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { states: 5_000_000 }
    }
}

/// An invariant of the caller's own, asked in every state beside the built-in ones.
pub type Wanted<'a> = &'a mut dyn FnMut(&State) -> Result<(), String>;

/// What was found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Program.
    pub program: &'static str,
    /// Different states.
    pub states: u64,
    /// Steps between them.
    pub transitions: u64,
    /// States in which nothing more can happen: each was led to rest and compared.
    pub ends: u64,
    /// Length of the longest way without a detour.
    pub depth: usize,
    /// The limit was reached before everything was seen.
    pub cut_short: bool,
    /// The number of states that the program is known for.
    pub expected: u64,
    /// Interesting states and how often they were seen.
    pub reached: BTreeMap<&'static str, u64>,
    /// What does not hold, with a shortest way there.
    pub failure: Option<Failure>,
}

/// Something does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What, in words.
    pub finding: String,
    /// How many steps led there.
    pub steps: usize,
    /// The way there, in readable lines.
    pub path: Vec<String>,
}

impl Outcome {
    /// Everything was seen, nothing failed, and the number of states is the known one.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failure.is_none() && !self.cut_short && self.states == self.expected
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, states, transitions, ends, depth, .. } = self;
        writeln!(f, "{program}: {states} states, {transitions} transitions, {ends} ends, depth {depth}")?;
        let reached: Vec<_> = self.reached.iter().map(|(what, often)| format!("{what} {often}")).collect();
        if !reached.is_empty() {
            writeln!(f, "  reached: {}", reached.join(", "))?;
        }
        match &self.failure {
            Some(failure) => {
                writeln!(f, "  FAILS after {} steps: {}", failure.steps, failure.finding)?;
                for line in &failure.path {
                    writeln!(f, "  {line}")?;
                }
            }
            None if self.cut_short => writeln!(f, "  cut short: the limit of states was reached")?,
            None => writeln!(f, "  no invariant fails")?,
        }
        if self.failure.is_none() && !self.cut_short && self.states != self.expected {
            let expected = self.expected;
            writeln!(
                f,
                "  the number of states changed: {expected} are expected; behaviour has changed somewhere"
            )?;
        }
        Ok(())
    }
}

/// Explores a program.
#[must_use]
pub fn explore(program: &'static Program, limits: Limits) -> Outcome {
    explore_with(program, limits, &mut |_| Ok(()))
}

/// Explores a program with one more invariant.
#[must_use]
pub fn explore_with(program: &'static Program, limits: Limits, wanted: Wanted<'_>) -> Outcome {
    let mut search = Search::new(program, limits);
    if let Err(finding) = search.run(wanted) {
        search.outcome.failure = Some(Failure { finding: finding.0, steps: 0, path: Vec::new() });
    }
    search.outcome
}

/// How a state was first reached.
#[derive(Clone, Copy)]
struct Origin {
    parent: usize,
    step: Step,
}

/// A finding and the way there.
struct Found {
    finding: Finding,
    parent: usize,
    step: Option<Step>,
    rested: bool,
}

struct Search {
    program: &'static Program,
    limits: Limits,
    seen: BTreeSet<Name>,
    origins: Vec<Option<Origin>>,
    looked_at: Seen,
    outcome: Outcome,
}

impl Search {
    fn new(program: &'static Program, limits: Limits) -> Self {
        Self {
            program,
            limits,
            seen: BTreeSet::new(),
            origins: Vec::new(),
            looked_at: Seen::default(),
            outcome: Outcome {
                program: program.name,
                states: 0,
                transitions: 0,
                ends: 0,
                depth: 0,
                cut_short: false,
                expected: program.states,
                reached: BTreeMap::new(),
                failure: None,
            },
        }
    }

    fn run(&mut self, wanted: Wanted<'_>) -> Result<(), Finding> {
        let mut machine = Machine::new(self.program)?;
        let begin = machine.begin()?;
        check::state(&machine, &mut self.looked_at, None, &begin)?;
        wanted(&begin).map_err(Finding)?;
        self.add(&machine, &begin, None);
        let mut layer = vec![(0, begin)];
        while !layer.is_empty() {
            let (next, found) = self.layer(&mut machine, layer, wanted);
            if let Some(found) = found {
                self.outcome.failure = Some(self.narrate(&found)?);
                return Ok(());
            }
            if self.outcome.cut_short {
                return Ok(());
            }
            self.outcome.depth += usize::from(!next.is_empty());
            layer = next;
        }
        Ok(())
    }

    /// Takes every step from the states of one depth. A finding at this depth counts before one behind a step.
    fn layer(
        &mut self,
        machine: &mut Machine<'static>,
        layer: Vec<(usize, State)>,
        wanted: Wanted<'_>,
    ) -> (Vec<(usize, State)>, Option<Found>) {
        let (mut next, mut later) = (Vec::new(), None);
        for (parent, state) in layer {
            let mut moved = false;
            let here = state.name(self.program, &machine.names);
            for step in machine.enabled(&state) {
                self.outcome.transitions += 1;
                let taken = machine.take(&state, step).and_then(|after| {
                    check::state(machine, &mut self.looked_at, Some(&state), &after)?;
                    wanted(&after).map_err(Finding)?;
                    Ok(after)
                });
                match taken {
                    Ok(after) => {
                        let name = after.name(self.program, &machine.names);
                        // A step that changes nothing, such as a refused attempt, leads nowhere.
                        moved |= name != here;
                        if later.is_none()
                            && let Some(index) = self.add_named(name, &after, Some(Origin { parent, step }))
                        {
                            next.push((index, after));
                        }
                    }
                    Err(finding) if later.is_none() => {
                        moved = true;
                        later = Some(Found { finding, parent, step: Some(step), rested: false });
                    }
                    Err(_) => moved = true,
                }
            }
            if !moved {
                self.outcome.ends += 1;
                let rested = machine.rest(&state).and_then(|mut rested| settled::rest(machine, &mut rested));
                if let Err(finding) = rested {
                    return (next, Some(Found { finding, parent, step: None, rested: true }));
                }
            }
            if self.outcome.states >= self.limits.states {
                self.outcome.cut_short = true;
                break;
            }
        }
        (next, later)
    }

    fn add(&mut self, machine: &Machine<'_>, state: &State, origin: Option<Origin>) -> Option<usize> {
        let name = state.name(self.program, &machine.names);
        self.add_named(name, state, origin)
    }

    fn add_named(&mut self, name: Name, state: &State, origin: Option<Origin>) -> Option<usize> {
        if !self.seen.insert(name) {
            return None;
        }
        self.outcome.states += 1;
        for what in narrate::interesting(state) {
            *self.outcome.reached.entry(what).or_default() += 1;
        }
        self.origins.push(origin);
        Some(self.origins.len() - 1)
    }

    /// Goes the way once more, and tells it.
    fn narrate(&self, found: &Found) -> Result<Failure, Finding> {
        let mut steps = Vec::new();
        let mut at = found.parent;
        while let Some(origin) = self.origins.get(at).copied().flatten() {
            steps.push(origin.step);
            at = origin.parent;
        }
        steps.reverse();
        let mut machine = Machine::new(self.program)?;
        let mut state = machine.begin()?;
        let mut teller = narrate::Teller::default();
        let mut path = teller.setup(self.program, &state);
        for step in &steps {
            let after = machine.take(&state, *step)?;
            path.extend(teller.step(self.program, &state, *step, Some(&after)));
            state = after;
        }
        if let Some(step) = found.step {
            let after = machine.take(&state, step).ok();
            path.extend(teller.step(self.program, &state, step, after.as_ref()));
        }
        if found.rested {
            path.push("   then everything is delivered, and time passes".to_string());
            if let Ok(after) = machine.rest(&state) {
                path.extend(teller.changes(&state, &after));
            }
        }
        let steps = steps.len() + usize::from(found.step.is_some());
        Ok(Failure { finding: found.finding.0.clone(), steps, path })
    }
}
