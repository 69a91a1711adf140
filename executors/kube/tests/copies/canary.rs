//! The canary: how many pods, what it leaves alone, how it goes.

use crate::peer::{Place, until};
use crate::{
    absent, executor, fails, live, ok, ok_in, ok_undoing, output, plan, run, snapshot, step, web, world,
};
use executor_api::{CancelReason, CancelStage, Class, Executor};
use proto::task::{Instances, KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};

pub fn deploy(instances: Instances) -> KubernetesAction {
    KubernetesAction::K8sCanaryDeploy { instances, skip_dry_run: false, traffic_routing: None }
}

pub fn delete(workloads: &[&str]) -> KubernetesAction {
    KubernetesAction::K8sCanaryDelete { workloads: workloads.iter().map(|w| (*w).to_owned()).collect() }
}

fn count(place: &Place, image: &str, pods: u32) -> KubernetesSpec {
    step(place, "rel", &web("web", image, 4), deploy(Instances::Count(pods)))
}

async fn stable(place: &Place) {
    let spec = json!({"replicas": 4, "template": {"metadata": {"labels": {"app": "web"}}}});
    place.workload("Deployment", "web", "app:1", json!({}), spec).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 81}]}});
    place.post(&place.path("v1", "services"), service).await.unwrap();
    until("the stable pods", async || {
        live(place, "apps/v1", "deployments/web").await["status"]["readyReplicas"] == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_beside_stable_pods_is_rescaled_by_later_steps_and_deleted() {
    let place = Place::new("canary-rescale").await;
    stable(&place).await;
    let before = (live(&place, "apps/v1", "deployments/web").await, live(&place, "v1", "services/web").await);
    let first = ok(&place, "t1", &count(&place, "app:2", 1)).await;
    assert_eq!(output(&first, "targetInstances"), 1);
    assert_eq!(output(&first, "canaryWorkloadDeployed"), true);
    assert_eq!(output(&first, "releaseName"), "rel");
    assert_eq!(output(&first, "podIps").as_array().unwrap().len(), 1);
    let named = "canary-rescale/ConfigMap/web-conf-canary,canary-rescale/Secret/web-pw-canary,canary-rescale/Deployment/web-canary";
    assert_eq!(output(&first, "canaryWorkload"), named);
    assert_eq!(first.undo.as_ref().unwrap()["canaryWorkload"], named);
    let canary = live(&place, "apps/v1", "deployments/web-canary").await;
    assert_eq!(canary["spec"]["replicas"], 1);
    let labels = &canary["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        *labels,
        json!({"app": "web", "harness.io/track": "canary", "harness.io/release-name": "rel"})
    );
    assert_eq!(
        canary["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"],
        "web-conf-canary"
    );
    // A later step of the same stage: the same release, the same copy, other pods.
    let half = step(&place, "rel", &web("web", "app:2", 4), deploy(Instances::Percentage(50)));
    let second = ok(&place, "t2", &half).await;
    assert_eq!(output(&second, "targetInstances"), 2);
    assert_eq!(output(&second, "releaseNumber"), output(&first, "releaseNumber"));
    let rescaled = live(&place, "apps/v1", "deployments/web-canary").await;
    assert_eq!(rescaled["metadata"]["uid"], canary["metadata"]["uid"]);
    assert_eq!(rescaled["spec"]["replicas"], 2);
    assert_eq!(rescaled["metadata"]["generation"], 2, "only the number of pods changed");
    // Stable pods and their Service are untouched, although the manifest wants another port.
    assert_eq!(
        live(&place, "apps/v1", "deployments/web").await["metadata"]["generation"],
        before.0["metadata"]["generation"]
    );
    assert_eq!(
        live(&place, "v1", "services/web").await["metadata"]["resourceVersion"],
        before.1["metadata"]["resourceVersion"]
    );
    // The Service selects canary pods too: 2 of 6 endpoints.
    until("endpoints of stable and canary", async || endpoints(&place, "web").await == 6).await;

    let listed = output(&second, "canaryWorkload");
    let gone = step(&place, "rel", "", delete(&[listed.as_str().unwrap()]));
    let text = plan(&place, "p", &gone).await;
    assert!(text.contains("delete canary-rescale/Deployment/web-canary"), "{text}");
    let output = ok(&place, "t3", &gone).await;
    assert!(!output.skipped);
    for rest in
        ["apps/v1 deployments/web-canary", "v1 configmaps/web-conf-canary", "v1 secrets/web-pw-canary"]
    {
        let (group, rest) = rest.split_once(' ').unwrap();
        assert!(absent(&place, group, rest).await, "{rest}");
    }
    until("endpoints of stable alone", async || endpoints(&place, "web").await == 4).await;
    assert!(ok(&place, "t4", &gone).await.skipped, "nothing is left to delete");
}

async fn endpoints(place: &Place, service: &str) -> usize {
    let query = format!("endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}");
    let list = place.get(&place.path("discovery.k8s.io/v1", &query)).await.unwrap();
    let slices = list["items"].as_array().unwrap().iter();
    let ready = |e: &&Value| e["conditions"]["ready"] == true;
    slices
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .filter(|e| ready(&e))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_the_canary_and_hides_its_secret() {
    let place = Place::new("canary-plan").await;
    let before = snapshot(&place).await;
    let text = plan(&place, "p", &count(&place, "app:2", 3)).await;
    assert!(text.contains("create canary-plan/Deployment/web-canary"), "{text}");
    assert!(text.contains("replicas: 3"), "{text}");
    assert!(text.contains("create canary-plan/Service/web"), "{text}");
    assert!(!text.contains("pl4nted") && !text.contains("cGw0bnRlZC1zM2NyZXQtdmFsdWU="), "{text}");
    assert_eq!(snapshot(&place).await, before);
    assert_eq!(
        plan(&place, "p", &count(&place, "app:2", 3)).await,
        text,
        "the same input gives the same text"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_canary_says_what_it_left_and_is_found_without_an_outcome() {
    let place = Place::new("canary-abort").await;
    let spec = count(&place, "app:never-ready", 1);
    let world = world(&place, "t1", &spec);
    let (handle, cx) = world.context();
    let executor = executor(&world);
    let abort = async {
        until("the canary", async || !absent(&place, "apps/v1", "deployments/web-canary").await).await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
    };
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), abort);
    let error = result.unwrap_err();
    assert!(matches!(error.class, Class::Cancelled { reason: CancelReason::User }), "{error:?}");
    assert!(error.what.contains("canary-abort/Deployment/web-canary"), "{error}");
    assert!(error.what.contains("K8sCanaryDelete"), "{error}");
    let undo = world.marks_undo();
    assert_eq!(undo["canaryWorkloadDeployed"], true);
    // Neither outcome nor undo data: the labels of the release are enough.
    let output = ok(&place, "t2", &step(&place, "rel", "", delete(&[]))).await;
    assert!(!output.skipped);
    assert!(absent(&place, "apps/v1", "deployments/web-canary").await);
    assert!(absent(&place, "v1", "secrets/web-pw-canary").await);
    // What the canary did not own stays.
    assert!(!absent(&place, "v1", "services/web").await);
}

trait Undo {
    fn marks_undo(&self) -> Value;
}

impl Undo for executor_api::testing::World {
    fn marks_undo(&self) -> Value {
        use executor_api::Checkpoints as _;
        self.marks.history().iter().rev().find_map(|c| c.undo.clone()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_cannot_start_fails_and_says_that_it_was_deployed() {
    let place = Place::new("canary-broken").await;
    let spec = count(&place, "app:image-pull", 1);
    let (world, result) = run(&place, "t1", &spec).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "KUBE-040", "{error}");
    assert_eq!(world.marks_undo()["canaryWorkloadDeployed"], true);
    let releases =
        place.get(&place.path("v1", "secrets?labelSelector=owner%3Dharness,release%3Drel")).await.unwrap();
    assert_eq!(releases["items"][0]["metadata"]["labels"]["status"], "Failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_set_leaves_no_canary_and_does_not_claim_one() {
    let place = Place::new("canary-refused").await;
    let manifest = web("web", "app:2", 1).replace("replicas: 1", "replicas: 1\n  repliccas: 2");
    let spec = step(&place, "rel", &manifest, deploy(Instances::Count(1)));
    let before = snapshot(&place).await;
    let text = fails(&place, "t1", &spec, "KUBE-017").await;
    assert!(text.contains("repliccas"), "{text}");
    assert_eq!(snapshot(&place).await, before);
    let several = format!("{}---{}", web("web", "app:2", 1), web("api", "app:2", 1));
    let text =
        fails(&place, "t2", &step(&place, "rel", &several, deploy(Instances::Count(1))), "KUBE-080").await;
    assert!(text.contains("canary-refused/Deployment/web, canary-refused/Deployment/api"), "{text}");
}

fn rolling(place: &Place, image: &str, in_canary_workflow: bool) -> KubernetesSpec {
    let action =
        KubernetesAction::K8sRollingDeploy { skip_dry_run: false, pruning_enabled: true, in_canary_workflow };
    step(place, "rel", &web("web", image, 2), action)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rolling_step_completes_the_release_of_the_canary() {
    let place = Place::new("canary-rolling").await;
    crate::routes::istio(&place).await;
    ok_in(&place, "e0", "r0", &rolling(&place, "app:1", false)).await;
    let canary = ok_in(&place, "e1", "c1", &count(&place, "app:2", 1)).await;
    assert_eq!(output(&canary, "releaseNumber"), 2);
    let stable = live(&place, "apps/v1", "deployments/web").await;
    assert_eq!(stable["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
    let rolled = ok_in(&place, "e1", "r1", &rolling(&place, "app:2", true)).await;
    assert_eq!(output(&rolled, "releaseNumber"), 2);
    let named = output(&canary, "canaryWorkload");
    ok_in(&place, "e1", "x1", &step(&place, "rel", "", delete(&[named.as_str().unwrap()]))).await;
    assert!(absent(&place, "apps/v1", "deployments/web-canary").await);
    let stable = live(&place, "apps/v1", "deployments/web").await;
    assert_eq!(stable["spec"]["template"]["spec"]["containers"][0]["image"], "app:2");
    assert_eq!(stable["status"]["readyReplicas"], 2);
    // The stable pods can be told apart from now on, so that routes work.
    assert_eq!(stable["spec"]["template"]["metadata"]["labels"]["harness.io/track"], "stable");
    let route = json!({"destinations": [{"host": "stable", "weight": 80}, {"host": "canary", "weight": 20}]});
    let routing = json!({"provider": "istio", "spec": {"name": "route", "routes": [route]}});
    let action = KubernetesAction::K8sCanaryDeploy {
        instances: Instances::Count(1),
        skip_dry_run: false,
        traffic_routing: Some(routing),
    };
    let again = step(&place, "rel", &web("web", "app:3", 2), action);
    ok_in(&place, "e2", "c2", &again).await;
    // A rollback alone takes the canary out of the route, and then away. So does one of another execution that undoes this
    // one; any other execution leaves it.
    let back = KubernetesAction::K8sRollingRollback { pruning_enabled: false };
    let back = step(&place, "rel", "", back);
    ok_undoing(&place, "e4", None, "b4", &back).await;
    assert!(!absent(&place, "apps/v1", "deployments/web-canary").await);
    for (execution, rolls_back, id) in [("e5", Some("e2"), "b5"), ("e2", None, "b2")] {
        ok_in(&place, "e2", &format!("c{id}"), &again).await;
        let undone = ok_undoing(&place, execution, rolls_back, id, &back).await;
        let notice = undone.notices.iter().find(|text| text.starts_with("canary-removed-by-rollback: "));
        assert!(notice.is_some_and(|text| text.contains("Deployment/web-canary")), "{:?}", undone.notices);
        assert!(absent(&place, "apps/v1", "deployments/web-canary").await);
    }
    assert!(absent(&place, "v1", "services/web-canary").await);
    let route = live(&place, "networking.istio.io/v1", "virtualservices/route").await;
    assert_eq!(
        route["spec"]["http"][0]["route"],
        json!([{"destination": {"host": "web-stable"}, "weight": 100}])
    );
    ok_in(&place, "e2", "c3", &again).await;
    // A rolling step that prunes keeps what the route needs, although the manifest does not name it.
    ok_in(&place, "e2", "r2", &rolling(&place, "app:3", true)).await;
    ok_in(&place, "e2", "x2", &step(&place, "rel", "", delete(&[]))).await;
    ok_in(&place, "e3", "r3", &rolling(&place, "app:4", false)).await;
    assert!(!absent(&place, "v1", "services/web-stable").await);
    let route = live(&place, "networking.istio.io/v1", "virtualservices/route").await;
    assert_eq!(
        route["spec"]["http"][0]["route"],
        json!([{"destination": {"host": "web-stable"}, "weight": 100}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_in_another_namespace_is_copied_there_and_found_there() {
    let (home, place) = (Place::new("canary-home").await, Place::new("canary-away").await);
    let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: canary-away}\n\
        spec:\n  serviceName: db\n  replicas: 2\n  selector: {matchLabels: {app: db}}\n  template:\n\
        \x20   metadata: {labels: {app: db}}\n    spec: {containers: [{name: c, image: 'app:1'}]}\n";
    let spec = step(&home, "rel", set, deploy(Instances::Percentage(50)));
    let output_ = ok(&home, "t1", &spec).await;
    assert_eq!(output(&output_, "canaryWorkload"), "canary-away/StatefulSet/db-canary");
    assert_eq!(live(&place, "apps/v1", "statefulsets/db-canary").await["status"]["readyReplicas"], 1);
    assert!(absent(&place, "apps/v1", "statefulsets/db").await, "the stable one is the rolling step's");
    // By label alone, with the namespace from the history.
    assert!(!ok(&home, "t2", &step(&home, "rel", "", delete(&[]))).await.skipped);
    assert!(absent(&place, "apps/v1", "statefulsets/db-canary").await);
}
