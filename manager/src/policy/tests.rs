use super::*;
use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::model::policy::{SetAction, Severity};
use serde_json::{Value as Json, json};
use std::time::Instant;

const WINDOW: &str = include_str!("../../../deploy/examples/policies/prod_change_window.rego");
const WINDOW_YAML: &str = include_str!("../../../deploy/examples/policies/prod_change_window.yaml");
const CLOCK_WINDOW: &str = include_str!("../../../deploy/examples/policies/clock_change_window.rego");

/// 2026-11-16 is a Monday.
const MONDAY: i64 = 1_794_787_200_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn deny_at(rego: &str, input: &Json, at_ms: i64) -> Result<Vec<String>, EvaluationError> {
    let limits = Limits::default();
    let evaluator = Evaluator::new(rego, &limits).map_err(EvaluationError::Syntax)?;
    evaluator.deny(input, at_ms * 1_000_000, Instant::now() + limits.time)
}

fn deny(rego: &str, input: &Json) -> Vec<String> {
    deny_at(rego, input, MONDAY).unwrap()
}

#[test]
fn both_syntaxes_are_read_and_told_apart() {
    let limits = Limits::default();
    let v1 = "package a\n\ndeny contains msg if {\n\tinput.x == 1\n\tmsg := \"one\"\n}\n";
    let v0 = "package a\n\ndeny[msg] {\n\tinput.x == 1\n\tmsg := \"one\"\n}\n";
    let imported = "package a\nimport rego.v1\ndeny contains \"one\" if input.x == 1\n";
    let future = "package a\nimport future.keywords\ndeny[msg] { input.x in [1, 2]; msg := \"one\" }\n";
    for (rego, dialect) in
        [(v1, Dialect::V1), (v0, Dialect::V0), (imported, Dialect::V1), (future, Dialect::V0)]
    {
        assert_eq!(check(rego, &limits), Ok(dialect), "{rego}");
        assert_eq!(deny(rego, &json!({"x": 1})), ["one"], "{rego}");
        assert_eq!(deny(rego, &json!({"x": 3})), [""; 0], "{rego}");
    }
}

#[test]
fn packages_with_any_name_are_asked() {
    for package in ["a.b.c", "a[\"1.0.0\"].b", "graph[\"x-y\"]"] {
        let rego = format!("package {package}\ndeny contains \"no\" if input.x\n");
        assert_eq!(deny(&rego, &json!({"x": true})), ["no"], "{package}");
    }
}

#[test]
fn a_text_that_is_no_policy_is_refused_with_its_place() {
    let limits = Limits::default();
    let fault = check("package a\n\ndeny contains msg if {\n  msg :=\n}\n", &limits).unwrap_err();
    assert_eq!((fault.line, fault.column), (4, 7), "{fault}");
    let fault = check("deny contains 1", &limits).unwrap_err();
    assert!(fault.line == 1 && fault.message.contains("package"), "{fault}");
    let fault = check("package a\nallow := true\n", &limits).unwrap_err();
    assert!(fault.message.contains("no rule `deny`"), "{fault}");
    let fault = check(&format!("package a\n{}", "# long\n".repeat(50_000)), &limits).unwrap_err();
    assert!(fault.message.contains("at most 262144"), "{fault}");
    let rules: String = (0..1001).map(|n| format!("r{n} := {n}\n")).collect();
    let fault = check(&format!("package a\n{rules}deny contains 1 if r0 == 1\n"), &limits).unwrap_err();
    assert!(fault.message.contains("at most 1000"), "{fault}");
}

#[tokio::test]
async fn nested_text_ends_neither_the_stack_nor_the_day() {
    let judges = patient();
    let text = |open: &str, close: &str, levels: usize| {
        format!("package a\ndeny contains {}1{}\n", open.repeat(levels), close.repeat(levels))
    };
    for (open, close) in
        [("[\n", "]\n"), ("{\n", "}\n"), ("(\n", ")\n"), ("{\"a\":\n", "}\n"), ("{x|x:=\n", "}\n")]
    {
        let deep = judges.check(text(open, close, 5000)).await.unwrap().unwrap_err();
        assert!(deep.message.contains("more than 16 brackets") && deep.line > 10, "{deep}");
        assert_eq!(judges.check(text(open, close, 8)).await.unwrap(), Ok(Dialect::V1), "{open}");
    }
    let signs = judges.check(text("-\n", "", 9000)).await.unwrap().unwrap_err();
    assert!(signs.message.contains("more than 8000 signs"), "{signs}");
    let sum = text("1 +\n", "", 7900);
    assert_eq!(judges.check(sum.clone()).await.unwrap(), Ok(Dialect::V1));
    let verdict = judges.judge(asked(&sum, Severity::Error), json!({}), 0).await.unwrap();
    assert_eq!(verdict.lines(Status::Error), ["s/p: 7901"]);
    // What stands in texts and comments does not count.
    let quoted = format!(
        "package a\n# {0}\ndeny contains \"{0}\\\"[\" if true\ndeny contains `{0}\n`",
        "[".repeat(50)
    );
    assert_eq!(judges.check(quoted).await.unwrap(), Ok(Dialect::V1));
}

#[test]
fn every_shape_of_deny_counts() {
    assert_eq!(deny("package a\ndeny := true", &json!({})), ["denied"]);
    assert_eq!(deny("package a\ndeny := false", &json!({})), [""; 0]);
    assert_eq!(deny("package a\ndeny := [\"x\", \"y\"]", &json!({})), ["x", "y"]);
    assert_eq!(deny("package a\ndeny contains {\"msg\": \"x\"} if true", &json!({})), ["{\"msg\":\"x\"}"]);
    assert_eq!(deny("package a\ndeny := \"because\"", &json!({})), ["because"]);
    let many = deny("package a\ndeny contains x if x := numbers.range(1, 150)[_]", &json!({}));
    assert_eq!((many.len(), many.last().map(String::as_str)), (101, Some("… and 50 more")));
}

#[test]
fn a_policy_that_fails_is_violated() {
    for (rego, wanted) in [
        ("package a\ndeny contains 1 / input.zero", "divide by zero"),
        ("package a\ndeny contains msg if msg := no.such(1)", "could not find function"),
        (
            "package a\np := 1 if input.zero == 0\np := 2 if input.zero == 0\ndeny contains \"x\" if p > 0",
            "conflict",
        ),
        ("package a\np if q\nq if p\ndeny contains \"x\" if p", "recursion"),
    ] {
        let error = deny_at(rego, &json!({"zero": 0}), MONDAY).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn nothing_outside_of_the_input_can_be_read() {
    for call in [
        "http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"})",
        "opa.runtime()",
        "rand.intn(\"x\", 9)",
        "uuid.rfc4122(\"x\")",
        "net.lookup_ip_addr(\"localhost\")",
    ] {
        let rego = format!("package a\ndeny contains msg if msg := {call}\n");
        let error = deny_at(&rego, &json!({}), MONDAY).unwrap_err().to_string();
        assert!(
            error.contains("could not find function") || error.contains("not allowed"),
            "{call}: {error}"
        );
    }
}

#[test]
fn the_clock_is_the_one_of_the_execution() {
    let rego = "package a\ndeny contains msg if msg := sprintf(\"%d %s\", [time.now_ns(), time.weekday(time.now_ns())])";
    assert_eq!(deny_at(rego, &json!({}), MONDAY).unwrap(), ["1794787200000000000 Monday"]);
}

#[test]
fn functions_work_as_the_interpreters_own() {
    let rego = r#"package a
deny contains concat(",", ["a", "b"])
deny contains sprintf("%05d|%s|%v", [42, "x", [1, "y"]])
deny contains replace("aXbX", "X", "--")
deny contains upper(trim_space(" q "))
deny contains json.marshal({"k": [1]})
deny contains substring("hello", 1, 3)
deny contains base64.encode("hi")
deny contains sprintf("%v", [numbers.range_step(1, 9, 4)])
deny contains strings.replace_n({"<": "&lt;"}, "a<b")
deny contains sprintf("%v", [object.union({"a": 1}, {"b": 2})])
deny contains "undefined stays undefined" if not substring(input.missing, 0, 1)
deny contains msg if { some part in split("p,q", ","); msg := concat("", ["part ", part]) }
"#;
    let found = deny(rego, &json!({}));
    for wanted in [
        "a,b",
        "00042|x|[1, \"y\"]",
        "a--b--",
        "Q",
        "{\"k\":[1]}",
        "ell",
        "aGk=",
        "[1, 5, 9]",
        "a&lt;b",
        "{\"a\": 1, \"b\": 2}",
        "undefined stays undefined",
        "part p",
        "part q",
    ] {
        assert!(found.iter().any(|message| message == wanted), "{wanted}: {found:?}");
    }
    assert_eq!(found.len(), 13);
}

#[test]
fn what_grows_without_end_is_refused_at_once() {
    let doubling: String = (1..60).map(|n| format!("s{n} := concat(\"\", [s{0}, s{0}])\n", n - 1)).collect();
    let lists: String = (1..60).map(|n| format!("l{n} := [l{0}, l{0}]\n", n - 1)).collect();
    let replaces: String = (1..12).map(|n| format!("r{n} := replace(r{0}, \"a\", r{0})\n", n - 1)).collect();
    for rego in [
        "deny contains x if x := numbers.range(1, 1000000000000)[_]".to_owned(),
        "deny contains x if x := numbers.range_step(1, 9000000000000000000, 2)[_]".to_owned(),
        "deny contains sprintf(\"%02000000000d\", [1])".to_owned(),
        "deny contains sprintf(\"%.2000000000f\", [1.5])".to_owned(),
        format!("s0 := \"abc\"\n{doubling}deny contains s59\n"),
        format!("l0 := [\"abc\"]\n{lists}deny contains json.marshal(l59)\n"),
        format!("l0 := [\"abc\"]\n{lists}deny contains sprintf(\"%v\", [l59])\n"),
        format!("r0 := \"aa\"\n{replaces}deny contains r11\n"),
        "deny contains x if { some n in numbers.range(1, 100000); x := upper(concat(\"\", [input.big, sprintf(\"%d\", [n])])) }".to_owned(),
    ] {
        let input = json!({"big": "x".repeat(100_000)});
        let error = deny_at(&format!("package a\n{rego}"), &input, MONDAY).unwrap_err();
        assert!(error.to_string().contains("would make too much"), "{rego}: {error}");
    }
}

/// For what is not about time: a loaded machine takes its own.
fn patient() -> Judges {
    Judges::new(Limits { time: Duration::from_secs(60), ..Limits::default() })
}

fn asked(rego: &str, severity: Severity) -> Vec<Asked> {
    let policies = vec![AskedPolicy { policy: "p".to_owned(), severity, rego: rego.to_owned() }];
    vec![Asked { set: "s".to_owned(), policies }]
}

#[tokio::test]
async fn an_endless_rule_ends_in_time() {
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    let judges = Judges::new(limits);
    let rego =
        "package a\nr := numbers.range(1, 3000)\ndeny contains x if { x := r[_] + r[_] + r[_]; x < 0 }";
    let verdict = judges.judge(asked(rego, Severity::Error), json!({}), 0).await.unwrap();
    assert_eq!(verdict.status, Status::Error);
    assert!(verdict.lines(Status::Error)[0].contains("ended after 0.3 s"), "{verdict:?}");
    assert!(verdict.gave_no_answer());
    // The places are free again.
    for _ in 0..3 {
        let verdict = judges.judge(asked("package a\ndeny := false", Severity::Error), json!({}), 0).await;
        assert_eq!(verdict.unwrap().status, Status::Pass);
    }
}

#[tokio::test]
async fn a_large_input_is_refused_before_it_is_read() {
    let input = json!({"blob": "x".repeat(10 * 1024 * 1024)});
    let judge = async |input: serde_json::Value| {
        Judges::default().judge(asked("package a\ndeny := false", Severity::Error), input, 0).await
    };
    assert_eq!(judge(input).await, Err(JudgeError::TooLarge { limit: 1_048_576 }));
    // The text with its quotes is just as long as it may be, and one longer.
    assert!(judge(json!("x".repeat(1_048_574))).await.is_ok());
    assert_eq!(judge(json!("x".repeat(1_048_575))).await, Err(JudgeError::TooLarge { limit: 1_048_576 }));
}

#[tokio::test]
async fn rules_that_ask_each_other_have_room() {
    let chain: String = (1..990).map(|n| format!("r{n} := r{} + 1\n", n - 1)).collect();
    let rego = format!("package a\nr0 := 0\n{chain}deny contains sprintf(\"%d\", [r989])\n");
    let verdict = patient().judge(asked(&rego, Severity::Warning), json!({}), 0).await.unwrap();
    assert_eq!(verdict.lines(Status::Warning), ["s/p: 989"]);
}

fn snapshot(yaml: &str) -> Snapshot {
    let entities = parse_entities("test.yaml", yaml).unwrap();
    Snapshot { entities: entities.into_iter().map(CatalogEntity::from).collect(), secrets: Vec::new() }
}

const SETS: &str = "
policy: {identifier: hard, rego: 'package a\n\n\n  deny contains \"hard no\" if input.hard'}
---
policy: {identifier: soft, rego: 'package b\n\n\n  deny contains \"soft no\" if input.soft'}
---
policySet: {identifier: both, policies: [{identifier: hard, severity: error}, {identifier: soft, severity: warning}]}
---
policySet: {identifier: off, enabled: false, policies: [{identifier: hard}]}
---
policySet: {identifier: dangling, policies: [{identifier: gone}]}
---
policySet: {identifier: runs, type: Pipeline, action: onrun, policies: [{identifier: hard}]}
---
policySet: {identifier: both, orgIdentifier: o, projectIdentifier: p, policies: [{identifier: soft}]}
";

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_worst_counts_and_details_say_who_said_what() {
    let catalog = snapshot(SETS);
    let ask = |sets: &[&str], input: Json| {
        judge(&select(&catalog, "", &names(sets)).unwrap(), &input, 0, &Limits::default())
    };
    assert_eq!(ask(&["both"], json!({})).status, Status::Pass);
    assert_eq!(ask(&["both"], json!({"soft": true})).status, Status::Warning);
    let verdict = ask(&["both", "off"], json!({"soft": true, "hard": true}));
    assert_eq!(verdict.status, Status::Error);
    assert_eq!(
        verdict.details(),
        json!({
            "both": {"status": "error", "policyDetails": {
                "hard": {"status": "error", "denyMessages": ["hard no"]},
                "soft": {"status": "warning", "denyMessages": ["soft no"]},
            }},
            "off": {"status": "pass", "policyDetails": {}},
        })
    );
    assert_eq!(verdict.lines(Status::Error), ["both/hard: hard no"]);
}

#[test]
fn sets_are_found_by_exact_name_and_scope_only() {
    let catalog = snapshot(SETS);
    let unknown = select(&catalog, "", &names(&["bot"])).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the policy set `bot` does not exist; known are both, dangling, off, runs"
    );
    assert!(matches!(select(&catalog, "", &names(&["Both"])), Err(SelectError::UnknownSet { .. })));
    let dangling = select(&catalog, "", &names(&["dangling"])).unwrap_err();
    assert_eq!(
        dangling.to_string(),
        "the policy `gone` of the set `dangling` does not exist; known are hard, soft"
    );
    let own = select(&catalog, "o/p", &names(&["both", "account.both"])).unwrap();
    assert_eq!(
        own.iter().map(|set| (set.set.as_str(), set.policies.len())).collect::<Vec<_>>(),
        [("both", 1), ("account.both", 2)]
    );
    assert!(select(&catalog, "o/other", &names(&["org.both"])).is_ok_and(|sets| sets[0].policies.len() == 2));
    let runs = select_for(&catalog, "o/p", SetAction::OnRun).unwrap();
    assert_eq!(runs.iter().map(|set| set.set.as_str()).collect::<Vec<_>>(), ["runs"]);
}

/// Offsets from Monday midnight UTC at the edges of the window, and whether changes are allowed.
const EDGES: [(i64, bool); 14] = [
    (10 * HOUR - 1, false),
    (10 * HOUR, true),
    (16 * HOUR - 1, true),
    (16 * HOUR, false),
    (DAY, false),
    (DAY + 12 * HOUR, true),
    (2 * DAY + 10 * HOUR, true),
    (3 * DAY + 10 * HOUR - 1, false),
    (3 * DAY + 16 * HOUR - 1, true),
    (3 * DAY + 16 * HOUR, false),
    (4 * DAY + 10 * HOUR, false),
    (4 * DAY + 12 * HOUR, false),
    (5 * DAY + 12 * HOUR, false),
    (6 * DAY + 12 * HOUR, false),
];

#[test]
fn the_change_window_opens_and_closes_to_the_millisecond() {
    let days = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
    for (offset, open) in EDGES {
        let (day, rest) = (offset / DAY, offset % DAY);
        let (hour, minute) = (rest / HOUR, rest % HOUR / 60_000);
        let (second, ms) = (rest % 60_000 / 1000, rest % 1000);
        // Both forms that a pipeline may write.
        for zone in ["Z", "[UTC]"] {
            let time = format!("2026-11-{}T{hour:02}:{minute:02}:{second:02}.{ms:03}{zone}", 16 + day);
            let day = days[usize::try_from(day).unwrap()];
            let input =
                json!({"environment": "prod", "currentTime": time, "dayOfWeek": day, "service": "pay"});
            let messages = deny(WINDOW, &input);
            assert_eq!(messages.is_empty(), open, "{day} {time}: {messages:?}");
        }
        let input = json!({"environment": "prod", "service": "pay"});
        let messages = deny_at(CLOCK_WINDOW, &input, MONDAY + offset).unwrap();
        assert_eq!(messages.is_empty(), open, "{offset}: {messages:?}");
    }
    let friday = json!({"environment": "prod", "currentTime": "2026-11-20T12:00:00Z", "dayOfWeek": "FRIDAY", "service": "pay"});
    assert_eq!(deny(WINDOW, &friday), ["pay: outside change window (now FRIDAY 2026-11-20T12:00:00Z)"]);
    let staging = json!({"environment": "staging", "currentTime": "2026-11-20T12:00:00Z", "dayOfWeek": "FRIDAY", "service": "pay"});
    assert_eq!(deny(WINDOW, &staging), [""; 0]);
}

#[test]
fn the_example_file_holds_the_same_text() {
    let catalog = snapshot(WINDOW_YAML);
    let sets = select(&catalog, "", &names(&["prod_change_window"])).unwrap();
    assert_eq!(sets[0].policies[0].rego, WINDOW);
    assert_eq!(sets[0].policies[0].severity, Severity::Error);
}
