//! Blue and green: which colour is deployed, how production moves and comes back.

use crate::peer::{Place, until};
use crate::{absent, executor, fails, live, ok, output, plan, snapshot, step, web, world};
use executor_api::testing::{CrashAt, Marks};
use executor_api::{CancelHandle, CancelReason, CancelStage, Class, Executor, TransportProbe};
use executor_kube::{KubeExecutor, Settings};
use futures::future::BoxFuture;
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn deploy() -> KubernetesAction {
    KubernetesAction::K8sBlueGreenDeploy {
        skip_dry_run: false,
        pruning_enabled: false,
        skip_unchanged: false,
        check_only: false,
        traffic_routing: None,
    }
}

pub fn swap(target: Option<&str>) -> KubernetesAction {
    KubernetesAction::K8sBGSwapServices {
        primary_service: "web".into(),
        stage_service: "web-stage".into(),
        target_color: target.map(str::to_owned),
    }
}

fn colour(place: &Place, image: &str) -> KubernetesSpec {
    step(place, "rel", &web("web", image, 2), deploy())
}

async fn selected(place: &Place) -> (Value, Value) {
    let of = async |name: &str| {
        live(place, "v1", &format!("services/{name}")).await["spec"]["selector"]["harness.io/color"].clone()
    };
    (of("web").await, of("web-stage").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_take_turns_and_production_comes_back() {
    let place = Place::new("bg-turns").await;
    let first = ok(&place, "d1", &colour(&place, "app:1")).await;
    assert_eq!(output(&first, "stageColor"), "blue");
    assert_eq!(output(&first, "primaryColor"), "green");
    assert_eq!(output(&first, "primaryServiceName"), "web");
    assert_eq!(output(&first, "stageServiceName"), "web-stage");
    assert_eq!(output(&first, "stageDeploymentSkipped"), false);
    assert_eq!(output(&first, "podIps").as_array().unwrap().len(), 2);
    assert_eq!(selected(&place).await, (json!("green"), json!("blue")));
    let text = plan(&place, "p", &step(&place, "rel", "", swap(Some("blue")))).await;
    assert!(
        text.contains("change bg-turns/Service/web\n") && text.contains("+     harness.io/color: blue"),
        "{text}"
    );
    let swapped = ok(&place, "s1", &step(&place, "rel", "", swap(Some("blue")))).await;
    assert_eq!(output(&swapped, "primaryColor"), "blue");
    assert_eq!(swapped.undo.as_ref().unwrap()["primaryColor"], "green");
    assert_eq!(selected(&place).await, (json!("blue"), json!("green")));
    // The second deployment finds blue in production by itself.
    let second = ok(&place, "d2", &colour(&place, "app:2")).await;
    assert_eq!(output(&second, "stageColor"), "green");
    assert_eq!(selected(&place).await, (json!("blue"), json!("green")), "production is as it was");
    let blue = live(&place, "apps/v1", "deployments/web-blue").await;
    assert_eq!(blue["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
    assert_eq!(blue["metadata"]["generation"], 1);
    ok(&place, "s2", &step(&place, "rel", "", swap(Some("green")))).await;
    let environments = async || {
        let list = place
            .get(&place.path("v1", "secrets?labelSelector=owner%3Dharness,release%3Drel"))
            .await
            .unwrap();
        let labels = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["labels"].clone());
        let of = |l: Value| {
            format!("{} {}", l["color"].as_str().unwrap(), l["harness.io/bg-environment"].as_str().unwrap())
        };
        labels.map(of).collect::<Vec<String>>()
    };
    assert_eq!(environments().await, ["blue stage", "green primary"]);
    // Repeated: nothing; back: the other way.
    ok(&place, "s3", &step(&place, "rel", "", swap(Some("green")))).await;
    assert_eq!(selected(&place).await, (json!("green"), json!("blue")));
    ok(&place, "s4", &step(&place, "rel", "", swap(Some("blue")))).await;
    assert_eq!(selected(&place).await, (json!("blue"), json!("green")));
    assert_eq!(environments().await, ["blue primary", "green stage"]);
    // Green gives its pods back; blue is never touched.
    let down = KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: false };
    let text = plan(&place, "p2", &step(&place, "rel", "", down.clone())).await;
    assert!(text.contains("web-green") && !text.contains("web-blue"), "{text}");
    let scaled = ok(&place, "x1", &step(&place, "rel", "", down)).await;
    assert_eq!(output(&scaled, "stageColor"), "green");
    assert_eq!(live(&place, "apps/v1", "deployments/web-green").await["spec"]["replicas"], 0);
    assert_eq!(live(&place, "apps/v1", "deployments/web-blue").await["spec"]["replicas"], 2);
    // A deployment after that brings the pods up again, although another request of ours owned their number.
    let third = ok(&place, "d3", &colour(&place, "app:3")).await;
    assert_eq!(output(&third, "stageColor"), "green");
    assert_eq!(live(&place, "apps/v1", "deployments/web-green").await["status"]["readyReplicas"], 2);
    let delete = KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: true };
    ok(&place, "x2", &step(&place, "rel", "", delete)).await;
    assert!(absent(&place, "apps/v1", "deployments/web-green").await);
    assert!(absent(&place, "v1", "configmaps/web-conf-green").await);
    assert!(!absent(&place, "v1", "configmaps/web-conf-blue").await);
    assert!(!absent(&place, "v1", "services/web-stage").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_manifest_is_not_deployed_again() {
    let place = Place::new("bg-unchanged").await;
    ok(&place, "d1", &colour(&place, "app:1")).await;
    ok(&place, "s1", &step(&place, "rel", "", swap(Some("blue")))).await;
    let mut spec = colour(&place, "app:1");
    if let KubernetesAction::K8sBlueGreenDeploy { skip_unchanged, .. } = &mut spec.action {
        *skip_unchanged = true;
    }
    let before = snapshot(&place).await;
    let output_ = ok(&place, "d2", &spec).await;
    assert_eq!(output(&output_, "stageDeploymentSkipped"), true);
    assert_eq!(snapshot(&place).await, before);
    spec.manifest = crate::inline(web("web", "app:2", 2));
    assert_eq!(output(&ok(&place, "d3", &spec).await, "stageDeploymentSkipped"), false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_changes_nothing() {
    let place = Place::new("bg-check").await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 2})).await;
    let mut spec = colour(&place, "app:1");
    if let KubernetesAction::K8sBlueGreenDeploy { check_only, .. } = &mut spec.action {
        *check_only = true;
    }
    let before = snapshot(&place).await;
    let (world, result) = crate::run(&place, "t", &spec).await;
    let found = result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert_eq!(output(&found, "podIps").as_array().unwrap().len(), 2);
    assert_eq!(output(&found, "stageDeploymentSkipped"), true);
    assert_eq!(world.marks.calls(), Vec::<String>::new());
    assert_eq!(snapshot(&place).await, before);
    assert_eq!(plan(&place, "p", &spec).await, "nothing changes\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_colour_is_not_taken_over() {
    let place = Place::new("bg-colourless").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    place.post(&place.path("v1", "services"), service).await.unwrap();
    let before = snapshot(&place).await;
    let text = fails(&place, "t", &colour(&place, "app:1"), "KUBE-082").await;
    assert!(text.contains("bg-colourless/Service/web") && text.contains("app=web"), "{text}");
    assert_eq!(snapshot(&place).await, before);
    let text = fails(&place, "s", &step(&place, "rel", "", swap(Some("blue"))), "KUBE-083").await;
    assert!(text.contains("bg-colourless/Service/web-stage"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_colour_says_that_production_is_as_it_was() {
    let place = Place::new("bg-abort").await;
    let spec = colour(&place, "app:never-ready");
    let world = world(&place, "t", &spec);
    let (handle, cx) = world.context();
    let executor = executor(&world);
    let abort = async {
        until("the colour", async || !absent(&place, "apps/v1", "deployments/web-blue").await).await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
    };
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), abort);
    let error = result.unwrap_err();
    assert!(
        error.what.contains("bg-abort/Deployment/web-blue") && error.what.contains("still selects green"),
        "{error}"
    );
}

/// Aborts the step once a call was answered.
struct AbortAfter {
    marks: Marks,
    call: String,
    handle: CancelHandle,
}

impl TransportProbe for AbortAfter {
    fn before<'a>(&'a self, task: &'a str, call: &'a str) -> BoxFuture<'a, ()> {
        self.marks.before(task, call)
    }

    fn after<'a>(&'a self, task: &'a str, call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.marks.after(task, call).await;
            if call == self.call {
                self.handle.cancel(CancelReason::User, CancelStage::Ask);
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_in_the_middle_of_the_apply_names_the_colour_that_is_there_already() {
    let place = Place::new("bg-middle").await;
    let ingress = "\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec: {defaultBackend: {service: {name: web, port: {number: 80}}}}\n";
    let spec = step(&place, "rel", &(web("web", "app:1", 2) + ingress), deploy());
    let world = world(&place, "t", &spec);
    let (handle, cx) = world.context();
    let call = "apply bg-middle/Deployment/web-blue".to_owned();
    let probe = AbortAfter { marks: world.marks.clone(), call, handle };
    let executor = KubeExecutor::new(Settings::default()).with_probe(Arc::new(probe));
    let error = executor.run(&spec, &cx).await.unwrap_err();
    assert_eq!(
        (error.code, error.class),
        ("KUBE-028", Class::Cancelled { reason: CancelReason::User }),
        "{error}"
    );
    assert!(
        error.what.contains("bg-middle/Deployment/web-blue") && error.what.contains("still selects green"),
        "{error}"
    );
    assert!(absent(&place, "networking.k8s.io/v1", "ingresses/web").await);
}

/// Ready pods that a Service for `app: web` selects as green.
pub async fn green_pods(place: &Place) {
    let labels = json!({"app": "web", "harness.io/color": "green"});
    let spec =
        json!({"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": labels}}});
    place.workload("Deployment", "pods", "app:1", json!({}), spec).await;
    until("the pods", async || {
        live(place, "apps/v1", "deployments/pods").await["status"]["readyReplicas"] == 1
    })
    .await;
}

/// Makes both Services by hand, so that a swap can be looked at alone.
pub async fn services(place: &Place, primary: &str, stage: &str) {
    for (name, color) in [(primary, "blue"), (stage, "green")] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": "web", "harness.io/color": color}, "ports": [{"port": 80}]}});
        place.post(&place.path("v1", "services"), service).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_dies_between_the_two_services_is_completed() {
    let place = Place::new("bg-between").await;
    services(&place, "web", "web-stage").await;
    green_pods(&place).await;
    // No colour is named: a second life must not take the half-done swap for the state before.
    let spec = step(&place, "rel", "", swap(None));
    let world = world(&place, "t", &spec);
    world.marks.crash_at(CrashAt::AfterCall(1));
    {
        let (_handle, cx) = world.context();
        let executor = executor(&world);
        tokio::select! {
            _ = executor.run(&spec, &cx) => panic!("it was to die"),
            () = world.marks.crashed() => {}
        }
    }
    assert_eq!(selected(&place).await, (json!("green"), json!("green")));
    world.restart();
    let (_handle, cx) = world.context();
    let output = executor(&world).run(&spec, &cx).await.unwrap();
    assert_eq!(selected(&place).await, (json!("green"), json!("blue")));
    assert_eq!(output.undo.unwrap()["primaryColor"], "blue");
}

#[tokio::test(flavor = "multi_thread")]
async fn production_does_not_go_where_no_pod_is_ready() {
    let place = Place::new("bg-empty").await;
    services(&place, "web", "web-stage").await;
    let before = snapshot(&place).await;
    let text = fails(&place, "s1", &step(&place, "rel", "", swap(Some("green"))), "KUBE-087").await;
    assert!(text.contains("app=web,harness.io/color=green"), "{text}");
    assert_eq!(snapshot(&place).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_colour_that_was_scaled_down_wakes_up_although_the_manifest_names_no_number() {
    let place = Place::new("bg-wake").await;
    let manifest = |image: &str| web("web", image, 2).replace("  replicas: 2\n", "");
    let of = |image: &str| step(&place, "rel", &manifest(image), deploy());
    ok(&place, "d1", &of("app:1")).await;
    ok(&place, "s1", &step(&place, "rel", "", swap(Some("blue")))).await;
    ok(&place, "d2", &of("app:2")).await;
    place.patch(&place.path("apps/v1", "deployments/web-blue"), json!({"spec": {"replicas": 3}})).await;
    let down = KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: false };
    ok(&place, "x", &step(&place, "rel", "", down)).await;
    assert_eq!(live(&place, "apps/v1", "deployments/web-green").await["spec"]["replicas"], 0);
    ok(&place, "d3", &of("app:3")).await;
    let green = live(&place, "apps/v1", "deployments/web-green").await;
    assert_eq!(green["spec"]["replicas"], 3, "as many as production");
    assert_eq!(green["status"]["readyReplicas"], 3, "{green}");
}

/// Changes a Service in between, as somebody else would.
struct Meddler {
    place: Arc<Place>,
    left: AtomicUsize,
    change: Value,
}

impl TransportProbe for Meddler {
    fn before<'a>(&'a self, _task: &'a str, call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let more = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if call.starts_with("select") && more.is_ok() {
                let mut change = self.change.clone();
                change["metadata"]["annotations"] = json!({"meddled": format!("{more:?}")});
                self.place.patch(&self.place.path("v1", "services/web"), change).await;
            }
        })
    }
    fn after<'a>(&'a self, _task: &'a str, _call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

async fn meddled(
    name: &str,
    times: usize,
    change: Value,
) -> (Arc<Place>, Result<executor_api::StepOutput, executor_api::StepError>) {
    let place = Arc::new(Place::new(name).await);
    services(&place, "web", "web-stage").await;
    green_pods(&place).await;
    let spec = step(&place, "rel", "", swap(Some("green")));
    let world = world(&place, "t", &spec);
    let (_handle, cx) = world.context();
    let probe = Meddler { place: place.clone(), left: AtomicUsize::new(times), change };
    let executor =
        executor_kube::KubeExecutor::new(executor_kube::Settings::default()).with_probe(Arc::new(probe));
    let result = executor.run(&spec, &cx).await;
    (place, result)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_changes_at_the_same_time_is_read_again() {
    let (place, result) = meddled("bg-meddled", 2, json!({})).await;
    assert_eq!(output(&result.unwrap(), "primaryColor"), "green");
    assert_eq!(selected(&place).await, (json!("green"), json!("blue")));
    assert!(
        live(&place, "v1", "services/web").await["metadata"]["annotations"]["meddled"].is_string(),
        "their change is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_rests_and_one_that_loses_its_colour_are_not_forced() {
    let (place, result) = meddled("bg-restless", 1000, json!({})).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "KUBE-084", "{error}");
    assert_eq!(selected(&place).await, (json!("blue"), json!("green")));
    let (place, result) =
        meddled("bg-lost", 1, json!({"spec": {"selector": {"harness.io/color": null}}})).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "KUBE-082", "{error}");
    assert_eq!(selected(&place).await, (Value::Null, json!("green")));
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_go_with_their_colour_and_an_autoscaler_keeps_its_number() {
    let place = Place::new("bg-guards").await;
    let guards = "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\n\
        spec: {minReplicas: 1, maxReplicas: 5, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n\
        ---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\n\
        spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n";
    let of = |image: &str| step(&place, "rel", &format!("{}{guards}", web("web", image, 2)), deploy());
    ok(&place, "d1", &of("app:1")).await;
    let scaler = live(&place, "autoscaling/v2", "horizontalpodautoscalers/web-blue").await;
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], "web-blue");
    let budget = live(&place, "policy/v1", "poddisruptionbudgets/web-blue").await;
    assert_eq!(budget["spec"]["selector"]["matchLabels"]["harness.io/color"], "blue");
    // The autoscaler, or a person, has set another number since.
    place.patch(&place.path("apps/v1", "deployments/web-blue"), json!({"spec": {"replicas": 4}})).await;
    ok(&place, "d2", &of("app:2")).await;
    assert_eq!(live(&place, "apps/v1", "deployments/web-blue").await["spec"]["replicas"], 4);
    ok(&place, "s1", &step(&place, "rel", "", swap(Some("blue")))).await;
    ok(&place, "d3", &of("app:3")).await;
    let down = KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: false };
    ok(&place, "x", &step(&place, "rel", "", down)).await;
    assert!(absent(&place, "autoscaling/v2", "horizontalpodautoscalers/web-green").await);
    assert!(absent(&place, "policy/v1", "poddisruptionbudgets/web-green").await);
    assert!(!absent(&place, "autoscaling/v2", "horizontalpodautoscalers/web-blue").await);
    // Scaled down by us: the manifest's number wakes it.
    ok(&place, "d4", &of("app:4")).await;
    assert_eq!(live(&place, "apps/v1", "deployments/web-green").await["status"]["readyReplicas"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_takes_what_only_this_colour_had() {
    let place = Place::new("bg-prune").await;
    let more = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: b}\n";
    let of = |image: &str, more: &str| {
        let mut action = deploy();
        if let KubernetesAction::K8sBlueGreenDeploy { pruning_enabled, .. } = &mut action {
            *pruning_enabled = true;
        }
        step(&place, "rel", &format!("{}{more}", web("web", image, 1)), action)
    };
    ok(&place, "d1", &of("app:1", more)).await;
    ok(&place, "s1", &step(&place, "rel", "", swap(Some("blue")))).await;
    ok(&place, "d2", &of("app:2", more)).await;
    assert!(!absent(&place, "v1", "configmaps/more-green").await);
    let third = ok(&place, "d3", &of("app:3", "")).await;
    assert_eq!(output(&third, "prunedResourceIds")[0]["name"], "more-green");
    assert!(absent(&place, "v1", "configmaps/more-green").await);
    assert!(!absent(&place, "v1", "configmaps/more-blue").await, "production keeps what it has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_colour_whose_manifest_names_another_namespace_is_swapped_there() {
    let (home, place) = (Place::new("bg-home").await, Place::new("bg-away").await);
    let manifest =
        web("web", "app:1", 1).replace("metadata: {name: web", "metadata: {namespace: bg-away, name: web");
    ok(&home, "d1", &step(&home, "rel", &manifest, deploy())).await;
    assert_eq!(selected(&place).await, (json!("green"), json!("blue")));
    ok(&home, "s1", &step(&home, "rel", "", swap(Some("blue")))).await;
    assert_eq!(selected(&place).await, (json!("blue"), json!("green")));
    let second = ok(&home, "d2", &step(&home, "rel", &manifest.replace("app:1", "app:2"), deploy())).await;
    assert_eq!(output(&second, "stageColor"), "green", "the live Service is read where it lies");
    let down = KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: false };
    ok(&home, "x1", &step(&home, "rel", "", down)).await;
    assert_eq!(live(&place, "apps/v1", "deployments/web-green").await["spec"]["replicas"], 0);
}
