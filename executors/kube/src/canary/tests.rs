use super::*;
use proptest::prelude::*;
use serde_json::json;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "c", "image": "i",
                        "envFrom": [{"configMapRef": {"name": "conf"}}],
                        "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "pw", "key": "p"}}}],
                    }],
                    "volumes": [{"name": "v", "configMap": {"name": "other"}}],
                },
            },
        },
    })
}

fn object(version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}})
}

#[test]
fn shares_are_rounded_half_up_and_never_none() {
    let cases = [
        (10, 4, 1, true),
        (50, 4, 2, false),
        (50, 5, 3, false),
        (10, 5, 1, false),
        (100, 3, 3, false),
        (50, 0, 1, true),
    ];
    for (percent, stable, replicas, raised) in cases {
        assert_eq!(
            target(Instances::Percentage(percent), stable),
            Target { replicas, raised },
            "{percent}% of {stable}"
        );
    }
    assert_eq!(target(Instances::Count(7), 2), Target { replicas: 7, raised: false });
    assert_eq!(target(Instances::Count(0), 2), Target { replicas: 1, raised: true });
}

#[test]
fn the_share_of_traffic_is_that_of_the_pods() {
    assert_eq!(capacity_share(1, 3), 25);
    assert_eq!(capacity_share(1, 2), 33);
    assert_eq!(capacity_share(0, 3), 0);
    assert_eq!(capacity_share(2, 0), 100);
    assert_eq!(capacity_share(0, 0), 0);
}

proptest! {
    #[test]
    fn a_share_never_exceeds_the_capacity(canary in 0u32..10_000, stable in 0u32..10_000) {
        let share = u64::from(capacity_share(canary, stable));
        prop_assert!(share * u64::from(canary + stable) <= 100 * u64::from(canary));
    }
}

#[test]
fn the_canary_is_a_copy_with_configuration_of_its_own() {
    let documents = vec![
        object("v1", "ConfigMap", "conf"),
        object("v1", "Secret", "pw"),
        deployment(),
        object("v1", "Service", "web"),
    ];
    let mut prepared = prepare(documents, "rel", "ns", false).unwrap();
    prepared.scale(2);
    assert_eq!(
        prepared.own("ns"),
        ["ns/ConfigMap/conf-canary", "ns/Secret/pw-canary", "ns/Deployment/web-canary"]
    );
    assert_eq!(prepared.stable_name, "web");
    assert_eq!(prepared.manifest_replicas, Some(4));
    let workload = &prepared.workload;
    assert_eq!(workload["spec"]["replicas"], 2);
    assert_eq!(workload["spec"]["selector"]["matchLabels"], json!({"app": "web", TRACK: "canary"}));
    assert_eq!(
        workload["spec"]["template"]["metadata"]["labels"],
        json!({"app": "web", TRACK: "canary", "harness.io/release-name": "rel"})
    );
    let pod = &workload["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["envFrom"][0]["configMapRef"]["name"], "conf-canary");
    assert_eq!(pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"], "pw-canary");
    // Not in the manifest, so it is somebody else's and keeps its name.
    assert_eq!(pod["volumes"][0]["configMap"]["name"], "other");
    // The Service selects canary pods too: that is how they get traffic.
    assert_eq!(prepared.if_absent, [object("v1", "Service", "web")]);
}

#[test]
fn what_moves_traffic_or_other_pods_waits() {
    let mut agent = object("apps/v1", "DaemonSet", "agent");
    let mut bare = agent.clone();
    bare["metadata"]["name"] = "bare".into();
    agent["metadata"]["annotations"] = json!({"harness.io/direct-apply": "True"});
    let mut scaler = object("autoscaling/v2", "HorizontalPodAutoscaler", "web");
    scaler["spec"] = json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}});
    let documents = vec![
        agent.clone(),
        bare,
        deployment(),
        scaler,
        object("v1", "ServiceAccount", "web"),
        object("networking.k8s.io/v1", "Ingress", "web"),
    ];
    let prepared = prepare(documents, "rel", "ns", false).unwrap();
    assert_eq!(prepared.shared, [agent, object("v1", "ServiceAccount", "web")]);
    assert_eq!(prepared.if_absent, [object("networking.k8s.io/v1", "Ingress", "web")]);
    assert_eq!(prepared.later, ["ns/DaemonSet/bare"]);
    assert_eq!(prepared.own("ns"), ["ns/Deployment/web-canary"]);
    assert!(prepared.notices[0].contains("HorizontalPodAutoscaler/web-canary"), "{:?}", prepared.notices);
}

#[test]
fn names_are_kept_where_the_author_says_so() {
    let mut kept = object("v1", "ConfigMap", "conf");
    kept["metadata"]["annotations"] = json!({"harness.io/skip-versioning": "true"});
    let prepared = prepare(vec![kept.clone(), deployment()], "rel", "ns", false).unwrap();
    assert_eq!(prepared.shared, [kept]);
    let all = prepare(vec![object("v1", "ConfigMap", "conf"), deployment()], "rel", "ns", true).unwrap();
    assert!(all.configuration.is_empty());
    assert_eq!(
        all.workload["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"],
        "conf"
    );
}

#[test]
fn exactly_one_workload_is_wanted() {
    let error = prepare(vec![object("v1", "Service", "web")], "r", "ns", false).unwrap_err();
    assert_eq!(error, Fault::NoWorkload);
    let mut second = deployment();
    second["metadata"]["name"] = "api".into();
    let error = prepare(vec![deployment(), second.clone()], "r", "ns", false).unwrap_err();
    assert_eq!(error, Fault::SeveralWorkloads(vec!["ns/Deployment/web".into(), "ns/Deployment/api".into()]));
    assert_eq!(error.into_step().code, "KUBE-080");
    second["metadata"]["annotations"] = json!({"harness.io/direct-apply": "true"});
    let set = object("apps/v1", "StatefulSet", "db");
    let prepared = prepare(vec![set, second, deployment()], "r", "ns", false).unwrap();
    assert_eq!(prepared.stable_name, "web");
}

#[test]
fn names_of_a_canary() {
    assert!(is_canary_name("web-canary"));
    assert!(!is_canary_name("webcanary"));
    assert!(!is_canary_name("-canary"));
    assert!(!is_canary_name("canary"));
    assert!(!is_canary_name("web-canary-2"));
}
