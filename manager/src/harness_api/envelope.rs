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
                "MGR-130",
                "MGR-130: too many trigger events wait; send it again later",
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
        let status = if self.status.is_server_error() { "ERROR" } else { "FAILURE" };
        let body = json!({
            "status": status, "code": self.code, "message": self.message, "correlationId": self.correlation,
            "detailedMessage": null, "responseMessages": [], "errors": [],
        });
        (self.status, Json(body)).into_response()
    }
}

/// An answer with `data`.
pub(super) fn success(data: Value, correlation: &str) -> Json<Value> {
    Json(json!({ "status": "SUCCESS", "data": data, "metaData": null, "correlationId": correlation }))
}
