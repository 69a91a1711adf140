//! What became of one-off tasks. Pure.
//!
//! A task is good when it has stopped and every essential container ended with 0 (facts A11). One that somebody or something
//! else ended is not, whatever its containers made of the signal: its work may be half done.

use crate::documents::arn::short;
use crate::steady::tasks::{self, Task};
use aws::document::{list, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Stop codes of tasks that did not end by themselves.
const ENDED_FROM_OUTSIDE: [&str; 4] =
    ["UserInitiated", "SpotInterruption", "TerminationNotice", "InfrastructureHealth"];

/// How a task did not do what it was to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bad {
    /// Exit code of an essential container.
    pub(crate) exit: Option<i32>,
    pub(crate) words: String,
}

/// Names of the containers whose end is the task's; AWS takes one for essential that does not say.
pub(crate) fn essential(definition: &Value) -> Vec<String> {
    let containers = list(definition, &["containerDefinitions"]).iter();
    let essential = containers.filter(|c| aws::document::flag(c, &["essential"]) != Some(false));
    essential.filter_map(|c| text(c, &["name"]).map(str::to_owned)).collect()
}

/// How a stopped task failed; `None` for one that is good, or not stopped.
pub(crate) fn bad(task: &Task, essential: &[String]) -> Option<Bad> {
    if task.last_status != "STOPPED" {
        return None;
    }
    let id: String = task.id().chars().take(8).collect();
    if ENDED_FROM_OUTSIDE.contains(&task.stop_code.as_str()) {
        let reason = Some(task.stopped_reason.as_str()).filter(|reason| !reason.is_empty());
        let words = format!(
            "task {id} was stopped from outside ({}): {}",
            task.stop_code,
            reason.unwrap_or("no reason given")
        );
        return Some(Bad { exit: None, words });
    }
    let ours = || task.containers.iter().filter(|c| essential.contains(&c.name));
    // The first that ended badly brought the others down; those have 137 or 143.
    let worst = ours()
        .filter(|c| c.exit.is_some_and(|exit| exit != 0))
        .min_by_key(|c| matches!(c.exit, Some(137 | 143)));
    if let Some(container) = worst {
        let exit = container.exit.unwrap_or(1);
        let mut words = format!("task {id}: container {} ended with exit code {exit}", container.name);
        for more in [&container.reason, &task.stopped_reason] {
            if !more.is_empty() && more != "Essential container in task exited" {
                words.push_str(&format!(" ({more})"));
                break;
            }
        }
        return Some(Bad { exit: Some(exit), words });
    }
    let silent: Vec<&str> = ours().filter(|c| c.exit.is_none()).map(|c| c.name.as_str()).collect();
    let missing = task.containers.is_empty();
    if silent.is_empty() && !missing {
        return None;
    }
    let reason = tasks::reason(task).map_or_else(|| "no reason given".to_owned(), |reason| reason.words);
    let what = match silent.as_slice() {
        [] => "no container ran".to_owned(),
        names => format!("container {} has no exit code", names.join(", ")),
    };
    Some(Bad { exit: None, words: format!("task {id}: {what}: {reason}") })
}

/// Exit codes by container; of several tasks the one that is farthest from 0.
pub(crate) fn exit_codes(tasks: &[Task]) -> BTreeMap<String, i32> {
    let mut all: BTreeMap<String, i32> = BTreeMap::new();
    for container in tasks.iter().flat_map(|task| &task.containers) {
        if let Some(exit) = container.exit {
            let known = all.entry(container.name.clone()).or_insert(exit);
            if exit.abs() > known.abs() {
                *known = exit;
            }
        }
    }
    all
}

/// The tasks as an output.
pub(crate) fn shown(tasks: &[Task]) -> Value {
    let one = |task: &Task| {
        let codes: BTreeMap<&str, i32> =
            task.containers.iter().filter_map(|c| Some((c.name.as_str(), c.exit?))).collect();
        json!({"taskArn": task.arn, "taskDefinition": short(&task.task_definition), "lastStatus": task.last_status,
            "stopCode": task.stop_code, "stoppedReason": task.stopped_reason, "exitCodes": codes})
    };
    tasks.iter().map(one).collect()
}

/// `2 RUNNING, 1 STOPPED`.
pub(crate) fn states(tasks: &[Task]) -> String {
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    for task in tasks {
        let status = if task.last_status.is_empty() { "not seen yet" } else { &task.last_status };
        *all.entry(status).or_default() += 1;
    }
    let words: Vec<String> = all.iter().map(|(status, number)| format!("{number} {status}")).collect();
    if words.is_empty() { "none started".to_owned() } else { words.join(", ") }
}

/// Why a task is not placed, as RunTask's `failures` say, with how often.
pub(crate) fn failures(answer: &Value) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for failure in list(answer, &["failures"]) {
        let part = |name: &str| text(failure, &[name]).filter(|text| !text.is_empty());
        let mut words = part("reason").unwrap_or("no reason given").to_owned();
        if let Some(detail) = part("detail") {
            words.push_str(&format!(" ({detail})"));
        }
        *all.entry(words).or_default() += 1;
    }
    all
}

/// Whether room may come: `RESOURCE:…`, or Fargate's capacity, of which AWS speaks in words only.
pub(crate) fn may_pass(reason: &str) -> bool {
    reason.starts_with("RESOURCE:") || reason.to_lowercase().contains("capacity")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::tasks::Container;

    fn task(stop: &str, containers: &[(&str, Option<i32>, &str)]) -> Task {
        let container = |(name, exit, reason): &(&str, Option<i32>, &str)| Container {
            name: (*name).into(),
            exit: *exit,
            reason: (*reason).into(),
            ..Container::default()
        };
        Task {
            arn: "arn:aws:ecs:r:1:task/c/0123456789ab".into(),
            last_status: "STOPPED".into(),
            stop_code: stop.into(),
            containers: containers.iter().map(container).collect(),
            ..Task::default()
        }
    }

    fn both() -> Vec<String> {
        vec!["app".into(), "db".into()]
    }

    #[test]
    fn a_task_is_good_when_its_essential_containers_ended_with_0() {
        let good = task("EssentialContainerExited", &[("app", Some(0), ""), ("side", Some(137), "")]);
        assert_eq!(bad(&good, &["app".to_owned()]), None);
        let running = Task { last_status: "RUNNING".into(), ..task("", &[("app", None, "")]) };
        assert_eq!(bad(&running, &both()), None);
        let definition = json!({"containerDefinitions": [{"name": "app"}, {"name": "side", "essential": false}, {"name": "db", "essential": true}]});
        assert_eq!(essential(&definition), both());
    }

    #[test]
    fn the_container_that_brought_the_task_down_is_named() {
        let found = bad(
            &task(
                "EssentialContainerExited",
                &[("app", Some(143), ""), ("db", Some(3), "OutOfMemoryError: killed")],
            ),
            &both(),
        );
        let found = found.unwrap();
        assert_eq!(found.exit, Some(3));
        assert_eq!(
            found.words,
            "task 01234567: container db ended with exit code 3 (OutOfMemoryError: killed)"
        );
    }

    #[test]
    fn a_task_that_never_ran_or_was_ended_from_outside_is_bad_without_a_code() {
        let mut never = task("TaskFailedToStart", &[("app", None, "CannotPullContainerError: not found")]);
        let found = bad(&never, &both()).unwrap();
        assert_eq!(found.exit, None);
        assert!(found.words.contains("CannotPullContainerError"), "{}", found.words);
        never.containers.clear();
        assert!(bad(&never, &both()).unwrap().words.contains("no container ran"));
        let ended = task("UserInitiated", &[("app", Some(0), "")]);
        assert!(bad(&ended, &both()).unwrap().words.contains("from outside (UserInitiated)"));
    }

    #[test]
    fn of_several_tasks_the_worst_codes_are_told() {
        let tasks = [
            task("", &[("app", Some(0), ""), ("db", Some(1), "")]),
            task("", &[("app", Some(3), ""), ("db", None, "")]),
        ];
        assert_eq!(exit_codes(&tasks), BTreeMap::from([("app".to_owned(), 3), ("db".to_owned(), 1)]));
        assert_eq!(states(&tasks), "2 STOPPED");
    }

    #[test]
    fn room_may_come_and_a_missing_attribute_does_not() {
        let answer = json!({"failures": [{"arn": "i-1", "reason": "RESOURCE:MEMORY"}, {"arn": "i-2", "reason": "RESOURCE:MEMORY"},
            {"reason": "ATTRIBUTE", "detail": "gpu"}]});
        let all = failures(&answer);
        assert_eq!(
            all,
            BTreeMap::from([("RESOURCE:MEMORY".to_owned(), 2), ("ATTRIBUTE (gpu)".to_owned(), 1)])
        );
        assert!(
            may_pass("RESOURCE:MEMORY")
                && may_pass("Capacity is unavailable at this time. Please try again later")
        );
        assert!(!may_pass("ATTRIBUTE (gpu)") && !may_pass("MISSING"));
    }
}
