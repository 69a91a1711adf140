//! Waits until a service runs what it was told to run, or never will.
//!
//! ```text
//! poller (shared by all steps) ─Look─► waiter ─News─► Judge ─Verdict, Wants─► waiter ─► lines, evidence, Report
//! ```
//! The judge is pure. It tells our deployment from others by its id and success from a rollback by the revision, which AWS'
//! own waiters do not (facts A1, A5). A wait changes nothing, so a step that is repeated after a crash just waits again with
//! the [`Target`] that stands in its memory.

mod drain;
mod ending;
mod evidence;
mod instances;
mod judge;
mod poller;
mod reader;
mod roster;
pub(crate) mod tasks;
mod told;
mod view;
mod waiter;

#[allow(unused_imports)]
use crate::service;
use crate::session::Session;
use aws::document::text;
pub(crate) use drain::{drain, wait_inactive};
pub(crate) use evidence::gather as evidence;
use executor_api::{StepError, UnitLog};
pub(crate) use instances::instances;
pub(crate) use poller::{Pace, Pollers};
pub(crate) use roster::{Part, Rounds};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// What is waited for. Stands in a step's memory, so that the wait can be taken up after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Target {
    /// Name of the cluster, for messages.
    pub(crate) cluster: String,
    /// Name of the service.
    pub(crate) service: String,
    /// Id of our deployment (`ecs-svc/…`), or of the primary task set; `None` where a service has neither.
    pub(crate) deployment: Option<String>,
    /// When it began, epoch milliseconds by AWS' clock.
    pub(crate) created: Option<i64>,
    /// ARN of the revision that it deploys.
    pub(crate) task_definition: String,
    /// ARN of the service deployment, where AWS gives one.
    pub(crate) service_deployment: Option<String>,
    /// ARN of the revision that ran before: what AWS would roll back to. `None`: the first deployment.
    pub(crate) previous_task_definition: Option<String>,
    /// How many tasks were asked for; `None` for a daemon, whose count ECS decides.
    pub(crate) desired: Option<u32>,
    /// Time of the newest event from before the wait.
    pub(crate) events_until: Option<i64>,
    /// Keys of the events of that time.
    pub(crate) events_known: Vec<String>,
}

/// What to wait for beyond the rollout, and when to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The service must stay steady so long. Divided in a rehearsal.
    pub(crate) bake: Duration,
    /// How long tasks of earlier deployments may take to go after ours has succeeded, in a phase of its own that cannot
    /// fail; `None`: they are not waited for.
    pub(crate) drain: Option<Duration>,
    /// Give up when tasks stop again and again for a reason that cannot pass, though AWS goes on trying.
    pub(crate) fail_fast: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { bake: Duration::ZERO, drain: Some(Duration::from_secs(600)), fail_fast: true }
    }
}

/// What was found when it was over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Running tasks as server instances (facts A0, `EcsTask`).
    pub(crate) instances: Vec<Value>,
    /// How long each phase took: `rollout`, `bake`, `drain`.
    pub(crate) phases: Vec<(&'static str, Duration)>,
}

/// What is to be waited for after CreateService or UpdateService has answered `response`.
///
/// The revision that ran before is taken from the deployments that are still listed; whoever knows better sets it.
pub(crate) fn target_of(response: &Value) -> Target {
    let service = response.get("service").unwrap_or(response);
    let view = view::Service::read(service);
    let primary = view.primary();
    let ours = primary.map(|primary| primary.task_definition.clone());
    let daemon = text(service, &["schedulingStrategy"]) == Some("DAEMON");
    let completed = |other: &&view::Deployment| other.rollout == Some(view::Rollout::Completed);
    let others: Vec<&view::Deployment> = view.deployments.iter().filter(|other| !other.primary).collect();
    let previous = others.iter().copied().find(completed).or_else(|| others.first().copied());
    let events_until = view.events.iter().filter_map(|event| event.at).max();
    let newest = view.events.iter().filter(|event| event.at == events_until);
    let cluster = text(service, &["clusterArn"]).unwrap_or_default();
    Target {
        cluster: cluster.rsplit('/').next().unwrap_or_default().to_owned(),
        service: view.name.clone(),
        deployment: primary.map(|primary| primary.id.clone()).filter(|id| !id.is_empty()),
        created: primary.and_then(|primary| primary.created),
        task_definition: ours
            .unwrap_or_else(|| text(service, &["taskDefinition"]).unwrap_or_default().to_owned()),
        service_deployment: view.service_deployment.clone(),
        previous_task_definition: previous.map(|previous| previous.task_definition.clone()),
        desired: service::written_count(service).filter(|_| !daemon),
        events_until,
        events_known: newest.map(view::Event::key).collect(),
    }
}

/// Waits until our deployment has succeeded, or cannot.
///
/// Progress, events of the service and, on failure, the evidence are written to `log`.
///
/// **Errors**: `ECS-030` rolled back by AWS, `ECS-031` superseded, `ECS-032` given up by AWS without a rollback, `ECS-033` …
/// `ECS-035` tasks that cannot run, `ECS-036` the service is not active, `ECS-038` stopped by somebody, `ECS-037` on cancel:
/// each says in what state the service is left; those of the account when AWS refuses to show the service. **Cancel**: ends
/// at once, changes nothing. **Repeat**: safe.
pub(crate) async fn wait(
    session: &Session,
    target: &Target,
    log: &dyn UnitLog,
    options: Options,
) -> Result<Report, StepError> {
    waiter::Waiter::new(session, target, log, options).run().await
}

#[cfg(test)]
mod real_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_says_what_to_wait_for() {
        let deployment = |id: &str, status: &str, revision: &str, state: &str| json!({"id": id, "status": status, "taskDefinition": revision, "rolloutState": state, "createdAt": 7.5});
        let answer = json!({"service": {"serviceName": "web", "clusterArn": "arn:aws:ecs:eu-west-1:1:cluster/prod",
            "desiredCount": 3, "taskDefinition": "d:3", "deployments": [
                deployment("ecs-svc/3", "PRIMARY", "d:3", "IN_PROGRESS"),
                deployment("ecs-svc/2", "ACTIVE", "d:2", "FAILED"),
                deployment("ecs-svc/1", "ACTIVE", "d:1", "COMPLETED")],
            "events": [{"id": "b", "createdAt": 7.5, "message": ""}, {"id": "a", "createdAt": 6, "message": ""}]}});
        let target = target_of(&answer);
        let expected = Target {
            cluster: "prod".into(),
            service: "web".into(),
            deployment: Some("ecs-svc/3".into()),
            created: Some(7500),
            task_definition: "d:3".into(),
            service_deployment: None,
            previous_task_definition: Some("d:1".into()),
            desired: Some(3),
            events_until: Some(7500),
            events_known: vec!["b".into()],
        };
        assert_eq!(target, expected);
        let mut daemon = answer["service"].clone();
        daemon["schedulingStrategy"] = "DAEMON".into();
        assert_eq!(target_of(&daemon).desired, None);
        let back: Target = serde_json::from_value(serde_json::to_value(&target).unwrap()).unwrap();
        assert_eq!(back, target);
    }
}
