//! The second run of the seed's Kubernetes pipeline: production with a Prometheus health source that is fed per pod. A
//! noisy good canary passes both verifications; a bad one fails at the first and is rolled back.

use crate::k8s_world::{LIMIT, World, manifest, package, statuses};
use e2e::peers::pod_metrics::PodMetrics;
use e2e::peers::prometheus::Prometheus;
use e2e::world::step;
use serde_json::{Value, json};

const IMAGE: &str = "registry.example.com/payments/payment-service";

/// What is measured of the service in production: a latency that strays, and failed requests.
const MONITORED: &str = "
connector:
  identifier: prometheus_prod
  name: prometheus prod
  type: Prometheus
  spec:
    url: http://prometheus.example.com:9090
---
monitoredService:
  identifier: payment-service_prod
  name: payment-service in prod
  type: Application
  serviceRef: payment-service
  environmentRef: prod
  sources:
    healthSources:
    - identifier: pods
      name: pods
      type: Prometheus
      spec:
        connectorRef: prometheus_prod
        metricDefinitions:
        - identifier: latency
          metricName: response time
          query: 'avg by (pod) (request_seconds)'
          analysis:
            deploymentVerification: {enabled: true, serviceInstanceFieldName: pod}
            riskProfile: {riskCategory: Performance_ResponseTime, thresholdTypes: [ACT_WHEN_HIGHER]}
        - identifier: errors
          metricName: errors
          query: 'sum by (pod) (rate(request_errors_total[2s]))'
          analysis:
            deploymentVerification: {enabled: true, serviceInstanceFieldName: pod}
            riskProfile: {riskCategory: Errors, thresholdTypes: [ACT_WHEN_HIGHER]}
";

/// Production, with its metrics.
struct Measured {
    world: World,
    pods: PodMetrics,
    _prometheus: Prometheus,
}

impl Measured {
    async fn start() -> Measured {
        let mut world = World::start((false, false)).await;
        // Every sample strays by up to a quarter, in the canary and beside it.
        let pods = PodMetrics::start(&world.prod.plane, &world.prod.namespace(), 0.25);
        let prometheus = Prometheus::scraping(world.dir.path(), pods.port, "250ms", "up").await;
        world.aliases += &format!(",prometheus.example.com:9090=127.0.0.1:{}", prometheus.port);
        world.connect("prod");
        let file = world.dir.path().join("monitored.yaml");
        std::fs::write(&file, MONITORED).unwrap();
        world.manager.ok(&["apply", file.to_str().unwrap()]);
        world.commit("prod", &manifest(4));
        Measured { world, pods, _prometheus: prometheus }
    }

    /// Runs the pipeline with its windows of five and ten minutes as ten and twenty seconds, approved; its end.
    async fn deploy(&self, tag: &str) -> (String, Value) {
        let seed = package("seeds/k8s-payment-service-cd.yaml");
        let tag = format!("imageTag={tag}");
        let inputs = ["--input", &tag, "--input", "targetEnvironment=prod", "--input", "targetRegion=euw1"];
        let args = [&[seed.to_str().unwrap(), "--rehearse", "30"][..], &inputs].concat();
        let execution = self.world.manager.start_pipeline(&args);
        self.world.approve(&execution).await;
        let view = self.world.manager.finished(&execution, LIMIT).await;
        (execution, view)
    }
}

const STEPS: [&str; 7] = [
    "rolling_deploy",
    "canary_10",
    "verify_canary_10",
    "canary_50",
    "verify_canary_50",
    "canary_complete",
    "verify_health",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_noisy_good_canary_passes_and_a_bad_one_is_rolled_back() {
    let measured = Measured::start().await;
    let world = &measured.world;

    let (execution, view) = measured.deploy("v1").await;
    let log = world.log(&execution);
    assert_eq!(view["status"], "Success", "{view:#}\n{log}");
    assert_eq!(statuses(&view, &STEPS), ["Success"; 7], "{view:#}");
    for (id, canaries) in [("verify_canary_10", 1), ("verify_canary_50", 2)] {
        let outputs = &step(&view, id)["outputs"];
        assert_eq!(outputs["verdict"], "Pass", "{outputs:#}");
        let metrics = outputs["metrics"].as_array().unwrap();
        assert_eq!(metrics.len(), 2, "{outputs:#}");
        for metric in metrics {
            assert_eq!(metric["nodes"].as_array().unwrap().len(), canaries, "{id}: {metric:#}");
            // Pods that the rolling step has just replaced still have samples at the beginning of the first window.
            assert!(metric["controlNodes"].as_u64().is_some_and(|all| all >= 4), "{id}: {metric:#}");
        }
    }
    assert!(log.contains("response time  payment-service-canary-"), "a line for each canary pod: {log}");
    assert!(["▁", "█"].iter().all(|bar| log.contains(bar)), "with the shape of its series: {log}");
    assert_eq!(world.prod.deployed(), (format!("{IMAGE}:v1"), 4));
    // What was assumed about the image stands in the execution, not only in the log.
    for id in ["k8s_apply", "rolling_deploy", "canary_10"] {
        let notices = step(&view, id)["notices"].to_string();
        assert!(notices.contains("R13.image-tag") && notices.contains("`v1`"), "{id}: {notices}");
    }

    // Twice as slow, and some requests fail: the first verification ends it.
    measured.pods.canaries(2.0, 1.0);
    let (execution, view) = measured.deploy("v2").await;
    let log = world.log(&execution);
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Failed"), &json!(true)), "{view:#}\n{log}");
    let ends = ["Success", "Success", "Failed", "NotStarted", "NotStarted", "NotStarted", "NotStarted"];
    assert_eq!(statuses(&view, &STEPS), ends, "{view:#}");
    let failure = &step(&view, "verify_canary_10")["failure"];
    assert_eq!(
        (&failure["class"], &failure["code"]),
        (&json!("Verification"), &json!("VER-002")),
        "{failure:#}"
    );
    let message = failure["message"].as_str().unwrap();
    assert!(
        message.contains("payment-service-canary-") && message.contains("lies above the rest"),
        "{message}"
    );
    assert_eq!(step(&view, "rollback")["status"], "Success", "{view:#}\n{log}");
    let notices = step(&view, "rollback")["notices"].to_string();
    assert!(notices.contains("canary-removed-by-rollback"), "{notices}");
    assert!(notices.contains("Deployment/payment-service-canary"), "{notices}");
    assert_eq!(world.prod.deployed(), (format!("{IMAGE}:v1"), 4), "the version before is back");
    let left: Vec<String> =
        world.prod.objects("deployments").iter().map(|one| one["metadata"]["name"].to_string()).collect();
    assert_eq!(left, ["\"payment-service\""], "the canary is gone");
}
