//! The forced flip, run by its target (F3, C7): ask every reachable region for its record, its greatest version and its
//! positions; take in what they have, also of regions that do not answer, for a bounded time; then mint a version above everything seen, make it durable, and
//! tell everybody who listens. It never keeps a version and never waits for the region it takes the namespace from.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use antipode_core::{
    ids::{FailoverVersion, NamespaceId, RegionId, Sequence, ShardId},
    namespace::Forced,
};
use antipode_history::namespaces::Entry;
use antipode_proto::{
    admin::{FailoverReply, FailoverRequest},
    link::NamespaceViewResponse,
};
use futures::future::join_all;
use tokio::time::Instant;

use crate::{
    error::Error,
    failover::{Failover, Operation},
    handover::Release,
    handshake,
    inbox::Positions,
    shared::Peer,
    status::Known,
};

/// How long all regions together may take to tell what they know, and again to be caught up with.
const GATHER_PATIENCE: Duration = Duration::from_secs(2);

/// Who a new version after a restore is by, in the failover history.
const RENEWED_BY: &str = "restore";

/// What the other regions knew.
struct Gathered {
    seen_max: FailoverVersion,
    not_asked: BTreeSet<String>,
    answered: Vec<(Arc<Peer>, NamespaceViewResponse)>,
}

impl Failover {
    pub(crate) async fn force(
        self: &Arc<Self>,
        id: NamespaceId,
        mut operation: Operation,
    ) -> Result<FailoverReply, Error> {
        let lock = self.lock_of(id);
        let Ok(_running) = tokio::time::timeout(operation.left(), lock.lock()).await else {
            return Err(Error::Aborted("another failover of this namespace is under way".to_string()));
        };
        let gathered = self.gather(id, &mut operation).await?;
        for peer in self.shared.enabled_peers() {
            // What the others have of a region that does not answer is asked for now, not after the usual wait.
            if gathered.not_asked.contains(&*peer.name) {
                self.shared.origin_is_down(&peer.name);
            }
        }
        let caught_up = self.catch_up(&gathered, &mut operation).await;
        let before = self.find(id)?;
        let from = before.record.active().to_string();
        let forced = Forced {
            seen_max: gathered.seen_max,
            not_asked: gathered.not_asked.clone(),
            predicted_loss_runs: self.predict(id, &from, &gathered, &caught_up),
        };
        let (who, why) = (operation.request.who.clone(), operation.request.why.clone());
        let entry = self.change(id, &who, &why, |record, act| record.force(act, forced.clone())).await?;
        operation.step(format!(
            "{} took it under version {}, durably",
            self.shared.here(),
            entry.version().0
        ));
        let told = join_all(gathered.answered.iter().map(|(peer, _)| async {
            let pushed = self.push(&entry, peer, &Release::default()).await;
            (peer.name.to_string(), pushed)
        }));
        for (peer, pushed) in told.await {
            match pushed {
                Ok(()) => operation.step(format!("{peer} knows")),
                Err(error) => operation.step(format!("{peer} was not told: {error}; its link will")),
            }
        }
        Ok(FailoverReply {
            from,
            to: self.shared.here().to_string(),
            version_before: before.version().0,
            version: entry.version().0,
            forced: true,
            already_active: false,
            unavailable_millis: 0,
            not_asked: gathered.not_asked.into_iter().collect(),
            steps: operation.steps,
            predicted_loss_runs: forced
                .predicted_loss_runs
                .map_or(-1, |runs| i64::try_from(runs).unwrap_or(i64::MAX)),
            warnings: operation.warnings,
        })
    }

    /// Mints a new version for a namespace that this region owned in another life of its store: it was restored from a
    /// backup, and what it lost may be elsewhere under the old version (E2). It takes in what the others have first. If one of
    /// them is active by now, it keeps the namespace.
    pub(crate) async fn renew(&self, id: NamespaceId) -> Result<Arc<Entry>, Error> {
        let lock = self.lock_of(id);
        let _running = lock.lock().await;
        let request = FailoverRequest { to: self.shared.here().to_string(), ..FailoverRequest::default() };
        let mut operation = Operation {
            request,
            until: Instant::now() + GATHER_PATIENCE,
            steps: Vec::new(),
            warnings: Vec::new(),
        };
        let gathered = self.gather(id, &mut operation).await?;
        self.catch_up(&gathered, &mut operation).await;
        let forced = Forced {
            seen_max: gathered.seen_max.max(self.seen_max(&self.find(id)?.record)),
            not_asked: gathered.not_asked,
            predicted_loss_runs: None,
        };
        let life = self.shared.identity.incarnation;
        self.change(id, RENEWED_BY, "the store was restored", |record, act| {
            match record.is_of_another_life(act.here, life) {
                true => record.force(act, forced.clone()),
                false => Ok(record.clone()),
            }
        })
        .await
    }

    /// Asks all regions at once, those that do not answer in time are named.
    async fn gather(&self, id: NamespaceId, operation: &mut Operation) -> Result<Gathered, Error> {
        let entry = self.find(id)?;
        let peers = self.shared.enabled_peers();
        let asked = peers
            .iter()
            .map(|peer| async move { (Arc::clone(peer), self.ask_view(peer, id, GATHER_PATIENCE).await) });
        let known: BTreeSet<&str> = peers.iter().map(|peer| &*peer.name).collect();
        let members = entry.record.members();
        let unknown =
            members.iter().filter(|name| *name != self.shared.here() && !known.contains(name.as_str()));
        let mut gathered = Gathered {
            seen_max: self.seen_max(&entry.record),
            not_asked: unknown.cloned().collect(),
            answered: Vec::new(),
        };
        for (peer, answer) in join_all(asked).await {
            match answer {
                Ok(view) => {
                    gathered.seen_max = gathered.seen_max.max(FailoverVersion(view.version_seen_max));
                    operation.step(format!("{} answered", peer.name));
                    gathered.answered.push((peer, view));
                }
                Err(error) => {
                    operation.step(format!("{} was not asked: {error}", peer.name));
                    gathered.not_asked.insert(peer.name.to_string());
                }
            }
        }
        // What they answered is merged by now.
        gathered.seen_max = gathered.seen_max.max(self.seen_max(&self.find(id)?.record));
        Ok(gathered)
    }

    /// Takes in what the regions that answered have committed, their own and what they relay (C7), for a bounded time. Whom
    /// we caught up with.
    async fn catch_up(&self, gathered: &Gathered, operation: &mut Operation) -> BTreeSet<String> {
        let until = Instant::now() + GATHER_PATIENCE;
        let not_asked = |peer: &Arc<Peer>| gathered.not_asked.contains(&*peer.name).then_some(peer.id);
        let silent: BTreeSet<RegionId> = self.shared.enabled_peers().iter().filter_map(not_asked).collect();
        let waits = gathered.answered.iter().map(|(peer, view)| {
            let silent = &silent;
            async move {
                let tips: Positions =
                    view.committed.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
                let mut changes = peer.state.changes();
                let reached = async {
                    loop {
                        changes.borrow_and_update();
                        if has_all(&peer.state.known(), &tips, silent) {
                            return;
                        }
                        if changes.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                };
                (peer.name.to_string(), tokio::time::timeout_at(until, reached).await.is_ok())
            }
        });
        let mut caught_up = BTreeSet::new();
        for (peer, reached) in join_all(waits).await {
            let also = if silent.is_empty() { "" } else { " and what it has of those that do not answer" };
            if reached {
                operation.step(format!("caught up with {peer}{also}"));
                caught_up.insert(peer);
            } else {
                operation.step(format!("did not catch up with {peer}{also} in time"));
            }
        }
        caught_up
    }

    /// Runs that may lose progress: known only when everything that the old active region had committed is here.
    fn predict(
        &self,
        id: NamespaceId,
        from: &str,
        gathered: &Gathered,
        caught_up: &BTreeSet<String>,
    ) -> Option<u64> {
        if from == self.shared.here() {
            return Some(0);
        }
        if !caught_up.contains(from) {
            return None;
        }
        let (peer, _) = gathered.answered.iter().find(|(peer, _)| &*peer.name == from)?;
        let known = peer.state.known();
        let lacking = known.exceptions_here.iter().filter(|(key, _)| key.namespace == id).count();
        u64::try_from(lacking).ok()
    }
}

/// Whether all is proved that a region had committed: what it wrote, and, if it can relay, what it has of these origins.
fn has_all(known: &Known, tips: &Positions, origins: &BTreeSet<RegionId>) -> bool {
    let reaches = |proof: Option<&Positions>| {
        tips.iter()
            .all(|(shard, tip)| proof.and_then(|proof| proof.get(shard)).copied().unwrap_or_default() >= *tip)
    };
    let relays = known.info.as_ref().is_some_and(|info| info.features & handshake::RELAYS != 0);
    reaches(Some(&known.proof_of_peer))
        && (!relays || origins.iter().all(|origin| reaches(known.relayed.get(origin))))
}
