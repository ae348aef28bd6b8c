//! What actors do: clients and workers ask shards, operators change namespace records. What a shard answers decides how an
//! actor goes on.

use std::sync::Arc;

use antipode_core::{
    ids::{FailoverVersion, RunId, Timestamp, WorkflowKey},
    namespace::{Act, Forced, Record, Refusal as RecordRefusal},
};
use antipode_history::api::{Operation, Refusal, Reply, Request, TaskKind};
use antipode_proto::api::enums::v1::WorkflowIdConflictPolicy as Conflict;

use super::{
    canon::{SHARD, read},
    program::{Action, At},
    state::{State, Told, Waiting},
    step::{Finding, Machine, broken},
};
use crate::{
    worker::{self, Held},
    world::NAMES,
};

impl<'p> Machine<'p> {
    pub(super) fn action(&self, actor: usize, next: usize) -> Option<&'p Action> {
        self.program.actors.get(actor).copied().unwrap_or(self.program.setup).get(next)
    }

    pub(super) fn act(&mut self, state: &mut State, actor: usize, action: &'p Action) -> Result<(), Finding> {
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

    pub(super) fn call(
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

    pub(super) fn poll(
        &mut self,
        state: &mut State,
        actor: usize,
        at: At,
        kind: TaskKind,
    ) -> Result<(), Finding> {
        let offers = &mut state.node_mut(at).region.offers;
        let Some(index) = offers.iter().position(|offer| offer.kind == kind) else { return Ok(()) };
        let Some(offer) = offers.remove(index) else { return Ok(()) };
        self.ask(state, actor, at, worker::take_request(&offer))
    }

    pub(super) fn answer(
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

    pub(super) fn ask(
        &mut self,
        state: &mut State,
        actor: usize,
        at: At,
        request: Request,
    ) -> Result<(), Finding> {
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
    pub(super) fn answers(&mut self, state: &mut State, at: At, fresh: Option<usize>) -> Result<(), Finding> {
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

    pub(super) fn answered(
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

    pub(super) fn accepted(
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

    pub(super) fn current(&self, state: &State, at: At, workflow: &'static str) -> Option<RunId> {
        let snap = read(&state.nodes[at].region, self.namespace, &[workflow])?;
        snap.currents.get(workflow)?.run_id.parse().ok()
    }

    /// A4: when a workflow task was accepted, its worker saw what stands in the history, or its replay breaks.
    pub(super) fn same_history(&self, state: &State, at: At, held: &Held) -> Result<(), Finding> {
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

    pub(super) fn change(
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
    pub(super) fn force(&mut self, state: &mut State, to: At, asks: &[At]) -> Result<(), Finding> {
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
}
