//! Derived indexes and visibility (C2, C3, C5, C8, A9).

use antipode_core::ids::{RunKey, Sequence, ShardId, Timestamp};

use super::{
    Failure, Outcome, ensure, ensure_eq,
    fixture::{Owner, key, key_in, namespace, offered, run, visible},
};
use crate::{
    Error, Store,
    query::{Purpose, parse},
    rows::{DispatchChange, ObligationChange, TaskKind, VisibilityRow},
    visibility::Query,
};

const SHARD: ShardId = ShardId(1);

/// Earliest first, of the namespaces that are asked for, and gone when the run says so.
///
/// # Errors
/// The store does not pass.
pub async fn wake_ups_come_for_the_asked_namespaces(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let keys: Vec<_> = (1..=6).map(|number| key_in(number % 2 + 1, "w", number)).collect();
    let mut group = owner.started(&keys)?;
    for (row, wake_at) in group.runs.iter_mut().zip([60, 50, 40, 30, 20, 10]) {
        row.wake_at = Some(Timestamp(wake_at));
    }
    group.runs[2].wake_at = None;
    store.shard_commit(group).await?;
    let due = async |namespaces: &[u128], until, limit| {
        let namespaces: Vec<_> = namespaces.iter().copied().map(namespace).collect();
        let found = store.wake_due(SHARD, &namespaces, Timestamp(until), limit).await?;
        Ok::<Vec<_>, Failure>(found.into_iter().map(|(at, key)| (at.0, key.run.0.as_u128())).collect())
    };
    ensure_eq!(due(&[1, 2], 99, 9).await?, [(10, 6), (20, 5), (30, 4), (50, 2), (60, 1)], "all");
    ensure_eq!(due(&[1], 99, 9).await?, [(10, 6), (30, 4), (50, 2)], "of one namespace");
    ensure_eq!(due(&[], 99, 9).await?, [], "of none");
    ensure_eq!(due(&[1, 2], 30, 9).await?, [(10, 6), (20, 5)], "before 30");
    ensure_eq!(due(&[1, 2], 99, 2).await?, [(10, 6), (20, 5)], "the first two");

    let mut group = owner.group(1);
    group.runs.push(run(&keys[5], group.through, None));
    group.runs.push(run(&keys[4], group.through, Some(70)));
    group.runs.push(run(&keys[3], group.through, Some(30)));
    store.shard_commit(group).await?;
    ensure_eq!(due(&[1, 2], 99, 9).await?, [(30, 4), (50, 2), (60, 1), (70, 5)], "one gone, one moved");
    Ok(())
}

/// Rows in order of position, of one queue or of all, until they are removed.
///
/// # Errors
/// The store does not pass.
pub async fn the_backlog_comes_in_order(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let (a, b, c) = (key("a", 1), key("b", 2), key_in(2, "c", 3));
    let mut group = owner.started(&[a.clone(), b.clone(), c.clone()])?;
    group.dispatch = vec![
        offered(&b, "one", TaskKind::Workflow, 3),
        offered(&a, "one", TaskKind::Workflow, 1),
        offered(&a, "one", TaskKind::Activity, 2),
        offered(&a, "two", TaskKind::Activity, 3),
        offered(&c, "one", TaskKind::Workflow, 2),
    ];
    store.shard_commit(group).await?;
    let backlog = async |namespaces: &[u128], queue, after, limit| {
        let namespaces: Vec<_> = namespaces.iter().copied().map(namespace).collect();
        let found = store.dispatch_backlog(SHARD, &namespaces, queue, Sequence(after), limit).await?;
        let mut rows: Vec<_> =
            found.into_iter().map(|row| (row.order.0, row.key.run.0.as_u128(), row.queue)).collect();
        let ordered = rows.is_sorted_by_key(|row| row.0);
        rows.sort();
        ensure!(ordered, "not in order: {rows:?}");
        Ok::<Vec<_>, Failure>(rows)
    };
    let text = |rows: &[(u64, u128, &str)]| {
        rows.iter().map(|(at, run, queue)| (*at, *run, (*queue).to_string())).collect::<Vec<_>>()
    };
    let one = Some(("one", TaskKind::Workflow));
    ensure_eq!(
        backlog(&[1], None, 0, 9).await?,
        text(&[(1, 1, "one"), (2, 1, "one"), (3, 1, "two"), (3, 2, "one")]),
        "all queues of a namespace"
    );
    ensure_eq!(
        backlog(&[1, 2], one, 0, 9).await?,
        text(&[(1, 1, "one"), (2, 3, "one"), (3, 2, "one")]),
        "one queue"
    );
    ensure_eq!(backlog(&[1, 2], one, 1, 1).await?, text(&[(2, 3, "one")]), "the next one");
    ensure_eq!(backlog(&[1], Some(("none", TaskKind::Workflow)), 0, 9).await?, text(&[]), "an unknown queue");

    let mut group = owner.group(1);
    group.runs.push(run(&a, group.through, None));
    let remove = |key: &RunKey, queue: &str, kind| DispatchChange::Remove {
        key: key.clone(),
        queue: queue.to_string(),
        kind,
    };
    group.dispatch = vec![
        remove(&a, "one", TaskKind::Workflow),
        remove(&b, "two", TaskKind::Workflow),
        remove(&key("unknown", 77), "one", TaskKind::Workflow),
        offered(&a, "two", TaskKind::Activity, 4),
    ];
    store.shard_commit(group).await?;
    ensure_eq!(
        backlog(&[1], None, 0, 9).await?,
        text(&[(2, 1, "one"), (3, 2, "one"), (4, 1, "two")]),
        "one removed, one moved, the others as they were"
    );
    Ok(())
}

/// A page ends behind a position, so that the next page, asked for after it, misses nothing.
///
/// # Errors
/// The store does not pass.
pub async fn the_backlog_pages_split_no_position(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let keys: Vec<_> = (1..=9).map(|number| key("w", number)).collect();
    let mut group = owner.started(&keys)?;
    for (index, key) in (0..).zip(&keys) {
        // Three runs a position, on two queues.
        let queue = if index % 2 == 0 { "even" } else { "odd" };
        group.dispatch.push(offered(key, queue, TaskKind::Workflow, index / 3 + 1));
    }
    store.shard_commit(group).await?;
    for limit in [1, 2, 4, 5, 100] {
        let (mut after, mut found) = (Sequence(0), 0);
        loop {
            let page = store.dispatch_backlog(SHARD, &[namespace(1)], None, after, limit).await?;
            let Some(last) = page.last() else { break };
            found += page.len();
            after = last.order;
        }
        ensure_eq!(found, keys.len(), "pages of {limit}");
    }
    Ok(())
}

/// Earliest first, until removed; also for runs without any other change.
///
/// # Errors
/// The store does not pass.
pub async fn obligations_come_when_due(store: &impl Store) -> Outcome {
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let (a, b) = (key("a", 1), key("b", 2));
    let mut group = owner.started(&[a.clone(), b.clone()])?;
    let put = |key: &RunKey, due| ObligationChange::Put { key: key.clone(), due: Timestamp(due) };
    group.obligations = vec![put(&a, 20), put(&b, 10)];
    store.shard_commit(group).await?;
    let all = [(Timestamp(10), b.clone()), (Timestamp(20), a.clone())];
    ensure_eq!(store.obligation_due(SHARD, Timestamp(99), 9).await?, all, "both");
    ensure_eq!(store.obligation_due(SHARD, Timestamp(20), 9).await?, all[..1].to_vec(), "before 20");
    let mut group = owner.group(1);
    group.obligations = vec![put(&a, 5), ObligationChange::Remove { key: b }];
    store.shard_commit(group).await?;
    ensure_eq!(
        store.obligation_due(SHARD, Timestamp(99), 9).await?,
        [(Timestamp(5), a)],
        "one moved, one gone"
    );
    Ok(())
}

async fn show(store: &impl Store, rows: Vec<VisibilityRow>) -> Result<Owner, Failure> {
    let mut owner = Owner::acquire(store, SHARD.0).await?;
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let mut group = owner.started(&keys)?;
    group.visibility = rows;
    store.shard_commit(group).await?;
    Ok(owner)
}

fn query(text: &str, page_size: usize) -> Result<Query, Failure> {
    let parsed = parse(text, Purpose::Count)?;
    Ok(Query {
        namespace: namespace(1),
        filter: parsed.filter,
        group_by_status: parsed.group_by_status,
        page_size,
        page_token: Vec::new(),
    })
}

async fn listed(store: &impl Store, text: &str, page_size: usize) -> Result<Vec<u128>, Failure> {
    let mut query = query(text, page_size)?;
    let mut found = Vec::new();
    loop {
        let page = store.visibility_list(&query).await?;
        ensure_page(&page.rows, page_size)?;
        found.extend(page.rows.iter().map(|row| row.key.run.0.as_u128()));
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        query.page_token = page.next_page_token;
    }
}

fn ensure_page(rows: &[VisibilityRow], page_size: usize) -> Outcome {
    ensure!(!rows.is_empty() && rows.len() <= page_size || rows.is_empty(), "a page of {}", rows.len());
    Ok(())
}

/// Open runs first, by start; then closed ones by close; latest first. Pages continue each other.
///
/// # Errors
/// The store does not pass.
pub async fn lists_are_ordered_and_paged(store: &impl Store) -> Outcome {
    let mut owner = show(
        store,
        vec![
            visible(&key("w", 1), 10, Some(90), 2),
            visible(&key("w", 2), 20, None, 1),
            visible(&key("w", 3), 30, Some(80), 3),
            visible(&key("w", 4), 40, None, 1),
            visible(&key("w", 5), 50, Some(90), 2),
            visible(&key_in(2, "w", 6), 60, None, 1),
        ],
    )
    .await?;
    for size in [1, 2, 3, 5, 100] {
        ensure_eq!(listed(store, "", size).await?, [4, 2, 5, 1, 3], "pages of {size}");
    }
    let mut group = owner.group(1);
    group.visibility.push(visible(&key("w", 4), 40, Some(85), 2));
    store.shard_commit(group).await?;
    ensure_eq!(listed(store, "", 2).await?, [2, 5, 1, 4, 3], "one closed");
    Ok(())
}

/// A zombie or superseded run is not listed unless the query names run ids (A9).
///
/// # Errors
/// The store does not pass.
pub async fn superseded_runs_are_shown_to_who_asks_for_runs(store: &impl Store) -> Outcome {
    let mut hidden = visible(&key("w", 0xabc), 10, None, 1);
    hidden.superseded = true;
    show(store, vec![hidden, visible(&key("w", 2), 20, None, 1)]).await?;
    ensure_eq!(listed(store, "", 9).await?, [2], "a list of all");
    ensure_eq!(listed(store, "WorkflowId = 'w'", 9).await?, [2], "a list by workflow id");
    let by_run = "WorkflowId = 'w' AND RunId = '00000000-0000-0000-0000-000000000abc'";
    ensure_eq!(listed(store, by_run, 9).await?, [0xabc], "a list by run id");
    ensure_eq!(store.visibility_count(&query("", 1)?).await?.total, 1, "a count of all");
    ensure!(store.visibility_get(&key("w", 0xabc)).await?.is_some(), "asked for itself");
    Ok(())
}

/// Totals, and groups by status when asked.
///
/// # Errors
/// The store does not pass.
pub async fn counts_group_by_status(store: &impl Store) -> Outcome {
    let rows = (1..=6).map(|number| visible(&key("w", number), 1, None, if number > 4 { 2 } else { 1 }));
    show(store, rows.collect()).await?;
    let count = store.visibility_count(&query("", 1)?).await?;
    ensure_eq!((count.total, count.groups), (6, vec![]), "without groups");
    let count = store.visibility_count(&query("GROUP BY ExecutionStatus", 1)?).await?;
    ensure_eq!((count.total, count.groups), (6, vec![(1, 4), (2, 2)]), "by status");
    let count =
        store.visibility_count(&query("ExecutionStatus = 'Failed' GROUP BY ExecutionStatus", 1)?).await?;
    ensure_eq!((count.total, count.groups), (0, vec![]), "of none");
    Ok(())
}

/// Each attribute selects; text is data, never part of a statement.
///
/// # Errors
/// The store does not pass.
pub async fn conditions_select(store: &impl Store) -> Outcome {
    let mut odd = visible(&key("it's; DROP TABLE runs; --", 3), 30, Some(130), 2);
    odd.workflow_type = "100%_Real".to_string();
    odd.history_length = 77;
    show(
        store,
        vec![visible(&key("order-1", 1), 10, None, 1), visible(&key("order-2", 2), 20, Some(40), 2), odd],
    )
    .await?;
    for (text, expected) in [
        ("WorkflowId = 'order-1'", vec![1]),
        ("WorkflowId = 'it''s; DROP TABLE runs; --'", vec![3]),
        ("WorkflowId STARTS_WITH 'order-'", vec![1, 2]),
        ("WorkflowType STARTS_WITH '100%_'", vec![3]),
        ("WorkflowType STARTS_WITH '100__'", vec![]),
        ("RunId IN ('00000000-0000-0000-0000-000000000002')", vec![2]),
        ("HistoryLength = 77", vec![3]),
        ("HistoryLength > 0", vec![3, 2]),
        ("NOT HistoryLength > 0", vec![]),
        ("CloseTime IS NULL", vec![1]),
        ("ExecutionDuration < '1s' AND CloseTime > 50", vec![3]),
        ("StartTime BETWEEN 10 AND 20", vec![1, 2]),
        ("ExecutionStatus IN ('Running', 'Failed') OR WorkflowId = 'order-2'", vec![1, 2]),
    ] {
        ensure_eq!(listed(store, text, 9).await?, expected, "{text}");
        ensure_eq!(
            store.visibility_count(&query(text, 1)?).await?.total,
            i64::try_from(expected.len())?,
            "count of {text}"
        );
    }
    Ok(())
}

/// A token that no list gave is the caller's mistake.
///
/// # Errors
/// The store does not pass.
pub async fn a_bad_page_token_is_refused(store: &impl Store) -> Outcome {
    let mut query = query("", 1)?;
    query.page_token = b"nonsense".to_vec();
    let refused = store.visibility_list(&query).await;
    ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    Ok(())
}
