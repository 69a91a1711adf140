//! What a cluster refuses or breaks, and the message a user sees.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::{CancelReason, CancelStage, Class, Executor, StepError, StepOutput};
use executor_kube::{KubeExecutor, Settings};
use peer::plane::{Component, ControlPlane};
use peer::{Place, cluster, inline, spec, task, until};
use proto::task::{Cluster, ClusterCredential, KubernetesAction, KubernetesSpec};
use proto::text::SecretRef;
use serde_json::{Value, json};
use std::time::Duration;

fn apply(place: &Place, text: &str) -> KubernetesSpec {
    let action = KubernetesAction::K8sApply {
        file_paths: vec!["all.yaml".into()],
        skip_dry_run: false,
        skip_steady_state_check: true,
        skip_rendering: false,
    };
    KubernetesSpec { manifest: inline(text), ..spec(place, action) }
}

fn config(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: v}}\n")
}

fn world(place: &Place, spec: &KubernetesSpec, secrets: &[(&str, String)]) -> World {
    let mut all = cluster(place.plane).1;
    all.extend(secrets.iter().map(|(id, value)| ((*id).to_owned(), value.clone())));
    World::new("task", task(spec), all)
}

async fn run(world: &World, spec: &KubernetesSpec) -> Result<StepOutput, StepError> {
    let (_handle, cx) = world.context();
    KubeExecutor::new(Settings::default()).run(spec, &cx).await
}

async fn fails(place: &Place, spec: &KubernetesSpec, secrets: &[(&str, String)], code: &str) -> StepError {
    let world = world(place, spec, secrets);
    let error = match run(&world, spec).await {
        Err(error) => error,
        Ok(_) => panic!("wanted {code}\n{}", world.logs.everything()),
    };
    println!("{} {:?}: {error}\n  hint: {:?}", error.code, error.class, error.hint);
    assert_eq!(error.code, code, "{error}");
    assert!(error.hint.is_some() && error.target.is_some());
    assert!(world.marks.calls().is_empty(), "nothing was changed");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_policy_and_webhook_refusals_come_before_the_first_change() {
    let place = Place::new("admission").await;
    place
        .post(
            &place.path("v1", "resourcequotas"),
            json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "1"}}}),
        )
        .await
        .unwrap();
    let quota = place.path("v1", "resourcequotas/q");
    // kube-root-ca.crt is the one.
    until("the quota", async || {
        place.get(&quota).await.unwrap().pointer("/status/used/configmaps") == Some(&json!("1"))
    })
    .await;
    let error = fails(&place, &apply(&place, &config("a")), &[], "KUBE-021").await;
    assert!(error.what.contains("exceeded quota: q") && error.what.contains("admission refuses"), "{error}");

    let place = Place::new("policy").await;
    place.post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", json!({"metadata": {"name": "no-evil"},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "!object.metadata.name.startsWith('evil')", "message": "no evil names here"}]}})).await.unwrap();
    place.post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", json!({"metadata": {"name": "no-evil"},
        "spec": {"policyName": "no-evil", "validationActions": ["Deny"], "matchResources": {"namespaceSelector":
        {"matchLabels": {"kubernetes.io/metadata.name": "policy"}}}}})).await.unwrap();
    // A new policy acts after about a second.
    let number = std::cell::Cell::new(0);
    until("the policy", async || {
        number.set(number.get() + 1);
        let probe = json!({"metadata": {"name": format!("evil-{}", number.get())}});
        place.post(&place.path("v1", "configmaps"), probe).await.is_err()
    })
    .await;
    let error = fails(&place, &apply(&place, &config("evil-last")), &[], "KUBE-017").await;
    assert!(error.what.contains("no evil names here"), "{error}");

    let place = Place::new("webhook").await;
    place.post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", json!({"metadata": {"name": "dead"},
        "webhooks": [{"name": "dead.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"url": "https://127.0.0.1:1/x"}, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "webhook"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]})).await.unwrap();
    until("the webhook", async || {
        number.set(number.get() + 1);
        place
            .post(
                &place.path("v1", "configmaps"),
                json!({"metadata": {"name": format!("x-{}", number.get())}}),
            )
            .await
            .is_err()
    })
    .await;
    let error = fails(&place, &apply(&place, &config("a")), &[], "KUBE-029").await;
    assert!(error.what.contains("failed calling webhook \"dead.example.com\""), "{error}");
    assert!(error.hint.unwrap().contains("webhook"));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_listed_before_the_first_change() {
    let place = Place::new("rights").await;
    let pki = |name: &str| std::fs::read_to_string(place.plane.dir().join("pki").join(name)).unwrap();
    let ClusterCredential::ClientKeyCert { master_url, ca, .. } = cluster(place.plane).0.credential else {
        panic!()
    };
    let viewer = Cluster {
        connector: "viewer".into(),
        credential: ClusterCredential::ClientKeyCert {
            master_url: master_url.clone(),
            ca: ca.clone(),
            client_cert: SecretRef("viewer-cert".into()),
            client_key: SecretRef("viewer-key".into()),
            passphrase: None,
        },
    };
    let secrets = [("viewer-cert", pki("viewer.crt")), ("viewer-key", pki("viewer.key"))];
    let mut spec = apply(&place, &config("a"));
    spec.cluster = viewer.clone();
    spec.namespace = "default".into();
    let error = fails(&place, &spec, &secrets, "KUBE-025").await;
    assert_eq!(error.class, Class::Authorization);
    assert!(error.what.contains("create, patch, update configmaps in default"), "{error}");
    spec.namespace = "rights".into();
    let error = fails(&place, &spec, &secrets, "KUBE-025").await;
    assert!(error.what.contains("list secrets in rights"), "{error}");

    // A service account with exactly the rights that the step takes.
    let post = async |group: &str, plural: &str, object: Value| {
        place.post(&place.path(group, plural), object).await.unwrap()
    };
    post("v1", "serviceaccounts", json!({"metadata": {"name": "deployer"}})).await;
    let rbac = "rbac.authorization.k8s.io/v1";
    post(rbac, "roles", json!({"metadata": {"name": "deployer"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list", "create", "update", "patch"]}]})).await;
    post(
        rbac,
        "rolebindings",
        json!({"metadata": {"name": "deployer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "deployer"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": "rights"}]}),
    )
    .await;
    let token = post("v1", "serviceaccounts/deployer/token", json!({"spec": {}})).await;
    let token = token["status"]["token"].as_str().unwrap().to_owned();
    spec.cluster.credential =
        ClusterCredential::ServiceAccount { master_url, token: SecretRef("token".into()), ca };
    let secrets = [("token", token)];
    let world = world(&place, &spec, &secrets);
    until("the binding", async || run(&world, &spec).await.is_ok()).await;
    assert!(place.get(&place.path("v1", "configmaps/a")).await.is_some());
    // The account goes, and its token with it.
    place.delete(&place.path("v1", "serviceaccounts/deployer")).await;
    until("the token to expire", async || {
        let world = self::world(&place, &spec, &secrets);
        matches!(run(&world, &spec).await, Err(error) if error.code == "KUBE-013" && error.class == Class::Authentication)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_being_deleted_is_named() {
    let place = Place::new("leaving").await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["test.example.com/hold"]}});
    place.post(&place.path("v1", "configmaps"), held).await.unwrap();
    place.delete("/api/v1/namespaces/leaving").await;
    let error = fails(&place, &apply(&place, &config("a")), &[], "KUBE-023").await;
    assert!(error.what.contains("being terminated") || error.what.contains("being deleted"), "{error}");
    place.patch(&place.path("v1", "configmaps/held"), json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_fields_are_told_apart() {
    let place = Place::new("immutable").await;
    let job = |image: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: a, image: '{image}'}}]}}}}}}\n"
        )
    };
    let first = apply(&place, &job("app:job-ok"));
    run(&world(&place, &first, &[]), &first).await.unwrap();
    let error = fails(&place, &apply(&place, &job("app:2-job-ok")), &[], "KUBE-024").await;
    assert!(error.what.contains("immutable"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_api_server_is_waited_for_and_a_cancel_says_what_is_there() {
    let plane: &'static ControlPlane = Box::leak(Box::new(
        tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1"])).await.unwrap(),
    ));
    let place = Place::on(plane, "restart").await;
    let text: String = (0..300).map(|n| config(&format!("c{n}"))).collect();
    let spec = apply(&place, &text);
    let world_ = world(&place, &spec, &[]);
    let (_handle, cx) = world_.context();
    // A loaded machine takes its time to start a server.
    let patience = Duration::from_secs(90);
    let slow = KubeExecutor::new(Settings { apply_concurrency: 1, patience, ..Settings::default() });
    let killer = async {
        until("some objects", async || place.get(&place.path("v1", "configmaps/c1")).await.is_some()).await;
        tokio::task::spawn_blocking(|| {
            plane.kill(Component::ApiServer);
            plane.start_again(Component::ApiServer);
        })
        .await
        .unwrap();
    };
    let (result, ()) = tokio::join!(slow.run(&spec, &cx), killer);
    result.unwrap_or_else(|e| panic!("{e}\n{}", world_.logs.everything()));
    // The step may have been through before the kill; either way the server is back first.
    until("the server", async || place.get(&place.path("v1", "configmaps?limit=1000")).await.is_some()).await;
    let found = place.get(&place.path("v1", "configmaps?limit=1000")).await.unwrap();
    assert!(found["items"].as_array().unwrap().len() >= 300);

    // Cancelled on the way.
    let text: String = (0..300).map(|n| config(&format!("d{n}"))).collect();
    let spec = apply(&place, &text);
    let world_ = world(&place, &spec, &[]);
    let (handle, cx) = world_.context();
    let cancel = async {
        until("some objects", async || place.get(&place.path("v1", "configmaps/d1")).await.is_some()).await;
        handle.cancel(CancelReason::User, CancelStage::Ask);
    };
    let executor = KubeExecutor::new(Settings { apply_concurrency: 1, ..Settings::default() });
    let (result, ()) = tokio::join!(executor.run(&spec, &cx), cancel);
    let error = result.unwrap_err();
    println!("{error}");
    assert_eq!((error.code, error.class), ("KUBE-028", Class::Cancelled { reason: CancelReason::User }));
    assert!(error.what.contains(" of 300 objects were applied; not applied: "), "{error}");
    let found = place.get(&place.path("v1", "configmaps?limit=1000")).await.unwrap();
    let there = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["metadata"]["name"].as_str().unwrap().starts_with('d') && c["data"]["k"] == "v")
        .count();
    let said: usize = error
        .what
        .split(" of 300 objects")
        .next()
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap()
        .trim_start_matches('\n')
        .parse()
        .unwrap();
    assert_eq!(there, said, "{error}");
    // The process ends without dropping statics; the keeper sees its pipe close.
}
