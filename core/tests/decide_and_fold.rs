//! Decisions and the fold agree: after any sequence of requests, the run in memory is what its stored batches, registers and
//! pending events fold to (DESIGN section 3). The fold is the only writer of mutable state, so a run that was decided step by
//! step, one that was replicated batch by batch, and one that is rebuilt from the store are the same run. The sequences hold every
//! request, command and decision that exists: `every_decision_is_generated` finds what was added and is not among them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod agree;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agree::{BUILT, begin, check, request, sources};
use antipode_core::{
    clocks::Clocks,
    decide::{activity, external, reapply},
    identity::ExternalKind,
    ids::{Nanos, RegionId, Timestamp},
    version::Increment,
};
use antipode_proto::api::{
    command::v1::{Command, command::Attributes},
    common::v1::RetryPolicy,
    enums::v1::TimeoutType,
    failure::v1::Failure,
    taskqueue::v1 as taskqueue,
    workflowservice::v1 as ws,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use support::*;

/// An activity was given time (H2): no function of its own.
const EXTENDED: &str = "extended";

/// What happens next; indexes choose among what is possible, so that cases shrink.
#[derive(Clone, Debug)]
enum Action {
    Start(Start),
    Signal(u8),
    SignalWithoutKey,
    Cancel,
    Terminate,
    StartTask,
    CompleteTask(Vec<Wish>, Completion),
    FailTask,
    ResetSticky,
    StartActivity(usize),
    EndActivity(usize, u8),
    Heartbeat(usize),
    Pass(u8),
    /// The clock falls (H2): another machine, or one that was ahead.
    Fall(u8),
    /// The namespace moves away and back: the version grows.
    Move,
    /// Another region takes over, whose clock is so many seconds ahead and knows it (H2).
    TakeOver(u8),
    /// Another region went on from here for a while, lost, and its branch arrives; here the run may be closed meanwhile.
    Diverge(u8, bool),
}

/// A start of the workflow id that has a run already.
#[derive(Clone, Debug)]
struct Start {
    /// It ends an open run (TERMINATE_EXISTING); else an open run stays.
    terminates: bool,
    /// The signal that comes with it, and whether the request has an id.
    signal: Option<(u8, bool)>,
    /// It waits so many seconds for its first task.
    delay: Option<u8>,
    /// It has so many seconds; else five minutes.
    timeout: Option<u8>,
}

impl Start {
    fn plain() -> Self {
        Self { terminates: false, signal: None, delay: None, timeout: None }
    }
}

/// What a completion says beside its commands.
#[derive(Clone, Debug)]
struct Completion {
    /// Another task at once.
    more: bool,
    /// The next one on the worker's own queue.
    sticky: bool,
}

/// One command of a worker: every kind that is built.
#[derive(Clone, Debug)]
enum Wish {
    Activity(u8),
    CancelActivity(usize),
    Timer(u8, u8),
    CancelTimer(usize),
    /// Cannot be done.
    CancelNothing,
    Marker,
    SearchAttribute(u8, bool),
    Memo(u8, bool),
    Complete,
    Canceled,
    Fail,
    ContinueAsNew,
}

fn start() -> impl Strategy<Value = Start> {
    let signal = proptest::option::of((0..12u8, any::<bool>()));
    let few_seconds = |share| proptest::option::weighted(share, 1..60u8);
    (proptest::bool::weighted(0.3), signal, few_seconds(0.2), few_seconds(0.4))
        .prop_map(|(terminates, signal, delay, timeout)| Start { terminates, signal, delay, timeout })
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        16 => (0..24u8).prop_map(Wish::Activity),
        4 => (0..4usize).prop_map(Wish::CancelActivity),
        8 => (0..24u8, 1..20u8).prop_map(|(id, length)| Wish::Timer(id, length)),
        4 => (0..4usize).prop_map(Wish::CancelTimer),
        1 => Just(Wish::CancelNothing),
        2 => Just(Wish::Marker),
        3 => (0..3u8, any::<bool>()).prop_map(|(key, set)| Wish::SearchAttribute(key, set)),
        3 => (0..3u8, any::<bool>()).prop_map(|(key, set)| Wish::Memo(key, set)),
        1 => Just(Wish::Complete),
        1 => Just(Wish::Canceled),
        1 => Just(Wish::Fail),
        2 => Just(Wish::ContinueAsNew),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => start().prop_map(Action::Start),
        6 => (0..12u8).prop_map(Action::Signal),
        2 => Just(Action::SignalWithoutKey),
        2 => Just(Action::Cancel),
        1 => Just(Action::Terminate),
        16 => Just(Action::StartTask),
        16 => (proptest::collection::vec(wish(), 0..4), any::<bool>(), any::<bool>())
            .prop_map(|(wishes, more, sticky)| Action::CompleteTask(wishes, Completion { more, sticky })),
        2 => Just(Action::FailTask),
        1 => Just(Action::ResetSticky),
        12 => (0..4usize).prop_map(Action::StartActivity),
        8 => (0..4usize, 0..4u8).prop_map(|(index, how)| Action::EndActivity(index, how)),
        4 => (0..4usize).prop_map(Action::Heartbeat),
        8 => prop_oneof![3 => 1..8u8, 1 => 8..60u8].prop_map(Action::Pass),
        2 => (1..200u8).prop_map(Action::Fall),
        2 => Just(Action::Move),
        3 => (0..100u8).prop_map(Action::TakeOver),
        2 => (0..4u8, proptest::bool::weighted(0.2)).prop_map(|(signals, close)| Action::Diverge(signals, close)),
    ]
}

fn open_activity(author: &Author, index: usize, started: bool) -> Option<String> {
    let open: Vec<_> = author
        .run
        .state
        .activity_ids
        .iter()
        .filter(|(_, scheduled)| {
            let view = author.run.activity(**scheduled).unwrap();
            view.attempt.started == started && !view.decided
        })
        .map(|(id, _)| id.clone())
        .collect();
    (!open.is_empty()).then(|| open[index % open.len()].clone())
}

fn act(author: &mut Author, action: &Action, seen: &mut Seen) {
    match action {
        Action::Start(start) => start_over(author, start, seen),
        Action::Fall(seconds) => author.now -= i64::from(*seconds) * SECOND,
        _ if author.run.state.is_open() => act_on(author, action, seen),
        // Whatever was to be done with it, or another run is started: a case does not end with its first run.
        Action::StartTask | Action::CompleteTask(..) => start_over(author, &Start::plain(), seen),
        _ => {}
    }
    if !author.run.state.is_open() && reapply::file_unclaimed(&mut author.run, Timestamp(author.now)) {
        seen.did("", "reapply::file_unclaimed");
    }
    if author.successor.is_some() {
        check(author);
        seen.run(author);
        seen.did("", "start::start");
        author.follow();
    }
}

fn act_on(author: &mut Author, action: &Action, seen: &mut Seen) {
    let accepted = "external::accept";
    match action {
        Action::Start(_) | Action::Fall(_) => {}
        Action::Signal(name) => {
            author.signal(&format!("s{name}"));
            seen.did("Signal", accepted);
        }
        Action::SignalWithoutKey => author.signal_as("bare", "", false),
        Action::Cancel => {
            author.cancel("");
            seen.did("RequestCancel", accepted);
        }
        Action::Terminate => {
            author.terminate();
            seen.did("Terminate", "external::terminate");
        }
        Action::StartTask => {
            if author.start_task() {
                seen.did("WorkflowTaskStart", "workflow_task::start");
            }
        }
        Action::CompleteTask(wishes, how) => complete_task(author, wishes, how, seen),
        Action::FailTask => {
            if author.held_task().is_some() {
                author.fail_task();
                seen.did("WorkflowTaskFailed", "workflow_task::respond_failed");
            }
        }
        Action::ResetSticky => {
            // All that the shard does for it.
            author.run.sticky = None;
            seen.did("ResetSticky", "");
        }
        Action::StartActivity(index) => {
            if let Some(id) = open_activity(author, *index, false) {
                author.start_activity(&id);
                seen.did("ActivityTaskStart", "activity::start");
            }
        }
        Action::EndActivity(index, how) => {
            if let Some(id) = open_activity(author, *index, true) {
                let end = end(*how);
                seen.did(asked_by(&end), "activity::end");
                author.end_activity(&id, end);
            }
        }
        Action::Heartbeat(index) => {
            if let Some(id) = open_activity(author, *index, true) {
                author.heartbeat(&id, "beat");
                seen.did("ActivityHeartbeat", "activity::heartbeat");
            }
        }
        Action::Pass(length) => {
            author.pass(i64::from(*length));
            settled(author);
            seen.did("", "due::settle");
        }
        Action::Move => {
            author.version += 10;
            author.settle();
            settled(author);
        }
        Action::TakeOver(ahead) => take_over(author, i64::from(*ahead)),
        Action::Diverge(signals, close) => diverge(author, *signals, *close),
    }
    let given = |scheduled| author.run.activity(scheduled).and_then(|view| view.attempt.extended);
    if author.run.state.activities.keys().any(|scheduled| given(*scheduled).is_some()) {
        seen.did("", EXTENDED);
    }
}

/// Regions 1 and 2 take turns; the clock of the one that had it is measured to a second.
fn take_over(author: &mut Author, ahead: i64) {
    let before = author.region;
    author.region = 3 - before;
    author.version = author.version / 10 * 10 + 10 + i64::from(author.region);
    author.now += ahead * SECOND;
    author.run.sticky = None;
    let mut clocks = Clocks::new(Increment::DEFAULT);
    clocks.measured(RegionId(before), Nanos::seconds(ahead + 1));
    author.clocks = Arc::new(clocks);
    author.settle();
    settled(author);
}

fn request_id(name: u8, keyed: bool) -> String {
    if keyed { format!("request-s{name}") } else { String::new() }
}

/// A start, alone or with a signal, as the shard decides it by its policy: in place of the open run, after a closed one, or, with a
/// signal, as a signal of the run that stays. What was in its way is the same run everywhere, too.
fn start_over(author: &mut Author, start: &Start, seen: &mut Seen) {
    let asked = if start.signal.is_some() { "SignalWithStart" } else { "Start" };
    let open = author.run.state.is_open();
    if open && !start.terminates {
        // Without a signal it is refused and nothing is decided.
        if let Some((name, keyed)) = start.signal {
            author.signal_as(&format!("s{name}"), &request_id(name, keyed), false);
            seen.did(asked, "external::accept");
        }
        return;
    }
    let wanted = ws::StartWorkflowExecutionRequest {
        request_id: format!("start-{}", author.sequence),
        workflow_start_delay: start.delay.and_then(|delay| seconds(i64::from(delay))),
        workflow_run_timeout: seconds(start.timeout.map_or(300, i64::from)),
        ..request()
    };
    let signal = start.signal.map(|(name, keyed)| {
        external::signal(&ws::SignalWorkflowExecutionRequest {
            signal_name: format!("s{name}"),
            request_id: request_id(name, keyed),
            ..Default::default()
        })
    });
    let signalled = signal.is_some();
    let mut old = author.start_over(&wanted, signal);
    assert!(!old.run.state.is_open() && author.run.state.is_open());
    assert_eq!(author.signals().len(), usize::from(signalled));
    reapply::file_unclaimed(&mut old.run, Timestamp(old.now));
    check(&old);
    seen.run(&old);
    seen.did(asked, "start::start");
    if open {
        seen.did("", "external::terminate");
    }
}

fn end(how: u8) -> activity::End {
    let failure = Failure { message: "no".to_string(), ..Default::default() };
    match how {
        0 => activity::End::Completed(Some(payloads("done"))),
        1 => activity::End::Failed(failure),
        2 => activity::End::Canceled(None),
        _ => activity::End::TimedOut(TimeoutType::StartToClose),
    }
}

/// The request that ends an activity's attempt like this; none: the clock does.
fn asked_by(end: &activity::End) -> &'static str {
    match end {
        activity::End::Completed(_) => "ActivityCompleted",
        activity::End::Failed(_) => "ActivityFailed",
        activity::End::Canceled(_) => "ActivityCanceled",
        activity::End::TimedOut(_) => "",
    }
}

/// What was due is done: the next wake-up lies ahead.
fn settled(author: &Author) {
    let (wake, now) = (author.wake(), Timestamp(author.now));
    assert!(wake.is_none_or(|wake| wake > now), "still due at {wake:?}, now {now:?}");
}

/// A second region writes under a version of its own; this one, made active above it, gets that branch and takes over what
/// clients gave it.
fn diverge(author: &mut Author, signals: u8, close: bool) {
    let mut other = author.elsewhere(3, author.version / 10 * 10 + 3);
    author.version += 10;
    author.settle();
    if !author.run.state.is_open() {
        return;
    }
    author.signal_as("here", "", false);
    for number in 0..signals {
        other.signal_as("there", "", number % 2 == 0);
    }
    other.cancel("");
    if close {
        author.terminate();
    }
    author.receive(&other);
    author.merge(&other);
    author.settle();
}

fn complete_task(author: &mut Author, wishes: &[Wish], how: &Completion, seen: &mut Seen) {
    let Some(presented) = author.held_task() else { return };
    let commands: Vec<_> = wishes.iter().filter_map(|wish| command(author, wish)).collect();
    let kinds: Vec<_> = commands.iter().map(|command| command.command_type).collect();
    let sticky_attributes = how.sticky.then(|| taskqueue::StickyExecutionAttributes {
        worker_task_queue: Some(taskqueue::TaskQueue { name: "own".to_string(), ..Default::default() }),
        schedule_to_start_timeout: seconds(5),
    });
    let request = ws::RespondWorkflowTaskCompletedRequest {
        commands,
        force_create_new_workflow_task: how.more,
        sticky_attributes,
        ..Default::default()
    };
    // Commands that cannot be done fail the task by an event, which is folded like any other.
    let refused = author.complete_request(&presented, &request).unwrap();
    seen.did("WorkflowTaskCompleted", "commands::complete");
    if refused.is_none() {
        seen.commands.extend(kinds);
    }
}

/// An activity that is tried again when it fails; an odd one is not.
fn activity_once_or_often(id: u8) -> Command {
    let mut command = activity(&format!("a{id}"));
    if let Some(Attributes::ScheduleActivityTaskCommandAttributes(attributes)) = &mut command.attributes {
        attributes.retry_policy =
            Some(RetryPolicy { maximum_attempts: i32::from(id % 2), ..Default::default() });
    }
    command
}

fn command(author: &Author, wish: &Wish) -> Option<Command> {
    let text = |set: bool| if set { "1" } else { "" };
    Some(match wish {
        Wish::Activity(id) => activity_once_or_often(*id),
        Wish::CancelActivity(index) => {
            let open: Vec<_> = author.run.state.activities.keys().collect();
            cancel_activity(**open.get(index % open.len().max(1))?)
        }
        Wish::Timer(id, length) => timer(&format!("t{id}"), i64::from(*length)),
        Wish::CancelTimer(index) => {
            let open: Vec<_> = author.run.state.timers.keys().collect();
            cancel_timer(open.get(index % open.len().max(1))?)
        }
        Wish::CancelNothing => cancel_timer("none"),
        Wish::Marker => marker("version"),
        Wish::SearchAttribute(key, set) => search_attribute(&format!("k{key}"), text(*set)),
        Wish::Memo(key, set) => memo(&format!("m{key}"), text(*set)),
        Wish::Complete => complete(),
        Wish::Canceled => canceled(),
        Wish::Fail => fail(),
        Wish::ContinueAsNew => continue_as_new(),
    })
}

/// What cases went through.
#[derive(Debug, Default)]
struct Seen {
    /// How often each request of the shard, and each entry point of the core.
    counts: BTreeMap<&'static str, usize>,
    /// Kinds of commands that were done.
    commands: BTreeSet<i32>,
    /// Events that were written, as an outline names them.
    events: BTreeSet<String>,
    /// Kinds of the identities that were written.
    kinds: BTreeSet<ExternalKind>,
}

impl Seen {
    /// A request, if it was one, was decided by this function of the core.
    fn did(&mut self, request: &'static str, entry: &'static str) {
        for name in [request, entry] {
            *self.counts.entry(name).or_default() += 1;
        }
    }

    /// What a run holds in the end.
    fn run(&mut self, author: &Author) {
        let name = |line: String| line.split(' ').next_back().map(str::to_string);
        self.events.extend(author.outline().into_iter().filter_map(name));
        for batch in &author.batches {
            self.kinds.extend(batch.envelope.identities.iter().map(|entry| entry.identity.kind));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn decided_stored_and_replicated_runs_are_the_same(actions in proptest::collection::vec(action(), 1..60)) {
        let mut author = begin();
        for action in &actions {
            act(&mut author, action, &mut Seen::default());
            check(&author);
        }
    }
}

/// Whether an event of this kind has a decision; whoever adds a kind has to say.
fn is_built(kind: ExternalKind) -> bool {
    match kind {
        ExternalKind::Signal
        | ExternalKind::Cancel
        | ExternalKind::Terminate
        | ExternalKind::Start
        | ExternalKind::ActivityOutcome => true,
        ExternalKind::Update | ExternalKind::Options => false,
    }
}

/// The property above says something about what its cases hold: every function of the core that writes a run, every request that
/// the shard has a decision for, every command that is built, every event and identity that a decision can write. What exists
/// is read from the sources, so that what is added later is missed here.
#[test]
fn every_decision_is_generated() {
    let mut seen = Seen::default();
    let mut runner = TestRunner::deterministic();
    let cases = proptest::collection::vec(action(), 30..60);
    for _ in 0..300 {
        let mut author = begin();
        for action in cases.new_tree(&mut runner).unwrap().current() {
            act(&mut author, &action, &mut seen);
        }
        seen.run(&author);
    }
    let (entries, requests) = (sources::entry_points(), sources::writing_requests());
    assert!(entries.len() >= 11 && requests.len() >= 14, "{entries:?} {requests:?}");
    for name in entries.iter().chain(&requests).chain([&EXTENDED.to_string()]) {
        let times = seen.counts.get(name.as_str()).copied().unwrap_or_default();
        assert!(times >= 10, "{name} is generated {times} times: {:?}", seen.counts);
    }
    let built: BTreeSet<i32> = BUILT.iter().map(|kind| *kind as i32).collect();
    assert_eq!(seen.commands, built, "commands that are done, and those that are built");
    let known = sources::written_events();
    assert!(known.len() >= 27, "{known:?}");
    assert_eq!(seen.events, known, "events that are written, and those that a decision can write");
    for number in 0..=255 {
        if let Some(kind) = ExternalKind::from_number(number) {
            assert_eq!(seen.kinds.contains(&kind), is_built(kind), "{kind:?}");
        }
    }
}
