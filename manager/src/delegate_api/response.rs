//! The JSON response to a task. Once the request is understood the answer is 204 whatever became of the task: clients
//! repeat anything else for minutes.

use super::access::Caller;
use super::reply::Refusal;
use crate::app::App;
use crate::store::Answered;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use proto::failure::{Failure, FailureKind};
use proto::response::{ResponseCode, TaskResponse};
use proto::result::{Output, StepResult, StepStatus};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) async fn respond(
    State(app): State<App>,
    _caller: Caller,
    Path((task, delegate)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    take(&app, &task, &delegate, &body).await.map(|()| StatusCode::NO_CONTENT)
}

/// Stores an answer; it is durable when this returns. **Repeat**: safe, the first one counts.
pub(super) async fn take(app: &App, task: &str, delegate: &str, body: &[u8]) -> Result<(), Refusal> {
    let response = TaskResponse::decode(body).map_err(|e| Refusal::invalid(e.to_string()))?;
    app.queue.seen(delegate);
    let name = app.queue.agent(delegate).map(|agent| agent.name).unwrap_or_default();
    let result = step_result(&response, &name);
    let fence = result.fence;
    let result = serde_json::to_value(result).map_err(|_| {
        Refusal::invalid("the result cannot be stored: it holds a value that JSON cannot express")
    })?;
    match app.store.answer(task, delegate, fence, result, app.clock.wall()).await? {
        Answered::First(row) => tracing::debug!(task = %row.task.id, agent = %name, "answered"),
        Answered::Late => {
            tracing::info!(%task, agent = %name, fence, "a late or repeated answer was kept aside")
        }
        Answered::Unknown => tracing::info!(%task, agent = %name, "an answer to an unknown task was ignored"),
    }
    Ok(())
}

/// Every answer becomes a step result, so that everything behind this border knows one shape. What a foreign client
/// wrote stands in the output `data`.
fn step_result(response: &TaskResponse, agent: &str) -> StepResult {
    if response.code == ResponseCode::Ok
        && let Ok(mut result) = response.step_result()
    {
        if result.agent.is_empty() {
            agent.clone_into(&mut result.agent);
        }
        return result;
    }
    let data: Value = serde_json::from_str(response.data.get()).unwrap_or(Value::Null);
    let (status, failure) = match response.code {
        ResponseCode::Ok => (StepStatus::Success, None),
        ResponseCode::Failed | ResponseCode::RetryOnOtherDelegate => {
            let text = data.get("errorMessage").or_else(|| data.get("error_message")).and_then(Value::as_str);
            let message = text.unwrap_or("the delegate could not answer the task").to_owned();
            (StepStatus::Failed, Some(Failure::new(FailureKind::RemoteFailed, "MGR-011", message)))
        }
    };
    StepResult {
        outputs: BTreeMap::from([("data".to_owned(), Output::from(data))]),
        agent: agent.to_owned(),
        ..StepResult::bare(status, failure)
    }
}
