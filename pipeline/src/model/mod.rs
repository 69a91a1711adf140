//! Pipelines and entities as types, read from YAML trees with every fault collected.
//!
//! Values that may hold expressions stay [`Field`]s: the planner resolves what must be known before a run, the machine
//! resolves the rest when a step starts.

pub mod connector;
pub mod connector_aws;
pub mod connector_k8s;
pub mod duration;
pub mod ecs;
pub mod env_group;
pub mod failure;
pub mod infrastructure;
pub(crate) mod input_rules;
pub mod looping;
pub mod manifest;
pub mod monitored_service;
pub mod overrides;
pub mod pipeline;
pub mod policy;
pub mod read;
pub mod secret;
pub mod service;
pub mod step;
pub mod step_approval;
mod step_command;
mod step_http;
pub mod step_k8s;
mod step_list;
mod step_policy;
mod step_shell;
mod targets;
mod use_from;
pub mod user_group;

pub use read::Field;

use crate::fault::Findings;
use crate::rules;
use crate::yaml::Node;
use read::Reader;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A variable of a pipeline, stage, service or environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: VariableKind,
    /// Value as written; `Null` when none was written.
    pub value: Field,
    /// Used when no value and no input came.
    pub default: Option<Field>,
    /// Whether a run without a value is refused.
    pub required: bool,
}

/// Kinds of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VariableKind {
    /// Text.
    String,
    /// A number.
    Number,
    /// The value is the id of a secret.
    Secret,
}

/// Reads a `variables` list.
pub fn read_variables(reader: &mut Reader<'_>, findings: &mut Findings) -> Vec<Variable> {
    let path = reader.sub("variables");
    let mut variables: Vec<Variable> = Vec::new();
    for (index, node) in reader.list("variables", findings).iter().enumerate() {
        let Some(variable) = read_variable(node, &format!("{path}[{index}]"), findings) else { continue };
        if variables.iter().any(|other| other.name == variable.name) {
            let message = format!("the variable `{}` is declared twice", variable.name);
            findings.fault(&node.at, &format!("{path}[{index}]"), message);
            continue;
        }
        variables.push(variable);
    }
    variables
}

fn read_variable(node: &Node, path: &str, findings: &mut Findings) -> Option<Variable> {
    let mut reader = Reader::new(node, path, findings);
    reader.known(&["description"]);
    let name = reader.required("name", findings);
    let kind = match reader.field("type", findings) {
        Some(kind) => read::one_of(
            &kind,
            "variable type",
            &[
                ("String", VariableKind::String),
                ("Number", VariableKind::Number),
                ("Secret", VariableKind::Secret),
            ],
            findings,
        )?,
        None => VariableKind::String,
    };
    let value = reader.any("value").unwrap_or_else(|| Field {
        value: serde_json::Value::Null,
        path: path.to_owned(),
        at: node.at.clone(),
    });
    let default = reader.any("default");
    let required = reader.flag("required", findings).unwrap_or(false);
    reader.finish(findings);
    Some(Variable { name: name?.text(), kind, value, default, required })
}

/// Numbers and booleans that stand where text is meant.
pub(crate) fn as_text(json: &Json) -> Json {
    match json {
        Json::Number(number) => Json::String(number.to_string()),
        Json::Bool(truth) => Json::String(truth.to_string()),
        other => other.clone(),
    }
}

/// The scope of an organisation and a project, either of which may be empty: `org/project`, `org` or empty.
pub fn scope_name(org: &str, project: &str) -> String {
    match (org, project) {
        ("", "") => String::new(),
        (org, "") => org.to_owned(),
        (org, project) => format!("{org}/{project}"),
    }
}

/// `org/project`, `org` or empty.
pub fn scope_of(root: &Node) -> String {
    let text = |key: &str| root.get(key).and_then(Node::as_str).unwrap_or_default();
    scope_name(text("orgIdentifier"), text("projectIdentifier"))
}

/// The identifier and name of anything: a missing identifier is taken from the name (rule R1) and the other way round.
pub(crate) fn identity(
    reader: &mut Reader<'_>,
    what: &str,
    findings: &mut Findings,
) -> Option<(String, Field)> {
    let identifier = reader.field("identifier", findings);
    let name = reader.field("name", findings);
    match (identifier, name) {
        (Some(identifier), name) => {
            let id = identifier.text();
            rules::r1_identifier(&id, &identifier, findings);
            Some((id, name.unwrap_or(identifier)))
        }
        (None, Some(name)) => {
            let id = name.text();
            rules::r1_identifier_from_name(&id, &name, what, findings);
            Some((id, name))
        }
        (None, None) => {
            findings.fault(
                reader.at(),
                reader.path(),
                format!("the {what} has neither `identifier` nor `name`"),
            );
            None
        }
    }
}
