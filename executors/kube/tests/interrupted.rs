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
use executor_api::testing::World;
use executor_api::{Class, Executor, StepError, StepOutput};
use executor_kube::{KubeExecutor, Settings};
use http_body_util::BodyExt as _;
use kube::client::Body;
use peer::plane::{Component, ControlPlane};
use peer::{Place, cluster, spec, task, until};
use proto::task::{
    ClusterCredential, ExecutionRef, FileStore, KubernetesAction, KubernetesSpec, Manifest, ManifestKind,
};
use proto::text::SecretRef;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How a watch ends after a second.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// With the event that tells of 410, as a server whose history was compacted sends it.
    Expired,
    /// In order, as a server does when the time of the watch is over.
    InOrder,
}

/// Plain HTTP in front of the real server; the first `times` watches end early.
struct Proxy {
    end: End,
    times: AtomicUsize,
    cut: AtomicUsize,
    /// Lists of the pods of a workload.
    lists: AtomicUsize,
    requests: AtomicUsize,
    client: kube::Client,
}

impl Proxy {
    async fn start(client: kube::Client, end: End, times: usize) -> (Arc<Proxy>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = AtomicUsize::default;
        let proxy = Proxy {
            end,
            times: AtomicUsize::new(times),
            cut: count(),
            lists: count(),
            requests: count(),
            client,
        };
        let proxy = Arc::new(proxy);
        let shared = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let proxy = shared.clone();
                tokio::spawn(async move {
                    let _ended = proxy.serve(stream).await;
                });
            }
        });
        (proxy, url)
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let mut parts = line.split_whitespace();
            let (method, path) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
            let mut request = http::Request::builder().method(method.as_str()).uri(&path);
            let mut length = 0;
            loop {
                let mut header = String::new();
                read.read_line(&mut header).await?;
                let Some((name, value)) = header.trim().split_once(": ") else { break };
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.parse().unwrap();
                } else if ["accept", "content-type", "authorization"].contains(&&*name.to_ascii_lowercase()) {
                    request = request.header(name, value);
                }
            }
            let mut body = vec![0; length];
            read.read_exact(&mut body).await?;
            self.requests.fetch_add(1, Ordering::SeqCst);
            let answer = self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
            let status = answer.status();
            let watch = path.contains("watch=");
            if !watch && path.contains("/pods?") && path.contains("labelSelector=app%3Dweb") {
                self.lists.fetch_add(1, Ordering::SeqCst);
            }
            if watch && status.is_success() {
                return self.watch(answer.into_body(), write).await;
            }
            let body = answer.into_body().collect_bytes().await.unwrap();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            write.write_all(head.as_bytes()).await?;
            write.write_all(&body).await?;
        }
    }

    async fn watch(&self, mut body: Body, mut write: tokio::net::tcp::OwnedWriteHalf) -> std::io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        write.write_all(head.as_bytes()).await?;
        let cut = self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let over = tokio::time::sleep(Duration::from_secs(if cut { 1 } else { 3600 }));
        tokio::pin!(over);
        let mut whole = true;
        loop {
            let bytes = tokio::select! {
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                    _ => return write.write_all(b"0\r\n\r\n").await,
                },
                () = &mut over, if whole => break,
            };
            whole = bytes.last().is_none_or(|last| *last == b'\n') && (whole || !bytes.is_empty());
            if !bytes.is_empty() {
                chunk(&mut write, &bytes).await?;
            }
        }
        self.cut.fetch_add(1, Ordering::SeqCst);
        if self.end == End::Expired {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410});
            let event = format!("{}\n", json!({"type": "ERROR", "object": status}));
            chunk(&mut write, event.as_bytes()).await?;
        }
        write.write_all(b"0\r\n\r\n").await
    }
}

async fn chunk(write: &mut tokio::net::tcp::OwnedWriteHalf, bytes: &[u8]) -> std::io::Result<()> {
    write.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    write.write_all(bytes).await?;
    write.write_all(b"\r\n").await
}

/// Three pods that become ready `seconds` after their start.
fn web(image: &str, seconds: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata:\n      labels: {{app: web}}\n      \
         annotations: {{peer.test/behaviour: slow, peer.test/ready-seconds: '{seconds}'}}\n    spec:\n      \
         containers: [{{name: app, image: '{image}', readinessProbe: {{httpGet: {{path: /, port: 80}}}}}}]\n"
    )
}

fn rolling(place: &Place, text: String) -> KubernetesSpec {
    let action = KubernetesAction::K8sRollingDeploy {
        skip_dry_run: false,
        pruning_enabled: true,
        in_canary_workflow: false,
    };
    let manifest = Manifest {
        identifier: "m".into(),
        store: Some(FileStore::Inline { path: "all.yaml".into(), content: text.into() }),
        kind: ManifestKind::K8sManifest { values_paths: vec![] },
        skip_versioning: false,
    };
    KubernetesSpec { manifest: Some(manifest), ..spec(place, action) }
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
    let mut secrets = cluster(place.plane).1;
    secrets.push(("token".into(), token.into()));
    let mut task = task(spec);
    let execution = key.trim_end_matches("-back").to_owned();
    task.execution = ExecutionRef { execution_id: execution, stage: "s".into(), ..task.execution };
    World::new(key, task, secrets)
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
    let (proxy, url) = Proxy::start(place.client.clone(), End::Expired, 20).await;
    let spec = through(&url, rolling(&place, web("app:1", 6)));
    let (world, output) = succeed(&place, "x1", &spec).await;
    assert_eq!(output.outputs["podIps"].value.as_array().unwrap().len(), 3);
    let log = world.logs.everything();
    let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    println!(
        "{} watches cut, {} lists of pods, {} requests",
        of(&proxy.cut),
        of(&proxy.lists),
        of(&proxy.requests)
    );
    assert!(of(&proxy.cut) >= 4, "the fault did not happen\n{log}");
    assert!(of(&proxy.lists) >= 2, "410 is answered by a new list");
    // Nothing that a user has to know of, and no storm: at most a list and a watch for each.
    assert!(!log.contains("in trouble") && !log.contains("410"), "{log}");
    assert!(of(&proxy.requests) <= 60 + 2 * of(&proxy.cut), "{} requests", of(&proxy.requests));
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
    succeed(&place, "t1", &rolling(&place, web("app:1", 0))).await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();

    // Expired before the step began: nothing is changed.
    let config: Value = serde_json::from_slice(&std::fs::read(place.plane.kubeconfig()).unwrap()).unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let old = token(&place, &account, now() - 600);
    let late = through(&server, rolling(&place, web("app:2", 0)));
    let refused = world(&place, "t2", &old, &late);
    let error = run(&refused, &late).await.unwrap_err();
    println!("{} {error}\n  hint: {:?}", error.code, error.hint);
    assert_eq!((error.code, error.class), ("KUBE-013", Class::Authentication), "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("expired")));
    assert!(refused.marks.calls().is_empty() && image(&place).await == "app:1");
    assert!(!error.to_string().contains(&old) && !refused.logs.everything().contains(&old));

    // Good for a while: the server forgives a minute, and remembers for ten seconds that it was good. Each watch ends
    // after a second, so that the next request is soon.
    let address =
        std::net::SocketAddr::from(([127, 0, 0, 1], server.rsplit(':').next().unwrap().parse().unwrap()));
    let mut anonymous = kube::Config::new(format!("https://{address}").parse().unwrap());
    anonymous.default_retry = false;
    anonymous.accept_invalid_certs = true;
    let anonymous = kube::Client::try_from(anonymous).unwrap();
    let (_proxy, url) = Proxy::start(anonymous, End::InOrder, usize::MAX).await;
    let soon = token(&place, &account, now() - 60 + 15);
    let spec = through(&url, rolling(&place, web("app:3", 600)));
    let expiring = world(&place, "t3", &soon, &spec);
    let error = run(&expiring, &spec).await.unwrap_err();
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
    succeed(&place, "r1", &rolling(&place, web("app:1", 0))).await;

    // Once between two objects of the apply, once while the new pods are waited for.
    let next = rolling(&place, web("app:2", 8) + &settings(200));
    let deploying = world(&place, "r2", "none", &next);
    let killer = async {
        until("some objects", async || place.get(&place.path("v1", "configmaps/c1")).await.is_some()).await;
        restart().await;
        // A loaded machine takes its time to start a server, so this wait is longer than others.
        let log = || deploying.logs.everything();
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        while !log().contains(" of 3 pods are made") {
            assert!(std::time::Instant::now() < deadline, "the step does not get to its wait\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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
