//! Webhooks through the product's own processes: an answered event starts exactly one execution, whatever happens to the
//! manager afterwards, and the command line tells what became of it.

use e2e::wait::until;
use e2e::world::Manager;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const PIPELINE: &str = r#"pipeline:
  name: image pipeline
  identifier: image_cd
  orgIdentifier: default
  projectIdentifier: platform
  variables:
    - {name: imageTag, type: String, value: <+input>}
  stages:
    - stage:
        name: Deploy <+pipeline.variables.imageTag>
        identifier: deploy
        type: Custom
        spec:
          execution:
            steps:
              - step: {identifier: wait, name: wait, type: Wait, spec: {duration: 1s}}
  triggers:
    - trigger:
        name: Image built
        identifier: image_built
        source:
          type: Webhook
          spec:
            type: Custom
            spec:
              payloadConditions:
                - {key: image_tag, operator: NotNull, value: ""}
        inputYaml: |
          pipeline:
            identifier: image_cd
            variables:
              imageTag: <+trigger.payload.image_tag>
"#;

/// Sends an event; the answer names it.
async fn send(manager: &Manager, tag: Option<&str>) -> String {
    let query = "accountIdentifier=default&orgIdentifier=default&projectIdentifier=platform\
                 &pipelineIdentifier=image_cd&triggerIdentifier=image_built";
    let url = format!("{}/gateway/ng/api/webhook/custom/v2?{query}", manager.url);
    let request = reqwest::Client::new().post(url).header("X-Api-Key", &manager.api_key);
    let reply = request.body(json!({ "image_tag": tag }).to_string()).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    reply["data"]["eventCorrelationId"].as_str().unwrap().to_owned()
}

/// An event that was processed, as `trigger events` prints it.
async fn processed(manager: &Manager, event: &str) -> Value {
    until("the event is processed", LIMIT, || async {
        let events = manager.json(&["trigger", "events", "--trigger", "image_built", "--output", "json"]);
        let found = events.as_array().unwrap().iter().find(|one| one["eventId"] == event).cloned();
        found.filter(|one| one["status"] != "QUEUED")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_event_starts_one_execution_whenever_the_manager_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = Manager::start(dir.path());
    manager.apply("pipeline", PIPELINE);
    let mut events = Vec::new();
    for round in 0..6 {
        let event = send(&manager, Some(&format!("v{round}"))).await;
        // As soon as it is answered, or as soon as it is processed.
        if round % 3 == 2 {
            processed(&manager, &event).await;
        }
        manager.kill9();
        manager.launch();
        events.push(event);
    }
    for (round, event) in events.iter().enumerate() {
        let event = processed(&manager, event).await;
        assert_eq!(event["status"], "TARGET_EXECUTION_REQUESTED", "{event:#}");
        let view = manager.finished(event["executionId"].as_str().unwrap(), LIMIT).await;
        assert_eq!(
            (&view["status"], &view["stages"][0]["name"]),
            (&json!("Success"), &json!(format!("Deploy v{round}")))
        );
    }
    let list = manager.json(&["execution", "list", "--output", "json"]);
    assert_eq!(list.as_array().unwrap().len(), events.len(), "one each: {list:#}");

    let event = send(&manager, None).await;
    let event = processed(&manager, &event).await;
    assert_eq!(event["status"], "NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS");
    let table = manager.ok(&["trigger", "events"]);
    assert!(
        table.contains("NO_MATCHING_TRIGGER_FOR_PAYLOAD_CONDITIONS") && table.contains("image_tag"),
        "{table}"
    );
    assert!(manager.ok(&["trigger", "list"]).contains("image_built"));
    let yaml = manager.ok(&["trigger", "show", "image_built"]);
    assert!(yaml.contains("payloadConditions"), "{yaml}");
}
