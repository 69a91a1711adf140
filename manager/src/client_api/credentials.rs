//! `POST`, `GET /tokens`, `DELETE /tokens/{name}` and the same for `/apikeys`. Values are shown once.

use super::body::JsonBody;
use super::{Answer, Api, Caller, error::ApiError};
use crate::auth::{API_KEY, Principal, Role, TOKEN};
use crate::store::StoreError;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest name.
const MAX_NAME_CHARS: usize = 128;

/// Keys of one user that take their name from the email: `EMAIL`, `EMAIL#2`, …
const MAX_KEYS_OF_A_USER: usize = 1000;

#[derive(Deserialize)]
pub(super) struct New {
    name: String,
}

#[derive(Deserialize)]
pub(super) struct NewKey {
    /// Default: the email of the user.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    role: Option<String>,
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

/// Makes a key for a user or for no user. Without `role` the key of a user may read, and one of no user everything, as
/// keys could before there were roles.
pub(super) async fn create_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    JsonBody(new): JsonBody<NewKey>,
) -> Answer<(StatusCode, Json<Value>)> {
    let role = match new.role.as_deref() {
        Some(role) => Some(Role::from_name(role).ok_or_else(|| {
            ApiError::request(format!("there is no role `{role}`; known are {}", Role::names()))
        })?),
        None => None,
    };
    let (name, principal) = match (new.name, new.user) {
        (name, Some(email)) => {
            let user = super::users::find(&api, &email).await?;
            let name = match name {
                Some(name) => name,
                None => free_name(&api, &user.email).await?,
            };
            (name, Principal::user(&user.email, role.unwrap_or(Role::Viewer)))
        }
        (Some(name), None) => {
            let principal = Principal::named(&name, role.unwrap_or(Role::Admin));
            (name, principal)
        }
        (None, None) => return Err(ApiError::request("a key needs a `name` or a `user`")),
    };
    check_name(&name)?;
    // The log keeps who made it.
    let made = api.app.credentials.create_api_key(&name, &principal).await;
    let value = made.map_err(|error| taken(error, API_KEY, &name))?;
    tracing::info!(%name, owner = %principal.owner, role = principal.role.name(), by = %caller.0, "API key created");
    let answer = json!({
        "name": name,
        "value": value.expose_secret(),
        "apiKey": value.expose_secret(),
        "user": principal.user,
        "role": principal.role.name(),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// A name that no valid key has.
async fn free_name(api: &Api, email: &str) -> Answer<String> {
    let all = api.app.credentials.list(API_KEY).await?;
    let taken = |name: &str| all.iter().any(|key| key.name == name && key.revoked_at.is_none());
    let mut names =
        std::iter::once(email.to_owned()).chain((2..=MAX_KEYS_OF_A_USER).map(|n| format!("{email}#{n}")));
    names.find(|name| !taken(name)).ok_or_else(|| {
        ApiError::conflict(format!("`{email}` has {MAX_KEYS_OF_A_USER} keys")).hint("revoke some of them")
    })
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
            .map(|one| {
                let mut shown =
                    json!({ "name": one.name, "createdAt": one.created_at, "revokedAt": one.revoked_at });
                if kind == API_KEY
                    && let Some(fields) = shown.as_object_mut()
                {
                    let user = (!one.user.is_empty()).then_some(one.user);
                    fields.insert("user".to_owned(), json!(user));
                    fields.insert("role".to_owned(), json!(one.role));
                }
                shown
            })
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
