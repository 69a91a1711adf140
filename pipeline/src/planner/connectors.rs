//! Connectors are frozen into the plan, their secrets looked for, and whether they are of the type that is needed.

use super::hosts::need_secret;
use super::logins::login;
use super::target::{Lookups, known, root, stored};
use crate::entities::EntityKind;
use crate::fault::{Fault, Findings};
use crate::model::Field;
use crate::model::connector::{Auth, Connector, ConnectorSpec, read_connector};
use crate::model::ecs::Document;
use crate::model::service::{ArtifactSource, Store};
use crate::model::step::{Spec, UnitKind};
use crate::plan::{NodeKind, Plan};

/// Freezes every connector that something in the plan names.
pub(super) fn freeze(plan: &mut Plan, lookups: &Lookups<'_>, findings: &mut Findings) {
    if lookups.catalog.is_none() {
        return;
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        match &node.kind {
            NodeKind::Step { spec, .. } => step_connectors(spec, index, &mut wanted),
            NodeKind::Stage(stage) => {
                let Some(target) = &stage.target else { continue };
                let definition = &target.service.definition;
                wanted.extend(definition.artifact.iter().map(|artifact| {
                    let aws = matches!(artifact.source, ArtifactSource::Ecr { .. });
                    Wanted { node: index, field: artifact.connector.clone(), aws }
                }));
                let any = |field: &Field| Wanted { node: index, field: field.clone(), aws: false };
                wanted.extend(definition.manifests.iter().filter_map(|m| m.connector().map(any)));
                let documents = definition.ecs.iter().flat_map(|ecs| ecs.documents());
                wanted.extend(documents.filter_map(Document::connector).map(any));
                for file in &definition.config_files {
                    if let Store::Git { connector, .. } = &file.store {
                        wanted.push(any(connector));
                    }
                }
                if let Some(reference) = &target.infrastructure.connector {
                    let field = match &target.infrastructure.connector_field {
                        Some(written) => Field { value: reference.clone().into(), ..written.clone() },
                        None => Field::made(reference.clone(), node.path.clone(), &node.name.at),
                    };
                    wanted.push(Wanted { node: index, field, aws: target.infrastructure.kind == "ECS" });
                }
            }
            _ => {}
        }
    }
    let scope = plan.run.scope();
    for Wanted { node, field, aws } in wanted {
        let Some(reference) = known(plan, node, &field, findings) else { continue };
        if let Some(connector) = plan.connectors.get(&reference) {
            must_be_aws(aws, connector, &field, findings);
            continue;
        }
        let Some(entity) = lookups.find(EntityKind::Connector, &reference, &field, &scope, findings) else {
            continue;
        };
        let Some(root) = root(entity, &["connector"], findings) else { continue };
        let Some(connector) = stored(findings, |own| read_connector(&root, own)) else { continue };
        if let ConnectorSpec::Unsupported { kind } = &connector.spec {
            let message = format!(
                "the connector `{}` is of type `{kind}`, which no step of this version uses",
                entity.id
            );
            findings.fault(&field.at, &field.path, message);
        }
        must_be_aws(aws, &connector, &field, findings);
        if let ConnectorSpec::Aws { account } = &connector.spec {
            for name in account.expressions().into_iter().flat_map(named_secrets) {
                need_secret(&name, &field, lookups, &scope, findings);
            }
        }
        for secret in secrets_of(&connector.spec) {
            if let Some(id) = known(plan, node, secret, findings) {
                need_secret(&id, &field, lookups, &scope, findings);
            }
        }
        if let ConnectorSpec::Git { auth: Auth::Ssh { key_ref }, .. } = &connector.spec
            && let Some(id) = known(plan, node, key_ref, findings)
            && !plan.logins.contains_key(&id)
            && let Some(login) = login(plan, node, &id, &field, lookups, &scope, findings)
        {
            plan.logins.insert(id, login);
        }
        plan.connectors.insert(reference, connector);
    }
}

/// A connector that something names.
struct Wanted {
    node: usize,
    field: Field,
    /// Nothing but an AWS account will do.
    aws: bool,
}

fn must_be_aws(aws: bool, connector: &Connector, field: &Field, findings: &mut Findings) {
    if aws && !matches!(connector.spec, ConnectorSpec::Aws { .. } | ConnectorSpec::Unsupported { .. }) {
        let message = format!("the connector `{}` is of another type; expected Aws", connector.identifier);
        findings.push(Fault::at(&field.at, &field.path, message));
    }
}

/// Secrets that expressions of a field name outright.
fn named_secrets(field: &Field) -> Vec<String> {
    let references = expr::references(&field.text()).unwrap_or_default();
    let named = references.into_iter().filter_map(|reference| match reference.target {
        expr::Target::Secret(name) if !reference.dynamic => Some(name),
        _ => None,
    });
    named.collect()
}

fn step_connectors(spec: &Spec, index: usize, wanted: &mut Vec<Wanted>) {
    let any = |field: &Field| Wanted { node: index, field: field.clone(), aws: false };
    match spec {
        Spec::Command { units, .. } => {
            for unit in units {
                if let UnitKind::Download { source: Some(source), .. } = &unit.kind {
                    wanted.push(any(&source.connector));
                }
            }
        }
        Spec::Kubernetes(step) => wanted.extend(step.connectors().into_iter().map(any)),
        Spec::Ecs(step) => {
            wanted.extend(step.connectors().into_iter().map(|(field, aws)| Wanted { aws, ..any(field) }));
        }
        Spec::Verify(verify) => {
            let aws = matches!(verify.provider.as_deref(), Some("CloudWatch" | "CloudWatchLogs"));
            wanted.extend(verify.connector.iter().map(|field| Wanted { aws, ..any(field) }));
            let metrics = verify.canary.iter().flat_map(|canary| &canary.metrics);
            wanted.extend(metrics.map(|metric| any(&metric.connector)));
        }
        // A script's credential is a login, frozen by itself.
        Spec::Policy { .. }
        | Spec::Approval(_)
        | Spec::ShellScript { .. }
        | Spec::Http { .. }
        | Spec::Wait { .. }
        | Spec::Barrier { .. }
        | Spec::Noop { .. } => {}
    }
}

fn secrets_of(spec: &ConnectorSpec) -> Vec<&Field> {
    use crate::model::connector::HeaderValue;
    let mut fields = Vec::new();
    let auth = match spec {
        ConnectorSpec::DockerRegistry { auth, .. }
        | ConnectorSpec::Artifactory { auth, .. }
        | ConnectorSpec::HelmRepository { auth, .. }
        | ConnectorSpec::Git { auth, .. } => Some(auth),
        ConnectorSpec::Prometheus { auth, headers, .. } => {
            for (_, value) in headers {
                if let HeaderValue::Secret(field) = value {
                    fields.push(field);
                }
            }
            Some(auth)
        }
        ConnectorSpec::K8sCluster { credential } => {
            fields.extend(credential.secrets());
            None
        }
        ConnectorSpec::Aws { account } => {
            fields.extend(account.secrets());
            None
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
        // Its login is frozen by itself.
        Some(Auth::Anonymous | Auth::Ssh { .. }) | None => {}
    }
    fields
}
