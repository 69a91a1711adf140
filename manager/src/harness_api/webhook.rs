//! The custom webhook, and what became of its events.

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct Meant {
    account_identifier: Option<String>,
    org_identifier: String,
    project_identifier: String,
    pipeline_identifier: String,
    trigger_identifier: String,
}

impl Meant {
    fn scope(&self) -> String {
        match (self.org_identifier.as_str(), self.project_identifier.as_str()) {
            ("", _) => String::new(),
            (org, "") => org.to_owned(),
            (org, project) => format!("{org}/{project}"),
        }
    }
}

/// Takes an event: it is durable when the answer is sent, and processed afterwards.
pub(super) async fn custom(
    State(triggers): State<Arc<Triggers>>,
    Query(meant): Query<Meant>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    take(&triggers, meant, None, request).await
}

/// The same, for the one trigger whose token stands in the path. The token names it; the key still says who calls.
pub(super) async fn custom_of_token(
    State(triggers): State<Arc<Triggers>>,
    Path(token): Path<String>,
    Query(meant): Query<Meant>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    take(&triggers, meant, Some(token), request).await
}

async fn take(
    triggers: &Arc<Triggers>,
    mut meant: Meant,
    token: Option<String>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let id = crate::engine::execution_id();
    let headers = request.headers().clone();
    let body = body::read(request, MAX_EVENT_BYTES).await;
    let principal = principal(triggers, &headers).await?;
    let Some(principal) = principal.filter(|principal| principal.role >= Role::Executor) else {
        return Err(refuse(triggers, &meant, id).await);
    };
    if let Some(token) = token {
        let named = named(
            all(&triggers.app).await?,
            &meant.scope(),
            &meant.pipeline_identifier,
            &meant.trigger_identifier,
        );
        let hit = named.into_iter().find(|stored| triggers.app.key.is_token(&stored.token_name(), &token));
        let Some(Stored { trigger, .. }) = hit else {
            return Err(refuse(triggers, &meant, id).await);
        };
        let (org, project) = trigger.scope.split_once('/').unwrap_or((&trigger.scope, ""));
        (meant.org_identifier, meant.project_identifier) = (org.to_owned(), project.to_owned());
        (meant.pipeline_identifier, meant.trigger_identifier) = (trigger.pipeline, trigger.identifier);
    }
    let of = (meant.pipeline_identifier.as_str(), meant.trigger_identifier.as_str());
    let account = &triggers.app.account;
    if let Some(named) = meant.account_identifier.as_ref().filter(|named| *named != account) {
        let message = format!("`accountIdentifier` is `{named}`; the account of this manager is `{account}`");
        return Err(Refused::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message));
    }
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
        scope: meant.scope(),
        by: principal.owner,
        payload,
        headers: kept_headers(&headers),
        ..EventDoc::default()
    };
    triggers.take(id.clone(), of, &doc).await?;
    let details =
        format!("/gateway/pipeline/api/webhook/triggerExecutionDetails/{id}?accountIdentifier={account}");
    let data = json!({ "eventCorrelationId": id, "apiUrl": details, "uiUrl": null, "uiSetupUrl": null });
    Ok(success(data, &id))
}

/// 401, written down with the trigger that was meant, if there is such a one.
async fn refuse(triggers: &Triggers, meant: &Meant, id: String) -> Refused {
    let message = "the API key is missing, unknown or revoked, its role is too small to start pipelines, or the token of the path is not the trigger's";
    let refused = Refused::new(StatusCode::UNAUTHORIZED, "TRIGGER_AUTHENTICATION_FAILED", message);
    if !triggers.may_note_refusal() {
        return refused;
    }
    let (pipeline, trigger) = (meant.pipeline_identifier.clone(), meant.trigger_identifier.clone());
    let known = match all(&triggers.app).await {
        Ok(all) => !named(all, &meant.scope(), &pipeline, &trigger).is_empty(),
        Err(_) => false,
    };
    if pipeline.is_empty() || trigger.is_empty() || !known {
        return refused;
    }
    let doc = EventDoc {
        kind: "webhook".to_owned(),
        scope: meant.scope(),
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
    let started = doc.results.iter().find(|result| result.execution_id.is_some());
    let shown = started.or(doc.results.first());
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
