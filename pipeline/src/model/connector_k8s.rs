//! The connectors of Kubernetes: `K8sCluster`, and repositories of charts.

use super::connector::{Auth, ConnectorSpec};
use super::read::{Field, Reader};
use crate::fault::{Fault, Findings, did_you_mean};
use serde::{Deserialize, Serialize};

/// How a `K8sCluster` connector logs in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
#[expect(
    clippy::large_enum_variant,
    reason = "Few of them live at a time; boxing would only hide the fields."
)]
pub enum K8sCredential {
    /// What the agent itself has.
    InheritFromDelegate {
        /// Context of its kubeconfig.
        context: Option<Field>,
    },
    /// A service account's token.
    ServiceAccount {
        /// URL of the API server.
        master_url: Field,
        /// Secret with the token.
        token: Field,
        /// Secret with the CA.
        ca: Option<Field>,
    },
    /// A client certificate.
    ClientKeyCert {
        /// URL of the API server.
        master_url: Field,
        /// Secret with the CA.
        ca: Option<Field>,
        /// Secret with the certificate.
        client_cert: Field,
        /// Secret with the key.
        client_key: Field,
        /// Secret with the key's passphrase.
        passphrase: Option<Field>,
    },
    /// A token of an OpenID provider.
    OpenIdConnect(Box<OpenIdConnect>),
}

/// The fields of an OpenID login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenIdConnect {
    /// URL of the API server.
    pub master_url: Field,
    /// URL of the provider.
    pub issuer_url: Field,
    /// Secret with the client id.
    pub client_id: Field,
    /// Secret of the client.
    pub client_secret: Option<Field>,
    /// User in clear.
    pub username: Option<Field>,
    /// User from a secret.
    pub username_ref: Option<Field>,
    /// Secret with the password.
    pub password: Field,
    /// Scopes.
    pub scopes: Option<Field>,
    /// Secret with the CA of the API server.
    pub ca: Option<Field>,
}

impl K8sCredential {
    /// Fields that name secrets.
    pub(crate) fn secrets(&self) -> Vec<&Field> {
        match self {
            K8sCredential::InheritFromDelegate { .. } => Vec::new(),
            K8sCredential::ServiceAccount { token, ca, .. } => std::iter::once(token).chain(ca).collect(),
            K8sCredential::ClientKeyCert { ca, client_cert, client_key, passphrase, .. } => {
                [client_cert, client_key].into_iter().chain(ca).chain(passphrase).collect()
            }
            K8sCredential::OpenIdConnect(oidc) => {
                let optional = [&oidc.client_secret, &oidc.username_ref, &oidc.ca];
                [&oidc.client_id, &oidc.password].into_iter().chain(optional.into_iter().flatten()).collect()
            }
        }
    }
}

const CREDENTIALS: [&str; 2] = ["ManualConfig", "InheritFromDelegate"];
const AUTHS: [&str; 3] = ["ServiceAccount", "ClientKeyCert", "OpenIdConnect"];

/// Reads the spec of a `K8sCluster` connector.
pub(super) fn read_cluster(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<ConnectorSpec> {
    let mut credential = spec.required_map("credential", findings)?;
    let kind = credential.required("type", findings);
    let empty = crate::yaml::Node::empty_map(credential.at());
    let path = credential.sub("spec");
    let mut inner = Reader::new(credential.node("spec").unwrap_or(&empty), path, findings);
    credential.finish(findings);
    let kind = kind?;
    let text = kind.text();
    let read = match CREDENTIALS.iter().find(|known| known.eq_ignore_ascii_case(text.trim())) {
        Some(&"InheritFromDelegate") => {
            inner.known(&["delegateSelectors"]);
            Some(K8sCredential::InheritFromDelegate { context: inner.field("context", findings) })
        }
        Some(_) => read_manual(&mut inner, findings),
        None => {
            let message = format!(
                "credential type `{text}` is not supported; supported are {}",
                CREDENTIALS.join(", ")
            );
            findings.push(Fault::at(&kind.at, &kind.path, message).suggest(did_you_mean(&text, CREDENTIALS)));
            return None;
        }
    };
    inner.finish(findings);
    read.map(|credential| ConnectorSpec::K8sCluster { credential })
}

fn read_manual(spec: &mut Reader<'_>, findings: &mut Findings) -> Option<K8sCredential> {
    let master_url = spec.required("masterUrl", findings);
    let mut auth = spec.required_map("auth", findings)?;
    let kind = auth.required("type", findings);
    let inner = auth.required_map("spec", findings);
    auth.finish(findings);
    let (kind, mut inner) = (kind?, inner?);
    for key in ["serviceAccountToken", "clientKey", "clientCert", "password", "oidcPassword"] {
        if let Some(node) = inner.node(key) {
            let message = "a credential in clear is refused; store it with `delegate secret set` and name it in a `…Ref`";
            findings.fault(&node.at, &inner.sub(key), message);
        }
    }
    let ca = inner.field("caCertRef", findings);
    let text = kind.text();
    let read =
        match AUTHS.iter().find(|known| known.eq_ignore_ascii_case(text.trim())) {
            Some(&"ServiceAccount") => {
                let token = inner.required("serviceAccountTokenRef", findings);
                master_url.zip(token).map(|(master_url, token)| K8sCredential::ServiceAccount {
                    master_url,
                    token,
                    ca,
                })
            }
            Some(&"ClientKeyCert") => {
                inner.known(&["clientKeyAlgo"]);
                let cert = inner.required("clientCertRef", findings);
                let key = inner.required("clientKeyRef", findings);
                let passphrase = inner.field("clientKeyPassphraseRef", findings);
                let pair = cert.zip(key);
                master_url.zip(pair).map(|(master_url, (client_cert, client_key))| {
                    K8sCredential::ClientKeyCert { master_url, ca, client_cert, client_key, passphrase }
                })
            }
            Some(_) => {
                let issuer_url = inner.required("oidcIssuerUrl", findings);
                let client_id = inner.required("oidcClientIdRef", findings);
                let password = inner.required("oidcPasswordRef", findings);
                let username = inner.field("oidcUsername", findings);
                let username_ref = inner.field("oidcUsernameRef", findings);
                if username.is_none() && username_ref.is_none() {
                    findings.fault(
                        inner.at(),
                        &inner.sub("oidcUsername"),
                        "`oidcUsername` or `oidcUsernameRef` is missing",
                    );
                }
                let client_secret = inner.field("oidcSecretRef", findings);
                let scopes = inner.field("oidcScopes", findings);
                inner.finish(findings);
                return Some(K8sCredential::OpenIdConnect(Box::new(OpenIdConnect {
                    master_url: master_url?,
                    issuer_url: issuer_url?,
                    client_id: client_id?,
                    client_secret,
                    username,
                    username_ref,
                    password: password?,
                    scopes,
                    ca,
                })));
            }
            None => {
                let message = format!(
                    "authentication `{text}` of a cluster is not supported; supported are {}",
                    AUTHS.join(", ")
                );
                findings.push(Fault::at(&kind.at, &kind.path, message).suggest(did_you_mean(&text, AUTHS)));
                return None;
            }
        };
    inner.finish(findings);
    read
}

/// Reads the spec of `HttpHelmRepo` or `OciHelmRepo`.
pub(super) fn read_charts(
    oci: bool,
    spec: &mut Reader<'_>,
    auth: Option<Auth>,
    findings: &mut Findings,
) -> Option<ConnectorSpec> {
    let url = spec.required("helmRepoUrl", findings);
    url.zip(auth).map(|(url, auth)| ConnectorSpec::HelmRepository { oci, url, auth })
}
