//! Polls for task events, long ones woken by notification.

use super::access::Caller;
use super::reply::Refusal;
use crate::app::App;
use crate::queue::Listed;
use axum::Json;
use axum::extract::{Path, Query, State};
use proto::events::{AbortReason, DelegateTaskAbortEvent, DelegateTaskEvent, TaskEvent, TaskEvents};
use proto::limits::MAX_LONG_POLL;
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize)]
pub(super) struct PollQuery {
    #[serde(default)]
    wait_ms: Option<String>,
}

pub(super) async fn poll(
    State(app): State<App>,
    caller: Caller,
    Path(delegate): Path<String>,
    Query(query): Query<PollQuery>,
) -> Result<Json<TaskEvents>, Refusal> {
    let wait = match query.wait_ms.as_deref() {
        None | Some("") => None,
        Some(text) => {
            let wait: u64 =
                text.parse().map_err(|_| Refusal::invalid("`wait_ms` is not a number of milliseconds"))?;
            Some(Duration::from_millis(wait).min(MAX_LONG_POLL))
        }
    };
    let listed = app.queue.poll(&delegate, wait.filter(|wait| !wait.is_zero()), &app.stop).await;
    let account = &caller.account;
    let events = listed
        .into_iter()
        .map(|listed| match listed {
            Listed::Task { id, task_type } => TaskEvent::Task(DelegateTaskEvent {
                account_id: account.clone(),
                delegate_task_id: id,
                sync: false,
                task_type: Some(task_type),
            }),
            Listed::Abort { id, reason } => TaskEvent::Abort(DelegateTaskAbortEvent {
                reason: match reason.as_str() {
                    "User" => Some(AbortReason::User),
                    "Deadline" => Some(AbortReason::Deadline),
                    _ => None,
                },
                account_id: account.clone(),
                delegate_task_id: id,
                sync: false,
                task_type: None,
            }),
        })
        .collect();
    Ok(Json(TaskEvents::new(events)))
}
