//! From bytes to lines: pure, one instance per stream of a unit.
//!
//! Bytes are masked first and split afterwards, so that a secret that was cut by a chunk border or runs over a line end
//! is still found. Masking changes lengths; this module keeps for every line the offset *in the source* at which it
//! ends, so that a producer that can seek goes on exactly there after a restart.

use secrets::StreamMasker;
use std::collections::VecDeque;

/// A longer line is cut into several, so that one line without an end cannot fill memory. Below the 25,600 bytes at
/// which Harness' log service cuts on its own (and then inside a character).
pub(crate) const MAX_LINE_BYTES: usize = 24 * 1024;

/// Stands at the end of a piece that goes on in the next line.
pub(crate) const CONTINUES: &str = " [line goes on]";

/// One line, as raw bytes of unchecked encoding, without its terminator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a [u8],
    /// Offset in the source just behind the line. `None`: not known, because masks swallowed line ends here; a later
    /// line of the same stream brings the next known one.
    pub(crate) end: Option<u64>,
    /// The line was cut and goes on in the next one.
    pub(crate) continues: bool,
}

/// Splits one stream.
///
/// `\n`, `\r\n` and a bare `\r` (a progress bar) end a line; a run of `\r` counts as one.
pub(crate) struct Splitter {
    masker: StreamMasker,
    /// Masked bytes of the unfinished line.
    partial: Vec<u8>,
    /// Source offset behind everything that was pushed.
    pushed: u64,
    /// Source offsets behind line terminators that the masker still holds back.
    held_ends: VecDeque<u64>,
    /// A `\r` was seen; whether `\n` follows is open.
    after_return: Option<Option<u64>>,
    scratch: Vec<u8>,
}

/// Where each terminator of the masked bytes lies in the source.
enum Ends {
    /// Nothing was changed: source offset = base + index + 1.
    Same { base: u64 },
    /// One terminator each, in order.
    Listed(VecDeque<u64>),
    /// Masks swallowed terminators; only the end of the output is known.
    Unknown { end: u64 },
}

impl Splitter {
    /// A splitter whose first byte lies at `offset` of the source.
    pub(crate) fn new(masker: StreamMasker, offset: u64) -> Self {
        Splitter {
            masker,
            partial: Vec::new(),
            pushed: offset,
            held_ends: VecDeque::new(),
            after_return: None,
            scratch: Vec::new(),
        }
    }

    /// Takes the next bytes and gives every line that is complete.
    pub(crate) fn push(&mut self, chunk: &[u8], emit: &mut dyn FnMut(Piece<'_>)) {
        let base = self.pushed;
        let held_before = self.masker.held();
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        self.masker.push(chunk, &mut out);
        self.pushed += chunk.len() as u64;
        let released_to = self.pushed - self.masker.held() as u64;
        let untouched = held_before == 0
            && released_to == base + out.len() as u64
            && chunk.get(..out.len()) == Some(&out);
        let ends = if untouched {
            self.note_ends(chunk.get(out.len()..).unwrap_or_default(), base + out.len() as u64);
            Ends::Same { base }
        } else {
            self.note_ends(chunk, base);
            self.released(released_to, &out)
        };
        self.split(&out, ends, emit);
        self.scratch = out;
    }

    /// The source has ended: what is left becomes a line.
    ///
    /// **Repeat**: safe.
    pub(crate) fn finish(&mut self, emit: &mut dyn FnMut(Piece<'_>)) {
        let mut out = Vec::new();
        self.masker.finish(&mut out);
        let end = self.pushed;
        let ends = self.released(end, &out);
        self.split(&out, ends, emit);
        if self.after_return.take().is_some() || !self.partial.is_empty() {
            emit(Piece { text: &self.partial, end: Some(end), continues: false });
            self.partial.clear();
        }
    }

    /// Whether nothing is held back.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.after_return.is_none() && self.masker.held() == 0
    }

    fn note_ends(&mut self, bytes: &[u8], base: u64) {
        self.held_ends.extend(memchr::memchr2_iter(b'\n', b'\r', bytes).map(|at| base + at as u64 + 1));
    }

    /// Pairs the terminators of `out` with those of the source up to `released_to`.
    fn released(&mut self, released_to: u64, out: &[u8]) -> Ends {
        let count = self.held_ends.partition_point(|end| *end <= released_to);
        let listed: VecDeque<u64> = self.held_ends.drain(..count).collect();
        if memchr::memchr2_iter(b'\n', b'\r', out).count() == listed.len() {
            Ends::Listed(listed)
        } else {
            Ends::Unknown { end: released_to }
        }
    }

    fn split(&mut self, out: &[u8], mut ends: Ends, emit: &mut dyn FnMut(Piece<'_>)) {
        let mut from = 0;
        for at in memchr::memchr2_iter(b'\n', b'\r', out) {
            let end = match &mut ends {
                Ends::Same { base } => Some(*base + at as u64 + 1),
                Ends::Listed(list) => list.pop_front(),
                Ends::Unknown { end } => (at + 1 == out.len()).then_some(*end),
            };
            let text = out.get(from..at).unwrap_or_default();
            let is_newline = out.get(at) == Some(&b'\n');
            from = at + 1;
            if self.after_return.is_some() {
                if text.is_empty() {
                    // `\r\n` or `\r\r`: still the same line end, which now reaches to here.
                    self.after_return = Some(end);
                    if is_newline {
                        self.complete(&[], end, emit);
                    }
                    continue;
                }
                let ended_at = self.after_return.take().flatten();
                self.complete(&[], ended_at, emit);
            }
            self.grow(text, &ends, at - text.len(), emit);
            if is_newline {
                self.complete(&[], end, emit);
            } else {
                self.after_return = Some(end);
            }
        }
        let rest = out.get(from..).unwrap_or_default();
        if !rest.is_empty() {
            if let Some(ended_at) = self.after_return.take() {
                self.complete(&[], ended_at, emit);
            }
            self.grow(rest, &ends, from, emit);
        }
    }

    /// Ends the current line.
    fn complete(&mut self, text: &[u8], end: Option<u64>, emit: &mut dyn FnMut(Piece<'_>)) {
        self.after_return = None;
        self.partial.extend_from_slice(text);
        emit(Piece { text: &self.partial, end, continues: false });
        self.partial.clear();
    }

    /// Adds to the current line and cuts it where it is too long. `at` is the index of `text` in the masked bytes.
    fn grow(&mut self, mut text: &[u8], ends: &Ends, mut at: usize, emit: &mut dyn FnMut(Piece<'_>)) {
        while self.partial.len() + text.len() > MAX_LINE_BYTES {
            let room = MAX_LINE_BYTES.saturating_sub(self.partial.len());
            let (head, tail) = text.split_at(room.min(text.len()));
            self.partial.extend_from_slice(head);
            at += head.len();
            // A character is not cut: its first bytes move to the next piece.
            let keep = whole_characters(&self.partial);
            let moved = self.partial.split_off(keep);
            let end = match ends {
                Ends::Same { base } => (*base + at as u64).checked_sub(moved.len() as u64),
                Ends::Listed(_) | Ends::Unknown { .. } => None,
            };
            emit(Piece { text: &self.partial, end, continues: true });
            self.partial = moved;
            text = tail;
        }
        self.partial.extend_from_slice(text);
    }
}

/// Length of the longest front of `bytes` that does not end inside a UTF-8 character. Bytes that are no UTF-8 anyway
/// are not held back.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=3 {
        let Some(at) = bytes.len().checked_sub(back) else { break };
        let Some(&byte) = bytes.get(at) else { break };
        let width = match byte {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            _ => 1,
        };
        return if width > back && at > 0 { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
