//! The envelope around every answer.

use crate::store::StoreError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An answer that is not the one that was asked for.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
    correlation: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refused { status, code, message: message.into(), correlation: String::new() }
    }

    /// Names the event that the refusal is written down as.
    pub(super) fn event(self, id: &str) -> Self {
        Refused { correlation: id.to_owned(), ..self }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { .. } => Refused::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "MGR-131",
                "MGR-131: too many trigger events wait; send it again later",
            ),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed");
                Refused::new(StatusCode::SERVICE_UNAVAILABLE, "MGR-117", "the store failed")
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(failure(self.status, self.code, &self.message, &self.correlation))).into_response()
    }
}

/// A refusal.
pub(crate) fn failure(status: StatusCode, code: &str, message: &str, correlation: &str) -> Value {
    let kind = if status.is_server_error() { "ERROR" } else { "FAILURE" };
    json!({
        "status": kind, "code": code, "message": message, "correlationId": correlation,
        "detailedMessage": null, "responseMessages": [], "errors": [],
    })
}

/// An answer with `data`.
pub(crate) fn success(data: Value, correlation: &str) -> Json<Value> {
    Json(json!({ "status": "SUCCESS", "data": data, "metaData": null, "correlationId": correlation }))
}
