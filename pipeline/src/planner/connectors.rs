//! Connectors are frozen into the plan, their secrets looked for.

use super::hosts::need_secret;
use super::logins::login;
use super::target::{Lookups, known, root, stored};
use crate::entities::EntityKind;
use crate::fault::Findings;
use crate::model::Field;
use crate::model::connector::{Auth, ConnectorSpec, read_connector};
use crate::model::service::Store;
use crate::model::step::{Spec, UnitKind};
use crate::plan::{NodeKind, Plan};

/// Freezes every connector that something in the plan names.
pub(super) fn freeze(plan: &mut Plan, lookups: &Lookups<'_>, findings: &mut Findings) {
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
                wanted.extend(
                    definition.manifests.iter().filter_map(|m| Some((index, m.connector()?.clone()))),
                );
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
    let scope = plan.run.scope();
    for (node, field) in wanted {
        let Some(reference) = known(plan, node, &field, findings) else { continue };
        if plan.connectors.contains_key(&reference) {
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

fn step_connectors(spec: &Spec, index: usize, wanted: &mut Vec<(usize, Field)>) {
    match spec {
        Spec::Command { units, .. } => {
            for unit in units {
                if let UnitKind::Download { source: Some(source), .. } = &unit.kind {
                    wanted.push((index, source.connector.clone()));
                }
            }
        }
        Spec::Kubernetes(step) => {
            wanted.extend(step.connectors().into_iter().map(|field| (index, field.clone())));
        }
        Spec::Verify(verify) => {
            wanted.extend(verify.connector.iter().map(|field| (index, field.clone())));
            let metrics = verify.canary.iter().flat_map(|canary| &canary.metrics);
            wanted.extend(metrics.map(|metric| (index, metric.connector.clone())));
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
