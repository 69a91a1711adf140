//! Plain HTTP in front of the real API server, with a fault that a test chooses.

use futures::StreamExt as _;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the proxy does to requests, each to so many of them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// None; watches end when the test says so ([`Proxy::end_watches`]).
    None,
    /// A change is answered with 429 in plain text, as priority and fairness does it.
    TooMany(usize),
    /// A change is carried out and its answer lost.
    Lost(usize),
    /// A watch ends after its first event with the one that tells of 410, as a server whose history was compacted
    /// sends it.
    Expired(usize),
}

/// The answer to a change is lost: hyper closes the connection on an error of the service.
#[derive(Debug, thiserror::Error)]
#[error("lost")]
struct Lost;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The proxy; it ends with the test's runtime.
pub struct Proxy {
    pub url: String,
    fault: Fault,
    client: kube::Client,
    hits: AtomicUsize,
    requests: AtomicUsize,
    pod_lists: AtomicUsize,
    over: watch::Sender<bool>,
}

impl Proxy {
    /// Forwards to the server of `client`, with the caller's own token when it sends one.
    pub async fn start(client: kube::Client, fault: Fault) -> Arc<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Arc::new(Proxy {
            url: format!("http://{}", listener.local_addr().unwrap()),
            fault,
            client,
            hits: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            pod_lists: AtomicUsize::new(0),
            over: watch::Sender::new(false),
        });
        let shared = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let proxy = shared.clone();
                let service = service_fn(move |request| proxy.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        proxy
    }

    /// How often the fault happened.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Lists of the pods of the workload `web`.
    pub fn pod_lists(&self) -> usize {
        self.pod_lists.load(Ordering::SeqCst)
    }

    /// Ends every watch in order, as a server does when the time of the watch is over; later ones end at once.
    pub fn end_watches(&self) {
        self.over.send_replace(true);
    }

    /// Whether the fault is still to happen; it is counted when it is.
    fn strike(&self, times: usize) -> bool {
        let more = |hits| (hits < times).then_some(hits + 1);
        self.hits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Lost> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let changes = !["GET", "HEAD"].contains(&head.method.as_str())
            && !query.contains("dryRun=All")
            && !head.uri.path().contains("authorization.k8s.io");
        if changes && matches!(self.fault, Fault::TooMany(times) if self.strike(times)) {
            let answer = Response::builder()
                .status(StatusCode::TOO_MANY_REQUESTS)
                .header(header::CONTENT_TYPE, "text/plain")
                .header(header::RETRY_AFTER, "1");
            let text = "Too many requests, please try again later.\n";
            return Ok(answer.body(Full::from(text).boxed_unsync()).unwrap());
        }
        let lost = changes && matches!(self.fault, Fault::Lost(times) if self.strike(times));
        let mut onward = Request::builder().method(&head.method).uri(&head.uri);
        for name in [header::ACCEPT, header::CONTENT_TYPE, header::AUTHORIZATION] {
            if let Some(value) = head.headers.get(&name) {
                onward = onward.header(name, value);
            }
        }
        let body = body.collect().await.unwrap().to_bytes();
        let answer = self.client.send(onward.body(Body::from(body.to_vec())).unwrap()).await.unwrap();
        if lost {
            return Err(Lost);
        }
        let watched = query.contains("watch=");
        if !watched && head.uri.path().ends_with("/pods") && query.contains("labelSelector=app%3Dweb") {
            self.pod_lists.fetch_add(1, Ordering::SeqCst);
        }
        let status = answer.status();
        let body = if watched && status.is_success() {
            self.watch(answer.into_body())
        } else {
            Full::new(answer.into_body().collect().await.unwrap().to_bytes()).boxed_unsync()
        };
        let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
        Ok(answer.body(body).unwrap())
    }

    fn watch(&self, body: Body) -> UnsyncBoxBody<Bytes, Infallible> {
        let expires = matches!(self.fault, Fault::Expired(times) if self.strike(times));
        let watched = Watched { body, expires, over: self.over.subscribe(), told: false, within: false };
        let frames = futures::stream::unfold(Some(watched), async |watched| watched?.next().await);
        StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync()
    }
}

/// A watch on its way through the proxy.
struct Watched {
    body: Body,
    expires: bool,
    over: watch::Receiver<bool>,
    /// A whole event was passed on.
    told: bool,
    /// An event was passed on in part.
    within: bool,
}

impl Watched {
    /// The next bytes, and the watch if it goes on after them. Events are never torn.
    async fn next(mut self) -> Option<(Bytes, Option<Watched>)> {
        if self.expires && self.told && !self.within {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410});
            return Some((format!("{}\n", json!({"type": "ERROR", "object": status})).into(), None));
        }
        let bytes = tokio::select! {
            frame = self.body.frame() => frame?.ok()?.into_data().unwrap_or_default(),
            _ended = self.over.wait_for(|over| *over), if !self.within => return None,
        };
        if let Some(last) = bytes.last() {
            self.within = *last != b'\n';
            self.told |= !self.within;
        }
        Some((bytes, Some(self)))
    }
}
