//! A Harness manager as an agent sees one, for tests: HTTPS, none of our extensions, the status codes of the real one, the
//! agent's token checked, a log service below it, and the real Kryo 4.0.3 as the reader of every answer.
//!
//! ```ignore
//! let mut manager = HarnessManager::start(dir.path()).await;
//! let agent = manager.agent(dir.path(), &[]);                                  // the product's own process, switched on
//! let mut package = manager.package("t1", "SHELL_SCRIPT_TASK_NG", json!({…})); // change what a test needs: timeout, secrets, capabilities
//! manager.offer(package);
//! let answer = manager.answer("t1").await;                                     // the whole DelegateTaskResponse, read by Kryo
//! assert_eq!(answer["response"]["status"], "SUCCESS");
//! assert_eq!(manager.lines("t1", "Execute"), ["hello"]);
//! manager.answered_once("t1");
//! ```
//! Secrets: [`sealed`] makes a record of Harness' built-in secret manager (by openssl, not by our code); [`detail`] is one beside a credential;
//! `manager.secret(&mut package, "id", "value")` gives the placeholder for a text. The later package of a sequence is built from what
//! `answer` gave: it is plain JSON, `@` names the class.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path as Segments, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use e2e::peers::kryo::{Field, Kryo, fields};
use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use e2e::world::{AgentProcess, certificates};
use proto::token::{DelegateToken, bearer_of};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long an answer may take on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

const TOKEN: &str = "00112233445566778899aabbccddeeff";
const ACCOUNT: &str = "acct1";
const DELEGATE: &str = "q3nD1mZrQ4yJb0Jm2mS1xA";
const LOG_TOKEN: &str = "log-token-of-this-account";
const CALLBACK: &str = "callback-token-7";

#[derive(Default)]
struct Task {
    package: Value,
    instance: Option<String>,
    /// Capabilities are known to hold, or there are none.
    proven: bool,
    reports: Vec<Value>,
    answers: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Stream {
    lines: Vec<String>,
    open: bool,
    snapshot: bool,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<String, Task>,
    aborts: Vec<String>,
    registered: Vec<Value>,
    streams: BTreeMap<String, Stream>,
    progress: Vec<(String, Vec<u8>)>,
    /// What the real manager would not have understood.
    strange: Vec<String>,
    /// So many answers are stored and their acknowledgement is lost.
    lose_acknowledgements: usize,
}

struct App {
    inner: Mutex<Inner>,
}

/// The manager. Its server ends with the test program.
pub(crate) struct HarnessManager {
    app: Arc<App>,
    url: String,
    ca: PathBuf,
    kryo: Kryo,
}

impl HarnessManager {
    /// Starts one, with its certificates under `dir`.
    pub(crate) async fn start(dir: &Path) -> HarnessManager {
        let _set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = dir.join("harness-tls");
        std::fs::create_dir_all(&folder).unwrap();
        let (ca, certificate, key) = certificates(&folder);
        let app = Arc::new(App { inner: Mutex::default() });
        let router = Router::new()
            .route("/api/agent/delegates/register", post(register))
            .route("/api/agent/delegates/heartbeat-with-polling", post(heartbeat))
            .route("/api/agent/delegates/unregister", post(unregister))
            .route("/api/agent/delegates/{delegate}/task-events", get(events))
            .route("/api/agent/v2/delegates/{delegate}/tasks/{task}/acquire", put(acquire))
            .route("/api/agent/delegates/{delegate}/tasks/{task}/report/v2", post(report))
            .route("/api/agent/tasks/{task}/delegates/{delegate}/v2", post(respond))
            .route("/api/agent/delegates/task-progress/progress-update/v2", put(progress))
            .route("/log-service/stream", post(open).put(append).delete(close))
            .fallback(strange)
            .with_state(app.clone());
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem_file(certificate, key).await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(async move { server.serve(router.into_make_service()).await.unwrap() });
        HarnessManager { app, url: format!("https://127.0.0.1:{port}"), ca, kryo: Kryo::start() }
    }

    /// Starts an agent under `dir` with Harness' tasks switched on; `extra` adds or replaces environment variables.
    pub(crate) fn agent(&self, dir: &Path, extra: &[(&str, &str)]) -> AgentProcess {
        let ca = self.ca.display().to_string();
        let mut all = vec![
            ("DELEGATE_FOREIGN_TASK_TYPES", "harness-cd"),
            ("DELEGATE_CA_FILE", ca.as_str()),
            ("HOSTNAME", "box-7"),
        ];
        all.extend_from_slice(extra);
        AgentProcess::at(&self.url, (ACCOUNT, TOKEN), dir, "zone-h", &all)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.app.inner.lock().unwrap()
    }

    /// A package of the shape of December 2023 around `data`.
    pub(crate) fn package(&self, id: &str, task_type: &str, data: Value) -> Value {
        json!({
            "id": id, "type": task_type, "data": data, "async": true, "timeout": 600_000,
            "logging": {"token": LOG_TOKEN, "abstractions": {"accountId": ACCOUNT, "level0": id}},
            "baseLogKey": base_key(id),
            "delegate": {"id": null, "instance_id": null, "token": CALLBACK},
            "encryption_configs": {ACCOUNT: local_config()}, "secret_details": {}, "secrets": [], "capabilities": [],
        })
    }

    /// Adds a secret to a package; returns the placeholder that stands for it in texts.
    pub(crate) fn secret(&self, package: &mut Value, id: &str, value: &str) -> String {
        package["secret_details"][id] = json!({"configUuid": ACCOUNT, "encryptedRecord": sealed(id, value)});
        format!("${{secretDelegate.obtain(\"{id}\", 4711)}}")
    }

    /// Queues a package.
    pub(crate) fn offer(&self, package: Value) {
        let id = package["id"].as_str().unwrap().to_owned();
        let proven = package["capabilities"].as_array().is_none_or(Vec::is_empty);
        self.lock().tasks.insert(id, Task { package, proven, ..Task::default() });
    }

    /// Aborts a task: it is told once, at the next poll.
    pub(crate) fn abort(&self, id: &str) {
        self.lock().aborts.push(id.to_owned());
    }

    /// The acknowledgements of this many answers are lost on their way.
    pub(crate) fn lose_acknowledgements(&self, count: usize) {
        self.lock().lose_acknowledgements = count;
    }

    /// What the agents said of themselves when they registered.
    pub(crate) fn registered(&self) -> Vec<Value> {
        self.lock().registered.clone()
    }

    /// Whether a task was given to an agent.
    pub(crate) fn is_assigned(&self, id: &str) -> bool {
        self.lock().tasks[id].instance.is_some()
    }

    /// Reports about capabilities of a task so far.
    pub(crate) fn reports(&self, id: &str) -> Vec<Value> {
        self.lock().tasks[id].reports.clone()
    }

    /// Waits until the agent has told of the capabilities of a task.
    pub(crate) async fn reported(&self, id: &str) -> Value {
        until("a report about capabilities", LIMIT, || async { self.reports(id).into_iter().next() }).await
    }

    /// Waits for the answer of a task and reads it with the real Kryo: the `DelegateTaskResponse`. What holds of every answer is
    /// checked here.
    pub(crate) async fn answer(&mut self, id: &str) -> Value {
        let bytes = until(&format!("the answer of {id}"), LIMIT, || async {
            self.lock().tasks[id].answers.first().cloned()
        })
        .await;
        let told = self.kryo.read(&bytes).unwrap_or_else(|| panic!("Kryo does not read the answer of {id}"));
        let task_type = self.lock().tasks[id].package["type"].clone();
        assert_eq!(told["@"], "DelegateTaskResponse", "{told:#}");
        assert_eq!(told["accountId"], ACCOUNT, "{told:#}");
        assert_eq!(told["taskTypeName"], task_type, "{told:#}");
        assert_eq!(told["serializationFormat"], "KRYO", "{told:#}");
        let meta = json!({"@": "DelegateMetaInfo", "hostName": "box-7", "id": DELEGATE});
        assert_eq!(told["response"]["delegateMetaInfo"], meta, "{told:#}");
        let code = if told["response"]["@"] == "ErrorNotifyResponseData" { "FAILED" } else { "OK" };
        assert_eq!(told["responseCode"], code, "{told:#}");
        told
    }

    /// Offers a package and waits for its answer's `response`.
    pub(crate) async fn run(&mut self, package: Value) -> Value {
        let id = package["id"].as_str().unwrap().to_owned();
        self.offer(package);
        self.answer(&id).await["response"].clone()
    }

    /// Nothing came that the real manager does not know, and the task was answered once: further ones, after a lost
    /// acknowledgement, are the same.
    pub(crate) fn answered_once(&self, id: &str) {
        let inner = self.lock();
        let answers = &inner.tasks[id].answers;
        assert!(
            !answers.is_empty() && answers.iter().all(|one| one == &answers[0]),
            "{} answers",
            answers.len()
        );
        assert_eq!(inner.strange, Vec::<String>::new());
    }

    /// How many times a task was answered.
    pub(crate) fn answers(&self, id: &str) -> usize {
        self.lock().tasks[id].answers.len()
    }

    /// The log of a unit, without time and level; waits until the stream is closed.
    pub(crate) async fn lines(&self, id: &str, unit: &str) -> Vec<String> {
        let key = format!("{}-commandUnit:{unit}", base_key(id));
        until(&format!("the log {key} is closed"), LIMIT, || async {
            let inner = self.lock();
            let stream = inner.streams.get(&key)?;
            (stream.snapshot && !stream.open).then(|| stream.lines.clone())
        })
        .await
    }

    /// Whether a log of this unit was ever opened, and what stands in it now.
    pub(crate) fn lines_now(&self, id: &str, unit: &str) -> Option<Vec<String>> {
        let key = format!("{}-commandUnit:{unit}", base_key(id));
        self.lock().streams.get(&key).map(|stream| stream.lines.clone())
    }

    /// Every line of every log.
    pub(crate) fn all_lines(&self) -> String {
        self.lock()
            .streams
            .values()
            .flat_map(|stream| stream.lines.iter())
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Progress of a task as it was told while it ran: `unitProgresses` of each update, read by the real Kryo.
    pub(crate) fn progress(&mut self, id: &str) -> Vec<Value> {
        let all = self
            .lock()
            .progress
            .iter()
            .filter(|(task, _)| task == id)
            .map(|(_, data)| data.clone())
            .collect::<Vec<_>>();
        let mut told = Vec::new();
        for data in all {
            let mut clear = Vec::new();
            flate2::read::ZlibDecoder::new(data.as_slice()).read_to_end(&mut clear).expect("zlib");
            let root = self.kryo.read(&clear).expect("Kryo reads it");
            assert_eq!(root["@"], "UnitProgressData");
            told.push(root["unitProgresses"].clone());
        }
        told
    }
}

/// The base of the log keys of a task.
fn base_key(id: &str) -> String {
    format!(
        "accountId:{ACCOUNT}/orgId:default/projectId:shop/pipelineId:deploy/runSequence:7/level0:pipeline/level1:{id}"
    )
}

fn local_config() -> Value {
    json!({"uuid": ACCOUNT, "name": "Harness Secrets Manager", "accountId": ACCOUNT, "encryptionType": "LOCAL", "default": false,
        "numOfEncryptedValue": 0, "scopedToAccount": false, "templatizedFields": null})
}

/// A record of Harness' built-in secret manager that opens to `value`, encrypted by openssl from the rule of the facts.
pub(crate) fn sealed(name: &str, value: &str) -> Value {
    let script = "key=$(printf %s \"$1\" | openssl dgst -sha256 -binary | openssl base64 -A | head -c 32 | od -An -tx1 | tr -d ' \\n')
exec openssl enc -aes-256-cbc -K \"$key\" -iv 456e6372797074696f6e4956302a6426";
    let record_key = "w3Zk0Y1oRUu0cJm2mS1xAg";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh", record_key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text: String = (0..32).chain(output.stdout).map(char::from).collect();
    json!({"uuid": name, "name": name, "path": null, "parameters": null, "encryptionKey": record_key, "encryptedValue": text,
        "kmsId": null, "encryptionType": "LOCAL", "backupEncryptedValue": null, "base64Encoded": false, "additionalMetadata": null})
}

/// A record beside a credential: which of its fields it belongs to.
pub(crate) fn detail(field: &str, value: &str) -> Value {
    json!({"fieldName": field, "encryptedData": sealed(field, value), "encryptionConfig": local_config()})
}

/// The login of a server as Harness writes it; the private key stands beside it ([`detail`] of `key`).
pub(crate) fn ssh_login(sshd: &Sshd) -> Value {
    json!({"port": sshd.port, "auth": {"type": "SSH", "useSshClient": false, "useSshj": false, "spec": {
        "credentialType": "KeyReference", "spec": {"userName": sshd.user, "key": "account.ssh_key", "encryptedPassphrase": null}}}})
}

/// Names and statuses of units, for one comparison.
pub(crate) fn units(progress: &Value) -> Vec<(String, String)> {
    let text = |unit: &Value, key: &str| unit[key].as_str().unwrap_or_default().to_owned();
    progress.as_array().unwrap().iter().map(|unit| (text(unit, "unitName"), text(unit, "status"))).collect()
}

type Params = Query<HashMap<String, String>>;

fn wrapped(resource: Value) -> Response {
    axum::Json(json!({"metaData": {}, "resource": resource, "responseMessages": []})).into_response()
}

fn error(status: StatusCode, code: &str) -> Response {
    let body = json!({"metaData": {}, "resource": null, "responseMessages": [{"code": code, "level": "ERROR", "message": "m"}]});
    (status, axum::Json(body)).into_response()
}

#[expect(clippy::disallowed_methods, reason = "Bearers are good until a time of day.")]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// What the real manager checks of a delegate (protocol.md §1.4), and that nothing of ours is asked of it.
fn admit(
    app: &App,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    content: &str,
) -> Result<(), Box<Response>> {
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let token = DelegateToken::normalise(TOKEN).unwrap();
    let claims = bearer_of(&text("authorization")).and_then(|bearer| token.open(bearer).ok());
    let Some(claims) = claims else {
        return Err(Box::new(error(StatusCode::UNAUTHORIZED, "INVALID_TOKEN")));
    };
    if claims.expired_at(now()) {
        return Err(Box::new(error(StatusCode::UNAUTHORIZED, "EXPIRED_TOKEN")));
    }
    let types: Vec<_> = headers.get_all("content-type").iter().collect();
    let mut strange = Vec::new();
    if claims.sub != ACCOUNT || query.get("accountId").map(String::as_str) != Some(ACCOUNT) {
        strange.push(format!("another account: {query:?}"));
    }
    if types.len() != 1 || types[0] != content {
        strange.push(format!("content types {types:?} instead of {content}"));
    }
    if let Some(ours) = ["wait_ms", "fence", "resume", "seq"].into_iter().find(|key| query.contains_key(*key))
    {
        strange.push(format!("our own parameter {ours}"));
    }
    if strange.is_empty() {
        return Ok(());
    }
    app.inner.lock().unwrap().strange.extend(strange);
    Err(Box::new(error(StatusCode::BAD_REQUEST, "INVALID_REQUEST")))
}

const JSON: &str = "application/json";

async fn strange(State(app): State<Arc<App>>, method: Method, uri: Uri) -> Response {
    app.inner.lock().unwrap().strange.push(format!("{method} {uri}"));
    error(StatusCode::NOT_FOUND, "RESOURCE_NOT_FOUND")
}

async fn register(
    State(app): State<Arc<App>>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, JSON) {
        return *refusal;
    }
    app.inner.lock().unwrap().registered.push(serde_json::from_slice(&body).unwrap());
    wrapped(
        json!({"delegateId": DELEGATE, "action": null, "migrateUrl": null, "sequenceNum": null, "delegateRandomToken": null}),
    )
}

async fn heartbeat(State(app): State<Arc<App>>, Query(query): Params, headers: HeaderMap) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, JSON) {
        return *refusal;
    }
    wrapped(json!({"delegateId": DELEGATE, "status": "ENABLED", "useCdn": false, "jreVersion": "11"}))
}

async fn unregister(State(app): State<Arc<App>>, Query(query): Params, headers: HeaderMap) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, JSON) {
        return *refusal;
    }
    wrapped(Value::Null)
}

/// Queued tasks on every poll until they are acquired; each abort once, and only of what is assigned.
async fn events(State(app): State<Arc<App>>, Query(query): Params, headers: HeaderMap) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, JSON) {
        return *refusal;
    }
    let mut inner = app.inner.lock().unwrap();
    let mut events: Vec<String> = Vec::new();
    for (id, task) in inner.tasks.iter().filter(|(_, task)| task.instance.is_none()) {
        let kind = &task.package["type"];
        events.push(format!(
            r#"{{"eventType":"DelegateTaskEvent","accountId":"{ACCOUNT}","delegateTaskId":"{id}","sync":false,"taskType":{kind}}}"#
        ));
    }
    let Inner { aborts, tasks, .. } = &mut *inner;
    aborts.retain(|id| {
        let assigned = tasks.get(id).is_some_and(|task| task.instance.is_some());
        if assigned {
            events.push(format!(
                r#"{{"eventType":"DelegateTaskAbortEvent","accountId":"{ACCOUNT}","delegateTaskId":"{id}","sync":false,"taskType":null}}"#
            ));
        }
        !assigned
    });
    let body = format!(r#"{{"delegateTaskEvents":[{}]}}"#, events.join(","));
    ([("content-type", JSON)], body).into_response()
}

async fn acquire(
    State(app): State<Arc<App>>,
    Segments((delegate, id)): Segments<(String, String)>,
    Query(query): Params,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, JSON) {
        return *refusal;
    }
    let instance = query["delegateInstanceId"].clone();
    let mut inner = app.inner.lock().unwrap();
    let Some(task) = inner.tasks.get_mut(&id).filter(|task| {
        delegate == DELEGATE
            && task.answers.is_empty()
            && task.instance.as_ref().is_none_or(|held| *held == instance)
    }) else {
        // What the real one answers when there is nothing to give.
        return error(StatusCode::INTERNAL_SERVER_ERROR, "DEFAULT_ERROR_CODE");
    };
    let mut package = task.package.clone();
    if task.proven {
        package["delegate"]["id"] = json!(DELEGATE);
        package["delegate"]["instance_id"] = json!(instance);
        task.instance = Some(instance);
    } else if !task.reports.is_empty() {
        // Criteria that were negative a moment ago.
        return error(StatusCode::INTERNAL_SERVER_ERROR, "DEFAULT_ERROR_CODE");
    }
    ([("content-type", JSON)], package.to_string()).into_response()
}

async fn report(
    State(app): State<Arc<App>>,
    Segments((_, id)): Segments<(String, String)>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, JSON) {
        return *refusal;
    }
    let verdicts: Value = serde_json::from_slice(&body).unwrap();
    let instance = query["delegateInstanceId"].clone();
    let mut inner = app.inner.lock().unwrap();
    let task = inner.tasks.get_mut(&id).unwrap();
    let asked = task.package["capabilities"].as_array().unwrap().len();
    let all = verdicts.as_array().unwrap();
    task.reports.push(verdicts.clone());
    if all.len() == asked && all.iter().all(|one| one["validated"] == true) {
        task.proven = true;
        task.instance = Some(instance);
    }
    // The package comes back in Kryo, which no agent of ours reads.
    ([("content-type", "application/x-kryo-v2")], vec![0xf0_u8, 0x37, 0x00]).into_response()
}

async fn respond(
    State(app): State<Arc<App>>,
    Segments((id, delegate)): Segments<(String, String)>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, "application/x-kryo-v2") {
        return *refusal;
    }
    let mut inner = app.inner.lock().unwrap();
    let Some(task) = inner.tasks.get_mut(&id).filter(|_| delegate == DELEGATE) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    task.answers.push(body.to_vec());
    if inner.lose_acknowledgements > 0 {
        inner.lose_acknowledgements -= 1;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn progress(
    State(app): State<Arc<App>>,
    Query(query): Params,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = admit(&app, &query, &headers, "application/x-protobuf") {
        return *refusal;
    }
    let inner_of = |number: u64| match fields(&body).into_iter().find(|(one, _)| *one == number) {
        Some((_, Field::Bytes(message))) => match fields(message).into_iter().next() {
            Some((1, Field::Bytes(content))) => content.to_vec(),
            other => panic!("field {number} holds {other:?}"),
        },
        other => panic!("field {number} is {other:?}"),
    };
    let text = |number| String::from_utf8(inner_of(number)).unwrap();
    assert_eq!((text(1).as_str(), text(3).as_str()), (ACCOUNT, CALLBACK));
    app.inner.lock().unwrap().progress.push((text(2), inner_of(4)));
    ([("content-type", "application/x-protobuf")], Vec::<u8>::new()).into_response()
}

/// The stream that a call of the log service names, if its token is good; status codes as observed (facts/log-service-peer.md).
struct LogKey(String);

impl<S: Sync> FromRequestParts<S> for LogKey {
    type Rejection = (StatusCode, axum::Json<Value>);

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<LogKey, Self::Rejection> {
        let refuse = |status, text: &str| Err((status, axum::Json(json!({"error_msg": text}))));
        match parts.headers.get("x-harness-token") {
            None => return refuse(StatusCode::BAD_REQUEST, "no token"),
            Some(token) if token != LOG_TOKEN => return refuse(StatusCode::FORBIDDEN, "wrong token"),
            Some(_) => {}
        }
        let Query(query) = Params::try_from_uri(&parts.uri).unwrap();
        match (query.get("accountID"), query.get("key")) {
            (Some(account), Some(key)) if account == ACCOUNT => Ok(LogKey(key.clone())),
            _ => refuse(StatusCode::BAD_REQUEST, "accountID or key is missing"),
        }
    }
}

fn not_found(status: StatusCode) -> Response {
    (status, axum::Json(json!({"error_msg": "stream: not found"}))).into_response()
}

async fn open(State(app): State<Arc<App>>, LogKey(key): LogKey) -> Response {
    // Opening twice erases.
    app.inner.lock().unwrap().streams.insert(key, Stream { open: true, ..Stream::default() });
    StatusCode::NO_CONTENT.into_response()
}

async fn append(State(app): State<Arc<App>>, LogKey(key): LogKey, body: Bytes) -> Response {
    let lines: Vec<Value> = serde_json::from_slice(&body).unwrap();
    let mut inner = app.inner.lock().unwrap();
    let Some(stream) = inner.streams.get_mut(&key).filter(|stream| stream.open) else {
        return not_found(StatusCode::BAD_REQUEST);
    };
    for line in lines {
        assert!(line["time"].is_string() && line["pos"].is_u64() && line["level"].is_string(), "{line}");
        stream.lines.push(line["out"].as_str().unwrap().trim_end_matches('\n').to_owned());
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn close(State(app): State<Arc<App>>, LogKey(key): LogKey, Query(query): Params) -> Response {
    match app.inner.lock().unwrap().streams.get_mut(&key).filter(|stream| stream.open) {
        None => not_found(StatusCode::INTERNAL_SERVER_ERROR),
        Some(stream) => {
            stream.open = false;
            stream.snapshot = query.get("snapshot").is_some_and(|value| value == "true");
            StatusCode::NO_CONTENT.into_response()
        }
    }
}
