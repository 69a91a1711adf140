use super::*;

fn variant() -> Variant<'static> {
    Variant {
        suffix: "blue",
        label: "harness.io/color",
        value: "blue",
        release: "r",
        namespace: "ns",
        skip_versioning: false,
    }
}

#[test]
fn every_place_that_names_configuration_is_rewritten() {
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let pod = json!({
        "initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c"}}}]}],
        "containers": [{"envFrom": [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "foreign"}}]}],
        "imagePullSecrets": [{"name": "s"}],
        "volumes": [
            {"secret": {"secretName": "s"}},
            {"configMap": {"name": "c"}},
            {"projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}},
        ],
    });
    let work = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": pod}}});
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "j"},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}}}}}});
    let elsewhere = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "other"},
        "spec": {"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}});
    let mut all = vec![config, secret, work, cron, elsewhere];
    let reshaped = reshape(&mut all, 2, &variant());
    assert_eq!(reshaped.own, [0, 1, 2]);
    let text = all[2]["spec"]["template"]["spec"].to_string();
    assert_eq!(text.matches("\"c-blue\"").count(), 3, "{text}");
    assert_eq!(text.matches("\"s-blue\"").count(), 4, "{text}");
    assert!(text.contains("\"foreign\""), "{text}");
    assert!(all[3].to_string().contains("s-blue"));
    assert!(all[4].to_string().contains("\"s\""), "another namespace has Secrets of its own");
}

#[test]
fn hooks_of_a_deployment_config_and_its_selector() {
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let work = json!({"apiVersion": "apps.openshift.io/v1", "kind": "DeploymentConfig", "metadata": {"name": "w"},
        "spec": {"selector": {"a": "b"}, "template": {"spec": {}},
            "strategy": {"rollingParams": {"pre": {"execNewPod": {"env": [{"valueFrom": {"configMapKeyRef": {"name": "c"}}}]}}}}}});
    let mut all = vec![config, work];
    reshape(&mut all, 1, &variant());
    assert_eq!(all[1]["spec"]["selector"], json!({"a": "b", "harness.io/color": "blue"}));
    assert!(all[1]["spec"]["strategy"].to_string().contains("c-blue"));
}

#[test]
fn guards_of_the_workload_follow_it_and_others_stay() {
    let work = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b", "c": "d"}}}}});
    let scaler = |name: &str| {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": name}}})
    };
    let budget = |labels: Value| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "p"}, "spec": {"selector": {"matchLabels": labels}}})
    };
    let mut all = vec![
        work,
        scaler("w"),
        scaler("x"),
        budget(json!({"a": "b"})),
        budget(json!({"a": "z"})),
        budget(json!({})),
    ];
    let untouched = (all[2].clone(), all[4].clone(), all[5].clone());
    let reshaped = reshape(&mut all, 0, &variant());
    assert_eq!(reshaped.own, [0, 1, 3]);
    assert_eq!(all[1]["metadata"]["name"], "w-blue");
    assert_eq!(all[1]["spec"]["scaleTargetRef"]["name"], "w-blue");
    assert_eq!(all[3]["spec"]["selector"]["matchLabels"], json!({"a": "b", "harness.io/color": "blue"}));
    assert_eq!((all[2].clone(), all[4].clone(), all[5].clone()), untouched);
}

#[test]
fn long_names_are_cut_and_too_long_suffixes_refused() {
    assert_eq!(suffixed("a", "blue").unwrap(), "a-blue");
    let long = "n".repeat(253);
    let cut = suffixed(&long, "blue").unwrap();
    assert_eq!(cut.len(), 253);
    assert!(cut.ends_with("n-blue"));
    assert_eq!(suffixed(&long, &"s".repeat(240)), None);
    assert_eq!(suffixed(&long, &"s".repeat(300)), None);
    // Must not panic in the middle of a character either.
    assert!(suffixed(&"é".repeat(200), "blue").is_some());
}

#[test]
fn documents_of_any_shape_do_not_panic() {
    let odd = vec![
        json!(null),
        json!([1]),
        json!({"kind": "Deployment", "metadata": 3, "spec": [1]}),
        json!({"kind": 3}),
    ];
    for (place, _) in odd.iter().enumerate() {
        let mut documents = odd.clone();
        reshape(&mut documents, place, &variant());
    }
}
