//! Masking of one byte stream in chunks.

use crate::masker::Patterns;
use crate::{MASK, Masker};
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, Span};
use std::sync::Arc;

/// Masks one byte stream. What comes out does not depend on how the stream is cut into chunks.
///
/// It holds back only bytes that may be the beginning of a secret: none when the automaton is at rest (the usual case
/// at a line's end), never more than the longest pattern less one.
///
/// A secret added while the stream runs applies to all later bytes and to those held back.
#[derive(Debug)]
pub struct StreamMasker {
    masker: Masker,
    patterns: Arc<Patterns>,
    /// One for each automaton of `patterns`.
    tracks: Vec<Track>,
    /// Bytes that are not settled yet.
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that a mask already covers. They stay for as long as they may begin another
    /// secret.
    masked_to: usize,
    /// Finds in `buffer`, joined where they overlap, in order.
    finds: Vec<(usize, usize)>,
}

/// Where one automaton stands.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// `None`: at rest.
    state: Option<StateID>,
    /// Where it was last at rest: nothing unfinished begins before it.
    rest_at: usize,
}

impl std::fmt::Debug for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patterns(version {})", self.version)
    }
}

impl StreamMasker {
    pub(crate) fn new(masker: Masker) -> Self {
        StreamMasker {
            masker,
            patterns: Arc::new(Patterns { version: 0, automata: Vec::new() }),
            tracks: Vec::new(),
            buffer: Vec::new(),
            masked_to: 0,
            finds: Vec::new(),
        }
    }

    /// Takes the next bytes and appends to `out` what is settled.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.refresh();
        if self.patterns.automata.is_empty() {
            out.extend_from_slice(chunk);
            return;
        }
        let from = self.buffer.len();
        self.buffer.extend_from_slice(chunk);
        let keep_from = self.scan(from);
        self.emit(keep_from, out);
    }

    /// The stream has ended: appends everything held back and starts afresh.
    ///
    /// **Repeat**: safe.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.refresh();
        let end = self.buffer.len();
        self.emit(end, out);
        self.tracks.fill(Track::default());
        self.masked_to = 0;
    }

    /// Bytes of the source that are not yet in the output, neither as they are nor as a mask. A producer that keeps
    /// offsets subtracts this from what it pushed.
    pub fn held(&self) -> usize {
        self.buffer.len().saturating_sub(self.masked_to)
    }

    /// Takes over a grown set of patterns and looks through the bytes held back again.
    fn refresh(&mut self) {
        let Some(newer) = self.masker.newer_than(self.patterns.version) else { return };
        self.tracks = vec![Track::default(); newer.automata.len()];
        self.patterns = newer;
        // A set only grows, so this finds again all that was found in these bytes.
        self.finds.clear();
        self.scan(0);
    }

    /// Runs every automaton over `buffer[from..]`. Returns from where on bytes may begin an unfinished secret.
    fn scan(&mut self, from: usize) -> usize {
        let end = self.buffer.len();
        let mut keep_from = end;
        for (nfa, track) in self.patterns.automata.iter().zip(&mut self.tracks) {
            run(nfa, track, &self.buffer, from, &mut self.finds);
            let open = nfa.max_pattern_len().saturating_sub(1);
            keep_from = keep_from.min(track.rest_at.max(end.saturating_sub(open)));
        }
        // One automaton finds in order; several do not.
        if self.tracks.len() > 1 && self.finds.len() > 1 {
            join(&mut self.finds);
        }
        keep_from
    }

    /// Appends what lies before `keep_from`, finds replaced, and drops it from the buffer.
    fn emit(&mut self, keep_from: usize, out: &mut Vec<u8>) {
        let mut cursor = self.masked_to;
        let mut settled = 0;
        for &(from, to) in &self.finds {
            if from >= keep_from && to > keep_from {
                break;
            }
            settled += 1;
            if to <= cursor {
                continue;
            }
            // A find that begins under the last mask only lengthens what that mask covers.
            if from >= cursor {
                out.extend_from_slice(self.buffer.get(cursor..from).unwrap_or_default());
                out.extend_from_slice(MASK.as_bytes());
            }
            cursor = to;
        }
        if cursor < keep_from {
            out.extend_from_slice(self.buffer.get(cursor..keep_from).unwrap_or_default());
            cursor = keep_from;
        }
        self.finds.drain(..settled);
        for find in &mut self.finds {
            *find = (find.0.saturating_sub(keep_from), find.1.saturating_sub(keep_from));
        }
        self.buffer.drain(..keep_from);
        self.masked_to = cursor - keep_from;
        for track in &mut self.tracks {
            track.rest_at = track.rest_at.saturating_sub(keep_from);
        }
    }
}

/// Runs one automaton over `buffer[from..]` and adds what it finds.
fn run(nfa: &NFA, track: &mut Track, buffer: &[u8], from: usize, finds: &mut Vec<(usize, usize)>) {
    let Ok(start) = nfa.start_state(Anchored::No) else { return };
    let mut state = track.state.unwrap_or(start);
    let end = buffer.len();
    let open = nfa.max_pattern_len().saturating_sub(1);
    let mut at = from;
    let mut rest_at = if state == start { from } else { track.rest_at };
    while at < end {
        if state == start
            && let Some(prefilter) = nfa.prefilter()
        {
            // It sees whole patterns only, so one that goes on in the next chunk must be walked.
            let whole_only = end.saturating_sub(open);
            if at < whole_only {
                let candidate = prefilter.find_in(buffer, Span { start: at, end });
                at = candidate.into_option().map_or(whole_only, |found| found.min(whole_only));
                rest_at = at;
            }
        }
        let Some(&byte) = buffer.get(at) else { break };
        state = nfa.next_state(Anchored::No, state, byte);
        at += 1;
        if state == start {
            rest_at = at;
        } else if nfa.is_special(state) && nfa.is_match(state) {
            let longest = (0..nfa.match_len(state))
                .map(|index| nfa.pattern_len(nfa.match_pattern(state, index)))
                .max()
                .unwrap_or(0);
            note(finds, at.saturating_sub(longest), at);
        }
    }
    *track = Track { state: Some(state), rest_at };
}

/// Adds a find and joins it with the last ones where they overlap, so that a run of overlaps stays one.
fn note(finds: &mut Vec<(usize, usize)>, mut from: usize, mut to: usize) {
    while let Some(&(last_from, last_to)) = finds.last() {
        if last_to <= from || last_from >= to {
            break;
        }
        from = from.min(last_from);
        to = to.max(last_to);
        finds.pop();
    }
    finds.push((from, to));
}

/// Puts finds in order and joins those that share a byte.
fn join(finds: &mut Vec<(usize, usize)>) {
    finds.sort_unstable();
    finds.dedup_by(|next, kept| {
        let overlaps = next.0 < kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}
