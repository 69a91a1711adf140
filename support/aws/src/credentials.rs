//! Credentials of one account: made by AWS' own crates, kept across steps, fetched anew before they expire.

use crate::connector::{Connector, Time};
use crate::fault::CredentialFault;
use crate::session::Caller;
use crate::wire;
use aws_config::BehaviorVersion;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_types::os_shim_internal::Env;
use aws_types::region::Region;
use executor_api::{Clock, SecretText};
use secrecy::ExposeSecret as _;
use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, OnceCell};

/// Name of the sessions of assumed roles, as CloudTrail shows it.
const SESSION_NAME: &str = "delegate";
/// Credentials are renewed so long before they expire, milliseconds, unless they live for a short time only.
const MARGIN: u64 = 5 * 60 * 1000;

/// Who signs, secrets resolved.
pub(crate) enum Source {
    Static { access_key: SecretText, secret_key: SecretText, session_token: Option<SecretText> },
    Inherited,
    WebIdentity,
}

/// A role on top.
pub(crate) struct Role {
    pub(crate) arn: String,
    pub(crate) external_id: Option<SecretText>,
}

/// Everything that credentials are made of.
pub(crate) struct Recipe {
    pub(crate) source: Source,
    pub(crate) role: Option<Role>,
    /// The agent's variables with the endpoints in force.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where STS is asked.
    pub(crate) sts_region: String,
    pub(crate) connector: Connector,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Recipe {
    /// The provider; reads the agent's profiles.
    async fn provider(&self) -> Result<SharedCredentialsProvider, CredentialFault> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .env(Env::from(variables(&self.source, &self.environment)))
            .region(Region::new(self.sts_region.clone()))
            .time_source(Time(self.clock.clone()))
            .http_client(self.connector.clone());
        if let Source::Static { access_key, secret_key, session_token } = &self.source {
            let token = session_token.as_ref().map(|token| token.expose_secret().trim().to_owned());
            let (key, secret) = (access_key.expose_secret().trim(), secret_key.expose_secret().trim());
            loader = loader.credentials_provider(Credentials::new(key, secret, token, None, "connector"));
        }
        let config = loader.load().await;
        let Some(base) = config.credentials_provider() else {
            return Err(CredentialFault::Missing("AWS' library found no way to credentials".to_owned()));
        };
        let Some(role) = &self.role else { return Ok(base) };
        let assumed = AssumeRoleProvider::builder(&role.arn).session_name(SESSION_NAME).configure(&config);
        let assumed = match &role.external_id {
            Some(id) => assumed.external_id(id.expose_secret()),
            None => assumed,
        };
        Ok(SharedCredentialsProvider::new(assumed.build().await))
    }
}

/// What AWS' crates see of the agent's environment: for a web identity only what belongs to one, so that no other source
/// is taken silently in its place. EKS Pod Source has taken over where IRSA is not set up.
fn variables(identity: &Source, environment: &BTreeMap<String, String>) -> HashMap<String, String> {
    let everything = || environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    if !matches!(identity, Source::WebIdentity) {
        return everything().collect();
    }
    let irsa = environment.contains_key("AWS_WEB_IDENTITY_TOKEN_FILE");
    let mut all: HashMap<String, String> = everything()
        .filter(|(name, _)| {
            let own = if irsa {
                ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"]
                    .contains(&name.as_str())
            } else {
                name.starts_with("AWS_CONTAINER_")
            };
            own || name.starts_with("AWS_ENDPOINT_URL") || name.starts_with("AWS_USE_")
        })
        .collect();
    all.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
    all
}

/// Where credentials are looked for, in words, for whoever has none.
fn looked(source: &Source) -> String {
    match source {
        Source::Static { .. } => "the connector's keys cannot be used".to_owned(),
        Source::Inherited => "the agent has none: no AWS_ACCESS_KEY_ID, no profile below ~/.aws, no \
            AWS_WEB_IDENTITY_TOKEN_FILE, no AWS_CONTAINER_CREDENTIALS_… variable, and no instance role"
            .to_owned(),
        Source::WebIdentity => "neither AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN nor \
            AWS_CONTAINER_CREDENTIALS_FULL_URI is set for the agent"
            .to_owned(),
    }
}

/// The credentials of one account, shared by every session on it.
pub(crate) struct Slot {
    recipe: Recipe,
    held: Mutex<Held>,
    /// Whom they belong to, once somebody has asked.
    pub(crate) caller: OnceCell<Caller>,
    /// Number of their account, where the source tells it.
    account: OnceLock<String>,
}

#[derive(Default)]
struct Held {
    provider: Option<SharedCredentialsProvider>,
    /// With the time to renew them, epoch milliseconds.
    credentials: Option<(Credentials, Option<u64>)>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("caller", &self.caller.get()).finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn new(recipe: Recipe) -> Slot {
        Slot { recipe, held: Mutex::default(), caller: OnceCell::new(), account: OnceLock::new() }
    }

    /// Number of the account, if anybody has told it.
    pub(crate) fn account(&self) -> Option<&str> {
        let asked = || self.caller.get().map(|caller| &caller.account);
        self.account.get().or_else(asked).map(String::as_str)
    }

    /// Credentials that are good at `now` (epoch milliseconds). Whoever comes while they are being fetched waits for that.
    ///
    /// **Cancel**: safe; the next one fetches.
    pub(crate) async fn get(&self, now: u64) -> Result<Credentials, CredentialFault> {
        let mut held = self.held.lock().await;
        if let Some((credentials, renew_at)) = &held.credentials
            && renew_at.is_none_or(|at| now < at)
        {
            return Ok(credentials.clone());
        }
        let provider = match &held.provider {
            Some(provider) => provider.clone(),
            None => held.provider.insert(self.recipe.provider().await?).clone(),
        };
        match provider.provide_credentials().await {
            Ok(credentials) => {
                let renew_at = credentials.expiry().map(|expiry| renew_at(now, millis(expiry)));
                if let Some(account) = credentials.account_id() {
                    self.account.get_or_init(|| account.as_str().to_owned());
                }
                held.credentials = Some((credentials.clone(), renew_at));
                Ok(credentials)
            }
            Err(error) => {
                let old = held.credentials.as_ref().map(|(credentials, _)| credentials);
                // Not yet expired: a source that is away for a moment does not end a step.
                match old.filter(|old| old.expiry().is_some_and(|expiry| now < millis(expiry))) {
                    Some(old) => Ok(old.clone()),
                    None => Err(fault(&error, &looked(&self.recipe.source))),
                }
            }
        }
    }

    /// `bad` was refused as expired: the next one who asks gets others, from a provider that reads the agent's profiles
    /// anew. Nothing happens when somebody has renewed them.
    pub(crate) async fn renew(&self, bad: &Credentials) {
        let mut held = self.held.lock().await;
        let same = held.credentials.as_ref().is_some_and(|(held, _)| {
            held.access_key_id() == bad.access_key_id() && held.session_token() == bad.session_token()
        });
        if same {
            *held = Held::default();
        }
    }
}

/// Five minutes before the end, or at four fifths of a short life.
fn renew_at(now: u64, expiry: u64) -> u64 {
    let life = expiry.saturating_sub(now);
    expiry.saturating_sub(MARGIN.min(life / 5))
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// What a provider says, by type where its error has one.
fn fault(error: &CredentialsError, looked: &str) -> CredentialFault {
    if let Some((code, message)) = refusal(error) {
        let said = if message.is_empty() { code.clone() } else { message };
        return match code.as_str() {
            "ExpiredToken" | "ExpiredTokenException" => CredentialFault::Expired(said),
            "AccessDenied" | "AccessDeniedException" => CredentialFault::Denied(said),
            _ => CredentialFault::Invalid(said),
        };
    }
    let said = chain(error);
    match error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialFault::Missing(format!("{looked} ({said})")),
        CredentialsError::InvalidConfiguration(_) => CredentialFault::Missing(said),
        _ => CredentialFault::Unreachable(said),
    }
}

/// An error with its causes.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(at) = next {
        let text = at.to_string();
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        next = at.source();
    }
    said.join(": ")
}

/// Code and message of STS.
fn refusal(error: &CredentialsError) -> Option<(String, String)> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(at) = next {
        let found = of_sts::<AssumeRoleError>(at).or_else(|| of_sts::<AssumeRoleWithWebIdentityError>(at));
        if found.is_some() {
            return found;
        }
        next = at.source();
    }
    None
}

fn of_sts<E: ProvideErrorMetadata + StdError + 'static>(
    error: &(dyn StdError + 'static),
) -> Option<(String, String)> {
    if let Some(found) = error.downcast_ref::<E>() {
        return named(found);
    }
    let wrapped = error.downcast_ref::<SdkError<E>>()?;
    // An emulator or a proxy may wrap the error differently; the body still tells.
    let body = || wrapped.raw_response().and_then(|response| response.body().bytes()).unwrap_or_default();
    wrapped.as_service_error().and_then(named).or_else(|| {
        let found = wire::refusal(body(), None);
        (!found.code.is_empty()).then_some((found.code, found.message))
    })
}

fn named(error: &impl ProvideErrorMetadata) -> Option<(String, String)> {
    Some((error.code()?.to_owned(), error.message().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_before_expiry_and_never_before_most_of_a_life() {
        let minute = 60_000;
        assert_eq!(renew_at(0, 60 * minute), 55 * minute);
        assert_eq!(renew_at(0, 5 * minute), 4 * minute);
        assert_eq!(renew_at(10 * minute, 5 * minute), 5 * minute);
    }

    #[test]
    fn a_web_identity_sees_nothing_else() {
        let environment: BTreeMap<String, String> = [
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
            ("AWS_ROLE_ARN", "arn"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://x"),
            ("AWS_ENDPOINT_URL_STS", "http://sts"),
            ("HOME", "/root"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let names = |environment: &BTreeMap<String, String>, identity: Source| {
            let mut names: Vec<String> = variables(&identity, environment).into_keys().collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(
            names(&environment, Source::WebIdentity),
            "AWS_EC2_METADATA_DISABLED AWS_ENDPOINT_URL_STS AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE"
        );
        let mut pod = environment.clone();
        pod.remove("AWS_WEB_IDENTITY_TOKEN_FILE");
        assert_eq!(
            names(&pod, Source::WebIdentity),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_EC2_METADATA_DISABLED AWS_ENDPOINT_URL_STS"
        );
        assert_eq!(variables(&Source::Inherited, &environment).len(), environment.len());
    }
}
