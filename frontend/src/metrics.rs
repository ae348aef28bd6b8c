//! What the frontend counts: calls by RPC and code, how long they took, calls held during a hand-over, calls forwarded.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// One RPC and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// Short name of the RPC.
    pub method: String,
    /// gRPC code, by its name.
    pub code: &'static str,
}

/// One RPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Rpc {
    /// Short name of the RPC.
    pub method: String,
}

/// One forwarded call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Forwarded {
    /// Short name of the RPC.
    pub method: &'static str,
    /// Region it went to.
    pub peer: String,
    /// gRPC code, by its name.
    pub code: &'static str,
}

/// Upper bounds of latency in seconds: from a cached answer to a long poll that came back empty.
const LATENCY: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];

/// The counters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Finished calls.
    pub requests: Family<Ended, Counter>,
    /// Seconds from the first byte of a request's headers to the answer's.
    pub latency: Family<Rpc, Histogram>,
    /// Calls that wait for a hand-over to end, now.
    pub held: Gauge,
    /// Calls that had to wait for a hand-over.
    pub held_total: Counter,
    /// Calls refused because too many were held.
    pub held_refused: Counter,
    /// Calls sent on to the active region.
    pub forwarded: Family<Forwarded, Counter>,
    /// Calls served for another region.
    pub served_forwarded: Family<Rpc, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY)),
            held: Gauge::default(),
            held_total: Counter::default(),
            held_refused: Counter::default(),
            forwarded: Family::default(),
            served_forwarded: Family::default(),
        }
    }
}

impl Metrics {
    /// Makes them known to a registry, which is one region's.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let frontend = registry.sub_registry_with_prefix("frontend");
        frontend.register("requests", "Finished calls by RPC and gRPC code", metrics.requests.clone());
        frontend.register("latency_seconds", "Time from request to answer", metrics.latency.clone());
        frontend.register("held", "Calls that wait for a hand-over to end", metrics.held.clone());
        frontend.register("held_calls", "Calls that had to wait for a hand-over", metrics.held_total.clone());
        frontend.register(
            "held_refused",
            "Calls refused because too many were waiting for a hand-over",
            metrics.held_refused.clone(),
        );
        frontend.register("forwarded", "Calls sent on to the active region", metrics.forwarded.clone());
        frontend.register(
            "served_forwarded",
            "Calls that another region sent on to this one",
            metrics.served_forwarded.clone(),
        );
        metrics
    }
}

/// The name of a code, as label and in logs.
#[must_use]
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
