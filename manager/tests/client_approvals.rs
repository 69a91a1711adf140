//! Approvals by four users over HTTP: who may decide, and what the execution keeps of it.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_support;
mod support;

use client_support::{Client, custom, find_step};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use support::TestManager;

async fn user(admin: &Client, email: &str, groups: &[&str]) -> Client {
    let body = json!({ "name": email, "groups": groups });
    assert_eq!(admin.call(Method::POST, "/users", body).await.0, StatusCode::CREATED);
    let body = json!({ "user": email, "role": "executor" });
    let (status, body) = admin.call(Method::POST, "/apikeys", body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    admin.with_key(body["apiKey"].as_str().unwrap())
}

const GATE: &str = "- step:
    identifier: gate
    name: gate
    type: HarnessApproval
    timeout: 1d
    spec:
      approvalMessage: \"Deploy <+pipeline.variables.tag>?\"
      isAutoRejectEnabled: true
      approvers: {userGroups: [qa, ops], minimumCount: 2, disallowPipelineExecutor: true}
      approverInputs:
        - {name: ticket, required: true}
        - {name: zone, defaultValue: eu}
- step: {identifier: after, name: after, type: Wait, timeout: 1d, spec: {duration: 1s}}
";

async fn waiting(client: &Client, execution: &str) -> Value {
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let all = client.get("/approvals").await;
        if let Some(one) = all.as_array().unwrap().iter().find(|one| one["executionId"] == execution) {
            return one.clone();
        }
        assert!(tokio::time::Instant::now() < limit, "nothing waits: {all}");
        let view = client.get(&format!("/executions/{execution}")).await;
        client.get(&format!("/executions/{execution}?since={}&wait_ms=1000", view["version"])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_users_decide_and_the_execution_keeps_it() {
    let manager = Arc::new(TestManager::start().await);
    let admin = Client::of(&manager);
    admin.apply("userGroup:\n  identifier: qa\n  name: QA\n  users: [ann@x.org, run@x.org]\n").await;
    let ann = user(&admin, "ann@x.org", &[]).await;
    let bob = user(&admin, "bob@x.org", &["ops"]).await;
    let run = user(&admin, "run@x.org", &[]).await;
    let eve = user(&admin, "eve@x.org", &["sales"]).await;
    admin.apply(&custom("p", "variables: [{name: tag, type: String, value: v2}]", GATE)).await;

    let older = run.run("p").await;
    let old = waiting(&run, &older).await;
    let execution = run.run("p").await;
    let asked = waiting(&ann, &execution).await;
    assert_eq!((&asked["message"], &asked["status"]), (&json!("Deploy v2?"), &json!("WAITING")));
    assert_eq!(
        asked["approverInputs"][1],
        json!({ "name": "zone", "required": false, "several": false, "defaultValue": "eu" })
    );
    let path = format!("/approvals/{}/approve", asked["id"].as_str().unwrap());
    let body = json!({ "inputs": { "ticket": "CHG-1" }, "comments": "fine" });
    for (client, part) in [
        (&run, "started this execution"),
        (&eve, "none of the user groups qa, ops"),
        (&admin, "belongs to no user"),
    ] {
        let (status, refused) = client.call(Method::POST, &path, body.clone()).await;
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
        assert!(message.contains(part), "{refused}");
    }
    let (status, refused) = ann.call(Method::POST, &path, json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let (status, shown) = ann.call(Method::POST, &path, body.clone()).await;
    assert_eq!((status, &shown["status"]), (StatusCode::OK, &json!("WAITING")), "{shown}");
    assert_eq!(ann.call(Method::POST, &path, body).await.0, StatusCode::FORBIDDEN, "nobody counts twice");
    // The second one by Harness' own path.
    let harness = format!("{}/gateway/pipeline/api/approvals/{}", manager.url, asked["id"].as_str().unwrap());
    let key = bob.request(Method::GET, "/whoami").build().unwrap().headers()["x-api-key"].clone();
    let activity = json!({ "action": "APPROVE", "comments": "go",
        "approverInputs": [{ "name": "ticket", "value": "CHG-2" }, { "name": "zone", "value": null }] });
    let reply = manager
        .http
        .post(format!("{harness}/harness/activity"))
        .header("x-api-key", key.clone())
        .body(activity.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(
        (&reply["status"], &reply["data"]["status"]),
        (&json!("SUCCESS"), &json!("APPROVED")),
        "{reply}"
    );
    let got = manager.http.get(&harness).header("x-api-key", key).send().await.unwrap();
    assert_eq!(got.json::<Value>().await.unwrap()["data"]["approvalMessage"], "Deploy v2?");

    let view = admin.ended(&execution).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    let gate = find_step(&view, "gate").unwrap();
    assert_eq!(gate["outputs"]["approverInputs"], json!({ "ticket": "CHG-2", "zone": "" }));
    let activities = &gate["outputs"]["approvalActivities"];
    assert_eq!(activities[0]["user"]["email"], "ann@x.org");
    assert_eq!(activities[1]["comments"], "go");
    assert!(activities[1]["approvedAt"].as_u64().is_some());
    // The older execution that still waited at this step was rejected by it.
    let old_view = admin.ended(&older).await;
    assert_eq!(old_view["status"], "ApprovalRejected", "{old_view:#}");
    let decided = admin.get(&format!("/approvals/{}", old["id"].as_str().unwrap())).await;
    assert_eq!(decided["status"], "REJECTED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_are_not_required_may_be_left_out_and_required_ones_are_asked_for_by_name() {
    let manager = Arc::new(TestManager::start().await);
    let admin = Client::of(&manager);
    let ann = user(&admin, "ann@x.org", &["ops"]).await;
    let gate = GATE.replace(
        "approvers: {userGroups: [qa, ops], minimumCount: 2, disallowPipelineExecutor: true}",
        "approvers: {userGroups: [ops], minimumCount: 1}",
    );
    let gate = gate.replace(
        "- {name: zone, defaultValue: eu}",
        "- {name: zone, defaultValue: eu}\n        - {name: note, required: false}\n        - {name: remark}",
    );
    assert!(gate.contains("minimumCount: 1") && gate.contains("remark"), "{gate}");
    admin.apply(&custom("p", "variables: [{name: tag, type: String, value: v2}]", &gate)).await;
    let execution = ann.run("p").await;
    let asked = waiting(&ann, &execution).await;
    let path = format!("/approvals/{}/approve", asked["id"].as_str().unwrap());
    for inputs in [json!({}), json!({ "ticket": "" }), json!({ "ticket": null }), json!({ "note": "n" })] {
        let (status, refused) = ann.call(Method::POST, &path, json!({ "inputs": inputs })).await;
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{inputs}: {refused}");
        assert!(message.contains("`ticket`") && !message.contains("note"), "{inputs}: {refused}");
    }
    let (status, refused) =
        ann.call(Method::POST, &path, json!({ "inputs": { "ticket": "CHG-1", "remarks": "x" } })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("`remarks`"), "{refused}");
    let waits = ann.get(&format!("/approvals/{}", asked["id"].as_str().unwrap())).await;
    assert_eq!(waits["status"], "WAITING", "a refusal decides nothing: {waits}");

    let (status, shown) = ann.call(Method::POST, &path, json!({ "inputs": { "ticket": "CHG-1" } })).await;
    assert_eq!((status, &shown["status"]), (StatusCode::OK, &json!("APPROVED")), "{shown}");
    let view = admin.ended(&execution).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(
        find_step(&view, "gate").unwrap()["outputs"]["approverInputs"],
        json!({ "ticket": "CHG-1", "zone": "eu", "note": "", "remark": "" })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_nobody_could_open_is_told_of_before_the_run_gets_there() {
    let manager = Arc::new(TestManager::start().await);
    let admin = Client::of(&manager);
    admin.apply("userGroup:\n  identifier: qa\n  name: QA\n  users: [ann@x.org]\n").await;
    let steps = "- step: {identifier: w, name: w, type: Wait, timeout: 1d, spec: {duration: 1d}}
- step: {identifier: gate, name: gate, type: HarnessApproval, timeout: 1d, spec: {approvalMessage: m, approvers: {userGroups: [qa, qaa], minimumCount: 1}}}
- step: {identifier: rule, name: rule, type: Policy, timeout: 1m, spec: {policySets: [nowhere], type: Custom, policySpec: {payload: '{}'}}}
- step: {identifier: open, name: open, type: HarnessApproval, timeout: 1d, spec: {approvalMessage: m, approvers: {userGroups: [qa, <+pipeline.name>], minimumCount: 1}}}
";
    admin.apply(&custom("p", "", steps)).await;
    let (status, started) = admin.start("p", Value::Null).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let warnings = started["warnings"].as_array().unwrap();
    let of = |code: &str| warnings.iter().filter(|w| w["code"] == code).collect::<Vec<_>>();
    let (groups, sets) = (of("approval.no-group"), of("policy.no-set"));
    assert_eq!((groups.len(), sets.len()), (1, 1), "{started:#}");
    let message = groups[0]["message"].as_str().unwrap();
    assert!(message.contains("qaa of the approval `gate`"), "{message}");
    assert!(sets[0]["message"].as_str().unwrap().contains("nowhere"), "{sets:?}");
    let id = started["executionId"].as_str().unwrap();
    admin.call(Method::POST, &format!("/executions/{id}/abort"), json!({})).await;
    admin.ended(id).await;
}
