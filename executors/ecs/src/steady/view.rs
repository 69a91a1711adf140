//! What of a service's description matters to a rollout, as plain values. Nothing is judged here.

use aws::document::{flag, list, text, time, whole};
use serde_json::Value;

/// A service as one answer shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// `ACTIVE`, `DRAINING`, `INACTIVE`.
    pub(crate) status: String,
    pub(crate) desired: u32,
    pub(crate) running: u32,
    pub(crate) pending: u32,
    pub(crate) breaker: Breaker,
    /// Alarms may end a deployment.
    pub(crate) alarms: bool,
    /// Alarms roll back what they end.
    pub(crate) alarms_roll_back: bool,
    /// Another strategy than the rolling one is set.
    pub(crate) native: bool,
    /// Deployments, or the task sets of services that others control.
    pub(crate) deployments: Vec<Deployment>,
    /// Newest first, at most 100.
    pub(crate) events: Vec<Event>,
    /// ARNs of its target groups.
    pub(crate) target_groups: Vec<String>,
    /// ARN of the service deployment that is under way.
    pub(crate) service_deployment: Option<String>,
}

/// `deploymentCircuitBreaker`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Breaker {
    pub(crate) enabled: bool,
    pub(crate) rolls_back: bool,
    /// `COUNT`, `BOUNDED_PERCENT`, `UNBOUNDED_PERCENT` and its value.
    threshold: Option<(String, u32)>,
}

impl Breaker {
    /// How many tasks must fail until it trips (facts A13).
    pub(crate) fn threshold(&self, desired: u32) -> u32 {
        let (kind, value) = self.threshold.as_ref().map_or(("", 50), |(kind, value)| (kind.as_str(), *value));
        let share = u64::from(desired) * u64::from(value);
        let share = u32::try_from(share.div_ceil(100)).unwrap_or(u32::MAX);
        match kind {
            "COUNT" => value.max(1),
            "UNBOUNDED_PERCENT" => share.max(1),
            _ => share.clamp(3, 200),
        }
    }
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollout {
    InProgress,
    Completed,
    Failed,
}

/// A deployment, or a task set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) primary: bool,
    pub(crate) task_definition: String,
    pub(crate) desired: u32,
    pub(crate) running: u32,
    pub(crate) pending: u32,
    pub(crate) failed: u32,
    /// `None` where AWS gives none: classic load balancers, controllers other than ECS.
    pub(crate) rollout: Option<Rollout>,
    pub(crate) reason: String,
    /// Epoch milliseconds by AWS' clock.
    pub(crate) created: Option<i64>,
    pub(crate) updated: Option<i64>,
    /// What a task set says of itself: it is neither growing nor shrinking.
    pub(crate) steady: Option<bool>,
}

/// One line that ECS wrote about the service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) at: Option<i64>,
    pub(crate) message: String,
}

impl Event {
    /// What tells it from others: its id, or time and text when it has none.
    pub(crate) fn key(&self) -> String {
        if self.id.is_empty() {
            format!("{} {}", self.at.unwrap_or_default(), self.message)
        } else {
            self.id.clone()
        }
    }
}

/// What DescribeServiceDeployments says of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceDeployment {
    pub(crate) status: String,
    pub(crate) reason: String,
    /// `TRIGGERED`, `MONITORING` …
    pub(crate) breaker: String,
    /// Alarms that ended it.
    pub(crate) alarms: Vec<String>,
    /// Why AWS rolls it back; `None` when it does not.
    pub(crate) rollback: Option<String>,
}

fn owned(value: &Value, name: &str) -> String {
    text(value, &[name]).unwrap_or_default().to_owned()
}

fn count(value: &Value, name: &str) -> u32 {
    whole(value, &[name]).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

impl Service {
    /// Reads a member of `services`.
    pub(crate) fn read(value: &Value) -> Service {
        let configuration = value.get("deploymentConfiguration").unwrap_or(&Value::Null);
        let breaker = configuration.get("deploymentCircuitBreaker").unwrap_or(&Value::Null);
        let threshold = breaker.get("thresholdConfiguration").map(|threshold| {
            let value = whole(threshold, &["value"]).and_then(|value| u32::try_from(value).ok());
            (owned(threshold, "type"), value.unwrap_or(50))
        });
        let breaker = Breaker {
            enabled: flag(breaker, &["enable"]).unwrap_or(false),
            rolls_back: flag(breaker, &["rollback"]).unwrap_or(false),
            threshold,
        };
        let alarms = flag(configuration, &["alarms", "enable"]).unwrap_or(false);
        let mut deployments: Vec<Deployment> =
            list(value, &["deployments"]).iter().map(Deployment::read).collect();
        if deployments.is_empty() {
            deployments = list(value, &["taskSets"]).iter().map(Deployment::of_task_set).collect();
        }
        let strategy = text(configuration, &["strategy"]).unwrap_or("ROLLING");
        Service {
            name: owned(value, "serviceName"),
            status: owned(value, "status"),
            desired: count(value, "desiredCount"),
            running: count(value, "runningCount"),
            pending: count(value, "pendingCount"),
            breaker,
            alarms,
            alarms_roll_back: alarms && flag(configuration, &["alarms", "rollback"]).unwrap_or(false),
            native: strategy != "ROLLING",
            deployments,
            events: list(value, &["events"]).iter().map(Event::read).collect(),
            target_groups: target_groups(value),
            service_deployment: text(value, &["currentServiceDeployment"]).map(str::to_owned),
        }
    }

    /// The deployment that ECS works towards.
    pub(crate) fn primary(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.primary)
    }

    /// AWS itself may bring back what ran before.
    pub(crate) fn rolls_back(&self) -> bool {
        self.breaker.enabled && self.breaker.rolls_back || self.alarms_roll_back
    }
}

fn target_groups(value: &Value) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for balancer in list(value, &["loadBalancers"]) {
        let alternate = text(balancer, &["advancedConfiguration", "alternateTargetGroupArn"]);
        for arn in [text(balancer, &["targetGroupArn"]), alternate].into_iter().flatten() {
            if !found.iter().any(|known| known == arn) {
                found.push(arn.to_owned());
            }
        }
    }
    found
}

impl Deployment {
    fn read(value: &Value) -> Deployment {
        let rollout = match text(value, &["rolloutState"]) {
            Some("COMPLETED") => Some(Rollout::Completed),
            Some("FAILED") => Some(Rollout::Failed),
            Some("IN_PROGRESS") => Some(Rollout::InProgress),
            _ => None,
        };
        Deployment {
            id: owned(value, "id"),
            primary: text(value, &["status"]) == Some("PRIMARY"),
            task_definition: owned(value, "taskDefinition"),
            desired: count(value, "desiredCount"),
            running: count(value, "runningCount"),
            pending: count(value, "pendingCount"),
            failed: count(value, "failedTasks"),
            rollout,
            reason: owned(value, "rolloutStateReason"),
            created: time(value, &["createdAt"]),
            updated: time(value, &["updatedAt"]),
            steady: None,
        }
    }

    fn of_task_set(value: &Value) -> Deployment {
        Deployment {
            desired: count(value, "computedDesiredCount"),
            steady: text(value, &["stabilityStatus"]).map(|status| status == "STEADY_STATE"),
            ..Deployment::read(value)
        }
    }

    /// Tasks that live or are to live.
    pub(crate) fn live(&self) -> u32 {
        self.running + self.pending
    }
}

impl Event {
    fn read(value: &Value) -> Event {
        Event { id: owned(value, "id"), at: time(value, &["createdAt"]), message: owned(value, "message") }
    }
}

impl ServiceDeployment {
    /// Reads a member of `serviceDeployments`.
    pub(crate) fn read(value: &Value) -> ServiceDeployment {
        let alarms = list(value, &["alarms", "triggeredAlarmNames"]);
        let rolls_back = text(value, &["status"]).is_some_and(|status| status.starts_with("ROLLBACK"));
        ServiceDeployment {
            status: owned(value, "status"),
            reason: owned(value, "statusReason"),
            breaker: text(value, &["deploymentCircuitBreaker", "status"]).unwrap_or_default().to_owned(),
            alarms: alarms.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            rollback: (rolls_back || value.get("rollback").is_some_and(Value::is_object))
                .then(|| text(value, &["rollback", "reason"]).unwrap_or_default().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn thresholds_are_those_of_the_documentation() {
        let of = |kind: &str, value: u32| Breaker {
            threshold: Some((kind.to_owned(), value)),
            ..Breaker::default()
        };
        let table = [
            (Breaker::default(), 2, 3),
            (Breaker::default(), 25, 13),
            (Breaker::default(), 4000, 200),
            (of("COUNT", 2), 500, 2),
            (of("BOUNDED_PERCENT", 10), 100, 10),
            (of("UNBOUNDED_PERCENT", 10), 9, 1),
            (of("UNBOUNDED_PERCENT", 100), 4000, 4000),
        ];
        for (breaker, desired, threshold) in table {
            assert_eq!(breaker.threshold(desired), threshold, "{breaker:?} of {desired}");
        }
    }

    #[test]
    fn task_sets_stand_for_deployments_where_others_control_them() {
        let service = Service::read(
            &json!({"status": "ACTIVE", "desiredCount": 2, "deployments": [], "taskSets": [
            {"id": "ecs-svc/1", "status": "PRIMARY", "taskDefinition": "a:1", "computedDesiredCount": 2, "runningCount": 2,
             "stabilityStatus": "STEADY_STATE"}]}),
        );
        let set = service.primary().unwrap();
        assert_eq!((set.desired, set.running, set.rollout, set.steady), (2, 2, None, Some(true)));
    }

    #[test]
    fn an_event_without_id_is_known_by_time_and_text() {
        let with = Event::read(&json!({"id": "7", "createdAt": 1.0, "message": "m"}));
        let without = Event::read(&json!({"createdAt": 1.5, "message": "m"}));
        assert_eq!((with.key().as_str(), without.key().as_str()), ("7", "1500 m"));
    }
}
