//! Values that hold expressions themselves: recursive resolution, its limits, and the guard against forged placeholders.

use crate::error::{ExprError, Kind};
use crate::eval::{Evaluator, always_raises};
use crate::ops;
use crate::scan::{self, Part};
use crate::value::{Map, Segment, Str, Value, path_text};
use crate::{MAX_DEPTH, PLACEHOLDER_HEAD};
use std::ops::Range;
use std::sync::Arc;

/// What resolving a value costs beside its length, so that many short values are bounded too.
const RESOLUTION_COST: usize = 1024;

impl Evaluator<'_> {
    /// Resolves a string that holds expressions; anything else stays as it is.
    pub(crate) fn resolve(
        &mut self,
        value: Value,
        path: &[Segment],
        span: &Range<usize>,
    ) -> Result<Value, ExprError> {
        let Value::Str(text) = &value else { return Ok(value) };
        check_forged(text, self.context.secret_token, path, span)?;
        if text.tainted || !scan::has_blocks(&text.text) {
            return Ok(value);
        }
        let name = path_text(path);
        if self.active.iter().any(|active| active == path) {
            let message = format!("`{name}` refers to itself (infinite)");
            return Err(ExprError::new(Kind::SelfReference, message, span.clone()));
        }
        if self.active.len() >= MAX_DEPTH {
            let message = format!("`{name}` is resolved more than {MAX_DEPTH} values deep (infinite?)");
            return Err(ExprError::new(Kind::TooDeep, message, span.clone()));
        }
        self.spend(text.text.len() + RESOLUTION_COST, span)?;
        self.active.push(path.to_vec());
        let resolved = self.value_text(&text.text);
        self.active.pop();
        resolved.map_err(|error| match error.kind {
            // Faults inside of a value are shown at the name that leads to it.
            Kind::Undefined(ref inner) => {
                let paths = vec![inner.clone()];
                ExprError::new(
                    Kind::Unresolved(paths),
                    format!("in `{name}`: {}", error.message),
                    span.clone(),
                )
            }
            kind if self.active.is_empty() => {
                ExprError::new(kind, format!("in `{name}`: {}", error.message), span.clone())
            }
            kind => ExprError::new(kind, error.message, span.clone()),
        })
    }

    /// A string value with expressions: one block gives its value; text that is an expression around blocks is
    /// evaluated; everything else is concatenated (pipeline.md §3.2).
    fn value_text(&mut self, text: &str) -> Result<Value, ExprError> {
        let parts = scan::scan(text)?;
        if let Some(block) = scan::single(text, &parts) {
            return match self.block(text, block) {
                Err(ExprError { kind: Kind::Unresolved(paths), .. }) => {
                    self.missing.extend(paths);
                    Ok(Value::Null)
                }
                other => other,
            };
        }
        if looks_like_expression(text, &parts) {
            match self.unit(text, &parts, false) {
                Ok(value) => return Ok(value),
                Err(error) if always_raises(&error.kind) => return Err(error),
                Err(_) => {}
            }
        }
        self.concat(text, &parts)
    }

    /// Literal parts and the text of blocks, one behind the other.
    fn concat(&mut self, text: &str, parts: &[Part]) -> Result<Value, ExprError> {
        let mut out = String::new();
        let mut tainted = false;
        for part in parts {
            match part {
                Part::Text(range) => out.push_str(text.get(range.clone()).unwrap_or("")),
                Part::Block(block) => match self.block(text, block) {
                    Ok(value) => {
                        tainted |= value.is_tainted();
                        out.push_str(&value.to_string());
                    }
                    Err(ExprError { kind: Kind::Unresolved(paths), .. }) => {
                        self.nulls_in_text.extend(paths);
                        out.push_str("null");
                    }
                    Err(error) => return Err(error),
                },
            }
            if out.len() > crate::MAX_TEXT {
                let (kind, message) = ops::too_large();
                return Err(ExprError::new(kind, message, 0..text.len()));
            }
        }
        self.spend(out.len(), &(0..text.len()))?;
        Ok(Value::text_marked(out, tainted))
    }

    /// Resolves the strings inside of a list or map that is used as a whole.
    pub(crate) fn resolve_deep(
        &mut self,
        value: Value,
        path: &[Segment],
        span: &Range<usize>,
        depth: usize,
    ) -> Result<Value, ExprError> {
        const MAX_VALUE_DEPTH: usize = 128;
        if depth > MAX_VALUE_DEPTH {
            return Err(ExprError::new(Kind::TooDeep, "the value is nested too deep", span.clone()));
        }
        if !matches!(value, Value::List(_) | Value::Map(_)) || !needs_resolving(&value, depth) {
            return Ok(value);
        }
        let mut resolve = |segment: Segment, item: &Value| {
            let mut path = path.to_vec();
            path.push(segment);
            let item = self.resolve(item.clone(), &path, span)?;
            self.resolve_deep(item, &path, span, depth + 1)
        };
        match &value {
            Value::List(items) => {
                let items = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| resolve(Segment::Index(crate::value::count(i)), item))
                    .collect::<Result<_, _>>()?;
                Ok(Value::list(items))
            }
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, item)| Ok((Arc::clone(key), resolve(Segment::Name(Arc::clone(key)), item)?)))
                    .collect::<Result<Map, ExprError>>()?;
                Ok(Value::Map(Arc::new(entries)))
            }
            _ => Ok(value),
        }
    }
}

fn needs_resolving(value: &Value, depth: usize) -> bool {
    const LIMIT: usize = 256;
    match value {
        Value::Str(s) => !s.tainted && (scan::has_blocks(&s.text) || s.text.contains(PLACEHOLDER_HEAD)),
        Value::List(items) => depth < LIMIT && items.iter().any(|item| needs_resolving(item, depth + 1)),
        Value::Map(entries) => depth < LIMIT && entries.values().any(|item| needs_resolving(item, depth + 1)),
        _ => false,
    }
}

/// Whether a value's text is meant as an expression around its blocks: it has a string literal, a comparison, a logical
/// operator or a ternary beside the blocks, or an arithmetic operator with white space on both sides. `tag-<+x>` and
/// `<+major>.<+minor>` are text.
fn looks_like_expression(text: &str, parts: &[Part]) -> bool {
    const STRONG: [&str; 9] = ["'", "\"", "==", "!=", "&&", "||", "?", "=~", "!~"];
    const SPACED: [&str; 7] = [" + ", " - ", " * ", " / ", " % ", " < ", " > "];
    const WORDS: [&str; 10] =
        [" eq ", " ne ", " lt ", " le ", " gt ", " ge ", " and ", " or ", " div ", " mod "];
    parts.iter().any(|part| match part {
        Part::Block(_) => false,
        Part::Text(range) => {
            // One character of context on each side, so that an operator at the border of a block is seen with the
            // white space that separates it.
            let literal = text.get(range.clone()).unwrap_or("");
            STRONG.iter().chain(&SPACED).chain(&WORDS).any(|sign| literal.contains(sign))
        }
    })
}

/// Placeholders may stand only in values that were rendered in this execution, so they carry its token, and never in
/// text from outside.
fn check_forged(text: &Str, token: i64, path: &[Segment], span: &Range<usize>) -> Result<(), ExprError> {
    let genuine = format!(", {token})}}");
    let mut rest = text.text.as_ref();
    while let Some(at) = rest.find(PLACEHOLDER_HEAD) {
        let body = rest.get(at + PLACEHOLDER_HEAD.len()..).unwrap_or("");
        let after_name = body.strip_prefix('"').and_then(|name| name.split_once('"')).map(|(_, after)| after);
        if text.tainted || !after_name.is_some_and(|after| after.starts_with(&genuine)) {
            let message = format!("the value of `{}` imitates a secret's placeholder", path_text(path));
            return Err(ExprError::new(Kind::ForgedSecret, message, span.clone()));
        }
        rest = body;
    }
    Ok(())
}
