//! A definition from what is registered, and a part laid over another (settled facts §3.5).

use crate::documents::{arn, names};
use crate::error::bad_spec;
use executor_api::StepError;
use serde_json::{Map, Value};

/// Members of an answer that RegisterTaskDefinition does not take (facts A2.2).
const ANSWERED: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// A document to register the same definition again, with what the answer held beside that and nobody knows: it is sent
/// too, and a person should look at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cloned {
    pub(crate) document: Value,
    pub(crate) unknown: Vec<String>,
}

/// The input of RegisterTaskDefinition that makes what `answer` (of DescribeTaskDefinition with its tags) describes.
/// Nothing is lost: members that this version does not know are kept.
pub(crate) fn cloned(answer: &Value) -> Cloned {
    let described = answer.get("taskDefinition").and_then(Value::as_object);
    let mut document = Map::new();
    let mut unknown = Vec::new();
    for (name, value) in described.into_iter().flatten() {
        // Emulators answer with empty texts for what nobody wrote; RegisterTaskDefinition takes none.
        if ANSWERED.contains(&name.as_str()) || value == "" {
            continue;
        }
        if !names("TaskDefinition").any(|known| known == name) {
            unknown.push(name.clone());
        }
        document.insert(name.clone(), value.clone());
    }
    let tags = answer.get("tags").and_then(Value::as_array);
    let own =
        |tag: &&Value| tag.get("key").and_then(Value::as_str).is_some_and(|key| !key.starts_with("aws:"));
    let tags: Vec<Value> = tags.into_iter().flatten().filter(own).cloned().collect();
    if !tags.is_empty() {
        document.insert("tags".to_owned(), Value::Array(tags));
    }
    Cloned { document: Value::Object(document), unknown }
}

/// `part` laid over `base`: what is written in it goes before, member by member; containers are told apart by name, and
/// those that it does not name stay.
pub(crate) fn over(base: &Value, part: &Value) -> Value {
    let (Value::Object(base), Value::Object(part)) = (base, part) else { return part.clone() };
    let mut out = base.clone();
    for (name, value) in part {
        let laid = match (out.get(name), value) {
            (Some(Value::Array(old)), Value::Array(new)) if name == "containerDefinitions" => {
                containers(old, new)
            }
            _ => value.clone(),
        };
        out.insert(name.clone(), laid);
    }
    Value::Object(out)
}

fn name_of(container: &Value) -> Option<&str> {
    container.get("name").and_then(Value::as_str)
}

fn containers(base: &[Value], part: &[Value]) -> Value {
    let mut out = base.to_vec();
    for new in part {
        let found = out.iter_mut().find(|old| name_of(old).is_some() && name_of(old) == name_of(new));
        match found {
            Some(old) => *old = over(old, new),
            None => out.push(new.clone()),
        }
    }
    Value::Array(out)
}

/// Checks what can be told without AWS: a family, containers with names of their own and an image.
///
/// **Errors**: `ECS-015` names everything that is missing.
pub(crate) fn complete(document: &Value, place: &str) -> Result<(), StepError> {
    let mut problems = Vec::new();
    let family = document.get("family").and_then(Value::as_str).unwrap_or_default();
    if let Err(problem) = arn::family_name(family) {
        problems.push(problem);
    }
    let containers = document.get("containerDefinitions").and_then(Value::as_array);
    let containers = containers.map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        problems.push("containerDefinitions is empty; a task has at least one container".to_owned());
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        match name_of(container).filter(|name| !name.is_empty()) {
            None => problems.push(format!("containerDefinitions[{index}] has no name")),
            Some(name) if seen.contains(&name) => problems.push(format!("two containers are called {name}")),
            Some(name) => {
                seen.push(name);
                let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
                if image.trim().is_empty() {
                    problems.push(format!("container {name} has no image"));
                }
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(bad_spec("ECS-015", format!("task definition of {place}: {}", problems.join("; ")))
        .hint("write what is missing, or name a registered task definition as the base"))
}

#[cfg(test)]
mod tests {
    use super::super::normal::normal;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_clone_keeps_what_can_be_registered_and_names_what_is_new() {
        let answer = json!({"taskDefinition": {"family": "a", "revision": 3, "status": "ACTIVE", "cpu": "256",
            "containerDefinitions": [{"name": "web", "image": "a:1", "future": {"x": 1}}], "futureToo": [1],
            "taskDefinitionArn": "x", "registeredAt": 1.5, "registeredBy": "y", "requiresAttributes": [],
            "compatibilities": ["EC2"], "deregisteredAt": 1, "deleteRequestedAt": 1},
            "tags": [{"key": "team", "value": "a"}, {"key": "aws:cloudformation:stack-name", "value": "b"}]});
        let Cloned { document, unknown } = cloned(&answer);
        assert_eq!(
            document,
            json!({"family": "a", "cpu": "256", "futureToo": [1], "tags": [{"key": "team", "value": "a"}],
                "containerDefinitions": [{"name": "web", "image": "a:1", "future": {"x": 1}}]})
        );
        assert_eq!(unknown, ["futureToo"]);
    }

    #[test]
    fn a_part_goes_before_and_the_rest_stays() {
        let base = json!({"family": "a", "executionRoleArn": "r", "cpu": "512", "containerDefinitions": [
            {"name": "side", "image": "s:1"},
            {"name": "web", "image": "a:1", "cpu": 1, "environment": [{"name": "A", "value": "1"}]}]});
        let part = json!({"cpu": "256", "containerDefinitions": [
            {"name": "web", "image": "a:2", "environment": []}, {"name": "new", "image": "n:1"}]});
        assert_eq!(
            over(&base, &part),
            json!({"family": "a", "executionRoleArn": "r", "cpu": "256", "containerDefinitions": [
                {"name": "side", "image": "s:1"},
                {"name": "web", "image": "a:2", "cpu": 1, "environment": []},
                {"name": "new", "image": "n:1"}]})
        );
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let document =
            json!({"containerDefinitions": [{"image": "a"}, {"name": "a"}, {"name": "a", "image": "b"}]});
        let error = complete(&document, "service x, taskDefinition").unwrap_err();
        assert_eq!(error.code, "ECS-015");
        for wanted in [
            "the family is empty",
            "[0] has no name",
            "container a has no image",
            "two containers are called a",
        ] {
            assert!(error.what.contains(wanted), "{wanted}: {}", error.what);
        }
    }

    proptest! {
        /// Describe, register, describe: nothing that RegisterTaskDefinition takes is lost, whatever it is.
        #[test]
        fn a_clone_of_what_was_registered_is_the_same(document in super::super::normal::tests::definition()) {
            // ECS answers what it was given, with its own members beside it, and tags apart.
            let mut described = document.as_object().unwrap().clone();
            let tags = described.shift_remove("tags").unwrap();
            described.insert("revision".into(), 4.into());
            described.insert("status".into(), "ACTIVE".into());
            let answer = json!({"taskDefinition": described, "tags": tags});
            prop_assert_eq!(normal(&cloned(&answer).document), normal(&document));
        }

        #[test]
        fn a_document_over_itself_is_itself(document in super::super::normal::tests::definition()) {
            let named = |value: &Value| {
                let mut names: Vec<_> = value["containerDefinitions"].as_array().unwrap().iter().map(name_of).collect();
                names.sort();
                names.windows(2).all(|pair| pair[0] != pair[1])
            };
            prop_assume!(named(&document));
            prop_assert_eq!(over(&document, &document), document);
        }
    }
}
