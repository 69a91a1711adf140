//! Service, environment and infrastructure of a stage, from entities and inline definitions (rule R3).

use super::hosts::hosts_and_login;
use super::overrides::{self, Spot};
use super::tree::Open;
use crate::entities::{Catalog, CatalogEntity, EntityKind, find, read_environment, read_service};
use crate::fault::{Fault, Findings};
use crate::machine::render;
use crate::model::Field;
use crate::model::infrastructure::read_infrastructure;
use crate::model::overrides::{OverrideKind, lay_over};
use crate::model::service::{Definition, read_definition};
use crate::plan::{EnvironmentPlan, InfrastructurePlan, NodeKind, Plan, PlanNode, ServicePlan, TargetPlan};
use crate::rules;
use crate::scope::NodeScope;
use crate::yaml::{Node, parse_documents};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Where references are looked up.
pub(super) struct Lookups<'a> {
    pub(super) catalog: Option<&'a dyn Catalog>,
    /// A run is planned: what is missing refuses it. Otherwise only what is written wrongly does.
    pub(super) running: bool,
    /// Names that stand in the document and may be missing in the plan, because what they name could not be read. A
    /// reference to one of them is no fault of its own.
    pub(super) unread: BTreeSet<String>,
}

impl<'a> Lookups<'a> {
    /// An entity, or a fault; `None` without a fault when there is no catalogue.
    pub(super) fn find(
        &self,
        kind: EntityKind,
        reference: &str,
        field: &Field,
        scope: &str,
        findings: &mut Findings,
    ) -> Option<&'a CatalogEntity> {
        match find(self.catalog?, kind, reference, scope) {
            Ok(entity) => {
                let bare = reference.strip_prefix("account.").or_else(|| reference.strip_prefix("org."));
                if entity.id != bare.unwrap_or(reference) {
                    rules::r1_reference(reference, &entity.id, &field.at, &field.path, findings);
                }
                Some(entity)
            }
            Err(error) => {
                let (message, suggestion) = error.describe(kind, reference);
                findings.push(Fault::at(&field.at, &field.path, message).suggest(suggestion));
                None
            }
        }
    }

    /// The same, without a fault when nothing fits.
    pub(super) fn find_quietly(
        &self,
        kind: EntityKind,
        reference: &str,
        scope: &str,
    ) -> Option<&'a CatalogEntity> {
        find(self.catalog?, kind, reference, scope).ok()
    }
}

/// Root of a stored entity. It was checked when it was stored; what it says wrongly now is told with its own place.
pub(super) fn root(entity: &CatalogEntity, keys: &[&str], findings: &mut Findings) -> Option<Node> {
    let source = format!("{}:{}", entity.kind.name(), entity.id);
    match parse_documents(&source, &entity.yaml) {
        Ok(documents) => {
            let root =
                documents.iter().find_map(|document| keys.iter().find_map(|key| document.get(key))).cloned();
            if root.is_none() {
                let place = crate::fault::Place::start(&source);
                findings.fault(&place, "", format!("the stored {} has no root key", entity.kind.name()));
            }
            root
        }
        Err(faults) => {
            faults.into_iter().for_each(|fault| findings.push(fault));
            None
        }
    }
}

/// Reads a stored entity. Its notices were given when it was stored; its faults are told.
pub(super) fn stored<T>(findings: &mut Findings, read: impl FnOnce(&mut Findings) -> Option<T>) -> Option<T> {
    let mut own = Findings::default();
    let value = read(&mut own);
    own.faults.into_iter().for_each(|fault| findings.push(fault));
    value
}

/// Resolves a field before the run.
pub(super) fn known(plan: &Plan, stage: usize, field: &Field, findings: &mut Findings) -> Option<String> {
    if super::inputs::is_open(field) {
        return None;
    }
    let scope = NodeScope::planning(plan, stage);
    let context = super::context(plan, &scope);
    match render(field, &context, expr::Mode::Throw) {
        Ok(text) => Some(text),
        // An input that nobody gave was told where it is asked for.
        Err(error) if error.kind == expr::Kind::Refused => {
            if plan.node(stage).is_some_and(|node| !node.asks.is_empty()) {
                let message = "must be known before the run, and names an input that is asked for when the stage is reached";
                findings.fault(&field.at, &field.path, message);
            }
            None
        }
        Err(error) => {
            let paths = super::known_paths(plan, stage);
            let near = match &error.kind {
                expr::Kind::Unresolved(names) => names.first().cloned(),
                expr::Kind::Undefined(name) => Some(name.clone()),
                _ => None,
            }
            .map(|name| expr::nearest(&name, paths.iter().map(String::as_str)).join("` or `"))
            .filter(|near| !near.is_empty())
            .map(|near| format!("did you mean `{near}`?"));
            let message = format!("must be known before the run: {error}");
            findings.push(Fault::at(&field.at, &field.path, message).suggest(near));
            None
        }
    }
}

/// Looks up what every deployment stage names.
pub(super) fn resolve(plan: &mut Plan, open: Vec<Open>, lookups: &Lookups<'_>, findings: &mut Findings) {
    for stage in open {
        let scope = plan.run.scope();
        let bare = service(plan, &stage, lookups, &scope, &[], findings);
        let environment = environment(plan, &stage, lookups, &scope, findings);
        let (Some(bare), Some((mut environment, entity))) = (bare, environment) else { continue };
        // What an environment changes of a service is known before its infrastructure is.
        let mut spot = Spot {
            scope: &scope,
            environment: &environment.identifier.clone(),
            service: &bare.identifier.clone(),
            infrastructure: None,
        };
        let known = overrides::applying(lookups, &spot, findings);
        let mut content = entity.as_ref().map_or_else(Vec::new, |entity| of_environment(entity, &bare));
        if let Some(inputs) = &stage.target.environment_inputs {
            environment_variables(&mut environment, inputs, findings);
        }
        for over in known.iter().filter(|over| over.kind == OverrideKind::EnvGlobal) {
            environment_variables(&mut environment, &over.content, findings);
        }
        content.extend(known.iter().map(|over| over.content.clone()));
        content.extend(stage.target.override_inputs.clone());
        let service_plan = match content.is_empty() {
            true => Some(bare),
            false => service(plan, &stage, lookups, &scope, &content, findings),
        };
        let Some(service_plan) = service_plan else { continue };
        let target =
            TargetPlan { service: service_plan, environment, infrastructure: InfrastructurePlan::default() };
        set_target(plan, stage.stage, target);
        // The infrastructure may name the service and the environment.
        if let Some(infrastructure) = infrastructure(plan, &stage, lookups, &scope, findings) {
            spot.infrastructure = Some(&infrastructure.identifier);
            let all = overrides::applying(lookups, &spot, findings);
            let of_infrastructure = all.len() > known.len();
            if of_infrastructure {
                let inputs = stage.target.override_inputs.iter();
                content.truncate(content.len() - known.len() - inputs.len());
                content.extend(all.into_iter().map(|over| over.content).chain(inputs.cloned()));
            }
            let service_plan = of_infrastructure
                .then(|| service(plan, &stage, lookups, &scope, &content, findings))
                .flatten();
            if let Some(NodeKind::Stage(plan)) = plan.nodes.get_mut(stage.stage).map(|node| &mut node.kind)
                && let Some(target) = &mut plan.target
            {
                target.infrastructure = infrastructure;
                target.service = service_plan.unwrap_or_else(|| target.service.clone());
            }
        }
        if plan.target_of(stage.stage).is_some_and(|target| target.service.definition.artifact.is_some()) {
            add_lookup(plan, stage.stage);
        }
    }
}

/// What the environment entity itself changes of a service.
fn of_environment(entity: &Node, service: &ServicePlan) -> Vec<Node> {
    let names: Vec<&str> = service.definition.variables.iter().map(|v| v.name.as_str()).collect();
    overrides::of_environment(entity, &names)
}

/// Overrides of a whole environment are variables of the environment too.
fn environment_variables(environment: &mut EnvironmentPlan, content: &Node, findings: &mut Findings) {
    let mut reader = crate::model::read::Reader::new(content, "overrides", findings);
    let read = stored(findings, |own| Some(crate::model::read_variables(&mut reader, own)));
    for variable in read.into_iter().flatten() {
        match environment.variables.iter_mut().find(|own| own.name == variable.name) {
            Some(own) => *own = variable,
            None => environment.variables.push(variable),
        }
    }
}

fn set_target(plan: &mut Plan, stage: usize, target: TargetPlan) {
    if let Some(NodeKind::Stage(stage)) = plan.nodes.get_mut(stage).map(|node| &mut node.kind) {
        stage.target = Some(target);
    }
}

/// The node of the artifact lookup: a leaf of its own before the first step.
fn add_lookup(plan: &mut Plan, stage: usize) {
    let Some(node) = plan.nodes.get(stage) else { return };
    let name = Field::made("Artifact", node.name.path.clone(), &node.name.at);
    let lookup = PlanNode {
        parent: Some(stage),
        part: "spec.artifact".to_owned(),
        path: format!("{}.spec.artifact", node.path),
        ..PlanNode::bare("artifact", name, NodeKind::Artifact)
    };
    plan.nodes.push(lookup);
    let index = plan.nodes.len() - 1;
    if let Some(NodeKind::Stage(stage)) = plan.nodes.get_mut(stage).map(|node| &mut node.kind) {
        stage.artifact = Some(index);
    }
}

fn service(
    plan: &Plan,
    stage: &Open,
    lookups: &Lookups<'_>,
    scope: &str,
    overriding: &[Node],
    findings: &mut Findings,
) -> Option<ServicePlan> {
    let target = &stage.target;
    let reference = match &target.service_ref {
        Some(field) => Some((known(plan, stage.stage, field, findings)?, field)),
        None => None,
    };
    if reference.is_none() && target.service_inline.is_none() {
        findings.fault(&stage.frame.at, &stage.frame.path, "the deployment stage names no service");
        return None;
    }
    let entity = match &reference {
        // Without an inline definition the entity must be there; with one it may be missing (R3).
        Some((id, field)) if target.service_inline.is_none() => {
            lookups.find(EntityKind::Service, id, field, scope, findings)
        }
        Some((id, _)) => lookups.find_quietly(EntityKind::Service, id, scope),
        None => None,
    };
    let stored = entity
        .and_then(|entity| root(entity, &["service"], findings))
        .and_then(|root| stored(findings, |own| read_service(&root, own)));
    let (identifier, name, description, tags) = match (&stored, &reference) {
        (Some(stored), _) => {
            (stored.identifier.clone(), stored.name.text(), stored.description.clone(), stored.tags.clone())
        }
        (None, Some((id, _))) => (id.clone(), id.clone(), String::new(), Json::Null),
        (None, None) => (stage.frame.identifier.clone(), stage.frame.name.text(), String::new(), Json::Null),
    };
    let mut definition = stored.and_then(|stored| stored.definition);
    if let Some((inline, path)) = &target.service_inline {
        if lookups.catalog.is_some() {
            rules::r3_overlay("service", &identifier, definition.is_some(), &inline.at, path, findings);
        }
        definition = Some(match definition {
            Some((mut base, base_path)) => {
                base.overlay(inline);
                (base, base_path)
            }
            None => (inline.clone(), path.clone()),
        });
    }
    let Some((mut node, path)) = definition else {
        if lookups.catalog.is_none() {
            // Nothing to look it up in: the stage is checked as far as it goes without its service.
            let definition = Definition { kind: "Ssh".into(), ..Definition::default() };
            return Some(ServicePlan {
                identifier,
                name,
                description,
                tags,
                definition,
                document: Json::Null,
            });
        }
        if entity.is_some() {
            let message = format!("the service `{identifier}` has no `serviceDefinition`");
            findings.fault(&stage.frame.at, &stage.frame.path, message);
        }
        return None;
    };
    overriding.iter().for_each(|content| lay_over(&mut node, content));
    let definition = read_definition(&node, &path, findings)?;
    Some(ServicePlan { identifier, name, description, tags, definition, document: node.to_json() })
}

fn environment(
    plan: &Plan,
    stage: &Open,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> Option<(EnvironmentPlan, Option<Node>)> {
    let Some(field) = &stage.target.environment_ref else {
        findings.fault(&stage.frame.at, &stage.frame.path, "the deployment stage names no environment");
        return None;
    };
    let reference = known(plan, stage.stage, field, findings)?;
    let bare =
        || EnvironmentPlan { identifier: reference.clone(), name: reference.clone(), ..Default::default() };
    if lookups.catalog.is_none() {
        return Some((bare(), None));
    }
    let entity = lookups.find(EntityKind::Environment, &reference, field, scope, findings)?;
    let root = root(entity, &["environment"], findings)?;
    let read = stored(findings, |own| read_environment(&root, own))?;
    let environment = EnvironmentPlan {
        identifier: read.identifier,
        name: read.name.text(),
        description: read.description,
        kind: read.kind,
        tags: read.tags,
        variables: read.variables,
    };
    Some((environment, Some(root)))
}

fn infrastructure(
    plan: &Plan,
    stage: &Open,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> Option<InfrastructurePlan> {
    let target = &stage.target;
    let at = &stage.frame;
    let reference = match &target.infrastructure_ref {
        Some(field) => Some((known(plan, stage.stage, field, findings)?, field)),
        None => None,
    };
    let entity = match &reference {
        Some((id, field)) if target.infrastructure_inline.is_none() => {
            lookups.find(EntityKind::Infrastructure, id, field, scope, findings)
        }
        Some((id, _)) => lookups.find_quietly(EntityKind::Infrastructure, id, scope),
        None => None,
    };
    let stored =
        entity.and_then(|entity| root(entity, &["infrastructureDefinition", "infrastructure"], findings));
    let (node, path) = match (stored, &target.infrastructure_inline) {
        (Some(mut base), Some((inline, path))) => {
            rules::r3_overlay("infrastructure", &id_of(&reference, at), true, &inline.at, path, findings);
            base.overlay(inline);
            (base, path.clone())
        }
        (Some(base), None) => (base, "infrastructureDefinition".to_owned()),
        (None, Some((inline, path))) => {
            if let (Some((id, _)), Some(_)) = (&reference, lookups.catalog) {
                rules::r3_overlay("infrastructure", id, false, &inline.at, path, findings);
            }
            (inline.clone(), path.clone())
        }
        (None, None) => {
            if reference.is_none() && !target.all {
                findings.fault(&at.at, &at.path, "the deployment stage names no infrastructure");
            }
            return None;
        }
    };
    let of_service = plan.target_of(stage.stage).map(|target| target.service.definition.kind.clone());
    let read = read_infrastructure(&node, &path, of_service.as_deref(), findings)?;
    let identifier = node.get("identifier").and_then(Node::as_str).map(str::to_owned);
    let identifier = identifier.unwrap_or_else(|| id_of(&reference, at));
    let name = node.get("name").and_then(Node::as_str).map_or_else(|| identifier.clone(), str::to_owned);
    if let Some(cluster) = &read.cluster {
        let connector = known(plan, stage.stage, &cluster.connector, findings);
        let namespace = known(plan, stage.stage, &cluster.namespace, findings).unwrap_or_default();
        let environment = plan.target_of(stage.stage).map(|target| target.environment.identifier.clone());
        let service = plan.target_of(stage.stage).map(|target| target.service.identifier.clone());
        let place = [connector.as_deref().unwrap_or_default(), &namespace];
        let key = key(&service.unwrap_or_default(), &environment.unwrap_or_default(), &read.kind, &place);
        return Some(InfrastructurePlan {
            identifier,
            name,
            kind: read.kind,
            connector,
            selectors: read.selectors,
            tags: read.tags,
            key,
            connector_field: Some(cluster.connector.clone()),
            namespace: Some(cluster.namespace.clone()),
            release_name: Some(cluster.release_name.clone()),
            simultaneous: target.simultaneous.unwrap_or(read.simultaneous),
            ..InfrastructurePlan::default()
        });
    }
    if let Some(place) = &read.ecs {
        let connector = known(plan, stage.stage, &place.connector, findings);
        let region = known(plan, stage.stage, &place.region, findings).unwrap_or_default();
        let cluster = known(plan, stage.stage, &place.cluster, findings).unwrap_or_default();
        let environment = plan.target_of(stage.stage).map(|target| target.environment.identifier.clone());
        let service = plan.target_of(stage.stage).map(|target| target.service.identifier.clone());
        let parts = [connector.as_deref().unwrap_or_default(), &region, &cluster];
        let key = key(&service.unwrap_or_default(), &environment.unwrap_or_default(), &read.kind, &parts);
        return Some(InfrastructurePlan {
            identifier,
            name,
            kind: read.kind,
            connector,
            selectors: read.selectors,
            tags: read.tags,
            key,
            connector_field: Some(place.connector.clone()),
            namespace: place.namespace.clone(),
            region: Some(place.region.clone()),
            cluster: Some(place.cluster.clone()),
            simultaneous: target.simultaneous.unwrap_or(read.simultaneous),
            ..InfrastructurePlan::default()
        });
    }
    let (hosts, connector, login) = hosts_and_login(plan, stage, &read, &node, lookups, scope, findings);
    let names: Vec<&str> = hosts.iter().map(|host| host.written.as_str()).collect();
    let environment = plan.target_of(stage.stage).map(|target| target.environment.identifier.clone());
    let service = plan.target_of(stage.stage).map(|target| target.service.identifier.clone());
    let key = key(&service.unwrap_or_default(), &environment.unwrap_or_default(), &read.kind, &names);
    Some(InfrastructurePlan {
        identifier,
        name,
        kind: read.kind,
        hosts,
        login,
        connector,
        selectors: read.selectors,
        tags: read.tags,
        key,
        simultaneous: target.simultaneous.unwrap_or(read.simultaneous),
        ..InfrastructurePlan::default()
    })
}

fn id_of(reference: &Option<(String, &Field)>, frame: &crate::model::step::Frame) -> String {
    reference.as_ref().map_or_else(|| format!("{}_infrastructure", frame.identifier), |(id, _)| id.clone())
}

/// Stable over runs: what is deployed, where. Parts are separated by a byte that no identifier holds.
fn key(service: &str, environment: &str, kind: &str, hosts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in [service, environment, kind].into_iter().chain(hosts.iter().copied()) {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}
