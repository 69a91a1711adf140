//! Connectors: how a server or host is reached and with which credentials.

use super::connector_aws::{AwsConnector, read_aws};
use super::connector_k8s::{K8sCredential, read_charts, read_cluster};
use super::identity;
use super::read::{Field, Reader};
use crate::fault::{Fault, Findings, did_you_mean};
use crate::yaml::Node;
use serde::{Deserialize, Serialize};

/// A connector as read from its entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connector {
    /// Identifier.
    pub identifier: String,
    /// Name.
    pub name: String,
    /// `delegateSelectors`.
    pub selectors: Option<Field>,
    /// What it leads to.
    pub spec: ConnectorSpec,
}

/// Kinds of connectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum ConnectorSpec {
    /// One SSH endpoint (the seed's own kind).
    Ssh {
        /// Host.
        host: Option<Field>,
        /// Port.
        port: Option<Field>,
        /// SSHKey secret, or a secret with the private key.
        key_ref: Option<Field>,
        /// Login name, when `key_ref` is only a key.
        user: Option<Field>,
    },
    /// Hosts.
    Pdc {
        /// Hosts with their attributes.
        hosts: Vec<Host>,
    },
    /// Docker registry.
    DockerRegistry {
        /// Base URL.
        url: Field,
        /// Credentials.
        auth: Auth,
    },
    /// Artifactory or plain HTTP repository.
    Artifactory {
        /// Base URL.
        url: Field,
        /// Credentials.
        auth: Auth,
    },
    /// Prometheus.
    Prometheus {
        /// Base URL.
        url: Field,
        /// Credentials.
        auth: Auth,
        /// Further headers.
        headers: Vec<(Field, HeaderValue)>,
    },
    /// Git over HTTP.
    Git {
        /// URL of a repository or an account.
        url: Field,
        /// The URL is complete; otherwise `repoName` is joined to it.
        repository: bool,
        /// Credentials.
        auth: Auth,
    },
    /// A Kubernetes cluster.
    K8sCluster {
        /// How to log in.
        credential: K8sCredential,
    },
    /// A repository of charts.
    HelmRepository {
        /// An OCI registry; otherwise over HTTP.
        oci: bool,
        /// Base URL.
        url: Field,
        /// Credentials.
        auth: Auth,
    },
    /// An AWS account.
    Aws {
        /// Who signs, and where.
        account: Box<AwsConnector>,
    },
    /// A kind that this version cannot use. Stored, refused when something needs it.
    Unsupported {
        /// As written.
        kind: String,
    },
}

/// A host of a `Pdc` connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Name, maybe with `:port`.
    pub name: Field,
    /// Attributes for `HostAttributes` filters.
    pub attributes: serde_json::Value,
}

/// A header of a Prometheus connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HeaderValue {
    /// In clear.
    Plain(Field),
    /// From a secret.
    Secret(Field),
}

/// Credentials of a connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
#[expect(
    clippy::large_enum_variant,
    reason = "Few of them live at a time; boxing would only hide the fields."
)]
pub enum Auth {
    /// None.
    Anonymous,
    /// User and password.
    UsernamePassword {
        /// User in clear.
        username: Option<Field>,
        /// User from a secret.
        username_ref: Option<Field>,
        /// Secret with the password or token.
        password_ref: Field,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// Secret with the token.
        token_ref: Field,
    },
    /// A Git repository over SSH.
    Ssh {
        /// A secret of type SSHKey.
        key_ref: Field,
    },
}

/// Kinds that can be used.
pub const CONNECTOR_TYPES: [&str; 13] = [
    "Ssh",
    "Pdc",
    "DockerRegistry",
    "Artifactory",
    "Prometheus",
    "Git",
    "Github",
    "Gitlab",
    "Bitbucket",
    "K8sCluster",
    "HttpHelmRepo",
    "OciHelmRepo",
    "Aws",
];

/// Kinds of Harness that are stored and come into use with later versions.
const LATER: [&str; 8] = [
    "Vault",
    "AwsSecretManager",
    "AwsKms",
    "CustomSecretManager",
    "Local",
    "Datadog",
    "NewRelic",
    "PagerDuty",
];

/// Reads a document with the root `connector`.
pub fn read_connector(root: &Node, findings: &mut Findings) -> Option<Connector> {
    let mut reader = Reader::new(root, "connector", findings);
    reader.known(&["orgIdentifier", "projectIdentifier", "description", "tags", "executeOnDelegate"]);
    let identity = identity(&mut reader, "connector", findings);
    let outer_selectors = reader.any("delegateSelectors");
    let kind = reader.required("type", findings)?;
    let spec_path = reader.sub("spec");
    let empty = Node::empty_map(&root.at);
    let spec_node = reader.node("spec").unwrap_or(&empty);
    reader.finish(findings);
    let mut spec = Reader::new(spec_node, spec_path, findings);
    let mut selectors = spec.any("delegateSelectors").or(outer_selectors);
    spec.known(&["executeOnDelegate", "proxy", "ignoreTestConnection"]);
    let text = kind.text();
    let Some(name) = CONNECTOR_TYPES.iter().find(|known| known.eq_ignore_ascii_case(&text)).copied() else {
        if !LATER.contains(&text.as_str()) {
            let message = format!(
                "connector type `{text}` is not supported; supported are {}",
                CONNECTOR_TYPES.join(", ")
            );
            let names = CONNECTOR_TYPES.into_iter().chain(LATER);
            findings.push(Fault::at(&kind.at, &kind.path, message).suggest(did_you_mean(&text, names)));
            return None;
        }
        findings.remark(
            "connector-unused",
            &kind.at,
            &kind.path,
            format!("`{text}` is stored; no step of this version uses it"),
        );
        let (identifier, name) = identity?;
        return Some(Connector {
            identifier,
            name: name.text(),
            selectors,
            spec: ConnectorSpec::Unsupported { kind: text },
        });
    };
    let read = match name {
        "Ssh" => Some(read_ssh(&mut spec, findings)),
        "Pdc" => Some(ConnectorSpec::Pdc { hosts: read_hosts(&mut spec, findings) }),
        "DockerRegistry" => {
            spec.known(&["providerType"]);
            let url = spec.required("dockerRegistryUrl", findings);
            let auth = read_auth(&mut spec, "auth", findings);
            url.zip(auth).map(|(url, auth)| ConnectorSpec::DockerRegistry { url, auth })
        }
        "Artifactory" => {
            let url = spec.required("artifactoryServerUrl", findings);
            let auth = read_auth(&mut spec, "auth", findings);
            url.zip(auth).map(|(url, auth)| ConnectorSpec::Artifactory { url, auth })
        }
        "Prometheus" => read_prometheus(&mut spec, findings),
        "K8sCluster" => read_cluster(&mut spec, findings),
        "HttpHelmRepo" | "OciHelmRepo" => {
            let auth = read_auth(&mut spec, "auth", findings);
            read_charts(name == "OciHelmRepo", &mut spec, auth, findings)
        }
        "Aws" => {
            let (account, own) = read_aws(&mut spec, findings);
            // An empty list of the connector says nothing.
            let nothing = |field: &Field| field.value.as_array().is_some_and(Vec::is_empty);
            selectors = selectors.filter(|field| own.is_none() || !nothing(field)).or(own);
            account
        }
        _ => read_git(name, &mut spec, findings),
    };
    spec.finish(findings);
    let (identifier, name) = identity?;
    Some(Connector { identifier, name: name.text(), selectors, spec: read? })
}

/// The seed nests `type: Key`, `spec.auth.spec.sshKeyRef`; the reference may also stand on any level above.
fn read_ssh(spec: &mut Reader<'_>, findings: &mut Findings) -> ConnectorSpec {
    let host = spec.field("host", findings);
    let port = spec.field("port", findings);
    spec.known(&["type", "credentialType"]);
    let mut key_ref = spec.field("sshKeyRef", findings).or_else(|| spec.field("credentialsRef", findings));
    let mut user = spec.field("userName", findings).or_else(|| spec.field("username", findings));
    fn nested(
        reader: &mut Reader<'_>,
        key_ref: &mut Option<Field>,
        user: &mut Option<Field>,
        findings: &mut Findings,
    ) {
        for key in ["spec", "auth"] {
            let Some(mut inner) = reader.map(key, findings) else { continue };
            inner.known(&["type", "credentialType"]);
            if let Some(field) = inner.field("sshKeyRef", findings) {
                *key_ref = Some(field);
            }
            if let Some(field) =
                inner.field("userName", findings).or_else(|| inner.field("username", findings))
            {
                *user = Some(field);
            }
            nested(&mut inner, key_ref, user, findings);
            inner.finish(findings);
        }
    }
    nested(spec, &mut key_ref, &mut user, findings);
    ConnectorSpec::Ssh { host, port, key_ref, user }
}

fn read_hosts(spec: &mut Reader<'_>, findings: &mut Findings) -> Vec<Host> {
    let path = spec.sub("hosts");
    let mut hosts = Vec::new();
    for (index, node) in spec.list("hosts", findings).iter().enumerate() {
        let path = format!("{path}[{index}]");
        if node.as_str().is_some() {
            hosts.push(Host { name: Field::new(node, path), attributes: serde_json::Value::Null });
            continue;
        }
        let mut host = Reader::new(node, path, findings);
        let name = host.required("hostname", findings);
        let attributes = host.any("hostAttributes").map_or(serde_json::Value::Null, |field| field.value);
        host.finish(findings);
        hosts.extend(name.map(|name| Host { name, attributes }));
    }
    hosts
}

fn read_auth(spec: &mut Reader<'_>, key: &'static str, findings: &mut Findings) -> Option<Auth> {
    let Some(mut auth) = spec.map(key, findings) else { return Some(Auth::Anonymous) };
    let kind = auth.field("type", findings);
    let inner = auth.map("spec", findings);
    auth.finish(findings);
    let text = kind.as_ref().map_or_else(|| "Anonymous".to_owned(), Field::text);
    match text.to_ascii_lowercase().as_str() {
        "anonymous" => Some(Auth::Anonymous),
        "usernamepassword" | "usernametoken" => {
            let mut inner = missing_spec(inner, spec, key, findings)?;
            let credentials = read_user(&mut inner, findings);
            inner.finish(findings);
            credentials
        }
        "bearertoken" | "bearer" => {
            let mut inner = missing_spec(inner, spec, key, findings)?;
            let token_ref = inner.required("tokenRef", findings);
            inner.finish(findings);
            token_ref.map(|token_ref| Auth::Bearer { token_ref })
        }
        _ => {
            let message = format!(
                "authentication `{text}` is not supported; supported are Anonymous, UsernamePassword, Bearer"
            );
            let at = kind.as_ref().map_or_else(|| spec.at().clone(), |kind| kind.at.clone());
            findings.fault(&at, &spec.sub(key), message);
            None
        }
    }
}

fn missing_spec<'a>(
    inner: Option<Reader<'a>>,
    outer: &Reader<'a>,
    key: &str,
    findings: &mut Findings,
) -> Option<Reader<'a>> {
    if inner.is_none() {
        findings.fault(outer.at(), &format!("{}.spec", outer.sub(key)), "`spec` is missing");
    }
    inner
}

fn read_user(inner: &mut Reader<'_>, findings: &mut Findings) -> Option<Auth> {
    let username = inner.field("username", findings);
    let username_ref = inner.field("usernameRef", findings);
    let password_ref = inner.field("passwordRef", findings).or_else(|| inner.field("tokenRef", findings));
    if let Some(node) = inner.node("password") {
        let message = "a password in clear is refused; store it with `delegate secret set` and name it in `passwordRef`";
        findings.fault(&node.at, &inner.sub("password"), message);
    }
    match password_ref {
        Some(password_ref) => Some(Auth::UsernamePassword { username, username_ref, password_ref }),
        None => {
            findings.fault(inner.at(), &inner.sub("passwordRef"), "`passwordRef` or `tokenRef` is missing");
            None
        }
    }
}

fn read_prometheus(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<ConnectorSpec> {
    let url = spec.required("url", findings);
    let username = spec.field("username", findings).filter(|field| !field.text().is_empty());
    let password_ref = spec.field("passwordRef", findings);
    let auth = match password_ref {
        Some(password_ref) => Auth::UsernamePassword { username, username_ref: None, password_ref },
        None => Auth::Anonymous,
    };
    let path = spec.sub("headers");
    let mut headers = Vec::new();
    for (index, node) in spec.list("headers", findings).iter().enumerate() {
        let mut header = Reader::new(node, format!("{path}[{index}]"), findings);
        header.known(&["valueEncrypted"]);
        let key = header.required("key", findings);
        let secret = header.field("encryptedValueRef", findings);
        let plain = header.field("value", findings);
        header.finish(findings);
        let value = secret.map(HeaderValue::Secret).or(plain.map(HeaderValue::Plain));
        headers.extend(key.zip(value));
    }
    Some(ConnectorSpec::Prometheus { url: url?, auth, headers })
}

fn is_ssh(transport: Option<&Field>) -> bool {
    transport.is_some_and(|transport| transport.text().trim().eq_ignore_ascii_case("Ssh"))
}

/// The login of a Git repository over SSH: a secret of type SSHKey.
fn read_ssh_key(inner: &mut Reader<'_>, findings: &mut Findings) -> Option<Auth> {
    inner.required("sshKeyRef", findings).map(|key_ref| Auth::Ssh { key_ref })
}

/// Github, Gitlab and Bitbucket write `type: Account|Repo` and `authentication`; Git writes `connectionType`, `type`
/// and `spec`.
fn read_git(kind: &str, spec: &mut Reader<'_>, findings: &mut Findings) -> Option<ConnectorSpec> {
    spec.known(&["apiAccess", "validationRepo", "branchName", "validationProject"]);
    let url = spec.required("url", findings);
    let (scope, transport, auth) = if kind == "Git" {
        let scope = spec.field("connectionType", findings);
        let transport = spec.field("type", findings);
        let auth = match spec.map("spec", findings) {
            Some(mut inner) => {
                let auth = match is_ssh(transport.as_ref()) {
                    true => read_ssh_key(&mut inner, findings),
                    false => read_user(&mut inner, findings),
                };
                inner.finish(findings);
                auth
            }
            None => Some(Auth::Anonymous),
        };
        (scope, transport, auth)
    } else {
        let scope = spec.field("type", findings);
        match spec.map("authentication", findings) {
            Some(mut outer) => {
                let transport = outer.field("type", findings);
                let auth = match (is_ssh(transport.as_ref()), outer.node("spec").is_some()) {
                    (true, true) => outer.map("spec", findings).and_then(|mut inner| {
                        let auth = read_ssh_key(&mut inner, findings);
                        inner.finish(findings);
                        auth
                    }),
                    // `spec: {type, spec}` has the shape of `auth`.
                    _ => read_auth(&mut outer, "spec", findings),
                };
                outer.finish(findings);
                (scope, transport, auth)
            }
            None => (scope, None, Some(Auth::Anonymous)),
        }
    };
    let known = |transport: &Field| ["Http", "Ssh"].iter().any(|k| transport.text().eq_ignore_ascii_case(k));
    if is_ssh(transport.as_ref())
        && !matches!(auth, Some(Auth::Ssh { .. }))
        && let Some(transport) = &transport
    {
        findings.fault(&transport.at, &transport.path, "Git over SSH needs `spec: {sshKeyRef: SECRET}`");
        return None;
    }
    if let Some(transport) = transport.filter(|transport| !known(transport)) {
        let message = format!("Git over `{}` is not supported; supported are Http and Ssh", transport.text());
        findings.fault(&transport.at, &transport.path, message);
        return None;
    }
    let repository = scope.is_none_or(|scope| !scope.text().eq_ignore_ascii_case("Account"));
    Some(ConnectorSpec::Git { url: url?, repository, auth: auth? })
}
