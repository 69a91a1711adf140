//! A thousand objects: against `kubectl apply --server-side`, its requests, and a bare loop of one PATCH per object.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::Executor;
use executor_api::testing::World;
use executor_kube::{KubeExecutor, Settings};
use futures::StreamExt as _;
use peer::plane::ControlPlane;
use peer::{Place, cluster, spec, task};
use proto::task::{FileStore, KubernetesAction, KubernetesSpec, Manifest, ManifestKind};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const OBJECTS: usize = 1000;

/// Requests of one user agent on record.
fn requests(plane: &ControlPlane, agent: &str) -> usize {
    let audit = std::fs::read_to_string(plane.dir().join("logs/audit.log")).unwrap_or_default();
    audit
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["stage"] == "ResponseComplete")
        .filter(|event| event["userAgent"].as_str().is_some_and(|found| found.starts_with(agent)))
        .count()
}

/// Compares with kubectl only when asked: its own limit of requests makes it take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_take_two_requests_each_and_little_more_time_than_a_bare_loop() {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1", "--audit"])).await.unwrap();
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));
    let place = Place::on(plane, "speed").await;
    let object = |prefix: &str, n: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{prefix}-{n}")},
            "data": {"a": "1", "b": "x".repeat(200)}})
    };
    let text =
        |prefix: &str| -> String { (0..OBJECTS).map(|n| format!("---\n{}\n", object(prefix, n))).collect() };
    let settings = Settings::default();

    // The bare loop: creates, over as many connections.
    let started = Instant::now();
    let sent: Vec<_> = futures::stream::iter(0..OBJECTS)
        .map(|n| {
            let body = serde_json::to_vec(&object("bare", n)).unwrap();
            let path = format!("{}?fieldManager=bare", place.path("v1", &format!("configmaps/bare-{n}")));
            let client = place.client.clone();
            async move {
                let request =
                    http::Request::patch(path).header("content-type", "application/apply-patch+yaml");
                client.request_text(request.body(body).unwrap()).await
            }
        })
        .buffer_unordered(settings.apply_concurrency)
        .collect()
        .await;
    assert!(sent.iter().all(Result::is_ok));
    let bare = started.elapsed();

    let action = KubernetesAction::K8sApply {
        file_paths: vec!["all.yaml".into()],
        skip_dry_run: false,
        skip_steady_state_check: true,
        skip_rendering: false,
    };
    let ours_spec = KubernetesSpec {
        manifest: Some(Manifest {
            identifier: "m".into(),
            store: Some(FileStore::Inline { path: "all.yaml".into(), content: text("ours").into() }),
            kind: ManifestKind::K8sManifest { values_paths: vec![] },
            skip_versioning: false,
        }),
        ..spec(&place, action)
    };
    let world = World::new("speed", task(&ours_spec), cluster(plane).1);
    let executor = KubeExecutor::new(settings);
    let started = Instant::now();
    let result = executor.run(&ours_spec, &world.context().1).await;
    let ours = started.elapsed();
    result.unwrap_or_else(|e| panic!("{e}"));
    let sent = requests(plane, "delegate/");
    println!(
        "bare loop {bare:?}, ours {ours:?} ({:.2} x), {sent} requests",
        ours.as_secs_f64() / bare.as_secs_f64()
    );
    assert!((2 * OBJECTS..=2 * OBJECTS + 20).contains(&sent), "{sent}");
    // A loaded machine makes single runs noisy; the bench holds the real bar of 2.5.
    assert!(ours < bare * 5 + Duration::from_secs(2), "{ours:?} against {bare:?}");

    if std::env::var_os("KUBE_SPEED_KUBECTL").is_some() {
        let file = plane.dir().join("many.yaml");
        std::fs::write(&file, text("kubectl")).unwrap();
        let file = file.to_str().unwrap();
        let started = Instant::now();
        plane.kubectl(&["-n", "speed", "apply", "--server-side", "--dry-run=server", "-f", file]);
        let dry = started.elapsed();
        let started = Instant::now();
        plane.kubectl(&["-n", "speed", "apply", "--server-side", "-f", file]);
        let applied = started.elapsed();
        let theirs = requests(plane, "kubectl");
        println!(
            "kubectl: dry run {dry:?}, apply {applied:?}, {theirs} requests; ours is 1/{:.1}",
            applied.as_secs_f64() / ours.as_secs_f64()
        );
        assert!(ours * 8 <= applied && sent <= theirs);
    }
}
