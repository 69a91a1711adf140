//! Requests to one API server: bounded, repeated where that is safe, ended on cancel, mutations told to the probe.
//!
//! Documents travel as bytes, so that a step that sends a thousand objects reads only the few fields of the answers
//! that it needs.

use crate::error::{Fault, not_recorded};
use bytes::Bytes;
use executor_api::{CancelStage, Checkpoint, StepContext, StepError, TransportProbe};
use http::{Method, Request, header};
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Largest answer that is read; a list is asked for in pages far below it.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// How many items one page of a list holds.
const PAGE: usize = 500;

/// Media type of a server-side apply. The body is JSON, which is YAML.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
/// Media type of a JSON merge patch.
pub(crate) const MERGE: &str = "application/merge-patch+json";
/// Media type of a JSON patch.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// One API server as one task sees it.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
    cx: StepContext,
    probe: Arc<dyn TransportProbe>,
    timeout: Duration,
    patience: Duration,
    /// The cluster's name in messages.
    pub(crate) target: String,
    sent: Arc<AtomicU64>,
}

/// What one request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) media: &'static str,
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
    /// Whether sending it twice does what sending it once does.
    pub(crate) repeatable: bool,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Ask {
        Ask {
            method: Method::GET,
            path: path.into(),
            media: "application/json",
            accept: "application/json",
            body: Bytes::new(),
            repeatable: true,
        }
    }

    pub(crate) fn with(method: Method, path: impl Into<String>, media: &'static str, body: Bytes) -> Ask {
        Ask { method, media, body, repeatable: false, ..Ask::get(path) }
    }

    pub(crate) fn repeatable(mut self) -> Ask {
        self.repeatable = true;
        self
    }
}

/// A good answer.
pub(crate) struct Answer {
    /// 200 or 201.
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| Fault::Strange(error.to_string()))
    }
}

impl Api {
    pub(crate) fn new(
        client: kube::Client,
        cx: &StepContext,
        probe: Arc<dyn TransportProbe>,
        settings: &crate::Settings,
        target: String,
    ) -> Api {
        Api {
            client,
            cx: cx.clone(),
            probe,
            timeout: settings.request_timeout,
            patience: settings.patience,
            target,
            sent: Arc::default(),
        }
    }

    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// How many requests have left so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Makes an intent durable; the mutations it lists may be sent afterwards.
    pub(crate) async fn announce(
        &self,
        intent: impl Into<String>,
        calls: Vec<String>,
        state: Value,
        undo: Option<Value>,
    ) -> Result<(), StepError> {
        let checkpoint = Checkpoint { intent: intent.into(), calls, state, undo };
        self.cx.checkpoints.record(checkpoint).await.map_err(not_recorded)
    }

    /// Sends a mutation that a checkpoint has announced as `call`.
    pub(crate) async fn mutate(&self, call: &str, ask: Ask) -> Result<Answer, Fault> {
        self.probe.before(&self.cx.task_id, call).await;
        let answer = self.ask(ask).await;
        self.probe.after(&self.cx.task_id, call).await;
        answer
    }

    /// Sends a request and waits for its answer. A request that may pass later is tried again for as long as the
    /// server is to be waited for; one that is not repeatable only while it surely did not reach the server.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, Fault> {
        let started = self.cx.clock.mono();
        let mut pause = Duration::from_millis(50);
        loop {
            let fault = match self.once(&ask).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let refused = matches!(fault, Fault::Refused { .. });
            let waited = self.cx.clock.mono().saturating_duration_since(started);
            if !fault.may_pass() || !(ask.repeatable || refused) || waited >= self.patience {
                return Err(fault);
            }
            let asked = match &fault {
                Fault::Refused { retry_after, .. } => *retry_after,
                _ => None,
            };
            let span = asked.unwrap_or(pause).min(self.patience.saturating_sub(waited));
            pause = (pause * 2).min(LONGEST_PAUSE);
            tokio::select! {
                biased;
                (reason, _) = self.cx.cancel.wait() => return Err(Fault::Cancelled(reason)),
                () = self.cx.clock.sleep(span) => {}
            }
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Answer, Fault> {
        let request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.path)
            .header(header::ACCEPT, ask.accept)
            .header(header::CONTENT_TYPE, ask.media)
            .header(header::USER_AGENT, concat!("delegate/", env!("CARGO_PKG_VERSION")))
            .body(Body::from(ask.body.clone()))
            .map_err(|error| Fault::Strange(format!("no request can be made of `{}`: {error}", ask.path)))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let exchange = async {
            let response = self.client.send(request).await.map_err(Fault::from)?;
            let status = response.status().as_u16();
            let retry_after = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(Duration::from_secs);
            let body = response.into_body().collect_bytes().await.map_err(Fault::from)?;
            if body.len() > MAX_ANSWER {
                return Err(Fault::Strange(format!("an answer of {} bytes", body.len())));
            }
            if (200..300).contains(&status) {
                Ok(Answer { status, body })
            } else {
                Err(refusal(status, retry_after, &body))
            }
        };
        tokio::select! {
            biased;
            // A request that changes something is seen to its end unless nobody wants to wait any more.
            (reason, _) = self.cx.cancel.wait_for(stage(&ask.method)) => Err(Fault::Cancelled(reason)),
            answer = exchange => answer,
            () = self.cx.clock.sleep(self.timeout) => Err(Fault::Timeout(self.timeout)),
        }
    }

    /// Reads one document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.ask(Ask::get(path)).await?.read()
    }

    /// Reads one document; `None` when it does not exist.
    pub(crate) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Fault> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Every item of a list, page by page. `query` begins without `?`; `Err` with 410 begins again at the first page.
    pub(crate) async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, Fault> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            metadata: Meta,
            #[serde(default)]
            items: Option<Vec<Value>>,
        }
        #[derive(Default, serde::Deserialize)]
        struct Meta {
            #[serde(default, rename = "continue")]
            next: String,
        }
        let mut restarts = 0;
        'whole: loop {
            let mut items = Vec::new();
            let mut next = String::new();
            loop {
                let mut at = format!("{path}?limit={PAGE}");
                if !query.is_empty() {
                    at.push('&');
                    at.push_str(query);
                }
                if !next.is_empty() {
                    at.push_str("&continue=");
                    at.push_str(&encode(&next));
                }
                let page: Page = match self.get(&at).await {
                    // The token of the page has expired.
                    Err(fault) if fault.code() == Some(410) && restarts < 3 => {
                        restarts += 1;
                        continue 'whole;
                    }
                    other => other?,
                };
                items.extend(page.items.unwrap_or_default());
                next = page.metadata.next;
                if next.is_empty() {
                    return Ok(items);
                }
            }
        }
    }
}

fn stage(method: &Method) -> CancelStage {
    if method == Method::GET { CancelStage::Ask } else { CancelStage::Kill }
}

fn refusal(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Fault {
    // Priority and fairness, proxies and paths that nobody serves answer in plain text.
    let mut status: Status = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(500).collect();
        Status::failure(&text, "")
    });
    status.code = code;
    let details = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let retry_after = retry_after.or((details > 0).then(|| Duration::from_secs(details.into())));
    Fault::Refused { status: status.boxed(), retry_after }
}

/// Percent-encodes a part of a query or path.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
