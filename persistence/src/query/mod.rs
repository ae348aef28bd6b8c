//! The visibility query language: what ListWorkflowExecutions and CountWorkflowExecutions take as text. `lexer` makes
//! tokens with spans, `parser` a tree of names and literals (Pratt), `resolve` gives it types. The result is evaluated here,
//! over rows in memory, and rendered to SQL by the SQLite backend; a property test holds the two equal.

mod lexer;
mod parser;
mod resolve;
mod value;

use std::{borrow::Cow, fmt};

use crate::{Error, rows::VisibilityRow};

pub use value::{duration_parse, time_format, time_parse};

/// A query's text may hold this many conditions; databases limit the depth of an expression.
pub const CONDITIONS_MAX: usize = 500;
/// Parentheses and NOTs inside each other.
pub const DEPTH_MAX: usize = 100;
/// Values of all IN lists together; databases limit the parameters of a statement.
pub const VALUES_MAX: usize = 10_000;

/// What a query is for: only a count may group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A list or scan.
    List,
    /// A count.
    Count,
}

/// A query that was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Condition; none: all.
    pub filter: Option<Expression>,
    /// `GROUP BY ExecutionStatus`.
    pub group_by_status: bool,
}

/// Reads a query; the empty text asks for everything.
///
/// # Errors
/// [`Error::Invalid`] with the incumbent's words ("invalid query: …").
pub fn parse(text: &str, purpose: Purpose) -> Result<Parsed, Error> {
    let invalid = |why: String| Error::Invalid(format!("invalid query: {why}"));
    let statement = parser::parse(text).map_err(invalid)?;
    resolve::resolve(statement, purpose).map_err(invalid)
}

/// An attribute every run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Workflow id.
    WorkflowId,
    /// Run id.
    RunId,
    /// Workflow type.
    WorkflowType,
    /// Task queue.
    TaskQueue,
    /// Status.
    ExecutionStatus,
    /// Start.
    StartTime,
    /// Start plus first back-off.
    ExecutionTime,
    /// Close; null while open.
    CloseTime,
    /// From execution time to close in nanoseconds; null while open.
    ExecutionDuration,
    /// Events; null while open.
    HistoryLength,
    /// Bytes of history; null while open.
    HistorySizeBytes,
    /// State transitions; null while open.
    StateTransitionCount,
}

/// What values an attribute has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, compared as bytes.
    Keyword,
    /// A workflow status, by name or number.
    Status,
    /// RFC 3339 or Unix nanoseconds.
    Datetime,
    /// A Go duration, HH:MM:SS or nanoseconds.
    Duration,
    /// A number.
    Int,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::WorkflowId,
        Self::RunId,
        Self::WorkflowType,
        Self::TaskQueue,
        Self::ExecutionStatus,
        Self::StartTime,
        Self::ExecutionTime,
        Self::CloseTime,
        Self::ExecutionDuration,
        Self::HistoryLength,
        Self::HistorySizeBytes,
        Self::StateTransitionCount,
    ];

    /// As the API names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkflowId => "WorkflowId",
            Self::RunId => "RunId",
            Self::WorkflowType => "WorkflowType",
            Self::TaskQueue => "TaskQueue",
            Self::ExecutionStatus => "ExecutionStatus",
            Self::StartTime => "StartTime",
            Self::ExecutionTime => "ExecutionTime",
            Self::CloseTime => "CloseTime",
            Self::ExecutionDuration => "ExecutionDuration",
            Self::HistoryLength => "HistoryLength",
            Self::HistorySizeBytes => "HistorySizeBytes",
            Self::StateTransitionCount => "StateTransitionCount",
        }
    }

    /// By the API's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attribute| attribute.name() == name)
    }

    /// Its values.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::WorkflowId | Self::RunId | Self::WorkflowType | Self::TaskQueue => Kind::Keyword,
            Self::ExecutionStatus => Kind::Status,
            Self::StartTime | Self::ExecutionTime | Self::CloseTime => Kind::Datetime,
            Self::ExecutionDuration => Kind::Duration,
            Self::HistoryLength | Self::HistorySizeBytes | Self::StateTransitionCount => Kind::Int,
        }
    }
}

impl Kind {
    /// As the API names the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyword | Self::Status => "Keyword",
            Self::Datetime => "Datetime",
            Self::Duration | Self::Int => "Int",
        }
    }
}

/// A constant of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a keyword.
    Text(String),
    /// Of everything else: status number, Unix nanoseconds, nanoseconds, number.
    Number(i64),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// As written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// What one attribute is tested for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Compared with a constant.
    Compare(Comparison, Value),
    /// One of several.
    In(Vec<Value>),
    /// Between two, both included.
    Between(Value, Value),
    /// Not there.
    Null,
    /// Begins with.
    StartsWith(String),
}

/// A typed condition. `NOT IN`, `NOT BETWEEN`, `IS NOT NULL` and `NOT STARTS_WITH` are negations: three-valued logic makes
/// them mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// All of at least two.
    And(Vec<Expression>),
    /// Any of at least two.
    Or(Vec<Expression>),
    /// Not.
    Not(Box<Expression>),
    /// One test of one attribute.
    Test(Attribute, Test),
}

impl Expression {
    /// Whether the row matches: "unknown" (a test of something that is null) does not.
    #[must_use]
    pub fn matches(&self, row: &VisibilityRow) -> bool {
        self.evaluate(row) == Some(true)
    }

    /// Whether it names the attribute anywhere.
    #[must_use]
    pub fn names(&self, wanted: Attribute) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.names(wanted)),
            Self::Not(part) => part.names(wanted),
            Self::Test(attribute, _) => *attribute == wanted,
        }
    }

    /// SQL's three-valued logic; none is unknown.
    fn evaluate(&self, row: &VisibilityRow) -> Option<bool> {
        match self {
            Self::And(parts) => all(parts.iter().map(|part| part.evaluate(row))),
            Self::Or(parts) => all(parts.iter().map(|part| part.evaluate(row).map(|it| !it))).map(|it| !it),
            Self::Not(part) => part.evaluate(row).map(|it| !it),
            Self::Test(attribute, Test::Null) => Some(field(row, *attribute).is_none()),
            Self::Test(attribute, test) => Some(test.holds(&field(row, *attribute)?)),
        }
    }
}

fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            Some(true) => {}
            None => result = None,
        }
    }
    result
}

/// What a row has for an attribute.
enum Field<'a> {
    Text(Cow<'a, str>),
    Number(i64),
}

fn field(row: &VisibilityRow, attribute: Attribute) -> Option<Field<'_>> {
    let text = |text| Some(Field::Text(Cow::Borrowed(text)));
    let number = |number| Some(Field::Number(number));
    match attribute {
        Attribute::WorkflowId => text(row.key.workflow.as_str()),
        Attribute::RunId => Some(Field::Text(Cow::Owned(row.key.run.to_string()))),
        Attribute::WorkflowType => text(&row.workflow_type),
        Attribute::TaskQueue => text(&row.task_queue),
        Attribute::ExecutionStatus => number(i64::from(row.status)),
        Attribute::StartTime => number(row.start.0),
        Attribute::ExecutionTime => number(row.execution.0),
        Attribute::CloseTime => number(row.close?.0),
        Attribute::ExecutionDuration => number(row.close?.0.saturating_sub(row.execution.0)),
        Attribute::HistoryLength => row.close.and_then(|_| number(row.history_length)),
        Attribute::HistorySizeBytes => row.close.and_then(|_| number(row.history_size)),
        Attribute::StateTransitionCount => row.close.and_then(|_| number(row.transitions)),
    }
}

impl Field<'_> {
    /// Types agree because `resolve` gave the constant the attribute's type.
    fn compare(&self, value: &Value) -> Option<std::cmp::Ordering> {
        match (self, value) {
            (Self::Text(mine), Value::Text(other)) => Some(mine.as_ref().cmp(other.as_str())),
            (Self::Number(mine), Value::Number(other)) => Some(mine.cmp(other)),
            _ => None,
        }
    }
}

impl Test {
    fn holds(&self, field: &Field<'_>) -> bool {
        let compare = |operator: Comparison, value: &Value| {
            field.compare(value).is_some_and(|ordering| operator.holds(ordering))
        };
        match self {
            Self::Compare(operator, value) => compare(*operator, value),
            Self::In(values) => values.iter().any(|value| compare(Comparison::Equal, value)),
            Self::Between(low, high) => {
                compare(Comparison::GreaterOrEqual, low) && compare(Comparison::LessOrEqual, high)
            }
            Self::StartsWith(prefix) => {
                matches!(field, Field::Text(text) if text.starts_with(prefix.as_str()))
            }
            Self::Null => false,
        }
    }
}

/// As a query that parses to the same expression.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            f.write_str("(")?;
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                write!(f, "{part}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::And(parts) => joined(f, parts, "AND"),
            Self::Or(parts) => joined(f, parts, "OR"),
            Self::Not(part) => write!(f, "(NOT {part})"),
            Self::Test(attribute, test) => write!(f, "{} {test}", attribute.name()),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(operator, value) => write!(f, "{} {value}", operator.symbol()),
            Self::In(values) => {
                f.write_str("IN (")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Self::Between(low, high) => write!(f, "BETWEEN {low} AND {high}"),
            Self::Null => f.write_str("IS NULL"),
            Self::StartsWith(prefix) => write!(f, "STARTS_WITH {}", Value::Text(prefix.clone())),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests;
