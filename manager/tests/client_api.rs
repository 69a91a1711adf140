//! Every resource of the client API: what it takes, what it refuses, and how it says so.

#![expect(clippy::indexing_slicing, reason = "A test ends at the first fault.")]

mod client_support;
mod support;

use client_support::{
    Agent, Client, ENTITIES, PEM, Say, custom, deployment, find_step, noop, output, script, success,
};
use proto::task::{ConnectorTestSpec, HostKeyMode, HostKeys, StepSpec};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::TestManager;

async fn manager() -> (Arc<TestManager>, Client) {
    let manager = Arc::new(TestManager::start().await);
    let client = Client::of(&manager);
    (manager, client)
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_asks_for_a_valid_key_and_a_revoked_one_counts_no_more() {
    let (_manager, client) = manager().await;
    let paths = [
        (Method::POST, "/apply"),
        (Method::GET, "/entities"),
        (Method::GET, "/entities/pipeline/p"),
        (Method::DELETE, "/entities/pipeline/p"),
        (Method::PUT, "/secrets/s"),
        (Method::GET, "/secrets"),
        (Method::DELETE, "/secrets/s"),
        (Method::POST, "/pipelines/validate"),
        (Method::POST, "/executions"),
        (Method::GET, "/executions"),
        (Method::GET, "/executions/x"),
        (Method::POST, "/executions/x/abort"),
        (Method::GET, "/executions/x/logs"),
        (Method::GET, "/agents"),
        (Method::POST, "/tokens"),
        (Method::GET, "/tokens"),
        (Method::DELETE, "/tokens/x"),
        (Method::POST, "/apikeys"),
        (Method::GET, "/apikeys"),
        (Method::DELETE, "/apikeys/x"),
        (Method::GET, "/hostkeys"),
        (Method::PUT, "/hostkeys/h"),
        (Method::DELETE, "/hostkeys/h"),
        (Method::POST, "/connectors/c/test"),
        (Method::POST, "/probes"),
        (Method::GET, "/tasks/t"),
        (Method::GET, "/no/such/path"),
    ];
    for key in ["", "wrong", "dlk.0000"] {
        for (method, path) in &paths {
            let (status, body) = client.with_key(key).call(method.clone(), path, json!({ "x": 1 })).await;
            assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "MGR-113"), "{method} {path}");
        }
    }
    let (status, made) = client.call(Method::POST, "/apikeys", json!({ "name": "ci" })).await;
    assert_eq!(status, StatusCode::CREATED);
    let ci = client.with_key(made["value"].as_str().unwrap());
    assert_eq!(ci.call(Method::GET, "/secrets", Value::Null).await.0, StatusCode::OK);
    let (status, body) = client.call(Method::POST, "/apikeys", json!({ "name": "ci" })).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "MGR-115"));
    assert_eq!(client.call(Method::DELETE, "/apikeys/ci", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ci.call(Method::GET, "/secrets", Value::Null).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(client.call(Method::DELETE, "/apikeys/ci", Value::Null).await.0, StatusCode::NOT_FOUND);
    let keys = client.get("/apikeys").await;
    let ci = keys.as_array().unwrap().iter().find(|key| key["name"] == "ci").unwrap();
    assert!(ci["revokedAt"].as_u64().is_some() && ci.get("value").is_none());
    let (status, token) = client.call(Method::POST, "/tokens", json!({ "name": "zone-b" })).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(token["value"].as_str().unwrap().len(), 32);
    assert_eq!(client.call(Method::DELETE, "/tokens/zone-b", Value::Null).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_applied_all_or_nothing_and_each_fault_says_where() {
    let (_manager, client) = manager().await;
    let good = custom("good", "", &noop("a", ""));
    let bad = custom("bad", "", &noop("a", "").replace("type: Noop", "type: Comand"));
    let documents = json!({ "documents": [{ "source": "good.yaml", "yaml": good }, { "source": "bad.yaml", "yaml": bad }] });
    let (status, body) = client.call(Method::POST, "/apply", documents).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MGR-110"), "{body}");
    let fault = &body["error"]["faults"][0];
    assert_eq!(fault["source"], "bad.yaml");
    assert!(fault["line"].as_u64().unwrap() > 5 && fault["column"].as_u64().unwrap() > 1, "{fault}");
    assert!(fault["suggestion"].as_str().unwrap().contains("Command"), "{fault}");
    assert_eq!(client.get("/entities").await, json!([]));
    for expected in ["created", "unchanged"] {
        assert_eq!(client.apply(&good).await["results"][0]["result"], expected);
    }
    assert_eq!(client.apply(&good.replace("hello", "bye")).await["results"][0]["result"], "changed");
    let shown = client.get("/entities/pipeline/good").await;
    assert!(shown["yaml"].as_str().unwrap().contains("bye"));
    let (status, body) = client.call(Method::GET, "/entities/pipeline/god", Value::Null).await;
    assert_eq!(
        (status, body["error"]["hint"].as_str()),
        (StatusCode::NOT_FOUND, Some("did you mean `good`?"))
    );
    let (status, _) = client.call(Method::GET, "/entities?kind=pipelin", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, body) = client.try_apply("x.yaml", "pipeline: [").await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MGR-110"));
    let twice = json!({ "documents": [{ "source": "1", "yaml": good }, { "source": "2", "yaml": good }] });
    assert_eq!(client.call(Method::POST, "/apply", twice).await.0, StatusCode::BAD_REQUEST);
    let (status, body) = client.call(Method::POST, "/apply", json!({ "documents": 7 })).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MGR-111"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_documents_are_refused() {
    let (_manager, client) = manager().await;
    let (status, body) = client.try_apply("big.yaml", &"a: b # filler\n".repeat(800_000)).await;
    assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "MGR-116"));
    let (status, _) =
        client.try_apply("deep.yaml", &format!("pipeline: {}1{}", "[".repeat(1000), "]".repeat(1000))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (one, two) in ["a", "b", "c", "d", "e", "f", "g"].iter().zip(["b", "c", "d", "e", "f", "g", "h"]) {
        bomb.push_str(&format!("{two}: &{two} [{}]\n", vec![format!("*{one}"); 10].join(", ")));
    }
    // One that is expanded has no end that a test could see.
    let (status, _) = client.try_apply("bomb.yaml", &bomb).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inline_secret_is_sealed_and_never_shown() {
    let (manager, client) = manager().await;
    let yaml = "secret:\n  identifier: db\n  name: db\n  type: SecretText\n  spec:\n    valueType: Inline\n    value: pl4nted-in-clear\n";
    let applied = client.apply(yaml).await;
    let notices = applied["notices"].as_array().unwrap();
    let notice = notices.iter().find(|notice| notice["code"] == "secret.inline-value").unwrap();
    assert_eq!((notice["line"].as_u64(), notice["column"].as_u64()), (Some(7), Some(12)));
    assert_eq!(client.apply(yaml).await["results"][0]["result"], "unchanged");
    assert_eq!(client.apply(&yaml.replace("pl4nted", "an0ther")).await["results"][0]["result"], "changed");
    assert!(!client.get("/entities/secret/db").await.to_string().contains("in-clear"));
    assert_eq!(client.get("/secrets").await[0]["id"], "db");
    for file in std::fs::read_dir(manager.dir.path()).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        assert!(!bytes.windows(8).any(|window| window == b"in-clear"), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_go_in_and_only_their_names_come_out() {
    let (_manager, client) = manager().await;
    assert_eq!(client.set_secret("pw", "hunter2").await["result"], "created");
    assert_eq!(client.set_secret("pw", "hunter2").await["result"], "unchanged");
    assert_eq!(client.set_secret("pw", "hunter3").await["result"], "changed");
    assert_eq!(client.set_secret("pin", "12").await["warnings"].as_array().unwrap().len(), 1);
    let list = client.get("/secrets").await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains("hunter"));
    let empty = client.request(Method::PUT, "/secrets/none").send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::BAD_REQUEST);
    let large =
        client.request(Method::PUT, "/secrets/big").body(vec![b'x'; 300 * 1024]).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(client.call(Method::DELETE, "/secrets/pw", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(client.call(Method::DELETE, "/secrets/pw", Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_running_execution_uses_is_not_deleted() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    client.apply(&deployment("d", &script("deploy", "go"), &script("undo", "back"))).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| Say::Hold).await;
    let id = client.run("d").await;
    support::until("it runs", || async { (!agent.names().is_empty()).then_some(()) }).await;
    let used = [
        "/entities/pipeline/d",
        "/entities/service/web",
        "/entities/environment/prod",
        "/entities/infrastructure/farm",
        "/secrets/pem",
    ];
    for path in used {
        let (status, body) = client.call(Method::DELETE, path, Value::Null).await;
        assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "MGR-115"), "{path}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(&id));
    }
    assert_eq!(
        client.call(Method::DELETE, "/entities/connector/registry", Value::Null).await.0,
        StatusCode::NO_CONTENT
    );
    client.call(Method::POST, &format!("/executions/{id}/abort"), Value::Null).await;
    client.ended(&id).await;
    for path in used {
        assert_eq!(client.call(Method::DELETE, path, Value::Null).await.0, StatusCode::NO_CONTENT, "{path}");
    }
    assert_eq!(client.get(&format!("/executions/{id}")).await["status"], "Aborted", "history stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_reports_everything_and_stores_nothing() {
    let (_manager, client) = manager().await;
    let yaml = custom("p", "", &(noop("a", "") + &noop("b", "").replace("type: Noop", "type: FooBar")));
    let body = json!({ "source": "p.yaml", "yaml": yaml });
    let (status, found) = client.call(Method::POST, "/pipelines/validate", body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(found["faults"].to_string().contains("FooBar"), "{found}");
    assert_eq!(client.get("/entities").await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_keys_are_accepted_listed_and_forgotten() {
    let (_manager, client) = manager().await;
    let print = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
    let (status, _) = client.call(Method::PUT, "/hostkeys/h.example", json!({ "key": print })).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let keys = client.get("/hostkeys").await;
    assert_eq!((&keys[0]["host"], &keys[0]["fingerprint"]), (&json!("h.example:22"), &json!(print)));
    let (status, _) = client.call(Method::PUT, "/hostkeys/h", json!({ "key": "nonsense" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        client.call(Method::DELETE, "/hostkeys/h.example:22", Value::Null).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        client.call(Method::DELETE, "/hostkeys/h.example:22", Value::Null).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_test_is_answered_by_an_agent() {
    let (manager, client) = manager().await;
    client.apply(ENTITIES).await;
    let (status, body) = client.call(Method::POST, "/connectors/registry/test", json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MGR-112"), "{body}");
    client.set_secret("registry_pw", "hunter2").await;
    client.set_secret("pem", PEM).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| {
        let stages =
            json!([{ "stage": "connect", "durationMs": 3, "ok": true, "message": "", "hint": null }]);
        let mut result = output("stages", stages);
        result.outputs.insert("ok".to_owned(), json!(true).into());
        result.agent = "zone-a".to_owned();
        result.into()
    })
    .await;
    let (status, report) = client.call(Method::POST, "/connectors/registry/test", json!({})).await;
    assert_eq!(
        (status, &report["ok"], &report["agent"]),
        (StatusCode::OK, &json!(true), &json!("zone-a")),
        "{report}"
    );
    assert_eq!(report["stages"][0]["stage"], "connect");
    let (status, _) = client.call(Method::POST, "/connectors/key/test", json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "an SSHKey secret needs a host");
    let (status, _) = client.call(Method::POST, "/connectors/key/test", json!({ "host": "h9" })).await;
    assert_eq!(status, StatusCode::OK);
    // One of a project is found without its scope, and not in another one.
    let inner = "connector: {identifier: inner, name: inner, orgIdentifier: o, projectIdentifier: p, type: DockerRegistry, spec: {dockerRegistryUrl: 'http://r', auth: {type: Anonymous}}}\n";
    client.apply(inner).await;
    let (status, body) = client.call(Method::POST, "/connectors/inner/test", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, _) = client.call(Method::POST, "/connectors/inner/test", json!({ "scope": "o/q" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, body) =
        client.call(Method::POST, "/connectors/key/test", json!({ "host": "h9:99999" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.to_string().contains("`99999` in the host `h9:99999` is no port"), "{body}");
    let taken = agent.stop().await;
    assert_eq!(taken[0].secrets["registry_pw"], "hunter2");
    let StepSpec::ConnectorTest(ConnectorTestSpec::Ssh(target)) = &taken[1].task.step.spec else {
        panic!("no SSH test")
    };
    assert_eq!((target.host.as_str(), target.port, target.user.as_str()), ("h9", 2022, "deploy"));
    assert_eq!(taken[1].secrets["pem"], PEM);
    let (status, _) = client.call(Method::POST, "/connectors/nope/test", json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_login_of_a_connector_test_follows_the_policy_for_host_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = support::config(dir.path());
    config.host_keys = HostKeyMode::Strict;
    let manager = Arc::new(TestManager::start_in(Arc::new(dir), config).await);
    let client = Client::of(&manager);
    client.apply(ENTITIES).await;
    client.set_secret("pem", PEM).await;
    client.apply("connector: {identifier: repo, name: repo, type: Git, spec: {url: 'ssh://git@g1/a.git', connectionType: Repo, type: Ssh, spec: {sshKeyRef: key}}}\n").await;
    let print = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
    let (status, _) = client.call(Method::PUT, "/hostkeys/g1:2022", json!({ "key": print })).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let agent = Agent::start(&manager, "zone-a", &[], |_| success().into()).await;
    for (path, body) in
        [("/connectors/repo/test", json!({})), ("/connectors/key/test", json!({ "host": "h9" }))]
    {
        let (status, body) = client.call(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    let mut taken = agent.stop().await;
    let logins = taken.iter_mut().flat_map(|taken| taken.task.logins_mut());
    let logins: Vec<_> = logins.map(|login| (login.host.clone(), login.host_keys.clone())).collect();
    let strict = |known: &[&str]| HostKeys {
        mode: HostKeyMode::Strict,
        known: known.iter().map(|key| (*key).to_owned()).collect(),
    };
    assert_eq!(logins, [("g1".to_owned(), strict(&[print])), ("h9".to_owned(), strict(&[]))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_and_shown() {
    let (manager, client) = manager().await;
    let agent = Agent::start(&manager, "zone-a", &["x"], |_| success().into()).await;
    let (status, body) =
        client.call(Method::POST, "/probes", json!({ "count": 20, "line": "hi", "selectors": ["X"] })).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    for id in body["taskIds"].as_array().unwrap() {
        let path = format!("/tasks/{}", id.as_str().unwrap());
        let task = support::until("the probe ends", || async {
            Some(client.get(&path).await).filter(|task| task["status"] == "Ended")
        })
        .await;
        assert_eq!((&task["agent"], &task["result"]["status"]), (&json!("zone-a"), &json!("Success")));
        assert!(task["endedAt"].as_u64() >= task["createdAt"].as_u64());
    }
    assert_eq!(agent.names().len(), 20);
    assert_eq!(client.call(Method::POST, "/probes", json!({ "count": 0 })).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_told_by_step_and_followed_to_the_end() {
    let (manager, client) = manager().await;
    client.apply(&custom("p", "", &(noop("a", "") + &noop("b", "")))).await;
    let agent = Agent::start(&manager, "zone-a", &[], |_| Say::Hold).await;
    let id = client.run("p").await;
    support::until("a runs", || async { (!agent.names().is_empty()).then_some(()) }).await;
    let pairs: Vec<(String, String)> = {
        let taken = agent.taken.lock().unwrap();
        let package: Value = serde_json::from_str(&taken[0].raw).unwrap();
        let pairs = package["logging"]["abstractions"].as_object().unwrap();
        pairs.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    let key = proto::logs::unit_key(&proto::logs::base_key(&pairs), "Run");
    let line = |n: i64| {
        let line = proto::logs::LogLine::new(
            proto::logs::Level::Info,
            n,
            1_700_000_000_000 + n,
            &format!("line {n}"),
        );
        bytes::Bytes::from(serde_json::to_vec(&line).unwrap())
    };
    let logs = manager.app.logs.clone();
    logs.open("default", &key, manager::logstore::Open::Resume).await.unwrap();
    logs.append("default", &key, Some(0), vec![line(0), line(1)]).await.unwrap();
    let follower = tokio::spawn({
        let client = client.clone();
        let path = format!("/executions/{id}/logs?follow=true&step=a");
        async move { client.request(Method::GET, &path).send().await.unwrap().text().await.unwrap() }
    });
    logs.append("default", &key, Some(2), vec![line(2)]).await.unwrap();
    logs.close("default", &key, manager::logstore::Close::Snapshot).await.unwrap();
    client.call(Method::POST, &format!("/executions/{id}/abort"), Value::Null).await;
    let view = client.ended(&id).await;
    assert_eq!(find_step(&view, "a").unwrap()["status"], "Aborted");
    let followed = tokio::time::timeout(Duration::from_secs(20), follower).await.unwrap().unwrap();
    let lines: Vec<Value> = followed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{followed}");
    assert_eq!(
        lines[2],
        json!({ "step": "a", "unit": "Run", "seq": 2, "level": "INFO", "time": 1_700_000_000_002_i64, "out": "line 2" })
    );
    let all = client
        .request(Method::GET, &format!("/executions/{id}/logs"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(all, followed);
    let of_b = client.request(Method::GET, &format!("/executions/{id}/logs?step=b")).send().await.unwrap();
    assert_eq!(of_b.text().await.unwrap(), "");
    let (status, body) =
        client.call(Method::GET, &format!("/executions/{id}/logs?step=zz"), Value::Null).await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "MGR-114"));
}
