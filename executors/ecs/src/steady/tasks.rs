//! Tasks of a service, and why they stopped. Pure.
//!
//! AWS says why a task stopped with a stop code, an error type in front of a text (`CannotPullContainerError: …`), and exit
//! codes. The error type is the only machine-readable part of some reasons; within two of them the text alone tells what
//! passes from what does not, and is read for nothing else than to give up early.

use super::Target;
use crate::documents::arn::short;
use aws::document::{list, text, time, whole};
use serde_json::Value;
use std::collections::BTreeSet;

/// A task as DescribeTasks shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Task {
    pub(crate) arn: String,
    pub(crate) task_definition: String,
    /// Id of the deployment that started it.
    pub(crate) started_by: String,
    pub(crate) last_status: String,
    pub(crate) stop_code: String,
    pub(crate) stopped_reason: String,
    /// `HEALTHY`, `UNHEALTHY`, `UNKNOWN`.
    pub(crate) health: String,
    pub(crate) created: Option<i64>,
    pub(crate) started: Option<i64>,
    pub(crate) stopped: Option<i64>,
    pub(crate) containers: Vec<Container>,
}

/// A container of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) digest: String,
    pub(crate) exit: Option<i32>,
    pub(crate) reason: String,
    pub(crate) health: String,
}

fn owned(value: &Value, name: &str) -> String {
    text(value, &[name]).unwrap_or_default().to_owned()
}

impl Task {
    /// Reads a member of `tasks`.
    pub(crate) fn read(value: &Value) -> Task {
        let container = |container: &Value| Container {
            name: owned(container, "name"),
            image: owned(container, "image"),
            digest: owned(container, "imageDigest"),
            exit: whole(container, &["exitCode"]).and_then(|code| i32::try_from(code).ok()),
            reason: owned(container, "reason"),
            health: owned(container, "healthStatus"),
        };
        Task {
            arn: owned(value, "taskArn"),
            task_definition: owned(value, "taskDefinitionArn"),
            started_by: owned(value, "startedBy"),
            last_status: owned(value, "lastStatus"),
            stop_code: owned(value, "stopCode"),
            stopped_reason: owned(value, "stoppedReason"),
            health: owned(value, "healthStatus"),
            created: time(value, &["createdAt"]),
            started: time(value, &["startedAt"]),
            stopped: time(value, &["stoppedAt"]),
            containers: list(value, &["containers"]).iter().map(container).collect(),
        }
    }

    /// The last part of its ARN; names its log streams.
    pub(crate) fn id(&self) -> &str {
        short(&self.arn)
    }

    /// Whether our deployment started it. ECS writes the deployment's id into `startedBy`; where it is something else,
    /// revision and time decide.
    pub(crate) fn is_of(&self, target: &Target) -> bool {
        if self.task_definition != target.task_definition {
            return false;
        }
        match &target.deployment {
            Some(id) if self.started_by.starts_with("ecs-svc/") => self.started_by == *id,
            _ => match (self.created, target.created) {
                (Some(created), Some(begun)) => created >= begun,
                _ => true,
            },
        }
    }
}

/// Why tasks of a deployment can never run, told apart as far as advice differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The image is not there or may not be pulled.
    Image,
    /// Secrets, parameters, the log group or a role cannot be had.
    Resources,
    /// An essential container ends, or cannot be started.
    Exit,
}

/// Why one task stopped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reason {
    /// For people.
    pub(crate) words: String,
    /// Set when it does not pass by itself.
    pub(crate) cause: Option<Cause>,
    /// Exit code behind it.
    pub(crate) exit: Option<i32>,
}

/// Stop codes that say nothing about the deployment (facts A5.9).
const NOT_OURS: [&str; 3] = ["SpotInterruption", "UserInitiated", "TerminationNotice"];
/// How ECS begins the reason of a task that it stops because fewer are wanted.
const SCALED_IN: &str = "Scaling activity initiated by";
const PULL: [&str; 3] =
    ["CannotPullContainerError", "CannotPullECRContainerError", "CannotPullImageManifestError"];
/// What registries say of an image that is not there or not for us.
const NO_IMAGE: [&str; 14] = [
    "not found",
    "notfound",
    "manifest unknown",
    "name unknown",
    "does not exist",
    "no such image",
    "denied",
    "unauthorized",
    "forbidden",
    "no basic auth",
    "authorization failed",
    "authentication required",
    "no matching manifest",
    "invalid reference",
];
const NO_RESOURCE: [&str; 9] = [
    "secret",
    "registry auth",
    "ssm",
    "parameter",
    "log group",
    "log stream",
    "logger",
    "unable to assume the role",
    "accessdenied",
];
/// Trouble on the way, which may pass.
const ON_THE_WAY: [&str; 8] = [
    "timeout",
    "timed out",
    "deadline exceeded",
    "connection refused",
    "connection reset",
    "no such host",
    "toomanyrequests",
    "temporary failure",
];

fn has(text: &str, any: &[&str]) -> bool {
    let text = text.to_lowercase();
    any.iter().any(|part| text.contains(part))
}

/// The error type in front of a reason.
fn kind(reason: &str) -> &str {
    reason.split_once(':').map_or("", |(kind, _)| kind.trim())
}

fn cause_of(reason: &str) -> Option<Cause> {
    let kind = kind(reason);
    let passes = has(reason, &ON_THE_WAY);
    if PULL.contains(&kind) {
        return (!passes && has(reason, &NO_IMAGE)).then_some(Cause::Image);
    }
    if kind == "ResourceInitializationError" || reason.starts_with("ECS was unable to assume the role") {
        return (!passes && has(reason, &NO_RESOURCE)).then_some(Cause::Resources);
    }
    (kind == "CannotStartContainerError").then_some(Cause::Exit)
}

/// Why a task stopped; `None` when that says nothing about its deployment.
pub(crate) fn reason(task: &Task) -> Option<Reason> {
    if NOT_OURS.contains(&task.stop_code.as_str()) {
        return None;
    }
    let by_scheduler = task.stop_code == "ServiceSchedulerInitiated";
    if by_scheduler && task.stopped_reason.starts_with(SCALED_IN) {
        return None;
    }
    // What a container says is nearer to the cause than what the task says.
    let texts = task.containers.iter().map(|c| (&*c.name, &*c.reason)).chain([("", &*task.stopped_reason)]);
    let typed = texts.into_iter().find(|(_, reason)| cause_of(reason).is_some());
    if let (false, Some((name, reason))) = (by_scheduler, typed) {
        let words = if name.is_empty() { reason.to_owned() } else { format!("container {name}: {reason}") };
        return Some(Reason { words, cause: cause_of(reason), exit: None });
    }
    let ended = task.containers.iter().filter(|c| c.exit.is_some());
    let worst = ended.max_by_key(|c| (c.exit != Some(0), !c.reason.is_empty()));
    if let (false, Some(container)) = (by_scheduler, worst) {
        let mut words =
            format!("container {} ended with exit code {}", container.name, container.exit.unwrap_or(0));
        if !container.reason.is_empty() {
            words.push_str(&format!(" ({})", container.reason));
        }
        let cause = (task.stop_code == "EssentialContainerExited").then_some(Cause::Exit);
        return Some(Reason { words, cause, exit: container.exit });
    }
    let mut words = match (task.stopped_reason.as_str(), task.stop_code.as_str()) {
        ("", "") => "stopped without a reason".to_owned(),
        ("", code) => code.to_owned(),
        (reason, _) => reason.to_owned(),
    };
    for container in task.containers.iter().filter(|c| c.health == "UNHEALTHY") {
        words.push_str(&format!("; container {} is unhealthy", container.name));
    }
    Some(Reason { words, cause: None, exit: None })
}

/// Tasks that stopped for the same reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) reason: Reason,
    key: String,
    pub(crate) times: u32,
    /// The newest of them.
    pub(crate) example: Task,
}

/// Every task of our deployment that stopped so far, by reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopped {
    known: BTreeSet<String>,
    groups: Vec<Group>,
    /// Longest life of one that ended by itself, milliseconds.
    longest: i64,
}

impl Stopped {
    /// Whether a task was taken in before, or looked at and found to be none of ours.
    pub(crate) fn knows(&self, arn: &str) -> bool {
        self.known.contains(arn)
    }

    /// Takes in tasks; those of others are only remembered as known. Tasks that are still on their way out are not taken
    /// yet: their exit codes may be missing.
    pub(crate) fn take(&mut self, target: &Target, tasks: &[Task]) {
        let mut new: Vec<&Task> = tasks.iter().filter(|task| task.last_status == "STOPPED").collect();
        new.sort_by_key(|task| task.stopped);
        for task in new {
            if !self.known.insert(task.arn.clone()) || !task.is_of(target) {
                continue;
            }
            let Some(reason) = reason(task) else { continue };
            if let (Some(started), Some(stopped)) = (task.started, task.stopped)
                && reason.cause == Some(Cause::Exit)
            {
                self.longest = self.longest.max(stopped - started);
            }
            let key = general(&reason.words);
            match self.groups.iter().position(|group| group.key == key) {
                Some(at) => {
                    // What came last stands last.
                    let mut group = self.groups.remove(at);
                    group.times += 1;
                    group.example = task.clone();
                    self.groups.push(group);
                }
                None => self.groups.push(Group { reason, key, times: 1, example: task.clone() }),
            }
        }
    }

    /// Groups, the one with the newest task last.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The one that is met most often among those that do not pass.
    pub(crate) fn worst(&self) -> Option<&Group> {
        self.groups.iter().filter(|group| group.reason.cause.is_some()).max_by_key(|group| group.times)
    }

    /// Whether one of these running tasks has outlived all that ended by themselves, so that their end is not what always
    /// happens.
    pub(crate) fn outlived(&self, running: &[Task]) -> bool {
        let now = running.iter().chain(self.groups.iter().map(|group| &group.example));
        let now = now.flat_map(|task| [task.created, task.started, task.stopped]).flatten().max();
        let Some(now) = now else { return false };
        running
            .iter()
            .any(|task| task.started.is_some_and(|started| now - started > self.longest + OUTLIVED_BY))
    }
}

/// A task that lives so much longer than those that crash is taken to have started well, milliseconds.
const OUTLIVED_BY: i64 = 10_000;

/// A reason without what differs from task to task: ids, addresses, digests, times.
pub(crate) fn general(words: &str) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let mut general = String::with_capacity(words.len());
    let mut word = String::new();
    for c in words.chars().chain([' ']) {
        if part(c) {
            word.push(c);
            continue;
        }
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let hex = word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let address = word.split('.').count() == 4 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        if (hex && digits > 0 && word.len() >= 12) || address {
            general.push('…');
        } else {
            general.push_str(&word);
        }
        word.clear();
        general.push(c);
    }
    general.truncate(general.trim_end().len());
    general
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
