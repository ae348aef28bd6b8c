//! gRPC over the seams of [`crate::net`], with HTTP/2 keepalive on both sides everywhere: a silently lost peer ends its
//! streams within seconds instead of holding them for ever.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use hyper_util::rt::TokioIo;
use tonic::transport::{
    Channel, Endpoint, Server, Uri,
    server::{Connected, TcpConnectInfo},
};

use crate::net::{Connection, Connector, Listener, accept_next};

/// How often an open connection is probed, also an idle one.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may stay unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Flow-control windows: large enough that one stream fills a link between continents.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Requests see both addresses as [`TcpConnectInfo`], so `Request::remote_addr` works.
impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        TcpConnectInfo { local_addr: self.local_addr(), remote_addr: self.peer_addr() }
    }
}

/// Connections of a listener, for `serve_with_incoming`; never ends and yields no error.
pub fn incoming(listener: Arc<dyn Listener>) -> impl Stream<Item = io::Result<Connection>> + Send {
    futures::stream::unfold(listener, |listener| async move {
        let connection = accept_next(&*listener).await;
        Some((Ok(connection), listener))
    })
}

/// A server's builder as every server of ours is set up.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// An endpoint for `host:port` (or `http://host:port`) as every client of ours is set up.
///
/// # Errors
/// The address is not one.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let uri = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// A channel to `address` through `connector`, connected at the first call and again whenever it broke.
///
/// # Errors
/// The address is not one.
pub fn channel_lazy(
    address: &str,
    connector: Arc<dyn Connector>,
) -> Result<Channel, tonic::transport::Error> {
    Ok(endpoint(address)?.connect_with_connector_lazy(GrpcConnector(connector)))
}

/// A channel to `address` through `connector`, connected when this returns.
///
/// # Errors
/// The address is not one, or nobody answers there.
pub async fn channel(
    address: &str,
    connector: Arc<dyn Connector>,
) -> Result<Channel, tonic::transport::Error> {
    endpoint(address)?.connect_with_connector(GrpcConnector(connector)).await
}

/// A [`Connector`] as tonic's `Endpoint::connect_with_connector` wants it.
#[derive(Clone)]
pub struct GrpcConnector(pub Arc<dyn Connector>);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

impl tower::Service<Uri> for GrpcConnector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = Arc::clone(&self.0);
        Box::pin(async move {
            let host = uri
                .host()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no host in {uri}")))?;
            let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
            connector.connect(&address).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;
    use crate::net::{TcpConnector, TcpListener};

    #[tokio::test]
    async fn a_call_goes_through_the_seams() {
        let listener = Arc::new(TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap());
        let address = listener.local_addr().unwrap().to_string();
        let (_reporter, service) = tonic_health::server::health_reporter();
        let serving = tokio::spawn(server().add_service(service).serve_with_incoming(incoming(listener)));
        let channel = channel(&address, Arc::new(TcpConnector)).await.unwrap();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
        serving.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_an_error() {
        assert!(endpoint("not a host").is_err());
        assert!(endpoint("127.0.0.1:7233").is_ok());
        assert!(endpoint("http://127.0.0.1:7233").is_ok());
    }
}
