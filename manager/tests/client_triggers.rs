//! Triggers over real HTTP: the custom webhook, its event log, and the clock.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_support;
mod support;

use client_support::Client;
use manager::store::TriggerEvent;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::{TestManager, config, until};

/// The trigger and inputs of the seed's Kubernetes pipeline, with a step that needs no cluster and no agent.
const PIPELINE: &str = r#"
pipeline:
  name: payment-service-cd
  identifier: payment-service_cd
  orgIdentifier: default
  projectIdentifier: platform
  variables:
    - {name: imageTag, type: String, required: true, value: <+input>, default: latest}
    - {name: targetEnvironment, type: String, required: true, value: "<+input>.allowedValues(int-stable,pre-stable,prod)", default: int-stable}
    - {name: targetRegion, type: String, required: true, value: "<+input>.allowedValues(euw1,euw2)", default: euw1}
  stages:
    - stage:
        name: Deploy <+pipeline.variables.imageTag> to <+pipeline.variables.targetEnvironment>
        identifier: deploy_service
        type: Custom
        spec:
          execution:
            steps:
              - step: {identifier: w, name: "w <+pipeline.triggerType>", type: Wait, spec: {duration: 1s}}
  triggers:
    - trigger:
        name: App Image Built
        identifier: app_image_trigger
        enabled: true
        source:
          type: Webhook
          spec:
            type: Custom
            spec:
              payloadConditions:
                - {key: service_name, operator: Equals, value: "payment-service"}
                - {key: image_tag, operator: NotNull, value: ""}
                - {key: target_env, operator: NotNull, value: ""}
        inputYaml: |
          pipeline:
            identifier: payment-service_cd
            variables:
              imageTag: <+trigger.payload.image_tag>
              targetEnvironment: <+trigger.payload.target_env>
              targetRegion: <+trigger.payload.target_region>
"#;

const QUERY: &str = "accountIdentifier=default&orgIdentifier=default&projectIdentifier=platform\
                     &pipelineIdentifier=payment-service_cd&triggerIdentifier=app_image_trigger";

fn body() -> Value {
    json!({"service_name": "payment-service", "image_tag": "v2.3.1", "target_env": "prod", "target_region": "euw1"})
}

async fn send(manager: &TestManager, prefix: &str, key: Option<&str>, body: &str) -> (StatusCode, Value) {
    let url = format!("{}{prefix}?{QUERY}", manager.url);
    let mut request = manager.http.post(url).header("Content-Type", "application/json").body(body.to_owned());
    if let Some(key) = key {
        request = request.header("X-Api-Key", key);
    }
    let reply = request.send().await.unwrap();
    (reply.status(), reply.json().await.unwrap())
}

/// The processing details of an event, once it is processed.
async fn details(manager: &TestManager, event: &str) -> Value {
    until("the event is processed", || async {
        let url = format!("{}/gateway/pipeline/api/webhook/triggerExecutionDetails/{event}", manager.url);
        let reply = manager.http.get(url).header("x-api-key", &manager.api_key).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let body: Value = reply.json().await.unwrap();
        let details = body["data"].clone();
        (details["webhookProcessingDetails"]["status"] != "QUEUED").then_some(details)
    })
    .await
}

async fn executions(client: &Client) -> usize {
    client.get("/executions").await.as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seeds_call_starts_its_pipeline_under_every_prefix() {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    client.apply(PIPELINE).await;
    for (nth, prefix) in [
        "/gateway/pipeline/api/webhook/custom/v2",
        "/gateway/ng/api/webhook/custom/v2",
        "/gateway/ng/api/webhook/custom",
        "/pipeline/api/webhook/custom/v2",
    ]
    .into_iter()
    .enumerate()
    {
        let (status, reply) = send(&manager, prefix, Some(&manager.api_key), &body().to_string()).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        assert_eq!(reply["status"], "SUCCESS");
        let event = reply["data"]["eventCorrelationId"].as_str().unwrap();
        let details = details(&manager, event).await;
        let processing = &details["webhookProcessingDetails"];
        assert_eq!(processing["status"], "TARGET_EXECUTION_REQUESTED", "{details:#}");
        assert_eq!(processing["triggerIdentifier"], "app_image_trigger");
        let execution = processing["pipelineExecutionId"].as_str().unwrap();
        assert_eq!(details["executionDetails"]["planExecutionId"], execution);
        assert_eq!(details["executionDetails"]["runSequence"], nth + 1);
        let view = client.get(&format!("/executions/{execution}")).await;
        assert_eq!(view["stages"][0]["name"], "Deploy v2.3.1 to prod", "{view:#}");
    }
    let listed = client.get("/triggers?pipeline=payment-service_cd").await;
    assert_eq!(listed[0]["identifier"], "app_image_trigger");
    assert_eq!(listed[0]["lastEvent"]["status"], "TARGET_EXECUTION_REQUESTED");
    let shown = client.get("/triggers/app_image_trigger").await;
    assert!(shown["yaml"].as_str().unwrap().contains("payloadConditions"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_a_trigger_names_it_and_replaces_no_key() {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    client.apply(PIPELINE).await;
    let shown = client.get("/triggers/app_image_trigger").await;
    let token = shown["webhookToken"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 32, "{shown}");
    let post = async |token: &str, query: &str, key: Option<&str>| -> (StatusCode, Value) {
        let url = format!(
            "{}/gateway/pipeline/api/webhook/custom/{token}/v3?accountIdentifier=default{query}",
            manager.url
        );
        let mut request = manager.http.post(url).body(body().to_string());
        if let Some(key) = key {
            request = request.header("X-Api-Key", key);
        }
        let reply = request.send().await.unwrap();
        (reply.status(), reply.json().await.unwrap())
    };
    let key = Some(manager.api_key.as_str());
    // The token alone is enough to find the trigger.
    let (status, reply) = post(&token, "", key).await;
    assert_eq!((status, &reply["status"]), (StatusCode::OK, &json!("SUCCESS")), "{reply}");
    let event = reply["data"]["eventCorrelationId"].as_str().unwrap();
    let details = details(&manager, event).await;
    assert_eq!(details["webhookProcessingDetails"]["status"], "TARGET_EXECUTION_REQUESTED", "{details:#}");
    assert_eq!(executions(&client).await, 1);
    for (token, query, key) in [
        (token.as_str(), "", None),
        ("0123456789abcdef0123456789abcdef", "", key),
        (token.as_str(), "&triggerIdentifier=another", key),
    ] {
        let (status, reply) = post(token, query, key).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{query}: {reply}");
        assert_eq!(reply["code"], "TRIGGER_AUTHENTICATION_FAILED");
        assert!(!reply.to_string().contains(token), "{reply}");
    }
    assert_eq!(executions(&client).await, 1, "nothing was started");
    // It outlives a change of the document.
    client.apply(PIPELINE).await;
    assert_eq!(client.get("/triggers/app_image_trigger").await["webhookToken"], token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_log_says_why_a_trigger_did_not_fire() {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    client.apply(PIPELINE).await;
    let v2 = "/gateway/pipeline/api/webhook/custom/v2";
    let with = |key: &str, value: Value| {
        let mut body = body();
        body[key] = value;
        body
    };
    for (body, state, part) in [
        (with("image_tag", Value::Null), "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS", "image_tag"),
        (with("service_name", json!("other")), "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS", "`other`"),
        (json!({}), "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS", "nothing"),
        (with("target_env", json!("mars")), "INVALID_RUNTIME_INPUT_YAML", "`mars` is not allowed"),
        (with("target_region", Value::Null), "INVALID_RUNTIME_INPUT_YAML", "target_region"),
    ] {
        let (status, reply) = send(&manager, v2, Some(&manager.api_key), &body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        let event = reply["data"]["eventCorrelationId"].as_str().unwrap();
        let details = details(&manager, event).await["webhookProcessingDetails"].clone();
        assert_eq!(details["status"], state, "{body}: {details:#}");
        assert!(details["message"].as_str().unwrap().contains(part), "{details:#}");
        assert_eq!(details["pipelineExecutionId"], Value::Null);
    }
    for key in [None, Some("wrong")] {
        let (status, reply) = send(&manager, v2, key, &body().to_string()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            (&reply["status"], &reply["code"]),
            (&json!("FAILURE"), &json!("TRIGGER_AUTHENTICATION_FAILED"))
        );
    }
    let (status, _) = send(&manager, v2, Some(&manager.api_key), "not json").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let events = client.get("/trigger-events?pipeline=payment-service_cd&trigger=app_image_trigger").await;
    assert_eq!(events[0]["status"], "TRIGGER_AUTHENTICATION_FAILED", "{events:#}");
    assert_eq!(events.as_array().unwrap().len(), 7);
    assert!(!events.to_string().contains(&manager.api_key));
    assert_eq!(executions(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_stored_before_a_crash_starts_once_after_it() {
    let manager = TestManager::start().await;
    Client::of(&manager).apply(PIPELINE).await;
    let event = TriggerEvent {
        id: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        pipeline: "payment-service_cd".to_owned(),
        trigger: "app_image_trigger".to_owned(),
        at: 1,
        done: false,
        doc: json!({"kind": "webhook", "scope": "default/platform", "by": "dev", "payload": body()}),
    };
    // Written behind the manager's back: it is stored and nobody was woken, as when the process dies there.
    assert!(manager.app.store.add_trigger_event(event.clone()).await.unwrap());
    let dir = manager.stop().await;
    for _ in 0..2 {
        let manager = TestManager::start_in(dir.clone(), config(dir.path())).await;
        let client = Client::of(&manager);
        let details = details(&manager, &event.id).await;
        assert_eq!(
            details["webhookProcessingDetails"]["status"], "TARGET_EXECUTION_REQUESTED",
            "{details:#}"
        );
        assert_eq!(executions(&client).await, 1);
        let row = &client.get("/executions").await[0];
        assert_eq!((&row["startedBy"], &row["sequenceId"]), (&json!("dev"), &json!(1)));
        manager.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_fires_once_for_each_tick_also_across_a_restart() {
    let manager = TestManager::start().await;
    let client = Client::of(&manager);
    client.apply(PIPELINE).await;
    let cron = "trigger: {identifier: nightly, name: nightly, pipelineIdentifier: payment-service_cd, orgIdentifier: default, \
                projectIdentifier: platform, source: {type: Scheduled, spec: {type: Cron, spec: {type: UNIX, \
                expression: '0 2 * * *', timezone: Europe/Berlin}}}}\n";
    client.apply(cron).await;
    let fact = "trigger.schedule/default/platform/payment-service_cd/nightly";
    until("the schedule is known", || async { manager.app.store.get_fact(fact).await.unwrap() }).await;
    assert_eq!(executions(&client).await, 0);
    let next = client.get("/triggers/nightly").await["nextAt"].as_u64().unwrap();
    let now = manager::clock::Clock::wall(manager.clock.as_ref());
    manager.clock.shift(Duration::from_millis(next - now + 1000));
    until("the tick fires", || async { (executions(&client).await > 0).then_some(()) }).await;
    let events = until("the event has its result", || async {
        let events = client.get("/trigger-events?trigger=nightly").await;
        (events[0]["status"] != "QUEUED").then_some(events)
    })
    .await;
    assert_eq!(events.as_array().unwrap().len(), 1, "{events:#}");
    assert_eq!(
        (&events[0]["status"], &events[0]["kind"]),
        (&json!("TARGET_EXECUTION_REQUESTED"), &json!("tick"))
    );
    // As if the process had died between the event and the note of the last tick.
    let mut before = until("the tick is noted", || async {
        let text = manager.app.store.get_fact(fact).await.unwrap().unwrap();
        Some(serde_json::from_str::<Value>(&text).unwrap()).filter(|kept| kept["last"] == next)
    })
    .await;
    before["last"] = (next - 60_000).into();
    manager.app.store.put_fact(fact, &before.to_string()).await.unwrap();
    until("the tick is looked at again", || async {
        let text = manager.app.store.get_fact(fact).await.unwrap().unwrap();
        (serde_json::from_str::<Value>(&text).unwrap()["last"] == next).then_some(())
    })
    .await;
    assert_eq!(client.get("/trigger-events?trigger=nightly").await.as_array().unwrap().len(), 1);
    assert_eq!(executions(&client).await, 1);
    // Away for three days and a half, far from the next tick on whatever day clocks change: nothing old is started, and
    // the log says so.
    manager.clock.shift(Duration::from_secs(3 * 86_400 + 12 * 3_600));
    let events = until("the missed ticks are written down", || async {
        let events = client.get("/trigger-events?trigger=nightly").await;
        (events.as_array().unwrap().len() == 2).then_some(events)
    })
    .await;
    assert_eq!(events[0]["status"], "SCHEDULED_TIME_MISSED", "{events:#}");
    assert_eq!(executions(&client).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_sets_are_named_by_a_run_and_by_a_trigger() {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    client.apply(PIPELINE).await;
    client
        .apply("inputSet: {identifier: prod, name: prod, orgIdentifier: default, projectIdentifier: platform, pipeline: {identifier: payment-service_cd, variables: {targetEnvironment: prod, imageTag: v1}}}\n")
        .await;
    let (status, reply) = client
        .start("payment-service_cd", json!({"inputSets": ["prod"], "inputs": {"imageTag": "v9"}}))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{reply}");
    let view = client.get(&format!("/executions/{}", reply["executionId"].as_str().unwrap())).await;
    assert_eq!(view["stages"][0]["name"], "Deploy v9 to prod");
    let (status, reply) = client.start("payment-service_cd", json!({"inputSets": ["pro"]})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reply.to_string().contains("did you mean `prod`?"), "{reply}");
    assert_eq!(client.get("/entities?kind=inputSet").await[0]["id"], "prod");
    let (status, reply) = client.call(Method::GET, "/triggers/app_image_trigge", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(reply.to_string().contains("app_image_trigger"), "{reply}");
}
