//! The JSON acquire.

use super::access::Caller;
use super::reply::Refusal;
use crate::app::{App, SealError};
use crate::auth::run_prefix;
use crate::store::{Acquire, Agent, TaskRow};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use proto::failure::{Failure, FailureKind};
use proto::package::{Abstractions, Assignee, Logging, PackageExt, TaskPackage};
use proto::result::StepResult;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AcquireQuery {
    #[serde(default)]
    delegate_instance_id: String,
}

pub(super) async fn acquire(
    State(app): State<App>,
    caller: Caller,
    Path((delegate, task)): Path<(String, String)>,
    Query(query): Query<AcquireQuery>,
) -> Result<Json<TaskPackage>, Refusal> {
    take(&app, &caller, &delegate, &task, &query.delegate_instance_id).await.map(Json)
}

/// Gives the task to the delegate; `instance` may be empty. **Repeat**: the same instance gets the same package.
pub(super) async fn take(
    app: &App,
    caller: &Caller,
    delegate: &str,
    task: &str,
    instance: &str,
) -> Result<TaskPackage, Refusal> {
    let Some(agent) = app.queue.agent(delegate).filter(|agent| !agent.gone) else {
        return Err(Refusal::not_yours());
    };
    app.queue.seen(delegate);
    // Selectors, task types and the need of a key hold here too: an agent cannot take what it was not offered.
    if !app.queue.may_acquire(delegate, task) {
        return Err(Refusal::not_yours());
    }
    let instance = if instance.is_empty() { delegate } else { instance };
    let row = match app.store.acquire(task, delegate, instance, app.clock.wall()).await? {
        Acquire::Assigned(row) => row,
        Acquire::NotYours => return Err(Refusal::not_yours()),
    };
    package(app, caller, &agent, instance, *row).await
}

async fn package(
    app: &App,
    caller: &Caller,
    agent: &Agent,
    instance: &str,
    row: TaskRow,
) -> Result<TaskPackage, Refusal> {
    let task = row.task;
    let ext = if agent.extended {
        let sealed_secrets = if task.secrets.is_empty() {
            BTreeMap::new()
        } else {
            match app.secrets.sealed_for(&task.execution_id, &task.secrets, &agent.public_key).await {
                Ok(sealed) => sealed,
                Err(error) => return Err(refuse(app, agent, &task.id, row.fence, &error).await?),
            }
        };
        let checkpoints = app.store.checkpoints(&task.id).await?;
        Some(PackageExt { fence: row.fence, sealed_secrets, checkpoints, ..PackageExt::default() })
    } else {
        None
    };
    let data = RawValue::from_string(if task.data.is_empty() { "null".to_owned() } else { task.data })
        .map_err(|_| Refusal::with(StatusCode::CONFLICT, "the document of the task is not JSON"))?;
    let prefix = run_prefix(&task.abstractions);
    let token = app.log_tokens.mint(&caller.account, &prefix, app.clock.wall());
    Ok(TaskPackage {
        data,
        timeout: i64::try_from(task.timeout_ms).unwrap_or(i64::MAX),
        logging: Logging { token, abstractions: Abstractions(task.abstractions) },
        delegate: Assignee {
            id: Some(agent.id.clone()),
            instance_id: Some(instance.to_owned()),
            token: String::new(),
        },
        ext,
        ..TaskPackage::new(&task.id, &task.task_type, &())
            .map_err(|_| Refusal::with(StatusCode::CONFLICT, "the task cannot be written"))?
    })
}

/// Secrets that cannot be sealed: a missing one fails the task for good, anything else may be tried again.
async fn refuse(
    app: &App,
    agent: &Agent,
    task: &str,
    fence: u64,
    error: &SealError,
) -> Result<Refusal, Refusal> {
    let (missing, hint) = match error {
        SealError::Missing(name) => (name, format!("set it with `delegate secret set {name}` and run again")),
        SealError::NoOutput { output, .. } => {
            (output, "the step that gives it must have ended before this one; look at its outputs".to_owned())
        }
        SealError::PublicKey | SealError::Broken(_) => {
            tracing::error!(task, agent = %agent.name, %error, "secrets of a task cannot be sealed");
            return Ok(Refusal::with(StatusCode::SERVICE_UNAVAILABLE, error.to_string()));
        }
    };
    let failure =
        Failure::new(FailureKind::BadSpec, "MGR-010", error.to_string()).target(missing.clone()).hint(hint);
    let result = StepResult { agent: agent.name.clone(), fence, ..StepResult::failed(failure) };
    let result = serde_json::to_value(result)
        .map_err(|_| Refusal::with(StatusCode::CONFLICT, "the failure of the task cannot be written"))?;
    app.store.answer(task, &agent.id, fence, result, app.clock.wall()).await?;
    Ok(Refusal::not_yours())
}
