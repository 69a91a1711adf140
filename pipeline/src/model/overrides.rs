//! Overrides: what an environment or an infrastructure changes of the services that are deployed to it (pipeline.md
//! 4.8).

use super::read::{Field, Reader, one_of};
use super::{identity, read_variables};
use crate::fault::Findings;
use crate::yaml::{Entry, Map, Node, Value};

/// Kinds of overrides; a later one outweighs an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverrideKind {
    /// Every service in an environment.
    EnvGlobal,
    /// One service in an environment.
    EnvService,
    /// Every service on an infrastructure.
    InfraGlobal,
    /// One service on an infrastructure.
    InfraService,
}

impl OverrideKind {
    /// By what an override names beside its environment.
    fn of(service: bool, infrastructure: bool) -> Self {
        match (service, infrastructure) {
            (false, false) => OverrideKind::EnvGlobal,
            (true, false) => OverrideKind::EnvService,
            (false, true) => OverrideKind::InfraGlobal,
            (true, true) => OverrideKind::InfraService,
        }
    }

    fn name(self) -> &'static str {
        match self {
            OverrideKind::EnvGlobal => "ENV_GLOBAL_OVERRIDE",
            OverrideKind::EnvService => "ENV_SERVICE_OVERRIDE",
            OverrideKind::InfraGlobal => "INFRA_GLOBAL_OVERRIDE",
            OverrideKind::InfraService => "INFRA_SERVICE_OVERRIDE",
        }
    }
}

/// An override as read from its entity.
#[derive(Clone, Debug)]
pub struct Override {
    /// Identifier; made of what it names where none is written.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// What it applies to.
    pub kind: OverrideKind,
    /// Environment.
    pub environment: String,
    /// Service.
    pub service: Option<String>,
    /// Infrastructure.
    pub infrastructure: Option<String>,
    /// A map of `variables`, `configFiles` and `manifests`.
    pub content: Node,
}

/// Keys of a list of overriding values, as the two forms of Harness name them, and the one that a service has.
const LISTS: [(&str, &str); 4] = [
    ("variables", "variables"),
    ("variableOverrides", "variables"),
    ("configFiles", "configFiles"),
    ("manifests", "manifests"),
];

/// Reads a document with the root `overrides` or `serviceOverrides`.
pub fn read_override(root: &Node, path: &str, findings: &mut Findings) -> Option<Override> {
    let mut reader = Reader::new(root, path, findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags"]);
    let environment = reader.required("environmentRef", findings);
    let service = reader.field("serviceRef", findings);
    let mut infrastructure = None;
    for key in ["infraIdentifier", "infrastructureRef", "infrastructureIdentifier"] {
        infrastructure = reader.field(key, findings).or(infrastructure);
    }
    let kind = OverrideKind::of(service.is_some(), infrastructure.is_some());
    if let Some(written) = reader.field("type", findings) {
        let known = [
            OverrideKind::EnvGlobal,
            OverrideKind::EnvService,
            OverrideKind::InfraGlobal,
            OverrideKind::InfraService,
        ];
        let names: Vec<(&str, OverrideKind)> = known
            .iter()
            .flat_map(|kind| [(kind.name(), *kind), (kind.name().trim_end_matches("_OVERRIDE"), *kind)])
            .collect();
        if let Some(wanted) = one_of(&written, "type of override", &names, findings)
            && wanted != kind
        {
            let message = format!(
                "`{}` does not fit what the override names, which makes it {}",
                written.text(),
                kind.name()
            );
            findings.fault(&written.at, &written.path, message);
        }
    }
    let mut content = Map::default();
    if let Some(mut spec) = reader.map("spec", findings) {
        take_lists(&mut spec, &mut content, findings);
        spec.finish(findings);
    }
    take_lists(&mut reader, &mut content, findings);
    let has_identity = root.get("identifier").is_some() || root.get("name").is_some();
    let written = if has_identity { identity(&mut reader, "override", findings) } else { None };
    let environment = environment?;
    let parts = [Some(&environment), service.as_ref(), infrastructure.as_ref()];
    let made = parts.into_iter().flatten().map(Field::text).collect::<Vec<_>>().join("_");
    let (identifier, name) = match written {
        Some((identifier, name)) => (identifier, name.text()),
        None if has_identity => return None,
        None => (crate::rules::canonical(&made), made),
    };
    if content.entries.is_empty() {
        findings.fault(
            reader.at(),
            reader.path(),
            "the override holds neither `variables`, `configFiles` nor `manifests`",
        );
    }
    reader.finish(findings);
    Some(Override {
        identifier,
        name,
        kind,
        environment: environment.text(),
        service: service.map(|field| field.text()),
        infrastructure: infrastructure.map(|field| field.text()),
        content: Node { value: Value::Map(content), at: root.at.clone() },
    })
}

fn take_lists(reader: &mut Reader<'_>, content: &mut Map, findings: &mut Findings) {
    for (key, meant) in LISTS {
        let Some(node) = reader.node(key) else { continue };
        if reader.list(key, findings).is_empty() {
            continue;
        }
        content.set(meant, node.clone());
    }
    // Faults inside are told where the override is stored, not only where it is used.
    if let Some(node) = content.get("variables") {
        let value = Node {
            value: Value::Map(Map {
                entries: vec![Entry {
                    key: "variables".to_owned(),
                    at: node.at.clone(),
                    value: node.clone(),
                }],
            }),
            at: node.at.clone(),
        };
        let path = reader.path().to_owned();
        read_variables(&mut Reader::new(&value, path, findings), findings);
    }
}

/// Lays an override over a `serviceDefinition`: variables by `name`, files and manifests by `identifier`; what the
/// service does not have is added.
pub(crate) fn lay_over(definition: &mut Node, content: &Node) {
    let at = definition.at.clone();
    let Value::Map(map) = &mut definition.value else { return };
    if map.get("spec").is_none_or(Node::is_null) {
        map.set("spec", Node::empty_map(&at));
    }
    let Some(spec) = map.entries.iter_mut().find(|entry| entry.key == "spec") else { return };
    merge_lists(&mut spec.value, content);
}

/// The same for a map that holds the lists itself.
pub(crate) fn merge_lists(base: &mut Node, content: &Node) {
    let (Value::Map(base), Some(over)) = (&mut base.value, content.as_map()) else { return };
    for entry in &over.entries {
        let Some(elements) = entry.value.as_list() else { continue };
        if !matches!(base.get(&entry.key).map(|node| &node.value), Some(Value::List(_))) {
            let empty = Node { value: Value::List(Vec::new()), at: entry.value.at.clone() };
            base.set(&entry.key, empty);
        }
        let slot = base.entries.iter_mut().find(|own| own.key == entry.key);
        let Some(Value::List(own)) = slot.map(|slot| &mut slot.value.value) else { continue };
        for element in elements {
            let key = key_of(element);
            match own.iter_mut().find(|own| key.is_some() && key_of(own) == key) {
                Some(own) => *own = element.clone(),
                None => own.push(element.clone()),
            }
        }
    }
}

/// What a variable, config file or manifest is known by.
pub(crate) fn key_of(node: &Node) -> Option<&str> {
    let inner = ["configFile", "manifest"].iter().find_map(|key| node.get(key)).unwrap_or(node);
    inner.get("identifier").or_else(|| inner.get("name")).and_then(Node::as_str)
}
