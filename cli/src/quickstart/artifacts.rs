//! The artifact server of quickstart: files of one folder over HTTP, with their SHA-256, as Artifactory answers.

use crate::exit::{CliError, Exit};
use crate::output::say;
use crate::shutdown::Signals;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::{Component, Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to serve
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// Serves until SIGTERM; prints `artifacts ready URL`.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let router = Router::new().route("/artifactory/{*path}", get(file)).with_state(args.dir.clone());
    let error = |e: std::io::Error| CliError::failed(format!("no port can be listened on: {e}"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    say(format!("artifacts ready http://{address}/artifactory"));
    let mut signals = Signals::take()?;
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        signals.next().await;
    });
    served.await.map_err(|e| CliError::failed(format!("the server failed: {e}")))?;
    Ok(Exit::Success)
}

async fn file(State(dir): State<PathBuf>, UrlPath(path): UrlPath<String>) -> Response {
    let relative = Path::new(&path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match tokio::fs::read(dir.join(relative)).await {
        Ok(bytes) => {
            let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
            (kind, Body::from(bytes)).into_response()
        }
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}
