//! `POST`, `GET /users`, `DELETE /users/{email}`, `GET /whoami`.

use super::body::JsonBody;
use super::{Answer, Api, error::ApiError};
use crate::auth::{API_KEY, Principal};
use crate::store::StoreError;
use crate::users::{self, User};
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pipeline::fault::did_you_mean;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Longest name, email and group.
const MAX_CHARS: usize = 128;

#[derive(Deserialize)]
pub(super) struct New {
    name: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

pub(super) async fn create(
    State(api): State<Api>,
    JsonBody(new): JsonBody<New>,
) -> Answer<(StatusCode, Json<Value>)> {
    let email = new.email.unwrap_or_else(|| new.name.clone());
    check("name", &new.name)?;
    check("email", &email)?;
    let mut groups = BTreeSet::new();
    for group in &new.groups {
        check("groups", group)?;
        // A user's own groups stand at account level; which organisation `org.` would mean is nowhere said.
        let id = group.strip_prefix("account.").unwrap_or(group);
        if id.contains('.') {
            let message = format!("the group `{group}` is not an identifier such as `g` or `account.g`");
            return Err(ApiError::request(message)
                .hint("list the members of a group of an organisation in a `userGroup` document"));
        }
        groups.insert(id.to_owned());
    }
    let user = User { name: new.name, email, groups };
    let applied = users::create(api.app.store.as_ref(), &user, api.app.clock.wall()).await.map_err(
        |error| match error {
            StoreError::Conflict { .. } => {
                let message = format!("the user `{}` exists with another name or other groups", user.email);
                ApiError::conflict(message).hint(format!("`delegate user delete {}` first", user.email))
            }
            other => other.into(),
        },
    )?;
    let mut answer = shown(&user);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("result".to_owned(), json!(applied));
    }
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Value>> {
    Ok(Json(users::all(api.app.store.as_ref()).await?.iter().map(shown).collect()))
}

/// Deletes a user and revokes every key of theirs first, so that no key ever acts for somebody unknown.
pub(super) async fn delete(State(api): State<Api>, Path(email): Path<String>) -> Answer<StatusCode> {
    find(&api, &email).await?;
    for key in api.app.credentials.list(API_KEY).await? {
        if key.user == email && key.revoked_at.is_none() {
            api.app.credentials.revoke(API_KEY, &key.name).await?;
        }
    }
    api.app.store.delete_entity(users::KIND, "", &email).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who asks: the first thing to look at when something is refused.
pub(super) async fn whoami(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
) -> Answer<Json<Value>> {
    let user = of(&api, &principal).await?;
    Ok(Json(
        json!({ "owner": principal.owner, "role": principal.role.name(), "user": user.as_ref().map(shown) }),
    ))
}

/// The user that a key belongs to.
pub(super) async fn of(api: &Api, principal: &Principal) -> Answer<Option<User>> {
    Ok(match &principal.user {
        Some(email) => users::one(api.app.store.as_ref(), email).await?,
        None => None,
    })
}

/// The user of an email, or what could have been meant.
pub(super) async fn find(api: &Api, email: &str) -> Answer<User> {
    if let Some(user) = users::one(api.app.store.as_ref(), email).await? {
        return Ok(user);
    }
    let all = users::all(api.app.store.as_ref()).await?;
    let error = ApiError::not_found(format!("the user `{email}` does not exist"));
    let by_name = all.iter().find(|user| user.name == email).map(|user| user.email.clone());
    Err(match by_name.or_else(|| did_you_mean(email, all.iter().map(|user| user.email.as_str()))) {
        Some(near) => error.hint(near),
        None => error.hint("`delegate user create NAME --email EMAIL` makes one"),
    })
}

fn shown(user: &User) -> Value {
    json!({ "name": user.name, "email": user.email, "groups": user.groups })
}

fn check(field: &str, text: &str) -> Answer<()> {
    let fits = !text.trim().is_empty()
        && text.trim() == text
        && text.chars().count() <= MAX_CHARS
        && !text.chars().any(|c| c.is_control() || c == '/' || c == ',');
    if fits {
        return Ok(());
    }
    Err(ApiError::request(format!(
        "`{field}` must have 1 to {MAX_CHARS} printable characters, no `/` or `,`, and no blank around them; found `{text}`"
    )))
}
