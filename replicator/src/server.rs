//! The link service: what other regions ask of this one. Each call says which region it comes from; what comes in over a
//! cut is refused before it acts, and an answer that would leave over a cut is withheld after it has acted.

use std::sync::Arc;

use antipode_core::ids::RegionId;
use antipode_proto::{
    antipode::link::v1::link_server::{Link, LinkServer},
    link::{
        FetchRunRequest, FetchRunResponse, ForwardRequest, ForwardResponse, HelloRequest, HelloResponse,
        NamespaceViewRequest, NamespaceViewResponse, PushNamespacesRequest, PushNamespacesResponse,
        ReplicateRequest, ReplicateResponse, replicate_request,
    },
};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{
    error::Error,
    failover::Failover,
    fetch,
    gate::Cut,
    handshake::{self, Mismatch},
    metrics::Metrics,
    shared::{CALLER, MESSAGE_BYTES_MAX, Peer, Shared},
    source,
};

/// The service.
#[derive(Clone)]
pub struct LinkService {
    shared: Arc<Shared>,
    failover: Arc<Failover>,
}

/// As a tonic service.
pub(crate) fn service(shared: Arc<Shared>, failover: Arc<Failover>) -> LinkServer<LinkService> {
    LinkServer::new(LinkService { shared, failover })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl LinkService {
    /// The peer that calls.
    fn caller<T>(&self, request: &Request<T>) -> Result<Arc<Peer>, Status> {
        let number = request.metadata().get(CALLER).and_then(|value| value.to_str().ok());
        let id = number.and_then(|number| number.parse().ok()).map(RegionId);
        let id =
            id.ok_or_else(|| Status::unauthenticated(format!("the call names no region in {CALLER}")))?;
        let peers = self.shared.enabled_peers();
        let peer = peers.into_iter().find(|peer| peer.id == id).ok_or_else(|| {
            let here = self.shared.here();
            Status::failed_precondition(format!("region {} is not an enabled peer of {here}", id.0))
        })?;
        self.pass(&peer.name, self.shared.gate.inward(&peer.name))?;
        Ok(peer)
    }

    fn pass(&self, peer: &str, checked: Result<(), Cut>) -> Result<(), Status> {
        self.shared.refuse_cut(peer, checked).map_err(Status::from)
    }

    /// The answer, unless it would leave over a cut.
    fn answer<T>(&self, peer: &str, answer: T) -> Result<Response<T>, Status> {
        self.pass(peer, self.shared.gate.outward(peer))?;
        Ok(Response::new(answer))
    }
}

#[async_trait]
impl Link for LinkService {
    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<BoxStream<ReplicateResponse>>, Status> {
        let peer = self.caller(&request)?;
        self.pass(&peer.name, self.shared.gate.outward(&peer.name))?;
        let mut inbound = request.into_inner();
        let first = inbound.message().await?;
        let Some(replicate_request::Message::Open(open)) = first.and_then(|first| first.message) else {
            return Err(Error::protocol(&peer.name, "its first message is not an opening").into());
        };
        let info = open.receiver.as_ref().ok_or_else(|| Error::from(Mismatch::Anonymous))?;
        if info.name != *peer.name {
            let why = format!("it calls itself {} and is known as {}", info.name, peer.name);
            return Err(Error::protocol(&peer.name, why).into());
        }
        handshake::check(self.shared.here(), &self.shared.namespaces.regions(), info)
            .map_err(|mismatch| Status::from(Error::from(mismatch)))?;
        // What waits here for the connection is bounded by the credit that the peer gives.
        let (out, outbound) = mpsc::unbounded_channel();
        tokio::spawn(source::serve(Arc::clone(&self.shared), peer, open, inbound, out));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(outbound))))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        let peer = self.caller(&request)?;
        let request = request.into_inner();
        let response = match self.failover.serve_forwarded(&peer, &request).await {
            Some(response) => response,
            None => match self.shared.forward_target.get() {
                Some(target) => target.serve(request).await,
                None => return Err(Status::unavailable("this node does not serve forwarded calls yet")),
            },
        };
        Metrics::outcome(&self.shared.metrics.forwards, &peer.name, "served");
        self.answer(&peer.name, response)
    }

    async fn fetch_run(
        &self,
        request: Request<FetchRunRequest>,
    ) -> Result<Response<FetchRunResponse>, Status> {
        let peer = self.caller(&request)?;
        let response = fetch::answer(&self.shared, request.into_inner()).await?;
        self.answer(&peer.name, response)
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        // Anybody may ask who is here: a region that is to become a peer has to.
        let caller = request.into_inner().caller.map(|info| info.name).unwrap_or_default();
        self.pass(&caller, self.shared.gate.inward(&caller))?;
        self.answer(&caller, HelloResponse { callee: Some(self.shared.info()) })
    }

    async fn namespace_view(
        &self,
        request: Request<NamespaceViewRequest>,
    ) -> Result<Response<NamespaceViewResponse>, Status> {
        let peer = self.caller(&request)?;
        let view = self.failover.view(&peer, &request.into_inner())?;
        self.answer(&peer.name, view)
    }

    async fn push_namespaces(
        &self,
        request: Request<PushNamespacesRequest>,
    ) -> Result<Response<PushNamespacesResponse>, Status> {
        let peer = self.caller(&request)?;
        let records = self.failover.take_pushed(&peer, request.into_inner()).await;
        self.answer(&peer.name, PushNamespacesResponse { records })
    }
}
