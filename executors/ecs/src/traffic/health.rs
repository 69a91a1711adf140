//! Health of targets: requests go only where somebody answers.

use super::fault::Fault;
use super::find::Group;
use super::weights::short;
use crate::session::{Session, elb};
use executor_api::{Level, StepError, UnitLog};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Health of a target group at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Targets that get requests.
    pub(crate) healthy: u32,
    /// Targets that still answer old requests and get no new ones.
    pub(crate) draining: u32,
    /// Targets of a group that no rule names: nobody checks them.
    pub(crate) unchecked: u32,
    /// All others, by state and reason.
    others: BTreeMap<String, u32>,
}

impl Health {
    /// As DescribeTargetHealth answers it.
    pub(crate) fn read(answer: &Value) -> Health {
        let mut health = Health::default();
        for target in aws::document::list(answer, &["TargetHealthDescriptions"]) {
            let text = |name: &str| aws::document::text(target, &["TargetHealth", name]).unwrap_or_default();
            match (text("State"), text("Reason")) {
                ("healthy", _) => health.healthy += 1,
                ("draining", _) => health.draining += 1,
                ("unused", "Target.NotInUse" | "") => health.unchecked += 1,
                (state, reason) => {
                    let mut words = state.to_owned();
                    for more in [reason, text("Description")].iter().filter(|more| !more.is_empty()) {
                        words.push_str(": ");
                        words.push_str(more);
                    }
                    *health.others.entry(words).or_default() += 1;
                }
            }
        }
        health
    }

    /// Targets that are or will be there, those that leave not counted.
    pub(crate) fn registered(&self) -> u32 {
        self.healthy + self.unchecked + self.others.values().sum::<u32>()
    }

    /// Whether nobody checks the group, because no rule names it.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.unchecked > 0 && self.healthy == 0
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{} of {} targets healthy", self.healthy, self.registered());
        for (words, count) in &self.others {
            text.push_str(&format!(", {count} {words}"));
        }
        if self.unchecked > 0 {
            text.push_str(&format!(", {} unchecked because no rule names the group", self.unchecked));
        }
        if self.draining > 0 {
            text.push_str(&format!(", {} draining", self.draining));
        }
        text
    }
}

/// Health of a target group now.
///
/// **Errors**: `ECS-051`: there is no such group; those of the call. **Repeat**: safe.
pub(crate) async fn healthy(session: &Session, group: &str) -> Result<Health, StepError> {
    match session.read(elb("DescribeTargetHealth"), json!({"TargetGroupArn": group})).await {
        Ok(answer) => Ok(Health::read(&answer)),
        Err(fault) if fault.is("TargetGroupNotFound") => {
            Err(Fault::Missing(format!("target group {group} does not exist")).into_step())
        }
        Err(fault) => Err(session.fault(fault, &format!("look at the targets of {}", short(group)))),
    }
}

/// Waits until `least` targets are healthy. How long that may take follows from the group's own health checks.
///
/// **Errors**: `ECS-056` with the reasons that AWS gives. **Cancel**: ends with `state`. **Repeat**: safe.
pub(crate) async fn wait_healthy(
    session: &Session,
    group: &Group,
    least: u32,
    state: &str,
    log: &dyn UnitLog,
) -> Result<Health, StepError> {
    let checks =
        Duration::from_secs(u64::from(group.interval) * u64::from(group.threshold.saturating_add(2)));
    let limit = session.cx.clock.mono() + checks.max(session.settings.settle);
    let mut before = None;
    loop {
        let health = healthy(session, &group.arn).await?;
        if before.as_ref() != Some(&health) {
            session.say(log, Level::Info, &format!("{}: {}", short(&group.arn), health.shown())).await?;
        }
        if health.healthy >= least {
            return Ok(health);
        }
        // A group that no rule names is never checked.
        if session.cx.clock.mono() >= limit || health.is_unchecked() {
            let fault = Fault::NotHealthy {
                group: short(&group.arn).to_owned(),
                found: health.shown(),
                wanted: least,
            };
            let mut error = fault.into_step();
            error.what = format!("{}; {state}", error.what);
            return Err(error);
        }
        before = Some(health);
        session.pause(session.settings.poll, state).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(state: &str, reason: &str, description: &str) -> Value {
        json!({"Target": {"Id": "10.0.0.1", "Port": "8080"},
            "TargetHealth": {"State": state, "Reason": reason, "Description": description}})
    }

    #[test]
    fn states_are_counted_with_their_reasons() {
        let answer = json!({"TargetHealthDescriptions": [
            {"TargetHealth": {"State": "healthy"}},
            target("unhealthy", "Target.ResponseCodeMismatch", "Health checks failed with these codes: [500]"),
            target("unhealthy", "Target.ResponseCodeMismatch", "Health checks failed with these codes: [500]"),
            target("initial", "Elb.RegistrationInProgress", ""),
            target("draining", "Target.DeregistrationInProgress", "x"),
        ]});
        let health = Health::read(&answer);
        assert_eq!((health.healthy, health.registered(), health.draining), (1, 4, 1));
        assert_eq!(
            health.shown(),
            "1 of 4 targets healthy, 1 initial: Elb.RegistrationInProgress, 2 unhealthy: \
             Target.ResponseCodeMismatch: Health checks failed with these codes: [500], 1 draining"
        );
        assert!(!health.is_unchecked());
    }

    #[test]
    fn a_group_that_no_rule_names_is_unchecked() {
        let health =
            Health::read(&json!({"TargetHealthDescriptions": [target("unused", "Target.NotInUse", "")]}));
        assert!(health.is_unchecked());
        assert_eq!(Health::read(&json!({})), Health::default());
        // A stopped instance is unused too, and for a reason of its own.
        let health =
            Health::read(&json!({"TargetHealthDescriptions": [target("unused", "Target.InvalidState", "")]}));
        assert!(!health.is_unchecked());
        assert!(health.shown().contains("1 unused: Target.InvalidState"));
    }
}
