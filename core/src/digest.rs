//! Digest of a run (G3): equal in every region that holds the same branches, registers, pending and applied sets, whatever
//! the order in which they came. Nothing local to a region enters it.

use std::fmt;

use prost::Message;

use crate::{
    run::Run,
    state::{TaskStarted, Timer},
    view::TaskView,
};

// Regions of different versions compare digests, so these words stand for ever; what is added to a view later does not enter. Of
// an anchor they have the pair, with which an older version merges registers; where two lives of a store share one (G2), such a
// version holds another state, and the digests differ.

struct TaskWords<'a>(&'a TaskView);
struct StartWords<'a>(&'a TaskStarted);
struct TimerWords<'a>(&'a Timer);

impl fmt::Debug for TaskWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.0;
        f.debug_struct("TaskView")
            .field("scheduled", &task.scheduled)
            .field("version", &task.version)
            .field("attempt", &task.attempt)
            .field("scheduled_at", &task.scheduled_at)
            .field("started", &task.started.as_ref().map(StartWords))
            .field("transient", &task.transient)
            .field("sticky", &task.sticky)
            .finish()
    }
}

impl fmt::Debug for StartWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = self.0;
        f.debug_struct("TaskStarted")
            .field("event", &started.event)
            .field("version", &started.version)
            .field("at", &started.at)
            .field("request_id", &started.request_id)
            .field("identity", &started.identity)
            .finish()
    }
}

impl fmt::Debug for TimerWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timer = self.0;
        f.debug_struct("Timer")
            .field("started", &timer.started)
            .field("version", &timer.version)
            .field("due", &timer.shown)
            .finish()
    }
}

/// BLAKE3 over sorted chain tips of all branches, registers, what is pending and not applied, the applied set, and the
/// run's state by its events. Hexadecimal, 32 characters.
#[must_use]
pub fn digest(run: &Run) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut field = |name: &str, bytes: &[u8]| {
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let mut tips: Vec<_> = run.branches().iter().map(|branch| branch.chain).collect();
    tips.sort();
    for tip in tips {
        field("tip", &tip.0);
    }
    for register in run.registers.by_pair().to_wire() {
        field("register", &register.encode_to_vec());
    }
    for register in run.registers.of_several_lives() {
        field("life", &register.to_wire().encode_to_vec());
    }
    for (identity, pending) in &run.pending {
        if !run.state.applied.contains(identity) {
            field("pending", &identity.to_wire().encode_to_vec());
            for event in &pending.events {
                field("event", &event.encode_to_vec());
            }
        }
    }
    for identity in &run.state.applied {
        field("applied", &identity.to_wire().encode_to_vec());
    }
    field("next", &run.state.next_event.0.to_le_bytes());
    field("version", &run.state.last_version.0.to_le_bytes());
    field("status", &(run.state.status as i32).to_le_bytes());
    field("task", format!("{:?}", run.task().as_ref().map(TaskWords)).as_bytes());
    for activity in run.state.activities.keys() {
        field("activity", &activity.0.to_le_bytes());
    }
    for (id, timer) in &run.state.timers {
        field("timer", format!("{id} {:?}", TimerWords(timer)).as_bytes());
    }
    let hash = hasher.finalize();
    hash.as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
