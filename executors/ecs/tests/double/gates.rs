//! Deployments that wait at gates, go on, and end.

use crate::town::{
    GATE, Town, blue_green, cancel, definitions, deploy, executor, go_on, linear, out, rollback,
};
use executor_api::testing::World;
use executor_api::{Class, Executor as _};
use proto::task::{ContinueUntil, EcsAction, NativeDeploy};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn double_a_blue_green_deployment_waits_at_its_gate_and_goes_on() {
    let mut town = Town::with_web(&blue_green()).await;
    let output = town.step("deploy", deploy(&[GATE]), "app:2", &blue_green()).await;
    assert_eq!(
        (out(&output, "paused"), out(&output, "stage"), out(&output, "weight")),
        (json!(true), json!(GATE), json!(0.0))
    );
    assert_eq!((out(&output, "testWeight"), out(&output, "serviceName")), (json!(100.0), json!("web")));
    assert!(
        output.notices.iter().any(|notice| notice.starts_with("ecs.native.gate:")
            && notice.contains("rolls it back by itself at 2")),
        "{:?}",
        output.notices
    );
    assert_eq!(out(&output, "instances").as_array().unwrap().len(), 4, "both colours run");
    assert_eq!((town.weight(), town.double.count("ContinueServiceDeployment")), (0.0, 0));
    let output = town.then("continue", go_on(ContinueUntil::NextPause)).await;
    assert_eq!((out(&output, "paused"), out(&output, "weight")), (json!(false), json!(100.0)));
    assert_eq!(out(&output, "instances").as_array().unwrap().len(), 2);
    assert_eq!(town.runs(), "web:2");
    // Each stage is told once, and what was asked of ECS is one answer.
    assert_eq!(town.log.matches("BAKE_TIME").count(), 1, "{}", town.log);
    let answers: Vec<Value> = town
        .double
        .calls()
        .into_iter()
        .filter(|(name, _)| name == "ContinueServiceDeployment")
        .map(|(_, input)| input)
        .collect();
    assert_eq!((answers.len(), &answers[0]["action"]), (1, &json!("CONTINUE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_linear_deployment_has_a_gate_before_each_step() {
    let mut town = Town::with_web(&linear(25)).await;
    let output = town.step("deploy", deploy(&[GATE]), "app:2", &linear(25)).await;
    assert_eq!(out(&output, "weight"), json!(0.0));
    for (weight, step) in [(25.0, "one"), (50.0, "two")] {
        let output = town.then(step, go_on(ContinueUntil::NextPause)).await;
        assert_eq!(
            (out(&output, "paused"), out(&output, "weight"), town.weight()),
            (json!(true), json!(weight), weight),
            "{step}"
        );
    }
    // It is there already: nothing is continued.
    let output = town.then("half", go_on(ContinueUntil::Weight { percent: 50 })).await;
    assert_eq!((out(&output, "weight"), town.double.count("ContinueServiceDeployment")), (json!(50.0), 2));
    let output = town.then("end", go_on(ContinueUntil::End)).await;
    assert_eq!((out(&output, "paused"), town.double.count("ContinueServiceDeployment")), (json!(false), 4));
    assert_eq!(town.runs(), "web:2");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_canary_goes_up_to_a_weight() {
    let canary = json!({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 10, "canaryBakeTimeInMinutes": 3}});
    let mut town = Town::with_web(&canary).await;
    let output = town.step("deploy", deploy(&["POST_TEST_TRAFFIC_SHIFT", GATE]), "app:2", &canary).await;
    assert_eq!(out(&output, "stage"), "POST_TEST_TRAFFIC_SHIFT");
    let plan = town.plan(go_on(ContinueUntil::Weight { percent: 10 }), "app:2", &canary).await;
    assert!(plan.contains("continue the deployment of web:2 to service web to 10 % of production requests; it waits at POST_TEST"), "{plan}");
    let output = town.then("canary", go_on(ContinueUntil::Weight { percent: 10 })).await;
    assert_eq!((out(&output, "stage"), out(&output, "weight")), (json!(GATE), json!(10.0)));
    town.then("end", go_on(ContinueUntil::NextPause)).await;
    assert_eq!(town.runs(), "web:2");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_without_gates_a_deployment_is_followed_to_its_end_and_the_same_again_is_none() {
    let mut town = Town::with_web(&blue_green()).await;
    let output = town.step("deploy", deploy(&[]), "app:2", &blue_green()).await;
    assert_eq!((out(&output, "paused"), town.runs()), (json!(false), "web:2".to_owned()));
    let made = town.double.count("UpdateService");
    let again = town.step("again", deploy(&[]), "app:2", &blue_green()).await;
    assert_eq!(town.double.count("UpdateService"), made, "{again:?}");
    assert!(town.log.contains("nothing is changed"), "{}", town.log);
    // Gates that are taken up and given up again change the service and start nothing.
    town.step("gated", deploy(&[GATE]), "app:3", &blue_green()).await;
    town.then("end", go_on(ContinueUntil::End)).await;
    let output = town.step("free", deploy(&[]), "app:4", &blue_green()).await;
    assert!(output.notices.iter().any(|notice| notice.contains("is taken away")), "{:?}", output.notices);
    assert_eq!((out(&output, "paused"), town.runs()), (json!(false), "web:4".to_owned()));
    assert_eq!(town.double.service("web")["deploymentConfiguration"]["lifecycleHooks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_plan_shows_the_gate_and_changes_nothing() {
    let town = Town::with_web(&blue_green()).await;
    let made = town.double.count("UpdateService");
    let plan = town.plan(deploy(&[GATE]), "app:2", &blue_green()).await;
    assert!(plan.contains("lifecycleHooks") && plan.contains("PAUSE"), "{plan}");
    assert_eq!(town.double.count("UpdateService"), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn double_what_ecs_cannot_do_is_refused_before_anything_is_changed() {
    let mut town = Town::with_web(&blue_green()).await;
    let made = town.double.count("RegisterTaskDefinition");
    let error = town.fails("a", deploy(&["BAKE_TIME"]), "app:2", &blue_green()).await;
    assert_eq!(error.code, "ECS-080", "{error}");
    let error = town
        .fails(
            "b",
            deploy(&[]),
            "app:2",
            &json!({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 1}}),
        )
        .await;
    assert!(error.what.contains("stepPercent is 1"), "{error}");
    // The step says that ECS is to shift the requests.
    let error = town.fails("c", deploy(&[]), "app:2", &json!({"strategy": "ROLLING"})).await;
    assert_eq!(error.code, "ECS-080", "{error}");
    assert_eq!(town.double.count("RegisterTaskDefinition"), made);
    town.next_run("third");
    let error = town.then_fails("nothing", go_on(ContinueUntil::End)).await;
    assert_eq!(error.code, "ECS-088", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_an_aborted_deployment_says_where_it_is_left_and_when_ecs_goes_back() {
    let mut town = Town::with_web(&blue_green()).await;
    let half = |now: &Value| now["targetServiceRevision"]["requestedProductionTrafficWeight"] == 50.0;
    let gate = deploy(&["POST_PRODUCTION_TRAFFIC_SHIFT"]);
    let error = town.disturbed("app:2", &linear(50), gate, half, cancel).await;
    assert!(matches!(error.class, Class::Cancelled { .. }), "{error:?}");
    assert_eq!(error.code, "ECS-086");
    assert!(
        error.what.contains("PRODUCTION_TRAFFIC_SHIFT")
            && error.what.contains("to its next gate or to its end"),
        "{error}"
    );
    // Nobody comes: the gate times out.
    town.double.advance(Duration::from_secs(3600));
    assert_eq!(
        (town.double.deployment("web")["status"].clone(), town.runs()),
        (json!("ROLLBACK_SUCCESSFUL"), "web:1".to_owned())
    );
    // A step that continues later says what became of it.
    let error = town.then_fails("late", go_on(ContinueUntil::End)).await;
    assert_eq!(error.code, "ECS-082", "{error}");
    assert!(
        error.what.contains("rolled back by ECS to revision web:1") && error.what.contains("timed out"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn double_autoscaling_is_suspended_while_a_step_is_at_work_and_not_at_a_gate() {
    let mut town = Town::with_web(&blue_green()).await;
    let target = json!({"ResourceId": "service/double/web", "MinCapacity": 1, "MaxCapacity": 4, "ScalableDimension": "ecs:service:DesiredCount"});
    town.double.set_scaling("web", target);
    let states = |town: &Town| -> Vec<bool> {
        let calls = town.double.calls().into_iter().filter(|(name, _)| name == "RegisterScalableTarget");
        calls.map(|(_, input)| input["SuspendedState"]["DynamicScalingInSuspended"] == true).collect()
    };
    town.step("deploy", deploy(&[GATE]), "app:2", &blue_green()).await;
    assert_eq!(states(&town), [true, false]);
    town.then("continue", go_on(ContinueUntil::End)).await;
    assert_eq!(states(&town), [true, false, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_state_that_nobody_knows_is_told_and_followed() {
    let mut town = Town::with_web(&blue_green()).await;
    town.double.pretend(Some("REHEARSING"));
    let dreams = |now: &Value| now["lifecycleStage"] == "BAKE_TIME";
    let error = town.disturbed("app:2", &blue_green(), deploy(&[]), dreams, cancel).await;
    assert_eq!(error.code, "ECS-086", "{error}");
    assert!(town.log.contains("REHEARSING, SCALE_UP"), "{}", town.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn double_many_deployments_are_looked_at_together() {
    const SERVICES: usize = 12;
    let town = Town::new();
    town.double.pace(Duration::from_secs(1));
    let specs: Vec<_> = (0..SERVICES)
        .map(|n| {
            town.spec(
                deploy(&[]),
                definitions(
                    &format!("web{n}"),
                    "app:1",
                    &json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1}),
                ),
            )
        })
        .collect();
    let worlds: Vec<World> =
        specs.iter().enumerate().map(|(n, spec)| town.world(&format!("deploy{n}"), spec)).collect();
    // One agent: all its steps share an executor.
    let shared = executor(&worlds[0]).with_probe(std::sync::Arc::new(executor_api::NoProbe));
    let runs = specs.iter().zip(&worlds).map(|(spec, world)| {
        let (handle, cx) = world.context();
        let executor = shared.clone();
        async move {
            let result = executor.run(spec, &cx).await;
            drop(handle);
            result
        }
    });
    let results = futures::future::join_all(runs).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let looks: Vec<usize> = town
        .double
        .calls()
        .iter()
        .filter(|(name, _)| name == "DescribeServiceDeployments")
        .map(|(_, input)| input["serviceDeploymentArns"].as_array().unwrap().len())
        .collect();
    let all: usize = looks.iter().sum();
    assert!(
        looks.iter().all(|many| *many <= 20) && looks.len() * 3 <= all,
        "{} calls for {all} looks",
        looks.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_first_deployment_is_made_with_its_strategy_and_undone_by_deletion() {
    let mut town = Town::new();
    let output = town.step("deploy", deploy(&[GATE]), "app:1", &blue_green()).await;
    assert_eq!(out(&output, "paused"), json!(true));
    town.then("rollback", EcsAction::EcsRollingRollback { skip_steady_state_check: false }).await;
    assert_eq!(town.double.service("web")["status"], "INACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_service_that_goes_back_to_rolling_is_warned_of_and_brought_back() {
    let mut town = Town::with_web(&blue_green()).await;
    town.step("gated", deploy(&[GATE]), "app:2", &blue_green()).await;
    town.then("end", go_on(ContinueUntil::End)).await;
    town.next_run("third");
    let configuration = |town: &Town| town.double.service("web")["deploymentConfiguration"].clone();
    assert_eq!(configuration(&town)["lifecycleHooks"].as_array().unwrap().len(), 1);
    let rolling = json!({"strategy": "ROLLING", "maximumPercent": 200, "minimumHealthyPercent": 100});
    let plain = || EcsAction::EcsRollingDeploy {
        same_as_already_running_instances: false,
        force_new_deployment: false,
        skip_steady_state_check: false,
        native: NativeDeploy::default(),
    };
    let plan = town.plan(plain(), "app:3", &rolling).await;
    assert!(plan.contains("ROLLING") && plan.contains("lifecycleHooks"), "{plan}");
    let output = town.step("back", plain(), "app:3", &rolling).await;
    let warned =
        |text: &String| text.starts_with("ecs.native: service web goes back from BLUE_GREEN to ROLLING");
    assert!(output.notices.iter().any(warned), "{:?}", output.notices);
    let now = configuration(&town);
    assert_eq!((&now["strategy"], &now["lifecycleHooks"]), (&json!("ROLLING"), &json!([])), "{now}");
    assert_eq!((town.runs().as_str(), out(&output, "instances").as_array().unwrap().len()), ("web:3", 2));
    // What there was before comes back with its strategy; nobody waits at its gates.
    town.then("rollback", rollback()).await;
    let deployment = town.double.deployment("web");
    assert_eq!(
        (town.runs().as_str(), &deployment["status"]),
        ("web:2", &json!("SUCCESSFUL")),
        "{deployment:#}"
    );
    assert_eq!(configuration(&town)["strategy"], "BLUE_GREEN");
    assert_eq!(deployment["sourceServiceRevisions"], json!([]), "{deployment:#}");
}
