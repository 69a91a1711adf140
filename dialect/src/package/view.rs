//! Reading a package by path: what is not known is ignored, what is wrong is named with its place.

use super::fault::Fault;
use serde_json::{Map, Value};

/// An object of the package and where it stands.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    object: &'a Map<String, Value>,
    path: String,
}

/// What a value is, for a message. Never the value: it may be a secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong(path: &str, value: &Value, expected: &str) -> Fault {
    Fault::shape(path, format!("is {}; expected {expected}", kind(value)))
}

impl<'a> View<'a> {
    /// The root of a document.
    pub(super) fn root(path: &str, value: &'a Value) -> Result<Self, Fault> {
        match value {
            Value::Object(object) => Ok(View { object, path: path.to_owned() }),
            other => Err(wrong(path, other, "an object")),
        }
    }

    /// Where a key stands.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Whether a key has a value. Packages hold every key; most are `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn required<T>(&self, key: &str, expected: &str, found: Option<T>) -> Result<T, Fault> {
        found.ok_or_else(|| Fault::shape(&self.at(key), format!("is missing; expected {expected}")))
    }

    pub(super) fn maybe(&self, key: &str) -> Result<Option<View<'a>>, Fault> {
        self.value(key).map(|value| View::root(&self.at(key), value)).transpose()
    }

    pub(super) fn object(&self, key: &str) -> Result<View<'a>, Fault> {
        self.required(key, "an object", self.maybe(key)?)
    }

    /// A text, as it stands. Blank counts as absent.
    pub(super) fn maybe_str(&self, key: &str) -> Result<Option<&'a str>, Fault> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.trim().is_empty())),
            Some(other) => Err(wrong(&self.at(key), other, "a text")),
        }
    }

    pub(super) fn str(&self, key: &str) -> Result<&'a str, Fault> {
        self.required(key, "a text", self.maybe_str(key)?)
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Fault> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(other) => Err(wrong(&self.at(key), other, "true or false")),
        }
    }

    pub(super) fn maybe_int(&self, key: &str) -> Result<Option<i64>, Fault> {
        let expected = "a whole number";
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(value @ Value::String(text)) => {
                text.trim().parse().map(Some).map_err(|_| wrong(&self.at(key), value, expected))
            }
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(&self.at(key), value, expected)),
            },
        }
    }

    /// A number of at least 0.
    pub(super) fn maybe_count(&self, key: &str) -> Result<Option<u32>, Fault> {
        let Some(number) = self.maybe_int(key)? else { return Ok(None) };
        let text = || format!("is {number}; expected a number from 0 to {}", u32::MAX);
        u32::try_from(number).map(Some).map_err(|_| Fault::shape(&self.at(key), text()))
    }

    pub(super) fn count(&self, key: &str) -> Result<u32, Fault> {
        self.required(key, "a whole number", self.maybe_count(key)?)
    }

    fn values(&self, key: &str) -> Result<&'a [Value], Fault> {
        match self.value(key) {
            None => Ok(&[]),
            Some(Value::Array(all)) => Ok(all),
            Some(other) => Err(wrong(&self.at(key), other, "a list")),
        }
    }

    /// A list of objects; `null` among them is left out.
    pub(super) fn list(&self, key: &str) -> Result<Vec<View<'a>>, Fault> {
        let all = self.values(key)?.iter().enumerate().filter(|(_, value)| !value.is_null());
        all.map(|(index, value)| View::root(&format!("{}.{key}[{index}]", self.path), value)).collect()
    }

    /// A list of texts with their places.
    pub(super) fn strs(&self, key: &str) -> Result<Vec<(String, &'a str)>, Fault> {
        let mut found = Vec::new();
        for (index, value) in self.values(key)?.iter().enumerate() {
            let path = format!("{}.{key}[{index}]", self.path);
            match value {
                Value::Null => {}
                Value::String(text) => found.push((path, text.as_str())),
                other => return Err(wrong(&path, other, "a text")),
            }
        }
        Ok(found)
    }

    /// Keys with their texts; numbers and booleans count as their text.
    pub(super) fn map(&self, key: &str) -> Result<Vec<(&'a str, String)>, Fault> {
        let Some(view) = self.maybe(key)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (name, value) in view.object {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                other => return Err(wrong(&view.at(name), other, "a text")),
            };
            found.push((name.as_str(), text));
        }
        Ok(found)
    }

    /// A word out of a known set, without regard to case.
    pub(super) fn word<T: Copy>(&self, key: &str, known: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.str(key)?;
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Fault::unsupported(format!("{} `{}`", self.at(key), super::fault::short(text)))
                .hint(format!("this agent supports {}", names.join(", ")))
        })
    }
}
