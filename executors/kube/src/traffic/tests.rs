use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn config(provider: &str, rules: Value) -> Config {
    let value = json!({"provider": provider, "spec": {
    "gateways": [], "routes": [{"route": {"type": "http", "name": "main", "rules": rules, "destinations": [
        {"destination": {"host": "stable", "weight": "90"}},
        {"destination": {"host": "canary", "weight": 10, "port": 8080}},
    ]}}]}});
    match parse(&value).unwrap() {
        Routing::New(config) => config,
        other => panic!("{other:?}"),
    }
}

fn names() -> Names {
    Names {
        stable: Some("web-stable".into()),
        canary: Some("web-canary".into()),
        stage: None,
        port: Some(80),
    }
}

fn place(api_version: &str) -> Place<'_> {
    Place { release: "rel", namespace: "ns", api_version, rules_version: Some("specs.smi-spec.io/v1alpha4") }
}

#[test]
fn a_virtual_service() {
    let rules = json!([
        {"rule": {"type": "uri", "spec": {"value": "/api", "matchType": "prefix"}}},
        {"rule": {"type": "headers", "spec": {"values": [{"key": "x", "value": "y", "matchType": "regex"}]}}},
        {"rule": {"type": "port", "spec": {"value": "8080"}}},
    ]);
    let objects = objects(&config("istio", rules), &names(), None, place("networking.istio.io/v1")).unwrap();
    assert_eq!(
        objects,
        [json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "web-stable-virtual-service", "namespace": "ns", "labels": {"harness.io/release-name": "rel"},
                "annotations": {"harness.io/skipPruning": "true"}},
            "spec": {"hosts": ["web-stable"], "http": [{
                "name": "main",
                "match": [{"uri": {"prefix": "/api"}}, {"headers": {"x": {"regex": "y"}}}, {"port": 8080}],
                "route": [
                    {"destination": {"host": "web-stable"}, "weight": 90},
                    {"destination": {"host": "web-canary", "port": {"number": 8080}}, "weight": 10},
                ],
            }]},
        })]
    );
}

#[test]
fn an_http_route_for_a_gateway_and_for_a_mesh() {
    let mut config = config(
        "gatewayApi",
        json!([{"rule": {"type": "uri", "spec": {"value": "/", "matchType": "prefix"}}}]),
    );
    let version = "gateway.networking.k8s.io/v1";
    let mesh = objects(&config, &names(), None, place(version)).unwrap();
    assert_eq!(
        mesh[0]["spec"]["parentRefs"],
        json!([{"group": "", "kind": "Service", "name": "web-stable"}])
    );
    assert_eq!(
        mesh[0]["spec"]["rules"][0],
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [
                {"name": "web-stable", "port": 80, "weight": 90},
                {"name": "web-canary", "port": 8080, "weight": 10},
            ],
        })
    );
    config.gateways = vec!["infra/public".into(), "own".into()];
    config.hosts = vec!["web.example.com".into()];
    let gateway = objects(&config, &names(), None, place(version)).unwrap();
    assert_eq!(
        gateway[0]["spec"]["parentRefs"],
        json!([{"namespace": "infra", "name": "public"}, {"name": "own"}])
    );
    assert_eq!(gateway[0]["spec"]["hostnames"], json!(["web.example.com"]));
    let error = objects(&config, &Names { port: None, ..names() }, None, place(version)).unwrap_err();
    assert!(error.to_string().contains("destinations[0].port"), "{error}");
}

#[test]
fn a_traffic_split_with_rules() {
    let rules = json!([{"rule": {"type": "uri", "spec": {"value": "/a.b"}}}, {"rule": {"type": "method", "spec": {"value": "get"}}},
        {"rule": {"type": "headers", "spec": {"values": [{"key": "a", "value": "b"}, {"key": "c", "value": "d"}]}}}]);
    let config = config("smi", rules);
    let objects = objects(&config, &names(), None, place("split.smi-spec.io/v1alpha4")).unwrap();
    assert_eq!(
        objects[0]["spec"],
        json!({
            "service": "web-stable",
            "backends": [{"service": "web-stable", "weight": 90}, {"service": "web-canary", "weight": 10}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "main"}],
        })
    );
    assert_eq!(
        objects[1]["spec"]["matches"],
        json!([
            {"name": "rule-1", "pathRegex": "^/a\\.b$", "methods": ["*"]},
            {"name": "rule-2", "pathRegex": ".*", "methods": ["GET"]},
            {"name": "rule-3", "headers": [{"a": "^b$"}, {"c": "^d$"}]},
        ])
    );
    let old = super::objects(&config, &names(), None, place("split.smi-spec.io/v1alpha2")).unwrap_err();
    assert_eq!(old.into_step().code, "KUBE-086");
}

#[test]
fn a_canary_gets_no_more_than_its_pods_can_carry() {
    let cap = Cap { service: "web-canary".into(), percent: 4 };
    let objects = objects(&config("istio", json!([])), &names(), Some(&cap), place("v")).unwrap();
    let weights: Vec<&Value> =
        objects[0]["spec"]["http"][0]["route"].as_array().unwrap().iter().map(|r| &r["weight"]).collect();
    assert_eq!(weights, [96, 4]);
}

#[test]
fn weights_of_a_live_route_are_changed_and_nothing_else() {
    let live = json!({"kind": "HTTPRoute", "metadata": {"resourceVersion": "5"}, "spec": {"parentRefs": [1], "rules": [
        {"backendRefs": [{"name": "web", "port": 80, "weight": 100}, {"name": "web-canary", "port": 80, "weight": 0}]},
        {"matches": ["kept"], "backendRefs": [{"name": "other", "port": 1}]},
    ]}});
    let wanted =
        BTreeMap::from([("web".to_owned(), 50), ("web-canary".to_owned(), 50), ("gone".to_owned(), 1)]);
    let (patch, missing) = reweight(&live, &wanted, None).unwrap();
    let patch = patch.unwrap();
    assert_eq!(missing, ["gone"]);
    assert_eq!(patch["metadata"], json!({"resourceVersion": "5"}));
    assert_eq!(
        patch["spec"]["rules"][0]["backendRefs"][1],
        json!({"name": "web-canary", "port": 80, "weight": 50})
    );
    assert_eq!(patch["spec"]["rules"][1], live["spec"]["rules"][1]);
    let mut done = live.clone();
    done["spec"]["rules"] = patch["spec"]["rules"].clone();
    assert_eq!(reweight(&done, &wanted, None).unwrap().0, None, "repeated");
    assert!(reweight(&json!({"kind": "Service"}), &wanted, None).is_err());
}

#[test]
fn a_canary_is_withdrawn_and_the_rest_makes_100() {
    let live = json!({"kind": "VirtualService", "metadata": {"resourceVersion": "5"}, "spec": {"hosts": ["w"], "http": [
        {"match": ["beta"], "route": [{"destination": {"host": "web-canary.ns.svc"}, "weight": 100}]},
        {"route": [{"destination": {"host": "web-stable"}, "weight": 60}, {"destination": {"host": "web-canary"}, "weight": 40}]},
        {"redirect": {"uri": "/"}},
    ]}});
    let patch = withdraw(&live, &["web-canary".into()]).unwrap();
    let http = json!([{"route": [{"destination": {"host": "web-stable"}, "weight": 100}]}, {"redirect": {"uri": "/"}}]);
    assert_eq!(patch, json!({"metadata": {"resourceVersion": "5"}, "spec": {"http": http}}));
    let after = patched(&live, &patch);
    assert_eq!(after["spec"]["hosts"], json!(["w"]));
    assert_eq!(withdraw(&after, &["web-canary".into()]), None, "repeated");
    let split =
        json!({"kind": "TrafficSplit", "spec": {"backends": [{"service": "web-canary", "weight": 100}]}});
    assert_eq!(withdraw(&split, &["web-canary".into()]), None, "a route to nowhere would answer nothing");
}

#[test]
fn managed_istio_objects_get_subsets_and_weights() {
    let annotations = json!({"harness.io/managed": "true"});
    let rule = json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "r", "annotations": annotations}, "spec": {"host": "web"}});
    let service = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "v", "annotations": annotations}, "spec": {"http": [{"route": [{"destination": {"host": "web"}}]}]}});
    let mut foreign = service.clone();
    foreign["metadata"]["annotations"] = json!({});
    let mut all = vec![rule, service, foreign.clone()];
    assert_eq!(manage(&mut all), 2);
    assert_eq!(
        all[0]["spec"]["subsets"][0],
        json!({"name": "canary", "labels": {"harness.io/track": "canary"}})
    );
    assert_eq!(
        all[1]["spec"]["http"][0]["route"],
        json!([
            {"destination": {"host": "web", "subset": "stable"}, "weight": 100},
            {"destination": {"host": "web", "subset": "canary"}, "weight": 0},
        ])
    );
    assert_eq!(all[2], foreign);
    let once = all.clone();
    manage(&mut all);
    assert_eq!(all, once, "repeated");
}

#[test]
fn faults_name_their_field() {
    let cases = [
        (json!({"type": "both"}), "type: `both`"),
        (json!({"type": "config"}), "trafficRouting: missing"),
        (json!({"provider": "nginx", "spec": {}}), "trafficRouting.provider"),
        (json!({"provider": "istio"}), "trafficRouting.spec: missing"),
        (json!({"provider": "istio", "spec": {"routes": []}}), "trafficRouting.spec.routes"),
        (json!({"provider": "istio", "spec": {"routes": [{}]}}), "routes[0].destinations"),
        (
            json!({"provider": "istio", "spec": {"routes": [{"destinations": [{"host": "a", "weight": -1}]}]}}),
            "destinations[0].weight: -1",
        ),
        (
            json!({"provider": "istio", "spec": {"routes": [{"destinations": [{"host": "a", "port": 70000}]}]}}),
            "70000 is no port",
        ),
        (json!({"provider": "istio", "spec": {"routes": [{"type": "tcp"}]}}), "only http"),
    ];
    for (value, wanted) in cases {
        let error = parse(&value).unwrap_err();
        assert!(error.to_string().contains(wanted), "{value}: {error}");
        assert_eq!(error.into_step().code, "KUBE-085");
    }
    let inherit = json!({"type": "inherit", "trafficRouting": {"routes": [{"route": {"destinations": [{"destination": {"host": "canary", "weight": 5}}]}}]}});
    assert!(
        matches!(parse(&inherit).unwrap(), Routing::Inherit(routes) if routes[0].destinations[0].weight == 5)
    );
}

proptest! {
    #[test]
    fn weights_make_100_and_keep_the_cap(weights in proptest::collection::vec(0u32..1000, 1..6), percent in 0u32..=100) {
        let hosts: Vec<String> = (0..weights.len()).map(|n| format!("s{n}")).collect();
        let asked: Vec<(&str, u32)> = hosts.iter().map(String::as_str).zip(weights).collect();
        let cap = Cap { service: "s1".into(), percent };
        let shares = weights::shares(&asked, Some(&cap));
        prop_assert_eq!(shares.iter().sum::<u32>(), 100);
        if let Some(share) = shares.get(1) {
            prop_assert!(*share <= percent);
        }
    }
}
