//! Inputs of a run: variables, `<+input>` and its suffixes (pipeline.md 2.8).

use super::PlanOptions;
use crate::fault::{Fault, Findings, Place, did_you_mean};
use crate::model::input_rules::{Rules, is_execution_input};
use crate::model::pipeline::{Pipeline, StageNode};
use crate::model::read::{Reader, is_input};
use crate::model::{Field, Variable, VariableKind, read_variables};
use crate::yaml::{Node, Value, parse_documents};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Fills `--inputs FILE` into the places of the pipeline that ask for an input. The file has the pipeline's own shape;
/// lists are matched by `identifier` or `name`.
pub(super) fn merge_file(document: &Node, options: &PlanOptions, findings: &mut Findings) -> Node {
    let mut merged = document.clone();
    let variables = variables_of(document);
    check_rules(document, "", &variables, findings);
    let given = Given { options, variables: &variables };
    for (source, text) in options.input_sets.iter().chain(&options.inputs_file) {
        merge_text(&mut merged, source, text, &given, findings);
    }
    take_defaults(&mut merged, "");
    merged
}

/// `<+input>.default(x)` that nobody filled is `x`. Variables keep their text: an `--input` may still come for them.
fn take_defaults(node: &mut Node, path: &str) {
    match &mut node.value {
        Value::Scalar { text, plain } => {
            let rules = Rules::of(text);
            // What is asked for when its step is reached takes its default only if nobody answers there.
            if let (Some(default), false) = (rules.default, rules.execution) {
                *text = default;
                *plain = true;
            }
        }
        Value::Null => {}
        Value::List(list) => list.iter_mut().for_each(|item| take_defaults(item, path)),
        Value::Map(map) => {
            for entry in &mut map.entries {
                let path = crate::model::read::join(path, &entry.key);
                if path != "pipeline.variables" {
                    take_defaults(&mut entry.value, &path);
                }
            }
        }
    }
}

/// What the merging of inputs looks at beside the documents.
struct Given<'a> {
    options: &'a PlanOptions,
    /// Variables as written: rules of inputs may name them.
    variables: &'a [Variable],
}

fn merge_text(merged: &mut Node, source: &str, text: &str, given: &Given<'_>, findings: &mut Findings) {
    match parse_documents(source, text) {
        Err(faults) => findings.faults.extend(faults),
        Ok(documents) => {
            for document in documents {
                let inputs = document.get("inputSet").cloned().unwrap_or(document);
                let Some(mut inputs) = inputs.get("pipeline").cloned() else {
                    findings.fault(&inputs.at, "", "expected the root key `pipeline`");
                    continue;
                };
                crate::rules::r22_variables_map(&mut inputs, "pipeline", findings);
                if let Some(facts) = &given.options.trigger {
                    let now = i64::try_from(given.options.started_at).unwrap_or(i64::MAX);
                    crate::trigger::inputs::render(&mut inputs, facts, now, "pipeline", findings);
                }
                if let Some(base) = merged.as_map_mut().and_then(|map| map.get_mut("pipeline")) {
                    merge(base, &inputs, "pipeline", given, findings);
                }
            }
        }
    }
}

fn merge(base: &mut Node, inputs: &Node, path: &str, given: &Given<'_>, findings: &mut Findings) {
    match (&mut base.value, &inputs.value) {
        (Value::Map(own), Value::Map(upper)) => {
            for entry in &upper.entries {
                let path = crate::model::read::join(path, &entry.key);
                match own.entries.iter_mut().find(|own| own.key == entry.key) {
                    Some(own) => merge(&mut own.value, &entry.value, &path, given, findings),
                    // A variable without a value may be written without the key.
                    None if entry.key == "value" => own.set("value", entry.value.clone()),
                    None => ignored(&entry.at, &path, findings),
                }
            }
        }
        (Value::List(own), Value::List(upper)) => {
            for (index, element) in upper.iter().enumerate() {
                let path = format!("{path}[{index}]");
                // An element whose identifier is itself an input is meant by its place.
                let at = own
                    .iter()
                    .position(|own| same(own, element))
                    .or_else(|| own.get(index).filter(|own| is_asked_for(own)).map(|_| index));
                match at.and_then(|at| own.get_mut(at)) {
                    Some(own) => merge(own, element, &path, given, findings),
                    None => ignored(&element.at, &path, findings),
                }
            }
        }
        (Value::Scalar { text, .. }, _) if is_input(text) => {
            // The rule of the input still applies to what was given.
            if let Some(text_given) = inputs.as_str() {
                let now = i64::try_from(given.options.started_at).unwrap_or(i64::MAX);
                let value = crate::trigger::inputs::text_of(text_given, given.options.trigger.as_ref(), now);
                if let Err(message) = Rules::of(text).permit(&value, given.variables) {
                    findings.fault(&inputs.at, path, message);
                }
            }
            *base = inputs.clone();
        }
        (_, Value::Null) => {}
        (own, given) if own == given => {}
        (Value::Null, _) => *base = inputs.clone(),
        // Variables may be overridden although they have a value.
        (Value::Scalar { .. }, Value::Scalar { .. }) if path.ends_with(".value") => *base = inputs.clone(),
        (Value::Scalar { .. }, Value::Scalar { .. })
            if path.ends_with("identifier") || path.ends_with(".name") || path.ends_with(".type") => {}
        _ => ignored(&inputs.at, path, findings),
    }
}

fn ignored(at: &Place, path: &str, findings: &mut Findings) {
    findings.remark("input-ignored", at, path, "the pipeline asks for no input here; it is ignored");
}

/// Whether the identifier of a list element is a runtime input.
fn is_asked_for(node: &Node) -> bool {
    let keys = ["identifier", "name", "serviceRef", "environmentRef"];
    keys.iter().any(|key| node.get(key).and_then(Node::as_str).is_some_and(is_input))
}

/// The variables of a pipeline as written, for rules that name them.
fn variables_of(document: &Node) -> Vec<Variable> {
    let Some(pipeline) = document.get("pipeline") else { return Vec::new() };
    let mut ignored = Findings::default();
    let mut reader = Reader::new(pipeline, "pipeline", &mut ignored);
    read_variables(&mut reader, &mut ignored)
}

/// The rules of an input must make sense by themselves, whatever is given.
fn check_rules(node: &Node, path: &str, variables: &[Variable], findings: &mut Findings) {
    match &node.value {
        Value::Scalar { text, .. } if is_input(text) => {
            for (message, suggestion) in Rules::of(text).faults(variables) {
                findings.push(Fault::at(&node.at, path, message).suggest(suggestion));
            }
        }
        Value::Scalar { .. } | Value::Null => {}
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                check_rules(item, &format!("{path}[{index}]"), variables, findings);
            }
        }
        Value::Map(map) => {
            for entry in &map.entries {
                let path = crate::model::read::join(path, &entry.key);
                check_rules(&entry.value, &path, variables, findings);
            }
        }
    }
}

/// Whether two list elements mean the same: the identifier or name, maybe one level down (`stage:`, `step:`).
fn same(a: &Node, b: &Node) -> bool {
    fn key(node: &Node) -> Option<String> {
        let direct = ["identifier", "name", "serviceRef", "environmentRef"]
            .iter()
            .find_map(|key| node.get(key).and_then(Node::as_str));
        direct.map(str::to_owned).or_else(|| {
            let map = node.as_map()?;
            let [only] = map.entries.as_slice() else { return None };
            key(&only.value).map(|inner| format!("{}/{inner}", only.key))
        })
    }
    key(a).is_some() && key(a) == key(b)
}

/// Gives every variable its value: input, then what is written, then the default.
pub(super) fn fill(pipeline: &mut Pipeline, options: &PlanOptions, running: bool, findings: &mut Findings) {
    let names: Vec<String> = pipeline.variables.iter().map(|variable| variable.name.clone()).collect();
    for name in options.inputs.keys().filter(|name| !names.contains(name)) {
        let place = pipeline.name.at.clone();
        let message = format!("the pipeline has no variable `{name}` for the input");
        let fault = Fault::at(&place, "pipeline.variables", message);
        findings.push(fault.suggest(did_you_mean(name, names.iter().map(String::as_str))));
    }
    let written = pipeline.variables.clone();
    for variable in &mut pipeline.variables {
        fill_one(variable, &written, &options.inputs, running, findings);
    }
    if running {
        required_in_stages(&pipeline.stages, findings);
    }
}

/// A required variable of a stage must have a value too; inputs were filled in before.
fn required_in_stages(nodes: &[StageNode], findings: &mut Findings) {
    for node in nodes {
        let stage = match node {
            StageNode::Parallel(members) => {
                required_in_stages(members, findings);
                continue;
            }
            StageNode::Stage(stage) => stage,
        };
        for variable in stage.variables.iter().filter(|variable| variable.required) {
            let has_default = variable.default.as_ref().is_some_and(|default| !default.text().is_empty());
            if variable.value.text().is_empty() && !has_default {
                let fqn = format!("pipeline.stages.{}.variables.{}", stage.frame.identifier, variable.name);
                let message = format!("the required variable `{fqn}` has no value");
                findings.fault(&variable.value.at, &variable.value.path, message);
            }
        }
    }
}

fn fill_one(
    variable: &mut Variable,
    written_variables: &[Variable],
    inputs: &BTreeMap<String, String>,
    running: bool,
    findings: &mut Findings,
) {
    let written = variable.value.text();
    let asks = is_input(&written);
    let rules = Rules::of(&written);
    if let Some(input) = inputs.get(&variable.name) {
        if asks && let Err(message) = rules.permit(input, written_variables) {
            findings.fault(&variable.value.at, &variable.value.path, message);
        }
        variable.value.value = match variable.kind {
            VariableKind::Number => number(input).unwrap_or_else(|| {
                let message = format!("the input `{}` must be a number, found `{input}`", variable.name);
                findings.fault(&variable.value.at, &variable.value.path, message);
                Json::Null
            }),
            VariableKind::String | VariableKind::Secret => Json::String(input.clone()),
        };
        return;
    }
    let default =
        rules.default.map(Json::String).or_else(|| variable.default.as_ref().map(|d| d.value.clone()));
    let empty = variable.value.value.is_null() || written.is_empty() && variable.required;
    if asks || empty {
        match default {
            Some(default) => variable.value.value = default,
            None if running && (asks || variable.required) => {
                let message = format!(
                    "the input `{0}` is missing: `pipeline.variables.{0}` has no value",
                    variable.name
                );
                let hint = format!("give it with `--input {}=VALUE`", variable.name);
                findings
                    .push(Fault::at(&variable.value.at, &variable.value.path, message).suggest(Some(hint)));
            }
            None => {}
        }
    }
}

fn number(text: &str) -> Option<Json> {
    let text = text.trim();
    text.parse::<i64>().map(Json::from).ok().or_else(|| text.parse::<f64>().ok().map(Json::from))
}

/// Whether a field is a runtime input that nobody gave: that was told once, and checks nothing else.
pub(super) fn is_open(field: &Field) -> bool {
    field.value.as_str().is_some_and(is_input)
}

/// A runtime input elsewhere than in a variable that nobody gave.
pub(super) fn refuse_left_over(document: &Node, running: bool, findings: &mut Findings) {
    if running && let Some(pipeline) = document.get("pipeline") {
        look(pipeline, "pipeline", "pipeline", findings);
    }
}

/// `fqn` is the path as expressions write it: members of lists by their identifiers, without `stage:` and `step:`.
fn look(node: &Node, path: &str, fqn: &str, findings: &mut Findings) {
    match &node.value {
        // Asked for when its step is reached; elsewhere it was told so.
        Value::Scalar { text, .. } if is_execution_input(text) => {}
        Value::Scalar { text, .. } if is_input(text) && Rules::of(text).default.is_none() => {
            let hint = "give it with `--inputs FILE`, a YAML of the pipeline's own shape".to_owned();
            let message = format!("the runtime input `{fqn}` is missing");
            findings.push(Fault::at(&node.at, path, message).suggest(Some(hint)));
        }
        Value::Scalar { .. } | Value::Null => {}
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                match member_of(item) {
                    Some((inner, "", id)) => look(inner, &path, &format!("{fqn}.{id}"), findings),
                    Some((inner, key, id)) => {
                        look(inner, &format!("{path}.{key}"), &format!("{fqn}.{id}"), findings);
                    }
                    None => look(item, &path, &format!("{fqn}[{index}]"), findings),
                }
            }
        }
        Value::Map(map) => {
            for entry in &map.entries {
                // Variables were asked for by name; strategies, conditions and sole sources may stay open.
                let skip = matches!(
                    entry.key.as_str(),
                    "failureStrategies" | "primaryArtifactRef" | "condition" | "triggers"
                ) || entry.key == "variables" && path == "pipeline";
                if !skip {
                    let path = crate::model::read::join(path, &entry.key);
                    look(&entry.value, &path, &format!("{fqn}.{}", entry.key), findings);
                }
            }
        }
    }
}

/// A member of a list with its own identifier: the map that has it, the key it stands under, and the identifier.
pub(super) fn member_of(item: &Node) -> Option<(&Node, &str, &str)> {
    fn id(node: &Node) -> Option<&str> {
        let id = ["identifier", "name"].iter().find_map(|key| node.get(key).and_then(Node::as_str));
        id.filter(|id| !is_input(id))
    }
    if let Some(own) = id(item) {
        return Some((item, "", own));
    }
    let [only] = item.as_map()?.entries.as_slice() else { return None };
    Some((&only.value, &only.key, id(&only.value)?))
}
