//! A manager in this process, on loopback, and clients that send what foreign and our own clients send.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first fault.")]
#![expect(dead_code, reason = "Each test binary uses a part of it.")]

use manager::app::{App, ManagerConfig};
use manager::clock::{Clock, SystemClock};
use manager::store::NewTask;
use proto::token::{Audience, Claims, DelegateToken};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The machine's clock with a shift that tests turn.
#[derive(Default)]
pub(crate) struct ShiftedClock {
    shift_ms: AtomicI64,
    /// Where the wall clock stands still; 0: it goes on.
    fixed_ms: AtomicU64,
}

impl ShiftedClock {
    pub(crate) fn shift(&self, by: Duration) {
        self.shift_ms.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// From here on it is this instant, epoch milliseconds, until another one is set.
    pub(crate) fn fix(&self, at: u64) {
        self.fixed_ms.store(at, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn wall(&self) -> u64 {
        let fixed = self.fixed_ms.load(Ordering::SeqCst);
        if fixed > 0 {
            return fixed;
        }
        SystemClock.wall().saturating_add_signed(self.shift_ms.load(Ordering::SeqCst))
    }
    fn mono(&self) -> tokio::time::Instant {
        SystemClock.mono()
    }
    fn sleep_until(&self, at: tokio::time::Instant) -> futures::future::BoxFuture<'static, ()> {
        SystemClock.sleep_until(at)
    }
}

pub(crate) struct TestManager {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) app: App,
    pub(crate) url: String,
    pub(crate) token: DelegateToken,
    pub(crate) api_key: String,
    pub(crate) clock: Arc<ShiftedClock>,
    pub(crate) http: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), manager::server::ManagerError>>,
}

pub(crate) fn config(dir: &Path) -> ManagerConfig {
    ManagerConfig { listen: "127.0.0.1:0".to_owned(), ..ManagerConfig::new(dir) }
}

impl TestManager {
    pub(crate) async fn start() -> TestManager {
        TestManager::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ManagerConfig)) -> TestManager {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config(dir.path());
        change(&mut config);
        TestManager::start_in(dir, config).await
    }

    pub(crate) async fn start_in(dir: Arc<TempDir>, config: ManagerConfig) -> TestManager {
        let clock = Arc::new(ShiftedClock::default());
        let stop = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let running =
            tokio::spawn(manager::server::run_with(config, clock.clone(), stop.clone(), move |url, app| {
                ready.send((url.to_owned(), Arc::clone(app))).ok();
            }));
        let (url, app) = match is_ready.await {
            Ok(ready) => ready,
            Err(_) => panic!("the manager did not start: {:?}", running.await),
        };
        let file = bootstrap(dir.path());
        TestManager {
            token: DelegateToken::normalise(file["delegateToken"].as_str().unwrap()).unwrap(),
            api_key: file["apiKey"].as_str().unwrap().to_owned(),
            dir,
            app,
            url,
            clock,
            http: reqwest::Client::builder().pool_max_idle_per_host(64).build().unwrap(),
            stop,
            running,
        }
    }

    /// Stops and gives the folder back for another start.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.stop.cancel();
        drop(self.app);
        drop(self.http);
        self.running.await.unwrap().unwrap();
        self.dir
    }

    pub(crate) fn now_secs(&self) -> i64 {
        i64::try_from(self.clock.wall() / 1000).unwrap()
    }

    /// A bearer in dlite's shape: `aud` a list, `iss` a word. It lives longer than dlite's twenty minutes, because a test
    /// may move the clock by days between the minting of one and the manager's look at it; a real agent would mint
    /// another and ask again.
    pub(crate) fn bearer(&self) -> String {
        self.bearer_of(&self.token, "default", 30 * 24 * 3600)
    }

    pub(crate) fn bearer_of(&self, token: &DelegateToken, account: &str, life: i64) -> String {
        let now = self.now_secs();
        let claims = Claims {
            sub: account.to_owned(),
            iss: "issuer".to_owned(),
            aud: Audience::Many(vec!["audience".to_owned()]),
            exp: now + life,
            iat: now,
            nbf: None,
            jti: uuid::Uuid::new_v4().to_string(),
        };
        token.mint(&claims, rand::random()).unwrap()
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .header("Authorization", format!("Delegate {}", self.bearer()))
            .header("Content-Type", "application/json")
    }

    /// Registers exactly as dlite does and returns the delegate id.
    pub(crate) async fn register_dlite(&self, host: &str, types: &[&str], tags: &[&str]) -> String {
        let body = self.dlite_body(host, types, tags);
        let reply = self
            .call(Method::POST, "/api/agent/delegates/register?accountId=default")
            .body(body)
            .send()
            .await;
        let reply = reply.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let reply: Value = reply.json().await.unwrap();
        assert_eq!(reply["responseMessages"], json!([]));
        reply["resource"]["delegateId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn dlite_body(&self, host: &str, types: &[&str], tags: &[&str]) -> String {
        let body = json!({
            "accountId": "default", "delegateName": host, "delegateRandomToken": self.token.expose_hex(),
            "lastHeartBeat": self.clock.wall(), "delegateType": "DOCKER", "ng": true, "pollingModeEnabled": true,
            "hostName": format!("dlite-{host}"), "sequenceNum": 7, "ip": "fake-203.0.113.9",
            "supportedTaskTypes": types, "tags": tags, "heartbeatAsObject": true,
        });
        format!("{body}\n")
    }

    /// Registers as our own agent.
    pub(crate) async fn register_own(
        &self,
        instance: &str,
        name: &str,
        types: &[&str],
        tags: &[&str],
        key: &str,
    ) -> String {
        let reply = self
            .call(Method::POST, "/api/agent/delegates/register?accountId=default")
            .body(own_body(instance, name, types, tags, key, None).to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let reply: Value = reply.json().await.unwrap();
        assert_eq!(reply["resource"]["delegateExt"]["version"], 1);
        reply["resource"]["delegateId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn heartbeat_own(&self, body: Value) -> Value {
        let call = self.call(Method::POST, "/api/agent/delegates/heartbeat-with-polling?accountId=default");
        call.body(body.to_string()).send().await.unwrap().json().await.unwrap()
    }

    /// The raw text of a poll.
    pub(crate) async fn poll_text(&self, id: &str, query: &str) -> String {
        let path = format!("/api/agent/delegates/{id}/task-events?accountId=default{query}");
        let reply = self.call(Method::GET, &path).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        reply.text().await.unwrap()
    }

    /// Ids of the tasks that a poll lists.
    pub(crate) async fn poll(&self, id: &str, query: &str) -> Vec<String> {
        let reply: Value = serde_json::from_str(&self.poll_text(id, query).await).unwrap();
        let events = reply["delegateTaskEvents"].as_array().unwrap();
        events.iter().map(|event| event["delegateTaskId"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn acquire(&self, id: &str, task: &str) -> Result<Value, StatusCode> {
        self.acquire_as(id, task, id).await
    }

    pub(crate) async fn acquire_as(&self, id: &str, task: &str, instance: &str) -> Result<Value, StatusCode> {
        let path = format!(
            "/api/agent/v2/delegates/{id}/tasks/{task}/acquire?accountId=default&delegateInstanceId={instance}"
        );
        let reply = self.call(Method::PUT, &path).header("Content-Length", "0").send().await.unwrap();
        let status = reply.status();
        let body: Value = reply.json().await.expect("every answer to an acquire is JSON");
        if status.is_success() { Ok(body) } else { Err(status) }
    }

    pub(crate) async fn respond(&self, id: &str, task: &str, body: String) -> StatusCode {
        let path = format!("/api/agent/v2/tasks/{task}/delegates/{id}?accountId=default");
        self.call(Method::POST, &path).body(body).send().await.unwrap().status()
    }
}

pub(crate) fn own_body(
    instance: &str,
    name: &str,
    types: &[&str],
    tags: &[&str],
    key: &str,
    held: Option<Value>,
) -> Value {
    let mut body = json!({
        "accountId": "default", "delegateName": name, "hostName": format!("{name}-host"), "ip": "127.0.0.1",
        "delegateType": "DOCKER", "version": "26.11.1", "ng": true, "pollingModeEnabled": true,
        "heartbeatAsObject": true, "immutable": false, "supportedTaskTypes": [], "tags": tags,
        "delegateExt": { "version": 1, "instanceId": instance, "taskTypes": types, "publicKey": key, "capacity": 256 },
    });
    if let Some(held) = held {
        body["delegateExt"]["held"] = held;
    }
    body
}

pub(crate) fn bootstrap(dir: &Path) -> Value {
    let path: PathBuf = dir.join("bootstrap.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn task(id: &str, task_type: &str, selectors: &[&str]) -> NewTask {
    let selectors =
        if selectors.is_empty() { json!([]) } else { json!([{ "origin": "step", "selectors": selectors }]) };
    NewTask {
        id: id.to_owned(),
        execution_id: String::new(),
        node: "pipeline.stages.a".to_owned(),
        attempt: 1,
        task_type: task_type.to_owned(),
        selectors,
        secrets: vec![],
        timeout_ms: 600_000,
        affinity: String::new(),
        data: r#"{"z":1,"a":[ "kept as it is" ]}"#.to_owned(),
        abstractions: proto::logs::abstractions("default", "o", "p", "pl", 7, &["pipeline", "stages"], 0),
        created_at: SystemClock.wall(),
    }
}

/// Waits for a condition, at most ten seconds.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    executor_api::testing::until(what, Duration::from_secs(10), look).await
}
