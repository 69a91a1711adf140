//! What people do to an execution beside starting and ending it: `POST /executions/{id}/intervene`, `…/inputs`,
//! `…/rerun`, `…/rollback`.

use super::body::JsonBody;
use super::executions::begin;
use super::{Answer, Api, Caller, error::ApiError, view};
use crate::engine::{Record, execution_id};
use crate::preflight;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pipeline::machine::state::Phase;
use pipeline::machine::{self, Actor, Intervention, NothingToRollBack, UserAction};
use pipeline::plan::RunFacts;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Decision {
    /// Identifier or node id of the step.
    step: String,
    /// `Retry`, `Ignore`, `MarkAsSuccess`, …
    action: String,
}

/// Decides about a failed step, or ends a Wait step early. A second decision is refused: the step no longer waits.
pub(super) async fn intervene(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(decision): JsonBody<Decision>,
) -> Answer<Json<Value>> {
    let Some(action) = decision_of(&decision.action) else {
        let message = format!("`action`: `{}` is not one of {}", decision.action, decisions());
        return Err(ApiError::request(message));
    };
    decide(&api, &caller, &id, &decision.step, action).await?;
    Ok(Json(view::of(&api, &id).await?.document))
}

/// A decision by its name, whatever its case.
pub(super) fn decision_of(name: &str) -> Option<Intervention> {
    Intervention::ALL.into_iter().find(|action| action.name().eq_ignore_ascii_case(name))
}

/// The names of all decisions, for messages.
pub(super) fn decisions() -> String {
    Intervention::ALL.map(|action| action.name()).join(", ")
}

/// Takes a decision about a step that waits for one, named by identifier or node id.
pub(super) async fn decide(
    api: &Api,
    caller: &Caller,
    id: &str,
    step: &str,
    action: Intervention,
) -> Answer<()> {
    let record = record_of(api, id).await?;
    view::check_step(api, id, last_part(step)).await?;
    let waits = |phase: Phase| matches!(phase, Phase::Intervention | Phase::Wait);
    let node = node_of(&record, step, waits)?;
    let is_wait = record.machine.runs.get(&node).is_some_and(|run| run.phase == Phase::Wait);
    let action = match (is_wait, action) {
        (true, Intervention::MarkAsSuccess) => UserAction::MarkWait { success: true },
        (true, Intervention::MarkAsFailure) => UserAction::MarkWait { success: false },
        (true, _) => {
            let message = "a Wait step can only be ended with `MarkAsSuccess` or `MarkAsFailure`";
            return Err(ApiError::request(message));
        }
        (false, action) => UserAction::Intervene { action },
    };
    api.engine.act(id, &node, actor(caller), action).await?;
    Ok(())
}

#[derive(Deserialize)]
pub(super) struct Given {
    /// Identifier or node id of the step.
    step: String,
    /// Values by what the step calls its inputs.
    #[serde(default)]
    inputs: BTreeMap<String, Value>,
}

/// Gives a step the inputs that it asks for. A second time is refused: the step no longer waits.
pub(super) async fn inputs(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(given): JsonBody<Given>,
) -> Answer<Json<Value>> {
    let record = record_of(&api, &id).await?;
    view::check_step(&api, &id, last_part(&given.step)).await?;
    let node = node_of(&record, &given.step, |phase| phase == Phase::Input)?;
    api.engine.act(&id, &node, actor(&caller), UserAction::GiveInputs { values: given.inputs }).await?;
    Ok(Json(view::of(&api, &id).await?.document))
}

/// Who acts, by the API key.
pub(super) fn actor(caller: &Caller) -> Actor {
    Actor { name: caller.0.clone(), principal: caller.0.clone(), ..Actor::default() }
}

/// The one begun run of a step that `waits`; without one, any run of the step, which then says itself why it refuses.
///
/// **Errors**: several iterations wait, and none was named.
pub(super) fn node_of(record: &Record, step: &str, waits: impl Fn(Phase) -> bool) -> Answer<String> {
    let suffix = format!(".{step}");
    let runs = record.machine.runs.iter();
    let mut named: Vec<_> = runs
        .filter(|(id, run)| {
            // An identifier stands for all iterations of the step.
            let plain = record.machine.plan.node(run.node).is_some_and(|node| node.identifier == step);
            id.as_str() == step || id.ends_with(&suffix) || plain
        })
        .collect();
    if let Some(exact) = named.iter().find(|(id, run)| id.as_str() == step && waits(run.phase)) {
        return Ok(exact.0.clone());
    }
    if named.iter().any(|(_, run)| waits(run.phase)) {
        named.retain(|(_, run)| waits(run.phase));
    } else {
        named.truncate(1);
    }
    match named.as_slice() {
        [(one, _)] => Ok((*one).clone()),
        [] => Err(ApiError::not_found(format!("the step `{step}` has not begun"))),
        many => {
            let ids: Vec<&str> = many.iter().map(|(id, _)| last_part(id)).collect();
            let message = format!("several runs of `{step}` wait: {}", ids.join(", "));
            Err(ApiError::conflict(message).hint("name one of them, or its whole node id"))
        }
    }
}

fn last_part(node: &str) -> &str {
    node.rsplit('.').next().unwrap_or(node)
}

async fn record_of(api: &Api, id: &str) -> Answer<Record> {
    let found = api.engine.record(id).await?;
    Ok(found.ok_or_else(|| ApiError::no_execution(id))?.1)
}

/// Starts the pipeline as it stands now with the inputs of an earlier execution. **Repeat**: one more execution.
pub(super) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<Value>)> {
    let record = record_of(&api, &id).await?;
    let Some(request) = record.request else {
        let error = ApiError::conflict(format!("the inputs of execution {id} are not known"));
        return Err(
            error.hint("it is a rollback, or an older manager started it: use `delegate pipeline run`")
        );
    };
    let pipeline = record.machine.plan.run.pipeline.clone();
    let mut answer = begin(&api, &caller, pipeline, request).await?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("rerunOf".to_owned(), json!(id));
    }
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Starts an execution that rolls a finished one back by what its steps recorded. **Repeat**: one more execution.
pub(super) async fn rollback(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<Value>)> {
    let finished = record_of(&api, &id).await?.machine;
    let old = finished.plan.run.clone();
    let fresh = execution_id();
    let facts = RunFacts {
        execution_id: fresh.clone(),
        started_by: caller.0.clone(),
        started_at: api.app.clock.wall(),
        ..old
    };
    let first = machine::rollback_of(&finished, facts).map_err(|why| match why {
        NothingToRollBack::Running => ApiError::conflict(why.to_string()),
        NothingToRollBack::Rollback(_) | NothingToRollBack::NoStage => ApiError::conflict(why.to_string())
            .hint("`delegate execution show ID` shows what ran and what was rolled back"),
    })?;
    let facts = first.plan.run.clone();
    let record = move |sequence_id| {
        let mut first = first;
        Arc::make_mut(&mut first.plan).run.sequence_id = sequence_id;
        Ok(Record::new(first))
    };
    let row = preflight::create(&api.app, &api.engine, &facts, record).await?;
    let answer = json!({ "executionId": fresh, "sequenceId": row.sequence_id, "rollbackOf": id });
    Ok((StatusCode::CREATED, Json(answer)))
}
