//! The ports of `antipode dev`. All are taken before anything is written, and kept: no other process can slip in between
//! the check and the start.

use std::net::{SocketAddr, TcpListener};

use antipode_config::Node;
use antipode_env::net::reserve;

use crate::process::Bound;

/// A port that another process holds, or one that we may not have.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {region}: cannot listen on {address}: {why}; choose other ports with --base-port")]
pub struct Error {
    what: &'static str,
    region: String,
    address: SocketAddr,
    why: String,
}

/// Takes the ports of all nodes, or none.
///
/// # Errors
/// The first that can't be had.
pub fn take(nodes: &[Node]) -> Result<Vec<Bound>, Error> {
    nodes
        .iter()
        .map(|node| {
            let grpc = bind("the gRPC port", node, node.listen.grpc)?;
            let metrics =
                node.listen.metrics.map(|address| bind("the metrics port", node, address)).transpose()?;
            Ok(Bound { grpc, metrics })
        })
        .collect()
}

fn bind(what: &'static str, node: &Node, address: SocketAddr) -> Result<TcpListener, Error> {
    reserve(address).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => "the port is taken".to_string(),
            std::io::ErrorKind::PermissionDenied => "this user may not".to_string(),
            _ => error.to_string(),
        };
        Error { what, region: node.region.name.clone(), address, why }
    })
}

#[cfg(test)]
mod tests {
    use antipode_config::{Dev, Log};

    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_region_and_purpose() {
        // The system gives any free port; both regions' ports must stay below 65536.
        let bound = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let held = bound.take(1000).find(|held| held.local_addr().unwrap().port() < 60_000).unwrap();
        let base_port = held.local_addr().unwrap().port();
        let dev = Dev { regions: 2, data_dir: "x".into(), in_memory: true, base_port, log: Log::default() };
        let error = take(&dev.nodes().unwrap()).unwrap_err().to_string();
        let expected =
            format!("the gRPC port of east: cannot listen on 127.0.0.1:{base_port}: the port is taken");
        assert!(error.starts_with(&expected), "{error}");
    }
}
