//! ECS steps, services and connectors one by one: what reaches the agent, and what is refused with its place.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::machine::{Event, Holdup, TaskRequest, rollback_of};
use pipeline::planner::{PlanOptions, plan};
use pipeline::view::execution_view;
use pipeline::{Mode, Plan};
use proto::failure::FailureKind;
use proto::result::{Output, StepResult};
use proto::task::{
    ArtifactSource, AwsCredential, EcsAction, EcsDocument, EcsSpec, FileStore, MetricProvider, RunTaskShape,
    StepSpec,
};
use serde_json::{Value, json};
use support::{World, codes, failed, success};

const ENTITIES: &str = "
connector: {identifier: aws, name: aws, type: Aws, spec: {delegateSelectors: [zone-aws], credential: {type: InheritFromDelegate, region: eu-west-1}}}
---
connector: {identifier: repo, name: repo, type: Github, spec: {url: 'https://git.example.com/acme/app', type: Repo, authentication: {type: Http, spec: {type: UsernameToken, spec: {username: robot, tokenRef: git_token}}}}}
---
environment: {identifier: prod, name: Prod, type: Production, variables: [{name: tier, value: gold}]}
---
infrastructureDefinition: {identifier: infra, name: infra, environmentRef: prod, deploymentType: ECS, type: ECS, spec: {connectorRef: aws, region: eu-west-1, cluster: main}}
";

const SERVICE: &str = "variables: [{name: level, type: String, value: debug}, {name: pw, type: Secret, value: db_pw}, {name: ecs_bg_listener_rule_arn, value: 'arn:rule'}, {name: ecs_bg_empty, value: ''}]
taskDefinition: {taskDefinitionArn: 'app:<+pipeline.sequenceId>', taskDefinitionSpec: {family: app, containerDefinitions: [{name: app, image: 'nginx:1', environment: [{name: PW, value: <+serviceVariables.pw>}]}]}}
serviceDefinition: {serviceName: app, desiredCount: 2, loadBalancers: [{targetGroupArn: 'arn:tg', containerName: app, containerPort: 80}]}";

fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

fn document(service: &str, steps: &str, rollback: &str) -> String {
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
          deploymentType: ECS
          service:
            serviceRef: app
            serviceDefinition:
              type: ECS
              spec:
{}          environment:
            environmentRef: prod
            infrastructureDefinitions: [{{identifier: infra}}]
          execution:
            steps:
{}",
        indent(service, 16),
        indent(steps, 14)
    );
    if !rollback.is_empty() {
        text.push_str(&format!("            rollbackSteps:\n{}", indent(rollback, 14)));
    }
    text
}

fn catalog(more: &str) -> Snapshot {
    let mut snapshot = Snapshot {
        secrets: ["git_token", "db_pw", "key_id", "key", "ext"].map(str::to_owned).to_vec(),
        ..Snapshot::default()
    };
    for (name, text) in [("entities.yaml", ENTITIES), ("more.yaml", more)] {
        if text.is_empty() {
            continue;
        }
        let entities = parse_entities(name, text).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        // What is given later stands for what was there before.
        for entity in entities {
            snapshot.entities.retain(|own| (own.kind, &own.id) != (entity.kind, &entity.id));
            snapshot.entities.push(CatalogEntity::from(entity));
        }
    }
    snapshot
}

fn step(kind: &str, id: &str, spec: &str) -> String {
    format!("- step: {{type: {kind}, identifier: {id}, name: {id}, timeout: 5m, spec: {spec}}}\n")
}

fn made_with(more: &str, service: &str, steps: &str, rollback: &str) -> Result<Plan, String> {
    plan("p.yaml", &document(service, steps, rollback), &catalog(more), &support::options())
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect())
}

fn made(steps: &str, rollback: &str) -> Result<Plan, String> {
    made_with("", SERVICE, steps, rollback)
}

fn started(steps: &str, rollback: &str) -> World {
    World::start_with(made(steps, rollback).unwrap_or_else(|faults| panic!("{faults}")))
}

fn ecs(task: &TaskRequest) -> &EcsSpec {
    match &task.task.step.spec {
        StepSpec::Ecs(spec) => spec,
        other => panic!("{other:?}"),
    }
}

fn action(task: &TaskRequest) -> Value {
    serde_json::to_value(&ecs(task).action).unwrap()
}

fn undo(data: Value) -> StepResult {
    StepResult { undo: Some(data), ..success() }
}

fn outputs(pairs: &[(&str, &str)]) -> StepResult {
    let outputs =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Output::from(json!(value)))).collect();
    StepResult { outputs, ..success() }
}

const CREATE: &str = "{loadBalancer: lb, prodListener: 'arn:l', prodListenerRuleArn: 'arn:r', isTrafficShift: true, stageTargetGroupArn: 'arn:g', sameAsAlreadyRunningInstances: true, updateGreenService: true}";

#[test]
fn every_step_type_reaches_the_agent_with_its_fields() {
    let steps = [
        step(
            "EcsRollingDeploy",
            "roll",
            "{sameAsAlreadyRunningInstances: true, skipApplicationScaling: true}",
        ),
        step(
            "EcsCanaryDeploy",
            "canary",
            "{instanceSelection: {type: Percentage, spec: {percentage: 25}}, replaceExisting: true}",
        ),
        step("EcsCanaryDelete", "gone", "{}"),
        step(
            "EcsServiceSetup",
            "setup",
            "{resizeStrategy: DownsizeOldFirst, sameAsAlreadyRunningInstances: true}",
        ),
        step(
            "EcsUpgradeContainer",
            "up",
            "{newServiceInstanceCount: 50, newServiceInstanceUnit: Percentage, downsizeOldServiceInstanceCount: 1, downsizeOldServiceInstanceUnit: Count}",
        ),
        step("EcsBlueGreenCreateService", "green", CREATE),
        step(
            "EcsBlueGreenTrafficShift",
            "shift",
            "{ecsTrafficShiftWrapper: {type: Inherit, spec: {weightPercentage: 30}}}",
        ),
        step(
            "EcsBlueGreenTrafficShift",
            "alone",
            "{ecsTrafficShiftWrapper: {type: Standalone, spec: {loadBalancer: lb, listener: 'arn:l2', forwardConfig: [{targetGroupArn: a, weight: 70}, {targetGroupArn: b, weight: 30}]}}}",
        ),
        step(
            "EcsScale",
            "scale",
            "{service: worker, instanceUnit: Percentage, instances: 50, skipSteadyStateCheck: true}",
        ),
    ];
    let mut world = started(&steps.concat(), "");
    let mut seen = Vec::new();
    world.answer_all(|task| {
        assert_eq!(task.task_type, "ECS_COMMAND_TASK_NG");
        assert_eq!(task.selectors[0].origin, "connector:aws");
        assert_eq!(task.selectors[0].selectors, ["zone-aws"]);
        let spec = ecs(task);
        assert_eq!((spec.cluster.as_str(), spec.account.region.as_str()), ("main", "eu-west-1"));
        assert_eq!(spec.variables, [("ecs_bg_listener_rule_arn".to_owned(), "arn:rule".to_owned())].into());
        seen.push(task.clone());
        success()
    });
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let of = |index: usize| action(&seen[index]);
    assert_eq!(
        of(0),
        json!({"type": "EcsRollingDeploy", "sameAsAlreadyRunningInstances": true, "forceNewDeployment": false, "skipSteadyStateCheck": false})
    );
    assert_eq!(
        of(1),
        json!({"type": "EcsCanaryDeploy", "instances": {"type": "Percentage", "value": 25}, "replaceExisting": true})
    );
    assert_eq!(of(2), json!({"type": "EcsCanaryDelete"}));
    assert_eq!(
        of(3),
        json!({"type": "EcsServiceSetup", "resizeStrategy": "DownsizeOldFirst", "sameAsAlreadyRunningInstances": true})
    );
    assert_eq!(
        of(4),
        json!({"type": "EcsUpgradeContainer", "newInstances": {"type": "Percentage", "value": 50}, "downsizeOld": {"type": "Count", "value": 1}})
    );
    assert_eq!(
        of(5)["routes"],
        json!({"loadBalancer": "lb", "prodListener": "arn:l", "prodListenerRuleArn": "arn:r", "stageListener": null, "stageListenerRuleArn": null, "stageTargetGroupArn": "arn:g"})
    );
    assert_eq!((&of(5)["trafficShift"], &of(5)["updateGreenService"]), (&json!(true), &json!(true)));
    assert_eq!(of(6)["shift"], json!({"type": "Inherit", "weightPercentage": 30}));
    assert_eq!(of(7)["shift"]["forward"], json!([["a", 70], ["b", 30]]));
    assert_eq!(
        of(8),
        json!({"type": "EcsScale", "service": "worker", "instances": {"type": "Percentage", "value": 50}, "skipSteadyStateCheck": true})
    );
    // Secrets inside of documents are named in the task, and stand as placeholders.
    assert!(seen[0].secrets.iter().any(|secret| secret.0 == "db_pw"), "{:?}", seen[0].secrets);
    let task = ecs(&seen[0]).definitions.task.as_ref().unwrap();
    assert_eq!(task.arn.as_deref(), Some("app:3"));
    let Some(EcsDocument::Value { place, value }) = &task.document else { panic!("{task:?}") };
    assert_eq!(place, "service app, taskDefinitionSpec");
    assert_eq!(
        value["containerDefinitions"][0]["environment"][0]["value"],
        "${ngSecretManager.obtain(\"db_pw\", 99)}"
    );
    assert_eq!(ecs(&seen[8]).definitions, proto::task::EcsDefinitions::default());
}

#[test]
fn a_native_deployment_carries_its_gates_and_is_continued() {
    let steps = step(
        "EcsRollingDeploy",
        "deploy",
        "{engine: native, gates: [pre_production_traffic_shift, POST_TEST_TRAFFIC_SHIFT], gateTimeout: 1h 30s}",
    ) + &step("EcsContinueDeployment", "half", "{until: Weight, weightPercentage: 50}")
        + &step("EcsContinueDeployment", "next", "{}")
        + &step("EcsContinueDeployment", "rest", "{until: End}");
    let mut world = started(&steps, "");
    let deploy = world.answer(undo(json!({"v": 1})));
    assert_eq!(
        action(&deploy)["native"],
        json!({"required": true, "gates": ["PRE_PRODUCTION_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT"], "gateTimeoutMinutes": 61})
    );
    let half = world.answer(success());
    assert_eq!(
        action(&half),
        json!({"type": "EcsContinueDeployment", "until": {"type": "Weight", "percent": 50}})
    );
    // What the deployment recorded is what says which deployment is continued.
    assert_eq!(ecs(&half).earlier.undo[0].data, json!({"v": 1}));
    assert!(ecs(&half).definitions.task.is_none());
    assert_eq!(action(&world.answer(success()))["until"], json!({"type": "NextPause"}));
    let rest = world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(action(&rest)["until"], json!({"type": "End"}));
    // A stage without rollback steps undoes the deployment, and nothing for its continuations.
    let back = world.answer(success());
    assert_eq!(action(&back), json!({"type": "EcsUndo", "step": "deploy", "kind": "EcsRollingDeploy"}));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn a_swap_carries_its_delay_in_milliseconds() {
    let create =
        CREATE.replace("isTrafficShift: true", "stageListener: 'arn:s', enableAutoScalingInSwapStep: true");
    let steps = step("EcsBlueGreenCreateService", "green", &create)
        + &step(
            "EcsBlueGreenSwapTargetGroups",
            "swap",
            "{doNotDownsizeOldService: true, downsizeOldServiceDelayInSecs: 90}",
        );
    let back =
        step("EcsBlueGreenRollback", "back", "{}") + &step("StandAloneTrafficShiftRollback", "alone", "{}");
    let mut world = started(&steps, &back);
    world.answer(undo(json!({"rules": 1})));
    let swap = world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(
        action(&swap),
        json!({"type": "EcsBlueGreenSwapTargetGroups", "doNotDownsizeOldService": true, "downsizeOldServiceDelayMs": 90_000})
    );
    let back = world.answer(success());
    assert_eq!(ecs(&back).action, EcsAction::EcsBlueGreenRollback {});
    assert_eq!(ecs(&back).earlier.undo[0].data, json!({"rules": 1}));
    assert_eq!(world.status("pipeline.stages.s.spec.execution.rollbackSteps.alone"), "Skipped");
}

// --- rule R9 ---

fn shape_of(id: &str, name: &str, spec: &str) -> Result<RunTaskShape, String> {
    let text = format!("- step: {{type: EcsRunTask, identifier: {id}, name: '{name}', spec: {spec}}}\n");
    let mut world = World::start_with(made(&text, "")?);
    let task = world.answer(success());
    match &ecs(&task).action {
        EcsAction::EcsRunTask { shape } => Ok((**shape).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn shapes_of_run_task_are_told_by_what_is_written_and_then_by_the_name() {
    let json = |id: &str, name: &str, spec: &str| {
        serde_json::to_value(shape_of(id, name, spec).unwrap_or_else(|faults| panic!("{spec}: {faults}")))
            .unwrap()
    };
    let run = json(
        "run",
        "run",
        "{runTaskRequestDefinition: {count: 1}, taskDefinitionArn: 'app:4', overrides: {containerOverrides: []}, networkFromService: app, waitFor: Running, stopOnAbort: false}",
    );
    assert_eq!(
        (&run["type"], &run["task"]["arn"], &run["waitUntilStopped"]),
        (&json!("Run"), &json!("app:4"), &json!(false))
    );
    assert_eq!(
        run["request"],
        json!({"type": "Value", "place": "step run, runTaskRequestDefinition", "value": {"count": 1}})
    );
    assert_eq!(
        (&run["networkFromService"], &run["overrides"]["containerOverrides"]),
        (&json!("app"), &json!([]))
    );
    assert_eq!(run["stopOnAbort"], json!(false));
    let stored =
        "{type: Github, spec: {connectorRef: repo, gitFetchType: Branch, branch: main, paths: [run.yaml]}}";
    let run = json(
        "run",
        "run",
        &format!(
            "{{runTaskRequestDefinition: {stored}, taskDefinition: {stored}, skipSteadyStateCheck: true}}"
        ),
    );
    assert_eq!(
        (&run["request"]["type"], &run["task"]["document"]["identifier"]),
        (&json!("File"), &json!("taskDefinition"))
    );
    assert_eq!((&run["waitUntilStopped"], &run["skipSteadyStateCheck"]), (&json!(true), &json!(true)));
    assert_eq!(run["stopOnAbort"], json!(true));
    assert_eq!(
        json("d", "d", "{taskDefinition: 'app:<+pipeline.sequenceId>'}"),
        json!({"type": "Describe", "taskDefinition": "app:3"})
    );
    assert_eq!(
        json("c", "c", "{taskDefinition: app, command: 'echo <+serviceVariables.level>'}"),
        json!({"type": "Command", "taskDefinition": "app", "command": "echo debug"})
    );
    let parts = "taskDefinition: {containerDefinitions: [{name: app}]}";
    assert_eq!(json("r", "r", &format!("{{{parts}}}"))["type"], "Register");
    let green = json(
        "g",
        "g",
        &format!("{{{parts}, serviceName: app-green, desiredCount: 4, targetGroupArn: 'arn:g'}}"),
    );
    assert_eq!(
        (&green["service"], &green["desiredCount"], &green["targetGroupArn"]),
        (&json!("app-green"), &json!(4), &json!("arn:g"))
    );
    for (id, name, spec, percent) in [
        ("Route_10_Percent", "Route 10% Traffic", "", 10),
        ("shift_full", "Shift 100 % to green", "{}", 100),
        ("traffic_5percent", "x", "{cluster: other}", 5),
        ("anything", "x", "{weight: 40}", 40),
        ("route_20_percent", "Route 20%", "{listenerRuleArn: 'arn:r', greenTargetGroupArn: 'arn:g'}", 20),
    ] {
        let shift = json(id, name, spec);
        assert_eq!((&shift["type"], &shift["percent"]), (&json!("Shift"), &json!(percent)), "{id}");
    }
    for (id, name, which) in [
        ("Terminate_Blue", "Terminate Blue", "blue"),
        ("drain", "Drain the green service", "green"),
        ("delete_app", "Delete it", "app"),
    ] {
        assert_eq!(json(id, name, "{}"), json!({"type": "Terminate", "which": which}), "{id}");
    }
}

#[test]
fn where_a_run_task_works_may_be_written_in_it() {
    let spec = "{taskDefinition: app, cluster: other, region: us-west-2}";
    let mut world = started(&step("EcsRunTask", "d", spec), "");
    let task = world.answer(success());
    assert_eq!((ecs(&task).cluster.as_str(), ecs(&task).account.region.as_str()), ("other", "us-west-2"));
}

#[test]
fn a_shape_that_nobody_knows_is_refused_with_all_shapes_and_its_place() {
    for (id, name, spec, why) in [
        ("nothing", "Nothing", "{}", "the spec is empty"),
        ("route", "Route traffic", "{}", "how much of the traffic"),
        ("route_10_percent", "Route 20% traffic", "{}", "10 % and 20 %"),
        ("route_101_percent", "x", "{}", "0 to 100"),
        ("end", "Delete blue and green", "{}", "both blue and green"),
        ("end", "Delete blue after 100% traffic shift", "{}", "both to shift traffic and to end"),
        ("end", "Delete something", "{}", "neither blue nor green nor app"),
        ("c", "c", "{command: ls}", "`command` needs `taskDefinition`"),
        ("c", "c", "{command: ls, taskDefinition: {containerDefinitions: [{name: a}]}}", "as an ARN"),
        ("t", "t", "{taskDefinition: {family: app}}", "holds no `containerDefinitions`"),
        ("t", "t", "{taskDefinition: {type: Git, spec: {}}}", "needs `runTaskRequestDefinition`"),
        ("route_10_percent", "x", "{serviceName: app}", "`serviceName` alone"),
    ] {
        let faults = shape_of(id, name, spec).unwrap_err();
        assert!(faults.contains(why), "{why}: {faults}");
        assert!(faults.starts_with("p.yaml:") && faults.contains("steps[0].step"), "{faults}");
        if !why.contains('%') && !why.contains("to 100") {
            for shape in [
                "unrecognised shape",
                "runTaskRequestDefinition",
                "`taskDefinition: ARN` with",
                "(shifts traffic to green)",
                "Terminate Blue",
            ] {
                assert!(faults.contains(shape), "{shape}: {faults}");
            }
        }
    }
}

#[test]
fn the_service_that_a_green_step_made_can_be_ended_by_its_name() {
    let steps = step(
        "EcsRunTask",
        "green",
        "{taskDefinition: {containerDefinitions: [{name: app}]}, serviceName: app-next}",
    ) + &step("EcsRunTask", "delete_app_next", "{}");
    let mut world = started(&steps, "");
    world.answer(outputs(&[("serviceName", "app-next"), ("taskDefinitionArn", "arn:td:2")]));
    let end = world.answer(success());
    assert_eq!(action(&end)["shape"], json!({"type": "Terminate", "which": "app-next"}));
    assert_eq!(ecs(&end).current_task_definition.as_deref(), Some("arn:td:2"));
}

// --- connectors ---

fn connector(credential: &str, more: &str) -> String {
    format!(
        "connector:\n  {{identifier: aws, name: aws, type: Aws, spec: {{credential: {credential}{more}}}}}\n"
    )
}

fn account(text: &str) -> proto::task::AwsAccount {
    let plan = made_with(text, SERVICE, &step("EcsRollingDeploy", "r", "{}"), "")
        .unwrap_or_else(|faults| panic!("{faults}"));
    let mut world = World::start_with(plan);
    let task = world.answer(success());
    let secrets: Vec<&str> = task.secrets.iter().map(|secret| secret.0.as_str()).collect();
    assert!(
        !text.contains("key_id") || secrets.contains(&"key_id") && secrets.contains(&"key"),
        "{secrets:?}"
    );
    ecs(&task).account.clone()
}

#[test]
fn both_shapes_of_a_connector_give_the_same_account() {
    let manual = |id: &str, key: &str| {
        let text =
            connector(&format!("{{type: ManualConfig, region: us-east-1, spec: {{{id}, {key}}}}}"), "");
        account(&text)
    };
    let inline =
        manual("accessKey: <+secrets.getValue(\"key_id\")>", "secretKey: <+secrets.getValue(\"key\")>");
    let by_reference = manual("accessKeyRef: key_id", "secretKeyRef: key");
    assert_eq!(inline, by_reference);
    let AwsCredential::ManualConfig { secret_key, .. } = &inline.credential else { panic!("{inline:?}") };
    assert_eq!(secret_key.as_str(), "${ngSecretManager.obtain(\"key\", 99)}");
    let AwsCredential::ManualConfig { access_key, .. } =
        manual("accessKey: AKIA1", "secretKeyRef: key").credential
    else {
        panic!()
    };
    assert_eq!(access_key.as_str(), "AKIA1");
    assert_eq!(inline.region, "eu-west-1", "the infrastructure's");

    let role = account(&connector(
        "{type: Irsa, crossAccountAccess: {crossAccountRoleArn: 'arn:aws:iam::1:role/deploy', externalId: <+secrets.getValue(\"ext\")>}}",
        ", endpoints: {default: 'http://127.0.0.1:4566', elastic-load-balancing-v2: 'http://127.0.0.1:4567'}",
    ));
    assert_eq!(role.credential, AwsCredential::Irsa);
    let assumed = role.assume_role.unwrap();
    assert_eq!(
        (assumed.role_arn.as_str(), assumed.external_id.unwrap().as_str()),
        ("arn:aws:iam::1:role/deploy", "${ngSecretManager.obtain(\"ext\", 99)}")
    );
    assert_eq!(
        role.endpoints,
        [
            ("".to_owned(), "http://127.0.0.1:4566".to_owned()),
            ("elastic_load_balancing_v2".to_owned(), "http://127.0.0.1:4567".to_owned())
        ]
        .into()
    );
    let one = account(&connector("{type: InheritFromDelegate}", ", endpoints: 'http://127.0.0.1:4566'"));
    assert_eq!(
        (one.credential, one.endpoints[""].as_str()),
        (AwsCredential::InheritFromDelegate, "http://127.0.0.1:4566")
    );
}

#[test]
fn connectors_tell_what_they_assume_and_what_they_refuse() {
    let read = |text: &str| {
        parse_entities("c.yaml", text)
            .map_err(|faults| faults.iter().map(|f| format!("{f}\n")).collect::<String>())
    };
    let seed = connector(
        "{type: ManualConfig, spec: {accessKey: <+secrets.getValue(\"a\")>, secretKey: <+secrets.getValue(\"b\")>, region: us-east-1}}",
        ", executeOnDelegate: false, awsSdkClientBackOffStrategyOverride: {type: FixedDelayBackoffStrategy}",
    );
    let notices: Vec<String> =
        read(&seed).unwrap()[0].notices.iter().map(|notice| notice.yaml_path.clone()).collect();
    for path in ["accessKey", "secretKey", "spec.region", "awsSdkClientBackOffStrategyOverride"] {
        assert!(notices.iter().any(|own| own.ends_with(path)), "{path}: {notices:?}");
    }
    for (credential, more, words) in [
        (
            "{type: ManualConfig, spec: {accessKey: a, secretKey: clear}}",
            "",
            "c.yaml:2:115: connector.spec.credential.spec.secretKey: a secret key in clear is refused",
        ),
        ("{type: ManualConfig, spec: {accessKeyRef: a}}", "", "`secretKeyRef` is missing"),
        ("{type: ManualConfigg}", "", "did you mean `ManualConfig`?"),
        (
            "{type: OidcAuthentication, spec: {iamRoleArn: x}}",
            "",
            "known are ManualConfig, InheritFromDelegate, Irsa",
        ),
        ("{spec: {}}", "", "`type` is missing"),
        ("{type: Irsa, crossAccountAccess: {externalId: x}}", "", "`crossAccountRoleArn` is missing"),
        ("{type: Irsa}", ", endpoints: {ecs: 'localhost:1'}", "is no URL"),
        ("{type: Irsa}", ", endpoints: {'a/b': 'http://x'}", "by the name of a service"),
        ("{type: Irsa}", ", endpoints: [x]", "expected a URL or a map of URLs"),
    ] {
        let faults = read(&connector(credential, more)).map(|_| ()).unwrap_err();
        assert!(faults.contains(words), "{words}: {faults}");
    }
    let selectors = connector("{type: InheritFromDelegate, spec: {delegateSelectors: [inner]}}", "");
    let plan = made_with(&selectors, SERVICE, &step("EcsRollingDeploy", "r", "{}"), "").unwrap();
    assert_eq!(World::start_with(plan).answer(success()).selectors[0].selectors, ["inner"]);
}

#[test]
fn a_secret_key_that_is_no_secret_fails_the_step_without_showing_it() {
    let text =
        connector("{type: ManualConfig, spec: {accessKey: a, secretKey: <+serviceVariables.level>}}", "");
    let plan = made_with(&text, SERVICE, &step("EcsRollingDeploy", "r", "{}"), "").unwrap();
    let world = World::start_with(plan);
    let failure =
        world.state.runs.get("pipeline.stages.s.spec.execution.steps.r").unwrap().failure.clone().unwrap();
    assert!(
        failure.message.contains("must be one secret") && !failure.message.contains("debug"),
        "{}",
        failure.message
    );
}

#[test]
fn connectors_that_are_missing_or_of_another_type_refuse_the_run() {
    let wrong = "connector: {identifier: aws, name: aws, type: DockerRegistry, spec: {dockerRegistryUrl: 'http://r', auth: {type: Anonymous}}}";
    let roll = step("EcsRollingDeploy", "r", "{}");
    let faults = made_with(wrong, SERVICE, &roll, "").unwrap_err();
    assert!(faults.contains("the connector `aws` is of another type; expected Aws"), "{faults}");
    let infra = |spec: &str| {
        format!(
            "infrastructureDefinition: {{identifier: infra, name: infra, environmentRef: prod, deploymentType: ECS, type: ECS, spec: {spec}}}"
        )
    };
    let nobody = infra("{connectorRef: awss, region: eu-west-1, cluster: main}");
    let faults = made_with(&nobody, SERVICE, &roll, "").unwrap_err();
    assert!(
        faults.contains("the connector `awss` does not exist") && faults.contains("did you mean `aws`?"),
        "{faults}"
    );
    let lost = connector(
        "{type: ManualConfig, spec: {accessKeyRef: nokey, secretKey: <+secrets.getValue(\"nosecret\")>}}",
        "",
    );
    let faults = made_with(&lost, SERVICE, &roll, "").unwrap_err();
    assert!(
        faults.contains("`nokey` has no value") && faults.contains("`nosecret` has no value"),
        "{faults}"
    );
    let verify = "- step: {type: Verify, identifier: v, name: v, spec: {type: CloudWatch, duration: 5m, spec: {connectorRef: repo, query: avg(X), metricName: X, threshold: {type: Absolute, spec: {value: 1}}}}}\n";
    let faults = made(&(roll + verify), "").unwrap_err();
    assert!(faults.contains("the connector `repo` is of another type; expected Aws"), "{faults}");
}

// --- infrastructures ---

#[test]
fn infrastructures_are_known_by_every_spelling_and_take_what_they_lack_from_the_service() {
    for (kind, code) in [("type: EcsInfrastructure, ", "R2.type-alias"), ("", "R2.infrastructure-type")] {
        let infra = format!(
            "infrastructureDefinition: {{identifier: infra, name: infra, environmentRef: prod, deploymentType: ECS, {kind}spec: {{connectorRef: aws, region: eu-west-1, cluster: '<+env.name>-main', namespace: default, delegateSelectors: [Near]}}}}"
        );
        let look = step("EcsRunTask", "d", "{taskDefinition: 'x:<+infra.region>:<+infra.cluster>'}");
        let plan = made_with(&infra, SERVICE, &look, "").unwrap_or_else(|faults| panic!("{faults}"));
        for code in [code, "ecs.namespace"] {
            assert!(codes(&plan).contains(&code), "{code}: {:?}", codes(&plan));
        }
        let mut world = World::start_with(plan);
        let task = world.answer(success());
        assert_eq!(
            (ecs(&task).cluster.as_str(), ecs(&task).namespace.as_deref()),
            ("Prod-main", Some("default"))
        );
        assert_eq!(action(&task)["shape"]["taskDefinition"], "x:eu-west-1:Prod-main");
        assert_eq!(task.selectors[0].selectors, ["near"]);
        assert_eq!(task.task.infrastructure.as_ref().unwrap().kind, "ECS");
    }
    for (spec, words) in [
        ("{region: a, cluster: b}", "`connectorRef` is missing"),
        ("{connectorRef: aws, cluster: b}", "`region` is missing"),
        ("{connectorRef: aws, region: a, cluster: ''}", "`cluster` is empty"),
        ("{connectorRef: aws, region: a, cluster: b, provisioner: x}", "provisions nothing"),
    ] {
        let text = format!(
            "infrastructureDefinition: {{identifier: i, name: i, environmentRef: prod, type: ECS, spec: {spec}}}"
        );
        let faults = parse_entities("i.yaml", &text).map(|_| ()).unwrap_err();
        assert!(faults.iter().any(|fault| fault.to_string().contains(words)), "{words}: {faults:?}");
    }
}

#[test]
fn a_step_may_bring_its_own_place_and_without_one_needs_a_cluster() {
    let scale = |place: &str| {
        let steps = step("EcsScale", "scale", &format!("{{service: worker, instances: 4{place}}}"));
        plan("p.yaml", &support::custom("", &steps, ""), &catalog(""), &support::options())
            .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())
    };
    let plan = scale(", connectorRef: aws, region: us-west-2, cluster: jobs")
        .unwrap_or_else(|faults| panic!("{faults}"));
    let mut world = World::start_with(plan);
    let task = world.answer(success());
    assert_eq!((ecs(&task).cluster.as_str(), ecs(&task).account.region.as_str()), ("jobs", "us-west-2"));
    let faults = scale("").map(|_| ()).unwrap_err();
    assert!(
        faults.contains("its stage deploys to none") && faults.contains("write `connectorRef`"),
        "{faults}"
    );

    let ssh = support::deployment(&step("EcsRollingDeploy", "r", "{}"), "");
    let faults = support::faults(&ssh);
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains("the stage's infrastructure is of type Pdc")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("the service `web` is of type Ssh")), "{texts:?}");
}

// --- services ---

fn git(path: &str) -> String {
    format!(
        "store: {{type: Github, spec: {{connectorRef: repo, gitFetchType: Branch, branch: main, paths: [{path}]}}}}"
    )
}

fn manifests() -> String {
    let inline = "store: {type: Inline, spec: {content: '{\"serviceName\": \"app-<+env.name>\", \"loadBalancers\": [{\"targetGroupArn\": \"<+targetGroupArn>\"}]}'}}";
    format!(
        "variables: [{{name: level, value: debug}}, {{name: pw, type: Secret, value: db_pw}}]
ecsTaskDefinitionArn: app
manifests:
- manifest: {{identifier: td, type: EcsTaskDefinition, spec: {{{}}}}}
- manifest: {{identifier: svc, type: EcsServiceDefinition, spec: {{{inline}}}}}
- manifest: {{identifier: target, type: EcsScalableTargetDefinition, spec: {{{}}}}}
- manifest: {{identifier: policy, type: EcsScalingPolicyDefinition, spec: {{{}}}}}",
        git("'ecs/<+env.name>/task.json'"),
        git("target.yaml"),
        git("policy.yaml")
    )
}

#[test]
fn manifests_are_fetched_by_the_agent_with_what_their_expressions_may_name() {
    let plan = made_with("", &manifests(), &step("EcsRollingDeploy", "r", "{}"), "")
        .unwrap_or_else(|faults| panic!("{faults}"));
    let mut world = World::start_with(plan);
    let task = world.answer(success());
    let definitions = &ecs(&task).definitions;
    let own = definitions.task.as_ref().unwrap();
    assert_eq!(own.arn.as_deref(), Some("app"));
    let Some(EcsDocument::File { identifier, store: FileStore::Git(source) }) = &own.document else {
        panic!("{own:?}")
    };
    assert_eq!(
        (identifier.as_str(), source.paths.as_slice()),
        ("td", &["ecs/Prod/task.json".to_owned()][..])
    );
    let Some(EcsDocument::File { store: FileStore::Inline { content, .. }, .. }) = &definitions.service
    else {
        panic!("{definitions:?}")
    };
    // The mark is the agent's to replace; everything else is resolved.
    assert_eq!(
        content.as_str(),
        "{\"serviceName\": \"app-Prod\", \"loadBalancers\": [{\"targetGroupArn\": \"<+targetGroupArn>\"}]}"
    );
    assert_eq!((definitions.scalable_targets.len(), definitions.scaling_policies.len()), (1, 1));
    let context = &ecs(&task).context;
    assert_eq!(
        context["serviceVariables"],
        json!({"level": "debug", "pw": "${ngSecretManager.obtain(\"db_pw\", 99)}"})
    );
    assert_eq!(
        (&context["env"]["name"], &context["env"]["variables"]["tier"]),
        (&json!("Prod"), &json!("gold"))
    );
    assert_eq!(
        (&context["infra"]["cluster"], &context["infra"]["region"]),
        (&json!("main"), &json!("eu-west-1"))
    );
    assert_eq!(
        (&context["pipeline"]["sequenceId"], &context["service"]["identifier"]),
        (&json!(3), &json!("app"))
    );
    assert!(task.secrets.iter().any(|secret| secret.0 == "git_token"), "{:?}", task.secrets);
}

#[test]
fn an_override_replaces_a_manifest_of_the_service() {
    let over = format!(
        "overrides: {{environmentRef: prod, manifests: [{{manifest: {{identifier: td, type: EcsTaskDefinition, spec: {{{}}}}}}}]}}",
        git("other.json")
    );
    let plan = made_with(&over, &manifests(), &step("EcsRollingDeploy", "r", "{}"), "")
        .unwrap_or_else(|faults| panic!("{faults}"));
    let mut world = World::start_with(plan);
    let task = world.answer(success());
    let own = ecs(&task).definitions.task.as_ref().unwrap();
    let Some(EcsDocument::File { store: FileStore::Git(source), .. }) = &own.document else {
        panic!("{own:?}")
    };
    assert_eq!(source.paths, ["other.json"]);
}

#[test]
fn an_image_in_ecr_is_pinned_and_knows_its_region_and_platform() {
    let artifact = |spec: &str| {
        let service = SERVICE.replace(
            "family: app,",
            "family: app, runtimePlatform: {cpuArchitecture: ARM64, operatingSystemFamily: LINUX},",
        );
        let service = service.replace("'nginx:1'", "<+artifact.image>");
        let service = format!(
            "{service}\nartifacts: {{primary: {{sources: [{{identifier: image, type: Ecr, spec: {{connectorRef: aws, tag: v1, {spec}}}}}], primaryArtifactRef: image}}}}"
        );
        made_with("", &service, &step("EcsRollingDeploy", "r", "{}"), "")
    };
    let plan = artifact("imagePath: team/app, region: us-east-2, registryId: '210987654321'")
        .unwrap_or_else(|faults| panic!("{faults}"));
    let mut world = World::start_with(plan);
    let image = "210987654321.dkr.ecr.us-east-2.amazonaws.com/team/app@sha256:aa";
    let lookup = world.answer(outputs(&[("tag", "v1"), ("digest", "sha256:aa"), ("image", image)]));
    let StepSpec::ResolveArtifact(spec) = &lookup.task.step.spec else { panic!() };
    let ArtifactSource::Ecr { account, image_path, registry_id, platform } = &spec.artifact.source else {
        panic!()
    };
    assert_eq!((account.region.as_str(), image_path.as_str()), ("us-east-2", "team/app"));
    assert_eq!((registry_id.as_deref(), platform.as_deref()), (Some("210987654321"), Some("linux/arm64")));
    let roll = world.answer(success());
    let Some(EcsDocument::Value { value, .. }) = &ecs(&roll).definitions.task.as_ref().unwrap().document
    else {
        panic!()
    };
    assert_eq!(value["containerDefinitions"][0]["image"], image);
    assert_eq!(roll.task.artifact.as_ref().unwrap().digest.as_deref(), Some("sha256:aa"));

    let plan = artifact("imagePath: app").unwrap_or_else(|faults| panic!("{faults}"));
    let lookup = World::start_with(plan).answer(success());
    let StepSpec::ResolveArtifact(spec) = &lookup.task.step.spec else { panic!() };
    let ArtifactSource::Ecr { account, .. } = &spec.artifact.source else { panic!() };
    assert_eq!(account.region, "eu-west-1", "the infrastructure's");
    let host = "imagePath: 123456789012.dkr.ecr.us-east-1.amazonaws.com/app, region: us-west-2";
    let faults = artifact(host).unwrap_err();
    assert!(faults.contains("which is `us-east-1`"), "{faults}");
}

#[test]
fn what_cannot_work_is_refused_before_the_run_with_its_place() {
    let roll = step("EcsRollingDeploy", "r", "{}");
    let service = |text: &str, steps: &str, words: &str| {
        let faults = made_with("", text, steps, "").map(|_| ()).unwrap_err();
        assert!(faults.contains(words) && faults.contains("p.yaml:"), "{words}: {faults}");
    };
    service("variables: []", &roll, "the service `app` has no service definition");
    service("serviceDefinition: {serviceName: app}", &roll, "the service `app` has no task definition");
    service(
        &SERVICE.replace("serviceName: app, ", ""),
        &roll,
        "serviceDefinition.serviceName: `serviceName` is missing",
    );
    service(&SERVICE.replace("desiredCount: 2", "desiredCount: two"), &roll, "found `\"two\"`");
    service(
        &SERVICE
            .replace("loadBalancers: [", "loadBalancers: {x: [")
            .replace("containerPort: 80}]", "containerPort: 80}]}"),
        &roll,
        "loadBalancers: expected a list",
    );
    service(
        &SERVICE.replace("{name: app, image", "{nane: app, image"),
        &roll,
        "containerDefinitions[0]: the container has no `name`",
    );
    service(
        &SERVICE
            .replace("taskDefinitionArn: 'app:<+pipeline.sequenceId>', ", "")
            .replace("family: app, ", ""),
        &roll,
        "`family` is missing",
    );
    service("taskDefinition: {taskDefinitionSpec: {family: a}}", &roll, "`containerDefinitions` is missing");
    service(&format!("{SERVICE}\necsTaskDefinitionArn: other"), &roll, "says another one");
    let twice = format!(
        "{SERVICE}\nmanifests: [{{manifest: {{identifier: m, type: EcsServiceDefinition, spec: {{{}}}}}}}]",
        git("a.json")
    );
    service(&twice, &roll, "has a service definition already");
    service(
        &twice.replace("EcsServiceDefinition", "K8sManifest"),
        &roll,
        "`K8sManifest` is no manifest of a service of type ECS",
    );
    service(&manifests().replace("[target.yaml]", "[a, b]"), &roll, "is one file; found a, b");
    service(
        &SERVICE.replace("'nginx:1'", "'<+artifact.imag>e<+nowhere.x>'"),
        &roll,
        "`<+nowhere.x>` leads nowhere",
    );

    let refused = |steps: &str, words: &str| service(SERVICE, steps, words);
    refused(&step("EcsCanaryDelete", "d", "{}"), "no EcsCanaryDeploy before it");
    refused(
        &step("EcsRollingDeploy", "d", "{gates: [BAKE_TIME]}"),
        "`BAKE_TIME` is not a known lifecycle stage",
    );
    refused(&step("EcsRollingDeploy", "d", "{engine: warp}"), "`warp` is not a known engine");
    refused(&step("EcsRollingDeploy", "d", "{gates: [PRE_SCALE_UP], gateTimeout: 30s}"), "1m to 14d");
    refused(&step("EcsRollingDeploy", "d", "{gateTimeout: 10m}"), "needs `gates`");
    refused(&step("EcsContinueDeployment", "c", "{}"), "no EcsRollingDeploy before it");
    let after = |spec: &str| step("EcsRollingDeploy", "d", "{}") + &step("EcsContinueDeployment", "c", spec);
    refused(&after("{until: Weight}"), "`weightPercentage` is missing");
    refused(&after("{weightPercentage: 5}"), "needs `until: Weight`");
    refused(
        &step("EcsCanaryDeploy", "d", "{instanceSelection: {type: Count, spec: {count: 0}}}"),
        "1 or more",
    );
    refused(&step("EcsBlueGreenSwapTargetGroups", "d", "{}"), "no EcsBlueGreenCreateService before it");
    refused(
        &(step("EcsBlueGreenCreateService", "g", CREATE) + &step("EcsBlueGreenSwapTargetGroups", "d", "{}")),
        "not to be swapped",
    );
    refused(
        &step("EcsBlueGreenCreateService", "g", "{loadBalancer: a, prodListener: b}"),
        "`stageListener` is missing",
    );
    refused(&step("EcsBlueGreenCreateService", "g", "{isTrafficShift: true}"), "`loadBalancer` is missing");
    refused(
        &step(
            "EcsBlueGreenTrafficShift",
            "d",
            "{ecsTrafficShiftWrapper: {type: Inherit, spec: {weightPercentage: 10}}}",
        ),
        "to inherit from",
    );
    refused(
        &step(
            "EcsBlueGreenTrafficShift",
            "d",
            "{ecsTrafficShiftWrapper: {type: Inherit, spec: {weightPercentage: 101}}}",
        ),
        "0 to 100; found `101`",
    );
    refused(
        &step(
            "EcsBlueGreenTrafficShift",
            "d",
            "{ecsTrafficShiftWrapper: {type: Standalone, spec: {loadBalancer: a, listener: b, forwardConfig: []}}}",
        ),
        "one to five target groups",
    );
    refused(
        &step("EcsBlueGreenTrafficShift", "d", "{ecsTrafficShiftWrapper: {type: Inherited, spec: {}}}"),
        "did you mean `Inherit`?",
    );
    refused(
        &step("EcsUpgradeContainer", "d", "{newServiceInstanceCount: 1}"),
        "no EcsServiceSetup before it",
    );
    refused(&step("EcsUpgradeContainer", "d", "{}"), "`newServiceInstanceCount` is missing");
    refused(&step("EcsServiceSetup", "d", "{resizeStrategy: Both}"), "`Both` is not a known resize strategy");
    refused(&step("EcsScale", "d", "{instances: 1}"), "`service` is missing");
    refused(&step("EcsScale", "d", "{service: a, instances: -1}"), "0 or more; found `-1`");
    refused(&step("EcsRollingDeploy", "d", "{forceNewDeployment: maybe}"), "expected `true` or `false`");
    refused(
        &step("EcsRunTask", "d", "{taskDefinition: {containerDefinitions: [{name: a}, {name: a}]}}"),
        "two containers `a`",
    );
    refused(
        &step(
            "EcsRunTask",
            "d",
            "{taskDefinition: {containerDefinitions: [{name: a}]}, serviceName: b, launchType: LAMBDA}",
        ),
        "`LAMBDA` is not a known launch type",
    );
    refused(
        &step("EcsRunTask", "d", "{runTaskRequestDefinition: {count: 1}, waitFor: Ever}"),
        "state to wait for",
    );
    let plan = made(&step("EcsRollingDeploy", "r", "{forceNewDeploiment: true}"), "").unwrap();
    assert!(codes(&plan).contains(&"unknown-key"), "{:?}", codes(&plan));
}

// --- flow ---

#[test]
fn undo_of_a_loop_goes_over_its_iterations_backwards_and_where_each_of_them_worked() {
    let steps = "- stepGroup:
    identifier: g
    name: g
    delegateSelectors: [group-zone]
    strategy: {matrix: {region: [eu-west-1, us-east-1]}}
    steps:
      - step: {type: EcsScale, identifier: scale, name: 'Scale <+matrix.region>', spec: {service: worker, instances: 4, region: <+matrix.region>}}
- step: {type: EcsRollingDeploy, identifier: roll, name: Roll, spec: {}}
";
    let mut world = started(steps, "");
    world.answer(undo(json!({"count": 1})));
    world.answer(undo(json!({"count": 2})));
    world.answer(failed(FailureKind::RemoteFailed));
    let mut seen = Vec::new();
    world.answer_all(|task| {
        let EcsAction::EcsUndo { step, .. } = &ecs(task).action else { panic!("{:?}", ecs(task).action) };
        let selectors = task.selectors[0].selectors.join(",");
        seen.push((step.clone(), ecs(task).account.region.clone(), task.task.undo.clone(), selectors));
        success()
    });
    let zone = "group-zone".to_owned();
    assert_eq!(
        seen,
        [
            ("scale".to_owned(), "us-east-1".to_owned(), Some(json!({"count": 2})), zone.clone()),
            ("scale".to_owned(), "eu-west-1".to_owned(), Some(json!({"count": 1})), zone),
        ]
    );
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let view = execution_view(&world.state, None);
    let rollback = &view.stages[0].rollback_steps;
    assert_eq!(
        rollback.iter().map(|s| s.identifier.as_str()).collect::<Vec<_>>(),
        ["undo_roll", "undo_scale"]
    );
    assert!(view.rolled_back && rollback[1].steps.len() == 2, "{rollback:#?}");
}

#[test]
fn steps_of_one_name_in_two_groups_are_both_undone() {
    let group = |id: &str| {
        format!(
            "- stepGroup:\n    identifier: {id}\n    name: {id}\n    steps:\n      - step: {{type: EcsScale, identifier: scale, name: scale, spec: {{service: {id}, instances: 1}}}}\n"
        )
    };
    let mut world = started(
        &format!("{}{}{}", group("a"), group("b"), step("EcsRunTask", "look", "{taskDefinition: x}")),
        "",
    );
    world.answer(undo(json!("a")));
    world.answer(undo(json!("b")));
    world.answer(failed(FailureKind::RemoteFailed));
    let first = world.answer(success());
    let second = world.answer(success());
    assert_eq!((first.task.undo, second.task.undo), (Some(json!("b")), Some(json!("a"))));
}

#[test]
fn a_second_attempt_is_told_what_the_first_one_recorded() {
    let retry = "- step: {type: EcsRollingDeploy, identifier: r, name: r, spec: {}, failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: Retry, spec: {retryCount: 1, retryIntervals: [1s], onRetryFailure: {action: {type: StageRollback}}}}}}]}\n";
    let mut world = started(&(step("EcsScale", "s", "{service: a, instances: 1}") + retry), "");
    world.answer(undo(json!({"n": 1})));
    world.answer(StepResult { undo: Some(json!({"n": 2})), ..failed(FailureKind::RemoteFailed) });
    world.fire("retry/");
    let again = world.answer(success());
    let earlier: Vec<(&str, &Value)> =
        ecs(&again).earlier.undo.iter().map(|undo| (undo.step.as_str(), &undo.data)).collect();
    assert_eq!(earlier, [("s", &json!({"n": 1})), ("r", &json!({"n": 2}))]);
}

#[test]
fn an_undo_without_an_answer_from_the_lost_agent_fails_instead_of_passing() {
    let mut world = started(&step("EcsRollingDeploy", "r", "{}"), "");
    world.fire_with(
        "timeout/1/pipeline.stages.s.spec.execution.steps.r",
        Some(Holdup::Lost { agent: "a1".into(), since: 1, undo: None }),
    );
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let view = execution_view(&world.state, None);
    let undo = &view.stages[0].rollback_steps[0];
    assert_eq!(
        (undo.status.name(), undo.failure.as_ref().unwrap().code.as_str()),
        ("Failed", "PIPE-051"),
        "{undo:?}"
    );
    assert!(!view.rolled_back);
}

#[test]
fn an_undo_goes_by_the_checkpoints_of_an_agent_that_was_lost() {
    let node = "pipeline.stages.s.spec.execution.steps.r";
    let was = json!({"was": 7});
    let mut world = started(&step("EcsRollingDeploy", "r", "{}"), "");
    let lost = Holdup::Lost { agent: "a1".into(), since: 1, undo: Some(was.clone()) };
    world.fire_with(&format!("timeout/1/{node}"), Some(lost));
    // The lost agent's own task is still out.
    world.tasks.pop_front();
    assert_eq!(world.answer(success()).task.undo, Some(was.clone()));
    assert!(execution_view(&world.state, None).rolled_back);

    let mut world = started(&step("EcsRollingDeploy", "r", "{}"), "");
    world.fire(&format!("timeout/1/{node}"));
    world.fire_with(&format!("grace/1/{node}"), Some(Holdup::Unanswered { undo: was.clone() }));
    world.tasks.pop_front();
    assert_eq!(world.answer(success()).task.undo, Some(was));
}

#[test]
fn a_run_that_succeeded_can_be_rolled_back_by_what_its_steps_recorded() {
    let mut world = started(&step("EcsRollingDeploy", "r", "{}"), "");
    world.answer(undo(json!({"was": 7})));
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let facts = pipeline::plan::RunFacts { execution_id: "ex2".into(), ..world.state.plan.run.clone() };
    world.state = rollback_of(&world.state, facts).unwrap();
    world.event(|at| Event::Started { at });
    let back = world.answer(success());
    assert_eq!((ecs(&back).action.kind(), back.task.undo), ("EcsUndo", Some(json!({"was": 7}))));
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn strict_mode_and_written_rollback_steps_make_no_undo() {
    let steps = step("EcsRollingDeploy", "r", "{}");
    let with_strategy = document(SERVICE, &steps, "").replace(
        "        spec:\n          deploymentType",
        "        failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: MarkAsFailure}}}]\n        spec:\n          deploymentType",
    );
    let options = |mode| PlanOptions { mode, ..support::options() };
    let count = |plan: &Plan| plan.nodes.iter().filter(|node| node.in_rollback).count();
    let lenient = plan("p.yaml", &with_strategy, &catalog(""), &options(Mode::Lenient)).unwrap();
    assert_eq!(count(&lenient), 1);
    let stored = "service: {identifier: app, name: app, serviceDefinition: {type: ECS, spec: {taskDefinition: {taskDefinitionArn: app}, serviceDefinition: {serviceName: app}}}}";
    let strict = with_strategy.replace(
        &format!(
            "            serviceDefinition:\n              type: ECS\n              spec:\n{}",
            indent(SERVICE, 16)
        ),
        "",
    );
    let strict = plan("p.yaml", &strict, &catalog(stored), &options(Mode::Strict))
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(count(&strict), 0);
    let written = made(&steps, &step("EcsRollingRollback", "back", "{}")).unwrap();
    assert_eq!(count(&written), 1);
    assert!(!codes(&written).contains(&"R25.implicit-undo"));
}

#[test]
fn inputs_are_asked_for_where_they_stand_in_a_document() {
    let look = step(
        "EcsRunTask",
        "run",
        "{taskDefinitionArn: app, runTaskRequestDefinition: {count: 1, overrides: {containerOverrides: [{name: app, command: [migrate, <+input>.executionInput()]}]}}}",
    );
    let mut world = started(&look, "");
    let node = "pipeline.stages.s.spec.execution.steps.run";
    assert_eq!(world.status(node), "InputWaiting");
    let name = world.state.runs.get(node).unwrap().inputs.as_ref().unwrap().inputs[0].name.clone();
    let action = pipeline::machine::UserAction::GiveInputs { values: [(name, json!("v7"))].into() };
    let by = pipeline::machine::Actor {
        name: "me".into(),
        email: String::new(),
        groups: vec![],
        principal: "me".into(),
    };
    world.event(|at| Event::UserActed { node: node.into(), attempt: 1, by, action, at });
    let run = world.answer(success());
    assert_eq!(
        self::action(&run)["shape"]["request"]["value"]["overrides"]["containerOverrides"][0]["command"],
        json!(["migrate", "v7"])
    );

    let open = step("EcsScale", "s", "{service: <+input>, instances: 2}");
    let faults = made(&open, "").unwrap_err();
    assert!(faults.contains("runtime input") && faults.contains("is missing"), "{faults}");
    let inputs = "pipeline: {stages: [{stage: {identifier: s, spec: {execution: {steps: [{step: {identifier: s, spec: {service: jobs}}}]}}}}]}";
    let options = PlanOptions { inputs_file: Some(("in.yaml".into(), inputs.into())), ..support::options() };
    let plan = plan("p.yaml", &document(SERVICE, &open, ""), &catalog(""), &options)
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(self::action(&World::start_with(plan).answer(success()))["service"], "jobs");
}

#[test]
fn a_log_check_names_its_groups_and_asks_in_the_stage_s_region() {
    let verify = |more: &str| {
        format!(
            "- step: {{type: Verify, identifier: v, name: v, spec: {{type: CloudWatchLogs, duration: 5m, spec: {{connectorRef: aws, metricName: errors, query: '?ERROR ?FATAL', threshold: {{type: Absolute, spec: {{value: 3}}}}{more}}}}}}}\n"
        )
    };
    let scope = |more: &str| {
        let mut world = started(&verify(more), "");
        let task = world.answer(success());
        let StepSpec::Verify(spec) = &task.task.step.spec else { panic!("no Verify") };
        let Some(MetricProvider::CloudWatchLogs { account, scope }) = &spec.provider else {
            panic!("{spec:?}")
        };
        assert_eq!(account.region, "eu-west-1");
        assert_eq!(spec.query, "?ERROR ?FATAL");
        scope.clone()
    };
    assert_eq!(
        scope(", logGroup: '/ecs/<+service.name>', logStreamPrefix: web").stream_prefix.as_deref(),
        Some("web")
    );
    assert_eq!(scope(", logGroup: [/ecs/a, /ecs/b]").groups, ["/ecs/a", "/ecs/b"]);
    let faults = made(&verify(""), "").unwrap_err();
    assert!(faults.contains("`logGroup` of the verification is missing"), "{faults}");
}

#[test]
fn outcomes_are_expressions_and_a_metric_is_of_what_was_deployed_last() {
    let verify = |id: &str| {
        format!(
            "- step: {{type: Verify, identifier: {id}, name: {id}, spec: {{type: CloudWatch, duration: 5m, spec: {{connectorRef: aws, metricName: CPUUtilization, threshold: {{type: Percentage, spec: {{value: 80}}}}}}}}}}\n"
        )
    };
    let steps = verify("before")
        + &step("EcsCanaryDeploy", "canary", "{}")
        + &verify("during")
        + &step("EcsCanaryDelete", "gone", "{}")
        + &verify("after")
        + &step(
            "EcsScale",
            "scale",
            "{service: <+execution.steps.canary.output.canaryServiceName>, instances: 1}",
        );
    let mut world = started(&steps, "");
    let mut services = Vec::new();
    world.answer_all(|task| {
        match &task.task.step.spec {
            StepSpec::Verify(spec) => {
                let Some(MetricProvider::CloudWatch { scope, .. }) = &spec.provider else {
                    panic!("{spec:?}")
                };
                assert_eq!(
                    (spec.query.as_str(), scope.target_group_arn.as_deref()),
                    ("avg(CPUUtilization)", Some("arn:tg"))
                );
                services.push(scope.service.clone().unwrap());
            }
            StepSpec::Ecs(spec) if spec.action.kind() == "EcsScale" => {
                services.push(action(task)["service"].as_str().unwrap().to_owned())
            }
            _ => return outputs(&[("canaryServiceName", "appCanary")]),
        }
        success()
    });
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert_eq!(services, ["app", "appCanary", "app", "appCanary"]);
}
