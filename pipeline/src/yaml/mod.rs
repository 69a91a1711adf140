//! YAML documents as trees that remember where each value was written.
//!
//! The tree keeps the order of keys and the text of scalars, so that a message can quote what the author wrote.
//! Reading is bounded: see the limits in [`parse`].

mod parse;

pub use parse::{MAX_BYTES, MAX_DEPTH, MAX_NODES, parse_documents};

use crate::fault::Place;
use serde_json::Value as Json;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub at: Place,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing was written, or `null`.
    Null,
    /// Text, number or boolean, as written.
    Scalar {
        /// The text after unquoting.
        text: String,
        /// Written without quotes: may be a number or a boolean.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map.
    Map(Map),
}

/// A map in the order of its document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// Entries; keys are unique.
    pub entries: Vec<Entry>,
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Key.
    pub key: String,
    /// Where the key stands.
    pub at: Place,
    /// Value.
    pub value: Node,
}

impl Map {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// Sets a key, replacing an older value in its place.
    pub fn set(&mut self, key: &str, value: Node) {
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.value = value,
            None => {
                let at = value.at.clone();
                self.entries.push(Entry { key: key.to_owned(), at, value });
            }
        }
    }
}

impl Node {
    /// An empty map at a place.
    pub fn empty_map(at: &Place) -> Self {
        Node { value: Value::Map(Map::default()), at: at.clone() }
    }

    /// A text at a place.
    pub fn text(text: impl Into<String>, at: &Place) -> Self {
        Node { value: Value::Scalar { text: text.into(), plain: false }, at: at.clone() }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The map, to change it.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether nothing was written.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map().and_then(|map| map.get(key))
    }

    /// The value at a path of keys.
    pub fn at_path(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// As JSON: plain scalars become numbers and booleans by the YAML 1.2 core schema.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Scalar { text, plain: false } => Json::String(text.clone()),
            Value::Scalar { text, plain: true } => plain_to_json(text),
            Value::List(list) => Json::Array(list.iter().map(Node::to_json).collect()),
            Value::Map(map) => Json::Object(
                map.entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// Lays `over` over this value: maps merge deep, `variables` lists merge by `name`, anything else is replaced.
    pub fn overlay(&mut self, over: &Node) {
        match (&mut self.value, &over.value) {
            (_, Value::Null) => {}
            (Value::Map(base), Value::Map(upper)) => {
                for entry in &upper.entries {
                    match base.entries.iter_mut().find(|own| own.key == entry.key) {
                        Some(own) if entry.key == "variables" => own.value.overlay_named(&entry.value),
                        Some(own) => own.value.overlay(&entry.value),
                        None => base.entries.push(entry.clone()),
                    }
                }
            }
            (slot, upper) => {
                *slot = upper.clone();
                self.at = over.at.clone();
            }
        }
    }

    fn overlay_named(&mut self, over: &Node) {
        let (Value::List(base), Value::List(upper)) = (&mut self.value, &over.value) else {
            self.overlay(over);
            return;
        };
        for element in upper {
            let name = element.get("name").and_then(Node::as_str);
            match base.iter_mut().find(|own| name.is_some() && own.get("name").and_then(Node::as_str) == name)
            {
                Some(own) => *own = element.clone(),
                None => base.push(element.clone()),
            }
        }
    }
}

/// Resolves a plain scalar by the YAML 1.2 core schema.
fn plain_to_json(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // A leading zero marks an identifier such as `007`: a number would lose it.
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0') || digits.starts_with("0."));
    if is_number {
        if let Ok(number) = text.parse::<i64>() {
            return Json::from(number);
        }
        if let Ok(number) = text.parse::<f64>()
            && let Some(number) = serde_json::Number::from_f64(number)
        {
            return Json::Number(number);
        }
    }
    Json::String(text.to_owned())
}

#[cfg(test)]
mod tests;
