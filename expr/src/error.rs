//! Why an expression could not be evaluated, and where.

use std::fmt;
use std::ops::Range;

/// What kind of fault it is. Nothing is decided on message text; decide on this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Names without a value. The paths as written, in their order.
    Unresolved(Vec<String>),
    /// A bare name that nothing defines.
    Undefined(String),
    /// The text is no expression.
    Syntax,
    /// An operator or method met a value of a type it cannot take, or an argument out of range.
    Type,
    /// An unknown method or functor; also everything that reflection could reach.
    NotAllowed,
    /// A regular expression that is broken, too large, or needs look-around or back-references.
    Regex,
    /// A functor refused its arguments (`json.object` on text that is no JSON).
    Functor,
    /// A value that names itself.
    SelfReference,
    /// Nested deeper than [`crate::MAX_NESTING`] or resolved more than [`crate::MAX_DEPTH`] times over.
    TooDeep,
    /// The result or the work would be larger than the limits allow.
    TooLarge,
    /// A condition that gave something else than true or false.
    NotBoolean,
    /// Text that imitates a secret placeholder.
    ForgedSecret,
    /// The scope refused the name (a missing runtime input).
    Refused,
}

/// A fault with its place in the text that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// What kind of fault.
    pub kind: Kind,
    /// What is wrong, for people; a fragment that fits behind "failed to evaluate: ".
    pub message: String,
    /// Byte range in the text passed to `render` or `evaluate`. A fault inside of a value that a name stands for has
    /// the range of that name.
    pub span: Range<usize>,
}

impl ExprError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>, span: Range<usize>) -> Self {
        ExprError { kind, message: message.into(), span }
    }

    /// Whether the text merely names something without a value; every other kind is a mistake in it.
    pub fn is_unresolved(&self) -> bool {
        matches!(self.kind, Kind::Unresolved(_) | Kind::Undefined(_))
    }

    /// The line of `text` in which the fault lies, with a caret line below it. `text` is what was evaluated.
    pub fn caret(&self, text: &str) -> String {
        let start = floor(text, self.span.start);
        let end = floor(text, self.span.end).max(start);
        let before = text.get(..start).unwrap_or("");
        let line_at = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text.get(line_at..).unwrap_or("").lines().next().unwrap_or("");
        let column = text.get(line_at..start).unwrap_or("").chars().count();
        let width = text.get(start..end).unwrap_or("").lines().next().unwrap_or("").chars().count().max(1);
        format!("{line}\n{}{}", " ".repeat(column), "^".repeat(width))
    }
}

/// The nearest character border at or below `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExprError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_fault_in_its_line() {
        let error = ExprError::new(Kind::Syntax, "x", 6..9);
        assert_eq!(error.caret("äb\nc def g"), "c def g\n ^^^".replace(" ^^^", "  ^^^"));
        assert_eq!(ExprError::new(Kind::Syntax, "x", 50..60).caret("ab"), "ab\n  ^");
    }
}
