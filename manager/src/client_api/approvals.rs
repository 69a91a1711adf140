//! `GET /approvals`, `GET /approvals/{id}`, `POST /approvals/{id}/approve` and `/reject`. Harness' own paths for them are
//! in [`super::harness`].
//!
//! An approval's id holds that of its execution, so that it is found without an index. Who somebody is – their groups
//! above all – is read from the store at the moment in which they act.

use super::body::JsonBody;
use super::{Answer, Api, error::ApiError};
use crate::auth::Principal;
use crate::engine::{EngineError, Record, task_id};
use crate::users;
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use pipeline::machine::state::{Phase, Run};
use pipeline::machine::{Actor, Refusal, UserAction};
use pipeline::plan::RunFacts;
use pipeline::view::ApprovalView;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub(super) struct Filter {
    execution: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Decision {
    /// A value of `null` is an empty one.
    #[serde(default)]
    inputs: BTreeMap<String, Option<String>>,
    #[serde(default)]
    comments: Option<String>,
}

impl Decision {
    /// Inputs and comments.
    fn given(self) -> (BTreeMap<String, String>, String) {
        let inputs = self.inputs.into_iter().map(|(name, value)| (name, value.unwrap_or_default()));
        (inputs.collect(), self.comments.unwrap_or_default())
    }
}

/// The id of the approval of a run.
pub(super) fn approval_id(execution_id: &str, node: &str, attempt: u32) -> String {
    // A `.` is in neither part, so that the id can be taken apart again.
    format!("{execution_id}.{}", task_id(execution_id, node, attempt))
}

fn shown(record: &Record, node: &str, run: &Run) -> Option<Value> {
    let view = ApprovalView::of(run)?;
    let plan = &record.machine.plan;
    let (facts, asked) = (&plan.run, &view.asked);
    let stage = plan.stage_of(run.node).and_then(|(index, _)| plan.node(index));
    let activities: Vec<Value> = asked.activities.iter().map(|activity| activity.shown()).collect();
    Some(json!({
        "id": approval_id(&facts.execution_id, node, run.attempt),
        "type": "HarnessApproval",
        "executionId": facts.execution_id,
        "pipeline": facts.pipeline,
        "sequenceId": facts.sequence_id,
        "stage": stage.map(|stage| &stage.identifier),
        "step": plan.node(run.node).map(|step| &step.identifier),
        "node": node,
        "status": view.status,
        "message": asked.message,
        "createdAt": asked.asked_at,
        "deadline": asked.deadline,
        "approvers": {
            "userGroups": asked.groups,
            "minimumCount": asked.minimum,
            "disallowPipelineExecutor": asked.disallow_executor,
            "disallowedUserEmails": asked.disallowed_emails,
        },
        "approverInputs": asked.inputs,
        "approvalActivities": activities,
    }))
}

/// What waits for people now; with `execution` also what that execution asked before.
pub(super) async fn list(State(api): State<Api>, Query(filter): Query<Filter>) -> Answer<Json<Value>> {
    let ids = match &filter.execution {
        Some(id) => vec![id.clone()],
        None => api.app.store.open_executions().await?,
    };
    let mut all = Vec::new();
    for id in ids {
        let Some((_, record)) = api.engine.record(&id).await? else { continue };
        let wanted = record
            .machine
            .runs
            .iter()
            .filter(|(_, run)| filter.execution.is_some() || run.phase == Phase::Approval);
        all.extend(wanted.filter_map(|(node, run)| shown(&record, node, run)));
    }
    Ok(Json(Value::Array(all)))
}

/// An approval with the execution that asks for it.
pub(super) struct Found {
    /// The execution.
    pub(super) record: Record,
    /// The node that asks.
    pub(super) node: String,
}

impl Found {
    fn run(&self) -> Option<&Run> {
        self.record.machine.runs.get(&self.node)
    }

    /// Its id.
    pub(super) fn id(&self) -> String {
        let execution = &self.record.machine.plan.run.execution_id;
        approval_id(execution, &self.node, self.run().map_or(0, |run| run.attempt))
    }

    /// The document of this API.
    pub(super) fn shown(&self) -> Value {
        self.run().and_then(|run| shown(&self.record, &self.node, run)).unwrap_or(Value::Null)
    }
}

/// By id, also one that was decided.
pub(super) async fn find(api: &Api, id: &str) -> Answer<Found> {
    let missing = || {
        ApiError::not_found(format!("the approval `{id}` does not exist"))
            .hint("`delegate approval list` shows what waits")
    };
    let (execution, _) = id.split_once('.').ok_or_else(missing)?;
    let (_, record) = api.engine.record(execution).await?.ok_or_else(missing)?;
    let node = record
        .machine
        .runs
        .iter()
        .find(|(node, run)| run.approval.is_some() && approval_id(execution, node, run.attempt) == id)
        .map(|(node, _)| node.clone())
        .ok_or_else(missing)?;
    Ok(Found { record, node })
}

pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(find(&api, &id).await?.shown()))
}

pub(super) async fn approve(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    JsonBody(decision): JsonBody<Decision>,
) -> Answer<Json<Value>> {
    let found = find(&api, &id).await?;
    let (mut inputs, comments) = decision.given();
    // What a form would have filled in.
    let asks = found.run().and_then(|run| run.approval.as_ref()).map(|asked| asked.inputs.as_slice());
    for ask in asks.unwrap_or_default() {
        if ask.default_value.is_some() || !ask.rule.required {
            let value = || ask.default_value.clone().unwrap_or_default();
            inputs.entry(ask.rule.name.clone()).or_insert_with(value);
        }
    }
    let action = UserAction::Approve { inputs, comments };
    act(&api, &principal, &id, found, action).await.map(Json)
}

pub(super) async fn reject(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    JsonBody(decision): JsonBody<Decision>,
) -> Answer<Json<Value>> {
    let found = find(&api, &id).await?;
    let (inputs, comments) = decision.given();
    let action = UserAction::Reject { inputs, comments };
    act(&api, &principal, &id, found, action).await.map(Json)
}

/// Hands a decision to the step; answers with what the approval is then.
pub(super) async fn act(
    api: &Api,
    principal: &Principal,
    id: &str,
    found: Found,
    action: UserAction,
) -> Answer<Value> {
    let facts = &found.record.machine.plan.run;
    let by = actor(api, principal, facts).await?;
    api.engine.act(&facts.execution_id, &found.node, by, action).await?;
    Ok(find(api, id).await?.shown())
}

/// Somebody with the groups that they are in now, as the pipeline sees them.
pub(super) async fn actor(api: &Api, principal: &Principal, facts: &RunFacts) -> Answer<Actor> {
    let Some(user) = super::users::of(api, principal).await? else {
        let why = "this API key belongs to no user; make one with `delegate apikey create --user EMAIL`";
        return Err(EngineError::from(Refusal::NotAllowed {
            who: principal.owner.clone(),
            why: why.to_owned(),
        })
        .into());
    };
    let groups = users::groups(api.app.store.as_ref(), &facts.scope()).await?.of(&user.email);
    Ok(Actor {
        name: user.name,
        principal: user.email.clone(),
        email: user.email,
        groups: groups.into_iter().collect(),
    })
}
