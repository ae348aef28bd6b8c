//! A configuration file: YAML, with `${NAME}` and `${NAME:-default}` replaced from the environment before it is parsed.

use std::path::Path;

use crate::{Error, Node};

/// Reads and validates a file. `lookup` gives environment variables.
///
/// # Errors
/// [`Error`].
pub fn load(path: &Path, lookup: impl Fn(&str) -> Option<String>) -> Result<Node, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|why| Error::Unreadable { path: path.to_path_buf(), why: why.kind().to_string() })?;
    from_yaml(&path.display().to_string(), &text, lookup)
}

/// Parses and validates a text; `source_name` stands for it in errors.
///
/// # Errors
/// [`Error`].
pub fn from_yaml(
    source_name: &str,
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Node, Error> {
    let text = expand(source_name, text, lookup)?;
    let node: Node = serde_saphyr::from_str(&text).map_err(|error| Error::Malformed {
        source_name: source_name.to_string(),
        why: one_line(&error.without_snippet().to_string()),
    })?;
    node.validate()?;
    Ok(node)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces `${NAME}` and `${NAME:-default}` outside of comments.
fn expand(source_name: &str, text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else { break };
            out.push_str(&rest[..start]);
            let inner = &rest[start + 2..start + length];
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default.to_string())),
                None => (inner, None),
            };
            let value = lookup(name).filter(|value| !value.is_empty()).or(default);
            out.push_str(&value.ok_or_else(|| Error::Unset {
                source_name: source_name.to_string(),
                line: index + 1,
                variable: name.to_string(),
            })?);
            rest = &rest[start + length + 1..];
        }
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogFormat, Store};

    const EAST: &str = include_str!("../examples/two-regions-east.yaml");
    const WEST: &str = include_str!("../examples/two-regions-west.yaml");
    const SINGLE: &str = include_str!("../examples/single-region.yaml");

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn examples_are_valid_and_name_each_other() {
        let east = from_yaml("east", EAST, nothing).unwrap();
        let west = from_yaml("west", WEST, nothing).unwrap();
        let single = from_yaml("single", SINGLE, nothing).unwrap();
        assert_eq!(east.peers[0].name, west.region.name);
        assert_eq!(west.peers[0].initial_version, east.region.initial_version);
        assert_eq!(east.region.increment, west.region.increment);
        assert!(single.peers.is_empty());
        assert!(matches!(single.store, Store::Sqlite { .. }));
        assert_eq!(west.log.format, LogFormat::Json);
    }

    #[test]
    fn the_environment_fills_in_and_a_missing_variable_is_named_with_its_line() {
        let text = "region: { name: \"${REGION:-east}\", initial_version: 1 }\n# ${IGNORED}\nlisten: { grpc: \"${ADDRESS}\" }\nstore: { memory: {} }\n";
        let found = |name: &str| (name == "ADDRESS").then(|| "127.0.0.1:7233".to_string());
        let node = from_yaml("text", text, found).unwrap();
        assert_eq!(node.region.name, "east");
        assert_eq!(node.shards, 4);
        let error = from_yaml("text", text, nothing).unwrap_err().to_string();
        assert!(error.starts_with("text: line 3: the environment variable ADDRESS is not set"), "{error}");
    }

    #[test]
    fn a_misspelt_key_is_an_error_on_one_line_that_names_it() {
        let text = "region: { name: east, initial_version: 1 }\nlisten: { grpcc: \"127.0.0.1:7233\" }\nstore: { memory: {} }\n";
        let error = from_yaml("node.yaml", text, nothing).unwrap_err().to_string();
        assert!(error.starts_with("node.yaml: "), "{error}");
        assert!(error.contains("grpcc"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_path() {
        let text = EAST.replace("initial_version: 2", "initial_version: 1");
        let error = from_yaml("east", &text, nothing).unwrap_err().to_string();
        assert_eq!(error, "peers[0].initial_version: 1 is also the initial version of region");
    }
}
