//! `cargo xtask tidy`: a head comment in each file, calls that must go through a seam, and file sizes as hints.

use std::{fs, path::Path};

use crate::{Finding, source};

/// Lines after which a file probably holds more than one subject. A hint, not a limit.
pub const LONG_FILE_LINES: usize = 500;

/// A call that has one right place.
struct Banned {
    call: &'static str,
    /// Folders where it may stand.
    allowed: &'static [&'static str],
    why: &'static str,
}

const BANNED: [Banned; 9] = [
    Banned {
        call: "SystemTime::now",
        allowed: &["env/", "bench/"],
        why: "time comes from the `Clock` that is handed in",
    },
    Banned {
        call: "Instant::now",
        allowed: &["env/", "bench/", "xtask/"],
        why: "time comes from the `Clock` that is handed in",
    },
    Banned {
        call: "Uuid::new_v4",
        allowed: &["env/", "bench/"],
        why: "ids come from the `Entropy` that is handed in",
    },
    Banned {
        call: "thread_rng",
        allowed: &["env/", "bench/"],
        why: "randomness comes from the `Entropy` that is handed in",
    },
    Banned {
        call: "rand::",
        allowed: &["env/", "bench/"],
        why: "randomness comes from the `Entropy` that is handed in",
    },
    Banned {
        call: "getrandom",
        allowed: &["env/", "bench/"],
        why: "randomness comes from the `Entropy` that is handed in",
    },
    Banned {
        call: "TcpListener::bind",
        allowed: &["env/", "bench/", "server/src/dev/ports.rs"],
        why: "sockets come from the `Listener` that is handed in",
    },
    Banned {
        call: "TcpStream::connect",
        allowed: &["env/", "bench/"],
        why: "sockets come from the `Connector` that is handed in",
    },
    Banned { call: "thread::sleep", allowed: &["bench/"], why: "wait for a condition, not for a duration" },
];

/// Whether a file opens with a `//!` paragraph.
pub fn has_head(text: &str) -> bool {
    text.lines().find(|l| !l.trim().is_empty()).is_some_and(|l| l.starts_with("//!"))
}

/// Calls in a file that belong elsewhere. The runtime's own `tokio::time::Instant`, which a simulation can stop, is fine in a
/// shell. A line may except itself with `// tidy: allow, because …` above or beside it.
pub fn banned_calls(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if source::is_test_file(path) {
        return found;
    }
    let written: Vec<&str> = text.lines().collect();
    let excepted = |index: usize| {
        let above = index.checked_sub(1).and_then(|i| written.get(i));
        [written.get(index), above].into_iter().flatten().any(|l| l.contains("// tidy: allow, because "))
    };
    for (index, line) in source::shipped(text).iter().enumerate() {
        for banned in &BANNED {
            let home = banned.allowed.iter().any(|a| path.starts_with(a));
            let runtime = banned.call == "Instant::now"
                && (text.contains("use tokio::time::") || line.contains("tokio::time::Instant"));
            if !home && !runtime && contains_call(line, banned.call) && !excepted(index) {
                found.push(Finding::at(path, index + 1, format!("`{}`: {}", banned.call, banned.why)));
            }
        }
    }
    found
}

/// Whether the name stands in the line as a name of its own, not as the end of a longer one (`operand::`).
fn contains_call(line: &str, call: &str) -> bool {
    line.match_indices(call).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// What tidy found.
#[derive(Debug, Default)]
pub struct Report {
    /// Rules that are broken.
    pub broken: Vec<Finding>,
    /// Places worth a look.
    pub hints: Vec<Finding>,
}

/// Looks at every Rust file of the project.
pub fn check(root: &Path) -> Result<Report, String> {
    let mut report = Report::default();
    for path in source::files(root, ".rs").map_err(|e| e.to_string())? {
        let shown = source::shown(root, &path);
        let text = fs::read_to_string(&path).map_err(|e| format!("{shown}: {e}"))?;
        if !has_head(&text) {
            report.broken.push(Finding::at(
                &shown,
                1,
                "no head comment: open the file with `//!` what it is and why",
            ));
        }
        report.broken.extend(banned_calls(&shown, &text));
        let lines = text.lines().count();
        if lines > LONG_FILE_LINES {
            report.hints.push(Finding::at(&shown, 0, format!("{lines} lines: one subject?")));
        }
    }
    Ok(report)
}
