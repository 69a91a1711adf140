//! `PUT /secrets/{id}`, `GET /secrets`, `DELETE /secrets/{id}`: values go in, never out.

use super::{Answer, Api, body, error::ApiError};
use crate::secrets::{MAX_SECRET_BYTES, SecretBytes};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Shorter values are not masked in logs (settled facts §1.8).
const MIN_MASKED_CHARS: usize = 3;
/// Longest id; ids are names, not documents.
const MAX_ID_CHARS: usize = 200;

pub(super) async fn set(
    State(api): State<Api>,
    Path(id): Path<String>,
    request: Request,
) -> Answer<Json<Value>> {
    check_id(&id)?;
    let value = SecretBytes::new(body::read(request, MAX_SECRET_BYTES).await?);
    if value.expose().is_empty() {
        return Err(ApiError::request(format!("secret `{id}`: the value is empty")));
    }
    let mut warnings = Vec::new();
    let chars = String::from_utf8_lossy(value.expose()).trim().chars().count();
    if chars < MIN_MASKED_CHARS {
        warnings.push(format!(
            "values under {MIN_MASKED_CHARS} characters are not masked in logs: they would blot out ordinary text"
        ));
    }
    let ends_in_newline = value.expose().ends_with(b"\n");
    if ends_in_newline && !value.expose().starts_with(b"-----BEGIN") {
        warnings.push(
            "the value ends with a newline, which is kept; use `printf` instead of `echo` to leave it out"
                .to_owned(),
        );
    }
    let result = api.secrets.set(&id, &value, api.app.clock.wall()).await?;
    Ok(Json(json!({ "result": result, "warnings": warnings })))
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Value>> {
    let secrets = api.secrets.list().await?;
    Ok(Json(secrets.into_iter().map(|(id, at)| json!({ "id": id, "updatedAt": at })).collect()))
}

pub(super) async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Answer<StatusCode> {
    if !api.secrets.list().await?.iter().any(|(known, _)| *known == id) {
        return Err(ApiError::not_found(format!("secret `{id}` does not exist")));
    }
    if let Some(execution) = crate::entities::in_use(&api.app, &api.engine, "secret", &id).await? {
        return Err(ApiError::conflict(format!(
            "secret `{id}` is used by the running execution {execution}"
        ))
        .hint(format!("wait for it, or `delegate execution abort {execution}`")));
    }
    api.secrets.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_id(id: &str) -> Answer<()> {
    let fits = !id.trim().is_empty()
        && id.chars().count() <= MAX_ID_CHARS
        && !id.chars().any(|c| c.is_control() || matches!(c, '"' | '$' | '{' | '}' | '<' | '>'));
    if id.starts_with("output/") {
        return Err(ApiError::request(format!(
            "secret `{id}`: `output/…` names a secret output of a step; take another name"
        )));
    }
    if fits {
        return Ok(());
    }
    Err(ApiError::request(format!(
        "a secret's name has 1 to {MAX_ID_CHARS} printable characters and none of \" $ {{ }} < >"
    )))
}
