use super::*;
use crate::value::path_text;
use proptest::prelude::*;
use serde_json::json;

/// 2024-05-06T14:00:00.000Z.
const NOW: i64 = 1_715_004_000_000;

/// The context of pipeline.md §3.6.
struct Fixture {
    tree: MapScope,
}

impl Fixture {
    fn new() -> Self {
        let body = r#"{"status":"UP","count":3,"items":[{"id":"i1"},{"id":"i2"}],"n":{"a":{"b":"c"}}}"#;
        let steps = json!({"build": {"output": {"outputVariables": {"url": "http://h:8080"}}}});
        let stage = json!({
            "variables": {"s1": "x"}, "output": {"hosts": ["h1", "h2"]}, "status": "SUCCEEDED",
            "spec": {"execution": {"steps": steps}},
        });
        let tree = json!({
            "pipeline": {
                "name": "payment-service-cd", "identifier": "payment_service_cd", "sequenceId": 42,
                "executionId": "ex1", "triggeredBy": {"email": null},
                "variables": {
                    "imageTag": "v2.3.1", "targetEnvironment": "prod", "targetRegion": "euw1", "csv": "a,b,c",
                    "ver": "5.6.0", "cnt": "200", "empty": "", "nested": "tag-<+pipeline.variables.imageTag>",
                    "loop": "<+pipeline.variables.loop>", "js": "'x-' + <+env.name>", "stageId": "deploy_service",
                    "xml": "<a><b>1</b></a>",
                },
                "stages": {"deploy_service": stage},
            },
            "stage": stage, "steps": steps, "execution": {"steps": steps},
            "service": {"name": "payment-service"}, "serviceVariables": {"LOG_LEVEL": "INFO"},
            "env": {"name": "prod", "type": "Production"},
            "artifacts": {"primary": {"image": "gcr.io/project/payment-service:v2.3.1", "tag": "v2.3.1"}},
            "strategy": {"iteration": 0, "iterations": 3}, "repeat": {"item": "h1"},
            "httpResponseCode": 200,
        });
        let payload = json!({
            "image_tag": "v2.3.1", "user": {"login": "bob"}, "x-y": "dash", "evil": "<+secrets.getValue(\"k\")>",
        });
        let tree = MapScope::new(&tree)
            .with("httpResponseBody", Value::tainted(body))
            .with("trigger", Value::from_json(&json!({"payload": payload}), true));
        Fixture { tree }
    }
}

impl Scope for Fixture {
    fn lookup(&self, path: &[Segment]) -> Lookup {
        if path_text(path) == "input" {
            return Lookup::Refused("a runtime input is missing".to_owned());
        }
        self.tree.lookup(path)
    }
}

fn context(scope: &dyn Scope) -> Context<'_> {
    Context { scope, now_ms: NOW, secret_token: 123 }
}

/// What a case of the table expects.
enum Expect {
    /// Render to this text.
    Text(&'static str),
    /// Evaluate to this value.
    Json(serde_json::Value),
    /// Unresolved: `null` in null mode, an error in throw mode.
    Unresolved,
    /// An error of this kind.
    Fault(fn(&Kind) -> bool),
}

use Expect::{Fault, Json, Text, Unresolved};

fn is(value: impl Into<serde_json::Value>) -> Expect {
    Json(value.into())
}

/// pipeline.md §3.6, case by case.
fn cases() -> Vec<(u32, &'static str, Expect)> {
    vec![
        (1, "plain text", Text("plain text")),
        (2, "<+pipeline.name>", Text("payment-service-cd")),
        (3, "out/<+pipeline.sequenceId>/x", Text("out/42/x")),
        (4, "<+pipeline.sequenceId>", is(42)),
        (5, "<+pipeline.name> <+pipeline.executionId>", Text("payment-service-cd ex1")),
        (
            6,
            "k8s_<+pipeline.variables.targetEnvironment>_<+pipeline.variables.targetRegion>",
            Text("k8s_prod_euw1"),
        ),
        (7, r#"<+pipeline.variables.targetEnvironment> == "prod""#, is(true)),
        (8, r#"<+pipeline.variables.targetEnvironment> != """#, is(true)),
        (9, r#""<+pipeline.variables.targetEnvironment>" == "prod""#, is(true)),
        (
            10,
            "<+pipeline.variables.targetEnvironment> == prod",
            Fault(|kind| *kind == Kind::Undefined("prod".into())),
        ),
        (11, r#"<+<+env.type> == "Production"?"p":"n">"#, Text("p")),
        (12, r#"<+ <+env.name> == "qa" ? 1 : 2 >"#, Text("2")),
        (13, "<+pipeline.variables.cnt> == 200", is(true)),
        (14, r#"<+pipeline.variables.cnt> > "1000""#, is(true)),
        (15, "<+pipeline.sequenceId> > 40", is(true)),
        (16, "<+<+pipeline.sequenceId> gt 40>", is(true)),
        (17, r"<+<+pipeline.sequenceId> \> 40>", is(true)),
        (18, "<+<+pipeline.sequenceId> > 40>", Text("42 40>")),
        (19, "<+<+pipeline.sequenceId> + 1>", Text("43")),
        (20, "<+<+pipeline.variables.cnt> + 1>", Text("2001")),
        (21, "<+<+pipeline.variables.cnt> * 2>", Text("400")),
        (22, r#"<+"a-" + <+env.name>>"#, Text("a-prod")),
        (23, r#"<+<+env.name>.concat("_x")>"#, Text("prod_x")),
        (24, "<+pipeline.variables.csv.split(',')[1]>", Text("b")),
        (25, r#"<+<+pipeline.variables.csv>.split(",")>"#, Text(r#"["a","b","c"]"#)),
        (26, r"<+pipeline.variables.ver.split('\\.')[1]>", Text("6")),
        (27, "<+pipeline.variables.ver.split('.')[0]>", Unresolved),
        (28, r#"<+<+artifact.image>.split(":")[1]>"#, Text("v2.3.1")),
        (29, r#"<+<+pipeline.variables.imageTag>.replace("v","")>"#, Text("2.3.1")),
        (30, "<+<+pipeline.variables.imageTag>.substring(1)>", Text("2.3.1")),
        (31, "<+<+env.name>.toUpperCase()>", Text("PROD")),
        (32, "<+<+env.name>.length()>", Text("4")),
        (33, r#"<+<+pipeline.variables.imageTag>.startsWith("v")>"#, is(true)),
        (34, r#"<+<+env.name>.substring(<+<+env.name>.indexOf("o")>)>"#, Text("od")),
        (35, "<+<+env.name>.getClass()>", Fault(|kind| *kind == Kind::NotAllowed)),
        (36, r#"<+pipeline.variables.targetRegion> =~ "euw[12]""#, is(true)),
        (37, r#"<+pipeline.variables.targetRegion> =~ "euw""#, is(false)),
        (38, r#"<+env.name> =~ ["prod","pre"]"#, is(true)),
        (39, r#"<+env.name> !~ "qa.*""#, is(true)),
        (40, r#"<+pipeline.variables.targetRegion> =^ "eu""#, is(true)),
        (41, r#"!(<+env.name> == "qa") and not false"#, is(true)),
        (42, r#"<+env.name> eq "prod" && (<+env.type> ne "PreProduction" or false)"#, is(true)),
        (43, "empty(<+pipeline.variables.empty>)", is(true)),
        (44, "<+size(<+pipeline.variables.csv>)>", Text("5")),
        (45, r#"<+<+pipeline.variables.empty> ?: "dflt">"#, Text("dflt")),
        (46, r#"<+<+pipeline.variables.missing> ?: "dflt">"#, Text("dflt")),
        (50, "<+pipeline.variables.missing> == null", is(true)),
        (51, r#"<+pipeline.variables.missing> == "x""#, is(false)),
        (52, "<+pipeline.variables.nested>", Text("tag-v2.3.1")),
        (53, "<+pipeline.variables.js>", Text("x-prod")),
        (54, "<+pipeline.variables.loop>", Fault(|kind| *kind == Kind::SelfReference)),
        (55, "<+pipeline.stages.<+pipeline.variables.stageId>.variables.s1>", Text("x")),
        (56, "<+stage.variables.s1>", Text("x")),
        (57, "<+execution.steps.build.output.outputVariables.url>", Text("http://h:8080")),
        (58, r#"<+steps.build.output.outputVariables["url"]>"#, Text("http://h:8080")),
        (
            59,
            "<+pipeline.stages.deploy_service.spec.execution.steps.build.output.outputVariables.url>",
            Text("http://h:8080"),
        ),
        (60, "<+stage.output.hosts>", Json(json!(["h1", "h2"]))),
        (61, "<+repeat.item>-<+strategy.iteration>/<+strategy.iterations>", Text("h1-0/3")),
        (62, "<+json.select(\"status\", <+httpResponseBody>)> == \"UP\"\n", is(true)),
        (63, r#"<+json.select("count", <+httpResponseBody>)> == 3"#, is(true)),
        (64, r#"<+json.select("n.a.b", <+httpResponseBody>)>"#, Text("c")),
        (65, r#"<+json.list("$.items[*].id", <+httpResponseBody>)>"#, Text(r#"["i1","i2"]"#)),
        (66, r#"<+json.select("items[?(@.id == 'i2')].id", <+httpResponseBody>)>"#, Text(r#"["i2"]"#)),
        (67, "<+json.object(<+httpResponseBody>).n.a.b>", Text("c")),
        (68, "<+json.format(<+trigger.payload.user>)>", Text(r#"{"login":"bob"}"#)),
        (69, r#"<+json.select("nope", <+httpResponseBody>)>"#, Unresolved),
        (70, "<+httpResponseCode> == 200", is(true)),
        (71, r#"<+xml.select("/a/b", <+pipeline.variables.xml>)>"#, Text("1")),
        (72, r#"<+regex.extract("[0-9]+", <+pipeline.variables.imageTag>)>"#, Text("2")),
        (73, r#"<+regex.replace("^v", "", <+pipeline.variables.imageTag>)>"#, Text("2.3.1")),
        (74, "<+trigger.payload.user.login>", Text("bob")),
        (74, "<+eventPayload.image_tag>", Text("v2.3.1")),
        (75, r#"<+trigger.payload["x-y"]>"#, Text("dash")),
        (76, "<+trigger.payload.x-y>", Unresolved),
        (77, "<+trigger.payload.evil>", Text(r#"<+secrets.getValue("k")>"#)),
        (78, r#"<+secrets.getValue("org.db_pw")>"#, Text(r#"${ngSecretManager.obtain("org.db_pw", 123)}"#)),
        (
            79,
            r#"<+secrets.getValue("pw_<+env.name>")>"#,
            Text(r#"${ngSecretManager.obtain("pw_prod", 123)}"#),
        ),
        (80, "<+datetime.currentDate().plusDays(1)>", Text("2024-05-07")),
        (81, "<+datetime.currentTime()>", Text("2024-05-06T14:00:00.000+0000")),
        (82, "<+currentTime>", Text("2024-05-06T14:00:00.000Z")),
        (82, "<+currentDate.dayOfWeek>", Text("MONDAY")),
        (83, "<+serviceConfig.artifacts.primary.tag>", Text("v2.3.1")),
        (84, "<+serviceVariables.LOG_LEVEL>", Text("INFO")),
        (85, "<+pipeline.triggeredBy.email>", Unresolved),
        (86, r#"<+pipeline.stages.deploy_service.status> == "SUCCEEDED""#, is(true)),
        (87, "<+input>", Fault(|kind| *kind == Kind::Refused)),
        (88, "a <+ b", Text("a <+ b")),
    ]
}

#[test]
fn the_case_table() {
    let fixture = Fixture::new();
    let context = context(&fixture);
    let mut wrong = Vec::new();
    for (number, text, expect) in cases() {
        let rendered = render(text, &context, Mode::Null);
        let evaluated = evaluate(text, &context);
        let fine = match &expect {
            Text(wanted) => rendered.as_deref() == Ok(*wanted),
            Json(wanted) => evaluated.as_ref().is_ok_and(|value| value.to_json() == *wanted),
            Unresolved => {
                rendered.as_deref() == Ok("null")
                    && evaluated.as_ref().is_ok_and(Value::is_null)
                    && render(text, &context, Mode::Keep).as_deref() == Ok(text)
                    && render(text, &context, Mode::Throw)
                        .is_err_and(|error| matches!(error.kind, Kind::Unresolved(_)))
            }
            Fault(test) => {
                evaluated.as_ref().is_err_and(|error| test(&error.kind))
                    && (number == 10 || rendered.is_err())
            }
        };
        if !fine {
            wrong.push(format!("{number}: {text}\n   rendered {rendered:?}\n   evaluated {evaluated:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let numbers: std::collections::BTreeSet<u32> = cases().iter().map(|case| case.0).collect();
    let missing: Vec<u32> = (1..=88).filter(|n| !numbers.contains(n) && !(47..=49).contains(n)).collect();
    assert!(missing.is_empty(), "cases without a row: {missing:?}");
}

#[test]
fn cases_47_to_49_the_mode_decides_what_becomes_of_a_missing_value() {
    let fixture = Fixture::new();
    let context = context(&fixture);
    let text = "v=<+pipeline.variables.missing>";
    assert_eq!(render(text, &context, Mode::Null).unwrap(), "v=null");
    assert_eq!(render(text, &context, Mode::Keep).unwrap(), text);
    let error = render(text, &context, Mode::Throw).unwrap_err();
    assert_eq!(error.kind, Kind::Unresolved(vec!["pipeline.variables.missing".into()]));
    assert!(error.message.contains("pipeline.variables.missing"), "{error}");
    assert_eq!(error.caret(text), format!("{text}\n  {}", "^".repeat(text.len() - 2)));
}

fn eval_ok(text: &str) -> serde_json::Value {
    let fixture = Fixture::new();
    evaluate(text, &context(&fixture)).unwrap_or_else(|e| panic!("{text}: {e}")).to_json()
}

fn eval_kind(text: &str) -> Kind {
    let fixture = Fixture::new();
    evaluate(text, &context(&fixture)).expect_err(text).kind
}

#[test]
fn operators_and_coercions_as_measured() {
    for (text, value) in [
        (r#""200" == 200"#, json!(true)),
        (r#"1 == 1.0"#, json!(true)),
        (r#"null == """#, json!(false)),
        (r#"null == null"#, json!(true)),
        (r#""true" == true"#, json!(true)),
        (r#""200" > "1000""#, json!(true)),
        (r#"null < 1"#, json!(false)),
        (r#""1" + 2"#, json!("12")),
        (r#"7 / 2"#, json!(3)),
        (r#"7 / 2.0"#, json!(3.5)),
        (r#"7 mod 4 + 10 div 5"#, json!(5)),
        (r#"1 + 2 * 3 - -1"#, json!(8)),
        (r#"0x10 + 10L"#, json!(26)),
        (r#""a" && !"false""#, json!(true)),
        (r#"0 || "" || 2"#, json!(true)),
        (r#"nope ? 1 : 2"#, json!(2)),
        (r#"nope ?: "d""#, json!("d")),
        (r#"empty nope"#, json!(true)),
        (r#"empty([]) and empty({:}) and not empty(0)"#, json!(true)),
        (r#"size {"a": 1, b: 2}"#, json!(2)),
        (r#""k" =~ {"k": 1}"#, json!(true)),
        (r#""abc" =$ "bc" and "abc" !^ "b" and "abc" !$ "x""#, json!(true)),
        (r#"[1, "x", [2]][2][0]"#, json!(2)),
        (r#"{"a": {"b": 5}}.a["b"]"#, json!(5)),
        (r#"{1, 2}"#, json!([1, 2])),
        (r#"if (1 < 2) { "a"; } else { "b"; }"#, json!("a")),
        (r#"if (false) "a"; else if (true) { "c" }"#, json!("c")),
        (r#"if (false) "a""#, json!(null)),
        ("1 // one\n + 2 ## two\n /* three */ + 3", json!(6)),
        (r#""a\n\t\u00e9\\\"""#, json!("a\n\té\\\"")),
        (r#"'\d'"#, json!("\\d")),
        (r#"9223372036854775807 + 1 > 9200000000000000000"#, json!(true)),
        (r#"1.5.toString() + 1.9.intValue()"#, json!("1.51")),
        (r#"pipeline.name.missing"#, json!(null)),
    ] {
        if text == "pipeline.name.missing" {
            assert_eq!(eval_kind(text), Kind::Type, "a text has no properties");
            continue;
        }
        assert_eq!(eval_ok(text), value, "{text}");
    }
    for text in [
        r#""1.0" == 1"#,
        r#""x" > 1"#,
        "1 + null",
        "!null",
        "null && true",
        "1 / 0",
        "1 % 0",
        "-\"x\"",
        "[1] < [2]",
        "[1][5]",
        r#""a".substring(2)"#,
        r#""a".charAt(-1)"#,
        "size 5",
        "null.size()",
    ] {
        assert_eq!(eval_kind(text), Kind::Type, "{text}");
    }
    for text in [
        "1 +",
        "a in b",
        "a ?? b",
        "(1",
        "[1",
        "{1",
        "var x = 1",
        "new('x')",
        "'a",
        "1 2",
        "",
        "  ",
        "a.",
        "1x",
        "`",
    ] {
        assert_eq!(eval_kind(text), Kind::Syntax, "{text}");
    }
    for text in [r#""a".class()"#, r#""a".getClass()"#, "exec(1)", "[1].stream()", r#""a".length(1)"#] {
        assert_eq!(eval_kind(text), Kind::NotAllowed, "{text}");
    }
    for text in [r#""a" =~ "(?=a)""#, r#""aa".matches("(a)\\1")"#, r#""a".split("(")"#] {
        assert_eq!(eval_kind(text), Kind::Regex, "{text}");
    }
}

#[test]
fn methods_of_texts_lists_and_maps() {
    for (text, value) in [
        (r#""a-b".replaceAll("([a-z])", "<$1\\>".trim())"#, json!("<a>-<b>")),
        (r#"" x ".trim().isEmpty()"#, json!(false)),
        (r#""abcabc".lastIndexOf("bc")"#, json!(4)),
        (r#""héllo".substring(1, 3)"#, json!("él")),
        (r#""a".equals("a") && "A".equalsIgnoreCase("a")"#, json!(true)),
        (r#"["a","b"].contains("b")"#, json!(true)),
        (r#"["a","b"].indexOf("z")"#, json!(-1)),
        (r#"["a","b"].get(1) + ["a"].size()"#, json!("b1")),
        (r#"{"a": 1}.containsKey("a")"#, json!(true)),
        (r#"{"a": 1, "b": 2}.keySet()"#, json!(["a", "b"])),
        (r#"{"a": 1}.get("z") == null"#, json!(true)),
        (r#"<+stage.output.hosts>.0"#, json!("h1")),
        (r#"<+stage.output.hosts[1]>"#, json!("h2")),
        (r#"<+stage.output.hosts.size()>"#, json!(2)),
        (r#"<+trigger.payload.user>.login"#, json!("bob")),
        (r#"<+<+trigger.payload>.user.login>"#, json!("bob")),
        (r#"shell.quote("it's")"#, json!("'it'\\''s'")),
        (r#"shell.doubleQuote("$x")"#, json!("\"\\$x\"")),
        (r#"shell.escape("a b;c")"#, json!("a\\ b\\;c")),
        (r#"regex.match("3", "v2.3")"#, json!(true)),
        (r#"regex.extract("x*", "aaa")"#, json!("")),
        (r#"json.list("a", {"a": 1})"#, json!([1])),
        (r#"json.object("[1, {\"a\": 2}]")[1].a"#, json!(2)),
        (
            "datetime.currentTime().plusHours(10).plusMinutes(1).toString()",
            json!("2024-05-07T00:01:00.000+0000"),
        ),
        ("currentDate.year * 10000 + currentDate.month * 100 + currentDate.dayOfMonth", json!(20_240_506)),
    ] {
        assert_eq!(eval_ok(text), value, "{text}");
    }
}

#[test]
fn a_fault_of_a_functor_raises_everywhere() {
    for text in [
        r#"<+json.object("{")>"#,
        r#"<+json.select("a[", <+httpResponseBody>)>"#,
        r#"<+xml.select("/a", "no xml")>"#,
        r#"<+regex.match("(?=x)", "x")>"#,
        r#"<+secrets.getValue("a\"b")>"#,
        r#"<+secrets.getValue(<+secrets.getValue("a")>)>"#,
        r#"<+datetime.currentDate().plusDays(1).plusHours(1)>"#,
    ] {
        let fixture = Fixture::new();
        let result = render(text, &context(&fixture), Mode::Null);
        if text.contains("plusHours") {
            assert_eq!(
                result.as_deref(),
                Ok("null"),
                "a method that does not exist is no fault of the functor"
            );
        } else {
            assert_eq!(result.unwrap_err().kind, Kind::Functor, "{text}");
        }
    }
}

#[test]
fn what_came_from_outside_is_never_resolved_again() {
    let fixture = Fixture::new();
    let scope = fixture.tree.clone().with(
        "v",
        Value::from(json!({
            "direct": "<+trigger.payload.evil>",
            "joined": "x <+trigger.payload.evil>",
            "made": "<+<+trigger.payload.evil>.concat('!')>",
            "listed": ["<+trigger.payload.evil>"],
        })),
    );
    let context = context(&scope);
    let evil = r#"<+secrets.getValue("k")>"#;
    for (text, wanted) in [
        ("<+v.direct>", evil.to_owned()),
        ("<+v.joined>", format!("x {evil}")),
        ("<+v.made>", format!("{evil}!")),
        ("<+v.listed[0]>", evil.to_owned()),
        ("<+<+v.direct>>", evil.to_owned()),
    ] {
        assert_eq!(render(text, &context, Mode::Null).unwrap(), wanted, "{text}");
        assert!(render_value(text, &context, Mode::Null).unwrap().is_tainted(), "{text}");
    }
    let list = render_value("<+v.listed>", &context, Mode::Null).unwrap();
    assert_eq!(list.to_json(), json!([evil]));
    assert!(list.is_tainted());
    assert!(!render_value("<+env.name>", &context, Mode::Null).unwrap().is_tainted());
}

#[test]
fn placeholders_cannot_be_forged() {
    let forged = r#"${ngSecretManager.obtain("k", 5)}"#;
    let genuine = r#"${ngSecretManager.obtain("k", 123)}"#;
    let scope = MapScope::default()
        .with("forged", Value::text(forged))
        .with("genuine", Value::text(genuine))
        .with("outside", Value::tainted(genuine))
        .with("both", Value::text(format!("{genuine}{forged}")));
    let context = context(&scope);
    assert_eq!(render("<+genuine>", &context, Mode::Null).unwrap(), genuine);
    for text in [
        "<+forged>",
        "<+outside>",
        "<+both>",
        genuine,
        "x ${ngSecretManager.obtain(",
        "a <+genuine> ${ngSecretManager.obtain(\"k\", 123)}",
    ] {
        assert_eq!(render(text, &context, Mode::Null).unwrap_err().kind, Kind::ForgedSecret, "{text}");
        assert!(evaluate(text, &context).is_err(), "{text}");
    }
}

#[test]
fn splicing_takes_names_and_nothing_else() {
    let scope = MapScope::new(&json!({
        "a": {"b-c": {"d": 1}, "b": {"d": 2}, "b_0": 3, "k": {"n7": 4}},
        "dash": "b-c", "name": "b", "code": "b.d + 1", "post": "_0", "n": 7, "list": [1],
    }));
    let context = context(&scope);
    let render = |text: &str| render(text, &context, Mode::Null);
    assert_eq!(render("<+a.<+name>.d>").unwrap(), "2");
    assert_eq!(render("<+a.b<+post>>").unwrap(), "3");
    assert_eq!(render("<+a.k.n<+n>>").unwrap(), "4");
    assert_eq!(render("<+a.<+name><+post>>").unwrap(), "3");
    assert_eq!(render("<+a.<+code>>").unwrap(), "null");
    assert_eq!(render("<+a.<+list>>").unwrap(), "null");
    assert_eq!(render("<+a.<+nope>.d>").unwrap(), "null");
    assert_eq!(render(r#"<+"x.<+code>.y">"#).unwrap(), "x.b.d + 1.y");
    assert_eq!(render("<+a.<+dash>.d>").unwrap(), "1", "a dash that a value brings is no minus");
    assert_eq!(render("<+a[<+dash>].d>").unwrap(), "1");
}

#[test]
fn values_that_are_text_with_operators_stay_text() {
    let scope = MapScope::new(&json!({
        "major": "1", "minor": "10", "host": "h",
        "version": "<+major>.<+minor>", "url": "http://<+host>:8080/x", "pair": "<+major>-<+minor>", "date": "2024/<+minor>",
        "sum": "<+major> * <+minor>", "choice": "<+host> == 'h' ? 'yes' : 'no'", "plain": "Release <+major> - <+host>",
        "deep": {"x": ["<+version>"]},
    }));
    let context = context(&scope);
    for (text, wanted) in [
        ("<+version>", "1.10"),
        ("<+url>", "http://h:8080/x"),
        ("<+pair>", "1-10"),
        ("<+date>", "2024/10"),
        ("<+sum>", "10"),
        ("<+choice>", "yes"),
        ("<+plain>", "Release 1 - h"),
        ("<+deep.x[0]>", "1.10"),
        ("<+deep>", r#"{"x":["1.10"]}"#),
    ] {
        assert_eq!(render(text, &context, Mode::Null).unwrap(), wanted, "{text}");
    }
}

#[test]
fn a_value_built_on_a_missing_one_counts_as_missing_in_throw_mode() {
    let scope = MapScope::new(&json!({"v": {"image": "repo:<+v.tag>", "quoted": "<+'a' + \"<+v.tag>\">"}}));
    let context = context(&scope);
    assert_eq!(render("<+v.image>", &context, Mode::Null).unwrap(), "repo:null");
    assert_eq!(render("<+v.image>", &context, Mode::Keep).unwrap(), "<+v.image>");
    for text in ["<+v.image>", "x<+v.quoted>", "<+v.tag> <+v.image>"] {
        let error = render(text, &context, Mode::Throw).unwrap_err();
        assert!(matches!(&error.kind, Kind::Unresolved(paths) if paths[0] == "v.tag"), "{error:?}");
        assert!(render_value(text, &context, Mode::Throw).is_err());
    }
    let error = render("<+v.a> <+v.b>", &context, Mode::Throw).unwrap_err();
    assert_eq!(error.kind, Kind::Unresolved(vec!["v.a".into(), "v.b".into()]));
}

#[test]
fn self_reference_depth_and_growth_are_bounded() {
    let chain = |n: usize| {
        let entries = (0..n).map(|i| (format!("v{i}"), json!(format!("<+v{}>", i + 1))));
        let mut map: serde_json::Map<String, serde_json::Value> = entries.collect();
        map.insert(format!("v{n}"), json!("end"));
        MapScope::new(&serde_json::Value::Object(map))
    };
    let scope = chain(14);
    assert_eq!(render("<+v0>", &context(&scope), Mode::Null).unwrap(), "end");
    let scope = chain(30);
    assert_eq!(render("<+v0>", &context(&scope), Mode::Null).unwrap_err().kind, Kind::TooDeep);

    let scope = MapScope::new(&json!({"a": "<+b>", "b": "x<+a>"}));
    assert_eq!(render("<+a>", &context(&scope), Mode::Null).unwrap_err().kind, Kind::SelfReference);

    let entries = (0..13).map(|i| (format!("v{i}"), json!(format!("<+v{}>", i + 1).repeat(10))));
    let mut map: serde_json::Map<String, serde_json::Value> = entries.collect();
    map.insert("v13".into(), json!("x"));
    let scope = MapScope::new(&serde_json::Value::Object(map));
    assert_eq!(render("<+v0>", &context(&scope), Mode::Null).unwrap_err().kind, Kind::TooLarge);

    let scope = MapScope::new(&json!({"big": "a".repeat(5 << 20)}));
    let text = r#"<+big.replace("a", <+big>)>"#;
    assert_eq!(render(text, &context(&scope), Mode::Null).unwrap_err().kind, Kind::TooLarge);
    let text = "<+big>".repeat(20);
    assert_eq!(render(&text, &context(&scope), Mode::Null).unwrap_err().kind, Kind::TooLarge);
}

#[test]
fn deep_text_is_refused_and_long_text_is_not() {
    let scope = MapScope::new(&json!({"a": 1}));
    let context = context(&scope);
    for open in ["(", "[", "!", "-", "{1:", "1 ? ", "if (1) ", "a[", "\"\".x("] {
        let text = open.repeat(100_000);
        assert_eq!(evaluate(&text, &context).unwrap_err().kind, Kind::TooDeep, "{open}");
    }
    let sum = vec!["1"; 100_000].join(" + ");
    assert_eq!(evaluate(&sum, &context).unwrap(), Value::Int(100_000));
    let path = format!("<+a{}>", ".b".repeat(100_000));
    assert_eq!(render(&path, &context, Mode::Null).unwrap(), "null");
    let blocks = "<+a>".repeat(100_000);
    assert_eq!(render(&blocks, &context, Mode::Null).unwrap().len(), 100_000);
    let nested = format!("{}a{}", "<+".repeat(50), ">".repeat(50));
    assert_eq!(render(&nested, &context, Mode::Null).unwrap(), "1");
}

#[test]
fn references_name_paths_secrets_and_functors_without_values() {
    let found = |text: &str| {
        references(text)
            .unwrap()
            .into_iter()
            .map(|reference| {
                let target = match reference.target {
                    Target::Path(path) => path_text(&path),
                    Target::Secret(name) => format!("secret:{name}"),
                    Target::Functor(name, method) => format!("{name}.{method}()"),
                };
                let marks = [(reference.dynamic, "*"), (reference.optional, "?")];
                target + &marks.iter().filter(|mark| mark.0).map(|mark| mark.1).collect::<String>()
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (text, names) in [
        ("plain", ""),
        ("<+pipeline.variables.x>/<+env.name>", "pipeline.variables.x env.name"),
        (r#"<+secrets.getValue("org.pw")>"#, "secret:org.pw"),
        (r#"<+secrets.getValue("pw_<+env.name>")>"#, "secret:* env.name"),
        ("<+pipeline.stages.<+v.id>.output>", "v.id pipeline.stages*"),
        (r#"<+<+a.b> ?: "x">"#, "a.b?"),
        (r#"<+a.b == "x" ? c.d : e.f>"#, "a.b? c.d e.f"),
        (r#"<+json.select("x", <+body>)>"#, "json.select() body"),
        (r#"<+a.b.split(",")[<+n>]>"#, "a.b n"),
        ("<+a[<+n>].b>", "a* n"),
        ("<+) <+a.b>>", "a.b"),
        (r#"<+fileStore.getAsString("/p")>"#, "fileStore.getAsString()"),
    ] {
        assert_eq!(found(text), names, "{text}");
    }
    let text = "x <+a.b> y";
    assert_eq!(&text[references(text).unwrap()[0].span.clone()], "a.b");
}

#[test]
fn faults_point_at_their_place() {
    let fixture = Fixture::new();
    let context = context(&fixture);
    for (text, part) in [
        (r#"<+env.name> == prod"#, "prod"),
        (r#"<+env.name> == "a" && 1 + * 2"#, "*"),
        (r#"x <+<+env.name>.getClass()> y"#, "<+env.name>.getClass()"),
        (r"<+<+env.name> \> 1 + prod>", "prod"),
        ("a <+pipeline.variables.loop>", "pipeline.variables.loop"),
    ] {
        let error = if text.starts_with(['x', 'a']) {
            render(text, &context, Mode::Null).unwrap_err()
        } else {
            evaluate(text, &context).unwrap_err()
        };
        assert_eq!(&text[error.span.clone()], part, "{error:?}");
    }
}

#[test]
fn conditions_must_be_true_or_false() {
    let fixture = Fixture::new();
    let context = context(&fixture);
    assert_eq!(evaluate_bool("<+env.name> == 'prod'", &context), Ok(true));
    for text in ["<+env.name>", "1", "<+pipeline.variables.missing>"] {
        assert_eq!(evaluate_bool(text, &context).unwrap_err().kind, Kind::NotBoolean, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
        let fixture = Fixture::new();
        let context = context(&fixture);
        drop(render(&text, &context, Mode::Throw));
        drop(evaluate(&text, &context));
        drop(references(&text));
    }

    #[test]
    fn text_of_the_languages_pieces_never_panics(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("<+"), Just(">"), Just("\\>"), Just("env.name"), Just("pipeline.variables.imageTag"), Just("\""), Just("'"), Just("."),
                Just("("), Just(")"), Just("["), Just("]"), Just("{"), Just("}"), Just(":"), Just("?"), Just("?:"), Just("+"), Just("=="),
                Just("=~"), Just("!"), Just(" "), Just("1"), Just("2.5"), Just(","), Just(".split("), Just("json.select("), Just("not "), Just("/*"),
                Just("trigger.payload"), Just("\\"), Just("if ("), Just("ä"), Just("\u{FFFC}"), Just("\u{F8FF}"), Just("$.items[?(@.id)]"), Just("//"),
            ],
            0..24,
        )
    ) {
        let text = pieces.concat();
        let fixture = Fixture::new();
        let context = context(&fixture);
        if let Err(error) = render(&text, &context, Mode::Null) {
            prop_assert!(error.span.start <= error.span.end && error.span.end <= text.len(), "{error:?}");
            drop(error.caret(&text));
        }
        if let Err(error) = evaluate(&format!("<+{text}>"), &context) {
            drop(error.caret(&text));
        }
        drop(references(&text));
    }

    #[test]
    fn text_without_blocks_renders_to_itself(text in "[^<]{0,60}") {
        prop_assume!(!text.contains(PLACEHOLDER_HEAD));
        let scope = MapScope::default();
        prop_assert_eq!(render(&text, &context(&scope), Mode::Throw).unwrap(), text);
    }

    #[test]
    fn json_paths_and_xml_never_panic(path in "[a-z$.\\[\\]*?@()'=<>!&|0-9:, -]{0,30}", doc in "[<>/a-z&;!\\[\\]=' -]{0,40}") {
        drop(crate::jsonpath::select(&path, &Value::from(json!({"a": [1, {"b": [2]}]}))));
        drop(crate::xml::select(&path, &doc));
        drop(crate::xml::select(&path, "<a><b c='1'>x</b></a>"));
    }
}
