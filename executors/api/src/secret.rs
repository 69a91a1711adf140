//! Where an executor gets clear secrets from, as late as possible.

use proto::text::{SecretRef, Text};

/// A clear secret in memory: no `Display`, `Debug` prints nothing of it, zeroed on drop, not serialisable.
pub type SecretText = secrecy::SecretString;

/// A secret could not be had. Names the secret, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The task does not carry it and no provider of this agent has it.
    #[error("secret `{0}` is not available to this task")]
    Missing(String),
    /// It could not be opened with this agent's key.
    #[error("secret `{0}` could not be decrypted with this agent's key")]
    Sealed(String),
    /// A placeholder carried a foreign token: somebody wrote it by hand.
    #[error("a placeholder for secret `{0}` does not belong to this execution")]
    Forged(String),
}

/// Opens secrets of one task. Everything it hands out is known to the masker before it is handed out.
pub trait SecretSource: Send + Sync {
    /// The value of one secret.
    fn get(&self, secret: &SecretRef) -> Result<SecretText, SecretError>;
    /// `text` with every genuine placeholder replaced.
    fn reveal(&self, text: &Text) -> Result<SecretText, SecretError>;
    /// Tells the masker of a value that became secret on the way: a token got from a registry, a Secret output.
    fn mask(&self, value: &SecretText);
}
