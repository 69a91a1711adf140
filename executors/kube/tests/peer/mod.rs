//! What the tests of this crate share: the control plane, namespaces, clients, worlds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "Each test file uses a part of it.")]

#[path = "../../../../tests/src/peers/kube.rs"]
pub mod plane;
pub mod proxy;
pub mod tools;

use executor_api::testing::{self, World};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use plane::ControlPlane;
use proto::task::{
    Cluster, ClusterCredential, ExecutionRef, FileStore, Instances, KubernetesAction, KubernetesSpec,
    Manifest, ManifestKind, Step, StepSpec, StepTask,
};
use proto::text::Text;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A client as a kubeconfig says.
pub async fn client(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    // As the executor's own: what a server asks for is seen, not hidden by a layer that waits.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A namespace of one test, on one control plane.
pub struct Place {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
}

impl Place {
    /// A new namespace on the shared control plane.
    pub async fn new(name: &str) -> Place {
        let plane = tokio::task::spawn_blocking(ControlPlane::shared).await.unwrap();
        Place::on(plane, name).await
    }

    /// A new namespace on `plane`, usable once its service account is there.
    pub async fn on(plane: &'static ControlPlane, name: &str) -> Place {
        let place = Place { plane, client: client(&plane.kubeconfig()).await, namespace: name.to_owned() };
        place
            .post(
                "/api/v1/namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .await
            .unwrap();
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        until("the namespace's service account", async || place.get(&account).await.is_some()).await;
        place
    }

    /// Path of a collection in this namespace, or of an object in it.
    pub fn path(&self, group: &str, rest: &str) -> String {
        match group {
            "v1" => format!("/api/v1/namespaces/{}/{rest}", self.namespace),
            group => format!("/apis/{group}/namespaces/{}/{rest}", self.namespace),
        }
    }

    pub async fn get(&self, path: &str) -> Option<Value> {
        self.client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.ok()
    }

    pub async fn post(&self, path: &str, object: Value) -> Result<Value, kube::Error> {
        let body = serde_json::to_vec(&object).unwrap();
        let request =
            http::Request::post(path).header("content-type", "application/json").body(body).unwrap();
        self.client.request(request).await
    }

    /// A merge patch.
    pub async fn patch(&self, path: &str, change: Value) -> Value {
        let body = serde_json::to_vec(&change).unwrap();
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        self.client.request(request.body(body).unwrap()).await.unwrap()
    }

    pub async fn delete(&self, path: &str) {
        let _status: Value =
            self.client.request(http::Request::delete(path).body(Vec::new()).unwrap()).await.unwrap();
    }

    /// Creates a workload `name` of a kind; `annotations` steer its pods (`tests/peers/kube/stages`).
    pub async fn workload(&self, kind: &str, name: &str, image: &str, annotations: Value, spec: Value) {
        let (group, plural) = match kind {
            "Job" => ("batch/v1", "jobs"),
            "StatefulSet" => ("apps/v1", "statefulsets"),
            "DaemonSet" => ("apps/v1", "daemonsets"),
            _ => ("apps/v1", "deployments"),
        };
        let mut object = json!({"apiVersion": group, "kind": kind, "metadata": {"name": name},
            "spec": {"template": {"metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"containers": [{"name": "app", "image": image,
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}}});
        if kind != "Job" {
            object["spec"]["selector"] = json!({"matchLabels": {"app": name}});
        }
        merge(&mut object["spec"], spec);
        self.post(&self.path(group, plural), object).await.unwrap();
    }
}

/// Lays `from` over `into`, maps by key.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Waits for a condition, for as long as a loaded machine may take.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    testing::until(what, Duration::from_secs(90), async || condition().await.then_some(())).await;
}

/// The credential of a kubeconfig's administrator as a step names it, and its secrets.
pub fn cluster(plane: &ControlPlane) -> (Cluster, Vec<(String, String)>) {
    use proto::text::SecretRef;
    let config: Value = serde_json::from_slice(&std::fs::read(plane.kubeconfig()).unwrap()).unwrap();
    let secret = |name: &str| std::fs::read_to_string(plane.dir().join("pki").join(name)).unwrap();
    let secrets = vec![
        ("ca".to_owned(), secret("ca.crt")),
        ("cert".to_owned(), secret("admin.crt")),
        ("key".to_owned(), secret("admin.key")),
    ];
    let of = |id: &str| SecretRef(id.to_owned());
    let cluster = Cluster {
        connector: "peer".into(),
        credential: ClusterCredential::ClientKeyCert {
            master_url: config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned(),
            ca: Some(of("ca")),
            client_cert: of("cert"),
            client_key: of("key"),
            passphrase: None,
        },
    };
    (cluster, secrets)
}

/// A manifest that stands in the step, as the file `all.yaml`.
pub fn inline(text: impl Into<Text>) -> Option<Manifest> {
    Some(Manifest {
        identifier: "m".into(),
        store: Some(FileStore::Inline { path: "all.yaml".into(), content: text.into() }),
        files: vec![],
        kind: ManifestKind::K8sManifest { values_paths: vec![] },
        skip_versioning: false,
        optional_values: false,
    })
}

/// A rolling deployment with everything on.
pub fn rolling(pruning_enabled: bool) -> KubernetesAction {
    KubernetesAction::K8sRollingDeploy { skip_dry_run: false, pruning_enabled, in_canary_workflow: false }
}

/// A step against `place`.
pub fn spec(place: &Place, action: KubernetesAction) -> KubernetesSpec {
    KubernetesSpec {
        cluster: cluster(place.plane).0,
        namespace: place.namespace.clone(),
        release_name: "release".into(),
        manifest: None,
        overrides: Vec::new(),
        command_flags: Vec::new(),
        action,
    }
}

/// The task document around a step.
pub fn task(spec: &KubernetesSpec) -> StepTask {
    StepTask {
        execution: ExecutionRef { node: "pipeline.stages.s.step".into(), ..ExecutionRef::default() },
        secret_token: 77,
        ..StepTask::of(Step {
            identifier: "step".into(),
            name: "Step".into(),
            spec: StepSpec::Kubernetes(Box::new(spec.clone())),
        })
    }
}

/// The world of a task in stage `s` of an execution; `secrets` come beside those of the cluster.
pub fn world_in(
    place: &Place,
    execution: &str,
    id: &str,
    spec: &KubernetesSpec,
    secrets: &[(&str, &str)],
) -> World {
    let mut all = cluster(place.plane).1;
    all.extend(secrets.iter().map(|(id, value)| ((*id).to_owned(), (*value).to_owned())));
    let mut task = task(spec);
    task.execution = ExecutionRef { execution_id: execution.into(), stage: "s".into(), ..task.execution };
    World::new(id, task, all)
}

/// A world for a wait that belongs to no step in particular.
pub fn world(place: &Place) -> World {
    let spec = spec(
        place,
        KubernetesAction::K8sScale {
            workload: "Deployment/web".into(),
            instances: Instances::Count(1),
            skip_steady_state_check: false,
        },
    );
    World::new(place.namespace.clone(), task(&spec), cluster(place.plane).1)
}
