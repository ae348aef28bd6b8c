//! Tokens of a query with their spans.

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare word: a name or, in any case, a keyword.
    Word(String),
    /// A back-ticked name: never a keyword.
    Quoted(String),
    /// A string without its quotes.
    Text(String),
    /// A number as written, with its sign.
    Number(String),
    /// `= != <> < <= > >= ( ) ,`
    Symbol(&'static str),
    /// A character that begins no token, or a string without end.
    Broken(String),
    /// The end.
    End,
}

/// A token and the byte after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) end: usize,
}

impl Token {
    /// Whether it is this keyword, in any case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

const SYMBOLS: [&str; 10] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

/// All tokens; the last is [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<Spanned> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let (token, length) = token(&text[at..]);
        at += length;
        let last = matches!(token, Token::End | Token::Broken(_));
        found.push(Spanned { token, end: at });
        if last {
            return found;
        }
    }
}

fn token(rest: &str) -> (Token, usize) {
    let Some(first) = rest.chars().next() else { return (Token::End, 0) };
    if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        return (Token::Symbol(symbol), symbol.len());
    }
    match first {
        '\'' | '"' => quoted(rest, first, true, Token::Text),
        '`' => quoted(rest, first, false, Token::Quoted),
        '0'..='9' | '.' | '-' | '+' => number(rest),
        _ if first.is_alphabetic() || first == '_' => {
            let length =
                rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len());
            (Token::Word(rest[..length].to_string()), length)
        }
        _ => (Token::Broken(first.to_string()), first.len_utf8()),
    }
}

/// A quote inside is written twice or, in strings, after a backslash.
fn quoted(rest: &str, quote: char, escapes: bool, make: fn(String) -> Token) -> (Token, usize) {
    let mut content = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if chars.next_if(|(_, next)| *next == quote).is_none() {
                return (make(content), at + c.len_utf8());
            }
            content.push(quote);
        } else if escapes && c == '\\' {
            let Some((_, escaped)) = chars.next() else { break };
            content.push(match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                other => other,
            });
        } else {
            content.push(c);
        }
    }
    (Token::Broken(content), rest.len())
}

fn number(rest: &str) -> (Token, usize) {
    let sign = usize::from(rest.starts_with(['-', '+']));
    let mut length = sign;
    let mut previous = ' ';
    for c in rest[sign..].chars() {
        let exponent_sign = matches!(c, '-' | '+') && matches!(previous, 'e' | 'E');
        if !c.is_ascii_digit() && !matches!(c, '.' | 'e' | 'E') && !exponent_sign {
            break;
        }
        previous = c;
        length += c.len_utf8();
    }
    let text = &rest[..length];
    if text.bytes().any(|byte| byte.is_ascii_digit()) {
        (Token::Number(text.to_string()), length)
    } else {
        (Token::Broken(text.to_string()), length.max(1))
    }
}
