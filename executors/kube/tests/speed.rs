//! Speed on a real control plane: a thousand objects against `kubectl apply --server-side`, its requests, and a bare loop
//! of one PATCH per object; how soon readiness is noticed; a rolling update of many pods; memory.
//!
//! `make bench ARGS=kubernetes` runs each of these in a process of its own with `KUBE_SPEED_FULL` set and holds what
//! they print as `figure NAME VALUE` to the bars. An ordinary test run takes smaller numbers and wider limits.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "Tests may panic and print, and compare with wall clocks of the peer."
)]

mod peer;

use executor_api::testing::World;
use executor_api::testing::figures::{self, figure, highest_rss, percentile};
use executor_api::{Executor, LogSink as _};
use executor_kube::steady::{self, Target};
use executor_kube::{KubeExecutor, Settings};
use futures::StreamExt as _;
use peer::plane::ControlPlane;
use peer::{Place, cluster, inline, rolling, spec, task};
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const OBJECTS: usize = 1000;

/// Whether everything is measured, as `make bench` asks; kubectl's own limit of requests makes it take minutes.
fn full() -> bool {
    figures::full("KUBE_SPEED_FULL")
}

async fn plane(options: &'static [&'static str]) -> &'static ControlPlane {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(options)).await.unwrap();
    Box::leak(Box::new(plane))
}

/// What is on record, one event after the other, without holding all of it.
fn audit(plane: &ControlPlane) -> impl Iterator<Item = Value> {
    let file = std::fs::File::open(plane.dir().join("logs/audit.log")).unwrap();
    std::io::BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|event| event["stage"] == "ResponseComplete")
}

/// Requests of one user agent on record, without watches: the server may end those at any time, and they are recorded only
/// then.
fn requests(plane: &ControlPlane, agent: &str) -> usize {
    audit(plane)
        .filter(|event| event["verb"] != "watch")
        .filter(|event| event["userAgent"].as_str().is_some_and(|found| found.starts_with(agent)))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_take_two_requests_each_and_little_more_time_than_a_bare_loop() {
    let plane = plane(&["--nodes=1", "--audit"]).await;
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
    let ours_spec = KubernetesSpec { manifest: inline(text("ours")), ..spec(&place, action) };
    let world = World::new("speed", task(&ours_spec), cluster(plane).1);
    let executor = KubeExecutor::new(settings);
    let started = Instant::now();
    let result = executor.run(&ours_spec, &world.context().1).await;
    let ours = started.elapsed();
    result.unwrap_or_else(|e| panic!("{e}"));
    let rss = highest_rss();
    let sent = requests(plane, "delegate/");
    println!("bare loop {bare:?}, ours {ours:?}, {sent} requests, {rss:.1} MiB");
    figure("bare-ratio", ours.as_secs_f64() / bare.as_secs_f64());
    figure("apply-seconds", ours.as_secs_f64());
    figure("apply-rss-mib", rss);
    // kubectl takes seven besides two for each object.
    assert!((2 * OBJECTS..=2 * OBJECTS + 7).contains(&sent), "{sent}");
    // A loaded machine makes single runs noisy; the bench holds the real bar of 2.5.

    if full() {
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
        println!("kubectl: dry run {dry:?}, apply {applied:?}, {theirs} requests");
        figure("kubectl-ratio", ours.as_secs_f64() / applied.as_secs_f64());
        figure("kubectl-requests-ratio", sent as f64 / theirs as f64);
    }
}

/// Seconds of the day of a time as the audit log writes it.
fn of_day(time: &str) -> f64 {
    let clock = time.split_once('T').unwrap().1.trim_end_matches('Z');
    clock.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().unwrap())
}

/// When the API server was asked to write the last status of each Deployment of a namespace, in seconds of the day.
fn last_statuses(plane: &ControlPlane, namespace: &str) -> BTreeMap<String, f64> {
    audit(plane)
        .filter(|event| event["objectRef"]["namespace"] == namespace)
        .filter(|event| {
            event["objectRef"]["resource"] == "deployments" && event["objectRef"]["subresource"] == "status"
        })
        .filter(|event| event["responseStatus"]["code"] == 200)
        .map(|event| {
            let name = event["objectRef"]["name"].as_str().unwrap().to_owned();
            (name, of_day(event["requestReceivedTimestamp"].as_str().unwrap()))
        })
        .collect()
}

/// From the request with which the real controller writes the status that makes a Deployment ready, to the end of our
/// wait: the write itself is part of the measure. The status that completes a rollout is the last that is written.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_noticed_at_once() {
    let plane = plane(&["--nodes=2", "--audit"]).await;
    let place = Place::on(plane, "noticed").await;
    let (rounds, beside) = if full() { (20, 10) } else { (2, 5) };
    let world = peer::world(&place);
    let mut noticed = Vec::new();
    for round in 0..rounds {
        let waits = (0..beside).map(|n| {
            let (place, world) = (&place, &world);
            async move {
                let name = format!("web-{round}-{n}");
                // Ready a while after the wait has begun, each at a time of its own.
                let ready = format!("{}", 1.0 + f64::from(n) * 0.13);
                let later = json!({"peer.test/ready-seconds": ready});
                place.workload("Deployment", &name, "app:1", later, json!({"replicas": 1})).await;
                let target = Target {
                    api_version: "apps/v1".into(),
                    kind: "Deployment".into(),
                    namespace: place.namespace.clone(),
                    name: name.clone(),
                };
                let (_handle, cx) = world.context();
                let log = world.logs.unit(&name);
                steady::wait(&place.client, &[target], &cx, log.as_ref()).await.unwrap();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() % 86_400.0;
                (name, now)
            }
        });
        noticed.extend(futures::future::join_all(waits).await);
        plane.kubectl(&["-n", "noticed", "delete", "deployments", "--all", "--wait=false"]);
    }
    let written = last_statuses(plane, "noticed");
    let spans: Vec<f64> =
        noticed.iter().map(|(name, at)| (at - written[name]).rem_euclid(86_400.0) * 1e3).collect();
    let at = |share| percentile(&spans, share);
    println!("noticed after {:.1} ms (median), {:.1} ms (p99) of {}", at(0.5), at(0.99), spans.len());
    figure("noticed-median-ms", at(0.5));
    figure("noticed-p99-ms", at(0.99));
    // The bench holds the bar of 250 ms; a loaded machine alone may take longer than that.
    assert!(at(0.5) < 2_000.0, "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_of_many_pods_takes_as_many_requests_as_one_of_few() {
    let plane = plane(&["--nodes=6", "--audit"]).await;
    let (few, many) = if full() { (50, 500) } else { (5, 60) };
    let mut updates = Vec::new();
    for replicas in [few, many] {
        let name = format!("rolling-{replicas}");
        let place = Place::on(plane, &name).await;
        let mut before = 0;
        for version in [1, 2] {
            before = requests(plane, "delegate/");
            let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app",
                    "image": format!("app:{version}"), "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}}});
            let spec = KubernetesSpec { manifest: inline(web.to_string()), ..spec(&place, rolling(false)) };
            let world = World::new(format!("{name}-{version}"), task(&spec), cluster(plane).1);
            let started = Instant::now();
            let result = KubeExecutor::new(Settings::default()).run(&spec, &world.context().1).await;
            result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
            println!("{replicas} pods, version {version}: {:?}", started.elapsed());
        }
        updates.push(requests(plane, "delegate/") - before);
    }
    let rss = highest_rss();
    println!("requests of an update: {} of {few} pods, {} of {many}; {rss:.1} MiB", updates[0], updates[1]);
    figure("update-requests-few", updates[0] as f64);
    figure("update-requests-many", updates[1] as f64);
    figure("update-rss-mib", rss);
    // A list more for each page of 500 pods, and room for a watch that the server ends.
    assert!(updates[1] <= updates[0] + 6, "{updates:?}");
}
