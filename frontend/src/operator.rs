//! OperatorService: the regions this one knows, and the attributes that visibility has.

use antipode_proto::api::operatorservice::v1 as os;
use bytes::Bytes;
use tonic::Status;

use crate::{call::Call, context::Context, errors, ports::RegionView, validate, visibility};

/// ListClusters: itself first. There are few; all fit one page.
pub(crate) async fn list_clusters(
    context: &Context,
    _call: &Call,
    _request: os::ListClustersRequest,
) -> Result<os::ListClustersResponse, Status> {
    let clusters = context.operations.regions().into_iter().map(cluster).collect();
    Ok(os::ListClustersResponse { clusters, next_page_token: Bytes::new() })
}

fn cluster(region: RegionView) -> os::ClusterMetadata {
    os::ClusterMetadata {
        cluster_name: region.name,
        cluster_id: region.cluster_id,
        address: region.address,
        initial_failover_version: i64::from(region.initial),
        history_shard_count: i32::try_from(region.shards).unwrap_or(i32::MAX),
        is_connection_enabled: region.enabled,
        is_replication_enabled: region.enabled,
        ..os::ClusterMetadata::default()
    }
}

/// AddOrUpdateRemoteCluster: dials the address and remembers who answers. Replication goes with the connection.
pub(crate) async fn add_or_update_remote_cluster(
    context: &Context,
    _call: &Call,
    request: os::AddOrUpdateRemoteClusterRequest,
) -> Result<os::AddOrUpdateRemoteClusterResponse, Status> {
    validate::required("FrontendAddress", &request.frontend_address)?;
    let enabled = request.enable_remote_cluster_connection;
    context.operations.region_upsert(&request.frontend_address, enabled).await?;
    Ok(os::AddOrUpdateRemoteClusterResponse::default())
}

/// RemoveRemoteCluster.
pub(crate) async fn remove_remote_cluster(
    context: &Context,
    _call: &Call,
    request: os::RemoveRemoteClusterRequest,
) -> Result<os::RemoveRemoteClusterResponse, Status> {
    validate::required("ClusterName", &request.cluster_name)?;
    if request.cluster_name == context.region.name {
        return Err(errors::invalid("ClusterName names this region, which cannot be removed from itself."));
    }
    context.operations.region_remove(&request.cluster_name).await?;
    Ok(os::RemoveRemoteClusterResponse::default())
}

/// ListSearchAttributes: the system's own; there are no custom ones yet.
pub(crate) async fn list_search_attributes(
    context: &Context,
    _call: &Call,
    request: os::ListSearchAttributesRequest,
) -> Result<os::ListSearchAttributesResponse, Status> {
    if !request.namespace.is_empty() {
        context.namespace(&request.namespace)?;
    }
    let system_attributes = visibility::system_attributes();
    Ok(os::ListSearchAttributesResponse { system_attributes, ..os::ListSearchAttributesResponse::default() })
}
