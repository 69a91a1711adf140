//! A token of an OpenID provider by the password grant, as a Harness connector describes it.

use crate::connect::secret;
use crate::error::{Fault, bad_spec, no_secret};
use executor_api::{Class, StepContext, StepError};
use proto::task::ClusterCredential;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize)]
struct Provider {
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The id token for `credential`; the provider may be known by an authority of `ca_pem`. The token is told to the masker.
///
/// **Errors**: the provider is away (`KUBE-011`) or refuses (`KUBE-013`).
pub(crate) async fn token(
    credential: &ClusterCredential,
    ca_pem: Option<&[u8]>,
    cx: &StepContext,
) -> Result<SecretString, StepError> {
    let ClusterCredential::OpenIdConnect {
        issuer_url,
        client_id,
        client_secret,
        username,
        password,
        scopes,
        ..
    } = credential
    else {
        return Err(bad_spec("KUBE-010", "the credentials are not those of an OpenID provider"));
    };
    let reveal = |field: &str, text| cx.secrets.reveal(text).map_err(|error| no_secret(field, error));
    let (client_id, username) = (reveal("oidcClientId", client_id)?, reveal("oidcUsername", username)?);
    let password = secret("oidcPassword", password, cx)?;
    let client_secret = client_secret.as_ref().map(|s| secret("oidcSecret", s, cx)).transpose()?;
    let issuer = issuer_url.trim_end_matches('/');
    let client = client(issuer, ca_pem, cx).await?;
    let discovery = format!("{issuer}/.well-known/openid-configuration");
    let away = |error: reqwest::Error| {
        Fault::Connection { cause: error.without_url().to_string(), source: None }
            .step("log in at the OpenID provider", issuer)
    };
    let provider: Provider = client.get(discovery).send().await.map_err(away)?.json().await.map_err(away)?;
    let scopes = if scopes.is_empty() { "openid" } else { scopes };
    let mut form = vec![
        ("grant_type", "password"),
        ("client_id", client_id.expose_secret()),
        ("username", username.expose_secret()),
        ("password", password.expose_secret()),
        ("scope", scopes),
    ];
    if let Some(secret) = &client_secret {
        form.push(("client_secret", secret.expose_secret()));
    }
    let answer = client.post(&provider.token_endpoint).form(&form).send().await.map_err(away)?;
    let status = answer.status();
    if !status.is_success() {
        let refusal = answer
            .json()
            .await
            .unwrap_or(Refusal { error: format!("HTTP {status}"), error_description: String::new() });
        let text =
            format!("the OpenID provider refuses the login: {} {}", refusal.error, refusal.error_description);
        return Err(StepError::new(Class::Authentication, "KUBE-013", text.trim())
            .target(issuer)
            .hint("check user, password, client and scopes of the connector; the provider must allow the password grant"));
    }
    let tokens: Tokens = answer.json().await.map_err(away)?;
    let token = tokens.id_token.ok_or_else(|| {
        bad_spec("KUBE-013", "the OpenID provider gave no id token")
            .hint("the scopes of the connector must hold `openid`")
    })?;
    cx.secrets.mask(&token);
    Ok(token)
}

async fn client(issuer: &str, ca_pem: Option<&[u8]>, cx: &StepContext) -> Result<reqwest::Client, StepError> {
    let url = reqwest::Url::parse(issuer)
        .map_err(|error| bad_spec("KUBE-010", format!("oidcIssuerUrl `{issuer}` is not a URL: {error}")))?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(443);
    let mut route = None;
    if let Some((address, to)) = cx.aliases.lookup(host, port) {
        let found = tokio::net::lookup_host((address.as_str(), to)).await.map_err(|error| {
            Fault::Connection { cause: error.to_string(), source: None }
                .step("log in at the OpenID provider", issuer)
        })?;
        route = Some(found.collect::<Vec<_>>());
    }
    let base = || {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(20));
        match &route {
            Some(addresses) => builder.resolve_to_addrs(host, addresses),
            None => builder,
        }
    };
    sources::trusting(ca_pem, base)
        .map_err(|error| Fault::Strange(error.to_string()).step("log in at the OpenID provider", issuer))
}
