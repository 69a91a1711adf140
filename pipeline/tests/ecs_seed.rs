//! The seed's three ECS pipelines, byte for byte: planned, run in the machine with answers played in, and what their
//! tasks carry.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::machine::{TaskRequest, rollback_of};
use pipeline::planner::{plan, preflight, validate};
use pipeline::view::{ExecutionView, StepView, execution_view};
use pipeline::{Mode, Plan};
use proto::failure::FailureKind;
use proto::result::{Output, StepResult, StepStatus};
use proto::task::{
    ArtifactSource, AwsCredential, Comparison, EcsAction, EcsDocument, EcsSpec, MetricProvider, RunTaskShape,
    StepSpec, TaskCount, Threshold,
};
use proto::text::placeholders;
use serde_json::{Value, json};
use support::{World, codes, failed, success};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/seeds");
const STAGE: &str = "pipeline.stages.Deploy_to_ECS.spec.execution";
const BASE: &str = "arn:aws:ecs:us-east-1:123456789012:task-definition/myapp-task:10";
const NEXT: &str = "arn:aws:ecs:us-east-1:123456789012:task-definition/myapp-task:11";
const DIGEST: &str = "sha256:8f1c0000000000000000000000000000000000000000000000000000000000aa";
const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp@sha256:8f1c0000000000000000000000000000000000000000000000000000000000aa";
const BLUE: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/myapp-tg/1234567890123456";
const GREEN: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/myapp-tg-green/6543210987654321";

fn seed(name: &str) -> String {
    std::fs::read_to_string(format!("{SEEDS}/{name}")).unwrap()
}

fn catalog_of(service: &str) -> Snapshot {
    let mut snapshot =
        Snapshot { secrets: vec!["aws_access_key".into(), "aws_secret_key".into()], ..Snapshot::default() };
    for name in
        ["aws-connector.yaml", service, "ecs-entities/connectors.yaml", "ecs-entities/environment.yaml"]
    {
        let entities =
            parse_entities(name, &seed(name)).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        snapshot.entities.extend(entities.into_iter().map(CatalogEntity::from));
    }
    snapshot
}

fn planned(name: &str) -> Plan {
    plan(name, &seed(name), &catalog_of("ecs-service-full.yaml"), &support::options())
        .unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn ecs(task: &TaskRequest) -> &EcsSpec {
    match &task.task.step.spec {
        StepSpec::Ecs(spec) => spec,
        other => panic!("{other:?}"),
    }
}

fn shape(task: &TaskRequest) -> &RunTaskShape {
    match &ecs(task).action {
        EcsAction::EcsRunTask { shape } => shape,
        other => panic!("{other:?}"),
    }
}

fn value(document: &EcsDocument) -> &Value {
    match document {
        EcsDocument::Value { value, .. } => value,
        EcsDocument::File { .. } => panic!("{document:?}"),
    }
}

fn outputs(pairs: &[(&str, Value)]) -> StepResult {
    let outputs =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Output::from(value.clone()))).collect();
    StepResult { outputs, ..success() }
}

fn with_undo(pairs: &[(&str, Value)], undo: Value) -> StepResult {
    StepResult { undo: Some(undo), ..outputs(pairs) }
}

/// The artifact of the stage is found.
fn looked_up(world: &mut World) -> TaskRequest {
    world.answer(outputs(&[("tag", json!("3")), ("digest", json!(DIGEST)), ("image", json!(IMAGE))]))
}

fn started(name: &str) -> World {
    let mut world = World::start_with(planned(name));
    looked_up(&mut world);
    world
}

fn statuses(steps: &[StepView]) -> Vec<(&str, &str)> {
    steps.iter().map(|step| (step.identifier.as_str(), step.status.name())).collect()
}

fn view(world: &World) -> ExecutionView {
    execution_view(&world.state, Some(world.now))
}

#[test]
fn the_copies_are_the_seeds() {
    use sha2::{Digest, Sha256};
    for line in seed("SHA256SUMS").lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let digest = Sha256::digest(seed(name).as_bytes());
        assert_eq!(sum, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), "{name}");
    }
}

#[test]
fn the_seeds_are_accepted_with_a_notice_for_each_rule_that_they_need() {
    for (name, expected) in [
        (
            "ecs-rolling-pipeline.yaml",
            &[
                "R2.type-alias",
                "R3.overlay",
                "R9.ecs-run-task",
                "R10.inline-verify",
                "R11.flat-duration",
                "R15.expression",
                "R16.default-strategy",
                "R18.http-timeout",
                "ecs.alias",
            ][..],
        ),
        (
            "ecs-blue-green-pipeline.yaml",
            &["R9.ecs-run-task", "R11.inherit", "R17.null-spec", "R25.implicit-undo"],
        ),
        (
            "ecs-canary-pipeline.yaml",
            &["R11.inherit", "R16.default-strategy", "R19.canary-count", "R25.implicit-undo"],
        ),
    ] {
        let plan = planned(name);
        for code in expected {
            assert!(codes(&plan).contains(code), "{name}: {code} is not among {:?}", codes(&plan));
        }
        let unknown: Vec<_> = plan.notices.iter().filter(|notice| notice.code == "unknown-key").collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let offline = validate(name, &seed(name), None, Mode::Lenient);
        assert!(offline.faults.is_empty(), "{name}: {:?}", offline.faults);
    }
    assert!(!codes(&planned("ecs-rolling-pipeline.yaml")).contains(&"R25.implicit-undo"));
    let strict = validate("s.yaml", &seed("ecs-canary-pipeline.yaml"), None, Mode::Strict);
    assert!(
        strict.faults.iter().any(|fault| fault.message.contains("R19.canary-count")),
        "{:?}",
        strict.faults
    );
}

#[test]
fn the_artifact_is_looked_up_with_the_key_of_its_connector() {
    let mut world = World::start_with(planned("ecs-rolling-pipeline.yaml"));
    let lookup = looked_up(&mut world);
    assert_eq!(lookup.task_type, "DELEGATE_ARTIFACT_TASK");
    let StepSpec::ResolveArtifact(spec) = &lookup.task.step.spec else { panic!("{:?}", lookup.task.step) };
    assert_eq!(spec.artifact.tag, "3");
    let ArtifactSource::Ecr { account, image_path, registry_id, platform } = &spec.artifact.source else {
        panic!("{:?}", spec.artifact)
    };
    assert_eq!(image_path, "123456789012.dkr.ecr.us-east-1.amazonaws.com/myapp");
    assert_eq!((registry_id.as_deref(), platform.as_deref()), (Some("123456789012"), None));
    assert_eq!((account.connector.as_str(), account.region.as_str()), ("aws-connector", "us-east-1"));
    let AwsCredential::ManualConfig { access_key, secret_key, .. } = &account.credential else {
        panic!("{account:?}")
    };
    for (text, secret) in [(access_key, "aws_access_key"), (secret_key, "aws_secret_key")] {
        let found = placeholders(text.as_str());
        assert_eq!((found.len(), found[0].secret.0.as_str(), found[0].token), (1, secret, 99));
    }
    let secrets: Vec<&str> = lookup.secrets.iter().map(|secret| secret.0.as_str()).collect();
    assert_eq!(secrets, ["aws_access_key", "aws_secret_key"]);
}

#[test]
fn rolling_describes_registers_deploys_and_verifies_in_this_order() {
    let mut world = started("ecs-rolling-pipeline.yaml");
    let describe = world.answer(outputs(&[("taskDefinitionArn", json!(BASE)), ("revision", json!(10))]));
    assert_eq!(*shape(&describe), RunTaskShape::Describe { task_definition: BASE.into() });
    assert_eq!(
        (ecs(&describe).cluster.as_str(), ecs(&describe).account.region.as_str()),
        ("production-cluster", "us-east-1")
    );
    assert_eq!(ecs(&describe).definitions, proto::task::EcsDefinitions::default());

    let register = world.answer(outputs(&[("taskDefinitionArn", json!(NEXT)), ("revision", json!(11))]));
    let RunTaskShape::Register { document } = shape(&register) else { panic!("{:?}", shape(&register)) };
    let container = &value(document)["containerDefinitions"][0];
    assert_eq!(container["image"], IMAGE);
    // One whole expression gets its own type; what is written as a number stays one.
    assert_eq!(container["environment"][1], json!({"name": "VERSION", "value": 3}));
    assert_eq!((&container["memory"], &value(document)["cpu"]), (&json!(512), &json!(256)));
    assert_eq!(ecs(&register).current_task_definition, None, "a look registers nothing");
    let base = ecs(&register).definitions.task.as_ref().unwrap();
    assert_eq!(base.arn.as_deref(), Some(BASE));
    assert_eq!(
        value(base.document.as_ref().unwrap())["containerDefinitions"][0]["environment"][1]["value"],
        "INFO"
    );

    let roll = world.answer(with_undo(&[("serviceName", json!("myapp-service"))], json!({"was": 10})));
    assert_eq!(
        ecs(&roll).action,
        EcsAction::EcsRollingDeploy {
            same_as_already_running_instances: false,
            force_new_deployment: true,
            skip_steady_state_check: false,
            native: Default::default(),
        }
    );
    assert_eq!(ecs(&roll).current_task_definition.as_deref(), Some(NEXT));
    let service = value(ecs(&roll).definitions.service.as_ref().unwrap());
    assert_eq!((&service["serviceName"], &service["desiredCount"]), (&json!("myapp-service"), &json!(3)));
    assert_eq!(service["loadBalancers"][0]["targetGroupArn"], BLUE);
    assert_eq!(ecs(&roll).context, Value::Null, "no document is a file");

    let script = world.answer(success());
    let RunTaskShape::Command { task_definition, command } = shape(&script) else {
        panic!("{:?}", shape(&script))
    };
    assert_eq!(task_definition, BASE);
    assert!(command.as_str().contains("--query 'services[0].runningCount'"), "{}", command.as_str());

    let health = world.answer(success());
    let StepSpec::Http(http) = &health.task.step.spec else { panic!("{:?}", health.task.step) };
    assert_eq!(http.timeout_ms, Some(30_000));

    let verify = world.answer(success());
    let StepSpec::Verify(spec) = &verify.task.step.spec else { panic!("{:?}", verify.task.step) };
    let Some(MetricProvider::Prometheus { connector }) = &spec.provider else { panic!("{spec:?}") };
    assert_eq!(connector.identifier, "prometheus-connector");
    assert_eq!((spec.threshold, spec.duration_ms), (Some(Threshold::Percentage(80.0)), 600_000));
    assert_eq!((spec.variables["baseline"].as_str(), spec.variables["canary"].as_str()), ("3", "3"));
    assert_eq!(verify.timeout_ms, 36_000_000);
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let order = [
        "artifact",
        "Fetch_Task_Definition",
        "Create_New_Task_Definition",
        "Rolling_Deployment",
        "Verify_Deployment",
        "Health_Check",
        "Continuous_Verification",
    ];
    assert_eq!(world.order, order);
}

#[test]
fn a_failed_verification_rolls_back_with_what_the_deployment_recorded() {
    let mut world = started("ecs-rolling-pipeline.yaml");
    world.answer(outputs(&[("taskDefinitionArn", json!(BASE))]));
    world.answer(outputs(&[("taskDefinitionArn", json!(NEXT))]));
    world.answer(with_undo(&[], json!({"was": 10})));
    world.answer(success());
    world.answer(success());
    world.answer(failed(FailureKind::Verification));
    let rollback = world.answer(success());
    assert_eq!(ecs(&rollback).action, EcsAction::EcsRollingRollback { skip_steady_state_check: false });
    let undo = &ecs(&rollback).earlier.undo;
    assert_eq!(undo.len(), 1);
    assert_eq!(
        (undo[0].step.as_str(), undo[0].kind.as_str(), undo[0].succeeded, &undo[0].data),
        ("Rolling_Deployment", "EcsRollingDeploy", true, &json!({"was": 10}))
    );
    // What cannot be resolved any more must not keep anybody from rolling back.
    assert_eq!(ecs(&rollback).definitions, proto::task::EcsDefinitions::default());
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert!(view(&world).rolled_back);
}

#[test]
fn a_rollback_of_what_never_began_is_skipped() {
    let mut world = started("ecs-rolling-pipeline.yaml");
    world.answer(failed(FailureKind::Authorization));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert_eq!(world.status(&format!("{STAGE}.rollbackSteps.Rolling_Rollback")), "Skipped");
}

/// Answers the steps of the blue-green seed up to the verification of 10 %.
fn ten_percent(world: &mut World) -> TaskRequest {
    let routes = [
        ("targetGroupArn", json!(GREEN)),
        ("baselineTargetGroupArn", json!(BLUE)),
        ("loadBalancerArn", json!("arn:lb")),
    ];
    let mut green = routes.to_vec();
    green.extend([("taskDefinitionArn", json!(NEXT)), ("serviceName", json!("myapp-service-green"))]);
    let task = world.answer(with_undo(&green, json!({"green": "made"})));
    world.answer(success());
    world.answer(with_undo(&routes, json!({"weights": [100, 0]})));
    task
}

#[test]
fn blue_green_makes_green_and_shifts_as_the_names_say() {
    let mut world = started("ecs-blue-green-pipeline.yaml");
    let green = ten_percent(&mut world);
    let RunTaskShape::Green {
        document,
        service,
        launch_type,
        network_configuration,
        desired_count,
        target_group_arn,
    } = shape(&green)
    else {
        panic!("{:?}", shape(&green))
    };
    assert_eq!(
        value(document),
        &json!({"containerDefinitions": [{"name": "myapp-container", "image": IMAGE}]})
    );
    assert_eq!((service.as_str(), launch_type.as_deref()), ("myapp-service-green", Some("FARGATE")));
    let network = network_configuration.as_ref().unwrap();
    assert_eq!(network["awsvpcConfiguration"]["subnets"], json!(["subnet-green-1", "subnet-green-2"]));
    assert_eq!((desired_count, target_group_arn), (&None, &None));
    assert!(ecs(&green).definitions.service.is_some(), "blue's size and target group come from it");

    let verify = world.answer(success());
    let StepSpec::Verify(spec) = &verify.task.step.spec else { panic!("{:?}", verify.task.step) };
    let Some(MetricProvider::CloudWatch { account, scope }) = &spec.provider else { panic!("{spec:?}") };
    assert_eq!((account.connector.as_str(), account.region.as_str()), ("aws-connector", "us-east-1"));
    assert_eq!(scope.cluster.as_deref(), Some("production-cluster"));
    assert_eq!(scope.service.as_deref(), Some("myapp-service-green"));
    assert_eq!(scope.target_group_arn.as_deref(), Some(GREEN));
    assert_eq!(scope.baseline_target_group_arn.as_deref(), Some(BLUE));
    assert_eq!(scope.load_balancer_arn.as_deref(), Some("arn:lb"));
    assert_eq!(
        (spec.query.as_str(), spec.metric_name.as_str()),
        ("avg(TargetResponseTime)", "TargetResponseTime")
    );
    assert_eq!((spec.threshold, spec.duration_ms), (Some(Threshold::Percentage(20.0)), 300_000));

    let shifted = world.answer(success());
    let RunTaskShape::Shift { percent, listener_rule_arn, .. } = shape(&shifted) else { panic!() };
    assert_eq!((*percent, listener_rule_arn), (50, &None));
    // Undo data of everything before, in the order of the stage.
    let earlier: Vec<&str> = ecs(&shifted).earlier.undo.iter().map(|undo| undo.step.as_str()).collect();
    assert_eq!(earlier, ["Deploy_Green", "Route_10_Percent"]);

    let verify = world.answer(success());
    let StepSpec::Verify(again) = &verify.task.step.spec else { panic!("{:?}", verify.task.step) };
    assert_eq!(again.query, spec.query, "R11: what is missing is the earlier one's");
    let full = world.answer(success());
    assert!(matches!(shape(&full), RunTaskShape::Shift { percent: 100, .. }));
    let terminate = world.answer(success());
    assert_eq!(*shape(&terminate), RunTaskShape::Terminate { which: "blue".into() });
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let order = [
        "artifact",
        "Deploy_Green",
        "Verify_Green",
        "Route_10_Percent",
        "Verify_10_Percent",
        "Route_50_Percent",
        "Verify_50_Percent",
        "Route_100_Percent",
        "Terminate_Blue",
    ];
    assert_eq!(world.order, order);
    assert!(!view(&world).rolled_back);
}

#[test]
fn a_failed_verification_replays_the_undo_data_of_the_stage_backwards() {
    let mut world = started("ecs-blue-green-pipeline.yaml");
    ten_percent(&mut world);
    world.answer(success());
    world.answer(with_undo(&[], json!({"weights": [90, 10]})));
    world.answer(failed(FailureKind::Verification));
    let mut undone = Vec::new();
    world.answer_all(|task| {
        let EcsAction::EcsUndo { step, kind } = &ecs(task).action else { panic!("{:?}", ecs(task).action) };
        assert_eq!(kind, "EcsRunTask");
        undone.push((step.clone(), task.task.undo.clone().unwrap()));
        assert_eq!(ecs(task).cluster, "production-cluster");
        success()
    });
    assert_eq!(
        undone,
        [
            ("Route_50_Percent".to_owned(), json!({"weights": [90, 10]})),
            ("Route_10_Percent".to_owned(), json!({"weights": [100, 0]})),
            ("Deploy_Green".to_owned(), json!({"green": "made"})),
        ]
    );
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let view = view(&world);
    assert!(view.rolled_back);
    let rollback = &view.stages[0].rollback_steps;
    assert!(rollback.iter().all(|step| step.rollback && step.generated));
    assert!(view.stages[0].steps.iter().all(|step| !step.generated));
    assert_eq!(
        statuses(rollback),
        [
            ("undo_Terminate_Blue", "Skipped"),
            ("undo_Route_100_Percent", "Skipped"),
            ("undo_Route_50_Percent", "Success"),
            ("undo_Route_10_Percent", "Success"),
            ("undo_Deploy_Green", "Success"),
        ]
    );
    assert_eq!(rollback[2].name, "Undo Route 50% Traffic");
    assert!(rollback[0].notices[0].contains("did not run"), "{:?}", rollback[0].notices);
}

#[test]
fn an_undo_that_fails_keeps_what_stands_before_it() {
    let mut world = started("ecs-blue-green-pipeline.yaml");
    ten_percent(&mut world);
    world.answer(failed(FailureKind::Verification));
    world.answer(failed(FailureKind::Connectivity));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let steps = view(&world).stages[0].rollback_steps.clone();
    assert_eq!(
        statuses(&steps)[3..],
        [("undo_Route_10_Percent", "Failed"), ("undo_Deploy_Green", "NotStarted")]
    );
    assert!(!view(&world).rolled_back, "green still gets traffic, so it was not taken away");
}

#[test]
fn canary_grows_and_goes_and_the_service_follows() {
    let mut world = started("ecs-canary-pipeline.yaml");
    let mut seen = Vec::new();
    let mut verified = Vec::new();
    world.answer_all(|task| match &task.task.step.spec {
        StepSpec::Ecs(spec) => {
            seen.push(spec.action.clone());
            with_undo(&[("canaryServiceName", json!("myapp-serviceCanary"))], json!({"n": seen.len()}))
        }
        StepSpec::Verify(spec) => {
            let Some(MetricProvider::CloudWatch { scope, .. }) = &spec.provider else { panic!("{spec:?}") };
            assert_eq!(scope.target_group_arn.as_deref(), Some(BLUE));
            assert_eq!(scope.service.as_deref(), Some("myapp-serviceCanary"));
            assert_eq!(
                (spec.query.as_str(), spec.threshold),
                ("sum(HTTPCode_Target_5XX_Count)", Some(Threshold::Absolute(10.0)))
            );
            verified.push(spec.duration_ms);
            success()
        }
        other => panic!("{other:?}"),
    });
    let canary = |count| EcsAction::EcsCanaryDeploy {
        instances: Some(TaskCount::Count(count)),
        replace_existing: false,
    };
    assert_eq!(
        seen,
        [
            canary(1),
            canary(2),
            canary(4),
            EcsAction::EcsCanaryDelete {},
            EcsAction::EcsRollingDeploy {
                same_as_already_running_instances: false,
                force_new_deployment: false,
                skip_steady_state_check: false,
                native: Default::default(),
            },
        ]
    );
    assert_eq!(verified, [300_000, 300_000, 600_000]);
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn a_canary_that_fails_at_once_is_undone_and_nothing_else_is() {
    let mut world = started("ecs-canary-pipeline.yaml");
    world.answer(StepResult { undo: Some(json!({"canary": "made"})), ..failed(FailureKind::RemoteFailed) });
    let undo = world.answer(success());
    assert_eq!(
        ecs(&undo).action,
        EcsAction::EcsUndo { step: "Canary_Deploy_10".into(), kind: "EcsCanaryDeploy".into() }
    );
    assert_eq!(undo.task.undo, Some(json!({"canary": "made"})));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let rollback = view(&world).stages[0].rollback_steps.clone();
    let skipped = |id| (id, "Skipped");
    assert_eq!(
        statuses(&rollback),
        [
            skipped("undo_Full_Deployment"),
            skipped("undo_Canary_Deploy_50"),
            skipped("undo_Canary_Deploy_25"),
            ("undo_Canary_Deploy_10", "Success"),
        ]
    );
}

#[test]
fn an_abort_leaves_everything_and_says_how_to_bring_it_back() {
    let mut world = started("ecs-blue-green-pipeline.yaml");
    ten_percent(&mut world);
    world.answer(success());
    world.abort();
    let task = world.tasks.front().unwrap();
    assert_eq!(task.task.step.identifier, "Route_50_Percent");
    assert_eq!(world.cancelled, [(task.node.clone(), "User".to_owned())]);
    world.answer(StepResult {
        status: StepStatus::Aborted,
        undo: Some(json!({"weights": [90, 10]})),
        ..failed(FailureKind::UserMarkedFailure)
    });
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    let shown = view(&world);
    assert!(
        !shown.rolled_back
            && shown.stages[0].rollback_steps.iter().all(|step| step.status.name() == "NotStarted")
    );
    let hint = shown.stages[0].hint.as_deref().unwrap();
    assert!(hint.contains("`delegate execution rollback ex1`"), "{hint}");

    // Somebody does so.
    let facts = pipeline::plan::RunFacts { execution_id: "ex2".into(), ..world.state.plan.run.clone() };
    let mut back = World {
        state: rollback_of(&world.state, facts).unwrap(),
        ..World::start_with(planned("ecs-canary-pipeline.yaml"))
    };
    back.tasks.clear();
    back.order.clear();
    back.event(|at| pipeline::machine::Event::Started { at });
    back.answer_all(|task| {
        assert!(task.task.undo.is_some(), "{:?}", task.task.step);
        success()
    });
    assert_eq!(back.order, ["undo_Route_50_Percent", "undo_Route_10_Percent", "undo_Deploy_Green"]);
    assert_eq!(back.finished.as_deref(), Some("Success"));
}

#[test]
fn the_look_ahead_names_agents_and_secrets_of_every_step() {
    for name in ["ecs-rolling-pipeline.yaml", "ecs-blue-green-pipeline.yaml", "ecs-canary-pipeline.yaml"] {
        let needs = preflight(&planned(name));
        let of_ecs: Vec<_> = needs.iter().filter(|need| need.task_type == "ECS_COMMAND_TASK_NG").collect();
        assert!(of_ecs.len() >= 5, "{name}: {needs:?}");
        for need in of_ecs {
            assert_eq!(need.secrets, ["aws_access_key", "aws_secret_key"], "{name}: {}", need.step);
        }
        let verify = needs.iter().find(|need| need.task_type == "DELEGATE_VERIFY_TASK").unwrap();
        assert_eq!(verify.secrets.is_empty(), name.starts_with("ecs-rolling"), "{name}");
    }
}

#[test]
fn the_detailed_service_works_too() {
    let catalog = catalog_of("ecs-service-detailed.yaml");
    let name = "ecs-rolling-pipeline.yaml";
    let plan =
        plan(name, &seed(name), &catalog, &support::options()).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let mut world = World::start_with(plan);
    looked_up(&mut world);
    world.answer(success());
    world.answer(outputs(&[("taskDefinitionArn", json!(NEXT))]));
    let roll = world.answer(success());
    let definitions = &ecs(&roll).definitions;
    assert_eq!(definitions.task.as_ref().unwrap().document, None);
    let service = value(definitions.service.as_ref().unwrap());
    assert_eq!(
        service["deploymentConfiguration"]["deploymentCircuitBreaker"],
        json!({"enable": true, "rollback": true})
    );
    assert_eq!(service["platformVersion"], "LATEST");
}

#[test]
fn comparison_and_dimensions_reach_the_agent() {
    let yaml = seed("ecs-canary-pipeline.yaml").replacen(
        "                      threshold:\n",
        "                      comparison: GreaterOrEqual\n                      namespace: Custom/App\n                      statistic: p90\n                      dimensions: {Service: myapp}\n                      threshold:\n",
        1,
    );
    let plan = plan("c.yaml", &yaml, &catalog_of("ecs-service-full.yaml"), &support::options())
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    let mut world = World::start_with(plan);
    looked_up(&mut world);
    world.answer(success());
    let verify = world.answer(success());
    let StepSpec::Verify(spec) = &verify.task.step.spec else { panic!("{:?}", verify.task.step) };
    assert_eq!(spec.comparison, Some(Comparison::GreaterOrEqual));
    let Some(MetricProvider::CloudWatch { scope, .. }) = &spec.provider else { panic!("{spec:?}") };
    assert_eq!((scope.namespace.as_deref(), scope.statistic.as_deref()), (Some("Custom/App"), Some("p90")));
    assert_eq!(scope.dimensions["Service"], "myapp");
}
