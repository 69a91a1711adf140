//! The API server dies and comes back while a canary is waited for, and between the two Services of a swap.

use crate::blue_green::{deploy as colour, green_pods, services, swap};
use crate::canary::deploy;
use crate::peer::plane::{Component, ControlPlane};
use crate::peer::{Place, until};
use crate::{live, output, step, web, world};
use executor_api::testing::World;
use executor_api::{Executor, StepOutput, TransportProbe};
use executor_kube::{KubeExecutor, Settings};
use futures::future::BoxFuture;
use proto::task::{Instances, KubernetesSpec};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A loaded machine takes its time to start a server.
fn patient() -> KubeExecutor {
    KubeExecutor::new(Settings { patience: Duration::from_secs(90), ..Settings::default() })
}

async fn restart(plane: &'static ControlPlane) {
    let restarted = tokio::task::spawn_blocking(|| {
        plane.kill(Component::ApiServer);
        plane.start_again(Component::ApiServer);
    });
    restarted.await.unwrap();
}

/// The step's output, once the server answers others too.
async fn ended(place: &Place, world: &World, executor: &KubeExecutor, spec: &KubernetesSpec) -> StepOutput {
    let (_handle, cx) = world.context();
    let result = tokio::time::timeout(Duration::from_secs(180), executor.run(spec, &cx)).await;
    let log = world.logs.everything();
    let result = result.unwrap_or_else(|_| panic!("no end\n{log}"));
    let output = result.unwrap_or_else(|e| panic!("{} {e}\n{log}", e.code));
    let services = place.path("v1", "services");
    until("the server", async || place.get(&services).await.is_some()).await;
    output
}

/// Restarts the API server before the `at`th change of a Service's selector.
struct Between {
    plane: &'static ControlPlane,
    at: usize,
    seen: AtomicUsize,
}

impl TransportProbe for Between {
    fn before<'a>(&'a self, _task: &'a str, call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if call.starts_with("select") && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
                restart(self.plane).await;
            }
        })
    }
    fn after<'a>(&'a self, _task: &'a str, _call: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_restarted_in_mid_canary_and_in_mid_swap_is_waited_for() {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1"])).await.unwrap();
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));

    // A canary whose pods take a while: the server goes while they are waited for.
    let place = Place::on(plane, "mid-canary").await;
    let slowly = "annotations: {peer.test/behaviour: slow, peer.test/ready-seconds: '8'}, labels";
    let manifest = web("web", "app:2", 4).replace("{labels", &format!("{{{slowly}"));
    assert!(manifest.contains("peer.test"), "{manifest}");
    let spec = step(&place, "rel", &manifest, deploy(Instances::Count(2)));
    let deploying = world(&place, "c1", &spec);
    let killer = async {
        until("the canary is waited for", async || {
            deploying.logs.everything().contains(" of 2 new pods ready")
        })
        .await;
        restart(plane).await;
    };
    let executor = patient();
    let (canary, ()) = tokio::join!(ended(&place, &deploying, &executor, &spec), killer);
    let log = deploying.logs.everything();
    assert!(log.contains("in trouble") && log.contains("answers again"), "{log}");
    assert_eq!(output(&canary, "targetInstances"), 2);
    assert_eq!(output(&canary, "podIps").as_array().unwrap().len(), 2);
    let found = live(&place, "apps/v1", "deployments/web-canary").await;
    assert_eq!((&found["status"]["readyReplicas"], &found["metadata"]["generation"]), (&json!(2), &json!(1)));
    let all = live(&place, "apps/v1", "deployments").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 1, "nothing but the canary was made");

    // Production already points to green when the server goes; the stage Service follows when it is back.
    let place = Place::on(plane, "mid-swap").await;
    services(&place, "web", "web-stage").await;
    green_pods(&place).await;
    let spec = step(&place, "rel", "", swap(Some("green")));
    let swapping = world(&place, "s1", &spec);
    let probe = Between { plane, at: 2, seen: AtomicUsize::new(0) };
    let executor = patient().with_probe(Arc::new(probe));
    let swapped = ended(&place, &swapping, &executor, &spec).await;
    assert_eq!(output(&swapped, "primaryColor"), "green");
    let selects = async |name: &str| {
        live(&place, "v1", &format!("services/{name}")).await["spec"]["selector"]["harness.io/color"].clone()
    };
    assert_eq!((selects("web").await, selects("web-stage").await), (json!("green"), json!("blue")));

    // A deployment of the other colour is possible at once: what is known of the release came through it all.
    let spec = step(&place, "rel", &web("web", "app:3", 2), colour());
    let deploying = world(&place, "d1", &spec);
    let deployed = ended(&place, &deploying, &patient(), &spec).await;
    assert_eq!(output(&deployed, "stageColor"), "blue");
}
