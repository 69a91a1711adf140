//! Blue and green as Harness writes them: a pair of services, a swap of target groups or a shift of weights, and the rollback.

use crate::peer::aws::{Balancer, Clients, Fault, Place, has_share};
use crate::peer::{create, definitions, image, listeners, place};
use crate::stage::{Stage, out};
use proto::task::{
    BlueGreenRoutes, EcsAction, EcsDefinitions, EcsDocument, EcsStrategy, EcsUndo, TrafficShift,
};
use serde_json::{Value, json};

struct Town {
    at: Place<'static>,
    balancer: Balancer<'static>,
    one: String,
    two: String,
    production: String,
    stage: String,
}

impl Town {
    async fn new(name: &'static str) -> Town {
        let at = place(name).await;
        let balancer = at.balancer("lb");
        let (one, two) = (balancer.group("one"), balancer.group("two"));
        let production = balancer.listener(80, &[(&one, 1)]);
        let stage = balancer.listener(9001, &[(&two, 1)]);
        Town { at, balancer, one, two, production, stage }
    }

    fn definitions(&self, tag: &str, behaviour: &str, group: &str) -> EcsDefinitions {
        definitions(&self.at, "web", &image(&self.at, tag, behaviour), 1, Some(group))
    }

    fn stage(&self, tag: &str, execution: &str) -> Stage<'_> {
        Stage::new(&self.at, self.definitions(tag, "web", "<+targetGroupArn>"), execution)
    }

    fn routes(&self) -> BlueGreenRoutes {
        listeners(&self.balancer.name, &self.production, &self.stage)
    }

    fn create(&self) -> EcsAction {
        create(self.routes())
    }

    fn create_for_weights(&self) -> EcsAction {
        EcsAction::EcsBlueGreenCreateService {
            routes: BlueGreenRoutes {
                load_balancer: self.balancer.name.clone(),
                prod_listener: self.production.clone(),
                stage_target_group_arn: Some(self.two.clone()),
                ..BlueGreenRoutes::default()
            },
            same_as_already_running_instances: true,
            enable_auto_scaling_in_swap_step: false,
            update_green_service: false,
            traffic_shift: true,
        }
    }

    fn colour(&self, service: &str) -> Value {
        let live = self.at.describe(service);
        let tags = live["tags"].as_array().cloned().unwrap_or_default();
        tags.into_iter()
            .find(|tag| tag["key"] == "BG_VERSION")
            .map_or(Value::Null, |tag| tag["value"].clone())
    }

    fn groups(&self, listener: &str) -> Vec<(String, u64)> {
        let said = self.at.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [listener]}));
        let action = said["Listeners"][0]["DefaultActions"][0].clone();
        let all = action["ForwardConfig"]["TargetGroups"].as_array().cloned().unwrap_or_default();
        let group = |tuple: &Value| {
            let name = if tuple["TargetGroupArn"] == json!(self.one) { "one" } else { "two" };
            (name.to_owned(), tuple["Weight"].as_u64().unwrap_or(1))
        };
        let mut all: Vec<(String, u64)> = all.iter().map(group).collect();
        all.sort();
        all
    }

    fn live(&self) -> String {
        let receiving = |listener: &str| {
            let all = self.groups(listener).into_iter().filter(|(_, weight)| *weight > 0);
            all.map(|(name, _)| name).collect::<Vec<_>>().join("+")
        };
        format!("production {}, stage {}", receiving(&self.production), receiving(&self.stage))
    }
}

fn swap(downsize: bool) -> EcsAction {
    EcsAction::EcsBlueGreenSwapTargetGroups {
        do_not_downsize_old_service: !downsize,
        downsize_old_service_delay_ms: 10,
    }
}

fn inherit(percent: u32) -> EcsAction {
    EcsAction::EcsBlueGreenTrafficShift { shift: TrafficShift::Inherit { weight_percentage: percent } }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_created_swapped_and_rolled_back_without_a_failed_request() {
    let town = Town::new("pairsa").await;
    let mut first = town.stage("1", "first");
    let made = first.step("Create", town.create()).await;
    assert_eq!(
        (out(&made, "serviceName"), out(&made, "isNewServiceCreated")),
        (json!("web__1"), json!(true))
    );
    assert_eq!((out(&made, "targetGroupArn"), town.colour("web__1")), (json!(town.two), json!("GREEN")));
    assert_eq!(town.live(), "production one, stage two");
    let swapped = first.step("Swap", swap(true)).await;
    assert_eq!(
        (out(&swapped, "trafficShifted"), out(&swapped, "isFirstDeployment")),
        (json!(true), json!(true))
    );
    assert_eq!((town.live(), town.colour("web__1")), ("production two, stage one".to_owned(), json!("BLUE")));
    let door = town.at.ecs.door(&town.production);
    has_share(door, "1", 1.0, 20).unwrap();

    let clients = Clients::start(door);
    let mut second = town.stage("2", "second");
    let made = second.step("Create", town.create()).await;
    assert_eq!((out(&made, "serviceName"), out(&made, "targetGroupArn")), (json!("web__2"), json!(town.one)));
    has_share(door, "1", 1.0, 20).unwrap();
    has_share(town.at.ecs.door(&town.stage), "2", 1.0, 5).unwrap();
    let plan = second.plan("Swap", swap(true)).await;
    assert!(plan.contains("service web__1: desiredCount: 1 → 0"), "{plan}");
    second.step("Swap", swap(true)).await;
    assert_eq!(town.live(), "production one, stage two");
    assert_eq!((town.colour("web__1"), town.colour("web__2")), (json!("GREEN"), json!("BLUE")));
    assert_eq!(town.at.describe("web__1")["desiredCount"], 0);
    has_share(door, "2", 1.0, 20).unwrap();

    let rolled = second.step("Rollback", EcsAction::EcsBlueGreenRollback {}).await;
    assert_eq!(out(&rolled, "isFirstDeployment"), json!(false));
    assert_eq!(town.live(), "production two, stage one");
    assert_eq!(
        (town.colour("web__1"), town.at.describe("web__1")["desiredCount"].clone()),
        (json!("BLUE"), json!(1))
    );
    assert_eq!(town.at.describe("web__2")["status"], "INACTIVE");
    has_share(door, "1", 1.0, 20).unwrap();
    let seen = clients.stop();
    assert!(seen.keys().all(|body| body == "1" || body == "2"), "{seen:?}");
}

/// As with a manager of Harness: the swap knows names and ARNs alone, the rollback what was recorded before the deployment.
#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_rolled_back_by_what_was_recorded_before_it() {
    let town = Town::new("pairsp").await;
    let prepare =
        EcsAction::EcsPrepareRollback { strategy: EcsStrategy::BlueGreen { routes: town.routes() } };
    let record = |output: &executor_api::StepOutput| {
        vec![EcsUndo {
            step: "earlier".into(),
            kind: "EcsBlueGreenCreateService".into(),
            succeeded: true,
            data: output.undo.clone().unwrap(),
        }]
    };
    // What the request of a manager says, made of the answer to the recording step and of the green service's name.
    let named = |output: &executor_api::StepOutput, green: &str| {
        let pair = json!({"blue": out(output, "serviceName"), "green": green,
            "blueGroup": out(output, "prodTargetGroupArn"), "greenGroup": out(output, "stageTargetGroupArn"),
            "production": {"listener": out(output, "prodListenerArn"), "arn": out(output, "prodListenerRuleArn")},
            "stage": {"listener": out(output, "stageListenerArn"), "arn": out(output, "stageListenerRuleArn")},
            "balancer": {"arn": town.balancer.arn, "name": town.balancer.name}});
        vec![EcsUndo {
            step: "earlier".into(),
            kind: "EcsBlueGreenCreateService".into(),
            succeeded: true,
            data: json!({"v": 1, "undo": {"kind": "green", "pair": pair}}),
        }]
    };
    let mut doors = Vec::new();
    for (tag, green) in [("1", "web__1"), ("2", "web__2")] {
        let mut stage = town.stage(tag, tag);
        let before = stage.step("Create", prepare.clone()).await;
        assert_eq!(out(&before, "isFirstDeployment"), json!(tag == "1"));
        assert_eq!(out(&before, "greenServiceName"), json!(green));
        stage.done.clear();
        let made = stage.step("Create", town.create()).await;
        assert_eq!(out(&made, "serviceName"), json!(green));
        stage.done = named(&before, green);
        let swapped = stage.step("Swap", swap(true)).await;
        assert_eq!(out(&swapped, "instances").as_array().unwrap().len(), 1);
        doors.push((stage, before));
    }
    assert_eq!(town.live(), "production one, stage two");
    let door = town.at.ecs.door(&town.production);
    has_share(door, "2", 1.0, 20).unwrap();
    let (mut stage, before) = doors.pop().unwrap();
    stage.done = record(&before);
    let rolled = stage.step("Rollback", EcsAction::EcsBlueGreenRollback {}).await;
    assert_eq!(out(&rolled, "isFirstDeployment"), json!(false));
    assert_eq!(out(&rolled, "instances").as_array().unwrap().len(), 1);
    assert_eq!(town.live(), "production two, stage one");
    assert_eq!(
        (town.colour("web__1"), town.at.describe("web__1")["desiredCount"].clone()),
        (json!("BLUE"), json!(1))
    );
    assert_eq!(town.at.describe("web__2")["status"], "INACTIVE");
    has_share(door, "1", 1.0, 20).unwrap();
    // The first deployment of all is emptied, and its rules go back.
    let (mut stage, before) = doors.pop().unwrap();
    stage.done = record(&before);
    stage.step("Rollback", EcsAction::EcsBlueGreenRollback {}).await;
    assert_eq!(town.live(), "production one, stage two");
    assert_eq!(town.at.describe("web__1")["desiredCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_whose_second_half_fails_is_taken_back() {
    let town = Town::new("pairsb").await;
    let mut stage = town.stage("1", "first");
    stage.step("Create", town.create()).await;
    let denied = Fault::denied("elasticloadbalancing:ModifyListener");
    let denied = denied.on("elbv2", "ModifyListener").by(&town.at.key).containing(&town.stage);
    let fault = town.at.ecs.fault(denied);
    let error = stage.fails("Swap", swap(true)).await;
    drop(fault);
    assert_eq!(error.class, executor_api::Class::Authorization, "{error}");
    assert!(error.what.contains("was put back"), "{error}");
    assert_eq!(town.live(), "production one, stage two");
    // Again, and it goes through.
    stage.done.pop();
    stage.step("Swap", swap(true)).await;
    assert_eq!(town.live(), "production two, stage one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_colour_is_told_by_requests_not_by_tags() {
    let town = Town::new("pairsc").await;
    let mut first = town.stage("1", "first");
    first.step("Create", town.create()).await;
    first.step("Swap", swap(true)).await;
    // Somebody turns the tag: the live service looks like the one to be replaced.
    let arn = town.at.describe("web__1")["serviceArn"].clone();
    let tags = json!([{"key": "BG_VERSION", "value": "GREEN"}]);
    town.at.ecs.aws("ecs", "TagResource", json!({"resourceArn": arn, "tags": tags}));
    let mut second = town.stage("2", "second");
    let made = second.step("Create", town.create()).await;
    assert_eq!(out(&made, "serviceName"), "web__2");
    assert!(
        made.notices.iter().any(|notice| notice.contains("web__1 is tagged BG_VERSION=GREEN")),
        "{:?}",
        made.notices
    );
    assert_eq!((town.colour("web__1"), town.colour("web__2")), (json!("BLUE"), json!("GREEN")));
    has_share(town.at.ecs.door(&town.production), "1", 1.0, 10).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_shift_between_the_pair_and_everything_is_rolled_back() {
    let town = Town::new("pairsd").await;
    // A service that is live already, under the name of the pair.
    let definition = town.at.register("pairsd-old", &image(&town.at, "0", "web"));
    town.at.run("web__1", &definition, 2, Some(&town.one));
    let door = town.at.ecs.door(&town.production);
    let clients = Clients::start(door);
    let mut stage = town.stage("1", "first");
    let made = stage.step("Create", town.create_for_weights()).await;
    assert_eq!(out(&made, "serviceName"), "web__2");
    assert_eq!(town.at.describe("web__2")["desiredCount"], 2, "as many as blue has");
    for percent in [10, 50, 100] {
        stage.step(&format!("Shift_{percent}"), inherit(percent)).await;
        let (old, new) = (u64::from(100 - percent), u64::from(percent));
        assert_eq!(town.groups(&town.production), [("one".to_owned(), old), ("two".to_owned(), new)]);
    }
    assert_eq!((town.colour("web__1"), town.colour("web__2")), (json!("GREEN"), json!("BLUE")));
    has_share(door, "1", 1.0, 20).unwrap();
    stage.step("Rollback", EcsAction::EcsBlueGreenRollback {}).await;
    assert_eq!(town.groups(&town.production), [("one".to_owned(), 1)]);
    assert_eq!(town.at.describe("web__2")["status"], "INACTIVE");
    has_share(door, "0", 1.0, 20).unwrap();
    let seen = clients.stop();
    assert!(seen.keys().all(|body| body == "0" || body == "1"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_before_the_first_change() {
    let town = Town::new("pairse").await;
    let refused = async |stage: &mut Stage<'_>, action: EcsAction, code: &str, words: &str| {
        let error = stage.fails("Create", action).await;
        assert_eq!(error.code, code, "{error}");
        assert!(error.what.contains(words), "{error}");
        stage.done.clear();
    };
    let mut stage = town.stage("1", "first");
    stage.definitions = town.definitions("1", "web", &town.two);
    refused(&mut stage, town.create(), "ECS-059", "<+targetGroupArn>").await;
    let mut stage = town.stage("1", "second");
    let routes = town.routes();
    let nobody = BlueGreenRoutes { load_balancer: "nobody".into(), ..routes.clone() };
    refused(&mut stage, create(nobody), "ECS-051", "load balancer `nobody` does not exist").await;
    let gone = BlueGreenRoutes { prod_listener: format!("{}x", town.production), ..routes.clone() };
    refused(&mut stage, create(gone), "ECS-051", "does not exist").await;
    let error = stage.fails("Swap", swap(true)).await;
    assert_eq!(error.code, "ECS-060", "{error}");
    let split = crate::peer::aws::forward(&[(&town.one, 50), (&town.two, 50)]);
    town.at.ecs.aws(
        "elbv2",
        "ModifyListener",
        json!({"ListenerArn": town.production, "DefaultActions": split}),
    );
    stage.done.clear();
    refused(&mut stage, town.create(), "ECS-052", "split already").await;
    if let Some(EcsDocument::Value { value, .. }) = &mut stage.definitions.service {
        value["serviceName"] = json!("other");
    }
    let changes = town.at.calls(0).into_iter().filter(|call| {
        [":Create", ":Update", ":Modify", ":Delete", ":Tag", ":Register"]
            .iter()
            .any(|kind| call.contains(kind))
    });
    assert_eq!(changes.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn green_is_updated_in_place_scaled_with_the_swap_and_the_old_one_stays_empty() {
    let town = Town::new("pairsf").await;
    let updating = || EcsAction::EcsBlueGreenCreateService {
        routes: town.routes(),
        same_as_already_running_instances: false,
        enable_auto_scaling_in_swap_step: true,
        update_green_service: true,
        traffic_shift: false,
    };
    // Clients of production are bound to a group for two seconds.
    let sticky = |group: &str| {
        let mut actions = crate::peer::aws::forward(&[(group, 1)]);
        actions[0]["ForwardConfig"]["TargetGroupStickinessConfig"] =
            json!({"Enabled": true, "DurationSeconds": 2});
        actions
    };
    let to = json!({"ListenerArn": town.production, "DefaultActions": sticky(&town.one)});
    town.at.ecs.aws("elbv2", "ModifyListener", to);
    let scalable = json!({"MinCapacity": 1, "MaxCapacity": 3});
    let with_scaling = |tag: &str, execution: &str| {
        let mut stage = town.stage(tag, execution);
        stage.definitions.scalable_targets = vec![crate::peer::document("scalableTarget", scalable.clone())];
        stage
    };
    let target = |service: &str| {
        let which = json!({"ServiceNamespace": "ecs", "ResourceIds": [format!("service/pairsf/{service}")]});
        let said = town.at.ecs.aws("application-autoscaling", "DescribeScalableTargets", which);
        said["ScalableTargets"][0].clone()
    };
    let mut first = with_scaling("1", "first");
    first.step("Create", updating()).await;
    assert!(target("web__1").is_null(), "autoscaling begins with the swap");
    first.step("Swap", swap(true)).await;
    assert_eq!(target("web__1")["MaxCapacity"], 3);
    let mut second = with_scaling("2", "second");
    second.step("Create", updating()).await;
    let made = town.at.describe("web__2")["serviceArn"].clone();
    let mut third = with_scaling("3", "third");
    let updated = third.step("Create", updating()).await;
    assert_eq!(
        (out(&updated, "serviceName"), out(&updated, "isNewServiceCreated")),
        (json!("web__2"), json!(false))
    );
    assert_eq!(town.at.describe("web__2")["serviceArn"], made);
    has_share(town.at.ecs.door(&town.stage), "3", 1.0, 5).unwrap();
    third.step("Swap", swap(true)).await;
    assert!(third.log.contains("is sticky"), "{}", third.log);
    assert_eq!(town.at.describe("web__1")["desiredCount"], 0);
    assert_eq!(target("web__1")["SuspendedState"]["DynamicScalingOutSuspended"], true, "it must stay empty");
    has_share(town.at.ecs.door(&town.production), "3", 1.0, 20).unwrap();
    // The way back by single steps: blue has its tasks and its autoscaling before it gets requests.
    third.undo_all().await;
    assert_eq!(town.live(), "production two, stage one");
    assert_eq!(town.at.describe("web__1")["desiredCount"], 1);
    assert_ne!(target("web__1")["SuspendedState"]["DynamicScalingOutSuspended"], true);
    assert!(!third.log.contains("it stays so"), "{}", third.log);
    has_share(town.at.ecs.door(&town.production), "1", 1.0, 20).unwrap();
    has_share(town.at.ecs.door(&town.stage), "2", 1.0, 5).unwrap();
}
