//! Rust sources as the checks see them: the code of a file without its comments, strings and inline test modules, line by
//! line. A small scanner is enough: the checks look for names, not for meaning.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Root of the project, whatever folder the command was started in.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Files below `dir` whose name ends with `suffix`, in order, without build output and hidden folders.
pub fn files(dir: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != "data" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The path inside the project, with forward slashes.
pub fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// Whether a file holds tests only, by its place.
pub fn is_test_file(shown: &str) -> bool {
    shown.starts_with("tests/")
        || shown.contains("/tests/")
        || shown.contains("/benches/")
        || shown.ends_with("/tests.rs")
        || shown.ends_with("_tests.rs")
}

/// The code of a file: comments, strings and characters blanked, lines kept.
pub fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let end = match rest {
            ['/', '/', ..] => at + line_comment(rest),
            ['/', '*', ..] => at + block_comment(rest),
            ['"', ..] => at + quoted(rest),
            ['r', '"' | '#', ..] if starts_word(&chars, at) && raw_string(rest) > 0 => at + raw_string(rest),
            ['\'', ..] if char_literal(rest) > 0 => at + char_literal(rest),
            _ => {
                out.push(chars[at]);
                at += 1;
                continue;
            }
        };
        for c in &chars[at..end.min(chars.len())] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

fn starts_word(chars: &[char], at: usize) -> bool {
    at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') || chars[at - 1] == 'b'
}

fn line_comment(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Length of a raw string that starts here; 0: none does.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut at = 2 + hashes;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// Length of a character literal that starts here; 0: it is a lifetime.
fn char_literal(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', ..] => rest[2..].iter().skip(1).position(|c| *c == '\'').map_or(0, |p| p + 4),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

/// The code of a file without its inline `#[cfg(test)]` modules; their lines are blank.
pub fn shipped(text: &str) -> Vec<String> {
    let code = code(text);
    let mut lines = Vec::new();
    let mut depth_to_close: Option<i64> = None;
    let mut armed = false;
    for line in code.lines() {
        let trimmed = line.trim();
        if let Some(depth) = depth_to_close {
            let depth = depth + braces(line);
            depth_to_close = (depth > 0).then_some(depth);
            lines.push(String::new());
            continue;
        }
        if armed && trimmed.starts_with("mod ") && trimmed.contains('{') {
            let depth = braces(line);
            depth_to_close = (depth > 0).then_some(depth);
            armed = false;
            lines.push(String::new());
            continue;
        }
        armed = trimmed == "#[cfg(test)]" || (armed && (trimmed.is_empty() || trimmed.starts_with("#[")));
        lines.push(line.to_string());
    }
    lines
}

fn braces(line: &str) -> i64 {
    line.chars().fold(0, |depth, c| match c {
        '{' => depth + 1,
        '}' => depth - 1,
        _ => depth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        let text =
            "let a = \"HashMap\"; // HashMap\n/* HashMap */ let b = r#\"Hash\"Map\"#; let c = '\"'; HashMap";
        let seen = code(text);
        assert_eq!(seen.matches("HashMap").count(), 1);
        assert_eq!(seen.lines().count(), 2);
        assert!(seen.contains("let c ="));
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert!(code("fn f<'a>(x: &'a str) -> HashMap<'a> {}").contains("HashMap"));
    }

    #[test]
    fn inline_test_modules_are_not_shipped() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { HashMap }\n}\nfn c() {}\n";
        let lines = shipped(text);
        assert_eq!(lines[0], "fn a() {}");
        assert!(lines[3].is_empty());
        assert_eq!(lines[5], "fn c() {}");
    }
}
