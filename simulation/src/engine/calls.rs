//! Clients: they ask a region, follow it to the active one, retry with the same request id when they do not know what became
//! of a call, and remember what was acknowledged. The client-visible oracle knows nothing else.

use antipode_core::ids::{FailoverVersion, RunId, Timestamp};
use antipode_history::api::{Operation, Refusal, Reply, Request};
use antipode_proto::api::{
    common::v1::{RetryPolicy, WorkflowExecution, WorkflowType},
    workflowservice::v1 as ws,
};

use super::{
    Due, Engine, Failure,
    program::{Program, queue},
    script::{CallStep, StartStep},
    seen::State,
    site::Asker,
    span::Span,
};
use crate::trace::Kind;

/// What a client wants.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Start(StartStep),
    SignalWithStart(StartStep),
    Signal(String),
    Cancel,
    Terminate,
}

impl What {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::SignalWithStart(_) => "signal-with-start",
            Self::Signal(_) => "signal",
            Self::Cancel => "cancel",
            Self::Terminate => "terminate",
        }
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Waiting,
    /// Acknowledged, with the run it was told.
    Ok(Option<RunId>),
    Refused(String),
    /// The client does not know.
    GaveUp,
}

impl Outcome {
    /// As an expectation writes it.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Waiting => "waiting".to_string(),
            Self::Ok(_) => "ok".to_string(),
            Self::Refused(why) => format!("refused: {why}"),
            Self::GaveUp => "given-up".to_string(),
        }
    }
}

/// A client's call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) what: What,
    pub(crate) workflow: String,
    /// Request id.
    pub(crate) id: String,
    pub(crate) run: Option<RunId>,
    /// The region to ask next.
    pub(crate) site: usize,
    pub(crate) first_site: usize,
    pub(crate) once: bool,
    pub(crate) tries: u32,
    pub(crate) outcome: Outcome,
    /// When and where it was acknowledged, under which version.
    pub(crate) acked: Option<Acked>,
    /// An earlier try may have been carried out.
    pub(crate) unsure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) at: Timestamp,
    pub(crate) site: usize,
    pub(crate) version: FailoverVersion,
}

/// All calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) all: Vec<Call>,
}

/// A client stops asking after so many tries.
const TRIES_MAX: u32 = 14;

impl Calls {
    pub(crate) fn waiting(&self) -> usize {
        self.all.iter().filter(|call| call.outcome == Outcome::Waiting).count()
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Call> {
        self.all.iter().find(|call| call.id == id)
    }

    /// How many were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.all.iter().filter(|call| call.acked.is_some()).count() as u64
    }
}

impl Engine {
    pub(crate) fn call_start(&mut self, step: &StartStep, with_signal: bool) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        Program::parse(step.program.iter().map(String::as_str)).map_err(Failure::Script)?;
        let id = self.call_id(&step.id, if with_signal { "sws" } else { "start" });
        let what = if with_signal { What::SignalWithStart(step.clone()) } else { What::Start(step.clone()) };
        self.begin_call(what, &step.workflow, id, None, site, step.once)
    }

    pub(crate) fn call_about(&mut self, step: &CallStep, what: What) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        let run = match step.run_of.as_str() {
            "" => None,
            start => Some(self.run_of(start)?),
        };
        let id = self.call_id(&step.id, what.word());
        self.begin_call(what, &step.workflow, id, run, site, step.once)
    }

    /// The run that a start with this request id was told.
    pub(crate) fn run_of(&self, start: &str) -> Result<RunId, Failure> {
        match self.calls.by_id(start).map(|call| &call.outcome) {
            Some(Outcome::Ok(Some(run))) => Ok(*run),
            Some(other) => Err(Failure::Script(format!("the start `{start}` has no run: {}", other.words()))),
            None => Err(Failure::Script(format!("there is no start with the request id `{start}`"))),
        }
    }

    fn call_id(&self, wanted: &str, word: &str) -> String {
        if wanted.is_empty() { format!("{word}-{}", self.calls.all.len()) } else { wanted.to_string() }
    }

    fn begin_call(
        &mut self,
        what: What,
        workflow: &str,
        id: String,
        run: Option<RunId>,
        site: usize,
        once: bool,
    ) -> Result<(), Failure> {
        let index = self.calls.all.len();
        self.calls.all.push(Call {
            what,
            workflow: workflow.to_string(),
            id,
            run,
            site,
            first_site: site,
            once,
            tries: 0,
            outcome: Outcome::Waiting,
            acked: None,
            unsure: false,
        });
        self.watch.workflows.insert(workflow.to_string());
        self.call(index)
    }

    /// Asks, or asks again.
    pub(crate) fn call(&mut self, index: usize) -> Result<(), Failure> {
        let Some(call) = self.calls.all.get_mut(index) else { return Ok(()) };
        if call.outcome != Outcome::Waiting {
            return Ok(());
        }
        call.tries += 1;
        let call = call.clone();
        let site = call.site;
        if call.tries > 1 && site != call.first_site {
            self.note(State::RetriedElsewhere);
        }
        self.trace.line(Kind::Client, Some(site), Some(&call.workflow), || {
            let again = if call.tries > 1 { format!(" (try {})", call.tries) } else { String::new() };
            format!("{} {}{again}", call.what.word(), call.id)
        });
        if !self.sites[site].up {
            return self.unanswered(index, "it is down", false);
        }
        let request =
            Request { workflow: self.key(&call.workflow), run: call.run, operation: operation(&call) };
        let now = self.local(site);
        let ticket = self.sites[site].region.request(now, request);
        self.sites[site].waiting.insert(ticket, Asker::Call(index));
        self.tend(site)
    }

    pub(crate) fn call_answered(
        &mut self,
        site: usize,
        index: usize,
        answer: Result<Reply, Refusal>,
    ) -> Result<(), Failure> {
        let lose = self.setup.net.answers;
        let lost = lose > 0 && self.random.number() % 1_000 < u64::from(lose);
        if lost {
            self.fault("answer lost");
            return self.unanswered(index, "the answer was lost", true);
        }
        let Some(call) = self.calls.all.get(index).cloned() else { return Ok(()) };
        match answer {
            Ok(reply) => {
                let run = match &reply {
                    Reply::Start(start) => start.run_id.parse().ok(),
                    Reply::SignalWithStart(start) => start.run_id.parse().ok(),
                    _ => None,
                };
                let version = self.sites[site].region.record.version();
                if call.unsure {
                    self.note(State::Retried);
                }
                self.trace.line(Kind::Client, Some(site), Some(&call.workflow), || {
                    let told = run.as_ref().map(super::short).unwrap_or_default();
                    format!("{} {} ok {told}", call.what.word(), call.id)
                });
                let call = &mut self.calls.all[index];
                call.outcome = Outcome::Ok(run);
                call.acked = Some(Acked { at: self.now, site, version });
                Ok(())
            }
            Err(Refusal::NamespaceNotActive { active, .. }) if !call.once => {
                self.note(State::ForwardedCall);
                let to = self.site(&active).unwrap_or(site);
                self.try_again(index, to)
            }
            Err(Refusal::Draining(_)) => {
                self.note(State::HeldCall);
                if call.once {
                    self.end_call(index, Outcome::Refused("draining".to_string()))
                } else {
                    self.try_again(index, site)
                }
            }
            Err(refusal @ (Refusal::Unavailable(_) | Refusal::ResourceExhausted(_))) => {
                self.unanswered(index, &refusal.to_string(), true)
            }
            Err(refusal) => {
                self.trace.line(Kind::Client, Some(site), Some(&call.workflow), || {
                    format!("{} {} refused: {refusal}", call.what.word(), call.id)
                });
                if let Refusal::Internal(why) = &refusal {
                    self.find("internal", format!("{} {}: {why}", call.what.word(), call.id));
                }
                self.end_call(index, Outcome::Refused(refusal.to_string()))
            }
        }
    }

    /// The client does not know what became of its try.
    pub(crate) fn unanswered(&mut self, index: usize, why: &str, unsure: bool) -> Result<(), Failure> {
        let Some(call) = self.calls.all.get_mut(index) else { return Ok(()) };
        call.unsure |= unsure;
        let (site, once) = (call.site, call.once);
        let (word, id, workflow) = (call.what.word(), call.id.clone(), call.workflow.clone());
        self.trace
            .line(Kind::Client, Some(site), Some(&workflow), || format!("{word} {id}: no answer, {why}"));
        if once {
            return self.end_call(index, Outcome::GaveUp);
        }
        // Most clients come back to the same place, some are sent elsewhere.
        let elsewhere = self.random.percent(30);
        let site = if elsewhere { self.random.below(self.sites.len()) } else { site };
        self.try_again(index, site)
    }

    fn try_again(&mut self, index: usize, site: usize) -> Result<(), Failure> {
        if self.calls.all[index].tries >= TRIES_MAX {
            return self.end_call(index, Outcome::GaveUp);
        }
        self.calls.all[index].site = site;
        let tries = i64::from(self.calls.all[index].tries);
        let span = self.between([Span::millis(10 * tries), Span::millis(60 * tries)]);
        self.after(span, Due::Call(index));
        Ok(())
    }

    fn end_call(&mut self, index: usize, outcome: Outcome) -> Result<(), Failure> {
        if outcome == Outcome::GaveUp {
            self.note(State::GaveUp);
        }
        self.calls.all[index].outcome = outcome;
        Ok(())
    }
}

fn operation(call: &Call) -> Operation {
    // As a frontend hands it on: a request that names a run says so (B4).
    let execution =
        call.run.map(|run| WorkflowExecution { workflow_id: call.workflow.clone(), run_id: run.to_string() });
    match &call.what {
        What::Start(step) => Operation::Start(Box::new(start(call, step))),
        What::SignalWithStart(step) => {
            let start = start(call, step);
            Operation::SignalWithStart(Box::new(ws::SignalWithStartWorkflowExecutionRequest {
                namespace: start.namespace,
                workflow_id: start.workflow_id,
                workflow_type: start.workflow_type,
                task_queue: start.task_queue,
                input: start.input,
                request_id: start.request_id,
                workflow_id_reuse_policy: start.workflow_id_reuse_policy,
                workflow_id_conflict_policy: start.workflow_id_conflict_policy,
                workflow_run_timeout: start.workflow_run_timeout,
                workflow_start_delay: start.workflow_start_delay,
                retry_policy: start.retry_policy,
                signal_name: if step.name.is_empty() { "s".to_string() } else { step.name.clone() },
                ..Default::default()
            }))
        }
        What::Signal(name) => Operation::Signal(Box::new(ws::SignalWorkflowExecutionRequest {
            workflow_execution: execution,
            signal_name: if name.is_empty() { "s".to_string() } else { name.clone() },
            request_id: call.id.clone(),
            ..Default::default()
        })),
        What::Cancel => Operation::RequestCancel(Box::new(ws::RequestCancelWorkflowExecutionRequest {
            workflow_execution: execution,
            request_id: call.id.clone(),
            reason: "told to".to_string(),
            ..Default::default()
        })),
        What::Terminate => Operation::Terminate(Box::new(ws::TerminateWorkflowExecutionRequest {
            workflow_execution: execution,
            reason: "told to".to_string(),
            ..Default::default()
        })),
    }
}

fn start(call: &Call, step: &StartStep) -> ws::StartWorkflowExecutionRequest {
    let program = Program::parse(step.program.iter().map(String::as_str)).unwrap_or_default();
    let span = |span: Span| prost_types::Duration { seconds: span.0 / 1_000_000_000, nanos: 0 };
    ws::StartWorkflowExecutionRequest {
        namespace: super::NAMESPACE.to_string(),
        workflow_id: call.workflow.clone(),
        workflow_type: Some(WorkflowType { name: "program".to_string() }),
        task_queue: queue(),
        input: Some(program.input()),
        request_id: call.id.clone(),
        workflow_run_timeout: step.run_timeout.map(span),
        workflow_start_delay: step.delay.map(span),
        workflow_id_reuse_policy: reuse(step.reuse.as_deref()),
        workflow_id_conflict_policy: conflict(step.conflict.as_deref()),
        retry_policy: step.attempts.map(|maximum_attempts| RetryPolicy {
            initial_interval: Some(span(Span::seconds(1))),
            backoff_coefficient: 1.0,
            maximum_attempts,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn reuse(word: Option<&str>) -> i32 {
    match word {
        Some("allow-duplicate") => 1,
        Some("allow-duplicate-failed-only") => 2,
        Some("reject-duplicate") => 3,
        Some("terminate-if-running") => 4,
        _ => 0,
    }
}

fn conflict(word: Option<&str>) -> i32 {
    match word {
        Some("fail") => 1,
        Some("use-existing") => 2,
        Some("terminate-existing") => 3,
        _ => 0,
    }
}
