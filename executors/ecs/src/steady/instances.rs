//! Tasks of a service, listed and described.

use super::roster;
use super::tasks::Task;
use crate::session::{Session, ecs};
use aws::Fault;
use aws::document::list;
use executor_api::StepError;
use serde_json::{Map, Value, json};

/// Most tasks that one DescribeTasks takes, and one page of ListTasks holds (facts A1).
pub(super) const TASKS: usize = 100;

/// ARNs of a service's tasks whose desired status is `status`: `RUNNING` or `STOPPED`.
pub(super) async fn arns(session: &Session, service: &str, status: &str) -> Result<Vec<String>, Fault> {
    let input = json!({"cluster": session.cluster, "serviceName": service, "desiredStatus": status, "maxResults": TASKS});
    let found = session.pages(ecs("ListTasks"), input, "taskArns").await?;
    Ok(found.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Tasks by ARN. Those that have gone meanwhile are left out.
pub(super) async fn described(session: &Session, arns: &[String]) -> Result<Vec<Value>, Fault> {
    let mut tasks = Vec::with_capacity(arns.len());
    for arns in arns.chunks(TASKS) {
        let input = json!({"cluster": session.cluster, "tasks": arns});
        let mut answer = session.read(ecs("DescribeTasks"), input).await?;
        if let Some(Value::Array(found)) = answer.get_mut("tasks").map(Value::take) {
            tasks.extend(found);
        }
    }
    Ok(tasks)
}

/// The running tasks of a service as server instances (facts A0, `EcsTask`).
///
/// **Errors**: those of the account. **Cancel**: safe. **Repeat**: safe.
pub(crate) async fn instances(session: &Session, service: &str) -> Result<Vec<Value>, StepError> {
    let tasks = roster::running(session, service).await;
    let tasks =
        tasks.map_err(|fault| session.fault(fault, &format!("list the tasks of service {service}")))?;
    Ok(shown(service, &tasks))
}

/// Those that run, in the shape of an outcome.
pub(super) fn shown(service: &str, tasks: &[Value]) -> Vec<Value> {
    tasks
        .iter()
        .filter(|task| Task::read(task).last_status == "RUNNING")
        .map(|task| instance(service, task))
        .collect()
}

fn instance(service: &str, task: &Value) -> Value {
    let take = |from: &Value, names: &[&str]| {
        let members = names.iter().filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())));
        members.collect::<Map<String, Value>>()
    };
    let names =
        ["clusterArn", "launchType", "taskArn", "taskDefinitionArn", "startedAt", "startedBy", "version"];
    let mut instance = take(task, &names);
    instance.insert("serviceName".to_owned(), service.into());
    let containers = list(task, &["containers"]).iter();
    let containers: Vec<Value> = containers
        .map(|container| Value::Object(take(container, &["containerArn", "image", "name", "runtimeId"])))
        .collect();
    instance.insert("containers".to_owned(), containers.into());
    Value::Object(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_what_outcomes_show_of_a_running_task() {
        let task = |status: &str| {
            json!({"clusterArn": "c", "taskArn": "t", "taskDefinitionArn": "d", "lastStatus": status, "startedAt": 1.5,
                "startedBy": "ecs-svc/1", "version": 3, "launchType": "FARGATE", "cpu": "256",
                "containers": [{"containerArn": "ca", "image": "i", "name": "app", "runtimeId": "r", "cpu": "0"}]})
        };
        let expected = json!([{"clusterArn": "c", "taskArn": "t", "taskDefinitionArn": "d", "startedAt": 1.5,
            "startedBy": "ecs-svc/1", "version": 3, "launchType": "FARGATE", "serviceName": "web",
            "containers": [{"containerArn": "ca", "image": "i", "name": "app", "runtimeId": "r"}]}]);
        assert_eq!(Value::from(shown("web", &[task("RUNNING"), task("DEACTIVATING")])), expected);
    }
}
