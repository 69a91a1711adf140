//! Services in every state that a deployment may find them in, and what a rollback must not lose.

use crate::peer::aws::{Fault, Place};
use crate::peer::{definitions, fail, image, place, rolling, spec, succeed, undo};
use executor_api::StepOutput;
use executor_api::testing::World;
use proto::task::{EcsAction, EcsDefinitions, EcsDocument, EcsEarlier, EcsSpec, EcsUndo, ResizeStrategy};
use serde_json::{Value, json};

fn rollback(at: &Place<'_>, left: Option<&StepOutput>, world: &World) -> EcsSpec {
    let action = EcsAction::EcsRollingRollback { skip_steady_state_check: false };
    let undo = EcsUndo {
        step: "deploy".into(),
        kind: "EcsRollingDeploy".into(),
        succeeded: left.is_some(),
        data: undo(left, world),
    };
    EcsSpec { earlier: EcsEarlier { undo: vec![undo] }, ..spec(at, EcsDefinitions::default(), action) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_drains_is_waited_for_until_it_is_free() {
    let at = place("statesa").await;
    let definition = at.register("statesa-web", &image(&at, "old", "web"));
    at.run("web", &definition, 1, None);
    at.ecs.aws("ecs", "DeleteService", json!({"cluster": at.name, "service": "web", "force": true}));
    at.until("web", "gone", |now| now["status"] == "INACTIVE");
    // How long it drains is the peer's to say, so a few answers say that it still does.
    let draining = json!({"services": {"status": "DRAINING"}});
    let fault = at.ecs.fault(Fault::patched(draining).on("ecs", "DescribeServices").by(&at.key).times(4));
    let step = spec(&at, definitions(&at, "web", &image(&at, "1", "web"), 1, None), rolling());
    let (_, world) = succeed(&step, "e1", "deploy").await;
    drop(fault);
    let log = world.logs.everything();
    for wanted in
        ["service web is DRAINING: this is its first deployment", "still has the name; it is waited for"]
    {
        assert!(log.contains(wanted), "{wanted} in\n{log}");
    }
    let calls = at.calls(0);
    let at_of = |name: &str| calls.iter().position(|call| call == name).unwrap();
    let looks =
        calls[..at_of("ecs:CreateService")].iter().filter(|call| *call == "ecs:DescribeServices").count();
    assert!(looks > 4, "the service was made before its name was free: {calls:?}");
    assert_eq!(at.describe("web")["status"], "ACTIVE");
}

/// Members of the primary deployment that DescribeServices shows nowhere else.
fn wired(at: &Place<'_>) -> (Value, Value) {
    let live = at.describe("web");
    let primary = &live["deployments"][0];
    (primary["serviceConnectConfiguration"].clone(), primary["volumeConfigurations"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn service_connect_and_volumes_come_back_with_a_rollback() {
    let at = place("statesb").await;
    let connect = |alias: &str| {
        json!({"enabled": true, "namespace": "inside", "services": [
            {"portName": "web", "discoveryName": alias, "clientAliases": [{"port": 80, "dnsName": alias}]}]})
    };
    let volume = |size: u64| {
        json!([{"name": "data", "managedEBSVolume": {"roleArn": "arn:aws:iam::123456789012:role/ebs", "sizeInGiB": size,
            "volumeType": "gp3", "filesystemType": "ext4"}}])
    };
    let deploy = |tag: &str, alias: &str, size: u64| {
        let mut all = definitions(&at, "web", &image(&at, tag, "web"), 1, None);
        let documents = [all.task.as_mut().unwrap().document.as_mut(), all.service.as_mut()];
        let [Some(EcsDocument::Value { value: task, .. }), Some(EcsDocument::Value { value: service, .. })] =
            documents
        else {
            panic!()
        };
        task["containerDefinitions"][0]["portMappings"][0]["name"] = json!("web");
        task["volumes"] = json!([{"name": "data", "configuredAtLaunch": true}]);
        service["serviceConnectConfiguration"] = connect(alias);
        service["volumeConfigurations"] = volume(size);
        spec(&at, all, rolling())
    };
    succeed(&deploy("1", "first", 10), "e1", "deploy").await;
    let before = wired(&at);
    assert_eq!(before.0["services"][0]["discoveryName"], "first", "the peer keeps it: {before:?}");
    let (output, world) = succeed(&deploy("2", "second", 20), "e2", "deploy").await;
    assert_ne!(wired(&at), before);
    succeed(&rollback(&at, Some(&output), &world), "e2", "rollback").await;
    assert_eq!(wired(&at), before);
    assert!(at.describe("web")["taskDefinition"].as_str().unwrap().ends_with("statesb-web:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_more_than_a_hundred_services_is_read_to_its_end() {
    let at = place("statesc").await;
    let definition = at.register("statesc-other", &image(&at, "1", "web"));
    for number in 0..110 {
        at.ecs.aws("ecs", "CreateService", at.service(&format!("other{number:03}"), &definition, 0, None));
    }
    // The one that serves comes last.
    at.run("web__7", &definition, 1, None);
    let action = EcsAction::EcsServiceSetup {
        resize_strategy: ResizeStrategy::ResizeNewFirst,
        same_as_already_running_instances: true,
    };
    let step = spec(&at, definitions(&at, "web", &image(&at, "2", "web"), 1, None), action);
    let (_, world) = succeed(&step, "e1", "setup").await;
    assert_eq!(at.describe("web__8")["status"], "ACTIVE", "{}", world.logs.everything());
    let pages = at.calls(0).iter().filter(|call| *call == "ecs:ListServices").count();
    assert!(pages >= 2, "{pages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_away_while_it_is_deployed_is_said_and_not_made_again() {
    let at = place("statesd").await;
    let tag = image(&at, "1", "web");
    succeed(&spec(&at, definitions(&at, "web", &tag, 1, None), rolling()), "e1", "deploy").await;
    // The second look finds it draining: somebody deletes it meanwhile.
    let draining = json!({"services": {"status": "DRAINING"}});
    let fault = at.ecs.fault(Fault::patched(draining).on("ecs", "DescribeServices").by(&at.key).after(1));
    let step = spec(&at, definitions(&at, "web", &image(&at, "2", "web"), 1, None), rolling());
    let (error, _) = fail(&step, "e2", "deploy").await;
    drop(fault);
    assert_eq!(error.code, "ECS-025", "{error}");
    assert!(error.what.contains("is not any more; nothing was changed"), "{error}");
    assert!(at.describe("web")["taskDefinition"].as_str().unwrap().ends_with(":1"));
}
