//! The delegate REST protocol (protocol facts §1–5) and our additions to it (ADR 0002).
//!
//! Foreign clients and our agents speak on the same paths; what is ours goes only to clients that announced
//! `delegateExt`. Every path but the account's status asks for a bearer.

mod access;
mod acquire;
mod calls;
mod events;
mod ext;
mod registration;
mod reply;
mod response;
mod stubs;

use crate::app::App;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use proto::limits::{MAX_CHECKPOINT_BYTES, MAX_REGISTER_BODY_BYTES, MAX_RESPONSE_BODY_BYTES};

/// All routes below `/api/agent` and `/api/account`.
pub fn router(app: App) -> Router {
    let registration = Router::new()
        .route("/api/agent/delegates/register", post(registration::register))
        .route("/api/agent/delegates/heartbeat-with-polling", post(registration::heartbeat))
        .route("/api/agent/delegates/unregister", post(registration::unregister))
        .route("/api/agent/delegates/properties", post(stubs::empty))
        .route("/api/agent/delegates/connectionHeartbeat/{delegate}", post(stubs::empty))
        .route("/api/agent/delegates/register-delegate-capacity/{delegate}", post(stubs::no_content))
        .layer(DefaultBodyLimit::max(MAX_REGISTER_BODY_BYTES));
    let tasks = Router::new()
        .route("/api/agent/delegates/{delegate}/task-events", get(events::poll))
        .route("/api/agent/v2/delegates/{delegate}/tasks/{task}/acquire", put(acquire::acquire))
        .route("/api/agent/v2/tasks/{task}/delegates/{delegate}", post(response::respond))
        .route("/api/agent/ext/calls", post(calls::calls))
        .layer(DefaultBodyLimit::max(MAX_RESPONSE_BODY_BYTES));
    let ext = Router::new()
        .route("/api/agent/ext/tasks/{task}/checkpoint", put(ext::checkpoint))
        .route("/api/agent/ext/tasks/{task}/progress", put(ext::progress))
        .layer(DefaultBodyLimit::max(MAX_CHECKPOINT_BYTES));
    let stubs = Router::new()
        .route("/api/agent/delegates/configuration", get(stubs::configuration))
        .route("/api/agent/delegates/{delegate}/profile", get(stubs::empty))
        .route("/api/agent/delegates/jreVersion", get(stubs::empty))
        .route("/api/agent/delegates/logging-token", get(stubs::empty))
        .route("/api/agent/infra-download/delegate-auth/delegate/logging-token", get(stubs::empty))
        .route("/api/account/{account}/status", get(stubs::account_status));
    Router::new()
        .merge(registration)
        .merge(tasks)
        .merge(ext)
        .merge(stubs)
        .fallback(reply::not_found)
        .method_not_allowed_fallback(reply::method_not_allowed)
        .with_state(app)
}
