//! Apply, rolling deployment, rollback and deletion on a real control plane.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod peer;

use executor_api::testing::World;
use executor_api::{Class, Executor, Plan, StepError, StepOutput};
use executor_kube::{KubeExecutor, Settings};
use peer::{Place, inline, rolling, spec, world_in};
use proto::task::{CommandFlag, KubernetesAction, KubernetesSpec, Selection};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::sync::Arc;

const SECRET: &str = "pl4nted-s3cret-value";

fn step(place: &Place, action: KubernetesAction, manifest: Option<&str>) -> KubernetesSpec {
    KubernetesSpec { manifest: manifest.and_then(inline), ..spec(place, action) }
}

fn apply() -> KubernetesAction {
    KubernetesAction::K8sApply {
        file_paths: vec!["all.yaml".into()],
        skip_dry_run: false,
        skip_steady_state_check: false,
        skip_rendering: false,
    }
}

fn world(place: &Place, key: &str, spec: &KubernetesSpec) -> World {
    world_in(place, key, key, spec, &[("planted", SECRET)])
}

async fn run_in(world: &World, spec: &KubernetesSpec) -> Result<StepOutput, StepError> {
    let executor = KubeExecutor::new(Settings::default()).with_probe(Arc::new(world.marks.clone()));
    let (_handle, cx) = world.context();
    executor.check(spec, &cx).unwrap_or_else(|faults| panic!("{faults:?}"));
    let result = executor.run(spec, &cx).await;
    let bare = world.marks.unannounced();
    assert!(bare.is_empty(), "without a checkpoint: {bare:?}");
    let log = world.logs.everything();
    assert!(!log.contains(SECRET), "{log}");
    result
}

async fn run(place: &Place, key: &str, spec: &KubernetesSpec) -> (World, Result<StepOutput, StepError>) {
    let world = world(place, key, spec);
    let result = run_in(&world, spec).await;
    (world, result)
}

async fn succeed(place: &Place, key: &str, spec: &KubernetesSpec) -> (World, StepOutput) {
    let (world, result) = run(place, key, spec).await;
    let output = result.unwrap_or_else(|e| panic!("{key}: {} {e}\n{}", e.code, world.logs.everything()));
    (world, output)
}

async fn fail(place: &Place, key: &str, spec: &KubernetesSpec) -> (World, StepError) {
    let (world, result) = run(place, key, spec).await;
    match result {
        Ok(_) => panic!("{key} succeeded\n{}", world.logs.everything()),
        Err(error) => (world, error),
    }
}

async fn plan(place: &Place, key: &str, spec: &KubernetesSpec) -> String {
    let world = world(place, key, spec);
    let executor = KubeExecutor::new(Settings::default()).with_probe(Arc::new(world.marks.clone()));
    let plan = executor.plan(spec, &world.context().1).await;
    assert!(world.marks.calls().is_empty(), "a plan changes nothing");
    match plan {
        Ok(Plan::Diff { text, hash }) => {
            assert_eq!(hash.len(), 64);
            text
        }
        other => panic!("{key}: {other:?}\n{}", world.logs.everything()),
    }
}

fn web(image: &str, replicas: u32, setting: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{setting: \"{setting}\"}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         containers:\n      - name: app\n        image: {image}\n        envFrom: [{{configMapRef: {{name: conf}}}}]\n        \
         readinessProbe: {{httpGet: {{path: /, port: 80}}}}\n"
    )
}

async fn deployment(place: &Place) -> Value {
    place.get(&place.path("apps/v1", "deployments/web")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_deployed_kept_when_nothing_changes_and_rolled_back_as_a_whole() {
    let place = Place::new("rolling").await;
    let first = step(&place, rolling(true), Some(&web("app:1", 2, "a")));
    let shown = plan(&place, "p1", &first).await;
    assert!(
        shown.contains("create rolling/ConfigMap/conf-1")
            && shown.ends_with("3 to create, 0 to change, 0 to delete, 0 unchanged\n"),
        "{shown}"
    );
    let (world1, output) = succeed(&place, "e1", &first).await;
    println!("{}", world1.logs.everything());
    assert_eq!(output.outputs["releaseNumber"].value, 1);
    assert_eq!(output.outputs["podIps"].value.as_array().unwrap().len(), 2);
    let live = deployment(&place).await;
    assert_eq!(live.pointer("/spec/template/metadata/labels/harness.io~1release-name").unwrap(), "release");
    let pods = live["metadata"]["generation"].clone();

    // The same again: nothing changes, no pod is replaced, the number goes on.
    let again = plan(&place, "p2", &first).await;
    assert_eq!(again, "0 to create, 0 to change, 0 to delete, 3 unchanged\n");
    let (_, output) = succeed(&place, "e2", &first).await;
    assert_eq!(output.outputs["releaseNumber"].value, 2);
    assert_eq!(deployment(&place).await["metadata"]["generation"], pods);

    // Another content gets another name; the Service goes and is pruned.
    let next = web("app:2", 2, "b")
        .replace("kind: Service", "kind: Service # gone")
        .split("---\n")
        .filter(|d| !d.contains("# gone"))
        .collect::<Vec<_>>()
        .join("---\n");
    let third = step(&place, rolling(true), Some(&next));
    let shown = plan(&place, "p3", &third).await;
    assert!(
        shown.contains("create rolling/ConfigMap/conf-3") && shown.contains("delete rolling/Service/web"),
        "{shown}"
    );
    assert!(shown.contains("-         - image: app:1") || shown.contains("app:1"), "{shown}");
    let (_, output) = succeed(&place, "e3", &third).await;
    assert_eq!(output.outputs["prunedResourceIds"].value[0]["name"], "web");
    assert!(place.get(&place.path("v1", "services/web")).await.is_none());
    let undo = output.undo.clone();

    // Back: the Service, the image and the configuration of number 2.
    let back = step(&place, KubernetesAction::K8sRollingRollback { pruning_enabled: true }, None);
    let mut world4 = world(&place, "e3", &back);
    Arc::make_mut(&mut world4.task).undo = undo;
    world4.task_id = "rollback".into();
    let output = run_in(&world4, &back).await.unwrap_or_else(|e| panic!("{e}\n{}", world4.logs.everything()));
    assert_eq!(output.outputs["releaseNumber"].value, 2, "{}", world4.logs.everything());
    assert_eq!(output.outputs["recreatedResourceIds"].value[0]["kind"], "Service");
    let live = deployment(&place).await;
    assert_eq!(live.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:1");
    assert_eq!(
        live.pointer("/spec/template/spec/containers/0/envFrom/0/configMapRef/name").unwrap(),
        "conf-1"
    );
    assert!(place.get(&place.path("v1", "services/web")).await.is_some());
    let secret = place.get(&place.path("v1", "secrets/harness.release.release.3")).await.unwrap();
    assert_eq!(secret["metadata"]["labels"]["status"], "Failed");
    assert_eq!(secret["type"], "harness.io/release/v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_validated_before_the_first_change() {
    let place = Place::new("validated").await;
    let text = format!(
        "{}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: Bad_Name}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec: {{replicas: two, typo: 1, selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: a, image: b}}]}}}}}}\n",
        web("app:1", 1, "a")
    );
    let (world, error) = fail(&place, "v1", &step(&place, apply(), Some(&text))).await;
    println!("{error}");
    assert_eq!((error.code, error.class), ("KUBE-017", Class::BadSpec));
    assert!(error.what.contains("2 of 5 objects were refused"), "{error}");
    assert!(error.what.contains("Bad_Name") && error.what.contains("replicas"), "{error}");
    assert!(world.marks.calls().is_empty());
    assert!(place.get(&place.path("v1", "configmaps/conf")).await.is_none());
    let unknown = "apiVersion: example.com/v1\nkind: Nothing\nmetadata: {name: a}\n";
    let (_, error) = fail(&place, "v2", &step(&place, apply(), Some(unknown))).await;
    assert_eq!(error.code, "KUBE-018", "{error}");
    let lost = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: nowhere}\n";
    let (_, error) = fail(&place, "v3", &step(&place, apply(), Some(lost))).await;
    assert_eq!(error.code, "KUBE-023", "{error}");
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: validated}\n";
    let (_, error) = fail(&place, "v4", &step(&place, apply(), Some(twice))).await;
    assert_eq!(error.code, "KUBE-010", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_its_resource_and_their_namespace_come_in_one_set() {
    let place = Place::new("definitions").await;
    let crd = |size: &str| {
        format!(
            "apiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: w, namespace: made-by-set}}\nspec: {{size: {size}}}\n---\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c, namespace: made-by-set}}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: made-by-set}}\n---\n\
             apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: widgets.example.com}}\n\
             spec:\n  group: example.com\n  scope: Namespaced\n  names: {{kind: Widget, plural: widgets, singular: widget}}\n  \
             versions:\n  - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n        type: object\n        \
             properties: {{spec: {{type: object, properties: {{size: {{type: integer}}}}}}}}\n"
        )
    };
    let (world, error) = fail(&place, "d1", &step(&place, apply(), Some(&crd("large")))).await;
    assert_eq!(error.code, "KUBE-017", "{error}");
    assert!(error.what.contains("spec.size must be of type integer"), "{error}");
    assert!(world.marks.calls().is_empty());
    let (world, _) = succeed(&place, "d2", &step(&place, apply(), Some(&crd("3")))).await;
    println!("{}", world.logs.everything());
    let widget = place.get("/apis/example.com/v1/namespaces/made-by-set/widgets/w").await.unwrap();
    assert_eq!(widget["spec"]["size"], 3);
    let calls = world.marks.calls();
    let at = |text: &str| calls.iter().position(|call| call.contains(text)).unwrap();
    assert!(
        at("Namespace") < at("ConfigMap/c") && at("CustomResourceDefinition") < at("Widget"),
        "{calls:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_names_the_owner_and_client_side_fields_are_taken_over() {
    let place = Place::new("conflicts").await;
    let file = place.plane.dir().join("conflicts.yaml");
    std::fs::write(&file, web("app:1", 2, "a").replace("\ndata: {", "\ndata: {old: \"x\", ")).unwrap();
    place.plane.kubectl(&["-n", "conflicts", "apply", "-f", file.to_str().unwrap()]);
    // Another manager takes the replicas.
    place.plane.kubectl(&["-n", "conflicts", "scale", "deployment/web", "--replicas=3"]);
    let mut wanted = step(&place, apply(), Some(&web("app:2", 2, "b")));
    let (_, error) = fail(&place, "c1", &wanted).await;
    println!("{error}");
    assert_eq!((error.code, error.class), ("KUBE-019", Class::BadSpec));
    assert!(error.what.contains("spec.replicas belongs to `kubectl`"), "{error}");
    assert_eq!(deployment(&place).await.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:1");
    wanted.command_flags = vec![CommandFlag { command: "Apply".into(), flag: "--force-conflicts".into() }];
    let (world, _) = succeed(&place, "c2", &wanted).await;
    assert!(
        world.marks.calls().iter().any(|call| call == "take over conflicts/Deployment/web"),
        "{:?}",
        world.marks.calls()
    );
    let live = deployment(&place).await;
    assert_eq!(live["spec"]["replicas"], 2);
    // A field that only the client-side apply had written is gone, and so is its note.
    let config = place.get(&place.path("v1", "configmaps/conf")).await.unwrap();
    assert_eq!(config["data"], json!({"setting": "b"}));
    assert!(config["metadata"].get("annotations").is_none(), "{config}");
    let managers: Vec<&Value> =
        config["metadata"]["managedFields"].as_array().unwrap().iter().map(|m| &m["manager"]).collect();
    assert_eq!(managers, ["delegate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_keeps_what_a_release_set_and_prunes_only_its_own() {
    let place = Place::new("applies").await;
    succeed(&place, "r1", &step(&place, rolling(false), Some(&web("app:1", 1, "a")))).await;
    let before = deployment(&place).await;
    // The same workload by K8sApply: labels and versioned names stay, no rollout.
    let only: String = web("app:1", 1, "a").split("---\n").filter(|d| d.contains("Deployment")).collect();
    succeed(&place, "a1", &step(&place, apply(), Some(&only))).await;
    let after = deployment(&place).await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"], "{after}");
    let map = |name: &str, app: &str| {
        format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\n")
    };
    let three = format!("{}{}{}", map("one", "x"), map("two", "x"), map("three", "y"));
    succeed(&place, "a2", &step(&place, apply(), Some(&three))).await;
    // Somebody else's object with the same label.
    place
        .post(
            &place.path("v1", "configmaps"),
            json!({"metadata": {"name": "foreign", "labels": {"app": "x"}}}),
        )
        .await
        .unwrap();
    let mut pruning = step(&place, apply(), Some(&map("two", "x")));
    pruning.command_flags =
        vec![CommandFlag { command: "Apply".into(), flag: "--prune --selector=app=x".into() }];
    let shown = plan(&place, "p", &pruning).await;
    assert!(shown.contains("delete applies/ConfigMap/one\n") && shown.contains("1 to delete"), "{shown}");
    let (world, output) = succeed(&place, "a3", &pruning).await;
    assert_eq!(
        output.outputs["prunedResourceIds"].value.as_array().unwrap().len(),
        1,
        "{}",
        world.logs.everything()
    );
    for (name, stays) in [("one", false), ("two", true), ("three", true), ("foreign", true), ("conf-1", true)]
    {
        let found = place.get(&place.path("v1", &format!("configmaps/{name}"))).await.is_some();
        assert_eq!(found, stays, "{name}");
    }
    // Everything of the release goes, with its history; what is not ours stays.
    let delete = KubernetesAction::K8sDelete { resources: Selection::Release, delete_namespaces: false };
    let shown = plan(&place, "pd", &step(&place, delete.clone(), None)).await;
    assert!(shown.contains("delete applies/Deployment/web"), "{shown}");
    succeed(&place, "del", &step(&place, delete.clone(), None)).await;
    assert!(place.get(&place.path("apps/v1", "deployments/web")).await.is_none());
    assert!(place.get(&place.path("v1", "configmaps/foreign")).await.is_some());
    let left = place.plane.kubectl(&["-n", "applies", "get", "secrets,configmaps,services", "-o", "name"]);
    println!("{left}");
    assert!(
        !left.contains("harness.release") && !left.contains("conf-1") && left.contains("foreign"),
        "{left}"
    );
    // Again, and by name.
    succeed(&place, "del2", &step(&place, delete, None)).await;
    let named = KubernetesAction::K8sDelete {
        resources: Selection::Names(vec!["ConfigMap/foreign".into(), "applies/ConfigMap/absent".into()]),
        delete_namespaces: false,
    };
    succeed(&place, "del3", &step(&place, named, None)).await;
    assert!(place.get(&place.path("v1", "configmaps/foreign")).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_hidden_in_logs_diffs_and_outputs() {
    let place = Place::new("hidden").await;
    let planted = placeholder(&SecretRef("planted".into()), 77);
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{password: '{planted}', other: written-here}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{url: 'postgres://u:{planted}@db'}}\n"
    );
    let dry = step(&place, KubernetesAction::K8sDryRun {}, Some(&text));
    let (_, output) = succeed(&place, "h1", &dry).await;
    let shown = output.outputs["manifestDryRun"].value.as_str().unwrap();
    assert!(shown.contains("kind: Secret") && shown.contains("********"), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains("written-here"), "{shown}");
    assert!(place.get(&place.path("v1", "secrets/s")).await.is_none());
    succeed(&place, "h2", &step(&place, apply(), Some(&text))).await;
    let live = place.get(&place.path("v1", "configmaps/c")).await.unwrap();
    assert_eq!(live["data"]["url"], format!("postgres://u:{SECRET}@db"));
    let changed =
        step(&place, KubernetesAction::K8sDiff {}, Some(&text.replace("written-here", "changed-here")));
    let (world, output) = succeed(&place, "h3", &changed).await;
    let shown = output.outputs["manifestDiff"].value.as_str().unwrap();
    println!("{shown}");
    assert!(shown.contains("(before)") && shown.contains("(after)"), "{shown}");
    assert!(
        !shown.contains("written-here") && !shown.contains("changed-here") && !shown.contains(SECRET),
        "{shown}"
    );
    assert!(world.marks.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_brings_its_own_namespace_and_one_without_dry_run() {
    let base = Place::new("own-base").await;
    let place = Place { namespace: "own-space".into(), plane: base.plane, client: base.client.clone() };
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: own-space}\n---\n";
    let mut first = step(&place, rolling(false), Some(&format!("{namespace}{}", web("app:1", 1, "a"))));
    let (_, output) = succeed(&place, "o1", &first).await;
    assert_eq!(output.outputs["releaseNumber"].value, 1);
    let secret = place.get(&place.path("v1", "secrets/harness.release.release.1")).await.unwrap();
    assert_eq!(secret["metadata"]["labels"]["status"], "Succeeded");
    // A client-side apply in between is taken over without a dry run, too.
    let file = place.plane.dir().join("own.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {selector: {old: x}, ports: [{port: 80}]}\n").unwrap();
    place.plane.kubectl(&["-n", "own-space", "apply", "-f", file.to_str().unwrap()]);
    let late = "---\napiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {selector: {new: y}, ports: [{port: 80}]}\n";
    first = step(
        &place,
        KubernetesAction::K8sRollingDeploy {
            skip_dry_run: true,
            pruning_enabled: false,
            in_canary_workflow: false,
        },
        Some(&format!("{namespace}{}{late}", web("app:1", 1, "a"))),
    );
    let (world, _) = succeed(&place, "o2", &first).await;
    assert!(world.logs.everything().contains("the dry run is skipped"));
    let live = place.get(&place.path("v1", "services/late")).await.unwrap();
    assert_eq!(live["spec"]["selector"], json!({"new": "y"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_keeps_the_number_of_pods() {
    let place = Place::new("scaled").await;
    let autoscaler = "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec: {minReplicas: 1, maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}\n";
    let text = |image: &str| format!("{}{autoscaler}", web(image, 2, "a"));
    succeed(&place, "s1", &step(&place, rolling(false), Some(&text("app:1")))).await;
    // We own the field still: the next release must not let the server fall back to 1.
    succeed(&place, "s2", &step(&place, rolling(false), Some(&text("app:2")))).await;
    assert_eq!(deployment(&place).await["spec"]["replicas"], 2);
    // The autoscaler writes by the scale subresource.
    place.patch(&place.path("apps/v1", "deployments/web/scale"), json!({"spec": {"replicas": 4}})).await;
    let (world, _) = succeed(&place, "s3", &step(&place, rolling(false), Some(&text("app:3")))).await;
    assert!(world.logs.everything().contains("an autoscaler sets its replicas"));
    let live = deployment(&place).await;
    assert_eq!(live["spec"]["replicas"], 4);
    assert_eq!(live.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_release_is_rolled_back_without_an_answer_of_the_forward_step() {
    let place = Place::new("failing").await;
    succeed(&place, "f1", &step(&place, rolling(true), Some(&web("app:1", 1, "a")))).await;
    let bad = web("app:2-image-pull", 1, "b")
        + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, annotations: {harness.io/skip-versioning: 'true'}}\n";
    let (_, error) = fail(&place, "f2", &step(&place, rolling(true), Some(&bad))).await;
    println!("{} {error}", error.code);
    assert!(error.code.starts_with("KUBE-04"), "{error}");
    let secret = place.get(&place.path("v1", "secrets/harness.release.release.2")).await.unwrap();
    assert_eq!(secret["metadata"]["labels"]["status"], "Failed");
    // No undo data: the history knows what this execution did.
    let back = step(&place, KubernetesAction::K8sRollingRollback { pruning_enabled: true }, None);
    let shown = plan(&place, "f2", &back).await;
    assert!(shown.contains("delete failing/ConfigMap/extra") && shown.contains("app:1"), "{shown}");
    let mut again = world(&place, "f2", &back);
    again.task_id = "f2-rollback".into();
    let output = run_in(&again, &back).await.unwrap_or_else(|e| panic!("{e}\n{}", again.logs.everything()));
    assert_eq!(output.outputs["releaseNumber"].value, 1);
    assert_eq!(deployment(&place).await.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:1");
    assert!(place.get(&place.path("v1", "configmaps/extra")).await.is_none());
    // Another execution deployed nothing: nothing is rolled back.
    let (_, output) = succeed(&place, "f9", &back).await;
    assert!(output.skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_after_an_apply_alone_brings_the_last_release_back() {
    let place = Place::new("apply-back").await;
    let back = step(&place, KubernetesAction::K8sRollingRollback { pruning_enabled: false }, None);
    let (_, applied) = succeed(&place, "b0", &step(&place, apply(), Some(&web("app:9", 1, "z")))).await;
    let mut lone = world(&place, "b0", &back);
    Arc::make_mut(&mut lone.task).undo = applied.undo;
    let output = run_in(&lone, &back).await.unwrap();
    assert!(
        output.skipped && output.notices[0].contains("they stay as they are: apply-back/ConfigMap/conf"),
        "{:?}",
        output.notices
    );
    assert!(lone.marks.calls().is_empty());
    succeed(&place, "b1", &step(&place, rolling(false), Some(&web("app:1", 1, "a")))).await;
    let (_, applied) = succeed(&place, "b2", &step(&place, apply(), Some(&web("app:2", 1, "a")))).await;
    assert_eq!(deployment(&place).await.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:2");
    let mut undoing = world(&place, "b2-back", &back);
    Arc::make_mut(&mut undoing.task).undo = applied.undo;
    let output =
        run_in(&undoing, &back).await.unwrap_or_else(|e| panic!("{e}\n{}", undoing.logs.everything()));
    assert!(output.notices[0].contains("is applied again"), "{:?}", output.notices);
    assert_eq!(deployment(&place).await.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_executions_at_once_do_not_share_a_number() {
    let place = Place::new("at-once").await;
    let one = step(&place, rolling(false), Some(&web("app:1", 1, "a")));
    let two = step(&place, rolling(false), Some(&web("app:2", 1, "b")));
    let ((world1, first), (world2, second)) = tokio::join!(run(&place, "x1", &one), run(&place, "x2", &two));
    let done = [&first, &second].iter().filter(|r| r.is_ok()).count();
    assert!(done >= 1, "{}\n{}", world1.logs.everything(), world2.logs.everything());
    match (first, second) {
        (Ok(a), Ok(b)) => assert_ne!(a.outputs["releaseNumber"].value, b.outputs["releaseNumber"].value),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
            println!("{error}");
            assert_eq!(error.code, "KUBE-027", "{error}");
            assert!(error.what.contains("written by somebody else"), "{error}");
        }
        (Err(a), Err(b)) => panic!("{a}\n{b}"),
    }
    let labels = "owner=harness,release=release";
    let left = place.plane.kubectl(&["-n", "at-once", "get", "secrets", "-l", labels, "-o", "name"]);
    assert_eq!(left.lines().count(), done, "{left}");
}

/// A release as Harness' own delegate stores it: made by `gzip`, without what only we write.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_harness_own_delegate_goes_on_and_comes_back() {
    use base64::Engine as _;
    let place = Place::new("inherited").await;
    let gzip = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text");
        std::fs::write(&file, text).unwrap();
        let out = std::process::Command::new("gzip").args(["-9", "-c"]).arg(&file).output().unwrap();
        base64::engine::general_purpose::STANDARD.encode(out.stdout)
    };
    // The older format: one ConfigMap of the release's name.
    let text = "---\nversion: \"v1\"\nreleases:\n- number: 6\n  status: \"Succeeded\"\n- number: 5\n  status: \"Failed\"\n";
    let older = json!({"metadata": {"name": "release"}, "data": {"releaseHistory": gzip(text), "isReleaseHistoryCompressed": "true"}});
    place.post(&place.path("v1", "configmaps"), older).await.unwrap();
    // What it deployed by `kubectl apply`, and its newer record.
    let objects = web("app:1", 1, "a");
    let file = place.plane.dir().join("inherited.yaml");
    std::fs::write(&file, &objects).unwrap();
    place.plane.kubectl(&["-n", "inherited", "apply", "-f", file.to_str().unwrap()]);
    let (_, output) = succeed(&place, "i1", &step(&place, rolling(false), Some(&web("app:2", 1, "b")))).await;
    assert_eq!(output.outputs["releaseNumber"].value, 7, "the older numbers go on");
    place.delete(&place.path("v1", "secrets/harness.release.release.7")).await;
    let record = json!({"type": "harness.io/release/v2", "metadata": {"name": "harness.release.release.8",
        "labels": {"release": "release", "release-number": "8", "owner": "harness", "status": "Succeeded"}},
        "data": {"release": gzip(&objects)}});
    place.post(&place.path("v1", "secrets"), record).await.unwrap();
    let bad = step(&place, rolling(false), Some(&web("app:3-image-pull", 1, "c")));
    let (_, error) = fail(&place, "i2", &bad).await;
    assert!(error.code.starts_with("KUBE-04"), "{error}");
    let back = step(&place, KubernetesAction::K8sRollingRollback { pruning_enabled: false }, None);
    let mut again = world(&place, "i2", &back);
    again.task_id = "i2-back".into();
    let output = run_in(&again, &back).await.unwrap_or_else(|e| panic!("{e}\n{}", again.logs.everything()));
    assert_eq!(output.outputs["releaseNumber"].value, 8);
    let live = deployment(&place).await;
    assert_eq!(live.pointer("/spec/template/spec/containers/0/image").unwrap(), "app:1");
    assert_eq!(live.pointer("/spec/template/spec/containers/0/envFrom/0/configMapRef/name").unwrap(), "conf");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_own_scale_wrote_is_no_conflict() {
    let place = Place::new("rescaled").await;
    succeed(&place, "z1", &step(&place, rolling(false), Some(&web("app:1", 1, "a")))).await;
    let scale = KubernetesAction::K8sScale {
        workload: "Deployment/web".into(),
        instances: proto::task::Instances::Count(3),
        skip_steady_state_check: true,
    };
    succeed(&place, "z2", &step(&place, scale, None)).await;
    assert_eq!(deployment(&place).await["spec"]["replicas"], 3);
    succeed(&place, "z3", &step(&place, rolling(false), Some(&web("app:1", 1, "a")))).await;
    assert_eq!(deployment(&place).await["spec"]["replicas"], 1);
    // A restart leaves its mark in the pod template; the next release must not take it away, or pods are replaced again.
    let restart = KubernetesAction::K8sRollout {
        command: "restart".into(),
        resources: Selection::Names(vec!["Deployment/web".into()]),
    };
    succeed(&place, "z4", &step(&place, restart, None)).await;
    let before = deployment(&place).await["metadata"]["generation"].clone();
    succeed(&place, "z5", &step(&place, rolling(false), Some(&web("app:1", 1, "a")))).await;
    assert_eq!(deployment(&place).await["metadata"]["generation"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_load_balancers_stand_in_the_outcome_once_there_are_some() {
    let place = Place::new("balanced").await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}\n";
    let (world, output) = succeed(&place, "b1", &step(&place, rolling(false), Some(service))).await;
    assert!(!output.outputs.contains_key("loadBalancer"), "there is nobody who gives one");
    let log = world.logs.everything();
    assert!(log.contains("balanced/Service/web: its load balancer has no address yet"), "{log}");
    // What a controller of the cloud does.
    let ingress = json!([{"ip": "192.0.2.10"}, {"hostname": "lb.example.com"}]);
    let status = place.path("v1", "services/web/status");
    place.patch(&status, json!({"status": {"loadBalancer": {"ingress": ingress}}})).await;
    for (key, action) in [("b2", rolling(false)), ("b3", apply())] {
        let (world, output) = succeed(&place, key, &step(&place, action, Some(service))).await;
        assert_eq!(output.outputs["loadBalancer"].value, json!(["192.0.2.10", "lb.example.com"]), "{key}");
        let log = world.logs.everything();
        assert!(log.contains("balanced/Service/web is reached at 192.0.2.10, lb.example.com"), "{log}");
    }
}
