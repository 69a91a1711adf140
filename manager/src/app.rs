//! What every part of the manager shares. Built once by [`crate::server::run`], handed around as [`App`].

use crate::auth::{Credentials, LogTokens};
use crate::clock::Clock;
use crate::logstore::LogStore;
use crate::policy::Judges;
use crate::queue::Queue;
use crate::secrets::ManagerKey;
use crate::store::Store;
use crate::store::changes::Changes;
use async_trait::async_trait;
pub use proto::task::HostKeyMode;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Settings of the manager, already checked for shape by the command line.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// Where everything lives; made with mode 0700 if it is missing.
    pub data_dir: PathBuf,
    /// Address to listen on, such as `127.0.0.1:8840`; port 0 takes a free one.
    pub listen: String,
    /// PEM chain. Both or none of `tls_cert` and `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// PEM key.
    pub tls_key: Option<PathBuf>,
    /// Allows an address that is not loopback without TLS.
    pub insecure_http: bool,
    /// How long a task waits while no connected agent satisfies its selectors (settled facts §1.5).
    pub agent_wait: Duration,
    /// What to do about SSH host keys; an agent's `known_hosts_mode` overrides it for that agent.
    pub host_keys: HostKeyMode,
    /// Key file outside of the data directory (`DELEGATE_MANAGER_KEY_FILE`).
    pub key_file: Option<PathBuf>,
}

impl ManagerConfig {
    /// The defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        ManagerConfig {
            data_dir: data_dir.into(),
            listen: "127.0.0.1:8840".to_owned(),
            tls_cert: None,
            tls_key: None,
            insecure_http: false,
            agent_wait: Duration::from_mins(5),
            host_keys: HostKeyMode::default(),
            key_file: None,
        }
    }
}

/// Why secrets of a task could not be sealed to an agent. Repeats no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no secret of this reference. The task cannot run anywhere.
    #[error("secret `{0}` does not exist")]
    Missing(String),
    /// No step of the execution has given this secret output.
    #[error("the execution has no secret output `{output}` of `{node}`")]
    NoOutput {
        /// Node of the step.
        node: String,
        /// Path of the output.
        output: String,
    },
    /// The agent's public key cannot be used.
    #[error("the agent's public key cannot be used")]
    PublicKey,
    /// The store or the key failed; another try may help.
    #[error("secrets cannot be read: {0}")]
    Broken(String),
}

/// Seals secrets to one agent (DESIGN D11). Implemented by the secret store.
#[async_trait]
pub trait SecretProvider: Send + Sync {
    /// The sealed value of each reference, base64, sealed to `public_key` (base64 X25519). `output/NODE/NAME` is a secret
    /// output of `execution`; a task outside of an execution has none.
    ///
    /// **Errors**: the first reference that does not exist; nothing is returned for the others then.
    async fn sealed_for(
        &self,
        execution: &str,
        refs: &[String],
        public_key: &str,
    ) -> Result<BTreeMap<String, String>, SealError>;
}

/// What every part of the manager shares.
pub struct AppState {
    /// Settings.
    pub config: ManagerConfig,
    /// The account; one per manager (`default`).
    pub account: String,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What was committed, as it happens.
    pub changes: Arc<Changes>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Seals at rest.
    pub key: Arc<ManagerKey>,
    /// Delegate tokens and API keys.
    pub credentials: Arc<Credentials>,
    /// Log-service tokens.
    pub log_tokens: Arc<LogTokens>,
    /// Agents, queued tasks, who may have what.
    pub queue: Arc<Queue>,
    /// Log bodies.
    pub logs: Arc<dyn LogStore>,
    /// Where policies are asked.
    pub judges: Judges,
    /// Seals secrets to agents.
    pub secrets: Arc<dyn SecretProvider>,
    /// Cancelled when the manager stops: long polls and tails end at once.
    pub stop: CancellationToken,
}

/// A shared [`AppState`].
pub type App = Arc<AppState>;
