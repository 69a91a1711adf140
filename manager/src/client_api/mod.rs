//! The manager's API for people and scripts: JSON under `/api/v1` (ADR 0003).
//!
//! One file per resource. Every path below `/api/v1` asks for an API key; bodies are bounded; every refusal has the
//! shape of [`error::ApiError`]. Handlers read and write the store and ask the engine; none of them decides what a
//! pipeline does.

mod actions;
mod agents;
mod apply;
mod approvals;
pub(crate) mod body;
mod connectors;
mod credentials;
mod entities;
mod error;
mod executions;
mod harness;
mod hostkeys;
mod logs;
pub mod openapi;
mod pipelines;
mod secrets;
mod tasks;
mod triggers;
mod users;
mod view;

use crate::app::App;
use crate::auth::needed;
use crate::engine::Engine;
use crate::secrets::LocalSecrets;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use error::ApiError;
use std::ops::Deref;
use std::sync::Arc;

/// Header with the API key, as Harness names it.
pub const API_KEY_HEADER: &str = "x-api-key";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api(Arc<ApiState>);

pub(crate) struct ApiState {
    pub(crate) app: App,
    pub(crate) engine: Engine,
    pub(crate) secrets: LocalSecrets,
}

impl Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.0
    }
}

/// Who asked, taken from the API key.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) String);

type Answer<T> = Result<T, ApiError>;

/// All routes below `/api/v1`. The caller adds them to its own router; the delegate API lies beside them.
pub fn router(app: App, engine: Engine) -> Router {
    let secrets = LocalSecrets::new(app.store.clone(), app.key.clone());
    let api = Api(Arc::new(ApiState { app, engine, secrets }));
    let routes = Router::new()
        .route("/apply", post(apply::apply))
        .route("/entities", get(entities::list))
        .route("/entities/{kind}/{id}", get(entities::show).delete(entities::delete))
        .route("/secrets", get(secrets::list))
        .route("/secrets/{id}", put(secrets::set).delete(secrets::delete))
        .route("/pipelines/validate", post(pipelines::validate))
        .route("/executions", post(executions::start).get(executions::list))
        .route("/executions/{id}", get(executions::show))
        .route("/executions/{id}/abort", post(executions::abort))
        .route("/executions/{id}/intervene", post(actions::intervene))
        .route("/executions/{id}/inputs", post(actions::inputs))
        .route("/executions/{id}/rerun", post(actions::rerun))
        .route("/executions/{id}/rollback", post(actions::rollback))
        .route("/executions/{id}/logs", get(logs::read))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", get(approvals::show))
        .route("/approvals/{id}/approve", post(approvals::approve))
        .route("/approvals/{id}/reject", post(approvals::reject))
        .route("/agents", get(agents::list))
        .route("/engine", get(executions::engine))
        .route("/tokens", post(credentials::create_token).get(credentials::list_tokens))
        .route("/tokens/{name}", delete(credentials::revoke_token))
        .route("/apikeys", post(credentials::create_key).get(credentials::list_keys))
        .route("/apikeys/{name}", delete(credentials::revoke_key))
        .route("/users", post(users::create).get(users::list))
        .route("/users/{email}", delete(users::delete))
        .route("/whoami", get(users::whoami))
        .route("/triggers", get(triggers::list))
        .route("/triggers/{id}", get(triggers::show))
        .route("/trigger-events", get(triggers::events))
        .route("/trigger-events/{id}", get(triggers::event))
        .route("/hostkeys", get(hostkeys::list))
        .route("/hostkeys/{host}", put(hostkeys::accept).delete(hostkeys::forget))
        .route("/connectors/{id}/test", post(connectors::test))
        .route("/probes", post(tasks::probe))
        .route("/tasks/{id}", get(tasks::show))
        .route("/openapi.json", get(openapi::show))
        .fallback(|| async { ApiError::not_found("there is no such path under /api/v1") })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(middleware::from_fn_with_state(api.clone(), authenticate))
        .with_state(api.clone());
    Router::new().nest("/api/v1", routes).merge(harness::router(&api))
}

/// Lets a request pass that carries a valid API key whose role is enough. The key is looked up by its hash: the store
/// has no clear one. Handlers find [`Caller`] and [`Principal`] in the extensions.
async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = request.headers().get(API_KEY_HEADER).and_then(|value| value.to_str().ok());
    let principal = match key {
        Some(key) => api.app.credentials.principal(key).await?,
        None => None,
    };
    let refusal = match &principal {
        None => Some(ApiError::unauthorised()),
        Some(principal) => {
            let needed = needed(request.method(), request.uri().path());
            (principal.role < needed).then(|| ApiError::forbidden(principal, needed))
        }
    };
    let principal = match (principal, refusal) {
        (Some(principal), None) => principal,
        (_, refusal) => {
            // A refused client still gets to read why, whatever it sends.
            let drained = body::read(request, 0).await.is_ok();
            tracing::debug!(empty_body = drained, "request without a valid API key or with too small a role");
            return Err(refusal.unwrap_or_else(ApiError::unauthorised));
        }
    };
    request.extensions_mut().insert(Caller(principal.owner.clone()));
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}
