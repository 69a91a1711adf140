//! Limits that hold for every Kubernetes step of an agent.

use std::path::PathBuf;
use std::time::Duration;

/// Limits of the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long one request to an API server may take.
    pub request_timeout: Duration,
    /// How many objects are applied beside each other.
    pub apply_concurrency: usize,
    /// How long an API server that is away or asks to slow down is waited for.
    pub patience: Duration,
    /// How long a new definition may take until it is served.
    pub definition_timeout: Duration,
    /// How many successful releases are kept for rollbacks.
    pub kept_releases: usize,
    /// Kubeconfig of the agent; `None`: the in-cluster account, else what `KUBECONFIG` names.
    pub kubeconfig: Option<PathBuf>,
    /// Authorities in PEM that an OpenID provider is trusted by, beside those of the machine. The API server itself has
    /// its own in the connector.
    pub ca_pem: Option<Vec<u8>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            request_timeout: Duration::from_secs(30),
            apply_concurrency: 8,
            patience: Duration::from_secs(30),
            definition_timeout: Duration::from_secs(60),
            kept_releases: 5,
            kubeconfig: None,
            ca_pem: None,
        }
    }
}
