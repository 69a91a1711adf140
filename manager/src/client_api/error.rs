//! The one shape of every error of this API (ADR 0003).

use crate::auth::{Principal, Role};
use crate::engine::EngineError;
use crate::secrets::SecretsError;
use crate::store::StoreError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pipeline::fault::Fault;
use pipeline::machine::Refusal;
use serde::Serialize;

/// An answer that is not the one that was asked for.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Wire {
    error: ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, body: ErrorBody { code, message: message.into(), hint: None, faults: Vec::new() } }
    }

    /// 400 with the places in the documents.
    pub(crate) fn documents(faults: Vec<Fault>) -> Self {
        let message = match faults.as_slice() {
            [one] => one.to_string(),
            [first, ..] => format!("{first} (and {} more)", faults.len() - 1),
            [] => "the document is invalid".to_owned(),
        };
        let mut error = Self::new(StatusCode::BAD_REQUEST, "MGR-110", message);
        error.body.faults = faults;
        error
    }

    /// 400: the request itself is wrong.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MGR-111", message)
    }

    /// 400: something the run needs is not there. Nothing was started.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MGR-112", message)
    }

    /// 401.
    pub(crate) fn unauthorised() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "MGR-113", "the API key is missing, unknown or revoked")
            .hint("send a valid key in the header `x-api-key` (`--api-key` or DELEGATE_API_KEY)")
    }

    /// 403: the key is valid and its role is too small.
    pub(crate) fn forbidden(principal: &Principal, needed: Role) -> Self {
        let (who, role, needed) = (&principal.owner, principal.role.name(), needed.name());
        let message = format!("`{who}` has the role {role}; this needs the role {needed}");
        Self::new(StatusCode::FORBIDDEN, "MGR-130", message)
            .hint(format!("ask an admin for a key with it: `delegate apikey create … --role {needed}`"))
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MGR-114", message)
    }

    /// 404: no such execution.
    pub(crate) fn no_execution(id: &str) -> Self {
        Self::not_found(format!("execution {id} does not exist"))
    }

    /// 409.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "MGR-115", message)
    }

    /// What a person asked of a step is not taken: 404, 403, 400 or 409.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::NoNode { .. } => StatusCode::NOT_FOUND,
            Refusal::NotAllowed { .. } => StatusCode::FORBIDDEN,
            Refusal::BadValue { .. } => StatusCode::BAD_REQUEST,
            Refusal::Ended { .. } | Refusal::NotWaiting { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, "MGR-106", refusal.to_string())
            .hint("`delegate execution show ID` shows what each step waits for")
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "MGR-116",
            format!("the request is larger than {} KiB", limit / 1024),
        )
        .hint("entities and pipelines are small texts; keep files out of them and refer to them by a store")
    }

    /// 405.
    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MGR-111", "this method is not known here")
    }

    /// 500 or 503, for faults of our own side. The text stays free of inner detail; the log has it.
    fn internal(error: &(dyn std::error::Error + 'static), status: StatusCode, message: &str) -> Self {
        tracing::error!(error, "request failed");
        Self::new(status, "MGR-117", message).hint("the manager's log says why")
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }
}

/// What a refusal said, beside the response: for routers whose answers have another shape.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The code with a page in `docs/errors/`.
    pub(crate) code: &'static str,
    /// The message.
    pub(crate) message: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let told = Told { code: self.body.code, message: self.body.message.clone() };
        let mut response = (self.status, Json(Wire { error: self.body })).into_response();
        response.extensions_mut().insert(told);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound { what } => Self::not_found(format!("{what} does not exist")),
            StoreError::Conflict { what } => {
                Self::conflict(format!("{what} exists already or was changed meanwhile"))
            }
            StoreError::Backend(_) | StoreError::TooNew { .. } => {
                Self::internal(&error, StatusCode::SERVICE_UNAVAILABLE, "the store failed")
            }
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::NotFound { execution_id } => Self::no_execution(&execution_id),
            EngineError::Refused(refusal) => Self::refused(&refusal),
            EngineError::Stopping => {
                Self::internal(&error, StatusCode::SERVICE_UNAVAILABLE, "the manager is stopping")
            }
            EngineError::Contended { .. } => Self::internal(
                &error,
                StatusCode::SERVICE_UNAVAILABLE,
                "the execution is being changed; try again",
            ),
            EngineError::Unreadable { .. } | EngineError::TooNew { .. } | EngineError::Unwritable { .. } => {
                let mut answer =
                    Self::internal(&error, StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
                answer.body.code = "MGR-102";
                answer
            }
        }
    }
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Store(error) => error.into(),
            SecretsError::TooLarge { .. } => Self::request(error.to_string()),
            SecretsError::State(error) => error.into(),
            SecretsError::Missing { .. } | SecretsError::NoOutput { .. } => Self::missing(error.to_string()),
            SecretsError::Key(_) | SecretsError::Seal { .. } => Self::internal(
                &error,
                StatusCode::INTERNAL_SERVER_ERROR,
                "a secret could not be sealed or opened",
            ),
        }
    }
}
