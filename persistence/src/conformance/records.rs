//! Namespaces, peers, positions and quarantine (D6, E1, E2).

use antipode_core::ids::{Incarnation, Sequence, ShardId, Timestamp};
use antipode_proto::core as wire;
use bytes::Bytes;

use super::{
    Outcome, ensure, ensure_eq,
    fixture::{key, namespace},
};
use crate::{
    Error, Store,
    rows::{PositionRow, QuarantineRow, RegionRow},
};

fn record(number: u128, name: &str) -> wire::NamespaceRecord {
    wire::NamespaceRecord {
        id: namespace(number).to_string(),
        name: Some(wire::NameRegister { name: name.to_string(), stamp: None }),
        ..Default::default()
    }
}

/// A write names what it read; the one that comes second is told so.
///
/// # Errors
/// The store does not pass.
pub async fn namespaces_are_written_by_compare_and_swap(store: &impl Store) -> Outcome {
    ensure_eq!(store.namespace_all().await?, [], "none at first");
    let first = store.namespace_put(0, &record(1, "one")).await?;
    ensure!(first.is_some_and(|notification| notification > 0), "stored: {first:?}");
    ensure_eq!(store.namespace_put(0, &record(1, "again")).await?, None, "it is there already");
    let second = store.namespace_put(0, &record(2, "two")).await?;
    ensure!(second > first, "notifications grow over all records: {first:?}, {second:?}");
    let third = store.namespace_put(first.unwrap_or(0), &record(1, "uno")).await?;
    ensure!(third > second, "and with each write: {second:?}, {third:?}");
    ensure_eq!(store.namespace_put(first.unwrap_or(0), &record(1, "late")).await?, None, "a stale write");
    let all = store.namespace_all().await?;
    let found: Vec<_> = all.iter().map(|row| (row.id, row.notification, row.record.clone())).collect();
    let expected = vec![
        (namespace(1), third.unwrap_or(0), record(1, "uno")),
        (namespace(2), second.unwrap_or(0), record(2, "two")),
    ];
    ensure_eq!(found, expected, "as written");
    let nameless = wire::NamespaceRecord { id: "not an id".to_string(), ..Default::default() };
    let refused = store.namespace_put(0, &nameless).await;
    ensure!(matches!(refused, Err(Error::Invalid(_))), "a bad id: {refused:?}");
    Ok(())
}

/// A position is proof: it never goes back (E2). Another incarnation has positions of its own.
///
/// # Errors
/// The store does not pass.
pub async fn positions_only_grow(store: &impl Store) -> Outcome {
    let row = |incarnation, shard, sequence| PositionRow {
        source: 2,
        incarnation: Incarnation(incarnation),
        shard: ShardId(shard),
        sequence: Sequence(sequence),
    };
    let large = u64::MAX - 5;
    store.position_put(vec![row(large, 1, 10), row(large, 2, 20)]).await?;
    store.position_put(vec![row(large, 1, 5), row(large, 2, 25), row(7, 1, 1)]).await?;
    let mut all = store.position_all().await?;
    all.sort();
    ensure_eq!(all, [row(7, 1, 1), row(large, 1, 10), row(large, 2, 25)], "positions");
    Ok(())
}

/// Rows are replaced as a whole and removed by key.
///
/// # Errors
/// The store does not pass.
pub async fn regions_and_quarantine_are_kept(store: &impl Store) -> Outcome {
    let mut region = RegionRow {
        name: "west".to_string(),
        initial: 2,
        address: "127.0.0.1:8233".to_string(),
        enabled: true,
        retired: false,
    };
    store.region_put(region.clone()).await?;
    region.retired = true;
    store.region_put(region.clone()).await?;
    ensure_eq!(store.region_all().await?, [region], "regions");

    let mut held = QuarantineRow {
        key: key("w", 1),
        source: 2,
        reason: "an envelope that contradicts its events".to_string(),
        entry: Bytes::from_static(b"entry"),
        since: Timestamp(5),
        behind: 0,
    };
    store.quarantine_put(held.clone()).await?;
    held.behind = 3;
    store.quarantine_put(held.clone()).await?;
    ensure_eq!(store.quarantine_all().await?, [held], "quarantine");
    store.quarantine_remove(&key("w", 2), 2).await?;
    ensure_eq!(store.quarantine_all().await?.len(), 1, "another run's is not touched");
    store.quarantine_remove(&key("w", 1), 2).await?;
    ensure_eq!(store.quarantine_all().await?.len(), 0, "removed");
    Ok(())
}

/// Entries of two regions may set one run aside at once, and each is mended from its own source (E1): neither's row touches
/// the other's.
///
/// # Errors
/// The store does not pass.
pub async fn a_run_is_quarantined_by_each_source_apart(store: &impl Store) -> Outcome {
    let held = |source: u32, reason: &str| QuarantineRow {
        key: key("w", 1),
        source,
        reason: reason.to_string(),
        entry: Bytes::from(format!("entry of {source}")),
        since: Timestamp(i64::from(source)),
        behind: 0,
    };
    let (second, third) = (held(2, "broken off"), held(3, "a hole that nobody fills"));
    store.quarantine_put(third.clone()).await?;
    store.quarantine_put(second.clone()).await?;
    ensure_eq!(store.quarantine_all().await?, [second.clone(), third.clone()], "a row each, by source");
    let behind = QuarantineRow { behind: 4, ..second };
    store.quarantine_put(behind.clone()).await?;
    ensure_eq!(store.quarantine_all().await?, [behind, third.clone()], "one is replaced, the other is not");
    store.quarantine_remove(&key("w", 1), 2).await?;
    ensure_eq!(store.quarantine_all().await?, [third], "one is mended, the other is not");
    store.quarantine_remove(&key("w", 1), 2).await?;
    ensure_eq!(store.quarantine_all().await?.len(), 1, "once more changes nothing");
    store.quarantine_remove(&key("w", 1), 3).await?;
    ensure_eq!(store.quarantine_all().await?.len(), 0, "both are mended");
    Ok(())
}
