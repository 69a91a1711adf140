//! Harness' own paths for what the client API does too, with and without its gateway (pipeline.md §5, endpoint 5).

use super::{Api, approvals, authenticate};
use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

/// The routes; each asks for an API key.
pub(super) fn router(api: Api) -> Router {
    let routes = Router::new()
        .route("/approvals/{id}", get(approvals::harness_show))
        .route("/approvals/{id}/harness/activity", post(approvals::harness_activity))
        .layer(middleware::from_fn_with_state(api.clone(), authenticate))
        .with_state(api);
    Router::new().nest("/gateway/pipeline/api", routes.clone()).nest("/pipeline/api", routes)
}
