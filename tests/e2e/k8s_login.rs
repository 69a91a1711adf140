//! A cluster connector that logs in at an OpenID provider. The provider is a small peer over HTTPS with the documents of
//! the standard: discovery, keys, and a token endpoint that takes the password grant and signs ID tokens. The API server
//! is the real one and trusts it by its own `--oidc-…` flags: whether a token is good, it decides.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::peers::https::Https;
use e2e::peers::kube::ControlPlane;
use e2e::world::{AgentProcess, Manager, certificates};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CLIENT: &str = "delegate-client";
const CLIENT_SECRET: &str = "client-s3cret-1";
const PASSWORD: &str = "robot-pw-1";

/// What openssl prints; its standard input is `input`.
fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

/// An ID token for `claims`, signed with RS256.
fn signed(key: &Path, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})), part(claims));
    let signature = openssl(&["dgst", "-sha256", "-sign", key.to_str().unwrap()], text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The provider's public key as a JSON Web Key.
fn web_key(key: &Path) -> Value {
    let printed = openssl(&["rsa", "-noout", "-modulus", "-in", key.to_str().unwrap()], b"");
    let printed = String::from_utf8(printed).unwrap();
    let hex = printed.trim().strip_prefix("Modulus=").unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(bytes)})
}

#[expect(clippy::disallowed_methods, reason = "The API server compares a token with the wall clock.")]
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Names and values.
type Form = Vec<(String, String)>;

struct Provider {
    server: Https,
    /// Forms that the token endpoint was sent.
    asked: Arc<Mutex<Vec<Form>>>,
}

impl Provider {
    fn start(dir: &Path, certificate: &Path, tls_key: &Path) -> Provider {
        let key: PathBuf = dir.join("token.key");
        openssl(&["genrsa", "-out", key.to_str().unwrap(), "2048"], b"");
        let public = web_key(&key);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let issuer = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let asked: Arc<Mutex<Vec<Form>>> = Arc::default();
        let record = Arc::clone(&asked);
        let server = Https::on(listener, certificate, tls_key, move |what, body| match what {
            "GET /.well-known/openid-configuration" => (
                200,
                json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token"),
                    "authorization_endpoint": format!("{issuer}/auth"), "jwks_uri": format!("{issuer}/keys"),
                    "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"]}),
            ),
            "GET /keys" => (200, json!({"keys": [public]})),
            "POST /token" => {
                let query = format!("http://form/?{}", String::from_utf8_lossy(body));
                let form: Form = reqwest::Url::parse(&query).unwrap().query_pairs().into_owned().collect();
                let of =
                    |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
                let refused =
                    |error: &str, text: &str| (400, json!({"error": error, "error_description": text}));
                let answer = if of("grant_type") != Some("password") {
                    refused("unsupported_grant_type", "only the password grant")
                } else if (of("client_id"), of("client_secret")) != (Some(CLIENT), Some(CLIENT_SECRET)) {
                    (401, json!({"error": "invalid_client"}))
                } else if (of("username"), of("password")) != (Some("robot"), Some(PASSWORD)) {
                    refused("invalid_grant", "user or password is wrong")
                } else {
                    let scopes = of("scope").unwrap_or_default().to_owned();
                    let claims = json!({"iss": issuer, "aud": CLIENT, "sub": "robot", "groups": ["deployers"],
                        "iat": now() - 5, "exp": now() + 300});
                    let mut tokens =
                        json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 300});
                    if scopes.split(' ').any(|scope| scope == "openid") {
                        tokens["id_token"] = signed(&key, &claims).into();
                    }
                    (200, tokens)
                };
                record.lock().unwrap().push(form);
                answer
            }
            _ => (404, json!({"error": "no such page"})),
        });
        Provider { server, asked }
    }
}

const ENTITIES: &str = "
connector:
  identifier: k8s_oidc
  name: k8s oidc
  type: K8sCluster
  spec:
    credential:
      type: ManualConfig
      spec:
        masterUrl: MASTER
        auth:
          type: OpenIdConnect
          spec:
            oidcIssuerUrl: ISSUER
            oidcClientIdRef: oidc_client
            oidcSecretRef: oidc_secret
            oidcUsername: robot
            oidcPasswordRef: oidc_password
            oidcScopes: SCOPES
            caCertRef: cluster_ca
---
service:
  identifier: notes
  name: notes
  serviceDefinition:
    type: Kubernetes
    spec:
      manifests:
      - manifest:
          identifier: all
          type: K8sManifest
          spec:
            store:
              type: Inline
              spec:
                path: all.yaml
                content: |
                  apiVersion: v1
                  kind: ConfigMap
                  metadata: {name: notes}
                  data: {by: oidc}
---
environment: {identifier: lab, name: lab, type: PreProduction}
---
infrastructureDefinition:
  identifier: lab
  name: lab
  environmentRef: lab
  deploymentType: Kubernetes
  type: KubernetesDirect
  spec: {connectorRef: k8s_oidc, namespace: default, releaseName: notes}
";

const PIPELINE: &str = "
pipeline:
  identifier: notes
  name: notes
  stages:
  - stage:
      identifier: deploy
      name: deploy
      type: Deployment
      spec:
        deploymentType: Kubernetes
        service: {serviceRef: notes}
        environment: {environmentRef: lab, infrastructureDefinitions: [{identifier: lab}]}
        execution:
          steps:
          - step: {type: K8sApply, identifier: apply, name: apply, timeout: 2m, spec: {filePaths: [all.yaml]}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_takes_the_token_of_an_openid_provider() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, certificate, tls_key) = certificates(dir.path());
    let provider = Provider::start(dir.path(), &certificate, &tls_key);
    let issuer = provider.server.url();
    let flags = [
        format!("--apiserver-arg=--oidc-issuer-url={issuer}"),
        format!("--apiserver-arg=--oidc-client-id={CLIENT}"),
        format!("--apiserver-arg=--oidc-ca-file={}", ca.display()),
        "--apiserver-arg=--oidc-username-claim=sub".to_owned(),
        "--apiserver-arg=--oidc-username-prefix=oidc:".to_owned(),
        "--apiserver-arg=--oidc-groups-claim=groups".to_owned(),
        "--nodes=1".to_owned(),
    ];
    let plane = tokio::task::spawn_blocking(move || {
        ControlPlane::start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let manager = Manager::start(dir.path());
    let ca_file = ca.to_str().unwrap();
    let _agent = AgentProcess::start(&manager, dir.path(), "lab", &[("DELEGATE_CA_FILE", ca_file)]);
    let plane = plane.await.unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(plane.kubeconfig()).unwrap()).unwrap();
    let master = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    manager.set_secret("cluster_ca", &std::fs::read(plane.dir().join("pki/ca.crt")).unwrap());
    for (name, value) in
        [("oidc_client", CLIENT), ("oidc_secret", CLIENT_SECRET), ("oidc_password", "wrong-pw")]
    {
        manager.set_secret(name, value.as_bytes());
    }
    let entities = |scopes: &str| {
        let text = ENTITIES.replace("MASTER", master).replace("ISSUER", &issuer).replace("SCOPES", scopes);
        let file = dir.path().join("oidc.yaml");
        std::fs::write(&file, text).unwrap();
        manager.ok(&["apply", file.to_str().unwrap()]);
    };
    let test = || -> Value {
        let output = manager.run(&["connector", "test", "k8s_oidc", "--output", "json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let failed = |report: &Value, said: &str| {
        let stages = report["stages"].as_array().unwrap();
        assert_eq!((&report["ok"], stages.len()), (&json!(false), 1), "{report:#}");
        assert_eq!(stages[0]["stage"], "credentials");
        assert!(stages[0]["message"].as_str().unwrap().contains(said), "{report:#}");
        assert!(stages[0]["hint"].is_string(), "{report:#}");
        assert!(!report.to_string().contains("wrong-pw") && !report.to_string().contains(CLIENT_SECRET));
    };

    // The provider refuses, and the user reads its words.
    entities("openid groups");
    failed(&test(), "the OpenID provider refuses the login: invalid_grant user or password is wrong");
    manager.set_secret("oidc_password", PASSWORD.as_bytes());
    // Without the scope there is no ID token.
    entities("groups");
    failed(&test(), "gave no id token");

    // The token is good: the API server has read the provider's keys and knows who comes.
    entities("openid groups");
    let report = test();
    assert_eq!(report["ok"], true, "{report:#}");
    let stages = report["stages"].as_array().unwrap();
    let login = stages.iter().find(|stage| stage["stage"] == "login").unwrap();
    assert!(login["message"].as_str().unwrap().contains("oidc:robot"), "{report:#}");
    let form = provider.asked.lock().unwrap().last().unwrap().clone();
    let names: Vec<&str> = form.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["grant_type", "client_id", "username", "password", "scope", "client_secret"]);

    // Its groups have no rights yet; with a role for the group a step deploys.
    let pipeline = dir.path().join("pipeline.yaml");
    std::fs::write(&pipeline, PIPELINE).unwrap();
    let limit = Duration::from_secs(120);
    let run = async || {
        let id = manager.start_pipeline(&[pipeline.to_str().unwrap()]);
        manager.finished(&id, limit).await
    };
    let view = run().await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert!(view.to_string().contains("KUBE-025"), "{view:#}");
    let bound = ["create", "clusterrolebinding", "deployers", "--clusterrole=admin", "--group=deployers"];
    plane.kubectl(&bound);
    // The authorizer of the API server learns of a binding by a watch of its own.
    let all =
        ["auth", "can-i", "patch", "configmaps", "--as=oidc:robot", "--as-group=deployers", "-n", "default"];
    // kubectl ends with 1 when the answer is no.
    let bound = || plane.try_kubectl(&all).stdout.starts_with(b"yes");
    e2e::wait::until("the binding", limit, || async { bound().then_some(()) }).await;
    let view = run().await;
    assert_eq!(view["status"], "Success", "{view:#}");
    let made = plane.kubectl(&["get", "configmap", "notes", "-o", "jsonpath={.data.by}"]);
    assert_eq!(made, "oidc");
}
