//! What a text names, without evaluating it: for the look-ahead before a run.

use crate::ast::{Access, Ast, Node};
use crate::error::ExprError;
use crate::functors::is_functor;
use crate::lex::Piece;
use crate::parse;
use crate::scan::{self, Block, Part};
use crate::source::{Source, UNKNOWN};
use crate::value::{Segment, Value};
use std::ops::Range;

/// What is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path. It ends before the first part that is known only at run time.
    Path(Vec<Segment>),
    /// A secret by its reference.
    Secret(String),
    /// A functor call: its name and method, such as `fileStore.getAsString`.
    Functor(String, String),
}

/// One name in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What is named.
    pub target: Target,
    /// Whether a part of it is known only at run time: the path is a beginning, or the secret's name is composed.
    pub dynamic: bool,
    /// Whether something stands in for a missing value: it is the left side of `?:`, a condition or in `empty`.
    pub optional: bool,
    /// Byte range in the text.
    pub span: Range<usize>,
}

/// Every name in the blocks of `text`, in their order. Blocks that are no valid expression name nothing.
///
/// **Errors**: `TooDeep` from the scanner.
pub fn references(text: &str) -> Result<Vec<Reference>, ExprError> {
    if !scan::has_blocks(text) {
        return Ok(Vec::new());
    }
    let parts = scan::scan(text)?;
    let mut found = Vec::new();
    for part in &parts {
        if let Part::Block(block) = part {
            in_block(text, block, false, &mut found);
        }
    }
    Ok(found)
}

fn in_block(text: &str, block: &Block, optional: bool, found: &mut Vec<Reference>) {
    let mut source = Source::new(text, &block.inner, true);
    let mut spliced = Vec::new();
    if source.needs_splicing() {
        let result = source.splice(&mut |inner, _| {
            spliced.push(inner);
            Ok(Some(UNKNOWN.to_string()))
        });
        match result {
            Ok(with_marks) => source = with_marks,
            Err(_) => return,
        }
    }
    for inner in spliced {
        in_block(text, inner, optional, found);
    }
    match parse::parse(&source) {
        Ok(ast) => walk(&Place { text, source: &source }, &ast, optional, found),
        // The names inside of nested blocks count even where the text around them is wrong.
        Err(_) => source.holes.iter().for_each(|(_, inner)| in_block(text, inner, optional, found)),
    }
}

struct Place<'a> {
    text: &'a str,
    source: &'a Source<'a>,
}

impl Place<'_> {
    fn hole(&self, hole: usize, optional: bool, found: &mut Vec<Reference>) {
        if let Some((_, block)) = self.source.holes.get(hole) {
            in_block(self.text, block, optional, found);
        }
    }
}

fn walk(place: &Place<'_>, ast: &Ast, optional: bool, found: &mut Vec<Reference>) {
    let span = || place.source.original(ast.at.clone());
    match &ast.node {
        Node::Literal(_) => {}
        Node::Template(pieces) => holes_of(place, pieces, optional, found),
        Node::Hole(hole) => place.hole(*hole, optional, found),
        Node::Path(path) => found.extend(path_reference(path, optional, span())),
        Node::Access(base, accesses) => {
            match (&base.node, accesses.first()) {
                (Node::Path(path), Some((Access::Call(method, arguments), _))) if is_call(path) => {
                    let name = path.first().map(ToString::to_string).unwrap_or_default();
                    found.push(call_reference(&name, method, arguments, optional, span()));
                }
                _ => {
                    let before = found.len();
                    walk(place, base, optional, found);
                    // What follows a constant path is known only at run time.
                    let computed = matches!(accesses.first(), Some((Access::Index(_), _)));
                    if computed && let Some(reference) = found.get_mut(before) {
                        reference.dynamic = true;
                    }
                }
            }
            for (access, _) in accesses {
                match access {
                    Access::Index(index) => walk(place, index, optional, found),
                    Access::Call(_, arguments) => {
                        arguments.iter().for_each(|a| walk(place, a, optional, found))
                    }
                    Access::Child(_) => {}
                }
            }
        }
        Node::Unary(operator, operand) => {
            walk(place, operand, optional || *operator == crate::ast::Unary::Empty, found);
        }
        Node::Chain(first, rest) => {
            walk(place, first, optional, found);
            rest.iter().for_each(|(_, operand)| walk(place, operand, optional, found));
        }
        Node::Ternary(condition, then, otherwise) => {
            walk(place, condition, true, found);
            walk(place, then, optional, found);
            walk(place, otherwise, optional, found);
        }
        Node::Elvis(first, second) => {
            walk(place, first, true, found);
            walk(place, second, optional, found);
        }
        Node::List(items) => items.iter().for_each(|item| walk(place, item, optional, found)),
        Node::Map(entries) => {
            for (key, value) in entries {
                walk(place, key, optional, found);
                walk(place, value, optional, found);
            }
        }
    }
}

fn holes_of(place: &Place<'_>, pieces: &[Piece], optional: bool, found: &mut Vec<Reference>) {
    for piece in pieces {
        if let Piece::Hole(hole) = piece {
            place.hole(*hole, optional, found);
        }
    }
}

fn is_call(path: &[Segment]) -> bool {
    path.len() == 1 && path.first().and_then(Segment::name).is_some_and(is_functor)
}

fn path_reference(path: &[Segment], optional: bool, span: Range<usize>) -> Option<Reference> {
    let known = |segment: &&Segment| segment.name().is_none_or(|name| !name.contains(UNKNOWN));
    let fixed: Vec<Segment> = path.iter().take_while(known).cloned().collect();
    let dynamic = fixed.len() < path.len();
    let is_functor_name = path.len() == 1 && path.first().and_then(Segment::name).is_some_and(is_functor);
    (!fixed.is_empty() && !is_functor_name).then_some(Reference {
        target: Target::Path(fixed),
        dynamic,
        optional,
        span,
    })
}

fn call_reference(
    name: &str,
    method: &str,
    arguments: &[Ast],
    optional: bool,
    span: Range<usize>,
) -> Reference {
    let constant = match arguments.first().map(|argument| &argument.node) {
        Some(Node::Literal(Value::Str(s))) => Some(s.text.to_string()),
        _ => None,
    };
    let (target, dynamic) = match (name, method) {
        ("secrets", "getValue") => (Target::Secret(constant.clone().unwrap_or_default()), constant.is_none()),
        _ => (Target::Functor(name.to_owned(), method.to_owned()), false),
    };
    Reference { target, dynamic, optional, span }
}
