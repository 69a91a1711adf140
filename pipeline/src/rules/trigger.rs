//! Rules about triggers: R14, R20, R21, R22.

use crate::fault::{Findings, Place};
use crate::model::read::Field;
use crate::yaml::{Map, Node, Value};

/// R14: a trigger that stands in its pipeline.
pub fn r14_inline_trigger(id: &str, place: &Place, path: &str, findings: &mut Findings) {
    let assumed = format!("the trigger `{id}` belongs to this pipeline and is registered with it");
    findings.notice("R14.inline-trigger", place, path, assumed);
}

/// R20: operators that Harness does not have.
pub fn r20_operator(written: &Field, findings: &mut Findings) {
    let assumed = format!("`{}` ignores `value`; blank counts as null", written.text());
    findings.notice("R20.operator", &written.at, &written.path, assumed);
}

/// R21: a bare key of a condition is a key of the body.
pub fn r21_payload_key(key: &Field, findings: &mut Findings) {
    let assumed = format!("`{0}` means `<+trigger.payload.{0}>`", key.text());
    findings.notice("R21.payload-key", &key.at, &key.path, assumed);
}

/// R22: `variables: {a: x}` in an input document is a list of `{name, type, value}`.
pub fn r22_variables_map(inputs: &mut Node, path: &str, findings: &mut Findings) {
    let Value::Map(root) = &mut inputs.value else { return };
    let Some(entry) = root.entries.iter_mut().find(|entry| entry.key == "variables") else { return };
    let Value::Map(variables) = &entry.value.value else { return };
    let list = variables.entries.iter().map(|variable| {
        let mut element = Map::default();
        element.set("name", Node::text(&variable.key, &variable.at));
        element.set("value", variable.value.clone());
        Node { value: Value::Map(element), at: variable.at.clone() }
    });
    let list = Value::List(list.collect());
    let assumed = "a map of variables is read as a list of name and value";
    findings.notice("R22.variables-map", &entry.at, &format!("{path}.variables"), assumed);
    entry.value.value = list;
}
