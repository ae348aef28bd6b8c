//! Checks that need more than one field. All problems are reported at once, each with the exact path of the value, so
//! that a file is mended in one go.

use std::{collections::BTreeMap, fmt};

use crate::{Error, Node};

/// Shards beyond this are a mistake in a file, not a wish.
const SHARDS_MAX: u32 = 16_384;
/// Longest region name.
const NAME_MAX: usize = 64;

/// One value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the value: `peers[1].initial_version`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

pub(crate) fn joined(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Node {
    /// Checks every rule; the node may be started when there is no problem.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all problems.
    pub fn validate(&self) -> Result<(), Error> {
        let mut problems = Problems::default();
        problems.region(self);
        problems.peers(self);
        if self.shards == 0 || self.shards > SHARDS_MAX {
            problems.add("shards", format!("{} is not between 1 and {SHARDS_MAX}", self.shards));
        }
        if self.listen.metrics == Some(self.listen.grpc) && self.listen.grpc.port() != 0 {
            problems.add("listen.metrics", format!("{} is also listen.grpc", self.listen.grpc));
        }
        if let crate::Store::Sqlite { path } = &self.store
            && path.as_os_str().is_empty()
        {
            problems.add("store.sqlite.path", "must not be empty".to_string());
        }
        if let Some(advertise) = &self.advertise {
            problems.address("advertise", advertise);
        }
        if problems.0.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.0)) }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: String) {
        self.0.push(Problem { path: path.into(), message });
    }

    fn region(&mut self, node: &Node) {
        self.name("region.name", &node.region.name);
        if node.region.increment < 2 || node.region.increment > i32::MAX.unsigned_abs() {
            // R115
            self.add(
                "region.increment",
                format!("{} is not between 2 and 2147483647", node.region.increment),
            );
        }
        self.initial("region.initial_version", node.region.initial_version, node.region.increment);
    }

    fn peers(&mut self, node: &Node) {
        let mut names = BTreeMap::from([(node.region.name.as_str(), "region".to_string())]);
        let mut initials = BTreeMap::from([(node.region.initial_version, "region".to_string())]);
        for (index, peer) in node.peers.iter().enumerate() {
            let at = format!("peers[{index}]");
            self.name(&format!("{at}.name"), &peer.name);
            self.initial(&format!("{at}.initial_version"), peer.initial_version, node.region.increment);
            self.address(&format!("{at}.address"), &peer.address);
            if let Some(other) = names.insert(&peer.name, at.clone()) {
                self.add(format!("{at}.name"), format!("{:?} is also the name of {other}", peer.name));
            }
            if let Some(other) = initials.insert(peer.initial_version, at.clone()) {
                let message = format!("{} is also the initial version of {other}", peer.initial_version);
                self.add(format!("{at}.initial_version"), message);
            }
        }
    }

    fn name(&mut self, path: &str, name: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
            let rule = format!("must be 1 to {NAME_MAX} of a-z, 0-9, '-' and '_'");
            self.add(path, format!("{name:?} {rule}"));
        }
    }

    fn initial(&mut self, path: &str, initial: u32, increment: u32) {
        if initial == 0 || initial >= increment {
            let message = format!("{initial} is not above 0 and below the increment {increment}"); // R115
            self.add(path, message);
        }
    }

    fn address(&mut self, path: &str, address: &str) {
        let ok = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
        if !ok {
            self.add(path, format!("{address:?} is not host:port"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Listen, Log, Peer, Region, Store};

    fn node() -> Node {
        Node {
            region: Region { name: "east".into(), initial_version: 1, increment: 10 },
            shards: 4,
            listen: Listen { grpc: "127.0.0.1:7233".parse().unwrap(), metrics: None },
            advertise: None,
            store: Store::Memory {},
            peers: vec![peer("west", 2), peer("north", 3)],
            log: Log::default(),
        }
    }

    fn peer(name: &str, initial_version: u32) -> Peer {
        Peer { name: name.into(), initial_version, address: "127.0.0.1:8233".into() }
    }

    fn paths(node: &Node) -> Vec<String> {
        match node.validate() {
            Ok(()) => Vec::new(),
            Err(Error::Invalid(problems)) => problems.into_iter().map(|problem| problem.path).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_sound_node_passes() {
        assert_eq!(paths(&node()), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_named_by_its_path() {
        let mut bad = node();
        bad.region.name = "East!".into();
        bad.shards = 0;
        bad.peers[0].initial_version = 10;
        bad.peers[1].initial_version = 1;
        bad.peers[1].address = "nowhere".into();
        bad.listen.metrics = Some(bad.listen.grpc);
        let expected = [
            "region.name",
            "peers[0].initial_version",
            "peers[1].address",
            "peers[1].initial_version",
            "shards",
            "listen.metrics",
        ];
        assert_eq!(paths(&bad), expected);
    }

    #[test]
    fn a_residue_is_given_to_one_region_only() {
        let mut bad = node();
        bad.peers[1].initial_version = 2;
        assert_eq!(paths(&bad), ["peers[1].initial_version"]);
        bad.peers[1].name = "east".into();
        assert_eq!(paths(&bad), ["peers[1].name", "peers[1].initial_version"]);
    }

    #[test]
    fn zero_is_nobodys_version() {
        let mut bad = node();
        bad.region.initial_version = 0;
        assert_eq!(paths(&bad), ["region.initial_version"]);
    }
}
