//! Our additions: checkpoints and unit progress.

use super::access::Caller;
use super::reply::Refusal;
use crate::app::App;
use crate::store::StoreError;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use proto::result::UnitProgress;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HolderQuery {
    #[serde(default)]
    delegate_id: String,
    #[serde(default)]
    fence: Option<u64>,
}

/// 204 once the checkpoint is durable; 409 when the task is not this agent's under this fence.
pub(super) async fn checkpoint(
    State(app): State<App>,
    _caller: Caller,
    Path(task): Path<String>,
    Query(holder): Query<HolderQuery>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    take_checkpoint(&app, &task, &holder.delegate_id, holder.fence, &body)
        .await
        .map(|()| StatusCode::NO_CONTENT)
}

/// Stores a checkpoint; durable when this returns. **Repeat**: safe.
pub(super) async fn take_checkpoint(
    app: &App,
    task: &str,
    delegate: &str,
    fence: Option<u64>,
    body: &[u8],
) -> Result<(), Refusal> {
    let fence = fence.filter(|&fence| fence > 0);
    let fence =
        fence.ok_or_else(|| Refusal::invalid("`fence` is missing: a checkpoint names its acquisition"))?;
    let checkpoint: Value =
        serde_json::from_slice(body).map_err(|_| Refusal::invalid("the checkpoint is not JSON"))?;
    app.queue.seen(delegate);
    match app.store.checkpoint(task, delegate, fence, checkpoint).await {
        Ok(()) => Ok(()),
        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Err(Refusal::with(
            StatusCode::CONFLICT,
            format!("task {task} is not held by this delegate under fence {fence}"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// 204 in any case that is understood; progress of a task that is not this agent's is ignored.
pub(super) async fn progress(
    State(app): State<App>,
    _caller: Caller,
    Path(task): Path<String>,
    Query(holder): Query<HolderQuery>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    take_progress(&app, &task, &holder.delegate_id, &body).await.map(|()| StatusCode::NO_CONTENT)
}

/// Takes over how far the units of a task are. **Repeat**: safe.
pub(super) async fn take_progress(app: &App, task: &str, delegate: &str, body: &[u8]) -> Result<(), Refusal> {
    let progress: Vec<UnitProgress> =
        serde_json::from_slice(body).map_err(|_| Refusal::invalid("the progress is not a list of units"))?;
    let progress =
        serde_json::to_value(progress).map_err(|_| Refusal::invalid("the progress cannot be stored"))?;
    app.queue.seen(delegate);
    app.store.progress(task, delegate, progress).await?;
    Ok(())
}
