//! Routes: weights follow the pods, before and behind them.

use crate::peer::{Place, until};
use crate::{absent, fails, live, ok, plan, step, web};
use proto::task::{Instances, KubernetesAction};
use serde_json::{Value, json};

/// A definition that takes everything, so that routes can be stored without their controllers.
async fn define(place: &Place, group: &str, version: &str, kind: &str, plural: &str) {
    let name = format!("{plural}.{group}");
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name}, "spec": {"group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    // Another test may have made it.
    let _there = place.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    discovered(place, group, kind).await;
}

/// Waits until the discovery document names a kind: a moment after its first list is answered.
async fn discovered(place: &Place, group: &str, kind: &str) {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    until("the kind is discovered", async || {
        let request = http::Request::get("/apis").header("accept", accept).body(Vec::new()).unwrap();
        let found: Value = place.client.request(request).await.unwrap();
        found["items"].as_array().unwrap().iter().any(|item| {
            item["metadata"]["name"] == group && item.to_string().contains(&format!("\"kind\":\"{kind}\""))
        })
    })
    .await;
}

/// Definitions of the project that made them (`scripts/install-test-peers`), once for all tests.
async fn define_from(place: &Place, name: &'static str, group: &str, kind: &str) {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one_after_another = ONE.lock().await;
    static MADE: std::sync::Mutex<Vec<&str>> = std::sync::Mutex::new(Vec::new());
    if MADE.lock().unwrap().contains(&name) {
        return;
    }
    let plane = place.plane;
    let file = crate::peer::plane::tool("kube-peer").with_file_name(format!("../crds/{name}.yaml"));
    assert!(file.exists(), "{}: scripts/install-test-peers makes it", file.display());
    let apply = move || plane.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    tokio::task::spawn_blocking(apply).await.unwrap();
    discovered(place, group, kind).await;
    MADE.lock().unwrap().push(name);
}

pub async fn istio(place: &Place) {
    define_from(place, "istio", "networking.istio.io", "VirtualService").await;
}

async fn gateway(place: &Place) {
    define_from(place, "gateway", "gateway.networking.k8s.io", "HTTPRoute").await;
}

async fn smi(place: &Place) {
    define(place, "split.smi-spec.io", "v1alpha4", "TrafficSplit", "trafficsplits").await;
}

fn routing(provider: &str, canary: &str, weight: u32) -> Value {
    json!({"provider": provider, "spec": {"name": "route", "routes": [{"route": {"type": "http", "destinations": [
        {"destination": {"host": "stable", "weight": 100 - weight}},
        {"destination": {"host": canary, "weight": weight}},
    ]}}]}})
}

fn inherit(canary: &str, weight: u32) -> KubernetesAction {
    let mut config = routing("", canary, weight);
    config["type"] = "inherit".into();
    config["trafficRouting"] = json!({"routes": config["spec"]["routes"]});
    KubernetesAction::K8sTrafficRouting { config }
}

fn canary(pods: u32, weight: u32) -> KubernetesAction {
    KubernetesAction::K8sCanaryDeploy {
        instances: Instances::Count(pods),
        skip_dry_run: false,
        traffic_routing: Some(routing("istio", "canary", weight)),
    }
}

async fn weights(place: &Place) -> Vec<(String, u64)> {
    let route = live(place, "networking.istio.io/v1", "virtualservices/route").await;
    let all = route["spec"]["http"][0]["route"].as_array().unwrap().iter();
    all.map(|d| (d["destination"]["host"].as_str().unwrap().to_owned(), d["weight"].as_u64().unwrap()))
        .collect()
}

fn pairs(stable: u64, canary: u64) -> Vec<(String, u64)> {
    vec![("web-stable".to_owned(), stable), ("web-canary".to_owned(), canary)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_never_gets_more_than_its_share_of_the_pods() {
    let place = Place::new("route-canary").await;
    istio(&place).await;
    let labels = json!({"app": "web", "harness.io/track": "stable"});
    let spec = json!({"replicas": 3, "template": {"metadata": {"labels": labels}}});
    place.workload("Deployment", "web", "app:1", json!({}), spec).await;
    until("the stable pods", async || {
        live(&place, "apps/v1", "deployments/web").await["status"]["readyReplicas"] == 3
    })
    .await;
    let manifest = web("web", "app:2", 3);
    let of = |pods, weight| step(&place, "rel", &manifest, canary(pods, weight));
    let text = plan(&place, "p", &of(1, 50)).await;
    assert!(text.contains("create route-canary/VirtualService/route"), "{text}");
    // One pod of four: a quarter, whatever was asked for.
    ok(&place, "t1", &of(1, 50)).await;
    assert_eq!(weights(&place).await, pairs(75, 25));
    let selector = live(&place, "v1", "services/web-stable").await["spec"]["selector"].clone();
    assert_eq!(selector, json!({"app": "web", "harness.io/track": "stable"}));
    ok(&place, "t2", &of(3, 40)).await;
    assert_eq!(weights(&place).await, pairs(60, 40));
    // Fewer pods: the weight has gone down before they go. More pods: it goes up when they are ready.
    let (world, result) = crate::run(&place, "t3", &of(1, 40)).await;
    result.unwrap();
    assert_eq!(weights(&place).await, pairs(75, 25));
    let order = |world: &executor_api::testing::World, call: &str| {
        let calls = world.marks.calls();
        calls.iter().position(|made| made == call).unwrap_or_else(|| panic!("no {call} among {calls:?}"))
    };
    let pods = "apply route-canary/Deployment/web-canary";
    assert!(order(&world, "set the weights of route-canary/VirtualService/route") < order(&world, pods));
    let (world, result) = crate::run(&place, "t3b", &of(3, 40)).await;
    result.unwrap();
    assert_eq!(weights(&place).await, pairs(60, 40));
    assert!(order(&world, pods) < order(&world, "apply route-canary/VirtualService/route"));
    ok(&place, "t3c", &of(1, 40)).await;
    assert_eq!(weights(&place).await, pairs(75, 25));
    // A step of its own sets weights under the same limit.
    ok(&place, "t4", &step(&place, "rel", "", inherit("canary", 10))).await;
    assert_eq!(weights(&place).await, pairs(90, 10));
    ok(&place, "t5", &step(&place, "rel", "", inherit("canary", 90))).await;
    assert_eq!(weights(&place).await, pairs(75, 25));
    // The canary goes: out of the route first, then its pods and its Service.
    ok(&place, "t6", &step(&place, "rel", "", crate::canary::delete(&[]))).await;
    assert_eq!(weights(&place).await, [("web-stable".to_owned(), 100)]);
    assert!(absent(&place, "v1", "services/web-canary").await);
    assert!(absent(&place, "apps/v1", "deployments/web-canary").await);
    assert!(!absent(&place, "v1", "services/web-stable").await, "the route still needs it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_routed_is_said_before_anything_changes() {
    let place = Place::new("route-refused").await;
    istio(&place).await;
    place.workload("Deployment", "web", "app:1", json!({}), json!({"replicas": 1})).await;
    let manifest = web("web", "app:2", 1);
    let text = fails(&place, "t1", &step(&place, "rel", &manifest, canary(1, 10)), "KUBE-086").await;
    assert!(text.contains("harness.io/track"), "{text}");
    smi(&place).await;
    let mut ruled = canary(1, 10);
    if let KubernetesAction::K8sCanaryDeploy { traffic_routing, .. } = &mut ruled {
        let mut config = routing("smi", "canary", 10);
        config["spec"]["routes"][0]["route"]["rules"] =
            json!([{"rule": {"type": "uri", "spec": {"value": "/"}}}]);
        *traffic_routing = Some(config);
    }
    let text = fails(&place, "t2", &step(&place, "other", &web("api", "app:2", 1), ruled), "KUBE-086").await;
    assert!(text.contains("serves no HTTPRouteGroup"), "{text}");
    let text = fails(&place, "t3", &step(&place, "rel", "", inherit("canary", 10)), "KUBE-086").await;
    assert!(text.contains("knows no Service of that role"), "{text}");
    let wrong = KubernetesAction::K8sTrafficRouting {
        config: json!({"type": "config", "trafficRouting": {"provider": "nginx"}}),
    };
    fails(&place, "t4", &step(&place, "rel", "", wrong), "KUBE-085").await;
    assert!(absent(&place, "apps/v1", "deployments/web-canary").await);
    assert!(absent(&place, "v1", "services/web-canary").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_gives_production_the_whole_route() {
    let place = Place::new("route-colours").await;
    gateway(&place).await;
    let mut action = crate::blue_green::deploy();
    if let KubernetesAction::K8sBlueGreenDeploy { traffic_routing, .. } = &mut action {
        *traffic_routing = Some(routing("gatewayApi", "stage", 20));
    }
    ok(&place, "d1", &step(&place, "rel", &web("web", "app:1", 1), action)).await;
    let backends = async || {
        let route = live(&place, "gateway.networking.k8s.io/v1", "httproutes/route").await;
        let all = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap().clone();
        all.iter()
            .map(|b| format!("{} {} {}", b["name"].as_str().unwrap(), b["port"], b["weight"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(backends().await, ["web 80 80", "web-stage 80 20"]);
    ok(&place, "s1", &step(&place, "rel", "", crate::blue_green::swap(Some("blue")))).await;
    assert_eq!(backends().await, ["web 80 100", "web-stage 80 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traffic_split_over_a_first_canary() {
    let place = Place::new("route-smi").await;
    smi(&place).await;
    let mut action = canary(1, 10);
    if let KubernetesAction::K8sCanaryDeploy { traffic_routing, .. } = &mut action {
        *traffic_routing = Some(routing("smi", "canary", 10));
    }
    // There is no stable pod yet, so that the whole capacity is the canary's and the weight is as asked.
    ok(&place, "t1", &step(&place, "rel", &web("web", "app:1", 2), action)).await;
    let split =
        async || live(&place, "split.smi-spec.io/v1alpha4", "trafficsplits/route").await["spec"].clone();
    let wanted = json!({"service": "web-stable", "backends": [
        {"service": "web-stable", "weight": 90}, {"service": "web-canary", "weight": 10}]});
    assert_eq!(split().await, wanted);
    ok(&place, "t2", &step(&place, "rel", "", crate::canary::delete(&[]))).await;
    assert_eq!(split().await["backends"], json!([{"service": "web-stable", "weight": 100}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_that_is_written_is_one_that_the_definitions_know() {
    let place = Place::new("route-rules").await;
    istio(&place).await;
    gateway(&place).await;
    let text = |kind: &str, value: &str, matching: &str| json!({"rule": {"type": kind, "spec": {"value": value, "matchType": matching}}});
    let headers = json!({"rule": {"type": "headers", "spec": {"values": [{"key": "x-beta", "value": "y.*", "matchType": "regex"}]}}});
    let common = [
        text("uri", "/a", "prefix"),
        text("uri", "/b", "exact"),
        text("uri", "/c.*", "regex"),
        text("method", "get", ""),
        headers,
    ];
    let only_istio = [
        text("scheme", "https", "exact"),
        text("authority", "a.example.com", "exact"),
        text("port", "8080", ""),
    ];
    let config = |provider: &str, rules: Vec<Value>| {
        let destinations =
            json!([{"host": "a", "weight": 1, "port": 80}, {"host": "b", "weight": 2, "port": 81}]);
        let spec = json!({"name": provider.to_lowercase(), "hosts": ["web.example.com"], "gateways": ["infra/public"],
            "routes": [{"name": "first", "rules": rules, "destinations": destinations}, {"destinations": destinations}]});
        let config = json!({"type": "config", "trafficRouting": {"provider": provider, "spec": spec}});
        step(&place, "rel", "", KubernetesAction::K8sTrafficRouting { config })
    };
    let all = [&common[..], &only_istio].concat();
    let spec = config("istio", all);
    let shown = plan(&place, "p", &spec).await;
    assert!(shown.contains("create route-rules/VirtualService/istio"), "{shown}");
    ok(&place, "t1", &spec).await;
    let route = live(&place, "networking.istio.io/v1", "virtualservices/istio").await;
    assert_eq!(route["spec"]["http"][0]["match"].as_array().unwrap().len(), 8);
    let repeated = plan(&place, "p", &spec).await;
    assert_eq!(repeated, "0 to create, 0 to change, 0 to delete, 1 unchanged\n");
    let spec = config("gatewayApi", common.to_vec());
    ok(&place, "t2", &spec).await;
    let route = live(&place, "gateway.networking.k8s.io/v1", "httproutes/gatewayapi").await;
    assert_eq!(route["spec"]["rules"][0]["matches"].as_array().unwrap().len(), 5);
    assert_eq!(route["spec"]["rules"][1]["backendRefs"][1]["weight"], 66);
    let repeated = plan(&place, "p", &spec).await;
    assert_eq!(
        repeated, "0 to create, 0 to change, 0 to delete, 1 unchanged\n",
        "whatever the server fills in"
    );
}
