//! Drives the receiving end of a stream ([`Inbox`]): the peer's messages, the shards' answers, what other regions say, cuts
//! and time go in; entries for the shards, questions and acks come out. What becomes of an entry is decided there.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use antipode_core::ids::{RegionId, RunKey, Sequence, ShardId};
use antipode_persistence::rows::{PositionRow, QuarantineRow};
use antipode_proto::link::{FetchRunResponse, RegionInfo, ReplicateRequest, ReplicateResponse};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::Streaming;

use crate::{
    error::Error,
    fetch,
    inbox::{Broken, Call, Cx, Feed, Inbox, Output},
    lane::{self, Answered, Queued},
    mending::Mended,
    metrics::{self, Metrics, Outcome},
    pace::Pace,
    shared::{Peer, Shared},
};

/// How something that was asked for ended.
enum Done {
    Fetched(Call, Result<FetchRunResponse, String>),
    RecordAsked(Call, bool),
    Quarantined(RunKey),
    Unquarantined(RunKey),
    NotStored,
    Nothing,
}

type Asked = Pin<Box<dyn Future<Output = Result<Done, Error>> + Send>>;

/// One stream's entries.
pub(crate) struct Intake {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    inbox: Inbox,
    pace: Pace,
    lanes: BTreeMap<ShardId, mpsc::UnboundedSender<Queued>>,
    lane_tasks: JoinSet<()>,
    answered: mpsc::UnboundedReceiver<Vec<Answered>>,
    asked: FuturesUnordered<Asked>,
    acks: mpsc::UnboundedSender<ReplicateRequest>,
}

impl Intake {
    pub(crate) fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        inbox: Inbox,
        acks: mpsc::UnboundedSender<ReplicateRequest>,
    ) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        let mut lane_tasks = JoinSet::new();
        let mut lanes = BTreeMap::new();
        for shard in (1..=shared.history.shard_count()).map(ShardId) {
            let (queue, queued) = mpsc::unbounded_channel();
            lane_tasks.spawn(lane::run(shared.history.clone(), shard, queued, answers.clone()));
            lanes.insert(shard, queue);
        }
        let pace = Pace::new(shared.now());
        let asked = FuturesUnordered::new();
        Self { shared, peer, inbox, pace, lanes, lane_tasks, answered, asked, acks }
    }

    /// Runs until the stream ends. The peer said who it is.
    pub(crate) async fn run(
        mut self,
        info: &RegionInfo,
        mut inbound: Streaming<ReplicateResponse>,
    ) -> Result<(), Error> {
        let mut gate = self.shared.gate.changes();
        let mut peers = self.shared.peers_changed.subscribe();
        let mut down = self.shared.down.subscribe();
        down.mark_changed();
        let paused = !self.shared.gate.lets_out(&self.peer.name);
        self.with(|inbox, cx| {
            inbox.pause_acks(cx, paused);
            inbox.opened(cx, info);
        });
        loop {
            self.carry_out().await?;
            tokio::select! {
                biased;
                Some(answers) = self.answered.recv() => {
                    for (call, answers) in answers {
                        self.with(|inbox, cx| inbox.applied(cx, call, answers));
                    }
                }
                Some(done) = self.asked.next(), if !self.asked.is_empty() => self.done(done?),
                changed = gate.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.shared.refuse_cut(&self.peer.name, self.shared.gate.inward(&self.peer.name))?;
                    let paused = !self.shared.gate.lets_out(&self.peer.name);
                    self.with(|inbox, cx| inbox.pause_acks(cx, paused));
                }
                changed = peers.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.inbox.set_others(&self.shared.others(&self.peer.name));
                }
                changed = down.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    let down = self.shared.down_origins(&self.peer.name);
                    self.with(|inbox, cx| inbox.set_down(cx, down));
                }
                () = self.pace.until(self.inbox.next_wake()) => self.with(Inbox::wake),
                message = inbound.message() => {
                    let message = message.map_err(|status| Error::of_call(&self.peer.name, status))?;
                    self.shared.refuse_cut(&self.peer.name, self.shared.gate.inward(&self.peer.name))?;
                    let Some(message) = message.and_then(|message| message.message) else { return Ok(()) };
                    self.shared.origin_is_up(&self.peer.name);
                    if let Err(broken) = self.with(|inbox, cx| inbox.message(cx, message)) {
                        self.record_counts();
                        if let Broken::Changed { .. } = broken {
                            tracing::error!(peer = &*self.peer.name, %broken, "an entry is asked for again (G1)");
                        }
                        return Err(Error::protocol(&self.peer.name, broken.to_string()));
                    }
                }
                Some(_) = self.lane_tasks.join_next() => return Err(Error::Stopping),
            }
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Inbox, &mut Cx<'_>) -> T) -> T {
        let mut received = self.shared.received_states();
        let records = &*self.shared.namespaces;
        let mut cx = Cx { now: self.pace.now(), records, received: &mut received };
        act(&mut self.inbox, &mut cx)
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Fetched(call, answer) => self.with(|inbox, cx| inbox.fetched(cx, call, answer)),
            Done::RecordAsked(call, answered) => {
                self.with(|inbox, cx| inbox.record_asked(cx, call, answered));
            }
            Done::Quarantined(key) => self.with(|inbox, cx| inbox.quarantined(cx, &key)),
            Done::Unquarantined(key) => {
                tracing::info!(run = %key, "a run is out of quarantine");
                self.with(|inbox, cx| inbox.unquarantined(cx));
                self.show_exceptions();
            }
            Done::NotStored => self.with(Inbox::positions_not_stored),
            Done::Nothing => {}
        }
    }

    /// Does what the inbox wants, in order. Records are merged before the next message is looked at (I10).
    async fn carry_out(&mut self) -> Result<(), Error> {
        loop {
            let outputs = self.inbox.take_outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out_one(output).await?;
            }
        }
        self.record_counts();
        Ok(())
    }

    async fn carry_out_one(&mut self, output: Output) -> Result<(), Error> {
        let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(&self.peer));
        match output {
            Output::Send(message) => {
                // A closed stream ends the intake by its other half.
                let _ = self.acks.send(ReplicateRequest { message: Some(message) });
            }
            Output::Merge(records) => {
                for record in &records {
                    fetch::merge_record(&shared, &peer.name, record).await;
                }
            }
            Output::Apply { call, shard, entries } => {
                let lane = self.lanes.get(&shard).ok_or(Error::Stopping)?;
                lane.send((call, entries)).map_err(|_| Error::Stopping)?;
            }
            Output::Fetch { call, peer, request } => {
                self.ask(async move { Ok(Done::Fetched(call, fetch::fetch(&shared, &peer, request).await)) });
            }
            Output::AskRecord { call, peer, request } => self.ask(async move {
                Ok(Done::RecordAsked(call, fetch::ask_record(&shared, &peer, request).await))
            }),
            Output::Quarantine(row) => {
                tracing::error!(peer = &*peer.name, run = %row.key, reason = row.reason, "a run is quarantined");
                self.show_exceptions();
                let key = row.key.clone();
                self.ask(async move {
                    shared.store.quarantine_put(row).await?;
                    Ok(Done::Quarantined(key))
                });
            }
            Output::MarkBehind { key, behind } => {
                self.show_exceptions();
                let source = peer.id;
                self.ask(async move { mark_behind(&shared, &key, source, behind).await });
            }
            Output::Unquarantine(key, mended) => self.ask(async move {
                if mended == Mended::Gone {
                    let source = &*peer.name;
                    tracing::warn!(run = %key, source, "a quarantined run is let go: its source was restored to a time before it");
                }
                match shared.store.quarantine_remove(&key, peer.id.0).await {
                    Ok(()) => Ok(Done::Unquarantined(key)),
                    Err(error) => {
                        tracing::warn!(run = %key, %error, "a mended run stays in the quarantine table");
                        Ok(Done::Nothing)
                    }
                }
            }),
            Output::Proved(moved) => self.publish(&moved),
            Output::StorePositions(rows) => self.ask(async move { Ok(store(&shared, rows).await) }),
            Output::Overtaken(namespace, version) => shared.version_overtook(namespace, version),
            Output::Changed(changed) => {
                let (run, why) = (&changed.key, &changed.why);
                tracing::error!(peer = &*peer.name, %run, why, "a fetched run is asked for again (G1)");
            }
        }
        Ok(())
    }

    fn ask(&self, asked: impl Future<Output = Result<Done, Error>> + Send + 'static) {
        self.asked.push(Box::pin(asked));
    }

    /// Makes new proofs known: to the status and the metrics.
    fn publish(&self, moved: &[(Feed, Sequence)]) {
        self.peer.state.change(|known| {
            for (feed, proof) in moved {
                let positions = match feed.relay_of {
                    None => &mut known.proof_of_peer,
                    Some(origin) => known.relayed.entry(origin).or_default(),
                };
                positions.insert(feed.shard, *proof);
            }
        });
        for (feed, proof) in moved.iter().filter(|(feed, _)| feed.relay_of.is_none()) {
            let labels = metrics::PeerShard { peer: self.peer.name.to_string(), shard: feed.shard.0 };
            let position = i64::try_from(proof.0).unwrap_or(i64::MAX);
            self.shared.metrics.proof_of_peer.get_or_create(&labels).set(position);
        }
    }

    fn show_exceptions(&self) {
        let exceptions = self.inbox.exceptions();
        let labels = metrics::Peer { peer: self.peer.name.to_string() };
        let count = i64::try_from(exceptions.len()).unwrap_or(i64::MAX);
        self.shared.metrics.quarantined.get_or_create(&labels).set(count);
        self.peer.state.change(|known| known.exceptions_here.clone_from(exceptions));
    }

    fn record_counts(&mut self) {
        let counts = self.inbox.take_counts();
        let (metrics, peer) = (&self.shared.metrics, &*self.peer.name);
        for (outcome, count) in [
            (Outcome::Applied, counts.applied),
            (Outcome::Duplicate, counts.duplicate),
            (Outcome::NeedEvents, counts.need_events),
            (Outcome::Retry, counts.retry),
            (Outcome::Quarantined, counts.quarantined),
            (Outcome::Behind, counts.behind),
            (Outcome::Changed, counts.changed),
            (Outcome::Refused, counts.refused),
            (Outcome::UnknownNamespace, counts.not_ours),
        ] {
            metrics.received(peer, outcome, count);
        }
        if counts.refused > 0 {
            tracing::error!(peer, "cannot quarantine a run: there are too many; the watermark stops (E1)");
        }
        if counts.bytes > 0 {
            Metrics::peer(&metrics.bytes_received, peer, counts.bytes);
        }
        if !counts.took.is_empty() {
            let seconds = metrics.apply_seconds.get_or_create(&metrics::Peer { peer: peer.to_string() });
            for took in counts.took {
                seconds.observe(took.0 as f64 / 1e9);
            }
        }
    }
}

async fn store(shared: &Shared, rows: Vec<PositionRow>) -> Done {
    match shared.store.position_put(rows).await {
        Ok(()) => Done::Nothing,
        // What is not stored is sent again after a restart; the next round tries once more.
        Err(error) => {
            tracing::warn!(%error, "positions could not be stored");
            Done::NotStored
        }
    }
}

async fn mark_behind(shared: &Shared, key: &RunKey, source: RegionId, behind: u64) -> Result<Done, Error> {
    let stored = shared.store.quarantine_all().await?;
    if let Some(row) = stored.into_iter().find(|row| row.key == *key && row.source == source.0) {
        shared.store.quarantine_put(QuarantineRow { behind, ..row }).await?;
    }
    Ok(Done::Nothing)
}
