//! What `antipode dev` prints when all regions serve: where everything listens, and the three commands to try next.

use std::io::{self, Write};

use antipode_config::{Node, Store};

use crate::cli::table;

/// Prints it. `program` is how this command was called, so that the commands can be pasted as they stand.
///
/// # Errors
/// Standard output is gone.
pub(super) fn print(
    out: &mut dyn Write,
    nodes: &[Node],
    namespace: &str,
    active: &str,
    program: &str,
) -> io::Result<()> {
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    writeln!(out, "Antipode {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out)?;
    table(out, &["REGION", "GRPC", "METRICS", "STORE", "VERSIONS"], &rows)?;
    writeln!(out)?;
    writeln!(out, "namespace {namespace:?} is active in {active}")?;
    writeln!(out)?;
    writeln!(out, "try next:")?;
    for command in commands(nodes, namespace, active, program) {
        writeln!(out, "  {command}")?;
    }
    writeln!(out)?;
    writeln!(out, "ready")?;
    out.flush()
}

fn row(node: &Node) -> Vec<String> {
    let Node { region, listen, .. } = node;
    let store = match &node.store {
        Store::Sqlite { path } => path.display().to_string(),
        Store::Memory {} => "memory".to_string(),
    };
    let metrics = listen.metrics.map_or(String::new(), |address| format!("http://{address}/metrics"));
    let (first, step) = (region.initial_version, region.increment);
    let versions = format!("{first}, {}, {}, ...", first + step, first + 2 * step);
    vec![region.name.clone(), listen.grpc.to_string(), metrics, store, versions]
}

fn commands(nodes: &[Node], namespace: &str, active: &str, program: &str) -> [String; 3] {
    let address = |node: Option<&Node>| node.map_or(String::new(), |node| node.listen.grpc.to_string());
    let home = address(nodes.iter().find(|node| node.region.name == active).or_else(|| nodes.first()));
    let start = format!(
        "temporal workflow start --address {home} -n {namespace} --workflow-id hello --type Hello --task-queue demo"
    );
    match nodes.iter().find(|node| node.region.name != active) {
        Some(other) => [
            start,
            format!("{program} run inspect hello -n {namespace} --address {}", other.listen.grpc),
            format!("{program} failover {namespace} --to {} --address {home}", other.region.name),
        ],
        None => [
            start,
            format!("{program} run inspect hello -n {namespace} --address {home}"),
            format!("{program} namespace describe {namespace} --address {home}"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use antipode_config::{Dev, Log};

    use super::*;

    fn printed(regions: usize, active: &str) -> String {
        let dev =
            Dev { regions, data_dir: "data".into(), in_memory: false, base_port: 7233, log: Log::default() };
        let mut out = Vec::new();
        print(&mut out, &dev.nodes().unwrap(), "default", active, "antipode").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_listener_is_in_the_table() {
        let text = printed(2, "east");
        assert!(
            text.contains(
                "\neast    127.0.0.1:7233  http://127.0.0.1:7323/metrics  data/east.db  1, 11, 21, ..."
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "\nwest    127.0.0.1:8233  http://127.0.0.1:8323/metrics  data/west.db  2, 12, 22, ..."
            ),
            "{text}"
        );
        assert!(text.ends_with("\nready\n"), "{text}");
    }

    #[test]
    fn the_commands_name_the_region_that_is_active_now() {
        assert!(printed(2, "east").contains("antipode failover default --to west --address 127.0.0.1:7233"));
        assert!(printed(2, "west").contains("antipode failover default --to east --address 127.0.0.1:8233"));
        assert!(printed(1, "east").contains("antipode namespace describe default --address 127.0.0.1:7233"));
    }
}
