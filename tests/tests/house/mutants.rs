//! The patches of `tests/mutants/` are part of the net only as long as they apply: code that moves takes them along.

use std::{fs, process::Command};

use xtask::{Finding, source};

use crate::none;

#[test]
fn every_patch_says_what_it_breaks_and_applies() {
    let root = source::root();
    let mut patches: Vec<_> =
        fs::read_dir(root.join("tests/mutants")).unwrap().map(|entry| entry.unwrap().path()).collect();
    patches.sort();
    assert!(patches.len() >= 40, "{} patches", patches.len());
    let mut found = Vec::new();
    for path in patches {
        let shown = source::shown(&root, &path);
        let text = fs::read_to_string(&path).unwrap();
        for field in ["# what: ", "# expect: "] {
            if !text.lines().any(|line| line.starts_with(field)) {
                found.push(Finding::at(&shown, 0, format!("a line `{field}…` is missing")));
            }
        }
        let applied =
            Command::new("git").args(["apply", "--check"]).arg(&path).current_dir(&root).output().unwrap();
        if !applied.status.success() {
            let why = String::from_utf8_lossy(&applied.stderr).trim().replace('\n', "; ");
            found.push(Finding::at(&shown, 0, format!("it does not apply to the tree as it is: {why}")));
        }
    }
    none(&found);
}
