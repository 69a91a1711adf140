//! Tokens of the JEXL subset.

use crate::error::{ExprError, Kind};
use crate::source::{Source, is_name_char};
use std::ops::Range;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'s> {
    /// A name or keyword.
    Name(&'s str),
    /// A whole number.
    Int(i64),
    /// A number with a fraction, or a whole one beyond `i64`.
    Float(f64),
    /// A string literal.
    Text(Vec<Piece>),
    /// A nested block, by its number.
    Hole(usize),
    /// An operator or bracket.
    Sign(&'static str),
}

/// A piece of a string literal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// Characters, escapes replaced.
    Text(String),
    /// A nested block, by its number.
    Hole(usize),
}

/// Longest first, so that `=~` is not read as `=`.
const SIGNS: [&str; 32] = [
    "==", "!=", "<=", ">=", "&&", "||", "=~", "!~", "=^", "!^", "=$", "!$", "?:", "<", ">", "!", "+", "-",
    "*", "/", "%", "?", ":", ".", ",", "(", ")", "[", "]", "{", "}", ";",
];

/// Splits a source into tokens with their byte ranges.
pub(crate) fn lex<'s>(source: &'s Source<'_>) -> Result<Vec<(Token<'s>, Range<usize>)>, ExprError> {
    let text = source.text.as_str();
    let mut tokens: Vec<(Token<'s>, Range<usize>)> = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(c) = rest.chars().next() else { break };
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("//") || rest.starts_with("##") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with("/*") {
            let Some(end) = rest.find("*/") else {
                return Err(fault(source, at..at + 2, "the comment is not closed"));
            };
            at += end + 2;
            continue;
        }
        let (token, end) = if let Some(hole) = source.hole_at(at) {
            (Token::Hole(hole), at + c.len_utf8())
        } else if c == '"' || c == '\'' {
            string(source, at, c)?
        } else if c.is_ascii_digit() && !matches!(tokens.last(), Some((Token::Sign("."), _))) {
            number(source, at)?
        } else if is_name_char(c) {
            let len = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
            (Token::Name(rest.get(..len).unwrap_or("")), at + len)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), at + sign.len())
        } else {
            return Err(fault(source, at..at + c.len_utf8(), format!("`{c}` has no meaning here")));
        };
        tokens.push((token, at..end));
        at = end;
    }
    Ok(tokens)
}

fn fault(source: &Source<'_>, range: Range<usize>, message: impl Into<String>) -> ExprError {
    ExprError::new(Kind::Syntax, message, source.original(range))
}

fn number<'s>(source: &'s Source<'_>, at: usize) -> Result<(Token<'s>, usize), ExprError> {
    let rest = source.text.get(at..).unwrap_or("");
    let bytes = rest.as_bytes();
    let digits = |from: usize, hex: bool| {
        bytes
            .iter()
            .skip(from)
            .take_while(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() })
            .count()
    };
    let is_hex = bytes.first() == Some(&b'0') && matches!(bytes.get(1), Some(b'x' | b'X'));
    let (token, mut len) = if is_hex {
        let n = digits(2, true);
        let value = i64::from_str_radix(rest.get(2..2 + n).unwrap_or(""), 16);
        (value.ok().map(Token::Int), 2 + n)
    } else {
        let mut len = digits(0, false);
        let mut whole = true;
        if bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit) {
            whole = false;
            len += 1 + digits(len + 1, false);
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            let n = digits(len + 1 + sign, false);
            if n > 0 {
                whole = false;
                len += 1 + sign + n;
            }
        }
        let digits = rest.get(..len).unwrap_or("");
        let int = if whole { digits.parse().ok().map(Token::Int) } else { None };
        (int.or_else(|| digits.parse().ok().map(Token::Float)), len)
    };
    // Java's type letters: long, big integer; float, double, big decimal. Here they only choose the kind.
    let token = match (bytes.get(len), token) {
        (Some(b'l' | b'L' | b'h' | b'H'), token) => {
            len += 1;
            token
        }
        (Some(b'f' | b'F' | b'd' | b'D' | b'b' | b'B'), Some(token)) if !is_hex => {
            len += 1;
            match token {
                #[expect(clippy::cast_precision_loss, reason = "The letter asks for a double.")]
                Token::Int(i) => Some(Token::Float(i as f64)),
                other => Some(other),
            }
        }
        (_, token) => token,
    };
    let follows = rest.get(len..).and_then(|t| t.chars().next());
    match token {
        Some(token) if !follows.is_some_and(is_name_char) => Ok((token, at + len)),
        _ => {
            let end = at + rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
            let text = source.text.get(at..end).unwrap_or("");
            Err(fault(source, at..end, format!("`{text}` is neither a number nor a name")))
        }
    }
}

fn string<'s>(source: &'s Source<'_>, at: usize, quote: char) -> Result<(Token<'s>, usize), ExprError> {
    let text = source.text.as_str();
    let mut pieces = Vec::new();
    let mut current = String::new();
    let mut chars = text.get(at + 1..).unwrap_or("").char_indices().map(|(i, c)| (at + 1 + i, c));
    while let Some((here, c)) = chars.next() {
        if let Some(hole) = source.hole_at(here) {
            if !current.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut current)));
            }
            pieces.push(Piece::Hole(hole));
        } else if c == quote {
            if !current.is_empty() || pieces.is_empty() {
                pieces.push(Piece::Text(current));
            }
            return Ok((Token::Text(pieces), here + 1));
        } else if c == '\\' {
            match chars.next() {
                Some((_, e @ ('\\' | '"' | '\''))) => current.push(e),
                Some((_, 'n')) => current.push('\n'),
                Some((_, 't')) => current.push('\t'),
                Some((_, 'r')) => current.push('\r'),
                Some((escape, 'u')) => {
                    let code = text.get(escape + 1..escape + 5).and_then(|h| u32::from_str_radix(h, 16).ok());
                    let Some(decoded) = code.and_then(char::from_u32) else {
                        return Err(fault(source, here..escape + 1, "`\\u` needs four hexadecimal digits"));
                    };
                    current.push(decoded);
                    for _ in 0..4 {
                        chars.next();
                    }
                }
                // An escape that JEXL does not know keeps its backslash, so `'\.'` is a regular expression.
                Some((escaped, other)) if source.hole_at(escaped).is_none() => {
                    current.push('\\');
                    current.push(other);
                }
                Some((escaped, _)) => {
                    current.push('\\');
                    pieces.push(Piece::Text(std::mem::take(&mut current)));
                    pieces.extend(source.hole_at(escaped).map(Piece::Hole));
                }
                None => break,
            }
        } else {
            current.push(c);
        }
    }
    Err(fault(source, at..text.len(), "the string is not closed"))
}
