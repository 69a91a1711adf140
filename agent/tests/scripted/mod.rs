//! A manager with a log service that speaks the protocol exactly and does what a test tells it. It is a real server on
//! loopback; only its decisions are scripted.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "only tests use it: a panic is a failed test"
)]

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use proto::calls::{TaskCall, TaskVerb};
use proto::logs::{StreamCall, StreamVerb};
use proto::task::{HttpSpec, NoopSpec, Step, StepSpec, StepTask};
use proto::token::{DelegateToken, bearer_of};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

pub(crate) const TOKEN: &str = "00112233445566778899aabbccddeeff";
pub(crate) const ACCOUNT: &str = "acct1";
pub(crate) const LOG_TOKEN: &str = "log-token-of-the-task";

#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) lines: Vec<Value>,
    pub(crate) open: bool,
    pub(crate) closed: bool,
    pub(crate) opened: usize,
}

pub(crate) struct Task {
    pub(crate) task_type: String,
    pub(crate) package: Value,
    pub(crate) instance: Option<String>,
    pub(crate) fence: u64,
    pub(crate) answer: Option<Value>,
    pub(crate) answers: usize,
    /// To be listed once more, though assigned: its acquire reply may have been lost (settled facts §1.7).
    pub(crate) relist: bool,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) streams: HashMap<String, Stream>,
    pub(crate) aborts: Vec<String>,
    pub(crate) registered: Vec<Value>,
    pub(crate) heartbeats: Vec<Value>,
    pub(crate) checkpoints: Vec<(String, Value)>,
    pub(crate) progress: Vec<(String, Value)>,
    pub(crate) unregistered: usize,
    pub(crate) acquired: Vec<String>,
    pub(crate) polls: usize,
    /// So many log appends are stored but their reply is lost.
    pub(crate) lose_append_replies: usize,
    /// So many responses to tasks are refused with 503.
    pub(crate) refuse_responses: usize,
    /// So many acquires are done but their reply is lost.
    pub(crate) lose_acquires: usize,
    /// Every call is refused with this code.
    pub(crate) refusal: Option<&'static str>,
    pub(crate) verdicts: Vec<Value>,
    pub(crate) status: Option<&'static str>,
    pub(crate) logs_down: bool,
    /// The first call that reaches this point is never answered.
    pub(crate) hold: Option<&'static str>,
    /// One was held.
    pub(crate) holds: usize,
    /// Requests with many calls about tasks, and the calls in them.
    pub(crate) together: (usize, usize),
    /// So many such requests are carried out but their reply is lost.
    pub(crate) lose_together: usize,
    /// Short logs that came in one call.
    pub(crate) wholes: usize,
}

pub(crate) struct Manager {
    inner: Mutex<Inner>,
    changed: Notify,
    extended: bool,
    /// It takes many calls in one request.
    together: bool,
    pub(crate) address: SocketAddr,
}

type App = Arc<Manager>;
type Params = Query<HashMap<String, String>>;

impl Manager {
    pub(crate) async fn start(extended: bool) -> App {
        Manager::start_as(extended, false).await
    }

    /// One that takes many calls in one request, as ours does.
    pub(crate) async fn start_together() -> App {
        Manager::start_as(true, true).await
    }

    async fn start_as(extended: bool, together: bool) -> App {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (inner, changed) = (Mutex::default(), Notify::new());
        let app = Arc::new(Manager { inner, changed, extended, together, address });
        let router = Router::new()
            .route("/api/agent/delegates/register", post(register))
            .route("/api/agent/delegates/heartbeat-with-polling", post(heartbeat))
            .route("/api/agent/delegates/unregister", post(unregister))
            .route("/api/agent/delegates/{id}/task-events", get(events))
            .route("/api/agent/v2/delegates/{id}/tasks/{task}/acquire", put(acquire))
            .route("/api/agent/v2/tasks/{task}/delegates/{id}", post(respond))
            .route("/api/agent/ext/tasks/{task}/checkpoint", put(checkpoint))
            .route("/api/agent/ext/tasks/{task}/progress", put(progress))
            .route("/log-service/stream", post(open).put(append).delete(close));
        let router = if together {
            router
                .route("/api/agent/ext/calls", post(calls))
                .route("/log-service/stream/batch", post(stream_calls))
        } else {
            router
        };
        let router = router.with_state(app.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        app
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Changes the script and wakes whoever waits.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_waiters();
        value
    }

    pub(crate) fn queue(&self, id: &str, spec: StepSpec, timeout_ms: u64) {
        let task_type = spec.task_type().to_owned();
        let task = StepTask {
            secret_token: 7,
            ..StepTask::of(Step { identifier: id.to_owned(), name: id.to_owned(), spec })
        };
        self.queue_raw(id, &task_type, serde_json::to_value(&task).unwrap(), timeout_ms);
    }

    pub(crate) fn queue_raw(&self, id: &str, task_type: &str, data: Value, timeout_ms: u64) {
        let package = json!({
            "id": id, "type": task_type, "data": data, "async": true, "timeout": timeout_ms,
            "logging": {"token": LOG_TOKEN, "abstractions": {"accountId": ACCOUNT, "pipelineId": "p", "level0": id}},
            "delegate": {"id": "d1", "instance_id": null, "token": "callback"},
            "capabilities": [], "secrets": [],
        });
        let task = Task {
            task_type: task_type.into(),
            package,
            instance: None,
            fence: 0,
            answer: None,
            answers: 0,
            relist: false,
        };
        self.with(|inner| inner.tasks.insert(id.to_owned(), task));
    }

    pub(crate) fn noop(&self, id: &str, line: &str) {
        self.queue(id, StepSpec::Noop(NoopSpec { line: line.to_owned() }), 60_000);
    }

    pub(crate) fn http(&self, id: &str, url: &str, timeout_ms: u64) {
        let spec = HttpSpec {
            url: url.into(),
            method: "GET".into(),
            headers: vec![],
            body: None,
            assertion: None,
            output_variables: vec![],
            timeout_ms: None,
            context: Value::Null,
            any_status: false,
        };
        self.queue(id, StepSpec::Http(spec), timeout_ms);
    }

    /// Waits until `check` gives something; panics with `what` after a limit.
    pub(crate) async fn wait<T>(&self, what: &str, check: impl Fn(&Inner) -> Option<T>) -> T {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(found) = check(&self.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), wait).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for: {what}"),
        }
    }

    /// Stays here for ever if a test says so.
    async fn pass(&self, point: &str) {
        let held = self.with(|inner| {
            let held = inner.hold == Some(point);
            if held {
                inner.hold = None;
                inner.holds += 1;
            }
            held
        });
        if held {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn answer(&self, id: &str) -> Value {
        self.wait(&format!("answer to {id}"), |inner| inner.tasks.get(id)?.answer.clone()).await
    }

    pub(crate) fn lines(&self, unit_key: &str) -> Vec<String> {
        let inner = self.lock();
        let stream = inner
            .streams
            .get(unit_key)
            .unwrap_or_else(|| panic!("no stream {unit_key}: {:?}", inner.streams.keys()));
        stream.lines.iter().map(|line| line["out"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn unit_key(task: &str) -> String {
    format!("accountId:{ACCOUNT}/pipelineId:p/level0:{task}-commandUnit:Execute")
}

fn wrapped(resource: Value) -> Response {
    axum::Json(json!({"metaData": {}, "resource": resource, "responseMessages": []})).into_response()
}

/// The authentication of protocol.md §1.4, done properly.
fn admit(app: &Manager, query: &HashMap<String, String>, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let refuse = |code: &str| {
        let body = json!({"metaData": {}, "resource": null, "responseMessages": [{"code": code, "level": "ERROR", "message": "m"}]});
        Err(Box::new((StatusCode::UNAUTHORIZED, axum::Json(body)).into_response()))
    };
    if let Some(code) = app.lock().refusal {
        return refuse(code);
    }
    let header = headers["authorization"].to_str().unwrap();
    let token = DelegateToken::normalise(TOKEN).unwrap();
    let Some(claims) = bearer_of(header).and_then(|bearer| token.open(bearer).ok()) else {
        return refuse("INVALID_TOKEN");
    };
    assert_eq!(claims.sub, ACCOUNT);
    assert_eq!(query["accountId"], ACCOUNT);
    assert_eq!(headers["delegatetokenhash"].to_str().unwrap(), token.hash());
    assert!(headers["user-agent"].to_str().unwrap().starts_with("delegate/"));
    assert_eq!(headers["content-type"], "application/json");
    Ok(())
}

macro_rules! admit {
    ($app:expr, $query:expr, $headers:expr) => {
        if let Err(refusal) = admit(&$app, &$query, &$headers) {
            return *refusal;
        }
    };
}

async fn register(State(app): State<App>, Query(query): Params, headers: HeaderMap, body: Bytes) -> Response {
    admit!(app, query, headers);
    let body: Value = serde_json::from_slice(&body).unwrap();
    app.with(|inner| {
        inner.registered.push(body);
        inner
            .tasks
            .values_mut()
            .for_each(|task| task.relist = task.instance.is_some() && task.answer.is_none());
    });
    let mut resource = json!({"delegateId": "d1", "action": null});
    if app.extended {
        resource["delegateExt"] = json!({"version": 1, "leaseMs": 60000, "heartbeatMs": 250,
            "features": ["longPoll", "fence", "checkpoint", "progress", "streamResume", "sealedSecrets", "busy"]});
    }
    if app.together {
        let features = resource["delegateExt"]["features"].as_array_mut().unwrap();
        features.extend(["logBatch", "logWhole", "taskBatch", "unheardOf"].map(Value::from));
    }
    wrapped(resource)
}

async fn heartbeat(
    State(app): State<App>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    admit!(app, query, headers);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (status, verdicts) = app.with(|inner| {
        inner.heartbeats.push(body);
        (inner.status.unwrap_or("ENABLED"), std::mem::take(&mut inner.verdicts))
    });
    wrapped(json!({"delegateId": "d1", "status": status, "delegateExt": {"verdicts": verdicts}}))
}

async fn unregister(State(app): State<App>, Query(query): Params, headers: HeaderMap) -> Response {
    admit!(app, query, headers);
    app.with(|inner| inner.unregistered += 1);
    wrapped(Value::Null)
}

async fn events(State(app): State<App>, Query(query): Params, headers: HeaderMap) -> Response {
    admit!(app, query, headers);
    let wait = query.get("wait_ms").map(|text| Duration::from_millis(text.parse().unwrap()));
    assert!(app.extended || wait.is_none(), "wait_ms was not announced");
    let look = || {
        let mut inner = app.lock();
        inner.polls += 1;
        let mut events: Vec<Value> = inner
            .tasks
            .iter_mut()
            .filter_map(|(id, task)| (std::mem::take(&mut task.relist) || task.instance.is_none()).then_some((id, task)))
            .map(|(id, task)| json!({"eventType": "DelegateTaskEvent", "accountId": ACCOUNT, "delegateTaskId": id, "sync": false, "taskType": task.task_type}))
            .collect();
        let aborts: Vec<String> = inner.aborts.drain(..).collect();
        events.extend(aborts.iter().map(|id| json!({"eventType": "DelegateTaskAbortEvent", "reason": "User", "accountId": ACCOUNT, "delegateTaskId": id})));
        events
    };
    let deadline = tokio::time::Instant::now() + wait.unwrap_or_default().min(Duration::from_secs(2));
    loop {
        let mut changed = std::pin::pin!(app.changed.notified());
        changed.as_mut().enable();
        let events = look();
        if !events.is_empty() || tokio::time::timeout_at(deadline, changed).await.is_err() {
            app.changed.notify_waiters();
            return axum::Json(json!({"delegateTaskEvents": events})).into_response();
        }
    }
}

async fn acquire(
    State(app): State<App>,
    Path((_, task)): Path<(String, String)>,
    Query(query): Params,
    headers: HeaderMap,
) -> Response {
    admit!(app, query, headers);
    let instance = query["delegateInstanceId"].clone();
    let (package, lost) = app.with(|inner| {
        inner.acquired.push(task.clone());
        let lost = inner.lose_acquires > 0;
        let Some(one) = inner.tasks.get_mut(&task) else { return (None, false) };
        if one.answer.is_some() || one.instance.as_ref().is_some_and(|held| *held != instance) {
            return (None, false);
        }
        if one.instance.is_none() {
            one.instance = Some(instance.clone());
            one.fence += 1;
        }
        let mut package = one.package.clone();
        package["delegate"]["instance_id"] = json!(instance);
        if app.extended {
            package["delegateExt"]["fence"] = json!(one.fence);
        }
        inner.lose_acquires = inner.lose_acquires.saturating_sub(1);
        (Some(package), lost)
    });
    app.pass("acquired").await;
    match package {
        Some(_) if lost => StatusCode::BAD_GATEWAY.into_response(),
        Some(package) => axum::Json(package).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn respond(
    State(app): State<App>,
    Path((task, _)): Path<(String, String)>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    admit!(app, query, headers);
    let body: Value = serde_json::from_slice(&body).unwrap();
    app.pass("before answer").await;
    let status = app.with(|inner| {
        if inner.refuse_responses > 0 {
            inner.refuse_responses -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        if let Some(one) = inner.tasks.get_mut(&task) {
            one.answers += 1;
            one.answer.get_or_insert(body);
        }
        StatusCode::NO_CONTENT
    });
    app.pass("after answer").await;
    status.into_response()
}

/// Many calls about tasks, each carried out as the single one (ADR 0008).
async fn calls(State(app): State<App>, Query(query): Params, headers: HeaderMap, body: Bytes) -> Response {
    admit!(app, query, headers);
    let calls: Vec<TaskCall> = serde_json::from_slice(&body).unwrap();
    assert!(calls.len() <= proto::limits::MAX_TASK_CALLS);
    let lost = app.with(|inner| {
        inner.together = (inner.together.0 + 1, inner.together.1 + calls.len());
        let lost = inner.lose_together > 0;
        inner.lose_together = inner.lose_together.saturating_sub(1);
        lost
    });
    let replies = futures::future::join_all(calls.into_iter().map(|call| {
        let (state, mut query, headers) = (State(app.clone()), query.clone(), headers.clone());
        async move {
            let task = call.task_id;
            let body = call.body.map(|body| Bytes::from(body.get().to_owned())).unwrap_or_default();
            query.extend(call.instance_id.map(|instance| ("delegateInstanceId".to_owned(), instance)));
            let both = Path((task.clone(), "d1".to_owned()));
            let reply = match call.verb {
                TaskVerb::Acquire => {
                    acquire(state, Path(("d1".to_owned(), task)), Query(query), headers).await
                }
                TaskVerb::Respond => respond(state, both, Query(query), headers, body).await,
                TaskVerb::Checkpoint => checkpoint(state, Path(task), Query(query), headers, body).await,
                TaskVerb::Progress => progress(state, Path(task), Query(query), headers, body).await,
            };
            let status = reply.status().as_u16();
            let text = axum::body::to_bytes(reply.into_body(), 1 << 20).await.unwrap();
            json!({"status": status, "body": serde_json::from_slice::<Value>(&text).ok()})
        }
    }));
    let replies = replies.await;
    if lost { StatusCode::BAD_GATEWAY.into_response() } else { axum::Json(replies).into_response() }
}

/// Many calls about log streams, each carried out as the single one.
async fn stream_calls(State(app): State<App>, Query(query): Params, body: Bytes) -> Response {
    let calls: Vec<StreamCall> = serde_json::from_slice(&body).unwrap();
    let mut replies = Vec::new();
    for call in calls {
        let headers =
            HeaderMap::from_iter([("x-harness-token".parse().unwrap(), call.token.parse().unwrap())]);
        let mut query = query.clone();
        query.extend([("key".to_owned(), call.key), ("resume".to_owned(), "true".to_owned())]);
        query.extend([("seq".to_owned(), call.seq.to_string()), ("snapshot".to_owned(), "true".to_owned())]);
        let lines = call.lines.map(|lines| Bytes::from(lines.get().to_owned())).unwrap_or_default();
        let verbs = match call.verb {
            StreamVerb::Whole => {
                app.with(|inner| inner.wholes += 1);
                vec![StreamVerb::Open, StreamVerb::Append, StreamVerb::Close]
            }
            verb => vec![verb],
        };
        let mut outcome = json!({"status": 200});
        for verb in verbs {
            let (state, query, headers) = (State(app.clone()), Query(query.clone()), headers.clone());
            let reply = match verb {
                StreamVerb::Open => open(state, query, headers).await,
                StreamVerb::Append => append(state, query, headers, lines.clone()).await,
                StreamVerb::Close | StreamVerb::Whole => close(state, query, headers).await,
            };
            let status = match reply.status().as_u16() {
                204 => 200,
                400 => 404,
                other => other,
            };
            let text = axum::body::to_bytes(reply.into_body(), 1 << 20).await.unwrap();
            outcome["status"] = json!(status);
            if let Ok(Value::Object(said)) = serde_json::from_slice(&text) {
                outcome["next"] = said.get("next").cloned().unwrap_or_default();
            }
            if status != 200 {
                break;
            }
        }
        replies.push(outcome);
    }
    axum::Json(replies).into_response()
}

async fn checkpoint(
    State(app): State<App>,
    Path(task): Path<String>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    admit!(app, query, headers);
    app.with(|inner| inner.checkpoints.push((task, serde_json::from_slice(&body).unwrap())));
    StatusCode::NO_CONTENT.into_response()
}

async fn progress(
    State(app): State<App>,
    Path(task): Path<String>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    admit!(app, query, headers);
    app.with(|inner| inner.progress.push((task, serde_json::from_slice(&body).unwrap())));
    StatusCode::NO_CONTENT.into_response()
}

fn log_admit(
    app: &Manager,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
) -> Result<String, Box<Response>> {
    assert_eq!(headers["x-harness-token"], LOG_TOKEN);
    assert_eq!(query["accountID"], ACCOUNT);
    if app.lock().logs_down {
        return Err(Box::new(StatusCode::BAD_GATEWAY.into_response()));
    }
    Ok(query["key"].clone())
}

async fn open(State(app): State<App>, Query(query): Params, headers: HeaderMap) -> Response {
    let key = match log_admit(&app, &query, &headers) {
        Ok(key) => key,
        Err(response) => return *response,
    };
    app.pass("before open").await;
    let resume = query.contains_key("resume");
    assert!(app.extended || !resume, "streamResume was not announced");
    let next = app.with(|inner| {
        let stream = inner.streams.entry(key).or_default();
        if !resume {
            stream.lines.clear();
        }
        stream.open = true;
        stream.opened += 1;
        stream.lines.len()
    });
    if resume {
        axum::Json(json!({"next": next})).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    }
}

async fn append(State(app): State<App>, Query(query): Params, headers: HeaderMap, body: Bytes) -> Response {
    let key = match log_admit(&app, &query, &headers) {
        Ok(key) => key,
        Err(response) => return *response,
    };
    let lines: Vec<Value> = serde_json::from_slice(&body).unwrap();
    assert!(lines.len() <= proto::limits::MAX_LOG_BATCH_LINES);
    app.pass("before append").await;
    let response = app.with(|inner| {
        let lose = inner.lose_append_replies > 0;
        let Some(stream) = inner.streams.get_mut(&key).filter(|stream| stream.open) else {
            return (StatusCode::BAD_REQUEST, axum::Json(json!({"error_msg": "stream: not found"})))
                .into_response();
        };
        let seq: Option<usize> = query.get("seq").map(|text| text.parse().unwrap());
        let next = stream.lines.len();
        match seq {
            Some(seq) if seq > next => {
                return (StatusCode::CONFLICT, axum::Json(json!({"next": next}))).into_response();
            }
            Some(seq) => stream.lines.extend(lines.into_iter().skip(next - seq)),
            None => stream.lines.extend(lines),
        }
        let next = stream.lines.len();
        if lose {
            inner.lose_append_replies -= 1;
            return StatusCode::BAD_GATEWAY.into_response();
        }
        if seq.is_some() {
            axum::Json(json!({"next": next})).into_response()
        } else {
            StatusCode::NO_CONTENT.into_response()
        }
    });
    app.pass("after append").await;
    response
}

async fn close(State(app): State<App>, Query(query): Params, headers: HeaderMap) -> Response {
    let key = match log_admit(&app, &query, &headers) {
        Ok(key) => key,
        Err(response) => return *response,
    };
    assert_eq!(query["snapshot"], "true");
    app.pass("before close").await;
    app.with(|inner| match inner.streams.get_mut(&key).filter(|stream| stream.open) {
        Some(stream) => {
            stream.open = false;
            stream.closed = true;
            StatusCode::NO_CONTENT.into_response()
        }
        None => (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!({"error_msg": "stream: not found"})))
            .into_response(),
    })
}

/// An agent under test, on a runtime of its own like the one of the command line, so that dropping it is a crash.
pub(crate) struct Agent {
    pub(crate) shutdown: agent::ShutdownHandle,
    crash: tokio::sync::oneshot::Sender<()>,
    ended: tokio::sync::oneshot::Receiver<Option<Result<(), agent::AgentError>>>,
}

pub(crate) fn config(manager: &Manager, data: &std::path::Path, extra: &[(&str, &str)]) -> agent::Config {
    let mut env: BTreeMap<String, String> = [
        ("ACCOUNT_ID", ACCOUNT),
        ("DELEGATE_NAME", "zone-a"),
        ("DELEGATE_TOKEN", TOKEN),
        ("DELEGATE_TAGS", "linux, dc1"),
        ("DELEGATE_HEALTH_LISTEN", "127.0.0.1:0"),
        ("HOSTNAME", "box"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    env.insert("MANAGER_HOST_AND_PORT".into(), manager.url());
    env.insert("DELEGATE_DATA_DIR".into(), data.to_str().unwrap().into());
    env.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    agent::Config::load(&env, None, &BTreeMap::new()).unwrap()
}

impl Agent {
    pub(crate) fn start(manager: &Manager, data: &std::path::Path, extra: &[(&str, &str)]) -> Agent {
        // `RUST_LOG=agent=debug` shows what the agent says; a second call changes nothing.
        let _unused = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .try_init();
        let config = config(manager, data, extra);
        let shutdown = agent::ShutdownHandle::new();
        let (crash, crashed) = tokio::sync::oneshot::channel();
        let (done, ended) = tokio::sync::oneshot::channel();
        let handle = shutdown.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = agent::run(config, handle, |_, _| {}) => Some(outcome),
                    _ = crashed => None,
                }
            });
            drop(runtime);
            let _unused = done.send(outcome);
        });
        Agent { shutdown, crash, ended }
    }

    /// The process state goes; the data directory stays.
    pub(crate) async fn crash(self) {
        let _unused = self.crash.send(());
        assert!(self.ended.await.unwrap().is_none());
    }

    pub(crate) async fn ended(self) -> Result<(), agent::AgentError> {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.ended).await;
        ended.expect("the agent did not end").unwrap().unwrap()
    }

    pub(crate) async fn stop(self) -> Result<(), agent::AgentError> {
        self.shutdown.drain();
        self.ended().await
    }
}

/// A server that takes connections and never answers.
pub(crate) async fn silent_server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    format!("http://{address}/")
}
