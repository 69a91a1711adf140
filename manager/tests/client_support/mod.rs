//! Calls as the command line makes them, and a scripted agent that speaks the real protocol.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first fault.")]
#![expect(dead_code, reason = "Each test binary uses a part of it.")]

use crate::support::{TestManager, own_body};
use proto::events::{TaskEvent, TaskEvents};
use proto::failure::{Failure, FailureKind};
use proto::package::TaskPackage;
use proto::response::TaskResponse;
use proto::result::{Output, StepResult, StepStatus};
use proto::seal::{SealKeyPair, open};
use proto::task::{STEP_KINDS, StepSpec, StepTask};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ENTITIES: &str = r#"
connector:
  identifier: registry
  name: registry
  type: DockerRegistry
  spec:
    dockerRegistryUrl: http://registry.example.com
    auth: {type: UsernamePassword, spec: {username: robot, passwordRef: registry_pw}}
---
secret:
  identifier: key
  name: key
  type: SSHKey
  spec:
    port: 2022
    auth: {type: SSH, spec: {credentialType: KeyReference, spec: {userName: deploy, key: pem}}}
---
service:
  identifier: web
  name: Web
  serviceDefinition:
    type: Ssh
    spec:
      variables:
        - {name: LEVEL, type: String, value: info}
---
environment:
  identifier: prod
  name: Prod
  type: Production
---
infrastructureDefinition:
  identifier: farm
  name: farm
  environmentRef: prod
  deploymentType: Ssh
  type: Pdc
  spec:
    credentialsRef: key
    hosts: [h1, h2]
"#;

pub(crate) const PEM: &str =
    "-----BEGIN OPENSSH PRIVATE KEY-----\nnot a real one\n-----END OPENSSH PRIVATE KEY-----\n";

fn push(text: &mut String, indent: usize, lines: &str) {
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        text.push_str(&format!("{}{line}\n", " ".repeat(indent)));
    }
}

/// A Custom stage with steps and further keys of the pipeline.
pub(crate) fn custom(id: &str, head: &str, steps: &str) -> String {
    let mut text = format!("pipeline:\n  identifier: {id}\n  name: {id}\n");
    push(&mut text, 2, head);
    text.push_str("  stages:\n    - stage:\n        identifier: s\n        name: s\n        type: Custom\n");
    text.push_str("        spec:\n          execution:\n            steps:\n");
    push(&mut text, 14, steps);
    text
}

/// A deployment of `web` on `farm`.
pub(crate) fn deployment(id: &str, steps: &str, rollback: &str) -> String {
    let mut text = format!(
        "pipeline:\n  identifier: {id}\n  name: {id}\n  stages:\n    - stage:\n        identifier: s\n        name: s
        type: Deployment\n        spec:\n          deploymentType: Ssh\n          service: {{serviceRef: web}}
          environment:\n            environmentRef: prod\n            infrastructureDefinitions: [{{identifier: farm}}]
          execution:\n            steps:\n"
    );
    push(&mut text, 14, steps);
    text.push_str("            rollbackSteps:\n");
    push(&mut text, 14, rollback);
    text
}

pub(crate) fn noop(id: &str, more: &str) -> String {
    let mut text = format!(
        "- step:\n    identifier: {id}\n    name: {id}\n    type: Noop\n    spec: {{line: hello {id}}}\n"
    );
    push(&mut text, 4, more);
    text
}

pub(crate) fn script(id: &str, script: &str) -> String {
    format!(
        "- step:\n    identifier: {id}\n    name: {id}\n    type: Command\n    spec:\n      onDelegate: false
      commandUnits:\n        - {{identifier: u, name: Run, type: Script, spec: {{shell: Bash, source: {{type: Inline, spec: {{script: '{script}'}}}}}}}}\n"
    )
}

/// The client's side.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Client {
    pub(crate) fn of(manager: &TestManager) -> Client {
        Client { http: manager.http.clone(), url: manager.url.clone(), key: manager.api_key.clone() }
    }

    pub(crate) fn with_key(&self, key: &str) -> Client {
        Client { key: key.to_owned(), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.url)).header("x-api-key", &self.key)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.request(method, path);
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let reply = request.send().await.unwrap();
        let status = reply.status();
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub(crate) async fn apply(&self, yaml: &str) -> Value {
        let (status, body) = self.try_apply("test.yaml", yaml).await;
        assert_eq!(status, StatusCode::OK, "{body}\n{yaml}");
        body
    }

    pub(crate) async fn try_apply(&self, source: &str, yaml: &str) -> (StatusCode, Value) {
        self.call(Method::POST, "/apply", json!({ "documents": [{ "source": source, "yaml": yaml }] })).await
    }

    pub(crate) async fn set_secret(&self, id: &str, value: &str) -> Value {
        let reply =
            self.request(Method::PUT, &format!("/secrets/{id}")).body(value.to_owned()).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        reply.json().await.unwrap()
    }

    pub(crate) async fn start(&self, pipeline: &str, more: Value) -> (StatusCode, Value) {
        let mut body = json!({ "pipeline": pipeline });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.call(Method::POST, "/executions", body).await
    }

    /// Starts a run and gives its id.
    pub(crate) async fn run(&self, pipeline: &str) -> String {
        let (status, body) = self.start(pipeline, Value::Null).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["executionId"].as_str().unwrap().to_owned()
    }

    /// Follows the view by its versions until it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut view = self.get(&format!("/executions/{id}")).await;
        while view["endedAt"].is_null() {
            assert!(tokio::time::Instant::now() < limit, "did not end: {view:#}");
            let version = view["version"].as_u64().unwrap();
            view = self.get(&format!("/executions/{id}?since={version}&wait_ms=1000")).await;
        }
        view
    }
}

/// A step of a view by its identifier.
pub(crate) fn find_step<'a>(view: &'a Value, step: &str) -> Option<&'a Value> {
    let mut open: Vec<&Value> = view["stages"]
        .as_array()?
        .iter()
        .flat_map(|stage| {
            ["steps", "rollbackSteps"].into_iter().flat_map(|list| stage[list].as_array().unwrap())
        })
        .collect();
    while let Some(one) = open.pop() {
        if one["identifier"] == step {
            return Some(one);
        }
        open.extend(one["steps"].as_array().into_iter().flatten());
    }
    None
}

pub(crate) fn success() -> StepResult {
    StepResult::bare(StepStatus::Success, None)
}

pub(crate) fn output(name: &str, value: Value) -> StepResult {
    StepResult { outputs: BTreeMap::from([(name.to_owned(), Output::from(value))]), ..success() }
}

pub(crate) fn failed(message: &str) -> StepResult {
    let failure = Failure::new(FailureKind::RemoteFailed, "SSH-001", message);
    StepResult::failed(failure)
}

/// What the script says about a task.
pub(crate) enum Say {
    Answer(Box<StepResult>),
    /// Keep it until it is aborted; then answer so.
    Hold,
    /// Take it and never answer.
    Nothing,
}

impl From<StepResult> for Say {
    fn from(result: StepResult) -> Self {
        Say::Answer(Box::new(result))
    }
}

/// A task that an agent took.
pub(crate) struct Taken {
    pub(crate) task: StepTask,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) raw: String,
}

impl Taken {
    /// Step identifier, with the host where it has one.
    pub(crate) fn name(&self) -> String {
        match &self.task.step.spec {
            StepSpec::Command(command) => match &command.target {
                Some(target) => format!("{}@{}", self.task.step.identifier, target.host),
                None => self.task.step.identifier.clone(),
            },
            _ => self.task.step.identifier.clone(),
        }
    }
}

type Script = Arc<dyn Fn(&Taken) -> Say + Send + Sync>;

pub(crate) struct Agent {
    pub(crate) taken: Arc<Mutex<Vec<Taken>>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Agent {
    /// An agent with tags that does to each task what `script` says.
    pub(crate) async fn start(
        manager: &Arc<TestManager>,
        name: &str,
        tags: &[&str],
        script: impl Fn(&Taken) -> Say + Send + Sync + 'static,
    ) -> Agent {
        Self::continue_with(manager, name, tags, 256, Arc::default(), Arc::new(script)).await
    }

    /// The same, for one that takes few tasks at once.
    pub(crate) async fn start_with_capacity(
        manager: &Arc<TestManager>,
        name: &str,
        capacity: u32,
        script: impl Fn(&Taken) -> Say + Send + Sync + 'static,
    ) -> Agent {
        Self::continue_with(manager, name, &[], capacity, Arc::default(), Arc::new(script)).await
    }

    async fn continue_with(
        manager: &Arc<TestManager>,
        name: &str,
        tags: &[&str],
        capacity: u32,
        taken: Arc<Mutex<Vec<Taken>>>,
        script: Script,
    ) -> Agent {
        let keys = Arc::new(SealKeyPair::generate().unwrap());
        let types: Vec<String> = task_types();
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let id = manager.register_own(name, name, &types, tags, keys.public()).await;
        let mut heartbeat = own_body(name, name, &types, tags, keys.public(), None);
        heartbeat["delegateExt"]["capacity"] = capacity.into();
        manager.heartbeat_own(heartbeat).await;
        let stop = CancellationToken::new();
        let (held, manager) = (stop.clone(), manager.clone());
        let seen = taken.clone();
        let running = tokio::spawn(async move {
            let work = work(&manager, &id, &keys, &seen, &script);
            tokio::select! {
                () = work => {}
                () = held.cancelled() => {}
            }
        });
        Agent { taken, stop, running }
    }

    pub(crate) async fn stop(self) -> Vec<Taken> {
        self.stop.cancel();
        self.running.await.unwrap();
        Arc::into_inner(self.taken).unwrap().into_inner().unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(Taken::name).collect()
    }
}

fn task_types() -> Vec<String> {
    let mut types: Vec<String> =
        ["COMMAND_TASK_NG", "HTTP_TASK_NG", "DELEGATE_VERIFY_TASK", "DELEGATE_ARTIFACT_TASK"]
            .into_iter()
            .chain([
                "DELEGATE_CONNECTOR_TEST_TASK",
                "DELEGATE_NOOP_TASK",
                "SHELL_SCRIPT_TASK_NG",
                "ECS_COMMAND_TASK_NG",
            ])
            .map(str::to_owned)
            .collect();
    types.extend(STEP_KINDS.map(str::to_owned));
    types
}

async fn work(
    manager: &TestManager,
    id: &str,
    keys: &SealKeyPair,
    seen: &Mutex<Vec<Taken>>,
    script: &Script,
) {
    let mut held: BTreeMap<String, (String, u64)> = BTreeMap::new();
    loop {
        let events: TaskEvents = serde_json::from_str(&manager.poll_text(id, "&wait_ms=500").await).unwrap();
        for event in events.delegate_task_events {
            match event {
                TaskEvent::Task(event) => {
                    let task = event.delegate_task_id;
                    let Ok(package) = manager.acquire(id, &task).await else { continue };
                    let raw = package.to_string();
                    let package = TaskPackage::decode(raw.as_bytes()).unwrap();
                    let ext = package.ext.clone().unwrap_or_default();
                    let mut secrets = BTreeMap::new();
                    for (reference, sealed) in &ext.sealed_secrets {
                        let clear = open(keys, reference, sealed).unwrap();
                        secrets.insert(reference.clone(), String::from_utf8(clear.to_vec()).unwrap());
                    }
                    let taken =
                        Taken { task: serde_json::from_str(package.data.get()).unwrap(), secrets, raw };
                    let say = script(&taken);
                    seen.lock().unwrap().push(taken);
                    match say {
                        Say::Answer(result) => {
                            answer(
                                manager,
                                id,
                                &task,
                                &package.task_type,
                                StepResult { fence: ext.fence, ..*result },
                            )
                            .await;
                        }
                        Say::Hold => {
                            held.insert(task, (package.task_type.clone(), ext.fence));
                        }
                        Say::Nothing => {}
                    }
                }
                TaskEvent::Abort(event) => {
                    let Some((task_type, fence)) = held.remove(&event.delegate_task_id) else { continue };
                    let failure = Failure::new(
                        FailureKind::UserMarkedFailure,
                        "SSH-014",
                        "aborted; nothing of ours is left",
                    );
                    let result = StepResult {
                        status: StepStatus::Aborted,
                        failure: Some(failure),
                        fence,
                        ..success()
                    };
                    answer(manager, id, &event.delegate_task_id, &task_type, result).await;
                }
            }
        }
    }
}

async fn answer(manager: &TestManager, id: &str, task: &str, task_type: &str, result: StepResult) {
    let response = TaskResponse::ok(task, task_type, &result).unwrap();
    let status = manager.respond(id, task, serde_json::to_string(&response).unwrap()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}
