//! A namespace as the API shows it, read from its record: where it is active, who may write now, which answers describe it.

use antipode_core::ids::NamespaceId;
use antipode_proto::{
    api::{
        enums::v1::{ArchivalState, NamespaceState, ReplicationState},
        namespace::v1::{NamespaceConfig, NamespaceInfo, namespace_info},
        replication::v1::{ClusterReplicationConfig, FailoverStatus, NamespaceReplicationConfig},
        workflowservice::v1::DescribeNamespaceResponse,
    },
    core::{FailoverPhase, NamespaceRecord},
};

use crate::limits;

/// Failover history entries that a description shows (R211).
const HISTORY_SHOWN: usize = 10;

/// A namespace, as of one version of its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Id.
    pub id: NamespaceId,
    /// Name.
    pub name: String,
    /// Regions in its list, in order; the active one is always among them (F4).
    pub regions: Vec<String>,
    /// The record it was read from.
    pub record: NamespaceRecord,
}

/// Who writes a namespace now, seen from one region (F1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This region does.
    Here,
    /// Another region does.
    Elsewhere(String),
    /// Nobody: a hand-over is under way.
    HandedOver,
}

impl Namespace {
    /// Whether it replicates.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.record.global
    }

    /// The region that decides; for a local namespace its home.
    #[must_use]
    pub fn active(&self) -> &str {
        match &self.record.failover {
            Some(failover) if !failover.active.is_empty() => &failover.active,
            _ => &self.record.home,
        }
    }

    /// Current failover version; 0 for a local namespace.
    #[must_use]
    pub fn failover_version(&self) -> i64 {
        self.record.failover.as_ref().map_or(0, |failover| failover.version)
    }

    /// Whether it was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.record.deleted
    }

    /// Who may write now.
    #[must_use]
    pub fn standing(&self, here: &str) -> Standing {
        if !self.record.global {
            return Standing::Here;
        }
        let Some(failover) = &self.record.failover else { return Standing::Here };
        match failover.phase() {
            // While the owner drains it freezes its writers; while it is released nobody is active (F1).
            FailoverPhase::Draining | FailoverPhase::Released => Standing::HandedOver,
            FailoverPhase::Active | FailoverPhase::Unspecified if failover.active == here => Standing::Here,
            FailoverPhase::Active | FailoverPhase::Unspecified => {
                Standing::Elsewhere(failover.active.clone())
            }
        }
    }

    /// Info part of a description.
    #[must_use]
    pub fn info(&self) -> NamespaceInfo {
        let info = self.record.info.clone().unwrap_or_default();
        let state = if self.record.deleted { NamespaceState::Deleted } else { NamespaceState::Registered };
        NamespaceInfo {
            name: self.name.clone(),
            state: state as i32,
            description: info.description,
            owner_email: info.owner_email,
            data: info.data,
            id: self.id.to_string(),
            // A capability is a promise that SDKs act on; none of the optional ones is built.
            capabilities: Some(namespace_info::Capabilities::default()),
            limits: Some(namespace_info::Limits {
                blob_size_limit_error: limits::BLOB_BYTES_MAX as i64,
                memo_size_limit_error: limits::MEMO_BYTES_MAX as i64,
                ..namespace_info::Limits::default()
            }),
            supports_schedules: false,
        }
    }

    /// Config part of a description.
    #[must_use]
    pub fn config(&self) -> NamespaceConfig {
        let seconds = self.record.config.as_ref().map_or(0, |config| config.retention_seconds);
        NamespaceConfig {
            workflow_execution_retention_ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
            history_archival_state: ArchivalState::Disabled as i32,
            visibility_archival_state: ArchivalState::Disabled as i32,
            ..NamespaceConfig::default()
        }
    }

    /// Replication part of a description; never missing, because clients read it unchecked.
    #[must_use]
    pub fn replication(&self) -> NamespaceReplicationConfig {
        let cluster = |name: &String| ClusterReplicationConfig {
            cluster_name: name.clone(),
            ..ClusterReplicationConfig::default()
        };
        let handover = matches!(self.standing(""), Standing::HandedOver);
        let state = match (self.record.global, handover) {
            (false, _) => ReplicationState::Unspecified,
            (true, true) => ReplicationState::Handover,
            (true, false) => ReplicationState::Normal,
        };
        NamespaceReplicationConfig {
            active_cluster_name: self.active().to_string(),
            clusters: self.regions.iter().map(cluster).collect(),
            state: state as i32,
        }
    }

    /// The whole description.
    #[must_use]
    pub fn describe(&self) -> DescribeNamespaceResponse {
        let entries = &self.record.history;
        let shown = &entries[entries.len().saturating_sub(HISTORY_SHOWN)..];
        let status = |entry: &antipode_proto::core::FailoverEntry| FailoverStatus {
            failover_time: Some(antipode_core::ids::Timestamp(entry.at_unix_nanos).to_proto()),
            failover_version: entry.version,
        };
        DescribeNamespaceResponse {
            namespace_info: Some(self.info()),
            config: Some(self.config()),
            replication_config: Some(self.replication()),
            failover_version: self.failover_version(),
            is_global_namespace: self.record.global,
            failover_history: shown.iter().map(status).collect(),
            ..DescribeNamespaceResponse::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antipode_proto::core::{FailoverEntry, FailoverRegister};

    fn global(phase: FailoverPhase, active: &str) -> Namespace {
        Namespace {
            id: NamespaceId::from_random([7; 16]),
            name: "orders".to_string(),
            regions: vec!["east".to_string(), "west".to_string()],
            record: NamespaceRecord {
                global: true,
                failover: Some(FailoverRegister {
                    version: 11,
                    phase: phase as i32,
                    active: active.to_string(),
                    ..FailoverRegister::default()
                }),
                history: (0..12).map(|n| FailoverEntry { version: n, ..FailoverEntry::default() }).collect(),
                ..NamespaceRecord::default()
            },
        }
    }

    #[test]
    fn only_the_active_region_writes() {
        let namespace = global(FailoverPhase::Active, "east");
        assert_eq!(namespace.standing("east"), Standing::Here);
        assert_eq!(namespace.standing("west"), Standing::Elsewhere("east".to_string()));
    }

    #[test]
    fn nobody_writes_during_a_hand_over() {
        for phase in [FailoverPhase::Draining, FailoverPhase::Released] {
            assert_eq!(global(phase, "east").standing("east"), Standing::HandedOver, "{phase:?}");
            assert_eq!(global(phase, "east").standing("west"), Standing::HandedOver, "{phase:?}");
        }
    }

    #[test]
    fn a_local_namespace_is_always_here() {
        let mut namespace = global(FailoverPhase::Active, "west");
        namespace.record.global = false;
        assert_eq!(namespace.standing("east"), Standing::Here);
    }

    #[test]
    fn a_description_has_every_part() {
        let described = global(FailoverPhase::Active, "east").describe();
        let replication = described.replication_config.expect("clients read it unchecked");
        assert_eq!(replication.active_cluster_name, "east");
        let names: Vec<_> =
            replication.clusters.iter().map(|cluster| cluster.cluster_name.as_str()).collect();
        assert_eq!(names, ["east", "west"]);
        assert_eq!(described.failover_version, 11);
        assert!(described.is_global_namespace);
        let versions: Vec<_> =
            described.failover_history.iter().map(|entry| entry.failover_version).collect();
        assert_eq!(versions, (2..12).collect::<Vec<_>>());
        assert!(described.config.is_some() && described.namespace_info.is_some());
    }
}
