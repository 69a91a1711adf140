//! The manager and the log service over HTTP. Owns connections and bearers; decides nothing about tasks.

mod batch;
mod bearer;
mod dns;
mod logs;
mod retry;
mod tasks;
#[cfg(test)]
mod tests;

pub(crate) use logs::{LogClient, LogFault};
pub(crate) use retry::RetryPolicy;
pub(crate) use tasks::Acquired;

use crate::config::Config;
use batch::Batch;
use bearer::BearerCache;
use bytes::Bytes;
use dns::RememberingResolver;
use executor_api::Clock;
use proto::events::TaskEvents;
use proto::limits;
use proto::register::{DelegateParams, Feature, HeartbeatResponse, RegisterResponse, UnregisterRequest};
use proto::reply::{ErrorCode, Wrapped};
use reqwest::{Certificate, Identity, Method, StatusCode};
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Sent as `User-Agent` and in the registration.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Limit of one call that waits for nothing.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// A response may be 16 MiB over a slow line.
const REPORT_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Calls about tasks under way at once, and connections kept for reuse: a burst of tasks must not open a connection each.
/// Heartbeats and polls do not wait behind them.
pub(crate) const MAX_CALLS: usize = 32;
/// Idle connections cost memory; a burst is over by then.
const IDLE_FOR: Duration = Duration::from_secs(15);

/// What the manager announced (ADR 0002).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// It is our manager, or one that knows our extensions.
    pub(crate) extended: bool,
    pub(crate) long_poll: bool,
    pub(crate) checkpoint: bool,
    pub(crate) progress: bool,
    pub(crate) stream_resume: bool,
    pub(crate) log_batch: bool,
    pub(crate) log_whole: bool,
    pub(crate) task_batch: bool,
    /// Pause between heartbeats.
    pub(crate) heartbeat: Duration,
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The manager refuses this agent.
    #[error("the manager refuses this agent: {0:?}")]
    Refused(Refusal),
    /// It answered with a status that is not a success.
    #[error("the manager answered with status {status}")]
    Status { status: u16, retry_after: Option<Duration> },
    /// No answer.
    #[error("the manager cannot be reached: {0}")]
    Away(String),
    /// An answer that cannot be read.
    #[error("the manager's answer cannot be read: {0}")]
    Unreadable(String),
}

/// Refusals that concern the agent and not one call (protocol.md §1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is unknown: stop.
    InvalidToken,
    /// The token was revoked: freeze.
    RevokedToken,
    /// The bearer is too old, so the clock is wrong: freeze.
    ExpiredToken,
    /// The agent was deleted: stop.
    Deleted,
}

impl Fault {
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Fault::Status { retry_after, .. } => *retry_after,
            Fault::Refused(_) | Fault::Away(_) | Fault::Unreadable(_) => None,
        }
    }
}

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file with a certificate or key cannot be used.
    #[error("`{setting}`: {path} cannot be used")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library refuses the settings.
    #[error("the HTTP client cannot be built")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The manager. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ManagerClient {
    http: reqwest::Client,
    base: Arc<str>,
    account: Arc<str>,
    bearers: Arc<BearerCache>,
    token_hash: Arc<str>,
    /// `Unregistered` until known.
    delegate_id: Arc<RwLock<Arc<str>>>,
    /// One permit per call about a task.
    gate: Arc<Semaphore>,
    /// Calls about tasks that may share a request.
    batch: Arc<Batch<ManagerClient>>,
}

/// The HTTP client for manager and log service.
pub(crate) fn http_client(config: &Config, clock: Arc<dyn Clock>) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(format!("delegate/{VERSION}"))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .pool_max_idle_per_host(MAX_CALLS)
        .pool_idle_timeout(IDLE_FOR)
        .tcp_nodelay(true)
        .dns_resolver(RememberingResolver::new(clock))
        .no_proxy();
    if let Some(path) = &config.ca_file {
        let file = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::File {
            setting: "ca_file",
            path: path.clone(),
            source,
        };
        let pem = std::fs::read(path).map_err(|e| file(e.into()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| file(e.into()))?;
        if certificates.is_empty() {
            return Err(file("it holds no certificate".into()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some((certificate, key)) = &config.client_certificate {
        let read = |setting, path: &std::path::PathBuf| {
            std::fs::read(path).map_err(|e| ClientError::File {
                setting,
                path: path.clone(),
                source: e.into(),
            })
        };
        let mut pem = read("client_certificate", certificate)?;
        pem.push(b'\n');
        pem.extend(read("client_certificate_key", key)?);
        let identity = Identity::from_pem(&pem).map_err(|e| ClientError::File {
            setting: "client_certificate",
            path: certificate.clone(),
            source: e.into(),
        })?;
        builder = builder.identity(identity);
    }
    if let Some(proxy) = config.proxy.as_ref().filter(|proxy| proxy.for_manager) {
        builder = builder.proxy(proxy_of(proxy).map_err(|e| ClientError::Build(e.into()))?);
    }
    builder.build().map_err(|e| ClientError::Build(e.into()))
}

fn proxy_of(proxy: &crate::config::Proxy) -> reqwest::Result<reqwest::Proxy> {
    use secrecy::ExposeSecret;
    let mut one = reqwest::Proxy::all(&proxy.url)?.no_proxy(reqwest::NoProxy::from_string(&proxy.no_proxy));
    if let Some((user, password)) = &proxy.login {
        one = one.basic_auth(user, password.expose_secret());
    }
    Ok(one)
}

impl ManagerClient {
    pub(crate) fn new(
        config: &Config,
        http: reqwest::Client,
        host: &str,
        clock: Arc<dyn Clock>,
    ) -> ManagerClient {
        ManagerClient {
            http,
            base: config.manager_url.as_str().into(),
            account: config.account_id.as_str().into(),
            bearers: Arc::new(BearerCache::new(config, host, clock)),
            token_hash: config.token.hash().into(),
            delegate_id: Arc::new(RwLock::new("Unregistered".into())),
            gate: Arc::new(Semaphore::new(MAX_CALLS)),
            batch: Arc::new(Batch::new(false)),
        }
    }

    /// The id that the manager gave.
    pub(crate) fn delegate_id(&self) -> Arc<str> {
        self.delegate_id.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn call(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Fault> {
        let bearer = self.bearers.current().map_err(Fault::Unreadable)?;
        let delegate_id = self.delegate_id();
        Ok(self
            .http
            .request(method, format!("{}{path}", self.base))
            .query(&[("accountId", &*self.account)])
            .header("Authorization", bearer)
            .header("Content-Type", "application/json")
            .header("accountId", &*self.account)
            .header("delegateId", &*delegate_id)
            .header(proto::token::TOKEN_HASH_HEADER, &*self.token_hash)
            .timeout(CALL_LIMIT))
    }

    /// Sends and reads the whole reply, bounded.
    async fn send(&self, call: reqwest::RequestBuilder, limit: usize) -> Result<(StatusCode, Bytes), Fault> {
        let (status, retry_after, body) = exchange(call, limit).await.map_err(Fault::Away)?;
        if status.is_success() {
            return Ok((status, body));
        }
        if status == StatusCode::UNAUTHORIZED {
            let code =
                serde_json::from_slice::<Wrapped<serde_json::Value>>(&body).ok().and_then(|w| w.error_code());
            match code {
                Some(ErrorCode::InvalidToken) => return Err(Fault::Refused(Refusal::InvalidToken)),
                Some(ErrorCode::RevokedToken) => return Err(Fault::Refused(Refusal::RevokedToken)),
                Some(ErrorCode::ExpiredToken) => {
                    // A fresh bearer may do: the next call mints one.
                    self.bearers.forget();
                    return Err(Fault::Refused(Refusal::ExpiredToken));
                }
                Some(_) | None => {}
            }
        }
        Err(Fault::Status { status: status.as_u16(), retry_after })
    }

    /// The same for calls about tasks, of which only so many run at once.
    async fn send_gated(
        &self,
        call: reqwest::RequestBuilder,
        limit: usize,
    ) -> Result<(StatusCode, Bytes), Fault> {
        // The gate is never closed.
        let _permit = self.gate.acquire().await.map_err(|error| Fault::Away(error.to_string()))?;
        self.send(call, limit).await
    }

    async fn wrapped<T: DeserializeOwned>(&self, call: reqwest::RequestBuilder) -> Result<T, Fault> {
        let (_, body) = self.send(call, limits::MAX_REGISTER_BODY_BYTES).await?;
        let reply: Wrapped<T> =
            serde_json::from_slice(&body).map_err(|e| Fault::Unreadable(e.to_string()))?;
        reply.resource.ok_or_else(|| Fault::Unreadable("`resource` is missing".to_owned()))
    }

    /// Registers, or registers again. Remembers the id for later calls.
    ///
    /// **Repeat**: safe; the same instance gets the same id.
    pub(crate) async fn register(&self, params: &DelegateParams) -> Result<(Arc<str>, Features), Fault> {
        let call = self.call(Method::POST, "/api/agent/delegates/register")?.json(params);
        let reply: RegisterResponse = self.wrapped(call).await?;
        match reply.action.as_deref() {
            Some("SELF_DESTRUCT") => return Err(Fault::Refused(Refusal::Deleted)),
            Some(action) => tracing::warn!(action, "the manager asks for something this agent does not do"),
            None => {}
        }
        if reply.delegate_id.is_empty() {
            return Err(Fault::Unreadable("`delegateId` is empty".to_owned()));
        }
        let id: Arc<str> = reply.delegate_id.as_str().into();
        *self.delegate_id.write().unwrap_or_else(PoisonError::into_inner) = id.clone();
        let features = features(&reply);
        self.batch.switch(features.task_batch);
        Ok((id, features))
    }

    /// One heartbeat.
    pub(crate) async fn heartbeat(&self, params: &DelegateParams) -> Result<HeartbeatResponse, Fault> {
        let call = self.call(Method::POST, "/api/agent/delegates/heartbeat-with-polling")?.json(params);
        let reply: HeartbeatResponse = self.wrapped(call).await?;
        if reply.status == proto::register::DelegateStatus::Deleted {
            return Err(Fault::Refused(Refusal::Deleted));
        }
        Ok(reply)
    }

    /// What there is to do. With `wait` the reply waits for an event.
    pub(crate) async fn task_events(&self, wait: Option<Duration>) -> Result<TaskEvents, Fault> {
        let mut call =
            self.call(Method::GET, &format!("/api/agent/delegates/{}/task-events", self.delegate_id()))?;
        if let Some(wait) = wait {
            call = call.query(&[("wait_ms", wait.as_millis())]).timeout(wait + CALL_LIMIT);
        }
        let (_, body) = self.send(call, limits::MAX_PACKAGE_BODY_BYTES).await?;
        serde_json::from_slice(&body).map_err(|e| Fault::Unreadable(e.to_string()))
    }

    /// Takes leave.
    pub(crate) async fn unregister(&self, body: &UnregisterRequest) -> Result<(), Fault> {
        let call = self.call(Method::POST, "/api/agent/delegates/unregister")?.json(body);
        self.send(call, limits::MAX_REGISTER_BODY_BYTES).await.map(|_| ())
    }
}

fn features(reply: &RegisterResponse) -> Features {
    let Some(ext) = &reply.ext else {
        return Features { heartbeat: limits::HEARTBEAT_INTERVAL, ..Features::default() };
    };
    // A pause of 0 or of hours would make the agent look dead or storm the manager.
    let asked = Duration::from_millis(ext.heartbeat_ms);
    let heartbeat = if asked.is_zero() {
        limits::HEARTBEAT_INTERVAL
    } else {
        asked.clamp(Duration::from_millis(200), limits::CONNECTED_FOR / 4)
    };
    Features {
        extended: ext.version >= 1,
        long_poll: ext.has(Feature::LongPoll),
        checkpoint: ext.has(Feature::Checkpoint),
        progress: ext.has(Feature::Progress),
        stream_resume: ext.has(Feature::StreamResume),
        log_batch: ext.has(Feature::LogBatch),
        log_whole: ext.has(Feature::LogWhole),
        task_batch: ext.has(Feature::TaskBatch),
        heartbeat,
    }
}

/// A task id as one segment of a path.
pub(crate) fn segment(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Adds what to do about a certificate that is refused: the library's word for it tells nobody.
fn explained(text: String) -> String {
    if text.contains("invalid peer certificate") && !text.contains("CaUsedAsEndEntity") {
        return format!(
            "{text}: the certificate is not trusted under this name. Name the authority that signed it in ca_file \
             (DELEGATE_CA_FILE), and a host name that the certificate holds in MANAGER_HOST_AND_PORT"
        );
    }
    if !text.contains("CaUsedAsEndEntity") {
        return text;
    }
    format!(
        "{text}: the server shows the certificate of an authority (CA:TRUE) as its own. Make an authority and let it sign a \
         certificate for the server, or make a self-signed one with basicConstraints=CA:FALSE; name the authority, or \
         that certificate, in ca_file (DELEGATE_CA_FILE)"
    )
}

/// One exchange: status, the server's wish for a pause, and the body, cut off with an error beyond `limit`.
async fn exchange(
    call: reqwest::RequestBuilder,
    limit: usize,
) -> Result<(StatusCode, Option<Duration>, Bytes), String> {
    // The text of the library names host and reason; the URL may carry ids and is left out.
    let text = |error: reqwest::Error| {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        explained(text)
    };
    let mut reply = call.send().await.map_err(text)?;
    let status = reply.status();
    let retry_after = reply
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(text)? {
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer is larger than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, retry_after, Bytes::from(body)))
}
