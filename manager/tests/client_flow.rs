//! What people do to executions: decisions, running again, undoing.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "This crate is test code; a panic is its way to fail."
)]

mod client_support;
mod support;

use client_support::{Agent, Client, custom, failed, find_step, noop, success};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::TestManager;

async fn manager() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    (manager, client)
}

/// Follows the view until a step has a status.
async fn until(client: &Client, id: &str, step: &str, status: &str) -> Value {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let view = client.get(&format!("/executions/{id}")).await;
        if find_step(&view, step).is_some_and(|step| step["status"] == status) {
            return view;
        }
        assert!(tokio::time::Instant::now() < limit, "{step} did not become {status}: {view:#}");
        let version = view["version"].as_u64().unwrap();
        client.get(&format!("/executions/{id}?since={version}&wait_ms=1000")).await;
    }
}

async fn intervene(client: &Client, id: &str, step: &str, action: &str) -> (StatusCode, Value) {
    let body = json!({"step": step, "action": action});
    client.call(Method::POST, &format!("/executions/{id}/intervene"), body).await
}

/// An agent on which every step fails until it is said to be mended.
async fn failing_agent(manager: &Arc<TestManager>) -> (Agent, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let answer = mended.clone();
    let agent = Agent::start(manager, "zone-a", &[], move |_| match answer.load(Ordering::SeqCst) {
        true => success().into(),
        false => failed("exit code 1").into(),
    });
    (agent.await, mended)
}

const MANUAL: &str = "failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: ManualIntervention, spec: {timeout: 1h, onTimeout: {action: {type: Abort}}}}}}]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_step_waits_for_a_person_and_goes_on_as_they_say() {
    let (manager, client) = manager().await;
    client.apply(&custom("p", "", &(noop("a", MANUAL) + &noop("b", "")))).await;
    let (agent, mended) = failing_agent(&manager).await;
    let id = client.run("p").await;
    let (status, refused) = intervene(&client, "nope", "a", "Retry").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
    let view = until(&client, &id, "a", "InterventionWaiting").await;
    assert_eq!(view["status"], "InterventionWaiting", "{view:#}");
    assert_eq!(find_step(&view, "a").unwrap()["interventions"][0], "Retry");
    let (status, refused) = intervene(&client, &id, "a", "Pray").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["error"]["message"].as_str().unwrap().contains("not one of Retry"), "{refused}");
    let (status, refused) = intervene(&client, &id, "a", "StepGroupRollback").await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("MGR-106")),
        "{refused}"
    );
    let (status, refused) = intervene(&client, &id, "aa", "Retry").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
    mended.store(true, Ordering::SeqCst);
    let (status, view) = intervene(&client, &id, "a", "retry").await;
    assert_eq!(status, StatusCode::OK, "{view}");
    let view = client.ended(&id).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    let a = find_step(&view, "a").unwrap();
    assert_eq!(a["attempt"], 2);
    assert!(a["notices"][0].as_str().unwrap().starts_with("admin decided: Retry"), "{a}");
    let (status, refused) = intervene(&client, &id, "a", "Retry").await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("has ended as Success"), "{refused}");
    assert_eq!(agent.names(), ["a", "a", "b"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_is_ended_by_a_person() {
    let (_manager, client) = manager().await;
    let wait = "- step: {identifier: w, name: w, type: Wait, spec: {duration: 1d}}\n";
    client.apply(&custom("p", "", wait)).await;
    let id = client.run("p").await;
    until(&client, &id, "w", "Running").await;
    let (status, refused) = intervene(&client, &id, "w", "Retry").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let (status, view) = intervene(&client, &id, "w", "MarkAsSuccess").await;
    assert_eq!((status, &view["status"]), (StatusCode::OK, &json!("Success")), "{view}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_runs_again_with_its_inputs_and_is_undone() {
    let (manager, client) = manager().await;
    let head = "variables: [{name: who, type: String, value: <+input>}]";
    let steps =
        "- step: {identifier: a, name: a, type: Noop, spec: {line: 'hello <+pipeline.variables.who>'}}\n";
    let undo = "            rollbackSteps:\n              - step: {identifier: undo, name: undo, type: Noop, spec: {line: 'bye'}}\n";
    client.apply(&(custom("p", head, steps) + undo)).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    let (status, started) = client.start("p", json!({"inputs": {"who": "ann"}})).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let id = started["executionId"].as_str().unwrap().to_owned();
    assert_eq!(client.ended(&id).await["status"], "Success");
    let path = |id: &str, what: &str| format!("/executions/{id}/{what}");
    let (status, again) = client.call(Method::POST, &path(&id, "rerun"), json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{again}");
    assert_eq!((&again["rerunOf"], &again["sequenceId"]), (&json!(id), &json!(2)));
    let second = again["executionId"].as_str().unwrap().to_owned();
    assert_eq!(client.ended(&second).await["status"], "Success");
    let (status, back) = client.call(Method::POST, &path(&second, "rollback"), json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{back}");
    assert_eq!((&back["rollbackOf"], &back["sequenceId"]), (&json!(second), &json!(3)));
    let rollback = back["executionId"].as_str().unwrap().to_owned();
    let view = client.ended(&rollback).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Success"), &json!(true)), "{view:#}");
    assert_eq!(find_step(&view, "undo").unwrap()["status"], "Success");
    assert_eq!(agent.names(), ["a", "a", "undo"]);
    for what in ["rerun", "rollback"] {
        let (status, refused) = client.call(Method::POST, &path(&rollback, what), json!({})).await;
        assert_eq!(status, StatusCode::CONFLICT, "{what}: {refused}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_gets_the_inputs_that_it_asks_for_when_it_is_reached() {
    let (manager, client) = manager().await;
    let steps = "- step: {identifier: a, name: a, type: Noop, spec: {line: '<+input>.executionInput().allowedValues(x,y)'}}\n";
    client.apply(&custom("p", "", steps)).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    let id = client.run("p").await;
    let view = until(&client, &id, "a", "InputWaiting").await;
    assert_eq!(view["status"], "InputWaiting", "{view:#}");
    assert_eq!(find_step(&view, "a").unwrap()["inputs"]["inputs"][0]["allowed"], json!(["x", "y"]));
    let path = format!("/executions/{id}/inputs");
    let (status, refused) =
        client.call(Method::POST, &path, json!({"step": "a", "inputs": {"line": "z"}})).await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("MGR-106")));
    assert!(refused["error"]["message"].as_str().unwrap().contains("allowed are x, y"), "{refused}");
    let given = json!({"step": "a", "inputs": {"line": "x"}});
    let (status, view) = client.call(Method::POST, &path, given.clone()).await;
    assert_eq!(status, StatusCode::OK, "{view}");
    let view = client.ended(&id).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(find_step(&view, "a").unwrap()["inputs"]["given"]["by"], "admin");
    let (status, refused) = client.call(Method::POST, &path, given).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_group_runs_again_from_its_beginning_as_the_store_has_it() {
    let (manager, client) = manager().await;
    let group = "- stepGroup:
    identifier: g
    name: g
    failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: RetryStepGroup, spec: {retryCount: 2, retryIntervals: [1s]}}}}]
    steps:
      - step: {identifier: a, name: a, type: Noop, spec: {line: 'hello'}}
      - step: {identifier: b, name: b, type: Noop, spec: {line: 'hello'}}
";
    client.apply(&custom("p", "", group)).await;
    let seen = Arc::new(AtomicBool::new(false));
    let agent = Agent::start(&manager, "zone-a", &[], move |task| {
        let is_b = task.task.step.identifier == "b";
        match is_b && !seen.swap(true, Ordering::SeqCst) {
            true => failed("exit code 1").into(),
            false => success().into(),
        }
    })
    .await;
    let id = client.run("p").await;
    let view = client.ended(&id).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(agent.names(), ["a", "b", "a", "b"]);
    assert_eq!(find_step(&view, "b").unwrap()["attempt"], 2, "{view:#}");
    // What the store has is what the machine says: a manager that reads it again shows the same.
    let again = client.get(&format!("/executions/{id}")).await;
    assert_eq!(again["stages"], view["stages"]);
    agent.stop().await;
}

/// Harness' own interrupts, as its clients send them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_decisions_are_taken_in_harness_own_words() {
    let (manager, client) = manager().await;
    client.apply(&custom("p", "", &(noop("a", MANUAL) + &noop("b", "")))).await;
    let (agent, mended) = failing_agent(&manager).await;
    let put = async |path: String, key: &str| -> (StatusCode, Value) {
        let url = format!("{}{path}", manager.url);
        let reply = manager.http.put(url).header("x-api-key", key).send().await.unwrap();
        (reply.status(), reply.json().await.unwrap())
    };
    let id = client.run("p").await;
    let view = until(&client, &id, "a", "InterventionWaiting").await;
    let node = find_step(&view, "a").unwrap()["node"].as_str().unwrap().to_owned();
    let base = format!("/gateway/pipeline/api/pipeline/execute/manualIntervention/interrupt/{id}");
    for (path, status, code, part) in [
        (format!("{base}/{node}?interruptType=Pray"), 400, "INVALID_REQUEST", "`Pray` is not supported"),
        (format!("{base}/{node}"), 400, "INVALID_REQUEST", "`interruptType` is missing"),
        (
            format!("{base}/{node}?interruptType=Retry&accountIdentifier=other"),
            400,
            "INVALID_REQUEST",
            "other",
        ),
        (format!("{base}/nowhere?interruptType=Retry"), 404, "ENTITY_NOT_FOUND", "nowhere"),
        (format!("{base}/b?interruptType=Retry"), 404, "ENTITY_NOT_FOUND", "b"),
        (
            format!("/gateway/pipeline/api/pipeline/execute/interrupt/{id}?interruptType=Pause"),
            400,
            "INVALID_REQUEST",
            "takes AbortAll",
        ),
        (
            "/gateway/pipeline/api/pipeline/execute/interrupt/none?interruptType=AbortAll".to_owned(),
            404,
            "ENTITY_NOT_FOUND",
            "none",
        ),
    ] {
        let (refused, body) = put(path.clone(), &manager.api_key).await;
        assert_eq!((refused.as_u16(), &body["code"]), (status, &json!(code)), "{path}: {body}");
        assert!(body["message"].as_str().unwrap().contains(part), "{path}: {body}");
    }
    assert_eq!(put(format!("{base}/{node}?interruptType=Retry"), "nokey").await.0, StatusCode::UNAUTHORIZED);
    let view = client.get(&format!("/executions/{id}")).await;
    assert_eq!(find_step(&view, "a").unwrap()["status"], "InterventionWaiting", "a refusal decides nothing");

    mended.store(true, Ordering::SeqCst);
    let (status, body) =
        put(format!("{base}/{node}?accountIdentifier=default&interruptType=Retry"), &manager.api_key).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("SUCCESS")), "{body}");
    assert_eq!((&body["data"]["type"], &body["data"]["planExecutionId"]), (&json!("Retry"), &json!(id)));
    assert!(body["data"]["id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
    assert_eq!(client.ended(&id).await["status"], "Success");
    let (status, body) = put(format!("{base}/{node}?interruptType=Ignore"), &manager.api_key).await;
    assert_eq!(status, StatusCode::CONFLICT, "the node no longer waits: {body}");

    // By the step's identifier, on the other path, in the words of older clients; without the gateway.
    mended.store(false, Ordering::SeqCst);
    let second = client.run("p").await;
    until(&client, &second, "a", "InterventionWaiting").await;
    let path = format!("/pipeline/api/pipeline/execute/interrupt/{second}/a?interruptType=UserMarkedFailure");
    assert_eq!(put(path, &manager.api_key).await.0, StatusCode::OK);
    assert_eq!(client.ended(&second).await["status"], "Failed");
    let third = client.run("p").await;
    until(&client, &third, "a", "InterventionWaiting").await;
    let path =
        format!("/prod/gateway/pipeline/api/pipeline/execute/interrupt/{third}?interruptType=AbortAll");
    assert_eq!(put(path, &manager.api_key).await.0, StatusCode::OK);
    assert_eq!(client.ended(&third).await["status"], "Aborted");
    agent.stop().await;
}
