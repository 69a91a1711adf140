//! EcsScale.

use crate::peer::{executor, fail, image, place, run, secrets, spec, succeed, task};
use executor_api::testing::World;
use executor_api::{Checkpoints as _, Executor as _, Plan};
use proto::task::{EcsAction, EcsDefinitions, TaskCount};
use serde_json::json;

fn to(service: &str, instances: TaskCount) -> EcsAction {
    EcsAction::EcsScale { service: service.into(), instances, skip_steady_state_check: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_the_count_that_is_asked_for_and_a_share_is_taken_once() {
    let at = place("scalea").await;
    let definition = at.register("web-scalea", &image(&at, "1", "web"));
    at.run("web", &definition, 1, None);
    let step = |instances| spec(&at, EcsDefinitions::default(), to("web", instances));
    let more = step(TaskCount::Count(3));
    let world = World::new("p", task(&more, "e1", "p"), secrets());
    let Plan::Diff { text, .. } = executor().plan(&more, &world.context().1).await.unwrap() else {
        panic!("no plan")
    };
    assert_eq!(text, "change service web\n-desiredCount: 1\n+desiredCount: 3\n");
    assert_eq!(at.describe("web")["desiredCount"], 1);
    let (output, _) = succeed(&more, "e1", "scale").await;
    let out = |name: &str| serde_json::to_value(&output.outputs[name]).unwrap().to_string();
    assert!(out("desiredCount").contains('3') && out("previousDesiredCount").contains('1'), "{output:?}");
    assert_eq!(at.tasks(Some("web"), "RUNNING").len(), 3);
    // The same step again, as after a crash: the share of the share is not taken.
    let half = step(TaskCount::Percentage(50));
    let world = World::new("half", task(&half, "e1", "half"), secrets());
    run(&world, &half).await.unwrap();
    assert_eq!(at.describe("web")["desiredCount"], 2);
    world.restart();
    run(&world, &half).await.unwrap();
    assert_eq!(at.describe("web")["desiredCount"], 2);
    let (_, world) = succeed(&step(TaskCount::Count(0)), "e1", "none").await;
    assert!(world.logs.everything().contains("desired count 2 → 0"), "{}", world.logs.everything());
    assert!(at.tasks(Some("web"), "RUNNING").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_outside_the_bounds_of_autoscaling_is_warned_of() {
    let at = place("scaleb").await;
    let definition = at.register("web-scaleb", &image(&at, "1", "web"));
    at.run("web", &definition, 1, None);
    let target = json!({"ServiceNamespace": "ecs", "ResourceId": format!("service/{}/web", at.name),
        "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 1, "MaxCapacity": 2});
    at.ecs.aws("application-autoscaling", "RegisterScalableTarget", target);
    let (output, _) =
        succeed(&spec(&at, EcsDefinitions::default(), to("web", TaskCount::Count(3))), "e1", "scale").await;
    let warned =
        output.notices.iter().any(|notice| notice.contains("(1 to 2), which sets the count to 2 again"));
    assert!(warned, "{:?}", output.notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_scaled_is_named_and_nothing_is_changed() {
    let at = place("scalec").await;
    let scale = |name: &str| spec(&at, EcsDefinitions::default(), to(name, TaskCount::Count(3)));
    let (error, world) = fail(&scale("nobody"), "e1", "a").await;
    assert_eq!(error.code, "ECS-041", "{error}");
    assert!(error.what.contains("nobody does not exist in cluster scalec"), "{error}");
    let definition = at.register("web-scalec", &image(&at, "1", "web"));
    at.run("web", &definition, 0, None);
    at.ecs.aws("ecs", "DeleteService", json!({"cluster": at.name, "service": "web"}));
    at.until("web", "gone", |now| now["status"] == "INACTIVE");
    let (error, _) = fail(&scale("web"), "e1", "b").await;
    assert!(error.what.contains("is INACTIVE; expected ACTIVE"), "{error}");
    assert!(world.marks.history().is_empty());
    let changed = at.calls(0).into_iter().filter(|call| call.contains("Update")).count();
    assert_eq!(changed, 0);
}
