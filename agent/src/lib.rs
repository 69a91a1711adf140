//! The long-running agent: loop, journal, log pipeline, capacity, health, metrics.
//!
//! [`run`] is the whole of it: it opens key, journal and spool, registers, and then lets the supervisor work until it is
//! told to go down. The modules, from outside in: `config`, `client` (the manager over HTTP), `supervisor` (the one owner
//! of task state), `dispatch` (step to executor), `journal` (durable memory), `logship` (logs), `lease`, `secrets`,
//! `shutdown`, `health`, `telemetry`, `dialect`, `harness`.

mod client;
pub mod config;
mod dialect;
mod dispatch;
mod harness;
mod health;
mod journal;
mod key;
mod lease;
mod logship;
mod secrets;
pub mod shutdown;
mod supervisor;
mod telemetry;

pub use config::{Config, ConfigFault, ConfigFile, Flags, ForeignTasks};
pub use harness::explain_package;
pub use shutdown::ShutdownHandle;

use client::{LogClient, ManagerClient, Refusal};
use executor_api::{Clock, SystemClock};
use health::Pulse;
use key::AgentKey;
use lease::Identity;
use secrecy::{ExposeSecret, SecretString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supervisor::{Deps, Ended};
use telemetry::Telemetry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The agent could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data directory cannot be used.
    #[error("data directory {path} cannot be used (AGT-016)")]
    DataDir {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent runs over the same data directory.
    #[error("data directory {path} is in use by another agent (AGT-017)")]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// The key file cannot be used.
    #[error("the agent's key cannot be loaded (AGT-018)")]
    Key(#[from] key::KeyError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// The HTTP client cannot be built.
    #[error("connections cannot be set up (AGT-019)")]
    Client(#[from] client::ClientError),
    /// An executor cannot be set up.
    #[error("executors cannot be set up (AGT-019)")]
    Executors(#[from] dispatch::SetupError),
    /// The address of the health server cannot be bound.
    #[error("`health_listen` {address} cannot be bound (AGT-020)")]
    HealthListen {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder for recordings cannot be used.
    #[error("`record` {path} cannot be used (AGT-023)")]
    Record {
        /// As configured.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manager refuses the token.
    #[error("the manager does not know this token (AGT-021)")]
    TokenRefused,
    /// The agent was deleted in the manager.
    #[error("this agent was deleted in the manager (AGT-022)")]
    Deleted,
}

impl AgentError {
    /// The code whose page in `docs/errors/` says what to do.
    pub fn code(&self) -> &'static str {
        match self {
            AgentError::DataDir { .. } => "AGT-016",
            AgentError::InUse { .. } => "AGT-017",
            AgentError::Key(_) => "AGT-018",
            AgentError::Journal(error) => error.code(),
            AgentError::Client(_) | AgentError::Executors(_) => "AGT-019",
            AgentError::HealthListen { .. } => "AGT-020",
            AgentError::Record { .. } => "AGT-023",
            AgentError::TokenRefused => "AGT-021",
            AgentError::Deleted => "AGT-022",
        }
    }
}

/// Runs the agent until `shutdown` is used or the manager refuses it for good. `on_ready` is called once, with name and
/// id, after the first registration.
///
/// **Cancel**: dropping the future is a crash: the next start over the same data directory goes on. **Repeat**: after it
/// returned, it may be called again over the same data directory.
pub async fn run(
    config: Config,
    shutdown: ShutdownHandle,
    on_ready: impl FnOnce(&str, &str) + Send,
) -> Result<(), AgentError> {
    run_with(config, shutdown, Arc::new(SystemClock), on_ready).await
}

async fn run_with(
    config: Config,
    shutdown: ShutdownHandle,
    clock: Arc<dyn Clock>,
    on_ready: impl FnOnce(&str, &str) + Send,
) -> Result<(), AgentError> {
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    harness::announce(&config);
    // Several parts of the tree bring TLS; one provider serves all (DESIGN D14). An earlier call set it already.
    let _unused = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let data = config.data_dir.clone();
    let _lock = lock(&data)?;
    let telemetry = Arc::new(Telemetry::new(&config.name));
    let pulse = Arc::new(Pulse::new(clock.clone()));
    let key = AgentKey::load_or_create(&data.join("agent.key"))?;
    let sealer = Arc::new(key.sealer());
    let (path, journal_sealer, journal_telemetry) =
        (data.join("journal.db"), sealer.clone(), telemetry.clone());
    let opened =
        tokio::task::spawn_blocking(move || journal::Journal::open(&path, journal_sealer, journal_telemetry))
            .await;
    let (journal, replayed) = match opened {
        Ok(opened) => opened?,
        Err(error) => return Err(AgentError::DataDir { path: data, source: io::Error::other(error) }),
    };
    let http = client::http_client(&config, clock.clone())?;
    let identity = Identity {
        host: config.host_name.clone().unwrap_or_else(machine_name),
        ip: lease::own_address(&config.manager_url),
        instance: journal.instance().to_owned(),
        public_key: key.pair.public().to_owned(),
    };
    let manager = ManagerClient::new(&config, http.clone(), &identity.host, clock.clone());
    let (features, known) = watch::channel(None);
    let ship = logship::LogShip::new(logship::Options {
        root: data.join("spool"),
        client: LogClient::new(http, &config.log_service_url, &config.account_id),
        features: known,
        limits: config.spool,
        sealer,
        clock: clock.clone(),
        telemetry: telemetry.clone(),
    });
    let _shipping = ship.guard();
    let cache = data.join("cache");
    let executors = dispatch::Executors::new(&config, &cache)?;
    executors.prune().await;
    let recorder = config.record.clone().map(|path| {
        harness::Recorder::new(path.clone()).map_err(|source| AgentError::Record { path, source })
    });
    let recorder = recorder.transpose()?;
    let aliases = Arc::new(config.host_aliases.clone());
    let ca_pem = executors.ca_pem().map(<[u8]>::to_vec);
    let prover = harness::Prover::new(&config, ca_pem, aliases.clone(), clock.clone());
    let address = config.health_listen;
    let listener =
        health::bind(address).await.map_err(|source| AgentError::HealthListen { address, source })?;
    if let Ok(bound) = listener.local_addr() {
        tracing::info!(%bound, "health and metrics");
    }
    let stop_health = CancellationToken::new();
    let serving =
        tokio::spawn(health::serve(listener, pulse.clone(), telemetry.clone(), stop_health.clone()));
    // If this future is dropped, the server goes with it.
    let _health = stop_health.clone().drop_guard();
    let deps = Arc::new(Deps {
        identity,
        client: manager,
        ship,
        journal: journal.clone(),
        key,
        executors,
        features,
        clock: clock.clone(),
        telemetry,
        pulse,
        masker: masked_everywhere(&config),
        prover,
        recorder,
        aliases,
        scratch: data.join("scratch"),
        cache,
        config,
    });
    let ended = supervisor::run(deps, replayed, shutdown.watch(), on_ready).await;
    stop_health.cancel();
    if let Err(error) = serving.await {
        tracing::debug!(%error, "the health server did not end in order");
    }
    // The writer folds its log in and closes the file.
    if let Err(error) = tokio::task::spawn_blocking(move || journal.close()).await {
        tracing::debug!(%error, "the journal did not close in order");
    }
    match ended {
        Ended::Shutdown => Ok(()),
        Ended::Refused(Refusal::Deleted) => Err(AgentError::Deleted),
        Ended::Refused(Refusal::InvalidToken | Refusal::RevokedToken | Refusal::ExpiredToken) => {
            Err(AgentError::TokenRefused)
        }
    }
}

/// Makes the data directory and holds it for this process.
fn lock(data: &Path) -> Result<File, AgentError> {
    let unusable = |source| AgentError::DataDir { path: data.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(unusable)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data.join("agent.lock"))
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AgentError::InUse { path: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// What no log and no result may show, whatever the task.
fn masked_everywhere(config: &Config) -> ::secrets::Masker {
    let masker = ::secrets::Masker::new();
    masker.add(&SecretString::from(config.token.expose_hex().to_owned()));
    if let Some((_, password)) = config.proxy.as_ref().and_then(|proxy| proxy.login.as_ref()) {
        masker.add(&SecretString::from(password.expose_secret().to_owned()));
    }
    masker
}

fn machine_name() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = read.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    name.unwrap_or_else(|| "unknown".to_owned())
}
