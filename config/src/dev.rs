//! The topology of `antipode dev`: up to five regions on loopback, each with fixed name, version class and ports, so
//! that a restart with the same options finds the same regions.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::{Error, Listen, Log, Node, Peer, Problem, Region, Store, node::SHARDS_DEFAULT};

/// Names of the regions, in order; the first has initial version 1.
pub const REGION_NAMES: [&str; 5] = ["east", "west", "north", "south", "central"];
/// Distance of two regions' gRPC ports.
pub const PORT_STEP: u16 = 1000;
/// Metrics port of a region: its gRPC port plus this.
pub const METRICS_PORT_OFFSET: u16 = 90;
/// Distance of two versions of one region.
const INCREMENT: u32 = 10;

/// What `dev` is asked for.
#[derive(Clone, Debug)]
pub struct Dev {
    /// How many regions.
    pub regions: usize,
    /// Folder of their files.
    pub data_dir: PathBuf,
    /// No files.
    pub in_memory: bool,
    /// gRPC port of the first region.
    pub base_port: u16,
    /// Logs.
    pub log: Log,
}

impl Dev {
    /// One configuration a region, all linked to each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option that does not fit.
    pub fn nodes(&self) -> Result<Vec<Node>, Error> {
        if self.regions == 0 || self.regions > REGION_NAMES.len() {
            let message = format!("{} is not between 1 and {}", self.regions, REGION_NAMES.len());
            return Err(invalid("--regions", message));
        }
        let ports = (0..self.regions).map(|index| self.ports(index)).collect::<Result<Vec<_>, _>>()?;
        let nodes: Vec<Node> = (0..self.regions).map(|index| self.node(index, &ports)).collect();
        nodes.iter().try_for_each(Node::validate)?;
        Ok(nodes)
    }

    fn ports(&self, index: usize) -> Result<(u16, u16), Error> {
        if self.base_port == 0 {
            return Err(invalid("--base-port", "0 is not a port".to_string()));
        }
        let offset = u16::try_from(index).ok().and_then(|index| index.checked_mul(PORT_STEP));
        let grpc = offset.and_then(|offset| self.base_port.checked_add(offset));
        let metrics = grpc.and_then(|grpc| grpc.checked_add(METRICS_PORT_OFFSET));
        grpc.zip(metrics).ok_or_else(|| {
            let message = format!(
                "{} leaves no port below 65536 for region {} (base + {} x {PORT_STEP} + {METRICS_PORT_OFFSET})",
                self.base_port, REGION_NAMES[index], index
            );
            invalid("--base-port", message)
        })
    }

    fn node(&self, index: usize, ports: &[(u16, u16)]) -> Node {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let peers = (0..ports.len()).filter(|other| *other != index).map(|other| Peer {
            name: REGION_NAMES[other].to_string(),
            initial_version: initial(other),
            address: loopback(ports[other].0).to_string(),
        });
        let name = REGION_NAMES[index];
        let store = if self.in_memory {
            Store::Memory {}
        } else {
            Store::Sqlite { path: self.data_dir.join(format!("{name}.db")) }
        };
        let (grpc, metrics) = ports[index];
        Node {
            region: Region { name: name.to_string(), initial_version: initial(index), increment: INCREMENT },
            shards: SHARDS_DEFAULT,
            listen: Listen { grpc: loopback(grpc), metrics: Some(loopback(metrics)) },
            advertise: None,
            store,
            peers: peers.collect(),
            log: self.log.clone(),
        }
    }
}

fn initial(index: usize) -> u32 {
    u32::try_from(index).map_or(u32::MAX, |index| index + 1)
}

fn invalid(path: &str, message: String) -> Error {
    Error::Invalid(vec![Problem { path: path.to_string(), message }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(regions: usize, base_port: u16) -> Dev {
        Dev { regions, data_dir: "data".into(), in_memory: false, base_port, log: Log::default() }
    }

    #[test]
    fn names_versions_and_ports_are_fixed_by_place() {
        let nodes = dev(5, 7233).nodes().unwrap();
        let seen: Vec<_> = nodes
            .iter()
            .map(|node| (node.region.name.as_str(), node.region.initial_version, node.listen.grpc.port()))
            .collect();
        let expected = [
            ("east", 1, 7233),
            ("west", 2, 8233),
            ("north", 3, 9233),
            ("south", 4, 10233),
            ("central", 5, 11233),
        ];
        assert_eq!(seen, expected);
        assert_eq!(nodes[1].listen.metrics.unwrap().port(), 8323);
        assert_eq!(nodes[1].peers.len(), 4);
        assert_eq!(nodes[1].peers[0].address, "127.0.0.1:7233");
        assert_eq!(nodes[1].store, Store::Sqlite { path: "data/west.db".into() });
    }

    #[test]
    fn options_out_of_range_are_named() {
        assert_eq!(dev(6, 7233).nodes().unwrap_err().to_string(), "--regions: 6 is not between 1 and 5");
        assert_eq!(dev(0, 7233).nodes().unwrap_err().to_string(), "--regions: 0 is not between 1 and 5");
        let error = dev(3, 64_000).nodes().unwrap_err().to_string();
        assert!(
            error.starts_with("--base-port: 64000 leaves no port below 65536 for region north"),
            "{error}"
        );
        assert!(dev(1, 0).nodes().is_err());
    }
}
