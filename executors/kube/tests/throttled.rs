//! A proxy in front of the real API server that asks to slow down, or loses answers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::{Class, Executor};
use executor_kube::{KubeExecutor, Settings};
use kube::client::Body;
use peer::{Place, cluster, spec, task};
use proto::task::{ClusterCredential, FileStore, KubernetesAction, KubernetesSpec, Manifest, ManifestKind};
use proto::text::SecretRef;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the proxy does to a request that changes something.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// 429 in plain text, as priority and fairness answers it.
    TooMany,
    /// The request is carried out and its answer lost.
    Lost,
}

/// Forwards plain HTTP to the real server; the first `times` changes meet the fault.
async fn proxy(client: kube::Client, fault: Fault, times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let left = Arc::new(AtomicUsize::new(times));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (client, left) = (client.clone(), left.clone());
            tokio::spawn(async move {
                let _ended = serve(stream, client, fault, left).await;
            });
        }
    });
    url
}

async fn serve(
    stream: TcpStream,
    client: kube::Client,
    fault: Fault,
    left: Arc<AtomicUsize>,
) -> std::io::Result<()> {
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
            } else if ["accept", "content-type"].contains(&name.to_ascii_lowercase().as_str()) {
                request = request.header(name, value);
            }
        }
        let mut body = vec![0; length];
        read.read_exact(&mut body).await?;
        let changes = matches!(method.as_str(), "PATCH" | "PUT" | "POST" | "DELETE")
            && !path.contains("dryRun=All")
            && !path.contains("authorization.k8s.io");
        let hit =
            changes && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if hit && fault == Fault::TooMany {
            let text = "Too many requests, please try again later.\n";
            let head = format!(
                "HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            write.write_all((head + text).as_bytes()).await?;
            continue;
        }
        let answer = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        if hit {
            return Ok(());
        }
        let status = answer.status();
        let body = answer.into_body().collect_bytes().await.unwrap();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        write.write_all(head.as_bytes()).await?;
        write.write_all(&body).await?;
    }
}

fn step(place: &Place, url: &str) -> KubernetesSpec {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";
    let action = KubernetesAction::K8sRollingDeploy {
        skip_dry_run: false,
        pruning_enabled: false,
        in_canary_workflow: false,
    };
    let mut spec = KubernetesSpec {
        manifest: Some(Manifest {
            identifier: "m".into(),
            store: Some(FileStore::Inline { path: "all.yaml".into(), content: text.into() }),
            kind: ManifestKind::K8sManifest { values_paths: vec![] },
            skip_versioning: false,
        }),
        ..spec(place, action)
    };
    spec.cluster.credential = ClusterCredential::ServiceAccount {
        master_url: url.into(),
        token: SecretRef("token".into()),
        ca: None,
    };
    spec
}

fn world(place: &Place, spec: &KubernetesSpec, key: &str) -> World {
    let mut secrets = cluster(place.plane).1;
    secrets.push(("token".into(), "of-the-proxy".into()));
    World::new(key, task(spec), secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_to_slow_down_is_obeyed_and_not_for_ever() {
    let place = Place::new("throttled").await;
    let url = proxy(place.client.clone(), Fault::TooMany, 2).await;
    let spec = step(&place, &url);
    let w = world(&place, &spec, "t1");
    let started = Instant::now();
    let result = KubeExecutor::new(Settings::default()).run(&spec, &w.context().1).await;
    result.unwrap_or_else(|e| panic!("{e}\n{}", w.logs.everything()));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let url = proxy(place.client.clone(), Fault::TooMany, 1000).await;
    let spec = step(&place, &url);
    let w = world(&place, &spec, "t2");
    let settings = Settings { patience: Duration::from_millis(100), ..Settings::default() };
    let error = KubeExecutor::new(settings).run(&spec, &w.context().1).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.code, "KUBE-016", "{error}");
    assert_eq!(error.class, Class::Throttled { retry_after: Some(Duration::from_secs(1)) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_is_lost_takes_place_once() {
    let place = Place::new("lost").await;
    // Every change of the step is carried out and its answer lost, once each.
    for times in 1..=4 {
        let url = proxy(place.client.clone(), Fault::Lost, times).await;
        let spec = step(&place, &url);
        let w = world(&place, &spec, &format!("l{times}"));
        let result = KubeExecutor::new(Settings { apply_concurrency: 1, ..Settings::default() })
            .run(&spec, &w.context().1)
            .await;
        let output = result.unwrap_or_else(|e| panic!("{times}: {} {e}\n{}", e.code, w.logs.everything()));
        assert_eq!(output.outputs["releaseNumber"].value, times, "no number is skipped or used twice");
    }
}
