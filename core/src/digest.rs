//! Digest of a run (G3): equal in every region that holds the same branches, registers, pending and applied sets, whatever
//! the order in which they came. Nothing local to a region enters it.

use prost::Message;

use crate::run::Run;

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
    for register in run.registers.to_wire() {
        field("register", &register.encode_to_vec());
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
    field("task", format!("{:?}", run.task()).as_bytes());
    for activity in run.state.activities.keys() {
        field("activity", &activity.0.to_le_bytes());
    }
    for (id, timer) in &run.state.timers {
        field("timer", format!("{id} {timer:?}").as_bytes());
    }
    let hash = hasher.finalize();
    hash.as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
