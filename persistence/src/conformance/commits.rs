//! Commits: the fence holds inside the database, a group is all or nothing, shards are independent (D2–D4, B6).

use antipode_core::ids::{RangeId, Sequence, ShardId};

use super::{
    Outcome, ensure, ensure_eq,
    fixture::{Owner, current, key, offered, run, visible},
};
use crate::{CommitError, Store, rows::TaskKind};

/// Takes over a shard and sees that the owner before cannot write any more.
///
/// # Errors
/// The store does not pass.
pub async fn a_stale_owner_is_fenced(store: &impl Store) -> Outcome {
    let mut stale = Owner::acquire(store, 1).await?;
    store.shard_commit(stale.started(&[key("w", 1)])?).await?;
    let mut owner = Owner::acquire(store, 1).await?;
    ensure!(owner.range > stale.range, "the range grows with each acquisition");
    ensure_eq!(owner.sequence, Sequence(1), "the new owner finds the committed position");

    let late = store.shard_commit(stale.started(&[key("w", 2)])?).await;
    ensure!(matches!(late, Err(CommitError::Fenced { shard: ShardId(1), .. })), "stale owner: {late:?}");
    ensure_eq!(store.run_load(ShardId(1), &key("w", 2)).await?.is_none(), true, "nothing was written");
    ensure_eq!(store.shard_positions().await?, [(ShardId(1), Sequence(1))], "the position stays");

    store.shard_commit(owner.started(&[key("w", 3)])?).await?;
    ensure!(store.run_load(ShardId(1), &key("w", 3)).await?.is_some(), "the new owner writes");
    Ok(())
}

/// A group that builds on another position than the stored one is refused, and so is one for a shard nobody acquired.
///
/// # Errors
/// The store does not pass.
pub async fn a_wrong_position_is_fenced(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, 1).await?;
    let first = owner.started(&[key("w", 1)])?;
    let skipped = owner.started(&[key("w", 2)])?;
    let ahead = store.shard_commit(skipped).await;
    ensure!(matches!(ahead, Err(CommitError::Fenced { .. })), "ahead of the store: {ahead:?}");
    store.shard_commit(first.clone()).await?;
    let again = store.shard_commit(first).await;
    ensure!(matches!(again, Err(CommitError::Fenced { .. })), "the same group again: {again:?}");
    ensure!(store.run_load(ShardId(1), &key("w", 2)).await?.is_none(), "nothing was written");

    let mut nobody = Owner { shard: ShardId(2), range: RangeId(0), sequence: Sequence(0) };
    let unowned = store.shard_commit(nobody.started(&[key("v", 1)])?).await;
    ensure!(matches!(unowned, Err(CommitError::Fenced { .. })), "a shard without owner: {unowned:?}");
    Ok(())
}

/// The last row of a group fails it; nothing of the rows before it stays.
///
/// # Errors
/// The store does not pass.
pub async fn a_group_is_all_or_nothing(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, 1).await?;
    let before = owner;
    let mut group = owner.started(&[key("w", 1), key("v", 1)])?;
    group.currents.push(current(&key("w", 1), 1, 1, 1));
    group.dispatch.push(offered(&key("w", 1), "queue", TaskKind::Workflow, 1));
    group.visibility.push(visible(&key("w", 1), 10, None, 1));
    // A row of a run that is not stored cannot be written.
    group.visibility.push(visible(&key("stranger", 1), 10, None, 1));
    let refused = store.shard_commit(group.clone()).await;
    ensure!(matches!(refused, Err(CommitError::Rejected(_))), "a row without its run: {refused:?}");

    let shard = ShardId(1);
    ensure!(store.run_load(shard, &key("w", 1)).await?.is_none(), "no run");
    ensure!(store.current_load(shard, &key("w", 1).workflow_key()).await?.is_none(), "no current record");
    ensure!(store.visibility_get(&key("w", 1)).await?.is_none(), "no visibility");
    let backlog = store.dispatch_backlog(shard, &[key("w", 1).namespace], None, Sequence(0), 9).await?;
    ensure!(backlog.is_empty(), "no dispatch: {backlog:?}");
    ensure_eq!(store.shard_positions().await?, [(shard, Sequence(0))], "the position stays");
    ensure!(store.log_read(shard, Sequence(0), 1000).await?.entries.is_empty(), "no log");

    group.visibility.pop();
    ensure_eq!(group.after, before.sequence, "the same group without the bad row");
    store.shard_commit(group).await?;
    ensure!(store.run_load(shard, &key("v", 1)).await?.is_some(), "fits now");
    Ok(())
}

/// One commit carries the transitions of many runs, and each row is found afterwards.
///
/// # Errors
/// The store does not pass.
pub async fn a_group_holds_many_rows(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, 3).await?;
    let keys: Vec<_> = (0..200).map(|number| key(&format!("w-{number}"), number + 1)).collect();
    let mut group = owner.started(&keys)?;
    for (key, at) in keys.iter().zip(1..) {
        group.currents.push(current(key, 1, 1, at));
        group.dispatch.push(offered(key, "queue", TaskKind::Workflow, at));
        group.visibility.push(visible(key, i64::try_from(at)?, None, 1));
    }
    store.shard_commit(group.clone()).await?;
    for (key, written) in keys.iter().zip(&group.runs) {
        let Some(stored) = store.run_load(ShardId(3), key).await? else {
            return Err(super::Failure(format!("{key} is gone")));
        };
        ensure_eq!(stored.row, *written, "the row as written");
        ensure_eq!(stored.batches.len(), 1, "its batch");
    }
    for (written, key) in group.batches.iter().zip(&keys) {
        let stored = store.run_load(ShardId(3), key).await?;
        let batch = stored.and_then(|run| run.batches.into_iter().next()).map(|row| row.batch);
        ensure_eq!(batch.as_deref(), Some(&*written.batch), "bytes as received (G1)");
    }
    for (key, written) in keys.iter().zip(&group.currents) {
        let stored = store.current_load(ShardId(3), &key.workflow_key()).await?;
        ensure_eq!(stored.as_ref(), Some(written), "the current record");
    }
    for (key, written) in keys.iter().zip(&group.visibility) {
        ensure_eq!(store.visibility_get(key).await?.as_ref(), Some(written), "the visibility row");
    }
    let listed = store.run_list(ShardId(3), &keys[5].workflow_key()).await?;
    ensure_eq!(listed, [group.runs[5].clone()], "the runs of a workflow id");
    Ok(())
}

/// Positions outside the group and rows that stand in it twice are bugs of the owner, refused before anything is written.
///
/// # Errors
/// The store does not pass.
pub async fn a_group_that_contradicts_itself_is_rejected(store: &impl Store) -> Outcome {
    let owner = Owner::acquire(store, 1).await?;
    let good = || owner.clone().started(&[key("w", 1), key("w", 2)]);
    let mut outside = good()?;
    outside.runs[0].changed_at = Sequence(99);
    let mut twice = good()?;
    twice.runs.push(twice.runs[0].clone());
    let mut one_position = good()?;
    one_position.batches[1].sequence = one_position.batches[0].sequence;
    for (bad, what) in [(outside, "outside"), (twice, "twice"), (one_position, "one position for two")] {
        let refused = store.shard_commit(bad).await;
        ensure!(matches!(refused, Err(CommitError::Rejected(_))), "{what}: {refused:?}");
    }
    store.shard_commit(good()?).await?;
    Ok(())
}

/// A row may be written again at its position, and moves forward, never back (C1).
///
/// # Errors
/// The store does not pass.
pub async fn a_run_never_moves_back(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, 1).await?;
    store.shard_commit(owner.started(&[key("w", 1), key("w", 2)])?).await?;
    let mut back = owner.clone().group(1);
    back.runs.push(run(&key("w", 2), Sequence(1), None));
    let refused = store.shard_commit(back).await;
    ensure!(matches!(refused, Err(CommitError::Rejected(_))), "moved back: {refused:?}");
    let mut again = owner.group(1);
    again.runs.push(run(&key("w", 2), Sequence(2), Some(50)));
    store.shard_commit(again).await?;
    let row = store.run_load(ShardId(1), &key("w", 2)).await?.map(|stored| stored.row);
    ensure_eq!(row, Some(run(&key("w", 2), Sequence(2), Some(50))), "written again where it stands");
    let log = store.log_read(ShardId(1), Sequence(2), 1000).await?;
    ensure!(log.entries.is_empty(), "and peers see nothing new: {:?}", log.entries);
    Ok(())
}

/// The record moves to greater orders only; the same order may change its other fields (B6).
///
/// # Errors
/// The store does not pass.
pub async fn a_current_record_is_never_lowered(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, 1).await?;
    let (one, two) = (key("w", 1), key("w", 2));
    let mut group = owner.started(&[one.clone(), two.clone()])?;
    group.currents.push(current(&one, 11, 3, 7));
    store.shard_commit(group).await?;
    for (version, epoch, sequence) in [(1, 9, 9), (11, 2, 9), (11, 3, 6)] {
        let mut lower = owner.clone().group(1);
        lower.currents.push(current(&two, version, epoch, sequence));
        let refused = store.shard_commit(lower).await;
        ensure!(matches!(refused, Err(CommitError::Rejected(_))), "lowered: {refused:?}");
    }
    let mut closed = current(&one, 11, 3, 7);
    closed.record.open = false;
    for row in [closed, current(&two, 11, 3, 8), current(&one, 12, 1, 1)] {
        let mut group = owner.group(1);
        group.currents.push(row.clone());
        store.shard_commit(group).await?;
        let stored = store.current_load(ShardId(1), &one.workflow_key()).await?;
        ensure_eq!(stored, Some(row), "the greater record");
    }
    Ok(())
}

/// Groups of several shards are committed side by side, each in its own order.
///
/// # Errors
/// The store does not pass.
pub async fn shards_commit_at_the_same_time(store: &impl Store) -> Outcome {
    let mut owners = Vec::new();
    for shard in 1..=4 {
        owners.push(Owner::acquire(store, shard).await?);
    }
    for round in 0..10_u128 {
        let mut commits = Vec::new();
        for owner in &mut owners {
            let workflow = format!("w-{}", owner.shard.0);
            commits.push(store.shard_commit(owner.started(&[key(&workflow, round + 1)])?));
        }
        for commit in futures_in_order(commits).await {
            commit?;
        }
    }
    for owner in &owners {
        let log = store.log_read(owner.shard, Sequence(0), usize::MAX).await?;
        ensure_eq!(log.entries.len(), 20, "ten batches and ten runs in {}", owner.shard);
        ensure_eq!(log.through, Sequence(10), "all positions");
    }
    Ok(())
}

/// A fenced or rejected group that shares a transaction with good ones fails alone.
///
/// # Errors
/// The store does not pass.
pub async fn one_failing_shard_does_not_hurt_the_others(store: &impl Store) -> Outcome {
    let mut good = Owner::acquire(store, 1).await?;
    let mut stale = Owner::acquire(store, 2).await?;
    Owner::acquire(store, 2).await?;
    let mut bad = Owner::acquire(store, 3).await?;
    let mut also_good = Owner::acquire(store, 4).await?;
    let mut rejected = bad.started(&[key("bad", 1)])?;
    rejected.visibility.push(visible(&key("stranger", 1), 1, None, 1));
    let commits = vec![
        store.shard_commit(good.started(&[key("good", 1)])?),
        store.shard_commit(stale.started(&[key("stale", 1)])?),
        store.shard_commit(rejected),
        store.shard_commit(also_good.started(&[key("also", 1)])?),
    ];
    let outcomes = futures_in_order(commits).await;
    ensure!(outcomes[0].is_ok() && outcomes[3].is_ok(), "the good ones: {outcomes:?}");
    ensure!(matches!(outcomes[1], Err(CommitError::Fenced { .. })), "the stale one: {outcomes:?}");
    ensure!(matches!(outcomes[2], Err(CommitError::Rejected(_))), "the bad one: {outcomes:?}");
    ensure!(store.run_load(ShardId(1), &key("good", 1)).await?.is_some(), "written");
    ensure!(store.run_load(ShardId(2), &key("stale", 1)).await?.is_none(), "not written");
    ensure!(store.run_load(ShardId(3), &key("bad", 1)).await?.is_none(), "not written");
    ensure!(store.run_load(ShardId(4), &key("also", 1)).await?.is_some(), "written");
    Ok(())
}

/// What belongs to a shard is read under that shard only.
///
/// # Errors
/// The store does not pass.
pub async fn runs_of_other_shards_are_not_seen(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, 1).await?;
    let mut group = owner.started(&[key("w", 1)])?;
    group.currents.push(current(&key("w", 1), 1, 1, 1));
    group.runs[0] = run(&key("w", 1), Sequence(1), Some(5));
    store.shard_commit(group).await?;
    let (other, workflow) = (ShardId(2), key("w", 1).workflow_key());
    ensure!(store.run_load(other, &key("w", 1)).await?.is_none(), "no run");
    ensure!(store.run_list(other, &workflow).await?.is_empty(), "no runs");
    ensure!(store.current_load(other, &workflow).await?.is_none(), "no current record");
    let due = store.wake_due(other, &[workflow.namespace], antipode_core::ids::Timestamp(99), 9).await?;
    ensure!(due.is_empty(), "no wake-up: {due:?}");
    Ok(())
}

/// Runs all at once and gives the results in order.
async fn futures_in_order<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *output = Some(value);
            }
        }
        if pending.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}
