//! Finishes what a crash or a lost connection left of hand-overs (F1): activates what was released to this region, keeps
//! telling the target of a release until it is active, undoes a freeze whose deadline passed. It starts nothing.

use std::{sync::Arc, time::Duration};

use antipode_core::{
    ids::{NamespaceId, Timestamp},
    namespace::{Phase, Standing},
};

use crate::{failover::Failover, handover::Release};

/// How often an unfinished hand-over is looked at when nothing changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After so long between release and activation somebody has to look (F1).
const ALARM_NANOS: i64 = 10_000_000_000;

/// Runs until the node stops.
pub(crate) async fn run(failover: Arc<Failover>) {
    let mut records = failover.shared.namespaces.changes();
    let mut released_since: Option<Timestamp> = None;
    loop {
        records.borrow_and_update();
        let mut unfinished = false;
        for entry in failover.shared.namespaces.all() {
            unfinished |= tend(&failover, entry.id(), &mut released_since).await;
        }
        if !unfinished {
            released_since = None;
        }
        let again = async {
            match unfinished {
                true => tokio::time::sleep(LOOK_AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = failover.shared.stop.cancelled() => return,
            _ = records.changed() => {}
            () = again => {}
        }
    }
}

/// Goes on with one namespace; whether it must be looked at again.
async fn tend(failover: &Arc<Failover>, id: NamespaceId, released_since: &mut Option<Timestamp>) -> bool {
    let Some(entry) = failover.shared.namespaces.by_id(id) else { return false };
    let now = failover.shared.now();
    match entry.standing() {
        Standing::Writable(_) | Standing::Passive { .. } | Standing::Deleted => return false,
        Standing::MayActivate { .. } => {
            let why = entry.record.phase().operation().unwrap_or_default().to_string();
            failover.activate(id, "hand-over", &why, 0).await;
            return true;
        }
        Standing::HandingOver { deadline: Some(deadline), .. } if now < deadline => return true,
        Standing::HandingOver { .. } => {}
    }
    let lock = failover.lock_of(id);
    // Somebody runs it: they finish it themselves.
    let Ok(_running) = lock.try_lock() else { return true };
    match entry.record.phase() {
        Phase::Active => {}
        Phase::Draining { operation, .. } => match failover.undo(id, operation).await {
            Ok(()) => {
                tracing::warn!(namespace = entry.name(), operation, "undid a hand-over whose deadline passed")
            }
            Err(error) => {
                tracing::error!(namespace = entry.name(), %error, "a hand-over could not be undone")
            }
        },
        Phase::Released { target, .. } => {
            let since = *released_since.get_or_insert(now);
            if now.0.saturating_sub(since.0) > ALARM_NANOS {
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
