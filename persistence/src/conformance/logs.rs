//! One history in two orders: by run and by position; registers stand at a run's last change (C1).

use std::sync::Arc;

use antipode_core::{
    chain::ChainValue,
    ids::{RunKey, Sequence, ShardId},
};

use super::{
    Failure, Outcome, ensure, ensure_eq,
    fixture::{Owner, batch, key, run},
};
use crate::{
    Store,
    rows::{BatchRow, Group, LogEntry, LogPage},
};

const SHARD: ShardId = ShardId(1);

/// Adds the next batch of a run and its row to a group.
fn add(
    group: &mut Group,
    key: &RunKey,
    event: i64,
    previous: ChainValue,
    at: u64,
) -> Result<ChainValue, Failure> {
    let at = Sequence(at);
    let batch = batch(key, event, previous, at, 100)?;
    let chain = batch.chain;
    group.batches.push(BatchRow { sequence: at, batch: Arc::new(batch) });
    group.runs.retain(|row| row.key != *key);
    group.runs.push(run(key, at, None));
    Ok(chain)
}

/// Position, and the run with its first event, or 0 for the run's row.
fn shape(page: &LogPage) -> Vec<(u64, RunKey, i64)> {
    page.entries
        .iter()
        .map(|entry| match entry {
            LogEntry::Batch(row) => {
                let envelope = &row.batch.envelope;
                (row.sequence.0, envelope.run.clone(), envelope.first_event.0)
            }
            LogEntry::Run(row) => (row.changed_at.0, row.key.clone(), 0),
        })
        .collect()
}

/// Two runs written in turns, in two groups: a at 1, b at 2, a at 3, b at 4.
async fn two_runs(store: &impl Store) -> Result<(RunKey, RunKey, Owner), Failure> {
    let (a, b) = (key("a", 1), key("b", 2));
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let mut group = owner.group(2);
    let chain_a = add(&mut group, &a, 1, ChainValue::NONE, 1)?;
    let chain_b = add(&mut group, &b, 1, ChainValue::NONE, 2)?;
    store.shard_commit(group).await?;
    let mut group = owner.group(2);
    add(&mut group, &a, 2, chain_a, 3)?;
    add(&mut group, &b, 2, chain_b, 4)?;
    store.shard_commit(group).await?;
    Ok((a, b, owner))
}

/// A run loads with all its batches, in commit order.
///
/// # Errors
/// The store does not pass.
pub async fn a_run_is_read_in_commit_order(store: &impl Store) -> Outcome {
    let (a, b, _) = two_runs(store).await?;
    for (key, positions) in [(a, [1, 3]), (b, [2, 4])] {
        let stored = store.run_load(SHARD, &key).await?;
        let found: Option<Vec<_>> = stored.map(|run| run.batches.iter().map(|row| row.sequence.0).collect());
        ensure_eq!(found, Some(positions.to_vec()), "batches of {key}");
    }
    ensure!(store.run_load(SHARD, &key("a", 9)).await?.is_none(), "another run of the same id");
    Ok(())
}

/// The log interleaves batches and runs by position; a run stands after its batch.
///
/// # Errors
/// The store does not pass.
pub async fn the_log_is_read_by_position(store: &impl Store) -> Outcome {
    let (a, b, _) = two_runs(store).await?;
    let page = store.log_read(SHARD, Sequence(0), usize::MAX).await?;
    let expected = vec![
        (1, a.clone(), 1),
        (2, b.clone(), 1),
        (3, a.clone(), 2),
        (3, a.clone(), 0),
        (4, b.clone(), 2),
        (4, b.clone(), 0),
    ];
    ensure_eq!(shape(&page), expected, "from the beginning");
    ensure_eq!(page.through, Sequence(4), "complete");
    let page = store.log_read(SHARD, Sequence(3), usize::MAX).await?;
    ensure_eq!(shape(&page), expected[4..].to_vec(), "after 3");
    Ok(())
}

/// A heartbeat storm is one entry: the run at its last change, with its newest state.
///
/// # Errors
/// The store does not pass.
pub async fn a_run_that_moved_forward_stands_there_once(store: &impl Store) -> Outcome {
    let (a, _, mut owner) = two_runs(store).await?;
    for _ in 0..5 {
        let mut group = owner.group(1);
        group.runs.push(run(&a, group.through, None));
        store.shard_commit(group).await?;
    }
    let page = store.log_read(SHARD, Sequence(2), usize::MAX).await?;
    let of_a: Vec<_> = shape(&page).into_iter().filter(|(_, key, event)| *key == a && *event == 0).collect();
    ensure_eq!(of_a, [(9, a.clone(), 0)], "once, at the tip");
    let Some(LogEntry::Run(row)) = page.entries.last() else {
        return Err(Failure("the run is the last entry".to_string()));
    };
    ensure_eq!(row.head, run(&a, Sequence(9), None).head, "as of now");
    Ok(())
}

/// Pages of any size, put together, are the log; each is complete for (after, through].
///
/// # Errors
/// The store does not pass.
pub async fn pages_are_complete_for_their_range(store: &impl Store) -> Outcome {
    let (.., mut owner) = two_runs(store).await?;
    let keys: Vec<_> = (10..30).map(|number| key("many", number)).collect();
    store.shard_commit(owner.started(&keys)?).await?;
    // Several runs changed at one position come in one page.
    let mut group = owner.group(1);
    group.runs.extend(keys.iter().take(7).map(|key| run(key, group.through, None)));
    store.shard_commit(group).await?;

    let whole = shape(&store.log_read(SHARD, Sequence(0), usize::MAX).await?);
    for bytes_max in [0, 1, 200, 1_000, 5_000] {
        let (mut after, mut found) = (Sequence(0), Vec::new());
        while after < owner.sequence {
            let page = store.log_read(SHARD, after, bytes_max).await?;
            ensure!(page.through > after, "a page moves on: {:?} after {after:?}", page.through);
            let inside =
                page.entries.iter().all(|entry| entry.sequence() > after && entry.sequence() <= page.through);
            ensure!(inside, "entries of (after, through] only");
            found.extend(shape(&page));
            after = page.through;
        }
        ensure_eq!(found, whole, "pages of {bytes_max} bytes");
        ensure_eq!(after, owner.sequence, "up to the end");
    }
    Ok(())
}

/// A position without an entry (a barrier, say) is still passed; at the end there is nothing.
///
/// # Errors
/// The store does not pass.
pub async fn the_log_ends_at_the_committed_position(store: &impl Store) -> Outcome {
    let (.., mut owner) = two_runs(store).await?;
    store.shard_commit(owner.group(3)).await?;
    let page = store.log_read(SHARD, Sequence(4), usize::MAX).await?;
    ensure_eq!((page.entries.len(), page.through), (0, Sequence(7)), "nothing, through 7");
    let page = store.log_read(SHARD, Sequence(7), usize::MAX).await?;
    ensure_eq!((page.entries.len(), page.through), (0, Sequence(7)), "nothing at the end");
    let page = store.log_read(ShardId(4), Sequence(0), usize::MAX).await?;
    ensure_eq!((page.entries.len(), page.through), (0, Sequence(0)), "nothing in a shard nobody wrote");
    ensure_eq!(store.shard_positions().await?, [(SHARD, Sequence(7))], "positions");
    Ok(())
}
