//! Requests that write: each is checked against the namespace and the run, decided by the core, and written.

use antipode_core::{
    decide::{
        Outcome, activity, due,
        external::{self, External},
        workflow_task,
    },
    ids::{FailoverVersion, RunKey},
    refusal::Refusal,
};
use antipode_persistence::rows::TaskKind;
use antipode_proto::api::{history::v1 as history, workflowservice::v1 as ws};

use super::{Event, Load, Output, Shard, Stop, Token};
use crate::api::{Operation, Reply, Request};

/// A request that must wait for a read comes back with its token.
type Waiting<T> = (Load, T, Request);

impl<T: Token> Shard<T> {
    /// Does a request, or says what must be read first.
    pub(super) fn try_request(&mut self, token: T, request: Request) -> Result<(), Waiting<T>> {
        let workflow = request.workflow.clone();
        // Reads that may park give their token away; everything else answers here.
        let parked = matches!(request.operation, Operation::History(_) | Operation::PrepareQuery { .. });
        if parked {
            return self.try_parking(token, request);
        }
        match self.perform(&request) {
            Ok(reply) => {
                let after = self.changed(&workflow);
                self.hold(after, Output::Answer(token, Ok(reply)));
            }
            Err(Stop::Load(load)) => return Err((load, token, request)),
            Err(Stop::Refused(refusal)) => self.refuse(token, &request, refusal),
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, token: T, request: &Request, refusal: Refusal) {
        if let Refusal::TaskNotFound { reason, .. } = &refusal {
            let kind = match &request.operation {
                Operation::ActivityTaskStart { .. }
                | Operation::ActivityCompleted(..)
                | Operation::ActivityFailed(..)
                | Operation::ActivityCanceled(..)
                | Operation::ActivityHeartbeat(..) => TaskKind::Activity,
                _ => TaskKind::Workflow,
            };
            let told = self.why_stale(request).map(Box::new);
            self.outputs.push(Output::Discarded { kind, reason, told });
        }
        let internal = match &refusal {
            Refusal::Internal(why) => Some(why.clone()),
            _ => None,
        };
        let after = self.changed(&request.workflow);
        self.hold(after, Output::Answer(token, Err(refusal)));
        if let Some(why) = internal {
            // A decision that broke half-way leaves its run unusable: nothing of it may become durable.
            self.break_down(why);
        }
    }

    fn perform(&mut self, request: &Request) -> Result<Reply, Stop> {
        match &request.operation {
            Operation::Start(start) => self.start(request, start),
            Operation::SignalWithStart(start) => self.signal_with_start(request, start),
            Operation::Signal(signal) => self.external(request, external::signal(signal), ""),
            Operation::RequestCancel(cancel) => {
                let first = cancel.first_execution_run_id.clone();
                self.external(request, external::request_cancel(cancel), &first)
            }
            Operation::Terminate(terminate) => self.terminate(request, terminate),
            Operation::WorkflowTaskStart { task, poll } => {
                let (key, version) = self.writable_run(request, true)?;
                let (context, seat) = (self.context(version), self.seat_one());
                let cached = self.cached_mut(&key)?;
                let before = cached.run.registers.clone();
                let outcome = workflow_task::start(&mut cached.run, task, poll, context, seat)?;
                let changed = outcome.batch.is_some() || cached.run.registers != before;
                self.wrote(&key, outcome, changed)?;
                self.workflow_task_reply(&key, poll, version).map_err(Stop::from)
            }
            Operation::ActivityTaskStart { task, poll } => {
                let (key, version) = self.writable_run(request, true)?;
                let context = self.context(version);
                activity::start(&mut self.cached_mut(&key)?.run, task, poll, context)?;
                self.wrote(&key, Outcome::default(), true)?;
                self.activity_task_reply(&key, task).map_err(Stop::from)
            }
            Operation::WorkflowTaskCompleted(token, completed) => self.complete(request, token, completed),
            Operation::WorkflowTaskFailed(token, failed) => self.fail(request, token, failed),
            Operation::ActivityCompleted(named, completed) => {
                let end = activity::End::Completed(completed.result.clone());
                self.end_activity(request, named, end, &completed.identity)
            }
            Operation::ActivityFailed(named, failed) => self.fail_activity(request, named, failed),
            Operation::ActivityCanceled(named, canceled) => self.cancel_activity(request, named, canceled),
            Operation::ActivityHeartbeat(named, beat) => self.heartbeat(request, named, beat),
            Operation::ResetSticky => {
                let (key, _) = self.writable_run(request, false)?;
                self.cached_mut(&key)?.run.sticky = None;
                Ok(Reply::Done)
            }
            Operation::Describe => self.describe(request),
            Operation::Inspect => self.inspect(request),
            Operation::Fetch { known, until } => self.fetch(request, known, *until),
            Operation::History(_) | Operation::PrepareQuery { .. } => {
                Err(Stop::Refused(Refusal::Internal("a parking read was not parked".to_string())))
            }
        }
    }

    /// The run a request means: the one it names, else the current one.
    pub(super) fn resolve(&mut self, request: &Request) -> Result<RunKey, Stop> {
        self.need_workflow(&request.workflow)?;
        let current = self.workflows.get(&request.workflow).and_then(super::cache::Workflow::current_run);
        let id = &request.workflow.workflow;
        let run = request
            .run
            .or(current)
            .ok_or_else(|| Refusal::NotFound(format!("workflow not found for ID: {id}")))?;
        let key = request.workflow.run(run);
        if self.need_run(&key)? {
            return Ok(key);
        }
        let words = match request.run {
            Some(run) => {
                format!("workflow execution not found for workflow ID \"{id}\" and run ID \"{run}\"")
            }
            None => format!("workflow not found for ID: {id}"),
        };
        Err(Stop::Refused(Refusal::NotFound(words)))
    }

    /// The run a writing request means, and the version to write under. A zombie is closed to everybody but
    /// replication (R602).
    pub(super) fn writable_run(
        &mut self,
        request: &Request,
        task: bool,
    ) -> Result<(RunKey, FailoverVersion), Stop> {
        let version = self.writable(request.workflow.namespace)?;
        let key = match (self.resolve(request), task) {
            (Err(Stop::Refused(Refusal::NotFound(message))), true) => {
                return Err(Stop::Refused(Refusal::TaskNotFound { message, reason: "no_run" }));
            }
            (resolved, _) => resolved?,
        };
        let current = self.is_current(&key);
        let run = &self.cached(&key)?.run;
        if !run.state.is_open() || !current {
            let refusal = match task {
                true => Refusal::TaskNotFound {
                    message: "workflow execution already completed".to_string(),
                    reason: if current { "run_closed" } else { "zombie" },
                },
                false => Refusal::AlreadyCompleted,
            };
            return Err(Stop::Refused(refusal));
        }
        // F5: a run that is ahead of the namespace record waits for the record.
        if run.newest_version() > version {
            let words =
                format!("run {key} is at {} and the namespace record at {version}", run.newest_version());
            return Err(Stop::Refused(Refusal::Unavailable(words)));
        }
        Ok((key, version))
    }

    /// Puts what a decision made into the group.
    pub(super) fn wrote(&mut self, key: &RunKey, outcome: Outcome, changed: bool) -> Result<(), Refusal> {
        let Outcome { batch, successor, .. } = outcome;
        if batch.is_none() && !changed {
            return Ok(());
        }
        let at = match &batch {
            Some(batch) => batch.envelope.origin.sequence,
            None => self.sequence.next(),
        };
        if let Some(successor) = successor {
            let (run, first) = *successor;
            let next = run.key.clone();
            let first_at = first.envelope.origin.sequence;
            self.gather_batch(&first, first_at);
            if let Some(batch) = &batch {
                self.gather_batch(batch, at);
            }
            self.insert_run(run);
            // The predecessor first: its order is lower, so that the record ends with the successor (B7).
            self.changed_run(key, at)?;
            self.changed_run(&next, first_at)?;
            return Ok(());
        }
        if let Some(batch) = &batch {
            self.gather_batch(batch, at);
        }
        let reapplied =
            batch.iter().flat_map(|b| &b.envelope.identities).filter(|e| e.reapplied_from.is_some());
        for _ in reapplied {
            self.outputs.push(Output::Count(Event::Reapplied));
        }
        self.changed_run(key, at)
    }

    /// A run was woken: does what is due, and offers what waits.
    pub(super) fn try_wake(&mut self, key: &RunKey) -> Result<(), Stop> {
        let Ok(version) = self.writable(key.namespace) else { return Ok(()) };
        if !self.need_run(key)? {
            return Ok(());
        }
        match (self.is_current(key), self.cached(key)?.run.state.is_open()) {
            (true, true) => Ok(self.settle(key, version)?),
            (true, false) => Ok(self.file_unclaimed(key)?),
            (false, _) => self.hand_over(key, version),
        }
    }

    /// I03: what a closed run that owns its id can never be given is filed with a verdict.
    fn file_unclaimed(&mut self, key: &RunKey) -> Result<(), Refusal> {
        let now = self.now;
        let filed = antipode_core::decide::reapply::file_unclaimed(&mut self.cached_mut(key)?.run, now);
        self.cached_mut(key)?.handed_over = true;
        if filed {
            self.outputs.push(Output::Count(Event::Unclaimed));
            let at = self.sequence.next();
            self.changed_run(key, at)?;
            self.cached_mut(key)?.handed_over = true;
        }
        self.derive(key)
    }

    /// B1: what clients gave a superseded run, or what a closed one lost with a branch, goes to the run that owns the workflow id now, or is filed with a verdict.
    fn hand_over(&mut self, key: &RunKey, version: FailoverVersion) -> Result<(), Stop> {
        let owner = self.workflows.get(&key.workflow_key()).and_then(super::cache::Workflow::current_run);
        let Some(owner) = owner.map(|run| RunKey { run, ..key.clone() }) else { return Ok(()) };
        let owing = if !self.need_run(&owner)? {
            // The owner was deleted after its retention; its record still keeps this run from the id (B6).
            self.need_descent(key)?;
            self.owing_to_nobody(key)?
        } else if self.cached(&owner)?.run.newest_version() > version {
            return Ok(());
        } else {
            self.need_descent(key)?;
            let owing = self.owing(key, &owner)?;
            let lost = self.is_lost(key);
            self.look_back(key, &owner, lost)?;
            owing
        };
        if !owing.file.is_empty() {
            self.record(key, owing.file)?;
            self.outputs.push(Output::Count(Event::Unclaimed));
            let at = self.sequence.next();
            self.changed_run(key, at)?;
        }
        self.cached_mut(key)?.handed_over = true;
        self.derive(key)?;
        if !owing.hand_over.is_empty() {
            let run = &mut self.cached_mut(&owner)?.run;
            for (identity, pending) in owing.hand_over {
                run.add_pending(identity, pending);
            }
            let at = self.sequence.next();
            self.changed_run(&owner, at)?;
            self.settle(&owner, version)?;
        }
        Ok(())
    }

    /// B1, B2: what the run before took counted as passed on to this one. When another chain takes the workflow id from this
    /// one, it is asked again: it may hold what nobody else has.
    fn look_back(&mut self, key: &RunKey, owner: &RunKey, lost: bool) -> Result<(), Refusal> {
        let run = &self.cached(key)?.run;
        let counts = !lost && !run.state.is_open();
        if counts || self.cached(owner)?.run.first_run == run.first_run {
            return Ok(());
        }
        let Some(before) = run.predecessor().map(|run| RunKey { run, ..key.clone() }) else { return Ok(()) };
        let Ok(cached) = self.cached_mut(&before) else { return Ok(()) };
        cached.handed_over = false;
        self.derive(&before)
    }

    /// Does what is due for a run of a namespace that is active here.
    pub(super) fn settle(&mut self, key: &RunKey, version: FailoverVersion) -> Result<(), Refusal> {
        let now = self.now;
        let ahead = self.cached(key)?.run.newest_version() > version;
        let wake = due::wake_at(&self.cached(key)?.run, Some(version), self.setting.region, now);
        if ahead {
            return Ok(()); // F5: the record's arrival wakes it.
        }
        if wake.is_some_and(|wake| wake <= now) {
            let (context, seats, next) = (self.context(version), self.seats_two(), self.make_id());
            let cached = self.cached_mut(key)?;
            let before = (cached.run.registers.clone(), cached.run.verdicts.len(), cached.run.pending.len());
            let outcome = due::settle(&mut cached.run, context, seats, next)?;
            let after = (cached.run.registers.clone(), cached.run.verdicts.len(), cached.run.pending.len());
            let changed = outcome.batch.is_some() || before != after;
            if changed {
                return self.wrote(key, outcome, true);
            }
        }
        // A false or an early wake: the stored time moves on without a change of the run (C5).
        let stale = self.cached(key)?.stored_wake.is_some_and(|stored| stored <= now);
        if stale {
            self.derive(key)?;
        } else {
            let workflow = key.workflow_key();
            self.rearm(&workflow, key.run);
            self.offer_work(key)?;
        }
        // Nothing could be done now: the run is looked at again when it changes, not in a circle.
        if let Some(wake) = wake.filter(|wake| *wake <= now) {
            self.wakes.remove(&(wake, key.clone()));
        }
        Ok(())
    }

    pub(super) fn external(
        &mut self,
        request: &Request,
        external: External,
        first_run: &str,
    ) -> Result<Reply, Stop> {
        // A repeated cancel of a closed run is success (api-surface 3.11).
        let cancel = matches!(request.operation, Operation::RequestCancel(_));
        let (key, version) = match self.writable_run(request, false) {
            Err(Stop::Refused(Refusal::AlreadyCompleted)) if cancel => return Ok(Reply::Done),
            resolved => resolved?,
        };
        self.check_first_run(&key, first_run)?;
        let (context, seat) = (self.context(version), self.seat_one());
        let cached = self.cached_mut(&key)?;
        let pending = cached.run.pending.len();
        let outcome = external::accept(&mut cached.run, external, context, seat)?;
        let changed = outcome.batch.is_some() || cached.run.pending.len() != pending;
        self.wrote(&key, outcome, changed)?;
        Ok(Reply::Done)
    }

    pub(super) fn check_first_run(&self, key: &RunKey, first_run: &str) -> Result<(), Refusal> {
        if first_run.is_empty() || self.cached(key)?.run.first_run.to_string() == first_run {
            return Ok(());
        }
        Err(Refusal::NotFound(format!("workflow not found for ID: {}", key.workflow)))
    }

    fn terminate(
        &mut self,
        request: &Request,
        terminate: &ws::TerminateWorkflowExecutionRequest,
    ) -> Result<Reply, Stop> {
        let (key, version) = self.writable_run(request, false)?;
        self.check_first_run(&key, &terminate.first_execution_run_id)?;
        let attributes = history::WorkflowExecutionTerminatedEventAttributes {
            reason: terminate.reason.clone(),
            details: terminate.details.clone(),
            identity: terminate.identity.clone(),
        };
        let (context, seat) = (self.context(version), self.seat_one());
        let run = &mut self.cached_mut(&key)?.run;
        let identity = external::terminate_identity(run, &context, seat);
        let named = request.run.is_some();
        let batch = external::terminate(run, attributes, Some(identity), named, context, seat)?;
        self.wrote(&key, Outcome::of(batch), true)?;
        Ok(Reply::Done)
    }
}
