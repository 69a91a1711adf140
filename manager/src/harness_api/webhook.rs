//! The custom webhook, and what became of its events.

use super::Meant;
use super::envelope::{Refused, success};
use crate::auth::{Principal, Role};
use crate::client_api::API_KEY_HEADER;
use crate::client_api::body;
use crate::store::TriggerEvent;
use crate::triggers::{EventDoc, Outcome, Stored, Triggers, all, doc_of, named};
use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use pipeline::trigger::Verdict;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest body of an event. It becomes part of the plan of each execution that it starts.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Headers whose values are kept out of the store: they hold keys.
const SECRET_HEADERS: [&str; 5] =
    ["x-api-key", "authorization", "proxy-authorization", "cookie", "x-gitlab-token"];

/// The trigger that a call names; empty names mean any.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    #[serde(default)]
    pipeline_identifier: String,
    #[serde(default)]
    trigger_identifier: String,
}

/// Takes an event: it is durable when the answer is sent, and processed afterwards.
pub(super) async fn custom(
    State(triggers): State<Arc<Triggers>>,
    Query(meant): Query<Meant>,
    Query(of): Query<Named>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    take(&triggers, meant, of, None, request).await
}

/// The same, for the one trigger whose token stands in the path. The token names it; the key still says who calls.
pub(super) async fn custom_of_token(
    State(triggers): State<Arc<Triggers>>,
    Path(token): Path<String>,
    Query(meant): Query<Meant>,
    Query(of): Query<Named>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    take(&triggers, meant, of, Some(token), request).await
}

async fn take(
    triggers: &Arc<Triggers>,
    meant: Meant,
    mut of: Named,
    token: Option<String>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let id = crate::engine::execution_id();
    let headers = request.headers().clone();
    let body = body::read(request, MAX_EVENT_BYTES).await;
    let principal = principal(triggers, &headers).await?;
    let mut scope = meant.scope();
    let Some(principal) = principal.filter(|principal| principal.role >= Role::Executor) else {
        return Err(refuse(triggers, &scope, of, id).await);
    };
    if let Some(token) = token {
        let named = named(all(&triggers.app).await?, &scope, &of.pipeline_identifier, &of.trigger_identifier);
        let hit = named.into_iter().find(|stored| triggers.app.key.is_token(&stored.token_name(), &token));
        let Some(Stored { trigger, .. }) = hit else {
            return Err(refuse(triggers, &scope, of, id).await);
        };
        scope = trigger.scope;
        of = Named { pipeline_identifier: trigger.pipeline, trigger_identifier: trigger.identifier };
    }
    let account = &triggers.app.account;
    meant
        .check_account(account)
        .map_err(|message| Refused::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message))?;
    let body = body.map_err(|_| {
        let message = format!("the body is larger than {} KiB or broke off", MAX_EVENT_BYTES / 1024);
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_REQUEST", message)
    })?;
    let payload: Value = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            let message = format!("the body is not JSON: {error}");
            Refused::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
        })?
    };
    let doc = EventDoc {
        kind: "webhook".to_owned(),
        scope,
        by: principal.owner,
        payload,
        headers: kept_headers(&headers),
        ..EventDoc::default()
    };
    triggers.take(id.clone(), (&of.pipeline_identifier, &of.trigger_identifier), &doc).await?;
    let details =
        format!("/gateway/pipeline/api/webhook/triggerExecutionDetails/{id}?accountIdentifier={account}");
    let data = json!({ "eventCorrelationId": id, "apiUrl": details, "uiUrl": null, "uiSetupUrl": null });
    Ok(success(data, &id))
}

/// 401, written down with the trigger that was meant, if there is such a one.
async fn refuse(triggers: &Triggers, scope: &str, of: Named, id: String) -> Refused {
    let message = "the API key is missing, unknown or revoked, its role is too small to start pipelines, or the token of the path is not the trigger's";
    let refused = Refused::new(StatusCode::UNAUTHORIZED, "TRIGGER_AUTHENTICATION_FAILED", message);
    if !triggers.may_note_refusal() {
        return refused;
    }
    let Named { pipeline_identifier: pipeline, trigger_identifier: trigger } = of;
    let known = match all(&triggers.app).await {
        Ok(all) => !named(all, scope, &pipeline, &trigger).is_empty(),
        Err(_) => false,
    };
    if pipeline.is_empty() || trigger.is_empty() || !known {
        return refused;
    }
    let doc = EventDoc {
        kind: "webhook".to_owned(),
        scope: scope.to_owned(),
        results: vec![Outcome {
            pipeline: pipeline.clone(),
            trigger: trigger.clone(),
            status: Verdict::TriggerAuthenticationFailed,
            message: message.to_owned(),
            execution_id: None,
        }],
        ..EventDoc::default()
    };
    match triggers.note(id.clone(), (&pipeline, &trigger), &doc).await {
        Ok(()) => refused.event(&id),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a refusal is not written down");
            refused
        }
    }
}

async fn principal(triggers: &Triggers, headers: &HeaderMap) -> Result<Option<Principal>, Refused> {
    match headers.get(API_KEY_HEADER).and_then(|value| value.to_str().ok()) {
        Some(key) => Ok(triggers.app.credentials.principal(key).await?),
        None => Ok(None),
    }
}

/// Readable headers in lower case; several values of one name are joined as HTTP joins them.
fn kept_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let name = name.as_str().to_ascii_lowercase();
        let Ok(value) = value.to_str() else { continue };
        if SECRET_HEADERS.contains(&name.as_str()) {
            continue;
        }
        kept.entry(name)
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    kept
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    event_id: String,
}

pub(super) async fn execution_details(
    State(triggers): State<Arc<Triggers>>,
    Path(event): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    let (event, details) = processing(&triggers, &event, &headers).await?;
    let execution =
        event.as_ref().and_then(|event| doc_of(event).results.into_iter().find_map(|r| r.execution_id));
    let execution = match execution {
        Some(id) => triggers.app.store.execution(&id).await?,
        None => None,
    };
    let execution = execution.map(|row| {
        json!({
            "planExecutionId": row.id, "pipelineIdentifier": row.pipeline, "status": row.status,
            "runSequence": row.sequence_id, "startTs": row.created_at, "endTs": row.ended_at,
        })
    });
    let id = event.map(|event| event.id).unwrap_or_default();
    Ok(success(json!({ "webhookProcessingDetails": details, "executionDetails": execution }), &id))
}

pub(super) async fn processing_details(
    State(triggers): State<Arc<Triggers>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    let (_, details) = processing(&triggers, &asked.event_id, &headers).await?;
    Ok(success(details, &asked.event_id))
}

/// The event and its details. An unknown event is an answer (`eventFound: false`), as in Harness.
async fn processing(
    triggers: &Triggers,
    id: &str,
    headers: &HeaderMap,
) -> Result<(Option<TriggerEvent>, Value), Refused> {
    if principal(triggers, headers).await?.is_none() {
        let message = "the API key is missing, unknown or revoked";
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", message));
    }
    let Some(event) = triggers.app.store.trigger_event(id).await? else {
        return Ok((None, json!({ "eventId": id, "eventFound": false })));
    };
    let doc = doc_of(&event);
    let shown = doc.shown();
    let (org, project) = doc.scope.split_once('/').unwrap_or((doc.scope.as_str(), ""));
    let details = json!({
        "eventFound": true,
        "eventId": event.id,
        "accountIdentifier": triggers.app.account,
        "orgIdentifier": org,
        "projectIdentifier": project,
        "pipelineIdentifier": shown.map_or(event.pipeline.as_str(), |result| &result.pipeline),
        "triggerIdentifier": shown.map_or(event.trigger.as_str(), |result| &result.trigger),
        "pipelineExecutionId": shown.and_then(|result| result.execution_id.clone()),
        "exceptionOccured": shown.is_some_and(|result| result.status == Verdict::ExceptionWhileProcessing),
        "status": shown.map_or("QUEUED", |result| result.status.name()),
        "message": shown.map_or("the event waits to be processed", |result| result.message.as_str()),
        "payload": doc.payload.to_string(),
        "eventCreatedAt": event.at,
        "results": doc.results,
    });
    Ok((Some(event), details))
}
