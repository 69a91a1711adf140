//! Every way to log in that the peer can show: client certificate, token, kubeconfig context with an exec plugin, alias.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::{Executor, HostAliases, StepError};
use executor_kube::{KubeExecutor, Settings};
use peer::{Place, cluster, inline, spec, task};
use proto::task::{ClusterCredential, KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

fn dry_run(place: &Place) -> KubernetesSpec {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    KubernetesSpec { manifest: inline(text), ..spec(place, KubernetesAction::K8sDryRun {}) }
}

async fn run(
    place: &Place,
    spec: &KubernetesSpec,
    settings: Settings,
    aliases: HostAliases,
) -> (World, Result<(), StepError>) {
    let mut world = World::new("t", task(spec), cluster(place.plane).1);
    world.aliases = Arc::new(aliases);
    let result = KubeExecutor::new(settings).run(spec, &world.context().1).await;
    (world, result.map(|_| ()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_the_agents_kubeconfig_logs_in_by_its_exec_plugin() {
    let place = Place::new("contexts").await;
    let dir = tempfile::tempdir().unwrap();
    let admin: Value = serde_json::from_slice(&std::fs::read(place.plane.kubeconfig()).unwrap()).unwrap();
    place.post(&place.path("v1", "serviceaccounts"), json!({"metadata": {"name": "plugin"}})).await.unwrap();
    place
        .post(
            &place.path("rbac.authorization.k8s.io/v1", "rolebindings"),
            json!({"metadata": {"name": "plugin"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "plugin", "namespace": "contexts"}]}),
        )
        .await
        .unwrap();
    let token =
        place.post(&place.path("v1", "serviceaccounts/plugin/token"), json!({"spec": {}})).await.unwrap();
    let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token["status"]["token"]}});
    let plugin = dir.path().join("plugin");
    std::fs::write(
        &plugin,
        format!(
            "#!/bin/sh\ntest -z \"$FAIL\" || {{ echo no ticket >&2; exit 3; }}\ncat <<'X'\n{credential}\nX\n"
        ),
    )
    .unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).unwrap();
    let exec = |fail: &str| {
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "IfAvailable",
            "env": [{"name": "FAIL", "value": fail}]}})
    };
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "broken", "clusters": admin["clusters"],
        "users": [{"name": "plugin", "user": exec("")}, {"name": "broken", "user": exec("1")}],
        "contexts": [
            {"name": "by-plugin", "context": {"cluster": admin["clusters"][0]["name"], "user": "plugin"}},
            {"name": "broken", "context": {"cluster": admin["clusters"][0]["name"], "user": "broken"}}]});
    let file: PathBuf = dir.path().join("config");
    std::fs::write(&file, config.to_string()).unwrap();
    let settings = || Settings { kubeconfig: Some(file.clone()), ..Settings::default() };
    let mut spec = dry_run(&place);
    spec.cluster.credential = ClusterCredential::InheritFromDelegate { context: Some("by-plugin".into()) };
    let (world, result) = run(&place, &spec, settings(), HostAliases::default()).await;
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    spec.cluster.credential = ClusterCredential::InheritFromDelegate { context: None };
    let (_, result) = run(&place, &spec, settings(), HostAliases::default()).await;
    let error = result.unwrap_err();
    println!("{error}");
    assert_eq!(error.code, "KUBE-013", "{error}");
    assert!(error.what.contains("plugin"), "{error}");
    spec.cluster.credential = ClusterCredential::InheritFromDelegate { context: Some("nowhere".into()) };
    let (_, result) = run(&place, &spec, settings(), HostAliases::default()).await;
    let error = result.unwrap_err();
    assert!(error.code == "KUBE-031" && error.what.contains("nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_alias_is_connected_to_and_the_certificate_checked_against_the_name() {
    let place = Place::new("aliases").await;
    let mut spec = dry_run(&place);
    let ClusterCredential::ClientKeyCert { master_url, .. } = &mut spec.cluster.credential else { panic!() };
    let port = master_url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let address = format!("127.0.0.1:{port}");
    *master_url = "https://kubernetes.default.svc:6443".into();
    let aliases = HostAliases::new([("kubernetes.default.svc:6443".to_owned(), address.clone())]);
    let (world, result) = run(&place, &spec, Settings::default(), aliases).await;
    result.unwrap_or_else(|e| panic!("{e}\n{}", world.logs.everything()));
    assert!(world.logs.everything().contains("host alias: kubernetes.default.svc:6443 is reached at"));
    let ClusterCredential::ClientKeyCert { master_url, .. } = &mut spec.cluster.credential else { panic!() };
    *master_url = "https://not-in-the-certificate.test".into();
    let aliases = HostAliases::new([("not-in-the-certificate.test".to_owned(), address)]);
    let (_, result) = run(&place, &spec, Settings::default(), aliases).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, "KUBE-012", "{error}");
}
