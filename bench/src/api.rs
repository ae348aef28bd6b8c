//! Connections to one server, and the few calls that are made outside a measurement.

use std::time::Duration;

use antipode_proto::api::{
    common::v1::WorkflowExecution,
    history::v1::HistoryEvent,
    workflowservice::v1::{
        DescribeNamespaceRequest, DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse,
        GetSystemInfoRequest, GetWorkflowExecutionHistoryRequest,
        workflow_service_client::WorkflowServiceClient,
    },
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use crate::error::{Error, Result};

/// A raw client of the public API.
pub type Client = WorkflowServiceClient<Channel>;

/// The limit that Temporal's own clients set for an answer.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Deadline of every call that is no poll.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Connections to one server, for one namespace.
#[derive(Clone, Debug)]
pub struct Api {
    /// `http://host:port`.
    pub address: String,
    /// Namespace of every call.
    pub namespace: String,
    clients: Vec<Client>,
}

/// A call with the deadline that every server asks for.
pub fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// One connection, made now.
///
/// # Errors
/// When nobody listens, or not with HTTP/2.
pub async fn dial(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(address.to_string())?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect()
        .await
}

/// A client over a connection.
#[must_use]
pub fn client(channel: Channel) -> Client {
    WorkflowServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

impl Api {
    /// Opens the connections and sees that the namespace is there.
    ///
    /// # Errors
    /// When the server cannot be reached or does not know the namespace.
    pub async fn connect(address: &str, namespace: &str, connections: usize) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..connections.max(1) {
            let channel = dial(address)
                .await
                .map_err(|source| Error::Connect { address: address.to_string(), source })?;
            clients.push(client(channel));
        }
        let api = Self { address: address.to_string(), namespace: namespace.to_string(), clients };
        api.system_info().await?;
        api.describe_namespace().await?;
        Ok(api)
    }

    /// The client for the nth user: users are spread over the connections.
    #[must_use]
    pub fn client(&self, user: usize) -> Client {
        self.clients[user % self.clients.len()].clone()
    }

    fn failed(&self, method: &'static str) -> impl FnOnce(Status) -> Error {
        let address = self.address.clone();
        move |status| Error::Call { method, address, status: Box::new(status) }
    }

    /// The server's version.
    ///
    /// # Errors
    /// When the call is refused.
    pub async fn system_info(&self) -> Result<String> {
        let answer = self.client(0).get_system_info(within(CALL_DEADLINE, GetSystemInfoRequest {})).await;
        Ok(answer.map_err(self.failed("GetSystemInfo"))?.into_inner().server_version)
    }

    async fn describe_namespace(&self) -> Result<()> {
        let request = DescribeNamespaceRequest {
            namespace: self.namespace.clone(),
            ..DescribeNamespaceRequest::default()
        };
        let answer = self.client(0).describe_namespace(within(CALL_DEADLINE, request)).await;
        answer.map_err(self.failed("DescribeNamespace")).map(drop)
    }

    /// The whole history of a run, page by page.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn history(&self, workflow_id: &str, run_id: &str) -> Result<Vec<HistoryEvent>, Status> {
        let mut events = Vec::new();
        let mut token = bytes::Bytes::new();
        loop {
            let request = GetWorkflowExecutionHistoryRequest {
                namespace: self.namespace.clone(),
                execution: Some(execution(workflow_id, run_id)),
                next_page_token: token,
                ..GetWorkflowExecutionHistoryRequest::default()
            };
            let answer = self
                .client(0)
                .get_workflow_execution_history(within(CALL_DEADLINE, request))
                .await?
                .into_inner();
            events.extend(answer.history.unwrap_or_default().events);
            token = answer.next_page_token;
            if token.is_empty() {
                return Ok(events);
            }
        }
    }

    /// DescribeWorkflowExecution.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn describe(
        &self,
        workflow_id: &str,
        run_id: &str,
    ) -> Result<DescribeWorkflowExecutionResponse, Status> {
        let request = DescribeWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            execution: Some(execution(workflow_id, run_id)),
        };
        let answer = self.client(0).describe_workflow_execution(within(CALL_DEADLINE, request)).await?;
        Ok(answer.into_inner())
    }
}

/// A workflow id and, if known, its run.
#[must_use]
pub fn execution(workflow_id: &str, run_id: &str) -> WorkflowExecution {
    WorkflowExecution { workflow_id: workflow_id.to_string(), run_id: run_id.to_string() }
}
