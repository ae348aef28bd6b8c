//! The receiving end of a link: dials a peer, names the positions it has proved, and takes its entries in. This file is the
//! life of the connection; what happens to the entries is in `intake`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antipode_core::ids::{Incarnation, RegionId, Sequence, ShardId};
use antipode_persistence::rows::PositionRow;
use antipode_proto::link::{
    Position, ReplicateRequest, ReplicateResponse, replicate_request, replicate_response,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::{
    error::Error,
    handshake,
    intake::Intake,
    metrics::Metrics,
    shared::{Peer, Shared},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a peer may take to open the stream.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// Positions are stored at most this often: a resend costs less than a commit (E3).
const POSITION_DELAY: Duration = Duration::from_millis(200);

/// What is proved of a source, as it is to be stored.
pub(crate) type Positions = BTreeMap<ShardId, Sequence>;

/// Keeps a stream from this peer open until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, cancel: CancellationToken) {
    let mut backoff = BACKOFF_FIRST;
    let mut gate = shared.gate.changes();
    loop {
        gate.borrow_and_update();
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            ended = session(&shared, &peer, &mut backoff) => Some(ended),
        };
        store_last_positions(&shared, &peer).await;
        let Some(ended) = ended else { return };
        let why =
            ended.err().map_or_else(|| "the peer ended the stream".to_string(), |error| error.to_string());
        tracing::debug!(peer = &*peer.name, why, "no stream of entries from a peer");
        peer.state.change(|known| {
            known.receiving = false;
            known.last_error = why;
        });
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(jittered(&shared, backoff)) => backoff = (backoff * 2).min(BACKOFF_MAX),
            // A heal is worth a try at once.
            _ = gate.changed() => {}
        }
    }
}

/// Between half and all of the time, so that regions don't dial in step.
fn jittered(shared: &Shared, time: Duration) -> Duration {
    let half = time / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(shared.entropy.u64() % nanos)
}

async fn session(shared: &Arc<Shared>, peer: &Arc<Peer>, backoff: &mut Duration) -> Result<(), Error> {
    shared.refuse_cut(&peer.name, shared.gate.outward(&peer.name))?;
    shared.refuse_cut(&peer.name, shared.gate.inward(&peer.name))?;
    Metrics::peer(&shared.metrics.reconnects, &peer.name, 1);
    let (acks, requests) = mpsc::unbounded_channel();
    // Nobody can have dropped the other end yet.
    let _ = acks.send(open(shared, peer));
    let mut link = shared.link(peer.channel.clone());
    let dialled = tokio::time::timeout(OPEN_PATIENCE, async {
        let mut inbound = link
            .replicate(UnboundedReceiverStream::new(requests))
            .await
            .map_err(|status| Error::of_call(&peer.name, status))?
            .into_inner();
        let opened = inbound.message().await.map_err(|status| Error::of_call(&peer.name, status))?;
        Ok::<_, Error>((inbound, opened))
    });
    let (inbound, opened) = dialled.await.map_err(|_| Error::Unreachable {
        region: peer.name.to_string(),
        why: "it does not open the stream of entries".to_string(),
    })??;
    shared.refuse_cut(&peer.name, shared.gate.inward(&peer.name))?;
    accept(shared, peer, opened)?;
    *backoff = BACKOFF_FIRST;
    take_in(shared, peer, inbound, acks).await
}

fn open(shared: &Shared, peer: &Peer) -> ReplicateRequest {
    let known = peer.state.known();
    let positions = known.proof_of_peer.iter();
    let open = replicate_request::Open {
        receiver: Some(shared.info()),
        source_incarnation: known.incarnation.unwrap_or_default().0,
        positions: positions.map(|(shard, at)| Position { shard: shard.0, sequence: at.0 }).collect(),
        down: Vec::new(),
    };
    ReplicateRequest { message: Some(replicate_request::Message::Open(open)) }
}

/// Checks who answered (I31). Another life of its store starts from nothing: positions were those of the last one (E2).
fn accept(shared: &Shared, peer: &Peer, opened: Option<ReplicateResponse>) -> Result<(), Error> {
    let Some(replicate_response::Message::Opened(opened)) = opened.and_then(|response| response.message)
    else {
        return Err(Error::protocol(&peer.name, "it did not open the stream with its info"));
    };
    let info = opened.source.ok_or(handshake::Mismatch::Anonymous)?;
    if info.name != *peer.name {
        return Err(handshake::Mismatch::Stranger {
            expected: peer.name.to_string(),
            address: peer.address.clone(),
            found: info.name,
        }
        .into());
    }
    handshake::check(shared.here(), &shared.namespaces.regions(), &info)?;
    let skew = handshake::skew_nanos(&info, shared.now());
    tracing::info!(peer = &*peer.name, skew_ms = skew / 1_000_000, "receiving entries from a peer");
    peer.state.change(|known| {
        let incarnation = Incarnation(info.incarnation);
        if known.incarnation != Some(incarnation) {
            known.proof_of_peer.clear();
            known.incarnation = Some(incarnation);
        }
        known.info = Some(info);
        known.receiving = true;
        known.last_error.clear();
    });
    Ok(())
}

async fn take_in(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    inbound: Streaming<ReplicateResponse>,
    acks: mpsc::UnboundedSender<ReplicateRequest>,
) -> Result<(), Error> {
    let (incarnation, positions) = {
        let known = peer.state.known();
        (known.incarnation.unwrap_or_default(), known.proof_of_peer.clone())
    };
    let (proved, to_store) = watch::channel(positions.clone());
    let intake = Intake::new(Arc::clone(shared), Arc::clone(peer), positions, acks, proved);
    tokio::select! {
        ended = intake.run(inbound) => ended,
        never = store_positions(shared, peer.id, incarnation, to_store) => match never {},
    }
}

/// What a stream had proved when it ended, so that an orderly stop is followed by no resend.
async fn store_last_positions(shared: &Shared, peer: &Peer) {
    let rows: Vec<PositionRow> = {
        let known = peer.state.known();
        let Some(incarnation) = known.incarnation else { return };
        let row = |(shard, sequence): (&ShardId, &Sequence)| PositionRow {
            source: peer.id.0,
            incarnation,
            shard: *shard,
            sequence: *sequence,
        };
        known.proof_of_peer.iter().map(row).collect()
    };
    if let Err(error) = shared.store.position_put(rows).await {
        tracing::warn!(peer = &*peer.name, %error, "positions could not be stored");
    }
}

enum Never {}

/// Stores positions behind the data they stand for, in the same database (E2).
async fn store_positions(
    shared: &Shared,
    source: RegionId,
    incarnation: Incarnation,
    mut proved: watch::Receiver<Positions>,
) -> Never {
    let mut stored = proved.borrow_and_update().clone();
    loop {
        if proved.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(POSITION_DELAY).await;
        let now = proved.borrow_and_update().clone();
        let moved = now.iter().filter(|(shard, at)| stored.get(shard) != Some(at));
        let rows = moved.map(|(shard, at)| PositionRow {
            source: source.0,
            incarnation,
            shard: *shard,
            sequence: *at,
        });
        match shared.store.position_put(rows.collect()).await {
            Ok(()) => stored = now,
            // What is not stored is sent again after a restart; the next round tries once more.
            Err(error) => tracing::warn!(%error, "positions could not be stored"),
        }
    }
}
