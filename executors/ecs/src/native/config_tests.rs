use super::*;

fn service(strategy: &str) -> Value {
    json!({"deploymentConfiguration": {"strategy": strategy}, "loadBalancers": [{"targetGroupArn": "blue",
        "containerName": "web", "containerPort": 80, "advancedConfiguration": {"alternateTargetGroupArn": "green",
            "productionListenerRule": "rule", "testListenerRule": "test", "roleArn": "role"}}]})
}

fn gates(gates: &[&str], minutes: Option<u32>) -> NativeDeploy {
    let gates = gates.iter().map(|gate| (*gate).to_owned()).collect();
    NativeDeploy { required: false, gates, gate_timeout_minutes: minutes }
}

fn refused(document: &Value, asked: &NativeDeploy) -> String {
    let error = settle(document, document, asked, "service web").unwrap_err();
    assert_eq!(error.code, "ECS-080");
    error.what
}

#[test]
fn a_rolling_service_is_left_alone_unless_something_native_is_asked_of_it() {
    for document in [json!({}), service("ROLLING")] {
        assert_eq!(settle(&document, &document, &NativeDeploy::default(), "x").unwrap(), None);
        let required = NativeDeploy { required: true, ..NativeDeploy::default() };
        assert!(refused(&document, &required).contains("`engine: native`"));
        assert!(refused(&document, &gates(&["PRE_SCALE_UP"], None)).contains("asks for gates"));
    }
    // A definition that says nothing leaves the strategy of the service.
    let settled = settle(&json!({}), &service("CANARY"), &NativeDeploy::default(), "x").unwrap().unwrap();
    assert_eq!((settled.strategy.as_str(), settled.document), ("CANARY", json!({})));
}

#[test]
fn gates_become_one_hook_that_rolls_back() {
    let asked = gates(&["PRE_PRODUCTION_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT"], Some(30));
    let document = service("LINEAR");
    let settled = settle(&document, &document, &asked, "x").unwrap().unwrap();
    assert_eq!(
        settled.document["deploymentConfiguration"],
        json!({"strategy": "LINEAR", "lifecycleHooks": [{"targetType": "PAUSE",
            "lifecycleStages": ["PRE_PRODUCTION_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT"],
            "timeoutConfiguration": {"action": "ROLLBACK", "timeoutInMinutes": 30}}]})
    );
    assert_eq!(settled.warnings, Vec::<String>::new());
    // What the definition has is not added.
    let again = settle(&settled.document, &settled.document, &asked, "x").unwrap().unwrap();
    assert_eq!(again.document, settled.document);
}

#[test]
fn gates_of_an_earlier_deployment_go_and_functions_stay() {
    let function = json!({"targetType": "AWS_LAMBDA", "hookTargetArn": "f", "roleArn": "r", "lifecycleStages": ["PRE_SCALE_UP"]});
    let pause = |stage: &str| json!({"targetType": "PAUSE", "lifecycleStages": [stage], "timeoutConfiguration": {"action": "ROLLBACK"}});
    let mut live = service("BLUE_GREEN");
    live["deploymentConfiguration"]["lifecycleHooks"] =
        json!([function, pause("PRE_PRODUCTION_TRAFFIC_SHIFT")]);
    let settled = settle(&json!({}), &live, &NativeDeploy::default(), "x").unwrap().unwrap();
    assert_eq!(settled.document, json!({"deploymentConfiguration": {"lifecycleHooks": [function]}}));
    assert!(settled.warnings[0].contains("the gate at PRE_PRODUCTION_TRAFFIC_SHIFT is taken away"));
    // The same gates again are no change.
    let asked = gates(&["PRE_PRODUCTION_TRAFFIC_SHIFT"], None);
    let settled = settle(&json!({}), &live, &asked, "x").unwrap().unwrap();
    assert_eq!((settled.document, settled.warnings), (json!({}), vec![]));
    // A definition that writes its hooks says everything.
    let document = json!({"deploymentConfiguration": {"lifecycleHooks": [pause("POST_SCALE_UP")]}});
    let mut over = live.clone();
    over["deploymentConfiguration"]["lifecycleHooks"] =
        document["deploymentConfiguration"]["lifecycleHooks"].clone();
    let settled = settle(&document, &over, &NativeDeploy::default(), "x").unwrap().unwrap();
    assert_eq!(settled.document, document);
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let mut document = service("LINEAR");
    document["schedulingStrategy"] = json!("DAEMON");
    document["deploymentConfiguration"] = json!({"strategy": "LINEAR", "bakeTimeInMinutes": 2000,
        "linearConfiguration": {"stepPercent": 1}, "lifecycleHooks": [
            {"targetType": "PAUSE", "lifecycleStages": ["PRODUCTION_TRAFFIC_SHIFT"], "timeoutConfiguration": {"timeoutInMinutes": 0}},
            {"targetType": "AWS_LAMBDA", "lifecycleStages": []}]});
    document["loadBalancers"] = json!([{"loadBalancerName": "old"}, {"targetGroupArn": "a",
        "advancedConfiguration": {"alternateTargetGroupArn": "a"}}]);
    let what = refused(&document, &NativeDeploy::default());
    for wanted in [
        "DAEMON has no strategy LINEAR",
        "loadBalancers[0] is a classic",
        "loadBalancers[1].advancedConfiguration.productionListenerRule is not written",
        "advancedConfiguration.roleArn is not written",
        "are the same (a)",
        "bakeTimeInMinutes is 2000; expected 0 to 1440",
        "stepPercent is 1; expected 3 to 100",
        "does not pause at PRODUCTION_TRAFFIC_SHIFT",
        "timeoutInMinutes is 0; expected 1 to 20160",
        "lifecycleHooks[1].hookTargetArn is not written",
        "lifecycleHooks[1].lifecycleStages is empty",
    ] {
        assert!(what.contains(wanted), "{wanted}: {what}");
    }
    let what = refused(&service("CANARY"), &gates(&["BAKE_TIME"], Some(30_000)));
    assert!(
        what.contains("does not pause at `BAKE_TIME`") && what.contains("gateTimeout is 30000"),
        "{what}"
    );
}

#[test]
fn what_nobody_may_mean_is_warned_of() {
    let warnings = |document: &Value, asked: &NativeDeploy| {
        settle(document, document, asked, "x").unwrap().unwrap().warnings
    };
    let bare = json!({"deploymentConfiguration": {"strategy": "CANARY", "lifecycleHooks": [{"targetType": "PAUSE",
        "lifecycleStages": ["PRE_SCALE_UP"], "timeoutConfiguration": {"action": "CONTINUE"}}]}});
    let said = warnings(&bare, &NativeDeploy::default());
    assert!(
        said[0].contains("neither a load balancer nor Service Connect") && said[1].contains("CONTINUE"),
        "{said:?}"
    );
    let mut document = service("BLUE_GREEN");
    document["loadBalancers"][0]["advancedConfiguration"]
        .as_object_mut()
        .unwrap()
        .shift_remove("testListenerRule");
    let said = warnings(&document, &gates(&["POST_TEST_TRAFFIC_SHIFT"], None));
    assert!(said[0].contains("without testListenerRule"), "{said:?}");
    assert!(warnings(&service("SPIRAL"), &NativeDeploy::default())[0].contains("SPIRAL is not known"));
}
