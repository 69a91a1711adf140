//! One account and region for the length of one step.

use crate::client::Client;
use crate::credentials::Slot;
use crate::endpoint;
use crate::fault::Fault;
use crate::operation::{Operation, Service};
use crate::retry::Repeat;
use crate::send::Change;
use executor_api::{SecretText, StepContext, TransportProbe};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A list of more pages than this is one that never ends.
const MAX_PAGES: usize = 10_000;
/// Lines that are kept until somebody takes them.
const MAX_NOTES: usize = 100;
/// The call that says who we are; everybody may make it.
const WHO: Operation = Service::Sts.op("GetCallerIdentity");
/// How the services name a page's successor in an answer, and in the next request.
const TOKENS: [(&str, &str); 3] =
    [("nextToken", "nextToken"), ("NextToken", "NextToken"), ("NextMarker", "Marker")];

/// Whom AWS takes us for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Number of the account.
    pub account: String,
    /// ARN of the user, role session or root.
    pub arn: String,
}

/// One account and region for the length of one step. Cheap to clone.
///
/// Every call ends with the step: reads when it is asked to end, changes when they are killed. A request that is under way
/// takes no longer than the client's `request_timeout`.
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
    /// Set for putting things back: until when.
    pub(crate) undo_until: Option<Instant>,
}

/// What a session is made of.
pub(crate) struct Shape {
    pub(crate) slot: Arc<Slot>,
    pub(crate) key: String,
    pub(crate) who: String,
    pub(crate) region: String,
    pub(crate) sts_region: String,
    pub(crate) target: String,
    /// Of one request.
    pub(crate) request_timeout: Duration,
    /// How long what may pass is waited out.
    pub(crate) patience: Duration,
    /// The agent's variables with the connector's endpoints laid over them.
    pub(crate) environment: BTreeMap<String, String>,
}

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) shape: Shape,
    pub(crate) cx: StepContext,
    notes: Mutex<Notes>,
    /// Hashes of the secrets that the masker knows.
    pub(crate) masked: Mutex<BTreeSet<[u8; 32]>>,
}

#[derive(Default)]
struct Notes {
    told: BTreeSet<String>,
    waiting: Vec<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("target", &self.inner.shape.target).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(client: Client, shape: Shape, cx: &StepContext) -> Session {
        let inner =
            Inner { client, shape, cx: cx.clone(), notes: Mutex::default(), masked: Mutex::default() };
        Session { inner: Arc::new(inner), undo_until: None }
    }

    /// The region of every call.
    pub fn region(&self) -> &str {
        &self.inner.shape.region
    }

    /// For messages: `connector prod, region us-east-1`.
    pub fn target(&self) -> &str {
        &self.inner.shape.target
    }

    /// Equal for sessions of one client with the same identity, region and endpoints: what may share its polls.
    pub fn key(&self) -> &str {
        &self.inner.shape.key
    }

    /// This session for putting things back after a cancel: its calls end only when the step is killed, and `limit` from now
    /// at the latest.
    #[must_use]
    pub fn for_undo(&self, limit: Duration) -> Session {
        Session { inner: self.inner.clone(), undo_until: Some(self.inner.cx.clock.mono() + limit) }
    }

    /// Lines for the step's log since the last call, each once: at first the endpoints and host aliases in force, later what
    /// is waited for and tried again.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner).waiting)
    }

    pub(crate) fn note(&self, line: String) {
        let mut notes = self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.told.len() < MAX_NOTES && notes.told.insert(line.clone()) {
            notes.waiting.push(line);
        }
    }

    /// Whom AWS takes us for. Asked once for each identity of the client.
    pub async fn caller(&self) -> Result<Caller, Fault> {
        let ask = async || {
            let answer = self.read(WHO, Value::Object(Map::new())).await?;
            let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
            match (text("Account"), text("Arn")) {
                (Some(account), Some(arn)) => Ok(Caller { account, arn }),
                _ => Err(Fault::Strange("the answer to GetCallerIdentity names nobody".to_owned())),
            }
        };
        self.inner.shape.slot.caller.get_or_try_init(ask).await.cloned()
    }

    /// The caller, if somebody has asked already.
    pub(crate) fn known_caller(&self) -> Option<Caller> {
        self.inner.shape.slot.caller.get().cloned()
    }

    /// Asks for something. Repeated while that may help.
    ///
    /// **Cancel**: ends at once when the step is asked to end. **Repeat**: safe.
    pub async fn read(&self, operation: Operation, input: Value) -> Result<Value, Fault> {
        let answer = self.send(operation, &input, Repeat::Safe, None).await;
        // What a denial is told with; the answer is kept, and everybody may ask.
        if matches!(&answer, Err(fault) if fault.is_denied()) && operation != WHO {
            Box::pin(self.learn_caller()).await;
        }
        answer
    }

    /// Changes something, as a checkpoint has announced it under `call`. The probe is told once, however often the request
    /// is repeated.
    ///
    /// **Cancel**: before the request leaves, when the step is asked to end; afterwards only when it is killed, because what
    /// AWS made of a request that is cut off is not known. **Repeat**: as `repeat` says.
    pub async fn change(
        &self,
        probe: &dyn TransportProbe,
        call: &str,
        operation: Operation,
        input: Value,
        repeat: Repeat,
    ) -> Result<Value, Fault> {
        let answer = self.send(operation, &input, repeat, Some(Change { probe, call })).await;
        if matches!(&answer, Err(fault) if fault.is_denied()) {
            self.learn_caller().await;
        }
        answer
    }

    async fn learn_caller(&self) {
        if let Err(fault) = self.caller().await {
            tracing::debug!(%fault, "the caller of a denied request is not known");
        }
    }

    /// Every entry of the list `list` of an action that answers in pages.
    ///
    /// **Errors**: also an answer whose token came before: such a list would never end.
    pub async fn pages(&self, operation: Operation, input: Value, list: &str) -> Result<Vec<Value>, Fault> {
        let mut input = match input {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        loop {
            let mut answer = self.read(operation, Value::Object(input.clone())).await?;
            if let Some(Value::Array(entries)) = answer.get_mut(list) {
                all.append(entries);
            }
            let next = TOKENS.iter().find_map(|(from, to)| {
                let token = answer.get(*from)?.as_str().filter(|token| !token.is_empty())?;
                Some(((*to).to_owned(), token.to_owned()))
            });
            let Some((name, token)) = next else { return Ok(all) };
            if !seen.insert(token.clone()) || seen.len() > MAX_PAGES {
                return Err(Fault::Strange(format!("{} gives the same page again", operation.name)));
            }
            input.insert(name, Value::String(token));
        }
    }

    /// What a child process needs to call AWS as this session does: keys, region and the endpoints in force.
    pub async fn environment(&self) -> Result<Vec<(String, SecretText)>, Fault> {
        let credentials = self.credentials().await?;
        let mut all = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), SecretText::from(credentials.access_key_id())),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), SecretText::from(credentials.secret_access_key())),
        ];
        if let Some(token) = credentials.session_token() {
            all.push(("AWS_SESSION_TOKEN".to_owned(), SecretText::from(token)));
        }
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            all.push((name.to_owned(), SecretText::from(self.region())));
        }
        let kept = |name: &str| name.starts_with(endpoint::VARIABLE) || name.starts_with("AWS_USE_");
        let environment = self.inner.shape.environment.iter().filter(|(name, _)| kept(name));
        all.extend(environment.map(|(name, value)| (name.clone(), SecretText::from(value.as_str()))));
        Ok(all)
    }
}
