//! What holds for every AWS call of an agent.

use executor_api::{Clock, SecretText, SystemClock};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How the client is made.
#[derive(Clone)]
pub struct Settings {
    /// Certificates in PEM form that are trusted beside those of the machine.
    pub ca_pem: Option<Vec<u8>>,
    /// The agent's variables that begin with `AWS_`, and `HOME` (profiles are read below it). Taken once by the caller;
    /// the process' own environment is never read here.
    pub environment: BTreeMap<String, String>,
    /// How long one request may take, its connection included.
    pub request_timeout: Duration,
    /// How long throttling, answers 5xx and lost connections are waited out, from the first of them in a call.
    pub patience: Duration,
    /// The proxy of the agent, if it has one. Aliased hosts, loopback and link-local addresses are reached directly.
    pub proxy: Option<Proxy>,
    /// The time that credentials expire by.
    pub clock: Arc<dyn Clock>,
}

/// A proxy for outgoing connections.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http://host:port`.
    pub url: String,
    /// User and password.
    pub login: Option<(String, SecretText)>,
    /// Suffixes of host names that are reached directly, comma-separated.
    pub no_proxy: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ca_pem: None,
            environment: BTreeMap::new(),
            request_timeout: Duration::from_secs(30),
            // Long enough for a failover behind an endpoint and for a bucket that others have emptied.
            patience: Duration::from_secs(120),
            proxy: None,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of variables may be keys.
        let names: Vec<&str> = self.environment.keys().map(String::as_str).collect();
        f.debug_struct("Settings")
            .field("environment", &names)
            .field("request_timeout", &self.request_timeout)
            .field("patience", &self.patience)
            .field("proxy", &self.proxy.as_ref().map(|proxy| &proxy.url))
            .finish_non_exhaustive()
    }
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The extra certificates are not PEM, or hold none.
    #[error("the extra certificate authorities are not usable PEM certificates")]
    Certificates,
    /// The proxy is not a URL.
    #[error("the proxy `{0}` cannot be used")]
    Proxy(String),
    /// The TLS set-up failed; usually the machine has no certificate authorities at all.
    #[error("the HTTP client could not be made; are certificate authorities installed?")]
    Build(#[source] reqwest::Error),
}
