//! The input of RunTask, from what the step and its documents say. Pure.

use crate::documents::is_secret;
use crate::error::bad_spec;
use crate::task_definition::fargate;
use aws::document::{list, text, whole};
use executor_api::StepError;
use serde_json::{Map, Value, json};

/// Most tasks of one step; RunTask takes ten at once, and each is looked at.
const MOST: i64 = 1_000;

/// The request without what is set for each call (`count`, `clientToken`), and how many tasks are wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) input: Value,
    pub(crate) count: u32,
    /// What a person should look at.
    pub(crate) warnings: Vec<String>,
}

/// What goes into a request beside its document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts<'a> {
    /// Where the request stands, for messages.
    pub(crate) place: &'a str,
    /// The task definition that runs.
    pub(crate) definition: &'a Value,
    /// `overrides` of the step, in the form of TaskOverride.
    pub(crate) overrides: Option<&'a Value>,
    /// Service and network configuration of `networkFromService`.
    pub(crate) network: Option<(&'a str, &'a Value)>,
    /// Tags of this step.
    pub(crate) tags: &'a [(String, String)],
}

/// Puts the request together.
///
/// **Errors**: `ECS-073` names everything that AWS would refuse, or that would run something else than is meant.
pub(crate) fn put_together(request: &Value, parts: &Parts<'_>) -> Result<Asked, StepError> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut members = request.as_object().cloned().unwrap_or_default();
    let count = match members.shift_remove("count") {
        None => 1,
        Some(count) => match whole(&json!({"count": count}), &["count"]) {
            Some(count) if (1..=MOST).contains(&count) => u32::try_from(count).unwrap_or(1),
            _ => {
                problems.push(format!("count is {count}; expected 1 to {MOST}"));
                1
            }
        },
    };
    if let Some(own) = parts.overrides {
        let merged = merged(members.get("overrides"), own);
        members.insert("overrides".to_owned(), merged);
    }
    overrides(members.get("overrides"), parts.definition, &mut problems);
    if let Some((service, network)) = parts.network {
        if members.contains_key("networkConfiguration") {
            warnings.push(format!(
                "{}: networkConfiguration is written, so that of service {service} is not taken",
                parts.place
            ));
        } else {
            members.insert("networkConfiguration".to_owned(), network.clone());
        }
    }
    network(&members, parts.definition, &mut problems);
    let written = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    if written("launchType") && written("capacityProviderStrategy") {
        problems.push("launchType and capacityProviderStrategy exclude each other".to_owned());
    }
    let mut tags: Vec<Value> = members.get("tags").and_then(Value::as_array).cloned().unwrap_or_default();
    for (key, value) in parts.tags {
        if !tags.iter().any(|tag| text(tag, &["key"]) == Some(key)) {
            tags.push(json!({"key": key, "value": value}));
        }
    }
    if !tags.is_empty() {
        members.insert("tags".to_owned(), Value::Array(tags));
    }
    if !problems.is_empty() {
        return Err(bad_spec("ECS-073", format!("{}: {}", parts.place, problems.join("; ")))
            .hint("correct the step or its runTaskRequestDefinition; nothing was started"));
    }
    Ok(Asked { input: Value::Object(members), count, warnings })
}

/// What the step writes in short: the command and the environment of the only container.
const SHORT: [&str; 2] = ["command", "environment"];

/// The short form of a step's `overrides`, in the long one. `None`: it is long already.
pub(crate) fn long(overrides: &Value, definition: &Value) -> Result<Value, StepError> {
    let Some(members) = overrides.as_object() else { return Ok(overrides.clone()) };
    if !SHORT.iter().any(|name| members.contains_key(*name)) {
        return Ok(overrides.clone());
    }
    let mut out = members.clone();
    let mut container = Map::new();
    for name in SHORT {
        if let Some(value) = out.shift_remove(name) {
            container.insert(name.to_owned(), spelt_out(value));
        }
    }
    let containers = list(definition, &["containerDefinitions"]);
    let [only] = containers else {
        let all: Vec<&str> = containers.iter().filter_map(|c| text(c, &["name"])).collect();
        let what = format!(
            "overrides: `command` and `environment` stand for a task with one container; this one has {}",
            all.join(", ")
        );
        return Err(
            bad_spec("ECS-073", what).hint("write overrides.containerOverrides with the container's name")
        );
    };
    container.insert("name".to_owned(), text(only, &["name"]).unwrap_or_default().into());
    let short = json!({"containerOverrides": [container]});
    Ok(merged(Some(&Value::Object(out)), &short))
}

/// A map of variables as the list that AWS takes.
fn spelt_out(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => json!({"name": name, "value": text}),
                other => json!({"name": name, "value": other.to_string()}),
            })
            .collect(),
        // A command in one text is a shell's; AWS takes words.
        Value::String(text) => json!(["sh", "-c", text]),
        other => other,
    }
}

/// `own` over `base`: containers are told apart by name, variables of a container too.
fn merged(base: Option<&Value>, own: &Value) -> Value {
    let (Some(Value::Object(base)), Value::Object(own)) = (base, own) else { return own.clone() };
    let mut out = base.clone();
    for (name, value) in own {
        let laid = match (out.get(name), value) {
            (Some(Value::Array(old)), Value::Array(new))
                if matches!(name.as_str(), "containerOverrides" | "environment") =>
            {
                let mut all = old.clone();
                for item in new {
                    let same = |other: &&mut Value| {
                        text(item, &["name"]).is_some() && text(other, &["name"]) == text(item, &["name"])
                    };
                    match all.iter_mut().find(same) {
                        Some(old) => *old = merged(Some(old), item),
                        None => all.push(item.clone()),
                    }
                }
                Value::Array(all)
            }
            _ => value.clone(),
        };
        out.insert(name.clone(), laid);
    }
    Value::Object(out)
}

/// AWS refuses overrides of a container that the task has not, with a text that does not name those that it has.
fn overrides(overrides: Option<&Value>, definition: &Value, problems: &mut Vec<String>) {
    let Some(overrides) = overrides else { return };
    let known: Vec<&str> =
        list(definition, &["containerDefinitions"]).iter().filter_map(|c| text(c, &["name"])).collect();
    for (index, container) in list(overrides, &["containerOverrides"]).iter().enumerate() {
        match text(container, &["name"]) {
            Some(name) if known.contains(&name) || is_secret(name) => {}
            Some(name) => problems.push(format!(
                "overrides.containerOverrides[{index}].name is `{name}`; the task has {}",
                known.join(", ")
            )),
            None => problems.push(format!(
                "overrides.containerOverrides[{index}].name is missing; the task has {}",
                known.join(", ")
            )),
        }
    }
    if !overrides.is_object() {
        problems.push("overrides is no map".to_owned());
    }
}

fn network(members: &Map<String, Value>, definition: &Value, problems: &mut Vec<String>) {
    let awsvpc = text(definition, &["networkMode"]) == Some("awsvpc");
    let fargate = members.get("launchType").and_then(Value::as_str) == Some("FARGATE");
    let written = members.get("networkConfiguration").and_then(|network| network.get("awsvpcConfiguration"));
    let subnets = written.map_or(0, |network| list(network, &["subnets"]).len());
    if awsvpc && subnets == 0 {
        problems.push("networkConfiguration.awsvpcConfiguration.subnets is missing; a task of network mode awsvpc needs it (or `networkFromService: NAME` in the step)".to_owned());
    }
    if !awsvpc && written.is_some() {
        let mode = text(definition, &["networkMode"]).unwrap_or("bridge");
        problems.push(format!("networkConfiguration is for network mode awsvpc; the task has {mode}"));
    }
    if fargate && !fargate::wanted(definition) && !awsvpc {
        problems.push("launchType is FARGATE; the task definition's network mode is not awsvpc".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({"family": "job", "networkMode": "awsvpc", "containerDefinitions": [{"name": "app"}, {"name": "side"}]})
    }

    fn network() -> Value {
        json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}})
    }

    #[test]
    fn overrides_of_the_step_go_before_those_of_the_request_container_by_container() {
        let request = json!({"count": "12", "networkConfiguration": network(), "overrides": {"cpu": "512", "containerOverrides": [
            {"name": "app", "command": ["a"], "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}]}});
        let own = json!({"containerOverrides": [
            {"name": "side", "command": ["s"]}, {"name": "app", "environment": [{"name": "B", "value": "2"}]}]});
        let definition = definition();
        let parts =
            Parts { place: "the step", definition: &definition, overrides: Some(&own), ..Parts::default() };
        let asked = put_together(&request, &parts).unwrap();
        assert_eq!(asked.count, 12);
        assert_eq!(
            asked.input["overrides"],
            json!({"cpu": "512", "containerOverrides": [
                {"name": "app", "command": ["a"], "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "side", "command": ["s"]}]})
        );
        assert!(asked.input.get("count").is_none());
    }

    #[test]
    fn everything_that_cannot_be_is_told_at_once() {
        let request = json!({"count": 0, "launchType": "FARGATE", "capacityProviderStrategy": [],
            "overrides": {"containerOverrides": [{"name": "web"}, {"command": ["x"]}]}});
        let definition = definition();
        let parts = Parts { place: "the step", definition: &definition, ..Parts::default() };
        let error = put_together(&request, &parts).unwrap_err();
        assert_eq!(error.code, "ECS-073");
        for part in [
            "count is 0",
            "containerOverrides[0].name is `web`; the task has app, side",
            "containerOverrides[1].name is missing",
            "awsvpcConfiguration.subnets is missing",
            "exclude each other",
        ] {
            assert!(error.what.contains(part), "{part}: {}", error.what);
        }
    }

    #[test]
    fn the_network_of_a_service_is_taken_unless_the_request_has_one() {
        let (definition, of_service) = (definition(), network());
        let parts = Parts {
            place: "the step",
            definition: &definition,
            network: Some(("web", &of_service)),
            tags: &[("team".into(), "mine".into()), ("delegate:execution".into(), "e".into())],
            ..Parts::default()
        };
        let asked = put_together(&json!({"tags": [{"key": "team", "value": "a"}]}), &parts).unwrap();
        assert_eq!(asked.input["networkConfiguration"], of_service);
        assert_eq!(
            asked.input["tags"],
            json!([{"key": "team", "value": "a"}, {"key": "delegate:execution", "value": "e"}])
        );
        let own = json!({"awsvpcConfiguration": {"subnets": ["subnet-2"]}});
        let asked = put_together(&json!({"networkConfiguration": own}), &parts).unwrap();
        assert_eq!((asked.input["networkConfiguration"].clone(), asked.warnings.len()), (own, 1));
    }

    #[test]
    fn a_command_and_variables_are_those_of_the_only_container() {
        let one = json!({"containerDefinitions": [{"name": "app"}]});
        let short =
            json!({"command": "migrate && echo done", "environment": {"A": 1, "B": "x"}, "cpu": "512"});
        assert_eq!(
            long(&short, &one).unwrap(),
            json!({"cpu": "512", "containerOverrides": [{"command": ["sh", "-c", "migrate && echo done"],
                "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "x"}], "name": "app"}]})
        );
        let error = long(&short, &definition()).unwrap_err();
        assert!(error.what.contains("app, side"), "{}", error.what);
        let written = json!({"containerOverrides": []});
        assert_eq!(long(&written, &one).unwrap(), written);
    }
}
