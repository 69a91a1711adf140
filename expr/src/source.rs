//! The text of one JEXL expression: literal parts with holes where nested blocks stand.
//!
//! A hole is a typed operand. Where a hole touches path text (`stages.<+x>.name`), its value is spliced into the text
//! before it is read (pipeline.md §3.2), and only if it is made of `[A-Za-z0-9_.-]`, so that no value can bring code.

use crate::error::ExprError;
use crate::scan::{Block, Part};
use std::ops::Range;

/// Stands in the text where a hole is. Ordinary text may hold the character too; positions decide.
const MARK: char = '\u{FFFC}';

/// Stands for a spliced value that is not known (static scan); counts as an identifier character there.
pub(crate) const UNKNOWN: char = '\u{F8FF}';

/// Stands for a dash of a spliced value: part of a name there, and no minus.
pub(crate) const DASH: char = '\u{F8FE}';

/// One expression's text.
pub(crate) struct Source<'p> {
    /// The text with a [`MARK`] for each hole.
    pub(crate) text: String,
    /// Position of each mark with its block, ascending.
    pub(crate) holes: Vec<(usize, &'p Block)>,
    /// (position here, position in the original text), ascending; valid up to the next entry.
    map: Vec<(usize, usize)>,
}

impl<'p> Source<'p> {
    /// Joins `parts` of `original`. Inside of a block `\>` stands for `>`.
    pub(crate) fn new(original: &str, parts: &'p [Part], in_block: bool) -> Self {
        let mut source = Source {
            text: String::with_capacity(original.len().min(256)),
            holes: Vec::new(),
            map: Vec::new(),
        };
        for part in parts {
            match part {
                Part::Text(range) => source.push_text(original, range.clone(), in_block),
                Part::Block(block) => {
                    source.map.push((source.text.len(), block.span.start));
                    source.holes.push((source.text.len(), block));
                    source.text.push(MARK);
                }
            }
        }
        source
    }

    fn push_text(&mut self, original: &str, range: Range<usize>, in_block: bool) {
        let text = original.get(range.clone()).unwrap_or("");
        self.map.push((self.text.len(), range.start));
        if !in_block {
            self.text.push_str(text);
            return;
        }
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|rest| rest.find("\\>")) {
            self.text.push_str(text.get(from..from + at).unwrap_or(""));
            from += at + 1;
            self.map.push((self.text.len(), range.start + from));
        }
        self.text.push_str(text.get(from..).unwrap_or(""));
    }

    /// The block whose mark stands at `at`.
    pub(crate) fn hole_at(&self, at: usize) -> Option<usize> {
        self.holes.binary_search_by_key(&at, |(position, _)| *position).ok()
    }

    /// The range of the original text that `range` of this one came from.
    pub(crate) fn original(&self, range: Range<usize>) -> Range<usize> {
        let start = self.original_at(range.start);
        let mut end = self.original_at(range.end);
        // The end of a hole is the end of its block.
        if let Some(last) = range.end.checked_sub(MARK.len_utf8())
            && let Some(hole) = self.hole_at(last)
            && let Some((_, block)) = self.holes.get(hole)
        {
            end = block.span.end;
        }
        start..end.max(start)
    }

    fn original_at(&self, at: usize) -> usize {
        let next = self.map.partition_point(|(here, _)| *here <= at);
        match next.checked_sub(1).and_then(|i| self.map.get(i)) {
            Some((here, there)) => there + (at - here),
            None => at,
        }
    }

    /// Whether any hole touches path text.
    pub(crate) fn needs_splicing(&self) -> bool {
        self.holes.iter().any(|(at, _)| self.touches(*at))
    }

    fn touches(&self, at: usize) -> bool {
        self.touches_left(at) || self.touches_right(at)
    }

    /// A dot, an identifier character or another hole stands directly before.
    pub(crate) fn touches_left(&self, at: usize) -> bool {
        let Some(before) = self.text.get(..at).and_then(|t| t.chars().next_back()) else { return false };
        let is_hole = before == MARK && self.hole_at(at - MARK.len_utf8()).is_some();
        before == '.' || is_name_char(before) || is_hole
    }

    /// An identifier character, another hole, or a dot that begins no method call stands directly behind.
    fn touches_right(&self, at: usize) -> bool {
        self.hard_right(at) || self.dot_right(at)
    }

    fn hard_right(&self, at: usize) -> bool {
        let end = at + MARK.len_utf8();
        let Some(after) = self.text.get(end..).and_then(|t| t.chars().next()) else { return false };
        is_name_char(after) || (after == MARK && self.hole_at(end).is_some())
    }

    fn dot_right(&self, at: usize) -> bool {
        let end = at + MARK.len_utf8();
        let Some(rest) = self.text.get(end..).and_then(|t| t.strip_prefix('.')) else { return false };
        let name_end = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        let after_name = rest.get(name_end..).unwrap_or("");
        !after_name.trim_start().starts_with('(')
    }

    /// Replaces every touching hole outside of string literals and comments by the text that `value` gives for it.
    /// `value` is told whether the hole could also stand as an operand (only a dot follows) and may then answer `None`.
    pub(crate) fn splice(
        &self,
        value: &mut dyn FnMut(&'p Block, bool) -> Result<Option<String>, ExprError>,
    ) -> Result<Source<'p>, ExprError> {
        let mut out = Source { text: String::new(), holes: Vec::new(), map: Vec::new() };
        let mut from = 0;
        let quoted = quoted_ranges(&self.text);
        let is_quoted = |at: usize| {
            let next = quoted.partition_point(|range| range.start <= at);
            next.checked_sub(1).and_then(|i| quoted.get(i)).is_some_and(|range| range.contains(&at))
        };
        for (at, block) in &self.holes {
            out.copy(self, from..*at);
            from = at + MARK.len_utf8();
            out.map.push((out.text.len(), block.span.start));
            if self.touches(*at) && !is_quoted(*at) {
                let only_dot = !self.touches_left(*at) && !self.hard_right(*at);
                if let Some(text) = value(block, only_dot)? {
                    out.text.extend(text.chars().map(|c| if c == '-' { DASH } else { c }));
                    continue;
                }
            }
            out.holes.push((out.text.len(), block));
            out.text.push(MARK);
        }
        out.copy(self, from..self.text.len());
        Ok(out)
    }

    fn copy(&mut self, from: &Source<'_>, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        // Escapes inside the range shift positions, so every entry of the old map within it is kept.
        self.map.push((self.text.len(), from.original_at(range.start)));
        let base = self.text.len();
        let first = from.map.partition_point(|(here, _)| *here <= range.start);
        for (here, there) in from.map.iter().skip(first).take_while(|(here, _)| *here < range.end) {
            self.map.push((base + here - range.start, *there));
        }
        self.text.push_str(from.text.get(range).unwrap_or(""));
    }
}

/// Characters of names.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == UNKNOWN || c == DASH
}

/// Whether a value may be spliced into a path.
pub(crate) fn is_spliceable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Ranges of string literals and comments.
fn quoted_ranges(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        match (byte, bytes.get(at + 1)) {
            (b'"' | b'\'', _) => {
                at += 1;
                while let Some(inner) = bytes.get(at) {
                    at += if *inner == b'\\' { 2 } else { 1 };
                    if inner == byte {
                        break;
                    }
                }
            }
            (b'/', Some(b'/')) | (b'#', Some(b'#')) => {
                at = text.get(at..).and_then(|t| t.find('\n')).map_or(text.len(), |n| at + n);
            }
            (b'/', Some(b'*')) => {
                at = text.get(at + 2..).and_then(|t| t.find("*/")).map_or(text.len(), |n| at + 2 + n + 2);
            }
            _ => {
                at += 1;
                continue;
            }
        }
        ranges.push(start..at);
    }
    ranges
}
