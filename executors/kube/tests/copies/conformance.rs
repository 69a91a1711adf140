//! The conformance kit over every step of this family.

use crate::peer::{Place, plane::ControlPlane};
use crate::{blue_green, canary, secrets, step, task, web};
use executor_api::TransportProbe;
use executor_api::testing::World;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_kube::{KubeExecutor, Settings};
use futures::future::BoxFuture;
use proto::failure::FailureKind;
use proto::task::{ClusterCredential, Instances, KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::sync::Arc;

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: alone}\n";

/// Which step is under test.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Canary,
    CanaryDelete,
    BlueGreen,
    Swap,
    ScaleDown,
    Route,
    Weights,
}

struct Kube {
    place: Place,
    step: Step,
}

/// Keys hold upper case letters; names of objects must not.
fn name(key: &str) -> String {
    key.to_lowercase()
}

impl Kube {
    fn case(&self, spec: KubernetesSpec) -> Case<KubernetesSpec> {
        let task = task(&spec);
        Case { spec, task }
    }

    /// The kit asks without awaiting.
    fn now<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
    }

    async fn find(&self, group: &str, rest: String) -> Option<Value> {
        self.place.get(&self.place.path(group, &rest)).await
    }

    /// A canary or colour as an earlier step leaves it.
    async fn copy(&self, name: &str, label: &str, value: &str) {
        let labels = json!({"harness.io/release-name": name, label: value});
        let spec = json!({"replicas": 1});
        let copy = format!("{name}-{value}");
        self.place.workload("Deployment", &copy, "app:1", json!({}), spec).await;
        self.place
            .patch(
                &self.place.path("apps/v1", &format!("deployments/{copy}")),
                json!({"metadata": {"labels": labels}}),
            )
            .await;
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": copy, "labels": labels}});
        self.place.post(&self.place.path("v1", "configmaps"), config).await.unwrap();
    }

    async fn services(&self, name: &str) {
        let stage = format!("{name}-stage");
        blue_green::services(&self.place, name, &stage).await;
        let mine = json!({"metadata": {"labels": {"harness.io/release-name": name},
            "annotations": {"harness.io/primary-service": "true"}}});
        self.place.patch(&self.place.path("v1", &format!("services/{name}")), mine).await;
    }

    fn build(&self, key: &str, image: &str) -> Case<KubernetesSpec> {
        let name = name(key);
        let place = &self.place;
        let spec = match self.step {
            Step::Canary => {
                step(place, &name, &web(&name, image, 2), canary::deploy(Instances::Percentage(50)))
            }
            Step::BlueGreen => step(place, &name, &web(&name, image, 1), blue_green::deploy()),
            Step::CanaryDelete => {
                self.now(self.copy(&name, "harness.io/track", "canary"));
                step(place, &name, "", canary::delete(&[]))
            }
            Step::Swap => {
                self.now(self.services(&name));
                let action = KubernetesAction::K8sBGSwapServices {
                    primary_service: name.clone(),
                    stage_service: format!("{name}-stage"),
                    target_color: None,
                };
                step(place, &name, "", action)
            }
            Step::ScaleDown => {
                self.now(async {
                    self.services(&name).await;
                    self.copy(&name, "harness.io/color", "green").await;
                });
                step(
                    place,
                    &name,
                    "",
                    KubernetesAction::K8sBlueGreenStageScaleDown { delete_resources: false },
                )
            }
            Step::Route => {
                let route =
                    json!({"destinations": [{"host": "a", "weight": 30}, {"host": "b", "weight": 70}]});
                let spec = json!({"name": name, "hosts": ["a"], "routes": [route]});
                let config = json!({"type": "config", "trafficRouting": {"provider": "istio", "spec": spec}});
                step(place, &name, "", KubernetesAction::K8sTrafficRouting { config })
            }
            Step::Weights => {
                let to = |host: &str, weight: u32| json!({"destination": {"host": host}, "weight": weight});
                let route = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": {"name": name, "labels": {"harness.io/release-name": name}},
                    "spec": {"http": [{"route": [to("a", 100), to("b", 0)]}]}});
                self.now(place.post(&place.path("networking.istio.io/v1", "virtualservices"), route))
                    .unwrap();
                let route =
                    json!({"destinations": [{"host": "a", "weight": 30}, {"host": "b", "weight": 70}]});
                let config = json!({"type": "inherit", "trafficRouting": {"routes": [route]}});
                step(place, &name, "", KubernetesAction::K8sTrafficRouting { config })
            }
        };
        self.case(spec)
    }
}

impl Harness for Kube {
    type Executor = KubeExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> KubeExecutor {
        let patience = std::time::Duration::from_secs(2);
        KubeExecutor::new(Settings { patience, ..Settings::default() }).with_probe(probe)
    }

    fn succeeding(&self, key: &str) -> Case<KubernetesSpec> {
        self.build(key, "app:1")
    }

    fn lasting(&self, key: &str) -> Option<Case<KubernetesSpec>> {
        matches!(self.step, Step::Canary | Step::BlueGreen).then(|| self.build(key, "app:never-ready"))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        let copy = if self.step == Step::Canary { "canary" } else { "blue" };
        let rest = format!("deployments/{}-{copy}", name(key));
        Box::pin(async move { self.find("apps/v1", rest).await.is_some() })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        let name = name(key);
        Box::pin(async move {
            // Every accepted change of a specification counts up its generation.
            let generation = async |copy: &str| {
                let found = self.find("apps/v1", format!("deployments/{name}-{copy}")).await;
                found.map_or(0, |found| {
                    usize::try_from(found["metadata"]["generation"].as_u64().unwrap()).unwrap()
                })
            };
            Some(match self.step {
                Step::Canary => generation("canary").await,
                Step::BlueGreen => generation("blue").await,
                Step::CanaryDelete => usize::from(generation("canary").await == 0),
                Step::ScaleDown => generation("green").await - 1,
                Step::Route | Step::Weights => {
                    let found = self.find("networking.istio.io/v1", format!("virtualservices/{name}")).await;
                    // A definition counts generations as built-in kinds do; the given weights are the first.
                    let before = usize::from(self.step == Step::Weights);
                    found.map_or(0, |found| {
                        usize::try_from(found["metadata"]["generation"].as_u64().unwrap()).unwrap() - before
                    })
                }
                Step::Swap => {
                    let color = async |name: &str| {
                        let found = self.find("v1", format!("services/{name}")).await.unwrap();
                        found["spec"]["selector"]["harness.io/color"].as_str().unwrap().to_owned()
                    };
                    let both = (color(&name).await, color(&format!("{name}-stage")).await);
                    usize::from(both == ("green".to_owned(), "blue".to_owned()))
                }
            })
        })
    }

    fn left_behind<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Vec<String>> {
        let release = name(key);
        Box::pin(async move {
            let query = format!("secrets?labelSelector=owner%3Dharness,release%3D{release}");
            let list = self.find("v1", query).await.unwrap();
            let names: Vec<String> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["metadata"]["name"].to_string())
                .collect();
            // One task makes one release, however often it is begun again.
            if names.len() > 1 { names } else { Vec::new() }
        })
    }

    fn errors(&self) -> Vec<ErrorCase<KubernetesSpec>> {
        let case = |name: &str, spec: KubernetesSpec, kind, code| ErrorCase {
            name: name.into(),
            case: self.case(spec),
            kind,
            code,
        };
        let place = &self.place;
        let mut away = step(place, "none", "", blue_green::swap(None));
        if let ClusterCredential::ClientKeyCert { master_url, .. } = &mut away.cluster.credential {
            *master_url = "https://127.0.0.1:1".into();
        }
        let one = || canary::deploy(Instances::Count(1));
        let unknown = web("bad", "app:1", 1).replace("replicas: 1", "repliccas: 1");
        use FailureKind as K;
        match self.step {
            Step::Swap => vec![
                case("no Services", step(place, "none", "", blue_green::swap(None)), K::BadSpec, "KUBE-083"),
                case(
                    "no colour",
                    step(place, "none", "", blue_green::swap(Some("red"))),
                    K::BadSpec,
                    "KUBE-082",
                ),
                case("nobody listens", away, K::Connectivity, "KUBE-011"),
            ],
            Step::Canary => vec![
                case("no workload", step(place, "none", CONFIG, one()), K::BadSpec, "KUBE-080"),
                case("an unknown field", step(place, "bad", &unknown, one()), K::BadSpec, "KUBE-017"),
                case(
                    "no image",
                    step(place, "pull", &web("pull", "app:image-pull", 1), one()),
                    K::RemoteFailed,
                    "KUBE-040",
                ),
            ],
            Step::BlueGreen => vec![
                case("no Service", step(place, "none", CONFIG, blue_green::deploy()), K::BadSpec, "KUBE-081"),
                case(
                    "a crash",
                    step(place, "crash", &web("crash", "app:crash", 1), blue_green::deploy()),
                    K::RemoteFailed,
                    "KUBE-041",
                ),
            ],
            Step::Route => {
                let wrong = KubernetesAction::K8sTrafficRouting { config: json!({"type": "config"}) };
                vec![case("no routing", step(place, "none", "", wrong), K::BadSpec, "KUBE-085")]
            }
            Step::Weights => {
                let routes = json!([{"destinations": [{"host": "a", "weight": 1}]}]);
                let config = json!({"type": "inherit", "trafficRouting": {"routes": routes}});
                let nothing = KubernetesAction::K8sTrafficRouting { config };
                vec![case("nothing to inherit", step(place, "none", "", nothing), K::BadSpec, "KUBE-086")]
            }
            Step::CanaryDelete | Step::ScaleDown => Vec::new(),
        }
    }

    fn planted(&self) -> Vec<(String, String)> {
        secrets(&self.place)
    }

    fn outlives_the_agent(&self) -> bool {
        true
    }

    fn prepare(&self, _world: &mut World) {}
}

async fn conforms(step: Step, name: &str) {
    let _shared: &ControlPlane = tokio::task::spawn_blocking(ControlPlane::shared).await.unwrap();
    let place = Place::new(name).await;
    match step {
        Step::Swap => blue_green::green_pods(&place).await,
        Step::Route | Step::Weights => crate::routes::istio(&place).await,
        _ => {}
    }
    conformance::run(&Kube { place, step }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_deploy_keeps_the_contract() {
    conforms(Step::Canary, "kit-canary").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_delete_keeps_the_contract() {
    conforms(Step::CanaryDelete, "kit-canary-delete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_deploy_keeps_the_contract() {
    conforms(Step::BlueGreen, "kit-blue-green").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swap_keeps_the_contract() {
    conforms(Step::Swap, "kit-swap").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_scale_down_keeps_the_contract() {
    conforms(Step::ScaleDown, "kit-scale-down").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_route_keeps_the_contract() {
    conforms(Step::Route, "kit-route").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_keep_the_contract() {
    conforms(Step::Weights, "kit-weights").await;
}
