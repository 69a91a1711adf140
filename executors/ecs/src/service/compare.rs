//! Whether a service has what a document asks for.
//!
//! ECS answers with more than it was given: defaults, and lists in an order of its own. A member that nobody wrote is
//! unchanged; an empty list is an order to remove (facts A3).

use serde_json::Value;

/// Whether `live` has everything that `wanted` says about the member `name`.
pub(crate) fn covers(name: &str, live: Option<&Value>, wanted: &Value) -> bool {
    match wanted {
        Value::Null => true,
        Value::Object(members) => {
            let live = live.and_then(Value::as_object);
            members
                .iter()
                .all(|(member, value)| covers(member, live.and_then(|live| live.get(member)), value))
        }
        Value::Array(items) => {
            let live = live.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if items.len() != live.len() {
                return false;
            }
            if ordered(name) {
                return items.iter().zip(live).all(|(wanted, live)| covers("", Some(live), wanted));
            }
            let mut free: Vec<&Value> = live.iter().collect();
            items.iter().all(|wanted| {
                let at = free.iter().position(|live| covers("", Some(live), wanted));
                at.map(|at| free.swap_remove(at)).is_some()
            })
        }
        wanted => live
            .filter(|live| !live.is_null())
            .map_or_else(|| is_default(name, wanted), |live| same(name, live, wanted)),
    }
}

/// Whether the two say the same about the member `name`.
pub(crate) fn equal(name: &str, one: Option<&Value>, other: Option<&Value>) -> bool {
    covers(name, one, other.unwrap_or(&Value::Null)) && covers(name, other, one.unwrap_or(&Value::Null))
}

fn same(name: &str, live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Number(live), Value::Number(wanted)) => live.as_f64() == wanted.as_f64(),
        (Value::String(live), Value::String(wanted)) => spelling(name, live) == spelling(name, wanted),
        (live, wanted) => live == wanted,
    }
}

/// Of two spellings ECS keeps one.
fn spelling<'a>(name: &str, text: &'a str) -> &'a str {
    if name == "field" && text == "host" { "instanceId" } else { text }
}

fn ordered(list: &str) -> bool {
    matches!(list, "placementStrategy" | "lifecycleHooks" | "command")
}

/// What ECS does when the member is not written.
fn is_default(name: &str, value: &Value) -> bool {
    let is = |wanted: &str| value == wanted;
    match name {
        "assignPublicIp" => is("DISABLED"),
        "propagateTags" => is("NONE"),
        "schedulingStrategy" => is("REPLICA"),
        "type" => is("ECS"),
        "strategy" => is("ROLLING"),
        "maximumPercent" => value == 200,
        "minimumHealthyPercent" => value == 100,
        "resetOnHealthyTask" => value == true,
        "weight" | "base" | "bakeTimeInMinutes" | "healthCheckGracePeriodSeconds" => value == 0,
        _ => value == false || is(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn defaults_and_order_are_no_difference() {
        let live = json!({"awsvpcConfiguration": {"subnets": ["b", "a"], "securityGroups": ["s"], "assignPublicIp": "DISABLED"}});
        let wanted = json!({"awsvpcConfiguration": {"subnets": ["a", "b"], "securityGroups": ["s"]}});
        assert!(equal("networkConfiguration", Some(&live), Some(&wanted)));
        let live = json!({"maximumPercent": 200, "minimumHealthyPercent": 100, "strategy": "ROLLING",
            "deploymentCircuitBreaker": {"enable": false, "rollback": false}, "alarms": {"alarmNames": [], "enable": false, "rollback": false}});
        assert!(equal("deploymentConfiguration", Some(&live), Some(&json!({}))));
        assert!(equal("deploymentConfiguration", Some(&live), None));
        assert!(equal(
            "placementStrategy",
            Some(&json!([{"type": "spread", "field": "instanceId"}])),
            Some(&json!([{"type": "spread", "field": "host"}]))
        ));
    }

    #[test]
    fn what_is_not_written_is_unchanged_and_an_empty_list_removes() {
        let live = json!([{"targetGroupArn": "t", "containerName": "web", "containerPort": 80}]);
        assert!(!covers("loadBalancers", Some(&live), &json!([])));
        assert!(covers("loadBalancers", None, &json!([])));
        assert!(covers("loadBalancers", Some(&live), &live));
        assert!(!covers(
            "loadBalancers",
            Some(&live),
            &json!([{"targetGroupArn": "t", "containerName": "web", "containerPort": 81}])
        ));
        let live =
            json!({"maximumPercent": 150, "deploymentCircuitBreaker": {"enable": true, "rollback": true}});
        assert!(covers("deploymentConfiguration", Some(&live), &json!({"maximumPercent": 150})));
        assert!(!equal("deploymentConfiguration", Some(&live), Some(&json!({"maximumPercent": 150}))));
        assert!(!covers("enableExecuteCommand", None, &json!(true)));
        assert!(!covers(
            "placementStrategy",
            Some(&json!([{"type": "a"}, {"type": "b"}])),
            &json!([{"type": "b"}, {"type": "a"}])
        ));
    }

    proptest! {
        #[test]
        fn a_value_equals_itself_in_any_order(items in prop::collection::vec(0..5i32, 0..5), seed in any::<prop::sample::Index>()) {
            let one = json!({"subnets": items});
            let mut turned = items.clone();
            if !turned.is_empty() { let by = seed.index(turned.len()); turned.rotate_left(by); }
            let turned = json!({"subnets": turned});
            prop_assert!(equal("x", Some(&one), Some(&turned)));
            let mut more = items;
            more.push(9);
            let more = json!({"subnets": more});
            prop_assert!(!equal("x", Some(&one), Some(&more)));
        }
    }
}
