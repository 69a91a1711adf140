//! `POST /apply`: entities and pipelines from documents.

use super::body::JsonBody;
use super::{Answer, Api, error::ApiError};
use crate::entities::{self, ApplyError, Document, Outcome};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Apply {
    documents: Vec<Document>,
}

pub(super) async fn apply(State(api): State<Api>, JsonBody(apply): JsonBody<Apply>) -> Answer<Json<Outcome>> {
    match entities::apply(&api.app, &api.secrets, apply.documents).await {
        Ok(outcome) => Ok(Json(outcome)),
        Err(ApplyError::Invalid(faults)) => Err(ApiError::documents(faults)),
        Err(ApplyError::Store(error)) => Err(error.into()),
        Err(ApplyError::Secrets(error)) => Err(error.into()),
    }
}
