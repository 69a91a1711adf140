//! Who gets in: every path against every kind of bearer, over HTTP; and what keeps a manager from starting.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test ends at the first fault.")]

mod support;

use manager::server::ManagerError;
use proto::token::DelegateToken;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use support::{TestManager, config, task};
use tokio_util::sync::CancellationToken;

fn paths() -> Vec<(Method, &'static str)> {
    vec![
        (Method::POST, "/api/agent/delegates/register"),
        (Method::POST, "/api/agent/delegates/heartbeat-with-polling"),
        (Method::POST, "/api/agent/delegates/unregister"),
        (Method::GET, "/api/agent/delegates/d/task-events"),
        (Method::PUT, "/api/agent/v2/delegates/d/tasks/t/acquire"),
        (Method::POST, "/api/agent/v2/tasks/t/delegates/d"),
        (Method::PUT, "/api/agent/ext/tasks/t/checkpoint"),
        (Method::PUT, "/api/agent/ext/tasks/t/progress"),
        (Method::GET, "/api/agent/delegates/configuration"),
        (Method::GET, "/api/agent/delegates/d/profile"),
        (Method::GET, "/api/agent/delegates/jreVersion"),
        (Method::POST, "/api/agent/delegates/properties"),
        (Method::POST, "/api/agent/delegates/connectionHeartbeat/d"),
        (Method::POST, "/api/agent/delegates/register-delegate-capacity/d"),
        (Method::GET, "/api/agent/delegates/logging-token"),
    ]
}

async fn refused(
    m: &TestManager,
    method: &Method,
    path: &str,
    account: &str,
    bearer: Option<String>,
) -> (u16, String) {
    let mut call =
        m.http.request(method.clone(), format!("{}{path}", m.url)).query(&[("accountId", account)]);
    if let Some(bearer) = bearer {
        call = call.header("Authorization", bearer);
    }
    let reply = call.body("{}").send().await.unwrap();
    let status = reply.status().as_u16();
    let header =
        reply.headers().get("X-Harness-Error").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let body: Value = reply.json().await.unwrap_or_default();
    assert_eq!(body["responseMessages"][0]["code"].as_str().unwrap_or_default(), header, "{path}");
    (status, header)
}

#[tokio::test]
async fn every_path_refuses_every_wrong_bearer() {
    let m = TestManager::start().await;
    let revoked = m.app.credentials.create_token("old").await.unwrap();
    let revoked = DelegateToken::normalise(revoked.expose_secret()).unwrap();
    m.app.credentials.revoke("token", "old").await.unwrap();
    let stranger = DelegateToken::from_bytes([9; 16]);
    let with = |bearer: String| Some(format!("Delegate {bearer}"));
    let good = m.bearer();
    for (method, path) in paths() {
        let ask = |account: &'static str, bearer| refused(&m, &method, path, account, bearer);
        let invalid = (401, "INVALID_TOKEN".to_owned());
        let denied = (401, "INVALID_REQUEST".to_owned());
        assert_eq!(ask("default", None).await, denied, "{path}");
        assert_eq!(ask("default", Some(format!("Bearer {good}"))).await, denied, "{path}");
        assert_eq!(ask("", with(good.clone())).await, denied, "{path}");
        assert_eq!(ask("other", with(good.clone())).await, denied, "{path}");
        assert_eq!(ask("default", with("a..b.c.d".to_owned())).await, invalid, "{path}");
        assert_eq!(ask("default", with(m.bearer_of(&stranger, "default", 60))).await, invalid, "{path}");
        assert_eq!(ask("default", with(m.bearer_of(&m.token, "other", 60))).await, invalid, "{path}");
        let expired = (401, "EXPIRED_TOKEN".to_owned());
        assert_eq!(ask("default", with(m.bearer_of(&m.token, "default", -120))).await, expired, "{path}");
        let gone = (401, "REVOKED_TOKEN".to_owned());
        assert_eq!(ask("default", with(m.bearer_of(&revoked, "default", 60))).await, gone, "{path}");
        let (status, _) = refused(&m, &method, path, "default", with(good.clone())).await;
        assert_ne!(status, 401, "{path}");
    }
    m.stop().await;
}

#[tokio::test]
async fn only_health_and_account_status_are_open() {
    let m = TestManager::start().await;
    let get = |path: &str| m.http.get(format!("{}{path}", m.url)).send();
    let health = get("/healthz").await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(health.text().await.unwrap(), "ok");
    assert_eq!(get("/api/account/default/status").await.unwrap().status(), StatusCode::OK);
    assert_eq!(get("/api/account/nobody/status").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get("/").await.unwrap().status(), StatusCode::NOT_FOUND);
    m.stop().await;
}

#[tokio::test]
async fn the_first_start_leaves_private_files() {
    let m = TestManager::start().await;
    m.app.store.enqueue(task("t", "T", &[])).await.unwrap();
    for file in ["bootstrap.json", "manager.key", "manager.lock"] {
        let mode = std::fs::metadata(m.dir.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    for file in ["manager.db", "manager.db-wal"] {
        let mode = std::fs::metadata(m.dir.path().join(file)).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{file} may be read by others");
    }
    let file = support::bootstrap(m.dir.path());
    assert_eq!(file["url"], json!(m.url));
    assert_eq!(file["accountId"], "default");
    assert!(m.app.credentials.owner_of(&m.api_key).await.unwrap().is_some());
    m.stop().await;
}

async fn start_fails(config: manager::app::ManagerConfig) -> ManagerError {
    let stop = CancellationToken::new();
    manager::server::run(config, stop, |url| panic!("it started at {url}")).await.unwrap_err()
}

#[tokio::test]
async fn a_second_manager_on_the_same_data_is_refused() {
    let m = TestManager::start().await;
    assert_eq!(start_fails(config(m.dir.path())).await.code(), "MGR-002");
    let mut taken = config(&m.dir.path().join("other"));
    taken.listen = m.url.trim_start_matches("http://").to_owned();
    assert_eq!(start_fails(taken).await.code(), "MGR-007");
    m.stop().await;
}

#[tokio::test]
async fn a_lost_key_or_a_damaged_database_stops_the_start() {
    let m = TestManager::start().await;
    let dir = m.stop().await;
    let key = dir.path().join("manager.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let error = start_fails(config(dir.path())).await;
    assert!(matches!(error, ManagerError::Key(_)), "{error}");
    assert!(!key.exists(), "no fresh key is made beside sealed rows");
    std::fs::write(&key, kept).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    TestManager::start_in(dir.clone(), config(dir.path())).await.stop().await;
    std::fs::write(dir.path().join("logs/streams.ndjson"), "{}\n").unwrap();
    assert_eq!(start_fails(config(dir.path())).await.code(), "MGR-006");
    std::fs::remove_file(dir.path().join("logs/streams.ndjson")).unwrap();
    let database = dir.path().join("manager.db");
    std::fs::write(&database, vec![b'x'; 8192]).unwrap();
    assert_eq!(start_fails(config(dir.path())).await.code(), "MGR-003");
    assert_eq!(std::fs::read(&database).unwrap(), vec![b'x'; 8192]);
}

#[tokio::test]
async fn other_addresses_need_tls() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = config(dir.path());
    open.listen = "0.0.0.0:0".to_owned();
    assert_eq!(start_fails(open.clone()).await.code(), "MGR-005");
    open.tls_cert = Some(dir.path().join("cert.pem"));
    assert_eq!(start_fails(open.clone()).await.code(), "MGR-004", "both or none");
    open.tls_key = Some(dir.path().join("key.pem"));
    assert_eq!(start_fails(open.clone()).await.code(), "MGR-004", "no such files");
    assert!(!dir.path().join("manager.db").exists(), "nothing was touched");
}

#[tokio::test]
async fn tls_is_served_and_its_certificate_is_checked() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
    let mut config = config(dir.path());
    config.listen = "localhost:0".to_owned();
    config.tls_cert = Some(dir.path().join("cert.pem"));
    config.tls_key = Some(dir.path().join("key.pem"));
    let m = TestManager::start_in(dir, config).await;
    assert!(m.url.starts_with("https://localhost:"), "{}", m.url);
    let health = format!("{}/healthz", m.url);
    assert!(m.http.get(&health).send().await.is_err(), "an unknown certificate is refused");
    let ca = reqwest::Certificate::from_pem(cert.pem().as_bytes()).unwrap();
    let trusting = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
    let reply = trusting.get(&health).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(reply.version(), reqwest::Version::HTTP_2);
    let plain = m.http.get(health.replace("https", "http")).send().await;
    assert!(plain.is_err() || !plain.unwrap().status().is_success());
    m.stop().await;
}
