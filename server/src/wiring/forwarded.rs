//! Calls that another region sent on: served by this region's frontend.

use antipode_frontend::Frontend;
use antipode_proto::link::{ForwardRequest, ForwardResponse};
use antipode_replicator::ForwardTarget;
use async_trait::async_trait;

/// The frontend, as the links want it.
pub(crate) struct Target(pub(crate) Frontend);

#[async_trait]
impl ForwardTarget for Target {
    async fn serve(&self, request: ForwardRequest) -> ForwardResponse {
        self.0.serve_forwarded(request).await
    }
}
