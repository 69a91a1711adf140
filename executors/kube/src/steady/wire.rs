//! Requests of a wait: list, watch, read. On the raw client, because `Retry-After` stands in a header that the typed
//! calls drop.

use futures::StreamExt;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::core::params::{ListParams, WatchParams};
use kube::core::request::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much of an error's body is read for its message.
const MESSAGE_LIMIT: usize = 4096;
/// A server that asks for more patience than this is asked again nevertheless.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How long a watch lasts before the server ends it; below the limit that clients usually have.
const WATCH_SECONDS: u32 = 270;
/// The server sends a bookmark every minute, so a longer silence means that nobody is there any more.
const SILENCE: Duration = Duration::from_secs(100);
/// One event may not be longer: an object of etcd's limit, twice.
const LINE_LIMIT: usize = 4 << 20;

/// A client that counts its requests.
#[derive(Clone)]
pub(crate) struct Wire {
    client: Client,
    requests: Arc<AtomicU64>,
    resumed: Arc<AtomicU64>,
}

/// Why a request brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// 410: the place in history is gone, list again.
    Expired,
    /// 429, or another status with `Retry-After`: ask again after this.
    Throttled(Duration),
    /// The server is not there or not well; ask again.
    Unreachable(String),
    /// The server does not want to; asking again does not help.
    Refused {
        /// HTTP status.
        code: u16,
        /// What it said.
        message: String,
    },
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Expired => f.write_str("its history is too short (410)"),
            Trouble::Throttled(span) => write!(f, "it asks to wait {} s (429)", span.as_secs()),
            Trouble::Unreachable(text) => f.write_str(text),
            Trouble::Refused { code, message } => write!(f, "{message} ({code})"),
        }
    }
}

/// A list with the place in history from which a watch goes on.
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) version: String,
}

/// One line of a watch.
pub(crate) enum Event<T> {
    Put(T, String),
    Gone(T, String),
    Bookmark(String),
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: PageMeta,
    // An empty list may be null.
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    more: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    message: String,
    code: u16,
}

const AGENT: http::HeaderValue =
    http::HeaderValue::from_static(concat!("delegate/", env!("CARGO_PKG_VERSION")));

impl Wire {
    pub(crate) fn new(client: Client) -> Wire {
        Wire { client, requests: Arc::default(), resumed: Arc::default() }
    }

    /// Requests sent so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Watches taken up where an earlier one had ended.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// The next watch takes up an earlier one.
    pub(crate) fn resumes(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Body>, Trouble> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = request.map(Body::from);
        // Named like every other request of ours, so that an audit log shows all of them.
        request.headers_mut().insert(http::header::USER_AGENT, AGENT);
        let answer = self.client.send(request).await.map_err(|e| unreachable(&e))?;
        let code = answer.status().as_u16();
        if code < 400 {
            return Ok(answer);
        }
        let wait =
            answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let wait = wait.map(|seconds| Duration::from_secs(seconds).min(RETRY_LIMIT));
        let body = read(answer.into_body(), MESSAGE_LIMIT).await.unwrap_or_default();
        let status: Status = serde_json::from_slice(&body).unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let message = if status.message.is_empty() { text.trim().to_owned() } else { status.message };
        Err(match (code, wait) {
            (410, _) => Trouble::Expired,
            (429, wait) => Trouble::Throttled(wait.unwrap_or(Duration::from_secs(1))),
            (500.., Some(wait)) => Trouble::Throttled(wait),
            (500.., None) => Trouble::Unreachable(format!("{message} ({code})")),
            _ => Trouble::Refused { code, message },
        })
    }

    /// Reads all of one document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let request = Request::new(path).list(&ListParams::default()).map_err(|e| unreachable(&e))?;
        self.parsed(request).await
    }

    /// Text below `path`, at most `limit` bytes of it.
    pub(crate) async fn text(&self, path: &str, query: &str, limit: usize) -> Result<String, Trouble> {
        let uri = format!("{path}?{query}");
        let request = http::Request::get(uri).body(Vec::new()).map_err(|e| unreachable(&e))?;
        let body = read(self.send(request).await?.into_body(), limit).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn parsed<T: DeserializeOwned>(&self, request: http::Request<Vec<u8>>) -> Result<T, Trouble> {
        let body = self.send(request).await?.into_body();
        let bytes = body.collect().await.map_err(|e| unreachable(&e))?.to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|e| Trouble::Unreachable(format!("its answer is not understood: {e}")))
    }

    /// Every object of a collection, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        selector: &Selector,
    ) -> Result<Listed<T>, Trouble> {
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.label_selector.clone_from(&selector.labels);
        params.field_selector.clone_from(&selector.fields);
        let mut items = Vec::new();
        loop {
            let request = Request::new(path).list(&params).map_err(|e| unreachable(&e))?;
            let page: Page<T> = self.parsed(request).await?;
            items.append(&mut page.items.unwrap_or_default());
            match page.metadata.more.filter(|more| !more.is_empty()) {
                Some(more) => params.continue_token = Some(more),
                None => return Ok(Listed { items, version: page.metadata.resource_version }),
            }
        }
    }

    /// Changes after `version`. Ends without an error when the server ends it.
    pub(crate) async fn watch<T: DeserializeOwned>(
        &self,
        path: &str,
        selector: &Selector,
        version: &str,
    ) -> Result<Watching<T>, Trouble> {
        let params = WatchParams {
            label_selector: selector.labels.clone(),
            field_selector: selector.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let request = Request::new(path).watch(&params, version).map_err(|e| unreachable(&e))?;
        let body = self.send(request).await?.into_body();
        Ok(Watching { body, buffer: Vec::new(), ready: VecDeque::new(), kind: std::marker::PhantomData })
    }
}

/// What to list and watch of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

/// An open watch.
pub(crate) struct Watching<T> {
    body: Body,
    buffer: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watching<T> {
    /// The next event; `None`: the server ended the watch in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Event<T>>, Trouble> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return event(&line).map(Some);
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame =
                frame.map_err(|_| Trouble::Unreachable(format!("silent for {} s", SILENCE.as_secs())))?;
            let Some(frame) = frame else { return Ok(None) };
            // A server that goes down cuts the stream in the middle; the watch goes on from the last version.
            let Ok(data) = frame.map_err(|e| unreachable(&e))?.into_data() else { continue };
            for piece in data.split_inclusive(|byte| *byte == b'\n') {
                self.buffer.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    self.ready.push_back(std::mem::take(&mut self.buffer));
                } else if self.buffer.len() > LINE_LIMIT {
                    return Err(Trouble::Unreachable("an event without an end".into()));
                }
            }
        }
    }
}

fn event<T: DeserializeOwned>(line: &[u8]) -> Result<Event<T>, Trouble> {
    let odd = |e: serde_json::Error| Trouble::Unreachable(format!("an event is not understood: {e}"));
    let line: Line<'_> = serde_json::from_slice(line).map_err(odd)?;
    let object = line.object.get();
    if line.kind == "ERROR" {
        let status: Status = serde_json::from_str(object).unwrap_or_default();
        return Err(match status.code {
            410 => Trouble::Expired,
            code => Trouble::Unreachable(format!("{} ({code})", status.message)),
        });
    }
    let version = serde_json::from_str::<Versioned>(object).map_err(odd)?.metadata.resource_version;
    Ok(match line.kind {
        "BOOKMARK" => Event::Bookmark(version),
        "DELETED" => Event::Gone(serde_json::from_str(object).map_err(odd)?, version),
        _ => Event::Put(serde_json::from_str(object).map_err(odd)?, version),
    })
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|e| unreachable(&e))?);
        if bytes.len() >= limit {
            bytes.truncate(limit);
            break;
        }
    }
    Ok(bytes)
}

/// The innermost reason says most: the outer ones are names of layers.
fn unreachable(error: &dyn std::error::Error) -> Trouble {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    // rustls adds the address of its manual.
    let text = inner.to_string();
    let text = text.split(": https://docs.rs").next().unwrap_or_default();
    Trouble::Unreachable(text.to_owned())
}
