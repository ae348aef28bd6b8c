//! Drives the sending end of a stream ([`Outbox`]): a peer has dialled; its acks, our commits, log pages, records, cuts and
//! time go in, messages and reads come out. What is sent and when is decided there.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use antipode_core::ids::{Nanos, RegionId, Sequence, ShardId, Timestamp};
use antipode_history::shard::Proof;
use antipode_persistence::rows::LogPage;
use antipode_proto::link::{
    ReplicateRequest, ReplicateResponse, replicate_request, replicate_request::Open, replicate_response,
};
use futures::{
    StreamExt,
    stream::{FuturesUnordered, SelectAll},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    error::Error,
    holding::{self, Heard},
    inbox::Feed,
    metrics::{self, Metrics},
    outbox::{Broken, Cx, Outbox, Output, Setup},
    pace::Pace,
    shared::{Peer, Shared},
};

type Out = mpsc::UnboundedSender<Result<ReplicateResponse, Status>>;
type Asking = Pin<Box<dyn Future<Output = Option<Heard>> + Send>>;
type Read = Pin<Box<dyn Future<Output = (Feed, Result<LogPage, antipode_persistence::Error>)> + Send>>;

/// Our shards are told of the peer's proofs at most this often: closed runs wait for days (C6).
const TELL_DELAY: Nanos = Nanos::seconds(1);
/// The peer is asked this often what it has of third regions; a closed run that waits is looked at again no sooner.
const ASK_EVERY: Nanos = Nanos::seconds(30);

/// One open stream to one peer.
struct Source {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    out: Out,
    outbox: Outbox,
    pace: Pace,
    linked: BTreeSet<RegionId>,
    reads: FuturesUnordered<Read>,
    /// What the shards were told last, and when they are told again.
    told: BTreeMap<ShardId, Proof>,
    tell_at: Option<Timestamp>,
    /// What the peer said of third regions, the question that is under way, and when it is asked again.
    heard: Heard,
    asking: FuturesUnordered<Asking>,
    ask_at: Option<Timestamp>,
    /// An ack met a cut: after the heal the peer must name its positions again.
    ack_lost: bool,
    ended: CancellationToken,
}

/// Serves a stream until it ends; whatever ends it is its last message.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    open: Open,
    inbound: Streaming<ReplicateRequest>,
    out: Out,
) {
    let stored = match shared.store.shard_positions().await {
        Ok(stored) => stored,
        Err(error) => {
            // The peer may be gone; then nobody needs the words.
            let _ = out.send(Err(Error::from(error).into()));
            return;
        }
    };
    let setup = Setup {
        info: shared.info(),
        peer: Arc::clone(&peer.name),
        peer_id: peer.id,
        ends: stored.into_iter().collect(),
    };
    let mut source = Source::new(shared, peer, setup, &open, out);
    let error = source.run(inbound).await.err();
    source.ended.cancel();
    let words = error.as_ref().map(ToString::to_string).unwrap_or_default();
    tracing::debug!(peer = &*source.peer.name, why = words, "stream of entries to a peer ended");
    source.peer.state.change(|known| known.senders = known.senders.saturating_sub(1));
    if source.peer.state.known().senders == 0 {
        // For whom it needs us is not told any more (C6, C7).
        source.tell(true).await;
    }
    if let Some(error) = error {
        // The peer may be gone; then nobody needs the words.
        let _ = source.out.send(Err(error.into()));
    }
}

/// Regions that are linked to this one.
fn linked(shared: &Shared) -> BTreeSet<RegionId> {
    shared.enabled_peers().iter().map(|peer| peer.id).collect()
}

/// What an outbox looks at.
fn look<T>(
    shared: &Shared,
    peer: &Peer,
    pace: Pace,
    linked: &BTreeSet<RegionId>,
    act: impl FnOnce(&mut Cx<'_>) -> T,
) -> T {
    let held = shared.gate.held();
    let received = shared.received_states();
    let mut known = peer.state.known();
    let had_withheld = !known.withheld.is_empty();
    let result = act(&mut Cx {
        now: pace.now(),
        records: &*shared.namespaces,
        linked,
        received: &received,
        held: &held,
        withheld: &mut known.withheld,
    });
    let has_withheld = had_withheld || !known.withheld.is_empty();
    drop(known);
    if has_withheld {
        peer.state.touch();
    }
    result
}

impl Source {
    /// What the receiver names in its first message is proved: it owns its positions.
    fn new(shared: Arc<Shared>, peer: Arc<Peer>, setup: Setup, open: &Open, out: Out) -> Self {
        let pace = Pace::new(shared.now());
        let linked = linked(&shared);
        let outbox = look(&shared, &peer, pace, &linked, |cx| Outbox::new(setup, open, cx));
        let ended = shared.stop.child_token();
        peer.state.replace_stream(ended.clone());
        peer.state.change(|known| {
            known.senders += 1;
            known.proof_by_peer.clone_from(outbox.proof());
            if open.receiver.is_some() {
                known.info.clone_from(&open.receiver);
            }
        });
        Self {
            shared,
            peer,
            out,
            outbox,
            pace,
            linked,
            reads: FuturesUnordered::new(),
            told: BTreeMap::new(),
            tell_at: None,
            heard: Heard::default(),
            asking: FuturesUnordered::new(),
            ask_at: None,
            ack_lost: false,
            ended,
        }
    }

    async fn run(&mut self, mut inbound: Streaming<ReplicateRequest>) -> Result<(), Error> {
        let mut tips = self.tips();
        let mut records = self.shared.namespaces.changes();
        let mut gate = self.shared.gate.changes();
        let mut peers = self.shared.peers_changed.subscribe();
        let mut wanted = self.peer.state.wanted();
        wanted.mark_changed();
        let ended = self.ended.clone();
        self.carry_out()?;
        self.tell(false).await;
        self.ask();
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => return Err(Error::Stopping),
                () = self.pace.until(self.outbox.next_wake()) => self.with(Outbox::wake),
                () = self.pace.until(self.tell_at) => self.tell(false).await,
                () = self.pace.until(self.ask_at) => self.ask(),
                Some(heard) = self.asking.next(), if !self.asking.is_empty() => {
                    if let Some(heard) = heard {
                        self.heard = heard;
                        self.tell(false).await;
                    }
                }
                message = inbound.message() => {
                    let message = message.map_err(|status| Error::of_call(&self.peer.name, status))?;
                    match message.and_then(|request| request.message) {
                        Some(message) => self.take(message)?,
                        None => return Ok(()),
                    }
                }
                changed = gate.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.look_at_gate()?;
                }
                changed = peers.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    // A peer that is disabled or removed gets no more (R122).
                    self.shared.peer(&self.peer.name)?;
                    self.linked = linked(&self.shared);
                }
                Some((feed, page)) = self.reads.next(), if !self.reads.is_empty() => {
                    let page = page?;
                    self.with(|outbox, cx| outbox.page(cx, feed, &page)).map_err(|broken| self.broken(broken))?;
                }
                changed = records.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.with(Outbox::records_changed);
                }
                changed = wanted.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    let positions = wanted.borrow_and_update().clone();
                    self.with(|outbox, cx| outbox.want(cx, &positions));
                }
                tip = tips.next() => {
                    let (shard, tip) = tip.ok_or(Error::Stopping)?;
                    self.measure_lag(shard, tip);
                    self.with(|outbox, cx| outbox.tip(cx, shard, tip));
                }
            }
            self.carry_out()?;
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Outbox, &mut Cx<'_>) -> T) -> T {
        let Self { shared, peer, outbox, pace, linked, .. } = self;
        look(shared, peer, *pace, linked, |cx| act(outbox, cx))
    }

    /// Commits of all our shards.
    fn tips(&self) -> SelectAll<impl futures::Stream<Item = (ShardId, Sequence)> + Unpin + use<>> {
        let shards = (1..=self.shared.history.shard_count()).map(ShardId);
        let watched = shards.filter_map(|shard| {
            let committed = self.shared.history.committed(shard)?;
            Some(WatchStream::new(committed).map(move |tip| (shard, tip)))
        });
        futures::stream::select_all(watched)
    }

    fn broken(&self, broken: Broken) -> Error {
        match broken {
            Broken::Short { .. } => antipode_persistence::Error::Damaged(broken.to_string()).into(),
            Broken::OpenedTwice => Error::protocol(&self.peer.name, broken.to_string()),
        }
    }

    fn take(&mut self, message: replicate_request::Message) -> Result<(), Error> {
        let replicate_request::Message::Ack(ack) = message else {
            return Err(self.broken(Broken::OpenedTwice));
        };
        if self.shared.gate.inward(&self.peer.name).is_err() {
            // Acks are cumulative; but if this was the last one, only a new stream brings its words again.
            Metrics::peer(&self.shared.metrics.acks_lost_to_cuts, &self.peer.name, 1);
            self.ack_lost = true;
            return Ok(());
        }
        self.with(|outbox, cx| outbox.ack(cx, ack));
        self.tell_at.get_or_insert(self.pace.now().plus(TELL_DELAY));
        Ok(())
    }

    /// Ends the stream when its direction is cut, and when acks were lost to a cut that is healed now; lets runs go that are
    /// no longer held.
    fn look_at_gate(&mut self) -> Result<(), Error> {
        let peer = Arc::clone(&self.peer.name);
        self.shared.refuse_cut(&peer, self.shared.gate.outward(&peer))?;
        if self.shared.gate.lets_in(&peer) && self.ack_lost {
            return Err(Error::Unreachable {
                region: peer.to_string(),
                why: "acks were lost to a cut; the stream starts again".to_string(),
            });
        }
        self.with(Outbox::held_changed);
        self.tell_at.get_or_insert(self.pace.now().plus(TELL_DELAY));
        Ok(())
    }

    /// Asks the peer what it has of third regions, when there are any.
    fn ask(&mut self) {
        self.ask_at = Some(self.pace.now().plus(ASK_EVERY));
        if self.asking.is_empty() && self.linked.iter().any(|region| *region != self.peer.id) {
            let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(&self.peer));
            self.asking.push(Box::pin(async move { holding::ask(&shared, &peer).await }));
        }
    }

    /// Tells our shards what the peer has of their logs; all of it as of one moment, because an exception that comes with a
    /// proof must not come after it (E1).
    async fn tell(&mut self, silent: bool) {
        self.tell_at = None;
        let shards = self.shared.history.shard_count();
        let others = holding::others(&self.shared, self.peer.id);
        let (state, down) = (&self.peer.state, self.outbox.down());
        let proofs = holding::proofs(&state.known(), down, &self.heard, &others, silent, shards);
        for (shard, proof) in proofs {
            if self.told.get(&shard) != Some(&proof) {
                self.shared.history.proof(shard, &self.peer.name, proof.clone()).await;
                self.told.insert(shard, proof);
            }
        }
    }

    fn carry_out(&mut self) -> Result<(), Error> {
        for output in self.outbox.take_outputs() {
            match output {
                Output::Send(message) => self.send(message)?,
                Output::Read { feed, after, bytes } => {
                    let store = Arc::clone(&self.shared.store);
                    let read = async move { (feed, store.log_read(feed.shard, after, bytes).await) };
                    self.reads.push(Box::pin(read));
                }
                Output::Proved(proved) => self.proved(&proved),
                Output::Exceptions(runs) => self.peer.state.change(|known| known.exceptions_there = runs),
                Output::Damaged(row) => {
                    tracing::error!(peer = &*self.peer.name, %row, "a stored row cannot be sent");
                    Metrics::peer(&self.shared.metrics.rows_damaged, &self.peer.name, 1);
                }
                Output::Ahead { shard, named, end } => tracing::error!(
                    peer = &*self.peer.name,
                    "the peer has {shard} through {named}, but it ends at {end}: was this store restored without a new \
                     incarnation? All of the shard is sent again"
                ),
            }
        }
        let counts = self.outbox.take_counts();
        let (metrics, peer) = (&self.shared.metrics, &*self.peer.name);
        for (family, count) in [
            (&metrics.entries_sent, counts.entries),
            (&metrics.bytes_sent, counts.bytes),
            (&metrics.entries_withheld, counts.withheld),
            (&metrics.entries_relayed, counts.relayed),
        ] {
            if count > 0 {
                Metrics::peer(family, peer, count);
            }
        }
        Ok(())
    }

    fn send(&self, message: replicate_response::Message) -> Result<(), Error> {
        self.shared.refuse_cut(&self.peer.name, self.shared.gate.outward(&self.peer.name))?;
        let response = ReplicateResponse { message: Some(message) };
        self.out.send(Ok(response)).map_err(|_| Error::Unreachable {
            region: self.peer.name.to_string(),
            why: "it closed the stream of entries".to_string(),
        })
    }

    fn proved(&self, proved: &[(ShardId, Sequence)]) {
        self.peer.state.change(|known| {
            for (shard, at) in proved {
                let proof = known.proof_by_peer.entry(*shard).or_default();
                *proof = (*proof).max(*at);
            }
        });
        for (shard, at) in proved {
            let labels = metrics::PeerShard { peer: self.peer.name.to_string(), shard: shard.0 };
            let position = i64::try_from(at.0).unwrap_or(i64::MAX);
            self.shared.metrics.proof_by_peer.get_or_create(&labels).set(position);
            if let Some(committed) = self.shared.history.committed(*shard) {
                let tip = *committed.borrow();
                self.measure_lag(*shard, tip);
            }
        }
    }

    fn measure_lag(&self, shard: ShardId, tip: Sequence) {
        let proof = self.outbox.proof().get(&shard).copied().unwrap_or_default();
        let labels = metrics::PeerShard { peer: self.peer.name.to_string(), shard: shard.0 };
        let lag = i64::try_from(tip.0.saturating_sub(proof.0)).unwrap_or(i64::MAX);
        self.shared.metrics.lag_entries.get_or_create(&labels).set(lag);
    }
}
