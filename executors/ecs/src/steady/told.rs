//! What the log of a rollout says: each thing once, and only when it changes. Pure.

use super::Target;
use super::tasks::{Group, Stopped};
use super::view::{Deployment, Rollout, Service};
use crate::documents::arn::short;
use executor_api::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Line of each deployment.
    deployments: BTreeMap<String, String>,
    events: BTreeSet<String>,
    until: Option<i64>,
    /// Reasons of stopped tasks.
    reasons: BTreeSet<String>,
    /// What else was said, by subject.
    others: BTreeMap<&'static str, String>,
}

impl Told {
    /// Nothing yet, but for the events from before.
    pub(super) fn new(target: &Target) -> Told {
        Told {
            until: target.events_until,
            events: target.events_known.iter().cloned().collect(),
            ..Told::default()
        }
    }

    /// What an answer tells that was not said before: events, oldest first, then deployments.
    pub(super) fn service(&mut self, service: &Service, target: &Target) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for event in service.events.iter().rev().filter(|event| event.at >= self.until) {
            if self.events.insert(event.key()) {
                let at = event.at.map(proto::logs::rfc3339).unwrap_or_default();
                let level = if warns(&event.message) { Level::Warn } else { Level::Info };
                lines.push((level, format!("# AWS Event: {at} {}", event.message)));
            }
        }
        let mut now = BTreeMap::new();
        for deployment in &service.deployments {
            let line = line(deployment, target);
            if self.deployments.get(&deployment.id) != Some(&line) {
                let failed = deployment.rollout == Some(Rollout::Failed);
                lines.push((if failed { Level::Warn } else { Level::Info }, line.clone()));
            }
            now.insert(deployment.id.clone(), line);
        }
        for (id, line) in &self.deployments {
            if !now.contains_key(id) {
                let name = line.split(':').take(2).collect::<Vec<_>>().join(":");
                lines.push((Level::Info, format!("{name} has gone")));
            }
        }
        self.deployments = now;
        lines
    }

    /// Reasons for which tasks stopped that were not said before.
    pub(super) fn stopped(&mut self, stopped: &Stopped) -> Vec<(Level, String)> {
        let new = |group: &&Group| self.reasons.insert(group.reason.words.clone());
        let new: Vec<&Group> = stopped.groups().iter().filter(new).collect();
        new.into_iter().map(|group| (Level::Warn, stopped_line(group))).collect()
    }

    /// Whether `text` is news about `subject`.
    pub(super) fn is_new(&mut self, subject: &'static str, text: &str) -> bool {
        self.others.insert(subject, text.to_owned()).as_deref() != Some(text)
    }

    /// Forgets what was said about `subject`; whether there was anything.
    pub(super) fn over(&mut self, subject: &'static str) -> bool {
        self.others.remove(subject).is_some()
    }
}

/// Only the colour of a line depends on it.
fn warns(message: &str) -> bool {
    ["unable to", "unhealthy", "failed", "rolling back", "rolled back"]
        .iter()
        .any(|word| message.contains(word))
}

fn line(deployment: &Deployment, target: &Target) -> String {
    let name = short(&deployment.task_definition);
    let own = if target.deployment.as_ref() == Some(&deployment.id) { ", ours" } else { "" };
    let mut line = format!(
        "{name} ({}{own}): desired {}, running {}, pending {}",
        deployment.id, deployment.desired, deployment.running, deployment.pending
    );
    if deployment.failed > 0 {
        line.push_str(&format!(", failed {}", deployment.failed));
    }
    let state = match deployment.rollout {
        Some(Rollout::InProgress) => "in progress",
        Some(Rollout::Completed) => "completed",
        Some(Rollout::Failed) => "FAILED",
        None => return line,
    };
    line.push_str(&format!(", {state}"));
    if deployment.rollout == Some(Rollout::Failed) && !deployment.reason.is_empty() {
        line.push_str(&format!(": {}", deployment.reason));
    }
    line
}

/// `3 tasks stopped: container app ended with exit code 1 (newest: 0a1b…, image x@sha256:…)`.
pub(super) fn stopped_line(group: &Group) -> String {
    let task = &group.example;
    let mut about = vec![task.id().to_owned()];
    for container in &task.containers {
        match container.digest.as_str() {
            "" => about.push(container.image.clone()),
            digest => about.push(format!("{} at {digest}", container.image)),
        }
    }
    if task.health == "UNHEALTHY" {
        about.push("health UNHEALTHY".to_owned());
    }
    about.retain(|part| !part.is_empty());
    let (tasks, which) = match group.times {
        1 => ("1 task".to_owned(), "task "),
        times => (format!("{times} tasks"), "newest: "),
    };
    format!("{tasks} stopped: {} ({which}{})", group.reason.words, about.join(", "))
}

/// In what state the service is: `web:8 0 of 2 running (in progress), web:7 2 of 2 running`.
pub(super) fn left(service: &Service) -> String {
    let parts: Vec<String> = service
        .deployments
        .iter()
        .filter(|deployment| deployment.primary || deployment.live() > 0)
        .map(|deployment| {
            let name = short(&deployment.task_definition);
            let state = match deployment.rollout {
                Some(Rollout::InProgress) if deployment.primary => ", in progress",
                Some(Rollout::Failed) => ", failed",
                _ => "",
            };
            format!("{name} with {} of {} tasks running{state}", deployment.running, deployment.desired)
        })
        .collect();
    match parts.is_empty() {
        true => format!("{} of {} tasks running", service.running, service.desired),
        false => parts.join(", and "),
    }
}

/// `2 min 5 s`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(told: &mut Told, value: serde_json::Value, target: &Target) -> Vec<String> {
        told.service(&Service::read(&value), target).into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn events_and_deployments_are_told_once_and_not_those_from_before() {
        let target = Target {
            deployment: Some("ecs-svc/2".into()),
            events_until: Some(5_000),
            events_known: vec!["known".into()],
            ..Target::default()
        };
        let mut told = Told::new(&target);
        let event = |id: &str, at: u32| json!({"id": id, "createdAt": at, "message": format!("m-{id}")});
        let answer = |running: u32| {
            json!({"deployments": [{"id": "ecs-svc/2", "status": "PRIMARY", "taskDefinition": "x/web:2", "desiredCount": 2,
                "runningCount": running, "rolloutState": "IN_PROGRESS"},
                {"id": "ecs-svc/1", "status": "ACTIVE", "taskDefinition": "x/web:1", "desiredCount": 0, "runningCount": 1}],
                "events": [event("newest", 7), event("newer", 6), event("beside", 5), event("known", 5), event("old", 4)]})
        };
        let first = lines(&mut told, answer(0), &target);
        assert_eq!(
            first,
            [
                "# AWS Event: 1970-01-01T00:00:05.000Z m-beside",
                "# AWS Event: 1970-01-01T00:00:06.000Z m-newer",
                "# AWS Event: 1970-01-01T00:00:07.000Z m-newest",
                "web:2 (ecs-svc/2, ours): desired 2, running 0, pending 0, in progress",
                "web:1 (ecs-svc/1): desired 0, running 1, pending 0",
            ]
        );
        assert!(lines(&mut told, answer(0), &target).is_empty());
        assert_eq!(lines(&mut told, answer(1), &target).len(), 1);
        let mut gone = answer(1);
        gone["deployments"].as_array_mut().unwrap().pop();
        assert_eq!(lines(&mut told, gone, &target), ["web:1 (ecs-svc/1) has gone"]);
    }

    #[test]
    fn what_is_left_is_said_in_revisions() {
        let service = Service::read(&json!({"deployments": [
            {"id": "2", "status": "PRIMARY", "taskDefinition": "x/web:2", "desiredCount": 2, "runningCount": 0,
             "rolloutState": "IN_PROGRESS"},
            {"id": "1", "status": "ACTIVE", "taskDefinition": "x/web:1", "desiredCount": 2, "runningCount": 2,
             "rolloutState": "COMPLETED"},
            {"id": "0", "status": "ACTIVE", "taskDefinition": "x/web:0", "rolloutState": "FAILED"}]}));
        let text = "web:2 with 0 of 2 tasks running, in progress, and web:1 with 2 of 2 tasks running";
        assert_eq!(left(&service), text);
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [(5, "5 s"), (60, "1 min"), (125, "2 min 5 s")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
