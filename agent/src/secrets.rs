//! What one task may know, and what must be masked for it.

use proto::package::TaskPackage;
use proto::seal::SealKeyPair;
use proto::text::SecretRef;
use secrecy::{ExposeSecret, SecretString};
use secrets::{Masker, TaskSecrets};
use std::collections::BTreeMap;

/// The secrets of a task. Everything that came with it is masked from the first line on: its secrets, the log token, the
/// callback token, and what `base` masks for every task (the agent's own token, the proxy's password).
///
/// `open`: secrets that came open with the package, as a Harness manager hands them out; without them they came sealed.
pub(crate) fn of_task(
    base: &Masker,
    package: &TaskPackage,
    token: i64,
    open: Option<BTreeMap<SecretRef, SecretString>>,
    keys: &SealKeyPair,
) -> TaskSecrets {
    let masker = base.fork();
    for text in [&package.logging.token, &package.delegate.token] {
        masker.add(&SecretString::from(text.clone()));
    }
    for value in &package.secrets {
        masker.add(&SecretString::from(value.expose_secret().to_owned()));
    }
    if let Some(open) = open {
        return TaskSecrets::new(open, token, masker);
    }
    let sealed = package.ext.as_ref().map(|ext| ext.sealed_secrets.clone()).unwrap_or_default();
    TaskSecrets::open_sealed(sealed, keys, token, masker)
}
