//! `POST /apply`: entities and pipelines from documents.

use super::body::JsonBody;
use super::{Answer, Api, error::ApiError};
use crate::auth::{Principal, Role};
use crate::entities::{self, ApplyError, Document, Outcome};
use axum::Json;
use axum::extract::{Extension, State};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Apply {
    documents: Vec<Document>,
}

/// Applies documents. A key without the role admin may send what is stored already, as `pipeline run FILE` does, and
/// change nothing.
pub(super) async fn apply(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    JsonBody(apply): JsonBody<Apply>,
) -> Answer<Json<Outcome>> {
    let may_change = principal.role >= Role::Admin;
    match entities::apply(&api.app, &api.secrets, apply.documents, may_change).await {
        Err(ApplyError::WouldChange { kind, id }) => Err(ApiError::forbidden(&principal, Role::Admin)
            .hint(format!("the {kind} `{id}` is not stored as it stands here; ask an admin to apply it"))),
        Ok(outcome) => Ok(Json(outcome)),
        Err(ApplyError::Invalid(faults)) => Err(ApiError::documents(faults)),
        Err(ApplyError::Store(error)) => Err(error.into()),
        Err(ApplyError::Secrets(error)) => Err(error.into()),
    }
}
