//! One thing that a check found, with the place and the reason.

use std::fmt;

/// A finding: printed as `path:line: what`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path inside the project.
    pub path: String,
    /// Line, counted from 1; 0: the whole file.
    pub line: usize,
    /// What is wrong, and why it matters.
    pub what: String,
}

impl Finding {
    /// A finding at a line.
    pub fn at(path: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.path, self.what)
        } else {
            write!(f, "{}:{}: {}", self.path, self.line, self.what)
        }
    }
}
