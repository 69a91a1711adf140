//! Only the target groups and their weights change, whatever else stands in a list of actions.

use super::actions::Actions;
use super::weights::Weights;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::time::Duration;

const BLUE: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/blue/1";
const GREEN: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/green/2";
const THIRD: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/third/3";

fn oidc() -> Value {
    json!({"Type": "authenticate-oidc", "Order": "1", "AuthenticateOidcConfig": {
        "Issuer": "https://id.example.com", "AuthorizationEndpoint": "https://id.example.com/a",
        "TokenEndpoint": "https://id.example.com/t", "UserInfoEndpoint": "https://id.example.com/u",
        "ClientId": "web", "SessionTimeout": "604800", "Scope": "openid",
        "AuthenticationRequestExtraParams": {"prompt": "login"}}})
}

fn split(green: u32) -> Weights {
    Weights::split(BLUE, GREEN, green).unwrap()
}

#[test]
fn the_short_form_becomes_the_long_one_with_both_groups() {
    let before = Actions::new(vec![json!({"Type": "forward", "TargetGroupArn": BLUE})]);
    assert_eq!(before.only_group().unwrap(), BLUE);
    let after = before.with_weights(&split(10)).unwrap();
    assert_eq!(
        after.to_input(),
        json!([{"Type": "forward", "ForwardConfig": {"TargetGroups": [
            {"TargetGroupArn": BLUE, "Weight": 90}, {"TargetGroupArn": GREEN, "Weight": 10}]}}])
    );
    let said = after.only_group().unwrap_err().to_string();
    assert!(said.contains("blue 90, green 10"), "{said}");
}

#[test]
fn an_identity_provider_keeps_its_secret_and_its_place() {
    let answered = Actions::new(vec![
        json!({"Type": "forward", "Order": "2", "TargetGroupArn": BLUE, "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": BLUE, "Weight": "1"}],
            "TargetGroupStickinessConfig": {"Enabled": "true", "DurationSeconds": "60"}}}),
        oidc(),
    ]);
    let after = answered.with_weights(&split(50)).unwrap();
    let sent = after.to_input();
    assert_eq!(sent[1]["AuthenticateOidcConfig"]["UseExistingClientSecret"], true);
    assert_eq!(sent[1]["AuthenticateOidcConfig"]["ClientId"], "web");
    assert_eq!(sent[1]["Order"], "1");
    assert_eq!(sent[0]["Order"], "2");
    assert_eq!(sent[0]["ForwardConfig"]["TargetGroupStickinessConfig"]["DurationSeconds"], "60");
    assert_eq!(sent[0].get("TargetGroupArn"), None);
    assert_eq!(after.sticky(), Some(Duration::from_secs(60)));
    // As it is read back: the secret is not given out, and how it was sent does not matter.
    assert!(Actions::new(sent.as_array().unwrap().clone()).same(&after));
    assert!(!after.same(&answered));
}

#[test]
fn of_several_forward_actions_the_last_one_counts() {
    let actions = Actions::new(vec![
        json!({"Type": "forward", "Order": 10, "TargetGroupArn": BLUE}),
        json!({"Type": "forward", "Order": "9", "TargetGroupArn": GREEN}),
    ]);
    assert_eq!(actions.only_group().unwrap(), BLUE);
    let none = Actions::new(vec![json!({"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_301"}})]);
    assert!(none.weights().unwrap_err().to_string().contains("redirect"));
    assert!(Actions::default().weights().is_err());
}

#[test]
fn a_third_group_stays_only_as_long_as_it_gets_nothing() {
    let with = |weight: u32| {
        Actions::new(vec![json!({"Type": "forward", "ForwardConfig": {"TargetGroups": [
            {"TargetGroupArn": BLUE, "Weight": 1}, {"TargetGroupArn": THIRD, "Weight": weight}]}})])
    };
    let after = with(0).with_weights(&split(10)).unwrap();
    assert_eq!(after.weights().unwrap().shown(), "blue 90, third 0, green 10");
    let said = with(5).with_weights(&split(10)).unwrap_err().to_string();
    assert!(said.contains("third gets requests too"), "{said}");
    assert_eq!(with(5).forwarding(&split(10)).unwrap().weights().unwrap(), split(10));
}

#[test]
fn two_groups_change_places_with_what_belongs_to_the_place() {
    let long = Actions::new(vec![json!({"Type": "forward", "ForwardConfig": {"TargetGroups": [
        {"TargetGroupArn": BLUE, "Weight": 100}, {"TargetGroupArn": GREEN, "Weight": 0}]}})]);
    let after = long.exchanged(BLUE, GREEN).unwrap();
    assert_eq!(after.weights().unwrap().shown(), "green 100, blue 0");
    assert!(after.exchanged(GREEN, BLUE).unwrap().same(&long));
    let short = Actions::new(vec![json!({"Type": "forward", "TargetGroupArn": BLUE})]);
    assert_eq!(short.exchanged(BLUE, GREEN).unwrap().only_group().unwrap(), GREEN);
}

#[test]
fn what_aws_fills_in_or_leaves_out_makes_no_difference() {
    let sent = Actions::new(vec![json!({"Type": "forward", "TargetGroupArn": BLUE})]);
    let answered = Actions::new(vec![json!({"Type": "forward", "Order": "1", "TargetGroupArn": BLUE,
        "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": BLUE, "Weight": "1"}],
            "TargetGroupStickinessConfig": {"Enabled": "false"}}})]);
    assert!(sent.same(&answered));
    let stopped = Actions::new(vec![json!({"Type": "forward", "ForwardConfig": {
        "TargetGroups": [{"TargetGroupArn": BLUE, "Weight": "0"}]}})]);
    assert!(!sent.same(&stopped));
}

#[test]
fn saved_weights_come_back_into_a_list_that_changed_elsewhere() {
    let saved = Actions::new(vec![oidc(), json!({"Type": "forward", "Order": "2", "TargetGroupArn": BLUE})]);
    let mut edited = oidc();
    edited["AuthenticateOidcConfig"]["Scope"] = json!("openid email");
    let now = Actions::new(vec![
        edited.clone(),
        json!({"Type": "forward", "Order": "2", "ForwardConfig": {
        "TargetGroups": [{"TargetGroupArn": BLUE, "Weight": "50"}, {"TargetGroupArn": GREEN, "Weight": "50"}]}}),
    ]);
    let back = now.forwarding(&saved.weights().unwrap()).unwrap();
    assert!(back.same_weights(&saved));
    assert!(!back.same(&saved));
    assert!(
        back.same(&Actions::new(vec![
            edited,
            json!({"Type": "forward", "Order": 2, "TargetGroupArn": BLUE})
        ]))
    );
}

/// Members that this program knows nothing of.
fn unknown() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::btree_map("New[A-Z][a-z]{1,6}", "[a-z0-9]{1,8}".prop_map(Value::from), 0..3)
        .prop_map(|members| members.into_iter().collect())
}

fn merged(mut action: Value, more: &Map<String, Value>) -> Value {
    action.as_object_mut().unwrap().extend(more.clone());
    action
}

/// A list as AWS answers it: actions that authenticate, then the one that forwards, at any place of the list.
fn list() -> impl Strategy<Value = Vec<Value>> {
    let authenticate = prop_oneof![
        Just(
            json!({"Type": "authenticate-oidc", "AuthenticateOidcConfig": {"ClientId": "web", "Issuer": "https://i"}})
        ),
        Just(
            json!({"Type": "authenticate-cognito", "AuthenticateCognitoConfig": {"UserPoolArn": "arn", "UserPoolDomain": "d"}})
        ),
        Just(
            json!({"Type": "jwt-validation", "JwtValidationConfig": {"JwksEndpoint": "https://j", "AdditionalClaims": []}})
        ),
    ];
    let sticky = prop_oneof![
        Just(None),
        Just(Some(json!({"Enabled": "false"}))),
        (1u32..604_800)
            .prop_map(|seconds| Some(json!({"Enabled": "true", "DurationSeconds": seconds.to_string()}))),
    ];
    let groups = prop_oneof![
        Just(vec![json!({"TargetGroupArn": BLUE, "Weight": "1"})]),
        (0u32..1000).prop_map(|w| vec![
            json!({"TargetGroupArn": GREEN, "Weight": "0", "NewThing": "x"}),
            json!({"TargetGroupArn": BLUE, "Weight": w.to_string()}),
        ]),
        Just(vec![json!({"TargetGroupArn": THIRD, "Weight": "0"}), json!({"TargetGroupArn": BLUE})]),
    ];
    let form = (any::<bool>(), groups, sticky, unknown(), unknown());
    (proptest::collection::vec((authenticate, unknown()), 0..3), form, any::<prop::sample::Index>()).prop_map(
        |(authenticate, (short, groups, sticky, in_action, in_config), at)| {
            let mut actions: Vec<Value> = authenticate
                .into_iter()
                .enumerate()
                .map(|(n, (action, more))| {
                    merged(merged(action, &more), json!({"Order": (n + 1).to_string()}).as_object().unwrap())
                })
                .collect();
            let order = json!({"Order": (actions.len() + 1).to_string()});
            let mut forward = json!({"Type": "forward"});
            if short {
                forward["TargetGroupArn"] = json!(BLUE);
            } else {
                let mut config = merged(json!({"TargetGroups": groups}), &in_config);
                if let Some(sticky) = sticky {
                    config["TargetGroupStickinessConfig"] = sticky;
                }
                forward["ForwardConfig"] = config;
            }
            let forward = merged(merged(forward, &in_action), order.as_object().unwrap());
            actions.insert(at.index(actions.len() + 1), forward);
            actions
        },
    )
}

/// A list without what says where requests go.
fn rest(list: &[Value]) -> Vec<Value> {
    let mut list = list.to_vec();
    for action in list.iter_mut().filter(|action| action["Type"] == "forward") {
        let action = action.as_object_mut().unwrap();
        action.remove("TargetGroupArn");
        if let Some(config) = action.get_mut("ForwardConfig").and_then(Value::as_object_mut) {
            config.remove("TargetGroups");
            if config.is_empty() {
                action.remove("ForwardConfig");
            }
        }
    }
    list
}

/// As AWS answers a list: text for numbers, the groups in its own order, the short form beside the long one.
fn answered(list: &Value) -> Vec<Value> {
    let mut list = list.as_array().unwrap().clone();
    for action in &mut list {
        if let Some(config) = action.get_mut("AuthenticateOidcConfig").and_then(Value::as_object_mut) {
            config.remove("UseExistingClientSecret");
        }
        let Some(groups) = action.pointer_mut("/ForwardConfig/TargetGroups").and_then(Value::as_array_mut)
        else {
            continue;
        };
        groups.reverse();
        for group in groups.iter_mut() {
            let weight = group.get("Weight").and_then(Value::as_u64).unwrap_or(1);
            if group["Weight"].is_number() {
                group["Weight"] = json!(weight.to_string());
            }
        }
        if let [only] = groups.as_slice() {
            action["TargetGroupArn"] = only["TargetGroupArn"].clone();
        }
    }
    list
}

proptest! {
    #[test]
    fn nothing_but_the_target_groups_changes(list in list(), percent in 0u32..=100) {
        let before = Actions::new(list.clone());
        let after = before.with_weights(&split(percent)).unwrap();
        let weights = after.weights().unwrap();
        prop_assert_eq!((weights.of(BLUE), weights.of(GREEN), weights.of(THIRD)), (100 - percent, percent, 0));
        prop_assert_eq!(after.sticky(), before.sticky());
        let sent = after.to_input();
        let mut rest_of_sent = rest(sent.as_array().unwrap());
        for action in &mut rest_of_sent {
            if let Some(config) = action.get_mut("AuthenticateOidcConfig") {
                prop_assert_eq!(config.as_object_mut().unwrap().remove("UseExistingClientSecret"), Some(json!(true)));
            }
        }
        prop_assert_eq!(rest_of_sent, rest(&list));
        // What AWS answers to it is the same; anything else is not.
        let read_back = Actions::new(answered(&sent));
        prop_assert!(read_back.same(&after));
        prop_assert!(read_back.same_weights(&after));
        let other = after.with_weights(&split((percent + 1) % 101)).unwrap();
        prop_assert!(!read_back.same(&other) && !read_back.same_weights(&other));
        // The way back: the weights of before, in the list of now, make the list of before.
        prop_assert!(after.forwarding(&before.weights().unwrap()).unwrap().same(&before));
    }

    #[test]
    fn an_exchange_done_twice_is_none(list in list()) {
        let before = Actions::new(list.clone());
        let after = before.exchanged(BLUE, GREEN).unwrap();
        prop_assert!(after.exchanged(BLUE, GREEN).unwrap().same(&before));
        prop_assert_eq!(after.weights().unwrap().of(GREEN), before.weights().unwrap().of(BLUE));
        prop_assert_eq!(rest(after.to_input().as_array().unwrap()).len(), list.len());
    }
}
