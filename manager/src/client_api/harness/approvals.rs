//! Endpoint 5: approvals by their own id, and by the execution that they belong to.

use super::success;
use crate::auth::Principal;
use crate::client_api::approvals::{Found, act, actor, find};
use crate::client_api::body::JsonBody;
use crate::client_api::error::ApiError;
use crate::client_api::users;
use crate::client_api::{Answer, Api};
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use pipeline::machine::{Refusal, UserAction, accepts};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Approves or rejects, in the words of both APIs.
#[derive(Deserialize)]
pub(super) struct Activity {
    action: String,
    #[serde(default, rename = "approverInputs", alias = "approver_inputs")]
    inputs: Vec<Input>,
    #[serde(default)]
    comments: Option<String>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    #[serde(default)]
    value: Option<String>,
}

impl Activity {
    /// Exactly the inputs that were sent; `null` is an empty one.
    fn action(self) -> Answer<UserAction> {
        let inputs: BTreeMap<String, String> =
            self.inputs.into_iter().map(|one| (one.name, one.value.unwrap_or_default())).collect();
        let comments = self.comments.unwrap_or_default();
        match self.action.as_str() {
            "APPROVE" => Ok(UserAction::Approve { inputs, comments }),
            "REJECT" => Ok(UserAction::Reject { inputs, comments }),
            other => {
                let message = format!("`action`: expected APPROVE or REJECT, found `{other}`");
                Err(ApiError::request(message))
            }
        }
    }
}

pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(success(instance(&find(&api, &id).await?.shown())))
}

pub(super) async fn activity(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    JsonBody(activity): JsonBody<Activity>,
) -> Answer<Json<Value>> {
    let action = activity.action()?;
    let found = find(&api, &id).await?;
    Ok(success(instance(&act(&api, &principal, &id, found, action).await?)))
}

/// Whether the owner of the key may decide now, and why not.
pub(super) async fn authorization(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let Found { record, node } = find(&api, &id).await?;
    let state = &record.machine;
    let refusal = match users::of(&api, &principal).await? {
        None => Some("this API key belongs to no user".to_owned()),
        Some(_) => {
            let by = actor(&api, &principal, &state.plan.run).await?;
            // A rejection needs no inputs: what refuses it is about the person or the step alone.
            let ask = UserAction::Reject { inputs: BTreeMap::new(), comments: String::new() };
            match accepts(state, &node, &by, &ask) {
                Ok(()) => None,
                Err(Refusal::NotAllowed { why, .. }) => Some(why),
                Err(other) => Some(other.to_string()),
            }
        }
    };
    Ok(success(json!({ "authorized": refusal.is_none(), "reason": refusal })))
}

fn instance(shown: &Value) -> Value {
    let at = |name: &str| shown.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "id": at("id"),
        "type": at("type"),
        "status": at("status"),
        "approvalMessage": at("message"),
        "createdAt": at("createdAt"),
        "deadline": at("deadline"),
        "details": {
            "approvalMessage": at("message"),
            "approvers": at("approvers"),
            "approvalActivities": at("approvalActivities"),
            "approverInputs": at("approverInputs"),
        },
    })
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    approval_status: Option<String>,
    approval_type: Option<String>,
    node_execution_id: Option<String>,
    callback_id: Option<String>,
}

/// Every approval of an execution, decided ones too.
pub(super) async fn of_execution(
    State(api): State<Api>,
    Path((org, project, execution)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer<Json<Value>> {
    let all = found(&api, &org, &project, &execution, &wanted).await?;
    Ok(Json(all.iter().map(|one| snake_case(&instance(&one.shown()))).collect()))
}

/// Acts on the one approval that the execution waits for.
pub(super) async fn act_on_execution(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path((org, project, execution)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
    JsonBody(activity): JsonBody<Activity>,
) -> Answer<Json<Value>> {
    let action = activity.action()?;
    let wanted = Wanted { approval_status: Some("WAITING".to_owned()), ..wanted };
    let mut waiting = found(&api, &org, &project, &execution, &wanted).await?;
    if waiting.len() > 1 {
        let steps: Vec<&str> =
            waiting.iter().map(|one| one.node.rsplit('.').next().unwrap_or_default()).collect();
        let message = format!("the execution waits for several approvals: {}", steps.join(", "));
        return Err(ApiError::conflict(message).hint("name one by `callback_id`"));
    }
    let Some(one) = waiting.pop() else {
        return Err(ApiError::conflict(format!("the execution {execution} waits for no approval")));
    };
    let id = one.id();
    let shown = act(&api, &principal, &id, one, action).await?;
    Ok(Json(snake_case(&instance(&shown))))
}

async fn found(api: &Api, org: &str, project: &str, execution: &str, wanted: &Wanted) -> Answer<Vec<Found>> {
    let missing = || ApiError::not_found(format!("execution {execution} does not exist in {org}/{project}"));
    let (_, record) = api.engine.record(execution).await?.ok_or_else(missing)?;
    let facts = &record.machine.plan.run;
    // A pipeline without organisation and project is found from any: Harness' clients always name one.
    if !facts.org.is_empty() && (facts.org.as_str(), facts.project.as_str()) != (org, project) {
        return Err(missing());
    }
    let mut all = Vec::new();
    for (node, run) in record.machine.runs.iter() {
        let Some(asked) = &run.approval else { continue };
        let one = Found { record: record.clone(), node: node.clone() };
        let status = one.shown().get("status").and_then(Value::as_str).unwrap_or_default().to_owned();
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        if fits(&wanted.approval_status, &status)
            && fits(&wanted.approval_type, "HarnessApproval")
            && fits(&wanted.node_execution_id, node)
            && fits(&wanted.callback_id, asked.callback_id.as_deref().unwrap_or_default())
        {
            all.push(one);
        }
    }
    Ok(all)
}

/// The same document with its keys in snake case. Names of inputs are values and stay as they are.
fn snake_case(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let key = |key: &String| {
                let mut snake = String::with_capacity(key.len() + 4);
                for c in key.chars() {
                    if c.is_ascii_uppercase() {
                        snake.push('_');
                    }
                    snake.push(c.to_ascii_lowercase());
                }
                snake
            };
            Value::Object(map.iter().map(|(name, value)| (key(name), snake_case(value))).collect())
        }
        Value::Array(list) => list.iter().map(snake_case).collect(),
        other => other.clone(),
    }
}
