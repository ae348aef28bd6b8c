//! Holes are filled from whoever has the events (R830–R834): first the region that sent the entry, then every other. A
//! large run comes in pieces, because the receiver asks again for what it then still lacks.

use std::{sync::Arc, time::Duration};

use antipode_core::{batch::Batch, chain::ChainValue, ids::RunKey, version_history::VersionHistory};
use antipode_history::api::{Operation, Reply, Request};
use antipode_proto::link::{FetchRunRequest, FetchRunResponse};
use tonic::Status;

use crate::{
    error::Error,
    metrics::Metrics,
    shared::{Peer, Shared},
};

/// How long a region may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of batches in one answer; at least one batch goes.
const ANSWER_BYTES: usize = 8 << 20;

/// What is missing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) key: RunKey,
    /// A branch known here; empty: nothing is.
    pub(crate) known: VersionHistory,
    /// The branch wanted; none: the source's current one.
    pub(crate) until: Option<ChainValue>,
}

/// Asks the source, then everybody else. None: all who answered do not have it.
pub(crate) async fn fetch(
    shared: &Shared,
    source: &Arc<Peer>,
    hole: &Hole,
) -> Result<Option<FetchRunResponse>, Error> {
    let others = shared.enabled_peers().into_iter().filter(|peer| peer.name != source.name);
    let mut failed = None;
    for peer in std::iter::once(Arc::clone(source)).chain(others) {
        Metrics::peer(&shared.metrics.fetches, &peer.name, 1);
        let request = FetchRunRequest {
            namespace_id: hole.key.namespace.to_string(),
            workflow_id: hole.key.workflow.to_string(),
            run_id: hole.key.run.to_string(),
            known: hole.known.to_wire(),
            until_chain: hole.until.map(ChainValue::to_bytes).unwrap_or_default(),
        };
        match shared.call(&peer, PATIENCE, |mut link| async move { link.fetch_run(request).await }).await {
            Ok(response) if response.found => return Ok(Some(response)),
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    // Somebody who did not answer may have it.
    failed.map_or(Ok(None), Err)
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
