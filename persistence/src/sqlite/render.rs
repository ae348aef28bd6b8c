//! A visibility condition as SQL. Constants become parameters; no text of a user's ever becomes part of a statement.

use rusqlite::types::Value as Parameter;

use crate::query::{Attribute, Comparison, Expression, Test, Value};

/// A condition and its parameters, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

impl Rendered {
    /// Appends a parameter and its mark.
    pub(super) fn bind(&mut self, parameter: impl Into<Parameter>) {
        self.sql.push('?');
        self.parameters.push(parameter.into());
    }

    /// Appends a condition.
    pub(super) fn condition(&mut self, expression: &Expression) {
        match expression {
            Expression::And(parts) => self.joined(parts, " AND "),
            Expression::Or(parts) => self.joined(parts, " OR "),
            Expression::Not(part) => {
                self.sql.push_str("(NOT ");
                self.condition(part);
                self.sql.push(')');
            }
            Expression::Test(attribute, test) => self.test(*attribute, test),
        }
    }

    fn joined(&mut self, parts: &[Expression], word: &str) {
        self.sql.push('(');
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.sql.push_str(word);
            }
            self.condition(part);
        }
        self.sql.push(')');
    }

    fn test(&mut self, attribute: Attribute, test: &Test) {
        let column = column(attribute);
        self.sql.push('(');
        match test {
            // The index by workflow id is on the runs.
            Test::Compare(Comparison::Equal, Value::Text(text)) if attribute == Attribute::WorkflowId => {
                self.sql.push_str(
                    "id IN (SELECT id FROM runs WHERE namespace = visibility.namespace AND workflow = ",
                );
                self.bind(text.clone());
                self.sql.push(')');
            }
            Test::Compare(comparison, value) => {
                self.sql.push_str(column);
                self.sql.push_str(operator(*comparison));
                self.value(value);
            }
            Test::In(values) => {
                self.sql.push_str(column);
                self.sql.push_str(" IN (");
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        self.sql.push(',');
                    }
                    self.value(value);
                }
                self.sql.push(')');
            }
            Test::Between(low, high) => {
                self.sql.push_str(column);
                self.sql.push_str(" BETWEEN ");
                self.value(low);
                self.sql.push_str(" AND ");
                self.value(high);
            }
            Test::Null => {
                self.sql.push_str(column);
                self.sql.push_str(" IS NULL");
            }
            Test::StartsWith(prefix) => self.starts_with(column, prefix),
        }
        self.sql.push(')');
    }

    /// Compared as bytes: patterns would give some characters a meaning and others a case. A part of an empty value is null
    /// to SQLite, and not empty.
    fn starts_with(&mut self, column: &str, prefix: &str) {
        self.sql.push_str("coalesce(substr(CAST(");
        self.sql.push_str(column);
        self.sql.push_str(" AS BLOB), 1, ");
        self.bind(i64::try_from(prefix.len()).unwrap_or(i64::MAX));
        self.sql.push_str("), x'') = ");
        self.bind(prefix.as_bytes().to_vec());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.bind(text.clone()),
            Value::Number(number) => self.bind(*number),
        }
    }
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => " = ",
        Comparison::NotEqual => " <> ",
        Comparison::Less => " < ",
        Comparison::LessOrEqual => " <= ",
        Comparison::Greater => " > ",
        Comparison::GreaterOrEqual => " >= ",
    }
}

/// What stands for an attribute. Figures of a run are null while it is open.
fn column(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::WorkflowId => "workflow",
        Attribute::RunId => {
            "lower(substr(hex(run),1,8)||'-'||substr(hex(run),9,4)||'-'||substr(hex(run),13,4)||'-'\
             ||substr(hex(run),17,4)||'-'||substr(hex(run),21))"
        }
        Attribute::WorkflowType => "workflow_type",
        Attribute::TaskQueue => "task_queue",
        Attribute::ExecutionStatus => "status",
        Attribute::StartTime => "start",
        Attribute::ExecutionTime => "execution",
        Attribute::CloseTime => "close",
        Attribute::ExecutionDuration => "(close - execution)",
        Attribute::HistoryLength => "iif(close IS NULL, NULL, history_length)",
        Attribute::HistorySizeBytes => "iif(close IS NULL, NULL, history_size)",
        Attribute::StateTransitionCount => "iif(close IS NULL, NULL, transitions)",
    }
}
