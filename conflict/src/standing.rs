//! A run lost its workflow id, came too late to get it, or got it back (R621, R634, N5, B6): which run owns the id now, and by
//! which numbers (B7). Being a zombie is derived from order (A9); here the change is told when it is noticed.

use serde::Serialize;

use crate::{arbitrate::RunFacts, owner};

/// What happened to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is open and does not own the id any more, or never did.
    Zombie,
    /// It was a zombie, and owns the id now.
    Revived,
}

/// A change of a run's standing among the runs of its workflow id, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What happened.
    pub change: Change,
    /// The run that owns the id now.
    pub owner: RunFacts,
    /// The run that it was compared with: the zombie, or the owner before.
    pub other: RunFacts,
}

/// A change of standing, ready for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandingReport {
    /// `Zombie` or `Revived`.
    pub verdict: String,
    /// What that means, in words.
    pub reason: String,
    /// The run that it happened to.
    pub run: String,
    /// The run that owns the id now.
    pub owner: String,
    /// `open` or `closed`.
    pub owner_state: String,
    /// Last write version and place of the owner: `@12 at 1.7`.
    pub owner_order: String,
    /// The run that it was compared with.
    pub other: String,
    /// `zombie` or `closed`.
    pub other_state: String,
    /// Last write version and place of that run.
    pub other_order: String,
    /// What decided between the two.
    pub why: String,
}

impl Standing {
    /// Name of the verdict.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.change {
            Change::Zombie => "Zombie",
            Change::Revived => "Revived",
        }
    }

    fn reason(&self) -> &'static str {
        match self.change {
            Change::Zombie => "the run is open and another run of a greater order owns the workflow id",
            Change::Revived => "the run was superseded, and events have raised its order above the owner's",
        }
    }

    /// The whole story, ready for JSON.
    #[must_use]
    pub fn report(&self) -> StandingReport {
        let order = |facts: &RunFacts| format!("{} at {}", facts.order.version, facts.order.place);
        let subject = match self.change {
            Change::Zombie => self.other.run,
            Change::Revived => self.owner.run,
        };
        StandingReport {
            verdict: self.verdict().to_owned(),
            reason: self.reason().to_owned(),
            run: subject.to_string(),
            owner: self.owner.run.to_string(),
            owner_state: if self.owner.open { "open" } else { "closed" }.to_owned(),
            owner_order: order(&self.owner),
            other: self.other.run.to_string(),
            other_state: if self.other.open { "zombie" } else { "closed" }.to_owned(),
            other_order: order(&self.other),
            why: owner::compared(&self.owner, &self.other),
        }
    }

    /// The story in two sentences.
    #[must_use]
    pub fn words(&self) -> String {
        let report = self.report();
        let (owner, other) = (&report.owner, &report.other);
        format!(
            "{}: {}. Run {owner} ({}) owns the id and run {other} ({}) does not: {}.",
            report.verdict, report.reason, report.owner_state, report.other_state, report.why
        )
    }
}

#[cfg(test)]
mod tests {
    use antipode_core::ids::{FailoverVersion, Place, RunOrder};

    use super::*;
    use crate::testing::run;

    fn facts(number: u8, version: i64, sequence: u64, open: bool) -> RunFacts {
        let order = RunOrder { version: FailoverVersion(version), place: Place { epoch: 1, sequence } };
        RunFacts { run: run(number), order, open }
    }

    /// Each change, in words and in JSON: who owns the id, and by which numbers.
    #[test]
    fn changes_of_standing_name_both_runs_and_the_numbers() {
        let (a, b) = (run(1), run(2));
        for (change, owner, other, subject, words) in [
            (
                Change::Zombie,
                facts(2, 2, 1, true),
                facts(1, 1, 9, true),
                a,
                format!(
                    "Zombie: the run is open and another run of a greater order owns the workflow id. Run {b} (open) owns \
                     the id and run {a} (zombie) does not: last write version @2 is higher than @1."
                ),
            ),
            // B5: a closed run may own the id while an older one is open. Equal versions: the place decides (B7).
            (
                Change::Zombie,
                facts(2, 1, 21, false),
                facts(1, 1, 17, true),
                a,
                format!(
                    "Zombie: the run is open and another run of a greater order owns the workflow id. Run {b} (closed) \
                     owns the id and run {a} (zombie) does not: both were last written under @1, and place 1.21 is later \
                     than 1.17."
                ),
            ),
            (
                Change::Revived,
                facts(1, 12, 1, true),
                facts(2, 2, 9, false),
                a,
                format!(
                    "Revived: the run was superseded, and events have raised its order above the owner's. Run {a} (open) \
                     owns the id and run {b} (closed) does not: last write version @12 is higher than @2."
                ),
            ),
        ] {
            let standing = Standing { change, owner, other };
            assert_eq!(standing.words(), words);
            let judgement = crate::Judgement::Standing(standing);
            assert_eq!((judgement.verdict(), judgement.words()), (standing.verdict(), words.clone()));
            assert!(!judgement.is_routine());
            let json = serde_json::to_value(standing.report()).unwrap();
            assert_eq!(json["verdict"], standing.verdict());
            assert_eq!(json["run"], subject.to_string());
            assert_eq!(
                (&json["owner"], &json["other"]),
                (&owner.run.to_string().into(), &other.run.to_string().into())
            );
            assert!(words.contains(json["why"].as_str().unwrap()));
            let order = format!("{} at {}", owner.order.version, owner.order.place);
            assert_eq!(json["owner_order"], order);
        }
    }
}
