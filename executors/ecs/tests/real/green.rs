//! Blue and green as the seeds write them: EcsRunTask deploys beside, shifts by weights, ends the old one; and all of it undone.

use crate::peer::aws::{Balancer, Clients, Fault, Place, forward, has_share};
use crate::peer::{definitions, document, image, place};
use crate::stage::{Stage, out};
use proto::task::{EcsAction, RunTaskShape};
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Town {
    at: Place<'static>,
    balancer: Balancer<'static>,
    blue: String,
    green: String,
    listener: String,
    tests: String,
}

impl Town {
    /// A load balancer with a production listener, a test listener and two target groups; a service `web` behind the first.
    async fn new(name: &'static str) -> Town {
        let at = place(name).await;
        let balancer = at.balancer("lb");
        let (blue, green) = (balancer.group("blue"), balancer.group("green"));
        let listener = balancer.listener(80, &[(&blue, 1)]);
        let tests = balancer.listener(9001, &[(&green, 1)]);
        Town { at, balancer, blue, green, listener, tests }
    }

    fn run_blue(&self, tag: &str, count: u64) {
        let definition = self.at.register(&format!("{}-web", self.at.name), &image(&self.at, tag, "web"));
        self.at.run("web", &definition, count, Some(&self.blue));
    }

    fn stage(&self, tag: &str, execution: &str) -> Stage<'_> {
        let image = image(&self.at, tag, "web");
        Stage::new(&self.at, definitions(&self.at, "web", &image, 2, Some(&self.blue)), execution)
    }

    fn deploy(&self, tag: &str, behaviour: &str) -> EcsAction {
        let image = image(&self.at, tag, behaviour);
        let part = json!({"containerDefinitions": [{"name": "app", "image": image}]});
        run_task(RunTaskShape::Green {
            document: document("Deploy_Green", part),
            service: "web-green".into(),
            launch_type: Some("FARGATE".into()),
            network_configuration: Some(self.at.network()),
            desired_count: None,
            target_group_arn: None,
        })
    }

    fn actions(&self, listener: &str) -> Value {
        let said = self.at.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [listener]}));
        said["Listeners"][0]["DefaultActions"].clone()
    }

    fn weights(&self) -> BTreeMap<String, u64> {
        let actions = self.actions(&self.listener);
        let groups = actions[0]["ForwardConfig"]["TargetGroups"].as_array().cloned().unwrap_or_default();
        let name = |arn: &Value| {
            arn.as_str().unwrap().split('/').nth(1).unwrap().rsplit('-').next().unwrap().to_owned()
        };
        groups
            .iter()
            .map(|group| (name(&group["TargetGroupArn"]), group["Weight"].as_u64().unwrap_or(1)))
            .collect()
    }
}

fn run_task(shape: RunTaskShape) -> EcsAction {
    EcsAction::EcsRunTask { shape: Box::new(shape) }
}

fn shift(percent: u32) -> EcsAction {
    run_task(RunTaskShape::Shift {
        percent,
        listener_rule_arn: None,
        listener_arn: None,
        blue_target_group_arn: None,
        green_target_group_arn: None,
    })
}

fn terminate(which: &str) -> EcsAction {
    run_task(RunTaskShape::Terminate { which: which.into() })
}

fn pairs(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn green_is_deployed_gets_10_50_100_percent_and_blue_ends_without_a_failed_request() {
    let town = Town::new("greena").await;
    town.run_blue("1", 2);
    let door = town.at.ecs.door(&town.listener);
    let clients = Clients::start(door);
    let mut stage = town.stage("1", "first");
    let made = stage.step("Deploy_Green", town.deploy("2", "web")).await;
    assert_eq!(out(&made, "serviceName"), "web-green");
    assert_eq!(out(&made, "targetGroupArn"), json!(town.green));
    assert_eq!(out(&made, "baselineTargetGroupArn"), json!(town.blue));
    assert_eq!(out(&made, "loadBalancerArn"), json!(town.balancer.arn));
    assert!(out(&made, "image").as_str().unwrap().contains("app-greena"), "{made:?}");
    let live = town.at.describe("web-green");
    assert_eq!((&live["desiredCount"], &live["runningCount"]), (&json!(2), &json!(2)));
    assert_eq!(out(&made, "taskDefinitionArn"), live["taskDefinition"]);
    // Nobody has reached it; whoever looks at the test listener does.
    has_share(door, "1", 1.0, 20).unwrap();
    has_share(town.at.ecs.door(&town.tests), "2", 1.0, 5).unwrap();
    let plan = stage.plan("Route_10", shift(10)).await;
    assert!(plan.contains("+        \"Weight\": 10") || plan.contains("\"Weight\": 10"), "{plan}");
    for (percent, share) in [(10, 0.1), (50, 0.5), (100, 1.0)] {
        let done = stage.step(&format!("Route_{percent}"), shift(percent)).await;
        assert_eq!(
            town.weights(),
            pairs(&[("blue", u64::from(100 - percent)), ("green", u64::from(percent))])
        );
        has_share(door, "2", share, 400).unwrap();
        assert_eq!(out(&done, "weights")[&town.green], json!(percent));
    }
    let done = stage.step("Terminate_Blue", terminate("blue")).await;
    assert_eq!((out(&done, "serviceName"), out(&done, "terminated")), (json!("web"), json!(true)));
    assert_eq!(town.at.describe("web")["status"], "INACTIVE");
    has_share(door, "2", 1.0, 20).unwrap();
    let seen = clients.stop();
    assert!(seen.keys().all(|body| body == "1" || body == "2"), "{seen:?}");

    // A second run finds the colours the other way round.
    let mut stage = town.stage("1", "second");
    let made = stage.step("Deploy_Green", town.deploy("3", "web")).await;
    assert_eq!((out(&made, "serviceName"), out(&made, "targetGroupArn")), (json!("web"), json!(town.blue)));
    assert!(made.notices.iter().any(|notice| notice.contains("ecs.bluegreen.turned")), "{:?}", made.notices);
    has_share(door, "2", 1.0, 20).unwrap();
    stage.step("Route_100", shift(100)).await;
    assert_eq!(town.weights(), pairs(&[("blue", 100), ("green", 0)]));
    has_share(door, "3", 1.0, 20).unwrap();
    stage.step("Terminate_Blue", terminate("blue")).await;
    assert_eq!(town.at.describe("web-green")["status"], "INACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_undone_in_reverse_and_blue_lives_again_before_it_gets_requests() {
    let town = Town::new("greenb").await;
    town.run_blue("1", 2);
    let scaling = json!({"ServiceNamespace": "ecs", "ResourceId": "service/greenb/web",
        "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 1, "MaxCapacity": 4});
    town.at.ecs.aws("application-autoscaling", "RegisterScalableTarget", scaling);
    let before = town.actions(&town.listener);
    let door = town.at.ecs.door(&town.listener);
    let mut stage = town.stage("1", "first");
    stage.step("Deploy_Green", town.deploy("2", "web")).await;
    stage.step("Route_50", shift(50)).await;
    stage.step("Route_100", shift(100)).await;
    stage.step("Terminate_Blue", terminate("blue")).await;
    let targets = |service: &str| {
        let which = json!({"ServiceNamespace": "ecs", "ResourceIds": [format!("service/greenb/{service}")]});
        let said = town.at.ecs.aws("application-autoscaling", "DescribeScalableTargets", which);
        said["ScalableTargets"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((targets("web"), targets("web-green")), (0, 1), "autoscaling moves to the service that stays");
    let clients = Clients::start(door);
    stage.undo_all().await;
    let seen = clients.stop();
    assert!(seen.keys().all(|body| body == "1" || body == "2"), "{seen:?}");
    has_share(door, "1", 1.0, 20).unwrap();
    let weights = |actions: &Value| actions[0]["ForwardConfig"]["TargetGroups"].clone();
    assert_eq!(weights(&town.actions(&town.listener)), weights(&before));
    assert_eq!(town.at.describe("web-green")["status"], "INACTIVE");
    let live = town.at.describe("web");
    assert_eq!((&live["status"], &live["desiredCount"]), (&json!("ACTIVE"), &json!(2)));
    assert_eq!((targets("web"), targets("web-green")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_green_that_fails_is_told_and_nothing_is_routed() {
    let town = Town::new("greenc").await;
    town.run_blue("1", 1);
    let before = town.actions(&town.listener);
    let mut stage = town.stage("1", "first");
    let error = stage.fails("Deploy_Green", town.deploy("bad", "crash")).await;
    assert!(error.code.starts_with("ECS-03"), "{} {error}", error.code);
    assert_eq!(town.actions(&town.listener), before);
    let calls = town.at.calls(0);
    assert!(!calls.iter().any(|call| call.contains("Modify")), "{calls:?}");
    stage.undo_all().await;
    assert_eq!(town.at.describe("web-green")["status"], "INACTIVE");
    assert_eq!(town.at.describe("web")["runningCount"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_somebody_else_changed_is_not_overwritten() {
    let town = Town::new("greend").await;
    town.run_blue("1", 1);
    let mut stage = town.stage("1", "first");
    stage.step("Deploy_Green", town.deploy("2", "web")).await;
    stage.step("Route_10", shift(10)).await;
    let theirs = forward(&[(&town.blue, 70), (&town.green, 30)]);
    town.at.ecs.aws(
        "elbv2",
        "ModifyListener",
        json!({"ListenerArn": town.listener, "DefaultActions": theirs}),
    );
    let error = stage.fails("Route_50", shift(50)).await;
    assert_eq!(error.code, "ECS-054", "{error}");
    assert!(error.what.contains("blue 70") && error.what.contains("blue 90"), "{error}");
    assert_eq!(town.weights(), pairs(&[("blue", 70), ("green", 30)]));
    // Nor by the way back, which says so; and green, which gets requests, stays.
    let (deploy, route) = (stage.done[0].clone(), stage.done[1].clone());
    assert_eq!(stage.undo(&route).await.unwrap_err().code, "ECS-054");
    assert_eq!(stage.undo(&deploy).await.unwrap_err().code, "ECS-057");
    assert_eq!(town.weights(), pairs(&[("blue", 70), ("green", 30)]));
    assert_eq!(town.at.describe("web-green")["status"], "ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_gets_requests_is_not_ended_and_a_sick_one_gets_none() {
    let town = Town::new("greene").await;
    town.run_blue("1", 1);
    let mut stage = town.stage("1", "first");
    stage.step("Deploy_Green", town.deploy("2", "web")).await;
    let error = stage.fails("Terminate_Blue", terminate("blue")).await;
    assert_eq!(error.code, "ECS-057", "{error}");
    assert_eq!(town.at.describe("web")["runningCount"], 1);
    town.at.ecs.aws(
        "ecs",
        "UpdateService",
        json!({"cluster": "greene", "service": "web-green", "desiredCount": 0}),
    );
    town.at.until("web-green", "empty", |now| now["runningCount"] == 0);
    let error = stage.fails("Route_10", shift(10)).await;
    assert_eq!(error.code, "ECS-056", "{error}");
    assert!(
        error.what.contains("0 of 0 targets healthy") && error.what.contains("nothing was shifted"),
        "{error}"
    );
    let calls = town.at.calls(0);
    assert!(!calls.iter().any(|call| call.contains("Modify")), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_leaves_weights_and_services_and_names_the_way_back() {
    let town = Town::new("greenf").await;
    town.run_blue("1", 1);
    let mut stage = town.stage("1", "first");
    stage.step("Deploy_Green", town.deploy("2", "web")).await;
    stage.step("Route_50", shift(50)).await;
    town.at.ecs.aws(
        "ecs",
        "UpdateService",
        json!({"cluster": "greenf", "service": "web-green", "desiredCount": 3}),
    );
    let error = stage.ended("Route_100", shift(100), || true).await;
    assert!(matches!(error.class, executor_api::Class::Cancelled { .. }), "{error}");
    assert!(error.what.contains("delegate execution rollback first-greenf"), "{error}");
    assert_eq!(town.weights(), pairs(&[("blue", 50), ("green", 50)]));
    assert_eq!(town.at.describe("web")["status"], "ACTIVE");
    stage.undo_all().await;
    has_share(town.at.ecs.door(&town.listener), "1", 1.0, 20).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_unique_ends_the_step_before_its_first_change() {
    let town = Town::new("greeng").await;
    town.run_blue("1", 1);
    // A second public listener sends requests to blue too.
    town.balancer.listener(443, &[(&town.blue, 1)]);
    let mut stage = town.stage("1", "first");
    let error = stage.fails("Deploy_Green", town.deploy("2", "web")).await;
    assert_eq!(error.code, "ECS-053", "{error}");
    assert!(error.what.contains("there are 2"), "{error}");
    assert!(error.hint.unwrap().contains("ecs_bg_listener_rule_arn"));
    // Named, it is unique; a third target group makes green's not so.
    stage.variables.insert("ecs_bg_listener_arn".into(), town.listener.clone());
    let third = town.balancer.group("third");
    town.balancer.listener(9002, &[(&third, 1)]);
    let error = stage.fails("Deploy_Green", town.deploy("2", "web")).await;
    assert_eq!(error.code, "ECS-053", "{error}");
    assert!(error.hint.unwrap().contains("ecs_bg_green_target_group_arn"), "{}", error.what);
    let changes = town.at.calls(0).into_iter().filter(|call| {
        !call.contains(":Describe")
            && !call.contains(":List")
            && !call.contains("Get")
            && !call.contains("Simulate")
    });
    assert_eq!(changes.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_group_of_two_load_balancers_is_not_guessed_and_changes_nothing() {
    let town = Town::new("greenh").await;
    town.run_blue("1", 1);
    let second = town.at.balancer("second");
    second.listener(80, &[(&town.blue, 1)]);
    let mut stage = town.stage("1", "first");
    let error = stage.fails("Deploy_Green", town.deploy("2", "web")).await;
    assert_eq!(error.code, "ECS-053", "{error}");
    assert!(error.what.contains("there are 2") && error.what.contains("greenh-second"), "{error}");
    assert!(!town.at.calls(0).iter().any(|call| call.contains(":Create") || call.contains(":Register")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_no_rule_names_joins_without_requests_and_leaves_again() {
    let at = place("greeni").await;
    let balancer = at.balancer("lb");
    let (blue, green) = (balancer.group("blue"), balancer.group("green"));
    let listener = balancer.listener(80, &[(&blue, 1)]);
    let town = Town { at, balancer, blue, green, tests: listener.clone(), listener };
    town.run_blue("1", 2);
    let mut stage = town.stage("1", "first");
    stage.variables.insert("ecs_bg_green_target_group_arn".into(), town.green.clone());
    stage.step("Deploy_Green", town.deploy("2", "web")).await;
    assert_eq!(town.weights(), pairs(&[("blue", 1), ("green", 0)]));
    assert_eq!(town.balancer.health(&town.green), ["healthy", "healthy"]);
    let door = town.at.ecs.door(&town.listener);
    has_share(door, "1", 1.0, 20).unwrap();
    stage.step("Route_10", shift(10)).await;
    has_share(door, "2", 0.1, 300).unwrap();
    stage.undo_all().await;
    assert_eq!(town.weights(), pairs(&[("blue", 1)]));
    assert_eq!(town.at.describe("web-green")["status"], "INACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_from_before_the_change_are_waited_out_and_a_rule_that_stays_as_it_was_is_told() {
    let town = Town::new("greenj").await;
    town.run_blue("1", 1);
    let mut stage = town.stage("1", "first");
    stage.step("Deploy_Green", town.deploy("2", "web")).await;
    // Three looks before the change; those after it are answered from before for a while.
    let old = || Fault::stale().on("elbv2", "DescribeListeners").by(&town.at.key).after(3);
    let late = town.at.ecs.fault(old().times(2));
    stage.step("Route_10", shift(10)).await;
    drop(late);
    assert_eq!(town.weights(), pairs(&[("blue", 90), ("green", 10)]));
    let never = town.at.ecs.fault(old());
    let error = stage.fails("Route_50", shift(50)).await;
    drop(never);
    assert_eq!(error.code, "ECS-055", "{error}");
    assert_eq!(town.weights(), pairs(&[("blue", 50), ("green", 50)]));
    // Whichever of the two it does, it is this stage's, and comes back.
    stage.undo_all().await;
    assert_eq!(town.weights(), pairs(&[("blue", 1)]));
}
