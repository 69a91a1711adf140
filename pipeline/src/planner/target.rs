//! Service, environment and infrastructure of a stage, from entities and inline definitions (rule R3); connectors.

use super::tree::Open;
use crate::entities::{Catalog, CatalogEntity, EntityKind, find, read_environment, read_service};
use crate::fault::{Fault, Findings};
use crate::machine::{field_value, render};
use crate::model::Field;
use crate::model::connector::{ConnectorSpec, Host, read_connector};
use crate::model::infrastructure::{HostFilter, Infrastructure, read_infrastructure};
use crate::model::secret::{SecretSpec, read_secret};
use crate::model::service::{Definition, Store, read_definition};
use crate::model::step::{Spec, UnitKind};
use crate::plan::{
    EnvironmentPlan, HostPlan, InfrastructurePlan, Login, NodeKind, Plan, PlanNode, ServicePlan, TargetPlan,
    split_host,
};
use crate::rules;
use crate::scope::{NodeScope, as_text};
use crate::yaml::{Node, parse_documents};
use proto::text::SecretRef;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// Where references are looked up.
pub(super) struct Lookups<'a> {
    pub(super) catalog: Option<&'a dyn Catalog>,
    /// A run is planned: what is missing refuses it. Otherwise only what is written wrongly does.
    pub(super) running: bool,
}

impl<'a> Lookups<'a> {
    /// An entity, or a fault; `None` without a fault when there is no catalogue.
    fn find(
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
    fn find_quietly(&self, kind: EntityKind, reference: &str, scope: &str) -> Option<&'a CatalogEntity> {
        find(self.catalog?, kind, reference, scope).ok()
    }
}

/// `org/project` of the pipeline.
pub(super) fn scope_of(plan: &Plan) -> String {
    match (plan.run.org.as_str(), plan.run.project.as_str()) {
        ("", "") => String::new(),
        (org, "") => org.to_owned(),
        (org, project) => format!("{org}/{project}"),
    }
}

/// Root of a stored entity. It was checked when it was stored; what it says wrongly now is told with its own place.
fn root(entity: &CatalogEntity, keys: &[&str], findings: &mut Findings) -> Option<Node> {
    let source = format!("{}:{}", entity.kind.name(), entity.id);
    match parse_documents(&source, &entity.yaml) {
        Ok(documents) => {
            documents.iter().find_map(|document| keys.iter().find_map(|key| document.get(key))).cloned()
        }
        Err(faults) => {
            faults.into_iter().for_each(|fault| findings.push(fault));
            None
        }
    }
}

/// Resolves a field before the run.
fn known(plan: &Plan, stage: usize, field: &Field, findings: &mut Findings) -> Option<String> {
    let scope = NodeScope::planning(plan, stage);
    let context = super::context(plan, &scope);
    match render(field, &context, expr::Mode::Throw) {
        Ok(text) => Some(text),
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
        let scope = scope_of(plan);
        let service = service(plan, &stage, lookups, &scope, findings);
        let environment = environment(plan, &stage, lookups, &scope, findings);
        let (Some(service), Some(environment)) = (service, environment) else { continue };
        let has_artifact = service.definition.artifact.is_some();
        let target = TargetPlan { service, environment, infrastructure: InfrastructurePlan::default() };
        set_target(plan, stage.stage, target);
        if has_artifact {
            add_lookup(plan, stage.stage);
        }
        // The infrastructure may name the service and the environment.
        if let Some(infrastructure) = infrastructure(plan, &stage, lookups, &scope, findings)
            && let Some(NodeKind::Stage(plan)) = plan.nodes.get_mut(stage.stage).map(|node| &mut node.kind)
            && let Some(target) = &mut plan.target
        {
            target.infrastructure = infrastructure;
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
    let lookup = PlanNode {
        identifier: "artifact".to_owned(),
        name: Field::made("Artifact", node.name.path.clone(), &node.name.at),
        kind: NodeKind::Artifact,
        parent: Some(stage),
        children: Vec::new(),
        rollback: Vec::new(),
        part: "spec.artifact".to_owned(),
        path: format!("{}.spec.artifact", node.path),
        in_rollback: false,
        when: None,
        timeout_ms: None,
        strategies: Default::default(),
        selectors: None,
        looping: None,
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
        .and_then(|root| read_service(&root, &mut Findings::default()));
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
    let Some((node, path)) = definition else {
        if lookups.catalog.is_none() {
            // Nothing to look it up in: the stage is checked as far as it goes without its service.
            let at = &stage.frame.at;
            let definition =
                Definition { kind: "Ssh".into(), variables: vec![], artifact: None, config_files: vec![] };
            let _ = at;
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
    let definition = read_definition(&node, &path, findings)?;
    Some(ServicePlan { identifier, name, description, tags, definition, document: node.to_json() })
}

fn environment(
    plan: &Plan,
    stage: &Open,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> Option<EnvironmentPlan> {
    let Some(field) = &stage.target.environment_ref else {
        findings.fault(&stage.frame.at, &stage.frame.path, "the deployment stage names no environment");
        return None;
    };
    let reference = known(plan, stage.stage, field, findings)?;
    let bare =
        || EnvironmentPlan { identifier: reference.clone(), name: reference.clone(), ..Default::default() };
    if lookups.catalog.is_none() {
        return Some(bare());
    }
    let entity = lookups.find(EntityKind::Environment, &reference, field, scope, findings)?;
    let root = root(entity, &["environment"], findings)?;
    let read = read_environment(&root, &mut Findings::default())?;
    Some(EnvironmentPlan {
        identifier: read.identifier,
        name: read.name.text(),
        description: read.description,
        kind: read.kind,
        tags: read.tags,
        variables: read.variables,
    })
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
            if reference.is_none() {
                findings.fault(&at.at, &at.path, "the deployment stage names no infrastructure");
            }
            return None;
        }
    };
    let read = read_infrastructure(&node, &path, findings)?;
    let identifier = node.get("identifier").and_then(Node::as_str).map(str::to_owned);
    let identifier = identifier.unwrap_or_else(|| id_of(&reference, at));
    let name = node.get("name").and_then(Node::as_str).map_or_else(|| identifier.clone(), str::to_owned);
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

#[expect(clippy::too_many_arguments, reason = "One place joins what three entities say about a login.")]
fn hosts_and_login(
    plan: &Plan,
    stage: &Open,
    read: &Infrastructure,
    node: &Node,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> (Vec<HostPlan>, Option<String>, Option<Login>) {
    let mut connector_ref = None;
    let mut connector = None;
    if let Some(field) = &read.connector
        && let Some(reference) = known(plan, stage.stage, field, findings)
    {
        if let Some(entity) = lookups.find(EntityKind::Connector, &reference, field, scope, findings)
            && let Some(root) = root(entity, &["connector"], findings)
        {
            connector = read_connector(&root, &mut Findings::default());
        }
        connector_ref = Some(reference);
    }
    let mut hosts = Vec::new();
    if let Some(field) = &read.hosts {
        hosts.extend(written_hosts(plan, stage.stage, field, findings));
    }
    let mut login_port = None;
    let mut key_ref = None;
    let mut user = None;
    match connector.as_ref().map(|connector| &connector.spec) {
        Some(ConnectorSpec::Ssh { host, port, key_ref: key, user: name }) => {
            if let (true, Some(host)) = (hosts.is_empty(), host) {
                hosts.extend(known(plan, stage.stage, host, findings).map(|host| split_host(&host)));
            }
            login_port = port.as_ref().and_then(|port| port_of(plan, stage.stage, port, findings));
            key_ref = key.clone();
            user = name.as_ref().and_then(|name| known(plan, stage.stage, name, findings));
        }
        Some(ConnectorSpec::Pdc { hosts: listed }) if hosts.is_empty() => {
            hosts.extend(filtered(plan, stage.stage, listed, read.filter.as_ref(), findings));
        }
        Some(ConnectorSpec::Pdc { .. }) | None => {}
        Some(_) => {
            if let Some(field) = &read.connector {
                findings.fault(&field.at, &field.path, "the connector is neither of type Ssh nor Pdc");
            }
        }
    }
    if hosts.is_empty() && lookups.catalog.is_some() {
        findings.fault(&node.at, &stage.frame.path, "the infrastructure has no hosts");
    }
    let mut seen = std::collections::BTreeSet::new();
    for host in &hosts {
        if !seen.insert(host.written.clone()) {
            findings.fault(
                &node.at,
                &stage.frame.path,
                format!("the host `{}` is listed twice", host.written),
            );
        }
    }
    let login = if lookups.catalog.is_none() {
        None
    } else {
        login(plan, stage, read, key_ref, user, login_port, lookups, scope, findings)
    };
    (hosts, connector_ref, login)
}

/// `credentialsRef` if it is an SSHKey secret, else the connector's `sshKeyRef` (pipeline.md 1.4).
#[expect(clippy::too_many_arguments, reason = "One place joins what three entities say about a login.")]
fn login(
    plan: &Plan,
    stage: &Open,
    read: &Infrastructure,
    key_ref: Option<Field>,
    user: Option<String>,
    port: Option<u16>,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> Option<Login> {
    let mut tried = Vec::new();
    for field in [read.credentials.clone(), key_ref].into_iter().flatten() {
        let reference = known(plan, stage.stage, &field, findings)?;
        let entity = lookups.find_quietly(EntityKind::Secret, &reference, scope);
        let secret = entity
            .and_then(|entity| root(entity, &["secret"], findings))
            .and_then(|root| read_secret(&root, &mut Findings::default()));
        match secret.map(|secret| secret.spec) {
            Some(SecretSpec::SshKey { port: secret_port, user, key, passphrase }) => {
                let secret_port =
                    secret_port.as_ref().and_then(|port| port_of(plan, stage.stage, port, findings));
                let user = known(plan, stage.stage, &user, findings)?;
                let key = known(plan, stage.stage, &key, findings)?;
                let passphrase = passphrase.and_then(|field| known(plan, stage.stage, &field, findings));
                for id in std::iter::once(&key).chain(&passphrase) {
                    need_secret(id, &field, lookups, scope, findings);
                }
                return Some(Login {
                    user,
                    port: port.or(secret_port).unwrap_or(22),
                    key: SecretRef(key),
                    passphrase: passphrase.map(SecretRef),
                });
            }
            // A plain secret may be the private key itself, when something else names the user.
            _ => match (&user, lookups.catalog.is_some_and(|catalog| catalog.has_secret_value(&reference))) {
                (Some(user), true) => {
                    let key = SecretRef(reference);
                    return Some(Login {
                        user: user.clone(),
                        port: port.unwrap_or(22),
                        key,
                        passphrase: None,
                    });
                }
                _ => tried.push((reference, field)),
            },
        }
    }
    let Some((reference, field)) = tried.first() else {
        // Without any credential the stage can still run steps that touch no host.
        return None;
    };
    let names: Vec<String> = tried.iter().map(|(reference, _)| format!("`{reference}`")).collect();
    let message = match tried.len() {
        1 => format!("`{reference}` is not a secret of type SSHKey"),
        _ => format!("none of {} is a secret of type SSHKey", names.join(", ")),
    };
    let all = lookups.catalog.map(|catalog| catalog.entities(EntityKind::Secret)).unwrap_or_default();
    let near = expr::nearest(reference, all.iter().map(|entity| entity.id.as_str()));
    let hint = match near.first() {
        Some(near) => format!("did you mean `{near}`?"),
        None => "store one with `delegate apply`: {secret: {type: SSHKey, spec: {auth: …}}}".to_owned(),
    };
    findings.push(Fault::at(&field.at, &field.path, message).suggest(Some(hint)));
    None
}

/// A secret without a stored value refuses the run.
pub(super) fn need_secret(
    reference: &str,
    field: &Field,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) {
    let Some(catalog) = lookups.catalog else { return };
    let bare =
        reference.strip_prefix("account.").or_else(|| reference.strip_prefix("org.")).unwrap_or(reference);
    let id =
        lookups.find_quietly(EntityKind::Secret, reference, scope).map_or(bare, |entity| entity.id.as_str());
    if catalog.has_secret_value(id) || catalog.has_secret_value(reference) || !lookups.running {
        return;
    }
    let message = format!("the secret `{reference}` has no value");
    let hint = format!("set it with `delegate secret set {id} --stdin`");
    findings.push(Fault::at(&field.at, &field.path, message).suggest(Some(hint)));
}

fn port_of(plan: &Plan, stage: usize, field: &Field, findings: &mut Findings) -> Option<u16> {
    let text = known(plan, stage, field, findings)?;
    let port = text.trim().parse().ok().filter(|port: &u16| *port > 0);
    if port.is_none() {
        findings.fault(&field.at, &field.path, format!("expected a port from 1 to 65535, found `{text}`"));
    }
    port
}

/// A list, one host, or an expression that gives either; texts may be separated by commas.
fn written_hosts(plan: &Plan, stage: usize, field: &Field, findings: &mut Findings) -> Vec<HostPlan> {
    let value = {
        let scope = NodeScope::planning(plan, stage);
        let context = super::context(plan, &scope);
        field_value(field, &context)
    };
    let texts: Vec<String> = match value {
        Ok(Json::Array(list)) => {
            list.iter().map(|item| as_text(item).as_str().unwrap_or_default().to_owned()).collect()
        }
        Ok(Json::String(text)) => text.split(',').map(str::to_owned).collect(),
        Ok(other) => {
            findings.fault(&field.at, &field.path, format!("expected hosts, found {other}"));
            return Vec::new();
        }
        Err(error) => {
            findings.fault(&field.at, &field.path, format!("must be known before the run: {error}"));
            return Vec::new();
        }
    };
    let mut hosts = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) || text.starts_with('-') {
            findings.fault(&field.at, &field.path, format!("`{text}` is not a host name"));
        } else {
            hosts.push(split_host(text));
        }
    }
    hosts
}

fn filtered(
    plan: &Plan,
    stage: usize,
    listed: &[Host],
    filter: Option<&HostFilter>,
    findings: &mut Findings,
) -> Vec<HostPlan> {
    let mut hosts = Vec::new();
    for host in listed {
        let Some(name) = known(plan, stage, &host.name, findings) else { continue };
        hosts.push(HostPlan { attributes: host.attributes.clone(), ..split_host(name.trim()) });
    }
    match filter {
        None => hosts,
        Some(HostFilter::Names(field)) => {
            let wanted = written_hosts(plan, stage, field, findings);
            let names: Vec<&str> = hosts.iter().map(|host| host.written.as_str()).collect();
            for host in wanted.iter().filter(|host| !names.contains(&host.written.as_str())) {
                let message =
                    format!("the connector has no host `{}`; it has {}", host.written, names.join(", "));
                findings.fault(&field.at, &field.path, message);
            }
            hosts.retain(|host| wanted.iter().any(|wanted| wanted.written == host.written));
            hosts
        }
        Some(HostFilter::Attributes(field)) => {
            let Json::Object(wanted) = &field.value else {
                findings.fault(&field.at, &field.path, "expected a map of attributes");
                return hosts;
            };
            hosts.retain(|host| {
                wanted.iter().all(|(key, value)| {
                    host.attributes.get(key).map(as_text).as_ref() == Some(&as_text(value))
                })
            });
            hosts
        }
    }
}

// --- connectors ---

/// Freezes every connector that something in the plan names.
pub(super) fn connectors(plan: &mut Plan, lookups: &Lookups<'_>, findings: &mut Findings) {
    if lookups.catalog.is_none() {
        return;
    }
    let mut wanted: Vec<(usize, Field)> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        match &node.kind {
            NodeKind::Step { spec, .. } => step_connectors(spec, index, &mut wanted),
            NodeKind::Stage(stage) => {
                let Some(target) = &stage.target else { continue };
                let definition = &target.service.definition;
                wanted.extend(definition.artifact.iter().map(|artifact| (index, artifact.connector.clone())));
                for file in &definition.config_files {
                    if let Store::Git { connector, .. } = &file.store {
                        wanted.push((index, connector.clone()));
                    }
                }
                if let Some(reference) = &target.infrastructure.connector {
                    wanted.push((index, Field::made(reference.clone(), node.path.clone(), &node.name.at)));
                }
            }
            _ => {}
        }
    }
    let scope = scope_of(plan);
    for (node, field) in wanted {
        let Some(reference) = known(plan, node, &field, findings) else { continue };
        if plan.connectors.contains_key(&reference) {
            continue;
        }
        let Some(entity) = lookups.find(EntityKind::Connector, &reference, &field, &scope, findings) else {
            continue;
        };
        let Some(root) = root(entity, &["connector"], findings) else { continue };
        let Some(connector) = read_connector(&root, &mut Findings::default()) else { continue };
        if let ConnectorSpec::Unsupported { kind } = &connector.spec {
            let message = format!(
                "the connector `{}` is of type `{kind}`, which no step of this version uses",
                entity.id
            );
            findings.fault(&field.at, &field.path, message);
        }
        for secret in secrets_of(&connector.spec) {
            if let Some(id) = known(plan, node, secret, findings) {
                need_secret(&id, &field, lookups, &scope, findings);
            }
        }
        plan.connectors.insert(reference, connector);
    }
}

fn step_connectors(spec: &Spec, index: usize, wanted: &mut Vec<(usize, Field)>) {
    match spec {
        Spec::Command { units, .. } => {
            for unit in units {
                if let UnitKind::Download { source: Some(source), .. } = &unit.kind {
                    wanted.push((index, source.connector.clone()));
                }
            }
        }
        Spec::Verify(verify) => wanted.extend(verify.connector.iter().map(|field| (index, field.clone()))),
        Spec::Http { .. } | Spec::Wait { .. } | Spec::Noop { .. } => {}
    }
}

fn secrets_of(spec: &ConnectorSpec) -> Vec<&Field> {
    use crate::model::connector::{Auth, HeaderValue};
    let mut fields = Vec::new();
    let auth = match spec {
        ConnectorSpec::DockerRegistry { auth, .. }
        | ConnectorSpec::Artifactory { auth, .. }
        | ConnectorSpec::Git { auth, .. } => Some(auth),
        ConnectorSpec::Prometheus { auth, headers, .. } => {
            for (_, value) in headers {
                if let HeaderValue::Secret(field) = value {
                    fields.push(field);
                }
            }
            Some(auth)
        }
        // The login of an infrastructure is checked where it is joined.
        ConnectorSpec::Ssh { .. } | ConnectorSpec::Pdc { .. } | ConnectorSpec::Unsupported { .. } => None,
    };
    match auth {
        Some(Auth::UsernamePassword { username_ref, password_ref, .. }) => {
            fields.extend(username_ref);
            fields.push(password_ref);
        }
        Some(Auth::Bearer { token_ref }) => fields.push(token_ref),
        Some(Auth::Anonymous) | None => {}
    }
    fields
}
