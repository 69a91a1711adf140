//! Reading load balancers, listeners, rules and target groups.

use super::actions::Actions;
use super::fault::Fault;
use super::find::{Found, Group};
use super::rule::Rule;
use super::weights::short;
use crate::session::{Session, elb};
use aws::document::{list, text, whole};
use executor_api::StepError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balancer {
    /// ARN.
    pub(crate) arn: String,
    /// Name.
    pub(crate) name: String,
}

fn missing(text: String) -> StepError {
    Fault::Missing(text).into_step()
}

fn owned(value: &Value, name: &str) -> String {
    text(value, &[name]).unwrap_or_default().to_owned()
}

/// A load balancer by name or ARN.
///
/// **Errors**: `ECS-051`: there is none. **Repeat**: safe, as everything here.
pub(crate) async fn balancer(session: &Session, name_or_arn: &str) -> Result<Balancer, StepError> {
    let key = if name_or_arn.starts_with("arn:") { "LoadBalancerArns" } else { "Names" };
    let answer = match session.read(elb("DescribeLoadBalancers"), json!({key: [name_or_arn]})).await {
        Err(fault) if fault.is("LoadBalancerNotFound") => json!({}),
        other => {
            other.map_err(|fault| session.fault(fault, &format!("look at load balancer {name_or_arn}")))?
        }
    };
    match list(&answer, &["LoadBalancers"]).first() {
        Some(found) => {
            Ok(Balancer { arn: owned(found, "LoadBalancerArn"), name: owned(found, "LoadBalancerName") })
        }
        None => Err(missing(format!("load balancer `{name_or_arn}` does not exist in {}", session.target()))),
    }
}

/// Every listener of a load balancer, page by page.
pub(crate) async fn listeners(session: &Session, balancer: &str) -> Result<Vec<Value>, StepError> {
    let input = json!({"LoadBalancerArn": balancer});
    session
        .pages(elb("DescribeListeners"), input, "Listeners")
        .await
        .map_err(|fault| session.fault(fault, "look at the listeners of the load balancer"))
}

/// One listener.
///
/// **Errors**: `ECS-051`: there is none.
pub(crate) async fn listener(session: &Session, arn: &str) -> Result<Value, StepError> {
    let mut answer = match session.read(elb("DescribeListeners"), json!({"ListenerArns": [arn]})).await {
        Err(fault) if fault.is("ListenerNotFound") => json!({}),
        other => other.map_err(|fault| session.fault(fault, &format!("look at listener {arn}")))?,
    };
    match answer.pointer_mut("/Listeners/0").map(Value::take) {
        Some(found) => Ok(found),
        None => Err(missing(format!("listener `{arn}` does not exist in {}", session.target()))),
    }
}

/// The load balancer and the port of a listener.
pub(crate) fn belongs(listener: &Value) -> (String, Option<u16>) {
    let port = whole(listener, &["Port"]).and_then(|port| u16::try_from(port).ok());
    (owned(listener, "LoadBalancerArn"), port)
}

/// What a rule does now.
///
/// **Errors**: `ECS-051`: it does not exist.
pub(crate) async fn actions(session: &Session, rule: &Rule) -> Result<Actions, StepError> {
    match &rule.arn {
        None => Ok(default_actions(&listener(session, &rule.listener).await?)),
        Some(arn) => Ok(rule_actions(&described(session, arn).await?)),
    }
}

async fn described(session: &Session, arn: &str) -> Result<Value, StepError> {
    let mut answer = match session.read(elb("DescribeRules"), json!({"RuleArns": [arn]})).await {
        Err(fault) if fault.is("RuleNotFound") => json!({}),
        other => other.map_err(|fault| session.fault(fault, &format!("look at rule {arn}")))?,
    };
    match answer.pointer_mut("/Rules/0").map(Value::take) {
        Some(found) => Ok(found),
        None => Err(missing(format!("rule `{arn}` does not exist in {}", session.target()))),
    }
}

fn default_actions(listener: &Value) -> Actions {
    Actions::new(list(listener, &["DefaultActions"]).to_vec())
}

fn rule_actions(rule: &Value) -> Actions {
    Actions::new(list(rule, &["Actions"]).to_vec())
}

fn is_default(rule: &Value) -> bool {
    aws::document::flag(rule, &["IsDefault"]).unwrap_or(false)
}

/// A rule that is named by its own ARN; the default rule has one too, and is changed through its listener.
///
/// **Errors**: `ECS-051`.
pub(crate) async fn rule(session: &Session, arn: &str) -> Result<Rule, StepError> {
    let rule = Rule::of_arn(arn).map_err(Fault::into_step)?;
    let found = described(session, arn).await?;
    Ok(if is_default(&found) { Rule::default_of(rule.listener) } else { rule })
}

/// The rule that a step names: by ARN, else the default one of the listener. The listener must belong to the load balancer
/// and the rule to the listener.
///
/// **Errors**: `ECS-051`.
pub(crate) async fn named(
    session: &Session,
    balancer: &Balancer,
    listener_arn: &str,
    rule_arn: Option<&str>,
) -> Result<Rule, StepError> {
    let (owner, _) = belongs(&listener(session, listener_arn).await?);
    if owner != balancer.arn {
        let text =
            format!("listener `{listener_arn}` belongs to {owner}, not to load balancer {}", balancer.name);
        return Err(missing(text));
    }
    let Some(arn) = rule_arn.map(str::trim).filter(|arn| !arn.is_empty()) else {
        return Ok(Rule::default_of(listener_arn));
    };
    let rule = rule(session, arn).await?;
    if rule.listener != listener_arn {
        return Err(missing(format!("{rule} belongs to listener {}, not to {listener_arn}", rule.listener)));
    }
    Ok(rule)
}

/// Every rule of a load balancer with what it does.
pub(crate) async fn rules(session: &Session, balancer: &str) -> Result<Vec<Found>, StepError> {
    let mut all = Vec::new();
    for listener in listeners(session, balancer).await? {
        let arn = owned(&listener, "ListenerArn");
        let (_, port) = belongs(&listener);
        let input = json!({"ListenerArn": arn});
        let rules = session
            .pages(elb("DescribeRules"), input, "Rules")
            .await
            .map_err(|fault| session.fault(fault, &format!("look at the rules of listener {arn}")))?;
        all.push(Found { rule: Rule::default_of(&arn), actions: default_actions(&listener), port });
        for rule in rules.iter().filter(|rule| !is_default(rule)) {
            let rule_arn = owned(rule, "RuleArn");
            all.push(Found {
                rule: Rule { listener: arn.clone(), arn: Some(rule_arn) },
                actions: rule_actions(rule),
                port,
            });
        }
    }
    Ok(all)
}

/// A target group.
///
/// **Errors**: `ECS-051`: there is none.
pub(crate) async fn group(session: &Session, arn: &str) -> Result<Group, StepError> {
    let answer = match session.read(elb("DescribeTargetGroups"), json!({"TargetGroupArns": [arn]})).await {
        Err(fault) if fault.is("TargetGroupNotFound") => json!({}),
        other => {
            other.map_err(|fault| session.fault(fault, &format!("look at target group {}", short(arn))))?
        }
    };
    match list(&answer, &["TargetGroups"]).first() {
        Some(found) => Ok(Group::read(found)),
        None => Err(missing(format!("target group `{arn}` does not exist in {}", session.target()))),
    }
}

/// Every target group that rules of a load balancer name.
pub(crate) async fn groups(session: &Session, balancer: &str) -> Result<Vec<Group>, StepError> {
    let found = session
        .pages(elb("DescribeTargetGroups"), json!({"LoadBalancerArn": balancer}), "TargetGroups")
        .await
        .map_err(|fault| session.fault(fault, "look at the target groups of the load balancer"))?;
    Ok(found.iter().map(Group::read).collect())
}
