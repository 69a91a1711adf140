//! `POST /probes` and `GET /tasks/{id}`: no-op tasks that prove and measure dispatch, and where one task stands.

use super::body::JsonBody;
use super::{Answer, Api, error::ApiError};
use crate::store::{NewTask, TaskRow, TaskStatus};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::machine::SelectorSet;
use proto::ids::Id;
use proto::task::{ExecutionRef, NoopSpec, Step, StepSpec, StepTask};
use proto::text::SecretRef;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// At most so many probes at once: a bench needs thousands, nobody needs more.
const MAX_PROBES: u32 = 10_000;
/// Commits that are on their way at the same time; the store groups them.
const IN_FLIGHT: usize = 64;
/// A no-op that is not answered by then never is.
const PROBE_TIMEOUT: Duration = Duration::from_mins(10);
/// A probe's log line is a line.
const MAX_LINE_BYTES: usize = 1024;

#[derive(Deserialize)]
pub(super) struct Probe {
    #[serde(default = "one")]
    count: u32,
    #[serde(default)]
    line: String,
    #[serde(default)]
    selectors: Vec<String>,
}

fn one() -> u32 {
    1
}

pub(super) async fn probe(
    State(api): State<Api>,
    JsonBody(probe): JsonBody<Probe>,
) -> Answer<(StatusCode, Json<Value>)> {
    if probe.count == 0 || probe.count > MAX_PROBES {
        return Err(ApiError::request(format!("`count` is {}; expected 1 to {MAX_PROBES}", probe.count)));
    }
    if probe.line.len() > MAX_LINE_BYTES {
        return Err(ApiError::request(format!("`line` is longer than {MAX_LINE_BYTES} bytes")));
    }
    let now = api.app.clock.wall();
    let tasks = (0..probe.count)
        .map(|_| {
            let step = Step {
                identifier: "probe".to_owned(),
                name: "Probe".to_owned(),
                spec: StepSpec::Noop(NoopSpec { line: probe.line.clone() }),
            };
            let internal = Internal::new(step, "step", &probe.selectors, PROBE_TIMEOUT);
            internal_task(&api.app.account, internal, now)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
    stream::iter(tasks)
        .map(|task| api.app.store.enqueue(task))
        .buffered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "taskIds": ids }))))
}

/// A task outside of an execution: a probe, a connector test.
pub(super) struct Internal {
    task: StepTask,
    selectors: Vec<SelectorSet>,
    timeout: Duration,
    /// Secrets whose placeholders or references stand in the step.
    pub(super) secrets: Vec<SecretRef>,
    /// The token of its placeholders.
    pub(super) secret_token: i64,
}

impl Internal {
    /// A task with one step. `origin` says who asks for the selectors.
    pub(super) fn new(step: Step, origin: &str, selectors: &[String], timeout: Duration) -> Self {
        let set = SelectorSet { origin: origin.to_owned(), selectors: selectors.to_vec() };
        Internal {
            selectors: if selectors.is_empty() { Vec::new() } else { vec![set] },
            timeout,
            secrets: Vec::new(),
            secret_token: 0,
            task: StepTask {
                execution: ExecutionRef {
                    node: step.identifier.clone(),
                    attempt: 1,
                    ..ExecutionRef::default()
                },
                ..StepTask::of(step)
            },
        }
    }

    /// The document for the agent.
    pub(super) fn task_mut(&mut self) -> &mut StepTask {
        &mut self.task
    }
}

/// The row to queue.
pub(super) fn internal_task(account: &str, internal: Internal, now: u64) -> Answer<NewTask> {
    let Internal { mut task, selectors, timeout, secrets, secret_token } = internal;
    task.secret_token = secret_token;
    let id = Id::typeable(rand::random()).to_string();
    let written =
        |error: serde_json::Error| ApiError::request(format!("the task cannot be written: {error}"));
    Ok(NewTask {
        execution_id: String::new(),
        node: task.step.identifier.clone(),
        attempt: 1,
        task_type: task.step.spec.task_type().to_owned(),
        selectors: serde_json::to_value(selectors).map_err(written)?,
        secrets: secrets.into_iter().map(|secret| secret.0).collect(),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        affinity: String::new(),
        data: serde_json::to_string(&task).map_err(written)?,
        abstractions: vec![
            ("accountId".to_owned(), account.to_owned()),
            ("internalTask".to_owned(), id.clone()),
        ],
        created_at: now,
        id,
    })
}

pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let row = api.app.store.task(&id).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("task {id} does not exist")))?;
    let agent = match &row.agent_id {
        Some(agent) => api.app.store.agent(agent).await?.map(|agent| agent.name),
        None => None,
    };
    Ok(Json(document(&row, agent)))
}

fn document(row: &TaskRow, agent: Option<String>) -> Value {
    json!({
        "taskId": row.task.id,
        "status": match row.status {
            TaskStatus::Queued => "Queued",
            TaskStatus::Assigned => "Running",
            TaskStatus::Ended => "Ended",
        },
        "agent": agent,
        "createdAt": row.task.created_at,
        "assignedAt": row.assigned_at,
        "endedAt": row.ended_at,
        "result": row.result.as_ref().map(shown),
    })
}

/// A result as people see it: undo data and secret outputs stay inside (settled facts §1.8).
fn shown(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(fields) = result.as_object_mut() {
        fields.remove("undo");
        if let Some(outputs) = fields.get_mut("outputs").and_then(Value::as_object_mut) {
            for output in outputs.values_mut().filter_map(Value::as_object_mut) {
                if output.get("secret").and_then(Value::as_bool).unwrap_or(false) {
                    output.insert("value".to_owned(), Value::from(proto::logs::MASK));
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_data_and_secret_outputs_are_not_shown() {
        let result = json!({
            "status": "Success", "undo": {"a": 1},
            "outputs": {"x": {"value": "hidden", "secret": true}, "y": {"value": "open"}}
        });
        let shown = shown(&result);
        assert_eq!(shown["outputs"]["y"]["value"], "open");
        assert!(!shown.to_string().contains("hidden"));
        assert!(shown.get("undo").is_none());
    }
}
