//! What happens to a peer's entries: each goes to the shard that owns its workflow, in order, and the proof of its range
//! moves when it is durably applied, already known, or a named exception (E1). What cannot be applied at once is mended
//! beside, per workflow, without holding its neighbours (B8).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use antipode_core::ids::{RunKey, Sequence, ShardId, WorkflowKey};
use antipode_history::api::{Applied, Replicated};
use antipode_persistence::rows::QuarantineRow;
use antipode_proto::link::{
    self, Position, QuarantinedRun, ReplicateRequest, ReplicateResponse,
    replicate_request::{self, Ack},
    replicate_response::{self, Entries},
};
use prost::Message;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tonic::Streaming;

use crate::{
    entry::{self, Received, Unreadable},
    error::Error,
    lane::{self, Answered, Item, Queued},
    mend::{self, Mended, Mender, Poisoned},
    metrics::{self, Metrics, Outcome},
    proof::{RangeNumber, Tracker},
    receiver::Positions,
    selection::StateHash,
    shared::{Peer, Shared},
};

/// While entries are under way, acks go at most this often.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Entries put aside beyond this many bytes keep the sender's credit, so that it stops.
const ASIDE_BYTES_MAX: usize = 16 << 20;

/// Entries of one workflow that wait for the first of them to be mended.
type Waiting = VecDeque<(Item, Option<Applied>)>;

/// One stream's entries.
pub(crate) struct Intake {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    trackers: BTreeMap<ShardId, Tracker>,
    lanes: BTreeMap<ShardId, mpsc::UnboundedSender<Vec<Queued>>>,
    lane_tasks: JoinSet<()>,
    answered: mpsc::UnboundedReceiver<Vec<Answered>>,
    aside: BTreeMap<WorkflowKey, Waiting>,
    aside_bytes: usize,
    mending: JoinSet<(Item, Result<Mended, Poisoned>)>,
    acks: mpsc::UnboundedSender<ReplicateRequest>,
    acked_flow: Positions,
    acked_proof: Positions,
    exceptions_acked: bool,
    proved: watch::Sender<Positions>,
    /// When ranges were sent, by their end.
    sent: BTreeMap<ShardId, VecDeque<(Sequence, i64)>>,
}

impl Intake {
    pub(crate) fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        positions: Positions,
        acks: mpsc::UnboundedSender<ReplicateRequest>,
        proved: watch::Sender<Positions>,
    ) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        let mut lane_tasks = JoinSet::new();
        let mut lanes = BTreeMap::new();
        for shard in (1..=shared.history.shard_count()).map(ShardId) {
            let (queue, queued) = mpsc::unbounded_channel();
            lane_tasks.spawn(lane::run(shared.history.clone(), shard, queued, answers.clone()));
            lanes.insert(shard, queue);
        }
        let trackers = positions.iter().map(|(shard, at)| (*shard, Tracker::new(*at)));
        Self {
            trackers: trackers.collect(),
            shared,
            peer,
            lanes,
            lane_tasks,
            answered,
            aside: BTreeMap::new(),
            aside_bytes: 0,
            mending: JoinSet::new(),
            acks,
            acked_flow: Positions::new(),
            acked_proof: Positions::new(),
            exceptions_acked: false,
            proved,
            sent: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(mut self, mut inbound: Streaming<ReplicateResponse>) -> Result<(), Error> {
        let mut gate = self.shared.gate.changes();
        let mut ack_tick = tokio::time::interval(ACK_DELAY);
        ack_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut replays = JoinSet::new();
        replays.spawn(replay_exceptions(self.mender()));
        loop {
            tokio::select! {
                biased;
                Some(answers) = self.answered.recv() => {
                    for (item, verdict) in answers {
                        self.finish(item, verdict);
                    }
                }
                Some(mended) = self.mending.join_next(), if !self.mending.is_empty() => {
                    let (item, result) = mended.map_err(|_| Error::Stopping)?;
                    self.mended(item, result).await?;
                }
                Some(replayed) = replays.join_next(), if !replays.is_empty() => {
                    if replayed.unwrap_or(false) {
                        self.exceptions_acked = false;
                    }
                }
                changed = gate.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.shared.refuse_cut(&self.peer.name, self.shared.gate.inward(&self.peer.name))?;
                }
                message = inbound.message() => {
                    let message = message.map_err(|status| Error::of_call(&self.peer.name, status))?;
                    self.shared.refuse_cut(&self.peer.name, self.shared.gate.inward(&self.peer.name))?;
                    match message.and_then(|message| message.message) {
                        Some(message) => self.take(message).await?,
                        None => return Ok(()),
                    }
                }
                Some(_) = self.lane_tasks.join_next() => return Err(Error::Stopping),
                _ = ack_tick.tick(), if self.owes_ack() => {
                    self.acknowledge();
                    continue;
                }
            }
            if self.trackers.values().all(|tracker| tracker.outstanding() == 0) || !self.exceptions_acked {
                self.acknowledge();
            }
        }
    }

    fn mender(&self) -> Mender {
        Mender { shared: Arc::clone(&self.shared), source: Arc::clone(&self.peer) }
    }

    fn count(&self, outcome: Outcome) {
        self.shared.metrics.received(&self.peer.name, outcome, 1);
    }

    async fn take(&mut self, message: replicate_response::Message) -> Result<(), Error> {
        match message {
            replicate_response::Message::Opened(_) => {
                Err(Error::protocol(&self.peer.name, "it opened twice"))
            }
            replicate_response::Message::Namespaces(namespaces) => {
                for record in &namespaces.records {
                    mend::merge_record(&self.shared, &self.peer.name, record).await;
                }
                Ok(())
            }
            replicate_response::Message::Entries(entries) => self.take_entries(entries).await,
        }
    }

    async fn take_entries(&mut self, entries: Entries) -> Result<(), Error> {
        let shard = ShardId(entries.shard);
        let through = Sequence(entries.through);
        let tracker = self.trackers.entry(shard).or_insert_with(|| Tracker::new(Sequence(0)));
        let range = tracker
            .announce(Sequence(entries.after), through, entries.entries.len())
            .map_err(|gap| Error::of_gap(&self.peer.name, gap))?;
        self.sent.entry(shard).or_default().push_back((through, entries.sent_unix_nanos));
        let bytes: usize = entries.entries.iter().map(Message::encoded_len).sum();
        Metrics::peer(&self.shared.metrics.bytes_received, &self.peer.name, bytes as u64);
        let mut groups: BTreeMap<ShardId, Vec<Queued>> = BTreeMap::new();
        for entry in entries.entries {
            match entry::read(&entry) {
                Ok(received) => self.sort_in(shard, range, entry, received, &mut groups).await?,
                Err(Unreadable { key, why }) => {
                    let item = Item { shard, range, key, entry, holds_credit: true };
                    self.quarantine(item, why).await?;
                }
            }
        }
        for (shard, group) in groups {
            let lane = self.lanes.get(&shard).ok_or(Error::Stopping)?;
            lane.send(group).map_err(|_| Error::Stopping)?;
        }
        Ok(())
    }

    async fn sort_in(
        &mut self,
        shard: ShardId,
        range: RangeNumber,
        entry: link::Entry,
        received: Received,
        groups: &mut BTreeMap<ShardId, Vec<Queued>>,
    ) -> Result<(), Error> {
        if let Replicated::State(state) = &received.replicated {
            self.shared.received_states().remember(received.key.run, StateHash::of(state));
        }
        let workflow = received.workflow();
        let item = Item { shard, range, key: received.key, entry, holds_credit: true };
        let quarantined = self.peer.state.known().exceptions_here.get(&item.key).is_some();
        if quarantined {
            return self.quarantine(item, String::new()).await;
        }
        // The record goes ahead of what was written under it (I10); what overtook it asks for it (F5).
        let record = self.shared.namespaces.by_id(item.key.namespace);
        let covered =
            record.is_some_and(|entry| received.version.is_none_or(|version| entry.version() >= version));
        if !covered || self.aside.contains_key(&workflow) {
            self.put_aside(item, None);
            return Ok(());
        }
        let local = self.shared.history.shard_of(&workflow);
        groups.entry(local).or_default().push((item, received.replicated));
        Ok(())
    }

    fn finish(&mut self, item: Item, verdict: Applied) {
        match verdict {
            Applied::Applied(_) => {
                self.count(Outcome::Applied);
                self.prove(&item);
            }
            Applied::Duplicate => {
                self.count(Outcome::Duplicate);
                self.prove(&item);
            }
            verdict => {
                match verdict {
                    Applied::NeedEvents { .. } => self.count(Outcome::NeedEvents),
                    Applied::Retry(_) => self.count(Outcome::Retry),
                    _ => {}
                }
                self.put_aside(item, Some(verdict));
            }
        }
    }

    fn prove(&mut self, item: &Item) {
        if let Some(tracker) = self.trackers.get_mut(&item.shard) {
            if item.holds_credit {
                tracker.prove(item.range);
            } else {
                tracker.prove_aside(item.range);
            }
        }
    }

    fn put_aside(&mut self, mut item: Item, verdict: Option<Applied>) {
        let bytes = item.entry.encoded_len();
        if self.aside_bytes + bytes <= ASIDE_BYTES_MAX {
            item.holds_credit = false;
            if let Some(tracker) = self.trackers.get_mut(&item.shard) {
                tracker.put_aside(item.range);
            }
        }
        self.aside_bytes += bytes;
        let workflow = item.key.workflow_key();
        let waiting = self.aside.entry(workflow.clone()).or_default();
        waiting.push_back((item, verdict));
        if waiting.len() == 1 {
            self.mend_next(&workflow);
        }
    }

    /// Starts on the first waiting entry of a workflow. It stays in the queue until it is mended: that keeps later ones behind.
    fn mend_next(&mut self, workflow: &WorkflowKey) {
        let Some((item, verdict)) = self.aside.get(workflow).and_then(VecDeque::front).cloned() else {
            return;
        };
        let mender = self.mender();
        self.mending.spawn(async move {
            let result = mender.mend(&item.entry, verdict).await;
            (item, result)
        });
    }

    async fn mended(&mut self, item: Item, result: Result<Mended, Poisoned>) -> Result<(), Error> {
        match result {
            Ok(mended) => {
                self.count(match mended {
                    Mended::Applied => Outcome::Applied,
                    Mended::Known => Outcome::Duplicate,
                    Mended::NotOurs => Outcome::UnknownNamespace,
                });
                self.prove(&item);
            }
            Err(Poisoned(why)) => self.quarantine(item.clone(), why).await?,
        }
        let workflow = item.key.workflow_key();
        while let Some(waiting) = self.aside.get_mut(&workflow) {
            if let Some((gone, _)) = waiting.pop_front() {
                self.aside_bytes = self.aside_bytes.saturating_sub(gone.entry.encoded_len());
            }
            match waiting.front().map(|(next, _)| next.clone()) {
                None => {
                    self.aside.remove(&workflow);
                }
                Some(next) if self.peer.state.known().exceptions_here.get(&next.key).is_some() => {
                    self.quarantine(next, String::new()).await?;
                    continue;
                }
                Some(_) => self.mend_next(&workflow),
            }
            break;
        }
        Ok(())
    }

    /// Sets a run aside for good: its first failing entry with the reason, later ones only as a number (E1). The entry counts
    /// as proved, the run as an exception; at the cap it does not, and the watermark stops.
    async fn quarantine(&mut self, item: Item, reason: String) -> Result<(), Error> {
        let added = self.peer.state.change(|known| known.exceptions_here.add(&item.key, &reason, 0));
        match added {
            Err(full) => {
                tracing::error!(peer = &*self.peer.name, run = %item.key, reason, %full, "cannot quarantine a run");
                return Ok(());
            }
            Ok(true) => {
                tracing::error!(peer = &*self.peer.name, run = %item.key, reason, "a run is quarantined");
                self.count(Outcome::Quarantined);
                self.exceptions_acked = false;
                let row = QuarantineRow {
                    key: item.key.clone(),
                    source: self.peer.id.0,
                    reason,
                    entry: item.entry.encode_to_vec().into(),
                    since: self.shared.now(),
                    behind: 0,
                };
                self.shared.store.quarantine_put(row).await?;
            }
            Ok(false) => {
                self.count(Outcome::Behind);
                self.mark_behind(&item.key).await?;
            }
        }
        self.prove(&item);
        Ok(())
    }

    /// Stores how many entries came after the first, at each doubling: a run that keeps changing must not cost a commit each.
    async fn mark_behind(&self, key: &RunKey) -> Result<(), Error> {
        let behind = self.peer.state.known().exceptions_here.get(key).map_or(0, |exception| exception.behind);
        if !behind.is_power_of_two() {
            return Ok(());
        }
        let stored = self.shared.store.quarantine_all().await?;
        if let Some(row) = stored.into_iter().find(|row| row.key == *key) {
            self.shared.store.quarantine_put(QuarantineRow { behind, ..row }).await?;
        }
        Ok(())
    }

    /// Whether there is something to say and a way to say it.
    fn owes_ack(&self) -> bool {
        let moved = |(shard, tracker): (&ShardId, &Tracker)| {
            self.acked_flow.get(shard) != Some(&tracker.flow())
                || self.acked_proof.get(shard) != Some(&tracker.proof())
        };
        let news = !self.exceptions_acked || self.trackers.iter().any(moved);
        news && self.shared.gate.lets_out(&self.peer.name)
    }

    /// Says what has been read and what is proved since the last time. Behind a cut it waits: acks are cumulative.
    fn acknowledge(&mut self) {
        let mut ack = Ack::default();
        let mut moved = Vec::new();
        for (shard, tracker) in &self.trackers {
            let (flow, proof) = (tracker.flow(), tracker.proof());
            if self.acked_flow.get(shard) != Some(&flow) {
                ack.flow.push(Position { shard: shard.0, sequence: flow.0 });
            }
            if self.acked_proof.get(shard) != Some(&proof) {
                ack.proof.push(Position { shard: shard.0, sequence: proof.0 });
                moved.push((*shard, proof));
            }
        }
        self.publish(&moved);
        if !self.exceptions_acked {
            ack.quarantined_complete = true;
            ack.quarantined = self.exceptions();
        }
        let empty = ack.flow.is_empty() && ack.proof.is_empty() && !ack.quarantined_complete;
        if empty || !self.shared.gate.lets_out(&self.peer.name) {
            return;
        }
        let flow: Vec<_> = ack.flow.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
        let message = replicate_request::Message::Ack(ack);
        // A closed stream ends the intake by its other half.
        let _ = self.acks.send(ReplicateRequest { message: Some(message) });
        self.acked_flow.extend(flow);
        self.acked_proof.extend(moved);
        self.exceptions_acked = true;
    }

    /// Makes new proofs known: to the store, to the status, to the metrics.
    fn publish(&mut self, moved: &[(ShardId, Sequence)]) {
        let before = self.proved.borrow().clone();
        let news = moved.iter().copied().filter(|(shard, at)| before.get(shard) != Some(at));
        let news: Vec<_> = news.collect();
        if news.is_empty() {
            return;
        }
        self.proved.send_modify(|positions| positions.extend(news.iter().copied()));
        self.peer.state.change(|known| known.proof_of_peer.extend(news.iter().copied()));
        let peer = self.peer.name.to_string();
        let now = self.shared.clock.now();
        let seconds = self.shared.metrics.apply_seconds.get_or_create(&metrics::Peer { peer: peer.clone() });
        for (shard, proof) in news {
            let labels = metrics::PeerShard { peer: peer.clone(), shard: shard.0 };
            let position = i64::try_from(proof.0).unwrap_or(i64::MAX);
            self.shared.metrics.proof_of_peer.get_or_create(&labels).set(position);
            let Some(sent) = self.sent.get_mut(&shard) else { continue };
            while let Some(&(through, at)) = sent.front()
                && through <= proof
            {
                seconds.observe(now.saturating_sub(at).max(0) as f64 / 1e9);
                sent.pop_front();
            }
        }
    }

    fn exceptions(&self) -> Vec<QuarantinedRun> {
        let known = self.peer.state.known();
        let labels = metrics::Peer { peer: self.peer.name.to_string() };
        let count = i64::try_from(known.exceptions_here.len()).unwrap_or(i64::MAX);
        self.shared.metrics.quarantined.get_or_create(&labels).set(count);
        let runs = known.exceptions_here.iter().map(|(key, exception)| QuarantinedRun {
            namespace_id: key.namespace.to_string(),
            workflow_id: key.workflow.to_string(),
            run_id: key.run.to_string(),
            reason: exception.reason.clone(),
        });
        runs.collect()
    }
}

/// Tries, once a stream, to bring quarantined runs up to date from their source: what failed may have been our own defect,
/// or a hole that is filled by now. Whether any is mended.
async fn replay_exceptions(mender: Mender) -> bool {
    let runs: Vec<RunKey> =
        mender.source.state.known().exceptions_here.iter().map(|(key, _)| key.clone()).collect();
    let mut any = false;
    for key in runs {
        match mender.replay(&key).await {
            Ok(()) => match mender.shared.store.quarantine_remove(&key).await {
                Ok(()) => {
                    tracing::info!(run = %key, "a quarantined run is mended");
                    mender.source.state.change(|known| known.exceptions_here.remove(&key));
                    any = true;
                }
                Err(error) => {
                    tracing::warn!(run = %key, %error, "a mended run stays in the quarantine table");
                }
            },
            Err(error) => tracing::debug!(run = %key, %error, "a quarantined run cannot be mended yet"),
        }
    }
    any
}
