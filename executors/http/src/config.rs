//! What the executor needs to connect.

use proto::limits::MAX_HTTP_BODY_BYTES;
use std::time::Duration;

/// Settings of the agent for Http steps.
#[derive(Clone, Debug)]
pub struct Config {
    /// Further certificate authorities, PEM, beside those of the system (`--ca-file`).
    pub ca_pem: Vec<u8>,
    /// Limit for one connection attempt.
    pub connect_timeout: Duration,
    /// How many redirects are followed.
    pub max_redirects: usize,
    /// How much of a response body is read.
    pub max_body_bytes: usize,
    /// Pauses between attempts after a lost or refused connection; its length is the number of further attempts.
    pub retry_pauses: Vec<Duration>,
    /// Whether cloud metadata endpoints may be asked. Off: they hand out the agent's own credentials to whoever writes a
    /// pipeline.
    pub allow_metadata: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ca_pem: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            max_redirects: 10,
            max_body_bytes: MAX_HTTP_BODY_BYTES,
            retry_pauses: vec![Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)],
            allow_metadata: false,
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `ca_pem` is no PEM bundle of certificates.
    #[error("the CA file holds no readable PEM certificates")]
    Ca(#[source] reqwest::Error),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
}
