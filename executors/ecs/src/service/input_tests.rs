use super::*;
use proptest::prelude::*;

const CALL: Call<'static> =
    Call { cluster: "prod", service: "web", task_definition: "td:2", count: None, force: false };

fn live() -> Value {
    json!({"serviceName": "web", "status": "ACTIVE", "taskDefinition": "td:1", "desiredCount": 3, "launchType": "FARGATE",
        "loadBalancers": [{"targetGroupArn": "arn:t", "containerName": "web", "containerPort": 80}],
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["a", "b"], "securityGroups": [], "assignPublicIp": "DISABLED"}},
        "deploymentConfiguration": {"maximumPercent": 150, "deploymentCircuitBreaker": {"enable": true, "rollback": true}},
        "deployments": [{"id": "1", "status": "PRIMARY", "serviceConnectConfiguration": {"enabled": true, "namespace": "n"}}],
        "tags": [{"key": "team", "value": "a"}, {"key": "cost", "value": "1"}]})
}

fn lines(update: &Update) -> Vec<String> {
    update.changes.iter().map(ToString::to_string).collect()
}

fn members(update: &Update) -> Vec<String> {
    update.input.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_created_service_is_what_the_document_says_under_our_cluster_and_revision() {
    let document = json!({"serviceName": "web", "desiredCount": 3, "loadBalancers": [], "launchType": "FARGATE",
        "tags": [{"key": "delegate:step", "value": "mine"}]});
    let tags =
        [("delegate:step".to_owned(), "x".to_owned()), ("delegate:execution".to_owned(), "e".to_owned())];
    let input = create_input(&document, Call { count: Some(2), ..CALL }, "token", &tags);
    assert_eq!(
        input,
        json!({"serviceName": "web", "launchType": "FARGATE", "cluster": "prod", "taskDefinition": "td:2",
            "clientToken": "token", "desiredCount": 2,
            "tags": [{"key": "delegate:step", "value": "mine"}, {"key": "delegate:execution", "value": "e"}]})
    );
    assert_eq!(create_input(&document, CALL, "t", &[]).get("desiredCount"), None);
}

#[test]
fn nothing_is_sent_for_what_the_service_has() {
    let document = json!({"serviceName": "web", "desiredCount": 5, "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["b", "a"]}},
        "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": true, "rollback": true}},
        "serviceConnectConfiguration": {"enabled": true}, "serviceRegistries": []});
    let update = update_input(&document, &live(), None, Call { task_definition: "td:1", ..CALL });
    assert!(update.is_nothing(), "{update:?}");
    assert_eq!(update.warnings, Vec::<String>::new());
    assert_eq!(members(&update), ["taskDefinition", "cluster", "service"]);
    let forced =
        update_input(&document, &live(), None, Call { task_definition: "td:1", force: true, ..CALL });
    assert!(forced.rolls && !forced.is_nothing());
    assert_eq!(forced.input["forceNewDeployment"], true);
}

#[test]
fn a_change_is_told_old_and_new_and_a_part_does_not_reset_the_rest() {
    let document = json!({"loadBalancers": [], "enableExecuteCommand": true,
        "deploymentConfiguration": {"maximumPercent": 200}});
    let update = update_input(&document, &live(), None, Call { count: Some(4), ..CALL });
    let told = lines(&update);
    for wanted in [
        "taskDefinition: \"td:1\" → \"td:2\"",
        "desiredCount: 3 → 4",
        "deploymentConfiguration.maximumPercent: 150 → 200",
        "enableExecuteCommand: (none) → true",
    ] {
        assert!(told.iter().any(|line| line == wanted), "{wanted} in {told:?}");
    }
    assert!(
        told.iter().any(|line| line.starts_with("loadBalancers[t/web/80]:") && line.ends_with("(none)")),
        "{told:?}"
    );
    assert!(update.rolls);
    assert_eq!(update.input["loadBalancers"], json!([]));
    assert_eq!(
        update.input["deploymentConfiguration"],
        json!({"maximumPercent": 200, "deploymentCircuitBreaker": {"enable": true, "rollback": true}})
    );
}

#[test]
fn only_what_starts_a_deployment_rolls() {
    let at =
        |document: Value| update_input(&document, &live(), None, Call { task_definition: "td:1", ..CALL });
    assert!(!at(json!({"healthCheckGracePeriodSeconds": 5})).rolls);
    assert!(
        !update_input(&json!({}), &live(), None, Call { task_definition: "td:1", count: Some(9), ..CALL })
            .rolls
    );
    assert!(at(json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["c"]}}})).rolls);
    let moved = at(json!({"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}));
    assert!(moved.rolls && moved.input["forceNewDeployment"] == true && moved.warnings.len() == 1);
}

#[test]
fn what_cannot_be_changed_is_named() {
    let document =
        json!({"launchType": "EC2", "schedulingStrategy": "DAEMON", "role": "r", "futureMember": 1});
    let update = update_input(&document, &live(), None, CALL);
    let told = update.warnings.join("\n");
    for wanted in [
        "launchType cannot be changed: the service has \"FARGATE\"",
        "schedulingStrategy",
        "role",
        "futureMember",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    for name in ["launchType", "schedulingStrategy", "role", "futureMember"] {
        assert_eq!(update.input.get(name), None);
    }
}

#[test]
fn members_that_cannot_be_read_back_are_sent_as_written() {
    let document = json!({"volumeConfigurations": [{"name": "v"}]});
    assert_eq!(
        update_input(&document, &live(), None, CALL).input["volumeConfigurations"],
        json!([{"name": "v"}])
    );
    let revision = json!({"volumeConfigurations": [{"name": "v", "managedEBSVolume": {"roleArn": "r"}}]});
    assert_eq!(
        update_input(&document, &live(), Some(&revision), CALL).input.get("volumeConfigurations"),
        None
    );
}

#[test]
fn a_restore_removes_what_was_added_and_brings_back_what_went() {
    let before = live();
    let snapshot = Snapshot::of(
        &before,
        Some(&json!({"serviceConnectConfiguration": {"enabled": true, "namespace": "n"}})),
        0,
    );
    let mut now = before.clone();
    now["taskDefinition"] = json!("td:9");
    now["placementConstraints"] = json!([{"type": "distinctInstance"}]);
    now["serviceRegistries"] = json!([{"registryArn": "r"}]);
    now["loadBalancers"] = json!([]);
    now["healthCheckGracePeriodSeconds"] = json!(30);
    now["enableExecuteCommand"] = json!(true);
    now["deployments"] = json!([{"id": "2", "status": "PRIMARY"}]);
    now["deploymentConfiguration"] =
        json!({"maximumPercent": 150, "alarms": {"alarmNames": ["x"], "enable": true, "rollback": true}});
    let revision =
        json!({"vpcLatticeConfigurations": [{"roleArn": "r", "targetGroupArn": "t", "portName": "p"}]});
    let update = restore_input(
        &snapshot,
        &now,
        Some(&revision),
        Call { task_definition: "td:1", count: Some(3), ..CALL },
    );
    let input = &update.input;
    assert_eq!(input["taskDefinition"], "td:1");
    assert_eq!(input["placementConstraints"], json!([]));
    assert_eq!(input["serviceRegistries"], json!([]));
    assert_eq!(input["loadBalancers"], before["loadBalancers"]);
    assert_eq!(input["healthCheckGracePeriodSeconds"], 0);
    assert_eq!(input["enableExecuteCommand"], false);
    assert_eq!(input["vpcLatticeConfigurations"], json!([]));
    assert_eq!(input["serviceConnectConfiguration"], json!({"enabled": true, "namespace": "n"}));
    assert_eq!(
        input["deploymentConfiguration"]["alarms"],
        json!({"alarmNames": [], "enable": false, "rollback": false})
    );
    assert_eq!(
        input["deploymentConfiguration"]["deploymentCircuitBreaker"],
        json!({"enable": true, "rollback": true})
    );
    assert_eq!(input.get("networkConfiguration"), None);
    assert_eq!(input.get("desiredCount"), None);
    assert!(update.rolls);
}

#[test]
fn a_restore_of_what_is_there_does_nothing() {
    let snapshot = Snapshot::of(&live(), None, 0);
    let update =
        restore_input(&snapshot, &live(), None, Call { task_definition: "td:1", count: Some(3), ..CALL });
    assert!(update.is_nothing(), "{update:?}");
}

#[test]
fn tags_of_others_stay() {
    let tag = |key: &str, value: &str| json!({"key": key, "value": value});
    let wanted = [tag("team", "a"), tag("cost", "2"), tag("new", "x")];
    assert_eq!(tags_to_set(&live(), &wanted), [tag("cost", "2"), tag("new", "x")]);
    let snapshot = Snapshot::of(&live(), None, 0);
    let mut now = live();
    now["tags"] = json!([tag("team", "a"), tag("cost", "2"), tag("new", "x"), tag("foreign", "y")]);
    assert_eq!(tags_to_remove(&snapshot, &now, &["cost".into(), "new".into(), "gone".into()]), ["new"]);
    assert_eq!(tags_to_set(&now, aws::document::list(&snapshot.document, &["tags"])), [tag("cost", "1")]);
}

fn service() -> impl Strategy<Value = Value> {
    let some = |name: &'static str, values: Vec<Value>| {
        prop::option::of(prop::sample::select(values)).prop_map(move |value| (name, value))
    };
    (
        some("loadBalancers", vec![json!([]), json!([{"targetGroupArn": "t"}]), json!([{"targetGroupArn": "u"}, {"targetGroupArn": "t"}])]),
        some("placementStrategy", vec![json!([]), json!([{"type": "random"}])]),
        some("networkConfiguration", vec![json!({"awsvpcConfiguration": {"subnets": ["a"]}}), json!({"awsvpcConfiguration": {"subnets": ["b", "a"]}})]),
        some("deploymentConfiguration", vec![json!({"maximumPercent": 200}), json!({"maximumPercent": 110, "deploymentCircuitBreaker": {"enable": true, "rollback": false}})]),
        some("enableExecuteCommand", vec![json!(true), json!(false)]),
        some("healthCheckGracePeriodSeconds", vec![json!(0), json!(5)]),
        some("propagateTags", vec![json!("NONE"), json!("SERVICE")]),
        some("serviceRegistries", vec![json!([]), json!([{"registryArn": "r"}])]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| {
            let all = [a, b, c, d, e, f, g, h].into_iter();
            Value::Object(all.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
        })
}

/// What ECS does with an update: members that are sent replace the service's.
fn updated(live: &Value, input: &Value) -> Value {
    let mut out = live.clone();
    for (name, value) in input.as_object().unwrap() {
        if !matches!(name.as_str(), "cluster" | "service" | "forceNewDeployment") {
            out[name] = value.clone();
        }
    }
    out
}

proptest! {
    /// Updating once is enough: the second update has nothing to do.
    #[test]
    fn an_updated_service_is_up_to_date(document in service(), before in service()) {
        let mut before = before;
        before["taskDefinition"] = json!("td:1");
        let first = update_input(&document, &before, Some(&json!({})), CALL);
        let after = updated(&before, &first.input);
        let second = update_input(&document, &after, Some(&json!({})), CALL);
        prop_assert!(second.is_nothing(), "{:?}", second);
        // And what the document does not name is as it was.
        for (name, value) in before.as_object().unwrap() {
            if document.get(name).is_none() && name != "taskDefinition" {
                prop_assert_eq!(after.get(name), Some(value));
            }
        }
    }

    /// Whatever a deployment did, the restore brings back what there was.
    #[test]
    fn a_restore_undoes_any_update(document in service(), before in service()) {
        let mut before = before;
        before["taskDefinition"] = json!("td:1");
        // A network cannot be taken from a service.
        if before.get("networkConfiguration").is_none() {
            before["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": ["z"]}});
        }
        let snapshot = Snapshot::of(&before, Some(&json!({})), 0);
        let after = updated(&before, &update_input(&document, &before, Some(&json!({})), CALL).input);
        let back = restore_input(&snapshot, &after, Some(&json!({})), Call { task_definition: "td:1", ..CALL });
        let restored = updated(&after, &back.input);
        prop_assert!(snapshot.is_like(&restored, Some(&json!({}))), "{} {}", snapshot.document, restored);
    }
}
