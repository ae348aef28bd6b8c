//! The connection to a node, and its refusals as one line.

use std::{sync::Arc, time::Duration};

use antipode_env::net::TcpConnector;
use antipode_proto::antipode::admin::v1::admin_client::AdminClient;
use tonic::{Code, Status, transport::Channel};

use super::{Error, Target};

/// How long a plain question may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A node that answered.
pub(super) struct Connected {
    client: AdminClient<Channel>,
    address: String,
}

impl Connected {
    pub(super) async fn to(target: &Target) -> Result<Self, Error> {
        let address = target.address.clone();
        if antipode_env::grpc::endpoint(&address).is_err() || !address.contains(':') {
            return Err(Error::Address(address));
        }
        let channel = antipode_env::grpc::channel(&address, Arc::new(TcpConnector))
            .await
            .map_err(|error| Error::Unreachable { address, why: root_cause(&error) })?;
        Ok(Self { client: AdminClient::new(channel), address: target.address.clone() })
    }

    /// What questions are asked through.
    pub(super) fn client(&self) -> AdminClient<Channel> {
        self.client.clone()
    }

    /// Waits for an answer, for no longer than a plain question may take.
    pub(super) async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        self.answer_within(PATIENCE, asked).await
    }

    /// Waits for an answer.
    pub(super) async fn answer_within<T>(
        &self,
        patience: Duration,
        asked: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refusal(&status)),
            Err(_) => {
                let message = format!("{} did not answer within {} s", self.address, patience.as_secs());
                Err(Error::Refused(message))
            }
        }
    }

    fn refusal(&self, status: &Status) -> Error {
        let message = status.message().split_whitespace().collect::<Vec<_>>().join(" ");
        match status.code() {
            Code::Unimplemented if message.is_empty() => Error::Refused(format!(
                "{} is not an Antipode node: it has no operator service",
                self.address
            )),
            // What answered speaks HTTP and not gRPC.
            _ if message.starts_with("grpc-status header missing") => {
                Error::Refused(format!("{} does not speak gRPC; is it a metrics port?", self.address))
            }
            code if message.is_empty() => Error::Refused(format!("{} answered {code:?}", self.address)),
            _ => Error::Refused(message),
        }
    }
}

/// The innermost cause: "connection refused", not "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    crate::process::plain(&cause.to_string()).to_lowercase()
}
