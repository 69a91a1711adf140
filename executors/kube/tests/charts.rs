//! A Helm chart with hooks, a definition, an aliased dependency and a library (`tests/charts/shop`), from Git, by the
//! real `helm`: deployed, upgraded, rolled back and deleted without a trace.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
#![allow(dead_code, unreachable_pub, reason = "The shared peers have more than this file uses.")]

mod peer;

#[path = "../../../tests/src/wait.rs"]
mod wait;

#[path = "../../../tests/src/peers"]
mod peers {
    pub mod owned;
    pub mod web;
}

use executor_api::testing::World;
use executor_api::{Executor, Plan, StepError, StepOutput};
use executor_kube::{KubeExecutor, Settings};
use peer::plane::{ControlPlane, tool};
use peer::tools::with_tools;
use peer::{Place, rolling, spec, until, world_in};
use peers::web::GitServer;
use proto::task::{CommandFlag, FileStore, KubernetesAction, KubernetesSpec, Selection};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const TOKEN: &str = "git-token-1";

fn chart_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/charts/shop")
}

/// The files of the chart, by path below `shop/`.
fn files() -> Vec<(String, String)> {
    fn walk(folder: &Path, prefix: &str, into: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &path, into);
            } else {
                into.push((path, std::fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    walk(&chart_folder(), "shop", &mut files);
    files
}

/// Version 1.1.0 of the chart: another definition and another number.
fn newer() -> Vec<(String, String)> {
    let column =
        "      additionalPrinterColumns: [{name: Text, type: string, jsonPath: .spec.text}]\n      schema:\n";
    let mut files = files();
    for (path, text) in &mut files {
        match path.as_str() {
            "shop/Chart.yaml" => *text = text.replace("version: 1.0.0", "version: 1.1.0"),
            "shop/crds/banners.yaml" => *text = text.replace("      schema:\n", column),
            _ => {}
        }
    }
    files
}

fn publish(server: &GitServer, repository: &str, files: &[(String, String)]) {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    server.repository(repository, &files);
}

/// A step with the chart of a repository and these values over its own.
fn step(
    place: &Place,
    server: &GitServer,
    repository: &str,
    values: &str,
    action: KubernetesAction,
) -> KubernetesSpec {
    let manifest = json!({
        "identifier": "chart",
        "kind": {"type": "HelmChart", "chartName": "shop"},
        "store": {"type": "Git", "spec": {
            "connector": {
                "identifier": "repo", "url": format!("http://127.0.0.1:{}/{repository}", server.port),
                "auth": {"type": "UsernamePassword", "username": "robot", "password": "git_token"},
            },
            "reference": {"type": "Branch", "value": "main"}, "paths": ["shop"],
        }},
    });
    KubernetesSpec {
        manifest: Some(serde_json::from_value(manifest).unwrap()),
        overrides: vec![FileStore::Inline { path: "values.yaml".into(), content: values.into() }],
        command_flags: vec![CommandFlag {
            command: "Template".into(),
            flag: "--include-crds --skip-tests".into(),
        }],
        ..spec(place, action)
    }
}

fn back(place: &Place) -> KubernetesSpec {
    spec(place, KubernetesAction::K8sRollingRollback { pruning_enabled: true })
}

fn world(place: &Place, key: &str, id: &str, spec: &KubernetesSpec) -> World {
    world_in(place, key, id, spec, &[("git_token", TOKEN)])
}

async fn run(world: &World, spec: &KubernetesSpec) -> Result<StepOutput, StepError> {
    let executor = KubeExecutor::new(Settings::default()).with_probe(Arc::new(world.marks.clone()));
    let (_handle, cx) = world.context();
    executor.check(spec, &cx).unwrap_or_else(|faults| panic!("{faults:?}"));
    let result = executor.run(spec, &cx).await;
    let bare = world.marks.unannounced();
    assert!(bare.is_empty(), "without a checkpoint: {bare:?}");
    assert!(!world.logs.everything().contains(TOKEN));
    result
}

async fn succeed(place: &Place, key: &str, id: &str, spec: &KubernetesSpec) -> StepOutput {
    let world = world(place, key, id, spec);
    let result = run(&world, spec).await;
    result.unwrap_or_else(|e| panic!("{id}: {} {e}\n{}", e.code, world.logs.everything()))
}

async fn planned(place: &Place, spec: &KubernetesSpec) -> String {
    let world = world(place, "plan", "plan", spec);
    let plan = KubeExecutor::new(Settings::default()).plan(spec, &world.context().1).await;
    match plan {
        Ok(Plan::Diff { text, .. }) => text,
        other => panic!("{other:?}\n{}", world.logs.everything()),
    }
}

/// Name of every object in the namespace, and of every object of the cluster that belongs to no node.
fn trace(plane: &ControlPlane, namespace: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for namespaced in ["true", "false"] {
        let scope = format!("--namespaced={namespaced}");
        let kinds = plane.kubectl(&["api-resources", "--verbs=list", "--no-headers", "-o", "name", &scope]);
        let kinds: Vec<&str> = kinds
            .lines()
            // Events are nobody's and go by their age; what the player of the nodes notes for itself is the peer's.
            .filter(|kind| !kind.starts_with("events") && !kind.ends_with("kwok.x-k8s.io"))
            .collect();
        let kinds = kinds.join(",");
        let listed = plane.kubectl(&["get", "--ignore-not-found", "-n", namespace, "-o", "name", &kinds]);
        found.extend(listed.lines().map(str::to_owned));
    }
    found
}

async fn traced(place: &Place) -> BTreeSet<String> {
    let (plane, namespace) = (place.plane, place.namespace.clone());
    tokio::task::spawn_blocking(move || trace(plane, &namespace)).await.unwrap()
}

/// What the upgrade and the rollbacks move to and fro.
async fn shown(place: &Place) -> Value {
    let web = place.get(&place.path("apps/v1", "deployments/front-shop")).await.unwrap();
    let config = web.pointer("/spec/template/spec/containers/0/envFrom/0/configMapRef/name").unwrap();
    let config = place.get(&place.path("v1", &format!("configmaps/{}", config.as_str().unwrap()))).await;
    let banner = place.get(&place.path("shop.example.com/v1", "banners/front-shop")).await.unwrap();
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/banners.shop.example.com";
    let definition = place.get(definition).await.unwrap();
    let announced = place.get(&place.path("v1", "configmaps/front-shop-announced")).await.unwrap();
    let sessions = place.get(&place.path("apps/v1", "statefulsets/front-sessions")).await;
    json!({
        "image": web.pointer("/spec/template/spec/containers/0/image"),
        "ready": web["status"]["readyReplicas"],
        "greeting": config.unwrap()["data"]["greeting"],
        "banner": banner["spec"]["text"],
        "columns": definition["spec"]["versions"][0].get("additionalPrinterColumns").is_some(),
        "announced": announced["data"]["version"],
        "sessions": sessions.map(|set| set["status"]["readyReplicas"].clone()),
    })
}

async fn job_done(place: &Place, name: &str) {
    until(&format!("the hook {name} has run"), async || {
        let job = place.get(&place.path("batch/v1", &format!("jobs/{name}"))).await;
        job.is_some_and(|job| job["status"]["succeeded"] == 1)
    })
    .await;
}

const FIRST: &str = "replicas: 3\n";
const SECOND: &str = "replicas: 3\nimage: {tag: '2'}\ngreeting: good evening\nsessions: {enabled: false}\n";
const BROKEN: &str = "replicas: 3\nimage: {tag: 3-image-pull}\ngreeting: good night\n";

#[test]
fn a_chart_is_deployed_upgraded_rolled_back_and_deleted_without_a_trace() {
    with_tools("a_chart_is_deployed_upgraded_rolled_back_and_deleted_without_a_trace", whole_life());
}

async fn whole_life() {
    let linted = Command::new(tool("helm")).arg("lint").arg("--strict").arg(chart_folder()).output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    let place = Place::new("chart").await;
    until("the namespace's own configuration", async || {
        place.get(&place.path("v1", "configmaps/kube-root-ca.crt")).await.is_some()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let server = GitServer::start(dir.path(), "robot", TOKEN).await;
    publish(&server, "first", &files());
    publish(&server, "second", &newer());
    let step = |repository: &str, values: &str, action| {
        let mut step = step(&place, &server, repository, values, action);
        step.release_name = "front".into();
        step
    };
    let back = KubernetesSpec { release_name: "front".into(), ..back(&place) };
    let before = traced(&place).await;

    // Everything is judged, definition and resource of one set included, and nothing is there afterwards.
    let first = step("first", FIRST, rolling(true));
    let plan = planned(&place, &first).await;
    assert!(plan.contains("create chart/Banner/front-shop") && plan.contains("migrate-1"), "{plan}");
    assert!(!plan.contains("reach"), "a test of helm is not deployed: {plan}");
    succeed(&place, "dry", "dry", &step("first", FIRST, KubernetesAction::K8sDryRun {})).await;
    assert_eq!(traced(&place).await, before);
    // What the schema of the chart refuses is told before anything is asked of the cluster.
    let wrong = step("first", "replicas: many\n", rolling(true));
    let wrong_world = world(&place, "wrong", "wrong", &wrong);
    let error = run(&wrong_world, &wrong).await.unwrap_err();
    assert!(error.code == "KUBE-061" && error.what.contains("replicas"), "{} {error}", error.code);

    // Deployed.
    let output = succeed(&place, "e1", "e1", &first).await;
    assert_eq!(output.outputs["releaseNumber"].value, 1);
    job_done(&place, "front-shop-migrate-1").await;
    let of_first = json!({"image": "shop:1", "ready": 3, "greeting": "good morning", "banner": "good morning",
        "columns": false, "announced": "1.0.0", "sessions": 1});
    assert_eq!(shown(&place).await, of_first);
    let after_first = traced(&place).await;

    // Upgraded: another chart version, a new hook run, the dependency switched off and pruned.
    let output = succeed(&place, "e2", "e2", &step("second", SECOND, rolling(true))).await;
    let pruned = output.outputs["prunedResourceIds"].value.to_string();
    assert!(pruned.contains("front-sessions") && pruned.contains("front-shop-migrate-1"), "{pruned}");
    job_done(&place, "front-shop-migrate-2").await;
    let of_second = json!({"image": "shop:2", "ready": 3, "greeting": "good evening", "banner": "good evening",
        "columns": true, "announced": "1.1.0", "sessions": null});
    assert_eq!(shown(&place).await, of_second);

    // Back to the first release, by the undo data of the upgrade.
    let mut undoing = world(&place, "e2", "e2-back", &back);
    Arc::make_mut(&mut undoing.task).undo = output.undo.clone();
    let output = run(&undoing, &back).await.unwrap_or_else(|e| panic!("{e}\n{}", undoing.logs.everything()));
    assert_eq!(output.outputs["releaseNumber"].value, 1);
    until("the sessions are back", async || shown(&place).await == of_first).await;
    job_done(&place, "front-shop-migrate-1").await;
    let lost: Vec<String> =
        stable(&after_first).difference(&stable(&traced(&place).await)).cloned().collect();
    assert!(lost.is_empty(), "not brought back: {lost:?}");

    // A release that can never become ready fails soon, and the rollback leaves nothing of it.
    let broken = step("second", BROKEN, rolling(true));
    let failing = world(&place, "e3", "e3", &broken);
    let error = run(&failing, &broken).await.unwrap_err();
    println!("{} {error}", error.code);
    assert!(error.code.starts_with("KUBE-04"), "{} {error}", error.code);
    succeed(&place, "e3", "e3-back", &back).await;
    until("the first release is back", async || shown(&place).await == of_first).await;
    assert!(place.get(&place.path("batch/v1", "jobs/front-shop-migrate-3-image-pull")).await.is_none());

    // Deleted: nothing of it is left, neither its records nor its definition nor the rights in the whole cluster.
    let delete = KubernetesAction::K8sDelete { resources: Selection::Release, delete_namespaces: false };
    let delete = KubernetesSpec { release_name: "front".into(), ..spec(&place, delete) };
    let deleting = world(&place, "e4", "e4", &delete);
    run(&deleting, &delete).await.unwrap_or_else(|e| panic!("{e}\n{}", deleting.logs.everything()));
    let mut left = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::time::Instant::now() < deadline {
        left = traced(&place).await.difference(&before).cloned().collect();
        if left.is_empty() {
            break;
        }
    }
    assert!(left.is_empty(), "left behind: {left:?}\n{}", deleting.logs.everything());
    assert!(before.is_subset(&traced(&place).await), "something that is not ours was deleted");
}

/// Names without those that controllers and releases number themselves.
fn stable(names: &BTreeSet<String>) -> BTreeSet<String> {
    let numbered =
        ["pod/", "replicaset.", "endpointslice.", "controllerrevision.", "secret/harness.release."];
    names.iter().filter(|name| !numbered.iter().any(|kind| name.starts_with(kind))).cloned().collect()
}
