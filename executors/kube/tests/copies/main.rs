//! Canaries, colours and routes on a real control plane.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
#![allow(unreachable_pub, reason = "A test program is no library.")]

mod blue_green;
mod canary;
mod conformance;
#[path = "../../../../tests/src/peers/https.rs"]
mod https;
#[path = "../peer/mod.rs"]
mod peer;
mod restarts;
mod routes;
mod webhook;

use executor_api::testing::World;
use executor_api::{CancelHandle, Executor, Plan, StepContext, StepError, StepOutput};
use executor_kube::{KubeExecutor, Settings};
use peer::{Place, inline};
use proto::result::Output;
use proto::task::{ExecutionRef, KubernetesAction, KubernetesSpec, StepTask};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A step of `release` with this manifest.
pub fn step(place: &Place, release: &str, manifest: &str, action: KubernetesAction) -> KubernetesSpec {
    let mut spec = peer::spec(place, action);
    spec.release_name = release.to_owned();
    spec.manifest = inline(manifest);
    spec
}

/// The task of a step in stage `s` of execution `e`.
pub fn task(spec: &KubernetesSpec) -> StepTask {
    let execution = ExecutionRef {
        execution_id: "e".into(),
        stage: "s".into(),
        node: "pipeline.stages.s.step".into(),
        ..ExecutionRef::default()
    };
    StepTask { execution, ..peer::task(spec) }
}

/// Secrets of every task here.
pub fn secrets(place: &Place) -> Vec<(String, String)> {
    let mut all = peer::cluster(place.plane).1;
    all.push(("pw".into(), "pl4nted-s3cret-value".into()));
    all
}

/// The world of one task.
pub fn world(place: &Place, id: &str, spec: &KubernetesSpec) -> World {
    World::new(id, task(spec), secrets(place))
}

/// An executor that reports to the ledger of `world`.
pub fn executor(world: &World) -> KubeExecutor {
    KubeExecutor::new(Settings::default()).with_probe(Arc::new(world.marks.clone()))
}

/// Runs the step of another execution, which must succeed.
pub async fn ok_in(place: &Place, execution: &str, id: &str, spec: &KubernetesSpec) -> StepOutput {
    ok_undoing(place, execution, None, id, spec).await
}

/// Runs the step of another execution that undoes a third one, which must succeed.
pub async fn ok_undoing(
    place: &Place,
    execution: &str,
    rolls_back: Option<&str>,
    id: &str,
    spec: &KubernetesSpec,
) -> StepOutput {
    let mut task = task(spec);
    task.execution.execution_id = execution.to_owned();
    task.execution.rolls_back = rolls_back.map(str::to_owned);
    let world = World::new(id, task, secrets(place));
    let (_handle, cx) = world.context();
    let executor = executor(&world);
    let result =
        tokio::time::timeout(Duration::from_secs(90), executor.run(spec, &cx)).await.expect("an end");
    assert_eq!(world.marks.unannounced(), Vec::<String>::new());
    result.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything()))
}

/// Runs the step in a world of its own.
pub async fn run(place: &Place, id: &str, spec: &KubernetesSpec) -> (World, Result<StepOutput, StepError>) {
    let world = world(place, id, spec);
    let (_handle, cx) = world.context();
    let executor = executor(&world);
    let result =
        tokio::time::timeout(Duration::from_secs(90), executor.run(spec, &cx)).await.expect("an end");
    assert_eq!(world.marks.unannounced(), Vec::<String>::new());
    (world, result)
}

/// Runs the step, which must succeed.
pub async fn ok(place: &Place, id: &str, spec: &KubernetesSpec) -> StepOutput {
    let (world, result) = run(place, id, spec).await;
    result.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything()))
}

/// Runs the step, which must fail with `code`; its text.
pub async fn fails(place: &Place, id: &str, spec: &KubernetesSpec, code: &str) -> String {
    let (world, result) = run(place, id, spec).await;
    let error = result.err().unwrap_or_else(|| panic!("it succeeded\n{}", world.logs.everything()));
    assert_eq!(error.code, code, "{error}\n{}", world.logs.everything());
    error.what
}

/// The plan of the step.
pub async fn plan(place: &Place, id: &str, spec: &KubernetesSpec) -> String {
    let world = world(place, id, spec);
    let (_handle, cx) = world.context();
    let plan = executor(&world).plan(spec, &cx).await.unwrap_or_else(|e| panic!("{}: {e}", e.code));
    assert_eq!(world.marks.calls(), Vec::<String>::new(), "a plan changes nothing");
    match plan {
        Plan::Diff { text, hash } => {
            assert_eq!(hash.len(), 64);
            text
        }
        Plan::Unsupported { reason } => panic!("{reason}"),
    }
}

/// One output.
pub fn output(output: &StepOutput, key: &str) -> Value {
    value(&output.outputs, key)
}

fn value(outputs: &BTreeMap<String, Output>, key: &str) -> Value {
    outputs.get(key).map(|o| o.value.clone()).unwrap_or_default()
}

/// A handle and a context that stay together.
pub fn context(world: &World) -> (CancelHandle, StepContext) {
    world.context()
}

/// Name, uid and generation or version of everything of the namespace that a step could change.
pub async fn snapshot(place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    for (group, plural) in [
        ("v1", "services"),
        ("v1", "configmaps"),
        ("v1", "secrets"),
        ("apps/v1", "deployments"),
        ("apps/v1", "statefulsets"),
        ("autoscaling/v2", "horizontalpodautoscalers"),
        ("policy/v1", "poddisruptionbudgets"),
    ] {
        let list = place.get(&place.path(group, plural)).await.unwrap();
        // Every namespace gets the CA some time after it is made.
        let ours = |item: &&Value| item["metadata"]["name"] != "kube-root-ca.crt";
        for item in list["items"].as_array().unwrap().iter().filter(ours) {
            // The status of a workload changes the version of the object, the specification its generation.
            let version = match item["metadata"]["generation"].as_u64() {
                Some(generation) => generation.to_string(),
                None => item["metadata"]["resourceVersion"].to_string(),
            };
            all.push(format!("{plural}/{} {} {version}", item["metadata"]["name"], item["metadata"]["uid"]));
        }
    }
    all
}

/// A live object, which must be there.
pub async fn live(place: &Place, group: &str, rest: &str) -> Value {
    place.get(&place.path(group, rest)).await.unwrap_or_else(|| panic!("{rest} is not there"))
}

/// Whether an object is not there.
pub async fn absent(place: &Place, group: &str, rest: &str) -> bool {
    place.get(&place.path(group, rest)).await.is_none()
}

/// A Deployment of `replicas` pods with a ConfigMap, a Secret and a Service.
pub fn web(name: &str, image: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}-conf}}
data: {{image: "{image}"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}-pw}}
stringData: {{password: '${{ngSecretManager.obtain("pw", 77)}}'}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: app
        image: "{image}"
        readinessProbe: {{httpGet: {{path: /, port: 80}}}}
        envFrom: [{{configMapRef: {{name: {name}-conf}}}}, {{secretRef: {{name: {name}-pw}}}}]
"#
    )
}
