//! K8sScale, K8sRollout and K8sPatch on a real control plane, with the conformance kit.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_api::{Class, Executor, NoProbe, Plan, StepError, StepOutput, TransportProbe};
use executor_kube::{KubeExecutor, Settings};
use futures::future::BoxFuture;
use peer::{Place, cluster, inline, spec, task, until};
use proto::failure::FailureKind;
use proto::task::{CommandFlag, FileStore, Instances, KubernetesAction, KubernetesSpec, Selection};
use proto::text::{SecretRef, Text, placeholder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn settings() -> Settings {
    Settings { patience: Duration::from_secs(1), ..Settings::default() }
}

async fn run(place: &Place, spec: &KubernetesSpec) -> (Result<StepOutput, StepError>, World) {
    let mut secrets = cluster(place.plane).1;
    secrets.push(("pw".into(), SECRET.into()));
    let world = World::new("task", task(spec), secrets);
    let (_handle, cx) = world.context();
    let executor = KubeExecutor::new(settings()).with_probe(Arc::new(NoProbe));
    assert!(executor.check(spec, &cx).is_ok());
    let result =
        tokio::time::timeout(Duration::from_secs(60), executor.run(spec, &cx)).await.expect("an end");
    (result, world)
}

async fn works(place: &Place, action: KubernetesAction) -> (StepOutput, String) {
    let (result, world) = run(place, &spec(place, action)).await;
    let log = world.logs.everything();
    (result.unwrap_or_else(|e| panic!("{} {e}\n{log}", e.code)), log)
}

async fn planned(place: &Place, action: KubernetesAction) -> String {
    let spec = spec(place, action);
    let world = World::new("task", task(&spec), cluster(place.plane).1);
    let (_handle, cx) = world.context();
    match KubeExecutor::new(settings()).plan(&spec, &cx).await.unwrap() {
        Plan::Diff { text, hash } => {
            assert_eq!(hash.len(), 64);
            text
        }
        Plan::Unsupported { reason } => panic!("{reason}"),
    }
}

fn scale(workload: &str, instances: Instances) -> KubernetesAction {
    KubernetesAction::K8sScale { workload: workload.into(), instances, skip_steady_state_check: false }
}

fn rollout(command: &str, names: &[&str]) -> KubernetesAction {
    let names = names.iter().map(|n| (*n).to_owned()).collect();
    KubernetesAction::K8sRollout { command: command.into(), resources: Selection::Names(names) }
}

fn patch(workload: &str, strategy: &str, text: &str) -> KubernetesAction {
    KubernetesAction::K8sPatch {
        workload: workload.into(),
        source: FileStore::Inline { path: "patch.yaml".into(), content: Text(text.into()) },
        merge_strategy: strategy.into(),
        record_change_cause: false,
        skip_steady_state_check: false,
    }
}

const SECRET: &str = "p4tch-secret-value";

#[tokio::test(flavor = "multi_thread")]
async fn scale_by_number_and_share_and_what_cannot_be_scaled() {
    let place = Place::new("scale").await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 2})).await;
    place.workload("DaemonSet", "log", "app:1", json!({}), json!({})).await;
    let plan = planned(&place, scale("Deployment/web", Instances::Count(4))).await;
    assert_eq!(plan, "change scale/Deployment/web\n-replicas: 2\n+replicas: 4\n");
    let (output, log) = works(&place, scale("Deployment/web", Instances::Count(4))).await;
    assert_eq!(output.outputs["replicas"].value, 4);
    assert_eq!(output.outputs["previousReplicas"].value, 2);
    assert_eq!(output.outputs["podIps"].value.as_array().unwrap().len(), 4);
    assert!(log.contains("ready: 4 of 4 pods available"), "{log}");
    // A list, as canaryWorkload may be: what cannot be scaled is left out.
    let (output, _) =
        works(&place, scale("DaemonSet/log,scale/Deployment/web", Instances::Percentage(50))).await;
    assert_eq!(output.outputs["replicas"].value, 2);
    let (output, _) = works(&place, scale("deployment/web", Instances::Count(0))).await;
    assert_eq!(output.outputs["pods"].value, json!([]));
    for (workload, code, text) in [
        ("DaemonSet/log", "KUBE-056", "cannot be scaled"),
        ("Deployment/nobody", "KUBE-055", "there are: web"),
        ("Deployment/web,Deployment/other", "KUBE-055", "names 2 workloads"),
        ("web", "KUBE-010", "names no object"),
        ("Nothing/web", "KUBE-018", "does not know the kind"),
    ] {
        let (result, _) = run(&place, &spec(&place, scale(workload, Instances::Count(1)))).await;
        let error = result.unwrap_err();
        assert_eq!((error.code, error.class), (code, Class::BadSpec), "{workload}: {error}");
        assert!(error.what.contains(text), "{}", error.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_restarts_pauses_resumes_tells_and_goes_back() {
    let place = Place::new("rollout").await;
    let path = place.path("apps/v1", "deployments/web");
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 2})).await;
    place.workload("StatefulSet", "db", "db:1", json!({}), json!({"replicas": 1, "serviceName": "db"})).await;
    let both = ["Deployment/web", "StatefulSet/db"];
    let (output, _) = works(&place, rollout("status", &both)).await;
    assert_eq!(output.outputs["pods"].value.as_array().unwrap().len(), 3);
    works(&place, rollout("restart", &both)).await;
    let restarted = place.get(&path).await.unwrap();
    let at = restarted.pointer("/spec/template/metadata/annotations").unwrap()["kubectl.kubernetes.io/restartedAt"].clone();
    assert!(at.as_str().unwrap().ends_with('Z'), "{at}");
    works(&place, rollout("status", &both)).await;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}});
    for (path, to) in [(&path, "app:2"), (&place.path("apps/v1", "statefulsets/db"), "db:2")] {
        place.patch(path, image(to)).await;
    }
    works(&place, rollout("status", &both)).await;
    works(&place, rollout("pause", &["Deployment/web"])).await;
    assert_eq!(place.get(&path).await.unwrap()["spec"]["paused"], true);
    let (result, _) = run(&place, &spec(&place, rollout("undo", &["Deployment/web"]))).await;
    assert_eq!(result.unwrap_err().code, "KUBE-059");
    works(&place, rollout("resume", &["Deployment/web"])).await;
    assert_eq!(place.get(&path).await.unwrap()["spec"]["paused"], Value::Null);
    let (_, log) = works(&place, rollout("resume", &["Deployment/web"])).await;
    assert!(log.contains("nothing changes"), "{log}");
    let (output, _) = works(&place, rollout("history", &both)).await;
    let history = &output.outputs["history"].value;
    assert_eq!(history["rollout/Deployment/web"].as_array().unwrap().len(), 3, "{history}");
    assert_eq!(history["rollout/StatefulSet/db"][2]["images"][0], "db:2");
    let plan = planned(&place, rollout("undo", &both)).await;
    assert!(plan.contains("change rollout/Deployment/web: goes back to revision 2"), "{plan}");
    works(&place, rollout("undo", &both)).await;
    works(&place, rollout("status", &both)).await;
    let image_of = async |path: String| {
        place.get(&path).await.unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    assert_eq!(image_of(path.clone()).await, "app:1");
    assert_eq!(image_of(place.path("apps/v1", "statefulsets/db")).await, "db:1");
    // To a named revision: the first, which has no mark of a restart.
    let mut to_first = spec(&place, rollout("undo", &["Deployment/web"]));
    to_first.command_flags = vec![CommandFlag { command: "Rollout".into(), flag: "--to-revision=1".into() }];
    run(&place, &to_first).await.0.unwrap();
    let template = place.get(&path).await.unwrap()["spec"]["template"].clone();
    assert_eq!(template.pointer("/metadata/annotations"), None, "{template}");
    to_first.command_flags[0].flag = "--to-revision=77".into();
    let error = run(&place, &to_first).await.0.unwrap_err();
    assert!(error.what.contains("revision 77 is not kept"), "{error}");
    to_first.command_flags[0].flag = "--now".into();
    assert_eq!(run(&place, &to_first).await.0.unwrap_err().code, "KUBE-059");
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_of_a_release_means_its_workloads_without_canaries() {
    let place = Place::new("release").await;
    for (name, labels) in [
        ("mine", json!({"harness.io/release-name": "release"})),
        ("mine-canary", json!({"harness.io/release-name": "release", "harness.io/track": "canary"})),
        ("other", json!({"harness.io/release-name": "another"})),
    ] {
        let spec = json!({"template": {"metadata": {"labels": labels}}});
        place.workload("Deployment", name, "app:1", json!({}), spec).await;
    }
    let action = KubernetesAction::K8sRollout { command: "status".into(), resources: Selection::Release };
    let (output, _) = works(&place, action.clone()).await;
    assert_eq!(output.outputs["workloads"].value, json!(["release/Deployment/mine"]));
    // And by the files of a manifest.
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: other}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
    let by_manifest =
        KubernetesAction::K8sRollout { command: "status".into(), resources: Selection::Manifests(vec![]) };
    let mut by_manifest = spec(&place, by_manifest);
    by_manifest.manifest = inline(text);
    let output = run(&place, &by_manifest).await.0.unwrap();
    assert_eq!(output.outputs["workloads"].value, json!(["release/Deployment/other"]));
    let mut unknown = spec(&place, action);
    unknown.release_name = "nobody".into();
    assert_eq!(run(&place, &unknown).await.0.unwrap_err().code, "KUBE-055");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_every_kind_and_what_is_wrong_with_them() {
    let place = Place::new("patch").await;
    let path = place.path("apps/v1", "deployments/web");
    place.workload("Deployment", "web", "app:1", json!({}), json!({})).await;
    let strategic =
        "spec:\n  template:\n    spec:\n      containers:\n      - name: side\n        image: side:1\n";
    let plan = planned(&place, patch("Deployment/web", "Strategic", strategic)).await;
    assert!(plan.contains("side:1"), "{plan}");
    let (output, log) = works(&place, patch("Deployment/web", "Strategic", strategic)).await;
    assert!(log.contains("side:1"), "{log}");
    let pods = output.outputs["pods"].value.as_array().unwrap().clone();
    assert_eq!(pods.iter().filter(|pod| pod["newPod"] == true).count(), 1, "{pods:?}");
    let live = place.get(&path).await.unwrap();
    assert_eq!(live["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    works(&place, patch("Deployment/web", "Merge", r#"{"metadata": {"labels": {"a": "b"}}}"#)).await;
    let add = "- op: add\n  path: /metadata/labels/c\n  value: d\n";
    let mut json_patch = patch("Deployment/web", "Json", add);
    if let KubernetesAction::K8sPatch { record_change_cause, .. } = &mut json_patch {
        *record_change_cause = true;
    }
    works(&place, json_patch).await;
    let live = place.get(&path).await.unwrap();
    assert_eq!(live["metadata"]["labels"], json!({"a": "b", "c": "d"}));
    assert!(
        live["metadata"]["annotations"]["kubernetes.io/change-cause"].as_str().unwrap().contains("K8sPatch")
    );
    let (_, log) =
        works(&place, patch("Deployment/web", "Merge", r#"{"metadata": {"labels": {"a": "b"}}}"#)).await;
    assert!(log.contains("nothing is sent"), "{log}");
    let secret = placeholder(&SecretRef("pw".into()), 77);
    let text = format!("metadata:\n  annotations:\n    password: {secret}\n");
    let (_, log) = works(&place, patch("Deployment/web", "Merge", &text)).await;
    assert!(!log.contains(SECRET), "{log}");
    assert_eq!(place.get(&path).await.unwrap()["metadata"]["annotations"]["password"], SECRET);
    for (strategy, text, code, said) in [
        ("Json", "a: b", "KUBE-057", "a list of operations"),
        ("Merge", "- a", "KUBE-057", "must be a map"),
        ("Merge", "a: [", "KUBE-057", "line"),
        ("Merge", "spec: {replicas: many}", "KUBE-017", "replicas"),
        ("Merge", "spec: {selector: {matchLabels: {app: other}}}", "KUBE-024", "immutable"),
    ] {
        let (result, _) = run(&place, &spec(&place, patch("Deployment/web", strategy, text))).await;
        let error = result.unwrap_err();
        assert_eq!(error.code, code, "{text}: {error}");
        assert!(error.what.contains(said), "{}", error.what);
    }
}

/// Which step the kit runs.
#[derive(Clone, Copy)]
enum Kind {
    Scale,
    Restart,
    Patch,
}

struct Kit {
    place: Place,
    kind: Kind,
}

impl Kit {
    fn case(&self, action: KubernetesAction) -> Case<KubernetesSpec> {
        let spec = spec(&self.place, action);
        Case { task: task(&spec), spec }
    }

    fn create(&self, key: &str, image: &str) -> String {
        let name = key.to_lowercase();
        let image = format!("--image={image}");
        self.place.plane.kubectl(&["create", "deployment", &name, &image, "-n", &self.place.namespace]);
        format!("Deployment/{name}")
    }

    fn action(&self, workload: &str) -> KubernetesAction {
        match self.kind {
            Kind::Scale => scale(workload, Instances::Percentage(200)),
            Kind::Restart => rollout("restart", &[workload]),
            // Adds to a list: twice would be seen.
            Kind::Patch => patch(workload, "Json", PATCH),
        }
    }

    async fn generation(&self, key: &str) -> Option<u64> {
        let path = self.place.path("apps/v1", &format!("deployments/{}", key.to_lowercase()));
        self.place.get(&path).await?["metadata"]["generation"].as_u64()
    }
}

const PATCH: &str =
    "- op: add\n  path: /spec/template/spec/containers/-\n  value: {name: side, image: 'side:1'}\n";

impl Harness for Kit {
    type Executor = KubeExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> KubeExecutor {
        KubeExecutor::new(settings()).with_probe(probe)
    }

    fn succeeding(&self, key: &str) -> Case<KubernetesSpec> {
        let workload = self.create(key, "app:1");
        self.case(self.action(&workload))
    }

    fn lasting(&self, key: &str) -> Option<Case<KubernetesSpec>> {
        let workload = match self.kind {
            Kind::Restart => return None,
            _ => self.create(key, "app:never-ready"),
        };
        Some(self.case(self.action(&workload)))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.generation(key).await == Some(2) })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move {
            Some(self.generation(key).await.map_or(0, |g| usize::try_from(g).unwrap_or(99)) - 1)
        })
    }

    fn left_behind<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn errors(&self) -> Vec<ErrorCase<KubernetesSpec>> {
        let mut gone = self.case(self.action("Deployment/web"));
        if let proto::task::ClusterCredential::ClientKeyCert { master_url, .. } =
            &mut gone.spec.cluster.credential
        {
            *master_url = "https://127.0.0.1:1".into();
        }
        vec![
            ErrorCase {
                name: "no such workload".into(),
                case: self.case(self.action("Deployment/nobody")),
                kind: FailureKind::BadSpec,
                code: "KUBE-055",
            },
            ErrorCase {
                name: "no API server".into(),
                case: gone,
                kind: FailureKind::Connectivity,
                code: "KUBE-011",
            },
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        cluster(self.place.plane).1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_passes_the_conformance_kit() {
    let place = Place::new("kit-scale").await;
    conformance::run(&Kit { place, kind: Kind::Scale }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_passes_the_conformance_kit() {
    let place = Place::new("kit-restart").await;
    conformance::run(&Kit { place, kind: Kind::Restart }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patch_passes_the_conformance_kit() {
    let place = Place::new("kit-patch").await;
    conformance::run(&Kit { place, kind: Kind::Patch }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_workload_that_breaks_fails_with_its_evidence() {
    let place = Place::new("broken").await;
    place.workload("Deployment", "web", "app:crash", json!({}), json!({"replicas": 0})).await;
    until("it is seen", async || {
        place.get(&place.path("apps/v1", "deployments/web")).await.unwrap()["status"]["observedGeneration"]
            == 1
    })
    .await;
    let (result, world) = run(&place, &spec(&place, scale("Deployment/web", Instances::Count(1)))).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, error.class), ("KUBE-041", Class::RemoteFailed { code: 1 }), "{error}");
    assert!(world.logs.everything().contains("last lines of container app"));
}
