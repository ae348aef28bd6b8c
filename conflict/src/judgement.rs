//! All that is told of replicated entries and of what follows from them, in one form for whoever listens: verdicts on entries,
//! and what a run became among the runs of its workflow id.

use crate::{explain::Explanation, standing::Standing};

/// Something that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// What was said to an entry.
    Entry(Explanation),
    /// What a run became among the runs of its workflow id.
    Standing(Standing),
}

impl Judgement {
    /// Name of the verdict.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Entry(explanation) => explanation.verdict,
            Self::Standing(standing) => standing.verdict(),
        }
    }

    /// Whether it is what happens to nearly every entry of a link, so that nobody wants to read it.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        matches!(self, Self::Entry(Explanation { verdict: "Append" | "Merge", notes, .. }) if notes.is_empty())
    }

    /// The story in one paragraph.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Entry(explanation) => explanation.words(),
            Self::Standing(standing) => standing.words(),
        }
    }

    /// The whole story as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let report = match self {
            Self::Entry(explanation) => serde_json::to_value(explanation.report()),
            Self::Standing(standing) => serde_json::to_value(standing.report()),
        };
        report.unwrap_or_default()
    }
}
