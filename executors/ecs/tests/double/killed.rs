//! The agent is killed at every checkpoint and call: the next one finds its deployment again, starts no second one, and opens no
//! gate twice.

use crate::town::{GATE, Town, blue_green, definitions, deploy, executor, go_on, linear, out, rollback};
use executor_api::Executor as _;
use executor_api::testing::{CrashAt, World};
use executor_api::{StepError, StepOutput};
use proto::task::{ContinueUntil, EcsAction, EcsDefinitions, EcsSpec};
use serde_json::json;
use std::time::Duration;

/// One life that dies, what happens meanwhile, and the next life. `None`: the step ended before.
async fn twice(
    town: &mut Town,
    step: &str,
    spec: &EcsSpec,
    at: CrashAt,
    meanwhile: Duration,
) -> Option<(Result<StepOutput, StepError>, World)> {
    let world = town.world(step, spec);
    world.marks.crash_at(at);
    let (_handle, cx) = world.context();
    let first = executor(&world);
    tokio::select! {
        _ = first.run(spec, &cx) => return None,
        () = world.marks.crashed() => {}
    }
    drop(first);
    world.restart();
    town.double.advance(meanwhile);
    let (_handle, cx) = world.context();
    let second = executor(&world);
    second.recover(spec, &cx).await.unwrap();
    let result = second.run(spec, &cx).await;
    town.note(step, spec, result.as_ref().ok(), &world);
    Some((result, world))
}

fn places() -> Vec<CrashAt> {
    let checkpoints = (1..=6).map(CrashAt::AfterCheckpoint);
    checkpoints.chain((1..=4).flat_map(|n| [CrashAt::BeforeCall(n), CrashAt::AfterCall(n)])).collect()
}

fn forced() -> EcsAction {
    match deploy(&[GATE]) {
        EcsAction::EcsRollingDeploy { native, .. } => EcsAction::EcsRollingDeploy {
            same_as_already_running_instances: false,
            force_new_deployment: true,
            skip_steady_state_check: false,
            native,
        },
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_deployment_that_was_killed_anywhere_is_started_once() {
    let mut reached = 0;
    for action in [deploy(&[GATE]), forced()] {
        for at in places() {
            let mut town = Town::with_web(&blue_green()).await;
            let spec = town.spec(action.clone(), definitions("web", "app:2", &blue_green()));
            let before = town.double.deployment("web")["serviceDeploymentArn"].clone();
            let Some((result, _)) = twice(&mut town, "deploy", &spec, at, Duration::from_secs(7)).await
            else {
                continue;
            };
            reached += 1;
            let output =
                result.unwrap_or_else(|error| panic!("{at:?}: {} {error}\n{}", error.code, town.log));
            assert_eq!((out(&output, "paused"), town.weight()), (json!(true), 0.0), "{at:?}");
            let all = town.double.call("ListServiceDeployments", &json!({"service": "web"})).unwrap();
            assert_eq!(all["serviceDeployments"].as_array().unwrap().len(), 2, "{at:?}: {all}\n{}", town.log);
            assert_eq!(all["serviceDeployments"][1]["serviceDeploymentArn"], before);
        }
    }
    assert!(reached >= 10, "{reached} places were reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_gate_that_was_being_opened_is_opened_once() {
    let mut reached = 0;
    for at in [CrashAt::AfterCheckpoint(1), CrashAt::BeforeCall(1), CrashAt::AfterCall(1)] {
        let mut town = Town::with_web(&linear(25)).await;
        town.step("deploy", deploy(&[GATE]), "app:2", &linear(25)).await;
        let spec = town.spec(go_on(ContinueUntil::NextPause), EcsDefinitions::default());
        // Meanwhile the deployment has come to its next gate, if it was told to.
        let Some((result, _)) = twice(&mut town, "continue", &spec, at, Duration::from_secs(600)).await
        else {
            continue;
        };
        reached += 1;
        let output = result.unwrap_or_else(|error| panic!("{at:?}: {} {error}\n{}", error.code, town.log));
        assert_eq!((out(&output, "weight"), town.weight()), (json!(25.0), 25.0), "{at:?}\n{}", town.log);
    }
    assert_eq!(reached, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_gate_that_timed_out_while_the_agent_was_down_is_a_failure_that_says_so() {
    let mut town = Town::with_web(&blue_green()).await;
    let spec = town.spec(deploy(&[GATE]), definitions("web", "app:2", &blue_green()));
    // The second call is UpdateService, after RegisterTaskDefinition.
    let died = twice(&mut town, "deploy", &spec, CrashAt::AfterCall(2), Duration::from_secs(7200)).await;
    let error = died.unwrap().0.unwrap_err();
    assert_eq!(error.code, "ECS-082", "{error}\n{}", town.log);
    assert!(
        error.what.contains("rolled back by ECS to revision web:1") && error.what.contains("gate timed out"),
        "{error}"
    );
    assert_eq!((town.runs().as_str(), town.double.count("UpdateService")), ("web:1", 2 - 1));
    town.then("back", rollback()).await;
    assert_eq!(town.runs(), "web:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn double_a_rollback_that_was_killed_anywhere_comes_to_its_end() {
    let mut reached = 0;
    for at in places() {
        let mut town = Town::with_web(&linear(50)).await;
        town.step("deploy", deploy(&[GATE]), "app:2", &linear(50)).await;
        let spec = town.spec(rollback(), EcsDefinitions::default());
        let Some((result, _)) = twice(&mut town, "back", &spec, at, Duration::from_secs(60)).await else {
            continue;
        };
        reached += 1;
        result.unwrap_or_else(|error| panic!("{at:?}: {} {error}\n{}", error.code, town.log));
        assert_eq!((town.runs().as_str(), town.weight()), ("web:1", 0.0), "{at:?}");
        let all = town.double.call("ListServiceDeployments", &json!({"service": "web"})).unwrap();
        assert_eq!(
            all["serviceDeployments"].as_array().unwrap().len(),
            2,
            "{at:?}: nothing else was deployed"
        );
    }
    assert!(reached >= 4, "{reached} places were reached");
}
