//! Entries that could not be applied at once. One workflow's entries are mended one after the other (B8), workflows beside
//! each other: holes are fetched and applied before the entry is offered again, refusals that pass are waited for, and
//! what cannot be applied ends in quarantine with its reason (E1).

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use antipode_core::ids::{FailoverVersion, NamespaceId, RunKey};
use antipode_history::api::{Applied, Replicated};
use antipode_proto::{
    core as wire,
    link::{self, FetchRunResponse, NamespaceViewRequest},
};

use crate::{
    entry,
    error::Error,
    fetch::{self, Hole},
    shared::{Peer, Shared},
};

/// A fetched entry may itself need something, and so on: not deeper than this.
const DEPTH_MAX: u32 = 8;
/// How often one entry may find a hole before it counts as one that cannot be filled.
const HOLES_MAX: u32 = 256;
/// How often nobody may have what is missing.
const NOWHERE_MAX: u32 = 5;
/// How often all regions are asked for a namespace record that would cover an entry.
const RECORDS_MAX: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const VIEW_PATIENCE: Duration = Duration::from_secs(5);

/// How an entry ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mended {
    /// It stands.
    Applied,
    /// It stood already.
    Known,
    /// Its namespace does not list this region: nobody here may want it.
    NotOurs,
}

/// It cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Poisoned(pub(crate) String);

/// Waiting times that double.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF_FIRST)
    }

    /// Waits. The condition (another region, another commit) has no signal that could be awaited here.
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }
}

/// What mends, for one source.
#[derive(Clone)]
pub(crate) struct Mender {
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: Arc<Peer>,
}

impl Mender {
    /// Offers an entry until it stands, or cannot. `verdict` is what the shard said already, if it was asked.
    pub(crate) async fn mend(
        &self,
        entry: &link::Entry,
        verdict: Option<Applied>,
    ) -> Result<Mended, Poisoned> {
        let received = entry::read(entry).map_err(|unreadable| Poisoned(unreadable.why))?;
        if verdict.is_none() && !self.cover(received.key.namespace, received.version).await {
            return Ok(Mended::NotOurs);
        }
        self.settle(received.key, received.replicated, verdict, DEPTH_MAX).await
    }

    /// Brings a quarantined run up to date from its source, whole.
    pub(crate) async fn replay(&self, key: &RunKey) -> Result<(), Error> {
        let hole = Hole { key: key.clone(), known: Default::default(), until: None };
        match fetch::fetch(&self.shared, &self.source, &hole).await? {
            None => Err(Error::NotFound(format!("no region has run {}", key.run))),
            Some(response) => self
                .apply_fetched(key, response, false, DEPTH_MAX)
                .await
                .map(|_| ())
                .map_err(|poisoned| Error::FailedPrecondition(poisoned.0)),
        }
    }

    async fn offer(&self, key: &RunKey, replicated: Replicated) -> Applied {
        let shard = self.shared.history.shard_of(&key.workflow_key());
        match self.shared.history.apply(shard, vec![replicated]).await {
            Ok(mut answers) => {
                answers.pop().unwrap_or_else(|| Applied::Retry("the shard gave no answer".to_string()))
            }
            Err(refusal) => Applied::Retry(refusal.to_string()),
        }
    }

    fn settle(
        &self,
        key: RunKey,
        replicated: Replicated,
        first: Option<Applied>,
        depth: u32,
    ) -> Pin<Box<dyn Future<Output = Result<Mended, Poisoned>> + Send + '_>> {
        Box::pin(async move {
            let mut verdict = match first {
                Some(verdict) => verdict,
                None => self.offer(&key, replicated.clone()).await,
            };
            let (mut backoff, mut holes, mut nowhere) = (Backoff::new(), 0, 0);
            loop {
                match verdict {
                    Applied::Applied(_) => return Ok(Mended::Applied),
                    Applied::Duplicate => return Ok(Mended::Known),
                    Applied::Poison(why) => return Err(Poisoned(why)),
                    Applied::Retry(why) => {
                        tracing::debug!(run = %key, why, "a replicated entry is offered again");
                        backoff.wait().await;
                    }
                    Applied::NeedEvents { key: wanted, known, until } => {
                        holes += 1;
                        if depth == 0 || holes > HOLES_MAX {
                            return Err(Poisoned(format!(
                                "the hole before it could not be filled: {wanted}"
                            )));
                        }
                        let hole = Hole { key: wanted, known, until };
                        match self.fill(&key, &hole, depth - 1).await {
                            Ok(true) => backoff = Backoff::new(),
                            Ok(false) => backoff.wait().await,
                            Err(Filling::Nowhere) if nowhere + 1 >= NOWHERE_MAX => {
                                return Err(Poisoned(format!(
                                    "no region has the events before it: {}",
                                    hole.key
                                )));
                            }
                            Err(Filling::Nowhere) => {
                                nowhere += 1;
                                backoff.wait().await;
                            }
                            Err(Filling::Poisoned(why)) => return Err(Poisoned(why)),
                            Err(Filling::Unreachable(error)) => {
                                tracing::debug!(run = %key, %error, "a hole waits for its source");
                                backoff.wait().await;
                            }
                        }
                    }
                }
                verdict = self.offer(&key, replicated.clone()).await;
            }
        })
    }

    /// Fetches and applies what is missing; whether anything was new here.
    async fn fill(&self, key: &RunKey, hole: &Hole, depth: u32) -> Result<bool, Filling> {
        let fetched = fetch::fetch(&self.shared, &self.source, hole).await.map_err(Filling::Unreachable)?;
        let response = fetched.ok_or(Filling::Nowhere)?;
        // Of a successor only its first batch is needed before the close of its predecessor (B8); the rest comes by itself.
        let first_only = hole.key.run != key.run;
        self.apply_fetched(&hole.key, response, first_only, depth)
            .await
            .map_err(|poisoned| Filling::Poisoned(poisoned.0))
    }

    async fn apply_fetched(
        &self,
        key: &RunKey,
        response: FetchRunResponse,
        first_only: bool,
        depth: u32,
    ) -> Result<bool, Poisoned> {
        let mut new = false;
        let batches = response.batches.into_iter().map(link::entry::Entry::Batch);
        let state = response.state.filter(|_| !first_only).map(link::entry::Entry::State);
        for (index, body) in batches.chain(state).enumerate() {
            if first_only && index > 0 {
                break;
            }
            let entry = link::Entry { sequence: 0, entry: Some(body) };
            let received = entry::read(&entry).map_err(|unreadable| Poisoned(unreadable.why))?;
            if received.key != *key {
                return Err(Poisoned(format!("asked for {key}, the answer is about {}", received.key)));
            }
            if !self.cover(received.key.namespace, received.version).await {
                return Err(Poisoned(format!("namespace {} does not list this region", key.namespace)));
            }
            new |= self.settle(received.key, received.replicated, None, depth).await? == Mended::Applied;
        }
        Ok(new)
    }

    /// Makes sure that the namespace's record here has reached the version of an entry (F5, R114): asks the source and then
    /// the others for theirs. Whether the namespace is ours at all.
    async fn cover(&self, namespace: NamespaceId, version: Option<FailoverVersion>) -> bool {
        let mut backoff = Backoff::new();
        for _ in 0..RECORDS_MAX {
            if self.covered(namespace, version) {
                return true;
            }
            let mut answered = false;
            let others = self.shared.enabled_peers().into_iter().filter(|peer| peer.name != self.source.name);
            for peer in std::iter::once(Arc::clone(&self.source)).chain(others) {
                answered |= self.ask_record(&peer, namespace).await;
                if self.covered(namespace, version) {
                    return true;
                }
            }
            if answered && self.shared.namespaces.by_id(namespace).is_none() {
                return false;
            }
            backoff.wait().await;
        }
        // An overtaken record makes a run not writable here; it does not make history unreadable (F5).
        if let Some(version) = version {
            self.shared.version_overtook(namespace, version);
        }
        self.shared.namespaces.by_id(namespace).is_some()
    }

    fn covered(&self, namespace: NamespaceId, version: Option<FailoverVersion>) -> bool {
        let entry = self.shared.namespaces.by_id(namespace);
        entry.is_some_and(|entry| version.is_none_or(|version| entry.version() >= version))
    }

    /// Whether the peer answered.
    async fn ask_record(&self, peer: &Arc<Peer>, namespace: NamespaceId) -> bool {
        let request = NamespaceViewRequest { namespace_id: namespace.to_string(), name: String::new() };
        let asked = |mut link: crate::shared::Link| async move { link.namespace_view(request).await };
        match self.shared.call(peer, VIEW_PATIENCE, asked).await {
            Ok(view) => {
                if let Some(record) = view.record {
                    merge_record(&self.shared, &peer.name, &record).await;
                }
                true
            }
            Err(error) => {
                tracing::debug!(peer = &*peer.name, %error, "a namespace record could not be asked for");
                false
            }
        }
    }
}

/// Why a hole stays.
enum Filling {
    Nowhere,
    Unreachable(Error),
    Poisoned(String),
}

/// Merges a received record; what is wrong with it is counted and logged.
pub(crate) async fn merge_record(shared: &Shared, peer: &str, record: &wire::NamespaceRecord) {
    let outcome = match shared.namespaces.merge(record).await {
        Ok(antipode_history::namespaces::Merge::Changed) => "changed",
        Ok(antipode_history::namespaces::Merge::Known) => "known",
        Ok(antipode_history::namespaces::Merge::NotOurs) => "not_ours",
        Err(error) => {
            tracing::error!(peer, namespace = record.id, %error, "a namespace record could not be merged");
            "failed"
        }
    };
    crate::metrics::Metrics::outcome(&shared.metrics.namespaces_received, peer, outcome);
}
