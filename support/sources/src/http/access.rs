//! One task's way to the network.

use super::{Backoff, Client, Retry};
use crate::error;
use base64::Engine;
use bytes::Bytes;
use executor_api::{
    Cancel, Clock, HostAliases, LearnedHostKeys, SecretSource, SecretText, StepContext, StepError,
};
use proto::task::{HttpAuth, HttpConnector};
use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

/// Takes one line for people: an alias that was used, a retry. May be called from any thread; must not block.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// Everything a call needs beside what it asks for. One per step; cheap to clone.
#[derive(Clone)]
pub struct Access {
    pub(crate) client: Client,
    pub(crate) secrets: Arc<dyn SecretSource>,
    pub(crate) learned: LearnedHostKeys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cancel: Cancel,
    pub(crate) deadline: Instant,
    pub(crate) aliases: Arc<HostAliases>,
    notices: Notice,
    /// Aliases already told of: a call makes many requests.
    told: Arc<Mutex<BTreeSet<String>>>,
    backoff: Backoff,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("client", &self.client)
            .field("aliases", &self.aliases)
            .finish_non_exhaustive()
    }
}

/// One request that may be repeated.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method; only ones that change nothing on the server.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers that go to any server: `Accept`, `Range`.
    pub headers: HeaderMap,
    /// Headers that are dropped when a redirect leads to another origin.
    pub credentials: HeaderMap,
    /// Body, sent again on each attempt.
    pub body: Bytes,
    /// Identifier of the connector, for messages.
    pub connector: String,
}

impl Call {
    /// A GET without headers.
    pub fn get(url: Url, connector: &str) -> Self {
        Call {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            credentials: HeaderMap::new(),
            body: Bytes::new(),
            connector: connector.to_owned(),
        }
    }

    /// Adds a header that holds no secret.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Sets the credentials.
    #[must_use]
    pub fn credentials(mut self, credentials: HeaderMap) -> Self {
        self.credentials = credentials;
        self
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Answer {
    /// The URL that answered, after redirects.
    pub url: Url,
    /// Its status: anything but what [`Access::send`] turns into an error.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    response: reqwest::Response,
}

impl Access {
    /// From a step's context. `notices` takes lines for the step's log.
    pub fn new(client: Client, cx: &StepContext, notices: Notice) -> Self {
        Access {
            client,
            secrets: Arc::clone(&cx.secrets),
            learned: cx.learned.clone(),
            clock: Arc::clone(&cx.clock),
            cancel: cx.cancel.clone(),
            deadline: cx.deadline,
            aliases: Arc::clone(&cx.aliases),
            notices,
            told: Arc::default(),
            backoff: Backoff::default(),
        }
    }

    /// Without a step: for probes and tools.
    pub fn without_step(
        client: Client,
        secrets: Arc<dyn SecretSource>,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
        deadline: Instant,
        aliases: Arc<HostAliases>,
        notices: Notice,
    ) -> Self {
        Access {
            client,
            secrets,
            learned: LearnedHostKeys::default(),
            clock,
            cancel,
            deadline,
            aliases,
            notices,
            told: Arc::default(),
            backoff: Backoff::default(),
        }
    }

    /// Another retry policy.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// A counter of failures under this access' policy.
    pub fn retry(&self) -> Retry<'_> {
        Retry::new(self, self.backoff)
    }

    /// Secrets of the step.
    pub fn secrets(&self) -> &dyn SecretSource {
        self.secrets.as_ref()
    }

    /// Host aliases of this agent.
    pub fn aliases(&self) -> &HostAliases {
        &self.aliases
    }

    /// Where host keys go that were accepted on the way.
    pub fn learned(&self) -> &LearnedHostKeys {
        &self.learned
    }

    pub(crate) fn notice(&self, line: &str) {
        (self.notices)(line);
    }

    /// The headers of `connector`: its authentication and its own ones, marked as sensitive.
    pub fn credentials(&self, connector: &HttpConnector) -> Result<HeaderMap, StepError> {
        let name = &connector.identifier;
        let get =
            |secret| self.secrets.get(secret).map_err(|e| error::secret(&format!("connector `{name}`"), e));
        let reveal =
            |text| self.secrets.reveal(text).map_err(|e| error::secret(&format!("connector `{name}`"), e));
        let mut headers = HeaderMap::new();
        match &connector.auth {
            HttpAuth::Anonymous => {}
            HttpAuth::UsernamePassword { username, password } => {
                let (user, password) = (reveal(username)?, get(password)?);
                headers.insert(AUTHORIZATION, basic(&user, &password)?);
            }
            HttpAuth::Bearer { token } => {
                headers.insert(AUTHORIZATION, bearer(&get(token)?)?);
            }
            HttpAuth::Ssh(_) => {
                let field = format!("connector `{name}`, url");
                return Err(error::bad_url(&field, &connector.url, "an http or https URL, or another login"));
            }
        }
        for (key, value) in &connector.headers {
            let header = HeaderName::from_bytes(key.as_bytes())
                .map_err(|_| error::bad_url(&format!("connector `{name}`, header"), key, "a header name"))?;
            headers.append(header, sensitive(reveal(value)?.expose_secret(), key)?);
        }
        Ok(headers)
    }

    /// Sends `call`, follows redirects, and repeats what may be repeated until the policy or the deadline ends it.
    ///
    /// **Errors**: `Connectivity` (not reached, 5xx), `Throttled` (429), `Authentication` (401, TLS), `Authorization`
    /// (403), `Timeout`, `Cancelled`. Every other status is an answer.
    pub async fn send(&self, call: &Call) -> Result<Answer, StepError> {
        let mut retry = self.retry();
        loop {
            match self.once(call).await {
                Ok(answer) => return refuse(answer, &call.connector),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// Sends `call` and reads the whole body, at most `limit` bytes; a cut body is fetched again.
    pub async fn fetch(&self, call: &Call, limit: u64) -> Result<(Answer, Bytes), StepError> {
        let mut retry = self.retry();
        loop {
            let result = async {
                let mut answer = refuse(self.once(call).await?, &call.connector)?;
                let body = answer.body(self, limit).await?;
                Ok((answer, body))
            };
            match result.await {
                Ok(whole) => return Ok(whole),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// As [`Access::fetch`], but a 401 comes back as an answer: it may carry a challenge.
    pub(crate) async fn fetch_challenged(
        &self,
        call: &Call,
        limit: u64,
    ) -> Result<(Answer, Bytes), StepError> {
        let mut retry = self.retry();
        loop {
            let result = async {
                let mut answer = self.once(call).await?;
                if answer.status != StatusCode::UNAUTHORIZED {
                    answer = refuse(answer, &call.connector)?;
                }
                let body = answer.body(self, limit).await?;
                Ok((answer, body))
            };
            match result.await {
                Ok(whole) => return Ok(whole),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// One attempt, redirects included. Errors only for what another attempt may mend or what never was an answer.
    pub(crate) async fn once(&self, call: &Call) -> Result<Answer, StepError> {
        // Ten is what browsers and curl allow in spirit; a longer chain is a loop.
        const MAX_REDIRECTS: usize = 10;
        let mut url = call.url.clone();
        let mut with_credentials = true;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.hop(call, &url, with_credentials).await?;
            let Some(next) = redirect_of(&answer, &call.method)? else {
                return transient(answer);
            };
            if next.origin() != url.origin() {
                with_credentials = false;
            }
            url = next;
        }
        Err(error::redirect(&call.url, "too often"))
    }

    /// Where a connection to `url` goes, aliases applied.
    pub(crate) async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, StepError> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or_default();
        let (host, port) = self.aliases.lookup(host, port).unwrap_or_else(|| (host.to_owned(), port));
        let found = self.bounded("resolving a name", tokio::net::lookup_host((host.as_str(), port))).await?;
        let found: Vec<SocketAddr> = found.map_err(|e| error::no_connection(url, &e.to_string()))?.collect();
        if found.is_empty() { Err(error::no_connection(url, "the name has no address")) } else { Ok(found) }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.client.options().connect_timeout
    }

    async fn hop(&self, call: &Call, url: &Url, with_credentials: bool) -> Result<Answer, StepError> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(error::bad_url("url", &error::shown(url), "an http or https URL with a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let problem = "one without user and password; those belong into the connector's credentials";
            return Err(error::bad_url("url", &error::shown(url), problem));
        }
        let server = error::server(url);
        let route =
            self.bounded(&format!("connecting to {server}"), self.client.route(url, &self.aliases)).await??;
        if let Some(line) = &route.notice
            && self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone())
        {
            self.notice(line);
        }
        let mut request = route.client.request(call.method.clone(), route.url).headers(call.headers.clone());
        if with_credentials {
            request = request.headers(call.credentials.clone());
        }
        if let Some(host) = route.host {
            request = request.header(HOST, host);
        }
        if !call.body.is_empty() {
            request = request.body(call.body.clone());
        }
        let response =
            self.bounded(&format!("waiting for {server}"), request.send()).await?.map_err(|source| {
                match error::tls_fault(&source).map(ToString::to_string) {
                    Some(reason) => error::tls(url, &reason, source),
                    None => error::unreachable(url, source),
                }
            })?;
        Ok(Answer {
            url: url.clone(),
            status: response.status(),
            headers: response.headers().clone(),
            response,
        })
    }

    /// Runs `work` until the deadline or a cancellation.
    pub(crate) async fn bounded<T>(
        &self,
        doing: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, StepError> {
        tokio::select! {
            biased;
            (reason, _) = self.cancel.wait() => Err(error::cancelled(doing, reason)),
            () = self.clock.sleep_until(self.deadline) => Err(error::deadline(doing)),
            done = work => Ok(done),
        }
    }
}

impl Answer {
    /// The next part of the body, `None` at its end.
    pub async fn chunk(&mut self, access: &Access) -> Result<Option<Bytes>, StepError> {
        access
            .bounded(&format!("reading from {}", error::server(&self.url)), self.response.chunk())
            .await?
            .map_err(|source| error::cut(&self.url, source))
    }

    /// The rest of the body, at most `limit` bytes.
    pub async fn body(&mut self, access: &Access, limit: u64) -> Result<Bytes, StepError> {
        let mut whole = Vec::new();
        while let Some(part) = self.chunk(access).await? {
            if (whole.len() + part.len()) as u64 > limit {
                return Err(error::too_large(&self.url, "the answer", limit));
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole.into())
    }

    /// A header as text.
    pub fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// `Authorization: Basic`.
pub(crate) fn basic(user: &SecretText, password: &SecretText) -> Result<HeaderValue, StepError> {
    let pair = Zeroizing::new(format!("{}:{}", user.expose_secret(), password.expose_secret()));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    sensitive(&Zeroizing::new(format!("Basic {}", encoded.as_str())), "authorization")
}

/// `Authorization: Bearer`.
pub(crate) fn bearer(token: &SecretText) -> Result<HeaderValue, StepError> {
    // File secrets usually end with a newline that was never part of the token.
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose_secret().trim())), "authorization")
}

fn sensitive(value: &str, header: &str) -> Result<HeaderValue, StepError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| error::bad_url("header", header, "a value without line breaks or control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Statuses after which the same call may succeed.
fn transient(answer: Answer) -> Result<Answer, StepError> {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => Err(error::throttled(&answer.url, retry_after(&answer.headers))),
        StatusCode::SERVICE_UNAVAILABLE if answer.headers.contains_key(RETRY_AFTER) => {
            Err(error::throttled(&answer.url, retry_after(&answer.headers)))
        }
        StatusCode::REQUEST_TIMEOUT => Err(error::server_error(&answer.url, answer.status)),
        status if status.is_server_error() => Err(error::server_error(&answer.url, status)),
        _ => Ok(answer),
    }
}

fn refuse(answer: Answer, connector: &str) -> Result<Answer, StepError> {
    match answer.status {
        StatusCode::UNAUTHORIZED => Err(error::unauthorized(&answer.url, connector)),
        StatusCode::FORBIDDEN => Err(error::forbidden(&answer.url, connector)),
        _ => Ok(answer),
    }
}

/// Seconds only: the date form needs the server's clock to agree with ours.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn redirect_of(answer: &Answer, method: &Method) -> Result<Option<Url>, StepError> {
    let followed = match answer.status.as_u16() {
        301..=303 => matches!(*method, Method::GET | Method::HEAD),
        307 | 308 => true,
        _ => false,
    };
    if !followed {
        return Ok(None);
    }
    let Some(next) = answer.header(LOCATION).and_then(|to| answer.url.join(to).ok()) else {
        return Err(error::redirect(&answer.url, "without a usable Location"));
    };
    if answer.url.scheme() == "https" && next.scheme() != "https" {
        return Err(error::redirect(&answer.url, "from https to an insecure address"));
    }
    Ok(Some(next))
}
