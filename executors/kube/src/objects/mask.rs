//! Keeps secret values out of everything that is shown.

use super::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::fmt;

/// What stands in place of a secret value.
pub(super) const HIDDEN: &str = "********";

/// Shorter values are not searched for in texts: they would hide half of the log and protect nothing.
const SHORTEST: usize = 4;

/// Values that must not be shown: those of the Secrets in a set, and secrets resolved into manifests.
#[derive(Default)]
pub struct Mask {
    values: Vec<SecretString>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} values)", self.values.len())
    }
}

impl Mask {
    /// Adds one clear value, its lines, and its form in base64.
    pub fn add(&mut self, value: &str) {
        let encoded = STANDARD.encode(value);
        let lines = value.lines().filter(|line| line.trim() != value);
        for form in [value.trim(), encoded.as_str()].into_iter().chain(lines) {
            let known = self.values.iter().any(|known| known.expose_secret() == form);
            if form.len() >= SHORTEST && !known {
                self.values.push(SecretString::from(form));
            }
        }
        // A long value goes first, so that a part of it does not leave the rest in the open.
        self.values.sort_by_key(|value| std::cmp::Reverse(value.expose_secret().len()));
    }

    /// Adds every value of a core Secret; other objects hold none that we know of.
    pub fn add_object(&mut self, object: &Object) {
        if !object.is_secret() {
            return;
        }
        for (field, encoded) in [("/data", true), ("/stringData", false)] {
            let Some(Value::Object(pairs)) = object.at(field) else { continue };
            for text in pairs.values().filter_map(Value::as_str) {
                let clear = encoded.then(|| STANDARD.decode(text.trim()).ok()).flatten();
                match clear.as_deref().map(std::str::from_utf8) {
                    Some(Ok(clear)) => self.add(clear),
                    _ => self.add(text),
                }
            }
        }
    }

    /// `text` without any known value.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            let value = value.expose_secret();
            if text.contains(value) {
                text = text.replace(value, HIDDEN);
            }
        }
        text
    }

    /// A copy of `object` that may be shown: values of Secrets are hidden, and so is what a client-side apply wrote
    /// down about them.
    pub fn shown(&self, object: &Value) -> Value {
        let mut shown = object.clone();
        let secret = object.get("kind").and_then(Value::as_str) == Some("Secret")
            && object.get("apiVersion").and_then(Value::as_str) == Some("v1");
        if secret {
            for field in ["data", "stringData"] {
                if let Some(Value::Object(pairs)) = shown.get_mut(field) {
                    pairs.values_mut().for_each(|value| *value = Value::from(HIDDEN));
                }
            }
        }
        self.walk(&mut shown);
        shown
    }

    fn walk(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                let hidden = self.hide(text);
                if hidden != *text {
                    *text = hidden;
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| self.walk(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.walk(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_secrets_are_hidden_in_every_form() {
        let encoded = STANDARD.encode("hunter2-long");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": encoded}, "stringData": {"b": "first-line\nsecond-line"}});
        let mut mask = Mask::default();
        mask.add_object(&Object::new(secret.clone(), "t").unwrap());
        let text = mask.hide(&format!("x hunter2-long y {encoded} z second-line"));
        assert_eq!(text, format!("x {HIDDEN} y {HIDDEN} z {HIDDEN}"));
        let shown = mask.shown(&secret).to_string();
        assert!(!shown.contains(&encoded) && !shown.contains("first-line"), "{shown}");
        let other = mask.shown(&json!({"kind": "ConfigMap", "data": {"k": "has hunter2-long inside"}}));
        assert_eq!(other["data"]["k"], format!("has {HIDDEN} inside"));
        assert!(!format!("{mask:?}").contains("hunter2"));
    }
}
