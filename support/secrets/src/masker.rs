//! The shared set of patterns and the automaton that finds them.

use crate::{MIN_CHARS, StreamMasker, variants};
use aho_corasick::MatchKind;
use aho_corasick::nfa::contiguous::NFA;
use executor_api::SecretText;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use zeroize::ZeroizeOnDrop;

/// A value at least this long gets an automaton of its own, which all maskers of a family share: a private key with its
/// spellings may take most of a megabyte, and a hundred tasks may use the same one. Smaller ones cost less than a pass.
const LARGE_BYTES: usize = 1024;
/// Automata beside the common one. Each costs a pass over the bytes, so further large values go into the common one.
const MAX_LARGE: usize = 2;

/// One built state of the set.
pub(crate) struct Patterns {
    /// Number of the set that this was built from.
    pub(crate) version: u64,
    /// All run over the same bytes. None when nothing is to be masked.
    pub(crate) automata: Vec<Arc<NFA>>,
}

/// A value that is masked, or one spelling of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, ZeroizeOnDrop)]
struct Secret(String);

struct Set {
    values: BTreeSet<Secret>,
    built: Arc<Patterns>,
}

/// Automata of large values, for as long as some masker uses them.
#[derive(Default)]
struct Family {
    /// Two keyed hashes of a value stand for it, so that it is not kept here.
    hashers: (RandomState, RandomState),
    large: Mutex<BTreeMap<(u64, u64), Weak<NFA>>>,
}

struct Shared {
    /// Grows with every value added. Read without the lock, so that an unchanged set costs one load a chunk.
    version: AtomicU64,
    set: Mutex<Set>,
    family: Arc<Family>,
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
        Masker::with(BTreeSet::new(), Arc::default())
    }

    fn with(values: BTreeSet<Secret>, family: Arc<Family>) -> Self {
        // Version 1 over version 0: a non-empty set is built at first use.
        let version = u64::from(!values.is_empty());
        let built = Arc::new(Patterns { version: 0, automata: Vec::new() });
        let set = Mutex::new(Set { values, built });
        Masker { shared: Arc::new(Shared { version: AtomicU64::new(version), set, family }) }
    }

    /// A masker of its own that starts with all values of this one. Later additions stay apart; the automata of large
    /// values are shared.
    pub fn fork(&self) -> Self {
        let set = self.shared.set.lock().unwrap_or_else(PoisonError::into_inner);
        Masker::with(set.values.clone(), Arc::clone(&self.shared.family))
    }

    /// Masks `value` from here on: the whole of it, each line, and the usual encodings. Values under three characters
    /// are left out.
    ///
    /// **Repeat**: safe.
    pub fn add(&self, value: &SecretText) {
        let value = value.expose_secret();
        if value.trim().chars().count() < MIN_CHARS {
            return;
        }
        let mut set = self.shared.set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.values.insert(Secret(value.to_owned())) {
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
        // Read under the lock: additions hold it too, so the number belongs to the values seen here.
        let newest = self.shared.version.load(Ordering::Acquire);
        if set.built.version != newest {
            let automata = self.shared.family.automata(&set.values);
            set.built = Arc::new(Patterns { version: newest, automata });
        }
        Some(Arc::clone(&set.built))
    }
}

impl Family {
    /// Automata that together find every spelling of `values`.
    fn automata(&self, values: &BTreeSet<Secret>) -> Vec<Arc<NFA>> {
        let mut by_length: Vec<&Secret> = values.iter().collect();
        by_length.sort_by_key(|value| std::cmp::Reverse(value.0.len()));
        let large = by_length.iter().take(MAX_LARGE).take_while(|value| value.0.len() >= LARGE_BYTES).count();
        let (large, common) = by_length.split_at(large);
        let common: BTreeSet<Secret> = common.iter().flat_map(|value| spellings(value)).collect();
        large.iter().filter_map(|value| self.large(value)).chain(build(&common).map(Arc::new)).collect()
    }

    fn large(&self, value: &Secret) -> Option<Arc<NFA>> {
        let key = (self.hashers.0.hash_one(&value.0), self.hashers.1.hash_one(&value.0));
        // Held while it is built, so that fifty tasks that start at once build it once.
        let mut known = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nfa) = known.get(&key).and_then(Weak::upgrade) {
            return Some(nfa);
        }
        let nfa = Arc::new(build(&spellings(value).collect())?);
        known.retain(|_, nfa| nfa.strong_count() > 0);
        known.insert(key, Arc::downgrade(&nfa));
        Some(nfa)
    }
}

fn spellings(value: &Secret) -> impl Iterator<Item = Secret> {
    variants::of(&value.0).into_iter().map(Secret)
}

/// The standard match kind reports every pattern that ends at a byte, which joining overlaps needs. The contiguous form
/// takes a fraction of a table automaton's memory.
fn build(patterns: &BTreeSet<Secret>) -> Option<NFA> {
    if patterns.is_empty() {
        return None;
    }
    let bytes = || patterns.iter().map(|pattern| pattern.0.as_bytes());
    // Building fails only beyond 2^31 states. Then the longest patterns go, so that masking degrades and does not end.
    let short = || bytes().filter(|pattern| pattern.len() <= 4096);
    NFA::builder()
        .match_kind(MatchKind::Standard)
        .build(bytes())
        .or_else(|_| NFA::builder().match_kind(MatchKind::Standard).build(short()))
        .ok()
}
