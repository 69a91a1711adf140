//! The parser: precedence climbing over the tokens, with a limit on nesting.

use crate::ast::{Access, Ast, Binary, Node, Unary};
use crate::error::{ExprError, Kind};
use crate::lex::{Piece, Token, lex};
use crate::source::{DASH, Source};
use crate::value::{Segment, Value};
use std::ops::Range;
use std::sync::Arc;

/// Brackets, unary operators and ternaries may nest this deep; deeper text is refused rather than overflow the stack.
const MAX_BRACKETS: usize = 50;

/// Words with a meaning of their own; they are names only behind a dot.
const RESERVED: [&str; 22] = [
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "div", "mod", "if", "else", "new", "var", "for",
    "while", "function", "return", "in", "do", "lambda",
];

/// Parses the whole of `source`.
pub(crate) fn parse(source: &Source<'_>) -> Result<Ast, ExprError> {
    let tokens = lex(source)?;
    let mut parser = Parser { source, tokens: &tokens, at: 0, depth: 0 };
    if parser.tokens.is_empty() {
        return Err(parser.fault("the expression is empty"));
    }
    let ast = parser.statement()?;
    while parser.eat(";") {}
    match parser.peek() {
        None => Ok(ast),
        Some(_) => Err(parser.fault("an operator is missing here")),
    }
}

/// A name as a path segment; a dash that a spliced value brought is a dash again.
fn segment(name: &str) -> Segment {
    if name.contains(DASH) { Segment::from(name.replace(DASH, "-").as_str()) } else { Segment::from(name) }
}

struct Parser<'p, 's> {
    source: &'p Source<'s>,
    tokens: &'p [(Token<'p>, Range<usize>)],
    at: usize,
    depth: usize,
}

impl<'p> Parser<'p, '_> {
    fn peek(&self) -> Option<&'p Token<'p>> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn peek_second(&self) -> Option<&'p Token<'p>> {
        self.tokens.get(self.at + 1).map(|(token, _)| token)
    }

    fn range(&self) -> Range<usize> {
        let end = self.source.text.len();
        self.tokens.get(self.at).map_or(end..end, |(_, range)| range.clone())
    }

    fn last_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |(_, range)| range.end)
    }

    fn fault(&self, message: impl Into<String>) -> ExprError {
        ExprError::new(Kind::Syntax, message, self.source.original(self.range()))
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(name)) if *name == word);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, sign: &str) -> Result<(), ExprError> {
        if self.eat(sign) { Ok(()) } else { Err(self.fault(format!("`{sign}` is missing here"))) }
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ExprError>) -> Result<T, ExprError> {
        self.depth += 1;
        if self.depth > MAX_BRACKETS {
            let message = format!("nested deeper than {MAX_BRACKETS}");
            return Err(ExprError::new(Kind::TooDeep, message, self.source.original(self.range())));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn statement(&mut self) -> Result<Ast, ExprError> {
        let from = self.range().start;
        let is_if = matches!(self.peek(), Some(Token::Name("if")))
            && matches!(self.peek_second(), Some(Token::Sign("(")));
        if !is_if {
            return self.expression();
        }
        self.deeper(|parser| {
            parser.at += 1;
            parser.need("(")?;
            let condition = parser.expression()?;
            parser.need(")")?;
            let then = parser.branch()?;
            while parser.eat(";") {}
            let otherwise = if parser.eat_word("else") {
                parser.branch()?
            } else {
                Ast { node: Node::Literal(Value::Null), at: from..parser.last_end() }
            };
            let node = Node::Ternary(Box::new(condition), Box::new(then), Box::new(otherwise));
            Ok(Ast { node, at: from..parser.last_end() })
        })
    }

    fn branch(&mut self) -> Result<Ast, ExprError> {
        if !self.eat("{") {
            return self.statement();
        }
        let body = self.statement()?;
        while self.eat(";") {}
        self.need("}")?;
        Ok(body)
    }

    fn expression(&mut self) -> Result<Ast, ExprError> {
        self.deeper(|parser| {
            let from = parser.range().start;
            let condition = parser.binary(0)?;
            let node = if parser.eat("?:") {
                Node::Elvis(Box::new(condition), Box::new(parser.expression()?))
            } else if parser.eat("?") {
                let then = parser.expression()?;
                parser.need(":")?;
                Node::Ternary(Box::new(condition), Box::new(then), Box::new(parser.expression()?))
            } else {
                return Ok(condition);
            };
            Ok(Ast { node, at: from..parser.last_end() })
        })
    }

    fn operator(&self) -> Option<Binary> {
        match self.peek() {
            Some(Token::Sign(sign)) => Binary::of(sign),
            Some(Token::Name(name)) => Binary::of(name),
            _ => None,
        }
    }

    fn binary(&mut self, level: u8) -> Result<Ast, ExprError> {
        const HIGHEST: u8 = 5;
        if level > HIGHEST {
            return self.unary();
        }
        let from = self.range().start;
        let first = self.binary(level + 1)?;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator().filter(|o| o.precedence() == level) {
            self.at += 1;
            rest.push((operator, self.binary(level + 1)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Ast { node: Node::Chain(Box::new(first), rest), at: from..self.last_end() })
    }

    fn unary(&mut self) -> Result<Ast, ExprError> {
        let from = self.range().start;
        let called = matches!(self.peek_second(), Some(Token::Sign("(")));
        let ends = self.peek_second().is_none();
        let operator = match self.peek() {
            Some(Token::Sign("!") | Token::Name("not")) => Unary::Not,
            Some(Token::Sign("-")) => Unary::Minus,
            Some(Token::Sign("+")) => Unary::Plus,
            Some(Token::Name("empty")) if called || (!ends && self.starts_operand()) => Unary::Empty,
            Some(Token::Name("size")) if called || (!ends && self.starts_operand()) => Unary::Size,
            _ => return self.postfix(),
        };
        self.at += 1;
        let operand = self.deeper(Self::unary)?;
        Ok(Ast { node: Node::Unary(operator, Box::new(operand)), at: from..self.last_end() })
    }

    /// Whether the token behind the next one begins an operand, so that `empty x` is told from a name `empty`.
    fn starts_operand(&self) -> bool {
        match self.peek_second() {
            Some(Token::Name(name)) => Binary::of(name).is_none(),
            Some(
                Token::Hole(_) | Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Sign("[" | "{"),
            ) => true,
            _ => false,
        }
    }

    fn postfix(&mut self) -> Result<Ast, ExprError> {
        let from = self.range().start;
        let mut base = self.primary()?;
        let mut accesses: Vec<(Access, Range<usize>)> = Vec::new();
        loop {
            let start = self.range().start;
            let access = if self.eat(".") {
                let Some(Token::Name(name)) = self.peek() else {
                    return Err(self.fault("a name must follow the dot"));
                };
                self.at += 1;
                if self.eat("(") {
                    Access::Call(Arc::from(*name), self.items(")")?)
                } else if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
                    Access::Child(name.parse().map_or_else(|_| segment(name), Segment::Index))
                } else {
                    Access::Child(segment(name))
                }
            } else if self.eat("[") {
                let index = self.expression()?;
                self.need("]")?;
                match index.node {
                    Node::Literal(Value::Int(i)) => Access::Child(Segment::Index(i)),
                    Node::Literal(Value::Str(s)) => Access::Child(Segment::Name(s.text)),
                    node => Access::Index(Ast { node, at: index.at }),
                }
            } else {
                break;
            };
            // Constant accesses right behind a name belong to its path.
            match (&mut base.node, access) {
                (Node::Path(path), Access::Child(segment)) if accesses.is_empty() => {
                    path.push(segment);
                    base.at.end = self.last_end();
                }
                (_, access) => accesses.push((access, start..self.last_end())),
            }
        }
        if accesses.is_empty() {
            return Ok(base);
        }
        Ok(Ast { node: Node::Access(Box::new(base), accesses), at: from..self.last_end() })
    }

    /// Comma-separated expressions up to `close`.
    fn items(&mut self, close: &str) -> Result<Vec<Ast>, ExprError> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(self.expression()?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(",") {
                return Err(self.fault(format!("`,` or `{close}` is missing here")));
            }
        }
    }

    fn primary(&mut self) -> Result<Ast, ExprError> {
        let range = self.range();
        let Some(token) = self.peek() else { return Err(self.fault("a value is missing at the end")) };
        self.at += 1;
        let node = match token {
            Token::Int(i) => Node::Literal(Value::Int(*i)),
            Token::Float(x) => Node::Literal(Value::Float(*x)),
            Token::Hole(hole) => Node::Hole(*hole),
            Token::Text(pieces) => match pieces.as_slice() {
                [Piece::Text(text)] => Node::Literal(Value::text(text.as_str())),
                pieces => Node::Template(pieces.to_vec()),
            },
            Token::Sign("(") => {
                let mut inner = self.expression()?;
                self.need(")")?;
                inner.at = range.start..self.last_end();
                // A bracketed name is a value, not the beginning of a longer path.
                return Ok(match inner.node {
                    Node::Path(_) => {
                        let at = inner.at.clone();
                        Ast { node: Node::Access(Box::new(inner), Vec::new()), at }
                    }
                    _ => inner,
                });
            }
            Token::Sign("[") => Node::List(self.items("]")?),
            Token::Sign("{") => self.braces()?,
            Token::Name("true") => Node::Literal(Value::Bool(true)),
            Token::Name("false") => Node::Literal(Value::Bool(false)),
            Token::Name("null") => Node::Literal(Value::Null),
            Token::Name(name) if RESERVED.contains(name) => {
                self.at -= 1;
                return Err(self.fault(format!("`{name}` cannot stand here")));
            }
            Token::Name(name) => {
                if matches!(self.peek(), Some(Token::Sign("("))) {
                    let message = format!("there is no function `{name}`");
                    return Err(ExprError::new(Kind::NotAllowed, message, self.source.original(range)));
                }
                Node::Path(vec![segment(name)])
            }
            Token::Sign(sign) => {
                self.at -= 1;
                return Err(self.fault(format!("a value is missing before `{sign}`")));
            }
        };
        Ok(Ast { node, at: range.start..self.last_end() })
    }

    /// `{k: v, …}`, `{:}` or a set `{a, b}`, which behaves as a list.
    fn braces(&mut self) -> Result<Node, ExprError> {
        if self.eat("}") {
            return Ok(Node::Map(Vec::new()));
        }
        if self.eat(":") {
            self.need("}")?;
            return Ok(Node::Map(Vec::new()));
        }
        let mut entries = Vec::new();
        let mut items = Vec::new();
        loop {
            let key = self.map_key()?;
            if entries.is_empty() && items.is_empty() && !matches!(self.peek(), Some(Token::Sign(":"))) {
                items.push(key);
            } else if items.is_empty() {
                self.need(":")?;
                entries.push((key, self.expression()?));
            } else {
                items.push(key);
            }
            if self.eat("}") {
                return Ok(if items.is_empty() { Node::Map(entries) } else { Node::List(items) });
            }
            if !self.eat(",") {
                return Err(self.fault("`,` or `}` is missing here"));
            }
        }
    }

    fn map_key(&mut self) -> Result<Ast, ExprError> {
        if let (Some(Token::Name(name)), Some(Token::Sign(":"))) = (self.peek(), self.peek_second()) {
            let at = self.range();
            self.at += 1;
            return Ok(Ast { node: Node::Literal(Value::text(*name)), at });
        }
        self.expression()
    }
}
