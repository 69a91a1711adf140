//! The log service (protocol.md §9.1, ADR 0002).

use super::batch::{Batch, Outcome, Together, body_of};
use super::{CALL_LIMIT, Features, MAX_CALLS, exchange};
use bytes::Bytes;
use proto::limits::MAX_STREAM_CALLS;
use proto::logs::{StreamCall, StreamNext, StreamReply, StreamVerb};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Replies of the log service are a line long.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogFault {
    /// The stream is not open: never opened, closed, or its time is over.
    #[error("the stream is not open")]
    NotFound,
    /// The service misses lines before the ones sent.
    #[error("the service expects line {next}")]
    Gap { next: u64 },
    /// No repetition mends it.
    #[error("the log service refuses with status {status}")]
    Refused { status: u16 },
    /// Not reachable, or busy.
    #[error("the log service did not answer: {what}")]
    Away { what: String, retry_after: Option<Duration> },
}

/// The log service with the token of one task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogClient {
    http: reqwest::Client,
    base: Arc<str>,
    account: Arc<str>,
    token: Option<SecretString>,
    /// One permit per call; apart from the manager's, so that a dead log service holds back nothing else.
    gate: Arc<Semaphore>,
    /// Calls of all tasks that may share a request.
    batch: Arc<Batch<LogClient>>,
    batched: bool,
    wholes: bool,
}

impl LogClient {
    pub(crate) fn new(http: reqwest::Client, base: &str, account: &str) -> LogClient {
        LogClient {
            http,
            base: base.into(),
            account: account.into(),
            token: None,
            gate: Arc::new(Semaphore::new(MAX_CALLS)),
            batch: Arc::new(Batch::new(true)),
            batched: false,
            wholes: false,
        }
    }

    /// The same service for a task with its own token, in the ways that the manager announced.
    pub(crate) fn for_token(&self, token: &SecretString, features: &Features) -> LogClient {
        let batched = features.log_batch && features.stream_resume;
        LogClient {
            token: Some(token.clone()),
            batched,
            wholes: batched && features.log_whole,
            ..self.clone()
        }
    }

    /// The call in a request with others. `None`: it has to go by itself.
    async fn together(
        &self,
        verb: StreamVerb,
        key: &str,
        seq: u64,
        lines: Option<&Bytes>,
    ) -> Option<Result<Option<u64>, LogFault>> {
        if !self.batched || !self.batch.is_on() {
            return None;
        }
        let lines = match lines {
            None => None,
            Some(lines) => Some(body_of(lines)?),
        };
        let token = self.token.as_ref().map_or("", |token| token.expose_secret()).to_owned();
        let call = StreamCall { verb, key: key.to_owned(), token, seq, lines };
        Some(self.batch.call(self, call).await)
    }

    /// Sends a body of many calls.
    async fn send_batch(&self, body: Vec<u8>) -> Result<Bytes, LogFault> {
        let call = self
            .http
            .request(Method::POST, format!("{}/stream/batch", self.base))
            .query(&[("accountID", &*self.account)])
            .header("Content-Type", "application/json")
            .body(body)
            .timeout(CALL_LIMIT);
        self.send(call).await
    }

    fn call(&self, method: Method, key: &str) -> reqwest::RequestBuilder {
        let token = self.token.as_ref().map_or("", |token| token.expose_secret());
        self.http
            .request(method, format!("{}/stream", self.base))
            .query(&[("accountID", &*self.account), ("key", key)])
            .header("X-Harness-Token", token)
            .timeout(CALL_LIMIT)
    }

    /// Opens a stream. Without `resume` an existing one is erased; with it the number of the next line comes back.
    pub(crate) async fn open(&self, key: &str, resume: bool) -> Result<Option<u64>, LogFault> {
        if resume && let Some(done) = self.together(StreamVerb::Open, key, 0, None).await {
            return done;
        }
        let mut call = self.call(Method::POST, key);
        if resume {
            call = call.query(&[("resume", "true")]);
        }
        next(&self.send(call).await?, resume)
    }

    /// Appends a JSON list of lines; `seq` is the number of the first one. Returns what the service expects next, where it
    /// says that.
    pub(crate) async fn append(
        &self,
        key: &str,
        seq: Option<u64>,
        lines: Bytes,
    ) -> Result<Option<u64>, LogFault> {
        if let Some(seq) = seq
            && let Some(done) = self.together(StreamVerb::Append, key, seq, Some(&lines)).await
        {
            return done;
        }
        let mut call = self.call(Method::PUT, key).header("Content-Type", "application/json").body(lines);
        if let Some(seq) = seq {
            call = call.query(&[("seq", seq)]);
        }
        next(&self.send(call).await?, seq.is_some())
    }

    /// Whether the service takes a short log in one call.
    pub(crate) fn takes_whole(&self) -> bool {
        self.wholes && self.batch.is_on()
    }

    /// A log that is whole: opened, written and closed in one call. `None`: the service does not take that, or the lines are
    /// too many; nothing was sent. A gap leaves the stream open.
    pub(crate) async fn whole(
        &self,
        key: &str,
        seq: u64,
        lines: &Bytes,
    ) -> Option<Result<Option<u64>, LogFault>> {
        if !self.takes_whole() {
            return None;
        }
        self.together(StreamVerb::Whole, key, seq, Some(lines)).await
    }

    /// Closes a stream and keeps it as a blob.
    pub(crate) async fn close(&self, key: &str) -> Result<(), LogFault> {
        if let Some(done) = self.together(StreamVerb::Close, key, 0, None).await {
            return done.map(drop);
        }
        self.send(self.call(Method::DELETE, key).query(&[("snapshot", "true")])).await.map(|_| ())
    }

    async fn send(&self, call: reqwest::RequestBuilder) -> Result<Bytes, LogFault> {
        // The gate is never closed.
        let _permit = self.gate.acquire().await;
        let away = |what| LogFault::Away { what, retry_after: None };
        let (status, retry_after, body) = exchange(call, MAX_REPLY_BYTES).await.map_err(away)?;
        if status.is_success() {
            return Ok(body);
        }
        if status == StatusCode::CONFLICT
            && let Ok(reply) = serde_json::from_slice::<StreamNext>(&body)
        {
            return Err(LogFault::Gap { next: reply.next });
        }
        // The service has no code for it, only this text, with status 400 on writes and 500 on close (observed).
        if status == StatusCode::NOT_FOUND || String::from_utf8_lossy(&body).contains("stream: not found") {
            return Err(LogFault::NotFound);
        }
        let is_passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT
            );
        Err(match is_passing {
            true => LogFault::Away { what: format!("status {status}"), retry_after },
            false => LogFault::Refused { status: status.as_u16() },
        })
    }
}

fn next(body: &[u8], expected: bool) -> Result<Option<u64>, LogFault> {
    if !expected {
        return Ok(None);
    }
    match serde_json::from_slice::<StreamNext>(body) {
        Ok(reply) => Ok(Some(reply.next)),
        Err(_) => Err(LogFault::Away { what: "an answer without `next`".to_owned(), retry_after: None }),
    }
}

impl Together for LogClient {
    type Call = StreamCall;
    type Answer = Option<u64>;
    type Fault = LogFault;
    const MOST: (usize, usize) = (MAX_STREAM_CALLS, 1 << 20);

    fn weight(call: &StreamCall) -> usize {
        call.lines.as_ref().map_or(0, |lines| lines.get().len())
    }

    fn unanswered() -> LogFault {
        LogFault::Away { what: "an answer that cannot be read".to_owned(), retry_after: None }
    }

    async fn send(self, calls: Vec<StreamCall>) -> Result<Vec<Outcome<Self>>, LogFault> {
        let body = serde_json::to_vec(&calls).map_err(|_| Self::unanswered())?;
        let replies = match self.send_batch(body).await {
            Ok(body) => body,
            // 403: no call in it is allowed.
            Err(fault @ (LogFault::Away { .. } | LogFault::Refused { status: 403 })) => return Err(fault),
            Err(fault) => {
                if matches!(fault, LogFault::NotFound | LogFault::Refused { status: 404 | 405 }) {
                    // The manager was replaced by one that does not know it.
                    self.batch.switch(false);
                }
                // The refusal is of the request, not of the calls in it.
                return Err(LogFault::Away {
                    what: format!("many calls in one: {fault}"),
                    retry_after: None,
                });
            }
        };
        let replies: Vec<StreamReply> = serde_json::from_slice(&replies).map_err(|_| Self::unanswered())?;
        Ok(replies.into_iter().map(judged).collect())
    }
}

fn judged(reply: StreamReply) -> Outcome<LogClient> {
    match (reply.status, reply.next) {
        (200, next) => Ok(next),
        (409, Some(next)) => Err(LogFault::Gap { next }),
        (404, _) => Err(LogFault::NotFound),
        (status @ (408 | 409 | 429 | 500..), _) => {
            Err(LogFault::Away { what: format!("status {status}"), retry_after: None })
        }
        (status, _) => Err(LogFault::Refused { status }),
    }
}
