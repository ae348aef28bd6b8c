//! The operator service: what `antipode namespace|failover|link|run` ask of a node. Served on the port of the public API.

mod link;
mod namespace;
mod run;

use std::sync::Arc;

use antipode_history::{client::Client, namespaces::Namespaces};
use antipode_proto::{
    admin,
    antipode::admin::v1::admin_server::{Admin, AdminServer},
};
use antipode_replicator::Replicator;
use tonic::{Request, Response, Status, codec::CompressionEncoding::Gzip};

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    /// Region of this node.
    pub(crate) region: Arc<str>,
    /// Its namespaces.
    pub(crate) namespaces: Arc<Namespaces>,
    /// Its shards.
    pub(crate) history: Client,
    /// Its links.
    pub(crate) replicator: Replicator,
}

impl Service {
    /// As a tonic service.
    pub(crate) fn into_server(self) -> AdminServer<Self> {
        AdminServer::new(self).accept_compressed(Gzip)
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn create_namespace(
        &self,
        request: Request<admin::CreateNamespaceRequest>,
    ) -> Result<Response<admin::NamespaceReply>, Status> {
        namespace::create(self, request.into_inner()).await.map(Response::new)
    }

    async fn describe_namespace(
        &self,
        request: Request<admin::DescribeNamespaceRequest>,
    ) -> Result<Response<admin::NamespaceReply>, Status> {
        namespace::describe(self, &request.into_inner()).map(Response::new)
    }

    async fn list_namespaces(
        &self,
        _request: Request<admin::ListNamespacesRequest>,
    ) -> Result<Response<admin::ListNamespacesReply>, Status> {
        Ok(Response::new(namespace::list(self)))
    }

    async fn failover(
        &self,
        request: Request<admin::FailoverRequest>,
    ) -> Result<Response<admin::FailoverReply>, Status> {
        let reply = self.replicator.failover(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(reply))
    }

    async fn set_link(
        &self,
        request: Request<admin::SetLinkRequest>,
    ) -> Result<Response<admin::SetLinkReply>, Status> {
        link::set(self, &request.into_inner()).map(Response::new)
    }

    async fn link_status(
        &self,
        _request: Request<admin::LinkStatusRequest>,
    ) -> Result<Response<admin::LinkStatusReply>, Status> {
        Ok(Response::new(self.replicator.status()))
    }

    async fn inspect_run(
        &self,
        request: Request<admin::InspectRunRequest>,
    ) -> Result<Response<admin::InspectRunReply>, Status> {
        run::inspect(self, request.into_inner()).await.map(Response::new)
    }
}
