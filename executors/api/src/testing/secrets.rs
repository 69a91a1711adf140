//! Secrets with fixed values.

use crate::{SecretError, SecretSource, SecretText};
use proto::text::{SecretRef, Text, placeholders};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A [`SecretSource`] over a table. It replaces placeholders exactly as the agent does: only those that carry `token`.
#[derive(Default)]
pub struct FixedSecrets {
    token: i64,
    values: BTreeMap<String, SecretText>,
    masked: Mutex<Vec<String>>,
}

impl FixedSecrets {
    /// Secrets by scoped id; `token` is the one that genuine placeholders carry.
    pub fn new(token: i64, values: impl IntoIterator<Item = (String, String)>) -> Self {
        FixedSecrets {
            token,
            values: values.into_iter().map(|(k, v)| (k, SecretText::from(v))).collect(),
            masked: Mutex::default(),
        }
    }

    /// Every value that the masker was told of, in order.
    pub fn masked(&self) -> Vec<String> {
        self.masked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SecretSource for FixedSecrets {
    fn get(&self, secret: &SecretRef) -> Result<SecretText, SecretError> {
        self.values.get(&secret.0).cloned().ok_or_else(|| SecretError::Missing(secret.0.clone()))
    }

    fn reveal(&self, text: &Text) -> Result<SecretText, SecretError> {
        let source = text.as_str();
        let mut clear = String::with_capacity(source.len());
        let mut from = 0;
        for found in placeholders(source) {
            if found.token != self.token {
                return Err(SecretError::Forged(found.secret.0));
            }
            clear.push_str(source.get(from..found.range.start).unwrap_or_default());
            clear.push_str(self.get(&found.secret)?.expose_secret());
            from = found.range.end;
        }
        clear.push_str(source.get(from..).unwrap_or_default());
        Ok(SecretText::from(clear))
    }

    fn mask(&self, value: &SecretText) {
        self.masked.lock().unwrap_or_else(PoisonError::into_inner).push(value.expose_secret().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::text::placeholder;

    #[test]
    fn only_placeholders_of_this_execution_are_replaced() {
        let secrets = FixedSecrets::new(7, [("pw".to_owned(), "s3cret".to_owned())]);
        let reference = SecretRef("pw".into());
        let text = Text(format!("a={} b", placeholder(&reference, 7)));
        assert_eq!(secrets.reveal(&text).unwrap().expose_secret(), "a=s3cret b");
        let forged = Text(placeholder(&reference, 8));
        assert_eq!(secrets.reveal(&forged).unwrap_err(), SecretError::Forged("pw".into()));
        assert_eq!(secrets.get(&SecretRef("x".into())).unwrap_err(), SecretError::Missing("x".into()));
    }
}
