//! What the reader of YAML found wrong with a file, in the words of a scenario: where, what stands there, and what was expected.

use serde_saphyr::Error;

use super::places::{Place, Places};

/// Line, column and what was expected.
pub(super) fn words(error: &Error, text: &str) -> String {
    let error = plain(error);
    let place = error.location().map_or(Place::BEGIN, Place::of);
    let name = Places::of(text).name_at(place).filter(|_| names_nothing(error));
    let why = match name.as_deref() {
        Some("steps") if lists(error) => "expected a list of steps, each of them after `- `".to_string(),
        Some(name) if PAIRS.contains(&name) && lists(error) => format!("expected {PAIR}"),
        _ => why(error, text),
    };
    name.map_or_else(|| format!("{place}: {why}"), |name| format!("{place}: `{name}`: {why}"))
}

/// Fields with the shortest and the longest of something.
const PAIRS: [&str; 4] = ["world.net.delay", "world.commit", "world.think", "steps.net.delay"];

const PAIR: &str = "two lengths of time, as in `[1ms, 5ms]`";

fn lists(error: &Error) -> bool {
    matches!(error, Error::Unexpected { expected, .. } if expected.contains("sequence"))
}

/// Without what the library wraps around it.
fn plain(error: &Error) -> &Error {
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => plain(error),
        other => other,
    }
}

/// Errors that do not say of which field they speak.
fn names_nothing(error: &Error) -> bool {
    matches!(
        error,
        Error::Unexpected { .. }
            | Error::InvalidScalar { .. }
            | Error::InvalidBooleanStrict { .. }
            | Error::NullIntoString { .. }
            | Error::SerdeInvalidType { .. }
            | Error::SerdeInvalidValue { .. }
            | Error::SerdeInvalidLength { .. }
            | Error::SerdeUnknownVariant { .. }
            | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
    )
}

fn why(error: &Error, text: &str) -> String {
    match error {
        // Our own words, as those of a length of time.
        Error::Message { msg, .. } => msg.clone(),
        Error::ExternalMessage { msg, .. } => format!("this is not YAML: {}", grammar(msg)),
        Error::Eof { .. } if text.trim().is_empty() => {
            "the file is empty: expected `name`, `about`, `cites`, `world` and `steps`".to_string()
        }
        Error::Eof { .. } => "the file ends in the middle of something".to_string(),
        Error::MultipleDocuments { .. } => {
            "a second document begins: expected one scenario a file".to_string()
        }
        Error::Unexpected { expected, .. } => format!("expected {}", shape(expected)),
        Error::InvalidScalar { ty, .. } => format!("expected {}", shape(ty)),
        Error::InvalidBooleanStrict { .. } => "expected true or false".to_string(),
        Error::NullIntoString { .. } => "nothing stands here: expected a word".to_string(),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("expected {}", shape(expected))
        }
        Error::SerdeInvalidLength { len, expected, .. } => {
            format!("{len} stand here: expected {}", shape(expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("`{variant}`: expected one of {}", expected.join(", "))
        }
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => "expected one word".to_string(),
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("there is no field `{field}`: expected one of {}", expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a key");
            format!("`{key}` stands here a second time: expected it once")
        }
        Error::InvalidUtf8Input => "the file is not text in UTF-8".to_string(),
        other => {
            let said = other.to_string();
            let line = said.lines().next().unwrap_or_default();
            format!("expected plain YAML: {}", line.trim_start_matches("error: "))
        }
    }
}

/// What the grammar of YAML misses, for the mistakes that people make.
fn grammar(said: &str) -> &str {
    const KNOWN: [(&str, &str); 9] = [
        ("tabs disallowed", "expected spaces, and not a tab"),
        ("found a tab", "expected spaces, and not a tab"),
        ("did not find expected key", "expected a line that is indented like the one it follows"),
        ("did not find expected '-'", "expected a line that is indented like the one it follows"),
        ("did not find expected ',' or '}'", "expected `,` or `}`"),
        ("did not find expected ',' or ']'", "expected `,` or `]`"),
        ("mapping values are not allowed", "expected one `: ` a line: text with another one needs quotes"),
        ("unexpected character", "expected quotes around text that begins like this"),
        ("multiline quoted scalar", "expected the closing quote on the same line"),
    ];
    KNOWN.iter().find(|(theirs, _)| said.contains(theirs)).map_or(said, |(_, ours)| ours)
}

/// The library's name of a shape or of a type.
fn shape(name: &str) -> String {
    let number = |least: String, most: String| format!("a whole number from {least} to {most}");
    match name {
        "mapping start" | "map" => "fields with values, as in `{in: east}`".to_string(),
        "sequence start" | "seq" => "a list, as in `[a, b]`".to_string(),
        "string scalar" | "scalar" | "string" | "value" => "one word".to_string(),
        "bool" | "boolean" => "true or false".to_string(),
        "u32" => number(u32::MIN.to_string(), u32::MAX.to_string()),
        "u64" | "usize" => number(u64::MIN.to_string(), u64::MAX.to_string()),
        "i32" => number(i32::MIN.to_string(), i32::MAX.to_string()),
        "i64" => number(i64::MIN.to_string(), i64::MAX.to_string()),
        name if name.starts_with("struct ") => "fields with values, as in `{in: east}`".to_string(),
        name if name.starts_with("an array of length 2") || name.contains("tuple") => PAIR.to_string(),
        other => other.to_string(),
    }
}

/// The first byte of a file that is no text: where, and what was expected.
pub(super) fn no_text(bytes: &[u8], good: usize) -> String {
    let before = String::from_utf8_lossy(bytes.get(..good).unwrap_or_default());
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let byte = bytes.get(good).copied().unwrap_or_default();
    format!("line {line}, column {column}: the byte {byte:#04x} is no text: expected a file in UTF-8")
}
