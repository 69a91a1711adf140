//! The secrets of one task.

use crate::Masker;
use executor_api::{SecretError, SecretSource, SecretText};
use proto::seal::SealKeyPair;
use proto::text::{SecretRef, Text, placeholders};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// Opens the secrets of one task. Every value is known to the masker before an executor can see it.
pub struct TaskSecrets {
    values: BTreeMap<SecretRef, SecretText>,
    /// Those that came with the task and cannot be opened with this agent's key.
    unreadable: Vec<SecretRef>,
    token: i64,
    masker: Masker,
}

impl fmt::Debug for TaskSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSecrets")
            .field("names", &self.values.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl TaskSecrets {
    /// From values already opened. `token` is `StepTask::secret_token`; placeholders with another one are forged.
    /// All values are registered with `masker` here.
    pub fn new(values: BTreeMap<SecretRef, SecretText>, token: i64, masker: Masker) -> Self {
        for value in values.values() {
            masker.add(value);
        }
        TaskSecrets { values, unreadable: Vec::new(), token, masker }
    }

    /// From sealed values, opened with `open`. A value that `open` refuses is reported as [`SecretError::Sealed`] when
    /// somebody asks for it, so that a step which does not need it still runs.
    pub fn open<S>(
        sealed: impl IntoIterator<Item = (SecretRef, S)>,
        token: i64,
        masker: Masker,
        open: impl Fn(&SecretRef, S) -> Option<SecretText>,
    ) -> Self {
        let mut values = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (name, box_) in sealed {
            match open(&name, box_) {
                Some(value) => {
                    values.insert(name, value);
                }
                None => unreadable.push(name),
            }
        }
        TaskSecrets { unreadable, ..TaskSecrets::new(values, token, masker) }
    }

    /// From the `sealedSecrets` of an acquired task: base64 by reference, sealed to `keys` with the reference as
    /// additional data. A value that is not UTF-8 counts as unreadable: placeholders stand in text.
    pub fn open_sealed(
        sealed: impl IntoIterator<Item = (String, String)>,
        keys: &SealKeyPair,
        token: i64,
        masker: Masker,
    ) -> Self {
        let sealed = sealed.into_iter().map(|(name, value)| (SecretRef(name), value));
        TaskSecrets::open(sealed, token, masker, |name, value| {
            let clear = proto::seal::open(keys, &name.0, &value).ok()?;
            std::str::from_utf8(&clear).ok().map(SecretText::from)
        })
    }

    /// The masker that knows these secrets.
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    fn find(&self, secret: &SecretRef) -> Result<&SecretText, SecretError> {
        match self.values.get(secret) {
            Some(value) => Ok(value),
            None if self.unreadable.contains(secret) => Err(SecretError::Sealed(secret.0.clone())),
            None => Err(SecretError::Missing(secret.0.clone())),
        }
    }
}

impl SecretSource for TaskSecrets {
    fn get(&self, secret: &SecretRef) -> Result<SecretText, SecretError> {
        self.find(secret).cloned()
    }

    fn reveal(&self, text: &Text) -> Result<SecretText, SecretError> {
        let source = text.as_str();
        let mut clear = Zeroizing::new(String::with_capacity(source.len()));
        let mut from = 0;
        for found in placeholders(source) {
            if found.token != self.token {
                return Err(SecretError::Forged(found.secret.0));
            }
            clear.push_str(source.get(from..found.range.start).unwrap_or_default());
            clear.push_str(self.find(&found.secret)?.expose_secret());
            from = found.range.end;
        }
        clear.push_str(source.get(from..).unwrap_or_default());
        Ok(SecretText::from(clear.as_str()))
    }

    fn mask(&self, value: &SecretText) {
        self.masker.add(value);
    }
}
