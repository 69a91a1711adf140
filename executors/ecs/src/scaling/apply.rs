//! Documents of targets and policies, applied by difference; and what there was before, brought back.

use super::{MARK, Scaling, action_form, alarms, named, put_form, register_call, with};
use crate::changes::canonical;
use crate::error::bad_spec;
use crate::memory::Memory;
use crate::service::covers;
use crate::session::{Session, autoscaling};
use aws::Repeat;
use aws::document::{text, whole};
use executor_api::{Level, StepError, UnitLog};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// What the documents of a service ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// Members of RegisterScalableTarget.
    pub(crate) target: Option<Value>,
    /// Members of PutScalingPolicy.
    pub(crate) policies: Vec<Value>,
}

impl Wanted {
    /// Of the documents that were loaded, with where each stands.
    ///
    /// **Errors**: `ECS-022`: several targets, a policy without a name, a name twice, policies without a target, bounds
    /// that contradict each other.
    pub(crate) fn of(targets: &[(Value, String)], policies: &[(Value, String)]) -> Result<Wanted, StepError> {
        let wrong = |place: &str, what: &str| Err(bad_spec("ECS-022", format!("{place}: {what}")));
        if let [_, (_, place), ..] = targets {
            return wrong(place, "a second scalable target; a service has one, ecs:service:DesiredCount");
        }
        let target = targets.first();
        if let Some((target, place)) = target {
            let number = |name: &str| whole(target, &[name]);
            match (number("MinCapacity"), number("MaxCapacity")) {
                (Some(least), Some(most)) if least < 0 || most < least => {
                    return wrong(
                        place,
                        &format!("MinCapacity {least} and MaxCapacity {most}; expected 0 ≤ min ≤ max"),
                    );
                }
                (Some(_), Some(_)) => {}
                _ => return wrong(place, "MinCapacity and MaxCapacity are both needed"),
            }
        }
        let mut seen: Vec<&str> = Vec::new();
        for (policy, place) in policies {
            match text(policy, &["PolicyName"]).map(str::trim).filter(|name| !name.is_empty()) {
                None => return wrong(place, "a scaling policy without PolicyName"),
                Some(name) if seen.contains(&name) => {
                    return wrong(place, &format!("the policy `{name}` is written twice"));
                }
                Some(name) => seen.push(name),
            }
        }
        Ok(Wanted {
            target: target.map(|(target, _)| target.clone()),
            policies: policies.iter().map(|(policy, _)| policy.clone()).collect(),
        })
    }

    /// Nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.target.is_none() && self.policies.is_empty()
    }

    /// Refuses policies for a service that has no target and is to get none.
    ///
    /// **Errors**: `ECS-022`.
    pub(crate) fn has_target(&self, live: &Scaling) -> Result<(), StepError> {
        if self.policies.is_empty() || self.target.is_some() || live.target.is_some() {
            return Ok(());
        }
        let names = self.names().join(", ");
        let what =
            format!("scaling policies ({names}) need a scalable target, and {} has none", live.resource);
        Err(bad_spec("ECS-022", what).hint("add a document for RegisterScalableTarget to the service"))
    }

    /// Names of the policies.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |policy: &Value| text(policy, &["PolicyName"]).map(str::to_owned);
        self.policies.iter().filter_map(name).collect()
    }
}

/// One change of a service's autoscaling.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Register(Value),
    Put { name: String, input: Value },
    Delete { name: String },
    PutAction { name: String, input: Value },
    Deregister,
    Mark { arn: String, names: Vec<String> },
}

impl Act {
    fn call(&self, resource: &str) -> String {
        match self {
            Act::Register(_) => register_call(resource),
            Act::Put { name, .. } => format!("PutScalingPolicy {resource} {name}"),
            Act::Delete { name } => format!("DeleteScalingPolicy {resource} {name}"),
            Act::PutAction { name, .. } => format!("PutScheduledAction {resource} {name}"),
            Act::Deregister => format!("DeregisterScalableTarget {resource}"),
            Act::Mark { .. } => format!("TagResource scalable target {resource}"),
        }
    }

    /// For people, in a plan and in the log.
    pub(super) fn line(&self) -> String {
        match self {
            Act::Register(input) => format!("scalable target: {}", canonical(input)),
            Act::Put { name, input } => format!("scaling policy {name}: {}", canonical(input)),
            Act::Delete { name } => format!("scaling policy {name}: (removed: its document is gone)"),
            Act::PutAction { name, input } => format!("scheduled action {name}: {}", canonical(input)),
            Act::Deregister => "scalable target: (removed: this deployment had made it)".to_owned(),
            Act::Mark { .. } => String::new(),
        }
    }
}

fn tag_of(name: &str) -> String {
    let mut hash = hex::encode(Sha256::digest(name.as_bytes()));
    hash.truncate(16);
    format!("{MARK}{hash}")
}

/// Marks for the policies of `names`; a value of a tag has at most 256 characters.
fn marks(names: &[String]) -> Value {
    let pair = |name: &String| (tag_of(name), Value::from(name.chars().take(256).collect::<String>()));
    Value::Object(names.iter().map(pair).collect::<Map<_, _>>())
}

fn same(name: &str, live: &Value, wanted: &Value) -> bool {
    covers(name, Some(live), wanted)
}

/// What makes `live` what the documents ask for. Policies that no document of ours ever named stay.
pub(super) fn difference(live: &Scaling, wanted: &Wanted) -> Vec<Act> {
    let mut acts = Vec::new();
    if let Some(target) = &wanted.target {
        let there = live.target.as_ref().is_some_and(|now| same("target", now, target));
        if !there {
            acts.push(Act::Register(target.clone()));
        }
    }
    for policy in &wanted.policies {
        let name = text(policy, &["PolicyName"]).unwrap_or_default();
        let there = named(&live.policies, "PolicyName", name).is_some_and(|now| same("policy", now, policy));
        if !there {
            acts.push(Act::Put { name: name.to_owned(), input: policy.clone() });
        }
    }
    if !wanted.is_empty() {
        let names = wanted.names();
        let gone = live
            .ours
            .iter()
            .filter(|name| !names.contains(name) && named(&live.policies, "PolicyName", name).is_some());
        acts.extend(gone.map(|name| Act::Delete { name: name.clone() }));
    }
    acts
}

/// What brings back `before`, where `put` names the policies that the deployment put and `registered` tells that it made
/// the target. What others added since stays.
pub(super) fn way_back(before: &Scaling, live: &Scaling, put: &[String], registered: bool) -> Vec<Act> {
    let mut acts = Vec::new();
    match (&before.target, &live.target) {
        (None, Some(_)) if registered => return vec![Act::Deregister],
        (Some(was), is) => {
            let mut input = Map::new();
            for name in ["MinCapacity", "MaxCapacity", "SuspendedState"] {
                if let Some(value) = was.get(name) {
                    input.insert(name.to_owned(), value.clone());
                }
            }
            let input = Value::Object(input);
            if !is.as_ref().is_some_and(|is| same("target", is, &input)) {
                acts.push(Act::Register(input));
            }
        }
        _ => {}
    }
    for policy in &before.policies {
        let (name, input) = (text(policy, &["PolicyName"]).unwrap_or_default(), put_form(policy));
        let there = named(&live.policies, "PolicyName", name).is_some_and(|now| same("policy", now, &input));
        if !there {
            acts.push(Act::Put { name: name.to_owned(), input });
        }
    }
    for action in &before.actions {
        let (name, input) = (text(action, &["ScheduledActionName"]).unwrap_or_default(), action_form(action));
        if named(&live.actions, "ScheduledActionName", name).is_none() {
            acts.push(Act::PutAction { name: name.to_owned(), input });
        }
    }
    let added = put.iter().filter(|name| {
        named(&before.policies, "PolicyName", name).is_none()
            && named(&live.policies, "PolicyName", name).is_some()
    });
    acts.extend(added.map(|name| Act::Delete { name: name.clone() }));
    acts
}

/// Lines of a plan: what [`apply`] would change.
pub(crate) fn planned(live: &Scaling, wanted: &Wanted) -> Vec<String> {
    difference(live, wanted).iter().map(Act::line).collect()
}

/// Gives a service the autoscaling that its documents ask for, by difference. A suspended state that no document names is
/// kept, so that a target can be changed while it is suspended.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn apply<M: Memory>(
    session: &Session,
    live: &Scaling,
    wanted: &Wanted,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    wanted.has_target(live)?;
    let mut acts = difference(live, wanted);
    let new: Vec<String> = wanted.names().into_iter().filter(|name| !live.ours.contains(name)).collect();
    let arn = live.target.as_ref().and_then(|target| text(target, &["ScalableTargetARN"]));
    if let Some(arn) = arn.filter(|_| !new.is_empty()) {
        acts.push(Act::Mark { arn: arn.to_owned(), names: new.clone() });
    }
    perform(session, &live.resource, acts, new, memory, log).await
}

/// Brings back the autoscaling that a service had.
///
/// **Errors**, **Repeat**: as [`apply`].
pub(crate) async fn restore<M: Memory>(
    session: &Session,
    before: &Scaling,
    live: &Scaling,
    put: &[String],
    registered: bool,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    perform(session, &live.resource, way_back(before, live, put, registered), Vec::new(), memory, log).await
}

/// `mark`: policies whose target is only known by its answer.
async fn perform<M: Memory>(
    session: &Session,
    resource: &str,
    acts: Vec<Act>,
    mark: Vec<String>,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if acts.is_empty() {
        return Ok(());
    }
    let made = acts.iter().any(|act| matches!(act, Act::Register(_)));
    let marks_later = made && !mark.is_empty() && !acts.iter().any(|act| matches!(act, Act::Mark { .. }));
    let mut calls: Vec<String> = acts.iter().map(|act| act.call(resource)).collect();
    let later = Act::Mark { arn: String::new(), names: Vec::new() }.call(resource);
    if marks_later {
        calls.push(later);
    }
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    session.announce(format!("set autoscaling of {resource}"), &calls, memory).await?;
    let mut arn = None;
    for act in acts {
        let line = act.line();
        if !line.is_empty() {
            session.say(log, Level::Info, &line).await?;
        }
        let answer = send(session, resource, act, log).await?;
        arn = arn.or_else(|| text(&answer, &["ScalableTargetARN"]).map(str::to_owned));
    }
    if let Some(arn) = arn.filter(|_| marks_later) {
        send(session, resource, Act::Mark { arn, names: mark }, log).await?;
    }
    Ok(())
}

async fn send(session: &Session, resource: &str, act: Act, log: &dyn UnitLog) -> Result<Value, StepError> {
    let call = act.call(resource);
    let (operation, input) = match &act {
        Act::Register(input) => ("RegisterScalableTarget", with(resource, input.clone())),
        Act::Put { input, .. } => ("PutScalingPolicy", with(resource, input.clone())),
        Act::Delete { name } => ("DeleteScalingPolicy", with(resource, json!({"PolicyName": name}))),
        Act::PutAction { input, .. } => ("PutScheduledAction", with(resource, input.clone())),
        Act::Deregister => ("DeregisterScalableTarget", with(resource, json!({}))),
        Act::Mark { arn, names } => ("TagResource", json!({"ResourceARN": arn, "Tags": marks(names)})),
    };
    match session.change(&call, autoscaling(operation), input, Repeat::Safe).await {
        Ok(answer) => {
            if let Act::Put { name, .. } = &act {
                session
                    .say(log, Level::Info, &format!("scaling policy {name} is set{}", alarms(&answer)))
                    .await?;
            }
            Ok(answer)
        }
        // What is to go is gone.
        Err(fault)
            if matches!(act, Act::Delete { .. } | Act::Deregister) && fault.is("ObjectNotFoundException") =>
        {
            Ok(Value::Null)
        }
        // Without its mark a policy only outlives its document.
        Err(fault) if matches!(act, Act::Mark { .. }) => {
            let text = format!(
                "the scaling policies cannot be marked as this service's own ({fault}); they stay when their documents go"
            );
            session.say(log, Level::Warn, &text).await?;
            Ok(Value::Null)
        }
        Err(fault) => Err(session.fault(fault, &call)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, value: f64) -> Value {
        json!({"PolicyName": name, "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": {"TargetValue": value}})
    }

    fn answered(name: &str, value: f64) -> Value {
        let mut policy = policy(name, value);
        policy["PolicyARN"] = json!("arn:x");
        policy["Alarms"] = json!([{"AlarmName": "a"}]);
        policy["CreationTime"] = json!(1.5);
        policy["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] = json!(false);
        policy
    }

    fn live() -> Scaling {
        Scaling {
            v: 1,
            resource: "service/c/web".into(),
            target: Some(
                json!({"MinCapacity": 2, "MaxCapacity": 10, "ScalableTargetARN": "arn:t", "RoleARN": "r",
                "SuspendedState": {"DynamicScalingInSuspended": true, "ScheduledScalingSuspended": true}}),
            ),
            policies: vec![answered("cpu", 60.0), answered("foreign", 1.0), answered("old", 2.0)],
            actions: vec![
                json!({"ScheduledActionName": "night", "Schedule": "cron(0 22 * * ? *)", "CreationTime": 1.0}),
            ],
            ours: vec!["cpu".into(), "old".into(), "gone".into()],
        }
    }

    fn of(targets: &[Value], policies: &[Value]) -> Result<Wanted, StepError> {
        let place = |value: &Value| (value.clone(), "x".to_owned());
        let targets: Vec<_> = targets.iter().map(place).collect();
        let policies: Vec<_> = policies.iter().map(place).collect();
        Wanted::of(&targets, &policies)
    }

    #[test]
    fn only_differences_are_sent_and_only_our_own_policies_go() {
        let same =
            of(&[json!({"MinCapacity": 2, "MaxCapacity": 10})], &[policy("cpu", 60.0), policy("old", 2.0)])
                .unwrap();
        assert_eq!(difference(&live(), &same), []);
        let other =
            of(&[json!({"MinCapacity": 2, "MaxCapacity": 12})], &[policy("cpu", 70.0), policy("new", 1.0)])
                .unwrap();
        assert_eq!(
            difference(&live(), &other),
            [
                Act::Register(json!({"MinCapacity": 2, "MaxCapacity": 12})),
                Act::Put { name: "cpu".into(), input: policy("cpu", 70.0) },
                Act::Put { name: "new".into(), input: policy("new", 1.0) },
                Act::Delete { name: "old".into() },
            ]
        );
        assert_eq!(difference(&live(), &Wanted::default()), []);
    }

    #[test]
    fn the_way_back_leaves_what_others_did() {
        let before = live();
        let mut now = live();
        now.target = Some(json!({"MinCapacity": 5, "MaxCapacity": 12, "ScalableTargetARN": "arn:t"}));
        now.policies = vec![
            answered("cpu", 70.0),
            answered("foreign", 1.0),
            answered("new", 1.0),
            answered("stranger", 9.0),
        ];
        now.actions = vec![];
        assert_eq!(
            way_back(&before, &now, &["cpu".into(), "new".into()], false),
            [
                Act::Register(json!({"MinCapacity": 2, "MaxCapacity": 10,
                    "SuspendedState": {"DynamicScalingInSuspended": true, "ScheduledScalingSuspended": true}})),
                Act::Put { name: "cpu".into(), input: put_form(&before.policies[0]) },
                Act::Put { name: "old".into(), input: put_form(&before.policies[2]) },
                Act::PutAction {
                    name: "night".into(),
                    input: json!({"ScheduledActionName": "night", "Schedule": "cron(0 22 * * ? *)"})
                },
                Act::Delete { name: "new".into() },
            ]
        );
        assert_eq!(way_back(&before, &before, &[], false), []);
        let none = Scaling { target: None, policies: vec![], actions: vec![], ..live() };
        assert_eq!(way_back(&none, &live(), &["cpu".into()], true), [Act::Deregister]);
        assert_eq!(way_back(&none, &live(), &[], false), []);
    }

    #[test]
    fn documents_that_contradict_themselves_are_refused() {
        let target = json!({"MinCapacity": 2, "MaxCapacity": 10});
        for (targets, policies, wanted) in [
            (vec![target.clone(), target.clone()], vec![], "a second scalable target"),
            (vec![json!({"MinCapacity": 5, "MaxCapacity": 2})], vec![], "0 ≤ min ≤ max"),
            (vec![json!({"MinCapacity": 5})], vec![], "both needed"),
            (vec![], vec![json!({})], "without PolicyName"),
            (vec![], vec![policy("a", 1.0), policy("a", 2.0)], "written twice"),
        ] {
            let error = of(&targets, &policies).unwrap_err();
            assert!(error.code == "ECS-022" && error.what.contains(wanted), "{}", error.what);
        }
    }

    #[test]
    fn marks_tell_policies_apart_whatever_their_names_are() {
        let marks = marks(&["a/b c".to_owned(), "x".repeat(300)]);
        let marks = marks.as_object().unwrap();
        assert_eq!(marks.len(), 2);
        assert!(marks.iter().all(|(key, value)| key.len() <= 128 && value.as_str().unwrap().len() <= 256));
    }
}
