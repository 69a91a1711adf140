//! Policy steps and policies of pipelines, over real HTTP.

mod client_support;
mod support;

use client_support::{Agent, Client, custom, find_step, noop, success};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use support::TestManager;

const WINDOW: &str = include_str!("../../deploy/examples/policies/prod_change_window.yaml");

async fn manager() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    (manager, client)
}

fn policy_step(id: &str, set: &str, payload: &str, more: &str) -> String {
    let mut text = format!(
        "- step:\n    identifier: {id}\n    name: {id}\n    type: Policy\n    spec:\n      policySets: [{set}]\n      type: Custom\n      policySpec:\n        payload: |\n          {payload}\n"
    );
    for line in more.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

fn policy(id: &str, rego: &str) -> String {
    let mut text = format!("policy:\n  identifier: {id}\n  rego: |\n");
    for line in rego.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

const ABORT: &str =
    "failureStrategies: [{onFailure: {errors: [PolicyEvaluationFailure], action: {type: Abort}}}]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_window_aborts_and_an_open_one_lets_go_on() {
    let (manager, client) = manager().await;
    client.apply(WINDOW).await;
    let payload = r#"{"environment": "prod", "currentTime": "<+pipeline.variables.time>", "dayOfWeek": "<+pipeline.variables.day>", "service": "pay"}"#;
    let head = "variables:\n  - {name: time, type: String, value: <+input>}\n  - {name: day, type: String, value: <+input>}\n";
    let line = "- step:\n    identifier: after\n    name: after\n    type: Noop\n    spec: {line: 'window <+execution.steps.window.output.status>'}\n";
    client
        .apply(&custom("p", head, &(policy_step("window", "prod_change_window", payload, ABORT) + line)))
        .await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    let run = |time: &'static str, day: &'static str| {
        let client = client.clone();
        async move {
            let inputs = json!({"inputs": {"time": time, "day": day}});
            let (status, started) = client.start("p", inputs).await;
            assert_eq!(status, StatusCode::CREATED, "{started}");
            client.ended(started["executionId"].as_str().unwrap()).await
        }
    };
    let closed = run("2026-11-20T12:00:00.000Z", "FRIDAY").await;
    assert_eq!(closed["status"], "Aborted", "{closed:#}");
    let step = find_step(&closed, "window").unwrap();
    assert_eq!(step["failure"]["code"], "POL-001", "{step:#}");
    assert_eq!(step["failure"]["class"], "PolicyEvaluationFailure");
    let message = step["failure"]["message"].as_str().unwrap();
    assert!(
        message.contains("prod_change_window/prod_change_window: pay: outside change window (now FRIDAY"),
        "{message}"
    );
    let details = &step["outputs"]["policySetDetails"];
    let details = details.get("value").unwrap_or(details);
    assert_eq!(
        details["prod_change_window"]["policyDetails"]["prod_change_window"]["status"], "error",
        "{step:#}"
    );
    assert_eq!(agent.names(), [""; 0]);
    let open = run("2026-11-19T15:59:59.999Z", "THURSDAY").await;
    assert_eq!(open["status"], "Success", "{open:#}");
    let taken = agent.stop().await;
    assert_eq!(taken.len(), 1);
    let proto::task::StepSpec::Noop(spec) = &taken[0].task.step.spec else { panic!() };
    assert_eq!(spec.line, "window pass");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_go_on_and_the_clock_is_the_managers() {
    let (manager, client) = manager().await;
    let rego = "package now\ndeny contains sprintf(\"%d\", [time.now_ns()]) if true";
    client.apply(&policy("now", rego)).await;
    client.apply("policySet: {identifier: now, policies: [{identifier: now, severity: warning}]}").await;
    client.apply(&custom("p", "", &policy_step("ask", "now", "{}", ""))).await;
    manager.clock.shift(std::time::Duration::from_secs(86_400 * 365));
    let view = client.ended(&client.run("p").await).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    let step = find_step(&view, "ask").unwrap();
    let notice = step["notices"][0].as_str().unwrap();
    let ns: u64 = notice.strip_prefix("policy warning: now/now: ").unwrap().parse().unwrap();
    assert_eq!(Some(ns / 1_000_000), step["startedAt"].as_u64(), "{step:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_judged_fails_the_step_and_says_why() {
    let (_manager, client) = manager().await;
    client.apply(&policy("hard", "package h\ndeny contains \"no\" if input.x.y.z == 1 / input.zero")).await;
    client.apply("policySet: {identifier: hard, policies: [{identifier: hard}]}").await;
    let cases = [
        ("unknown", policy_step("ask", "hart", "{}", ""), "POL-003", "`hart` does not exist; known are hard"),
        ("json", policy_step("ask", "hard", "{\"x\": \"<+pipeline.name>\" 1}", ""), "POL-004", "is no JSON"),
        (
            "fails",
            policy_step("ask", "hard", "{\"x\": {\"y\": {\"z\": 1}}, \"zero\": 0}", ""),
            "POL-006",
            "divide by zero",
        ),
        (
            "large",
            policy_step(
                "ask",
                "hard",
                &format!("{{\"x\": \"{}\"}}", "<+pipeline.variables.v>".repeat(3)),
                "",
            ),
            "POL-002",
            "at most 1048576 bytes",
        ),
    ];
    let head = format!("variables:\n  - {{name: v, type: String, value: {}}}\n", "x".repeat(400_000));
    for (id, step, code, wanted) in cases {
        client.apply(&custom(id, &head, &(step + &noop("never", "")))).await;
        let view = client.ended(&client.run(id).await).await;
        assert_eq!(view["status"], "Failed", "{id}");
        let failure = &find_step(&view, "ask").unwrap()["failure"];
        assert_eq!(failure["code"], code, "{failure:#}");
        assert_eq!(failure["class"], "PolicyEvaluationFailure", "{failure:#}");
        assert!(failure["message"].as_str().unwrap().contains(wanted), "{failure:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_cannot_be_read_is_refused_with_file_line_and_column() {
    let (_manager, client) = manager().await;
    let text = format!("# a comment\n{}", policy("bad", "package a\n\ndeny contains msg if {\n  msg :=\n}"));
    let (status, body) = client.try_apply("gates.yaml", &text).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let fault = &body["error"]["faults"][0];
    assert_eq!(
        (fault["source"].as_str(), fault["line"].as_u64(), fault["column"].as_u64()),
        (Some("gates.yaml"), Some(8), Some(11)),
        "{fault}"
    );
    assert_eq!(fault["path"], "policy.rego");
    let (status, body) =
        client.try_apply("gates.yaml", "policy: {identifier: b, rego: \"package a\\nallow := 1\"}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("no rule `deny`"), "{body}");
    assert_eq!(client.get("/entities?kind=policy").await.as_array().map(Vec::len), Some(0));
    let v0 = client.apply(&policy("old", "package a\ndeny[msg] { msg := input.x }")).await;
    assert_eq!(v0["notices"][0]["code"], "policy.rego-v0", "{v0}");
    let v1: Value = client.apply(&policy("new", "package a\ndeny contains msg if msg := input.x")).await;
    assert_eq!(v1["notices"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_of_pipelines_refuse_a_run_before_it_starts() {
    let (_manager, client) = manager().await;
    let rego = r#"package runs
deny contains sprintf("%s may not go to %s", [input.metadata.user.identifier, v.value]) if {
  some v in input.pipeline.variables
  v.name == "env"
  v.value == "prod"
}"#;
    client.apply(&policy("runs", rego)).await;
    client.apply("policySet: {identifier: runs, type: Pipeline, policies: [{identifier: runs}]}").await;
    let head = "variables:\n  - {name: env, type: String, value: <+input>}\n";
    client
        .apply(&custom("p", head, &policy_step("none", "runs", "{}", "when: {stageStatus: Failure}")))
        .await;
    let (status, body) = client.start("p", json!({"inputs": {"env": "prod"}})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("POL-001") && message.contains("admin may not go to prod"), "{message}");
    assert_eq!(client.get("/executions").await, json!([]));
    let (status, started) = client.start("p", json!({"inputs": {"env": "dev"}})).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    client.ended(started["executionId"].as_str().unwrap()).await;
    client.apply("policySet: {identifier: runs, type: Pipeline, policies: [{identifier: runs, severity: warning}]}").await;
    let (status, started) = client.start("p", json!({"inputs": {"env": "prod"}})).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    assert!(started["warnings"][0]["message"].as_str().unwrap().contains("may not go to prod"), "{started}");
    let (status, body) = client
        .try_apply(
            "s.yaml",
            "policySet: {identifier: s, type: Pipeline, action: onsave, policies: [{identifier: runs}]}",
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("known are onstep, onrun"), "{body}");
}
