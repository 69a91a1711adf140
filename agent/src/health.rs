//! `/api/health` and `/api/metrics` (protocol.md §10.3).
//!
//! Healthy is stricter than Harness': a heartbeat was acknowledged lately *and* the supervisor answers. Before the first
//! registration the agent is not healthy.

use crate::telemetry::Telemetry;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use executor_api::Clock;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Heartbeats come every ten seconds; a minute without an acknowledged one is a lost connection.
const HEARTBEAT_AGE: Duration = Duration::from_secs(60);
/// The supervisor ticks at least once a second.
const TICK_AGE: Duration = Duration::from_secs(30);

/// What the server looks at.
pub(crate) struct Pulse {
    clock: Arc<dyn Clock>,
    beats: Mutex<Beats>,
    spooled: AtomicU64,
}

#[derive(Default)]
struct Beats {
    acknowledged: Option<Instant>,
    tick: Option<Instant>,
}

impl Pulse {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Pulse {
        Pulse { clock, beats: Mutex::default(), spooled: AtomicU64::new(0) }
    }

    pub(crate) fn acknowledged(&self) {
        let now = self.clock.mono();
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).acknowledged = Some(now);
    }

    pub(crate) fn tick(&self, spooled: u64) {
        let now = self.clock.mono();
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).tick = Some(now);
        self.spooled.store(spooled, Ordering::Relaxed);
    }

    /// `Err` says what is wrong.
    fn check(&self) -> Result<(), &'static str> {
        let now = self.clock.mono();
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: Option<Instant>, age| at.is_some_and(|at| now.saturating_duration_since(at) <= age);
        if !fresh(beats.tick, TICK_AGE) {
            return Err("the supervisor does not answer");
        }
        if !fresh(beats.acknowledged, HEARTBEAT_AGE) {
            return Err("no heartbeat was acknowledged in the last minute");
        }
        Ok(())
    }
}

type Shared = (Arc<Pulse>, Arc<Telemetry>);

async fn health(State((pulse, _)): State<Shared>) -> Response {
    let (status, resource, messages) = match pulse.check() {
        Ok(()) => (StatusCode::OK, serde_json::json!("healthy"), serde_json::json!([])),
        Err(problem) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            serde_json::Value::Null,
            serde_json::json!([{"code": "HEALTH_ERROR", "level": "ERROR", "message": problem, "exception": null, "failureTypes": []}]),
        ),
    };
    let body = serde_json::json!({"metaData": {}, "resource": resource, "responseMessages": messages});
    (status, axum::Json(body)).into_response()
}

async fn metrics(State((pulse, telemetry)): State<Shared>) -> Response {
    let text = telemetry.text(pulse.spooled.load(Ordering::Relaxed));
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response()
}

/// Binds the address.
pub(crate) async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    pulse: Arc<Pulse>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) {
    let app = Router::new()
        .route("/api/health", get(health))
        .route("/api/metrics", get(metrics))
        .with_state((pulse, telemetry));
    // Open connections are dropped with the server: nothing here is worth waiting for.
    let server = axum::serve(listener, app).into_future();
    tokio::select! {
        ended = server => {
            if let Err(error) = ended {
                tracing::error!(%error, "the health server ended");
            }
        }
        () = stop.cancelled() => {}
    }
}
