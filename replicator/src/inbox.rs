//! The receiving end of one stream, as a machine (DESIGN 1.4): entries go to the shard that owns their workflow, in order,
//! and the proof of their range moves when they are durably applied, already known, or a named exception (E1). What cannot
//! be applied at once is mended beside, one entry of a workflow after the other, without holding its neighbours (B8). Pure:
//! what it wants is an [`Output`], what came of it an input, and time is handed in.
//!
//! Driver contract: [`Inbox::open`] is the first message out; the peer's first message is checked with
//! [`handshake::check`](crate::handshake::check) and given to [`Inbox::opened`], all others to [`Inbox::message`]. After each
//! input drain [`Inbox::take_outputs`], and carry [`Output::Merge`] out before the next message goes in (I10). Call
//! [`Inbox::wake`] when [`Inbox::next_wake`] has come. When the stream ends, store [`Inbox::positions`] and drop the machine:
//! what was not proved is sent again (E3).

mod aside;
mod entries;
mod io;
mod progress;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use antipode_core::ids::{Incarnation, RunKey, Sequence, ShardId, Timestamp, WorkflowKey};
use antipode_history::{api::Applied, client::shard_of};
use antipode_persistence::rows::PositionRow;
use antipode_proto::link::{
    DownOrigin, FetchRunResponse, NamespaceViewRequest, Position, QuarantinedRun, RegionInfo,
    replicate_request::{self, Ack, Open},
    replicate_response,
};

use crate::{
    mending::{Around, Event, Mending, Step},
    proof::Exceptions,
};
use aside::{Aside, Item};
pub use io::{Broken, Call, Counts, Cx, Output, Setup};
use progress::Progress;
pub use progress::{Feed, Positions};

/// What an answer is for.
enum Asked {
    Items(Vec<Item>),
    Job(u64),
}

/// What a mending is for.
enum Subject {
    Workflow(WorkflowKey),
    /// With how many entries were behind it when it began.
    Replay(RunKey, u64),
}

struct Job {
    mending: Mending,
    subject: Subject,
}

/// The receiving end of one stream.
pub struct Inbox {
    setup: Setup,
    shards: u32,
    is_open: bool,
    /// Whom to ask for what is missing: the source first.
    peers: Vec<Arc<str>>,
    progress: Progress,
    aside: Aside,
    jobs: BTreeMap<u64, Job>,
    job_last: u64,
    ready: VecDeque<(u64, Event)>,
    wakes: BTreeSet<(Timestamp, u64)>,
    replays: VecDeque<RunKey>,
    asked: BTreeMap<Call, Asked>,
    call_last: u64,
    /// Items that are proved when their run's quarantine is durable.
    quarantining: BTreeMap<RunKey, Vec<Item>>,
    exceptions_said: bool,
    down_said: bool,
    acks_paused: bool,
    counts: Counts,
    outputs: Vec<Output>,
}

impl Inbox {
    /// Before it dials.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let peers = std::iter::once(&setup.source).chain(&setup.others).cloned().collect();
        Self {
            shards: setup.info.shard_count,
            progress: Progress::new(&setup.positions),
            setup,
            is_open: false,
            peers,
            aside: Aside::default(),
            jobs: BTreeMap::new(),
            job_last: 0,
            ready: VecDeque::new(),
            wakes: BTreeSet::new(),
            replays: VecDeque::new(),
            asked: BTreeMap::new(),
            call_last: 0,
            quarantining: BTreeMap::new(),
            exceptions_said: false,
            down_said: true,
            acks_paused: false,
            counts: Counts::default(),
            outputs: Vec::new(),
        }
    }

    /// The first message: the receiver owns its positions and names them (E2).
    #[must_use]
    pub fn open(&self) -> Open {
        let position = |(shard, at): (&ShardId, &Sequence)| Position { shard: shard.0, sequence: at.0 };
        Open {
            receiver: Some(self.setup.info.clone()),
            source_incarnation: self.setup.incarnation.unwrap_or_default().0,
            positions: self.setup.positions.iter().map(position).collect(),
            down: self.setup.down.clone(),
        }
    }

    /// The source said who it is. Another life of its store starts from nothing: positions were those of the last one (E2).
    /// Quarantined runs are tried once more: what failed may have been our own defect, or a hole that is filled by now.
    pub fn opened(&mut self, cx: &mut Cx<'_>, info: &RegionInfo) {
        let incarnation = Incarnation(info.incarnation);
        if self.setup.incarnation != Some(incarnation) {
            // What the last life sent it has forgotten, and the other regions perhaps never got: it is sent on like our own.
            if self.setup.incarnation.is_some() {
                cx.received.clear();
            }
            self.setup.incarnation = Some(incarnation);
            self.setup.positions.clear();
            self.progress = Progress::default();
        }
        self.is_open = true;
        self.replays = self.setup.exceptions.iter().map(|(key, _)| key.clone()).collect();
        self.next_replay();
        self.settle(cx);
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// [`Broken`]: the stream has to end.
    pub fn message(&mut self, cx: &mut Cx<'_>, message: replicate_response::Message) -> Result<(), Broken> {
        if !self.is_open {
            return Err(Broken::NotOpened);
        }
        match message {
            replicate_response::Message::Opened(_) => return Err(Broken::OpenedTwice),
            replicate_response::Message::Namespaces(namespaces) => {
                self.outputs.push(Output::Merge(namespaces.records));
            }
            replicate_response::Message::Entries(entries) => self.take(cx, entries)?,
        }
        self.settle(cx);
        Ok(())
    }

    /// A shard's answers, one for each entry in order; without one an entry is offered again.
    pub fn applied(&mut self, cx: &mut Cx<'_>, call: Call, answers: Result<Vec<Applied>, String>) {
        let why = answers.as_ref().err().cloned().unwrap_or_else(|| "the shard gave no answer".to_string());
        let mut answers = answers.unwrap_or_default().into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Applied::Retry(why.clone()));
        match self.asked.remove(&call) {
            Some(Asked::Items(items)) => {
                for item in items {
                    self.judge(item, next());
                }
            }
            Some(Asked::Job(job)) => self.ready.push_back((job, Event::Offered(next()))),
            None => {}
        }
        self.settle(cx);
    }

    /// A region's answer, or why there is none.
    pub fn fetched(&mut self, cx: &mut Cx<'_>, call: Call, answer: Result<FetchRunResponse, String>) {
        if let Some(Asked::Job(job)) = self.asked.remove(&call) {
            self.ready.push_back((job, Event::Fetched(answer)));
        }
        self.settle(cx);
    }

    /// A region was asked for a record, which is merged by now; false: it did not answer.
    pub fn record_asked(&mut self, cx: &mut Cx<'_>, call: Call, answered: bool) {
        if let Some(Asked::Job(job)) = self.asked.remove(&call) {
            self.ready.push_back((job, Event::RecordAsked(answered)));
        }
        self.settle(cx);
    }

    /// The quarantine of a run is durable.
    pub fn quarantined(&mut self, cx: &mut Cx<'_>, key: &RunKey) {
        for item in self.quarantining.remove(key).into_iter().flatten() {
            self.progress.prove(item.feed, item.range, item.holds_credit);
        }
        self.settle(cx);
    }

    /// A mended run is out of the quarantine table.
    pub fn unquarantined(&mut self, cx: &mut Cx<'_>) {
        self.counts.mended += 1;
        self.exceptions_said = false;
        self.settle(cx);
    }

    /// The last positions could not be stored.
    pub fn positions_not_stored(&mut self, cx: &mut Cx<'_>) {
        self.progress.not_stored(cx.now);
    }

    /// While nothing can leave for the source, acks wait: they are cumulative.
    pub fn pause_acks(&mut self, cx: &mut Cx<'_>, paused: bool) {
        self.acks_paused = paused;
        self.settle(cx);
    }

    /// Which origins are down now, and how far their logs are proved here: the source relays the rest (C7).
    pub fn set_down(&mut self, cx: &mut Cx<'_>, down: Vec<DownOrigin>) {
        let regions = |down: &[DownOrigin]| down.iter().map(|origin| origin.region).collect::<BTreeSet<_>>();
        // Positions of an origin that is down do not move; only who is down is news.
        if regions(&down) != regions(&self.setup.down) {
            self.setup.down = down;
            self.down_said = false;
        }
        self.settle(cx);
    }

    /// Which other regions may be asked for what is missing.
    pub fn set_others(&mut self, others: &[Arc<str>]) {
        self.peers = std::iter::once(&self.setup.source).chain(others).cloned().collect();
    }

    /// The time is there.
    pub fn wake(&mut self, cx: &mut Cx<'_>) {
        while let Some(&(at, job)) = self.wakes.first()
            && at <= cx.now
        {
            self.wakes.pop_first();
            self.ready.push_back((job, Event::Woken));
        }
        self.settle(cx);
    }

    /// When to call [`Inbox::wake`].
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at).into_iter().chain(self.progress.next_wake()).min()
    }

    /// What is to be done, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// What happened since this was last asked.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// All positions, as they are to be stored when the stream ends.
    #[must_use]
    pub fn positions(&self) -> Vec<PositionRow> {
        self.rows(self.progress.positions())
    }

    /// Life of the source's store.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.setup.incarnation
    }

    /// Quarantined runs of this source.
    #[must_use]
    pub fn exceptions(&self) -> &Exceptions {
        &self.setup.exceptions
    }

    /// Entries that are received and not proved; of these wait behind something that is mended.
    #[must_use]
    pub fn outstanding(&self) -> (usize, usize) {
        (self.progress.outstanding(), self.aside.len())
    }

    fn rows(&self, positions: Positions) -> Vec<PositionRow> {
        let Some(incarnation) = self.setup.incarnation else { return Vec::new() };
        let source = self.setup.source_id.0;
        let row = |(shard, sequence)| PositionRow { source, incarnation, shard, sequence };
        positions.into_iter().map(row).collect()
    }

    fn call(&mut self, asked: Asked) -> Call {
        self.call_last += 1;
        let call = Call(self.call_last);
        self.asked.insert(call, asked);
        call
    }

    fn start(&mut self, mending: Mending, subject: Subject) {
        self.job_last += 1;
        self.jobs.insert(self.job_last, Job { mending, subject });
        self.ready.push_back((self.job_last, Event::Begin));
    }

    /// Starts on the first waiting entry of a workflow.
    fn mend_first(&mut self, workflow: WorkflowKey) {
        let Some((item, verdict)) = self.aside.first(&workflow) else { return };
        // An entry that could be read once can be read again.
        if let Ok(mending) = Mending::entry(&item.entry, verdict.clone()) {
            self.start(mending, Subject::Workflow(workflow));
        }
    }

    fn next_replay(&mut self) {
        if let Some(key) = self.replays.pop_front() {
            let behind = self.setup.exceptions.get(&key).map_or(0, |exception| exception.behind);
            self.start(Mending::replay(&key), Subject::Replay(key, behind));
        }
    }

    /// Goes on with everything that can, then says what there is to say.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        while let Some((id, event)) = self.ready.pop_front() {
            let around = Around { now: cx.now, records: cx.records, peers: &self.peers };
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let step = job.mending.advance(event, around);
            let overtaken = job.mending.take_overtaken();
            self.outputs.extend(overtaken.into_iter().map(|(id, version)| Output::Overtaken(id, version)));
            let changed = job.mending.take_changed();
            self.counts.changed += changed.len() as u64;
            self.outputs.extend(changed.into_iter().map(Output::Changed));
            self.carry_out(cx.now, id, step);
        }
        self.say(cx.now);
    }

    fn carry_out(&mut self, now: Timestamp, id: u64, step: Step) {
        match step {
            Step::Offer(key, replicated) => {
                let shard = shard_of(&key.workflow_key(), self.shards);
                let call = self.call(Asked::Job(id));
                self.outputs.push(Output::Apply { call, shard, entries: vec![replicated] });
            }
            Step::Fetch(peer, hole) => {
                let call = self.call(Asked::Job(id));
                self.outputs.push(Output::Fetch { call, peer, request: hole.request() });
            }
            Step::AskRecord(peer, namespace) => {
                let call = self.call(Asked::Job(id));
                let request =
                    NamespaceViewRequest { namespace_id: namespace.to_string(), name: String::new() };
                self.outputs.push(Output::AskRecord { call, peer, request });
            }
            Step::Wait(at) => {
                self.wakes.insert((at, id));
            }
            Step::Done(result) => match self.jobs.remove(&id).map(|job| job.subject) {
                Some(Subject::Workflow(workflow)) => self.first_done(now, workflow, result),
                Some(Subject::Replay(key, behind)) => {
                    let now_behind =
                        self.setup.exceptions.get(&key).map_or(behind, |exception| exception.behind);
                    if result.is_ok() && now_behind > behind {
                        // What came meanwhile was only counted, and the answer may be older (E1).
                        self.replays.push_back(key);
                    } else if let Ok(mended) = result {
                        // From here on its entries are applied again; a crash before the row is gone replays once more.
                        self.setup.exceptions.remove(&key);
                        self.outputs.push(Output::Unquarantine(key, mended));
                    }
                    self.next_replay();
                }
                None => {}
            },
        }
    }

    /// Says what has been read and what is proved since the last time, when it is time to.
    fn say(&mut self, now: Timestamp) {
        if !self.is_open {
            return;
        }
        let urgent = !self.exceptions_said || !self.down_said;
        if self.progress.is_due(now, urgent, self.acks_paused) {
            let (moved, took) = self.progress.publish(now);
            self.counts.took.extend(took);
            if !moved.is_empty() {
                self.outputs.push(Output::Proved(moved));
            }
            if !self.acks_paused {
                let ack = self.ack();
                self.outputs.push(Output::Send(replicate_request::Message::Ack(ack)));
            }
        }
        let to_store = self.progress.take_due_positions(now);
        if !to_store.is_empty() {
            let rows = self.rows(to_store);
            self.outputs.push(Output::StorePositions(rows));
        }
    }

    fn ack(&mut self) -> Ack {
        let mut ack = Ack::default();
        self.progress.say(&mut ack);
        if !self.exceptions_said {
            self.exceptions_said = true;
            ack.quarantined_complete = true;
            ack.quarantined = self
                .setup
                .exceptions
                .iter()
                .map(|(key, exception)| QuarantinedRun {
                    namespace_id: key.namespace.to_string(),
                    workflow_id: key.workflow.to_string(),
                    run_id: key.run.to_string(),
                    reason: exception.reason.clone(),
                })
                .collect();
        }
        if !self.down_said {
            self.down_said = true;
            ack.down_complete = true;
            ack.down.clone_from(&self.setup.down);
        }
        ack
    }
}

#[cfg(test)]
mod tests;
