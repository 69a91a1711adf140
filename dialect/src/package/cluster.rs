//! Clusters and how to log in to them.

use super::Cx;
use super::fault::Fault;
use super::secrets::Details;
use super::view::View;
use proto::task::{Cluster, ClusterCredential};

#[derive(Clone, Copy)]
enum Login {
    ServiceAccount,
    ClientKeyCert,
    OpenIdConnect,
}

const LOGINS: [(&str, Login); 3] = [
    ("ServiceAccount", Login::ServiceAccount),
    ("ClientKeyCert", Login::ClientKeyCert),
    ("OpenIdConnect", Login::OpenIdConnect),
];

/// Kinds of clusters that come with credentials of a cloud.
const CLOUDS: [(&str, &str); 4] = [
    ("gcpConnectorDTO", "Google (GKE)"),
    ("azureConnectorDTO", "Azure (AKS)"),
    ("awsConnectorDTO", "AWS (EKS)"),
    ("rancherConnectorDTO", "Rancher"),
];

/// The cluster of an infrastructure (`k8sInfraDelegateConfig`).
pub(super) fn of_infrastructure(cx: &mut Cx<'_>, infra: &View<'_>) -> Result<Cluster, Fault> {
    if let Some(config) = infra.maybe("kubernetesClusterConfigDTO")? {
        return read(cx, &config, &Details::of(infra, "encryptionDataDetails")?);
    }
    let cloud = CLOUDS.iter().find(|(key, _)| infra.has(key));
    Err(match cloud {
        Some((_, name)) => Fault::unsupported(format!("a cluster with credentials of {name}"))
            .hint("use a Kubernetes connector with a service account's token, or one that inherits from the delegate in the cluster"),
        None => Fault::shape(&infra.at("kubernetesClusterConfigDTO"), "is missing; expected a Kubernetes connector"),
    })
}

/// A connector `K8sCluster`.
pub(super) fn read(cx: &mut Cx<'_>, config: &View<'_>, details: &Details<'_>) -> Result<Cluster, Fault> {
    let credential = config.object("credential")?;
    let manual = credential.word("type", &[("ManualConfig", true), ("InheritFromDelegate", false)])?;
    let credential = match manual {
        true => manually(cx, &credential.object("spec")?, details)?,
        false => ClusterCredential::InheritFromDelegate { context: None },
    };
    // The package does not say how the connector is called.
    Ok(Cluster { connector: "Kubernetes connector".to_owned(), credential })
}

fn manually(cx: &mut Cx<'_>, spec: &View<'_>, details: &Details<'_>) -> Result<ClusterCredential, Fault> {
    let master_url = cx.plain(spec, "masterUrl")?;
    let auth = spec.object("auth")?;
    let login = auth.word("type", &LOGINS)?;
    let spec = auth.object("spec")?;
    let mut secret = |field: &str| cx.secrets.of_required(details, &spec, field);
    Ok(match login {
        Login::ServiceAccount => ClusterCredential::ServiceAccount {
            master_url,
            token: secret("serviceAccountTokenRef")?,
            ca: cx.secrets.of_maybe(details, &spec, "caCertRef")?,
        },
        Login::ClientKeyCert => ClusterCredential::ClientKeyCert {
            master_url,
            client_cert: secret("clientCertRef")?,
            client_key: secret("clientKeyRef")?,
            ca: cx.secrets.of_maybe(details, &spec, "caCertRef")?,
            passphrase: cx.secrets.of_maybe(details, &spec, "clientKeyPassphraseRef")?,
        },
        Login::OpenIdConnect => {
            let client = secret("oidcClientIdRef")?;
            let password = secret("oidcPasswordRef")?;
            let username = cx.secrets.name_or_secret(details, &spec, "oidcUsername", "oidcUsernameRef")?;
            let missing = || Fault::shape(&spec.at("oidcUsername"), "is missing; expected a user");
            ClusterCredential::OpenIdConnect {
                master_url,
                issuer_url: cx.plain(&spec, "oidcIssuerUrl")?,
                client_id: cx.secrets.standing_for(&client),
                client_secret: cx.secrets.of_maybe(details, &spec, "oidcSecretRef")?,
                username: username.ok_or_else(missing)?,
                password,
                scopes: cx.maybe_plain(&spec, "oidcScopes")?.unwrap_or_default(),
                ca: None,
            }
        }
    })
}
