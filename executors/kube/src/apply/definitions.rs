//! Namespaces and definitions that come in the same set as the objects that need them.

use crate::discovery::Discovery;
use crate::error::bad_spec;
use crate::objects::{Gvk, Object};
use crate::session::Session;
use executor_api::StepError;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a set defines itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions {
    namespaces: BTreeSet<String>,
    kinds: BTreeMap<Gvk, Defined>,
}

#[derive(Clone, Debug)]
struct Defined {
    /// Name of the CRD.
    crd: String,
    namespaced: bool,
    schema: Option<Value>,
}

impl Definitions {
    /// Of a set.
    pub(crate) fn of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Definitions {
        let mut found = Definitions::default();
        for object in objects {
            match (object.group(), object.kind()) {
                ("", "Namespace") => {
                    found.namespaces.insert(object.name().to_owned());
                }
                ("apiextensions.k8s.io", "CustomResourceDefinition") => found.add(object),
                _ => {}
            }
        }
        found
    }

    fn add(&mut self, crd: &Object) {
        let text = |path: &str| crd.at(path).and_then(Value::as_str).unwrap_or_default();
        let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
        let versions = crd.at("/spec/versions").and_then(Value::as_array).into_iter().flatten();
        for version in versions.filter(|v| v.get("served").and_then(Value::as_bool) != Some(false)) {
            let Some(name) = version.get("name").and_then(Value::as_str) else { continue };
            let gvk = Gvk { group: group.to_owned(), version: name.to_owned(), kind: kind.to_owned() };
            let defined = Defined {
                crd: crd.name().to_owned(),
                namespaced: text("/spec/scope") != "Cluster",
                schema: version.pointer("/schema/openAPIV3Schema").cloned(),
            };
            self.kinds.insert(gvk, defined);
        }
    }

    /// Whether it defines no kinds.
    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// Whether objects of this kind lie in a namespace, if the set says.
    pub(crate) fn namespaced(&self, object: &Object) -> Option<bool> {
        self.kinds.get(&object.gvk()).map(|defined| defined.namespaced)
    }

    /// What is wrong with an object whose kind is not served yet: it must be defined in the set and fit the schema.
    pub(crate) fn check(&self, session: &Session, object: &Object) -> Option<StepError> {
        if session.discovery.of(object).is_some() {
            return None;
        }
        let Some(defined) = self.kinds.get(&object.gvk()) else { return Some(session.not_served(object)) };
        let mut problems = Vec::new();
        if let Some(schema) = &defined.schema {
            fits(&object.value, schema, "", true, &mut problems);
        }
        (!problems.is_empty()).then(|| {
            let text = format!("{} ({}): {}", object.reference(), object.source, problems.join("; "));
            bad_spec("KUBE-017", text).hint(format!("correct it by the schema of {}", defined.crd))
        })
    }

    /// Kinds of the set that are not served.
    pub(crate) fn missing(&self, discovery: &Discovery) -> Vec<String> {
        self.kinds
            .iter()
            .filter(|(gvk, _)| discovery.of_gvk(gvk).is_none())
            .map(|(gvk, defined)| format!("{} ({})", defined.crd, gvk.api_version()))
            .collect()
    }

    /// The error of a definition whose names the server does not accept: waiting for it is of no use.
    pub(crate) async fn rejected(&self, session: &Session) -> Option<StepError> {
        let names: BTreeSet<&str> = self.kinds.values().map(|defined| defined.crd.as_str()).collect();
        for name in names {
            let path = format!(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
                crate::rest::encode(name)
            );
            let Ok(Some(crd)) = session.api.find::<Value>(&path).await else { continue };
            let conditions =
                crd.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            for condition in conditions {
                let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
                if text("type") == "NamesAccepted" && text("status") == "False" {
                    let text = format!("the definition {name} is not accepted: {}", text("message"));
                    return Some(
                        bad_spec("KUBE-033", text)
                            .target(session.api.target.clone())
                            .hint("another definition has taken one of its names"),
                    );
                }
            }
        }
        None
    }
}

/// Compares a value with a structural schema: types, required and unknown fields, enumerations and bounds of length.
/// The API server checks the rest when the definition is served.
fn fits(value: &Value, schema: &Value, path: &str, root: bool, problems: &mut Vec<String>) {
    let at = if path.is_empty() { "the object" } else { path };
    if value.is_null() && schema.get("nullable").and_then(Value::as_bool) == Some(true) {
        return;
    }
    if schema.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        if !value.is_string() && !value.is_i64() && !value.is_u64() {
            problems.push(format!("{at} must be a number or a text"));
        }
        return;
    }
    let wanted = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let right = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !right {
        problems.push(format!("{at} must be of type {wanted}"));
        return;
    }
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        problems.push(format!("{at} must be one of {}", allowed.join(", ")));
    }
    match value {
        Value::Object(map) => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            for name in required.filter_map(Value::as_str).filter(|name| !map.contains_key(*name)) {
                problems.push(format!("{} is required", join(path, name)));
            }
            let known = schema.get("properties").and_then(Value::as_object);
            let open =
                schema.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool) == Some(true);
            let others = schema.get("additionalProperties");
            let embedded =
                schema.get("x-kubernetes-embedded-resource").and_then(Value::as_bool) == Some(true);
            for (key, inner) in map {
                // The server knows these of every object.
                if (root || embedded) && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let path = join(path, key);
                match (known.and_then(|known| known.get(key)), others) {
                    (Some(schema), _) => fits(inner, schema, &path, false, problems),
                    (None, Some(schema)) if schema.is_object() => fits(inner, schema, &path, false, problems),
                    (None, _) if open || others == Some(&Value::Bool(true)) => {}
                    (None, _) => problems.push(format!("{path} is not a field of this kind")),
                }
            }
        }
        Value::Array(list) => {
            if let Some(schema) = schema.get("items") {
                for (number, inner) in list.iter().enumerate() {
                    fits(inner, schema, &format!("{at}[{number}]"), false, problems);
                }
            }
        }
        _ => {}
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_is_held_against_the_schema_of_its_set() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"],
            "properties": {"size": {"type": "integer"}, "mode": {"type": "string", "enum": ["a", "b"]},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "port": {"x-kubernetes-int-or-string": true}, "list": {"type": "array", "items": {"type": "string"}}}}}});
        let check = |spec: Value| {
            let mut problems = Vec::new();
            let value = json!({"apiVersion": "a/v1", "kind": "W", "metadata": {"name": "w"}, "spec": spec});
            fits(&value, &schema, "", true, &mut problems);
            problems
        };
        assert!(check(json!({"size": 1, "mode": "a", "any": {"x": [1]}, "map": {"k": "v"}, "port": "http", "list": ["x"]})).is_empty());
        assert_eq!(
            check(json!({"mode": "c", "siez": 1, "map": {"k": 1}, "list": [1], "port": true})),
            [
                "spec.size is required",
                "spec.mode must be one of \"a\", \"b\"",
                "spec.siez is not a field of this kind",
                "spec.map.k must be of type string",
                "spec.list[0] must be of type string",
                "spec.port must be a number or a text"
            ]
        );
    }
}
