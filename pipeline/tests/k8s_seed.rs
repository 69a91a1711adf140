//! The seed's Kubernetes pipeline, byte for byte: planned, run in the machine, and what its tasks carry.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::Plan;
use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::planner::{PlanOptions, plan, preflight, validate};
use proto::failure::FailureKind;
use proto::result::{Output, StepResult};
use proto::task::{
    ClusterCredential, Comparison, FileStore, GitReference, Instances, KubernetesAction, KubernetesSpec,
    ManifestKind, MetricProvider, Sensitivity, StepSpec,
};
use serde_json::json;
use std::collections::BTreeSet;
use support::{World, codes, failed, success};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/seeds");
const STAGE: &str = "pipeline.stages.deploy_service.spec.execution.steps";

fn seed(name: &str) -> String {
    std::fs::read_to_string(format!("{SEEDS}/{name}")).unwrap()
}

fn catalog(more: &str) -> Snapshot {
    let mut snapshot =
        Snapshot { secrets: vec!["git_token".into(), "sa_token".into()], ..Snapshot::default() };
    let files = ["connectors", "environments", "governance"].map(|name| format!("k8s-entities/{name}.yaml"));
    let texts = files.iter().map(|name| (name.as_str(), seed(name)));
    for (name, text) in texts.chain([("more.yaml", more.to_owned())]).filter(|(_, text)| !text.is_empty()) {
        let entities = parse_entities(name, &text).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        snapshot.entities.extend(entities.into_iter().map(CatalogEntity::from));
    }
    snapshot
}

fn options(environment: &str) -> PlanOptions {
    let inputs = [("imageTag", "v2.3.1"), ("targetEnvironment", environment), ("targetRegion", "euw1")];
    PlanOptions {
        inputs: inputs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        groups: BTreeSet::from(["payments_team".to_owned(), "platform_team".to_owned()]),
        ..support::options()
    }
}

fn planned(environment: &str) -> Plan {
    let yaml = seed("k8s-payment-service-cd.yaml");
    plan("k8s.yaml", &yaml, &catalog(""), &options(environment))
        .unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn kubernetes(task: &pipeline::machine::TaskRequest) -> &KubernetesSpec {
    match &task.task.step.spec {
        StepSpec::Kubernetes(spec) => spec,
        other => panic!("{other:?}"),
    }
}

fn outputs(pairs: &[(&str, serde_json::Value)]) -> StepResult {
    let outputs =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Output::from(value.clone()))).collect();
    StepResult { outputs, undo: Some(json!({"releaseNumber": 1})), ..success() }
}

#[test]
fn the_seed_is_accepted_with_a_notice_for_each_rule_that_it_needs() {
    let plan = planned("prod");
    let codes = codes(&plan);
    for code in [
        "R4.infrastructure-selectors",
        "R5.command-flags",
        "R12.blue-green-as-health",
        "R17.null-spec",
        "canary-after-rolling",
        "verify.no-health-source",
    ] {
        assert!(codes.contains(&code), "{code} is not among {codes:?}");
    }
    let unrendered = validate(
        "t.yaml",
        &seed("k8s-payment-service-cd.yaml").replace("payments_team", "{{TEAM}}"),
        None,
        pipeline::Mode::Lenient,
    );
    assert!(unrendered.faults[0].to_string().contains("TEAM"), "{:?}", unrendered.faults);
}

#[test]
fn int_stable_skips_what_is_for_production_and_carries_everything_to_the_agent() {
    let mut world = World::start_with(planned("int-stable"));
    let apply = world.answer(outputs(&[]));
    assert_eq!(apply.selectors[0].origin, "infrastructure");
    assert_eq!(apply.selectors[0].selectors, ["harness-delegate-int-stable-euw1"]);
    let spec = kubernetes(&apply);
    assert_eq!(spec.namespace, "int-stable-payment-service-euw1");
    assert_eq!(spec.release_name, "payment-service");
    assert_eq!(spec.cluster.connector, "k8s_int_stable_euw1");
    let manifest = spec.manifest.as_ref().unwrap();
    assert_eq!(manifest.kind, ManifestKind::K8sManifest { values_paths: vec![] });
    assert!(!manifest.skip_versioning);
    let Some(FileStore::Git(git)) = &manifest.store else { panic!("{manifest:?}") };
    assert_eq!(git.reference, GitReference::Branch("main".into()));
    assert_eq!(git.paths, ["generated/payment-service/int-stable/euw1/manifests.yaml"]);
    let flags: Vec<&str> = spec.command_flags.iter().map(|flag| flag.flag.as_str()).collect();
    assert_eq!(flags, ["--prune", "--selector=app=payment-service"]);
    assert!(spec.command_flags.iter().all(|flag| flag.command == "Apply"));
    let KubernetesAction::K8sApply { file_paths, skip_dry_run, .. } = &spec.action else {
        panic!("{spec:?}")
    };
    assert_eq!(file_paths, &git.paths);
    assert!(!skip_dry_run);
    assert_eq!(apply.task.service.as_ref().unwrap().variables["imageTag"].as_str(), "v2.3.1");
    assert!(apply.secrets.iter().any(|secret| secret.0 == "git_token"), "{:?}", apply.secrets);

    let rolling = world.answer(outputs(&[("releaseNumber", json!(1))]));
    let KubernetesAction::K8sRollingDeploy { in_canary_workflow, .. } = kubernetes(&rolling).action else {
        panic!()
    };
    assert!(!in_canary_workflow);
    let health = world.answer(success());
    let KubernetesAction::K8sBlueGreenDeploy { check_only, .. } = kubernetes(&health).action else {
        panic!()
    };
    assert!(check_only, "R12");
    assert_eq!(world.finished.as_deref(), Some("Success"));
    for step in ["prod_approval", "change_window_policy", "canary_group"] {
        assert_eq!(world.status(&format!("{STAGE}.{step}")), "Skipped", "{step}");
    }
}

/// Past the gates, which the manager itself keeps.
fn in_production() -> World {
    in_production_with("")
}

fn in_production_with(entities: &str) -> World {
    let yaml = seed("k8s-payment-service-cd.yaml");
    // The two gates are the manager's own and have tests of their own; here they are left out.
    let from = yaml.find("              # ============================================\n              # Conditional Approval").unwrap();
    let to = yaml
        .find("              # ============================================\n              # Fetch and Apply")
        .unwrap();
    let yaml = format!("{}{}", &yaml[..from], &yaml[to..]);
    let plan = plan("k8s.yaml", &yaml, &catalog(entities), &options("prod"))
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    World::start_with(plan)
}

/// A health source for what the seed deploys; Verify finds it by service and environment.
const MONITORED: &str = "
connector:
  {identifier: prom, name: prom, type: Prometheus, spec: {url: 'http://prometheus.example.com:9090'}}
---
monitoredService:
  identifier: payment-service_prod
  name: payment-service in prod
  type: Application
  serviceRef: payment-service
  environmentRef: prod
  sources:
    healthSources:
    - identifier: metrics
      name: metrics
      type: Prometheus
      spec:
        connectorRef: prom
        metricPacks:
        - identifier: Custom
          metricThresholds:
          - {type: FailImmediately, metricType: Custom, metricName: errors, spec: {action: FailImmediately}, criteria: {type: Absolute, spec: {greaterThan: 5}}}
        metricDefinitions:
        - identifier: latency
          metricName: response time
          query: 'avg by (kubernetes_pod) (latency{version=~\"$deploymentTag|.*\"})'
          analysis:
            deploymentVerification: {enabled: true, serviceInstanceFieldName: kubernetes_pod}
            riskProfile: {riskCategory: Performance_ResponseTime, thresholdTypes: [ACT_WHEN_HIGHER]}
        - {identifier: errors, metricName: errors, query: 'sum by (pod) (rate(errors_total[1m]))'}
        - {identifier: live, metricName: live, query: up, analysis: {deploymentVerification: {enabled: false}}}
";

#[test]
fn a_canary_is_verified_by_the_metrics_of_its_monitored_service() {
    let mut world = in_production_with(MONITORED);
    world.answer(outputs(&[]));
    world.answer(outputs(&[]));
    let named = "ns/Deployment/payment-service-canary";
    world.answer(outputs(&[("canaryWorkload", json!(named))]));
    let verify = world.answer(outputs(&[("verdict", json!("Pass"))]));
    assert_eq!(verify.task.step.identifier, "verify_canary_10");
    let StepSpec::Verify(spec) = &verify.task.step.spec else { panic!("{:?}", verify.task.step) };
    let canary = spec.canary.as_ref().unwrap();
    assert_eq!((canary.sensitivity, spec.duration_ms), (Sensitivity::Medium, 300_000));
    assert_eq!(canary.canary_nodes, ["payment-service-canary-*"]);
    assert!(spec.variables["deploymentTag"].starts_with("payment-service-"), "{:?}", spec.variables);
    let metrics: Vec<_> =
        canary.metrics.iter().map(|m| (m.name.as_str(), m.node_label.as_str(), m.comparison)).collect();
    let higher = Some(Comparison::LessOrEqual);
    assert_eq!(metrics, [("response time", "kubernetes_pod", higher), ("errors", "pod", higher)]);
    assert_eq!((canary.metrics[0].fail_fast, canary.metrics[1].fail_fast), (None, Some(5.0)));
    let MetricProvider::Prometheus { connector } = &canary.metrics[0].provider else {
        panic!("not Prometheus");
    };
    assert_eq!(connector.url, "http://prometheus.example.com:9090");
    world.answer(outputs(&[("canaryWorkload", json!(named))]));
    // The second verification gives only its length.
    let verify = world.answer(failed(FailureKind::Verification));
    assert_eq!(verify.task.step.identifier, "verify_canary_50");
    let StepSpec::Verify(spec) = &verify.task.step.spec else { panic!("{:?}", verify.task.step) };
    assert_eq!(spec.duration_ms, 600_000);
    let rollback = world.answer(success());
    assert_eq!(rollback.task.step.identifier, "rollback");
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn a_monitored_service_that_is_named_must_be_there_and_a_wrong_one_is_refused() {
    let verify = |service: &str| {
        format!(
            "- step: {{type: Verify, identifier: v, name: v, spec: {{type: Canary, monitoredService: {service}, spec: {{duration: 5m}}}}}}\n"
        )
    };
    let named = verify("{type: Configured, spec: {monitoredServiceRef: nobody}}");
    let faults = made(INLINE, &named, "").unwrap_err();
    assert!(faults.contains("nobody"), "{faults}");
    let faults = made(INLINE, &verify("{type: Template, spec: {}}"), "").unwrap_err();
    assert!(faults.contains("Template"), "{faults}");
    for (text, said) in [
        (
            "monitoredService: {identifier: m, name: m, sources: {healthSources: [{identifier: a, type: Splunk, spec: {}}]}}",
            "Splunk",
        ),
        (
            "monitoredService: {identifier: m, name: m, sources: {healthSources: [{identifier: a, type: Prometheus}]}}",
            "spec",
        ),
        (
            "monitoredService: {identifier: m, name: m, sources: {healthSources: [{identifier: a, type: Prometheus, spec: {connectorRef: c, metricDefinitions: [{metricName: x}]}}]}}",
            "query",
        ),
    ] {
        let faults = parse_entities("m.yaml", text).unwrap_err();
        assert!(faults.iter().any(|fault| fault.to_string().contains(said)), "{faults:?}");
    }
}

#[test]
fn production_rescales_its_canary_and_deletes_what_the_canary_step_named() {
    let mut world = in_production();
    world.answer(outputs(&[]));
    world.answer(outputs(&[]));
    let first = world.answer(outputs(&[("canaryWorkload", json!("ns/Deployment/payment-service-canary"))]));
    let KubernetesAction::K8sCanaryDeploy { instances, .. } = &kubernetes(&first).action else { panic!() };
    assert_eq!(*instances, Instances::Count(1));
    assert_eq!(world.status(&format!("{STAGE}.canary_group.steps.verify_canary_10")), "Skipped");
    let notices =
        &world.state.runs.get(&format!("{STAGE}.canary_group.steps.verify_canary_10")).unwrap().notices;
    assert!(notices[0].contains("no health source"), "{notices:?}");
    let named = "ns/Deployment/payment-service-canary,ns/ConfigMap/settings-canary";
    let second = world.answer(outputs(&[("canaryWorkload", json!(named))]));
    let KubernetesAction::K8sCanaryDeploy { instances, .. } = &kubernetes(&second).action else { panic!() };
    assert_eq!(*instances, Instances::Percentage(50));
    let delete = world.answer(success());
    let KubernetesAction::K8sCanaryDelete { workloads } = &kubernetes(&delete).action else { panic!() };
    assert_eq!(workloads, &["ns/Deployment/payment-service-canary", "ns/ConfigMap/settings-canary"]);
    assert!(kubernetes(&delete).manifest.is_none(), "a deletion renders nothing");
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn a_failed_canary_rolls_back_with_the_undo_data_of_the_steps_before_it() {
    let mut world = in_production();
    world.answer(StepResult { undo: Some(json!({"inventory": ["a"]})), ..success() });
    world.answer(StepResult { undo: Some(json!({"releaseNumber": 4})), ..success() });
    let result = StepResult {
        undo: Some(json!({"canaryWorkload": "ns/Deployment/x-canary"})),
        ..failed(FailureKind::Verification)
    };
    world.answer(result);
    let rollback = world.answer(success());
    assert_eq!(rollback.task.step.identifier, "rollback");
    assert!(matches!(
        kubernetes(&rollback).action,
        KubernetesAction::K8sRollingRollback { pruning_enabled: false }
    ));
    let undo = rollback.task.undo.as_ref().unwrap();
    assert_eq!(undo["releaseNumber"], 4);
    assert_eq!(undo["apply"], json!([{"inventory": ["a"]}]));
    assert_eq!(undo["canary"], json!([{"canaryWorkload": "ns/Deployment/x-canary"}]));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert_eq!(world.status(&format!("{STAGE}.verify_health")), "NotStarted");
}

#[test]
fn a_failed_apply_starts_nothing_later_and_rolls_back() {
    let mut world = World::start_with(planned("int-stable"));
    world.answer(failed(FailureKind::BadSpec));
    let rollback = world.answer(success());
    assert_eq!(rollback.task.step.identifier, "rollback");
    assert_eq!(world.status(&format!("{STAGE}.rolling_deploy")), "NotStarted");
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn the_look_ahead_names_the_agents_and_secrets_of_every_step() {
    let needs = preflight(&planned("prod"));
    let of = |step: &str| {
        needs.iter().find(|need| need.step == step).unwrap_or_else(|| panic!("{step}: {needs:?}"))
    };
    for step in ["k8s_apply", "rolling_deploy", "canary_10", "canary_complete", "verify_health"] {
        let need = of(step);
        assert_eq!(need.task_type, "K8S_COMMAND_TASK_NG", "{step}");
        assert_eq!(need.selectors[0].selectors, ["harness-delegate-prod-euw1"], "{step}");
    }
    assert_eq!(of("k8s_apply").secrets, ["git_token"]);
}

#[test]
fn the_look_ahead_names_repositories_behind_sshd_as_hosts() {
    let entities = format!(
        "{ENTITIES}---
secret: {{identifier: login, name: login, type: SSHKey, spec: {{port: 2022, auth: {{type: SSH, spec: {{credentialType: KeyReference, spec: {{userName: git, key: git_token}}}}}}}}}}
---
connector: {{identifier: repo, name: repo, type: Git, spec: {{url: 'ssh://git.example.com/shop.git', connectionType: Repo, type: Ssh, spec: {{sshKeyRef: login}}}}}}
"
    );
    let manifest = "- manifest: {identifier: m, type: K8sManifest, spec: {store: {type: Git, spec: {connectorRef: repo, gitFetchType: Branch, branch: main, paths: [k8s]}}}}";
    let text = document(manifest, &step("K8sRollingDeploy", "roll", "{}"), "");
    let hosts = |known: &[&str]| {
        let key = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU".to_owned();
        let host_keys = known.iter().map(|host| ((*host).to_owned(), vec![key.clone()])).collect();
        let options = pipeline::planner::PlanOptions { host_keys, ..support::options() };
        let plan = plan("p.yaml", &text, &catalog(&entities), &options)
            .unwrap_or_else(|faults| panic!("{faults:?}"));
        let needs = preflight(&plan);
        let need = needs.iter().find(|need| need.step == "roll").unwrap_or_else(|| panic!("{needs:?}"));
        need.hosts.iter().map(|host| (host.host.clone(), host.known)).collect::<Vec<_>>()
    };
    assert_eq!(hosts(&[]), [("git.example.com:2022".to_owned(), false)]);
    assert_eq!(hosts(&["git.example.com:2022"]), [("git.example.com:2022".to_owned(), true)]);
}

// --- single steps and manifests ---

const ENTITIES: &str = "
connector:
  {identifier: cluster, name: cluster, type: K8sCluster, spec: {credential: {type: ManualConfig, spec: {masterUrl: 'https://k8s.example.com', auth: {type: ServiceAccount, spec: {serviceAccountTokenRef: sa_token}}}}}}
---
connector:
  {identifier: charts, name: charts, type: HttpHelmRepo, spec: {helmRepoUrl: 'https://charts.example.com', auth: {type: Anonymous}}}
---
infrastructureDefinition:
  {identifier: infra, name: infra, environmentRef: prod, deploymentType: Kubernetes, type: KubernetesDirect, spec: {connectorRef: cluster, namespace: shop, releaseName: 'release-<+INFRA_KEY_SHORT_ID>'}}
";

fn document(manifests: &str, steps: &str, rollback: &str) -> String {
    let indent = |text: &str, by: usize| {
        text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect::<String>()
    };
    let mut text = format!(
        "pipeline:
  identifier: p
  name: p
  stages:
    - stage:
        identifier: s
        name: s
        type: Deployment
        spec:
          deploymentType: Kubernetes
          service:
            serviceRef: shop
            serviceDefinition:
              type: Kubernetes
              spec:
                variables: [{{name: level, type: String, value: debug}}]
                manifests:
{}          environment:
            environmentRef: prod
            infrastructureDefinitions: [{{identifier: infra}}]
          execution:
            steps:
{}",
        indent(manifests, 18),
        indent(steps, 14)
    );
    if !rollback.is_empty() {
        text.push_str(&format!("            rollbackSteps:\n{}", indent(rollback, 14)));
    }
    text
}

const INLINE: &str = "- manifest: {identifier: m, type: K8sManifest, spec: {store: {type: Inline, spec: {content: 'kind: ConfigMap # <+serviceVariables.level> <+kubernetes.release.revision>'}}}}";

fn step(kind: &str, id: &str, spec: &str) -> String {
    format!("- step: {{type: {kind}, identifier: {id}, name: {id}, timeout: 5m, spec: {spec}}}\n")
}

fn made(manifests: &str, steps: &str, rollback: &str) -> Result<Plan, String> {
    plan("p.yaml", &document(manifests, steps, rollback), &catalog(ENTITIES), &support::options())
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect())
}

fn started(manifests: &str, steps: &str, rollback: &str) -> World {
    World::start_with(made(manifests, steps, rollback).unwrap_or_else(|faults| panic!("{faults}")))
}

#[test]
fn every_step_type_reaches_the_agent_with_its_fields() {
    let patch = "{workload: Deployment/web, mergeStrategyType: Merge, source: {type: Inline, spec: {content: '{}'}}, recordChangeCause: true}";
    let steps = [
        step(
            "K8sApply",
            "apply",
            "{manifestSource: {identifier: own, type: K8sManifest, spec: {store: {type: Inline, spec: {content: 'kind: Job'}}}}, skipRendering: true}",
        ),
        step("K8sDryRun", "dry", "{}"),
        step("K8sDiff", "diff", "{}"),
        step(
            "K8sScale",
            "scale",
            "{workload: shop/Deployment/web, instanceSelection: {type: Percentage, spec: {percentage: 0}}, skipSteadyStateCheck: true}",
        ),
        step(
            "K8sDelete",
            "names",
            "{deleteResources: {type: ResourceName, spec: {resourceNames: ['Deployment/a,Service/b', Job/c]}}, commandFlags: [{commandType: Delete, flag: --cascade=orphan}]}",
        ),
        step("K8sDelete", "release", "{deleteResources: {type: ReleaseName, spec: {deleteNamespace: true}}}"),
        step("K8sDelete", "paths", "{deleteResources: {type: ManifestPath, spec: {allManifestPaths: true}}}"),
        step(
            "K8sRollout",
            "rollout",
            "{command: restart, resources: {type: ResourceName, spec: {resourceNames: [Deployment/web]}}}",
        ),
        step("K8sPatch", "patch", patch),
        step(
            "K8sTrafficRouting",
            "traffic",
            "{type: config, trafficRouting: {provider: istio, spec: {name: web}}}",
        ),
    ];
    let mut world = started(INLINE, &steps.concat(), "");
    let mut seen = Vec::new();
    world.answer_all(|task| {
        seen.push(kubernetes(task).clone());
        success()
    });
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let action = |index: usize| serde_json::to_value(&seen[index].action).unwrap();
    let names = [
        "K8sApply",
        "K8sDryRun",
        "K8sDiff",
        "K8sScale",
        "K8sDelete",
        "K8sDelete",
        "K8sDelete",
        "K8sRollout",
        "K8sPatch",
        "K8sTrafficRouting",
    ];
    assert_eq!(seen.iter().map(|spec| spec.action.kind()).collect::<Vec<_>>(), names);
    assert_eq!(seen[0].manifest.as_ref().unwrap().identifier, "own");
    assert_eq!(action(0)["skipRendering"], true);
    let Some(FileStore::Inline { content, .. }) = &seen[1].manifest.as_ref().unwrap().store else { panic!() };
    assert_eq!(content.as_str(), "kind: ConfigMap # debug $__HARNESS_INTERNAL_RELEASE_REVISION__");
    assert_eq!(action(3)["instances"], json!({"type": "Percentage", "value": 0}));
    assert_eq!(action(4)["resources"]["value"], json!(["Deployment/a", "Service/b", "Job/c"]));
    assert_eq!(seen[4].command_flags[0].command, "Delete");
    assert_eq!(
        (action(5)["resources"]["type"].clone(), action(5)["deleteNamespaces"].clone()),
        (json!("Release"), json!(true))
    );
    assert_eq!(action(6)["resources"], json!({"type": "Manifests", "value": []}));
    assert!(seen[6].manifest.is_some() && seen[5].manifest.is_none());
    assert_eq!(action(8)["mergeStrategy"], "Merge");
    assert_eq!(action(9)["config"]["trafficRouting"]["provider"], "istio");
    assert!(seen[0].release_name.starts_with("release-"), "{}", seen[0].release_name);
    let ClusterCredential::ServiceAccount { master_url, token, ca } = &seen[0].cluster.credential else {
        panic!()
    };
    assert_eq!(
        (master_url.as_str(), token.0.as_str(), ca.is_none()),
        ("https://k8s.example.com", "sa_token", true)
    );
}

#[test]
fn a_swap_takes_the_services_and_colours_that_the_deployment_told() {
    let steps = step("K8sBlueGreenDeploy", "bg", "{}")
        + &step("K8sBGSwapServices", "swap", "{}")
        + &step("K8sDiff", "fails", "{}");
    let mut world = started(INLINE, &steps, &step("K8sBGSwapServices", "back", "{}"));
    let deploy = world.answer(outputs(&[
        ("primaryServiceName", json!("web")),
        ("stageServiceName", json!("web-stage")),
        ("primaryColor", json!("green")),
        ("stageColor", json!("blue")),
    ]));
    let KubernetesAction::K8sBlueGreenDeploy { check_only, .. } = kubernetes(&deploy).action else {
        panic!()
    };
    assert!(!check_only, "somebody swaps: it is a real one");
    let swap = |task: &pipeline::machine::TaskRequest| match &kubernetes(task).action {
        KubernetesAction::K8sBGSwapServices { primary_service, stage_service, target_color } => {
            (primary_service.clone(), stage_service.clone(), target_color.clone().unwrap())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(swap(&world.answer(success())), ("web".into(), "web-stage".into(), "blue".into()));
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(swap(&world.answer(success())).2, "green", "back to what it was");
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn rollback_steps_of_what_never_happened_are_skipped() {
    let steps = step("K8sDiff", "fails", "{}")
        + &step("K8sBlueGreenDeploy", "bg", "{}")
        + &step("K8sBGSwapServices", "swap", "{}");
    let back = step("K8sBGSwapServices", "back", "{}") + &step("K8sRollingRollback", "undo", "{}");
    let mut world = started(INLINE, &steps, &back);
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    for id in ["back", "undo"] {
        let id = format!("pipeline.stages.s.spec.execution.rollbackSteps.{id}");
        assert_eq!(world.status(&id), "Skipped", "{id}");
    }
}

#[test]
fn values_of_service_environment_and_step_are_laid_over_in_their_order() {
    let git = |path: &str| {
        format!(
            "store: {{type: Github, spec: {{connectorRef: github_platform_next_cross_org, branch: main, paths: [{path}]}}}}"
        )
    };
    let manifests = format!(
        "- manifest: {{spec: {{{}, valuesPaths: [base/values.yaml], optionalValuesYaml: true}}}}\n- manifest: {{identifier: v, type: Values, spec: {{store: {{type: InheritFromManifest, spec: {{paths: [prod/values.yaml]}}}}}}}}",
        git("base")
    );
    let more = format!(
        "{ENTITIES}---\noverrides:\n  {{environmentRef: prod, manifests: [{{manifest: {{identifier: e, type: Values, spec: {{store: {{type: Inline, spec: {{content: 'level: <+serviceVariables.level>'}}}}}}}}}}]}}\n"
    );
    let steps = step(
        "K8sApply",
        "a",
        "{filePaths: [x.yaml], overrides: [{manifest: {identifier: s, type: Values, spec: {store: {type: Inline, spec: {content: 'n: 1'}}}}}]}",
    );
    let plan = plan("p.yaml", &document(&manifests, &steps, ""), &catalog(&more), &support::options())
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    for code in ["R24.manifest-id", "R24.manifest-type", "R24.fetch-type"] {
        assert!(codes(&plan).contains(&code), "{code}: {:?}", codes(&plan));
    }
    let mut world = World::start_with(plan);
    let task = world.answer(success());
    let spec = kubernetes(&task);
    let manifest = spec.manifest.as_ref().unwrap();
    assert_eq!(manifest.identifier, "manifest_1");
    assert_eq!(manifest.kind, ManifestKind::K8sManifest { values_paths: vec!["base/values.yaml".into()] });
    assert!(manifest.optional_values);
    let overrides: Vec<String> = spec
        .overrides
        .iter()
        .map(|store| match store {
            FileStore::Git(git) => git.paths.join(","),
            FileStore::Inline { content, .. } => content.as_str().to_owned(),
        })
        .collect();
    assert_eq!(overrides, ["prod/values.yaml", "level: debug", "n: 1"]);
}

#[test]
fn charts_and_overlays_are_named_as_they_are_written() {
    let chart = "- manifest: {identifier: c, type: HelmChart, spec: {store: {type: Http, spec: {connectorRef: charts, basePath: /stable}}, chartName: web, chartVersion: 1.2.3, helmVersion: V3, commandFlags: [{commandType: Template, flag: --include-crds --set a=b}]}}";
    let mut world = started(chart, &step("K8sRollingDeploy", "r", "{}"), "");
    let task = world.answer(success());
    let spec = kubernetes(&task);
    let kind = serde_json::to_value(&spec.manifest.as_ref().unwrap().kind).unwrap();
    assert_eq!(kind["repository"]["spec"]["url"], "https://charts.example.com/stable");
    assert_eq!((kind["chartName"].clone(), kind["chartVersion"].clone()), (json!("web"), json!("1.2.3")));
    let flags: Vec<(&str, &str)> =
        spec.command_flags.iter().map(|f| (f.command.as_str(), f.flag.as_str())).collect();
    assert_eq!(flags, [("Template", "--include-crds"), ("Template", "--set a=b")]);
    let overlay = "- manifest: {identifier: k, type: Kustomize, spec: {store: {type: Git, spec: {connectorRef: github_platform_next_cross_org, gitFetchType: Commit, commitId: 0123456789012345678901234567890123456789, folderPath: deploy}}, overlayConfiguration: {kustomizeYamlFolderPath: overlays/prod}}}\n- manifest: {identifier: p, type: KustomizePatches, spec: {store: {type: Inline, spec: {content: 'a: 1'}}}}\n- manifest: {identifier: v, type: Values, spec: {store: {type: Inline, spec: {content: 'b: 1'}}}}";
    let mut world = started(overlay, &step("K8sRollingDeploy", "r", "{}"), "");
    let task = world.answer(success());
    let spec = kubernetes(&task);
    let kind = serde_json::to_value(&spec.manifest.as_ref().unwrap().kind).unwrap();
    assert_eq!(kind, json!({"type": "Kustomize", "folder": "overlays/prod", "patchesPaths": []}));
    assert_eq!(spec.overrides.len(), 1, "values say nothing to an overlay");
}

#[test]
fn what_cannot_work_is_refused_before_the_run() {
    let rolling = step("K8sRollingDeploy", "r", "{}");
    let two = format!("{INLINE}\n{}", INLINE.replace("identifier: m", "identifier: n"));
    let none =
        "- manifest: {identifier: v, type: Values, spec: {store: {type: Inline, spec: {content: 'a: 1'}}}}";
    let refused = |manifests: &str, steps: &str, words: &str| {
        let faults = made(manifests, steps, "").map(|_| ()).unwrap_err();
        assert!(faults.contains(words), "{words}: {faults}");
    };
    refused(&two, &rolling, "several manifests (m, n)");
    refused(none, &rolling, "has no manifest");
    refused(INLINE, &step("K8sCanaryDelete", "d", "{}"), "no K8sCanaryDeploy");
    refused(INLINE, &step("K8sBGSwapServices", "d", "{}"), "no K8sBlueGreenDeploy");
    refused(INLINE, &step("K8sApply", "d", "{}"), "filePaths");
    refused(
        INLINE,
        &step("K8sCanaryDeploy", "d", "{instanceSelection: {type: Count, spec: {count: 0}}}"),
        "1 or more",
    );
    refused(
        INLINE,
        &step("K8sCanaryDeploy", "d", "{instanceSelection: {type: Percentage, spec: {percentage: 101}}}"),
        "1 to 100",
    );
    refused(
        INLINE,
        &step("K8sDelete", "d", "{deleteResources: {type: ResourceName, spec: {resourceNames: ['*']}}}"),
        "ReleaseName",
    );
    refused(
        INLINE,
        &step("K8sRollout", "d", "{command: undoo, resources: {type: ReleaseName}}"),
        "did you mean `undo`?",
    );
    refused(&INLINE.replace("K8sManifest", "OpenshiftTemplate"), &rolling, "OpenshiftTemplate");
    refused(&INLINE.replace("Inline", "S3"), &rolling, "supported are Git");
}

#[test]
fn names_that_no_cluster_takes_fail_the_step_with_their_value() {
    let more = ENTITIES.replace("namespace: shop", "namespace: Shop_1");
    let yaml = document(INLINE, &step("K8sRollingDeploy", "r", "{}"), "");
    let plan = plan("p.yaml", &yaml, &catalog(&more), &support::options()).unwrap();
    let world = World::start_with(plan);
    let run = world.state.runs.get("pipeline.stages.s.spec.execution.steps.r").unwrap();
    let failure = run.failure.as_ref().unwrap();
    assert!(failure.message.contains("`Shop_1` is no DNS label"), "{}", failure.message);
}

#[test]
fn an_infrastructure_without_type_namespace_and_release_takes_those_of_its_service() {
    let more = ENTITIES.replace("type: KubernetesDirect, ", "").replace(
        "namespace: shop, releaseName: 'release-<+INFRA_KEY_SHORT_ID>'",
        "delegateSelectors: [zone]",
    );
    let yaml = document(INLINE, &step("K8sRollingDeploy", "r", "{}"), "");
    let plan =
        plan("p.yaml", &yaml, &catalog(&more), &support::options()).unwrap_or_else(|f| panic!("{f:#?}"));
    for code in ["R2.infrastructure-type", "R2.namespace", "R2.releaseName"] {
        assert!(codes(&plan).contains(&code), "{code}: {:?}", codes(&plan));
    }
    let mut world = World::start_with(plan);
    let task = world.answer(success());
    assert_eq!(
        (kubernetes(&task).namespace.as_str(), kubernetes(&task).release_name.as_str()),
        ("shop-prod", "shop")
    );
    assert_eq!(task.selectors[0].selectors, ["zone"]);
}

#[test]
fn every_login_of_a_cluster_is_read_and_credentials_in_clear_are_refused() {
    let connector = |auth: &str| {
        let text = format!(
            "connector:\n  {{identifier: c, name: c, type: K8sCluster, spec: {{credential: {{type: ManualConfig, spec: {{masterUrl: 'https://k', auth: {auth}}}}}}}}}\n"
        );
        parse_entities("c.yaml", &text)
            .map_err(|faults| faults.iter().map(|f| format!("{f}\n")).collect::<String>())
    };
    for auth in [
        "{type: ServiceAccount, spec: {serviceAccountTokenRef: t, caCertRef: ca}}",
        "{type: ClientKeyCert, spec: {caCertRef: ca, clientCertRef: c, clientKeyRef: k, clientKeyAlgo: EC}}",
        "{type: OpenIdConnect, spec: {oidcIssuerUrl: 'https://i', oidcClientIdRef: id, oidcUsername: u, oidcPasswordRef: p, oidcScopes: openid}}",
    ] {
        connector(auth).unwrap_or_else(|faults| panic!("{auth}: {faults}"));
    }
    for (auth, words) in [
        ("{type: UsernamePassword, spec: {username: u, passwordRef: p}}", "supported are ServiceAccount"),
        ("{type: ServiceAccount, spec: {serviceAccountToken: clear}}", "in clear is refused"),
        ("{type: ClientKeyCert, spec: {clientCertRef: c}}", "clientKeyRef"),
        (
            "{type: OpenIdConnect, spec: {oidcIssuerUrl: 'https://i', oidcClientIdRef: id, oidcPasswordRef: p}}",
            "oidcUsername",
        ),
    ] {
        let faults = connector(auth).map(|_| ()).unwrap_err();
        assert!(faults.contains(words), "{words}: {faults}");
    }
}

#[test]
fn the_sample_is_planned_and_its_first_task_carries_the_tag() {
    let sample = |name: &str| {
        let path = format!("{}/../deploy/examples/kubernetes/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let inputs = [("tag".to_owned(), "1.4.0".to_owned())].into();
    let options = PlanOptions { inputs, ..support::options() };
    let plan = plan("p.yaml", &sample("pipeline.yaml"), &catalog(&sample("entities.yaml")), &options)
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    let mut world = World::start_with(plan);
    let diff = world.answer(success());
    assert_eq!(diff.task.service.as_ref().unwrap().variables["imageTag"].as_str(), "1.4.0");
    let Some(FileStore::Inline { content, .. }) = &kubernetes(&diff).manifest.as_ref().unwrap().store else {
        panic!()
    };
    assert!(content.as_str().contains("environment: \"prod\""), "{}", content.as_str());
    assert!(content.as_str().contains("shop:PLACEHOLDER_TAG"), "the agent puts it in");
}
