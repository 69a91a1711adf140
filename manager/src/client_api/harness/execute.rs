//! Endpoint 2: starts a pipeline.

use super::success;
use crate::client_api::body::{JsonBody, MAX_BODY_BYTES, read};
use crate::client_api::error::ApiError;
use crate::client_api::executions::begin;
use crate::client_api::{Answer, Api, Caller};
use crate::engine::RunRequest;
use crate::harness_api::Meant;
use crate::store::ExecutionRow;
use axum::Json;
use axum::extract::{Extension, Path, Query, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InputSets {
    input_set_references: Vec<String>,
}

/// The body is an input document in YAML, or nothing.
pub(super) async fn with_inputs(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(meant): Query<Meant>,
    request: Request,
) -> Answer<Json<Value>> {
    let body = read(request, MAX_BODY_BYTES).await?;
    let text = String::from_utf8(body)
        .map_err(|_| ApiError::request("the body is no UTF-8 text; expected the inputs as YAML"))?;
    let request = RunRequest { inputs_yaml: document(text), ..RunRequest::default() };
    start(&api, &caller, &id, &meant, request).await
}

/// The body names stored input sets.
pub(super) async fn with_input_sets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(meant): Query<Meant>,
    JsonBody(sets): JsonBody<InputSets>,
) -> Answer<Json<Value>> {
    let request = RunRequest { input_sets: sets.input_set_references, ..RunRequest::default() };
    start(&api, &caller, &id, &meant, request).await
}

#[derive(Deserialize)]
pub(super) struct V1 {
    #[serde(default)]
    inputs_yaml: String,
}

/// The newer form.
pub(super) async fn v1(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((org, project, id)): Path<(String, String, String)>,
    JsonBody(body): JsonBody<V1>,
) -> Answer<Json<Value>> {
    let meant = Meant::project(org, project);
    let request = RunRequest { inputs_yaml: document(body.inputs_yaml), ..RunRequest::default() };
    let row = run(&api, &caller, &id, &meant, request).await?;
    Ok(Json(json!({ "execution_details": { "execution_id": row.id, "status": status(&row) } })))
}

/// Nothing but blanks is no document.
fn document(text: String) -> Option<String> {
    Some(text).filter(|text| !text.trim().is_empty())
}

async fn start(
    api: &Api,
    caller: &Caller,
    id: &str,
    meant: &Meant,
    request: RunRequest,
) -> Answer<Json<Value>> {
    let row = run(api, caller, id, meant, request).await?;
    Ok(success(json!({
        "planExecution": {
            "uuid": row.id,
            "status": status(&row),
            "startTs": row.created_at,
            "endTs": row.ended_at,
            "metadata": {
                "runSequence": row.sequence_id,
                "pipelineIdentifier": row.pipeline,
                "executionUuid": row.id,
                "triggerInfo": {
                    "triggerType": "MANUAL",
                    "triggeredBy": { "identifier": row.started_by },
                    "isRerun": false,
                },
            },
        },
        "gitDetails": { "valid": false },
    })))
}

/// Harness writes statuses of this endpoint in capitals.
fn status(row: &ExecutionRow) -> String {
    row.status.to_ascii_uppercase()
}

async fn run(
    api: &Api,
    caller: &Caller,
    id: &str,
    meant: &Meant,
    request: RunRequest,
) -> Answer<ExecutionRow> {
    meant.check_account(&api.app.account).map_err(ApiError::request)?;
    let pipeline = named(api, id, meant).await?;
    let answer = begin(api, caller, pipeline, request).await?;
    let id = answer.get("executionId").and_then(Value::as_str).unwrap_or_default();
    let row = api.app.store.execution(id).await?;
    row.ok_or_else(|| ApiError::no_execution(id))
}

/// The pipeline in the organisation and project that the call names; one without them if there is none.
async fn named(api: &Api, id: &str, meant: &Meant) -> Answer<String> {
    let scope = meant.scope();
    if scope.is_empty() {
        return Ok(id.to_owned());
    }
    let scoped = api.app.store.entity("pipeline", &scope, id).await?.is_some();
    if scoped {
        return Ok(format!("{scope}/{id}"));
    }
    let plain = api.app.store.entity("pipeline", "", id).await?.is_some();
    if plain {
        return Ok(id.to_owned());
    }
    Err(ApiError::not_found(format!("the pipeline `{id}` does not exist in `{scope}`"))
        .hint("`delegate get pipeline` lists them; `delegate apply FILE` adds one"))
}
