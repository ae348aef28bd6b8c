//! Failover is one verb with the same result from any region (DESIGN 7, F1–F3): whoever is asked finds out who must act (the
//! active region for a hand-over, the target for a forced flip) and sends the request there, once. The steps themselves are
//! in `handover` and `force`; what is left over from a crash is finished by `keeper`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antipode_core::{
    ids::{FailoverVersion, NamespaceId, RegionId, RunKey},
    namespace::{Phase, Record, Standing},
};
use antipode_history::namespaces::{self, Entry};
use antipode_proto::{
    admin::{FailoverReply, FailoverRequest},
    link::{
        ForwardRequest, ForwardResponse, NamespaceViewRequest, NamespaceViewResponse, Position,
        PushNamespacesRequest, QuarantinedRun, Relayed,
    },
};
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    cover::Held,
    error::Error,
    fetch,
    metrics::Metrics,
    selection::Vector,
    shared::{Link, Peer, Shared},
};

/// Under this name a failover travels over [`Link.Forward`](antipode_proto::link).
const METHOD: &str = "/antipode.admin.v1.Admin/Failover";
/// Time for a hand-over when the request names none.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Time for a hand-over that a standard API call asked for: its client waits ten seconds.
const DEADLINE_API: Duration = Duration::from_secs(8);
/// Within this time the active region has to answer, or a standard API call forces (DESIGN 7).
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How long a region is asked for its view of a namespace before a decision is based on ours.
const VIEW_PATIENCE: Duration = Duration::from_secs(1);
/// Beside the time for the hand-over itself, for the way there and back.
const FORWARD_MARGIN: Duration = Duration::from_secs(3);
/// A request that cannot get through is tried again after this, or when a link is healed.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Moves namespaces between regions. Every operation runs to its end, also when its caller goes away.
pub(crate) struct Failover {
    pub(crate) shared: Arc<Shared>,
    /// One operation a namespace at a time.
    running: Mutex<BTreeMap<NamespaceId, Arc<tokio::sync::Mutex<()>>>>,
}

/// An operation as it goes along: its request, its time, and the lines it reports.
pub(crate) struct Operation {
    pub(crate) request: FailoverRequest,
    pub(crate) until: Instant,
    pub(crate) steps: Vec<String>,
    /// What somebody should look at, although it goes on.
    pub(crate) warnings: Vec<String>,
}

impl Operation {
    pub(crate) fn step(&mut self, line: impl Into<String>) {
        let line = line.into();
        tracing::info!(namespace = self.request.namespace, to = self.request.to, "failover: {line}");
        self.steps.push(line);
    }

    pub(crate) fn warn(&mut self, line: String) {
        tracing::warn!(namespace = self.request.namespace, to = self.request.to, "failover: {line}");
        self.warnings.push(line);
    }

    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Failover {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, running: Mutex::default() }
    }

    /// Moves a namespace: hands over or, with `force`, takes it. The same from any region.
    ///
    /// # Errors
    /// [`Error`], with advice where there is some.
    pub(crate) async fn run(self: &Arc<Self>, request: FailoverRequest) -> Result<FailoverReply, Error> {
        self.spawn(request, true).await
    }

    /// What `UpdateNamespace` with an active cluster does: hands over when the active region answers within two seconds,
    /// else forces at the target. The reply says which.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn update_active_cluster(
        self: &Arc<Self>,
        namespace: &str,
        to: &str,
        who: &str,
    ) -> Result<FailoverReply, Error> {
        let entry = self.entry(namespace)?;
        let active = entry.record.active();
        let answers =
            active == self.shared.here() || active == to || self.reachable(active, ANSWERS_WITHIN).await;
        let request = FailoverRequest {
            namespace: namespace.to_string(),
            to: to.to_string(),
            force: !answers,
            deadline_millis: i64::try_from(DEADLINE_API.as_millis()).unwrap_or(i64::MAX),
            who: who.to_string(),
            why: match answers {
                true => "UpdateNamespace".to_string(),
                false => format!("UpdateNamespace; region {active} did not answer within {ANSWERS_WITHIN:?}"),
            },
        };
        self.run(request).await
    }

    /// Whether a region answers now.
    pub(crate) async fn reachable(&self, region: &str, patience: Duration) -> bool {
        let Ok(peer) = self.shared.peer(region) else { return region == self.shared.here() };
        self.shared.hello(&peer, patience).await.is_ok()
    }

    async fn spawn(
        self: &Arc<Self>,
        request: FailoverRequest,
        may_forward: bool,
    ) -> Result<FailoverReply, Error> {
        let patience = match u64::try_from(request.deadline_millis) {
            Ok(millis) if millis > 0 => Duration::from_millis(millis),
            _ => DEADLINE_DEFAULT,
        };
        let (this, to) = (Arc::clone(self), request.to.clone());
        let operation =
            Operation { request, until: Instant::now() + patience, steps: Vec::new(), warnings: Vec::new() };
        // A task of its own: a caller that hangs up must not leave a namespace half way (F1).
        let task = tokio::spawn(async move { this.route(operation, may_forward).await });
        let result = task.await.unwrap_or(Err(Error::Stopping));
        let outcome = match &result {
            Ok(reply) if reply.already_active => "already_active",
            Ok(reply) if reply.forced => "forced",
            Ok(_) => "handed_over",
            Err(_) => "failed",
        };
        Metrics::outcome(&self.shared.metrics.failovers, &to, outcome);
        result
    }

    pub(crate) fn entry(&self, namespace: &str) -> Result<Arc<Entry>, Error> {
        let entry = self.shared.namespaces.by_name(namespace).ok_or_else(|| {
            Error::NotFound(format!("namespace {namespace:?} is not known in {}", self.shared.here()))
        })?;
        if !entry.is_global() {
            let home = entry.record.active();
            let why =
                format!("namespace {namespace} is local to region {home}; promote it before it can move");
            return Err(Error::FailedPrecondition(why));
        }
        Ok(entry)
    }

    /// Finds who must act, and lets them.
    async fn route(
        self: &Arc<Self>,
        mut operation: Operation,
        may_forward: bool,
    ) -> Result<FailoverReply, Error> {
        let (to, force) = (operation.request.to.clone(), operation.request.force);
        if to.is_empty() {
            return Err(Error::InvalidArgument("to: the region to move to is missing".to_string()));
        }
        let entry = self.entry(&operation.request.namespace)?;
        let here = self.shared.here().to_string();
        if force {
            self.require_region(&entry, &to)?;
            if to == here {
                return self.force(entry.id(), operation).await;
            }
            if !may_forward {
                return Err(self.not_here(&to));
            }
            // F3: the target executes the flip; if it cannot be reached there is no flip.
            return self.forward(&to, &mut operation).await;
        }
        self.ask(&to, entry.id()).await;
        loop {
            let entry = self.entry(&operation.request.namespace)?;
            let active = entry.record.active().to_string();
            if active == to && entry.record.phase() == &Phase::Active {
                return Ok(already_active(&entry.record, operation));
            }
            self.require_region(&entry, &to)?;
            if active == here {
                return self.hand_over(entry.id(), operation).await;
            }
            if !may_forward {
                return Err(self.not_here(&active));
            }
            let error = match self.forward(&active, &mut operation).await {
                Err(error) if error.is_unreachable() || is_aborted(&error) => error,
                answered => return answered,
            };
            if operation.left() < RETRY_AFTER {
                return Err(self.advise(&entry, &to, &operation, &error.to_string()));
            }
            self.wait_for_a_way(&active).await;
            self.ask(&active, entry.id()).await;
        }
    }

    /// A forwarded request is acted on here or nowhere: one hop.
    fn not_here(&self, active: &str) -> Error {
        Error::Aborted(format!("region {active} has to act, this is {}; ask again", self.shared.here()))
    }

    fn require_region(&self, entry: &Entry, to: &str) -> Result<(), Error> {
        let regions = self.shared.namespaces.regions();
        regions.require(to).map_err(|error| Error::InvalidArgument(format!("to: {error}")))?;
        if !entry.lists(to) {
            let members: Vec<_> = entry.record.members().into_iter().collect();
            let why = format!(
                "to: region {to} is not in the list of namespace {} ({})",
                entry.name(),
                members.join(", ")
            );
            return Err(Error::FailedPrecondition(why));
        }
        Ok(())
    }

    /// The error of a hand-over whose time is up.
    pub(crate) fn advise(&self, entry: &Entry, to: &str, operation: &Operation, why: &str) -> Error {
        let address = match self.shared.peers.load().get(to) {
            Some(peer) => peer.address.clone(),
            None => self.shared.address.clone(),
        };
        let millis = match u64::try_from(operation.request.deadline_millis) {
            Ok(millis) if millis > 0 => u128::from(millis),
            _ => DEADLINE_DEFAULT.as_millis(),
        };
        let (name, active) = (entry.name(), entry.record.active());
        Error::Deadline(format!(
            "namespace {name} was not handed over to {to} within {millis} ms: {why}. {active} stays active. If {active} is \
             lost, take the namespace at {to}'s address, which may lose what {to} has not received: \
             antipode failover {name} --to {to} --force --address {address}"
        ))
    }

    /// Until the link to a region changed, or a little later.
    async fn wait_for_a_way(&self, _region: &str) {
        let mut gate = self.shared.gate.changes();
        let mut records = self.shared.namespaces.changes();
        tokio::select! {
            _ = gate.changed() => {}
            _ = records.changed() => {}
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }

    /// Asks a region for its record, so that a decision does not rest on an old one. Best effort.
    async fn ask(&self, region: &str, namespace: NamespaceId) {
        if let Ok(peer) = self.shared.peer(region) {
            let _ = self.ask_view(&peer, namespace, VIEW_PATIENCE).await;
        }
    }

    pub(crate) async fn ask_view(
        &self,
        peer: &Peer,
        namespace: NamespaceId,
        patience: Duration,
    ) -> Result<NamespaceViewResponse, Error> {
        let request = NamespaceViewRequest { namespace_id: namespace.to_string(), name: String::new() };
        let view = self
            .shared
            .call(peer, patience, |mut link: Link| async move { link.namespace_view(request).await })
            .await?;
        if let Some(record) = &view.record {
            fetch::merge_record(&self.shared, &peer.name, record).await;
        }
        Ok(view)
    }

    async fn forward(&self, region: &str, operation: &mut Operation) -> Result<FailoverReply, Error> {
        let peer = self.shared.peer(region)?;
        let left = operation.left();
        let request = FailoverRequest {
            deadline_millis: i64::try_from(left.as_millis()).unwrap_or(i64::MAX).max(1),
            ..operation.request.clone()
        };
        let patience = left + FORWARD_MARGIN;
        let forwarded = ForwardRequest {
            method: METHOD.to_string(),
            message: request.encode_to_vec().into(),
            caller_region: self.shared.id().0,
            timeout_nanos: i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX),
            ..ForwardRequest::default()
        };
        let response = self
            .shared
            .call(&peer, patience, |mut link: Link| async move { link.forward(forwarded).await })
            .await?;
        if response.code != 0 {
            let status = Box::new(Status::new(Code::from_i32(response.code), response.error));
            return Err(Error::Remote { region: region.to_string(), status });
        }
        let mut reply = FailoverReply::decode(&*response.message)
            .map_err(|error| Error::protocol(region, format!("its reply does not decode: {error}")))?;
        let mut steps = std::mem::take(&mut operation.steps);
        steps.push(format!("sent from {} to {region}, which acts", self.shared.here()));
        steps.append(&mut reply.steps);
        Ok(FailoverReply { steps, ..reply })
    }

    /// A failover that came over the link; none when the request is something else.
    pub(crate) async fn serve_forwarded(
        self: &Arc<Self>,
        peer: &Peer,
        request: &ForwardRequest,
    ) -> Option<ForwardResponse> {
        if request.method != METHOD {
            return None;
        }
        let result = match FailoverRequest::decode(&*request.message) {
            Ok(request) => self.spawn(request, false).await,
            Err(error) => Err(Error::protocol(&peer.name, format!("its failover does not decode: {error}"))),
        };
        Some(match result {
            Ok(reply) => {
                ForwardResponse { message: reply.encode_to_vec().into(), ..ForwardResponse::default() }
            }
            Err(error) => {
                let status = Status::from(error);
                let error = status.message().to_string();
                ForwardResponse { code: status.code() as i32, error, ..ForwardResponse::default() }
            }
        })
    }

    /// What this region knows of a namespace (F3).
    pub(crate) fn view(
        &self,
        peer: &Peer,
        request: &NamespaceViewRequest,
    ) -> Result<NamespaceViewResponse, Status> {
        let entry = match request.namespace_id.as_str() {
            "" => self.shared.namespaces.by_name(&request.name),
            id => {
                let id = id.parse().map_err(|_| {
                    Status::invalid_argument("NamespaceViewRequest.namespace_id is not a UUID")
                })?;
                self.shared.namespaces.by_id(id)
            }
        };
        let tips = self.committed();
        // Who asks may wait until it has all of them.
        peer.state.want(&tips);
        let committed = tips.iter().map(|(shard, at)| Position { shard: shard.0, sequence: at.0 });
        Ok(match entry.filter(|entry| entry.is_global()) {
            None => NamespaceViewResponse::default(),
            Some(entry) => NamespaceViewResponse {
                found: true,
                record: Some(entry.to_wire()),
                version_seen_max: self.seen_max(&entry.record).0,
                committed: committed.collect(),
                proved: self
                    .held(peer.id)
                    .iter()
                    .map(|(id, held)| Vector::to_wire(*id, held.incarnation, &held.proved))
                    .collect(),
                relayed: relayed_by(peer),
                quarantined: self.quarantined(entry.id()),
                withheld: self.withheld(entry.id()),
            },
        })
    }

    /// What is here of the logs of all regions but this one and that one.
    pub(crate) fn held(&self, but: RegionId) -> BTreeMap<RegionId, Held> {
        let peers = self.shared.enabled_peers().into_iter().filter(|peer| peer.id != but);
        peers
            .map(|peer| {
                let known = peer.state.known();
                let (proved, ended) = (known.proof_of_peer.clone(), known.ended.clone());
                (peer.id, Held { incarnation: known.incarnation, proved, ended })
            })
            .collect()
    }

    /// Runs of a namespace that could not be applied here, from whatever region.
    fn quarantined(&self, id: NamespaceId) -> Vec<QuarantinedRun> {
        let mut runs = Vec::new();
        for peer in self.shared.enabled_peers() {
            let known = peer.state.known();
            runs.extend(known.exceptions_here.iter().filter(|(key, _)| key.namespace == id).map(
                |(key, why)| QuarantinedRun {
                    namespace_id: key.namespace.to_string(),
                    workflow_id: key.workflow.to_string(),
                    run_id: key.run.to_string(),
                    reason: why.reason.clone(),
                },
            ));
        }
        runs
    }

    /// Runs of a namespace that this region holds back from any other.
    fn withheld(&self, id: NamespaceId) -> Vec<QuarantinedRun> {
        let mut runs = BTreeSet::new();
        for peer in self.shared.enabled_peers() {
            let known = peer.state.known();
            runs.extend(known.withheld.values().flatten().map(|entry| entry.run.clone()));
        }
        let held = |key: RunKey| QuarantinedRun {
            namespace_id: key.namespace.to_string(),
            workflow_id: key.workflow.to_string(),
            run_id: key.run.to_string(),
            reason: "an operator holds it back".to_string(),
        };
        runs.into_iter().filter(|key| key.namespace == id).map(held).collect()
    }

    /// The greatest version of the namespace that this store can have seen. Entries are applied only under a record that has
    /// reached their version (I10), and the few that were not are remembered, so records say it.
    pub(crate) fn seen_max(&self, record: &Record) -> FailoverVersion {
        let released = match record.phase() {
            Phase::Released { target_version, .. } => *target_version,
            Phase::Active | Phase::Draining { .. } => FailoverVersion::LOCAL,
        };
        let past = record.history().keys().next_back().copied().unwrap_or_default();
        record.version().max(released).max(past).max(self.shared.version_seen(record.id()))
    }

    /// Takes records that a peer pushes; what is released to this region becomes active before the answer (F1).
    pub(crate) async fn take_pushed(
        &self,
        peer: &Peer,
        request: PushNamespacesRequest,
    ) -> Vec<antipode_proto::core::NamespaceRecord> {
        let mut answers = Vec::new();
        for record in &request.records {
            fetch::merge_record(&self.shared, &peer.name, record).await;
            let Some(entry) = record.id.parse().ok().and_then(|id| self.shared.namespaces.by_id(id)) else {
                continue;
            };
            if matches!(entry.standing(), Standing::MayActivate { .. }) {
                let lock = self.lock_of(entry.id());
                let _running = lock.lock().await;
                self.activate(entry.id(), &request.who, &request.why, request.unavailable_millis).await;
            }
            let now = self.shared.namespaces.by_id(entry.id());
            answers.extend(now.map(|entry| entry.to_wire()));
        }
        answers
    }

    /// Takes over what was released to this region.
    pub(crate) async fn activate(&self, id: NamespaceId, who: &str, why: &str, unavailable_millis: i64) {
        let namespaces = &self.shared.namespaces;
        let before = namespaces.by_id(id).map(|entry| entry.version());
        let regions = namespaces.regions();
        let activated = namespaces
            .update::<namespaces::Error>(id, |record| {
                let act = namespaces.act(&regions, who, why);
                match record.activate_released(&act, unavailable_millis) {
                    Err(antipode_core::namespace::Refusal::AlreadyActive(_)) => Ok(record.clone()),
                    activated => Ok(activated?),
                }
            })
            .await;
        match activated {
            Ok(entry) if Some(entry.version()) == before => {}
            Ok(entry) => {
                tracing::info!(namespace = entry.name(), version = %entry.version(), "active here after a hand-over");
            }
            Err(error) => {
                tracing::error!(namespace = %id, %error, "a released namespace could not be activated");
            }
        }
    }

    /// The lock of a namespace's operations.
    pub(crate) fn lock_of(&self, id: NamespaceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(running.entry(id).or_default())
    }
}

fn is_aborted(error: &Error) -> bool {
    matches!(error, Error::Remote { status, .. } if status.code() == Code::Aborted)
}

/// R104: asked again, a hand-over to the active region changes nothing.
fn already_active(record: &Record, operation: Operation) -> FailoverReply {
    let mut steps = operation.steps;
    steps.push(format!("{} is active already, under version {}", record.active(), record.version().0));
    FailoverReply {
        from: record.active().to_string(),
        to: record.active().to_string(),
        version_before: record.version().0,
        version: record.version().0,
        already_active: true,
        steps,
        ..FailoverReply::default()
    }
}

fn relayed_by(peer: &Peer) -> Vec<Relayed> {
    let known = peer.state.known();
    let mut relayed = Vec::new();
    for (origin, positions) in &known.relayed {
        relayed.extend(positions.iter().map(|(shard, at)| Relayed {
            origin: origin.0,
            shard: shard.0,
            flow: at.0,
            proof: at.0,
        }));
    }
    relayed
}
