//! What every backend asks of a group before it writes anything of it: positions inside the group's range, one final value
//! a row (D3). A group that fails here is a bug of its owner, told in one sentence.

use crate::{
    CommitError,
    rows::{CurrentRow, Group, RunRow},
};

/// Checks a group against itself.
pub(crate) fn group(group: &Group) -> Result<(), CommitError> {
    let rejected = |why: String| Err(CommitError::Rejected(why));
    if group.through < group.after {
        return rejected(format!("the group of {} ends before it begins", group.shard));
    }
    let mut last = group.after;
    for row in &group.batches {
        if row.sequence <= last || row.sequence > group.through {
            return rejected(format!(
                "batch of {} at {} is not after {last} and up to {}: every batch has a position of its own",
                row.batch.envelope.run, row.sequence, group.through
            ));
        }
        last = row.sequence;
    }
    // A row may be written again without a change of its run, for what is derived beside it (a wake-up, a zombie's): it
    // keeps its position then, and peers see nothing new.
    if let Some(run) = group.runs.iter().find(|run| run.changed_at > group.through) {
        return rejected(format!("run {} changed at {}, after the group", run.key, run.changed_at));
    }
    let twice = first_twice(group.runs.iter().map(|row| &row.key))
        .map(|key| format!("run {key}"))
        .or_else(|| {
            first_twice(group.currents.iter().map(|row| &row.key))
                .map(|key| format!("current record of {}", key.workflow))
        })
        .or_else(|| {
            first_twice(group.visibility.iter().map(|row| &row.key)).map(|key| format!("visibility of {key}"))
        })
        .or_else(|| first_twice(group.deletes.iter()).map(|key| format!("the deletion of {key}")));
    twice.map_or(Ok(()), |what| rejected(format!("{what} stands in the group twice")))
}

fn first_twice<'a, K: Ord>(keys: impl Iterator<Item = &'a K>) -> Option<&'a K> {
    let mut keys: Vec<&K> = keys.collect();
    keys.sort_unstable();
    keys.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}

/// What orders current records (B7): the greatest owns the workflow id.
pub(crate) fn order(row: &CurrentRow) -> (i64, u64, u64) {
    let place = row.record.place.unwrap_or_default();
    (row.record.version, place.epoch, place.sequence)
}

/// A current record is never lowered (B6).
pub(crate) fn lowered(row: &CurrentRow) -> CommitError {
    CommitError::Rejected(format!(
        "the current record of {} would be lowered to run {}",
        row.key.workflow, row.record.run_id
    ))
}

/// A run's position only moves forward (C1): a peer that has read past a lower one would never see it.
pub(crate) fn moved_back(row: &RunRow) -> String {
    format!("run {} would move back to {}", row.key, row.changed_at)
}
