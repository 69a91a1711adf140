//! The seed's Kubernetes pipeline, byte for byte, on two real control planes with one agent each: every row of the
//! acceptance table (pipeline.md 6.3).

use crate::k8s_world::{LIMIT, World, manifest, statuses};
use e2e::world::step;
use serde_json::json;

const IMAGE: &str = "registry.example.com/payments/payment-service";

/// The annotations and data that a health check must leave alone.
fn fingerprint(zone: &crate::k8s_world::Zone) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for kind in ["deployments", "services", "configmaps"] {
        for object in zone.objects(kind) {
            let meta = &object["metadata"];
            // A controller of the cluster writes this one in its own time.
            if meta["name"] == "kube-root-ca.crt" {
                continue;
            }
            let spec = json!([object["spec"], object["data"], meta["labels"]]);
            all.push((format!("{kind}/{}", meta["name"].as_str().unwrap()), spec.to_string()));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn int_stable_rolls_out_by_webhook_and_skips_what_is_for_production() {
    let mut world = World::start((true, true)).await;
    let commit = world.commit("int-stable", &manifest(2));
    let execution = world.built("v2.3.1", "int-stable").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!(view["status"], "Success", "{view:#}\n{}", world.log(&execution));
    assert_eq!(
        statuses(
            &view,
            &[
                "prod_approval",
                "change_window_policy",
                "canary_group",
                "k8s_apply",
                "rolling_deploy",
                "verify_health"
            ]
        ),
        ["Skipped", "Skipped", "Skipped", "Success", "Success", "Success"]
    );
    assert_eq!(world.int.deployed(), (format!("{IMAGE}:v2.3.1"), 2));
    assert!(world.log(&execution).contains(&commit), "the commit is named: {}", world.log(&execution));
    assert!(world.prod.objects("deployments").is_empty(), "nothing reached the other cluster");
    assert!(world.tasks_of("prod").is_empty(), "the prod agent received nothing");
    let agent = step(&view, "k8s_apply")["agent"].as_str().unwrap_or_default().to_owned();
    assert!(agent.contains("int"), "{agent}");
    let notices = world.manager.ok(&["execution", "show", &execution]);
    assert!(notices.contains("R12") || view.to_string().contains("R12"), "{notices}");

    // What sends no tag, another service or a wrong key starts nothing.
    let before = world.manager.json(&["execution", "list", "--output", "json"]).as_array().unwrap().len();
    for body in [
        json!({"service_name": "payment-service", "target_env": "int-stable", "target_region": "euw1"}),
        json!({"service_name": "other", "image_tag": "v1", "target_env": "int-stable", "target_region": "euw1"}),
    ] {
        let (status, reply) = world.webhook("ci", &body).await;
        assert_eq!(status, 200, "{reply:#}");
        let event = world.event(&reply).await;
        assert_eq!(event["status"], "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS", "{event:#}");
    }
    assert_eq!(world.webhook("nobody", &json!({})).await.0, 401);
    let after = world.manager.json(&["execution", "list", "--output", "json"]).as_array().unwrap().len();
    assert_eq!(before, after);

    // A second version, and an unchanged third run: nothing rolls out anew.
    let execution = world.built("v2.3.2", "int-stable").await;
    assert_eq!(
        world.manager.finished(&execution, LIMIT).await["status"],
        "Success",
        "{}",
        world.log(&execution)
    );
    assert_eq!(world.int.deployed().0, format!("{IMAGE}:v2.3.2"));
    let test = world.manager.run(&[
        "connector",
        "test",
        "k8s_int_stable_euw1",
        "--selectors",
        "harness-delegate-int-stable-euw1",
        "--output",
        "json",
    ]);
    let report: serde_json::Value = serde_json::from_slice(&test.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report:#}");
    let stages: Vec<&str> =
        report["stages"].as_array().unwrap().iter().filter_map(|one| one["stage"].as_str()).collect();
    assert_eq!(stages, ["credentials", "server", "login", "rights"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn production_waits_for_two_people_and_its_window_and_brings_a_canary() {
    let mut world = World::start((true, true)).await;
    world.commit("prod", &manifest(4));
    let execution = world.built("v2.3.1", "prod").await;
    let approval = world.approval(&execution).await;
    assert!(world.prod.objects("deployments").is_empty(), "nothing before the approval");
    let (taken, said) = world.decide("ci", "approve", &approval);
    assert!(!taken && said.contains("started this execution"), "the executor is refused: {said}");
    let (taken, said) = world.decide("mallory", "approve", &approval);
    assert!(!taken, "not of the groups: {said}");
    assert!(world.decide("ann", "approve", &approval).0);
    assert_eq!(world.manager.show(&execution)["status"], "ApprovalWaiting", "one of two");
    assert!(world.decide("eve", "approve", &approval).0);

    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!(view["status"], "Success", "{view:#}\n{}", world.log(&execution));
    assert_eq!(
        statuses(
            &view,
            &[
                "prod_approval",
                "change_window_policy",
                "canary_10",
                "verify_canary_10",
                "canary_50",
                "verify_canary_50",
                "canary_complete",
                "verify_health"
            ]
        ),
        ["Success", "Success", "Success", "Skipped", "Success", "Skipped", "Success", "Success"]
    );
    assert_eq!(world.prod.deployed(), (format!("{IMAGE}:v2.3.1"), 4));
    // The controller's own events tell how many pods the canary had: one, then half of four.
    let scaled: Vec<String> = world
        .prod
        .objects("events")
        .iter()
        .filter(|event| event["involvedObject"]["name"] == "payment-service-canary")
        .filter_map(|event| event["message"].as_str().map(str::to_owned))
        .collect();
    assert!(scaled.iter().any(|text| text.contains("from 0 to 1")), "{scaled:?}");
    assert!(scaled.iter().any(|text| text.contains("from 1 to 2")), "{scaled:?}");
    let left: Vec<String> =
        world.prod.objects("deployments").iter().map(|one| one["metadata"]["name"].to_string()).collect();
    assert_eq!(left, ["\"payment-service\""], "neither canary nor colour is left");
    let services = world.prod.objects("services");
    assert_eq!(services.len(), 1, "the health check made no stage Service: {services:#?}");
    assert!(services[0]["spec"]["selector"].get("harness.io/color").is_none());
    assert!(world.tasks_of("int").is_empty(), "the int agent received nothing");
    assert!(world.int.objects("deployments").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_window_and_a_rejection_change_nothing() {
    let mut world = World::start((false, true)).await;
    world.commit("prod", &manifest(2));
    world.change_window(false);
    let execution = world.built("v1", "prod").await;
    world.approve(&execution).await;
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!(view["status"], "Aborted", "{view:#}");
    let policy = step(&view, "change_window_policy");
    assert_eq!(policy["failure"]["class"], "PolicyEvaluationFailure", "{policy:#}");
    assert!(policy["failure"]["message"].as_str().unwrap().contains("outside change window"), "{policy:#}");
    assert_eq!(step(&view, "k8s_apply")["status"], "NotStarted");

    world.change_window(true);
    let execution = world.built("v1", "prod").await;
    let approval = world.approval(&execution).await;
    let (taken, said) = world.decide("ann", "reject", &approval);
    assert!(taken, "{said}");
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Failed"), &json!(true)), "{view:#}");
    assert_eq!(
        statuses(&view, &["prod_approval", "k8s_apply", "rollback"]),
        ["ApprovalRejected", "NotStarted", "Skipped"],
        "{view:#}"
    );
    assert!(world.prod.objects("deployments").is_empty() && world.prod.objects("configmaps").len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_of_production_nothing_goes_elsewhere() {
    let mut world = World::start((true, false)).await;
    world.commit("prod", &manifest(1));
    let execution = world.built("v1", "prod").await;
    world.approve(&execution).await;
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    let failure = &step(&view, "k8s_apply")["failure"];
    assert_eq!(failure["class"], "DelegateProvisioning", "{failure:#}");
    assert!(failure["message"].as_str().unwrap().contains("harness-delegate-prod-euw1"), "{failure:#}");
    assert!(world.tasks_of("int").is_empty(), "the int agent received nothing");
    assert!(world.int.objects("deployments").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_manifest_rolls_back_to_what_was_there() {
    let mut world = World::start((true, false)).await;
    world.commit("int-stable", &manifest(2));
    let execution = world.built("v1", "int-stable").await;
    assert_eq!(
        world.manager.finished(&execution, LIMIT).await["status"],
        "Success",
        "{}",
        world.log(&execution)
    );
    let good = fingerprint(&world.int);

    // Refused by the API server before anything changes.
    let broken = manifest(2).replace("replicas: 2", "replicas: minus-one");
    world.commit("int-stable", &broken);
    let execution = world.built("v2", "int-stable").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert_eq!(
        statuses(&view, &["k8s_apply", "rolling_deploy", "verify_health"]),
        ["Failed", "NotStarted", "NotStarted"]
    );
    assert!(
        ["Success", "Skipped"].contains(&step(&view, "rollback")["status"].as_str().unwrap()),
        "{view:#}"
    );
    assert_eq!(fingerprint(&world.int), good, "the cluster is as it was");

    // Accepted, but its pods crash: the release before comes back.
    let crashing = manifest(2).replace("PLACEHOLDER_TAG", "v3-crash").replace(
        "        ports: [{containerPort: 8080}]",
        "        ports: [{containerPort: 8080}]\n        readinessProbe: {httpGet: {path: /, port: 8080}}",
    );
    world.commit("int-stable", &crashing);
    let execution = world.built("v3", "int-stable").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert_eq!(step(&view, "rollback")["status"], "Success", "{view:#}\n{}", world.log(&execution));
    assert_eq!(world.int.deployed(), (format!("{IMAGE}:v1"), 2));

    // Nothing says what the placeholder stands for: no change at all, and the message says what to do.
    let told = manifest(2).replace("PLACEHOLDER_TAG", "PLACEHOLDER_TAG\n        imagePullPolicy: [wrong");
    world.commit("int-stable", &told);
    let execution = world.built("v4", "int-stable").await;
    let view = world.manager.finished(&execution, LIMIT).await;
    let failure = step(&view, "k8s_apply")["failure"].clone();
    assert_eq!(failure["code"], "KUBE-064", "{failure:#}");
    assert!(failure["message"].as_str().unwrap().contains("manifests.yaml, line"), "{failure:#}");
}
