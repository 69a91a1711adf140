//! What a service of type ECS says: its task definition, its service, and how it scales.

use super::run_task::is_store;
use super::{Document, TaskDefinition};
use crate::fault::{Fault, Findings, did_you_mean};
use crate::model::manifest::{ManifestStore, read_store, store_fields};
use crate::model::read::{Field, Reader};
use crate::rules;
use crate::yaml::Node;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The definitions of a service of type ECS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EcsService {
    /// Input of RegisterTaskDefinition, an ARN, or both.
    pub task: Option<TaskDefinition>,
    /// Input of CreateService.
    pub service: Option<Document>,
    /// Inputs of RegisterScalableTarget.
    pub scalable_targets: Vec<Document>,
    /// Inputs of PutScalingPolicy.
    pub scaling_policies: Vec<Document>,
}

impl EcsService {
    /// Its documents in the order of their weight.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        let task = self.task.iter().filter_map(|task| task.document.as_ref());
        task.chain(&self.service).chain(&self.scalable_targets).chain(&self.scaling_policies)
    }

    /// Every field that may hold expressions.
    pub fn fields(&self) -> Vec<&Field> {
        let arn = self.task.iter().filter_map(|task| task.arn.as_ref());
        arn.chain(self.documents().flat_map(Document::fields)).collect()
    }

    /// A key of the inline service definition.
    pub fn written(&self, key: &str) -> Option<&Json> {
        match &self.service {
            Some(Document::Value(field)) => field.value.get(key),
            Some(Document::File { .. }) | None => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Task,
    Service,
    Target,
    Policy,
}

const MANIFESTS: [(&str, Kind); 4] = [
    ("EcsTaskDefinition", Kind::Task),
    ("EcsServiceDefinition", Kind::Service),
    ("EcsScalableTargetDefinition", Kind::Target),
    ("EcsScalingPolicyDefinition", Kind::Policy),
];

/// Whether an entry of `manifests` belongs to a service of type ECS.
pub(in crate::model) fn is_ecs_manifest(entry: &Node) -> bool {
    let inner = entry.get("manifest").unwrap_or(entry);
    let kind = inner.get("type").and_then(Node::as_str).unwrap_or_default();
    MANIFESTS.iter().any(|(name, _)| name.eq_ignore_ascii_case(kind.trim()))
}

/// Reads what a service of type ECS says beside artifact, variables and config files.
pub(in crate::model) fn read_service(spec: &mut Reader<'_>, findings: &mut Findings) -> EcsService {
    let mut service = EcsService::default();
    let mut task = TaskDefinition::default();
    if let Some(mut own) = spec.map("taskDefinition", findings) {
        task.arn = own.field("taskDefinitionArn", findings).filter(|arn| !arn.text().trim().is_empty());
        if let Some(field) = own.any("taskDefinitionSpec") {
            check_task_definition(&field, findings);
            if task.arn.is_none() && field.value.is_object() && field.value.get("family").is_none() {
                let message = "`family` is missing, and there is no `taskDefinitionArn` to take it from";
                findings.fault(&field.at, &field.path, message);
            }
            task.document = Some(Document::Value(field));
        }
        own.finish(findings);
    }
    let arn = spec.field("ecsTaskDefinitionArn", findings).filter(|arn| !arn.text().trim().is_empty());
    if let (Some(one), Some(other)) = (&arn, &task.arn)
        && one.text() != other.text()
    {
        let message = "`taskDefinition.taskDefinitionArn` says another one; write one of them";
        findings.fault(&one.at, &one.path, message);
    }
    task.arn = task.arn.or(arn);
    if let Some(field) = spec.any("serviceDefinition") {
        check_service(&field, findings);
        service.service = Some(Document::Value(field));
    }
    read_manifests(spec, &mut service, &mut task, findings);
    if task != TaskDefinition::default() {
        service.task = Some(task);
    }
    service
}

fn read_manifests(
    spec: &mut Reader<'_>,
    service: &mut EcsService,
    task: &mut TaskDefinition,
    findings: &mut Findings,
) {
    let path = spec.sub("manifests");
    for (index, node) in spec.list("manifests", findings).iter().enumerate() {
        let path = format!("{path}[{index}]");
        let (node, path) = match node.get("manifest") {
            Some(inner) => (inner, format!("{path}.manifest")),
            None => (node, path),
        };
        let Some((kind, document)) = read_manifest(node, &path, index, findings) else { continue };
        let slot = match kind {
            Kind::Task => &mut task.document,
            Kind::Service => &mut service.service,
            Kind::Target => {
                service.scalable_targets.push(document);
                continue;
            }
            Kind::Policy => {
                service.scaling_policies.push(document);
                continue;
            }
        };
        if slot.is_some() {
            let what = if kind == Kind::Task { "task definition" } else { "service definition" };
            findings.fault(&node.at, &path, format!("the service has a {what} already; it has exactly one"));
            continue;
        }
        *slot = Some(document);
    }
}

fn read_manifest(node: &Node, path: &str, index: usize, findings: &mut Findings) -> Option<(Kind, Document)> {
    let mut reader = Reader::new(node, path, findings);
    let identifier = reader.text("identifier", findings);
    let identifier =
        identifier.unwrap_or_else(|| rules::r24_manifest_identifier(index, &node.at, path, findings));
    let kind = reader.required("type", findings);
    let spec = reader.required_map("spec", findings);
    reader.finish(findings);
    let (kind, mut spec) = (kind?, spec?);
    let text = kind.text();
    let known = MANIFESTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    if known.is_none() {
        let names = MANIFESTS.map(|(name, _)| name);
        let message =
            format!("`{text}` is no manifest of a service of type ECS; those are {}", names.join(", "));
        findings.push(Fault::at(&kind.at, &kind.path, message).suggest(did_you_mean(&text, names)));
    }
    let store = spec.required_map("store", findings).and_then(|store| read_store(store, findings));
    spec.finish(findings);
    let document = file(identifier, store?, path, &node.at, findings)?;
    known.map(|(_, kind)| (*kind, document))
}

/// A document lies in one file of a repository, or in the entity.
fn file(
    identifier: String,
    store: ManifestStore,
    path: &str,
    at: &crate::fault::Place,
    findings: &mut Findings,
) -> Option<Document> {
    let ManifestStore::Files { store } = store else {
        findings.fault(at, path, "a document of ECS lies in Git or inline");
        return None;
    };
    if let crate::model::service::Store::Git { paths, .. } = &store
        && paths.len() != 1
        && !paths.iter().any(|path| path.text().contains("<+"))
    {
        let names: Vec<String> = store_fields(&store).into_iter().skip(2).map(Field::text).collect();
        let message = format!("a document of ECS is one file; found {}", names.join(", "));
        findings.fault(at, path, message);
        return None;
    }
    Some(Document::File { identifier, store })
}

/// A document of a step: `{type, spec}` is a store, any other map the document itself.
pub(super) fn read_document(
    spec: &mut Reader<'_>,
    key: &'static str,
    findings: &mut Findings,
) -> Option<Document> {
    let node = spec.node(key)?;
    let path = spec.sub(key);
    if is_store(node) {
        let store = read_store(Reader::new(node, path.as_str(), findings), findings)?;
        return file(key.to_owned(), store, &path, &node.at, findings);
    }
    if node.as_map().is_none() && !node.as_str().is_some_and(|text| text.starts_with("<+")) {
        let message =
            format!("expected a store `{{type, spec}}` or the document itself, found {}", node.kind());
        findings.fault(&node.at, &path, message);
        return None;
    }
    Some(Document::of(node, path))
}

/// What can be told of a task definition without asking AWS.
pub(super) fn check_task_definition(field: &Field, findings: &mut Findings) {
    let Some(containers) = list_in(field, "containerDefinitions", true, findings) else { return };
    if containers.is_empty() {
        findings.fault(&field.at, &format!("{}.containerDefinitions", field.path), "lists no container");
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = format!("{}.containerDefinitions[{index}]", field.path);
        if container.as_str().is_some_and(|text| text.starts_with("<+")) {
            continue;
        }
        match container.get("name").and_then(Json::as_str) {
            Some(name) if names.contains(&name) => {
                findings.fault(&field.at, &path, format!("there are two containers `{name}`"));
            }
            Some(name) if !name.trim().is_empty() => names.push(name),
            _ => findings.fault(&field.at, &path, "the container has no `name`"),
        }
    }
}

fn check_service(field: &Field, findings: &mut Findings) {
    if list_in(field, "loadBalancers", false, findings).is_none() && !field.value.is_object() {
        return;
    }
    let name = field.value.get("serviceName");
    if name.and_then(Json::as_str).is_none_or(|name| name.trim().is_empty()) {
        findings.fault(&field.at, &format!("{}.serviceName", field.path), "`serviceName` is missing");
    }
    let is_count = |count: &Json| match count {
        Json::String(text) => text.contains("<+") || text.trim().parse::<u32>().is_ok(),
        other => other.as_u64().is_some_and(|count| u32::try_from(count).is_ok()),
    };
    if let Some(count) = field.value.get("desiredCount").filter(|count| !is_count(count)) {
        let message = format!("expected a whole number, 0 or more; found `{count}`");
        findings.fault(&field.at, &format!("{}.desiredCount", field.path), message);
    }
}

/// A list in a document. `None`: there is none, or an expression stands in its place; what is wrong was told.
fn list_in<'f>(
    field: &'f Field,
    key: &str,
    required: bool,
    findings: &mut Findings,
) -> Option<&'f Vec<Json>> {
    if field.value.as_str().is_some_and(|text| text.starts_with("<+")) {
        return None;
    }
    let Json::Object(map) = &field.value else {
        findings.fault(&field.at, &field.path, "expected a map");
        return None;
    };
    match map.get(key) {
        Some(Json::Array(list)) => Some(list),
        Some(Json::String(text)) if text.starts_with("<+") => None,
        Some(_) => {
            findings.fault(&field.at, &format!("{}.{key}", field.path), "expected a list");
            None
        }
        None if required => {
            findings.fault(&field.at, &format!("{}.{key}", field.path), format!("`{key}` is missing"));
            None
        }
        None => None,
    }
}
