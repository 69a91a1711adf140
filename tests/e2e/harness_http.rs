//! HTTP_TASK_NG and the checks of connectors of a Harness manager, against nginx, Git over HTTP, a control plane and AWS' emulators.

use crate::harness_manager::{HarnessManager, detail};
use e2e::peers::aws::Ecs;
use e2e::peers::kube::ControlPlane;
use e2e::peers::web::{Artifacts, GitServer};
use e2e::wait::free_port;
use serde_json::{Value, json};

const HTTP: &str = "HTTP_TASK_NG";

/// A request in the shape of December 2023.
fn request(method: &str, url: &str) -> Value {
    json!({
        "url": url, "method": method, "requestHeader": [], "body": null, "socketTimeoutMillis": 30_000, "useProxy": false,
        "certValidationRequired": false, "ignoreResponseCode": false, "shouldAvoidHeadersInCapability": false,
        "supportNonTextResponse": false, "certificateNG": null, "encryptedDataDetails": null,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_whatever_its_status_and_told_apart_from_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Artifacts::start(dir.path(), "robot", "pw-7-planted").await;
    server.put("health.txt", "up 😀\n".as_bytes());
    let mut manager = HarnessManager::start(dir.path()).await;
    let _agent = manager.agent(dir.path(), &[]);
    let url = |path: &str| format!("http://127.0.0.1:{}/artifactory/{path}", server.port);

    let mut package = manager.package("good", HTTP, Value::Null);
    // robot:pw-7-planted
    let login = manager.secret(&mut package, "login", "cm9ib3Q6cHctNy1wbGFudGVk");
    let mut data = request("GET", &url("health.txt"));
    data["requestHeader"] = json!([{"key": "Authorization", "value": format!("Basic {login}")}, {"key": "X-Env", "value": "prod"}]);
    package["data"] = data.clone();
    package["capabilities"] =
        json!([{"capabilityType": "HTTP", "url": url("health.txt"), "ignoreResponseCode": true}]);
    let response = manager.run(package.clone()).await;
    assert_eq!(
        (&response["@"], &response["commandExecutionStatus"]),
        (&json!("HttpStepResponse"), &json!("SUCCESS")),
        "{response:#}"
    );
    assert_eq!(
        (&response["httpResponseCode"], &response["httpResponseBody"]),
        (&json!(200), &json!("up 😀\n"))
    );
    assert_eq!((&response["httpMethod"], &response["httpUrl"]), (&json!("GET"), &json!(url("health.txt"))));
    assert!(
        response["errorMessage"].is_null() && response["httpResponseBodyInBytes"].is_null(),
        "{response:#}"
    );
    let verdict = json!([{"accountId": "acct1", "delegateId": manager.reports("good")[0][0]["delegateId"], "criteria": url("health.txt"),
        "validated": true, "duration": manager.reports("good")[0][0]["duration"]}]);
    assert_eq!(manager.reports("good")[0], verdict);

    package["id"] = json!("bytes");
    package["data"]["supportNonTextResponse"] = json!(true);
    package["capabilities"] = json!([]);
    let response = manager.run(package).await;
    assert_eq!(response["httpResponseBodyInBytes"], "757020f09f98800a", "{response:#}");

    // Without the login: a status of the server is an answer, and what it means is for the manager to say.
    let response = manager.run(manager.package("refused", HTTP, request("GET", &url("health.txt")))).await;
    assert_eq!(
        (&response["commandExecutionStatus"], &response["httpResponseCode"]),
        (&json!("SUCCESS"), &json!(401)),
        "{response:#}"
    );

    let gone = format!("http://127.0.0.1:{}/", free_port());
    let response = manager.run(manager.package("gone", HTTP, request("GET", &gone))).await;
    assert_eq!(
        (&response["@"], &response["failureTypes"]),
        (&json!("ErrorNotifyResponseData"), &json!(["CONNECTIVITY"])),
        "{response:#}"
    );

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut data = request("GET", &format!("http://{}/", silent.local_addr().unwrap()));
    data["socketTimeoutMillis"] = json!(1_500);
    let response = manager.run(manager.package("silent", HTTP, data)).await;
    assert_eq!(
        (&response["@"], &response["failureTypes"]),
        (&json!("ErrorNotifyResponseData"), &json!(["TIMEOUT_ERROR"])),
        "{response:#}"
    );

    let before = server.requests().lines().count();
    let mut data = request("GET", &url("health.txt"));
    data["certificateNG"] = json!({"certificate": "PEM", "certificateKey": null, "keyStoreType": null});
    for (id, code, data) in [
        ("certificate", "HRN-004", data),
        ("no-url", "HRN-003", json!({"method": "GET"})),
        ("headers", "HRN-003", json!({"url": url("health.txt"), "method": "GET", "requestHeader": "none"})),
    ] {
        let response = manager.run(manager.package(id, HTTP, data)).await;
        assert_eq!(
            (&response["@"], &response["commandExecutionStatus"]),
            (&json!("HttpStepResponse"), &json!("FAILURE")),
            "{response:#}"
        );
        assert!(response["errorMessage"].as_str().unwrap().ends_with(&format!("[{code}]")), "{response:#}");
        manager.answered_once(id);
    }
    assert_eq!(server.requests().lines().count(), before, "a refused package asked nobody");
    assert!(!manager.all_lines().contains("cm9ib3Q6cHctNy1wbGFudGVk"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_are_checked_and_the_manager_is_told_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (git, plane) = tokio::join!(
        GitServer::start(dir.path(), "robot", "git-pw-1"),
        tokio::task::spawn_blocking(ControlPlane::shared)
    );
    let plane = plane.unwrap();
    git.repository("shop.git", &[("a.txt", "a")]);
    let region = tokio::task::spawn_blocking(Ecs::shared).await.unwrap();
    let mut manager = HarnessManager::start(dir.path()).await;
    let env = region.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let _agent = manager.agent(dir.path(), &env);

    // A good one of each, and a wrong one.
    let cluster = |token: &str| {
        json!({"kubernetesClusterConfig": {"credential": {"type": "ManualConfig", "spec": {"masterUrl": crate::harness_k8s::server(plane), "auth": {
                "type": "ServiceAccount", "spec": {"serviceAccountTokenRef": "account.token", "caCertRef": "account.ca"}}}}, "delegateSelectors": []},
            "encryptionDetails": [detail("serviceAccountTokenRef", token), detail("caCertRef", &crate::harness_k8s::authority(plane))]})
    };
    let token = crate::harness_k8s::robot(plane, "default");
    let repository = |password: &str| {
        json!({"gitCommandType": "VALIDATE", "gitConfig": {"url": format!("http://127.0.0.1:{}/shop.git", git.port), "type": "Http",
                "connectionType": "Repo", "spec": {"username": "robot", "usernameRef": null, "passwordRef": "account.git_pw"}},
            "sshKeySpecDTO": null, "encryptionDetails": [detail("passwordRef", password)]})
    };
    let account = |key: &str| {
        json!({"awsTaskType": "VALIDATE", "region": "eu-west-1", "awsConnector": {"credential": {"type": "ManualConfig", "crossAccountAccess": null,
                "spec": {"accessKey": env.iter().find(|(name, _)| *name == "AWS_ACCESS_KEY_ID").map_or("AKIAEXAMPLE", |(_, value)| value),
                    "accessKeyRef": null, "secretKeyRef": "account.aws"}}, "delegateSelectors": []},
            "encryptionDetails": [detail("secretKeyRef", key)]})
    };
    let good = [
        ("k8s", "VALIDATE_KUBERNETES_CONFIG", "KubernetesConnectionTaskResponse", cluster(&token)),
        ("git", "NG_GIT_COMMAND", "GitCommandExecutionResponse", repository("git-pw-1")),
        ("aws", "NG_AWS_TASK", "AwsValidateTaskResponse", account("planted-aws-key")),
    ];
    for (id, kind, class, data) in good {
        let response = manager.run(manager.package(id, kind, data)).await;
        assert_eq!(response["@"], class, "{response:#}");
        let result = &response["connectorValidationResult"];
        assert_eq!(
            (&result["@"], &result["status"]),
            (&json!("ConnectorValidationResult"), &json!("SUCCESS")),
            "{response:#}"
        );
        assert_eq!((&result["errors"], &result["errorSummary"]), (&json!([]), &Value::Null), "{response:#}");
        assert!(result["testedAt"].as_u64().unwrap() > 0 && result["taskId"] == id, "{response:#}");
        manager.answered_once(id);
    }
    let wrong = [
        ("k8s-wrong", "VALIDATE_KUBERNETES_CONFIG", cluster("not-a-token-7")),
        ("git-wrong", "NG_GIT_COMMAND", repository("not-the-pw-7")),
        (
            "k8s-shape",
            "VALIDATE_KUBERNETES_CONFIG",
            json!({"kubernetesClusterConfig": {"credential": {"type": "New"}}}),
        ),
        ("git-other", "NG_GIT_COMMAND", json!({"gitCommandType": "COMMIT_AND_PUSH"})),
        ("aws-other", "NG_AWS_TASK", json!({"awsTaskType": "LIST_S3_BUCKETS"})),
    ];
    for (id, kind, data) in wrong {
        let response = manager.run(manager.package(id, kind, data)).await;
        let result = &response["connectorValidationResult"];
        assert_eq!(result["status"], "FAILURE", "{id}: {response:#}");
        assert!(!result["errorSummary"].as_str().unwrap().is_empty(), "{id}: {response:#}");
        assert_eq!(result["errors"][0]["@"], "ErrorDetail", "{id}: {response:#}");
        assert!(
            !response.to_string().contains("not-the-pw-7") && !response.to_string().contains("not-a-token-7")
        );
        manager.answered_once(id);
    }
}
