//! The execution view: what the machine knows, and what only the manager knows beside it.

use super::approvals::approval_id;
use super::logs::is_or_is_child;
use super::{Answer, Api, error::ApiError};
use crate::engine::{Record, task_id};
use pipeline::fault::did_you_mean;
use pipeline::machine::Status;
use pipeline::view::{ExecutionView, StepView, execution_view};
use serde_json::{Value, json};

/// An execution as it is answered.
pub(super) struct Shown {
    /// Grows with every change.
    pub(super) version: u64,
    /// Whether nothing changes it any more.
    pub(super) ended: bool,
    /// The document.
    pub(super) document: Value,
}

/// The view of an execution.
pub(super) async fn of(api: &Api, execution_id: &str) -> Answer<Shown> {
    let missing = || ApiError::no_execution(execution_id);
    let row = api.app.store.execution(execution_id).await?.ok_or_else(missing)?;
    let (version, record) = api.engine.record(execution_id).await?.ok_or_else(missing)?;
    let mut view = execution_view(&record.machine, Some(api.app.clock.wall()));
    for stage in &mut view.stages {
        for step in stage.steps.iter_mut().chain(&mut stage.rollback_steps) {
            name_approvals(execution_id, step);
        }
    }
    if view.status.is_open() {
        for stage in &mut view.stages {
            if let (Some(_), Some(key)) = (&stage.waiting_for, &stage.infrastructure_key) {
                stage.waiting_for = Some(queue_of(api, execution_id, key, stage.waiting_for.take()).await?);
            }
            for step in stage.steps.iter_mut().chain(&mut stage.rollback_steps) {
                explain(api, &record, execution_id, step);
            }
        }
    }
    let ended = record.machine.finished;
    let mut document = serde_json::to_value(view)
        .map_err(|error| ApiError::request(format!("the view cannot be written: {error}")))?;
    if let Some(fields) = document.as_object_mut() {
        fields.insert("version".to_owned(), json!(version));
        // An execution that was created and has not begun says when it was asked for.
        if fields.get("startedAt").is_none_or(Value::is_null) {
            fields.insert("startedAt".to_owned(), json!(row.created_at));
        }
    }
    Ok(Shown { version, ended, document })
}

/// Says by which id an approval is approved or rejected.
fn name_approvals(execution_id: &str, step: &mut StepView) {
    if let Some(approval) = &mut step.approval {
        let id = approval_id(execution_id, &step.node, step.attempt);
        if step.status == Status::ApprovalWaiting {
            let (got, minimum) = (approval.asked.approvals(), approval.asked.minimum);
            let groups = approval.asked.groups.join(", ");
            step.waiting_for =
                Some(format!("{got} of {minimum} approvals by {groups}: `delegate approval approve {id}`"));
        }
        approval.id = Some(id);
    }
    for inner in &mut step.steps {
        name_approvals(execution_id, inner);
    }
}

/// Who is before this execution in the queue for an infrastructure.
async fn queue_of(api: &Api, execution_id: &str, key: &str, what: Option<String>) -> Answer<String> {
    let what = what.unwrap_or_default();
    let queue = api.app.store.claims(key).await?;
    let mut before: Vec<&str> = Vec::new();
    for claim in queue.iter().take_while(|claim| claim.execution_id != execution_id) {
        if !before.contains(&claim.execution_id.as_str()) {
            before.push(&claim.execution_id);
        }
    }
    let Some((holder, between)) = before.split_first() else { return Ok(what) };
    let row = api.app.store.execution(holder).await?;
    let run = row.map(|row| format!(" ({} #{})", row.pipeline, row.sequence_id)).unwrap_or_default();
    let more = match between.len() {
        0 => String::new(),
        1 => "; 1 more execution waits before this one".to_owned(),
        more => format!("; {more} more executions wait before this one"),
    };
    Ok(format!("{what}, which execution {holder}{run} holds{more}"))
}

/// Says of a step whose task nobody has taken what it waits for.
fn explain(api: &Api, record: &Record, execution_id: &str, step: &mut StepView) {
    if step.status != Status::Running {
        return;
    }
    let nodes = std::iter::once((step.node.as_str(), step.attempt))
        .chain(step.hosts.iter().map(|host| (host.node.as_str(), 1)));
    step.waiting_for = nodes
        .map(|(node, attempt)| task_id(execution_id, node, attempt))
        .filter(|id| record.open.get(id).is_some_and(|open| !open.assigned))
        .find_map(|id| api.app.queue.explain(&id))
        .map(|explanation| explanation.sentence())
        .or(step.waiting_for.take());
    for inner in &mut step.steps {
        explain(api, record, execution_id, inner);
    }
}

/// Refuses a step that the execution does not have, with the nearest one that it has.
pub(super) async fn check_step(api: &Api, execution_id: &str, step: &str) -> Answer<()> {
    let Some((_, record)) = api.engine.record(execution_id).await? else { return Ok(()) };
    let known = identifiers(&execution_view(&record.machine, None));
    if known.iter().any(|id| is_or_is_child(step, id) || is_or_is_child(id, step)) {
        return Ok(());
    }
    let error = ApiError::not_found(format!("execution {execution_id} has no step `{step}`"));
    Err(match did_you_mean(step, known.iter().map(String::as_str)) {
        Some(near) => error.hint(near),
        None => error.hint(format!("its steps are {}", known.join(", "))),
    })
}

fn identifiers(view: &ExecutionView) -> Vec<String> {
    let mut open: Vec<&StepView> =
        view.stages.iter().flat_map(|stage| stage.steps.iter().chain(&stage.rollback_steps)).collect();
    let mut known: Vec<String> = view.stages.iter().map(|stage| stage.identifier.clone()).collect();
    while let Some(step) = open.pop() {
        known.push(step.identifier.clone());
        open.extend(&step.steps);
    }
    known
}
