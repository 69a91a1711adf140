//! The scanner: finds `<+…>` blocks (pipeline.md §3.1, byte for byte).
//!
//! ```text
//! text  := ( char | block )*            block := "<+" inner ">"
//! inner := ( block | "\>" | char-not-">" )*
//! ```
//! The first unescaped `>` closes; nested `<+` are counted; quotes protect nothing. An unclosed `<+` is literal text.

use crate::error::{ExprError, Kind};
use std::ops::Range;

/// One part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Literal text: its byte range.
    Text(Range<usize>),
    /// A block.
    Block(Block),
}

/// A `<+…>` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Byte range with `<+` and `>`.
    pub span: Range<usize>,
    /// What is inside. Escapes (`\>`) stand as written.
    pub inner: Vec<Part>,
}

impl Block {
    /// Whether another block stands inside.
    pub fn is_nested(&self) -> bool {
        self.inner.iter().any(|part| matches!(part, Part::Block(_)))
    }

    /// The text between `<+` and `>`.
    pub fn body<'t>(&self, text: &'t str) -> &'t str {
        let end = self.span.end.saturating_sub(1);
        text.get(self.span.start + 2..end).unwrap_or("")
    }
}

/// Whether a text holds anything to resolve.
pub fn has_blocks(text: &str) -> bool {
    text.contains("<+")
}

/// Splits a text into literal parts and blocks. The parts cover it without gap or overlap.
///
/// **Errors**: `TooDeep` for more than [`crate::MAX_NESTING`] open blocks.
pub fn scan(text: &str) -> Result<Vec<Part>, ExprError> {
    struct Frame {
        start: usize,
        parts: Vec<Part>,
    }
    fn flush(frames: &mut [Frame], from: usize, to: usize) {
        if let Some(frame) = frames.last_mut() {
            push_text(&mut frame.parts, from..to);
        }
    }
    let bytes = text.as_bytes();
    let mut frames = vec![Frame { start: 0, parts: Vec::new() }];
    let (mut at, mut text_from) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'<' if bytes.get(at + 1) == Some(&b'+') => {
                flush(&mut frames, text_from, at);
                if frames.len() > crate::MAX_NESTING {
                    let message = format!("expressions are nested deeper than {}", crate::MAX_NESTING);
                    return Err(ExprError::new(Kind::TooDeep, message, at..at + 2));
                }
                frames.push(Frame { start: at, parts: Vec::new() });
                at += 2;
                text_from = at;
            }
            b'\\' if frames.len() > 1 && bytes.get(at + 1) == Some(&b'>') => at += 2,
            b'>' if frames.len() > 1 => {
                flush(&mut frames, text_from, at);
                at += 1;
                text_from = at;
                if let Some(closed) = frames.pop()
                    && let Some(parent) = frames.last_mut()
                {
                    parent.parts.push(Part::Block(Block { span: closed.start..at, inner: closed.parts }));
                }
            }
            _ => at += 1,
        }
    }
    flush(&mut frames, text_from, text.len());
    let mut parts = Vec::new();
    for (depth, frame) in frames.into_iter().enumerate() {
        if depth > 0 {
            push_text(&mut parts, frame.start..frame.start + 2);
        }
        for part in frame.parts {
            match part {
                Part::Text(range) => push_text(&mut parts, range),
                block @ Part::Block(_) => parts.push(block),
            }
        }
    }
    Ok(parts)
}

fn push_text(parts: &mut Vec<Part>, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Text(last)) if last.end == range.start => last.end = range.end,
        _ => parts.push(Part::Text(range)),
    }
}

/// The only block of a text that holds nothing else but white space around it.
pub fn single<'p>(text: &str, parts: &'p [Part]) -> Option<&'p Block> {
    let mut found = None;
    for part in parts {
        match part {
            Part::Block(block) if found.is_none() => found = Some(block),
            Part::Text(range) if text.get(range.clone()).is_some_and(|t| t.trim().is_empty()) => {}
            _ => return None,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(text: &str) -> String {
        fn go(text: &str, parts: &[Part], out: &mut String) {
            for part in parts {
                match part {
                    Part::Text(range) => out.push_str(&text[range.clone()]),
                    Part::Block(block) => {
                        out.push('{');
                        go(text, &block.inner, out);
                        out.push('}');
                    }
                }
            }
        }
        let mut out = String::new();
        go(text, &scan(text).unwrap(), &mut out);
        out
    }

    #[test]
    fn blocks_nest_and_the_first_unescaped_bracket_closes() {
        for (text, shape) in [
            ("plain > text", "plain > text"),
            ("a<+b>c", "a{b}c"),
            ("<+<+n> > 5>", "{{n} } 5>"),
            (r"<+<+n> \> 5>", r"{{n} \> 5}"),
            (r#"<+"a>b">"#, r#"{"a}b">"#),
            ("a <+ b", "a <+ b"),
            ("<+a <+b>", "<+a {b}"),
            ("<+a <+b> <+c", "<+a {b} <+c"),
            (r"\<+a>", r"\{a}"),
            (r"x \> y", r"x \> y"),
            ("<+>", "{}"),
            ("<<+a>>", "<{a}>"),
        ] {
            assert_eq!(show(text), shape, "{text}");
        }
    }

    #[test]
    fn nesting_is_limited_in_bounded_time() {
        let text = "<+".repeat(1_000_000);
        assert_eq!(scan(&text).unwrap_err().kind, Kind::TooDeep);
    }

    proptest! {
        #[test]
        fn the_parts_cover_the_text(text in r"(<\+|>|\\>|\\|[a-z ä]){0,60}") {
            fn cover(parts: &[Part], from: usize, to: usize) -> usize {
                let mut at = from;
                for part in parts {
                    match part {
                        Part::Text(range) => {
                            assert_eq!(range.start, at);
                            at = range.end;
                        }
                        Part::Block(block) => {
                            assert_eq!(block.span.start, at);
                            let end = cover(&block.inner, at + 2, block.span.end - 1);
                            assert_eq!(end, block.span.end - 1);
                            at = block.span.end;
                        }
                    }
                }
                assert!(at <= to);
                at
            }
            let parts = scan(&text).unwrap();
            prop_assert_eq!(cover(&parts, 0, text.len()), text.len());
        }
    }
}
