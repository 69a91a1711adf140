//! Limits that hold for every Kubernetes step of an agent.

use std::time::Duration;

/// Limits of the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long one request to an API server may take.
    pub request_timeout: Duration,
    /// How many objects are applied beside each other.
    pub apply_concurrency: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { request_timeout: Duration::from_secs(30), apply_concurrency: 8 }
    }
}
