//! What breaks in the middle of a rolling step: the history of a watch is gone (410), the token expires, the API server
//! is restarted.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "Tests may panic and print, and compare with wall clocks of the peer."
)]

mod peer;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use executor_api::testing::{self, World};
use executor_api::{Class, Executor, StepError, StepOutput};
use executor_kube::{KubeExecutor, Settings};
use kube::client::Body;
use peer::plane::{Component, ControlPlane};
use peer::proxy::{Fault, Proxy};
use peer::{Place, inline, rolling, spec, until, world_in};
use proto::task::{ClusterCredential, KubernetesAction, KubernetesSpec};
use proto::text::SecretRef;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Three pods that become ready `seconds` after their start.
fn web(image: &str, seconds: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata:\n      labels: {{app: web}}\n      \
         annotations: {{peer.test/behaviour: slow, peer.test/ready-seconds: '{seconds}'}}\n    spec:\n      \
         containers: [{{name: app, image: '{image}', readinessProbe: {{httpGet: {{path: /, port: 80}}}}}}]\n"
    )
}

fn step(place: &Place, text: String) -> KubernetesSpec {
    KubernetesSpec { manifest: inline(text), ..spec(place, rolling(true)) }
}

/// The same step through `url` with the secret `token`.
fn through(url: &str, spec: KubernetesSpec) -> KubernetesSpec {
    let mut spec = spec;
    spec.cluster.credential = ClusterCredential::ServiceAccount {
        master_url: url.to_owned(),
        token: SecretRef("token".into()),
        ca: url.starts_with("https").then(|| SecretRef("ca".into())),
    };
    spec
}

fn world(place: &Place, key: &str, token: &str, spec: &KubernetesSpec) -> World {
    world_in(place, key.trim_end_matches("-back"), key, spec, &[("token", token)])
}

async fn run(world: &World, spec: &KubernetesSpec) -> Result<StepOutput, StepError> {
    let run = async { KubeExecutor::new(Settings::default()).run(spec, &world.context().1).await };
    let ended = tokio::time::timeout(Duration::from_secs(150), run).await;
    ended.unwrap_or_else(|_| panic!("no end\n{}", world.logs.everything()))
}

async fn succeed(place: &Place, key: &str, spec: &KubernetesSpec) -> (World, StepOutput) {
    let world = world(place, key, "none", spec);
    let result = run(&world, spec).await;
    let output = result.unwrap_or_else(|e| panic!("{key}: {} {e}\n{}", e.code, world.logs.everything()));
    (world, output)
}

async fn image(place: &Place) -> String {
    let live = place.get(&place.path("apps/v1", "deployments/web")).await.unwrap();
    live.pointer("/spec/template/spec/containers/0/image").unwrap().as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_history_is_gone_lists_again_and_goes_on() {
    let place = Place::new("expired-watch").await;
    // Enough for several rounds of every watch of the wait.
    let proxy = Proxy::start(place.client.clone(), Fault::Expired(20)).await;
    let spec = through(&proxy.url, step(&place, web("app:1", 6)));
    let (world, output) = succeed(&place, "x1", &spec).await;
    assert_eq!(output.outputs["podIps"].value.as_array().unwrap().len(), 3);
    let log = world.logs.everything();
    println!(
        "{} watches cut, {} lists of pods, {} requests",
        proxy.hits(),
        proxy.pod_lists(),
        proxy.requests()
    );
    assert!(proxy.hits() >= 4, "the fault did not happen\n{log}");
    assert!(proxy.pod_lists() >= 2, "410 is answered by a new list");
    // Nothing that a user has to know of, and no storm: at most a list and a watch for each.
    assert!(!log.contains("in trouble") && !log.contains("410"), "{log}");
    assert!(proxy.requests() <= 60 + 2 * proxy.hits(), "{} requests", proxy.requests());
}

/// A token of a service account, signed with the cluster's own key, that is good until `expires` (seconds since 1970).
fn token(place: &Place, account: &Value, expires: u64) -> String {
    let claims = json!({
        "iss": "https://kubernetes.default.svc.cluster.local",
        "aud": ["https://kubernetes.default.svc.cluster.local"],
        "sub": format!("system:serviceaccount:{}:deployer", place.namespace),
        "iat": expires - 3600, "nbf": expires - 3600, "exp": expires,
        "kubernetes.io": {"namespace": place.namespace,
            "serviceaccount": {"name": "deployer", "uid": account["metadata"]["uid"]}},
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(&claims));
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(place.plane.dir().join("pki/service-account.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
    let der = openssl.wait_with_output().unwrap().stdout;
    // SEQUENCE { INTEGER r, INTEGER s } becomes r and s of 32 bytes each.
    let (mut at, mut raw) = (2, Vec::new());
    for _ in 0..2 {
        let length = usize::from(der[at + 1]);
        let number: Vec<u8> = der[at + 2..at + 2 + length].iter().copied().skip_while(|b| *b == 0).collect();
        raw.extend(vec![0; 32 - number.len()]);
        raw.extend(number);
        at += 2 + length;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_named_before_and_in_the_middle_of_a_rollout() {
    let place = Place::new("expired-token").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}});
    let account = place.post(&place.path("v1", "serviceaccounts"), account).await.unwrap();
    let rbac = "rbac.authorization.k8s.io";
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "deployer"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": place.namespace}],
        "roleRef": {"kind": "ClusterRole", "name": "admin", "apiGroup": rbac}});
    place.post(&place.path(&format!("{rbac}/v1"), "rolebindings"), binding).await.unwrap();
    succeed(&place, "t1", &step(&place, web("app:1", 0))).await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();

    // Expired before the step began: nothing is changed.
    let config: Value = serde_json::from_slice(&std::fs::read(place.plane.kubeconfig()).unwrap()).unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let old = token(&place, &account, now() - 600);
    let late = through(&server, step(&place, web("app:2", 0)));
    let refused = world(&place, "t2", &old, &late);
    let error = run(&refused, &late).await.unwrap_err();
    println!("{} {error}\n  hint: {:?}", error.code, error.hint);
    assert_eq!((error.code, error.class), ("KUBE-013", Class::Authentication), "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("expired")));
    assert!(refused.marks.calls().is_empty() && image(&place).await == "app:1");
    assert!(!error.to_string().contains(&old) && !refused.logs.everything().contains(&old));

    // Good for a while: the server forgives a minute, and remembers for ten seconds that it was good. Once it refuses
    // the token, the watches end and the step has to ask again.
    let address =
        std::net::SocketAddr::from(([127, 0, 0, 1], server.rsplit(':').next().unwrap().parse().unwrap()));
    let mut anonymous = kube::Config::new(format!("https://{address}").parse().unwrap());
    anonymous.default_retry = false;
    anonymous.accept_invalid_certs = true;
    let anonymous = kube::Client::try_from(anonymous).unwrap();
    let proxy = Proxy::start(anonymous.clone(), Fault::None).await;
    let soon = token(&place, &account, now() - 60 + 15);
    let spec = through(&proxy.url, step(&place, web("app:3", 600)));
    let expiring = world(&place, "t3", &soon, &spec);
    let refused = async {
        let (path, bearer) = (place.path("apps/v1", "deployments/web"), format!("Bearer {soon}"));
        until("the token is refused", async || {
            let request =
                http::Request::get(&path).header("authorization", &bearer).body(Body::empty()).unwrap();
            anonymous.send(request).await.unwrap().status() == http::StatusCode::UNAUTHORIZED
        })
        .await;
        proxy.end_watches();
    };
    let (result, ()) = tokio::join!(run(&expiring, &spec), refused);
    let error = result.unwrap_err();
    let log = expiring.logs.everything();
    println!("{} {error}\n  hint: {:?}\n{log}", error.code, error.hint);
    assert_eq!((error.code, error.class), ("KUBE-053", Class::Authentication), "{error}\n{log}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("expired")), "{:?}", error.hint);
    assert!(
        error.what.contains("Deployment in expired-token")
            && !error.to_string().contains(&soon)
            && !log.contains(&soon)
    );
    assert_eq!(image(&place).await, "app:3", "the change was made, and its end is not known");

    // With credentials that are good the release is rolled back, although its failure could not be stored.
    let back = peer::spec(&place, KubernetesAction::K8sRollingRollback { pruning_enabled: true });
    let (_, output) = succeed(&place, "t3-back", &back).await;
    assert_eq!(output.outputs["releaseNumber"].value, 1);
    assert_eq!(image(&place).await, "app:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_restarted_in_the_middle_of_a_rolling_step_is_waited_for() {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1"])).await.unwrap();
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));
    let place = Place::on(plane, "restarted").await;
    let restart = || async {
        tokio::task::spawn_blocking(|| {
            plane.kill(Component::ApiServer);
            plane.start_again(Component::ApiServer);
        })
        .await
        .unwrap();
    };
    let settings = |n: usize| -> String {
        let one = |n| {
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}, annotations: {{harness.io/skip-versioning: 'true'}}}}\n"
            )
        };
        (0..n).map(one).collect()
    };
    succeed(&place, "r1", &step(&place, web("app:1", 0))).await;

    // Once between two objects of the apply, once while the new pods are waited for.
    let next = step(&place, web("app:2", 8) + &settings(200));
    let deploying = world(&place, "r2", "none", &next);
    let killer = async {
        until("some objects", async || place.get(&place.path("v1", "configmaps/c1")).await.is_some()).await;
        restart().await;
        // A loaded machine takes its time to start a server, so this wait is longer than others.
        testing::until_ok("the step is at its wait", Duration::from_secs(120), async || {
            let log = deploying.logs.everything();
            if log.contains(" of 3 pods are made") { Ok(()) } else { Err(log) }
        })
        .await;
        restart().await;
    };
    let slowly = KubeExecutor::new(Settings {
        apply_concurrency: 1,
        patience: Duration::from_secs(90),
        ..Settings::default()
    });
    let (_handle, cx) = deploying.context();
    let both = async { tokio::join!(slowly.run(&next, &cx), killer) };
    let ended = tokio::time::timeout(Duration::from_secs(180), both).await;
    let log = deploying.logs.everything();
    let (result, ()) = ended.unwrap_or_else(|_| panic!("no end\n{log}"));
    let output = result.unwrap_or_else(|e| panic!("{} {e}\n{log}", e.code));
    println!("{log}");
    assert_eq!(output.outputs["releaseNumber"].value, 2);
    assert!(log.contains("in trouble") && log.contains("answers again"), "{log}");
    // The server may still be on its way up for others.
    until("the server", async || place.get(&place.path("apps/v1", "deployments/web")).await.is_some()).await;
    assert_eq!(image(&place).await, "app:2");
    let stored = place.get(&place.path("v1", "secrets/harness.release.release.2")).await.unwrap();
    assert_eq!(stored["metadata"]["labels"]["status"], "Succeeded");
    let found = place.get(&place.path("v1", "configmaps?limit=1000")).await.unwrap();
    let ours = |c: &&Value| c["metadata"]["name"].as_str().unwrap().starts_with('c');
    assert_eq!(found["items"].as_array().unwrap().iter().filter(ours).count(), 200);
}
