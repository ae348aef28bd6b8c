//! The operator's verbs, as the frontend wants them.

use std::time::Duration;

use antipode_frontend::ports::{self, RegionView};
use antipode_proto::admin::{FailoverReply, FailoverRequest};
use antipode_replicator::Replicator;
use async_trait::async_trait;
use tonic::Status;

/// The links of this node.
pub(crate) struct Verbs(pub(crate) Replicator);

#[async_trait]
impl ports::Operations for Verbs {
    async fn failover(&self, request: FailoverRequest) -> Result<FailoverReply, Status> {
        self.0.failover(request).await.map_err(Status::from)
    }

    async fn reachable(&self, region: &str, patience: Duration) -> bool {
        self.0.reachable(region, patience).await
    }

    fn regions(&self) -> Vec<RegionView> {
        let view = |region: antipode_replicator::RegionView| RegionView {
            name: region.name,
            cluster_id: region.cluster_id,
            address: region.address,
            initial: region.initial,
            shards: region.shards,
            enabled: region.enabled,
        };
        self.0.regions().into_iter().map(view).collect()
    }

    async fn region_upsert(&self, address: &str, enabled: bool) -> Result<(), Status> {
        self.0.region_upsert(address, enabled).await.map_err(Status::from)
    }

    async fn region_remove(&self, name: &str) -> Result<(), Status> {
        self.0.region_remove(name).await.map_err(Status::from)
    }
}
