//! The client of the manager's API (ADR 0003).

mod tls;

use crate::exit::{CliError, Exit};
use crate::output::Format;
use crate::settings::{Env, Settings};
use futures::StreamExt;
use futures::stream::BoxStream;
use pipeline::fault::Fault;
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::bytes::Bytes;
use url::Url;

/// Connecting takes this long at most; a host that drops packets is then called unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// An answer takes this long at most. Long polls ask for less ([`WAIT_MS`]).
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long a long poll may wait at the manager.
pub(crate) const WAIT_MS: u64 = 25_000;

/// How a client command finds the manager.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ClientArgs {
    /// URL of the manager [env: DELEGATE_MANAGER_URL]
    #[arg(long, value_name = "URL", help_heading = "Manager")]
    pub(crate) manager: Option<String>,
    /// API key [env: DELEGATE_API_KEY]
    #[arg(long, value_name = "KEY", help_heading = "Manager")]
    pub(crate) api_key: Option<String>,
    /// Certificates to trust beside the system's (PEM) [env: DELEGATE_CA_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Manager")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// What nearly every client command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CallArgs {
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    client: ClientArgs,
}

impl CallArgs {
    /// The client that they mean, as [`Client::new`].
    pub(crate) fn client(&self, env: &Env) -> Result<Client, CliError> {
        Client::new(&self.client, env)
    }

    /// The same as [`Client::optional`].
    pub(crate) fn client_if_named(&self, env: &Env) -> Result<Option<Client>, CliError> {
        Client::optional(&self.client, env)
    }
}

/// A client of one manager.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: SecretString,
}

#[derive(Deserialize)]
struct ErrorReply {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
    message: String,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    faults: Vec<Fault>,
}

impl Client {
    /// A client with what flags, environment and context file say. Connects to nothing yet.
    ///
    /// **Errors**: usage, when no manager is named anywhere or a setting is wrong.
    pub(crate) fn new(args: &ClientArgs, env: &Env) -> Result<Client, CliError> {
        let settings = Settings::resolve(args, env)?;
        let Some(url) = settings.manager else {
            return Err(CliError::usage("no manager is named").hint(
                "give --manager URL or set DELEGATE_MANAGER_URL; `delegate quickstart --serve` starts one to try",
            ));
        };
        Client::connect(&url, settings.api_key, settings.ca_file)
    }

    /// The client, or `None` when no manager is named.
    pub(crate) fn optional(args: &ClientArgs, env: &Env) -> Result<Option<Client>, CliError> {
        let settings = Settings::resolve(args, env)?;
        settings.manager.map(|url| Client::connect(&url, settings.api_key, settings.ca_file)).transpose()
    }

    /// A client of the manager at `url`.
    pub(crate) fn connect(
        url: &str,
        key: SecretString,
        ca_file: Option<PathBuf>,
    ) -> Result<Client, CliError> {
        let base = Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let Some(base) = base else {
            let message =
                format!("`{url}` is no URL of a manager; expected http://HOST:PORT or https://HOST:PORT");
            return Err(CliError::usage(message));
        };
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT);
        if let Some(path) = ca_file {
            let pem = std::fs::read(&path).map_err(|e| CliError::file("read", &path, &e))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|e| CliError::usage(format!("{} holds no certificates: {e}", path.display())))?;
            if certificates.is_empty() {
                return Err(CliError::usage(format!("{} holds no certificates", path.display())));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let http =
            builder.build().map_err(|e| CliError::failed(format!("no HTTP client can be made: {e}")))?;
        Ok(Client { http, base, key })
    }

    /// The manager's URL, for messages and for commands to paste.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `segments` below `/api/v1`, each escaped.
    fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(segments);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn request(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(segments, query));
        let key = self.key.expose_secret();
        if key.is_empty() { request } else { request.header("x-api-key", key) }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, CliError> {
        let reply = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let text = reply.text().await.unwrap_or_default();
        Err(self.refusal(status, &text))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let mut reason = String::new();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            reason = inner.to_string();
            source = inner.source();
        }
        if reason.is_empty() {
            reason =
                if error.is_timeout() { "it did not answer in time".to_owned() } else { error.to_string() };
        }
        let message = format!("the manager at {} cannot be reached: {reason}", self.base());
        CliError::new(Exit::Unavailable, message).hint(tls::hint(&self.base, error))
    }

    fn refusal(&self, status: StatusCode, text: &str) -> CliError {
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Refused,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Exit::Usage,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Exit::Unavailable
            }
            _ => Exit::Failed,
        };
        match serde_json::from_str::<ErrorReply>(text) {
            Ok(ErrorReply { error }) => {
                let code = if error.code.is_empty() { String::new() } else { format!("{}: ", error.code) };
                let message = format!("{code}{}", error.message);
                CliError { hint: error.hint, faults: error.faults, ..CliError::new(exit, message) }
            }
            Err(_) => CliError::new(exit, format!("{} answered {status}", self.base()))
                .hint("is this URL that of a delegate manager?"),
        }
    }

    async fn json_of(&self, reply: Response) -> Result<Value, CliError> {
        if reply.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        reply.json().await.map_err(|error| {
            CliError::failed(format!("the answer of {} cannot be read: {error}", self.base()))
        })
    }

    /// GET.
    pub(crate) async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Value, CliError> {
        let request = self.request(Method::GET, segments, query).timeout(ANSWER_LIMIT);
        let reply = self.send(request).await?;
        self.json_of(reply).await
    }

    /// POST of a JSON body.
    pub(crate) async fn post(&self, segments: &[&str], body: &Value) -> Result<Value, CliError> {
        // A connector test waits for an agent, so the limit is that of a step and not that of a small answer.
        let request = self.request(Method::POST, segments, &[]).timeout(ANSWER_LIMIT * 5).json(body);
        let reply = self.send(request).await?;
        self.json_of(reply).await
    }

    /// PUT of raw bytes or JSON.
    pub(crate) async fn put(&self, segments: &[&str], body: Vec<u8>, kind: &str) -> Result<Value, CliError> {
        let request = self.request(Method::PUT, segments, &[]).timeout(ANSWER_LIMIT);
        let reply = self.send(request.header("content-type", kind).body(body)).await?;
        self.json_of(reply).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, segments: &[&str]) -> Result<(), CliError> {
        self.delete_with(segments, &[]).await
    }

    /// DELETE with a query.
    pub(crate) async fn delete_with(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<(), CliError> {
        self.send(self.request(Method::DELETE, segments, query).timeout(ANSWER_LIMIT)).await.map(drop)
    }

    /// The view of an execution; with `since` it waits until the version is greater.
    pub(crate) async fn execution(&self, id: &str, since: Option<u64>) -> Result<Value, CliError> {
        match since {
            None => self.get(&["executions", id], &[]).await,
            Some(version) => {
                let (version, wait) = (version.to_string(), WAIT_MS.to_string());
                self.get(&["executions", id], &[("since", &version), ("wait_ms", &wait)]).await
            }
        }
    }

    /// The log lines of an execution in the order of arrival. With `follow` the stream ends with the execution.
    pub(crate) async fn logs(
        &self,
        id: &str,
        step: Option<&str>,
        follow: bool,
    ) -> Result<LogStream, CliError> {
        let mut query = vec![("follow", if follow { "true" } else { "false" })];
        query.extend(step.map(|step| ("step", step)));
        let reply = self.send(self.request(Method::GET, &["executions", id, "logs"], &query)).await?;
        let client = self.clone();
        let bytes = reply.bytes_stream().map(move |chunk| chunk.map_err(|error| client.unreachable(&error)));
        Ok(LogStream { bytes: bytes.boxed(), rest: Vec::new(), ready: VecDeque::new() })
    }
}

/// Log lines as they come. Memory is bounded by one chunk and the longest line.
pub(crate) struct LogStream {
    bytes: BoxStream<'static, Result<Bytes, CliError>>,
    rest: Vec<u8>,
    ready: VecDeque<LogLine>,
}

impl LogStream {
    /// The next line; `None` at the end. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<LogLine>, CliError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(chunk) = self.bytes.next().await else { return Ok(None) };
            self.take(&chunk?);
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.rest.extend_from_slice(chunk);
        let mut from = 0;
        while let Some(end) = self.rest.get(from..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
            let line = self.rest.get(from..from + end).unwrap_or(&[]);
            from += end + 1;
            self.ready.extend(serde_json::from_slice::<LogLine>(line).ok());
        }
        self.rest.drain(..from);
    }
}

/// One log line of an execution.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LogLine {
    /// Identifier of the step, with loop postfix.
    pub(crate) step: String,
    /// Command unit.
    pub(crate) unit: String,
    /// Number within the unit, from 0.
    #[serde(default)]
    pub(crate) seq: u64,
    /// Level.
    #[serde(default)]
    pub(crate) level: String,
    /// The text, without line end.
    pub(crate) out: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        rustls_provider();
        Client::connect(url, SecretString::from("k"), None).unwrap()
    }

    fn rustls_provider() {
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            // Another test of this process did it already.
        }
    }

    #[test]
    fn paths_are_escaped_and_bases_may_have_a_path() {
        let url = client("http://h:1/base/").url(&["entities", "connector", "a/b c"], &[("x", "1&2")]);
        assert_eq!(url.as_str(), "http://h:1/base/api/v1/entities/connector/a%2Fb%20c?x=1%262");
        assert!(Client::connect("h:1", SecretString::from(""), None).is_err());
    }

    #[test]
    fn refusals_have_their_exit_codes() {
        let client = client("http://h:1");
        let body = r#"{"error":{"code":"MGR-113","message":"no","hint":"do"}}"#;
        for (status, exit) in [
            (StatusCode::UNAUTHORIZED, Exit::Refused),
            (StatusCode::BAD_REQUEST, Exit::Usage),
            (StatusCode::NOT_FOUND, Exit::Failed),
            (StatusCode::CONFLICT, Exit::Failed),
            (StatusCode::SERVICE_UNAVAILABLE, Exit::Unavailable),
        ] {
            assert_eq!(client.refusal(status, body).exit, exit);
        }
        assert_eq!(client.refusal(StatusCode::CONFLICT, body).to_string(), "error: MGR-113: no\n hint: do");
        assert!(client.refusal(StatusCode::NOT_FOUND, "<html>").message.contains("404"));
    }

    #[tokio::test]
    async fn a_manager_that_is_not_there_is_unavailable() {
        // Port 9 of loopback is closed; nothing is sent anywhere else.
        let error = client("http://127.0.0.1:9").get(&["agents"], &[]).await.unwrap_err();
        assert_eq!(error.exit, Exit::Unavailable);
        assert!(error.message.contains("http://127.0.0.1:9"), "{error}");
    }
}
