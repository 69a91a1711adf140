//! The shared set of patterns and the automaton that finds them.

use crate::{StreamMasker, variants};
use aho_corasick::MatchKind;
use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use executor_api::SecretText;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::ZeroizeOnDrop;

/// One built state of the pattern set.
pub(crate) struct Patterns {
    /// Number of the set that this was built from.
    pub(crate) version: u64,
    /// `None` when nothing is to be masked.
    pub(crate) nfa: Option<NFA>,
}

impl Patterns {
    /// Length of the longest pattern in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.nfa.as_ref().map_or(0, |nfa| nfa.max_pattern_len())
    }
}

/// One text that is masked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, ZeroizeOnDrop)]
struct Pattern(String);

struct Set {
    texts: BTreeSet<Pattern>,
    built: Arc<Patterns>,
}

struct Shared {
    /// Grows with every pattern added. Read without the lock, so that an unchanged set costs one load a chunk.
    version: AtomicU64,
    set: Mutex<Set>,
}

/// Replaces secrets by [`crate::MASK`]. Cheap to clone; all clones share one set, which may grow while streams run.
///
/// One masker serves one task: it is dropped with the task, and the values with it. What every task masks (the agent's
/// own token) goes into a base masker that is [forked](Masker::fork).
///
/// Overlapping finds are joined and masked as one, so no part of a secret stays because another one covers the rest.
/// A secret that consists of asterisks is found inside the mask itself; nothing is given away by that.
#[derive(Clone)]
pub struct Masker {
    shared: Arc<Shared>,
}

impl Default for Masker {
    fn default() -> Self {
        Masker::new()
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker(..)")
    }
}

impl Masker {
    /// One that masks nothing yet.
    pub fn new() -> Self {
        Masker::with(BTreeSet::new())
    }

    fn with(texts: BTreeSet<Pattern>) -> Self {
        // Version 1 over version 0: a non-empty set is built at first use.
        let version = u64::from(!texts.is_empty());
        let built = Arc::new(Patterns { version: 0, nfa: None });
        Masker {
            shared: Arc::new(Shared {
                version: AtomicU64::new(version),
                set: Mutex::new(Set { texts, built }),
            }),
        }
    }

    /// A masker of its own that starts with all patterns of this one. Later additions stay apart.
    pub fn fork(&self) -> Self {
        let set = self.shared.set.lock().unwrap_or_else(PoisonError::into_inner);
        Masker::with(set.texts.clone())
    }

    /// Masks `value` from here on: the whole of it, each line, and the usual encodings. Values under three characters
    /// are left out.
    ///
    /// **Repeat**: safe.
    pub fn add(&self, value: &SecretText) {
        let found = variants::of(value.expose_secret());
        let mut set = self.shared.set.lock().unwrap_or_else(PoisonError::into_inner);
        let before = set.texts.len();
        set.texts.extend(found.into_iter().map(Pattern));
        if set.texts.len() != before {
            self.shared.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether nothing is to be masked.
    pub fn is_empty(&self) -> bool {
        self.shared.version.load(Ordering::Acquire) == 0
    }

    /// A masker for one byte stream, fed in chunks.
    pub fn stream(&self) -> StreamMasker {
        StreamMasker::new(self.clone())
    }

    /// `bytes` with every secret replaced. Borrowed when there is none.
    pub fn mask_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut stream = self.stream();
        let mut out = Vec::with_capacity(bytes.len());
        stream.push(bytes, &mut out);
        stream.finish(&mut out);
        if out == bytes { Cow::Borrowed(bytes) } else { Cow::Owned(out) }
    }

    /// `text` with every secret replaced. Borrowed when there is none.
    pub fn mask_str<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Patterns are whole UTF-8 texts, so cutting them out leaves UTF-8.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// `value` with every secret replaced, in strings, keys and numbers (which then become strings), at any depth.
    pub fn mask_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mask_str(text).into_owned()),
            Value::Number(number) => {
                let text = number.to_string();
                match self.mask_str(&text) {
                    Cow::Borrowed(_) => value.clone(),
                    Cow::Owned(masked) => Value::String(masked),
                }
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.mask_json(item)).collect()),
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(key, item)| (self.mask_str(key).into_owned(), self.mask_json(item)))
                    .collect(),
            ),
            Value::Null | Value::Bool(_) => value.clone(),
        }
    }

    /// The newest built state, or `None` when `version` is it.
    pub(crate) fn newer_than(&self, version: u64) -> Option<Arc<Patterns>> {
        if self.shared.version.load(Ordering::Acquire) == version {
            return None;
        }
        let mut set = self.shared.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: additions hold it too, so the number belongs to the texts seen here.
        let newest = self.shared.version.load(Ordering::Acquire);
        if set.built.version != newest {
            set.built = Arc::new(Patterns { version: newest, nfa: build(&set.texts) });
        }
        Some(Arc::clone(&set.built))
    }
}

/// The standard match kind reports every pattern that ends at a byte, which joining overlaps needs. The contiguous form
/// takes about a hundredth of a table automaton's memory for a private key with all its spellings.
fn build(texts: &BTreeSet<Pattern>) -> Option<NFA> {
    if texts.is_empty() {
        return None;
    }
    let patterns = || texts.iter().map(|text| text.0.as_bytes());
    // Building fails only beyond 2^31 states. Then the longest patterns go, so that masking degrades and does not end.
    match NFA::builder().match_kind(MatchKind::Standard).build(patterns()) {
        Ok(nfa) => Some(nfa),
        Err(_) => NFA::builder()
            .match_kind(MatchKind::Standard)
            .build(patterns().filter(|pattern| pattern.len() <= 4096))
            .ok(),
    }
}
