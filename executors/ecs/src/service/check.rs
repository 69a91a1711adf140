//! What is wrong with a service definition, told before anything is changed.

use crate::error::bad_spec;
use crate::task_definition::images;
use executor_api::StepError;
use serde_json::Value;

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    aws::document::text(value, path).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    aws::document::list(value, &[name])
}

/// The name of the service that a document describes.
///
/// **Errors**: `ECS-015`: it names none, or one that ECS does not take.
pub(crate) fn name<'a>(document: &'a Value, place: &str) -> Result<&'a str, StepError> {
    let name = text(document, &["serviceName"]).trim();
    let wrong = |what: String| Err(bad_spec("ECS-015", format!("{place}: serviceName {what}")));
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match name {
        "" => wrong("is not written; it names the service that is deployed".to_owned()),
        _ if name.len() > 255 => wrong(format!("has {} characters; at most 255", name.len())),
        _ if !name.chars().all(fits) => wrong(format!("is `{name}`; expected letters, digits, `-` and `_`")),
        name => Ok(name),
    }
}

/// Whether the service runs on Fargate.
pub(crate) fn on_fargate(document: &Value) -> bool {
    let providers = list(document, "capacityProviderStrategy");
    text(document, &["launchType"]) == "FARGATE"
        || providers.iter().any(|item| text(item, &["capacityProvider"]).starts_with("FARGATE"))
}

/// Everything in a service definition that contradicts itself, or the task definition that the service is to run.
///
/// **Errors**: `ECS-021` names all of it.
pub(crate) fn consistent(document: &Value, task_definition: &Value, place: &str) -> Result<(), StepError> {
    let problems = problems(document, task_definition);
    if problems.is_empty() {
        return Ok(());
    }
    Err(bad_spec("ECS-021", format!("{place}: {}", problems.join("; ")))
        .hint("correct the service definition or the task definition; nothing was changed"))
}

fn problems(document: &Value, task_definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let launch = text(document, &["launchType"]);
    if !launch.is_empty() && !list(document, "capacityProviderStrategy").is_empty() {
        found.push(format!("launchType ({launch}) and capacityProviderStrategy exclude each other"));
    }
    let mode = text(task_definition, &["networkMode"]);
    let network = document.get("networkConfiguration").is_some_and(|network| !network.is_null());
    if mode == "awsvpc" && !network {
        found.push(
            "networkConfiguration is not written; tasks with networkMode awsvpc need subnets".to_owned(),
        );
    }
    if mode != "awsvpc" && network {
        let mode = if mode.is_empty() { "bridge" } else { mode };
        found.push(format!("networkConfiguration is for networkMode awsvpc; the task definition has {mode}"));
    }
    if !text(document, &["role"]).is_empty() && mode == "awsvpc" {
        found.push("role cannot be given when the tasks have networkMode awsvpc".to_owned());
    }
    let images = images::of(task_definition);
    let names: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
    for (member, at) in [("loadBalancers", "loadBalancers"), ("serviceRegistries", "serviceRegistries")] {
        for (index, item) in list(document, member).iter().enumerate() {
            let container = text(item, &["containerName"]);
            if container.is_empty() {
                continue;
            }
            let at = format!("{at}[{index}]");
            if !names.contains(&container) {
                let listed = names.join(", ");
                found.push(format!("{at} names container `{container}`; the task definition has {listed}"));
                continue;
            }
            let port = aws::document::whole(item, &["containerPort"]);
            if let Some(port) = port.filter(|port| !maps(task_definition, container, *port)) {
                found.push(format!("{at} names port {port} of container {container}, which it does not map"));
            }
        }
    }
    if text(document, &["schedulingStrategy"]) == "DAEMON" && on_fargate(document) {
        found.push("schedulingStrategy DAEMON has no meaning on Fargate".to_owned());
    }
    found
}

fn maps(task_definition: &Value, container: &str, port: i64) -> bool {
    let containers = list(task_definition, "containerDefinitions").iter();
    let mut mapped = containers
        .filter(|item| text(item, &["name"]) == container)
        .flat_map(|item| list(item, "portMappings"));
    mapped.any(|item| match text(item, &["containerPortRange"]).split_once('-') {
        Some((from, to)) => {
            let read = |text: &str| text.trim().parse::<i64>().ok();
            read(from).zip(read(to)).is_some_and(|(from, to)| (from..=to).contains(&port))
        }
        None => aws::document::whole(item, &["containerPort"]) == Some(port),
    })
}

/// Refuses services that somebody else deploys.
///
/// **Errors**: `ECS-019`: the service, or the document, has the controller CODE_DEPLOY or EXTERNAL.
pub(crate) fn controlled_by_ecs(name: &str, service: &Value) -> Result<(), StepError> {
    let controller = text(service, &["deploymentController", "type"]);
    if matches!(controller, "" | "ECS") {
        return Ok(());
    }
    let (who, hint) = match controller {
        "CODE_DEPLOY" => (
            "CodeDeploy deploys it, and ECS takes no new task definition for it from anybody else",
            "deploy it with CodeDeploy, or make the service anew with the deployment controller ECS",
        ),
        _ => (
            "its task sets are managed from outside",
            "deploy it with whatever manages its task sets, or make the service anew with the deployment controller ECS",
        ),
    };
    let what =
        format!("service {name} has the deployment controller {controller}: {who}; nothing was changed");
    Err(bad_spec("ECS-019", what).hint(hint))
}

/// What is to be known when a service goes from a strategy that shifts requests back to ROLLING: ECS has rolled such deployments
/// back for hooks that failed, and leaves the listener rules where the last shift put them (facts A14.6, D1 #24). Hooks that the
/// definition does not mention are taken out of it, because an update would leave them.
///
/// **Returns** the warning; `None` when it does not go back.
pub(crate) fn back_to_rolling(name: &str, live: &Value, wanted: &mut Value) -> Option<String> {
    let path = ["deploymentConfiguration", "strategy"];
    let (from, to) = (text(live, &path), text(wanted, &path));
    if matches!(from, "" | "ROLLING") || to != "ROLLING" {
        return None;
    }
    let warning = format!(
        "service {name} goes back from {from} to ROLLING: ECS has rolled such deployments back before, and leaves the listener rules as \
         they are; look afterwards whether they send to the target groups of the definition"
    );
    let hooks = live.pointer("/deploymentConfiguration/lifecycleHooks").and_then(Value::as_array);
    if hooks.is_some_and(|hooks| !hooks.is_empty())
        && let Some(written) = wanted.get_mut("deploymentConfiguration").and_then(Value::as_object_mut)
    {
        written.entry("lifecycleHooks").or_insert_with(|| Value::Array(Vec::new()));
    }
    Some(warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tasks(mode: &str) -> Value {
        json!({"networkMode": mode, "containerDefinitions": [
            {"name": "web", "image": "a", "portMappings": [{"containerPort": 8080}, {"containerPortRange": "9000-9010"}]},
            {"name": "side", "image": "b"}]})
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(name(&json!({"serviceName": " web "}), "x").unwrap(), "web");
        for (document, wanted) in [
            (json!({}), "is not written"),
            (json!({"serviceName": "a b"}), "is `a b`"),
            (json!({"serviceName": "a".repeat(256)}), "256 characters"),
        ] {
            let error = name(&document, "service x").unwrap_err();
            assert!(error.code == "ECS-015" && error.what.contains(wanted), "{}", error.what);
        }
    }

    #[test]
    fn contradictions_are_named_together() {
        let sound = json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["a"]}}, "launchType": "FARGATE",
            "loadBalancers": [{"containerName": "web", "containerPort": 8080}, {"containerName": "web", "containerPort": 9005}]});
        assert_eq!(problems(&sound, &tasks("awsvpc")), Vec::<String>::new());
        let document = json!({"launchType": "FARGATE", "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}],
            "role": "r", "schedulingStrategy": "DAEMON",
            "loadBalancers": [{"containerName": "wbe", "containerPort": 1}, {"containerName": "web", "containerPort": 81}],
            "serviceRegistries": [{"registryArn": "x"}]});
        let error = consistent(&document, &tasks("awsvpc"), "service x").unwrap_err();
        for wanted in [
            "exclude each other",
            "need subnets",
            "role cannot",
            "`wbe`; the task definition has web, side",
            "port 81 of container web",
            "DAEMON",
        ] {
            assert!(error.what.contains(wanted), "{wanted}: {}", error.what);
        }
        let bridge = problems(&json!({"networkConfiguration": {}}), &tasks(""));
        assert_eq!(
            bridge,
            ["networkConfiguration is for networkMode awsvpc; the task definition has bridge"]
        );
    }

    #[test]
    fn services_of_others_are_refused() {
        let service = |kind: &str| json!({"deploymentController": {"type": kind}});
        assert!(
            controlled_by_ecs("web", &service("ECS")).is_ok() && controlled_by_ecs("web", &json!({})).is_ok()
        );
        for kind in ["CODE_DEPLOY", "EXTERNAL"] {
            let error = controlled_by_ecs("web", &service(kind)).unwrap_err();
            assert!(error.code == "ECS-019" && error.what.contains(kind), "{}", error.what);
        }
    }

    #[test]
    fn only_the_way_back_to_rolling_is_warned_of_and_loses_its_hooks() {
        let with = |strategy: &str| json!({"deploymentConfiguration": {"strategy": strategy}});
        let mut gated = with("BLUE_GREEN");
        gated["deploymentConfiguration"]["lifecycleHooks"] = json!([{"targetType": "PAUSE"}]);
        for (live, hooks) in [(&gated, json!([])), (&with("BLUE_GREEN"), Value::Null)] {
            let mut wanted = with("ROLLING");
            let warning = back_to_rolling("web", live, &mut wanted).unwrap();
            assert!(warning.contains("service web goes back from BLUE_GREEN to ROLLING"), "{warning}");
            assert_eq!(wanted["deploymentConfiguration"]["lifecycleHooks"], hooks);
        }
        for (live, wanted) in [
            (gated.clone(), json!({})),
            (gated.clone(), with("CANARY")),
            (with("ROLLING"), with("CANARY")),
            (json!({}), with("ROLLING")),
        ] {
            let mut same = wanted.clone();
            assert_eq!((back_to_rolling("web", &live, &mut same), same), (None, wanted));
        }
    }
}
