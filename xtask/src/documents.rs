//! Documents: relative links that lead nowhere, and the marks of the compatibility table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{Finding, source};

/// Marks that the compatibility table may give an RPC.
pub const MARKS: [&str; 3] = ["works", "partly", "UNIMPLEMENTED"];

/// Targets of the inline links of a Markdown text, with their lines; code is not text.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        let line = without_code(line);
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push((index + 1, rest[..end].trim().to_string()));
            }
        }
    }
    found
}

fn without_code(line: &str) -> String {
    line.split('`').enumerate().filter(|(i, _)| i % 2 == 0).map(|(_, part)| part).collect()
}

/// Anchors that the headings of a Markdown text make, the way forges write them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

/// Relative links of every document that lead to no file, no heading, or out of the project.
pub fn dead_links(root: &Path) -> Result<Vec<Finding>, String> {
    let mut found = Vec::new();
    for path in source::files(root, ".md").map_err(|e| e.to_string())? {
        let shown = source::shown(root, &path);
        let text = fs::read_to_string(&path).map_err(|e| format!("{shown}: {e}"))?;
        for (line, link) in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().unwrap_or(root).join(file) };
            let inside =
                target.canonicalize().is_ok_and(|t| root.canonicalize().is_ok_and(|r| t.starts_with(r)));
            if !inside {
                found.push(Finding::at(&shown, line, format!("`{link}` leads to no file of the project")));
            } else if let Some(anchor) = anchor.filter(|_| target.extension().is_some_and(|e| e == "md")) {
                let there = fs::read_to_string(&target).map_err(|e| format!("{shown}: {link}: {e}"))?;
                if !anchors(&there).contains(anchor) {
                    found.push(Finding::at(&shown, line, format!("`{link}`: there is no such heading")));
                }
            }
        }
    }
    Ok(found)
}

/// The rows of the compatibility document: RPC name to mark. A row is `| name | mark | … |`.
pub fn marks(path: &str, text: &str) -> (BTreeMap<String, String>, Vec<Finding>) {
    let mut rows = BTreeMap::new();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> =
            line.trim().trim_matches('|').split('|').map(|c| c.trim().trim_matches(['`', '*'])).collect();
        let [name, mark, ..] = cells[..] else { continue };
        let is_name = !name.is_empty()
            && name.chars().all(char::is_alphanumeric)
            && name.chars().any(char::is_lowercase);
        if !line.trim().starts_with('|') || !is_name || matches!(name, "RPC" | "Rpc" | "Mark" | "mark") {
            continue;
        }
        if !MARKS.contains(&mark) {
            found.push(Finding::at(path, index + 1, format!("`{name}` has the unknown mark `{mark}`")));
        } else if rows.insert(name.to_string(), mark.to_string()).is_some() {
            found.push(Finding::at(path, index + 1, format!("`{name}` has two rows")));
        }
    }
    (rows, found)
}

/// Differences between the RPCs of the services and the rows of the compatibility document.
pub fn compatibility(path: &str, text: &str, rpcs: &[&str]) -> Vec<Finding> {
    let (rows, mut found) = marks(path, text);
    for rpc in rpcs {
        if !rows.contains_key(*rpc) {
            found.push(Finding::at(path, 0, format!("`{rpc}` has no row")));
        }
    }
    for name in rows.keys().filter(|name| !rpcs.contains(&name.as_str())) {
        found.push(Finding::at(path, 0, format!("`{name}` is no RPC of the public API")));
    }
    found
}
