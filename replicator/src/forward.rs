//! Calls of the public API that another region must answer: one hop, over the link, through the gate (R900–R906, I15). The
//! frontend decides what is forwarded; here it travels.

use std::{sync::Arc, time::Duration};

use antipode_proto::link::{ForwardRequest, ForwardResponse};
use async_trait::async_trait;

use crate::{error::Error, metrics::Metrics, shared::Shared};

/// How long a forwarded call without a deadline of its own may take.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);

/// Who answers the calls that other regions forward here: the frontend, wired by the server.
#[async_trait]
pub trait ForwardTarget: Send + Sync + 'static {
    /// Serves a forwarded call as if it had come in here; it goes no further.
    async fn serve(&self, request: ForwardRequest) -> ForwardResponse;
}

/// Sends calls to other regions. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder {
    shared: Arc<Shared>,
}

impl Forwarder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends a call to a region. An error is one of reaching it; what the call ends with there is in the answer.
    ///
    /// # Errors
    /// [`Error`]: unknown or disabled region, a cut, no answer in time.
    pub async fn forward(&self, region: &str, mut request: ForwardRequest) -> Result<ForwardResponse, Error> {
        let peer = self.shared.peer(region)?;
        request.caller_region = self.shared.id().0;
        let patience = match u64::try_from(request.timeout_nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => PATIENCE_DEFAULT,
        };
        let answered =
            self.shared.call(&peer, patience, |mut link| async move { link.forward(request).await }).await;
        let outcome = match &answered {
            Ok(_) => "answered",
            Err(Error::Cut(_)) => "cut",
            Err(_) => "failed",
        };
        Metrics::outcome(&self.shared.metrics.forwards, region, outcome);
        answered
    }
}
