//! Gives names and literals their types, and refuses what the language does not have, in the incumbent's words.

use super::{
    Attribute, Comparison, Expression, Kind, Parsed, Purpose, Test, Value,
    parser::{Literal, RawTest, Statement, Tree},
    value::{duration_parse, status_parse, time_parse},
};

pub(super) fn resolve(statement: Statement, purpose: Purpose) -> Result<Parsed, String> {
    if let Some(clause) = statement.refused {
        return Err(unsupported(clause));
    }
    let group_by_status = group_by(&statement.group_by, purpose)?;
    let filter = statement.filter.map(expression).transpose()?;
    Ok(Parsed { filter, group_by_status })
}

fn unsupported(what: &str) -> String {
    format!("operation is not supported: {what}")
}

fn group_by(names: &[String], purpose: Purpose) -> Result<bool, String> {
    let [name] = names else {
        return if names.is_empty() {
            Ok(false)
        } else {
            Err(unsupported("'GROUP BY' clause with more than one field"))
        };
    };
    if purpose == Purpose::List {
        return Err(unsupported("'GROUP BY' clause"));
    }
    if attribute(name)? != Attribute::ExecutionStatus {
        return Err(unsupported(&format!("'GROUP BY' clause is not supported for search attribute {name}")));
    }
    Ok(true)
}

fn attribute(name: &str) -> Result<Attribute, String> {
    Attribute::from_name(name).ok_or_else(|| format!("invalid search attribute: {name}"))
}

fn expression(tree: Tree) -> Result<Expression, String> {
    let all = |parts: Vec<Tree>| parts.into_iter().map(expression).collect::<Result<Vec<_>, _>>();
    Ok(match tree {
        Tree::And(parts) => Expression::And(all(parts)?),
        Tree::Or(parts) => Expression::Or(all(parts)?),
        Tree::Not(part) => Expression::Not(Box::new(expression(*part)?)),
        Tree::Bare => return Err("invalid expression: incomplete expression".to_string()),
        Tree::Test(name, raw) => {
            let attribute = attribute(&name)?;
            Expression::Test(attribute, test(attribute, raw)?)
        }
    })
}

fn test(attribute: Attribute, raw: RawTest) -> Result<Test, String> {
    let value = |literal| value(attribute, literal);
    let refuse = |operator: &str| {
        Err(unsupported(&format!(
            "operator '{operator}' not supported for {} type search attribute '{}'",
            attribute.kind().name(),
            attribute.name()
        )))
    };
    let ordered = attribute.kind() != Kind::Status;
    Ok(match raw {
        RawTest::Compare(comparison, _)
            if !ordered && !matches!(comparison, Comparison::Equal | Comparison::NotEqual) =>
        {
            return refuse(comparison.symbol());
        }
        RawTest::Compare(comparison, literal) => Test::Compare(comparison, value(literal)?),
        RawTest::In(literals) => Test::In(literals.into_iter().map(value).collect::<Result<_, _>>()?),
        RawTest::Between(..) if !ordered => return refuse("BETWEEN"),
        RawTest::Between(low, high) => Test::Between(value(low)?, value(high)?),
        RawTest::Null => Test::Null,
        RawTest::StartsWith(literal) => match (attribute.kind(), literal) {
            (Kind::Keyword, Literal::Text(prefix)) => Test::StartsWith(prefix),
            (Kind::Keyword, Literal::Number(text)) => return Err(bad_value(attribute, &text)),
            _ => return refuse("STARTS_WITH"),
        },
        RawTest::Like => return refuse("LIKE"),
    })
}

fn bad_value(attribute: Attribute, text: &str) -> String {
    match attribute.kind() {
        Kind::Status => format!("invalid expression: invalid ExecutionStatus value '{text}'"),
        kind => format!(
            "invalid expression: invalid value for search attribute {} of type {}: '{text}'",
            attribute.name(),
            kind.name()
        ),
    }
}

fn value(attribute: Attribute, literal: Literal) -> Result<Value, String> {
    let (text, number) = match &literal {
        Literal::Text(text) => (text, None),
        Literal::Number(text) => (text, text.parse::<i64>().ok()),
    };
    let quoted = matches!(literal, Literal::Text(_));
    let value = match attribute.kind() {
        Kind::Keyword => quoted.then(|| Value::Text(text.clone())),
        Kind::Status => if quoted { status_parse(text) } else { number.filter(|n| (1..=8).contains(n)) }
            .map(Value::Number),
        Kind::Datetime => {
            if quoted { time_parse(text).map(|time| time.0) } else { number }.map(Value::Number)
        }
        Kind::Duration => {
            if quoted { duration_parse(text).map(|length| length.0) } else { number }.map(Value::Number)
        }
        Kind::Int => if quoted { text.parse().ok() } else { number }.map(Value::Number),
    };
    value.ok_or_else(|| bad_value(attribute, text))
}
