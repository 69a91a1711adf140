//! Deployments that do not come about: refused, failed, stopped, superseded; and what is undone of them.

use crate::town::{EcsDouble, GATE, Town, blue_green, cancel, deploy, go_on, linear, out, rollback};
use proto::task::{ContinueUntil, EcsAction, EcsDefinitions};
use serde_json::{Value, json};
use std::time::Duration;

fn undo(step: &str) -> EcsAction {
    EcsAction::EcsUndo { step: step.into(), kind: "EcsRollingDeploy".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_refused_gate_is_rolled_back_by_ecs() {
    for action in [rollback(), undo("deploy")] {
        let mut town = Town::with_web(&linear(50)).await;
        let before = town.double.service("web")["deploymentConfiguration"].clone();
        town.step("deploy", deploy(&[GATE]), "app:2", &linear(50)).await;
        town.then("half", go_on(ContinueUntil::NextPause)).await;
        assert_eq!(town.weight(), 50.0);
        let made = town.double.count("UpdateService");
        town.then("back", action).await;
        assert_eq!((town.runs().as_str(), town.weight()), ("web:1", 0.0));
        assert_eq!(town.double.deployment("web")["status"], "ROLLBACK_SUCCESSFUL");
        let last =
            town.double.calls().into_iter().rfind(|(name, _)| name == "ContinueServiceDeployment").unwrap();
        assert_eq!(last.1["action"], "ROLLBACK");
        assert_eq!(town.double.count("StopServiceDeployment"), 0);
        // The gate is taken out of the service again, and nothing else is deployed.
        assert_eq!(town.double.count("UpdateService"), made + 1);
        let after = &town.double.service("web")["deploymentConfiguration"];
        assert_eq!(
            (&after["strategy"], &after["lifecycleHooks"]),
            (&before["strategy"], &json!([])),
            "{after}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_deployment_between_its_gates_is_stopped_by_a_rollback() {
    let mut town = Town::with_web(&blue_green()).await;
    let baking = |now: &Value| now["lifecycleStage"] == "BAKE_TIME";
    town.disturbed("app:2", &blue_green(), deploy(&[]), baking, cancel).await;
    assert_eq!(town.weight(), 100.0);
    town.then("back", rollback()).await;
    let stop = town.double.calls().into_iter().find(|(name, _)| name == "StopServiceDeployment").unwrap();
    assert_eq!(stop.1["stopType"], "ROLLBACK");
    assert_eq!((town.runs().as_str(), town.weight()), ("web:1", 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn double_what_has_succeeded_is_deployed_back_with_its_gates_open() {
    let mut town = Town::with_web(&blue_green()).await;
    town.step("deploy", deploy(&[GATE]), "app:2", &blue_green()).await;
    town.then("end", go_on(ContinueUntil::End)).await;
    assert_eq!(town.runs(), "web:2");
    town.then("back", rollback()).await;
    assert_eq!(
        (town.runs().as_str(), town.double.deployment("web")["status"].as_str()),
        ("web:1", Some("SUCCESSFUL"))
    );
    // Whoever rolled back once does not do it again.
    let made = town.double.count("UpdateService");
    town.then("again", rollback()).await;
    assert_eq!((town.runs().as_str(), town.double.count("UpdateService")), ("web:1", made));
}

#[tokio::test(flavor = "multi_thread")]
async fn double_tasks_that_end_are_the_evidence_of_a_rollback() {
    let mut town = Town::with_web(&blue_green()).await;
    let error = town.fails("deploy", deploy(&[GATE]), "app:2-exit", &blue_green()).await;
    assert_eq!(error.code, "ECS-082", "{error}");
    assert!(
        error.what.contains("was rolled back by ECS to revision web:1 (ECS deployment circuit breaker"),
        "{error}"
    );
    assert!(error.what.contains("container app ended with exit code 3"), "{error}");
    assert!(town.log.contains("tasks stopped: container app"), "{}", town.log);
    assert_eq!(town.runs(), "web:1");
    town.then("back", rollback()).await;
    assert_eq!(town.runs(), "web:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_rollback_that_fails_says_what_serves() {
    let mut town = Town::with_web(&linear(50)).await;
    town.step("deploy", deploy(&[GATE]), "app:2", &linear(50)).await;
    town.then("half", go_on(ContinueUntil::NextPause)).await;
    town.double.fail_rollbacks();
    let error = town.then_fails("back", rollback()).await;
    assert_eq!(error.code, "ECS-083", "{error}");
    assert!(error.what.contains("web:1: 50 % of production requests, 2 of 2 tasks; web:2: 50 % of production requests, 2 of 2 tasks"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_deployment_that_somebody_stops_is_no_success() {
    let mut town = Town::with_web(&blue_green()).await;
    let scaling = |now: &Value| now["lifecycleStage"] == "SCALE_UP";
    let stop = |double: &EcsDouble, _: &executor_api::CancelHandle| {
        let arn = double.deployment("web")["serviceDeploymentArn"].clone();
        double
            .call("StopServiceDeployment", &json!({"serviceDeploymentArn": arn, "stopType": "ABORT"}))
            .unwrap();
    };
    let error = town.disturbed("app:2", &blue_green(), deploy(&[]), scaling, stop).await;
    assert_eq!(error.code, "ECS-084", "{error}");
    assert!(error.what.contains("was stopped by somebody (StopServiceDeployment was called)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_newer_deployment_of_somebody_else_is_never_undone() {
    let mut town = Town::with_web(&blue_green()).await;
    let scaling = |now: &Value| now["lifecycleStage"] == "SCALE_UP";
    let other = |double: &EcsDouble, _: &executor_api::CancelHandle| {
        let mut definition = double
            .call("DescribeTaskDefinition", &json!({"taskDefinition": "web"}))
            .unwrap()["taskDefinition"]
            .clone();
        definition["containerDefinitions"][0]["image"] = json!("theirs:1");
        let made = double.call("RegisterTaskDefinition", &definition).unwrap();
        let arn = &made["taskDefinition"]["taskDefinitionArn"];
        double.call("UpdateService", &json!({"service": "web", "taskDefinition": arn})).unwrap();
    };
    let error = town.disturbed("app:2", &blue_green(), deploy(&[]), scaling, other).await;
    assert_eq!(error.code, "ECS-085", "{error}");
    let error = town.then_fails("back", rollback()).await;
    assert_eq!(error.code, "ECS-024", "{error}");
    assert_eq!(town.runs(), "web:3");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_gate_that_somebody_else_opened_is_told_and_followed() {
    let mut town = Town::with_web(&linear(50)).await;
    town.step("deploy", deploy(&[GATE]), "app:2", &linear(50)).await;
    let now = town.double.deployment("web");
    let hook = now["lifecycleHookDetails"][0]["hookId"].clone();
    let input =
        json!({"serviceDeploymentArn": now["serviceDeploymentArn"], "hookId": hook, "action": "CONTINUE"});
    town.double.call("ContinueServiceDeployment", &input).unwrap();
    let output = town.then("continue", go_on(ContinueUntil::NextPause)).await;
    assert_eq!((out(&output, "paused"), out(&output, "weight")), (json!(true), json!(50.0)));
    assert!(town.log.contains("waits at no gate"), "{}", town.log);
    assert_eq!(town.double.count("ContinueServiceDeployment"), 0, "what others call is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_gate_that_times_out_while_nobody_looks_is_a_failure() {
    let mut town = Town::with_web(&blue_green()).await;
    town.step("deploy", deploy(&[GATE]), "app:2", &blue_green()).await;
    town.double.advance(Duration::from_secs(3600));
    let error = town.then_fails("continue", go_on(ContinueUntil::NextPause)).await;
    assert_eq!(error.code, "ECS-082", "{error}");
    assert!(error.what.contains("gate timed out"), "{error}");
    let spec = town.spec(rollback(), EcsDefinitions::default());
    assert_eq!(spec.earlier.undo.len(), 2);
    town.then("back", rollback()).await;
    assert!(town.log.contains("ECS has rolled the deployment back already"), "{}", town.log);
}
