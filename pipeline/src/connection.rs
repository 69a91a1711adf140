//! Connectors as agents need them: URL, credential and headers, with their secrets by reference.
//!
//! A step of a run and the test of a connector know their texts in different ways; what they make of a connector is the
//! same.

use crate::model::Field;
use crate::model::connector::{Auth, HeaderValue};
use crate::model::connector_aws::{AwsConnector, AwsLogin, KeyPart};
use crate::model::connector_k8s::{K8sCredential, OpenIdConnect};
use proto::task::{
    AssumeRole, AwsAccount, AwsCredential, Cluster, ClusterCredential, HttpAuth, HttpConnector, SshTarget,
    SshUrl,
};
use proto::text::{SecretRef, Text, placeholder, placeholders};

/// Knows the texts of a connector, and which secrets its task needs.
pub trait Resolve {
    /// What is wrong with a field.
    type Error;

    /// The text of a field. **Errors**: it is not known here.
    fn text(&self, field: &Field) -> Result<String, Self::Error>;

    /// Notes that the task needs a secret. **Repeat**: safe.
    fn secret(&mut self, reference: &str) -> SecretRef;

    /// The text of a field that may be `<+secrets.getValue("…")>`: its secrets stand as placeholders, and are noted.
    /// **Errors**: it is not known here.
    fn secret_text(&mut self, field: &Field) -> Result<Text, Self::Error>;

    /// Token of genuine secret placeholders.
    fn token(&self) -> i64;

    /// The login at a place over SSH, by the SSHKey secret that a field names; what the place says goes before what the
    /// secret says. **Errors**: there is no such secret, or it is no SSHKey.
    fn login(&mut self, key_ref: &Field, place: SshUrl) -> Result<SshTarget, Self::Error>;

    /// The error that a field is wrong.
    fn fault(&self, field: &Field, message: String) -> Self::Error;
}

fn referenced<R: Resolve>(by: &mut R, field: &Field) -> Result<SecretRef, R::Error> {
    let reference = by.text(field)?;
    Ok(by.secret(&reference))
}

fn maybe<R: Resolve>(by: &mut R, field: Option<&Field>) -> Result<Option<SecretRef>, R::Error> {
    field.map(|field| referenced(by, field)).transpose()
}

/// The placeholder of the secret that a field names.
fn placed<R: Resolve>(by: &mut R, field: &Field) -> Result<Text, R::Error> {
    let secret = referenced(by, field)?;
    Ok(Text(placeholder(&secret, by.token())))
}

/// In clear or from a secret; empty when neither is written.
fn name<R: Resolve>(by: &mut R, clear: Option<&Field>, secret: Option<&Field>) -> Result<Text, R::Error> {
    match (clear, secret) {
        (Some(clear), _) => by.text(clear).map(Text),
        (None, Some(reference)) => placed(by, reference),
        (None, None) => Ok(Text::default()),
    }
}

/// A connector that is reached over HTTP. **Errors**: those of `by`.
pub fn http<R: Resolve>(
    by: &mut R,
    identifier: &str,
    url: &Field,
    auth: &Auth,
) -> Result<HttpConnector, R::Error> {
    git(by, identifier, (url, None), auth)
}

/// A repository, over HTTP or SSH; `url` may lead to an account, which is joined with `repo_name`.
///
/// **Errors**: those of `by`.
pub fn git<R: Resolve>(
    by: &mut R,
    identifier: &str,
    (url, repo_name): (&Field, Option<&Field>),
    auth: &Auth,
) -> Result<HttpConnector, R::Error> {
    let mut text = by.text(url)?;
    if let Some(repo_name) = repo_name {
        let repo_name = by.text(repo_name)?;
        text = format!("{}/{}", text.trim_end_matches('/'), repo_name.trim_start_matches('/'));
    }
    let auth = credential(by, auth, (url, &text))?;
    Ok(HttpConnector { identifier: identifier.to_owned(), url: text, auth, headers: Vec::new() })
}

fn credential<R: Resolve>(
    by: &mut R,
    auth: &Auth,
    (field, url): (&Field, &str),
) -> Result<HttpAuth, R::Error> {
    Ok(match auth {
        Auth::Anonymous => HttpAuth::Anonymous,
        Auth::UsernamePassword { username, username_ref, password_ref } => HttpAuth::UsernamePassword {
            username: name(by, username.as_ref(), username_ref.as_ref())?,
            password: referenced(by, password_ref)?,
        },
        Auth::Bearer { token_ref } => HttpAuth::Bearer { token: referenced(by, token_ref)? },
        Auth::Ssh { key_ref } => {
            let place = SshUrl::parse(url).ok_or_else(|| {
                by.fault(field, format!("`{url}` is no place over SSH; expected {}", SshUrl::SHAPE))
            })?;
            HttpAuth::Ssh(Box::new(by.login(key_ref, place)?))
        }
    })
}

/// The headers of a connector. **Errors**: those of `by`.
pub fn headers<R: Resolve>(
    by: &mut R,
    written: &[(Field, HeaderValue)],
) -> Result<Vec<(String, Text)>, R::Error> {
    let mut headers = Vec::new();
    for (key, value) in written {
        let value = match value {
            HeaderValue::Plain(value) => Text(by.text(value)?),
            HeaderValue::Secret(reference) => placed(by, reference)?,
        };
        headers.push((by.text(key)?, value));
    }
    Ok(headers)
}

/// A cluster and how to log in to it. **Errors**: those of `by`.
pub fn cluster<R: Resolve>(
    by: &mut R,
    identifier: &str,
    credential: &K8sCredential,
) -> Result<Cluster, R::Error> {
    let optional = |by: &R, field: &Option<Field>| field.as_ref().map(|field| by.text(field)).transpose();
    let credential = match credential {
        K8sCredential::InheritFromDelegate { context } => {
            ClusterCredential::InheritFromDelegate { context: optional(by, context)? }
        }
        K8sCredential::ServiceAccount { master_url, token, ca } => ClusterCredential::ServiceAccount {
            master_url: by.text(master_url)?,
            token: referenced(by, token)?,
            ca: maybe(by, ca.as_ref())?,
        },
        K8sCredential::ClientKeyCert { master_url, ca, client_cert, client_key, passphrase } => {
            ClusterCredential::ClientKeyCert {
                master_url: by.text(master_url)?,
                ca: maybe(by, ca.as_ref())?,
                client_cert: referenced(by, client_cert)?,
                client_key: referenced(by, client_key)?,
                passphrase: maybe(by, passphrase.as_ref())?,
            }
        }
        K8sCredential::OpenIdConnect(oidc) => {
            let OpenIdConnect {
                master_url,
                issuer_url,
                client_id,
                client_secret,
                username,
                username_ref,
                password,
                scopes,
                ca,
            } = &**oidc;
            ClusterCredential::OpenIdConnect {
                client_id: placed(by, client_id)?,
                username: name(by, username.as_ref(), username_ref.as_ref())?,
                master_url: by.text(master_url)?,
                issuer_url: by.text(issuer_url)?,
                client_secret: maybe(by, client_secret.as_ref())?,
                password: referenced(by, password)?,
                scopes: optional(by, scopes)?.unwrap_or_default(),
                ca: maybe(by, ca.as_ref())?,
            }
        }
    };
    Ok(Cluster { connector: identifier.to_owned(), credential })
}

/// An account in `region`, and who signs requests to it. **Errors**: those of `by`; a secret key that is no secret.
pub fn aws<R: Resolve>(
    by: &mut R,
    identifier: &str,
    account: &AwsConnector,
    region: &str,
) -> Result<AwsAccount, R::Error> {
    let part = |by: &mut R, part: &KeyPart| match part {
        KeyPart::Written(field) => by.secret_text(field),
        KeyPart::Secret(field) => placed(by, field),
    };
    let credential = match &account.credential {
        AwsLogin::ManualConfig { access_key, secret_key, session_token } => {
            let access_key = part(by, access_key)?;
            let secret = part(by, secret_key)?;
            let token = by.token();
            let whole = |found: &proto::text::Placeholder| {
                found.token == token && found.range == (0..secret.as_str().len())
            };
            // A variable would bring the key in clear into every document that carries it.
            if let (KeyPart::Written(field), false) =
                (secret_key, placeholders(secret.as_str()).iter().any(whole))
            {
                let message = "the secret key must be one secret: `<+secrets.getValue(\"name\")>`";
                return Err(by.fault(field, message.to_owned()));
            }
            let session_token = maybe(by, session_token.as_ref())?;
            AwsCredential::ManualConfig { access_key, secret_key: secret, session_token }
        }
        AwsLogin::InheritFromDelegate => AwsCredential::InheritFromDelegate,
        AwsLogin::Irsa => AwsCredential::Irsa,
    };
    let assume_role = match &account.assume_role {
        Some((arn, external_id)) => Some(AssumeRole {
            role_arn: by.text(arn)?,
            external_id: external_id.as_ref().map(|field| by.secret_text(field)).transpose()?,
        }),
        None => None,
    };
    let mut endpoints = std::collections::BTreeMap::new();
    for (service, url) in &account.endpoints {
        endpoints.insert(service.clone(), by.text(url)?);
    }
    let region = region.trim().to_owned();
    Ok(AwsAccount { connector: identifier.to_owned(), region, credential, assume_role, endpoints })
}
