//! What clients ask first: which server this is and what it can do. A capability switches behaviour in SDKs (api-surface
//! 3.9), so only what holds is said.

use antipode_proto::api::{
    version::v1::{ReleaseInfo, VersionInfo},
    workflowservice::v1::{self as ws, get_system_info_response::Capabilities},
};
use tonic::Status;

use crate::{call::Call, clients::SERVER_VERSION, context::Context};

/// Versions of clients that are known to work.
const SUPPORTED_CLIENTS: [(&str, &str); 7] = [
    ("temporal-cli", "<2.0.0"),
    ("temporal-go", "<2.0.0"),
    ("temporal-java", "<2.0.0"),
    ("temporal-python", "<2.0.0"),
    ("temporal-rust", "<2.0.0"),
    ("temporal-typescript", "<2.0.0"),
    ("temporal-ui", "<3.0.0"),
];

/// GetSystemInfo.
pub(crate) async fn get_system_info(
    _context: &Context,
    _call: &Call,
    _request: ws::GetSystemInfoRequest,
) -> Result<ws::GetSystemInfoResponse, Status> {
    Ok(ws::GetSystemInfoResponse {
        server_version: SERVER_VERSION.to_string(),
        capabilities: Some(Capabilities {
            signal_and_query_header: true,
            internal_error_differentiation: true,
            activity_failure_include_heartbeat: true,
            encoded_failure_attributes: true,
            build_id_based_versioning: true,
            upsert_memo: true,
            sdk_metadata: true,
            count_group_by_execution_status: true,
            ..Capabilities::default()
        }),
    })
}

/// GetClusterInfo.
pub(crate) async fn get_cluster_info(
    context: &Context,
    _call: &Call,
    _request: ws::GetClusterInfoRequest,
) -> Result<ws::GetClusterInfoResponse, Status> {
    let region = &context.region;
    let text = |(name, versions): (&str, &str)| (name.to_string(), versions.to_string());
    let current = ReleaseInfo { version: SERVER_VERSION.to_string(), ..ReleaseInfo::default() };
    Ok(ws::GetClusterInfoResponse {
        supported_clients: SUPPORTED_CLIENTS.map(text).into(),
        server_version: SERVER_VERSION.to_string(),
        cluster_id: region.cluster_id.clone(),
        version_info: Some(VersionInfo { current: Some(current), ..VersionInfo::default() }),
        cluster_name: region.name.clone(),
        history_shard_count: i32::try_from(context.history.shard_count()).unwrap_or(i32::MAX),
        persistence_store: region.store.clone(),
        visibility_store: region.store.clone(),
        initial_failover_version: i64::from(region.initial),
        failover_version_increment: i64::from(region.increment),
    })
}
