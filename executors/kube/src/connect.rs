//! A client for the cluster of a connector: every kind of credential, host aliases, in-cluster account, kubeconfig.

use crate::Settings;
use crate::error::{Fault, bad_spec, no_secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use executor_api::{Level, SecretText, StepContext, StepError, UnitLog};
use kube::config::{AuthInfo, ExecInteractiveMode, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use proto::task::{Cluster, ClusterCredential};
use proto::text::SecretRef;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use std::path::Path;
use std::time::Duration;

/// A client for `cluster`, and the URL of its API server for messages.
///
/// **Errors**: a secret or kubeconfig that cannot be had, an exec plugin that fails. The server is not asked yet.
pub(crate) async fn connect(
    cluster: &Cluster,
    cx: &StepContext,
    log: &dyn UnitLog,
    settings: &Settings,
) -> Result<(Client, String), StepError> {
    let mut config = configuration(cluster, cx, settings).await?;
    config.connect_timeout = Some(Duration::from_secs(10));
    // Watches may be silent for long; every other request has a limit of its own.
    config.read_timeout = None;
    // Repeated in one place, where cancel and patience are known.
    config.default_retry = false;
    let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    alias(&mut config, cx, log).await?;
    // Making the client may run an exec plugin, which blocks.
    let made = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
    let client = match made {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(Fault::from(error).step("connect", &url)),
        Err(error) => return Err(Fault::Credentials(error.to_string()).step("connect", &url)),
    };
    Ok((client, url))
}

async fn configuration(
    cluster: &Cluster,
    cx: &StepContext,
    settings: &Settings,
) -> Result<Config, StepError> {
    match &cluster.credential {
        ClusterCredential::InheritFromDelegate { context } => {
            inherited(context.as_deref(), settings.kubeconfig.as_deref()).await
        }
        ClusterCredential::ServiceAccount { master_url, token, ca } => {
            let mut config = base(master_url, ca.as_ref(), cx)?;
            let token = secret("token", token, cx)?;
            config.auth_info.token = Some(SecretString::from(token.expose_secret().trim()));
            Ok(config)
        }
        ClusterCredential::ClientKeyCert { master_url, ca, client_cert, client_key, passphrase } => {
            let mut config = base(master_url, ca.as_ref(), cx)?;
            let cert = pem("clientCert", &secret("clientCert", client_cert, cx)?)?;
            let key = pem("clientKey", &secret("clientKey", client_key, cx)?)?;
            if passphrase.is_some() || key.expose_secret().contains("ENCRYPTED") {
                return Err(bad_spec("KUBE-031", "clientKey: a key with a passphrase is not supported")
                    .hint(
                        "store the key without a passphrase (`openssl pkey -in KEY -out PLAIN`) as a secret",
                    ));
            }
            config.auth_info.client_certificate_data = Some(STANDARD.encode(cert.expose_secret()));
            config.auth_info.client_key_data = Some(SecretString::from(STANDARD.encode(key.expose_secret())));
            Ok(config)
        }
        ClusterCredential::OpenIdConnect { master_url, ca, .. } => {
            let mut config = base(master_url, ca.as_ref(), cx)?;
            let token = crate::oidc::token(&cluster.credential, settings.ca_pem.as_deref(), cx).await?;
            config.auth_info.token = Some(token);
            Ok(config)
        }
    }
}

/// The in-cluster account, else the kubeconfig of the agent. A kubeconfig that the agent was given goes first.
async fn inherited(context: Option<&str>, kubeconfig: Option<&Path>) -> Result<Config, StepError> {
    if context.is_none()
        && kubeconfig.is_none()
        && let Ok(config) = Config::incluster()
    {
        return Ok(config);
    }
    let missing = |error: kube::config::KubeconfigError| {
        bad_spec("KUBE-031", format!("the agent's kubeconfig cannot be used: {error}"))
            .hint("run the agent in the cluster, or set KUBECONFIG for it to a file that names this context")
            .source(error)
    };
    let mut file = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from).map_err(missing)?;
    for user in &mut file.auth_infos {
        if let Some(AuthInfo { exec: Some(exec), .. }) = &mut user.auth_info {
            // Nobody sits at an agent's terminal.
            exec.interactive_mode = Some(ExecInteractiveMode::Never);
        }
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(file, &options).await.map_err(missing)
}

fn base(url: &str, ca: Option<&SecretRef>, cx: &StepContext) -> Result<Config, StepError> {
    let uri: http::Uri = url.trim().parse().map_err(|error| {
        bad_spec("KUBE-010", format!("masterUrl `{url}` is not a URL: {error}; expected https://HOST:PORT"))
    })?;
    if uri.host().is_none() || uri.scheme().is_none() {
        return Err(bad_spec(
            "KUBE-010",
            format!("masterUrl `{url}` is not complete; expected https://HOST:PORT"),
        ));
    }
    let mut config = Config::new(uri);
    if let Some(ca) = ca {
        let text = pem("caCert", &secret("caCert", ca, cx)?)?;
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(text.expose_secret().as_bytes()).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => {
                config.root_cert = Some(certificates.into_iter().map(|der| der.to_vec()).collect());
            }
            _ => {
                return Err(bad_spec(
                    "KUBE-031",
                    format!("caCert: secret `{}` holds no certificate in PEM", ca.0),
                )
                .hint("store the file itself: `delegate secret set NAME --stdin < FILE`"));
            }
        }
    }
    Ok(config)
}

pub(crate) fn secret(field: &str, reference: &SecretRef, cx: &StepContext) -> Result<SecretText, StepError> {
    cx.secrets.get(reference).map_err(|error| no_secret(field, error))
}

/// PEM as it is, or out of the base64 in which kubeconfigs and many people keep it.
fn pem(field: &str, text: &SecretText) -> Result<SecretText, StepError> {
    let clear = text.expose_secret();
    if clear.contains("-----BEGIN") {
        return Ok(text.clone());
    }
    let packed: String = clear.split_whitespace().collect();
    let decoded = STANDARD.decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded {
        Some(decoded) if decoded.contains("-----BEGIN") => Ok(SecretText::from(decoded)),
        _ => {
            let text = format!("{field}: the secret is neither PEM nor PEM in base64");
            Err(bad_spec("KUBE-031", text)
                .hint("store the file itself: `delegate secret set NAME --stdin < FILE`"))
        }
    }
}

/// Connects to the alias of the host, if the agent has one; the certificate is still checked against the name.
async fn alias(config: &mut Config, cx: &StepContext, log: &dyn UnitLog) -> Result<(), StepError> {
    let Some(host) = config.cluster_url.host().map(str::to_owned) else { return Ok(()) };
    let plain = config.cluster_url.scheme_str() == Some("http");
    let port = config.cluster_url.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let Some((address, to)) = cx.aliases.lookup(&host, port) else { return Ok(()) };
    let authority =
        if address.contains(':') { format!("[{address}]:{to}") } else { format!("{address}:{to}") };
    let mut parts = config.cluster_url.clone().into_parts();
    parts.authority = authority.parse().ok();
    match http::Uri::from_parts(parts) {
        Ok(uri) => config.cluster_url = uri,
        Err(error) => {
            return Err(bad_spec(
                "KUBE-010",
                format!("the host alias of {host}:{port} is no address: {error}"),
            ));
        }
    }
    if config.tls_server_name.is_none() {
        config.tls_server_name = Some(host.trim_matches(['[', ']']).to_owned());
    }
    log.line(Level::Info, &format!("host alias: {host}:{port} is reached at {authority}"))
        .await
        .map_err(crate::error::log_closed)
}
