//! Starts everything, listens, stops everything.
//!
//! Start: address → data directory and its lock → key → store → credentials, queue, logs → engine → ready.
//! Stop: no new connections; long polls and tails end at once; requests under way get [`DRAIN`]; then the engine, the
//! queue's warden and the log syncer end, and the store commits what it has accepted.

mod bootstrap;
mod listen;

use crate::app::{App, AppState, ManagerConfig};
use crate::auth::{Credentials, LogTokens};
use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, EngineError, Running};
use crate::logstore::disk::DiskLogs;
use crate::logstore::{self, LogError};
use crate::perform::ManagerSteps;
use crate::policy::Judges;
use crate::queue::Queue;
use crate::secrets::{KeyError, LocalSecrets, ManagerKey};
use crate::store::changes::Changes;
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{Store, StoreError};
use crate::triggers::Triggers;
use crate::{client_api, delegate_api, harness_api};
use axum::Router;
use axum::routing::get;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub use bootstrap::ACCOUNT;

/// How long requests under way may take after the stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// The manager cannot start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The manager key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The data directory cannot be used. Page: `docs/errors/MGR-001.md`.
    #[error("MGR-001: the data directory {path} cannot be used")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another manager uses the data directory. Page: `docs/errors/MGR-002.md`.
    #[error("MGR-002: another manager is running on {path}")]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// The store cannot be opened or used. Page: `docs/errors/MGR-003.md`.
    #[error("MGR-003: the database {path} cannot be used")]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The log folder cannot be used. Page: `docs/errors/MGR-006.md`.
    #[error("MGR-006: the log folder cannot be used")]
    Logs(#[source] LogError),
    /// The executions that were open cannot be read.
    #[error("MGR-003: the open executions cannot be read")]
    Engine(#[source] EngineError),
    /// A certificate or a key for TLS. Page: `docs/errors/MGR-004.md`.
    #[error("MGR-004: TLS: {what}")]
    Tls {
        /// What is wrong, with the file's name.
        what: String,
    },
    /// The address may not be listened on without TLS. Page: `docs/errors/MGR-005.md`.
    #[error(
        "MGR-005: {address} is not a loopback address: give --tls-cert and --tls-key, or --insecure-http if a proxy in \
         front does TLS"
    )]
    Insecure {
        /// The address.
        address: String,
    },
    /// The address cannot be listened on. Page: `docs/errors/MGR-007.md`.
    #[error("MGR-007: cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ManagerError {
    /// The code with a page in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            ManagerError::DataDir { .. } => "MGR-001",
            ManagerError::Locked { .. } => "MGR-002",
            ManagerError::Store { .. } | ManagerError::Engine(_) => "MGR-003",
            ManagerError::Tls { .. } => "MGR-004",
            ManagerError::Insecure { .. } => "MGR-005",
            ManagerError::Logs(_) => "MGR-006",
            ManagerError::Listen { .. } => "MGR-007",
            ManagerError::Key(_) => "MGR-101",
        }
    }
}

/// Runs a manager until `shutdown` is cancelled. `on_ready` gets the base URL once requests are answered.
///
/// **Errors**: everything that keeps it from starting; a running manager only ends by `shutdown`. **Cancel**: use
/// `shutdown`; a dropped future leaves background tasks until the runtime ends.
pub async fn run(
    config: ManagerConfig,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(&str),
) -> Result<(), ManagerError> {
    run_with(config, Arc::new(SystemClock), shutdown, |url, _| on_ready(url)).await
}

/// As [`run`], with a clock, and with the state handed out for tests that look behind the API.
pub async fn run_with(
    config: ManagerConfig,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(&str, &App),
) -> Result<(), ManagerError> {
    let listener = listen::Listener::bind(&config)?;
    let _lock = bootstrap::lock(&config.data_dir)?;
    let started = Started::new(config, clock, shutdown.child_token()).await?;
    let result = started.serve(listener, &shutdown, on_ready).await;
    started.stop().await;
    result
}

/// Everything but the listener.
struct Started {
    app: App,
    router: Router,
    engine: Engine,
    running: Running,
    background: Vec<tokio::task::JoinHandle<()>>,
}

impl Started {
    async fn new(
        config: ManagerConfig,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, ManagerError> {
        let database = config.data_dir.join("manager.db");
        let broken = |source| ManagerError::Store { path: database.clone(), source };
        let expected = sqlite::key_id(&database).map_err(broken)?;
        let key = match &config.key_file {
            Some(path) => ManagerKey::open(path, false, expected.as_deref())?,
            None => ManagerKey::open(&config.data_dir.join("manager.key"), true, expected.as_deref())?,
        };
        let key = Arc::new(key);
        let changes = Arc::new(Changes::default());
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&database, key.clone(), changes.clone()).map_err(broken)?);
        let credentials = Arc::new(Credentials::new(ACCOUNT, store.clone(), key.clone(), clock.clone()));
        changes.listen(credentials.clone());
        let queue = Arc::new(Queue::load(store.as_ref(), clock.clone()).await.map_err(broken)?);
        changes.listen(queue.clone());
        let logs = Arc::new(DiskLogs::open(&config.data_dir.join("logs")).map_err(ManagerError::Logs)?);
        let log_secret = bootstrap::log_secret(store.as_ref(), &key).await.map_err(broken)?;
        let app = Arc::new(AppState {
            account: ACCOUNT.to_owned(),
            secrets: Arc::new(LocalSecrets::new(store.clone(), key.clone())),
            log_tokens: Arc::new(LogTokens::new(&log_secret)),
            logs: logs.clone(),
            store: store.clone(),
            changes,
            clock: clock.clone(),
            key,
            credentials,
            queue: queue.clone(),
            judges: Judges::default(),
            stop: stop.clone(),
            config,
        });
        let mut background = vec![
            tokio::spawn(queue.watch_over(store, app.config.agent_wait, stop.clone())),
            tokio::spawn(logs.keep_synced(clock, stop.clone())),
        ];
        let (engine, running) = Engine::start(
            app.store.clone(),
            &app.changes,
            app.queue.clone(),
            app.clock.clone(),
            Arc::new(ManagerSteps::new(app.clone())),
        );
        let triggers = Triggers::new(app.clone(), engine.clone());
        app.changes.listen(triggers.clone());
        background.push(tokio::spawn(triggers.clone().process(stop.clone())));
        background.push(tokio::spawn(triggers.clone().keep_time(stop)));
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .merge(delegate_api::router(app.clone()))
            .merge(logstore::http::router(app.clone()))
            .merge(harness_api::router(triggers))
            .merge(client_api::router(app.clone(), engine.clone()));
        Ok(Started { app, router, engine, running, background })
    }

    async fn serve(
        &self,
        listener: listen::Listener,
        shutdown: &CancellationToken,
        on_ready: impl FnOnce(&str, &App),
    ) -> Result<(), ManagerError> {
        let url = listener.url().to_owned();
        bootstrap::first_start(&self.app, &url).await?;
        let open = self.engine.resume_all().await.map_err(ManagerError::Engine)?;
        if open > 0 {
            tracing::info!(open, "executions go on");
        }
        listener.serve(self.router.clone(), shutdown, DRAIN, || on_ready(&url, &self.app)).await
    }

    async fn stop(self) {
        self.app.stop.cancel();
        self.running.stop().await;
        for task in self.background {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task ended badly");
            }
        }
        self.app.changes.close();
    }
}
