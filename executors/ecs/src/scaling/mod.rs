//! Autoscaling of a service: suspended while a deployment runs, never taken away (facts A4).
//!
//! ```text
//! read ─► Scaling (recorded) ─► suspend ─► … rollout … ─► resume ─► apply documents by difference
//! ```
//! A target that is deregistered loses its policies and scheduled actions, so nothing here deregisters one that it has not
//! registered itself.

mod apply;

pub(crate) use apply::{Wanted, apply, planned, restore};

use crate::memory::Memory;
use crate::service::count::Bounds;
use crate::session::{Session, autoscaling};
use aws::document::{flag, list, text, whole};
use aws::{Fault, Repeat};
use executor_api::{Level, StepError, UnitLog};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The one dimension that a service of ECS scales in.
const DIMENSION: &str = "ecs:service:DesiredCount";
/// Tag on a scalable target for each policy that a document of ours put there; its value is the policy's name.
const MARK: &str = "delegate:policy:";

/// What autoscaling a service has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Scaling {
    /// Version of this form.
    pub(crate) v: u32,
    /// `service/CLUSTER/SERVICE`.
    pub(crate) resource: String,
    /// As DescribeScalableTargets answers; `None` when the service does not scale by itself.
    pub(crate) target: Option<Value>,
    /// As DescribeScalingPolicies answers.
    pub(crate) policies: Vec<Value>,
    /// As DescribeScheduledActions answers.
    pub(crate) actions: Vec<Value>,
    /// Names of policies that came from a document of an earlier deployment.
    pub(crate) ours: Vec<String>,
}

impl Scaling {
    /// Bounds of the count, when there is a target.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        bounds(self.target.as_ref()?)
    }

    /// What is suspended as it stands.
    fn suspended(&self) -> Suspended {
        Suspended::of(self.target.as_ref().and_then(|target| target.get("SuspendedState")))
    }

    /// Whether there is anything to suspend.
    pub(crate) fn can_be_suspended(&self) -> bool {
        self.target.is_some() && self.suspended() != self.suspended().for_a_rollout()
    }

    /// For people.
    fn summary(&self) -> String {
        let Some(target) = &self.target else { return "the service has no autoscaling".to_owned() };
        let number = |name: &str| whole(target, &[name]).unwrap_or(0);
        let names = |items: &[Value], name: &str| {
            let names: Vec<&str> = items.iter().filter_map(|item| text(item, &[name])).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        format!(
            "autoscaling from {} to {} tasks; policies: {}; scheduled actions: {}",
            number("MinCapacity"),
            number("MaxCapacity"),
            names(&self.policies, "PolicyName"),
            names(&self.actions, "ScheduledActionName")
        )
    }
}

/// Bounds that a target, or a document of one, sets.
pub(crate) fn bounds(target: &Value) -> Option<Bounds> {
    let number = |name: &str| whole(target, &[name]).and_then(|number| u32::try_from(number).ok());
    Some(Bounds { least: number("MinCapacity")?, most: number("MaxCapacity")? })
}

/// What of a target does not act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspended {
    scale_in: bool,
    scale_out: bool,
    scheduled: bool,
}

impl Suspended {
    fn of(state: Option<&Value>) -> Suspended {
        let read = |name: &str| state.and_then(|state| flag(state, &[name])).unwrap_or(false);
        Suspended {
            scale_in: read("DynamicScalingInSuspended"),
            scale_out: read("DynamicScalingOutSuspended"),
            scheduled: read("ScheduledScalingSuspended"),
        }
    }

    /// More tasks may come while a rollout runs; fewer would look like a failure of it.
    fn for_a_rollout(self) -> Suspended {
        Suspended { scale_in: true, scheduled: true, ..self }
    }

    fn value(self) -> Value {
        json!({"DynamicScalingInSuspended": self.scale_in, "DynamicScalingOutSuspended": self.scale_out,
            "ScheduledScalingSuspended": self.scheduled})
    }
}

/// Name of the target of a service.
pub(crate) fn resource(session: &Session, service: &str) -> String {
    format!("service/{}/{service}", session.cluster)
}

/// What every request about a service's scaling begins with.
fn about(resource: &str) -> Map<String, Value> {
    let mut input = Map::new();
    input.insert("ServiceNamespace".to_owned(), json!("ecs"));
    input.insert("ResourceId".to_owned(), json!(resource));
    input.insert("ScalableDimension".to_owned(), json!(DIMENSION));
    input
}

/// The same with more members.
fn with(resource: &str, more: Value) -> Value {
    let mut input = about(resource);
    if let Value::Object(more) = more {
        input.extend(more);
    }
    Value::Object(input)
}

/// An endpoint that is not AWS may know nothing of autoscaling; then there is none.
fn is_unknown(fault: &Fault) -> bool {
    fault.is("UnknownOperation")
        || fault.is("InvalidAction")
        || matches!(fault, Fault::Refused { status: 404 | 501, .. })
}

/// Reads what autoscaling a service has.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(crate) async fn read(session: &Session, service: &str, log: &dyn UnitLog) -> Result<Scaling, StepError> {
    let resource = resource(session, service);
    let found = read_all(session, &resource).await;
    let scaling = match found {
        Err(fault) if is_unknown(&fault) => {
            let text = format!("autoscaling cannot be looked at, the endpoint does not know it: {fault}");
            session.say(log, Level::Warn, &text).await?;
            return Ok(Scaling { v: 1, resource, ..Scaling::default() });
        }
        other => {
            other.map_err(|fault| session.fault(fault, &format!("look at the autoscaling of {service}")))?
        }
    };
    session.say(log, Level::Info, &scaling.summary()).await?;
    let is = scaling.suspended();
    if scaling.target.is_some() && is != (Suspended { scale_in: false, scale_out: false, scheduled: false }) {
        let text = format!(
            "ecs.scaling.suspended: autoscaling of {service} was suspended before this step ({}); it stays so",
            is.value()
        );
        session.say(log, Level::Warn, &text).await?;
        session.tell(text);
    }
    Ok(scaling)
}

/// The same as it is now, without a word: for whoever suspended it itself.
///
/// **Errors**: those of the account. **Cancel**, **Repeat**: safe.
pub(crate) async fn now(session: &Session, service: &str) -> Result<Scaling, StepError> {
    let found = read_all(session, &resource(session, service)).await;
    found.map_err(|fault| session.fault(fault, &format!("look at the autoscaling of {service}")))
}

async fn read_all(session: &Session, resource: &str) -> Result<Scaling, Fault> {
    let input = json!({"ServiceNamespace": "ecs", "ResourceIds": [resource], "ScalableDimension": DIMENSION});
    let targets = session.pages(autoscaling("DescribeScalableTargets"), input, "ScalableTargets").await?;
    // Emulators have been seen to ignore the filter.
    let target = targets.into_iter().find(|target| text(target, &["ResourceId"]) == Some(resource));
    let mut scaling = Scaling { v: 1, resource: resource.to_owned(), target, ..Scaling::default() };
    if let Some(target) = &scaling.target {
        let all = Value::Object(about(resource));
        scaling.policies =
            session.pages(autoscaling("DescribeScalingPolicies"), all.clone(), "ScalingPolicies").await?;
        scaling.actions =
            match session.pages(autoscaling("DescribeScheduledActions"), all, "ScheduledActions").await {
                Err(fault) if is_unknown(&fault) => Vec::new(),
                other => other?,
            };
        scaling.ours = marked(session, target).await;
    }
    Ok(scaling)
}

/// Names of policies that carry our mark. Whoever may not read tags has no policy of ours: nothing is deleted then.
async fn marked(session: &Session, target: &Value) -> Vec<String> {
    let Some(arn) = text(target, &["ScalableTargetARN"]) else { return Vec::new() };
    let answer = session.read(autoscaling("ListTagsForResource"), json!({"ResourceARN": arn})).await;
    let tags = match answer {
        Ok(answer) => answer.get("Tags").and_then(Value::as_object).cloned().unwrap_or_default(),
        Err(fault) => {
            tracing::debug!(%fault, "the tags of a scalable target are not known");
            Map::new()
        }
    };
    let name = |(key, value): (String, Value)| {
        key.starts_with(MARK).then(|| value.as_str().map(str::to_owned)).flatten()
    };
    tags.into_iter().filter_map(name).collect()
}

/// The call under which a target is announced.
fn register_call(resource: &str) -> String {
    format!("RegisterScalableTarget {resource}")
}

/// Suspends scaling in and scheduled scaling. `memory` says already that it is suspended: it goes into the checkpoint.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn suspend<M: Memory>(
    session: &Session,
    scaling: &Scaling,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let call = register_call(&scaling.resource);
    let state = scaling.suspended().for_a_rollout();
    session
        .say(log, Level::Info, "autoscaling is suspended for the rollout: scaling in and scheduled scaling")
        .await?;
    session.announce(format!("suspend autoscaling of {}", scaling.resource), &[&call], memory).await?;
    set_state(session, scaling, state, &call).await
}

/// Gives a target the state that was recorded before it was suspended.
///
/// **Errors**: those of the account; `ECS-002`. **Cancel**: give it a session for undoing. **Repeat**: safe.
pub(crate) async fn resume<M: Memory>(
    session: &Session,
    scaling: &Scaling,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let call = register_call(&scaling.resource);
    session.announce(format!("resume autoscaling of {}", scaling.resource), &[&call], memory).await?;
    set_state(session, scaling, scaling.suspended(), &call).await?;
    session.say(log, Level::Info, "autoscaling is resumed as it was").await
}

/// Bounds that somebody changed meanwhile stay: a request without them leaves them alone, and makes no new target where
/// one was deregistered.
async fn set_state(
    session: &Session,
    scaling: &Scaling,
    state: Suspended,
    call: &str,
) -> Result<(), StepError> {
    let input = with(&scaling.resource, json!({"SuspendedState": state.value()}));
    let answer = session.change(call, autoscaling("RegisterScalableTarget"), input, Repeat::Safe).await;
    let what = || format!("suspend or resume autoscaling of {}", scaling.resource);
    answer.map(drop).map_err(|fault| session.fault(fault, &what()))
}

/// What a person must do when autoscaling could not be resumed.
pub(crate) fn by_hand(session: &Session, scaling: &Scaling) -> String {
    format!(
        "autoscaling of {} is still suspended; resume it: aws application-autoscaling register-scalable-target --region {} --service-namespace ecs --scalable-dimension {DIMENSION} --resource-id {} --suspended-state '{}'",
        scaling.resource,
        session.aws.region(),
        scaling.resource,
        scaling.suspended().value()
    )
}

/// Policies as PutScalingPolicy takes them.
fn put_form(policy: &Value) -> Value {
    let mut members = policy.as_object().cloned().unwrap_or_default();
    for answered in ["PolicyARN", "CreationTime", "Alarms"] {
        members.shift_remove(answered);
    }
    Value::Object(members)
}

/// Scheduled actions as PutScheduledAction takes them.
fn action_form(action: &Value) -> Value {
    let mut members = action.as_object().cloned().unwrap_or_default();
    for answered in ["ScheduledActionARN", "CreationTime"] {
        members.shift_remove(answered);
    }
    Value::Object(members)
}

fn named<'a>(items: &'a [Value], key: &str, name: &str) -> Option<&'a Value> {
    items.iter().find(|item| text(item, &[key]) == Some(name))
}

/// Alarms that a policy acts on, for the log.
fn alarms(answer: &Value) -> String {
    let names: Vec<&str> =
        list(answer, &["Alarms"]).iter().filter_map(|alarm| text(alarm, &["AlarmName"])).collect();
    if names.is_empty() { String::new() } else { format!(" (alarms {})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling(state: Value) -> Scaling {
        Scaling {
            target: Some(json!({"MinCapacity": 2, "MaxCapacity": "10", "SuspendedState": state})),
            ..Scaling::default()
        }
    }

    #[test]
    fn only_what_would_disturb_a_rollout_is_suspended() {
        let none = scaling(Value::Null);
        assert_eq!(
            none.suspended().for_a_rollout().value(),
            json!({"DynamicScalingInSuspended": true, "DynamicScalingOutSuspended": false, "ScheduledScalingSuspended": true})
        );
        let out = scaling(json!({"DynamicScalingOutSuspended": true}));
        assert!(out.suspended().for_a_rollout().scale_out && out.can_be_suspended());
        let all = json!({"DynamicScalingInSuspended": true, "ScheduledScalingSuspended": true});
        assert!(!scaling(all).can_be_suspended());
        assert!(!Scaling::default().can_be_suspended());
        assert_eq!(none.bounds(), Some(Bounds { least: 2, most: 10 }));
    }

    #[test]
    fn a_recorded_state_survives() {
        let one = scaling(json!({"DynamicScalingInSuspended": true}));
        let again: Scaling = serde_json::from_value(serde_json::to_value(&one).unwrap()).unwrap();
        assert_eq!(again, one);
    }
}
