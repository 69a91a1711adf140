//! The manager driven by requests exactly as foreign clients send them (protocol facts §4.7, observed cases).

mod support;

use manager::store::{Effect, TaskStatus};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use support::{TestManager, own_body, task, until};
use tokio::time::Instant;

const DLITE: &str = "DLITE_CI_VM_EXECUTE_TASK_V2";
const NOOP: &str = "DELEGATE_NOOP_TASK";

#[tokio::test]
async fn a_foreign_client_goes_through_register_poll_acquire_response() {
    let m = TestManager::start().await;
    let id = m.register_dlite("a", &[DLITE], &["linux"]).await;
    assert_eq!(id, m.register_dlite("a", &[DLITE], &["linux"]).await, "registration is idempotent");
    assert_eq!(m.poll_text(&id, "").await, r#"{"delegateTaskEvents":[]}"#);
    m.app.store.enqueue(task("t1", DLITE, &["LINUX "])).await.unwrap();
    let text = m.poll_text(&id, "").await;
    assert!(text.starts_with(r#"{"delegateTaskEvents":[{"eventType":"DelegateTaskEvent","#), "{text}");
    let package = m.acquire(&id, "t1").await.unwrap();
    assert_eq!(package["id"], "t1");
    assert_eq!(package["type"], DLITE);
    assert_eq!(package["data"], json!({"z": 1, "a": ["kept as it is"]}));
    assert_eq!(package["timeout"], 600_000);
    assert_eq!(package["delegate"]["id"], json!(id));
    assert_eq!(package["delegate"]["instance_id"], json!(id));
    assert!(package["logging"]["abstractions"].as_object().unwrap().values().all(Value::is_string));
    assert_eq!(package["logging"]["abstractions"].as_object().unwrap().keys().next().unwrap(), "accountId");
    assert_eq!(package["async"], true);
    assert!(package.get("delegateExt").is_none(), "a foreign client sees nothing of ours");
    // A lost acquire reply: listed again to its own delegate, and the same instance gets the same package.
    assert_eq!(m.poll(&id, "").await, ["t1"]);
    assert_eq!(m.acquire(&id, "t1").await.unwrap()["id"], "t1");
    let answer =
        json!({"id": "", "type": DLITE, "code": "OK", "data": {"command_execution_status": "SUCCESS"}});
    assert_eq!(m.respond(&id, "t1", format!("{answer}\n")).await, StatusCode::NO_CONTENT);
    assert!(m.poll(&id, "").await.is_empty());
    assert_eq!(m.acquire(&id, "t1").await, Err(StatusCode::CONFLICT), "a finished task is refused");
    let row = m.app.store.task("t1").await.unwrap().unwrap();
    assert_eq!(
        row.result.as_ref().unwrap()["outputs"]["data"]["value"]["command_execution_status"],
        "SUCCESS"
    );
    // First wins; repeats are acknowledged.
    let other = json!({"id": "t1", "type": DLITE, "code": "FAILED", "data": null});
    assert_eq!(m.respond(&id, "t1", other.to_string()).await, StatusCode::NO_CONTENT);
    assert_eq!(m.app.store.task("t1").await.unwrap().unwrap().result, row.result);
    assert_eq!(m.respond(&id, "nowhere", other.to_string()).await, StatusCode::NO_CONTENT);
    assert_eq!(m.respond(&id, "t1", String::new()).await, StatusCode::BAD_REQUEST, "an empty body is told");
    assert_eq!(m.respond(&id, "t1", "{".to_owned()).await, StatusCode::BAD_REQUEST);
    m.stop().await;
}

#[tokio::test]
async fn registrations_are_told_apart_as_the_protocol_says() {
    let m = TestManager::start().await;
    let a = m.register_dlite("a", &[DLITE], &[]).await;
    let b = m.register_dlite("b", &[DLITE], &[]).await;
    assert_ne!(a, b);
    // Two agents on one machine are two agents; one agent with another host name stays one.
    let one = m.register_own("i-1", "zone", &[NOOP], &[], "").await;
    let two = m.register_own("i-2", "zone", &[NOOP], &[], "").await;
    assert_ne!(one, two);
    assert_eq!(one, m.register_own("i-1", "renamed", &[NOOP], &[], "").await);
    let at_once =
        futures::future::join_all((0..8).map(|_| m.register_own("i-3", "z", &[NOOP], &[], ""))).await;
    assert!(at_once.iter().all(|id| *id == at_once[0]), "{at_once:?}");
    // Never 204, and nonsense is told.
    let path = "/api/agent/delegates/register?accountId=default";
    for bad in ["", "[]", "{", r#"{"accountId":"other","hostName":"h"}"#, "{}"] {
        let reply = m.call(Method::POST, path).body(bad).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::BAD_REQUEST, "{bad}");
        assert_eq!(reply.headers()["X-Harness-Error"], "INVALID_REQUEST");
        let body: Value = reply.json().await.unwrap();
        assert_eq!(body["responseMessages"][0]["level"], "ERROR");
        assert!(body["resource"].is_null());
    }
    m.stop().await;
}

#[tokio::test]
async fn heartbeats_of_unknown_agents_are_registrations_unless_they_unregistered() {
    let m = TestManager::start().await;
    let beat = |m: &TestManager, id: &str| {
        let mut body: Value = serde_json::from_str(&m.dlite_body("h", &[DLITE], &[])).unwrap();
        body["delegateId"] = json!(id);
        let call = m.call(Method::POST, "/api/agent/delegates/heartbeat-with-polling?accountId=default");
        call.body(body.to_string()).send()
    };
    let reply: Value = beat(&m, "q3nD1mZrQ4yJb0Jm2mS1xA").await.unwrap().json().await.unwrap();
    assert_eq!(reply["resource"]["status"], "ENABLED");
    assert_eq!(reply["resource"]["delegateId"], "q3nD1mZrQ4yJb0Jm2mS1xA");
    assert_eq!(reply["resource"]["useCdn"], false);
    m.app.store.enqueue(task("t1", DLITE, &[])).await.unwrap();
    assert_eq!(m.poll("q3nD1mZrQ4yJb0Jm2mS1xA", "").await, ["t1"]);
    let path = "/api/agent/delegates/unregister?accountId=default";
    let body = json!({"delegateId": "q3nD1mZrQ4yJb0Jm2mS1xA", "hostName": "dlite-h", "ng": true});
    assert_eq!(
        m.call(Method::POST, path).body(body.to_string()).send().await.unwrap().status(),
        StatusCode::OK
    );
    assert!(m.poll("q3nD1mZrQ4yJb0Jm2mS1xA", "").await.is_empty());
    let reply: Value = beat(&m, "q3nD1mZrQ4yJb0Jm2mS1xA").await.unwrap().json().await.unwrap();
    assert_eq!(reply["resource"]["status"], "DELETED");
    assert_eq!(m.acquire("q3nD1mZrQ4yJb0Jm2mS1xA", "t1").await, Err(StatusCode::CONFLICT));
    // Registering again is a new life.
    assert_eq!(m.register_dlite("h", &[DLITE], &[]).await, "q3nD1mZrQ4yJb0Jm2mS1xA");
    assert_eq!(m.poll("q3nD1mZrQ4yJb0Jm2mS1xA", "").await, ["t1"]);
    m.stop().await;
}

#[tokio::test]
async fn a_long_poll_is_woken_by_the_commit() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &["a"], "").await;
    let began = Instant::now();
    let ((), events) = tokio::join!(
        async {
            // The poll is open once the queue counts it; only then the task comes.
            until("the poll is open", || async { m.app.queue.presence(&id).filter(|p| p.polls > 0) }).await;
            m.app.store.enqueue(task("t1", NOOP, &["a"])).await.unwrap();
        },
        m.poll(&id, "&wait_ms=20000"),
    );
    assert_eq!(events, ["t1"]);
    assert!(began.elapsed() < Duration::from_secs(15), "it did not wait for its end: {:?}", began.elapsed());
    // Nothing to say: it ends with the wait.
    m.acquire(&id, "t1").await.unwrap();
    assert!(m.poll(&id, "&wait_ms=50").await.is_empty());
    let path = format!("/api/agent/delegates/{id}/task-events?accountId=default&wait_ms=x");
    assert_eq!(m.call(Method::GET, &path).send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    m.stop().await;
}

#[tokio::test]
async fn a_stop_ends_long_polls_at_once() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &[], "").await;
    let path = format!("{}/api/agent/delegates/{id}/task-events?accountId=default&wait_ms=30000", m.url);
    let bearer = format!("Delegate {}", m.bearer());
    let poll = tokio::spawn(reqwest::Client::new().get(path).header("Authorization", bearer).send());
    until("the poll is open", || async { m.app.queue.presence(&id).filter(|p| p.polls > 0) }).await;
    let began = Instant::now();
    m.stop().await;
    // One that is cut off has no answer.
    assert_eq!(poll.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_task_goes_only_where_its_selectors_type_and_secrets_fit() {
    let m = TestManager::start().await;
    let a = m.register_own("i-a", "zone-a", &[NOOP], &["linux", "dc1"], "").await;
    let b = m.register_own("i-b", "zone-b", &[NOOP], &["linux", "dc2"], "AAAA").await;
    let foreign = m.register_dlite("f", &[DLITE], &["linux", "dc1", "dc2"]).await;
    m.app.store.enqueue(task("for-a", NOOP, &["Linux", "DC1"])).await.unwrap();
    m.app.store.enqueue(task("for-b-host", NOOP, &["zone-b-host"])).await.unwrap();
    m.app.store.enqueue(task("for-nobody", NOOP, &["linux", "dc1", "gpu"])).await.unwrap();
    let mut secret = task("secret", NOOP, &["linux"]);
    secret.secrets = vec!["db_pw".to_owned()];
    m.app.store.enqueue(secret).await.unwrap();
    assert_eq!(m.poll(&a, "").await, ["for-a"]);
    assert_eq!(m.poll(&b, "").await, ["for-b-host", "secret"]);
    assert!(m.poll(&foreign, "").await.is_empty(), "a foreign client never sees our dialect");
    // What was not offered cannot be taken either.
    for (agent, id) in [(&b, "for-a"), (&a, "for-nobody"), (&a, "secret"), (&foreign, "for-a")] {
        assert_eq!(m.acquire(agent, id).await, Err(StatusCode::CONFLICT), "{id}");
    }
    let why = m.app.queue.explain("for-nobody").unwrap().sentence();
    assert!(
        why.contains("gpu") && why.contains("zone-a lacks gpu") && why.contains("zone-b lacks dc1, gpu"),
        "{why}"
    );
    // A secret that does not exist fails the task with a hint instead of leaving it hanging.
    assert_eq!(m.acquire(&b, "secret").await, Err(StatusCode::CONFLICT));
    let row = m.app.store.task("secret").await.unwrap().unwrap();
    assert_eq!(row.result.unwrap()["failure"]["code"], "MGR-010");
    m.stop().await;
}

#[tokio::test]
async fn two_replicas_race_and_one_wins() {
    let m = TestManager::start().await;
    let mut agents = Vec::new();
    for n in 0..4 {
        agents.push(m.register_own(&format!("i-{n}"), "zone", &[NOOP], &[], "").await);
    }
    for n in 0..20 {
        m.app.store.enqueue(task(&format!("t{n}"), NOOP, &["zone"])).await.unwrap();
    }
    let all = agents.iter().flat_map(|agent| (0..20).map(move |n| (agent, format!("t{n}"))));
    let m_ref = &m;
    let outcomes = futures::future::join_all(
        all.map(|(agent, id)| async move { (id.clone(), m_ref.acquire(agent, &id).await.is_ok()) }),
    )
    .await;
    for n in 0..20 {
        let winners = outcomes.iter().filter(|(id, won)| *won && *id == format!("t{n}")).count();
        assert_eq!(winners, 1, "t{n}");
    }
    m.stop().await;
}

#[tokio::test]
async fn without_a_fitting_agent_the_task_ends_with_the_explanation() {
    let m = TestManager::start_with(|config| config.agent_wait = Duration::from_millis(300)).await;
    m.register_own("i-a", "zone-a", &[NOOP], &["linux"], "").await;
    m.app.store.enqueue(task("t1", NOOP, &["windows"])).await.unwrap();
    let row = until("the task ends", || async {
        m.app.store.task("t1").await.unwrap().filter(|row| row.result.is_some())
    })
    .await;
    let failure = &row.result.unwrap()["failure"];
    assert_eq!(failure["kind"], "DelegateProvisioning");
    assert_eq!(failure["code"], "MGR-009");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("windows") && message.contains("zone-a lacks windows"), "{message}");
    // One that fits appears in time, which stands still until it has: the task waits on.
    m.clock.fix(manager::clock::Clock::wall(m.clock.as_ref()));
    m.app.store.enqueue(task("t2", NOOP, &["bsd"])).await.unwrap();
    let b = m.register_own("i-b", "zone-b", &[NOOP], &["bsd"], "").await;
    m.clock.fix(0);
    assert_eq!(m.poll(&b, "&wait_ms=5000").await, ["t2"]);
    // A later task that nobody fits runs out of time; the one that an agent fits has waited longer and is still there.
    m.app.store.enqueue(task("t3", NOOP, &["plan9"])).await.unwrap();
    until("t3 ends", || async { m.app.store.task("t3").await.unwrap().filter(|row| row.result.is_some()) })
        .await;
    assert!(
        m.app.store.task("t2").await.unwrap().unwrap().result.is_none(),
        "agent_wait ran although an agent fits"
    );
    m.stop().await;
}

#[tokio::test]
async fn extended_agents_get_fences_checkpoints_and_verdicts() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &[], "").await;
    m.app.store.enqueue(task("t1", NOOP, &[])).await.unwrap();
    let package = m.acquire_as(&id, "t1", "i-1").await.unwrap();
    assert_eq!(package["delegateExt"]["fence"], 1);
    assert_eq!(package["delegate"]["instance_id"], "i-1");
    let put = |fence: u64, body: &'static str| {
        let path =
            format!("/api/agent/ext/tasks/t1/checkpoint?accountId=default&delegateId={id}&fence={fence}");
        m.call(Method::PUT, &path).body(body).send()
    };
    assert_eq!(put(1, r#"{"n":1}"#).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(
        put(1, r#"{"n":1}"#).await.unwrap().status(),
        StatusCode::NO_CONTENT,
        "a repeat is stored once"
    );
    assert_eq!(put(1, r#"{"n":2}"#).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(put(2, r#"{"n":3}"#).await.unwrap().status(), StatusCode::CONFLICT);
    assert_eq!(put(0, r#"{"n":3}"#).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let path = format!("/api/agent/ext/tasks/t1/progress?accountId=default&delegateId={id}");
    let units = json!([{"unit": "Execute", "status": "RUNNING", "startedAt": 5}]);
    let put = m.call(Method::PUT, &path).body(units.to_string()).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::NO_CONTENT);
    let row = m.app.store.task("t1").await.unwrap().unwrap();
    assert_eq!(row.progress.unwrap()[0]["unit"], "Execute");
    // After a restart the same instance acquires again and gets its checkpoints back under the same fence.
    let again = m.acquire_as(&id, "t1", "i-1").await.unwrap();
    assert_eq!(again["delegateExt"]["checkpoints"], json!([{"n": 1}, {"n": 2}]));
    assert_eq!(again["delegateExt"]["fence"], 1);
    assert_eq!(m.acquire_as(&id, "t1", "another").await, Err(StatusCode::CONFLICT));
    let held = json!([{"taskId": "t1", "fence": 1}, {"taskId": "gone", "fence": 1}]);
    let body = own_body("i-1", "zone-a", &[NOOP], &[], "", Some(held));
    let mut body = body;
    body["delegateId"] = json!(id);
    let reply = m.heartbeat_own(body.clone()).await;
    let verdicts = &reply["resource"]["delegateExt"]["verdicts"];
    assert_eq!(
        verdicts,
        &json!([{"taskId": "t1", "verdict": "keep"}, {"taskId": "gone", "verdict": "lost"}])
    );
    // An answer under an old fence changes nothing.
    let result = |fence: u64, status: &str| {
        json!({"id": "t1", "type": NOOP, "code": "OK", "data": {"status": status, "fence": fence}})
            .to_string()
    };
    assert_eq!(m.respond(&id, "t1", result(9, "Failed")).await, StatusCode::NO_CONTENT);
    assert!(m.app.store.task("t1").await.unwrap().unwrap().result.is_none());
    assert_eq!(m.respond(&id, "t1", result(1, "Success")).await, StatusCode::NO_CONTENT);
    let row = m.app.store.task("t1").await.unwrap().unwrap();
    assert_eq!(row.result.as_ref().unwrap()["status"], "Success");
    assert_eq!(row.result.unwrap()["agent"], "zone-a");
    let reply = m.heartbeat_own(body).await;
    assert_eq!(reply["resource"]["delegateExt"]["verdicts"][0]["verdict"], "lost");
    m.stop().await;
}

#[tokio::test]
async fn many_calls_in_one_request_are_what_the_single_ones_are() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &["linux"], "").await;
    for task_id in ["t1", "t2"] {
        m.app.store.enqueue(task(task_id, NOOP, &[])).await.unwrap();
    }
    m.app.store.enqueue(task("t3", NOOP, &["plan9"])).await.unwrap();
    let path = format!("/api/agent/ext/calls?accountId=default&delegateId={id}");
    let ask = async |body: String| m.call(Method::POST, &path).body(body).send().await.unwrap();
    let calls = async |calls: Value| ask(calls.to_string()).await.json::<Value>().await.unwrap();
    let acquire =
        |task: &str, instance: &str| json!({"verb": "acquire", "taskId": task, "instanceId": instance});
    let got = calls(json!([
        acquire("t1", "i-1"),
        acquire("t3", "i-1"),
        acquire("t2", "i-1"),
        acquire("t9", "i-1"),
        acquire("t1", "other"),
    ]))
    .await;
    let statuses: Vec<u64> =
        got.as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 409, 200, 409, 409]);
    assert_eq!(
        got[0]["body"],
        m.acquire_as(&id, "t1", "i-1")
            .await
            .map(|mut single| {
                // Minted for each reply.
                single["logging"]["token"] = got[0]["body"]["logging"]["token"].clone();
                single
            })
            .unwrap()
    );
    assert_eq!(got[2]["body"]["delegateExt"]["fence"], 1);
    let units = json!([{"unit": "Execute", "status": "RUNNING", "startedAt": 5}]);
    let answer = |fence: u64| json!({"id": "t2", "type": NOOP, "code": "OK", "data": {"status": "Success", "fence": fence}});
    let got = calls(json!([
        {"verb": "checkpoint", "taskId": "t1", "fence": 1, "body": {"n": 1}},
        {"verb": "checkpoint", "taskId": "t1", "fence": 7, "body": {"n": 2}},
        {"verb": "checkpoint", "taskId": "t1", "body": {"n": 2}},
        {"verb": "progress", "taskId": "t1", "body": units},
        {"verb": "progress", "taskId": "t1", "body": 7},
        {"verb": "respond", "taskId": "t2", "body": answer(1)},
        {"verb": "respond", "taskId": "t9", "body": answer(1)},
        {"verb": "respond", "taskId": "t1"},
    ]))
    .await;
    let statuses: Vec<u64> =
        got.as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [204, 409, 400, 204, 400, 204, 204, 400]);
    let row = m.app.store.task("t1").await.unwrap().unwrap();
    assert_eq!(row.progress.unwrap()[0]["unit"], "Execute");
    assert_eq!(m.app.store.checkpoints("t1").await.unwrap(), [json!({"n": 1})]);
    assert_eq!(m.app.store.task("t2").await.unwrap().unwrap().result.unwrap()["agent"], "zone-a");
    for bad in [json!({}).to_string(), "[".to_owned(), json!([{"verb": "dance", "taskId": "t1"}]).to_string()]
    {
        assert_eq!(ask(bad).await.status(), StatusCode::BAD_REQUEST);
    }
    let many = json!(vec![acquire("t1", "i-1"); 129]);
    assert_eq!(ask(many.to_string()).await.status(), StatusCode::BAD_REQUEST);
    let stranger = m.http.post(format!("{}{path}", m.url)).body("[]").send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    m.stop().await;
}

#[tokio::test]
async fn a_package_that_is_too_large_for_company_is_given_by_itself() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &[], "").await;
    for task_id in ["t1", "t2"] {
        let mut large = task(task_id, NOOP, &[]);
        large.data = json!({"filler": "x".repeat(3 << 20)}).to_string();
        m.app.store.enqueue(large).await.unwrap();
    }
    let path = format!("/api/agent/ext/calls?accountId=default&delegateId={id}");
    let calls = json!([
        {"verb": "acquire", "taskId": "t1", "instanceId": "i-1"},
        {"verb": "acquire", "taskId": "t2", "instanceId": "i-1"},
    ]);
    let got: Value =
        m.call(Method::POST, &path).body(calls.to_string()).send().await.unwrap().json().await.unwrap();
    assert_eq!((&got[0]["status"], &got[1]["status"]), (&json!(200), &json!(413)));
    let alone = m.acquire_as(&id, "t2", "i-1").await.unwrap();
    assert_eq!(alone["delegateExt"]["fence"], 1, "it was this agent's already");
    m.stop().await;
}

#[tokio::test]
async fn a_lost_acquire_reply_is_made_good_by_the_heartbeat() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &[], "").await;
    m.app.store.enqueue(task("t1", NOOP, &[])).await.unwrap();
    m.acquire_as(&id, "t1", "i-1").await.unwrap();
    assert!(m.poll(&id, "&wait_ms=50").await.is_empty(), "a held task does not wake its agent");
    let mut body = own_body("i-1", "zone-a", &[NOOP], &[], "", Some(json!([])));
    body["delegateId"] = json!(id);
    // The reply may be on its way during the first heartbeat; a second one without the task says it was lost.
    m.clock.shift(Duration::from_secs(10));
    m.heartbeat_own(body.clone()).await;
    m.clock.shift(Duration::from_secs(10));
    m.heartbeat_own(body).await;
    assert_eq!(m.poll(&id, "&wait_ms=5000").await, ["t1"]);
    assert!(m.poll(&id, "&wait_ms=50").await.is_empty(), "once for each heartbeat");
    m.stop().await;
}

#[tokio::test]
async fn state_survives_a_restart_of_the_manager() {
    let m = TestManager::start().await;
    let id = m.register_own("i-1", "zone-a", &[NOOP], &["a"], "").await;
    for n in ["t1", "t2", "t3"] {
        m.app.store.enqueue(task(n, NOOP, &["a"])).await.unwrap();
    }
    m.acquire_as(&id, "t1", "i-1").await.unwrap();
    m.acquire_as(&id, "t2", "i-1").await.unwrap();
    let done = json!({"id": "t2", "type": NOOP, "code": "OK", "data": {"status": "Success", "fence": 1}});
    assert_eq!(m.respond(&id, "t2", done.to_string()).await, StatusCode::NO_CONTENT);
    let token = m.token.clone();
    let dir = m.stop().await;
    let config = support::config(dir.path());
    let m = TestManager::start_in(dir, config).await;
    assert_eq!(m.token, token, "credentials are made once");
    assert_eq!(support::bootstrap(m.dir.path())["url"], json!(m.url), "the address is brought up to date");
    let mut listed = m.poll(&id, "&wait_ms=1000").await;
    listed.sort();
    assert_eq!(listed, ["t1", "t3"], "assigned and queued tasks are still there");
    let again = m.acquire_as(&id, "t1", "i-1").await.unwrap();
    assert_eq!(again["delegateExt"]["fence"], 1, "the same instance keeps its fence");
    m.stop().await;
}

#[tokio::test]
async fn aborts_reach_the_holder_and_the_task_is_refused_from_then_on() {
    let m = TestManager::start().await;
    let own = m.register_own("i-1", "zone-a", &[NOOP], &[], "").await;
    let foreign = m.register_dlite("f", &[DLITE], &[]).await;
    let store = &m.app.store;
    store.create_execution("e", "p", None, "me", 1, Box::new(|_| Ok(json!({})))).await.unwrap();
    for (id, task_type, agent) in [("t1", NOOP, &own), ("t2", DLITE, &foreign), ("t3", NOOP, &own)] {
        // t3 stays queued: nobody has its selector, so that it does not end the polls below.
        let mut queued = task(id, task_type, if id == "t3" { &["nobody"] } else { &[] });
        queued.execution_id = "e".to_owned();
        queued.node = id.to_owned();
        store.enqueue(queued).await.unwrap();
        if id != "t3" {
            m.acquire_as(agent, id, if task_type == NOOP { "i-1" } else { agent }).await.unwrap();
        }
    }
    let cancels = ["t1", "t2", "t3"].map(|node| Effect::CancelTask {
        node: node.to_owned(),
        attempt: 1,
        reason: "User".to_owned(),
    });
    let ask = async {
        until("the poll is open", || async { m.app.queue.presence(&own).filter(|p| p.polls > 0) }).await;
        store.transition("e", 0, json!(1), json!({}).into(), cancels.to_vec(), 2).await.unwrap();
    };
    let ((), text) = tokio::join!(ask, m.poll_text(&own, "&wait_ms=20000"));
    assert_eq!(
        text,
        r#"{"delegateTaskEvents":[{"eventType":"DelegateTaskAbortEvent","reason":"User","accountId":"default","delegateTaskId":"t1","sync":false,"taskType":null}]}"#
    );
    assert_eq!(m.poll(&foreign, "").await, ["t2"]);
    assert!(m.poll(&foreign, "").await.is_empty(), "an abort is handed out once to a foreign client");
    for (agent, id) in [(&own, "t1"), (&foreign, "t2"), (&own, "t3")] {
        assert_eq!(m.acquire(agent, id).await, Err(StatusCode::CONFLICT), "{id}");
    }
    let queued = m.app.store.task("t3").await.unwrap().unwrap();
    assert_eq!(
        (queued.status, queued.abort.as_deref()),
        (TaskStatus::Ended, Some("User")),
        "ended without an agent"
    );
    let mut body = own_body("i-1", "zone-a", &[NOOP], &[], "", Some(json!([{"taskId": "t1", "fence": 1}])));
    body["delegateId"] = json!(own);
    let reply = m.heartbeat_own(body).await;
    assert_eq!(reply["resource"]["delegateExt"]["verdicts"], json!([{"taskId": "t1", "verdict": "abort"}]));
    assert_eq!(m.poll(&own, "&wait_ms=1000").await, ["t1"], "ours is told again until it answers");
    let done = json!({"id": "t1", "type": NOOP, "code": "OK", "data": {"status": "Aborted", "fence": 1}});
    assert_eq!(m.respond(&own, "t1", done.to_string()).await, StatusCode::NO_CONTENT);
    assert_eq!(m.app.store.task("t1").await.unwrap().unwrap().result.unwrap()["status"], "Aborted");
    assert!(m.poll(&own, "&wait_ms=50").await.is_empty());
    m.stop().await;
}
