//! `GET /entities`, `GET` and `DELETE /entities/{kind}/{id}`.

use super::{Answer, Api, error::ApiError};
use crate::store::Entity;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use pipeline::entities::EntityKind;
use pipeline::fault::did_you_mean;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub(super) struct OfKind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
pub(super) struct InScope {
    scope: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, Query(of): Query<OfKind>) -> Answer<Json<Value>> {
    if !of.kind.is_empty() {
        check_kind(&of.kind)?;
    }
    let entities = api.app.store.entities(&of.kind).await?;
    // The store also keeps documents that are no entities, such as users.
    let known = entities.iter().filter(|entity| EntityKind::from_name(&entity.kind).is_some());
    Ok(Json(known.map(head).collect()))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path((kind, id)): Path<(String, String)>,
    Query(within): Query<InScope>,
) -> Answer<Json<Value>> {
    let entity = find(&api, &kind, &id, within.scope.as_deref()).await?;
    let mut document = head(&entity);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("yaml".to_owned(), Value::from(entity.yaml));
    }
    Ok(Json(document))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path((kind, id)): Path<(String, String)>,
    Query(within): Query<InScope>,
) -> Answer<StatusCode> {
    let entity = find(&api, &kind, &id, within.scope.as_deref()).await?;
    if let Some(execution) = crate::entities::in_use(&api.app, &api.engine, &kind, &id).await? {
        return Err(ApiError::conflict(format!(
            "the {kind} `{id}` is used by the running execution {execution}"
        ))
        .hint(format!("wait for it, or `delegate execution abort {execution}`")));
    }
    api.app.store.delete_entity(&entity.kind, &entity.scope, &entity.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn head(entity: &Entity) -> Value {
    json!({
        "kind": entity.kind,
        "id": entity.id,
        "scope": entity.scope,
        "name": entity.name,
        "updatedAt": entity.updated_at,
    })
}

fn check_kind(kind: &str) -> Answer<()> {
    if EntityKind::from_name(kind).is_some() {
        return Ok(());
    }
    let error = ApiError::request(format!("there is no kind `{kind}`; known are {}", EntityKind::names()));
    Err(match did_you_mean(kind, EntityKind::ALL.map(EntityKind::name)) {
        Some(near) => error.hint(near),
        None => error,
    })
}

/// The one entity of this id; `scope` chooses where several scopes have one.
async fn find(api: &Api, kind: &str, id: &str, scope: Option<&str>) -> Answer<Entity> {
    check_kind(kind)?;
    let all = api.app.store.entities(kind).await?;
    let fits = |entity: &&Entity| entity.id == id && scope.is_none_or(|scope| entity.scope == scope);
    let hits: Vec<&Entity> = all.iter().filter(fits).collect();
    match hits.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let error = ApiError::not_found(format!("the {kind} `{id}` does not exist"));
            Err(match did_you_mean(id, all.iter().map(|entity| entity.id.as_str())) {
                Some(near) => error.hint(near),
                None => error,
            })
        }
        several => {
            let scopes: Vec<&str> = several.iter().map(|entity| entity.scope.as_str()).collect();
            Err(ApiError::conflict(format!(
                "the {kind} `{id}` exists in several scopes: {}",
                scopes.join(", ")
            ))
            .hint("name one with `--scope ORG/PROJECT` (`?scope=ORG/PROJECT`)"))
        }
    }
}
