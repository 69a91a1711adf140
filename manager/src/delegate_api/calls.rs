//! Many calls of an agent about its tasks in one request (ADR 0008). Each is what the single call is, by the same
//! functions; the writer of the store commits those of a request together.

use super::access::Caller;
use super::reply::Refusal;
use super::{acquire, ext, response};
use crate::app::App;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use futures::future::join_all;
use proto::calls::{TaskCall, TaskReply, TaskVerb};
use proto::limits::{MAX_SHARED_PACKAGE_BYTES, MAX_TASK_CALLS};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallsQuery {
    #[serde(default)]
    delegate_id: String,
}

pub(super) async fn calls(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<CallsQuery>,
    body: Bytes,
) -> Result<Json<Vec<TaskReply>>, Refusal> {
    let calls: Vec<TaskCall> = serde_json::from_slice(&body)
        .map_err(|_| Refusal::invalid("the body is not a list of calls about tasks"))?;
    if calls.len() > MAX_TASK_CALLS {
        return Err(Refusal::invalid(format!("more than {MAX_TASK_CALLS} calls in one request")));
    }
    // At once, so that they share a commit.
    let mut replies = join_all(calls.into_iter().map(|call| one(&app, &caller, &query, call))).await;
    let mut bytes = 0;
    for reply in &mut replies {
        bytes += reply.body.as_ref().map_or(0, |body| body.get().len());
        if bytes > MAX_SHARED_PACKAGE_BYTES && reply.body.is_some() {
            // Acquired all the same: asked for by itself, the same package is given again.
            *reply = TaskReply::bare(StatusCode::PAYLOAD_TOO_LARGE.as_u16());
        }
    }
    Ok(Json(replies))
}

async fn one(app: &App, caller: &Caller, query: &CallsQuery, call: TaskCall) -> TaskReply {
    let delegate = query.delegate_id.as_str();
    let body = call.body.as_ref().map_or("", |body| body.get()).as_bytes();
    let done = match call.verb {
        TaskVerb::Acquire => {
            let instance = call.instance_id.as_deref().unwrap_or_default();
            let package = acquire::take(app, caller, delegate, &call.task_id, instance).await;
            let written = package.and_then(|package| {
                serde_json::value::to_raw_value(&package)
                    .map_err(|_| Refusal::with(StatusCode::CONFLICT, "the package cannot be written"))
            });
            return match written {
                Ok(body) => TaskReply { status: StatusCode::OK.as_u16(), body: Some(body) },
                Err(refusal) => TaskReply::bare(refusal.status().as_u16()),
            };
        }
        TaskVerb::Respond => response::take(app, &call.task_id, delegate, body).await,
        TaskVerb::Checkpoint => ext::take_checkpoint(app, &call.task_id, delegate, call.fence, body).await,
        TaskVerb::Progress => ext::take_progress(app, &call.task_id, delegate, body).await,
    };
    TaskReply::bare(done.map_or_else(|refusal| refusal.status(), |()| StatusCode::NO_CONTENT).as_u16())
}
