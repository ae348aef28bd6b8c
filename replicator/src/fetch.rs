//! What one region asks another beside the streams: batches that are missing, from whoever has them (R830–R834), and
//! namespace records. A large run comes in pieces, because the receiver asks again for what it then still lacks.

use std::{sync::Arc, time::Duration};

use antipode_core::{batch::Batch, chain::ChainValue, version_history::VersionHistory};
use antipode_history::{
    api::{Operation, Reply, Request},
    namespaces::Merge,
};
use antipode_proto::{
    core as wire,
    link::{FetchRunRequest, FetchRunResponse, NamespaceViewRequest},
};
use tonic::Status;

use crate::{
    error::Error,
    metrics::Metrics,
    shared::{Link, Shared},
};

/// How long a region may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const VIEW_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of batches in one answer; at least one batch goes.
const ANSWER_BYTES: usize = 8 << 20;

/// Asks a region for a run, or says why it did not answer.
pub(crate) async fn fetch(
    shared: &Shared,
    region: &str,
    request: FetchRunRequest,
) -> Result<FetchRunResponse, String> {
    let peer = shared.peer(region).map_err(|error| error.to_string())?;
    Metrics::peer(&shared.metrics.fetches, region, 1);
    let asked = |mut link: Link| async move { link.fetch_run(request).await };
    shared.call(&peer, PATIENCE, asked).await.map_err(|error| {
        tracing::debug!(region, %error, "a hole waits for its events");
        error.to_string()
    })
}

/// Asks a region for its record of a namespace and merges it; whether it answered.
pub(crate) async fn ask_record(shared: &Shared, region: &str, request: NamespaceViewRequest) -> bool {
    let Ok(peer) = shared.peer(region) else { return false };
    let asked = |mut link: Link| async move { link.namespace_view(request).await };
    match shared.call(&peer, VIEW_PATIENCE, asked).await {
        Ok(view) => {
            if let Some(record) = view.record {
                merge_record(shared, region, &record).await;
            }
            true
        }
        Err(error) => {
            tracing::debug!(region, %error, "a namespace record could not be asked for");
            false
        }
    }
}

/// Merges a received record; what is wrong with it is counted and logged.
pub(crate) async fn merge_record(shared: &Shared, peer: &str, record: &wire::NamespaceRecord) {
    let outcome = match shared.namespaces.merge(record).await {
        Ok(Merge::Changed) => "changed",
        Ok(Merge::Known) => "known",
        Ok(Merge::NotOurs) => "not_ours",
        Err(error) => {
            tracing::error!(peer, namespace = record.id, %error, "a namespace record could not be merged");
            "failed"
        }
    };
    Metrics::outcome(&shared.metrics.namespaces_received, peer, outcome);
}

/// Answers a peer: batches of one branch of one run, and the run's state when that is all.
pub(crate) async fn answer(shared: &Shared, request: FetchRunRequest) -> Result<FetchRunResponse, Status> {
    let invalid = |field: &str| Status::invalid_argument(format!("FetchRunRequest.{field} is malformed"));
    let key = crate::entry::key_of(&request.namespace_id, &request.workflow_id, &request.run_id)
        .ok_or_else(|| invalid("run_id"))?;
    let known = VersionHistory::from_wire(&request.known).map_err(|_| invalid("known"))?;
    let until = ChainValue::from_bytes(&request.until_chain).ok_or_else(|| invalid("until_chain"))?;
    if shared.gate.holds(key.run) {
        return Err(Status::unavailable(format!("run {} is held back", key.run)));
    }
    let until = (until != ChainValue::NONE).then_some(until);
    let fetch = Request {
        workflow: key.workflow_key(),
        run: Some(key.run),
        operation: Operation::Fetch { known, until },
    };
    match shared.history.call(fetch).await {
        Ok(Reply::Fetched { batches, state }) => {
            let count = fitting(&batches, ANSWER_BYTES);
            let complete = count == batches.len();
            Ok(FetchRunResponse {
                found: true,
                batches: batches.iter().take(count).map(|batch| batch.to_wire()).collect(),
                state: complete.then_some(*state),
            })
        }
        Ok(_) => Err(Status::internal("the shard answered a fetch with something else")),
        Err(antipode_core::refusal::Refusal::NotFound(_)) => Ok(FetchRunResponse::default()),
        Err(refusal) => Err(Error::from(refusal).into()),
    }
}

/// How many of the batches fit into one answer: whole ones, at least one.
fn fitting(batches: &[Arc<Batch>], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = batches.iter().take_while(|batch| {
        bytes += batch.size();
        bytes <= bytes_max
    });
    fits.count().max(1).min(batches.len())
}
