//! The shape of a node's configuration, as a file has it. Unknown keys are errors: a typo must not become a default.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// Shards of a region when nothing is said.
pub(crate) const SHARDS_DEFAULT: u32 = 4;

/// A node: one region's frontend, history, matching and links in one place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Which region this node is.
    pub region: Region,
    /// Shards of this region; fixed when its store is made. Regions may differ (I06).
    #[serde(default = "shards_default")]
    pub shards: u32,
    /// Where it listens.
    pub listen: Listen,
    /// Address that other regions dial; the gRPC listener when absent.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Where it stores.
    pub store: Store,
    /// The other regions.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Logs.
    #[serde(default)]
    pub log: Log,
}

impl Node {
    /// Address that other regions dial.
    #[must_use]
    pub fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.grpc.to_string())
    }
}

/// A region's name and its place in the arithmetic of failover versions (R103).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Name, as operators write it.
    pub name: String,
    /// Residue class of the versions this region mints: 0 < initial < increment, unique among all regions (R115).
    pub initial_version: u32,
    /// Distance of two versions of one region; the same in all regions, for ever.
    #[serde(default = "increment_default")]
    pub increment: u32,
}

/// Listeners.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Public API, operator API, links and health.
    pub grpc: SocketAddr,
    /// Prometheus metrics over HTTP; absent: not served.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
}

/// Database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Store {
    /// A SQLite file; made when absent.
    Sqlite {
        /// File.
        path: PathBuf,
    },
    /// Nothing outlives the process.
    Memory {},
}

/// Another region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its initial version.
    pub initial_version: u32,
    /// Host and port of its gRPC listener.
    pub address: String,
}

/// Logs on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Filter, such as `info` or `info,antipode_history=debug`.
    pub filter: String,
    /// Form of a line.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_string(), format: LogFormat::Human }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

fn shards_default() -> u32 {
    SHARDS_DEFAULT
}

fn increment_default() -> u32 {
    10
}
