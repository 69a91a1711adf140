//! The log service's HTTP API (protocol facts §9, log-service-peer.md, ADR 0002), mounted under `/log-service`.
//!
//! What differs from the real service on purpose: streams neither lose lines nor expire (`timeout_seconds` is checked
//! and not used); tails end when the stream is closed, with a blank line; `null` elements are left out; `exists` is
//! exact; nothing of another account is ever shown.

use super::lines::decode;
use super::{Close, LogError, Open};
use crate::app::App;
use crate::auth::{AuthError, LogTokenError, Role};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Query, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use proto::limits::{MAX_LOG_BODY_BYTES, MAX_STREAM_CALLS};
use proto::logs::{StreamCall, StreamNext, StreamReply, StreamVerb};
use proto::token::{TOKEN_HASH_HEADER, bearer_of};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

/// Header, and query parameter, with a log token.
const TOKEN_HEADER: &str = "X-Harness-Token";
/// Largest blob that is taken in one request. Clients keep at most the last 5 MB.
const MAX_BLOB_BYTES: usize = 64 * 1024 * 1024;
/// What a tail or a download holds in memory.
const PIECE_BYTES: usize = 256 * 1024;
/// Pause after which an idle tail sends a comment, so that proxies keep the connection.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Streams that one close with a prefix reaches.
const MAX_CLOSED: usize = 10_000;

/// All routes below `/log-service`.
pub fn router(app: App) -> Router {
    let streams = Router::new()
        .route("/stream", post(open).put(append).delete(close).get(tail))
        .route("/stream/batch", post(batch))
        .layer(DefaultBodyLimit::max(MAX_LOG_BODY_BYTES));
    let blobs = Router::new()
        .route("/blob", post(upload).get(download).delete(remove))
        .layer(DefaultBodyLimit::max(MAX_BLOB_BYTES));
    let others = Router::new()
        .route("/blob/exists", get(exists))
        .route("/blob/link/upload", post(no_links))
        .route("/blob/link/download", post(no_links))
        .route("/token", get(token))
        .route("/healthz", get(|| async { "OK" }));
    let all = streams
        .merge(blobs)
        .merge(others)
        .fallback(|| async { Fault::new(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .with_state(app);
    Router::new().nest("/log-service", all)
}

/// A refusal: `{"error_msg": …}`.
#[derive(Debug)]
struct Fault {
    status: StatusCode,
    message: String,
}

impl Fault {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Fault { status, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error_msg": self.message }))).into_response()
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        match &error {
            LogError::NotOpen => Fault::bad(error.to_string()),
            LogError::NotFound => Fault::new(StatusCode::NOT_FOUND, error.to_string()),
            LogError::Gap { .. } => Fault::new(StatusCode::CONFLICT, error.to_string()),
            LogError::Io { .. } | LogError::Damaged { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "a log request failed");
                Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the log store failed; try again")
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Params {
    #[serde(default, rename = "accountID")]
    account: String,
    #[serde(default)]
    key: String,
    #[serde(default, rename = "X-Harness-Token")]
    token: Option<String>,
    #[serde(default)]
    timeout_seconds: Option<String>,
    #[serde(default)]
    resume: Option<String>,
    #[serde(default)]
    seq: Option<String>,
    #[serde(default)]
    snapshot: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default, rename = "keyList")]
    key_list: Option<String>,
}

fn is_true(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "true" || value == "1")
}

/// A request that may touch its key.
struct Access {
    account: String,
    key: String,
    params: Params,
}

impl FromRequestParts<App> for Access {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        let Query(params) = Query::<Params>::try_from_uri(&parts.uri)
            .map_err(|_| Fault::bad("the query cannot be read; `key` must be URL-encoded"))?;
        if params.account.is_empty() {
            return Err(Fault::bad("no account ID in query params"));
        }
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let now = app.clock.wall();
        if let Some(token) = header(TOKEN_HEADER).or(params.token.as_deref()) {
            let check = |key: &str| app.log_tokens.check(token, &params.account, Some(key), now);
            let listed =
                params.key_list.iter().flat_map(|list| list.split(',')).filter(|key| !key.is_empty());
            let keys: Vec<&str> =
                if params.key_list.is_some() { listed.collect() } else { vec![params.key.as_str()] };
            let checked = keys.into_iter().try_for_each(check);
            checked.map_err(|error: LogTokenError| Fault::new(StatusCode::FORBIDDEN, error.to_string()))?;
        } else if let Some(key) = header("x-api-key") {
            let principal = app.credentials.principal(key).await.map_err(|error| {
                tracing::error!(%error, "an API key cannot be checked");
                Fault::new(StatusCode::SERVICE_UNAVAILABLE, "keys cannot be read; try again")
            })?;
            // Logs are written by agents; a person's key must not put lines into them.
            let needed = if parts.method == axum::http::Method::GET { Role::Viewer } else { Role::Admin };
            let allowed = principal.is_some_and(|principal| principal.role >= needed);
            if !allowed || params.account != app.account {
                return Err(Fault::new(StatusCode::FORBIDDEN, "the API key is not valid for this account"));
            }
        } else {
            return Err(Fault::bad("no token in header or query params"));
        }
        Ok(Access { account: params.account.clone(), key: params.key.clone(), params })
    }
}

async fn open(State(app): State<App>, access: Access) -> Result<Response, Fault> {
    if let Some(timeout) = &access.params.timeout_seconds {
        let seconds: i64 = timeout.parse().map_err(|_| Fault::bad("`timeout_seconds` is not a number"))?;
        if seconds < 0 {
            return Err(Fault::bad("`timeout_seconds` is negative"));
        }
    }
    if is_true(access.params.resume.as_ref()) {
        let next = app.logs.open(&access.account, &access.key, Open::Resume).await?;
        return Ok(Json(StreamNext { next }).into_response());
    }
    app.logs.open(&access.account, &access.key, Open::Erase).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn append(State(app): State<App>, access: Access, body: Bytes) -> Result<Response, Fault> {
    let seq = match &access.params.seq {
        None => None,
        Some(seq) => Some(seq.parse::<u64>().map_err(|_| Fault::bad("`seq` is not a line number"))?),
    };
    let lines = decode(&body).map_err(|e| Fault::bad(e.to_string()))?;
    match app.logs.append(&access.account, &access.key, seq, lines).await {
        Ok(next) if seq.is_some() => Ok(Json(StreamNext { next }).into_response()),
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(LogError::Gap { next }) => Ok((StatusCode::CONFLICT, Json(StreamNext { next })).into_response()),
        Err(error) => Err(error.into()),
    }
}

async fn close(State(app): State<App>, access: Access) -> Result<StatusCode, Fault> {
    let how = if is_true(access.params.snapshot.as_ref()) { Close::Snapshot } else { Close::Discard };
    let keys: Vec<String> = if let Some(list) = &access.params.key_list {
        list.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect()
    } else if is_true(access.params.prefix.as_ref()) {
        let found = app.logs.keys(&access.account, &access.key, MAX_CLOSED).await?;
        found.into_iter().filter(|stream| stream.open).map(|stream| stream.key).collect()
    } else {
        return match app.logs.close(&access.account, &access.key, how).await {
            Ok(()) => Ok(StatusCode::NO_CONTENT),
            // As the real service: clients know this answer.
            Err(error @ LogError::NotOpen) => {
                Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
            }
            Err(error) => Err(error.into()),
        };
    };
    for key in keys {
        match app.logs.close(&access.account, &key, how).await {
            // One that is closed already must not keep the others open.
            Ok(()) | Err(LogError::NotOpen) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Many calls of an agent in one request; each has its own token.
async fn batch(State(app): State<App>, parts: Parts, body: Bytes) -> Result<Json<Vec<StreamReply>>, Fault> {
    let Query(params) =
        Query::<Params>::try_from_uri(&parts.uri).map_err(|_| Fault::bad("the query cannot be read"))?;
    let calls: Vec<StreamCall> =
        serde_json::from_slice(&body).map_err(|_| Fault::bad("the body is not a list of stream calls"))?;
    if calls.len() > MAX_STREAM_CALLS {
        return Err(Fault::bad(format!("more than {MAX_STREAM_CALLS} calls in one request")));
    }
    let mut replies = Vec::with_capacity(calls.len());
    for call in calls {
        replies.push(one_of_batch(&app, &params.account, call).await);
    }
    // Who may do nothing of it is told so as with a single call.
    if replies.iter().all(|reply| reply.status == StatusCode::FORBIDDEN.as_u16()) {
        return Err(Fault::new(StatusCode::FORBIDDEN, "no call has a token that allows it"));
    }
    Ok(Json(replies))
}

async fn one_of_batch(app: &App, account: &str, call: StreamCall) -> StreamReply {
    let refused = |status: StatusCode| StreamReply { status: status.as_u16(), next: None };
    if app.log_tokens.check(&call.token, account, Some(&call.key), app.clock.wall()).is_err() {
        return refused(StatusCode::FORBIDDEN);
    }
    let done = match call.verb {
        StreamVerb::Open => app.logs.open(account, &call.key, Open::Resume).await.map(Some),
        StreamVerb::Append | StreamVerb::Whole => {
            let lines = call.lines.map(|lines| Bytes::from(String::from(Box::<str>::from(lines))));
            let Some(lines) = lines.and_then(|lines| decode(&lines).ok()) else {
                return refused(StatusCode::BAD_REQUEST);
            };
            if call.verb == StreamVerb::Whole {
                app.logs.whole(account, &call.key, call.seq, lines).await.map(Some)
            } else {
                app.logs.append(account, &call.key, Some(call.seq), lines).await.map(Some)
            }
        }
        StreamVerb::Close => app.logs.close(account, &call.key, Close::Snapshot).await.map(|()| None),
    };
    match done {
        Ok(next) => StreamReply { status: StatusCode::OK.as_u16(), next },
        Err(LogError::Gap { next }) => {
            StreamReply { status: StatusCode::CONFLICT.as_u16(), next: Some(next) }
        }
        Err(LogError::NotOpen | LogError::NotFound) => refused(StatusCode::NOT_FOUND),
        Err(error) => refused(Fault::from(error).status),
    }
}

/// Where a tail stands.
struct Tail {
    app: App,
    account: String,
    key: String,
    next: u64,
    news: watch::Receiver<u64>,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Begin,
    Lines,
    End,
}

impl Tail {
    async fn piece(&mut self) -> Option<Bytes> {
        if self.stage == Stage::Begin {
            self.stage = Stage::Lines;
            return Some(Bytes::from_static(b": ping\n\n"));
        }
        loop {
            if self.stage == Stage::End {
                return None;
            }
            // Marked as seen before the look: what comes after it wakes the wait below.
            self.news.mark_unchanged();
            let read = self.app.logs.read(&self.account, &self.key, self.next, PIECE_BYTES).await;
            match read {
                Ok(piece) if !piece.text.is_empty() => {
                    self.next = piece.next;
                    return Some(events(&piece.text));
                }
                Ok(piece) if piece.open => {}
                Ok(_) | Err(LogError::NotFound | LogError::NotOpen) => return Some(self.end()),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a tail was broken off");
                    return Some(self.end());
                }
            }
            tokio::select! {
                changed = self.news.changed() => {
                    if changed.is_err() {
                        return Some(self.end());
                    }
                }
                () = self.app.clock.sleep(PING_EVERY) => return Some(Bytes::from_static(b": ping\n\n")),
                () = self.app.stop.cancelled() => return Some(self.end()),
            }
        }
    }

    fn end(&mut self) -> Bytes {
        self.stage = Stage::End;
        Bytes::from_static(b"event: error\ndata: eof\n\n")
    }
}

/// Lines as server-sent events.
fn events(lines: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(lines.len() + lines.len() / 8);
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line);
        text.extend_from_slice(b"\n\n");
    }
    Bytes::from(text)
}

async fn tail(State(app): State<App>, access: Access) -> Result<Response, Fault> {
    let news = app.logs.watch(&access.account, &access.key);
    let open = app.logs.keys(&access.account, &access.key, 1).await?;
    // A stream that is not open has no tail: it ends at once, as the real one does. Its lines are in the blob.
    let open = open.first().is_some_and(|stream| stream.key == access.key && stream.open);
    let tail = Tail { app, account: access.account, key: access.key, next: 0, news, stage: Stage::Begin };
    let pieces = stream::unfold((tail, open), |(mut tail, open)| async move {
        let piece = if !open && tail.stage == Stage::Lines { Some(tail.end()) } else { tail.piece().await };
        piece.map(|piece| (Ok::<_, std::io::Error>(piece), (tail, open)))
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}

async fn upload(State(app): State<App>, access: Access, body: Bytes) -> Result<StatusCode, Fault> {
    app.logs.put_blob(&access.account, &access.key, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn download(State(app): State<App>, access: Access) -> Result<Response, Fault> {
    // The first piece decides between 200 and 404; the rest follows as the client reads.
    let first = app.logs.blob(&access.account, &access.key, 0, PIECE_BYTES).await?;
    let at = u64::try_from(first.len()).unwrap_or(0);
    let rest = stream::unfold((app, access, at), |(app, access, at)| async move {
        match app.logs.blob(&access.account, &access.key, at, PIECE_BYTES).await {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                let at = at + u64::try_from(piece.len()).unwrap_or(0);
                Some((Ok(piece), (app, access, at)))
            }
            // Breaks the connection, so that a cut log is not taken for a whole one.
            Err(error) => Some((Err(std::io::Error::other(error)), (app, access, at))),
        }
    });
    let all = futures::StreamExt::chain(stream::iter([Ok::<_, std::io::Error>(first)]), rest);
    let mut response = Body::from_stream(all).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}

async fn remove(State(app): State<App>, access: Access) -> Result<StatusCode, Fault> {
    app.logs.delete_blob(&access.account, &access.key).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn exists(State(app): State<App>, access: Access) -> Result<Json<bool>, Fault> {
    Ok(Json(app.logs.has_blob(&access.account, &access.key).await?))
}

/// Signed links need an object store.
async fn no_links(_access: Access) -> Fault {
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "not implemented")
}

/// A token for every key of the account, for whoever can prove to belong to it: an API key, or the bearer of an agent.
async fn token(State(app): State<App>, parts: Parts) -> Result<Response, Fault> {
    let Query(params) =
        Query::<Params>::try_from_uri(&parts.uri).map_err(|_| Fault::bad("the query cannot be read"))?;
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let allowed = if let Some(key) = header("x-api-key").or_else(|| header(TOKEN_HEADER)) {
        // Such a token also writes, so a key that may only read gets none.
        let principal = app.credentials.principal(key).await.map_err(|_| AuthError::Unavailable);
        principal.map(|known| {
            known.is_some_and(|known| known.role >= Role::Admin) && params.account == app.account
        })
    } else {
        let bearer = header(AUTHORIZATION.as_str()).and_then(bearer_of);
        app.credentials.verify(&params.account, bearer, header(TOKEN_HASH_HEADER)).await.map(|_| true)
    };
    // 400 for every refusal, as the real service.
    if !allowed.unwrap_or(false) {
        return Err(Fault::bad("no valid key for this account"));
    }
    let minted = app.log_tokens.mint(&params.account, "", app.clock.wall());
    let mut response = minted.into_response();
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}
