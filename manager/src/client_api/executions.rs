//! `POST`, `GET /executions`, `GET /executions/{id}`, `POST /executions/{id}/abort`.

use super::body::JsonBody;
use super::{Answer, Api, Caller, error::ApiError, view};
use crate::engine::{RunRequest, execution_id};
use crate::preflight::{self, Launched, Refusal, Request};
use crate::store::ExecutionRow;
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use proto::limits::MAX_LONG_POLL;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::watch;

/// Rows listed when nobody says how many.
const DEFAULT_LIMIT: u32 = 50;
/// Most rows listed at once.
const MAX_LIMIT: u32 = 1000;
/// Versions that follow each other within this time are told to a waiting client at once: a fan-out makes dozens in a
/// second, and each view is made of the whole state.
const GATHER: Duration = Duration::from_millis(100);
/// A rehearsal that is faster than this divides minutes into nothing.
const MAX_REHEARSAL: u32 = 100_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    pipeline: String,
    #[serde(default)]
    inputs: Map<String, Value>,
    #[serde(default)]
    inputs_yaml: Option<String>,
    /// Stored input sets, in order.
    #[serde(default)]
    input_sets: Vec<String>,
    #[serde(default)]
    rehearse: Option<Value>,
    /// What faults call the document: the file it was applied from. Default: the identifier.
    #[serde(default)]
    source: Option<String>,
}

pub(super) async fn start(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    JsonBody(start): JsonBody<Start>,
) -> Answer<(StatusCode, Json<Value>)> {
    let rehearsal = rehearsal(start.rehearse.as_ref())?;
    let Start { pipeline, inputs, inputs_yaml, input_sets, source, .. } = start;
    let request = RunRequest { inputs, inputs_yaml, input_sets, source, rehearsal };
    Ok((StatusCode::CREATED, Json(begin(&api, &caller, pipeline, request).await?)))
}

/// Plans, creates and starts an execution.
pub(super) async fn begin(
    api: &Api,
    caller: &Caller,
    pipeline: String,
    request: RunRequest,
) -> Answer<Value> {
    let now = api.app.clock.wall();
    let id = execution_id();
    let request = Request {
        pipeline,
        with: request,
        trigger: None,
        execution_id: id.clone(),
        started_by: caller.0.clone(),
        started_at: now,
    };
    let Launched { row, warnings, notices } =
        preflight::launch(&api.app, &api.engine, request).await.map_err(refused)?;
    Ok(json!({
        "executionId": id,
        "sequenceId": row.sequence_id,
        "warnings": warnings,
        "notices": notices,
    }))
}

fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::NoPipeline { id, near } => {
            let error = ApiError::not_found(format!("the pipeline `{id}` does not exist"));
            match near {
                Some(near) => error.hint(near),
                None => error.hint("`delegate get pipeline` lists them; `delegate apply FILE` adds one"),
            }
        }
        Refusal::Ambiguous { id, scopes } => {
            ApiError::conflict(format!("the pipeline `{id}` exists in several scopes: {}", scopes.join(", ")))
        }
        Refusal::Invalid(faults) => ApiError::documents(faults),
        Refusal::Store(error) => error.into(),
    }
}

/// `60`, `"60"` or `"60x"`; 0 and 1 mean real time.
fn rehearsal(written: Option<&Value>) -> Answer<Option<u32>> {
    let factor = match written {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64().and_then(|factor| u32::try_from(factor).ok()),
        Some(Value::String(text)) => text.trim().trim_end_matches(['x', 'X']).parse().ok(),
        Some(_) => None,
    };
    match factor {
        Some(0 | 1) => Ok(None),
        Some(factor) if factor <= MAX_REHEARSAL => Ok(Some(factor)),
        _ => Err(ApiError::request(format!(
            "`rehearse` is not a factor such as 60 or \"60x\" between 1 and {MAX_REHEARSAL}"
        ))),
    }
}

/// `GET /engine`: how fast executions move on this manager.
pub(super) async fn engine(State(api): State<Api>) -> Json<Value> {
    Json(api.engine.figures())
}

#[derive(Deserialize)]
pub(super) struct Filter {
    pipeline: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(State(api): State<Api>, Query(filter): Query<Filter>) -> Answer<Json<Value>> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let rows = api.app.store.executions(filter.pipeline.as_deref(), limit).await?;
    Ok(Json(rows.iter().map(listed).collect()))
}

fn listed(row: &ExecutionRow) -> Value {
    json!({
        "executionId": row.id,
        "pipeline": row.pipeline,
        "sequenceId": row.sequence_id,
        "status": row.status,
        "rehearsal": row.rehearsal,
        "startedBy": row.started_by,
        "createdAt": row.created_at,
        "endedAt": row.ended_at,
    })
}

#[derive(Deserialize)]
pub(super) struct Since {
    since: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

/// With `since` the answer waits until the version is greater, the execution has ended, or `wait_ms` is over.
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(since): Query<Since>,
) -> Answer<Json<Value>> {
    let mut versions = api.engine.subscribe(&id);
    let wait = Duration::from_millis(since.wait_ms).min(MAX_LONG_POLL);
    let until = api.app.clock.mono() + wait;
    loop {
        if since.since.is_some() {
            gather(&api, &id, &mut versions, until).await?;
        }
        versions.borrow_and_update();
        let shown = view::of(&api, &id).await?;
        let news = since.since.is_none_or(|since| shown.version > since);
        if news || shown.ended || api.app.stop.is_cancelled() || api.app.clock.mono() >= until {
            return Ok(Json(shown.document));
        }
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { api.app.clock.sleep_until(until).await },
            () = api.app.clock.sleep_until(until) => {}
            () = api.app.stop.cancelled() => {}
        }
    }
}

/// Waits a little for more versions, not beyond `until` and not once the execution has ended.
async fn gather(
    api: &Api,
    id: &str,
    versions: &mut watch::Receiver<u64>,
    until: tokio::time::Instant,
) -> Answer<()> {
    let over = until.min(api.app.clock.mono() + GATHER);
    while api.app.clock.mono() < over {
        versions.borrow_and_update();
        if api.app.store.execution(id).await?.is_none_or(|row| row.ended) {
            return Ok(());
        }
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return Ok(()) },
            () = api.app.clock.sleep_until(over) => {}
            () = api.app.stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// Repeatable: aborting what has ended, or is being aborted, changes nothing.
pub(super) async fn abort(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<Value>)> {
    api.engine.abort(&id, &caller.0).await?;
    Ok((StatusCode::ACCEPTED, Json(view::of(&api, &id).await?.document)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_factor_is_a_number_with_or_without_x() {
        for (written, factor) in [
            (json!(60), Some(60)),
            (json!("60"), Some(60)),
            (json!("60x"), Some(60)),
            (json!(1), None),
            (json!("1x"), None),
            (Value::Null, None),
        ] {
            assert_eq!(rehearsal(Some(&written)).unwrap(), factor, "{written}");
        }
        for wrong in [json!("fast"), json!(-1), json!(1.5), json!([1]), json!(1_000_000)] {
            assert!(rehearsal(Some(&wrong)).is_err(), "{wrong}");
        }
    }
}
