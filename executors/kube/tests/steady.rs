//! Steady state on a real control plane: what succeeds, what is called failed and how soon, and what a person reads.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::{CancelReason, CancelStage, Class, LogSink, StepError};
use executor_kube::steady::{self, Limits, Report, Target};
use peer::plane::{Component, ControlPlane};
use peer::{Place, client, until, world};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn target(place: &Place, api: &str, kind: &str, name: &str) -> Target {
    let namespace = if kind == "CustomResourceDefinition" { String::new() } else { place.namespace.clone() };
    Target { api_version: api.into(), kind: kind.into(), namespace, name: name.into() }
}

fn deployment(place: &Place, name: &str) -> Target {
    target(place, "apps/v1", "Deployment", name)
}

async fn wait(place: &Place, world: &World, targets: &[Target]) -> Result<Report, StepError> {
    let (_handle, cx) = world.context();
    let log = world.logs.unit("Wait for Steady State");
    let wait = steady::wait(&place.client, targets, &cx, log.as_ref());
    let ended = tokio::time::timeout(Duration::from_secs(90), wait).await;
    ended.unwrap_or_else(|_| panic!("no end:\n{}", world.logs.everything()))
}

/// Waits for `targets`, which must fail with `code` within `seconds`; returns the screen.
/// Far longer than it takes, also on a loaded machine, and shorter than what a wait has patience for that sees no evidence.
const SOON: Duration = Duration::from_secs(45);

async fn fails(place: &Place, targets: &[Target], code: &str) -> (StepError, String) {
    let world = world(place);
    let start = Instant::now();
    let error = wait(place, &world, targets).await.expect_err("it can never become ready");
    let took = start.elapsed();
    let log = world.logs.everything();
    assert_eq!(error.code, code, "{error}\n{log}");
    assert!(took < SOON, "{took:?}\n{log}");
    let screen: String = log.split('✗').next_back().unwrap_or_default().to_owned();
    assert!(screen.lines().count() <= 24, "more than a screen:\n{screen}");
    assert!(error.target.is_some() && error.hint.is_some());
    println!("{code} after {took:?}\n{log}");
    (error, screen)
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_of_every_kind_become_ready() {
    let place = Place::new("ready").await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 3})).await;
    place
        .workload("StatefulSet", "db", "app:1", json!({}), json!({"replicas": 2, "serviceName": "db"}))
        .await;
    place.workload("DaemonSet", "log", "app:1", json!({}), json!({})).await;
    let once = json!({"template": {"spec": {"restartPolicy": "Never"}}});
    place.workload("Job", "once", "app:job-ok", json!({}), once).await;
    let world = world(&place);
    let targets = [
        deployment(&place, "web"),
        target(&place, "apps/v1", "StatefulSet", "db"),
        target(&place, "apps/v1", "DaemonSet", "log"),
        target(&place, "batch/v1", "Job", "once"),
    ];
    let report =
        wait(&place, &world, &targets).await.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    let pods: Vec<usize> = report.targets.iter().map(|t| t.pods.len()).collect();
    assert_eq!(pods[..3], [3, 2, 3], "{report:?}");
    let pod = &report.targets[0].pods[0];
    assert!(pod.ready && pod.of_new_revision && !pod.ip.is_empty(), "{pod:?}");
    assert_eq!(pod.containers[0].1, "app:1");
    assert!(world.logs.everything().contains("Job/once: ready: complete"), "{}", world.logs.everything());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_rollout_is_never_called_failed() {
    let place = Place::new("slow").await;
    let slow = json!({"peer.test/behaviour": "slow", "peer.test/ready-seconds": "20"});
    place.workload("Deployment", "web", "app:1", slow, json!({"replicas": 2})).await;
    let world = world(&place);
    let report = wait(&place, &world, &[deployment(&place, "web")]).await;
    assert!(report.is_ok(), "{:?}\n{}", report, world.logs.everything());
    assert!(world.logs.everything().contains("Readiness probe failed"), "{}", world.logs.everything());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_fails_at_once_with_the_registrys_words() {
    let place = Place::new("pull").await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 2})).await;
    wait(&place, &world(&place), &[deployment(&place, "web")]).await.unwrap();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2-image-pull"}]}}}});
    place.patch(&place.path("apps/v1", "deployments/web"), image).await;
    let (error, screen) = fails(&place, &[deployment(&place, "web")], "KUBE-040").await;
    assert!(error.what.contains("image app:2-image-pull cannot be pulled: not found"), "{}", error.what);
    assert!(screen.contains("1 of this revision, 0 ready; 2 of others"), "{screen}");
    assert!(screen.contains("Failed Pod: Failed to pull image"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_fails_with_the_last_lines_of_the_container() {
    let place = Place::new("crash").await;
    place
        .workload(
            "Deployment",
            "web",
            "app:crash",
            json!({"peer.test/exit-code": "3"}),
            json!({"replicas": 3}),
        )
        .await;
    let (error, screen) = fails(&place, &[deployment(&place, "web")], "KUBE-041").await;
    assert_eq!(error.class, Class::RemoteFailed { code: 3 });
    assert!(error.what.contains("container app ends with exit code 3"), "{}", error.what);
    assert!(screen.contains("last lines of container app"), "{screen}");
    let expected = std::fs::read_to_string(place.plane.dir().join("pod-logs/crash.log")).unwrap();
    let last = expected.lines().next_back().unwrap().splitn(4, ' ').nth(3).unwrap().to_owned();
    assert!(screen.contains(&last), "{last} in {screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_probe_a_crash_loop_is_not_taken_for_ready() {
    let place = Place::new("flap").await;
    let spec =
        json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "app", "image": "app:crash"}]}}});
    place.workload("Deployment", "web", "app:crash", json!({"peer.test/run-seconds": "1.5"}), spec).await;
    until("the first restart", async || {
        let pods = place.get(&place.path("v1", "pods")).await.unwrap();
        pods["items"][0]["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(0)
    })
    .await;
    fails(&place, &[deployment(&place, "web")], "KUBE-041").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_kills_and_broken_init_containers_are_told_apart() {
    let place = Place::new("oom").await;
    place.workload("Deployment", "fat", "app:oom", json!({}), json!({})).await;
    let (error, _) = fails(&place, &[deployment(&place, "fat")], "KUBE-042").await;
    assert!(error.what.contains("more memory"), "{}", error.what);
    let init = json!({"template": {"spec": {"initContainers": [{"name": "setup", "image": "setup:1"}]}}});
    place.workload("Deployment", "init", "app:1", json!({"peer.test/behaviour": "init-crash"}), init).await;
    let (error, _) = fails(&place, &[deployment(&place, "init")], "KUBE-041").await;
    assert!(error.what.contains("init container setup"), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_larger_than_every_node_fails_soon_where_nothing_brings_nodes() {
    let place = Place::new("large").await;
    let spec = json!({"template": {"spec": {"containers": [{"name": "app", "image": "app:1",
        "resources": {"requests": {"cpu": "64"}}}]}}});
    place.workload("Deployment", "web", "app:1", json!({}), spec).await;
    let (error, _) = fails(&place, &[deployment(&place, "web")], "KUBE-043").await;
    assert!(error.what.contains("Insufficient cpu"), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_pods_fails_with_the_quotas_words() {
    let place = Place::new("quota").await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}});
    place.post(&place.path("v1", "resourcequotas"), quota).await.unwrap();
    until("the quota is counted", async || {
        place.get(&place.path("v1", "resourcequotas/few")).await.unwrap()["status"]["hard"]["pods"] == "1"
    })
    .await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 2})).await;
    let (error, _) = fails(&place, &[deployment(&place, "web")], "KUBE-044").await;
    assert!(error.what.contains("exceeded quota: few"), "{}", error.what);
    place
        .workload("StatefulSet", "db", "app:1", json!({}), json!({"replicas": 2, "serviceName": "db"}))
        .await;
    let (error, _) = fails(&place, &[target(&place, "apps/v1", "StatefulSet", "db")], "KUBE-044").await;
    assert!(error.what.contains("exceeded quota: few"), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exceeded_progress_deadline_fails_and_an_old_one_does_not_spoil_the_cure() {
    let place = Place::new("deadline").await;
    let never = json!({"peer.test/behaviour": "never-ready"});
    place.workload("Deployment", "web", "app:1", never, json!({"progressDeadlineSeconds": 3})).await;
    let (_, screen) = fails(&place, &[deployment(&place, "web")], "KUBE-045").await;
    assert!(screen.contains("runs and is not ready"), "{screen}");
    let cure = json!({"spec": {"progressDeadlineSeconds": 120,
        "template": {"metadata": {"annotations": {"peer.test/behaviour": "ready"}}}}});
    place.patch(&place.path("apps/v1", "deployments/web"), cure).await;
    wait(&place, &world(&place), &[deployment(&place, "web")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gives_up_fails_with_its_pods_last_lines() {
    let place = Place::new("job").await;
    let spec = json!({"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never"}}});
    place.workload("Job", "migrate", "app:job-fail", json!({"peer.test/exit-code": "7"}), spec).await;
    let (error, screen) = fails(&place, &[target(&place, "batch/v1", "Job", "migrate")], "KUBE-046").await;
    assert!(error.what.contains("BackoffLimitExceeded"), "{}", error.what);
    assert!(screen.contains("last lines of container app"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_nodes_throw_out_again_and_again_fail() {
    let place = Place::new("evict").await;
    place
        .workload(
            "Deployment",
            "web",
            "app:evict",
            json!({"peer.test/run-seconds": "0.5"}),
            json!({"minReadySeconds": 30}),
        )
        .await;
    let (error, _) = fails(&place, &[deployment(&place, "web")], "KUBE-047").await;
    assert!(error.what.contains("Evicted"), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_names_but_is_not_there_fails_after_its_patience() {
    let place = Place::new("config").await;
    place.workload("Deployment", "web", "app:config-error", json!({}), json!({})).await;
    place.workload("Deployment", "vol", "app:stuck-creating", json!({}), json!({})).await;
    let limits = Limits { config: Duration::from_secs(2), ..Limits::default() };
    for (name, text) in [("web", "secret \"app-secret\" not found"), ("vol", "-config\" not found")] {
        let world = world(&place);
        let (_handle, cx) = world.context();
        let log = world.logs.unit("u");
        let error =
            steady::wait_with(&place.client, &[deployment(&place, name)], &cx, log.as_ref(), &limits).await;
        let error = error.expect_err("it is not there");
        assert_eq!(error.code, "KUBE-048");
        assert!(error.what.contains(text), "{}", error.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_deleted_meanwhile_fails() {
    let place = Place::new("gone").await;
    let (error, _) = fails(&place, &[deployment(&place, "nobody")], "KUBE-049").await;
    assert!(error.what.contains("it is not there"), "{}", error.what);
    place.workload("Deployment", "web", "app:never-ready", json!({}), json!({})).await;
    let world = world(&place);
    let targets = [deployment(&place, "web")];
    let waiting = wait(&place, &world, &targets);
    let deleting = async {
        until("the wait has begun", async || !world.logs.everything().is_empty()).await;
        place.delete(&place.path("apps/v1", "deployments/web")).await;
    };
    let (error, ()) = tokio::join!(waiting, deleting);
    assert_eq!(error.unwrap_err().code, "KUBE-049");
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_by_conditions_and_by_expression() {
    let place = Place::new("custom").await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.steady.example.com"},
        "spec": {"group": "steady.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    place.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.unwrap();
    let crd =
        target(&place, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "things.steady.example.com");
    wait(&place, &world(&place), &[crd]).await.unwrap();
    let things = place.path("steady.example.com/v1", "things");
    let thing = |name: &str, annotations: Value, status: Value| json!({"apiVersion": "steady.example.com/v1", "kind": "Thing", "metadata": {"name": name, "annotations": annotations}, "status": status});
    let phase = json!({"harness.io/steadyStateCondition": r#"${json.select("$..status.phase", response) == "Running"}"#});
    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Building"}]});
    place.post(&things, thing("by-condition", json!({}), not_ready)).await.unwrap();
    place.post(&things, thing("by-expression", phase, json!({"phase": "Pending"}))).await.unwrap();
    let world_of = world(&place);
    let both = [
        target(&place, "steady.example.com/v1", "Thing", "by-condition"),
        target(&place, "steady.example.com/v1", "Thing", "by-expression"),
    ];
    let controller = async {
        until("both are waited for", async || world_of.logs.everything().contains("by-expression: not yet"))
            .await;
        place.patch(&format!("{things}/by-expression"), json!({"status": {"phase": "Running"}})).await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        place.patch(&format!("{things}/by-condition"), ready).await;
    };
    let (report, ()) = tokio::join!(wait(&place, &world_of, &both), controller);
    report.unwrap_or_else(|e| panic!("{e}\n{}", world_of.logs.everything()));
    let broken = json!({"harness.io/steadyStateCondition": "${json.select("});
    place.post(&things, thing("broken", broken, json!({}))).await.unwrap();
    fails(&place, &[target(&place, "steady.example.com/v1", "Thing", "broken")], "KUBE-052").await;
    let stalled = json!({"conditions": [{"type": "Stalled", "status": "True", "reason": "NoDisk", "message": "none left"}]});
    place.post(&things, thing("stalled", json!({}), stalled)).await.unwrap();
    let (error, _) =
        fails(&place, &[target(&place, "steady.example.com/v1", "Thing", "stalled")], "KUBE-050").await;
    assert!(error.what.contains("NoDisk: none left"), "{}", error.what);
    let (error, _) = refused(&place, target(&place, "nowhere.example.com/v1", "Thing", "x")).await;
    assert_eq!((error.code, error.class), ("KUBE-053", Class::BadSpec), "{error}");
}

async fn refused(place: &Place, target: Target) -> (StepError, String) {
    let world = world(place);
    let error = wait(place, &world, &[target]).await.unwrap_err();
    (error, world.logs.everything())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_deadline_end_the_wait_at_once_and_say_what_is_there() {
    let place = Place::new("cancel").await;
    place.workload("Deployment", "web", "app:never-ready", json!({}), json!({"replicas": 2})).await;
    for reason in [CancelReason::User, CancelReason::Deadline, CancelReason::Drain] {
        let world = world(&place);
        let (handle, cx) = world.context();
        let log = world.logs.unit("u");
        let targets = [deployment(&place, "web")];
        let waiting = steady::wait(&place.client, &targets, &cx, log.as_ref());
        let cancel = async {
            until("the pods are seen", async || {
                let log = world.logs.everything();
                log.contains("Unhealthy Pod/") && log.contains("0 of 2 new pods ready")
            })
            .await;
            handle.cancel(reason, CancelStage::Ask);
            Instant::now()
        };
        let (error, asked) = tokio::join!(waiting, cancel);
        // Far below any deadline of the step; a loaded machine takes its time.
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        let error = error.unwrap_err();
        assert_eq!((error.class, error.code), (Class::Cancelled { reason }, "KUBE-054"));
        assert!(error.what.contains("0 of 2 new pods ready"), "{}", error.what);
        let told = world.logs.everything().contains("runs and is not ready");
        assert_eq!(told, reason.ends_the_target(), "{}", world.logs.everything());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_the_error_says_so_and_without_events_it_goes_on() {
    let place = Place::new("rights").await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({})).await;
    let viewer =
        Place { client: client(&place.plane.viewer()).await, plane: place.plane, namespace: "rights".into() };
    let (error, _) = refused(&viewer, deployment(&place, "web")).await;
    assert_eq!((error.class, error.code), (Class::Authorization, "KUBE-053"), "{error}");
    assert!(error.what.contains("viewer"), "{}", error.what);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "deployments"},
        "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "watch"]}]});
    place.post(&place.path("rbac.authorization.k8s.io/v1", "roles"), role).await.unwrap();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "viewer"},
        "subjects": [{"kind": "User", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "deployments", "apiGroup": "rbac.authorization.k8s.io"}});
    place.post(&place.path("rbac.authorization.k8s.io/v1", "rolebindings"), binding).await.unwrap();
    until("the role acts", async || viewer.get(&viewer.path("apps/v1", "deployments")).await.is_some()).await;
    let world = world(&viewer);
    wait(&viewer, &world, &[deployment(&place, "web")]).await.unwrap();
}

/// The requests that are ours to decide: beside them an API server that is short of CPU ends watches (its own queue for each
/// is short), and taking one up again costs a request. That stays far below one for each pod.
fn asked(report: &Report) -> u64 {
    assert!(report.resumed < 50, "{} watches resumed", report.resumed);
    report.requests - report.resumed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_many_pods_takes_as_many_requests_as_one_of_few() {
    let place = Place::new("many").await;
    let (mut requests, mut logs) = (Vec::new(), Vec::new());
    for (name, replicas) in [("few", 2), ("many", 200)] {
        place.workload("Deployment", name, "app:1", json!({}), json!({"replicas": replicas})).await;
        let world = world(&place);
        let report = wait(&place, &world, &[deployment(&place, name)]).await.unwrap();
        assert_eq!(report.targets[0].pods.len(), replicas);
        requests.push(asked(&report));
        logs.push(world.logs.everything());
    }
    assert!(requests[1] <= requests[0] + 2, "{requests:?}\n{}", logs[1]);
    assert!(requests[1] <= 10, "{requests:?}\n{}", logs[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_dies_and_comes_back_does_not_end_the_wait() {
    let plane: &'static ControlPlane = Box::leak(Box::new(
        tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1", "--audit"])).await.unwrap(),
    ));
    let place = Place::on(plane, "restart").await;
    let slow = json!({"peer.test/behaviour": "slow", "peer.test/ready-seconds": "8"});
    place.workload("Deployment", "web", "app:1", slow, json!({"replicas": 3})).await;
    let world = world(&place);
    let targets = [deployment(&place, "web")];
    let crash = async {
        until("the pods are seen", async || world.logs.everything().contains("0 of 3 new pods ready")).await;
        // History goes on beside what is watched, so that the new server's memory begins after our versions: watches
        // get 410 and list again.
        for name in 0..5 {
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{name}")}});
            place.post(&place.path("v1", "configmaps"), object).await.unwrap();
        }
        tokio::task::spawn_blocking(|| {
            plane.kill(Component::ApiServer);
            plane.start_again(Component::ApiServer);
        })
        .await
        .unwrap();
    };
    let (report, ()) = tokio::join!(wait(&place, &world, &targets), crash);
    let log = world.logs.everything();
    report.unwrap_or_else(|e| panic!("{e}\n{log}"));
    println!("{log}");
    assert!(log.contains("in trouble") && log.contains("answers again"), "{log}");
    assert_eq!(log.matches("in trouble").count(), 1, "{log}");
    let audit = std::fs::read_to_string(plane.dir().join("logs/audit.log")).unwrap();
    let of_pods =
        |line: &&str| line.contains("namespaces/restart/pods?") && line.contains("labelSelector=app%3Dweb");
    let lists = audit.lines().filter(of_pods).filter(|line| line.contains("\"verb\":\"list\"")).count();
    // One more after 410, which a server gives when its memory begins later than what was asked for.
    assert!((1..=2).contains(&lists), "{lists} lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_asks_to_slow_down_gets_what_it_asks_for() {
    let plane: &'static ControlPlane = Box::leak(Box::new(
        tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1", "--audit"])).await.unwrap(),
    ));
    let place = Place::on(plane, "limit").await;
    let rbac = "rbac.authorization.k8s.io";
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "viewer"},
        "subjects": [{"kind": "User", "name": "viewer", "apiGroup": rbac}],
        "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": rbac}});
    place.post(&place.path(&format!("{rbac}/v1"), "rolebindings"), binding).await.unwrap();
    let viewer = Place { client: client(&plane.viewer()).await, plane, namespace: "limit".into() };
    until("the role acts", async || viewer.get(&viewer.path("v1", "pods")).await.is_some()).await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({})).await;
    // A webhook that never answers holds what it is asked about for twelve seconds.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("https://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "silent"}, "webhooks": [{"name": "silent.example.com", "clientConfig": {"url": url},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "limit"}},
            "timeoutSeconds": 12, "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": ["v1"]}]});
    place
        .post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", webhook)
        .await
        .unwrap();
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let (path, mut name) = (place.path("v1", "configmaps"), 0);
    // Controllers of the cluster make one of their own, which must not be taken for ours below.
    until("the root certificates", async || {
        place.get(&place.path("v1", "configmaps/kube-root-ca.crt")).await.is_some()
    })
    .await;
    until("the webhook acts", async || {
        name += 1;
        let made = place.post(&path, object(&format!("c{name}")));
        let slow = tokio::time::timeout(Duration::from_secs(3), made).await.is_err();
        slow && silent.accept().is_ok()
    })
    .await;
    // One request at a time for this user, and none waits for another.
    let flow = "flowcontrol.apiserver.k8s.io/v1";
    let level = json!({"apiVersion": flow, "kind": "PriorityLevelConfiguration", "metadata": {"name": "narrow"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0,
            "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    place.post(&format!("/apis/{flow}/prioritylevelconfigurations"), level).await.unwrap();
    let schema = json!({"apiVersion": flow, "kind": "FlowSchema", "metadata": {"name": "narrow"},
        "spec": {"priorityLevelConfiguration": {"name": "narrow"}, "matchingPrecedence": 2,
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "viewer"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    let schema = place.post(&format!("/apis/{flow}/flowschemas"), schema).await.unwrap();
    let secrets = viewer.path("v1", "secrets");
    until("the schema acts", async || {
        let asked = http::Request::get(&secrets).body(kube::client::Body::empty()).unwrap();
        let answer = viewer.client.send(asked).await.unwrap();
        let by = answer.headers().get("x-kubernetes-pf-flowschema-uid").map(|uid| uid.to_str().unwrap());
        by == schema["metadata"]["uid"].as_str()
    })
    .await;
    // The webhook's own connection tells that the seat is taken: a request that asked for the seat could get it first, and
    // refusals make the server ask for longer and longer pauses. What the calls above left behind goes first.
    let mut calls = Vec::new();
    calls.extend(std::iter::from_fn(|| silent.accept().ok()));
    let before = calls.len();
    let held = object("held");
    let holder = until(
        "the seat is free to be taken",
        async || !matches!(viewer.post(&path, held.clone()).await, Err(kube::Error::Api(no)) if no.code == 429),
    );
    let world = world(&viewer);
    let waiting = async {
        until("the seat is taken", async || {
            calls.extend(silent.accept().ok());
            calls.len() > before
        })
        .await;
        wait(&viewer, &world, &[deployment(&viewer, "web")]).await
    };
    let (_made, report) = tokio::join!(holder, waiting);
    let log = world.logs.everything();
    let report = report.unwrap_or_else(|e| panic!("{e}\n{log}"));
    assert!(log.contains("it asks to wait 1 s (429)"), "{log}");
    // As often as it was asked for, and not in a loop.
    assert!(report.requests < 40, "{} requests\n{log}", report.requests);
    drop((silent, calls));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_ready_is_noticed_at_once() {
    let place = Place::new("noticed").await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.noticed.example.com"},
        "spec": {"group": "noticed.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    place.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.unwrap();
    let crd =
        target(&place, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "things.noticed.example.com");
    wait(&place, &world(&place), &[crd]).await.unwrap();
    let things = place.path("noticed.example.com/v1", "things");
    let mut took = Vec::new();
    for round in 0..40 {
        let name = format!("t{round}");
        let status = |ready: &str| json!({"conditions": [{"type": "Ready", "status": ready, "reason": "R"}]});
        let thing = json!({"apiVersion": "noticed.example.com/v1", "kind": "Thing", "metadata": {"name": name},
            "status": status("False")});
        place.post(&things, thing).await.unwrap();
        let world = world(&place);
        let targets = [target(&place, "noticed.example.com/v1", "Thing", &name)];
        let waiting = async {
            wait(&place, &world, &targets).await.unwrap();
            Instant::now()
        };
        let making = async {
            until("it is waited for", async || !world.logs.everything().is_empty()).await;
            let asked = Instant::now();
            place.patch(&format!("{things}/{name}"), json!({"status": status("True")})).await;
            asked
        };
        let (noticed, asked) = tokio::join!(waiting, making);
        took.push(noticed.saturating_duration_since(asked));
    }
    took.sort();
    println!("ready -> noticed: median {:?}, 90th {:?}, worst {:?}", took[20], took[35], took[39]);
    // The patch itself is in it. The worst of forty on a loaded machine says more about the machine.
    // A poll would take its pause in half of the rounds; `make bench` holds the bar of 250 ms.
    assert!(took[20] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_policy_that_refuses_pods_fails_with_its_words() {
    let place = Place::new("policy").await;
    let api = "admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-pods"},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
            "validations": [{"expression": "false", "message": "pods need the label team"}]}});
    place.post(&format!("/apis/{api}/validatingadmissionpolicies"), policy).await.unwrap();
    let binding = json!({"apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "no-pods"},
        "spec": {"policyName": "no-pods", "validationActions": ["Deny"], "matchResources": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "policy"}}}}});
    place.post(&format!("/apis/{api}/validatingadmissionpolicybindings"), binding).await.unwrap();
    until("the policy acts", async || {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "try-"},
            "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
        place.post(&format!("{}?dryRun=All", place.path("v1", "pods")), pod).await.is_err()
    })
    .await;
    place.workload("DaemonSet", "log", "app:1", json!({}), json!({})).await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({})).await;
    for wanted in [deployment(&place, "web"), target(&place, "apps/v1", "DaemonSet", "log")] {
        let (error, screen) = fails(&place, &[wanted], "KUBE-044").await;
        assert!(error.what.contains("pods need the label team"), "{}", error.what);
        assert!(screen.contains("FailedCreate"), "{screen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workloads_share_their_watches_and_one_that_fails_is_named() {
    let place = Place::new("share").await;
    let names: Vec<String> = (0..12).map(|n| format!("web{n}")).collect();
    for name in &names {
        place.workload("Deployment", name, "app:1", json!({}), json!({"replicas": 2})).await;
    }
    let mut targets: Vec<Target> = names.iter().map(|name| deployment(&place, name)).collect();
    let report = wait(&place, &world(&place), &targets).await.unwrap();
    assert!(report.targets.iter().all(|target| target.pods.len() == 2), "{report:?}");
    // Lists and watches of Deployments, ReplicaSets, pods and events, whatever the number of workloads.
    assert!(asked(&report) <= 10, "{} requests, {} of them resumed", report.requests, report.resumed);
    place.workload("Deployment", "broken", "app:image-pull", json!({}), json!({})).await;
    targets.push(deployment(&place, "broken"));
    let (error, _) = fails(&place, &targets, "KUBE-040").await;
    assert_eq!(error.target.as_deref(), Some("share/Deployment/broken"));
}
