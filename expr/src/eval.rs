//! The evaluator: blocks, names, recursive resolution, and the limits on all of it.

use crate::ast::{Access, Ast, Binary, Node, Unary};
use crate::error::{ExprError, Kind};
use crate::lex::Piece;
use crate::ops::{self, Fault};
use crate::scan::{Block, Part};
use crate::scope::Lookup;
use crate::source::{Source, is_spliceable};
use crate::value::{Map, Segment, Value, path_text};
use crate::{Context, MAX_WORK, functors, methods, parse};
use std::ops::Range;
use std::sync::Arc;

/// Calls of the evaluator inside of each other, over all nested blocks and values. Bounds the stack.
const MAX_CALLS: usize = 150;

pub(crate) struct Evaluator<'c> {
    pub(crate) context: &'c Context<'c>,
    /// Paths whose values are being resolved, outermost first.
    pub(crate) active: Vec<Vec<Segment>>,
    calls: usize,
    work: usize,
    /// Names without a value since the current block began.
    pub(crate) missing: Vec<String>,
    /// Names without a value that were written as `null` into text.
    pub(crate) nulls_in_text: Vec<String>,
}

/// One expression with the text it came from.
struct Unit<'u> {
    original: &'u str,
    source: &'u Source<'u>,
}

impl Unit<'_> {
    fn fault(&self, (kind, message): Fault, at: &Range<usize>) -> ExprError {
        ExprError::new(kind, message, self.source.original(at.clone()))
    }
}

impl<'c> Evaluator<'c> {
    pub(crate) fn new(context: &'c Context<'c>) -> Self {
        Evaluator {
            context,
            active: Vec::new(),
            calls: 0,
            work: 0,
            missing: Vec::new(),
            nulls_in_text: Vec::new(),
        }
    }

    /// Takes note of `bytes` of produced text.
    pub(crate) fn spend(&mut self, bytes: usize, span: &Range<usize>) -> Result<(), ExprError> {
        self.work = self.work.saturating_add(bytes);
        if self.work > MAX_WORK {
            let message = format!("resolving this would take more than {} MiB of text", MAX_WORK >> 20);
            return Err(ExprError::new(Kind::TooLarge, message, span.clone()));
        }
        Ok(())
    }

    /// The value of one block. A block without a value is an error of kind `Unresolved`; so is any fault inside of a
    /// block without nested ones, unless it is of a kind that always raises (pipeline.md §3.3).
    pub(crate) fn block(&mut self, original: &str, block: &Block) -> Result<Value, ExprError> {
        let outer = std::mem::take(&mut self.missing);
        let result = self.unit(original, &block.inner, true);
        let mut missing = std::mem::replace(&mut self.missing, outer);
        let unresolved = |mut paths: Vec<String>, reason: Option<String>| {
            if paths.is_empty() {
                paths.push(block.body(original).trim().to_owned());
            }
            paths.dedup();
            let message = match reason {
                Some(reason) => format!("`{}` cannot be resolved: {reason}", paths.join("`, `")),
                None => format!("`{}` has no value", paths.join("`, `")),
            };
            ExprError::new(Kind::Unresolved(paths), message, block.span.clone())
        };
        match result {
            Ok(Value::Null) => Err(unresolved(missing, None)),
            Ok(value) => Ok(value),
            Err(error) => match &error.kind {
                Kind::Unresolved(paths) => {
                    missing.extend(paths.iter().cloned());
                    Err(unresolved(missing, None))
                }
                Kind::Undefined(name) if !block.is_nested() => Err(unresolved(vec![name.clone()], None)),
                Kind::Syntax | Kind::Type | Kind::NotAllowed | Kind::Regex if !block.is_nested() => {
                    Err(unresolved(missing, Some(error.message)))
                }
                _ => Err(error),
            },
        }
    }

    /// Evaluates `parts` of `original` as one expression.
    pub(crate) fn unit(
        &mut self,
        original: &str,
        parts: &[Part],
        in_block: bool,
    ) -> Result<Value, ExprError> {
        self.deeper(0..original.len(), |this| {
            let mut source = Source::new(original, parts, in_block);
            if source.needs_splicing() {
                source = source.splice(&mut |block, only_dot| this.splice(original, block, only_dot))?;
            }
            let ast = parse::parse(&source)?;
            this.eval(&Unit { original, source: &source }, &ast)
        })
    }

    /// Runs `inner` one call deeper.
    fn deeper<T>(
        &mut self,
        span: Range<usize>,
        inner: impl FnOnce(&mut Self) -> Result<T, ExprError>,
    ) -> Result<T, ExprError> {
        if self.calls >= MAX_CALLS {
            return Err(ExprError::new(Kind::TooDeep, "the expression is nested too deep", span));
        }
        self.calls += 1;
        let result = inner(self);
        self.calls -= 1;
        result
    }

    fn splice(&mut self, original: &str, block: &Block, only_dot: bool) -> Result<Option<String>, ExprError> {
        let value = self.block(original, block)?;
        // A list or map followed by `.name` is an operand and not a piece of a path.
        if only_dot && !matches!(value, Value::Str(_)) {
            return Ok(None);
        }
        let text = value.to_string();
        if is_spliceable(&text) {
            return Ok(Some(text));
        }
        let name = block.body(original).trim();
        let message = format!(
            "the value of `{name}` cannot stand in a path; expected letters, digits, `_`, `-` and `.`, found \"{}\"",
            ops::shorten(&text)
        );
        Err(ExprError::new(Kind::Unresolved(vec![name.to_owned()]), message, block.span.clone()))
    }

    fn eval(&mut self, unit: &Unit<'_>, ast: &Ast) -> Result<Value, ExprError> {
        match &ast.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Hole(hole) => self.hole(unit, *hole),
            Node::Path(path) => self.path(unit, path, &ast.at),
            Node::Template(pieces) => self.template(unit, pieces, &ast.at),
            _ => self.deeper(unit.source.original(ast.at.clone()), |this| this.compound(unit, ast)),
        }
    }

    fn compound(&mut self, unit: &Unit<'_>, ast: &Ast) -> Result<Value, ExprError> {
        match &ast.node {
            Node::Access(base, accesses) => self.access(unit, base, accesses),
            Node::Unary(Unary::Empty, operand) => {
                let value = self.eval(unit, operand);
                Ok(Value::Bool(or_null(value)?.is_none_or(|value| ops::is_empty(&value))))
            }
            Node::Unary(operator, operand) => {
                let value = self.eval(unit, operand)?;
                match operator {
                    Unary::Not => ops::truth(&value).map(|truth| Value::Bool(!truth)),
                    Unary::Minus => ops::negate(&value),
                    Unary::Plus => ops::plus(&value),
                    Unary::Size | Unary::Empty => ops::size(&value),
                }
                .map_err(|fault| unit.fault(fault, &ast.at))
            }
            Node::Chain(first, rest) => self.chain(unit, first, rest, &ast.at),
            Node::Ternary(condition, then, otherwise) => {
                let value = self.eval(unit, condition);
                let truth = match or_null(value)? {
                    None => false,
                    Some(value) => ops::truth(&value).map_err(|fault| unit.fault(fault, &condition.at))?,
                };
                self.eval(unit, if truth { then } else { otherwise })
            }
            Node::Elvis(first, second) => {
                let value = self.eval(unit, first);
                match or_null(value)? {
                    Some(value) if value.as_str() != Some("") => Ok(value),
                    _ => self.eval(unit, second),
                }
            }
            Node::List(items) => {
                let items = items.iter().map(|item| self.eval(unit, item)).collect::<Result<_, _>>()?;
                Ok(Value::list(items))
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let key = self.eval(unit, key)?.to_string();
                    map.insert(Arc::from(key), self.eval(unit, value)?);
                }
                Ok(Value::Map(Arc::new(map)))
            }
            Node::Literal(_) | Node::Hole(_) | Node::Path(_) | Node::Template(_) => self.eval(unit, ast),
        }
    }

    fn chain(
        &mut self,
        unit: &Unit<'_>,
        first: &Ast,
        rest: &[(Binary, Ast)],
        at: &Range<usize>,
    ) -> Result<Value, ExprError> {
        let mut left = self.eval(unit, first)?;
        for (operator, operand) in rest {
            let so_far = at.start..operand.at.end;
            if matches!(operator, Binary::And | Binary::Or) {
                let truth = ops::truth(&left).map_err(|fault| unit.fault(fault, &so_far))?;
                if truth == (*operator == Binary::Or) {
                    left = Value::Bool(truth);
                    continue;
                }
            }
            let right = self.eval(unit, operand)?;
            left = ops::binary(*operator, &left, &right).map_err(|fault| unit.fault(fault, &so_far))?;
            if let Some(text) = left.as_str() {
                self.spend(text.len(), &unit.source.original(so_far))?;
            }
        }
        Ok(left)
    }

    /// A nested block as operand: without a value it is null, and its names are remembered.
    fn hole(&mut self, unit: &Unit<'_>, hole: usize) -> Result<Value, ExprError> {
        let Some((_, block)) = unit.source.holes.get(hole) else { return Ok(Value::Null) };
        match self.block(unit.original, block) {
            Err(ExprError { kind: Kind::Unresolved(paths), .. }) => {
                self.missing.extend(paths);
                Ok(Value::Null)
            }
            other => other,
        }
    }

    fn template(&mut self, unit: &Unit<'_>, pieces: &[Piece], at: &Range<usize>) -> Result<Value, ExprError> {
        let mut out = String::new();
        let mut tainted = false;
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Hole(hole) => {
                    let before = self.missing.len();
                    let value = self.hole(unit, *hole)?;
                    if value.is_null() {
                        let names: Vec<String> = self.missing.get(before..).unwrap_or(&[]).to_vec();
                        self.nulls_in_text.extend(names);
                    }
                    tainted |= value.is_tainted();
                    out.push_str(&value.to_string());
                }
            }
            self.spend(out.len().min(4096), &unit.source.original(at.clone()))?;
        }
        if out.len() > crate::MAX_TEXT {
            return Err(unit.fault(ops::too_large(), at));
        }
        Ok(Value::text_marked(out, tainted))
    }

    fn access(
        &mut self,
        unit: &Unit<'_>,
        base: &Ast,
        accesses: &[(Access, Range<usize>)],
    ) -> Result<Value, ExprError> {
        let mut rest = accesses;
        let mut value = match (&base.node, accesses) {
            (Node::Path(path), [(Access::Call(method, arguments), at), others @ ..]) if path.len() == 1 => {
                let arguments = self.arguments(unit, arguments)?;
                let name = path.first().and_then(Segment::name).unwrap_or("");
                let at = base.at.start..at.end;
                rest = others;
                match self.functor(unit, name, method, &arguments, &at) {
                    Some(result) => result?,
                    None => {
                        let target = self.path(unit, path, &base.at)?;
                        self.method(unit, &target, method, &arguments, &at)?
                    }
                }
            }
            _ => self.eval(unit, base)?,
        };
        for (access, at) in rest {
            let at = base.at.start..at.end;
            value = match access {
                Access::Call(method, arguments) => {
                    let arguments = self.arguments(unit, arguments)?;
                    self.method(unit, &value, method, &arguments, &at)?
                }
                Access::Child(segment) => self.child(unit, &value, segment, &at)?,
                Access::Index(index) => {
                    let segment = match self.eval(unit, index)? {
                        Value::Int(i) => Segment::Index(i),
                        other => Segment::Name(Arc::from(other.to_string())),
                    };
                    self.child(unit, &value, &segment, &at)?
                }
            };
        }
        Ok(value)
    }

    fn arguments(&mut self, unit: &Unit<'_>, arguments: &[Ast]) -> Result<Vec<Value>, ExprError> {
        arguments.iter().map(|argument| self.eval(unit, argument)).collect()
    }

    fn functor(
        &mut self,
        unit: &Unit<'_>,
        name: &str,
        method: &str,
        arguments: &[Value],
        at: &Range<usize>,
    ) -> Option<Result<Value, ExprError>> {
        let result = functors::call(name, method, arguments, self.context).or_else(|| {
            let result = self.context.scope.call(name, method, arguments)?;
            Some(result.map_err(|message| (Kind::Functor, message)))
        })?;
        Some(result.map_err(|fault| unit.fault(fault, at)).and_then(|value| {
            let span = unit.source.original(at.clone());
            self.spend(value.as_str().map_or(0, str::len), &span)?;
            Ok(value)
        }))
    }

    fn method(
        &mut self,
        unit: &Unit<'_>,
        target: &Value,
        method: &str,
        arguments: &[Value],
        at: &Range<usize>,
    ) -> Result<Value, ExprError> {
        let value = methods::call(target, method, arguments).map_err(|fault| unit.fault(fault, at))?;
        self.spend(value.as_str().map_or(0, str::len), &unit.source.original(at.clone()))?;
        Ok(value)
    }

    fn child(
        &mut self,
        unit: &Unit<'_>,
        value: &Value,
        segment: &Segment,
        at: &Range<usize>,
    ) -> Result<Value, ExprError> {
        let child = value.child(segment).map_err(|message| unit.fault((Kind::Type, message), at))?;
        Ok(child.unwrap_or_default())
    }

    /// The value of a name.
    fn path(&mut self, unit: &Unit<'_>, path: &[Segment], at: &Range<usize>) -> Result<Value, ExprError> {
        let span = unit.source.original(at.clone());
        let (mut value, used) = match self.context.scope.lookup(path) {
            Lookup::Found { value, used } => (value, used.clamp(1, path.len())),
            Lookup::Missing => {
                self.missing.push(path_text(path));
                return Ok(Value::Null);
            }
            Lookup::Refused(message) => return Err(ExprError::new(Kind::Refused, message, span)),
            Lookup::Undefined => {
                let first = path.first().and_then(Segment::name).unwrap_or("");
                match functors::builtin(first, self.context) {
                    Some(value) => (value, 1),
                    None => {
                        let text = path_text(path);
                        let message = format!("`{text}` is not defined");
                        return Err(ExprError::new(Kind::Undefined(text), message, span));
                    }
                }
            }
        };
        value = self.resolve(value, path.get(..used).unwrap_or(path), &span)?;
        for (index, segment) in path.iter().enumerate().skip(used) {
            let child = value.child(segment).map_err(|message| {
                ExprError::new(Kind::Type, format!("`{}`: {message}", path_text(path)), span.clone())
            })?;
            value = self.resolve(child.unwrap_or_default(), path.get(..=index).unwrap_or(path), &span)?;
        }
        if value.is_null() {
            self.missing.push(path_text(path));
        }
        self.resolve_deep(value, path, &span, 0)
    }
}

/// The value, or `None` for null and for a name that nothing defines: `?:`, `? :` and `empty` treat them alike.
fn or_null(result: Result<Value, ExprError>) -> Result<Option<Value>, ExprError> {
    match result {
        Ok(Value::Null) | Err(ExprError { kind: Kind::Undefined(_), .. }) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(error),
    }
}

/// Kinds that are never taken for "no value".
pub(crate) fn always_raises(kind: &Kind) -> bool {
    match kind {
        Kind::Functor
        | Kind::SelfReference
        | Kind::TooDeep
        | Kind::TooLarge
        | Kind::NotBoolean
        | Kind::ForgedSecret
        | Kind::Refused => true,
        Kind::Unresolved(_)
        | Kind::Undefined(_)
        | Kind::Syntax
        | Kind::Type
        | Kind::NotAllowed
        | Kind::Regex => false,
    }
}
