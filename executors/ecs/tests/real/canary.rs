//! EcsCanaryDeploy and EcsCanaryDelete.

use crate::crash;
use crate::peer::aws::{Clients, Place, get, has_share, traffic, until};
use crate::peer::{definitions, executor, fail, image, place, run, spec, succeed, undo};
use executor_api::{Executor as _, Plan, StepOutput};
use proto::task::{EcsAction, EcsDefinitions, EcsEarlier, EcsSpec, EcsUndo, TaskCount};
use serde_json::{Value, json};

fn canary(instances: Option<TaskCount>, replace_existing: bool) -> EcsAction {
    EcsAction::EcsCanaryDeploy { instances, replace_existing }
}

/// A delete step that knows what a deploy step left behind.
fn delete(at: &Place<'_>, data: Value) -> EcsSpec {
    let left = EcsUndo { step: "canary".into(), kind: "EcsCanaryDeploy".into(), succeeded: true, data };
    let step = spec(at, EcsDefinitions::default(), EcsAction::EcsCanaryDelete {});
    EcsSpec { earlier: EcsEarlier { undo: vec![left] }, ..step }
}

fn out(output: &StepOutput, name: &str) -> String {
    serde_json::to_value(&output.outputs[name]).unwrap()["value"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_grows_beside_its_service_and_goes_without_a_lost_request() {
    let at = place("canarya").await;
    let balancer = at.balancer("lb");
    let group = balancer.group("g");
    let listener = balancer.listener(80, &[(&group, 1)]);
    let old = at.register("main-canarya", &image(&at, "old", "web"));
    at.run("web", &old, 4, Some(&group));
    let door = at.ecs.door(&listener);
    let clients = Clients::start(door);
    let defined = definitions(&at, "web", &image(&at, "new", "web"), 4, Some(&group));
    let step = |count| spec(&at, defined.clone(), canary(Some(count), false));
    let first = step(TaskCount::Count(1));
    let world = crash::world(&first, "e1", "plan");
    let Plan::Diff { text, .. } = executor().plan(&first, &world.context().1).await.unwrap() else {
        panic!("no plan")
    };
    assert!(text.ends_with("create service webCanary\n+desiredCount: 1\n"), "{text}");
    assert!(!traffic(door, "/", 40).contains_key("new"));
    let mut left = Value::Null;
    for (name, count, tasks) in [
        ("one", TaskCount::Count(1), 1),
        ("two", TaskCount::Count(2), 2),
        ("all", TaskCount::Percentage(100), 4),
    ] {
        let (output, world) = succeed(&step(count), "e1", name).await;
        assert_eq!(out(&output, "canaryServiceName"), "\"webCanary\"".to_owned(), "{output:?}");
        assert_eq!(at.tasks(Some("webCanary"), "RUNNING").len(), tasks);
        // A change of the count is done when its tasks run; requests come a moment later, when they have been probed.
        until("every task gets requests", || {
            let states = balancer.health(&group);
            let all = states.len() == tasks + 4 && states.iter().all(|state| state == "healthy");
            if all { Ok(()) } else { Err(format!("{states:?}")) }
        });
        let share = tasks as f64 / (tasks as f64 + 4.0);
        has_share(door, "new", share, 400).unwrap();
        let percent = format!("about {:.0} % of the requests", share * 100.0);
        assert!(world.logs.everything().contains(&percent), "{}", world.logs.everything());
        left = undo(Some(&output), &world);
    }
    // One service, one revision, and no autoscaling of its own.
    let calls = at.calls(0);
    let number = |call: &str| calls.iter().filter(|made| *made == call).count();
    assert_eq!((number("ecs:CreateService"), number("ecs:RegisterTaskDefinition")), (1, 1), "{calls:?}");
    assert_eq!(number("application-autoscaling:RegisterScalableTarget"), 0);
    let (output, _) = succeed(&delete(&at, left.clone()), "e1", "delete").await;
    assert_eq!(out(&output, "canaryDeleted"), "true");
    assert_eq!(at.describe("webCanary")["status"], "INACTIVE");
    let seen = clients.stop();
    assert!(seen.keys().all(|answer| answer == "old" || answer == "new"), "{seen:?}");
    assert_eq!(get(door, "/"), "old");
    // Once more there is nothing to do, nor where no canary was made.
    let (output, _) = succeed(&delete(&at, left), "e1", "again").await;
    assert_eq!(out(&output, "canaryDeleted"), "false");
    let none = spec(&at, EcsDefinitions::default(), EcsAction::EcsCanaryDelete {});
    assert!(succeed(&none, "e1", "none").await.0.skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_s_canary_is_refused_unless_it_may_be_replaced() {
    let at = place("canaryb").await;
    let defined = definitions(&at, "web", &image(&at, "1", "web"), 2, None);
    let step = |replace| spec(&at, defined.clone(), canary(None, replace));
    let (output, world) = succeed(&step(false), "e1", "canary").await;
    let left = undo(Some(&output), &world);
    assert!(world.logs.everything().contains("the canary runs alone"), "{}", world.logs.everything());
    let (error, world) = fail(&step(false), "e2", "canary").await;
    assert_eq!(error.code, "ECS-043", "{error}");
    assert!(error.what.contains("execution e1 made it"), "{error}");
    assert!(world.marks.calls().is_empty());
    // Nor does the other execution delete it.
    let (error, _) = fail(&delete(&at, left), "e2", "delete").await;
    assert_eq!(error.code, "ECS-042", "{error}");
    assert_eq!(at.describe("webCanary")["status"], "ACTIVE");
    let (output, _) = succeed(&step(true), "e2", "again").await;
    assert!(output.notices.iter().any(|notice| notice.starts_with("ecs.canary.replaced")), "{output:?}");
    let tags = at.describe("webCanary")["tags"].to_string();
    assert!(tags.contains("e2") && !tags.contains("e1"), "{tags}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_is_told_with_its_reason_and_can_be_removed() {
    let at = place("canaryc").await;
    // Behind a load balancer a task counts when it is healthy; without one, when it has lived for a moment.
    let balancer = at.balancer("lb");
    let group = balancer.group("g");
    balancer.listener(80, &[(&group, 1)]);
    let defined = definitions(&at, "web", &image(&at, "1", "crash"), 2, Some(&group));
    let (error, world) = fail(&spec(&at, defined, canary(None, false)), "e1", "canary").await;
    assert_eq!(error.code, "ECS-032", "{error}");
    assert!(error.what.contains("container app ended with exit code 1"), "{error}");
    assert!(world.logs.everything().contains("1 task") || world.logs.everything().contains("tasks stopped"));
    // What the step left behind although it failed is enough to remove it.
    succeed(&delete(&at, undo(None, &world)), "e1", "delete").await;
    assert_eq!(at.describe("webCanary")["status"], "INACTIVE");
    // Without a service definition nothing is asked of AWS.
    let before = at.calls(0).len();
    let (error, _) = fail(&spec(&at, EcsDefinitions::default(), canary(None, false)), "e1", "none").await;
    assert_eq!(error.code, "ECS-015", "{error}");
    assert_eq!(at.calls(0).len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_made_once_wherever_the_agent_dies() {
    let at = place("canaryd").await;
    let old = at.register("main-canaryd", &image(&at, "old", "web"));
    at.run("web", &old, 4, None);
    let defined = definitions(&at, "web", &image(&at, "new", "web"), 4, None);
    let step = spec(&at, defined, canary(Some(TaskCount::Percentage(50)), false));
    crash::everywhere(&step, "e1", "canary", async |output, world| {
        let live = at.until_steady("webCanary");
        assert_eq!(live["desiredCount"], 2);
        let created = world.marks.calls().iter().filter(|call| call.starts_with("CreateService")).count();
        assert!(created <= 2, "{:?}", world.marks.calls());
        let deleted = delete(&at, undo(Some(&output), world));
        crash_free(&deleted).await;
    })
    .await;
}

async fn crash_free(step: &EcsSpec) {
    let world = crash::world(step, "e1", "delete");
    run(&world, step).await.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_removed_wherever_the_agent_dies() {
    let at = place("canarye").await;
    let defined = definitions(&at, "web", &image(&at, "1", "web"), 1, None);
    let step = spec(&at, defined, canary(None, false));
    let left = json!({"v": 1, "undo": {"kind": "canary", "service": "webCanary"}});
    let make = async || {
        let world = crash::world(&step, "e1", "canary");
        run(&world, &step).await.unwrap_or_else(|e| panic!("{}: {e}\n{}", e.code, world.logs.everything()));
    };
    make().await;
    crash::everywhere(&delete(&at, left), "e1", "delete", async |output, _| {
        assert_eq!(out(&output, "canaryDeleted"), "true");
        assert_eq!(at.describe("webCanary")["status"], "INACTIVE");
        make().await;
    })
    .await;
}
