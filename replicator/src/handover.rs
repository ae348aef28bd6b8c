//! The hand-over of a namespace, run by its active region (F1, F2, E1): catch up without freezing; freeze every shard by a
//! durable record and a barrier; wait for the target's proof of every barrier; release, irrevocably; push the release until
//! the target is active. Until the release everything can be taken back, and is, at the deadline.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antipode_core::{
    ids::{NamespaceId, Sequence, ShardId, Timestamp},
    namespace::{Phase, Record, Refusal},
};
use antipode_history::namespaces::{self, Entry};
use antipode_proto::{admin::FailoverReply, link::PushNamespacesRequest};
use futures::future::try_join_all;

use crate::{
    clocks::{REFUSE_ABOVE, Skew, Verdict, WARN_ABOVE},
    cover,
    error::Error,
    failover::{Failover, Operation},
    fetch,
    shared::{Link, Peer},
};

/// How long the target may take to answer one push of a release.
const PUSH_PATIENCE: Duration = Duration::from_secs(2);
/// A push that failed is repeated after this, or when a link or a record changes.
const PUSH_RETRY: Duration = Duration::from_millis(200);
/// How often the target is asked what it has of third regions.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// After its deadline an operation waits so much longer for the target of a release; then the keeper goes on.
const RELEASE_MARGIN: Duration = Duration::from_secs(5);

/// Who asked for a hand-over, and how long nobody could write when it was released.
#[derive(Clone, Debug, Default)]
pub(crate) struct Release {
    pub(crate) who: String,
    pub(crate) why: String,
    pub(crate) unavailable_millis: i64,
}

impl Failover {
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        id: NamespaceId,
        mut operation: Operation,
    ) -> Result<FailoverReply, Error> {
        let lock = self.lock_of(id);
        let Ok(_running) = tokio::time::timeout(operation.left(), lock.lock()).await else {
            return Err(Error::Aborted("another failover of this namespace is under way".to_string()));
        };
        let to = operation.request.to.clone();
        let entry = self.find(id)?;
        let before = entry.version();
        if entry.record.active() != self.shared.here() {
            if entry.record.active() == to {
                operation.step(format!("{to} became active meanwhile"));
                return Ok(handed_over(&entry.record, self.shared.here(), before.0, 0, operation));
            }
            return Err(Error::Aborted(format!("region {} is active now; ask again", entry.record.active())));
        }
        let target = self.shared.peer(&to)?;
        let mut frozen_at = self.shared.now();
        match entry.record.phase() {
            Phase::Released { target, .. } if *target != to => {
                let why = format!("it is released to {target}; only --force takes it back");
                return Err(Error::FailedPrecondition(why));
            }
            Phase::Released { .. } => operation.step("going on with a hand-over that was released before"),
            Phase::Draining { operation: left, .. } => {
                // Nobody runs it: we hold the lock. It is what a crash left.
                let left = left.clone();
                self.undo(id, &left).await?;
                operation.step(format!("undid the hand-over {left}, which nobody goes on with"));
                frozen_at = self.drain_and_release(&entry, &target, &mut operation).await?;
            }
            Phase::Active => frozen_at = self.drain_and_release(&entry, &target, &mut operation).await?,
        }
        let release = Release {
            who: operation.request.who.clone(),
            why: operation.request.why.clone(),
            unavailable_millis: millis_since(frozen_at, self.shared.now()),
        };
        let bound = operation.until + RELEASE_MARGIN;
        let pushed = tokio::time::timeout_at(bound, self.push_until_active(id, &target, &release)).await;
        let entry = self.find(id)?;
        if pushed.is_err() {
            let name = entry.name();
            return Err(Error::Deadline(format!(
                "namespace {name} is released to {to}, which did not answer yet; {} keeps telling it. If {to} is lost: \
                 antipode failover {name} --to {} --force --address {}",
                self.shared.here(),
                self.shared.here(),
                self.shared.address
            )));
        }
        let unavailable = millis_since(frozen_at, self.shared.now());
        operation.step(format!("{to} is active under version {}", entry.version().0));
        Ok(handed_over(&entry.record, self.shared.here(), before.0, unavailable, operation))
    }

    pub(crate) fn find(&self, id: NamespaceId) -> Result<Arc<Entry>, Error> {
        let entry = self.shared.namespaces.by_id(id);
        entry.ok_or_else(|| Error::NotFound(format!("namespace {id} is not known in {}", self.shared.here())))
    }

    /// From active to released; when the namespace was frozen. Whatever fails before the release is taken back.
    async fn drain_and_release(
        &self,
        entry: &Entry,
        target: &Arc<Peer>,
        operation: &mut Operation,
    ) -> Result<Timestamp, Error> {
        self.refuse_exceptions(entry, target)?;
        // Now, because nobody should wait for a refusal; a target that does not answer yet is asked once it does.
        match self.refuse_skew(entry, target).await {
            Err(error) if error.is_unreachable() => {}
            compared => _ = compared?,
        }
        let tips = self.committed();
        self.wait_for_proof(entry, target, &tips, operation, "before anything was frozen").await?;
        self.wait_for_others(entry, target, &tips, operation, "before anything was frozen").await?;
        operation.step(format!("{} has everything committed so far", target.name));
        let skew = self.refuse_skew(entry, target).await?;
        if skew.verdict() == Verdict::Warn {
            let (words, limit) =
                (skew.between(self.shared.here(), &target.name), WARN_ABOVE.0 / 1_000_000_000);
            operation.warn(format!(
                "{words}, more than {limit} s: timers and timeouts that are under way come early or late by as much"
            ));
        }
        let name = antipode_core::ids::RunId::from_random(self.shared.entropy.bytes16()).to_string();
        let frozen_at = self.shared.now();
        self.begin(entry.id(), target, &name, operation).await?;
        let result = self.drain(entry, target, operation).await;
        let released = match result {
            Ok(()) => self.release(entry.id(), &name).await,
            Err(error) => Err(error),
        };
        match released {
            Ok(()) => {
                operation.step("released, durably");
                Ok(frozen_at)
            }
            Err(error) => {
                self.undo(entry.id(), &name).await?;
                operation.step("the hand-over was undone");
                Err(error)
            }
        }
    }

    async fn begin(
        &self,
        id: NamespaceId,
        target: &Peer,
        name: &str,
        operation: &mut Operation,
    ) -> Result<(), Error> {
        let left = i64::try_from(operation.left().as_nanos()).unwrap_or(i64::MAX);
        let deadline = Timestamp(self.shared.clock.now().saturating_add(left));
        let (who, why) = (operation.request.who.clone(), operation.request.why.clone());
        // When this returns every shard has taken the record: nothing is written under it any more (D6).
        self.change(id, &who, &why, |record, act| record.begin_drain(act, &target.name, name, deadline))
            .await?;
        operation.step(format!("frozen for hand-over {name}"));
        Ok(())
    }

    async fn drain(&self, entry: &Entry, target: &Arc<Peer>, operation: &mut Operation) -> Result<(), Error> {
        let shards = (1..=self.shared.history.shard_count()).map(ShardId);
        let barriers = shards.map(|shard| async move {
            let sequence = self.shared.history.barrier(shard, entry.id()).await?;
            Ok::<_, antipode_core::refusal::Refusal>((shard, sequence))
        });
        let committed = tokio::time::timeout(operation.left(), try_join_all(barriers)).await;
        let barriers: BTreeMap<ShardId, Sequence> = match committed {
            Ok(barriers) => barriers?.into_iter().collect(),
            Err(_) => {
                return Err(self.advise(
                    entry,
                    &target.name,
                    operation,
                    "a shard did not commit its barrier",
                ));
            }
        };
        operation.step(format!("{} shards committed their barrier", barriers.len()));
        self.wait_for_proof(entry, target, &barriers, operation, "after the freeze").await?;
        self.wait_for_others(entry, target, &barriers, operation, "after the freeze").await?;
        // E1: a watermark that passed a quarantined run says nothing about that run.
        self.refuse_exceptions(entry, target)?;
        operation.step(format!("{} has proved every barrier", target.name));
        Ok(())
    }

    async fn release(&self, id: NamespaceId, name: &str) -> Result<(), Error> {
        self.change(id, "", "", |record, act| record.release(act, name)).await.map(|_| ())
    }

    pub(crate) async fn undo(&self, id: NamespaceId, name: &str) -> Result<(), Error> {
        self.change(id, "", "", |record, act| match record.undo_drain(act, name) {
            Err(Refusal::NotDraining(_)) => Ok(record.clone()),
            undone => undone,
        })
        .await
        .map(|_| ())
    }

    pub(crate) async fn change(
        &self,
        id: NamespaceId,
        who: &str,
        why: &str,
        change: impl Fn(&Record, &antipode_core::namespace::Act<'_>) -> Result<Record, Refusal>,
    ) -> Result<Arc<Entry>, Error> {
        let namespaces = &self.shared.namespaces;
        let regions = namespaces.regions();
        let act = namespaces.act(&regions, who, why);
        namespaces
            .update::<namespaces::Error>(id, |record| Ok(change(record, &act)?))
            .await
            .map_err(Error::from)
    }

    /// What is committed here.
    pub(crate) fn committed(&self) -> BTreeMap<ShardId, Sequence> {
        let shards = (1..=self.shared.history.shard_count()).map(ShardId);
        shards.filter_map(|shard| Some((shard, *self.shared.history.committed(shard)?.borrow()))).collect()
    }

    fn refuse_exceptions(&self, entry: &Entry, target: &Peer) -> Result<(), Error> {
        let exceptions = target.state.known().exceptions_of(entry.id());
        let Some((run, why)) = exceptions.iter().next() else { return Ok(()) };
        Err(Error::FailedPrecondition(format!(
            "{} lacks {} run(s) of namespace {}, for example {run}: {why}",
            target.name,
            exceptions.len(),
            entry.name()
        )))
    }

    /// H2: from now on the target's clock keeps the deadlines of what runs. One that is far off refuses the hand-over while
    /// nothing is frozen.
    async fn refuse_skew(&self, entry: &Entry, target: &Peer) -> Result<Skew, Error> {
        let (_, skew) = self.shared.hello(target, PUSH_PATIENCE).await?;
        if skew.verdict() != Verdict::Refuse {
            return Ok(skew);
        }
        let (here, name) = (self.shared.here(), entry.name());
        Err(Error::FailedPrecondition(format!(
            "namespace {name} is not handed over: {}, more than {} s, and timers and timeouts that are under way would come early or \
             late by as much. {here} stays active. Set the clocks right and ask again; a forced failover is refused for no clock: \
             antipode failover {name} --to {} --force --address {}",
            skew.between(here, &target.name),
            REFUSE_ABOVE.0 / 1_000_000_000,
            target.name,
            target.address
        )))
    }

    /// Until the target has proved these positions, or the time is up.
    async fn wait_for_proof(
        &self,
        entry: &Entry,
        target: &Arc<Peer>,
        positions: &BTreeMap<ShardId, Sequence>,
        operation: &Operation,
        when: &str,
    ) -> Result<(), Error> {
        target.state.want(positions);
        let mut changes = target.state.changes();
        let proved = async {
            loop {
                changes.borrow_and_update();
                if target.state.known().behind(positions).is_empty() {
                    return;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if tokio::time::timeout_at(operation.until, proved).await.is_ok() {
            return Ok(());
        }
        let (behind, connected) = {
            let known = target.state.known();
            (known.behind(positions).len(), known.senders > 0)
        };
        let link = match (connected, self.shared.gate.open_to(&target.name)) {
            (_, false) => ", and the link is cut",
            (false, _) => ", and it is not connected",
            (true, true) => "",
        };
        let why =
            format!("{when}, {} had not proved {behind} of {} shards{link}", target.name, positions.len());
        Err(self.advise(entry, &target.name, operation, &why))
    }

    /// Until the target also has what third regions wrote and is here, or the time is up (V18). Runs that the target could not
    /// apply, from whatever region, refuse the hand-over (E1).
    async fn wait_for_others(
        &self,
        entry: &Entry,
        target: &Arc<Peer>,
        barriers: &BTreeMap<ShardId, Sequence>,
        operation: &Operation,
        when: &str,
    ) -> Result<(), Error> {
        let ours = self.held(target.id);
        loop {
            let view = self.ask_view(target, entry.id(), PUSH_PATIENCE).await?;
            if let Some(run) = view.quarantined.first() {
                return Err(Error::FailedPrecondition(format!(
                    "{} lacks {} run(s) of namespace {}, for example {}: {}",
                    target.name,
                    view.quarantined.len(),
                    entry.name(),
                    run.run_id,
                    run.reason
                )));
            }
            let lacking = cover::lacking(&view, &ours, barriers);
            let Some(origin) = lacking.first() else { return Ok(()) };
            if operation.left().is_zero() {
                let peers = self.shared.enabled_peers();
                let name = peers.iter().find(|peer| peer.id == *origin).map_or("", |peer| &*peer.name);
                let why =
                    format!("{when}, {} had not heard everything that {name} wrote and is here", target.name);
                return Err(self.advise(entry, &target.name, operation, &why));
            }
            // The condition lies in another region and has no signal here.
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Tells the target of its release until it is active, by its answer or by its record on the stream.
    pub(crate) async fn push_until_active(&self, id: NamespaceId, target: &Arc<Peer>, release: &Release) {
        let mut records = self.shared.namespaces.changes();
        let mut gate = self.shared.gate.changes();
        loop {
            records.borrow_and_update();
            gate.borrow_and_update();
            let Some(entry) = self.shared.namespaces.by_id(id) else { return };
            if !matches!(entry.record.phase(), Phase::Released { .. })
                || entry.record.active() != self.shared.here()
            {
                return;
            }
            match self.push(&entry, target, release).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(namespace = entry.name(), to = &*target.name, %error, "a release was not delivered");
                }
            }
            let still = self.shared.namespaces.by_id(id);
            if still.is_some_and(|entry| !matches!(entry.record.phase(), Phase::Released { .. })) {
                return;
            }
            tokio::select! {
                _ = records.changed() => {}
                _ = gate.changed() => {}
                () = tokio::time::sleep(PUSH_RETRY) => {}
            }
        }
    }

    /// Sends a record and merges the answer.
    pub(crate) async fn push(&self, entry: &Entry, peer: &Arc<Peer>, release: &Release) -> Result<(), Error> {
        let request = PushNamespacesRequest {
            records: vec![entry.to_wire()],
            who: release.who.clone(),
            why: release.why.clone(),
            unavailable_millis: release.unavailable_millis,
        };
        let asked = |mut link: Link| async move { link.push_namespaces(request).await };
        let response = self.shared.call(peer, PUSH_PATIENCE, asked).await?;
        for record in &response.records {
            fetch::merge_record(&self.shared, &peer.name, record).await;
        }
        Ok(())
    }
}

fn millis_since(then: Timestamp, now: Timestamp) -> i64 {
    now.0.saturating_sub(then.0).max(0) / 1_000_000
}

fn handed_over(
    record: &Record,
    from: &str,
    version_before: i64,
    unavailable_millis: i64,
    operation: Operation,
) -> FailoverReply {
    FailoverReply {
        from: from.to_string(),
        to: record.active().to_string(),
        version_before,
        version: record.version().0,
        forced: false,
        already_active: false,
        unavailable_millis,
        not_asked: Vec::new(),
        steps: operation.steps,
        predicted_loss_runs: 0,
        warnings: operation.warnings,
    }
}
