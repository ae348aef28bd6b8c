//! What workers bring back: completed and failed workflow tasks, ends and heartbeats of activities. Each is checked against the
//! run as it is now (A4, A5); what does not fit is refused and counted by reason.

use antipode_conflict::stale;
use antipode_core::{
    decide::{Outcome, activity, commands, workflow_task},
    ids::{FailoverVersion, RunKey},
    refusal::Refusal,
};
use antipode_proto::api::{common::v1::Payloads, failure::v1::Failure, workflowservice::v1 as ws};

use super::{Event, Output, Shard, Stop, Token};
use crate::api::{ActivityRef, Operation, Reply, Request, TaskToken};

impl<T: Token> Shard<T> {
    pub(super) fn complete(
        &mut self,
        request: &Request,
        token: &TaskToken,
        completed: &ws::RespondWorkflowTaskCompletedRequest,
    ) -> Result<Reply, Stop> {
        let (key, version) = self.writable_run(request, true)?;
        let (context, seats, next) = (self.context(version), self.seats_two(), self.make_id());
        let presented = presented(token);
        let run = &mut self.cached_mut(&key)?.run;
        let mut outcome = commands::complete(run, &presented, completed, context, seats, next)?;
        let refused = outcome.refused.take();
        self.wrote(&key, outcome, true)?;
        match refused {
            Some(refusal) => Err(Stop::Refused(refusal)),
            None => Ok(Reply::WorkflowTaskCompleted(Box::default())),
        }
    }

    pub(super) fn fail(
        &mut self,
        request: &Request,
        token: &TaskToken,
        failed: &ws::RespondWorkflowTaskFailedRequest,
    ) -> Result<Reply, Stop> {
        let (key, version) = self.writable_run(request, true)?;
        let (context, seat) = (self.context(version), self.seat_one());
        let cause = antipode_proto::api::enums::v1::WorkflowTaskFailedCause::try_from(failed.cause)
            .unwrap_or_default();
        let how = workflow_task::Failed {
            cause,
            failure: failed.failure.clone(),
            identity: failed.identity.clone(),
        };
        let run = &mut self.cached_mut(&key)?.run;
        let outcome = workflow_task::respond_failed(run, &presented(token), how, context, seat)?;
        self.wrote(&key, outcome, true)?;
        Ok(Reply::Done)
    }

    /// The open activity that a worker names, checked (A5).
    fn named_activity(
        &mut self,
        request: &Request,
        named: &ActivityRef,
    ) -> Result<(RunKey, FailoverVersion, antipode_core::ids::EventId), Stop> {
        let by_token = matches!(named, ActivityRef::Token(_));
        let (key, version) = self.writable_run(request, by_token)?;
        let run = &self.cached(&key)?.run;
        let scheduled = match named {
            ActivityRef::Token(token) => activity::check(run, &presented(token))?.activity.scheduled,
            ActivityRef::ById(id) => activity::by_id(run, id)?.activity.scheduled,
        };
        Ok((key, version, scheduled))
    }

    pub(super) fn end_activity(
        &mut self,
        request: &Request,
        named: &ActivityRef,
        end: activity::End,
        identity: &str,
    ) -> Result<Reply, Stop> {
        let (key, version, scheduled) = self.named_activity(request, named)?;
        let (context, seat) = (self.context(version), self.seat_one());
        let run = &mut self.cached_mut(&key)?.run;
        let outcome = activity::end(run, scheduled, end, identity, context, seat)?;
        if run.activity(scheduled).is_some_and(|view| !view.decided) {
            self.outputs.push(Output::Count(Event::ActivityRetried));
        }
        self.wrote(&key, outcome, true)?;
        Ok(Reply::Done)
    }

    pub(super) fn fail_activity(
        &mut self,
        request: &Request,
        named: &ActivityRef,
        failed: &ws::RespondActivityTaskFailedRequest,
    ) -> Result<Reply, Stop> {
        if let Some(details) = &failed.last_heartbeat_details {
            let (key, version, scheduled) = self.named_activity(request, named)?;
            let context = self.context(version);
            activity::heartbeat(&mut self.cached_mut(&key)?.run, scheduled, Some(details), context);
        }
        let failure = failed.failure.clone().unwrap_or_else(|| Failure {
            message: "activity failed without a failure".to_string(),
            ..Failure::default()
        });
        self.end_activity(request, named, activity::End::Failed(failure), &failed.identity)
    }

    pub(super) fn cancel_activity(
        &mut self,
        request: &Request,
        named: &ActivityRef,
        canceled: &ws::RespondActivityTaskCanceledRequest,
    ) -> Result<Reply, Stop> {
        let (key, _, scheduled) = self.named_activity(request, named)?;
        let asked =
            self.cached(&key)?.run.activity(scheduled).is_some_and(|v| v.activity.cancel_requested.is_some());
        if !asked {
            let words = "activity cancellation was not requested".to_string();
            return Err(Stop::Refused(Refusal::InvalidArgument(words)));
        }
        let end = activity::End::Canceled(canceled.details.clone());
        self.end_activity(request, named, end, &canceled.identity)
    }

    pub(super) fn heartbeat(
        &mut self,
        request: &Request,
        named: &ActivityRef,
        beat: &ws::RecordActivityTaskHeartbeatRequest,
    ) -> Result<Reply, Stop> {
        let (key, version, scheduled) = self.named_activity(request, named)?;
        let context = self.context(version);
        let details: Option<&Payloads> = beat.details.as_ref();
        let cancel_requested =
            activity::heartbeat(&mut self.cached_mut(&key)?.run, scheduled, details, context);
        self.wrote(&key, Outcome::default(), true)?;
        Ok(Reply::Heartbeat(Box::new(ws::RecordActivityTaskHeartbeatResponse {
            cancel_requested,
            ..Default::default()
        })))
    }
}

impl<T: Token> Shard<T> {
    /// What a task that is refused names, and what its run says now; none when the run is not here, or it fits.
    pub(super) fn why_stale(&self, request: &Request) -> Option<(RunKey, stale::Discard)> {
        let of_token = |kind, token: &TaskToken| {
            let run = &self.cached(&token.key).ok()?.run;
            Some((token.key.clone(), stale::presented(run, kind, &presented(token))?))
        };
        let dispatched = |kind, task| {
            let key = request.workflow.run(request.run?);
            let discard = stale::dispatched(&self.cached(&key).ok()?.run, kind, task)?;
            Some((key, discard))
        };
        match &request.operation {
            Operation::WorkflowTaskStart { task, .. } => dispatched(stale::Kind::Workflow, task),
            Operation::ActivityTaskStart { task, .. } => dispatched(stale::Kind::Activity, task),
            Operation::WorkflowTaskCompleted(token, _) | Operation::WorkflowTaskFailed(token, _) => {
                of_token(stale::Kind::Workflow, token)
            }
            Operation::ActivityCompleted(ActivityRef::Token(token), _)
            | Operation::ActivityFailed(ActivityRef::Token(token), _)
            | Operation::ActivityCanceled(ActivityRef::Token(token), _)
            | Operation::ActivityHeartbeat(ActivityRef::Token(token), _) => {
                of_token(stale::Kind::Activity, token)
            }
            _ => None,
        }
    }
}

/// The token's part that is checked against the run.
fn presented(token: &TaskToken) -> antipode_core::task::Presented {
    antipode_core::task::Presented {
        task: token.task.clone(),
        started: token.started,
        start_version: token.start_version,
        tip: token.tip,
        anchor: token.anchor,
    }
}
