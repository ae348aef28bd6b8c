//! The sending end of a link: a peer has dialled and named its positions; each of our shards reads its log from there and
//! sends what is meant for the peer, as soon as it is committed. The peer owns the positions (E2); its acks give credit
//! back (flow) and say what is durable there (proof, E1). Namespace records go ahead of the entries that were written
//! under them (I10).
//!
//! There is no ring of recent entries in memory: each page is one indexed read, and a busy shard's next page holds all
//! that was committed while the last one was on its way.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use antipode_core::ids::{NamespaceId, RunKey, Sequence, ShardId};
use antipode_proto::link::{
    self, ReplicateRequest, ReplicateResponse,
    replicate_request::{self, Ack, Open},
    replicate_response::{self, Entries, Opened},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    cursor::{Announcement, Cursor},
    error::Error,
    metrics::{self, Metrics},
    selection::{self, Audience, KnownStates, Selected},
    shared::{Peer, Shared},
    status::Withheld,
};

/// Bytes sent to a peer and not yet read there.
const CREDIT_BYTES: usize = 4 << 20;
/// Bytes of log that one read asks for.
const PAGE_BYTES: usize = 256 << 10;
/// How long the announcement of a range without entries for the peer waits for one that has some, when nobody wants it.
const EMPTY_DELAY: Duration = Duration::from_millis(250);
/// States of runs that a stream remembers as sent.
const STATES_REMEMBERED: usize = 16_384;
/// What an announcement costs in credit beside its entries.
const ANNOUNCEMENT_BYTES: usize = 64;

type Out = mpsc::Sender<Result<ReplicateResponse, Status>>;

/// What a stream has sent of the namespace records.
#[derive(Default)]
struct Pushed {
    /// The registry's revision; none: nothing was sent.
    revision: Option<u64>,
    /// Notification of each record.
    records: BTreeMap<NamespaceId, u64>,
}

/// One open stream to one peer.
struct Stream {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    out: Out,
    credit: Semaphore,
    shards: BTreeMap<ShardId, Mutex<Cursor>>,
    sent_states: Mutex<KnownStates>,
    /// Namespace records as last sent; held while sending, so that entries wait behind records.
    pushed: tokio::sync::Mutex<Pushed>,
    /// An ack met a cut: after the heal the peer must name its positions again.
    ack_lost: AtomicBool,
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
        Ok(stored) => stored.into_iter().collect(),
        Err(error) => {
            // The peer may be gone; then nobody needs the words.
            let _ = out.try_send(Err(Error::from(error).into()));
            return;
        }
    };
    let stream = Arc::new(Stream::new(shared, peer, &open, &stored, out));
    let error = stream.run(&open, inbound).await.err();
    stream.ended.cancel();
    let words = error.as_ref().map(ToString::to_string).unwrap_or_default();
    tracing::debug!(peer = &*stream.peer.name, why = words, "stream of entries to a peer ended");
    stream.peer.state.change(|known| known.senders = known.senders.saturating_sub(1));
    if let Some(error) = error {
        // The peer may be gone; then nobody needs the words.
        let _ = stream.out.try_send(Err(error.into()));
    }
}

impl Stream {
    fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        open: &Open,
        stored: &BTreeMap<ShardId, Sequence>,
        out: Out,
    ) -> Self {
        let named: BTreeMap<ShardId, Sequence> =
            open.positions.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
        // Positions of another life of our store mean nothing in this one: from the start (E2, V19).
        let same_life = open.source_incarnation == shared.identity.incarnation.0;
        let shards = (1..=shared.history.shard_count()).map(ShardId);
        let cursors = shards.map(|shard| {
            let at = named.get(&shard).copied().filter(|_| same_life).unwrap_or_default();
            let end = stored.get(&shard).copied().unwrap_or_default();
            if at > end {
                tracing::error!(
                    peer = &*peer.name,
                    "the peer has {shard} through {at}, but it ends at {end}: was this store restored without a new \
                     incarnation? All of the shard is sent again"
                );
            }
            (shard, Mutex::new(Cursor::new(if at > end { Sequence(0) } else { at })))
        });
        Self {
            shards: cursors.collect(),
            peer,
            out,
            credit: Semaphore::new(CREDIT_BYTES),
            sent_states: Mutex::new(KnownStates::new(STATES_REMEMBERED)),
            pushed: tokio::sync::Mutex::default(),
            ack_lost: AtomicBool::new(false),
            ended: shared.stop.child_token(),
            shared,
        }
    }

    async fn run(self: &Arc<Self>, open: &Open, inbound: Streaming<ReplicateRequest>) -> Result<(), Error> {
        self.begin(open);
        let opened = Opened { source: Some(self.shared.info()) };
        self.send(replicate_response::Message::Opened(opened)).await?;
        self.push_namespaces().await?;
        let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
        for shard in self.shards.keys().copied() {
            let stream = Arc::clone(self);
            tasks.spawn(async move { stream.send_shard(shard).await });
        }
        let stream = Arc::clone(self);
        tasks.spawn(async move { stream.push_changes().await });
        let stream = Arc::clone(self);
        tasks.spawn(async move { stream.watch_gate().await });
        let stream = Arc::clone(self);
        tasks.spawn(async move { stream.watch_peers().await });
        tokio::select! {
            read = self.read_acks(inbound) => read,
            Some(ended) = tasks.join_next() => ended.unwrap_or(Err(Error::Stopping)),
            () = self.ended.cancelled() => Err(Error::Stopping),
        }
    }

    /// What the receiver names in its first message is proved: it owns its positions.
    fn begin(&self, open: &Open) {
        self.peer.state.replace_stream(self.ended.clone());
        let proofs = self.shards.iter().map(|(shard, cursor)| (*shard, lock(cursor).position()));
        self.peer.state.change(|known| {
            known.senders += 1;
            known.proof_by_peer = proofs.collect();
            if open.receiver.is_some() {
                known.info.clone_from(&open.receiver);
            }
        });
    }

    async fn send(&self, message: replicate_response::Message) -> Result<(), Error> {
        self.shared.refuse_cut(&self.peer.name, self.shared.gate.outward(&self.peer.name))?;
        let response = ReplicateResponse { message: Some(message) };
        self.out.send(Ok(response)).await.map_err(|_| Error::Unreachable {
            region: self.peer.name.to_string(),
            why: "it closed the stream of entries".to_string(),
        })
    }

    /// Sends the records that changed since they were last sent on this stream. All global records travel: the peer keeps
    /// those that list it, and those that took it off their list tell it so.
    async fn push_namespaces(&self) -> Result<(), Error> {
        let mut pushed = self.pushed.lock().await;
        let revision = self.shared.namespaces.revision();
        if pushed.revision == Some(revision) {
            return Ok(());
        }
        let mut records = Vec::new();
        for entry in self.shared.namespaces.all() {
            if entry.is_global() && pushed.records.get(&entry.id()) != Some(&entry.notification) {
                records.push(entry.to_wire());
                pushed.records.insert(entry.id(), entry.notification);
            }
        }
        if !records.is_empty() {
            let message = replicate_response::Namespaces { records };
            self.send(replicate_response::Message::Namespaces(message)).await?;
        }
        pushed.revision = Some(revision);
        Ok(())
    }

    async fn push_changes(&self) -> Result<(), Error> {
        let mut changes = self.shared.namespaces.changes();
        loop {
            self.push_namespaces().await?;
            changes.changed().await.map_err(|_| Error::Stopping)?;
        }
    }

    /// Ends the stream when its direction is cut, and when acks were lost to a cut that is healed now; lets runs go that are
    /// no longer held.
    async fn watch_gate(&self) -> Result<(), Error> {
        let mut changes = self.shared.gate.changes();
        loop {
            let peer = &*self.peer.name;
            self.shared.refuse_cut(peer, self.shared.gate.outward(peer))?;
            if self.shared.gate.lets_in(peer) && self.ack_lost.load(Ordering::SeqCst) {
                return Err(Error::Unreachable {
                    region: peer.to_string(),
                    why: "acks were lost to a cut; the stream starts again".to_string(),
                });
            }
            self.send_released().await?;
            changes.changed().await.map_err(|_| Error::Stopping)?;
        }
    }

    /// Ends the stream when its peer is disabled or removed (R122).
    async fn watch_peers(&self) -> Result<(), Error> {
        let mut changes = self.shared.peers_changed.subscribe();
        loop {
            self.shared.peer(&self.peer.name)?;
            changes.changed().await.map_err(|_| Error::Stopping)?;
        }
    }

    /// Sends what was withheld of runs that are no longer held, as the ranges in which it was announced. A run stays in the
    /// table until it is empty, so that its later entries queue up behind.
    async fn send_released(&self) -> Result<(), Error> {
        loop {
            let held = self.shared.gate.held();
            let next = self.peer.state.change(|known| {
                known.withheld.retain(|_, entries| !entries.is_empty());
                let released = known.withheld.iter().find(|(run, _)| !held.contains(run));
                released.and_then(|(_, entries)| entries.front().cloned())
            });
            let Some(next) = next else { return Ok(()) };
            self.send_entries(next.shard, next.range, vec![next.entry]).await?;
            self.peer.state.change(|known| {
                if let Some(entries) = known.withheld.get_mut(&next.run.run) {
                    entries.pop_front();
                }
            });
        }
    }

    async fn send_entries(
        &self,
        shard: ShardId,
        range: Announcement,
        entries: Vec<link::Entry>,
    ) -> Result<(), Error> {
        let count = entries.len() as u64;
        let message = Entries {
            shard: shard.0,
            after: range.after.0,
            through: range.through.0,
            entries,
            sent_unix_nanos: self.shared.clock.now(),
            relay_of: 0,
        };
        self.send(replicate_response::Message::Entries(message)).await?;
        Metrics::peer(&self.shared.metrics.entries_sent, &self.peer.name, count);
        Ok(())
    }

    /// Reads one shard's log and sends it, for as long as the stream lives.
    async fn send_shard(&self, shard: ShardId) -> Result<(), Error> {
        let Some(mut committed) = self.shared.history.committed(shard) else { return Err(Error::Stopping) };
        let Some(cursor) = self.shards.get(&shard) else { return Err(Error::Stopping) };
        let mut wanted = self.peer.state.wanted();
        loop {
            let tip = *committed.borrow_and_update();
            self.measure_lag(shard, tip);
            let position = lock(cursor).position();
            if tip > position {
                let page = self.shared.store.log_read(shard, position, PAGE_BYTES).await?;
                // A record is durable before anything is written under it: what this page rests on is visible now (I10).
                self.push_namespaces().await?;
                let through = page.through;
                let selected = self.select(&page);
                lock(cursor).page(through);
                if !selected.is_empty() {
                    self.announce(shard, cursor, selected).await?;
                }
                if through <= position {
                    let why = format!("log of {shard} ends at {through}, but {tip} is committed");
                    return Err(antipode_persistence::Error::Damaged(why).into());
                }
                continue;
            }
            let late = wanted.borrow_and_update().get(&shard).is_some_and(|at| lock(cursor).is_late_for(*at));
            if late {
                self.announce(shard, cursor, Vec::new()).await?;
            } else if lock(cursor).owes() {
                // Nothing for the peer in what was read: its announcement may wait, but not a barrier's (F2).
                tokio::select! {
                    changed = committed.changed() => changed.map_err(|_| Error::Stopping)?,
                    changed = wanted.changed() => changed.map_err(|_| Error::Stopping)?,
                    () = tokio::time::sleep(EMPTY_DELAY) => self.announce(shard, cursor, Vec::new()).await?,
                }
            } else {
                committed.changed().await.map_err(|_| Error::Stopping)?;
            }
        }
    }

    fn measure_lag(&self, shard: ShardId, tip: Sequence) {
        let proof = self.peer.state.known().proof_by_peer.get(&shard).copied().unwrap_or_default();
        let labels = metrics::PeerShard { peer: self.peer.name.to_string(), shard: shard.0 };
        let lag = i64::try_from(tip.0.saturating_sub(proof.0)).unwrap_or(i64::MAX);
        self.shared.metrics.lag_entries.get_or_create(&labels).set(lag);
    }

    fn select(&self, page: &antipode_persistence::rows::LogPage) -> Vec<Selected> {
        let linked = self.shared.enabled_peers().iter().map(|peer| peer.id).collect();
        let audience = Audience { here: self.shared.id(), peer: self.peer.id, linked };
        let travels = |run: &RunKey| {
            let entry = self.shared.namespaces.by_id(run.namespace);
            entry.is_some_and(|entry| entry.is_global() && entry.lists(&self.peer.name))
        };
        let received = self.shared.received_states();
        let mut sent = lock(&self.sent_states);
        let knows = |run, state| {
            if received.is(run, state) || sent.is(run, state) {
                return true;
            }
            sent.remember(run, state);
            false
        };
        let (selected, damaged) = selection::select(page, |batch| audience.wants(batch), travels, knows);
        for row in &damaged {
            tracing::error!(peer = &*self.peer.name, %row, "a stored row cannot be sent");
        }
        Metrics::peer(&self.shared.metrics.rows_damaged, &self.peer.name, damaged.len() as u64);
        selected
    }

    /// Takes the entries of held runs out: the range is announced without them, which breaks its promise on purpose.
    fn withhold(&self, shard: ShardId, range: Announcement, selected: Vec<Selected>) -> Vec<link::Entry> {
        let held = self.shared.gate.held();
        let is_held = |known: &crate::status::Known, run: &RunKey| {
            held.contains(&run.run) || known.withheld.contains_key(&run.run)
        };
        if held.is_empty() && self.peer.state.known().withheld.is_empty() {
            return selected.into_iter().map(|selected| selected.entry).collect();
        }
        let (entries, count) = self.peer.state.change(|known| {
            let (mut entries, mut count) = (Vec::new(), 0);
            for Selected { run, entry, .. } in selected {
                if is_held(known, &run) {
                    let behind = known.withheld.entry(run.run).or_default();
                    let resent = |other: &Withheld| {
                        other.shard == shard
                            && other.entry.sequence == entry.sequence
                            && same_kind(&other.entry, &entry)
                    };
                    if !behind.iter().any(resent) {
                        count += 1;
                        behind.push_back(Withheld { shard, range, run, entry });
                    }
                } else {
                    entries.push(entry);
                }
            }
            (entries, count)
        });
        Metrics::peer(&self.shared.metrics.entries_withheld, &self.peer.name, count);
        entries
    }

    async fn announce(
        &self,
        shard: ShardId,
        cursor: &Mutex<Cursor>,
        selected: Vec<Selected>,
    ) -> Result<(), Error> {
        let bytes: usize = selected.iter().map(|selected| selected.size).sum();
        // An entry larger than all credit goes alone.
        let cost = (bytes + ANNOUNCEMENT_BYTES).min(CREDIT_BYTES);
        let permits = u32::try_from(cost).unwrap_or(u32::MAX);
        self.credit.acquire_many(permits).await.map_err(|_| Error::Stopping)?.forget();
        let range = lock(cursor).announce(cost);
        let entries = self.withhold(shard, range, selected);
        Metrics::peer(&self.shared.metrics.bytes_sent, &self.peer.name, bytes as u64);
        self.send_entries(shard, range, entries).await
    }

    async fn read_acks(&self, mut inbound: Streaming<ReplicateRequest>) -> Result<(), Error> {
        let peer = &*self.peer.name;
        loop {
            let request = inbound.message().await.map_err(|status| Error::of_call(peer, status))?;
            match request.and_then(|request| request.message) {
                Some(replicate_request::Message::Ack(ack)) => {
                    if self.shared.gate.inward(peer).is_err() {
                        // Acks are cumulative; but if this was the last one, only a new stream brings its words again.
                        Metrics::peer(&self.shared.metrics.acks_lost_to_cuts, peer, 1);
                        self.ack_lost.store(true, Ordering::SeqCst);
                    } else {
                        self.acknowledge(ack);
                    }
                }
                Some(replicate_request::Message::Open(_)) => {
                    return Err(Error::protocol(peer, "it opened an open stream"));
                }
                None => return Ok(()),
            }
        }
    }

    fn acknowledge(&self, ack: Ack) {
        for at in &ack.flow {
            if let Some(cursor) = self.shards.get(&ShardId(at.shard)) {
                self.credit.add_permits(lock(cursor).acknowledge(Sequence(at.sequence)));
            }
        }
        let labels = |shard| metrics::PeerShard { peer: self.peer.name.to_string(), shard };
        for at in &ack.proof {
            let position = i64::try_from(at.sequence).unwrap_or(i64::MAX);
            self.shared.metrics.proof_by_peer.get_or_create(&labels(at.shard)).set(position);
        }
        self.peer.state.change(|known| {
            for at in ack.proof {
                let proof = known.proof_by_peer.entry(ShardId(at.shard)).or_default();
                *proof = (*proof).max(Sequence(at.sequence));
            }
            if ack.quarantined_complete {
                let runs = ack.quarantined.into_iter();
                known.exceptions_there = runs.filter_map(|run| Some((key_of(&run)?, run.reason))).collect();
            }
        });
        for (shard, cursor) in &self.shards {
            let position = lock(cursor).position();
            self.measure_lag(*shard, position);
        }
    }
}

fn same_kind(one: &link::Entry, other: &link::Entry) -> bool {
    matches!(
        (&one.entry, &other.entry),
        (Some(link::entry::Entry::Batch(_)), Some(link::entry::Entry::Batch(_)))
            | (Some(link::entry::Entry::State(_)), Some(link::entry::Entry::State(_)))
    )
}

fn key_of(run: &link::QuarantinedRun) -> Option<RunKey> {
    Some(RunKey {
        namespace: run.namespace_id.parse().ok()?,
        workflow: run.workflow_id.as_str().into(),
        run: run.run_id.parse().ok()?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
