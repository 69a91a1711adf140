//! Executions that wait for each other's infrastructure, also over a restart of the manager.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "This crate is test code; a panic is its way to fail."
)]

mod client_support;
mod support;

use client_support::{Client, ENTITIES, PEM, deployment};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use support::{TestManager, config};

const WAIT: &str = "- step: {identifier: w, name: w, type: Wait, spec: {duration: 1d}}\n";

/// Follows the view until it is as wanted.
async fn until(client: &Client, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let view = client.get(&format!("/executions/{id}")).await;
        if fits(&view) {
            return view;
        }
        assert!(tokio::time::Instant::now() < limit, "{what}: {view:#}");
        let version = view["version"].as_u64().unwrap();
        client.get(&format!("/executions/{id}?since={version}&wait_ms=500")).await;
    }
}

async fn stage_is(client: &Client, id: &str, status: &str) -> Value {
    until(client, id, status, |view| view["stages"][0]["status"] == status).await["stages"][0].clone()
}

async fn end_wait(client: &Client, id: &str) {
    until(client, id, "the wait has begun", |view| {
        view["stages"][0]["steps"].as_array().is_some_and(|steps| {
            steps.iter().any(|step| step["identifier"] == "w" && step["startedAt"].is_number())
        })
    })
    .await;
    let body = json!({"step": "w", "action": "MarkAsSuccess"});
    let (status, view) = client.call(Method::POST, &format!("/executions/{id}/intervene"), body).await;
    assert_eq!((status, &view["status"]), (StatusCode::OK, &json!("Success")), "{view:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executions_take_turns_on_an_infrastructure_also_over_a_restart() {
    let manager = TestManager::start().await;
    let client = Client::of(&manager);
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    client.set_secret("registry_pw", "geheim").await;
    // Two pipelines deploy the same service to the same hosts.
    client.apply(&deployment("p", WAIT, WAIT)).await;
    client.apply(&deployment("q", WAIT, WAIT)).await;
    let mut ids = Vec::new();
    for pipeline in ["p", "q", "p", "q"] {
        let id = client.run(pipeline).await;
        let status = if ids.is_empty() { "Running" } else { "ResourceWaiting" };
        stage_is(&client, &id, status).await;
        ids.push(id);
    }
    let stage = stage_is(&client, &ids[1], "ResourceWaiting").await;
    let told = stage["waitingFor"].as_str().unwrap();
    assert!(told.contains("`farm`") && told.contains(&ids[0]) && told.contains("(p #1)"), "{told}");
    let stage = stage_is(&client, &ids[3], "ResourceWaiting").await;
    let told = stage["waitingFor"].as_str().unwrap();
    assert!(told.ends_with("; 2 more executions wait before this one"), "{told}");
    // One that is aborted while it waits leaves the queue.
    let (status, view) = client.call(Method::POST, &format!("/executions/{}/abort", ids[2]), json!({})).await;
    assert_eq!((status, &view["status"]), (StatusCode::ACCEPTED, &json!("Aborted")), "{view:#}");
    let dir = manager.stop().await;
    let config = config(dir.path());
    let manager = TestManager::start_in(dir, config).await;
    let client = Client::of(&manager);
    stage_is(&client, &ids[0], "Running").await;
    stage_is(&client, &ids[1], "ResourceWaiting").await;
    end_wait(&client, &ids[0]).await;
    end_wait(&client, &ids[1]).await;
    // An abort of the holder frees it as well.
    let (status, _) = client.call(Method::POST, &format!("/executions/{}/abort", ids[3]), json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let last = client.run("p").await;
    end_wait(&client, &last).await;
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_executions_are_served_in_the_order_in_which_they_came() {
    let manager = TestManager::start().await;
    let client = Client::of(&manager);
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    client.set_secret("registry_pw", "geheim").await;
    let pause = "- step: {identifier: w, name: w, type: Wait, spec: {duration: 1s}}\n";
    client.apply(&deployment("p", pause, pause)).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let id = client.run("p").await;
        // It stands in the queue before the next one comes.
        until(&client, &id, "it has begun", |view| view["stages"][0]["startedAt"].is_number()).await;
        ids.push(id);
    }
    let mut before = 0;
    for id in &ids {
        let view = client.ended(id).await;
        assert_eq!(view["status"], "Success", "{view:#}");
        let step = &view["stages"][0]["steps"][0];
        let began = step["startedAt"].as_u64().unwrap();
        assert!(began >= before, "two at once, or out of order: {view:#}");
        before = began + step["durationMs"].as_u64().unwrap();
    }
    manager.stop().await;
}
