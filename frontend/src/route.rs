//! Where a call is served. What changes a run is served where its namespace is active: here, or one hop away (R900–R906, I15).
//! While a namespace is handed over its calls are held, not failed: they were never accepted, so they carry no identity, and
//! go on when the record changes (F2).

use std::{future::Future, sync::Arc, sync::atomic::Ordering, time::Duration};

use antipode_core::refusal::Refusal;
use antipode_proto::link::{ForwardRequest, ForwardResponse};
use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    call::{Call, FORWARDED},
    context::Context,
    errors, limits,
    metrics::{Forwarded, code_name},
    namespace::{Namespace, Standing},
};

/// How long a call waits before it looks again when shard (or peer) and registry disagree about who is active: the one that
/// lags catches up without any further change of the record. A change ends the wait at once.
const RECHECK_AFTER: Duration = Duration::from_millis(10);
/// How often it looks again before it believes what it is told.
const RECHECKS_MAX: u32 = 200;

/// Why a local attempt did not answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A shard or matching refused; some refusals are routing, not answers.
    Refused(Refusal),
    /// The answer.
    Status(Status),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What a round of routing came to.
enum Round<R> {
    Done(Result<R, Status>),
    /// A hand-over is under way: look again when the record changed.
    Hold,
    /// The shard says so, and our registry doesn't: it lags, or we do. Look again soon.
    HoldBriefly,
    /// The two sides of a race: the one who refused knows more, or less, than our registry.
    Recheck(Status),
}

/// A place among the held calls, given back when dropped.
struct Held<'a> {
    context: &'a Context,
    /// When its caller has waited long enough.
    until: Instant,
}

impl<'a> Held<'a> {
    fn take(context: &'a Context, call: &Call, namespace: &Namespace) -> Result<Self, Status> {
        if context.held.fetch_add(1, Ordering::SeqCst) >= limits::HELD_MAX {
            context.held.fetch_sub(1, Ordering::SeqCst);
            context.metrics.held_refused.inc();
            let why = "it is being handed over and too many calls wait for it";
            return Err(errors::namespace_unavailable(&namespace.name, why));
        }
        context.metrics.held.inc();
        context.metrics.held_total.inc();
        tracing::debug!(method = call.method, namespace = %namespace.name, "held until the hand-over ends");
        let until = call.deadline.unwrap_or_else(|| Instant::now() + limits::HELD_DEFAULT);
        Ok(Self { context, until })
    }

    /// Waits until some record changed, or only briefly, within the caller's patience.
    async fn wait(
        &self,
        namespace: &Namespace,
        changes: &mut watch::Receiver<u64>,
        briefly: bool,
    ) -> Result<(), Status> {
        let end = if briefly { self.until.min(Instant::now() + RECHECK_AFTER) } else { self.until };
        match tokio::time::timeout_at(end, changes.changed()).await {
            Ok(Ok(())) => Ok(()),
            Err(_elapsed) if Instant::now() < self.until => Ok(()),
            Err(_elapsed) => Err(errors::namespace_unavailable(&namespace.name, "it is being handed over")),
            Ok(Err(_closed)) => Err(errors::namespace_unavailable(&namespace.name, "the node is stopping")),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.context.held.fetch_sub(1, Ordering::SeqCst);
        self.context.metrics.held.dec();
    }
}

impl Context {
    /// Serves a call where its namespace is active: `local` here, `message` elsewhere.
    pub(crate) async fn at_active<M, R, F, Fut>(
        &self,
        call: &Call,
        namespace: &Arc<Namespace>,
        message: &M,
        local: F,
    ) -> Result<R, Status>
    where
        M: Message,
        R: Message + Default,
        F: Fn() -> Fut,
        Fut: Future<Output = Result<R, Failure>>,
    {
        let mut changes = self.namespaces.changes();
        let mut held: Option<Held<'_>> = None;
        let mut rechecks = 0;
        loop {
            changes.borrow_and_update();
            let now = self.namespace_by_id(namespace.id)?;
            let round = self.round(call, &now, message, &local).await;
            match round {
                Round::Done(result) => return result,
                Round::Hold | Round::HoldBriefly => {
                    let held = match &held {
                        Some(held) => held,
                        None => held.insert(Held::take(self, call, &now)?),
                    };
                    let briefly = matches!(round, Round::HoldBriefly);
                    held.wait(&now, &mut changes, briefly).await?;
                }
                Round::Recheck(status) if rechecks == RECHECKS_MAX => return Err(status),
                Round::Recheck(_) => {
                    rechecks += 1;
                    // Either the record changes, or the other side catches up with it meanwhile.
                    let _ = tokio::time::timeout(RECHECK_AFTER, changes.changed()).await;
                }
            }
        }
    }

    async fn round<M, R, F, Fut>(
        &self,
        call: &Call,
        namespace: &Namespace,
        message: &M,
        local: &F,
    ) -> Round<R>
    where
        M: Message,
        R: Message + Default,
        F: Fn() -> Fut,
        Fut: Future<Output = Result<R, Failure>>,
    {
        match namespace.standing(&self.region.name) {
            Standing::HandedOver => Round::Hold,
            Standing::Elsewhere(active) if call.forwarded => {
                // One hop: what came from another region is not sent on (R905).
                Round::Done(Err(errors::namespace_not_active(&namespace.name, &self.region.name, &active)))
            }
            Standing::Elsewhere(active) => match self.forward(call, &active, message).await {
                Err(status) if is_not_active(&status) => Round::Recheck(status),
                result => Round::Done(result),
            },
            Standing::Here => match local().await {
                Ok(reply) => Round::Done(Ok(reply)),
                Err(Failure::Status(status)) => Round::Done(Err(status)),
                Err(Failure::Refused(Refusal::Draining(_))) => Round::HoldBriefly,
                Err(Failure::Refused(refusal @ Refusal::NamespaceNotActive { .. })) => {
                    // Records reach a shard in order with its other inputs (D6): it may be a moment behind the
                    // registry, or ahead of what we read from it.
                    Round::Recheck(errors::status_of(&refusal))
                }
                Err(Failure::Refused(refusal)) => Round::Done(Err(errors::status_of(&refusal))),
            },
        }
    }

    async fn forward<M, R>(&self, call: &Call, region: &str, message: &M) -> Result<R, Status>
    where
        M: Message,
        R: Message + Default,
    {
        let mut metadata = call.metadata.clone();
        metadata.insert(FORWARDED.to_string(), "1".to_string());
        let timeout = call.left().map_or(0, |left| i64::try_from(left.as_nanos()).unwrap_or(i64::MAX).max(1));
        let request = ForwardRequest {
            method: call.path.to_string(),
            message: Bytes::from(message.encode_to_vec()),
            metadata,
            timeout_nanos: timeout,
            caller_region: self.region.initial,
        };
        let result = self.peers.forward(region, request).await.and_then(|response| read(response, call));
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        let labels = Forwarded { method: call.method, peer: region.to_string(), code: code_name(code) };
        self.metrics.forwarded.get_or_create(&labels).inc();
        result
    }
}

/// The answer of the other region, as its own frontend gave it.
fn read<R: Message + Default>(response: ForwardResponse, call: &Call) -> Result<R, Status> {
    if response.code != Code::Ok as i32 {
        return Err(Status::with_details(Code::from(response.code), response.error, response.details));
    }
    R::decode(&*response.message).map_err(|error| {
        tracing::error!(method = call.method, %error, "a forwarded answer does not decode");
        errors::unexpected(call.method)
    })
}

/// Whether an answer says that the namespace is active somewhere else.
fn is_not_active(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && status.details().windows(NOT_ACTIVE_TYPE.len()).any(|part| part == NOT_ACTIVE_TYPE)
}

const NOT_ACTIVE_TYPE: &[u8] = b"temporal.api.errordetails.v1.NamespaceNotActiveFailure";

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
