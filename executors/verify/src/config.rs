//! What the executor needs to connect, and the limits of an analysis.

use std::time::Duration;

/// Settings of the agent for Verify steps.
#[derive(Clone, Debug)]
pub struct Config {
    /// Further certificate authorities, PEM, beside those of the system (`--ca-file`).
    pub ca_pem: Vec<u8>,
    /// Limit for one connection attempt.
    pub connect_timeout: Duration,
    /// Limit for one query.
    pub query_timeout: Duration,
    /// How many failed queries in a row are tolerated.
    pub error_budget: u32,
    /// Pause after a failed query. In a rehearsal it is divided like the window.
    pub retry_pause: Duration,
    /// How long after the end of a window samples of CloudWatch may still come (facts C3.3). Divided in a rehearsal; it ends
    /// before the step's timer does.
    pub cloudwatch_lag: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ca_pem: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            // Prometheus itself gives up after two minutes; a query that takes longer than this on a live window is
            // of no use to a gate.
            query_timeout: Duration::from_secs(30),
            // The limits of Argo Rollouts (facts C3.3).
            error_budget: 4,
            retry_pause: Duration::from_secs(10),
            cloudwatch_lag: Duration::from_secs(120),
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
