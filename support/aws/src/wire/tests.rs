use super::query::form;
use super::*;
use crate::operation::Service;
use proptest::prelude::*;
use serde_json::json;
use std::fmt::Write as _;

const RULES: Operation = Service::LoadBalancing.op("DescribeRules");

fn answer(result: &str) -> Value {
    let body = format!(
        "<DescribeRulesResponse xmlns=\"http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/\">\n  \
         <DescribeRulesResult>{result}</DescribeRulesResult>\n  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>\n\
         </DescribeRulesResponse>"
    );
    decode(RULES, body.as_bytes()).unwrap()
}

#[test]
fn lists_are_lists_with_none_one_and_many_entries() {
    assert_eq!(answer("<Rules/>"), json!({"Rules": []}));
    assert_eq!(answer("<Rules>\n  </Rules>"), json!({"Rules": []}));
    assert_eq!(
        answer("<Rules><member><Priority>1</Priority></member></Rules>"),
        json!({"Rules": [{"Priority": "1"}]})
    );
    assert_eq!(
        answer("<Rules>\n<member>a</member>\n<member>b</member>\n</Rules>"),
        json!({"Rules": ["a", "b"]})
    );
    // A list that these tables do not know is one as soon as it has an entry.
    assert_eq!(answer("<Newer><member>a</member></Newer>"), json!({"Newer": ["a"]}));
    assert_eq!(answer("<Flat>a</Flat><Flat>b</Flat>"), json!({"Flat": ["a", "b"]}));
}

#[test]
fn unknown_members_text_and_entities_are_kept_as_they_are() {
    assert_eq!(
        answer("<Rules><member><Invented><Deep>7</Deep></Invented><Empty/></member></Rules>"),
        json!({"Rules": [{"Invented": {"Deep": "7"}, "Empty": ""}]})
    );
    assert_eq!(
        answer("<Body> a &amp; b &lt;&#x20AC;&#10;<![CDATA[<x> &amp;]]> </Body>"),
        json!({"Body": " a & b <€\n<x> &amp; "})
    );
    assert_eq!(answer(""), json!({}));
}

#[test]
fn maps_come_as_entries() {
    let params = "<AuthenticationRequestExtraParams><entry><key>prompt</key><value>login</value></entry></AuthenticationRequestExtraParams>";
    assert_eq!(answer(params), json!({"AuthenticationRequestExtraParams": {"prompt": "login"}}));
    assert_eq!(
        answer("<AuthenticationRequestExtraParams/>"),
        json!({"AuthenticationRequestExtraParams": {}})
    );
}

#[test]
fn what_is_no_answer_is_said_so_and_no_entity_of_a_document_is_expanded() {
    let fault = |body: &str| decode(RULES, body.as_bytes()).unwrap_err();
    assert!(fault("<html><body>login</body></html>").contains("`html`"));
    assert!(fault("{}").contains("no XML"));
    assert!(fault("<DescribeRulesResponse><a>").contains("no XML"));
    assert!(fault(&"<a>".repeat(100_000)).contains("64 elements"));
    let bomb = "<!DOCTYPE a [<!ENTITY x \"y\">]><DescribeRulesResponse><DescribeRulesResult><A>&x;</A></DescribeRulesResult></DescribeRulesResponse>";
    assert!(fault(bomb).contains("`x` is not defined"));
    let list = Service::Ecs.op("ListTasks");
    assert!(decode(list, b"[1]").unwrap_err().contains("no JSON object"));
    assert!(decode(list, b"<html/>").unwrap_err().contains("no JSON"));
    assert_eq!(decode(list, b"").unwrap(), json!({}));
}

#[test]
fn refusals_of_every_kind() {
    let said = |body: &str, header: Option<&str>| {
        let found = refusal(body.as_bytes(), header);
        (found.code, found.message)
    };
    let pair = |code: &str, message: &str| (code.to_owned(), message.to_owned());
    assert_eq!(
        said("{\"__type\":\"com.amazonaws.ecs#ClusterNotFoundException\",\"message\":\"no\"}", None),
        pair("ClusterNotFoundException", "no")
    );
    assert_eq!(
        said("{\"Message\":\"no\"}", Some("ThrottlingException:http://internal.amazon.com/coral/")),
        pair("ThrottlingException", "no")
    );
    let xml = "<ErrorResponse xmlns=\"http://x/\"><Error><Type>Sender</Type><Code>RuleNotFound</Code><Message>a &lt; b</Message></Error><RequestId>1</RequestId></ErrorResponse>";
    assert_eq!(said(xml, None), pair("RuleNotFound", "a < b"));
    assert_eq!(said("<html><h1>503 Service Unavailable</h1></html>", None), pair("", ""));
    assert_eq!(said("oops", None), pair("", ""));
    assert_eq!(said("", None), pair("", ""));
}

#[test]
fn a_form_has_the_names_of_the_query_protocol() {
    let input = json!({
        "ListenerArn": "arn", "Port": 80, "Flag": true, "Missing": null, "Certificates": [],
        "DefaultActions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": [
            {"TargetGroupArn": "a", "Weight": 90}, {"TargetGroupArn": "b", "Weight": 10}]}}],
    });
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(form("ModifyListener", "2015-12-01", &input).as_bytes())
            .into_owned()
            .collect();
    let expected = [
        ("Action", "ModifyListener"),
        ("Version", "2015-12-01"),
        ("ListenerArn", "arn"),
        ("Port", "80"),
        ("Flag", "true"),
        ("Certificates", ""),
        ("DefaultActions.member.1.Type", "forward"),
        ("DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn", "a"),
        ("DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.Weight", "90"),
        ("DefaultActions.member.1.ForwardConfig.TargetGroups.member.2.TargetGroupArn", "b"),
        ("DefaultActions.member.1.ForwardConfig.TargetGroups.member.2.Weight", "10"),
    ];
    assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

/// What a service makes of a form: the other side of the Query protocol, for the tests alone.
fn understand(body: &str) -> Value {
    let mut root = Value::Object(Map::new());
    for (path, text) in url::form_urlencoded::parse(body.as_bytes()) {
        let mut at = &mut root;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let members = at.as_object_mut().unwrap();
            at = members.entry(part.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if parts.peek().is_none() {
                *at = Value::String(text.clone().into_owned());
            }
        }
    }
    shape("", root)
}

fn shape(name: &str, value: Value) -> Value {
    match value {
        Value::Object(mut members) => {
            if let Some(Value::Object(entries)) = members.get_mut("member") {
                return Value::Array(
                    std::mem::take(entries).into_iter().map(|(_, one)| shape("", one)).collect(),
                );
            }
            if let Some(Value::Object(entries)) = members.get_mut("entry") {
                let pair = |mut one: Value| Some((one["key"].as_str()?.to_owned(), one["value"].take()));
                return Value::Object(
                    std::mem::take(entries).into_iter().filter_map(|(_, one)| pair(one)).collect(),
                );
            }
            Value::Object(members.into_iter().map(|(name, one)| (name.clone(), shape(&name, one))).collect())
        }
        // The service's model says which members are lists.
        Value::String(text)
            if text.is_empty() && ["TargetGroups", "Values", "Certificates"].contains(&name) =>
        {
            json!([])
        }
        other => other,
    }
}

/// What a service writes: the other side of the XML, for the tests alone.
fn write(name: &str, value: &Value, out: &mut String) {
    write!(out, "<{name}>").unwrap();
    match value {
        Value::Array(entries) => entries.iter().for_each(|one| write("member", one, out)),
        Value::Object(entries) if super::query::is_map(name) => {
            for (key, one) in entries {
                out.push_str("<entry>");
                write("key", &Value::String(key.clone()), out);
                write("value", one, out);
                out.push_str("</entry>");
            }
        }
        Value::Object(members) => members.iter().for_each(|(name, one)| write(name, one, out)),
        Value::String(text) => out.push_str(&quick_xml::escape::escape(text.as_str())),
        other => write!(out, "{other}").unwrap(),
    }
    write!(out, "</{name}>").unwrap();
}

/// The document as XML knows it: leaves are text.
fn leaves(value: &Value) -> Value {
    match value {
        Value::Array(entries) => entries.iter().map(leaves).collect(),
        Value::Object(members) => members.iter().map(|(name, one)| (name.clone(), leaves(one))).collect(),
        Value::String(_) => value.clone(),
        other => Value::String(other.to_string()),
    }
}

fn words() -> impl Strategy<Value = String> {
    "[ -~äß€/\n]{0,20}"
}

fn action() -> impl Strategy<Value = Value> {
    let weighted =
        (words(), 0..1000u32).prop_map(|(arn, weight)| json!({"TargetGroupArn": arn, "Weight": weight}));
    let forward = (proptest::collection::vec(weighted, 0..4), any::<bool>(), 1..604_800u32).prop_map(
        |(groups, on, seconds)| {
            json!({"Type": "forward", "Order": 2, "ForwardConfig": {"TargetGroups": groups,
            "TargetGroupStickinessConfig": {"Enabled": on, "DurationSeconds": seconds}}})
        },
    );
    let params = proptest::collection::btree_map("[a-z_]{1,8}", words(), 1..4);
    let oidc = (words(), words(), params, any::<bool>()).prop_map(|(issuer, scope, params, known)| {
        json!({"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {"Issuer": issuer, "Scope": scope,
            "ClientId": "id", "SessionTimeout": 604_800, "AuthenticationRequestExtraParams": params,
            "UseExistingClientSecret": known, "OnUnauthenticatedRequest": "authenticate"}})
    });
    let redirect = (words(), words()).prop_map(|(host, query)| {
        json!({"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "Host": host, "Path": "/#{path}",
            "Query": query, "StatusCode": "HTTP_301"}})
    });
    let fixed = words().prop_map(|body| {
        json!({"Type": "fixed-response", "FixedResponseConfig": {"MessageBody": body, "StatusCode": "503",
            "ContentType": "text/plain"}})
    });
    prop_oneof![forward, oidc, redirect, fixed]
}

fn rule() -> impl Strategy<Value = Value> {
    let values = proptest::collection::vec(words(), 0..3);
    let condition =
        values.prop_map(|values| json!({"Field": "path-pattern", "PathPatternConfig": {"Values": values}}));
    let transform = (words(), words()).prop_map(|(regex, replace)| {
        json!({"Type": "url-rewrite", "UrlRewriteConfig": {"Rewrites": [{"Regex": regex, "Replace": replace}]}})
    });
    let newer = words().prop_map(|text| json!({"SomethingNew": {"Inside": [text]}}));
    (
        proptest::collection::vec(action(), 1..4),
        proptest::collection::vec(condition, 1..3),
        proptest::collection::vec(transform, 1..3),
        newer,
    )
        .prop_map(|(actions, conditions, transforms, newer)| {
            json!({"RuleArn": "arn", "Actions": actions, "Conditions": conditions, "Transforms": transforms, "Newer": newer})
        })
}

proptest! {
    /// Whatever is read from a listener and written back reaches the service as it was, in either direction.
    #[test]
    fn rules_survive_the_way_there_and_back(rule in rule()) {
        let sent = form("ModifyRule", "2015-12-01", &rule);
        let mut got = understand(&sent);
        let members = got.as_object_mut().unwrap();
        prop_assert_eq!(members.remove("Action"), Some(json!("ModifyRule")));
        prop_assert_eq!(members.remove("Version"), Some(json!("2015-12-01")));
        prop_assert_eq!(&got, &leaves(&rule));
        let mut xml = String::new();
        write("Rules", &json!([rule]), &mut xml);
        let back = answer(&xml);
        prop_assert_eq!(&back, &json!({"Rules": [leaves(&rule)]}));
        // Writing back what was read sends the same form again.
        prop_assert_eq!(form("ModifyRule", "2015-12-01", &back["Rules"][0]), sent);
    }

    /// No body makes the reader panic.
    #[test]
    fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200), text in "[<>/&;a-z ]{0,60}") {
        for body in [body.as_slice(), text.as_bytes()] {
            let _either = (decode(RULES, body), refusal(body, None));
        }
    }
}
