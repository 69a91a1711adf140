//! What executions wait for: infrastructures and times.

use super::Millis;

/// A stage that holds an infrastructure or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Execution.
    pub execution_id: String,
    /// Its stage.
    pub node: String,
    /// When it came.
    pub at: Millis,
}

/// A due timer.
#[derive(Clone, Debug, PartialEq)]
pub struct DueTimer {
    /// Execution.
    pub execution_id: String,
    /// Timer id.
    pub timer: String,
    /// When it was due.
    pub at: Millis,
}
