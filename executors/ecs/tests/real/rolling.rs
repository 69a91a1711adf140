//! EcsRollingDeploy and EcsRollingRollback.

use crate::peer::aws::{Fault, Place};
use crate::peer::{
    definitions, document, executor, fail, image, place, probed, rolling, run, secrets, spec, succeed, task,
    undo,
};
use executor_api::testing::{CrashAt, World, until};
use executor_api::{CancelReason, CancelStage, Class, Executor as _, Plan, StepOutput};
use proto::task::{EcsAction, EcsDefinitions, EcsEarlier, EcsSpec, EcsUndo, TaskDefinition};
use serde_json::{Value, json};

fn step(at: &Place<'_>, definitions: EcsDefinitions) -> EcsSpec {
    spec(at, definitions, rolling())
}

fn deploy(at: &Place<'_>, name: &str, tag: &str, behaviour: &str, count: u64) -> EcsSpec {
    step(at, definitions(at, name, &image(at, tag, behaviour), count, None))
}

/// The same behind a load balancer: a task counts when it is healthy there. Without one it counts when it has lived for a
/// moment, which one that crashes does too on a machine with much to do.
fn balanced(at: &Place<'_>, tag: &str, behaviour: &str, count: u64, group: &str) -> EcsSpec {
    step(at, definitions(at, "web", &image(at, tag, behaviour), count, Some(group)))
}

/// A target group behind a listener.
fn group(at: &Place<'static>) -> String {
    let balancer = at.balancer("lb");
    let group = balancer.group("g");
    balancer.listener(80, &[(&group, 1)]);
    group
}

/// The rollback of what these worlds' steps left behind, oldest first.
fn rollback(at: &Place<'_>, left: &[(Option<&StepOutput>, &World)]) -> EcsSpec {
    let action = EcsAction::EcsRollingRollback { skip_steady_state_check: false };
    let undo = left.iter().map(|(output, world)| EcsUndo {
        step: "deploy".into(),
        kind: "EcsRollingDeploy".into(),
        succeeded: output.is_some(),
        data: undo(*output, world),
    });
    EcsSpec { earlier: EcsEarlier { undo: undo.collect() }, ..spec(at, EcsDefinitions::default(), action) }
}

fn out(output: &StepOutput, name: &str) -> Value {
    output.outputs[name].value.clone()
}

fn revision(service: &Value) -> String {
    service["taskDefinition"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

fn images(at: &Place<'_>, name: &str) -> Vec<String> {
    let tasks = at.tasks(Some(name), "RUNNING");
    let mut all: Vec<String> =
        tasks.iter().map(|task| task["containers"][0]["image"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_made_updated_left_alone_and_brought_back() {
    let at = place("rolla").await;
    let first = deploy(&at, "web", "1", "web", 2);
    let (output, world) = succeed(&first, "e1", "deploy").await;
    assert_eq!(out(&output, "serviceName"), "web");
    assert_eq!(out(&output, "instances").as_array().unwrap().len(), 2);
    let made = at.describe("web");
    assert_eq!(revision(&made), "rolla-web:1");
    let tag = |key: &str| {
        made["tags"].as_array().unwrap().iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].clone())
    };
    assert_eq!(tag("delegate:execution"), Some(json!("e1")));
    assert!(world.marks.unannounced().is_empty(), "{:?}", world.marks.unannounced());

    let second = deploy(&at, "web", "2", "web", 2);
    let world = World::new("plan", task(&second, "e2", "plan"), secrets());
    let Plan::Diff { text, .. } = executor().plan(&second, &world.context().1).await.unwrap() else {
        panic!("no plan")
    };
    assert!(text.contains("image: ") && text.contains("service web is updated"), "{text}");
    let Plan::Diff { text: again, .. } = executor().plan(&second, &world.context().1).await.unwrap() else {
        panic!("no plan")
    };
    assert_eq!(text, again);
    assert_eq!(revision(&at.describe("web")), "rolla-web:1");

    let (output, world) = succeed(&second, "e2", "deploy").await;
    assert_eq!(revision(&at.describe("web")), "rolla-web:2");
    assert!(images(&at, "web").iter().all(|image| image.ends_with(":2")), "{:?}", images(&at, "web"));

    let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
    let (_, quiet) = succeed(&second, "e3", "deploy").await;
    assert!(quiet.logs.everything().contains("web is up to date"), "{}", quiet.logs.everything());
    let changed: Vec<String> = at
        .calls(before)
        .into_iter()
        .filter(|call| ["Register", "Update", "Create"].iter().any(|verb| call.contains(verb)))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");

    let (back, _) = succeed(&rollback(&at, &[(Some(&output), &world)]), "e2", "rollback").await;
    assert_eq!(out(&back, "firstDeployment"), false);
    assert_eq!(revision(&at.describe("web")), "rolla-web:1");
    assert!(images(&at, "web").iter().all(|image| image.ends_with(":1")), "{:?}", images(&at, "web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_aws_rolled_back_has_failed_and_the_rollback_only_checks() {
    let at = place("rollb").await;
    let group = group(&at);
    succeed(&balanced(&at, "1", "web", 2, &group), "e1", "deploy").await;
    let (error, world) = fail(&balanced(&at, "2", "crash", 2, &group), "e2", "deploy").await;
    assert_eq!(error.code, "ECS-030", "{error}");
    for wanted in ["web", "rollb-web:2", "rollb-web:1"] {
        assert!(error.what.contains(wanted), "{wanted}: {error}");
    }
    assert_eq!(revision(&at.describe("web")), "rollb-web:1");
    let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
    let (_, back) = succeed(&rollback(&at, &[(None, &world)]), "e2", "rollback").await;
    assert!(
        back.logs.everything().contains("on its way to rollb-web:1 already"),
        "{}",
        back.logs.everything()
    );
    let calls = at.calls(before);
    assert!(!calls.iter().any(|call| call.contains("UpdateService")), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_is_rolled_back_by_deleting_and_a_name_that_drains_is_waited_for() {
    let at = place("rollc").await;
    let first = deploy(&at, "web", "1", "web", 1);
    let (output, world) = succeed(&first, "e1", "deploy").await;
    let (back, _) = succeed(&rollback(&at, &[(Some(&output), &world)]), "e1", "rollback").await;
    assert_eq!(out(&back, "firstDeployment"), true);
    assert_eq!(at.describe("web")["status"], "INACTIVE");
    let (again, _) = succeed(&rollback(&at, &[(Some(&output), &world)]), "e1", "rollback2").await;
    assert_eq!(out(&again, "firstDeployment"), true);

    succeed(&first, "e2", "deploy").await;
    at.ecs.aws("ecs", "DeleteService", json!({"cluster": at.name, "service": "web", "force": true}));
    let (_, world) = succeed(&first, "e3", "deploy").await;
    assert_eq!(at.describe("web")["status"], "ACTIVE");
    assert!(world.logs.everything().contains("this is its first deployment"), "{}", world.logs.everything());
}

fn scaling(at: &Place<'_>, operation: &str, more: Value) -> Value {
    let mut input = json!({"ServiceNamespace": "ecs", "ResourceId": format!("service/{}/web", at.name),
        "ScalableDimension": "ecs:service:DesiredCount"});
    if operation == "DescribeScalableTargets" {
        input = json!({"ServiceNamespace": "ecs", "ResourceIds": [input["ResourceId"]]});
    }
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    at.ecs.aws("application-autoscaling", operation, input)
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscaling_is_suspended_and_resumed_and_nothing_of_it_is_lost() {
    let at = place("rolld").await;
    let group = group(&at);
    succeed(&balanced(&at, "1", "web", 2, &group), "e1", "deploy").await;
    scaling(&at, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 4}));
    let policy = |value: u32| {
        json!({"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": value, "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}})
    };
    scaling(&at, "PutScalingPolicy", policy(60));
    let night = json!({"ScheduledActionName": "night", "Schedule": "cron(0 22 * * ? *)", "ScalableTargetAction": {"MinCapacity": 0, "MaxCapacity": 1}});
    scaling(&at, "PutScheduledAction", night);
    let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
    let mut second = balanced(&at, "2", "web", 3, &group);
    second.definitions.scaling_policies = vec![document("scalingPolicies[0]", policy(70))];
    let (output, world) = succeed(&second, "e2", "deploy").await;
    assert!(
        output.notices.iter().any(|notice| notice.contains("ecs.count.autoscaling")),
        "{:?}",
        output.notices
    );
    assert_eq!(at.describe("web")["desiredCount"], 2);
    let calls = at.calls(before);
    let at_of = |name: &str| calls.iter().position(|call| call.ends_with(name)).unwrap();
    assert!(at_of("RegisterScalableTarget") < at_of("UpdateService"), "{calls:?}");
    let target = &scaling(&at, "DescribeScalableTargets", json!({}))["ScalableTargets"][0];
    assert_ne!(target["SuspendedState"]["DynamicScalingInSuspended"], true, "{target}");
    assert_eq!((&target["MinCapacity"], &target["MaxCapacity"]), (&json!(1), &json!(4)));
    let policies = scaling(&at, "DescribeScalingPolicies", json!({}));
    let value = |policies: &Value| {
        policies["ScalingPolicies"][0]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"].as_f64()
    };
    assert_eq!(value(&policies), Some(70.0));
    let actions = scaling(&at, "DescribeScheduledActions", json!({}));
    assert_eq!(actions["ScheduledActions"][0]["ScheduledActionName"], "night");

    succeed(&rollback(&at, &[(Some(&output), &world)]), "e2", "rollback").await;
    let policies = scaling(&at, "DescribeScalingPolicies", json!({}));
    assert_eq!(value(&policies), Some(60.0));

    // A deployment that fails leaves it as it was, too.
    let (_, _) = fail(&balanced(&at, "3", "crash", 2, &group), "e3", "deploy").await;
    let target = &scaling(&at, "DescribeScalableTargets", json!({}))["ScalableTargets"][0];
    assert_ne!(target["SuspendedState"]["DynamicScalingInSuspended"], true, "{target}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_registration_is_tried_again_and_a_denied_one_changes_nothing() {
    let at = place("rolle").await;
    let throttled = at.ecs.fault(Fault::throttled().on("ecs", "RegisterTaskDefinition").by(&at.key).times(3));
    succeed(&deploy(&at, "web", "1", "web", 1), "e1", "deploy").await;
    drop(throttled);
    let denied = at
        .ecs
        .fault(Fault::denied("ecs:RegisterTaskDefinition").on("ecs", "RegisterTaskDefinition").by(&at.key));
    let (error, _) = fail(&deploy(&at, "web", "2", "web", 1), "e2", "deploy").await;
    drop(denied);
    assert!(error.what.contains("ecs:RegisterTaskDefinition"), "{error}");
    assert_eq!(revision(&at.describe("web")), "rolle-web:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_was_deregistered_is_registered_again_with_everything_it_had() {
    let at = place("rollf").await;
    let mut first = deploy(&at, "web", "1", "web", 1);
    let mut rich = at.definition("rollf-web", &image(&at, "1", "web"));
    rich["tags"] = json!([{"key": "team", "value": "a"}]);
    rich["volumes"] = json!([{"name": "data", "host": {}}]);
    let container = &mut rich["containerDefinitions"][0];
    container["environment"] = json!([{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]);
    container["ulimits"] = json!([{"name": "nofile", "softLimit": 1024, "hardLimit": 2048}]);
    container["dockerLabels"] = json!({"x": "y"});
    container["stopTimeout"] = json!(5);
    first.definitions.task.as_mut().unwrap().document = Some(document("taskDefinition", rich));
    succeed(&first, "e1", "deploy").await;
    let (output, world) = succeed(&deploy(&at, "web", "2", "web", 1), "e2", "deploy").await;
    at.ecs.aws("ecs", "DeregisterTaskDefinition", json!({"taskDefinition": "rollf-web:1"}));
    let (back, _) = succeed(&rollback(&at, &[(Some(&output), &world)]), "e2", "rollback").await;
    assert!(back.notices.iter().any(|notice| notice.contains("INACTIVE")), "{:?}", back.notices);
    assert_eq!(revision(&at.describe("web")), "rollf-web:3");
    let described = |name: &str| {
        let mut said =
            at.ecs.aws("ecs", "DescribeTaskDefinition", json!({"taskDefinition": name, "include": ["TAGS"]}));
        for key in
            ["taskDefinitionArn", "revision", "status", "registeredAt", "deregisteredAt", "registeredBy"]
        {
            said["taskDefinition"].as_object_mut().unwrap().remove(key);
        }
        (said["taskDefinition"].take(), said["tags"].take())
    };
    assert_eq!(described("rollf-web:1"), described("rollf-web:3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_somebody_deployed_since_is_not_rolled_back() {
    let at = place("rollg").await;
    succeed(&deploy(&at, "web", "1", "web", 1), "e1", "deploy").await;
    let (output, world) = succeed(&deploy(&at, "web", "2", "web", 1), "e2", "deploy").await;
    let other = at.register("rollg-web", &image(&at, "3", "web"));
    at.ecs.aws(
        "ecs",
        "UpdateService",
        json!({"cluster": at.name, "service": "web", "taskDefinition": other}),
    );
    let (error, _) = fail(&rollback(&at, &[(Some(&output), &world)]), "e2", "rollback").await;
    assert_eq!(error.code, "ECS-024", "{error}");
    assert_eq!(revision(&at.describe("web")), "rollg-web:3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_run_again_deploys_once() {
    let at = place("rollh").await;
    let mut first = deploy(&at, "web", "1", "web", 1);
    first.action = EcsAction::EcsRollingDeploy {
        same_as_already_running_instances: false,
        force_new_deployment: true,
        skip_steady_state_check: false,
        native: Default::default(),
    };
    let world = World::new("again", task(&first, "e1", "deploy"), secrets());
    run(&world, &first).await.unwrap();
    let primary = |service: &Value| service["deployments"][0]["id"].clone();
    let id = primary(&at.describe("web"));
    world.restart();
    run(&world, &first).await.unwrap();
    assert_eq!(primary(&at.describe("web")), id);
    assert_eq!(revision(&at.describe("web")), "rollh-web:1");
}

fn suspended(at: &Place<'_>) -> bool {
    let found = scaling(at, "DescribeScalableTargets", json!({}));
    found["ScalableTargets"][0]["SuspendedState"]["DynamicScalingInSuspended"] == true
}

/// One life of the agent that may end where `world` plans it. `None`: it died.
async fn live(world: &World, spec: &EcsSpec) -> Option<Result<StepOutput, executor_api::StepError>> {
    let executor = probed(std::sync::Arc::new(world.marks.clone()));
    let (_handle, cx) = world.context();
    tokio::select! {
        result = executor.run(spec, &cx) => Some(result),
        () = world.marks.crashed() => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_anywhere_goes_on_and_deploys_once() {
    let at = place("rolli").await;
    succeed(&deploy(&at, "web", "1", "web", 1), "e0", "deploy").await;
    scaling(&at, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 4}));
    let mut step = deploy(&at, "web", "1", "web", 1);
    step.action = EcsAction::EcsRollingDeploy {
        same_as_already_running_instances: false,
        force_new_deployment: true,
        skip_steady_state_check: false,
        native: Default::default(),
    };
    let undisturbed = World::new("k0", task(&step, "k0", "deploy"), secrets());
    live(&undisturbed, &step).await.unwrap().unwrap();
    let (checkpoints, calls) = (undisturbed.marks.count(), undisturbed.marks.calls());
    assert!(undisturbed.marks.unannounced().is_empty(), "{:?}", undisturbed.marks.unannounced());
    assert_eq!(calls.iter().filter(|call| call.starts_with("UpdateService")).count(), 1, "{calls:?}");
    let at_checkpoints =
        (1..=checkpoints).flat_map(|n| [CrashAt::BeforeCheckpoint(n), CrashAt::AfterCheckpoint(n)]);
    let at_calls = (1..=calls.len()).flat_map(|n| [CrashAt::BeforeCall(n), CrashAt::AfterCall(n)]);
    for (n, crash) in at_checkpoints.chain(at_calls).enumerate() {
        let execution = format!("k{}", n + 1);
        let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
        let world = World::new(execution.as_str(), task(&step, &execution, "deploy"), secrets());
        world.marks.crash_at(crash);
        assert!(live(&world, &step).await.is_none(), "{crash:?}: did not die");
        world.restart();
        let result = live(&world, &step).await.expect("no crash is planned");
        let log = world.logs.everything();
        result.unwrap_or_else(|error| panic!("{crash:?}: {} {error}\n{log}", error.code));
        let sent = at.calls(before).into_iter().filter(|call| call == "ecs:UpdateService").count();
        assert_eq!(sent, 1, "{crash:?}\n{log}");
        assert!(!suspended(&at), "{crash:?}\n{log}");
        assert!(world.marks.unannounced().is_empty(), "{crash:?}: {:?}", world.marks.unannounced());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_while_a_service_is_made_makes_one() {
    let at = place("rolll").await;
    let made = |n: usize| deploy(&at, &format!("web{n}"), "1", "web", 1);
    let undisturbed = World::new("m0", task(&made(0), "m0", "deploy"), secrets());
    live(&undisturbed, &made(0)).await.unwrap().unwrap();
    let (checkpoints, calls) = (undisturbed.marks.count(), undisturbed.marks.calls().len());
    let at_checkpoints =
        (1..=checkpoints).flat_map(|n| [CrashAt::BeforeCheckpoint(n), CrashAt::AfterCheckpoint(n)]);
    let at_calls = (1..=calls).flat_map(|n| [CrashAt::BeforeCall(n), CrashAt::AfterCall(n)]);
    for (n, crash) in at_checkpoints.chain(at_calls).enumerate() {
        let (execution, step) = (format!("m{}", n + 1), made(n + 1));
        let world = World::new(execution.as_str(), task(&step, &execution, "deploy"), secrets());
        world.marks.crash_at(crash);
        assert!(live(&world, &step).await.is_none(), "{crash:?}: did not die");
        world.restart();
        let result = live(&world, &step).await.expect("no crash is planned");
        let log = world.logs.everything();
        let output = result.unwrap_or_else(|error| panic!("{crash:?}: {} {error}\n{log}", error.code));
        // Registered once, made once, and whoever rolls back deletes it.
        let service = at.describe(&format!("web{}", n + 1));
        assert_eq!(revision(&service), format!("rolll-web{}:1", n + 1), "{crash:?}\n{log}");
        let undo = undo(Some(&output), &world).to_string();
        assert!(undo.contains("\"created\":true") && undo.contains("\"snapshot\":null"), "{crash:?}: {undo}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_in_the_middle_resumes_autoscaling_and_can_be_rolled_back() {
    let at = place("rollj").await;
    succeed(&deploy(&at, "web", "1", "web", 1), "e1", "deploy").await;
    scaling(&at, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 4}));
    let step = deploy(&at, "web", "2", "sick", 1);
    let world = World::new("abort", task(&step, "e2", "deploy"), secrets());
    let (handle, cx) = world.context();
    let executor = executor();
    let abort = async {
        let limit = std::time::Duration::from_secs(120);
        until("autoscaling is suspended and the update sent", limit, async || {
            let now = at.describe("web");
            (suspended(&at) && revision(&now) == "rollj-web:2").then_some(())
        })
        .await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
    };
    let (result, ()) = tokio::join!(executor.run(&step, &cx), abort);
    let error = result.unwrap_err();
    assert!(matches!(error.class, Class::Cancelled { reason: CancelReason::User }), "{} {error}", error.code);
    assert!(!suspended(&at));
    succeed(&rollback(&at, &[(None, &world)]), "e2", "rollback").await;
    assert_eq!(revision(&at.describe("web")), "rollj-web:1");
    assert!(!suspended(&at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_aborted_while_no_agent_runs_it_resumes_autoscaling_and_does_nothing_else() {
    let at = place("rollm").await;
    succeed(&deploy(&at, "web", "1", "web", 1), "e1", "deploy").await;
    scaling(&at, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 4}));
    let step = deploy(&at, "web", "2", "web", 1);
    for (execution, crash) in [("e2", CrashAt::BeforeCall(3)), ("e3", CrashAt::AfterCall(1))] {
        let world = World::new(execution, task(&step, execution, "deploy"), secrets());
        world.marks.crash_at(crash);
        assert!(live(&world, &step).await.is_none(), "{crash:?}: did not die");
        assert!(suspended(&at), "{crash:?}: {:?}", world.marks.calls());
        world.restart();
        let before = at.ecs.calls(0).last().map_or(0, |call| call.number);
        let (handle, cx) = world.context();
        handle.cancel(CancelReason::User, CancelStage::Ask);
        let error = executor().run(&step, &cx).await.unwrap_err();
        assert!(
            matches!(error.class, Class::Cancelled { reason: CancelReason::User }),
            "{} {error}",
            error.code
        );
        assert!(!suspended(&at), "{crash:?}\n{}", world.logs.everything());
        let changed = at
            .calls(before)
            .into_iter()
            .filter(|call| call.starts_with("ecs:") && !call.contains(":Describe"));
        assert_eq!(changed.collect::<Vec<_>>(), Vec::<String>::new(), "{crash:?}");
        assert_eq!(revision(&at.describe("web")), "rollm-web:1", "{crash:?}");
    }
}

/// A task definition that writes every member of the container and the task which the peer keeps. It drops
/// `enableFaultInjection`.
fn everything(at: &Place<'_>) -> Value {
    let mut rich = at.definition("rollk-web", &image(at, "1", "web"));
    rich["tags"] = json!([{"key": "team", "value": "a"}, {"key": "empty", "value": ""}]);
    rich["volumes"] = json!([{"name": "data"}, {"name": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1",
        "transitEncryption": "ENABLED", "authorizationConfig": {"accessPointId": "fsap-1", "iam": "ENABLED"}}}]);
    rich["pidMode"] = json!("task");
    rich["ephemeralStorage"] = json!({"sizeInGiB": 30});
    rich["runtimePlatform"] = json!({"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"});
    rich["proxyConfiguration"] = json!({"type": "APPMESH", "containerName": "app",
        "properties": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]});
    rich["taskRoleArn"] = json!("arn:aws:iam::123456789012:role/task");
    let container = &mut rich["containerDefinitions"][0];
    let more = json!({
        "environment": [{"name": "B", "value": "2"}, {"name": "A", "value": ""}],
        "environmentFiles": [{"value": "arn:aws:s3:::b/x.env", "type": "s3"}],
        "secrets": [{"name": "PW", "valueFrom": "arn:aws:secretsmanager:us-east-1:123456789012:secret:x"}],
        "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 2048}],
        "dockerLabels": {"x": "y", "empty": ""}, "stopTimeout": 5, "startTimeout": 30, "essential": true,
        "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 30, "timeout": 6, "retries": 3, "startPeriod": 0},
        "linuxParameters": {"initProcessEnabled": true, "capabilities": {"add": ["SYS_PTRACE"], "drop": []}},
        "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": false}],
        "systemControls": [{"namespace": "net.core.somaxconn", "value": "100"}],
        "readonlyRootFilesystem": true, "user": "1000", "workingDirectory": "/", "interactive": true,
        "pseudoTerminal": true, "restartPolicy": {"enabled": true, "ignoredExitCodes": [0], "restartAttemptPeriod": 60},
        "dependsOn": [], "command": ["a", "b"], "entryPoint": ["x"], "hostname": "h", "futureMember": {"x": [1]}});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rich
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_a_task_definition_survives_registering_and_describing() {
    let at = place("rollk").await;
    let mut step = deploy(&at, "web", "1", "web", 0);
    step.definitions.task.as_mut().unwrap().document = Some(document("taskDefinition", everything(&at)));
    succeed(&step, "e1", "deploy").await;
    let (_, again) = succeed(&step, "e2", "deploy").await;
    let log = again.logs.everything();
    assert!(log.contains("task definition rollk-web:1 is alike"), "{log}");
    // By its name alone the same revision is used; by one that is INACTIVE, an equal one is made.
    at.ecs.aws("ecs", "DeregisterTaskDefinition", json!({"taskDefinition": "rollk-web:1"}));
    let task = TaskDefinition { arn: Some("rollk-web:1".into()), document: None };
    step.definitions.task = Some(task);
    succeed(&step, "e3", "deploy").await;
    assert_eq!(revision(&at.describe("web")), "rollk-web:2");
    let described = |name: &str| {
        let mut said =
            at.ecs.aws("ecs", "DescribeTaskDefinition", json!({"taskDefinition": name, "include": ["TAGS"]}));
        for key in
            ["taskDefinitionArn", "revision", "status", "registeredAt", "deregisteredAt", "registeredBy"]
        {
            said["taskDefinition"].as_object_mut().unwrap().remove(key);
        }
        (said["taskDefinition"].take(), said["tags"].take())
    };
    assert_eq!(described("rollk-web:1"), described("rollk-web:2"));
}
