//! The sample application: a small web server whose version, health and configuration are files in its folder.

use crate::exit::{CliError, Exit};
use crate::output::say;
use crate::shutdown::Signals;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder with VERSION, STATUS and conf/
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Port on 127.0.0.1
    #[arg(long)]
    pub(crate) port: u16,
}

struct App {
    dir: PathBuf,
    requests: AtomicU64,
    /// How often somebody read the metrics.
    reads: watch::Sender<u64>,
}

impl App {
    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default().trim().to_owned()
    }
}

/// Serves until SIGTERM. `run/ready` in its folder appears when it listens, and goes when it does no more.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let app =
        Arc::new(App { dir: args.dir.clone(), requests: AtomicU64::new(0), reads: watch::Sender::new(0) });
    let router = Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/measured", get(measured))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", args.port))
        .await
        .map_err(|e| CliError::failed(format!("port {} cannot be listened on: {e}", args.port)))?;
    let mut signals = Signals::take()?;
    mark_ready(&args.dir)?;
    say(format!("app ready http://127.0.0.1:{}", args.port));
    // Open keep-alive connections of a scraper must not hold up a stop, so nothing is drained.
    tokio::select! {
        served = async { axum::serve(listener, router).await } => {
            served.map_err(|e| CliError::failed(format!("the server failed: {e}")))?;
        }
        _ = signals.next() => {}
    }
    // The port is free: the server went with the select.
    let path = args.dir.join("run").join("ready");
    std::fs::remove_file(&path).map_err(|e| CliError::file("removed", &path, &e))?;
    Ok(Exit::Success)
}

fn mark_ready(dir: &Path) -> Result<(), CliError> {
    let path = dir.join("run").join("ready");
    std::fs::create_dir_all(dir.join("run"))
        .and_then(|()| std::fs::write(&path, "ready\n"))
        .map_err(|e| CliError::file("written", &path, &e))
}

async fn index(State(app): State<Arc<App>>) -> String {
    app.requests.fetch_add(1, Ordering::Relaxed);
    format!("sample application {}\n{}\n", app.file("VERSION"), app.file("conf/app.properties"))
}

async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    app.requests.fetch_add(1, Ordering::Relaxed);
    Json(json!({"status": app.file("STATUS"), "version": app.file("VERSION")}))
}

/// Answers once the metrics of this process have been read twice: when a scraper comes again, it has stored the first
/// sample.
async fn measured(State(app): State<Arc<App>>) -> &'static str {
    // The sender lives in `app`, so this waits for the number and nothing else.
    match app.reads.subscribe().wait_for(|reads| *reads >= 2).await {
        Ok(_) => "measured\n",
        Err(_) => "ending\n",
    }
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    app.reads.send_modify(|reads| *reads += 1);
    let requests = app.requests.load(Ordering::Relaxed);
    format!(
        "# TYPE app_requests_total counter
app_requests_total {requests}
# TYPE app_errors gauge
app_errors 0
"
    )
}
