//! `GET /agents`: who is connected and what runs where.

use super::{Answer, Api};
use axum::Json;
use axum::extract::State;
use proto::limits::CONNECTED_FOR;
use proto::task::StepTask;
use serde_json::{Value, json};

pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Value>> {
    let now = api.app.clock.wall();
    let limit = u64::try_from(CONNECTED_FOR.as_millis()).unwrap_or(u64::MAX);
    let mut answer = Vec::new();
    for agent in api.app.store.agents().await? {
        if agent.gone {
            continue;
        }
        let tasks = api.app.store.tasks_of_agent(&agent.id).await?;
        let running: Vec<Value> = tasks
            .iter()
            .map(|row| {
                let step = serde_json::from_str::<StepTask>(&row.task.data)
                    .map_or_else(|_| row.task.node.clone(), |task| task.step.identifier);
                json!({ "taskId": row.task.id, "step": step, "executionId": row.task.execution_id })
            })
            .collect();
        answer.push(json!({
            "id": agent.id,
            "name": agent.name,
            "hostName": agent.host_name,
            "tags": agent.tags,
            "version": agent.version,
            "connected": now.saturating_sub(agent.last_heartbeat) < limit,
            // An agent tells its load with the next heartbeat; what it was given since counts at once.
            "busy": agent.busy.max(u32::try_from(tasks.len()).unwrap_or(u32::MAX)),
            "capacity": agent.capacity,
            "lastHeartbeat": agent.last_heartbeat,
            "tasks": running,
        }));
    }
    Ok(Json(Value::Array(answer)))
}
