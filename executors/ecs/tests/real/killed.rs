//! The agent is killed at every checkpoint and at every call of a step that shifts requests or deploys beside: the next one goes
//! on, nothing is done twice, and everything can be undone.

use crate::peer::aws::{Balancer, Place, has_share};
use crate::peer::{definitions, document, image, place, probed};
use crate::stage::Stage;
use executor_api::Executor as _;
use executor_api::testing::{CrashAt, World};
use proto::task::{EcsAction, EcsSpec, RunTaskShape};
use serde_json::{Value, json};
use std::sync::Arc;

struct Town {
    at: Place<'static>,
    _balancer: Balancer<'static>,
    blue: String,
    listener: String,
}

impl Town {
    async fn new(name: &'static str) -> Town {
        let at = place(name).await;
        let balancer = at.balancer("lb");
        let (blue, green) = (balancer.group("blue"), balancer.group("green"));
        let listener = balancer.listener(80, &[(&blue, 1)]);
        balancer.listener(9001, &[(&green, 1)]);
        let definition = at.register(&format!("{name}-web"), &image(&at, "1", "web"));
        at.run("web", &definition, 1, Some(&blue));
        Town { at, _balancer: balancer, blue, listener }
    }

    fn stage(&self, execution: &str) -> Stage<'_> {
        let image = image(&self.at, "1", "web");
        Stage::new(&self.at, definitions(&self.at, "web", &image, 1, Some(&self.blue)), execution)
    }

    fn deploy(&self, tag: &str, mark: usize) -> EcsAction {
        let image = image(&self.at, tag, "web");
        let environment = json!([{"name": "MARK", "value": mark.to_string()}]);
        let part =
            json!({"containerDefinitions": [{"name": "app", "image": image, "environment": environment}]});
        run_task(RunTaskShape::Green {
            document: document("Deploy_Green", part),
            service: "web-green".into(),
            launch_type: None,
            network_configuration: None,
            desired_count: None,
            target_group_arn: None,
        })
    }

    fn weights(&self) -> Vec<u64> {
        let said = self.at.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [self.listener]}));
        let groups = said["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"].clone();
        groups.as_array().into_iter().flatten().map(|group| group["Weight"].as_u64().unwrap_or(1)).collect()
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

/// Places where a step with so many checkpoints and calls may die.
fn places(checkpoints: usize, calls: usize) -> Vec<CrashAt> {
    let checkpoints = (1..=checkpoints).map(CrashAt::AfterCheckpoint);
    checkpoints.chain((1..=calls).flat_map(|n| [CrashAt::BeforeCall(n), CrashAt::AfterCall(n)])).collect()
}

/// One life that dies, and the next one, which must succeed.
async fn twice(stage: &mut Stage<'_>, name: &str, spec: &EcsSpec, at: CrashAt) -> World {
    let world = stage.world(name, spec);
    world.marks.crash_at(at);
    let executor = probed(Arc::new(world.marks.clone()));
    let (_handle, cx) = world.context();
    tokio::select! {
        result = executor.run(spec, &cx) => panic!("{name} {at:?} was not reached: {result:?}"),
        () = world.marks.crashed() => {}
    }
    world.restart();
    let (_handle, cx) = world.context();
    let executor = probed(Arc::new(world.marks.clone()));
    executor.recover(spec, &cx).await.unwrap();
    let output = executor.run(spec, &cx).await;
    let output =
        output.unwrap_or_else(|e| panic!("{name} {at:?}: {} {e}\n{}", e.code, world.logs.everything()));
    assert_eq!(world.marks.unannounced(), Vec::<String>::new(), "{name} {at:?}");
    stage.note(name, spec, Some(&output), &world);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shift_that_was_killed_anywhere_goes_on_and_is_undone() {
    let town = Town::new("killeda").await;
    let mut stage = town.stage("first");
    stage.step("Deploy_Green", town.deploy("2", 0)).await;
    for (n, at) in places(1, 1).into_iter().enumerate() {
        let percent = u32::try_from(n + 1).unwrap() * 10;
        let name = format!("Route_{percent}");
        let spec = stage.spec(shift(percent));
        let world = twice(&mut stage, &name, &spec, at).await;
        assert_eq!(town.weights(), [u64::from(100 - percent), u64::from(percent)], "{at:?}");
        assert!(world.marks.calls().len() <= 2, "{:?}", world.marks.calls());
    }
    let changed = |calls: &[String]| calls.iter().filter(|call| call.ends_with(":ModifyListener")).count();
    assert_eq!(changed(&town.at.calls(0)), 3, "each shift was sent once");
    stage.undo_all().await;
    assert_eq!(town.weights(), [1]);
    assert_eq!(town.at.describe("web-green")["status"], "INACTIVE");
    has_share(town.at.ecs.door(&town.listener), "1", 1.0, 10).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_green_that_was_killed_anywhere_is_made_once_and_goes_again() {
    let town = Town::new("killedb").await;
    for (n, at) in places(2, 2).into_iter().enumerate() {
        let mut stage = town.stage(&format!("run{n}"));
        let spec = stage.spec(town.deploy("2", n));
        twice(&mut stage, "Deploy_Green", &spec, at).await;
        let live = town.at.describe("web-green");
        assert_eq!((&live["status"], &live["runningCount"]), (&Value::from("ACTIVE"), &json!(1)), "{at:?}");
        assert_eq!(town.weights(), [1], "{at:?}");
        stage.undo_all().await;
        assert_eq!(town.at.describe("web-green")["status"], "INACTIVE", "{at:?}");
    }
    let made = town.at.calls(0).iter().filter(|call| call.ends_with(":RegisterTaskDefinition")).count();
    assert!(made <= 6, "a revision for each run, not for each life: {made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_killed_anywhere_comes_to_its_end_and_blue_comes_back() {
    let town = Town::new("killedc").await;
    let terminate = || run_task(RunTaskShape::Terminate { which: "blue".into() });
    for (n, at) in places(2, 2).into_iter().enumerate() {
        let mut stage = town.stage(&format!("run{n}"));
        stage.step("Deploy_Green", town.deploy("2", 0)).await;
        stage.step("Route_100", shift(100)).await;
        let spec = stage.spec(terminate());
        twice(&mut stage, "Terminate_Blue", &spec, at).await;
        assert_eq!(town.at.describe("web")["status"], "INACTIVE", "{at:?}");
        stage.undo_all().await;
        let live = town.at.describe("web");
        assert_eq!((&live["status"], &live["runningCount"]), (&Value::from("ACTIVE"), &json!(1)), "{at:?}");
        assert_eq!(town.weights(), [1], "{at:?}");
        has_share(town.at.ecs.door(&town.listener), "1", 1.0, 10).unwrap();
    }
}
