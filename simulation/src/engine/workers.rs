//! Workers: they take what is offered, think, and bring it back, to the region that gave it or, when that one is passive by
//! then, to the active one, as its frontend would forward it. A worker with a sticky queue keeps a run's history and
//! decides on it; what it then writes must survive a replay of the real history.

use std::sync::Arc;

use antipode_core::ids::RunId;
use antipode_history::{
    api::{ActivityRef, Operation, PollInfo, Refusal, Reply, Request, TaskKind, TaskToken},
    token,
};
use antipode_proto::api::{
    failure::v1::Failure as ApiFailure,
    history::v1::{History, HistoryEvent},
    taskqueue::v1::{StickyExecutionAttributes, TaskQueue},
    workflowservice::v1 as ws,
};
use prost::Message;

use super::{
    Due, Engine, Failure,
    program::{Behaviour, decide},
    script::WorkerStep,
    seen::State,
    site::Asker,
    span::Span,
};
use crate::trace::Kind;

/// A task in a worker's hand.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    token: TaskToken,
    /// Where to bring it.
    site: usize,
    tries: u32,
    /// For activities.
    behaviour: Option<Behaviour>,
    attempt: i32,
    /// For workflow tasks: all events that the worker knows.
    events: Arc<Vec<HistoryEvent>>,
    beaten: bool,
    fails: bool,
}

impl Task {
    pub(crate) fn kind(&self) -> TaskKind {
        self.token.kind
    }

    pub(crate) fn workflow(&self) -> &str {
        self.token.key.workflow.as_str()
    }
}

/// Tasks in a thousand that workers lose, or fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) lose: u32,
    pub(crate) fail: u32,
}

fn sticky_name(site: usize) -> String {
    format!("sticky-{site}")
}

impl Engine {
    pub(crate) fn poll(&mut self, site: usize, life: u64) -> Result<(), Failure> {
        let here = &mut self.sites[site];
        if !here.up || here.region.life() != life {
            return Ok(());
        }
        here.polling = false;
        if !here.workers {
            return Ok(());
        }
        let Some(offer) = here.region.offers.pop_front() else { return Ok(()) };
        let poll = PollInfo {
            identity: format!("worker-{site}"),
            queue: offer.queue.clone(),
            sticky: offer.sticky,
            ..Default::default()
        };
        let (workflow, run, offered) = (offer.key.workflow_key(), Some(offer.key.run), offer.task.clone());
        let operation = match offer.kind {
            TaskKind::Workflow => Operation::WorkflowTaskStart { task: offer.task, poll },
            TaskKind::Activity => Operation::ActivityTaskStart { task: offer.task, poll },
        };
        let now = self.local(site);
        let ticket = self.sites[site].region.request(now, Request { workflow, run, operation });
        let writable = self.believes_writable(site);
        self.sites[site].waiting.insert(ticket, Asker::Take { writable, offered });
        self.tend(site)
    }

    pub(crate) fn task_taken(&mut self, site: usize, answer: Result<Reply, Refusal>) -> Result<(), Failure> {
        let task = match answer {
            Ok(Reply::WorkflowTask(task, history)) => self.workflow_task(site, &task, &history),
            Ok(Reply::ActivityTask(task)) => token::decode(&task.task_token).ok().map(|token| Task {
                token,
                site,
                tries: 0,
                behaviour: task.activity_type.and_then(|kind| Behaviour::parse(&kind.name)),
                attempt: task.attempt,
                events: Arc::default(),
                beaten: false,
                fails: false,
            }),
            _ => None,
        };
        let Some(mut task) = task else { return Ok(()) };
        let trouble = self.sites[site].trouble;
        let draw = u32::try_from(self.random.number() % 1_000).unwrap_or(0);
        if draw < trouble.lose {
            self.fault("task lost");
            self.trace.line(Kind::Fault, Some(site), Some(task.workflow()), || {
                "a worker lost its task".to_string()
            });
            return Ok(());
        }
        task.fails = task.kind() == TaskKind::Workflow && draw >= 1_000 - trouble.fail.min(1_000);
        if task.fails {
            self.fault("task failed");
        }
        self.trace.line(Kind::Worker, Some(site), Some(task.workflow()), || match task.kind() {
            TaskKind::Workflow => format!("takes a workflow task with {} events known", task.events.len()),
            TaskKind::Activity => {
                format!("takes activity {} (attempt {})", task.token.activity_id, task.attempt)
            }
        });
        let here = &mut self.sites[site];
        here.tasks += 1;
        let number = here.tasks;
        here.held.insert(number, task);
        let span = self.between(self.setup.think);
        self.after(span, Due::Finish { site, task: number });
        Ok(())
    }

    fn workflow_task(
        &mut self,
        site: usize,
        task: &ws::PollWorkflowTaskQueueResponse,
        history: &bytes::Bytes,
    ) -> Option<Task> {
        let token = token::decode(&task.task_token).ok()?;
        let given = History::decode(&**history).map(|history| history.events).unwrap_or_default();
        if task.attempt > 1 {
            self.note(State::TransientTask);
        }
        let run = token.key.run;
        let first = given.first().map_or(1, |event| event.event_id);
        if first > 1 && !self.sites[site].cache.contains_key(&run) {
            // It has lost the run since it told its sticky queue, and asks for the history: of the branch that its task stands on,
            // which need not be the current one any more.
            let stored = self.sites[site].region.stored_runs(&token.key.workflow_key()).ok()?;
            let mut events = stored.get(&run).map(|kept| kept.events(token.tip)).unwrap_or_default();
            events.truncate(usize::try_from(first - 1).unwrap_or(0));
            self.sites[site].cache.insert(run, Arc::new(events));
        }
        let known = self.sites[site].cache.get(&run).map_or(0, |events| events.len());
        if first > 1 && usize::try_from(first).unwrap_or(0) > known + 1 {
            let workflow = token.key.workflow;
            self.find(
                "sticky",
                format!("{workflow}: a worker that knows {known} events was given events from {first} on"),
            );
            return None;
        }
        if first == 1 && known > 0 {
            self.note(State::StickyBroken);
        }
        let cached = self.sites[site].cache.entry(run).or_default();
        let events = Arc::make_mut(cached);
        events.truncate(usize::try_from(first - 1).unwrap_or(0));
        events.extend(given);
        let events = Arc::clone(cached);
        Some(Task {
            token,
            site,
            tries: 0,
            behaviour: None,
            attempt: task.attempt,
            events,
            beaten: false,
            fails: false,
        })
    }

    /// A worker is done thinking.
    pub(crate) fn finish(&mut self, site: usize, number: u64) -> Result<(), Failure> {
        let Some(task) = self.sites[site].held.get(&number).cloned() else { return Ok(()) };
        if !self.sites[site].workers {
            // It stays in the hand of a worker that was stopped.
            return Ok(());
        }
        let at = task.site;
        if !self.sites[at].up {
            return self.bring_again(site, number, at);
        }
        let Some((operation, keeps)) = self.answer_of(site, &task) else {
            self.sites[site].held.remove(&number);
            return Ok(());
        };
        let request =
            Request { workflow: task.token.key.workflow_key(), run: Some(task.token.key.run), operation };
        if keeps && let Some(held) = self.sites[site].held.get_mut(&number) {
            held.beaten = true;
        }
        let now = self.local(at);
        let ticket = self.sites[at].region.request(now, request);
        self.sites[at].waiting.insert(ticket, Asker::Bring { worker: site, task: number });
        self.tend(at)
    }

    /// What the worker answers, and whether it keeps the task.
    fn answer_of(&mut self, site: usize, task: &Task) -> Option<(Operation, bool)> {
        let reference = || ActivityRef::Token(task.token.clone());
        let failure = || Some(ApiFailure { message: "told to".to_string(), ..Default::default() });
        Some(match (task.kind(), task.behaviour) {
            (TaskKind::Workflow, _) if task.fails => {
                let failed =
                    ws::RespondWorkflowTaskFailedRequest { failure: failure(), ..Default::default() };
                self.forget(site, task.token.key.run);
                (Operation::WorkflowTaskFailed(task.token.clone(), Box::new(failed)), false)
            }
            (TaskKind::Workflow, _) => {
                let sticky = StickyExecutionAttributes {
                    worker_task_queue: Some(TaskQueue {
                        name: sticky_name(site),
                        kind: 2,
                        normal_name: "queue".to_string(),
                    }),
                    schedule_to_start_timeout: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
                };
                self.sites[site].region.sticky.insert(task.token.key.run);
                let completed = ws::RespondWorkflowTaskCompletedRequest {
                    commands: decide(&task.events),
                    identity: format!("worker-{site}"),
                    sticky_attributes: Some(sticky),
                    ..Default::default()
                };
                (Operation::WorkflowTaskCompleted(task.token.clone(), Box::new(completed)), false)
            }
            (TaskKind::Activity, Some(Behaviour::Silent)) => return None,
            (TaskKind::Activity, Some(Behaviour::Heartbeat)) if !task.beaten => {
                let beat = ws::RecordActivityTaskHeartbeatRequest::default();
                (Operation::ActivityHeartbeat(reference(), Box::new(beat)), true)
            }
            (TaskKind::Activity, Some(Behaviour::Fails(times)))
                if i64::from(task.attempt) <= i64::from(times) =>
            {
                let failed =
                    ws::RespondActivityTaskFailedRequest { failure: failure(), ..Default::default() };
                (Operation::ActivityFailed(reference(), Box::new(failed)), false)
            }
            (TaskKind::Activity, _) => {
                let done = ws::RespondActivityTaskCompletedRequest::default();
                (Operation::ActivityCompleted(reference(), Box::new(done)), false)
            }
        })
    }

    fn forget(&mut self, site: usize, run: RunId) {
        self.sites[site].cache.remove(&run);
        self.sites[site].region.sticky.remove(&run);
    }

    /// The answer to what a worker of `worker` brought to `at`.
    pub(crate) fn task_brought(
        &mut self,
        worker: usize,
        at: usize,
        number: u64,
        answer: Result<Reply, Refusal>,
    ) -> Result<(), Failure> {
        let Some(task) = self.sites[worker].held.get(&number).cloned() else { return Ok(()) };
        match answer {
            Ok(Reply::Heartbeat(_)) => {
                let span = self.between(self.setup.think);
                self.after(span, Due::Finish { site: worker, task: number });
            }
            Ok(_) => {
                self.trace.line(Kind::Worker, Some(at), Some(task.workflow()), || match task.kind() {
                    TaskKind::Workflow => "completes its workflow task".to_string(),
                    TaskKind::Activity => format!("answers for activity {}", task.token.activity_id),
                });
                self.sites[worker].held.remove(&number);
            }
            Err(Refusal::NamespaceNotActive { active, .. }) => {
                let to = self.site(&active).unwrap_or(at);
                return self.bring_again(worker, number, to);
            }
            Err(Refusal::Draining(_) | Refusal::Unavailable(_)) => {
                return self.bring_again(worker, number, at);
            }
            Err(refusal) => {
                if let Refusal::Internal(why) = &refusal {
                    self.find("internal", format!("{}: {why}", task.workflow()));
                }
                self.trace
                    .line(Kind::Worker, Some(at), Some(task.workflow()), || format!("is refused: {refusal}"));
                self.forget(worker, task.token.key.run);
                self.sites[worker].held.remove(&number);
            }
        }
        Ok(())
    }

    fn bring_again(&mut self, worker: usize, number: u64, to: usize) -> Result<(), Failure> {
        let Some(task) = self.sites[worker].held.get_mut(&number) else { return Ok(()) };
        task.tries += 1;
        task.site = to;
        if task.tries > 8 {
            let run = task.token.key.run;
            self.sites[worker].held.remove(&number);
            self.forget(worker, run);
            return Ok(());
        }
        let span = self.between([Span::millis(20), Span::millis(120)]);
        self.after(span, Due::Finish { site: worker, task: number });
        Ok(())
    }

    pub(crate) fn workers_step(&mut self, step: &WorkerStep) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        if step.crash {
            self.fault("workers crashed");
            self.sites[site].held.clear();
            self.sites[site].cache.clear();
            self.sites[site].region.sticky.clear();
        }
        let trouble = &mut self.sites[site].trouble;
        trouble.lose = step.lose.unwrap_or(trouble.lose);
        trouble.fail = step.fail.unwrap_or(trouble.fail);
        if step.stop {
            self.sites[site].workers = false;
        }
        if step.start {
            self.sites[site].workers = true;
            for number in self.sites[site].held.keys().copied().collect::<Vec<_>>() {
                self.after(Span::millis(1), Due::Finish { site, task: number });
            }
        }
        self.tend(site)
    }
}
