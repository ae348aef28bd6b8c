//! The words of a scenario: a world, and steps that happen one after the other. The same words make up a YAML scenario, a
//! random schedule (which is a script that a seed writes while it runs) and the minimal script that shrinking leaves.

use serde::{Deserialize, Serialize};

use super::span::Span;

/// A scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Name, as the file's.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Rules, laws, examples, incidents and upstream scenarios that it stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cites: Vec<String>,
    /// The feature that is not built yet: the scenario does not run, and is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// The world.
    #[serde(default)]
    pub world: Setup,
    /// What happens, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What may be at the end though it is no fault of the code: derived from what happened by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub end: End,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How a scenario ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Everything heals and comes to rest, then all oracles look.
    #[default]
    Rest,
    /// It stops where it is: for scenarios in which a region never returns.
    Stop,
}

/// The world at the beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Setup {
    /// Regions in order of their initial versions: 1, 2, 3, …
    pub regions: Vec<RegionSetup>,
    /// Version increment.
    pub increment: u32,
    /// The region in which the namespace is registered.
    pub active: String,
    /// The namespace's regions; empty: all.
    pub members: Vec<String>,
    /// The namespace is local to the region in which it is registered, until it is promoted.
    pub local: bool,
    /// Retention of the namespace.
    pub retention: Span,
    /// Seed of what the world itself decides: delays, faults of the net.
    pub seed: u64,
    /// The net.
    pub net: NetSetup,
    /// How long a commit takes, from and to.
    pub commit: [Span; 2],
    /// How long workers think, from and to.
    pub think: [Span; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            regions: vec![RegionSetup::named("east"), RegionSetup::named("west")],
            increment: 10,
            active: String::new(),
            members: Vec::new(),
            local: false,
            retention: Span::seconds(3 * 86_400),
            seed: 1,
            net: NetSetup::default(),
            commit: [Span::millis(1), Span::millis(1)],
            think: [Span::millis(5), Span::millis(5)],
        }
    }
}

/// A region at the beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSetup {
    /// Name.
    pub name: String,
    /// Shards.
    #[serde(default = "one")]
    pub shards: u32,
    /// How far its clock is off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skew: Span,
    /// Workers poll here.
    #[serde(default = "yes")]
    pub workers: bool,
    /// It runs the previous version of the software: it offers neither this fold nor these features, and uses none of them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub previous: bool,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl RegionSetup {
    /// A region with one shard and workers.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_string(), shards: 1, skew: Span(0), workers: true, previous: false }
    }
}

/// What the net does to messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetSetup {
    /// How long a message takes, from and to.
    pub delay: [Span; 2],
    /// Messages in a thousand that are lost; their stream notices at the next one.
    pub drop: u32,
    /// Messages in a thousand that arrive twice.
    pub duplicate: u32,
    /// Messages in a thousand that overtake or are overtaken.
    pub reorder: u32,
    /// Messages in a thousand with a batch whose events their source breaks off before it sends them: nobody can read them.
    pub corrupt: u32,
    /// Messages in a thousand with a batch of which one bit changes on the way: it may decode still (G1).
    pub flip: u32,
    /// Answers in a thousand that never reach the client who asked.
    pub answers: u32,
}

impl Default for NetSetup {
    fn default() -> Self {
        let delay = [Span::millis(5), Span::millis(5)];
        Self { delay, drop: 0, duplicate: 0, reorder: 0, corrupt: 0, flip: 0, answers: 0 }
    }
}

/// One step. It waits for the one before it, then for its own moment, and happens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Not before this moment, counted from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Span>,
    /// So long after the step before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Span>,
    /// When this is so. What never comes within a virtual hour is a finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Starts a workflow."]
    pub start: Option<StartStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Sends a signal."]
    pub signal: Option<CallStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Signals, starting the workflow where there is none."]
    pub signal_with_start: Option<StartStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Requests cancellation."]
    pub cancel: Option<CallStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Terminates."]
    pub terminate: Option<CallStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Cuts links."]
    pub cut: Option<LinkStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Heals links; without names all of them."]
    pub heal: Option<LinkStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Changes what the net does from now on."]
    pub net: Option<NetSetup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Forced failover to a region, which executes it."]
    pub force: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Graceful hand-over by the active region."]
    pub hand_over: Option<HandOverStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "The active region takes its draining back."]
    pub undo: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Changes the namespace's record."]
    pub namespace: Option<NamespaceStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "A region dies and, after a while, starts again."]
    pub crash: Option<CrashStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "The next commits of a region end like this."]
    pub fail: Option<FailStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Commits of a region take longer from now on."]
    pub slow: Option<SlowStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "A region's clock jumps."]
    pub skew: Option<SkewStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Remembers a region's store."]
    pub backup: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "A region dies and starts with the store remembered last, as a new incarnation."]
    pub restore: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Entries of a workflow are held back on a link, or let go."]
    pub hold: Option<HoldStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "A region forgets its positions: everything is sent again."]
    pub redeliver: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Workers of a region stop, start, or lose what they hold."]
    pub workers: Option<WorkerStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "The cache of a region's shards is dropped."]
    pub evict: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Quarantined runs of a region are replayed."]
    pub replay: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Nothing but time passes."]
    pub wait: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Everything comes to rest as far as links allow; with `heal` everything heals first."]
    pub settle: Option<Settle>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc = "Something must be so."]
    pub expect: Option<Expect>,
}

/// How far a settling goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settle {
    /// Links stay as they are.
    Cut,
    /// Everything heals first.
    Heal,
}

/// A moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Moment {
    /// In this region.
    #[serde(rename = "in")]
    pub region: String,
    /// The store has this workflow's event, written as `12@1`, on the current branch of any run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Of this workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow: String,
    /// The namespace's record is in this phase: active, draining, released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The namespace's record has at least this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// A worker holds a task of this kind for the workflow: `workflow-task` or `activity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// A call of this name was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// A commit is in flight.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub committing: bool,
    /// An activity of the workflow's current run has come to this attempt, or a later one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// An interesting state was reached, or a fault counted, anywhere…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// … so often; without it once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// Starts a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartStep {
    /// Workflow id.
    pub workflow: String,
    /// The region asked.
    #[serde(rename = "in")]
    pub region: String,
    /// What the workflow does: see `program`. Empty: it waits for ever.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub program: Vec<String>,
    /// Request id; empty: one of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the signal, for signal-with-start.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Reuse policy: `allow-duplicate`, `allow-duplicate-failed-only`, `reject-duplicate`, `terminate-if-running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<String>,
    /// Conflict policy: `fail`, `use-existing`, `terminate-existing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// Workflow run timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_timeout: Option<Span>,
    /// Attempts of the workflow's retry policy; none: no policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// How long the first workflow task waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// The client asks once, in this region only, whatever it answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// A call about a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallStep {
    /// Workflow id.
    pub workflow: String,
    /// The region asked.
    #[serde(rename = "in")]
    pub region: String,
    /// Request id; empty: one of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the signal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Only this run: the id that the start with this request id was told. Empty: the current run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_of: String,
    /// The client asks once, in this region only, whatever it answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// Directions of links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkStep {
    /// Sender; empty: any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Receiver; empty: any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Both directions between two regions, or between one and all others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<String>,
}

/// A graceful hand-over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandOverStep {
    /// The new active region.
    pub to: String,
    /// How long the old one waits before it takes its draining back.
    pub deadline: Option<Span>,
}

/// A change of the namespace's record, made in a region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamespaceStep {
    /// The region asked.
    #[serde(rename = "in")]
    pub region: String,
    /// New description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// New retention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// New list of regions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// A local namespace becomes a global one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub promote: bool,
}

/// A crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrashStep {
    /// The region.
    pub region: String,
    /// How long it is down; none: until `heal`, or for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Span>,
    /// What was being written is lost, written, or torn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Written>,
    /// It comes back with the previous version of the software, or with this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<bool>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Written {
    /// Nothing of it.
    Lost,
    /// All of it.
    Written,
    /// Of the commits that were in flight only the first, in the order in which they began. A commit is all or nothing in
    /// every store, so nothing smaller can tear.
    Torn,
}

/// How commits fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failing {
    /// Refused; nothing is written.
    Reject,
    /// The outcome is unknown; nothing is written.
    UnknownLost,
    /// The outcome is unknown; all is written.
    UnknownWritten,
}

/// Commits that fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailStep {
    /// The region.
    #[serde(rename = "in")]
    pub region: String,
    /// How.
    pub how: Failing,
    /// How many.
    #[serde(default = "one")]
    pub times: u32,
}

/// Commits that take long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowStep {
    /// The region.
    #[serde(rename = "in")]
    pub region: String,
    /// How long a commit takes from now on.
    pub commit: Span,
}

/// A jump of a clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkewStep {
    /// The region.
    #[serde(rename = "in")]
    pub region: String,
    /// How far it is off from now on.
    pub by: Span,
}

/// Entries held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HoldStep {
    /// The workflow; all its runs, also later ones.
    pub workflow: String,
    /// Only this run: the id that the start with this request id was told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_of: String,
    /// Only runs that begin from now on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub later: bool,
    /// Whoever asks for it gets it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fetchable: bool,
    /// The sender.
    pub from: String,
    /// Let go.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
}

/// Workers of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerStep {
    /// The region.
    #[serde(rename = "in")]
    pub region: String,
    /// They stop polling and completing (but keep what they hold).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
    /// They start polling.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub start: bool,
    /// They forget what they hold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub crash: bool,
    /// Tasks in a thousand that they lose from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lose: Option<u32>,
    /// Workflow tasks in a thousand that they fail from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail: Option<u32>,
}

/// Something that must be so. Every field that is set is checked; regions by name, `all` for every region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Where; empty: in all regions that are up.
    #[serde(rename = "in", skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Of this workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow: String,
    /// Of the run whose start had this request id; empty: the current run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_of: String,
    /// Status: running, completed, failed, canceled, terminated, continued-as-new, timed-out, or none (no such run).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The history of the current branch: `3@1 WorkflowTaskStarted` an event, `…` for anything between.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<String>,
    /// Version histories of all branches, in any order: `[(3,1),(5,2)]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// Version history of the current branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Request ids of the signals on the current branch, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals: Option<Vec<String>>,
    /// Request ids of events filed as unclaimed anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclaimed: Option<Vec<String>>,
    /// How many runs of the workflow id are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<usize>,
    /// How many of them are superseded (zombies).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded: Option<usize>,
    /// The run that owns the workflow id: the one whose start had this request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Failover version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Active region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Phase: active, draining, released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The region may write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<bool>,
    /// Description of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Regions of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Retention of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// Attempt of the run's pending activities, in the order in which they were scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<i32>>,
    /// Attempt of the run's pending workflow task; 0: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_attempt: Option<i32>,
    /// Request ids of external events that wait for a workflow task to end (pending, A2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Vec<String>>,
    /// All regions that are up have the same runs of the workflow, byte for byte, apart from what is a region's own (G3).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub agree: bool,
    /// Call of this request id…
    #[serde(skip_serializing_if = "String::is_empty")]
    pub call: String,
    /// … ended so: ok, refused, given-up or waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
    /// How often something happened so far: an interesting state or a counted event by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// At least so often; without it once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// It must not have happened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never: bool,
    /// Runs quarantined there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<usize>,
}
