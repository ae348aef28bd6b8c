//! What a run of the simulator tells: always a hash over the bytes of every transition, and, when somebody wants to read
//! it, a recording: one line an event, every message, band, version, verdict and branch tree. The recording is what
//! `sim replay` prints and what the HTML report shows.

use antipode_core::ids::Timestamp;
use antipode_persistence::rows::Group;
use serde::Serialize;

/// What kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A client's call and its answer.
    Client,
    /// A worker's poll or completion.
    Worker,
    /// A verdict on a replicated entry.
    Verdict,
    /// A fault that was injected, or its end.
    Fault,
    /// A failover, forced or by hand-over, step by step.
    Failover,
    /// Something that a shard did or counted.
    Shard,
    /// Streams that begin or end.
    Link,
    /// An expectation or oracle that did not hold.
    Finding,
}

impl Kind {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Verdict => "verdict",
            Self::Fault => "fault",
            Self::Failover => "failover",
            Self::Shard => "shard",
            Self::Link => "link",
            Self::Finding => "FINDING",
        }
    }
}

/// One readable line.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Step of the scheduler.
    pub step: u64,
    /// Virtual nanoseconds since the beginning.
    pub at: i64,
    /// Kind.
    pub kind: Kind,
    /// Region by index; none: the world.
    pub region: Option<usize>,
    /// Workflow id.
    pub workflow: Option<String>,
    /// Run id, first eight digits.
    pub run: Option<String>,
    /// The sentence.
    pub text: String,
    /// More, for verdicts: the report of `conflict::explain`.
    pub detail: Option<serde_json::Value>,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is on its way.
    Travelling,
    /// It arrived.
    Delivered,
    /// It was lost.
    Dropped,
    /// It met a cut.
    Cut,
    /// Its stream had ended when it arrived.
    Stale,
}

/// One message between regions.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// Number.
    pub id: u64,
    /// Sender, by index.
    pub from: usize,
    /// Receiver, by index.
    pub to: usize,
    /// `open`, `records`, `entries`, `ack`, `fetch`, `fetched`, `release`, …
    pub kind: &'static str,
    /// When it was sent.
    pub sent: i64,
    /// When it arrived, or would have.
    pub arrived: i64,
    /// How it ended.
    pub fate: Fate,
    /// It is a second copy.
    pub copy: bool,
    /// Workflow ids it is about.
    pub workflows: Vec<String>,
    /// What is in it, in words.
    pub text: String,
}

/// A time during which something was so.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Band {
    /// One direction is cut.
    Cut {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// Begin.
        since: i64,
        /// End; none: it lasted.
        until: Option<i64>,
    },
    /// A region is down.
    Crash {
        /// Region.
        region: usize,
        /// Begin.
        since: i64,
        /// End; none: it stayed down.
        until: Option<i64>,
    },
}

/// What a region believes about its namespace, from this moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Belief {
    /// When.
    pub at: i64,
    /// Region, by index.
    pub region: usize,
    /// Namespace.
    pub namespace: String,
    /// Failover version.
    pub version: i64,
    /// Active region, by name.
    pub active: String,
    /// `active`, `draining` or `released`.
    pub phase: &'static str,
    /// It may write here.
    pub writable: bool,
}

/// An event of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TreeEvent {
    /// Event id.
    pub id: i64,
    /// Version.
    pub version: i64,
    /// Type, as in `WorkflowExecutionStarted`.
    pub kind: String,
}

/// A branch of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TreeBranch {
    /// Version history.
    pub items: String,
    /// Chain value of its tip.
    pub chain: String,
    /// It is the current one.
    pub current: bool,
    /// Last event shared with the current branch; none for that one.
    pub fork: Option<String>,
    /// Why it won or lost.
    pub why: String,
    /// Events: all for the current branch, its own for the others.
    pub events: Vec<TreeEvent>,
}

/// The branches of a run in a region, from this moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TreeView {
    /// When.
    pub at: i64,
    /// Step of the scheduler.
    pub step: u64,
    /// Region, by index.
    pub region: usize,
    /// Workflow id.
    pub workflow: String,
    /// Run id, first eight digits.
    pub run: String,
    /// `open`, `closed` or `superseded`.
    pub state: &'static str,
    /// It owns the workflow id here.
    pub current_run: bool,
    /// Branches, the current one first.
    pub branches: Vec<TreeBranch>,
}

/// A region of the recording.
#[derive(Clone, Debug, Serialize)]
pub struct Lane {
    /// Name.
    pub name: String,
    /// Initial version.
    pub initial: u32,
    /// Shards.
    pub shards: u32,
}

/// A broken law or an expectation that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `V10`, `replay`, `expect`, …
    pub oracle: String,
    /// When.
    pub at: i64,
    /// Step of the scheduler.
    pub step: u64,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.oracle, self.text)
    }
}

/// Everything that a reader may want to see.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recording {
    /// `seed 42` or the name of a scenario.
    pub title: String,
    /// Seed.
    pub seed: u64,
    /// Regions.
    pub lanes: Vec<Lane>,
    /// Virtual nanoseconds at the end.
    pub end: i64,
    /// Steps of the scheduler; most of them leave no line.
    pub steps: u64,
    /// Lines in order.
    pub lines: Vec<Line>,
    /// Messages in order of sending.
    pub messages: Vec<Message>,
    /// Bands.
    pub bands: Vec<Band>,
    /// Beliefs, in order.
    pub beliefs: Vec<Belief>,
    /// Branch trees, in order of change.
    pub trees: Vec<TreeView>,
    /// Findings.
    pub findings: Vec<Finding>,
}

/// The hash and, when wanted, the recording.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    begin: Timestamp,
    /// Step of the scheduler.
    pub step: u64,
    /// Virtual time.
    pub now: Timestamp,
    /// The recording, when somebody wants to read it.
    pub recording: Option<Box<Recording>>,
}

impl Trace {
    /// Nothing yet.
    #[must_use]
    pub fn new(begin: Timestamp, recording: Option<Recording>) -> Self {
        let hasher = blake3::Hasher::new();
        Self { hasher, begin, step: 0, now: begin, recording: recording.map(Box::new) }
    }

    /// Virtual nanoseconds since the beginning.
    #[must_use]
    pub fn since_begin(&self, at: Timestamp) -> i64 {
        at.0 - self.begin.0
    }

    /// Now, in virtual nanoseconds since the beginning.
    #[must_use]
    pub fn at(&self) -> i64 {
        self.since_begin(self.now)
    }

    /// Is somebody going to read it?
    #[must_use]
    pub fn recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Adds bytes to the hash, with their length.
    pub fn hash(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Adds a number to the hash.
    pub fn hash_number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }

    /// Adds every transition of a group that a region committed.
    pub fn hash_group(&mut self, region: usize, group: &Group) {
        self.hash_number(region as u64);
        self.hash_number(self.now.0.unsigned_abs());
        self.hash_number(group.through.0);
        // A chain value stands for the bytes of its batch.
        for row in &group.batches {
            self.hash_number(row.sequence.0);
            self.hash(&row.batch.chain.to_bytes());
        }
        for row in &group.runs {
            self.hash_number(row.changed_at.0);
            self.hash_number(row.wake_at.map_or(0, |at| at.0.unsigned_abs()));
            self.hash(&row.head);
        }
        for row in &group.currents {
            self.hash(&prost::Message::encode_to_vec(&row.record));
        }
        // What else the group writes, all of it without floating point or addresses: its words are its bytes.
        let rest = (&group.deletes, &group.forgets, &group.dispatch, &group.obligations, &group.visibility);
        self.hash(format!("{rest:?}").as_bytes());
    }

    /// The hash so far.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest = self.hasher.finalize();
        digest.to_hex().chars().take(16).collect()
    }

    /// Adds a line, if there is a reader. The sentence is made only then.
    pub fn line(
        &mut self,
        kind: Kind,
        region: Option<usize>,
        workflow: Option<&str>,
        text: impl FnOnce() -> String,
    ) {
        let (step, at) = (self.step, self.at());
        if let Some(recording) = &mut self.recording {
            let workflow = workflow.map(str::to_string);
            recording.lines.push(Line {
                step,
                at,
                kind,
                region,
                workflow,
                run: None,
                text: text(),
                detail: None,
            });
        }
    }
}
