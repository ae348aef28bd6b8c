//! Calls that another region sent on: served by this region's frontend.

use std::sync::{Arc, Weak};

use antipode_frontend::{Context, Frontend};
use antipode_proto::link::{ForwardRequest, ForwardResponse};
use antipode_replicator::ForwardTarget;
use async_trait::async_trait;
use tonic::Code;

/// The frontend, as the links want it. Weak, because the frontend holds the links: a circle would keep the store open for ever.
pub(crate) struct Target(Weak<Context>);

impl Target {
    pub(crate) fn new(frontend: &Frontend) -> Self {
        Self(Arc::downgrade(frontend.context()))
    }
}

#[async_trait]
impl ForwardTarget for Target {
    async fn serve(&self, request: ForwardRequest) -> ForwardResponse {
        match self.0.upgrade() {
            Some(context) => Frontend::new(context).serve_forwarded(request).await,
            None => stopping(),
        }
    }
}

fn stopping() -> ForwardResponse {
    let error = "the node is stopping".to_string();
    ForwardResponse { code: Code::Unavailable as i32, error, ..ForwardResponse::default() }
}
