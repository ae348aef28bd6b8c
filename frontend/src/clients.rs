//! Which server a client wants: `supported-server-versions`, a range of versions that SDKs and the CLI send along.

use tonic::{Status, metadata::MetadataMap};

use crate::errors;

/// The version of the API that this server answers to. Clients accept `>=1.0.0 <2.0.0`.
pub const SERVER_VERSION: &str = "1.32.0";

type Version = (u64, u64, u64);

/// Refuses a client that says it cannot work with this version. What can't be read as a range says nothing.
pub(crate) fn check(metadata: &MetadataMap) -> Result<(), Status> {
    let wanted = metadata.get("supported-server-versions").and_then(|value| value.to_str().ok());
    match wanted {
        Some(wanted) if allows(wanted, SERVER_VERSION) == Some(false) => {
            Err(errors::server_version_not_supported(SERVER_VERSION, wanted))
        }
        _ => Ok(()),
    }
}

/// Whether a range allows a version: alternatives behind `||`, all of the comparisons of one. None: not a range.
fn allows(range: &str, version: &str) -> Option<bool> {
    let version = parse(version)?;
    let mut any = false;
    for alternative in range.split("||") {
        let mut all = true;
        let comparisons = alternative.split([' ', ',']).filter(|part| !part.is_empty());
        for comparison in comparisons {
            all &= holds(comparison, version)?;
        }
        any |= all;
    }
    Some(any)
}

fn holds(comparison: &str, version: Version) -> Option<bool> {
    let digits = comparison.find(|character: char| character.is_ascii_digit())?;
    let (operator, bound) = comparison.split_at(digits);
    let bound = parse(bound)?;
    Some(match operator {
        ">=" => version >= bound,
        "<=" => version <= bound,
        ">" => version > bound,
        "<" => version < bound,
        "" | "=" | "==" => version == bound,
        "!=" => version != bound,
        _ => return None,
    })
}

fn parse(text: &str) -> Option<Version> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, expected) in [
            (">=1.0.0 <2.0.0", Some(true)),
            (">=1.0.0, <2.0.0", Some(true)),
            (">=9.0.0", Some(false)),
            ("<1.32.0", Some(false)),
            ("<1.0.0 || >=1.32.0", Some(true)),
            ("1.32.0", Some(true)),
            ("whatever", None),
            (">=x", None),
        ] {
            assert_eq!(allows(range, "1.32.0"), expected, "{range}");
        }
    }

    #[test]
    fn a_client_that_wants_another_server() {
        let mut metadata = MetadataMap::new();
        assert!(check(&metadata).is_ok());
        metadata.insert("supported-server-versions", ">=1.0.0 <2.0.0".parse().expect("ascii"));
        assert!(check(&metadata).is_ok());
        metadata.insert("supported-server-versions", ">=9.0.0".parse().expect("ascii"));
        let status = check(&metadata).expect_err("9 is another server");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        let words = "Server version 1.32.0 is not supported. Client supports server versions: >=9.0.0";
        assert_eq!(status.message(), words);
    }
}
