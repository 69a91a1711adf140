//! `POST`, `GET /tokens`, `DELETE /tokens/{name}` and the same for `/apikeys`. Values are shown once.

use super::body::JsonBody;
use super::{Answer, Api, Caller, error::ApiError};
use crate::auth::{API_KEY, TOKEN};
use crate::store::StoreError;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest name.
const MAX_NAME_CHARS: usize = 128;

#[derive(Deserialize)]
pub(super) struct New {
    name: String,
}

/// For whom an API key acts; `None` for an unknown or revoked one.
pub(super) async fn owner_of(api: &Api, key: &str) -> Answer<Option<Caller>> {
    Ok(api.app.credentials.owner_of(key).await?.map(Caller))
}

pub(super) async fn create_token(
    State(api): State<Api>,
    JsonBody(new): JsonBody<New>,
) -> Answer<(StatusCode, Json<Value>)> {
    check_name(&new.name)?;
    let value =
        api.app.credentials.create_token(&new.name).await.map_err(|error| taken(error, TOKEN, &new.name))?;
    Ok(shown_once(&new.name, &value))
}

pub(super) async fn create_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    JsonBody(new): JsonBody<New>,
) -> Answer<(StatusCode, Json<Value>)> {
    check_name(&new.name)?;
    // A key acts for whoever its name says; the log keeps who made it.
    let made = api.app.credentials.create_api_key(&new.name, &new.name).await;
    let value = made.map_err(|error| taken(error, API_KEY, &new.name))?;
    tracing::info!(name = %new.name, by = %caller.0, "API key created");
    Ok(shown_once(&new.name, &value))
}

pub(super) async fn list_tokens(State(api): State<Api>) -> Answer<Json<Value>> {
    list(&api, TOKEN).await
}

pub(super) async fn list_keys(State(api): State<Api>) -> Answer<Json<Value>> {
    list(&api, API_KEY).await
}

pub(super) async fn revoke_token(State(api): State<Api>, Path(name): Path<String>) -> Answer<StatusCode> {
    revoke(&api, TOKEN, &name).await
}

pub(super) async fn revoke_key(State(api): State<Api>, Path(name): Path<String>) -> Answer<StatusCode> {
    revoke(&api, API_KEY, &name).await
}

async fn list(api: &Api, kind: &str) -> Answer<Json<Value>> {
    let all = api.app.credentials.list(kind).await?;
    Ok(Json(
        all.into_iter()
            .map(|one| json!({ "name": one.name, "createdAt": one.created_at, "revokedAt": one.revoked_at }))
            .collect(),
    ))
}

async fn revoke(api: &Api, kind: &str, name: &str) -> Answer<StatusCode> {
    match api.app.credentials.revoke(kind, name).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(StoreError::NotFound { .. }) => {
            Err(ApiError::not_found(format!("there is no valid {} `{name}`", word(kind))))
        }
        Err(error) => Err(error.into()),
    }
}

fn word(kind: &str) -> &'static str {
    if kind == TOKEN { "delegate token" } else { "API key" }
}

fn taken(error: StoreError, kind: &str, name: &str) -> ApiError {
    match error {
        StoreError::Conflict { .. } => {
            ApiError::conflict(format!("a valid {} `{name}` exists already", word(kind)))
                .hint("take another name, or revoke the old one first")
        }
        other => other.into(),
    }
}

fn check_name(name: &str) -> Answer<()> {
    let fits = !name.trim().is_empty()
        && name.chars().count() <= MAX_NAME_CHARS
        && !name.chars().any(|c| c.is_control() || c == '/');
    if fits {
        return Ok(());
    }
    Err(ApiError::request(format!("`name` must have 1 to {MAX_NAME_CHARS} printable characters and no `/`")))
}

fn shown_once(name: &str, value: &SecretString) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(json!({ "name": name, "value": value.expose_secret() })))
}
