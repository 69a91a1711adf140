//! Hosts of an infrastructure and the login to them, joined from infrastructure, connector and secret.

use super::target::{Lookups, known, root, stored};
use super::tree::Open;
use crate::entities::EntityKind;
use crate::fault::{Fault, Findings};
use crate::machine::field_value;
use crate::model::connector::{ConnectorSpec, Host, read_connector};
use crate::model::infrastructure::{HostFilter, Infrastructure};
use crate::model::secret::{SecretSpec, read_secret};
use crate::model::{Field, as_text};
use crate::plan::{HostPlan, Login, Plan, split_host};
use crate::scope::NodeScope;
use crate::yaml::Node;
use proto::text::SecretRef;
use serde_json::Value as Json;

/// Hosts in their order, the reference of the connector, and how to log in.
pub(super) fn hosts_and_login(
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
            connector = stored(findings, |own| read_connector(&root, own));
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
        match key_login(plan, stage.stage, &reference, &field, port, lookups, scope, findings) {
            Some(login) => return login,
            // A plain secret may be the private key itself, when something else names the user.
            None => {
                match (&user, lookups.catalog.is_some_and(|catalog| catalog.has_secret_value(&reference))) {
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
                }
            }
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

/// The login that an SSHKey secret gives. The outer `None`: the reference names no such secret; the inner: its faults are
/// among the findings.
#[expect(clippy::too_many_arguments, reason = "A reference, its place, and what it is looked up in.")]
pub(super) fn key_login(
    plan: &Plan,
    node: usize,
    reference: &str,
    field: &Field,
    port: Option<u16>,
    lookups: &Lookups<'_>,
    scope: &str,
    findings: &mut Findings,
) -> Option<Option<Login>> {
    let secret = lookups
        .find_quietly(EntityKind::Secret, reference, scope)
        .and_then(|entity| root(entity, &["secret"], findings))
        .and_then(|root| stored(findings, |own| read_secret(&root, own)));
    let Some(SecretSpec::SshKey { port: secret_port, user, key, passphrase }) = secret.map(|s| s.spec) else {
        return None;
    };
    let secret_port = secret_port.as_ref().and_then(|port| port_of(plan, node, port, findings));
    let (Some(user), Some(key)) = (known(plan, node, &user, findings), known(plan, node, &key, findings))
    else {
        return Some(None);
    };
    let passphrase = passphrase.and_then(|field| known(plan, node, &field, findings));
    for id in std::iter::once(&key).chain(&passphrase) {
        need_secret(id, field, lookups, scope, findings);
    }
    Some(Some(Login {
        user,
        port: port.or(secret_port).unwrap_or(22),
        key: SecretRef(key),
        passphrase: passphrase.map(SecretRef),
    }))
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
    let entity = lookups.find_quietly(EntityKind::Secret, reference, scope);
    let id = entity.map_or(bare, |entity| entity.id.as_str());
    // Before a run an entity is enough: its value may still be set.
    let known = catalog.has_secret_value(id)
        || catalog.has_secret_value(reference)
        || entity.is_some() && !lookups.running;
    if known {
        return;
    }
    let message = format!("the secret `{reference}` has no value");
    let hint = format!("set it with `delegate secret set {id} --stdin`");
    findings.push(Fault::at(&field.at, &field.path, message).suggest(Some(hint)));
}

pub(super) fn port_of(plan: &Plan, stage: usize, field: &Field, findings: &mut Findings) -> Option<u16> {
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
        Err(error) if error.kind == expr::Kind::Refused => return Vec::new(),
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
