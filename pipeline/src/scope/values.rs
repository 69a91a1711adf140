//! Values that a scope gives.

use crate::machine::approval::{Activity, Approval};
use crate::machine::state::Run;
use crate::model::as_text;
use crate::rules::canonical;
use expr::{Lookup, Segment, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;

pub(super) fn found(value: Value, used: usize) -> Lookup {
    Lookup::Found { value, used }
}

pub(super) fn text(text: impl AsRef<str>) -> Value {
    Value::text(text.as_ref())
}

/// Pipeline text: expressions in it are resolved when it is used.
pub(super) fn own(json: &Json) -> Value {
    Value::from_json(json, false)
}

pub(super) fn hosts(hosts: &[crate::plan::HostPlan]) -> Value {
    Value::list(hosts.iter().map(|host| Value::tainted(host.written.as_str())).collect())
}

pub(super) fn named(name: Option<&str>, known: &[(&str, &String)]) -> Lookup {
    match known.iter().find(|(known, _)| Some(*known) == name) {
        Some((_, value)) if !value.is_empty() => found(text(value), 2),
        _ => Lookup::Missing,
    }
}

/// The variable named by `path[at]`.
pub(super) fn variable(variables: &[crate::model::Variable], path: &[Segment], at: usize) -> Lookup {
    use crate::model::VariableKind;
    let Some(name) = path.get(at).and_then(Segment::name) else {
        let all = variables.iter().map(|v| (v.name.clone(), own(&v.value.value)));
        return found(Value::map(all), at);
    };
    let hit = variables.iter().find(|v| v.name == name).or_else(|| {
        let wanted = canonical(name);
        variables.iter().find(|v| canonical(&v.name) == wanted)
    });
    match hit {
        None => Lookup::Missing,
        Some(variable) if variable.value.value.is_null() => match &variable.default {
            Some(default) => found(own(&default.value), at + 1),
            None => Lookup::Missing,
        },
        Some(variable) if variable.kind == VariableKind::Secret => {
            found(secret(&variable.value.text()), at + 1)
        }
        Some(variable) if variable.kind == VariableKind::String => {
            found(own(&as_text(&variable.value.value)), at + 1)
        }
        Some(variable) => found(own(&variable.value.value), at + 1),
    }
}

/// A secret by its id. The evaluator makes the placeholder: it refuses text that only looks like one.
fn secret(id: &str) -> Value {
    let quoted = id.replace('\\', "\\\\").replace('"', "\\\"");
    Value::text(format!("<+secrets.getValue(\"{quoted}\")>"))
}

/// Outputs as a tree; everything in it came from outside. A secret output is the secret `output/NODE/NAME`, whose value
/// the manager takes from the sealed output.
pub(super) fn outputs(id: &str, run: &Run) -> Value {
    let mut root = Tree::default();
    for (path, output) in &run.outputs {
        let value = match output.secret {
            true => secret(&format!("output/{id}/{path}")),
            false => Value::from_json(&output.value, true),
        };
        // A dot separates levels only behind `outputVariables`; a variable's own name may hold dots.
        let parts: Vec<&str> = match path.strip_prefix("outputVariables.") {
            Some(name) => vec!["outputVariables", name],
            None => path.split('.').collect(),
        };
        root.insert(&parts, value);
    }
    root.into_value()
}

#[derive(Default)]
struct Tree {
    value: Option<Value>,
    children: BTreeMap<String, Tree>,
}

impl Tree {
    fn insert(&mut self, parts: &[&str], value: Value) {
        match parts.split_first() {
            None => self.value = Some(value),
            Some((first, rest)) => self.children.entry((*first).to_owned()).or_default().insert(rest, value),
        }
    }

    fn into_value(self) -> Value {
        match self.value {
            Some(value) => value,
            None => Value::map(self.children.into_iter().map(|(name, tree)| (name, tree.into_value()))),
        }
    }
}

/// What expressions may say about an approval. People wrote parts of it, so all of it is tainted.
pub(super) fn approval(asked: &Approval) -> Value {
    let activities: Vec<Json> = asked.activities.iter().map(Activity::shown).collect();
    Value::from_json(&serde_json::json!({ "approvalActivities": activities }), true)
}
