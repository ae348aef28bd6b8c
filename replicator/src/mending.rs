//! One entry that could not be applied at once, as a machine: a hole is fetched and applied before the entry is offered
//! again, a refusal that passes is waited for, a record that would cover the entry is asked for, and what cannot be applied
//! ends with its reason (E1). Pure. What a fetched entry needs in turn stands above it on an explicit stack; one thing is
//! asked for at a time, so that an answer always belongs to the top.

use std::{collections::VecDeque, sync::Arc};

use antipode_core::{
    chain::ChainValue,
    ids::{FailoverVersion, NamespaceId, Nanos, RunKey, Timestamp},
    version_history::VersionHistory,
};
use antipode_history::api::{Applied, Replicated};
use antipode_proto::link::{self, FetchRunRequest, FetchRunResponse};

use crate::{
    entry::{self, Received, Unreadable},
    records::{Records, covers},
};

/// A fetched entry may itself need something, and so on: not deeper than this.
const DEPTH_MAX: usize = 8;
/// How often one entry may find a hole before it counts as one that cannot be filled.
const HOLES_MAX: u32 = 256;
/// How often one region is asked again because its answer changed on the way.
const CHANGED_MAX: u32 = 3;
/// How often nobody may have what is missing.
const NOWHERE_MAX: u32 = 5;
/// How often all regions are asked for a namespace record that would cover an entry.
const RECORDS_MAX: u32 = 5;
const BACKOFF_FIRST: Nanos = Nanos::millis(20);
const BACKOFF_MAX: Nanos = Nanos::seconds(2);

/// What is missing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Run.
    pub key: RunKey,
    /// A branch known here; empty: nothing is.
    pub known: VersionHistory,
    /// The branch wanted; none: the source's current one.
    pub until: Option<ChainValue>,
}

impl Hole {
    /// All of a run.
    #[must_use]
    pub fn whole(key: &RunKey) -> Self {
        Self { key: key.clone(), known: VersionHistory::default(), until: None }
    }

    /// As a region is asked for it.
    #[must_use]
    pub fn request(&self) -> FetchRunRequest {
        FetchRunRequest {
            namespace_id: self.key.namespace.to_string(),
            workflow_id: self.key.workflow.to_string(),
            run_id: self.key.run.to_string(),
            known: self.known.to_wire(),
            until_chain: self.until.map(ChainValue::to_bytes).unwrap_or_default(),
        }
    }
}

/// How an entry ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It stands.
    Applied,
    /// It stood already.
    Known,
    /// Its namespace does not list this region: nobody here may want it.
    NotOurs,
    /// Its source has the run no more: it was restored to a time before it. What other regions have of it goes back there and
    /// comes from there (E2).
    Gone,
}

/// It cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Poisoned(pub String);

/// What a mending looks at.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Now.
    pub now: Timestamp,
    /// Namespace records here.
    pub records: &'a dyn Records,
    /// Whom to ask, in order: the source first.
    pub peers: &'a [Arc<str>],
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Nothing yet.
    Begin,
    /// The shard's answer.
    Offered(Applied),
    /// A region's answer, or why there is none.
    Fetched(Result<FetchRunResponse, String>),
    /// A region was asked for a record, and its answer is merged; false: it did not answer.
    RecordAsked(bool),
    /// The time is there.
    Woken,
}

/// What is to be done next; its result is the next event.
#[derive(Clone, Debug)]
pub enum Step {
    /// Offer this to the shard that owns the run.
    Offer(RunKey, Replicated),
    /// Ask this region for what is missing.
    Fetch(Arc<str>, Hole),
    /// Ask this region for its record of a namespace, and merge it.
    AskRecord(Arc<str>, NamespaceId),
    /// Come back at this time.
    Wait(Timestamp),
    /// It is over.
    Done(Result<Mended, Poisoned>),
}

/// Waiting times that double.
#[derive(Clone, Debug)]
struct Backoff(Nanos);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF_FIRST)
    }

    fn next(&mut self, now: Timestamp) -> Next {
        let at = now.plus(self.0);
        self.0 = Nanos((self.0.0 * 2).min(BACKOFF_MAX.0));
        Next::Step(Step::Wait(at))
    }
}

/// An event for a frame: from outside, or the end of the frame above it.
enum Input {
    Outside(Event),
    Covered(bool),
    Got(Got),
    Filled { new: bool },
    Settled(Mended),
}

/// How a fetch ended.
enum Got {
    Response(FetchRunResponse),
    Nowhere,
    Unreachable(String),
}

/// What a frame wants.
enum Next {
    Step(Step),
    Push(Frame),
    Pop(Input),
    Fail(String),
}

enum Frame {
    Entry(Entry),
    Record(Record),
    Fetch(Fetch),
    Fetched(Fetched),
    Replay(Replay),
}

/// The mending of one entry, or the replay of one run.
pub struct Mending {
    stack: Vec<Frame>,
    overtaken: Vec<(NamespaceId, FailoverVersion)>,
    changed: Vec<Unreadable>,
}

impl Mending {
    /// Offers an entry until it stands, or cannot. `verdict` is what the shard said already, if it was asked.
    ///
    /// # Errors
    /// [`Poisoned`]: it cannot be read.
    pub fn entry(entry: &link::Entry, verdict: Option<Applied>) -> Result<Self, Poisoned> {
        let received = entry::read(entry).map_err(|unreadable| Poisoned(unreadable.why))?;
        let record = Record::new(received.key.namespace, received.version);
        let judged = verdict.is_some();
        let mut stack = vec![Frame::Entry(Entry::new(received, verdict))];
        if !judged {
            stack.push(Frame::Record(record));
        }
        Ok(Self { stack, overtaken: Vec::new(), changed: Vec::new() })
    }

    /// Brings a quarantined run up to date from its source, whole. Nobody else will do: what came after the failing entry was
    /// only counted, and another region may lack it (E1).
    #[must_use]
    pub fn replay(key: &RunKey) -> Self {
        let replay = Replay { hole: Hole::whole(key), complete: false };
        Self { stack: vec![Frame::Replay(replay)], overtaken: Vec::new(), changed: Vec::new() }
    }

    /// What is to be done after this event.
    pub fn advance(&mut self, event: Event, around: Around<'_>) -> Step {
        let mut input = Input::Outside(event);
        loop {
            let depth = self.stack.iter().filter(|frame| matches!(frame, Frame::Entry(_))).count();
            let Some(top) = self.stack.last_mut() else {
                return Step::Done(Ok(match input {
                    Input::Settled(mended) => mended,
                    _ => Mended::Applied,
                }));
            };
            let next = match top {
                Frame::Entry(entry) => entry.resume(input, around.now, depth),
                Frame::Record(record) => record.resume(&input, around, &mut self.overtaken),
                Frame::Fetch(fetch) => fetch.resume(input, around.peers, &mut self.changed),
                Frame::Fetched(fetched) => fetched.resume(&input),
                Frame::Replay(replay) => replay.resume(input),
            };
            match next {
                Next::Step(step) => return step,
                Next::Push(frame) => {
                    self.stack.push(frame);
                    input = Input::Outside(Event::Begin);
                }
                Next::Pop(value) => {
                    self.stack.pop();
                    input = value;
                }
                Next::Fail(why) => {
                    self.stack.clear();
                    return Step::Done(Err(Poisoned(why)));
                }
            }
        }
    }

    /// Versions of entries that were offered although no region had a record that reached them (F5).
    pub fn take_overtaken(&mut self) -> Vec<(NamespaceId, FailoverVersion)> {
        std::mem::take(&mut self.overtaken)
    }

    /// Answers that changed on their way (G1).
    pub fn take_changed(&mut self) -> Vec<Unreadable> {
        std::mem::take(&mut self.changed)
    }
}

/// Offers one entry until it stands.
struct Entry {
    key: RunKey,
    replicated: Replicated,
    verdict: Option<Applied>,
    hole: Option<Hole>,
    holes: u32,
    nowhere: u32,
    backoff: Backoff,
}

impl Entry {
    fn new(received: Received, verdict: Option<Applied>) -> Self {
        Self {
            key: received.key,
            replicated: received.replicated,
            verdict,
            hole: None,
            holes: 0,
            nowhere: 0,
            backoff: Backoff::new(),
        }
    }

    fn offer(&self) -> Next {
        Next::Step(Step::Offer(self.key.clone(), self.replicated.clone()))
    }

    fn resume(&mut self, input: Input, now: Timestamp, depth: usize) -> Next {
        match input {
            Input::Covered(false) => Next::Pop(Input::Settled(Mended::NotOurs)),
            Input::Outside(Event::Offered(verdict)) => self.judge(verdict, now, depth),
            Input::Got(Got::Response(response)) => self.take(response),
            Input::Got(Got::Unreachable(_)) | Input::Filled { new: false } => self.backoff.next(now),
            Input::Got(Got::Nowhere) => {
                self.nowhere += 1;
                match &self.hole {
                    Some(hole) if self.nowhere >= NOWHERE_MAX => match &self.replicated {
                        // Whoever has a closing batch had its successor too, and deletes it only when all have it (B8, C6).
                        Replicated::Batch(batch) if hole.key.run != self.key.run => {
                            self.replicated = Replicated::Last(Arc::clone(batch));
                            self.offer()
                        }
                        _ => Next::Fail(format!("no region has the events before it: {}", hole.key)),
                    },
                    _ => self.backoff.next(now),
                }
            }
            Input::Filled { new: true } => {
                self.backoff = Backoff::new();
                self.offer()
            }
            Input::Outside(_) | Input::Covered(true) | Input::Settled(_) => match self.verdict.take() {
                Some(verdict) => self.judge(verdict, now, depth),
                None => self.offer(),
            },
        }
    }

    fn judge(&mut self, verdict: Applied, now: Timestamp, depth: usize) -> Next {
        match verdict {
            Applied::Applied(_) => Next::Pop(Input::Settled(Mended::Applied)),
            Applied::Duplicate => Next::Pop(Input::Settled(Mended::Known)),
            Applied::Poison(why) => Next::Fail(why),
            Applied::Retry(_) => self.backoff.next(now),
            Applied::NeedEvents { key, known, until } => {
                self.holes += 1;
                if depth > DEPTH_MAX || self.holes > HOLES_MAX {
                    return Next::Fail(format!("the hole before it could not be filled: {key}"));
                }
                let hole = Hole { key, known, until };
                self.hole = Some(hole.clone());
                Next::Push(Frame::Fetch(Fetch { hole, peer: 0, limit: usize::MAX, failed: None, changed: 0 }))
            }
        }
    }

    fn take(&self, response: FetchRunResponse) -> Next {
        let wanted = self.hole.as_ref().map_or(&self.key, |hole| &hole.key);
        // Of a successor only its first batch is needed before the close of its predecessor (B8); the rest comes by itself.
        let first_only = wanted.run != self.key.run;
        Next::Push(Frame::Fetched(Fetched::new(wanted.clone(), response, first_only)))
    }
}

/// Makes sure that the namespace's record here has reached the version of an entry (F5, R114): asks the source and then
/// the others for theirs.
struct Record {
    namespace: NamespaceId,
    version: Option<FailoverVersion>,
    tries: u32,
    peer: usize,
    answered: bool,
    backoff: Backoff,
}

impl Record {
    fn new(namespace: NamespaceId, version: Option<FailoverVersion>) -> Self {
        Self { namespace, version, tries: 0, peer: 0, answered: false, backoff: Backoff::new() }
    }

    fn resume(
        &mut self,
        input: &Input,
        around: Around<'_>,
        overtaken: &mut Vec<(NamespaceId, FailoverVersion)>,
    ) -> Next {
        if covers(around.records, self.namespace, self.version) {
            return Next::Pop(Input::Covered(true));
        }
        let exists = around.records.version(self.namespace).is_some();
        if let Input::Outside(Event::RecordAsked(answered)) = input {
            self.answered |= answered;
            self.peer += 1;
        } else if self.tries >= RECORDS_MAX {
            // An overtaken record makes a run not writable here; it does not make history unreadable (F5).
            overtaken.extend(self.version.map(|version| (self.namespace, version)));
            return Next::Pop(Input::Covered(exists));
        } else {
            self.peer = 0;
            self.answered = false;
        }
        if let Some(peer) = around.peers.get(self.peer) {
            return Next::Step(Step::AskRecord(Arc::clone(peer), self.namespace));
        }
        if self.answered && !exists {
            return Next::Pop(Input::Covered(false));
        }
        self.tries += 1;
        self.backoff.next(around.now)
    }
}

/// Asks one region after the other for what is missing (R830–R834).
struct Fetch {
    hole: Hole,
    peer: usize,
    /// So many of the peers are asked.
    limit: usize,
    failed: Option<String>,
    /// So often the answer of this peer changed on its way.
    changed: u32,
}

impl Fetch {
    fn resume(&mut self, input: Input, peers: &[Arc<str>], changed: &mut Vec<Unreadable>) -> Next {
        match input {
            Input::Outside(Event::Fetched(Ok(response))) if response.found => {
                // G1: nothing of an answer is looked at before all of it is known to be what was sent.
                let Err(unreadable) = entry::unchanged(&response) else {
                    return Next::Pop(Input::Got(Got::Response(response)));
                };
                self.changed += 1;
                if self.changed >= CHANGED_MAX {
                    (self.peer, self.changed) = (self.peer + 1, 0);
                    self.failed = Some(unreadable.why.clone());
                }
                changed.push(unreadable);
            }
            Input::Outside(Event::Fetched(answer)) => {
                (self.peer, self.changed) = (self.peer + 1, 0);
                if let Err(why) = answer {
                    self.failed = Some(why);
                }
            }
            _ => {}
        }
        match peers.get(self.peer).filter(|_| self.peer < self.limit) {
            Some(peer) => Next::Step(Step::Fetch(Arc::clone(peer), self.hole.clone())),
            // Somebody who did not answer may have it.
            None => Next::Pop(Input::Got(self.failed.take().map_or(Got::Nowhere, Got::Unreachable))),
        }
    }
}

/// Applies what was fetched, in order.
struct Fetched {
    key: RunKey,
    left: VecDeque<link::entry::Entry>,
    received: Option<Received>,
    new: bool,
}

impl Fetched {
    fn new(key: RunKey, response: FetchRunResponse, first_only: bool) -> Self {
        let batches = response.batches.into_iter().map(link::entry::Entry::Batch);
        let state = response.state.filter(|_| !first_only).map(link::entry::Entry::State);
        let limit = if first_only { 1 } else { usize::MAX };
        Self { key, left: batches.chain(state).take(limit).collect(), received: None, new: false }
    }

    fn resume(&mut self, input: &Input) -> Next {
        match input {
            Input::Covered(true) => {
                if let Some(received) = self.received.take() {
                    return Next::Push(Frame::Entry(Entry::new(received, None)));
                }
            }
            Input::Covered(false) => {
                return Next::Fail(format!("namespace {} does not list this region", self.key.namespace));
            }
            Input::Settled(mended) => self.new |= *mended == Mended::Applied,
            Input::Outside(_) | Input::Got(_) | Input::Filled { .. } => {}
        }
        let Some(body) = self.left.pop_front() else {
            return Next::Pop(Input::Filled { new: self.new });
        };
        let received = match entry::read(&link::Entry { sequence: 0, entry: Some(body) }) {
            Ok(received) => received,
            Err(unreadable) => return Next::Fail(unreadable.why),
        };
        if received.key != self.key {
            return Next::Fail(format!("asked for {}, the answer is about {}", self.key, received.key));
        }
        let record = Record::new(received.key.namespace, received.version);
        self.received = Some(received);
        Next::Push(Frame::Record(record))
    }
}

/// Fetches and applies all of a run, piece by piece.
struct Replay {
    hole: Hole,
    complete: bool,
}

impl Replay {
    fn resume(&mut self, input: Input) -> Next {
        match input {
            Input::Got(Got::Response(response)) => {
                // The state comes with the last piece.
                let last =
                    response.batches.last().map(|batch| (batch.envelope.clone(), batch.events.clone()));
                let known = last
                    .and_then(|(envelope, events)| antipode_core::batch::Batch::open(envelope, events).ok());
                self.complete = response.state.is_some() || known.is_none();
                if let Some(batch) = known {
                    self.hole.known = batch.envelope.items;
                }
                Next::Push(Frame::Fetched(Fetched::new(self.hole.key.clone(), response, false)))
            }
            Input::Got(Got::Nowhere) => Next::Pop(Input::Settled(Mended::Gone)),
            Input::Got(Got::Unreachable(why)) => Next::Fail(why),
            Input::Filled { new } if self.complete => {
                Next::Pop(Input::Settled(if new { Mended::Applied } else { Mended::Known }))
            }
            _ => Next::Push(Frame::Fetch(Fetch {
                hole: self.hole.clone(),
                peer: 0,
                limit: 1,
                failed: None,
                changed: 0,
            })),
        }
    }
}

#[cfg(test)]
mod tests;
