//! `docs/replication-differences.md` places every rule of the reference, sections 1 to 7, exactly once, and every test that it
//! cites exists. The reference is not part of the repository, so its rule numbers stand here.

use std::{collections::BTreeMap, fs};

use xtask::{Finding, source};

use crate::none;

const DOCUMENT: &str = "docs/replication-differences.md";

/// First and last number of each unbroken stretch of rules.
const RULES: [(u32, u32); 18] = [
    (100, 124),
    (200, 236),
    (260, 261),
    (300, 318),
    (400, 408),
    (410, 417),
    (420, 423),
    (430, 432),
    (440, 445),
    (500, 504),
    (510, 516),
    (520, 522),
    (600, 603),
    (610, 612),
    (620, 623),
    (630, 638),
    (640, 643),
    (700, 726),
];

fn rules() -> Vec<u32> {
    RULES.iter().flat_map(|&(first, last)| first..=last).collect()
}

/// Rules that a row places: the first cell, `R104, R105`.
fn placed(line: &str) -> Vec<u32> {
    let Some(cell) = line.strip_prefix('|').and_then(|rest| rest.split('|').next()) else {
        return Vec::new();
    };
    let words = cell.split(',').map(str::trim);
    let number = |word: &str| word.strip_prefix('R').and_then(|digits| digits.parse().ok());
    words.map_while(number).collect()
}

/// Tests that a line cites: `` `path::name` ``.
fn cited(line: &str) -> Vec<(String, String)> {
    let code = line.split('`').skip(1).step_by(2);
    let test = |text: &str| {
        let (path, name) = text.rsplit_once("::")?;
        (path.ends_with(".rs") || path.ends_with(".py")).then(|| (path.to_owned(), name.to_owned()))
    };
    code.filter_map(test).collect()
}

/// What is wrong with the page, given the text of a file by its path.
fn check(page: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut places: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut index = false;
    for (number, line) in page.lines().enumerate() {
        let at = number + 1;
        index |= line == "## Index";
        let rules = placed(line);
        let tests = cited(line);
        if index && !rules.is_empty() && tests.is_empty() {
            found.push(Finding::at(DOCUMENT, at, "a rule that holds cites no test"));
        }
        for rule in rules {
            places.entry(rule).or_default().push(at);
        }
        for (path, name) in tests {
            let Some(text) = read(&path) else {
                found.push(Finding::at(DOCUMENT, at, format!("`{path}` does not exist")));
                continue;
            };
            let functions = [format!("fn {name}("), format!("fn {name}<"), format!("def {name}(")];
            if !functions.iter().any(|function| text.contains(function)) {
                found.push(Finding::at(DOCUMENT, at, format!("`{path}` has no test `{name}`")));
            }
        }
    }
    let known = rules();
    for rule in &known {
        match places.get(rule).map(Vec::as_slice) {
            None => found.push(Finding::at(DOCUMENT, 0, format!("R{rule} is not placed"))),
            Some([_]) => {}
            Some(lines) => found.push(Finding::at(DOCUMENT, 0, format!("R{rule} stands in lines {lines:?}"))),
        }
    }
    for rule in places.keys().filter(|rule| !known.contains(rule)) {
        found.push(Finding::at(DOCUMENT, 0, format!("R{rule} is no rule")));
    }
    found
}

#[test]
fn every_rule_is_placed_once_and_cites_a_test_that_exists() {
    let root = source::root();
    let page = fs::read_to_string(root.join(DOCUMENT)).unwrap();
    none(&check(&page, &|path| fs::read_to_string(root.join(path)).ok()));
}

#[test]
fn the_rules_are_those_of_the_reference() {
    let rules = rules();
    assert_eq!((rules.len(), rules.first(), rules.last()), (179, Some(&100), Some(&726)));
    assert!(rules.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn missing_doubled_strange_and_untested_rules_are_found() {
    let mut page = String::from("| rules | x |\n| R100, R101 | a |\n| R101 | b |\n| R999 | c |\n## Index\n");
    for rule in rules().into_iter().filter(|rule| !matches!(rule, 100 | 101 | 104 | 726)) {
        page.push_str(&format!("| R{rule} | `a.rs::there` | |\n"));
    }
    page.push_str("| R104 | nothing | |\n| R726 | `a.rs::gone`, `b.rs::x` | |\n");
    let said: Vec<String> = check(&page, &|path| (path == "a.rs").then(|| "fn there() {}".to_owned()))
        .iter()
        .map(|finding| finding.what.clone())
        .collect();
    assert_eq!(
        said,
        [
            "a rule that holds cites no test",
            "`a.rs` has no test `gone`",
            "`b.rs` does not exist",
            "R101 stands in lines [2, 3]",
            "R999 is no rule",
        ]
    );
    assert!(check("", &|_| None).iter().any(|finding| finding.what == "R100 is not placed"));
}
