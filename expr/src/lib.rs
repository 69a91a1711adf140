//! Expressions: scanner, values and evaluator. Pure: no I/O, no clock, no random numbers (DESIGN D12).
//!
//! A pipeline text holds blocks, `<+…>`. There are two modes (pipeline.md §3.2):
//!
//! * [`render`]: string fields. Every block is replaced by the text of its value.
//! * [`evaluate`]: conditions, assertions and non-string fields. The text is one JEXL expression in which each block is
//!   a typed operand.
//!
//! ```text
//! text --scan--> parts --Source (splice)--> text with holes --lex, parse--> Ast --Evaluator + Scope--> Value
//! ```
//! Names come from a [`Scope`]; functors (`json`, `xml`, `regex`, `shell`, `datetime`, `secrets`) are built in. A secret
//! is never known here: `secrets.getValue("ref")` gives the placeholder `${ngSecretManager.obtain("ref", TOKEN)}`, which
//! the agent replaces (the same form as `proto::text::placeholder`).
//!
//! Nothing here panics, whatever the input; work is linear in text and data, and bounded by the limits below.

mod ast;
mod error;
mod eval;
mod functors;
mod jsonpath;
mod lex;
mod methods;
mod moment;
mod nearest;
mod ops;
mod parse;
mod references;
mod regexes;
mod resolve;
pub mod scan;
mod scope;
mod source;
mod value;
mod xml;

pub use error::{ExprError, Kind};
pub use moment::{Moment, Style};
pub use nearest::nearest;
pub use references::{Reference, Target, references};
pub use scope::{Lookup, MapScope, Scope, alias};
pub use value::{Map, Segment, Str, Value, path_text};

use eval::{Evaluator, always_raises};
use scan::Part;

/// Blocks may nest this deep.
pub const MAX_NESTING: usize = 50;
/// A value that holds expressions may lead to another such value at most this often (pipeline.md §3.2).
pub const MAX_DEPTH: usize = 15;
/// The longest text an expression may make, bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// Text that one call may produce altogether, bytes. Bounds values that double one another.
const MAX_WORK: usize = 64 << 20;
/// What every secret placeholder begins with, up to the quoted name.
pub const PLACEHOLDER_HEAD: &str = "${ngSecretManager.obtain(";

/// What an evaluation needs from outside.
pub struct Context<'a> {
    /// Where names come from.
    pub scope: &'a dyn Scope,
    /// What `datetime` and `currentTime` say: epoch milliseconds.
    pub now_ms: i64,
    /// The execution's token that secret placeholders carry.
    pub secret_token: i64,
}

/// What becomes of a block without a value (pipeline.md §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is null, or the text `null`.
    Null,
    /// It stays as written: Http, approvals, tags, manifests.
    Keep,
    /// It is an error that lists every such name: policies, identities, deploy-critical fields.
    Throw,
}

/// Replaces every block of `text` by the text of its value.
///
/// **Errors**: [`Kind::Unresolved`] with every name only under [`Mode::Throw`]; every other kind under each mode.
pub fn render(text: &str, context: &Context<'_>, mode: Mode) -> Result<String, ExprError> {
    match render_text(text, context, mode)? {
        Value::Str(s) => Ok(s.text.to_string()),
        other => Ok(other.to_string()),
    }
}

/// Like [`render`], but a text that is one single block keeps the type of its value, and text keeps its taint mark.
/// An unresolved single block is [`Value::Null`] under [`Mode::Null`].
///
/// A rendered value that is stored and looked up again later must come back through a [`Scope`] as
/// [`Value::into_tainted`], so that what it took in from outside is not resolved then.
pub fn render_value(text: &str, context: &Context<'_>, mode: Mode) -> Result<Value, ExprError> {
    if !scan::has_blocks(text) {
        return render_text(text, context, mode);
    }
    let parts = scan::scan(text)?;
    match scan::single(text, &parts) {
        Some(_) => evaluate_parts(text, &parts, context, mode),
        None => render_parts(text, &parts, context, mode),
    }
}

fn render_text(text: &str, context: &Context<'_>, mode: Mode) -> Result<Value, ExprError> {
    if !scan::has_blocks(text) {
        refuse_forged(text, 0)?;
        return Ok(Value::text(text));
    }
    render_parts(text, &scan::scan(text)?, context, mode)
}

fn render_parts(text: &str, parts: &[Part], context: &Context<'_>, mode: Mode) -> Result<Value, ExprError> {
    let mut evaluator = Evaluator::new(context);
    let mut out = String::with_capacity(text.len());
    let mut tainted = false;
    let mut unresolved: Option<ExprError> = None;
    for part in parts {
        let block = match part {
            Part::Text(range) => {
                let literal = text.get(range.clone()).unwrap_or("");
                refuse_forged(literal, range.start)?;
                out.push_str(literal);
                continue;
            }
            Part::Block(block) => block,
        };
        evaluator.nulls_in_text.clear();
        let result = match evaluator.block(text, block) {
            Ok(_) if mode != Mode::Null && !evaluator.nulls_in_text.is_empty() => {
                let paths = std::mem::take(&mut evaluator.nulls_in_text);
                let message = format!("`{}` has no value", paths.join("`, `"));
                Err(ExprError::new(Kind::Unresolved(paths), message, block.span.clone()))
            }
            other => other,
        };
        match result {
            Ok(value) => {
                tainted |= value.is_tainted();
                let value = value.to_string();
                evaluator.spend(value.len(), &block.span)?;
                out.push_str(&value);
            }
            Err(error) if !matches!(error.kind, Kind::Unresolved(_)) => return Err(error),
            Err(_) if mode == Mode::Null => out.push_str("null"),
            Err(_) if mode == Mode::Keep => out.push_str(text.get(block.span.clone()).unwrap_or("")),
            Err(error) => unresolved = Some(join(unresolved, error)),
        }
    }
    match unresolved {
        Some(error) => Err(error),
        None => Ok(Value::text_marked(out, tainted)),
    }
}

/// One error for all names without a value; it stands at the first.
fn join(first: Option<ExprError>, next: ExprError) -> ExprError {
    let Some(mut first) = first else { return next };
    if let (Kind::Unresolved(paths), Kind::Unresolved(more)) = (&mut first.kind, next.kind) {
        paths.extend(more);
        first.message = format!("{}; {}", first.message, next.message);
    }
    first
}

/// Evaluates `text` as one expression with typed operands. A whole text without a value is [`Value::Null`].
///
/// **Errors**: every kind but `Unresolved`.
pub fn evaluate(text: &str, context: &Context<'_>) -> Result<Value, ExprError> {
    evaluate_field(text, context, Mode::Null)
}

/// Like [`evaluate`]; `mode` says what becomes of a text without a value.
pub fn evaluate_field(text: &str, context: &Context<'_>, mode: Mode) -> Result<Value, ExprError> {
    evaluate_parts(text, &scan::scan(text)?, context, mode)
}

fn evaluate_parts(text: &str, parts: &[Part], context: &Context<'_>, mode: Mode) -> Result<Value, ExprError> {
    for part in parts {
        if let Part::Text(range) = part {
            refuse_forged(text.get(range.clone()).unwrap_or(""), range.start)?;
        }
    }
    let mut evaluator = Evaluator::new(context);
    let result = match scan::single(text, parts) {
        Some(block) => evaluator.block(text, block),
        None => evaluator.unit(text, parts, false),
    };
    let nulls = std::mem::take(&mut evaluator.nulls_in_text);
    match result {
        Ok(_) if mode == Mode::Throw && !nulls.is_empty() => {
            let message = format!("`{}` has no value", nulls.join("`, `"));
            Err(ExprError::new(Kind::Unresolved(nulls), message, 0..text.len()))
        }
        Err(error) if matches!(error.kind, Kind::Unresolved(_)) && !always_raises(&error.kind) => {
            match mode {
                Mode::Null => Ok(Value::Null),
                Mode::Keep => Ok(Value::text(text)),
                Mode::Throw => Err(error),
            }
        }
        other => other,
    }
}

/// Evaluates a condition or an assertion.
///
/// **Errors**: as [`evaluate`], and [`Kind::NotBoolean`] for a value that is neither true nor false.
pub fn evaluate_bool(text: &str, context: &Context<'_>) -> Result<bool, ExprError> {
    match evaluate(text, context)? {
        Value::Bool(truth) => Ok(truth),
        other => {
            let shown = ops::shorten(&other.to_string());
            let message = format!("expected true or false, found a {} ({shown})", other.type_name());
            Err(ExprError::new(Kind::NotBoolean, message, 0..text.len()))
        }
    }
}

/// Text that an author wrote must not hold a placeholder: only `secrets.getValue` makes them.
fn refuse_forged(literal: &str, offset: usize) -> Result<(), ExprError> {
    match literal.find(PLACEHOLDER_HEAD) {
        None => Ok(()),
        Some(at) => {
            let start = offset + at;
            let message = "write `<+secrets.getValue(\"name\")>` instead of a secret's placeholder";
            Err(ExprError::new(Kind::ForgedSecret, message, start..start + PLACEHOLDER_HEAD.len()))
        }
    }
}

#[cfg(test)]
mod tests;
