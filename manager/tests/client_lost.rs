//! Steps whose timeout runs out while nobody works on them: the agent is lost, or all fitting ones are busy.

#![expect(clippy::unwrap_used, reason = "A test ends at the first fault.")]

mod client_support;
mod support;

use client_support::{Agent, Client, Say, custom, find_step, noop, success};
use manager::engine::task_id;
use manager::queue::Queue;
use proto::response::TaskResponse;
use proto::result::StepResult;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::{TestManager, until};

async fn manager() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    (manager, client)
}

/// Lets time pass. The engine sleeps by the real clock; a run that sets a timer makes it look.
async fn pass(manager: &TestManager, client: &Client, time: Duration) {
    manager.clock.shift(time);
    wake(client).await;
}

async fn wake(client: &Client) {
    client
        .apply(&custom("wake", "", "- step: {identifier: w, name: w, type: Wait, spec: {duration: 1h}}\n"))
        .await;
    client.run("wake").await;
}

/// The execution's step `a` runs on `zone-a`, which then falls silent. Gives execution, node and the agent's id.
async fn lose(manager: &Arc<TestManager>, client: &Client) -> (String, String, String) {
    client.apply(&custom("p", "", &noop("a", "timeout: 6m"))).await;
    lose_at_work(manager, client, None).await
}

/// The same for the pipeline `p` that is stored, with a checkpoint that the agent had sent.
async fn lose_at_work(
    manager: &Arc<TestManager>,
    client: &Client,
    checkpoint: Option<Value>,
) -> (String, String, String) {
    let agent = Agent::start(manager, "zone-a", &[], |_| Say::Nothing).await;
    let id = client.run("p").await;
    until("the step runs", || async { (agent.names().len() == 1).then_some(()) }).await;
    // Its next poll has arrived: it would otherwise be a sign of life from after the time that passes.
    until("it asks again", || async { manager.app.queue.agents().iter().find(|a| a.polls > 0).map(|_| ()) })
        .await;
    let view = client.get(&format!("/executions/{id}")).await;
    let node = find_step(&view, "a").unwrap()["node"].as_str().unwrap().to_owned();
    if let Some(checkpoint) = checkpoint {
        let holder = manager.app.queue.agents().iter().map(|one| one.agent.id.clone()).next().unwrap();
        manager.app.store.checkpoint(&task_id(&id, &node, 1), &holder, 1, checkpoint).await.unwrap();
    }
    agent.stop().await;
    let agent = until("the agent is gone", || async {
        let agents = manager.app.queue.agents();
        agents.iter().find(|agent| agent.polls == 0).map(|agent| agent.agent.id.clone())
    })
    .await;
    (id, node, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_step_of_a_lost_agent_fails_as_a_restart_and_its_late_result_changes_nothing() {
    let (manager, client) = manager().await;
    let (id, node, agent) = lose(&manager, &client).await;
    pass(&manager, &client, Duration::from_mins(10)).await;
    let view = client.ended(&id).await;
    let failure = &find_step(&view, "a").unwrap()["failure"];
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert_eq!((&failure["class"], &failure["kind"]), (&json!("DelegateRestart"), &json!("DelegateRestart")));
    assert_eq!(failure["code"], "PIPE-007");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("zone-a") && message.contains("silent for 10m"), "{message}");
    // A manager that has just started has heard nobody yet: it calls no agent lost.
    let restarted = Queue::load(manager.app.store.as_ref(), manager.clock.clone()).await.unwrap();
    assert_eq!(manager.app.queue.lost(&agent).unwrap().0, "zone-a");
    assert_eq!(restarted.lost(&agent), None);
    manager.clock.shift(Duration::from_mins(6));
    assert_eq!(restarted.lost(&agent).unwrap().0, "zone-a");
    let task = task_id(&id, &node, 1);
    let late = TaskResponse::ok(&task, "Noop", &StepResult { fence: 1, ..success() }).unwrap();
    let status = manager.respond(&agent, &task, serde_json::to_string(&late).unwrap()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(client.get(&format!("/tasks/{task}")).await["result"]["status"], "Success");
    let after = client.get(&format!("/executions/{id}")).await;
    assert_eq!((&after["version"], &after["status"]), (&view["version"], &json!("Failed")));
}

const ECS: &str = "
connector: {identifier: aws, name: aws, type: Aws, spec: {credential: {type: InheritFromDelegate}}}
---
environment: {identifier: prod, name: prod, type: Production}
---
service: {identifier: app, name: app, serviceDefinition: {type: ECS, spec: {ecsTaskDefinitionArn: app, serviceDefinition: {serviceName: app}}}}
---
infrastructureDefinition: {identifier: main, name: main, environmentRef: prod, deploymentType: ECS, type: ECS, spec: {connectorRef: aws, region: eu-west-1, cluster: main}}
---
pipeline:
  identifier: p
  name: p
  stages:
    - stage:
        identifier: s
        name: s
        type: Deployment
        spec:
          deploymentType: ECS
          service: {serviceRef: app}
          environment: {environmentRef: prod, infrastructureDefinitions: [{identifier: main}]}
          execution:
            steps:
              - step: {type: EcsRollingDeploy, identifier: a, name: a, timeout: 6m, spec: {}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_agent_undoes_what_the_checkpoints_of_a_lost_one_tell() {
    let (manager, client) = manager().await;
    client.apply(ECS).await;
    let undo = json!({ "v": 1, "undo": { "revision": 7 } });
    let checkpoint =
        json!({ "intent": "update app", "calls": ["ecs:UpdateService"], "state": {}, "undo": undo });
    let (id, ..) = lose_at_work(&manager, &client, Some(checkpoint)).await;
    pass(&manager, &client, Duration::from_mins(10)).await;
    let agent = Agent::start(&manager, "zone-b", &[], |_| success().into()).await;
    let view = client.ended(&id).await;
    assert_eq!((&view["status"], &view["rolledBack"]), (&json!("Failed"), &json!(true)), "{view:#}");
    let taken = agent.stop().await;
    let undone = taken.iter().find(|taken| taken.name() == "undo_a").unwrap();
    assert_eq!(undone.task.undo, Some(undo));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_still_shows_up_is_asked_to_end_and_the_step_times_out() {
    let (manager, client) = manager().await;
    client.apply(&custom("p", "", &noop("a", "timeout: 6m"))).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| Say::Hold).await;
    let id = client.run("p").await;
    until("the step runs", || async { (agent.names().len() == 1).then_some(()) }).await;
    manager.clock.shift(Duration::from_mins(10));
    let now = manager::clock::Clock::wall(manager.clock.as_ref());
    until("it shows up at the new time", || async {
        manager.app.queue.agents().iter().find(|a| a.agent.last_heartbeat >= now).map(|_| ())
    })
    .await;
    wake(&client).await;
    let view = client.ended(&id).await;
    let failure = &find_step(&view, "a").unwrap()["failure"];
    assert_eq!(view["status"], "Expired", "{view:#}");
    assert_eq!(failure["class"], "Timeout", "{view:#}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_busy_agents_ends_as_a_timeout_that_says_so() {
    let (manager, client) = manager().await;
    client.apply(&custom("long", "", &noop("a", "timeout: 1h"))).await;
    client.apply(&custom("short", "", &noop("b", "timeout: 1m"))).await;
    let agent = Agent::start_with_capacity(&manager, "zone-a", 1, |_| Say::Hold).await;
    client.run("long").await;
    until("the agent is busy", || async { (agent.names().len() == 1).then_some(()) }).await;
    let id = client.run("short").await;
    let busy = "all 1 fitting agents are busy";
    let view = client.get(&format!("/executions/{id}")).await;
    assert_eq!(find_step(&view, "b").unwrap()["waitingFor"], Value::from(busy), "{view:#}");
    pass(&manager, &client, Duration::from_mins(2)).await;
    let view = client.ended(&id).await;
    let failure = &find_step(&view, "b").unwrap()["failure"];
    assert_eq!((&view["status"], &failure["class"]), (&json!("Expired"), &json!("Timeout")), "{view:#}");
    assert!(failure["message"].as_str().unwrap().contains(busy), "{failure}");
    assert_eq!(agent.names(), ["a"]);
    agent.stop().await;
}
