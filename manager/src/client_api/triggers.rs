//! `GET /triggers`, `/triggers/{id}`, `/trigger-events`, `/trigger-events/{id}`.

use super::{Answer, Api, error::ApiError};
use crate::store::TriggerEvent;
use crate::triggers::{Stored, all, doc_of, named};
use axum::Json;
use axum::extract::{Path, Query, State};
use pipeline::fault::did_you_mean;
use pipeline::trigger::Source;
use serde::Deserialize;
use serde_json::{Value, json};

/// Rows listed when nobody says how many, and at most.
const LIMITS: (u32, u32) = (50, 1000);

#[derive(Deserialize)]
pub(super) struct Of {
    #[serde(default)]
    pipeline: String,
    #[serde(default)]
    trigger: String,
    limit: Option<u32>,
}

pub(super) async fn list(State(api): State<Api>, Query(of): Query<Of>) -> Answer<Json<Value>> {
    let found = named(all(&api.app).await?, "", &of.pipeline, "");
    let mut rows = Vec::with_capacity(found.len());
    for stored in &found {
        rows.push(shown(&api, stored).await?);
    }
    Ok(Json(Value::Array(rows)))
}

async fn shown(api: &Api, stored: &Stored) -> Answer<Value> {
    let trigger = &stored.trigger;
    let next = match &trigger.source {
        Source::Cron(schedule) if trigger.enabled => schedule.next_after(api.app.clock.wall()),
        _ => None,
    };
    let schedule = match &trigger.source {
        Source::Cron(schedule) => Some(format!("{} {}", schedule.expression(), schedule.zone())),
        Source::Custom { .. } => None,
    };
    let last = api.app.store.trigger_events((&trigger.pipeline, &trigger.identifier), 1).await?;
    Ok(json!({
        "identifier": trigger.identifier,
        "name": trigger.name,
        "pipeline": trigger.pipeline,
        "scope": trigger.scope,
        "type": trigger.source.name(),
        "enabled": trigger.enabled,
        "inline": stored.inline,
        "schedule": schedule,
        "nextAt": next,
        "webhookToken": matches!(trigger.source, Source::Custom { .. }).then(|| api.app.key.token(&stored.token_name())),
        "lastEvent": last.first().map(event_of),
    }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(of): Query<Of>,
) -> Answer<Json<Value>> {
    let found = named(all(&api.app).await?, "", &of.pipeline, "");
    let hits: Vec<&Stored> = found.iter().filter(|stored| stored.trigger.identifier == id).collect();
    match hits.as_slice() {
        [one] => {
            let mut document = shown(&api, one).await?;
            if let Some(fields) = document.as_object_mut() {
                fields.insert("yaml".to_owned(), Value::from(one.yaml.clone()));
            }
            Ok(Json(document))
        }
        [] => {
            let error = ApiError::not_found(format!("the trigger `{id}` does not exist"));
            Err(match did_you_mean(&id, found.iter().map(|stored| stored.trigger.identifier.as_str())) {
                Some(near) => error.hint(near),
                None => error.hint("`delegate trigger list` shows all"),
            })
        }
        several => {
            let of: Vec<&str> = several.iter().map(|stored| stored.trigger.pipeline.as_str()).collect();
            Err(ApiError::conflict(format!("several pipelines have a trigger `{id}`: {}", of.join(", ")))
                .hint("name the pipeline (`--pipeline`)"))
        }
    }
}

pub(super) async fn events(State(api): State<Api>, Query(of): Query<Of>) -> Answer<Json<Value>> {
    let limit = of.limit.unwrap_or(LIMITS.0).clamp(1, LIMITS.1);
    let events = api.app.store.trigger_events((&of.pipeline, &of.trigger), limit).await?;
    Ok(Json(events.iter().map(event_of).collect()))
}

pub(super) async fn event(State(api): State<Api>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let event = api.app.store.trigger_event(&id).await?;
    let event = event.ok_or_else(|| ApiError::not_found(format!("the event {id} does not exist")))?;
    let doc = doc_of(&event);
    let mut document = event_of(&event);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("payload".to_owned(), doc.payload);
        fields.insert("headers".to_owned(), json!(doc.headers));
        fields.insert("results".to_owned(), json!(doc.results));
    }
    Ok(Json(document))
}

fn event_of(event: &TriggerEvent) -> Value {
    let doc = doc_of(event);
    let shown = doc.shown();
    json!({
        "eventId": event.id,
        "at": event.at,
        "kind": doc.kind,
        "by": doc.by,
        "pipeline": shown.map_or(event.pipeline.as_str(), |result| &result.pipeline),
        "trigger": shown.map_or(event.trigger.as_str(), |result| &result.trigger),
        "status": shown.map_or("QUEUED", |result| result.status.name()),
        "message": shown.map(|result| result.message.as_str()),
        "executionId": shown.and_then(|result| result.execution_id.as_deref()),
    })
}
