//! EcsServiceSetup, EcsUpgradeContainer, EcsBasicRollback.

use crate::crash;
use crate::peer::aws::Place;
use crate::peer::{definitions, document, fail, image, place, run, spec, succeed, undo};
use executor_api::StepOutput;
use executor_api::testing::World;
use proto::task::{EcsAction, EcsDefinitions, EcsEarlier, EcsSpec, EcsUndo, ResizeStrategy, TaskCount};
use serde_json::{Value, json};

fn setup(same: bool) -> EcsAction {
    EcsAction::EcsServiceSetup {
        resize_strategy: ResizeStrategy::ResizeNewFirst,
        same_as_already_running_instances: same,
    }
}

fn upgrade(new: TaskCount) -> EcsAction {
    EcsAction::EcsUpgradeContainer { new_instances: new, downsize_old: None }
}

/// A step that knows what earlier ones left behind.
fn after(step: EcsSpec, left: &[(&str, &Value)]) -> EcsSpec {
    let undo = left.iter().map(|(kind, data)| EcsUndo {
        step: "s".into(),
        kind: (*kind).into(),
        succeeded: true,
        data: (*data).clone(),
    });
    EcsSpec { earlier: EcsEarlier { undo: undo.collect() }, ..step }
}

fn defined(at: &Place<'_>, tag: &str) -> EcsDefinitions {
    definitions(at, "web", &image(at, tag, "web"), 2, None)
}

async fn done(step: &EcsSpec, execution: &str, identifier: &str) -> (StepOutput, World, Value) {
    let (output, world) = succeed(step, execution, identifier).await;
    let left = undo(Some(&output), &world);
    (output, world, left)
}

fn counts(at: &Place<'_>, services: &[&str]) -> Vec<Value> {
    services.iter().map(|service| at.describe(service)["desiredCount"].clone()).collect()
}

/// What scales a service by itself; the region's whole list has pages.
fn targets(at: &Place<'_>, service: &str) -> Vec<Value> {
    let which = json!({"ServiceNamespace": "ecs", "ResourceIds": [format!("service/{}/{service}", at.name)]});
    let said = at.ecs.aws("application-autoscaling", "DescribeScalableTargets", which);
    said["ScalableTargets"].as_array().cloned().unwrap_or_default()
}

/// Deploys in one go; returns what the last step left behind.
async fn deployed(at: &Place<'_>, tag: &str, execution: &str) -> Value {
    let (_, _, left) = done(&spec(at, defined(at, tag), setup(false)), execution, "setup").await;
    let step = spec(at, defined(at, tag), upgrade(TaskCount::Percentage(100)));
    done(&after(step, &[("EcsServiceSetup", &left)]), execution, "upgrade").await.2
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_move_to_the_next_service_by_phases_and_back_again() {
    let at = place("phaseda").await;
    deployed(&at, "1", "e1").await;
    assert_eq!(counts(&at, &["web__1"]), [2]);
    let target = json!({"ServiceNamespace": "ecs", "ResourceId": format!("service/{}/web__1", at.name),
        "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 1, "MaxCapacity": 4});
    at.ecs.aws("application-autoscaling", "RegisterScalableTarget", target);
    let (_, _, set_up) = done(&spec(&at, defined(&at, "2"), setup(false)), "e2", "setup").await;
    assert_eq!(counts(&at, &["web__1", "web__2"]), [2, 0]);
    let step = |count| spec(&at, defined(&at, "2"), upgrade(count));
    let half = after(step(TaskCount::Percentage(50)), &[("EcsServiceSetup", &set_up)]);
    let (output, _, halved) = done(&half, "e2", "half").await;
    assert_eq!(counts(&at, &["web__1", "web__2"]), [1, 1]);
    let shown = serde_json::to_value(&output.outputs["newService"]).unwrap();
    assert!(shown.to_string().contains("web__2"), "{shown}");
    let suspended = || targets(&at, "web__1")[0]["SuspendedState"]["DynamicScalingInSuspended"] == true;
    assert!(suspended());
    let left = [("EcsServiceSetup", &set_up), ("EcsUpgradeContainer", &halved)];
    let whole = after(step(TaskCount::Count(9)), &left);
    let (_, _, whole) = done(&whole, "e2", "whole").await;
    assert_eq!(counts(&at, &["web__1", "web__2"]), [0, 2]);
    let left =
        [("EcsServiceSetup", &set_up), ("EcsUpgradeContainer", &halved), ("EcsUpgradeContainer", &whole)];
    let back = after(spec(&at, defined(&at, "2"), EcsAction::EcsBasicRollback {}), &left);
    let (output, _, _) = done_without_undo(&back, "e2", "back").await;
    assert_eq!(counts(&at, &["web__1", "web__2"]), [2, 0]);
    assert!(!suspended());
    assert!(
        serde_json::to_value(&output.outputs["isFirstTimeDeployment"]).unwrap().to_string().contains("false")
    );
    assert_eq!(at.tasks(Some("web__1"), "RUNNING").len(), 2);
    assert!(at.tasks(Some("web__2"), "RUNNING").is_empty());
}

async fn done_without_undo(step: &EcsSpec, execution: &str, identifier: &str) -> (StepOutput, World, ()) {
    let (output, world) = succeed(step, execution, identifier).await;
    (output, world, ())
}

#[tokio::test(flavor = "multi_thread")]
async fn older_services_go_but_for_the_last_and_those_of_other_pipelines() {
    let at = place("phasedb").await;
    for (number, execution) in [("1", "e1"), ("2", "e2"), ("3", "e3")] {
        deployed(&at, number, execution).await;
    }
    // Set-up of 3 kept 1, because 2 served.
    let other = json!([{"key": "delegate:pipeline", "value": "other"}]);
    let arn = at.describe("web__1")["serviceArn"].clone();
    at.ecs.aws("ecs", "TagResource", json!({"resourceArn": arn, "tags": other}));
    let (_, world, _) = done(&spec(&at, defined(&at, "4"), setup(true)), "e4", "setup").await;
    let log = world.logs.everything();
    assert!(log.contains("service web__2 has no tasks and is kept for a rollback"), "{log}");
    assert!(log.contains("service web__1 is of pipeline other and is left alone"), "{log}");
    done(&spec(&at, defined(&at, "5"), setup(false)), "e5", "setup").await;
    assert_eq!(at.describe("web__2")["status"], "INACTIVE");
    assert_eq!(at.describe("web__1")["status"], "ACTIVE");
    assert_eq!(counts(&at, &["web__3", "web__4", "web__5"]), [2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_is_rolled_back_by_removing_it_and_steps_out_of_order_are_told() {
    let at = place("phasedc").await;
    let alone = spec(&at, defined(&at, "1"), upgrade(TaskCount::Percentage(50)));
    let (error, _) = fail(&alone, "e1", "upgrade").await;
    assert_eq!(error.code, "ECS-045", "{error}");
    let back = spec(&at, defined(&at, "1"), EcsAction::EcsBasicRollback {});
    assert!(succeed(&back, "e1", "none").await.0.skipped);
    let left = deployed(&at, "1", "e1").await;
    let (output, _) = succeed(&after(back, &[("EcsUpgradeContainer", &left)]), "e1", "back").await;
    assert!(
        serde_json::to_value(&output.outputs["isFirstTimeDeployment"]).unwrap().to_string().contains("true")
    );
    assert_eq!(at.describe("web__1")["status"], "INACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_service_gets_its_autoscaling_and_loses_it_with_a_rollback() {
    let at = place("phasedd").await;
    deployed(&at, "1", "e1").await;
    let (_, _, set_up) = done(&spec(&at, defined(&at, "2"), setup(false)), "e2", "setup").await;
    let mut scaled = defined(&at, "2");
    scaled.scalable_targets = vec![document("target", json!({"minCapacity": 1, "maxCapacity": 4}))];
    let step = spec(&at, scaled, upgrade(TaskCount::Percentage(100)));
    let (_, _, left) = done(&after(step, &[("EcsServiceSetup", &set_up)]), "e2", "upgrade").await;
    let targets = || targets(&at, "web__2").len();
    assert_eq!(targets(), 1);
    let back = spec(&at, defined(&at, "2"), EcsAction::EcsBasicRollback {});
    succeed(&after(back, &[("EcsUpgradeContainer", &left)]), "e2", "back").await;
    assert_eq!((targets(), counts(&at, &["web__1", "web__2"])), (0, vec![json!(2), json!(0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_on_wherever_the_agent_dies() {
    let at = place("phasede").await;
    deployed(&at, "1", "e1").await;
    let (_, _, set_up) = done(&spec(&at, defined(&at, "2"), setup(false)), "e2", "setup").await;
    let step = |share| {
        let step = spec(&at, defined(&at, "2"), upgrade(TaskCount::Percentage(share)));
        after(step, &[("EcsServiceSetup", &set_up)])
    };
    crash::everywhere(&step(50), "e2", "upgrade", async |_, _| {
        assert_eq!(counts(&at, &["web__1", "web__2"]), [1, 1]);
        for (service, count) in [("web__1", 2), ("web__2", 0)] {
            let input = json!({"cluster": at.name, "service": service, "desiredCount": count});
            at.ecs.aws("ecs", "UpdateService", input);
            at.until(service, "as before", |now| now["runningCount"] == count);
        }
    })
    .await;
    // A set-up that is done again makes no further service.
    let again = spec(&at, defined(&at, "3"), setup(false));
    let world = crash::world(&again, "e3", "setup");
    for _ in 0..2 {
        run(&world, &again).await.unwrap();
        world.restart();
    }
    assert_eq!(at.describe("web__3")["status"], "ACTIVE");
    let all = at.ecs.aws("ecs", "ListServices", json!({"cluster": at.name}));
    assert_eq!(all["serviceArns"].as_array().unwrap().len(), 3, "{all}");
}
