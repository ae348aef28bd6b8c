//! What is measured, by name: `echo` (16 slots), `echo-c1` (one at a time), `echo-rate20` (twenty a second, whatever
//! the server does).

use std::{fmt, str::FromStr};

use crate::error::Error;

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// StartWorkflowExecution and nothing else; nobody polls.
    Start,
    /// A workflow of one task: start, poll, complete with the input as result.
    Echo,
    /// A workflow of one activity: two workflow tasks, one activity task.
    Activity,
    /// Signals, spread over 16 open workflows whose worker completes each workflow task.
    Signal,
    /// Signals, all to one open workflow.
    Fanin,
}

/// How operations follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many at a time, each slot starting the next operation when its last one ended.
    Slots(u32),
    /// So many a second, never waiting for the server.
    Rate(u32),
}

/// A shape and a pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What one operation is.
    pub shape: Shape,
    /// How they follow each other.
    pub pace: Pace,
}

/// Slots of a case that names none.
pub const DEFAULT_SLOTS: u32 = 16;

impl Shape {
    const ALL: [(&'static str, Self); 5] = [
        ("start", Self::Start),
        ("echo", Self::Echo),
        ("activity", Self::Activity),
        ("signal", Self::Signal),
        ("fanin", Self::Fanin),
    ];

    /// The name used on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Echo => "echo",
            Self::Activity => "activity",
            Self::Signal => "signal",
            Self::Fanin => "fanin",
        }
    }

    /// What is counted.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Start => "starts",
            Self::Echo => "one-task workflows",
            Self::Activity => "one-activity workflows",
            Self::Signal => "signals to 16 workflows",
            Self::Fanin => "signals to 1 workflow",
        }
    }

    /// Open workflows that take signals.
    #[must_use]
    pub fn lanes(self) -> usize {
        match self {
            Self::Signal => 16,
            Self::Fanin => 1,
            Self::Start | Self::Echo | Self::Activity => 0,
        }
    }

    /// Workflow tasks of one workflow, when nothing goes wrong.
    #[must_use]
    pub fn workflow_tasks(self) -> u32 {
        match self {
            Self::Start | Self::Signal | Self::Fanin => 0,
            Self::Echo => 1,
            Self::Activity => 2,
        }
    }

    /// Activity tasks of one workflow, when nothing goes wrong.
    #[must_use]
    pub fn activity_tasks(self) -> u32 {
        u32::from(self == Self::Activity)
    }
}

impl Case {
    /// Operations under way at the same time, as far as the pace limits them.
    #[must_use]
    pub fn slots(self) -> u32 {
        match self.pace {
            Pace::Slots(slots) => slots,
            Pace::Rate(_) => 0,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shape.name())?;
        match self.pace {
            Pace::Slots(DEFAULT_SLOTS) => Ok(()),
            Pace::Slots(slots) => write!(f, "-c{slots}"),
            Pace::Rate(rate) => write!(f, "-rate{rate}"),
        }
    }
}

impl FromStr for Case {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Case { name: name.to_string(), why };
        let (shape, pace) = name.split_once('-').unwrap_or((name, ""));
        let shape = Shape::ALL
            .into_iter()
            .find_map(|(known, value)| (known == shape).then_some(value))
            .ok_or_else(|| wrong("starts with none of start, echo, activity, signal, fanin"))?;
        let number = |digits: &str| match digits.parse::<u32>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(wrong("wants a whole number above zero after -c or -rate")),
        };
        let pace = if pace.is_empty() && !name.contains('-') {
            Pace::Slots(DEFAULT_SLOTS)
        } else if let Some(rate) = pace.strip_prefix("rate") {
            Pace::Rate(number(rate)?)
        } else if let Some(slots) = pace.strip_prefix('c') {
            Pace::Slots(number(slots)?)
        } else {
            return Err(wrong("ends with neither -cN (slots) nor -rateN (a second)"));
        };
        Ok(Self { shape, pace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_cases_are_one_to_one() {
        for name in ["start", "echo", "echo-c1", "activity-c64", "signal", "fanin-c1", "echo-rate20"] {
            assert_eq!(name.parse::<Case>().unwrap().to_string(), name);
        }
        assert_eq!("echo-c16".parse::<Case>().unwrap(), "echo".parse::<Case>().unwrap());
    }

    #[test]
    fn a_name_that_means_nothing_is_refused_with_the_reason() {
        for name in ["", "ech", "echo-", "echo-c0", "echo-c", "echo-rate", "echo-x1", "echo-c-1"] {
            let error = name.parse::<Case>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("case `{name}`: ")), "{error}");
        }
    }
}
