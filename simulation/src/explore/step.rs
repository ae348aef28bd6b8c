//! Steps: which can be taken in a state, and what each does. A step goes through production code only: requests and entries go
//! to shards, what a log holds is chosen by the sender's selection, namespace records change by their own rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use antipode_core::{
    ids::{FailoverVersion, NamespaceId, RegionId, RunId, Timestamp, WorkflowKey},
    namespace::{Act, Config, Forced, Info, Phase, Record, Refusal as RecordRefusal, Standing, Start},
    region::{Region as Member, Regions},
    version::Increment,
};
use antipode_history::api::{Applied, Operation, Refusal, Replicated, Reply, Request, TaskKind};
use antipode_persistence::store::RegionStore as _;
use antipode_proto::api::enums::v1::WorkflowIdConflictPolicy as Conflict;
use antipode_replicator::{
    entry,
    selection::{self, Audience, StateHash},
};

use super::{
    canon::{Names, SHARD, read},
    program::{Action, At, Program},
    state::{Flight, Hand, Link, Node, State, Told, Unread, Waiting},
};
use crate::{
    region::Region,
    worker::{self, Held},
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

fn broken(why: impl fmt::Display) -> Finding {
    Finding(why.to_string())
}

/// How often a region may go on by itself without time passing.
const ROUNDS_MAX: usize = 48;
/// How deep a fetch may lead to another.
const DEPTH_MAX: usize = 8;

/// Takes steps of one program.
pub struct Machine<'p> {
    /// The program.
    pub program: &'p Program,
    /// Its workflow ids.
    pub workflows: Vec<&'static str>,
    /// Names given so far.
    pub names: Names,
    members: Regions,
    namespace: NamespaceId,
    /// While the world comes to rest, commits end at once.
    resting: bool,
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

    fn empty(&mut self) -> Result<State, Finding> {
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

    fn can(&self, state: &State, hand: &Hand, action: &Action) -> bool {
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
    fn seal(&mut self, state: &mut State, before: Option<&State>) -> Result<(), Finding> {
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

    fn held(&self, at: At) -> bool {
        !self.resting && self.program.free.held.contains(&at)
    }

    /// Lets a region carry out what it has to do; hands over answers; puts what it wrote on its way.
    fn touch(&mut self, state: &mut State, at: At) -> Result<(), Finding> {
        self.run(state, at, !self.held(at))?;
        self.answers(state, at, None)?;
        self.send(state, at)
    }

    fn run(&mut self, state: &mut State, at: At, durable: bool) -> Result<(), Finding> {
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

    /// Puts what is committed and not yet read on its way to every peer.
    fn send(&mut self, state: &mut State, from: At) -> Result<(), Finding> {
        let regions: Vec<_> = state.nodes.iter().map(|node| node.region.id).collect();
        for to in (0..regions.len()).filter(|to| *to != from) {
            let node = Arc::clone(&state.nodes[from]);
            let page = node.region.log(SHARD, state.link(from, to).read).map_err(broken)?;
            let link = state.link(from, to);
            if page.through == link.read && link.unread.is_none() {
                continue;
            }
            let linked = regions.iter().copied().filter(|id| *id != regions[from]).collect();
            let life = state.nodes[to].region.store.identity().incarnation;
            let audience = Audience { here: regions[from], peer: regions[to], life, linked };
            let link = state.link_mut(from, to);
            let mut sent = link.sent.clone();
            let knows = |run: RunId, hash: StateHash| {
                if node.received.get(&run) == Some(&hash) || sent.get(&run) == Some(&hash) {
                    return true;
                }
                sent.insert(run, hash);
                false
            };
            let (selected, damaged) =
                selection::select(&page, |envelope| audience.wants(envelope), |_| true, knows);
            if let Some(damaged) = damaged.first() {
                return Err(broken(damaged));
            }
            let mut flights = Vec::new();
            for selected in selected {
                let sequence = antipode_core::ids::Sequence(selected.entry.sequence);
                let received = entry::read(&selected.entry).map_err(|error| Finding(error.why))?;
                let (run, version, item) = (received.key, received.version, received.replicated);
                flights.push(Flight { sequence, run, version, item });
            }
            link.unread = None;
            if self.program.free.reads && !self.resting && !flights.is_empty() {
                link.unread = Some(Unread { flights, through: page.through, sent });
            } else {
                link.queue.extend(flights);
                link.read = page.through;
                link.sent = sent;
            }
        }
        Ok(())
    }

    // ---- deliveries ----

    fn deliver(&mut self, state: &mut State, from: At, to: At, slot: usize) -> Result<(), Finding> {
        let flight = state.link_mut(from, to).queue.remove(slot);
        if self.offer(state, from, to, &flight)? {
            state.link_mut(from, to).done.push(flight);
            if self.program.free.redeliver {
                self.redeliver(state, from, to)?;
            }
        } else {
            state.link_mut(from, to).queue.insert(slot, flight);
        }
        self.send(state, to)
    }

    /// Offers an entry to its receiver. False: it has to come again later.
    fn offer(&mut self, state: &mut State, from: At, to: At, flight: &Flight) -> Result<bool, Finding> {
        let version = state.nodes[to].region.record.version();
        if !self.program.free.ahead && flight.version.is_some_and(|needed| needed > version) {
            self.hear(state, from, to)?;
        }
        if let Replicated::State(run) = &flight.item {
            let hash = StateHash::of(run);
            state.node_mut(to).received.insert(flight.run.run, hash);
        }
        self.apply(state, from, to, &flight.run.workflow_key(), &flight.item, 0)
    }

    fn apply(
        &mut self,
        state: &mut State,
        from: At,
        to: At,
        key: &WorkflowKey,
        entry: &Replicated,
        depth: usize,
    ) -> Result<bool, Finding> {
        if depth > DEPTH_MAX {
            return Err(Finding(format!("{} needs events again and again", key.workflow)));
        }
        for _ in 0..DEPTH_MAX {
            match self.apply_once(state, to, key, entry)? {
                Applied::Applied(_) | Applied::Duplicate => return Ok(true),
                Applied::Poison(why) => {
                    let name = &state.nodes[to].region.name;
                    return Err(Finding(format!("{name} would quarantine a run of {}: {why}", key.workflow)));
                }
                Applied::Retry(_) => return Ok(false),
                Applied::NeedEvents { key: run, known, until } => {
                    let operation = Operation::Fetch { known, until };
                    let request = Request { workflow: run.workflow_key(), run: Some(run.run), operation };
                    let Some(fetched) = self.fetch(state, from, request)? else { return Ok(false) };
                    for entry in fetched {
                        if !self.apply(state, from, to, &run.workflow_key(), &entry, depth + 1)? {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        Err(Finding(format!("an entry of {} finds a hole again and again", key.workflow)))
    }

    fn apply_once(
        &mut self,
        state: &mut State,
        to: At,
        key: &WorkflowKey,
        entry: &Replicated,
    ) -> Result<Applied, Finding> {
        let now = state.now;
        let ticket = state.node_mut(to).region.apply(now, key, vec![entry.clone()]);
        self.run(state, to, true)?;
        let applied = state.node_mut(to).region.applied.remove(&ticket);
        let applied = applied.and_then(|mut applied| applied.pop());
        applied.ok_or_else(|| Finding("an apply was not answered".to_string()))
    }

    fn fetch(
        &mut self,
        state: &mut State,
        from: At,
        request: Request,
    ) -> Result<Option<Vec<Replicated>>, Finding> {
        let now = state.now;
        let ticket = state.node_mut(from).region.request(now, request);
        self.run(state, from, !self.held(from))?;
        // Unanswered while what it would tell is not durable there (D1).
        Ok(match state.node_mut(from).region.answers.remove(&ticket) {
            Some(Ok(Reply::Fetched { batches, state })) => {
                let batches = batches.into_iter().map(Replicated::Batch);
                Some(batches.chain([Replicated::State(state)]).collect())
            }
            _ => None,
        })
    }

    /// V19: what was delivered before changes nothing when it comes again.
    fn redeliver(&mut self, state: &State, from: At, to: At) -> Result<(), Finding> {
        let mut probe = state.clone();
        for flight in &state.link(from, to).done {
            let key = flight.run.workflow_key();
            match self.apply_once(&mut probe, to, &key, &flight.item)? {
                Applied::Duplicate | Applied::NeedEvents { .. } => {}
                other => {
                    let name = &probe.nodes[to].region.name;
                    let what = match &flight.item {
                        Replicated::Batch(batch) => {
                            format!(
                                "events {}..{}",
                                batch.envelope.first_event.0, batch.envelope.last_event.0
                            )
                        }
                        Replicated::State(_) => "registers and pending events".to_string(),
                    };
                    return Err(Finding(format!(
                        "V19: {what} of {} delivered to {name} once more: {other:?}",
                        key.workflow
                    )));
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, state: &mut State, from: At, to: At) -> Result<(), Finding> {
        let theirs = state.nodes[from].region.record.clone();
        let mut ours = state.nodes[to].region.record.clone();
        if ours.merge(&theirs) {
            self.set_record(state, to, ours)?;
        }
        Ok(())
    }

    fn set_record(&mut self, state: &mut State, at: At, record: Record) -> Result<(), Finding> {
        let now = state.now;
        state.node_mut(at).region.set_record(record, now);
        self.touch(state, at)
    }

    /// Sends everything everywhere until all is quiet.
    fn deliver_all(&mut self, state: &mut State) -> Result<(), Finding> {
        for at in 0..state.nodes.len() {
            self.send(state, at)?;
        }
        for _ in 0..256 {
            let mut moved = false;
            for (from, to) in state.pairs() {
                let before = state.nodes[to].region.record.clone();
                self.hear(state, from, to)?;
                moved |= before != state.nodes[to].region.record;
                while let Some(flight) = state.link(from, to).queue.first().cloned() {
                    if !self.offer(state, from, to, &flight)? {
                        break;
                    }
                    state.link_mut(from, to).queue.remove(0);
                    self.send(state, to)?;
                    moved = true;
                }
            }
            if !moved {
                return match state.pairs().iter().find(|(from, to)| !state.link(*from, *to).queue.is_empty())
                {
                    Some((from, to)) => Err(Finding(format!(
                        "{} has an entry for {} that never arrives",
                        NAMES[*from], NAMES[*to]
                    ))),
                    None => Ok(()),
                };
            }
        }
        Err(Finding("replication does not come to rest".to_string()))
    }

    /// Everything is delivered, and time passes so that nobody waits for a lost worker any more.
    ///
    /// # Errors
    /// [`Finding`] when it does not come to rest.
    pub fn rest(&mut self, before: &State) -> Result<State, Finding> {
        let mut state = before.clone();
        self.resting = true;
        let rested = self.rest_in(&mut state);
        self.resting = false;
        rested?;
        self.seal(&mut state, None)?;
        Ok(state)
    }

    fn rest_in(&mut self, state: &mut State) -> Result<(), Finding> {
        self.deliver_all(state)?;
        for _ in 0..3 {
            self.advance(state, 11)?;
            self.deliver_all(state)?;
        }
        Ok(())
    }

    fn advance(&mut self, state: &mut State, seconds: i64) -> Result<(), Finding> {
        state.now = state.now.plus(antipode_core::ids::Nanos::seconds(seconds));
        for at in 0..state.nodes.len() {
            let now = state.now;
            state.node_mut(at).region.tick(now);
            self.touch(state, at)?;
        }
        Ok(())
    }

    fn crash(&mut self, state: &mut State, at: At, written: bool) -> Result<(), Finding> {
        let now = state.now;
        let node = state.node_mut(at);
        node.region.kill(written).map_err(broken)?;
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
    fn unknown(&self, state: &mut State, actor: usize) {
        let hand = &mut state.hands[actor];
        hand.waits = false;
        let action = self.action(actor, hand.next);
        if !matches!(action, Some(Action::Barrier { .. })) {
            hand.next += 1;
            hand.held = None;
        }
    }

    // ---- actions ----

    fn action(&self, actor: usize, next: usize) -> Option<&'p Action> {
        self.program.actors.get(actor).copied().unwrap_or(self.program.setup).get(next)
    }

    fn act(&mut self, state: &mut State, actor: usize, action: &'p Action) -> Result<(), Finding> {
        match *action {
            Action::Start { at, workflow, request, terminate } => {
                let conflict = if terminate { Conflict::TerminateExisting } else { Conflict::Unspecified };
                let operation = worker::start_operation(workflow, request, conflict);
                self.call(state, actor, at, workflow, operation)
            }
            Action::Signal { at, workflow, request } => {
                self.call(state, actor, at, workflow, worker::signal_operation(request, request))
            }
            Action::Cancel { at, workflow, request } => {
                self.call(state, actor, at, workflow, worker::cancel_operation(request))
            }
            Action::Terminate { at, workflow } => {
                self.call(state, actor, at, workflow, worker::terminate_operation())
            }
            Action::Poll { at } => self.poll(state, actor, at, TaskKind::Workflow),
            Action::PollActivity { at } => self.poll(state, actor, at, TaskKind::Activity),
            Action::Complete { at, does } => {
                self.answer(state, actor, at, |held| worker::complete_task_request(held, &does.decision()))
            }
            Action::Fail { at } => self.answer(state, actor, at, worker::fail_task_request),
            Action::Beat { at, details } => {
                self.answer(state, actor, at, |held| worker::beat_request(held, details))
            }
            Action::End { at, well } => {
                self.answer(state, actor, at, |held| worker::end_activity_request(held, well))
            }
            Action::Force { to, asks } => {
                self.force(state, to, asks)?;
                state.hands[actor].next += 1;
                Ok(())
            }
            Action::Advance { seconds } => {
                state.hands[actor].next += 1;
                self.advance(state, seconds)
            }
            Action::FailCommit { at, how } => {
                let now = state.now;
                state.hands[actor].next += 1;
                state.node_mut(at).region.finish_commit(now, SHARD, Some(how)).map_err(broken)?;
                self.touch(state, at)
            }
            Action::Barrier { at } => {
                let now = state.now;
                let node = state.node_mut(at);
                let ticket = node.region.barrier(now, SHARD);
                node.waiting.push(Waiting { ticket, actor, writable: false });
                state.hands[actor].waits = true;
                self.touch(state, at)
            }
            Action::Drain { at, to } => self.change(state, actor, at, |record, act| {
                record.begin_drain(act, NAMES[to], "move", Timestamp(i64::MAX))
            }),
            Action::Release { at, .. } => {
                self.change(state, actor, at, |record, act| record.release(act, "move"))
            }
            Action::Undo { at } => {
                self.change(state, actor, at, |record, act| record.undo_drain(act, "move"))
            }
            Action::Activate { at } => {
                self.change(state, actor, at, |record, act| record.activate_released(act, 0))
            }
            Action::Deliver => self.deliver_all(state),
        }
    }

    fn call(
        &mut self,
        state: &mut State,
        actor: usize,
        at: At,
        workflow: &str,
        operation: Operation,
    ) -> Result<(), Finding> {
        let workflow = WorkflowKey { namespace: self.namespace, workflow: workflow.into() };
        self.ask(state, actor, at, Request { workflow, run: None, operation })
    }

    fn poll(&mut self, state: &mut State, actor: usize, at: At, kind: TaskKind) -> Result<(), Finding> {
        let offers = &mut state.node_mut(at).region.offers;
        let Some(index) = offers.iter().position(|offer| offer.kind == kind) else { return Ok(()) };
        let Some(offer) = offers.remove(index) else { return Ok(()) };
        self.ask(state, actor, at, worker::take_request(&offer))
    }

    fn answer(
        &mut self,
        state: &mut State,
        actor: usize,
        at: At,
        request: impl Fn(&Held) -> Request,
    ) -> Result<(), Finding> {
        match state.hands[actor].held.clone() {
            Some(held) => self.ask(state, actor, at, request(&held)),
            // The task was lost or refused before: there is nothing to bring back.
            None => {
                state.hands[actor].next += 1;
                Ok(())
            }
        }
    }

    fn ask(&mut self, state: &mut State, actor: usize, at: At, request: Request) -> Result<(), Finding> {
        let now = state.now;
        let node = state.node_mut(at);
        let writable = node.region.record.writable(&node.region.name).is_some();
        let ticket = node.region.request(now, request);
        node.waiting.push(Waiting { ticket, actor, writable });
        state.hands[actor].waits = true;
        let held = self.held(at);
        self.run(state, at, !held)?;
        self.answers(state, at, Some(actor))?;
        self.send(state, at)
    }

    /// Hands answers to those who wait. `fresh` has only just asked: a refusal it takes as "not here, not now".
    fn answers(&mut self, state: &mut State, at: At, fresh: Option<usize>) -> Result<(), Finding> {
        if state.nodes[at].waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut state.node_mut(at).waiting);
        for wait in waiting {
            let region = &mut state.node_mut(at).region;
            if let Some(barrier) = region.barriers.remove(&wait.ticket) {
                let hand = &mut state.hands[wait.actor];
                hand.waits = false;
                if let Ok(sequence) = barrier {
                    hand.barrier = Some(sequence);
                    hand.next += 1;
                }
            } else if let Some(answer) = region.answers.remove(&wait.ticket) {
                state.hands[wait.actor].waits = false;
                self.answered(state, at, &wait, answer, fresh == Some(wait.actor))?;
            } else {
                state.node_mut(at).waiting.push(wait);
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        state: &mut State,
        at: At,
        wait: &Waiting,
        answer: Result<Reply, Refusal>,
        fresh: bool,
    ) -> Result<(), Finding> {
        let action = self.action(wait.actor, state.hands[wait.actor].next);
        match answer {
            Ok(reply) => {
                if !wait.writable {
                    let name = &state.nodes[at].region.name;
                    return Err(Finding(format!("A9: {name} accepted a write that was not its to accept")));
                }
                self.accepted(state, at, wait.actor, action, &reply)?;
                state.hands[wait.actor].next += 1;
            }
            // An unknown outcome: the client cannot know, and goes on.
            Err(Refusal::Unavailable(_)) if !fresh => self.unknown(state, wait.actor),
            Err(Refusal::TaskNotFound { .. } | Refusal::InvalidArgument(_) | Refusal::NotFound(_)) => {
                let polls = matches!(action, Some(Action::Poll { .. } | Action::PollActivity { .. }));
                let hand = &mut state.hands[wait.actor];
                if hand.held.take().is_some() && !polls {
                    hand.next += 1;
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        state: &mut State,
        at: At,
        actor: usize,
        action: Option<&'p Action>,
        reply: &Reply,
    ) -> Result<(), Finding> {
        let told = match (action, reply) {
            (Some(Action::Signal { workflow, request, .. }), _) => Some(Told::Event(workflow, 1, request)),
            (Some(Action::Cancel { workflow, request, .. }), _) => Some(Told::Event(workflow, 2, request)),
            (Some(Action::Start { workflow, .. }), Reply::Start(start)) => {
                start.run_id.parse().ok().map(|run| Told::Started(workflow, run))
            }
            (Some(Action::Terminate { workflow, .. }), _) => {
                let current = self.current(state, at, workflow);
                current.map(|run| Told::Terminated(workflow, run))
            }
            _ => None,
        };
        if let Some(told) = told {
            Arc::make_mut(&mut state.told).insert(told);
        }
        let hand = &mut state.hands[actor];
        match reply {
            Reply::WorkflowTask(..) | Reply::ActivityTask(_) => {
                hand.held = worker::held(reply).map(Arc::new);
            }
            Reply::Heartbeat(_) => {}
            _ => {
                if let Some(held) = hand.held.take() {
                    self.same_history(state, at, &held)?;
                }
            }
        }
        Ok(())
    }

    fn current(&self, state: &State, at: At, workflow: &'static str) -> Option<RunId> {
        let snap = read(&state.nodes[at].region, self.namespace, &[workflow])?;
        snap.currents.get(workflow)?.run_id.parse().ok()
    }

    /// A4: when a workflow task was accepted, its worker saw what stands in the history, or its replay breaks.
    fn same_history(&self, state: &State, at: At, held: &Held) -> Result<(), Finding> {
        if held.events.is_empty() {
            return Ok(());
        }
        let Some(snap) = read(&state.nodes[at].region, self.namespace, &self.workflows) else {
            return Ok(());
        };
        let Some(run) = snap.runs.get(&held.token.key.run) else { return Ok(()) };
        let stands = super::check::current_events(run);
        let differs = held
            .events
            .iter()
            .zip(&stands)
            .find(|(saw, stands)| (saw.event_id, saw.event_type) != (stands.event_id, stands.event_type));
        match differs {
            Some((saw, stands)) => Err(Finding(format!(
                "A4: a worker's decision was accepted on a history that it has not seen: event {} was {:?}, and {:?} \
                 stands there",
                saw.event_id,
                saw.event_type(),
                stands.event_type(),
            ))),
            None => Ok(()),
        }
    }

    fn change(
        &mut self,
        state: &mut State,
        actor: usize,
        at: At,
        change: impl Fn(&Record, &Act<'_>) -> Result<Record, RecordRefusal>,
    ) -> Result<(), Finding> {
        let record = &state.nodes[at].region.record;
        let act =
            Act { regions: &self.members, here: NAMES[at], now: state.now, who: "operator", why: "explored" };
        if let Ok(record) = change(record, &act) {
            state.hands[actor].next += 1;
            self.set_record(state, at, record)?;
        }
        Ok(())
    }

    /// F3: executed by the target, above everything that it, its store and whom it can ask have seen.
    fn force(&mut self, state: &mut State, to: At, asks: &[At]) -> Result<(), Finding> {
        for other in asks {
            self.hear(state, *other, to)?;
        }
        let record = &state.nodes[to].region.record;
        let stored = read(&state.nodes[to].region, self.namespace, &self.workflows);
        let runs = stored.iter().flat_map(|snap| snap.runs.values());
        let written = runs.flat_map(|run| run.batches.iter().map(|batch| batch.envelope.version));
        let past = record.history().keys().copied();
        let seen_max = written.chain(past).fold(record.version(), FailoverVersion::max);
        let act =
            Act { regions: &self.members, here: NAMES[to], now: state.now, who: "operator", why: "explored" };
        let not_asked = (0..state.nodes.len()).filter(|other| *other != to && !asks.contains(other));
        let not_asked = not_asked.map(|other| NAMES[other].to_string()).collect();
        let forced = Forced { seen_max, predicted_loss_runs: None, not_asked };
        let after = record.force(&act, forced).map_err(broken)?;
        if after.version() <= seen_max || !self.members.owns(NAMES[to], after.version()) {
            return Err(Finding(format!(
                "V12: {} took version {} over {seen_max}",
                NAMES[to],
                after.version()
            )));
        }
        self.set_record(state, to, after)
    }

    /// Whether a region may write events under a version.
    #[must_use]
    pub fn owns(&self, at: RegionId, version: FailoverVersion) -> bool {
        self.members.by_id(at).is_some_and(|member| self.members.owns(&member.name, version))
    }

    /// Whether a region is to activate now.
    #[must_use]
    pub fn may_activate(state: &State, at: At) -> bool {
        let region = &state.nodes[at].region;
        matches!(region.record.standing(&region.name), Standing::MayActivate { .. })
    }
}
