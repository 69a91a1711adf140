//! What a service definition and a step say about native strategies, and what contradicts itself in it. Pure.

use crate::error::bad_spec;
use aws::document::{at, list, number, text, whole};
use executor_api::StepError;
use proto::task::NativeDeploy;
use serde_json::{Value, json};

/// Lifecycle stages at which ECS takes hooks that pause (AWS' developer guide, pause hooks).
pub(crate) const GATES: [&str; 6] = [
    "RECONCILE_SERVICE",
    "PRE_SCALE_UP",
    "POST_SCALE_UP",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
];
/// Stages that take hooks of functions only.
const NO_GATES: [&str; 2] = ["TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT"];
/// Longest time that a hook may wait, minutes (API reference, DeploymentLifecycleHookTimeoutConfiguration).
const LONGEST: i64 = 20_160;

/// A service that ECS deploys by one of its own strategies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    /// `BLUE_GREEN`, `LINEAR`, `CANARY`.
    pub(crate) strategy: String,
    /// The definition with the gates in it.
    pub(crate) document: Value,
    /// What a person should know.
    pub(crate) warnings: Vec<String>,
}

/// The strategy that a service or definition names; none is the rolling one.
pub(crate) fn strategy(service: &Value) -> &str {
    match text(service, &["deploymentConfiguration", "strategy"]) {
        None | Some("") => "ROLLING",
        Some(strategy) => strategy,
    }
}

/// Whether ECS shifts requests itself.
pub(crate) fn is_native(service: &Value) -> bool {
    strategy(service) != "ROLLING"
}

/// Puts the gates that the step asks for into the definition, and looks whether ECS can do what it says. `effective` is the
/// definition over the live service; `None`: the service is deployed by the rolling strategy.
///
/// **Errors**: `ECS-080` names everything that is wrong.
pub(crate) fn settle(
    document: &Value,
    effective: &Value,
    asked: &NativeDeploy,
    place: &str,
) -> Result<Option<Settled>, StepError> {
    let wrong = |problems: &[String]| {
        Err(bad_spec("ECS-080", format!("{place}: {}", problems.join("; ")))
            .hint("correct the service definition or the step; nothing was changed"))
    };
    let strategy = strategy(effective).to_owned();
    if strategy == "ROLLING" {
        let what = match (asked.required, asked.gates.is_empty()) {
            (false, true) => return Ok(None),
            (true, _) => "the step says `engine: native`",
            (false, false) => "the step asks for gates",
        };
        let text = format!(
            "{what}, and the service has the strategy ROLLING; expected `deploymentConfiguration.strategy` BLUE_GREEN, LINEAR or CANARY"
        );
        return wrong(&[text]);
    }
    let mut problems = of_step(asked);
    let (mut document, mut warnings) = (document.clone(), Vec::new());
    if problems.is_empty() {
        set_gates(&mut document, effective, asked, &mut warnings);
    }
    let mut whole = effective.clone();
    configure(&mut whole, effective, &document);
    problems.extend(of_service(&strategy, &whole));
    problems.extend(of_hooks(&whole));
    if !problems.is_empty() {
        return wrong(&problems);
    }
    warnings.extend(doubts(&strategy, &whole));
    Ok(Some(Settled { strategy, document, warnings }))
}

/// Gives `service` the deployment configuration of `base` with that of `document` laid over it, member by member, as an update
/// does it.
pub(crate) fn configure(service: &mut Value, base: &Value, document: &Value) {
    let part = |service: &Value| service.get("deploymentConfiguration").and_then(Value::as_object).cloned();
    let (Some(service), Some(written)) = (service.as_object_mut(), part(document)) else { return };
    let mut both = part(base).unwrap_or_default();
    both.extend(written);
    service.insert("deploymentConfiguration".to_owned(), Value::Object(both));
}

fn of_step(asked: &NativeDeploy) -> Vec<String> {
    let mut problems = Vec::new();
    for gate in asked.gates.iter().filter(|gate| !GATES.contains(&gate.as_str())) {
        problems.push(format!("gates: ECS does not pause at `{gate}`; expected one of {}", GATES.join(", ")));
    }
    if let Some(minutes) =
        asked.gate_timeout_minutes.filter(|minutes| !(1..=LONGEST).contains(&i64::from(*minutes)))
    {
        problems.push(format!("gateTimeout is {minutes} minutes; expected 1 to {LONGEST}"));
    }
    problems
}

/// The hooks are those of the definition, or else those of the service that call functions; and one that pauses for every gate
/// that no hook of the definition has.
fn set_gates(document: &mut Value, effective: &Value, asked: &NativeDeploy, warnings: &mut Vec<String>) {
    let path = ["deploymentConfiguration", "lifecycleHooks"];
    let written = at(document, &path).is_some_and(Value::is_array);
    let live = list(effective, &path).to_vec();
    let pauses = |hook: &Value| text(hook, &["targetType"]) == Some("PAUSE");
    let mut hooks = live.clone();
    if !written {
        hooks.retain(|hook| !pauses(hook));
    }
    let has = |hooks: &[Value], gate: &str| {
        hooks
            .iter()
            .filter(|hook| pauses(hook))
            .any(|hook| list(hook, &["lifecycleStages"]).iter().any(|stage| stage.as_str() == Some(gate)))
    };
    let mut missing: Vec<&str> = Vec::new();
    for gate in &asked.gates {
        if !has(&hooks, gate) && !missing.contains(&gate.as_str()) {
            missing.push(gate);
        }
    }
    if !missing.is_empty() {
        let mut timeout = json!({"action": "ROLLBACK"});
        if let (Some(minutes), Some(timeout)) = (asked.gate_timeout_minutes, timeout.as_object_mut()) {
            timeout.insert("timeoutInMinutes".to_owned(), minutes.into());
        }
        hooks.push(
            json!({"targetType": "PAUSE", "lifecycleStages": missing, "timeoutConfiguration": timeout}),
        );
    }
    // Gates of an earlier deployment would hold this one, and nobody would open them.
    for hook in live.iter().filter(|hook| !written && pauses(hook)) {
        for stage in list(hook, &["lifecycleStages"]).iter().filter_map(Value::as_str) {
            if !has(&hooks, stage) {
                warnings.push(format!(
                    "the gate at {stage} is taken away: the service has it, and neither its definition nor this step asks for it"
                ));
            }
        }
    }
    if written && missing.is_empty() || hooks == live {
        return;
    }
    let Some(document) = document.as_object_mut() else { return };
    let configuration = document.entry("deploymentConfiguration").or_insert_with(|| json!({}));
    if let Some(configuration) = configuration.as_object_mut() {
        configuration.insert("lifecycleHooks".to_owned(), Value::Array(hooks));
    }
}

fn of_service(strategy: &str, service: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if text(service, &["schedulingStrategy"]) == Some("DAEMON") {
        problems.push(format!("schedulingStrategy DAEMON has no strategy {strategy}"));
    }
    for (index, balancer) in list(service, &["loadBalancers"]).iter().enumerate() {
        let at = format!("loadBalancers[{index}]");
        if text(balancer, &["loadBalancerName"]).is_some_and(|name| !name.is_empty()) {
            problems.push(format!("{at} is a classic load balancer, which cannot shift requests"));
            continue;
        }
        let part = |name: &str| text(balancer, &["advancedConfiguration", name]).unwrap_or_default();
        for (name, what) in [
            ("alternateTargetGroupArn", "the target group of the other revision"),
            ("productionListenerRule", "the rule whose requests are shifted"),
            ("roleArn", "the infrastructure role with which ECS changes the rule"),
        ] {
            if part(name).trim().is_empty() {
                problems.push(format!("{at}.advancedConfiguration.{name} is not written: {what}"));
            }
        }
        let group = text(balancer, &["targetGroupArn"]).unwrap_or_default();
        if !group.is_empty() && group == part("alternateTargetGroupArn") {
            problems.push(format!("{at}: targetGroupArn and alternateTargetGroupArn are the same ({group})"));
        }
    }
    let configuration = service.get("deploymentConfiguration").unwrap_or(&Value::Null);
    for (path, least, most) in [
        (&["bakeTimeInMinutes"][..], 0.0, 1440.0),
        (&["linearConfiguration", "stepPercent"], 3.0, 100.0),
        (&["linearConfiguration", "stepBakeTimeInMinutes"], 0.0, 1440.0),
        (&["canaryConfiguration", "canaryPercent"], 0.1, 100.0),
        (&["canaryConfiguration", "canaryBakeTimeInMinutes"], 0.0, 1440.0),
    ] {
        if let Some(found) = number(configuration, path).filter(|found| !(least..=most).contains(found)) {
            let path = path.join(".");
            problems.push(format!("deploymentConfiguration.{path} is {found}; expected {least} to {most}"));
        }
    }
    problems
}

fn of_hooks(service: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, hook) in list(service, &["deploymentConfiguration", "lifecycleHooks"]).iter().enumerate() {
        let at = format!("deploymentConfiguration.lifecycleHooks[{index}]");
        let pauses = text(hook, &["targetType"]) == Some("PAUSE");
        for stage in list(hook, &["lifecycleStages"]).iter().filter_map(Value::as_str) {
            if pauses && NO_GATES.contains(&stage) {
                problems.push(format!("{at}: ECS does not pause at {stage}"));
            }
        }
        if list(hook, &["lifecycleStages"]).is_empty() {
            problems.push(format!("{at}.lifecycleStages is empty"));
        }
        if !pauses {
            for name in ["hookTargetArn", "roleArn"] {
                if text(hook, &[name]).is_none_or(str::is_empty) {
                    problems
                        .push(format!("{at}.{name} is not written; a hook that calls a function needs it"));
                }
            }
        }
        let minutes = whole(hook, &["timeoutConfiguration", "timeoutInMinutes"]);
        if let Some(minutes) = minutes.filter(|minutes| !(1..=LONGEST).contains(minutes)) {
            problems.push(format!(
                "{at}.timeoutConfiguration.timeoutInMinutes is {minutes}; expected 1 to {LONGEST}"
            ));
        }
    }
    problems
}

/// What ECS takes, and a person may not mean.
fn doubts(strategy: &str, service: &Value) -> Vec<String> {
    let mut doubts = Vec::new();
    if !["BLUE_GREEN", "LINEAR", "CANARY"].contains(&strategy) {
        doubts.push(format!(
            "strategy {strategy} is not known to this version: it is followed as ECS reports it"
        ));
    }
    let balancers = list(service, &["loadBalancers"]);
    let connected = at(service, &["serviceConnectConfiguration", "enabled"]).is_some_and(|on| on == true);
    let routed =
        !balancers.is_empty() || connected || !list(service, &["vpcLatticeConfigurations"]).is_empty();
    if matches!(strategy, "LINEAR" | "CANARY") && !routed {
        doubts.push(format!(
            "strategy {strategy} shifts requests in steps, and the service has neither a load balancer nor Service Connect that could"
        ));
    }
    let hooks = list(service, &["deploymentConfiguration", "lifecycleHooks"]);
    let tests = hooks.iter().flat_map(|hook| list(hook, &["lifecycleStages"]));
    let tests = tests.into_iter().any(|stage| stage == "POST_TEST_TRAFFIC_SHIFT");
    let listens = |balancer: &Value| {
        text(balancer, &["advancedConfiguration", "testListenerRule"]).is_some_and(|rule| !rule.is_empty())
    };
    if tests && !balancers.is_empty() && !balancers.iter().any(listens) {
        doubts.push(
            "a gate at POST_TEST_TRAFFIC_SHIFT without testListenerRule: no test request reaches the new revision there"
                .to_owned(),
        );
    }
    for hook in hooks {
        let pauses = text(hook, &["targetType"]) == Some("PAUSE");
        if pauses && text(hook, &["timeoutConfiguration", "action"]) == Some("CONTINUE") {
            doubts.push(
                "a gate of the definition has the timeout action CONTINUE: what nobody judges goes live"
                    .to_owned(),
            );
        }
    }
    doubts
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
