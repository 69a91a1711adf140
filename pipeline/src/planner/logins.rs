//! Logins that steps name themselves are frozen into the plan, as those of infrastructures are.

use super::hosts::{key_login, port_of};
use super::target::{Lookups, known, root, stored};
use crate::entities::EntityKind;
use crate::fault::{Fault, Findings};
use crate::model::Field;
use crate::model::connector::{ConnectorSpec, read_connector};
use crate::model::step::Spec;
use crate::plan::{Login, NodeKind, Plan};

/// Freezes the login of every execution target that names one.
pub(super) fn freeze(plan: &mut Plan, lookups: &Lookups<'_>, findings: &mut Findings) {
    if lookups.catalog.is_none() {
        return;
    }
    let mut wanted: Vec<(usize, Field)> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let NodeKind::Step { spec, .. } = &node.kind else { continue };
        if let Spec::ShellScript { credential: Some(field), .. } = &**spec {
            wanted.push((index, field.clone()));
        }
    }
    let scope = plan.run.scope();
    for (node, field) in wanted {
        let Some(reference) = known(plan, node, &field, findings) else { continue };
        if plan.logins.contains_key(&reference) {
            continue;
        }
        if let Some(login) = login(plan, node, &reference, &field, lookups, &scope, findings) {
            plan.logins.insert(reference, login);
        }
    }
}

/// An SSHKey secret, or an Ssh connector that names one.
pub(super) fn login(
    plan: &Plan,
    node: usize,
    reference: &str,
    field: &Field,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> Option<Login> {
    if let Some(login) = key_login(plan, node, reference, field, None, lookups, scope, findings) {
        return login;
    }
    let connector = lookups
        .find_quietly(EntityKind::Connector, reference, scope)
        .and_then(|entity| root(entity, &["connector"], findings))
        .and_then(|root| stored(findings, |own| read_connector(&root, own)));
    if let Some(ConnectorSpec::Ssh { port, key_ref: Some(key), .. }) = connector.map(|c| c.spec) {
        let port = port.as_ref().and_then(|port| port_of(plan, node, port, findings));
        let secret = known(plan, node, &key, findings)?;
        if let Some(login) = key_login(plan, node, &secret, field, port, lookups, scope, findings) {
            return login;
        }
    }
    let message =
        format!("`{reference}` is neither a secret of type SSHKey nor an Ssh connector that names one");
    let all = lookups.catalog.map(|catalog| catalog.entities(EntityKind::Secret)).unwrap_or_default();
    let near = expr::nearest(reference, all.iter().map(|entity| entity.id.as_str()));
    let hint = near.first().map(|near| format!("did you mean `{near}`?"));
    findings.push(Fault::at(&field.at, &field.path, message).suggest(hint));
    None
}
