//! What the replicator counts, by peer. Everything that is skipped, repeated or put aside has a counter.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Label: the peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Peer {
    pub(crate) peer: String,
}

/// Labels: the peer, and one of its shards or ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerShard {
    pub(crate) peer: String,
    pub(crate) shard: u32,
}

/// Labels: the peer, and what became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerOutcome {
    pub(crate) peer: String,
    pub(crate) outcome: &'static str,
}

/// What became of a received entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    Duplicate,
    NeedEvents,
    Retry,
    Quarantined,
    Behind,
    Changed,
    Refused,
    UnknownNamespace,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::NeedEvents => "need_events",
            Self::Retry => "retry",
            Self::Quarantined => "quarantined",
            Self::Behind => "behind_quarantine",
            Self::Changed => "changed_on_the_way",
            Self::Refused => "no_room_in_quarantine",
            Self::UnknownNamespace => "unknown_namespace",
        }
    }
}

/// All of it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) entries_sent: Family<Peer, Counter>,
    pub(crate) entries_relayed: Family<Peer, Counter>,
    pub(crate) bytes_sent: Family<Peer, Counter>,
    pub(crate) bytes_received: Family<Peer, Counter>,
    pub(crate) entries_received: Family<PeerOutcome, Counter>,
    pub(crate) entries_withheld: Family<Peer, Counter>,
    pub(crate) rows_damaged: Family<Peer, Counter>,
    pub(crate) reconnects: Family<Peer, Counter>,
    pub(crate) cut_refusals: Family<Peer, Counter>,
    pub(crate) acks_lost_to_cuts: Family<Peer, Counter>,
    pub(crate) forwards: Family<PeerOutcome, Counter>,
    pub(crate) fetches: Family<Peer, Counter>,
    pub(crate) namespaces_received: Family<PeerOutcome, Counter>,
    pub(crate) lag_entries: Family<PeerShard, Gauge>,
    pub(crate) proof_by_peer: Family<PeerShard, Gauge>,
    pub(crate) proof_of_peer: Family<PeerShard, Gauge>,
    pub(crate) quarantined: Family<Peer, Gauge>,
    pub(crate) failovers: Family<PeerOutcome, Counter>,
    /// How far a peer's clock is ahead of ours, as last measured (H2).
    pub(crate) clock_skew_millis: Family<Peer, Gauge>,
    /// Seconds from sending to the proof, both ends' clocks: for display (H1).
    pub(crate) apply_seconds: Family<Peer, Histogram>,
}

fn latency() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0])
}

impl Metrics {
    /// Registers everything under `link_`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("link");
        let metrics = Self {
            entries_sent: Family::default(),
            entries_relayed: Family::default(),
            bytes_sent: Family::default(),
            bytes_received: Family::default(),
            entries_received: Family::default(),
            entries_withheld: Family::default(),
            rows_damaged: Family::default(),
            reconnects: Family::default(),
            cut_refusals: Family::default(),
            acks_lost_to_cuts: Family::default(),
            forwards: Family::default(),
            fetches: Family::default(),
            namespaces_received: Family::default(),
            lag_entries: Family::default(),
            proof_by_peer: Family::default(),
            proof_of_peer: Family::default(),
            quarantined: Family::default(),
            failovers: Family::default(),
            clock_skew_millis: Family::default(),
            apply_seconds: Family::new_with_constructor(latency as fn() -> Histogram),
        };
        let m = &metrics;
        registry.register("entries_sent", "Entries sent to a peer", m.entries_sent.clone());
        registry.register(
            "entries_relayed",
            "Entries sent to a peer for a region that it gets nothing from",
            m.entries_relayed.clone(),
        );
        registry.register("bytes_sent", "Bytes of entries sent to a peer", m.bytes_sent.clone());
        registry.register("bytes_received", "Bytes of entries received", m.bytes_received.clone());
        registry.register(
            "entries_received",
            "Verdicts on received entries, by outcome",
            m.entries_received.clone(),
        );
        registry.register(
            "entries_withheld",
            "Entries of held runs kept back by the test hook",
            m.entries_withheld.clone(),
        );
        registry.register("rows_damaged", "Stored rows that could not be sent", m.rows_damaged.clone());
        registry.register("reconnects", "Attempts to open the stream of entries", m.reconnects.clone());
        registry.register("cut_refusals", "Calls and messages that met a cut", m.cut_refusals.clone());
        registry.register("acks_lost_to_cuts", "Acks that met a cut", m.acks_lost_to_cuts.clone());
        registry.register("forwards", "Calls sent to a peer, by outcome", m.forwards.clone());
        registry.register("fetches", "Runs fetched from a peer to fill a hole", m.fetches.clone());
        registry.register(
            "namespaces_received",
            "Namespace records received, by outcome",
            m.namespaces_received.clone(),
        );
        registry.register(
            "lag_entries",
            "Positions committed and not proved by the peer",
            m.lag_entries.clone(),
        );
        registry.register(
            "proof_by_peer",
            "Position a peer has proved, by our shard",
            m.proof_by_peer.clone(),
        );
        registry.register(
            "proof_of_peer",
            "Position proved here, by the peer's shard",
            m.proof_of_peer.clone(),
        );
        registry.register("quarantined", "Runs of a peer that are quarantined here", m.quarantined.clone());
        registry.register("failovers", "Failovers run here, by outcome", m.failovers.clone());
        registry.register(
            "clock_skew_millis",
            "Milliseconds that a peer's clock is ahead, as last measured",
            m.clock_skew_millis.clone(),
        );
        registry.register(
            "apply_seconds",
            "Seconds from sending a range of entries to its proof",
            m.apply_seconds.clone(),
        );
        metrics
    }

    pub(crate) fn received(&self, peer: &str, outcome: Outcome, count: u64) {
        if count > 0 {
            let labels = PeerOutcome { peer: peer.to_string(), outcome: outcome.label() };
            self.entries_received.get_or_create(&labels).inc_by(count);
        }
    }

    pub(crate) fn outcome(family: &Family<PeerOutcome, Counter>, peer: &str, outcome: &'static str) {
        family.get_or_create(&PeerOutcome { peer: peer.to_string(), outcome }).inc();
    }

    pub(crate) fn peer(family: &Family<Peer, Counter>, peer: &str, count: u64) {
        family.get_or_create(&Peer { peer: peer.to_string() }).inc_by(count);
    }
}
