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
use peer::proxy::{Fault, Proxy};
use peer::{Place, cluster, inline, rolling, spec, task};
use proto::task::{ClusterCredential, KubernetesSpec};
use proto::text::SecretRef;
use std::time::{Duration, Instant};

fn step(place: &Place, url: &str) -> KubernetesSpec {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";
    let mut spec = KubernetesSpec { manifest: inline(text), ..spec(place, rolling(false)) };
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
    let proxy = Proxy::start(place.client.clone(), Fault::TooMany(2)).await;
    let spec = step(&place, &proxy.url);
    let w = world(&place, &spec, "t1");
    let started = Instant::now();
    let result = KubeExecutor::new(Settings::default()).run(&spec, &w.context().1).await;
    result.unwrap_or_else(|e| panic!("{e}\n{}", w.logs.everything()));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let proxy = Proxy::start(place.client.clone(), Fault::TooMany(1000)).await;
    let spec = step(&place, &proxy.url);
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
        let proxy = Proxy::start(place.client.clone(), Fault::Lost(times)).await;
        let spec = step(&place, &proxy.url);
        let w = world(&place, &spec, &format!("l{times}"));
        let result = KubeExecutor::new(Settings { apply_concurrency: 1, ..Settings::default() })
            .run(&spec, &w.context().1)
            .await;
        let output = result.unwrap_or_else(|e| panic!("{times}: {} {e}\n{}", e.code, w.logs.everything()));
        assert_eq!(output.outputs["releaseNumber"].value, times, "no number is skipped or used twice");
    }
}
