//! The variables of a task as a script sees them.

use crate::{SecretError, SecretText, StepContext};
use secrecy::ExposeSecret as _;

/// Why the variables cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A value needs a secret that cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No environment can carry it.
    #[error("variable `{0}` holds a NUL byte")]
    Nul(String),
}

/// What a script gets.
pub struct Exported {
    /// Names and values in clear.
    pub values: Vec<(String, SecretText)>,
    /// One for each variable that no shell could see.
    pub notices: Vec<String>,
}

/// Whether a shell can have a variable of this name.
pub fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl StepContext {
    /// The variables of the task.
    ///
    /// **Errors**: a secret that is not there; a NUL byte in a value.
    pub fn exported(&self) -> Result<Exported, ExportError> {
        let (mut values, mut notices) = (Vec::new(), Vec::new());
        for (name, value) in &self.task.env {
            if !is_variable_name(name) {
                notices.push(format!("variable `{name}` is not exported: it is no shell variable name"));
                continue;
            }
            let value = self.secrets.reveal(value)?;
            if value.expose_secret().contains('\0') {
                return Err(ExportError::Nul(name.clone()));
            }
            values.push((name.clone(), value));
        }
        Ok(Exported { values, notices })
    }
}
