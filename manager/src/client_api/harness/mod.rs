//! Harness' own paths for what the client API does too (pipeline.md §5, endpoints 2, 5 and 7).
//!
//! Below `/pipeline/api`, with and without a gateway before it, answers and refusals have Harness' envelope; below `/v1`
//! they are plain documents with names in snake case, as Harness' newer API has them.

mod approvals;
mod execute;
mod interrupt;

use super::error::Told;
use super::{Api, authenticate};
use crate::harness_api::envelope;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::Value;

/// What may stand before every path.
const GATEWAYS: [&str; 3] = ["", "/gateway", "/prod/gateway"];

/// The routes; each asks for an API key.
pub(super) fn router(api: &Api) -> Router {
    let pipeline = Router::new()
        .route("/approvals/{id}", get(approvals::show))
        .route("/approvals/{id}/harness/activity", post(approvals::activity))
        .route("/approvals/{id}/harness/authorization", get(approvals::authorization))
        .route("/pipeline/execute/{id}", post(execute::with_inputs))
        .route("/pipeline/execute/{id}/v2", post(execute::with_inputs))
        .route("/pipeline/execute/{id}/inputSetList", post(execute::with_input_sets))
        .route("/pipeline/execute/interrupt/{execution}", put(interrupt::execution))
        .route("/pipeline/execute/interrupt/{execution}/{node}", put(interrupt::node))
        .route("/pipeline/execute/manualIntervention/interrupt/{execution}/{node}", put(interrupt::node))
        .layer(from_fn_with_state(api.clone(), authenticate))
        .layer(map_response(enveloped))
        .with_state(api.clone());
    let v1 = Router::new()
        .route(
            "/v1/orgs/{org}/projects/{project}/approvals/execution/{execution}",
            get(approvals::of_execution).post(approvals::act_on_execution),
        )
        .route("/v1/orgs/{org}/projects/{project}/pipelines/{id}/execute", post(execute::v1))
        .layer(from_fn_with_state(api.clone(), authenticate))
        .layer(map_response(enveloped))
        .with_state(api.clone());
    let mut router = Router::new();
    for gateway in GATEWAYS {
        router = router.nest(&format!("{gateway}/pipeline/api"), pipeline.clone());
        router = match gateway {
            "" => router.merge(v1.clone()),
            gateway => router.nest(gateway, v1.clone()),
        };
    }
    router
}

/// An answer in the envelope.
fn success(data: Value) -> Json<Value> {
    envelope::success(data, &crate::engine::execution_id())
}

/// Puts a refusal of this API into Harness' envelope; its own code stands before the message.
async fn enveloped(response: Response) -> Response {
    let Some(told) = response.extensions().get::<Told>() else { return response };
    let status = response.status();
    let code = match status.as_u16() {
        401 => "INVALID_TOKEN",
        403 => "ACCESS_DENIED",
        404 => "ENTITY_NOT_FOUND",
        400..=499 => "INVALID_REQUEST",
        _ => "GENERAL_ERROR",
    };
    let message = format!("{}: {}", told.code, told.message);
    (status, Json(envelope::failure(status, code, &message, &crate::engine::execution_id()))).into_response()
}
