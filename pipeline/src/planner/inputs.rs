//! Inputs of a run: variables, `<+input>` and its suffixes (pipeline.md 2.8).

use super::PlanOptions;
use crate::fault::{Fault, Findings, Place, did_you_mean};
use crate::model::pipeline::Pipeline;
use crate::model::{Field, Variable, VariableKind};
use crate::yaml::{Node, Value, parse_documents};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What a runtime input allows.
#[derive(Debug, Default, PartialEq)]
struct Spec {
    default: Option<String>,
    allowed: Option<Vec<String>>,
    regex: Option<String>,
}

/// Fills `--inputs FILE` into the places of the pipeline that ask for an input. The file has the pipeline's own shape;
/// lists are matched by `identifier` or `name`.
pub(super) fn merge_file(document: &Node, options: &PlanOptions, findings: &mut Findings) -> Node {
    let mut merged = document.clone();
    for (source, text) in options.input_sets.iter().chain(&options.inputs_file) {
        merge_text(&mut merged, source, text, options, findings);
    }
    take_defaults(&mut merged, "");
    merged
}

/// `<+input>.default(x)` that nobody filled is `x`. Variables keep their text: an `--input` may still come for them.
fn take_defaults(node: &mut Node, path: &str) {
    match &mut node.value {
        Value::Scalar { text, plain } => {
            if let Some(default) = parse_spec(text).default {
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

fn merge_text(merged: &mut Node, source: &str, text: &str, options: &PlanOptions, findings: &mut Findings) {
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
                if let Some(facts) = &options.trigger {
                    let now = i64::try_from(options.started_at).unwrap_or(i64::MAX);
                    crate::trigger::inputs::render(&mut inputs, facts, now, "pipeline", findings);
                }
                if let Some(base) = merged.as_map_mut().and_then(|map| map.get_mut("pipeline")) {
                    merge(base, &inputs, "pipeline", options, findings);
                }
            }
        }
    }
}

fn merge(base: &mut Node, inputs: &Node, path: &str, options: &PlanOptions, findings: &mut Findings) {
    match (&mut base.value, &inputs.value) {
        (Value::Map(own), Value::Map(given)) => {
            for entry in &given.entries {
                let path = crate::model::read::join(path, &entry.key);
                match own.entries.iter_mut().find(|own| own.key == entry.key) {
                    Some(own) => merge(&mut own.value, &entry.value, &path, options, findings),
                    // A variable without a value may be written without the key.
                    None if entry.key == "value" => own.set("value", entry.value.clone()),
                    None => ignored(&entry.at, &path, findings),
                }
            }
        }
        (Value::List(own), Value::List(given)) => {
            for (index, element) in given.iter().enumerate() {
                let path = format!("{path}[{index}]");
                // An element whose identifier is itself an input is meant by its place.
                let at = own
                    .iter()
                    .position(|own| same(own, element))
                    .or_else(|| own.get(index).filter(|own| is_asked_for(own)).map(|_| index));
                match at.and_then(|at| own.get_mut(at)) {
                    Some(own) => merge(own, element, &path, options, findings),
                    None => ignored(&element.at, &path, findings),
                }
            }
        }
        (Value::Scalar { text, .. }, _) if text.starts_with("<+input>") => {
            // The rule of the input still applies to what was given.
            if let Some(given) = inputs.as_str() {
                let field =
                    Field { value: Json::String(text.clone()), path: path.to_owned(), at: base.at.clone() };
                let now = i64::try_from(options.started_at).unwrap_or(i64::MAX);
                let given = crate::trigger::inputs::text_of(given, options.trigger.as_ref(), now);
                if let Err(message) = permitted(&field, &given) {
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
    keys.iter()
        .any(|key| node.get(key).and_then(Node::as_str).is_some_and(|text| text.starts_with("<+input>")))
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
    for variable in &mut pipeline.variables {
        fill_one(variable, &options.inputs, running, findings);
    }
}

fn fill_one(
    variable: &mut Variable,
    inputs: &BTreeMap<String, String>,
    running: bool,
    findings: &mut Findings,
) {
    let written = variable.value.text();
    let asks = written.starts_with("<+input>");
    let spec = parse_spec(&written);
    if let Some(input) = inputs.get(&variable.name) {
        if asks && let Err(message) = permitted(&variable.value, input) {
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
        spec.default.map(Json::String).or_else(|| variable.default.as_ref().map(|d| d.value.clone()));
    let empty = variable.value.value.is_null() || written.is_empty() && variable.required;
    if asks || empty {
        match default {
            Some(default) => variable.value.value = default,
            None if running && (asks || variable.required) => {
                let message = format!("the input `{}` is missing", variable.name);
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

/// Whether a given value meets the rules of the input that asks for it.
fn permitted(field: &Field, given: &str) -> Result<(), String> {
    let spec = parse_spec(&field.text());
    if let Some(allowed) = &spec.allowed
        && !allowed.iter().any(|one| one.trim() == given.trim())
    {
        return Err(format!("`{given}` is not allowed; allowed are {}", allowed.join(", ")));
    }
    if let Some(pattern) = &spec.regex {
        let whole = format!("^(?:{pattern})$");
        match regex::RegexBuilder::new(&whole).size_limit(1 << 20).build() {
            Ok(regex) if regex.is_match(given) => {}
            Ok(_) => return Err(format!("`{given}` does not match `{pattern}`")),
            Err(_) => return Err(format!("`{pattern}` is not a regular expression that can be used")),
        }
    }
    Ok(())
}

/// Reads the suffixes `.allowedValues(…)`, `.default(…)`, `.regex(…)`.
fn parse_spec(text: &str) -> Spec {
    let mut spec = Spec::default();
    let Some(mut rest) = text.strip_prefix("<+input>") else { return spec };
    while let Some(after) = rest.strip_prefix('.') {
        let Some(open) = after.find('(') else { break };
        let (name, tail) = after.split_at(open);
        let Some((body, next)) = argument(tail) else { break };
        match name {
            "default" => spec.default = Some(body.to_owned()),
            "allowedValues" | "selectOneFrom" => spec.allowed = Some(split_values(body)),
            "regex" => spec.regex = Some(body.to_owned()),
            _ => {}
        }
        rest = next;
    }
    spec
}

/// The text between `(` and its closing `)`.
fn argument(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some((text.get(1..at)?, text.get(at + 1..)?));
                }
            }
            _ => {}
        }
    }
    None
}

/// Splits at commas; `\'a,b\'` keeps its own.
fn split_values(text: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\\'") {
            quoted = !quoted;
            rest = after;
            continue;
        }
        if c == ',' && !quoted {
            values.push(std::mem::take(&mut current).trim().to_owned());
        } else {
            current.push(c);
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    values.push(current.trim().to_owned());
    values
}

/// Whether a field is a runtime input that nobody gave: that was told once, and checks nothing else.
pub(super) fn is_open(field: &Field) -> bool {
    field.value.as_str().is_some_and(|text| text.starts_with("<+input>"))
}

/// A runtime input elsewhere than in a variable that nobody gave.
pub(super) fn refuse_left_over(document: &Node, running: bool, findings: &mut Findings) {
    if running && let Some(pipeline) = document.get("pipeline") {
        look(pipeline, "pipeline", findings);
    }
}

fn look(node: &Node, path: &str, findings: &mut Findings) {
    match &node.value {
        Value::Scalar { text, .. } if text.starts_with("<+input>") && parse_spec(text).default.is_none() => {
            let hint = "give it with `--inputs FILE`, a YAML of the pipeline's own shape".to_owned();
            findings.push(Fault::at(&node.at, path, "the runtime input is missing").suggest(Some(hint)));
        }
        Value::Scalar { .. } | Value::Null => {}
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                look(item, &format!("{path}[{index}]"), findings);
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
                    look(&entry.value, &crate::model::read::join(path, &entry.key), findings);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_read_in_any_order() {
        let spec = parse_spec("<+input>.default(b).allowedValues(a,b,\\'c,d\\')");
        assert_eq!(spec.default.as_deref(), Some("b"));
        assert_eq!(spec.allowed.unwrap(), ["a", "b", "c,d"]);
        assert_eq!(parse_spec("<+input>.regex(^(a|b)$)").regex.as_deref(), Some("^(a|b)$"));
        assert_eq!(parse_spec("plain"), Spec::default());
    }
}
