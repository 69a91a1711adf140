//! The seed's Kubernetes pipeline (pipeline.md §6.3), as far as no cluster is needed: its text as it stands, but for the
//! Kubernetes and Verify steps, in whose place a script says which step it stands for. Started by the seed's own call.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_support;
mod support;

use client_support::{Agent, Client, find_step, success};
use pipeline::yaml::parse_documents;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{TestManager, until};

const TEMPLATE: &str = include_str!("../../tests/seeds/k8s-api-pipeline-template.yaml");
const WINDOW: &str = include_str!("../../deploy/examples/policies/prod_change_window.yaml");
const GROUPS: &str = "userGroup: {identifier: payments_team, name: Payments, users: [ann@x.org, ben@x.org]}
---
userGroup: {identifier: platform_team, name: Platform, users: [pat@x.org]}
";
const DAY: u64 = 86_400_000;
/// Monday, 23 November 2026, 00:00 UTC.
const MONDAY: u64 = 1_795_392_000_000;
const HOUR: u64 = 3_600_000;

fn rendered() -> String {
    let values = [("SERVICE_NAME", "payment-service"), ("TEAM", "payments_team"), ("ARCHETYPE", "api")];
    let values: BTreeMap<String, String> =
        values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    pipeline::template::render("template", TEMPLATE, &values).unwrap()
}

/// The seed without a cluster: scripts in the place of steps that need one, a Custom stage in that of the deployment.
fn without_cluster() -> String {
    let mut document = parse_documents("seed", &rendered()).unwrap()[0].to_json();
    let stage = &mut document["pipeline"]["stages"][0]["stage"];
    stage["type"] = json!("Custom");
    let spec = stage["spec"].as_object_mut().unwrap();
    for key in ["deploymentType", "service", "environment"] {
        assert!(spec.remove(key).is_some(), "{key}");
    }
    let mut replaced = 0;
    for list in ["steps", "rollbackSteps"] {
        replace(&mut spec["execution"][list], &mut replaced);
    }
    assert_eq!(replaced, 9, "eight forward steps and the rollback");
    // JSON is YAML.
    document.to_string()
}

fn replace(steps: &mut Value, replaced: &mut u32) {
    for item in steps.as_array_mut().unwrap() {
        if let Some(group) = item.get_mut("stepGroup") {
            replace(&mut group["steps"], replaced);
            continue;
        }
        let step = &mut item["step"];
        let kind = step["type"].as_str().unwrap().to_owned();
        if kind.starts_with("K8s") || kind == "Verify" {
            *replaced += 1;
            step["type"] = json!("ShellScript");
            let script = format!(
                "{kind} <+pipeline.variables.imageTag> <+pipeline.variables.targetEnvironment> <+pipeline.variables.targetRegion>"
            );
            step["spec"] = json!({ "shell": "Bash", "onDelegate": true,
                "source": { "type": "Inline", "spec": { "script": script } } });
        }
    }
}

struct World {
    manager: Arc<TestManager>,
    admin: Client,
    /// Starts everything, and is a member of a group that may approve.
    ben: Client,
    ann: Client,
    pat: Client,
    ben_key: String,
}

async fn user(admin: &Client, email: &str) -> (Client, String) {
    let body = json!({ "name": email });
    assert_eq!(admin.call(Method::POST, "/users", body).await.0, StatusCode::CREATED);
    let body = json!({ "user": email, "role": "executor" });
    let (_, body) = admin.call(Method::POST, "/apikeys", body).await;
    let key = body["apiKey"].as_str().unwrap().to_owned();
    (admin.with_key(&key), key)
}

impl World {
    async fn start() -> World {
        let manager = Arc::new(TestManager::start().await);
        let admin = Client::of(&manager);
        admin.apply(GROUPS).await;
        admin.apply(WINDOW).await;
        admin.apply(&without_cluster()).await;
        let (ben, ben_key) = user(&admin, "ben@x.org").await;
        let (ann, _) = user(&admin, "ann@x.org").await;
        let (pat, _) = user(&admin, "pat@x.org").await;
        World { manager, admin, ben, ann, pat, ben_key }
    }

    /// The seed's call; returns status and answer.
    async fn call(&self, key: Option<&str>, body: &Value) -> (StatusCode, Value) {
        let query = "accountIdentifier=default&orgIdentifier=default&projectIdentifier=platform\
                     &pipelineIdentifier=payment-service_cd&triggerIdentifier=app_image_trigger";
        let url = format!("{}/gateway/ng/api/webhook/custom/v2?{query}", self.manager.url);
        let request = self.manager.http.post(url).header("Content-Type", "application/json");
        let request = match key {
            Some(key) => request.header("X-Api-Key", key),
            None => request,
        };
        let reply = request.body(body.to_string()).send().await.unwrap();
        (reply.status(), reply.json().await.unwrap())
    }

    async fn processed(&self, event: &str) -> Value {
        until("the event is processed", || async {
            let event = self.admin.get(&format!("/trigger-events/{event}")).await;
            (event["status"] != "QUEUED").then_some(event)
        })
        .await
    }

    /// Starts the pipeline by its trigger and Ben's key.
    async fn start_by_webhook(&self, environment: &str) -> String {
        let (status, reply) = self.call(Some(&self.ben_key), &body(environment)).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        let event = self.processed(reply["data"]["eventCorrelationId"].as_str().unwrap()).await;
        assert_eq!(event["status"], "TARGET_EXECUTION_REQUESTED", "{event:#}");
        event["executionId"].as_str().unwrap().to_owned()
    }

    /// The approval of a run of production.
    async fn asked(&self, execution: &str) -> Value {
        until("it waits for approval", || async {
            let all = self.admin.get("/approvals").await;
            all.as_array().unwrap().iter().find(|one| one["executionId"] == execution).cloned()
        })
        .await
    }

    async fn approve(&self, client: &Client, approval: &Value) -> (StatusCode, Value) {
        let inputs =
            json!({ "change_ticket": "CHG-1", "rollback_plan": "put it back", "business_justification": "" });
        let path = format!("/approvals/{}/approve", approval["id"].as_str().unwrap());
        client.call(Method::POST, &path, json!({ "inputs": inputs })).await
    }

    /// Starts production and has it approved by two; returns how it ended.
    async fn approved(&self) -> Value {
        let execution = self.start_by_webhook("prod").await;
        let asked = self.asked(&execution).await;
        for client in [&self.ann, &self.pat] {
            let (status, body) = self.approve(client, &asked).await;
            assert_eq!(status, StatusCode::OK, "{body}");
        }
        self.admin.ended(&execution).await
    }

    async fn agent(&self) -> Agent {
        Agent::start(&self.manager, "zone-a", &[], |_| success().into()).await
    }
}

fn body(environment: &str) -> Value {
    json!({ "service_name": "payment-service", "image_tag": "v2.3.1", "target_env": environment, "target_region": "euw1" })
}

fn statuses(view: &Value, steps: &[&str]) -> Vec<String> {
    steps.iter().map(|step| find_step(view, step).unwrap()["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_waits_for_two_who_did_not_start_it_and_for_its_window() {
    let world = World::start().await;
    world.manager.clock.fix(MONDAY + 10 * HOUR);
    let agent = world.agent().await;
    let execution = world.start_by_webhook("prod").await;
    let asked = world.asked(&execution).await;
    let message = asked["message"].as_str().unwrap();
    for part in
        ["**Service**: payment-service", "**Image Tag**: v2.3.1", "**Region**: euw1", "**Requester**: null"]
    {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
    assert_eq!(asked["approverInputs"][0]["label"], "Change Ticket ID", "{asked:#}");
    // Ben is in payments_team, but his key started it.
    let (status, refused) = world.approve(&world.ben, &asked).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("started this execution"), "{refused}");
    for (client, after) in [(&world.ann, "WAITING"), (&world.pat, "APPROVED")] {
        let (status, shown) = world.approve(client, &asked).await;
        assert_eq!((status, &shown["status"]), (StatusCode::OK, &json!(after)), "{shown}");
    }
    let view = world.admin.ended(&execution).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(view["stages"][0]["name"], "Deploy to prod");
    assert_eq!(find_step(&view, "change_window_policy").unwrap()["outputs"]["status"], "pass");
    let steps =
        ["k8s_apply", "rolling_deploy", "canary_10", "verify_canary_10", "canary_50", "verify_canary_50"];
    assert_eq!(agent.names(), [&steps[..], &["canary_complete", "verify_health"]].concat());
    for taken in agent.stop().await {
        assert!(taken.raw.contains("v2.3.1 prod euw1"), "{}", taken.raw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_environments_ask_nobody_and_skip_the_canary() {
    let world = World::start().await;
    // Nobody may deploy to production then.
    world.manager.clock.fix(MONDAY + 4 * DAY);
    let agent = world.agent().await;
    let execution = world.start_by_webhook("int-stable").await;
    let view = world.admin.ended(&execution).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(
        statuses(&view, &["prod_approval", "change_window_policy", "canary_group", "canary_10"]),
        ["Skipped", "Skipped", "Skipped", "NotStarted"]
    );
    assert_eq!(agent.names(), ["k8s_apply", "rolling_deploy", "verify_health"]);
    assert!(agent.stop().await[0].raw.contains("K8sApply v2.3.1 int-stable euw1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_window_aborts_the_run_and_touches_nothing() {
    let world = World::start().await;
    let agent = world.agent().await;
    // The wall clock stands still at each of these moments, the last of which is open.
    for (at, day) in [
        (MONDAY + 10 * HOUR - 1, "MONDAY 2026-11-23T09:59:59"),
        (MONDAY + 3 * DAY + 16 * HOUR, "THURSDAY 2026-11-26T16:00:00"),
        (MONDAY + 4 * DAY + 12 * HOUR, "FRIDAY 2026-11-27T12:00:00"),
        (MONDAY + 6 * DAY + 12 * HOUR, "SUNDAY 2026-11-29T12:00:00"),
    ] {
        world.manager.clock.fix(at);
        let view = world.approved().await;
        assert_eq!(
            (&view["status"], &view["rolledBack"]),
            (&json!("Aborted"), &json!(false)),
            "{day}: {view:#}"
        );
        let gate = find_step(&view, "change_window_policy").unwrap();
        assert_eq!(gate["failure"]["class"], "PolicyEvaluationFailure", "{gate:#}");
        let message = gate["failure"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("payment-service: outside change window (now {day}")), "{message}");
        assert_eq!(statuses(&view, &["k8s_apply", "rollback"]), ["NotStarted", "NotStarted"], "{view:#}");
    }
    assert_eq!(agent.names(), [""; 0], "nothing was applied");
    world.manager.clock.fix(MONDAY + 7 * DAY + 3 * DAY + 16 * HOUR - 1);
    let view = world.approved().await;
    assert_eq!(view["status"], "Success", "Thursday, 15:59:59.999: {view:#}");
    assert_eq!(agent.names().len(), 8);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_rolls_the_stage_back_and_seven_days_of_silence_abort() {
    let world = World::start().await;
    let agent = world.agent().await;
    world.manager.clock.fix(MONDAY + 11 * HOUR);
    let execution = world.start_by_webhook("prod").await;
    let asked = world.asked(&execution).await;
    let path = format!("/approvals/{}/reject", asked["id"].as_str().unwrap());
    let (status, shown) = world.pat.call(Method::POST, &path, json!({ "comments": "no" })).await;
    assert_eq!((status, &shown["status"]), (StatusCode::OK, &json!("REJECTED")), "{shown}");
    let view = world.admin.ended(&execution).await;
    assert_eq!(
        statuses(&view, &["prod_approval", "change_window_policy", "k8s_apply", "rollback"]),
        ["ApprovalRejected", "NotStarted", "NotStarted", "Success"],
        "{view:#}"
    );
    assert_eq!(agent.names(), ["rollback"]);

    let execution = world.start_by_webhook("prod").await;
    let asked = world.asked(&execution).await;
    assert_eq!(asked["deadline"], MONDAY + 11 * HOUR + 7 * DAY, "{asked:#}");
    world.manager.clock.fix(MONDAY + 11 * HOUR + 7 * DAY);
    // Any timer that is set makes the manager look at those that are due; by itself it would do so within half a minute.
    let other = world.start_by_webhook("int-stable").await;
    assert_eq!(world.admin.ended(&other).await["status"], "Success");
    let view = world.admin.ended(&execution).await;
    assert_eq!(view["status"], "Aborted", "{view:#}");
    let gate = find_step(&view, "prod_approval").unwrap();
    assert_eq!(
        (&gate["failure"]["class"], &gate["approval"]["status"]),
        (&json!("Timeout"), &json!("EXPIRED"))
    );
    let rollbacks = agent.names().into_iter().filter(|name| name == "rollback").count();
    assert_eq!(rollbacks, 1, "the second run rolled nothing back");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_calls_start_nothing_and_the_event_log_says_why() {
    let world = World::start().await;
    let with = |key: &str, value: Value| {
        let mut body = body("prod");
        body[key] = value;
        body
    };
    for (body, part) in [
        (with("image_tag", Value::Null), "image_tag"),
        (with("image_tag", json!("")), "image_tag"),
        (with("service_name", json!("billing-service")), "`billing-service`"),
    ] {
        let (status, reply) = world.call(Some(&world.ben_key), &body).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        let event = world.processed(reply["data"]["eventCorrelationId"].as_str().unwrap()).await;
        assert_eq!(event["status"], "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS", "{event:#}");
        assert!(event["message"].as_str().unwrap().contains(part), "{event:#}");
    }
    for key in [None, Some("pat.default.nobody.nothing")] {
        let (status, reply) = world.call(key, &body("prod")).await;
        assert_eq!(
            (status, &reply["code"]),
            (StatusCode::UNAUTHORIZED, &json!("TRIGGER_AUTHENTICATION_FAILED"))
        );
    }
    let events = world.admin.get("/trigger-events?trigger=app_image_trigger").await;
    let refused = |event: &&Value| event["status"] == "TRIGGER_AUTHENTICATION_FAILED";
    assert_eq!(events.as_array().unwrap().iter().filter(refused).count(), 2, "{events:#}");
    assert_eq!(world.admin.get("/executions").await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harness_own_calls_start_it_and_tell_who_may_approve() {
    let world = World::start().await;
    world.manager.clock.fix(MONDAY + 11 * HOUR);
    let http = |method: Method, path: &str, body: &str| {
        let request = world.manager.http.request(method, format!("{}{path}", world.manager.url));
        let request = request.header("x-api-key", &world.ben_key).body(body.to_owned());
        async move {
            let reply = request.send().await.unwrap();
            (reply.status(), reply.json::<Value>().await.unwrap())
        }
    };
    let scope = "accountIdentifier=default&orgIdentifier=default&projectIdentifier=platform";
    let inputs = "pipeline:\n  identifier: payment-service_cd\n  variables:\n    - {name: imageTag, type: String, value: v3}\n    - {name: targetEnvironment, type: String, value: prod}\n    - {name: targetRegion, type: String, value: euw2}\n";
    for (nth, path) in
        ["/gateway/pipeline/api/pipeline/execute", "/prod/gateway/pipeline/api/pipeline/execute"]
            .into_iter()
            .enumerate()
    {
        let path = format!("{path}/payment-service_cd?{scope}&moduleType=CD");
        let (status, reply) = http(Method::POST, &path, inputs).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        let plan = &reply["data"]["planExecution"];
        assert_eq!((&reply["status"], &plan["status"]), (&json!("SUCCESS"), &json!("RUNNING")), "{reply:#}");
        assert_eq!(plan["metadata"]["runSequence"], nth + 1);
        assert_eq!(plan["metadata"]["triggerInfo"]["triggeredBy"]["identifier"], "ben@x.org");
        let execution = plan["uuid"].as_str().unwrap();
        let asked = world.asked(execution).await;
        assert!(asked["message"].as_str().unwrap().contains("**Image Tag**: v3"), "{asked:#}");
        let path = format!(
            "/gateway/pipeline/api/approvals/{}/harness/authorization",
            asked["id"].as_str().unwrap()
        );
        let (status, reply) = http(Method::GET, &path, "").await;
        assert_eq!((status, &reply["data"]["authorized"]), (StatusCode::OK, &json!(false)), "{reply}");
        assert!(reply["data"]["reason"].as_str().unwrap().contains("started this execution"), "{reply}");
        let list = format!("/v1/orgs/default/projects/platform/approvals/execution/{execution}");
        let (status, reply) = http(Method::GET, &format!("{list}?approval_status=WAITING"), "").await;
        assert_eq!((status, &reply[0]["id"]), (StatusCode::OK, &asked["id"]), "{reply}");
        assert_eq!(reply[0]["details"]["approvers"]["minimum_count"], 2, "{reply:#}");
        assert_eq!(http(Method::GET, &format!("{list}?approval_status=APPROVED"), "").await.1, json!([]));
        // Refused in Harness' envelope, with the code of the page that explains it.
        let (status, reply) = http(Method::POST, &list, r#"{"action": "REJECT"}"#).await;
        assert_eq!((status, &reply["status"]), (StatusCode::FORBIDDEN, &json!("FAILURE")), "{reply}");
        assert_eq!(reply["code"], "ACCESS_DENIED");
        assert!(
            reply["message"].as_str().unwrap().starts_with("MGR-106: ben@x.org may not do this"),
            "{reply}"
        );
    }
    let (status, reply) = http(
        Method::POST,
        "/v1/orgs/default/projects/platform/pipelines/payment-service_cd/execute",
        &json!({ "inputs_yaml": inputs.replace("value: prod", "value: int-stable") }).to_string(),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    let execution = reply["execution_details"]["execution_id"].as_str().unwrap();
    let (status, _) = http(
        Method::POST,
        &format!("/v1/orgs/default/projects/platform/approvals/execution/{execution}"),
        r#"{"action": "APPROVE", "approver_inputs": []}"#,
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT, "nothing waits there");
    for (path, body, status, code) in [
        ("/gateway/pipeline/api/pipeline/execute/payment-service_cd", "pipeline: [", 400, "INVALID_REQUEST"),
        ("/gateway/pipeline/api/pipeline/execute/nothing", "", 404, "ENTITY_NOT_FOUND"),
        (
            "/gateway/pipeline/api/approvals/none.none/harness/activity",
            r#"{"action": "APPROVE"}"#,
            404,
            "ENTITY_NOT_FOUND",
        ),
        (
            "/gateway/pipeline/api/approvals/none.none/harness/activity",
            r#"{"action": "MAYBE"}"#,
            400,
            "INVALID_REQUEST",
        ),
    ] {
        let (found, reply) = http(Method::POST, &format!("{path}?{scope}"), body).await;
        assert_eq!((found.as_u16(), reply["code"].as_str()), (status, Some(code)), "{path}: {reply}");
        assert_eq!(reply["responseMessages"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_was_not_rendered_is_refused_with_its_placeholder() {
    let manager = TestManager::start().await;
    let (status, reply) = Client::of(&manager).try_apply("template.yaml", TEMPLATE).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.contains("{{SERVICE_NAME}}") && message.contains("pipeline render"), "{message}");
}
