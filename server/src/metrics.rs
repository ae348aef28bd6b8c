//! Prometheus metrics of one region, over HTTP on a port of their own: `/metrics` in the OpenMetrics text form. Each
//! region has a registry of its own; nothing is global.

use std::{net::SocketAddr, sync::Arc};

use antipode_env::net::{Connection, Listener, accept_next};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio_util::sync::CancellationToken;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What this build and this node are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    version: &'static str,
    increment: u32,
    initial_version: u32,
}

/// A registry whose every line carries the region's name, with what the node says about itself.
#[must_use]
pub fn registry(region: &antipode_config::Region) -> Registry {
    let labels = [("region".into(), region.name.clone().into())];
    let mut registry = Registry::with_labels(labels.into_iter());
    let node = Family::<NodeLabels, Gauge>::default();
    let labels = NodeLabels {
        version: env!("CARGO_PKG_VERSION"),
        increment: region.increment,
        initial_version: region.initial_version,
    };
    node.get_or_create(&labels).set(1);
    registry.register("antipode_node", "Version of this build and the region's version class", node);
    registry
}

/// Serves the registry until `stop`.
pub async fn serve(listener: Arc<dyn Listener>, registry: Arc<Registry>, stop: CancellationToken) {
    let routes = Router::new().route("/metrics", get(metrics)).with_state(registry);
    let serving = axum::serve(Accept(listener), routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A listener of ours as axum wants it.
struct Accept(Arc<dyn Listener>);

impl axum::serve::Listener for Accept {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let connection = accept_next(&*self.0).await;
        let peer = connection.peer_addr().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        (connection, peer)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use antipode_env::net::TcpListener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn every_line_carries_the_region() {
        let region = antipode_config::Region { name: "west".into(), initial_version: 2, increment: 10 };
        let listener = Arc::new(TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap());
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Arc::new(registry(&region)), stop.clone()));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
        let line = text.lines().find(|line| line.starts_with("antipode_node{")).unwrap();
        assert!(line.contains("region=\"west\"") && line.contains("initial_version=\"2\""), "{line}");
        assert!(text.contains("# EOF"), "{text}");
        stop.cancel();
        serving.await.unwrap();
    }
}
