//! One call from its document to its answer: token, credentials, signature, request, and what follows a fault.

use crate::bucket::{Group, group};
use crate::endpoint;
use crate::fault::{CredentialFault, Fault};
use crate::operation::{Operation, Service};
use crate::retry::{Limits, Next, Repeat, Tries, next};
use crate::session::Session;
use crate::transport::{Answer, Request};
use crate::wire::{self, Encoded};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use executor_api::{CancelStage, SecretText, TransportProbe};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::sync::PoisonError;
use std::time::{Duration, UNIX_EPOCH};
use url::Url;

/// AWS refuses signatures that are five minutes old; less than that is no matter of the clock.
const SKEW: i64 = 4 * 60 * 1000;

/// What a change is announced as.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) probe: &'a dyn TransportProbe,
    pub(crate) call: &'a str,
}

/// A fault of one try, and how far the server's clock is ahead if it told the time, milliseconds.
struct Failed {
    fault: Fault,
    skew: Option<i64>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed { fault, skew: None }
    }
}

impl Session {
    /// Sends a call, and again while that is of use and allowed.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        input: &Value,
        repeat: Repeat,
        change: Option<Change<'_>>,
    ) -> Result<Value, Fault> {
        let encoded = wire::encode(operation, input);
        let mut told = false;
        let answer = self.tries(operation, &encoded, repeat, change, &mut told).await;
        if let (true, Some(Change { probe, call })) = (told, change) {
            probe.after(&self.inner.cx.task_id, call).await;
        }
        let answer = answer?;
        wire::decode(operation, &answer.body).map_err(Fault::Strange)
    }

    async fn tries(
        &self,
        operation: Operation,
        encoded: &Encoded,
        repeat: Repeat,
        change: Option<Change<'_>>,
        told: &mut bool,
    ) -> Result<Answer, Fault> {
        let clock = &self.inner.cx.clock;
        let patience = self.inner.shape.patience;
        let group = group(operation);
        let mut tries = Tries::default();
        let mut first_fault = None;
        loop {
            let failed = match self.credentials().await {
                Err(fault) => fault.into(),
                Ok(credentials) => {
                    self.turn(group).await?;
                    if let (false, Some(Change { probe, call })) = (*told, change) {
                        probe.before(&self.inner.cx.task_id, call).await;
                        *told = true;
                    }
                    match self.once(operation, encoded, &credentials, change.is_some()).await {
                        Ok(answer) => return Ok(answer),
                        Err(failed) => {
                            if failed.fault.is_expired() {
                                self.inner.shape.slot.renew(&credentials).await;
                            }
                            failed
                        }
                    }
                }
            };
            let Failed { fault, skew } = failed;
            let now = clock.mono();
            if fault.is_throttled() {
                let (account, region) = self.scope();
                self.inner.client.0.buckets.slow_down(account, region, group, now);
            }
            tries.failed += 1;
            tries.waited = now.saturating_duration_since(*first_fault.get_or_insert(now));
            let limits = Limits { patience, left: self.time_left() };
            let skewed = skew.is_some_and(|ahead| ahead.abs() >= SKEW);
            match next(&fault, repeat, tries, limits, skewed, self.jitter()) {
                Next::GiveUp => return Err(fault),
                Next::Renew => tries.renewed = true,
                Next::Correct => {
                    tries.corrected = true;
                    self.correct(operation.service, skew.unwrap_or_default());
                }
                Next::Wait(pause) => {
                    tracing::debug!(operation = operation.name, %fault, ?pause, "an AWS call is repeated");
                    self.note(format!(
                        "{} {}: {fault}; trying again",
                        operation.service.title(),
                        operation.name
                    ));
                    tokio::select! {
                        biased;
                        (reason, _) = self.inner.cx.cancel.wait_for(self.stage(false)) => return Err(Fault::Cancelled(reason)),
                        () = clock.sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// When calls end: those that change something are seen to their end unless nobody wants to wait any more.
    fn stage(&self, change: bool) -> CancelStage {
        if change || self.undo_until.is_some() { CancelStage::Kill } else { CancelStage::Ask }
    }

    fn time_left(&self) -> Duration {
        let until = self.undo_until.unwrap_or(self.inner.cx.deadline);
        until.saturating_duration_since(self.inner.cx.clock.mono())
    }

    /// What a token bucket belongs to: the account as far as its number is known, else the identity.
    fn scope(&self) -> (&str, &str) {
        (self.inner.shape.slot.account().unwrap_or(&self.inner.shape.who), &self.inner.shape.region)
    }

    fn jitter(&self) -> f64 {
        // The clock's milliseconds and the count of requests keep callers apart, and a test's clock makes them known.
        let mixed = self.inner.cx.clock.wall().wrapping_add(self.inner.client.sent().wrapping_mul(379));
        f64::from(u32::try_from(mixed % 1000).unwrap_or(0)) / 1000.0
    }

    /// Waits for a token.
    async fn turn(&self, group: Group) -> Result<(), Fault> {
        let (clock, buckets) = (&self.inner.cx.clock, &self.inner.client.0.buckets);
        let cancel = &self.inner.cx.cancel;
        let stage = self.stage(false);
        if let Some((reason, _)) = cancel.requested().filter(|(_, asked)| *asked >= stage) {
            return Err(Fault::Cancelled(reason));
        }
        let (account, region) = self.scope();
        let wait = buckets.take(account, region, group, clock.mono());
        if wait.is_zero() {
            return Ok(());
        }
        if wait > self.time_left() {
            buckets.give_back(account, region, group, clock.mono());
            return Err(Fault::Timeout(self.time_left()));
        }
        if wait >= Duration::from_secs(2) {
            let line = format!("waiting for a turn: AWS allows few calls a second here ({})", group.name);
            self.note(line);
        }
        tokio::select! {
            biased;
            (reason, _) = cancel.wait_for(stage) => {
                buckets.give_back(account, region, group, clock.mono());
                Err(Fault::Cancelled(reason))
            }
            () = clock.sleep(wait) => Ok(()),
        }
    }

    /// Credentials that are good now; their secrets are known to the masker before anybody sees them.
    pub(crate) async fn credentials(&self) -> Result<Credentials, Fault> {
        let cx = &self.inner.cx;
        let limit = self.inner.shape.request_timeout;
        let now = self.inner.client.0.settings.clock.wall();
        let credentials = tokio::select! {
            biased;
            (reason, _) = cx.cancel.wait_for(self.stage(false)) => return Err(Fault::Cancelled(reason)),
            found = self.inner.shape.slot.get(now) => found?,
            () = cx.clock.sleep(limit) => {
                let text = format!("no credentials within {} s", limit.as_secs());
                return Err(Fault::Credentials(CredentialFault::Unreachable(text)));
            }
        };
        let mut masked = self.inner.masked.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in
            [Some(credentials.secret_access_key()), credentials.session_token()].into_iter().flatten()
        {
            if masked.insert(hash_of(secret)) {
                cx.secrets.mask(&SecretText::from(secret));
            }
        }
        Ok(credentials)
    }

    async fn once(
        &self,
        operation: Operation,
        encoded: &Encoded,
        credentials: &Credentials,
        change: bool,
    ) -> Result<Answer, Failed> {
        let shape = &self.inner.shape;
        let region = if operation.service == Service::Sts { &shape.sts_region } else { &shape.region };
        let endpoint = endpoint::resolve(operation.service, region, &shape.environment)
            .map_err(|fault| Fault::Endpoint(fault.to_string()))?;
        let host = endpoint.url.host_str().unwrap_or_default().to_owned();
        let ahead =
            self.inner.client.0.skew.lock().unwrap_or_else(PoisonError::into_inner).get(&host).copied();
        let now = self.inner.cx.clock.wall().saturating_add_signed(ahead.unwrap_or_default());
        let request = signed(operation, encoded, endpoint.url, region, credentials, now)?;
        self.inner.client.count(operation);
        let notice = |line: String| self.note(line);
        let exchange = self.inner.client.0.transport.exchange(request, &self.inner.cx.aliases, &notice);
        let limit = self.inner.shape.request_timeout;
        // A change that is under way is not cut off by the step's deadline: the agent asks and then kills.
        let limit = if change { limit } else { limit.min(self.time_left()) };
        let answer = tokio::select! {
            biased;
            (reason, _) = self.inner.cx.cancel.wait_for(self.stage(change)) => return Err(Fault::Cancelled(reason).into()),
            answer = exchange => answer?,
            () = self.inner.cx.clock.sleep(limit) => return Err(Fault::Timeout(limit).into()),
        };
        if answer.status.is_success() {
            return Ok(answer);
        }
        let skew = told_time(&answer)
            .map(|time| time - i64::try_from(self.inner.cx.clock.wall()).unwrap_or(i64::MAX));
        Err(Failed { fault: refusal(operation, &answer), skew })
    }

    /// Takes the server's time for every later call to this endpoint.
    fn correct(&self, service: Service, ahead: i64) {
        let shape = &self.inner.shape;
        let region = if service == Service::Sts { &shape.sts_region } else { &shape.region };
        let Ok(endpoint) = endpoint::resolve(service, region, &shape.environment) else { return };
        let host = endpoint.url.host_str().unwrap_or_default().to_owned();
        self.note(format!("this machine's clock differs from AWS' by {} s; AWS' time is used", ahead / 1000));
        self.inner.client.0.skew.lock().unwrap_or_else(PoisonError::into_inner).insert(host, ahead);
    }
}

fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The request with its signature, made at `now`, epoch milliseconds.
fn signed(
    operation: Operation,
    encoded: &Encoded,
    url: Url,
    region: &str,
    credentials: &Credentials,
    now: u64,
) -> Result<Request, Fault> {
    let strange = |error: &dyn std::fmt::Display| Fault::Strange(format!("no request can be made: {error}"));
    let mut headers = vec![(header::CONTENT_TYPE.as_str(), encoded.content_type)];
    if let Some(target) = &encoded.target {
        headers.push(("x-amz-target", target));
    }
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(crate::endpoint::signing_region(operation.service, region))
        .name(operation.service.signing_name())
        .time(UNIX_EPOCH + Duration::from_millis(now))
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| strange(&error))?
        .into();
    let body = SignableBody::Bytes(&encoded.body);
    let signable = SignableRequest::new("POST", url.as_str(), headers.iter().copied(), body)
        .map_err(|error| strange(&error))?;
    let (instructions, _) = sign(signable, &parameters).map_err(|error| strange(&error))?.into_parts();
    let mut all = HeaderMap::new();
    let own = headers.into_iter().map(|(name, value)| (name, value, false));
    let made = instructions.headers().map(|(name, value)| (name, value, true));
    for (name, value, sensitive) in own.chain(made) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| strange(&error))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| strange(&"a header with a line break"))?;
        value.set_sensitive(sensitive);
        all.insert(name, value);
    }
    Ok(Request { method: Method::POST, url, headers: all, body: Bytes::copy_from_slice(&encoded.body) })
}

fn text<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok()
}

fn told_time(answer: &Answer) -> Option<i64> {
    DateTime::from_str(text(answer, "date")?, Format::HttpDate).ok()?.to_millis().ok()
}

fn refusal(operation: Operation, answer: &Answer) -> Fault {
    let status = answer.status.as_u16();
    if answer.status.is_redirection() {
        return Fault::Strange(format!("HTTP {status}, a redirect"));
    }
    let found = wire::refusal(&answer.body, text(answer, "x-amzn-errortype"));
    let wait = text(answer, "retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
    let id = text(answer, "x-amzn-requestid").or_else(|| text(answer, "x-amz-request-id"));
    Fault::Refused {
        service: operation.service,
        operation: operation.name,
        code: found.code,
        message: found.message,
        status,
        request_id: id.map(str::to_owned),
        retry_after: wait,
    }
}
