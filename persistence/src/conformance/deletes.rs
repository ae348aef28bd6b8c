//! Runs that leave the store: with everything of theirs, in the group's commit or not at all (C6, D3). What is read by
//! position passes over the gap, and a current record stays until it is forgotten by name (B6).

use antipode_core::ids::{Sequence, ShardId, Timestamp};

use super::{
    Failure, Outcome, ensure, ensure_eq,
    fixture::{Owner, current, key, offered, run, visible},
};
use crate::{
    CommitError, Store,
    rows::{LogEntry, ObligationChange, TaskKind},
};

const SHARD: ShardId = ShardId(1);

/// Three runs with a row in every table, at positions 1, 2 and 3; the first two have one workflow id.
async fn three_runs(store: &impl Store) -> Result<Owner, Failure> {
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let keys = [key("w", 1), key("w", 2), key("v", 3)];
    let mut group = owner.started(&keys)?;
    for (row, at) in group.runs.iter_mut().zip(1..) {
        row.wake_at = Some(Timestamp(at));
    }
    for (key, at) in keys.iter().zip(1..) {
        group.dispatch.push(offered(key, "queue", TaskKind::Workflow, at));
        group.dispatch.push(offered(key, "activities", TaskKind::Activity, at));
        group.obligations.push(ObligationChange::Put { key: key.clone(), due: Timestamp(5) });
        group.visibility.push(visible(key, 10, Some(20), 2));
    }
    group.currents = vec![current(&keys[1], 1, 1, 2), current(&keys[2], 1, 1, 3)];
    store.shard_commit(group).await?;
    Ok(owner)
}

/// Ends the check unless exactly these runs are found, in every table.
async fn only(store: &impl Store, numbers: &[u128]) -> Outcome {
    let keys = [key("w", 1), key("w", 2), key("v", 3)];
    let there: Vec<_> =
        numbers.iter().map(|number| keys[usize::try_from(*number - 1).unwrap_or(0)].clone()).collect();
    let namespaces = [keys[0].namespace];
    for key in &keys {
        let expected = there.contains(key);
        let stored = store.run_load(SHARD, key).await?;
        ensure_eq!(stored.is_some_and(|run| run.batches.len() == 1), expected, "{key} and its batch");
        ensure_eq!(store.visibility_get(key).await?.is_some(), expected, "visibility of {key}");
        let listed = store.run_list(SHARD, &key.workflow_key()).await?;
        ensure_eq!(listed.iter().any(|row| row.key == *key), expected, "{key} in the list of runs");
    }
    let woken = store.wake_due(SHARD, &namespaces, Timestamp(99), 9).await?;
    ensure_eq!(woken.into_iter().map(|(_, key)| key).collect::<Vec<_>>(), there, "wake-ups");
    let mut owing: Vec<_> =
        store.obligation_due(SHARD, Timestamp(99), 9).await?.into_iter().map(|(_, key)| key).collect();
    owing.sort_by_key(|key| key.run);
    ensure_eq!(owing, there, "obligations");
    for (queue, kind) in [("queue", TaskKind::Workflow), ("activities", TaskKind::Activity)] {
        let rows = store.dispatch_backlog(SHARD, &namespaces, Some((queue, kind)), Sequence(0), 9).await?;
        ensure_eq!(rows.into_iter().map(|row| row.key).collect::<Vec<_>>(), there, "backlog of {queue}");
    }
    Ok(())
}

/// A deleted run is in no table any more, the others are as they were, and the current record stays (B6).
///
/// # Errors
/// The store does not pass.
pub async fn a_deletion_takes_everything_of_a_run(store: &impl Store) -> Outcome {
    let mut owner = three_runs(store).await?;
    only(store, &[1, 2, 3]).await?;
    let mut group = owner.group(1);
    group.deletes = vec![key("w", 2)];
    store.shard_commit(group).await?;
    only(store, &[1, 3]).await?;
    let record = store.current_load(SHARD, &key("w", 2).workflow_key()).await?;
    ensure_eq!(record, Some(current(&key("w", 2), 1, 1, 2)), "the record stays as a tombstone");
    // A run that is not stored has nothing to delete.
    let mut group = owner.group(1);
    group.deletes = vec![key("w", 2), key("stranger", 9)];
    store.shard_commit(group).await?;
    only(store, &[1, 3]).await
}

/// A group that is refused deletes nothing: not under a fence that does not hold, not beside a row that cannot be written.
///
/// # Errors
/// The store does not pass.
pub async fn a_deletion_is_all_or_nothing(store: &impl Store) -> Outcome {
    let mut stale = three_runs(store).await?;
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let mut group = stale.group(1);
    (group.deletes, group.forgets) = (vec![key("w", 1)], vec![key("v", 3).workflow_key()]);
    let fenced = store.shard_commit(group).await;
    ensure!(matches!(fenced, Err(CommitError::Fenced { .. })), "stale owner: {fenced:?}");
    only(store, &[1, 2, 3]).await?;

    let mut group = owner.clone().group(1);
    (group.deletes, group.forgets) = (vec![key("w", 1)], vec![key("v", 3).workflow_key()]);
    group.visibility = vec![visible(&key("w", 1), 10, None, 1)];
    let rejected = store.shard_commit(group.clone()).await;
    ensure!(matches!(rejected, Err(CommitError::Rejected(_))), "a row of a run that is gone: {rejected:?}");
    let mut twice = owner.clone().group(1);
    twice.deletes = vec![key("w", 1), key("w", 1)];
    let rejected = store.shard_commit(twice).await;
    ensure!(matches!(rejected, Err(CommitError::Rejected(_))), "deleted twice: {rejected:?}");
    only(store, &[1, 2, 3]).await?;
    let record = store.current_load(SHARD, &key("v", 3).workflow_key()).await?;
    ensure!(record.is_some(), "its record is not forgotten either");

    group.visibility.clear();
    let _same_positions = owner.group(1);
    store.shard_commit(group).await?;
    only(store, &[2, 3]).await
}

/// A reader of the log passes over what is gone, and still learns how far the log is complete (C1).
///
/// # Errors
/// The store does not pass.
pub async fn the_log_passes_over_deleted_runs(store: &impl Store) -> Outcome {
    let mut owner = three_runs(store).await?;
    let mut group = owner.group(1);
    group.deletes = vec![key("w", 1), key("v", 3)];
    store.shard_commit(group).await?;
    for bytes_max in [0, usize::MAX] {
        let (mut after, mut found) = (Sequence(0), Vec::new());
        while after < owner.sequence {
            let page = store.log_read(SHARD, after, bytes_max).await?;
            ensure!(page.through > after, "a page moves on: {:?} after {after:?}", page.through);
            found.extend(page.entries.iter().map(LogEntry::sequence));
            after = page.through;
        }
        ensure_eq!(found, [Sequence(2), Sequence(2)], "batch and row of the run that is left");
        ensure_eq!(after, Sequence(4), "complete up to the deletion");
    }
    Ok(())
}

/// A row of the same run in the same group takes the place of what was deleted, also at an older position; the run may be
/// written anew after it.
///
/// # Errors
/// The store does not pass.
pub async fn a_row_takes_the_place_of_a_deleted_run(store: &impl Store) -> Outcome {
    let mut owner = three_runs(store).await?;
    let gone = key("w", 2);
    let mut group = owner.group(1);
    group.deletes = vec![gone.clone()];
    group.runs = vec![run(&gone, Sequence(1), None)];
    group.obligations = vec![ObligationChange::Put { key: gone.clone(), due: Timestamp(70) }];
    store.shard_commit(group).await?;
    let stored = store.run_load(SHARD, &gone).await?;
    let stored = stored.ok_or_else(|| Failure("the row in its place".to_string()))?;
    ensure_eq!((stored.row, stored.batches.len()), (run(&gone, Sequence(1), None), 0), "a row and no batch");
    ensure!(store.visibility_get(&gone).await?.is_none(), "not visible");
    let due = store.obligation_due(SHARD, Timestamp(99), 9).await?;
    ensure_eq!(due.last(), Some(&(Timestamp(70), gone.clone())), "its own obligation");

    let mut again = owner.started(std::slice::from_ref(&gone))?;
    again.deletes = vec![gone.clone()];
    store.shard_commit(again).await?;
    let stored = store.run_load(SHARD, &gone).await?;
    ensure_eq!(stored.map(|run| run.batches.len()), Some(1), "written anew in one group with the deletion");
    let due = store.obligation_due(SHARD, Timestamp(99), 9).await?;
    ensure!(due.iter().all(|(_, key)| *key != gone), "nothing of the row before: {due:?}");
    Ok(())
}

/// A record is gone when it is forgotten by name, and only then may a smaller one be written (B6).
///
/// # Errors
/// The store does not pass.
pub async fn a_record_is_forgotten_by_name(store: &impl Store) -> Outcome {
    let mut owner = three_runs(store).await?;
    let lower = current(&key("w", 1), 0, 1, 1);
    let mut group = owner.clone().group(1);
    group.deletes = vec![key("w", 2)];
    group.currents = vec![lower.clone()];
    let refused = store.shard_commit(group).await;
    ensure!(matches!(refused, Err(CommitError::Rejected(_))), "deletion lowers no record: {refused:?}");

    let mut group = owner.group(1);
    group.deletes = vec![key("w", 2)];
    group.forgets = vec![key("w", 2).workflow_key()];
    store.shard_commit(group).await?;
    ensure!(store.current_load(SHARD, &lower.key).await?.is_none(), "forgotten");
    ensure!(store.current_load(SHARD, &key("v", 3).workflow_key()).await?.is_some(), "the other is not");
    let mut group = owner.group(1);
    group.currents = vec![lower.clone()];
    store.shard_commit(group).await?;
    ensure_eq!(store.current_load(SHARD, &lower.key).await?, Some(lower), "a new beginning");
    Ok(())
}
