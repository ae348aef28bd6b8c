//! Starts: what becomes of one by the policies of its request, and the first batch of a run (api-surface 4.8, law B5).

use antipode_core::{
    decide::{Outcome, external, start},
    ids::{FailoverVersion, RunId, RunKey},
    refusal::Refusal,
    run::Run,
};
use antipode_proto::api::{
    common::v1::Payloads,
    enums::v1::{
        WorkflowExecutionStatus as Status, WorkflowIdConflictPolicy as Conflict,
        WorkflowIdReusePolicy as Reuse,
    },
    history::v1 as history,
    workflowservice::v1 as ws,
};

use super::{Shard, Stop, Token};
use crate::api::{Reply, Request};

impl<T: Token> Shard<T> {
    pub(super) fn start(
        &mut self,
        request: &Request,
        start: &ws::StartWorkflowExecutionRequest,
    ) -> Result<Reply, Stop> {
        let version = self.writable(request.workflow.namespace)?;
        let run = match self.admit(request, start, version)? {
            Admitted::New { terminate } => {
                let run = self.make_id();
                let new = start::from_request(start, run, self.now);
                self.begin(request, run, new, version, terminate)?;
                (run, true)
            }
            Admitted::Same { run } => (run, true),
            Admitted::Existing { run } => (run, false),
        };
        let (run, started) = run;
        let cached = self.cached(&request.workflow.run(run))?;
        Ok(Reply::Start(Box::new(ws::StartWorkflowExecutionResponse {
            run_id: run.to_string(),
            first_execution_run_id: cached.run.first_run.to_string(),
            started,
            status: cached.run.state.status as i32,
            ..Default::default()
        })))
    }

    pub(super) fn signal_with_start(
        &mut self,
        request: &Request,
        start: &ws::SignalWithStartWorkflowExecutionRequest,
    ) -> Result<Reply, Stop> {
        let version = self.writable(request.workflow.namespace)?;
        let (signal, plain) = split(start);
        let external = external::signal(&signal);
        let admitted = self.admit(request, &plain, version)?;
        let (run, started) = match admitted {
            Admitted::New { terminate } => {
                let run = self.make_id();
                let mut new = start::from_request(&plain, run, self.now);
                let identity = external.identity.clone().unwrap_or_else(|| {
                    antipode_core::identity::Identity::client(external.kind, format!("{run}/start"))
                });
                if let history::history_event::Attributes::WorkflowExecutionSignaledEventAttributes(a) =
                    external.attributes
                {
                    new.signal = Some((a, identity));
                }
                self.begin(request, run, new, version, terminate)?;
                (run, true)
            }
            Admitted::Same { run } => (run, true),
            Admitted::Existing { run } => {
                let key = request.workflow.run(run);
                let (context, seat) = (self.context(version), self.seat_one());
                let cached = self.cached_mut(&key)?;
                let pending = cached.run.pending.len();
                let outcome = external::accept(&mut cached.run, external, context, seat)?;
                let changed = outcome.batch.is_some() || cached.run.pending.len() != pending;
                self.wrote(&key, outcome, changed)?;
                (run, false)
            }
        };
        Ok(Reply::SignalWithStart(Box::new(ws::SignalWithStartWorkflowExecutionResponse {
            run_id: run.to_string(),
            started,
            ..Default::default()
        })))
    }

    /// Writes the first batch of a run, after terminating the one that was in its way, in one transition (B5).
    fn begin(
        &mut self,
        request: &Request,
        run: RunId,
        mut new: start::NewRun,
        version: FailoverVersion,
        terminate: Option<RunKey>,
    ) -> Result<(), Stop> {
        let key = request.workflow.run(run);
        let context = self.context(version);
        let mut at = self.sequence.0 + 1;
        let causal = at;
        if let Some(old) = terminate {
            let attributes = history::WorkflowExecutionTerminatedEventAttributes {
                reason: "TerminateIfRunning WorkflowIdReusePolicy".to_string(),
                details: Some(text_payload(&format!("terminated by new runID: {run}"))),
                identity: "history-service".to_string(),
            };
            let seat = self.seat(at, at);
            let run = &mut self.cached_mut(&old)?.run;
            let batch = external::terminate(run, attributes, None, false, context.clone(), seat)?;
            self.wrote(&old, Outcome::of(batch), true)?;
            at += 1;
        }
        let mut seat = self.seat(at, at);
        seat.causal = causal;
        new.first_run = run;
        let (run, batch) = start::start(key.clone(), new, context, seat)?;
        self.insert_run(run);
        self.wrote(&key, Outcome::of(Some(batch)), true)?;
        Ok(())
    }

    /// What becomes of a start, by the policies of the request (api-surface 4.8).
    fn admit(
        &mut self,
        request: &Request,
        start: &ws::StartWorkflowExecutionRequest,
        version: FailoverVersion,
    ) -> Result<Admitted, Stop> {
        self.need_workflow(&request.workflow)?;
        let current = self.workflows.get(&request.workflow).and_then(super::cache::Workflow::current_run);
        let Some(run) = current else { return Ok(Admitted::New { terminate: None }) };
        let key = request.workflow.run(run);
        if !self.need_run(&key)? {
            // Only the record of a deleted run is left (B6). Under an older version the new run would lose to it at once.
            let order = self.workflows.get(&request.workflow).map(super::cache::Workflow::current_order);
            if order.is_some_and(|order| order.version > version) {
                let words =
                    format!("the record of deleted run {key} is ahead of the namespace record at {version}");
                return Err(Stop::Refused(Refusal::Unavailable(words)));
            }
            return Ok(Admitted::New { terminate: None });
        }
        let existing = &self.cached(&key)?.run;
        if existing.newest_version() > version {
            let words = format!("run {key} is ahead of the namespace record at {version}");
            return Err(Stop::Refused(Refusal::Unavailable(words)));
        }
        let started_by = self.start_request(&key)?;
        if !start.request_id.is_empty() && started_by == start.request_id {
            return Ok(Admitted::Same { run });
        }
        let reuse = Reuse::try_from(start.workflow_id_reuse_policy).unwrap_or_default();
        let conflict = Conflict::try_from(start.workflow_id_conflict_policy).unwrap_or_default();
        let existing = &self.cached(&key)?.run;
        if existing.state.is_open() {
            #[allow(deprecated, reason = "clients still send it")]
            let terminates = conflict == Conflict::TerminateExisting || reuse == Reuse::TerminateIfRunning;
            return match conflict {
                _ if terminates => Ok(Admitted::New { terminate: Some(key) }),
                Conflict::UseExisting => Ok(Admitted::Existing { run }),
                _ => Err(already(existing, started_by, "is already running", "")),
            };
        }
        let status = existing.state.status;
        match reuse {
            Reuse::RejectDuplicate => Err(already(
                existing,
                started_by,
                "already finished",
                " Workflow Id reuse policy: reject duplicate workflow Id.",
            )),
            Reuse::AllowDuplicateFailedOnly
                if matches!(status, Status::Completed | Status::ContinuedAsNew) =>
            {
                Err(already(
                    existing,
                    started_by,
                    "already finished successfully",
                    " Workflow Id reuse policy: allow duplicate workflow Id if last run failed.",
                ))
            }
            _ => Ok(Admitted::New { terminate: None }),
        }
    }

    /// Request id that started a run: an identity of its first batch.
    fn start_request(&self, key: &RunKey) -> Result<String, Refusal> {
        Ok(start_request_of(&self.cached(key)?.run))
    }
}

/// Request id that started a run, from the identities of its first batch.
fn start_request_of(run: &Run) -> String {
    let first = run.line.first();
    let start = first.and_then(|batch| {
        batch.envelope.identities.iter().find(|entry| {
            entry.identity.kind == antipode_core::identity::ExternalKind::Start && entry.event.0 == 1
        })
    });
    match start.map(|entry| &entry.identity.key) {
        Some(antipode_core::identity::Key::Client(key)) => key.clone(),
        _ => String::new(),
    }
}

/// What becomes of a start.
enum Admitted {
    /// A new run, after terminating this one.
    New { terminate: Option<RunKey> },
    /// The same request started this run before.
    Same { run: RunId },
    /// This run goes on (USE_EXISTING).
    Existing { run: RunId },
}

fn already(existing: &Run, start_request_id: String, how: &str, policy: &str) -> Stop {
    let (id, run) = (&existing.key.workflow, existing.key.run);
    Stop::Refused(Refusal::AlreadyStarted {
        message: format!("Workflow execution {how}. WorkflowId: {id}, RunId: {run}.{policy}"),
        start_request_id,
        run,
        first_run: existing.first_run,
    })
}

fn text_payload(text: &str) -> Payloads {
    let metadata = [("encoding".to_string(), bytes::Bytes::from_static(b"json/plain"))].into();
    let data = bytes::Bytes::from(format!("{text:?}"));
    let payload = antipode_proto::api::common::v1::Payload { metadata, data, ..Default::default() };
    Payloads { payloads: vec![payload] }
}

fn split(
    both: &ws::SignalWithStartWorkflowExecutionRequest,
) -> (ws::SignalWorkflowExecutionRequest, ws::StartWorkflowExecutionRequest) {
    let signal = ws::SignalWorkflowExecutionRequest {
        namespace: both.namespace.clone(),
        signal_name: both.signal_name.clone(),
        input: both.signal_input.clone(),
        identity: both.identity.clone(),
        request_id: both.request_id.clone(),
        header: both.header.clone(),
        links: both.links.clone(),
        ..Default::default()
    };
    let conflict = match both.workflow_id_conflict_policy {
        0 => Conflict::UseExisting as i32,
        policy => policy,
    };
    let start = ws::StartWorkflowExecutionRequest {
        namespace: both.namespace.clone(),
        workflow_id: both.workflow_id.clone(),
        workflow_type: both.workflow_type.clone(),
        task_queue: both.task_queue.clone(),
        input: both.input.clone(),
        workflow_execution_timeout: both.workflow_execution_timeout,
        workflow_run_timeout: both.workflow_run_timeout,
        workflow_task_timeout: both.workflow_task_timeout,
        identity: both.identity.clone(),
        request_id: both.request_id.clone(),
        workflow_id_reuse_policy: both.workflow_id_reuse_policy,
        workflow_id_conflict_policy: conflict,
        retry_policy: both.retry_policy.clone(),
        memo: both.memo.clone(),
        search_attributes: both.search_attributes.clone(),
        header: both.header.clone(),
        workflow_start_delay: both.workflow_start_delay,
        user_metadata: both.user_metadata.clone(),
        links: both.links.clone(),
        priority: both.priority.clone(),
        ..Default::default()
    };
    (signal, start)
}
