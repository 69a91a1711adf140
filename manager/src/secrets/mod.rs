//! The local secret store: values sealed by the manager's key at rest, and sealed to one agent's key on the way out
//! (DESIGN D11, settled facts §1.3).
//!
//! A clear value lives in this module only, inside [`SecretBytes`], between opening and sealing. It is never logged,
//! never part of an error, and no API returns it.

mod key;
mod local;
#[cfg(test)]
mod tests;

pub use key::{KeyError, ManagerKey};
pub use local::{LocalSecrets, MAX_SECRET_BYTES, SecretsError, scoped_candidates};

use zeroize::Zeroizing;

/// Clear bytes of a secret, wiped on drop. It has no `Debug`, `Display` or `Serialize` on purpose.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes ownership of clear bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        SecretBytes(Zeroizing::new(bytes))
    }

    /// The clear bytes. Every caller seals them again or compares them, nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
