//! The way to other regions, as the frontend wants it.

use antipode_frontend::ports;
use antipode_proto::link::{ForwardRequest, ForwardResponse};
use antipode_replicator::Replicator;
use async_trait::async_trait;
use tonic::Status;

/// The links of this node.
pub(crate) struct Links(pub(crate) Replicator);

#[async_trait]
impl ports::Peers for Links {
    async fn forward(&self, region: &str, request: ForwardRequest) -> Result<ForwardResponse, Status> {
        self.0.forwarder().forward(region, request).await.map_err(Status::from)
    }
}
