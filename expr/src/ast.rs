//! The syntax tree. Chains of operators and of accesses are flat, so that its depth is the depth of brackets only.

use crate::value::{Segment, Value};
use std::ops::Range;
use std::sync::Arc;

/// A node with its byte range in the source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ast {
    pub(crate) node: Node,
    pub(crate) at: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Literal(Value),
    /// A string literal with holes.
    Template(Vec<crate::lex::Piece>),
    /// A nested block as operand.
    Hole(usize),
    /// A name with the constant part of its accesses.
    Path(Vec<Segment>),
    /// Accesses that are not constant, from left to right.
    Access(Box<Ast>, Vec<(Access, Range<usize>)>),
    Unary(Unary, Box<Ast>),
    /// Operators of one precedence, from left to right.
    Chain(Box<Ast>, Vec<(Binary, Ast)>),
    Ternary(Box<Ast>, Box<Ast>, Box<Ast>),
    Elvis(Box<Ast>, Box<Ast>),
    List(Vec<Ast>),
    Map(Vec<(Ast, Ast)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Access {
    Child(Segment),
    Index(Ast),
    Call(Arc<str>, Vec<Ast>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Minus,
    Plus,
    Empty,
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Eq,
    Ne,
    Match,
    NoMatch,
    Starts,
    NotStarts,
    Ends,
    NotEnds,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

impl Binary {
    /// The operator of a token, if it is one.
    pub(crate) fn of(text: &str) -> Option<Binary> {
        Some(match text {
            "||" | "or" => Binary::Or,
            "&&" | "and" => Binary::And,
            "==" | "eq" => Binary::Eq,
            "!=" | "ne" => Binary::Ne,
            "=~" => Binary::Match,
            "!~" => Binary::NoMatch,
            "=^" => Binary::Starts,
            "!^" => Binary::NotStarts,
            "=$" => Binary::Ends,
            "!$" => Binary::NotEnds,
            "<" | "lt" => Binary::Lt,
            "<=" | "le" => Binary::Le,
            ">" | "gt" => Binary::Gt,
            ">=" | "ge" => Binary::Ge,
            "+" => Binary::Add,
            "-" => Binary::Sub,
            "*" => Binary::Mul,
            "/" | "div" => Binary::Div,
            "%" | "mod" => Binary::Mod,
            _ => return None,
        })
    }

    /// Binds tighter the higher it is.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Binary::Or => 0,
            Binary::And => 1,
            Binary::Eq
            | Binary::Ne
            | Binary::Match
            | Binary::NoMatch
            | Binary::Starts
            | Binary::NotStarts
            | Binary::Ends
            | Binary::NotEnds => 2,
            Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge => 3,
            Binary::Add | Binary::Sub => 4,
            Binary::Mul | Binary::Div | Binary::Mod => 5,
        }
    }

    /// How it is written, for messages.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Binary::Or => "||",
            Binary::And => "&&",
            Binary::Eq => "==",
            Binary::Ne => "!=",
            Binary::Match => "=~",
            Binary::NoMatch => "!~",
            Binary::Starts => "=^",
            Binary::NotStarts => "!^",
            Binary::Ends => "=$",
            Binary::NotEnds => "!$",
            Binary::Lt => "<",
            Binary::Le => "<=",
            Binary::Gt => ">",
            Binary::Ge => ">=",
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::Mod => "%",
        }
    }
}
