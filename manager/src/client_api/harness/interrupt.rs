//! Endpoint 7: interrupts of an execution, and decisions about a node that waits for one.

use super::success;
use crate::client_api::actions::{decide, decision_of, decisions};
use crate::client_api::error::ApiError;
use crate::client_api::{Answer, Api, Caller};
use crate::harness_api::Meant;
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use pipeline::machine::Intervention;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    #[serde(default)]
    interrupt_type: String,
}

/// `AbortAll`: ends the whole execution. **Repeat**: an execution that has ended stays as it is.
pub(super) async fn execution(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
    Query(meant): Query<Meant>,
) -> Answer<Json<Value>> {
    meant.check_account(&api.app.account).map_err(ApiError::request)?;
    if !["AbortAll", "Abort"].contains(&asked.interrupt_type.as_str()) {
        return Err(unknown(&asked.interrupt_type, "a whole execution takes AbortAll"));
    }
    api.engine.abort(&id, &caller.0).await?;
    Ok(done(&id, &asked.interrupt_type))
}

/// A decision about one node. The node is its id, as `execution show --output json` has it in `node`, or an identifier.
/// A second decision is refused: the node no longer waits.
pub(super) async fn node(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((id, node)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    Query(meant): Query<Meant>,
) -> Answer<Json<Value>> {
    meant.check_account(&api.app.account).map_err(ApiError::request)?;
    let action = match asked.interrupt_type.as_str() {
        // What older clients of Harness call it.
        "UserMarkedFailure" | "MarkAsFailed" => Some(Intervention::MarkAsFailure),
        name => decision_of(name),
    };
    let Some(action) = action else {
        return Err(unknown(&asked.interrupt_type, &format!("a node takes {}", decisions())));
    };
    decide(&api, &caller, &id, &node, action).await?;
    Ok(done(&id, &asked.interrupt_type))
}

fn unknown(asked: &str, takes: &str) -> ApiError {
    let message = match asked {
        "" => format!("`interruptType` is missing; {takes}"),
        asked => format!("`interruptType`: `{asked}` is not supported here; {takes}"),
    };
    ApiError::request(message)
}

fn done(execution: &str, kind: &str) -> Json<Value> {
    success(json!({ "id": crate::engine::execution_id(), "type": kind, "planExecutionId": execution }))
}
