//! A service deployment as one answer of DescribeServiceDeployments shows it. Nothing is judged here.

use aws::document::{list, number, text, time, whole};
use serde_json::Value;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    #[default]
    Pending,
    InProgress,
    Successful,
    StopRequested,
    Stopped,
    RollbackRequested,
    RollbackInProgress,
    RollbackSuccessful,
    RollbackFailed,
    /// Something that this version does not know.
    Unknown(String),
}

impl Status {
    fn read(text: &str) -> Status {
        match text {
            "PENDING" => Status::Pending,
            "IN_PROGRESS" => Status::InProgress,
            "SUCCESSFUL" => Status::Successful,
            "STOP_REQUESTED" => Status::StopRequested,
            "STOPPED" => Status::Stopped,
            "ROLLBACK_REQUESTED" => Status::RollbackRequested,
            "ROLLBACK_IN_PROGRESS" => Status::RollbackInProgress,
            "ROLLBACK_SUCCESSFUL" => Status::RollbackSuccessful,
            "ROLLBACK_FAILED" => Status::RollbackFailed,
            other => Status::Unknown(other.to_owned()),
        }
    }

    /// Whether nothing comes after it.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Status::Successful | Status::Stopped | Status::RollbackSuccessful | Status::RollbackFailed
        )
    }

    /// Whether it is on its way forward.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Status::Pending | Status::InProgress | Status::Unknown(_))
    }
}

/// A hook that is or was called.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hook {
    pub(crate) id: String,
    pub(crate) pauses: bool,
    /// `AWAITING_ACTION`, `IN_PROGRESS`, `SUCCEEDED`, `FAILED`, `TIMED_OUT`.
    pub(crate) status: String,
    /// ARN of its function, when it has one.
    pub(crate) target: String,
    /// Epoch milliseconds by AWS' clock.
    pub(crate) expires: Option<i64>,
    /// `CONTINUE` or `ROLLBACK`.
    pub(crate) timeout_action: String,
}

/// A service revision with its share of tasks and requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Revision {
    pub(crate) arn: String,
    pub(crate) requested: i64,
    pub(crate) running: i64,
    pub(crate) pending: i64,
    /// Percent; `None` where AWS tells none.
    pub(crate) test: Option<f64>,
    pub(crate) production: Option<f64>,
}

/// A service deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) arn: String,
    pub(crate) status: Status,
    /// As AWS writes it.
    pub(crate) word: String,
    pub(crate) reason: String,
    /// `PRE_SCALE_UP` …; empty where none is told.
    pub(crate) stage: String,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) target: Revision,
    pub(crate) sources: Vec<Revision>,
    /// Why AWS rolls back, and to which revision.
    pub(crate) rollback: Option<(String, String)>,
    /// `TRIGGERED`, `MONITORING` … with its counts.
    pub(crate) breaker: Option<(String, i64, i64)>,
    /// Alarms that ended it.
    pub(crate) alarms: Vec<String>,
}

fn owned(value: &Value, path: &[&str]) -> String {
    text(value, path).unwrap_or_default().to_owned()
}

impl Revision {
    fn read(value: &Value) -> Revision {
        let count = |name: &str| whole(value, &[name]).unwrap_or(0);
        Revision {
            arn: owned(value, &["arn"]),
            requested: count("requestedTaskCount"),
            running: count("runningTaskCount"),
            pending: count("pendingTaskCount"),
            test: number(value, &["requestedTestTrafficWeight"]),
            production: number(value, &["requestedProductionTrafficWeight"]),
        }
    }
}

impl Hook {
    fn read(value: &Value) -> Hook {
        Hook {
            id: owned(value, &["hookId"]),
            pauses: text(value, &["targetType"]) == Some("PAUSE"),
            status: owned(value, &["status"]),
            target: owned(value, &["targetArn"]),
            expires: time(value, &["expiresAt"]),
            timeout_action: owned(value, &["timeoutAction"]),
        }
    }

    /// Whether it waits for somebody.
    pub(crate) fn waits(&self) -> bool {
        self.pauses && self.status == "AWAITING_ACTION"
    }
}

impl View {
    /// Reads a member of `serviceDeployments`.
    pub(crate) fn read(value: &Value) -> View {
        let rollback = value.get("rollback").filter(|rollback| rollback.is_object());
        let breaker = value.get("deploymentCircuitBreaker").filter(|breaker| breaker.is_object());
        let alarms = list(value, &["alarms", "triggeredAlarmNames"]).iter();
        View {
            arn: owned(value, &["serviceDeploymentArn"]),
            status: Status::read(text(value, &["status"]).unwrap_or_default()),
            word: owned(value, &["status"]),
            reason: owned(value, &["statusReason"]),
            stage: owned(value, &["lifecycleStage"]),
            hooks: list(value, &["lifecycleHookDetails"]).iter().map(Hook::read).collect(),
            target: value.get("targetServiceRevision").map(Revision::read).unwrap_or_default(),
            sources: list(value, &["sourceServiceRevisions"]).iter().map(Revision::read).collect(),
            rollback: rollback
                .map(|rollback| (owned(rollback, &["reason"]), owned(rollback, &["serviceRevisionArn"]))),
            breaker: breaker.map(|breaker| {
                let count = |name: &str| whole(breaker, &[name]).unwrap_or(0);
                (owned(breaker, &["status"]), count("failureCount"), count("threshold"))
            }),
            alarms: alarms.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// Share of the production requests that the new revision has, percent.
    pub(crate) fn weight(&self) -> f64 {
        self.target.production.unwrap_or(0.0)
    }

    /// `IN_PROGRESS, PRE_PRODUCTION_TRAFFIC_SHIFT, 10 % of production, 2 of 2 tasks`.
    pub(crate) fn in_words(&self) -> String {
        let mut parts = vec![self.word.clone()];
        if !self.stage.is_empty() {
            parts.push(self.stage.clone());
        }
        if let Some(weight) = self.target.production {
            parts.push(format!("{} of production requests on the new revision", percent(weight)));
        }
        if let Some(weight) = self.target.test.filter(|weight| *weight > 0.0) {
            parts.push(format!("{} of test requests", percent(weight)));
        }
        let target = &self.target;
        if target.requested > 0 {
            let mut tasks = format!("{} of {} tasks", target.running, target.requested);
            if target.pending > 0 {
                tasks.push_str(&format!(", {} pending", target.pending));
            }
            parts.push(tasks);
        }
        parts.join(", ")
    }

    /// Why it ended as it did, from everything that AWS says; empty when it says nothing.
    pub(crate) fn why(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let rollback = self.rollback.as_ref().map(|(reason, _)| reason.as_str()).unwrap_or_default();
        for text in [self.reason.as_str(), rollback] {
            let text = text.trim().trim_end_matches('.');
            if !text.is_empty() && !parts.iter().any(|part| part == text) {
                parts.push(text.to_owned());
            }
        }
        for hook in self.hooks.iter().filter(|hook| matches!(hook.status.as_str(), "FAILED" | "TIMED_OUT")) {
            let what = if hook.pauses { "gate".to_owned() } else { format!("hook {}", hook.target) };
            let how = if hook.status == "FAILED" { "was refused" } else { "timed out" };
            parts.push(format!("{what} {how}"));
        }
        if let Some((_, count, threshold)) =
            self.breaker.as_ref().filter(|(status, ..)| status == "TRIGGERED")
        {
            parts.push(format!("the circuit breaker tripped after {count} of {threshold} failed tasks"));
        }
        if !self.alarms.is_empty() {
            parts.push(format!("alarms: {}", self.alarms.join(", ")));
        }
        parts.join("; ")
    }
}

/// `10 %`, `0.5 %`.
pub(crate) fn percent(weight: f64) -> String {
    format!("{} %", (weight * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_decides_is_read() {
        let view = View::read(&json!({"serviceDeploymentArn": "dep:1", "status": "ROLLBACK_IN_PROGRESS",
            "statusReason": "Deployment failed.", "lifecycleStage": "BAKE_TIME",
            "lifecycleHookDetails": [{"hookId": "h", "targetType": "PAUSE", "status": "TIMED_OUT", "expiresAt": 7.5, "timeoutAction": "ROLLBACK"}],
            "targetServiceRevision": {"arn": "rev:2", "requestedTaskCount": 2, "runningTaskCount": 1, "pendingTaskCount": 1,
                "requestedProductionTrafficWeight": 0.5, "requestedTestTrafficWeight": 100.0},
            "sourceServiceRevisions": [{"arn": "rev:1", "requestedProductionTrafficWeight": 99.5}],
            "rollback": {"reason": "Deployment failed", "serviceRevisionArn": "rev:1"},
            "deploymentCircuitBreaker": {"status": "TRIGGERED", "failureCount": 3, "threshold": 3},
            "alarms": {"triggeredAlarmNames": ["p99"]}}));
        assert_eq!((view.status.clone(), view.weight()), (Status::RollbackInProgress, 0.5));
        assert_eq!((view.hooks[0].expires, view.hooks[0].waits()), (Some(7500), false));
        assert_eq!(view.sources[0].arn, "rev:1");
        assert_eq!(
            view.in_words(),
            "ROLLBACK_IN_PROGRESS, BAKE_TIME, 0.5 % of production requests on the new revision, 100 % of test requests, 1 of 2 tasks, 1 pending"
        );
        assert_eq!(
            view.why(),
            "Deployment failed; gate timed out; the circuit breaker tripped after 3 of 3 failed tasks; alarms: p99"
        );
    }

    #[test]
    fn what_is_not_known_is_kept_as_it_is() {
        let view = View::read(&json!({"status": "DREAMING", "lifecycleStage": "REM"}));
        assert_eq!(view.status, Status::Unknown("DREAMING".into()));
        assert!(view.status.goes_on() && !view.status.is_final());
        assert_eq!(view.in_words(), "DREAMING, REM");
        assert!(!Status::RollbackRequested.goes_on() && !Status::RollbackRequested.is_final());
        assert!(View::read(&json!({"status": "STOPPED"})).status.is_final());
    }
}
