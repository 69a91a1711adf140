//! Manifests from real sources through the real programs: Git over HTTP with a token, helm, kustomize, a repository of
//! charts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]
#![allow(dead_code, unreachable_pub, reason = "The shared peers have more than this file uses.")]

mod peer;
#[path = "../../../tests/src/wait.rs"]
mod wait;

#[path = "../../../tests/src/peers"]
mod peers {
    pub mod owned;
    pub mod registry;
    pub mod web;
}

use executor_api::testing::World;
use executor_api::{CancelReason, StepError};
use executor_kube::manifests::{Loaded, chosen, load};
use peer::tools::{run_again, with_tools};
use peers::registry::Registry;
use peers::web::{Artifacts, GitServer};
use proto::task::{KubernetesSpec, StepTask};
use proto::text::{SecretRef, placeholder};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const TOKEN: i64 = 7;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn world(artifact: Option<&str>) -> World {
    let mut task: StepTask = serde_json::from_value(json!({
        "version": 1, "step": {"type": "Noop", "identifier": "s", "name": "s", "spec": {"line": ""}},
        "execution": {}, "secretToken": TOKEN,
    }))
    .unwrap();
    if let Some(tag) = artifact {
        let spec = json!({"connector": {"identifier": "d", "url": "http://r"}, "imagePath": "x"});
        let artifact = json!({"source": {"type": "DockerRegistry", "spec": spec}, "tag": tag});
        task.artifact = Some(serde_json::from_value(artifact).unwrap());
    }
    let secrets = [("git_token", "git-token-1"), ("db", "s3cr3t-value"), ("charts", "chart-pw-1")];
    World::new("t", task, secrets.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn spec(manifest: Value, overrides: Value, flags: Value, action: Value) -> KubernetesSpec {
    serde_json::from_value(json!({
        "cluster": {"connector": "c", "credential": {"type": "InheritFromDelegate"}},
        "namespace": "shop", "releaseName": "shop", "manifest": manifest, "overrides": overrides,
        "commandFlags": flags, "action": action,
    }))
    .unwrap()
}

fn rolling() -> Value {
    json!({"do": "K8sRollingDeploy", "skipDryRun": false, "pruningEnabled": false, "inCanaryWorkflow": false})
}

fn apply(files: &[&str]) -> Value {
    json!({"do": "K8sApply", "filePaths": files, "skipDryRun": false, "skipSteadyStateCheck": false, "skipRendering": false})
}

fn inline(path: &str, content: &str) -> Value {
    json!({"type": "Inline", "spec": {"path": path, "content": content}})
}

fn git(server: &GitServer, repository: &str, reference: Value, paths: &[&str]) -> Value {
    json!({"type": "Git", "spec": {
        "connector": {
            "identifier": "repo", "url": format!("http://127.0.0.1:{}/{repository}", server.port),
            "auth": {"type": "UsernamePassword", "username": "robot", "password": "git_token"},
        },
        "reference": reference, "paths": paths,
    }})
}

fn main_branch() -> Value {
    json!({"type": "Branch", "value": "main"})
}

async fn loaded(world: &World, spec: &KubernetesSpec) -> Result<Loaded, StepError> {
    let (_handle, cx) = world.context();
    let log = cx.logs.unit("Fetch Files");
    let client = sources::Client::new(sources::ClientOptions::default()).unwrap();
    let loaded = load(&client, spec, chosen(&spec.action), &cx, log.as_ref()).await;
    let left: Vec<_> = std::fs::read_dir(&cx.scratch)
        .map(|all| {
            all.filter_map(Result::ok)
                .flat_map(|one| match one.file_name().to_string_lossy().as_ref() {
                    "git" => std::fs::read_dir(one.path()).unwrap().filter_map(Result::ok).collect(),
                    _ => vec![one],
                })
                .collect()
        })
        .unwrap_or_default();
    assert!(left.is_empty(), "working folders stay behind: {left:?}");
    loaded
}

fn all_text(loaded: &Loaded) -> String {
    loaded.documents.iter().map(|document| format!("--- {}\n{}", document.source, document.text)).collect()
}

const DEPLOYMENT: &str = "kind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers: [{name: a, image: reg/app:PLACEHOLDER_TAG}]\n";

#[test]
fn plain_files_come_from_one_commit_of_git_and_images_get_their_tag() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let server = GitServer::start(dir.path(), "robot", "git-token-1").await;
        let commit = server.repository(
            "config",
            &[("gen/prod/manifests.yaml", DEPLOYMENT), ("gen/prod/more/b.yml", "kind: Service\n---\nkind: Job\n"), ("gen/README.md", "x")],
        );
        let world = world(Some("v2.3.1"));
        let manifest = |reference: Value, paths: &[&str]| {
            json!({"identifier": "m", "kind": {"type": "K8sManifest"}, "store": git(&server, "config", reference, paths)})
        };
        let one = spec(manifest(main_branch(), &["gen"]), json!([]), json!([]), rolling());
        let found = loaded(&world, &one).await.unwrap();
        assert_eq!(found.commit.as_deref(), Some(commit.as_str()));
        let sources: Vec<&str> = found.documents.iter().map(|document| document.source.as_str()).collect();
        assert_eq!(sources, ["gen/prod/manifests.yaml", "gen/prod/more/b.yml", "gen/prod/more/b.yml"]);
        assert!(found.documents[0].text.contains("reg/app:v2.3.1"), "{}", all_text(&found));
        let log = world.logs.everything();
        assert!(log.contains(&commit) && log.contains("- gen/prod/more/b.yml") && log.contains("R13"), "{log}");
        // The commit itself, and several paths.
        let reference = json!({"type": "Commit", "value": commit});
        let two = spec(manifest(reference, &["gen/prod/more", "gen/prod/manifests.yaml"]), json!([]), json!([]), apply(&["b.yml"]));
        assert_eq!(loaded(&world, &two).await.unwrap().documents.len(), 2);
        let missing = spec(manifest(main_branch(), &["gen/prod"]), json!([]), json!([]), apply(&["manifest.yaml"]));
        let error = loaded(&world, &missing).await.unwrap_err();
        assert_eq!(error.code, "KUBE-062");
        assert!(error.what.contains("near: gen/prod/manifests.yaml"), "{}", error.what);
        let missing = spec(manifest(main_branch(), &["gen/prd"]), json!([]), json!([]), rolling());
        let error = loaded(&world, &missing).await.unwrap_err();
        assert_eq!(error.code, "SRC-017", "{}", error.what);
    });
}

#[test]
fn a_manifest_may_come_with_its_files_in_the_task() {
    with_tools("a_manifest_may_come_with_its_files_in_the_task", async {
        let world = world(Some("v1"));
        let of = |kind: Value, all: &[(&str, &str)]| {
            let files: Vec<Value> =
                all.iter().map(|(path, content)| json!({"path": path, "content": content})).collect();
            json!({"identifier": "m", "kind": kind, "files": files})
        };
        let secret = format!(
            "kind: Secret\nmetadata: {{name: s}}\nstringData: {{a: '{}'}}\n",
            placeholder(&SecretRef("db".into()), TOKEN)
        );
        let plain = of(
            json!({"type": "K8sManifest"}),
            &[("k8s/a.yaml", DEPLOYMENT), ("k8s/b.yaml", &secret), ("k8s/values.yaml", "x: 1")],
        );
        let found = loaded(&world, &spec(plain.clone(), json!([]), json!([]), rolling())).await.unwrap();
        let sources: Vec<&str> = found.documents.iter().map(|document| document.source.as_str()).collect();
        assert_eq!(sources, ["k8s/a.yaml", "k8s/b.yaml"]);
        assert!(all_text(&found).contains("s3cr3t-value") && found.commit.is_none());
        let one = loaded(&world, &spec(plain, json!([]), json!([]), apply(&["b.yaml"]))).await.unwrap();
        assert_eq!(one.documents.len(), 1);
        let chart = [
            ("charts/web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\n"),
            ("charts/web/values.yaml", "replicas: 1\n"),
            (
                "charts/web/templates/d.yaml",
                "kind: Deployment\nmetadata: {name: web}\nspec: {replicas: {{ .Values.replicas }}}\n",
            ),
        ];
        let chart = of(json!({"type": "HelmChart", "chartName": "charts/web"}), &chart);
        let overrides = json!([inline("values-0.yaml", "replicas: 4\n")]);
        let found = loaded(&world, &spec(chart, overrides, json!([]), rolling())).await.unwrap();
        assert!(all_text(&found).contains("replicas: 4"), "{}", all_text(&found));
        let overlay = [
            ("base/kustomization.yaml", "resources: [d.yaml]\n"),
            ("base/d.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"),
            ("prod/kustomization.yaml", "resources: [../base]\nnamePrefix: prod-\n"),
        ];
        let overlay = of(json!({"type": "Kustomize", "folder": "prod"}), &overlay);
        let found = loaded(&world, &spec(overlay, json!([]), json!([]), rolling())).await.unwrap();
        assert!(all_text(&found).contains("prod-c"), "{}", all_text(&found));
    });
}

#[test]
fn templates_take_values_of_every_level_and_secrets_never_reach_the_log() {
    with_tools("templates_take_values_of_every_level_and_secrets_never_reach_the_log", async {
        let dir = tempfile::tempdir().unwrap();
        let server = GitServer::start(dir.path(), "robot", "git-token-1").await;
        let template = "# a template\n{{- range $name, $value := .Values.settings }}\n---\nkind: ConfigMap\nmetadata: {name: {{ $name | quote }}}\ndata: {value: {{ $value | quote }}}\n{{- end }}\n---\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: {{ .Values.replicas }}, template: {spec: {containers: [{name: a, image: \"{{ .Values.image }}:PLACEHOLDER_TAG\"}]}}}\n";
        server.repository(
            "config",
            &[("k8s/_app.yaml", template), ("k8s/values.yaml", "replicas: 1\nimage: reg/app\nsettings: {a: base, b: base}\n"), ("k8s/job.yaml", "# harness.io/skip-file-for-deploy\nkind: Job\nmetadata: {name: {{ .Values.image | quote }}}\n")],
        );
        let world = world(Some("v9"));
        let kind = json!({"type": "K8sManifest", "valuesPaths": ["k8s/values.yaml"]});
        let manifest = json!({"identifier": "m", "kind": kind, "store": git(&server, "config", main_branch(), &["k8s"])});
        let secret = placeholder(&SecretRef("db".into()), TOKEN);
        let overrides = json!([
            inline("env.yaml", &format!("replicas: 3\nsettings: {{b: '{secret}'}}\n")),
            inline("step.yaml", "replicas: 5\n")
        ]);
        let found = loaded(&world, &spec(manifest.clone(), overrides, json!([]), rolling())).await.unwrap();
        let text = all_text(&found);
        assert!(
            text.contains("replicas: 5") && text.contains("value: \"base\"") && text.contains("s3cr3t-value"),
            "{text}"
        );
        assert!(text.contains("reg/app:v9"), "R13 after rendering: {text}");
        let job = found.documents.iter().find(|one| one.source == "k8s/job.yaml").unwrap();
        assert!(job.skip_for_deploy && found.documents.iter().filter(|one| one.skip_for_deploy).count() == 1);
        assert_eq!(found.documents.iter().filter(|one| one.source == "k8s/_app.yaml").count(), 3);
        assert!(!world.logs.everything().contains("s3cr3t-value"));
        // A mistake in a template is told with the file's own name.
        let wrong = json!({"identifier": "m", "kind": {"type": "K8sManifest"}, "store": inline("wrong.yaml", "kind: {{ .Values.a | nofunction }}\n")});
        let error = loaded(&world, &spec(wrong, json!([inline("v.yaml", "a: 1")]), json!([]), rolling()))
            .await
            .unwrap_err();
        assert_eq!(error.code, "KUBE-061");
        assert!(error.what.contains("wrong.yaml") && error.what.contains("nofunction"), "{}", error.what);
        // Without values, or when the step says so, braces are only text.
        let plain = json!({"identifier": "m", "kind": {"type": "K8sManifest"}, "store": inline("plain.yaml", "kind: ConfigMap\ndata: {a: '{{ .Values.x }}'}\n")});
        let found = loaded(&world, &spec(plain, json!([]), json!([]), rolling())).await.unwrap();
        assert!(found.documents[0].text.contains("{{ .Values.x }}"));
        let list = json!([inline("v.yaml", "- no mapping")]);
        let error = loaded(&world, &spec(manifest, list, json!([]), rolling())).await.unwrap_err();
        assert_eq!(error.code, "KUBE-064", "{}", error.what);
    });
}

const CHART: &str = "apiVersion: v2\nname: web\nversion: 1.4.0\n";
const CHART_TEMPLATE: &str = "kind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-{{ .Chart.Version }}, namespace: {{ .Release.Namespace }}}\ndata: {level: {{ .Values.level | quote }}}\n";

#[test]
fn values_files_that_are_optional_may_be_missing() {
    with_tools("values_files_that_are_optional_may_be_missing", async {
        let dir = tempfile::tempdir().unwrap();
        let server = GitServer::start(dir.path(), "robot", "git-token-1").await;
        server.repository(
            "config",
            &[
                (
                    "gen/a.yaml",
                    "kind: ConfigMap\nmetadata: {name: a}\ndata: {level: {{ .Values.level | quote }}}\n",
                ),
                ("values/prod.yaml", "level: debug\n"),
                ("web/Chart.yaml", CHART),
                ("web/templates/a.yaml", CHART_TEMPLATE),
            ],
        );
        let world = world(None);
        let manifest = |kind: Value, folder: &str, optional: bool| {
            json!({"identifier": "m", "kind": kind, "optionalValues": optional,
                "store": git(&server, "config", main_branch(), &[folder])})
        };
        let paths = json!(["values/prod.yaml", "values/nobody.yaml"]);
        let plain = json!({"type": "K8sManifest", "valuesPaths": paths});
        let chart = json!({"type": "HelmChart", "chartName": "web", "valuesPaths": paths});
        for (kind, folder) in [(plain, "gen"), (chart, "web")] {
            let optional = spec(manifest(kind.clone(), folder, true), json!([]), json!([]), rolling());
            let found = loaded(&world, &optional).await.unwrap();
            let text = all_text(&found);
            assert!(text.contains("\"debug\"") && !text.contains("values/prod.yaml"), "{text}");
            let needed = spec(manifest(kind, folder, false), json!([]), json!([]), rolling());
            let error = loaded(&world, &needed).await.unwrap_err();
            assert_eq!(error.code, "SRC-017", "{}", error.what);
            assert!(error.what.contains("values/nobody.yaml"), "{}", error.what);
        }
        let log = world.logs.everything();
        assert_eq!(log.matches("values/nobody.yaml is not there; it is optional").count(), 2, "{log}");
    });
}

#[test]
fn charts_come_from_git_and_from_repositories() {
    with_tools("charts_come_from_git_and_from_repositories", async {
        let dir = tempfile::tempdir().unwrap();
        let server = GitServer::start(dir.path(), "robot", "git-token-1").await;
        server.repository(
            "charts",
            &[
                ("web/Chart.yaml", CHART),
                ("web/templates/a.yaml", CHART_TEMPLATE),
                ("web/templates/b.yaml", "kind: Job\nmetadata: {name: b}\n"),
                ("web/values.yaml", "level: info\n"),
                ("web/crds/c.yaml", "kind: CustomResourceDefinition\nmetadata: {name: c}\n"),
            ],
        );
        let world = world(None);
        let chart = |name: &str| json!({"type": "HelmChart", "chartName": name});
        let manifest = json!({"identifier": "m", "kind": chart("web"), "store": git(&server, "charts", main_branch(), &["web"])});
        let flags = json!([{"command": "Template", "flag": "--include-crds"}, {"command": "Apply", "flag": "--force-conflicts"}]);
        let found =
            loaded(&world, &spec(manifest.clone(), json!([inline("v", "level: debug")]), flags, rolling()))
                .await
                .unwrap();
        let text = all_text(&found);
        assert!(
            text.contains("shop-1.4.0")
                && text.contains("namespace: shop")
                && text.contains("\"debug\"")
                && text.contains("CustomResourceDefinition"),
            "{text}"
        );
        let about = found.chart.unwrap();
        assert_eq!((about.name.as_str(), about.version.as_str()), ("web", "1.4.0"));
        assert_eq!(found.commit.map(|commit| commit.len()), Some(40));
        let some =
            loaded(&world, &spec(manifest.clone(), json!([]), json!([]), apply(&["templates/b.yaml"])))
                .await
                .unwrap();
        assert_eq!(some.documents.len(), 1, "{}", all_text(&some));
        for flag in ["--post-renderer=/bin/sh", "--kubeconfig=/x", "--output-dir=/tmp"] {
            let flags = json!([{"command": "Template", "flag": flag}]);
            let error =
                loaded(&world, &spec(manifest.clone(), json!([]), flags, rolling())).await.unwrap_err();
            assert_eq!(error.code, "KUBE-069", "{flag}: {}", error.what);
        }

        // A repository behind a password, made by helm itself.
        let artifacts = Artifacts::start(dir.path(), "reader", "chart-pw-1").await;
        let url = format!("http://127.0.0.1:{}/artifactory/charts", artifacts.port);
        publish(dir.path(), &artifacts, &url);
        let repository = |url: &str, password: &str| {
            json!({"type": "Http", "spec": {
                "identifier": "charts", "url": url,
                "auth": {"type": "UsernamePassword", "username": "reader", "password": password},
            }})
        };
        let from = |url: &str, name: &str, version: Value, password: &str| {
            let kind = json!({"type": "HelmChart", "chartName": name, "chartVersion": version, "repository": repository(url, password)});
            spec(json!({"identifier": "m", "kind": kind}), json!([]), json!([]), rolling())
        };
        let found = loaded(&world, &from(&url, "web", json!("1.4.0"), "charts")).await.unwrap();
        assert!(all_text(&found).contains("shop-1.4.0"), "{}", all_text(&found));
        assert_eq!(found.chart.unwrap().repository, url);
        let found = loaded(&world, &from(&url, "web", Value::Null, "charts")).await.unwrap();
        assert_eq!(found.chart.unwrap().version, "1.5.0", "the newest");
        let error = loaded(&world, &from(&url, "web", json!("9.9.9"), "charts")).await.unwrap_err();
        assert_eq!(error.code, "KUBE-070");
        assert!(error.what.contains("9.9.9") && error.what.contains("web"), "{}", error.what);
        let error = loaded(&world, &from(&url, "web", Value::Null, "db")).await.unwrap_err();
        assert!(error.what.contains("401") && !error.what.contains("s3cr3t-value"), "{}", error.what);
        assert!(!world.logs.everything().contains("chart-pw-1"));
    });
}

#[test]
fn charts_come_from_a_registry_behind_a_password() {
    with_tools("charts_come_from_a_registry_behind_a_password", async {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::closed(dir.path(), "reader", "chart-pw-1").await;
        let host = format!("127.0.0.1:{}", registry.port);
        let work = dir.path().join("push");
        let login = [
            "registry",
            "login",
            &host,
            "--plain-http",
            "-u",
            "reader",
            "-p",
            "chart-pw-1",
            "--registry-config",
            "r.json",
        ];
        for version in ["1.4.0", "1.5.0"] {
            pack(&work, version);
            if version == "1.4.0" {
                helm(&work, &login);
            }
            let (packed, place) = (format!("out/web-{version}.tgz"), format!("oci://{host}/team/charts"));
            helm(&work, &["push", &packed, &place, "--plain-http", "--registry-config", "r.json"]);
        }
        let world = world(None);
        let from = |path: &str, name: &str, version: Value, password: &str| {
            let repository = json!({"type": "Oci", "spec": {
                "identifier": "charts", "url": format!("http://{host}/{path}"),
                "auth": {"type": "UsernamePassword", "username": "reader", "password": password},
            }});
            let kind = json!({"type": "HelmChart", "chartName": name, "chartVersion": version, "repository": repository});
            spec(
                json!({"identifier": "m", "kind": kind}),
                json!([inline("v", "level: debug")]),
                json!([]),
                rolling(),
            )
        };
        let found = loaded(&world, &from("team/charts", "web", json!("1.4.0"), "charts")).await.unwrap();
        let text = all_text(&found);
        assert!(text.contains("shop-1.4.0") && text.contains("\"debug\""), "{text}");
        let about = found.chart.unwrap();
        assert_eq!(
            (about.version.as_str(), about.repository),
            ("1.4.0", format!("http://{host}/team/charts"))
        );
        let found = loaded(&world, &from("team/charts", "web", Value::Null, "charts")).await.unwrap();
        assert_eq!(found.chart.unwrap().version, "1.5.0", "the newest");
        for (path, name, version, password, said) in [
            ("team/charts", "web", json!("9.9.9"), "charts", "9.9.9"),
            ("team/charts", "nothing", Value::Null, "charts", "nothing"),
            ("team/charts", "web", json!("1.4.0"), "db", "401"),
        ] {
            let error = loaded(&world, &from(path, name, version, password)).await.unwrap_err();
            assert_eq!(error.code, "KUBE-070", "{}", error.what);
            assert!(
                error.what.contains(said) && !error.what.contains("s3cr3t-value"),
                "{said}: {}",
                error.what
            );
        }
        assert!(!world.logs.everything().contains("chart-pw-1"));
    });
}

/// One version of the chart, packed by helm into `out/`.
fn pack(work: &Path, version: &str) {
    let chart = work.join(format!("src-{version}/web"));
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(chart.join("Chart.yaml"), CHART.replace("1.4.0", version)).unwrap();
    std::fs::write(chart.join("values.yaml"), "level: info\n").unwrap();
    std::fs::write(chart.join("templates/a.yaml"), CHART_TEMPLATE).unwrap();
    helm(work, &["package", chart.to_str().unwrap(), "-d", "out"]);
}

/// Two versions of the chart and an index, packed by helm.
fn publish(dir: &Path, artifacts: &Artifacts, url: &str) {
    let work = dir.join("publish");
    for version in ["1.4.0", "1.5.0"] {
        pack(&work, version);
    }
    helm(&work, &["repo", "index", "out", "--url", url]);
    for entry in std::fs::read_dir(work.join("out")).unwrap().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        artifacts.put(&format!("charts/{name}"), &std::fs::read(entry.path()).unwrap());
    }
}

fn helm(work: &Path, args: &[&str]) {
    let output = Command::new("helm").args(args).current_dir(work).env("HOME", work).output().unwrap();
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn overlays_are_built_with_patches_laid_over_them() {
    with_tools("overlays_are_built_with_patches_laid_over_them", async {
        let dir = tempfile::tempdir().unwrap();
        let server = GitServer::start(dir.path(), "robot", "git-token-1").await;
        server.repository(
            "config",
            &[
                ("deploy/base/kustomization.yaml", "resources: [web.yaml]\n"),
                ("deploy/base/web.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 1, template: {spec: {containers: [{name: a, image: app}]}}}\n"),
                ("deploy/overlays/prod/kustomization.yaml", "resources: [../../base]\nnamePrefix: prod-\nimages: [{name: app, newTag: PLACEHOLDER_TAG}]\n"),
                ("deploy/patches/scale.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 4}\n"),
            ],
        );
        let world = world(Some("v7"));
        let manifest = |folder: &str| {
            let kind =
                json!({"type": "Kustomize", "folder": folder, "patchesPaths": ["deploy/patches/scale.yaml"]});
            json!({"identifier": "m", "kind": kind, "store": git(&server, "config", main_branch(), &["deploy"])})
        };
        let patch = inline(
            "p.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {metadata: {annotations: {a: b}}}}\n",
        );
        let found = loaded(&world, &spec(manifest("overlays/prod"), json!([patch]), json!([]), rolling()))
            .await
            .unwrap();
        let text = all_text(&found);
        assert!(
            text.contains("name: prod-web")
                && text.contains("replicas: 4")
                && text.contains("a: b")
                && text.contains("image: app:v7"),
            "{text}"
        );
        let error = loaded(&world, &spec(manifest("overlays/prd"), json!([]), json!([]), rolling()))
            .await
            .unwrap_err();
        assert_eq!(error.code, "KUBE-062");
        assert!(error.what.contains("deploy/overlays/prod"), "{}", error.what);
    });
}

#[test]
fn a_missing_program_is_named_with_what_to_do() {
    if std::env::var_os("DELEGATE_TEST_TOOLS").is_none() {
        // A search path that holds neither helm, kustomize nor kubectl.
        return run_again("a_missing_program_is_named_with_what_to_do", "/nonexistent");
    }
    runtime().block_on(async {
        let world = world(None);
        let manifest = json!({"identifier": "m", "kind": {"type": "K8sManifest"}, "store": inline("a.yaml", "kind: Job")});
        let error = loaded(&world, &spec(manifest, json!([inline("v.yaml", "a: 1")]), json!([]), rolling())).await.unwrap_err();
        assert_eq!(error.code, "KUBE-060");
        assert!(error.what.contains("`helm` is not installed on this agent"), "{}", error.what);
        assert!(error.hint.unwrap().contains("delegateSelectors"));
        let manifest = json!({"identifier": "m", "kind": {"type": "Kustomize"}, "store": inline("kustomization.yaml", "resources: []")});
        let mut spec = spec(manifest, json!([]), json!([]), rolling());
        spec.manifest.as_mut().unwrap().kind = serde_json::from_value(json!({"type": "Kustomize", "folder": "."})).unwrap();
        let error = loaded(&world, &spec).await.unwrap_err();
        assert_eq!(error.code, "KUBE-060");
        assert!(error.what.contains("kustomize"), "{}", error.what);
    });
}

#[test]
fn a_cancelled_step_stops_fetching() {
    runtime().block_on(async {
        let world = world(None);
        let (handle, cx) = world.context();
        // Nobody ever answers at this address.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/config", listener.local_addr().unwrap());
        let store = json!({"type": "Git", "spec": {"connector": {"identifier": "r", "url": url}, "reference": main_branch(), "paths": ["a"]}});
        let spec = spec(json!({"identifier": "m", "kind": {"type": "K8sManifest"}, "store": store}), json!([]), json!([]), rolling());
        let client = sources::Client::new(sources::ClientOptions::default()).unwrap();
        let log = cx.logs.unit("Fetch Files");
        let loading = load(&client, &spec, &[], &cx, log.as_ref());
        let cancel = async {
            tokio::task::spawn_blocking(move || listener.accept().unwrap()).await.unwrap();
            handle.cancel(CancelReason::User, executor_api::CancelStage::Ask);
        };
        let (error, ()) = tokio::join!(loading, cancel);
        let error = error.unwrap_err();
        assert!(matches!(error.class, executor_api::Class::Cancelled { reason: CancelReason::User }), "{error:?}");
    });
}
