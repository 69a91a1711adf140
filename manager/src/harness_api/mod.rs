//! Harness' own external API, as far as webhooks use it (pipeline.md §5, endpoints 1 and 9).
//!
//! The base `/gateway` may be left out or stand behind `/prod`; answers have Harness' envelope.

pub(crate) mod envelope;
mod webhook;

use crate::triggers::Triggers;
use axum::Router;
use axum::routing::{get, post};
use std::sync::Arc;

/// Prefixes under which the same paths answer.
const PREFIXES: [&str; 6] = [
    "/gateway/pipeline/api",
    "/gateway/ng/api",
    "/prod/gateway/pipeline/api",
    "/prod/gateway/ng/api",
    "/pipeline/api",
    "/ng/api",
];

/// The routes. Each of them asks for an API key.
pub fn router(triggers: Arc<Triggers>) -> Router {
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router
            .route(&format!("{prefix}/webhook/custom"), post(webhook::custom))
            .route(&format!("{prefix}/webhook/custom/v2"), post(webhook::custom))
            .route(&format!("{prefix}/webhook/custom/{{token}}/v3"), post(webhook::custom_of_token))
            .route(
                &format!("{prefix}/webhook/triggerExecutionDetails/{{event}}"),
                get(webhook::execution_details),
            )
            .route(&format!("{prefix}/webhook/triggerProcessingDetails"), get(webhook::processing_details));
    }
    router.with_state(triggers)
}
