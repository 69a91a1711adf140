//! Replies in Harness' wrapper, and refusals with the codes that clients react to.

use crate::auth::AuthError;
use crate::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use proto::reply::{ERROR_HEADER, ErrorCode, Wrapped};
use serde::Serialize;
use serde_json::Value;

/// A refusal.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl Refusal {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, code: ErrorCode::InvalidRequest, message: message.into() }
    }

    pub(super) fn with(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal { status, code: ErrorCode::InvalidRequest, message: message.into() }
    }

    pub(super) fn coded(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into() }
    }

    /// The status it is answered with.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Acquire: somebody else's, ended, unknown, or not for this agent.
    pub(super) fn not_yours() -> Self {
        Refusal::with(StatusCode::CONFLICT, "the task is not available to this delegate")
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let code = match error {
            // Java agents destroy themselves on INVALID_TOKEN; a request without a bearer says nothing about the token.
            AuthError::Denied => {
                let message = "access denied: the request needs `Authorization: Delegate …` and the accountId it was made for";
                return Refusal {
                    status: StatusCode::UNAUTHORIZED,
                    code: ErrorCode::InvalidRequest,
                    message: message.into(),
                };
            }
            AuthError::Invalid => ErrorCode::InvalidToken,
            AuthError::Revoked => ErrorCode::RevokedToken,
            AuthError::Expired => ErrorCode::ExpiredToken,
            AuthError::Unavailable => ErrorCode::GeneralError,
        };
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Refusal { status, code, message: error.to_string() }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a delegate request failed");
        // 503: clients try again, which is right when the disk is full or busy.
        Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: ErrorCode::GeneralError,
            message: "the manager's store failed; try again".to_owned(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(Wrapped::<Value>::error(self.code, self.message));
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(ERROR_HEADER, HeaderValue::from_static(self.code.as_str()));
        response
    }
}

/// 200 with the wrapper.
pub(super) fn wrapped<T: Serialize>(resource: T) -> Response {
    Json(Wrapped::ok(resource)).into_response()
}

pub(super) async fn method_not_allowed() -> Refusal {
    Refusal::with(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}

/// Paths that nobody answers: the Kryo calls of Java delegates among them.
pub(super) async fn not_found() -> Refusal {
    Refusal::with(StatusCode::NOT_FOUND, "there is no such path")
}
