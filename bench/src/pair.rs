//! Two regions, each in a process of its own with its own SQLite file, linked over loopback: so that the processor time
//! of east and of west can be told apart. Also one region alone, started the same way, to compare with.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use antipode_proto::antipode::admin::v1::{CreateNamespaceRequest, admin_client::AdminClient};
use tempfile::TempDir;
use tonic::Code;

use crate::{
    api::{self, CALL_DEADLINE, within},
    clock,
    error::{Error, Result},
    launch::{Server, free_port, fresh_folder},
};

/// Names of the regions; the nth has initial version n + 1.
const NAMES: [&str; 2] = ["east", "west"];
/// How long the namespace may take to reach west.
const PATIENCE: Duration = Duration::from_secs(30);

/// One or two running regions. Dropped, they are killed and their data is removed.
#[derive(Debug)]
pub struct Regions {
    /// East, and west if there are two.
    pub servers: Vec<Server>,
    _folder: TempDir,
}

fn config(folder: &Path, ports: &[u16], region: usize) -> String {
    let name = NAMES[region];
    let mut text = format!(
        "region: {{ name: {name}, initial_version: {}, increment: 10 }}\nlisten: {{ grpc: \"127.0.0.1:{}\" }}\n\
         store: {{ sqlite: {{ path: \"{}\" }} }}\nlog: {{ filter: error }}\n",
        region + 1,
        ports[region],
        folder.join(format!("{name}.db")).display(),
    );
    for (peer, port) in ports.iter().enumerate().filter(|(peer, _)| *peer != region) {
        if !text.contains("peers:") {
            text.push_str("peers:\n");
        }
        text.push_str(&format!(
            "  - {{ name: {}, initial_version: {}, address: \"127.0.0.1:{port}\" }}\n",
            NAMES[peer],
            peer + 1
        ));
    }
    text
}

impl Regions {
    /// Starts so many regions and the namespace, active in east.
    ///
    /// # Errors
    /// When one of them does not start or the namespace does not reach it.
    pub async fn start(binary: &Path, parent: &Path, count: usize, namespace: &str) -> Result<Self> {
        let folder = fresh_folder(parent)?;
        let ports = (0..count.min(NAMES.len())).map(|_| free_port()).collect::<Result<Vec<u16>>>()?;
        let mut servers = Vec::new();
        for region in 0..ports.len() {
            let own: PathBuf = folder.path().join(NAMES[region]);
            std::fs::create_dir_all(&own).map_err(Error::file(&own))?;
            let file = own.join("node.yaml");
            std::fs::write(&file, config(&own, &ports, region)).map_err(Error::file(&file))?;
            servers.push(Server::node(binary, &file, &own, ports[region])?);
        }
        for server in &mut servers {
            server.answers().await?;
        }
        create_namespace(&servers[0].address(), namespace).await?;
        for server in &mut servers {
            server.ready(namespace).await?;
        }
        Ok(Self { servers, _folder: folder })
    }

    /// Address of east.
    #[must_use]
    pub fn east(&self) -> String {
        self.servers[0].address()
    }

    /// Address of west, or of east when there is no other.
    #[must_use]
    pub fn west(&self) -> String {
        self.servers.last().map_or_else(String::new, Server::address)
    }

    /// Stops all of them.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(self) -> Result<()> {
        for server in self.servers {
            server.stop().await?;
        }
        Ok(())
    }
}

/// A node may have the namespace already, and a starting one may refuse for a moment.
async fn create_namespace(address: &str, name: &str) -> Result<()> {
    let begin: Instant = clock::now();
    loop {
        let channel = api::dial(address)
            .await
            .map_err(|source| Error::Connect { address: address.to_string(), source })?;
        let request = CreateNamespaceRequest {
            name: name.to_string(),
            active: NAMES[0].to_string(),
            retention_seconds: 72 * 3600,
            global: true,
            ..CreateNamespaceRequest::default()
        };
        let status = match AdminClient::new(channel).create_namespace(within(CALL_DEADLINE, request)).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
            Err(status) => status,
        };
        if status.code() != Code::Unavailable || begin.elapsed() > PATIENCE {
            let address = address.to_string();
            return Err(Error::Call { method: "CreateNamespace", address, status: Box::new(status) });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_names_the_other_as_its_peer() {
        let east = config(Path::new("/d"), &[1000, 2000], 0);
        assert!(east.contains("region: { name: east, initial_version: 1, increment: 10 }"), "{east}");
        assert!(east.contains("peers:\n  - { name: west, initial_version: 2, address: \"127.0.0.1:2000\" }"));
        let alone = config(Path::new("/d"), &[1000], 0);
        assert!(!alone.contains("peers"), "{alone}");
    }
}
