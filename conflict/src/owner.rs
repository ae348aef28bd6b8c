//! Who owns a workflow id, told: every run with its order, and what decided between it and the owner (R610, B6, B7, V08).

use antipode_core::ids::RunOrder;
use serde::Serialize;

use crate::arbitrate::{RunFacts, arbitrate};

/// One run of a workflow id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Run id.
    pub run: String,
    /// `open`, `closed` or `zombie`.
    pub state: String,
    /// Last write version: `@12`.
    pub version: String,
    /// Place of the last write at its writer: `epoch.sequence`.
    pub place: String,
    /// Why it owns the id, or why not.
    pub why: String,
}

/// Who owns a workflow id, ready for JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OwnerReport {
    /// The run that owns it; none when there is no run.
    pub owner: Option<RunReport>,
    /// The other runs, by falling order.
    pub others: Vec<RunReport>,
}

/// Tells who owns the workflow id of these runs.
#[must_use]
pub fn owner(runs: &[RunFacts]) -> OwnerReport {
    let arbitration = arbitrate(runs);
    let Some(current) = arbitration.current else { return OwnerReport::default() };
    let mut others: Vec<_> = runs.iter().filter(|facts| facts.run != current.run).collect();
    others.sort_by_key(|facts| std::cmp::Reverse((facts.order, facts.run)));
    let why = match others.first() {
        None => "it is the only run".to_owned(),
        Some(second) => compared(&current, second),
    };
    let report = |facts: &RunFacts, zombie: bool, why: String| RunReport {
        run: facts.run.to_string(),
        state: if zombie {
            "zombie"
        } else if facts.open {
            "open"
        } else {
            "closed"
        }
        .to_owned(),
        version: facts.order.version.to_string(),
        place: facts.order.place.to_string(),
        why,
    };
    let other = |facts: &&RunFacts| {
        let zombie = arbitration.is_zombie(facts.run);
        let superseded = if zombie { "superseded by" } else { "older than" };
        let why = format!("{superseded} run {}: {}", current.run, compared(&current, facts));
        report(facts, zombie, why)
    };
    OwnerReport { owner: Some(report(&current, false, why)), others: others.iter().map(other).collect() }
}

/// What makes the first run greater than the second.
pub(crate) fn compared(greater: &RunFacts, other: &RunFacts) -> String {
    let (RunOrder { version: v, place: p }, RunOrder { version: w, place: q }) = (greater.order, other.order);
    if v != w {
        return format!("last write version {v} is higher than {w}");
    }
    if p != q {
        return format!("both were last written under {v}, and place {p} is later than {q}");
    }
    format!("version {v} and place {p} are equal, and run id {} is greater than {}", greater.run, other.run)
}

impl OwnerReport {
    /// The report as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The story in one sentence a run.
    #[must_use]
    pub fn words(&self) -> String {
        let Some(owner) = &self.owner else { return "there is no run".to_owned() };
        let mut words = format!("run {} ({}) owns the workflow id: {}", owner.run, owner.state, owner.why);
        for other in &self.others {
            words.push_str(&format!("; run {} ({}) is {}", other.run, other.state, other.why));
        }
        words
    }
}
