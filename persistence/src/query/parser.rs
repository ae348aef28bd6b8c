//! From tokens to a tree of names and literals, by binding power (Pratt). It knows no attribute: a query with a mistake in
//! its form is refused for that before anybody asks what its names mean, as the incumbent does.

use super::{
    CONDITIONS_MAX, Comparison, DEPTH_MAX, VALUES_MAX,
    lexer::{Spanned, Token, tokens},
};

/// A literal as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Number(String),
}

/// An untyped condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
    /// A name alone.
    Bare,
    Test(String, RawTest),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RawTest {
    Compare(Comparison, Literal),
    In(Vec<Literal>),
    Between(Literal, Literal),
    Null,
    StartsWith(Literal),
    /// Parsed to be refused by name.
    Like,
}

/// A whole query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) filter: Option<Tree>,
    pub(super) group_by: Vec<String>,
    /// A clause that the grammar has and we refuse.
    pub(super) refused: Option<&'static str>,
}

/// Binding powers: OR < AND < NOT < a test.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;

/// The incumbent reports positions in a statement that it puts the query into, one past the token.
const POSITION_OFFSET: usize = 27;

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
    conditions: usize,
    values: usize,
}

pub(super) fn parse(text: &str) -> Result<Statement, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0, depth: 0, conditions: 0, values: 0 };
    parser.statement()
}

impl Parser {
    fn statement(&mut self) -> Result<Statement, String> {
        let mut statement = Statement::default();
        let clause = ["GROUP", "ORDER", "LIMIT"].iter().any(|word| self.peek().is(word));
        if !clause && *self.peek() != Token::End {
            statement.filter = Some(self.expression(0)?);
        }
        if self.take("GROUP") {
            self.expect("BY")?;
            statement.group_by.push(self.name()?);
            while self.take_symbol(",") {
                statement.group_by.push(self.name()?);
            }
        }
        if self.take("ORDER") {
            self.expect("BY")?;
            self.order()?;
            statement.refused = Some("'ORDER BY' clause");
        }
        if self.take("LIMIT") {
            self.literal()?;
            statement.refused = statement.refused.or(Some("'LIMIT' clause"));
        }
        if *self.peek() == Token::End { Ok(statement) } else { Err(self.unexpected()) }
    }

    fn order(&mut self) -> Result<(), String> {
        loop {
            self.name()?;
            if !self.take("ASC") {
                self.take("DESC");
            }
            if !self.take_symbol(",") {
                return Ok(());
            }
        }
    }

    fn expression(&mut self, power_min: u8) -> Result<Tree, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("expression is nested more than {DEPTH_MAX} deep"));
        }
        let mut left = self.operand()?;
        loop {
            // Equal operators join into one node, so that a long chain is wide and not deep.
            let (word, power) = match self.peek() {
                token if token.is("AND") => ("AND", AND),
                token if token.is("OR") => ("OR", OR),
                _ => break,
            };
            if power <= power_min {
                break;
            }
            let mut parts = vec![left];
            while self.take(word) {
                parts.push(self.expression(power)?);
            }
            left = if power == AND { Tree::And(parts) } else { Tree::Or(parts) };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Tree, String> {
        if self.take("NOT") {
            return Ok(Tree::Not(Box::new(self.expression(NOT)?)));
        }
        if self.take_symbol("(") {
            let inner = self.expression(0)?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            return Err(format!("more than {CONDITIONS_MAX} conditions"));
        }
        let name = self.name()?;
        self.test(name)
    }

    fn test(&mut self, name: String) -> Result<Tree, String> {
        if let Some(comparison) = self.comparison() {
            return Ok(Tree::Test(name, RawTest::Compare(comparison, self.literal()?)));
        }
        if self.take("IS") {
            let negated = self.take("NOT");
            self.expect("NULL")?;
            return Ok(negate(negated, Tree::Test(name, RawTest::Null)));
        }
        let negated = self.take("NOT");
        let test = if self.take("IN") {
            RawTest::In(self.list()?)
        } else if self.take("BETWEEN") {
            let low = self.literal()?;
            self.expect("AND")?;
            RawTest::Between(low, self.literal()?)
        } else if self.take("STARTS_WITH") {
            RawTest::StartsWith(self.literal()?)
        } else if self.take("LIKE") {
            self.literal()?;
            RawTest::Like
        } else if !negated && self.ends_operand() {
            return Ok(Tree::Bare);
        } else {
            return Err(self.unexpected());
        };
        Ok(negate(negated, Tree::Test(name, test)))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let Token::Symbol(symbol) = self.peek() else { return None };
        let comparison = match *symbol {
            "=" => Comparison::Equal,
            "!=" | "<>" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        };
        self.at += 1;
        Some(comparison)
    }

    fn list(&mut self) -> Result<Vec<Literal>, String> {
        self.expect_symbol("(")?;
        let mut values = vec![self.literal()?];
        while self.take_symbol(",") {
            values.push(self.literal()?);
        }
        self.expect_symbol(")")?;
        self.values += values.len();
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values"));
        }
        Ok(values)
    }

    fn literal(&mut self) -> Result<Literal, String> {
        let literal = match self.peek() {
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Number(number) => Literal::Number(number.clone()),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(literal)
    }

    fn name(&mut self) -> Result<String, String> {
        let name = match self.peek() {
            Token::Quoted(name) => name.clone(),
            Token::Word(name) if !is_keyword(name) => name.clone(),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(name)
    }

    /// The cursor never passes the last token, which is the end or broken.
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn ends_operand(&self) -> bool {
        let next = self.peek();
        *next == Token::End
            || *next == Token::Symbol(")")
            || ["AND", "OR", "GROUP", "ORDER", "LIMIT"].iter().any(|word| next.is(word))
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.peek().is(keyword);
        self.at += usize::from(found);
        found
    }

    fn take_symbol(&mut self, symbol: &'static str) -> bool {
        let found = *self.peek() == Token::Symbol(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, keyword: &str) -> Result<(), String> {
        if self.take(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), String> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> String {
        let (end, near) = match self.tokens.get(self.at) {
            None => (0, None),
            Some(Spanned { token, end }) => match token {
                Token::Word(text)
                | Token::Quoted(text)
                | Token::Text(text)
                | Token::Number(text)
                | Token::Broken(text) => (*end, Some(text)),
                Token::Symbol(_) | Token::End => (*end, None),
            },
        };
        let position = POSITION_OFFSET + end;
        match near {
            Some(near) => format!("malformed SQL query: syntax error at position {position} near '{near}'"),
            None => format!("malformed SQL query: syntax error at position {position}"),
        }
    }
}

fn negate(negated: bool, tree: Tree) -> Tree {
    if negated { Tree::Not(Box::new(tree)) } else { tree }
}

fn is_keyword(word: &str) -> bool {
    [
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "IS",
        "NULL",
        "STARTS_WITH",
        "LIKE",
        "GROUP",
        "ORDER",
        "BY",
        "LIMIT",
        "ASC",
        "DESC",
    ]
    .iter()
    .any(|keyword| word.eq_ignore_ascii_case(keyword))
}
