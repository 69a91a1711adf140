//! Inputs that are asked for while a run is under way: `<+input>.executionInput()` in the `spec` of a step and in the
//! variables of a stage.

use super::inputs::member_of;
use crate::fault::{Findings, Place};
use crate::model::input_rules::{each_input, is_execution_input};
use crate::model::read::join;
use crate::plan::{InputAsk, NodeKind, Plan};
use crate::yaml::{Node, Value};
use std::collections::BTreeSet;

/// One of them as it stands in the document.
struct Written<'a> {
    at: &'a Place,
    path: String,
    /// Path in its step or stage, with members of lists by their names; `None`: nobody can be asked for it.
    name: Option<String>,
}

/// Where a walk through the document is.
#[derive(Clone)]
enum Spot {
    /// Where everything must be known before the run.
    Outside,
    /// Directly in a step: only its `spec` is resolved when it starts.
    Step,
    /// Directly in a stage: only its `variables` are used when it has started.
    Stage,
    /// At this path in a step or stage.
    Inside(String),
}

/// Notes what each step asks for, and refuses what no step can ask for.
pub(super) fn find(plan: &mut Plan, document: &Node, findings: &mut Findings) {
    let mut written = Vec::new();
    if let Some(pipeline) = document.get("pipeline") {
        look(pipeline, "pipeline".to_owned(), &Spot::Outside, &mut written);
    }
    if written.is_empty() {
        return;
    }
    let mut asked = BTreeSet::new();
    for node in &mut plan.nodes {
        let document = match &node.kind {
            NodeKind::Step { spec, .. } => serde_json::to_value(&**spec),
            NodeKind::Stage(stage) => serde_json::to_value(
                stage.variables.iter().map(|variable| &variable.value).collect::<Vec<_>>(),
            ),
            _ => continue,
        };
        let Ok(mut document) = document else { continue };
        let mut asks: Vec<InputAsk> = Vec::new();
        each_input(&mut document, &mut |path, at, value| {
            let Some(text) = value.as_str().filter(|text| is_execution_input(text)) else { return };
            let hit = written.iter().position(|one| one.path == path || Some(one.at) == at);
            let name = hit.and_then(|hit| written.get(hit)).and_then(|one| one.name.clone());
            asked.extend(hit);
            let name = name.unwrap_or_else(|| path.rsplit(".step.").next().unwrap_or(path).to_owned());
            if asks.iter().all(|other| other.path != path) {
                asks.push(InputAsk { name, path: path.to_owned(), text: text.to_owned() });
            }
        });
        node.asks = asks;
    }
    // A step that could not be read was told about; what it asks for would only be told twice.
    let unread = !findings.faults.is_empty();
    let left = written.iter().enumerate().filter(|(index, _)| !asked.contains(index));
    for (_, one) in left {
        if unread && one.name.is_some() {
            continue;
        }
        let message = "`executionInput()` is possible only in the `spec` of a step and in the variables of a stage; this value must be known before the run";
        findings.fault(one.at, &one.path, message);
    }
}

fn look<'a>(node: &'a Node, path: String, spot: &Spot, written: &mut Vec<Written<'a>>) {
    match &node.value {
        Value::Scalar { text, .. } if is_execution_input(text) => {
            // The value of a named member is called by the member's own name.
            let name = match spot {
                Spot::Inside(name) => {
                    let name = name.strip_prefix("spec.").unwrap_or(name);
                    Some(name.strip_suffix(".value").unwrap_or(name).to_owned())
                }
                Spot::Outside | Spot::Step | Spot::Stage => None,
            };
            written.push(Written { at: &node.at, path, name });
        }
        Value::Scalar { .. } | Value::Null => {}
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let spot = match (spot, member_of(item)) {
                    (Spot::Inside(name), Some((_, _, id))) => Spot::Inside(format!("{name}.{id}")),
                    (Spot::Inside(name), None) => Spot::Inside(format!("{name}[{index}]")),
                    (other, _) => other.clone(),
                };
                look(item, path, &spot, written);
            }
        }
        Value::Map(map) => {
            for entry in &map.entries {
                let path = join(&path, &entry.key);
                // Variables of the pipeline are asked for by name before the run.
                if path == "pipeline.variables" || path == "pipeline.triggers" {
                    continue;
                }
                let spot = match (spot, entry.key.as_str()) {
                    (Spot::Outside, "step") => Spot::Step,
                    (Spot::Outside, "stage") => Spot::Stage,
                    (Spot::Step, key @ "spec") | (Spot::Stage, key @ "variables") => {
                        Spot::Inside(key.to_owned())
                    }
                    (Spot::Outside | Spot::Step | Spot::Stage, _) => Spot::Outside,
                    (Spot::Inside(name), key) => Spot::Inside(join(name, key)),
                };
                look(&entry.value, path, &spot, written);
            }
        }
    }
}
