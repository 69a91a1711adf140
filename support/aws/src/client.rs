//! What all steps of an agent share.

use crate::bucket::Buckets;
use crate::connector::Connector;
use crate::credentials::{Recipe, Role, Slot, Source};
use crate::endpoint::{self, EndpointFault};
use crate::operation::{Operation, Service};
use crate::session::{Session, Shape};
use crate::settings::{Settings, SetupError};
use crate::transport::Transport;
use executor_api::{Class, SecretError, SecretText, StepContext, StepError};
use proto::task::{AssumeRole, AwsAccount, AwsCredential};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Accounts whose credentials are kept. An agent sees a handful.
const MAX_SLOTS: usize = 256;

/// The AWS client of an agent. Cheap to clone; connections, credentials and token buckets are shared by all steps.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) transport: Arc<Transport>,
    pub(crate) buckets: Buckets,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// How far AWS' clock is ahead of ours, milliseconds, by endpoint host.
    pub(crate) skew: Mutex<HashMap<String, i64>>,
    sent: AtomicU64,
    called: Mutex<BTreeSet<Operation>>,
    /// Goes into every hash of secrets, so that no hash means anything outside this process.
    salt: [u64; 2],
}

/// What bounds a session.
pub(crate) struct Bounds {
    pub(crate) request_timeout: Duration,
    pub(crate) patience: Duration,
    /// Whether what other sessions know of the account is left aside.
    pub(crate) anew: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Reads the machine's certificate authorities; no other I/O.
    pub fn new(settings: Settings) -> Result<Client, SetupError> {
        let transport = Arc::new(Transport::new(&settings)?);
        let salt = [RandomState::new().hash_one(1), RandomState::new().hash_one(2)];
        Ok(Client(Arc::new(Shared {
            settings,
            transport,
            buckets: Buckets::default(),
            slots: Mutex::default(),
            skew: Mutex::default(),
            sent: AtomicU64::new(0),
            called: Mutex::default(),
            salt,
        })))
    }

    /// The account for one step. Resolves its secrets; asks nobody yet.
    ///
    /// **Errors**: a secret that cannot be had, a region or endpoint that is none.
    pub async fn session(&self, account: &AwsAccount, cx: &StepContext) -> Result<Session, StepError> {
        let Settings { request_timeout, patience, .. } = self.0.settings;
        self.open(account, cx, Bounds { request_timeout, patience, anew: false })
    }

    /// The account within other bounds.
    pub(crate) fn open(
        &self,
        account: &AwsAccount,
        cx: &StepContext,
        bounds: Bounds,
    ) -> Result<Session, StepError> {
        let connector = &account.connector;
        let target = format!("connector {connector}, region {}", account.region);
        let wrong = |fault: EndpointFault| {
            StepError::new(Class::BadSpec, "AWS-002", format!("connector `{connector}`: {fault}"))
                .target(&target)
        };
        endpoint::check_region(&account.region).map_err(wrong)?;
        let environment = endpoint::effective(&self.0.settings.environment, &account.endpoints);
        let source = source(account, cx)?;
        let role = account.assume_role.as_ref().map(|role| resolve_role(role, connector, cx)).transpose()?;
        let sts_region = sts_region(account, &environment);
        let endpoints: Vec<&str> = environment
            .iter()
            .filter(|(name, _)| name.starts_with(endpoint::VARIABLE))
            .flat_map(|(n, v)| [n.as_str(), v.as_str()])
            .collect();
        let who = self.hash(&source, role.as_ref(), &sts_region, &endpoints);
        let connector = Connector { transport: self.0.transport.clone(), aliases: cx.aliases.clone() };
        let recipe = Recipe {
            source,
            role,
            environment: environment.clone(),
            sts_region: sts_region.clone(),
            connector,
            clock: self.0.settings.clock.clone(),
        };
        let slot = if bounds.anew { Arc::new(Slot::new(recipe)) } else { self.slot(&who, recipe) };
        let key = format!("{who}-{}", account.region);
        let region = account.region.clone();
        let Bounds { request_timeout, patience, .. } = bounds;
        let region_of = |service| if service == Service::Sts { sts_region.clone() } else { region.clone() };
        let notes = endpoint::notes(region_of, &environment, &cx.aliases);
        let shape =
            Shape { slot, key, who, region, sts_region, target, request_timeout, patience, environment };
        let session = Session::new(self.clone(), shape, cx);
        notes.into_iter().for_each(|line| session.note(line));
        Ok(session)
    }

    /// How many requests have been sent so far, for measurements.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Every action that has been called so far: what a policy must allow.
    pub fn called(&self) -> Vec<Operation> {
        self.0.called.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(crate) fn count(&self, operation: Operation) -> u64 {
        self.0.called.lock().unwrap_or_else(PoisonError::into_inner).insert(operation);
        self.0.sent.fetch_add(1, Ordering::Relaxed)
    }

    fn slot(&self, who: &str, recipe: Recipe) -> Arc<Slot> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(who) {
            return slot.clone();
        }
        if slots.len() >= MAX_SLOTS {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        let slot = Arc::new(Slot::new(recipe));
        slots.insert(who.to_owned(), slot.clone());
        slot
    }

    /// A name for an identity that is equal for equal ones and tells nothing of its secrets.
    fn hash(&self, source: &Source, role: Option<&Role>, sts_region: &str, endpoints: &[&str]) -> String {
        let mut hash = Sha256::new();
        let mut put = |part: &str| {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        };
        for salt in self.0.salt {
            put(&salt.to_string());
        }
        match source {
            Source::Static { access_key, secret_key, session_token } => {
                put("static");
                put(access_key.expose_secret());
                put(secret_key.expose_secret());
                put(session_token.as_ref().map_or("", |token| token.expose_secret()));
            }
            Source::Inherited => put("inherited"),
            Source::WebIdentity => put("web identity"),
        }
        put(role.map_or("", |role| &role.arn));
        put(role.and_then(|role| role.external_id.as_ref()).map_or("", |id| id.expose_secret()));
        put(sts_region);
        endpoints.iter().for_each(|part| put(part));
        let mut name = hex::encode(hash.finalize());
        name.truncate(24);
        name
    }
}

/// Where STS is asked. Inherited credentials are of the agent's own place: its region is the one it surely reaches, often
/// through an endpoint inside its network.
fn sts_region(account: &AwsAccount, environment: &BTreeMap<String, String>) -> String {
    let own = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| {
        environment.get(*name).map(|region| region.trim()).filter(|region| !region.is_empty())
    });
    match (&account.credential, own) {
        (AwsCredential::InheritFromDelegate | AwsCredential::Irsa, Some(own))
            if endpoint::check_region(own).is_ok() && endpoint::same_partition(own, &account.region) =>
        {
            own.to_owned()
        }
        _ => account.region.clone(),
    }
}

fn source(account: &AwsAccount, cx: &StepContext) -> Result<Source, StepError> {
    Ok(match &account.credential {
        AwsCredential::InheritFromDelegate => Source::Inherited,
        AwsCredential::Irsa => Source::WebIdentity,
        AwsCredential::ManualConfig { access_key, secret_key, session_token } => {
            let failed = |field: &str, error| no_secret(&account.connector, field, error);
            let access_key = cx.secrets.reveal(access_key).map_err(|error| failed("accessKey", error))?;
            let secret_key = cx.secrets.reveal(secret_key).map_err(|error| failed("secretKeyRef", error))?;
            let token = session_token.as_ref().map(|token| cx.secrets.get(token)).transpose();
            let session_token = token.map_err(|error| failed("sessionTokenRef", error))?;
            for (field, value) in [("accessKey", &access_key), ("secretKeyRef", &secret_key)] {
                check_key(&account.connector, field, value)?;
            }
            Source::Static { access_key, secret_key, session_token }
        }
    })
}

/// A key goes into a header: what could not be one is told here, without its value.
fn check_key(connector: &str, field: &str, value: &SecretText) -> Result<(), StepError> {
    let trimmed = value.expose_secret().trim();
    let problem = if trimmed.is_empty() {
        "is empty"
    } else if trimmed.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        "holds characters that no key has (a line break, a space)"
    } else {
        return Ok(());
    };
    let text = format!("connector `{connector}`: {field} {problem}");
    Err(StepError::new(Class::BadSpec, "AWS-001", text)
        .hint("store the key itself: `delegate secret set NAME --stdin < FILE`"))
}

fn resolve_role(role: &AssumeRole, connector: &str, cx: &StepContext) -> Result<Role, StepError> {
    let external_id = role.external_id.as_ref().map(|id| cx.secrets.reveal(id)).transpose();
    let external_id = external_id.map_err(|error| no_secret(connector, "externalId", error))?;
    let arn = role.role_arn.trim();
    if !arn.starts_with("arn:") || arn.splitn(6, ':').count() < 6 {
        let text = format!(
            "connector `{connector}`: crossAccountRoleArn is `{arn}`; expected arn:aws:iam::ACCOUNT:role/NAME"
        );
        return Err(StepError::new(Class::BadSpec, "AWS-002", text));
    }
    Ok(Role { arn: arn.to_owned(), external_id: external_id.filter(|id| !id.expose_secret().is_empty()) })
}

fn no_secret(connector: &str, field: &str, error: SecretError) -> StepError {
    StepError::new(Class::BadSpec, "AWS-001", format!("connector `{connector}`: {field}: {error}"))
        .hint("check that the secret exists in this scope and that this agent may read it")
        .source(error)
}
