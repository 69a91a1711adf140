//! ECS_COMMAND_TASK_NG of a Harness manager on a small AWS region, when it does not just go well: the agent is killed in mid-task,
//! the manager aborts, the time is over, the package is not what it should be.

use crate::harness_ecs::{ECS, SWAPPED, Town, WORD, World, created, failed, succeeded};
use crate::harness_manager::LIMIT;
use e2e::peers::aws::{Active, Call, Fault, has_share};
use e2e::wait::until;
use serde_json::{Value, json};
use std::time::Duration;

/// How the class of a rolling deployment's answer is called, and the field of its result.
const DEPLOYED: (&str, &str) = ("EcsRollingDeployResponse", "ecsRollingDeployResult");

/// From here on AWS says of every rollout that it goes on, until the result is dropped.
fn held(world: &World) -> Active<'static> {
    let going = json!({"services": {"deployments": {"rolloutState": "IN_PROGRESS"}}});
    world.place.ecs.fault(Fault::patched(going).on("ecs", "DescribeServices").by(&world.place.key))
}

/// Waits until the agent has done `change` after the call `after`, and has looked what became of it (`look`).
async fn waits(world: &World, after: u64, change: &str, look: &str) {
    until(&format!("{change} is done and waited for"), LIMIT, async || {
        let calls = world.place.ecs.calls(after);
        let own = |call: &&Call| call.key == world.place.key && call.status == Some(200);
        let changed = calls.iter().filter(own).find(|call| call.operation == change)?.number;
        let looked = calls.iter().filter(own).any(|call| call.operation == look && call.number > changed);
        looked.then_some(())
    })
    .await;
}

/// How often the agent called this after the call `after`.
fn count(world: &World, after: u64, operation: &str) -> usize {
    let all = world.place.calls(after);
    all.iter().filter(|call| call.ends_with(&format!(":{operation}"))).count()
}

fn last_call(world: &World) -> u64 {
    world.place.ecs.calls(0).last().map_or(0, |call| call.number)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_outlives_its_agent_and_what_is_late_or_aborted_can_be_rolled_back() {
    let mut world = World::start("harnesskill").await;
    let mut agent = world.agent();
    world.prepared("prepare-1").await;
    let hold = held(&world);
    let after = last_call(&world);
    world.manager.offer(world.manager.package("kill", ECS, world.deploy("1", "web")));
    waits(&world, after, "CreateService", "DescribeServices").await;
    agent.kill9();
    agent.launch();
    drop(hold);
    let response = world.manager.answer("kill").await["response"].clone();
    let told = succeeded(&response, DEPLOYED.0, DEPLOYED.1);
    world.same_tasks(&told, "web");
    world.manager.answered_once("kill");
    let done = ["RegisterTaskDefinition", "CreateService", "UpdateService"];
    assert_eq!(done.map(|operation| count(&world, after, operation)), [1, 1, 0]);
    let one = world.revision();

    // The manager's time is over before AWS is done, and what was begun goes back.
    let before = world.prepared("prepare-2").await;
    let hold = held(&world);
    let mut late = world.manager.package("late", ECS, world.deploy("2", "web"));
    late["timeout"] = json!(45_000);
    let after = last_call(&world);
    world.manager.offer(late);
    waits(&world, after, "UpdateService", "DescribeServices").await;
    let response = world.manager.answer("late").await["response"].clone();
    assert_eq!(
        (&response["@"], &response["failureTypes"]),
        (&json!("ErrorNotifyResponseData"), &json!(["TIMEOUT_ERROR"])),
        "{response:#}"
    );
    world.manager.answered_once("late");
    drop(hold);
    assert_ne!(world.revision(), one);
    let data = world.rollback(&before);
    world.ok("back-2", data, "EcsRollingRollbackResponse", "ecsRollingRollbackResult").await;
    assert_eq!(world.revision(), one);

    // So does what somebody aborts.
    let before = world.prepared("prepare-3").await;
    let hold = held(&world);
    let after = last_call(&world);
    world.manager.offer(world.manager.package("gone", ECS, world.deploy("3", "web")));
    waits(&world, after, "UpdateService", "DescribeServices").await;
    world.manager.abort("gone");
    let response = world.manager.answer("gone").await["response"].clone();
    failed(&response, DEPLOYED.0, DEPLOYED.1, "Deploy");
    world.manager.answered_once("gone");
    drop(hold);
    let data = world.rollback(&before);
    let told = world.ok("back-3", data, "EcsRollingRollbackResponse", "ecsRollingRollbackResult").await;
    world.same_tasks(&told, "web");
    assert_eq!(world.revision(), one);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_outlives_its_agent() {
    let mut world = World::start("harnessswap").await;
    let town = Town::new(&world.place);
    let mut agent = world.agent();
    let groups = (town.one.as_str(), town.two.as_str());
    let deployed = created(&mut world, &town, "1", groups, (Value::Null, "web__1")).await;
    let after = last_call(&world);
    // The listener is changed only after the agent that asked for it has died.
    let fault = Fault::delay(Duration::from_secs(2)).on("elbv2", "ModifyListener").by(&world.place.key);
    let slow = world.place.ecs.fault(fault.times(1));
    world.manager.offer(world.manager.package("swap", ECS, deployed.swap(&world)));
    until("a listener is being changed", LIMIT, async || {
        (count(&world, after, "ModifyListener") > 0).then_some(())
    })
    .await;
    agent.kill9();
    agent.launch();
    let response = world.manager.answer("swap").await["response"].clone();
    drop(slow);
    let told = succeeded(&response, SWAPPED.0, SWAPPED.1);
    deployed.is_swapped(&world, &town, &told, groups);
    has_share(world.place.ecs.door(&town.production), "1", 1.0, 20).unwrap();
    world.manager.answered_once("swap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_task_outlives_the_agent_that_started_it_and_ends_when_it_is_aborted() {
    let mut world = World::start("harnessjob").await;
    let mut agent = world.agent();
    let runs = json!({"tasks": {"lastStatus": "RUNNING"}});
    let hold = world.place.ecs.fault(Fault::patched(runs).on("ecs", "DescribeTasks").by(&world.place.key));
    world.manager.offer(world.manager.package("kill", ECS, world.one_off("1", "job 0 migrated")));
    waits(&world, 0, "RunTask", "DescribeTasks").await;
    agent.kill9();
    agent.launch();
    drop(hold);
    let response = world.manager.answer("kill").await["response"].clone();
    let told = succeeded(&response, "EcsRunTaskResponse", "ecsRunTaskResult");
    let jobs = world.jobs("STOPPED");
    assert_eq!((jobs.len(), count(&world, 0, "RunTask")), (1, 1), "{jobs:#?}");
    assert_eq!(told["ecsTasks"][0]["taskArn"], jobs[0]["taskArn"], "{told:#}");
    world.manager.answered_once("kill");

    let after = last_call(&world);
    world.manager.offer(world.manager.package("gone", ECS, world.one_off("2", "web")));
    waits(&world, after, "RunTask", "DescribeTasks").await;
    let started = world.jobs("RUNNING")[0]["taskArn"].clone();
    world.manager.abort("gone");
    let response = world.manager.answer("gone").await["response"].clone();
    failed(&response, "EcsRunTaskResponse", "ecsRunTaskResult", "Run Task");
    world.manager.answered_once("gone");
    assert_eq!(world.jobs("RUNNING"), Vec::<Value>::new());
    let ended = world.jobs("STOPPED").into_iter().find(|task| task["taskArn"] == started).unwrap();
    assert!(ended["stoppedReason"].as_str().unwrap().starts_with("delegate: aborted"), "{ended:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_with_a_failure_and_ask_nothing_of_aws() {
    let mut world = World::start("harnessbad").await;
    let _agent = world.agent();
    let rolling = || world.deploy("1", "web");
    let mut all = Vec::new();
    let mut add =
        |id: &'static str, code: &'static str, class: &'static str, mut data: Value, at: &str, to: Value| {
            let (owner, key) = at.rsplit_once('/').unwrap();
            data.pointer_mut(owner).unwrap()[key] = to;
            all.push((id, code, class, data));
        };
    // Without a command that is known, nobody can say which response the manager waits for.
    let unknown = "ErrorNotifyResponseData";
    add("newer", "HRN-004", unknown, rolling(), "/ecsCommandType", json!("ECS_NEWEST"));
    add("typeless", "HRN-003", unknown, rolling(), "/ecsCommandType", Value::Null);
    let class = DEPLOYED.0;
    add("placeless", "HRN-003", class, rolling(), "/ecsInfraConfig", Value::Null);
    add("number", "HRN-003", class, rolling(), "/ecsInfraConfig/cluster", json!(7));
    let credential = "/ecsInfraConfig/awsConnectorDTO/credential/type";
    add("login", "HRN-004", class, rolling(), credential, json!("OidcAuthentication"));
    add("keyless", "HRN-006", class, rolling(), "/ecsInfraConfig/encryptionDataDetails", json!([]));
    let config = "/ecsInfraConfig/encryptionDataDetails";
    let mut vault = rolling()["ecsInfraConfig"]["encryptionDataDetails"].clone();
    for part in ["encryptedData", "encryptionConfig"] {
        vault[0][part]["encryptionType"] = json!("VAULT");
    }
    add("vault", "HRN-005", class, rolling(), config, vault);
    let mut damaged = rolling()["ecsInfraConfig"]["encryptionDataDetails"].clone();
    damaged[0]["encryptedData"]["encryptedValue"] = json!("not what it was");
    add("damaged", "HRN-006", class, rolling(), config, damaged);
    let scaling = "/ecsScalableTargetManifestContentList";
    add("scaling", "HRN-003", class, rolling(), scaling, json!("MinCapacity: 1"));
    let canary = || world.request("ECS_CANARY_DEPLOY", world.definitions("1", "web", None));
    add("suffix", "HRN-004", "EcsCanaryDeployResponse", canary(), "/ecsServiceNameSuffix", json!("Other"));
    let delete = world.request("ECS_CANARY_DELETE", json!({"ecsServiceNameSuffix": "Canary"}));
    let service = "/ecsServiceDefinitionManifestContent";
    add("nameless", "HRN-003", "EcsCanaryDeleteResponse", delete, service, json!("desiredCount: 1"));
    let request = "/ecsRunTaskRequestDefinitionManifestContent";
    add("job", "HRN-003", "EcsRunTaskResponse", world.one_off("1", "job 0"), request, Value::Null);
    let mut weights =
        world.request("ECS_BLUE_GREEN_CREATE_SERVICE", world.definitions("1", "web", Some(WORD)));
    weights["ecsLoadBalancerConfig"] = json!({"loadBalancer": "lb", "prodListenerArn": "arn:x"});
    let stage = "/ecsLoadBalancerConfig/stageListenerArn";
    add("weights", "HRN-004", "EcsBlueGreenCreateServiceResponse", weights, stage, Value::Null);
    for (id, code, class, data) in all {
        let response = world.response(id, data).await;
        assert_eq!(response["@"], class, "{id}: {response:#}");
        if class == unknown {
            assert_eq!(response["failureTypes"], json!(["APPLICATION_ERROR"]), "{id}: {response:#}");
        } else {
            assert_eq!(response["commandExecutionStatus"], "FAILURE", "{id}: {response:#}");
            assert!(response["unitProgressData"].is_object(), "{id}: the manager uses it without asking");
        }
        let text = response["errorMessage"].as_str().unwrap();
        assert!(text.ends_with(&format!("[{code}]")), "{id}: {text}");
    }
    assert_eq!(world.place.calls(0), Vec::<String>::new());
}
