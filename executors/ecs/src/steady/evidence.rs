//! What stands behind a rollout that does not come about: targets of load balancers, the last lines of containers.

use super::Target;
use super::instances::{arns, described};
use super::tasks::{Stopped, Task};
use super::told::stopped_line;
use crate::logs;
use crate::session::{Session, elb};
use aws::Service as Aws;
use aws::document::{list, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// So long evidence is looked for at most; it must not keep a step that has failed.
const LIMIT: Duration = Duration::from_secs(15);

/// What stands behind a deployment of `target` that failed, and for what reason its tasks stopped last. What cannot be read is left
/// out.
pub(crate) async fn gather(session: &Session, target: &Target) -> (Vec<String>, Option<String>) {
    let read = async {
        let arns = arns(session, &target.service, "STOPPED").await.ok()?;
        described(session, &arns).await.ok()
    };
    let tasks = tokio::time::timeout(LIMIT, read).await.ok().flatten().unwrap_or_default();
    let tasks: Vec<Task> = tasks.iter().map(Task::read).collect();
    let mut stopped = Stopped::default();
    stopped.take(target, &tasks);
    let mut lines: Vec<String> = stopped.groups().iter().rev().map(stopped_line).collect();
    let newest = stopped.groups().last();
    if let Some(group) = newest {
        lines.extend(last_lines(session, &group.example).await);
    }
    (lines, newest.map(|group| group.reason.words.clone()))
}

/// What load balancers say of the service's targets, one line a group; nothing for groups all of whose targets are healthy.
pub(super) async fn target_health(session: &Session, groups: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in groups {
        let ask = session.read(elb("DescribeTargetHealth"), json!({"TargetGroupArn": group}));
        let line = match tokio::time::timeout(LIMIT, ask).await {
            Ok(Ok(answer)) => health_in_words(list(&answer, &["TargetHealthDescriptions"])),
            Ok(Err(fault)) => Some(format!("its targets' health cannot be read: {fault}")),
            Err(_) => Some("its targets' health could not be read in time".to_owned()),
        };
        if let Some(line) = line {
            lines.push(format!("target group {}: {line}", group_name(group)));
        }
    }
    lines
}

/// `web-blue` of `arn:aws:elasticloadbalancing:…:targetgroup/web-blue/0123`.
fn group_name(arn: &str) -> &str {
    arn.split('/').nth(1).unwrap_or(arn)
}

fn health_in_words(targets: &[Value]) -> Option<String> {
    let mut states: BTreeMap<(bool, String), u32> = BTreeMap::new();
    for target in targets {
        let part = |name: &str| text(target, &["TargetHealth", name]).unwrap_or_default();
        let mut state = part("State").to_owned();
        let why: Vec<&str> =
            [part("Reason"), part("Description")].into_iter().filter(|s| !s.is_empty()).collect();
        if !why.is_empty() {
            state.push_str(&format!(" ({})", why.join(": ")));
        }
        *states.entry((part("State") == "healthy", state)).or_default() += 1;
    }
    if states.keys().all(|(healthy, _)| *healthy) && !states.is_empty() {
        return None;
    }
    let parts: Vec<String> = states.iter().map(|((_, state), number)| format!("{number} {state}")).collect();
    Some(if parts.is_empty() { "no targets".to_owned() } else { parts.join(", ") })
}

/// Where a container writes its log in CloudWatch.
struct LogPlace {
    container: String,
    group: String,
    stream: String,
}

/// The place of the log of the container that a task's end is about: one that ended badly, else the first with a log.
fn place(definition: &Value, task: &Task, region: &str) -> Option<LogPlace> {
    let mut containers: Vec<&str> = task.containers.iter().map(|c| c.name.as_str()).collect();
    let badly =
        |name: &str| task.containers.iter().any(|c| c.name == name && c.exit.is_some_and(|exit| exit != 0));
    containers.sort_by_key(|name| !badly(name));
    containers.into_iter().find_map(|name| {
        let definitions = list(definition, &["taskDefinition", "containerDefinitions"]);
        let definition = definitions.iter().find(|d| text(d, &["name"]) == Some(name))?;
        let place = logs::place(definition, task.id(), region).ok()?;
        Some(LogPlace { container: name.to_owned(), group: place.group, stream: place.stream })
    })
}

/// The last lines that a task wrote, with a heading; nothing when its log is not in CloudWatch.
pub(super) async fn last_lines(session: &Session, task: &Task) -> Vec<String> {
    let read = async {
        let input = json!({"taskDefinition": task.task_definition});
        let definition = session.read(crate::session::ecs("DescribeTaskDefinition"), input).await.ok()?;
        let place = place(&definition, task, session.aws.region())?;
        let input = json!({"logGroupName": place.group, "logStreamName": place.stream, "startFromHead": false,
            "limit": session.settings.last_lines});
        let answer = session.read(Aws::Logs.op("GetLogEvents"), input).await;
        Some((place, answer))
    };
    match tokio::time::timeout(LIMIT, read).await {
        Ok(Some((place, Ok(answer)))) => {
            let events = list(&answer, &["events"]);
            let from = events.len().saturating_sub(session.settings.last_lines);
            let lines = events.iter().skip(from).filter_map(|event| text(event, &["message"]));
            let mut shown: Vec<String> = lines.map(|line| format!("  | {}", line.trim_end())).collect();
            let heading = match shown.is_empty() {
                true => {
                    format!("container {} wrote nothing to {} {}", place.container, place.group, place.stream)
                }
                false => {
                    format!("last lines of container {} ({} {}):", place.container, place.group, place.stream)
                }
            };
            shown.insert(0, heading);
            shown
        }
        Ok(Some((place, Err(fault)))) => {
            vec![format!("the log {} {} cannot be read: {fault}", place.group, place.stream)]
        }
        Ok(None) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::tasks::Container;

    #[test]
    fn targets_are_counted_by_state_and_healthy_ones_alone_are_no_news() {
        let target = |state: &str, reason: &str| json!({"TargetHealth": {"State": state, "Reason": reason}});
        let healthy = json!({"TargetHealth": {"State": "healthy"}});
        assert_eq!(health_in_words(&[healthy.clone(), healthy.clone()]), None);
        assert_eq!(health_in_words(&[]).as_deref(), Some("no targets"));
        let ill = target("unhealthy", "Target.ResponseCodeMismatch");
        let words = health_in_words(&[healthy, ill.clone(), ill]).unwrap();
        assert_eq!(words, "2 unhealthy (Target.ResponseCodeMismatch), 1 healthy");
    }

    #[test]
    fn the_log_of_the_container_that_ended_badly_is_looked_for() {
        let awslogs = |prefix: Option<&str>| {
            json!({"logDriver": "awslogs", "options": {"awslogs-group": "/g", "awslogs-region": "eu-west-1",
                "awslogs-stream-prefix": prefix}})
        };
        let definition = json!({"taskDefinition": {"containerDefinitions": [
            {"name": "side", "logConfiguration": awslogs(Some("p"))},
            {"name": "app", "logConfiguration": awslogs(Some("p"))},
            {"name": "quiet"}]}});
        let container =
            |name: &str, exit: Option<i32>| Container { name: name.into(), exit, ..Container::default() };
        let task = |ended: &str| Task {
            arn: "arn:aws:ecs:eu-west-1:1:task/c/0a1b".into(),
            containers: ["side", "app", "quiet"]
                .map(|name| container(name, (name == ended).then_some(1)))
                .into(),
            ..Task::default()
        };
        let of = |task: &Task, region: &str| place(&definition, task, region).map(|place| place.stream);
        assert_eq!(of(&task("app"), "eu-west-1").as_deref(), Some("p/app/0a1b"));
        assert_eq!(of(&task("quiet"), "eu-west-1").as_deref(), Some("p/side/0a1b"));
        assert_eq!(of(&task("app"), "us-east-1"), None);
    }

    #[test]
    fn a_group_is_called_by_its_name() {
        assert_eq!(
            group_name("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web-blue/0123"),
            "web-blue"
        );
    }
}
