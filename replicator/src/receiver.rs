//! The receiving end of a link: dials a peer, names the positions it has proved, and takes its entries in. This file is the
//! life of the connection; what happens to the entries is in `intake` and `inbox`.

use std::{sync::Arc, time::Duration};

use antipode_core::ids::{Incarnation, Sequence, ShardId, Timestamp};
use antipode_persistence::rows::PositionRow;
use antipode_proto::link::{
    RegionInfo, ReplicateRequest, ReplicateResponse, replicate_request, replicate_response,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    clocks::Verdict,
    error::Error,
    handshake,
    inbox::{Inbox, Setup},
    intake::Intake,
    metrics::Metrics,
    shared::{Peer, Shared},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a peer may take to open the stream.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// After so long without a stream from a region the others are asked to relay for it (C7).
const RELAY_AFTER: Duration = Duration::from_secs(1);

/// Keeps a stream from this peer open until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, cancel: CancellationToken) {
    let mut backoff = BACKOFF_FIRST;
    let mut gate = shared.gate.changes();
    let mut alone_since = Instant::now();
    loop {
        gate.borrow_and_update();
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            ended = session(&shared, &peer, &mut backoff) => Some(ended),
            never = missed(&shared, &peer, alone_since) => match never {},
        };
        if peer.state.known().receiving {
            alone_since = Instant::now();
        }
        store_last_positions(&shared, &peer).await;
        let Some(ended) = ended else { return shared.origin_is_up(&peer.name) };
        let why =
            ended.err().map_or_else(|| "the peer ended the stream".to_string(), |error| error.to_string());
        tracing::debug!(peer = &*peer.name, why, "no stream of entries from a peer");
        peer.state.change(|known| {
            known.receiving = false;
            known.last_error = why;
        });
        tokio::select! {
            () = cancel.cancelled() => return shared.origin_is_up(&peer.name),
            never = missed(&shared, &peer, alone_since) => match never {},
            () = tokio::time::sleep(jittered(&shared, backoff)) => backoff = (backoff * 2).min(BACKOFF_MAX),
            // A heal is worth a try at once.
            _ = gate.changed() => {}
        }
    }
}

enum Never {}

/// Asks the others to relay for a peer from which nothing has come for a while (C7).
async fn missed(shared: &Shared, peer: &Peer, since: Instant) -> Never {
    tokio::time::sleep_until(since + RELAY_AFTER).await;
    if !peer.state.known().receiving {
        shared.origin_is_down(&peer.name);
    }
    std::future::pending().await
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
    let inbox = inbox(shared, peer);
    let open = ReplicateRequest { message: Some(replicate_request::Message::Open(inbox.open())) };
    // Nobody can have dropped the other end yet.
    let _ = acks.send(open);
    let mut link = shared.link(peer.channel.clone());
    let asked = shared.now();
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
    let info = accept(shared, peer, opened, asked)?;
    shared.tell_clock(peer).await;
    *backoff = BACKOFF_FIRST;
    shared.origin_is_up(&peer.name);
    Intake::new(Arc::clone(shared), Arc::clone(peer), inbox, acks).run(&info, inbound).await
}

fn inbox(shared: &Shared, peer: &Peer) -> Inbox {
    let known = peer.state.known();
    Inbox::new(Setup {
        info: shared.info(),
        source: Arc::clone(&peer.name),
        source_id: peer.id,
        incarnation: known.incarnation,
        positions: known.proof_of_peer.clone(),
        exceptions: known.exceptions_here.clone(),
        others: shared.others(&peer.name),
        down: shared.down_origins(&peer.name),
    })
}

/// Checks who answered (I31). Another life of its store starts from nothing: positions were those of the last one (E2).
fn accept(
    shared: &Shared,
    peer: &Peer,
    opened: Option<ReplicateResponse>,
    asked: Timestamp,
) -> Result<RegionInfo, Error> {
    let Some(replicate_response::Message::Opened(opened)) = opened.and_then(|response| response.message)
    else {
        return Err(Error::protocol(&peer.name, "it did not open the stream with its info"));
    };
    let ends = opened.ends.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
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
    let skew = shared.measured(peer, &info, asked, shared.now());
    let skew_ms = skew.ahead.0 / 1_000_000;
    tracing::info!(peer = &*peer.name, skew_ms, "receiving entries from a peer");
    if skew.verdict() != Verdict::Agree {
        tracing::warn!("{}", skew.between(shared.here(), &peer.name));
    }
    peer.state.change(|known| {
        let incarnation = Incarnation(info.incarnation);
        if known.incarnation != Some(incarnation) {
            known.proof_of_peer.clear();
            known.incarnation = Some(incarnation);
            known.ended = None;
        }
        known.ended.get_or_insert(ends);
        // Relays are told from the beginning on each stream.
        known.relayed.clear();
        known.info = Some(info.clone());
        known.receiving = true;
        known.last_error.clear();
    });
    Ok(info)
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
