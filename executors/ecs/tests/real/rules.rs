//! Standalone shifts: any rule, whatever else stands in it; and what a rule is brought back to.

use crate::peer::aws::forward;
use crate::peer::{image, place};
use crate::stage::Stage;
use proto::task::{EcsAction, EcsDefinitions, TrafficShift};
use serde_json::{Value, json};

fn alone(balancer: &str, listener: &str, rule: Option<&str>, weights: &[(&str, u32)]) -> EcsAction {
    EcsAction::EcsBlueGreenTrafficShift {
        shift: TrafficShift::Standalone {
            load_balancer: balancer.into(),
            listener: listener.into(),
            listener_rule_arn: rule.map(str::to_owned),
            forward: weights.iter().map(|(group, weight)| ((*group).to_owned(), *weight)).collect(),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_keeps_its_login_order_and_stickiness_and_comes_back_whole() {
    let at = place("rulesa").await;
    let balancer = at.balancer("lb");
    let (one, two) = (balancer.group("one"), balancer.group("two"));
    let image = image(&at, "1", "web");
    let definition = at.register("rulesa-web", &image);
    // More listeners than one page holds; the one that is meant is the last.
    let mut listener = String::new();
    for port in 8001..8013 {
        listener = balancer.listener(port, &[(&one, 1)]);
    }
    let rule = balancer.rule(&listener, 10, "/shop/*", &[(&one, 1), (&two, 0)]);
    at.run("one", &definition, 1, Some(&one));
    at.run("two", &definition, 1, Some(&two));
    let login = json!({"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {
        "Issuer": "https://id.example.com", "AuthorizationEndpoint": "https://id.example.com/a",
        "TokenEndpoint": "https://id.example.com/t", "UserInfoEndpoint": "https://id.example.com/u",
        "ClientId": "web", "ClientSecret": "of-the-provider", "Scope": "openid email", "SessionTimeout": 3600}});
    let send = json!({"Type": "forward", "Order": 2, "ForwardConfig": {
        "TargetGroups": [{"TargetGroupArn": one, "Weight": 1}, {"TargetGroupArn": two, "Weight": 0}],
        "TargetGroupStickinessConfig": {"Enabled": true, "DurationSeconds": 60}}});
    at.ecs.aws("elbv2", "ModifyRule", json!({"RuleArn": rule, "Actions": [login, send]}));
    let read = || at.ecs.aws("elbv2", "DescribeRules", json!({"RuleArns": [rule]}))["Rules"][0].clone();
    let before = read();
    assert_eq!(before["Actions"][0]["Type"], "authenticate-oidc", "the emulator keeps logins: {before}");
    let mut stage = Stage::new(&at, EcsDefinitions::default(), "first");
    let action = alone(&balancer.name, &listener, Some(&rule), &[(&one, 3), (&two, 1)]);
    let plan = stage.plan("Shift", action.clone()).await;
    assert!(plan.contains("Weight") && !plan.contains("of-the-provider"), "{plan}");
    stage.step("Shift", action).await;
    let after = read();
    let config = |rule: &Value| rule["Actions"][1]["ForwardConfig"].clone();
    assert_eq!(after["Actions"][0]["AuthenticateOidcConfig"]["Scope"], "openid email");
    assert_eq!(after["Actions"][0]["Order"], before["Actions"][0]["Order"]);
    assert_eq!(config(&after)["TargetGroupStickinessConfig"], config(&before)["TargetGroupStickinessConfig"]);
    assert_eq!(config(&after)["TargetGroups"][0]["Weight"], 3);
    assert_eq!((&after["Conditions"], &after["Priority"]), (&before["Conditions"], &before["Priority"]));
    let sent = at.ecs.calls(0).into_iter().rfind(|call| call.operation == "ModifyRule" && call.key == at.key);
    assert!(sent.unwrap().parameters.to_string().contains("UseExistingClientSecret"));
    stage.step("Shift_More", alone(&balancer.name, &listener, Some(&rule), &[(&two, 1)])).await;
    stage.step("Rollback", EcsAction::StandAloneTrafficShiftRollback {}).await;
    let mut back = read()["Actions"].clone();
    // The emulator answers what no AWS does: how the secret was sent.
    back[0]["AuthenticateOidcConfig"].as_object_mut().unwrap().remove("UseExistingClientSecret");
    assert_eq!(back, before["Actions"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_rule_is_changed_through_its_listener_also_when_it_is_named_by_its_own_arn() {
    let at = place("rulesb").await;
    let balancer = at.balancer("lb");
    let (one, two) = (balancer.group("one"), balancer.group("two"));
    let definition = at.register("rulesb-web", &image(&at, "1", "web"));
    let listener = balancer.listener(80, &[(&one, 1), (&two, 0)]);
    at.run("one", &definition, 1, Some(&one));
    at.run("two", &definition, 1, Some(&two));
    let rules = at.ecs.aws("elbv2", "DescribeRules", json!({"ListenerArn": listener}));
    let own = rules["Rules"][0]["RuleArn"].as_str().unwrap().to_owned();
    let mut stage = Stage::new(&at, EcsDefinitions::default(), "first");
    stage.step("By_Rule", alone(&balancer.name, &listener, Some(&own), &[(&one, 1), (&two, 1)])).await;
    stage.step("By_Listener", alone(&balancer.name, &listener, None, &[(&one, 1), (&two, 4)])).await;
    let calls = at.calls(0);
    assert!(!calls.contains(&"elbv2:ModifyRule".to_owned()), "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.ends_with(":ModifyListener")).count(), 2, "{calls:?}");
    // Another load balancer's listener, and a rule of another listener.
    let other = at.balancer("other");
    let error = stage.fails("Wrong", alone(&other.name, &listener, None, &[(&one, 1)])).await;
    assert_eq!(error.code, "ECS-051", "{error}");
    let second = balancer.listener(81, &[(&one, 1)]);
    let error = stage.fails("Wrong", alone(&balancer.name, &second, Some(&own), &[(&one, 1)])).await;
    assert_eq!(error.code, "ECS-051", "{error}");
    let error = stage.fails("Gone", alone(&balancer.name, &second, None, &[(&format!("{one}x"), 1)])).await;
    assert_eq!(error.code, "ECS-051", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_elsewhere_in_the_rule_is_kept_by_the_way_back() {
    let at = place("rulesc").await;
    let balancer = at.balancer("lb");
    let (one, two) = (balancer.group("one"), balancer.group("two"));
    let definition = at.register("rulesc-web", &image(&at, "1", "web"));
    let listener = balancer.listener(80, &[(&one, 1), (&two, 0)]);
    at.run("one", &definition, 1, Some(&one));
    at.run("two", &definition, 1, Some(&two));
    let mut stage = Stage::new(&at, EcsDefinitions::default(), "first");
    stage.step("Shift", alone(&balancer.name, &listener, None, &[(&one, 1), (&two, 1)])).await;
    let mut theirs = forward(&[(&one, 1), (&two, 1)]);
    theirs[0]["ForwardConfig"]["TargetGroupStickinessConfig"] =
        json!({"Enabled": true, "DurationSeconds": 30});
    at.ecs.aws("elbv2", "ModifyListener", json!({"ListenerArn": listener, "DefaultActions": theirs}));
    stage.step("Rollback", EcsAction::StandAloneTrafficShiftRollback {}).await;
    assert!(stage.log.contains("somebody else changed its other actions"), "{}", stage.log);
    let said = at.ecs.aws("elbv2", "DescribeListeners", json!({"ListenerArns": [listener]}));
    let groups = said["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"].clone();
    assert_eq!(groups[1]["Weight"], 0, "{groups}");
}
