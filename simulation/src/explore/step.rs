//! Steps: which can be taken in a state, and what each does to it. A step goes through production code only: requests and
//! entries go to shards, what is sent is chosen by the sender's selection, namespace records change by their own rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use antipode_core::{
    ids::{FailoverVersion, NamespaceId, RegionId, Timestamp},
    namespace::{Config, Info, Phase, Record, Start},
    region::{Region as Member, Regions},
    version::Increment,
};
use antipode_history::api::TaskKind;

use super::{
    canon::{Names, SHARD, read},
    program::{Action, At, Program},
    state::{Hand, Link, Node, State, Waiting},
};
use crate::{
    region::{Region, Tail},
    world::NAMES,
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An actor does its next action.
    Act(usize),
    /// An entry of a link arrives: sender, receiver, place in the queue.
    Deliver(At, At, usize),
    /// A sender reads its log for a link: sender, receiver.
    Read(At, At),
    /// A region hears another's namespace record.
    Record(At, At),
    /// The commit in flight becomes durable.
    Commit(At),
    /// A region crashes: index in the program's list, and whether the commit in flight was written.
    Crash(usize, bool),
}

/// Something that must not be, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding(pub String);

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn broken(why: impl fmt::Display) -> Finding {
    Finding(why.to_string())
}

/// How often a region may go on by itself without time passing.
const ROUNDS_MAX: usize = 48;

/// Takes steps of one program.
pub struct Machine<'p> {
    /// The program.
    pub program: &'p Program,
    /// Its workflow ids.
    pub workflows: Vec<&'static str>,
    /// Names given so far.
    pub names: Names,
    /// The arithmetic's view of its regions.
    pub(super) members: Regions,
    /// The namespace.
    pub(super) namespace: NamespaceId,
    /// While the world comes to rest, commits end at once.
    pub(super) resting: bool,
}

impl<'p> Machine<'p> {
    /// For a program.
    ///
    /// # Errors
    /// [`Finding`] when its regions cannot be.
    pub fn new(program: &'p Program) -> Result<Self, Finding> {
        let names = NAMES.iter().take(program.regions);
        let members = names.zip(1..).map(|(name, id)| Member::new(*name, id));
        Ok(Self {
            program,
            workflows: program.workflows(),
            names: Names::default(),
            members: Regions::new(Increment::DEFAULT, members).map_err(broken)?,
            namespace: NamespaceId(uuid::Uuid::from_u128(7)),
            resting: false,
        })
    }

    /// The state after the setup.
    ///
    /// # Errors
    /// [`Finding`] when the setup breaks something, or cannot be done.
    pub fn begin(&mut self) -> Result<State, Finding> {
        let mut state = self.empty()?;
        self.resting = true;
        // The setup has one pair of hands, beside the actors'.
        let actor = self.program.actors.len();
        for (index, action) in self.program.setup.iter().enumerate() {
            state.hands[actor].next = index;
            self.act(&mut state, actor, action)?;
            if *action != Action::Deliver && state.hands[actor].next == index {
                return Err(Finding(format!("setup: {action:?} was refused")));
            }
        }
        self.resting = false;
        state.hands.pop();
        for link in &mut state.links {
            Arc::make_mut(link).done.clear();
        }
        self.seal(&mut state, None)?;
        Ok(state)
    }

    pub(super) fn empty(&mut self) -> Result<State, Finding> {
        let now = Timestamp(1_700_000_000_000_000_000);
        let names = &NAMES[..self.program.regions];
        let start = Start {
            id: self.namespace,
            name: "default".to_string(),
            info: Info::default(),
            config: Config::default(),
            fold_version: 1,
            by: RegionId(1),
        };
        let record = Record::new_global(start, names[0], names.iter().copied(), &self.members);
        let record = record.map_err(broken)?;
        let mut nodes = Vec::new();
        for (name, id) in names.iter().zip(1..) {
            let region = Region::new(name, id, 1, record.clone(), now).map_err(broken)?;
            let (received, waiting) = (BTreeMap::new(), Vec::new());
            nodes.push(Arc::new(Node { region, received, waiting, snap: Arc::default() }));
        }
        let count = nodes.len();
        let mut state = State {
            now,
            nodes,
            links: (0..count * count).map(|_| Arc::new(Link::default())).collect(),
            // The last one is for the setup.
            hands: vec![Hand::default(); self.program.actors.len() + 1],
            told: Arc::new(BTreeSet::new()),
            crashes: self.program.free.crashes.iter().map(|(_, often)| *often).collect(),
        };
        for at in 0..count {
            self.touch(&mut state, at)?;
        }
        Ok(state)
    }

    // ---- which steps there are ----

    /// Steps that can be taken.
    #[must_use]
    pub fn enabled(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for (actor, hand) in state.hands.iter().enumerate() {
            if let Some(action) = self.action(actor, hand.next)
                && !hand.waits
                && self.can(state, hand, action)
            {
                steps.push(Step::Act(actor));
            }
        }
        for (from, to) in state.pairs() {
            let busy = state.nodes[to].region.groups_in_flight().next().is_some();
            if !busy {
                let heads = state.link(from, to).heads(self.program.free.overtake);
                steps.extend(heads.into_iter().map(|slot| Step::Deliver(from, to, slot)));
            }
            if state.link(from, to).unread.is_some() {
                steps.push(Step::Read(from, to));
            }
            let (theirs, ours) = (&state.nodes[from].region.record, &state.nodes[to].region.record);
            if theirs != ours && ours.clone().merge(theirs) {
                steps.push(Step::Record(from, to));
            }
        }
        for (at, node) in state.nodes.iter().enumerate() {
            if node.region.groups_in_flight().next().is_some() {
                steps.push(Step::Commit(at));
            }
        }
        for (index, (at, _)) in self.program.free.crashes.iter().enumerate() {
            if state.crashes[index] > 0 {
                steps.push(Step::Crash(index, false));
                if state.nodes[*at].region.groups_in_flight().next().is_some() {
                    steps.push(Step::Crash(index, true));
                }
            }
        }
        steps
    }

    pub(super) fn can(&self, state: &State, hand: &Hand, action: &Action) -> bool {
        let region = |at: At| &state.nodes[at].region;
        let writable = |at: At| region(at).record.writable(&region(at).name).is_some();
        let offers = |at: At, kind: TaskKind| region(at).offers.iter().any(|offer| offer.kind == kind);
        let insistent = self.program.free.insistent;
        match *action {
            Action::Start { at, .. }
            | Action::Signal { at, .. }
            | Action::Cancel { at, .. }
            | Action::Terminate { at, .. } => insistent || writable(at),
            Action::Poll { at } => offers(at, TaskKind::Workflow),
            Action::PollActivity { at } => offers(at, TaskKind::Activity),
            Action::Complete { at, .. }
            | Action::Fail { at }
            | Action::Beat { at, .. }
            | Action::End { at, .. } => insistent || writable(at) || hand.held.is_none(),
            Action::Drain { at, .. } => writable(at),
            Action::Barrier { at } => matches!(region(at).record.phase(), Phase::Draining { .. }),
            Action::Release { at, to } => {
                let proved = |barrier| state.link(at, to).position() >= barrier;
                hand.barrier.is_some_and(proved)
            }
            Action::FailCommit { at, .. } => region(at).groups_in_flight().next().is_some(),
            Action::Undo { .. } | Action::Activate { .. } | Action::Force { .. } | Action::Advance { .. } => {
                true
            }
            Action::Deliver => false,
        }
    }

    // ---- what a step does ----

    /// The state after a step.
    ///
    /// # Errors
    /// [`Finding`] when the step itself breaks something.
    pub fn take(&mut self, before: &State, step: Step) -> Result<State, Finding> {
        let mut state = before.clone();
        match step {
            Step::Act(actor) => {
                if let Some(action) = self.action(actor, state.hands[actor].next) {
                    self.act(&mut state, actor, action)?;
                }
            }
            Step::Deliver(from, to, slot) => self.deliver(&mut state, from, to, slot)?,
            Step::Read(from, to) => {
                let link = state.link_mut(from, to);
                if let Some(unread) = link.unread.take() {
                    link.queue.extend(unread.flights);
                    link.read = unread.through;
                    link.sent = unread.sent;
                }
            }
            Step::Record(from, to) => self.hear(&mut state, from, to)?,
            Step::Commit(at) => {
                let now = state.now;
                let group = state.node_mut(at).region.finish_commit(now, SHARD, None).map_err(broken)?;
                drop(group);
                self.touch(&mut state, at)?;
            }
            Step::Crash(index, written) => {
                state.crashes[index] -= 1;
                let at = self.program.free.crashes[index].0;
                self.crash(&mut state, at, written)?;
            }
        }
        self.seal(&mut state, Some(before))?;
        Ok(state)
    }

    /// Gives new names to what changed.
    pub(super) fn seal(&mut self, state: &mut State, before: Option<&State>) -> Result<(), Finding> {
        for at in 0..state.nodes.len() {
            if before.is_some_and(|before| Arc::ptr_eq(&before.nodes[at], &state.nodes[at])) {
                continue;
            }
            let node = &state.nodes[at];
            let snap = read(&node.region, self.namespace, &self.workflows);
            let mut snap = snap.ok_or_else(|| Finding("a store in memory refused a read".to_string()))?;
            let flying: Vec<_> = node.region.groups_in_flight().collect();
            self.names.learn(&snap, &flying);
            let waiting: Vec<_> = node.waiting.iter().map(|waiting| waiting.actor).collect();
            snap.block = self.names.block(&node.region, &snap, &node.received, &waiting);
            snap.shared = self.names.shared(&snap);
            state.node_mut(at).snap = Arc::new(snap);
        }
        let resend = state.crashes.iter().any(|left| *left > 0);
        for index in 0..state.links.len() {
            let crashed = before.is_some_and(|before| before.crashes != state.crashes);
            let same = before.is_some_and(|before| Arc::ptr_eq(&before.links[index], &state.links[index]));
            if !same || crashed {
                Arc::make_mut(&mut state.links[index]).rename(&self.names, resend);
            }
        }
        Ok(())
    }

    pub(super) fn held(&self, at: At) -> bool {
        !self.resting && self.program.free.held.contains(&at)
    }

    /// Lets a region carry out what it has to do; hands over answers; puts what it wrote on its way.
    pub(super) fn touch(&mut self, state: &mut State, at: At) -> Result<(), Finding> {
        self.run(state, at, !self.held(at))?;
        self.answers(state, at, None)?;
        self.send(state, at)
    }

    pub(super) fn run(&mut self, state: &mut State, at: At, durable: bool) -> Result<(), Finding> {
        let now = state.now;
        let region = &mut state.node_mut(at).region;
        for _ in 0..ROUNDS_MAX {
            region.pump(now).map_err(broken)?;
            if durable && region.groups_in_flight().next().is_some() {
                region.finish_commit(now, SHARD, None).map_err(broken)?;
                continue;
            }
            if region.wake_at().is_none_or(|wake| wake > now) {
                return Ok(());
            }
            region.tick(now);
        }
        Err(Finding(format!("{} goes on writing at one and the same moment", region.name)))
    }

    pub(super) fn crash(&mut self, state: &mut State, at: At, written: bool) -> Result<(), Finding> {
        let now = state.now;
        let node = state.node_mut(at);
        let tail = if written { Tail::Written } else { Tail::Lost };
        node.region.kill(tail).map_err(broken)?;
        node.region.start(1, now).map_err(broken)?;
        node.received.clear();
        let waiting = std::mem::take(&mut node.waiting);
        for Waiting { actor, .. } in waiting {
            self.unknown(state, actor);
        }
        for other in (0..state.nodes.len()).filter(|other| *other != at) {
            for (from, to) in [(at, other), (other, at)] {
                let link = state.link_mut(from, to);
                // The stream begins anew, at the position that the receiver names (E2).
                link.read = link.position();
                link.queue.clear();
                link.unread = None;
                link.sent.clear();
                let position = link.read;
                link.done.retain(|flight| flight.sequence <= position);
            }
        }
        self.touch(state, at)?;
        for other in (0..state.nodes.len()).filter(|other| *other != at) {
            self.send(state, other)?;
        }
        Ok(())
    }

    /// Nobody can tell the caller what became of its call: a client goes on, an operator tries again.
    pub(super) fn unknown(&self, state: &mut State, actor: usize) {
        let hand = &mut state.hands[actor];
        hand.waits = false;
        let action = self.action(actor, hand.next);
        if !matches!(action, Some(Action::Barrier { .. })) {
            hand.next += 1;
            hand.held = None;
        }
    }

    /// Whether a region may write events under a version.
    #[must_use]
    pub fn owns(&self, at: RegionId, version: FailoverVersion) -> bool {
        self.members.by_id(at).is_some_and(|member| self.members.owns(&member.name, version))
    }
}
