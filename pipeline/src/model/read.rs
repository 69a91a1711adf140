//! Reading maps key by key: every fault is collected, and keys that nobody asked for are named.

use crate::fault::{Fault, Findings, Place, nearest};
use crate::yaml::{Node, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// A value that may hold expressions, with the place it was written at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// The value as JSON.
    pub value: Json,
    /// Path of keys.
    pub path: String,
    /// Place.
    pub at: Place,
}

impl Field {
    /// From a node.
    pub fn new(node: &Node, path: impl Into<String>) -> Self {
        Field { value: node.to_json(), path: path.into(), at: node.at.clone() }
    }

    /// A text that no document wrote.
    pub fn made(text: impl Into<String>, path: impl Into<String>, at: &Place) -> Self {
        Field { value: Json::String(text.into()), path: path.into(), at: at.clone() }
    }

    /// The text of a single value; lists and maps as compact JSON.
    pub fn text(&self) -> String {
        match &self.value {
            Json::String(text) => text.clone(),
            Json::Null => String::new(),
            other => other.to_string(),
        }
    }
}

/// Keys whose misspelling would change what runs, or where: one near to them is refused, never ignored.
const DANGEROUS: [&str; 19] = [
    "delegateSelectors",
    "when",
    "failureStrategies",
    "rollbackSteps",
    "timeout",
    "strategy",
    "condition",
    "hosts",
    "host",
    "onDelegate",
    "assertion",
    "threshold",
    "enabled",
    "headerConditions",
    "inputSetRefs",
    "inputYaml",
    "jexlCondition",
    "operator",
    "payloadConditions",
];

/// One map that is being read.
pub struct Reader<'a> {
    node: &'a Node,
    path: String,
    asked: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    /// Starts on a node, which must be a map. A missing or null one reads as empty (rule R17).
    pub fn new(node: &'a Node, path: impl Into<String>, findings: &mut Findings) -> Self {
        let path = path.into();
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            findings.fault(&node.at, &path, format!("expected a map, found {}", node.kind()));
        }
        Reader { node, path, asked: BTreeSet::new() }
    }

    /// Where the map begins.
    pub fn at(&self) -> &'a Place {
        &self.node.at
    }

    /// Path of the map.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Path of a key in the map.
    pub fn sub(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// A value, null counts as absent.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.insert(key);
        self.node.get(key).filter(|node| !node.is_null())
    }

    /// Whether the key is written at all.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.asked.insert(key);
        self.node.get(key).is_some()
    }

    /// A single value.
    pub fn field(&mut self, key: &'static str, findings: &mut Findings) -> Option<Field> {
        let node = self.node(key)?;
        let path = self.sub(key);
        if node.as_str().is_none() {
            findings.fault(&node.at, &path, format!("expected a single value, found {}", node.kind()));
            return None;
        }
        Some(Field::new(node, path))
    }

    /// Any value.
    pub fn any(&mut self, key: &'static str) -> Option<Field> {
        let node = self.node(key)?;
        Some(Field::new(node, self.sub(key)))
    }

    /// A single value that must be there.
    pub fn required(&mut self, key: &'static str, findings: &mut Findings) -> Option<Field> {
        if self.node(key).is_none() {
            findings.fault(self.at(), &self.sub(key), format!("`{key}` is missing"));
            return None;
        }
        self.field(key, findings)
    }

    /// The text of a single value.
    pub fn text(&mut self, key: &'static str, findings: &mut Findings) -> Option<String> {
        let node = self.node(key)?;
        match node.as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                let message = format!("expected a single value, found {}", node.kind());
                findings.fault(&node.at, &self.sub(key), message);
                None
            }
        }
    }

    /// A boolean.
    pub fn flag(&mut self, key: &'static str, findings: &mut Findings) -> Option<bool> {
        let node = self.node(key)?;
        match node.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => {
                let path = self.sub(key);
                findings.fault(&node.at, &path, "expected `true` or `false`");
                None
            }
        }
    }

    /// A list; a missing one is empty.
    pub fn list(&mut self, key: &'static str, findings: &mut Findings) -> &'a [Node] {
        match self.node(key) {
            None => &[],
            Some(node) => match node.as_list() {
                Some(list) => list,
                None => {
                    let path = self.sub(key);
                    findings.fault(&node.at, &path, format!("expected a list, found {}", node.kind()));
                    &[]
                }
            },
        }
    }

    /// A nested map.
    pub fn map(&mut self, key: &'static str, findings: &mut Findings) -> Option<Reader<'a>> {
        let node = self.node(key)?;
        let path = self.sub(key);
        Some(Reader::new(node, path, findings))
    }

    /// A nested map that must be there.
    pub fn required_map(&mut self, key: &'static str, findings: &mut Findings) -> Option<Reader<'a>> {
        let map = self.map(key, findings);
        if map.is_none() {
            findings.fault(self.at(), &self.sub(key), format!("`{key}` is missing"));
        }
        map
    }

    /// Refuses a key that would change what runs, or where, and that nothing here acts on. `true` if it is written.
    pub fn refused(&mut self, key: &'static str, why: &str, findings: &mut Findings) -> bool {
        let Some(node) = self.node(key) else { return false };
        findings.fault(&node.at, &self.sub(key), format!("`{key}` is not supported: {why}"));
        true
    }

    /// Says of a key that it has no effect.
    pub fn without_effect(&mut self, key: &'static str, what: &str, findings: &mut Findings) {
        if let Some(node) = self.node(key) {
            let text = format!("`{key}` has no effect in this version: {what}");
            findings.remark("not-supported-yet", &node.at, &self.sub(key), text);
        }
    }

    /// Keys that are written with a value.
    pub fn keys(&self) -> Vec<&'a str> {
        let entries = self.node.as_map().map(|map| map.entries.as_slice()).unwrap_or_default();
        entries.iter().filter(|entry| !entry.value.is_null()).map(|entry| entry.key.as_str()).collect()
    }

    /// Accepts keys that are known and have no effect here.
    pub fn known(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// Names every key that nobody asked for: one near to a key that decides where or whether something runs is a
    /// fault, any other is ignored with a notice, as Harness ignores it.
    pub fn finish(self, findings: &mut Findings) {
        let Some(map) = self.node.as_map() else { return };
        for entry in &map.entries {
            if self.asked.contains(entry.key.as_str()) {
                continue;
            }
            let path = join(&self.path, &entry.key);
            let near = nearest(&entry.key, self.asked.iter().copied());
            match near {
                Some(near) if DANGEROUS.contains(&near) => {
                    let fault = Fault::at(&entry.at, &path, format!("`{}` is not a known key", entry.key));
                    findings.push(fault.suggest(Some(format!("did you mean `{near}`?"))));
                }
                near => {
                    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    let text = format!("`{}` is not a known key here and is ignored{hint}", entry.key);
                    findings.remark("unknown-key", &entry.at, &path, text);
                }
            }
        }
    }
}

/// Whether a text is a runtime input.
pub(crate) fn is_input(text: &str) -> bool {
    text.starts_with("<+input>")
}

/// Size that a compiled pattern may take; patterns in documents are short.
const MAX_PATTERN: usize = 1 << 20;

/// A pattern that must match a whole text. **Errors**: of `build`, when it cannot be used.
pub(crate) fn whole_match(pattern: &str) -> regex::RegexBuilder {
    let mut regex = regex::RegexBuilder::new(&format!("^(?:{pattern})$"));
    regex.size_limit(MAX_PATTERN);
    regex
}

/// Joins a path and a key.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value of a closed set, compared without regard to case (rule R2).
pub fn one_of<T: Copy>(field: &Field, what: &str, known: &[(&str, T)], findings: &mut Findings) -> Option<T> {
    let text = field.text();
    let hit = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    if hit.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!("`{text}` is not a known {what}; known are {}", names.join(", "));
        let near = crate::fault::did_you_mean(&text, names.iter().copied());
        findings.push(Fault::at(&field.at, &field.path, message).suggest(near));
    }
    hit.map(|(_, value)| *value)
}
