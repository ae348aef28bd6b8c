//! Why a task that somebody brings back is discarded, with the numbers (R705–R709, A4, A5). The checks are the core's own; here
//! their answer is put beside what the run says now.

use antipode_core::{
    decide::{activity, workflow_task},
    ids::EventId,
    refusal::Refusal,
    run::Run,
    task::{Presented, TaskRef},
};
use serde::Serialize;

/// Which kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A workflow task.
    Workflow,
    /// An activity task.
    Activity,
}

/// A discarded task, ready for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discard {
    /// The label it is counted under.
    pub reason: String,
    /// The task: `workflow task of event 4@2, attempt 1`.
    pub task: String,
    /// Version history of the run's current branch.
    pub run: String,
    /// What differs, with the numbers.
    pub why: String,
}

impl Discard {
    /// The story in one sentence.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{} is discarded ({}): {}. The run is {}.", self.task, self.reason, self.why, self.run)
    }

    /// The whole story as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Why a task that matching dispatched does not fit the run as it is now; none when it fits.
#[must_use]
pub fn dispatched(run: &Run, kind: Kind, task: &TaskRef) -> Option<Discard> {
    let refusal = match kind {
        Kind::Workflow => workflow_task::check_dispatched(run, task, "").err(),
        Kind::Activity => activity::check_dispatched(run, task, "").err(),
    };
    refusal.and_then(|refusal| told(run, kind, task, None, &refusal))
}

/// Why a task that a worker brings back does not fit the run as it is now; none when it fits.
#[must_use]
pub fn presented(run: &Run, kind: Kind, presented: &Presented) -> Option<Discard> {
    let refusal = match kind {
        Kind::Workflow => workflow_task::check(run, presented).err(),
        Kind::Activity => activity::check(run, presented).err(),
    };
    refusal.and_then(|refusal| told(run, kind, &presented.task, Some(presented), &refusal))
}

fn told(
    run: &Run,
    kind: Kind,
    task: &TaskRef,
    presented: Option<&Presented>,
    refusal: &Refusal,
) -> Option<Discard> {
    let Refusal::TaskNotFound { reason, .. } = refusal else { return None };
    let name = match kind {
        Kind::Workflow => "workflow task",
        Kind::Activity => "activity task",
    };
    let (event, version, attempt) = (task.scheduled.0, task.version, task.attempt);
    Some(Discard {
        reason: (*reason).to_owned(),
        task: format!("{name} of event {event}{version}, attempt {attempt}"),
        run: run.items().to_string(),
        why: why(run, kind, task, presented, reason),
    })
}

fn why(run: &Run, kind: Kind, task: &TaskRef, presented: Option<&Presented>, reason: &str) -> String {
    let event = task.scheduled.0;
    match reason {
        "run_closed" => match &run.state.close {
            Some(close) => format!("the run closed with event {}{}", close.event.0, close.version),
            None => "the run is closed".to_owned(),
        },
        "no_task" => "no workflow task is pending".to_owned(),
        "no_activity" => match version_on_branch(run, task.scheduled) {
            Some(version) => {
                format!("the activity of event {event} is not open; the event has {version} now")
            }
            None => format!("the activity of event {event} is not open, and the branch has no such event"),
        },
        "other_life" => "another life of the store scheduled another activity there".to_owned(),
        "branch_lost" => "it was started on a branch that is not current any more".to_owned(),
        "voided" => "events were appended that its worker has not seen".to_owned(),
        "decided" => "an outcome of this activity was accepted before".to_owned(),
        "already_started" => "another poll has it".to_owned(),
        "not_started" => "its attempt waits for a worker".to_owned(),
        _ => compared(run, kind, task, presented, reason),
    }
}

fn version_on_branch(run: &Run, event: EventId) -> Option<antipode_core::ids::FailoverVersion> {
    run.items().version_of(event)
}

/// The reasons that are a comparison of two numbers.
fn compared(run: &Run, kind: Kind, task: &TaskRef, presented: Option<&Presented>, reason: &str) -> String {
    let held = presented.map(|presented| presented.start_version);
    let now = Now::of(run, kind, task);
    match reason {
        "scheduled_event" => {
            format!("it names event {}, the pending one is event {}", task.scheduled.0, now.scheduled.0)
        }
        "version" => {
            format!("it names event {}{}, the event has {} now", task.scheduled.0, task.version, now.version)
        }
        "attempt" => format!("it is attempt {}, the pending one is attempt {}", task.attempt, now.attempt),
        "stamp" => format!("it has stamp {}, the activity has stamp {}", task.stamp, now.stamp),
        "start_version" => match held {
            Some(held) => {
                format!("its attempt was started under {held}, the pending one under {}", now.started)
            }
            None => format!("the pending attempt was started under {}", now.started),
        },
        other => other.to_owned(),
    }
}

/// The numbers of the pending task that a discarded one is compared with.
#[derive(Default)]
struct Now {
    scheduled: EventId,
    version: antipode_core::ids::FailoverVersion,
    attempt: i32,
    stamp: u32,
    started: antipode_core::ids::FailoverVersion,
}

impl Now {
    fn of(run: &Run, kind: Kind, task: &TaskRef) -> Self {
        let found = match kind {
            Kind::Workflow => run.task().map(|view| Self {
                scheduled: view.scheduled,
                version: view.version,
                attempt: view.attempt,
                stamp: 0,
                started: view.started.map(|started| started.version).unwrap_or_default(),
            }),
            Kind::Activity => run.activity(task.scheduled).map(|view| Self {
                scheduled: view.activity.scheduled,
                version: view.activity.version,
                attempt: view.attempt.attempt,
                stamp: view.attempt.stamp,
                started: antipode_core::ids::FailoverVersion(view.attempt.start_version),
            }),
        };
        found.unwrap_or_default()
    }
}
