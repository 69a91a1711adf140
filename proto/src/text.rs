//! Text that may stand for a secret, and references to secrets.
//!
//! A manager never writes a clear secret into a task. It leaves the placeholder
//! `${ngSecretManager.obtain("REF", TOKEN)}` in the field and seals the value to the agent beside it. [`Text`] is the
//! type of a field in which the agent may replace such placeholders; a plain `String` field is never touched.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Text in which the agent replaces secret placeholders just before use.
///
/// **Shape**: UTF-8; zero or more placeholders among ordinary characters. It holds no clear secret, so it may be
/// logged, journalled and compared.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl Text {
    /// The text with its placeholders as they stand.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Text(value.to_owned())
    }
}

impl From<String> for Text {
    fn from(value: String) -> Self {
        Text(value)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The scoped id of a secret (`db_pw`, `org.db_pw`, `account.db_pw`). Never its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretRef(pub String);

/// The text that stands for a secret inside a [`Text`], as Harness writes it before a task is built.
///
/// `token` is drawn once per execution, so that text written by a pipeline author cannot forge a placeholder.
pub fn placeholder(secret: &SecretRef, token: i64) -> String {
    format!("${{ngSecretManager.obtain(\"{}\", {token})}}", secret.0)
}

/// One placeholder found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Byte range of the whole placeholder.
    pub range: std::ops::Range<usize>,
    /// The secret it names.
    pub secret: SecretRef,
    /// The token it carries; compare it with the execution's before use.
    pub token: i64,
}

/// Finds every placeholder in `text`, left to right. Malformed ones are left out and stay literal text.
pub fn placeholders(text: &str) -> Vec<Placeholder> {
    const HEAD: &str = "${ngSecretManager.obtain(\"";
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(HEAD)) {
        let start = from + at;
        let body_at = start + HEAD.len();
        from = body_at;
        let Some(body) = text.get(body_at..) else { break };
        let Some(quote) = body.find('"') else { break };
        let Some(after) = body.get(quote + 1..) else { break };
        let Some(close) = after.find(")}") else { continue };
        let (Some(name), Some(argument)) = (body.get(..quote), after.get(..close)) else { continue };
        let Some(token) = argument.trim_start().strip_prefix(',').and_then(|t| t.trim().parse().ok()) else {
            continue;
        };
        let end = body_at + quote + 1 + close + 2;
        found.push(Placeholder { range: start..end, secret: SecretRef(name.to_owned()), token });
        from = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_with_their_tokens_and_forged_ones_keep_theirs() {
        let secret = SecretRef("org.db_pw".into());
        let text = format!("a {} b {}", placeholder(&secret, 123), placeholder(&secret, -4));
        let found = placeholders(&text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].token, 123);
        assert_eq!(found[1].token, -4);
        assert_eq!(&text[found[0].range.clone()], "${ngSecretManager.obtain(\"org.db_pw\", 123)}");
    }

    #[test]
    fn malformed_placeholders_stay_text() {
        for text in [
            "${ngSecretManager.obtain(\"x",
            "${ngSecretManager.obtain(\"x\")}",
            "${ngSecretManager.obtain(\"x\", y)}",
        ] {
            assert!(placeholders(text).is_empty(), "{text}");
        }
    }
}
