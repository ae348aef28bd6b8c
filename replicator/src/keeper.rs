//! Finishes what a crash or a lost connection left of hand-overs (F1): activates what was released to this region, keeps
//! telling the target of a release until it is active, undoes a freeze whose deadline passed. It starts nothing, but for
//! one thing: what this region owned in another life of its store gets a new version, because until then nobody writes (E2).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antipode_core::{
    ids::{NamespaceId, Timestamp},
    namespace::{Phase, Standing},
};
use antipode_history::namespaces::Entry;

use crate::{failover::Failover, handover::Release};

/// How often an unfinished hand-over is looked at when nothing changes.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A release that came by the stream of entries waits so long for the push, which says who asked for it and why.
const PUSH_GRACE_NANOS: i64 = 1_000_000_000;
/// After so long between release and activation somebody has to look (F1).
const ALARM_NANOS: i64 = 10_000_000_000;

/// Since when each unfinished hand-over has been seen.
type Since = BTreeMap<NamespaceId, Timestamp>;

/// Runs until the node stops.
pub(crate) async fn run(failover: Arc<Failover>) {
    let mut records = failover.shared.namespaces.changes();
    let mut since = Since::new();
    loop {
        records.borrow_and_update();
        for entry in failover.shared.namespaces.all() {
            if !tend(&failover, entry.id(), &mut since).await {
                since.remove(&entry.id());
            }
        }
        let again = async {
            match since.is_empty() {
                false => tokio::time::sleep(LOOK_AGAIN).await,
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            () = failover.shared.stop.cancelled() => return,
            _ = records.changed() => {}
            () = again => {}
        }
    }
}

/// After a restore: a new version, or the region that is active by now keeps the namespace (E2).
async fn renew(failover: &Failover, entry: &Entry) {
    match failover.renew(entry.id()).await {
        Ok(entry) => tracing::warn!(
            namespace = entry.name(),
            active = entry.record.active(),
            version = entry.version().0,
            "this store is restored: what it owned is written under a new version"
        ),
        Err(error) => {
            tracing::error!(namespace = entry.name(), %error, "no new version after a restore yet");
        }
    }
}

/// Goes on with one namespace; whether it must be looked at again.
async fn tend(failover: &Arc<Failover>, id: NamespaceId, since: &mut Since) -> bool {
    let Some(entry) = failover.shared.namespaces.by_id(id) else { return false };
    let now = failover.shared.now();
    if entry.is_of_another_life() {
        since.entry(id).or_insert(now);
        renew(failover, &entry).await;
        return true;
    }
    let deadline = match entry.standing() {
        Standing::Writable(_) | Standing::Passive { .. } | Standing::Deleted => return false,
        Standing::MayActivate { .. } => None,
        Standing::HandingOver { deadline, .. } => deadline,
    };
    let waited = now.0.saturating_sub(since.entry(id).or_insert(now).0);
    if deadline.is_some_and(|deadline| now < deadline) {
        return true;
    }
    let lock = failover.lock_of(id);
    // Somebody runs it: they finish it themselves.
    let Ok(_running) = lock.try_lock() else { return true };
    match entry.record.phase() {
        Phase::Active => {}
        Phase::Draining { operation, .. } => match failover.undo(id, operation).await {
            Ok(()) => {
                tracing::warn!(
                    namespace = entry.name(),
                    operation,
                    "undid a hand-over whose deadline passed"
                );
            }
            Err(error) => {
                tracing::error!(namespace = entry.name(), %error, "a hand-over could not be undone");
            }
        },
        Phase::Released { target, operation, .. } if target == failover.shared.here() => {
            if waited >= PUSH_GRACE_NANOS {
                failover.activate(id, "hand-over", operation, waited / 1_000_000).await;
            }
        }
        Phase::Released { target, .. } => {
            if waited >= ALARM_NANOS {
                tracing::error!(
                    namespace = entry.name(),
                    target,
                    "released and not active anywhere for 10 s or more"
                );
            }
            if let Ok(peer) = failover.shared.peer(target)
                && let Err(error) = failover.push(&entry, &peer, &Release::default()).await
            {
                tracing::debug!(namespace = entry.name(), target, %error, "a release was not delivered");
            }
        }
    }
    true
}
